//! The commands of the log and what becomes of each.
//!
//! Every command may arrive twice, late, or after another that makes it void, so each says what it takes for granted: a
//! boot, an epoch, a life. A command that finds its work done answers [`Outcome::Nothing`].

use crate::group::MEMBERS_MAX;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, StoreId};
use dkv_protocol::ranges::{ConfigAsk, DeadBoot, Placement, Replication};
use dkv_protocol::users::{UserChanges, UsersRefusal};
use serde::{Deserialize, Serialize};

/// A machine, by the address that its manager was given. Copies of a range go to different ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machine(pub String);

/// A node as the catalogue needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its position in the store.
    pub node: NodeIndex,
    /// How many shards it has; at least 1.
    pub shards: u16,
    /// Where it runs.
    pub machine: Machine,
}

/// How far a node is relieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drain {
    /// It leads no range that has a copy elsewhere, and keeps its copies: before a restart.
    Leadership,
    /// It holds nothing: before it is removed.
    Copies,
}

/// A wish for where copies should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "wish")]
pub enum Wish {
    /// These ranges exactly there. The others stay.
    Explicit {
        /// The range and its copies, who should lead first.
        placements: Vec<(RangeId, Placement)>,
    },
    /// A node is relieved.
    Drain {
        /// Which.
        node: NodeIndex,
        /// Of what.
        how: Drain,
    },
    /// A node takes its full part again.
    Undrain {
        /// Which.
        node: NodeIndex,
    },
    /// A node joins the store and gets its part.
    AddNode {
        /// The node.
        spec: NodeSpec,
    },
    /// A node leaves the store. Refused while it holds a copy that counts; placements that name it are changed.
    RemoveNode {
        /// Which.
        node: NodeIndex,
    },
}

/// A command of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Command {
    /// A store is created, with its ranges spread over its nodes. Nobody serves it yet; its life is 1.
    DefineStore {
        /// Its identity.
        store: StoreId,
        /// How it keeps copies.
        replication: Replication,
        /// Its nodes; at least one, no index twice.
        nodes: Vec<NodeSpec>,
    },
    /// A store is deleted, with its users.
    ForgetStore {
        /// Which.
        store: StoreId,
    },
    /// A store starts after a deliberate stop: its processes are gone, what they held is forgotten, and it is no loss.
    /// Epochs and positions go on.
    StartStore {
        /// Which.
        store: StoreId,
        /// The life that begins: one more than the present one.
        life: u64,
    },
    /// A process of a node serves, registered by the manager of its machine. An earlier boot of the node is thereby dead.
    /// Ranges that wait for it are formed: those not formed in this life once [`Command::Form`] was, and the offline ones
    /// of a store that starts empty after a total loss.
    NodeUp {
        /// Which store.
        store: StoreId,
        /// The node.
        node: NodeIndex,
        /// The start of its process.
        boot: BootId,
        /// Where ranges begin that are formed: unix seconds << 16.
        first_index: u64,
    },
    /// Every range that has no configuration in this life gets its first one: the placed copies whose nodes are up.
    Form {
        /// Which store.
        store: StoreId,
        /// Where they begin: unix seconds << 16. A range that began higher before begins above that.
        first_index: u64,
        /// Whether nodes that are not up are done without. Otherwise it is refused while one is missing.
        only_up: bool,
    },
    /// Copies ask for changes. Each is granted or refused for itself, in order.
    Asks {
        /// Which store.
        store: StoreId,
        /// At most [`ASKS_MAX`].
        asks: Vec<ConfigAsk>,
    },
    /// A process is gone, certainly. Its copies leave all ranges; another member leads where it led.
    Dead {
        /// Which store.
        store: StoreId,
        /// The process.
        dead: DeadBoot,
    },
    /// The manager of a machine is about to end a process: to stop it, or because it is silent. Refused when it holds all
    /// copies of some range that count, alone or with others that are about to end; also when it was granted before. It is
    /// noted until the process is gone or is spared.
    End {
        /// Which store.
        store: StoreId,
        /// The process.
        end: DeadBoot,
    },
    /// It is not ended after all.
    Spare {
        /// Which store.
        store: StoreId,
        /// The process.
        end: DeadBoot,
    },
    /// Placements change.
    Place {
        /// Which store.
        store: StoreId,
        /// To what.
        wish: Wish,
    },
    /// Offline ranges start empty where a placed node is up.
    ReformOffline {
        /// Which store.
        store: StoreId,
        /// Where they begin: unix seconds << 16.
        first_index: u64,
        /// An operator accepts the loss. Without that it is refused unless the store was created to accept it.
        accept_loss: bool,
    },
    /// The users of a store change, of one with copies or without: the catalogue need not know its ranges.
    ChangeUsers {
        /// Which store.
        store: StoreId,
        /// Refused unless what is given of the users is so.
        changes: UserChanges,
    },
}

