//! The manager of a machine: it keeps the catalogue of stores, gives out names, ports and CPUs, spawns nodes, watches
//! them, and answers the admin API; and, for command lines, the client of that API and the operations over several
//! managers.
//!
//! It stands apart from the node because nothing on the data path may wait for it: a manager may die or be replaced at
//! any moment and no node notices. It knows nothing of RESP, tables or rings; a node is a process, a launch document and
//! a control socket.
#![forbid(unsafe_code)]

mod api;
pub mod auth;
mod catalogue;
mod catchup;
mod changes;
mod checks;
pub mod client;
mod console;
mod control;
pub mod coordinate;
mod foreign;
pub mod guard;
mod history;
mod ledger;
mod plan;
mod process;
mod ranges;
mod refusal;
mod samples;
mod serve;
mod supervise;
mod watch;

pub use serve::{Ready, StartError, serve};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a manager ends when it cannot start or is stopped. Listed in ARCHITECTURE.md.
pub mod exit {
    /// Stopped on request; its nodes go on.
    pub const OK: u8 = 0;
    /// Failed while running; the log says why.
    pub const FAILED: u8 = 1;
    /// Another manager runs on this machine, or its address is in use.
    pub const ALREADY_RUNNING: u8 = 69;
    /// The catalogue is damaged, or could not be read or written.
    pub const CATALOGUE: u8 = 74;
    /// The configuration is refused: address, token file, data directory.
    pub const BAD_CONFIGURATION: u8 = 78;
}

/// Everything a manager is started with.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where the API listens; also the name of the machine, so never 0.0.0.0 or `[::]`.
    pub listen: SocketAddr,
    /// Its own directory: catalogue, token, sockets and logs of the nodes.
    pub data_dir: PathBuf,
    /// The group's token; none: `DATA_DIR/token`, written at the first start, which is fine on loopback only.
    pub token_file: Option<PathBuf>,
    /// Program and arguments that start a node; none: this executable with the argument `node`.
    pub node_command: Option<Vec<String>>,
    /// Name of the abstract socket that makes the manager the only one of its machine. Tests give another.
    pub guard_name: String,
    /// Whether it only helps the other managers to decide, and runs no nodes.
    pub witness: bool,
    /// Whether a group of several machines may hold loopback addresses. Only tests do.
    pub loopback_group: bool,
    /// See [`Pace`].
    pub pace: Pace,
}

/// The times of supervision.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most time between the start of a process and its ready line.
    pub ready_max: Duration,
    /// Most time of a graceful stop before it is reported as overdue.
    pub stop_max: Duration,
    /// Most time of the graceful part of a forced stop.
    pub forced_stop_max: Duration,
    /// An exit sooner than this after the ready line counts as an early one.
    pub early_exit: Duration,
    /// The pause before the second restart; it doubles from one early exit to the next.
    pub backoff: Duration,
    /// The time between two samples of a node's counters.
    pub sample: Duration,
    /// A node of a store with copies whose control socket is silent for longer is killed, so that others may lead: unless
    /// it has the last copy of something.
    pub silence_max: Duration,
    /// Most time for a node's ranges to be handed over before it is stopped.
    pub handover_max: Duration,
    /// How long a reservation holds.
    pub reservation: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ready_max: Duration::from_secs(20),
            stop_max: Duration::from_secs(15),
            forced_stop_max: Duration::from_secs(2),
            early_exit: Duration::from_secs(10),
            backoff: Duration::from_millis(200),
            sample: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            handover_max: Duration::from_secs(10),
            reservation: Duration::from_mins(1),
        }
    }
}

impl AgentOptions {
    /// The default address: loopback, so that nothing is open that nobody asked for.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), dkv_protocol::limits::MANAGER_PORT);

    /// A manager with the defaults of everything else.
    pub fn new(listen: SocketAddr, data_dir: PathBuf) -> Self {
        Self {
            listen,
            data_dir,
            token_file: None,
            node_command: None,
            guard_name: guard::NAME.to_string(),
            witness: false,
            loopback_group: false,
            pace: Pace::default(),
        }
    }
}

/// Runs a manager in the foreground until SIGTERM or SIGINT, and gives its exit code (see [`exit`]). Prints on
/// standard output once it listens where, and where the console is, and its reason on standard error when it cannot start. Its nodes outlive it.
pub fn run(options: AgentOptions) -> u8 {
    serve::run(options)
}
