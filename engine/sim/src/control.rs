//! The managers, as the nodes see them: the real catalogue behind a path that delays, loses and is cut.
//!
//! Which manager leads and how their log is agreed on is not simulated: a command is applied at one moment or never, and
//! may be applied after its sender is gone. News may come late, twice, in another order, or not before the next round.

use crate::net::Machine;
use crate::scenario::{Scenario, machine_of};
use dkv_catalog::{Applied, Catalog, Command, Machine as Site, NodeSpec, Outcome, Wish};
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, StoreId};
use dkv_protocol::ranges::{ConfigAsk, DeadBoot, Placement, RangeConfig, RangeNews, RangeState};
use std::collections::BTreeMap;

/// What a node has been told of a range: the epoch and the version of the placement.
type Told = (Epoch, u64);

/// The catalogue of the only store, and what each node was told of it.
pub struct Control {
    catalog: Catalog,
    store: StoreId,
    ranges: Vec<RangeId>,
    told: Vec<BTreeMap<RangeId, Told>>,
}

impl Control {
    /// The store is defined; nothing is formed.
    pub fn new(scenario: &Scenario) -> Self {
        let store = StoreId("00000000000000000000000000000001".into());
        let nodes = scenario
            .all()
            .map(|machine| NodeSpec {
                node: NodeIndex(u16::from(machine.0)),
                shards: 1,
                machine: Site(format!("machine{}", machine.0)),
            })
            .collect();
        let replication = scenario.replication;
        let mut catalog = Catalog::default();
        catalog.apply(&Command::DefineStore { store: store.clone(), replication, nodes });
        let mut control = Self {
            catalog,
            store,
            ranges: scenario.ranges.clone(),
            told: vec![BTreeMap::new(); usize::from(scenario.machines)],
        };
        let placements =
            scenario.ranges.iter().copied().zip(scenario.placements.iter().cloned()).collect();
        control.wish(Wish::Explicit { placements });
        control
    }

    fn apply(&mut self, command: &Command) -> Applied {
        let mut applied = self.catalog.apply(command);
        applied.changed.retain(|range| self.ranges.contains(range));
        applied
    }

    fn first_index(now_ns: u64) -> u64 {
        (1_000_000 + now_ns / 1_000_000_000) << 16
    }

    /// A manager registers a process of its machine.
    pub fn node_up(&mut self, now_ns: u64, machine: Machine, boot: BootId) -> Applied {
        let store = self.store.clone();
        let node = NodeIndex(u16::from(machine.0));
        let first_index = Self::first_index(now_ns);
        self.apply(&Command::NodeUp { store, node, boot, first_index })
    }

    /// All ranges get their first configuration.
    pub fn form(&mut self, now_ns: u64) -> Applied {
        let store = self.store.clone();
        let first_index = Self::first_index(now_ns);
        self.apply(&Command::Form { store, first_index, only_up: true })
    }

    /// A manager saw a process end.
    pub fn dead(&mut self, machine: Machine, boot: BootId) -> Applied {
        let store = self.store.clone();
        let dead = DeadBoot { node: NodeIndex(u16::from(machine.0)), boot };
        self.apply(&Command::Dead { store, dead })
    }

    /// An operator wishes.
    pub fn wish(&mut self, wish: Wish) -> Applied {
        let store = self.store.clone();
        self.apply(&Command::Place { store, wish })
    }

    /// Copies ask. Returns what changed and, for each ask, its news.
    pub fn asks(&mut self, asks: Vec<ConfigAsk>) -> (Applied, Vec<RangeNews>) {
        let asked: Vec<RangeId> = asks.iter().map(|ask| ask.range).collect();
        let store = self.store.clone();
        let applied = self.apply(&Command::Asks { store, asks });
        let answers = asked
            .into_iter()
            .filter_map(|range| self.news(range))
            .map(|news| RangeNews { answer: true, ..news })
            .collect();
        (applied, answers)
    }

    /// Whether an outcome means that something changed.
    pub fn granted(outcome: &Outcome) -> bool {
        *outcome == Outcome::Done
    }

    /// The news of a range.
    pub fn news(&self, range: RangeId) -> Option<RangeNews> {
        self.catalog.news(&self.store, range)
    }

    /// The news of all ranges in use.
    pub fn all_news(&self) -> Vec<RangeNews> {
        self.ranges.iter().filter_map(|range| self.news(*range)).collect()
    }

    /// The configuration of a range.
    pub fn config(&self, range: RangeId) -> Option<&RangeConfig> {
        self.catalog.store(&self.store)?.range(range).config.as_ref()
    }

    /// Where its copies should be.
    pub fn placement(&self, range: RangeId) -> Placement {
        self.news(range).map(|news| news.placement).unwrap_or_default()
    }

    /// A node got news.
    pub fn told(&mut self, machine: Machine, news: &RangeNews) {
        let epoch = news.config.as_ref().map_or(Epoch(0), |config| config.epoch);
        let told = self.told[machine.index()].entry(news.range).or_insert((Epoch(0), 0));
        *told = (told.0.max(epoch), told.1.max(news.placement_version));
    }

    /// A node starts: it knows nothing.
    pub fn forget_told(&mut self, machine: Machine) {
        self.told[machine.index()].clear();
    }

    /// What a node has not been told yet.
    pub fn behind(&self, machine: Machine) -> Vec<RangeNews> {
        let told = &self.told[machine.index()];
        self.all_news()
            .into_iter()
            .filter(|news| {
                let epoch = news.config.as_ref().map_or(Epoch(0), |config| config.epoch);
                told.get(&news.range)
                    .is_none_or(|t| *t < (epoch, 0) || t.1 < news.placement_version)
            })
            .collect()
    }

    /// Why a range is not as it is wished, if it is not. One that is offline waits for a human.
    pub fn unsettled(&self, range: RangeId) -> Option<String> {
        let config = self.config(range)?;
        if config.state == RangeState::Offline {
            return None;
        }
        let placement = self.placement(range);
        let mut members: Vec<Machine> =
            config.in_sync.iter().map(|rid| machine_of(rid.addr)).collect();
        let mut wished: Vec<Machine> = placement.iter().copied().map(machine_of).collect();
        let leads = machine_of(config.primary.addr);
        let first = wished.first().copied();
        members.sort_unstable();
        wished.sort_unstable();
        if members != wished || Some(leads) != first {
            let text = crate::peers::config(config, &placement);
            return Some(format!("range {}: {text}", range.0));
        }
        None
    }

    /// Whether a range is offline.
    pub fn offline(&self, range: RangeId) -> bool {
        self.config(range).is_some_and(|config| config.state == RangeState::Offline)
    }
}
