//! The reply parser: no bytes make it panic, and skipping, scanning piece by piece and building agree.
#![no_main]

use dkv_protocol::resp::value::{ReplyScanner, elements, parse, skip};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let skipped = skip(data);
    let mut scanner = ReplyScanner::default();
    let scanned = (0..=data.len()).map(|end| scanner.scan(&data[..end])).find(|r| *r != Ok(None));
    assert_eq!(scanned.unwrap_or(Ok(None)), skipped);
    match parse(data) {
        Ok(Some((_, len))) => assert_eq!(skipped, Ok(Some(len))),
        Ok(None) => assert_eq!(skipped, Ok(None)),
        // A verbatim string without its format is found only when it is built.
        Err(_) => {}
    }
    if let Ok(items) = elements(data) {
        let len: usize = items.take(1000).filter_map(Result::ok).map(<[u8]>::len).sum();
        assert!(len <= data.len());
    }
});
