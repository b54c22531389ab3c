//! The large values of a table, named by numbers, with the keys that are too long for a slot.

use crate::large::Large;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Values per row. Rows never move, so that adding a value never copies a long list.
const ROW: usize = 1024;

struct Held {
    large: Large,
    /// Empty when the key is in the record's slot.
    key: Box<[u8]>,
}

enum Place {
    Held(Held),
    /// The next free place, plus one; 0 is none.
    Free(u32),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Blocks {
    rows: Vec<Vec<Place>>,
    /// The first free place, plus one; 0 is none.
    free: u32,
    key_bytes: u64,
}

impl Blocks {
    /// Bytes of the keys. The values are counted by their meter.
    pub(crate) const fn key_bytes(&self) -> u64 {
        self.key_bytes
    }

    fn held(&self, id: u32) -> &Held {
        match &self.rows[id as usize / ROW][id as usize % ROW] {
            Place::Held(held) => held,
            Place::Free(_) => unreachable!("no record names a free place"),
        }
    }

    fn held_mut(&mut self, id: u32) -> &mut Held {
        match &mut self.rows[id as usize / ROW][id as usize % ROW] {
            Place::Held(held) => held,
            Place::Free(_) => unreachable!("no record names a free place"),
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Large {
        &self.held(id).large
    }

    /// The key, for a record whose slot does not hold it.
    #[inline]
    pub(crate) fn key(&self, id: u32) -> &[u8] {
        &self.held(id).key
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Large {
        &mut self.held_mut(id).large
    }

    /// What goes away with it, in bytes.
    pub(crate) fn cost(&self, id: u32) -> u64 {
        let held = self.held(id);
        held.large.cost() + held.key.len() as u64
    }

    pub(crate) fn insert(&mut self, large: Large) -> u32 {
        let held = Place::Held(Held { large, key: Box::default() });
        if let Some(id) = self.free.checked_sub(1) {
            let place = &mut self.rows[id as usize / ROW][id as usize % ROW];
            if let Place::Free(next) = core::mem::replace(place, held) {
                self.free = next;
            }
            return id;
        }
        if self.rows.last().is_none_or(|row| row.len() == ROW) {
            self.rows.push(Vec::with_capacity(ROW));
        }
        let row = self.rows.len() - 1;
        self.rows[row].push(held);
        (row * ROW + self.rows[row].len() - 1) as u32
    }

    /// Keeps the key here, or not any more when it is empty.
    pub(crate) fn set_key(&mut self, id: u32, key: &[u8]) {
        let held = self.held_mut(id);
        if *held.key != *key {
            let before = core::mem::replace(&mut held.key, key.into()).len();
            self.key_bytes = self.key_bytes - before as u64 + key.len() as u64;
        }
    }

    /// Forgets a value. Its memory goes when nobody else holds it.
    pub(crate) fn remove(&mut self, id: u32) {
        self.set_key(id, &[]);
        self.rows[id as usize / ROW][id as usize % ROW] = Place::Free(self.free);
        self.free = id + 1;
    }

    /// Forgets up to `max` values, and says how many there were.
    pub(crate) fn dismantle(&mut self, max: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < max
            && let Some(row) = self.rows.last_mut()
        {
            match row.pop() {
                Some(place) => {
                    forgotten += 1;
                    if let Place::Held(held) = place {
                        self.key_bytes -= held.key.len() as u64;
                    }
                }
                None => drop(self.rows.pop()),
            }
        }
        if self.rows.is_empty() {
            self.free = 0;
        }
        forgotten
    }
}
