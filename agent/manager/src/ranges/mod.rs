//! Who holds which range, in a manager: what it knows of the processes of its own nodes, what the managers agreed on about
//! the ranges, and what its nodes are told of that.
//!
//! Everything here is level-triggered: facts are put down ("this process runs", "that one is gone"), and the keeper makes
//! commands of them for as long as the catalogue does not show them. So nothing is lost when there is nobody to agree with
//! for a while, and saying a fact twice does nothing. Only the asks of copies are events; copies repeat them themselves.
//!
//! The lock is held for moments, and by the keeper while it writes its log: never across waiting for anybody else.

mod disk;
mod ending;
mod follow;
mod joining;
mod keeper;
mod orders;
mod peers;
mod users;
mod view;

pub(crate) use follow::{Followed, boot_of, follow};
pub(crate) use joining::seek;
pub(crate) use keeper::Keeper;
pub(crate) use peers::{Peers, decode as decode_messages, encode as encode_messages};
pub(crate) use view::{up, view};

use dkv_catalog::{
    Catalog, Command, ConfigLog, Consensus, MemberId, NotTaken, Outcome, Proposal, Store,
};
use dkv_protocol::admin::{GroupMember, GroupView};
use dkv_protocol::ids::{BootId, NodeIndex, RangeId, StoreId};
use dkv_protocol::limits::RANGES;
use dkv_protocol::map::NodeInfo;
use dkv_protocol::ranges::{ConfigAsk, RangeNews};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

/// Asks of one store that may wait for the keeper. More are dropped: their copies ask again.
const ASKS_WAITING_MAX: usize = 16 * RANGES;
/// Requests of operators that may wait.
const REQUESTS_WAITING_MAX: usize = 64;

/// A node of a store with copies, for those who speak of it here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeKey {
    pub(crate) store: StoreId,
    pub(crate) node: NodeIndex,
}

/// What this manager knows of the process of one of its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    /// There is none, certainly.
    Gone,
    /// This one serves.
    Up(BootId),
    /// This one serves, and the catalogue takes it for dead. It has to be started again.
    Fenced(BootId),
}

/// What the nodes of a store are told. Complete each time; who follows sends what is new to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) removed: Vec<NodeIndex>,
    /// Of every range, in order; empty while the catalogue does not have the store.
    pub(crate) news: Vec<RangeNews>,
    /// For each node and range, how many of its asks were decided.
    pub(crate) answered: BTreeMap<NodeIndex, Vec<u32>>,
}

/// One store with copies that covers this machine.
#[derive(Debug)]
struct Kept {
    /// What makes the catalogue know it.
    define: Command,
    /// This machine's nodes.
    facts: BTreeMap<NodeIndex, Fact>,
    asks: Vec<ConfigAsk>,
    told: watch::Sender<Arc<Told>>,
}

/// What an operator, or a machine that joins, waits for.
#[derive(Debug)]
struct Request {
    proposal: Proposal,
    reply: oneshot::Sender<Outcome>,
    begun: Instant,
    /// The numbers under which it was proposed, and when last.
    numbers: Vec<u64>,
    proposed: Option<Instant>,
}

/// This manager's part in the group.
enum Part {
    /// None: it has no log, or lost it, and has to be taken in by the others. Holds what is known then, nothing.
    Outside(Catalog),
    /// It has the log.
    Member(Box<Consensus>),
}

