//! Several nodes: forwarding, loss and return of one, and strangers on the cluster port.

mod harness;

use dkv_protocol::frame::{FrameKind, FrameReader, begin_frame, end_frame};
use dkv_protocol::ids::{Epoch, StoreId};
use dkv_protocol::launch::LaunchDocument;
use harness::handshake::{dialer, shake_hands};
use harness::{Node, PATIENCE, Store, bulk, encode};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// Makes a good launch document a wrong one.
type Change = fn(&mut LaunchDocument);

#[test]
fn any_node_serves_any_key_and_keeps_the_order_of_replies() {
    let store = Store::running(&[2, 1]);
    let keys = [store.key_of(0, 0), store.key_of(1, 0), store.key_of(0, 1)];
    for node in 0..2 {
        let mut client = store.client(node);
        let mut pipeline = Vec::new();
        for round in 0..300 {
            for key in &keys {
                pipeline.extend(encode(&["SET", key, &format!("{node}:{round}")]));
                pipeline.extend(encode(&["GET", key]));
            }
        }
        client.stream.write_all(&pipeline).expect("sent");
        for round in 0..300 {
            for _ in &keys {
                assert_eq!(client.reply(), "+OK\r\n");
                assert_eq!(client.reply(), bulk(&format!("{node}:{round}")));
            }
        }
        let values = bulk(&format!("{node}:299"));
        assert_eq!(
            client.ask(&["MGET", &keys[0], &keys[1], &keys[2]]),
            format!("*3\r\n{values}{values}{values}")
        );
    }
    let mut other = store.client(1);
    assert_eq!(other.ask(&["DBSIZE"]), ":3\r\n");
    assert!(store.status(1).shards[0].served_for_others > 0);
}

#[test]
fn a_value_larger_than_any_buffer_crosses_a_link_both_ways() {
    let store = Store::running(&[1, 1]);
    let key = store.key_of(1, 0);
    let value = "0123456789abcdef".repeat(1 << 20);
    let mut client = store.client(0);
    assert_eq!(client.ask(&["SET", &key, &value]), "+OK\r\n");
    assert!(client.ask(&["GET", &key]) == bulk(&value), "the value came back changed");
}

#[test]
fn many_great_replies_at_once_come_whole_and_in_order_from_any_shard() {
    let store = Store::running(&[2, 1]);
    let mut client = store.shard_client(0, 0);
    for key in [store.key_of(0, 1), store.key_of(1, 0)] {
        let mut value = "0123456789abcdef".repeat(3 << 18);
        assert_eq!(client.ask(&["SET", &key, &value]), "+OK\r\n");
        // More than a link or a mailbox takes at a time, all in one batch, with writes in between.
        let rounds = 7;
        let pipeline = [encode(&["GET", &key]), encode(&["APPEND", &key, "x"])].concat();
        client.stream.write_all(&pipeline.repeat(rounds)).expect("sent");
        for _ in 0..rounds {
            assert!(client.reply() == bulk(&value), "a value came back changed or out of order");
            value.push('x');
            assert_eq!(client.reply(), format!(":{}\r\n", value.len()));
        }
    }
}

#[test]
fn a_killed_node_answers_clusterdown_at_once_and_serves_when_it_is_back() {
    let mut store = Store::running(&[1, 2]);
    let (mine, theirs) = (store.key_of(0, 0), store.key_of(1, 1));
    let mut client = store.client(0);
    assert_eq!(client.ask(&["SET", &theirs, "1"]), "+OK\r\n");
    store.take(1).kill();
    let killed = Instant::now();
    // What arrives before the news of its death is answered as well, never with a value and never late.
    loop {
        let reply = client.ask(&["GET", &theirs]);
        assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
        assert_eq!(client.ask(&["SET", &mine, "1"]), "+OK\r\n");
        if store.status(0).unreachable == ["node2"] {
            break;
        }
        assert!(killed.elapsed() < PATIENCE, "the loss is never noticed");
    }
    assert!(!store.status(0).cluster_ok);
    let reply = client.ask(&["SET", &theirs, "2"]);
    assert!(reply.starts_with("-CLUSTERDOWN") && reply.contains("node2"), "{reply}");
    store.start(1);
    store.wait_status(0, |status| status.cluster_ok);
    store.wait_status(1, |status| status.cluster_ok);
    assert_eq!(client.ask(&["GET", &theirs]), "$-1\r\n", "it is back, empty");
    assert_eq!(client.ask(&["SET", &theirs, "3"]), "+OK\r\n");
    assert_eq!(store.client(1).ask(&["MGET", &theirs, &mine]), "*2\r\n$1\r\n3\r\n$1\r\n1\r\n");
}

