//! The flags of a load, and the plan that they make.

use crate::amounts;
use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::store_link::{self, LinkArgs};
use clap::builder::FalseyValueParser;
use dkv_bench::generator::{
    Arrivals, Distribution, Io, Pace, Plan, Problem, ProblemKind, Target, ValueSizes,
};
use std::path::PathBuf;
use std::time::Duration;

/// Requests a second when nobody says how many.
const RATE: f64 = 10_000.0;
/// CPUs that are left to the server and the kernel before a thread of the load polls.
const CPUS_OF_OTHERS: usize = 3;
/// Exponent of a Zipfian distribution when nobody says which: that of YCSB.
const ZIPFIAN: f64 = 0.99;

/// The flags of every load.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Any Redis-compatible servers, as HOST:PORT [default: the nodes of the store, as the managers name them]
    #[arg(
        long,
        env = "DKV_TARGET",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        conflicts_with = "endpoint"
    )]
    pub(super) target: Vec<String>,
    #[command(flatten)]
    pub(super) link: LinkArgs,
    /// Through the first node that answers, over all of them, or to each key's owner as CLUSTER SLOTS names it
    #[arg(long, env = "DKV_BENCH_ROUTE", value_enum, default_value = "one")]
    route: Route,
    /// Connections, of all threads together
    #[arg(short, long, env = "DKV_BENCH_CONNECTIONS", default_value_t = 16, value_name = "N")]
    connections: usize,
    /// Threads, each with a ring of its own
    #[arg(long, env = "DKV_BENCH_THREADS", default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Requests that one connection may have unanswered
    #[arg(short = 'P', long, env = "DKV_BENCH_PIPELINE", default_value_t = 1, value_name = "N")]
    pipeline: usize,
    /// Reads of a hundred requests; the others write [default: 90]
    #[arg(long, env = "DKV_BENCH_READS", value_name = "PERCENT", conflicts_with = "profile")]
    reads: Option<u32>,
    /// A known mix: read-heavy reads 90 of 100, write-heavy 10, mixed 50
    #[arg(long, env = "DKV_BENCH_PROFILE", value_enum)]
    profile: Option<Profile>,
    /// How many keys there are
    #[arg(long, env = "DKV_BENCH_KEYS", default_value_t = 100_000, value_name = "N")]
    keys: u64,
    /// How often each is asked for: uniform, sequential, zipfian or zipfian:EXPONENT
    #[arg(long, env = "DKV_BENCH_DISTRIBUTION", default_value = "uniform", value_parser = distribution)]
    distribution: Distribution,
    /// What stands before the number of a key; {tag} in it keeps all keys in one slot
    #[arg(long, env = "DKV_BENCH_KEY_PREFIX", default_value = "bench:", value_name = "TEXT")]
    key_prefix: String,
    /// Size of values: 100, evenly 100-1000, or by weight 64:9,4KiB:1
    #[arg(long, env = "DKV_BENCH_VALUE_SIZE", default_value = "100", value_parser = value_sizes)]
    value_size: ValueSizes,
    /// Time to live of what is written, as 90s or 5m
    #[arg(long, env = "DKV_BENCH_TTL", value_parser = amounts::duration_ms, value_name = "TIME")]
    ttl: Option<u64>,
    /// Write every key before measuring, so that reads find them
    #[arg(long, env = "DKV_BENCH_PREFILL", value_parser = FalseyValueParser::new())]
    pub(super) prefill: bool,
    /// Load before measuring
    #[arg(long, env = "DKV_BENCH_WARM_UP", default_value = "1s", value_parser = time_or_none, value_name = "TIME")]
    warm_up: Duration,
    /// How long is measured
    #[arg(long, env = "DKV_BENCH_DURATION", default_value = "10s", value_parser = time_or_none, value_name = "TIME")]
    duration: Duration,
    /// Measure so many requests at most
    #[arg(short = 'n', long, env = "DKV_BENCH_REQUESTS", value_name = "N")]
    requests: Option<u64>,
    /// Of all that is drawn: two runs of one seed ask for the same
    #[arg(long, env = "DKV_BENCH_SEED", default_value_t = 1, value_name = "N")]
    seed: u64,
    /// CPUs of the threads, in turns
    #[arg(long, env = "DKV_BENCH_CPUS", value_delimiter = ',', value_name = "CPU")]
    cpus: Vec<usize>,
    /// Poll for the last moment before a request is due and for its answer, because who sleeps wakes up some 50 us late: where
    /// CPUs are left over, always, or never
    #[arg(long, env = "DKV_BENCH_SPIN", value_enum, default_value = "auto")]
    spin: Spin,
    /// Rings where the kernel gives them, or one or the other
    #[arg(long, env = "DKV_BENCH_IO", value_enum, default_value = "auto")]
    io: IoArg,
}

