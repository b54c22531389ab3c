//! One shard's counters: written by its own thread with relaxed stores, read by whoever reports.

use crate::command_stats::{self, CommandStats, ErrorStats};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::{AtomicU64, Ordering};
use dkv_protocol::control::{CommandCounters, LATENCY_BUCKETS, ShardCounters};

/// A number that one thread writes and any may read. Nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Counter {
    value: AtomicU64,
    /// What it was when somebody asked to count from 0 again. Only what people read goes by it; who takes differences
    /// would see a counter that runs backwards.
    base: AtomicU64,
}

impl Counter {
    /// Adds. Only the owning shard calls it, so load and store need not be one step.
    #[inline]
    pub fn add(&self, n: u64) {
        self.value.store(self.value.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.value.store(n, Ordering::Relaxed);
    }

    /// Keeps the greater.
    #[inline]
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// The value of now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// What was counted since [`ShardStats::reset`].
    pub fn since_reset(&self) -> u64 {
        self.get().saturating_sub(self.base.load(Ordering::Relaxed))
    }

    pub(crate) fn count_from_here(&self) {
        self.base.store(self.get(), Ordering::Relaxed);
    }
}

/// Other shards with copies of what one leads that are shown.
pub const FOLLOWERS_SHOWN_MAX: usize = 16;

/// Gauges: another shard with copies of ranges that this one leads. Read while they are written they may be of two shards.
#[derive(Debug, Default)]
pub struct Follower {
    /// Its machine as an IPv6 address (mapped where it is another one), in two halves; 0 for none.
    pub ip: [Counter; 2],
    /// Its port.
    pub port: Counter,
    /// Changes that it does not hold yet, over all these ranges.
    pub behind: Counter,
    /// Milliseconds since it granted the last lease that is known of.
    pub silent_ms: Counter,
}

impl Follower {
    /// It is that one, or none.
    pub fn set(&self, of: Option<(IpAddr, u16)>, behind: u64, silent_ms: u64) {
        let ip = match of {
            Some((IpAddr::V4(ip), _)) => ip.to_ipv6_mapped().to_bits(),
            Some((IpAddr::V6(ip), _)) => ip.to_bits(),
            None => 0,
        };
        self.ip[0].set((ip >> 64) as u64);
        self.ip[1].set(ip as u64);
        self.port.set(of.map_or(0, |(_, port)| port.into()));
        self.behind.set(behind);
        self.silent_ms.set(silent_ms);
    }

    /// Which machine it is on.
    pub fn ip(&self) -> Option<IpAddr> {
        let ip = u128::from(self.ip[0].get()) << 64 | u128::from(self.ip[1].get());
        (ip != 0).then(|| Ipv6Addr::from_bits(ip).to_canonical())
    }
}

/// What somebody was not allowed to do, as INFO counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedKind {
    /// To be a user: the password was wrong.
    Auth,
    /// To execute a command.
    Command,
    /// To do that to a key.
    Key,
    /// To use a channel.
    Channel,
}

/// Of [`DeniedKind`].
const DENIED_KINDS: usize = 4;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// See the module and [`ShardCounters`], whose fields these are.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "the fields are those of ShardCounters, documented there, `rates` and what is counted by command")]
        pub struct ShardStats {
            $(pub $name: Counter,)*
            pub latency: Vec<Counter>,
            pub followers: Vec<Follower>,
            pub rates: Rates,
            pub of_commands: CommandStats,
            pub tracking_clients: Counter,
            /// Keys that clients of this shard keep, and how many of them keep each, added up.
            pub tracked_keys: Counter,
            /// See `tracked_keys`.
            pub tracked_items: Counter,
            pub of_errors: ErrorStats,
            /// What users were not allowed to do, by [`DeniedKind`].
            pub acl_denied: [Counter; DENIED_KINDS],
        }

        impl Default for ShardStats {
            fn default() -> Self {
                Self {
                    $($name: Counter::default(),)*
                    latency: (0..LATENCY_BUCKETS).map(|_| Counter::default()).collect(),
                    followers: (0..FOLLOWERS_SHOWN_MAX).map(|_| Follower::default()).collect(),
                    rates: Rates::default(),
                    of_commands: CommandStats::default(),
                    tracking_clients: Counter::default(),
                    tracked_keys: Counter::default(),
                    tracked_items: Counter::default(),
                    of_errors: ErrorStats::default(),
                    acl_denied: Default::default(),
                }
            }
        }

        impl ShardStats {
            /// CONFIG RESETSTAT: [`Counter::since_reset`] counts from 0 again, and the greatest pieces and turn are
            /// looked for anew. Any thread may call it; one that the shard records at the same moment may stand.
            pub fn reset(&self) {
                $(self.$name.count_from_here();)*
                self.latency.iter().for_each(Counter::count_from_here);
                self.of_commands.reset();
                self.of_errors.reset();
                self.acl_denied.iter().for_each(Counter::count_from_here);
                self.piece_us_max.set(0);
                self.turn_us_max.set(0);
                self.resync_us_max.set(0);
                self.commit_wait_us_max.set(0);
                self.takeover_us_max.set(0);
                self.expired_late_ms_max.set(0);
            }

            /// A copy to report.
            pub fn snapshot(&self) -> ShardCounters {
                ShardCounters {
                    $($name: self.$name.get(),)*
                    latency: self.latency.iter().map(Counter::get).collect(),
                }
            }
        }
    };
}

