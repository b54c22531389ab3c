//! The names of things, each a type of its own, so that a shard number can never be used as a node number.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

/// 0..16383: CRC16 of the key (or of its hash tag) modulo 16384, as in Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// The range that holds this slot.
    #[inline]
    pub const fn range(self) -> RangeId {
        RangeId((self.0 / crate::limits::SLOTS_PER_RANGE) as u8)
    }
}

/// One of the 256 ranges of 64 consecutive slots: the unit of ownership, replication and migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RangeId(pub u8);

/// The position of a node in its store, from 0; `node1` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeIndex(pub u16);

/// The position of a shard in its node, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u16);

/// One shard of one node of a store: where a range lives and where a batch is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardAddr {
    /// The node.
    pub node: NodeIndex,
    /// The shard of that node.
    pub shard: ShardIndex,
}

/// The version number of a range's configuration; only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A fresh random number of each process start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u64);

/// The identity of a store, random at its creation: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub String);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
