//! What the copies of ranges say to each other: the body of a `FrameKind::Peer` frame.
//!
//! It stands apart because two processes must read it alike, whatever each makes of it. A body is a batch: the boot of the
//! sender and its clock, then messages up to its end. Invariants: nothing is reserved for a length that has not arrived;
//! entries are walked once when they are read, so that whoever takes them later needs no check. It knows nothing of what
//! an effect or a record is, and nothing of who may say what when.
//!
//! All numbers are little endian. An entry is its `u32` length and its effect; a record is its `u64` version, its `u32`
//! length and its bytes.

use crate::ids::{BootId, Epoch, RangeId};
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a batch before its first message.
pub const HEAD_BYTES: usize = 16;
/// Bytes of an effect before what it does, at most, as long as it is sent in parts.
pub const LARGE_HEAD_BYTES_MAX: u32 = KEY_BYTES_MAX as u32 + 4096;
/// The longest effect or record that is sent in parts: what a transaction may have written, and one value of the greatest
/// length with its key and options.
pub const LARGE_BYTES_MAX: u64 = 2 * VALUE_BYTES_MAX as u64;
/// Bytes of an entry before its effect.
pub const ENTRY_HEAD_BYTES: usize = 4;
/// Bytes of a record before its content.
pub const RECORD_HEAD_BYTES: usize = 12;

/// What stands at the start of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The start of the sender's process.
    pub boot: BootId,
    /// The sender's clock when it sent, for deadlines inside effects.
    pub now_ms: u64,
}

/// Where entries belong in a log, and how far the log is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which range.
    pub range: RangeId,
    /// The epoch in which it is sent.
    pub epoch: Epoch,
    /// The epoch in which the entries were appended.
    pub entry_epoch: Epoch,
    /// Index of the entry before the first.
    pub prev_index: u64,
    /// The epoch in which that one was appended.
    pub prev_epoch: Epoch,
    /// The receiver may apply up to here what it holds.
    pub commit: u64,
}

/// A piece of an effect or record that is too long for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// How much of the whole is its head; the rest is its body.
    pub head_bytes: u32,
    /// Length of the whole.
    pub total_bytes: u64,
    /// Where this piece begins.
    pub offset: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

/// What a copy is, as it answers a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CopyState {
    /// It holds nothing.
    Blank = 0,
    /// It holds a part, out of which nothing can be made but by the session that brings it.
    Loading = 1,
    /// It holds a prefix of the range's history.
    Whole = 2,
}

/// Entries one after the other, as they are in messages and in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    /// These bytes hold so many entries; whoever made them knows.
    pub const fn new(count: u32, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }

    /// How many.
    pub const fn entry_count(&self) -> u32 {
        self.count
    }

    /// All of them.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.bytes.split_first_chunk::<ENTRY_HEAD_BYTES>()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.bytes = rest;
        self.count = self.count.wrapping_sub(1);
        Some(entry)
    }
}

/// Records one after the other, each with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    bytes: &'a [u8],
}

impl<'a> Records<'a> {
    /// These bytes are records; whoever made them knows.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        let (version, rest) = self.bytes.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.bytes = rest;
        Some((u64::from_le_bytes(*version), record))
    }
}

/// Appends a record to records.
pub fn write_record(out: &mut Vec<u8>, version: u64, record: &[u8]) {
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(record);
}

/// One range in a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconOf {
    /// Which range.
    pub range: RangeId,
    /// The epoch in which the sender leads it.
    pub epoch: Epoch,
    /// The receiver may apply up to here what it holds.
    pub commit: u64,
}

/// One range in the echo of a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoOf {
    /// Which range.
    pub range: RangeId,
    /// The epoch of the beacon.
    pub epoch: Epoch,
    /// Generation of the copy that grants the lease.
    pub generation: u32,
}

