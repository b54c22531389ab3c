//! What is shown, at every width.

use super::*;

fn rate(per_second: f64, total: u64) -> Rate {
    Rate { per_second: Some(per_second), total }
}

fn node(name: &str, gets: f64, p99_us: f64) -> Node {
    let metrics = NodeMetrics {
        store: "S".into(),
        node: name.into(),
        machine: "10.0.0.11:7801".into(),
        span_s: 5.0,
        commands: rate(gets * 2.0, 1),
        gets: rate(gets, 134_223),
        puts: rate(0.4, 7),
        removes: Rate::default(),
        keys: 1_000_000,
        connections: 50,
        forwarded: rate(gets, 0),
        errors: Rate::default(),
        memory_bytes: 3 << 29,
        resident_bytes: 2 << 30,
        cpus_used: Some(0.994),
        p50_us: Some(9.96),
        p99_us: Some(p99_us),
        p999_us: Some(12_345.0),
        queue_us: Some(4.0),
        execution_us: Some(0.25),
        replication_lag: 1234,
        replication_wait_us: Some(180.0),
        replication_oldest_ms: 3,
        expiry_lag_ms: 0,
        stalls: rate(0.0, 2),
    };
    Node {
        name: name.into(),
        machine: "10.0.0.11:7801".into(),
        state: "Running".into(),
        metrics: Some(metrics),
    }
}

fn facts() -> Facts {
    let down = Node {
        name: "node3".into(),
        machine: "10.0.0.12:7801".into(),
        state: "Stopped".into(),
        metrics: None,
    };
    Facts {
        store: "Orders".into(),
        updated: "14:02:11 UTC".into(),
        nodes: vec![node("node1", 2341.4, 300.0), node("node2", 9_999_999.0, 20.0), down],
        remarks: vec!["10.0.0.13:7801: cannot connect".into()],
    }
}

fn text(look: &Look, width: usize) -> String {
    let lines = lines(&facts(), look, width);
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn rates_stand_beside_totals_as_in_the_original() {
    let text = text(&Look::default(), 400);
    for part in [
        "Store: Orders    Updated: 14:02:11 UTC",
        "2,341/s (134,223)",
        "- (0)",
        "1,000,000",
        "10.0us",
        "300us",
        "12ms",
        "1.5GiB",
        "50%",
        "99%",
        "1,234",
        "0/s (2)",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let down = text.lines().find(|line| line.starts_with("node3")).expect("it is shown");
    assert!(down.contains("Stopped") && !down.contains("/s"), "{down}");
    assert!(text.ends_with("10.0.0.13:7801: cannot connect"), "{text}");
}

#[test]
fn no_line_is_wider_than_the_terminal_and_the_most_important_stays() {
    for width in 0..250 {
        for look in [
            Look::default(),
            Look { by_metric: true, ..Look::default() },
            Look { help: true, ..Look::default() },
            Look { picked: Some(1), alone: true, ..Look::default() },
        ] {
            for line in lines(&facts(), &look, width) {
                assert!(width_of(&line.text) <= width, "{width}: {:?}", line.text);
            }
        }
        let text = text(&Look::default(), width);
        if width >= 20 {
            for name in ["node1", "node2", "node3"] {
                assert!(text.contains(name), "{width}: {text}");
            }
        }
        if width >= 30 {
            assert!(text.contains("2,341/s (134,223)"), "{width}: {text}");
        }
        if (ROWS_WIDTH_MIN..200).contains(&width) {
            let titles = text.lines().nth(2).expect("a head");
            let has = |title: &str| titles.split_whitespace().any(|one| one == title);
            // What is less important goes first.
            assert!(has("Get") && (has("p99") || !has("Queue")), "{width}: {titles}");
        }
    }
    assert!(text(&Look::default(), 300).contains("Stalls"));
}

#[test]
fn rows_are_sorted_by_the_column_that_was_chosen() {
    let order = |look: &Look| -> Vec<String> {
        sorted(&facts(), look).iter().map(|node| node.name.clone()).collect()
    };
    let by = |title: &str| 1 + COLUMNS.iter().position(|c| c.title == title).expect("a column");
    assert_eq!(order(&Look::default()), ["node1", "node2", "node3"]);
    let gets = Look { sort: by("Get"), ..Look::default() };
    assert_eq!(order(&gets), ["node2", "node1", "node3"]);
    assert_eq!(order(&Look { reverse: true, ..gets.clone() }), ["node3", "node1", "node2"]);
    assert_eq!(order(&Look { sort: by("p99"), ..Look::default() }), ["node1", "node2", "node3"]);
    assert!(text(&gets, 300).contains("Getv"), "the head says so");
    // A row is picked by its place.
    let picked = Look { picked: Some(0), ..gets };
    let line = lines(&facts(), &picked, 300).into_iter().find(|l| l.style == Style::Picked);
    assert!(line.is_some_and(|line| line.text.starts_with("node2")));
}

#[test]
fn every_column_is_explained_and_has_a_rank_of_its_own() {
    let help = text(&Look { help: true, ..Look::default() }, 120);
    let mut ranks: Vec<u8> = COLUMNS.iter().map(|column| column.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    assert_eq!(ranks.len(), COLUMNS.len());
    assert!(!ranks.contains(&5) && !ranks.contains(&0), "those of the name and the state");
    for column in COLUMNS {
        assert!(help.contains(column.title) && help.contains(column.meaning), "{}", column.title);
    }
}

#[test]
fn metrics_become_rows_as_in_the_original() {
    let text = text(&Look { by_metric: true, ..Look::default() }, 200);
    let head = text.lines().nth(2).expect("a head");
    assert!(head.starts_with("Category  Metric") && head.contains("10.0.0.11/node1"), "{head}");
    let get = text.lines().find(|line| line.starts_with("DKV       Get")).expect("a row");
    assert!(get.contains("2,341/s (134,223)") && get.contains("9,999,999/s"), "{get}");
}
