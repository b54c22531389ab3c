//! Stores with copies: what is answered waits for the copies, and survives the shard that answered.

mod store;

use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::Replication;
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const COPIED: Settings =
    Settings { nodes: 3, replication: Replication { replicas: 1, ..Replication::NONE }, ..PLAIN };

fn ready(settings: Settings) -> Store {
    let mut store = Store::new(settings);
    store.pass(300);
    store
}

fn received(store: &mut Store, client: usize) -> String {
    String::from_utf8(store.take(client)).expect("text")
}

#[test]
fn a_store_with_copies_serves_as_one_without() {
    let mut store = ready(COPIED);
    for node in 0..3 {
        let client = store.connect(node, 0, PortKind::Client);
        for i in 0..50 {
            let (key, value) = (format!("k{node}-{i}"), format!("v{i}"));
            assert_eq!(store.call(client, &["SET", &key, &value]), "+OK\r\n");
            assert_eq!(
                store.call(client, &["APPEND", &key, "x"]),
                format!(":{}\r\n", value.len() + 1)
            );
            let expected = format!("${}\r\n{value}x\r\n", value.len() + 1);
            assert_eq!(store.call(client, &["GET", &key]), expected);
        }
    }
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["DBSIZE"]), ":150\r\n");
    let mget = store.call(client, &["MGET", "k0-1", "nothing", "k1-2", "k2-3"]);
    assert_eq!(mget, "*4\r\n$3\r\nv1x\r\n$-1\r\n$3\r\nv2x\r\n$3\r\nv3x\r\n");
    assert_eq!(store.call(client, &["DEL", "k0-1", "k1-1", "k2-1", "k2-1"]), ":3\r\n");
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let reply = store.call(client, &["SCAN", &cursor, "COUNT", "20"]);
        let mut lines = reply.split("\r\n");
        cursor = lines.nth(2).expect("a cursor").to_owned();
        seen += lines.filter(|line| line.starts_with('k')).count();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 147);
    assert!(store.call(client, &["KEYS", "k1-*"]).starts_with("*49\r\n"));
    assert_eq!(store.call(client, &["FLUSHALL"]), "+OK\r\n");
    assert_eq!(store.call(client, &["DBSIZE"]), ":0\r\n");
}

#[test]
fn a_write_is_answered_when_the_copy_has_it_and_what_saw_it_too() {
    let mut store = ready(COPIED);
    let (here, there) = (key_of(&store, 0, 0, "k"), key_of(&store, 1, 0, "k"));
    let writer = store.connect(0, 0, PortKind::Client);
    let reader = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(writer, &["SET", "old", "1"]), "+OK\r\n");
    // Nothing reaches the copies any more.
    store.delivering = false;
    store.send(writer, &command(&["SET", &here, "v"]));
    store.send(writer, &command(&["PING"]));
    store.run();
    store.send(reader, &command(&["PING"]));
    store.send(reader, &command(&["GET", &here]));
    store.send(reader, &command(&["GET", &there]));
    store.run();
    assert_eq!(received(&mut store, writer), "");
    assert_eq!(received(&mut store, reader), "+PONG\r\n");
    store.delivering = true;
    store.run();
    assert_eq!(received(&mut store, writer), "+OK\r\n+PONG\r\n");
    assert_eq!(received(&mut store, reader), "$1\r\nv\r\n$-1\r\n");
}

#[test]
fn everything_answered_is_there_after_the_node_is_gone_and_who_asks_in_between_waits() {
    for told in [true, false] {
        let mut store = ready(COPIED);
        let client = store.connect(0, 0, PortKind::Client);
        let keys: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
        for key in &keys {
            assert_eq!(store.call(client, &["SET", key, key]), "+OK\r\n");
        }
        store.kill(1, told);
        // Without its manager's word the others find out by its silence, before which nobody may lead.
        store.pass(if told { 0 } else { 1000 });
        for key in &keys {
            store.send(client, &command(&["GET", key]));
        }
        store.pass(900);
        let expected: Vec<String> =
            keys.iter().map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
        assert_eq!(received(&mut store, client), expected.concat());
        for key in &keys {
            assert_eq!(store.call(client, &["SET", key, "new"]), "+OK\r\n");
        }
        assert_eq!(store.call(client, &["DBSIZE"]), ":200\r\n");
        assert_eq!(store.call(client, &["FLUSHALL"]), "+OK\r\n");
    }
}