struct State {
    part: Part,
    /// Machines of members that the log does not name: not yet, because it is empty, or not any more, because they left and
    /// their votes have to be taken over first.
    introduced: BTreeMap<MemberId, String>,
    /// Processes that somebody here is about to end, and how many are.
    ending: BTreeMap<NodeKey, u32>,
    /// Processes that certainly end, until that is agreed on.
    ended: BTreeSet<(NodeKey, BootId)>,
    /// Where the log of the group was when it took this manager in; 0 when that is not known (any more). Who is not as far
    /// does not know this manager yet, which is not the same as having removed it.
    taken_in_at: u64,
    /// Groups that an operator declared dead: what is left of them has to join this one.
    superseded: Vec<u64>,
    /// Machines that speak of another group, or to a member that this manager is not.
    strangers: BTreeSet<String>,
    /// Whether this manager was sent away: then it does not follow those who have not heard of that yet.
    left: bool,
    /// Members whose connection broke.
    unreachable: Vec<MemberId>,
    kept: BTreeMap<StoreId, Kept>,
    /// Stores that were deleted here and are in the catalogue still.
    forgotten: Vec<StoreId>,
    requests: Vec<Request>,
    /// What was proposed of facts, and when: it is proposed again when it is not agreed on for long.
    proposed: Vec<(Command, Instant)>,
    /// A log that shall take the place of the one there is.
    replacement: Option<Replacement>,
    /// For those who tell the nodes.
    users: watch::Sender<users::UsersOf>,
}

/// Another log for this manager.
struct Replacement {
    by: NewLog,
    done: oneshot::Sender<Result<(), String>>,
}

/// Where it comes from.
enum NewLog {
    /// This manager was taken in by a group. Its members are named, because the log is empty at first.
    Joined { group: u64, me: MemberId, introduced: BTreeMap<MemberId, String>, taken_in_at: u64 },
    /// It is on its own, and knows of no store.
    Alone,
    /// It goes on alone with all it knows, because those that decided are gone.
    Forced,
}

/// See the module.
pub(crate) struct Ranges {
    /// This machine, by its manager's address.
    machine: String,
    state: Mutex<State>,
    wake: Notify,
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranges").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Why a request of an operator was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// Too many wait already.
    Busy,
    /// The managers did not agree in time: too few of those that vote reach each other, or the disk is full. It may still
    /// be done.
    Late,
}

/// Most time for the managers to agree on a request.
const DECIDE_MAX: Duration = Duration::from_secs(8);

impl Ranges {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// From now on this machine takes part in a store with copies, or its nodes have changed.
    pub(crate) fn keep(&self, define: Command, nodes: Vec<NodeInfo>, removed: Vec<NodeIndex>) {
        let Command::DefineStore { store, .. } = &define else { return };
        let store = store.clone();
        let mut state = self.lock();
        let kept = state.kept.entry(store.clone()).or_insert_with(|| Kept {
            define: define.clone(),
            facts: BTreeMap::new(),
            asks: Vec::new(),
            told: watch::Sender::new(Arc::default()),
        });
        kept.define = define;
        let before = Arc::clone(&kept.told.borrow());
        kept.told.send_replace(Arc::new(Told { nodes, removed, ..(*before).clone() }));
        state.tell(&store, &[]);
        drop(state);
        self.wake.notify_one();
    }

