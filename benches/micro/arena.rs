//! Memory for a table under measurement as a node gives it: huge pages, populated ahead by the keeper thread.

use dkv_io::memory::{Arena, Mapped, ShardMemory};
use dkv_table::{CHUNK_BYTES, Memory, Region};

/// Memory of one shard, and what keeps it coming.
#[derive(Debug)]
pub(crate) struct Huge {
    memory: ShardMemory,
    /// Ends its thread when it is dropped, so it lives as long as the table.
    _arena: Arena,
}

#[derive(Debug)]
struct Mapping(Mapped);

impl Huge {
    /// For one table.
    pub(crate) fn new() -> Self {
        let arena = Arena::new(1).expect("a thread");
        Self { memory: arena.shard(0), _arena: arena }
    }
}

impl Memory for Huge {
    fn take(&mut self) -> Option<&'static mut [u8; CHUNK_BYTES]> {
        self.memory.take()
    }

    fn give_back(&mut self, chunk: &'static mut [u8; CHUNK_BYTES]) {
        self.memory.give_back(chunk);
    }

    fn map(&mut self, bytes: usize) -> Option<Box<dyn Region>> {
        self.memory.map(bytes).map(|mapped| Box::new(Mapping(mapped)) as Box<dyn Region>)
    }
}

impl Region for Mapping {
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
