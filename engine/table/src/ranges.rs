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
    depth: u8,
    /// What is out of the ordinary about it: 0 is a range that leads and is not journaled, as all are at first.
    pub(crate) flags: Flags,
    /// Segments whose depth is the directory's.
    deepest: u32,
    /// Keys. A slab has room for 2^31 records at most.
    pub(crate) len: u32,
    /// Keys that have an expiry.
    pub(crate) with_expiry: u32,
    /// The last version given.
    pub(crate) version: u64,
    /// The version of the last removal.
    pub(crate) last_removal: u64,
    beside: Option<Box<Beside>>,
}

/// What is out of the ordinary about a range. Every write looks at it, and at most ranges of most stores it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// Its effects are noted in the journal.
    pub(crate) const JOURNALED: Self = Self(1);
    /// Its keys are a copy of those that another table leads.
    pub(crate) const FOLLOWS: Self = Self(2);
    /// The hints of its expiries were left alone for so long that the next sweep takes all of them as due.
    pub(crate) const HINTS_OLD: Self = Self(4);

    #[inline]
    pub(crate) const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn set(&mut self, other: Self, on: bool) {
        self.0 = if on { self.0 | other.0 } else { self.0 & !other.0 };
    }
}

/// What a range with keys has beside.
struct Beside {
    /// Keys of each slot.
    slots: [u32; SLOTS_PER_RANGE],
    /// What the directory will be when it doubles, as far as it is touched.
    ahead: Vec<u32>,
}

const _: () = assert!(size_of::<Range>() == 64);

/// The segment named at a place of a directory of this depth, and the place of the next one.
fn segment_at(words: &[u32], depth: u32, at: &mut usize) -> Option<Named> {
    let named = Named::unpack(*words.get(*at)?);
    *at += 1 << (depth - named.depth);
    Some(named)
}

/// The directory of a range that was closed.
pub(crate) struct Directory {
    words: Vec<u32>,
    depth: u8,
}

impl Directory {
    /// The segment named at a place, and the place of the next one. Places begin at 0.
    pub(crate) fn segment_at(&self, at: &mut usize) -> Option<Named> {
        segment_at(&self.words, u32::from(self.depth), at)
    }
}

impl Range {
    pub(crate) const fn new(version: u64) -> Self {
        Self {
            directory: Vec::new(),
            depth: 0,
            flags: Flags(0),
            deepest: 0,
            len: 0,
            with_expiry: 0,
            version,
            last_removal: version,
            beside: None,
        }
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

    /// Forgets its segments and keys; the rest stays. Returns its directory, if it had any.
    pub(crate) fn close(&mut self) -> Option<Directory> {
        let open = self.is_open();
        let directory =
            Directory { words: core::mem::take(&mut self.directory), depth: self.depth };
        (self.depth, self.deepest, self.len, self.with_expiry, self.beside) = (0, 0, 0, 0, None);
        open.then_some(directory)
    }

    /// Whether anything is out of the ordinary that a write has to care about.
    #[inline]
    pub(crate) const fn is_special(&self) -> bool {
        self.flags.any_of(Flags(Flags::JOURNALED.0 | Flags::FOLLOWS.0))
    }

    /// Whether it is this table that expires and evicts its keys.
    #[inline]
    pub(crate) const fn leads(&self) -> bool {
        !self.flags.any_of(Flags::FOLLOWS)
    }

    /// Counts a removal as an effect, and returns its version.
    pub(crate) const fn removed(&mut self) -> u64 {
        self.version += 1;
        self.last_removal = self.version;
        self.version
    }

    /// Entries of the directory.
    pub(crate) fn directory_len(&self) -> u64 {
        self.directory.len() as u64
    }

    /// The depth of the directory.
    pub(crate) fn depth(&self) -> u32 {
        u32::from(self.depth)
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
        core::iter::from_fn(move || segment_at(&self.directory, self.depth(), &mut at))
    }

    /// Doubles the directory until it has this depth.
    pub(crate) fn deepen(&mut self, depth: u32) {
        let times = 1 << (depth - self.depth());
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
            self.depth = depth as u8;
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
        let width = 1 << (self.depth() - named.depth);
        let start = self.index(hash) & !(width - 1);
        self.directory[start..start + width].fill(named.pack());
        self.deepest += u32::from(named.depth == self.depth());
    }

    /// To be told before two segments of this depth become one, or one becomes several.
    pub(crate) fn unname(&mut self, segments: u32, depth: u32) {
        if depth == self.depth() {
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
            let depth = self.depth();
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
