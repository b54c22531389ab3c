//! What operators order about the ranges of a store with copies: a new life, another part for a node, and what a stop has
//! to see to first.

use super::NewLog;
use super::ending::ToEnd;
use super::joining::undecided;
use crate::catalogue::Agent;
use crate::plan::names;
use crate::refusal::Refusal;
use crate::supervise::Command as Supervised;
use dkv_catalog::{Command, Drain, Duty, Outcome, Proposal, Refusal as RangesRefusal, Store, Wish};
use dkv_protocol::admin::{NodeDuty, NodeRecord, NodeState, StoreRecord};
use dkv_protocol::ids::{NodeIndex, StoreId};
use dkv_protocol::ranges::DeadBoot;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Most time for a machine that is said to be gone to show that it is not.
const ALIVE_MAX: Duration = Duration::from_secs(2);

impl Agent {
    /// A store that was stopped on purpose and whose nodes are all of this machine begins a new life with the first of
    /// them that is started: what they held was given up, and is no loss. Of several machines the command line asks for
    /// it, because only it sees that all are at rest.
    pub(crate) async fn begin_life_alone(&self, store: &str) -> Result<(), Refusal> {
        let at_rest = {
            let inner = self.lock();
            let entry = inner.store(store)?;
            let own = |node: &NodeRecord| {
                let rest = [NodeState::Requested, NodeState::Stopped];
                node.machine == self.machine()
                    && entry.nodes.get(&node.name).is_some_and(|own| rest.contains(&own.state))
            };
            entry.record.nodes.iter().all(own).then(|| entry.record.id.clone())
        };
        let life = at_rest.and_then(|id| {
            let formed = |known: &Store| known.formed.then_some(known.life + 1);
            self.ranges().look(&id, formed).flatten().map(|life| (id, life))
        });
        let Some((id, life)) = life else { return Ok(()) };
        self.decide(Command::StartStore { store: id, life }).await.map(|_| ())
    }

    /// Has a command about ranges decided.
    pub(crate) async fn decide(&self, command: Command) -> Result<Outcome, Refusal> {
        match self.ranges().request(Proposal::Command(command)).await.map_err(undecided)? {
            Outcome::Refused(refusal) => Err(in_words(refusal)),
            outcome => Ok(outcome),
        }
    }

    /// The identity of a store with copies, and the index and full name of one of its nodes, on whatever machine.
    fn kept_node(&self, store: &str, node: &str) -> Result<(StoreId, NodeIndex, String), Refusal> {
        let inner = self.lock();
        let record = &inner.store(store)?.record;
        check_copies(record)?;
        let prefix = &record.definition.instance_prefix;
        let mut found = record.indexed().filter(|(_, own)| names::is_node(prefix, &own.name, node));
        let Some((index, own)) = found.next() else {
            return Err(Refusal::absent(
                "no_such_node",
                format!("the store {store} has no node {node:?}"),
                format!("dkv store show {store}"),
            ));
        };
        Ok((record.id.clone(), index, own.name.clone()))
    }

    /// Gives a node another part. Its ranges move afterwards, brought about by their primaries.
    pub(crate) async fn set_duty(
        &self,
        store: &str,
        node: &str,
        duty: NodeDuty,
    ) -> Result<(), Refusal> {
        let (id, node, _) = self.kept_node(store, node)?;
        let wish = match duty {
            NodeDuty::Full => Wish::Undrain { node },
            NodeDuty::Follows => Wish::Drain { node, how: Drain::Leadership },
            NodeDuty::Leaves => Wish::Drain { node, how: Drain::Copies },
        };
        self.decide(Command::Place { store: id, wish }).await.map(|_| ())
    }

    /// Begins a new life of a store that was stopped on purpose. The caller has seen that it is at rest on all machines;
    /// of this one it is checked again.
    pub(crate) async fn begin_life(&self, store: &str, life: u64) -> Result<(), Refusal> {
        let id = {
            let inner = self.lock();
            let entry = inner.store(store)?;
            check_copies(&entry.record)?;
            let rest = [NodeState::Requested, NodeState::Stopped];
            if let Some((name, _)) = entry.nodes.iter().find(|(_, n)| !rest.contains(&n.state)) {
                return Err(Refusal::conflict(
                    "store_running",
                    format!("{name} of {store} was not stopped, so what it holds is not given up"),
                    format!("stop the store first: dkv store stop {store}"),
                ));
            }
            entry.record.id.clone()
        };
        self.decide(Command::StartStore { store: id, life }).await.map(|_| ())
    }

    /// Stops a node without a loss and without a gap: refused when it has the only copy of something, and its ranges are led
    /// by others before it stops, as far as that can be had in a moment. One that is not stopped takes its full part again.
    pub(crate) async fn stop_relieved(
        &self,
        store: &str,
        node: &str,
        force: bool,
    ) -> Result<String, Refusal> {
        let relieved = self.relieve(store, node).await;
        let stopped = match relieved {
            Ok(to_end) => {
                let stop = |reply| Supervised::Stop { force, reply };
                let stopped = self.command(store, node, stop).await;
                if let (Ok(_), Some(to_end)) = (&stopped, to_end) {
                    to_end.ended();
                }
                stopped
            }
            Err(refusal) => Err(refusal),
        };
        if stopped.is_err()
            && let Err(refusal) = self.take_part_again(store, node).await
        {
            let reason = refusal.message;
            tracing::warn!(store, node, reason, "follows only, though it was not stopped");
        }
        stopped
    }

