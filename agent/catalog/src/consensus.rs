//! The Raft log of the managers: `raft-rs`, driven without a clock, a file or a socket.
//!
//! Every member gets a fixed election timeout of its own, so that nothing is random and ties do not happen. The catalogue
//! is applied in here, because a snapshot of the log is the catalogue at a position. The leader brings the votes to those
//! that [`Group::voters`] names; nobody else changes them.

use crate::catalog::{Applied, Catalog};
use crate::group::{Group, Member, MemberId, Part, Step};
use crate::kept::{Kept, Unreadable, write_frame};
use crate::log::{
    After, Committed, ConfigLog, Envelope, Halted, NotProposed, NotTaken, PROPOSAL_BYTES_MAX,
    Persist, Proposal, Ready,
};
use crate::wire::{read_message, write_message};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use protobuf::Message as _;
use raft::prelude::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, Snapshot,
};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};
use serde::{Deserialize, Serialize};

/// The least election timeout. A leader that hears from no majority for so long stops leading.
pub const ELECTION_TICKS_MIN: usize = 10;
/// Ticks between the leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks after which a snapshot that was not answered is sent again.
const SNAPSHOT_TICKS: usize = 40;
/// Entries and bytes of a log that is replaced by a snapshot.
const ENTRIES_MAX: u64 = 2048;
const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Entries that stay behind a snapshot, for members that are close.
const ENTRIES_KEPT: usize = 64;
/// A learner this close to what is agreed on may vote.
const CLOSE_ENTRIES: u64 = 64;
/// Positions and terms that a peer may speak of.
const COUNTED_MAX: u64 = 1 << 62;
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
const IN_FLIGHT_MAX: usize = 64;

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    group: Group,
    catalog: Catalog,
}

/// The data of an entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposed<P> {
    by: MemberId,
    number: u64,
    what: P,
}

/// See the module.
pub struct Consensus {
    raw: RawNode<Kept>,
    state: State,
    /// Position of the last entry that is in `state`.
    applied: u64,
    /// Bytes of entries in `state` since the last snapshot.
    fresh_bytes: usize,
    keeping: Option<Keeping>,
    /// Whether the last snapshot is to be replaced however short the log is.
    outdated: bool,
    /// Whether the file is to be written anew.
    rewrite: bool,
    halted: Option<Halted>,
    /// For how many ticks a snapshot to a member is under way.
    snapshots: BTreeMap<u64, usize>,
}

/// What is being kept, and what follows.
struct Keeping {
    /// None when the file is only rewritten.
    ready: Option<raft::Ready>,
    after: After,
}

impl Consensus {
    /// Founds a group of one, under a random number that is not 0. It leads at once.
    pub fn found(group: u64, me: Member, election_ticks: usize) -> Result<Self, Unreadable> {
        let id = me.id.0;
        let state = State { group: Group::of(me), catalog: Catalog::default() };
        let mut founded = Self::new(first_of(group, id, &state, 1, 1)?, election_ticks)?;
        founded.rewrite = true;
        Ok(founded)
    }

    /// A member that was taken in by [`crate::GroupChange::Join`] and knows nothing yet. It must never have run under
    /// this number before.
    pub fn join(group: u64, me: MemberId, election_ticks: usize) -> Result<Self, Unreadable> {
        let mut joining = Self::new(Kept::nothing(group, me.0), election_ticks)?;
        joining.rewrite = true;
        Ok(joining)
    }

    /// From the file. Says how many of its bytes count: it must be cut there before more is appended.
    pub fn recover(file: &[u8], election_ticks: usize) -> Result<(Self, usize), Unreadable> {
        let (kept, valid) = Kept::read(file)?;
        Ok((Self::new(kept, election_ticks)?, valid))
    }

