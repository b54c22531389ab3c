//! What the threads of one node share: facts that do not change, and a few words that do, each with one writer or atomic.
//!
//! No key, no value and no connection is here; those belong to one shard each.

use crate::board::LinkBoard;
use crate::follow::Asks;
use crate::launch::Launch;
use crate::users::UsersAsks;
use dkv_protocol::ids::BootId;
use dkv_protocol::map::StoreMap;
use dkv_protocol::users::Users;
use dkv_shard::command::Env;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;

/// See the module.
pub(crate) struct Shared {
    pub(crate) launch: Launch,
    pub(crate) boot: BootId,
    pub(crate) env: Arc<Env>,
    pub(crate) board: LinkBoard,
    /// The nodes of the store, as far as they are known by now.
    map: RwLock<Arc<StoreMap>>,
    /// The users of the store.
    users: RwLock<Arc<Users>>,
    /// From the shards to the manager.
    pub(crate) asks: Asks,
    /// The same of their clients.
    pub(crate) users_asks: UsersAsks,
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
        let (index, removed) = (launch.document.index, &launch.document.removed);
        let board = LinkBoard::new(&env.map, index, removed);
        let map = RwLock::new(Arc::clone(&env.map));
        let users = RwLock::new(Arc::new(launch.document.users.clone()));
        Self {
            launch,
            boot,
            env,
            board,
            map,
            users,
            asks: Asks::new(),
            users_asks: UsersAsks::new(),
            client_ids: AtomicU64::new(0),
            drained: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            shard_ended: Notify::new(),
        }
    }

    /// The nodes of the store, as far as they are known by now. Who owns what in a store with copies is not in it.
    pub(crate) fn map(&self) -> Arc<StoreMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// More nodes are known.
    pub(crate) fn set_map(&self, map: Arc<StoreMap>) {
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = map;
    }

    /// The users of the store, as they were told last.
    pub(crate) fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All shards have been told other users.
    pub(crate) fn set_users(&self, users: Arc<Users>) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
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