#[test]
fn a_write_that_was_on_its_way_to_a_node_that_is_gone_is_uncertain_and_a_read_is_asked_again() {
    let mut store = ready(COPIED);
    let client = store.connect(0, 0, PortKind::Client);
    let there = key_of(&store, 1, 0, "k");
    assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
    store.delivering = false;
    for args in [&["GET", &there][..], &["SET", &there, "w"], &["STRLEN", &there]] {
        store.send(client, &command(args));
    }
    while store.step() {}
    // This has not been sent.
    store.input(client, &command(&["APPEND", &there, "x"]));
    store.kill(1, true);
    store.delivering = true;
    store.pass(200);
    let replies = received(&mut store, client);
    let rest = replies.strip_prefix("$1\r\nv\r\n-UNCERTAIN ").expect("a read and a write");
    assert!(rest.ends_with("\r\n:1\r\n:2\r\n"), "{rest}");
    assert_eq!(store.call(client, &["GET", &there]), "$2\r\nvx\r\n");
}

/// Whoever leads the range then, another node or that of the client.
#[test]
fn a_read_that_does_not_touch_its_key_does_not_when_it_is_asked_again() {
    for leader in [1, 2] {
        let eviction = dkv_protocol::eviction::Eviction::AllKeysLru;
        let mut store = ready(Settings { eviction, ..COPIED });
        let client = store.connect(0, 0, PortKind::Client);
        let there = key_of(&store, leader, 0, "k");
        assert_eq!(store.call(client, &["SET", &there, "v"]), "+OK\r\n");
        assert_eq!(store.call(client, &["CLIENT", "NO-TOUCH", "ON"]), "+OK\r\n");
        store.pass(2500);
        store.delivering = false;
        store.send(client, &command(&["GET", &there]));
        store.run();
        store.kill(leader, true);
        store.delivering = true;
        store.pass(200);
        assert_eq!(received(&mut store, client), "$1\r\nv\r\n");
        let idle = store.call(client, &["OBJECT", "IDLETIME", &there]);
        assert!([":2\r\n", ":3\r\n"].contains(&idle.as_str()), "{leader} {idle}");
        assert_eq!(store.call(client, &["CLIENT", "NO-TOUCH", "OFF"]), "+OK\r\n");
        assert_eq!(store.call(client, &["GET", &there]), "$1\r\nv\r\n");
        assert_eq!(store.call(client, &["OBJECT", "IDLETIME", &there]), ":0\r\n");
    }
}

#[test]
fn what_waits_for_a_copy_when_the_range_is_taken_is_answered_as_what_it_is() {
    let mut store = ready(COPIED);
    let here = key_of(&store, 0, 0, "k");
    let writer = store.connect(0, 0, PortKind::Client);
    let reader = store.connect(0, 0, PortKind::Client);
    let remote = store.connect(2, 0, PortKind::Client);
    assert_eq!(store.call(writer, &["SET", &here, "v"]), "+OK\r\n");
    // The first node is cut off from everybody, and does not know it yet.
    for node in [1, 2] {
        store.cut(0, node);
        store.cut(node, 0);
    }
    store.managed = false;
    store.send(writer, &command(&["SET", &here, "w"]));
    store.send(writer, &command(&["PING"]));
    store.send(reader, &command(&["GET", &here]));
    store.pass(50);
    assert_eq!(received(&mut store, writer) + &received(&mut store, reader), "");
    // No lease any more: refused before anything is done.
    store.pass(1100);
    let late = store.connect(0, 0, PortKind::Client);
    store.send(late, &command(&["GET", &here]));
    store.send(late, &command(&["SET", &here, "x"]));
    store.pass(100);
    assert_eq!(received(&mut store, late), "", "the lease may still come");
    store.pass(100);
    let refusals = received(&mut store, late);
    assert_eq!(refusals.matches("-TRYAGAIN ").count(), 2, "{refusals}");
    // The others go on, and it hears of that.
    store.managed = true;
    store.pass(500);
    let writes = received(&mut store, writer);
    assert!(writes.starts_with("-UNCERTAIN ") && writes.ends_with("\r\n+PONG\r\n"), "{writes}");
    assert!(received(&mut store, reader).starts_with("-TRYAGAIN "));
    assert_eq!(store.call(remote, &["GET", &here]), "$1\r\nv\r\n");
    assert_eq!(store.call(remote, &["SET", &here, "y"]), "+OK\r\n");
    for node in [1, 2] {
        store.mend(0, node);
        store.mend(node, 0);
    }
    assert_eq!(store.call(late, &["GET", &here]), "$1\r\ny\r\n");
    // It becomes a copy again.
    store.pass(2000);
    let range = slot_of(here.as_bytes()).range();
    let ranges = store.ranges.as_ref().expect("a store with copies");
    let config = &ranges.configs[usize::from(range.0)];
    assert_eq!(config.in_sync.len(), 2, "{config:?}");
}

