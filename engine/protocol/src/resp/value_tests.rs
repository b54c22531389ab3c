//! Tests of the reply parser: every type, splits at every byte, nesting, hostile lengths, round trips.

use super::*;
use crate::resp::{Proto, reply};
use alloc::vec;
use proptest::prelude::*;

/// Every type of RESP2 and RESP3, one after another, and what each is.
fn samples() -> Vec<(&'static str, Value)> {
    let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
    vec![
        ("+OK\r\n", Value::Simple(b"OK".to_vec())),
        ("+\r\n", Value::Simple(vec![])),
        ("-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
        (":-12\r\n", Value::Integer(-12)),
        (":9223372036854775807\r\n", Value::Integer(i64::MAX)),
        ("$5\r\na\r\nbc\r\n", bulk("a\r\nbc")),
        ("$0\r\n\r\n", bulk("")),
        ("$-1\r\n", Value::Null),
        ("*-1\r\n", Value::Null),
        ("_\r\n", Value::Null),
        ("*0\r\n", Value::Array(vec![])),
        (
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            Value::Array(vec![bulk("a"), Value::Array(vec![Value::Integer(1)])]),
        ),
        ("#t\r\n", Value::Boolean(true)),
        ("#f\r\n", Value::Boolean(false)),
        (",1.5e3\r\n", Value::Double(1500.0)),
        (",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
        ("(-12345678901234567890\r\n", Value::BigNumber(b"-12345678901234567890".to_vec())),
        ("!5\r\nERR a\r\n", Value::Error(b"ERR a".to_vec())),
        ("=7\r\ntxt:abc\r\n", Value::Verbatim(*b"txt", b"abc".to_vec())),
        (
            "%1\r\n+k\r\n%0\r\n",
            Value::Map(vec![(Value::Simple(b"k".to_vec()), Value::Map(vec![]))]),
        ),
        ("~2\r\n:1\r\n:2\r\n", Value::Set(vec![Value::Integer(1), Value::Integer(2)])),
        (">1\r\n+x\r\n", Value::Push(vec![Value::Simple(b"x".to_vec())])),
        ("|1\r\n+ttl\r\n:5\r\n$1\r\nv\r\n", bulk("v")),
        ("*1\r\n|0\r\n:1\r\n", Value::Array(vec![Value::Integer(1)])),
    ]
}

#[test]
fn every_type_is_skipped_and_built() {
    for (text, value) in samples() {
        let mut buf = text.as_bytes().to_vec();
        buf.extend_from_slice(b"+next\r\n");
        assert_eq!(skip(&buf), Ok(Some(text.len())), "{text:?}");
        assert_eq!(parse(&buf), Ok(Some((value, text.len()))), "{text:?}");
    }
    assert!(matches!(parse(b",nan\r\n"), Ok(Some((Value::Double(d), 6))) if d.is_nan()));
}

#[test]
fn replies_cut_at_every_byte_are_incomplete() {
    for (text, _) in samples() {
        for end in 0..text.len() {
            let buf = &text.as_bytes()[..end];
            assert_eq!(skip(buf), Ok(None), "{text:?} to {end}");
            assert_eq!(parse(buf), Ok(None), "{text:?} to {end}");
        }
    }
}

#[test]
fn a_scanner_goes_on_where_it_stopped() {
    let stream: Vec<u8> = samples().iter().flat_map(|(text, _)| text.bytes()).collect();
    let mut scanner = ReplyScanner::default();
    let mut start = 0;
    let mut lengths = samples().into_iter().map(|(text, _)| text.len());
    for end in 0..=stream.len() {
        if let Some(len) = scanner.scan(&stream[start..end]).unwrap() {
            assert_eq!(Some(len), lengths.next());
            start += len;
        }
    }
    assert_eq!(lengths.next(), None);
}

#[test]
fn a_scanner_looks_at_nothing_twice() {
    let mut buf = b"*2\r\n$100000\r\n".to_vec();
    let mut scanner = ReplyScanner::default();
    for _ in 0..100 {
        assert_eq!(scanner.scan(&buf), Ok(None));
        buf.fill(0xff);
        buf.extend_from_slice(&[b'x'; 1000]);
    }
    buf.extend_from_slice(b"\r\n:1\r\n");
    assert_eq!(scanner.scan(&buf), Ok(Some(13 + 100_000 + 2 + 4)));
}

#[test]
fn what_is_no_reply_is_refused() {
    for (text, error) in [
        ("huh\r\n", ReplyError::UnknownType(b'h')),
        ("\r\n", ReplyError::UnknownType(b'\r')),
        (".\r\n", ReplyError::UnknownType(b'.')),
        (":\r\n", ReplyError::InvalidNumber),
        (":1a\r\n", ReplyError::InvalidNumber),
        (":9223372036854775808\r\n", ReplyError::InvalidNumber),
        ("$-2\r\n", ReplyError::InvalidNumber),
        ("$?\r\n", ReplyError::InvalidNumber),
        ("$538968065\r\n", ReplyError::InvalidNumber),
        ("!-1\r\n", ReplyError::InvalidNumber),
        ("=3\r\nabc\r\n", ReplyError::InvalidNumber),
        ("*-2\r\n", ReplyError::InvalidNumber),
        ("%-1\r\n", ReplyError::InvalidNumber),
        ("*4294967296\r\n", ReplyError::InvalidNumber),
        ("+OK\rx", ReplyError::InvalidLine),
        ("+a\nb\r\n", ReplyError::InvalidScalar),
        ("#x\r\n", ReplyError::InvalidScalar),
        ("_x\r\n", ReplyError::InvalidScalar),
        (",1,5\r\n", ReplyError::InvalidScalar),
        ("(12x\r\n", ReplyError::InvalidScalar),
        ("(-\r\n", ReplyError::InvalidScalar),
        ("$1\r\nabc", ReplyError::UnterminatedBulk),
        ("*1\r\n$1\r\na\n\n", ReplyError::UnterminatedBulk),
    ] {
        assert_eq!(skip(text.as_bytes()), Err(error), "{text:?}");
        assert_eq!(parse(text.as_bytes()), Err(error), "{text:?}");
    }
    assert_eq!(parse(b"=4\r\nabcd\r\n"), Err(ReplyError::InvalidScalar));
    let mut endless = vec![b'a'; INLINE_BYTES_MAX + 1];
    endless[0] = b'+';
    assert_eq!(skip(&endless), Err(ReplyError::InvalidLine));
    assert_eq!(skip(&endless[..INLINE_BYTES_MAX]), Ok(None));
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| [b"*1\r\n".repeat(levels), b":1\r\n".to_vec()].concat();
    let deepest = nested(REPLY_DEPTH_MAX);
    assert_eq!(skip(&deepest), Ok(Some(deepest.len())));
    assert!(matches!(parse(&deepest), Ok(Some(_))));
    let deeper = nested(REPLY_DEPTH_MAX + 1);
    assert_eq!(skip(&deeper), Err(ReplyError::TooDeep));
    assert_eq!(parse(&deeper), Err(ReplyError::TooDeep));
}

#[test]
fn announced_elements_reserve_nothing() {
    // Would be tens of gibibytes.
    assert_eq!(parse(b"*4294967295\r\n:1\r\n"), Ok(None));
    assert_eq!(parse(b"%4294967295\r\n*4294967295\r\n*4294967295\r\n"), Ok(None));
}

#[test]
fn elements_are_raw() {
    let all = |buf: &'static [u8]| elements(buf).unwrap().collect::<Result<Vec<_>, _>>();
    let expected: Vec<&[u8]> = vec![b"$1\r\na\r\n", b"*1\r\n:1\r\n", b"_\r\n"];
    let buf = b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n_\r\n";
    assert_eq!(elements(buf).unwrap().len(), 3);
    assert_eq!(all(buf), Ok(expected));
    assert_eq!(all(b"%1\r\n+k\r\n:1\r\n").unwrap().len(), 2);
    assert_eq!(all(b"*-1\r\n"), Ok(vec![]));
    assert!(elements(b"*0\r\n").unwrap().is_empty());
    assert_eq!(all(b"*2\r\n:1\r\n"), Err(ReplyError::Truncated));
    assert_eq!(all(b"*2\r\n:1\r\nx"), Err(ReplyError::UnknownType(b'x')));
    assert_eq!(elements(b":1\r\n").unwrap_err(), ReplyError::NotAnAggregate);
    assert_eq!(elements(b"_\r\n").unwrap_err(), ReplyError::NotAnAggregate);
    assert_eq!(elements(b"*").unwrap_err(), ReplyError::Truncated);
}

#[test]
fn errors_and_integers_are_told_apart() {
    assert!(is_error(b"-ERR\r\n") && is_error(b"!3\r\nERR\r\n") && !is_error(b"+OK\r\n"));
    assert!(!is_error(b""));
    assert_eq!(integer(b":-5\r\n"), Some(-5));
    for other in [&b"$1\r\n5\r\n"[..], b":5", b":5\r\n:6\r\n", b":x\r\n", b""] {
        assert_eq!(integer(other), None);
    }
}

#[test]
fn accessors_fit_their_types() {
    assert_eq!(Value::Verbatim(*b"txt", b"a".to_vec()).as_bytes(), Some(&b"a"[..]));
    assert_eq!(Value::Integer(3).as_bytes(), None);
    assert_eq!(Value::Integer(3).as_integer(), Some(3));
    assert_eq!(Value::Error(b"ERR \xff".to_vec()).as_error().unwrap(), "ERR \u{fffd}");
    let flat = Value::Array(vec![Value::Integer(1), Value::Integer(2)]);
    assert_eq!(flat.into_entries(), Some(vec![(Value::Integer(1), Value::Integer(2))]));
    assert_eq!(Value::Array(vec![Value::Null]).into_entries(), None);
}

#[test]
fn replies_are_written_as_the_specification_says() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let (two, three) = (Proto::Resp2, Proto::Resp3);
    let cases: [(&str, Vec<u8>); 21] = [
        ("+OK\r\n", written(&reply::ok)),
        ("+PONG\r\n", written(&|out| reply::simple(out, "PONG"))),
        ("-ERR a  b\r\n", written(&|out| reply::error(out, "ERR a\r\nb"))),
        ("-ERR '\0 '\r\n", written(&|out| reply::error_bytes(out, b"ERR '\0\n'"))),
        (":-7\r\n", written(&|out| reply::integer(out, -7))),
        (":-9223372036854775808\r\n", written(&|out| reply::integer(out, i64::MIN))),
        ("$3\r\na\r\n\r\n", written(&|out| reply::bulk(out, b"a\r\n"))),
        ("$0\r\n\r\n", written(&|out| reply::bulk(out, b""))),
        ("$2\r\nab\r\n", written(&|out| reply::verbatim(out, two, b"ab"))),
        ("=6\r\ntxt:ab\r\n", written(&|out| reply::verbatim(out, three, b"ab"))),
        ("$-1\r\n", written(&|out| reply::null(out, two))),
        ("_\r\n", written(&|out| reply::null(out, three))),
        ("*-1\r\n", written(&|out| reply::null_array(out, two))),
        ("_\r\n", written(&|out| reply::null_array(out, three))),
        ("*2\r\n", written(&|out| reply::array(out, 2))),
        ("*4\r\n", written(&|out| reply::map(out, two, 2))),
        ("%2\r\n", written(&|out| reply::map(out, three, 2))),
        ("*3\r\n", written(&|out| reply::set(out, two, 3))),
        ("~3\r\n", written(&|out| reply::set(out, three, 3))),
        ("*0\r\n", written(&|out| reply::array(out, 0))),
        (":0\r\n", written(&|out| reply::integer(out, 0))),
    ];
    for (expected, got) in cases {
        assert_eq!(got, expected.as_bytes(), "{expected:?}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = || prop::collection::vec(any::<u8>(), 0..20);
    let line = || "[ -~]{0,20}".prop_map(String::into_bytes);
    let leaf = prop_oneof![
        Just(Value::Null),
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        text().prop_map(Value::Bulk),
        text().prop_map(|t| Value::Verbatim(*b"mkd", t)),
        any::<bool>().prop_map(Value::Boolean),
        (-1e9..1e9).prop_map(Value::Double),
        "-?[0-9]{1,30}".prop_map(|s| Value::BigNumber(s.into_bytes())),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..5);
        prop_oneof![
            items().prop_map(Value::Array),
            items().prop_map(Value::Set),
            items().prop_map(Value::Push),
            prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
        ]
    })
}

fn encode(out: &mut Vec<u8>, value: &Value) {
    use alloc::format;
    let mut line = |text: alloc::string::String| out.extend_from_slice(text.as_bytes());
    let mut all = |head: alloc::string::String, items: &[Value]| {
        line(head);
        items.to_vec()
    };
    let items = match value {
        Value::Null => all("_\r\n".into(), &[]),
        Value::Integer(n) => all(format!(":{n}\r\n"), &[]),
        Value::Boolean(b) => all(format!("#{}\r\n", if *b { 't' } else { 'f' }), &[]),
        Value::Double(d) => all(format!(",{d}\r\n"), &[]),
        Value::Array(items) => all(format!("*{}\r\n", items.len()), items),
        Value::Set(items) => all(format!("~{}\r\n", items.len()), items),
        Value::Push(items) => all(format!(">{}\r\n", items.len()), items),
        Value::Map(entries) => {
            line(format!("%{}\r\n", entries.len()));
            entries.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect()
        }
        Value::Simple(t) => {
            out.extend([b"+", &t[..], b"\r\n"].concat());
            vec![]
        }
        Value::Error(t) => {
            out.extend([b"-", &t[..], b"\r\n"].concat());
            vec![]
        }
        Value::BigNumber(t) => {
            out.extend([b"(", &t[..], b"\r\n"].concat());
            vec![]
        }
        Value::Bulk(t) => {
            reply::bulk(out, t);
            vec![]
        }
        Value::Verbatim(kind, t) => {
            out.extend_from_slice(format!("={}\r\n", t.len() + 4).as_bytes());
            out.extend([&kind[..], b":", t, b"\r\n"].concat());
            vec![]
        }
    };
    for item in &items {
        encode(out, item);
    }
}

proptest! {
    #[test]
    fn values_round_trip(value in any_value()) {
        let mut buf = Vec::new();
        encode(&mut buf, &value);
        prop_assert_eq!(skip(&buf), Ok(Some(buf.len())));
        let mut scanner = ReplyScanner::default();
        for end in 0..buf.len() {
            prop_assert_eq!(scanner.scan(&buf[..end]), Ok(None));
        }
        prop_assert_eq!(scanner.scan(&buf), Ok(Some(buf.len())));
        prop_assert_eq!(parse(&buf), Ok(Some((value, buf.len()))));
    }

    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(prop_oneof![
        prop::sample::select(b"+-:$*_#,(!=%~>|0123456789\r\nabtf".to_vec()), any::<u8>()
    ], 0..60)) {
        let built = parse(&bytes);
        if let Ok(Some((_, len))) = built {
            prop_assert_eq!(skip(&bytes), Ok(Some(len)));
        }
        if let Ok(mut items) = elements(&bytes) {
            items.by_ref().take(100).for_each(drop);
        }
    }
}
