//! Stores with copies, as one shard sees another through real sockets: when writes are answered, what survives a kill, how a
//! node that comes back is taken in, and what breaks nothing.

mod harness;

use dkv_protocol::control::ToNode;
use dkv_protocol::frame::{FrameKind, begin_frame, end_frame};
use dkv_protocol::ids::NodeIndex;
use dkv_protocol::ranges::{Change, ConfigAsk, Replication};
use harness::follower::{Follower, first_shards, open, shard};
use harness::{Client, PATIENCE, Store, bulk, encode};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, Read, Write};
use std::time::Instant;

const ONE_COPY: Replication = Replication { replicas: 1, ..Replication::NONE };

/// Writes until it is let: a range that was just formed has no lease for a moment.
fn write_first(client: &mut Client, key: &str, value: &str) {
    client.ask_until(&["SET", key, value], |reply| reply == "+OK\r\n");
}

/// Two nodes of one shard, all ranges led by the first.
fn led_by_the_first() -> (Store, Follower) {
    let mut store = Store::with_copies(&[1, 1], ONE_COPY);
    let follower = Follower::form(&mut store, |_| first_shards([0, 1]));
    write_first(&mut store.client(0), "first", "0");
    (store, follower)
}

/// Stops the process of a node; `SIGCONT` has it go on.
fn stop_process(store: &mut Store, node: usize) -> Pid {
    let pid = Pid::from_raw(store.node(node).child.id() as i32).expect("a pid");
    kill_process(pid, Signal::STOP).expect("stopped");
    // The signal is on its way until the process is seen to have stopped.
    let seen = waitpid(Some(pid), WaitOptions::UNTRACED);
    assert!(seen.expect("a child").is_some_and(|(_, status)| status.stopped()));
    pid
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key:{n}")).collect()
}

/// Writes each key with its own name as its value, in one pipeline; what was refused, nothing of which was done, is written
/// again until all are answered.
fn write_all(client: &mut Client, keys: &[String]) {
    until_all(client, keys, |key| encode(&["SET", key, key]), |_| "+OK\r\n".to_owned());
}

/// Reads what [`write_all`] wrote.
fn read_all(client: &mut Client, keys: &[String]) {
    until_all(client, keys, |key| encode(&["GET", key]), bulk);
}

fn until_all(
    client: &mut Client,
    keys: &[String],
    request: impl Fn(&str) -> Vec<u8>,
    wanted: impl Fn(&str) -> String,
) {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<&String> = keys.iter().collect();
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "{} are refused for ever", left.len());
        let pipeline: Vec<u8> = left.iter().flat_map(|key| request(key)).collect();
        client.stream.write_all(&pipeline).expect("sent");
        left.retain(|key| {
            let reply = client.reply();
            let refused = reply.starts_with("-TRYAGAIN");
            assert!(refused || reply == wanted(key), "{key}: {reply}");
            refused
        });
    }
}

#[test]
fn a_write_is_answered_only_when_the_copy_holds_it_and_without_a_lease_nothing_is_read() {
    let (mut store, follower) = led_by_the_first();
    follower.go_away(true);
    let pid = stop_process(&mut store, 1);
    let (mut writer, mut reader) = (store.client(0), store.client(0));
    writer.send(&["SET", "k", "1"]);
    // What is not known to be on the copy is not read either, so the key that is read is another one.
    reader.ask_until(&["GET", "first"], |reply| {
        assert!(reply == bulk("0") || reply.starts_with("-TRYAGAIN"), "{reply}");
        reply.starts_with("-TRYAGAIN")
    });
    assert!(writer.is_unanswered());
    let refused = reader.ask(&["SET", "other", "1"]);
    assert!(refused.starts_with("-TRYAGAIN"), "{refused}");
    assert!(writer.is_unanswered());
    kill_process(pid, Signal::CONT).expect("goes on");
    follower.go_away(false);
    // When the copy was away for so long that it has promised to take over, nobody knows what becomes of the write.
    let answer = writer.reply();
    assert!(answer == "+OK\r\n" || answer.starts_with("-UNCERTAIN"), "{answer}");
    let seen = reader.ask_until(&["GET", "k"], |reply| !reply.starts_with("-TRYAGAIN"));
    let undone = seen == "$-1\r\n" && answer.starts_with("-UNCERTAIN");
    assert!(seen == bulk("1") || undone, "{answer} and then {seen}");
    write_first(&mut reader, "other", "2");
    assert_eq!(reader.ask(&["GET", "other"]), bulk("2"));
}

