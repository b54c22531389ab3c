//! Tests of the request parser: exact error texts, splits at every byte, quoting, and round trips.

use super::*;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

const AUTH: Limits = Limits::AUTHENTICATED;
const NOAUTH: Limits = Limits::UNAUTHENTICATED;

/// The requests that were found, each as its arguments, and the number of bytes left over.
type Outcome = Result<(Vec<Request>, usize), ProtocolError>;
type Request = Vec<Vec<u8>>;

/// All requests of `input`, which arrives in pieces that end at `cuts`, and what is left over; or the error.
fn parse_split(input: &[u8], limits: &Limits, cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut parser = RequestParser::default();
    let mut spans = vec![(7, 7)];
    let mut requests = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([input.len()]) {
        loop {
            let buf = &input[start..end];
            match parser.parse(buf, limits, &mut spans)? {
                Parsed::Complete { consumed } => {
                    let bytes = parser.bytes(buf);
                    let args = spans.iter().map(|&(s, e)| bytes[s as usize..e as usize].to_vec());
                    requests.push(args.collect());
                    assert!(!parser.is_unfinished());
                    start += consumed;
                }
                Parsed::Incomplete { need } => {
                    assert!(spans.is_empty());
                    assert!(need == 0 || need > buf.len(), "a hint asks for what is not there");
                    assert_eq!(parser.is_unfinished(), !buf.is_empty());
                    break;
                }
            }
        }
    }
    Ok((requests, input.len() - start))
}

fn whole(input: &[u8]) -> Outcome {
    parse_split(input, &AUTH, [])
}

fn text(result: Outcome) -> String {
    result.expect_err("must be refused").to_string()
}

