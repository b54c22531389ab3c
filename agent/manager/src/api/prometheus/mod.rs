//! `/metrics`: the counters of every node of this machine in Prometheus' text format, as the nodes said them last.
//!
//! All of the text is made here, of numbers that the nodes' control threads read once a second where the shards count them: a scrape
//! costs a shard nothing. There are at most as many series as nodes, shards and commands that were called bring with them.

mod histograms;
mod of_shards;

use crate::catalogue::Agent;
use dkv_protocol::admin::{CopiesView, NodeCopies, NodeState};
use dkv_protocol::control::NodeStatus;
use of_shards::{SHARD_METRICS, SHARD_SECONDS};
use std::fmt::Write as _;

struct Row {
    store: String,
    node: String,
    up: bool,
    restarts: u32,
    status: Option<NodeStatus>,
}

/// The same of a node.
type NodeMetric = (&'static str, &'static str, &'static str, fn(&NodeStatus) -> f64);

/// Metrics of a store with copies and of a node of one: name, help, value.
type StoreMetric = (&'static str, &'static str, fn(&CopiesView) -> u32);
type NodeCopiesMetric = (&'static str, &'static str, fn(&NodeCopies) -> u32);

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
    for (name, kind, help, of) in SHARD_SECONDS {
        head(&mut out, name, kind, help);
        for (row, status) in known(rows) {
            for (index, shard) in status.shards.iter().enumerate() {
                let index = index.to_string();
                let [store, node] = row.labels();
                line(&mut out, name, &[store, node, ("shard", &index)], of(shard));
            }
        }
    }
    histograms::of_shards(&mut out, rows);
    histograms::of_commands(&mut out, rows);
    out
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
    use dkv_protocol::control::{
        COMMAND_BUCKETS, CommandCounters, LATENCY_BUCKETS, ShardCounters, latency_bucket,
    };
    use std::collections::BTreeMap;

    /// Of so many calls three took 300 ns and the others longer than any bound.
    fn called(name: &str, calls: u64) -> CommandCounters {
        let mut buckets = vec![0; COMMAND_BUCKETS];
        buckets[1] = calls.min(3);
        buckets[COMMAND_BUCKETS - 1] = calls - calls.min(3);
        let name = name.to_owned();
        CommandCounters { name, calls, rejected: 2, failed: 1, ns: 5_000_000_000, buckets }
    }

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
            commands: vec![called("get", 7), called("config|set", 0)],
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
    fn a_command_has_a_histogram_when_it_was_called() {
        let text = render("m", 1, &[row(true)]);
        let labels = r#"store="S",node="node1",command="get""#;
        for line in [
            format!("dkv_command_seconds_bucket{{{labels},le=\"0.000000256\"}} 0"),
            format!("dkv_command_seconds_bucket{{{labels},le=\"0.000000512\"}} 3"),
            format!("dkv_command_seconds_bucket{{{labels},le=\"1.073741824\"}} 3"),
            format!("dkv_command_seconds_bucket{{{labels},le=\"+Inf\"}} 7"),
            format!("dkv_command_seconds_sum{{{labels}}} 5"),
            format!("dkv_command_seconds_count{{{labels}}} 7"),
            format!("dkv_command_calls_total{{{labels}}} 7"),
        ] {
            assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
        }
        assert!(!text.contains(
            "dkv_command_seconds_count{store=\"S\",node=\"node1\",command=\"config|set\""
        ));
        assert!(text.contains("command=\"config|set\"} 2\n"), "it was refused");
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
