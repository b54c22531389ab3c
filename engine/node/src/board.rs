//! Which links of this node stand: written by the shards that own them, read by the control thread, which dials what is
//! missing and tells the manager.
//!
//! There is one place for each ordered pair (shard here, shard of another node). The shard's own record of the link is
//! what requests go by; the board is only news.

use dkv_protocol::ids::{NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::map::StoreMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Notify;

/// Numbers the shards of the other nodes from 0 without gaps, so that they index lists.
#[derive(Debug)]
pub(crate) struct Remotes {
    me: NodeIndex,
    /// For each node the number of its first shard; this node's own entry is never used.
    first: Vec<usize>,
    addresses: Vec<ShardAddr>,
}

impl Remotes {
    pub(crate) fn new(map: &StoreMap, me: NodeIndex) -> Self {
        let addresses: Vec<ShardAddr> = map.shards().filter(|shard| shard.node != me).collect();
        let first = (0..map.nodes().len())
            .map(|node| {
                addresses
                    .iter()
                    .position(|a| usize::from(a.node.0) >= node)
                    .unwrap_or(addresses.len())
            })
            .collect();
        Self { me, first, addresses }
    }

    /// The number of a shard of another node; none for our own shards and for what the map does not have.
    #[inline]
    pub(crate) fn number(&self, shard: ShardAddr) -> Option<usize> {
        if shard.node == self.me {
            return None;
        }
        let number = self.first.get(usize::from(shard.node.0))? + usize::from(shard.shard.0);
        (self.addresses.get(number) == Some(&shard)).then_some(number)
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn addresses(&self) -> &[ShardAddr] {
        &self.addresses
    }
}

/// One link that should be there.
#[derive(Debug)]
pub(crate) struct Place {
    /// Our end.
    pub(crate) local: ShardIndex,
    /// The other end.
    pub(crate) remote: ShardAddr,
    up: AtomicBool,
    /// One permit for each connection that was handed to the shard and is gone.
    pub(crate) ended: Notify,
}

/// See the module. It grows when a node joins the store; what it has stays where it is.
#[derive(Debug)]
pub(crate) struct LinkBoard {
    me: NodeIndex,
    /// Shards of this node.
    locals: usize,
    /// By remote shard, and of each by local shard.
    places: RwLock<Vec<Arc<Place>>>,
    /// For each node: it has just shown that it lives, so that dialling it again is worth it now.
    alive: RwLock<Vec<Arc<Notify>>>,
    removed: RwLock<Vec<NodeIndex>>,
}

/// The lists are whole between any two steps of a writer, so one that panicked has broken nothing.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl LinkBoard {
    pub(crate) fn new(map: &StoreMap, me: NodeIndex, removed: &[NodeIndex]) -> Self {
        let locals = map.node(me).shard_ports.len();
        let board = Self {
            me,
            locals,
            places: RwLock::default(),
            alive: RwLock::default(),
            removed: RwLock::default(),
        };
        board.grow(map, removed);
        board
    }

    /// The store has these nodes now, the earlier ones in their places, and those in `removed` are gone. Returns the
    /// places that are new.
    pub(crate) fn grow(&self, map: &StoreMap, removed: &[NodeIndex]) -> Vec<Arc<Place>> {
        let remotes = Remotes::new(map, self.me);
        let mut places = write(&self.places);
        let known = places.len();
        for &remote in &remotes.addresses()[known / self.locals..] {
            places.extend((0..self.locals as u16).map(|local| {
                let local = ShardIndex(local);
                Arc::new(Place { local, remote, up: AtomicBool::new(false), ended: Notify::new() })
            }));
        }
        write(&self.alive).resize_with(map.nodes().len(), Arc::default);
        *write(&self.removed) = removed.to_vec();
        places[known..].to_vec()
    }

    pub(crate) fn places(&self) -> Vec<Arc<Place>> {
        read(&self.places).clone()
    }

    fn place(&self, local: ShardIndex, remote: usize) -> Arc<Place> {
        Arc::clone(&read(&self.places)[remote * self.locals + usize::from(local.0)])
    }

    /// The shard serves requests over this link now.
    pub(crate) fn up(&self, local: ShardIndex, remote: usize) {
        self.place(local, remote).up.store(true, Ordering::Relaxed);
    }

    /// The connection that was handed to the shard for this link is gone. Called once for each that was handed.
    pub(crate) fn ended(&self, local: ShardIndex, remote: usize) {
        let place = self.place(local, remote);
        place.up.store(false, Ordering::Relaxed);
        place.ended.notify_one();
    }

    /// A node has proved who it is on a connection of its own.
    pub(crate) fn is_alive(&self, node: NodeIndex) {
        self.alive(node).notify_waiters();
    }

    /// Told when [`Self::is_alive`] is called for the node.
    pub(crate) fn alive(&self, node: NodeIndex) -> Arc<Notify> {
        Arc::clone(&read(&self.alive)[usize::from(node.0)])
    }

    /// Whether a node has left the store.
    pub(crate) fn is_removed(&self, node: NodeIndex) -> bool {
        read(&self.removed).contains(&node)
    }

    /// The nodes to which a link is missing, in order.
    pub(crate) fn unreachable(&self) -> Vec<NodeIndex> {
        let mut nodes: Vec<NodeIndex> = read(&self.places)
            .iter()
            .filter(|p| !p.up.load(Ordering::Relaxed))
            .map(|p| p.remote.node)
            .collect();
        nodes.dedup();
        nodes.retain(|node| !self.is_removed(*node));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::ids::Epoch;
    use dkv_protocol::map::NodeInfo;

    fn map(shards: &[u16]) -> StoreMap {
        let node = |(i, &count): (usize, &u16)| NodeInfo {
            name: format!("node{}", i + 1),
            address: [127, 0, 0, 1].into(),
            cluster_port: 1 + i as u16,
            client_port: 100 + i as u16,
            shard_ports: (0..count).map(|s| 1000 + 100 * i as u16 + s).collect(),
        };
        StoreMap::spread(shards.iter().enumerate().map(node).collect(), Epoch(1))
    }

    fn addr(node: u16, shard: u16) -> ShardAddr {
        ShardAddr { node: NodeIndex(node), shard: ShardIndex(shard) }
    }

    #[test]
    fn other_nodes_shards_are_numbered_without_gaps_and_strangers_have_no_number() {
        for me in 0..3 {
            let remotes = Remotes::new(&map(&[2, 3, 1]), NodeIndex(me));
            for (number, address) in remotes.addresses().iter().enumerate() {
                assert_eq!(remotes.number(*address), Some(number), "{address:?} seen from {me}");
            }
            assert_eq!(remotes.number(addr(me, 0)), None);
            assert_eq!(remotes.number(addr(0, 2)), None, "node 0 has two shards");
            assert_eq!(remotes.number(addr(7, 0)), None);
        }
    }

    #[test]
    fn a_node_is_reachable_when_every_shard_here_has_every_link_to_it() {
        let board = LinkBoard::new(&map(&[2, 2, 1]), NodeIndex(0), &[]);
        assert_eq!(board.places().len(), 6);
        assert_eq!(board.unreachable(), [NodeIndex(1), NodeIndex(2)]);
        for local in 0..2 {
            for remote in 0..3 {
                board.up(ShardIndex(local), remote);
            }
        }
        assert!(board.unreachable().is_empty());
        board.ended(ShardIndex(1), 2);
        assert_eq!(board.unreachable(), [NodeIndex(2)]);
    }

    #[test]
    fn a_node_that_joins_gets_places_behind_the_others_and_one_that_left_is_not_missed() {
        let board = LinkBoard::new(&map(&[2, 1]), NodeIndex(0), &[]);
        board.up(ShardIndex(0), 0);
        board.up(ShardIndex(1), 0);
        let new = board.grow(&map(&[2, 1, 2]), &[]);
        let new: Vec<_> = new.iter().map(|p| (p.local.0, p.remote)).collect();
        assert_eq!(new, [(0, addr(2, 0)), (1, addr(2, 0)), (0, addr(2, 1)), (1, addr(2, 1))]);
        assert_eq!(board.unreachable(), [NodeIndex(2)], "the older links stand");
        assert!(board.grow(&map(&[2, 1, 2]), &[NodeIndex(2)]).is_empty());
        assert!(board.unreachable().is_empty() && board.is_removed(NodeIndex(2)));
    }
}
