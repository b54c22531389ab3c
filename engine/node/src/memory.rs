//! A shard's memory, as its table wants it: huge pages that are populated ahead and given back by another thread.
//!
//! The table says what it needs in [`dkv_table::Memory`] and knows no kernel; `dkv-io` has it and knows no tables.

use dkv_io::memory::{self, Mapped, ShardMemory};
use dkv_table::{Memory, Region};

const _: () = assert!(memory::CHUNK_BYTES == dkv_table::CHUNK_BYTES, "chunks are handed through");

/// The memory of one shard of this node. Public for the benchmark of the table, which measures what a node runs on.
#[derive(Debug)]
pub struct NodeMemory(pub ShardMemory);

impl Memory for NodeMemory {
    fn take(&mut self) -> Option<&'static mut [u8; dkv_table::CHUNK_BYTES]> {
        self.0.take()
    }

    fn give_back(&mut self, chunk: &'static mut [u8; dkv_table::CHUNK_BYTES]) {
        self.0.give_back(chunk);
    }

    fn map(&mut self, bytes: usize) -> Option<Box<dyn Region>> {
        Some(Box::new(NodeRegion(self.0.map(bytes)?)))
    }
}

#[derive(Debug)]
struct NodeRegion(Mapped);

impl Region for NodeRegion {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    fn clear(&mut self, part: std::ops::Range<usize>) {
        self.0.clear(part);
    }

    fn resize(&mut self, bytes: usize) -> bool {
        self.0.resize(bytes)
    }
}
