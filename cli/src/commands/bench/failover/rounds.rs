//! The rounds: what is done to a node through the managers, and when the store is whole again.

use super::{Args, Cut, How, of_row};
use crate::failure::{Exit, Failure};
use crate::output;
use dkv_agent::coordinate::{self, Group, Report};
use dkv_bench::failover::{Counts, FailoverLoad};
use dkv_protocol::admin::{NodeRecord, NodeState, StoreView};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pause between two looks at a store that recovers.
const LOOK: Duration = Duration::from_millis(50);
/// So many looks in a row must say that the store is whole: the first may be of before its managers noticed.
const LOOKS: u32 = 3;
/// A manager waits longer and longer before it starts a node that ended sooner after its start; so it is let live longer.
const LIFE_MIN: Duration = Duration::from_secs(11);

/// What came of a round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// None: the time before the first, in which nothing was done.
    pub(super) node: Option<String>,
    /// How long each range that the node led went without an answer, at most.
    pub(super) gaps: Vec<Duration>,
    /// Until every range had all its copies again; none: it did not in time.
    pub(super) whole: Option<Duration>,
    /// Of this round alone.
    pub(super) answered: u64,
    pub(super) uncertain: u64,
    pub(super) failed: u64,
}

/// Who ends nodes, and looks when they are back.
pub(super) struct Breaker<'a> {
    group: &'a Group,
    args: &'a Args,
    has_copies: bool,
    /// Those that are hit, in turns.
    nodes: Vec<NodeRecord>,
    /// When each was back.
    back: BTreeMap<String, Instant>,
}

/// What must be so before the next round.
enum Wanted {
    /// All copies are there.
    Whole,
    /// And this node runs as another process.
    Reborn { node: String, before: Option<u32> },
    /// And every range is led from where it should be.
    Placed,
}

impl<'a> Breaker<'a> {
    pub(super) fn new(group: &'a Group, args: &'a Args, view: &StoreView) -> Result<Self, Failure> {
        let mut nodes = view.record.nodes.clone();
        if let Some(asked) = &args.node {
            nodes.retain(|node| node.name == *asked || node.name == asked.replacen('-', "", 1));
        }
        if nodes.is_empty() {
            let asked = args.node.as_deref().unwrap_or_default();
            let all: Vec<&str> = view.record.nodes.iter().map(|node| node.name.as_str()).collect();
            let what = format!(
                "the store {} has no node {asked:?}; its nodes are: {}",
                args.name,
                all.join(", ")
            );
            return Err(Failure::usage(what, format!("--node {}", all[0])));
        }
        let has_copies = view.record.definition.replication.is_some();
        Ok(Self { group, args, has_copies, nodes, back: BTreeMap::new() })
    }

    fn recovery_max(&self) -> Duration {
        Duration::from_millis(self.args.recovery_max)
    }

    fn look(&self) -> Option<StoreView> {
        coordinate::list(self.group).store(&self.args.name).cloned()
    }

    /// Waits until every range has all its copies.
    pub(super) fn await_whole(&self, interrupted: &dyn Fn() -> bool) -> Result<(), Failure> {
        self.wait(Instant::now(), &Wanted::Whole, interrupted).map(|_| ())
    }

