//! System call filters, as containers have them: one that forbids io_uring, and the profile that allows it.
//!
//! The filters are put on by a program before it becomes `dkv`; a container runtime does the same with the same library. What
//! a runtime does besides is not tried here.

use dkv_tests::machine::{Machine, Network, Output, kill, until, workspace};

/// Runs a command on the machine under a filter, which what it starts inherits.
fn under(machine: &Machine, filter: &str, command: &[&str]) -> Output {
    machine.python("under.py", &[&[filter], command].concat())
}

#[test]
fn where_a_filter_forbids_io_uring_a_store_runs_on_epoll_and_says_why() {
    let machine = Network::alone();
    let forbidden = |command: &[&str]| under(&machine, "no-io-uring", command);
    let refused = forbidden(&["dkv", "up", "--io", "uring"]);
    assert_ne!(refused.code, 0, "{}", refused.all());
    assert!(refused.err.contains("exit code 71"), "{}", refused.all());
    assert!(refused.err.contains("--security-opt seccomp="), "{}", refused.all());
    assert!(machine.pids("node").is_empty());

    let doctor = forbidden(&["dkv", "doctor"]).ok();
    assert!(doctor.out.contains("seccomp"), "{}", doctor.all());
    let up = forbidden(&["dkv", "up", "--io", "auto"]).ok();
    for word in ["epoll", "Seccomp: 2", "--security-opt seccomp=", "SystemCallFilter="] {
        assert!(up.err.contains(word), "{word}: {}", up.all());
    }
    let nodes = machine.pids("node");
    assert_eq!(nodes.len(), 2);
    for pid in &nodes {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the node runs");
        let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        let rings = links.filter(|link| link.to_string_lossy().contains("io_uring")).count();
        assert_eq!(rings, 0, "a filter let a ring through");
    }
    // Everybody who asks is told.
    let show = machine.dkv("store show local").ok();
    assert!(show.out.contains("epoll"), "{}", show.all());
    let info = machine.redis("127.0.0.1", 7861, &["info"]);
    assert!(info.contains("multiplexing_api:epoll"), "{info}");
    assert!(info.contains("dkv_io:io=epoll ") && info.contains("no io_uring: "), "{info}");
    until("the metrics know", || {
        let url = "http://127.0.0.1:7801/metrics";
        let token = std::fs::read_to_string(machine.data.join("token")).unwrap_or_default();
        let bearer = format!("Authorization: Bearer {}", token.trim());
        let text = machine.run("curl", &["-s", "-m", "2", "-H", &bearer, url]).out;
        text.contains("dkv_node_info{store=\"local\",node=\"node1\",io=\"epoll\"} 1")
    });

    // It serves, and keeps what it has when a node dies.
    for i in 0..64 {
        let (key, value) = (format!("key:{i}"), i.to_string());
        assert_eq!(machine.redis("127.0.0.1", 7861, &["set", &key, &value]), "OK");
        assert_eq!(machine.redis("127.0.0.1", 7862, &["get", &key]), value);
    }
    kill(nodes[0]);
    for i in 0..64 {
        let (key, value) = (format!("key:{i}"), i.to_string());
        until("the other copy answers", || {
            ["7861", "7862"].iter().any(|port| {
                let answer = machine.run("redis-cli", &["-p", port, "get", &key]);
                answer.code == 0 && answer.out.trim() == value
            })
        });
    }
    until("the node is back and both hold everything", || {
        machine.dkv("store verify local").code == 0
    });
    machine.dkv("down").ok();
}

fn profile() -> String {
    workspace().join("scripts/seccomp.json").display().to_string()
}

#[test]
fn the_profile_for_containers_allows_rings_and_refuses_what_it_does_not_name() {
    let text = std::fs::read_to_string(profile()).expect("it is there");
    let profile: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("rules");
    let action = |call: &str| {
        let names = |rule: &&serde_json::Value| {
            rule["names"].as_array().expect("names").iter().any(|name| name == call)
        };
        let found: Vec<_> = rules.iter().filter(names).map(|rule| &rule["action"]).collect();
        assert!(found.len() <= 1, "{call} is named {} times", found.len());
        found.first().map(|action| action.as_str().expect("a word").to_owned())
    };
    let allow = Some("SCMP_ACT_ALLOW".to_owned());
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "epoll_pwait", "clone"] {
        assert_eq!(action(call), allow, "{call}");
    }
    let dangerous =
        ["mount", "ptrace", "bpf", "kexec_load", "init_module", "setns", "unshare", "reboot"];
    for call in dangerous {
        assert_eq!(action(call), None, "{call}");
    }
    assert_eq!(action("clone3"), Some("SCMP_ACT_ERRNO".to_owned()));
}

#[test]
fn under_the_profile_for_containers_a_store_runs_on_rings() {
    let machine = Network::alone();
    // The profile is in force: what it does not name is refused.
    let denied = under(&machine, &profile(), &["unshare", "--mount", "true"]);
    assert_ne!(denied.code, 0, "{}", denied.all());
    let up = under(&machine, &profile(), &["dkv", "up", "--io", "uring"]).ok();
    assert!(!up.err.contains("epoll"), "{}", up.all());
    for i in 0..64 {
        let (key, value) = (format!("key:{i}"), i.to_string());
        assert_eq!(machine.redis("127.0.0.1", 7861, &["set", &key, &value]), "OK");
        assert_eq!(machine.redis("127.0.0.1", 7862, &["get", &key]), value);
    }
    let info = machine.redis("127.0.0.1", 7861, &["info", "server"]);
    assert!(info.contains("multiplexing_api:io_uring"), "{info}");
    // Its manager, its command line and a restart work under it, too.
    let nodes = machine.pids("node");
    kill(nodes[0]);
    until("the node is back and both hold everything", || {
        under(&machine, &profile(), &["dkv", "store", "verify", "local"]).code == 0
    });
    under(&machine, &profile(), &["dkv", "down"]).ok();
    assert!(machine.pids("node").is_empty());
}
