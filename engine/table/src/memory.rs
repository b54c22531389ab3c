//! Where a table's memory comes from: chunks for its segments and its slab, regions for huge values.
//!
//! The table never asks the system itself: huge pages, memory touched ahead and giving back without a stall are the
//! business of whoever implements [`Memory`]. [`HeapMemory`] is for tests and tools.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;
use crossbeam_queue::SegQueue;

/// Bytes of a chunk: a huge page.
pub const CHUNK_BYTES: usize = 2 << 20;

/// Where a table's memory comes from.
pub trait Memory: Send + Debug {
    /// A chunk with anything in it, aligned to a page of 4096 bytes at least. `None`: the system has no more.
    fn take(&mut self) -> Option<&'static mut [u8; CHUNK_BYTES]>;
    /// Takes a chunk back that came from here.
    fn give_back(&mut self, chunk: &'static mut [u8; CHUNK_BYTES]);
    /// A region of its own for a huge value.
    fn map(&mut self, bytes: usize) -> Option<Box<dyn Region>>;
}

/// Memory for one huge value. It grows without copying, and dropping it costs this thread next to nothing.
pub trait Region: Send + Sync + Debug {
    /// All of its capacity. What was never written may be anything.
    fn bytes(&self) -> &[u8];
    /// The same, to write.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes a part of it zero: at once, however long it is, where whole pages can be exchanged for untouched ones.
    fn clear(&mut self, part: Range<usize>) {
        self.bytes_mut()[part].fill(0);
    }
    /// Changes its capacity; the contents stay. False: there is no memory, and nothing was changed.
    fn resize(&mut self, bytes: usize) -> bool;
}

/// Chunks that nobody uses, of all tables of the process. They are cut from allocations that live for ever, which is
/// why they are not given back to the system.
static POOL: SegQueue<&'static mut [u8; CHUNK_BYTES]> = SegQueue::new();
/// Chunks that are allocated together.
const TOGETHER: usize = 8;

/// Memory from the global allocator, for tests and tools. Chunks are huge pages where the system makes any.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

impl Memory for HeapMemory {
    fn take(&mut self) -> Option<&'static mut [u8; CHUNK_BYTES]> {
        if let Some(chunk) = POOL.pop() {
            return Some(chunk);
        }
        // Zeroed and more than asked for, because that comes untouched from the system: only what is used is resident.
        let bytes = Vec::leak(alloc::vec![0; (TOGETHER + 1) * CHUNK_BYTES]);
        let start = bytes.as_ptr().align_offset(CHUNK_BYTES);
        let (mut chunks, _) = bytes.get_mut(start..)?.as_chunks_mut::<CHUNK_BYTES>();
        while let Some((chunk, rest)) = chunks.split_first_mut() {
            POOL.push(chunk);
            chunks = rest;
        }
        POOL.pop()
    }

    fn give_back(&mut self, chunk: &'static mut [u8; CHUNK_BYTES]) {
        POOL.push(chunk);
    }

    fn map(&mut self, bytes: usize) -> Option<Box<dyn Region>> {
        Some(Box::new(HeapRegion(alloc::vec![0; bytes])))
    }
}

#[derive(Debug)]
struct HeapRegion(Vec<u8>);

impl Region for HeapRegion {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn resize(&mut self, bytes: usize) -> bool {
        if self.0.try_reserve_exact(bytes.saturating_sub(self.0.len())).is_err() {
            return false;
        }
        self.0.resize(bytes, 0);
        self.0.shrink_to_fit();
        true
    }
}
