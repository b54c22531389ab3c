//! How often each command was executed, refused and failed, how long it took, and how many errors of each kind were answered:
//! counters of one shard that any thread may read, see `stats`.

use crate::commands;
use crate::stats::Counter;
use alloc::vec::Vec;
use dkv_protocol::control::{COMMAND_BUCKETS, CommandCounters};

/// Octaves of the histogram: from 256 ns to 2^30 ns, each in two halves; what is shorter is one bucket before them.
const OCTAVE_FIRST: usize = 8;
const OCTAVE_LAST: usize = 30;
/// Buckets of a command's histogram.
const BUCKETS: usize = 1 + 2 * (OCTAVE_LAST - OCTAVE_FIRST + 1);
/// The first level that LATENCY HISTOGRAM names, as a power of two of nanoseconds (Redis' own).
const LEVEL_FIRST: usize = 10;

fn bucket(ns: u64) -> usize {
    if ns < 1 << OCTAVE_FIRST {
        return 0;
    }
    let octave = 63 - ns.leading_zeros() as usize;
    let half = (ns >> (octave - 1)) as usize & 1;
    (1 + 2 * (octave - OCTAVE_FIRST) + half).min(BUCKETS - 1)
}

/// The upper bound of a bucket, in nanoseconds.
fn bucket_ns_max(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => 1 << OCTAVE_FIRST,
        Some(at) => (3 + at as u64 % 2) << (OCTAVE_FIRST + at / 2 - 1),
    }
}

/// One command, or subcommand, by its number.
#[derive(Debug)]
struct One {
    calls: Counter,
    ns: Counter,
    /// How long those took that are in the histogram.
    tracked_ns: Counter,
    rejected: Counter,
    failed: Counter,
    histogram: [Counter; BUCKETS],
}

