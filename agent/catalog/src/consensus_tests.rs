//! Groups of managers in memory: messages are lost, doubled, late and out of order, processes crash in the middle of a
//! write, disks are lost. All of it follows from a seed.

use super::*;
use crate::command::{Command, Machine};
use crate::group::GroupChange;
use dkv_protocol::ids::StoreId;
use dkv_protocol::ranges::Replication;
use raft::prelude::MessageType::{
    MsgAppend, MsgAppendResponse, MsgHeartbeat, MsgPropose, MsgRequestPreVote, MsgRequestVote,
    MsgSnapshot,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A manager: its process, if it runs, and its disk.
struct Host {
    machine: Machine,
    id: MemberId,
    process: Option<Consensus>,
    file: Vec<u8>,
}

/// All managers and what is under way between them.
struct World {
    random: u64,
    group: u64,
    hosts: Vec<Host>,
    queue: VecDeque<(MemberId, Envelope)>,
    /// Out of a hundred: how many messages are lost, and as many doubled.
    loss: u64,
    /// How many of the next snapshots are lost.
    snapshots_lost: u32,
    /// Members that nobody hears and who hear nobody.
    cut: BTreeSet<MemberId>,
    /// What was agreed on at each position, as the first member told it.
    agreed: BTreeMap<u64, (MemberId, u64, Proposal)>,
    next_number: u64,
    next_id: u64,
}

fn machine(host: usize) -> Machine {
    Machine(format!("10.0.0.{}", host + 1))
}

fn forget(number: u64) -> Proposal {
    Proposal::Command(Command::ForgetStore { store: StoreId(format!("{number:032x}")) })
}

fn define(number: u64) -> Proposal {
    let nodes = vec![crate::command::NodeSpec {
        node: dkv_protocol::ids::NodeIndex(0),
        shards: 1,
        machine: machine(0),
    }];
    let store = StoreId(format!("{number:032x}"));
    Proposal::Command(Command::DefineStore { store, replication: Replication::NONE, nodes })
}

impl World {
    /// A group founded by the first host, which the others have not joined yet.
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            group: 5,
            hosts: Vec::new(),
            queue: VecDeque::new(),
            loss: 0,
            snapshots_lost: 0,
            cut: BTreeSet::new(),
            agreed: BTreeMap::new(),
            next_number: 1,
            next_id: 0,
        };
        let id = world.fresh_id();
        let me = Member { id, machine: machine(0) };
        let process = Consensus::found(world.group, me, ELECTION_TICKS_MIN).ok();
        world.hosts.push(Host { machine: machine(0), id, process, file: Vec::new() });
        world.drive(0);
        world
    }

    /// A group in which all have joined and the votes are where they belong.
    fn of(hosts: usize, seed: u64) -> Self {
        let mut world = Self::new(seed);
        for host in 1..hosts {
            world.join(host);
        }
        let settled = |world: &mut World| world.is_settled();
        world.run_until("the votes settle", settled);
        world
    }

    fn fresh_id(&mut self) -> MemberId {
        self.next_id += 1;
        // Numbers are random; these do not follow the order of the hosts.
        MemberId(self.next_id * 7919 % 1009)
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// The manager of a host starts with an empty disk and is taken into the group.
    fn join(&mut self, host: usize) {
        let id = self.fresh_id();
        let process = Consensus::join(self.group, id, ELECTION_TICKS_MIN + 3 * host).ok();
        let new = Host { machine: machine(host), id, process, file: Vec::new() };
        if host == self.hosts.len() {
            self.hosts.push(new);
        } else {
            self.hosts[host] = new;
        }
        self.drive(host);
        let member = Member { id, machine: machine(host) };
        self.agree(&Proposal::Group(GroupChange::Join { member }));
    }

    fn process(&self, host: usize) -> &Consensus {
        self.hosts[host].process.as_ref().expect("it runs")
    }

    fn leader(&self) -> Option<usize> {
        let leads = |host: &Host| {
            !self.cut.contains(&host.id) && host.process.as_ref().is_some_and(Consensus::leads)
        };
        let mut leaders: Vec<usize> =
            (0..self.hosts.len()).filter(|host| leads(&self.hosts[*host])).collect();
        leaders.sort_by_key(|host| self.process(*host).raw.raft.term);
        leaders.pop()
    }

    fn is_settled(&self) -> bool {
        self.leader().is_some_and(|leader| {
            let leader = self.process(leader);
            // A new leader may not know yet what was agreed on before it.
            self.agreed.keys().all(|index| *index <= leader.applied()) && leader.is_settled()
        })
    }

    /// Does all that a process has to do. With `crash_in` it dies in the middle of that many writes from now.
    fn drive_until(&mut self, host: usize, mut crash_in: Option<u64>) {
        loop {
            let Some(process) = &mut self.hosts[host].process else { return };
            let Some(ready) = process.ready().expect("nothing unknown") else { return };
            let id = self.hosts[host].id;
            self.queue.extend(ready.messages.into_iter().map(|envelope| (id, envelope)));
            let dies = crash_in == Some(0) && ready.persist != Persist::Nothing;
            crash_in = crash_in.map(|writes| writes.saturating_sub(1));
            match ready.persist {
                Persist::Append(bytes) => {
                    let whole = bytes.len() as u64;
                    let len = if dies { self.random(whole) as usize } else { bytes.len() };
                    self.hosts[host].file.extend_from_slice(&bytes[..len]);
                }
                // Renamed or not: never in part.
                Persist::Replace(bytes) if !dies => self.hosts[host].file = bytes,
                Persist::Replace(_) | Persist::Nothing => {}
            }
            if dies {
                self.hosts[host].process = None;
                return;
            }
            let Some(process) = &mut self.hosts[host].process else { return };
            let after = process.persisted().expect("nothing unknown");
            self.queue.extend(after.messages.into_iter().map(|envelope| (id, envelope)));
            for committed in after.committed {
                let told = (committed.by, committed.number, committed.proposal);
                let known = self.agreed.entry(committed.index).or_insert_with(|| told.clone());
                assert_eq!(known, &told, "two truths at {}", committed.index);
            }
        }
    }

    fn drive(&mut self, host: usize) {
        self.drive_until(host, None);
    }

    fn crash(&mut self, host: usize) {
        self.hosts[host].process = None;
    }

    fn restart(&mut self, host: usize) {
        let file = &self.hosts[host].file;
        let (process, valid) =
            Consensus::recover(file, ELECTION_TICKS_MIN + 3 * host).expect("readable");
        self.hosts[host].file.truncate(valid);
        self.hosts[host].process = Some(process);
        self.drive(host);
    }

    /// A tick of every process, and up to a few messages each.
    fn turn(&mut self) {
        for host in 0..self.hosts.len() {
            if let Some(process) = &mut self.hosts[host].process {
                process.tick();
            }
            self.drive(host);
        }
        for _ in 0..self.queue.len() + 8 {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let lossy = self.loss > 0;
        let at = if lossy { self.random(self.queue.len().min(6) as u64) as usize } else { 0 };
        let Some((from, envelope)) = self.queue.remove(at) else { return };
        if lossy && self.random(100) < self.loss {
            self.queue.push_back((from, envelope.clone()));
        }
        let lost = lossy && self.random(100) < self.loss;
        if lost || self.cut.contains(&from) || self.cut.contains(&envelope.to) {
            return;
        }
        let message = read_message(&envelope.bytes).expect("written by a member").1;
        if message.get_msg_type() == MsgSnapshot && self.snapshots_lost > 0 {
            self.snapshots_lost -= 1;
            return;
        }
        if let Some(host) = self.hosts.iter().position(|host| host.id == envelope.to)
            && let Some(process) = &mut self.hosts[host].process
        {
            // What is not taken is lost.
            let _ = process.step(&envelope.bytes);
            self.drive(host);
        }
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) {
        for _ in 0..3000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}");
    }

    fn propose(&mut self, host: usize, proposal: &Proposal) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(process) = &mut self.hosts[host].process {
            // Refused is as good as lost here.
            let _ = process.propose(number, proposal);
            self.drive(host);
        }
        number
    }

    fn is_agreed(&self, number: u64) -> bool {
        self.agreed.values().any(|(_, known, _)| *known == number)
    }

    /// Proposes until it is agreed on.
    fn agree(&mut self, proposal: &Proposal) {
        for _ in 0..100 {
            let proposer = self.leader().unwrap_or(0);
            let number = self.propose(proposer, proposal);
            for _ in 0..40 {
                if self.is_agreed(number) {
                    return;
                }
                self.turn();
            }
        }
        panic!("never agreed: {proposal:?}");
    }

    /// Heals everything and sees that all copies become equal, and hold all that was ever agreed on.
    fn check_whole(&mut self) {
        self.loss = 0;
        self.cut.clear();
        for host in 0..self.hosts.len() {
            if self.hosts[host].process.is_none() {
                self.restart(host);
            }
        }
        self.agree(&forget(u64::MAX));
        let last = *self.agreed.keys().next_back().expect("something");
        self.run_until("all have applied all", |world| {
            (0..world.hosts.len()).all(|host| world.process(host).applied() >= last)
        });
        let mut catalog = Catalog::default();
        let mut group = Group::of(Member { id: MemberId(7919 % 1009), machine: machine(0) });
        for (_, _, proposal) in self.agreed.values() {
            match proposal {
                Proposal::Command(command) => {
                    catalog.apply(command);
                }
                Proposal::Group(change) => {
                    group.apply(change);
                }
            }
        }
        for host in 0..self.hosts.len() {
            assert!(*self.process(host).catalog() == catalog, "the catalogue of {host} differs");
            assert_eq!(*self.process(host).group(), group, "the group of {host} differs");
        }
    }
}

