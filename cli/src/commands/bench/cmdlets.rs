//! The loads that the original's cmdlets make, with its parameters, ranges and fields.

use super::load::Profile;
use super::report::{few_note, ms};
use super::{ended, failure, interrupted, measure, prefill};
use crate::amounts;
use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::output::{self, OutputArgs};
use crate::store_link::{LinkArgs, server_failure};
use dkv_bench::generator::{Distribution, Outcome, Plan, SHOWN_FROM, ValueSizes, supported};
use serde_json::{Value, json};
use std::time::Duration;

/// Keys that such a load reads and writes at most.
const KEYS: u64 = 10_000;
/// Reads before a latency is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// Most connections of one thread.
const CONNECTIONS_OF_THREAD: usize = 256;

/// The store, and how large its values are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ObjectArgs {
    #[command(flatten)]
    link: LinkArgs,
    /// Bytes of a value, 32 to 1MiB
    #[arg(long, env = "DKV_BENCH_OBJECT_SIZE", default_value = "100", value_parser = object_size)]
    object_size: usize,
    #[command(flatten)]
    output: OutputArgs,
}

/// The flags of `dkv bench latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench latency --iterations 10000
  dkv Test-DkvLatency -StoreName TestStore -Iterations 10000 -ObjectSizeBytes 1024")]
pub(crate) struct LatencyArgs {
    /// Reads to measure
    #[arg(long, env = "DKV_BENCH_ITERATIONS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    iterations: u64,
    #[command(flatten)]
    objects: ObjectArgs,
}

/// The flags of `dkv bench throughput`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench throughput --duration-sec 10 --concurrency 64
  dkv Test-DkvThroughput -StoreName TestStore -DurationSec 10 -Concurrency 64")]
pub(crate) struct ThroughputArgs {
    /// How long
    #[arg(long, env = "DKV_BENCH_DURATION_SEC", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration_sec: u64,
    /// Clients, each with a connection
    #[arg(long, env = "DKV_BENCH_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
    #[command(flatten)]
    objects: ObjectArgs,
}

/// The flags of `dkv bench profile`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench profile read-heavy
  dkv Benchmark-DkvStore -StoreName TestStore -Profile ReadHeavy -DurationSec 60 -Concurrency 16")]
pub(crate) struct ProfileArgs {
    /// Which mix
    #[arg(value_enum, ignore_case = true)]
    profile: Profile,
    /// How long
    #[arg(long, env = "DKV_BENCH_DURATION_SEC", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration_sec: u64,
    /// Clients, each with a connection
    #[arg(long, env = "DKV_BENCH_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
    #[command(flatten)]
    objects: ObjectArgs,
}

/// The flags of `dkv bench stress`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench stress --duration-sec 600 --concurrency 128
  dkv Stress-DkvStore -StoreName TestStore -DurationSec 600 -Concurrency 128")]
pub(crate) struct StressArgs {
    /// How long
    #[arg(long, env = "DKV_BENCH_DURATION_SEC", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration_sec: u64,
    /// Clients, each with a connection
    #[arg(long, env = "DKV_BENCH_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=2048))]
    concurrency: u64,
    #[command(flatten)]
    objects: ObjectArgs,
}

fn object_size(text: &str) -> Result<usize, String> {
    let bytes = amounts::bytes(text)?;
    let fits = (32..=1024 * 1024).contains(&bytes);
    if fits { Ok(bytes as usize) } else { Err(format!("{text} is not within 32 and 1MiB")) }
}

impl ObjectArgs {
    /// A closed loop of so many clients, and the name of the store.
    fn plan(
        &self,
        clients: u64,
        seconds: u64,
        spelling: Spelling,
    ) -> Result<(Plan, String), Failure> {
        let found = self.link.locate(spelling)?;
        let connections = clients as usize;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let plan = Plan {
            endpoints: found.endpoints,
            user: found.user,
            password: found.password,
            connections,
            threads: connections.div_ceil(CONNECTIONS_OF_THREAD).min(cpus),
            keys: KEYS,
            key_prefix: "dkv-bench:".into(),
            reads_percent: 50,
            values: ValueSizes::Fixed(self.object_size),
            duration: Duration::from_secs(seconds),
            timeout: Duration::from_secs(self.link.reach.timeout_sec),
            ..Plan::default()
        };
        plan.check().map_err(|problem| failure(&problem))?;
        Ok((plan, found.store.unwrap_or_default()))
    }

    fn show(&self, fields: &[(&str, Value)]) {
        let head: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let row: Vec<Value> = fields.iter().map(|(_, value)| value.clone()).collect();
        output::record(self.output.output, &head, &row);
    }
}

