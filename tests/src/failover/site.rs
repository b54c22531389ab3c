//! A store with copies as a site runs it: one machine with several nodes, or several machines with a manager each, and a
//! machine more on which the clients are.

use super::wire::{Client, Manner, Wire, owners};
use crate::machine::{Machine, Network, Output, PATIENCE, Process};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The store's name.
pub const STORE: &str = "Held";
/// What the managers of several machines share.
const TOKEN: &str = "2f0d6c1b97e84aa3b5d4c6e8f7a90b1c2f0d6c1b97e84aa3b5d4c6e8f7a90b1c";
/// Longest that a look at a node may take.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The exit code of a command that had not enough time.
const TIMED_OUT: i32 = 5;

/// A node of the store.
#[derive(Clone, Debug)]
pub struct Node {
    /// `node1`.
    pub name: String,
    /// The number of its machine.
    pub machine: usize,
    /// Where plain clients reach it.
    pub client: SocketAddr,
    /// Where cluster clients reach its shards.
    pub shards: Vec<SocketAddr>,
    /// Its process.
    pub pid: Option<u32>,
}

/// How the copies of the store stand, as a manager tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Ranges with fewer copies in sync than they should have.
    pub degraded: u64,
    /// Ranges that nobody serves.
    pub down: u64,
    /// Ranges whose copies are not where they should be yet.
    pub moving: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Site {
    network: Network,
    managers: Vec<Option<Process>>,
    /// The store's nodes, in the order of their names.
    pub nodes: Vec<Node>,
}

impl Site {
    /// One machine with a manager and so many nodes.
    pub fn of_nodes(nodes: usize) -> Self {
        let mut site = Self::managed(Network::of(1), 1);
        site.create(&format!("--instance-count {nodes} --replicas 1"));
        site
    }

    /// So many machines with a manager and a node each.
    pub fn of_machines(machines: usize) -> Self {
        let mut site = Self::managed(Network::of(machines + 1), machines);
        site.create("--instance-count 1 --replicas 1");
        site
    }

    /// Two machines with a manager and a node each, and a third with a manager that only votes.
    pub fn with_witness() -> Self {
        let mut site = Self::managed(Network::of(4), 2);
        site.create("--instance-count 1 --replicas 1");
        site.start_manager(2);
        // When it says so, the witness votes.
        site.patiently(0, "manager add 10.77.0.13:7801");
        site
    }

    fn managed(network: Network, machines: usize) -> Self {
        let mut site = Self { network, managers: Vec::new(), nodes: Vec::new() };
        for machine in 0..machines {
            site.start_manager(machine);
        }
        let addresses: Vec<&str> =
            (0..machines).map(|machine| site.machine(machine).address.as_str()).collect();
        let connect = format!("connect -m {}", addresses.join(","));
        for machine in 0..machines {
            site.patiently(machine, &connect);
        }
        site
    }

    /// Runs `dkv` until it succeeds: a machine that is busy with other things may need more time than the command takes.
    #[track_caller]
    fn patiently(&self, machine: usize, line: &str) {
        let begin = Instant::now();
        let mut output = self.dkv(machine, line);
        while output.code == TIMED_OUT && begin.elapsed() < PATIENCE {
            output = self.dkv(machine, line);
        }
        output.ok();
    }

    fn create(&mut self, flags: &str) {
        let create = format!(
            "store create {STORE} --instance-prefix node --no-protected-mode --cpus 1 {flags}"
        );
        self.dkv(0, &create).ok();
        self.dkv(0, &format!("store start {STORE}")).ok();
        self.look();
    }

    /// One of the machines.
    pub fn machine(&self, machine: usize) -> &Machine {
        &self.network.machines[machine]
    }

    /// How many machines have nodes.
    pub fn machines(&self) -> usize {
        self.nodes.iter().map(|node| node.machine + 1).max().unwrap_or(0)
    }

    /// Where clients are: a machine without a manager if there is one.
    pub fn clients(&self) -> &Machine {
        self.network.machines.last().expect("a site has machines")
    }

    /// Pulls or plugs the cable of a machine.
    pub fn cable(&self, machine: usize, plugged: bool) {
        self.network.cable(machine, plugged);
    }

    /// Runs `dkv` on a machine, with the token that the managers share.
    pub fn dkv(&self, machine: usize, line: &str) -> Output {
        let machine = self.machine(machine);
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = machine.command("dkv", &words);
        command.env("DKV_TOKEN_FILE", machine.path("group.token"));
        machine.run_command(command)
    }

    /// Runs a line of shell on a machine, with the same token.
    pub fn shell(&self, machine: usize, line: &str) -> Output {
        let machine = self.machine(machine);
        let mut command = machine.command("sh", &["-c", line]);
        command.env("DKV_TOKEN_FILE", machine.path("group.token"));
        machine.run_command(command)
    }