/// The ranges of a beacon or of an echo, each of a fixed length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeaconRanges<'a>(&'a [u8]);
/// See [`BeaconRanges`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoRanges<'a>(&'a [u8]);

const BEACON_OF_BYTES: usize = 17;
const ECHO_OF_BYTES: usize = 13;

impl Iterator for BeaconRanges<'_> {
    type Item = BeaconOf;

    fn next(&mut self) -> Option<BeaconOf> {
        let (range, epoch, commit) =
            (u8_of(&mut self.0)?, epoch_of(&mut self.0)?, u64_of(&mut self.0)?);
        Some(BeaconOf { range: RangeId(range), epoch, commit })
    }
}

impl Iterator for EchoRanges<'_> {
    type Item = EchoOf;

    fn next(&mut self) -> Option<EchoOf> {
        let (range, epoch) = (u8_of(&mut self.0)?, epoch_of(&mut self.0)?);
        Some(EchoOf { range: RangeId(range), epoch, generation: u32_of(&mut self.0)? })
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Primary to a copy: hold these; there may be none.
    Prepare {
        /// Where they belong.
        place: Place,
        /// The entries, all of one epoch.
        entries: Entries<'a>,
    },
    /// Primary to a copy: a piece of one entry that is too long for one message.
    PreparePart {
        /// Where the entry belongs.
        place: Place,
        /// The piece.
        part: Part<'a>,
    },
    /// A copy to its primary: I hold what you hold, so far.
    Ack {
        /// Which range.
        range: RangeId,
        /// The epoch of the primary.
        epoch: Epoch,
        /// Generation of the copy.
        generation: u32,
        /// The last index that is certainly the same.
        matched: u64,
        /// The last index that the table has.
        applied: u64,
        /// Bytes of the entry after it that have come in parts.
        part_bytes: u64,
        /// Whether the copy could lead.
        whole: bool,
    },
    /// A copy to its primary: that does not fit what I hold; go on after what is certainly the same.
    Nack {
        /// Which range.
        range: RangeId,
        /// The epoch of the primary.
        epoch: Epoch,
        /// Generation of the copy.
        generation: u32,
        /// The last index that is certainly the same.
        matched: u64,
    },
    /// To whoever speaks in an epoch that has passed: there is a later one.
    Fence {
        /// Which range.
        range: RangeId,
        /// The epoch that the sender knows of.
        epoch: Epoch,
    },
    /// Primary to a copy: I lead; grant me a lease from when this was sent.
    Beacon {
        /// Counts the beacons of the sender.
        round: u64,
        /// The sender's clock.
        sent_ns: u64,
        /// What it leads.
        ranges: BeaconRanges<'a>,
    },
    /// A copy to its primary: granted.
    Echo {
        /// That of the beacon.
        round: u64,
        /// That of the beacon.
        sent_ns: u64,
        /// For which ranges.
        ranges: EchoRanges<'a>,
    },
    /// Primary to where a copy should be: what do you hold?
    Probe {
        /// Which range.
        range: RangeId,
        /// The epoch of the primary.
        epoch: Epoch,
    },
    /// The answer to a probe.
    Here {
        /// Which range.
        range: RangeId,
        /// The epoch of the probe.
        epoch: Epoch,
        /// Generation of the copy.
        generation: u32,
        /// The epoch in which the range was formed whose history it holds.
        formed: Epoch,
        /// What it is.
        state: CopyState,
        /// Up to where the copy knows its log to be committed.
        commit: u64,
    },
    /// Primary to a copy: forget what you hold, the whole range comes.
    Start {
        /// Which range.
        range: RangeId,
        /// The epoch of the primary.
        epoch: Epoch,
        /// Counts the resyncs of the primary's process.
        session: u64,
        /// The log streams from after this index.
        base_index: u64,
        /// The epoch in which that one was appended.
        base_epoch: Epoch,
        /// The epoch in which the range was formed.
        formed: Epoch,
    },
    /// Primary to a learner: a slice of the walk through the range.
    Slice {
        /// Whose.
        slice: SliceHead,
        /// Its records.
        records: Records<'a>,
    },
    /// Primary to a learner: a piece of one record that is too long for one message.
    SlicePart {
        /// Whose.
        slice: SliceHead,
        /// Version of the record.
        version: u64,
        /// The piece.
        part: Part<'a>,
    },
    /// A learner to its primary: slices before this one have come.
    Loaded {
        /// Which range.
        range: RangeId,
        /// The epoch of the primary.
        epoch: Epoch,
        /// Generation of the copy since the start of the session.
        generation: u32,
        /// That of the start.
        session: u64,
        /// The number of the slice that must come next.
        next: u32,
    },
}

