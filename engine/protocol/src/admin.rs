//! The documents of the admin API: what the manager answers and what its clients send.

use crate::eviction::Eviction;
use crate::ids::{Epoch, NodeIndex, StoreId};
use crate::io::IoChoice;
use crate::ranges::Replication;
use alloc::format;
use alloc::string::{String, ToString};
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
    /// What happens when that is reached. Left out where it is the default, which managers of an earlier version know.
    #[serde(default, skip_serializing_if = "Eviction::is_none")]
    pub eviction: Eviction,
    /// Copies of each range and what is promised about them; none: one copy. Left out where there is one, as in the
    /// catalogues of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// The nodes' way of input and output. Left out where they choose, which managers of an earlier version know.
    #[serde(default, skip_serializing_if = "IoChoice::is_auto")]
    pub io: IoChoice,
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
    /// Nodes that were removed from a store with copies. Their positions among all nodes stay theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedNode>,
}

/// A node that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedNode {
    /// Its position among all nodes that the store ever had.
    pub index: NodeIndex,
    /// What it was.
    pub node: NodeRecord,
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
    /// Which way of input and output it runs on, and why not another, as it says itself (`io=epoll kernel=…`); none when it
    /// does not run, or its manager is of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
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
    /// How its copies stand; none of a store without copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<CopiesView>,
}

/// How the copies of a store stand, as far as the manager that answers has learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesView {
    /// Which start of the store this is, from 1.
    pub life: u64,
    /// How often a configuration was changed; of two managers the one with more knows more.
    pub changes: u64,
    /// Ranges that have no configuration in this life: nobody serves them yet.
    pub unformed_ranges: u32,
    /// Ranges whose last copy is gone.
    pub offline_ranges: u32,
    /// Ranges with fewer copies in sync than the store was created with.
    pub degraded_ranges: u32,
    /// Ranges whose copies, or whose primary, are not where they should be yet.
    pub moving_ranges: u32,
    /// Its nodes.
    pub nodes: Vec<NodeCopies>,
}

/// The part of one node in that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCopies {
    /// The node.
    pub name: String,
    /// Whether a process of it is registered.
    pub up: bool,
    /// What part it takes.
    pub duty: NodeDuty,
    /// Ranges that it leads.
    pub leads: u32,
    /// Ranges of which it has a copy that counts, those included that it leads.
    pub in_sync: u32,
    /// Ranges of which it has the only copy that counts.
    pub alone: u32,
    /// Ranges of which it should have a copy.
    pub placed: u32,
}

/// What part a node of a store with copies takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeDuty {
    /// It leads and follows.
    Full,
    /// It leads nothing that another one can lead.
    Follows,
    /// It is to hold nothing.
    Leaves,
}

/// `POST /admin/v1/stores/{S}/instances/{I}/duty`: what part a node takes from now on. Its ranges move meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DutyRequest {
    /// Which.
    pub duty: NodeDuty,
}

/// `POST /admin/v1/stores/{S}/life`: a store with copies that was stopped on purpose, on all its machines, starts anew; what
/// it held is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifeRequest {
    /// The life that begins: one more than the present one.
    pub life: u64,
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

impl StoreStatus {
    /// The state of a store whose nodes are in `states`; none stands for a node that nobody could ask about.
    pub fn of(states: &[Option<NodeState>]) -> Self {
        let count = |wanted: &[NodeState]| {
            states.iter().flatten().filter(|state| wanted.contains(state)).count()
        };
        let running = count(&[NodeState::Running]);
        let coming = count(&[NodeState::Spawning, NodeState::Restarting]);
        let leaving = count(&[NodeState::Stopping]);
        if states.is_empty() {
            Self::NoInstances
        } else if running == states.len() {
            Self::Running
        } else if count(&[NodeState::Requested]) == states.len() {
            Self::Created
        } else if coming > 0 && running + coming == states.len() {
            Self::Starting
        } else if running + coming + leaving > 0 {
            Self::Partial
        } else {
            Self::Stopped
        }
    }
}

