//! What [`Table::clear`] moved aside: taken apart and given back in slices, because a slab of gigabytes or a million large
//! values are more than one turn may cost.

use crate::Memory;
use crate::record::Records;
use crate::segment::Segments;
use crate::table::Table;
use alloc::vec::Vec;

/// What one slice takes apart at most.
const DIRECTORIES: usize = 32;
const PIECES: usize = 4;
const CHUNKS: usize = 8;
const VALUES: usize = 64;

/// The inside of a table that was cleared.
pub(crate) struct Old {
    directories: Vec<Vec<u32>>,
    segments: Segments,
    records: Records,
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
    /// Removes everything. The work is the same however much there is; [`Table::background`] then gives the memory back,
    /// and [`Table::memory_bytes`] falls as it does. Versions go on from where they were.
    pub fn clear(&mut self) {
        let directories = self.ranges.iter_mut().filter_map(crate::ranges::Range::close).collect();
        let segments = Segments::new(self.evictor.keeps_heat());
        let records = self.records.successor();
        self.old.push_back(Old {
            directories,
            segments: core::mem::replace(&mut self.segments, segments),
            records: core::mem::replace(&mut self.records, records),
        });
        self.len = 0;
        self.with_expiry = 0;
        self.directory_entries = 0;
        self.open_ranges = 0;
        self.sweep = crate::sweep::Sweep::default();
        self.evictor.start_over();
    }

    /// Whether something that was cleared is not yet given back.
    pub(crate) fn has_old(&self) -> bool {
        !self.old.is_empty()
    }

    /// Gives back a slice of it. Says whether anything is left.
    pub(crate) fn dismantle_slice(&mut self) -> bool {
        if let Some(old) = self.old.front_mut()
            && !old.dismantle(&mut *self.memory)
        {
            self.old.pop_front();
        }
        self.has_old()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear();
        while self.dismantle_slice() {}
    }
}