#[test]
fn one_manager_decides_at_once_and_remembers() {
    let mut world = World::new(1);
    assert!(world.process(0).leads());
    for number in 0..5 {
        let number = world.propose(0, &define(number));
        assert!(world.is_agreed(number), "without a tick or a message");
    }
    assert!(world.queue.is_empty());
    let before = world.process(0).catalog().clone();
    assert_eq!(before.stores().count(), 5);
    world.crash(0);
    world.restart(0);
    assert!(world.process(0).leads());
    assert_eq!(*world.process(0).catalog(), before);
    world.check_whole();
}

#[test]
fn the_votes_are_where_the_managers_are() {
    for (hosts, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        let mut world = World::of(hosts, hosts as u64);
        let leader = world.leader().expect("one");
        assert_eq!(world.process(leader).voting().len(), voters, "{hosts} managers");
        // Whoever proposes, it reaches the one that decides.
        let number = world.propose(hosts - 1, &define(9));
        world.run_until("it is agreed on", |world| world.is_agreed(number));
        world.check_whole();
    }
}

#[test]
fn a_group_goes_on_without_its_leader_and_takes_it_back() {
    for hosts in [3, 5] {
        let mut world = World::of(hosts, 3);
        world.agree(&define(1));
        let old = world.leader().expect("one");
        // It proposes more, which reaches nobody.
        let id = world.hosts[old].id;
        world.cut.insert(id);
        let lost = world.propose(old, &define(2));
        world.run_until("another leads", |world| world.leader().is_some());
        assert_ne!(world.leader(), Some(old));
        world.agree(&define(3));
        assert!(!world.is_agreed(lost));
        world.check_whole();
        assert!(!world.is_agreed(lost), "replaced by what the others agreed on");
    }
}

