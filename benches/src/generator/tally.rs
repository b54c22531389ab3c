//! What one thread has measured. Every part of it has a bound.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Longest latency that is told apart, in nanoseconds: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Different first words of errors that are counted apart.
const ERROR_WORDS_MAX: usize = 64;
/// Bytes of an error that are kept as its example.
const EXAMPLE_BYTES_MAX: usize = 200;

/// Latencies in nanoseconds, three digits of each.
pub type Latencies = Histogram<u64>;

/// Requests that must lie beyond a percentile before it is shown at all: of fewer it is little more than chance.
pub const SHOWN_FROM: u64 = 10;

/// Whether at least `beyond` of `count` requests lie beyond a quantile: the one rule of what samples can support.
pub fn supported_of(count: u64, quantile: f64, beyond: u64) -> bool {
    // What binary fractions lack of a whole number is far below what one request counts.
    (count as f64 * (1.0 - quantile) + 1e-5).floor() >= beyond as f64
}

/// The quantile, where at least `beyond` requests lie beyond it.
pub fn supported(latencies: &Latencies, quantile: f64, beyond: u64) -> Option<u64> {
    supported_of(latencies.len(), quantile, beyond).then(|| latencies.value_at_quantile(quantile))
}

pub(super) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants that fit")
}

/// One kind of command.
#[derive(Clone, Debug)]
pub struct Side {
    /// From the intended moment of sending to the answer. Answers alone, no errors.
    pub latency: Latencies,
    /// From the moment of sending: all that a closed loop would have seen.
    pub service: Latencies,
    /// Answers that say that there is no such key.
    pub missing: u64,
}

impl Side {
    pub(super) fn new() -> Self {
        Self { latency: latencies(), service: latencies(), missing: 0 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.service += &other.service;
        self.missing += other.missing;
    }
}

/// Errors of one first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub example: String,
}

/// Errors by their first word.
pub type Errors = BTreeMap<String, ErrorCount>;

/// Counts an error.
pub(crate) fn count_error(errors: &mut Errors, text: &str, count: u64) {
    let word = text.split(' ').next().unwrap_or_default();
    let word = word.get(..word.len().min(40)).unwrap_or("?");
    let word =
        if errors.len() >= ERROR_WORDS_MAX && !errors.contains_key(word) { "others" } else { word };
    let entry = errors.entry(word.to_owned()).or_insert_with(|| {
        let cut =
            (0..=EXAMPLE_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        ErrorCount { count: 0, example: text[..cut.unwrap_or(0)].to_owned() }
    });
    entry.count += count;
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) reads: Side,
    pub(super) writes: Side,
    pub(super) errors: Errors,
    /// How late this thread itself was with sends that nothing else held up.
    pub(super) late: Latencies,
    /// Requests that fell due and were not sent before the end.
    pub(super) unsent: u64,
    /// Requests that were sent and had no answer at the end.
    pub(super) unanswered: u64,
    pub(super) redirected: u64,
    pub(super) again: u64,
    pub(super) reconnected: u64,
    /// Replies of any kind, those of the warm-up included.
    pub(super) replies: u64,
    pub(super) cpu_ns: u64,
    /// Time spent polling with nothing to do; part of `cpu_ns`.
    pub(super) spun_ns: u64,
    pub(super) wall_ns: u64,
    /// From the first moment measured to the last answer or the end of sending, whichever is later.
    pub(super) measured_ns: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            reads: Side::new(),
            writes: Side::new(),
            errors: Errors::new(),
            late: latencies(),
            unsent: 0,
            unanswered: 0,
            redirected: 0,
            again: 0,
            reconnected: 0,
            replies: 0,
            cpu_ns: 0,
            spun_ns: 0,
            wall_ns: 0,
            measured_ns: 0,
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.reads.latency.len() + self.writes.latency.len()
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().map(|error| error.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_few_latencies_is_no_quantile_of_them() {
        let of = |count, quantile, beyond| {
            let mut latencies = latencies();
            latencies.record_n(1000, count).expect("it counts");
            supported(&latencies, quantile, beyond).is_some()
        };
        assert!(!of(999, 0.999, 1) && of(1000, 0.999, 1));
        assert!(!of(999_999, 0.999, 1000) && of(1_000_000, 0.999, 1000));
        assert!(!of(9_999_999, 0.9999, 1000) && of(10_000_000, 0.9999, 1000));
        assert!(!of(19, 0.5, 10) && of(20, 0.5, 10) && !of(0, 0.5, 1));
    }

    #[test]
    fn errors_are_counted_by_their_first_word_and_stay_bounded() {
        let mut errors = Errors::new();
        count_error(&mut errors, "OOM no memory", 1);
        count_error(&mut errors, "OOM still none", 2);
        assert_eq!(errors["OOM"], ErrorCount { count: 3, example: "OOM no memory".into() });
        for n in 0..1000 {
            count_error(&mut errors, &format!("E{n} {}", "ü".repeat(500)), 1);
        }
        assert!(errors.len() <= ERROR_WORDS_MAX + 1, "{}", errors.len());
        assert_eq!(errors.values().map(|error| error.count).sum::<u64>(), 1003);
        assert!(errors.values().all(|error| error.example.len() <= EXAMPLE_BYTES_MAX));
    }
}
