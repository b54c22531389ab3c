//! Receive buffers: memory that the kernel fills without being told beforehand for which connection.
//!
//! The kernel takes buffers from a small ring shared with it, first in, first out. If all of them went round, every page
//! would soon be touched, so only a few circulate at first; the others join, doubling, when the kernel ran out. An idle
//! node thus keeps its few warm pages and a busy one gets all of them.
//!
//! A buffer is in exactly one of three hands: the kernel's (in the ring), the driver's (a [`Chunk`]), or the reserve's.
//! Where the kernel fills a buffer in pieces, kernel and driver have it together, each its own part: every completion tells
//! of the next piece, and the last one that the kernel is done with the buffer. It goes back into the ring when the kernel
//! is done and all the pieces are given back.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::Chunk;
use crate::mapping::{self, Mapping};

/// The buffer groups of a ring.
pub(super) const SMALL_GROUP: u16 = 0;
pub(super) const GREAT_GROUP: u16 = 1;
/// `IOU_PBUF_RING_INC`.
const IN_PIECES: u16 = 2;

/// Whether a buffer is for one receive or for as many as fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    Whole,
    InPieces,
}

/// How many buffers, how large, and how many circulate at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) count: u16,
    pub(super) bytes: usize,
    pub(super) at_first: u16,
}

/// How far a buffer that is filled in pieces is.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// Bytes that the kernel has filled.
    filled: u32,
    /// Pieces in the driver's hand.
    out: u32,
    /// The kernel is done with it.
    done: bool,
}

pub(super) struct Pool {
    /// Whose the chunks are.
    id: u32,
    filling: Filling,
    /// Of each buffer, if they are filled in pieces.
    parts: Vec<Parts>,
    buffers: Mapping,
    ring: Mapping,
    buffer_bytes: usize,
    /// A power of two.
    count: u16,
    /// Our own copy of the ring's tail, ahead of the published one until [`Pool::publish`].
    tail: u16,
    published: u16,
    /// In the kernel's hand.
    in_kernel: u16,
    /// In the kernel's or the driver's hand.
    circulating: u16,
}

impl Pool {
    /// Maps and registers the buffers.
    ///
    /// # Errors
    /// `EINVAL`: the kernel cannot fill buffers in this way.
    pub(super) fn new(
        owner: &Ring,
        group: u16,
        sizes: &Sizes,
        filling: Filling,
    ) -> io::Result<Self> {
        let Sizes { count, bytes, at_first } = *sizes;
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        let (flags, counted) = match filling {
            Filling::Whole => (0, 0),
            Filling::InPieces => (IN_PIECES, usize::from(count)),
        };
        let pool = Self {
            id: mapping::next_pool(),
            filling,
            parts: vec![Parts::default(); counted],
            buffers: Mapping::new(usize::from(count) * bytes)?,
            ring: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            buffer_bytes: bytes,
            count,
            tail: 0,
            published: 0,
            in_kernel: 0,
            circulating: 0,
        };
        let address = pool.ring.start() as u64;
        let submitter = owner.submitter();
        // SAFETY: the address is page-aligned, holds `count` zeroed entries, and stays mapped until the owner is closed:
        // the reactor's fields drop in that order.
        unsafe { submitter.register_buf_ring_with_flags(address, count, group, flags) }?;
        let mut pool = pool;
        pool.circulate(at_first.clamp(1, count));
        pool.publish();
        Ok(pool)
    }

    fn circulate(&mut self, wanted: u16) {
        for buffer in self.circulating..wanted {
            self.provide(buffer);
        }
        self.circulating = self.circulating.max(wanted);
    }

    /// The kernel ran out: let more circulate, if there are more.
    pub(super) fn grow(&mut self) {
        self.circulate(self.circulating.saturating_mul(2).min(self.count));
    }

    /// Buffers in the kernel's hand, those about to be published included.
    pub(super) fn available(&self) -> usize {
        usize::from(self.in_kernel)
    }

    /// Buffers that go round; the others were never touched.
    #[cfg(all(test, not(loom)))]
    pub(super) fn circulating(&self) -> u16 {
        self.circulating
    }

