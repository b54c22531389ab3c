//! Buckets, segments of buckets, and the pool that segments come from.
//!
//! A bucket is one cache line. A segment is fifteen home buckets and one stash bucket. A key lives in its home bucket,
//! else in the next one, else in the stash; the home bucket counts what it sent elsewhere, so that a miss ends there.
//! Home buckets are numbered in the order of the hash, like the segments in a directory: walking them walks the hash.
//! Nothing here knows keys or records: entries are a fingerprint and a reference.

use crate::{CHUNK_BYTES, Memory};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of a bucket: what fits a cache line with one byte of fingerprint, four of reference and a word of its own.
pub(crate) const LANES: usize = 12;
/// Home buckets of a segment. The stash bucket comes after them.
pub(crate) const HOMES: usize = 15;
/// Buckets of a segment. Larger segments are fuller when they split but take longer to split.
pub(crate) const BUCKETS: usize = HOMES + 1;
/// The stash's place.
const STASH: usize = HOMES;
/// Entries of a segment.
pub(crate) const SEGMENT_LANES: usize = BUCKETS * LANES;
/// What a segment costs, in bytes.
pub(crate) const SEGMENT_BYTES: u64 = (size_of::<Segment>() + size_of::<About>()) as u64;
/// Segments of a piece of the pool, which is a chunk.
const PIECE: usize = CHUNK_BYTES / size_of::<Segment>();

const _: () = assert!(size_of::<Bucket>() == 64 && PIECE == 2048);

const OCCUPIED: u32 = (1 << LANES) - 1;
const DISPLACED: u32 = 12;
const STASHED: u32 = 14;
const TICK: u32 = 16;

/// A segment.
pub(crate) type Segment = [Bucket; BUCKETS];

/// Twelve entries in a cache line.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    prints: [u8; LANES],
    /// 12 bits occupied, 2 bits entries in the next bucket, 2 bits entries in the stash, 16 bits earliest expiry.
    /// The two counts stay at 3 once they reached it, until the segment is built anew.
    word: u32,
    references: [u32; LANES],
}

/// Bit i says that byte i of `bytes` is `print`. Exact: no borrow runs from byte to byte.
#[inline]
const fn equal_bytes(bytes: u64, print: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let x = bytes ^ (LOW * print as u64);
    let zero = !(((x & (LOW * 0x7f)) + LOW * 0x7f) | x | (LOW * 0x7f));
    // Gathers the top bits of the eight bytes: each lands on a place of its own, so nothing carries.
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

impl Bucket {
    const EMPTY: Self = Self { prints: [0; LANES], word: 0, references: [0; LANES] };

    /// The lanes that hold this fingerprint.
    #[inline]
    pub(crate) fn matches(&self, print: u8) -> Lanes {
        let p = &self.prints;
        let low = u64::from_le_bytes([p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]]);
        let high = u32::from_le_bytes([p[8], p[9], p[10], p[11]]);
        Lanes(
            (equal_bytes(low, print) | equal_bytes(u64::from(high), print) << 8) & self.occupied(),
        )
    }

    #[inline]
    const fn occupied(&self) -> u32 {
        self.word & OCCUPIED
    }

    /// The lanes in use.
    #[inline]
    pub(crate) const fn lanes(&self) -> Lanes {
        Lanes(self.occupied())
    }

    #[inline]
    pub(crate) fn reference(&self, lane: usize) -> u32 {
        self.references[lane]
    }

    #[inline]
    pub(crate) fn set_reference(&mut self, lane: usize, reference: u32) {
        self.references[lane] = reference;
    }

    #[inline]
    pub(crate) fn print(&self, lane: usize) -> u8 {
        self.prints[lane]
    }

    /// Whether keys with this home may be in the next bucket.
    #[inline]
    pub(crate) const fn displaced(&self) -> bool {
        (self.word >> DISPLACED) & 3 != 0
    }

    /// Whether keys with this home may be in the stash.
    #[inline]
    pub(crate) const fn stashed(&self) -> bool {
        (self.word >> STASHED) & 3 != 0
    }

    /// The earliest expiry, see `tick`; 0 is none.
    #[inline]
    pub(crate) const fn tick(&self) -> u16 {
        (self.word >> TICK) as u16
    }

    #[inline]
    pub(crate) const fn set_tick(&mut self, tick: u16) {
        self.word = self.word & 0xffff | (tick as u32) << TICK;
    }

    const fn full(&self) -> bool {
        self.occupied() == OCCUPIED
    }

    fn put(&mut self, print: u8, reference: u32) -> usize {
        let lane = self.occupied().trailing_ones() as usize;
        self.prints[lane] = print;
        self.references[lane] = reference;
        self.word |= 1 << lane;
        lane
    }

    const fn count_up(&mut self, shift: u32) {
        if (self.word >> shift) & 3 < 3 {
            self.word += 1 << shift;
        }
    }

    const fn count_down(&mut self, shift: u32) {
        // 3 means three or more: nobody knows how many, so it stays.
        if (self.word >> shift) & 3 < 3 {
            self.word -= 1 << shift;
        }
    }
}

