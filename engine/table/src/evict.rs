//! Eviction: which keys go when the memory limit is reached, in slices that nobody feels.
//!
//! Places are drawn until their segments hold a hundred keys that may go, a fair sample of all, and the coldest few of
//! them go. Where keys with an expiry are rare, a hand walks over all segments instead, guided by the hints
//! of the sweep. How hot a key is, is kept beside the segments and only under a policy that asks for it; what expired goes
//! before anything else. Only ranges that the table leads are drawn from.

use crate::growth::MERGE_LOW;
use crate::heat::{self, Kind};
use crate::ranges::Named;
use crate::segment::{HOMES, LANES, Spot, home_of, start_of_home};
use crate::table::Table;
use crate::{Expired, RANGES, tick};
use core::cell::Cell;

/// Keys that a slice removes before it ends. Where only those with an expiry may go, all records of a sample have to be
/// looked at, which takes twice as long.
const VICTIMS_MAX: u32 = 32;
const VOLATILE_VICTIMS_MAX: u32 = 16;
/// Keys of a sample that go at most.
const VICTIMS_TOGETHER: usize = 4;
/// Keys that a sample has, if that many are found in so many segments.
const SAMPLE: usize = 96;
const SAMPLE_SEGMENTS: usize = 8;
/// Places that are drawn in one range before the next range is.
const DRAWS_PER_RANGE: u32 = 8;
/// Draws without any key that may go, after which the hand walks.
const DRAWS_MAX: u32 = 16;
/// Work of a slice at most: one for a segment passed by, [`SEGMENT_WORK`] for one that is looked into.
const WORK_MAX: u32 = 1024;
const SEGMENT_WORK: u32 = 16;
/// What eviction in the background leaves free: a part of the limit, and no more than this many bytes.
const FREE_PART: u64 = 64;
const FREE_BYTES_MAX: u64 = 16 << 20;
/// Segments whose entries grow older in a slice.
const OLDER_TOGETHER: u64 = 32;

/// Which keys may be evicted, and which of them first. The names are those of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes are refused when the memory limit is reached.
    #[default]
    None,
    /// All, the one least recently used first.
    AllKeysLru,
    /// Those with an expiry, the one least recently used first.
    VolatileLru,
    /// All, the one least frequently used first.
    AllKeysLfu,
    /// Those with an expiry, the one least frequently used first.
    VolatileLfu,
    /// All, by chance.
    AllKeysRandom,
    /// Those with an expiry, by chance.
    VolatileRandom,
    /// Those with an expiry, the one that expires first.
    VolatileTtl,
}

impl Eviction {
    const fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }
}

/// What [`Table::make_room`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Enough,
    /// Not yet, but some was made: call again, at the next turn.
    More,
    /// No, and nothing (more) may be evicted.
    Never,
}

/// Where eviction is.
pub(crate) struct Evictor {
    eviction: Eviction,
    pub(crate) kind: Kind,
    /// The hand.
    range: usize,
    hash: u64,
    /// The range that places are drawn in, and for how many more draws.
    drawn: usize,
    draws: u32,
    chance: Cell<u64>,
    evicted: u64,
    /// Expired keys that were removed on the way and are not reported yet.
    expired: u32,
    /// Whether the background evicts down to the low mark.
    running: bool,
    /// The round in which entries grow older: when it began, and the segment that is next.
    round_ms: Option<u64>,
    round_next: u32,
}

impl Evictor {
    pub(crate) const fn new(eviction: Eviction, seed: u64) -> Self {
        Self {
            eviction,
            kind: Kind::of(eviction),
            range: 0,
            hash: 0,
            drawn: 0,
            draws: 0,
            chance: Cell::new(seed),
            evicted: 0,
            expired: 0,
            running: false,
            round_ms: None,
            round_next: 0,
        }
    }

    /// Takes another policy; whether it asks for something else about keys.
    pub(crate) fn set(&mut self, eviction: Eviction) -> bool {
        let kind = Kind::of(eviction);
        let asks_else = self.kind != kind;
        (self.eviction, self.kind) = (eviction, kind);
        self.running = false;
        if asks_else {
            (self.round_ms, self.round_next) = (None, 0);
        }
        asks_else
    }