impl StoreDefinition {
    /// The ways in which `asked` differs from this definition, each as `what: have, asked for`. A port that `asked`
    /// leaves open is not a difference.
    pub fn differences(&self, asked: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, have: String, want: String| {
            if have != want {
                found.push(format!("{what} is {have}, asked for {want}"));
            }
        };
        compare("name", self.name.clone(), asked.name.clone());
        compare("instance prefix", self.instance_prefix.clone(), asked.instance_prefix.clone());
        compare(
            "instance count",
            self.instance_count.to_string(),
            asked.instance_count.to_string(),
        );
        let port = |port: Option<u16>| port.map_or("unnamed".to_string(), |p| p.to_string());
        if asked.clustron_port.is_some() {
            compare("cluster port", port(self.clustron_port), port(asked.clustron_port));
        }
        if asked.client_port.is_some() {
            compare("client port", port(self.client_port), port(asked.client_port));
        }
        let cpus = |cpus: Option<u32>| cpus.map_or("shared out".to_string(), |c| c.to_string());
        compare("CPUs of a node", cpus(self.cpus), cpus(asked.cpus));
        let bytes = |bytes: u64| match bytes {
            0 => "without limit".to_string(),
            bytes => format!("{bytes} bytes"),
        };
        compare("memory of a node", bytes(self.memory_bytes_max), bytes(asked.memory_bytes_max));
        compare("io", self.io.to_string(), asked.io.to_string());
        compare("eviction", self.eviction.to_string(), asked.eviction.to_string());
        let have = self.replication.unwrap_or(Replication::NONE);
        let want = asked.replication.unwrap_or(Replication::NONE);
        compare("replicas", have.replicas.to_string(), want.replicas.to_string());
        if have.replicas > 0 && want.replicas > 0 {
            compare("ack", have.ack.to_string(), want.ack.to_string());
            compare("min-insync", have.min_insync.to_string(), want.min_insync.to_string());
            compare("read", have.read.to_string(), want.read.to_string());
            let (have, want) = (have.on_total_loss, want.on_total_loss);
            compare("on-total-loss", have.to_string(), want.to_string());
        }
        if self.password_sha256 != asked.password_sha256 {
            let named = |password: &Option<String>| {
                if password.is_some() { "set" } else { "not set" }.to_string()
            };
            if self.password_sha256.is_some() && asked.password_sha256.is_some() {
                found.push("password is another one".to_string());
            } else {
                found.push(format!(
                    "password is {}, asked for {}",
                    named(&self.password_sha256),
                    named(&asked.password_sha256)
                ));
            }
        }
        let mode = |on: bool| if on { "on" } else { "off" };
        if self.protected_mode != asked.protected_mode {
            found.push(format!(
                "protected mode is {}, asked for {}",
                mode(self.protected_mode),
                mode(asked.protected_mode)
            ));
        }
        found
    }
}

impl StoreRecord {
    /// The nodes with their positions among all nodes that the store ever had: where none was removed, those in the list.
    pub fn indexed(&self) -> impl Iterator<Item = (NodeIndex, &NodeRecord)> {
        let free = |index: &NodeIndex| self.removed.iter().all(|gone| gone.index != *index);
        (0..=u16::MAX).map(NodeIndex).filter(free).zip(&self.nodes)
    }

    /// The position of a node.
    pub fn index_of(&self, name: &str) -> Option<NodeIndex> {
        self.indexed().find(|(_, node)| node.name == name).map(|(index, _)| index)
    }

    /// The ways in which a definition that is asked for differs from this store; see [`StoreDefinition::differences`].
    /// Ports that nobody named at the creation are those that the first node got.
    pub fn differences(&self, asked: &StoreDefinition) -> Vec<String> {
        let mut have = self.definition.clone();
        if let Some(first) = self.nodes.first() {
            have.clustron_port.get_or_insert(first.cluster_port);
            have.client_port.get_or_insert(first.client_port);
        }
        have.differences(asked)
    }
}

/// `GET /admin/v1/stores`; with `?group=true` what all managers of the group say, put together: each store once, each node with
/// the state that its own manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoresView {
    /// All stores of this machine's catalogue, by name.
    pub stores: Vec<StoreView>,
    /// Of a group: the machines that could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
    /// Of a group: every difference between the catalogues of its managers, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// `POST /admin/v1/stores/{S}/reservations`: hold names, ports and CPUs on this machine until the record is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationRequest {
    /// The store that is created or extended.
    pub definition: StoreDefinition,
    /// All machines of the store after the change, in order.
    pub machines: Vec<String>,
    /// The number of the first new node of this machine.
    pub first_ordinal: u32,
    /// New nodes on this machine; 0 holds the store still (no start) while another machine is added.
    pub count: u32,
    /// The epoch of the record that this change builds on; none for a new store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_epoch: Option<Epoch>,
    /// The name of a single added node; none: prefix and number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Its cluster port, in place of the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_port: Option<u16>,
    /// Its client port, in place of the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
}

