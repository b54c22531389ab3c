//! What a manager keeps of the log on its disk, as bytes, and the same in memory as the consensus reads it.
//!
//! One file: frames, each a magic number, a length, a CRC-32C and records. Whatever is written at once is one frame, so
//! that a torn write is an incomplete last frame, which is cut off; damage before a whole frame is damage and is not. The
//! caller appends and fsyncs, or writes a new file in place of the old. Files themselves are not known here.

use crate::wire::{Malformed, Reader, Writer};
use alloc::vec::Vec;
use core::fmt;
use crc::{CRC_32_ISCSI, Crc};
use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

const MAGIC: [u8; 4] = *b"DKVL";
const HEAD: usize = 12;
const VERSION: u8 = 1;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

const START: u8 = 1;
const SNAPSHOT: u8 = 2;
const ENTRY: u8 = 3;
const HARD: u8 = 4;

/// The log as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) group: u64,
    pub(crate) me: u64,
    pub(crate) hard: HardState,
    pub(crate) snapshot: Snapshot,
    /// Position and term before the first entry.
    base: (u64, u64),
    entries: Vec<Entry>,
}

/// Why kept bytes cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is nothing: this manager never began, or its disk is another.
    Empty,
    /// Something whole follows something damaged at this byte: it was not torn by a crash. What was promised there is
    /// lost, so this manager must join anew under another number.
    Damaged {
        /// Where.
        at: usize,
    },
    /// It was written by a version that this one does not know.
    OtherVersion,
    /// It is whole and makes no sense.
    Refused,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Damaged { at } => write!(f, "it is damaged at byte {at}, and whole behind that"),
            Self::OtherVersion => f.write_str("another version of dkv wrote it"),
            Self::Refused => f.write_str("it is whole and makes no sense"),
        }
    }
}

impl Kept {
    /// Of a manager that knows nothing yet.
    pub(crate) fn nothing(group: u64, me: u64) -> Self {
        Self {
            group,
            me,
            hard: HardState::default(),
            snapshot: Snapshot::default(),
            base: (0, 0),
            entries: Vec::new(),
        }
    }

    /// A log that begins with this state, after everything before it.
    pub(crate) fn begin(group: u64, me: u64, hard: HardState, snapshot: Snapshot) -> Self {
        let mut kept = Self::nothing(group, me);
        kept.hard = hard;
        kept.restart_at(snapshot);
        kept
    }

    /// Forgets all entries; the log goes on behind a snapshot.
    pub(crate) fn restart_at(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.base = (meta.index, meta.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Position of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Entries from `first` on that are there.
    pub(crate) fn entries_from(&self, first: u64) -> &[Entry] {
        let skip = first.saturating_sub(self.base.0 + 1) as usize;
        self.entries.get(skip..).unwrap_or_default()
    }

    /// Adds entries; what was at their positions and behind is replaced.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.index > self.base.0) {
            let at = (entry.index - self.base.0 - 1) as usize;
            self.entries.truncate(at);
            self.entries.push(entry.clone());
        }
    }

    /// A newer snapshot takes the place of entries, except of the last `keep` before it, for members that are close.
    pub(crate) fn compact(&mut self, snapshot: Snapshot, keep: usize) {
        let index = snapshot.get_metadata().index;
        self.snapshot = snapshot;
        let covered = index.saturating_sub(self.base.0) as usize;
        let drop = covered.saturating_sub(keep).min(self.entries.len());
        for dropped in self.entries.drain(..drop) {
            self.base = (dropped.index, dropped.term);
        }
    }

    /// A whole new file.
    pub(crate) fn write_all(&self) -> Result<Vec<u8>, Malformed> {
        let mut w = Writer::default();
        w.u8(START);
        w.u8(VERSION);
        w.u64(self.group);
        w.u64(self.me);
        w.u8(SNAPSHOT);
        w.u64(self.base.0);
        w.u64(self.base.1);
        w.snapshot(&self.snapshot);
        write_more(&mut w, &self.entries, Some(&self.hard))?;
        Ok(frame(&w.0))
    }

