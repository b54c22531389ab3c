//! One store: its nodes, its ranges, and what happens to all ranges at once.

use crate::command::{Drain, Machine, NodeSpec, Outcome, Refusal, Wish};
use crate::range::Range;
use crate::spread::{Site, rebalance, spread};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use dkv_protocol::ids::{BootId, NodeIndex, RangeId, ShardAddr};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::{DeadBoot, OnTotalLoss, Placement, Replication, Rid};
use serde::{Deserialize, Serialize};

/// Boots of a node that are remembered as over. A command of an older one would have to be this many starts late.
const GONE_MAX: usize = 64;

/// What part a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// It leads and follows.
    Full,
    /// It follows only.
    Follows,
    /// It is to hold nothing.
    Leaves,
}

/// A node of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// How many shards it has.
    pub shards: u16,
    /// Where it runs.
    pub machine: Machine,
    /// What part it takes.
    pub duty: Duty,
    /// The process that is registered, if one is.
    pub boot: Option<BootId>,
    /// Whether its manager is about to end that process.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub ending: bool,
    /// Its last boots that are over.
    gone: Vec<BootId>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// How it keeps copies.
    pub replication: Replication,
    /// Its nodes. Indexes of removed ones are missing.
    pub nodes: BTreeMap<NodeIndex, Node>,
    /// All ranges, in order.
    pub ranges: Vec<Range>,
    /// Grows with each change of a placement.
    pub placement_version: u64,
    /// Which start of the store this is, from 1.
    pub life: u64,
    /// Whether ranges were formed in this life.
    pub formed: bool,
    /// What it was created with, to know the same definition again.
    defined: Vec<NodeSpec>,
}

impl Store {
    pub(crate) fn new(replication: Replication, defined: &[NodeSpec]) -> Result<Self, Refusal> {
        let indexes: BTreeSet<NodeIndex> = defined.iter().map(|spec| spec.node).collect();
        let shards_fine = defined.iter().all(|spec| spec.shards > 0);
        if defined.is_empty() || indexes.len() != defined.len() || !shards_fine {
            return Err(Refusal::BadDefinition);
        }
        let nodes: BTreeMap<NodeIndex, Node> =
            defined.iter().map(|spec| (spec.node, Node::new(spec))).collect();
        let placements = spread(&sites(&nodes), copies(replication));
        Ok(Self {
            replication,
            nodes,
            ranges: placements.into_iter().map(|p| Range::new(p, 1)).collect(),
            placement_version: 1,
            life: 1,
            formed: false,
            defined: defined.to_vec(),
        })
    }

    /// Whether it was created by this very definition.
    pub(crate) fn is_defined_as(&self, replication: Replication, nodes: &[NodeSpec]) -> bool {
        self.replication == replication && self.defined == nodes
    }

    /// One range.
    pub fn range(&self, range: RangeId) -> &Range {
        &self.ranges[usize::from(range.0)]
    }

    /// The ranges with their names.
    pub fn each_range(&self) -> impl Iterator<Item = (RangeId, &Range)> {
        self.ranges.iter().enumerate().map(|(i, range)| (RangeId(i as u8), range))
    }

