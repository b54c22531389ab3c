//! Small pieces of memory by size class, named by 32-bit references.
//!
//! Chunks of 2 MiB are cut into pages of 64 KiB, and each page holds slots of one class. A reference counts 8-byte
//! granules, so that a slab spans 32 GiB. A page whose last slot is freed can take any class again; a chunk without used
//! pages goes back to where it came from, but for one kept in reserve. It does not know what is in the slots, but uses
//! the first bytes of free ones.

use crate::{CHUNK_BYTES, Memory};
use alloc::boxed::Box;
use alloc::vec::Vec;

const PAGE_BYTES: usize = 64 << 10;
const PAGES: usize = CHUNK_BYTES / PAGE_BYTES;
/// The set of all pages of a chunk.
const ALL_PAGES: u32 = u32::MAX;

const _: () = assert!(PAGES == 32);

const GRANULE: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;
/// References name so many chunks.
const CHUNKS_MAX: usize = (1 << 32) * GRANULE / CHUNK_BYTES;
/// Chunks that only `alloc_reserved` may begin: 64 MiB.
const CHUNKS_RESERVED: usize = 32;
const NONE: u32 = u32::MAX;

const PAGE_GRANULES: u32 = (PAGE_BYTES / GRANULE) as u32;
const CHUNK_GRANULES: u32 = (CHUNK_BYTES / GRANULE) as u32;

/// The largest slot, in bytes. Beyond it an allocation of its own wastes less than a class would.
pub(crate) const SLOT_BYTES_MAX: usize = 4096;
/// Up to here classes are 8 bytes apart, then an eighth of their size.
pub(crate) const FINE_BYTES_MAX: usize = 512;
const FINE: usize = FINE_BYTES_MAX / GRANULE;
const CLASSES: usize = count_classes();

const fn next_size(bytes: usize) -> usize {
    let next = if bytes < FINE_BYTES_MAX {
        bytes + GRANULE
    } else {
        (bytes + bytes / 8).next_multiple_of(GRANULE)
    };
    if next > SLOT_BYTES_MAX { SLOT_BYTES_MAX } else { next }
}

const fn count_classes() -> usize {
    let (mut bytes, mut n) = (GRANULE, 1);
    while bytes < SLOT_BYTES_MAX {
        bytes = next_size(bytes);
        n += 1;
    }
    n
}

/// The slot size of each class, in bytes. Padded to a power of two so that any byte may index it.
const BYTES_OF: [u16; 256] = {
    let mut table = [SLOT_BYTES_MAX as u16; 256];
    let (mut bytes, mut class) = (GRANULE, 0);
    while class < CLASSES {
        table[class] = bytes as u16;
        bytes = next_size(bytes);
        class += 1;
    }
    table
};

/// The class for a number of granules, rounded up.
const CLASS_OF: [u8; SLOT_BYTES_MAX / GRANULE + 1] = {
    let mut table = [0; SLOT_BYTES_MAX / GRANULE + 1];
    let (mut granules, mut class) = (0, 0);
    while granules < table.len() {
        if granules * GRANULE > BYTES_OF[class] as usize {
            class += 1;
        }
        table[granules] = class as u8;
        granules += 1;
    }
    table
};

const _: () = assert!(CLASSES <= 256 && BYTES_OF[FINE - 1] as usize == FINE_BYTES_MAX);

/// A size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// The smallest class of at least `bytes`, or `None` when that is too much for a slot.
    #[inline]
    pub(crate) fn for_bytes(bytes: usize) -> Option<Self> {
        CLASS_OF.get(bytes.div_ceil(GRANULE)).map(|&c| Self(c))
    }

    /// The size of its slots.
    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        BYTES_OF[self.0 as usize] as usize
    }

    const fn slots(self) -> u16 {
        (PAGE_BYTES / self.bytes()) as u16
    }
}

#[derive(Clone, Copy)]
struct Page {
    /// Slots in use.
    live: u16,
    /// Slots that were ever in use since the page got its class.
    carved: u16,
    /// The first free slot among the carved ones, plus one; 0 is none.
    free: u16,
    /// Neighbours in the list of pages of the class that have room.
    next: u32,
    previous: u32,
}

const UNUSED: Page = Page { live: 0, carved: 0, free: 0, next: NONE, previous: NONE };

