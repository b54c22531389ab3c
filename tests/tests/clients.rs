//! Clients and tools that people already have.

use dkv_tests::machine::{Machine, Network, Output, until, workspace};
use dkv_tests::roster;
use std::fmt::Write as _;

#[test]
fn redis_py_plain_and_cluster_agree_with_a_model() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine
        .python("mixed.py", &["plain", "127.0.0.1", "7862", "10000"])
        .ok()
        .says(&["10000 operations"]);
    machine
        .python("mixed.py", &["cluster", "127.0.0.1", "7861", "10000"])
        .ok()
        .says(&["10000 operations"]);
}

#[test]
fn redis_py_transactions_are_whole_through_any_node() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    for kind in ["plain", "cluster"] {
        let run = machine
            .python("transactions.py", &[kind, "127.0.0.1", "7861", "200", "7862"])
            .ok()
            .says(&["1000 transactions"]);
        // Four threads on two keys: a WATCH that never aborts does not watch.
        assert!(!run.all().contains(" 0 aborted"), "{}", run.all());
    }
}

#[test]
fn redis_py_subscribers_on_any_node_get_what_is_published_on_any() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine
        .python("pubsub.py", &["plain", "127.0.0.1", "7861", "7862", "500"])
        .ok()
        .says(&["1000 messages to 8 subscribers"]);
    machine
        .python("pubsub.py", &["cluster", "127.0.0.1", "7861", "7862", "500"])
        .ok()
        .says(&["1000 messages to 4 subscribers"]);
}

/// Runs the everyday use of a client twice, with another node killed in the middle of each, and holds what it says against
/// the README.
fn everyday(run: impl Fn(&Machine, &[&str]) -> Output) {
    let machine = Network::alone();
    machine.dkv("up").ok();
    for (kind, port, node) in [("plain", "7861", 0), ("cluster", "7862", 1)] {
        machine.whole("local");
        let pid = machine.node_pid(node).to_string();
        let output = run(&machine, &[kind, "127.0.0.1", port, &pid]).ok();
        roster::holds(&output.out);
    }
}

#[test]
fn redis_py_works_as_programs_use_it() {
    everyday(|machine, args| machine.python("everyday.py", args));
}

#[test]
fn ioredis_works_as_programs_use_it() {
    everyday(|machine, args| machine.node("everyday.cjs", &[&["ioredis"], args].concat()));
}

#[test]
fn node_redis_works_as_programs_use_it() {
    everyday(|machine, args| machine.node("everyday.cjs", &[&["node-redis"], args].concat()));
}

/// The version that a tool of Redis prints of itself.
fn version(machine: &Machine, tool: &str) -> String {
    let line = machine.run(tool, &["--version"]).ok().out;
    line.split_whitespace().nth(1).expect("name and version").to_owned()
}

#[test]
fn redis_cli_is_at_home() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let cli = |line: &str| machine.run("redis-cli", &line.split(' ').collect::<Vec<_>>()).ok();
    let version = version(&machine, "redis-cli");

    assert_eq!(cli("-p 7861 set a 1").out, "OK\n");
    assert_eq!(cli("-p 7862 get a").out, "1\n");
    assert_eq!(cli("--json -p 7861 mget a none").out, "[\"1\",null]\n");
    assert_eq!(cli("-3 -p 7861 get none").out, "\n");
    let every: Vec<u8> = (0..=255).collect();
    let mut from_stdin = machine.command("redis-cli", &["-p", "7861", "-x", "set", "every"]);
    from_stdin.stdin(machine.open("every", &every));
    assert_eq!(machine.run_command(from_stdin).ok().out, "OK\n");
    assert_eq!(cli("-p 7862 strlen every").out, "256\n");
    let mut sets = String::new();
    for i in 0..10_000 {
        let _ = write!(sets, "SET piped:{i} {i}\r\n");
    }
    let mut pipe = machine.command("redis-cli", &["-p", "7861", "--pipe"]);
    pipe.stdin(machine.open("sets", sets.as_bytes()));
    machine.run_command(pipe).ok().says(&["errors: 0, replies: 10000"]);
    assert_eq!(cli("-p 7862 --scan --pattern piped:*").out.lines().count(), 10_000);
    cli("-p 7861 --bigkeys")
        .says(&["Biggest string found", "\"every\"", "256 bytes"])
        .says(&["10002 strings"]);
    let ran = "SET and GET, RESP3, --json, -x, --pipe, --scan, --bigkeys";
    roster::holds(&format!("redis-cli {version} plain: {ran}"));

    // Followed to the owner from either shard port.
    for port in [7900, 7901] {
        assert_eq!(cli(&format!("-c -p {port} set piped:7 seven")).out, "OK\n");
        assert_eq!(cli(&format!("-c -p {port} get piped:7")).out, "seven\n");
    }
    cli("--cluster check 127.0.0.1:7861")
        .says(&["[OK] All nodes agree about slots configuration."])
        .says(&["[OK] All 16384 slots covered."]);
    // On a shard port DBSIZE is the shard's, so that the sum is the store's.
    cli("--cluster info 127.0.0.1:7900").says(&["[OK] 10002 keys in 2 masters."]);
    let called = cli("--cluster call 127.0.0.1:7900 ping").out;
    assert_eq!(called.matches("PONG").count(), 2, "{called}");
    let ran = "-c, --cluster check, --cluster info, --cluster call";
    roster::holds(&format!("redis-cli {version} cluster: {ran}"));
}