    pub(crate) const fn keeps_heat(&self) -> bool {
        !matches!(self.kind, Kind::Nothing)
    }

    /// A number taken by chance.
    pub(crate) fn chance(&self) -> u64 {
        // splitmix64
        let state = self.chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.chance.set(state);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// What [`Table::clear`] does to it.
    pub(crate) fn start_over(&mut self) {
        (self.range, self.hash) = (0, 0);
        (self.running, self.round_ms, self.round_next) = (false, None, 0);
    }
}

/// A segment that was drawn, and a hash that leads to it.
#[derive(Clone, Copy)]
struct Drawn {
    range: usize,
    hash: u64,
    named: Named,
}

/// An entry that may go.
#[derive(Clone, Copy)]
struct Candidate {
    coldness: u64,
    drawn: Drawn,
    spot: Spot,
    expired: bool,
}

/// Some segments, and the coldest entries in them.
#[derive(Default)]
struct Sample {
    drawn: [Option<Drawn>; SAMPLE_SEGMENTS],
    /// Entries that may go.
    len: usize,
    /// The coldest first.
    coldest: [Option<Candidate>; VICTIMS_TOGETHER],
}

impl Sample {
    /// Adds a segment. False when there are enough, or it is in the sample already.
    fn add(&mut self, drawn: Drawn) -> bool {
        for place in &mut self.drawn {
            match place {
                Some(other) if other.named.segment == drawn.named.segment => return false,
                Some(_) => {}
                None => {
                    *place = Some(drawn);
                    return true;
                }
            }
        }
        false
    }

    fn is_full(&self) -> bool {
        self.len >= SAMPLE || self.drawn[SAMPLE_SEGMENTS - 1].is_some()
    }

    fn offer(&mut self, candidate: Candidate) {
        self.len += 1;
        let mut carried = Some(candidate);
        for place in &mut self.coldest {
            let colder = match (&carried, &*place) {
                (Some(one), Some(other)) => one.coldness > other.coldness,
                (one, _) => one.is_some(),
            };
            if colder {
                core::mem::swap(&mut carried, place);
            }
        }
    }
}

impl Table {
    /// Makes room for `bytes` more, with a bounded amount of work.
    pub fn make_room(&mut self, now_ms: u64, bytes: u64) -> Room {
        if self.has_room(bytes) {
            return Room::Enough;
        }
        if self.has_old() {
            self.dismantle_slice();
            return if self.has_room(bytes) { Room::Enough } else { Room::More };
        }
        if !self.may_evict() || !self.could_fit(bytes) {
            return Room::Never;
        }
        self.evict(now_ms, bytes, None);
        if self.has_room(bytes) {
            Room::Enough
        } else if self.may_evict() {
            Room::More
        } else {
            Room::Never
        }
    }

    /// One slice of all that is done beside commands: the sweep of expired keys, eviction down to a little below the
    /// limit, and taking apart what [`Table::clear`] left. `budget` is that of [`Table::expire_due`]; the rest is bounded
    /// by itself.
    pub fn background(&mut self, now_ms: u64, budget: u32) -> Expired {
        self.now_ms = now_ms;
        let dismantling = self.dismantle_slice();
        let mut expired = self.expire_due(now_ms, budget);
        let evicting = !dismantling && self.evict_in_background(now_ms);
        expired.removed += core::mem::take(&mut self.evictor.expired);
        expired.more |= dismantling || evicting;
        expired.more |= self.begin_heat_slice();
        self.grow_older(now_ms);
        expired
    }

    /// Keys evicted since the beginning.
    pub const fn evicted(&self) -> u64 {
        self.evictor.evicted
    }

    /// Whether there would be room for so much in an empty table.
    fn could_fit(&self, bytes: u64) -> bool {
        bytes <= self.memory_bytes_max().saturating_sub(Self::FIXED_BYTES)
    }

    /// Whether so much room may come of letting keys go.
    pub(crate) fn could_make(&self, bytes: u64) -> bool {
        self.may_evict() && self.could_fit(bytes)
    }

