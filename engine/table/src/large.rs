//! Large values: each in memory of its own, shared with whoever sends it, counted for as long as anybody holds it.
//!
//! Up to [`HEAP_BYTES_MAX`] that memory is the allocator's, beyond it a region of the table's [`Memory`], which grows
//! without copying and goes away without a stall. A value is written by its only holder or not at all: one that is
//! shared is copied first.

use crate::OutOfMemory;
use crate::memory::{Memory, Region};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering};

/// From this length on it pays to receive a value into its final place and to send it without a copy.
pub const LARGE_BYTES_MIN: usize = 16 * 1024;
/// Longer values live in a region.
pub const HEAP_BYTES_MAX: usize = 1 << 20;
/// What a large value costs beside its bytes: two allocations, its place in the table, and what they are rounded up by.
pub(crate) const OVERHEAD_BYTES: u64 = 128;
/// Regions are touched by the page.
const PAGE_BYTES: usize = 4096;

/// What comes to the end of a value: zeros, then bytes.
#[derive(Clone, Copy)]
pub(crate) struct Tail<'a> {
    pub(crate) zeros: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Tail<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self { zeros: 0, bytes }
    }

    pub(crate) const fn len(self) -> usize {
        self.zeros + self.bytes.len()
    }

    /// Writes it to the end of a list that is reserved, or small.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.zeros, 0);
        out.extend_from_slice(self.bytes);
    }
}

