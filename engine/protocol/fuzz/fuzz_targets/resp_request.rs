//! The request parser: no bytes make it panic, and where they are split changes nothing.
#![no_main]

use dkv_protocol::resp::request::{Limits, Parsed, ProtocolError, RequestParser};
use libfuzzer_sys::fuzz_target;

type Request = Vec<Vec<u8>>;

/// Requests up to the end or the error, the bytes left over, and the error.
fn requests(
    input: &[u8],
    limits: &Limits,
    pieces: impl Iterator<Item = usize>,
) -> (Vec<Request>, usize, Option<ProtocolError>) {
    let mut parser = RequestParser::default();
    let mut spans = Vec::new();
    let mut found = Vec::new();
    let (mut start, mut end) = (0, 0);
    for piece in pieces.chain([input.len()]) {
        end = input.len().min(end + piece);
        loop {
            let buf = &input[start..end];
            match parser.parse(buf, limits, &mut spans) {
                Ok(Parsed::Complete { consumed }) => {
                    assert!(consumed > 0);
                    let bytes = parser.bytes(buf);
                    let arg = |&(s, e): &(u32, u32)| bytes[s as usize..e as usize].to_vec();
                    found.push(spans.iter().map(arg).collect());
                    start += consumed;
                }
                Ok(Parsed::Incomplete { need }) => {
                    assert!(spans.is_empty() && (need == 0 || need > buf.len()));
                    break;
                }
                Err(error) => return (found, input.len() - start, Some(error)),
            }
        }
    }
    (found, input.len() - start, None)
}

fuzz_target!(|data: &[u8]| {
    // The first byte says how the rest is split, and who sends it.
    let Some((&how, input)) = data.split_first() else { return };
    let limits = if how & 1 == 0 { Limits::AUTHENTICATED } else { Limits::UNAUTHENTICATED };
    let whole = requests(input, &limits, std::iter::empty());
    let mut state = u32::from(how) | 1;
    let random = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        Some((state % 9) as usize)
    });
    let cuts = input.len() * 2;
    assert_eq!(requests(input, &limits, random.take(cuts)), whole);
    assert_eq!(requests(input, &limits, std::iter::repeat_n(1, input.len())), whole);
});