    /// Whether there is anything that the policy lets go.
    fn may_evict(&self) -> bool {
        match self.evictor.eviction {
            Eviction::None => false,
            policy if policy.is_volatile() => self.len_with_expiry() > 0,
            _ => !self.is_empty(),
        }
    }

    /// A slice of room for a write that found `bytes` more to be too much. The key that it writes stays.
    pub(crate) fn free_up(&mut self, now_ms: u64, bytes: u64, protected: Option<u32>) {
        if self.has_old() {
            self.dismantle_slice();
        }
        if !self.has_room(bytes) && self.may_evict() && self.could_fit(bytes) {
            self.evict(now_ms, bytes, protected);
        }
    }

    fn evict_in_background(&mut self, now_ms: u64) -> bool {
        if self.memory_bytes_max() == 0 || !self.may_evict() {
            return false;
        }
        let free = (self.memory_bytes_max() / FREE_PART).min(FREE_BYTES_MAX);
        self.evictor.running |= !self.has_room(free / 2);
        if self.evictor.running {
            self.evict(now_ms, free, None);
            self.evictor.running = !self.has_room(free) && self.may_evict();
        }
        self.evictor.running
    }

    /// One slice: removes keys until there is room for `bytes`, but not more than a slice may.
    fn evict(&mut self, now_ms: u64, bytes: u64, protected: Option<u32>) {
        let (mut victims, mut work) = (0, 0);
        let most =
            if self.evictor.eviction.is_volatile() { VOLATILE_VICTIMS_MAX } else { VICTIMS_MAX };
        while victims < most && work < WORK_MAX && !self.has_room(bytes) && self.may_evict() {
            let sample = self.sample(now_ms, protected, &mut work);
            for candidate in sample.coldest.iter().flatten() {
                let bucket = &self.segments.get(candidate.spot.segment)[candidate.spot.bucket];
                self.records.prefetch(bucket.reference(candidate.spot.lane));
            }
            // All of them, also when fewer would do: a sample costs more than they, and the next writes need room too.
            for candidate in sample.coldest.iter().flatten() {
                self.evict_one(now_ms, candidate);
                victims += 1;
            }
            // Last, because merging moves entries.
            for Drawn { range, hash, .. } in sample.drawn.into_iter().flatten() {
                if let Some(named) = self.ranges[range].find(hash)
                    && self.segments.about(named.segment).len <= MERGE_LOW
                {
                    self.merge(now_ms, range, hash);
                }
            }
        }
    }

    /// Draws segments, and walks when drawing is in vain, until there is a sample or the work is done.
    fn sample(&mut self, now_ms: u64, protected: Option<u32>, work: &mut u32) -> Sample {
        let mut sample = Sample::default();
        let mut tries = 0;
        while !sample.is_full() && *work < WORK_MAX {
            *work += 1;
            tries += 1;
            if tries > DRAWS_MAX && sample.len > 0 {
                break;
            }
            let next = if tries > DRAWS_MAX { self.walk() } else { self.draw() };
            let Some(drawn) = next else { continue };
            let segment = drawn.named.segment;
            let about = self.segments.about(segment);
            if about.len == 0 || self.evictor.eviction.is_volatile() && about.tick == tick::NONE {
                continue;
            }
            if !sample.add(drawn) {
                continue;
            }
            *work += SEGMENT_WORK;
            let before = sample.len;
            self.look_at(now_ms, drawn, protected, &mut sample);
            if sample.len == before && protected.is_none() {
                // Nothing here has an expiry any more, whatever the hints say.
                self.segments.forget_ticks(segment);
            }
        }
        sample
    }

    /// A segment by chance: a range with twice the keys has twice the chance, and so has twice the part of a range.
    fn draw(&mut self) -> Option<Drawn> {
        if self.evictor.draws == 0 {
            let nth = self.evictor.chance().checked_rem(self.len())?;
            self.evictor.drawn = self.range_of_nth(nth)?;
            self.evictor.draws = DRAWS_PER_RANGE;
        }
        self.evictor.draws -= 1;
        let (range, hash) = (self.evictor.drawn, self.evictor.chance());
        let named = self.ranges[range].find(hash).filter(|_| self.ranges[range].leads())?;
        Some(Drawn { range, hash, named })
    }

