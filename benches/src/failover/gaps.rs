//! How long each range of slots went without an answer. Pure but for its atomics.

use dkv_protocol::limits::RANGES;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// See the module. Times are nanoseconds of one clock.
#[derive(Debug)]
pub(super) struct Gaps {
    /// When something of it was answered last.
    last_ns: Vec<AtomicU64>,
    longest_ns: Vec<AtomicU64>,
}

impl Gaps {
    pub(super) fn new(now_ns: u64) -> Self {
        let all = |ns: u64| (0..RANGES).map(|_| AtomicU64::new(ns)).collect();
        Self { last_ns: all(now_ns), longest_ns: all(0) }
    }

    /// Something of a range was answered.
    pub(super) fn served(&self, range: usize, now_ns: u64) {
        let last = self.last_ns[range].fetch_max(now_ns, Relaxed);
        self.longest_ns[range].fetch_max(now_ns.saturating_sub(last), Relaxed);
    }

    /// Forgets the gaps so far; those that are open now are measured from their beginning.
    pub(super) fn begin(&self) {
        self.longest_ns.iter().for_each(|longest| longest.store(0, Relaxed));
    }

    /// The longest of each range since [`Gaps::begin`], one that is still open included.
    pub(super) fn longest(&self, now_ns: u64) -> Vec<u64> {
        let open = |last: &AtomicU64| now_ns.saturating_sub(last.load(Relaxed));
        let ranges = self.longest_ns.iter().zip(&self.last_ns);
        ranges.map(|(longest, last)| longest.load(Relaxed).max(open(last))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_time_between_two_answers_or_since_the_last() {
        let gaps = Gaps::new(10);
        gaps.served(0, 15);
        gaps.served(0, 40);
        gaps.served(0, 50);
        assert_eq!(gaps.longest(60)[..2], [25, 50]);
        gaps.begin();
        gaps.served(1, 70);
        assert_eq!(gaps.longest(80)[..2], [30, 60], "what was open when it began counts whole");
    }
}
