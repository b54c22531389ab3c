//! One range as the catalogue keeps it: its configuration, its placement, and what must outlive both.

use alloc::vec::Vec;
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, ShardAddr};
use dkv_protocol::ranges::{Placement, RangeConfig, RangeNews, RangeState, Rid};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// None before it was formed in this life of the store.
    pub config: Option<RangeConfig>,
    /// Where its copies should be.
    pub placement: Placement,
    /// The version of the store's placements in which this one last changed.
    pub placement_version: u64,
    /// The last epoch, over all lives.
    pub(crate) epoch: Epoch,
    /// The highest position at which it ever began.
    pub(crate) first_index: u64,
    /// How often it was formed.
    #[serde(default)]
    formings: u16,
    /// The identities of present boots that were used up: one of each shard at most.
    past: Vec<Past>,
}

/// What is known of the generations of one copy, in the present boot of its node. A copy that was named by a forming and
/// never heard of it counts on from where it was; it is told that those are over, and goes on above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Past {
    addr: ShardAddr,
    boot: BootId,
    /// The highest one that ever counted or was discarded.
    named: u32,
    /// The highest one that left for good.
    left: Option<u32>,
}

impl Past {
    fn is_of(&self, rid: Rid) -> bool {
        (self.addr, self.boot) == (rid.addr, rid.boot)
    }
}

impl Range {
    pub(crate) fn new(placement: Placement, placement_version: u64) -> Self {
        Self {
            config: None,
            placement,
            placement_version,
            epoch: Epoch(0),
            first_index: 0,
            formings: 0,
            past: Vec::new(),
        }
    }

    /// The news of this range for nodes.
    pub fn news(&self, range: RangeId) -> RangeNews {
        RangeNews {
            range,
            config: self.config.clone(),
            placement: self.placement.clone(),
            placement_version: self.placement_version,
            answer: false,
            left: self.left(),
        }
    }

    /// The copies that left for good and have not come back as others.
    fn left(&self) -> Vec<Rid> {
        let counts = |addr| self.config.as_ref().is_some_and(|c| c.member_at(addr).is_some());
        let gone = self.past.iter().filter(|past| !counts(past.addr)).filter_map(|past| {
            Some(Rid { addr: past.addr, boot: past.boot, generation: past.left? })
        });
        gone.collect()
    }

    /// Where the copies are that count.
    pub(crate) fn counting(&self) -> Placement {
        let served = self.config.as_ref().filter(|config| config.state == RangeState::Normal);
        served.map_or_else(Vec::new, |c| c.in_sync.iter().map(|rid| rid.addr).collect())
    }

    /// Whether a copy on this node counts.
    pub fn has_member_on(&self, node: NodeIndex) -> bool {
        self.config.as_ref().is_some_and(|c| {
            c.state == RangeState::Normal && c.in_sync.iter().any(|rid| rid.addr.node == node)
        })
    }

    /// Whether it has a primary.
    pub fn is_served(&self) -> bool {
        self.config.as_ref().is_some_and(|c| c.state == RangeState::Normal)
    }

    /// Whether its last copy is gone.
    pub fn is_offline(&self) -> bool {
        self.config.as_ref().is_some_and(|c| c.state == RangeState::Offline)
    }

    /// A new configuration: empty copies at these shards, under identities never used before.
    pub(crate) fn form(&mut self, members: &[(ShardAddr, BootId)], first_index: u64) {
        let in_sync: Vec<Rid> = members
            .iter()
            .map(|&(addr, boot)| Rid { addr, boot, generation: self.next_generation(addr, boot) })
            .collect();
        self.first_index = first_index.max(self.first_index + 1);
        let Some(&primary) = in_sync.first() else { return };
        self.formings = self.formings.saturating_add(1);
        for &rid in &in_sync {
            // What was there before is of an earlier life of the range, even where nobody hears of this one.
            if let Some(generation) = rid.generation.checked_sub(1) {
                self.note(Rid { generation, ..rid }, true);
            }
            self.note(rid, false);
        }
        let config = RangeConfig {
            epoch: Epoch(self.epoch.0 + 1),
            primary,
            in_sync,
            state: RangeState::Normal,
            first_index: self.first_index,
            formed: Epoch(self.epoch.0 + 1),
        };
        self.set(config);
    }

