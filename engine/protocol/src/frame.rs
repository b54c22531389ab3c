//! Frames of the links between nodes, and the encoding of the batches that travel in them and in mailboxes.
//!
//! It stands apart because a batch must mean the same whether it stayed in the process or crossed a network. Its
//! invariants: a frame is believed only when its magic, version, length and both checksums fit; nothing is reserved for
//! a length that has not arrived; a body is summed as it arrives, each byte once. It knows nothing of what requests
//! and replies mean, nor of who is at the other end (see [`crate::hello`]).
//!
//! All numbers are little endian. The header of a frame:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | [`MAGIC`] |
//! | 4..6 | [`VERSION`] |
//! | 6 | [`FrameKind`] |
//! | 7 | flags, 0 |
//! | 8..12 | length of the body |
//! | 12..16 | CRC-32C of the body |
//! | 16..20 | reserved, 0 |
//! | 20..24 | CRC-32C of the 20 bytes before |
//!
//! A request in a batch: `u32` id, `u8` flags (1: RESP3, 2: whole store, 4: first of a row), `u32` number of arguments, then each with its
//! `u32` length before it. A reply: `u32` id, `u32` length, RESP bytes. The RESP bytes [`ELSEWHERE`] are no reply for a
//! client but for the shard that asked.

use crate::limits::{ARGS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, REPLY_BYTES_MAX};
use crate::resp::{Proto, reply};
use alloc::vec::Vec;
use core::fmt;
use crc32c::{crc32c, crc32c_append};

/// The first bytes of each frame.
pub const MAGIC: [u8; 4] = *b"DKVP";
/// The version of frames, batches and handshake that this build speaks.
pub const VERSION: u16 = 1;
/// Length of a frame's header.
pub const HEADER_BYTES: usize = 24;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A batch of requests.
    Requests = 1,
    /// A batch of replies.
    Replies = 2,
    /// Are you there. Empty.
    Ping = 3,
    /// Yes. Empty.
    Pong = 4,
    /// Messages of the copies of ranges.
    Peer = 5,
    /// Handshake, dialer: who I am, whom I want.
    Hello = 16,
    /// Handshake, acceptor: who I am, and my proof.
    Challenge = 17,
    /// Handshake, dialer: my proof.
    Proof = 18,
    /// Handshake, acceptor: the link is up.
    Welcome = 19,
    /// Handshake, either: why not.
    Refused = 20,
}

impl FrameKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Requests,
            2 => Self::Replies,
            3 => Self::Ping,
            4 => Self::Pong,
            5 => Self::Peer,
            16 => Self::Hello,
            17 => Self::Challenge,
            18 => Self::Proof,
            19 => Self::Welcome,
            20 => Self::Refused,
            _ => return None,
        })
    }
}

/// Why a link cannot be understood any further: it is closed, logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The other end is no node: what it sent instead of the magic, as far as it came.
    NotANode([u8; 4]),
    /// A node of another version.
    Version(u16),
    /// The header was changed on its way.
    HeaderChecksum,
    /// A kind, flag or reserved byte of which this version knows nothing.
    Unknown,
    /// Longer than allowed here.
    TooLong {
        /// What the header says.
        bytes: u32,
        /// What is allowed.
        bytes_max: u32,
    },
    /// The body was changed on its way.
    BodyChecksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANode(first) => {
                let what = match first {
                    [0x16, 0x03, ..] => "TLS",
                    b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" => "HTTP",
                    [b'*', b'0'..=b'9', ..] => "a client's request",
                    _ => "no frame",
                };
                write!(f, "got {what} (\"{}\") on a cluster port", first.escape_ascii())
            }
            Self::Version(theirs) => write!(
                f,
                "the other node speaks version {theirs} of the cluster protocol, this one {VERSION}"
            ),
            Self::HeaderChecksum => f.write_str("checksum of a frame's header does not fit"),
            Self::Unknown => f.write_str("a frame of a kind that is not known"),
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes where {bytes_max} are allowed")
            }
            Self::BodyChecksum => f.write_str("checksum of a frame's body does not fit"),
        }
    }
}