    /// The file of a new group in which this member is alone and decides alone, with all that it knows: for when the
    /// voters are lost. Whoever lives on in the old group is not understood any more and must join anew; an operator
    /// vouches that none of them goes on deciding.
    pub fn found_by_force(file: &[u8], group: u64) -> Result<Vec<u8>, Unreadable> {
        let (kept, _) = Kept::read(file)?;
        let (me, last, term) = (kept.me, kept.last(), kept.hard.term);
        let entries = kept.entries_from(kept.snapshot.get_metadata().index + 1).to_vec();
        let mut old = Self::new(kept, ELECTION_TICKS_MIN)?;
        for entry in entries.iter().filter(|e| e.get_entry_type() == EntryType::EntryNormal) {
            old.perform(entry).map_err(|_| Unreadable::OtherVersion)?;
        }
        let member = old.state.group.member(MemberId(me)).cloned().ok_or(Unreadable::Refused)?;
        let state = State { group: Group::of(member), catalog: old.state.catalog };
        let first = first_of(group, me, &state, last + 1, term + 1)?;
        first.write_all().map_err(|_| Unreadable::Refused)
    }

    fn new(kept: Kept, election_ticks: usize) -> Result<Self, Unreadable> {
        let election_ticks = election_ticks.max(ELECTION_TICKS_MIN);
        let me = kept.me;
        let snapshot = &kept.snapshot;
        let applied = snapshot.get_metadata().index;
        let alone = snapshot.get_metadata().get_conf_state().get_voters() == [me];
        let state = if applied == 0 {
            State::default()
        } else {
            serde_json::from_slice(&snapshot.data).map_err(|_| Unreadable::OtherVersion)?
        };
        let config = Config {
            id: me,
            applied,
            election_tick: ELECTION_TICKS_MIN,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: election_ticks,
            max_election_tick: election_ticks + 1,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut raw = RawNode::new(&config, kept, &logger).map_err(|_| Unreadable::Refused)?;
        if alone {
            // Nobody else can object, so nobody has to wait.
            raw.campaign().map_err(|_| Unreadable::Refused)?;
        }
        Ok(Self {
            raw,
            state,
            applied,
            fresh_bytes: 0,
            keeping: None,
            outdated: false,
            rewrite: false,
            halted: None,
            snapshots: BTreeMap::new(),
        })
    }

    /// The number of the group. It is told to whoever joins.
    pub fn group_number(&self) -> u64 {
        self.raw.store().group
    }

    /// This member.
    pub fn me(&self) -> MemberId {
        MemberId(self.raw.raft.id)
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Position of the last command that the catalogue here has seen.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Who votes now, in order. While votes change this may differ from [`Group::voters`].
    pub fn voting(&self) -> BTreeSet<MemberId> {
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let all = conf.get_voters().iter().chain(conf.get_voters_outgoing());
        all.map(|id| MemberId(*id)).collect()
    }

    /// Whether those vote who should and all others learn, as far as this member knows. While votes change, the majority of
    /// those who voted before counts as well; until then the loss of one of them may be one too many.
    pub fn is_settled(&self) -> bool {
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect::<BTreeSet<_>>();
        let wanted = self.state.group.voters();
        let members = self.state.group.members().iter().map(|member| member.id);
        let learners: BTreeSet<MemberId> = members.filter(|id| !wanted.contains(id)).collect();
        !wanted.is_empty()
            && ids(conf.get_voters()) == wanted
            && ids(conf.get_learners()) == learners
            && conf.get_voters_outgoing().is_empty()
    }

    /// Whether messages to a member may still be needed: it votes or learns, also when it has left the group already. A
    /// member that knows nothing yet needs all whom it was told of.
    pub fn may_speak_to(&self, id: MemberId) -> bool {
        self.applied == 0 || self.raw.raft.prs().get(id.0).is_some()
    }

    fn next_ready(&mut self) -> Result<Option<Ready>, Halted> {
        if !self.raw.has_ready() {
            if !core::mem::take(&mut self.rewrite) {
                return Ok(None);
            }
            self.keeping = Some(Keeping { ready: None, after: After::default() });
            let persist = Persist::Replace(self.raw.store().write_all()?);
            return Ok(Some(Ready { messages: Vec::new(), persist }));
        }
        let mut ready = self.raw.ready();
        let messages = self.envelopes(ready.take_messages())?;
        let mut after = After {
            messages: self.envelopes(ready.take_persisted_messages())?,
            ..After::default()
        };
        let mut replace = core::mem::take(&mut self.rewrite);
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            let index = snapshot.get_metadata().index;
            let state = serde_json::from_slice(&snapshot.data);
            self.state = state.map_err(|_| Halted::NotUnderstood { index })?;
            self.applied = index;
            self.fresh_bytes = 0;
            self.raw.mut_store().restart_at(snapshot);
            after.restored = true;
            replace = true;
        }
        let entries = ready.take_entries();
        let hard = ready.hs().cloned();
        let store = self.raw.mut_store();
        store.append(&entries);
        if let Some(hard) = &hard {
            store.hard = hard.clone();
        }
        let persist = if replace {
            Persist::Replace(store.write_all()?)
        } else if ready.must_sync() && (hard.is_some() || !entries.is_empty()) {
            Persist::Append(write_frame(&entries, hard.as_ref())?)
        } else {
            // A commit position alone may be forgotten: it is found again.
            Persist::Nothing
        };
        self.perform_all(&ready.take_committed_entries(), &mut after)?;
        self.keeping = Some(Keeping { ready: Some(ready), after });
        Ok(Some(Ready { messages, persist }))
    }

    fn finish(&mut self, ready: raft::Ready, after: &mut After) -> Result<(), Halted> {
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().hard.commit = commit;
        }
        after.messages.extend(self.envelopes(light.take_messages())?);
        self.perform_all(&light.take_committed_entries(), after)?;
        self.raw.advance_apply();
        self.compact()
    }

