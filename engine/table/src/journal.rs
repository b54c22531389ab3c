//! The journal: what happened to the ranges that somebody keeps a log of, in order.
//!
//! Every effect of the table, whatever it comes from, bumps the version of its range by one; where the range is journaled
//! it is noted here at the same moment, so that versions are the places in the log and none is missing. The journal has no
//! bound of its own: whoever turns it on takes it after each command and each slice of background work, and these are
//! bounded. Values from [`LARGE_BYTES_MIN`] on are noted as handles, not copied.

use crate::effect::{Effect, Said};
use crate::large::Large;
use crate::ranges::Flags;
use crate::record::View;
use crate::table::Table;
use crate::{Entry, LARGE_BYTES_MIN, RANGES};
use alloc::vec::Vec;

/// Memory that an empty journal keeps for what comes next, in bytes and in effects.
const BYTES_KEPT_MAX: usize = 64 << 10;
const NOTED_KEPT_MAX: usize = 1024;

/// An effect. Its head begins where the one before it ends.
struct Noted {
    range: u16,
    version: u64,
    end: usize,
    value: Option<Large>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Journal {
    heads: Vec<u8>,
    noted: Vec<Noted>,
    /// Ranges that are journaled.
    ranges: u16,
}

impl Journal {
    pub(crate) const fn ranges(&self) -> u16 {
        self.ranges
    }

    pub(crate) fn note(
        &mut self,
        range: usize,
        version: u64,
        said: Said<'_>,
        value: Option<Large>,
    ) {
        said.write(&mut self.heads);
        self.noted.push(Noted { range: range as u16, version, end: self.heads.len(), value });
    }
}

/// What a write did, as far as the record does not say it.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// The key is new.
    New,
    Put,
    Expire,
    /// The value grew from this length.
    Append(usize),
}

impl Table {
    /// Whether effects on this range are noted from now on. Off at first.
    pub fn set_journal(&mut self, range: u16, on: bool) {
        let flags = &mut self.ranges[range as usize % RANGES].flags;
        if flags.any_of(Flags::JOURNALED) != on {
            flags.set(Flags::JOURNALED, on);
            self.journal.ranges =
                if on { self.journal.ranges + 1 } else { self.journal.ranges - 1 };
        }
    }

    /// Whether effects on this range are noted.
    #[inline]
    pub fn journals(&self, range: u16) -> bool {
        self.ranges[range as usize % RANGES].flags.any_of(Flags::JOURNALED)
    }

    /// Whether there is anything to take.
    #[inline]
    pub const fn has_journal(&self) -> bool {
        !self.journal.noted.is_empty()
    }

    /// Gives all that was noted to `sink`, in order, and forgets it: range, version, effect.
    pub fn take_journal(&mut self, sink: &mut dyn FnMut(u16, u64, Effect<'_>)) {
        let Journal { heads, noted, .. } = &mut self.journal;
        let mut start = 0;
        for Noted { range, version, end, value } in noted.drain(..) {
            sink(range, version, Effect { head: &heads[start..end], value: value.as_ref() });
            start = end;
        }
        heads.clear();
        heads.shrink_to(BYTES_KEPT_MAX);
        noted.shrink_to(NOTED_KEPT_MAX);
    }

    /// The rest of a write at a range that is out of the ordinary.
    #[cold]
    pub(crate) fn wrote_specially(
        &mut self,
        slot: u16,
        reference: u32,
        change: Change,
        expiries: i64,
    ) {
        let range = slot as usize / crate::SLOTS_PER_RANGE % RANGES;
        let r = &self.ranges[range];
        if !r.leads() {
            self.following.len += u64::from(matches!(change, Change::New));
            self.following.with_expiry = self.following.with_expiry.wrapping_add_signed(expiries);
        }
        if !r.flags.any_of(Flags::JOURNALED) {
            return;
        }
        let View { key, entry: Entry { value, expires_at_ms, large, .. } } =
            self.records.view(reference);
        let (said, handle) = match change {
            Change::Expire => (Said::Expire { slot, expires_at_ms, key }, None),
            Change::Append(before) => {
                let tail = &value[before..];
                // Only in a process without any memory there is none for a handle.
                let handle = (tail.len() >= LARGE_BYTES_MIN)
                    .then(|| Large::from_parts(&mut *self.memory, self.records.meter(), &[tail], 0))
                    .and_then(Result::ok);
                let tail = if handle.is_some() { &[] } else { tail };
                (Said::Append { slot, before: before as u64, key, tail }, handle)
            }
            Change::New | Change::Put => {
                let handle = large.filter(|_| value.len() >= LARGE_BYTES_MIN).cloned();
                let value = if handle.is_some() { &[] } else { value };
                (Said::Put { slot, expires_at_ms, key, value }, handle)
            }
        };
        self.journal.note(range, r.version, said, handle);
    }

    /// The rest of a removal at a range that is out of the ordinary, before the record goes.
    #[cold]
    pub(crate) fn removed_specially(&mut self, slot: u16, reference: u32) {
        let range = slot as usize / crate::SLOTS_PER_RANGE % RANGES;
        let r = &self.ranges[range];
        let view = self.records.view(reference);
        if !r.leads() {
            self.following.len -= 1;
            self.following.with_expiry -= u64::from(view.entry.expires_at_ms.is_some());
        }
        if r.flags.any_of(Flags::JOURNALED) {
            self.journal.note(range, r.version, Said::Delete { slot, key: view.key }, None);
        }
    }
}
