//! INFO, with the fields that exporters and clients read.
//!
//! On a client port INFO speaks of this node, and its keyspace of the whole store. The contract with the session, which
//! merges:
//!
//! 1. [`needs_keyspace`] says whether the sections asked for name the keyspace. When not, the handler of INFO, run here
//!    alone, gives the whole reply; likewise on a shard port, and in a store of one shard.
//! 2. Otherwise the session sends [`KEYSPACE_REQUEST`] (one argument, found by [`super::internal`]) to every shard of the
//!    store, its own included, and gives each reply to [`Keyspace::add`]. A shard that cannot be reached is given as the
//!    error that stands for its reply: INFO must answer while a node is down, and says how many shards are missing.
//! 3. When all replies are in, [`render`] writes the reply.

use super::config::memory_bytes_max;
use crate::command::{Args, Exec, Merge, Scope, Spec};
use crate::command_stats::{ErrorStats, Sum};
use crate::stats::{DeniedKind, ShardStats};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{Display, Write};
use dkv_protocol::control::{LATENCY_BUCKETS, latency_bucket_ns_max};
use dkv_protocol::resp::{reply, value};

/// What each shard is asked for the keyspace section.
pub const KEYSPACE_REQUEST: &[u8] = b"DKV.KEYSPACE";

/// The version of Redis whose replies are spoken. Not above 7.2: clients take a greater one for features that are not
/// there.
pub const REDIS_VERSION: &str = "7.2.4";

pub(super) const INFO: Spec = Spec {
    name: "INFO",
    long: true,
    arity: -1,
    flags: &["loading", "stale"],
    categories: &["@slow", "@dangerous"],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    scope: Scope::Whole(Merge::Info),
    handler: info,
    summary: "Returns information and statistics about the server.",
    since: "1.0.0",
    group: "server",
    ..Spec::NOTHING
};

pub(super) const KEYSPACE: Spec = Spec {
    name: "DKV.KEYSPACE",
    arity: 1,
    scope: Scope::Anywhere,
    handler: keyspace,
    ..Spec::NOTHING
};

/// Keys of some shards, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// Keys, the expired ones included whose memory is not back yet.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Sum of their times to live in milliseconds, estimated from a sample.
    pub ttl_ms_sum: u64,
    /// Shards that did not answer.
    pub shards_missing: u32,
}

/// Keys looked at for the estimate of the times to live.
const TTL_SAMPLES: u64 = 32;

