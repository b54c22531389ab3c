//! What is done to a store in a round, and what it says of whom it touches.

use super::load::Rng;
use super::site::{STORE, Site, Stopped, rest};
use crate::machine::kill;
use std::time::{Duration, Instant};

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kill -9 of a node, by the pid that its manager tells.
    Kill,
    /// SIGSTOP of a node for 0.1 to 10 s.
    Pause,
    /// A node that runs for 20 ms of every 220 ms, for 5 s.
    Slow,
    /// SIGSTOP of the manager for 0.1 to 10 s.
    PauseAgent,
    /// kill -9 of the manager, which is started again; every other time a node dies while there is none.
    KillAgent,
    /// `store restart --rolling`.
    Rolling,
    /// `store failover` of one node after the other.
    Handover,
    /// `store add-instance`, and when it carries its share `store remove-instance`.
    Resize,
    /// As [`Kind::Resize`], and while ranges move to the new node it dies, or another one does.
    ResizeKill,
    /// All processes of a machine die and its cable is pulled; the machine that leads the managers every other time.
    Machine,
    /// As [`Kind::Machine`], and what its manager kept on disk is gone.
    Wipe,
    /// kill -9 of a manager, and what it kept on disk is gone; its nodes live.
    WipeAgent,
    /// The cable of a machine is pulled; of the one that leads the managers every other time.
    Cable,
    /// A machine is not heard any more, or does not hear any more.
    OneWay,
    /// Two machines do not reach each other; the third reaches both.
    Partial,
    /// A cable goes down and up every 100 ms, for 3 s.
    Flap,
    /// One packet in twenty to or from a machine is dropped, for 3 s.
    Loss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::Pause,
        Self::Slow,
        Self::PauseAgent,
        Self::KillAgent,
        Self::Rolling,
        Self::Handover,
        Self::Resize,
        Self::ResizeKill,
        Self::Machine,
        Self::Wipe,
        Self::WipeAgent,
        Self::Cable,
        Self::OneWay,
        Self::Partial,
        Self::Flap,
        Self::Loss,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::PauseAgent => "pause-manager",
            Self::KillAgent => "kill-manager",
            Self::Rolling => "rolling",
            Self::Handover => "handover",
            Self::Resize => "resize",
            Self::ResizeKill => "resize-kill",
            Self::Machine => "machine",
            Self::Wipe => "wipe",
            Self::WipeAgent => "wipe-manager",
            Self::Cable => "cable",
            Self::OneWay => "one-way",
            Self::Partial => "partial",
            Self::Flap => "flap",
            Self::Loss => "loss",
        }
    }

    /// Whether it needs several machines.
    pub fn needs_machines(self) -> bool {
        matches!(
            self,
            Self::Machine
                | Self::Wipe
                | Self::WipeAgent
                | Self::Cable
                | Self::OneWay
                | Self::Partial
                | Self::Flap
                | Self::Loss
        )
    }

    /// Whether it ends the process of one node.
    pub fn kills_a_node(self) -> bool {
        matches!(self, Self::Kill | Self::KillAgent | Self::ResizeKill)
    }

    /// Whether something is slow, and not gone.
    pub fn is_gray(self) -> bool {
        matches!(self, Self::Slow | Self::Loss)
    }

    /// Whether clients must not see an error.
    pub fn is_graceful(self) -> bool {
        matches!(
            self,
            Self::Rolling | Self::Handover | Self::Resize | Self::PauseAgent | Self::WipeAgent
        )
    }

    /// Whether it cuts a machine off so that what runs there must refuse.
    pub fn cuts_off(self) -> bool {
        matches!(self, Self::Cable | Self::OneWay)
    }

    /// The longest gap that is allowed for, milliseconds: half of all rounds, 99 of 100, all.
    pub fn gaps_ms(self) -> Option<(u64, u64, u64)> {
        match self {
            Self::Kill => Some((100, 500, 1000)),
            Self::Machine | Self::Wipe | Self::Cable => Some((2000, 2000, 4000)),
            Self::PauseAgent | Self::Rolling | Self::Handover | Self::Resize => {
                Some((50, 500, 1000))
            }
            _ => None,
        }
    }
}

/// What a round will do to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What.
    pub kind: Kind,
    /// The nodes whose ranges are touched.
    pub nodes: Vec<usize>,
    /// The machine that is touched.
    pub machine: usize,
    /// How long.
    pub length: Duration,
    /// Which of two variants.
    pub variant: bool,
    /// For people.
    pub note: String,
}