#[test]
fn ranges_move_under_load_and_every_command_is_answered_once_and_in_order() {
    for seed in 0..2 {
        let mut store = ready(Settings { seed, shards: 2, ..COPIED });
        let clients: Vec<usize> =
            (0..4).map(|i| store.connect(i % 3, i % 2, PortKind::Client)).collect();
        let mut counts = [0u32; 4];
        let keys: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
        for round in 0..60 {
            if round % 3 == 0 {
                let key = &keys[store.random.below(keys.len())];
                let range = slot_of(key.as_bytes()).range();
                let (first, second) = (store.random.below(3) as u16, store.random.below(2) as u16);
                let shard = store.random.below(2) as u16;
                let other = (first + 1 + second) % 3;
                store.place(range, vec![Store::addr(first, shard), Store::addr(other, shard)]);
            }
            for (i, client) in clients.iter().enumerate() {
                let key = &keys[store.random.below(keys.len())];
                counts[i] += 1;
                store.send(*client, &command(&["INCR", &format!("count{i}")]));
                store.send(*client, &command(&["MGET", key, &format!("count{i}")]));
                store.send(*client, &command(&["SET", key, "v"]));
            }
            for _ in 0..30 {
                store.step();
            }
            store.pass(8);
        }
        store.pass(1100);
        store.assert_copies_are_equal();
        for (i, client) in clients.iter().enumerate() {
            let text = received(&mut store, *client);
            // A counter that is read shows what the last answered increment made of it.
            let mut last = String::new();
            let mut lines = text.split("\r\n");
            let mut answered = 0;
            while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
                if let Some(count) = line.strip_prefix(':') {
                    count.clone_into(&mut last);
                    answered += 1;
                } else if line == "*2" {
                    if lines.next() != Some("$-1") {
                        lines.next();
                    }
                    assert!(lines.next().is_some_and(|len| len.starts_with('$')));
                    assert_eq!(lines.next(), Some(&last[..]));
                } else {
                    assert_eq!(line, "+OK");
                }
            }
            assert_eq!(answered, counts[i]);
            let count = store.call(*client, &["GET", &format!("count{i}")]);
            assert_eq!(count.split("\r\n").nth(1), Some(&answered.to_string()[..]));
        }
    }
}

#[test]
fn what_is_moved_away_gives_its_memory_back() {
    let mut store = ready(COPIED);
    let memory =
        |store: &Store, node: u16| store.envs[usize::from(node)].stats[0].memory_bytes.get();
    let before: Vec<u64> = (0..3).map(|node| memory(&store, node)).collect();
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(5000);
    for i in 0..400 {
        assert_eq!(store.call(client, &["SET", &format!("{{k}}{i}"), &value]), "+OK\r\n");
    }
    store.pass(300);
    let range = slot_of(b"k").range();
    let held =
        |store: &Store, node: u16| memory(store, node) > before[usize::from(node)] + 1_000_000;
    let [first, second] =
        store.ranges.as_ref().expect("copies").placements[usize::from(range.0)][..]
    else {
        panic!("two copies")
    };
    let third = Store::addr(3 - first.node.0 - second.node.0, 0);
    assert!(held(&store, first.node.0) && held(&store, second.node.0));
    assert!(!held(&store, third.node.0));
    store.place(range, vec![third, second]);
    store.pass(3000);
    assert!(held(&store, third.node.0) && held(&store, second.node.0));
    assert!(!held(&store, first.node.0), "the first has nothing to do with it any more");
    store.assert_copies_are_equal();
    assert_eq!(store.call(client, &["STRLEN", "{k}7"]), ":5000\r\n");
    // And back: it comes as another copy.
    store.place(range, vec![first, third]);
    store.pass(3000);
    assert!(held(&store, third.node.0) && held(&store, first.node.0));
    assert!(!held(&store, second.node.0));
    store.assert_copies_are_equal();
    assert_eq!(store.call(client, &["STRLEN", "{k}7"]), ":5000\r\n");
}