    /// The configuration becomes this one, in the next epoch.
    pub(crate) fn set(&mut self, mut config: RangeConfig) {
        self.epoch = Epoch(self.epoch.0 + 1);
        config.epoch = self.epoch;
        self.config = Some(config);
    }

    /// A copy enters.
    pub(crate) fn enter(&mut self, mut config: RangeConfig, rid: Rid) {
        self.note(rid, false);
        config.in_sync.push(rid);
        self.set(config);
    }

    /// A copy that was discarded or died is no member from now on. Says whether it was one.
    pub(crate) fn leave(&mut self, rid: Rid) -> bool {
        self.note(rid, true);
        let Some(config) = self.config.as_ref().filter(|c| c.state == RangeState::Normal) else {
            return false;
        };
        if !config.has(rid) {
            return false;
        }
        let mut config = config.clone();
        if config.in_sync.len() == 1 {
            config.state = RangeState::Offline;
        } else {
            config.in_sync.retain(|member| *member != rid);
            if config.primary == rid {
                config.primary = self.successor(&config.in_sync);
            }
        }
        self.set(config);
        true
    }

    /// A copy that does not count never will. Says whether that is new.
    pub(crate) fn leave_for_good(&mut self, rid: Rid) -> bool {
        let left = |past: &Past| past.left.is_some_and(|left| left >= rid.generation);
        let new = !self.past.iter().any(|past| past.is_of(rid) && left(past));
        self.note(rid, true);
        new
    }

    /// A member leads in place of the primary; those named leave for good.
    pub(crate) fn take_over(&mut self, mut config: RangeConfig, primary: Rid, leaving: &[Rid]) {
        for &rid in leaving {
            self.note(rid, true);
        }
        config.in_sync.retain(|member| !leaving.contains(member));
        config.primary = primary;
        self.set(config);
    }

    /// Who of these leads next: the one that is placed first, else the first.
    fn successor(&self, members: &[Rid]) -> Rid {
        let rank = |rid: &Rid| self.placement.iter().position(|addr| *addr == rid.addr);
        let best = members.iter().min_by_key(|rid| rank(rid).unwrap_or(usize::MAX));
        best.copied().unwrap_or(members[0])
    }

    /// Whether this identity may enter: not one that left for good, nor one that a later generation has replaced.
    pub(crate) fn may_enter(&self, rid: Rid) -> bool {
        self.past.iter().find(|past| past.is_of(rid)).is_none_or(|past| {
            rid.generation >= past.named && past.left.is_none_or(|left| rid.generation > left)
        })
    }

    /// Identities of a node's boot that is over need not be remembered: the boot itself is fenced.
    pub(crate) fn forget_boot(&mut self, node: NodeIndex, boot: BootId) {
        self.past.retain(|past| (past.addr.node, past.boot) != (node, boot));
    }

    /// Above every generation that the copy can have had: it counts up by itself with each discard, also unnamed.
    fn next_generation(&self, addr: ShardAddr, boot: BootId) -> u32 {
        let of_it = self.past.iter().find(|past| (past.addr, past.boot) == (addr, boot));
        let after_named = of_it.map_or(0, |past| past.named.saturating_add(1));
        after_named.max(u32::from(self.formings) << 16)
    }

    fn note(&mut self, rid: Rid, for_good: bool) {
        let known = self.past.iter_mut().find(|past| past.is_of(rid));
        let left = for_good.then_some(rid.generation);
        if let Some(past) = known {
            past.named = past.named.max(rid.generation);
            past.left = past.left.max(left);
        } else {
            let (addr, boot, named) = (rid.addr, rid.boot, rid.generation);
            self.past.push(Past { addr, boot, named, left });
        }
    }
}