impl Plan {
    /// Chooses how long, and whom unless it is to be the machine `hit`: nodes and machines in turn, lengths at random.
    pub fn new(kind: Kind, hit: Option<usize>, round: u64, site: &Site, rng: &mut Rng) -> Self {
        let variant = round % 2 == 1;
        let node = round as usize % site.nodes.len();
        let everybody = || (0..site.nodes.len()).collect();
        // As often between 0.1 and 1 s as between 1 and 10 s.
        let tenths = rng.below(1000) as f64 / 1000.0;
        let long = Duration::from_secs_f64(0.1 * 100f64.powf(tenths));
        let leader = site.leader();
        let machine = match hit {
            Some(machine) => machine,
            None if variant => rng.below(site.machines() as u64) as usize,
            None => leader,
        };
        let on = |machine: usize| -> Vec<usize> {
            (0..site.nodes.len()).filter(|node| site.nodes[*node].machine == machine).collect()
        };
        let name = &site.nodes[node].name;
        let address = &site.machine(machine).address;
        let lead = if machine == leader { ", which leads" } else { "" };
        let (nodes, length, note) = match kind {
            Kind::Kill => (vec![node], Duration::ZERO, name.clone()),
            Kind::Pause => (vec![node], long, format!("{name} for {} ms", long.as_millis())),
            Kind::Slow => (vec![node], Duration::from_secs(5), name.clone()),
            Kind::PauseAgent => (everybody(), long, format!("for {} ms", long.as_millis())),
            Kind::KillAgent if variant => {
                (vec![node], Duration::from_millis(500), format!("and {name} meanwhile"))
            }
            Kind::KillAgent => (everybody(), Duration::from_millis(500), String::new()),
            Kind::Rolling | Kind::Handover | Kind::Resize => {
                (everybody(), Duration::ZERO, String::new())
            }
            Kind::ResizeKill => {
                let who = if variant { "the new node" } else { name };
                let after = long / 8;
                (vec![node], after, format!("{who} dies after {} ms", after.as_millis()))
            }
            Kind::WipeAgent => {
                (on(machine), Duration::from_millis(500), format!("{address}{lead}"))
            }
            Kind::Machine | Kind::Wipe | Kind::Cable => {
                (on(machine), Duration::from_secs(4), format!("{address}{lead}"))
            }
            Kind::OneWay => {
                let way = if variant { "is not heard" } else { "does not hear" };
                (on(machine), Duration::from_secs(4), format!("{address}{lead} {way}"))
            }
            Kind::Partial => {
                let other = (machine + 1) % site.machines();
                let nodes = [on(machine), on(other)].concat();
                let other = &site.machine(other).address;
                (nodes, Duration::from_secs(4), format!("{address} and {other}"))
            }
            Kind::Flap | Kind::Loss => {
                (on(machine), Duration::from_secs(3), format!("{address}{lead}"))
            }
        };
        Self { kind, nodes, machine, length, variant, note }
    }

    /// Does it and undoes it. `mark` is called when the fault has begun and just before it is undone. What it gives are the
    /// processes that must be others from now on, or what went wrong.
    pub fn carry_out(
        &self,
        site: &mut Site,
        mark: &mut dyn FnMut(Mark),
    ) -> Result<Vec<u32>, String> {
        let pid = |site: &Site| site.nodes[self.nodes[0]].pid.ok_or("the node has no process");
        let other = (self.machine + 1) % site.machines();
        let mut gone = Vec::new();
        match self.kind {
            Kind::Kill => {
                let pid = pid(site)?;
                mark(Mark::Begun);
                kill(pid);
                gone.push(pid);
            }
            Kind::Pause => {
                let stopped = Stopped::stop(pid(site)?);
                mark(Mark::Begun);
                rest(self.length);
                mark(Mark::Ending);
                drop(stopped);
            }
            Kind::Slow => {
                let pid = pid(site)?;
                mark(Mark::Begun);
                for _ in 0..self.length.as_millis() / 220 {
                    let stopped = Stopped::stop(pid);
                    rest(Duration::from_millis(200));
                    drop(stopped);
                    rest(Duration::from_millis(20));
                }
                mark(Mark::Ending);
            }
            Kind::PauseAgent => {
                let manager = site.manager_pid(self.machine).ok_or("there is no manager")?;
                mark(Mark::Begun);
                let stopped = Stopped::stop(manager);
                rest(self.length);
                mark(Mark::Ending);
                drop(stopped);
            }
            Kind::KillAgent => {
                mark(Mark::Begun);
                site.kill_manager(self.machine);
                if self.variant {
                    let pid = pid(site)?;
                    kill(pid);
                    gone.push(pid);
                }
                rest(self.length);
                mark(Mark::Ending);
                let pids =
                    |site: &Site| -> Vec<_> { site.nodes.iter().map(|node| node.pid).collect() };
                let before = pids(site);
                site.start_manager(self.machine);
                site.look();
                if !self.variant && pids(site) != before {
                    return Err("the manager did not take its nodes over".into());
                }
            }
            Kind::Rolling => {
                gone.extend(site.nodes.iter().filter_map(|node| node.pid));
                mark(Mark::Begun);
                commanded(site, &format!("store restart {STORE} --rolling"))?;
            }
            Kind::Handover => {
                mark(Mark::Begun);
                for node in 0..site.nodes.len() {
                    let name = site.nodes[node].name.clone();
                    commanded(site, &format!("store failover {STORE} --instance {name}"))?;
                    let begin = Instant::now();
                    // The managers know first; the nodes learn it within moments.
                    while !site.leads(node).is_empty() {
                        if begin.elapsed() > Duration::from_secs(5) {
                            return Err(format!("{name} still leads after it handed over"));
                        }
                        rest(Duration::from_millis(20));
                    }
                    commanded(site, &format!("store failover {STORE} --instance {name} --back"))?;
                }
            }
            Kind::Resize => {
                mark(Mark::Begun);
                resize(site, None)?;
            }
            Kind::ResizeKill => {
                mark(Mark::Begun);
                let victim = (!self.variant).then_some(self.nodes[0]);
                gone.push(resize(site, Some((self.length, victim)))?);
            }
            Kind::Machine | Kind::Wipe => {
                mark(Mark::Begun);
                site.cable(self.machine, false);
                site.kill_manager(self.machine);
                for pid in site.machine(self.machine).pids("node") {
                    kill(pid);
                    gone.push(pid);
                }
                rest(self.length);
                mark(Mark::Ending);
                if self.kind == Kind::Wipe {
                    site.wipe(self.machine)?;
                }
                site.cable(self.machine, true);
                // From here on nobody does anything: what it lost it gets from the others.
                site.start_manager(self.machine);
            }
            Kind::WipeAgent => {
                let before = site.machine(self.machine).pids("node");
                mark(Mark::Begun);
                site.kill_manager(self.machine);
                site.wipe(self.machine)?;
                rest(self.length);
                mark(Mark::Ending);
                site.start_manager(self.machine);
                site.adopted(self.machine, &before)?;
            }
            Kind::Cable => {
                mark(Mark::Begun);
                site.cable(self.machine, false);
                rest(self.length);
                mark(Mark::Ending);
                site.cable(self.machine, true);
            }
            Kind::OneWay | Kind::Partial | Kind::Loss => {
                let filters = self.filters(site, other);
                mark(Mark::Begun);
                for (machine, rules) in &filters {
                    site.machine(*machine).filter(rules);
                }
                rest(self.length);
                mark(Mark::Ending);
                for (machine, _) in &filters {
                    site.machine(*machine).filter(&[]);
                }
            }
            Kind::Flap => {
                mark(Mark::Begun);
                for _ in 0..self.length.as_millis() / 200 {
                    site.cable(self.machine, false);
                    rest(Duration::from_millis(100));
                    site.cable(self.machine, true);
                    rest(Duration::from_millis(100));
                }
                mark(Mark::Ending);
            }
        }
        Ok(gone)
    }

