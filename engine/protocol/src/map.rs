//! Which shard owns which range: a pure function of the store's definition, with an epoch for each range.
//!
//! Until ranges have copies, every node computes the same map from the same list of nodes and nothing has to be agreed.

use crate::ids::{Epoch, NodeIndex, RangeId, ShardAddr, ShardIndex, Slot};
use crate::limits::RANGES;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// A node as the others of its store and its clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// `node1`, `orders-2`.
    pub name: String,
    /// The address of its machine; what CLUSTER replies advertise.
    pub address: IpAddr,
    /// Where other nodes connect.
    pub cluster_port: u16,
    /// Where any client connects.
    pub client_port: u16,
    /// One port for each shard, in order: where cluster clients connect. Its length is the node's shard count.
    pub shard_ports: Vec<u16>,
}

/// The map of a store: its nodes in order, and the owner and epoch of each range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMap {
    nodes: Vec<NodeInfo>,
    owners: Vec<ShardAddr>,
    epochs: Vec<Epoch>,
}

impl StoreMap {
    /// Spreads the ranges over the nodes in contiguous runs, and each node's run over its shards likewise; sizes differ
    /// by one at most. `nodes` must not be empty and each must have a shard.
    pub fn spread(nodes: Vec<NodeInfo>, epoch: Epoch) -> Self {
        assert!(!nodes.is_empty() && nodes.iter().all(|n| !n.shard_ports.is_empty()));
        let mut owners = Vec::with_capacity(RANGES);
        for (index, node) in nodes.iter().enumerate() {
            let run = run_of(RANGES, nodes.len(), index);
            let shards = node.shard_ports.len();
            for shard in 0..shards {
                for _ in run_of(run.len(), shards, shard) {
                    owners.push(ShardAddr {
                        node: NodeIndex(index as u16),
                        shard: ShardIndex(shard as u16),
                    });
                }
            }
        }
        let epochs = alloc::vec![epoch; RANGES];
        Self { nodes, owners, epochs }
    }

    /// The nodes, in the order of their index.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node at `index`.
    pub fn node(&self, index: NodeIndex) -> &NodeInfo {
        &self.nodes[index.0 as usize]
    }

    /// The owner of a range.
    #[inline]
    pub fn owner(&self, range: RangeId) -> ShardAddr {
        self.owners[range.0 as usize]
    }

    /// The owner of a slot.
    #[inline]
    pub fn owner_of(&self, slot: Slot) -> ShardAddr {
        self.owner(slot.range())
    }

    /// The epoch of a range.
    pub fn epoch(&self, range: RangeId) -> Epoch {
        self.epochs[range.0 as usize]
    }

    /// The ranges of one shard as a half-open run `start..end`; empty when there are more shards than ranges.
    pub fn run(&self, shard: ShardAddr) -> core::ops::Range<u16> {
        let start = self.owners.iter().position(|o| *o == shard).unwrap_or(0);
        let len = self.owners.iter().filter(|o| **o == shard).count();
        start as u16..(start + len) as u16
    }

    /// Every shard of the store, nodes in order and shards in order.
    pub fn shards(&self) -> impl Iterator<Item = ShardAddr> + '_ {
        self.nodes.iter().enumerate().flat_map(|(node, info)| {
            (0..info.shard_ports.len()).map(move |shard| ShardAddr {
                node: NodeIndex(node as u16),
                shard: ShardIndex(shard as u16),
            })
        })
    }
}

/// The part `index` of `total` things cut into `parts` contiguous runs whose sizes differ by one at most.
fn run_of(total: usize, parts: usize, index: usize) -> core::ops::Range<usize> {
    total * index / parts..total * (index + 1) / parts
}
