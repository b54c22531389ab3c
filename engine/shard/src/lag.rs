//! How long writes wait for their copies, and how long a range was without a leader, measured at each of them: samples of how far
//! copies are behind miss what lies between two samples.
//!
//! Of the writes of a range that wait together the first is timed, which waits longest: from the turn that executed it until its
//! range is committed up to it. That is a store for each write and a look at the clock for none, because the turn's time is known.

use crate::stats::ShardStats;
use alloc::vec::Vec;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;

/// Positions of a range's log and when they were appended; 0 for none.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    first: u64,
    first_ns: u64,
    last: u64,
    last_ns: u64,
}

/// Whether a range is led here.
#[derive(Clone, Copy, Debug, Default)]
struct Led {
    now: bool,
    /// When that ended.
    until_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lag {
    /// By range.
    waiting: Vec<Waiting>,
    led: Vec<Led>,
}

impl Default for Lag {
    fn default() -> Self {
        Self {
            waiting: alloc::vec![Waiting::default(); RANGES],
            led: alloc::vec![Led::default(); RANGES],
        }
    }
}

impl Lag {
    /// A write became this position of its range's log.
    #[inline]
    pub(crate) fn appended(&mut self, now_ns: u64, range: RangeId, index: u64) {
        let waiting = &mut self.waiting[usize::from(range.0)];
        if waiting.first == 0 {
            (waiting.first, waiting.first_ns) = (index, now_ns);
        }
        (waiting.last, waiting.last_ns) = (index, now_ns);
    }

    /// A range is committed up to there.
    pub(crate) fn committed(
        &mut self,
        now_ns: u64,
        range: RangeId,
        index: u64,
        stats: &ShardStats,
    ) {
        let waiting = &mut self.waiting[usize::from(range.0)];
        if waiting.first == 0 || index < waiting.first {
            return;
        }
        let ns = now_ns.saturating_sub(waiting.first_ns);
        stats.commits.add(1);
        stats.commit_wait_ns.add(ns);
        stats.commit_wait_us_max.raise(ns.div_ceil(1000));
        // Those behind it wait on. When the first of them was appended is not known any more, so the last one is timed.
        *waiting = if index < waiting.last {
            Waiting { first: waiting.last, first_ns: waiting.last_ns, ..*waiting }
        } else {
            Waiting::default()
        };
    }

    /// Nobody waits for the writes of a range any more: it is led elsewhere.
    pub(crate) fn lost(&mut self, range: RangeId) {
        self.waiting[usize::from(range.0)] = Waiting::default();
    }

    /// For how long the oldest write has waited that is not committed, in nanoseconds.
    pub(crate) fn oldest_ns(&self, now_ns: u64) -> u64 {
        let waiting = self.waiting.iter().filter(|waiting| waiting.first != 0);
        waiting.map(|waiting| now_ns.saturating_sub(waiting.first_ns)).max().unwrap_or(0)
    }

    /// Whether a range is led here now; `heard_ns` is when its leader was heard last, 0 for never. A range that is led for the
    /// first time was taken from nobody.
    pub(crate) fn leads(
        &mut self,
        now_ns: u64,
        range: RangeId,
        leads: bool,
        heard_ns: u64,
        stats: &ShardStats,
    ) {
        let led = &mut self.led[usize::from(range.0)];
        if led.now == leads {
            return;
        }
        led.now = leads;
        if !leads {
            led.until_ns = now_ns;
            return;
        }
        let since_ns = heard_ns.max(led.until_ns);
        if since_ns > 0 {
            let us = now_ns.saturating_sub(since_ns).div_ceil(1000);
            stats.takeovers.add(1);
            stats.takeover_us.add(us);
            stats.takeover_us_max.raise(us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_writes_that_wait_is_timed() {
        let (mut lag, stats) = (Lag::default(), ShardStats::default());
        let range = RangeId(3);
        for (ns, index) in [(1_000, 10), (2_000, 11), (9_000, 12)] {
            lag.appended(ns, range, index);
        }
        assert_eq!((lag.oldest_ns(10_000), lag.oldest_ns(500)), (9_000, 0));
        lag.committed(11_000, range, 9, &stats);
        assert_eq!(stats.commits.get(), 0, "it is not there yet");
        lag.committed(11_000, range, 11, &stats);
        assert_eq!((stats.commits.get(), stats.commit_wait_ns.get()), (1, 10_000));
        assert_eq!(lag.oldest_ns(11_000), 2_000, "the last one waits on");
        lag.committed(19_000, range, 12, &stats);
        assert_eq!((stats.commits.get(), stats.commit_wait_ns.get()), (2, 20_000));
        assert_eq!(stats.commit_wait_us_max.get(), 10);
        lag.committed(30_000, range, 12, &stats);
        assert_eq!((stats.commits.get(), lag.oldest_ns(30_000)), (2, 0), "nothing waits");
        lag.appended(40_000, range, 13);
        lag.lost(range);
        lag.committed(50_000, range, 13, &stats);
        assert_eq!(stats.commits.get(), 2, "nobody waits for what was lost");
    }

    #[test]
    fn a_range_was_without_a_leader_since_that_was_heard_last() {
        let (mut lag, stats) = (Lag::default(), ShardStats::default());
        lag.leads(5_000, RangeId(0), true, 0, &stats);
        assert_eq!(stats.takeovers.get(), 0, "it was led by nobody before");
        lag.leads(9_000, RangeId(1), true, 2_000, &stats);
        lag.leads(10_000, RangeId(1), true, 2_000, &stats);
        assert_eq!((stats.takeovers.get(), stats.takeover_us.get()), (1, 7));
        // It is led elsewhere, where nothing was heard from, and comes back.
        lag.leads(20_000, RangeId(1), false, 2_000, &stats);
        lag.leads(23_000, RangeId(1), true, 2_000, &stats);
        assert_eq!((stats.takeovers.get(), stats.takeover_us.get()), (2, 10));
        assert_eq!(stats.takeover_us_max.get(), 7);
    }
}