/// Stops the process of a node; `SIGCONT` has it go on.
fn stop_process(store: &mut Store, node: usize) -> rustix::process::Pid {
    let pid = rustix::process::Pid::from_raw(store.node(node).child.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
    // The signal is on its way until the process is seen to have stopped.
    let seen = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED);
    assert!(seen.expect("a child").is_some_and(|(_, status)| status.stopped()));
    pid
}

#[test]
fn a_node_that_is_busy_for_two_seconds_is_waited_for() {
    let mut store = Store::running(&[1, 1]);
    let (mine, theirs) = (store.key_of(0, 0), store.key_of(1, 0));
    let pid = stop_process(&mut store, 1);
    let mut client = store.client(0);
    client.send(&["SET", &theirs, "1"]);
    let (stopped, mut other) = (Instant::now(), store.client(0));
    while stopped.elapsed().as_secs() < 2 {
        assert_eq!(other.ask(&["SET", &mine, "1"]), "+OK\r\n");
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
    assert_eq!(client.reply(), "+OK\r\n");
    assert!(store.status(0).cluster_ok && !store.node(0).log().contains("link lost"));
}

#[test]
fn a_stopped_process_is_noticed_by_its_silence_and_used_again_when_it_goes_on() {
    let mut store = Store::running(&[1, 1]);
    let theirs = store.key_of(1, 0);
    let pid = stop_process(&mut store, 1);
    let mut client = store.client(0);
    let asked = Instant::now();
    let reply = client.ask(&["GET", &theirs]);
    assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
    assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    store.node(0).wait_log("nothing was heard");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
    store.wait_status(0, |status| status.cluster_ok);
    assert_eq!(client.ask(&["GET", &theirs]), "$-1\r\n");
}

#[test]
fn strangers_on_the_cluster_port_are_refused_with_a_reason_and_disturb_nothing() {
    let mut store = Store::running(&[1, 1]);
    let theirs = store.key_of(1, 0);
    let address = store.cluster_address(0);
    let mut client = store.client(0);
    let long_hello = {
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        frame.resize(100_000, 0);
        end_frame(&mut frame, start, FrameKind::Hello);
        frame
    };
    let batch_first = {
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        end_frame(&mut frame, start, FrameKind::Requests);
        frame
    };
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"*1\r\n$4\r\nPING\r\n", "a client's request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "no frame"),
        (&long_hello, "100000"),
        (&batch_first, "Requests is not due"),
    ];
    for (bytes, reason) in cases {
        assert_closed(address, bytes);
        let reason = if reason == "100000" { "bytes where" } else { reason };
        store.node(0).wait_log(reason);
        assert_eq!(client.ask(&["SET", &theirs, "1"]), "+OK\r\n");
    }
    // One that says nothing is given up after two seconds; more of them than fit push each other out.
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    }
    assert_eq!(client.ask(&["GET", &theirs]), "$1\r\n1\r\n");
    assert!(store.status(0).cluster_ok && store.status(1).cluster_ok);
}