    /// Reads a file. Says how many bytes of it count; the rest is torn and has to be cut off before more is appended.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, usize), Unreadable> {
        let mut kept: Option<Self> = None;
        let mut at = 0;
        while at < bytes.len() {
            let Some(body) = frame_at(bytes, at) else {
                // A header of the last frame may be torn as well, so it cannot say where a next one would begin.
                let whole = |later: &usize| frame_at(bytes, *later).is_some();
                if (at + 1..bytes.len()).any(|later| whole(&later)) {
                    return Err(Unreadable::Damaged { at });
                }
                break;
            };
            Self::read_records(body, &mut kept).map_err(|error| match error {
                None => Unreadable::OtherVersion,
                Some(Malformed) => Unreadable::Damaged { at },
            })?;
            at += HEAD + body.len();
        }
        let mut kept = kept.ok_or(Unreadable::Empty)?;
        let applied = kept.snapshot.get_metadata().index;
        if kept.last() < applied {
            return Err(Unreadable::Damaged { at });
        }
        kept.hard.commit = kept.hard.commit.clamp(applied, kept.last());
        Ok((kept, at))
    }

    /// Adds the records of a frame. None as the error is a version that is not known.
    fn read_records(body: &[u8], kept: &mut Option<Self>) -> Result<(), Option<Malformed>> {
        let mut r = Reader(body);
        while !r.0.is_empty() {
            match (r.u8()?, kept.as_mut()) {
                (START, _) => {
                    if r.u8()? != VERSION {
                        return Err(None);
                    }
                    *kept = Some(Self::nothing(r.u64()?, r.u64()?));
                }
                (SNAPSHOT, Some(kept)) => {
                    let base = (r.u64()?, r.u64()?);
                    kept.restart_at(r.snapshot()?);
                    kept.base = base;
                }
                (ENTRY, Some(kept)) => {
                    let entry = r.entry()?;
                    if entry.index <= kept.base.0 || entry.index > kept.last() + 1 {
                        return Err(Some(Malformed));
                    }
                    kept.append(&[entry]);
                }
                (HARD, Some(kept)) => {
                    kept.hard.term = r.u64()?;
                    kept.hard.vote = r.u64()?;
                    kept.hard.commit = r.u64()?;
                }
                _ => return Err(Some(Malformed)),
            }
        }
        Ok(())
    }
}

/// A frame to append.
pub(crate) fn write_frame(
    entries: &[Entry],
    hard: Option<&HardState>,
) -> Result<Vec<u8>, Malformed> {
    let mut w = Writer::default();
    write_more(&mut w, entries, hard)?;
    Ok(frame(&w.0))
}

fn write_more(
    w: &mut Writer,
    entries: &[Entry],
    hard: Option<&HardState>,
) -> Result<(), Malformed> {
    for entry in entries {
        w.u8(ENTRY);
        w.entry(entry)?;
    }
    if let Some(hard) = hard {
        w.u8(HARD);
        w.u64(hard.term);
        w.u64(hard.vote);
        w.u64(hard.commit);
    }
    Ok(())
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut w = Writer(MAGIC.to_vec());
    w.u32(body.len() as u32);
    w.u32(CRC.checksum(body));
    w.0.extend_from_slice(body);
    w.0
}

/// The body of a whole frame that begins here.
fn frame_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?.strip_prefix(&MAGIC)?;
    let mut r = Reader(rest);
    let (len, crc) = (r.u32().ok()?, r.u32().ok()?);
    let body = r.0.get(..len as usize)?;
    (!body.is_empty() && CRC.checksum(body) == crc).then_some(body)
}