    /// Starts the manager of a machine.
    pub fn start_manager(&mut self, machine: usize) {
        let here = self.machine(machine);
        let token = here.file("group.token", TOKEN);
        let listen = format!("{}:7801", here.address);
        let token = token.to_str().expect("a plain path");
        let mut args = vec!["--listen", &listen, "--token-file", token];
        // Once the store has its nodes, a machine without any is the witness.
        if !self.nodes.is_empty() && machine >= self.machines() {
            args.push("--witness");
        }
        let process = here.manager(&args);
        if self.managers.len() <= machine {
            self.managers.resize_with(machine + 1, || None);
        }
        self.managers[machine] = Some(process);
    }

    /// kill -9 of a machine's manager.
    pub fn kill_manager(&mut self, machine: usize) {
        if let Some(process) = self.managers[machine].take() {
            process.kill();
        }
    }

    /// Removes all that a machine's manager keeps on its disk.
    pub fn wipe(&self, machine: usize) -> Result<(), String> {
        std::fs::remove_dir_all(&self.machine(machine).data).map_err(|error| error.to_string())
    }

    /// Waits until a manager that lost its disk supervises the processes that lived meanwhile, and no others.
    pub fn adopted(&self, machine: usize, pids: &[u32]) -> Result<(), String> {
        let begin = Instant::now();
        let host = &self.machine(machine).address;
        loop {
            let here = self.machine(machine).pids("node");
            if here != pids {
                return Err(format!("the processes of {host} were {pids:?} and are {here:?}"));
            }
            let shown = self.shown(machine).unwrap_or_default();
            let all = shown["nodes"].as_array().into_iter().flatten();
            let own = all.filter(|n| n["machine"].as_str().is_some_and(|m| m.starts_with(host)));
            let own: Vec<&serde_json::Value> = own.collect();
            let told = own.iter().filter_map(|node| node["pid"].as_u64()).collect::<Vec<u64>>();
            if told == pids.iter().map(|pid| u64::from(*pid)).collect::<Vec<u64>>() {
                return Ok(());
            }
            if begin.elapsed() > crate::machine::PATIENCE {
                return Err(format!("the manager of {host} supervises {told:?}, not {pids:?}"));
            }
            rest(Duration::from_millis(50));
        }
    }

    /// The pid of a machine's manager.
    pub fn manager_pid(&self, machine: usize) -> Option<u32> {
        self.managers[machine].as_ref().map(Process::pid)
    }

    /// The machine whose manager leads the others; the first one when nobody says.
    pub fn leader(&self) -> usize {
        let output = self.dkv(0, "manager list -o json");
        let told: Option<serde_json::Value> = serde_json::from_str(&output.out).ok();
        let mut managers =
            told.as_ref().and_then(serde_json::Value::as_array).into_iter().flatten();
        let leader = managers.find(|manager| manager["part"] == "leads");
        let leader = leader.and_then(|manager| manager["manager"].as_str()).unwrap_or_default();
        let host = leader.split(':').next().unwrap_or_default();
        let machines = &self.network.machines;
        machines.iter().position(|machine| machine.address == host).unwrap_or(0)
    }

    /// Asks the managers for the nodes and their processes.
    pub fn look(&mut self) {
        let mut asked = (0..self.managers.len()).filter_map(|machine| self.shown(machine));
        let mut nodes = asked.find_map(|shown| self.nodes_of(&shown)).expect("some manager tells");
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.nodes = nodes;
    }

    /// What a manager shows of the store, if there is one.
    fn shown(&self, machine: usize) -> Option<serde_json::Value> {
        self.managers[machine].as_ref()?;
        let host = &self.machine(machine).address;
        let output = self.dkv(machine, &format!("store show {STORE} -m {host} -o json"));
        serde_json::from_str(&output.out).ok()
    }

    /// How the copies stand, as the manager of a machine tells it.
    pub fn standing(&self, machine: usize) -> Option<Standing> {
        let shown = self.shown(machine)?;
        let number = |name: &str| shown["copies"][name].as_u64();
        Some(Standing {
            degraded: number("degraded_ranges")?,
            down: number("offline_ranges")? + number("unformed_ranges")?,
            moving: number("moving_ranges")?,
        })
    }

    fn nodes_of(&self, shown: &serde_json::Value) -> Option<Vec<Node>> {
        let node = |node: &serde_json::Value| {
            let host = node["machine"].as_str()?.split(':').next()?;
            let machines = &self.network.machines;
            let machine = machines.iter().position(|machine| machine.address == host)?;
            let address = |port: &serde_json::Value| {
                format!("{host}:{}", port.as_u64()?).parse::<SocketAddr>().ok()
            };
            Some(Node {
                name: node["name"].as_str()?.into(),
                machine,
                client: address(&node["client_port"])?,
                shards: node["shard_ports"].as_array()?.iter().filter_map(address).collect(),
                pid: node["pid"].as_u64().map(|pid| pid as u32),
            })
        };
        shown["nodes"].as_array()?.iter().map(node).collect()
    }