impl Keyspace {
    /// That of one shard.
    fn of(x: &Exec<'_>) -> Self {
        let now = x.now.boot_ms();
        let expires = x.table.len_with_expiry();
        let (mut sum, mut seen) = (0u64, 0u64);
        if expires > 0 {
            for sample in 0..TTL_SAMPLES {
                // Any spread of bits does: it is an estimate.
                let entropy = (x.now.boot_ns ^ sample << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                if let Some((_, entry)) = x.table.random(now, entropy)
                    && let Some(at) = entry.expires_at_ms
                {
                    sum = sum.saturating_add(at.saturating_sub(now));
                    seen += 1;
                }
            }
        }
        Self {
            keys: x.table.len(),
            expires,
            ttl_ms_sum: (sum / seen.max(1)).saturating_mul(expires),
            shards_missing: 0,
        }
    }

    /// Adds the reply of one shard, or counts the shard as missing when that is an error.
    pub fn add(&mut self, reply: &[u8]) {
        let Ok(Some((value::Value::Array(items), _))) = value::parse(reply) else {
            self.shards_missing += 1;
            return;
        };
        let number = |i: usize| match items.get(i) {
            Some(value::Value::Integer(n)) => *n as u64,
            _ => 0,
        };
        self.keys += number(0);
        self.expires += number(1);
        self.ttl_ms_sum = self.ttl_ms_sum.saturating_add(number(2));
    }
}

fn keyspace(x: &mut Exec<'_>, _args: Args<'_>, out: &mut Vec<u8>) {
    let keyspace = Keyspace::of(x);
    reply::array(out, 3);
    for n in [keyspace.keys, keyspace.expires, keyspace.ttl_ms_sum] {
        reply::integer(out, i64::try_from(n).unwrap_or(i64::MAX));
    }
}

fn info(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let keyspace = if needs_keyspace(args) { Keyspace::of(x) } else { Keyspace::default() };
    render(x, args, &keyspace, out);
}

type Section = fn(&mut Text, &Facts<'_>);

/// All sections in their order.
const SECTIONS: [(&str, Section); 14] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Modules", |_, _| {}),
    ("Commandstats", command_stats),
    ("Errorstats", error_stats),
    ("Latencystats", latency_stats),
    ("Cluster", cluster),
    (KEYSPACE_SECTION, keyspace_lines),
    ("DKV", dkv),
];
/// Those that are not shown unless they are asked for, by name or with all.
const LONG_SECTIONS: [&str; 2] = ["Commandstats", "Latencystats"];
const KEYSPACE_SECTION: &str = "Keyspace";

/// Whether the arguments of an INFO ask for a section.
fn wants(args: Args<'_>, section: &str) -> bool {
    let by_default = !LONG_SECTIONS.contains(&section);
    args.len() == 1 && by_default
        || args.iter_from(1).any(|word| {
            let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
            is(section) || is("all") || is("everything") || by_default && is("default")
        })
}

/// Whether the sections that an INFO asks for include the keyspace.
pub fn needs_keyspace(args: Args<'_>) -> bool {
    wants(args, KEYSPACE_SECTION)
}

/// Writes the reply to an INFO. `x` is the shard that the client is connected to.
pub fn render(x: &Exec<'_>, args: Args<'_>, keyspace: &Keyspace, out: &mut Vec<u8>) {
    let shards = shards(x);
    let facts = Facts { x, shards, keyspace };
    let mut text = Text(String::with_capacity(4096));
    for (name, section) in SECTIONS.iter().filter(|(name, _)| wants(args, name)) {
        if !text.0.is_empty() {
            text.0.push_str("\r\n");
        }
        text.0.push_str("# ");
        text.0.push_str(name);
        text.0.push_str("\r\n");
        section(&mut text, &facts);
    }
    reply::verbatim(out, x.proto, text.0.as_bytes());
}

/// The shards that are spoken of. Each is a node of its own to those who come through its port.
pub(super) fn shards<'a>(x: &Exec<'a>) -> &'a [Arc<ShardStats>] {
    match x.env.stats.get(x.me.shard.0 as usize) {
        Some(own) if !x.whole_store => core::slice::from_ref(own),
        _ => &x.env.stats,
    }
}

/// What the sections speak of.
struct Facts<'a> {
    x: &'a Exec<'a>,
    shards: &'a [Arc<ShardStats>],
    keyspace: &'a Keyspace,
}

impl Facts<'_> {
    fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(|shard| counter(shard)).sum()
    }

    fn max(&self, gauge: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(|shard| gauge(shard)).max().unwrap_or(0)
    }

    fn rates(&self) -> [u64; 3] {
        let mut sum = [0; 3];
        for shard in self.shards {
            let rates = shard.rates(self.x.now.boot_ms());
            sum.iter_mut().zip(rates).for_each(|(sum, rate)| *sum += rate);
        }
        sum
    }

    /// The service time that `share` per mille of the requests did not exceed, in microseconds.
    fn service_us(&self, share: u64) -> f64 {
        let count = |bucket: usize| self.sum(|shard| shard.latency[bucket].since_reset());
        let wanted = ((0..LATENCY_BUCKETS).map(count).sum::<u64>() * share).div_ceil(1000);
        let mut seen = 0;
        for bucket in 0..LATENCY_BUCKETS {
            seen += count(bucket);
            if seen >= wanted && wanted > 0 {
                return latency_bucket_ns_max(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }
}

struct Text(String);

impl Text {
    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Bytes, and again as a person reads them.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        let _ = write!(self.0, "{name}_human:{}\r\n", Human(bytes));
    }
}

/// Bytes as Redis writes them for people: `1.50M`.
struct Human(u64);

impl Display for Human {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "K", "M", "G", "T"] {
            if value < 1024.0 || unit == "T" {
                let digits = if unit == "B" { 0 } else { 2 };
                return write!(f, "{value:.digits$}{unit}");
            }
            value /= 1024.0;
        }
        Ok(())
    }
}

