//! Memory that counts what is out and fills what it hands out with garbage, so that a table that relies on zeros or
//! forgets to give back is found out.

use dkv_table::{CHUNK_BYTES, HeapMemory, Memory, Region};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Chunks and regions that are out, and how many may be.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    chunks: Arc<AtomicI64>,
    regions: Arc<AtomicI64>,
    max: i64,
}

impl Default for Out {
    fn default() -> Self {
        Self::up_to(i64::MAX)
    }
}

impl Out {
    /// A system with so many chunks, and as many regions.
    pub(crate) fn up_to(max: i64) -> Self {
        Self { chunks: Arc::default(), regions: Arc::default(), max }
    }

    pub(crate) fn chunks(&self) -> i64 {
        self.chunks.load(Ordering::Relaxed)
    }

    pub(crate) fn regions(&self) -> i64 {
        self.regions.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counted(pub(crate) Out);

#[derive(Debug)]
struct CountedRegion(Box<dyn Region>, Out);

impl Memory for Counted {
    fn take(&mut self) -> Option<&'static mut [u8; CHUNK_BYTES]> {
        if self.0.chunks() == self.0.max {
            return None;
        }
        let chunk = HeapMemory.take()?;
        chunk.fill(0xa5);
        self.0.chunks.fetch_add(1, Ordering::Relaxed);
        Some(chunk)
    }

    fn give_back(&mut self, chunk: &'static mut [u8; CHUNK_BYTES]) {
        self.0.chunks.fetch_sub(1, Ordering::Relaxed);
        HeapMemory.give_back(chunk);
    }

    fn map(&mut self, bytes: usize) -> Option<Box<dyn Region>> {
        if self.0.regions() == self.0.max {
            return None;
        }
        self.0.regions.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(CountedRegion(HeapMemory.map(bytes)?, self.0.clone())))
    }
}

impl Region for CountedRegion {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    fn resize(&mut self, bytes: usize) -> bool {
        self.0.resize(bytes)
    }
}

impl Drop for CountedRegion {
    fn drop(&mut self) {
        self.1.regions.fetch_sub(1, Ordering::Relaxed);
    }
}
