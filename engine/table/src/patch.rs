//! Writing into the middle of a value, and behind its end: a few bytes change, however long it is, and a few bytes are
//! noted.

use crate::journal::Change;
use crate::large::{self, Large, Tail};
use crate::record::cost_of_large;
use crate::table::{Found, Table, Value};
use crate::{Expiry, LARGE_BYTES_MIN, OutOfMemory, Place};
use alloc::vec::Vec;

impl Table {
    /// Puts `bytes` at `offset` of a value, which is empty when there is none, and returns its length then. What is missing
    /// before them becomes zero. No bytes change nothing. The expiry stays. Only the bytes are touched, and what comes behind the end; a value that
    /// somebody else holds is copied first.
    ///
    /// # Errors
    /// [`OutOfMemory`], with nothing changed.
    pub fn patch(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, OutOfMemory> {
        if bytes.is_empty() {
            return Ok(self.get(now_ms, place, key).map_or(0, |entry| entry.value.len()));
        }
        let found = self.find(now_ms, place, key).filter(|found| found.live);
        let Some(found) = found else { return self.make(now_ms, place, key, offset, bytes) };
        match self.overlay(now_ms, place, key, &found, offset, bytes) {
            Err(OutOfMemory) if self.make_way(now_ms, place, key) => {
                let found = self.find(now_ms, place, key).ok_or(OutOfMemory)?;
                self.overlay(now_ms, place, key, &found, offset, bytes)
            }
            result => result,
        }
    }

    /// Makes a value that is zero up to its last bytes, of a key that is not there, or expired.
    pub(crate) fn make(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, OutOfMemory> {
        let tail = Tail { zeros: offset, bytes };
        if offset < LARGE_BYTES_MIN {
            let mut value = Vec::new();
            value.try_reserve_exact(tail.len()).map_err(|_| OutOfMemory)?;
            tail.write(&mut value);
            self.set(now_ms, place, key, &value, Expiry::Clear)?;
            return Ok(value.len());
        }
        let cost = large::cost_of(tail.len());
        if !self.has_room(cost) && !self.could_make(cost) {
            return Err(OutOfMemory);
        }
        let value = Large::from_parts(&mut *self.memory, self.records.meter(), &[], tail, 0)?;
        // An expired one goes first, as an effect of its own.
        self.remove(now_ms, place, key);
        let cost = cost_of_large(key.len(), value.len(), false).ok_or(OutOfMemory)?;
        let patched = Value::Patched(&value, offset);
        match self.insert(now_ms, place, key, patched, None, cost) {
            Err(OutOfMemory) if self.make_way(now_ms, place, key) => {
                self.insert(now_ms, place, key, patched, None, cost)?;
            }
            result => {
                result?;
            }
        }
        Ok(value.len())
    }

    /// Puts bytes into a value that is there, or behind its end.
    pub(crate) fn overlay(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        found: &Found,
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, OutOfMemory> {
        let before = self.records.view(found.reference).entry.value.len();
        let inside = bytes.len().min(before.saturating_sub(offset));
        let (over, behind) = bytes.split_at(inside);
        let (mut reference, mut len) = (found.reference, before);
        if !behind.is_empty() || offset > before {
            let tail = Tail { zeros: offset.saturating_sub(before), bytes: behind };
            // From here on nobody else holds the value, so that what follows needs no room.
            (reference, len) = self.extend(place, key, found, tail)?;
        }
        if !over.is_empty() {
            let (version, room) = (self.next_version(place), self.room());
            let memory = &mut *self.memory;
            let result = self.records.patch(memory, reference, offset, over, version, room);
            if result.is_err() {
                self.lacking = Some(large::cost_of(before));
                return Err(OutOfMemory);
            }
        }
        self.used(now_ms, found.spot);
        let change = Change::Patch { before, offset, bytes: bytes.len() };
        let expiry = found.expires_at_ms;
        self.wrote(now_ms, place, found.spot, reference, expiry, expiry, change);
        Ok(len)
    }
}
