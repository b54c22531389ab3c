//! `dkv bench failover`: unique values over all nodes while nodes are killed, stopped or relieved one after the other, and
//! whether every answered write is still there.

mod rounds;
mod show;

use super::load::{failure, rate};
use crate::amounts;
use crate::clustron::Spelling;
use crate::failure::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, OutputArgs};
use crate::reach::ReachArgs;
use crate::store_link::LinkArgs;
use dkv_agent::coordinate;
use dkv_bench::failover::{FailoverLoad, FailoverPlan, Route};
use dkv_protocol::admin::{NodeState, StoreView};
use rounds::{Breaker, Round};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest that an answer of a node is waited for: what it parks it answers within a second.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The flags of `dkv bench failover`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench failover orders --rounds 5
  dkv bench failover orders --how stop --node node2
  dkv bench failover orders --how drain --rounds 10 -o json

Clients write values that nobody else writes, over all nodes, while one node after the other is killed (its manager starts it
again), stopped and started, or relieved of what it leads and given it back. The next one follows when every range has all its
copies again. Each write asks for the value before it, and in the end every key is read: an answered write that is gone is
lost, a read of something older than what had been answered or read before it is stale. A write without an answer is
uncertain, and may be there or not. Gap is how long a range of the node that was hit went without an answer; it cannot be told
finer than what Steady says, which is the same without a fault.

It fails when something is lost, stale or invented. The keys have a prefix of their own and are deleted in the end. In a store
without copies what a killed node held is lost, so --accept-loss is needed.")]
pub(crate) struct Args {
    /// Name of the store
    name: String,
    /// What happens to a node in each round
    #[arg(long, env = "DKV_BENCH_HOW", value_enum, default_value = "kill")]
    how: How,
    /// How many rounds
    #[arg(long, env = "DKV_BENCH_ROUNDS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// The node that is hit [default: one after the other]
    #[arg(long, env = "DKV_BENCH_NODE", value_name = "NODE")]
    node: Option<String>,
    /// Load between two rounds, and before the first and after the last
    #[arg(long, env = "DKV_BENCH_PAUSE", default_value = "2s", value_parser = amounts::duration_ms, value_name = "TIME")]
    pause: u64,
    /// Longest that all copies may take to be there again
    #[arg(long, env = "DKV_BENCH_RECOVERY_MAX", default_value = "2m", value_parser = amounts::duration_ms, value_name = "TIME")]
    recovery_max: u64,
    /// Go on where the only copy of something is lost: measures how much that is
    #[arg(long, env = "DKV_BENCH_ACCEPT_LOSS", value_parser = clap::builder::FalseyValueParser::new())]
    accept_loss: bool,
    /// Leave the keys in the store
    #[arg(long, env = "DKV_BENCH_KEEP", value_parser = clap::builder::FalseyValueParser::new())]
    keep: bool,
    /// Clients, each waiting for its answer
    #[arg(short, long, env = "DKV_BENCH_CLIENTS", default_value_t = 16, value_name = "N")]
    clients: usize,
    /// Operations a second, of all clients together, as 10000 or 50k
    #[arg(short, long, env = "DKV_BENCH_RATE", default_value = "10k", value_parser = rate, value_name = "N")]
    rate: f64,
    /// Reads of a hundred operations
    #[arg(long, env = "DKV_BENCH_READS", default_value_t = 50, value_name = "PERCENT")]
    reads: u32,
    /// How many keys there are, rounded up so that every client has some in each range of slots
    #[arg(long, env = "DKV_BENCH_KEYS", default_value_t = 8192, value_name = "N")]
    keys: usize,
    /// Bytes of a value, 64 at least
    #[arg(long, env = "DKV_BENCH_VALUE_SIZE", default_value = "100", value_parser = amounts::bytes, value_name = "BYTES")]
    value_size: u64,
    /// Through any node, to each key's owner, or half of the clients so and half so
    #[arg(long, env = "DKV_BENCH_ROUTE", value_enum, default_value = "both")]
    route: RouteArg,
    /// User of the store to be [default: that of the connection, else the default user]
    #[arg(long, env = "DKV_USER", value_name = "NAME")]
    user: Option<String>,
    /// File with the password of the store, or of the user
    #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// Its process is killed, and its manager starts it again
    Kill,
    /// It hands over what it leads, stops, and is started again
    Stop,
    /// It hands over what it leads, runs on, and takes it back
    Drain,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Kill => "kill",
            How::Stop => "stop",
            How::Drain => "drain",
        }
    }
}

/// See [`Route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RouteArg {
    All,
    Cluster,
    Both,
}

/// Why the rounds ended before the last.
#[derive(Debug)]
enum Cut {
    Interrupted,
    Failed(Failure),
}