impl Storage for Kept {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let from = (low - self.base.0 - 1) as usize;
        let to = high.saturating_sub(self.base.0 + 1) as usize;
        let found = self.entries.get(from..to);
        let found = found.ok_or(raft::Error::Store(StorageError::Unavailable))?;
        let mut bytes_left: u64 = max_size.into().unwrap_or(u64::MAX);
        let fits = |entry: &&Entry| {
            let fits = bytes_left > 0;
            bytes_left = bytes_left.saturating_sub(entry.data.len() as u64);
            fits
        };
        // One always goes, however large: nothing would move without it.
        let count = found.iter().take_while(fits).count().max(1).min(found.len());
        Ok(found[..count].to_vec())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let at = index.checked_sub(self.base.0 + 1);
        let at = at.ok_or(raft::Error::Store(StorageError::Compacted))?;
        let entry = self.entries.get(at as usize);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.get_metadata().index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (index, term);
        entry.set_data(vec![index as u8; 10].into());
        entry
    }

    fn hard(term: u64, commit: u64) -> HardState {
        let mut hard = HardState::default();
        (hard.term, hard.vote, hard.commit) = (term, 7, commit);
        hard
    }

    fn snapshot(index: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (index, 1);
        snapshot.mut_metadata().mut_conf_state().set_voters(vec![7]);
        snapshot.set_data(vec![9; 20].into());
        snapshot
    }

    /// A file of a beginning and appended frames, with the length after each.
    fn file() -> (Vec<u8>, Vec<usize>, Kept) {
        let mut kept = Kept::begin(3, 7, hard(1, 1), snapshot(1));
        let mut bytes = kept.write_all().expect("writes");
        let mut ends = vec![bytes.len()];
        for (entries, state) in [
            (vec![entry(2, 1), entry(3, 1)], hard(1, 1)),
            (vec![entry(4, 1)], hard(1, 3)),
            // A later leader replaces two of them.
            (vec![entry(3, 2)], hard(2, 3)),
        ] {
            bytes.extend(write_frame(&entries, Some(&state)).expect("writes"));
            kept.append(&entries);
            kept.hard = state;
            ends.push(bytes.len());
        }
        (bytes, ends, kept)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (bytes, _, kept) = file();
        assert_eq!(Kept::read(&bytes), Ok((kept.clone(), bytes.len())));
        assert_eq!((kept.last(), kept.entries_from(3).len()), (3, 1));
        assert_eq!(Kept::read(&[]), Err(Unreadable::Empty));
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_was_torn() {
        let (bytes, ends, _) = file();
        for len in ends[0]..=bytes.len() {
            let whole = ends.iter().copied().filter(|end| *end <= len).max().expect("one");
            let (_, valid) = Kept::read(&bytes[..len]).expect("readable");
            assert_eq!(valid, whole, "{len}");
            // Blocks of a torn write may be zeros, in any part of it.
            for hole in whole..len {
                let mut holed = bytes[..len].to_vec();
                holed[hole..len].fill(0);
                assert_eq!(Kept::read(&holed).map(|(_, valid)| valid), Ok(whole), "{hole}");
            }
        }
    }

    #[test]
    fn damage_before_something_whole_is_told() {
        let (bytes, ends, _) = file();
        for at in 0..ends[2] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let frame = ends.iter().copied().filter(|end| *end <= at).max().unwrap_or(0);
            assert_eq!(Kept::read(&bad), Err(Unreadable::Damaged { at: frame }), "{at}");
        }
    }

    #[test]
    fn compaction_keeps_what_close_members_need() {
        let (_, _, mut kept) = file();
        kept.append(&[entry(4, 2), entry(5, 2), entry(6, 2)]);
        kept.hard = hard(2, 6);
        kept.compact(snapshot(5), 2);
        assert_eq!(kept.first_index(), Ok(4));
        assert_eq!(kept.term(3), Ok(2));
        assert_eq!(kept.term(2), Err(raft::Error::Store(StorageError::Compacted)));
        assert_eq!(kept.term(7), Err(raft::Error::Store(StorageError::Unavailable)));
        let all = |low, high| kept.entries(low, high, None, GetEntriesContext::empty(false));
        assert_eq!(all(4, 7).map(|entries| entries.len()), Ok(3));
        let limited = |bytes| kept.entries(4, 7, bytes, GetEntriesContext::empty(false));
        for (bytes, count) in [(0, 1), (1, 1), (10, 1), (11, 2), (30, 3)] {
            assert_eq!(limited(bytes).map(|entries| entries.len()), Ok(count), "{bytes}");
        }
        assert_eq!(all(3, 7), Err(raft::Error::Store(StorageError::Compacted)));
        let bytes = kept.write_all().expect("writes");
        assert_eq!(Kept::read(&bytes), Ok((kept, bytes.len())));
    }
}