#[test]
fn without_a_majority_nothing_is_agreed_on() {
    let mut world = World::of(3, 4);
    world.crash(1);
    world.crash(2);
    let number = world.propose(0, &define(1));
    (0..100).for_each(|_| world.turn());
    assert!(!world.is_agreed(number));
    assert_eq!(world.leader(), None, "who hears from no majority does not lead");
    world.check_whole();
}

#[test]
fn nothing_agreed_on_is_lost_and_all_copies_are_equal() {
    for (hosts, seeds) in [(1, 3), (2, 5), (3, 15), (5, 8)] {
        for seed in 0..seeds {
            let mut world = World::of(hosts, 100 + seed);
            world.loss = 10;
            for step in 0..150 {
                let host = world.random(hosts as u64) as usize;
                match world.random(12) {
                    0 if world.hosts[host].process.is_some() => {
                        let writes = world.random(3);
                        let proposer = world.propose_torn(host, step, writes);
                        assert!(proposer > 0);
                    }
                    1 => world.crash(host),
                    2 | 3 if world.hosts[host].process.is_none() => world.restart(host),
                    4 => {
                        let id = world.hosts[host].id;
                        world.cut.insert(id);
                    }
                    5 => world.cut.clear(),
                    6 if hosts > 2 && step % 5 == 0 => world.replace_disk(host),
                    _ => {
                        world.propose(
                            host,
                            &if step % 10 == 0 { define(step) } else { forget(step) },
                        );
                    }
                }
                (0..world.random(8)).for_each(|_| world.turn());
            }
            world.check_whole();
            assert!(!world.agreed.is_empty());
        }
    }
}