    fn perform_all(&mut self, entries: &[Entry], after: &mut After) -> Result<(), Halted> {
        for entry in entries {
            after.committed.extend(self.perform(entry)?);
        }
        Ok(())
    }

    /// Applies the next entry that was agreed on.
    fn perform(&mut self, entry: &Entry) -> Result<Option<Committed>, Halted> {
        let index = entry.index;
        self.applied = index;
        self.fresh_bytes += entry.data.len();
        let not_understood = Halted::NotUnderstood { index };
        if entry.get_entry_type() != EntryType::EntryNormal {
            let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(|_| not_understood)?;
            // One that does not fit any more is refused by every member alike.
            let _ = self.raw.apply_conf_change(&change);
            // A new member takes only a snapshot that knows of it.
            self.outdated = true;
            return Ok(None);
        }
        if entry.data.is_empty() {
            // A new leader's first, or a change of votes that came while another was pending.
            return Ok(None);
        }
        let proposed: Proposed<Proposal> =
            serde_json::from_slice(&entry.data).map_err(|_| not_understood)?;
        let applied = match &proposed.what {
            Proposal::Command(command) => self.state.catalog.apply(command),
            Proposal::Group(change) => {
                let outcome = self.state.group.apply(change);
                Applied { outcome, asks: Vec::new(), changed: Vec::new() }
            }
        };
        let Proposed { by, number, what: proposal } = proposed;
        Ok(Some(Committed { index, by, number, proposal, applied }))
    }

    /// Replaces the log by a snapshot when it has grown enough, or the snapshot must be newer.
    fn compact(&mut self) -> Result<(), Halted> {
        let since = self.applied - self.raw.store().snapshot.get_metadata().index;
        let grown = since >= ENTRIES_MAX || self.fresh_bytes >= ENTRY_BYTES_MAX;
        if !grown && !self.outdated {
            return Ok(());
        }
        let data = serde_json::to_vec(&self.state).map_err(|_| Halted::NotWritable)?;
        let term = raft::Storage::term(self.raw.store(), self.applied);
        let term = term.map_err(|_| Halted::NotWritable)?;
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let snapshot = snapshot_of(self.applied, term, conf, data);
        self.raw.mut_store().compact(snapshot, ENTRIES_KEPT);
        self.fresh_bytes = 0;
        self.outdated = false;
        self.rewrite = true;
        Ok(())
    }

