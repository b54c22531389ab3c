//! Cluster frames and batches: no bytes make the readers panic, whatever their checksums say.
#![no_main]

use dkv_protocol::frame::{
    FrameKind, FrameReader, ReplyIter, RequestIter, begin_frame, end_frame, write_request,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, body, len))) = FrameReader::new().next(data) {
        assert!(body.len() <= len && len <= data.len());
    }
    // What is framed is found again, in pieces as well.
    let mut frame = Vec::new();
    let start = begin_frame(&mut frame);
    frame.extend_from_slice(data);
    end_frame(&mut frame, start, FrameKind::Requests);
    let mut reader = FrameReader::new();
    let half = frame.len() / 2;
    assert_eq!(reader.next(&frame[..half]), Ok(None));
    assert_eq!(reader.next(&frame), Ok(Some((FrameKind::Requests, data, frame.len()))));
    // A batch that is read can be written again, and is the same.
    let mut requests = RequestIter::new(data);
    let (mut spans, mut written, mut whole) = (Vec::new(), Vec::new(), true);
    while let Some(request) = requests.next(&mut spans) {
        match request {
            Ok((head, bytes)) => {
                let args = spans.iter().map(|&(s, e)| &bytes[s as usize..e as usize]);
                write_request(&mut written, head, args);
            }
            Err(_) => whole = false,
        }
    }
    if whole {
        assert_eq!(written, data);
    }
    ReplyIter::new(data).for_each(drop);
});
