//! The load generator behind `dkv bench`: requests that fall due by the clock, whatever the server does (open loop), with the
//! latency of each counted from the moment it was due; or as fast as answers come (closed loop).
//!
//! One thread, one reactor and its own connections, schedule and histograms each: nothing is shared while it runs. It speaks
//! RESP and knows CLUSTER SLOTS; it does not know managers, stores or terminals.

mod arrivals;
mod dial;
mod hdr_log;
mod keys;
mod outcome;
mod plan;
mod problem;
mod random;
mod redial;
mod requests;
mod sessions;
mod tally;
mod values;
mod worker;

pub use arrivals::Arrivals;
pub use hdr_log::hdr_log;
pub use keys::Distribution;
pub use outcome::{Limit, Outcome};
pub use plan::{
    CONNECTIONS_MAX, Io, KEYS_MAX, PIPELINE_MAX, Pace, Plan, RATE_MAX, THREADS_MAX, Target,
};
pub use problem::{Problem, ProblemKind};
pub use tally::{ErrorCount, Errors, Latencies, SHOWN_FROM, Side, supported, supported_of};
pub use values::ValueSizes;

pub(crate) use dial::{Dialer, Routes};
pub(crate) use random::Random;
pub(crate) use tally::count_error;

use dkv_io::clock::monotonic_ns;
use dkv_io::{EpollReactor, Options, Reactor, UringReactor, WakeHandle};
use redial::{Desk, Post};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tally::Tally;
use worker::Worker;

/// How often the caller hears how it goes.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether the load is to end early.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Completions that fit, so that thousands of connections do not overflow the ring.
const CQ_ENTRIES: u32 = 32_768;
/// How long a node is waited for when connections are made anew: one that is silent must not keep the others waiting.
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// From the moment when all threads are ready to the first request.
const START_IN_NS: u64 = 2_000_000;

/// How it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Since the first request; warm-up counts.
    pub elapsed: Duration,
    /// Requests answered and measured so far.
    pub answered: u64,
    /// Errors so far.
    pub failed: u64,
    /// Percentiles so far, of the slowest thread and kind of request, in nanoseconds; none of too few requests.
    pub p50_ns: Option<u64>,
    /// See `p50_ns`.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: u64,
}

/// Makes the load and measures it; `progress` hears a few times a second how it goes.
///
/// # Errors
/// As [`run_until`].
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Progress)) -> Result<Outcome, Problem> {
    run_until(plan, &AtomicBool::new(false), progress)
}

