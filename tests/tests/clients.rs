//! Clients and tools that people already have.

use dkv_tests::machine::Network;

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

#[test]
fn redis_cli_checks_the_cluster_and_redis_benchmark_runs_clean() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine
        .run("redis-cli", &["--cluster", "check", "127.0.0.1:7861"])
        .ok()
        .says(&["[OK] All nodes agree about slots configuration."])
        .says(&["[OK] All 16384 slots covered."]);
    let bench = machine
        .run(
            "redis-benchmark",
            &["-p", "7861", "-t", "set,get", "-P", "16", "-r", "1000000", "-n", "200000", "-q"],
        )
        .ok();
    assert!(!bench.all().to_lowercase().contains("error"), "{}", bench.all());
    machine
        .run(
            "redis-benchmark",
            &["-p", "7861", "--cluster", "-t", "set,get", "-P", "16", "-n", "100000", "-q"],
        )
        .ok();
    assert_ne!(machine.redis("127.0.0.1", 7861, &["dbsize"]), "0");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine.redis("127.0.0.1", 7861, &["set", "a", "1"]);
    let token =
        std::fs::read_to_string(machine.data.join("token")).expect("the token of the manager");
    let header = format!("Authorization: Bearer {}", token.trim());
    let text =
        machine.run("curl", &["-sf", "-H", &header, "http://127.0.0.1:7801/metrics"]).ok().out;
    let path = machine.file("metrics.txt", &text);
    machine
        .python("prometheus.py", &[path.to_str().expect("a plain path")])
        .ok()
        .says(&["dkv", "counter"])
        .says(&["dkv", "gauge"])
        .says(&["dkv", "histogram"]);
}