fn server(text: &mut Text, facts: &Facts<'_>) {
    let (env, now) = (facts.x.env, facts.x.now);
    let uptime_s = now.boot_ms().saturating_sub(env.started_boot_ms) / 1000;
    text.field("redis_version", REDIS_VERSION);
    text.field("server_name", "dkv");
    text.field("dkv_version", env!("CARGO_PKG_VERSION"));
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", "0");
    text.field("redis_mode", "cluster");
    text.field("os", if cfg!(target_arch = "aarch64") { "Linux aarch64" } else { "Linux x86_64" });
    text.field("arch_bits", usize::BITS);
    let api = match dkv_protocol::io::short_name(&env.io) {
        Some("uring") => "io_uring",
        other => other.unwrap_or("unknown"),
    };
    text.field("multiplexing_api", api);
    text.field("process_id", env.pid);
    text.field("process_supervised", "no");
    text.field("run_id", &env.run_id);
    text.field("tcp_port", super::config::port(facts.x));
    text.field("server_time_usec", now.unix_ms.saturating_mul(1000));
    text.field("uptime_in_seconds", uptime_s);
    text.field("uptime_in_days", uptime_s / 86_400);
    text.field("io_threads_active", u8::from(env.stats.len() > 1));
}

fn clients(text: &mut Text, facts: &Facts<'_>) {
    text.field("connected_clients", facts.sum(|s| s.connections.get()));
    text.field("cluster_connections", 0);
    text.field("maxclients", facts.x.env.settings.clients_max.get());
    text.field("blocked_clients", facts.sum(|s| s.blocked_clients.get()));
    text.field("tracking_clients", facts.sum(|s| s.tracking_clients.get()));
    text.field("pubsub_clients", facts.sum(|s| s.pubsub_clients.get()));
}

fn memory(text: &mut Text, facts: &Facts<'_>) {
    let used = facts.sum(|s| s.memory_bytes.get());
    let resident = facts.x.env.process.resident_bytes.get();
    text.bytes("used_memory", used);
    if resident > 0 {
        text.bytes("used_memory_rss", resident);
    }
    text.field("used_memory_dataset", used);
    text.bytes("maxmemory", memory_bytes_max(facts.x));
    text.field("maxmemory_policy", facts.x.env.settings.eviction());
    text.field("mem_allocator", "mimalloc");
    text.field("number_of_cached_scripts", 0);
}

fn persistence(text: &mut Text, _: &Facts<'_>) {
    for name in
        ["loading", "async_loading", "rdb_changes_since_last_save", "rdb_bgsave_in_progress"]
    {
        text.field(name, 0);
    }
    text.field("rdb_last_bgsave_status", "ok");
    for name in ["aof_enabled", "aof_rewrite_in_progress"] {
        text.field(name, 0);
    }
    text.field("aof_last_bgrewrite_status", "ok");
    text.field("aof_last_write_status", "ok");
}

