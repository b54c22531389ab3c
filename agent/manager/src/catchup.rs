//! How a manager learns what it has missed: it asks the others, when it starts and now and then, for the stores that have
//! nodes on its machine. What it lacks, because it lost its disk or was away during a change, it takes over as it is
//! written there; what was deleted meanwhile it deletes. A store of which the others know nothing is left alone.
//!
//! Nothing here needs a decision: a record is written by a command that reserved it everywhere, and the newest of one
//! identity is the one that counts. Where that is not enough (two stores of one name, a port that is somebody else's by
//! now, a node that runs and would have to go) nothing is done, and the log says why.

use crate::auth::random_hex;
use crate::catalogue::{Agent, Inner};
use crate::changes::Source;
use crate::client::AdminError;
use crate::ledger::StoreEntry;
use crate::plan::names;
use crate::plan::steps::Wanted;
use crate::refusal::Refusal;
use crate::supervise::Command;
use dkv_protocol::admin::{
    CatchUp, CatchUpAnswer, CatchUpRequest, DeletedStore, KnownStore, MissedStore, StoreRecord,
};
use dkv_protocol::ids::StoreId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether somebody is to be asked.
const LOOK: Duration = Duration::from_millis(500);
/// How often each of the others is asked while there is nothing to catch up with.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// When one that did not answer, or said something that cannot be followed, is asked again.
const ASK_SOON: Duration = Duration::from_secs(1);
/// Most time for one of the others to answer.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Machines that asked this manager without being known to it, at most.
const CALLERS_MAX: usize = 64;

/// What came of one thing that was missed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Caught {
    /// It is here now.
    Up,
    /// It will be, when something else is done.
    NotYet,
    /// Somebody has to decide; in words.
    Left(String),
}

/// Catches up with the others for as long as the manager lives.
pub(crate) async fn keep_up(agent: Arc<Agent>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due: BTreeMap<String, Instant> = BTreeMap::new();
    let mut said: BTreeSet<String> = BTreeSet::new();
    loop {
        look.tick().await;
        let others = agent.others_to_ask();
        due.retain(|machine, _| others.contains(machine));
        let now = Instant::now();
        let asked =
            others.into_iter().filter(|machine| due.get(machine).is_none_or(|at| *at <= now));
        let answers = ask_all(&agent, asked.collect()).await;
        let apart = named_twice(answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()));
        let mut left: BTreeSet<String> = BTreeSet::new();
        for (machine, answer) in answers {
            let mut pause = ASK_AGAIN;
            match answer {
                Ok(missed) => {
                    for caught in agent.catch_up_with(&machine, &missed, &apart).await {
                        if caught != Caught::Up {
                            pause = ASK_SOON;
                        }
                        if let Caught::Left(reason) = caught {
                            left.insert(reason);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(machine, %error, "cannot be asked what was missed");
                    pause = ASK_SOON;
                }
            }
            due.insert(machine, Instant::now() + pause);
        }
        for reason in left {
            // Said once for as long as nothing else comes up.
            if said.insert(reason.clone()) {
                tracing::warn!(
                    reason,
                    "differs from what the other managers have, and is left as it is"
                );
            }
        }
        if said.len() > CALLERS_MAX {
            said.clear();
        }
    }
}

/// What each of these machines says that this one has missed.
async fn ask_all(
    agent: &Agent,
    machines: Vec<String>,
) -> Vec<(String, Result<CatchUp, AdminError>)> {
    let known = agent.known_stores();
    let mut asked = Vec::new();
    for machine in machines {
        let Some(client) = agent.client_of(&machine, ASK_MAX) else { continue };
        let request = CatchUpRequest {
            machine: agent.machine().to_string(),
            nonce: random_hex(16),
            known: known.clone(),
        };
        asked.push(tokio::task::spawn_blocking(move || (machine, client.catch_up(&request))));
    }
    let mut answers = Vec::new();
    for answer in asked {
        answers.extend(answer.await);
    }
    answers
}

/// Names that stand for two stores in what several managers say: nobody but an operator knows which of them is meant.
fn named_twice<'a>(answers: impl Iterator<Item = &'a CatchUp>) -> BTreeSet<String> {
    let mut first = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for missed in answers.flat_map(|answer| &answer.stores) {
        let name = &missed.record.definition.name;
        let id = &missed.record.id;
        if first.entry(name).or_insert(id) != &id {
            twice.insert(name.clone());
        }
    }
    twice
}

