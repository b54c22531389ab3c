//! Links that are lost, ways that are full and readers that are slow: definite answers, bounded queues, nothing lost.

mod store;

use dkv_protocol::limits::{OUTPUT_BYTES_MAX, WAITING_PER_CONNECTION_MAX};
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const DOWN: &str = "-CLUSTERDOWN Hash slot not served: node2 is unreachable\r\n";
const UNCERTAIN: &str = "-UNCERTAIN write may or may not have been applied (node2 was lost)\r\n";

fn two_nodes() -> (Store, usize, String, String) {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let (here, there) = (key_of(&store, 0, 0, "k"), key_of(&store, 1, 0, "k"));
    (store, client, here, there)
}

#[test]
fn ranges_behind_a_lost_link_answer_at_once_and_the_rest_goes_on() {
    let (mut store, client, here, there) = two_nodes();
    store.cut(0, 1);
    assert_eq!(store.call(client, &["GET", &there]), DOWN);
    assert_eq!(store.call(client, &["SET", &there, "v"]), DOWN);
    assert_eq!(store.call(client, &["MSET", &here, "v", &there, "v"]), DOWN);
    assert_eq!(store.call(client, &["EXISTS", &here]), ":0\r\n", "nothing of it was applied");
    assert_eq!(store.call(client, &["DBSIZE"]), DOWN);
    assert_eq!(store.call(client, &["SET", &here, "v"]), "+OK\r\n");
    assert!(store.call(client, &["INFO"]).contains("dkv_shards_missing:1\r\n"));
    let info = store.call(client, &["CLUSTER", "INFO"]);
    assert!(info.contains("cluster_state:fail\r\n"), "{info}");
    assert!(info.contains("cluster_slots_ok:8192\r\n") && info.contains("cluster_slots_fail:8192"));
    let nodes = store.call(client, &["CLUSTER", "NODES"]);
    assert!(nodes.contains("master,fail - 0 0 7 disconnected 8192-16383\n"), "{nodes}");
    store.mend(0, 1);
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    assert_eq!(store.call(client, &["DBSIZE"]), ":2\r\n");
    assert!(store.call(client, &["CLUSTER", "INFO"]).contains("cluster_state:ok\r\n"));
}

#[test]
fn what_was_sent_and_what_was_not_end_differently_when_a_link_is_lost() {
    let (mut store, client, here, there) = two_nodes();
    store.delivering = false;
    for args in [&["GET", &there][..], &["SET", &there, "v"], &["GET", &here]] {
        store.input(client, &command(args));
    }
    // The batch is under way now.
    while store.step() {}
    // This one has not been sent: it waits in the open batch, its turn has not ended.
    store.input(client, &command(&["SET", &there, "w"]));
    store.input(client, &command(&["MSET", &here, "x", &there, "x"]));
    store.cut(0, 1);
    store.delivering = true;
    store.run();
    let expected = format!("{DOWN}{UNCERTAIN}$-1\r\n{DOWN}{UNCERTAIN}");
    assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected);
    // The local part of the last one was applied: a definite error would have been a false one.
    assert_eq!(store.call(client, &["GET", &here]), "$1\r\nx\r\n");
}

#[test]
fn a_late_reply_of_a_former_link_answers_nothing() {
    use dkv_protocol::frame::{RequestIter, begin_reply, end_reply};
    let (mut store, client, _, there) = two_nodes();
    let late = |id: u32| {
        let mut batch = Vec::new();
        let start = begin_reply(&mut batch, id);
        batch.extend_from_slice(b"$4\r\nlate\r\n");
        end_reply(&mut batch, start);
        batch
    };
    let get = command(&["GET", &there]);
    let first_id =
        |batch: &[u8]| RequestIter::new(batch).next(&mut Vec::new()).unwrap().unwrap().0.id;
    store.input(client, &get);
    let (to, batch) = store.shards[0].1.next_batch().unwrap();
    let old = first_id(&batch);
    store.cut(0, 1);
    store.mend(0, 1);
    store.input(client, &get);
    let (_, batch) = store.shards[0].1.next_batch().unwrap();
    let new = first_id(&batch);
    assert_ne!(old, new);
    let now = store.now;
    store.shards[0].1.replies(now, to, &late(old)).unwrap();
    store.shards[0].1.replies(now, to, &late(new.wrapping_add(1))).unwrap();
    store.run();
    assert_eq!(String::from_utf8(store.take(client)).unwrap(), DOWN);
    store.shards[0].1.replies(now, to, &late(new)).unwrap();
    store.run();
    assert_eq!(store.take(client), b"$4\r\nlate\r\n");
}

