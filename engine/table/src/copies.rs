//! Walking a range to copy or to compare it.
//!
//! A cursor is a position in the hash, as with [`Table::scan`]: splits and merges between two slices lose nothing that was
//! there all the time. Expired records are walked like all others, because a copy has to hold what its primary holds: that
//! they are gone is an effect to come.

use crate::hash;
use crate::scan::HASH_BELOW;
use crate::segment::start_of_home;
use crate::table::Table;
use crate::{LARGE_BYTES_MIN, Large, RANGES, SLOTS_PER_RANGE};
use core::ops::ControlFlow;

/// What a bucket, and a record beside its key and value, count of a slice's budget, in bytes.
const BUCKET_BYTES: usize = 64;
const RECORD_BYTES: usize = 64;

/// A record, on its way from one copy of a range to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it belongs.
    pub slot: u16,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The same as a handle, when it is long enough to be worth one: from [`LARGE_BYTES_MIN`] on.
    pub large: Option<&'a Large>,
    /// The version of the last write.
    pub version: u64,
    /// When it ends (CLOCK_BOOTTIME of this machine, milliseconds), perhaps long ago.
    pub expires_at_ms: Option<u64>,
}

impl Table {
    /// Visits some records of a range and returns where to go on, 0 when there is nothing left. `cursor` is 0 at first and
    /// then what the last call returned. Every key that is there from the first call to the last is visited at least once,
    /// also when the table grows or shrinks meanwhile.
    ///
    /// A slice ends when what it visited comes to `budget` bytes of keys and of values that are not handles, counting 64
    /// for each record and each bucket; the last bucket, of a few dozen records at most, is visited as a whole.
    pub fn walk_range(
        &self,
        range: u16,
        cursor: u64,
        budget: usize,
        sink: &mut dyn FnMut(&Record<'_>),
    ) -> u64 {
        let first_slot = (range as usize % RANGES * SLOTS_PER_RANGE) as u16;
        self.visit_range(range, cursor, budget, &mut |slot_bits, record| {
            sink(&Record { slot: first_slot | slot_bits, ..*record });
            record.key.len() + if record.large.is_some() { 0 } else { record.value.len() }
        })
    }

    /// Adds the records of a range to `sum`, in slices like [`Table::walk_range`]; all bytes count. The sum of a range that
    /// nobody changed meanwhile depends on its keys, values, versions and on which of them have an expiry, on nothing
    /// else: copies that are at the same version have the same one. A value is added at once however long it is.
    pub fn checksum(&self, range: u16, cursor: u64, budget: usize, sum: &mut u128) -> u64 {
        self.visit_range(range, cursor, budget, &mut |_, r| {
            let has_expiry = r.expires_at_ms.is_some();
            *sum = sum.wrapping_add(hash::sum_of(r.key, r.value, r.version, has_expiry));
            r.key.len() + r.value.len()
        })
    }

    /// Walks, with the slot's place in the range beside a record. `visit` says how many bytes a record came to.
    fn visit_range(
        &self,
        range: u16,
        cursor: u64,
        budget: usize,
        visit: &mut dyn FnMut(u16, &Record<'_>) -> usize,
    ) -> u64 {
        let range = range as usize % RANGES;
        let mut hash = cursor << HASH_BELOW;
        let mut bytes = 0usize;
        loop {
            let Some((home, depth)) = self.home_at(range, hash) else { return 0 };
            bytes += BUCKET_BYTES;
            let _ = self.visit_home(range, hash, &mut |slot_bits, view| {
                let (key, entry) = (view.key, view.entry);
                let (value, version) = (entry.value, entry.version);
                let large = entry.large.filter(|_| value.len() >= LARGE_BYTES_MIN);
                let expires_at_ms = entry.expires_at_ms;
                let record = Record { slot: slot_bits, key, value, large, version, expires_at_ms };
                bytes = bytes.saturating_add(RECORD_BYTES + visit(slot_bits, &record));
                ControlFlow::Continue(())
            });
            match start_of_home(hash, depth, home + 1) {
                Some(next) => hash = next,
                None => return 0,
            }
            if bytes >= budget {
                return hash >> HASH_BELOW;
            }
        }
    }
}
