//! The journal: what happened to the ranges that somebody keeps a log of, in order.
//!
//! Every effect of the table, whatever it comes from, bumps the version of its range by one; where the range is journaled
//! it is noted here at the same moment, so that versions are the places in the log and none is missing. The journal has no
//! bound of its own: whoever turns it on takes it after each command and each slice of background work, and these are
//! bounded. Values from [`LARGE_BYTES_MIN`] on are noted as handles, not copied.
//!
//! What must be seen as a whole or not at all is a *unit*: between [`Table::begin_unit`] and [`Table::end_unit`] all
//! effects on one range get the same version, and become one effect that holds them.

use crate::effect::{Effect, Said, begin_unit, unit_part};
use crate::large::{Large, Tail};
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

/// A unit that has begun.
struct Unit {
    range: u16,
    /// The version of the range before it.
    before: u64,
    /// How many effects had been noted, and where the last of them ended.
    noted: usize,
    heads: usize,
    /// Bytes of its effects.
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Journal {
    heads: Vec<u8>,
    noted: Vec<Noted>,
    /// Ranges that are journaled.
    ranges: u16,
    unit: Option<Unit>,
    /// Whether there are none.
    no_units: bool,
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
        let start = self.heads.len();
        said.write(&mut self.heads);
        if let Some(unit) = self.unit.as_mut().filter(|unit| usize::from(unit.range) == range) {
            unit.bytes += self.heads.len() - start + value.as_ref().map_or(0, |value| value.len());
        }
        self.noted.push(Noted { range: range as u16, version, end: self.heads.len(), value });
    }

    /// The version that a range is to have until its next effect: in a unit each gets the same.
    const fn version_after(&self, range: usize, version: u64) -> u64 {
        match &self.unit {
            Some(unit) if unit.range as usize == range => unit.before,
            _ => version,
        }
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
    /// So many bytes at an offset are others, in a value that was so long before; what was missing before them is zero.
    Patch {
        before: usize,
        offset: usize,
        bytes: usize,
    },
    /// The key is new, and zero before these bytes at its end.
    Made {
        offset: usize,
        bytes: usize,
    },
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

    /// From now on all effects on a range are one, until [`Table::end_unit`], which must follow before the journal is taken.
    /// Nothing changes where the range is not journaled. There is one unit at a time.
    pub fn begin_unit(&mut self, range: u16) {
        debug_assert!(self.journal.unit.is_none(), "units do not lie in one another");
        if !self.journals(range) || self.journal.no_units {
            return;
        }
        self.journal.unit = Some(Unit {
            range,
            before: self.version_of_range(range),
            noted: self.journal.noted.len(),
            heads: self.journal.heads.len(),
            bytes: 0,
        });
    }

    /// From now on units are as many effects as were made: for a simulator, which is to notice it.
    pub fn split_units(&mut self) {
        self.journal.no_units = true;
    }

    /// Bytes of the effects of the unit that has begun.
    pub fn unit_bytes(&self) -> usize {
        self.journal.unit.as_ref().map_or(0, |unit| unit.bytes)
    }

    /// Makes one effect of those on the range since [`Table::begin_unit`], if there were several.
    pub fn end_unit(&mut self) {
        let Some(unit) = self.journal.unit.take() else { return };
        let of_unit = |noted: &&Noted| noted.range == unit.range;
        let count = self.journal.noted[unit.noted..].iter().filter(of_unit).count();
        if count == 0 {
            return;
        }
        let version = unit.before + 1;
        self.ranges[unit.range as usize % RANGES].version = version;
        if count == 1 {
            return;
        }
        let heads = self.journal.heads.split_off(unit.heads);
        let (mut start, mut parts) = (0, Vec::new());
        for noted in self.journal.noted.split_off(unit.noted) {
            let end = noted.end - unit.heads;
            let head = &heads[start..end];
            start = end;
            if noted.range == unit.range {
                unit_part(&mut parts, head, noted.value.as_deref().unwrap_or_default());
                continue;
            }
            // Evicted meanwhile, elsewhere.
            self.journal.heads.extend_from_slice(head);
            self.journal.noted.push(Noted { end: self.journal.heads.len(), ..noted });
        }
        begin_unit(&mut self.journal.heads);
        // Only in a process without any memory there is none for a handle.
        let value = (parts.len() >= LARGE_BYTES_MIN)
            .then(|| {
                Large::from_parts(&mut *self.memory, self.records.meter(), &parts, Tail::of(&[]), 0)
            })
            .and_then(Result::ok);
        if value.is_none() {
            self.journal.heads.extend_from_slice(&parts);
        }
        let end = self.journal.heads.len();
        self.journal.noted.push(Noted { range: unit.range, version, end, value });
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
            let is_new = matches!(change, Change::New | Change::Made { .. });
            self.following.len += u64::from(is_new);
            self.following.with_expiry = self.following.with_expiry.wrapping_add_signed(expiries);
        }
        if !r.flags.any_of(Flags::JOURNALED) {
            return;
        }
        let View { key, entry: Entry { value, expires_at_ms, large, .. } } =
            self.records.view(reference);
        let (memory, meter) = (&mut *self.memory, self.records.meter());
        // Only in a process without any memory there is none for a handle.
        let mut handle_of = |bytes: &[u8]| {
            (bytes.len() >= LARGE_BYTES_MIN)
                .then(|| Large::from_parts(memory, meter, bytes, Tail::of(&[]), 0))
                .and_then(Result::ok)
        };
        let (said, handle) = match change {
            Change::Expire => (Said::Expire { slot, expires_at_ms, key }, None),
            Change::Append(before) => {
                let tail = &value[before..];
                let handle = handle_of(tail);
                let tail = if handle.is_some() { &[] } else { tail };
                (Said::Append { slot, before: before as u64, key, tail }, handle)
            }
            Change::Patch { offset, bytes, .. } | Change::Made { offset, bytes } => {
                let bytes = &value[offset..offset + bytes];
                let handle = handle_of(bytes);
                let bytes = if handle.is_some() { &[] } else { bytes };
                let before = match change {
                    Change::Patch { before, .. } => Some(before as u64),
                    _ => None,
                };
                (Said::Patch { slot, before, offset: offset as u64, key, bytes }, handle)
            }
            Change::New | Change::Put => {
                let handle = large.filter(|_| value.len() >= LARGE_BYTES_MIN).cloned();
                let value = if handle.is_some() { &[] } else { value };
                (Said::Put { slot, expires_at_ms, key, value }, handle)
            }
        };
        let version = r.version;
        self.journal.note(range, version, said, handle);
        self.ranges[range].version = self.journal.version_after(range, version);
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
            let version = r.version;
            self.journal.note(range, version, Said::Delete { slot, key: view.key }, None);
            self.ranges[range].version = self.journal.version_after(range, version);
        }
    }
}