#[derive(Clone, Copy)]
struct List {
    /// Allocations come from here; fuller pages are nearer to it.
    head: u32,
    tail: u32,
}

/// See the module.
pub(crate) struct Slab {
    /// `None` for a chunk that was given back.
    chunks: Vec<Option<&'static mut [u8; CHUNK_BYTES]>>,
    /// One byte per page, apart from the rest because every read needs it: 16 KiB for each GiB stays in cache.
    classes: Vec<u8>,
    #[expect(
        clippy::vec_box,
        reason = "growing the list must not copy half a kilobyte for each chunk"
    )]
    pages: Vec<Box<[Page; PAGES]>>,
    /// A bit per page that has no class, for each chunk that is there.
    unused: Vec<u32>,
    /// No chunk before this one has an unused page.
    unused_from: usize,
    released: Vec<u32>,
    /// Chunks without a used page that were not given back.
    idle_chunks: u32,
    lists: [List; CLASSES],
    live_bytes: u64,
    used_pages: u64,
}

impl Slab {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            classes: Vec::new(),
            pages: Vec::new(),
            unused: Vec::new(),
            unused_from: 0,
            released: Vec::new(),
            idle_chunks: 0,
            lists: [List { head: NONE, tail: NONE }; CLASSES],
            live_bytes: 0,
            used_pages: 0,
        }
    }

    /// Bytes of all slots in use.
    pub(crate) const fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the pages in use that no slot uses.
    pub(crate) const fn idle_bytes(&self) -> u64 {
        self.used_pages * PAGE_BYTES as u64 - self.live_bytes
    }

    /// Whether so much of the pages lies idle between used slots that moving records is worth it. Once every page but
    /// one of each class is three quarters full it is false again.
    pub(crate) const fn is_fragmented(&self) -> bool {
        self.idle_bytes() > self.live_bytes / 2 + (CLASSES * PAGE_BYTES) as u64
    }

    /// Whether the slot's page should be emptied: less than three quarters used, and not the page that takes what is
    /// moved out of it.
    pub(crate) fn is_sparse(&self, reference: u32) -> bool {
        let id = reference / PAGE_GRANULES;
        let class = Class(self.classes[id as usize]);
        self.page(id).live < class.slots() / 4 * 3 && self.lists[class.0 as usize].head != id
    }

    #[inline]
    pub(crate) fn class(&self, reference: u32) -> Class {
        Class(self.classes[(reference / PAGE_GRANULES) as usize])
    }

    /// The bytes of a slot in use.
    #[inline]
    pub(crate) fn get(&self, reference: u32) -> &[u8] {
        let start = (reference % CHUNK_GRANULES) as usize * GRANULE;
        let bytes = self.class(reference).bytes();
        match &self.chunks[(reference / CHUNK_GRANULES) as usize] {
            Some(chunk) => &chunk[start..start + bytes],
            None => gone(),
        }
    }

    /// The same, to write.
    #[inline]
    pub(crate) fn get_mut(&mut self, reference: u32) -> &mut [u8] {
        let start = (reference % CHUNK_GRANULES) as usize * GRANULE;
        let bytes = self.class(reference).bytes();
        match &mut self.chunks[(reference / CHUNK_GRANULES) as usize] {
            Some(chunk) => &mut chunk[start..start + bytes],
            None => gone(),
        }
    }

    /// Fetches the cache lines of a slot, the first four of a large one: what follows them comes by itself.
    #[inline]
    pub(crate) fn prefetch(&self, reference: u32) {
        let start = (reference % CHUNK_GRANULES) as usize * GRANULE;
        let end = start + self.class(reference).bytes().min(4 * LINE);
        if let Some(chunk) = &self.chunks[(reference / CHUNK_GRANULES) as usize] {
            // To the line that the last byte is in.
            for line in (start & !(LINE - 1)..end).step_by(LINE) {
                crate::prefetch::line(&chunk[line]);
            }
        }
    }

    fn page(&self, id: u32) -> &Page {
        &self.pages[id as usize / PAGES][id as usize % PAGES]
    }

    fn page_mut(&mut self, id: u32) -> &mut Page {
        &mut self.pages[id as usize / PAGES][id as usize % PAGES]
    }

    /// A slot with anything in it, or `None` when references have run out.
    pub(crate) fn alloc(&mut self, memory: &mut dyn Memory, class: Class) -> Option<u32> {
        self.alloc_up_to(memory, class, CHUNKS_MAX - CHUNKS_RESERVED)
    }

    /// The same for writes that cannot be refused.
    pub(crate) fn alloc_reserved(&mut self, memory: &mut dyn Memory, class: Class) -> Option<u32> {
        self.alloc_up_to(memory, class, CHUNKS_MAX)
    }

    #[inline]
    fn alloc_up_to(
        &mut self,
        memory: &mut dyn Memory,
        class: Class,
        chunks_max: usize,
    ) -> Option<u32> {
        let mut id = self.lists[class.0 as usize].head;
        if id == NONE {
            id = self.take_page(memory, class, chunks_max)?;
        }
        let bytes = class.bytes();
        let page = *self.page(id);
        let slot = if page.free == 0 { page.carved } else { page.free - 1 };
        let reference = id * PAGE_GRANULES + (slot as usize * bytes / GRANULE) as u32;
        let next_free = match page.free {
            0 => 0,
            _ => self.get(reference).first_chunk().map_or(0, |b: &[u8; 2]| u16::from_le_bytes(*b)),
        };
        let page = self.page_mut(id);
        page.carved += u16::from(page.free == 0);
        page.free = next_free;
        page.live += 1;
        if page.live == class.slots() {
            self.unlink(class, id);
        }
        self.live_bytes += bytes as u64;
        Some(reference)
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, memory: &mut dyn Memory, reference: u32) {
        let id = reference / PAGE_GRANULES;
        let class = Class(self.classes[id as usize]);
        let slot = ((reference % PAGE_GRANULES) as usize * GRANULE / class.bytes()) as u16;
        let next_free = self.page(id).free;
        self.get_mut(reference)[..2].copy_from_slice(&next_free.to_le_bytes());
        let slots = class.slots();
        let page = self.page_mut(id);
        page.free = slot + 1;
        page.live -= 1;
        let live = page.live;
        self.live_bytes -= class.bytes() as u64;
        if live + 1 == slots {
            self.link_head(class, id);
        }
        if live == 0 {
            self.unlink(class, id);
            self.give_back_page(memory, id);
        } else if live == slots / 2 {
            // It sank below half: others are filled first, so that it may empty.
            self.unlink(class, id);
            self.link_tail(class, id);
        }
    }

    /// Gives up to `max` chunks back with all that is in them, and says how many there were. The slab is of no use
    /// until there are none left, and then as good as new.
    pub(crate) fn dismantle(&mut self, memory: &mut dyn Memory, max: usize) -> usize {
        let mut given = 0;
        while given < max {
            match self.chunks.pop() {
                Some(Some(chunk)) => {
                    given += 1;
                    self.live_bytes -= self.live_bytes / (self.chunks.len() as u64 + 1);
                    memory.give_back(chunk);
                }
                Some(None) => {}
                None => {
                    *self = Self::new();
                    break;
                }
            }
            self.pages.pop();
        }
        given
    }

    fn take_page(
        &mut self,
        memory: &mut dyn Memory,
        class: Class,
        chunks_max: usize,
    ) -> Option<u32> {
        while self.unused_from < self.unused.len() && self.unused[self.unused_from] == 0 {
            self.unused_from += 1;
        }
        if self.unused_from == self.unused.len() {
            self.take_chunk(memory, chunks_max)?;
        }
        let chunk = self.unused_from;
        if self.unused[chunk] == ALL_PAGES {
            self.idle_chunks -= 1;
        }
        let page = self.unused[chunk].trailing_zeros();
        self.unused[chunk] &= !(1 << page);
        let id = (chunk * PAGES) as u32 + page;
        *self.page_mut(id) = UNUSED;
        self.classes[id as usize] = class.0;
        self.used_pages += 1;
        self.link_head(class, id);
        Some(id)
    }

    fn give_back_page(&mut self, memory: &mut dyn Memory, id: u32) {
        let chunk = id as usize / PAGES;
        self.unused[chunk] |= 1 << (id as usize % PAGES);
        self.unused_from = self.unused_from.min(chunk);
        self.used_pages -= 1;
        if self.unused[chunk] != ALL_PAGES {
            return;
        }
        if self.idle_chunks == 0 {
            self.idle_chunks = 1;
        } else if let Some(gone) = self.chunks[chunk].take() {
            memory.give_back(gone);
            self.unused[chunk] = 0;
            self.released.push(chunk as u32);
        }
    }

    /// Makes `unused_from` a chunk with unused pages.
    fn take_chunk(&mut self, memory: &mut dyn Memory, chunks_max: usize) -> Option<()> {
        if let Some(&chunk) = self.released.last() {
            self.chunks[chunk as usize] = Some(memory.take()?);
            self.released.pop();
            self.unused_from = chunk as usize;
            self.unused[chunk as usize] = ALL_PAGES;
        } else if self.chunks.len() < chunks_max {
            self.chunks.push(Some(memory.take()?));
            self.unused_from = self.chunks.len() - 1;
            self.pages.push(Box::new([UNUSED; PAGES]));
            self.unused.push(ALL_PAGES);
            self.classes.resize(self.chunks.len() * PAGES, 0);
        } else {
            return None;
        }
        self.idle_chunks += 1;
        Some(())
    }

    fn link_head(&mut self, class: Class, id: u32) {
        let head = self.lists[class.0 as usize].head;
        self.page_mut(id).next = head;
        self.page_mut(id).previous = NONE;
        match head {
            NONE => self.lists[class.0 as usize].tail = id,
            _ => self.page_mut(head).previous = id,
        }
        self.lists[class.0 as usize].head = id;
    }

    fn link_tail(&mut self, class: Class, id: u32) {
        let tail = self.lists[class.0 as usize].tail;
        self.page_mut(id).next = NONE;
        self.page_mut(id).previous = tail;
        match tail {
            NONE => self.lists[class.0 as usize].head = id,
            _ => self.page_mut(tail).next = id,
        }
        self.lists[class.0 as usize].tail = id;
    }

    fn unlink(&mut self, class: Class, id: u32) {
        let Page { next, previous, .. } = *self.page(id);
        match previous {
            NONE => self.lists[class.0 as usize].head = next,
            _ => self.page_mut(previous).next = next,
        }
        match next {
            NONE => self.lists[class.0 as usize].tail = previous,
            _ => self.page_mut(next).previous = previous,
        }
    }
}