    /// Hits a node and waits until the store is whole again; how long that took. None: it was interrupted before.
    fn hit(
        &mut self,
        node: &NodeRecord,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Duration>, Failure> {
        let (group, store, name) = (self.group, self.args.name.as_str(), node.name.as_str());
        let pid = |view: &StoreView| {
            view.nodes.iter().find(|own| own.record.name == name).and_then(|own| own.pid)
        };
        let before = self.look().as_ref().and_then(pid);
        let mut begin = Instant::now();
        let accept_loss = self.args.accept_loss;
        let wanted = match self.args.how {
            How::Kill => {
                let kill = || coordinate::kill(group, store, name, accept_loss);
                begin = self.once_safe(kill, interrupted)?;
                Wanted::Reborn { node: name.to_owned(), before }
            }
            How::Stop => {
                let stop = || coordinate::stop(group, store, Some(name), accept_loss);
                begin = self.once_safe(stop, interrupted)?;
                done(&coordinate::start(group, store, Some(name)))?;
                Wanted::Reborn { node: name.to_owned(), before }
            }
            How::Drain => {
                let most = self.recovery_max();
                done(&coordinate::failover(group, store, name, false, most))?;
                done(&coordinate::failover(group, store, name, true, most))?;
                Wanted::Placed
            }
        };
        let whole = self.wait(begin, &wanted, interrupted)?;
        self.back.insert(node.name.clone(), Instant::now());
        Ok(whole)
    }

    /// Does what would end a node, which is refused while the others lack a copy: one that comes late again and again is let
    /// go for a while, so that may be so although the store was whole a moment ago. When it was done.
    fn once_safe(
        &self,
        act: impl Fn() -> Report,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Instant, Failure> {
        let deadline = Instant::now() + self.recovery_max();
        loop {
            let begin = Instant::now();
            let report = act();
            let refused = report.rows.iter().any(|row| row.code == "last_copy");
            if !refused || begin >= deadline || interrupted() {
                return done(&report).map(|()| begin);
            }
            self.wait(begin, &Wanted::Whole, interrupted)?;
        }
    }

    /// Looks at the store until it is as wanted; how long that took from `begin` on. None: it was interrupted before.
    fn wait(
        &self,
        begin: Instant,
        wanted: &Wanted,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Duration>, Failure> {
        let deadline = Instant::now() + self.recovery_max();
        let (mut since, mut looks) = (None, 0);
        loop {
            let missing = match self.look() {
                Some(view) => self.missing(&view, wanted),
                None => Some("no manager tells of it".to_owned()),
            };
            if missing.is_none() {
                looks += 1;
                let took = *since.get_or_insert(begin.elapsed());
                if looks >= LOOKS {
                    return Ok(Some(took));
                }
            } else {
                (since, looks) = (None, 0);
            }
            if interrupted() {
                return Ok(None);
            }
            if let Some(missing) = missing.filter(|_| Instant::now() >= deadline) {
                let name = &self.args.name;
                let what = format!(
                    "after {} s the store {name} is not whole: {missing}",
                    self.recovery_max().as_secs()
                );
                let hint = format!("dkv store show {name}; --recovery-max 10m waits longer");
                return Err(Failure::new(Exit::TimedOut, what, hint));
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// What keeps a store from being as wanted.
    fn missing(&self, view: &StoreView, wanted: &Wanted) -> Option<String> {
        if let Wanted::Reborn { node, before } = wanted {
            let own = view.nodes.iter().find(|own| own.record.name == *node);
            if own.is_none_or(|own| own.pid.is_none() || own.pid == *before) {
                return Some(format!("{node} is not back"));
            }
        }
        let down = view.nodes.iter().find(|node| {
            node.state != Some(NodeState::Running) || (!self.has_copies && !node.cluster_ok)
        });
        if let Some(down) = down {
            return Some(format!("{} is not up", down.record.name));
        }
        let copies = view.copies.as_ref()?;
        if let Some(out) = copies.nodes.iter().find(|node| !node.up) {
            return Some(format!("{} is not known to run", out.name));
        }
        let counts = [
            (copies.unformed_ranges, "ranges are led by nobody yet"),
            (copies.offline_ranges, "ranges have lost their last copy"),
            (copies.degraded_ranges, "ranges have fewer copies than they should"),
        ];
        let moving = matches!(wanted, Wanted::Placed)
            .then_some((copies.moving_ranges, "ranges are not led from where they should be"));
        let mut counts = counts.into_iter().chain(moving);
        counts.find(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"))
    }
}

fn done(report: &Report) -> Result<(), Failure> {
    let failed = report.rows.iter().find(|row| row.result != coordinate::ActionResult::Success);
    failed.map_or(Ok(()), |row| Err(of_row(row)))
}

/// Lets time pass; whether it did without an interruption.
fn rest(time: Duration, interrupted: &dyn Fn() -> bool) -> bool {
    let until = Instant::now() + time;
    loop {
        if interrupted() {
            return false;
        }
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::park_timeout(left.min(LOOK)),
            _ => return true,
        }
    }
}

/// All rounds, the first of which does nothing.
pub(super) fn run(
    args: &Args,
    breaker: &mut Breaker<'_>,
    load: &FailoverLoad,
    rounds: &mut Vec<Round>,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), Cut> {
    let pause = Duration::from_millis(args.pause);
    let go_on = |so: bool| if so { Ok(()) } else { Err(Cut::Interrupted) };
    // Connections are made and first writes sent: nobody is measured by that.
    go_on(rest(Duration::from_millis(500), interrupted))?;
    let mut before = load.counts();
    load.begin_round();
    go_on(rest(pause, interrupted))?;
    rounds.push(of(load, &mut before, None, &load.gaps(), None));
    for number in 0..args.rounds {
        let node = breaker.nodes[number as usize % breaker.nodes.len()].clone();
        if let (How::Kill, Some(back)) = (args.how, breaker.back.get(&node.name)) {
            go_on(rest(LIFE_MIN.saturating_sub(back.elapsed()), interrupted))?;
        }
        output::note(&format!(
            "round {} of {}: {} {}",
            number + 1,
            args.rounds,
            args.how.name(),
            node.name
        ));
        let led = load.led_by(&endpoints_of(&node));
        before = load.counts();
        load.begin_round();
        let hit = breaker.hit(&node, interrupted);
        if hit.is_ok() {
            rest(pause, interrupted);
        }
        let all = load.gaps();
        let gaps: Vec<Duration> = led.iter().map(|range| all[*range]).collect();
        let whole = hit.as_ref().ok().copied().flatten();
        rounds.push(of(load, &mut before, Some(node.name), &gaps, whole));
        hit.map_err(Cut::Failed)?;
        go_on(!interrupted())?;
    }
    Ok(())
}

fn of(
    load: &FailoverLoad,
    before: &mut Counts,
    node: Option<String>,
    gaps: &[Duration],
    whole: Option<Duration>,
) -> Round {
    let now = load.counts();
    let round = Round {
        node,
        gaps: gaps.to_vec(),
        whole,
        answered: now.reads + now.writes - before.reads - before.writes,
        uncertain: now.uncertain - before.uncertain,
        failed: now.failed() - before.failed(),
    };
    *before = now;
    round
}

/// Where CLUSTER SLOTS may say that a node's ranges are: at its shards' ports, or at its client port.
fn endpoints_of(node: &NodeRecord) -> Vec<String> {
    let host = node.machine.rsplit_once(':').map_or(node.machine.as_str(), |(host, _)| host);
    let ports = node.shard_ports.iter().chain([&node.client_port]);
    ports.map(|port| format!("{host}:{port}")).collect()
}