impl Agent {
    /// What the manager of a machine has missed, as far as this one knows. One that is not known here is asked in return.
    pub(crate) fn missed_by(&self, request: &CatchUpRequest) -> Result<CatchUpAnswer, Refusal> {
        let machine = &request.machine;
        let both = [self.machine().to_string(), machine.clone()];
        names::check_machines(&both, self.options().loopback_group)?;
        let mut inner = self.lock();
        let full = inner.callers.len() >= CALLERS_MAX;
        if !full && machine != self.machine() && !inner.ledger.members.contains(machine) {
            inner.callers.insert(machine.clone());
        }
        let mut missed = missed_by(&inner, request);
        drop(inner);
        for store in &mut missed.stores {
            store.users_version = self.ranges().users_of(&store.record.id).version;
        }
        let text = serde_json::to_string(&missed).expect("a catalogue is plain data");
        let proof = self.token().prove_answer(&request.nonce, &text);
        Ok(CatchUpAnswer { text, proof })
    }

    fn known_stores(&self) -> Vec<KnownStore> {
        let known =
            |record: &StoreRecord| KnownStore { id: record.id.clone(), epoch: record.epoch };
        self.lock().ledger.stores.values().map(|entry| known(&entry.record)).collect()
    }

    /// The other managers: those of the group, and those that have spoken to this one.
    fn others_to_ask(&self) -> BTreeSet<String> {
        let mut inner = self.lock();
        let members: BTreeSet<String> = inner.ledger.members.iter().cloned().collect();
        inner.callers.retain(|caller| !members.contains(caller));
        let mut others = members;
        others.extend(inner.callers.iter().cloned());
        drop(inner);
        others.extend(self.ranges().strangers());
        others.remove(self.machine());
        others
    }

    /// Takes over what another manager knows.
    async fn catch_up_with(
        self: &Arc<Self>,
        machine: &str,
        missed: &CatchUp,
        apart: &BTreeSet<String>,
    ) -> Vec<Caught> {
        let mut all = Vec::new();
        for store in &missed.stores {
            let name = &store.record.definition.name;
            all.push(if apart.contains(name) {
                Caught::Left(format!("the other managers know two stores by the name {name}"))
            } else {
                self.take_over(machine, store).await
            });
        }
        for deleted in &missed.deleted {
            all.push(self.follow_deletion(deleted).await);
        }
        all
    }

    async fn take_over(self: &Arc<Self>, machine: &str, missed: &MissedStore) -> Caught {
        let record = &missed.record;
        let name = &record.definition.name;
        // A command is about to write it here, or some other record of it.
        if self.lock().is_reserved(name) {
            return Caught::NotYet;
        }
        // Who decides with others about the ranges of this store, and only he, can be told that it is there. To another
        // group it would be a store that begins, and its nodes here would serve it empty.
        let decided = self.ranges().look(&record.id, |_| ()).is_some();
        if record.definition.replication.is_some() && !decided {
            // A manager that lost its disk knows nobody. Who keeps a store with nodes here is whom it belongs to.
            self.ranges().stranger(machine);
            return Caught::NotYet;
        }
        // Nor one whose users it was not told: a node would let in whom they keep out.
        if self.ranges().users_of(&record.id).version < missed.users_version {
            return Caught::Left(format!(
                "the store {name} has users, which this manager does not know before it is in the group of the others; see: dkv \
                 manager status"
            ));
        }
        if let Err(refusal) = self.stop_removed(record).await {
            return Caught::Left(format!("the store {name}: {}", refusal.message));
        }
        let mut inner = self.lock();
        if inner.is_reserved(name) {
            return Caught::NotYet;
        }
        match self.write_record(&mut inner, record, &Source::Others { runs: missed.runs }) {
            Ok(_) => {
                tracing::info!(store = %name, epoch = record.epoch.0, "taken over from the other managers");
                Caught::Up
            }
            Err(refusal) => Caught::Left(format!("the store {name}: {}", refusal.message)),
        }
    }