#[test]
fn all_ranges_that_lost_a_copy_have_another_soon_though_few_are_filled_at_a_time() {
    let mut store = ready(COPIED);
    store.kill(2, true);
    let live = vec![Store::addr(0, 0), Store::addr(1, 0)];
    for id in 0..=u8::MAX {
        let leader = store.ranges.as_ref().expect("copies").configs[usize::from(id)].primary.addr;
        let mut placement = live.clone();
        placement.sort_by_key(|addr| *addr != leader);
        store.place(RangeId(id), placement);
    }
    // Of about ninety ranges on each side eight are filled at a time; by turns of asking who holds what this took seconds.
    store.pass(1000);
    let ranges = store.ranges.as_ref().expect("copies");
    let alone: Vec<usize> =
        (0..256).filter(|range| ranges.configs[*range].in_sync.len() < 2).collect();
    assert!(alone.is_empty(), "{alone:?}");
    store.assert_copies_are_equal();
}

#[test]
fn an_expired_key_that_is_read_is_removed_at_the_copies_too() {
    let mut store = ready(COPIED);
    let client = store.connect(0, 0, PortKind::Client);
    let here = key_of(&store, 0, 0, "k");
    assert_eq!(store.call(client, &["SET", &here, "v", "PX", "5"]), "+OK\r\n");
    assert_eq!(store.call(client, &["SET", "other", "v", "PX", "100000"]), "+OK\r\n");
    store.pass(6);
    store.delivering = false;
    store.send(client, &command(&["GET", &here]));
    store.run();
    assert_eq!(received(&mut store, client), "", "nobody else knows that it is gone");
    store.delivering = true;
    store.run();
    assert_eq!(received(&mut store, client), "$-1\r\n");
    let other = store.connect(1, 0, PortKind::Client);
    store.kill(0, true);
    store.pass(100);
    assert_eq!(store.call(other, &["GET", &here]), "$-1\r\n");
    let ttl = store.call(other, &["PTTL", "other"]);
    let ttl: u64 = ttl.trim_start_matches(':').trim_end().parse().expect("a number");
    assert!((99_000..=99_994).contains(&ttl), "{ttl}");
}

#[test]
fn too_few_copies_refuse_writes_and_serve_reads() {
    let replication = Replication { min_insync: 2, ..COPIED.replication };
    let mut store = ready(Settings { replication, nodes: 2, ..COPIED });
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["MSET", "a", "1", "b", "2", "c", "3"]), "+OK\r\n");
    store.kill(1, true);
    store.pass(100);
    for key in ["a", "b", "c"] {
        assert!(store.call(client, &["SET", key, "x"]).starts_with("-NOREPLICAS "));
        assert!(store.call(client, &["GET", key]).starts_with("$1\r\n"));
    }
}

#[test]
fn a_range_without_any_copy_left_says_so_at_once() {
    let mut store = ready(COPIED);
    let client = store.connect(2, 0, PortKind::Client);
    let there = key_of(&store, 0, 0, "k");
    store.kill(0, true);
    store.kill(1, true);
    store.run();
    assert!(store.call(client, &["GET", &there]).starts_with("-CLUSTERDOWN "));
    assert!(store.call(client, &["MSET", &there, "v"]).starts_with("-CLUSTERDOWN "));
    let range = slot_of(there.as_bytes()).range();
    assert_ne!(range, RangeId(255));
}

