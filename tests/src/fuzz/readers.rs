//! The readers of bytes that keep nothing: requests, replies, frames of cluster links, and documents.

use super::{Target, mixed, numbers};
use crate::bare::command;
use dkv_protocol::admin;
use dkv_protocol::control::{ControlRequest, FromNode, NodeStatus, ToNode};
use dkv_protocol::frame::{
    FrameKind, FrameReader, ReplyIter, RequestIter, begin_frame, end_frame, write_request,
};
use dkv_protocol::launch::LaunchDocument;
use dkv_protocol::peer::read_batch;
use dkv_protocol::resp::request::{Limits, Parsed, ProtocolError, RequestParser};
use dkv_protocol::resp::value::{ReplyScanner, elements, parse, skip};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The parser of requests: where its bytes are cut changes nothing.
pub(super) struct Requests;

type Request = Vec<Vec<u8>>;

/// Requests up to the end or the error, bytes left over, and the error.
fn requests(
    input: &[u8],
    limits: &Limits,
    pieces: impl Iterator<Item = usize>,
) -> (Vec<Request>, usize, Option<ProtocolError>) {
    let (mut parser, mut spans) = (RequestParser::default(), Vec::new());
    let (mut found, mut start, mut end) = (Vec::new(), 0, 0);
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

impl Target for Requests {
    fn examples(&self) -> Vec<Vec<u8>> {
        let mut several = Vec::new();
        command(&mut several, &[b"SET", b"key", b"value"]);
        command(&mut several, &[b"GET", b"", &[0, 255, b'\r', b'\n']]);
        vec![
            several,
            b"PING\r\nSET \"a\\x00b\" 'c d'\r\n".to_vec(),
            b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n".to_vec(),
            b"POST / HTTP/1.1\r\nHost: x\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
        ]
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = ["\r\n", "*", "$", "\"", "'", "\\x", " ", "\0", "*3\r\n$3\r\n", "$0\r\n\r\n"];
        words.iter().map(|word| word.as_bytes().to_vec()).chain(numbers()).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        let mut ways = Vec::new();
        for limits in [Limits::AUTHENTICATED, Limits::UNAUTHENTICATED] {
            let whole = requests(input, &limits, std::iter::empty());
            assert_eq!(requests(input, &limits, std::iter::repeat_n(1, input.len())), whole);
            let thirds = std::iter::repeat_n(input.len() / 3 + 1, 3);
            assert_eq!(requests(input, &limits, thirds), whole);
            let (found, left, error) = whole;
            let kind = error.map_or(0, |error| error.to_string().len() as u64);
            ways.extend([found.len().min(9) as u64, u64::from(left == 0), kind]);
        }
        mixed(ways)
    }
}

/// The readers of replies: skipping, scanning in pieces and building agree.
pub(super) struct Replies;

impl Target for Replies {
    fn examples(&self) -> Vec<Vec<u8>> {
        [
            "+OK\r\n",
            "-ERR x\r\n",
            ":5\r\n",
            "$3\r\nabc\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "%1\r\n+a\r\n~1\r\n#t\r\n",
            ",1.5\r\n",
            "(12345\r\n",
            "=7\r\ntxt:abc\r\n",
            "!5\r\nERR x\r\n",
            ">2\r\n+a\r\n+b\r\n",
            "|1\r\n+a\r\n+b\r\n:1\r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = ["\r\n", "*", "$", "%", "~", ">", "|", "=", "_", "#f", ",", "(", "!", "*1\r\n"];
        words.iter().map(|word| word.as_bytes().to_vec()).chain(numbers()).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        let skipped = skip(input);
        let mut scanner = ReplyScanner::default();
        let mut scans = (0..=input.len()).map(|end| scanner.scan(&input[..end]));
        assert_eq!(scans.find(|scan| *scan != Ok(None)).unwrap_or(Ok(None)), skipped);
        let parsed = parse(input);
        match &parsed {
            Ok(Some((_, len))) => assert_eq!(skipped, Ok(Some(*len))),
            Ok(None) => assert_eq!(skipped, Ok(None)),
            // A verbatim string without its format is found only when it is built.
            Err(_) => {}
        }
        let mut count = 0;
        if let Ok(items) = elements(input) {
            let len: usize = items.take(1000).filter_map(Result::ok).map(<[u8]>::len).sum();
            assert!(len <= input.len());
            count = len as u64;
        }
        let kind = u64::from(input.first().copied().unwrap_or_default());
        mixed([kind, u64::from(parsed.is_ok()), u64::from(skipped == Ok(None)), count.min(9)])
    }
}

/// Frames of cluster links, the batches in them, and what copies of ranges say to each other.
pub(super) struct Frames;

impl Target for Frames {
    fn examples(&self) -> Vec<Vec<u8>> {
        // A batch to begin with is made of bytes: what is in it is the reader's to say.
        let message = |kind: u8| {
            let mut body = vec![7; 16];
            body.push(kind);
            body.extend((0..60_u8).flat_map(|i| [i % 3, 0]));
            body
        };
        let mut all: Vec<Vec<u8>> = (0..32).map(message).collect();
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        frame.extend_from_slice(&message(1));
        end_frame(&mut frame, start, FrameKind::Requests);
        all.push(frame);
        all.push(vec![0; 64]);
        all
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let widths = [0_u64, 1, 255, 256, 65535, 65536, 1 << 31, (1 << 48) - 1, u64::MAX];
        let little = widths.iter().flat_map(|n| {
            let bytes = n.to_le_bytes();
            [bytes[..2].to_vec(), bytes[..4].to_vec(), bytes.to_vec()]
        });
        little.chain([b"DKVP".to_vec(), b"\r\n".to_vec()]).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        let first = FrameReader::new().next(input);
        if let Ok(Some((_, body, len))) = &first {
            assert!(body.len() <= *len && *len <= input.len());
        }
        let hello = FrameReader::for_hello().next(input);
        // What is framed is found again, in pieces as well.
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        frame.extend_from_slice(input);
        end_frame(&mut frame, start, FrameKind::Requests);
        let mut reader = FrameReader::new();
        assert_eq!(reader.next(&frame[..frame.len() / 2]), Ok(None));
        assert_eq!(reader.next(&frame), Ok(Some((FrameKind::Requests, input, frame.len()))));
        // A batch that is read can be written again, and is the same.
        let mut batch = RequestIter::new(input);
        let (mut spans, mut written, mut count, mut whole) = (Vec::new(), Vec::new(), 0, true);
        while let Some(request) = batch.next(&mut spans) {
            match request {
                Ok((head, bytes)) => {
                    let args = spans.iter().map(|&(s, e)| &bytes[s as usize..e as usize]);
                    write_request(&mut written, head, args);
                    count += 1;
                }
                Err(_) => whole = false,
            }
        }
        assert!(!whole || written == input);
        let replies = ReplyIter::new(input).count() as u64;
        // Messages of copies, and again what of them can be written.
        let mut said = Vec::new();
        if let Ok((_, messages)) = read_batch(input) {
            for message in messages {
                match message {
                    Ok(message) => {
                        let mut again = Vec::new();
                        message.write(&mut again);
                        said.push(u64::from(again.first().copied().unwrap_or_default()));
                    }
                    Err(error) => said.push(2 + error.to_string().len() as u64),
                }
            }
        }
        said.truncate(9);
        let heads = [
            u64::from(first.is_err()),
            u64::from(hello.is_err()),
            count.min(9),
            replies.min(9),
            u64::from(whole),
        ];
        mixed(heads.into_iter().chain(said))
    }
}

/// Documents: calls of the admin API, of the control socket, and the launch document. What is read is written and read alike.
pub(super) struct Documents;

/// Whether it is one; if so, it must come back from what it is written as.
fn reads<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(input: &[u8]) -> u64 {
    let Ok(read) = serde_json::from_slice::<T>(input) else { return 0 };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, read);
    1
}

impl Target for Documents {
    fn examples(&self) -> Vec<Vec<u8>> {
        let node = r#"{"name":"node1","address":"127.0.0.1","cluster_port":7811,"client_port":7861,"shard_ports":[7900]}"#;
        let launch = format!(
            r#"{{"version":1,"store":"A","store_id":"0123456789abcdef0123456789abcdef","index":0,"nodes":[{node}],"epoch":1,
            "bind":["127.0.0.1"],"cpus":[0],"cpus_exclusive":false,"hash_seed":"00112233445566778899aabbccddeeff",
            "cluster_secret":"{}","password_sha256":null,"protected_mode":true,"memory_bytes_max":0,
            "control_socket":"/x/c","lock_file":"/x/l"}}"#,
            "5a".repeat(32)
        );
        let mut all = vec![launch.into_bytes()];
        for text in [
            r#"{"name":"A","instance_prefix":"node","instance_count":2,"replicas":1}"#,
            r#"{"op":"status"}"#,
            r#"{"op":"stop"}"#,
            r#"{"tell":"ranges","news":[]}"#,
            r#"{"store":"A","ranges":[1,2],"force":true}"#,
            r#"{"error":{"code":"x","message":"y","hint":"z"}}"#,
            "[[[[[[[[[[[[[[[[",
            r#"{"a":{"a":{"a":{"a":null}}}}"#,
        ] {
            all.push(text.as_bytes().to_vec());
        }
        all.push(serde_json::to_vec(&ControlRequest::Status).expect("it can be written"));
        all
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = [
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "null",
            "true",
            "\\u0000",
            "\\ud800",
            "\"name\"",
            "\"index\"",
            "\"version\"",
            "{\"a\":",
            "[[[[[[[[",
            "-",
            "1e999",
            "../../etc",
        ];
        words.iter().map(|word| word.as_bytes().to_vec()).chain(numbers()).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        mixed([
            reads::<LaunchDocument>(input),
            reads::<ControlRequest>(input),
            reads::<ToNode>(input),
            reads::<FromNode>(input),
            u64::from(serde_json::from_slice::<NodeStatus>(input).is_ok()),
            reads::<admin::StoreDefinition>(input),
            u64::from(serde_json::from_slice::<admin::ReservationRequest>(input).is_ok()),
            u64::from(serde_json::from_slice::<admin::CommitRequest>(input).is_ok()),
            u64::from(serde_json::from_slice::<admin::AddInstanceRequest>(input).is_ok()),
            u64::from(serde_json::from_slice::<admin::CatchUpRequest>(input).is_ok()),
            u64::from(serde_json::from_slice::<admin::JoinRequest>(input).is_ok()),
            u64::from(serde_json::from_slice::<admin::ErrorDocument>(input).is_ok()),
            u64::from(serde_json::from_slice::<serde_json::Value>(input).is_ok()),
        ])
    }
}
