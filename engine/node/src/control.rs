//! The control thread: everything of a node that may wait. It runs on tokio-uring, or on plain tokio where no ring is to be
//! had, unpinned, beside the shards.
//!
//! It answers the manager, greets and dials other nodes, takes signals, and ends the node. No request of a client passes
//! through it, and a shard never waits for it.

use crate::cluster::Cluster;
use crate::control_socket;
use crate::crew::Kind;
use crate::identity::IdentityLock;
use crate::mail::Post;
use crate::shared::Shared;
use crate::start::StartError;
use crate::status;
use dkv_protocol::hello::Identity;
use dkv_protocol::io::IoChoice;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// Operations of its ring: it reads a small file now and then.
const RING_ENTRIES: u32 = 16;
/// How often the gauges of the process are read, and memory that nobody uses is given back.
const PROCESS_SAMPLE: Duration = Duration::from_secs(1);
/// Shards have 2 s to answer what they have read; one that is not done long after that never will be.
const STOP_MAX: Duration = Duration::from_secs(4);

/// What the control thread runs on.
pub(crate) enum Runtime {
    Ring(tokio_uring::Runtime),
    Plain(tokio::runtime::Runtime),
}

impl Runtime {
    pub(crate) fn has_ring(&self) -> bool {
        matches!(self, Self::Ring(_))
    }

    /// Runs to the end of `future`; what it spawns on its thread runs beside it.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Ring(runtime) => runtime.block_on(future),
            Self::Plain(runtime) => LocalSet::new().block_on(runtime, future),
        }
    }
}

/// The runtime, made before the node says that it is ready: a ring can fail for want of lockable memory, as a shard's can.
pub(crate) fn runtime(kind: Kind, choice: IoChoice) -> Result<Runtime, StartError> {
    if kind == Kind::Uring {
        let ring = tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES));
        match ring {
            Ok(runtime) => return Ok(Runtime::Ring(runtime)),
            Err(error) if choice == IoChoice::Uring => {
                // What refuses this ring refuses those of the shards too, and their reactor knows how to tell the causes apart.
                let cause = match dkv_io::probe().result {
                    Err(cause) => cause.to_string(),
                    Ok(()) => format!("{error}; `dkv doctor` says which limit or filter it is"),
                };
                let text = format!("the control thread gets no ring: {cause}");
                return Err(StartError::IoUnavailable(text));
            }
            Err(error) => tracing::info!(%error, "the control thread does without a ring"),
        }
    }
    let plain = tokio::runtime::Builder::new_current_thread().enable_all().build();
    plain
        .map(Runtime::Plain)
        .map_err(|error| StartError::Failed(format!("the control thread cannot start: {error}")))
}

/// What the control thread serves.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) posts: Vec<Post>,
    pub(crate) identity: Identity,
    pub(crate) cluster: Vec<std::net::TcpListener>,
    pub(crate) socket: std::os::unix::net::UnixListener,
    pub(crate) lock: Rc<IdentityLock>,
    /// Whether its runtime has a ring.
    pub(crate) has_ring: bool,
}

impl Control {
    /// Serves until the node has stopped. `ready` is called as soon as a signal or a request finds somebody.
    pub(crate) async fn run(self, ready: impl FnOnce()) -> Result<(), StartError> {
        let failed = |error: std::io::Error| {
            StartError::Failed(format!("the control thread cannot start: {error}"))
        };
        let mut signals = Signals::new().map_err(failed)?;
        let stop = Rc::new(Notify::new());
        let socket = tokio::net::UnixListener::from_std(self.socket).map_err(failed)?;
        let cluster = Cluster::new(Arc::clone(&self.shared), self.posts.clone(), self.identity);
        let mut tasks = Vec::new();
        for listener in self.cluster {
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            tasks.push(spawn_local(Rc::clone(&cluster).accept(listener)));
        }
        cluster.dial_new();
        // The next two end with the runtime; the sampler must not be dropped in the middle of an operation.
        spawn_local(control_socket::serve(
            socket,
            self.lock,
            Arc::clone(&self.shared),
            Rc::clone(&cluster),
            Rc::clone(&stop),
        ));
        let has_ring = self.has_ring;
        sample_process(&self.shared, has_ring).await;
        let halt = Rc::new(Notify::new());
        let sampler = {
            let (halt, shared) = (Rc::clone(&halt), Arc::clone(&self.shared));
            spawn_local(async move {
                while tokio::time::timeout(PROCESS_SAMPLE, halt.notified()).await.is_err() {
                    sample_process(&shared, has_ring).await;
                    // Here, because a shard that has nothing to do never gets to it, and one that has should not stop for it.
                    dkv_io::memory::give_back_unused();
                }
            })
        };
        ready();

        tokio::select! {
            () = stop.notified() => {}
            name = signals.next() => tracing::info!(signal = name, "asked to stop by a signal"),
        }
        for task in tasks {
            task.abort();
        }
        cluster.stop_dialling();
        let result = stop_shards(&self.shared, &self.posts, &mut signals).await;
        halt.notify_one();
        let _ = sampler.await;
        result
    }
}

/// Tells the shards to stop and waits until they have. A second signal means: at once.
async fn stop_shards(
    shared: &Shared,
    posts: &[Post],
    signals: &mut Signals,
) -> Result<(), StartError> {
    for post in posts {
        post.stop(false);
    }
    let deadline = tokio::time::Instant::now() + STOP_MAX;
    let mut hurried = false;
    while !shared.all_ended() {
        tokio::select! {
            () = shared.shard_ended.notified() => {}
            name = signals.next(), if !hurried => {
                tracing::warn!(signal = name, "asked again; stopping at once");
                hurried = true;
                for post in posts {
                    post.stop(true);
                }
            }
            () = tokio::time::sleep_until(deadline) => {
                return Err(StartError::Failed("a shard did not stop in time; the node ends without it".into()));
            }
        }
    }
    Ok(())
}

async fn sample_process(shared: &Shared, has_ring: bool) {
    let cost = status::process_cost(has_ring).await;
    let gauges = &shared.env.process;
    gauges.resident_bytes.set(cost.resident_bytes);
    gauges.cpu_user_us.set(cost.user_us);
    gauges.cpu_system_us.set(cost.system_us);
}

/// The signals that a node takes. The end of a terminal is none of its business.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {}
            }
        }
    }
}
