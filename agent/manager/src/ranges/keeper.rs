//! The keeper: the one task that drives the log of the managers. It proposes what facts, asks and requests call for, has
//! the log on the disk, sends its messages, and tells what was agreed on.

use super::disk::Disk;
use super::peers::Peers;
use super::{DECIDE_MAX, Fact, Kept, NewLog, NodeKey, Part, Ranges, Replacement, Request, State};
use dkv_catalog::{
    ASKS_MAX, After, Catalog, Command, Committed, ConfigLog, Consensus, Envelope, Halted, Member,
    MemberId, Outcome, Persist, Proposal, Range, Refusal, Store, Unreadable, Wish,
};
use dkv_protocol::ids::{NodeIndex, StoreId};
use dkv_protocol::ranges::{DeadBoot, OnTotalLoss};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A tick of the log: a leader that is lost is missed after 10 of them or some more.
const TICK: Duration = Duration::from_millis(75);
/// Ticks between the elections of two managers at the least.
const ELECTION_TICKS_APART: u64 = 3;
/// After so long without another node coming up, a store is formed with those that are.
const FORM_WITHOUT_OTHERS: Duration = Duration::from_secs(3);
/// What was proposed and not agreed on is proposed again after so long.
const PROPOSE_AGAIN: Duration = Duration::from_millis(500);

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    #[error("cannot read or write {path}: {source}")]
    Disk { path: String, source: io::Error },
    #[error(
        "{path} cannot be used ({reason}): it says which copies of each range hold all answered writes, and cannot be \
         guessed. Put it away (mv {path} {path}.damaged) and start this manager again: the other managers of its group take \
         it in anew. If there are none, its stores with copies start empty then; stop their nodes first"
    )]
    Unreadable { path: String, reason: Unreadable },
}

/// See the module.
pub(crate) struct Keeper {
    ranges: Arc<Ranges>,
    disk: Disk,
    peers: Peers,
    /// What could not be written and is tried again; nothing goes on before it is.
    unkept: Option<Persist>,
    /// Why the last write failed, if it did.
    unwritable: Option<io::ErrorKind>,
    /// For stores that are not formed yet: how many nodes were up, and since when.
    coming: BTreeMap<StoreId, (usize, Instant)>,
    /// The number of the next proposal.
    next_number: u64,
    halted: bool,
}

/// Where a manager writes which groups it took the place of.
const SUPERSEDED: &str = "ranges.superseded";

/// A random number that is not 0.
pub(crate) fn random_number() -> u64 {
    u64::from_str_radix(&crate::auth::random_hex(8), 16).unwrap_or(1).max(1)
}

/// The election timeout of a member: of its own, so that two seldom stand at once.
pub(crate) fn election_ticks(id: MemberId) -> usize {
    dkv_catalog::ELECTION_TICKS_MIN + (id.0 % 5 * ELECTION_TICKS_APART) as usize
}

impl Keeper {
    /// Reads what was agreed on before. A manager that never was in a group founds one of its own, unless it knows
    /// others: then they take it in.
    pub(crate) fn open(
        dir: &Path,
        machine: &str,
        others: bool,
        peers: Peers,
    ) -> Result<(Self, Arc<Ranges>), KeeperError> {
        let path = || dir.join("ranges.log").display().to_string();
        let failed = |source| KeeperError::Disk { path: path(), source };
        let unreadable = |reason| KeeperError::Unreadable { path: path(), reason };
        let (mut disk, file) = Disk::open(dir).map_err(failed)?;
        let part = match file {
            None if others => Part::Outside(Catalog::default()),
            None => Part::Member(Box::new(found(machine).map_err(unreadable)?)),
            Some(file) => {
                let (_, valid) = recover(&file).map_err(unreadable)?;
                disk.cut(valid).map_err(failed)?;
                let (log, _) = recover(&file[..valid]).map_err(unreadable)?;
                let known_as = log.group().member(log.me()).map(|me| me.machine.0.as_str());
                match known_as {
                    // A machine without stores got another address: to the others it is another machine.
                    Some(other) if other != machine && others => Part::Outside(Catalog::default()),
                    Some(other) if other != machine => {
                        Part::Member(Box::new(found(machine).map_err(unreadable)?))
                    }
                    _ => Part::Member(Box::new(log)),
                }
            }
        };
        let superseded = std::fs::read_to_string(dir.join(SUPERSEDED)).unwrap_or_default();
        let superseded = superseded.lines().filter_map(|line| line.parse().ok()).collect();
        let ranges = Arc::new(Ranges {
            machine: machine.to_string(),
            state: std::sync::Mutex::new(State::new(part, superseded)),
            wake: tokio::sync::Notify::new(),
        });
        let mut keeper = Self {
            ranges: Arc::clone(&ranges),
            disk,
            peers,
            unkept: None,
            unwritable: None,
            coming: BTreeMap::new(),
            next_number: random_number(),
            halted: false,
        };
        let mut state = ranges.lock();
        keeper.pump(&mut state);
        state.show_users();
        drop(state);
        Ok((keeper, ranges))
    }

