//! The one unsafe place of the table: asking the processor to fetch a cache line.
//!
//! A hint only. It reads nothing that the program can see, cannot fault, and does nothing on processors without a stable
//! instruction for it.
#![expect(unsafe_code, reason = "the prefetch instruction has no safe name yet")]

/// Fetches the cache line at the start of `target`.
#[inline]
pub(crate) fn line<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = core::ptr::from_ref(target).cast::<i8>();
        // SAFETY: the instruction needs SSE, which every x86_64 processor has; it takes any address and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