impl World {
    /// A host comes back with an empty disk, once its group has a vote to spare.
    fn replace_disk(&mut self, host: usize) {
        self.cut.clear();
        for other in 0..self.hosts.len() {
            if self.hosts[other].process.is_none() {
                self.restart(other);
            }
        }
        self.run_until("the votes settle", |world| world.is_settled());
        self.crash(host);
        self.run_until("another leads", |world| world.leader().is_some());
        self.join(host);
    }

    /// Proposes and crashes in the middle of one of the writes that follow.
    fn propose_torn(&mut self, host: usize, step: u64, writes: u64) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(process) = &mut self.hosts[host].process {
            let _ = process.propose(number, &forget(step));
            process.tick();
        }
        self.drive_until(host, Some(writes));
        self.crash(host);
        number
    }
}

#[test]
fn one_that_was_away_for_long_gets_a_snapshot() {
    let mut world = World::of(3, 5);
    let away = (world.leader().expect("one") + 1) % 3;
    world.agree(&define(1));
    world.crash(away);
    for number in 0..ENTRIES_MAX + 100 {
        let leader = world.leader().expect("one");
        world.propose(leader, &forget(1_000_000 + number));
        world.turn();
    }
    world.restart(away);
    let before = world.process(away).applied();
    let leader = world.leader().expect("one");
    let first = raft::Storage::first_index(world.process(leader).raw.store()).expect("known");
    assert!(before + 1 < first, "the log of the others begins later: {before} {first}");
    // The first snapshots are lost on the way, and nobody tells the leader.
    world.snapshots_lost = 2;
    world.check_whole();
    assert_eq!(world.snapshots_lost, 0);
    let store = world.process(away).raw.store();
    assert!(store.snapshot.get_metadata().index > before);
    // What it was sent is on its disk.
    world.crash(away);
    world.restart(away);
    world.check_whole();
}

#[test]
fn who_lost_its_disk_is_told_and_joins_under_another_number() {
    let mut world = World::of(3, 6);
    world.agree(&define(1));
    let lost = (world.leader().expect("one") + 1) % 3;
    let (old_id, group) = (world.hosts[lost].id, world.group);
    // The same number on an empty disk: the leader's word shows that something is missing.
    world.hosts[lost].process = Consensus::join(group, old_id, ELECTION_TICKS_MIN).ok();
    world.drive(lost);
    let leader = world.leader().expect("one");
    let mut told = false;
    for _ in 0..20 {
        world.queue.clear();
        let leading = world.hosts[leader].process.as_mut().expect("it runs");
        leading.tick();
        world.drive(leader);
        for (_, envelope) in world.queue.clone() {
            if envelope.to == old_id {
                let process = world.hosts[lost].process.as_mut().expect("it runs");
                told |= process.step(&envelope.bytes) == Err(NotTaken::Forgotten);
            }
        }
    }
    assert!(told);
    world.queue.clear();
    world.join(lost);
    assert_ne!(world.hosts[lost].id, old_id);
    world.run_until("the votes settle", |world| world.is_settled());
    assert!(!world.process(leader).voting().contains(&old_id));
    assert_eq!(world.process(leader).voting().len(), 3);
    // The new one counts: another may fail.
    world.crash((lost + 1) % 3);
    world.agree(&define(2));
    world.check_whole();
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    for hosts in [2, 3, 4] {
        let mut world = World::of(hosts, 7);
        world.agree(&define(1));
        let leader = world.leader().expect("one");
        let gone = world.hosts[leader].machine.clone();
        world.agree(&Proposal::Group(GroupChange::Leave { machine: gone }));
        world.run_until("another leads alone", |world| {
            world.is_settled() && world.leader() != Some(leader)
        });
        world.crash(leader);
        world.hosts.remove(leader);
        world.agree(&define(2));
        world.check_whole();
    }
}

