//! Requests as bytes, and replies as far as a load generator looks at them. Pure.

use super::values::Values;
use dkv_protocol::resp::value::skip;

/// Digits of the number of a key.
pub(super) const DIGITS: usize = 12;

/// What goes before a request that was sent on by ASK; its answer is no answer to anything.
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// Writes requests; what never changes in them is made once.
#[derive(Debug)]
pub(super) struct Requests {
    get: Vec<u8>,
    set: Vec<u8>,
    /// What follows the value.
    expiry: Vec<u8>,
    prefix: String,
}

impl Requests {
    pub(super) fn new(prefix: &str, ttl_ms: Option<u64>) -> Self {
        let key = format!("${}\r\n{prefix}", prefix.len() + DIGITS);
        let arguments = if ttl_ms.is_some() { 5 } else { 3 };
        let expiry = ttl_ms.map(|ms| {
            let ms = ms.to_string();
            format!("$2\r\nPX\r\n${}\r\n{ms}\r\n", ms.len())
        });
        Self {
            get: format!("*2\r\n$3\r\nGET\r\n{key}").into_bytes(),
            set: format!("*{arguments}\r\n$3\r\nSET\r\n{key}").into_bytes(),
            expiry: expiry.unwrap_or_default().into_bytes(),
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn get(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.get);
        push_digits(key, out);
        out.extend_from_slice(b"\r\n");
    }

    pub(super) fn set(&self, key: u64, values: &Values, size: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.set);
        push_digits(key, out);
        out.extend_from_slice(b"\r\n$");
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = size;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
        out.extend_from_slice(b"\r\n");
        values.append(size, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.expiry);
    }

    /// The key of a number, as it is stored.
    pub(super) fn key(&self, number: u64) -> Vec<u8> {
        let mut key = self.prefix.clone().into_bytes();
        push_digits(number, &mut key);
        key
    }
}

fn push_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

/// What stands at the beginning of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A whole reply of so many bytes.
    Done { length: usize, kind: Kind },
    /// A string whose header is here: with so many bytes in all, of which some are still to come.
    Long { total: usize },
    /// Not enough to tell.
    Cut,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something.
    Answer,
    /// There is no such key.
    Missing,
    /// An error.
    Error,
}

/// Longest line of a reply: an error is text for people.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Looks at the beginning of what was received.
///
/// # Errors
/// It is no RESP.
pub(super) fn look(bytes: &[u8]) -> Result<Reply, String> {
    if bytes.starts_with(b"+OK\r\n") {
        return Ok(Reply::Done { length: 5, kind: Kind::Answer });
    }
    let Some(first) = bytes.first() else { return Ok(Reply::Cut) };
    if !b"+-:$_*#,(!=%~>|".contains(first) {
        return Err(format!("it sent {:?}, which is no RESP", beginning(bytes)));
    }
    if matches!(first, b'*' | b'%' | b'~' | b'>' | b'|' | b'!' | b'=') {
        return match skip(bytes).map_err(|error| error.to_string())? {
            Some(length) => Ok(Reply::Done { length, kind: Kind::Answer }),
            None if bytes.len() > LINE_BYTES_MAX => Err("its reply to GET or SET is a list".into()),
            None => Ok(Reply::Cut),
        };
    }
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        if bytes.len() >= LINE_BYTES_MAX {
            return Err("its reply is a line without an end".into());
        }
        return Ok(Reply::Cut);
    };
    let length = end + 1;
    let kind = match first {
        b'-' => Kind::Error,
        b'_' => Kind::Missing,
        b'$' => {
            let digits = bytes[1..end].trim_ascii_end();
            if digits == b"-1" {
                return Ok(Reply::Done { length, kind: Kind::Missing });
            }
            let size = number(digits)
                .filter(|size| *size <= dkv_protocol::limits::VALUE_BYTES_MAX)
                .ok_or_else(|| format!("it sent a string of length {:?}", beginning(digits)))?;
            let total = length + size + 2;
            return Ok(if bytes.len() >= total {
                Reply::Done { length: total, kind: Kind::Answer }
            } else {
                Reply::Long { total }
            });
        }
        _ => Kind::Answer,
    };
    Ok(Reply::Done { length, kind })
}

/// A number of some digits; none when it is no such thing or has too many.
fn number(digits: &[u8]) -> Option<usize> {
    let add = |sum: usize, digit: &u8| {
        digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0'))
    };
    (1..=10).contains(&digits.len()).then(|| digits.iter().try_fold(0, add)).flatten()
}

/// The first bytes as text, for a message.
pub(super) fn beginning(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::values::ValueSizes;
    use super::*;

    #[test]
    fn requests_are_what_a_server_expects() {
        let (mut out, values) = (Vec::new(), Values::new(ValueSizes::Fixed(3)));
        Requests::new("b:", None).get(42, &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$14\r\nb:000000000042\r\n");
        out.clear();
        Requests::new("b:", Some(1500)).set(7, &values, 3, &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        let (head, tail) = (
            "*5\r\n$3\r\nSET\r\n$14\r\nb:000000000007\r\n$3\r\n",
            "\r\n$2\r\nPX\r\n$4\r\n1500\r\n",
        );
        assert!(text.starts_with(head) && text.ends_with(tail), "{text}");
        assert_eq!(text.len(), head.len() + 3 + tail.len());
        assert_eq!(Requests::new("b:", None).key(5), b"b:000000000005");
    }

    #[test]
    fn replies_are_told_apart_whole_long_or_cut() {
        let done = |length, kind| Ok(Reply::Done { length, kind });
        assert_eq!(look(b"+OK\r\n+OK\r\n"), done(5, Kind::Answer));
        assert_eq!(look(b"$3\r\nabc\r\n"), done(9, Kind::Answer));
        assert_eq!(look(b"$-1\r\n"), done(5, Kind::Missing));
        assert_eq!(look(b"_\r\n"), done(3, Kind::Missing));
        assert_eq!(look(b"-OOM no\r\n"), done(9, Kind::Error));
        assert_eq!(look(b"*1\r\n:1\r\n:2\r\n"), done(8, Kind::Answer));
        assert_eq!(look(b"$10\r\nabc"), Ok(Reply::Long { total: 17 }));
        for cut in [&b""[..], b"+O", b"$1", b"-ERR", b"*1\r\n:1"] {
            assert_eq!(look(cut), Ok(Reply::Cut), "{cut:?}");
        }
        for wrong in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"$x\r\n", b"$99999999999\r\n"] {
            assert!(look(wrong).is_err(), "{wrong:?}");
        }
        assert!(look(&vec![b'+'; LINE_BYTES_MAX]).is_err());
    }
}
