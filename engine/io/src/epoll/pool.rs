//! Receive buffers. The one that came back last is used next: so a reactor touches no more of them than were ever in use
//! at a time, and those it uses are warm.
//!
//! A buffer is in exactly one of three hands: free here, being filled by a receive on this thread, or the driver's (a
//! [`Chunk`]). The kernel keeps none of them over a call.

use std::io;

use crate::Chunk;
use crate::mapping::{self, Private};

/// A buffer that is taken and not yet filled.
#[must_use = "a buffer that is dropped is lost to its pool"]
#[derive(Debug)]
pub(super) struct Buffer(u16);

pub(super) struct Pool {
    /// Whose the chunks are.
    id: u32,
    memory: Private,
    buffer_bytes: usize,
    count: u16,
    /// Not in use, the last one to be used next.
    free: Vec<u16>,
}

impl Pool {
    /// Maps the buffers.
    pub(super) fn new(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let bytes = usize::from(count) * buffer_bytes;
        // Lengths of pieces are 32 bits, and a pool that cannot be indexed in a machine word is a mistake of its maker.
        assert!(count > 0 && buffer_bytes > 0 && u32::try_from(bytes).is_ok(), "{bytes} bytes");
        Ok(Self {
            id: mapping::next_pool(),
            memory: Private::new(bytes)?,
            buffer_bytes,
            count,
            free: (0..count).rev().collect(),
        })
    }

    /// A buffer to receive into; none is free.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        self.free.pop().map(Buffer)
    }

    /// The bytes of a buffer that was taken.
    pub(super) fn room(&mut self, buffer: &Buffer) -> &mut [u8] {
        let start = usize::from(buffer.0) * self.buffer_bytes;
        &mut self.memory.bytes_mut()[start..start + self.buffer_bytes]
    }

    /// So many bytes came into it.
    pub(super) fn filled(&self, Buffer(number): Buffer, bytes: usize) -> Chunk {
        assert!((1..=self.buffer_bytes).contains(&bytes), "{bytes} bytes in one buffer");
        Chunk { pool: self.id, offset: 0, length: bytes as u32, buffer: number }
    }

    /// Nothing came into it.
    pub(super) fn unused(&mut self, Buffer(number): Buffer) {
        self.free.push(number);
    }

    pub(super) fn owns(&self, chunk: &Chunk) -> bool {
        chunk.pool == self.id
    }

    pub(super) fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        assert!(self.owns(chunk), "a chunk is read by the reactor that received it");
        let start = usize::from(chunk.buffer) * self.buffer_bytes;
        &self.memory.bytes()[start..start + chunk.len()]
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the chunk ends here: nobody may read it now"
    )]
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        assert!(self.owns(&chunk), "a chunk goes back to the reactor it came from");
        self.free.push(chunk.buffer);
    }

    /// Whether a receive would find a buffer.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Buffers that are in nobody's hand.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_whole(&self) -> bool {
        let mut free = self.free.clone();
        free.sort_unstable();
        free.iter().copied().eq(0..self.count)
    }

    pub(super) fn describe(&self) -> String {
        format!("{}x{}KiB", self.count, self.buffer_bytes / 1024)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("free", &self.free.len()).finish_non_exhaustive()
    }
}
