//! CLIENT: what a connection sets for itself, and what it does to others of its node.

mod store;

use dkv_protocol::ranges::{Ack, Replication};
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const OK: &str = "+OK\r\n";

trait Commands {
    /// All of them, one behind the other.
    fn concat_commands(&self) -> Vec<u8>;
}

impl Commands for [&[&str]] {
    fn concat_commands(&self) -> Vec<u8> {
        self.iter().flat_map(|args| command(args)).collect()
    }
}

fn check(store: &mut Store, client: usize, cases: &[(&[&str], &str)]) {
    for (args, expected) in cases {
        assert_eq!(store.call(client, args), *expected, "{args:?}");
    }
}

#[test]
fn clients_of_all_shards_are_killed_by_what_is_true_of_them() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let me = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 1, PortKind::Client);
    check(
        &mut store,
        me,
        &[
            (&["CLIENT", "KILL"], "-ERR wrong number of arguments for 'client|kill' command\r\n"),
            (&["CLIENT", "KILL", "1.2.3.4:5"], "-ERR No such client\r\n"),
            (&["CLIENT", "KILL", "ID", "x"], "-ERR client-id should be greater than 0\r\n"),
            (&["CLIENT", "KILL", "ID", "0"], "-ERR client-id should be greater than 0\r\n"),
            (&["CLIENT", "KILL", "ID", "99"], ":0\r\n"),
            (&["CLIENT", "KILL", "ID", "1", "ADDR"], "-ERR syntax error\r\n"),
            (&["CLIENT", "KILL", "TYPE", "foo"], "-ERR Unknown client type 'foo'\r\n"),
            (&["CLIENT", "KILL", "TYPE", "pubsub"], ":0\r\n"),
            (&["CLIENT", "KILL", "USER", "nobody"], "-ERR No such user 'nobody'\r\n"),
            (&["CLIENT", "KILL", "SKIPME", "maybe"], "-ERR syntax error\r\n"),
            (&["CLIENT", "KILL", "FOO", "bar"], "-ERR syntax error\r\n"),
            (&["CLIENT", "KILL", "MAXAGE", "0"], "-ERR maxage should be greater than 0\r\n"),
            (&["CLIENT", "KILL", "MAXAGE", "10"], ":0\r\n"),
            // Of itself only when it says so.
            (&["CLIENT", "KILL", "ID", "1"], ":0\r\n"),
            (&["CLIENT", "KILL", "LADDR", "10.0.0.9:1"], ":0\r\n"),
        ],
    );
    store.now.boot_ns += 20_000_000_000;
    check(&mut store, me, &[(&["CLIENT", "KILL", "MAXAGE", "10", "ID", "2"], ":1\r\n")]);
    assert!(store.clients[other].cut);
    let other = store.connect(0, 1, PortKind::Client);
    check(&mut store, me, &[(&["CLIENT", "KILL", "USER", "default", "TYPE", "normal"], ":1\r\n")]);
    assert!(store.clients[other].cut && !store.clients[me].closed);
    // Being killed is no disconnection for what was not read.
    let stats = store.call(me, &["INFO", "stats"]);
    assert!(stats.contains("client_output_buffer_limit_disconnections:0\r\n"), "{stats}");
    // The connection that asks hears of it first, and nothing behind it is executed.
    store.send(me, &[command(&["CLIENT", "KILL", "127.0.0.1:50000"]), command(&["PING"])].concat());
    store.run();
    assert_eq!(store.take(me), OK.as_bytes());
    assert!(store.clients[me].closed && !store.clients[me].cut);
}

#[test]
fn a_pause_holds_commands_back_on_all_shards_until_it_is_over() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let me = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 1, PortKind::Client);
    check(
        &mut store,
        me,
        &[
            (&["CLIENT", "PAUSE", "x"], "-ERR timeout is not an integer or out of range\r\n"),
            (&["CLIENT", "PAUSE", "-1"], "-ERR timeout is negative\r\n"),
            (&["CLIENT", "PAUSE", "1", "foo"], "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
            (&["CLIENT", "PAUSE", "60000", "WRITE"], OK),
        ],
    );
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "k"));
    assert_eq!(store.call(other, &["GET", &here]), "$-1\r\n");
    assert_eq!(store.call(other, &["SET", &here, "1"]), "");
    // What comes behind it waits, too, in its order.
    assert_eq!(store.call(other, &["GET", &here]), "");
    store.send(me, &[command(&["MULTI"]), command(&["PING"]), command(&["EXEC"])].concat());
    store.run();
    assert_eq!(store.take(me), b"+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n");
    assert_eq!(store.call(me, &["CLIENT", "UNPAUSE"]), OK);
    store.run();
    assert_eq!(store.take(other), b"+OK\r\n$1\r\n1\r\n");

    assert_eq!(store.call(me, &["CLIENT", "PAUSE", "5000"]), OK);
    assert_eq!(store.call(me, &["PING"]), "");
    assert_eq!(store.call(other, &["GET", &there]), "");
    // Its input is bounded: it is not read on for ever.
    let more = command(&["SET", &there, &"v".repeat(1000)]);
    (0..1000).for_each(|_| store.send(other, &more));
    store.run();
    assert!(store.clients[other].paused);
    store.now.boot_ns += 5_100_000_000;
    store.run();
    assert_eq!(store.take(me), b"+PONG\r\n");
    let replies = store.take(other);
    assert_eq!(replies.len(), "$-1\r\n".len() + 1000 * OK.len());
    assert!(!store.clients[other].paused);
}