/// A set of lanes, as an iterator.
pub(crate) struct Lanes(u32);

impl Iterator for Lanes {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let lane = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(lane)
    }
}

/// The home bucket of a hash in a segment of this depth: the bits below the directory's, in order.
#[inline]
pub(crate) const fn home_of(hash: u64, depth: u32) -> usize {
    ((((hash << depth) >> 32) * HOMES as u64) >> 32) as usize
}

/// The first hash of home bucket `home` in the segment of this depth that `hash` falls in; the segment's end for
/// `HOMES`, or `None` when that is the end of the range.
pub(crate) fn start_of_home(hash: u64, depth: u32, home: usize) -> Option<u64> {
    let prefix = hash & !(u64::MAX >> depth);
    if home < HOMES {
        let offset = ((home as u64) << 32).div_ceil(HOMES as u64);
        Some(prefix | (offset << 32) >> depth)
    } else {
        // Depth 0 has no successor: the range is one segment.
        1u64.checked_shl(64 - depth).and_then(|width| prefix.checked_add(width))
    }
}

/// The bucket after a home bucket.
#[inline]
pub(crate) const fn next_of(home: usize) -> usize {
    if home + 1 == HOMES { 0 } else { home + 1 }
}

/// Where an entry is in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) segment: u32,
    pub(crate) bucket: usize,
    pub(crate) lane: usize,
}

/// The buckets in which entries of a home may be, nearest first.
#[inline]
pub(crate) fn buckets_of(segment: &Segment, home: usize) -> impl Iterator<Item = usize> + use<> {
    let word = &segment[home];
    let next = word.displaced().then_some(next_of(home));
    let stash = word.stashed().then_some(STASH);
    core::iter::once(home).chain(next).chain(stash)
}

/// Puts an entry into a segment and says where, or `None` when its three places are full.
pub(crate) fn put(
    segment: &mut Segment,
    home: usize,
    print: u8,
    reference: u32,
) -> Option<(usize, usize)> {
    let next = next_of(home);
    let bucket = if !segment[home].full() {
        home
    } else if !segment[next].full() {
        segment[home].count_up(DISPLACED);
        next
    } else if !segment[STASH].full() {
        segment[home].count_up(STASHED);
        STASH
    } else {
        return None;
    };
    Some((bucket, segment[bucket].put(print, reference)))
}

/// Whether `put` would find a place.
pub(crate) fn has_room(segment: &Segment, home: usize) -> bool {
    !segment[home].full() || !segment[next_of(home)].full() || !segment[STASH].full()
}

/// Takes an entry out of a segment. `home` is the home of its key.
pub(crate) fn take(segment: &mut Segment, home: usize, bucket: usize, lane: usize) {
    segment[bucket].word &= !(1 << lane);
    if bucket == STASH {
        segment[home].count_down(STASHED);
    } else if bucket != home {
        segment[home].count_down(DISPLACED);
    }
    if segment[bucket].occupied() == 0 {
        segment[bucket].set_tick(0);
    }
}

