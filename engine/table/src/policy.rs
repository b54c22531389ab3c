//! Another limit or another policy of eviction while the table is in use.
//!
//! A policy that asks how hot keys are finds nothing of it at first: the rows for it are allocated in slices of the background,
//! and every key begins as if it had been used at that moment. Until then keys without it are taken by chance.

use crate::heat;
use crate::{Eviction, Table};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Rows of heat that one slice of the background allocates: some 100 KiB.
const ROWS_TOGETHER: usize = 16;

impl Table {
    /// Sets the limit, 0 for none. Where more is in use already, what the policy lets go goes in the background.
    pub fn set_memory_bytes_max(&mut self, bytes: u64) {
        self.memory_bytes_max = bytes;
    }

    /// Sets the policy of eviction.
    pub fn set_eviction(&mut self, eviction: Eviction) {
        if self.evictor.set(eviction) {
            let first = heat::first(self.evictor.kind, self.now_ms);
            self.segments.begin_heat(self.evictor.keeps_heat(), first);
        }
    }

    /// Whether keys that are read or written from now on are used by it, for the policies that ask. They are, at first.
    pub fn touch_keys(&mut self, touch: bool) {
        self.touches = touch;
    }

    /// Whether keys that are removed from now on, by whatever, are noted for [`Self::take_removed`]. Clearing notes none.
    pub fn note_removed(&mut self, note: bool) {
        match (note, &self.removed_keys) {
            (true, None) => self.removed_keys = Some(Vec::new()),
            (false, Some(_)) => self.removed_keys = None,
            _ => {}
        }
    }

    /// Whether they are.
    pub const fn notes_removed(&self) -> bool {
        self.removed_keys.is_some()
    }

    /// The keys that were removed since this was called last. They are to be taken after every slice of work.
    pub fn take_removed(&mut self) -> Vec<Box<[u8]>> {
        self.removed_keys.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// A slice of what a new policy needs to know; whether there is more to do.
    pub(crate) fn begin_heat_slice(&mut self) -> bool {
        self.segments.begin_heat_slice(ROWS_TOGETHER)
    }
}