#[test]
fn a_pause_does_not_stop_a_transaction_in_its_middle() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let key = key_of(&store, 0, 1, "k");
    let commands: [&[&str]; 7] = [
        &["MULTI"],
        &["SET", &key, "1"],
        &["CLIENT", "PAUSE", "60000"],
        &["ECHO", "done"],
        &["CLIENT", "ID"],
        &["CLIENT", "UNPAUSE"],
        &["EXEC"],
    ];
    store.send(client, &commands.concat_commands());
    store.run();
    let replies = String::from_utf8(store.take(client)).expect("text");
    assert_eq!(
        replies,
        format!(
            "+OK\r\n{}*5\r\n+OK\r\n+OK\r\n$4\r\ndone\r\n:1\r\n+OK\r\n",
            "+QUEUED\r\n".repeat(5)
        )
    );
}

#[test]
fn clients_are_listed_in_the_order_of_the_ids_and_as_often_as_they_are_named() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let me = store.connect(0, 0, PortKind::Client);
    for shard in [1, 0, 1] {
        store.connect(0, shard, PortKind::Client);
    }
    assert_eq!(store.call(me, &["CLIENT", "SETNAME", "id=4"]), OK);
    let list = store.call(me, &["CLIENT", "LIST", "ID", "4", "1", "99", "3", "4", "-1", "2", "1"]);
    let ids: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids[1..], ["id=4", "id=1", "id=3", "id=4", "id=2", "id=1", ""], "{list}");
    let list = store.call(me, &["CLIENT", "LIST"]);
    assert_eq!(list.matches("addr=127").count(), 4);
}

#[test]
fn clients_whose_bytes_come_in_the_same_turn_are_listed_and_killed() {
    let mut store = Store::new(PLAIN);
    let [me, first, second] = [0; 3].map(|_| store.connect(0, 0, PortKind::Client));
    let ids = [me, first, second].map(|client| store.clients[client].session);
    let admin: [&[&str]; 2] = [&["CLIENT", "LIST"], &["CLIENT", "KILL", "ID", "2"]];
    let bytes = [admin.concat_commands(), command(&["PING"]), command(&["PING"])];
    let now = store.now;
    store.shards[0].1.inputs(now, &ids, &|i| &bytes[i]);
    store.run();
    let replies = String::from_utf8(store.take(me)).expect("text");
    assert_eq!(replies.matches(" addr=").count(), 3, "{replies}");
    assert!(replies.ends_with("\r\n:1\r\n"), "{replies}");
    assert!(store.clients[first].cut || store.clients[first].closed);
    assert_eq!(store.take(second), b"+PONG\r\n");
    assert!(!store.clients[second].closed);
}

#[test]
fn looks_at_all_connections_end_the_turn_and_name_few() {
    let mut store = Store::new(PLAIN);
    let me = store.connect(0, 0, PortKind::Client);
    for _ in 0..500 {
        store.connect(0, 0, PortKind::Client);
    }
    store.run();
    let id = store.clients[me].session;
    let bytes = command(&["CLIENT", "KILL", "ADDR", "1.2.3.4:1"]).repeat(100);
    let now = store.now;
    let before = store.stats(0, 0).commands.get();
    store.shards[0].1.input(now, id, &bytes);
    let executed = store.stats(0, 0).commands.get() - before;
    assert!((1..10).contains(&executed), "{executed} in one turn");
    store.run();
    assert_eq!(store.take(me), ":0\r\n".repeat(100).as_bytes());

    let many: Vec<String> = (0..2000).map(|id| id.to_string()).collect();
    let list = |ids: &[String]| {
        let mut args = vec!["CLIENT", "LIST", "ID"];
        args.extend(ids.iter().map(String::as_str));
        command(&args)
    };
    store.send(me, &list(&many));
    store.run();
    assert_eq!(store.take(me), b"-ERR too many names in one command: at most 1024\r\n");
    // None is 0; who is named twice is there twice, as in Redis.
    store.send(me, &list(&["3", "0", "2", "-1", "3"].map(String::from)));
    store.run();
    let text = String::from_utf8(store.take(me)).expect("text");
    assert_eq!(text.matches(" addr=").count(), 3, "{text}");
}