#[test]
fn a_copy_that_stays_silent_is_left_behind_and_the_waiting_write_is_answered() {
    let (mut store, follower) = led_by_the_first();
    let pid = stop_process(&mut store, 1);
    let mut writer = store.client(0);
    assert_eq!(writer.ask(&["SET", "k", "1"]), "+OK\r\n", "after the shrink");
    follower.wait_in_sync(1);
    kill_process(pid, Signal::CONT).expect("goes on");
    follower.wait_in_sync(2);
    store.take(0).kill();
    follower.dead(0);
    store.client(1).ask_until(&["GET", "k"], |reply| reply == bulk("1"));
}

#[test]
fn every_answered_write_outlives_the_process_that_answered_it() {
    let (mut store, follower) = led_by_the_first();
    let keys = keys(3000);
    let mut client = store.client(0);
    let pipeline: Vec<u8> = keys.iter().flat_map(|key| encode(&["SET", key, key])).collect();
    client.stream.write_all(&pipeline).expect("sent");
    for key in &keys[..1000] {
        assert_eq!(client.reply(), "+OK\r\n", "{key}");
    }
    store.take(0).kill();
    let rest = client.until_the_end();
    let answered = 1000 + rest.windows(5).filter(|five| five == b"+OK\r\n").count();
    follower.dead(0);
    read_all(&mut store.client(1), &keys[..answered]);
}

#[test]
fn a_node_that_comes_back_is_filled_taken_in_and_can_lead() {
    let (mut store, follower) = led_by_the_first();
    let keys = keys(2000);
    write_all(&mut store.client(0), &keys);
    store.take(0).kill();
    follower.dead(0);
    let mut client = store.client(1);
    read_all(&mut client, &keys[..1]);
    let large = "0123456789abcdef".repeat(1 << 16);
    write_first(&mut client, "large", &large);
    assert_eq!(client.ask(&["SET", "passing", "1", "EX", "1000"]), "+OK\r\n");
    store.start(0);
    follower.follow(&store, 0);
    follower.wait_placed();
    let boot = u64::from_str_radix(&store.node(0).ready.boot, 16).expect("hexadecimal");
    let taken_in = |ask: &ConfigAsk| match ask.change {
        Change::Expand { add } => add.addr == shard(0, 0) && add.boot.0 == boot,
        _ => false,
    };
    assert_eq!(follower.granted().iter().filter(|ask| taken_in(ask)).count(), 256);
    store.take(1).kill();
    follower.dead(1);
    let mut client = store.client(0);
    read_all(&mut client, &keys);
    assert!(client.ask(&["GET", "large"]) == bulk(&large), "the large value came back changed");
    let ttl: i64 = client.ask(&["TTL", "passing"])[1..].trim_end().parse().expect("a number");
    assert!((900..=1000).contains(&ttl), "{ttl}");
}

#[test]
fn a_shard_asks_the_leader_on_the_same_node_or_another_and_waits_for_its_copies() {
    let mut store = Store::with_copies(&[2, 2], ONE_COPY);
    // Leaders on all four shards, each copy on the other node.
    let follower = Follower::form(&mut store, |range| {
        let (node, of) = (u16::from(range.0 & 1), u16::from(range.0 >> 1 & 1));
        vec![shard(node, of), shard(1 - node, 1 - of)]
    });
    let keys = keys(1000);
    for (node, of) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut client = store.shard_client(node, of);
        write_all(&mut client, &keys);
        read_all(&mut client, &keys);
    }
    let status = store.status(0);
    assert!(status.shards.iter().all(|s| s.served_for_others > 0), "{:?}", status.shards);
    store.take(1).kill();
    follower.dead(1);
    for of in 0..2 {
        read_all(&mut store.shard_client(0, of), &keys);
    }
}

#[test]
fn leadership_moves_where_it_is_wished_and_no_answered_write_is_lost() {
    let (store, follower) = led_by_the_first();
    let keys = keys(2000);
    let mut client = store.client(0);
    write_all(&mut client, &keys[..1000]);
    follower.place(|_| first_shards([1, 0]));
    write_all(&mut client, &keys[1000..]);
    follower.wait_placed();
    read_all(&mut store.client(1), &keys);
    assert!(
        follower.granted().iter().all(|ask| matches!(ask.change, Change::Transfer { .. })),
        "nothing else was asked for"
    );
}

