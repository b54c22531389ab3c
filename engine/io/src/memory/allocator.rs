//! What the global allocator holds and nobody uses.

/// Returns to the kernel what has been free in the allocator for a while, whichever thread freed it, in steps of which each
/// takes a few milliseconds at most; ten microseconds when there is nothing.
///
/// The allocator would do it by itself, but only in the course of many allocations: a node that has become idle keeps the
/// buffers of its last great requests for ever, and a busy one returns them on a shard. Where another allocator is in use
/// this does nothing.
pub fn give_back_unused() {
    // SAFETY: may be called at any time on any thread, and touches nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(false) };
}
