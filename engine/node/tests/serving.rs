//! One node and its clients.

mod harness;

use dkv_protocol::control::NodeStatus;
use dkv_protocol::io::IoChoice;
use harness::{Client, PATIENCE, Store, bulk, encode};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn one_node_answers_ping_set_and_get_in_one_pipeline() {
    let mut store = Store::running(&[1]);
    let mut client = store.client(0);
    let mut pipeline = encode(&["PING"]);
    for n in 0..1000 {
        pipeline.extend(encode(&["SET", &format!("k{n}"), &format!("v{n}")]));
    }
    for n in 0..1000 {
        pipeline.extend(encode(&["GET", &format!("k{n}")]));
    }
    client.stream.write_all(&pipeline).expect("sent");
    assert_eq!(client.reply(), "+PONG\r\n");
    for _ in 0..1000 {
        assert_eq!(client.reply(), "+OK\r\n");
    }
    for n in 0..1000 {
        assert_eq!(client.reply(), bulk(&format!("v{n}")));
    }
    let ready = store.node(0).ready.clone();
    assert_eq!(ready.pid, store.node(0).child.id());
    // Where nothing is asked for, a machine that runs these tests has rings.
    let (name, api) = match harness::asked_io() {
        IoChoice::Epoll => ("io=epoll ", "epoll"),
        IoChoice::Auto | IoChoice::Uring => ("io=uring ", "io_uring"),
    };
    assert!(ready.io.starts_with(name), "{}", ready.io);
    let info = client.ask(&["INFO", "server"]);
    assert!(info.contains(&format!("multiplexing_api:{api}\r\n")), "{info}");
    let status = store.status(0);
    assert_eq!((status.boot, status.node.as_str(), status.cluster_ok), (ready.boot, "node1", true));
    assert_eq!((status.shards[0].puts, status.shards[0].gets), (1000, 1000));
    assert!(status.resident_bytes > 0 && status.shards[0].latency.iter().sum::<u64>() >= 2001);
}

#[test]
fn each_shard_of_a_node_serves_every_key_on_each_of_its_ports() {
    let store = Store::running(&[3]);
    let keys: Vec<String> = (0..3).map(|shard| store.key_of(0, shard)).collect();
    let mut clients: Vec<Client> = (0..3).map(|shard| store.shard_client(0, shard)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&["PING"]), "+PONG\r\n", "it is let in before the others come");
    }
    clients.extend((0..6).map(|_| store.client(0)));
    for (n, client) in clients.iter_mut().enumerate() {
        let mut pipeline = Vec::new();
        for round in 0..50 {
            for key in &keys {
                pipeline.extend(encode(&["SET", key, &format!("{n}:{round}")]));
                pipeline.extend(encode(&["GET", key]));
            }
        }
        client.stream.write_all(&pipeline).expect("sent");
        for round in 0..50 {
            for _ in &keys {
                assert_eq!(client.reply(), "+OK\r\n");
                assert_eq!(client.reply(), bulk(&format!("{n}:{round}")));
            }
        }
    }
    let status = store.status(0);
    assert!(
        status.shards.iter().all(|s| s.gets == 9 * 50 && s.forwarded > 0),
        "{:?}",
        status.shards
    );
    // Six plain clients over three shards, beside one on each shard's own port. A connection that is just changing hands
    // may be counted twice or not at all, so the shares differ by one at most.
    let shares: Vec<u64> = status.shards.iter().map(|s| s.connections).collect();
    assert!(
        shares.iter().sum::<u64>() == 9 && shares.iter().all(|s| (2..=4).contains(s)),
        "{shares:?}"
    );
}

