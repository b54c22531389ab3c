//! The manager's stream: news of ranges in, the wishes of this node's copies out.
//!
//! One connection of the control socket at a time carries it. Wishes that nobody follows are kept up to a bound and lost
//! beyond it: whoever wants something asks again. It knows what a line holds and which thread it is for, not what it means.

use crate::cluster::Cluster;
use crate::mail::News;
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
const SEAT_PAUSE: Duration = Duration::from_millis(1);

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
#[derive(Default)]
pub(crate) struct Follower {
    number: Cell<u64>,
    changed: Notify,
}

impl Follower {
    /// Carries the stream over a connection until it ends or a later one takes its place.
    ///
    /// # Errors
    /// The connection is lost, or what comes in is no news.
    pub(crate) async fn follow(
        self: Rc<Self>,
        read: BufReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
        asks: &Asks,
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
        tokio::select! {
            result = hear(read, cluster) => result,
            result = tell(write, asks) => result,
            () = replaced => Ok(()),
        }
    }
}

/// Hands the news to the shards, all of it to each: every shard routes requests for every range.
async fn hear(mut read: BufReader<OwnedReadHalf>, cluster: &Rc<Cluster>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut read).take(NEWS_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        match serde_json::from_slice(&line).map_err(io::Error::other)? {
            ToNode::Ranges { news } => hand(cluster, &News::Ranges(news.into())).await,
            ToNode::Users { .. } | ToNode::UsersAnswer { .. } => {
                return Err(io::Error::other("users, which this node does not know"));
            }
            // The shards hear of a node before there can be a link to it. Whoever follows next begins with the nodes again,
            // so they are known only once all shards have heard of them: this may end at each of them.
            ToNode::Nodes { nodes, removed } => {
                if let Some(map) = cluster.map_of(nodes, &removed) {
                    hand(cluster, &News::Nodes(Arc::clone(&map))).await;
                    cluster.nodes_are(map, &removed);
                }
            }
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

async fn tell(mut write: OwnedWriteHalf, asks: &Asks) -> io::Result<()> {
    loop {
        let asks = asks.take().await;
        let mut line = serde_json::to_vec(&FromNode::Asks { asks }).map_err(io::Error::other)?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
}
