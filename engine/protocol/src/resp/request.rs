//! Requests in: an incremental parser that copies nothing and finds the arguments of one command at a time.
//!
//! It stands apart from the replies because it is the first thing that hostile bytes meet. Its invariants: work is
//! linear in the bytes received however they were split; nothing is reserved for a length that was announced but has
//! not arrived; whether a request is accepted, and with which spans, does not depend on where it was split. It knows
//! nothing of commands, sessions or passwords: how much is allowed comes in as [`Limits`].

use crate::hex::digit;
use crate::limits::{
    ARGS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX, UNAUTHENTICATED_ARGS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX, UNAUTHENTICATED_REQUEST_BYTES_MAX, VALUE_BYTES_MAX,
};
use alloc::vec::Vec;
use core::fmt;

/// How much one request may be. What exceeds these but not the limits of the protocol is refused with the words for
/// connections that have not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most arguments, the command's name included.
    pub args_max: usize,
    /// Longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Longest request with all its length lines, in bytes.
    pub request_bytes_max: usize,
}

impl Limits {
    /// After AUTH, or when the store has no password.
    pub const AUTHENTICATED: Self = Self {
        args_max: ARGS_MAX,
        bulk_bytes_max: VALUE_BYTES_MAX,
        request_bytes_max: REQUEST_BYTES_MAX,
    };
    /// Before AUTH.
    pub const UNAUTHENTICATED: Self = Self {
        args_max: UNAUTHENTICATED_ARGS_MAX,
        bulk_bytes_max: UNAUTHENTICATED_BULK_BYTES_MAX,
        request_bytes_max: UNAUTHENTICATED_REQUEST_BYTES_MAX,
    };
}

/// What [`RequestParser::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request, the first `consumed` bytes.
    Complete {
        /// Bytes of the request; the next one starts there.
        consumed: usize,
    },
    /// Not yet.
    Incomplete {
        /// Bytes that `buf` must have before the next argument can be complete; 0 when unknown. A hint: what was
        /// announced need not come, so nothing should be reserved for it.
        need: usize,
    },
}

/// Why a connection cannot be understood any further. It is answered with `-ERR ` and this text, and closed; except
/// where [`ProtocolError::closes_silently`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is not one, or too great.
    InvalidMultibulkLength,
    /// The number after `$` is not one, negative, or too great.
    InvalidBulkLength,
    /// Something else where an argument should start.
    ExpectedDollar(u8),
    /// An argument is longer than it said.
    UnterminatedBulk,
    /// An inline command without an end.
    TooBigInline,
    /// A line after `*` without an end.
    TooBigMultibulkCount,
    /// A line after `$` without an end.
    TooBigBulkCount,
    /// All arguments together are too long.
    TooBigRequest,
    /// An inline command whose quotes do not match.
    UnbalancedQuotes,
    /// Too many arguments for a connection that has not authenticated.
    UnauthenticatedMultibulkLength,
    /// Too long an argument for a connection that has not authenticated.
    UnauthenticatedBulkLength,
    /// An HTTP request: a browser made to talk to us. Closed without an answer, and logged with the address.
    CrossProtocol,
    /// A TLS handshake on a port that does not speak TLS. Closed without an answer.
    TlsHello,
}

impl ProtocolError {
    /// Whether the connection gets no answer, because its other end does not speak this protocol at all.
    pub const fn closes_silently(self) -> bool {
        matches!(self, Self::CrossProtocol | Self::TlsHello)
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        f.write_str(match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::InvalidBulkLength => "invalid bulk length",
            // Escaped, so that a control byte cannot end the line of the reply or of the log.
            Self::ExpectedDollar(got @ b' '..=b'~') => {
                return write!(f, "expected '$', got '{}'", char::from(*got));
            }
            Self::ExpectedDollar(got) => {
                return write!(f, "expected '$', got '{}'", core::ascii::escape_default(*got));
            }
            Self::UnterminatedBulk => "expected CRLF after bulk",
            Self::TooBigInline => "too big inline request",
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::TooBigRequest => "too big request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::CrossProtocol => "possible cross-protocol scripting",
            Self::TlsHello => "TLS on a port that does not speak it",
        })
    }
}