/// Whether entries with these homes fit one segment when they are put in this order.
pub(crate) fn fits(homes: impl Iterator<Item = usize>) -> bool {
    let mut counts = [0; BUCKETS];
    for home in homes {
        let place = [home, next_of(home), STASH].into_iter().find(|&b| counts[b] < LANES);
        match place {
            Some(bucket) => counts[bucket] += 1,
            None => return false,
        }
    }
    true
}

/// What is kept beside each segment, so that a sweep need not read it.
#[derive(Clone, Copy, Default)]
pub(crate) struct About {
    /// Entries.
    pub(crate) len: u16,
    /// The earliest expiry, see `tick`; 0 is none.
    pub(crate) tick: u16,
}

/// How hot the entries of a segment are, see `heat`. Reading a key changes it.
type Heats = [Cell<u16>; SEGMENT_LANES];
/// Segments whose heats are allocated together: little enough not to be felt.
const ROW: usize = 32;

fn new_row(first: u16) -> Box<[Heats; ROW]> {
    Box::new(core::array::from_fn(|_| core::array::from_fn(|_| Cell::new(first))))
}

struct Piece {
    segments: &'static mut [Segment; PIECE],
    about: Box<[About; PIECE]>,
    /// Segments in use.
    used: u16,
    /// Segments that were ever in use.
    carved: u16,
    /// The first of those that are free, plus one; 0 is none. Its `About` says where the next is.
    free: u16,
}

impl Piece {
    fn new(memory: &mut dyn Memory) -> Option<Self> {
        let chunk = memory.take()?;
        // Chunks are aligned to a page at least, buckets to a cache line.
        let segments = FromBytes::mut_from_bytes(chunk).ok()?;
        let about = Box::new([About::default(); PIECE]);
        Some(Self { segments, about, used: 0, carved: 0, free: 0 })
    }

    fn give_back(self, memory: &mut dyn Memory) {
        if let Ok(chunk) = self.segments.as_mut_bytes().try_into() {
            memory.give_back(chunk);
        }
    }

    const fn has_room(&self) -> bool {
        (self.used as usize) < PIECE
    }
}

/// The segments of a table.
#[derive(Default)]
pub(crate) struct Segments {
    /// `None` for a piece that was given back.
    pieces: Vec<Option<Piece>>,
    released: Vec<u32>,
    /// No piece before this one has room.
    room_from: usize,
    /// Segments of all pieces that are not in use.
    room: u64,
    in_use: u64,
    /// A row for every 32 numbers of segments, allocated when one of them is first used; nothing at all when heat is
    /// not kept.
    heats: Option<Vec<Option<Box<[Heats; ROW]>>>>,
    /// Rows of `heats` below this are still to be allocated for segments that were there before heat was kept.
    cold_rows: usize,
    /// What the heat of their entries is then.
    first_heat: u16,
}

impl Segments {
    /// A pool, with or without the heat of entries.
    pub(crate) fn new(with_heat: bool) -> Self {
        Self { heats: with_heat.then(Vec::new), ..Self::default() }
    }

    /// What a segment costs, in bytes.
    pub(crate) const fn bytes_each(&self) -> u64 {
        if self.heats.is_some() { SEGMENT_BYTES + size_of::<Heats>() as u64 } else { SEGMENT_BYTES }
    }

    /// Bytes of the segments in use.
    pub(crate) const fn bytes(&self) -> u64 {
        self.in_use * self.bytes_each()
    }

    /// Numbers of segments that were ever in use are below this.
    pub(crate) fn numbers(&self) -> u32 {
        (self.pieces.len() * PIECE) as u32
    }

    /// The heats of a segment, if they are kept.
    #[inline]
    pub(crate) fn heats(&self, id: u32) -> Option<&Heats> {
        let row = self.heats.as_ref()?.get(id as usize / ROW)?.as_ref()?;
        Some(&row[id as usize % ROW])
    }

