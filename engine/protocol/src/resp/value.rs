//! Replies in: finding the end of one without building it (for merging what several shards said), and building it
//! (for clients).
//!
//! It stands apart from [`super::reply`] because reading must survive any bytes. Its invariants: nesting is bounded and
//! costs no stack; work is linear in the bytes received however they were split ([`ReplyScanner`]); nothing is
//! reserved for lengths that have not arrived. It knows nothing of commands.

use super::request::integer as parse_integer;
use crate::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX, REPLY_DEPTH_MAX};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why bytes are no reply. The connection cannot be understood any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No reply starts with this byte.
    UnknownType(u8),
    /// A length or an integer that is not one, or too great.
    InvalidNumber,
    /// A line that does not end as it must, or not within the limit.
    InvalidLine,
    /// A string that is longer than it said.
    UnterminatedBulk,
    /// A boolean, a double, a null or a verbatim string that is not one.
    InvalidScalar,
    /// More levels than [`REPLY_DEPTH_MAX`].
    TooDeep,
    /// A reply of several elements was due.
    NotAnAggregate,
    /// The bytes end inside the reply.
    Truncated,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(b) => {
                write!(f, "no RESP reply starts with '{}'", core::ascii::escape_default(*b))
            }
            Self::InvalidNumber => f.write_str("invalid number in a RESP reply"),
            Self::InvalidLine => f.write_str("unterminated line in a RESP reply"),
            Self::UnterminatedBulk => f.write_str("expected CRLF after a string of a RESP reply"),
            Self::InvalidScalar => f.write_str("invalid value in a RESP reply"),
            Self::TooDeep => write!(f, "RESP reply nested deeper than {REPLY_DEPTH_MAX}"),
            Self::NotAnAggregate => f.write_str("expected a RESP reply of several elements"),
            Self::Truncated => f.write_str("truncated RESP reply"),
        }
    }
}

impl core::error::Error for ReplyError {}

/// The head of a reply: its line, and what must follow it.
enum Head<'a> {
    /// Complete with its line.
    Scalar { kind: u8, line: &'a [u8] },
    /// `len` bytes and CRLF follow.
    Bulk { kind: u8, len: usize },
    /// The null of RESP2.
    Null,
    /// `items` replies follow.
    Aggregate { kind: u8, items: u64 },
}

/// Reads the head at `pos`, of which nothing before `scanned` ends its line. `Ok(Err(n))`: not complete, and no line
/// ends before `n`. Otherwise the head, and where what follows it starts.
fn head(
    buf: &[u8],
    pos: usize,
    scanned: usize,
) -> Result<Result<(Head<'_>, usize), usize>, ReplyError> {
    let Some(&kind) = buf.get(pos) else { return Ok(Err(pos)) };
    if !b"+-:$*_#,(!=%~>|".contains(&kind) {
        return Err(ReplyError::UnknownType(kind));
    }
    let limit = buf.len().min(pos + INLINE_BYTES_MAX + 1);
    let from = scanned.max(pos + 1).min(limit);
    let Some(cr) = buf[from..limit].iter().position(|&b| b == b'\r').map(|i| from + i) else {
        if limit - pos > INLINE_BYTES_MAX {
            return Err(ReplyError::InvalidLine);
        }
        return Ok(Err(limit));
    };
    match buf.get(cr + 1) {
        None => return Ok(Err(cr)),
        Some(b'\n') => {}
        Some(_) => return Err(ReplyError::InvalidLine),
    }
    let line = &buf[pos + 1..cr];
    let head = match kind {
        b'$' | b'!' | b'=' => match length(line)? {
            None if kind == b'$' => Head::Null,
            Some(len) if len <= FRAME_BYTES_MAX as u64 && (kind != b'=' || len >= 4) => {
                Head::Bulk { kind, len: len as usize }
            }
            _ => return Err(ReplyError::InvalidNumber),
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => match length(line)? {
            None if kind == b'*' => Head::Null,
            // A map has two replies for each entry; attributes are a map and then the reply that they describe.
            Some(n) if u32::try_from(n).is_ok() => {
                let items = match kind {
                    b'%' => n * 2,
                    b'|' => n * 2 + 1,
                    _ => n,
                };
                Head::Aggregate { kind, items }
            }
            _ => return Err(ReplyError::InvalidNumber),
        },
        _ => {
            check_scalar(kind, line)?;
            Head::Scalar { kind, line }
        }
    };
    Ok(Ok((head, cr + 2)))
}

/// A length; none for -1.
fn length(line: &[u8]) -> Result<Option<u64>, ReplyError> {
    match parse_integer(line) {
        Some(-1) => Ok(None),
        Some(n) => u64::try_from(n).map(Some).map_err(|_| ReplyError::InvalidNumber),
        None => Err(ReplyError::InvalidNumber),
    }
}

/// Refuses a scalar whose line is not what its type says, so that a reply that was skipped can also be built.
fn check_scalar(kind: u8, line: &[u8]) -> Result<(), ReplyError> {
    let valid = match kind {
        b':' => {
            return match parse_integer(line) {
                Some(_) => Ok(()),
                None => Err(ReplyError::InvalidNumber),
            };
        }
        b'_' => line.is_empty(),
        b'#' => matches!(line, b"t" | b"f"),
        b',' => double(line).is_some(),
        b'(' => {
            let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        _ => !line.contains(&b'\n'),
    };
    if valid { Ok(()) } else { Err(ReplyError::InvalidScalar) }
}

/// A double of RESP3: a decimal number, `inf`, `-inf` or `nan`.
fn double(line: &[u8]) -> Option<f64> {
    core::str::from_utf8(line).ok()?.parse().ok()
}

/// The bytes of a string that starts at `pos` and their end with CRLF; none when they have not all arrived.
fn bulk_at(buf: &[u8], pos: usize, len: usize) -> Result<Option<(&[u8], usize)>, ReplyError> {
    let end = pos + len;
    match buf.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&buf[pos..end], end + 2))),
        Some(_) => Err(ReplyError::UnterminatedBulk),
    }
}