impl Command {
    /// The store that it is about.
    pub const fn store(&self) -> &StoreId {
        match self {
            Self::DefineStore { store, .. }
            | Self::ForgetStore { store }
            | Self::StartStore { store, .. }
            | Self::NodeUp { store, .. }
            | Self::Form { store, .. }
            | Self::Asks { store, .. }
            | Self::Dead { store, .. }
            | Self::End { store, .. }
            | Self::Spare { store, .. }
            | Self::Place { store, .. }
            | Self::ReformOffline { store, .. }
            | Self::ChangeUsers { store, .. } => store,
        }
    }
}

/// Most asks in one command.
pub const ASKS_MAX: usize = 1024;

/// What became of a command or of one ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed something.
    Done,
    /// All was so already.
    Nothing,
    /// It was refused and changed nothing.
    Refused(Refusal),
}

/// Why a command or an ask was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such store.
    NoSuchStore,
    /// The store has no such node, or the node no such shard.
    NoSuchNode,
    /// The store, or the node of this index, exists and is another.
    DefinedOtherwise,
    /// Nodes are missing, named twice, or without a shard.
    BadDefinition,
    /// A placement is empty, names a node twice or one that is not there, or its range twice.
    BadPlacement,
    /// More asks than [`ASKS_MAX`].
    TooManyAsks,
    /// The life that would begin is not the next one.
    WrongLife,
    /// The boot is not the one registered for its node.
    Fenced,
    /// A node is not up.
    NotAllUp,
    /// The range has no configuration.
    NotFormed,
    /// The range is offline.
    Offline,
    /// The epoch is another; this is the present one.
    Stale(Epoch),
    /// The caller does not lead the range.
    NotPrimary,
    /// The caller leads the range, or would remove the one who does.
    Primary,
    /// The copy does not count.
    NotMember,
    /// The copy counts already, or another one on its node does.
    AlreadyMember,
    /// The copy was discarded, died, left or was taken over; it comes back under another identity only.
    Left,
    /// The copy is where one should be; it would leave.
    Placed,
    /// A copy of the range is to be on that node, on another shard.
    PlacedElsewhere,
    /// The process has, with others that end just now, all copies that count; of this range, for one.
    LastCopy(RangeId),
    /// The node still holds a copy that counts; of this range, for one.
    StillHolds(RangeId),
    /// The store would be left without a node to hold its ranges.
    LastNode,
    /// The group has no manager on that machine.
    NoSuchMember,
    /// The group has as many managers as it may.
    TooManyMembers,
    /// The group would be left without a manager.
    LastMember,
    /// The store waits for a human to accept its loss.
    LossNotAccepted,
    /// The users stay as they are.
    Users(UsersRefusal),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::NoSuchStore => "there is no such store",
            Self::NoSuchNode => "the store has no such node, or the node no such shard",
            Self::DefinedOtherwise => "another one has this name or number already",
            Self::BadDefinition => "nodes are missing, named twice, or without a shard",
            Self::BadPlacement => {
                "a placement is empty, or names a node twice or one that is not there"
            }
            Self::TooManyAsks => "too many changes are asked for at once",
            Self::WrongLife => "another start of the store has begun meanwhile",
            Self::Fenced => "the process is not the one that is registered for its node",
            Self::NotAllUp => "not all nodes are up",
            Self::NotFormed => "the range has no copies yet",
            Self::Offline => "the range has lost all its copies",
            Self::Stale(epoch) => {
                return write!(f, "the range has changed meanwhile; its epoch is {}", epoch.0);
            }
            Self::NotPrimary => "the caller does not lead the range",
            Self::Primary => "the caller leads the range, or would remove the one that does",
            Self::NotMember => "the copy does not count",
            Self::AlreadyMember => "a copy on that node counts already",
            Self::Left => "the copy is gone for good and can come back as another one only",
            Self::LastCopy(range) => {
                return write!(f, "nobody else has a copy of range {} that stays", range.0);
            }
            Self::StillHolds(range) => {
                return write!(
                    f,
                    "the node still holds a copy that counts, of range {} for one",
                    range.0
                );
            }
            Self::Placed => "a copy of the range is to be there",
            Self::PlacedElsewhere => "the copy of that node is to be on another shard",
            Self::LastNode => "no node would be left to hold the ranges of the store",
            Self::NoSuchMember => "no manager of the group is on that machine",
            Self::TooManyMembers => return write!(f, "a group has {MEMBERS_MAX} managers at most"),
            Self::LastMember => "no manager would be left in the group",
            Self::LossNotAccepted => "nobody has accepted the loss of what the copies held",
            Self::Users(refusal) => return write!(f, "{refusal}"),
        };
        f.write_str(words)
    }
}