fn stats(text: &mut Text, facts: &Facts<'_>) {
    let [commands, bytes_in, bytes_out] = facts.rates();
    text.field("total_connections_received", facts.sum(|s| s.connections_accepted.since_reset()));
    text.field("total_commands_processed", facts.sum(|s| s.commands.since_reset()));
    text.field("instantaneous_ops_per_sec", commands);
    text.field("total_net_input_bytes", facts.sum(|s| s.bytes_in.since_reset()));
    text.field("total_net_output_bytes", facts.sum(|s| s.bytes_out.since_reset()));
    for (name, rate) in
        [("instantaneous_input_kbps", bytes_in), ("instantaneous_output_kbps", bytes_out)]
    {
        text.field(name, format_args!("{:.2}", rate as f64 / 1024.0));
    }
    text.field("rejected_connections", facts.sum(|s| s.connections_refused.since_reset()));
    text.field("sync_full", facts.sum(|s| s.resyncs_full.since_reset()));
    text.field("sync_partial_ok", facts.sum(|s| s.resyncs_partial.since_reset()));
    text.field("sync_partial_err", facts.sum(|s| s.resyncs_unfit.since_reset()));
    text.field("expired_keys", facts.sum(|s| s.expired.since_reset()));
    text.field("evicted_keys", facts.sum(|s| s.evicted.since_reset()));
    text.field("keyspace_hits", facts.sum(|s| s.hits.since_reset()));
    text.field("keyspace_misses", facts.sum(|s| s.misses.since_reset()));
    text.field("pubsub_channels", facts.sum(|s| s.pubsub_channels.get()));
    text.field("pubsub_patterns", facts.sum(|s| s.pubsub_patterns.get()));
    text.field("pubsubshard_channels", facts.sum(|s| s.pubsubshard_channels.get()));
    text.field("latest_fork_usec", 0);
    text.field(
        "client_output_buffer_limit_disconnections",
        facts.sum(|s| s.connections_cut.since_reset()),
    );
    text.field("tracking_total_keys", facts.sum(|s| s.tracked_keys.get()));
    text.field("tracking_total_items", facts.sum(|s| s.tracked_items.get()));
    text.field("total_error_replies", facts.sum(|s| s.errors.since_reset()));
    for (name, kind) in [
        ("acl_access_denied_auth", DeniedKind::Auth),
        ("acl_access_denied_cmd", DeniedKind::Command),
        ("acl_access_denied_key", DeniedKind::Key),
        ("acl_access_denied_channel", DeniedKind::Channel),
    ] {
        text.field(name, facts.sum(|s| s.acl_denied[kind as usize].since_reset()));
    }
}

fn replication(text: &mut Text, facts: &Facts<'_>) {
    text.field("role", "master");
    text.field("connected_slaves", facts.sum(|s| s.copies.get()));
    // What this node has written to logs or applied from others; a copy has what is not missing of it there.
    let own = facts.sum(|s| s.replicated.get());
    let followers = facts.shards.iter().flat_map(|shard| &shard.followers);
    for (at, (follower, ip)) in followers.filter_map(|one| Some((one, one.ip()?))).enumerate() {
        let (port, lag_s) = (follower.port.get(), follower.silent_ms.get() / 1000);
        let offset = own.saturating_sub(follower.behind.get());
        text.field(
            &format!("slave{at}"),
            format_args!("ip={ip},port={port},state=online,offset={offset},lag={lag_s}"),
        );
    }
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", &facts.x.env.run_id);
    text.field("master_replid2", format_args!("{:040}", 0));
    text.field("master_repl_offset", own);
    text.field("second_repl_offset", -1);
    // What a copy goes on from is counted in entries of logs by range here, not in bytes of one stream.
    for name in [
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ] {
        text.field(name, 0);
    }
}

fn cpu(text: &mut Text, facts: &Facts<'_>) {
    let process = &facts.x.env.process;
    for (name, us) in [
        ("used_cpu_sys", process.cpu_system_us.get()),
        ("used_cpu_user", process.cpu_user_us.get()),
    ] {
        text.field(name, format_args!("{}.{:06}", us / 1_000_000, us % 1_000_000));
    }
}

fn command_stats(text: &mut Text, facts: &Facts<'_>) {
    for number in 0..super::NUMBERS as u16 {
        let sum = Sum::of(facts.shards.iter().map(|shard| &shard.of_commands), number);
        if sum.calls + sum.rejected == 0 {
            continue;
        }
        let Sum { calls, us, rejected, failed, .. } = sum;
        let per_call = us as f64 / calls.max(1) as f64;
        let _ = write!(
            text.0,
            "cmdstat_{}:calls={calls},usec={us},usec_per_call={per_call:.2},rejected_calls={rejected},\
             failed_calls={failed}\r\n",
            super::name_of(number)
        );
    }
}

fn error_stats(text: &mut Text, facts: &Facts<'_>) {
    let shards = facts.shards.iter().map(|shard| &shard.of_errors);
    for (kind, count) in ErrorStats::sums(shards).filter(|(_, count)| *count > 0) {
        let _ = write!(text.0, "errorstat_{kind}:count={count}\r\n");
    }
}