/// What was reserved. It ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Its name, for commit and release.
    pub id: String,
    /// The machine that holds it.
    pub machine: String,
    /// The new nodes of this machine.
    pub nodes: Vec<NodeRecord>,
    /// What the operator should know: unused or shared CPUs, ports beyond the documented ranges.
    pub warnings: Vec<String>,
    /// Seconds until it ends.
    pub expires_in_s: u32,
}

/// `POST /admin/v1/stores` with a record: one step of a creation over several machines. A bare [`StoreDefinition`] in its
/// place is the whole creation, when the group has one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// The record to hold from now on.
    pub record: StoreRecord,
    /// The reservation that it uses up; none when a commit is completed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
}

/// What became of a change of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreChange {
    /// It is new.
    Created,
    /// It was there already, the same.
    AlreadyExists,
    /// It has more nodes now.
    Extended,
    /// It is gone.
    Deleted,
}

/// The answer of every change of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChanged {
    /// What happened.
    pub change: StoreChange,
    /// The record as it is now, or as it was before it was deleted.
    pub record: StoreRecord,
    /// See [`Reservation::warnings`].
    pub warnings: Vec<String>,
}

/// `POST /admin/v1/stores/{S}/instances`: one more node on the one machine of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddInstanceRequest {
    /// The machine; none: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Its name; none: prefix and the next number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its cluster port; none: the next free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_port: Option<u16>,
    /// Its client port; none: the next free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
}

/// The answer to starting or stopping a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChanged {
    /// `Started`, `Already running`, `Stopped`, `Already stopped`.
    pub message: String,
    /// The node as it is now.
    pub node: NodeView,
}

/// `GET /admin/v1/managers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagersView {
    /// The machine that answers.
    pub this: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// All machines of the group, in the order in which they joined, this one included.
    pub managers: Vec<String>,
    /// Whether it only helps to decide, and runs no nodes.
    #[serde(default)]
    pub witness: bool,
    /// With whom it decides about the ranges of stores with copies.
    #[serde(default)]
    pub group: GroupView,
    /// With `?group=true`: every manager of the group, as it was just now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standing: Vec<ManagerStanding>,
}

/// One manager of a group, as another one reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStanding {
    /// Its machine.
    pub machine: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its version, where it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it only helps to decide, and runs no nodes; none while it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<bool>,
    /// Whether its vote counts; none while it belongs to no group that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<bool>,
    /// Whether it leads those that decide.
    pub leads: bool,
    /// What happens when its machine fails, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fate: Option<String>,
}

/// The managers that decide together, as one of them knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The group; none while the manager is in none and has to be taken in.
    pub number: Option<u64>,
    /// The number under which this manager is a member.
    pub id: Option<u64>,
    /// The machine of the one that leads, as far as known.
    pub leader: Option<String>,
    /// Its members in order; the first comes first where not all can vote.
    pub members: Vec<GroupMember>,
    /// Whether those vote who should, by the number of members and their order, and nobody else: as this manager knows it.
    /// While votes change, the loss of a machine may need a hand that needs none afterwards.
    #[serde(default)]
    pub settled: bool,
    /// How many decisions this manager knows.
    pub applied: u64,
    /// Stores with copies that the group keeps.
    pub stores: u32,
    /// Groups that an operator declared dead; what is left of them joins this one.
    pub superseded: Vec<u64>,
}

/// A manager of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its machine.
    pub machine: String,
    /// Its number.
    pub id: u64,
    /// Whether its vote counts; else it only learns.
    pub votes: bool,
}

/// `POST /admin/v1/raft/join`: another manager asks to be taken in, under a number that was never used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeInRequest {
    /// Its machine.
    pub machine: String,
    /// Its number.
    pub id: u64,
}

/// `POST /admin/v1/catchup`: a manager asks another one what it should know about its own machine, because it may have
/// missed a change, or lost its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatchUpRequest {
    /// Its machine.
    pub machine: String,
    /// Random, for the proof of the answer.
    pub nonce: String,
    /// The stores that it has.
    pub known: Vec<KnownStore>,
}

/// A store that a manager has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownStore {
    /// Its identity.
    pub id: StoreId,
    /// Which state of its record.
    pub epoch: Epoch,
}

/// The answer to [`CatchUpRequest`]. It becomes part of a catalogue, so it proves that it is one of a manager of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUpAnswer {
    /// A [`CatchUp`], as JSON.
    pub text: String,
    /// HMAC-SHA256(token; "dkv catch-up 1", the nonce of the request, the text, joined by newlines), in hexadecimal.
    pub proof: String,
}

/// What a manager should know about its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// Stores with nodes on that machine of which it has an older record, or none.
    pub stores: Vec<MissedStore>,
    /// Stores of those it has that were deleted.
    pub deleted: Vec<DeletedStore>,
}

