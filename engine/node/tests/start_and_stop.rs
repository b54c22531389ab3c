//! How a node starts, refuses to start, and stops.

mod harness;

use dkv_protocol::launch::exit;
use harness::{Node, PATIENCE, Store, bulk, encode};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

fn refusal(document: &dkv_protocol::launch::LaunchDocument) -> (u8, String) {
    let (code, log) = Node::start(document).err().expect("it must not start");
    (code.expect("an exit code") as u8, log)
}

#[test]
fn a_stop_answers_what_was_read_and_ends_with_zero() {
    let mut store = Store::running(&[2, 1]);
    let keys = [store.key_of(0, 0), store.key_of(0, 1), store.key_of(1, 0)];
    let mut client = store.client(0);
    let mut waiting = store.client(0);
    assert_eq!(waiting.ask(&["SET", &keys[0], "1"]), "+OK\r\n");
    let mut pipeline = Vec::new();
    for n in 0..300 {
        pipeline.extend(encode(&["SET", &keys[n % 3], "x"]));
    }
    client.stream.write_all(&pipeline).expect("sent");
    assert_eq!(client.reply(), "+OK\r\n", "reading has begun");
    let answer = store.control(0, r#"{"op":"stop"}"#);
    assert!(answer.contains("\"pid\""), "a status comes first: {answer}");
    let replies = client.until_the_end();
    let replies = String::from_utf8(replies).expect("text");
    // Everything that was read is answered, in order; what was not read is not.
    assert!(replies.split_terminator("\r\n").all(|line| line == "+OK"), "{replies}");
    assert!(waiting.until_the_end().is_empty());
    let socket = store.documents[0].control_socket.clone();
    let mut node = store.take(0);
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    assert_eq!(node.rest_of_stdout(), "", "one line and never again");
    assert!(!std::path::Path::new(&socket).exists());
    node.wait_log("stopped");
    // The other node knows at once, and says so.
    store.wait_status(1, |status| status.unreachable == ["node1"]);
    // An orderly end leaves no port behind, not even for a moment.
    store.start(0);
    store.wait_status(1, |status| status.cluster_ok);
}

#[test]
fn sigterm_stops_and_sighup_does_not() {
    let mut store = Store::running(&[1]);
    let mut client = store.client(0);
    let pid = Pid::from_raw(store.node(0).child.id() as i32).expect("a pid");
    kill_process(pid, Signal::HUP).expect("sent");
    kill_process(pid, Signal::PIPE).expect("sent");
    assert_eq!(client.ask(&["PING"]), "+PONG\r\n");
    kill_process(pid, Signal::TERM).expect("sent");
    assert!(client.until_the_end().is_empty());
    assert_eq!(store.take(0).wait().code(), Some(0));
}

#[test]
fn a_client_that_never_reads_does_not_keep_a_node_from_stopping() {
    let mut store = Store::running(&[1]);
    let mut other = store.client(0);
    assert_eq!(other.ask(&["SET", "big", &"x".repeat(1 << 20)]), "+OK\r\n");
    let mut silent = store.client(0);
    silent.stream.write_all(&encode(&["GET", "big"]).repeat(50)).expect("sent");
    store.wait_status(0, |s| s.shards[0].gets == 50);
    let asked = Instant::now();
    store.control(0, r#"{"op":"stop"}"#);
    let mut node = store.take(0);
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    assert!(asked.elapsed() < PATIENCE / 2, "{:?}", asked.elapsed());
}

#[test]
fn a_taken_port_is_named() {
    let store = Store::new(&[1]);
    let node = &store.documents[0].nodes[0];
    for port in [node.cluster_port, node.client_port, node.shard_ports[0]] {
        let _holder = TcpListener::bind((node.address, port)).expect("free");
        let (code, log) = refusal(&store.documents[0]);
        assert_eq!(code, exit::ADDRESS_IN_USE, "{log}");
        assert!(log.contains(&format!("{}:{port}", node.address)), "{log}");
        assert!(!std::path::Path::new(&store.documents[0].control_socket).exists());
    }
}

#[test]
fn the_same_node_does_not_run_twice() {
    let mut store = Store::running(&[1]);
    let pid = store.node(0).child.id();
    let (code, log) = refusal(&store.documents[0]);
    assert_eq!(code, exit::ALREADY_RUNNING, "{log}");
    assert!(log.contains(&format!("pid {pid}")), "{log}");
    // The first one is not disturbed, its socket included.
    assert_eq!(store.status(0).pid, pid);
    assert_eq!(store.client(0).ask(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_killed_node_starts_again_over_what_it_left_behind() {
    let mut store = Store::running(&[1]);
    let first = store.node(0).ready.boot.clone();
    store.take(0).kill();
    assert!(std::path::Path::new(&store.documents[0].control_socket).exists());
    store.start(0);
    assert_ne!(store.node(0).ready.boot, first);
    assert_eq!(store.status(0).boot, store.node(0).ready.boot);
}

#[test]
fn a_bad_launch_document_is_refused_with_what_is_wrong() {
    let store = Store::new(&[1]);
    let good = serde_json::to_value(&store.documents[0]).expect("JSON");
    let mut unknown = good.clone();
    unknown["colour"] = "red".into();
    let mut newer = good;
    newer["version"] = 99.into();
    for (document, reason) in [
        (unknown.to_string().into_bytes(), "colour"),
        (newer.to_string().into_bytes(), "version"),
        (b"hello".to_vec(), "not JSON"),
        (Vec::new(), "empty"),
        (vec![b' '; 5 << 20], "longer than"),
    ] {
        let (code, log) = Node::start_with(&document).err().expect("it must not start");
        assert_eq!(code, Some(i32::from(exit::BAD_LAUNCH_DOCUMENT)), "{log}");
        assert!(log.contains(reason), "{reason:?} is not in {log}");
    }
}

#[test]
fn a_cpu_or_an_address_that_is_not_there_is_a_wrong_configuration() {
    let mut store = Store::new(&[1]);
    store.documents[0].cpus = vec![1000];
    let (code, log) = refusal(&store.documents[0]);
    assert_eq!(code, exit::BAD_CONFIGURATION, "{log}");
    assert!(log.contains("1000") && log.contains("usable CPUs"), "{log}");

    let mut store = Store::new(&[1]);
    // TEST-NET-1: reserved for documentation, so no machine has it.
    store.documents[0].bind = vec![[192, 0, 2, 1].into()];
    let (code, log) = refusal(&store.documents[0]);
    assert_eq!(code, exit::BAD_CONFIGURATION, "{log}");
    assert!(log.contains("192.0.2.1"), "{log}");
}

#[test]
fn the_control_socket_is_private_and_bounds_what_it_reads() {
    let store = Store::running(&[1]);
    let path = &store.documents[0].control_socket;
    assert_eq!(std::fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(store.control(0, "nonsense").contains("error"));
    assert!(store.control(0, r#"{"op":"dance"}"#).contains("error"));
    let mut endless = UnixStream::connect(path).expect("it answers");
    endless.set_read_timeout(Some(PATIENCE)).expect("settable");
    let _ = endless.write_all(&vec![b'x'; 100_000]);
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(
        String::from_utf8_lossy(&answer).contains("at most"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // Many connections that say nothing do not keep a manager out.
    let _idle: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(path).expect("it answers")).collect();
    assert_eq!(store.status(0).store, "TestStore");
    // Several requests on one connection.
    let mut one = UnixStream::connect(path).expect("it answers");
    one.write_all(b"{\"op\":\"status\"}\n{\"op\":\"status\"}\n").expect("sent");
    one.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut answers = String::new();
    one.read_to_string(&mut answers).expect("answered");
    assert_eq!(answers.lines().count(), 2);
}

/// The session a process belongs to, from `/proc`: the call for it has no answer for a session
/// that began outside this process-id namespace, as that of a test in a container may have.
fn session_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, after_name) = stat.rsplit_once(") ").expect("a name in parentheses");
    after_name.split(' ').nth(3).expect("state, parent, group, session").parse().expect("a number")
}

#[test]
fn a_node_serves_on_when_nobody_reads_its_log_any_more() {
    let store = Store::new(&[1]);
    let mut node = Node::start_deserted(&store.documents[0]);
    assert_eq!(session_of(node.child.id()), node.child.id(), "a session of its own");
    let mut client = store.client(0);
    assert_eq!(client.ask(&["SET", "a", "1"]), "+OK\r\n");
    // Each of these is worth a line in the log.
    let mut stranger = TcpStream::connect(store.cluster_address(0)).expect("it listens");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let _ = stranger.read_to_end(&mut Vec::new());
    assert!(store.control(0, "nonsense").contains("error"));
    assert_eq!(client.ask(&["GET", "a"]), bulk("1"));
    store.control(0, r#"{"op":"stop"}"#);
    assert_eq!(node.wait().code(), Some(0));
}
