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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    fn nodes(shards: &[usize]) -> Vec<NodeInfo> {
        let node = |(i, &shards): (usize, &usize)| NodeInfo {
            name: format!("node{}", i + 1),
            address: IpAddr::from([127, 0, 0, 1]),
            cluster_port: 7811,
            client_port: 7861,
            shard_ports: vec![7900; shards],
        };
        shards.iter().enumerate().map(node).collect()
    }

    #[test]
    fn two_nodes_share_evenly() {
        let map = StoreMap::spread(nodes(&[1, 2]), Epoch(5));
        let addr = |node, shard| ShardAddr { node: NodeIndex(node), shard: ShardIndex(shard) };
        assert_eq!(map.run(addr(0, 0)), 0..128);
        assert_eq!(map.run(addr(1, 0)), 128..192);
        assert_eq!(map.run(addr(1, 1)), 192..256);
        assert_eq!(map.owner_of(Slot(0)), addr(0, 0));
        assert_eq!(map.owner_of(Slot(8191)), addr(0, 0));
        assert_eq!(map.owner_of(Slot(8192)), addr(1, 0));
        assert_eq!(map.owner_of(Slot(16383)), addr(1, 1));
        assert_eq!(map.epoch(RangeId(255)), Epoch(5));
        assert_eq!(map.node(NodeIndex(1)).name, "node2");
    }

    proptest! {
        #[test]
        fn a_spread_is_whole_contiguous_and_even(shards in prop::collection::vec(1usize..9, 1..90)) {
            let map = StoreMap::spread(nodes(&shards), Epoch(1));
            // The runs follow one another in the order of nodes and shards, and cover everything.
            let mut next = 0;
            for shard in map.shards() {
                let run = map.run(shard);
                if !run.is_empty() {
                    prop_assert_eq!(run.start, next);
                    next = run.end;
                }
                for range in run {
                    prop_assert_eq!(map.owner(RangeId(range as u8)), shard);
                }
            }
            prop_assert_eq!(usize::from(next), RANGES);
            prop_assert_eq!(map.shards().count(), shards.iter().sum::<usize>());
            // Nodes differ by one range at most, and so do the shards of a node.
            let size = |shard| map.run(shard).len();
            let of_node = |node| map.shards().filter(move |s| usize::from(s.node.0) == node);
            let by_node: Vec<usize> =
                (0..shards.len()).map(|node| of_node(node).map(size).sum()).collect();
            let spread = |sizes: &[usize]| {
                sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0)
            };
            prop_assert!(spread(&by_node) <= 1);
            for node in 0..shards.len() {
                let sizes: Vec<usize> = of_node(node).map(size).collect();
                prop_assert!(spread(&sizes) <= 1);
            }
        }
    }
}
