//! What threads of the load leave to another thread, because it blocks: connections in place of those that ended, and the
//! map of slots when it has changed.

use super::dial::{Dialer, Routes};
use super::problem::Problem;
use super::tally::{SHOWN_FROM, Tally, supported};
use dkv_io::WakeHandle;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after a failure the same is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// The map of slots is asked for no more often. What moves last before a node is stopped must be known before it is.
const ROUTES_EVERY: Duration = Duration::from_millis(20);
/// And no less often: a node that serves what another one leads by now does not say so.
const ROUTES_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// How it goes on one thread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) max_ns: u64,
}

/// Where one thread gets its connections, and says how it goes.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) wake: WakeHandle,
    /// None in place of a connection: nobody is there, and by the map nobody need be.
    connections: Mutex<Vec<(String, Option<TcpStream>)>>,
    told: Mutex<Told>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked is told of where it is joined; plain data has no broken state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Post {
    pub(super) fn new(wake: WakeHandle) -> Self {
        Self { wake, connections: Mutex::default(), told: Mutex::default() }
    }

    pub(super) fn give(&self, endpoint: &str, socket: TcpStream) {
        lock(&self.connections).push((endpoint.to_owned(), Some(socket)));
        self.wake.wake();
    }

    fn give_up(&self, endpoint: String) {
        lock(&self.connections).push((endpoint, None));
        self.wake.wake();
    }

    pub(super) fn take(&self) -> Vec<(String, Option<TcpStream>)> {
        std::mem::take(&mut *lock(&self.connections))
    }

    pub(super) fn tell(&self, tally: &Tally) {
        let (reads, writes) = (&tally.reads.latency, &tally.writes.latency);
        let of = |latencies, quantile| supported(latencies, quantile, SHOWN_FROM);
        let worst = |quantile| of(reads, quantile).max(of(writes, quantile));
        *lock(&self.told) = Told {
            answered: tally.answered(),
            failed: tally.failed(),
            p50_ns: worst(0.5),
            p99_ns: worst(0.99),
            max_ns: reads.max().max(writes.max()),
        };
    }

    pub(super) fn told(&self) -> Told {
        *lock(&self.told)
    }
}

/// What is wanted. As many connections as the load has, at most.
#[derive(Debug, Default)]
struct Wanted {
    connections: Vec<(Arc<Post>, String)>,
    routes: bool,
    over: bool,
}

/// The desk of the thread that dials.
#[derive(Debug)]
pub(super) struct Desk {
    /// A thread has failed: the others need not go on.
    aborted: AtomicBool,
    /// The load ends now, with what was measured.
    ended: AtomicBool,
    /// Why, when nobody asked for it.
    cut_off: Mutex<Option<Problem>>,
    wanted: Mutex<Wanted>,
    news: Condvar,
    routes: Mutex<Arc<Routes>>,
    version: AtomicU64,
}

impl Desk {
    pub(super) fn new(routes: Routes) -> Self {
        Self {
            aborted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            cut_off: Mutex::default(),
            wanted: Mutex::default(),
            news: Condvar::new(),
            routes: Mutex::new(Arc::new(routes)),
            version: AtomicU64::new(1),
        }
    }

    pub(super) fn want_connection(&self, post: &Arc<Post>, endpoint: &str) {
        lock(&self.wanted).connections.push((Arc::clone(post), endpoint.to_owned()));
        self.news.notify_one();
    }

    pub(super) fn want_routes(&self) {
        let mut wanted = lock(&self.wanted);
        if !wanted.routes {
            wanted.routes = true;
            self.news.notify_one();
        }
    }

    /// The map of slots, if it is newer than the version known.
    pub(super) fn newer_routes(&self, known: u64) -> Option<(u64, Arc<Routes>)> {
        let version = self.version.load(Relaxed);
        (version != known).then(|| (version, Arc::clone(&lock(&self.routes))))
    }

    /// How often the map of slots has changed.
    pub(super) fn routes_changed(&self) -> u64 {
        self.version.load(Relaxed) - 1
    }

    pub(super) fn abort(&self) {
        self.aborted.store(true, Relaxed);
    }

    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Relaxed)
    }

    /// The load ends now.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// The same, because of a problem; the first that is told is kept.
    pub(super) fn cut(&self, problem: Problem) {
        lock(&self.cut_off).get_or_insert(problem);
        self.end();
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(super) fn cut_off(&self) -> Option<Problem> {
        lock(&self.cut_off).clone()
    }

    /// Ends [`Desk::serve`].
    pub(super) fn over(&self) {
        lock(&self.wanted).over = true;
        self.news.notify_one();
    }

    /// Dials until the run is over. `nodes` are those that are asked for the map of slots; none: there is no map.
    pub(super) fn serve(&self, dialer: &Dialer, nodes: &[String]) {
        let mut routes_at = Instant::now();
        let mut nodes = nodes.to_vec();
        loop {
            let mut wanted = lock(&self.wanted);
            let idle = |wanted: &Wanted| {
                wanted.connections.is_empty() && (!wanted.routes || nodes.is_empty())
            };
            while !wanted.over && idle(&wanted) {
                let waited = self.news.wait_timeout(wanted, ROUTES_AT_LEAST_EVERY);
                let (now, late) = waited.unwrap_or_else(PoisonError::into_inner);
                wanted = now;
                wanted.routes |= late.timed_out();
            }
            if wanted.over {
                return;
            }
            let connections = std::mem::take(&mut wanted.connections);
            let routes = std::mem::take(&mut wanted.routes) && !nodes.is_empty();
            drop(wanted);
            let mut again = false;
            if routes {
                let rest = routes_at.saturating_duration_since(Instant::now());
                let wanted = lock(&self.wanted);
                let _ = self.news.wait_timeout_while(wanted, rest, |wanted| !wanted.over);
                routes_at = Instant::now() + ROUTES_EVERY;
                if let Ok(found) = dialer.routes(&nodes) {
                    self.publish(found, &mut nodes);
                } else {
                    again = true;
                    self.want_routes();
                }
            }
            // A host that is silent keeps the others waiting once, and not for each of its connections.
            let mut away: Vec<String> = Vec::new();
            for (post, endpoint) in connections {
                if lock(&self.wanted).over {
                    return;
                }
                let dialled = (!away.contains(&endpoint)).then(|| dialer.dial(&endpoint));
                if let Some(Ok(socket)) = dialled {
                    post.give(&endpoint, socket);
                    continue;
                }
                if !away.contains(&endpoint) {
                    away.push(endpoint.clone());
                }
                if self.is_left(&endpoint) {
                    post.give_up(endpoint);
                } else {
                    again = true;
                    self.want_connection(&post, &endpoint);
                }
            }
            if again {
                // Who is away may not be needed any more.
                self.want_routes();
                let wanted = lock(&self.wanted);
                let _ = self.news.wait_timeout_while(wanted, AGAIN, |wanted| !wanted.over);
            }
        }
    }

    /// Whether there is a map of slots in which this one has none.
    fn is_left(&self, endpoint: &String) -> bool {
        let routes = lock(&self.routes);
        !routes.endpoints.is_empty() && !routes.endpoints.contains(endpoint)
    }

    fn publish(&self, found: Routes, nodes: &mut Vec<String>) {
        for endpoint in &found.endpoints {
            // A store may move away from all the nodes that were named.
            if !nodes.contains(endpoint) && nodes.len() < 1024 {
                nodes.push(endpoint.clone());
            }
        }
        let mut routes = lock(&self.routes);
        if **routes != found {
            *routes = Arc::new(found);
            self.version.fetch_add(1, Relaxed);
        }
    }
}