/// What each slice of a resync begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceHead {
    /// Which range.
    pub range: RangeId,
    /// The epoch of the primary.
    pub epoch: Epoch,
    /// That of the start.
    pub session: u64,
    /// From 0.
    pub number: u32,
    /// Whether it is the last.
    pub last: bool,
    /// No record of it is younger than this index.
    pub end_index: u64,
}

/// A batch that is not one: the sender is broken, and the link to it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// It ends inside a message.
    Truncated,
    /// A message, flag or state of which this version knows nothing.
    Unknown(u8),
    /// Entries that are not as many, or not as long, as was said.
    Entries,
    /// A piece that does not lie in its whole, or a whole that is longer than any.
    Part,
    /// A position that no log can reach.
    Index,
    /// What was to be applied or loaded does not fit the copy that it is for. That copy is given up.
    Misfit,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a batch of copies ends inside a message"),
            Self::Unknown(byte) => write!(f, "a batch of copies with the unknown byte {byte:#04x}"),
            Self::Entries => f.write_str("a batch of copies whose entries do not fit their length"),
            Self::Part => f.write_str("a batch of copies with a part that does not fit its whole"),
            Self::Index => f.write_str("a batch of copies with a position that no log can reach"),
            Self::Misfit => {
                f.write_str("a batch of copies does not fit the copy here, which is given up")
            }
        }
    }
}

impl core::error::Error for PeerError {}

const PREPARE: u8 = 1;
const PREPARE_PART: u8 = 2;
const ACK: u8 = 3;
const NACK: u8 = 4;
const FENCE: u8 = 5;
const BEACON: u8 = 6;
const ECHO: u8 = 7;
const PROBE: u8 = 8;
const HERE: u8 = 9;
const START: u8 = 10;
const SLICE: u8 = 11;
const SLICE_PART: u8 = 12;
const LOADED: u8 = 13;

/// Starts a batch in an empty buffer.
pub fn begin_batch(out: &mut Vec<u8>, head: BatchHead) {
    out.extend_from_slice(&head.boot.0.to_le_bytes());
    out.extend_from_slice(&head.now_ms.to_le_bytes());
}

fn put_place(out: &mut Vec<u8>, kind: u8, place: &Place) {
    let mut bytes = [0; 42];
    bytes[0] = kind;
    bytes[1] = place.range.0;
    bytes[2..10].copy_from_slice(&place.epoch.0.to_le_bytes());
    bytes[10..18].copy_from_slice(&place.entry_epoch.0.to_le_bytes());
    bytes[18..26].copy_from_slice(&place.prev_index.to_le_bytes());
    bytes[26..34].copy_from_slice(&place.prev_epoch.0.to_le_bytes());
    bytes[34..42].copy_from_slice(&place.commit.to_le_bytes());
    out.extend_from_slice(&bytes);
}

fn put_slice(out: &mut Vec<u8>, kind: u8, slice: &SliceHead) {
    put_head(out, kind, slice.range, slice.epoch);
    out.extend_from_slice(&slice.session.to_le_bytes());
    out.extend_from_slice(&slice.number.to_le_bytes());
    out.push(u8::from(slice.last));
    out.extend_from_slice(&slice.end_index.to_le_bytes());
}

