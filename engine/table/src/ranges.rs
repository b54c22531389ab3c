//! One range: its directory, its counters.
//!
//! The directory is indexed by the top bits of the hash. An entry names a segment and the segment's depth, the number of
//! bits that its keys have in common; all entries below these bits are the same.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::SLOTS_PER_RANGE;

/// Segments that share more bits than this with their neighbour are not split: a directory would have 2^26 entries.
/// With a secret seed it takes some 10^10 keys in one range to get there.
pub(crate) const DEPTH_MAX: u32 = 26;
const DEPTH_BITS: u32 = 5;

const _: () = assert!(DEPTH_MAX < 1 << DEPTH_BITS);

/// What the first key of a range costs beside its segment and its directory, in bytes: the counters of its slots.
pub(crate) const OPENING_BYTES: u64 = size_of::<Beside>() as u64;
/// What an entry of a directory costs, in bytes.
pub(crate) const DIRECTORY_ENTRY_BYTES: u64 = size_of::<u32>() as u64;

/// A segment as the directory names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segment: u32,
    pub(crate) depth: u32,
}

impl Named {
    const fn pack(self) -> u32 {
        self.segment << DEPTH_BITS | self.depth
    }

    #[inline]
    const fn unpack(word: u32) -> Self {
        Self { segment: word >> DEPTH_BITS, depth: word & ((1 << DEPTH_BITS) - 1) }
    }
}

/// From so many entries on the memory for twice as many is touched ahead, [`AHEAD`] at each split: the first touch of a
/// great directory would otherwise be most of what its doubling takes.
const AHEAD_FROM: usize = 4096;
const AHEAD: usize = 16;

/// A range of the table. A range without keys owns no memory. Every lookup reads one, so it fills a cache line of its own.
#[repr(align(64))]
pub(crate) struct Range {
    directory: Vec<u32>,
    /// The directory has 2^depth entries.
    depth: u32,
    /// Segments whose depth is the directory's.
    deepest: u32,
    /// Keys.
    pub(crate) len: u64,
    /// The last version given.
    pub(crate) version: u64,
    beside: Option<Box<Beside>>,
}

/// What a range with keys has beside.
struct Beside {
    /// Keys of each slot.
    slots: [u32; SLOTS_PER_RANGE],
    /// What the directory will be when it doubles, as far as it is touched.
    ahead: Vec<u32>,
}

const _: () = assert!(size_of::<Range>() == 64);

impl Range {
    pub(crate) const fn new(version: u64) -> Self {
        Self { directory: Vec::new(), depth: 0, deepest: 0, len: 0, version, beside: None }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.directory.is_empty()
    }

    /// Takes its first segment.
    pub(crate) fn open(&mut self, segment: u32) {
        self.directory = vec![Named { segment, depth: 0 }.pack()];
        self.depth = 0;
        self.deepest = 1;
        self.beside = Some(Box::new(Beside { slots: [0; SLOTS_PER_RANGE], ahead: Vec::new() }));
    }

    /// Forgets its segments and keys; the version stays. Returns its directory, if it had any.
    pub(crate) fn close(&mut self) -> Option<Vec<u32>> {
        let closed = core::mem::replace(self, Self::new(self.version));
        closed.is_open().then_some(closed.directory)
    }

    /// Entries of the directory.
    pub(crate) fn directory_len(&self) -> u64 {
        self.directory.len() as u64
    }

    /// The depth of the directory.
    pub(crate) const fn depth(&self) -> u32 {
        self.depth
    }

    #[inline]
    const fn index(&self, hash: u64) -> usize {
        // In two steps, because a shift by 64 is none.
        (hash >> 1 >> (63 - self.depth)) as usize
    }

    /// The segment of a hash, if the range has any.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<Named> {
        self.directory.get(self.index(hash)).map(|&word| Named::unpack(word))
    }

    /// Each segment once.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Named> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let named = Named::unpack(*self.directory.get(at)?);
            at += 1 << (self.depth - named.depth);
            Some(named)
        })
    }

    /// Doubles the directory until it has this depth.
    pub(crate) fn deepen(&mut self, depth: u32) {
        let times = 1 << (depth - self.depth);
        let entries = self.directory.len() * times;
        if times > 1 {
            // Zeroed and then filled in place: a tenth of the time that pushing takes.
            let ahead = self.beside.as_mut().map(|beside| &mut beside.ahead);
            let mut directory = ahead.map(core::mem::take).unwrap_or_default();
            directory.resize(entries, 0);
            for (words, &word) in directory.chunks_exact_mut(times).zip(&self.directory) {
                words.fill(word);
            }
            self.directory = directory;
            self.depth = depth;
            self.deepest = 0;
        } else if entries >= AHEAD_FROM
            && let Some(Beside { ahead, .. }) = self.beside.as_deref_mut()
            && ahead.len() < 2 * entries
        {
            if ahead.is_empty() {
                ahead.reserve_exact(2 * entries);
            }
            ahead.resize(ahead.len() + AHEAD, 0);
        }
    }

    /// Names the segment for all hashes that share their first `depth` bits with `hash`.
    pub(crate) fn name(&mut self, hash: u64, named: Named) {
        let width = 1 << (self.depth - named.depth);
        let start = self.index(hash) & !(width - 1);
        self.directory[start..start + width].fill(named.pack());
        self.deepest += u32::from(named.depth == self.depth);
    }

    /// To be told before two segments of this depth become one, or one becomes several.
    pub(crate) const fn unname(&mut self, segments: u32, depth: u32) {
        if depth == self.depth {
            self.deepest -= segments;
        }
    }

    /// Halves the directory while no segment needs its depth.
    pub(crate) fn shallow(&mut self) {
        while self.deepest == 0 && self.depth > 0 {
            // In place; into less memory only when most of it lies idle.
            let half = self.directory.len() / 2;
            for i in 1..half {
                self.directory[i] = self.directory[2 * i];
            }
            self.directory.truncate(half);
            if self.directory.capacity() >= 4 * half {
                self.directory.shrink_to_fit();
            }
            if let Some(beside) = &mut self.beside {
                beside.ahead = Vec::new();
            }
            self.depth -= 1;
            let depth = self.depth;
            self.deepest =
                self.directory.iter().filter(|&&w| Named::unpack(w).depth == depth).count() as u32;
        }
    }

    /// Keys of a slot of this range.
    pub(crate) fn count(&self, slot: u16) -> u64 {
        self.beside.as_ref().map_or(0, |b| u64::from(b.slots[slot as usize % SLOTS_PER_RANGE]))
    }

    pub(crate) fn count_one_more(&mut self, slot: u16) {
        self.len += 1;
        if let Some(beside) = &mut self.beside {
            beside.slots[slot as usize % SLOTS_PER_RANGE] += 1;
        }
    }

    pub(crate) fn count_one_less(&mut self, slot: u16) {
        self.len -= 1;
        if let Some(beside) = &mut self.beside {
            beside.slots[slot as usize % SLOTS_PER_RANGE] -= 1;
        }
    }
}
