//! Splitting and merging of segments: how a range grows and shrinks without ever moving more than two segments' keys.

use crate::ranges::{DEPTH_MAX, DIRECTORY_ENTRY_BYTES, Named};
use crate::record::View;
use crate::segment::{self, LANES, SEGMENT_LANES, Spot, home_of};
use crate::table::{Table, slot_bits_of};
use crate::{OutOfMemory, Place, tick};
use alloc::vec::Vec;

/// A segment with so few keys looks for a neighbour to merge with.
pub(crate) const MERGE_LOW: u16 = (SEGMENT_LANES / 8) as u16;
/// Two segments merge when together they have so few keys: far from the next split.
const MERGE_MAX: u16 = (SEGMENT_LANES * 3 / 8) as u16;

/// An entry on its way from segment to segment.
#[derive(Clone, Copy)]
pub(crate) struct Moving {
    hash: u64,
    /// `None` for the key that is about to come, which only needs its place kept.
    reference: Option<u32>,
    print: u8,
    tick: u16,
    heat: u16,
}

/// A segment to be: its depth and which of the moving entries it gets.
type Part = (u32, core::ops::Range<usize>);

/// Divides `moving[span]` until each part fits a segment.
fn divide(
    moving: &mut [Moving],
    span: core::ops::Range<usize>,
    depth: u32,
    parts: &mut Vec<Part>,
) -> Result<(), OutOfMemory> {
    if segment::fits(moving[span.clone()].iter().map(|m| home_of(m.hash, depth))) {
        parts.push((depth, span));
        return Ok(());
    }
    let (low, high) = halve(moving, span, depth)?;
    divide(moving, low, depth + 1, parts)?;
    divide(moving, high, depth + 1, parts)
}

/// Orders `moving[span]` by the bit below `depth`.
fn halve(
    moving: &mut [Moving],
    span: core::ops::Range<usize>,
    depth: u32,
) -> Result<(core::ops::Range<usize>, core::ops::Range<usize>), OutOfMemory> {
    if depth == DEPTH_MAX {
        return Err(OutOfMemory);
    }
    let part = &mut moving[span.clone()];
    let mut low = 0;
    for i in 0..part.len() {
        if (part[i].hash << depth).cast_signed() >= 0 {
            part.swap(i, low);
            low += 1;
        }
    }
    let middle = span.start + low;
    Ok((span.start..middle, middle..span.end))
}

impl Table {
    /// Copies the entries of a segment to `moving`. Their keys are hashed anew, so all records are fetched first.
    fn collect(&self, now_ms: u64, segment: u32, moving: &mut Vec<Moving>) {
        let heats = self.segments.heats(segment);
        let segment = self.segments.get(segment);
        for bucket in segment {
            bucket.lanes().for_each(|lane| self.records.prefetch(bucket.reference(lane)));
        }
        for (place, bucket) in segment.iter().enumerate() {
            for lane in bucket.lanes() {
                let reference = bucket.reference(lane);
                let View { key, entry } = self.records.view(reference);
                let print = bucket.print(lane);
                let tick = tick::of(now_ms, entry.expires_at_ms);
                moving.push(Moving {
                    hash: self.hash.of(key),
                    reference: Some(reference),
                    print,
                    tick,
                    heat: heats.map_or(0, |heats| heats[place * LANES + lane].get()),
                });
            }
        }
    }

    /// Puts entries that fit into a segment, in order.
    fn fill(&mut self, named: Named, moving: &[Moving]) {
        self.segments.wipe(named.segment);
        let (mut len, mut earliest) = (0, tick::NONE);
        for m in moving {
            let Some(reference) = m.reference else { continue };
            let home = home_of(m.hash, named.depth);
            let buckets = self.segments.get_mut(named.segment);
            let (place, lane) =
                segment::put(buckets, home, m.print, reference).expect("it was found to fit");
            let bucket = &mut buckets[place];
            bucket.set_tick(tick::earlier(bucket.tick(), m.tick));
            let spot = Spot { segment: named.segment, bucket: place, lane };
            if let Some(heat) = self.segments.heat(spot) {
                heat.set(m.heat);
            }
            earliest = tick::earlier(earliest, m.tick);
            len += 1;
        }
        *self.segments.about_mut(named.segment) = segment::About { len, tick: earliest };
    }

