//! The launch document: everything a node needs to know, given by its manager as one JSON document on standard input.

use crate::ids::{Epoch, NodeIndex, StoreId};
use crate::map::NodeInfo;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The version of the launch document this build reads and writes.
pub const LAUNCH_VERSION: u32 = 1;

/// See the module. Unknown fields are refused, so that a newer manager cannot be half understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDocument {
    /// [`LAUNCH_VERSION`].
    pub version: u32,
    /// The store's name.
    pub store: String,
    /// The store's identity.
    pub store_id: StoreId,
    /// This node's position in `nodes`.
    pub index: NodeIndex,
    /// All nodes of the store, in order. The map is spread over them.
    pub nodes: Vec<NodeInfo>,
    /// The epoch that every range starts with; grows with each change of `nodes`.
    pub epoch: Epoch,
    /// Addresses to bind for every port of the node (loopback and the machine's own).
    pub bind: Vec<IpAddr>,
    /// The CPUs of this node; shard `i` is pinned to `cpus[i]`. As many as this node's `shard_ports`.
    pub cpus: Vec<u32>,
    /// Whether no other node of this machine uses these CPUs: only then may an idle shard spin before it sleeps.
    pub cpus_exclusive: bool,
    /// Seed of the table's hash, secret, the same on all nodes of the store: 32 hexadecimal digits.
    pub hash_seed: String,
    /// The group's secret for cluster links, from the manager's token: 64 hexadecimal digits.
    pub cluster_secret: String,
    /// `SHA-256` of the client password as 64 hexadecimal digits; none when the store has no password.
    pub password_sha256: Option<String>,
    /// Whether clients from elsewhere are refused while there is no password.
    pub protected_mode: bool,
    /// Most bytes of memory for the node's data; 0 is no limit.
    pub memory_bytes_max: u64,
    /// Path of the Unix socket on which the node answers its manager (mode 0600).
    pub control_socket: String,
    /// Path of a file on which the node holds a lock for as long as it lives: a second start with one identity fails.
    pub lock_file: String,
}

/// The one line that a node prints on standard output when it serves, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyLine {
    /// The process.
    pub pid: u32,
    /// The node's boot, hexadecimal.
    pub boot: String,
    /// Which kernel features are in use, and why not others.
    pub io: String,
}

/// How a node ends when it cannot start or must stop. Listed in ARCHITECTURE.md.
pub mod exit {
    /// Asked to stop, and stopped.
    pub const OK: u8 = 0;
    /// Failed while running; the log says why.
    pub const FAILED: u8 = 1;
    /// The launch document could not be read or made no sense.
    pub const BAD_LAUNCH_DOCUMENT: u8 = 65;
    /// A port is in use; the log names it.
    pub const ADDRESS_IN_USE: u8 = 69;
    /// The kernel refuses io_uring; the log says which of its switches, and the fix.
    pub const IO_URING_UNAVAILABLE: u8 = 71;
    /// The same node already runs.
    pub const ALREADY_RUNNING: u8 = 75;
    /// The configuration is refused (say, a CPU that does not exist).
    pub const BAD_CONFIGURATION: u8 = 78;
}