/// Finds the end of one reply in a buffer that grows, without looking at any byte twice.
#[derive(Clone, Debug, Default)]
pub struct ReplyScanner {
    /// Where the next element starts.
    pos: usize,
    /// Up to where the line of that element is known to have no end.
    scanned: usize,
    /// Where the string under way ends, CRLF included; 0 for none.
    bulk_end: usize,
    /// Levels that are open.
    depth: usize,
    /// Elements still to come on each open level.
    left: [u64; REPLY_DEPTH_MAX],
}

impl ReplyScanner {
    /// Length of the reply at the start of `buf`, which holds what was given before plus what came since. After a
    /// length was returned the scanner is ready for the next reply.
    ///
    /// # Errors
    /// The connection cannot be understood any further; the scanner must not be used again.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        loop {
            if self.bulk_end != 0 {
                if buf.len() < self.bulk_end {
                    return Ok(None);
                }
                if buf[self.bulk_end - 2..self.bulk_end] != *b"\r\n" {
                    return Err(ReplyError::UnterminatedBulk);
                }
                self.pos = core::mem::take(&mut self.bulk_end);
            } else {
                let (head, next) = match head(buf, self.pos, self.scanned)? {
                    Ok(found) => found,
                    Err(scanned) => {
                        self.scanned = scanned;
                        return Ok(None);
                    }
                };
                match head {
                    Head::Scalar { .. } | Head::Null => self.pos = next,
                    Head::Bulk { len, .. } => {
                        self.bulk_end = next + len + 2;
                        continue;
                    }
                    Head::Aggregate { items, .. } => {
                        self.pos = next;
                        if items > 0 {
                            let level = self.left.get_mut(self.depth);
                            *level.ok_or(ReplyError::TooDeep)? = items;
                            self.depth += 1;
                            continue;
                        }
                    }
                }
            }
            // An element ends here, and with it each level of which it was the last.
            while self.depth > 0 {
                self.left[self.depth - 1] -= 1;
                if self.left[self.depth - 1] > 0 {
                    break;
                }
                self.depth -= 1;
            }
            if self.depth == 0 {
                self.scanned = 0;
                return Ok(Some(core::mem::take(&mut self.pos)));
            }
        }
    }
}

/// Length of the first reply of `buf`, RESP2 or RESP3; none when it is not complete. Attributes count as part of the
/// reply that they precede. For a buffer that grows see [`ReplyScanner`].
pub fn skip(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    ReplyScanner::default().scan(buf)
}

/// Whether a reply is an error, of any kind.
#[inline]
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The number that a whole reply consists of; none when it is anything else.
pub fn integer(reply: &[u8]) -> Option<i64> {
    parse_integer(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// The elements of a reply, each as its raw bytes. See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: u64,
}

impl Elements<'_> {
    /// Elements still to come, as the head of the reply said.
    pub const fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none are to come.
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], ReplyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let result = match skip(self.rest) {
            Ok(Some(len)) => {
                let (element, rest) = self.rest.split_at(len);
                self.rest = rest;
                return Some(Ok(element));
            }
            Ok(None) => ReplyError::Truncated,
            Err(error) => error,
        };
        self.left = 0;
        Some(Err(result))
    }
}

/// The elements of the array, set or push that `reply` consists of; of a map, keys and values in turn. A null array
/// has none. An element that is malformed or missing ends the iteration with an error.
pub fn elements(reply: &[u8]) -> Result<Elements<'_>, ReplyError> {
    match head(reply, 0, 0)? {
        Ok((Head::Aggregate { kind, items }, next)) if kind != b'|' => {
            Ok(Elements { rest: &reply[next..], left: items })
        }
        Ok((Head::Null, next)) if reply[0] == b'*' => {
            Ok(Elements { rest: &reply[next..], left: 0 })
        }
        Ok(_) => Err(ReplyError::NotAnAggregate),
        Err(_) => Err(ReplyError::Truncated),
    }
}

