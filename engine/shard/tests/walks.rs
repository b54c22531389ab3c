//! Commands that look at many keys go in steps: KEYS and CLUSTER GETKEYSINSLOT, over all shards, while others are served,
//! links are lost and connections close; and no call into a shard does more than its share.

mod store;

use dkv_protocol::resp::value;
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use std::collections::BTreeSet;
use store::{PLAIN, Settings, Store, command, command_bytes, key_of};

const KEYS: usize = 30_000;

/// A store of three shards on two nodes, full of keys, and a connection to it.
fn filled() -> (Store, usize) {
    let mut store = Store::new(Settings { nodes: 3, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    for first in (0..KEYS).step_by(500) {
        let mut args = vec![b"MSET".to_vec()];
        for key in first..first + 500 {
            args.extend([format!("key:{key}").into_bytes(), b"v".to_vec()]);
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        store.send(client, &command_bytes(&args));
    }
    store.run();
    assert!(!store.take(client).contains(&b'-'));
    (store, client)
}

fn elements(reply: &[u8]) -> BTreeSet<Vec<u8>> {
    assert_eq!(value::skip(reply), Ok(Some(reply.len())), "one whole reply");
    let mut seen = BTreeSet::new();
    for element in value::elements(reply).expect("an array") {
        let element = element.expect("an element");
        assert!(seen.insert(element.to_vec()), "twice");
    }
    seen
}

#[test]
fn keys_finds_every_key_once_in_many_steps() {
    let (mut store, client) = filled();
    store.send(client, &command(&["KEYS", "*"]));
    let mut steps = 0;
    while store.step() {
        steps += 1;
    }
    assert_eq!(elements(&store.take(client)).len(), KEYS);
    assert!(steps > 30, "{steps} steps for {KEYS} keys");
    assert_eq!(elements(store.call(client, &["KEYS", "key:1234?"]).as_bytes()).len(), 10);
    assert_eq!(store.call(client, &["KEYS", "no*"]), "*0\r\n");
}

#[test]
fn others_are_served_between_the_steps_and_replies_keep_their_order() {
    let (mut store, client) = filled();
    let other = store.connect(0, 0, PortKind::Client);
    let key = key_of(&store, 0, 0, "mine");
    store.send(client, &command(&["KEYS", "*"]));
    store.send(client, &command(&["ECHO", "after"]));
    store.send(other, &command(&["SET", &key, "1"]));
    while store.clients[other].received.is_empty() && store.step() {}
    assert!(store.clients[client].received.is_empty(), "the other one was answered meanwhile");
    store.run();
    let replies = store.take(client);
    let first = value::skip(&replies).expect("a reply").expect("whole");
    assert!(elements(&replies[..first]).len() >= KEYS);
    assert_eq!(&replies[first..], b"$5\r\nafter\r\n");
}

#[test]
fn what_is_sent_behind_keys_changes_nothing_of_what_it_finds() {
    let (mut store, client) = filled();
    // Keys of all shards, those that are found first and those that are found last.
    let gone: Vec<String> = (0..KEYS).step_by(50).map(|key| format!("key:{key}")).collect();
    store.send(client, &command(&["KEYS", "key:*"]));
    for key in &gone {
        store.send(client, &command(&["DEL", key]));
    }
    store.run();
    let replies = store.take(client);
    let first = value::skip(&replies).expect("a reply").expect("whole");
    assert_eq!(elements(&replies[..first]).len(), KEYS);
    assert_eq!(&replies[first..], ":1\r\n".repeat(gone.len()).as_bytes());
}

#[test]
fn a_link_that_is_lost_on_the_way_is_one_error_and_the_next_walk_works() {
    for at in 0..40 {
        let (mut store, client) = filled();
        store.send(client, &command(&["KEYS", "*"]));
        for _ in 0..at * 4 {
            store.step();
        }
        store.cut(0, 1);
        store.run();
        let reply = store.take(client);
        assert_eq!(value::skip(&reply), Ok(Some(reply.len())), "one whole reply");
        let whole = reply.starts_with(b"*");
        assert!(whole || reply.starts_with(b"-CLUSTERDOWN"), "{at}");
        store.mend(0, 1);
        store.send(client, &command(&["KEYS", "*"]));
        store.run();
        assert_eq!(elements(&store.take(client)).len(), KEYS);
        if whole {
            return;
        }
    }
    panic!("it never came to its end");
}

#[test]
fn a_connection_that_closes_takes_its_steps_with_it() {
    let (mut store, client) = filled();
    store.send(client, &command(&["KEYS", "*"]));
    for _ in 0..20 {
        store.step();
    }
    store.disconnect(client);
    let mut steps = 0;
    while store.step() {
        steps += 1;
    }
    assert!(steps < 20, "{steps} steps for nobody");
    assert_eq!(store.shards[0].1.unsent_bytes(), 0);
}

#[test]
fn the_keys_of_a_slot_are_as_many_as_were_asked_for() {
    let (mut store, client) = filled();
    let slot = slot_of(b"{tag}").0.to_string();
    let mut args = vec!["MSET".to_owned()];
    (0..3000).for_each(|i| args.extend([format!("{{tag}}{i}"), "v".to_owned()]));
    store.call(client, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let there: usize = store
        .call(client, &["CLUSTER", "COUNTKEYSINSLOT", &slot])
        .trim_matches([':', '\r', '\n'])
        .parse()
        .expect("a number");
    assert!(there >= 3000);
    for (asked, given) in [(0, 0), (1, 1), (10, 10), (2999, 2999), (usize::MAX >> 1, there)] {
        let reply = store.call(client, &["CLUSTER", "GETKEYSINSLOT", &slot, &asked.to_string()]);
        assert_eq!(elements(reply.as_bytes()).len(), given, "{asked}");
    }
}

#[test]
fn a_scan_looks_at_no_more_than_its_share() {
    let (mut store, client) = filled();
    let reply = store.call(client, &["SCAN", "0", "COUNT", "1000000"]);
    let found = reply.matches("key:").count();
    assert!((100..=1100).contains(&found), "{found}");
}

#[test]
fn no_call_does_more_than_its_share() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(10_000);
    store.call(client, &["SET", "a", &value]);
    let many = 2000;
    // All at once: more than one call may execute, whatever the connection sent.
    let gets: Vec<u8> = (0..many).flat_map(|_| command(&["GET", "a"])).collect();
    store.input(client, &gets);
    let commands = store.shards[0].1.commands();
    assert!(commands < many / 2, "{commands}");
    assert!(!store.clients[client].paused, "the turn is over sooner than reading could stop");
    store.run();
    let replies = store.take(client);
    assert_eq!(replies.len(), many as usize * (10_000 + "$10000\r\n\r\n".len()));
}

/// What is told of each of these by itself, behind the head of the reply.
fn one_by_one(store: &mut Store, client: usize, what: &str, names: &[&str]) -> String {
    let one = |name: &&str| {
        let reply = store.call(client, &["COMMAND", what, name]);
        let (head, body) = reply.split_once("\r\n").expect("a line");
        assert!(["*0", "%0", "*1", "*2", "%1"].contains(&head), "{head}");
        body.to_owned()
    };
    names.iter().map(one).collect()
}

#[test]
fn many_commands_are_described_in_steps_as_each_of_them_would_be() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 0, PortKind::Client);
    let names = ["client", "get", "nope", "config|get", "GET", "config|nope", "memory", "acl"];
    for proto in ["2", "3"] {
        assert!(store.call(client, &["HELLO", proto]).contains("proto"));
        for what in ["INFO", "docs"] {
            let parts = one_by_one(&mut store, client, what, &names);
            let reply = store.call(client, &[&["COMMAND", what][..], &names].concat());
            let head = match (what, proto) {
                ("INFO", _) => "*8\r\n",
                (_, "2") => "*12\r\n",
                _ => "%6\r\n",
            };
            assert_eq!(reply, format!("{head}{parts}"), "{what} {proto}");
            // Among others, which wait for it; and between MULTI and EXEC.
            let words = [&["COMMAND", what][..], &names].concat();
            let lines =
                [&["PING"][..], &words, &["MULTI"], &words, &["ECHO", "x"], &["EXEC"], &["PING"]];
            store.send(client, &lines.map(command).concat());
            store.run();
            let expected = format!(
                "+PONG\r\n{reply}+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n{reply}$1\r\nx\r\n+PONG\r\n"
            );
            assert_eq!(String::from_utf8(store.take(client)).expect("text"), expected);
        }
        // All of them, by no name and by their own.
        let list = store.call(client, &["COMMAND", "LIST"]);
        let all: Vec<&str> =
            list.lines().filter(|l| !l.starts_with(['*', '$']) && !l.contains('|')).collect();
        assert!(all.len() > 80, "{list}");
        for what in ["INFO", "DOCS"] {
            let named = store.call(client, &[&["COMMAND", what][..], &all].concat());
            assert_eq!(store.call(client, &["COMMAND", what]), named);
            assert!(what == "DOCS" || store.call(client, &["COMMAND"]) == named);
        }
    }
    let words = [&["COMMAND", "DOCS"][..], &vec!["client"; 1024]].concat();
    store.input(client, &command(&words));
    let mut steps = 0;
    while store.step() {
        steps += 1;
        if steps == 10 {
            store.input(other, &command(&["PING"]));
        }
        // Served while the first one has nothing yet.
        assert!(steps < 50 || !store.clients[other].received.is_empty());
        assert!(steps > 50 || store.clients[client].received.is_empty());
    }
    assert!(steps > 100, "1024 containers in {steps} turns");
    let reply = store.take(client);
    assert!(reply.starts_with(b"%1024\r\n"));
    let words = [&["COMMAND", "DOCS"][..], &vec!["get"; 1025]].concat();
    assert!(store.call(client, &words).starts_with("-ERR too many names"));
}
