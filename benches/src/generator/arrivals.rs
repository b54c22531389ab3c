//! When requests are due: the clock of an open loop. Pure.
//!
//! The next moment is reckoned from the one before and never from when that was sent, so a server that stands still does not
//! slow the schedule down. Nothing is queued for it: moments that have passed are simply still to come out of it.

use super::random::Random;

/// How the requests of an open loop lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// All gaps the same.
    Constant,
    /// Gaps as independent users make them: exponentially distributed.
    Poisson,
}

/// The moments at which requests are due.
#[derive(Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    gap_ns: f64,
    /// In fractions, so that the rate holds over hours.
    next_ns: f64,
    origin_ns: u64,
}

impl Schedule {
    /// `per_second` requests from `origin_ns` on; `phase` (0 to 1) shifts the first, so that threads take turns.
    pub(super) fn new(arrivals: Arrivals, per_second: f64, origin_ns: u64, phase: f64) -> Self {
        let gap_ns = 1e9 / per_second;
        Self { arrivals, gap_ns, next_ns: gap_ns * phase, origin_ns }
    }

    /// When the next request is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.origin_ns.saturating_add(self.next_ns as u64)
    }

    /// Goes on to the one after.
    pub(super) fn advance(&mut self, random: &mut Random) {
        self.next_ns += match self.arrivals {
            Arrivals::Constant => self.gap_ns,
            Arrivals::Poisson => -random.unit().ln() * self.gap_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(arrivals: Arrivals, count: usize) -> Vec<f64> {
        let (mut random, mut schedule) = (Random::new(7), Schedule::new(arrivals, 3e6, 1000, 0.0));
        let mut at = schedule.next_ns;
        assert_eq!(schedule.next_ns(), 1000);
        let gap = |_| {
            schedule.advance(&mut random);
            let gap = schedule.next_ns - at;
            at = schedule.next_ns;
            gap
        };
        (0..count).map(gap).collect()
    }

    #[test]
    fn the_rate_holds_although_a_gap_is_no_whole_number_of_nanoseconds() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let sum: f64 = gaps(arrivals, 3_000_000).iter().sum();
            assert!((sum / 1e9 - 1.0).abs() < 0.005, "{arrivals:?}: {sum}");
        }
    }

    #[test]
    fn poisson_gaps_spread_as_an_exponential_distribution() {
        let gaps = gaps(Arrivals::Poisson, 1_000_000);
        let longer = |than: f64| gaps.iter().filter(|gap| **gap > than * 1e9 / 3e6).count() as f64;
        for than in [0.5, 1.0, 3.0] {
            let share = longer(than) / 1e6;
            assert!((share - (-than).exp()).abs() < 0.003, "{than}: {share}");
        }
    }
}
