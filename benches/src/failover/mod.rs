//! The load of `dkv bench failover`: values that nobody else writes, over all nodes, and the proof afterwards that no answered
//! write was lost and nothing old was read.
//!
//! It stands apart from the generator because it asks something else: not how long requests take, but whether what was answered
//! holds. Clients are threads that wait for each answer; who kills nodes meanwhile is the caller's business, and it knows
//! nothing of managers or stores. What it keeps is bounded by the number of keys, not by how long it runs (see `ledger`).

mod caller;
mod gaps;
mod keys;
mod ledger;
mod remains;
mod routes;

pub use remains::Remains;

use crate::generator::{Dialer, Errors, Problem, count_error};
use caller::Caller;
use dkv_client::Options;
use dkv_io::clock::monotonic_ns;
use dkv_protocol::limits::{RANGES, SLOTS_PER_RANGE, VALUE_BYTES_MAX};
use gaps::Gaps;
use keys::{Keys, VALUE_BYTES_MIN};
use ledger::{Fault, Ledger};
use routes::{Map, Way};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most clients; each is a thread.
pub const CLIENTS_MAX: usize = 256;
/// Most keys: each takes some 30 bytes here.
pub const KEYS_MAX: usize = 4_000_000;
/// Faults that are kept as examples.
const EXAMPLES_MAX: usize = 10;

/// How clients reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through any node, the next one when that is gone.
    All,
    /// Each key at its owner, as CLUSTER SLOTS names it.
    Cluster,
    /// Half of the clients so and half so.
    Both,
}

/// A load.
#[derive(Clone, Debug)]
pub struct FailoverPlan {
    /// Client ports of all nodes, as `host:port`.
    pub endpoints: Vec<String>,
    /// User to log in as; none: the default user.
    pub user: Option<String>,
    /// Password; none: no AUTH is sent.
    pub password: Option<String>,
    /// How they are reached.
    pub route: Route,
    /// Clients, each with a connection to every node it needs.
    pub clients: usize,
    /// Operations a second of all clients together.
    pub per_second: f64,
    /// Keys; rounded up so that every client has some in every range.
    pub keys: usize,
    /// What stands before each key; nobody else may use it.
    pub prefix: String,
    /// Reads among a hundred operations.
    pub reads_percent: u32,
    /// Length of values; not less than 64.
    pub value_bytes: usize,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Of all that is drawn.
    pub seed: u64,
}

impl FailoverPlan {
    /// Looks for what makes no sense.
    ///
    /// # Errors
    /// The first thing that does not, with the bounds.
    pub fn check(&self) -> Result<(), Problem> {
        let within = |what: &str, flag: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let why = format!("{value} {what}: there must be {least} to {most}");
            Err(Problem::usage(why, format!("{flag} {}", value.clamp(least, most))))
        };
        within("clients", "--clients", self.clients, 1, CLIENTS_MAX)?;
        within("keys", "--keys", self.keys, 1, KEYS_MAX)?;
        within(
            "bytes of a value",
            "--value-size",
            self.value_bytes,
            VALUE_BYTES_MIN,
            VALUE_BYTES_MAX,
        )?;
        within("reads of a hundred", "--reads", self.reads_percent as usize, 0, 99)?;
        if !(self.per_second >= 1.0 && self.per_second <= 1e7) {
            let why = format!("{} operations a second is no rate: 1 to 10M", self.per_second);
            return Err(Problem::usage(why, "--rate 10k"));
        }
        Ok(())
    }

    /// Keys of each client in each range.
    fn own(&self) -> usize {
        self.keys.div_ceil(RANGES * self.clients)
    }

    fn options(&self) -> Options {
        Options {
            endpoints: self.endpoints.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            timeout: self.timeout,
            ..Options::default()
        }
    }
}

/// What has been counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Answered reads.
    pub reads: u64,
    /// Answered writes.
    pub writes: u64,
    /// Writes of which nobody knows whether they were done.
    pub uncertain: u64,
    /// Answered writes that are gone, each key counted once for each time that was seen.
    pub lost: u64,
    /// Reads of something older than what had been answered or read before.
    pub stale: u64,
    /// Values that nobody wrote, or whose write was refused.
    pub invented: u64,
    /// Requests that a node sent to another.
    pub redirected: u64,
    /// Errors by their first word.
    pub errors: Errors,
    /// Some of the lost, stale and invented, in words.
    pub examples: Vec<String>,
}