    /// The heat of an entry, if it is kept.
    #[inline]
    pub(crate) fn heat(&self, spot: Spot) -> Option<&Cell<u16>> {
        self.heats(spot.segment).map(|heats| &heats[spot.bucket * LANES + spot.lane])
    }

    /// Forgets the heat of all entries. When it is to be kept, rows for the segments in use follow by
    /// [`Self::begin_heat_slice`].
    pub(crate) fn begin_heat(&mut self, kept: bool, first: u16) {
        self.heats = kept.then(Vec::new);
        self.first_heat = first;
        self.cold_rows = if kept { self.pieces.len() * (PIECE / ROW) } else { 0 };
    }

    /// Allocates up to `max` of those rows; whether more are to follow.
    pub(crate) fn begin_heat_slice(&mut self, max: usize) -> bool {
        let first = self.first_heat;
        let Some(heats) = &mut self.heats else { return false };
        for _ in 0..max {
            let Some(row) = self.cold_rows.checked_sub(1) else { break };
            self.cold_rows = row;
            if !matches!(self.pieces.get(row / (PIECE / ROW)), Some(Some(_))) {
                continue;
            }
            if row >= heats.len() {
                heats.resize_with(row + 1, || None);
            }
            // It may be there: a segment that was taken meanwhile has brought it.
            heats[row].get_or_insert_with(|| new_row(first));
        }
        self.cold_rows > 0
    }

    /// Segments in use.
    pub(crate) const fn in_use(&self) -> u64 {
        self.in_use
    }

    /// Makes sure that `take` finds so many, or says that there is no memory.
    pub(crate) fn reserve(&mut self, memory: &mut dyn Memory, count: usize) -> bool {
        while self.room < count as u64 {
            let Some(piece) = Piece::new(memory) else { return false };
            self.room += PIECE as u64;
            if let Some(at) = self.released.pop() {
                self.pieces[at as usize] = Some(piece);
                self.room_from = self.room_from.min(at as usize);
            } else {
                self.pieces.push(Some(piece));
            }
        }
        true
    }

    /// An empty segment, of those reserved.
    pub(crate) fn take(&mut self) -> u32 {
        while !self.pieces[self.room_from].as_ref().is_some_and(Piece::has_room) {
            self.room_from += 1;
        }
        let piece = self.pieces[self.room_from].as_mut().expect("one with room was found");
        let place = match piece.free {
            0 => {
                piece.carved += 1;
                piece.carved - 1
            }
            next => {
                piece.free = piece.about[next as usize - 1].len;
                next - 1
            }
        };
        piece.used += 1;
        self.in_use += 1;
        self.room -= 1;
        let id = (self.room_from * PIECE) as u32 + u32::from(place);
        if let Some(heats) = &mut self.heats {
            let row = id as usize / ROW;
            if row >= heats.len() {
                heats.resize_with(row + 1, || None);
            }
            heats[row].get_or_insert_with(|| new_row(self.first_heat));
        }
        self.wipe(id);
        id
    }

    /// A segment that is not needed any more. A piece without any goes back when others have as much room.
    pub(crate) fn give_back(&mut self, memory: &mut dyn Memory, id: u32) {
        let at = id as usize / PIECE;
        let piece = self.piece_mut(id);
        piece.about[id as usize % PIECE] = About { len: piece.free, ..About::default() };
        piece.free = (id as usize % PIECE) as u16 + 1;
        piece.used -= 1;
        let idle = piece.used == 0;
        self.in_use -= 1;
        self.room += 1;
        self.room_from = self.room_from.min(at);
        if idle
            && self.room >= 2 * PIECE as u64
            && let Some(piece) = self.pieces[at].take()
        {
            self.room -= PIECE as u64;
            self.released.push(at as u32);
            piece.give_back(memory);
            if let Some(heats) = &mut self.heats {
                let rows = PIECE / ROW;
                for row in heats.iter_mut().skip(at * rows).take(rows) {
                    *row = None;
                }
            }
        }
    }

