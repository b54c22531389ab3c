//! `dkv bench` against stores whose nodes are killed, stopped and moved under it.

use dkv_tests::machine::{Machine, Network, Process, until, workspace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;

/// A machine with a manager and a store of three nodes.
fn site(flags: &str) -> (Machine, Process) {
    let machine = Network::alone();
    let manager = machine.manager(&[]);
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    let create =
        format!("store create Held --instance-prefix node --instance-count 3 --cpus 1 {flags}");
    machine.dkv(&create).ok();
    machine.dkv("store start Held").ok();
    (machine, manager)
}

const FAILOVER: &str =
    "bench failover Held --pause 500ms --clients 6 --rate 3k --keys 1536 -o json";

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}):\n{text}"))
}

#[track_caller]
fn refused(machine: &Machine, line: &str, code: i32, words: &[&str]) {
    let said = machine.dkv(line).fails(code).all();
    assert!(words.iter().all(|word| said.contains(word)), "{line}: {words:?} in\n{said}");
}

/// Nobody's keys are left in the store.
fn is_empty(machine: &Machine) -> bool {
    machine.redis("127.0.0.1", 7861, &["dbsize"]) == "0"
}

#[test]
fn killed_nodes_lose_no_answered_write_and_the_store_is_left_as_it_was() {
    let (machine, _manager) = site("--replicas 1");
    let result = document(&machine.dkv(&format!("{FAILOVER} --rounds 2")).ok().out);
    for broken in ["lost", "stale", "invented"] {
        assert_eq!(result[broken], 0, "{result:#}");
    }
    assert!(result["answered"]["writes"].as_u64() > Some(1000), "{result:#}");
    assert!(result["verified_keys"].as_u64() > Some(1000), "{result:#}");
    let rounds = result["rounds"].as_array().expect("a list");
    assert_eq!(rounds.len(), 2);
    assert_ne!(rounds[0]["node"], rounds[1]["node"]);
    for round in rounds {
        let gap = &round["gap_ms"];
        assert!(gap["ranges"].as_u64() > Some(50) && gap["max"].as_f64() > Some(0.0), "{round}");
        // Some 85 ranges say nothing of a p99.
        assert!(gap["p99"].is_null() && gap["p50"].is_number(), "{round}");
        assert!(round["full_copies_s"].as_f64() > Some(0.0), "{round}");
    }
    let restarts: u64 = machine.json("store show Held")["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| node["restarts"].as_u64())
        .sum();
    assert_eq!(restarts, 2, "they were killed, and started again by their manager");
    assert!(is_empty(&machine));
}

#[test]
fn nodes_that_are_stopped_lose_nothing_and_those_that_are_relieved_are_seen_by_no_client() {
    let (machine, _manager) = site("--replicas 1");
    for how in ["stop", "drain"] {
        let line = format!("{FAILOVER} --rounds 1 --node node-2 --how {how}");
        let result = document(&machine.dkv(&line).ok().out);
        assert_eq!((&result["lost"], &result["stale"]), (&0.into(), &0.into()), "{result:#}");
        // Who is connected to a node that stops sees its connection end.
        if how == "drain" {
            assert_eq!(result["errors"], serde_json::json!({}), "{result:#}");
        }
        assert_eq!(result["rounds"][0]["node"], "node2", "{result:#}");
    }
    assert!(is_empty(&machine));
}

#[test]
fn what_a_store_without_copies_loses_is_lost_only_on_request_and_then_counted() {
    let (machine, _manager) = site("--replicas 0");
    let line = "bench failover Held --rounds 1";
    refused(&machine, line, 1, &["one copy of each range", "--accept-loss", "--replicas 1"]);
    refused(&machine, &format!("{line} --how drain --accept-loss"), 1, &["no node can take over"]);
    assert_eq!(machine.json("store show Held")["nodes"][0]["restarts"], 0, "nobody was killed");
    let output = machine.dkv(&format!("{FAILOVER} --rounds 1 --accept-loss")).fails(1);
    let result = document(&output.out);
    // A third of the keys was on the node that was killed.
    assert!(result["lost"].as_u64() > Some(100), "{result:#}");
    assert!(result["examples"].as_array().is_some_and(|some| !some.is_empty()), "{result:#}");
    assert!(output.err.contains("answered writes are lost"), "{}", output.err);
    assert!(is_empty(&machine));
}

#[test]
fn a_failover_that_makes_no_sense_is_refused_before_anything_is_done() {
    let (machine, _manager) = site("--replicas 1");
    for (flags, code, words) in [
        ("Nobody", 1, &["there is no store", "dkv store list"][..]),
        ("Held --node node9", 2, &["no node \"node9\"", "node1, node2, node3"]),
        ("Held --value-size 10", 2, &["64 to", "--value-size 64"]),
        ("Held --clients 0", 2, &["0 clients"]),
        ("Held --reads 100", 2, &["100 reads", "--reads 99"]),
    ] {
        refused(&machine, &format!("bench failover {flags}"), code, words);
    }
    machine.dkv("store stop Held --instance node2").ok();
    let words = ["node2 of Held does not run", "dkv store start Held"];
    refused(&machine, "bench failover Held", 1, &words);
}

#[test]
fn a_cluster_aware_load_follows_what_moves_without_an_error() {
    let (machine, _manager) = site("--replicas 1");
    let flags = ["bench", "--route", "cluster", "--rate", "3000", "--duration", "1h", "-o", "json"];
    let mut load = machine.command("dkv", &flags);
    load.stdout(Stdio::piped()).stderr(Stdio::piped());
    let load = load.spawn().expect("ip (Debian: iproute2) is installed");
    until("it goes on", || machine.redis("127.0.0.1", 7861, &["dbsize"]) != "0");
    machine.whole("Held");
    machine.dkv("store failover Held --instance node1").ok();
    machine.dkv("store failover Held --instance node1 --back").ok();
    machine.dkv("store add-instance Held").ok();
    machine.dkv("store start Held --instance node4").ok();
    // The new one leads its share when nothing moves any more.
    until("it has its share", || {
        let copies = machine.json("store show Held")["copies"].clone();
        let new = copies["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|n| n["name"] == "node4"));
        copies["moving_ranges"] == 0 && new.is_some_and(|node| node["leads"].as_u64() > Some(0))
    });
    machine.dkv("store remove-instance Held --instance node2").ok();
    machine.whole("Held");
    // All of that may take less than half a second.
    let handled = || -> u64 {
        let info = machine.redis("127.0.0.1", 7861, &["info", "stats"]);
        let count = info.lines().find_map(|l| l.strip_prefix("total_commands_processed:"));
        count.and_then(|count| count.trim().parse().ok()).expect("a number")
    };
    let then = handled();
    until("it goes on after that", || handled() > then + 500);
    let pid = Pid::from_raw(load.id().cast_signed()).expect("a pid");
    kill_process(pid, Signal::INT).expect("it is ours and not waited for");
    let output = load.wait_with_output().expect("it ends");
    let result = document(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(130), "{result:#}");
    assert_eq!(result["errors"], serde_json::json!({}), "{result:#}");
    assert!(result["routes_changed"].as_u64() > Some(0), "{result:#}");
    assert!(result["requests"].as_u64() > Some(500), "{result:#}");
}

#[test]
fn a_cluster_aware_load_goes_on_when_a_node_dies() {
    let (machine, _manager) = site("--replicas 1");
    machine.whole("Held");
    let flags = ["bench", "--route", "cluster", "--rate", "3000", "--duration", "1h", "-o", "json"];
    let mut load = machine.command("dkv", &flags);
    load.stdout(Stdio::piped()).stderr(Stdio::piped());
    let load = load.spawn().expect("ip (Debian: iproute2) is installed");
    until("it goes on", || machine.redis("127.0.0.1", 7861, &["dbsize"]) != "0");
    // It kills a node while the other load goes on.
    machine.dkv(&format!("{FAILOVER} --rounds 2")).ok();
    let pid = Pid::from_raw(load.id().cast_signed()).expect("a pid");
    kill_process(pid, Signal::INT).expect("it is ours and not waited for");
    let output = load.wait_with_output().expect("it ends");
    let result = document(&String::from_utf8_lossy(&output.stdout));
    // What was under way at a node that died is asked again, as a client library does it.
    assert_eq!(result["errors"], serde_json::json!({}), "{result:#}");
    assert!(result["reconnected"].as_u64() > Some(0) && result["rate_held"] == true, "{result:#}");
}

/// The commands of the README that measure: those of the block in which the first of them stands.
fn of_readme() -> Vec<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains("\n$ dkv bench ")).expect("the block");
    block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

#[test]
fn every_bench_command_of_the_readme_works_on_a_store_and_beside_another_product() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    machine.dkv("store create TestStore --instance-prefix node --instance-count 3 --replicas 1 --cpus 1").ok();
    machine.dkv("store start TestStore").ok();
    let _redis = machine.background("redis-server", &["--port", "6379", "--save", ""], "redis.log");
    until("redis answers", || machine.run("redis-cli", &["ping"]).out.trim() == "PONG");
    let commands = of_readme();
    for word in [
        "--prefill",
        "--route cluster",
        "--target",
        "--compare",
        "sweep",
        "failover",
        "Benchmark-DkvStore",
    ] {
        assert!(commands.iter().any(|command| command.contains(word)), "{word} in {commands:?}");
    }
    for line in &commands {
        let mut command = machine.command("sh", &["-c", line]);
        // As it stands there, but short: what it measures is not what this is about.
        for (name, value) in [
            ("WARM_UP", "0"),
            ("DURATION", "500ms"),
            ("DURATION_SEC", "1"),
            ("KEYS", "2000"),
            ("TO", "2000"),
            ("SAMPLES", "10"),
            ("LONGEST", "5s"),
            ("PAUSE", "300ms"),
        ] {
            command.env(format!("DKV_BENCH_{name}"), value);
        }
        let output = machine.run_command(command);
        let said = output.all();
        // Whether a busy machine holds a bound, or a rate, is not known.
        if line.contains(" sweep ") {
            assert!(said.contains("p99.9 to the bound"), "{said}");
        } else if line.contains("--rate") {
            assert!([0, 4].contains(&output.code), "{line}: {said}");
        } else {
            assert_eq!(output.code, 0, "{line}: {said}");
        }
        let expected: &[&str] = match () {
            () if line.contains("--compare") => &["rate/s", "p99 ms", "Verdict"],
            () if line.contains("failover") => &["Lost      : 0", "Stale     : 0"],
            () if line.contains("Benchmark-") => &["OpsPerSecond"],
            () if line.contains(" > ") || line.contains("sweep") => &[],
            () => &["Answered", "p99", "SinceSend"],
        };
        assert!(expected.iter().all(|word| said.contains(word)), "{line}: {expected:?} in {said}");
    }
    let written = |name: &str| std::fs::read_to_string(machine.path(name)).expect(name);
    assert!(written("curve.svg").starts_with("<svg") && written("curve.svg").contains("bound 1"));
    assert!(written("latencies.hlog").contains("Tag=read,"));
    for name in ["redis.json", "dkv.json"] {
        assert!(document(&written(name))["requests"].as_u64() > Some(100), "{name}");
    }
}
