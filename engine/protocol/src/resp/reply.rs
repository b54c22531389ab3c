//! Replies, written straight into a connection's output.

use super::Proto;
use alloc::vec::Vec;

fn number(out: &mut Vec<u8>, kind: u8, n: i64) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `+OK`.
#[inline]
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// A simple string; `text` holds no CR or LF.
#[inline]
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error, `text` with its code word first (`ERR syntax error`). CR and LF in it become spaces.
pub fn error(out: &mut Vec<u8>, text: &str) {
    error_bytes(out, text.as_bytes());
}

/// As [`error`], for a text that quotes what a client sent.
pub fn error_bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// An integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, n: i64) {
    number(out, b':', n);
}

/// The line before the bytes of a bulk string, for one whose bytes are sent from elsewhere; a line break follows them.
pub fn bulk_head(out: &mut Vec<u8>, len: usize) {
    number(out, b'$', len as i64);
}

/// A bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    // Once for all of it: the head takes 13 bytes at most.
    out.reserve(bytes.len() + 16);
    number(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A text with its format (`txt`) in RESP3, a bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, proto: Proto, text: &[u8]) {
    match proto {
        Proto::Resp2 => bulk(out, text),
        Proto::Resp3 => {
            number(out, b'=', text.len() as i64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A number with a fraction: a bulk string in RESP2.
pub fn double(out: &mut Vec<u8>, proto: Proto, n: f64) {
    let text = alloc::format!("{n}");
    match proto {
        Proto::Resp2 => bulk(out, text.as_bytes()),
        Proto::Resp3 => {
            out.push(b',');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The absence of a value: a null bulk string in RESP2.
#[inline]
pub fn null(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"$-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// The absence of an array.
pub fn null_array(out: &mut Vec<u8>, proto: Proto) {
    out.extend_from_slice(match proto {
        Proto::Resp2 => b"*-1\r\n",
        Proto::Resp3 => b"_\r\n",
    });
}

/// The head of an array; `len` elements follow.
#[inline]
pub fn array(out: &mut Vec<u8>, len: usize) {
    number(out, b'*', len as i64);
}

/// The head of what is sent without being asked for; `len` elements follow. An array in RESP2.
#[inline]
pub fn push(out: &mut Vec<u8>, proto: Proto, len: usize) {
    number(out, if proto == Proto::Resp3 { b'>' } else { b'*' }, len as i64);
}

/// The head of a map of `len` pairs; a flat array in RESP2.
pub fn map(out: &mut Vec<u8>, proto: Proto, len: usize) {
    match proto {
        Proto::Resp2 => number(out, b'*', len as i64 * 2),
        Proto::Resp3 => number(out, b'%', len as i64),
    }
}

/// The head of a set; an array in RESP2.
pub fn set(out: &mut Vec<u8>, proto: Proto, len: usize) {
    number(out, if proto == Proto::Resp3 { b'~' } else { b'*' }, len as i64);
}
