//! How a run ends: everything is mended, and then it must become whole in bounded time, answer every client, hold every
//! answered write, and have equal copies.

use crate::face::Held;
use crate::model::Tolerance;
use crate::net::Machine;
use crate::planted::Planted;
use crate::scenario::{MS, machine_of};
use crate::world::{Event, World};
use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::{RangeConfig, RangeState};

/// How long after the mending a range may be otherwise than wished, and a command of the end unanswered.
const SETTLE_NS: u64 = 5_000 * MS;
/// How long copies may differ when nobody asks any more.
const EQUAL_NS: u64 = 1_000 * MS;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Things go wrong.
    Faults,
    /// Nothing does; ranges become as they are wished until then.
    Settling { until_ns: u64 },
    /// Every key is read and every range written, until then.
    Ending { until_ns: u64 },
    /// Nobody asks any more; the copies are compared then.
    Quiet { until_ns: u64 },
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The hash of everything that happened.
    pub hash: u64,
    /// How many events that was.
    pub events: u64,
    /// Rules that were broken; the first is the earliest.
    pub breaches: Vec<String>,
    /// Keys on which the search was given up.
    pub undecided: u32,
    /// Commands answered.
    pub answered: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Commands refused.
    pub refused: u64,
    /// Changes of configurations and placements.
    pub changes: u64,
    /// Ranges that lost their last copy, rightly.
    pub offline: u32,
    /// The account, when it was wanted.
    pub lines: Vec<String>,
}

impl Report {
    /// Whether nothing was found. A search that was given up is not a pass.
    pub fn passed(&self) -> bool {
        self.breaches.is_empty() && self.undecided == 0
    }
}

impl World {
    /// Runs to the end.
    pub(crate) fn run(mut self) -> Report {
        while !self.over_and_done {
            self.step();
        }
        let off = if self.planted == Planted::WildClocks { 410_000 } else { 20_500 };
        let tolerance = Tolerance { rate_ppm: off, late_ns: 20_000 * MS };
        let judgement = self.history.judge(tolerance);
        for violated in judgement.violated {
            self.breach(format!("not linearizable: {violated}"));
        }
        Report {
            hash: self.trace.hash(),
            events: self.trace.events(),
            breaches: self.breaches,
            undecided: judgement.undecided,
            answered: judgement.answered,
            unknown: judgement.unknown,
            refused: judgement.refused,
            changes: self.changes,
            offline: self.offline,
            lines: self.trace.into_lines(),
        }
    }

    /// The catalogue has changed a range: is that possible?
    pub(crate) fn look_at(&mut self, range: RangeId, config: &RangeConfig) {
        if self.formed.insert(range, config.formed).is_some_and(|before| before != config.formed) {
            self.history.void_range(range);
            self.ledger.forget(range);
        }
        if config.state == RangeState::Offline {
            self.offline += 1;
            // Only a copy whose process is gone can have been the last one and be lost.
            for rid in &config.in_sync {
                let host = &self.hosts[machine_of(rid.addr).index()];
                if host.node.is_some() && host.boot == rid.boot {
                    self.breach(format!("range {} lost a last copy that lives: {rid:?}", range.0));
                }
            }
        }
    }

    /// Everything is mended.
    pub(crate) fn mend(&mut self) {
        self.say(format_args!("ALL IS MENDED"));
        self.net.calm();
        self.phase = Phase::Settling { until_ns: self.queue.now_ns() + SETTLE_NS };
        for (at_ns, parcel) in self.net.resume(self.queue.now_ns()) {
            let incarnation = self.hosts[parcel.to().index()].incarnation;
            self.queue.at(at_ns, Event::Deliver { parcel, incarnation });
        }
        for machine in self.scenario.all() {
            self.host(machine).slow_ns = 0;
        }
        self.queue.after(50 * MS, Event::Inspect);
    }

    fn served(&self) -> Vec<RangeId> {
        let ranges = self.scenario.ranges.iter().copied();
        ranges.filter(|range| !self.control.offline(*range)).collect()
    }