/// Runs it.
pub(super) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let reached = args.reach.group(None, spelling)?;
    let listing = coordinate::list(&reached.group);
    let Some(view) = listing.store(&args.name) else {
        let row = listing.failures().into_iter().next();
        return Err(row.map_or_else(
            || {
                let what = format!("there is no store {:?}", args.name);
                Failure::failed(what, "dkv store list")
            },
            |row| Failure::not_connected(row.message, row.hint),
        ));
    };
    check(args, view)?;
    let mut breaker = Breaker::new(&reached.group, args, view)?;
    let plan = plan(args, view, spelling)?;
    interrupt::goes_on(format!(
        "a node that is down may need: dkv store start {}; the keys that were written begin with {}",
        args.name, plan.prefix
    ));
    let early = interrupt::ends_early("the rounds");
    output::note(&format!("waiting until every range of {} has all its copies", args.name));
    breaker.await_whole(&|| early.load(Relaxed))?;
    let load = FailoverLoad::start(plan.clone()).map_err(|problem| failure(&problem))?;
    let mut rounds: Vec<Round> = Vec::new();
    let cut = rounds::run(args, &mut breaker, &load, &mut rounds, &|| early.load(Relaxed));
    let remains = load.stop();
    output::note("reading every key that was written");
    let patience = Duration::from_millis(args.recovery_max);
    let verified = remains.verify(patience, &mut |_, _| ());
    let cleaned = if args.keep { Ok(0) } else { remains.clean_up(patience) };
    interrupt::ends_at_once();
    let (counts, keys) = verified.map_err(|problem| failure(&problem))?;
    show::show(args, &plan, &rounds, &counts, keys, matches!(cut, Err(Cut::Interrupted)));
    if let Err(problem) = cleaned {
        output::warn(&format!("the keys are still there: {}; {}", problem.what, problem.hint));
    }
    if !counts.is_sound() {
        let what = format!(
            "{} answered writes are lost, {} reads were stale, {} values were never written",
            counts.lost, counts.stale, counts.invented
        );
        let hint = if view.copies.is_none() {
            "copies are chosen at creation: dkv store create NAME --replicas 1"
        } else {
            "this must not happen: keep the logs of the nodes (dkv doctor names them)"
        };
        return Err(Failure::failed(what, hint));
    }
    match cut {
        Ok(()) => Ok(0),
        Err(Cut::Interrupted) => Ok(interrupt::EXIT),
        Err(Cut::Failed(failure)) => Err(failure),
    }
}

/// Whether that can be done to this store at all.
fn check(args: &Args, view: &StoreView) -> Result<(), Failure> {
    let name = &args.name;
    if let Some(down) = view.nodes.iter().find(|node| node.state != Some(NodeState::Running)) {
        let what = format!("{} of {name} does not run", down.record.name);
        return Err(Failure::failed(what, format!("dkv store start {name}")));
    }
    if view.record.definition.replication.is_some() {
        return Ok(());
    }
    let what = format!("the store {name} has one copy of each range");
    let create = "copies are chosen at creation: dkv store create NAME --replicas 1";
    match args.how {
        How::Drain => Err(Failure::failed(
            format!("{what}: no node can take over what another one leads"),
            create,
        )),
        How::Kill | How::Stop if !args.accept_loss => Err(Failure::failed(
            format!("{what}: what a node holds is lost when it ends, that of others too"),
            format!("--accept-loss does it all the same and counts what is lost; {create}"),
        )),
        How::Kill | How::Stop => Ok(()),
    }
}

fn plan(args: &Args, view: &StoreView, spelling: Spelling) -> Result<FailoverPlan, Failure> {
    let host =
        |machine: &str| machine.rsplit_once(':').map_or(machine, |(host, _)| host).to_owned();
    let endpoints: Vec<String> = view
        .record
        .nodes
        .iter()
        .map(|node| format!("{}:{}", host(&node.machine), node.client_port))
        .collect();
    // Who to be: the flags, else the connection that is remembered for this store.
    let login = LinkArgs {
        endpoint: Vec::new(),
        store: Some(args.name.clone()),
        user: args.user.clone(),
        password_file: args.password_file.clone(),
        reach: args.reach.clone(),
    };
    let login = login.locate(spelling)?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let plan = FailoverPlan {
        endpoints,
        user: login.user,
        password: login.password,
        route: match args.route {
            RouteArg::All => Route::All,
            RouteArg::Cluster => Route::Cluster,
            RouteArg::Both => Route::Both,
        },
        clients: args.clients,
        per_second: args.rate,
        keys: args.keys,
        // Of this run alone: what another one left is not taken for ours.
        prefix: format!("bench-failover:{:x}-{}:", began.as_millis(), std::process::id()),
        reads_percent: args.reads,
        value_bytes: usize::try_from(args.value_size).unwrap_or(usize::MAX),
        timeout: ANSWER_MAX.min(Duration::from_secs(args.reach.timeout_sec)),
        seed: 1,
    };
    plan.check().map_err(|problem| failure(&problem))?;
    Ok(plan)
}

/// The failure of an operation of managers.
fn of_row(row: &coordinate::ActionRow) -> Failure {
    Failure {
        code: row.code.clone(),
        ..Failure::new(Exit::Failed, row.message.clone(), row.hint.clone())
    }
}