#[test]
fn a_node_that_joins_is_dialled_filled_and_serves() {
    let mut store = Store::new(&[1, 1, 1]);
    let all = store.documents[0].nodes.clone();
    for document in &mut store.documents {
        document.replication = Some(ONE_COPY);
    }
    for node in 0..2 {
        store.documents[node].nodes.truncate(2);
        store.start(node);
    }
    for node in 0..2 {
        store.wait_status(node, |status| status.cluster_ok);
    }
    let follower = Follower::form(&mut store, |range| {
        let first = u16::from(range.0 & 1);
        first_shards([first, 1 - first])
    });
    let keys = keys(1000);
    let mut client = store.client(0);
    write_all(&mut client, &keys);
    store.start(2);
    for node in 0..2 {
        follower.say(node, &ToNode::Nodes { nodes: all.clone(), removed: Vec::new() });
    }
    follower.follow(&store, 2);
    for node in 0..3 {
        store.wait_status(node, |status| status.cluster_ok);
    }
    follower.place(|range| {
        let first = u16::from(range.0) % 3;
        first_shards([first, (first + 1) % 3])
    });
    follower.wait_placed();
    for node in 0..3 {
        read_all(&mut store.client(node), &keys);
        write_all(&mut store.client(node), &keys);
    }
    assert!(store.status(2).shards[0].served_for_others > 0);
    // It leaves again.
    follower.place(|range| first_shards([u16::from(range.0 & 1), 1 - u16::from(range.0 & 1)]));
    follower.wait_placed();
    for node in 0..2 {
        let removed = vec![NodeIndex(2)];
        follower.say(node, &ToNode::Nodes { nodes: all.clone(), removed });
    }
    store.take(2).kill();
    for node in 0..2 {
        store.wait_status(node, |status| status.cluster_ok);
        read_all(&mut store.client(node), &keys);
    }
}

#[test]
fn what_a_follower_says_wrongly_ends_its_stream_alone() {
    let (mut store, follower) = led_by_the_first();
    let mut client = store.client(0);
    let news = r#"{"tell":"ranges","news":[{"range":0,"config":null,"placement":[],"placement_version":0}]}"#;
    let cases = [
        "\n".to_owned(),
        "GET / HTTP/1.1\n".to_owned(),
        r#"{"tell":"weather","news":[]}"#.to_owned() + "\n",
        news.replace("\"range\":0", "\"range\":256") + "\n",
        news.replace("\"config\":null", "\"config\":{\"epoch\":-1}") + "\n",
        news.replace("\"placement\":[]", "\"places\":[]") + "\n",
        "x".repeat(8 * 1024 * 1024 + 1),
    ];
    for said in cases {
        let (mut stream, mut lines) = open(&store, 0);
        // The node may end the stream before all is said.
        let _ = stream.write_all(said.as_bytes());
        let mut rest = Vec::new();
        // Asks that were under way may come first; then it is over.
        let _ = lines.read_to_end(&mut rest);
        assert_eq!(client.ask(&["SET", "k", "1"]), "+OK\r\n", "{}", &said[..said.len().min(60)]);
    }
    // News that is old, empty or names nobody changes nothing.
    let (mut stream, mut lines) = open(&store, 0);
    writeln!(stream, "{news}").expect("sent");
    writeln!(stream, r#"{{"tell":"ranges","news":[]}}"#).expect("sent");
    writeln!(stream, r#"{{"tell":"nodes","nodes":[],"removed":[]}}"#).expect("sent");
    store.node(0).wait_log("other nodes than those");
    assert_eq!(client.ask(&["SET", "k", "2"]), "+OK\r\n");
    // A later one takes its place.
    follower.follow(&store, 0);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {}
    store.take(1).kill();
    follower.dead(1);
    client.ask_until(&["SET", "k", "3"], |reply| reply == "+OK\r\n");
}

#[test]
fn a_peer_that_speaks_of_copies_wrongly_loses_its_link_alone() {
    let mut store = Store::new(&[1, 1]);
    for document in &mut store.documents {
        document.replication = Some(ONE_COPY);
    }
    store.start(0);
    // The other node is known but does not run: what comes in its name comes from here.
    let _follower = Follower::form(&mut store, |_| first_shards([0]));
    let mut client = store.client(0);
    write_first(&mut client, "k", "1");
    let peer = store.documents[1].clone();
    let garbage: [&[u8]; 4] = [b"", b"\xff", &[0xff; 64], &[0; 4096]];
    for body in garbage {
        let mut link =
            harness::handshake::shake_hands(store.cluster_address(0), &peer, 1).expect("let in");
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame);
        frame.extend_from_slice(body);
        end_frame(&mut frame, start, FrameKind::Peer);
        link.write_all(&frame).expect("sent");
        let mut rest = Vec::new();
        let _ = link.read_to_end(&mut rest);
        assert_eq!(client.ask(&["GET", "k"]), bulk("1"));
    }
    store.node(0).wait_log("a batch of copies");
    let mut other = peer;
    other.store_id = dkv_protocol::ids::StoreId("f".repeat(32));
    let refusal = harness::handshake::shake_hands(store.cluster_address(0), &other, 1);
    assert!(refusal.expect_err("refused").contains("store"));
    assert_eq!(client.ask(&["SET", "k", "2"]), "+OK\r\n");
}