impl core::error::Error for ProtocolError {}

/// The start of an argument whose bytes the caller keeps outside the request; the end is then its number among those.
pub const OUTSIDE: u32 = u32::MAX;
/// No argument's length line has been read.
const NO_BULK: u32 = u32::MAX;
/// Spans that a parser keeps room for between split requests; what a larger one took is given back.
const SAVED_SPANS_KEPT: usize = 32;
/// Bytes that a parser keeps room for between quoted inline commands.
const INLINE_BYTES_KEPT: usize = 256;

// Positions in a request are held in 32 bits, and the greatest of them marks "none".
const _: () = assert!(REQUEST_BYTES_MAX + INLINE_BYTES_MAX < NO_BULK as usize);

/// The parser of one connection. What it remembers between calls is where it stopped in the unfinished request.
#[derive(Debug)]
pub struct RequestParser {
    /// Where the next element of the unfinished request starts; 0 before its first line is complete.
    pos: u32,
    /// Up to where the unfinished line is known to have no end.
    scanned: u32,
    /// Arguments still to come.
    left: u32,
    /// Length of the argument whose length line ends at `pos`, or [`NO_BULK`].
    bulk: u32,
    /// Whether the spans of the last complete request refer to `inline`.
    owned: bool,
    /// Arguments of an unfinished request.
    saved: Vec<(u32, u32)>,
    /// Where the arguments that are outside of this request would start in it, and how long they are.
    outside: Vec<(u32, u32)>,
    /// How many of them have been met, and their bytes, which the longest request counts like those inside of it.
    met: u32,
    met_bytes: usize,
    /// Arguments of an inline command with quotes, which stand nowhere in the input.
    inline: Vec<u8>,
}

impl Default for RequestParser {
    fn default() -> Self {
        Self {
            pos: 0,
            scanned: 0,
            left: 0,
            bulk: NO_BULK,
            owned: false,
            saved: Vec::new(),
            outside: Vec::new(),
            met: 0,
            met_bytes: 0,
            inline: Vec::new(),
        }
    }
}

