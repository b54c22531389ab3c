//! A node: the process that serves the ranges of one store on one machine. The glue between `dkv-io`, which knows bytes and
//! sockets, and `dkv-shard`, which knows what they mean.
//!
//! One pinned thread for each CPU it was given, each with its reactor, its table and its connections ([`driver`]); one
//! unpinned control thread for what may wait ([`control`]). Shards share nothing but mailboxes and counters. What a command
//! does, how a table is built and how a reactor works is not known here. [`memory`] is public because the benchmark of the table
//! measures it on a node's memory.
#![forbid(unsafe_code)]

mod board;
mod clients;
mod clocks;
mod cluster;
mod control;
mod control_socket;
mod crew;
mod driver;
mod follow;
mod identity;
mod launch;
mod links;
mod log;
mod mail;
pub mod memory;
mod meter;
mod refusals;
mod shard_thread;
mod shared;
mod start;
mod status;
mod users;

pub use dkv_io::clock::{Calendar, calendar};
pub use dkv_io::{IoUnavailable, Report, cpu, probe};
pub use dkv_shard::{user_line, user_needs_no_password};

use crate::control::Control;
use crate::control_socket::SocketFile;
use crate::crew::Crew;
use crate::identity::IdentityLock;
use crate::launch::Launch;
use crate::memory::NodeMemory;
use crate::shard_thread::{ShardThread, Share};
use crate::shared::Shared;
use crate::start::StartError;
use dkv_io::memory::Arena;
use dkv_io::sockets::{BindError, bind_listener};
use dkv_protocol::hello::Identity;
use dkv_protocol::ids::BootId;
use dkv_protocol::launch::{ReadyLine, exit};
use dkv_shard::PortKind;
use dkv_shard::command::{Env, ProcessStats};
use dkv_shard::settings::Settings;
use dkv_shard::stats::ShardStats;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients that may wait to be accepted. The kernel takes less if `net.core.somaxconn` says so.
const CLIENT_BACKLOG: i32 = 4096;
/// How long the kernel may take to close the ports of a killed process: it takes its ring apart in the background.
const KILLED_HOLDER_MAX: Duration = Duration::from_secs(2);
/// Pause between looks whether it has.
const PORT_PAUSE: Duration = Duration::from_millis(2);
/// Nodes that may.
const CLUSTER_BACKLOG: i32 = 256;

/// Runs a node in this process: reads its launch document from standard input, says on standard output when it serves,
/// logs to standard error, and returns when it has stopped.
///
/// Returns one of [`exit`]. It takes over the process: session, signals, standard streams.
#[must_use = "it is the exit code of the process"]
pub fn run() -> u8 {
    log::start();
    match start_and_serve() {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!(exit_code = error.exit_code(), "{error}");
            error.exit_code()
        }
    }
}

fn start_and_serve() -> Result<(), StartError> {
    let started = Instant::now();
    let launch = launch::read(std::io::stdin().lock())?;
    let label = (launch.document.store.clone(), launch.node().name.clone());
    let _span = tracing::error_span!("node", store = label.0, node = label.1).entered();
    identity::leave_session();
    identity::raise_descriptor_limit();
    let boot = identity::new_boot()?;
    // Held to the end of this function, and by that of the process at the latest.
    let lock = Rc::new(IdentityLock::take(&launch.document.lock_file)?);
    let (socket, socket_file) = control_socket::bind(&launch.document.control_socket)?;
    let ports = Ports::bind(
        &launch,
        if lock.holder_was_killed { KILLED_HOLDER_MAX } else { Duration::ZERO },
    )?;
    let crew = Crew::come_up(&launch)?;
    let runtime = control::runtime(crew.kind, launch.document.io)?;

    let node = Node::start(launch, boot, ports, crew)?;
    let Node { shared, posts, threads, cluster } = node;
    let document = &shared.launch.document;
    let secret = shared.launch.cluster_secret.clone();
    let identity = Identity::new(
        document.store_id.clone(),
        Arc::clone(&shared.env.map),
        document.index,
        boot,
        secret,
    );
    let identity = if document.replication.is_some() { identity.configured() } else { identity };
    let control = Control {
        shared: Arc::clone(&shared),
        posts,
        identity,
        cluster,
        socket,
        lock: Rc::clone(&lock),
        has_ring: runtime.has_ring(),
    };
    let result = runtime.block_on(control.run(|| {
        tracing::info!(
            boot = shared.boot_text(),
            pid = shared.env.pid,
            client_port = shared.env.client_port,
            shards = shared.launch.shards(),
            cpus = ?shared.launch.document.cpus,
            took_ms = started.elapsed().as_millis() as u64,
            "serving; {}",
            shared.env.io
        );
        say_ready(&shared);
    }));
    // With it goes whoever looks after the files that are removed now.
    drop(runtime);
    end(result, threads, &shared, socket_file, lock)
}

/// The last steps: nothing is left behind but an empty lock file.
fn end(
    result: Result<(), StartError>,
    threads: Vec<ShardThread>,
    shared: &Shared,
    socket_file: SocketFile,
    lock: Rc<IdentityLock>,
) -> Result<(), StartError> {
    if shared.all_ended() {
        for thread in threads {
            // A thread that panicked has ended the process.
            let _ = thread.handle.join();
        }
    }
    drop(socket_file);
    drop(lock);
    result?;
    tracing::info!("stopped");
    Ok(())
}

