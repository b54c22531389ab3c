//! The manager's state: the catalogue in memory and on disk, reservations, and the tasks of the nodes. What the API does
//! to stores stands in `changes`, what a node's process needs in here.
//!
//! One lock, held for moments, never across waiting. A change is made on a copy, written to disk, and only then taken
//! over: what the catalogue says was on the disk before anybody saw it.

use crate::AgentOptions;
use crate::auth::Token;
use crate::ledger::{Ledger, LedgerFile, NodeEntry, StoreEntry};
use crate::plan::names;
use crate::ranges::{self, NodeKey, Ranges};
use crate::refusal::Refusal;
use crate::supervise::{Answer, COMMANDS_MAX, Command, NodePaths, supervise};
use crate::watch::Live;
use dkv_catalog::{Command as RangesCommand, Machine, NodeSpec};
use dkv_protocol::admin::{
    HealthView, ManagersView, NodeRecord, NodeState, NodeView, Reservation, StoreDefinition,
    StoreRecord, StoreStatus, StoreView,
};
use dkv_protocol::control::NodeStatus;
use dkv_protocol::ids::{NodeIndex, StoreId};
use dkv_protocol::launch::{LAUNCH_VERSION, LaunchDocument};
use dkv_protocol::map::NodeInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// One manager.
#[derive(Debug)]
pub(crate) struct Agent {
    options: AgentOptions,
    address: SocketAddr,
    machine: String,
    token: Token,
    file: LedgerFile,
    ranges: Arc<Ranges>,
    inner: Mutex<Inner>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) ledger: Ledger,
    pub(crate) reservations: BTreeMap<String, Held>,
    /// Machines whose managers have spoken to this one and are not members that it knows: it may have lost its disk.
    pub(crate) callers: BTreeSet<String>,
    tasks: BTreeMap<(String, String), Task>,
}

/// A reservation under way.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) definition: StoreDefinition,
    pub(crate) reservation: Reservation,
    pub(crate) until: Instant,
}

#[derive(Clone, Debug)]
struct Task {
    commands: mpsc::Sender<Command>,
    live: Arc<Live>,
}

impl Agent {
    pub(crate) fn new(
        options: AgentOptions,
        address: SocketAddr,
        token: Token,
        file: LedgerFile,
        ledger: Ledger,
        ranges: Arc<Ranges>,
    ) -> Arc<Self> {
        let inner = Inner::new(ledger);
        let machine = address.to_string();
        let inner = Mutex::new(inner);
        Arc::new(Self { options, address, machine, token, file, ranges, inner })
    }

    pub(crate) fn ranges(&self) -> &Arc<Ranges> {
        &self.ranges
    }

    /// Has the keeper of the ranges know a store with copies as its record is now.
    pub(crate) fn keep_ranges(&self, record: &StoreRecord) {
        let Some(replication) = record.definition.replication else { return };
        let spec = |(node, own): (NodeIndex, &NodeRecord)| NodeSpec {
            node,
            shards: own.cpus.len() as u16,
            machine: Machine(own.machine.clone()),
        };
        let nodes = record.indexed().map(spec).collect();
        let define = RangesCommand::DefineStore { store: record.id.clone(), replication, nodes };
        match (all_infos(record), removed_of(record)) {
            (Ok(infos), removed) => self.ranges.keep(define, infos, removed),
            (Err(error), _) => {
                tracing::error!(%error, store = record.definition.name, "its ranges cannot be kept");
            }
        }
    }

    /// How a node of a store with copies is known to the keeper of the ranges; none of other stores.
    pub(crate) fn node_key(&self, store: &str, node: &str) -> Option<NodeKey> {
        let has_copies =
            self.lock().ledger.stores.get(store)?.record.definition.replication.is_some();
        self.any_node_key(store, node).filter(|_| has_copies)
    }

    /// The same of any store.
    pub(crate) fn any_node_key(&self, store: &str, node: &str) -> Option<NodeKey> {
        let inner = self.lock();
        let record = &inner.ledger.stores.get(store)?.record;
        Some(NodeKey { store: record.id.clone(), node: record.index_of(node)? })
    }

