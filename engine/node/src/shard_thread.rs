//! One shard's thread: pinned, with a reactor that is built and tested on it, then given its share of the node.
//!
//! A thread comes up in two steps, because what the node says about itself (which kernel features it uses) is known only
//! when the reactors stand, and a shard is born knowing it. From then on all of the thread is code for one kind of reactor: which
//! one it is costs nothing on the way of a request.

use crate::crew::Kind;
use crate::driver::Driver;
use crate::mail::{Letterbox, Post};
use crate::memory::NodeMemory;
use crate::shared::Shared;
use crate::start::StartError;
use dkv_io::{EpollReactor, Options, Reactor, UringReactor, WakeHandle};
use dkv_protocol::launch::exit;
use dkv_shard::{PortKind, Shard};
use dkv_table::Table;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a shard gets when all reactors of the node stand.
pub(crate) struct Share {
    pub(crate) shared: Arc<Shared>,
    pub(crate) letterbox: Letterbox,
    pub(crate) posts: Vec<Post>,
    pub(crate) listeners: Vec<(TcpListener, PortKind)>,
    pub(crate) memory: NodeMemory,
}

/// A thread that is coming up.
pub(crate) struct ShardThread {
    pub(crate) handle: JoinHandle<()>,
    give: Sender<Share>,
    hear: Receiver<Result<String, StartError>>,
}

impl ShardThread {
    /// Starts the thread of shard `shard` on `cpu`, with a reactor of that kind. `label` are the store's and the node's name, for its log lines.
    pub(crate) fn start(
        shard: usize,
        (cpu, kind): (u32, Kind),
        wake: WakeHandle,
        label: (String, String),
    ) -> Result<Self, StartError> {
        let (give, take) = channel();
        let (tell, hear) = channel();
        let handle = std::thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || {
                let _span =
                    tracing::error_span!("shard", store = label.0, node = label.1, shard).entered();
                let _guard = EndsTheProcess;
                let cpu = cpu as usize;
                match kind {
                    Kind::Uring => serve(shard, || on_a_ring(cpu, wake), &take, &tell),
                    Kind::Epoll => serve(shard, || on_epoll(cpu, wake), &take, &tell),
                }
            })
            .map_err(|e| StartError::Failed(format!("no thread for shard {shard}: {e}")))?;
        Ok(Self { handle, give, hear })
    }

    /// Waits for the next word of the thread: first what its reactor is like, then, after [`Self::give`], that it serves.
    pub(crate) fn hear(&self) -> Result<String, StartError> {
        self.hear.recv().unwrap_or_else(|_| {
            Err(StartError::Failed("a shard's thread ended while it started".into()))
        })
    }

    /// Gives the thread its share.
    pub(crate) fn give(&self, share: Share) {
        // A thread that is gone is noticed at the next `hear`.
        let _ = self.give.send(share);
    }

    /// Ends a thread that was given nothing, and waits until it is gone.
    pub(crate) fn dismiss(self) {
        drop(self.give);
        // A thread that panicked has ended the process.
        let _ = self.handle.join();
    }
}

/// A node with a shard less answers nobody rightly: a panic of one is the end of all. Release builds abort anyway.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a shard has failed; the node ends");
            std::process::abort();
        }
    }
}

fn serve<R: Reactor>(
    shard: usize,
    make_reactor: impl FnOnce() -> Result<R, StartError>,
    take: &Receiver<Share>,
    tell: &Sender<Result<String, StartError>>,
) {
    let reactor = match make_reactor() {
        Ok(reactor) => reactor,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    if tell.send(Ok(reactor.describe())).is_err() {
        return;
    }
    // The node gave up, because another shard could not start: so does this one.
    let Ok(Share { shared, letterbox, posts, listeners, memory }) = take.recv() else { return };
    let me = shared.launch.shard_addr(shard);
    let mut pure = Shard::new(Arc::clone(&shared.env), me, make_table(&shared, memory));
    if let Some(replication) = &shared.launch.document.replication {
        pure.replicate(shared.boot, dkv_cluster::Settings::of(replication));
    }
    pure.users_are(shared.users());
    let mut driver = Driver::new(reactor, pure, me, Arc::clone(&shared), letterbox, posts);
    for (listener, port) in listeners {
        if let Err(error) = driver.listen(listener, port) {
            let _ = tell
                .send(Err(StartError::Failed(format!("a port cannot be listened on: {error}"))));
            return;
        }
    }
    if tell.send(Ok(String::new())).is_err() {
        return;
    }
    if let Err(error) = driver.run() {
        tracing::error!(%error, "the reactor is broken; the node ends");
        let _ = std::fs::remove_file(&shared.launch.document.control_socket);
        std::process::exit(i32::from(exit::FAILED));
    }
    drop(driver);
    shared.one_ended();
}

fn on_a_ring(cpu: usize, wake: WakeHandle) -> Result<UringReactor, StartError> {
    pin(cpu)?;
    UringReactor::tested(Options::new(wake)).map_err(|e| StartError::IoUnavailable(e.to_string()))
}

fn on_epoll(cpu: usize, wake: WakeHandle) -> Result<EpollReactor, StartError> {
    pin(cpu)?;
    EpollReactor::tested(Options::new(wake))
        .map_err(|error| StartError::Failed(format!("no epoll for shard on CPU {cpu}: {error}")))
}

fn pin(cpu: usize) -> Result<(), StartError> {
    dkv_io::cpu::pin(cpu).map_err(|e| StartError::BadConfiguration(e.to_string()))
}

fn make_table(shared: &Shared, memory: NodeMemory) -> Table {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let options = dkv_table::Options {
        seed: shared.launch.hash_seed,
        // Keys are spread evenly over the shards, so each may use its part; 0 would mean no limit.
        memory_bytes_max: shared.env.shard_memory_bytes_max(),
        eviction: shared.env.table_eviction(),
        first_version: seconds << 16,
    };
    Table::new(options, Box::new(memory))
}