    /// Drives the log for as long as the manager lives.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ranges = Arc::clone(&self.ranges);
        loop {
            let mut ticked = false;
            tokio::select! {
                () = ranges.wake.notified() => {}
                _ = tick.tick() => ticked = true,
            }
            let mut state = ranges.lock();
            self.replace(&mut state);
            for member in std::mem::take(&mut state.unreachable) {
                if let Part::Member(log) = &mut state.part {
                    log.unreachable(member);
                }
            }
            if let (Part::Member(log), true) = (&mut state.part, ticked) {
                log.tick();
            }
            self.pump(&mut state);
            if ticked && state.users.borrow().is_none() {
                state.show_users();
            }
            while self.turn(&mut state) {}
        }
    }

    /// One look at all there is to propose; whether something came of it, so that another look may find more.
    fn turn(&mut self, state: &mut State) -> bool {
        let mut commands = state.facts();
        commands.extend(state.take_asks());
        if let Part::Member(log) = &state.part
            && log.leads()
        {
            commands.extend(self.formations(log.catalog()));
            commands.extend(refound(log.catalog()));
        }
        let now = Instant::now();
        state.proposed.retain(|(_, at)| now.duration_since(*at) < PROPOSE_AGAIN);
        let mut proposed = false;
        for command in commands {
            if state.proposed.iter().any(|(before, _)| is_same(before, &command)) {
                continue;
            }
            let number = self.number();
            let Part::Member(log) = &mut state.part else { return false };
            let proposal = Proposal::Command(command);
            if log.propose(number, &proposal).is_ok() {
                proposed = true;
                let Proposal::Command(command) = proposal else { continue };
                // Asks are repeated by their copies, as soon as they want to.
                if !matches!(command, Command::Asks { .. }) {
                    state.proposed.push((command, now));
                }
            }
        }
        let mut requests = std::mem::take(&mut state.requests);
        requests
            .retain(|request| request.begun.elapsed() < DECIDE_MAX && !request.reply.is_closed());
        for request in &mut requests {
            let due = request.proposed.is_none_or(|at| now.duration_since(at) >= PROPOSE_AGAIN);
            let number = self.number();
            let Part::Member(log) = &mut state.part else { break };
            if due && log.propose(number, &request.proposal).is_ok() {
                request.numbers.push(number);
                request.proposed = Some(now);
                proposed = true;
            }
        }
        state.requests = requests;
        proposed && self.pump(state)
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// Does what the log calls for; whether something was agreed on.
    fn pump(&mut self, state: &mut State) -> bool {
        let mut agreed = false;
        state.note_machines();
        loop {
            let after = match self.pump_once(state) {
                Ok(None) => return agreed,
                Ok(Some(after)) => after,
                Err(halted) => {
                    if !std::mem::replace(&mut self.halted, true) {
                        tracing::error!(
                            ?halted,
                            "this manager takes no part in decisions any more: a newer version may have written what it does \
                             not understand. Upgrade it"
                        );
                    }
                    return agreed;
                }
            };
            agreed |= after.restored || !after.committed.is_empty();
            self.send(state, after.messages);
            if after.restored {
                state.tell_all();
            }
            for committed in &after.committed {
                state.agreed(committed);
            }
        }
    }

    fn pump_once(&mut self, state: &mut State) -> Result<Option<After>, Halted> {
        let persist = if let Some(unkept) = self.unkept.take() {
            unkept
        } else {
            let Part::Member(log) = &mut state.part else { return Ok(None) };
            let Some(ready) = log.ready()? else { return Ok(None) };
            self.send(state, ready.messages);
            ready.persist
        };
        let kept = match &persist {
            Persist::Nothing => Ok(()),
            Persist::Append(more) => self.disk.append(more),
            Persist::Replace(whole) => self.disk.replace(whole),
        };
        if let Err(error) = kept {
            // It is tried again many times a second, on a disk that may be full.
            if self.unwritable != Some(error.kind()) {
                self.unwritable = Some(error.kind());
                let path = self.disk.path().display().to_string();
                tracing::error!(%error, path, "cannot be written; nothing about ranges changes until it can");
            }
            self.unkept = Some(persist);
            return Ok(None);
        }
        if self.unwritable.take().is_some() {
            tracing::info!(path = %self.disk.path().display(), "can be written again");
        }
        let Part::Member(log) = &mut state.part else { return Ok(None) };
        log.persisted().map(Some)
    }

    fn send(&mut self, state: &State, messages: Vec<Envelope>) {
        for Envelope { to, bytes } in messages {
            if let Some(machine) = state.machine_of(to) {
                self.peers.send(&self.ranges, to, machine, bytes);
            }
        }
    }

    /// Puts another log in place of the one there is.
    fn replace(&mut self, state: &mut State) {
        let Some(Replacement { by, done }) = state.replacement.take() else { return };
        let taken_in_at = match &by {
            NewLog::Joined { taken_in_at, .. } => *taken_in_at,
            NewLog::Alone | NewLog::Forced => 0,
        };
        let replaced = self.new_log(state, by);
        if let Ok((log, introduced)) = replaced {
            state.part = Part::Member(Box::new(log));
            state.introduced = introduced;
            state.taken_in_at = taken_in_at;
            state.proposed.clear();
            state.strangers.clear();
            self.unkept = None;
            self.halted = false;
            self.pump(state);
            state.tell_all();
            // Who asked may have gone away.
            let _ = done.send(Ok(()));
        } else {
            let _ = done.send(replaced.map(|_| ()));
        }
    }

    fn new_log(
        &mut self,
        state: &mut State,
        by: NewLog,
    ) -> Result<(Consensus, BTreeMap<MemberId, String>), String> {
        let in_words = |reason: Unreadable| format!("the log cannot be begun: {reason}");
        let none = BTreeMap::new();
        match by {
            NewLog::Alone => Ok((found(&self.ranges.machine).map_err(in_words)?, none)),
            NewLog::Joined { group, me, introduced, .. } => {
                let log = Consensus::join(group, me, election_ticks(me)).map_err(in_words)?;
                Ok((log, introduced))
            }
            NewLog::Forced => {
                let Part::Member(log) = &state.part else {
                    return Err(
                        "this manager has lost its log; it has nothing to go on with".to_string()
                    );
                };
                let mut superseded = state.superseded.clone();
                superseded.push(log.group_number());
                let path = self.disk.path().display().to_string();
                let failed = |error: io::Error| format!("{path}: {error}");
                let file = self.disk.read().map_err(&failed)?;
                let file = Consensus::found_by_force(&file, random_number()).map_err(in_words)?;
                // First who is not followed any more: a crash in between does no harm.
                let lines: Vec<String> = superseded.iter().map(u64::to_string).collect();
                self.disk
                    .replace_beside(SUPERSEDED, lines.join("\n").as_bytes())
                    .map_err(&failed)?;
                let (log, _) = recover(&file).map_err(in_words)?;
                self.disk.replace(&file).map_err(failed)?;
                state.superseded = superseded;
                Ok((log, none))
            }
        }
    }

    /// Stores whose nodes are up, or have had their time, get their first configurations. The leader sees to that.
    fn formations(&mut self, catalog: &Catalog) -> Vec<Command> {
        let mut commands = Vec::new();
        let waiting: Vec<(&StoreId, &Store)> =
            catalog.stores().filter(|(_, store)| !store.formed).collect();
        self.coming.retain(|id, _| waiting.iter().any(|(other, _)| *other == id));
        for (id, store) in waiting {
            let up = store.nodes.values().filter(|node| node.boot.is_some()).count();
            let (count, since) = self.coming.entry(id.clone()).or_insert((0, Instant::now()));
            if *count != up {
                (*count, *since) = (up, Instant::now());
            }
            let all = up == store.nodes.len();
            if up > 0 && (all || since.elapsed() >= FORM_WITHOUT_OTHERS) {
                let first_index = first_index();
                commands.push(Command::Form { store: id.clone(), first_index, only_up: !all });
            }
        }
        commands
    }
}

