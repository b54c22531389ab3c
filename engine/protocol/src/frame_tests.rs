//! Tests of frames and batches: golden bytes, splits, every flipped bit, hostile lengths.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_frame(&mut out);
    out.extend_from_slice(body);
    end_frame(&mut out, start, kind);
    out
}

const ALL: [FrameKind; 10] = [
    FrameKind::Requests,
    FrameKind::Replies,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Peer,
    FrameKind::Hello,
    FrameKind::Challenge,
    FrameKind::Proof,
    FrameKind::Welcome,
    FrameKind::Refused,
];

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_frame_is_these_bytes() {
    let ping = framed(FrameKind::Ping, b"");
    assert_eq!(crate::hex::encode(&ping), GOLDEN_PING);
    let replies = framed(FrameKind::Replies, b"abc");
    assert_eq!(crate::hex::encode(&replies), GOLDEN_REPLIES);
    assert_eq!(replies[..HEADER_BYTES], header(FrameKind::Replies, b"abc"));
}

#[test]
fn kinds_have_these_numbers() {
    assert_eq!(ALL.map(|kind| kind as u8), [1, 2, 3, 4, 5, 16, 17, 18, 19, 20]);
    for byte in 0..=u8::MAX {
        let kind = FrameKind::from_byte(byte);
        assert_eq!(kind.map(|k| k as u8), ALL.map(|k| k as u8).contains(&byte).then_some(byte));
    }
}

#[test]
fn frames_split_at_every_byte_are_found() {
    let mut stream = Vec::new();
    for (i, kind) in ALL.into_iter().enumerate() {
        stream.extend_from_slice(&framed(kind, &vec![i as u8; i * 7]));
    }
    let mut reader = FrameReader::new();
    let mut start = 0;
    let mut found = Vec::new();
    for end in 0..=stream.len() {
        while let Some((kind, body, consumed)) = reader.next(&stream[start..end]).unwrap() {
            assert_eq!(body, vec![found.len() as u8; found.len() * 7]);
            found.push(kind);
            start += consumed;
        }
    }
    assert_eq!(found, ALL);
    assert_eq!(start, stream.len());
}

#[test]
fn a_body_is_summed_once() {
    let mut frame = framed(FrameKind::Requests, &vec![7; 10_000]);
    let len = frame.len();
    let mut reader = FrameReader::new();
    for end in (HEADER_BYTES..len).step_by(1000) {
        assert_eq!(reader.next(&frame[..end]), Ok(None));
        // A reader that summed it again would find it changed.
        frame[..end].fill(0xff);
    }
    assert!(matches!(reader.next(&frame), Ok(Some((FrameKind::Requests, _, n))) if n == len));
}

#[test]
fn every_flipped_bit_is_found() {
    let frame = framed(FrameKind::Requests, b"a small body");
    for bit in 0..frame.len() * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = FrameReader::new().next(&flipped).unwrap_err();
        let expected = match bit / 8 {
            0..4 => matches!(error, FrameError::NotANode(_)),
            4..6 => matches!(error, FrameError::Version(_)),
            6..24 => error == FrameError::HeaderChecksum,
            _ => error == FrameError::BodyChecksum,
        };
        assert!(expected, "bit {bit}: {error:?}");
    }
}

/// A header with right checksums, whatever it says.
fn forged(change: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
    let mut head = header(FrameKind::Ping, b"");
    change(&mut head);
    let sum = crc32c(&head[..20]);
    head[20..].copy_from_slice(&sum.to_le_bytes());
    head
}

#[test]
fn lengths_beyond_the_limit_are_refused_before_they_arrive() {
    let head = forged(|h| h[8..12].fill(0xff));
    let error = FrameReader::new().next(&head).unwrap_err();
    let bytes_max = FRAME_BYTES_MAX as u32;
    assert_eq!(error, FrameError::TooLong { bytes: u32::MAX, bytes_max });
    let most = forged(|h| h[8..12].copy_from_slice(&bytes_max.to_le_bytes()));
    assert_eq!(FrameReader::new().next(&most), Ok(None));
    let strangers = forged(|h| h[8..12].copy_from_slice(&4097u32.to_le_bytes()));
    let error = FrameReader::for_hello().next(&strangers).unwrap_err();
    assert_eq!(error, FrameError::TooLong { bytes: 4097, bytes_max: 4096 });
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    let refused = |head: [u8; HEADER_BYTES]| FrameReader::new().next(&head).unwrap_err();
    assert_eq!(refused(forged(|h| h[6] = 6)), FrameError::Unknown);
    assert_eq!(refused(forged(|h| h[7] = 1)), FrameError::Unknown);
    assert_eq!(refused(forged(|h| h[16] = 1)), FrameError::Unknown);
    assert_eq!(refused(forged(|h| h[4] = 2)), FrameError::Version(2));
    assert_eq!(
        FrameError::Version(2).to_string(),
        "the other node speaks version 2 of the cluster protocol, this one 1"
    );
}

#[test]
fn strangers_on_the_cluster_port_are_named_by_what_they_speak() {
    for (bytes, what) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP"),
        (b"*1\r\n$4\r\nPING\r\n", "a client's request"),
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"PING\r\n", "no frame"),
        (b"\0", "no frame"),
    ] {
        let error = FrameReader::for_hello().next(bytes).unwrap_err().to_string();
        assert!(error.starts_with(&alloc::format!("got {what} (")), "{error}");
    }
    assert_eq!(FrameReader::for_hello().next(b"DKV"), Ok(None));
    assert!(FrameReader::for_hello().next(b"DKX").is_err(), "not waited for");
}