    /// Has others lead what a node leads, so that it may end. Nothing where nobody need agree to that.
    async fn relieve(&self, store: &str, node: &str) -> Result<Option<ToEnd>, Refusal> {
        let Some(key) = self.node_key(store, node) else { return Ok(None) };
        let up = |known: &Store| known.nodes.get(&key.node).is_some_and(|node| node.boot.is_some());
        if self.ranges().look(&key.store, up) != Some(true) {
            return Ok(None);
        }
        let may_end = || async {
            let decided = self.ranges().may_end(&key).await.map_err(undecided)?;
            decided.ok_or_else(|| last_copy(store, node))
        };
        let to_end = may_end().await?;
        self.set_duty(store, node, NodeDuty::Follows).await?;
        let Some(mut told) = self.ranges().told(&key.store) else { return Ok(Some(to_end)) };
        let leads_nothing = async {
            let leads = |known: &Store| known.led_by(key.node).next().is_some();
            while self.ranges().look(&key.store, leads) == Some(true) {
                if told.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is not handed over by then is taken over when the process has ended.
        let _ = tokio::time::timeout(self.options().pace.handover_max, leads_nothing).await;
        // A copy that others had may have been let go meanwhile.
        may_end().await.map(Some)
    }

    /// Kills a node, as a crash would: refused when it has the only copy of something, which every node of a store without
    /// copies has.
    pub(crate) async fn kill_safely(&self, store: &str, node: &str) -> Result<String, Refusal> {
        let Some(key) = self.node_key(store, node) else {
            return Err(Refusal::conflict(
                "last_copy",
                format!(
                    "the store {store} has one copy of each range: what {node} holds would be lost"
                ),
                "to measure that loss: dkv bench failover STORE --accept-loss. Copies are chosen at creation: --replicas 1",
            ));
        };
        let to_end = self.ranges().may_end(&key).await.map_err(undecided)?;
        let to_end = to_end.ok_or_else(|| last_copy(store, node))?;
        let killed = self.command(store, node, Supervised::Kill).await;
        if killed.is_ok() {
            to_end.ended();
        }
        killed
    }

    /// Goes on without machines that an operator vouches to be gone: when they were needed to decide, this manager decides
    /// alone from now on; and the copies that they had do not count any more, so that others lead. A machine that lives
    /// and goes on by itself would be another store under the same name, so one that answers is refused.
    pub(crate) async fn go_on_without(&self, store: &str, gone: &[String]) -> Result<(), Refusal> {
        let record = {
            let inner = self.lock();
            inner.store(store)?.record.clone()
        };
        check_copies(&record)?;
        if gone.is_empty() || gone.iter().any(|machine| machine == self.machine()) {
            return Err(Refusal::bad(
                "bad_machine",
                "name the machines that are gone, and not the one that goes on",
                "dkv store failover NAME --force --gone 10.0.0.11:7801",
            ));
        }
        let known = self.ranges().group().members;
        for machine in gone {
            let covered = record.nodes.iter().any(|node| node.machine == *machine);
            if !covered && known.iter().all(|member| member.machine != *machine) {
                return Err(Refusal::bad(
                    "bad_machine",
                    format!("{machine} is no machine of the store {store} or of its managers"),
                    format!("dkv store show {store}; dkv manager list"),
                ));
            }
        }
        if let Some(alive) = self.who_answers(gone).await {
            return Err(Refusal::conflict(
                "it_lives",
                format!(
                    "{alive} answers, so it is not gone: to go on without it would make two stores of one"
                ),
                format!("stop it first (dkv store stop {store}, and its manager), or wait for it"),
            ));
        }
        if let Some(node) = nodes_that_answer(&record, gone).await {
            return Err(Refusal::conflict(
                "it_lives",
                format!(
                    "the node {} answers on port {}, so its machine is not gone: to go on without it would make two stores of one",
                    node.name, node.cluster_port
                ),
                format!("start the manager of its machine again, {}: dkv agent", node.machine),
            ));
        }
        let group = self.ranges().group();
        let decides = |machine: &String| !gone.contains(machine);
        let voters = || group.members.iter().filter(|member| member.votes);
        let left = voters().filter(|member| decides(&member.machine)).count();
        if left * 2 <= voters().count() {
            self.ranges().replace(NewLog::Forced).await.map_err(|why| {
                Refusal::of(507, "not_written", why, "make room on the disk, and try again")
            })?;
            tracing::warn!(
                gone = gone.join(", "),
                "this manager decides alone from now on, by order of its operator"
            );
        }
        let dead = self.ranges().look(&record.id, |known: &Store| {
            let of = |(node, own): (NodeIndex, &NodeRecord)| {
                let boot = known.nodes.get(&node).and_then(|node| node.boot);
                boot.filter(|_| gone.contains(&own.machine)).map(|boot| DeadBoot { node, boot })
            };
            record.indexed().filter_map(of).collect::<Vec<DeadBoot>>()
        });
        for dead in dead.unwrap_or_default() {
            self.decide(Command::Dead { store: record.id.clone(), dead }).await?;
        }
        Ok(())
    }

    /// What the offline ranges of a store held is given up: they start empty where a node of theirs serves. `seen` is how
    /// many the operator was shown, so that nobody accepts a loss that has grown meanwhile.
    pub(crate) async fn accept_loss(&self, store: &str, seen: u32) -> Result<(), Refusal> {
        let id = {
            let inner = self.lock();
            let record = &inner.store(store)?.record;
            check_copies(record)?;
            record.id.clone()
        };
        let offline = |known: &Store| known.each_range().filter(|(_, r)| r.is_offline()).count();
        let offline = self.ranges().look(&id, offline).unwrap_or(0);
        if offline as u64 > u64::from(seen) {
            return Err(Refusal::conflict(
                "more_lost",
                format!("{offline} ranges of {store} are offline by now, not {seen}"),
                format!("look again: dkv store show {store}"),
            ));
        }
        let first_index = super::keeper::first_index();
        let command = Command::ReformOffline { store: id, first_index, accept_loss: true };
        self.decide(command).await.map(|_| ())
    }

    /// One of these machines whose manager answers.
    async fn who_answers(&self, machines: &[String]) -> Option<String> {
        for machine in machines {
            let Some(client) = self.client_of(machine, ALIVE_MAX) else { continue };
            let asked = tokio::task::spawn_blocking(move || client.health());
            if let Ok(Ok(_)) = asked.await {
                return Some(machine.clone());
            }
        }
        None
    }

    /// A node that was relieved for its stop takes its full part again after its start.
    pub(crate) async fn take_part_again(&self, store: &str, node: &str) -> Result<(), Refusal> {
        let Some(key) = self.node_key(store, node) else { return Ok(()) };
        let follows = |known: &Store| {
            known.nodes.get(&key.node).is_some_and(|node| node.duty == Duty::Follows)
        };
        if self.ranges().look(&key.store, follows) == Some(true) {
            self.set_duty(store, node, NodeDuty::Full).await?;
        }
        Ok(())
    }
}

/// One of the nodes of these machines that answers: its process may outlive its manager.
async fn nodes_that_answer(record: &StoreRecord, machines: &[String]) -> Option<NodeRecord> {
    let mut asked = tokio::task::JoinSet::new();
    for node in record.nodes.iter().filter(|node| machines.contains(&node.machine)) {
        let Ok(manager) = node.machine.parse::<SocketAddr>() else { continue };
        let node = node.clone();
        asked.spawn(async move {
            let dialled = TcpStream::connect((manager.ip(), node.cluster_port));
            matches!(tokio::time::timeout(ALIVE_MAX, dialled).await, Ok(Ok(_))).then_some(node)
        });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some(node)) = answer {
            return Some(node);
        }
    }
    None
}

fn last_copy(store: &str, node: &str) -> Refusal {
    Refusal::conflict(
        "last_copy",
        format!(
            "{node} has the only copy of some ranges, but for nodes that are being stopped: what they hold would be lost"
        ),
        format!(
            "wait until others are in sync (dkv store show {store}), stop the whole store (dkv store stop {store}), or give \
             them up with --force"
        ),
    )
}

fn check_copies(record: &StoreRecord) -> Result<(), Refusal> {
    if record.definition.replication.is_some() {
        return Ok(());
    }
    Err(Refusal::conflict(
        "no_copies",
        format!(
            "the store {} has one copy of each range, which stays where it is",
            record.definition.name
        ),
        "copies are chosen at creation: dkv store create … --replicas 1",
    ))
}

/// Why the catalogue of the ranges refused what an operator wants.
fn in_words(refusal: RangesRefusal) -> Refusal {
    let (code, message, hint) = match refusal {
        RangesRefusal::NoSuchStore => (
            "not_kept",
            "the managers do not keep the ranges of this store: it has no copies, or was never started".to_string(),
            "copies are chosen at creation: dkv store create … --replicas 1",
        ),
        RangesRefusal::StillHolds(range) => (
            "still_holds",
            format!("the node still holds copies that count, of range {} for one", range.0),
            "wait until its copies have moved: dkv store show",
        ),
        RangesRefusal::LastCopy(range) => (
            "last_copy",
            format!("it has the only copy of some ranges, range {} for one, but for nodes that are being stopped", range.0),
            "wait until others are in sync: dkv store show",
        ),
        RangesRefusal::LastNode => (
            "last_node",
            "it is the last node that could hold the ranges of its store".to_string(),
            "add another node first: dkv store add-instance",
        ),
        RangesRefusal::LossNotAccepted => (
            "loss_not_accepted",
            "what is lost was not given up: the store was created with --on-total-loss offline".to_string(),
            "give it up with: dkv store accept-loss",
        ),
        other => ("ranges_refused", format!("the managers refused it: {other}"), "dkv store show"),
    };
    Refusal::conflict(code, message, hint)
}