impl core::error::Error for FrameError {}

/// The header of a frame with this body, for sending a body that already lies somewhere.
///
/// # Panics
/// When the body is longer than [`FRAME_BYTES_MAX`].
pub fn header(kind: FrameKind, body: &[u8]) -> [u8; HEADER_BYTES] {
    assert!(body.len() <= FRAME_BYTES_MAX, "a frame's body is bounded where it is built");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6] = kind as u8;
    header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[12..16].copy_from_slice(&crc32c(body).to_le_bytes());
    let sum = crc32c(&header[..20]);
    header[20..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Leaves room for a header at the end of `out`; the body is written after it, and then [`end_frame`] called with what
/// this returned.
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    start
}

/// Completes the frame that began at `start`: everything after its header is its body.
///
/// # Panics
/// When the body is longer than [`FRAME_BYTES_MAX`].
pub fn end_frame(out: &mut [u8], start: usize, kind: FrameKind) {
    let (head, body) = out[start..].split_at_mut(HEADER_BYTES);
    head.copy_from_slice(&header(kind, body));
}

/// A frame that was found: its kind, its body, and the bytes it took.
pub type Frame<'a> = (FrameKind, &'a [u8], usize);

/// Finds frames in what a link receives. One for each link.
#[derive(Clone)]
pub struct FrameReader {
    bytes_max: usize,
    /// The header of the frame under way, once it was checked.
    head: Option<Head>,
    /// Sum of the body of that frame as far as it was seen.
    sum: u32,
    /// Bytes of the body in `sum`.
    summed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    kind: FrameKind,
    len: usize,
    sum: u32,
}

impl FrameReader {
    /// A reader for a link that is proven.
    pub fn new() -> Self {
        Self::with_bytes_max(FRAME_BYTES_MAX)
    }

    /// A reader for a link on which the handshake goes on: no frame above [`HELLO_BYTES_MAX`].
    pub fn for_hello() -> Self {
        Self::with_bytes_max(HELLO_BYTES_MAX)
    }

    fn with_bytes_max(bytes_max: usize) -> Self {
        Self { bytes_max, head: None, sum: 0, summed: 0 }
    }

    /// The frame at the start of `buf`, which starts at the first byte of the unfinished frame and holds what was given
    /// before plus what came since; none when it is not complete.
    ///
    /// # Errors
    /// The link is to be closed; the reader must not be used again.
    pub fn next<'a>(&mut self, buf: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        let head = match self.head {
            Some(head) => head,
            None => match self.read_head(buf)? {
                Some(head) => *self.head.insert(head),
                None => return Ok(None),
            },
        };
        let end = buf.len().min(HEADER_BYTES + head.len);
        let body = &buf[HEADER_BYTES..end];
        self.sum = crc32c_append(self.sum, &body[self.summed..]);
        self.summed = body.len();
        if body.len() < head.len {
            return Ok(None);
        }
        let sum = core::mem::take(&mut self.sum);
        self.summed = 0;
        self.head = None;
        if sum != head.sum {
            return Err(FrameError::BodyChecksum);
        }
        Ok(Some((head.kind, body, end)))
    }

    fn read_head(&self, buf: &[u8]) -> Result<Option<Head>, FrameError> {
        let magic = &buf[..buf.len().min(4)];
        if *magic != MAGIC[..magic.len()] {
            let mut first = [0; 4];
            first[..magic.len()].copy_from_slice(magic);
            return Err(FrameError::NotANode(first));
        }
        let Some(header) = buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let version = u16_at(header, 4);
        // Before the checksum, so that a version that sums differently is still named.
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if u32_at(header, 20) != crc32c(&header[..20]) {
            return Err(FrameError::HeaderChecksum);
        }
        let Some(kind) = FrameKind::from_byte(header[6]) else { return Err(FrameError::Unknown) };
        if header[7] != 0 || u32_at(header, 16) != 0 {
            return Err(FrameError::Unknown);
        }
        let bytes = u32_at(header, 8);
        if bytes as usize > self.bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max as u32 });
        }
        Ok(Some(Head { kind, len: bytes as usize, sum: u32_at(header, 12) }))
    }
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("bytes_max", &self.bytes_max)
            .field("head", &self.head)
            .field("summed", &self.summed)
            .finish_non_exhaustive()
    }
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Instead of a reply: the shard does not lead the range of the request (any more), and nothing of the request was executed.
/// Whoever asked asks the one that leads it. No client ever sees it, and no value can look like it: values do not begin
/// with `-`, and errors begin with other words.
pub const ELSEWHERE: &[u8] = b"-DKV.ELSEWHERE\r\n";

