//! The table, with a plain ordered map inside.

use crate::hash::KeyHash;
use crate::{Entry, Expired, Expiry, Options, OutOfMemory, Place, RANGES};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

const RECORD_OVERHEAD: u64 = 96;

struct Record {
    slot: u16,
    value: Vec<u8>,
    version: u64,
    expires_at_ms: Option<u64>,
}

impl Record {
    fn live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|at| now_ms < at)
    }
    fn entry(&self) -> Entry<'_> {
        Entry { value: &self.value, version: self.version, expires_at_ms: self.expires_at_ms }
    }
}

type Key = (u8, u64, Box<[u8]>);

/// One shard's table. See the crate's description.
pub struct Table {
    hash: KeyHash,
    memory_bytes_max: u64,
    memory_bytes: u64,
    versions: Vec<u64>,
    slots: Vec<u32>,
    with_expiry: u64,
    records: BTreeMap<Key, Record>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("len", &self.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

fn key_of(place: Place, key: &[u8]) -> Key {
    ((place.slot >> 6) as u8, place.hash >> 16, key.into())
}

impl Table {
    /// An empty table.
    pub fn new(options: Options) -> Self {
        Self {
            hash: KeyHash::new(options.seed),
            memory_bytes_max: options.memory_bytes_max,
            memory_bytes: 0,
            versions: vec![options.first_version; RANGES],
            slots: vec![0; 16384],
            with_expiry: 0,
            records: BTreeMap::new(),
        }
    }

    /// Where `key` belongs. `slot` is below 16384.
    #[inline]
    pub fn place(&self, key: &[u8], slot: u16) -> Place {
        Place { hash: self.hash.of(key), slot }
    }

    /// Asks the processor to fetch the bucket of a key. First pass over a batch.
    #[inline]
    pub fn prefetch_bucket(&self, place: Place) {
        let _ = place;
    }

    /// Asks the processor to fetch the record of a key, whose bucket should have come by now. Second pass over a batch.
    #[inline]
    pub fn prefetch_record(&self, place: Place) {
        let _ = place;
    }

    /// The value of a key, unless there is none or it expired.
    pub fn get(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<Entry<'_>> {
        let record = self.records.get(&key_of(place, key))?;
        record.live(now_ms).then(|| record.entry())
    }

    fn drop_record(&mut self, k: &Key) {
        if let Some(r) = self.records.remove(k) {
            self.memory_bytes -= RECORD_OVERHEAD + (k.2.len() + r.value.len()) as u64;
            self.slots[r.slot as usize] -= 1;
            self.with_expiry -= u64::from(r.expires_at_ms.is_some());
        }
    }

    fn fits(&self, old: u64, new: u64) -> bool {
        new <= old
            || self.memory_bytes_max == 0
            || self.memory_bytes - old + new <= self.memory_bytes_max
    }

    fn next_version(&mut self, place: Place) -> u64 {
        let v = &mut self.versions[(place.slot >> 6) as usize];
        *v += 1;
        *v
    }

    /// Writes a value and returns its version.
    ///
    /// # Errors
    /// [`OutOfMemory`], with nothing changed.
    pub fn set(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let k = key_of(place, key);
        let old = self.records.get(&k);
        let old_cost = old.map_or(0, |r| RECORD_OVERHEAD + (key.len() + r.value.len()) as u64);
        let new_cost = RECORD_OVERHEAD + (key.len() + value.len()) as u64;
        if !self.fits(old_cost, new_cost) {
            return Err(OutOfMemory);
        }
        let expires_at_ms = match expiry {
            Expiry::Keep => old.filter(|r| r.live(now_ms)).and_then(|r| r.expires_at_ms),
            Expiry::Clear => None,
            Expiry::At(at) => Some(at),
        };
        self.drop_record(&k);
        let version = self.next_version(place);
        self.memory_bytes += new_cost;
        self.slots[place.slot as usize] += 1;
        self.with_expiry += u64::from(expires_at_ms.is_some());
        self.records
            .insert(k, Record { slot: place.slot, value: value.to_vec(), version, expires_at_ms });
        Ok(version)
    }

    /// Adds to the end of a value, which is empty when there is none, and returns its new length. The expiry stays.
    ///
    /// # Errors
    /// [`OutOfMemory`], with nothing changed.
    pub fn append(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        tail: &[u8],
    ) -> Result<usize, OutOfMemory> {
        let k = key_of(place, key);
        if !self.records.get(&k).is_some_and(|r| r.live(now_ms)) {
            self.set(now_ms, place, key, tail, Expiry::Clear)?;
            return Ok(tail.len());
        }
        if !self.fits(0, tail.len() as u64) {
            return Err(OutOfMemory);
        }
        let version = self.next_version(place);
        self.memory_bytes += tail.len() as u64;
        let record = self.records.get_mut(&k).expect("it was found above");
        record.value.extend_from_slice(tail);
        record.version = version;
        Ok(record.value.len())
    }

    /// Sets or clears the expiry of a key and returns the new version, or `None` when there is no such key. A moment
    /// that is not in the future is the caller's to turn into [`Table::remove`].
    pub fn set_expiry(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Option<u64> {
        let k = key_of(place, key);
        if !self.records.get(&k)?.live(now_ms) {
            return None;
        }
        let version = self.next_version(place);
        let record = self.records.get_mut(&k).expect("it was found above");
        self.with_expiry -= u64::from(record.expires_at_ms.is_some());
        self.with_expiry += u64::from(expires_at_ms.is_some());
        record.expires_at_ms = expires_at_ms;
        record.version = version;
        Some(version)
    }

    /// Removes a key and says whether it was there.
    pub fn remove(&mut self, now_ms: u64, place: Place, key: &[u8]) -> bool {
        let k = key_of(place, key);
        let live = self.records.get(&k).is_some_and(|r| r.live(now_ms));
        self.drop_record(&k);
        live
    }

    /// Visits some of the keys of `ranges` and returns where to go on, 0 when there is nothing left.
    ///
    /// `cursor` is 0 at first and then what the last call returned: the range in bits 48 to 55, the position in it
    /// below; always less than 2^63. `count` is about how many keys are visited; the work of one call is bounded by it.
    /// Every key that is there from the first call to the last is visited at least once, also when the table grows or
    /// shrinks meanwhile.
    pub fn scan(
        &self,
        now_ms: u64,
        cursor: u64,
        ranges: Range<u16>,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Entry<'_>),
    ) -> u64 {
        let from = cursor.max(u64::from(ranges.start) << 48);
        let end = u64::from(ranges.end) << 48;
        if from >= end {
            return 0;
        }
        let mut last = None;
        let start: Key = ((from >> 48) as u8, from & 0xffff_ffff_ffff, Box::default());
        for (seen, (k, r)) in self.records.range(start..).enumerate() {
            let at = u64::from(k.0) << 48 | k.1;
            if at >= end {
                break;
            }
            if seen >= count.max(1) && last != Some(at) {
                return at;
            }
            last = Some(at);
            if r.live(now_ms) {
                visit(&k.2, r.entry());
            }
        }
        0
    }

    /// Visits up to `max` keys of a slot.
    pub fn keys_in_slot(&self, now_ms: u64, slot: u16, max: usize, visit: &mut dyn FnMut(&[u8])) {
        let range = (slot >> 6) as u8;
        let start: Key = (range, 0, Box::default());
        self.records
            .range(start..)
            .take_while(|(k, _)| k.0 == range)
            .filter(|(_, r)| r.slot == slot && r.live(now_ms))
            .take(max)
            .for_each(|(k, _)| visit(&k.2));
    }

    /// Keys of a slot, with those that expired and were not yet swept.
    pub fn count_in_slot(&self, slot: u16) -> u64 {
        u64::from(self.slots[slot as usize])
    }

    /// A key taken by chance: `entropy` decides, all keys have about the same chance.
    pub fn random(&self, now_ms: u64, entropy: u64) -> Option<(&[u8], Entry<'_>)> {
        let live = || self.records.iter().filter(|(_, r)| r.live(now_ms));
        let n = live().count();
        let (k, r) = live().nth((entropy % n.max(1) as u64) as usize)?;
        Some((&k.2, r.entry()))
    }

    /// Keys, with those that expired and were not yet swept.
    pub fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Keys that have an expiry.
    pub fn len_with_expiry(&self) -> u64 {
        self.with_expiry
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Removes everything. Versions go on from where they were.
    pub fn clear(&mut self) {
        self.records.clear();
        self.slots.fill(0);
        self.with_expiry = 0;
        self.memory_bytes = 0;
    }

    /// One slice of the sweep that removes expired keys. `budget` bounds the buckets looked at.
    pub fn expire_due(&mut self, now_ms: u64, budget: u32) -> Expired {
        let due: Vec<(Key, u64)> = self
            .records
            .iter()
            .filter(|(_, r)| !r.live(now_ms))
            .take(budget as usize)
            .map(|(k, r)| (k.clone(), now_ms - r.expires_at_ms.unwrap_or(now_ms)))
            .collect();
        for (k, _) in &due {
            self.drop_record(k);
        }
        Expired {
            removed: due.len() as u32,
            lag_ms: due.iter().map(|d| d.1).max().unwrap_or(0),
            more: due.len() == budget as usize,
        }
    }
}
