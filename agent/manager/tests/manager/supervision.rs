//! Nodes under a manager: started, restarted, given up, stopped, and found again by the next manager.

use crate::harness::{Machine, definition, kill, node, until};
use dkv_protocol::admin::{NodeState, StoreStatus};

#[test]
fn a_store_is_created_started_stopped_and_deleted() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    let created = client.create(&definition("TestStore", 2)).unwrap();
    let ports: Vec<_> = created
        .record
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.cluster_port, n.client_port))
        .collect();
    assert_eq!(ports, [("node1", 7811, 7861), ("node2", 7812, 7862)]);
    assert_eq!(client.store("TestStore").unwrap().status, StoreStatus::Created);

    for name in ["node1", "node-2"] {
        assert_eq!(client.start("TestStore", name).unwrap().message, "Started");
    }
    assert_eq!(client.start("TestStore", "node1").unwrap().message, "Already running");
    assert_eq!(client.store("TestStore").unwrap().status, StoreStatus::Running);
    until("the node is whole", || node(&client, "TestStore", "node1").cluster_ok);
    assert_eq!(client.health().unwrap().nodes_running, 2);

    let refused = client.delete_store("TestStore", false).unwrap_err();
    assert_eq!(refused.code(), "store_running");
    assert!(refused.hint().contains("dkv store stop TestStore"));

    assert_eq!(client.stop("TestStore", "node1", false).unwrap().message, "Stopped");
    assert_eq!(client.stop("TestStore", "node1", false).unwrap().message, "Already stopped");
    assert_eq!(client.store("TestStore").unwrap().status, StoreStatus::Partial);
    client.delete_store("TestStore", true).unwrap();
    assert!(client.store("TestStore").unwrap_err().is_not_found());
    let left = std::fs::read_dir(machine.data().join("run")).unwrap().flatten();
    // The fake of a node notes what it was told beside its socket.
    let left: Vec<_> =
        left.filter(|entry| entry.path().extension() != Some("told".as_ref())).collect();
    assert!(left.is_empty(), "sockets and locks are gone: {left:?}");
}

#[test]
fn a_killed_node_is_restarted_at_once() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    let first = client.start("S", "node1").unwrap().node.pid.unwrap();
    kill(first);
    until("another process runs", || {
        let node = node(&client, "S", "node1");
        node.state == Some(NodeState::Running) && node.pid != Some(first)
    });
    let node = node(&client, "S", "node1");
    assert_eq!(node.restarts, 1);
    assert_eq!(node.message, None);
}

#[test]
fn a_crash_loop_ends_in_failed_with_the_reason_and_the_log() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    machine.nodes_shall("crash 7");
    let _ = client.start("S", "node1");
    until("it is given up", || node(&client, "S", "node1").state == Some(NodeState::Failed));
    let failed = node(&client, "S", "node1");
    assert_eq!(failed.restarts, 5);
    let message = failed.message.unwrap();
    assert!(message.contains("exit code 7") && message.contains("crashed as told"), "{message}");
    assert_eq!(client.health().unwrap().status, "degraded");
    // Started on request it gets a new chance.
    machine.nodes_shall("serve");
    assert_eq!(client.start("S", "node1").unwrap().message, "Started");
    assert_eq!(node(&client, "S", "node1").restarts, 0);
}

#[test]
fn a_node_that_others_kill_again_and_again_is_started_again_for_ever() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    let mut last = client.start("S", "node1").unwrap().node.pid.unwrap();
    // Twice as often as it may crash.
    for times in 1..=10 {
        kill(last);
        until("another process runs", || {
            let node = node(&client, "S", "node1");
            assert_ne!(node.state, Some(NodeState::Failed), "{node:?}");
            node.state == Some(NodeState::Running) && node.pid != Some(last)
        });
        let node = node(&client, "S", "node1");
        assert_eq!(node.restarts, times);
        last = node.pid.unwrap();
    }
    // Its own crashes count as before.
    machine.nodes_shall("crash 7");
    kill(last);
    until("it is given up", || node(&client, "S", "node1").state == Some(NodeState::Failed));
    machine.nodes_shall("serve");
    assert_eq!(client.start("S", "node1").unwrap().message, "Started");
}

#[test]
fn a_start_that_takes_its_time_keeps_nobody_else_waiting() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 2)).unwrap();
    client.start("S", "node2").unwrap();
    // A log that is a pipe: opening it waits until somebody reads, as forking waits for memory on a busy machine.
    let log = machine.data().join("logs").join("S.node1.log");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let starting = std::thread::spawn({
        let client = machine.client();
        move || client.start("S", "node1")
    });
    until("the start has begun", || node(&client, "S", "node1").state == Some(NodeState::Spawning));
    // The manager answers, and sees to its other nodes, while that start is still under way.
    let other = node(&client, "S", "node2").pid.unwrap();
    kill(other);
    until("the other node is started again", || {
        let node = node(&client, "S", "node2");
        node.state == Some(NodeState::Running) && node.pid != Some(other)
    });
    assert!(!starting.is_finished());
    let reader = std::fs::File::open(&log).unwrap();
    assert_eq!(starting.join().unwrap().unwrap().message, "Started");
    drop(reader);
}

#[test]
fn a_start_that_fails_says_why_and_is_not_repeated() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    machine.nodes_shall("exit 69");
    let refused = client.start("S", "node1").unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("ports is in use") && text.contains("port 7861 is in use"), "{text}");
    let failed = node(&client, "S", "node1");
    assert_eq!((failed.state, failed.restarts), (Some(NodeState::Failed), 0));
    assert_eq!(client.store("S").unwrap().status, StoreStatus::Stopped);
}

