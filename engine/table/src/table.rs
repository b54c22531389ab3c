//! The table: finding, writing and removing keys, and what it all costs.

use crate::evict::Evictor;
use crate::growth::{MERGE_LOW, Moving};
use crate::hash::KeyHash;
use crate::heat;
use crate::journal::{Change, Journal};
use crate::large::{self, Body, Tail};
use crate::lead::Following;
use crate::old::{Detached, Old};
use crate::ranges::{DIRECTORY_ENTRY_BYTES, OPENING_BYTES, Range};
use crate::record::{Records, VERSION_MAX, View, cost_of, cost_of_large};
use crate::segment::{self, Segments, Spot, buckets_of, home_of};
use crate::sweep::Sweep;
use crate::{
    Block, Entry, Expiry, Large, Memory, Options, OutOfMemory, Place, RANGES, SLOTS_PER_RANGE,
    Usage, tick,
};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

/// One shard's table. See the crate's description.
pub struct Table {
    pub(crate) hash: KeyHash,
    pub(crate) memory_bytes_max: u64,
    /// Whether reading a key uses it.
    pub(crate) touches: bool,
    /// Keys that were removed, where somebody wants to know.
    pub(crate) removed_keys: Option<Vec<Box<[u8]>>>,
    pub(crate) ranges: Box<[Range; RANGES]>,
    pub(crate) segments: Segments,
    pub(crate) records: Records,
    pub(crate) len: u64,
    pub(crate) with_expiry: u64,
    pub(crate) directory_entries: u64,
    pub(crate) open_ranges: u64,
    pub(crate) moving: Vec<Moving>,
    pub(crate) sweep: Sweep,
    /// Entries that splits and merges moved.
    pub(crate) moved: u64,
    pub(crate) evictor: Evictor,
    /// What was cleared and is not yet given back.
    pub(crate) old: VecDeque<Old>,
    pub(crate) detached: VecDeque<Detached>,
    pub(crate) following: Following,
    pub(crate) journal: Journal,
    /// What the last write that found no room had asked for, in bytes.
    pub(crate) lacking: Option<u64>,
    /// The time of the last write or slice of background work, for what is not told the time.
    pub(crate) now_ms: u64,
    pub(crate) memory: Box<dyn Memory>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("len", &self.len())
            .field("len_with_expiry", &self.len_with_expiry())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

/// The fingerprint of a key: eight bits of the hash that neither directory nor home look at, with the slot's place in its
/// range mixed in. Together with the hash it gives the slot back, so that no record needs to hold it, and keys that
/// share a slot still differ.
#[inline]
pub(crate) const fn print_of(place: Place) -> u8 {
    place.hash as u8 ^ ((place.slot as usize % SLOTS_PER_RANGE) << 2) as u8
}

/// The slot's place in its range, from the fingerprint.
#[inline]
pub(crate) const fn slot_bits_of(print: u8, hash: u64) -> u16 {
    ((print ^ hash as u8) >> 2) as u16
}

const _: () = assert!(SLOTS_PER_RANGE << 2 == 256);

impl Place {
    #[inline]
    pub(crate) const fn range(self) -> usize {
        self.slot as usize / SLOTS_PER_RANGE % RANGES
    }
}

/// A value that comes.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Bytes(&'a [u8]),
    Large(&'a Large),
    /// One that is zero up to this offset.
    Patched(&'a Large, usize),
}

/// The expiry of a key before a write, and after it.
fn expiries(found: Option<&Found>, expiry: Expiry) -> (Option<u64>, Option<u64>) {
    let before = found.and_then(|f| f.expires_at_ms);
    let after = match expiry {
        Expiry::Keep => before.filter(|_| found.is_some_and(|f| f.live)),
        Expiry::Clear => None,
        Expiry::At(at) => Some(at),
    };
    (before, after)
}

/// A key that was found.
pub(crate) struct Found {
    pub(crate) spot: Spot,
    pub(crate) reference: u32,
    pub(crate) live: bool,
    pub(crate) expires_at_ms: Option<u64>,
}

impl Table {
    /// An empty table. It holds next to no memory until keys come.
    pub fn new(options: Options, memory: Box<dyn Memory>) -> Self {
        let evictor = Evictor::new(options.eviction, options.seed[0] ^ options.seed[1]);
        let ranges: Vec<Range> =
            (0..RANGES).map(|_| Range::new(options.first_version & VERSION_MAX)).collect();
        let ranges: Result<Box<[Range; RANGES]>, _> = ranges.into_boxed_slice().try_into();
        Self {
            hash: KeyHash::new(options.seed),
            memory_bytes_max: options.memory_bytes_max,
            ranges: ranges.ok().expect("it was made with this length"),
            segments: Segments::new(evictor.keeps_heat()),
            records: Records::new(),
            len: 0,
            with_expiry: 0,
            directory_entries: 0,
            open_ranges: 0,
            moving: Vec::new(),
            sweep: Sweep::default(),
            moved: 0,
            evictor,
            old: VecDeque::new(),
            detached: VecDeque::new(),
            following: Following::default(),
            journal: Journal::default(),
            lacking: None,
            touches: true,
            removed_keys: None,
            now_ms: 0,
            memory,
        }
    }

    /// Where `key` belongs. `slot` is below 16384.
    #[inline]
    pub fn place(&self, key: &[u8], slot: u16) -> Place {
        debug_assert!((slot as usize) < RANGES * SLOTS_PER_RANGE, "slot {slot} is not one");
        Place { hash: self.hash.of(key), slot }
    }

    /// Asks the processor to fetch the bucket of a key. First pass over a batch.
    #[inline]
    pub fn prefetch_bucket(&self, place: Place) {
        if let Some(named) = self.ranges[place.range()].find(place.hash) {
            let home = home_of(place.hash, named.depth);
            crate::prefetch::line(&self.segments.get(named.segment)[home]);
        }
    }

    /// Asks the processor to fetch the record of a key, whose bucket should have come by now. Second pass over a batch.
    #[inline]
    pub fn prefetch_record(&self, place: Place) {
        if let Some(named) = self.ranges[place.range()].find(place.hash) {
            let bucket = &self.segments.get(named.segment)[home_of(place.hash, named.depth)];
            // The first match is the key but for one time in fifty; a displaced key is not looked for.
            if let Some(lane) = bucket.matches(print_of(place)).next() {
                self.records.prefetch(bucket.reference(lane));
            }
        }
    }

    #[inline]
    fn lookup(&self, place: Place, key: &[u8]) -> Option<(Spot, u32, View<'_>)> {
        let named = self.ranges[place.range()].find(place.hash)?;
        let segment = self.segments.get(named.segment);
        let print = print_of(place);
        for bucket in buckets_of(segment, home_of(place.hash, named.depth)) {
            for lane in segment[bucket].matches(print) {
                let reference = segment[bucket].reference(lane);
                let view = self.records.view(reference);
                if view.key == key {
                    return Some((Spot { segment: named.segment, bucket, lane }, reference, view));
                }
            }
        }
        None
    }

    pub(crate) fn find(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<Found> {
        self.lookup(place, key).map(|(spot, reference, view)| Found {
            spot,
            reference,
            live: view.live(now_ms),
            expires_at_ms: view.entry.expires_at_ms,
        })
    }

    /// The value of a key, unless there is none or it expired.
    #[inline]
    pub fn get(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<Entry<'_>> {
        let (spot, _, view) = self.lookup(place, key)?;
        self.used(now_ms, spot);
        view.live(now_ms).then_some(view.entry)
    }

    /// The same, and the key is not used by it.
    pub fn get_quietly(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<Entry<'_>> {
        let (_, _, view) = self.lookup(place, key)?;
        view.live(now_ms).then_some(view.entry)
    }

    /// How a key was used lately, if the policy of eviction asks; none as well when there is no such key.
    pub fn usage(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<Usage> {
        let (spot, ..) = self.lookup(place, key).filter(|(.., view)| view.live(now_ms))?;
        heat::usage(self.evictor.kind, now_ms, self.segments.heat(spot)?.get())
    }

    /// What a key costs, in bytes: its record, its value, and its share of a bucket.
    pub fn cost(&self, now_ms: u64, place: Place, key: &[u8]) -> Option<u64> {
        let (_, reference, view) = self.lookup(place, key)?;
        let value = view.entry.large.map_or(0, Large::held);
        let share = segment::SEGMENT_BYTES / segment::SEGMENT_LANES as u64;
        let slot = self.records.slot_bytes(reference);
        view.live(now_ms).then_some(slot + value + share)
    }

    /// A number taken by chance.
    pub fn chance(&self) -> u64 {
        self.evictor.chance()
    }

    /// Notes that a key was used, for the policies that ask.
    #[inline]
    pub(crate) fn used(&self, now_ms: u64, spot: Spot) {
        if let Some(heat) = self.segments.heat(spot).filter(|_| self.touches) {
            let chance = || self.evictor.chance();
            heat.set(heat::again(self.evictor.kind, now_ms, heat.get(), chance));
        }
    }

    /// Whether so much more may be used. Over the limit, as values that were received can bring it, nothing has room: not
    /// even what needs no more.
    pub(crate) fn has_room(&self, growth: u64) -> bool {
        let max = self.memory_bytes_max;
        max == 0 || self.memory_bytes().saturating_add(growth) <= max
    }

    /// The same, noted when it is not so.
    pub(crate) fn check_room(&mut self, growth: u64) -> Result<(), OutOfMemory> {
        if self.has_room(growth) {
            return Ok(());
        }
        self.lacking = Some(growth);
        Err(OutOfMemory)
    }

    /// The limit, 0 for none.
    pub(crate) const fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max
    }

    /// After a write that found no room: makes a slice of room for it, and says that it may be tried again.
    #[cold]
    pub(crate) fn make_way(&mut self, now_ms: u64, place: Place, key: &[u8]) -> bool {
        let Some(bytes) = self.lacking.take() else { return false };
        let protected = self.lookup(place, key).map(|(_, reference, _)| reference);
        self.free_up(now_ms, bytes, protected);
        true
    }

    pub(crate) fn room(&self) -> u64 {
        match self.memory_bytes_max {
            0 => u64::MAX / 2,
            max => max.saturating_sub(self.memory_bytes()),
        }
    }

    /// The version that the next write of a range gets; it is taken with `wrote`.
    pub(crate) fn next_version(&self, place: Place) -> u64 {
        // 48 bits last for 2^48 writes less the seconds since 1970 << 16: centuries.
        self.ranges[place.range()].version + 1
    }

    /// Notes a write: its version, where its record is, and how the number of keys with an expiry changes.
    #[expect(clippy::too_many_arguments, reason = "what a write knows, none of it twice")]
    pub(crate) fn wrote(
        &mut self,
        now_ms: u64,
        place: Place,
        spot: Spot,
        reference: u32,
        before: Option<u64>,
        after: Option<u64>,
        change: Change,
    ) -> u64 {
        let bucket = &mut self.segments.get_mut(spot.segment)[spot.bucket];
        // A bucket that stays as it is need not be written back to memory.
        if bucket.reference(spot.lane) != reference {
            bucket.set_reference(spot.lane, reference);
        }
        if after.is_some() {
            let tick = tick::of(now_ms, after);
            bucket.set_tick(tick::earlier(bucket.tick(), tick));
            let about = self.segments.about_mut(spot.segment);
            about.tick = tick::earlier(about.tick, tick);
        }
        self.now_ms = now_ms;
        let (had, has) = (u32::from(before.is_some()), u32::from(after.is_some()));
        self.with_expiry = self.with_expiry + u64::from(has) - u64::from(had);
        let range = &mut self.ranges[place.range()];
        range.with_expiry = range.with_expiry + has - had;
        range.version += 1;
        let version = range.version;
        if range.is_special() {
            self.wrote_specially(place.slot, reference, change, i64::from(has) - i64::from(had));
        }
        version
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
        match self.try_set(now_ms, place, key, value, expiry) {
            Err(OutOfMemory) if self.make_way(now_ms, place, key) => {
                self.try_set(now_ms, place, key, value, expiry)
            }
            result => result,
        }
    }

    pub(crate) fn try_set(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let found = self.find(now_ms, place, key);
        let (before, after) = expiries(found.as_ref(), expiry);
        let version = self.next_version(place);
        let Some(found) = found else {
            let cost = cost_of(key.len(), value.len(), after.is_some());
            return self.insert(now_ms, place, key, Value::Bytes(value), after, cost);
        };
        if self.memory_bytes_max > 0
            && let cost = cost_of(key.len(), value.len(), after.is_some())
            && let Some(growth) = cost.checked_sub(self.records.cost(found.reference))
            && growth > 0
        {
            self.check_room(growth)?;
        }
        let reference = self.records.overwrite(
            &mut *self.memory,
            found.reference,
            key,
            value,
            version,
            after,
        )?;
        self.used(now_ms, found.spot);
        Ok(self.wrote(now_ms, place, found.spot, reference, before, after, Change::Put))
    }

    /// Memory for a value of so many bytes that is about to come. It is touched, and counted, as it is filled; and keys are
    /// evicted then, not before.
    ///
    /// # Errors
    /// [`OutOfMemory`], when so much is not left and cannot be made.
    pub fn block(&mut self, bytes: usize) -> Result<Block, OutOfMemory> {
        let cost = large::cost_of(bytes);
        if !self.has_room(cost) && !self.could_make(cost) {
            return Err(OutOfMemory);
        }
        Ok(Block::new(Body::new(&mut *self.memory, self.records.meter(), bytes)?, bytes))
    }

    /// Writes a value that came in a block, without copying it, and returns its version. The table keeps a handle. Values
    /// that are small enough for the slab are copied.
    ///
    /// # Errors
    /// [`OutOfMemory`], with nothing changed.
    pub fn set_large(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        mut value: Large,
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        value.move_to(self.records.meter());
        match self.try_set_large(now_ms, place, key, &value, expiry) {
            Err(OutOfMemory) if self.make_way(now_ms, place, key) => {
                self.try_set_large(now_ms, place, key, &value, expiry)
            }
            result => result,
        }
    }

    pub(crate) fn try_set_large(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        value: &Large,
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let found = self.find(now_ms, place, key);
        let (before, after) = expiries(found.as_ref(), expiry);
        let Some(cost) = cost_of_large(key.len(), value.len(), after.is_some()) else {
            return self.try_set(now_ms, place, key, value, expiry);
        };
        let Some(found) = found else {
            return self.insert(now_ms, place, key, Value::Large(value), after, cost);
        };
        // The value itself is counted already.
        let old = self.records.cost(found.reference);
        let growth = cost.saturating_sub(old);
        let over = (self.memory_bytes() + cost).saturating_sub(old);
        if cost + value.held() > old && self.memory_bytes_max > 0 && over > self.memory_bytes_max {
            self.lacking = Some(growth);
            return Err(OutOfMemory);
        }
        let version = self.next_version(place);
        let memory = &mut *self.memory;
        let reference = self.records.insert_large(memory, key, value.clone(), version, after)?;
        self.records.remove(memory, found.reference);
        self.used(now_ms, found.spot);
        Ok(self.wrote(now_ms, place, found.spot, reference, before, after, Change::Put))
    }

    /// A key that is not there.
    pub(crate) fn insert(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        value: Value<'_>,
        after: Option<u64>,
        cost: u64,
    ) -> Result<u64, OutOfMemory> {
        let range = place.range();
        if !self.ranges[range].is_open() {
            self.check_room(
                cost + OPENING_BYTES + self.segments.bytes_each() + DIRECTORY_ENTRY_BYTES,
            )?;
        } else if self.is_full_for(place) {
            self.split(now_ms, place, cost)?;
        } else {
            self.check_room(cost)?;
        }
        if !self.segments.reserve(&mut *self.memory, 1) {
            return Err(OutOfMemory);
        }
        let version = self.next_version(place);
        let memory = &mut *self.memory;
        let reference = match value {
            Value::Bytes(value) => self.records.insert(memory, key, value, version, after)?,
            Value::Large(value) | Value::Patched(value, _) => {
                self.records.insert_large(memory, key, value.clone(), version, after)?
            }
        };
        if !self.ranges[range].is_open() {
            let segment = self.segments.take();
            self.ranges[range].open(segment);
            self.open_ranges += 1;
            self.directory_entries += 1;
        }
        let named = self.ranges[range].find(place.hash).expect("the range is open");
        let segment = self.segments.get_mut(named.segment);
        let home = home_of(place.hash, named.depth);
        let (bucket, lane) =
            segment::put(segment, home, print_of(place), reference).expect("room was made or seen");
        self.segments.about_mut(named.segment).len += 1;
        self.len += 1;
        self.ranges[range].count_one_more(place.slot);
        let spot = Spot { segment: named.segment, bucket, lane };
        if let Some(heat) = self.segments.heat(spot) {
            heat.set(heat::first(self.evictor.kind, now_ms));
        }
        let change = match value {
            Value::Patched(value, offset) => Change::Made { offset, bytes: value.len() - offset },
            _ => Change::New,
        };
        Ok(self.wrote(now_ms, place, spot, reference, None, after, change))
    }

    fn is_full_for(&self, place: Place) -> bool {
        self.ranges[place.range()].find(place.hash).is_some_and(|named| {
            !segment::has_room(self.segments.get(named.segment), home_of(place.hash, named.depth))
        })
    }

    /// Adds to the end of a value, which is empty when there is none, and returns its new length. The expiry stays.
    /// Growing a value by many small tails copies each byte a few times at most.
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
        match self.try_append(now_ms, place, key, tail) {
            Err(OutOfMemory) if self.make_way(now_ms, place, key) => {
                self.try_append(now_ms, place, key, tail)
            }
            result => result,
        }
    }

    fn try_append(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        tail: &[u8],
    ) -> Result<usize, OutOfMemory> {
        let Some(found) = self.find(now_ms, place, key).filter(|f| f.live) else {
            self.try_set(now_ms, place, key, tail, Expiry::Clear)?;
            return Ok(tail.len());
        };
        self.grow(now_ms, place, key, &found, tail)
    }

    /// Adds to the end of a value that is there.
    pub(crate) fn grow(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        found: &Found,
        tail: &[u8],
    ) -> Result<usize, OutOfMemory> {
        let expiry = found.expires_at_ms;
        let (reference, len) = self.extend(place, key, found, Tail::of(tail))?;
        self.used(now_ms, found.spot);
        let change = Change::Append(len - tail.len());
        self.wrote(now_ms, place, found.spot, reference, expiry, expiry, change);
        Ok(len)
    }

    /// The same without noting it: where the record is then, and how long its value.
    pub(crate) fn extend(
        &mut self,
        place: Place,
        key: &[u8],
        found: &Found,
        tail: Tail<'_>,
    ) -> Result<(u32, usize), OutOfMemory> {
        let version = self.next_version(place);
        let room = self.room();
        let len = self.records.view(found.reference).entry.value.len() + tail.len();
        let result =
            self.records.append(&mut *self.memory, found.reference, key, tail, version, room);
        result.map(|reference| (reference, len)).inspect_err(|_| {
            let cost = cost_of(key.len(), len, found.expires_at_ms.is_some());
            self.lacking = Some(cost.saturating_sub(self.records.cost(found.reference)));
        })
    }

    /// Sets or clears the expiry of a key and returns the new version, or `None` when there is no such key. A moment
    /// that is not in the future is the caller's to turn into [`Table::remove`]. The memory limit does not stop it: an
    /// expiry costs 8 bytes and is how memory comes back. (A slice of room is made for them where the policy allows.)
    pub fn set_expiry(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Option<u64> {
        let mut found = self.find(now_ms, place, key)?;
        if !found.live {
            if self.ranges[place.range()].leads() {
                self.remove(now_ms, place, key);
            }
            return None;
        }
        if found.expires_at_ms.is_none() && expires_at_ms.is_some() {
            let len = self.records.view(found.reference).entry.value.len();
            let growth = cost_of(key.len(), len, true) - cost_of(key.len(), len, false);
            if !self.has_room(growth) {
                self.free_up(now_ms, growth, Some(found.reference));
                found = self.find(now_ms, place, key)?;
            }
        }
        // It fails only in a process that has no memory at all, where the key is left as it was.
        self.expire_at(now_ms, place, key, &found, expires_at_ms).ok()
    }

    /// Sets or clears the expiry of a key that is there.
    pub(crate) fn expire_at(
        &mut self,
        now_ms: u64,
        place: Place,
        key: &[u8],
        found: &Found,
        after: Option<u64>,
    ) -> Result<u64, OutOfMemory> {
        let (version, before) = (self.next_version(place), found.expires_at_ms);
        let memory = &mut *self.memory;
        let reference = self.records.set_expiry(memory, found.reference, key, version, after)?;
        self.used(now_ms, found.spot);
        Ok(self.wrote(now_ms, place, found.spot, reference, before, after, Change::Expire))
    }

    /// Removes a key and says whether it was there.
    pub fn remove(&mut self, now_ms: u64, place: Place, key: &[u8]) -> bool {
        let Some(found) = self.find(now_ms, place, key) else {
            return false;
        };
        let range = place.range();
        let named = self.ranges[range].find(place.hash).expect("the key was found in it");
        self.take_out(range, home_of(place.hash, named.depth), place.slot, found.spot);
        if self.segments.about(named.segment).len <= MERGE_LOW {
            self.merge(now_ms, range, place.hash);
        }
        found.live
    }

    /// Removes an entry and its record, as an effect of its own, and leaves merging to the caller.
    pub(crate) fn take_out(&mut self, range: usize, home: usize, slot: u16, spot: Spot) {
        let segment = self.segments.get_mut(spot.segment);
        let reference = segment[spot.bucket].reference(spot.lane);
        segment::take(segment, home, spot.bucket, spot.lane);
        self.segments.about_mut(spot.segment).len -= 1;
        if let Some(removed) = &mut self.removed_keys {
            removed.push(self.records.view(reference).key.into());
        }
        let had = u32::from(self.records.expires_at_ms(reference).is_some());
        self.len -= 1;
        self.with_expiry -= u64::from(had);
        let r = &mut self.ranges[range];
        r.count_one_less(slot);
        r.with_expiry -= had;
        r.removed();
        if r.is_special() {
            self.removed_specially(slot, reference);
        }
        self.records.remove(&mut *self.memory, reference);
    }

    /// Keys of a slot, with those that expired and were not yet swept.
    pub fn count_in_slot(&self, slot: u16) -> u64 {
        self.ranges[slot as usize / SLOTS_PER_RANGE % RANGES].count(slot)
    }

    /// Keys of the ranges that this table leads, with those that expired and were not yet swept.
    pub const fn len(&self) -> u64 {
        self.len - self.following.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of them that have an expiry, with those that expired and were not yet swept.
    pub const fn len_with_expiry(&self) -> u64 {
        self.with_expiry - self.following.with_expiry
    }

    /// Memory in use, in bytes: segments, directories and counters, records by the size of their slots, large values by
    /// what they hold, those included that only a reader still has. Pages of the slab are not counted beyond the slots in
    /// use; the sweep keeps what lies idle between those below half of them and a page per size. What was cleared counts
    /// until it is given back.
    pub fn memory_bytes(&self) -> u64 {
        Self::FIXED_BYTES
            + self.records.bytes()
            + self.segments.bytes()
            + self.directory_entries * DIRECTORY_ENTRY_BYTES
            + self.open_ranges * OPENING_BYTES
            + self.old.iter().map(Old::bytes).sum::<u64>()
    }

    /// What an empty table costs.
    pub(crate) const FIXED_BYTES: u64 = (size_of::<Self>() + size_of::<[Range; RANGES]>()) as u64;

    /// Memory that the slab holds for small records beyond [`Table::memory_bytes`]: room between records, which other
    /// records of the same size take, and which the sweep brings together. In bytes.
    pub const fn idle_bytes(&self) -> u64 {
        self.records.idle_bytes()
    }

    /// Entries that were moved from segment to segment since the beginning, and bytes of values that were copied because
    /// they grew.
    pub const fn moved_and_copied(&self) -> (u64, u64) {
        (self.moved, self.records.copied())
    }
}
