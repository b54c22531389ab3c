//! What the threads of one node share: facts that do not change, and a few words that do, each with one writer or atomic.
//!
//! No key, no value and no connection is here; those belong to one shard each.

use crate::board::LinkBoard;
use crate::launch::Launch;
use dkv_protocol::ids::BootId;
use dkv_shard::command::Env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// See the module.
pub(crate) struct Shared {
    pub(crate) launch: Launch,
    pub(crate) boot: BootId,
    pub(crate) env: Arc<Env>,
    pub(crate) board: LinkBoard,
    /// The next CLIENT ID less one.
    client_ids: AtomicU64,
    /// Shards that, being told to stop, owe their clients nothing any more.
    drained: AtomicUsize,
    /// Shards that have ended.
    ended: AtomicUsize,
    /// Told at each end of a shard.
    pub(crate) shard_ended: Notify,
}

impl Shared {
    pub(crate) fn new(launch: Launch, boot: BootId, env: Arc<Env>) -> Self {
        let board = LinkBoard::new(&env.map, launch.document.index);
        Self {
            launch,
            boot,
            env,
            board,
            client_ids: AtomicU64::new(0),
            drained: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            shard_ended: Notify::new(),
        }
    }

    /// The boot as the manager and INFO show it.
    pub(crate) fn boot_text(&self) -> String {
        format!("{:016x}", self.boot.0)
    }

    /// A CLIENT ID that no other connection of this boot has.
    pub(crate) fn next_client_id(&self) -> u64 {
        self.client_ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A stopping shard owes its clients nothing any more; it goes on serving the others until all say so.
    pub(crate) fn one_drained(&self) {
        self.drained.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all shards have drained.
    pub(crate) fn all_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.launch.shards()
    }

    /// A shard's thread has ended.
    pub(crate) fn one_ended(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.shard_ended.notify_one();
    }

    /// Whether all shards' threads have ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) >= self.launch.shards()
    }
}