#[test]
fn a_node_that_is_never_ready_is_stopped_on_request_and_by_time() {
    let mut machine = Machine::new();
    machine.options.pace.ready_max = std::time::Duration::from_millis(200);
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    machine.nodes_shall("hang");
    let refused = client.start("S", "node1").unwrap_err();
    assert!(refused.to_string().contains("not ready within 0.2 s"), "{refused}");
}

#[test]
fn a_node_that_does_not_stop_is_said_and_killed_with_force() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    machine.nodes_shall("deaf");
    client.start("S", "node1").unwrap();
    let overdue = client.stop("S", "node1", false).unwrap_err();
    assert_eq!(overdue.code(), "stop_overdue");
    assert!(overdue.hint().contains("--force"));
    assert_eq!(node(&client, "S", "node1").state, Some(NodeState::Stopping));
    assert_eq!(client.start("S", "node1").unwrap_err().code(), "node_stopping");
    assert_eq!(client.stop("S", "node1", true).unwrap().message, "Stopped");
}

#[test]
fn nodes_are_found_again_by_the_next_manager() {
    let machine = Machine::new();
    let manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 2)).unwrap();
    let pids: Vec<u32> =
        ["node1", "node2"].map(|n| client.start("S", n).unwrap().node.pid.unwrap()).to_vec();
    manager.end();
    // One of them dies while nobody looks.
    kill(pids[1]);
    let _manager = machine.start();
    until("the dead one is started anew", || {
        let node = node(&client, "S", "node2");
        node.state == Some(NodeState::Running) && node.pid != Some(pids[1])
    });
    until("the other one is adopted", || node(&client, "S", "node1").cluster_ok);
    assert_eq!(node(&client, "S", "node1").pid, Some(pids[0]));
    // An adopted node is supervised like any other.
    kill(pids[0]);
    until("it is restarted", || {
        let node = node(&client, "S", "node1");
        node.state == Some(NodeState::Running) && node.pid != Some(pids[0])
    });
    for name in ["node1", "node2"] {
        assert_eq!(client.stop("S", name, false).unwrap().message, "Stopped");
    }
}

#[test]
fn what_a_killed_manager_had_begun_is_finished() {
    let machine = Machine::new();
    let manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    client
        .create(&dkv_protocol::admin::StoreDefinition {
            clustron_port: None,
            client_port: None,
            ..definition("Gone", 1)
        })
        .unwrap();
    let pid = client.start("S", "node1").unwrap().node.pid.unwrap();
    client.start("Gone", "node1").unwrap();
    manager.end();

    // As if it had been killed between starting a process and writing it down, and in the middle of a deletion.
    rewrite(&machine, |text| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["stores"]["S"]["nodes"]["node1"]["process"] = serde_json::Value::Null;
        value["stores"]["S"]["nodes"]["node1"]["state"] = "Spawning".into();
        value["stores"]["Gone"]["deleting"] = true.into();
        value["stores"]["Gone"]["nodes"]["node1"]["wanted"] = "Down".into();
        serde_json::to_string_pretty(&value).unwrap()
    });
    let manager = machine.start();
    until("the process is adopted", || node(&client, "S", "node1").cluster_ok);
    assert_eq!(node(&client, "S", "node1").pid, Some(pid));
    until("the deletion is finished", || client.find_store("Gone").unwrap().is_none());
    manager.end();

    // As if it had been killed in the middle of a stop.
    rewrite(&machine, |text| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["stores"]["S"]["nodes"]["node1"]["wanted"] = "Down".into();
        value["stores"]["S"]["nodes"]["node1"]["state"] = "Stopping".into();
        serde_json::to_string_pretty(&value).unwrap()
    });
    let _manager = machine.start();
    until("the stop is finished", || node(&client, "S", "node1").state == Some(NodeState::Stopped));
}

/// Replaces the catalogue by a changed one with the right checksum.
fn rewrite(machine: &Machine, change: impl Fn(&str) -> String) {
    use sha2::{Digest, Sha256};
    let path = machine.data().join("catalogue.json");
    let text = std::fs::read_to_string(&path).expect("a catalogue");
    let body = change(text.split_once('\n').expect("a first line").1);
    let sum: Vec<String> = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
    let sum = sum.concat();
    let head = format!("dkv-catalogue 1 bytes={} sha256={sum}", body.len());
    std::fs::write(&path, format!("{head}\n{body}\n")).expect("it is ours");
}

#[test]
fn metrics_show_what_nodes_count() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    client.start("S", "node1").unwrap();
    until("there are rates", || {
        let metrics = client.metrics(5).unwrap();
        metrics.nodes.iter().any(|n| n.gets.per_second.is_some_and(|rate| rate > 0.0))
    });
    let metrics = client.metrics(5).unwrap();
    assert_eq!((metrics.nodes[0].store.as_str(), metrics.nodes[0].node.as_str()), ("S", "node1"));
    assert!(metrics.nodes[0].p99_us.is_some());
    let text = client.get_text("/metrics").unwrap();
    assert!(text.contains("dkv_node_up{store=\"S\",node=\"node1\"} 1"), "{text}");
    assert!(text.contains("# TYPE dkv_service_seconds histogram"));
    client.stop("S", "node1", false).unwrap();
    assert!(client.metrics(5).unwrap().nodes.is_empty());
    assert!(
        client.get_text("/metrics").unwrap().contains("dkv_node_up{store=\"S\",node=\"node1\"} 0")
    );
}