/// What a request in a batch carries besides its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Chosen by the sender; its reply carries it back.
    pub id: u32,
    /// How the reply must be written.
    pub proto: Proto,
    /// Whether the command came in on a client port, where it speaks of the whole store.
    pub whole_store: bool,
    /// Whether nothing else that the sender asked of the same range is under way. A shard that has answered [`ELSEWHERE`]
    /// goes on answering so, for that range and sender, until such a request comes: what was sent behind the first must
    /// not be executed before it.
    pub first: bool,
    /// Whether the client that asked does not want keys to count as used.
    pub no_touch: bool,
}

const FLAG_RESP3: u8 = 1;
const FLAG_WHOLE_STORE: u8 = 2;
const FLAG_FIRST: u8 = 4;
const FLAG_NO_TOUCH: u8 = 8;
const FLAGS: u8 = FLAG_RESP3 | FLAG_WHOLE_STORE | FLAG_FIRST | FLAG_NO_TOUCH;
/// Bytes of a request before its first argument.
const REQUEST_HEAD_BYTES: usize = 9;
/// Bytes of a reply before its RESP.
const REPLY_HEAD_BYTES: usize = 8;

/// Appends a request to a batch.
///
/// # Panics
/// When there is no argument, or more than 4 GiB in one: sessions have refused both.
pub fn write_request<'a>(
    out: &mut Vec<u8>,
    head: RequestHead,
    args: impl IntoIterator<Item = &'a [u8]>,
) {
    let flags = if head.proto == Proto::Resp3 { FLAG_RESP3 } else { 0 }
        | if head.whole_store { FLAG_WHOLE_STORE } else { 0 }
        | if head.first { FLAG_FIRST } else { 0 }
        | if head.no_touch { FLAG_NO_TOUCH } else { 0 };
    out.extend_from_slice(&head.id.to_le_bytes());
    out.push(flags);
    let count_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for arg in args {
        let len = u32::try_from(arg.len()).expect("an argument is far below 4 GiB");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(arg);
        count += 1;
    }
    assert!(count > 0, "a request has a name");
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

/// A batch that is not one: the sender is broken, and the link to it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// It ends inside a request or reply.
    Truncated,
    /// A flag of which this version knows nothing.
    UnknownFlags(u8),
    /// A request without arguments or with too many.
    ArgumentCount(u32),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a batch ends inside a request or reply"),
            Self::UnknownFlags(flags) => write!(f, "a request with unknown flags {flags:#04x}"),
            Self::ArgumentCount(count) => write!(f, "a request with {count} arguments"),
        }
    }
}

impl core::error::Error for BatchError {}

/// The requests of a batch.
#[derive(Clone, Debug)]
pub struct RequestIter<'a> {
    rest: &'a [u8],
}