impl RequestParser {
    /// Looks for a whole request at the start of `buf`.
    ///
    /// `buf` starts at the first byte of the unfinished request: what was given before plus what came since. When it is
    /// complete, `spans` holds start and end of each argument in [`Self::bytes`], and none for an empty line, `*0` or
    /// `*-1`, which get no reply. Otherwise `spans` is empty.
    ///
    /// # Errors
    /// The connection is to be closed; the parser must not be used again.
    #[inline]
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        spans: &mut Vec<(u32, u32)>,
    ) -> Result<Parsed, ProtocolError> {
        spans.clear();
        self.owned = false;
        if self.pos != 0 {
            return self.resume(buf, limits, spans);
        }
        match buf.first() {
            Some(b'*') => {}
            Some(_) => return self.parse_inline(buf, spans),
            None => return Ok(Parsed::Incomplete { need: 0 }),
        }
        let (count, pos) = match number(buf, 1) {
            Some((count, pos)) => (i64::from(count), pos),
            None => match self.line(buf, 0)? {
                Some(found) => found,
                None => return Ok(Parsed::Incomplete { need: 0 }),
            },
        };
        if count > ARGS_MAX as i64 {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > limits.args_max as i64 {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        if count <= 0 {
            self.scanned = 0;
            return Ok(Parsed::Complete { consumed: pos });
        }
        self.pos = pos as u32;
        self.left = count as u32;
        let parsed = self.arguments::<false>(buf, limits, spans)?;
        if matches!(parsed, Parsed::Incomplete { .. }) {
            self.saved.clear();
            self.saved.append(spans);
        }
        Ok(parsed)
    }

    /// What the spans of the request that was just completed refer to: `buf`, or for an inline command with quotes the
    /// parser's own copy, which the next call of [`Self::parse`] overwrites.
    #[inline]
    pub fn bytes<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        if self.owned { &self.inline } else { buf }
    }

    /// Whether [`Self::bytes`] is the parser's own copy: such a request must be executed before the next is parsed.
    #[inline]
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Whether a request has begun that is not complete, as far as the parser was shown it.
    pub fn is_unfinished(&self) -> bool {
        self.pos != 0 || self.scanned != 0
    }

    /// The argument that has begun and is not complete: where it starts in the request, and its length.
    pub fn pending(&self) -> Option<(usize, usize)> {
        let begun = self.pos != 0 && self.bulk != NO_BULK;
        let outside = self.outside.last().is_some_and(|&(at, _)| at == self.pos);
        (begun && !outside).then_some((self.pos as usize, self.bulk as usize))
    }

    /// Leaves the pending argument to the caller, who keeps its bytes outside: from now on the request given to
    /// [`Self::parse`] lacks them, and what follows its length line is what follows the argument. Its span will be
    /// [`OUTSIDE`] and its number among such arguments.
    pub fn take_out(&mut self) {
        if let Some((at, len)) = self.pending() {
            self.outside.push((at as u32, len as u32));
        }
    }

    /// Forgets the arguments that are outside of the request that was completed, and returns what [`Self::restart`] needs.
    pub fn take_outside(&mut self) -> Vec<(u32, u32)> {
        (self.met, self.met_bytes) = (0, 0);
        core::mem::take(&mut self.outside)
    }

    /// To parse a request anew, from its start. `request` is what is inside of it, `outside` what the parser said of it.
    pub fn restart(&mut self, request: &[u8], outside: Vec<(u32, u32)>) {
        *self = Self { outside, ..Self::default() };
        if let Some((count, pos)) = number(request, 1) {
            (self.left, self.pos) = (count, pos as u32);
        }
    }

    /// Goes on with a request whose first line is known. The arguments found before are kept here, not in the buffer
    /// of the caller, which serves other connections meanwhile.
    #[cold]
    fn resume(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        spans: &mut Vec<(u32, u32)>,
    ) -> Result<Parsed, ProtocolError> {
        let mut saved = core::mem::take(&mut self.saved);
        let parsed = self.arguments::<true>(buf, limits, &mut saved)?;
        if matches!(parsed, Parsed::Complete { .. }) {
            spans.extend_from_slice(&saved);
            saved.clear();
            saved.shrink_to(SAVED_SPANS_KEPT);
        }
        self.saved = saved;
        Ok(parsed)
    }

    /// The arguments from `self.pos` on.
    #[inline]
    fn arguments<const RESUMED: bool>(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        spans: &mut Vec<(u32, u32)>,
    ) -> Result<Parsed, ProtocolError> {
        let mut pos = self.pos as usize;
        let mut left = self.left;
        while left > 0 {
            let len = if self.bulk == NO_BULK {
                match buf.get(pos) {
                    Some(b'$') => {}
                    Some(&got) => return Err(ProtocolError::ExpectedDollar(got)),
                    None => return Ok(self.stop(pos, left, 0)),
                }
                let (len, next) = match number(buf, pos + 1) {
                    Some((len, next)) => (i64::from(len), next),
                    None => match self.line(buf, pos)? {
                        Some(found) => found,
                        None => return Ok(self.stop(pos, left, 0)),
                    },
                };
                if len < 0 || len > VALUE_BYTES_MAX as i64 {
                    return Err(ProtocolError::InvalidBulkLength);
                }
                if len > limits.bulk_bytes_max as i64 {
                    return Err(ProtocolError::UnauthenticatedBulkLength);
                }
                pos = next;
                let outside = if RESUMED { self.met_bytes } else { 0 };
                if pos + outside + len as usize + 2 > limits.request_bytes_max {
                    return Err(ProtocolError::TooBigRequest);
                }
                len as usize
            } else {
                core::mem::replace(&mut self.bulk, NO_BULK) as usize
            };
            // An argument can only be outside of a request that was cut.
            if RESUMED && self.outside.get(self.met as usize).is_some_and(|o| o.0 as usize == pos) {
                let Some(rest) = buf.get(pos..pos + 2) else {
                    self.bulk = len as u32;
                    return Ok(self.stop(pos, left, pos + 2));
                };
                if rest != b"\r\n" {
                    return Err(ProtocolError::UnterminatedBulk);
                }
                spans.push((OUTSIDE, self.met));
                self.met += 1;
                self.met_bytes += len;
                pos += 2;
                left -= 1;
                continue;
            }
            let end = pos + len;
            let Some(rest) = buf.get(end..end + 2) else {
                self.bulk = len as u32;
                return Ok(self.stop(pos, left, end + 2));
            };
            if rest != b"\r\n" {
                return Err(ProtocolError::UnterminatedBulk);
            }
            spans.push((pos as u32, end as u32));
            pos = end + 2;
            left -= 1;
        }
        self.pos = 0;
        self.scanned = 0;
        Ok(Parsed::Complete { consumed: pos })
    }

    /// Remembers where an unfinished request goes on.
    fn stop(&mut self, pos: usize, left: u32, need: usize) -> Parsed {
        self.pos = pos as u32;
        self.left = left;
        Parsed::Incomplete { need }
    }

    /// The number of the length line that starts with its type at `start`, and where the next line starts; none when it
    /// is not complete. For all lines that [`number`] does not take.
    #[cold]
    fn line(&mut self, buf: &[u8], start: usize) -> Result<Option<(i64, usize)>, ProtocolError> {
        let (too_big, invalid) = if start == 0 {
            (ProtocolError::TooBigMultibulkCount, ProtocolError::InvalidMultibulkLength)
        } else {
            (ProtocolError::TooBigBulkCount, ProtocolError::InvalidBulkLength)
        };
        // The scan stops at the limit even when more bytes are there, so that how the line was split changes nothing.
        let limit = buf.len().min(start + INLINE_BYTES_MAX + 1);
        let from = (self.scanned as usize).max(start + 1).min(limit);
        let Some(cr) = buf[from..limit].iter().position(|&b| b == b'\r').map(|i| from + i) else {
            if limit - start > INLINE_BYTES_MAX {
                return Err(too_big);
            }
            self.scanned = limit as u32;
            return Ok(None);
        };
        match buf.get(cr + 1) {
            None => {
                self.scanned = cr as u32;
                Ok(None)
            }
            Some(b'\n') => match integer(&buf[start + 1..cr]) {
                Some(n) => Ok(Some((n, cr + 2))),
                None => Err(invalid),
            },
            Some(_) => Err(invalid),
        }
    }

    /// A command as a person types it: words, quoted as redis-cli would.
    #[cold]
    fn parse_inline(
        &mut self,
        buf: &[u8],
        spans: &mut Vec<(u32, u32)>,
    ) -> Result<Parsed, ProtocolError> {
        // The first bytes of a TLS record: handshake, version 3.x. It may never hold a newline to wait for.
        if buf.starts_with(&[0x16, 0x03]) {
            return Err(ProtocolError::TlsHello);
        }
        let limit = buf.len().min(INLINE_BYTES_MAX + 1);
        let from = (self.scanned as usize).min(limit);
        let Some(newline) = buf[from..limit].iter().position(|&b| b == b'\n').map(|i| from + i)
        else {
            if limit > INLINE_BYTES_MAX {
                return Err(ProtocolError::TooBigInline);
            }
            self.scanned = limit as u32;
            return Ok(Parsed::Incomplete { need: 0 });
        };
        self.scanned = 0;
        let line = &buf[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|&b| b == b'"' || b == b'\'') {
            self.inline.clear();
            self.inline.shrink_to(INLINE_BYTES_KEPT);
            split_quoted(line, &mut self.inline, spans)?;
            self.owned = true;
        } else {
            split_plain(line, spans);
        }
        if let Some(&(start, end)) = spans.first() {
            let name = &self.bytes(buf)[start as usize..end as usize];
            if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
                return Err(ProtocolError::CrossProtocol);
            }
        }
        Ok(Parsed::Complete { consumed: newline + 1 })
    }
}