#[test]
fn of_two_the_preferred_decides_and_preference_moves() {
    let mut world = World::of(2, 8);
    assert_eq!(world.leader(), Some(0));
    world.crash(1);
    world.agree(&define(1));
    world.restart(1);
    world.agree(&Proposal::Group(GroupChange::Prefer { machine: machine(1) }));
    world.run_until("the other decides", |world| world.is_settled() && world.leader() == Some(1));
    world.crash(0);
    world.agree(&define(2));
    world.check_whole();
}

#[test]
fn by_force_a_learner_founds_a_group_that_the_old_one_cannot_reach() {
    let mut world = World::of(2, 9);
    world.agree(&define(1));
    (0..20).for_each(|_| world.turn());
    let known = world.process(1).catalog().clone();
    assert_eq!(known.stores().count(), 1);
    world.crash(1);
    let file = Consensus::found_by_force(&world.hosts[1].file, 6).expect("readable");
    let (forced, valid) = Consensus::recover(&file, ELECTION_TICKS_MIN).expect("readable");
    assert_eq!((valid, forced.group_number()), (file.len(), 6));
    world.hosts[1].file = file;
    world.hosts[1].process = Some(forced);
    world.drive(1);
    let forced = world.process(1);
    assert!(forced.leads());
    assert_eq!(*forced.catalog(), known);
    assert_eq!(forced.group().members().len(), 1);
    // The old leader is back and knows nothing of it.
    world.hosts[0].process.as_mut().expect("it runs").tick();
    world.hosts[0].process.as_mut().expect("it runs").tick();
    world.drive(0);
    let forced_id = world.hosts[1].id;
    let heard: Vec<Result<(), NotTaken>> = world
        .queue
        .clone()
        .into_iter()
        .filter(|(_, envelope)| envelope.to == forced_id)
        .map(|(_, envelope)| {
            let process = world.hosts[1].process.as_mut().expect("it runs");
            process.step(&envelope.bytes)
        })
        .collect();
    assert!(!heard.is_empty());
    assert!(heard.iter().all(|heard| *heard == Err(NotTaken::OtherGroup)), "{heard:?}");
    // It joins anew, and both are one group again.
    world.queue.clear();
    world.group = 6;
    world.agreed.clear();
    world.hosts.swap(0, 1);
    world.join(1);
    world.agree(&define(2));
    world.run_until("both know both stores", |world| {
        (0..2).all(|host| world.process(host).catalog().stores().count() == 2)
    });
    assert_eq!(world.process(0).catalog(), world.process(1).catalog());
}

