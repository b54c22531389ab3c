//! `dkv bench`: load from this machine on a store or on any Redis-compatible server, and what it measured.

mod cmdlets;
mod compare;
mod curve;
mod failover;
mod load;
mod report;
mod sweep;

use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, OutputArgs};
use dkv_bench::generator::{self, Outcome, Plan, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use load::{LoadArgs, LogArgs, PaceArgs, failure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The flags of `dkv bench`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  dkv bench
  dkv bench --rate 50k --duration 30s --profile mixed --prefill
  dkv bench --target 127.0.0.1:6379 --closed --connections 50 --pipeline 16
  dkv bench --route cluster --distribution zipfian --value-size 64:9,4KiB:1 -o json > a.json
  dkv bench --compare a.json b.json

Requests fall due by the clock, and the latency of each counts from when it was due: a server that stands still for half a
second delays all that fell due meanwhile, as its users would feel it. SinceSend is what a closed loop would have said.
Exit code 4: part of the requests failed, or the rate could not be held. Ctrl-C ends the load and shows what was measured
until then (130), and so does a server that goes away (3); once more Ctrl-C ends it at once."
)]
pub(crate) struct Args {
    /// A load with a purpose of its own.
    #[command(subcommand)]
    command: Option<Command>,
    /// Show how the second of two results (of -o json) differs from the first, and make no load
    #[arg(long, env = "DKV_BENCH_COMPARE", num_args = 2, value_name = "FILE")]
    compare: Vec<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The subcommands of `dkv bench`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Reads one key after the other, and how long each took
    Latency(cmdlets::LatencyArgs),
    /// As many requests as so many clients get through
    Throughput(cmdlets::ThroughputArgs),
    /// The same with a known mix of reads and writes
    Profile(cmdlets::ProfileArgs),
    /// Reads and writes for a long time, and how many failed
    Stress(cmdlets::StressArgs),
    /// The highest rate that keeps latency within a bound, and the curve
    Sweep(Box<sweep::Args>),
    /// Unique values while nodes are killed, and whether every answered write is still there
    Failover(Box<failover::Args>),
}

/// Runs it.
pub(crate) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    raise_descriptor_limit();
    interrupt::goes_on("the keys that were written stay in the store");
    match &args.command {
        Some(Command::Latency(args)) => return cmdlets::latency(args, spelling),
        Some(Command::Throughput(args)) => return cmdlets::throughput(args, spelling),
        Some(Command::Profile(args)) => return cmdlets::profile(args, spelling),
        Some(Command::Stress(args)) => return cmdlets::stress(args, spelling),
        Some(Command::Sweep(args)) => return sweep::run(args, spelling),
        Some(Command::Failover(args)) => return failover::run(args, spelling),
        None => {}
    }
    let format = args.output.output;
    if let [first, second] = args.compare.as_slice() {
        return compare::run(first, second, format);
    }
    let (plan, store) = args.load.plan(args.pace.pace(), spelling)?;
    if let Some(path) = &args.log.hdr_log {
        // A file that cannot be written is better known before the load than after it.
        std::fs::write(path, "").map_err(|error| Failure::file(path, &error))?;
    }
    if args.load.prefill {
        prefill(&plan)?;
    }
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let outcome = measure(&plan)?;
    if let Some(path) = &args.log.hdr_log {
        write_log(path, &outcome, began)?;
    }
    report::show(format, &plan, store.as_deref(), &outcome)
}

/// Makes the load, with a line on how it goes where somebody looks on.
fn measure(plan: &Plan) -> Result<Outcome, Failure> {
    // Hidden where standard error is no terminal, and cut to its width.
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}"));
    let mut last = Progress::default();
    let stop = interrupt::ends_early("the load");
    let outcome = generator::run_until(plan, stop, &mut |now| {
        bar.set_message(live_line(&last, now));
        bar.tick();
        last = *now;
    });
    bar.finish_and_clear();
    interrupt::ends_at_once();
    outcome.map_err(|problem| failure(&problem))
}

/// How a command ends whose result has been shown: as `code` says, unless the load was ended early.
fn ended(outcome: &Outcome, code: u8) -> Result<u8, Failure> {
    if let Some(problem) = &outcome.cut_off {
        let failure = failure(problem);
        let what = format!("{}; the result is of the time until then", failure.what);
        return Err(Failure { what, ..failure });
    }
    if outcome.interrupted {
        output::note(&interrupted(outcome));
        return Ok(interrupt::EXIT);
    }
    Ok(code)
}

fn interrupted(outcome: &Outcome) -> String {
    match outcome.measured.as_secs_f64() {
        0.0 => "interrupted before anything was measured".into(),
        seconds => format!("interrupted after {seconds:.1} s"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// What has happened since the last line, and the percentiles so far.
fn live_line(last: &Progress, now: &Progress) -> String {
    let since = now.elapsed.saturating_sub(last.elapsed).as_secs_f64().max(1e-9);
    let rate = now.answered.saturating_sub(last.answered) as f64 / since;
    let known = report::known;
    let errors = if now.failed > 0 { format!(", {} errors", now.failed) } else { String::new() };
    format!(
        "{:.0} s  {rate:.0}/s{errors}  p50 {}  p99 {}  max {} ms",
        now.elapsed.as_secs_f64(),
        known(now.p50_ns),
        known(now.p99_ns),
        report::ms_text(now.max_ns)
    )
}

/// Writes every key once.
fn prefill(plan: &Plan) -> Result<(), Failure> {
    let fill = Plan::fill_of(plan);
    let bar = ProgressBar::new(plan.keys)
        .with_style(style("prefill {bar:30} {human_pos} of {human_len} keys"));
    let stop = interrupt::ends_early("the prefill");
    let outcome = generator::run_until(&fill, stop, &mut |now| bar.set_position(now.answered));
    bar.finish_and_clear();
    interrupt::ends_at_once();
    let outcome = outcome.map_err(|problem| failure(&problem))?;
    let written = || format!("{} of {} keys were written", outcome.answered(), plan.keys);
    if let Some(problem) = &outcome.cut_off {
        let failure = failure(problem);
        return Err(Failure { what: format!("{}; {}", failure.what, written()), ..failure });
    }
    if outcome.interrupted {
        let what = format!("interrupted before the load: {}", written());
        return Err(Failure::new(Exit::Interrupted, what, ""));
    }
    match outcome.errors.values().next() {
        Some(error) => {
            let told = crate::store_link::server_failure(&error.example);
            let what = format!(
                "{} of {} keys could not be written: {}",
                outcome.failed(),
                plan.keys,
                error.example
            );
            Err(Failure::new(Exit::Failed, what, told.hint))
        }
        None if outcome.answered() < plan.keys => {
            let what =
                format!("only {} of {} keys were answered for", outcome.answered(), plan.keys);
            Err(Failure::timed_out(what, "--timeout-sec 60 waits longer"))
        }
        None => Ok(()),
    }
}

fn write_log(path: &Path, outcome: &Outcome, began: Duration) -> Result<(), Failure> {
    let log = generator::hdr_log(outcome, began);
    std::fs::write(path, log).map_err(|error| Failure::file(path, &error))
}

/// Thousands of connections need as many descriptors; the usual limit is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // When it cannot be raised, opening the connections says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