#[test]
fn a_copy_is_read_by_who_asked_for_that_and_only_while_it_hears_of_its_primary() {
    let mut store = ready(COPIED);
    let key = key_of(&store, 0, 0, "k");
    let (writer, reader) =
        (store.connect(0, 0, PortKind::Client), store.connect(1, 0, PortKind::Shard));
    assert_eq!(store.call(writer, &["SET", &key, "v"]), "+OK\r\n");
    store.pass(200);
    let forwarded = |store: &Store| store.stats(1, 0).forwarded.get();
    assert_eq!(store.call(reader, &["GET", &key]), "$1\r\nv\r\n");
    assert_eq!(forwarded(&store), 1);
    assert_eq!(store.call(reader, &["READONLY"]), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(store.call(reader, &["GET", &key]), "$1\r\nv\r\n");
    }
    assert_eq!(forwarded(&store), 1, "read from the copy");
    assert_eq!(store.call(reader, &["SET", &key, "w"]), "+OK\r\n");
    assert_eq!(forwarded(&store), 2, "written at the primary");
    assert_eq!(store.call(reader, &["READWRITE"]), "+OK\r\n");
    assert_eq!(store.call(reader, &["GET", &key]), "$1\r\nw\r\n");
    assert_eq!(forwarded(&store), 3);
    assert_eq!(store.call(reader, &["READONLY"]), "+OK\r\n");
    store.managed = false;
    for node in [1, 2] {
        store.cut(0, node);
    }
    store.pass(1050);
    // What it has may be old by now, and the primary does not hear that it is asked: an answer from there, or none.
    store.send(reader, &command(&["GET", &key]));
    store.run();
    assert_ne!(received(&mut store, reader), "$1\r\nw\r\n");
}

#[test]
fn wait_says_how_many_copies_hold_the_last_write() {
    let replication = Replication { replicas: 2, ..COPIED.replication };
    let mut store = ready(Settings { replication, ..COPIED });
    let client = store.connect(0, 0, PortKind::Client);
    let (here, there) = (key_of(&store, 0, 0, "k"), key_of(&store, 1, 0, "k"));
    assert_eq!(store.call(client, &["WAIT", "2", "0"]), ":2\r\n");
    for key in [&here, &there] {
        store.send(client, &command(&["SET", key, "v"]));
        store.send(client, &command(&["WAIT", "1", "0"]));
        store.pass(10);
        assert_eq!(received(&mut store, client), "+OK\r\n:2\r\n");
    }
    // More than there are: until the time is over.
    store.send(client, &command(&["WAIT", "3", "50"]));
    store.send(client, &command(&["PING"]));
    store.pass(45);
    assert_eq!(received(&mut store, client), "");
    store.pass(10);
    assert_eq!(received(&mut store, client), ":2\r\n+PONG\r\n");
    assert!(store.call(client, &["WAIT", "x", "0"]).starts_with("-ERR value"));
    assert!(store.call(client, &["WAIT", "1", "-1"]).starts_with("-ERR timeout is neg"));
    let mut alone = Store::new(PLAIN);
    let client = alone.connect(0, 0, PortKind::Client);
    assert_eq!(alone.call(client, &["WAIT", "1", "0"]), ":0\r\n");
}

