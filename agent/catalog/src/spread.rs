//! Where copies should be: a pure function of the nodes and of where they are wished to be now.
//!
//! Leaders stand in contiguous runs as in `StoreMap::spread`. Copies are on other machines whenever there are other
//! machines, as many on each node as on any other, and so on the shards of a node. A change moves as few copies as it
//! takes; swapping who of a range's copies leads moves none and is preferred.
//!
//! A node holds a range on one shard. Where a copy of it counts, or is wished to be, on a node already, the node is never
//! wished to hold it on another shard: shards of one node have no link to each other over which it could be filled.

use crate::command::Machine;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use dkv_protocol::ids::{NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::Placement;

/// A node that may hold copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which.
    pub node: NodeIndex,
    /// How many shards it has; at least 1.
    pub shards: u16,
    /// Where it runs.
    pub machine: Machine,
    /// Whether it may lead.
    pub leads: bool,
}

/// The placements of a new store, `copies` of each range where there are so many nodes. None without sites.
pub fn spread(sites: &[Site], copies: usize) -> Vec<Placement> {
    let mut leads = Vec::with_capacity(RANGES);
    for (index, site) in sites.iter().enumerate() {
        let run = part_of(RANGES, sites.len(), index);
        let shards = usize::from(site.shards);
        for shard in 0..shards {
            for _ in 0..part_of(run, shards, shard) {
                leads.push(vec![ShardAddr { node: site.node, shard: ShardIndex(shard as u16) }]);
            }
        }
    }
    let mut board = Board::new(&leads, &[], sites, copies);
    board.fill();
    board.ranges
}

/// The placements after the nodes changed. Copies on nodes that are no site any more, or beyond `copies`, are dropped and
/// missing ones added. With `move_copies` others move too, until all nodes hold alike. Without sites all stays. `held` says
/// of each range where its copies are that count, which may still be elsewhere than where they are wished to be.
pub fn rebalance(
    current: &[Placement],
    held: &[Placement],
    sites: &[Site],
    copies: usize,
    move_copies: bool,
) -> Vec<Placement> {
    if sites.is_empty() {
        return current.to_vec();
    }
    let mut board = Board::new(current, held, sites, copies);
    board.fill();
    if move_copies {
        board.widen();
        board.level();
    }
    board.yield_leads();
    board.level_leads();
    board.ranges
}

/// The size of part `index` of `total` things cut into `parts` runs.
fn part_of(total: usize, parts: usize, index: usize) -> usize {
    total * (index + 1) / parts - total * index / parts
}

/// Placements in the making, and how many copies each node and shard holds in them.
struct Board<'a> {
    sites: BTreeMap<NodeIndex, &'a Site>,
    machines: usize,
    copies: usize,
    ranges: Vec<Placement>,
    /// Where the copies of each range are that count; none are known of a new store.
    counting: &'a [Placement],
    held: BTreeMap<NodeIndex, usize>,
    led: BTreeMap<NodeIndex, usize>,
    on_shard: BTreeMap<ShardAddr, usize>,
    /// How often a node follows a leader, so that the ranges of a dead one fall to all others.
    pairs: BTreeMap<(NodeIndex, NodeIndex), usize>,
}

impl<'a> Board<'a> {
    fn new(
        current: &[Placement],
        counting: &'a [Placement],
        sites: &'a [Site],
        copies: usize,
    ) -> Self {
        let by_node: BTreeMap<NodeIndex, &Site> = sites.iter().map(|s| (s.node, s)).collect();
        let machines: BTreeSet<&Machine> = sites.iter().map(|site| &site.machine).collect();
        let copies = copies.clamp(1, sites.len().max(1));
        let keep = |placement: &Placement| -> Placement {
            let there = placement.iter().copied().filter(|addr| by_node.contains_key(&addr.node));
            there.take(copies).collect()
        };
        let mut board = Self {
            held: by_node.keys().map(|node| (*node, 0)).collect(),
            led: by_node.keys().map(|node| (*node, 0)).collect(),
            on_shard: BTreeMap::new(),
            pairs: BTreeMap::new(),
            ranges: vec![Vec::new(); current.len()],
            counting,
            machines: machines.len(),
            sites: by_node.clone(),
            copies,
        };
        for (range, placement) in current.iter().enumerate() {
            for addr in keep(placement) {
                let addr = board.counting_on(range, addr.node).unwrap_or(addr);
                board.add(range, addr);
            }
        }
        board
    }

    /// Puts a copy behind those that the range has.
    fn add(&mut self, range: usize, addr: ShardAddr) {
        let lead = self.ranges[range].first().map(|lead| lead.node);
        if let Some(lead) = lead {
            *self.pairs.entry((lead, addr.node)).or_default() += 1;
        } else {
            *self.led.entry(addr.node).or_default() += 1;
        }
        *self.held.entry(addr.node).or_default() += 1;
        *self.on_shard.entry(addr).or_default() += 1;
        self.ranges[range].push(addr);
    }