fn put_part(out: &mut Vec<u8>, part: &Part<'_>) {
    out.extend_from_slice(&part.head_bytes.to_le_bytes());
    out.extend_from_slice(&part.total_bytes.to_le_bytes());
    out.extend_from_slice(&part.offset.to_le_bytes());
    put_bytes(out, part.bytes);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_head(out: &mut Vec<u8>, kind: u8, range: RangeId, epoch: Epoch) {
    let mut bytes = [0; 10];
    bytes[0] = kind;
    bytes[1] = range.0;
    bytes[2..].copy_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends a beacon of these ranges.
pub fn write_beacon(
    out: &mut Vec<u8>,
    round: u64,
    sent_ns: u64,
    ranges: impl IntoIterator<Item = BeaconOf>,
) {
    write_ranges(out, BEACON, round, sent_ns, ranges, |out, of| {
        out.push(of.range.0);
        out.extend_from_slice(&of.epoch.0.to_le_bytes());
        out.extend_from_slice(&of.commit.to_le_bytes());
    });
}

/// Appends an echo for these ranges.
pub fn write_echo(
    out: &mut Vec<u8>,
    round: u64,
    sent_ns: u64,
    ranges: impl IntoIterator<Item = EchoOf>,
) {
    write_ranges(out, ECHO, round, sent_ns, ranges, |out, of| {
        out.push(of.range.0);
        out.extend_from_slice(&of.epoch.0.to_le_bytes());
        out.extend_from_slice(&of.generation.to_le_bytes());
    });
}

/// Nothing is written when there is no range.
fn write_ranges<T>(
    out: &mut Vec<u8>,
    kind: u8,
    round: u64,
    sent_ns: u64,
    ranges: impl IntoIterator<Item = T>,
    put: impl Fn(&mut Vec<u8>, T),
) {
    let start = out.len();
    out.push(kind);
    out.extend_from_slice(&round.to_le_bytes());
    out.extend_from_slice(&sent_ns.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    let mut count = 0u16;
    for of in ranges {
        put(out, of);
        count += 1;
    }
    if count == 0 {
        out.truncate(start);
        return;
    }
    out[start + 17..start + 19].copy_from_slice(&count.to_le_bytes());
}

impl Message<'_> {
    /// The highest position that whoever takes the message will count to.
    const fn last_index(&self) -> u64 {
        match self {
            Self::Prepare { place, entries } => {
                place.prev_index.saturating_add(entries.count as u64)
            }
            Self::PreparePart { place, .. } => place.prev_index.saturating_add(1),
            Self::Ack { matched, .. } | Self::Nack { matched, .. } => *matched,
            Self::Here { commit, .. } => *commit,
            Self::Start { base_index, .. } => *base_index,
            Self::SlicePart { version, .. } => *version,
            _ => 0,
        }
    }

    /// Appends the message to a batch.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Prepare { place, entries } => {
                put_place(out, PREPARE, place);
                out.extend_from_slice(&entries.count.to_le_bytes());
                put_bytes(out, entries.bytes);
            }
            Self::PreparePart { place, part } => {
                put_place(out, PREPARE_PART, place);
                put_part(out, part);
            }
            Self::Ack { range, epoch, generation, matched, applied, part_bytes, whole } => {
                put_head(out, ACK, *range, *epoch);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&matched.to_le_bytes());
                out.extend_from_slice(&applied.to_le_bytes());
                out.extend_from_slice(&part_bytes.to_le_bytes());
                out.push(u8::from(*whole));
            }
            Self::Nack { range, epoch, generation, matched } => {
                put_head(out, NACK, *range, *epoch);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&matched.to_le_bytes());
            }
            Self::Fence { range, epoch } => put_head(out, FENCE, *range, *epoch),
            Self::Beacon { round, sent_ns, ranges } => {
                write_beacon(out, *round, *sent_ns, ranges.clone());
            }
            Self::Echo { round, sent_ns, ranges } => {
                write_echo(out, *round, *sent_ns, ranges.clone());
            }
            Self::Probe { range, epoch } => put_head(out, PROBE, *range, *epoch),
            Self::Here { range, epoch, generation, formed, state, commit } => {
                put_head(out, HERE, *range, *epoch);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&formed.0.to_le_bytes());
                out.push(*state as u8);
                out.extend_from_slice(&commit.to_le_bytes());
            }
            Self::Start { range, epoch, session, base_index, base_epoch, formed } => {
                put_head(out, START, *range, *epoch);
                out.extend_from_slice(&session.to_le_bytes());
                out.extend_from_slice(&base_index.to_le_bytes());
                out.extend_from_slice(&base_epoch.0.to_le_bytes());
                out.extend_from_slice(&formed.0.to_le_bytes());
            }
            Self::Slice { slice, records } => {
                put_slice(out, SLICE, slice);
                put_bytes(out, records.bytes);
            }
            Self::SlicePart { slice, version, part } => {
                put_slice(out, SLICE_PART, slice);
                out.extend_from_slice(&version.to_le_bytes());
                put_part(out, part);
            }
            Self::Loaded { range, epoch, generation, session, next } => {
                put_head(out, LOADED, *range, *epoch);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&session.to_le_bytes());
                out.extend_from_slice(&next.to_le_bytes());
            }
        }
    }
}

