//! What load is wanted, and whether it makes sense. Pure.

use super::arrivals::Arrivals;
use super::keys::Distribution;
use super::problem::Problem;
use super::requests::DIGITS;
use super::values::ValueSizes;
use dkv_protocol::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::time::Duration;

/// Most threads.
pub const THREADS_MAX: usize = 256;
/// Most connections.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Most requests of one connection that may be unanswered.
pub const PIPELINE_MAX: usize = 10_000;
/// Most keys: as many as their digits can tell apart.
pub const KEYS_MAX: u64 = 10_u64.pow(DIGITS as u32);
/// Requests of one connection that are under way while keys are written beforehand.
const FILL_PIPELINE: usize = 32;
/// Most requests a second.
pub const RATE_MAX: f64 = 1e9;

/// Which nodes the connections lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the first that answers, as a client that knows one.
    One,
    /// To all that are named, in turns, as clients behind a balancer.
    All,
    /// To whom CLUSTER SLOTS names for each key, as a cluster client.
    Cluster,
}

/// What makes a request due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The clock: so many a second, whatever is answered.
    Open {
        /// All threads together.
        per_second: f64,
        /// How they lie in time.
        arrivals: Arrivals,
    },
    /// The answers to the last ones: as fast as the server goes, and blind while it stands still.
    Closed,
}

/// Which reactor the threads have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Rings where the kernel gives them, else epoll.
    #[default]
    Auto,
    /// Rings or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes, as `host:port`.
    pub endpoints: Vec<String>,
    /// Which of them.
    pub target: Target,
    /// User to log in as; none: the default user.
    pub user: Option<String>,
    /// Password; none: no AUTH is sent.
    pub password: Option<String>,
    /// Threads, each with a reactor.
    pub threads: usize,
    /// Connections of all threads together.
    pub connections: usize,
    /// Requests of one connection that may be unanswered.
    pub pipeline: usize,
    /// What makes a request due.
    pub pace: Pace,
    /// Which keys are asked for how often.
    pub distribution: Distribution,
    /// How many keys there are.
    pub keys: u64,
    /// What stands before the number of a key.
    pub key_prefix: String,
    /// Reads among a hundred requests; the others write.
    pub reads_percent: u32,
    /// How long written values are.
    pub values: ValueSizes,
    /// Time to live of what is written, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// What comes before measuring.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// How many requests are measured at most.
    pub requests: Option<u64>,
    /// How long an answer, or a server that went away, is waited for.
    pub timeout: Duration,
    /// Of all that is drawn.
    pub seed: u64,
    /// CPUs of the threads, in turns; none: wherever the kernel puts them.
    pub cpus: Vec<usize>,
    /// Whether threads poll for the last moment before a request is due: a sleeper wakes up too late.
    pub spin: bool,
    /// Which reactor.
    pub io: Io,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            target: Target::One,
            user: None,
            password: None,
            threads: 1,
            connections: 16,
            pipeline: 1,
            pace: Pace::Closed,
            distribution: Distribution::Uniform,
            keys: 100_000,
            key_prefix: "bench:".into(),
            reads_percent: 90,
            values: ValueSizes::Fixed(100),
            ttl_ms: None,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            requests: None,
            timeout: Duration::from_secs(5),
            seed: 1,
            cpus: Vec::new(),
            spin: false,
            io: Io::Auto,
        }
    }
}