/// The flags that say what makes a request due.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PaceArgs {
    /// Requests a second, whatever the server does, as 10000 or 50k [default: 10000]
    #[arg(short, long, env = "DKV_BENCH_RATE", value_parser = rate, conflicts_with = "closed", value_name = "N")]
    pub(super) rate: Option<f64>,
    /// How they lie in time
    #[arg(long, env = "DKV_BENCH_ARRIVALS", value_enum, default_value = "constant")]
    pub(super) arrivals: ArrivalsArg,
    /// Closed loop: the next request when the last is answered. Shows how much goes, hides how long a stall is felt
    #[arg(long, env = "DKV_BENCH_CLOSED", value_parser = FalseyValueParser::new())]
    pub(super) closed: bool,
}

impl PaceArgs {
    /// What they say.
    pub(super) fn pace(&self) -> Pace {
        if self.closed {
            return Pace::Closed;
        }
        Pace::Open { per_second: self.rate.unwrap_or(RATE), arrivals: self.arrivals.into() }
    }
}

/// See [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Route {
    One,
    All,
    Cluster,
}

/// See [`Arrivals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ArrivalsArg {
    /// All gaps the same
    Constant,
    /// As independent users come
    Poisson,
}

impl From<ArrivalsArg> for Arrivals {
    fn from(arrivals: ArrivalsArg) -> Self {
        match arrivals {
            ArrivalsArg::Constant => Arrivals::Constant,
            ArrivalsArg::Poisson => Arrivals::Poisson,
        }
    }
}

/// The original's mixes, and how people may spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Profile {
    /// 90 reads, 10 writes
    #[value(alias = "readheavy")]
    ReadHeavy,
    /// 10 reads, 90 writes
    #[value(alias = "writeheavy")]
    WriteHeavy,
    /// 50 of each
    Mixed,
}

impl Profile {
    pub(super) fn reads_percent(self) -> u32 {
        match self {
            Profile::ReadHeavy => 90,
            Profile::WriteHeavy => 10,
            Profile::Mixed => 50,
        }
    }

    /// The original's word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Profile::ReadHeavy => "ReadHeavy",
            Profile::WriteHeavy => "WriteHeavy",
            Profile::Mixed => "Mixed",
        }
    }
}

/// When threads poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Spin {
    Auto,
    Always,
    Never,
}

/// See [`Io`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum IoArg {
    Auto,
    Uring,
    Epoll,
}

impl LoadArgs {
    /// The plan, and the name of the store as far as it is known.
    pub(super) fn plan(
        &self,
        pace: Pace,
        spelling: Spelling,
    ) -> Result<(Plan, Option<String>), Failure> {
        let mut link = self.link.clone();
        if !self.target.is_empty() {
            link.endpoint.clone_from(&self.target);
        }
        let found = link.locate(spelling)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let plan = Plan {
            endpoints: found.endpoints,
            target: match self.route {
                Route::One => Target::One,
                Route::All => Target::All,
                Route::Cluster => Target::Cluster,
            },
            user: found.user,
            password: found.password,
            threads: self.threads,
            connections: self.connections,
            pipeline: self.pipeline,
            pace,
            distribution: self.distribution,
            keys: self.keys,
            key_prefix: self.key_prefix.clone(),
            reads_percent: self.profile.map_or(self.reads.unwrap_or(90), Profile::reads_percent),
            values: self.value_size.clone(),
            ttl_ms: self.ttl,
            warm_up: self.warm_up,
            duration: self.duration,
            requests: self.requests,
            timeout: Duration::from_secs(self.link.reach.timeout_sec),
            seed: self.seed,
            cpus: self.cpus.clone(),
            spin: match self.spin {
                // Where the server needs the CPU too, a thread that polls takes it away.
                Spin::Auto => self.threads + CPUS_OF_OTHERS <= cpus,
                Spin::Always => true,
                Spin::Never => false,
            },
            io: match self.io {
                IoArg::Auto => Io::Auto,
                IoArg::Uring => Io::Uring,
                IoArg::Epoll => Io::Epoll,
            },
        };
        plan.check().map_err(|problem| failure(&problem))?;
        Ok((plan, found.store))
    }
}

/// How a problem of the generator ends a command.
pub(super) fn failure(problem: &Problem) -> Failure {
    let exit = match problem.kind {
        ProblemKind::Usage => Exit::Usage,
        ProblemKind::Unreachable => Exit::NotConnected,
        ProblemKind::Failed => Exit::Failed,
    };
    let told = store_link::server_failure(problem.what.rsplit(": ").next().unwrap_or_default());
    let hint = if problem.hint.is_empty() { told.hint } else { problem.hint.clone() };
    Failure::new(exit, problem.what.clone(), hint)
}