    /// Bytes of the buffers that are in memory.
    #[cfg(all(test, not(loom)))]
    pub(super) fn touched(&self) -> usize {
        let mut pages = vec![0_u8; self.buffers.len() / 4096];
        let start = self.buffers.start().cast();
        // SAFETY: mincore(2) writes one byte for each page of the mapping.
        let done = unsafe { libc::mincore(start, self.buffers.len(), pages.as_mut_ptr()) };
        assert_eq!(done, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count() * 4096
    }

    pub(super) fn describe(&self) -> String {
        let kind = match self.filling {
            Filling::Whole => "pbuf",
            Filling::InPieces => "pbuf_inc",
        };
        format!("{kind}({}x{}KiB)", self.count, self.buffer_bytes / 1024)
    }

    /// Whether buffers are filled in pieces.
    pub(super) fn is_in_pieces(&self) -> bool {
        self.filling == Filling::InPieces
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count, "buffer {buffer} of {}", self.count);
        // SAFETY: `buffer < count`, and the mapping holds `count * buffer_bytes` bytes.
        unsafe { self.buffers.start().add(usize::from(buffer) * self.buffer_bytes) }
    }

    /// Puts a buffer at the ring's tail, not yet visible.
    fn provide(&mut self, buffer: u16) {
        let start = self.start_of(buffer);
        let place = usize::from(self.tail & (self.count - 1));
        let entries: *mut BufRingEntry = self.ring.start().cast();
        // SAFETY: `place < count`, and the mapping holds `count` entries.
        let entry = unsafe { entries.add(place) };
        // SAFETY: aligned, mapped and zeroed or written before; the kernel does not look at entries from the published tail
        // on, and at most `count` buffers exist, so this is one of those.
        let entry = unsafe { &mut *entry };
        entry.set_addr(start as u64);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.in_kernel += 1;
    }

    /// Shows the kernel what was given back, in one store.
    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        let entries: *const BufRingEntry = self.ring.start().cast();
        // SAFETY: `entries` is the first entry of the registered ring, zeroed at least.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: the tail is two aligned bytes inside the mapping, writable because the mapping is, and shared with the
        // kernel alone, which reads it with acquire order.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries must be visible before the tail that includes them.
        tail.store(self.tail, Ordering::Release);
    }

    /// The kernel filled a buffer, or a piece of it if it wants to go on with it (`more`), and named it in a completion.
    pub(super) fn taken(&mut self, buffer: u16, bytes: u32, more: bool) -> Chunk {
        assert!(buffer < self.circulating, "buffer {buffer} was not given to the kernel");
        let (mut offset, mut done) = (0, true);
        if let Some(parts) = self.parts.get_mut(usize::from(buffer)) {
            offset = parts.filled;
            parts.filled += bytes;
            parts.out += 1;
            parts.done |= !more;
            done = !more;
        }
        assert!(
            offset as usize + bytes as usize <= self.buffer_bytes,
            "{bytes} bytes from {offset} on"
        );
        self.in_kernel -= u16::from(done);
        Chunk { pool: self.id, offset, length: bytes, buffer }
    }

    pub(super) fn owns(&self, chunk: &Chunk) -> bool {
        chunk.pool == self.id
    }

    pub(super) fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        assert!(self.owns(chunk), "a chunk is read by the reactor that received it");
        let start = self.start_of(chunk.buffer);
        // SAFETY: `taken` has seen that offset and length lie in the buffer.
        let start = unsafe { start.add(chunk.offset as usize) };
        // SAFETY: the kernel wrote `length` bytes there and gave this part of the buffer up with its completion (it goes on
        // behind it, if at all); it gets the buffer again only when all its chunks are given back, and the slice borrows one.
        unsafe { std::slice::from_raw_parts(start, chunk.len()) }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the chunk ends here: nobody may read it now"
    )]
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        assert!(self.owns(&chunk), "a chunk goes back to the reactor it came from");
        if let Some(parts) = self.parts.get_mut(usize::from(chunk.buffer)) {
            parts.out -= 1;
            if !parts.done || parts.out > 0 {
                return;
            }
            *parts = Parts::default();
        }
        self.provide(chunk.buffer);
    }

    /// Keeps the memory for good, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.buffers.leak();
        self.ring.leak();
    }
}