    /// The store was deleted.
    pub(crate) fn forget(&self, store: &StoreId) {
        let mut state = self.lock();
        if state.kept.remove(store).is_some() || state.catalog().users().contains_key(store) {
            state.forgotten.push(store.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A process of one of this machine's nodes serves.
    pub(crate) fn up(&self, key: &NodeKey, boot: BootId) {
        self.set_fact(key, |before| match before {
            Some(Fact::Fenced(same)) if same == boot => Fact::Fenced(boot),
            _ => Fact::Up(boot),
        });
    }

    /// A node has no process, certainly: it was seen to exit, or nobody holds its lock.
    pub(crate) fn gone(&self, key: &NodeKey) {
        self.set_fact(key, |_| Fact::Gone);
    }

    fn set_fact(&self, key: &NodeKey, fact: impl FnOnce(Option<Fact>) -> Fact) {
        let mut state = self.lock();
        let Some(kept) = state.kept.get_mut(&key.store) else { return };
        let fact = fact(kept.facts.get(&key.node).copied());
        kept.facts.insert(key.node, fact);
        drop(state);
        self.wake.notify_one();
    }

    /// What copies on a node want changed.
    pub(crate) fn asks(&self, key: &NodeKey, asks: Vec<ConfigAsk>) {
        let mut state = self.lock();
        let Some(kept) = state.kept.get_mut(&key.store) else { return };
        for ask in asks {
            let own = ask.caller.addr.node == key.node;
            // One that waits is not doubled by its repetition.
            if own && kept.asks.len() < ASKS_WAITING_MAX && !kept.asks.contains(&ask) {
                kept.asks.push(ask);
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Has something decided, and says what became of it.
    pub(crate) async fn request(&self, proposal: Proposal) -> Result<Outcome, Undecided> {
        let (reply, outcome) = oneshot::channel();
        {
            let mut state = self.lock();
            state.requests.retain(|request| request.begun.elapsed() < DECIDE_MAX);
            if state.requests.len() >= REQUESTS_WAITING_MAX {
                return Err(Undecided::Busy);
            }
            let begun = Instant::now();
            let (numbers, proposed) = (Vec::new(), None);
            state.requests.push(Request { proposal, reply, begun, numbers, proposed });
        }
        self.wake.notify_one();
        let decided = tokio::time::timeout(DECIDE_MAX, outcome).await;
        decided.ok().and_then(Result::ok).ok_or(Undecided::Late)
    }

    /// Messages of the member on that machine. The worst that was said to any of them.
    pub(crate) fn messages(&self, from: &str, messages: &[Vec<u8>]) -> Option<NotTaken> {
        let mut state = self.lock();
        let mut worst = None;
        for message in messages {
            let refused = match &mut state.part {
                Part::Outside(_) => Some(NotTaken::OtherMember),
                Part::Member(log) => log.step(message).err(),
            };
            match refused {
                Some(NotTaken::OtherGroup | NotTaken::OtherMember) => {
                    if !state.left {
                        state.strangers.insert(from.to_string());
                    }
                    worst = refused;
                }
                Some(NotTaken::Forgotten) => {
                    tracing::error!(
                        "the disk forgot what this manager had acknowledged; it joins anew"
                    );
                    state.part = Part::Outside(Catalog::default());
                    state.strangers.insert(from.to_string());
                    worst = refused;
                }
                // As good as lost on the way, which is allowed.
                Some(NotTaken::Busy) | None => {}
                Some(NotTaken::Malformed) => worst = worst.or(refused),
            }
        }
        drop(state);
        self.wake.notify_one();
        worst
    }

    /// A machine speaks of another group than this manager does, or of a store that this one knows nothing of.
    pub(crate) fn stranger(&self, machine: &str) {
        let mut state = self.lock();
        if !state.left {
            state.strangers.insert(machine.to_string());
        }
    }

    /// Whether it was sent away and nobody has asked for it since.
    fn set_left(&self, left: bool) {
        let mut state = self.lock();
        state.left = left;
        if left {
            state.strangers.clear();
        }
    }

    /// Machines that speak of another group, or to a member that this manager is not.
    pub(crate) fn strangers(&self) -> Vec<String> {
        self.lock().strangers.iter().cloned().collect()
    }

    /// Where the log of the group was when it took this manager in.
    fn taken_in_at(&self) -> u64 {
        self.lock().taken_in_at
    }

    fn forget_strangers(&self) {
        self.lock().strangers.clear();
    }

    /// Messages to a member may have been lost.
    fn unreachable(&self, member: MemberId) {
        let mut state = self.lock();
        if !state.unreachable.contains(&member) {
            state.unreachable.push(member);
        }
    }

    /// Takes another log. The error is in words.
    async fn replace(&self, by: NewLog) -> Result<(), String> {
        let (done, kept) = oneshot::channel();
        self.lock().replacement = Some(Replacement { by, done });
        self.wake.notify_one();
        kept.await.unwrap_or_else(|_| Err("the manager ends".to_string()))
    }

    /// Whether a process serves that the managers take for dead: it has to be started again.
    pub(crate) fn is_fenced(&self, key: &NodeKey) -> bool {
        let state = self.lock();
        let fact = state.kept.get(&key.store).and_then(|kept| kept.facts.get(&key.node));
        matches!(fact, Some(Fact::Fenced(_)))
    }

    /// What this manager takes part in, as it knows it.
    pub(crate) fn group(&self) -> GroupView {
        let state = self.lock();
        let superseded = state.superseded.clone();
        let Part::Member(log) = &state.part else {
            return GroupView { superseded, ..GroupView::default() };
        };
        let voting = log.voting();
        let machine_of = |id| log.group().member(id).map(|member| member.machine.0.clone());
        let members = log.group().members().iter().map(|member| GroupMember {
            machine: member.machine.0.clone(),
            id: member.id.0,
            votes: voting.contains(&member.id),
        });
        GroupView {
            number: Some(log.group_number()),
            id: Some(log.me().0),
            leader: log.leader().and_then(machine_of),
            members: members.collect(),
            settled: log.is_settled(),
            applied: log.applied(),
            stores: log.catalog().stores_known() as u32,
            superseded,
        }
    }

    /// What the nodes of a store are told, from now on; none for a store that is not kept.
    pub(crate) fn told(&self, store: &StoreId) -> Option<watch::Receiver<Arc<Told>>> {
        self.lock().kept.get(store).map(|kept| kept.told.subscribe())
    }

    /// Looks at a store as the catalogue has it.
    pub(crate) fn look<T>(&self, store: &StoreId, look: impl FnOnce(&Store) -> T) -> Option<T> {
        self.lock().catalog().store(store).map(look)
    }

    /// Waits until the catalogue does not take this node for running any more.
    pub(crate) async fn until_gone(&self, key: &NodeKey) {
        let Some(mut told) = self.told(&key.store) else { return };
        loop {
            let boot = |store: &Store| store.nodes.get(&key.node).and_then(|node| node.boot);
            if self.look(&key.store, boot).flatten().is_none() || told.changed().await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn new(part: Part, superseded: Vec<u64>) -> Self {
        Self {
            part,
            introduced: BTreeMap::new(),
            ending: BTreeMap::new(),
            ended: BTreeSet::new(),
            taken_in_at: 0,
            superseded,
            strangers: BTreeSet::new(),
            left: false,
            unreachable: Vec::new(),
            kept: BTreeMap::new(),
            forgotten: Vec::new(),
            requests: Vec::new(),
            proposed: Vec::new(),
            replacement: None,
            users: watch::Sender::new(None),
        }
    }

    /// The ranges of all stores, as far as this manager knows.
    fn catalog(&self) -> &Catalog {
        match &self.part {
            Part::Outside(nothing) => nothing,
            Part::Member(log) => log.catalog(),
        }
    }

    /// The machine of a member.
    fn machine_of(&self, id: MemberId) -> Option<&str> {
        let Part::Member(log) = &self.part else { return None };
        let named = log.group().member(id).map(|member| member.machine.0.as_str());
        named.or_else(|| self.introduced.get(&id).map(String::as_str))
    }

    /// Keeps the machines of all members, so that those who leave can be spoken to until nobody needs them.
    fn note_machines(&mut self) {
        let Part::Member(log) = &self.part else { return };
        self.introduced.retain(|id, _| log.may_speak_to(*id));
        for member in log.group().members() {
            self.introduced.entry(member.id).or_insert_with(|| member.machine.0.clone());
        }
    }

    fn tell_all(&mut self) {
        self.show_users();
        let all: Vec<StoreId> = self.kept.keys().cloned().collect();
        for store in all {
            self.tell(&store, &[]);
        }
    }

    /// Has those who follow the nodes of a store see what the catalogue says now, and which asks were decided. At once: who
    /// sees that an ask was decided sees how.
    fn tell(&mut self, store: &StoreId, asks: &[ConfigAsk]) {
        let Some(kept) = self.kept.get(store) else { return };
        let news = |store: &Store| store.each_range().map(|(id, range)| range.news(id)).collect();
        let mut told = (**kept.told.borrow()).clone();
        told.news = self.catalog().store(store).map(news).unwrap_or_default();
        for ask in asks {
            let counts =
                told.answered.entry(ask.caller.addr.node).or_insert_with(|| vec![0; RANGES]);
            let RangeId(range) = ask.range;
            counts[usize::from(range)] = counts[usize::from(range)].wrapping_add(1);
        }
        kept.told.send_replace(Arc::new(told));
    }
}