/// A reply, owned. Attributes are left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The absence of a value or of an array.
    Null,
    /// `+OK` and its like.
    Simple(Vec<u8>),
    /// An error, its code word first.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// A string with its format, as `txt`.
    Verbatim([u8; 3], Vec<u8>),
    /// A boolean.
    Boolean(bool),
    /// A floating-point number.
    Double(f64),
    /// An integer of any size, as its digits.
    BigNumber(Vec<u8>),
    /// An array.
    Array(Vec<Value>),
    /// A map, in the order of the reply.
    Map(Vec<(Value, Value)>),
    /// A set, in the order of the reply.
    Set(Vec<Value>),
    /// Something that answers no request.
    Push(Vec<Value>),
}

impl Value {
    /// The text of a simple, bulk, verbatim or big number reply.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text)
            | Self::Bulk(text)
            | Self::Verbatim(_, text)
            | Self::BigNumber(text) => Some(text),
            _ => None,
        }
    }

    /// The same, owned.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Simple(text)
            | Self::Bulk(text)
            | Self::Verbatim(_, text)
            | Self::BigNumber(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an integer reply.
    pub const fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// The text of an error reply; what is not UTF-8 in it is replaced.
    pub fn as_error(&self) -> Option<String> {
        match self {
            Self::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Elements of an array, set or push.
    pub fn into_elements(self) -> Option<Vec<Value>> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Entries of a map, or of a flat array of keys and values as RESP2 has it.
    pub fn into_entries(self) -> Option<Vec<(Value, Value)>> {
        match self {
            Self::Map(entries) => Some(entries),
            Self::Array(items) if items.len().is_multiple_of(2) => Some(pairs(items)),
            _ => None,
        }
    }
}

/// Elements of a vector at most that are made room for before they are seen.
const RESERVED_ELEMENTS_MAX: u64 = 1024;

/// A level of a reply that is being built.
struct Level {
    kind: u8,
    left: u64,
    items: Vec<Value>,
}

impl Level {
    fn finish(mut self) -> Value {
        match self.kind {
            b'%' => Value::Map(pairs(self.items)),
            b'~' => Value::Set(self.items),
            b'>' => Value::Push(self.items),
            // What the attributes describe is their last element.
            b'|' => self.items.pop().unwrap_or(Value::Null),
            _ => Value::Array(self.items),
        }
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    let mut entries = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        entries.push((key, value));
    }
    entries
}

/// The first reply of `buf` and its length; none when it is not complete. Looks at all of it each time: for a buffer
/// that grows, wait for [`ReplyScanner`] first.
pub fn parse(buf: &[u8]) -> Result<Option<(Value, usize)>, ReplyError> {
    let mut pos = 0;
    let mut levels: Vec<Level> = Vec::new();
    loop {
        let Ok((head, next)) = head(buf, pos, 0)? else { return Ok(None) };
        pos = next;
        let mut value = match head {
            Head::Null => Value::Null,
            Head::Scalar { kind, line } => scalar(kind, line)?,
            Head::Bulk { kind, len } => {
                let Some((bytes, next)) = bulk_at(buf, pos, len)? else { return Ok(None) };
                pos = next;
                bulk(kind, bytes)?
            }
            Head::Aggregate { kind, items } => {
                let room = items.min(RESERVED_ELEMENTS_MAX) as usize;
                let level = Level { kind, left: items, items: Vec::with_capacity(room) };
                if items > 0 {
                    if levels.len() == REPLY_DEPTH_MAX {
                        return Err(ReplyError::TooDeep);
                    }
                    levels.push(level);
                    continue;
                }
                level.finish()
            }
        };
        // The value ends here, and with it each level of which it was the last.
        loop {
            let Some(mut level) = levels.pop() else { return Ok(Some((value, pos))) };
            level.items.push(value);
            level.left -= 1;
            if level.left > 0 {
                levels.push(level);
                break;
            }
            value = level.finish();
        }
    }
}

fn scalar(kind: u8, line: &[u8]) -> Result<Value, ReplyError> {
    Ok(match kind {
        b'+' => Value::Simple(line.to_vec()),
        b'-' => Value::Error(line.to_vec()),
        b':' => Value::Integer(parse_integer(line).ok_or(ReplyError::InvalidNumber)?),
        b'#' => Value::Boolean(line == b"t"),
        b',' => Value::Double(double(line).ok_or(ReplyError::InvalidScalar)?),
        b'(' => Value::BigNumber(line.to_vec()),
        _ => Value::Null,
    })
}

fn bulk(kind: u8, bytes: &[u8]) -> Result<Value, ReplyError> {
    Ok(match (kind, bytes) {
        (b'!', _) => Value::Error(bytes.to_vec()),
        (b'=', [a, b, c, b':', text @ ..]) => Value::Verbatim([*a, *b, *c], text.to_vec()),
        (b'=', _) => return Err(ReplyError::InvalidScalar),
        _ => Value::Bulk(bytes.to_vec()),
    })
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
