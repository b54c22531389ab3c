//! The metrics of a shard that are one number each.

use dkv_protocol::control::ShardCounters;

/// A metric of a shard: name, type, help, value.
type ShardMetric = (&'static str, &'static str, &'static str, fn(&ShardCounters) -> u64);

pub(super) const SHARD_METRICS: &[ShardMetric] = &[
    ("commands_total", "counter", "Commands answered to clients of the shard.", |c| c.commands),
    ("gets_total", "counter", "Reads of keys executed by the shard.", |c| c.gets),
    ("puts_total", "counter", "Writes of keys executed by the shard.", |c| c.puts),
    ("removes_total", "counter", "Removals of keys executed by the shard.", |c| c.removes),
    ("hits_total", "counter", "Reads that found a value.", |c| c.hits),
    ("misses_total", "counter", "Reads that found no value.", |c| c.misses),
    ("expired_total", "counter", "Keys that expired.", |c| c.expired),
    ("forwarded_total", "counter", "Requests sent to other shards.", |c| c.forwarded),
    ("served_for_others_total", "counter", "Requests executed for other shards.", |c| {
        c.served_for_others
    }),
    ("errors_total", "counter", "Commands answered with an error.", |c| c.errors),
    ("connections_accepted_total", "counter", "Client connections accepted.", |c| {
        c.connections_accepted
    }),
    ("connections_refused_total", "counter", "Client connections refused.", |c| {
        c.connections_refused
    }),
    ("connections_cut_total", "counter", "Slow readers cut off at their limit.", |c| {
        c.connections_cut
    }),
    ("published_total", "counter", "Messages that clients of the shard published.", |c| {
        c.published
    }),
    ("delivered_total", "counter", "Messages that went to subscribers of the shard.", |c| {
        c.delivered
    }),
    (
        "messages_lost_total",
        "counter",
        "Messages that did not go to a shard with subscribers because the way there was lost.",
        |c| c.messages_lost,
    ),
    (
        "subscribers_cut_total",
        "counter",
        "Subscribers that were cut off because they read too slowly.",
        |c| c.subscribers_cut,
    ),
    ("subscribers", "gauge", "Connections with subscriptions.", |c| c.pubsub_clients),
    ("received_bytes_total", "counter", "Bytes read from clients.", |c| c.bytes_in),
    ("sent_bytes_total", "counter", "Bytes queued for clients.", |c| c.bytes_out),
    ("evicted_total", "counter", "Keys evicted because memory was at its limit.", |c| c.evicted),
    (
        "loop_stalls_total",
        "counter",
        "Pieces of work (some commands, a slice of the background) over 1 ms of the shard's CPU time.",
        |c| c.stalls,
    ),
    (
        "loop_long_turns_total",
        "counter",
        "Turns of the loop over 1 ms of the shard's CPU time.",
        |c| c.long_turns,
    ),
    (
        "loop_piece_microseconds_max",
        "gauge",
        "The longest piece of work since the start or CONFIG RESETSTAT, CPU time.",
        |c| c.piece_us_max,
    ),
    (
        "loop_turn_microseconds_max",
        "gauge",
        "The longest turn of the loop since the start or CONFIG RESETSTAT, CPU time.",
        |c| c.turn_us_max,
    ),
    (
        "resync_microseconds_max",
        "gauge",
        "The longest piece of work at filling a copy since the start or CONFIG RESETSTAT, CPU time.",
        |c| c.resync_us_max,
    ),
    (
        "copies_let_go_late_total",
        "counter",
        "Copies of ranges that were let go because they were late again and again.",
        |c| c.copies_let_go_late,
    ),
    ("resyncs_full_total", "counter", "Copies of ranges that were filled in full.", |c| {
        c.resyncs_full
    }),
    (
        "resyncs_partial_total",
        "counter",
        "Copies of ranges that got what followed on what they had.",
        |c| c.resyncs_partial,
    ),
    (
        "resync_full_bytes_total",
        "counter",
        "Bytes of records sent to copies that were filled in full.",
        |c| c.resync_bytes_full,
    ),
    (
        "resync_log_bytes_total",
        "counter",
        "Bytes of the log sent to copies that did not count yet.",
        |c| c.resync_bytes_log,
    ),
    (
        "replicated_changes_total",
        "counter",
        "Changes appended to the logs of ranges, or applied from those of others.",
        |c| c.replicated,
    ),
    (
        "executed_total",
        "counter",
        "Commands that the shard executed, for its own clients and for other shards.",
        |c| c.executed,
    ),
    (
        "commits_total",
        "counter",
        "Times that writes of a range which waited for its copies were committed.",
        |c| c.commits,
    ),
    (
        "takeovers_total",
        "counter",
        "Ranges that the shard leads since another one led them.",
        |c| c.takeovers,
    ),
    ("ranges_led", "gauge", "Ranges that the shard leads.", |c| c.ranges_led),
    (
        "ranges_copied",
        "gauge",
        "Ranges of which the shard holds a copy in sync that another one leads.",
        |c| c.ranges_copied,
    ),
    (
        "ranges_led_degraded",
        "gauge",
        "Ranges that the shard leads with fewer copies in sync than there should be.",
        |c| c.ranges_degraded,
    ),
    (
        "replication_lag_changes",
        "gauge",
        "Changes that the copy which is furthest behind does not hold yet.",
        |c| c.replication_lag,
    ),
    ("connections", "gauge", "Client connections.", |c| c.connections),
    ("keys", "gauge", "Keys.", |c| c.keys),
    ("keys_with_expiry", "gauge", "Keys with an expiry.", |c| c.keys_with_expiry),
    ("memory_bytes", "gauge", "Bytes that count against the memory limit.", |c| c.memory_bytes),
    ("expiry_lag_milliseconds", "gauge", "How far active expiry is behind.", |c| c.expiry_lag_ms),
];

/// A metric in seconds.
type ShardSeconds = (&'static str, &'static str, &'static str, fn(&ShardCounters) -> f64);

pub(super) const SHARD_SECONDS: &[ShardSeconds] = &[
    (
        "execution_seconds_total",
        "counter",
        "Time that executing the commands of dkv_executed_total took.",
        |c| c.executing_ns as f64 / 1e9,
    ),
    (
        "commit_wait_seconds_total",
        "counter",
        "How long writes of a range waited for its copies, of each of dkv_commits_total the first.",
        |c| c.commit_wait_ns as f64 / 1e9,
    ),
    (
        "commit_wait_seconds_max",
        "gauge",
        "The longest wait of a write for its copies since the start or CONFIG RESETSTAT.",
        |c| c.commit_wait_us_max as f64 / 1e6,
    ),
    (
        "replication_lag_seconds",
        "gauge",
        "For how long the oldest write has waited that its copies do not have yet.",
        |c| c.commit_oldest_ms as f64 / 1e3,
    ),
    (
        "takeover_seconds_total",
        "counter",
        "How long the ranges of dkv_takeovers_total had no leader, from the last that was heard of the former one.",
        |c| c.takeover_us as f64 / 1e6,
    ),
    (
        "takeover_seconds_max",
        "gauge",
        "The longest of these since the start or CONFIG RESETSTAT.",
        |c| c.takeover_us_max as f64 / 1e6,
    ),
    (
        "expired_late_seconds_total",
        "counter",
        "How late the keys were removed whose expiry nobody met, added up.",
        |c| c.expired_late_ms as f64 / 1e3,
    ),
    (
        "expired_late_seconds_max",
        "gauge",
        "How late the latest of them was since the start or CONFIG RESETSTAT.",
        |c| c.expired_late_ms_max as f64 / 1e3,
    ),
];