counters!(
    commands,
    gets,
    puts,
    removes,
    hits,
    misses,
    expired,
    forwarded,
    served_for_others,
    errors,
    connections_accepted,
    connections_refused,
    connections_cut,
    bytes_in,
    bytes_out,
    evicted,
    published,
    delivered,
    messages_lost,
    subscribers_cut,
    monitor_lines_lost,
    executed,
    executing_ns,
    in_turn_ns,
    stalls,
    long_turns,
    piece_us_max,
    turn_us_max,
    resync_us_max,
    resyncs_full,
    resyncs_partial,
    resyncs_unfit,
    resync_bytes_full,
    resync_bytes_log,
    copies_let_go_late,
    commits,
    commit_wait_ns,
    commit_wait_us_max,
    takeovers,
    takeover_us,
    takeover_us_max,
    expired_late_ms,
    expired_late_ms_max,
    commit_oldest_ms,
    connections,
    keys,
    keys_with_expiry,
    memory_bytes,
    pubsub_channels,
    pubsub_patterns,
    pubsubshard_channels,
    pubsub_clients,
    blocked_clients,
    expiry_lag_ms,
    ranges_led,
    ranges_copied,
    ranges_degraded,
    copies,
    replication_lag,
    replicated,
);

impl ShardStats {
    /// A reply that is an error.
    #[cold]
    pub(crate) fn error(&self, reply: &[u8]) {
        self.errors.add(1);
        self.of_errors.note(reply);
    }

    /// Takes a sample of the rates when the last one is old enough. The owning shard calls it, every turn or so.
    #[inline]
    pub fn sample_rates(&self, boot_ms: u64) {
        let since = boot_ms.saturating_sub(self.rates.sampled_ms.get());
        if since >= RATE_WINDOW_MS {
            self.rates.take(self, boot_ms, since);
        }
    }

    /// Commands, bytes in and bytes out per second, over about the last second.
    pub fn rates(&self, boot_ms: u64) -> [u64; 3] {
        let rates = &self.rates;
        let since = boot_ms.saturating_sub(rates.sampled_ms.get());
        if since < RATE_WINDOW_MS * 2 {
            return [rates.commands.get(), rates.bytes_in.get(), rates.bytes_out.get()];
        }
        // The shard sleeps and has taken no sample for a while; what it did before it fell asleep counts over all of it.
        per_second(self.totals(), rates.totals(), since)
    }

    fn totals(&self) -> [u64; 3] {
        [self.commands.get(), self.bytes_in.get(), self.bytes_out.get()]
    }
}

/// What the shards of a node counted of the commands that were called, from any thread.
pub fn of_commands(shards: &[Arc<ShardStats>]) -> Vec<CommandCounters> {
    let all: Vec<&CommandStats> = shards.iter().map(|shard| &shard.of_commands).collect();
    command_stats::counters(&all)
}

/// How far samples of the rates lie apart, in milliseconds.
const RATE_WINDOW_MS: u64 = 1000;

/// Gauges of what happens per second, and the totals at the last sample.
#[derive(Debug, Default)]
pub struct Rates {
    sampled_ms: Counter,
    commands: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    commands_then: Counter,
    bytes_in_then: Counter,
    bytes_out_then: Counter,
}

impl Rates {
    fn totals(&self) -> [u64; 3] {
        [self.commands_then.get(), self.bytes_in_then.get(), self.bytes_out_then.get()]
    }

    fn take(&self, stats: &ShardStats, boot_ms: u64, since: u64) {
        let now = stats.totals();
        let rates = per_second(now, self.totals(), since);
        for (gauge, rate) in
            [&self.commands, &self.bytes_in, &self.bytes_out].into_iter().zip(rates)
        {
            gauge.set(rate);
        }
        let then = [&self.commands_then, &self.bytes_in_then, &self.bytes_out_then];
        then.into_iter().zip(now).for_each(|(then, now)| then.set(now));
        self.sampled_ms.set(boot_ms);
    }
}

fn per_second(now: [u64; 3], then: [u64; 3], ms: u64) -> [u64; 3] {
    core::array::from_fn(|i| {
        (u128::from(now[i].saturating_sub(then[i])) * 1000 / u128::from(ms.max(1))) as u64
    })
}
