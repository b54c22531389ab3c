//! What a table is told about each of its ranges: whether it leads it, and which version it is at.
//!
//! A table that leads a range decides what goes: expired keys are swept, keys are evicted, FLUSHALL clears it. In a range
//! that it does not lead nothing happens but what it is told; expired keys are invisible there like everywhere, and stay.

use crate::ranges::Flags;
use crate::record::VERSION_MAX;
use crate::table::Table;
use crate::{Place, RANGES};

/// The ranges that are not led, and their keys, so that counts without them cost nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Following {
    pub(crate) ranges: u16,
    pub(crate) len: u64,
    pub(crate) with_expiry: u64,
}

impl Table {
    /// Whether this table leads a range from now on. All are led at first.
    pub fn lead(&mut self, range: u16, leads: bool) {
        let r = &mut self.ranges[range as usize % RANGES];
        if r.leads() == leads {
            return;
        }
        r.flags.set(Flags::FOLLOWS, !leads);
        let (len, with_expiry) = (u64::from(r.len), u64::from(r.with_expiry));
        if leads {
            r.flags.set(Flags::HINTS_OLD, true);
            self.following.ranges -= 1;
            self.following.len -= len;
            self.following.with_expiry -= with_expiry;
        } else {
            self.following.ranges += 1;
            self.following.len += len;
            self.following.with_expiry += with_expiry;
        }
    }

    /// Whether this table leads a range.
    #[inline]
    pub fn leads(&self, range: u16) -> bool {
        self.ranges[range as usize % RANGES].leads()
    }

    /// The version of the last effect on a range.
    #[inline]
    pub fn version_of_range(&self, range: u16) -> u64 {
        self.ranges[range as usize % RANGES].version
    }

    /// The version of the last effect that removed anything from a range, or a later one when that is not known: what was
    /// not found depends on nothing that came after it.
    #[inline]
    pub fn last_removal(&self, range: u16) -> u64 {
        self.ranges[range as usize % RANGES].last_removal
    }

    /// Makes the next effect on a range have the version after this one. Any key may have been removed up to it.
    pub fn set_version(&mut self, range: u16, version: u64) {
        let r = &mut self.ranges[range as usize % RANGES];
        r.version = version & VERSION_MAX;
        r.last_removal = r.version;
    }

    /// Records of a range, with those that expired and were not yet removed.
    pub fn len_of_range(&self, range: u16) -> u64 {
        u64::from(self.ranges[range as usize % RANGES].len)
    }

    /// Removes a key that expired, as an effect, and says whether it did; only where the table leads and the range is
    /// journaled. A read that found a key expired must not be answered before its copies know that it is gone: another
    /// clock might bring it back.
    #[inline]
    pub fn expire_if_due(&mut self, now_ms: u64, place: Place, key: &[u8]) -> bool {
        let r = &self.ranges[place.range()];
        if self.with_expiry == 0 || !r.flags.any_of(Flags::JOURNALED) || !r.leads() {
            return false;
        }
        let due = self.find(now_ms, place, key).is_some_and(|found| !found.live);
        if due {
            self.remove(now_ms, place, key);
        }
        due
    }

    /// The led range that the nth key is in, when keys are counted by ranges.
    pub(crate) fn range_of_nth(&self, mut nth: u64) -> Option<usize> {
        self.ranges.iter().position(|range| {
            let len = if range.leads() { u64::from(range.len) } else { 0 };
            let here = nth < len;
            nth = nth.wrapping_sub(len);
            here
        })
    }
}