    fn envelopes(&mut self, mut messages: Vec<Message>) -> Result<Vec<Envelope>, Halted> {
        // The library goes through a hash map; whoever replays a run needs one order.
        messages.sort_by_key(|message| message.to);
        let group = self.group_number();
        let mut envelopes = Vec::with_capacity(messages.len());
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots.insert(message.to, 0);
            }
            let bytes = write_message(group, &message)?;
            envelopes.push(Envelope { to: MemberId(message.to), bytes });
        }
        Ok(envelopes)
    }

    /// Sends snapshots again that nobody answered; the library would wait for ever.
    fn watch_snapshots(&mut self) {
        let mut lost = Vec::new();
        let progress = self.raw.raft.prs();
        self.snapshots.retain(|id, ticks| {
            *ticks += 1;
            let waits = progress.get(*id).is_some_and(|p| p.state == ProgressState::Snapshot);
            if waits && *ticks == SNAPSHOT_TICKS {
                lost.push(*id);
            }
            waits && *ticks < SNAPSHOT_TICKS
        });
        for id in lost {
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// The leader's part: the next change of votes, when there is one to make.
    fn lead(&mut self) {
        let raft = &self.raw.raft;
        if raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return;
        }
        let conf = raft.prs().conf().to_conf_state();
        let mut change = ConfChangeV2::default();
        if conf.get_voters_outgoing().is_empty() {
            let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id)).collect();
            let caught_up = |id: MemberId| {
                let close = raft.prs().get(id.0).is_some_and(|progress| {
                    progress.recent_active
                        && progress.matched + CLOSE_ENTRIES >= raft.raft_log.committed
                });
                id.0 == raft.id || close
            };
            let (voting, learning) = (ids(conf.get_voters()), ids(conf.get_learners()));
            let me = MemberId(raft.id);
            match self.state.group.next_step(&voting, &learning, me, caught_up) {
                None => return,
                Some(Step::HandOver(heir)) => return self.raw.transfer_leader(heir.0),
                Some(Step::Change(moves)) => {
                    let singles: Vec<ConfChangeSingle> = moves.into_iter().map(single).collect();
                    change.set_changes(singles.into());
                }
            }
        }
        // An empty change ends one that is half done. What is refused now is tried again at the next tick.
        let _ = self.raw.propose_conf_change(Vec::new(), change);
    }

    /// Whether a message can be given to the library, which takes for granted that peers make no mistakes.
    fn check(&self, message: &Message) -> Result<(), NotTaken> {
        let raft = &self.raw.raft;
        if message.to != raft.id {
            return Err(NotTaken::OtherMember);
        }
        let kind = message.get_msg_type();
        // The library counts on from what it is told; no log comes near this.
        let entries = message.entries.iter().flat_map(|entry| [entry.index, entry.term]);
        let meta = message.get_snapshot().get_metadata();
        let told = [
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.commit_term,
            message.request_snapshot,
            message.reject_hint,
            meta.index,
            meta.term,
        ];
        if told.into_iter().chain(entries).any(|number| number > COUNTED_MAX) {
            return Err(NotTaken::Malformed);
        }
        let proposes = kind == MessageType::MsgPropose;
        let known_sender = message.from != 0 && message.from != raft.id;
        if !known_sender || proposes != (message.term == 0) {
            return Err(NotTaken::Malformed);
        }
        let fine = match kind {
            MessageType::MsgPropose => {
                let fine = |entry: &Entry| {
                    entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty()
                };
                !message.entries.is_empty() && message.entries.iter().all(fine)
            }
            MessageType::MsgAppend => (message.index + 1..)
                .zip(&message.entries)
                .all(|(index, entry)| entry.index == index && entry.term <= message.term),
            MessageType::MsgHeartbeat if message.commit > raft.raft_log.last_index() => {
                return Err(NotTaken::Forgotten);
            }
            // Nobody holds more than the leader sent.
            MessageType::MsgAppendResponse if !message.reject => {
                message.index <= raft.raft_log.last_index() || message.term != raft.term
            }
            MessageType::MsgSnapshot => {
                let snapshot = message.get_snapshot();
                let conf = snapshot.get_metadata().get_conf_state();
                let voters: BTreeSet<&u64> =
                    conf.get_voters().iter().chain(conf.get_voters_outgoing()).collect();
                let apart = conf.get_learners().iter().all(|id| !voters.contains(id));
                snapshot.get_metadata().index > 0
                    && !conf.get_voters().is_empty()
                    && apart
                    && serde_json::from_slice::<State>(&snapshot.data).is_ok()
            }
            _ => true,
        };
        if fine { Ok(()) } else { Err(NotTaken::Malformed) }
    }

    fn halt<T>(&mut self, result: Result<T, Halted>) -> Result<T, Halted> {
        if let Err(halted) = &result {
            self.halted = Some(*halted);
        }
        result
    }

    fn is_busy(&self) -> bool {
        self.keeping.is_some() || self.halted.is_some()
    }
}