    /// Splits the segment of `place` so that a key there has room. `cost` is what that key will cost beside.
    pub(crate) fn split(
        &mut self,
        now_ms: u64,
        place: Place,
        cost: u64,
    ) -> Result<(), OutOfMemory> {
        let range = place.range();
        let old = self.ranges[range].find(place.hash).expect("a range that is split is open");
        let mut moving = core::mem::take(&mut self.moving);
        moving.clear();
        self.collect(now_ms, old.segment, &mut moving);
        moving.push(Moving {
            hash: place.hash,
            reference: None,
            print: 0,
            tick: tick::NONE,
            heat: 0,
        });
        let result = self.split_into(range, old, &mut moving, cost);
        self.moving = moving;
        result
    }

    fn split_into(
        &mut self,
        range: usize,
        old: Named,
        moving: &mut [Moving],
        cost: u64,
    ) -> Result<(), OutOfMemory> {
        let hash = moving[0].hash;
        let mut parts = Vec::with_capacity(2);
        let (low, high) = halve(moving, 0..moving.len(), old.depth)?;
        divide(moving, low, old.depth + 1, &mut parts)?;
        divide(moving, high, old.depth + 1, &mut parts)?;
        let depth = parts.iter().map(|p| p.0).max().unwrap_or(0).max(self.ranges[range].depth());
        let entries = (1u64 << depth) - self.ranges[range].directory_len();
        let growth =
            (parts.len() as u64 - 1) * self.segments.bytes_each() + entries * DIRECTORY_ENTRY_BYTES;
        self.check_room(growth + cost)?;
        if !self.segments.reserve(&mut *self.memory, parts.len() - 1) {
            return Err(OutOfMemory);
        }
        self.moved += moving.len() as u64 - 1;
        self.ranges[range].unname(1, old.depth);
        self.ranges[range].deepen(depth);
        self.directory_entries += entries;
        // The parts are in the order of the hash and cover the old segment; a part's first hash follows from the depths
        // of those before it, also when it has no entries.
        let mut start = hash & !(u64::MAX >> old.depth);
        for (i, (depth, span)) in parts.into_iter().enumerate() {
            let segment = if i == 0 { old.segment } else { self.segments.take() };
            let named = Named { segment, depth };
            self.fill(named, &moving[span]);
            self.ranges[range].name(start, named);
            start = start.wrapping_add(1 << (64 - depth));
        }
        Ok(())
    }

    /// Merges the segment of `hash` with its neighbours while they are nearly empty, and closes a range without keys.
    pub(crate) fn merge(&mut self, now_ms: u64, range: usize, hash: u64) {
        if self.ranges[range].len == 0 {
            self.close_range(range);
            return;
        }
        while let Some(here) = self.ranges[range].find(hash)
            && here.depth > 0
            && let Some(there) = self.ranges[range].find(hash ^ 1 << (64 - here.depth))
            && there.depth == here.depth
            && self.segments.about(here.segment).len + self.segments.about(there.segment).len
                <= MERGE_MAX
        {
            let mut moving = core::mem::take(&mut self.moving);
            moving.clear();
            self.collect(now_ms, here.segment, &mut moving);
            self.collect(now_ms, there.segment, &mut moving);
            let depth = here.depth - 1;
            let fit = segment::fits(moving.iter().map(|m| home_of(m.hash, depth)));
            if fit {
                let named = Named { segment: here.segment, depth };
                self.fill(named, &moving);
                self.moved += moving.len() as u64;
                self.segments.give_back(&mut *self.memory, there.segment);
                let r = &mut self.ranges[range];
                r.unname(2, here.depth);
                r.name(hash, named);
                self.directory_entries -= r.directory_len();
                r.shallow();
                self.directory_entries += r.directory_len();
            }
            self.moving = moving;
            if !fit {
                return;
            }
        }
    }

    /// Gives back the memory of a range without keys.
    fn close_range(&mut self, range: usize) {
        let r = &mut self.ranges[range];
        if r.is_open() {
            let memory = &mut *self.memory;
            r.segments().for_each(|named| self.segments.give_back(memory, named.segment));
            self.directory_entries -= r.directory_len();
            self.open_ranges -= 1;
            drop(r.close());
        }
    }

    /// The slot of a record, from its range, its fingerprint and the hash of its key.
    pub(crate) fn slot_of(range: usize, print: u8, hash: u64) -> u16 {
        (range * crate::SLOTS_PER_RANGE) as u16 | slot_bits_of(print, hash)
    }
}
