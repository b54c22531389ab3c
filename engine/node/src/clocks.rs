//! The time of a turn, and the wall clock kept at a constant distance from the boot clock.
//!
//! Clients name deadlines in calendar time and the table keeps them on the boot clock. Both clocks are slewed together by
//! the kernel, so their distance changes only when somebody sets the wall clock; two readings of both always differ a
//! little, and must not make a deadline read back differently from how it was given.

use dkv_io::clock::boottime_ns;
use dkv_shard::command::Now;
use std::time::{SystemTime, UNIX_EPOCH};

/// A change of the distance below this is noise of the reading.
const STEP_NS_MIN: u64 = 2_000_000;
/// A reading that took longer was interrupted and says nothing.
const READING_NS_MAX: u64 = 200_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// Wall clock less boot clock, nanoseconds, as adopted. Positive on every machine whose clock is past 1970 plus its
    /// uptime; anything else is shown as the boot clock.
    distance_ns: u64,
}

impl Clocks {
    pub(crate) fn new() -> Self {
        // The first reading is taken however long it took; the next tick mends it.
        Self { distance_ns: read_distance().0 }
    }

    /// Looks whether somebody set the wall clock.
    pub(crate) fn check(&mut self) {
        let (distance_ns, took_ns) = read_distance();
        if took_ns <= READING_NS_MAX && distance_ns.abs_diff(self.distance_ns) >= STEP_NS_MIN {
            self.distance_ns = distance_ns;
        }
    }

    /// The time of now.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        let boot_ns = boottime_ns();
        Now { boot_ns, unix_ms: boot_ns / 1_000_000 + self.distance_ns / 1_000_000 }
    }
}

fn read_distance() -> (u64, u64) {
    let before = boottime_ns();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let took_ns = boottime_ns() - before;
    (wall.saturating_sub(before + took_ns / 2), took_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_the_clocks_stays_the_same_to_the_millisecond() {
        let mut clocks = Clocks::new();
        let first = clocks.now();
        let distance = first.unix_ms - first.boot_ms();
        for _ in 0..1000 {
            clocks.check();
            let now = clocks.now();
            assert_eq!(now.unix_ms - now.boot_ms(), distance);
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(wall.abs_diff(clocks.now().unix_ms) < 100);
    }
}