    /// The next segment in the order of the hash.
    fn walk(&mut self) -> Option<Drawn> {
        let (range, hash) = (self.evictor.range, self.evictor.hash);
        let found = self.ranges[range].find(hash).filter(|_| self.ranges[range].leads());
        let next = found.and_then(|named| start_of_home(hash, named.depth, HOMES));
        (self.evictor.range, self.evictor.hash) = match next {
            Some(next) => (range, next),
            None => ((range + 1) % RANGES, 0),
        };
        found.map(|named| Drawn { range, hash, named })
    }

    fn evict_one(&mut self, now_ms: u64, candidate: &Candidate) {
        let Candidate { spot, drawn: Drawn { range, named, .. }, .. } = *candidate;
        let bucket = &self.segments.get(spot.segment)[spot.bucket];
        let view = self.records.view(bucket.reference(spot.lane));
        if candidate.expired || !view.live(now_ms) {
            self.evictor.expired += 1;
        } else {
            self.evictor.evicted += 1;
        }
        let hash = self.hash.of(view.key);
        let slot = Self::slot_of(range, bucket.print(spot.lane), hash);
        self.take_out(range, home_of(hash, named.depth), slot, spot);
    }

    /// Offers the entries of a segment that may go.
    fn look_at(&self, now_ms: u64, drawn: Drawn, protected: Option<u32>, sample: &mut Sample) {
        let segment = drawn.named.segment;
        let policy = self.evictor.eviction;
        let buckets = self.segments.get(segment);
        let heats = self.segments.heats(segment);
        let looks = |tick| !policy.is_volatile() || tick != tick::NONE;
        if policy.is_volatile() {
            // Each record has to say whether it has an expiry, so all are fetched first.
            for bucket in buckets.iter().filter(|bucket| looks(bucket.tick())) {
                bucket.lanes().for_each(|lane| self.records.prefetch(bucket.reference(lane)));
            }
        }
        for (place, bucket) in buckets.iter().enumerate().filter(|(_, b)| looks(b.tick())) {
            for lane in bucket.lanes() {
                let reference = bucket.reference(lane);
                if protected == Some(reference) {
                    continue;
                }
                let mut expired = false;
                let mut at = None;
                if policy.is_volatile() {
                    at = self.records.expires_at_ms(reference);
                    if at.is_none() {
                        continue;
                    }
                    expired = at.is_some_and(|at| at <= now_ms);
                }
                let coldness = match (policy, heats) {
                    _ if expired => u64::MAX,
                    (Eviction::VolatileTtl, _) => u64::MAX - at.unwrap_or(0),
                    (_, Some(heats)) => {
                        let heat = heats[place * LANES + lane].get();
                        heat::coldness(self.evictor.kind, now_ms, heat)
                    }
                    _ => self.evictor.chance() >> 1,
                };
                let spot = Spot { segment, bucket: place, lane };
                sample.offer(Candidate { coldness, drawn, spot, expired });
            }
        }
    }

    /// A slice of the round in which entries grow older, spread over the time that a round has.
    fn grow_older(&mut self, now_ms: u64) {
        let Evictor { kind, round_ms, round_next, .. } = &mut self.evictor;
        if *kind == Kind::Nothing {
            return;
        }
        let since = now_ms.saturating_sub(*round_ms.get_or_insert(now_ms));
        let numbers = u64::from(self.segments.numbers());
        let spread = heat::ROUND_MS / 4 * 3;
        let due = numbers * since.min(spread) / spread;
        let first = u64::from(*round_next);
        let until = due.min(first + OLDER_TOGETHER).max(first);
        for heats in (first..until).filter_map(|id| self.segments.heats(id as u32)) {
            for heat in heats {
                heat.set(heat::grow_old(*kind, now_ms, heat.get()));
            }
        }
        *round_next = until as u32;
        if since >= heat::ROUND_MS && until >= numbers {
            (*round_ms, *round_next) = (Some(now_ms), 0);
        }
    }
}