/// Nothing was answered: there is no figure to show.
fn answered(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.answered() > 0 {
        return Ok(());
    }
    if outcome.interrupted {
        return Err(Failure::new(Exit::Interrupted, interrupted(outcome), ""));
    }
    let error = last_error(outcome).unwrap_or("no answer came");
    Err(Failure::failed(
        format!("not one operation succeeded: {error}"),
        server_failure(error).hint,
    ))
}

fn last_error(outcome: &Outcome) -> Option<&str> {
    outcome.errors.values().max_by_key(|error| error.count).map(|error| error.example.as_str())
}

fn code(outcome: &Outcome) -> u8 {
    if failures(outcome) == 0 { 0 } else { Exit::Partly as u8 }
}

fn failures(outcome: &Outcome) -> u64 {
    outcome.failed() + outcome.unanswered
}

fn tenth(number: f64) -> Value {
    json!((number * 10.0).round() / 10.0)
}

/// Runs `dkv bench latency`: one client, one read after the other.
pub(super) fn latency(args: &LatencyArgs, spelling: Spelling) -> Result<u8, Failure> {
    let (plan, store) = args.objects.plan(1, 3600, spelling)?;
    let plan = Plan {
        keys: plan.keys.min(args.iterations),
        distribution: Distribution::Sequential,
        reads_percent: 100,
        warm_up: WARM_UP,
        requests: Some(args.iterations),
        ..plan
    };
    prefill(&plan)?;
    let outcome = measure(&plan)?;
    answered(&outcome)?;
    let reads = &outcome.reads.latency;
    let at = |quantile| json!(supported(reads, quantile, SHOWN_FROM).map(|ns| ms(ns as f64)));
    args.objects.show(&[
        ("StoreName", json!(store)),
        ("Iterations", json!(reads.len())),
        ("ObjectSizeBytes", json!(args.objects.object_size)),
        ("MinMs", json!(ms(reads.min() as f64))),
        ("AvgMs", json!(ms(reads.mean()))),
        ("P95Ms", at(0.95)),
        ("P99Ms", at(0.99)),
        ("MaxMs", json!(ms(reads.max() as f64))),
    ]);
    if let Some(note) = few_note(reads.len()).filter(|_| reads.len() < SHOWN_FROM * 100) {
        output::note(&note);
    }
    ended(&outcome, code(&outcome))
}

/// What `throughput` and `profile` share.
fn counted(
    objects: &ObjectArgs,
    (clients, seconds): (u64, u64),
    profile: Option<Profile>,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let (mut plan, store) = objects.plan(clients, seconds, spelling)?;
    plan.reads_percent = profile.map_or(50, Profile::reads_percent);
    prefill(&plan)?;
    let outcome = measure(&plan)?;
    answered(&outcome)?;
    let mut fields = vec![
        ("StoreName", json!(store)),
        ("DurationSecRequested", json!(seconds)),
        ("DurationSecActual", json!((outcome.measured.as_secs_f64() * 100.0).round() / 100.0)),
        ("Concurrency", json!(clients)),
        ("ObjectSizeBytes", json!(objects.object_size)),
        ("TotalOperations", json!(outcome.answered())),
        ("OpsPerSecond", tenth(outcome.per_second())),
        ("Failures", json!(failures(&outcome))),
    ];
    if let Some(profile) = profile {
        fields.insert(1, ("Profile", json!(profile.name())));
    }
    objects.show(&fields);
    ended(&outcome, code(&outcome))
}

/// Runs `dkv bench throughput`.
pub(super) fn throughput(args: &ThroughputArgs, spelling: Spelling) -> Result<u8, Failure> {
    counted(&args.objects, (args.concurrency, args.duration_sec), None, spelling)
}

/// Runs `dkv bench profile`.
pub(super) fn profile(args: &ProfileArgs, spelling: Spelling) -> Result<u8, Failure> {
    counted(&args.objects, (args.concurrency, args.duration_sec), Some(args.profile), spelling)
}

/// Runs `dkv bench stress`.
pub(super) fn stress(args: &StressArgs, spelling: Spelling) -> Result<u8, Failure> {
    let (plan, store) = args.objects.plan(args.concurrency, args.duration_sec, spelling)?;
    let outcome = measure(&plan)?;
    answered(&outcome)?;
    let total = outcome.answered() + failures(&outcome);
    args.objects.show(&[
        ("StoreName", json!(store)),
        ("DurationSec", json!(args.duration_sec)),
        ("Concurrency", json!(args.concurrency)),
        ("ObjectSizeBytes", json!(args.objects.object_size)),
        ("TotalOperations", json!(total)),
        ("Failures", json!(failures(&outcome))),
        (
            "ErrorRatePct",
            json!((failures(&outcome) as f64 / total.max(1) as f64 * 1e5).round() / 1e3),
        ),
        ("LastError", json!(last_error(&outcome))),
    ]);
    ended(&outcome, code(&outcome))
}
