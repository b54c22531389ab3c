//! Memory at its limit: who is refused and who is not, in the middle of pipelines and of batches of other shards.

mod store;

use dkv_protocol::eviction::Eviction;
use dkv_protocol::resp::value;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const MIB: u64 = 1 << 20;

fn limited(eviction: Eviction, nodes: u16) -> Store {
    Store::new(Settings { nodes, memory_bytes_max: 8 * MIB, eviction, ..PLAIN })
}

/// The replies to a pipeline, one after the other.
fn replies(bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = value::skip(&bytes[at..]).expect("a reply").expect("whole");
        all.push(&bytes[at..at + len]);
        at += len;
    }
    all
}

#[test]
fn the_limit_in_the_middle_of_a_pipeline_refuses_writes_alone_and_keeps_the_order() {
    let mut store = limited(Eviction::None, 1);
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(10_000);
    let count = 2000;
    for i in 0..count {
        let key = format!("k{i}");
        store.send(client, &command(&["SET", &key, &value]));
        store.send(client, &command(&["GET", &key]));
        store.send(client, &command(&["ECHO", &i.to_string()]));
    }
    store.run();
    let bytes = store.take(client);
    let replies = replies(&bytes);
    assert_eq!(replies.len(), 3 * count);
    let (mut stored, mut refused) = (0, 0);
    for (i, three) in replies.chunks(3).enumerate() {
        let number = i.to_string();
        let echo = format!("${}\r\n{number}\r\n", number.len());
        assert_eq!(three[2], echo.as_bytes(), "in their order");
        if three[0] == b"+OK\r\n" {
            stored += 1;
            assert!(three[1].starts_with(b"$10000\r\n"), "{i}");
        } else {
            refused += 1;
            assert_eq!(
                three[0], b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                "{i}"
            );
            assert_eq!(three[1], b"$-1\r\n", "{i}");
        }
    }
    assert!(stored > 300 && refused > 300, "{stored} {refused}");
    // Reads and deletes go on, and what was deleted makes room.
    assert!(store.call(client, &["GET", "k0"]).starts_with("$10000"));
    assert_eq!(store.call(client, &["DEL", "k0", "k1"]), ":2\r\n");
    assert_eq!(store.call(client, &["SET", "k0", &value]), "+OK\r\n");
    assert_eq!(store.call(client, &["FLUSHALL"]), "+OK\r\n");
    for i in 0..stored / 2 {
        assert_eq!(store.call(client, &["SET", &format!("n{i}"), &value]), "+OK\r\n", "{i}");
    }
}

#[test]
fn with_eviction_nobody_is_refused_what_fits() {
    for (eviction, nodes) in [
        (Eviction::AllKeysLru, 1),
        (Eviction::AllKeysLfu, 1),
        (Eviction::AllKeysRandom, 1),
        (Eviction::AllKeysLru, 3),
    ] {
        let mut store = limited(eviction, nodes);
        let clients: Vec<usize> = (0..4).map(|_| store.connect(0, 0, PortKind::Client)).collect();
        let sizes = [10, 100, 1000, 20_000, 200_000, 2_000_000];
        let mut sent = 0;
        for i in 0..3000 {
            // Most are small, so that many must go for a great one.
            let size = sizes[[0, 1, 2, 3, 1, 2, 0, 4, 1, 2][i % 10] + usize::from(i % 501 == 500)];
            let value = "v".repeat(size);
            store.send(clients[i % 4], &command(&["SET", &format!("k{i}"), &value]));
            store.send(clients[i % 4], &command(&["APPEND", &format!("a{}", i % 7), &value[..10]]));
            sent += 2;
        }
        store.run();
        let mut answered = 0;
        for client in clients {
            let bytes = store.take(client);
            let replies = replies(&bytes);
            assert!(!replies.iter().any(|reply| reply.starts_with(b"-")), "{eviction} {nodes}");
            answered += replies.len();
        }
        assert_eq!(answered, sent);
        store.background();
        for node in 0..nodes {
            let stats = store.stats(node, 0);
            assert!(stats.memory_bytes.get() <= 8 * MIB, "{eviction} {nodes}");
            assert!(stats.evicted.get() > 0, "{eviction} {nodes}");
        }
    }
}

#[test]
fn what_cannot_fit_is_refused_at_once_and_nothing_goes_for_it() {
    let mut store = limited(Eviction::AllKeysLru, 1);
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["SET", "small", "v"]), "+OK\r\n");
    let great = "v".repeat(20 << 20);
    assert!(store.call(client, &["SET", "great", &great]).starts_with("-OOM"));
    assert_eq!(store.call(client, &["GET", "small"]), "$1\r\nv\r\n");
    let volatile = limited(Eviction::VolatileLru, 1);
    let mut store = volatile;
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(100_000);
    let mut refused = 0;
    for i in 0..200 {
        let reply = store.call(client, &["SET", &format!("k{i}"), &value]);
        refused += usize::from(reply.starts_with("-OOM"));
    }
    assert!(refused > 50, "no key has an expiry: {refused}");
    assert_eq!(store.call(client, &["SET", "k0", "v", "EX", "100"]), "+OK\r\n");
}

