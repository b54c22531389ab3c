//! Who dies, and what goes on.

use dkv_tests::machine::{Network, kill, until};

#[test]
fn nodes_outlive_their_manager_and_are_found_again() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    assert_eq!(machine.redis("127.0.0.1", 7861, &["set", "a", "1"]), "OK");
    let mut nodes = machine.pids("node");
    nodes.sort_unstable();
    assert_eq!(nodes.len(), 2);
    let manager = machine.pids("agent")[0];
    kill(manager);
    until("the manager is gone", || machine.pids("agent").is_empty());
    assert_eq!(machine.redis("127.0.0.1", 7862, &["get", "a"]), "1");
    machine.dkv("up").ok();
    let mut again = machine.pids("node");
    again.sort_unstable();
    assert_eq!(again, nodes, "the same processes");
    assert_eq!(machine.redis("127.0.0.1", 7862, &["get", "a"]), "1");

    // An adopted node is supervised like any other.
    kill(nodes[0]);
    until("the node is back", || {
        machine.pids("node").len() == 2 && !machine.pids("node").contains(&nodes[0])
    });
}

#[test]
fn without_copies_a_dead_node_answers_clusterdown_meanwhile_and_comes_back_empty() {
    let machine = Network::alone();
    machine.dkv("up --replicas 0").ok();
    let show = machine.json("store show local");
    let node = |name: &str| {
        let nodes = show["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|n| n["name"] == name).expect("the node");
        u32::try_from(node["pid"].as_u64().expect("a pid")).expect("a pid")
    };
    // Keys of both nodes, found by asking who owns them: the slots below 8192 are node1's.
    let slot = |key: &str| {
        machine
            .redis("127.0.0.1", 7861, &["cluster", "keyslot", key])
            .parse::<u32>()
            .expect("a slot")
    };
    let (mut first, mut second) = (vec![], vec![]);
    for i in 0..40 {
        let key = format!("k{i}");
        machine.redis("127.0.0.1", 7861, &["set", &key, "v"]);
        if slot(&key) < 8192 { first.push(key) } else { second.push(key) }
    }
    assert!(!first.is_empty() && !second.is_empty());

    // Stopped on purpose it stays away, so that what clients see meanwhile can be looked at.
    machine.dkv("Stop-DkvStore -Name local -InstanceName node2").ok();
    until("node1 knows", || {
        machine.redis("127.0.0.1", 7861, &["get", &second[0]]).contains("CLUSTERDOWN")
    });
    assert_eq!(machine.redis("127.0.0.1", 7861, &["get", &first[0]]), "v");
    machine.dkv("store list").ok().says(&["local", "Partial"]);
    machine.dkv("store start local --instance node2").ok();
    until("node2 is used again", || {
        machine.redis("127.0.0.1", 7861, &["get", &second[0]]).is_empty()
    });

    // Killed, it is restarted by itself.
    kill(node("node1"));
    until("node1 is back and empty", || {
        let answer = machine.run("redis-cli", &["-p", "7862", "get", &first[0]]);
        assert!(!answer.out.contains("UNCERTAIN"), "a read has a known outcome");
        answer.code == 0 && answer.out.trim().is_empty()
    });
    assert_eq!(machine.redis("127.0.0.1", 7861, &["set", &first[0], "w"]), "OK");
    assert_eq!(machine.redis("127.0.0.1", 7862, &["get", &first[0]]), "w");
}

/// A memlock limit of nothing, without the capability that lifts it: every ring is refused.
const NO_RINGS: &[&str] =
    &["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=0:0", "dkv"];

#[test]
fn io_uring_forbidden_names_the_switch_and_the_fix() {
    let machine = Network::alone();
    let without_rings = |words: &[&str]| machine.run("setpriv", &[NO_RINGS, words].concat());
    let doctor = without_rings(&["doctor"]);
    assert_eq!(doctor.code, 0, "{}", doctor.all());
    assert!(doctor.out.contains("memlock") && doctor.out.contains("epoll"), "{}", doctor.all());

    // Who wants io_uring and nothing else gets no store, and is told why.
    let up = without_rings(&["up", "--io", "uring"]);
    assert_ne!(up.code, 0, "{}", up.all());
    assert!(up.err.contains("memlock") || up.err.contains("MEMLOCK"), "{}", up.all());
    assert!(up.err.contains("exit code 71"), "{}", up.all());
    assert!(machine.pids("node").is_empty(), "nothing is left half started");

    // Who leaves the choice to the node gets one, and is told the same.
    let up = without_rings(&["up", "--io", "auto"]).ok();
    assert!(up.err.contains("epoll") && up.err.contains("memlock"), "{}", up.all());
    assert_eq!(machine.redis("127.0.0.1", 7862, &["set", "a", "1"]), "OK");
    assert_eq!(io_of_nodes(&machine), ["epoll", "epoll"]);
    // The same command has rings once the switch is on.
    machine.dkv("down").ok();
    let up = machine.dkv("up --io auto").ok();
    assert!(!up.err.contains("epoll"), "{}", up.all());
    assert_eq!(machine.redis("127.0.0.1", 7862, &["set", "a", "1"]), "OK");
    assert_eq!(io_of_nodes(&machine), ["uring", "uring"]);
}

/// What `store show` says.
fn io_of_nodes(machine: &dkv_tests::machine::Machine) -> Vec<String> {
    let store = machine.json("store show local");
    let nodes = store["nodes"].as_array().expect("nodes");
    let of_node = |node: &serde_json::Value| {
        let text = node["io"].as_str().expect("it runs");
        text.strip_prefix("io=").and_then(|text| text.split(' ').next()).map(str::to_owned)
    };
    nodes.iter().map(|node| of_node(node).expect("a name")).collect()
}

#[test]
fn a_store_nobody_uses_costs_next_to_nothing() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let of = |pid: u32, field: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a number of kB") * 1024
    };
    let nodes = machine.pids("node");
    assert_eq!(nodes.len(), 2);
    let own: u64 = nodes.iter().map(|pid| of(*pid, "RssAnon") + of(*pid, "RssShmem")).sum();
    // The program itself is in memory once for all of them.
    let program = nodes.iter().map(|pid| of(*pid, "RssFile")).max().unwrap_or(0);
    let bytes = own + program;
    assert!(bytes < 28 << 20, "{bytes} bytes resident, {program} of them the program");
}