/// The number of a well-formed complete length line of up to nine digits: nearly every one. None for all others.
#[inline]
fn number(buf: &[u8], at: usize) -> Option<(u32, usize)> {
    let line = buf.get(at..)?;
    let mut n = 0u32;
    for (i, &b) in line.iter().take(10).enumerate() {
        let digit = b.wrapping_sub(b'0');
        if digit < 10 && i < 9 {
            n = n * 10 + u32::from(digit);
        } else {
            // A leading zero is left to `integer`, which refuses it.
            let plain = b == b'\r' && i > 0 && (line[0] != b'0' || i == 1);
            return (plain && line.get(i + 1) == Some(&b'\n')).then_some((n, at + i + 2));
        }
    }
    None
}

/// A number as Redis' string2ll takes it: an optional minus, no leading zero, no plus, nothing around it.
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    digits.iter().try_fold(0i64, |n, &b| {
        let digit = i64::from(b.is_ascii_digit().then(|| b - b'0')?);
        let n = n.checked_mul(10)?;
        if negative { n.checked_sub(digit) } else { n.checked_add(digit) }
    })
}

/// C's isspace.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The words of a line without quotes, where they stand.
fn split_plain(line: &[u8], spans: &mut Vec<(u32, u32)>) {
    let mut at = 0;
    while at < line.len() {
        if is_space(line[at]) {
            at += 1;
            continue;
        }
        let end = line[at..].iter().position(|&b| is_space(b)).map_or(line.len(), |i| at + i);
        spans.push((at as u32, end as u32));
        at = end;
    }
}

