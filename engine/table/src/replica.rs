//! Feeding a range from another table: the effects of its journal, and its records when there is no common beginning.
//!
//! What comes is what another table decided: the memory limit does not refuse it, nothing is evicted for it, the clock
//! plays no part in it, and it is not journaled again.
//!
//! A copy that has everything up to a version takes the next effects in order, and each must fit: else the two have come
//! apart, which is an error and nothing that may be passed over. While a copy is being made, records and effects overlap:
//! a record that was walked late holds what effects still to come will say again, so that an effect counts only for a key
//! that is older than it. That is enough as long as records walked when the range was at a version are loaded before any
//! later effect is applied.

use crate::effect::{Effect, Said};
use crate::ranges::Flags;
use crate::record::VERSION_MAX;
use crate::table::Table;
use crate::{Expiry, Large, OutOfMemory, RANGES, Record, SLOTS_PER_RANGE};
use alloc::vec::Vec;

/// Why something of another table was not taken over; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Its version is not the next one.
    Gap,
    /// It does not fit what is here: this copy and its primary have come apart.
    Conflict,
    /// It is not an effect, or of no range, slot or version that there is.
    Malformed,
    /// The system has no memory.
    OutOfMemory,
}

impl core::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Gap => "the version of the effect is not the next one",
            Self::Conflict => "the effect does not fit what the copy holds",
            Self::Malformed => "this is no effect or record",
            Self::OutOfMemory => "the system has no memory for the effect",
        })
    }
}

impl core::error::Error for ApplyError {}

impl From<OutOfMemory> for ApplyError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

const fn given(expires_at_ms: Option<u64>) -> Expiry {
    match expires_at_ms {
        Some(at) => Expiry::At(at),
        None => Expiry::Clear,
    }
}

/// The offset of a patch: such a value fits an address space.
fn offset_of(offset: u64) -> Result<usize, ApplyError> {
    let offset = usize::try_from(offset).ok().filter(|offset| *offset < isize::MAX as usize / 2);
    offset.ok_or(ApplyError::Malformed)
}

impl Table {
    /// Does what an effect of another table says, and gives it the version that it had there. Its deadline is one of this
    /// machine, see [`convert_deadline`](crate::convert_deadline).
    ///
    /// Otherwise than in a resync the version must be the next one, and the effect must fit. In a resync it must be a later
    /// one, and an effect on a key that is as new already, or on none when it needs one, is skipped: then it says false.
    ///
    /// # Errors
    /// [`ApplyError`], with nothing changed; but a unit may have been done in part when the second half of it conflicts or the
    /// system has no memory, after which the table is of no use.
    pub fn apply(
        &mut self,
        now_ms: u64,
        range: u16,
        version: u64,
        effect: Effect<'_>,
        resync: bool,
    ) -> Result<bool, ApplyError> {
        if usize::from(range) >= RANGES || version > VERSION_MAX {
            return Err(ApplyError::Malformed);
        }
        let before = self.version_of_range(range);
        let gap = version <= before || !resync && version != before + 1;
        let (result, removes);
        if let Some(parts) = effect.parts(range) {
            // Before anything is changed.
            let parts = parts.collect::<Option<Vec<_>>>().ok_or(ApplyError::Malformed)?;
            if gap {
                return Err(ApplyError::Gap);
            }
            removes = parts.iter().any(|said| matches!(said, Said::Delete { .. }));
            result = self.as_told(range, version, |table| {
                table.replay_unit(now_ms, range, version, &parts, resync)
            });
        } else {
            let said = effect.read(range).ok_or(ApplyError::Malformed)?;
            if gap {
                return Err(ApplyError::Gap);
            }
            removes = matches!(said, Said::Delete { .. } | Said::Clear);
            result = self.as_told(range, version, |table| {
                let newer = table.is_newer(now_ms, version, said);
                table.replay(now_ms, range, said, effect.value, (newer, resync))
            });
        }
        let r = &mut self.ranges[range as usize % RANGES];
        r.version = if result.is_ok() { version } else { before };
        if result.is_ok() && removes {
            // Also when it was skipped: what else follows from it is not known here.
            r.last_removal = version;
        }
        result
    }

    /// Takes over a record that was walked at another table, unless its key is here as new or newer; then it says false.
    /// The range's version stays.
    ///
    /// # Errors
    /// [`ApplyError::OutOfMemory`] or [`ApplyError::Malformed`], with nothing changed.
    pub fn load(&mut self, now_ms: u64, record: &Record<'_>) -> Result<bool, ApplyError> {
        let &Record { slot, key, value, large, version, expires_at_ms } = record;
        if usize::from(slot) >= RANGES * SLOTS_PER_RANGE || !(1..=VERSION_MAX).contains(&version) {
            return Err(ApplyError::Malformed);
        }
        let range = slot / SLOTS_PER_RANGE as u16;
        let before = self.version_of_range(range);
        let result = self.as_told(range, version, |table| {
            if table.version_of_key(now_ms, slot, key).is_some_and(|here| here >= version) {
                return Ok(false);
            }
            table.put(now_ms, slot, key, value, large, expires_at_ms)?;
            Ok(true)
        });
        self.ranges[range as usize % RANGES].version = before;
        result
    }