impl Default for One {
    fn default() -> Self {
        Self {
            calls: Counter::default(),
            ns: Counter::default(),
            tracked_ns: Counter::default(),
            rejected: Counter::default(),
            failed: Counter::default(),
            histogram: core::array::from_fn(|_| Counter::default()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct CommandStats(Vec<One>);

impl Default for CommandStats {
    fn default() -> Self {
        Self((0..commands::NUMBERS).map(|_| One::default()).collect())
    }
}

/// What the shards of a node counted of one command together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) calls: u64,
    pub(crate) us: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    histogram: Vec<u64>,
}

impl CommandStats {
    /// Commands of this number took so many nanoseconds together; `tracked`: they count in the histogram too.
    pub(crate) fn executed(&self, number: u16, calls: u64, ns: u64, tracked: bool) {
        let Some(one) = self.0.get(usize::from(number)) else { return };
        one.calls.add(calls);
        one.ns.add(ns);
        if tracked {
            one.tracked_ns.add(ns);
            one.histogram[bucket(ns / calls.max(1))].add(calls);
        }
    }

    /// One was refused before it ran.
    #[cold]
    pub(crate) fn rejected(&self, number: u16) {
        if let Some(one) = self.0.get(usize::from(number)) {
            one.rejected.add(1);
        }
    }

    /// One ran, and answered with an error.
    #[cold]
    pub(crate) fn failed(&self, number: u16) {
        if let Some(one) = self.0.get(usize::from(number)) {
            one.failed.add(1);
        }
    }

    pub(crate) fn reset(&self) {
        for one in &self.0 {
            let counters = [&one.calls, &one.ns, &one.tracked_ns, &one.rejected, &one.failed];
            counters.into_iter().chain(&one.histogram).for_each(Counter::count_from_here);
        }
    }
}

/// What these shards counted since they began of each command that was called or refused, whatever CONFIG RESETSTAT did. Only
/// the caller's thread works for it: the shards' counters are read as they are.
pub(crate) fn counters(shards: &[&CommandStats]) -> Vec<CommandCounters> {
    let of = |number: u16| {
        let ones = || shards.iter().filter_map(move |shard| shard.0.get(usize::from(number)));
        let sum = |of: fn(&One) -> &Counter| ones().map(|one| of(one).get()).sum::<u64>();
        let (calls, rejected) = (sum(|one| &one.calls), sum(|one| &one.rejected));
        if calls == 0 && rejected == 0 {
            return None;
        }
        let mut buckets = alloc::vec![0; COMMAND_BUCKETS];
        for one in ones() {
            // Two halves of an octave are one bucket there.
            for (at, counter) in one.histogram.iter().enumerate() {
                buckets[at.div_ceil(2)] += counter.get();
            }
        }
        Some(CommandCounters {
            name: commands::name_of(number),
            calls,
            rejected,
            failed: sum(|one| &one.failed),
            ns: sum(|one| &one.tracked_ns),
            buckets,
        })
    };
    (0..commands::NUMBERS as u16).filter_map(of).collect()
}

impl Sum {
    /// Of all these shards.
    pub(crate) fn of<'a>(shards: impl Iterator<Item = &'a CommandStats>, number: u16) -> Self {
        let mut sum = Self { histogram: alloc::vec![0; BUCKETS], ..Self::default() };
        let mut ns = 0;
        for one in shards.filter_map(|shard| shard.0.get(usize::from(number))) {
            sum.calls += one.calls.since_reset();
            ns += one.ns.since_reset();
            sum.rejected += one.rejected.since_reset();
            sum.failed += one.failed.since_reset();
            for (sum, counter) in sum.histogram.iter_mut().zip(&one.histogram) {
                *sum += counter.since_reset();
            }
        }
        sum.us = ns / 1000;
        sum
    }

    /// How many calls are in the histogram: those while `latency-tracking` was on.
    pub(crate) fn tracked(&self) -> u64 {
        self.histogram.iter().sum()
    }

    /// The time that `per_mille` of the calls did not exceed, in microseconds.
    pub(crate) fn percentile_us(&self, per_mille: u64) -> f64 {
        let wanted = (self.tracked() * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.histogram.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return bucket_ns_max(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// The levels of LATENCY HISTOGRAM, in the microseconds that Redis names them by: how many calls took no longer, where
    /// that is more than at the level before.
    pub(crate) fn levels(&self) -> Vec<(u64, u64)> {
        let (mut levels, mut seen, mut told) = (Vec::new(), 0, 0);
        let mut next = 0;
        for level in LEVEL_FIRST..=OCTAVE_LAST {
            let end = if level == OCTAVE_LAST { BUCKETS } else { 1 + 2 * (level - OCTAVE_FIRST) };
            seen += self.histogram[next..end].iter().sum::<u64>();
            next = end;
            if seen > told {
                told = seen;
                // The greatest value that Redis' histogram, with two digits, cannot tell from the level.
                let ns = (1u64 << level) + (1 << (level - 7)) - 1;
                levels.push((ns.min((1 << OCTAVE_LAST) - 1) / 1000, seen));
            }
        }
        levels
    }
}

/// The first words of errors that are counted, each for itself.
const KINDS: [&str; 23] = [
    "ERR",
    "WRONGTYPE",
    "OOM",
    "UNCERTAIN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "CROSSSLOT",
    "MOVED",
    "ASK",
    "READONLY",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "NOPROTO",
    "DENIED",
    "EXECABORT",
    "BUSYKEY",
    "UNBLOCKED",
    "NOSCRIPT",
    "BUSYGROUP",
];

/// How many errors of each kind were answered.
#[derive(Debug)]
pub struct ErrorStats([Counter; KINDS.len()]);

impl Default for ErrorStats {
    fn default() -> Self {
        Self(core::array::from_fn(|_| Counter::default()))
    }
}

impl ErrorStats {
    /// Counts a reply that is an error.
    #[cold]
    pub(crate) fn note(&self, reply: &[u8]) {
        let text = reply.get(1..).unwrap_or_default();
        let end = text.iter().position(|b| matches!(b, b' ' | b'\r')).unwrap_or(text.len());
        if let Some(kind) = KINDS.iter().position(|kind| kind.as_bytes() == &text[..end]) {
            self.0[kind].add(1);
        }
    }

    /// All kinds with the counts of all these shards.
    pub(crate) fn sums<'a>(
        shards: impl Iterator<Item = &'a Self> + Clone,
    ) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().enumerate().map(move |(at, kind)| {
            (*kind, shards.clone().map(|shard| shard.0[at].since_reset()).sum::<u64>())
        })
    }

    pub(crate) fn reset(&self) {
        self.0.iter().for_each(Counter::count_from_here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_their_bounds_agree() {
        for at in 0..BUCKETS - 1 {
            let end = bucket_ns_max(at);
            assert_eq!(bucket(end - 1), at, "the last of bucket {at}");
            assert_eq!(bucket(end), at + 1, "the first after bucket {at}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn levels_have_the_names_of_redis() {
        let stats = CommandStats::default();
        for (ns, calls) in [(500, 1), (1_500, 2), (30_000, 1), (2_000_000, 1), (5_000_000_000, 1)] {
            stats.executed(0, calls, ns * calls, true);
        }
        let sum = Sum::of([&stats].into_iter(), 0);
        assert_eq!(sum.levels(), [(1, 1), (2, 3), (33, 4), (2113, 5), (1_073_741, 6)]);
        assert_eq!((sum.calls, sum.us), (6, 5_002_033));
        assert_eq!(alloc::format!("{:.3}", sum.percentile_us(500)), "1.536");
        stats.reset();
        let sum = Sum::of([&stats].into_iter(), 0);
        assert_eq!((sum.calls, sum.levels().len()), (0, 0));
    }

    #[test]
    fn counters_for_managers_run_on_and_fall_into_octaves() {
        use dkv_protocol::control::command_bucket_ns_max;
        let (one, other) = (CommandStats::default(), CommandStats::default());
        let times = [0, 255, 256, 511, 512, 1_500, 1_600_000_000, u64::MAX / 2];
        for ns in times {
            one.executed(3, 1, ns, true);
            // As a bucket holds what is less than its bound, so does what is told.
            let counted = counters(&[&one]);
            let at = (0..COMMAND_BUCKETS)
                .find(|at| command_bucket_ns_max(*at).is_none_or(|max| ns < max));
            assert!(counted[0].buckets[at.unwrap()] > 0, "{ns} is not in bucket {at:?}");
        }
        other.executed(3, 4, 4_000, true);
        other.executed(3, 1, 5, false);
        other.rejected(4);
        one.reset();
        let counted = counters(&[&one, &other]);
        assert_eq!(counted.len(), 2, "what nobody called is not told");
        assert_eq!((counted[0].calls, counted[0].buckets.iter().sum::<u64>()), (13, 12));
        assert_eq!(
            counted[0].ns,
            times.iter().sum::<u64>() + 4_000,
            "only of those in the histogram"
        );
        assert_eq!((counted[1].calls, counted[1].rejected), (0, 1));
    }
}
