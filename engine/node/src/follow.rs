//! The manager's stream: news of ranges and users in, the wishes of this node's copies and clients out.
//!
//! One connection of the control socket at a time carries it. Wishes that nobody follows are kept up to a bound and lost
//! beyond it: whoever wants something asks again. It knows what a line holds and which thread it is for, not what it means.

use crate::cluster::Cluster;
use crate::mail::News;
use crate::shared::Shared;
use crate::users::UsersDesk;
use crossbeam_queue::ArrayQueue;
use dkv_protocol::control::{FromNode, ToNode};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::ConfigAsk;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Longest line of a manager, bytes: the news of all ranges with copies on a dozen nodes each have a tenth of it.
const NEWS_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A shard that has not taken its mail is asked again after this.
pub(crate) const SEAT_PAUSE: Duration = Duration::from_millis(1);

/// What copies on this node want changed, on its way from the shards to the manager.
pub(crate) struct Asks {
    queue: ArrayQueue<ConfigAsk>,
    /// Told when something was put in.
    ready: Notify,
}

impl Asks {
    /// A range lives on one shard of a node and wants one thing at a time; a second place each is for what was asked again
    /// before it was read.
    pub(crate) fn new() -> Self {
        Self { queue: ArrayQueue::new(2 * RANGES), ready: Notify::new() }
    }

    /// From a shard. What finds no place is asked again by its range.
    pub(crate) fn put(&self, asks: &mut Vec<ConfigAsk>) {
        if asks.is_empty() {
            return;
        }
        for ask in asks.drain(..) {
            let _ = self.queue.push(ask);
        }
        self.ready.notify_one();
    }

    /// Waits until there is something.
    async fn take(&self) -> Vec<ConfigAsk> {
        loop {
            let asks: Vec<ConfigAsk> = std::iter::from_fn(|| self.queue.pop()).collect();
            if !asks.is_empty() {
                return asks;
            }
            self.ready.notified().await;
        }
    }
}

/// Who follows: the latest to have asked for it.
pub(crate) struct Follower {
    number: Cell<u64>,
    changed: Notify,
    shared: Arc<Shared>,
    users: Rc<UsersDesk>,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, users: Rc<UsersDesk>) -> Self {
        Self { number: Cell::new(0), changed: Notify::new(), shared, users }
    }

    /// Carries the stream over a connection until it ends or a later one takes its place.
    ///
    /// # Errors
    /// The connection is lost, or what comes in is no news.
    pub(crate) async fn follow(
        self: Rc<Self>,
        read: BufReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
        cluster: &Rc<Cluster>,
    ) -> io::Result<()> {
        let number = self.number.get() + 1;
        self.number.set(number);
        self.changed.notify_waiters();
        tracing::info!("followed by a manager");
        let replaced = async {
            loop {
                let changed = self.changed.notified();
                if self.number.get() != number {
                    return;
                }
                changed.await;
            }
        };
        // Whether this manager has told users: one of an earlier version does not take changes of them.
        let told = Cell::new(false);
        let result = tokio::select! {
            result = self.hear(read, cluster, &told) => result,
            result = self.tell(write, number, &told) => result,
            () = replaced => Ok(()),
        };
        self.users.ended(number).await;
        result
    }

    /// Hands the news to the shards, all of it to each: every shard routes requests for every range.
    async fn hear(
        &self,
        mut read: BufReader<OwnedReadHalf>,
        cluster: &Rc<Cluster>,
        told: &Cell<bool>,
    ) -> io::Result<()> {
        let has_copies = self.shared.launch.document.replication.is_some();
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = (&mut read).take(NEWS_BYTES_MAX).read_until(b'\n', &mut line).await?;
            if length == 0 {
                return Ok(());
            }
            match serde_json::from_slice(&line).map_err(io::Error::other)? {
                ToNode::Users { users } => {
                    users.check().map_err(|why| io::Error::other(why.to_string()))?;
                    let users = Arc::new(users);
                    hand(cluster, &News::Users(Arc::clone(&users))).await;
                    self.shared.set_users(users);
                    self.users.may_ask(told);
                }
                ToNode::UsersAnswer { id, answer } => self.users.answered(id, answer).await,
                ToNode::Ranges { .. } | ToNode::Nodes { .. } if !has_copies => {
                    return Err(io::Error::other(
                        "this store has one copy of each range and no news of them",
                    ));
                }
                ToNode::Ranges { news } => hand(cluster, &News::Ranges(news.into())).await,
                // The shards hear of a node before there can be a link to it. Whoever follows next begins with the nodes
                // again, so they are known only once all shards have heard of them: this may end at each of them.
                ToNode::Nodes { nodes, removed } => {
                    if let Some(map) = cluster.map_of(nodes, &removed) {
                        hand(cluster, &News::Nodes(Arc::clone(&map))).await;
                        cluster.nodes_are(map, &removed);
                    }
                }
            }
        }
    }

    /// Says what the copies and the clients want.
    async fn tell(
        &self,
        mut write: OwnedWriteHalf,
        number: u64,
        told: &Cell<bool>,
    ) -> io::Result<()> {
        loop {
            let words = tokio::select! {
                asks = self.shared.asks.take() => FromNode::Asks { asks },
                changes = self.users.next(number, told) => changes,
            };
            let mut line = serde_json::to_vec(&words).map_err(io::Error::other)?;
            line.push(b'\n');
            write.write_all(&line).await?;
        }
    }
}

async fn hand(cluster: &Rc<Cluster>, news: &News) {
    for post in cluster.posts() {
        while !post.hand_news(news) {
            tokio::time::sleep(SEAT_PAUSE).await;
        }
    }
}