/// The messages of a batch. After an error there is none.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// The head of a batch and its messages.
pub fn read_batch(body: &[u8]) -> Result<(BatchHead, Messages<'_>), PeerError> {
    let mut rest = body;
    let head =
        (|| Some(BatchHead { boot: BootId(u64_of(&mut rest)?), now_ms: u64_of(&mut rest)? }))();
    Ok((head.ok_or(PeerError::Truncated)?, Messages { rest }))
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, PeerError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut rest = self.rest;
        let read = match read_message(&mut rest) {
            None => Err(PeerError::Truncated),
            Some(Ok(message)) if message.last_index() > INDEX_MAX => Err(PeerError::Index),
            Some(read) => read,
        };
        self.rest = if read.is_ok() { rest } else { &[] };
        Some(read)
    }
}

/// None: it ends too early.
fn read_message<'a>(rest: &mut &'a [u8]) -> Option<Result<Message<'a>, PeerError>> {
    let kind = u8_of(rest)?;
    if kind == BEACON || kind == ECHO {
        let (round, sent_ns) = (u64_of(rest)?, u64_of(rest)?);
        let count = usize::from(u16::from_le_bytes(array_of(rest)?));
        let each = if kind == BEACON { BEACON_OF_BYTES } else { ECHO_OF_BYTES };
        let ranges = slice_of(rest, count * each)?;
        return Some(Ok(if kind == BEACON {
            Message::Beacon { round, sent_ns, ranges: BeaconRanges(ranges) }
        } else {
            Message::Echo { round, sent_ns, ranges: EchoRanges(ranges) }
        }));
    }
    if !(PREPARE..=LOADED).contains(&kind) {
        return Some(Err(PeerError::Unknown(kind)));
    }
    let range = RangeId(u8_of(rest)?);
    let epoch = epoch_of(rest)?;
    Some(Ok(match kind {
        PREPARE | PREPARE_PART => {
            let place = Place {
                range,
                epoch,
                entry_epoch: epoch_of(rest)?,
                prev_index: u64_of(rest)?,
                prev_epoch: epoch_of(rest)?,
                commit: u64_of(rest)?,
            };
            if kind == PREPARE {
                let count = u32_of(rest)?;
                let bytes = bytes_of(rest)?;
                let entries = Entries { count, bytes };
                let mut walk = entries.clone();
                if walk.by_ref().count() != count as usize || !walk.bytes.is_empty() {
                    return Some(Err(PeerError::Entries));
                }
                Message::Prepare { place, entries }
            } else {
                match part_of(rest)? {
                    Ok(part) => Message::PreparePart { place, part },
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        ACK => Message::Ack {
            range,
            epoch,
            generation: u32_of(rest)?,
            matched: u64_of(rest)?,
            applied: u64_of(rest)?,
            part_bytes: u64_of(rest)?,
            whole: match u8_of(rest)? {
                0 => false,
                1 => true,
                other => return Some(Err(PeerError::Unknown(other))),
            },
        },
        NACK => Message::Nack { range, epoch, generation: u32_of(rest)?, matched: u64_of(rest)? },
        FENCE => Message::Fence { range, epoch },
        PROBE => Message::Probe { range, epoch },
        HERE => Message::Here {
            range,
            epoch,
            generation: u32_of(rest)?,
            formed: epoch_of(rest)?,
            state: match u8_of(rest)? {
                0 => CopyState::Blank,
                1 => CopyState::Loading,
                2 => CopyState::Whole,
                other => return Some(Err(PeerError::Unknown(other))),
            },
            commit: u64_of(rest)?,
        },
        START => Message::Start {
            range,
            epoch,
            session: u64_of(rest)?,
            base_index: u64_of(rest)?,
            base_epoch: epoch_of(rest)?,
            formed: epoch_of(rest)?,
        },
        SLICE | SLICE_PART => {
            let session = u64_of(rest)?;
            let number = u32_of(rest)?;
            let last = match u8_of(rest)? {
                0 => false,
                1 => true,
                other => return Some(Err(PeerError::Unknown(other))),
            };
            let slice = SliceHead { range, epoch, session, number, last, end_index: u64_of(rest)? };
            if kind == SLICE {
                let records = Records { bytes: bytes_of(rest)? };
                let mut walk = records.clone();
                while walk.next().is_some() {}
                if !walk.bytes.is_empty() {
                    return Some(Err(PeerError::Entries));
                }
                Message::Slice { slice, records }
            } else {
                let version = u64_of(rest)?;
                match part_of(rest)? {
                    Ok(part) => Message::SlicePart { slice, version, part },
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        _ => Message::Loaded {
            range,
            epoch,
            generation: u32_of(rest)?,
            session: u64_of(rest)?,
            next: u32_of(rest)?,
        },
    }))
}

fn part_of<'a>(rest: &mut &'a [u8]) -> Option<Result<Part<'a>, PeerError>> {
    let part = Part {
        head_bytes: u32_of(rest)?,
        total_bytes: u64_of(rest)?,
        offset: u64_of(rest)?,
        bytes: bytes_of(rest)?,
    };
    let end = part.offset.checked_add(part.bytes.len() as u64);
    let fits = part.head_bytes <= LARGE_HEAD_BYTES_MAX
        && u64::from(part.head_bytes) <= part.total_bytes
        && part.total_bytes <= LARGE_BYTES_MAX
        && !part.bytes.is_empty()
        && end.is_some_and(|end| end <= part.total_bytes);
    Some(if fits { Ok(part) } else { Err(PeerError::Part) })
}

fn array_of<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*array)
}

fn u8_of(rest: &mut &[u8]) -> Option<u8> {
    array_of::<1>(rest).map(|[byte]| byte)
}

fn u32_of(rest: &mut &[u8]) -> Option<u32> {
    array_of(rest).map(u32::from_le_bytes)
}

fn u64_of(rest: &mut &[u8]) -> Option<u64> {
    array_of(rest).map(u64::from_le_bytes)
}

fn epoch_of(rest: &mut &[u8]) -> Option<Epoch> {
    u64_of(rest).map(Epoch)
}

fn slice_of<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (bytes, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(bytes)
}

fn bytes_of<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32_of(rest)? as usize;
    slice_of(rest, len)
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