impl Plan {
    /// Looks for what makes no sense.
    ///
    /// # Errors
    /// The first thing that does not, with the bounds.
    pub fn check(&self) -> Result<(), Problem> {
        let within = |what: &str, flag: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let why = format!("{value} {what}: there must be {least} to {most}");
            Err(Problem::usage(why, format!("{flag} {}", value.clamp(least, most))))
        };
        if self.endpoints.is_empty() {
            return Err(Problem::usage("no server is named", "--target 127.0.0.1:6379"));
        }
        within("keys", "--keys", self.keys, 1, KEYS_MAX)?;
        within("threads", "--threads", self.threads as u64, 1, THREADS_MAX as u64)?;
        within("connections", "--connections", self.connections as u64, 1, CONNECTIONS_MAX as u64)?;
        within(
            "requests in a pipeline",
            "--pipeline",
            self.pipeline as u64,
            1,
            PIPELINE_MAX as u64,
        )?;
        within("reads of a hundred", "--reads", u64::from(self.reads_percent), 0, 100)?;
        if self.threads > self.connections {
            let why = format!(
                "{} threads for {} connections: each thread needs one",
                self.threads, self.connections
            );
            return Err(Problem::usage(why, format!("--threads {}", self.connections)));
        }
        let longest = KEY_BYTES_MAX - DIGITS;
        if self.key_prefix.len() > longest {
            let why = format!("a key prefix of {} bytes is too long", self.key_prefix.len());
            return Err(Problem::usage(why, format!("--key-prefix with at most {longest} bytes")));
        }
        within(
            "bytes of a value",
            "--value-size",
            self.values.max() as u64,
            0,
            VALUE_BYTES_MAX as u64,
        )?;
        self.check_pace()
    }

    fn check_pace(&self) -> Result<(), Problem> {
        let sizes = match &self.values {
            ValueSizes::Range(least, most) => least <= most,
            ValueSizes::Histogram(sizes) => sizes.iter().any(|(_, weight)| *weight > 0),
            ValueSizes::Fixed(_) => true,
        };
        if !sizes {
            let hint = "--value-size 100-1000, or --value-size 100:9,1000:1";
            return Err(Problem::usage("these value sizes cannot be drawn from", hint));
        }
        if let Distribution::Zipfian(exponent) = self.distribution
            && !(exponent > 0.0 && exponent <= 5.0)
        {
            let why =
                format!("{exponent} is no exponent of a Zipfian distribution: above 0, up to 5");
            return Err(Problem::usage(why, "--distribution zipfian:0.99"));
        }
        if let Pace::Open { per_second, .. } = self.pace
            && !(per_second > 0.0 && per_second <= RATE_MAX)
        {
            let why =
                format!("{per_second} requests a second is no rate: above 0, up to {RATE_MAX}");
            return Err(Problem::usage(why, "--rate 10000, or --closed for as fast as it goes"));
        }
        if self.duration.is_zero() || self.requests == Some(0) {
            return Err(Problem::usage("there is nothing to measure", "--duration 10s"));
        }
        Ok(())
    }

    /// What writes each key of `load` once, as fast as it goes and over the same nodes.
    #[must_use]
    pub fn fill_of(load: &Plan) -> Plan {
        Plan {
            pace: Pace::Closed,
            distribution: Distribution::Sequential,
            reads_percent: 0,
            requests: Some(load.keys),
            pipeline: FILL_PIPELINE,
            warm_up: Duration::ZERO,
            duration: Duration::MAX,
            ..load.clone()
        }
    }

    /// Connections of one thread.
    pub(super) fn connections_of_thread(&self, number: usize) -> usize {
        self.connections / self.threads + usize::from(number < self.connections % self.threads)
    }

    /// Connections of one thread to each of so many nodes; one at least, else the node could not be asked.
    pub(super) fn connections_of_group(&self, groups: usize) -> usize {
        (self.connections / self.threads / groups.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { endpoints: vec!["a:1".into()], ..Plan::default() }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_bounds() {
        assert_eq!(plan().check(), Ok(()));
        let open = |per_second| Pace::Open { per_second, arrivals: Arrivals::Constant };
        let cases = [
            (Plan { endpoints: Vec::new(), ..plan() }, "no server"),
            (Plan { keys: 0, ..plan() }, "0 keys"),
            (Plan { keys: KEYS_MAX + 1, ..plan() }, "keys"),
            (Plan { threads: 0, ..plan() }, "0 threads"),
            (Plan { threads: 17, ..plan() }, "each thread needs one"),
            (Plan { connections: 0, ..plan() }, "0 connections"),
            (Plan { pipeline: 0, ..plan() }, "0 requests in a pipeline"),
            (Plan { reads_percent: 101, ..plan() }, "101 reads"),
            (Plan { values: ValueSizes::Fixed(VALUE_BYTES_MAX + 1), ..plan() }, "bytes of a value"),
            (Plan { values: ValueSizes::Range(2, 1), ..plan() }, "value sizes"),
            (Plan { values: ValueSizes::Histogram(vec![(1, 0)]), ..plan() }, "value sizes"),
            (Plan { key_prefix: "k".repeat(KEY_BYTES_MAX), ..plan() }, "key prefix"),
            (Plan { distribution: Distribution::Zipfian(0.0), ..plan() }, "exponent"),
            (Plan { distribution: Distribution::Zipfian(f64::NAN), ..plan() }, "exponent"),
            (Plan { pace: open(0.0), ..plan() }, "no rate"),
            (Plan { pace: open(f64::INFINITY), ..plan() }, "no rate"),
            (Plan { duration: Duration::ZERO, ..plan() }, "nothing to measure"),
            (Plan { requests: Some(0), ..plan() }, "nothing to measure"),
        ];
        for (plan, expected) in cases {
            let problem = plan.check().expect_err(expected);
            assert!(problem.what.contains(expected), "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
        }
    }

    #[test]
    fn every_connection_belongs_to_a_thread() {
        let plan = Plan { connections: 11, threads: 4, ..plan() };
        assert_eq!((0..4).map(|n| plan.connections_of_thread(n)).collect::<Vec<_>>(), [3, 3, 3, 2]);
        assert_eq!((plan.connections_of_group(2), plan.connections_of_group(100)), (1, 1));
    }
}