/// A number a second: `10000`, `50k`, `1.5M`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.trim().char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text.trim()[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text.trim()[..at], 1e6),
        _ => (text.trim(), 1.0),
    };
    let rate = number.parse::<f64>().ok().map(|number| number * factor);
    rate.filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| format!("{text:?} is not a number of requests a second; as 10000 or 50k"))
}

/// A duration; 0 is none.
pub(super) fn time_or_none(text: &str) -> Result<Duration, String> {
    if ["0", "0s", "0ms"].contains(&text.trim()) {
        return Ok(Duration::ZERO);
    }
    amounts::duration_ms(text).map(Duration::from_millis)
}

fn distribution(text: &str) -> Result<Distribution, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "uniform" => Ok(Distribution::Uniform),
        "sequential" => Ok(Distribution::Sequential),
        "zipfian" => Ok(Distribution::Zipfian(ZIPFIAN)),
        other => other
            .strip_prefix("zipfian:")
            .and_then(|exponent| exponent.parse().ok())
            .filter(|exponent: &f64| *exponent > 0.0 && *exponent <= 5.0)
            .map(Distribution::Zipfian)
            .ok_or_else(|| {
                format!("{text:?} is not one of uniform, sequential, zipfian, zipfian:EXPONENT (above 0, up to 5)")
            }),
    }
}

fn value_sizes(text: &str) -> Result<ValueSizes, String> {
    let size = |text: &str| {
        let bytes = amounts::bytes(text)?;
        let most = dkv_protocol::limits::VALUE_BYTES_MAX as u64;
        if bytes > most {
            return Err(format!("a value has at most {} bytes", amounts::bytes_text(most)));
        }
        Ok(bytes as usize)
    };
    if text.contains(':') {
        let pairs = text.split(',').map(|pair| {
            let (bytes, weight) = pair
                .split_once(':')
                .ok_or_else(|| format!("{pair:?} has no weight; as 64:9,4KiB:1"))?;
            let weight =
                weight.trim().parse::<u64>().map_err(|_| format!("{weight:?} is not a weight"))?;
            Ok((size(bytes)?, weight))
        });
        let sizes = pairs.collect::<Result<Vec<_>, String>>()?;
        if sizes.iter().all(|(_, weight)| *weight == 0) {
            return Err("all weights are zero".into());
        }
        return Ok(ValueSizes::Histogram(sizes));
    }
    match text.split_once('-').filter(|(least, _)| !least.is_empty()) {
        Some((least, most)) => match (size(least)?, size(most)?) {
            (least, most) if least <= most => Ok(ValueSizes::Range(least, most)),
            _ => Err(format!("{text:?} begins above its end")),
        },
        None => size(text).map(ValueSizes::Fixed),
    }
}

/// What [`value_sizes`] read, in its own spelling.
pub(super) fn value_sizes_text(sizes: &ValueSizes) -> String {
    match sizes {
        ValueSizes::Fixed(size) => size.to_string(),
        ValueSizes::Range(least, most) => format!("{least}-{most}"),
        ValueSizes::Histogram(sizes) => sizes
            .iter()
            .map(|(size, weight)| format!("{size}:{weight}"))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// Where the log of histograms goes, checked before the load begins.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Also write the latencies as an HdrHistogram log
    #[arg(long, env = "DKV_BENCH_HDR_LOG", value_name = "FILE")]
    pub(super) hdr_log: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_type_them() {
        for (text, expected) in [("10000", 1e4), ("50k", 5e4), ("1.5M", 1.5e6), (" 7 ", 7.0)] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "0", "-1", "fast", "inf", "NaN"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_values_are_one_a_range_or_a_histogram() {
        let cases = [
            ("100", ValueSizes::Fixed(100)),
            ("4KiB", ValueSizes::Fixed(4096)),
            ("100-1k", ValueSizes::Range(100, 1024)),
            ("64:9,4KiB:1", ValueSizes::Histogram(vec![(64, 9), (4096, 1)])),
        ];
        for (text, expected) in cases {
            assert_eq!(value_sizes(text), Ok(expected.clone()), "{text}");
            assert_eq!(value_sizes(&value_sizes_text(&expected)), Ok(expected), "{text}");
        }
        for text in ["", "x", "-5", "9-1", "1:", "1:0", "1:1,2", "513MiB"] {
            assert!(value_sizes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn distributions_have_names() {
        assert_eq!(distribution("Zipfian"), Ok(Distribution::Zipfian(ZIPFIAN)));
        assert_eq!(distribution("zipfian:1.2"), Ok(Distribution::Zipfian(1.2)));
        for text in ["", "zipf", "zipfian:", "zipfian:0", "zipfian:6", "zipfian:NaN"] {
            assert!(distribution(text).is_err(), "{text}");
        }
    }
}