/// The sockets of the node, all bound before any thread starts: a port that is taken must leave nothing half done.
struct Ports {
    cluster: Vec<TcpListener>,
    client: Vec<TcpListener>,
    /// For each shard.
    shard: Vec<Vec<TcpListener>>,
}

impl Ports {
    /// `patience` is how long to wait for a port that is taken.
    fn bind(launch: &Launch, patience: Duration) -> Result<Self, StartError> {
        let deadline = Instant::now() + patience;
        let node = launch.node();
        let on_all = |role: &'static str, port: u16, backlog: i32| {
            let addresses = launch.document.bind.iter();
            addresses
                .map(|&ip| listen(SocketAddr::new(ip, port), backlog, deadline))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|cause| StartError::Address { role, cause })
        };
        Ok(Self {
            cluster: on_all("cluster", node.cluster_port, CLUSTER_BACKLOG)?,
            client: on_all("client", node.client_port, CLIENT_BACKLOG)?,
            shard: node
                .shard_ports
                .iter()
                .map(|&port| on_all("shard", port, CLIENT_BACKLOG))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Listens, if need be when the port is free, but not after `deadline`.
fn listen(address: SocketAddr, backlog: i32, deadline: Instant) -> Result<TcpListener, BindError> {
    loop {
        match bind_listener(address, backlog) {
            Err(BindError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(PORT_PAUSE);
            }
            result => return result,
        }
    }
}

/// A node whose shards serve.
struct Node {
    shared: Arc<Shared>,
    posts: Vec<mail::Post>,
    threads: Vec<ShardThread>,
    cluster: Vec<TcpListener>,
}

impl Node {
    fn start(launch: Launch, boot: BootId, ports: Ports, crew: Crew) -> Result<Self, StartError> {
        let shards = launch.shards();
        // Before the shards: its thread has touched the first memory when they begin to serve.
        let arena = Arena::new(shards)
            .map_err(|e| StartError::Failed(format!("no memory for {shards} shards: {e}")))?;
        let Crew { threads, letterboxes, posts, io, kind: _ } = crew;
        let env = Arc::new(environment(&launch, boot, io)?);
        let shared = Arc::new(Shared::new(launch, boot, env));
        let mut client = Some(ports.client);
        let shares = threads.iter().zip(letterboxes).zip(ports.shard).enumerate();
        for (shard, ((thread, letterbox), shard_ports)) in shares {
            // The first shard accepts on the client port and spreads the connections.
            let client =
                client.take().unwrap_or_default().into_iter().map(|l| (l, PortKind::Client));
            let listeners =
                client.chain(shard_ports.into_iter().map(|l| (l, PortKind::Shard))).collect();
            thread.give(Share {
                shared: Arc::clone(&shared),
                letterbox,
                posts: posts.clone(),
                listeners,
                memory: NodeMemory(arena.shard(shard)),
            });
        }
        for thread in &threads {
            thread.hear()?;
        }
        Ok(Self { shared, posts, threads, cluster: ports.cluster })
    }
}

fn environment(launch: &Launch, boot: BootId, io: String) -> Result<Env, StartError> {
    let document = &launch.document;
    // 40 digits, as Redis has them: the boot, and more of the same kind.
    let more = getrandom::u64().and_then(|high| Ok((high, getrandom::u32()?)));
    let (high, low) =
        more.map_err(|e| StartError::Failed(format!("the kernel gives no random numbers: {e}")))?;
    Ok(Env {
        store: document.store.clone(),
        store_id: document.store_id.0.clone(),
        node: launch.node().name.clone(),
        run_id: format!("{:016x}{high:016x}{low:08x}", boot.0),
        pid: std::process::id(),
        address: launch.node().address,
        client_port: launch.node().client_port,
        started_boot_ms: dkv_io::clock::boottime_ms(),
        map: Arc::new(launch.map()),
        password_sha256: launch.password_sha256,
        protected_mode: document.protected_mode,
        settings: Settings::new(document.memory_bytes_max, document.eviction),
        clock: dkv_io::clock::boottime_ns,
        random: |bytes| getrandom::fill(bytes).is_ok(),
        io,
        stats: (0..launch.shards()).map(|_| Arc::new(ShardStats::default())).collect(),
        process: ProcessStats::default(),
    })
}

/// The one line on standard output. After it both standard streams of the manager are let go, so that nobody waits for
/// more and nothing is ever written there again.
fn say_ready(shared: &Shared) {
    let ready =
        ReadyLine { pid: shared.env.pid, boot: shared.boot_text(), io: shared.env.io.clone() };
    let mut line = serde_json::to_string(&ready).expect("strings and numbers become JSON");
    line.push('\n');
    // A manager that died meanwhile does not hear it; its successor finds the node by its control socket.
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "nobody hears that this node is ready");
    }
    match std::fs::File::open("/dev/null") {
        Ok(null) => {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
        }
        Err(error) => tracing::debug!(%error, "standard streams stay open"),
    }
}