#[test]
fn clients_are_told_who_has_copies_of_what() {
    let mut store = ready(COPIED);
    store.pass(600);
    let client = store.connect(0, 0, PortKind::Client);
    let slots = store.call(client, &["CLUSTER", "SLOTS"]);
    // All lead, so none is a replica to clients, which take a server for one or the other.
    assert!(slots.starts_with("*3\r\n*3\r\n:0\r\n:5439\r\n*4\r\n"), "{slots}");
    assert_eq!(slots.matches("*4\r\n").count(), 3);
    let shards = store.call(client, &["CLUSTER", "SHARDS"]);
    assert!(shards.starts_with("*3\r\n") && !shards.contains("replica\r\n"));
    assert_eq!(shards.matches("online").count(), 3);
    let info = store.call(client, &["INFO", "replication", "dkv"]);
    for field in
        ["connected_slaves:1", "dkv_ranges:85", "dkv_ranges_copied:86", "dkv_replication_lag:0"]
    {
        assert!(info.contains(&format!("{field}\r\n")), "{field} in {info}");
    }
    // A node that leads nothing is a replica of whose slots it has.
    for range in 170..=255 {
        store.place(RangeId(range), vec![Store::addr(1, 0), Store::addr(2, 0)]);
    }
    store.pass(6000);
    let shards = store.call(client, &["CLUSTER", "SHARDS"]);
    assert!(shards.starts_with("*2\r\n") && shards.matches("replica\r\n").count() == 1);
    let nodes = store.call(client, &["CLUSTER", "NODES"]);
    let lines: Vec<Vec<&str>> =
        nodes.split("\r\n").flat_map(str::lines).map(|l| l.split(' ').collect()).collect();
    let line = |flags: &str| lines.iter().find(|l| l.len() > 7 && l[2] == flags);
    let replica = line("slave").unwrap_or_else(|| panic!("{nodes}"));
    let master = line("master").expect("another");
    assert!(replica.len() == 8 && replica[3] == master[0], "{nodes}");
    assert_eq!(master[8..], ["5440-16383"]);
    assert_eq!(line("myself,master").expect("this one")[8..], ["0-5439"]);
    let of = |store: &mut Store, id: &str| store.call(client, &["CLUSTER", "REPLICAS", id]);
    let only = replica.join(" ");
    assert_eq!(of(&mut store, master[0]), format!("*1\r\n${}\r\n{only}\r\n", only.len()));
    assert_eq!(store.call(client, &["CLUSTER", "SLAVES", master[0]]), of(&mut store, master[0]));
    let own = line("myself,master").expect("this one")[0];
    assert_eq!(of(&mut store, own), "*0\r\n");
    assert_eq!(of(&mut store, replica[0]), "-ERR The specified node is not a master\r\n");
    assert_eq!(of(&mut store, "x"), "-ERR Unknown node x\r\n");
    let reports =
        |store: &mut Store, id: &str| store.call(client, &["CLUSTER", "COUNT-FAILURE-REPORTS", id]);
    assert_eq!(reports(&mut store, own), ":0\r\n");
    assert_eq!(reports(&mut store, "x"), "-ERR Unknown node x\r\n");
    let links = store.call(client, &["CLUSTER", "LINKS"]);
    assert!(links.starts_with("*2\r\n") && !links.contains(own), "{links}");
    for id in [replica[0], master[0]] {
        assert!(links.contains(&format!("$2\r\nto\r\n$4\r\nnode\r\n$40\r\n{id}\r\n")), "{links}");
    }
    store.cut(0, 2);
    let links = store.call(client, &["CLUSTER", "LINKS"]);
    assert!(links.starts_with("*1\r\n"), "{links}");
    let state = store.call(client, &["CLUSTER", "INFO"]);
    assert!(state.contains("cluster_state:ok\r\n") && state.contains("cluster_size:2\r\n"));
}

#[test]
fn links_and_nodes_that_come_and_go_lose_nothing_that_was_answered_and_answer_everything_once() {
    for seed in 0..6 {
        let mut store = ready(Settings { seed, ..COPIED });
        let clients: Vec<usize> =
            (0..6).map(|i| store.connect(i % 3, 0, PortKind::Client)).collect();
        let mut sent = 0u64;
        for _ in 0..80 {
            sent += 3;
            for (i, client) in clients.iter().enumerate() {
                for n in 0..3 {
                    // One counter of its own and, at random, the order in which its commands meet other things.
                    let other = format!("k{}", store.random.below(30));
                    store.send(*client, &command(&["INCR", &format!("count{i}")]));
                    if n == 0 {
                        store.send(*client, &command(&["MSET", &other, "v", "k1", "v"]));
                    }
                }
            }
            let (a, b) = (store.random.below(3) as u16, store.random.below(3) as u16);
            match store.random.below(8) {
                0 => {
                    store.cut(a, b);
                    store.cut(b, a);
                }
                1 => store.cut(a, b),
                2 => drop(store.paused.insert(a)),
                3 => {
                    let range = slot_of(format!("count{a}").as_bytes()).range();
                    let other = (a + 1 + b % 2) % 3;
                    store.place(range, vec![Store::addr(a, 0), Store::addr(other, 0)]);
                }
                _ => {
                    store.paused.clear();
                    for other in 0..3 {
                        store.mend(a, other);
                        store.mend(other, a);
                    }
                }
            }
            let ms = [5, 30, 200, 700][store.random.below(4)];
            store.pass(ms);
        }
        store.paused.clear();
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            store.mend(a, b);
        }
        store.pass(8000);
        store.assert_copies_are_equal();
        for (i, client) in clients.iter().enumerate() {
            let text = received(&mut store, *client);
            let (mut last, mut done, mut unknown, mut all) = (0, 0u64, 0u64, 0u64);
            for line in text.lines() {
                assert!(!line.contains("DKV."), "{line}");
                if let Some(count) = line.strip_prefix(':') {
                    let count: u64 = count.parse().expect("a number");
                    assert!(count > last, "seed {seed}: {count} after {last}");
                    (last, done) = (count, done + 1);
                }
                unknown += u64::from(line.starts_with("-UNCERTAIN "));
                all += 1;
            }
            assert_eq!(all, sent + sent / 3, "seed {seed}: each once");
            let count = store.call(*client, &["GET", &format!("count{i}")]);
            let count: u64 = count.split("\r\n").nth(1).map_or(0, |n| n.parse().expect("a number"));
            assert!(
                last <= count && (done..=done + unknown).contains(&count),
                "seed {seed}: {count}, {done}"
            );
            assert!(done > sent / 8, "seed {seed}: {done} of {sent}");
        }
    }
}