    /// A copy moves to another node, in the same position.
    fn shift(&mut self, range: usize, position: usize, to: NodeIndex) {
        let from = self.ranges[range][position];
        let addr = self.shard_on(range, to);
        self.ranges[range][position] = addr;
        take_one(&mut self.held, &from.node);
        take_one(&mut self.on_shard, &from);
        *self.held.entry(to).or_default() += 1;
        *self.on_shard.entry(addr).or_default() += 1;
        if position == 0 {
            take_one(&mut self.led, &from.node);
            *self.led.entry(to).or_default() += 1;
        }
    }

    /// Another copy of the range leads.
    fn lead_by(&mut self, range: usize, position: usize) {
        let (old, new) = (self.ranges[range][0].node, self.ranges[range][position].node);
        take_one(&mut self.led, &old);
        *self.led.entry(new).or_default() += 1;
        self.ranges[range].swap(0, position);
    }

    /// Where on a node a copy of a range counts.
    fn counting_on(&self, range: usize, node: NodeIndex) -> Option<ShardAddr> {
        self.counting.get(range).and_then(|held| at_node(held, node))
    }

    /// Where on a node a copy of a range should be.
    fn shard_on(&self, range: usize, node: NodeIndex) -> ShardAddr {
        if let Some(there) = self.counting_on(range, node) {
            return there;
        }
        let shards = self.sites.get(&node).map_or(1, |site| site.shards);
        let addr = |shard| ShardAddr { node, shard: ShardIndex(shard) };
        let load = |addr: &ShardAddr| self.on_shard.get(addr).copied().unwrap_or(0);
        (0..shards).map(addr).min_by_key(load).unwrap_or(addr(0))
    }

    fn machines_of(&self, placement: &[ShardAddr]) -> BTreeSet<&Machine> {
        placement.iter().map(|addr| &self.sites[&addr.node].machine).collect()
    }

    /// Adds the missing copies, one to each range and then the next. Ranges of different leaders take turns, so that
    /// nobody's share is full before the last leader has chosen.
    fn fill(&mut self) {
        let mut seen: BTreeMap<Option<NodeIndex>, usize> = BTreeMap::new();
        let mut turns: Vec<(usize, Option<NodeIndex>, usize)> = Vec::new();
        for (range, placement) in self.ranges.iter().enumerate() {
            let lead = placement.first().map(|addr| addr.node);
            let turn = seen.entry(lead).or_default();
            turns.push((*turn, lead, range));
            *turn += 1;
        }
        turns.sort_unstable();
        for wanted in 1..=self.copies {
            for &(_, _, range) in &turns {
                if self.ranges[range].len() < wanted
                    && let Some(node) = self.best_for(range)
                {
                    self.add(range, self.shard_on(range, node));
                }
            }
        }
    }

    fn best_for(&self, range: usize) -> Option<NodeIndex> {
        let placement = &self.ranges[range];
        let used = self.machines_of(placement);
        let Some(lead) = placement.first().map(|addr| addr.node) else {
            let load = |node: &NodeIndex| (!self.sites[node].leads, self.led[node], *node);
            return self.sites.keys().copied().min_by_key(load);
        };
        let free = self.sites.values().filter(|site| !holds(placement, site.node));
        let key = |site: &&&Site| {
            let nearness = if used.contains(&site.machine) {
                1 + usize::from(site.machine == self.sites[&lead].machine)
            } else {
                0
            };
            let pairs = self.pairs.get(&(lead, site.node)).copied().unwrap_or(0);
            // What is there already need not be filled.
            let empty = self.counting_on(range, site.node).is_none();
            (nearness, empty, self.held[&site.node], pairs, site.node < lead, site.node)
        };
        free.min_by_key(key).map(|site| site.node)
    }

    /// Copies of a range that share a machine go to machines that have none, while there are such.
    fn widen(&mut self) {
        for range in 0..self.ranges.len() {
            loop {
                let placement = &self.ranges[range];
                let used = self.machines_of(placement);
                if used.len() >= self.machines.min(placement.len()) {
                    break;
                }
                // The last one whose machine holds another as well.
                let twin = (0..placement.len()).rev().find(|&position| {
                    let rest: Vec<ShardAddr> = without(placement, position);
                    self.machines_of(&rest).len() == used.len()
                });
                let outside = self.sites.values().filter(|site| !used.contains(&site.machine));
                let to = outside.min_by_key(|site| (self.held[&site.node], site.node));
                let (Some(position), Some(to)) = (twin, to.map(|site| site.node)) else { break };
                self.shift(range, position, to);
            }
        }
    }