    /// The ranges of which a copy on this node counts.
    pub fn held_by(&self, node: NodeIndex) -> impl Iterator<Item = RangeId> + '_ {
        self.each_range().filter(move |(_, range)| range.has_member_on(node)).map(|(id, _)| id)
    }

    /// The ranges that this node leads.
    pub fn led_by(&self, node: NodeIndex) -> impl Iterator<Item = RangeId> + '_ {
        let leads = move |range: &Range| {
            range.is_served() && range.config.as_ref().is_some_and(|c| c.primary.addr.node == node)
        };
        self.each_range().filter(move |(_, range)| leads(range)).map(|(id, _)| id)
    }

    pub(crate) fn start(&mut self, life: u64) -> Outcome {
        if life == self.life {
            return Outcome::Nothing;
        }
        if life != self.life + 1 {
            return Outcome::Refused(Refusal::WrongLife);
        }
        self.life = life;
        self.formed = false;
        for (&node, boot) in self.nodes.iter_mut().filter_map(|(i, n)| Some((i, n.retire(None)?))) {
            self.ranges.iter_mut().for_each(|range| range.forget_boot(node, boot));
        }
        self.ranges.iter_mut().for_each(|range| range.config = None);
        Outcome::Done
    }

    pub(crate) fn node_up(&mut self, index: NodeIndex, boot: BootId, first_index: u64) -> Outcome {
        let Some(node) = self.nodes.get(&index) else {
            return Outcome::Refused(Refusal::NoSuchNode);
        };
        if node.gone.contains(&boot) {
            return Outcome::Refused(Refusal::Fenced);
        }
        let before = node.boot;
        if let Some(old) = before.filter(|old| *old != boot) {
            self.dead(DeadBoot { node: index, boot: old });
        }
        if let Some(node) = self.nodes.get_mut(&index) {
            node.boot = Some(boot);
        }
        let mut formed = false;
        for range in 0..RANGES {
            let empty = self.formed && self.ranges[range].config.is_none();
            let lost = self.ranges[range].is_offline()
                && self.replication.on_total_loss == OnTotalLoss::Reinit;
            if empty || lost {
                formed |= self.form_range(range, first_index);
            }
        }
        if formed || before != Some(boot) { Outcome::Done } else { Outcome::Nothing }
    }

    pub(crate) fn form(&mut self, first_index: u64, only_up: bool) -> Outcome {
        let up = |addr: &ShardAddr| self.nodes.get(&addr.node).is_some_and(|n| n.boot.is_some());
        let mut placed = self.ranges.iter().flat_map(|range| &range.placement);
        if !only_up && !placed.all(up) {
            return Outcome::Refused(Refusal::NotAllUp);
        }
        let first = !self.formed;
        self.formed = true;
        let mut formed = false;
        for range in 0..RANGES {
            if self.ranges[range].config.is_none() {
                formed |= self.form_range(range, first_index);
            }
        }
        if first || formed { Outcome::Done } else { Outcome::Nothing }
    }

    pub(crate) fn reform_offline(&mut self, first_index: u64, accept_loss: bool) -> Outcome {
        if !accept_loss && self.replication.on_total_loss == OnTotalLoss::Offline {
            return Outcome::Refused(Refusal::LossNotAccepted);
        }
        let mut formed = false;
        for range in 0..RANGES {
            if self.ranges[range].is_offline() {
                formed |= self.form_range(range, first_index);
            }
        }
        if formed { Outcome::Done } else { Outcome::Nothing }
    }

    /// Forms a range of the placed copies that are up; says whether there was one.
    fn form_range(&mut self, range: usize, first_index: u64) -> bool {
        let boot_of = |addr: &ShardAddr| self.nodes.get(&addr.node).and_then(|node| node.boot);
        let placement = &self.ranges[range].placement;
        let up: Vec<(ShardAddr, BootId)> =
            placement.iter().filter_map(|addr| Some((*addr, boot_of(addr)?))).collect();
        if up.is_empty() {
            return false;
        }
        self.ranges[range].form(&up, first_index);
        true
    }

    pub(crate) fn dead(&mut self, dead: DeadBoot) -> Outcome {
        let Some(node) = self.nodes.get_mut(&dead.node) else {
            return Outcome::Refused(Refusal::NoSuchNode);
        };
        if node.gone.contains(&dead.boot) {
            return Outcome::Nothing;
        }
        node.retire(Some(dead.boot));
        for range in &mut self.ranges {
            let of_it = |rid: &Rid| (rid.addr.node, rid.boot) == (dead.node, dead.boot);
            let member = range.config.as_ref().and_then(|c| c.in_sync.iter().copied().find(of_it));
            if let Some(rid) = member {
                range.leave(rid);
            }
            range.forget_boot(dead.node, dead.boot);
        }
        Outcome::Done
    }

    pub(crate) fn end(&mut self, end: DeadBoot) -> Outcome {
        if let Err(refusal) = self.is_registered(end) {
            return Outcome::Refused(refusal);
        }
        let goes = |node: NodeIndex| {
            node == end.node || self.nodes.get(&node).is_some_and(|node| node.ending)
        };
        let is_lost = |range: &RangeId| {
            let config = self.range(*range).config.as_ref();
            config.is_some_and(|config| config.in_sync.iter().all(|rid| goes(rid.addr.node)))
        };
        if let Some(range) = self.held_by(end.node).find(is_lost) {
            return Outcome::Refused(Refusal::LastCopy(range));
        }
        self.set_ending(end.node, true)
    }

    pub(crate) fn spare(&mut self, end: DeadBoot) -> Outcome {
        match self.is_registered(end) {
            Ok(()) => self.set_ending(end.node, false),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn is_registered(&self, of: DeadBoot) -> Result<(), Refusal> {
        let node = self.nodes.get(&of.node).ok_or(Refusal::NoSuchNode)?;
        if node.boot == Some(of.boot) { Ok(()) } else { Err(Refusal::Fenced) }
    }

    fn set_ending(&mut self, index: NodeIndex, ending: bool) -> Outcome {
        let before = self.nodes.get_mut(&index).map(|n| core::mem::replace(&mut n.ending, ending));
        if before == Some(ending) { Outcome::Nothing } else { Outcome::Done }
    }

    pub(crate) fn place(&mut self, wish: &Wish) -> Outcome {
        match self.wished(wish) {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Nothing,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Does what is wished; says whether anything is different.
    fn wished(&mut self, wish: &Wish) -> Result<bool, Refusal> {
        match wish {
            Wish::Explicit { placements } => {
                let ranges: BTreeSet<RangeId> =
                    placements.iter().map(|(range, _)| *range).collect();
                let fine = placements.iter().all(|(_, placement)| self.may_be(placement));
                if !fine || ranges.len() != placements.len() {
                    return Err(Refusal::BadPlacement);
                }
                let mut all: Vec<Placement> =
                    self.ranges.iter().map(|range| range.placement.clone()).collect();
                for (range, placement) in placements {
                    let held = self.range(*range).counting();
                    let at = |addr: &ShardAddr| held.iter().copied().find(|h| h.node == addr.node);
                    // A node that has a copy keeps it on the shard where it is.
                    all[usize::from(range.0)] =
                        placement.iter().map(|addr| at(addr).unwrap_or(*addr)).collect();
                }
                Ok(self.replace(all))
            }
            Wish::Drain { node, how } => {
                let duty = match how {
                    Drain::Leadership => Duty::Follows,
                    Drain::Copies => Duty::Leaves,
                };
                self.set_duty(*node, duty)
            }
            Wish::Undrain { node } => self.set_duty(*node, Duty::Full),
            Wish::AddNode { spec } => self.add_node(spec),
            Wish::RemoveNode { node } => self.remove_node(*node),
        }
    }

    fn may_be(&self, placement: &Placement) -> bool {
        let nodes: BTreeSet<NodeIndex> = placement.iter().map(|addr| addr.node).collect();
        let there = placement.iter().all(|addr| self.has_shard(*addr));
        !placement.is_empty() && nodes.len() == placement.len() && there
    }

    fn set_duty(&mut self, index: NodeIndex, duty: Duty) -> Result<bool, Refusal> {
        let node = self.nodes.get(&index).ok_or(Refusal::NoSuchNode)?;
        let before = node.duty;
        let others_stay = self.nodes.iter().any(|(i, n)| *i != index && n.duty != Duty::Leaves);
        if duty == Duty::Leaves && !others_stay {
            return Err(Refusal::LastNode);
        }
        if let Some(node) = self.nodes.get_mut(&index) {
            node.duty = duty;
        }
        // One that only stops or starts to lead keeps its copies, and so do all others.
        let placed = self.respread(before == Duty::Leaves && duty == Duty::Full);
        Ok(placed || before != duty)
    }

    fn add_node(&mut self, spec: &NodeSpec) -> Result<bool, Refusal> {
        if spec.shards == 0 {
            return Err(Refusal::BadDefinition);
        }
        if let Some(node) = self.nodes.get(&spec.node) {
            let same = (node.shards, &node.machine) == (spec.shards, &spec.machine);
            return if same { Ok(false) } else { Err(Refusal::DefinedOtherwise) };
        }
        self.nodes.insert(spec.node, Node::new(spec));
        self.respread(true);
        Ok(true)
    }

    fn remove_node(&mut self, index: NodeIndex) -> Result<bool, Refusal> {
        if !self.nodes.contains_key(&index) {
            return Ok(false);
        }
        if let Some(range) = self.held_by(index).next() {
            return Err(Refusal::StillHolds(range));
        }
        if !self.nodes.iter().any(|(i, node)| *i != index && node.duty != Duty::Leaves) {
            return Err(Refusal::LastNode);
        }
        if let Some(boot) = self.nodes.remove(&index).and_then(|node| node.boot) {
            self.ranges.iter_mut().for_each(|range| range.forget_boot(index, boot));
        }
        self.respread(false);
        Ok(true)
    }

    fn respread(&mut self, move_copies: bool) -> bool {
        let current: Vec<Placement> =
            self.ranges.iter().map(|range| range.placement.clone()).collect();
        let held: Vec<Placement> = self.ranges.iter().map(Range::counting).collect();
        let (sites, copies) = (sites(&self.nodes), copies(self.replication));
        self.replace(rebalance(&current, &held, &sites, copies, move_copies))
    }

    fn replace(&mut self, placements: Vec<Placement>) -> bool {
        let version = self.placement_version + 1;
        for (range, placement) in self.ranges.iter_mut().zip(placements) {
            if range.placement != placement {
                range.placement = placement;
                range.placement_version = version;
                self.placement_version = version;
            }
        }
        self.placement_version == version
    }
}

impl Node {
    fn new(spec: &NodeSpec) -> Self {
        let (shards, machine) = (spec.shards, spec.machine.clone());
        Self { shards, machine, duty: Duty::Full, boot: None, ending: false, gone: Vec::new() }
    }

    /// A boot, or the registered one, is over. Returns it.
    fn retire(&mut self, boot: Option<BootId>) -> Option<BootId> {
        let boot = boot.or(self.boot)?;
        if self.boot == Some(boot) {
            self.boot = None;
            self.ending = false;
        }
        if self.gone.len() == GONE_MAX {
            self.gone.remove(0);
        }
        self.gone.push(boot);
        Some(boot)
    }
}

/// How many copies of each range a store wants, the primary included.
fn copies(replication: Replication) -> usize {
    usize::from(replication.replicas) + 1
}

/// The nodes that may hold copies.
fn sites(nodes: &BTreeMap<NodeIndex, Node>) -> Vec<Site> {
    let staying = nodes.iter().filter(|(_, node)| node.duty != Duty::Leaves);
    staying
        .map(|(&node, of)| Site {
            node,
            shards: of.shards,
            machine: of.machine.clone(),
            leads: of.duty == Duty::Full,
        })
        .collect()
}