impl<'a> RequestIter<'a> {
    /// Of this batch.
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { rest: batch }
    }

    /// Bytes of the requests that are still to come.
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next request: `spans` holds start and end of each argument in the bytes that are returned. After an error
    /// there is none.
    #[inline]
    pub fn next(
        &mut self,
        spans: &mut Vec<(u32, u32)>,
    ) -> Option<Result<(RequestHead, &'a [u8]), BatchError>> {
        spans.clear();
        if self.rest.is_empty() {
            return None;
        }
        let result = read_request(self.rest, spans);
        let result = match result {
            Ok((head, len)) => {
                let (request, rest) = self.rest.split_at(len);
                self.rest = rest;
                Ok((head, request))
            }
            Err(error) => {
                spans.clear();
                self.rest = &[];
                Err(error)
            }
        };
        Some(result)
    }
}

/// The request at the start of `bytes`, and its length.
#[inline]
fn read_request(
    bytes: &[u8],
    spans: &mut Vec<(u32, u32)>,
) -> Result<(RequestHead, usize), BatchError> {
    let Some(head) = bytes.first_chunk::<REQUEST_HEAD_BYTES>() else {
        return Err(BatchError::Truncated);
    };
    let flags = head[4];
    if flags & !FLAGS != 0 {
        return Err(BatchError::UnknownFlags(flags));
    }
    let count = u32_at(head, 5);
    if count == 0 || count as usize > ARGS_MAX {
        return Err(BatchError::ArgumentCount(count));
    }
    let mut at = REQUEST_HEAD_BYTES;
    for _ in 0..count {
        let Some(len) = bytes.get(at..at + 4) else { return Err(BatchError::Truncated) };
        let start = at + 4;
        let end = start + u32_at(len, 0) as usize;
        if end > bytes.len() || end > u32::MAX as usize {
            return Err(BatchError::Truncated);
        }
        spans.push((start as u32, end as u32));
        at = end;
    }
    let proto = if flags & FLAG_RESP3 == 0 { Proto::Resp2 } else { Proto::Resp3 };
    let whole_store = flags & FLAG_WHOLE_STORE != 0;
    let first = flags & FLAG_FIRST != 0;
    let no_touch = flags & FLAG_NO_TOUCH != 0;
    Ok((RequestHead { id: u32_at(head, 0), proto, whole_store, first, no_touch }, at))
}

/// Starts the reply to request `id` in a batch; the RESP bytes are written after it, and then [`end_reply`] called with
/// what this returned.
#[inline]
pub fn begin_reply(out: &mut Vec<u8>, id: u32) -> usize {
    let start = out.len();
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    start
}

/// Completes the reply that began at `start`: everything after its head is its RESP. A reply longer than
/// [`REPLY_BYTES_MAX`] would fit no frame, and becomes an error that says so.
#[inline]
pub fn end_reply(out: &mut Vec<u8>, start: usize) {
    end_reply_within(out, start, REPLY_BYTES_MAX);
}

#[inline]
fn end_reply_within(out: &mut Vec<u8>, start: usize, bytes_max: usize) {
    let at = start + REPLY_HEAD_BYTES;
    if out.len() - at > bytes_max {
        out.truncate(at);
        reply::error(out, "ERR reply is too large to be forwarded; ask the shard's own port");
    }
    let len = (out.len() - at) as u32;
    out[at - 4..at].copy_from_slice(&len.to_le_bytes());
}

/// The replies of a batch: id and RESP bytes of each. After an error there is none.
#[derive(Clone, Debug)]
pub struct ReplyIter<'a> {
    rest: &'a [u8],
}

impl<'a> ReplyIter<'a> {
    /// Of this batch.
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { rest: batch }
    }
}

impl<'a> Iterator for ReplyIter<'a> {
    type Item = Result<(u32, &'a [u8]), BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some((head, rest)) = self.rest.split_first_chunk::<REPLY_HEAD_BYTES>()
            && let Some((resp, rest)) = rest.split_at_checked(u32_at(head, 4) as usize)
        {
            self.rest = rest;
            return Some(Ok((u32_at(head, 0), resp)));
        }
        self.rest = &[];
        Some(Err(BatchError::Truncated))
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
