//! What clients and exporters are told of how far copies are: offsets of INFO and of CLUSTER SHARDS.

mod store;

use dkv_protocol::ids::RangeId;
use dkv_protocol::ranges::{Ack, Replication};
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, key_of};

const REPLICATION: Replication = Replication { replicas: 1, ack: Ack::Async, ..Replication::NONE };

/// A field of INFO replication of a node.
fn field(store: &mut Store, node: u16, name: &str) -> String {
    let client = store.connect(node, 0, PortKind::Client);
    let info = store.call(client, &["INFO", "replication"]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {info}")).to_owned()
}

fn offset(store: &mut Store, node: u16) -> u64 {
    field(store, node, "master_repl_offset").parse().expect("a number")
}

#[test]
fn offsets_say_what_a_node_wrote_or_applied_and_what_a_copy_lacks() {
    let mut store = Store::new(Settings { nodes: 3, replication: REPLICATION, ..PLAIN });
    store.pass(600);
    let client = store.connect(0, 0, PortKind::Client);
    let keys: Vec<String> = (0..30).map(|i| key_of(&store, 0, 0, &format!("k{i}-"))).collect();
    let before = [0, 1, 2].map(|node| offset(&mut store, node));
    for key in &keys {
        assert_eq!(store.call(client, &["SET", key, "v"]), "+OK\r\n");
    }
    store.pass(600);
    // Written at the first, copied at the second; the third has nothing to do with it.
    let after = [0, 1, 2].map(|node| offset(&mut store, node));
    assert_eq!([0, 1, 2].map(|node| after[node] - before[node]), [30, 30, 0]);
    let line = |offset: u64| format!("ip=10.0.0.2,port=7901,state=online,offset={offset},lag=0");
    assert_eq!(field(&mut store, 0, "slave0"), line(after[0]));
    // What does not get there is missing in its offset and in no other.
    store.managed = false;
    store.cut(0, 1);
    for key in &keys[..7] {
        assert_eq!(store.call(client, &["SET", key, "w"]), "+OK\r\n");
    }
    store.pass(600);
    assert_eq!(offset(&mut store, 0), after[0] + 7);
    assert_eq!(offset(&mut store, 1), after[1]);
    assert_eq!(field(&mut store, 0, "slave0"), line(after[0]));
    store.mend(0, 1);
    store.managed = true;
    store.pass(1200);
    assert_eq!(offset(&mut store, 1), after[1] + 7);
    assert_eq!(field(&mut store, 0, "slave0"), line(after[0] + 7));
}

#[test]
fn a_copy_that_has_not_answered_for_long_says_since_when() {
    let mut store = Store::new(Settings { nodes: 3, replication: REPLICATION, ..PLAIN });
    store.pass(600);
    store.managed = false;
    store.cut(0, 1);
    store.pass(3600);
    let line = field(&mut store, 0, "slave0");
    assert!(line.starts_with("ip=10.0.0.2,") && line.ends_with(",lag=3"), "{line}");
}

/// The numbers of CLUSTER SHARDS, by the port of the shard.
fn shown(store: &mut Store, node: u16) -> Vec<(u64, u64)> {
    let client = store.connect(node, 0, PortKind::Client);
    let reply = store.call(client, &["CLUSTER", "SHARDS"]);
    let lines: Vec<&str> = reply.lines().collect();
    let number = |line: &str| line.trim_start_matches(':').parse().expect("a number");
    let after = |at: usize, name: &str| {
        let found = lines[at..].iter().position(|line| *line == name).expect("a field");
        number(lines[at + found + 1])
    };
    let nodes = lines.iter().enumerate().filter(|(_, line)| **line == "port");
    nodes.map(|(at, _)| (number(lines[at + 1]), after(at, "replication-offset"))).collect()
}

#[test]
fn the_offsets_of_one_shard_can_be_compared() {
    let mut store = Store::new(Settings { nodes: 2, replication: REPLICATION, ..PLAIN });
    // One leads and the other follows, so that clients take them for a master and a replica.
    for range in 128..=255 {
        store.place(RangeId(range), vec![Store::addr(0, 0), Store::addr(1, 0)]);
    }
    store.pass(6000);
    let client = store.connect(0, 0, PortKind::Client);
    let key = key_of(&store, 0, 0, "k");
    assert_eq!(store.call(client, &["SET", &key, "v"]), "+OK\r\n");
    store.pass(300);
    let [(7900, master), (7901, replica)] = shown(&mut store, 0)[..] else { panic!("two") };
    assert!(master > 0 && master == replica, "{master} {replica}");
    assert_eq!(shown(&mut store, 1), [(7900, master), (7901, replica)]);
    store.managed = false;
    store.cut(0, 1);
    for _ in 0..5 {
        assert_eq!(store.call(client, &["SET", &key, "w"]), "+OK\r\n");
    }
    store.pass(50);
    assert_eq!(shown(&mut store, 0), [(7900, master + 5), (7901, master)]);
}