    /// Runs `write`, whose first effect gets this version, without limit and journal.
    fn as_told(
        &mut self,
        range: u16,
        version: u64,
        write: impl FnOnce(&mut Self) -> Result<bool, ApplyError>,
    ) -> Result<bool, ApplyError> {
        let journaled = self.journals(range);
        let limit = core::mem::take(&mut self.memory_bytes_max);
        let r = &mut self.ranges[range as usize % RANGES];
        r.flags.set(Flags::JOURNALED, false);
        r.version = version - 1;
        let result = write(self);
        self.ranges[range as usize % RANGES].flags.set(Flags::JOURNALED, journaled);
        self.memory_bytes_max = limit;
        result
    }

    fn version_of_key(&self, now_ms: u64, slot: u16, key: &[u8]) -> Option<u64> {
        let found = self.find(now_ms, self.place(key, slot), key)?;
        Some(self.records.view(found.reference).entry.version)
    }

    fn put(
        &mut self,
        now_ms: u64,
        slot: u16,
        key: &[u8],
        value: &[u8],
        large: Option<&Large>,
        expires_at_ms: Option<u64>,
    ) -> Result<(), OutOfMemory> {
        let (place, expiry) = (self.place(key, slot), given(expires_at_ms));
        match large {
            Some(large) => self.try_set_large(now_ms, place, key, large, expiry)?,
            None => self.try_set(now_ms, place, key, value, expiry)?,
        };
        Ok(())
    }

    /// Whether the key of an effect is as new as this version already.
    fn is_newer(&self, now_ms: u64, version: u64, said: Said<'_>) -> bool {
        let here = said.key().and_then(|(slot, key)| self.version_of_key(now_ms, slot, key));
        here.is_some_and(|here| here >= version)
    }

    /// Does all that a unit says; whether any of it counted. The second effect on a key finds it as new as the unit: what
    /// counts is how it was before the first.
    fn replay_unit(
        &mut self,
        now_ms: u64,
        range: u16,
        version: u64,
        parts: &[Said<'_>],
        resync: bool,
    ) -> Result<bool, ApplyError> {
        let newer: Vec<bool> =
            parts.iter().map(|said| self.is_newer(now_ms, version, *said)).collect();
        let mut counts = false;
        for (said, newer) in parts.iter().zip(newer) {
            self.ranges[range as usize % RANGES].version = version - 1;
            counts |= self.replay(now_ms, range, *said, None, (newer, resync))?;
        }
        Ok(counts)
    }

    fn replay(
        &mut self,
        now_ms: u64,
        range: u16,
        said: Said<'_>,
        large: Option<&Large>,
        (newer, resync): (bool, bool),
    ) -> Result<bool, ApplyError> {
        let skipped = if resync { Ok(false) } else { Err(ApplyError::Conflict) };
        let Some((slot, key)) = said.key() else {
            // In a resync also what was loaded and is newer: the effects that made it are still to come.
            self.detach(range as usize % RANGES);
            return Ok(true);
        };
        if newer {
            return skipped;
        }
        let place = self.place(key, slot);
        let found = self.find(now_ms, place, key);
        let here = found.as_ref().map(|found| self.records.view(found.reference).entry);
        match (said, found) {
            (Said::Put { value, expires_at_ms, .. }, _) => {
                self.put(now_ms, slot, key, value, large, expires_at_ms)?;
            }
            (Said::Append { before, .. }, Some(_))
                if here.is_some_and(|entry| entry.value.len() as u64 != before) =>
            {
                return Err(ApplyError::Conflict);
            }
            (Said::Patch { before, .. }, _)
                if here.map(|entry| entry.value.len() as u64) != before
                    && (here.is_some() || !resync) =>
            {
                return Err(ApplyError::Conflict);
            }
            (Said::Patch { before: None, offset, bytes, .. }, None) => {
                self.make(now_ms, place, key, offset_of(offset)?, bytes)?;
            }
            (Said::Patch { offset, bytes, .. }, Some(found)) => {
                self.overlay(now_ms, place, key, &found, offset_of(offset)?, bytes)?;
            }
            (Said::Append { tail, .. }, Some(found)) => {
                self.grow(now_ms, place, key, &found, tail)?;
            }
            (Said::Expire { expires_at_ms, .. }, Some(found)) => {
                self.expire_at(now_ms, place, key, &found, expires_at_ms)?;
            }
            (Said::Delete { .. }, Some(_)) => {
                self.remove(now_ms, place, key);
            }
            _ => return skipped,
        }
        Ok(true)
    }
}
