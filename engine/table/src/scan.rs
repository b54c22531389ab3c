//! Walking the table: SCAN, the keys of a slot, a random key.
//!
//! Segments and their home buckets are in the order of the hash, so that a position in the hash is all that a cursor
//! has to hold: everything before it was visited, whatever was split or merged since.

use crate::record::View;
use crate::segment::{BUCKETS, HOMES, LANES, buckets_of, home_of, next_of, start_of_home};
use crate::table::{Table, slot_bits_of};
use crate::{Entry, RANGES, SLOTS_PER_RANGE};
use core::ops::ControlFlow;

/// Bits of a cursor that are the position in a range, the top bits of the hash.
const POSITION_BITS: u32 = 48;
pub(crate) const HASH_BELOW: u32 = 64 - POSITION_BITS;
/// Buckets that one call looks at beyond what the count asks for, so that a sparse table takes few calls.
const SCAN_BUCKETS_MIN: usize = 512;
/// Places that `random` tries before it takes the next key that comes.
const RANDOM_TRIES: usize = 64;
/// Buckets that `random` looks at in the end.
const RANDOM_BUCKETS_MAX: usize = 4096;

impl Table {
    /// Visits some of the keys of those of `ranges` that this table leads, and returns where to go on, 0 when there is
    /// nothing left.
    ///
    /// `cursor` is 0 at first and then what the last call returned: the range in bits 48 to 55, the position in it
    /// below; always less than 2^63. `count` is about how many keys are visited; the work of one call is bounded by it.
    /// Every key that is there from the first call to the last is visited at least once, also when the table grows or
    /// shrinks meanwhile.
    pub fn scan(
        &self,
        now_ms: u64,
        cursor: u64,
        ranges: core::ops::Range<u16>,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Entry<'_>),
    ) -> u64 {
        let end = u64::from(ranges.end).min(RANGES as u64);
        let at = cursor.max(u64::from(ranges.start) << POSITION_BITS);
        let mut range = at >> POSITION_BITS;
        let mut hash = at << HASH_BELOW;
        let mut looked_left = count.saturating_mul(4).saturating_add(SCAN_BUCKETS_MIN);
        let mut visited = 0;
        while range < end {
            if visited >= count.max(1) || looked_left == 0 {
                return range << POSITION_BITS | hash >> HASH_BELOW;
            }
            let leads = self.ranges[range as usize].leads();
            let Some((home, depth)) = self.home_at(range as usize, hash).filter(|_| leads) else {
                (range, hash) = (range + 1, 0);
                continue;
            };
            looked_left -= 1;
            let _ = self.visit_home(range as usize, hash, &mut |_, view| {
                if view.live(now_ms) {
                    visit(view.key, view.entry);
                    visited += 1;
                }
                ControlFlow::Continue(())
            });
            (range, hash) = match start_of_home(hash, depth, home + 1) {
                Some(next) => (range, next),
                None => (range + 1, 0),
            };
        }
        0
    }

    /// The home bucket and the depth at a position of a range, if the range has keys.
    pub(crate) fn home_at(&self, range: usize, hash: u64) -> Option<(usize, u32)> {
        let named = self.ranges[range].find(hash)?;
        Some((home_of(hash, named.depth), named.depth))
    }

    /// Visits every record whose home is the one at `hash` and whose position is not before it, with the hash of its key
    /// and its slot's place in the range. Expired ones too.
    pub(crate) fn visit_home(
        &self,
        range: usize,
        hash: u64,
        visit: &mut dyn FnMut(u16, &View<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(named) = self.ranges[range].find(hash) else {
            return ControlFlow::Continue(());
        };
        let segment = self.segments.get(named.segment);
        let home = home_of(hash, named.depth);
        // What comes next is fetched meanwhile: a walk is a row of cache misses otherwise.
        let ahead = &segment[next_of(home)];
        ahead.lanes().for_each(|lane| self.records.prefetch(ahead.reference(lane)));
        for bucket in buckets_of(segment, home) {
            let bucket = &segment[bucket];
            for lane in bucket.lanes() {
                let view = self.records.view(bucket.reference(lane));
                let its = self.hash.of(view.key);
                if home_of(its, named.depth) == home && its >> HASH_BELOW >= hash >> HASH_BELOW {
                    visit(slot_bits_of(bucket.print(lane), its), &view)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits the keys of a slot in about `buckets` buckets of its range, and returns where to go on, 0 when there is
    /// nothing left. `cursor` is 0 at first and then what the last call returned. A range is walked whole for one slot, at
    /// some 30 ns for each key of it. The keys come in no order that means anything.
    pub fn scan_slot(
        &self,
        now_ms: u64,
        slot: u16,
        cursor: u64,
        buckets: usize,
        visit: &mut dyn FnMut(&[u8]),
    ) -> u64 {
        if self.count_in_slot(slot) == 0 {
            return 0;
        }
        let range = slot as usize / SLOTS_PER_RANGE % RANGES;
        let mut hash = cursor << HASH_BELOW;
        for _ in 0..buckets.max(1) {
            let Some((home, depth)) = self.home_at(range, hash) else { return 0 };
            let _ = self.visit_home(range, hash, &mut |slot_bits, view| {
                if slot_bits as usize == slot as usize % SLOTS_PER_RANGE && view.live(now_ms) {
                    visit(view.key);
                }
                ControlFlow::Continue(())
            });
            match start_of_home(hash, depth, home + 1) {
                Some(next) => hash = next,
                None => return 0,
            }
        }
        hash >> HASH_BELOW
    }

    /// A key of a range that this table leads, taken by chance: `entropy` decides, all keys have about the same chance.
    /// `None` when there is none, or when thousands of places in a row hold expired ones.
    pub fn random(&self, now_ms: u64, entropy: u64) -> Option<(&[u8], Entry<'_>)> {
        let first = self.range_of_nth(entropy.checked_rem(self.len())?)?;
        // Any place of the range has the same chance, and an empty one is answered by another draw: that is fair.
        let mut state = entropy;
        let mut draw = || {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        let live = |reference| {
            let view = self.records.view(reference);
            view.live(now_ms).then_some((view.key, view.entry))
        };
        for _ in 0..RANDOM_TRIES {
            let named = self.ranges[first].find(draw())?;
            let place = draw() % (BUCKETS * LANES) as u64;
            let bucket = &self.segments.get(named.segment)[place as usize / LANES];
            let lane = place as usize % LANES;
            if bucket.lanes().any(|l| l == lane)
                && let Some(found) = live(bucket.reference(lane))
            {
                return Some(found);
            }
        }
        // Nearly empty, or nearly all expired: the next one that comes.
        let start = draw();
        let mut looked = 0;
        for (i, range) in self.ranges.iter().cycle().skip(first).take(RANGES + 1).enumerate() {
            let mut hash = if i == 0 { start } else { 0 };
            while let Some(named) = range.find(hash).filter(|_| range.leads()) {
                for bucket in self.segments.get(named.segment) {
                    if let Some(found) =
                        bucket.lanes().find_map(|lane| live(bucket.reference(lane)))
                    {
                        return Some(found);
                    }
                }
                looked += BUCKETS;
                if looked >= RANDOM_BUCKETS_MAX {
                    return None;
                }
                match start_of_home(hash, named.depth, HOMES) {
                    Some(next) => hash = next,
                    None => break,
                }
            }
        }
        None
    }
}
