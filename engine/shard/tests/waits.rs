//! WAIT in a store whose primaries answer writes alone: how many copies hold what a connection wrote, wherever it is led.

mod store;

use dkv_protocol::ranges::{Ack, Replication};
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const REPLICATION: Replication = Replication { replicas: 1, ack: Ack::Async, ..Replication::NONE };
const ASYNC: Settings = Settings { nodes: 3, replication: REPLICATION, ..PLAIN };

/// A store, a connection to its first node, and a key of each node.
fn ready(settings: Settings) -> (Store, usize, [String; 3]) {
    let mut store = Store::new(settings);
    store.pass(300);
    let client = store.connect(0, 0, PortKind::Client);
    let keys = [0, 1, 2].map(|node| key_of(&store, node, 0, "k"));
    (store, client, keys)
}

fn received(store: &mut Store, client: usize) -> String {
    String::from_utf8(store.take(client)).expect("text")
}

/// Sends a command and gives the replies that come within some milliseconds.
fn within(store: &mut Store, ms: u64, client: usize, args: &[&str]) -> String {
    store.send(client, &command(args));
    store.pass(ms);
    received(store, client)
}

#[test]
fn copies_are_asked_for_at_whoever_leads_what_was_written() {
    let (mut store, client, [here, there, _]) = ready(ASYNC);
    assert_eq!(store.call(client, &["WAIT", "1", "0"]), ":1\r\n", "nothing was written");
    // The copies of what node 1 leads are at node 2 and hear nothing.
    store.cut(1, 2);
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    assert_eq!(within(&mut store, 55, client, &["WAIT", "1", "50"]), ":0\r\n");
    assert_eq!(store.call(client, &["SET", &here, "v"]), "+OK\r\n");
    assert_eq!(within(&mut store, 55, client, &["WAIT", "1", "50"]), ":0\r\n", "of both");
    let other = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(other, &["SET", &here, "w"]), "+OK\r\n");
    assert_eq!(within(&mut store, 5, other, &["WAIT", "1", "0"]), ":1\r\n", "not its writes");
    // It waits for that long and no longer; others are served meanwhile, and what is behind it is not.
    store.send(client, &command(&["WAIT", "1", "0"]));
    store.send(client, &command(&["PING"]));
    store.pass(100);
    assert_eq!(received(&mut store, client), "");
    assert_eq!(store.call(other, &["GET", &there]), "$1\r\nv\r\n");
    assert_eq!(store.stats(0, 0).blocked_clients.get(), 1);
    store.mend(1, 2);
    store.pass(100);
    assert_eq!(received(&mut store, client), ":1\r\n+PONG\r\n");
    assert_eq!(store.stats(0, 0).blocked_clients.get(), 0);
    store.assert_copies_are_equal();
    // What was found on all copies is not asked for again.
    let asked = store.stats(0, 0).forwarded.get();
    assert_eq!(store.call(client, &["WAIT", "1", "0"]), ":1\r\n");
    assert_eq!(store.stats(0, 0).forwarded.get(), asked);
}

#[test]
fn each_kind_of_write_counts() {
    let (mut store, client, [_, there, far]) = ready(ASYNC);
    store.cut(1, 2);
    let plain = |key: &str| vec![vec!["SET".to_owned(), key.to_owned(), "v".to_owned()]];
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for writes in [
        plain(&there),
        vec![words(&format!("MSET {far} 1 {there} 2"))],
        vec![words("MULTI"), words(&format!("INCR {there}")), words("EXEC")],
        vec![words("FLUSHALL")],
    ] {
        let client = store.connect(0, 0, PortKind::Client);
        for write in &writes {
            let write: Vec<&str> = write.iter().map(String::as_str).collect();
            assert!(!store.call(client, &write).starts_with('-'), "{write:?}");
        }
        assert_eq!(within(&mut store, 25, client, &["WAIT", "1", "20"]), ":0\r\n", "{writes:?}");
    }
    assert_eq!(within(&mut store, 5, client, &["WAIT", "1", "0"]), ":1\r\n");
}

#[test]
fn after_a_change_of_leader_nothing_is_taken_for_held() {
    let (mut store, client, [_, there, _]) = ready(ASYNC);
    let range = slot_of(there.as_bytes()).range();
    let leader = |store: &Store| {
        store.ranges.as_ref().expect("copies").configs[usize::from(range.0)].primary.addr.node.0
    };
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    assert_eq!(within(&mut store, 5, client, &["WAIT", "1", "0"]), ":1\r\n");
    // The next one is on one node when that is gone, and the copy leads.
    store.cut(1, 2);
    assert_eq!(store.call(client, &["SET", &there, "w"]), "+OK\r\n");
    store.kill(1, true);
    store.pass(50);
    assert_eq!(leader(&store), 2);
    store.place(range, vec![Store::addr(2, 0), Store::addr(0, 0)]);
    store.pass(3000);
    assert_eq!(store.call(client, &["GET", &there]), "$1\r\nv\r\n", "the write is lost");
    assert_eq!(within(&mut store, 5, client, &["WAIT", "1", "1000"]), ":0\r\n", "and that is said");
    // Of what is written from there on it says how many hold it.
    assert_eq!(store.call(client, &["SET", &there, "x"]), "+OK\r\n");
    assert_eq!(within(&mut store, 5, client, &["WAIT", "1", "0"]), ":1\r\n");
}