    /// The client ports of all nodes.
    pub fn entries(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    /// A client that begins with the given node.
    pub fn client(&self, manner: Manner, first: usize, patience: Duration) -> Client {
        Client::new(manner, &self.entries(), first, patience)
    }

    /// The process that serves a node's client port; none when nobody answers there.
    pub fn serving(&self, node: usize) -> Option<u32> {
        let mut wire = Wire::connect(self.nodes[node].client, LOOK_MAX).ok()?;
        let info = wire.ask("INFO server").ok()?.text();
        info.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok())
    }

    /// Waits until every node answers, none of them is one of the processes `gone`, every range has all of its copies and all
    /// nodes agree on who leads. How long that took, or none when it took longer than `patience`.
    pub fn whole(&self, gone: &[u32], patience: Duration) -> Option<Duration> {
        self.settled(gone, patience, |standing| standing.degraded == 0 && standing.down == 0)
    }

    /// The same, and every copy is where it should be and led from there.
    pub fn placed(&self, patience: Duration) -> Option<Duration> {
        self.settled(&[], patience, |it| it.degraded == 0 && it.down == 0 && it.moving == 0)
    }

    fn settled(
        &self,
        gone: &[u32],
        patience: Duration,
        well: impl Fn(Standing) -> bool,
    ) -> Option<Duration> {
        let begin = Instant::now();
        loop {
            let new = (0..self.nodes.len())
                .all(|node| self.serving(node).is_some_and(|pid| !gone.contains(&pid)));
            let told = || (0..self.machines()).all(|it| self.standing(it).is_some_and(&well));
            if new && self.agreed() && told() {
                return Some(begin.elapsed());
            }
            if begin.elapsed() > patience {
                return None;
            }
            rest(Duration::from_millis(20));
        }
    }

    /// What keeps the store from being whole.
    pub fn complaint(&self) -> String {
        let said = |(number, node): (usize, &Node)| {
            let led = self.leads(number).len();
            match self.serving(number) {
                Some(pid) => format!("{} (pid {pid}) leads {led}", node.name),
                None => format!("{} does not answer, leads {led}", node.name),
            }
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().map(said).collect();
        let managers: Vec<_> = (0..self.machines()).map(|it| self.standing(it)).collect();
        let agreed = if self.agreed() { "they agree" } else { "they disagree" };
        format!("{}; {agreed} on who leads; managers: {managers:?}", nodes.join(", "))
    }

    /// Whether all nodes say the same of who leads what, and leave nothing out.
    fn agreed(&self) -> bool {
        let told = |node: &Node| {
            let mut wire = Wire::connect(node.client, LOOK_MAX).ok()?;
            let mut ranges = owners(&wire.ask("CLUSTER SLOTS").ok()?);
            ranges.sort_unstable_by_key(|(from, ..)| *from);
            Some(ranges)
        };
        let all: Vec<_> = self.nodes.iter().map(told).collect();
        let slots = |ranges: &[(u16, u16, SocketAddr)]| {
            ranges.iter().map(|(from, to, _)| u32::from(to - from) + 1).sum::<u32>()
        };
        // Neighbouring ranges of one owner may be told as one or as several.
        let flat = |ranges: &[(u16, u16, SocketAddr)]| -> Vec<SocketAddr> {
            ranges.iter().flat_map(|(from, to, owner)| (*from..=*to).map(|_| *owner)).collect()
        };
        let Some(Some(first)) = all.first() else { return false };
        let wanted = flat(first);
        slots(first) == 16384
            && all.iter().all(|told| told.as_ref().is_some_and(|told| flat(told) == wanted))
    }

    /// The ranges that a node leads, as the first node that answers tells it.
    pub fn leads(&self, node: usize) -> BTreeSet<u16> {
        let shards = &self.nodes[node].shards;
        let told = self.nodes.iter().find_map(|node| {
            let mut wire = Wire::connect(node.client, LOOK_MAX).ok()?;
            Some(owners(&wire.ask("CLUSTER SLOTS").ok()?)).filter(|owners| !owners.is_empty())
        });
        let told = told.unwrap_or_default();
        told.into_iter()
            .filter(|(.., owner)| shards.contains(owner))
            .flat_map(|(from, to, _)| from / 64..=to / 64)
            .collect()
    }
}

/// A process that is stopped and goes on when this is dropped. It is held by descriptor: its pid may be another's by then.
#[derive(Debug)]
pub struct Stopped(OwnedFd);

impl Stopped {
    /// SIGSTOP; none when there is no such process.
    pub fn stop(pid: u32) -> Option<Self> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let fd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
        pidfd_send_signal(&fd, Signal::STOP).ok()?;
        Some(Self(fd))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::CONT);
    }
}

/// Lets time pass: how long a fault lasts, and how often something is looked at.
pub fn rest(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|t| !t.is_zero()) {
        std::thread::park_timeout(left);
    }
}