#[test]
fn links_that_come_and_go_under_load_answer_every_command_once_and_in_order() {
    for seed in 0..10 {
        let mut store = Store::new(Settings { nodes: 3, shards: 2, seed, ..PLAIN });
        let clients: Vec<usize> =
            (0..6).map(|i| store.connect(i % 3, i / 3, PortKind::Client)).collect();
        let mut sent = 0;
        for round in 0..300 {
            for client in &clients {
                let key = format!("k{}", store.random.below(50));
                let other = format!("k{}", store.random.below(50));
                let args: &[&str] = match store.random.below(4) {
                    0 => &["GET", &key],
                    1 => &["SET", &key, "v"],
                    2 => &["MGET", &key, &other],
                    _ => &["MSET", &key, "v", &other, "v"],
                };
                store.send(*client, &command(args));
                store.send(*client, &command(&["ECHO", &format!("{round}")]));
            }
            sent += 1;
            let (a, b) = (store.random.below(3) as u16, store.random.below(3) as u16);
            match store.random.below(20) {
                0 => store.cut(a, b),
                1 | 2 => store.mend(a, b),
                _ => {}
            }
            for _ in 0..store.random.below(20) {
                store.step();
            }
        }
        store.run();
        for client in clients {
            let received = store.take(client);
            let mut rest = &received[..];
            for round in 0..sent {
                let len = dkv_protocol::resp::value::skip(rest).unwrap().expect("a reply");
                let reply = &rest[..len];
                assert!(
                    !reply.starts_with(b"-")
                        || reply.starts_with(b"-CLUSTERDOWN")
                        || reply.starts_with(b"-UNCERTAIN"),
                    "{}",
                    String::from_utf8_lossy(reply)
                );
                rest = &rest[len..];
                let text = format!("{round}");
                let echo = format!("${}\r\n{text}\r\n", text.len());
                assert!(rest.starts_with(echo.as_bytes()), "seed {seed} round {round}");
                rest = &rest[echo.len()..];
            }
            assert!(rest.is_empty());
        }
    }
}

#[test]
fn a_connection_with_too_many_commands_under_way_is_paused_and_loses_nothing() {
    let (mut store, client, _, there) = two_nodes();
    store.call(client, &["SET", &there, "0"]);
    store.delivering = false;
    let total = 3 * WAITING_PER_CONNECTION_MAX;
    let mut all = Vec::new();
    (0..total).for_each(|_| all.extend(command(&["INCR", &there])));
    store.send(client, &all);
    while store.step() {}
    assert!(store.clients[client].paused, "it has too many under way");
    store.delivering = true;
    store.run();
    assert!(!store.clients[client].paused);
    let received = String::from_utf8(store.take(client)).unwrap();
    assert!(received.lines().map(|l| l[1..].parse::<usize>().unwrap()).eq(1..=total));
}

#[test]
fn a_full_way_pauses_those_who_want_it_and_nobody_else() {
    let (mut store, client, here, there) = two_nodes();
    let other = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(20_000);
    store.delivering = false;
    let writers: Vec<usize> =
        (0..20).map(|_| store.connect(0, 0, PortKind::Client)).chain([client]).collect();
    for round in 0..60 {
        for writer in &writers {
            store.send(*writer, &command(&["SET", &there, &format!("{round}{value}")]));
        }
    }
    while store.step() {}
    assert!(writers.iter().filter(|w| store.clients[**w].paused).count() > 5, "the way is full");
    assert_eq!(store.call(other, &["SET", &here, "1"]), "+OK\r\n");
    store.delivering = true;
    store.run();
    for writer in &writers {
        assert!(!store.clients[*writer].paused);
        assert!(store.take(*writer) == "+OK\r\n".repeat(60).as_bytes());
    }
}

