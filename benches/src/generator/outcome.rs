//! What a load has measured, and whether the load itself was the limit. Pure.

use super::problem::Problem;
use super::tally::{Errors, Latencies, Side, Tally, latencies};
use std::time::Duration;

/// A thread that worked for so great a share of its time could not have done much more.
const BUSY_SHARE: f64 = 0.9;
/// Sends of its own making that are later than this belong to the generator and not to the server.
const LATE_NS: u64 = 1_000_000;
/// A rate is held when so great a share of it was sent.
const HELD_SHARE: f64 = 0.99;

/// What has been measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of GET.
    pub reads: Side,
    /// Of SET.
    pub writes: Side,
    /// Errors by their first word.
    pub errors: Errors,
    /// How late sends were that nothing but the generator held up.
    pub late: Latencies,
    /// Requests that fell due and were not sent.
    pub unsent: u64,
    /// Requests that were sent and had no answer when the run was over.
    pub unanswered: u64,
    /// Requests that a node sent to another.
    pub redirected: u64,
    /// Requests of a cluster client that were asked again because their connection ended, as its library would; their
    /// latency went on.
    pub again: u64,
    /// How often the map of slots changed under a cluster client.
    pub routes_changed: u64,
    /// Connections that were made anew.
    pub reconnected: u64,
    /// How long was measured; the time until the last answer counts.
    pub measured: Duration,
    /// CPU time of all threads, without that spent polling, for each request answered, in nanoseconds.
    pub cpu_ns_per_request: f64,
    /// Share of its time for which the busiest thread worked, polling left out.
    pub busiest: f64,
    /// Which reactor the threads had.
    pub io: String,
    /// It was ended early on request.
    pub interrupted: bool,
    /// Why it ended early otherwise: the server went away, or is something else.
    pub cut_off: Option<Problem>,
}

/// Why the figures say more of the generator than of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Limit {
    /// A thread had no more time: its share of work.
    Busy(f64),
    /// One of a hundred sends was so late, in nanoseconds, with a connection free.
    Late(u64),
    /// So many requests fell due and were not sent.
    Unsent(u64),
    /// So many requests were sent and never answered; they are in no percentile.
    Unanswered(u64),
}

impl Outcome {
    pub(super) fn of(tallies: &[Tally], io: String) -> Self {
        let mut outcome = Self {
            reads: Side::new(),
            writes: Side::new(),
            errors: Errors::new(),
            late: latencies(),
            unsent: 0,
            unanswered: 0,
            redirected: 0,
            again: 0,
            routes_changed: 0,
            reconnected: 0,
            measured: Duration::ZERO,
            cpu_ns_per_request: 0.0,
            busiest: 0.0,
            io,
            interrupted: false,
            cut_off: None,
        };
        let (mut worked_ns, mut requests) = (0, 0);
        for tally in tallies {
            outcome.reads.add(&tally.reads);
            outcome.writes.add(&tally.writes);
            for (word, error) in &tally.errors {
                let entry = outcome.errors.entry(word.clone());
                entry.and_modify(|sum| sum.count += error.count).or_insert_with(|| error.clone());
            }
            outcome.late += &tally.late;
            outcome.unsent += tally.unsent;
            outcome.unanswered += tally.unanswered;
            outcome.redirected += tally.redirected;
            outcome.again += tally.again;
            outcome.reconnected += tally.reconnected;
            outcome.measured = outcome.measured.max(Duration::from_nanos(tally.measured_ns));
            let worked = tally.cpu_ns.saturating_sub(tally.spun_ns);
            worked_ns += worked;
            requests += tally.replies;
            outcome.busiest = outcome.busiest.max(worked as f64 / tally.wall_ns.max(1) as f64);
        }
        outcome.cpu_ns_per_request = worked_ns as f64 / requests.max(1) as f64;
        outcome
    }

    /// Requests answered, errors left out.
    pub fn answered(&self) -> u64 {
        self.reads.latency.len() + self.writes.latency.len()
    }

    /// Errors.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|error| error.count).sum()
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answered() as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    /// Of both kinds of request together.
    pub fn latency(&self) -> Latencies {
        let mut both = self.reads.latency.clone();
        both += &self.writes.latency;
        both
    }

    /// From the moment of sending: what a closed loop would have said.
    pub fn service(&self) -> Latencies {
        let mut both = self.reads.service.clone();
        both += &self.writes.service;
        both
    }

    /// What to know before believing the figures.
    pub fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        if self.busiest >= BUSY_SHARE {
            limits.push(Limit::Busy(self.busiest));
        }
        let late = self.late.value_at_quantile(0.99);
        if !self.late.is_empty() && late >= LATE_NS {
            limits.push(Limit::Late(late));
        }
        if self.unsent > 0 {
            limits.push(Limit::Unsent(self.unsent));
        }
        if self.unanswered > 0 {
            limits.push(Limit::Unanswered(self.unanswered));
        }
        limits
    }

    /// Whether the rate asked for was held: nearly everything that fell due was sent and answered.
    pub fn held_its_rate(&self) -> bool {
        let done = (self.answered() + self.failed()) as f64;
        done >= HELD_SHARE * (done + (self.unsent + self.unanswered) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::count_error;
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::new();
        tally.reads.latency.record_n(1_000_000, 900).expect("in bounds");
        tally.writes.latency.record_n(3_000_000, 100).expect("in bounds");
        count_error(&mut tally.errors, "OOM no", 2);
        Tally {
            measured_ns: 500_000_000,
            wall_ns: 1000,
            cpu_ns: 500,
            spun_ns: 100,
            replies: 4,
            ..tally
        }
    }

    #[test]
    fn threads_add_up() {
        let busier = Tally { cpu_ns: 1000, ..tally() };
        let outcome = Outcome::of(&[tally(), busier], "epoll".into());
        assert_eq!((outcome.answered(), outcome.failed()), (2000, 4));
        assert!((outcome.per_second() - 4000.0).abs() < 1.0, "{}", outcome.per_second());
        assert!((outcome.busiest - 0.9).abs() < 1e-9);
        assert!(
            (outcome.cpu_ns_per_request - 162.5).abs() < 1e-9,
            "{}",
            outcome.cpu_ns_per_request
        );
        assert_eq!(outcome.latency().len(), 2000);
    }

    #[test]
    fn the_generator_says_when_it_is_the_limit() {
        let of = |tally: Tally| Outcome::of(&[tally], String::new());
        assert_eq!(of(tally()).limits(), []);
        assert!(matches!(of(Tally { cpu_ns: 1050, ..tally() }).limits()[..], [Limit::Busy(_)]));
        let mut late = tally();
        late.late.record_n(2_000_000, 10).expect("in bounds");
        assert!(matches!(of(late).limits()[..], [Limit::Late(2_000_000..)]));
        let short = of(Tally { unsent: 100, unanswered: 7, ..tally() });
        assert_eq!(short.limits(), [Limit::Unsent(100), Limit::Unanswered(7)]);
        assert!(!short.held_its_rate() && of(tally()).held_its_rate());
    }
}