fn latency_stats(text: &mut Text, facts: &Facts<'_>) {
    if facts.x.env.settings.latency_tracking.get() == 0 {
        return;
    }
    for number in 0..super::NUMBERS as u16 {
        let sum = Sum::of(facts.shards.iter().map(|shard| &shard.of_commands), number);
        if sum.tracked() > 0 {
            let [p50, p99, p999] = [500, 990, 999].map(|share| sum.percentile_us(share));
            let _ = write!(
                text.0,
                "latency_percentiles_usec_{}:p50={p50:.3},p99={p99:.3},p99.9={p999:.3}\r\n",
                super::name_of(number)
            );
        }
    }
}

fn cluster(text: &mut Text, _: &Facts<'_>) {
    text.field("cluster_enabled", 1);
}

fn keyspace_lines(text: &mut Text, facts: &Facts<'_>) {
    let keyspace = facts.keyspace;
    if keyspace.keys > 0 {
        let ttl_ms = keyspace.ttl_ms_sum / keyspace.expires.max(1);
        let (keys, expires) = (keyspace.keys, keyspace.expires);
        text.field("db0", format_args!("keys={keys},expires={expires},avg_ttl={ttl_ms}"));
    }
}

fn dkv(text: &mut Text, facts: &Facts<'_>) {
    let (env, me) = (facts.x.env, facts.x.me);
    text.field("dkv_store", &env.store);
    text.field("dkv_node", &env.node);
    text.field("dkv_shard", me.shard.0);
    text.field("dkv_shards", env.stats.len());
    let copied = facts.x.gates.is_some();
    let ranges =
        if copied { facts.sum(|s| s.ranges_led.get()) } else { env.map.run(me).len() as u64 };
    text.field("dkv_ranges", ranges);
    text.field("dkv_ranges_copied", facts.sum(|s| s.ranges_copied.get()));
    text.field("dkv_ranges_degraded", facts.sum(|s| s.ranges_degraded.get()));
    text.field("dkv_replication_lag", facts.max(|s| s.replication_lag.get()));
    text.field("dkv_resync_bytes_full", facts.sum(|s| s.resync_bytes_full.since_reset()));
    text.field("dkv_resync_bytes_log", facts.sum(|s| s.resync_bytes_log.since_reset()));
    text.field("dkv_copies_let_go_late", facts.sum(|s| s.copies_let_go_late.since_reset()));
    text.field("dkv_resync_us_max", facts.max(|s| s.resync_us_max.get()));
    text.field("dkv_io", &env.io);
    text.field("dkv_shards_missing", facts.keyspace.shards_missing);
    text.field("dkv_expiry_lag_ms", facts.max(|s| s.expiry_lag_ms.get()));
    text.field("dkv_stalls", facts.sum(|s| s.stalls.since_reset()));
    text.field("dkv_long_turns", facts.sum(|s| s.long_turns.since_reset()));
    text.field("dkv_piece_us_max", facts.max(|s| s.piece_us_max.get()));
    text.field("dkv_turn_us_max", facts.max(|s| s.turn_us_max.get()));
    text.field("dkv_forwarded", facts.sum(|s| s.forwarded.since_reset()));
    text.field("dkv_published", facts.sum(|s| s.published.since_reset()));
    text.field("dkv_delivered", facts.sum(|s| s.delivered.since_reset()));
    text.field("dkv_messages_lost", facts.sum(|s| s.messages_lost.since_reset()));
    text.field("dkv_monitor_lines_lost", facts.sum(|s| s.monitor_lines_lost.since_reset()));
    text.field("dkv_subscribers_cut", facts.sum(|s| s.subscribers_cut.since_reset()));
    text.field("dkv_served_for_others", facts.sum(|s| s.served_for_others.since_reset()));
    let [p50, p99, p999] = [500, 990, 999].map(|share| facts.service_us(share));
    text.field("dkv_service_us", format_args!("p50={p50:.3},p99={p99:.3},p99.9={p999:.3}"));
}