/// Counts the bytes of the large values of one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(crate) fn bytes(&self) -> u64 {
        // Values are dropped by the thread of the table, or a moment later by nobody else's business: no order is needed.
        self.0.load(Ordering::Relaxed)
    }

    fn change(&self, before: u64, after: u64) {
        self.0.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Store {
    Heap(Vec<u8>),
    /// A region, how much of it is the value, and how much of it was ever touched.
    Mapped(Box<dyn Region>, usize, usize),
}

/// A value's memory, with what the meter has counted of it.
#[derive(Debug)]
pub(crate) struct Body {
    store: Store,
    held: u64,
    /// Whether it is being received: what was announced and has not come is not counted, or announcing would be enough to
    /// use up the memory of others.
    receiving: bool,
    meter: Meter,
}

/// What a value of this length will hold in memory.
pub(crate) const fn cost_of(len: usize) -> u64 {
    OVERHEAD_BYTES
        + if len > HEAP_BYTES_MAX { len.next_multiple_of(PAGE_BYTES) as u64 } else { len as u64 }
}

impl Body {
    /// Empty, with room for so many bytes. Its memory is touched when it is filled.
    pub(crate) fn new(
        memory: &mut dyn Memory,
        meter: &Meter,
        bytes: usize,
    ) -> Result<Self, OutOfMemory> {
        let store = if bytes > HEAP_BYTES_MAX {
            Store::Mapped(memory.map(bytes).ok_or(OutOfMemory)?, 0, 0)
        } else {
            let mut heap = Vec::new();
            heap.try_reserve_exact(bytes).map_err(|_| OutOfMemory)?;
            Store::Heap(heap)
        };
        let mut body = Self { store, held: 0, receiving: false, meter: meter.clone() };
        body.count();
        Ok(body)
    }

    /// Tells the meter what it holds now.
    fn count(&mut self) {
        let held = OVERHEAD_BYTES
            + match &self.store {
                Store::Heap(heap) if self.receiving => heap.len() as u64,
                Store::Heap(heap) => heap.capacity() as u64,
                Store::Mapped(_, _, touched) => touched.next_multiple_of(PAGE_BYTES) as u64,
            };
        self.meter.change(self.held, held);
        self.held = held;
    }

    /// Begins or ends to be received.
    fn receive(&mut self, receiving: bool) {
        self.receiving = receiving;
        self.count();
    }

    fn bytes(&self) -> &[u8] {
        match &self.store {
            Store::Heap(heap) => heap,
            Store::Mapped(region, len, _) => &region.bytes()[..*len],
        }
    }

    fn capacity(&self) -> usize {
        match &self.store {
            Store::Heap(heap) => heap.capacity(),
            Store::Mapped(region, ..) => region.bytes().len(),
        }
    }

    /// Adds what there is room for.
    pub(crate) fn extend(&mut self, tail: &[u8]) {
        match &mut self.store {
            Store::Heap(heap) => heap.extend_from_slice(tail),
            Store::Mapped(region, len, touched) => {
                region.bytes_mut()[*len..*len + tail.len()].copy_from_slice(tail);
                *len += tail.len();
                *touched = (*touched).max(*len);
            }
        }
        self.count();
    }

    /// Adds what there is room for.
    fn extend_by(&mut self, tail: Tail<'_>) {
        match &mut self.store {
            Store::Heap(heap) => heap.resize(heap.len() + tail.zeros, 0),
            Store::Mapped(region, len, touched) => {
                region.clear(*len..*len + tail.zeros);
                *len += tail.zeros;
                *touched = (*touched).max(*len);
            }
        }
        self.extend(tail.bytes);
    }

    /// Puts other bytes in the place of some.
    fn patch(&mut self, offset: usize, bytes: &[u8]) {
        let all = match &mut self.store {
            Store::Heap(heap) => &mut heap[..],
            Store::Mapped(region, len, _) => &mut region.bytes_mut()[..*len],
        };
        all[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Another value in the same memory, if it fits and does not leave more than half of it empty.
    pub(crate) fn rewrite(&mut self, value: &[u8]) -> bool {
        let (least, most) = match &self.store {
            Store::Heap(heap) => (heap.capacity() / 2, heap.capacity()),
            Store::Mapped(region, _, touched) => {
                ((touched / 2).max(HEAP_BYTES_MAX), region.bytes().len())
            }
        };
        let fits = (least..=most).contains(&value.len());
        if fits {
            match &mut self.store {
                Store::Heap(heap) => heap.clear(),
                Store::Mapped(_, len, _) => *len = 0,
            }
            self.extend(value);
        }
        fits
    }

    /// Adds to the end; what it holds may grow by `room`. Returns how many bytes were copied to other memory for it.
    fn append(
        &mut self,
        memory: &mut dyn Memory,
        tail: Tail<'_>,
        room: u64,
    ) -> Result<usize, OutOfMemory> {
        let (len, before) = (self.bytes().len(), self.capacity());
        let wanted = len + tail.len();
        if wanted <= before {
            if cost_of(wanted).saturating_sub(self.held) > room && self.is_mapped() {
                return Err(OutOfMemory);
            }
            self.extend_by(tail);
            return Ok(0);
        }
        let needed = cost_of(wanted).saturating_sub(self.held);
        let spare = spare_within(wanted, room.checked_sub(needed).ok_or(OutOfMemory)?);
        match &mut self.store {
            Store::Mapped(region, ..) => {
                // Room that nobody touches costs nothing.
                let bytes = (wanted + spare_for(wanted)).next_multiple_of(PAGE_BYTES);
                if !region.resize(bytes) {
                    return Err(OutOfMemory);
                }
                self.extend_by(tail);
                Ok(0)
            }
            Store::Heap(heap) if wanted + spare <= HEAP_BYTES_MAX => {
                heap.try_reserve_exact(tail.len() + spare).map_err(|_| OutOfMemory)?;
                tail.write(heap);
                self.count();
                Ok(len)
            }
            Store::Heap(heap) => {
                let bytes = (wanted + spare_for(wanted)).max(HEAP_BYTES_MAX + 1);
                let mut other = Self::new(memory, &self.meter, bytes)?;
                other.extend(heap);
                other.extend_by(tail);
                *self = other;
                Ok(len)
            }
        }
    }

    const fn is_mapped(&self) -> bool {
        matches!(self.store, Store::Mapped(..))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.meter.change(self.held, 0);
    }
}

/// Room to leave behind a value that grows, so that growing by small steps copies each byte a few times only.
pub(crate) const fn spare_for(len: usize) -> usize {
    len / 4
}

/// The same when what may be used beside is limited: half of it at most. Still few copies, and others get the other half.
pub(crate) fn spare_within(len: usize, left: u64) -> usize {
    (spare_for(len) as u64).min(left / 2) as usize
}

/// A value that is being received. Made by [`Table::block`](crate::Table::block).
#[derive(Debug)]
pub struct Block {
    body: Body,
    capacity: usize,
}

impl Block {
    pub(crate) fn new(mut body: Body, capacity: usize) -> Self {
        body.receive(true);
        Self { body, capacity }
    }

    /// Bytes that have come.
    pub fn len(&self) -> usize {
        self.body.bytes().len()
    }

    /// Whether none have.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it was made for.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds bytes, never more than its capacity.
    pub fn extend(&mut self, bytes: &[u8]) {
        let left = self.capacity - self.len();
        debug_assert!(bytes.len() <= left, "{} bytes where {left} are left", bytes.len());
        self.body.extend(&bytes[..bytes.len().min(left)]);
    }

    /// The value.
    pub fn freeze(mut self) -> Large {
        self.body.receive(false);
        Large(Arc::new(self.body))
    }
}

/// A large value, as a handle: cloning it copies no bytes, and nobody changes it while it is shared.
#[derive(Clone)]
pub struct Large(Arc<Body>);

impl Default for Large {
    /// No bytes, and nothing that counts them: what stands for a value that was not kept.
    fn default() -> Self {
        let meter = Meter::default();
        Self(Arc::new(Body { store: Store::Heap(Vec::new()), held: 0, receiving: false, meter }))
    }
}

impl Large {
    /// The same bytes as a [`bytes::Bytes`], without a copy. They are kept for as long as it lives.
    pub fn share(&self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self.clone())
    }

    /// A value made at once.
    pub(crate) fn from_parts(
        memory: &mut dyn Memory,
        meter: &Meter,
        value: &[u8],
        tail: Tail<'_>,
        spare: usize,
    ) -> Result<Self, OutOfMemory> {
        let mut body = Body::new(memory, meter, value.len() + tail.len() + spare)?;
        body.extend(value);
        body.extend_by(tail);
        Ok(Self(Arc::new(body)))
    }

    /// What goes away with this handle, in bytes: nothing when there are others.
    pub(crate) fn cost(&self) -> u64 {
        if Arc::strong_count(&self.0) == 1 { self.0.held } else { 0 }
    }

    /// What the value holds, whoever has handles.
    pub(crate) fn held(&self) -> u64 {
        self.0.held
    }

    /// Lets this meter count it from now on, if nobody else has a handle.
    pub(crate) fn move_to(&mut self, meter: &Meter) {
        if let Some(body) = Arc::get_mut(&mut self.0)
            && !Arc::ptr_eq(&body.meter.0, &meter.0)
        {
            body.meter.change(body.held, 0);
            body.meter = meter.clone();
            body.meter.change(0, body.held);
        }
    }

    /// See [`Body::rewrite`]; not while it is shared.
    pub(crate) fn rewrite(&mut self, value: &[u8]) -> bool {
        Arc::get_mut(&mut self.0).is_some_and(|body| body.rewrite(value))
    }

    /// See [`Body::append`]. A value that is shared is copied, and the others keep what they have.
    pub(crate) fn append(
        &mut self,
        memory: &mut dyn Memory,
        tail: Tail<'_>,
        room: u64,
    ) -> Result<usize, OutOfMemory> {
        if let Some(body) = Arc::get_mut(&mut self.0) {
            return body.append(memory, tail, room);
        }
        let len = self.len();
        let wanted = len + tail.len();
        let left = room.checked_sub(cost_of(wanted)).ok_or(OutOfMemory)?;
        let spare = if wanted > HEAP_BYTES_MAX {
            spare_for(wanted)
        } else {
            spare_within(wanted, left).min(HEAP_BYTES_MAX - wanted)
        };
        *self = Self::from_parts(memory, &self.0.meter, self, tail, spare)?;
        Ok(len)
    }

    /// Puts other bytes in the place of some. A value that is shared is copied, for which what it holds may grow by `room`.
    /// Returns how many bytes were copied.
    pub(crate) fn patch(
        &mut self,
        memory: &mut dyn Memory,
        offset: usize,
        bytes: &[u8],
        room: u64,
    ) -> Result<usize, OutOfMemory> {
        let mut copied = 0;
        if Arc::get_mut(&mut self.0).is_none() {
            if cost_of(self.len()) > room {
                return Err(OutOfMemory);
            }
            copied = self.len();
            *self = Self::from_parts(memory, &self.0.meter, self, Tail::of(&[]), 0)?;
        }
        if let Some(body) = Arc::get_mut(&mut self.0) {
            body.patch(offset, bytes);
        }
        Ok(copied)
    }
}

impl Deref for Large {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Large {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Large {}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Large").field("len", &self.len()).finish_non_exhaustive()
    }
}