/// The same, and ends early when `stop` is set: then what was measured until then is the outcome. So it is when the server
/// goes away for longer than the time-out, or turns out to be something else: [`Outcome::cut_off`] says so.
///
/// # Errors
/// It makes no sense, or nobody answers, or the server is something else, or went away before anything was answered.
pub fn run_until(
    plan: &Plan,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, Problem> {
    plan.check()?;
    let dialer =
        Dialer { user: plan.user.clone(), password: plan.password.clone(), timeout: plan.timeout };
    let nodes = if plan.target == Target::Cluster { plan.endpoints.clone() } else { Vec::new() };
    let routes = match plan.target {
        Target::Cluster => dialer.routes(&plan.endpoints)?,
        Target::One | Target::All => Routes::default(),
    };
    let posts = (0..plan.threads).map(|_| WakeHandle::new().map(|wake| Arc::new(Post::new(wake))));
    let posts: Vec<Arc<Post>> =
        posts.collect::<Result<_, _>>().map_err(|e| out_of_descriptors(&e))?;
    connect(plan, &dialer, &routes, &posts)?;
    let io = choose_io(plan.io)?;
    let desk = Desk::new(routes);
    let dialer = Dialer { timeout: plan.timeout.min(REDIAL_MAX), ..dialer };
    let tallies = std::thread::scope(|scope| {
        scope.spawn(|| desk.serve(&dialer, &nodes));
        let result = drive(scope, plan, io, &desk, &posts, stop, progress);
        desk.over();
        result
    })?;
    let mut outcome =
        Outcome::of(&tallies, if io == Io::Epoll { "epoll" } else { "io_uring" }.into());
    outcome.cut_off = desk.cut_off();
    outcome.routes_changed = desk.routes_changed();
    outcome.interrupted = outcome.cut_off.is_none() && stop.load(Relaxed);
    match outcome.cut_off {
        Some(problem) if outcome.answered() == 0 => Err(problem),
        _ => Ok(outcome),
    }
}

fn out_of_descriptors(error: &std::io::Error) -> Problem {
    Problem::failed(format!("no file descriptor is left: {error}"), "ulimit -n 65536")
}

/// The first connections, before anything is measured; what cannot be reached now is told now.
fn connect(
    plan: &Plan,
    dialer: &Dialer,
    routes: &Routes,
    posts: &[Arc<Post>],
) -> Result<(), Problem> {
    let mut endpoints = plan.endpoints.clone();
    match plan.target {
        Target::Cluster => {
            for (post, endpoint) in
                posts.iter().flat_map(|p| routes.endpoints.iter().map(move |e| (p, e)))
            {
                for _ in 0..plan.connections_of_group(routes.endpoints.len()) {
                    post.give(endpoint, dialer.dial(endpoint)?);
                }
            }
            return Ok(());
        }
        Target::One if endpoints.len() > 1 => {
            let answers = endpoints.iter().position(|endpoint| dialer.dial(endpoint).is_ok());
            endpoints.swap(0, answers.unwrap_or(0));
            endpoints.truncate(1);
        }
        Target::One | Target::All => {}
    }
    let mut turns = endpoints.iter().cycle();
    for (number, post) in posts.iter().enumerate() {
        for endpoint in turns.by_ref().take(plan.connections_of_thread(number)) {
            post.give(endpoint, dialer.dial(endpoint)?);
        }
    }
    Ok(())
}

/// Rings where they work, unless something else is asked for.
fn choose_io(wanted: Io) -> Result<Io, Problem> {
    let ring = || {
        let wake = WakeHandle::new().map_err(|error| error.to_string())?;
        UringReactor::tested(Options::new(wake)).map(|_| ()).map_err(|error| error.to_string())
    };
    match (wanted, if wanted == Io::Epoll { Ok(()) } else { ring() }) {
        (Io::Epoll, _) | (Io::Auto, Err(_)) => Ok(Io::Epoll),
        (Io::Auto | Io::Uring, Ok(())) => Ok(Io::Uring),
        (Io::Uring, Err(why)) => Err(Problem::failed(why, "--io auto takes epoll then")),
    }
}

/// What a thread says of itself.
enum Said {
    Ready,
    Ended(Box<Result<Tally, Problem>>),
}

fn drive<'scope, 'env>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    plan: &'env Plan,
    io: Io,
    desk: &'env Desk,
    posts: &[Arc<Post>],
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Vec<Tally>, Problem> {
    let (say, hear) = channel();
    let mut starts = Vec::new();
    for (number, post) in posts.iter().enumerate() {
        let (start, started) = channel();
        starts.push(start);
        let (post, say) = (Arc::clone(post), say.clone());
        scope.spawn(move || {
            let result = thread(plan, number, io, post, desk, (&say, &started));
            // Nobody listens any more when another thread has failed.
            let _ = say.send(Said::Ended(Box::new(result)));
        });
    }
    drop(say);
    for _ in posts {
        if let Ok(Said::Ended(result)) = hear.recv() {
            // The others never start: the ends of their channels are dropped here.
            return Err(result.err().unwrap_or_else(thread_died));
        }
    }
    let start_ns = monotonic_ns() + START_IN_NS;
    for start in starts {
        let _ = start.send(start_ns);
    }
    let mut tallies = Vec::new();
    let mut told = Instant::now();
    while tallies.len() < posts.len() {
        if stop.load(Relaxed) {
            desk.end();
        }
        match hear.recv_timeout(LOOK_EVERY) {
            Ok(Said::Ended(result)) => match *result {
                Ok(tally) => tallies.push(tally),
                Err(problem) => {
                    desk.abort();
                    return Err(problem);
                }
            },
            Ok(Said::Ready) => {}
            Err(RecvTimeoutError::Timeout) if told.elapsed() < PROGRESS_EVERY => {}
            Err(RecvTimeoutError::Timeout) => {
                told = Instant::now();
                progress(&so_far(posts, start_ns));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(thread_died()),
        }
    }
    Ok(tallies)
}

fn thread_died() -> Problem {
    Problem::failed("a thread of the load ended without a word", "")
}

fn so_far(posts: &[Arc<Post>], start_ns: u64) -> Progress {
    let elapsed = Duration::from_nanos(monotonic_ns().saturating_sub(start_ns));
    posts.iter().map(|post| post.told()).fold(
        Progress { elapsed, ..Progress::default() },
        |sum, one| Progress {
            elapsed,
            answered: sum.answered + one.answered,
            failed: sum.failed + one.failed,
            p50_ns: sum.p50_ns.max(one.p50_ns),
            p99_ns: sum.p99_ns.max(one.p99_ns),
            max_ns: sum.max_ns.max(one.max_ns),
        },
    )
}

/// One thread from its reactor to its tally.
fn thread(
    plan: &Plan,
    number: usize,
    io: Io,
    post: Arc<Post>,
    desk: &Desk,
    talk: (&Sender<Said>, &Receiver<u64>),
) -> Result<Tally, Problem> {
    if !plan.cpus.is_empty() {
        let cpu = plan.cpus[number % plan.cpus.len()];
        dkv_io::cpu::pin(cpu).map_err(|error| Problem::usage(error.to_string(), "--cpus 0"))?;
    }
    let options = Options { cq_entries: CQ_ENTRIES, ..Options::new(post.wake.clone()) };
    let worker = Worker::new(plan, number, post, desk);
    if io == Io::Epoll {
        let reactor = EpollReactor::new(options).map_err(|error| {
            Problem::failed(format!("no epoll for the load: {error}"), "ulimit -n 65536")
        })?;
        work(worker, number, reactor, talk)
    } else {
        let reactor = UringReactor::new(options).map_err(|error| {
            Problem::failed(format!("no ring for the load: {error}"), "--io epoll, or dkv doctor")
        })?;
        work(worker, number, reactor, talk)
    }
}

fn work(
    mut worker: Worker<'_>,
    number: usize,
    mut reactor: impl Reactor,
    (say, started): (&Sender<Said>, &Receiver<u64>),
) -> Result<Tally, Problem> {
    worker.prepare(&mut reactor);
    let _ = say.send(Said::Ready);
    // Another thread could not begin; its problem is the one that is told.
    let Ok(start_ns) = started.recv() else { return Ok(Tally::new()) };
    worker.run(number, &mut reactor, start_ns)
}

#[cfg(test)]
mod tests;
