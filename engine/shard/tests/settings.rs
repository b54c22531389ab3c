//! CONFIG SET: what it changes on every shard of the node.

mod store;

use dkv_protocol::eviction::Eviction;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const OK: &str = "+OK\r\n";

#[test]
fn a_limit_of_memory_holds_on_every_shard_of_the_node() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(1000);
    for i in 0..4_000 {
        assert_eq!(store.call(client, &["SET", &format!("key{i}"), &value]), OK);
    }
    assert_eq!(store.call(client, &["CONFIG", "SET", "maxmemory", "2mb"]), OK);
    for shard in 0..2 {
        let key = key_of(&store, 0, shard, "more");
        let reply = store.call(client, &["SET", &key, &value]);
        assert!(reply.starts_with("-OOM "), "shard {shard}: {reply}");
    }
    assert_eq!(store.call(client, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), OK);
    store.background();
    for shard in 0..2 {
        let key = key_of(&store, 0, shard, "more");
        assert_eq!(store.call(client, &["SET", &key, &value]), OK);
        let held = store.envs[0].stats[usize::from(shard)].memory_bytes.get();
        assert!(held <= 1 << 20, "shard {shard} holds {held}");
    }
    let memory = store.call(client, &["INFO", "memory"]);
    assert!(memory.contains("maxmemory:2097152\r\n"), "{memory}");
    assert!(memory.contains("maxmemory_policy:allkeys-lru\r\n"), "{memory}");
    assert_eq!(store.envs[0].settings.eviction(), Eviction::AllKeysLru);
}

#[test]
fn idle_clients_are_let_go_after_the_timeout_and_others_stay() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let idle = store.connect(0, 1, PortKind::Client);
    let busy = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(busy, &["CONFIG", "SET", "timeout", "5"]), OK);
    store.now.boot_ns += 4_000_000_000;
    assert_eq!(store.call(busy, &["PING"]), "+PONG\r\n");
    assert!(!store.clients[idle].closed);
    store.now.boot_ns += 2_000_000_000;
    store.run();
    assert!(store.clients[idle].closed && !store.clients[busy].closed);
    assert_eq!(store.call(busy, &["CONFIG", "SET", "timeout", "0"]), OK);
    store.now.boot_ns += 100_000_000_000;
    store.run();
    assert!(!store.clients[busy].closed);
}

#[test]
fn who_waits_looks_on_or_reads_is_not_idle() {
    let mut store = Store::new(PLAIN);
    let me = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(me, &["SET", "key", &"v".repeat(10_000)]), OK);
    let [held, monitor, reader] = [0; 3].map(|_| store.connect(0, 0, PortKind::Client));
    assert_eq!(store.call(monitor, &["MONITOR"]), OK);
    store.clients[reader].reads = false;
    (0..3).for_each(|_| store.send(reader, &command(&["GET", "key"])));
    store.run();
    assert_eq!(store.call(me, &["CLIENT", "PAUSE", "60000", "WRITE"]), OK);
    assert_eq!(store.call(held, &["SET", "key", "1"]), "");
    assert_eq!(store.call(me, &["CONFIG", "SET", "timeout", "5"]), OK);
    store.now.boot_ns += 10_000_000_000;
    store.run();
    for client in [held, monitor, reader] {
        assert!(!store.clients[client].closed, "{client}");
    }
    assert!(store.clients[me].closed, "and it had said nothing");
}

#[test]
fn who_leaves_more_unread_than_the_limit_is_disconnected() {
    let mut store = Store::new(PLAIN);
    let slow = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(other, &["SET", "key", &"v".repeat(10_000)]), OK);
    let limit = ["CONFIG", "SET", "client-output-buffer-limit"];
    let set = |store: &mut Store, limits| {
        assert_eq!(store.call(other, &[limit[0], limit[1], limit[2], limits]), OK);
    };
    set(&mut store, "normal 1mb 50kb 10");
    store.clients[slow].reads = false;
    for _ in 0..10 {
        store.send(slow, &command(&["GET", "key"]));
    }
    store.run();
    // Over the soft limit, but not for long.
    assert!(!store.clients[slow].closed);
    store.now.boot_ns += 11_000_000_000;
    store.run();
    assert!(store.clients[slow].cut);

    let slow = store.connect(0, 0, PortKind::Client);
    store.clients[slow].reads = false;
    set(&mut store, "normal 30kb 0 0");
    for _ in 0..5 {
        store.send(slow, &command(&["GET", "key"]));
    }
    store.run();
    assert!(store.clients[slow].cut);
    let stats = store.call(other, &["INFO", "stats"]);
    assert!(stats.contains("client_output_buffer_limit_disconnections:2\r\n"), "{stats}");
}

#[test]
fn no_more_clients_are_let_in_than_are_wanted() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["CONFIG", "SET", "maxclients", "2"]), OK);
    store.connect(0, 0, PortKind::Client);
    let local = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let refused = store.try_connect(0, 0, PortKind::Client, local);
    assert_eq!(refused.unwrap_err(), b"-ERR max number of clients reached\r\n");
    assert_eq!(store.call(client, &["CONFIG", "SET", "maxclients", "3"]), OK);
    assert!(store.try_connect(0, 0, PortKind::Client, local).is_ok());
}
