//! The documents of the admin API: what the manager answers and what its clients send.

use crate::ids::{Epoch, StoreId};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a store is asked to be. Two definitions are the same when all fields are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreDefinition {
    /// The store's name: a letter, then letters, digits, `_` or `-`; 63 at most.
    pub name: String,
    /// Prefix of the nodes' names.
    pub instance_prefix: String,
    /// Nodes on each machine.
    pub instance_count: u32,
    /// First cluster port on each machine; none: the next free ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clustron_port: Option<u16>,
    /// First client port on each machine; none: the next free ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
    /// CPUs of each node; none: the machine's CPUs shared out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Most bytes of data of each node; 0 is no limit.
    #[serde(default)]
    pub memory_bytes_max: u64,
    /// SHA-256 of the client password, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_sha256: Option<String>,
    /// Whether clients from elsewhere are refused while there is no password.
    #[serde(default = "yes")]
    pub protected_mode: bool,
}

fn yes() -> bool {
    true
}

/// One node as the catalogue holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// `node1`.
    pub name: String,
    /// The machine it lives on: the address and port of that machine's manager.
    pub machine: String,
    /// Cluster port.
    pub cluster_port: u16,
    /// Client port.
    pub client_port: u16,
    /// Shard ports, one a shard.
    pub shard_ports: Vec<u16>,
    /// CPUs, one a shard.
    pub cpus: Vec<u32>,
    /// Whether no other node uses those CPUs.
    pub cpus_exclusive: bool,
}

/// A store as the catalogue of every machine it covers holds it; the same on each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRecord {
    /// What was asked for.
    pub definition: StoreDefinition,
    /// The store's identity.
    pub id: StoreId,
    /// Seed of the table's hash, 32 hexadecimal digits.
    pub hash_seed: String,
    /// Grows with each change of the record.
    pub epoch: Epoch,
    /// Nodes in order.
    pub nodes: Vec<NodeRecord>,
}

/// The state of a store, from the states of its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreStatus {
    /// Defined, never started.
    Created,
    /// Some nodes are on their way up and none is down.
    Starting,
    /// All nodes run.
    Running,
    /// Only some nodes run.
    Partial,
    /// No node runs.
    Stopped,
    /// There are no nodes.
    NoInstances,
}

/// The state of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Defined, not asked to run.
    Requested,
    /// Process started, not ready yet.
    Spawning,
    /// Ready line seen, or adopted.
    Running,
    /// Asked to stop.
    Stopping,
    /// Stopped on request.
    Stopped,
    /// Ended by itself; started again after a pause.
    Restarting,
    /// Given up; `message` says why.
    Failed,
}

/// A node with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// What the catalogue says of it.
    #[serde(flatten)]
    pub record: NodeRecord,
    /// Its state, as its own manager knows it; none when that manager was not asked.
    pub state: Option<NodeState>,
    /// Its process.
    pub pid: Option<u32>,
    /// Restarts since it was last started on request.
    pub restarts: u32,
    /// Why it failed, with the last lines of its log.
    pub message: Option<String>,
    /// Whether it reaches all other nodes.
    pub cluster_ok: bool,
}

/// A store with its state, `GET /admin/v1/stores/{S}`. A manager knows the states of its own nodes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// The catalogue's record.
    pub record: StoreRecord,
    /// State over the nodes of this machine.
    pub status: StoreStatus,
    /// Nodes with their states.
    pub nodes: Vec<NodeView>,
}

/// The error document of every admin call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// See [`ErrorBody`].
    pub error: ErrorBody,
}

/// What failed, why, and what to type next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A word for programs, as `store_exists`.
    pub code: String,
    /// What and why.
    pub message: String,
    /// What to type next.
    pub hint: String,
}
