//! The histograms: of the time that requests are in a shard, and of the time that each command takes to execute.

use super::{Row, head, known, line};
use dkv_protocol::control::{
    COMMAND_BUCKETS, CommandCounters, LATENCY_BUCKETS, command_bucket_ns_max, latency_bucket_ns_max,
};

/// One bucket in four is shown (each power of two), up to this many nanoseconds; the rest is in `+Inf`.
const LATENCY_NS_SHOWN_MAX: u64 = 20_000_000_000;

/// Writes one histogram: `buckets` are bounds in nanoseconds (none: nothing is longer) and how many did not exceed them.
fn histogram(
    out: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    buckets: &[(Option<u64>, u64)],
    sum_ns: u64,
) {
    let bucket = format!("{name}_bucket");
    for (bound, count) in buckets {
        let bound = bound.map_or("+Inf".to_owned(), |ns| (ns as f64 / 1e9).to_string());
        let mut labels = labels.to_vec();
        labels.push(("le", &bound));
        line(out, &bucket, &labels, count);
    }
    let count = buckets.last().map_or(0, |(_, count)| *count);
    line(out, &format!("{name}_sum"), labels, sum_ns as f64 / 1e9);
    line(out, &format!("{name}_count"), labels, count);
}

pub(super) fn of_shards(out: &mut String, rows: &[Row]) {
    const NAME: &str = "service_seconds";
    head(
        out,
        NAME,
        "histogram",
        "From the completion that brought a request to its reply being queued.",
    );
    for (row, status) in known(rows) {
        for (index, shard) in status.shards.iter().enumerate() {
            let index = index.to_string();
            let [store, node] = row.labels();
            let mut passed = 0;
            let mut buckets = Vec::with_capacity(LATENCY_BUCKETS / 4 + 1);
            for (bucket, count) in shard.latency.iter().enumerate() {
                passed += count;
                let bound = latency_bucket_ns_max(bucket);
                if bucket % 4 == 3 && bound <= LATENCY_NS_SHOWN_MAX {
                    buckets.push((Some(bound), passed));
                }
            }
            buckets.push((None, passed));
            histogram(out, NAME, &[store, node, ("shard", &index)], &buckets, shard.in_turn_ns);
        }
    }
}

/// A counter of a command: name, help, value.
type CommandMetric = (&'static str, &'static str, fn(&CommandCounters) -> u64);

const COMMAND_METRICS: [CommandMetric; 3] = [
    ("command_calls_total", "Times that the command was executed.", |c| c.calls),
    ("command_rejected_total", "Times that it was refused before it ran.", |c| c.rejected),
    ("command_failed_total", "Times that it ran and answered with an error.", |c| c.failed),
];

/// Of every command that was called: the node counts all its shards together, so that a store with many of them has not as many
/// times as many series.
pub(super) fn of_commands(out: &mut String, rows: &[Row]) {
    for (name, help, of) in COMMAND_METRICS {
        head(out, name, "counter", help);
        for (row, status) in known(rows) {
            for command in &status.commands {
                let [store, node] = row.labels();
                line(out, name, &[store, node, ("command", &command.name)], of(command));
            }
        }
    }
    head(
        out,
        "command_seconds",
        "histogram",
        "How long executing a command took, without what it waited for; short ones that came together share their time.",
    );
    for (row, status) in known(rows) {
        for command in status.commands.iter().filter(|command| command.calls > 0) {
            let [store, node] = row.labels();
            let mut passed = 0;
            let buckets: Vec<_> = (0..COMMAND_BUCKETS)
                .map(|bucket| {
                    passed += command.buckets.get(bucket).copied().unwrap_or(0);
                    (command_bucket_ns_max(bucket), passed)
                })
                .collect();
            let labels = [store, node, ("command", command.name.as_str())];
            histogram(out, "command_seconds", &labels, &buckets, command.ns);
        }
    }
}
