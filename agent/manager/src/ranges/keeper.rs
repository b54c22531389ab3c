//! The keeper: the one task that changes the catalogue of the ranges. It makes commands of facts, asks and requests, has
//! them on the disk, applies them, and tells.

use super::disk::{Disk, DiskError};
use super::{Fact, Ranges, Request, State};
use dkv_catalog::{Catalog, Command, Outcome, Range, Refusal, Store, Wish};
use dkv_protocol::ids::{NodeIndex, StoreId};
use dkv_protocol::ranges::{DeadBoot, OnTotalLoss};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often it looks for what is due by time, and tries again what failed.
const TICK: Duration = Duration::from_millis(200);
/// After so long without another node coming up, a store is formed with those that are.
const FORM_WITHOUT_OTHERS: Duration = Duration::from_secs(3);
/// The file is replaced by the state alone when it is longer, in bytes, and several times longer than the state.
const LOG_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Most asks in one command.
const ASKS_MAX: usize = 1024;

/// What a record of the file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    /// Everything so far.
    State(Catalog),
    /// What came next.
    Commands(Vec<Command>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    ranges: Arc<Ranges>,
    disk: Disk,
    /// Length of the file when it held the state alone.
    state_bytes: u64,
    /// For stores that are not formed yet: how many nodes were up, and since when.
    coming: BTreeMap<StoreId, (usize, Instant)>,
}

impl Keeper {
    /// Reads what was agreed on before.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Arc<Ranges>), DiskError> {
        let (disk, records) = Disk::open(dir, &encode(&Record::State(Catalog::default())))?;
        let path = || dir.join("ranges.log").display().to_string();
        let mut catalog = Catalog::default();
        for (at, record) in records.iter().enumerate() {
            match serde_json::from_slice(record) {
                Ok(Record::State(state)) => catalog = state,
                Ok(Record::Commands(commands)) => {
                    for command in &commands {
                        catalog.apply(command);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, record = at, "not a record of this version");
                    return Err(DiskError::Damaged { path: path(), at });
                }
            }
        }
        let ranges = Arc::new(Ranges::default());
        ranges.lock().catalog = catalog;
        let state_bytes = disk.bytes();
        let keeper =
            Self { ranges: Arc::clone(&ranges), disk, state_bytes, coming: BTreeMap::new() };
        Ok((keeper, ranges))
    }

    /// Keeps the catalogue for as long as the manager lives.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ranges = Arc::clone(&self.ranges);
        loop {
            tokio::select! {
                () = ranges.wake.notified() => {}
                _ = tick.tick() => {}
            }
            while self.turn() {}
        }
    }

    /// One look at all there is; whether it changed something, so that another look may find more.
    fn turn(&mut self) -> bool {
        let ranges = Arc::clone(&self.ranges);
        let mut state = ranges.lock();
        let requests = std::mem::take(&mut state.requests);
        let mut commands: Vec<Command> = requests.iter().map(|r| r.command.clone()).collect();
        commands.extend(state.facts());
        commands.extend(state.take_asks());
        commands.extend(self.formations(&state));
        commands.extend(refound(&state));
        if commands.is_empty() {
            return false;
        }
        if let Err(error) = self.write(&state.catalog, &commands) {
            // Who waits for a request learns by its end that it was not decided; facts are still there at the next tick.
            tracing::error!(%error, "cannot write the catalogue of the ranges; nothing is changed");
            return false;
        }
        let mut requests = requests.into_iter();
        let mut changed = false;
        for command in &commands {
            let outcome = state.apply(command);
            changed |= outcome == Outcome::Done;
            if let Some(Request { reply, .. }) = requests.next() {
                // Who asked may have gone away.
                let _ = reply.send(outcome);
            }
        }
        if self.disk.bytes() > LOG_BYTES_MIN.max(8 * self.state_bytes) {
            self.shorten(&state.catalog);
        }
        changed
    }

    fn write(&mut self, catalog: &Catalog, commands: &[Command]) -> std::io::Result<()> {
        let record = encode(&Record::Commands(commands.to_vec()));
        let first = self.disk.append(&record);
        if first.is_ok() {
            return first;
        }
        // What is on the disk is not known any more, what was applied is: a file of that alone is right again.
        self.disk.replace(&encode(&Record::State(catalog.clone())))?;
        self.disk.append(&record)
    }

    fn shorten(&mut self, catalog: &Catalog) {
        match self.disk.replace(&encode(&Record::State(catalog.clone()))) {
            Ok(()) => self.state_bytes = self.disk.bytes(),
            Err(error) => tracing::warn!(%error, "the log of the ranges cannot be shortened"),
        }
    }

    /// Stores whose nodes are up, or have had their time, get their first configurations.
    fn formations(&mut self, state: &State) -> Vec<Command> {
        let mut commands = Vec::new();
        for store in state.kept.keys() {
            let Some(known) = state.catalog.store(store).filter(|known| !known.formed) else {
                self.coming.remove(store);
                continue;
            };
            let up = known.nodes.values().filter(|node| node.boot.is_some()).count();
            let (count, since) = self.coming.entry(store.clone()).or_insert((0, Instant::now()));
            if *count != up {
                (*count, *since) = (up, Instant::now());
            }
            let all = up == known.nodes.len();
            if up > 0 && (all || since.elapsed() >= FORM_WITHOUT_OTHERS) {
                commands.push(Command::Form {
                    store: store.clone(),
                    first_index: first_index(),
                    only_up: !all,
                });
            }
        }
        self.coming.retain(|store, _| state.kept.contains_key(store));
        commands
    }
}

