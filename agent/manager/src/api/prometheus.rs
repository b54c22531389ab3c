//! `/metrics`: the counters of every node of this machine in Prometheus' text format, as the nodes said them last.

use crate::catalogue::Agent;
use dkv_protocol::admin::{CopiesView, NodeCopies, NodeState};
use dkv_protocol::control::{NodeStatus, ShardCounters, latency_bucket_ns_max};
use std::fmt::Write as _;

/// One bucket in four is shown (each power of two), up to this many nanoseconds; the rest is in `+Inf`.
const LATENCY_NS_SHOWN_MAX: u64 = 20_000_000_000;

struct Row {
    store: String,
    node: String,
    up: bool,
    restarts: u32,
    status: Option<NodeStatus>,
}

/// A metric of a shard: name, type, help, value.
type ShardMetric = (&'static str, &'static str, &'static str, fn(&ShardCounters) -> u64);

/// The same of a node.
type NodeMetric = (&'static str, &'static str, &'static str, fn(&NodeStatus) -> f64);

/// Metrics of a store with copies and of a node of one: name, help, value.
type StoreMetric = (&'static str, &'static str, fn(&CopiesView) -> u32);
type NodeCopiesMetric = (&'static str, &'static str, fn(&NodeCopies) -> u32);

const SHARD_METRICS: &[ShardMetric] = &[
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
    ("connections", "gauge", "Client connections.", |c| c.connections),
    ("keys", "gauge", "Keys.", |c| c.keys),
    ("keys_with_expiry", "gauge", "Keys with an expiry.", |c| c.keys_with_expiry),
    ("memory_bytes", "gauge", "Bytes that count against the memory limit.", |c| c.memory_bytes),
    ("expiry_lag_milliseconds", "gauge", "How far active expiry is behind.", |c| c.expiry_lag_ms),
];

pub(super) fn text(agent: &Agent) -> String {
    let mut rows = Vec::new();
    agent.each_live(|store, record, own, live| {
        let up = own.state == NodeState::Running && !live.is_silent();
        let samples = live.samples.lock().expect("no holder of this lock panics");
        rows.push(Row {
            store: store.to_string(),
            node: record.name.clone(),
            up,
            restarts: own.restarts,
            status: samples.last().filter(|_| up).cloned(),
        });
    });
    let mut out = render(agent.machine(), agent.managers_view().managers.len(), &rows);
    let with_copies = agent
        .store_views()
        .into_iter()
        .filter_map(|view| view.copies.map(|copies| (view.record.definition.name, copies)));
    copies(&mut out, &with_copies.collect::<Vec<_>>());
    out
}

/// How the copies of stores stand, the same at every manager of a store.
fn copies(out: &mut String, stores: &[(String, CopiesView)]) {
    let of_store: [StoreMetric; 4] = [
        ("unformed_ranges", "Ranges that have no configuration yet.", |c| c.unformed_ranges),
        ("offline_ranges", "Ranges whose last copy is gone.", |c| c.offline_ranges),
        ("degraded_ranges", "Ranges with fewer copies in sync than asked for.", |c| {
            c.degraded_ranges
        }),
        ("moving_ranges", "Ranges whose copies are not where they should be yet.", |c| {
            c.moving_ranges
        }),
    ];
    for (name, help, of) in of_store {
        head(out, name, "gauge", help);
        for (store, copies) in stores {
            line(out, name, &[("store", store)], u64::from(of(copies)));
        }
    }
    let of_node: [NodeCopiesMetric; 2] = [
        ("node_ranges_led", "Ranges that the node leads.", |n| n.leads),
        ("node_ranges_in_sync", "Ranges of which the node has a copy that counts.", |n| n.in_sync),
    ];
    for (name, help, of) in of_node {
        head(out, name, "gauge", help);
        for (store, copies) in stores {
            for node in &copies.nodes {
                line(out, name, &[("store", store), ("node", &node.name)], u64::from(of(node)));
            }
        }
    }
}

fn render(machine: &str, members: usize, rows: &[Row]) -> String {
    let mut out = String::new();
    head(&mut out, "manager_info", "gauge", "The manager of this machine; always 1.");
    let version = env!("CARGO_PKG_VERSION");
    line(&mut out, "manager_info", &[("machine", machine), ("version", version)], 1);
    head(&mut out, "group_machines", "gauge", "Machines of the group.");
    line(&mut out, "group_machines", &[], members as u64);

    head(&mut out, "node_up", "gauge", "Whether the node runs and answers its manager.");
    for row in rows {
        line(&mut out, "node_up", &row.labels(), u64::from(row.up));
    }
    head(&mut out, "node_restarts_total", "counter", "Restarts since it was started on request.");
    for row in rows {
        line(&mut out, "node_restarts_total", &row.labels(), u64::from(row.restarts));
    }
    head(&mut out, "node_info", "gauge", "The way of input and output of the node; always 1.");
    for (row, status) in known(rows) {
        let [store, node] = row.labels();
        let io = dkv_protocol::io::short_name(&status.io).unwrap_or("unknown");
        line(&mut out, "node_info", &[store, node, ("io", io)], 1);
    }
    let node_metrics: &[NodeMetric] = &[
        ("node_cluster_ok", "gauge", "Whether the node reaches all others of its store.", |s| {
            f64::from(u8::from(s.cluster_ok))
        }),
        ("node_uptime_seconds", "gauge", "Time since it began to serve.", |s| {
            s.uptime_ms as f64 / 1e3
        }),
        ("node_resident_bytes", "gauge", "Resident memory of the process.", |s| {
            s.resident_bytes as f64
        }),
        ("node_cpu_seconds_total", "counter", "CPU time of the process.", |s| {
            s.cpu_us as f64 / 1e6
        }),
    ];
    for (name, kind, help, of) in node_metrics {
        head(&mut out, name, kind, help);
        for (row, status) in known(rows) {
            line(&mut out, name, &row.labels(), of(status));
        }
    }
    for (name, kind, help, of) in SHARD_METRICS {
        head(&mut out, name, kind, help);
        for (row, status) in known(rows) {
            for (index, shard) in status.shards.iter().enumerate() {
                let index = index.to_string();
                let [store, node] = row.labels();
                line(&mut out, name, &[store, node, ("shard", &index)], of(shard));
            }
        }
    }
    histograms(&mut out, rows);
    out
}

fn histograms(out: &mut String, rows: &[Row]) {
    const NAME: &str = "service_seconds";
    head(
        out,
        NAME,
        "histogram",
        "From the completion that brought a request to its reply being queued; the sum is estimated from the buckets.",
    );
    for (row, status) in known(rows) {
        for (index, shard) in status.shards.iter().enumerate() {
            let index = index.to_string();
            let [store, node] = row.labels();
            let shard_labels = [store, node, ("shard", index.as_str())];
            let (mut passed, mut sum_ns, mut below) = (0u64, 0.0, 0u64);
            for (bucket, count) in shard.latency.iter().enumerate() {
                let bound = latency_bucket_ns_max(bucket);
                passed += count;
                sum_ns += *count as f64 * (below + bound) as f64 / 2.0;
                below = bound;
                if bucket % 4 == 3 && bound <= LATENCY_NS_SHOWN_MAX {
                    let bound = (bound as f64 / 1e9).to_string();
                    let [store, node, shard] = shard_labels;
                    let labels = [store, node, shard, ("le", bound.as_str())];
                    line(out, "service_seconds_bucket", &labels, passed);
                }
            }
            let [store, node, shard] = shard_labels;
            let labels = [store, node, shard, ("le", "+Inf")];
            line(out, "service_seconds_bucket", &labels, passed);
            line(out, "service_seconds_sum", &shard_labels, sum_ns / 1e9);
            line(out, "service_seconds_count", &shard_labels, passed);
        }
    }
}

fn known(rows: &[Row]) -> impl Iterator<Item = (&Row, &NodeStatus)> {
    rows.iter().filter_map(|row| Some((row, row.status.as_ref()?)))
}

impl Row {
    fn labels(&self) -> [(&str, &str); 2] {
        [("store", &self.store), ("node", &self.node)]
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP dkv_{name} {help}\n# TYPE dkv_{name} {kind}");
}

/// Names and addresses hold no character that would need escaping; it is done all the same.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let _ = write!(out, "dkv_{name}");
    for (i, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::control::{LATENCY_BUCKETS, latency_bucket};
    use std::collections::BTreeMap;

    fn row(up: bool) -> Row {
        let mut latency = vec![0; LATENCY_BUCKETS];
        latency[latency_bucket(1_500)] = 10;
        latency[latency_bucket(u64::MAX)] = 1;
        let shard = ShardCounters { gets: 7, latency, ..ShardCounters::default() };
        let status = NodeStatus {
            store: "S".to_string(),
            store_id: String::new(),
            node: "node1".to_string(),
            pid: 1,
            boot: String::new(),
            uptime_ms: 1500,
            io: "io=epoll kernel=6.12".to_string(),
            cluster_ok: true,
            unreachable: Vec::new(),
            resident_bytes: 4096,
            cpu_us: 10,
            users_version: None,
            shards: vec![shard.clone(), shard],
        };
        let status = up.then_some(status);
        Row { store: "S".to_string(), node: "node1".to_string(), up, restarts: 2, status }
    }

    #[test]
    fn every_sample_belongs_to_a_family_with_help_and_type() {
        let text = render("10.0.0.11:7801", 2, &[row(true), row(false)]);
        let mut families = BTreeMap::new();
        let mut samples = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(!help.is_empty());
                    assert_eq!(families.insert(name, false), None, "{name} stands twice");
                }
                ["#", "TYPE", name, kind] => {
                    assert!(["counter", "gauge", "histogram"].contains(&kind));
                    *families.get_mut(name).expect("HELP comes first") = true;
                }
                _ => {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    value.parse::<f64>().unwrap();
                    let bare = name.split('{').next().unwrap();
                    let family = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|end| bare.strip_suffix(end).filter(|f| families.contains_key(f)))
                        .unwrap_or(bare);
                    assert_eq!(families.get(family), Some(&true), "{line}");
                    samples += 1;
                }
            }
        }
        assert!(samples > 50, "{samples}");
        assert!(text.contains("dkv_gets_total{store=\"S\",node=\"node1\",shard=\"1\"} 7\n"));
        assert!(text.contains("dkv_group_machines 2\n"));
    }

    #[test]
    fn buckets_grow_and_end_with_the_count() {
        let text = render("m", 1, &[row(true)]);
        let of_shard =
            |line: &&str| line.contains("service_seconds_bucket") && line.contains("shard=\"0\"");
        let counts: Vec<u64> = text
            .lines()
            .filter(of_shard)
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(counts.is_sorted() && counts.len() > 20, "{counts:?}");
        assert_eq!(counts.last(), Some(&11));
        assert_eq!(counts[counts.len() - 2], 10);
    }
}
