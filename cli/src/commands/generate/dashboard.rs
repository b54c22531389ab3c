//! The dashboard: rows of panels as data, and the JSON that Grafana (schema 39, version 10 and later) makes of it. A test of real
//! processes compares every metric named here with what managers export.

use serde_json::{Value, json};

/// A panel: its title, the unit of its axis, and its lines as legend and query.
struct Panel {
    title: &'static str,
    unit: &'static str,
    about: &'static str,
    lines: &'static [(&'static str, &'static str)],
}

/// What every query of a shard or node is narrowed by, in place of `SEL`; of commands, in place of `CMD`; of a store, `STORE`.
const SELECTORS: [(&str, &str); 3] = [
    ("SEL", r#"store=~"$store",node=~"$node""#),
    ("CMD", r#"store=~"$store",node=~"$node",command=~"$command""#),
    ("STORE", r#"store=~"$store""#),
];

/// Rows with their panels.
const ROWS: &[(&str, &[Panel])] = &[
    (
        "State",
        &[
            Panel {
                title: "Nodes up",
                unit: "none",
                about: "Nodes that run and answer their managers, of those that there are.",
                lines: &[
                    ("{{store}} up", "sum by (store) (dkv_node_up{SEL})"),
                    ("{{store}} all", "count by (store) (dkv_node_up{SEL})"),
                ],
            },
            Panel {
                title: "Ranges not as they should be",
                unit: "none",
                about: "Of stores with copies: ranges with fewer copies in sync than asked for, without a copy, on their way, and not yet formed.",
                lines: &[
                    ("{{store}} degraded", "max by (store) (dkv_degraded_ranges{STORE})"),
                    ("{{store}} offline", "max by (store) (dkv_offline_ranges{STORE})"),
                    ("{{store}} moving", "max by (store) (dkv_moving_ranges{STORE})"),
                    ("{{store}} unformed", "max by (store) (dkv_unformed_ranges{STORE})"),
                ],
            },
            Panel {
                title: "Failovers",
                unit: "none",
                about: "Ranges that were taken over, by the node that leads them since.",
                lines: &[(
                    "{{store}} {{node}}",
                    "sum by (store, node) (increase(dkv_takeovers_total{SEL}[$__rate_interval]))",
                )],
            },
            Panel {
                title: "Duration of failovers",
                unit: "s",
                about: "How long a range had no leader: the mean in the interval, and the longest since the start.",
                lines: &[
                    (
                        "{{store}} mean",
                        "sum by (store) (rate(dkv_takeover_seconds_total{SEL}[$__rate_interval])) / sum by (store) (rate(dkv_takeovers_total{SEL}[$__rate_interval]))",
                    ),
                    ("{{store}} longest", "max by (store) (dkv_takeover_seconds_max{SEL})"),
                ],
            },
            Panel {
                title: "Restarts",
                unit: "none",
                about: "Processes of nodes that were started again.",
                lines: &[(
                    "{{store}} {{node}}",
                    "increase(dkv_node_restarts_total{SEL}[$__rate_interval])",
                )],
            },
            Panel {
                title: "Ranges in sync, and led",
                unit: "none",
                about: "Copies of ranges that count, and those that the node leads.",
                lines: &[
                    ("{{node}} in sync", "max by (store, node) (dkv_node_ranges_in_sync{SEL})"),
                    ("{{node}} led", "max by (store, node) (dkv_node_ranges_led{SEL})"),
                ],
            },
        ],
    ),
    (
        "Requests",
        &[
            Panel {
                title: "Commands",
                unit: "ops",
                about: "Commands answered to clients.",
                lines: &[(
                    "{{store}} {{node}}",
                    "sum by (store, node) (rate(dkv_commands_total{SEL}[$__rate_interval]))",
                )],
            },
            Panel {
                title: "Commands by name",
                unit: "ops",
                about: "Executions, wherever the client was.",
                lines: &[(
                    "{{command}}",
                    "sum by (command) (rate(dkv_command_calls_total{CMD}[$__rate_interval]))",
                )],
            },
            Panel {
                title: "Time in the shard",
                unit: "s",
                about: "From the completion that brought a request to its reply being queued.",
                lines: &[
                    (
                        "p50",
                        "histogram_quantile(0.5, sum by (le) (rate(dkv_service_seconds_bucket{SEL}[$__rate_interval])))",
                    ),
                    (
                        "p99",
                        "histogram_quantile(0.99, sum by (le) (rate(dkv_service_seconds_bucket{SEL}[$__rate_interval])))",
                    ),
                    (
                        "p99.9",
                        "histogram_quantile(0.999, sum by (le) (rate(dkv_service_seconds_bucket{SEL}[$__rate_interval])))",
                    ),
                ],
            },
            Panel {
                title: "Queue against execution",
                unit: "s",
                about: "The mean time of a request in the shard, its own execution, and the rest, which is the work of others in its turn.",
                lines: &[
                    (
                        "in the shard",
                        "sum(rate(dkv_service_seconds_sum{SEL}[$__rate_interval])) / sum(rate(dkv_service_seconds_count{SEL}[$__rate_interval]))",
                    ),
                    (
                        "execution",
                        "sum(rate(dkv_execution_seconds_total{SEL}[$__rate_interval])) / sum(rate(dkv_executed_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "queue",
                        "clamp_min(sum(rate(dkv_service_seconds_sum{SEL}[$__rate_interval])) / sum(rate(dkv_service_seconds_count{SEL}[$__rate_interval])) - sum(rate(dkv_execution_seconds_total{SEL}[$__rate_interval])) / sum(rate(dkv_executed_total{SEL}[$__rate_interval])), 0)",
                    ),
                ],
            },
            Panel {
                title: "Execution by command, p50",
                unit: "s",
                about: "Without what it waited for.",
                lines: &[(
                    "{{command}}",
                    "histogram_quantile(0.5, sum by (le, command) (rate(dkv_command_seconds_bucket{CMD}[$__rate_interval])))",
                )],
            },
            Panel {
                title: "Execution by command, p99",
                unit: "s",
                about: "Without what it waited for.",
                lines: &[(
                    "{{command}}",
                    "histogram_quantile(0.99, sum by (le, command) (rate(dkv_command_seconds_bucket{CMD}[$__rate_interval])))",
                )],
            },
            Panel {
                title: "Execution by command, p99.9",
                unit: "s",
                about: "Without what it waited for.",
                lines: &[(
                    "{{command}}",
                    "histogram_quantile(0.999, sum by (le, command) (rate(dkv_command_seconds_bucket{CMD}[$__rate_interval])))",
                )],
            },
            Panel {
                title: "Errors",
                unit: "ops",
                about: "Commands answered with an error; by command those that were refused, and that failed while they ran.",
                lines: &[
                    ("{{node}}", "sum by (node) (rate(dkv_errors_total{SEL}[$__rate_interval]))"),
                    (
                        "{{command}} refused",
                        "sum by (command) (rate(dkv_command_rejected_total{CMD}[$__rate_interval])) > 0",
                    ),
                    (
                        "{{command}} failed",
                        "sum by (command) (rate(dkv_command_failed_total{CMD}[$__rate_interval])) > 0",
                    ),
                ],
            },
            Panel {
                title: "Hits",
                unit: "percentunit",
                about: "Reads that found a value.",
                lines: &[(
                    "{{store}}",
                    "sum by (store) (rate(dkv_hits_total{SEL}[$__rate_interval])) / (sum by (store) (rate(dkv_hits_total{SEL}[$__rate_interval])) + sum by (store) (rate(dkv_misses_total{SEL}[$__rate_interval])))",
                )],
            },
            Panel {
                title: "Forwarded",
                unit: "percentunit",
                about: "Requests sent to other shards, of all commands.",
                lines: &[(
                    "{{node}}",
                    "sum by (node) (rate(dkv_forwarded_total{SEL}[$__rate_interval])) / sum by (node) (rate(dkv_commands_total{SEL}[$__rate_interval]))",
                )],
            },
        ],
    ),
    (
        "Copies",
        &[
            Panel {
                title: "Wait of writes for their copies",
                unit: "s",
                about: "Of the writes of a range that wait together the first: the mean in the interval, and the longest since the start.",
                lines: &[
                    (
                        "{{node}} mean",
                        "sum by (node) (rate(dkv_commit_wait_seconds_total{SEL}[$__rate_interval])) / sum by (node) (rate(dkv_commits_total{SEL}[$__rate_interval]))",
                    ),
                    ("{{node}} longest", "max by (node) (dkv_commit_wait_seconds_max{SEL})"),
                ],
            },
            Panel {
                title: "Replication lag",
                unit: "s",
                about: "For how long the oldest write has waited that its copies do not have yet.",
                lines: &[("{{node}}", "max by (node) (dkv_replication_lag_seconds{SEL})")],
            },
            Panel {
                title: "Replication lag in changes",
                unit: "none",
                about: "Changes that the copy furthest behind does not hold yet.",
                lines: &[("{{node}}", "max by (node) (dkv_replication_lag_changes{SEL})")],
            },
            Panel {
                title: "Copies filled",
                unit: "Bps",
                about: "Bytes sent to copies that did not count yet.",
                lines: &[
                    (
                        "{{node}} in full",
                        "sum by (node) (rate(dkv_resync_full_bytes_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "{{node}} what they missed",
                        "sum by (node) (rate(dkv_resync_log_bytes_total{SEL}[$__rate_interval]))",
                    ),
                ],
            },
        ],
    ),
    (
        "Memory, connections, CPU",
        &[
            Panel {
                title: "Memory",
                unit: "bytes",
                about: "What counts against the limit, and what the process has.",
                lines: &[
                    ("{{node}} used", "sum by (store, node) (dkv_memory_bytes{SEL})"),
                    ("{{node}} resident", "dkv_node_resident_bytes{SEL}"),
                ],
            },
            Panel {
                title: "Keys",
                unit: "none",
                about: "Keys, and those with an expiry.",
                lines: &[
                    ("{{store}}", "sum by (store) (dkv_keys{SEL})"),
                    ("{{store}} with expiry", "sum by (store) (dkv_keys_with_expiry{SEL})"),
                ],
            },
            Panel {
                title: "Evicted and expired",
                unit: "ops",
                about: "Keys that went because memory was at its limit, and at the end of their time.",
                lines: &[
                    (
                        "{{node}} evicted",
                        "sum by (node) (rate(dkv_evicted_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "{{node}} expired",
                        "sum by (node) (rate(dkv_expired_total{SEL}[$__rate_interval]))",
                    ),
                ],
            },
            Panel {
                title: "Expiry lag",
                unit: "s",
                about: "How late expired keys are removed that nobody asks for, in the mean.",
                lines: &[(
                    "{{node}}",
                    "sum by (node) (rate(dkv_expired_late_seconds_total{SEL}[$__rate_interval])) / sum by (node) (rate(dkv_expired_total{SEL}[$__rate_interval]))",
                )],
            },
            Panel {
                title: "Connections",
                unit: "none",
                about: "Connections of clients.",
                lines: &[("{{node}}", "sum by (store, node) (dkv_connections{SEL})")],
            },
            Panel {
                title: "Connections refused and cut off",
                unit: "ops",
                about: "Refused at the limit, and cut off because they read too slowly.",
                lines: &[
                    (
                        "{{node}} refused",
                        "sum by (node) (rate(dkv_connections_refused_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "{{node}} cut off",
                        "sum by (node) (rate(dkv_connections_cut_total{SEL}[$__rate_interval]))",
                    ),
                ],
            },
            Panel {
                title: "Bytes",
                unit: "Bps",
                about: "Read from clients, and queued for them.",
                lines: &[
                    (
                        "{{node}} in",
                        "sum by (node) (rate(dkv_received_bytes_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "{{node}} out",
                        "sum by (node) (rate(dkv_sent_bytes_total{SEL}[$__rate_interval]))",
                    ),
                ],
            },
            Panel {
                title: "CPUs in use",
                unit: "none",
                about: "CPU seconds a second of the processes.",
                lines: &[("{{node}}", "rate(dkv_node_cpu_seconds_total{SEL}[$__rate_interval])")],
            },
            Panel {
                title: "Stalls",
                unit: "none",
                about: "Pieces of work over 1 ms of CPU time, and turns of the loop over 1 ms.",
                lines: &[
                    (
                        "{{node}} pieces",
                        "sum by (node) (increase(dkv_loop_stalls_total{SEL}[$__rate_interval]))",
                    ),
                    (
                        "{{node}} turns",
                        "sum by (node) (increase(dkv_loop_long_turns_total{SEL}[$__rate_interval]))",
                    ),
                ],
            },
        ],
    ),
];

/// The whole width of a dashboard, and what a panel takes of it.
const WIDTH: usize = 24;
const PANEL: (usize, usize) = (8, 8);

/// The document.
pub(super) fn dashboard(title: &str) -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for (row, inside) in ROWS {
        panels.push(json!({
            "id": panels.len() + 1, "type": "row", "title": row, "collapsed": false,
            "gridPos": { "x": 0, "y": y, "w": WIDTH, "h": 1 }, "panels": [],
        }));
        y += 1;
        let columns = WIDTH / PANEL.0;
        for (at, panel) in inside.iter().enumerate() {
            let place = (at % columns * PANEL.0, y + at / columns * PANEL.1);
            panels.push(panel_json(panels.len() + 1, panel, place));
        }
        y += inside.len().div_ceil(columns) * PANEL.1;
    }
    json!({
        "title": title,
        "uid": "dkv",
        "tags": ["dkv"],
        "schemaVersion": 39,
        "editable": true,
        "timezone": "browser",
        "refresh": "10s",
        "time": { "from": "now-30m", "to": "now" },
        "templating": { "list": [
            { "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus" },
            choice("store", "label_values(dkv_node_up, store)"),
            choice("node", r#"label_values(dkv_node_up{store=~"$store"}, node)"#),
            choice("command", r#"label_values(dkv_command_calls_total{store=~"$store"}, command)"#),
        ]},
        "annotations": { "list": [] },
        "panels": panels,
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// One of the lists above the panels: any number of values, all of them at first.
fn choice(name: &str, query: &str) -> Value {
    json!({
        "name": name, "label": name, "type": "query", "datasource": source(), "query": query,
        "refresh": 2, "multi": true, "includeAll": true, "sort": 1,
        "current": { "text": "All", "value": "$__all" },
    })
}

fn panel_json(id: usize, panel: &Panel, (x, y): (usize, usize)) -> Value {
    let targets = panel.lines.iter().zip("ABCDEFGH".chars()).map(|((legend, query), name)| {
        json!({
            "refId": name.to_string(), "expr": selected(query), "legendFormat": legend,
            "datasource": source(),
        })
    });
    json!({
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source(),
        "gridPos": { "x": x, "y": y, "w": PANEL.0, "h": PANEL.1 },
        "fieldConfig": {
            "defaults": { "unit": panel.unit, "min": 0, "custom": { "fillOpacity": 5, "showPoints": "never" } },
            "overrides": [],
        },
        "options": {
            "legend": { "displayMode": "list", "placement": "bottom" },
            "tooltip": { "mode": "multi", "sort": "desc" },
        },
        "targets": targets.collect::<Vec<_>>(),
    })
}

/// A query with its selectors in place of the words.
fn selected(query: &str) -> String {
    SELECTORS.iter().fold(query.to_owned(), |query, (word, selector)| {
        query.replace(&format!("{{{word}}}"), &format!("{{{selector}}}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn panels_have_numbers_and_places_of_their_own_and_whole_queries() {
        let dashboard = dashboard("x");
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
        let places: BTreeSet<String> = panels.iter().map(|p| p["gridPos"].to_string()).collect();
        assert_eq!((ids.len(), places.len()), (panels.len(), panels.len()));
        let mut queries = 0;
        for panel in panels.iter().filter(|panel| panel["type"] == "timeseries") {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let count = |c: char| query.matches(c).count();
                assert!(query.contains("store=~\"$store\""), "{query}");
                assert!(!query.contains("SEL") && !query.contains("CMD"), "{query}");
                assert_eq!((count('('), count('{')), (count(')'), count('}')), "{query}");
                queries += 1;
            }
        }
        assert!(queries > 40, "{queries}");
    }
}