impl ConfigLog for Consensus {
    fn tick(&mut self) {
        if self.is_busy() {
            return;
        }
        self.raw.tick();
        if self.leads() {
            self.watch_snapshots();
            self.lead();
        } else {
            self.snapshots.clear();
        }
    }

    fn step(&mut self, message: &[u8]) -> Result<(), NotTaken> {
        if self.is_busy() {
            return Err(NotTaken::Busy);
        }
        let (group, message) = read_message(message)?;
        if group != self.group_number() {
            return Err(NotTaken::OtherGroup);
        }
        self.check(&message)?;
        // Answers to questions of a past leadership and proposals that come to no leader are as good as lost.
        let _ = self.raw.step(message);
        Ok(())
    }

    fn propose(&mut self, number: u64, proposal: &Proposal) -> Result<(), NotProposed> {
        if self.is_busy() {
            return Err(NotProposed::NotNow);
        }
        let proposed = Proposed { by: self.me(), number, what: proposal };
        let data = serde_json::to_vec(&proposed).map_err(|_| NotProposed::TooLarge)?;
        if data.len() > PROPOSAL_BYTES_MAX {
            return Err(NotProposed::TooLarge);
        }
        self.raw.propose(Vec::new(), data).map_err(|_| NotProposed::NotNow)
    }

    fn ready(&mut self) -> Result<Option<Ready>, Halted> {
        if let Some(halted) = self.halted {
            return Err(halted);
        }
        if self.keeping.is_some() {
            return Ok(None);
        }
        let ready = self.next_ready();
        self.halt(ready)
    }

    fn persisted(&mut self) -> Result<After, Halted> {
        let Some(Keeping { ready, mut after }) = self.keeping.take() else {
            return Ok(After::default());
        };
        if let Some(ready) = ready {
            let finished = self.finish(ready, &mut after);
            self.halt(finished)?;
        }
        Ok(after)
    }

    fn unreachable(&mut self, member: MemberId) {
        if self.is_busy() || !self.leads() {
            return;
        }
        self.raw.report_unreachable(member.0);
        if self.snapshots.remove(&member.0).is_some() {
            self.raw.report_snapshot(member.0, SnapshotStatus::Failure);
        }
    }

    fn catalog(&self) -> &Catalog {
        &self.state.catalog
    }

    fn group(&self) -> &Group {
        &self.state.group
    }

    fn leader(&self) -> Option<MemberId> {
        let id = self.raw.raft.leader_id;
        (id != 0).then_some(MemberId(id))
    }
}

fn single((id, part): (MemberId, Part)) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_node_id(id.0);
    single.set_change_type(match part {
        Part::Votes => ConfChangeType::AddNode,
        Part::Learns => ConfChangeType::AddLearnerNode,
        Part::Nothing => ConfChangeType::RemoveNode,
    });
    single
}

fn snapshot_of(index: u64, term: u64, conf: ConfState, data: Vec<u8>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.set_conf_state(conf);
    snapshot.set_data(data.into());
    snapshot
}

/// The log of a group whose only member begins with a state that it knows already.
fn first_of(group: u64, me: u64, state: &State, index: u64, term: u64) -> Result<Kept, Unreadable> {
    let data = serde_json::to_vec(state).map_err(|_| Unreadable::Refused)?;
    let mut conf = ConfState::default();
    conf.set_voters(alloc::vec![me]);
    let mut hard = HardState::default();
    (hard.term, hard.commit) = (term, index);
    Ok(Kept::begin(group, me, hard, snapshot_of(index, term, conf, data)))
}

#[cfg(test)]
#[path = "consensus_tests.rs"]
mod tests;