#[test]
fn replies_that_are_not_wanted_are_not_sent() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "k"));
    check(
        &mut store,
        client,
        &[
            (&["CLIENT", "REPLY", "foo"], "-ERR syntax error\r\n"),
            (&["CLIENT", "REPLY", "ON"], OK),
            (&["CLIENT", "REPLY", "SKIP"], ""),
            (&["SET", &there, "1"], ""),
            (&["GET", &there], "$1\r\n1\r\n"),
            (&["CLIENT", "REPLY", "SKIP"], ""),
            (&["nosuch"], ""),
            (&["PING"], "+PONG\r\n"),
            (&["CLIENT", "REPLY", "OFF"], ""),
            (&["SET", &here, "2"], ""),
            (&["GET", &there], ""),
            (&["CLIENT", "REPLY", "SKIP"], ""),
            (&["PING"], ""),
            (&["MGET", &here, &there], ""),
            (&["CLIENT", "REPLY", "ON"], OK),
            (&["MGET", &here, &there], "*2\r\n$1\r\n2\r\n$1\r\n1\r\n"),
            // One that is silent itself skips what comes behind it.
            (&["CLIENT", "REPLY", "SKIP"], ""),
            (&["CLIENT", "REPLY", "SKIP"], ""),
            (&["PING", "a"], ""),
            (&["PING", "b"], "$1\r\nb\r\n"),
            (&["CLIENT", "REPLY", "OFF"], ""),
            (&["RESET"], "+RESET\r\n"),
        ],
    );
    // In one pipeline, where replies of the other shard come late.
    let all: Vec<u8> = [
        &["GET", &there][..],
        &["CLIENT", "REPLY", "OFF"],
        &["GET", &there],
        &["GET", &here],
        &["CLIENT", "REPLY", "ON"],
        &["GET", &here],
        &["CLIENT", "REPLY", "SKIP"],
        &["GET", &there],
        &["ECHO", "end"],
    ]
    .iter()
    .flat_map(|args| command(args))
    .collect();
    store.send(client, &all);
    store.run();
    assert_eq!(
        String::from_utf8_lossy(&store.take(client)),
        "$1\r\n1\r\n+OK\r\n$1\r\n2\r\n$3\r\nend\r\n"
    );
}

/// With a key of that shard, whichever the client is connected to.
fn keys_are_not_touched(store: &mut Store, client: usize, shard: u16) {
    let key = key_of(store, 0, shard, "k");
    assert_eq!(store.call(client, &["SET", &key, "1"]), OK);
    assert_eq!(store.call(client, &["CLIENT", "NO-TOUCH", "ON"]), OK);
    store.now.boot_ns += 100_000_000_000;
    assert_eq!(store.call(client, &["GET", &key]), "$1\r\n1\r\n");
    let idle = store.call(client, &["OBJECT", "IDLETIME", &key]);
    assert!([":99\r\n", ":100\r\n"].contains(&idle.as_str()), "{idle}");
    let list = store.call(client, &["CLIENT", "INFO"]);
    assert!(list.contains(" flags=T "), "{list}");
    assert_eq!(store.call(client, &["CLIENT", "NO-TOUCH", "OFF"]), OK);
    assert_eq!(store.call(client, &["GET", &key]), "$1\r\n1\r\n");
    assert_eq!(store.call(client, &["OBJECT", "IDLETIME", &key]), ":0\r\n");
}

#[test]
fn keys_are_not_used_by_who_does_not_want_to_touch_them() {
    let eviction = dkv_protocol::eviction::Eviction::AllKeysLru;
    let mut store = Store::new(Settings { eviction, shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    keys_are_not_touched(&mut store, client, 0);
    keys_are_not_touched(&mut store, client, 1);
    check(
        &mut store,
        client,
        &[
            (&["CLIENT", "NO-TOUCH", "x"], "-ERR syntax error\r\n"),
            (&["CLIENT", "NO-EVICT", "x"], "-ERR syntax error\r\n"),
            (&["CLIENT", "NO-EVICT", "ON"], OK),
        ],
    );
    assert!(store.call(client, &["CLIENT", "INFO"]).contains(" flags=e "));
}

#[test]
fn a_client_in_wait_is_unblocked_from_another_connection() {
    let replication = Replication { replicas: 1, ack: Ack::All, ..Replication::NONE };
    let mut store = Store::new(Settings { nodes: 2, shards: 1, replication, ..PLAIN });
    let blocked = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 0, PortKind::Client);
    check(
        &mut store,
        other,
        &[
            (&["CLIENT", "UNBLOCK", "x"], "-ERR value is not an integer or out of range\r\n"),
            (&["CLIENT", "UNBLOCK", "99"], ":0\r\n"),
            (
                &["CLIENT", "UNBLOCK", "1", "foo"],
                "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n",
            ),
            (&["CLIENT", "UNBLOCK", "1"], ":0\r\n"),
        ],
    );
    store.send(blocked, &command(&["WAIT", "9", "0"]));
    for _ in 0..1000 {
        store.step();
    }
    assert_eq!(store.take(blocked), b"");
    let unblock = |store: &mut Store, how: &str| {
        store.send(other, &command(&["CLIENT", "UNBLOCK", "1", how]));
        while store.clients[blocked].received.is_empty() {
            store.step();
        }
        store.take(blocked)
    };
    assert_eq!(unblock(&mut store, "TIMEOUT"), b":1\r\n");
    store.send(blocked, &command(&["WAIT", "9", "0"]));
    for _ in 0..1000 {
        store.step();
    }
    let error = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
    assert_eq!(unblock(&mut store, "ERROR"), error);
    store.run();
    assert_eq!(store.take(other), b":1\r\n:1\r\n");
}