    /// Moves copies from nodes that hold more to nodes that hold less, until no move makes it more even.
    fn level(&mut self) {
        while let Some((range, position, to)) = self.best_move() {
            self.shift(range, position, to);
        }
    }

    fn best_move(&self) -> Option<(usize, usize, NodeIndex)> {
        let mut by_load: Vec<(usize, NodeIndex)> =
            self.held.iter().map(|(n, h)| (*h, *n)).collect();
        by_load.sort_unstable();
        for &(most, from) in by_load.iter().rev() {
            for &(least, to) in &by_load {
                if most < least + 2 {
                    break;
                }
                // Leads move along while the receiver leads less than the giver.
                let wants_lead = self.sites[&to].leads && self.led[&to] < self.led[&from];
                let movable = |range: usize| {
                    let placement = &self.ranges[range];
                    let position = placement.iter().position(|addr| addr.node == from)?;
                    let fine = !holds(placement, to) && self.keeps_apart(placement, position, to);
                    let empty = self.counting_on(range, to).is_none();
                    fine.then_some((empty, (position == 0) != wants_lead, range, position))
                };
                if let Some((.., range, position)) =
                    (0..self.ranges.len()).filter_map(movable).min()
                {
                    return Some((range, position, to));
                }
            }
        }
        None
    }

    /// Whether a range is on as many machines after a move as before.
    fn keeps_apart(&self, placement: &[ShardAddr], position: usize, to: NodeIndex) -> bool {
        let mut after = self.machines_of(&without(placement, position)).len();
        let machine = &self.sites[&to].machine;
        let rest = without(placement, position);
        if !self.machines_of(&rest).contains(machine) {
            after += 1;
        }
        after >= self.machines_of(placement).len()
    }

    /// Nodes that may not lead hand over where they can.
    fn yield_leads(&mut self) {
        for range in 0..self.ranges.len() {
            let placement = &self.ranges[range];
            let may_lead = |position: &usize| self.sites[&placement[*position].node].leads;
            if placement.is_empty() || may_lead(&0) {
                continue;
            }
            let load = |position: &usize| self.led[&placement[*position].node];
            let next = (1..placement.len()).filter(may_lead).min_by_key(load);
            if let Some(position) = next {
                self.lead_by(range, position);
                // Who is relieved comes last: nobody waits for its return to lead again.
                self.ranges[range][position..].rotate_left(1);
            }
        }
    }

    /// Swaps leads along chains of ranges from the one who leads most to one who leads less, until that is even.
    fn level_leads(&mut self) {
        while let Some(chain) = self.lead_chain() {
            for (range, position) in chain {
                self.lead_by(range, position);
            }
        }
    }

    /// Swaps that take one lead from a node and give it to another that leads at least two less.
    fn lead_chain(&self) -> Option<Vec<(usize, usize)>> {
        let mut by_leads: Vec<(usize, NodeIndex)> = self
            .led
            .iter()
            .filter(|(node, _)| self.sites[node].leads)
            .map(|(n, l)| (*l, *n))
            .collect();
        by_leads.sort_unstable();
        by_leads.into_iter().rev().find_map(|(most, from)| self.chain_from(from, most))
    }

    fn chain_from(&self, from: NodeIndex, most: usize) -> Option<Vec<(usize, usize)>> {
        // A breadth-first search; an edge is a range led by one node and followed by the other.
        let mut reached: BTreeMap<NodeIndex, (NodeIndex, usize, usize)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if self.led[&node] + 2 <= most {
                let mut chain = Vec::new();
                let mut at = node;
                while at != from {
                    let (before, range, position) = reached[&at];
                    chain.push((range, position));
                    at = before;
                }
                return Some(chain);
            }
            for (range, placement) in self.ranges.iter().enumerate() {
                if placement.first().is_none_or(|lead| lead.node != node) {
                    continue;
                }
                for (position, addr) in placement.iter().enumerate().skip(1) {
                    let next = addr.node;
                    let fresh = next != from && !reached.contains_key(&next);
                    if fresh && self.sites[&next].leads {
                        reached.insert(next, (node, range, position));
                        queue.push_back(next);
                    }
                }
            }
        }
        None
    }
}

fn holds(placement: &[ShardAddr], node: NodeIndex) -> bool {
    at_node(placement, node).is_some()
}

fn at_node(placement: &[ShardAddr], node: NodeIndex) -> Option<ShardAddr> {
    placement.iter().copied().find(|addr| addr.node == node)
}

fn without(placement: &[ShardAddr], position: usize) -> Vec<ShardAddr> {
    let mut rest = placement.to_vec();
    rest.remove(position);
    rest
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
mod tests;
