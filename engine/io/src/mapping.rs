//! Memory for receive buffers: mapped in one piece, in memory only where it was touched.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A number for a pool of buffers that no other pool of this process has, so that a chunk is known by its pool.
pub(crate) fn next_pool() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Anonymous, private, zeroed, page-aligned memory that is paged in on first touch.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    leaked: bool,
}

impl Mapping {
    /// Maps so many bytes.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice cannot replace one that is in use.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        // Where huge pages are always on, the first touch would bring in 2 MiB. A refusal costs memory only.
        // SAFETY: advice about pages that were mapped just now and that nobody else knows.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) };
        let start = NonNull::new(start.cast()).expect("mmap never maps the zero page");
        Ok(Self { start, bytes, leaked: false })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Keeps the memory for good, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        let start: *mut c_void = self.start.as_ptr().cast();
        // SAFETY: the range is what mmap gave us; nothing borrows from it (borrows of it borrow the pool), and the kernel
        // is done with it: the ring is closed before its pool is dropped, or `leaked` is set.
        let _ = unsafe { munmap(start, self.bytes) };
    }
}

/// A mapping that no kernel writes to but in calls that borrow it.
pub(crate) struct Private(Mapping);

impl Private {
    /// Maps so many bytes.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        Mapping::new(bytes).map(Self)
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes of readable memory, zeroed or written since, that stay mapped as long as `self`; whoever writes
        // to them borrows `self` mutably, because the mapping is private and its address was given to nobody.
        unsafe { std::slice::from_raw_parts(self.0.start(), self.0.len()) }
    }

    /// The same to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and writable; the mutable borrow of `self` is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.0.start(), self.0.len()) }
    }
}
