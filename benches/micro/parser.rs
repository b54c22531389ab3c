//! What it costs to find requests in what a client sent, keys in slots, and replies in what a server sent.
//!
//! `cargo bench -p dkv-bench --bench parser`

use std::hint::black_box;

use dkv_bench::micro::Micro;
use dkv_protocol::resp::request::{Limits, Parsed, RequestParser};
use dkv_protocol::resp::value::ReplyScanner;
use dkv_protocol::slots::slot_of;

/// Bytes of a receive buffer: more is never seen at once.
const BUFFER_BYTES: usize = 4096;

fn request(arguments: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n{argument}\r\n", argument.len()).bytes());
    }
    bytes
}

/// As many copies as fit a buffer, at least one.
fn pipeline(request: &[u8]) -> Vec<u8> {
    request.repeat((BUFFER_BYTES / request.len()).max(1))
}

fn parse(micro: Micro, name: &str, request: &[u8]) {
    let buffer = pipeline(request);
    let in_one = (buffer.len() / request.len()) as u64;
    let rounds = micro.count(2_000_000) / in_one + 1;
    let mut spans = Vec::new();
    micro.row(name, rounds * in_one, || {
        for _ in 0..rounds {
            let mut parser = RequestParser::default();
            let mut rest = black_box(buffer.as_slice());
            while !rest.is_empty() {
                match parser.parse(rest, &Limits::AUTHENTICATED, &mut spans) {
                    Ok(Parsed::Complete { consumed }) => rest = &rest[consumed..],
                    other => panic!("{name}: {other:?}"),
                }
                black_box(&spans);
            }
        }
    });
}

/// A request that arrives in pieces is looked at once for each.
fn parse_in_pieces(micro: Micro, request: &[u8], piece: usize) {
    let rounds = micro.count(20_000);
    let mut spans = Vec::new();
    let name = format!("SET of {} bytes in pieces of {piece}", request.len());
    micro.row(&name, rounds, || {
        for _ in 0..rounds {
            let mut parser = RequestParser::default();
            for end in (piece..request.len()).step_by(piece).chain([request.len()]) {
                let parsed = parser.parse(&request[..end], &Limits::AUTHENTICATED, &mut spans);
                black_box(parsed.expect("it is a request"));
            }
        }
    });
}

fn scan(micro: Micro, name: &str, reply: &[u8]) {
    let buffer = pipeline(reply);
    let in_one = (buffer.len() / reply.len()) as u64;
    let rounds = micro.count(2_000_000) / in_one + 1;
    micro.row(name, rounds * in_one, || {
        for _ in 0..rounds {
            let mut scanner = ReplyScanner::default();
            let mut rest = black_box(buffer.as_slice());
            while let Ok(Some(length)) = scanner.scan(rest) {
                rest = &rest[length..];
                if rest.is_empty() {
                    break;
                }
            }
            assert!(rest.is_empty(), "{name}");
        }
    });
}

fn main() {
    let micro = Micro::new("parser, per request");
    let key = "key:000000012345";
    let keys: Vec<String> = (0..100).map(|i| format!("key:{i:012}")).collect();
    let mut mget = vec!["MGET"];
    mget.extend(keys.iter().map(String::as_str));
    parse(micro, "GET, key of 16 bytes", &request(&["GET", key]));
    parse(micro, "SET, value of 64 bytes", &request(&["SET", key, &"x".repeat(64)]));
    parse(micro, "SET, value of 1 KiB", &request(&["SET", key, &"x".repeat(1024)]));
    parse(micro, "MGET of 100 keys", &request(&mget));
    parse(micro, "GET as an inline command", format!("GET {key}\r\n").as_bytes());
    parse_in_pieces(micro, &request(&["SET", key, &"x".repeat(64 * 1024)]), BUFFER_BYTES);

    let count = micro.count(2_000_000);
    micro.row("slot of a key of 16 bytes", count, || {
        for _ in 0..count {
            black_box(slot_of(black_box(key.as_bytes())));
        }
    });
    scan(micro, "reply of 64 bytes, scanned", &request(&[&"x".repeat(64)])[4..]);
    scan(micro, "+OK, scanned", b"+OK\r\n");
}