#[test]
fn a_client_that_stops_sending_still_gets_its_replies() {
    let store = Store::running(&[2]);
    let keys = [store.key_of(0, 0), store.key_of(0, 1)];
    let mut client = store.client(0);
    let mut pipeline = Vec::new();
    for n in 0..200 {
        pipeline.extend(encode(&["SET", &keys[n % 2], "x"]));
    }
    client.stream.write_all(&pipeline).expect("sent");
    client.stream.shutdown(Shutdown::Write).expect("shut");
    assert_eq!(client.until_the_end(), b"+OK\r\n".repeat(200));
    store.wait_status(0, |status| status.shards.iter().all(|s| s.connections == 0));
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let store = Store::running(&[2]);
    for n in 0..50 {
        let mut client = store.client(0);
        assert_eq!(client.ask(&["SET", &format!("k{n}"), "v"]), "+OK\r\n");
        // A reply that it does not read makes its end a reset.
        client.send(&["GET", &format!("k{n}")]);
        client.stream.write_all(b"*2\r\n$3\r\nGET\r\n$1").expect("sent");
    }
    store.wait_status(0, |s| s.shards.iter().map(|s| s.connections_accepted).sum::<u64>() == 50);
    store.wait_status(0, |s| s.shards.iter().all(|s| s.connections == 0));
    assert_eq!(store.client(0).ask(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_client_that_never_reads_is_bounded_and_disturbs_nobody() {
    let store = Store::running(&[1]);
    let mut other = store.client(0);
    assert_eq!(other.ask(&["SET", "big", &"x".repeat(1 << 20)]), "+OK\r\n");
    let mut silent = store.client(0);
    silent.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("settable");
    let gets = encode(&["GET", "big"]).repeat(1000);
    // A thousand times a MiB, which would be a GiB if nothing held it.
    let _ = silent.stream.write_all(&gets);
    for _ in 0..100 {
        assert_eq!(other.ask(&["PING"]), "+PONG\r\n");
    }
    let status = store.wait_status(0, |s| s.shards[0].gets >= 60);
    assert!(status.resident_bytes < 400 << 20, "{} bytes resident", status.resident_bytes);
    // It is let go in the end, and what it held with it.
    let let_go = |s: &NodeStatus| s.shards[0].connections_cut == 1 && s.shards[0].connections == 1;
    store.wait_status(0, let_go);
    assert_eq!(other.ask(&["PING"]), "+PONG\r\n");
}

#[test]
fn a_thousand_clients_are_served_and_spread_evenly() {
    let store = Store::running(&[2]);
    let mut clients: Vec<Client> = (0..1000).map(|_| store.client(0)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&["SET", &format!("k{n}"), &n.to_string()]);
    }
    for client in &mut clients {
        assert_eq!(client.reply(), "+OK\r\n");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&["GET", &format!("k{n}")]), bulk(&n.to_string()));
    }
    let status = store.status(0);
    let counts: Vec<u64> = status.shards.iter().map(|s| s.connections).collect();
    assert_eq!(counts.iter().sum::<u64>(), 1000);
    assert!(counts[0].abs_diff(counts[1]) <= 64, "{counts:?}");
    drop(clients);
    store.wait_status(0, |s| s.shards.iter().all(|s| s.connections == 0));
}

#[test]
fn malformed_requests_close_their_connection_alone() {
    let store = Store::running(&[1]);
    let mut other = store.client(0);
    let mut bad = store.client(0);
    bad.stream.write_all(b"*1\r\nxPING\r\n").expect("sent");
    let said = String::from_utf8(bad.until_the_end()).expect("text");
    assert!(said.starts_with("-ERR Protocol error: expected '$', got 'x'"), "{said}");
    assert_eq!(other.ask(&["PING"]), "+PONG\r\n");
}

#[test]
fn an_idle_node_uses_next_to_no_cpu() {
    let store = Store::running(&[1, 1]);
    let mut client = store.client(0);
    // The connection's own silence is the clock: nothing comes for as long as the time-out says.
    client.stream.set_read_timeout(Some(Duration::from_secs(3))).expect("settable");
    let before: Vec<u64> = (0..2).map(|n| store.status(n).cpu_us).collect();
    let start = Instant::now();
    let nothing = client.stream.read(&mut [0; 1]);
    assert!(nothing.is_err() && start.elapsed() < PATIENCE);
    for (n, before) in before.into_iter().enumerate() {
        let used = store.status(n).cpu_us - before;
        let share = used as f64 / start.elapsed().as_micros() as f64;
        assert!(share < 0.01, "node {n} used {:.2} % of a core", share * 100.0);
    }
}