#[test]
fn a_batch_of_another_shard_waits_for_memory_too() {
    let mut store = limited(Eviction::AllKeysLru, 2);
    let client = store.connect(0, 0, PortKind::Client);
    let key = |i: usize| format!("{{{}}}{i}", key_of(&store, 1, 0, "there"));
    let keys: Vec<String> = (0..3000).map(key).collect();
    let value = "v".repeat(10_000);
    for key in &keys {
        store.send(client, &command(&["SET", key, &value]));
    }
    store.send(client, &command(&["GET", &keys[2999]]));
    store.run();
    let bytes = store.take(client);
    let replies = replies(&bytes);
    assert_eq!(replies.len(), 3001);
    assert!(replies[..3000].iter().all(|reply| *reply == b"+OK\r\n"));
    assert!(replies[3000].starts_with(b"$10000"));
    assert!(store.stats(1, 0).evicted.get() > 1000);
}

#[test]
fn a_value_that_cannot_fit_is_not_kept_while_it_comes_and_one_that_can_waits_for_its_room() {
    let great = "g".repeat(20 * MIB as usize);
    for eviction in [Eviction::None, Eviction::AllKeysLru] {
        let mut store = limited(eviction, 1);
        let client = store.connect(0, 0, PortKind::Client);
        store.send(client, &command(&["MSET", "a", "1", "b", &great, "c", "2"]));
        store.send(client, &command(&["MGET", "a", "b", "c"]));
        store.send(client, &command(&["SET", "d", &great, "PX", "1000"]));
        store.send(client, &command(&["DBSIZE"]));
        store.run();
        let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let expected = format!("{oom}*3\r\n$-1\r\n$-1\r\n$-1\r\n{oom}:0\r\n");
        assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected);
    }
    // Announcing evicts nothing; coming does.
    let mut store = limited(Eviction::AllKeysLru, 1);
    let client = store.connect(0, 0, PortKind::Client);
    let small = "s".repeat(1000);
    (0..4000).for_each(|i| store.send(client, &command(&["SET", &format!("k{i}"), &small])));
    store.run();
    store.take(client);
    let before = store.call(client, &["DBSIZE"]);
    let other = store.connect(0, 0, PortKind::Client);
    store.input(other, format!("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n${}\r\nv", 5 * MIB).as_bytes());
    assert_eq!(store.call(client, &["DBSIZE"]), before);
    store.send(other, &"v".repeat(5 * MIB as usize - 1).into_bytes());
    store.send(other, b"\r\n");
    store.run();
    store.background();
    store.run();
    assert_eq!(store.take(other), b"+OK\r\n");
    assert_ne!(store.call(client, &["DBSIZE"]), before);
    assert_eq!(store.call(client, &["STRLEN", "x"]), format!(":{}\r\n", 5 * MIB));
}

#[test]
fn a_long_key_is_read_and_removed_when_there_is_no_memory() {
    let mut store = limited(Eviction::None, 1);
    let client = store.connect(0, 0, PortKind::Client);
    let key = |letter: &str| letter.repeat(60_000);
    assert_eq!(store.call(client, &["SET", &key("a"), "v"]), "+OK\r\n");
    let mut stored = 0;
    while store.call(client, &["SET", &format!("k{stored}"), "v"]) == "+OK\r\n" {
        stored += 1;
    }
    assert!(stored > 1000, "{stored}");
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    for (command, expected) in [
        (&["SET", &key("b"), "v"][..], oom),
        (&["SET", "b", &key("b")], oom),
        (&["GET", &key("b")], "$-1\r\n"),
        (&["GET", &key("a")], "$1\r\nv\r\n"),
        (&["DEL", &key("b"), &key("a")], ":1\r\n"),
    ] {
        // Half of it at first, so that its end is waited for.
        let bytes = self::command(command);
        let (first, last) = bytes.split_at(bytes.len() / 2);
        store.input(client, first);
        store.input(client, last);
        store.run();
        assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected, "{}", command[0]);
    }
}

#[test]
fn what_is_appended_waits_for_its_room_too() {
    let mut store = limited(Eviction::AllKeysLru, 1);
    let client = store.connect(0, 0, PortKind::Client);
    let small = "s".repeat(1000);
    (0..8000).for_each(|i| store.send(client, &command(&["SET", &format!("k{i}"), &small])));
    store.run();
    store.take(client);
    // Each is longer than what one slice of eviction makes room for. The key itself may be what goes.
    for (i, bytes) in [100_000, 300_000, 900_000, 1_500_000].into_iter().enumerate() {
        let tail = "t".repeat(bytes);
        for _ in 0..2 {
            let appended = command(&["APPEND", &format!("a{i}"), &tail]);
            appended.chunks(10_000).for_each(|piece| store.input(client, piece));
            store.run();
            let reply = String::from_utf8(store.take(client)).unwrap();
            let len = reply.trim_matches([':', '\r', '\n']).parse::<usize>();
            assert!(len.is_ok_and(|len| len == bytes || len == 2 * bytes), "{bytes}: {reply}");
        }
    }
}