    /// Looks whether the run may go on to its next part.
    pub(crate) fn inspect(&mut self) {
        let now_ns = self.queue.now_ns();
        match self.phase {
            Phase::Settling { until_ns } => {
                let unsettled: Vec<String> = self
                    .scenario
                    .ranges
                    .iter()
                    .filter_map(|range| self.control.unsettled(*range))
                    .collect();
                let all_up = self.hosts.iter().all(|host| host.node.is_some());
                if unsettled.is_empty() && all_up {
                    let served = self.served();
                    self.clients.end(&mut self.history, &served);
                    self.phase = Phase::Ending { until_ns: now_ns + SETTLE_NS };
                } else if now_ns > until_ns {
                    self.breach(format!("not settled after the mending: {unsettled:?}"));
                    self.show_views();
                    self.over_and_done = true;
                }
            }
            Phase::Ending { until_ns } => {
                if let Some(failed) = self.clients.failed.take() {
                    self.breach(failed);
                    self.show_views();
                }
                if self.clients.ended() {
                    let beacons_ns = self.scenario.settings.beacon_ns * 4;
                    let far_ns = self.scenario.weather.delay_ns * 24;
                    self.phase = Phase::Quiet { until_ns: now_ns + beacons_ns + far_ns };
                } else if now_ns > until_ns {
                    self.breach("commands after the mending are not answered".into());
                    self.show_views();
                    self.over_and_done = true;
                }
            }
            Phase::Quiet { until_ns } if now_ns >= until_ns => {
                let differences = self.differences();
                // A key that expires meanwhile is removed at one copy before the other.
                let late = now_ns >= until_ns + EQUAL_NS;
                if differences.is_empty() || late {
                    for difference in differences {
                        self.breach(difference);
                    }
                    self.over_and_done = true;
                }
            }
            Phase::Faults | Phase::Quiet { .. } => {}
        }
        if !self.over_and_done {
            self.queue.after(20 * MS, Event::Inspect);
        }
    }

    fn show_views(&mut self) {
        for machine in self.scenario.all() {
            for range in self.scenario.ranges.clone() {
                let node = self.hosts[machine.index()].node.as_ref();
                let view = node.map_or_else(|| "no process".into(), |node| node.shown(range));
                self.say(format_args!("n{} range {}: {view}", machine.0, range.0));
            }
        }
    }

    fn held(&self, machine: Machine, range: RangeId) -> (u64, Vec<Held>) {
        let now = self.now_of(machine);
        let node = self.hosts[machine.index()].node.as_ref();
        node.map_or((0, Vec::new()), |node| node.held(now, range))
    }

    /// All copies that count must be equal, and go as far as the last write that was answered. Who neither counts nor
    /// should holds nothing.
    fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        for range in self.served() {
            let Some(config) = self.control.config(range).cloned() else { continue };
            let primary = machine_of(config.primary.addr);
            let (index, held) = self.held(primary, range);
            found.extend(self.ledger.check_end(range, index).err());
            for rid in config.in_sync.iter().filter(|rid| **rid != config.primary) {
                let copy = machine_of(rid.addr);
                let (copy_index, copy_held) = self.held(copy, range);
                if (copy_index, &copy_held) != (index, &held) {
                    found.push(format!(
                        "range {}: the copies differ: n{} at {index} has {} keys, n{} at {copy_index} has {}{}",
                        range.0,
                        primary.0,
                        held.len(),
                        copy.0,
                        copy_held.len(),
                        first_difference(&held, &copy_held),
                    ));
                }
            }
            let placement = self.control.placement(range);
            for machine in self.scenario.all() {
                let placed = placement.iter().any(|addr| machine_of(*addr) == machine);
                let counts = config.in_sync.iter().any(|rid| machine_of(rid.addr) == machine);
                let keys = self.held(machine, range).1.len();
                if !placed && !counts && keys > 0 {
                    let (range, node) = (range.0, machine.0);
                    found.push(format!("range {range}: n{node} still holds what was moved away"));
                }
            }
        }
        found
    }
}

fn first_difference(ours: &[Held], theirs: &[Held]) -> String {
    let only = |these: &[Held], those: &[Held]| {
        these.iter().find(|held| !those.contains(held)).map(|held| {
            let text =
                |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            format!("{} = {} of {}", text(&held.key), text(&held.value), held.version)
        })
    };
    format!("; here only: {:?}, there only: {:?}", only(ours, theirs), only(theirs, ours))
}