    pub(crate) fn options(&self) -> &AgentOptions {
        &self.options
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of this machine: address and port of its manager.
    pub(crate) fn machine(&self) -> &str {
        &self.machine
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Changes the catalogue on disk and then in memory, or neither.
    pub(crate) fn change<T>(
        &self,
        inner: &mut Inner,
        change: impl FnOnce(&mut Ledger) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut ledger = inner.ledger.clone();
        let outcome = change(&mut ledger)?;
        if ledger != inner.ledger {
            self.file.save(&ledger).map_err(|error| {
                tracing::error!(%error, "cannot write the catalogue");
                Refusal::of(
                    507,
                    "catalogue_not_written",
                    format!("the catalogue cannot be written ({error}), so nothing was changed"),
                    format!("make room in {}, and try again", self.options.data_dir.display()),
                )
            })?;
            inner.ledger = ledger;
        }
        Ok(outcome)
    }

    /// Changes what the catalogue says of a node, on disk first.
    pub(crate) fn change_node(
        &self,
        store: &str,
        node: &str,
        change: impl FnOnce(&mut NodeEntry),
    ) -> Result<(), Refusal> {
        let mut inner = self.lock();
        self.change(&mut inner, |ledger| {
            let entry = entry_of(ledger, store, node).ok_or_else(|| {
                Refusal::absent(
                    "no_such_node",
                    format!("{store} has no node {node} here"),
                    "dkv store list",
                )
            })?;
            change(entry);
            Ok(())
        })
    }

    /// Writes down what happened to a node. Memory follows what happened even when the disk does not.
    pub(crate) fn record_node(&self, store: &str, node: &str, change: impl FnOnce(&mut NodeEntry)) {
        let mut inner = self.lock();
        let Some(entry) = entry_of(&mut inner.ledger, store, node) else { return };
        let before = entry.clone();
        change(entry);
        if *entry == before {
            return;
        }
        if let Err(error) = self.file.save(&inner.ledger) {
            tracing::error!(%error, store, node, "cannot write the catalogue");
        }
    }

    pub(crate) fn node_entry(&self, store: &str, node: &str) -> Option<NodeEntry> {
        entry_of(&mut self.lock().ledger, store, node).cloned()
    }

    pub(crate) fn store_id(&self, store: &str) -> Option<StoreId> {
        self.lock().ledger.stores.get(store).map(|entry| entry.record.id.clone())
    }

    /// Starts the task of each node that has none yet.
    pub(crate) fn supervise_all(self: &Arc<Self>, inner: &mut Inner) {
        let mut all = Vec::new();
        for (store, entry) in &inner.ledger.stores {
            for node in entry.nodes.keys() {
                if let Some(paths) = self.paths(&entry.record, node) {
                    all.push(((store.clone(), node.clone()), paths));
                }
            }
        }
        for (key, paths) in all {
            if inner.tasks.contains_key(&key) {
                continue;
            }
            let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
            let live = Arc::new(Live::default());
            let task = Task { commands: sender, live: Arc::clone(&live) };
            let run = supervise(Arc::clone(self), live, key.clone(), paths, receiver);
            tokio::spawn(run);
            inner.tasks.insert(key, task);
        }
    }

    /// Ends the tasks of a store's nodes; their processes must be gone.
    pub(crate) fn forget_tasks(inner: &mut Inner, store: &str) {
        inner.tasks.retain(|(of, _), _| of != store);
    }

    /// Ends the tasks of nodes that were removed; their processes must be gone. A node of that name that comes later gets
    /// a task of its own.
    pub(crate) fn forget_nodes(inner: &mut Inner, store: &str, nodes: &[String]) {
        let stays = |node: &String| {
            inner.ledger.stores.get(store).is_some_and(|entry| entry.nodes.contains_key(node))
        };
        let gone: Vec<&String> = nodes.iter().filter(|node| !stays(node)).collect();
        inner.tasks.retain(|(of, node), _| of != store || !gone.contains(&node));
    }

    /// The files of a node. Short names: the path of a socket has 107 bytes.
    pub(crate) fn paths(&self, record: &StoreRecord, node: &str) -> Option<NodePaths> {
        let NodeIndex(index) = record.index_of(node)?;
        let stem: String = record.id.0.chars().take(8).collect();
        let run = self.options.data_dir.join("run");
        let log = format!("{}.{node}.log", record.definition.name);
        Some(NodePaths {
            socket: run.join(format!("{stem}-{index}.sock")),
            lock: run.join(format!("{stem}-{index}.lock")),
            log: self.options.data_dir.join("logs").join(log),
        })
    }

    /// The addresses that every node of this machine binds.
    pub(crate) fn bind_addresses(&self) -> Vec<IpAddr> {
        let own = self.address.ip();
        if own.is_loopback() { vec![own] } else { vec![IpAddr::V4(Ipv4Addr::LOCALHOST), own] }
    }

    /// The program and arguments of a node.
    pub(crate) fn node_command(&self) -> io::Result<Vec<String>> {
        if let Some(command) = &self.options.node_command {
            return Ok(command.clone());
        }
        let own = std::env::current_exe()?;
        let own = own.to_str().ok_or_else(|| io::Error::other("its own path is not a text"))?;
        // After an upgrade in place the kernel adds this to the path of the file that is gone; the new one is at the path.
        let own = own.strip_suffix(" (deleted)").unwrap_or(own);
        Ok(vec![own.to_string(), "node".to_string()])
    }

    /// Everything a node needs to know.
    pub(crate) fn launch_document(
        &self,
        store: &str,
        node: &str,
        paths: &NodePaths,
    ) -> io::Result<LaunchDocument> {
        let inner = self.lock();
        let gone = || io::Error::other("the catalogue has no such node any more");
        let record = &inner.ledger.stores.get(store).ok_or_else(gone)?.record;
        let found = record.indexed().find(|(_, own)| own.name == node);
        let (index, own) = found.ok_or_else(gone)?;
        let text = |path: &std::path::Path| {
            path.to_str().map(str::to_string).ok_or_else(|| io::Error::other("a path is no text"))
        };
        let definition = &record.definition;
        Ok(LaunchDocument {
            version: LAUNCH_VERSION,
            store: store.to_string(),
            store_id: record.id.clone(),
            index,
            nodes: all_infos(record)?,
            removed: removed_of(record),
            epoch: record.epoch,
            bind: self.bind_addresses(),
            cpus: own.cpus.clone(),
            cpus_exclusive: inner.is_alone(&self.machine, store, own),
            hash_seed: record.hash_seed.clone(),
            cluster_secret: self.token.cluster_secret(&record.id.0),
            password_sha256: definition.password_sha256.clone(),
            users: self.ranges.users_of(&record.id),
            protected_mode: definition.protected_mode,
            memory_bytes_max: definition.memory_bytes_max,
            eviction: definition.eviction,
            replication: definition.replication,
            io: definition.io,
            control_socket: text(&paths.socket)?,
            lock_file: text(&paths.lock)?,
        })
    }

    /// Sends a command to a node's task and waits for its answer.
    pub(crate) async fn command(
        &self,
        store: &str,
        node: &str,
        make: impl FnOnce(oneshot::Sender<Answer>) -> Command,
    ) -> Answer {
        let key = (store.to_string(), node.to_string());
        let commands = self.lock().tasks.get(&key).map(|task| task.commands.clone());
        let gone = || {
            Refusal::absent(
                "no_such_node",
                format!("{store} has no node {node} here"),
                "dkv store list",
            )
        };
        let commands = commands.ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        commands.try_send(make(reply)).map_err(|_| {
            Refusal::of(
                429,
                "node_busy",
                format!("{COMMANDS_MAX} commands wait for {node} already"),
                "try again in a moment",
            )
        })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The store of that name and, when one is named, its node's full name. Refuses a node of another machine.
    pub(crate) fn resolve(&self, store: &str, node: &str) -> Result<String, Refusal> {
        let inner = self.lock();
        let entry = inner.store(store)?;
        let prefix = &entry.record.definition.instance_prefix;
        let found = entry.record.nodes.iter().find(|own| names::is_node(prefix, &own.name, node));
        let Some(found) = found else {
            let all: Vec<&str> = entry.record.nodes.iter().map(|own| own.name.as_str()).collect();
            return Err(Refusal::absent(
                "no_such_node",
                format!(
                    "the store {store} has no node {node:?}; its nodes are: {}",
                    all.join(", ")
                ),
                format!("dkv store show {store}"),
            ));
        };
        if found.machine != self.machine {
            return Err(Refusal::conflict(
                "another_machine",
                format!("{} lives on {}, not on {}", found.name, found.machine, self.machine),
                format!("ask that manager: -m {}", found.machine),
            ));
        }
        Ok(found.name.clone())
    }

    pub(crate) fn store_view(&self, store: &str) -> Result<StoreView, Refusal> {
        let inner = self.lock();
        let entry = inner.store(store)?;
        Ok(self.view(&inner, entry))
    }

    pub(crate) fn store_views(&self) -> Vec<StoreView> {
        let inner = self.lock();
        inner.ledger.stores.values().map(|entry| self.view(&inner, entry)).collect()
    }

    /// A store as this manager sees it: the states of its own nodes only.
    fn view(&self, inner: &Inner, entry: &StoreEntry) -> StoreView {
        let store = &entry.record.definition.name;
        // With copies a store is whole without the nodes that do not run.
        let up = ranges::up(&self.ranges, &entry.record);
        let counts = |other: &String| up.as_ref().is_none_or(|up| up.contains(other));
        let nodes: Vec<NodeView> = entry
            .record
            .nodes
            .iter()
            .map(|record| {
                let own = entry.nodes.get(&record.name).filter(|_| record.machine == self.machine);
                let key = (store.clone(), record.name.clone());
                let live = own.and_then(|_| inner.tasks.get(&key)).map(|task| &task.live);
                let running = own.is_some_and(|own| own.state == NodeState::Running);
                let io = live.filter(|_| running).and_then(|live| {
                    let samples = live.samples.lock().expect("no holder of this lock panics");
                    samples.last().map(|status| status.io.clone())
                });
                let silent = running && live.is_some_and(|live| live.is_silent());
                let cluster_ok = running
                    && !silent
                    && live.is_some_and(|live| {
                        let samples = live.samples.lock().expect("no holder of this lock panics");
                        let reaches = |status: &NodeStatus| {
                            status.cluster_ok
                                || status.unreachable.iter().all(|other| !counts(other))
                        };
                        samples.last().is_some_and(reaches)
                    });
                let silence = silent.then(|| {
                    "it runs and does not answer its manager; see its log, or stop it with --force"
                        .to_string()
                });
                NodeView {
                    record: record.clone(),
                    state: own.map(|own| own.state),
                    pid: own.and_then(|own| own.process.as_ref()).map(|process| process.pid),
                    restarts: own.map_or(0, |own| own.restarts),
                    message: silence.or_else(|| own.and_then(|own| own.message.clone())),
                    cluster_ok,
                    io,
                }
            })
            .collect();
        let own = |node: &&NodeView| node.record.machine == self.machine;
        let states: Vec<Option<NodeState>> = nodes.iter().filter(own).map(|n| n.state).collect();
        let copies = ranges::view(&self.ranges, &entry.record);
        StoreView { record: entry.record.clone(), status: StoreStatus::of(&states), nodes, copies }
    }

    /// Each own node with what it said last.
    pub(crate) fn each_live(&self, mut visit: impl FnMut(&str, &NodeRecord, &NodeEntry, &Live)) {
        let inner = self.lock();
        for (store, entry) in &inner.ledger.stores {
            for record in &entry.record.nodes {
                let Some(own) = entry.nodes.get(&record.name) else { continue };
                let key = (store.clone(), record.name.clone());
                if let Some(task) = inner.tasks.get(&key) {
                    visit(store, record, own, &task.live);
                }
            }
        }
    }

    /// Whether a manager of the group has this address.
    pub(crate) fn is_member_at(&self, ip: IpAddr) -> bool {
        let of = |member: &String| member.parse::<SocketAddr>().is_ok_and(|own| own.ip() == ip);
        self.lock().ledger.members.iter().any(of)
    }

    pub(crate) fn managers_view(&self) -> ManagersView {
        ManagersView {
            this: self.machine.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            managers: self.lock().ledger.members.clone(),
            witness: self.options.witness,
            group: self.ranges.group(),
            standing: Vec::new(),
        }
    }

    pub(crate) fn health(&self) -> HealthView {
        let inner = self.lock();
        let nodes = || inner.ledger.stores.values().flat_map(|entry| entry.nodes.values());
        let wanted = nodes().filter(|n| n.wanted == crate::plan::steps::Wanted::Up).count();
        let running = nodes().filter(|n| n.state == NodeState::Running).count();
        HealthView {
            status: if running >= wanted { "ok" } else { "degraded" }.to_string(),
            machine: self.machine.clone(),
            nodes_running: running as u32,
            nodes_wanted: wanted as u32,
        }
    }
}

impl Inner {
    pub(crate) fn new(ledger: Ledger) -> Self {
        let (reservations, callers, tasks) = Default::default();
        Self { ledger, reservations, callers, tasks }
    }

    /// The store of that name, or why there is none.
    pub(crate) fn store(&self, store: &str) -> Result<&StoreEntry, Refusal> {
        self.ledger.stores.get(store).ok_or_else(|| {
            let all: Vec<&str> = self.ledger.stores.keys().map(String::as_str).collect();
            let known = if all.is_empty() {
                "this machine has no store yet".to_string()
            } else {
                format!("this machine has: {}", all.join(", "))
            };
            let shown: String = store.chars().take(80).flat_map(char::escape_default).collect();
            Refusal::absent(
                "no_such_store",
                format!("there is no store \"{shown}\"; {known}"),
                "dkv store list",
            )
        })
    }

    /// Whether a change of this store is under way.
    pub(crate) fn is_reserved(&self, store: &str) -> bool {
        let now = Instant::now();
        let mut held = self.reservations.values().filter(|held| held.until > now);
        held.any(|held| held.definition.name == store)
    }

    /// Whether no other node of this machine uses a CPU of `node`.
    fn is_alone(&self, machine: &str, store: &str, node: &NodeRecord) -> bool {
        self.ledger.stores.iter().all(|(of, entry)| {
            let own = entry.record.nodes.iter().filter(|other| other.machine == machine);
            let mut others = own.filter(|other| of != store || other.name != node.name);
            others.all(|other| other.cpus.iter().all(|cpu| !node.cpus.contains(cpu)))
        })
    }
}

fn entry_of<'a>(ledger: &'a mut Ledger, store: &str, node: &str) -> Option<&'a mut NodeEntry> {
    ledger.stores.get_mut(store)?.nodes.get_mut(node)
}

/// Every node that the store ever had, in the order of its index.
fn all_infos(record: &StoreRecord) -> io::Result<Vec<NodeInfo>> {
    let gone = record.removed.iter().map(|gone| (gone.index, &gone.node));
    let mut all: Vec<(NodeIndex, &NodeRecord)> = record.indexed().chain(gone).collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, node)| node_info(node)).collect()
}

fn removed_of(record: &StoreRecord) -> Vec<NodeIndex> {
    record.removed.iter().map(|gone| gone.index).collect()
}

fn node_info(record: &NodeRecord) -> io::Result<NodeInfo> {
    let machine: SocketAddr = record
        .machine
        .parse()
        .map_err(|_| io::Error::other(format!("{} is not an address", record.machine)))?;
    Ok(NodeInfo {
        name: record.name.clone(),
        address: machine.ip(),
        cluster_port: record.cluster_port,
        client_port: record.client_port,
        shard_ports: record.shard_ports.clone(),
    })
}
