//! Chunks in nobody's use, and the stack on which they, and mappings that are to be taken apart, reach the keeper.
//!
//! Whoever lets go of memory must not wait and must not allocate, and there is no bound on how much is let go at once. So
//! the stack is linked through the memory itself, or through a node that was allocated along with the mapping.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::pages::CHUNK_BYTES;

/// A chunk that nobody uses. There is one value for each, and none while it is lent.
pub(super) struct Chunk(NonNull<u8>);

// SAFETY: it is memory that nobody else refers to, on its way to whoever is next.
unsafe impl Send for Chunk {}

impl Chunk {
    /// # Safety
    /// `CHUNK_BYTES` from `start` are mapped for reading and writing, aligned to that, in nobody's use, and made a chunk
    /// only this once. They stay mapped for as long as the chunk, or a borrow from it, is about.
    pub(super) unsafe fn new(start: NonNull<u8>) -> Self {
        debug_assert!(start.addr().get().is_multiple_of(CHUNK_BYTES));
        Self(start)
    }

    /// A chunk that comes back. `None`: it is not aligned, so it never was one.
    pub(super) fn returned(memory: &'static mut [u8; CHUNK_BYTES]) -> Option<Self> {
        let start = NonNull::from(memory).cast::<u8>();
        start.addr().get().is_multiple_of(CHUNK_BYTES).then_some(Self(start))
    }

    pub(super) fn lend(self) -> &'static mut [u8; CHUNK_BYTES] {
        let start: *mut [u8; CHUNK_BYTES] = self.0.as_ptr().cast();
        // SAFETY: mapped, initialised by the kernel (zero) or by an earlier borrower, aligned; and there is no other
        // reference, because the only value that stood for the chunk ends here and a borrower's ended in `returned`. The
        // mapping outlasts the borrow: it is ended only when all of its chunks are there (see `Stock::drop`).
        unsafe { &mut *start }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.0
    }

    /// Turns it into a bare address, to be made a chunk again by [`Chunk::new`].
    pub(super) fn into_raw(self) -> NonNull<u8> {
        self.0
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chunk").field(&self.0).finish()
    }
}

/// Memory that was let go, as an element of a [`Stack`].
pub(super) struct Node {
    next: *mut Node,
    start: NonNull<u8>,
    bytes: usize,
}

/// A mapping of its own, to be taken apart.
pub(super) struct Ruin(Box<Node>);

// SAFETY: it stands for memory that nobody else refers to.
unsafe impl Send for Ruin {}
// SAFETY: a shared one can only be asked for numbers.
unsafe impl Sync for Ruin {}

impl Ruin {
    pub(super) fn new(start: NonNull<u8>, bytes: usize) -> Self {
        Self(Box::new(Node { next: std::ptr::null_mut(), start, bytes }))
    }

    pub(super) fn set(&mut self, start: NonNull<u8>, bytes: usize) {
        (self.0.start, self.0.bytes) = (start, bytes);
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.0.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.bytes
    }
}

/// A stack that any thread may push on without waiting, and from which all is taken at once.
#[derive(Debug, Default)]
pub(super) struct Stack {
    top: AtomicPtr<Node>,
}

impl Stack {
    /// # Safety
    /// The node is valid for writing and nobody else's until it is taken.
    unsafe fn push(&self, node: NonNull<Node>) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller vouches for it, and it is not on the stack yet.
            unsafe { (*node.as_ptr()).next = top };
            // Release: who takes it sees the node and what was written to the memory before.
            match self.top.compare_exchange_weak(
                top,
                node.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    pub(super) fn push_chunk(&self, chunk: Chunk) {
        let start = chunk.into_raw();
        let node = start.cast::<Node>();
        // SAFETY: a chunk in nobody's use is large and aligned enough for a node; what stood for it ended in this call.
        unsafe { node.write(Node { next: std::ptr::null_mut(), start, bytes: CHUNK_BYTES }) };
        // SAFETY: the node lies in the chunk.
        unsafe { self.push(node) };
    }

    pub(super) fn push_ruin(&self, ruin: Ruin) {
        let node = NonNull::from(Box::leak(ruin.0));
        // SAFETY: leaked just now.
        unsafe { self.push(node) };
    }

    /// Takes everything off. No element can be pushed a second time before, so the value of `top` is never confused.
    fn take_all(&self) -> *mut Node {
        self.top.swap(std::ptr::null_mut(), Ordering::Acquire)
    }
}

/// Chunks that were taken off a stack on which there are chunks only.
pub(super) struct Chunks(*mut Node);

// SAFETY: as for `Chunk`.
unsafe impl Send for Chunks {}

impl Chunks {
    pub(super) fn take(stack: &Stack) -> Self {
        Self(stack.take_all())
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let node = NonNull::new(self.0)?;
        // SAFETY: written by `push_chunk`, and taken off by this list alone.
        let node = unsafe { node.read() };
        self.0 = node.next;
        // SAFETY: it was a chunk when it was pushed, and what stood for it ended there.
        Some(unsafe { Chunk::new(node.start) })
    }
}

/// Mappings that were taken off a stack on which there are mappings only.
pub(super) struct Ruins(*mut Node);

// SAFETY: as for `Ruin`.
unsafe impl Send for Ruins {}

impl Ruins {
    pub(super) fn take(stack: &Stack) -> Self {
        Self(stack.take_all())
    }
}

impl Iterator for Ruins {
    type Item = Ruin;

    fn next(&mut self) -> Option<Ruin> {
        let node = NonNull::new(self.0)?;
        // SAFETY: leaked from a box by `push_ruin`, and taken off by this list alone.
        let mut node = unsafe { Box::from_raw(node.as_ptr()) };
        self.0 = std::mem::replace(&mut node.next, std::ptr::null_mut());
        Some(Ruin(node))
    }
}
