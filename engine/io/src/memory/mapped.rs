//! A mapping of its own for one great value: grows without copying and is taken apart by the keeper.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use super::chunk::Ruin;
use super::keeper::Handle;
use super::pages::{self, PAGE_BYTES};

/// From so many bytes on it pays to exchange pages instead of writing zeros.
const CLEARED_BYTES_MIN: usize = 64 << 10;

/// Memory of its own, in whole pages, with anything in it at first. The pages are small: a value is filled as it comes, the
/// first touch of a huge page can take milliseconds, and a value of which only a little has come would hold all of one.
///
/// Dropping it costs the dropping thread as good as nothing, however large it is and whichever thread that is.
pub struct Mapped {
    start: NonNull<u8>,
    bytes: usize,
    /// What becomes of it; made in advance, so that letting go needs no memory.
    ruin: ManuallyDrop<Ruin>,
    handle: Arc<Handle>,
}

// SAFETY: it owns its mapping as a `Vec<u8>` owns its allocation; nothing about it belongs to a thread.
unsafe impl Send for Mapped {}
// SAFETY: a shared one gives out shared borrows of bytes and nothing else.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub(super) fn new(handle: Arc<Handle>, bytes: usize) -> io::Result<Self> {
        let bytes = pages::whole_pages(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let ruin = match handle.shared().spare(bytes) {
            Some(ruin) => ruin,
            None => Ruin::new(pages::map(bytes, false)?, bytes),
        };
        Ok(Self { start: ruin.start(), bytes, ruin: ManuallyDrop::new(ruin), handle })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for reading from start to end, initialised by the kernel (zero) or an earlier owner, at most
        // `isize::MAX` long; whoever writes has borrowed it mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// All of it, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, mapped for writing too, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// Makes a part of it zero. Whole pages are given back, and untouched ones are there instead: it takes as long as there
    /// were pages to give, whatever the length.
    pub fn clear(&mut self, part: std::ops::Range<usize>) {
        let (first, last) = (part.start.next_multiple_of(PAGE_BYTES), part.end & !(PAGE_BYTES - 1));
        if last < first + CLEARED_BYTES_MIN {
            return self.bytes_mut()[part].fill(0);
        }
        self.bytes_mut()[part.start..first].fill(0);
        self.bytes_mut()[last..part.end].fill(0);
        // SAFETY: `part` was found to lie inside the mapping just above, and `first..last` in it.
        let start = unsafe { self.start.add(first) };
        // SAFETY: inside the mapping and borrowed mutably here; what is read there from now on is zero.
        if unsafe { pages::discard(start, last - first) }.is_err() {
            self.bytes_mut()[first..last].fill(0);
        }
    }

    /// Makes it as large as asked (in whole pages), larger or smaller; the contents stay, anything is in what is new. `false`:
    /// the system has no more, and it is as it was.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let Some(wanted) = pages::whole_pages(bytes) else { return false };
        if wanted > self.bytes {
            // SAFETY: it is one mapping, borrowed mutably here, and from now on it is where the result says.
            match unsafe { pages::grow(self.start, self.bytes, wanted) } {
                Ok(start) => self.start = start,
                Err(_) => return false,
            }
        } else if wanted < self.bytes {
            // SAFETY: inside the mapping.
            let tail = unsafe { self.start.add(wanted) };
            self.handle.shared().take_apart(Ruin::new(tail, self.bytes - wanted));
        }
        self.bytes = wanted;
        self.ruin.set(self.start, wanted);
        true
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let ruin = unsafe { ManuallyDrop::take(&mut self.ruin) };
        self.handle.shared().let_go(ruin);
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapped").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