#[cold]
fn gone() -> ! {
    unreachable!("no reference names a chunk that was given back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeapMemory;
    use alloc::collections::BTreeMap;

    #[test]
    fn a_class_wastes_at_most_an_eighth() {
        for bytes in 1..=SLOT_BYTES_MAX {
            let class = Class::for_bytes(bytes).expect("not too large");
            assert!(
                class.bytes() >= bytes && class.bytes() <= (bytes + 7).max(bytes + bytes / 8 + 8)
            );
        }
        assert_eq!(Class::for_bytes(SLOT_BYTES_MAX + 1), None);
    }

    #[test]
    fn slots_never_overlap_and_freed_ones_are_used_again() {
        let mut slab = Slab::new();
        let mut held: BTreeMap<u32, u8> = BTreeMap::new();
        let mut x = 1u64;
        for round in 0..200_000u32 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if held.len() > 3000 || (x >> 33).is_multiple_of(3) && !held.is_empty() {
                let pick = *held
                    .range((x >> 32) as u32..)
                    .next()
                    .or(held.first_key_value())
                    .expect("some")
                    .0;
                let mark = held.remove(&pick).expect("held");
                assert!(slab.get(pick).iter().all(|b| *b == mark), "slot {pick} was overwritten");
                slab.free(&mut HeapMemory, pick);
            } else {
                let class = Class::for_bytes(1 + (x >> 40) as usize % 700).expect("small");
                let reference = slab.alloc(&mut HeapMemory, class).expect("room");
                assert_eq!(slab.get(reference).len(), class.bytes());
                slab.get_mut(reference).fill(round as u8);
                assert!(held.insert(reference, round as u8).is_none());
            }
        }
        assert!(slab.chunks.len() < 8, "{} chunks", slab.chunks.len());
        for (reference, mark) in held {
            assert!(slab.get(reference).iter().all(|b| *b == mark));
            slab.free(&mut HeapMemory, reference);
        }
        assert_eq!((slab.live_bytes, slab.used_pages), (0, 0));
        assert_eq!(slab.chunks.iter().filter(|c| c.is_some()).count(), 1);
    }
}