/// A group of this manager alone.
pub(crate) fn found(machine: &str) -> Result<Consensus, Unreadable> {
    let id = MemberId(random_number());
    let me = Member { id, machine: dkv_catalog::Machine(machine.to_string()) };
    Consensus::found(random_number(), me, election_ticks(id))
}

/// The log from its file, with the election timeout of its member, which only the file knows.
pub(crate) fn recover(file: &[u8]) -> Result<(Consensus, usize), Unreadable> {
    let (first, _) = Consensus::recover(file, dkv_catalog::ELECTION_TICKS_MIN)?;
    Consensus::recover(file, election_ticks(first.me()))
}

impl State {
    /// The commands that bring the catalogue to what is known here.
    pub(super) fn facts(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut forgotten = std::mem::take(&mut self.forgotten);
        let known = |store: &StoreId| {
            let catalog = self.catalog();
            catalog.store(store).is_some() || catalog.users().contains_key(store)
        };
        forgotten.retain(known);
        self.forgotten = forgotten;
        self.note_ended();
        for store in &self.forgotten {
            commands.push(Command::ForgetStore { store: store.clone() });
        }
        for (store, kept) in &self.kept {
            let Some(known) = self.catalog().store(store) else {
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
                    (Fact::Up(boot), _) => {
                        let key = NodeKey { store: store.clone(), node };
                        if self.is_spared(known, &key, boot) {
                            let end = DeadBoot { node, boot };
                            commands.push(Command::Spare { store: store.clone(), end });
                        }
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

    /// Tells what was agreed on to who follows and who asked.
    fn agreed(&mut self, committed: &Committed) {
        if let Proposal::Command(command) = &committed.proposal {
            self.done(command, &committed.applied);
        }
        let mine = matches!(&self.part, Part::Member(log) if log.me() == committed.by);
        let asked = |request: &Request| mine && request.numbers.contains(&committed.number);
        if let Some(at) = self.requests.iter().position(asked) {
            // Who asked may have gone away.
            let _ = self.requests.swap_remove(at).reply.send(committed.applied.outcome);
        }
    }

    /// A command was carried out, or refused.
    fn done(&mut self, command: &Command, applied: &dkv_catalog::Applied) {
        let outcome = applied.outcome;
        // One that was refused is not proposed again at once: what stands in its way needs time.
        if outcome == Outcome::Done {
            self.proposed.retain(|(before, _)| !is_same(before, command));
        }
        if let (Command::NodeUp { store, node, boot, .. }, Outcome::Refused(refusal)) =
            (command, outcome)
        {
            let fact = self.kept.get_mut(store).and_then(|kept| kept.facts.get_mut(node));
            if let (Some(fact), Refusal::Fenced) = (fact, refusal)
                && *fact == Fact::Up(*boot)
            {
                tracing::error!(store = %store, node = node.0, "this process was taken for dead; it has to be started again");
                *fact = Fact::Fenced(*boot);
            }
        }
        if let Command::ChangeUsers { .. } | Command::ForgetStore { .. } = command {
            self.show_users();
        }
        let asks = if let Command::Asks { asks, .. } = command { &asks[..] } else { &[] };
        let changed = !applied.changed.is_empty() || outcome == Outcome::Done;
        if changed || !asks.is_empty() {
            self.tell(command.store(), asks);
        }
    }
}

impl Kept {
    /// What makes the catalogue know a node that was added to the store.
    fn added(&self, store: &StoreId, node: NodeIndex) -> Option<Command> {
        let Command::DefineStore { nodes, .. } = &self.define else { return None };
        let spec = nodes.iter().find(|spec| spec.node == node)?.clone();
        let wish = Wish::AddNode { spec };
        Some(Command::Place { store: store.clone(), wish })
    }
}

/// Whether two commands ask for the same; when they were made does not count.
fn is_same(one: &Command, other: &Command) -> bool {
    match (one, other) {
        (
            Command::NodeUp { store, node, boot, .. },
            Command::NodeUp { store: s, node: n, boot: b, .. },
        ) => (store, node, boot) == (s, n, b),
        (Command::Form { store, only_up, .. }, Command::Form { store: s, only_up: o, .. }) => {
            (store, only_up) == (s, o)
        }
        (Command::ReformOffline { store, .. }, Command::ReformOffline { store: s, .. }) => {
            store == s
        }
        _ => one == other,
    }
}

/// Ranges of caches whose last copy is gone start empty where a placed node is up.
fn refound(catalog: &Catalog) -> Vec<Command> {
    let can_start = |store: &Store, range: &Range| {
        let up = |node: NodeIndex| store.nodes.get(&node).is_some_and(|node| node.boot.is_some());
        range.is_offline() && range.placement.iter().any(|addr| up(addr.node))
    };
    let lost = catalog.stores().filter(|(_, store)| {
        store.replication.on_total_loss == OnTotalLoss::Reinit
            && store.each_range().any(|(_, range)| can_start(store, range))
    });
    let first_index = first_index();
    lost.map(|(id, _)| Command::ReformOffline {
        store: id.clone(),
        first_index,
        accept_loss: false,
    })
    .collect()
}

/// Where ranges begin that are formed now: above what any earlier one of the store can have reached.
pub(super) fn first_index() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 16
}
