//! What was cleared and is not yet given back: taken apart in slices, because a slab of gigabytes or a million large values
//! are more than one turn may cost.
//!
//! [`Table::clear`] moves the inside of the whole table aside. A single range shares slab and segments with the others: its
//! directory is detached, and then its records are freed one by one.

use crate::effect::Said;
use crate::ranges::Directory;
use crate::record::Records;
use crate::segment::{BUCKETS, Segments};
use crate::table::Table;
use crate::{Memory, RANGES};
use alloc::vec::Vec;

/// What one slice takes apart at most.
const DIRECTORIES: usize = 32;
const PIECES: usize = 4;
const CHUNKS: usize = 8;
const VALUES: usize = 64;
/// The same of a detached range, whose records are freed one by one: work for so many of them, a large value counting
/// for several.
const RECORDS: usize = 512;
const LARGE_RECORDS: usize = RECORDS / VALUES;

/// The inside of a table that was cleared.
pub(crate) struct Old {
    directories: Vec<Directory>,
    segments: Segments,
    records: Records,
}

/// A range that was cleared: its directory, and how far it is taken apart.
pub(crate) struct Detached {
    directory: Directory,
    /// The place in the directory that is next.
    at: usize,
    /// The segment that is being taken apart, and the bucket in it that is next.
    segment: Option<u32>,
    bucket: usize,
}

impl Old {
    /// Memory that it still holds, in bytes, without the large values, which their meter counts.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.bytes() + self.records.own_bytes()
    }

    /// A slice. Says whether anything is left.
    fn dismantle(&mut self, memory: &mut dyn Memory) -> bool {
        let directories = self.directories.len();
        self.directories.truncate(directories.saturating_sub(DIRECTORIES));
        // Some of each, so that every slice gives something back.
        let segments = self.segments.dismantle(memory, PIECES) == PIECES;
        let records = self.records.dismantle(memory, CHUNKS, VALUES);
        segments || records || !self.directories.is_empty()
    }
}

impl Table {
    /// Removes everything from the ranges that the table leads, as one effect on each that has keys. The work is the same
    /// however much there is; [`Table::background`] then gives the memory back, and [`Table::memory_bytes`] falls as it
    /// does.
    pub fn clear(&mut self) {
        if self.following.ranges == 0 && self.journal.ranges() == 0 {
            self.ranges.iter_mut().filter(|r| r.len > 0).for_each(|r| {
                r.removed();
            });
            self.clear_all();
            return;
        }
        for range in 0..RANGES as u16 {
            if self.leads(range) {
                self.clear_range(range);
            }
        }
    }

    /// Moves everything aside.
    fn clear_all(&mut self) {
        let mut directories: Vec<Directory> =
            self.ranges.iter_mut().filter_map(crate::ranges::Range::close).collect();
        // Their segments and records go with all others.
        directories.extend(self.detached.drain(..).map(|detached| detached.directory));
        let segments = Segments::new(self.evictor.keeps_heat());
        let records = self.records.successor();
        self.old.push_back(Old {
            directories,
            segments: core::mem::replace(&mut self.segments, segments),
            records: core::mem::replace(&mut self.records, records),
        });
        self.len = 0;
        self.with_expiry = 0;
        (self.following.len, self.following.with_expiry) = (0, 0);
        self.directory_entries = 0;
        self.open_ranges = 0;
        self.sweep = crate::sweep::Sweep::default();
        self.evictor.start_over();
    }

    /// Removes everything from a range, as one effect; none when there is nothing. The work is the same however much there
    /// is, and the memory comes back as with [`Table::clear`].
    pub fn clear_range(&mut self, range: u16) {
        if self.len_of_range(range) == 0 {
            return;
        }
        self.detach(range as usize % RANGES);
        let version = self.ranges[range as usize % RANGES].removed();
        if self.journals(range) {
            self.journal.note(range as usize, version, Said::Clear, None);
        }
    }

    /// Forgets everything of a range, which is no effect: its version stays and nothing is noted. For a copy that is no
    /// longer one.
    pub fn discard_range(&mut self, range: u16) {
        self.detach(range as usize % RANGES);
        self.set_version(range, self.version_of_range(range));
    }

    /// Takes all records out of a range, and leaves them to the background.
    pub(crate) fn detach(&mut self, range: usize) {
        let r = &mut self.ranges[range];
        let (len, with_expiry) = (u64::from(r.len), u64::from(r.with_expiry));
        let entries = r.directory_len();
        if !r.leads() {
            self.following.len -= len;
            self.following.with_expiry -= with_expiry;
        }
        if let Some(directory) = r.close() {
            self.len -= len;
            self.with_expiry -= with_expiry;
            self.directory_entries -= entries;
            self.open_ranges -= 1;
            self.detached.push_back(Detached { directory, at: 0, segment: None, bucket: 0 });
        }
    }

    /// Whether something that was cleared is not yet given back.
    pub(crate) fn has_old(&self) -> bool {
        !self.old.is_empty() || !self.detached.is_empty()
    }

    /// Gives back a slice of it. Says whether anything is left.
    pub(crate) fn dismantle_slice(&mut self) -> bool {
        if let Some(old) = self.old.front_mut() {
            if !old.dismantle(&mut *self.memory) {
                self.old.pop_front();
            }
        } else if let Some(detached) = self.detached.pop_front() {
            self.dismantle_range(detached);
        }
        self.has_old()
    }

    fn dismantle_range(&mut self, mut detached: Detached) {
        let memory = &mut *self.memory;
        let mut work = 0;
        while work < RECORDS {
            let Some(segment) = detached.segment else {
                let Some(named) = detached.directory.segment_at(&mut detached.at) else { return };
                for bucket in self.segments.get(named.segment) {
                    bucket.lanes().for_each(|lane| self.records.prefetch(bucket.reference(lane)));
                }
                (detached.segment, detached.bucket) = (Some(named.segment), 0);
                continue;
            };
            let bucket = &self.segments.get(segment)[detached.bucket];
            for lane in bucket.lanes() {
                let reference = bucket.reference(lane);
                work += if self.records.is_large(reference) { LARGE_RECORDS } else { 1 };
                self.records.remove(memory, reference);
            }
            work += 1;
            detached.bucket += 1;
            if detached.bucket == BUCKETS {
                self.segments.give_back(memory, segment);
                detached.segment = None;
            }
        }
        self.detached.push_front(detached);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear_all();
        while self.dismantle_slice() {}
    }
}