/// The words of a line with quotes, unescaped into `out`, by the rules of Redis' sdssplitargs: double quotes know
/// `\xHH \n \r \t \b \a` and `\` before anything else, single quotes know `\'`, and a closing quote ends the word.
fn split_quoted(
    line: &[u8],
    out: &mut Vec<u8>,
    spans: &mut Vec<(u32, u32)>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // What isspace takes and ASCII whitespace does not.
        if let [0x0b, tail @ ..] = rest {
            rest = tail;
            continue;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = out.len();
        rest = unquote_word(rest, out)?;
        spans.push((start as u32, out.len() as u32));
    }
}

/// Unescapes the word at the start of `rest` and returns what follows it.
fn unquote_word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut quote = None;
    loop {
        match (quote, rest) {
            (None, []) => return Ok(rest),
            (None, [b, ..]) if is_space(*b) => return Ok(rest),
            (None, [b @ (b'"' | b'\''), tail @ ..]) => {
                quote = Some(*b);
                rest = tail;
            }
            (Some(_), []) => return Err(ProtocolError::UnbalancedQuotes),
            (Some(b'"'), [b'\\', b'x', high, low, tail @ ..])
                if let (Some(high), Some(low)) = (digit(*high), digit(*low)) =>
            {
                out.push(high << 4 | low);
                rest = tail;
            }
            (Some(b'"'), [b'\\', b, tail @ ..]) => {
                out.push(match b {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            (Some(b'\''), [b'\\', b'\'', tail @ ..]) => {
                out.push(b'\'');
                rest = tail;
            }
            (Some(open), [b, tail @ ..]) if *b == open => {
                return match tail.first() {
                    Some(&next) if !is_space(next) => Err(ProtocolError::UnbalancedQuotes),
                    _ => Ok(tail),
                };
            }
            (_, [b, tail @ ..]) => {
                out.push(*b);
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
