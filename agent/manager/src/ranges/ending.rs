//! Processes of this machine that are about to end, for whose end the managers agree that it loses nothing.
//!
//! The catalogue counts such a process as gone for every further one that would end, so what it notes must not outlive the
//! intention: whoever goes about to end a process holds a [`ToEnd`], and of a process that serves, is noted, and is held by
//! nobody here the keeper has the note withdrawn, whatever became of him who had it made.

use super::{NodeKey, Part, Ranges, State, Undecided};
use dkv_catalog::{Command, ConfigLog, Outcome, Proposal, Store};
use dkv_protocol::ids::BootId;
use dkv_protocol::ranges::DeadBoot;
use std::sync::Arc;

/// That a process is to end, and loses nothing by it, until this is dropped.
#[derive(Debug)]
pub(crate) struct ToEnd {
    ranges: Arc<Ranges>,
    key: NodeKey,
    /// None of a node that nobody has registered.
    boot: Option<BootId>,
}

impl ToEnd {
    fn new(ranges: &Arc<Ranges>, key: &NodeKey) -> Self {
        let mut state = ranges.lock();
        *state.ending.entry(key.clone()).or_default() += 1;
        let boot = state.registered(key).map(|end| end.boot);
        drop(state);
        Self { ranges: Arc::clone(ranges), key: key.clone(), boot }
    }

    /// It certainly ends, or has ended: nobody withdraws the note.
    pub(crate) fn ended(self) {
        if let Some(boot) = self.boot {
            self.ranges.lock().ended.insert((self.key.clone(), boot));
        }
    }
}

impl Drop for ToEnd {
    fn drop(&mut self) {
        let mut state = self.ranges.lock();
        if let Some(count) = state.ending.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.ending.remove(&self.key);
            }
        }
        drop(state);
        self.ranges.wake.notify_one();
    }
}

impl Ranges {
    /// Has the managers decide that a process of this machine ends, which they refuse when it has, alone or with others that
    /// end just now on whatever machine, all copies of some range that count: then there is nothing.
    pub(crate) async fn may_end(
        self: &Arc<Self>,
        key: &NodeKey,
    ) -> Result<Option<ToEnd>, Undecided> {
        // Of a store that is not known here, as after the loss of the disk, nobody can tell who has what.
        if self.look(&key.store, |_| ()).is_none() {
            return Ok(None);
        }
        let to_end = ToEnd::new(self, key);
        let Some(boot) = to_end.boot else { return Ok(Some(to_end)) };
        let end = DeadBoot { node: key.node, boot };
        let command = Command::End { store: key.store.clone(), end };
        let outcome = self.request(Proposal::Command(command)).await?;
        Ok((!matches!(outcome, Outcome::Refused(_))).then_some(to_end))
    }

    /// The same for a silent process, so that others lead. Not while nobody decides: then nobody would lead in its stead.
    pub(crate) async fn may_kill(self: &Arc<Self>, key: &NodeKey) -> Option<ToEnd> {
        let decided = matches!(&self.lock().part, Part::Member(log) if log.leader().is_some());
        if decided { self.may_end(key).await.ok().flatten() } else { None }
    }
}

impl State {
    fn registered(&self, key: &NodeKey) -> Option<DeadBoot> {
        let boot = self.catalog().store(&key.store)?.nodes.get(&key.node)?.boot?;
        Some(DeadBoot { node: key.node, boot })
    }

    /// Whether a process that serves is noted to end, and nobody is about to end it.
    pub(super) fn is_spared(&self, store: &Store, key: &NodeKey, boot: BootId) -> bool {
        let noted = store.nodes.get(&key.node).is_some_and(|n| n.ending && n.boot == Some(boot));
        noted && !self.ending.contains_key(key) && !self.ended.contains(&(key.clone(), boot))
    }

    /// Forgets those that have ended.
    pub(super) fn note_ended(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|(key, boot)| self.registered(key).is_some_and(|end| end.boot == *boot));
        self.ended = ended;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fact, Kept};
    use super::*;
    use dkv_catalog::{Catalog, Machine, NodeSpec};
    use dkv_protocol::ids::{NodeIndex, StoreId};
    use dkv_protocol::ranges::{Ack, OnTotalLoss, ReadMode, Replication};
    use std::collections::BTreeMap;
    use tokio::sync::watch;

    /// Whoever had it noted may be gone: its call was dropped, its answer came too late, its manager was restarted.
    #[test]
    fn who_serves_and_is_noted_to_end_is_spared_unless_somebody_is_about_to_end_it() {
        let store = StoreId("5e".repeat(16));
        let boot = BootId(7);
        let end = DeadBoot { node: NodeIndex(0), boot };
        let spec = |node| NodeSpec {
            node: NodeIndex(node),
            shards: 1,
            machine: Machine("10.0.0.1:7801".into()),
        };
        let replication = Replication {
            replicas: 1,
            ack: Ack::All,
            min_insync: 1,
            read: ReadMode::Lease,
            on_total_loss: OnTotalLoss::Offline,
        };
        let of = || store.clone();
        let define =
            Command::DefineStore { store: of(), replication, nodes: vec![spec(0), spec(1)] };
        let up = |node, boot| Command::NodeUp { store: of(), node, boot, first_index: 1 };
        let mut catalog = Catalog::default();
        for command in [
            define.clone(),
            up(NodeIndex(0), boot),
            up(NodeIndex(1), BootId(8)),
            Command::Form { store: of(), first_index: 1, only_up: false },
            Command::End { store: of(), end },
        ] {
            assert_eq!(catalog.apply(&command).outcome, Outcome::Done, "{command:?}");
        }
        let mut state = State::new(Part::Outside(catalog), vec![]);
        let facts = BTreeMap::from([(NodeIndex(0), Fact::Up(boot))]);
        let told = watch::Sender::new(Arc::default());
        state.kept.insert(of(), Kept { define, facts, asks: vec![], told });
        let spare = Command::Spare { store: of(), end };
        assert_eq!(state.facts(), std::slice::from_ref(&spare));

        let key = NodeKey { store: of(), node: NodeIndex(0) };
        state.ending.insert(key.clone(), 1);
        assert_eq!(state.facts(), []);
        state.ending.clear();
        state.ended.insert((key.clone(), boot));
        assert_eq!(state.facts(), [], "it was killed, and is not seen to be gone yet");
        state.ended.clear();
        state.ended.insert((key, BootId(6)));
        assert_eq!(state.facts(), [spare], "that was an earlier process");
        assert!(state.ended.is_empty(), "and need not be remembered");
    }
}