#[test]
fn a_lost_link_frees_those_who_wait_for_room_on_it() {
    let (mut store, client, _, there) = two_nodes();
    let value = "v".repeat(100_000);
    store.delivering = false;
    let writers: Vec<usize> =
        (0..4).map(|_| store.connect(0, 0, PortKind::Client)).chain([client]).collect();
    for _ in 0..60 {
        for writer in &writers {
            store.send(*writer, &command(&["SET", &there, &value]));
        }
    }
    while store.step() {}
    assert!(writers.iter().any(|w| store.clients[*w].paused));
    store.cut(0, 1);
    store.run();
    for writer in &writers {
        assert!(!store.clients[*writer].paused);
        let received = String::from_utf8(store.take(*writer)).unwrap();
        assert_eq!(received.lines().count(), 60);
        assert!(received.lines().all(|l| DOWN.starts_with(l) || UNCERTAIN.starts_with(l)));
    }
}

#[test]
fn a_client_that_never_reads_is_cut_at_its_limit() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(1024 * 1024);
    assert_eq!(store.call(client, &["SET", "k", &value]), "+OK\r\n");
    store.clients[client].reads = false;
    (0..200).for_each(|_| store.send(client, &command(&["GET", "k"])));
    store.run();
    let unsent = store.shards[0].1.unsent_bytes();
    assert!((OUTPUT_BYTES_MAX..OUTPUT_BYTES_MAX + 3 * 1024 * 1024).contains(&unsent), "{unsent}");
    assert!(store.clients[client].paused && !store.clients[client].cut);
    store.now.boot_ns += 9_000_000_000;
    store.background();
    store.run();
    assert!(!store.clients[client].cut, "it has the time to read");
    store.now.boot_ns += 11_000_000_000;
    store.background();
    store.run();
    assert!(store.clients[client].cut);
    assert_eq!(store.stats(0, 0).connections_cut.get(), 1);
    assert_eq!(store.shards[0].1.unsent_bytes(), 0);
}

#[test]
fn a_client_that_reads_gets_any_amount() {
    for nodes in [1, 2] {
        let mut store = Store::new(Settings { nodes, ..PLAIN });
        let client = store.connect(0, 0, PortKind::Client);
        let key = key_of(&store, nodes - 1, 0, "k");
        let value = "v".repeat(1024 * 1024);
        store.call(client, &["SET", &key, &value]);
        let mut all = Vec::new();
        (0..150).for_each(|_| all.extend(command(&["GET", &key])));
        store.input(client, &all);
        assert!(store.shards[0].1.unsent_bytes() < OUTPUT_BYTES_MAX + 3 * 1024 * 1024);
        store.run();
        store.now.boot_ns += 11_000_000_000;
        store.background();
        store.run();
        let received = store.take(client);
        assert_eq!(received.len(), 150 * (value.len() + 12));
        assert!(!store.clients[client].cut);
    }
}

#[test]
fn all_slow_readers_together_are_bounded_too() {
    let mut store = Store::new(PLAIN);
    let writer = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(16 * 1024 * 1024);
    store.call(writer, &["SET", "k", &value]);
    let readers: Vec<usize> = (0..16).map(|_| store.connect(0, 0, PortKind::Client)).collect();
    for reader in &readers {
        store.clients[*reader].reads = false;
        (0..6).for_each(|_| store.send(*reader, &command(&["GET", "k"])));
    }
    store.run();
    let limit = dkv_protocol::limits::OUTPUT_TOTAL_BYTES_MAX;
    // Beyond the limit each gets one reply more, and only if it has none to read.
    let unsent = store.shards[0].1.unsent_bytes();
    assert!((limit..limit + 16 * (value.len() + 64)).contains(&unsent), "{unsent}");
    store.now.boot_ns += 20_000_000_000;
    store.background();
    store.run();
    assert!(readers.iter().any(|r| store.clients[*r].cut));
    assert!(store.shards[0].1.unsent_bytes() <= limit);
    assert_eq!(store.call(writer, &["PING"]), "+PONG\r\n");
}