impl Counts {
    /// Errors of all kinds.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|error| error.count).sum()
    }

    /// Whether no promise was broken.
    pub fn is_sound(&self) -> bool {
        self.lost + self.stale + self.invented == 0
    }

    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.uncertain += other.uncertain;
        self.lost += other.lost;
        self.stale += other.stale;
        self.invented += other.invented;
        self.redirected += other.redirected;
        for (word, error) in &other.errors {
            let entry = self.errors.entry(word.clone());
            entry.and_modify(|sum| sum.count += error.count).or_insert_with(|| error.clone());
        }
        self.examples.extend(other.examples.iter().cloned());
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn fault(&mut self, fault: Fault, key: impl FnOnce() -> String) {
        let what = match fault {
            Fault::Lost => {
                self.lost += 1;
                "lost"
            }
            Fault::Stale => {
                self.stale += 1;
                "stale"
            }
            Fault::Invented => {
                self.invented += 1;
                "invented"
            }
        };
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{what}: {}", key()));
        }
    }
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    plan: FailoverPlan,
    own: usize,
    keys: Keys,
    ledger: Ledger,
    gaps: Gaps,
    counts: Vec<Mutex<Counts>>,
    stop: AtomicBool,
    /// Operations of all clients so far.
    turn: AtomicUsize,
}

impl Shared {
    fn counted(&self) -> Counts {
        let mut all = Counts::default();
        self.counts.iter().for_each(|counts| all.add(&lock(counts)));
        all
    }
}

/// A load that goes on until [`FailoverLoad::stop`]; one that is dropped ends too.
#[derive(Debug)]
pub struct FailoverLoad {
    shared: Arc<Shared>,
    map: Arc<Map>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FailoverLoad {
    /// Connects and begins.
    ///
    /// # Errors
    /// The plan makes no sense, or no node answers as one of a store.
    pub fn start(plan: FailoverPlan) -> Result<Self, Problem> {
        plan.check()?;
        let dialer = Dialer {
            user: plan.user.clone(),
            password: plan.password.clone(),
            timeout: plan.timeout.min(Duration::from_secs(1)),
        };
        let map = Arc::new(Map::new(dialer, plan.endpoints.clone())?);
        let own = plan.own();
        let shared = Arc::new(Shared {
            own,
            keys: Keys::new(&plan.prefix, plan.value_bytes),
            ledger: Ledger::new(own * RANGES * plan.clients),
            gaps: Gaps::new(monotonic_ns()),
            counts: (0..plan.clients).map(|_| Mutex::default()).collect(),
            stop: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            plan,
        });
        let mut load = Self { shared, map, threads: Vec::new() };
        for number in 0..load.shared.plan.clients {
            let shared = Arc::clone(&load.shared);
            let way = load.way(number);
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            let thread = thread.spawn(move || Caller::new(&shared, number, way).run());
            let thread = thread.map_err(|error| {
                Problem::failed(format!("no thread for a client: {error}"), "--clients 4")
            })?;
            load.threads.push(thread);
        }
        Ok(load)
    }

    fn way(&self, number: usize) -> Way {
        let mut options = self.shared.plan.options();
        let nodes = options.endpoints.len().max(1);
        let cluster = match self.shared.plan.route {
            Route::All => false,
            Route::Cluster => true,
            Route::Both => number % 2 == 1,
        };
        if cluster {
            return Way::Cluster(options, Arc::clone(&self.map), BTreeMap::new());
        }
        // Half of the numbers are those of cluster clients, so that turns are taken by two.
        options.endpoints.rotate_left(number / 2 % nodes);
        Way::Plain(options, Box::default())
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.counted()
    }

    /// Begins to look for gaps anew.
    pub fn begin_round(&self) {
        self.shared.gaps.begin();
    }

    /// How long each range of 64 slots went without an answer since [`FailoverLoad::begin_round`], at most.
    pub fn gaps(&self) -> Vec<Duration> {
        let longest = self.shared.gaps.longest(monotonic_ns());
        longest.into_iter().map(Duration::from_nanos).collect()
    }

    /// The ranges that the nodes with these addresses (`host:port` of any of their ports that CLUSTER SLOTS names) lead now.
    pub fn led_by(&self, endpoints: &[String]) -> Vec<usize> {
        self.map.renew();
        let routes = self.map.now();
        let leads = |range: &usize| {
            let owner = routes.owner[range * usize::from(SLOTS_PER_RANGE)];
            endpoints.contains(&routes.endpoints[usize::from(owner)])
        };
        (0..RANGES).filter(leads).collect()
    }

    /// Ends the load. What was written is still there.
    pub fn stop(mut self) -> Remains {
        self.end();
        Remains { shared: Arc::clone(&self.shared) }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                let mut counts = lock(&self.shared.counts[0]);
                count_error(&mut counts.errors, "PANIC a client of the load ended in a panic", 1);
            }
        }
    }
}

impl Drop for FailoverLoad {
    fn drop(&mut self) {
        self.end();
    }
}
