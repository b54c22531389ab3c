//! What CONFIG SET changes: one set of numbers for all shards of a node, until its process ends.
//!
//! They are shared as counters are, with relaxed loads and stores. A shard looks whether anything changed once in each call that
//! brings it work, and keeps what its commands ask for beside them.

use crate::command::Now;
use core::sync::atomic::{AtomicU64, Ordering};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::limits::{
    CLIENTS_MAX, SUBSCRIBER_OUTPUT_BYTES_MAX, SUBSCRIBER_OUTPUT_BYTES_SOFT_MAX,
    SUBSCRIBER_OUTPUT_MS_MAX,
};

/// A number that any thread may set and read. Nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Setting(AtomicU64);

impl Setting {
    const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// The value of now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// How much a class of clients may have unread before it is disconnected, as Redis means it; 0 is no limit.
#[derive(Debug, Default)]
pub struct OutputLimit {
    /// Disconnected at once above so many bytes.
    pub hard_bytes: Setting,
    /// Disconnected when above so many bytes for [`Self::soft_s`] without a break.
    pub soft_bytes: Setting,
    /// Seconds.
    pub soft_s: Setting,
}

/// See the module. Each field is the parameter of Redis that its comment names, with its unit.
#[derive(Debug)]
pub struct Settings {
    /// Counts the calls of CONFIG SET that changed something.
    changes: AtomicU64,
    /// Until when CLIENT PAUSE holds clients back (CLOCK_BOOTTIME, milliseconds), 0 for not; and whether it holds back all
    /// commands or those that write.
    pause_until_ms: Setting,
    pause_all: Setting,
    /// Entries that SLOWLOG ever had.
    slow_ids: AtomicU64,
    /// `maxmemory`, bytes of the node; 0 is none.
    pub memory_bytes_max: Setting,
    /// `maxmemory-policy`, its place in [`Eviction::ALL`].
    eviction: Setting,
    /// `maxclients`, connections of the node.
    pub clients_max: Setting,
    /// `timeout`, seconds after which an idle connection is closed; 0 is never.
    pub timeout_s: Setting,
    /// `tcp-keepalive`, seconds of silence after which the kernel asks whether a client is there; 0 is never.
    pub tcp_keepalive_s: Setting,
    /// `slowlog-log-slower-than`, microseconds, as an `i64`; negative is never.
    pub slowlog_slower_than_us: Setting,
    /// `slowlog-max-len`, entries of the node.
    pub slowlog_len_max: Setting,
    /// `latency-monitor-threshold`, milliseconds; 0 is off.
    pub latency_threshold_ms: Setting,
    /// `latency-tracking`, 0 or 1.
    pub latency_tracking: Setting,
    /// `tracking-table-max-keys`, keys that each shard remembers for clients that cache; 0 is no limit of its own.
    pub tracking_keys_max: Setting,
    /// `client-output-buffer-limit`: of normal clients, of replicas (there are none that are clients), of subscribers.
    pub output_limits: [OutputLimit; 3],
}

/// Redis' own defaults.
const SLOWLOG_SLOWER_THAN_US: u64 = 10_000;
const SLOWLOG_LEN: u64 = 128;
const TCP_KEEPALIVE_S: u64 = 300;
const TRACKING_KEYS: u64 = 1_000_000;

impl Settings {
    /// Those of a node of a store with this limit and policy.
    pub fn new(memory_bytes_max: u64, eviction: Eviction) -> Self {
        let limits: [OutputLimit; 3] = Default::default();
        for (limit, (hard, soft, seconds)) in limits.iter().zip([
            (0, 0, 0),
            (256 << 20, 64 << 20, 60),
            (
                SUBSCRIBER_OUTPUT_BYTES_MAX as u64,
                SUBSCRIBER_OUTPUT_BYTES_SOFT_MAX as u64,
                SUBSCRIBER_OUTPUT_MS_MAX / 1000,
            ),
        ]) {
            limit.hard_bytes.set(hard);
            limit.soft_bytes.set(soft);
            limit.soft_s.set(seconds);
        }
        let settings = Self {
            changes: AtomicU64::new(0),
            pause_until_ms: Setting::default(),
            pause_all: Setting::default(),
            slow_ids: AtomicU64::new(0),
            memory_bytes_max: Setting::new(memory_bytes_max),
            eviction: Setting::default(),
            clients_max: Setting::new(CLIENTS_MAX as u64),
            timeout_s: Setting::default(),
            tcp_keepalive_s: Setting::new(TCP_KEEPALIVE_S),
            slowlog_slower_than_us: Setting::new(SLOWLOG_SLOWER_THAN_US),
            slowlog_len_max: Setting::new(SLOWLOG_LEN),
            latency_threshold_ms: Setting::default(),
            latency_tracking: Setting::new(1),
            tracking_keys_max: Setting::new(TRACKING_KEYS),
            output_limits: limits,
        };
        settings.set_eviction(eviction);
        settings
    }

    /// `maxmemory-policy`.
    pub fn eviction(&self) -> Eviction {
        let place = usize::try_from(self.eviction.get()).unwrap_or_default();
        Eviction::ALL.get(place).map_or(Eviction::None, |(policy, _)| *policy)
    }

    pub(crate) fn set_eviction(&self, eviction: Eviction) {
        let place = Eviction::ALL.iter().position(|(policy, _)| *policy == eviction);
        self.eviction.set(place.unwrap_or_default() as u64);
    }

    /// How often something was changed: when it is the same as before, nothing was.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        // With it comes what was set before.
        self.changes.load(Ordering::Acquire)
    }

    /// CLIENT PAUSE. Of two that overlap the longer and stricter one holds, as in Redis.
    pub(crate) fn pause(&self, now: Now, ms: u64, all: bool) {
        let goes_on = self.pause_until_ms.get() > now.boot_ms();
        let until_ms = now.boot_ms().saturating_add(ms).max(self.pause_until_ms.get());
        self.pause_all.set(u64::from(all || goes_on && self.pause_all.get() == 1));
        self.pause_until_ms.set(until_ms);
        self.changed();
    }

    /// CLIENT UNPAUSE.
    pub(crate) fn unpause(&self) {
        self.pause_until_ms.set(0);
        self.changed();
    }

    /// Until when clients are held back (CLOCK_BOOTTIME, milliseconds), and whether all commands are.
    pub(crate) fn paused(&self) -> (u64, bool) {
        (self.pause_until_ms.get(), self.pause_all.get() == 1)
    }

    /// The id of the next entry of SLOWLOG.
    pub(crate) fn next_slow_id(&self) -> u64 {
        self.slow_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Something was changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}
