//! Clocks, as plain numbers. Pure crates get time as an argument; this is where the number comes from.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`): expiry times are kept on this clock.
pub fn boottime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

/// Milliseconds since boot, suspended time included.
pub fn boottime_ms() -> u64 {
    boottime_ns() / 1_000_000
}

/// Nanoseconds of `CLOCK_MONOTONIC`: for durations on one machine.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Milliseconds since 1970 (`CLOCK_REALTIME`): may jump; only for what people and clients call absolute time.
pub fn realtime_ms() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime)) / 1_000_000
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time that the process has used, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// How the kernel's calendar stands to the world's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Whether something (chrony, timesyncd, a hypervisor's clock) keeps it right.
    pub synchronised: bool,
    /// Most that it may be off, in microseconds, as the keeper says.
    pub error_us_max: u64,
}

/// Asks the kernel, and changes nothing.
///
/// # Errors
/// A filter forbids the call.
pub fn calendar() -> std::io::Result<Calendar> {
    // SAFETY: all zeros is a timex; its `modes` of 0 asks.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex of our own, which the kernel fills.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let synchronised = state.status & libc::STA_UNSYNC == 0;
    Ok(Calendar { synchronised, error_us_max: u64::try_from(state.maxerror).unwrap_or(0) })
}

/// A clock before its own zero (a machine set to 1960) counts as zero.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn clocks_do_not_run_backwards_and_agree_on_their_unit() {
        let (boot, monotonic, wall) = (boottime_ns(), monotonic_ns(), realtime_ms());
        assert!(boottime_ns() >= boot);
        assert!(monotonic_ns() >= monotonic);
        assert!(boottime_ms() >= boot / 1_000_000);
        // 2020-01-01 and 2100-01-01: milliseconds, neither seconds nor nanoseconds.
        assert!((1_577_836_800_000..4_102_444_800_000).contains(&wall), "{wall}");
    }

    #[test]
    fn the_kernel_says_how_its_calendar_stands() {
        let calendar = calendar().expect("asking needs no right");
        assert!(calendar.synchronised || calendar.error_us_max > 0, "{calendar:?}");
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = thread_cpu_ns();
        let mut sum = 0_u64;
        while thread_cpu_ns() - before < 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_ns() >= 1_000_000);
    }
}