    /// Stops nodes that were removed from their store while this machine was taken for gone. Nobody is removed before it holds
    /// nothing that counts; only stores with copies remove anybody.
    async fn stop_removed(self: &Arc<Self>, record: &StoreRecord) -> Result<(), Refusal> {
        let name = &record.definition.name;
        let gone = self.lock().ledger.stores.get(name).map(|entry| removed_from(entry, record));
        for node in gone.unwrap_or_default() {
            tracing::info!(store = %name, node, "stopped: it was removed from its store while this machine was away");
            self.command(name, &node, |reply| Command::Stop { force: true, reply }).await?;
        }
        Ok(())
    }

    /// Deletes what was deleted while this manager was away: at rest, or with all that runs when that was the order.
    async fn follow_deletion(self: &Arc<Self>, deleted: &DeletedStore) -> Caught {
        let name = {
            let inner = self.lock();
            let mut stores = inner.ledger.stores.values();
            let found = stores.find(|entry| entry.record.id == deleted.id);
            let Some(entry) = found.filter(|entry| !entry.deleting) else { return Caught::Up };
            entry.record.definition.name.clone()
        };
        match self.delete(&name, deleted.force).await {
            Ok(_) => {
                tracing::info!(store = %name, "deleted, as the other managers did before");
                Caught::Up
            }
            Err(refusal) => Caught::Left(format!(
                "the store {name} was deleted by the other managers: {}",
                refusal.message
            )),
        }
    }
}

/// The nodes of this machine that a newer record of their store has no more. A name may have been given again.
fn removed_from(entry: &StoreEntry, record: &StoreRecord) -> Vec<String> {
    let newer = entry.record.id == record.id && entry.record.epoch < record.epoch;
    if !newer || record.definition.replication.is_none() {
        return Vec::new();
    }
    let stays = |node: &String| record.nodes.iter().any(|own| own.name == *node);
    let removed = |node: &String| record.removed.iter().any(|gone| gone.node.name == *node);
    entry.nodes.keys().filter(|node| removed(node) && !stays(node)).cloned().collect()
}

fn missed_by(inner: &Inner, request: &CatchUpRequest) -> CatchUp {
    let known = |id: &StoreId| request.known.iter().find(|known| known.id == *id);
    let own = inner.ledger.stores.values().filter(|entry| !entry.deleting);
    let missed = own.filter(|entry| {
        let record = &entry.record;
        let has_nodes = record.nodes.iter().any(|node| node.machine == request.machine);
        let had_nodes = record.removed.iter().any(|gone| gone.node.machine == request.machine);
        match known(&record.id) {
            Some(known) => known.epoch < record.epoch && (has_nodes || had_nodes),
            None => has_nodes,
        }
    });
    let stores = missed.map(|entry| MissedStore {
        record: entry.record.clone(),
        runs: entry.nodes.values().any(|node| node.wanted == Wanted::Up),
        users_version: 0,
    });
    let deleted = inner.ledger.deleted.iter().filter(|deleted| known(&deleted.id).is_some());
    CatchUp { stores: stores.collect(), deleted: deleted.cloned().collect() }
}

#[cfg(test)]
#[path = "catchup_tests.rs"]
mod tests;