#[test]
fn redis_benchmark_runs_clean() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let version = version(&machine, "redis-benchmark");
    let bench = |line: &str| {
        let output =
            machine.run("redis-benchmark", &line.split(' ').collect::<Vec<_>>()).ok().all();
        assert!(!output.to_lowercase().contains("error"), "{output}");
        assert!(output.contains("requests per second"), "{output}");
    };
    bench("-p 7861 -t ping,set,get,incr,mset -P 16 -r 1000000 -n 100000 -q");
    let ran = "ping, set, get, incr, mset at pipeline 16";
    roster::holds(&format!("redis-benchmark {version} plain: {ran}"));
    bench("-p 7861 --cluster -t set,get -P 16 -r 1000000 -n 100000 -q");
    roster::holds(&format!("redis-benchmark {version} cluster: set, get at pipeline 16"));
    assert_ne!(machine.redis("127.0.0.1", 7861, &["dbsize"]), "0");
}

#[test]
fn redis_exporter_reads_a_node_without_an_error() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    for i in 0..10 {
        machine.redis("127.0.0.1", 7861, &["set", &format!("exported:{i}"), "12345"]);
    }
    let program = "prometheus-redis-exporter";
    let line = machine.run(program, &["-version"]).ok().all();
    let version = line.split("Exporter ").nth(1).and_then(|rest| rest.split('-').next());
    let version = version.unwrap_or_else(|| panic!("no version in {line:?}")).to_owned();
    for (kind, more) in [("plain", None), ("cluster", Some("-is-cluster"))] {
        let options = [
            "-redis.addr=redis://127.0.0.1:7861",
            "-web.listen-address=127.0.0.1:9121",
            "-include-system-metrics",
            "-include-config-metrics",
            "-export-client-list",
            "-check-single-keys=db0=exported:7",
        ];
        let options: Vec<&str> = options.into_iter().chain(more).collect();
        let exporter = machine.background(program, &options, "exporter.log");
        let mut text = String::new();
        until("the exporter answers", || {
            let answer = machine.run("curl", &["-sf", "http://127.0.0.1:9121/metrics"]);
            text = answer.out;
            answer.code == 0
        });
        for wanted in [
            "redis_up 1",
            "redis_exporter_last_scrape_error{err=\"\"} 0",
            "redis_cluster_state 1",
            "redis_cluster_slots_ok 16384",
            "redis_db_keys{db=\"db0\"} 10",
            "redis_key_size{db=\"db0\",key=\"exported:7\"} 5",
            "redis_connected_clients_details{",
            "redis_config_value{",
            "redis_instance_info{",
            "redis_commands_processed_total ",
            "redis_cpu_user_seconds_total ",
            "redis_memory_used_rss_bytes ",
        ] {
            assert!(text.contains(wanted), "{kind}: no {wanted:?} in\n{text}");
        }
        exporter.kill();
        let log = std::fs::read_to_string(machine.path("exporter.log")).unwrap_or_default();
        let complaint = log.lines().find(|line| line.contains("level=error"));
        assert_eq!(complaint, None, "{kind}");
        let ran = "a scrape with clients, configuration and keys";
        roster::holds(&format!("redis_exporter {version} {kind}: {ran}"));
    }
}

#[test]
fn the_table_of_the_readme_names_what_is_tried_and_nothing_else() {
    let rows = roster::rows();
    let mut found: Vec<(&str, &str)> = rows
        .iter()
        .flat_map(|row| row.kinds.split(", ").map(|kind| (row.name.as_str(), kind)))
        .collect();
    found.sort_unstable();
    assert_eq!(found, roster::TRIED);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine.redis("127.0.0.1", 7861, &["set", "a", "1"]);
    let token =
        std::fs::read_to_string(machine.data.join("token")).expect("the token of the manager");
    let header = format!("Authorization: Bearer {}", token.trim());
    let mut text = String::new();
    until("the manager has heard of the command", || {
        text =
            machine.run("curl", &["-sf", "-H", &header, "http://127.0.0.1:7801/metrics"]).ok().out;
        text.contains("command=\"set\"")
    });
    let path = machine.file("metrics.txt", &text);
    machine
        .python("prometheus.py", &[path.to_str().expect("a plain path")])
        .ok()
        .says(&["dkv", "counter"])
        .says(&["dkv", "gauge"])
        .says(&["dkv", "histogram"])
        .says(&["commands", "'set': 1"])
        .silent_on("'getdel'");
    let list = std::fs::read_to_string(workspace().join("tests/clients/requirements.txt"));
    let list = list.expect("the list of Python packages");
    let line = list.lines().find_map(|line| line.strip_prefix("prometheus_client=="));
    let version = line.expect("it is in the list");
    roster::holds(&format!("prometheus_client {version} manager: /metrics, every family"));
}
