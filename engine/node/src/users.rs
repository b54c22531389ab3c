//! The way of changes of the store's users from the shards to the manager that follows, and of the answers back.
//!
//! It is bounded in number and in time: what no manager has taken within [`ANSWER_MAX`] is given up, so that no client waits
//! for one that is away. What a manager has taken and did not answer may have been done, and is told apart.

use crate::follow::SEAT_PAUSE;
use crate::mail::{News, Post};
use crate::shared::Shared;
use crossbeam_queue::ArrayQueue;
use dkv_protocol::control::FromNode;
use dkv_protocol::users::{UserChanges, UsersAnswer};
use dkv_shard::UsersOutcome;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Changes of all shards that may be on their way to the control thread.
const WAITING_MAX: usize = 64;
/// Most time from a change to its answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a client of a shard wants changed.
pub(crate) struct UsersAsk {
    pub(crate) shard: u16,
    /// The shard's own number.
    pub(crate) number: u64,
    pub(crate) changes: UserChanges,
}

/// From the shards to the control thread.
pub(crate) struct UsersAsks {
    queue: ArrayQueue<UsersAsk>,
    ready: Notify,
}

impl UsersAsks {
    pub(crate) fn new() -> Self {
        Self { queue: ArrayQueue::new(WAITING_MAX), ready: Notify::new() }
    }

    /// From a shard. False: too many wait.
    pub(crate) fn put(&self, ask: UsersAsk) -> bool {
        let put = self.queue.push(ask).is_ok();
        self.ready.notify_one();
        put
    }

    async fn take(&self) -> UsersAsk {
        loop {
            if let Some(ask) = self.queue.pop() {
                return ask;
            }
            self.ready.notified().await;
        }
    }
}

/// A change that was not answered yet.
struct UnderWay {
    shard: u16,
    number: u64,
    until: Instant,
    /// None once it was sent.
    changes: Option<UserChanges>,
    /// The connection over which it was sent.
    over: u64,
}

/// See the module. On the control thread.
pub(crate) struct UsersDesk {
    shared: Arc<Shared>,
    posts: Vec<Post>,
    last: Cell<u64>,
    under_way: RefCell<BTreeMap<u64, UnderWay>>,
    /// Told when there may be something to send.
    ready: Notify,
}

impl UsersDesk {
    pub(crate) fn new(shared: Arc<Shared>, posts: Vec<Post>) -> Self {
        let (last, under_way, ready) = Default::default();
        Self { shared, posts, last, under_way, ready }
    }

    /// Takes what the shards want, and gives up what takes too long, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let first = self.under_way.borrow().values().map(|one| one.until).min();
            let late = async {
                match first {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ask = self.shared.users_asks.take() => {
                    let UsersAsk { shard, number, changes } = ask;
                    let until = Instant::now() + ANSWER_MAX;
                    let one = UnderWay { shard, number, until, changes: Some(changes), over: 0 };
                    self.last.set(self.last.get() + 1);
                    self.under_way.borrow_mut().insert(self.last.get(), one);
                    self.ready.notify_waiters();
                }
                () = late => {
                    let now = Instant::now();
                    self.give_up(|one| one.until <= now).await;
                }
            }
        }
    }

    /// The next change to send over a connection. Waits until there is one and the manager has `told` users.
    pub(crate) async fn next(&self, connection: u64, told: &Cell<bool>) -> FromNode {
        loop {
            let ready = self.ready.notified();
            if told.get() {
                for (&id, one) in self.under_way.borrow_mut().iter_mut() {
                    if let Some(changes) = one.changes.take() {
                        one.over = connection;
                        return FromNode::ChangesUsers { id, changes };
                    }
                }
            }
            ready.await;
        }
    }

    /// A manager has told users: it may be asked.
    pub(crate) fn may_ask(&self, told: &Cell<bool>) {
        told.set(true);
        self.ready.notify_waiters();
    }

    /// A manager's answer.
    pub(crate) async fn answered(&self, id: u64, answer: UsersAnswer) {
        let one = self.under_way.borrow_mut().remove(&id);
        if let Some(one) = one {
            self.hand(&one, UsersOutcome::Answered(answer)).await;
        }
    }

    /// A connection has ended: what was asked over it is not answered any more.
    pub(crate) async fn ended(&self, connection: u64) {
        self.give_up(|one| one.changes.is_none() && one.over == connection).await;
    }

    async fn give_up(&self, which: impl Fn(&UnderWay) -> bool) {
        let given_up: Vec<UnderWay> = self
            .under_way
            .borrow_mut()
            .extract_if(.., |_, one| which(one))
            .map(|(_, one)| one)
            .collect();
        for one in given_up {
            let outcome = match one.changes {
                Some(_) => UsersOutcome::Unreachable,
                None => UsersOutcome::Unanswered,
            };
            self.hand(&one, outcome).await;
        }
    }

    async fn hand(&self, one: &UnderWay, outcome: UsersOutcome) {
        let news = News::UsersDecided { number: one.number, outcome };
        while !self.posts[usize::from(one.shard)].hand_news(&news) {
            tokio::time::sleep(SEAT_PAUSE).await;
        }
    }
}