#[test]
fn who_led_before_is_not_believed() {
    let (mut store, client, [_, there, _]) = ready(ASYNC);
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    // Another copy leads by now, and node 0, which hears no news, still asks the one before it.
    let range = slot_of(there.as_bytes()).range();
    store.managed = false;
    let news = store.ranges.as_mut().expect("copies").dead(Store::addr(1, 0).node);
    let of_range: Vec<_> = news.into_iter().filter(|one| one.range == range).collect();
    let now = store.now;
    for node in [1, 2] {
        let at = store.position(Store::addr(node, 0));
        store.shards[at].1.news(now, &of_range);
    }
    assert_eq!(within(&mut store, 55, client, &["WAIT", "1", "50"]), ":0\r\n");
}

#[test]
fn in_a_transaction_it_answers_at_once() {
    let (mut store, client, keys) = ready(ASYNC);
    for (key, copy) in [(&keys[0], (0, 1)), (&keys[1], (1, 2))] {
        let writer = store.connect(0, 0, PortKind::Client);
        store.cut(copy.0, copy.1);
        for queued in [&["MULTI"][..], &["SET", key, "v"], &["WAIT", "1", "0"], &["PING"]] {
            store.call(writer, queued);
        }
        assert_eq!(store.call(writer, &["EXEC"]), "*3\r\n+OK\r\n:0\r\n+PONG\r\n", "{key}");
        store.mend(copy.0, copy.1);
        store.pass(50);
        for queued in [&["MULTI"][..], &["WAIT", "1", "0"]] {
            store.call(writer, queued);
        }
        assert_eq!(store.call(writer, &["EXEC"]), "*1\r\n:1\r\n", "{key}");
    }
    // So it does without a write.
    assert_eq!(store.call(client, &["MULTI"]), "+OK\r\n");
    assert_eq!(store.call(client, &["WAIT", "9", "0"]), "+QUEUED\r\n");
    assert_eq!(store.call(client, &["EXEC"]), "*1\r\n:1\r\n");
}

#[test]
fn a_connection_that_goes_while_it_waits_leaves_nothing() {
    let (mut store, first, [_, there, _]) = ready(ASYNC);
    store.cut(1, 2);
    let other = store.connect(0, 0, PortKind::Client);
    for client in [first, other] {
        assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
        store.send(client, &command(&["WAIT", "1", "0"]));
    }
    store.pass(10);
    assert_eq!(store.stats(0, 0).blocked_clients.get(), 2);
    store.disconnect(first);
    // Whoever takes its place is asked nothing and told nothing.
    let next = store.connect(0, 0, PortKind::Client);
    store.pass(50);
    assert_eq!(store.stats(0, 0).blocked_clients.get(), 1);
    // And one goes while its question is under way.
    store.delivering = false;
    store.pass(30);
    store.disconnect(other);
    store.delivering = true;
    store.mend(1, 2);
    store.pass(50);
    assert_eq!(store.stats(0, 0).blocked_clients.get(), 0);
    assert_eq!(received(&mut store, next), "");
    assert_eq!(store.call(next, &["PING"]), "+PONG\r\n");
}

#[test]
fn a_leader_that_cannot_be_asked_counts_for_nothing_until_it_can() {
    let (mut store, client, [_, there, _]) = ready(ASYNC);
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    store.cut(0, 1);
    assert_eq!(within(&mut store, 25, client, &["WAIT", "1", "20"]), ":0\r\n");
    store.send(client, &command(&["WAIT", "1", "0"]));
    store.pass(20);
    assert_eq!(received(&mut store, client), "");
    store.mend(0, 1);
    store.pass(30);
    assert_eq!(received(&mut store, client), ":1\r\n");
    // So it ends when it is told to, though what it asked for is under way.
    for (how, end) in
        [("TIMEOUT", ":0"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    {
        assert_eq!(store.call(client, &["SET", &there, "u"]), "+OK\r\n");
        let id = store.call(client, &["CLIENT", "ID"]);
        store.paused.insert(1);
        store.send(client, &command(&["WAIT", "1", "0"]));
        store.pass(5);
        let other = store.connect(0, 0, PortKind::Client);
        let id = id.trim_start_matches(':').trim_end();
        assert_eq!(store.call(other, &["CLIENT", "UNBLOCK", id, how]), ":1\r\n");
        assert_eq!(received(&mut store, client), format!("{end}\r\n"));
        store.paused.remove(&1);
        store.pass(20);
    }
    // One that does not answer is waited for until the time is over, and what it says then is for nobody.
    assert_eq!(store.call(client, &["SET", &there, "w"]), "+OK\r\n");
    store.paused.insert(1);
    assert_eq!(within(&mut store, 25, client, &["WAIT", "1", "20"]), ":0\r\n");
    store.send(client, &command(&["PING"]));
    store.run();
    assert_eq!(received(&mut store, client), "+PONG\r\n");
    store.paused.remove(&1);
    store.pass(20);
    assert_eq!(received(&mut store, client), "");
    assert_eq!(within(&mut store, 5, client, &["WAIT", "1", "0"]), ":1\r\n");
}
