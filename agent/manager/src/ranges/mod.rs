//! Who holds which range, in a manager: what it knows of the processes of its own nodes, what the catalogue of the ranges
//! says, and what its nodes are told of that.
//!
//! Everything here is level-triggered: facts are put down ("this process runs", "that one is gone"), and the keeper makes
//! commands of them for as long as the catalogue does not show them. So nothing is lost when there is nobody to agree with
//! for a while, and saying a fact twice does nothing. Only the asks of copies are events; copies repeat them themselves.
//!
//! The lock is held for moments, never across waiting.

mod disk;
mod follow;
mod keeper;
mod orders;
mod view;

pub(crate) use follow::{boot_of, follow};
pub(crate) use keeper::Keeper;
pub(crate) use view::view;

use dkv_catalog::{Catalog, Command, Outcome, Store};
use dkv_protocol::ids::{BootId, NodeIndex, RangeId, StoreId};
use dkv_protocol::limits::RANGES;
use dkv_protocol::map::NodeInfo;
use dkv_protocol::ranges::{ConfigAsk, RangeNews};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
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

#[derive(Debug)]
struct Request {
    command: Command,
    reply: oneshot::Sender<Outcome>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    kept: BTreeMap<StoreId, Kept>,
    /// Stores that were deleted here and are in the catalogue still.
    forgotten: Vec<StoreId>,
    requests: Vec<Request>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    state: Mutex<State>,
    wake: Notify,
}

/// Why a request of an operator was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// Too many wait already.
    Busy,
    /// The manager ends, or its catalogue cannot be written.
    Gone,
}

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
        state.tell(&store);
        drop(state);
        self.wake.notify_one();
    }

    /// The store was deleted.
    pub(crate) fn forget(&self, store: &StoreId) {
        let mut state = self.lock();
        if state.kept.remove(store).is_some() {
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

    /// Has a command decided, and says what became of it.
    pub(crate) async fn request(&self, command: Command) -> Result<Outcome, Undecided> {
        let (reply, outcome) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.requests.len() >= REQUESTS_WAITING_MAX {
                return Err(Undecided::Busy);
            }
            state.requests.push(Request { command, reply });
        }
        self.wake.notify_one();
        outcome.await.map_err(|_| Undecided::Gone)
    }

    /// What the nodes of a store are told, from now on; none for a store that is not kept.
    pub(crate) fn told(&self, store: &StoreId) -> Option<watch::Receiver<Arc<Told>>> {
        self.lock().kept.get(store).map(|kept| kept.told.subscribe())
    }

    /// Looks at a store as the catalogue has it.
    pub(crate) fn look<T>(&self, store: &StoreId, look: impl FnOnce(&Store) -> T) -> Option<T> {
        self.lock().catalog.store(store).map(look)
    }

    /// Whether some range has its only copy that counts on this node: its end would lose it.
    pub(crate) fn is_last_copy(&self, key: &NodeKey) -> bool {
        let of_node = |store: &Store| {
            let mut held = store.held_by(key.node);
            held.any(|range| {
                store.range(range).config.as_ref().is_some_and(|config| config.in_sync.len() == 1)
            })
        };
        self.look(&key.store, of_node).unwrap_or(false)
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
    /// Has those who follow the nodes of a store see what the catalogue says now.
    fn tell(&mut self, store: &StoreId) {
        let Some(kept) = self.kept.get(store) else { return };
        let news = |store: &Store| store.each_range().map(|(id, range)| range.news(id)).collect();
        let news: Vec<RangeNews> = self.catalog.store(store).map(news).unwrap_or_default();
        let before = Arc::clone(&kept.told.borrow());
        kept.told.send_replace(Arc::new(Told { news, ..(*before).clone() }));
    }

    /// Notes that asks were decided, so that those who follow answer them.
    fn answer(&mut self, store: &StoreId, asks: &[ConfigAsk]) {
        let Some(kept) = self.kept.get(store) else { return };
        let mut told = (**kept.told.borrow()).clone();
        for ask in asks {
            let counts =
                told.answered.entry(ask.caller.addr.node).or_insert_with(|| vec![0; RANGES]);
            let RangeId(range) = ask.range;
            counts[usize::from(range)] = counts[usize::from(range)].wrapping_add(1);
        }
        kept.told.send_replace(Arc::new(told));
    }
}
