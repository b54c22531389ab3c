//! Memory for tables: chunks of one huge page, touched before they are needed, and mappings of their own for great values.
//!
//! The first touch of a huge page is the longest pause that a shard would otherwise have (the kernel zeroes 2 MiB), giving
//! memory back the second longest. Both are done by one thread of the node, the keeper: it has one chunk populated ahead
//! for each shard that has taken any, and takes apart what the shards let go of, in slices, so that the lock on the
//! address space is never held for long. A shard that takes or gives back a chunk does a few atomic operations and at
//! most one wake-up; when the keeper is late, it gets a chunk on small pages that are yet to be touched, and the keeper
//! makes a huge page of them later. Mappings are on small pages, which whoever fills them touches.
//!
//! It does not know what is kept in the memory.

mod allocator;
mod chunk;
mod keeper;
mod mapped;
mod pages;
#[cfg(all(test, not(loom)))]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chunk::Chunk;
use keeper::Handle;

pub use allocator::give_back_unused;
pub use mapped::Mapped;
pub use pages::CHUNK_BYTES;

/// Where the memory of a node's shards comes from. One for each process; made before the shards.
///
/// The keeper ends, and the memory goes, when the arena and everything that came from it are dropped. A chunk that was
/// never given back stays mapped, because its borrower has it for good.
#[derive(Debug)]
pub struct Arena {
    handle: Arc<Handle>,
}

/// What an arena has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Chunks taken by shards.
    pub taken: u64,
    /// Those of them which the keeper had not populated in time.
    pub late: u64,
    /// Chunks given back.
    pub given_back: u64,
    /// Bytes returned to the kernel.
    pub released_bytes: u64,
}

impl Arena {
    /// An arena for so many shards, and its keeper thread. It populates a chunk ahead for each shard that has taken one:
    /// those that nobody writes to hold nothing.
    ///
    /// # Errors
    /// There is no address space or no thread.
    pub fn new(shards: usize) -> io::Result<Self> {
        pages::allow_huge();
        Ok(Self { handle: Handle::start(shards)? })
    }

    /// The memory of one shard, numbered from 0.
    ///
    /// # Panics
    /// If the arena has fewer shards.
    pub fn shard(&self, shard: usize) -> ShardMemory {
        assert!(shard < self.handle.shared().ready.len(), "shard {shard} of an arena");
        ShardMemory { handle: Arc::clone(&self.handle), shard, kept: None }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let counts = &self.handle.shared().counts;
        Counts {
            taken: counts.taken.load(Ordering::Relaxed),
            late: counts.late.load(Ordering::Relaxed),
            given_back: counts.given_back.load(Ordering::Relaxed),
            released_bytes: counts.released_bytes.load(Ordering::Relaxed),
        }
    }
}

/// One shard's way to the arena. Belongs to the shard's thread.
#[derive(Debug)]
pub struct ShardMemory {
    handle: Arc<Handle>,
    shard: usize,
    /// The chunk given back last: a table that shrinks and grows by one does not bother anybody.
    kept: Option<Chunk>,
}

impl ShardMemory {
    /// A chunk, aligned to its size, with anything in it. `None`: the system has no more.
    pub fn take(&mut self) -> Option<&'static mut [u8; CHUNK_BYTES]> {
        let shared = self.handle.shared();
        let chunk = self.kept.take().or_else(|| shared.take(self.shard))?;
        shared.counts.taken.fetch_add(1, Ordering::Relaxed);
        Some(chunk.lend())
    }

    /// Gives a chunk back. The kernel gets it soon, but not from this thread.
    pub fn give_back(&mut self, memory: &'static mut [u8; CHUNK_BYTES]) {
        let shared = self.handle.shared();
        // What did not come from an arena is not aligned like this, except by chance, and then it does no harm.
        let Some(chunk) = Chunk::returned(memory) else {
            debug_assert!(false, "a chunk that is not aligned was never taken here");
            return;
        };
        shared.counts.given_back.fetch_add(1, Ordering::Relaxed);
        if self.kept.is_none() {
            self.kept = Some(chunk);
        } else {
            shared.give_back(chunk);
        }
    }

    /// A mapping of its own of at least so many bytes, with anything in it. It takes memory by the page as it is filled; one
    /// that was dropped a moment ago, and is used again, has its pages still. `None`: the system has no more memory,
    /// address space or mappings (`vm.max_map_count`).
    pub fn map(&mut self, bytes: usize) -> Option<Mapped> {
        Mapped::new(Arc::clone(&self.handle), bytes).ok()
    }
}

impl Drop for ShardMemory {
    fn drop(&mut self) {
        if let Some(chunk) = self.kept.take() {
            self.handle.shared().give_back(chunk);
        }
    }
}