/// A store that a manager has missed something of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedStore {
    /// Its record.
    pub record: StoreRecord,
    /// Whether nodes of it are wanted to run where the answer comes from.
    pub runs: bool,
    /// The version of its users there. Who takes the store over has to have them first.
    #[serde(default)]
    pub users_version: u64,
}

/// A store that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedStore {
    /// Its identity, which no other store ever gets.
    pub id: StoreId,
    /// Whether with all that still ran of it.
    pub force: bool,
}

/// The answer to messages, `POST /admin/v1/raft`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesAnswer {
    /// Why they were not for this manager, if they were not: `other_group`, `other_member`, `forgotten`, `malformed`.
    pub refused: Option<String>,
}

/// `POST /admin/v1/stores/{S}/force`: an operator vouches that machines are gone; the others go on without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceRequest {
    /// Which machines.
    pub gone: Vec<String>,
}

/// `POST /admin/v1/stores/{S}/accept-loss`: an operator gives up what the offline ranges held; they start empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptLossRequest {
    /// How many ranges the operator has seen offline; refused when there are more.
    pub offline_ranges: u32,
}

/// `POST /admin/v1/managers`: the machines that belong to this group, beside those known already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Addresses with ports, in order.
    pub managers: Vec<String>,
}

/// `GET /admin/v1/logs`: the logs that a machine keeps of its manager and nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsView {
    /// By name.
    pub logs: Vec<LogFile>,
}

/// A log, whose end `GET /admin/v1/logs/{name}?bytes=65536` gives as a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// `manager.log`, `Orders.node1.log`, and `….log.1` of what was before.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// `ok`, or `degraded` when a node that should run does not.
    pub status: String,
    /// The machine.
    pub machine: String,
    /// Nodes of this machine that run.
    pub nodes_running: u32,
    /// Nodes of this machine that should.
    pub nodes_wanted: u32,
}

/// `GET /admin/v1/metrics?windowSec=5`: what the nodes of this machine did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsView {
    /// The window that was asked for.
    pub window_s: u32,
    /// The nodes of this machine that run; with `?group=true` those of all machines of the group.
    pub nodes: Vec<NodeMetrics>,
    /// Of a group: the machines that could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
}

/// A counter: its rate over the window and its total since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Per second; none while there are not two samples.
    pub per_second: Option<f64>,
    /// Since the node started.
    pub total: u64,
}

/// The rates of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Store.
    pub store: String,
    /// Node.
    pub node: String,
    /// Machine.
    pub machine: String,
    /// Seconds that the rates really span.
    pub span_s: f64,
    /// Commands answered.
    pub commands: Rate,
    /// The original's "Get".
    pub gets: Rate,
    /// "Put".
    pub puts: Rate,
    /// "Remove".
    pub removes: Rate,
    /// "Count": keys now.
    pub keys: u64,
    /// Client connections now.
    pub connections: u64,
    /// Requests sent to other shards.
    pub forwarded: Rate,
    /// Commands answered with an error.
    pub errors: Rate,
    /// Bytes that count against the memory limit.
    pub memory_bytes: u64,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
    /// CPUs in use: CPU seconds a second.
    pub cpus_used: Option<f64>,
    /// Service time in the window, microseconds; none without requests.
    pub p50_us: Option<f64>,
    /// Likewise, 99 %.
    pub p99_us: Option<f64>,
    /// Likewise, 99.9 %.
    pub p999_us: Option<f64>,
    /// Mean time of a command in the window before and after its own execution, while the shard did others, microseconds.
    #[serde(default)]
    pub queue_us: Option<f64>,
    /// Mean time of its execution, microseconds.
    #[serde(default)]
    pub execution_us: Option<f64>,
    /// Changes that the copy which is furthest behind does not hold yet.
    #[serde(default)]
    pub replication_lag: u64,
    /// Mean time in the window that writes of a range waited for its copies, of those that waited together the first,
    /// microseconds; none when no write waited.
    #[serde(default)]
    pub replication_wait_us: Option<f64>,
    /// For how long the oldest write has waited that its copies do not have yet, milliseconds.
    #[serde(default)]
    pub replication_oldest_ms: u64,
    /// How late the keys were removed on average whose expiry came in the window and that nobody asked for, milliseconds; at
    /// least how far active expiry is behind now.
    #[serde(default)]
    pub expiry_lag_ms: u64,
    /// Pieces of work that took over 1 ms of CPU time.
    #[serde(default)]
    pub stalls: Rate,
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