fn words(args: &[&str]) -> Vec<Vec<u8>> {
    args.iter().map(|a| a.as_bytes().to_vec()).collect()
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn spans_point_at_the_arguments() {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    let buf = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n*1\r\n";
    let parsed = parser.parse(buf, &AUTH, &mut spans).unwrap();
    assert_eq!(parsed, Parsed::Complete { consumed: 26 });
    assert_eq!(spans, [(8, 11), (17, 18), (24, 24)]);
    assert!(!parser.is_owned());
    let parsed = parser.parse(&buf[26..], &AUTH, &mut spans).unwrap();
    assert_eq!(parsed, Parsed::Incomplete { need: 0 });
}

#[test]
fn pipelined_requests_split_at_every_byte_are_the_same() {
    let input = b"*2\r\n$3\r\nGET\r\n$5\r\nk\r\n\0y\r\nPING\r\n\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n\
        set \"a b\" 'c\\'d'\r\nmget  a\tb \n*3\r\n$4\r\nMSET\r\n$12\r\nhello world!\r\n$1\r\n1\r\n*1";
    let expected = vec![
        words(&["GET", "k\r\n\0y"]),
        words(&["PING"]),
        vec![],
        vec![],
        vec![],
        words(&[""]),
        words(&["set", "a b", "c'd"]),
        words(&["mget", "a", "b"]),
        words(&["MSET", "hello world!", "1"]),
    ];
    assert_eq!(whole(input), Ok((expected.clone(), 2)));
    for cut in 0..input.len() {
        assert_eq!(parse_split(input, &AUTH, [cut]), Ok((expected.clone(), 2)), "cut at {cut}");
    }
    assert_eq!(parse_split(input, &AUTH, 0..input.len()), Ok((expected, 2)), "byte by byte");
}

#[test]
fn every_command_cut_at_every_byte_is_incomplete() {
    let command = encode(&words(&["SET", "key", "value", "EX", "100"]));
    for end in 0..command.len() {
        assert_eq!(whole(&command[..end]), Ok((vec![], end)));
        assert_eq!(parse_split(&command[..end], &AUTH, 0..end), Ok((vec![], end)));
    }
}

#[test]
fn nothing_is_asked_of_the_sender_for_empty_requests() {
    for empty in ["*0\r\n", "*-1\r\n", "*-5\r\n", "\r\n", "\n", "   \r\n", "\t \n"] {
        assert_eq!(whole(empty.as_bytes()), Ok((vec![vec![]], 0)), "{empty:?}");
    }
}

#[test]
fn a_wrong_number_of_arguments_is_an_invalid_multibulk_length() {
    let expected = "Protocol error: invalid multibulk length";
    for bad in [
        "*1000000000000\r\n",
        "*abc\r\n",
        "*\r\n",
        "*1x\r\n",
        "*01\r\n",
        "*+1\r\n",
        "*-0\r\n",
        "* 1\r\n",
        "*1 \r\n",
        "*1048577\r\n",
        "*2147483648\r\n",
        "*9223372036854775808\r\n",
        "*99999999999999999999999\r\n",
        "*1\rx",
    ] {
        assert_eq!(text(whole(bad.as_bytes())), expected, "{bad:?}");
        let bytewise = parse_split(bad.as_bytes(), &AUTH, 0..bad.len());
        assert_eq!(text(bytewise), expected, "{bad:?} byte by byte");
    }
    assert_eq!(whole(b"*1048576\r\n"), Ok((vec![], 10)), "the limit itself is allowed");
}

#[test]
fn a_wrong_length_of_an_argument_is_an_invalid_bulk_length() {
    let expected = "Protocol error: invalid bulk length";
    for bad in [
        "*1\r\n$-5\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$9223372036854775807\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$abc\r\n",
        "*1\r\n$03\r\n",
        "*1\r\n$3\rx",
    ] {
        assert_eq!(text(whole(bad.as_bytes())), expected, "{bad:?}");
        let bytewise = parse_split(bad.as_bytes(), &AUTH, 0..bad.len());
        assert_eq!(text(bytewise), expected, "{bad:?} byte by byte");
    }
}

#[test]
fn an_argument_starts_with_a_dollar() {
    assert_eq!(text(whole(b"*1\r\nxPING")), "Protocol error: expected '$', got 'x'");
    assert_eq!(text(whole(b"*1\r\n*1\r\n")), "Protocol error: expected '$', got '*'");
    assert_eq!(text(whole(b"*1\r\n'")), "Protocol error: expected '$', got '''");
    assert_eq!(text(whole(b"*1\r\n\\")), "Protocol error: expected '$', got '\\'");
    assert_eq!(text(whole(b"*1\r\n\r\n")), "Protocol error: expected '$', got '\\r'");
    assert_eq!(text(whole(b"*1\r\n\xff")), "Protocol error: expected '$', got '\\xff'");
}

#[test]
fn an_argument_ends_where_it_said() {
    for bad in ["*1\r\n$4\r\nPINGS\r\n", "*1\r\n$4\r\nPING\n\n", "*1\r\n$4\r\nPING\rx"] {
        assert_eq!(text(whole(bad.as_bytes())), "Protocol error: expected CRLF after bulk");
    }
}

#[test]
fn lines_without_an_end_are_refused_at_64_kib() {
    for (start, first, expected) in [
        ("", b'a', "Protocol error: too big inline request"),
        ("*", b'1', "Protocol error: too big mbulk count string"),
        ("*1\r\n$", b'1', "Protocol error: too big bulk count string"),
    ] {
        let mut input = start.as_bytes().to_vec();
        let line_start = input.len().saturating_sub(1);
        let full = line_start + INLINE_BYTES_MAX;
        input.resize(full, first);
        let size = input.len();
        assert_eq!(whole(&input), Ok((vec![], size)), "64 KiB may still find its end");
        input.push(first);
        assert_eq!(text(whole(&input)), expected);
        let byte_by_byte = parse_split(&input, &AUTH, 0..input.len());
        assert_eq!(text(byte_by_byte), expected);
        // The same line with an end that comes too late is refused in one piece as well.
        input.extend_from_slice(b"\r\n");
        assert_eq!(text(whole(&input)), expected);
    }
}

#[test]
fn a_line_of_64_kib_with_an_end_is_taken() {
    let mut input = vec![b'a'; INLINE_BYTES_MAX];
    input.push(b'\n');
    assert_eq!(whole(&input), Ok((vec![vec![vec![b'a'; INLINE_BYTES_MAX]]], 0)));
    assert_eq!(whole(&input), parse_split(&input, &AUTH, [INLINE_BYTES_MAX]));
}

#[test]
fn strangers_get_less() {
    let refused = |input: &[u8]| text(parse_split(input, &NOAUTH, []));
    assert_eq!(refused(b"*11\r\n"), "Protocol error: unauthenticated multibulk length");
    assert_eq!(refused(b"*1\r\n$16385\r\n"), "Protocol error: unauthenticated bulk length");
    assert_eq!(refused(b"*1\r\n$536870913\r\n"), "Protocol error: invalid bulk length");
    assert_eq!(refused(b"*1000000000000\r\n"), "Protocol error: invalid multibulk length");
    assert_eq!(parse_split(b"*10\r\n$16384\r\n", &NOAUTH, []), Ok((vec![], 13)));
    let long = encode(&vec![vec![b'x'; 16384]; 10]);
    assert_eq!(refused(&long), "Protocol error: too big request");
}

#[test]
fn all_arguments_together_are_bounded() {
    // The lengths alone are refused: nobody has to send a gibibyte first.
    let limits = Limits { request_bytes_max: 30, ..AUTH };
    let fits = b"*1\r\n$19\r\n0123456789012345678\r\n";
    assert_eq!(fits.len(), 30);
    assert!(parse_split(fits, &limits, []).is_ok());
    assert_eq!(text(parse_split(b"*1\r\n$20\r\n", &limits, [])), "Protocol error: too big request");
}

#[test]
fn the_longest_value_is_not_waited_for_with_memory() {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    let head = b"*1048576\r\n$536870912\r\nabc";
    let parsed = parser.parse(head, &AUTH, &mut spans).unwrap();
    assert_eq!(parsed, Parsed::Incomplete { need: 22 + 536_870_912 + 2 });
    assert!(spans.capacity() < 64 && parser.saved.capacity() < 64);
}

#[test]
fn a_great_value_in_pieces_is_not_looked_at_again() {
    // Every byte but the last two is poisoned after its piece was shown: a parser that looked back would fail.
    let len = 1 << 20;
    let mut input = format!("*2\r\n$3\r\nSET\r\n${len}\r\n").into_bytes();
    let head = input.len();
    input.resize(head + len, b'x');
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    for end in (head..head + len).step_by(4096) {
        let parsed = parser.parse(&input[..end], &AUTH, &mut spans).unwrap();
        assert_eq!(parsed, Parsed::Incomplete { need: head + len + 2 });
        input[..end].fill(0xff);
    }
    input.extend_from_slice(b"\r\n");
    let parsed = parser.parse(&input, &AUTH, &mut spans).unwrap();
    assert_eq!(parsed, Parsed::Complete { consumed: input.len() });
    assert_eq!(spans, [(8, 11), (head as u32, (head + len) as u32)]);
}

#[test]
fn many_arguments_in_pieces_are_not_looked_at_again() {
    let args = vec![b"ab".to_vec(); 1000];
    let mut input = encode(&args);
    let len = input.len();
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    for end in (0..len).step_by(7) {
        let parsed = parser.parse(&input[..end], &AUTH, &mut spans).unwrap();
        assert!(matches!(parsed, Parsed::Incomplete { .. }));
        if parser.pos > 0 {
            let seen = parser.pos as usize;
            input[..seen].fill(0xff);
        }
    }
    let parsed = parser.parse(&input, &AUTH, &mut spans).unwrap();
    assert_eq!((parsed, spans.len()), (Parsed::Complete { consumed: len }, 1000));
    assert!(parser.saved.capacity() <= SAVED_SPANS_KEPT, "what a large request took is given back");
}

#[test]
fn quotes_are_those_of_redis_cli() {
    for (line, expected) in [
        (r#"set a "b c""#, vec!["set", "a", "b c"]),
        (r"set 'it\'s' x", vec!["set", "it's", "x"]),
        (r#"a "\x41\n\r\t\b\a\"\\\q" b"#, vec!["a", "A\n\r\t\x08\x07\"\\q", "b"]),
        (r#"a "\x4g" b"#, vec!["a", "x4g", "b"]),
        (r"a 'x\n' b", vec!["a", r"x\n", "b"]),
        (r#"foo"bar""#, vec!["foobar"]),
        (r#"a "" ''"#, vec!["a", "", ""]),
        ("\x0b a \x0c 'b'\x0b", vec!["a", "b"]),
    ] {
        let input = format!("{line}\r\n");
        assert_eq!(whole(input.as_bytes()), Ok((vec![words(&expected)], 0)), "{line}");
    }
}

#[test]
fn quotes_that_do_not_match_are_refused() {
    for line in
        [r#"SET a "b"#, "SET a 'b", r#"SET a "b"c"#, "SET a 'b'c", r#"SET a "b\""#, r"a 'b\'"]
    {
        let input = format!("{line}\r\n");
        assert_eq!(
            text(whole(input.as_bytes())),
            "Protocol error: unbalanced quotes in request",
            "{line}"
        );
    }
}

#[test]
fn the_copy_of_a_quoted_line_is_only_used_for_it() {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    parser.parse(b"get 'a'\r\n", &AUTH, &mut spans).unwrap();
    assert!(parser.is_owned());
    assert_eq!(parser.bytes(b""), b"geta");
    let next = b"get b\r\n";
    parser.parse(next, &AUTH, &mut spans).unwrap();
    assert!(!parser.is_owned());
    assert_eq!(parser.bytes(next), next);
}

#[test]
fn browsers_and_tls_get_no_answer() {
    for input in
        ["POST / HTTP/1.1\r\n", "Host: 127.0.0.1\r\n", "post x\n", "hOST:\r\n", "'POST' /\n"]
    {
        let error = whole(input.as_bytes()).unwrap_err();
        assert_eq!(error, ProtocolError::CrossProtocol, "{input}");
        assert!(error.closes_silently());
    }
    let error = whole(b"\x16\x03\x01\x02\x00\x01").unwrap_err();
    assert_eq!((error, error.closes_silently()), (ProtocolError::TlsHello, true));
    assert_eq!(whole(b"poster 1\r\n"), Ok((vec![words(&["poster", "1"])], 0)));
    assert!(!ProtocolError::InvalidBulkLength.closes_silently());
}

#[test]
fn integers_are_those_of_string2ll() {
    for (digits, n) in [
        ("0", Some(0)),
        ("7", Some(7)),
        ("-7", Some(-7)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("-0", None),
        ("00", None),
        ("", None),
        ("-", None),
        ("1-", None),
    ] {
        assert_eq!(integer(digits.as_bytes()), n, "{digits}");
    }
}

#[test]
fn the_quick_way_and_the_slow_way_to_a_number_agree() {
    for line in
        ["0", "1", "10", "00", "01", "999999999", "1000000000", "", "-1", "12a", "123456789012"]
    {
        let input = format!("{line}\r\n");
        if let Some((n, next)) = number(input.as_bytes(), 0) {
            assert_eq!(integer(line.as_bytes()), Some(i64::from(n)), "{line}");
            assert_eq!(next, input.len());
        }
        assert_eq!(number(&input.as_bytes()[..=line.len()], 0), None, "no LF yet");
    }
    assert_eq!(number(b"12\r\n", 0), Some((12, 4)));
    assert_eq!(number(b"0\r\n", 0), Some((0, 3)));
    assert_eq!(number(b"12", 7), None);
}

fn any_args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)
}

/// Bytes that come close to being requests.
fn almost_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'".to_vec()),
        Just(b"\\".to_vec()),
        Just(b" ".to_vec()),
        (0..12u8).prop_map(|n| n.to_string().into_bytes()),
        any_args().prop_map(|args| encode(&args)),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(requests in prop::collection::vec(any_args(), 0..5)) {
        let input: Vec<u8> = requests.iter().flat_map(|args| encode(args)).collect();
        prop_assert_eq!(whole(&input), Ok((requests, 0)));
    }

    #[test]
    fn splits_change_nothing(input in almost_requests(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let expected = whole(&input);
        prop_assert_eq!(parse_split(&input, &AUTH, cuts), expected.clone());
        prop_assert_eq!(parse_split(&input, &AUTH, 0..input.len()), expected);
    }

    #[test]
    fn quoted_lines_round_trip(args in any_args()) {
        let mut line = Vec::new();
        for arg in &args {
            line.extend_from_slice(b" \"");
            for b in arg {
                line.extend_from_slice(format!("\\x{b:02x}").as_bytes());
            }
            line.push(b'"');
        }
        line.extend_from_slice(b"\r\n");
        let cross = [&b"post"[..], b"host:"].iter().any(|w| args[0].eq_ignore_ascii_case(w));
        prop_assume!(!cross);
        prop_assert_eq!(whole(&line), Ok((vec![args], 0)));
    }
}

/// A request that comes byte by byte and of which the long arguments are kept outside as soon as they begin.
#[test]
fn arguments_outside_of_a_request_are_named_in_their_order() {
    let request = b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n01234567890123456789\r\n$2\r\nEX\r\n$12\r\nabcdefghijkl\r\n";
    let mut parser = RequestParser::default();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut filling: Option<(Vec<u8>, usize)> = None;
    let mut spans = Vec::new();
    let mut complete = false;
    let mut feed = |byte: u8, parser: &mut RequestParser, spans: &mut Vec<(u32, u32)>| {
        if let Some((held, len)) = &mut filling {
            held.push(byte);
            if held.len() == *len {
                outside.extend(filling.take().map(|(held, _)| held));
            }
            return false;
        }
        inside.push(byte);
        match parser.parse(&inside, &Limits::AUTHENTICATED, spans).expect("well formed") {
            Parsed::Complete { consumed } => return consumed == inside.len(),
            Parsed::Incomplete { .. } => {
                if let Some((at, len)) = parser.pending()
                    && len > 10
                {
                    assert_eq!(at, inside.len());
                    parser.take_out();
                    assert_eq!(parser.pending(), None);
                    filling = Some((Vec::new(), len));
                }
            }
        }
        false
    };
    for &byte in request {
        complete |= feed(byte, &mut parser, &mut spans);
    }
    assert!(complete);
    assert_eq!(outside, [&b"01234567890123456789"[..], b"abcdefghijkl"]);
    let found: Vec<&[u8]> = spans
        .iter()
        .map(|&(start, end)| match start {
            OUTSIDE => &outside[end as usize][..],
            _ => &inside[start as usize..end as usize],
        })
        .collect();
    assert_eq!(found, [&b"SET"[..], b"k", b"01234567890123456789", b"EX", b"abcdefghijkl"]);
    // The same again from the start, as after a stall.
    let first = spans.clone();
    let outside = parser.take_outside();
    parser.restart(&inside, outside);
    let again = parser.parse(&inside, &Limits::AUTHENTICATED, &mut spans).expect("well formed");
    assert_eq!(again, Parsed::Complete { consumed: inside.len() });
    assert_eq!(spans, first);
    parser.take_outside();
    assert_eq!(
        parser.parse(b"*1\r\n$4\r\nPING\r\n", &Limits::AUTHENTICATED, &mut spans),
        Ok(Parsed::Complete { consumed: 14 })
    );
    assert_eq!(spans, [(8, 12)]);
}

#[test]
fn what_follows_an_argument_outside_must_be_its_end() {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    let head = b"*2\r\n$4\r\nECHO\r\n$20\r\n";
    parser.parse(head, &Limits::AUTHENTICATED, &mut spans).expect("well formed");
    parser.take_out();
    let mut request = head.to_vec();
    request.extend(b"xy");
    assert_eq!(
        parser.parse(&request, &Limits::AUTHENTICATED, &mut spans),
        Err(ProtocolError::UnterminatedBulk)
    );
}

/// Parses a request whose arguments of over 10 bytes are received outside of it, from its length lines on, then parses it
/// again from the start as after a stall.
fn parse_outside_twice(args: &[Vec<u8>], limits: &Limits) -> Result<(), ProtocolError> {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    let mut inside = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        inside.extend(format!("${}\r\n", arg.len()).bytes());
        parser.parse(&inside, limits, &mut spans)?;
        if arg.len() > 10 {
            parser.take_out();
        } else {
            inside.extend(arg);
        }
        inside.extend(b"\r\n");
    }
    let whole = Ok(Parsed::Complete { consumed: inside.len() });
    assert_eq!(parser.parse(&inside, limits, &mut spans), whole);
    let outside = parser.take_outside();
    parser.restart(&inside, outside);
    assert_eq!(parser.parse(&inside, limits, &mut spans), whole);
    Ok(())
}

#[test]
fn arguments_outside_count_once_against_the_longest_request() {
    for lengths in [vec![3, 60], vec![3, 60, 1], vec![60, 60], vec![3, 40, 2, 50, 60, 1, 1]] {
        let args: Vec<Vec<u8>> = lengths.iter().map(|len| vec![b'a'; *len]).collect();
        let whole = encode(&args).len();
        let limits =
            |request_bytes_max| Limits { args_max: 9, bulk_bytes_max: 99, request_bytes_max };
        assert_eq!(parse_outside_twice(&args, &limits(whole)), Ok(()), "{lengths:?}");
        assert_eq!(
            parse_outside_twice(&args, &limits(whole - 1)),
            Err(ProtocolError::TooBigRequest),
            "{lengths:?}"
        );
    }
}
