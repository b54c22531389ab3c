//! Commands that speak of the whole store while its ranges change hands: each range is counted, walked and cleared exactly
//! once, whoever leads it by then.

mod store;

use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::Replication;
use dkv_protocol::resp::value;
use dkv_shard::PortKind;
use std::collections::BTreeSet;
use store::{PLAIN, Settings, Store, command};

const COPIED: Settings =
    Settings { nodes: 3, replication: Replication { replicas: 1, ..Replication::NONE }, ..PLAIN };
const KEYS: usize = 300;

fn keys() -> Vec<String> {
    (0..KEYS).map(|i| format!("k{i}")).collect()
}

/// A store in which the keys are, and a connection to each node.
fn filled(seed: u64) -> (Store, Vec<usize>) {
    let mut store = Store::new(Settings { seed, ..COPIED });
    store.pass(300);
    let clients: Vec<usize> = (0..3).map(|i| store.connect(i, 0, PortKind::Client)).collect();
    let keys = keys();
    let mut set = vec!["MSET"];
    set.extend(keys.iter().flat_map(|key| [key.as_str(), "v"]));
    assert_eq!(store.call(clients[0], &set), "+OK\r\n");
    (store, clients)
}

/// Some ranges begin to move to other nodes.
fn shuffle(store: &mut Store) {
    for _ in 0..12 {
        let range = RangeId(store.random.below(256) as u8);
        let (first, second) = (store.random.below(3) as u16, store.random.below(2) as u16);
        let places = [first, (first + 1 + second) % 3].map(|node| Store::addr(node, 0));
        store.place(range, places.to_vec());
    }
}

/// The replies that have come.
fn replies(store: &mut Store, client: usize) -> Vec<Vec<u8>> {
    let bytes = store.take(client);
    let (mut replies, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = value::skip(&bytes[at..]).expect("replies").expect("whole ones");
        replies.push(bytes[at..at + length].to_vec());
        at += length;
    }
    replies
}

#[test]
fn every_key_is_counted_and_found_once_while_ranges_move() {
    for seed in 0..3 {
        let (mut store, clients) = filled(seed);
        let rounds = 40;
        for _ in 0..rounds {
            shuffle(&mut store);
            for client in &clients {
                store.send(*client, &command(&["DBSIZE"]));
                store.send(*client, &command(&["KEYS", "*"]));
            }
            for _ in 0..60 {
                store.step();
            }
            store.pass(4);
        }
        store.pass(1500);
        for client in &clients {
            let replies = replies(&mut store, *client);
            assert_eq!(replies.len(), 2 * rounds);
            for two in replies.chunks(2) {
                assert_eq!(String::from_utf8_lossy(&two[0]), format!(":{KEYS}\r\n"));
                let found: Vec<&[u8]> =
                    value::elements(&two[1]).expect("keys").map(|key| key.expect("one")).collect();
                let once: BTreeSet<&[u8]> = found.iter().copied().collect();
                assert_eq!((found.len(), once.len()), (KEYS, KEYS));
            }
        }
    }
}

#[test]
fn nothing_is_left_of_what_was_cleared_while_ranges_move() {
    let keys = keys();
    let own: Vec<&str> = keys.iter().map(String::as_str).collect();
    for seed in 0..3 {
        let (mut store, clients) = filled(seed);
        let client = clients[seed as usize % 3];
        let rounds = 40;
        for _ in 0..rounds {
            shuffle(&mut store);
            let set: Vec<&str> =
                ["MSET"].into_iter().chain(own.iter().flat_map(|key| [*key, "v"])).collect();
            // At once: what was sent later is done later, wherever it is done.
            store.send(client, &command(&set));
            store.send(client, &command(&["FLUSHALL"]));
            store.send(client, &command(&[&["EXISTS"], &own[..]].concat()));
            store.send(client, &command(&["DBSIZE"]));
            for _ in 0..60 {
                store.step();
            }
            store.pass(4);
        }
        store.pass(1500);
        let replies = replies(&mut store, client);
        assert_eq!(replies.len(), 4 * rounds);
        for four in replies.chunks(4) {
            let four: Vec<_> = four.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
            assert_eq!(four, ["+OK\r\n", "+OK\r\n", ":0\r\n", ":0\r\n"]);
        }
        store.assert_copies_are_equal();
    }
}

#[test]
fn scan_comes_by_every_key_while_ranges_move() {
    let (mut store, clients) = filled(7);
    for client in clients {
        let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
        loop {
            shuffle(&mut store);
            store.send(client, &command(&["SCAN", &cursor, "COUNT", "20"]));
            store.pass(5);
            while store.clients[client].received.is_empty() {
                store.pass(1);
            }
            let reply = String::from_utf8(store.take(client)).expect("text");
            let mut lines = reply.split("\r\n");
            assert_eq!(lines.next(), Some("*2"), "{reply}");
            cursor = lines.nth(1).expect("a cursor").to_owned();
            seen.extend(lines.filter(|line| line.starts_with('k')).map(str::to_owned));
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen, keys().into_iter().collect());
    }
}

#[test]
fn what_cannot_be_told_of_all_ranges_is_an_error() {
    let whole: [&[&str]; 3] = [&["DBSIZE"], &["KEYS", "*"], &["FLUSHALL"]];
    // The ranges of a node that is gone, which nobody has decided to take over.
    let (mut store, clients) = filled(1);
    store.managed = false;
    store.kill(1, false);
    for args in whole {
        store.send(clients[0], &command(args));
        store.pass(900);
        assert_eq!(store.take(clients[0]), b"", "somebody may lead them in a moment");
        store.pass(300);
        let reply = String::from_utf8(store.take(clients[0])).expect("text");
        assert!(reply.starts_with("-TRYAGAIN "), "{args:?}: {reply}");
    }
    // All copies of some ranges are gone.
    let (mut store, clients) = filled(2);
    store.kill(0, true);
    store.kill(1, true);
    store.run();
    for args in whole {
        let reply = store.call(clients[2], args);
        assert!(reply.starts_with("-CLUSTERDOWN "), "{args:?}: {reply}");
    }
    assert!(store.call(clients[2], &["FLUSHALL", "NOW"]).starts_with("-ERR syntax"));
}