#[test]
fn a_node_with_another_secret_or_store_is_refused_and_disturbs_nothing() {
    let mut store = Store::running(&[1, 1]);
    let address = store.cluster_address(0);
    let (mine, theirs) = (store.key_of(0, 0), store.key_of(1, 0));
    let good = store.documents[1].clone();
    let changes: [(Change, &str); 3] = [
        (|d| d.cluster_secret = "77".repeat(32), "secret"),
        (|d| d.store_id = StoreId("f".repeat(32)), "store"),
        (|d| d.epoch = Epoch(9), "epoch"),
    ];
    for (change, reason) in changes {
        let mut document = good.clone();
        change(&mut document);
        let refusal = shake_hands(address, &document, 7).expect_err("refused");
        assert!(refusal.contains(reason), "{reason:?} is not in {refusal:?}");
    }
    // The connection that stands is not touched by any of them, nor by a hello that was overheard and said again.
    let mut client = store.client(1);
    assert_eq!(client.ask(&["SET", &mine, "1"]), "+OK\r\n");
    let (_, overheard) = dialer(&good, 7);
    assert_closed(address, &[overheard.clone(), overheard].concat());
    assert_eq!(client.ask(&["SET", &theirs, "1"]), "+OK\r\n");
    assert_eq!(client.ask(&["MGET", &mine, &theirs]), "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
    assert!(!store.node(0).log().contains("a newer one stands"));

    // A whole node with the wrong secret, in place of the right one: nobody talks to it.
    store.take(1).kill();
    store.documents[1].cluster_secret = "77".repeat(32);
    store.start(1);
    store.node(0).wait_log("secret");
    store.node(1).wait_log("secret");
    let reply = store.client(0).ask(&["GET", &theirs]);
    assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
}

#[test]
fn a_newer_connection_of_a_peer_replaces_the_older_one() {
    let mut store = Store::new(&[1, 1]);
    store.start(0);
    let peer = store.documents[1].clone();
    let address = store.cluster_address(0);
    let mut first = shake_hands(address, &peer, 1).expect("let in");
    let mut second = shake_hands(address, &peer, 2).expect("let in");
    assert_eq!(until_closed(&mut first), Some(ErrorKind::UnexpectedEof), "the older one is closed");
    // The newer one is alive: it is greeted with pings.
    let mut ping = [0; 24];
    second.read_exact(&mut ping).expect("a frame");
    assert!(matches!(FrameReader::new().next(&ping), Ok(Some((FrameKind::Ping, [], 24)))));
}

#[test]
fn a_proven_peer_that_breaks_the_protocol_loses_its_link_alone() {
    let mut store = Store::new(&[1, 1]);
    store.start(0);
    let peer = store.documents[1].clone();
    let mut client = store.client(0);
    let garbage: [(FrameKind, &[u8]); 3] = [
        (FrameKind::Requests, b"\xff\xff\xff"),
        (FrameKind::Replies, b""),
        (FrameKind::Hello, b""),
    ];
    for (kind, body) in garbage {
        let mut link = shake_hands(store.cluster_address(0), &peer, 1).expect("let in");
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        frame.extend_from_slice(body);
        end_frame(&mut frame, start, kind);
        link.write_all(&frame).expect("sent");
        until_closed(&mut link);
        assert_eq!(client.ask(&["PING"]), "+PONG\r\n");
    }
    let mut link = shake_hands(store.cluster_address(0), &peer, 1).expect("let in");
    link.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    until_closed(&mut link);
    store.node(0).wait_log("HTTP");
    assert_eq!(client.ask(&["PING"]), "+PONG\r\n");
}

#[test]
fn every_link_of_three_nodes_with_two_shards_stands() {
    let mut store = Store::running(&[2, 2, 2]);
    let keys: Vec<String> = (0..3)
        .flat_map(|node| (0..2).map(move |shard| (node, shard)))
        .map(|(n, s)| store.key_of(n, s))
        .collect();
    for node in 0..3 {
        for shard in 0..2 {
            let mut client = store.shard_client(node, shard);
            for key in &keys {
                assert_eq!(client.ask(&["SET", key, "1"]), "+OK\r\n");
            }
        }
    }
    assert_eq!(store.client(2).ask(&["DBSIZE"]), ":6\r\n");
    let node: &mut Node = store.node(0);
    assert!(!node.log().contains("link lost"), "{}", node.log());
}

/// Sends this on a fresh connection, which must be closed for it.
fn assert_closed(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let end = until_closed(&mut stream);
    assert!(matches!(end, Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{end:?}");
}

/// Reads to the end of a connection; how it ended.
fn until_closed(stream: &mut TcpStream) -> Option<ErrorKind> {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Some(ErrorKind::UnexpectedEof),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return None;
            }
            Err(error) => return Some(error.kind()),
        }
    }
}