    /// Gives up to `max` pieces back with all that is in them, and says how many there were. The pool is of no use until
    /// there are none left, and then as good as new.
    pub(crate) fn dismantle(&mut self, memory: &mut dyn Memory, max: usize) -> usize {
        let mut given = 0;
        while given < max
            && let Some(piece) = self.pieces.pop()
        {
            if let Some(piece) = piece {
                given += 1;
                self.in_use -= u64::from(piece.used);
                piece.give_back(memory);
            }
            if let Some(heats) = &mut self.heats {
                heats.truncate(self.pieces.len() * (PIECE / ROW));
            }
        }
        if self.pieces.is_empty() {
            *self = Self::new(self.heats.is_some());
        }
        given
    }

    /// Empties a segment in place.
    pub(crate) fn wipe(&mut self, id: u32) {
        *self.get_mut(id) = [Bucket::EMPTY; BUCKETS];
        *self.about_mut(id) = About::default();
    }

    /// Notes that nothing in a segment has an expiry.
    pub(crate) fn forget_ticks(&mut self, id: u32) {
        self.get_mut(id).iter_mut().for_each(|bucket| bucket.set_tick(0));
        self.about_mut(id).tick = 0;
    }

    #[inline]
    fn piece(&self, id: u32) -> &Piece {
        match &self.pieces[id as usize / PIECE] {
            Some(piece) => piece,
            None => gone(),
        }
    }

    #[inline]
    fn piece_mut(&mut self, id: u32) -> &mut Piece {
        match &mut self.pieces[id as usize / PIECE] {
            Some(piece) => piece,
            None => gone(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &Segment {
        &self.piece(id).segments[id as usize % PIECE]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Segment {
        &mut self.piece_mut(id).segments[id as usize % PIECE]
    }

    #[inline]
    pub(crate) fn about(&self, id: u32) -> About {
        self.piece(id).about[id as usize % PIECE]
    }

    #[inline]
    pub(crate) fn about_mut(&mut self, id: u32) -> &mut About {
        &mut self.piece_mut(id).about[id as usize % PIECE]
    }
}

#[cold]
fn gone() -> ! {
    unreachable!("no directory names a segment that was given back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_found_in_exactly_its_lanes() {
        for print in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut bucket = Bucket::EMPTY;
            for lane in 0..LANES {
                let other = if lane % 3 == 0 { print } else { print ^ (1 << (lane % 8)) };
                bucket.put(other, lane as u32);
            }
            bucket.word &= !(1 << 3);
            let found: Vec<usize> = bucket.matches(print).collect();
            assert_eq!(found, [0, 6, 9], "print {print}");
        }
    }

    #[test]
    fn homes_follow_the_order_of_the_hash_and_start_where_they_say() {
        for depth in [0, 1, 7, 26] {
            let base = 0xdead_beef_0123_4567u64;
            for home in 0..HOMES {
                let start = start_of_home(base, depth, home).expect("not the end");
                assert_eq!(home_of(start, depth), home);
                if home > 0 {
                    assert_eq!(home_of(start - 1, depth), home - 1);
                }
            }
        }
        assert_eq!(start_of_home(u64::MAX, 5, HOMES), None);
        assert_eq!(start_of_home(0, 1, HOMES), Some(1 << 63));
    }

    #[test]
    fn counts_of_displaced_entries_come_back_to_zero() {
        let mut segment = [Bucket::EMPTY; BUCKETS];
        let spots: Vec<_> = (0..LANES + 2).map(|i| put(&mut segment, 4, 9, i as u32)).collect();
        assert!(segment[4].displaced() && !segment[4].stashed());
        for spot in spots.into_iter().rev() {
            let (bucket, lane) = spot.expect("there is room");
            take(&mut segment, 4, bucket, lane);
        }
        assert!(!segment[4].displaced());
    }
}
