//! The command line of the simulator: runs seeds, says which failed, and replays one.

use clap::Parser;
use dkv_sim::{Driven, Planted, Report, planted, run, scenario::Scenario, seeds};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs the replication of a store in a simulated world, seed by seed, and checks every history.
#[derive(Parser)]
#[command(name = "dkv-sim")]
struct Arguments {
    /// Replays this seed and prints what happened.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "minutes", "committed"])]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seeds: Option<u64>,
    /// How long to run seeds.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Plants a bug; then a failure is what is looked for.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// Stops after this many failures.
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures: u64,
    /// Simulates the whole shard over its table instead of the replication alone.
    #[arg(long)]
    shard: bool,
    /// Runs each seed twice; a difference is a failure.
    #[arg(long)]
    twice: bool,
    /// Lists the bugs that can be planted.
    #[arg(long)]
    list_planted: bool,
    /// Searches a seed for each planted bug and prints it as the file of committed seeds has it.
    #[arg(long)]
    find_planted: bool,
    /// Runs the committed seeds: those of planted bugs must fail, the others must not.
    #[arg(long)]
    committed: bool,
}

impl Arguments {
    fn driven(&self) -> Driven {
        if self.shard { Driven::Shard } else { Driven::Copies }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list_planted {
        for (name, _, what) in planted::ALL {
            println!("{name:26} {what}");
        }
        return ExitCode::SUCCESS;
    }
    if arguments.committed {
        return run_committed();
    }
    if arguments.find_planted {
        return find_planted(&arguments);
    }
    let planted = match arguments.planted.as_deref().map(Planted::named) {
        None => Planted::Nothing,
        Some(Some(planted)) => planted,
        Some(None) => {
            eprintln!("no such bug; --list-planted names them");
            return ExitCode::from(2);
        }
    };
    match arguments.seed {
        Some(seed) => replay(seed, planted, arguments.driven()),
        None => run_many(&arguments, planted),
    }
}

fn replay(seed: u64, planted: Planted, driven: Driven) -> ExitCode {
    println!("{:#?}", Scenario::of(seed, planted, driven));
    let report = run(seed, planted, driven, true);
    for line in &report.lines {
        println!("{line}");
    }
    println!("{} events, hash {:016x}", report.events, report.hash);
    print_failure(seed, planted, &report);
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_failure(seed: u64, planted: Planted, report: &Report) {
    if report.passed() {
        return;
    }
    println!("seed {seed}, planted: {}", planted.name());
    for breach in &report.breaches {
        println!("  {breach}");
    }
    if report.undecided > 0 {
        println!("  {} histories were not decided", report.undecided);
    }
}

fn run_committed() -> ExitCode {
    let committed = match seeds::committed() {
        Ok(committed) => committed,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut wrong = 0;
    for line in &committed {
        let report = run(line.seed, line.planted, line.driven, false);
        let as_wanted = report.passed() == (line.planted == Planted::Nothing);
        let first = report.breaches.first().map_or("nothing found", String::as_str);
        let first = first.lines().next().unwrap_or_default();
        println!("{:26} {:>8} {first:.100}", line.planted.name(), line.seed);
        wrong += u32::from(!as_wanted);
    }
    println!("{} committed seeds, {wrong} not as they should be", committed.len());
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn find_planted(arguments: &Arguments) -> ExitCode {
    let count = arguments.seeds.unwrap_or(50_000);
    let mut missing = 0;
    for (name, planted, _) in planted::ALL {
        let seeds = arguments.from..arguments.from.saturating_add(count);
        // Only the whole shard has transactions.
        let of_shard = planted.rule().splits_transactions();
        let (driven, of) = if of_shard { (Driven::Shard, "shard ") } else { (Driven::Copies, "") };
        let found = seeds.into_iter().find_map(|seed| {
            let first = run(seed, *planted, driven, false).breaches.into_iter().next()?;
            Some((seed, first.lines().next().unwrap_or_default().to_owned()))
        });
        if let Some((seed, first)) = found {
            println!("{name} {of}{seed} {first:.60}");
        } else {
            println!("# {name}: none in {count} seeds");
            missing += 1;
        }
    }
    if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    undecided: u64,
    answered: u64,
    unknown: u64,
    refused: u64,
    changes: u64,
    offline: u64,
    events: u64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.failed += u64::from(!report.breaches.is_empty());
        self.undecided += u64::from(report.breaches.is_empty() && report.undecided > 0);
        self.answered += report.answered;
        self.unknown += report.unknown;
        self.refused += report.refused;
        self.changes += report.changes;
        self.offline += u64::from(report.offline);
        self.events += report.events;
    }
}

fn run_many(arguments: &Arguments, planted: Planted) -> ExitCode {
    let begin = Instant::now();
    let until = arguments.minutes.map(|minutes| begin + Duration::from_secs(minutes * 60));
    let count = arguments.seeds.unwrap_or(if until.is_some() { u64::MAX } else { 1000 });
    let mut totals = Totals::default();
    for seed in arguments.from..arguments.from.saturating_add(count) {
        let mut report = run(seed, planted, arguments.driven(), false);
        if arguments.twice {
            let again = run(seed, planted, arguments.driven(), false).hash;
            if again != report.hash {
                let hash = report.hash;
                report.breaches.push(format!("two runs differ: {hash:016x}, {again:016x}"));
            }
        }
        totals.add(&report);
        print_failure(seed, planted, &report);
        let enough = totals.failed + totals.undecided >= arguments.failures;
        if enough || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} seeds from {} in {seconds:.1} s ({:.0}/s), planted: {}: {} failed, {} undecided; {} commands answered, \
         {} writes unknown, {} refused; {} changes of configuration, {} ranges offline; {} events",
        totals.seeds,
        arguments.from,
        totals.seeds as f64 / seconds,
        planted.name(),
        totals.failed,
        totals.undecided,
        totals.answered,
        totals.unknown,
        totals.refused,
        totals.changes,
        totals.offline,
        totals.events,
    );
    if totals.failed + totals.undecided == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
