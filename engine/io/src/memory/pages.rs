//! The system calls on mappings, each with what its caller must vouch for.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap, mremap_fixed, munmap,
};

/// Bytes of a chunk, and the alignment of everything here: a huge page of the machines that DKV runs on.
pub const CHUNK_BYTES: usize = 2 << 20;
/// The smallest page of those machines.
pub(super) const PAGE_BYTES: usize = 4096;

/// Rounds up to whole pages, at least one. `None`: more than an address space has.
pub(super) fn whole_pages(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
    (bytes <= isize::MAX as usize / 2).then_some(bytes)
}

fn is_aligned(start: NonNull<u8>) -> bool {
    start.addr().get().is_multiple_of(CHUNK_BYTES)
}

/// Private, zeroed memory at an address of the kernel's choice that is a multiple of [`CHUNK_BYTES`]. `bytes` are whole
/// pages. Not reserved: it counts when it is touched (where the kernel was told never to overcommit, it counts at once).
pub(super) fn map_aligned(bytes: usize, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let map = |bytes| {
        // SAFETY: an anonymous mapping at an address of the kernel's choice cannot replace one that is in use.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }?;
        Ok::<_, io::Error>(NonNull::new(start.cast::<u8>()).expect("mmap never maps the zero page"))
    };
    // Newer kernels align what could hold a huge page by themselves, which is why the exact size is tried first.
    let start = map(bytes)?;
    if is_aligned(start) {
        return Ok(start);
    }
    // SAFETY: mapped just now, known to nobody else.
    unsafe { unmap(start, bytes) }?;
    let start = map(bytes + CHUNK_BYTES)?;
    let before = start.as_ptr().align_offset(CHUNK_BYTES);
    // SAFETY: `before < CHUNK_BYTES`, so that this and all that follows lies in the mapping.
    let aligned = unsafe { start.add(before) };
    if before > 0 {
        // SAFETY: the part before the aligned one, known to nobody else. A failure costs address space only.
        let _ = unsafe { unmap(start, before) };
    }
    // SAFETY: as above.
    let end = unsafe { aligned.add(bytes) };
    // SAFETY: the part after the aligned one; it is not empty, because `before < CHUNK_BYTES`.
    let _ = unsafe { unmap(end, CHUNK_BYTES - before) };
    Ok(aligned)
}

/// [`map_aligned`] for reading and writing, on huge pages where the kernel has them, or on small ones.
pub(super) fn map(bytes: usize, huge: bool) -> io::Result<NonNull<u8>> {
    let start = map_aligned(bytes, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: mapped just now, so many bytes.
    unsafe { on_huge_pages(start, bytes, huge) };
    Ok(start)
}

/// Whether a first touch brings in a huge page at once, or a small one only.
///
/// # Safety
/// The range is mapped.
pub(super) unsafe fn on_huge_pages(start: NonNull<u8>, bytes: usize, huge: bool) {
    let advice = if huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
    // SAFETY: advice that changes no contents; the caller vouches for the range. A refusal costs time only.
    let _ = unsafe { madvise(start.as_ptr().cast(), bytes, advice) };
}

/// Makes one huge page of the small ones of a chunk that may be in use: whoever touches it meanwhile waits. Before Linux
/// 6.1, and where there is no such page to be had, it stays what it is.
///
/// # Safety
/// The range is mapped.
pub(super) unsafe fn collapse(start: NonNull<u8>, bytes: usize) {
    const COLLAPSE: libc::c_int = 25;
    // SAFETY: the contents stay what they are; the caller vouches for the range.
    let _ = unsafe { libc::madvise(start.as_ptr().cast(), bytes, COLLAPSE) };
}

/// Lets this process have huge pages where it advises them, whatever it was started with: the allocator's memory is
/// better off without, and its switch is one for the whole process.
pub(super) fn allow_huge() {
    // SAFETY: sets a flag of the process; no pointers.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
}

/// So much is populated in one call: meanwhile nobody can map or unmap. A huge page comes whole with the first of them.
const POPULATED_BYTES: usize = 256 << 10;

/// Brings the pages in, as if written to. `bytes` are a multiple of a chunk.
///
/// # Safety
/// The range is mapped for writing and nobody else uses it.
pub(super) unsafe fn populate(start: NonNull<u8>, bytes: usize) {
    let done = (0..bytes).step_by(POPULATED_BYTES).try_for_each(|offset| {
        // SAFETY: `offset < bytes`.
        let part = unsafe { start.add(offset) };
        // SAFETY: it changes no byte; the caller vouches for the range.
        unsafe { madvise(part.as_ptr().cast(), POPULATED_BYTES, Advice::LinuxPopulateWrite) }
    });
    if done != Err(rustix::io::Errno::INVAL) {
        // Or there is no memory, which whoever writes there will find out as well.
        return;
    }
    // Before Linux 5.14.
    for offset in (0..bytes).step_by(PAGE_BYTES) {
        // SAFETY: `offset < bytes`.
        let byte = unsafe { start.add(offset) };
        // SAFETY: mapped for writing and used by nobody else.
        unsafe { byte.write_volatile(0) };
    }
}

/// Gives the pages back to the kernel; what is read there later is zero. `MADV_FREE` would take 2 µs instead of 8 for a
/// huge page, but leave it to the process until somebody else is short of memory, and nobody could see that it is free.
///
/// # Safety
/// The range is mapped and nobody else uses it.
pub(super) unsafe fn discard(start: NonNull<u8>, bytes: usize) -> io::Result<()> {
    // SAFETY: the caller vouches that the contents are nobody's.
    Ok(unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxDontNeed) }?)
}

/// Ends a mapping.
///
/// # Safety
/// The range is mapped and nobody else uses it, now or later.
pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> io::Result<()> {
    // SAFETY: the caller vouches that no borrow of the range is left.
    Ok(unsafe { munmap(start.as_ptr().cast(), bytes) }?)
}

/// Makes a mapping of [`map`] larger, where it is or elsewhere. Pages are moved, not copied. On failure it is what
/// it was.
///
/// # Safety
/// The range is one mapping and nobody else uses it; after success it is where the result says.
pub(super) unsafe fn grow(
    start: NonNull<u8>,
    bytes: usize,
    wanted: usize,
) -> io::Result<NonNull<u8>> {
    let raw: *mut c_void = start.as_ptr().cast();
    // SAFETY: grows into addresses that are free, or fails.
    if unsafe { mremap(raw, bytes, wanted, MremapFlags::empty()) }.is_ok() {
        return Ok(start);
    }
    // Both ends aligned alike: the kernel then moves whole tables instead of entries.
    let target = map_aligned(wanted, ProtFlags::empty())?;
    let to: *mut c_void = target.as_ptr().cast();
    // SAFETY: the target was mapped just now for this and is known to nobody else; the source is the caller's. Should it
    // fail, the target may or may not be mapped still, and what is unmapped may be anybody's in the next moment: so it is
    // left alone, which costs addresses, not memory.
    unsafe { mremap_fixed(raw, bytes, wanted, MremapFlags::MAYMOVE, to) }?;
    Ok(target)
}