#[test]
fn batches_are_these_bytes() {
    let mut batch = Vec::new();
    let head = RequestHead {
        id: 0x0403_0201,
        proto: Proto::Resp3,
        whole_store: true,
        first: false,
        no_touch: false,
    };
    write_request(&mut batch, head, [&b"GET"[..], b"k"]);
    assert_eq!(crate::hex::encode(&batch), "01020304030200000003000000474554010000006b");
    write_request(&mut batch, RequestHead { first: true, ..head }, [&b"GET"[..], b"k"]);
    assert_eq!(batch[21..][4], 7);
    write_request(&mut batch, RequestHead { no_touch: true, ..head }, [&b"GET"[..], b"k"]);
    assert_eq!(batch[42..][4], 11);
    let mut batch = Vec::new();
    let start = begin_reply(&mut batch, 0x0403_0201);
    reply::ok(&mut batch);
    end_reply(&mut batch, start);
    assert_eq!(crate::hex::encode(&batch), "01020304050000002b4f4b0d0a");
}

type Request = (RequestHead, Vec<Vec<u8>>);

fn read_all(batch: &[u8]) -> Result<Vec<Request>, BatchError> {
    let mut iter = RequestIter::new(batch);
    let mut spans = Vec::new();
    let mut all = Vec::new();
    while let Some(request) = iter.next(&mut spans) {
        let Ok((head, bytes)) = request else {
            assert!(spans.is_empty() && iter.next(&mut spans).is_none(), "nothing after an error");
            return Err(request.unwrap_err());
        };
        let args = spans.iter().map(|&(s, e)| bytes[s as usize..e as usize].to_vec());
        all.push((head, args.collect()));
    }
    Ok(all)
}

#[test]
fn broken_batches_are_refused() {
    let mut batch = Vec::new();
    let head = RequestHead {
        id: 1,
        proto: Proto::Resp2,
        whole_store: false,
        first: false,
        no_touch: false,
    };
    write_request(&mut batch, head, [&b"SET"[..], b"key", b""]);
    for end in 1..batch.len() {
        assert_eq!(read_all(&batch[..end]), Err(BatchError::Truncated), "to {end}");
    }
    let with = |at: usize, byte: u8| {
        let mut changed = batch.clone();
        changed[at] = byte;
        read_all(&changed)
    };
    assert_eq!(with(4, 16), Err(BatchError::UnknownFlags(16)));
    assert_eq!(with(5, 0), Err(BatchError::ArgumentCount(0)));
    assert_eq!(with(8, 0xff), Err(BatchError::ArgumentCount(0xff00_0003)));
    assert_eq!(with(5, 4), Err(BatchError::Truncated));
    assert_eq!(with(12, 0xff), Err(BatchError::Truncated));
}

#[test]
fn broken_replies_are_refused() {
    let mut batch = Vec::new();
    let start = begin_reply(&mut batch, 5);
    reply::ok(&mut batch);
    end_reply(&mut batch, start);
    for end in 1..batch.len() {
        let mut iter = ReplyIter::new(&batch[..end]);
        assert_eq!(iter.next(), Some(Err(BatchError::Truncated)), "to {end}");
        assert_eq!(iter.next(), None);
    }
    batch[7] = 0xff;
    assert_eq!(ReplyIter::new(&batch).next(), Some(Err(BatchError::Truncated)));
}

#[test]
fn a_reply_that_fits_no_frame_becomes_an_error() {
    let mut batch = Vec::new();
    let start = begin_reply(&mut batch, 9);
    batch.extend_from_slice(&[b'x'; 101]);
    let mut fits = batch.clone();
    end_reply_within(&mut fits, start, 101);
    assert_eq!(ReplyIter::new(&fits).next(), Some(Ok((9, &[b'x'; 101][..]))));
    end_reply_within(&mut batch, start, 100);
    let (id, resp) = ReplyIter::new(&batch).next().unwrap().unwrap();
    assert_eq!(id, 9);
    assert!(resp.starts_with(b"-ERR reply is too large"));
}

fn any_request() -> impl Strategy<Value = Request> {
    let args = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..6);
    (any::<u32>(), any::<[bool; 4]>(), args).prop_map(
        |(id, [three, whole_store, first, no_touch], args)| {
            let proto = if three { Proto::Resp3 } else { Proto::Resp2 };
            (RequestHead { id, proto, whole_store, first, no_touch }, args)
        },
    )
}

proptest! {
    #[test]
    fn requests_round_trip(requests in prop::collection::vec(any_request(), 0..6)) {
        let mut batch = Vec::new();
        for (head, args) in &requests {
            write_request(&mut batch, *head, args.iter().map(Vec::as_slice));
        }
        prop_assert_eq!(read_all(&batch), Ok(requests));
    }

    #[test]
    fn replies_round_trip(replies in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..30)), 0..6)) {
        let mut batch = Vec::new();
        for (id, resp) in &replies {
            let start = begin_reply(&mut batch, *id);
            batch.extend_from_slice(resp);
            end_reply(&mut batch, start);
        }
        let read: Result<Vec<_>, _> =
            ReplyIter::new(&batch).map(|r| r.map(|(id, resp)| (id, resp.to_vec()))).collect();
        prop_assert_eq!(read, Ok(replies));
    }

    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..80), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() > 4 {
            bytes[..4].copy_from_slice(&MAGIC);
        }
        prop_assert!(!matches!(FrameReader::new().next(&bytes), Ok(Some(_))), "no checksum fits");
        drop(read_all(&bytes));
        ReplyIter::new(&bytes).for_each(drop);
    }
}

// Computed by another program.
const GOLDEN_PING: &str = "444b565001000300000000000000000000000000c3ef8a04";
const GOLDEN_REPLIES: &str = "444b56500100020003000000b73f4b36000000001b30aae8616263";