#[test]
fn values_of_any_length_and_expiries_are_copied_as_they_are_written_and_as_they_are() {
    let mut store = ready(COPIED);
    let client = store.connect(0, 0, PortKind::Client);
    let keys: Vec<String> = (0..4).map(|i| key_of(&store, 1, 0, &format!("k{i}-"))).collect();
    let lens = [0, 20_000, 300_000, 5_000_000];
    let value = |len: usize| "v".repeat(len);
    for (key, len) in keys.iter().zip(lens) {
        assert_eq!(store.call(client, &["SET", key, &value(len), "PX", "900000"]), "+OK\r\n");
        let grown = format!(":{}\r\n", len + 20_000);
        assert_eq!(store.call(client, &["APPEND", key, &value(20_000)]), grown);
    }
    store.pass(300);
    store.assert_copies_are_equal();
    // All of it is filled in at another node, and its log goes on meanwhile.
    for key in &keys {
        let range = slot_of(key.as_bytes()).range();
        store.place(range, vec![Store::addr(0, 0), Store::addr(1, 0)]);
    }
    for _ in 0..200 {
        store.pass(10);
        for key in &keys {
            store.send(client, &command(&["APPEND", key, "w"]));
        }
    }
    store.pass(500);
    assert!(!received(&mut store, client).contains('-'));
    store.assert_copies_are_equal();
    store.kill(1, true);
    store.pass(100);
    for (key, len) in keys.iter().zip(lens) {
        let expected = value(len + 20_000) + &"w".repeat(200);
        let expected = format!("${}\r\n{expected}\r\n", expected.len());
        assert!(store.call(client, &["GET", key]) == expected, "{key}");
        let ttl = store.call(client, &["PTTL", key]);
        let ttl: u64 = ttl.trim_start_matches(':').trim_end().parse().expect("a number");
        assert!((890_000..900_000).contains(&ttl), "{ttl}");
    }
}

#[test]
fn a_leader_that_stands_still_holds_up_nobody_once_others_lead_its_ranges() {
    let mut store = ready(COPIED);
    let key = key_of(&store, 1, 0, "k");
    let (one, other) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 0, PortKind::Client));
    assert_eq!(store.call(one, &["SET", &key, "a"]), "+OK\r\n");
    // It keeps its links, as a stopped process does.
    store.paused.insert(1);
    store.send(one, &command(&["SET", &key, "b"]));
    store.send(other, &command(&["GET", &key]));
    store.pass(800);
    assert_eq!((received(&mut store, one), received(&mut store, other)), Default::default());
    store.pass(1200);
    assert!(received(&mut store, one).starts_with("-UNCERTAIN "));
    assert_eq!(received(&mut store, other), "$1\r\na\r\n", "a read is asked of who leads now");
    assert_eq!(store.call(one, &["SET", &key, "c"]), "+OK\r\n");
    // What it is told when it goes on changes nothing of that.
    store.paused.clear();
    store.pass(500);
    for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
        store.mend(a, b);
    }
    store.pass(6000);
    assert_eq!(store.call(other, &["GET", &key]), "$1\r\nc\r\n");
    store.assert_copies_are_equal();
}