impl State {
    /// The commands that bring the catalogue to what is known here.
    fn facts(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        self.forgotten.retain(|store| self.catalog.store(store).is_some());
        for store in &self.forgotten {
            commands.push(Command::ForgetStore { store: store.clone() });
        }
        for (store, kept) in &self.kept {
            let Some(known) = self.catalog.store(store) else {
                commands.push(kept.define.clone());
                continue;
            };
            for &node in &kept.told.borrow().removed {
                if known.nodes.contains_key(&node) {
                    let wish = Wish::RemoveNode { node };
                    commands.push(Command::Place { store: store.clone(), wish });
                }
            }
            for (&node, fact) in &kept.facts {
                let registered = known.nodes.get(&node).and_then(|node| node.boot);
                match (*fact, registered) {
                    (Fact::Gone, Some(boot)) => commands.push(Command::Dead {
                        store: store.clone(),
                        dead: DeadBoot { node, boot },
                    }),
                    (Fact::Up(boot), _) if registered != Some(boot) => {
                        if !known.nodes.contains_key(&node) {
                            commands.extend(kept.added(store, node));
                        }
                        commands.push(Command::NodeUp {
                            store: store.clone(),
                            node,
                            boot,
                            first_index: first_index(),
                        });
                    }
                    _ => {}
                }
            }
        }
        // Deaths first: others wait for them.
        commands.sort_by_key(|command| !matches!(command, Command::Dead { .. }));
        commands
    }

    fn take_asks(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (store, kept) in &mut self.kept {
            let asks = std::mem::take(&mut kept.asks);
            let command = |part: &[_]| Command::Asks { store: store.clone(), asks: part.to_vec() };
            commands.extend(asks.chunks(ASKS_MAX).map(command));
        }
        commands
    }

    /// Applies a command that is on the disk, and tells who follows.
    fn apply(&mut self, command: &Command) -> Outcome {
        let applied = self.catalog.apply(command);
        if let (Command::NodeUp { store, node, boot, .. }, Outcome::Refused(refusal)) =
            (command, applied.outcome)
        {
            tracing::error!(store = %store, node = node.0, boot = boot.0, ?refusal, "a node was not registered");
            let fact = self.kept.get_mut(store).and_then(|kept| kept.facts.get_mut(node));
            if let (Some(fact), Refusal::Fenced) = (fact, refusal) {
                *fact = Fact::Fenced(*boot);
            }
        }
        if let Command::Asks { store, asks } = command {
            self.answer(store, asks);
        }
        if !applied.changed.is_empty() || applied.outcome == Outcome::Done {
            self.tell(store_of(command));
        }
        applied.outcome
    }
}

impl super::Kept {
    /// What makes the catalogue know a node that was added to the store.
    fn added(&self, store: &StoreId, node: NodeIndex) -> Option<Command> {
        let Command::DefineStore { nodes, .. } = &self.define else { return None };
        let spec = nodes.iter().find(|spec| spec.node == node)?.clone();
        let wish = Wish::AddNode { spec };
        Some(Command::Place { store: store.clone(), wish })
    }
}

/// Ranges of caches whose last copy is gone start empty where a placed node is up.
fn refound(state: &State) -> Vec<Command> {
    let can_start = |store: &Store, range: &Range| {
        let up = |node: NodeIndex| store.nodes.get(&node).is_some_and(|node| node.boot.is_some());
        range.is_offline() && range.placement.iter().any(|addr| up(addr.node))
    };
    let lost = state.kept.keys().filter(|id| {
        state.catalog.store(id).is_some_and(|store| {
            store.replication.on_total_loss == OnTotalLoss::Reinit
                && store.each_range().any(|(_, range)| can_start(store, range))
        })
    });
    let first_index = first_index();
    lost.map(|id| Command::ReformOffline { store: id.clone(), first_index, accept_loss: false })
        .collect()
}

fn store_of(command: &Command) -> &StoreId {
    match command {
        Command::DefineStore { store, .. }
        | Command::ForgetStore { store }
        | Command::StartStore { store, .. }
        | Command::NodeUp { store, .. }
        | Command::Form { store, .. }
        | Command::Asks { store, .. }
        | Command::Dead { store, .. }
        | Command::Place { store, .. }
        | Command::Promote { store, .. }
        | Command::ReformOffline { store, .. } => store,
    }
}

/// Where ranges begin that are formed now: above what any earlier one of the store can have reached.
fn first_index() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 16
}

fn encode(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("commands and states are plain data")
}