    /// The rules of incoming packets, a machine each.
    fn filters(&self, site: &Site, other: usize) -> Vec<(usize, Vec<String>)> {
        let from = |machine: usize| format!("ip saddr {} drop", site.machine(machine).address);
        let others = (0..site.machines()).filter(|machine| *machine != self.machine);
        match self.kind {
            Kind::Partial => {
                vec![(self.machine, vec![from(other)]), (other, vec![from(self.machine)])]
            }
            Kind::Loss => {
                let lossy = "iifname eth0 numgen random mod 100 < 5 drop".to_owned();
                vec![(self.machine, vec![lossy])]
            }
            _ if self.variant => others.map(|it| (it, vec![from(self.machine)])).collect(),
            _ => vec![(self.machine, others.map(from).collect())],
        }
    }
}

/// The moments of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It begins now.
    Begun,
    /// It is undone now.
    Ending,
}

fn commanded(site: &Site, line: &str) -> Result<String, String> {
    let output = site.dkv(0, line);
    if output.code == 0 { Ok(output.out) } else { Err(format!("{line}: {}", output.all().trim())) }
}

/// A node more, until it leads its share, and away with it again. Some time after it came a node may die, it if no other is
/// named; what is given is its process.
fn resize(site: &mut Site, dies: Option<(Duration, Option<usize>)>) -> Result<u32, String> {
    let before: Vec<String> = site.nodes.iter().map(|node| node.name.clone()).collect();
    commanded(site, &format!("store add-instance {STORE}"))?;
    site.look();
    let added = site.nodes.iter().position(|node| !before.contains(&node.name));
    let added = added.ok_or("add-instance added no node")?;
    let mut gone = 0;
    if let Some((after, victim)) = dies {
        rest(after);
        site.look();
        let victim = victim.map_or(&site.nodes[added].name, |victim| &before[victim]);
        let victim = site.nodes.iter().find(|node| node.name == *victim);
        gone = victim.and_then(|node| node.pid).ok_or("the node has no process")?;
        kill(gone);
    }
    let patience = Duration::from_mins(1);
    site.whole(&[gone], patience).ok_or_else(|| site.complaint())?;
    site.placed(patience).ok_or_else(|| site.complaint())?;
    let (led, share) = (site.leads(added).len(), 256 / site.nodes.len() * 3 / 4);
    if led < share {
        return Err(format!("the new node leads {led} ranges, not {share}"));
    }
    let name = site.nodes[added].name.clone();
    commanded(site, &format!("store remove-instance {STORE} --instance {name}"))?;
    site.look();
    if site.nodes.len() == before.len() { Ok(gone) } else { Err(format!("{name} is still there")) }
}