#[test]
fn what_peers_should_not_send_is_refused() {
    let mut world = World::of(3, 10);
    let leader = world.leader().expect("one");
    let other = (leader + 1) % 3;
    let (from, to) = (world.hosts[leader].id.0, world.hosts[other].id.0);
    let message = |kind, term, change: &dyn Fn(&mut Message)| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (from, to, term);
        change(&mut message);
        message
    };
    let term = world.process(leader).raw.raft.term;
    let entry = |index: u64, kind| {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (index, 1);
        entry.set_entry_type(kind);
        entry
    };
    let conf = entry(0, EntryType::EntryConfChangeV2);
    let malformed = Err(NotTaken::Malformed);
    for (group, message, expect) in [
        (5, message(MsgHeartbeat, term, &|_| ()), Ok(())),
        (4, message(MsgHeartbeat, term, &|_| ()), Err(NotTaken::OtherGroup)),
        (5, message(MsgHeartbeat, term, &|m| m.to += 1), Err(NotTaken::OtherMember)),
        (5, message(MsgHeartbeat, term, &|m| m.from = 0), malformed),
        (5, message(MsgHeartbeat, term, &|m| m.from = to), malformed),
        (5, message(MsgHeartbeat, 0, &|_| ()), malformed),
        (5, message(MsgHeartbeat, term, &|m| m.commit = 1 << 40), Err(NotTaken::Forgotten)),
        (5, message(MsgRequestVote, 0, &|_| ()), malformed),
        (5, message(MsgPropose, 0, &|_| ()), malformed),
        (5, message(MsgPropose, 0, &|m| m.mut_entries().push(conf.clone())), malformed),
        (5, message(MsgAppend, term, &|m| m.mut_entries().push(conf.clone())), malformed),
        (5, message(MsgSnapshot, term, &|_| ()), malformed),
        // Numbers from which nobody can count on.
        (5, message(MsgAppend, term, &|m| m.index = u64::MAX), malformed),
        (5, message(MsgAppend, term, &|m| m.commit = u64::MAX), malformed),
        (5, message(MsgRequestVote, u64::MAX, &|_| ()), malformed),
        (5, message(MsgRequestPreVote, u64::MAX - 1, &|_| ()), malformed),
        (5, message(MsgAppendResponse, term, &|m| m.index = 1 << 40), malformed),
        (5, message(MsgAppendResponse, term, &|m| m.reject_hint = u64::MAX), malformed),
    ] {
        let bytes = write_message(group, &message).expect("writes");
        let process = world.hosts[other].process.as_mut().expect("it runs");
        assert_eq!(process.step(&bytes), expect, "{message:?}");
        world.drive(other);
    }
    world.check_whole();
}

#[test]
fn a_command_of_a_newer_version_stops_a_manager_that_does_not_know_it() {
    let mut world = World::new(11);
    let process = world.hosts[0].process.as_mut().expect("it runs");
    let data = br#"{"by":1,"number":1,"what":{"command":{"do":"fly"}}}"#;
    process.raw.propose(Vec::new(), data.to_vec()).expect("it leads");
    let mut halted = None;
    while halted.is_none() {
        let turn = process.ready().map(|ready| ready.is_some());
        halted = turn.and_then(|_| process.persisted()).err();
    }
    assert!(matches!(halted, Some(Halted::NotUnderstood { .. })));
    assert_eq!(process.ready().err(), halted);
    assert_eq!(process.propose(2, &define(1)), Err(NotProposed::NotNow));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::of(3, 12);
        world.loss = 20;
        (0..50).for_each(|number| {
            world.propose((number % 3) as usize, &forget(number));
            world.turn();
        });
        (world.hosts.iter().map(|host| host.file.clone()).collect::<Vec<_>>(), world.queue)
    };
    assert!(run() == run());
}

#[test]
fn a_member_whose_disk_was_lost_has_the_users_again() {
    let mut world = World::of(3, 11);
    let store = StoreId("5e".repeat(16));
    let line = Some("user ann on ~* +@all".to_string());
    let changes = vec![dkv_protocol::users::UserLine { name: "ann".into(), line }];
    let changes = dkv_protocol::users::UserChanges { given: Vec::new(), changes };
    world.agree(&Proposal::Command(Command::ChangeUsers { store: store.clone(), changes }));
    world.join(1);
    let has = |world: &mut World| {
        world.hosts.iter().all(|host| {
            let process = host.process.as_ref();
            process.is_some_and(|log| log.catalog().users().contains_key(&store))
        })
    };
    world.run_until("all have the users", has);
}
