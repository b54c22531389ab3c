//! MULTI and its like, through every kind of store and port: what Redis 7.0.15 answers, byte for byte, and that nobody
//! ever sees half of a transaction.

mod store;

use dkv_protocol::limits::{TRANSACTION_COMMANDS_MAX, WATCHED_KEYS_MAX};
use dkv_protocol::ranges::{ReadMode, Replication};
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, command_bytes, key_of};

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

/// Sends commands that are words, each when the last was answered, and returns the replies.
fn say(store: &mut Store, client: usize, lines: &[&str]) -> Vec<String> {
    let words = |line: &&str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    lines
        .iter()
        .map(words)
        .map(|words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            store.call(client, &words)
        })
        .collect()
}

/// The same in one piece.
fn say_at_once(store: &mut Store, client: usize, lines: &[&str]) -> String {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend(command(&line.split(' ').collect::<Vec<_>>()));
    }
    store.send(client, &bytes);
    store.run();
    received(store, client)
}

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
const CROSS_SLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const QUEUED: &str = "+QUEUED\r\n";

/// Dialogues as redis-server 7.0.15 has them; the keys are of one slot.
const DIALOGUES: &[&[(&str, &str)]] = &[
    &[
        ("MULTI", "+OK\r\n"),
        ("SET", "-ERR wrong number of arguments for 'set' command\r\n"),
        ("EXEC", ABORTED),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ],
    &[
        ("MULTI", "+OK\r\n"),
        ("NOSUCH {t}a", "-ERR unknown command 'NOSUCH', with args beginning with: '{t}a' \r\n"),
        ("SET {t}a b", QUEUED),
        ("EXEC", ABORTED),
        ("GET {t}a", "$-1\r\n"),
    ],
    &[
        ("MULTI", "+OK\r\n"),
        ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
        ("WATCH {t}a", "-ERR WATCH inside MULTI is not allowed\r\n"),
        ("SET {t}a b", QUEUED),
        ("EXEC", "*1\r\n+OK\r\n"),
    ],
    &[
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
        ("UNWATCH", "+OK\r\n"),
        (
            "EXEC x",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
        ),
        ("MULTI x", "-ERR wrong number of arguments for 'multi' command\r\n"),
        ("WATCH", "-ERR wrong number of arguments for 'watch' command\r\n"),
    ],
    &[
        ("MULTI", "+OK\r\n"),
        (
            "EXEC x",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
        ),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ],
    &[
        ("MULTI", "+OK\r\n"),
        ("DISCARD x", "-ERR wrong number of arguments for 'discard' command\r\n"),
        ("SET {t}a 1", QUEUED),
        ("EXEC", ABORTED),
    ],
    &[
        ("MULTI", "+OK\r\n"),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
        ("EXEC", ABORTED),
    ],
    &[("MULTI", "+OK\r\n"), ("EXEC", "*0\r\n")],
    &[
        ("SET {t}a b", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET {t}a", QUEUED),
        ("INCR {t}a", QUEUED),
        ("PING", QUEUED),
        ("ECHO x", QUEUED),
        (
            "EXEC",
            "*4\r\n$1\r\nb\r\n-ERR value is not an integer or out of range\r\n+PONG\r\n$1\r\nx\r\n",
        ),
    ],
    &[
        ("SET {t}a b", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("CLIENT SETNAME me", QUEUED),
        ("GET {t}a", QUEUED),
        ("CLIENT GETNAME", QUEUED),
        ("SELECT 0", QUEUED),
        ("UNWATCH", QUEUED),
        ("MGET {t}a {t}x {t}a", QUEUED),
        ("SELECT 7", QUEUED),
        ("DEL {t}a {t}x", QUEUED),
        (
            "EXEC",
            "*8\r\n+OK\r\n$1\r\nb\r\n$2\r\nme\r\n+OK\r\n+OK\r\n*3\r\n$1\r\nb\r\n$-1\r\n$1\r\nb\r\n\
             -ERR DB index is out of range\r\n:1\r\n",
        ),
        ("CLIENT SETNAME x", "+OK\r\n"),
    ],
    &[("MULTI", "+OK\r\n"), ("RESET", "+RESET\r\n"), ("EXEC", "-ERR EXEC without MULTI\r\n")],
    &[
        ("MULTI", "+OK\r\n"),
        ("SET {t}a 1", QUEUED),
        ("DISCARD", "+OK\r\n"),
        ("GET {t}a", "$-1\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ],
    // A key that is watched and changed, by the connection itself too.
    &[
        ("SET {t}a 1", "+OK\r\n"),
        ("WATCH {t}a", "+OK\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET {t}a 3", QUEUED),
        ("EXEC", "*-1\r\n"),
        ("GET {t}a", "$1\r\n2\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET {t}a 4", QUEUED),
        ("EXEC", "*1\r\n+OK\r\n"),
    ],
    &[
        ("WATCH {t}a", "+OK\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("CLIENT SETNAME aborted", QUEUED),
        ("EXEC", "*-1\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
    ],
    &[
        ("WATCH {t}a", "+OK\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
        ("EXEC", ABORTED),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*1\r\n+PONG\r\n"),
    ],
    &[
        ("WATCH {t}a", "+OK\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("UNWATCH", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*1\r\n+PONG\r\n"),
    ],
    &[
        ("WATCH {t}a", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("DISCARD", "+OK\r\n"),
        ("SET {t}a 3", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*1\r\n+PONG\r\n"),
    ],
    // One that was not there: made and gone again, and never made.
    &[
        ("WATCH {t}x", "+OK\r\n"),
        ("SET {t}x 2", "+OK\r\n"),
        ("DEL {t}x", ":1\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET {t}x", QUEUED),
        ("EXEC", "*-1\r\n"),
    ],
    &[
        ("WATCH {t}x {t}y", "+OK\r\n"),
        ("WATCH {t}x", "+OK\r\n"),
        ("SET {t}z 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET {t}z", QUEUED),
        ("EXEC", "*1\r\n$1\r\n2\r\n"),
    ],
    // Gone and made again, with the same value.
    &[
        ("SET {t}a 2", "+OK\r\n"),
        ("WATCH {t}a", "+OK\r\n"),
        ("DEL {t}a", ":1\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*-1\r\n"),
    ],
    // Its expiry is a change, of one that is not there it is none, and reads are none.
    &[
        ("SET {t}a 2", "+OK\r\n"),
        ("WATCH {t}a", "+OK\r\n"),
        ("EXPIRE {t}a 10", ":1\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*-1\r\n"),
        ("WATCH {t}x {t}a", "+OK\r\n"),
        ("EXPIRE {t}x 10", ":0\r\n"),
        ("TOUCH {t}a", ":1\r\n"),
        ("GET {t}a", "$1\r\n2\r\n"),
        ("MULTI", "+OK\r\n"),
        ("PING", QUEUED),
        ("EXEC", "*1\r\n+PONG\r\n"),
    ],
    // In RESP3 too.
    &[
        ("SET {t}a 1", "+OK\r\n"),
        ("WATCH {t}a", "+OK\r\n"),
        ("SET {t}a 2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET {t}x", QUEUED),
        ("EXEC", "_\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET {t}x", QUEUED),
        ("CLIENT GETNAME", QUEUED),
        ("EXEC", "*2\r\n_\r\n_\r\n"),
    ],
];

fn stores() -> Vec<Settings> {
    let confirmed = Replication { read: ReadMode::Confirm, ..COPIED.replication };
    vec![
        PLAIN,
        Settings { nodes: 2, shards: 2, ..PLAIN },
        COPIED,
        Settings { shards: 2, replication: confirmed, ..COPIED },
    ]
}

#[test]
fn every_store_and_port_answers_as_redis_does() {
    for settings in stores() {
        let mut store = ready(settings);
        for (number, dialogue) in DIALOGUES.iter().enumerate() {
            let resp3 = number == DIALOGUES.len() - 1;
            for place in 0..settings.nodes {
                for port in [PortKind::Client, PortKind::Shard] {
                    let tag = format!("{{{number}-{place}-{port:?}}}");
                    let of = |text: &str| text.replace("{t}", &tag);
                    let lines: Vec<String> = dialogue.iter().map(|(line, _)| of(line)).collect();
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    let expected: Vec<String> =
                        dialogue.iter().map(|(_, reply)| of(reply)).collect();
                    let client = store.connect(place, 0, port);
                    if resp3 {
                        store.call(client, &["HELLO", "3"]);
                    }
                    let replies = say(&mut store, client, &lines);
                    assert_eq!(replies, expected, "{lines:?}");
                    for key in ["{t}a", "{t}x", "{t}z"] {
                        store.call(client, &["DEL", &of(key)]);
                    }
                    store.call(client, &["CLIENT", "SETNAME", ""]);
                    // And in one piece.
                    assert_eq!(say_at_once(&mut store, client, &lines), expected.concat());
                    for key in ["{t}a", "{t}x", "{t}z"] {
                        store.call(client, &["DEL", &of(key)]);
                    }
                    store.disconnect(client);
                }
            }
        }
    }
}

#[test]
fn a_key_that_expires_while_it_is_watched_is_a_change_and_one_that_had_expired_is_not() {
    for settings in stores() {
        let mut store = ready(settings);
        for node in 0..settings.nodes {
            let client = store.connect(node, 0, PortKind::Client);
            let set = ["SET", "{e}a", "v", "PX", "5"];
            assert_eq!(store.call(client, &set), "+OK\r\n");
            assert_eq!(store.call(client, &["WATCH", "{e}a"]), "+OK\r\n");
            store.pass(6);
            let exec = ["MULTI", "SET {e}b 1", "EXEC"];
            assert_eq!(say(&mut store, client, &exec)[2], "*-1\r\n");
            assert_eq!(store.call(client, &set), "+OK\r\n");
            store.now.boot_ns += 6_000_000;
            store.now.unix_ms += 6;
            assert_eq!(store.call(client, &["WATCH", "{e}a"]), "+OK\r\n");
            store.pass(200);
            let exec = ["MULTI", "GET {e}b", "EXEC"];
            if settings.replication.replicas > 0 {
                assert_eq!(say(&mut store, client, &exec)[2], "*1\r\n$-1\r\n");
            }
        }
    }
}

#[test]
fn keys_of_two_slots_are_refused_at_the_second_and_the_transaction_with_them() {
    for settings in stores() {
        let mut store = ready(settings);
        let client = store.connect(0, 0, PortKind::Client);
        let lines = ["MULTI", "SET {a}1 v", "SET {b}1 v", "SET {a}2 v", "EXEC", "GET {a}1"];
        assert_eq!(
            say(&mut store, client, &lines),
            ["+OK\r\n", QUEUED, CROSS_SLOT, QUEUED, ABORTED, "$-1\r\n"]
        );
        let lines = ["MULTI", "MSET {a}1 v {b}1 v", "EXEC", "WATCH {a}1 {b}1", "WATCH {a}1"];
        assert_eq!(
            say(&mut store, client, &lines),
            ["+OK\r\n", CROSS_SLOT, ABORTED, CROSS_SLOT, "+OK\r\n"]
        );
        let lines = ["WATCH {b}1", "MULTI", "SET {b}1 v", "EXEC", "MULTI", "SET {b}1 v", "EXEC"];
        assert_eq!(
            say(&mut store, client, &lines),
            [CROSS_SLOT, "+OK\r\n", CROSS_SLOT, ABORTED, "+OK\r\n", QUEUED, "*1\r\n+OK\r\n"]
        );
    }
}

#[test]
fn commands_for_the_whole_store_run_in_their_place_where_they_can_and_are_refused_where_not() {
    let mut store = ready(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let lines = ["SET a 1", "MULTI", "DBSIZE", "FLUSHALL", "SET a 2", "DBSIZE", "KEYS *", "EXEC"];
    let reply = say(&mut store, client, &lines).pop().expect("a reply");
    assert_eq!(reply, "*5\r\n:1\r\n+OK\r\n+OK\r\n:1\r\n*1\r\n$1\r\na\r\n");
    for settings in [Settings { nodes: 2, ..PLAIN }, COPIED] {
        let mut store = ready(settings);
        let client = store.connect(0, 0, PortKind::Client);
        let other = key_of(&store, 1, 0, "k");
        let set = format!("SET {other} 2");
        let lines =
            ["MULTI", "DBSIZE", &set, "KEYS *", "SCAN 0 COUNT 1000", "INFO keyspace", "EXEC"];
        let reply = say(&mut store, client, &lines).pop().expect("a reply");
        let keys = format!("*1\r\n${}\r\n{other}\r\n", other.len());
        // All of them see what the keys of the transaction became.
        assert!(reply.starts_with(&format!("*5\r\n:1\r\n+OK\r\n{keys}*2\r\n")), "{reply}");
        assert!(reply.ends_with("keys=1,expires=0,avg_ttl=0\r\n\r\n"), "{reply}");
        let lines = ["MULTI", "SET a 1", "FLUSHALL", "EXEC", "GET a"];
        let replies = say(&mut store, client, &lines);
        assert!(replies[2].starts_with("-ERR a transaction is of one slot"), "{replies:?}");
        assert_eq!(replies[3..], [ABORTED, "$-1\r\n"]);
    }
}

#[test]
fn transactions_have_bounds() {
    let mut store = ready(Settings { nodes: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let key = key_of(&store, 1, 0, "k");
    let mut bytes = command(&["MULTI"]);
    for _ in 0..TRANSACTION_COMMANDS_MAX {
        bytes.extend(command(&["INCR", &key]));
    }
    bytes.extend(command(&["EXEC"]));
    store.send(client, &bytes);
    store.run();
    let replies = received(&mut store, client);
    assert!(replies.ends_with(":65535\r\n:65536\r\n"));
    bytes.truncate(bytes.len() - command(&["EXEC"]).len());
    bytes.extend(command(&["GET", &key]));
    bytes.extend(command(&["EXEC"]));
    store.send(client, &bytes);
    store.run();
    let replies = received(&mut store, client);
    let refused =
        "-ERR a transaction holds at most 65536 commands; send EXEC before more of them\r\n";
    assert!(replies.ends_with(&format!("{QUEUED}{refused}{ABORTED}")));
    assert_eq!(store.call(client, &["GET", &key]), "$5\r\n65536\r\n");
    let keys: Vec<String> = (0..=WATCHED_KEYS_MAX).map(|i| format!("{{x}}{i}")).collect();
    let mut words = vec!["WATCH"];
    words.extend(keys.iter().map(String::as_str));
    assert!(store.call(client, &words).starts_with("-ERR a connection watches at most 1024 keys"));
    words.pop();
    assert_eq!(store.call(client, &words), "+OK\r\n");
    assert!(store.call(client, &["WATCH", "{x}"]).starts_with("-ERR a connection watches at most"));
    let list = store.call(client, &["CLIENT", "LIST"]);
    assert!(list.contains(" multi=-1 "), "{list}");
    say(&mut store, client, &["MULTI", "GET {x}1"]);
    let other = store.connect(0, 0, PortKind::Client);
    let list = store.call(other, &["CLIENT", "LIST"]);
    assert!(list.contains(" flags=x ") && list.contains(" multi=1 "), "{list}");
}

#[test]
fn values_of_any_length_are_written_and_read_in_a_transaction() {
    for settings in stores() {
        let mut store = ready(settings);
        for node in 0..settings.nodes {
            let client = store.connect(node, 0, PortKind::Client);
            let value = vec![b'v'; 100_000];
            let mut bytes = command(&["MULTI"]);
            for key in ["{l}a", "{l}b"] {
                bytes.extend(command_bytes(&[b"SET", key.as_bytes(), &value]));
                bytes.extend(command_bytes(&[b"APPEND", key.as_bytes(), &value[..20_000]]));
            }
            bytes.extend(command(&["MGET", "{l}a", "{l}b"]));
            bytes.extend(command(&["EXEC"]));
            store.send(client, &bytes);
            store.run();
            let replies = received(&mut store, client);
            let long = format!("$120000\r\n{}\r\n", "v".repeat(120_000));
            assert!(replies.ends_with(&format!("\r\n:120000\r\n*2\r\n{long}{long}")));
            let other = store.connect((node + 1) % settings.nodes, 0, PortKind::Client);
            assert_eq!(store.call(other, &["GET", "{l}b"]), long);
        }
        store.pass(500);
        if settings.replication.replicas > 0 {
            store.assert_copies_are_equal();
        }
    }
}

/// Two keys of a slot that is led by the first node, and whose copy is at the second.
fn pair(store: &Store) -> (String, String) {
    let key = key_of(store, 0, 0, "k");
    (format!("{{{key}}}1"), format!("{{{key}}}2"))
}

#[test]
fn nobody_sees_half_of_a_transaction_and_its_reply_waits_for_the_copies() {
    for at in [0, 1, 2] {
        let mut store = ready(COPIED);
        let (one, two) = pair(&store);
        let writer = store.connect(at, 0, PortKind::Client);
        let reader = store.connect(0, 0, PortKind::Client);
        assert_eq!(store.call(writer, &["MSET", &one, "0", &two, "0"]), "+OK\r\n");
        let transaction =
            ["MULTI".into(), format!("SET {one} 1"), format!("SET {two} 1"), "EXEC".into()];
        let lines: Vec<&str> = transaction.iter().map(String::as_str).collect();
        for line in &lines {
            store.send(writer, &command(&line.split(' ').collect::<Vec<_>>()));
        }
        while received(&mut store, writer).is_empty() && store.step() {}
        // From now on one batch after the other, with a look between any two.
        let mut seen = Vec::new();
        for _ in 0..200 {
            store.send(reader, &command(&["MGET", &one, &two]));
            store.step();
            seen.push(received(&mut store, reader));
        }
        store.pass(50);
        seen.push(received(&mut store, reader));
        let seen = seen.concat();
        let (old, new) = ("*2\r\n$1\r\n0\r\n$1\r\n0\r\n", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
        let (olds, news) = (seen.matches(old).count(), seen.matches(new).count());
        assert_eq!(seen.len(), olds * old.len() + news * new.len());
        assert!(news > 0);
    }
}

#[test]
fn a_shard_that_takes_over_has_all_of_a_transaction_or_nothing() {
    // Cut after every number of batches: the entries of a transaction are never apart.
    let mut outcomes = [0; 2];
    for steps in 0..60 {
        let mut store = ready(Settings { seed: steps, ..COPIED });
        let (one, two) = pair(&store);
        let client = store.connect(0, 0, PortKind::Client);
        assert_eq!(store.call(client, &["MSET", &one, "0", &two, "0"]), "+OK\r\n");
        store.send(client, &command(&["MULTI"]));
        for i in 1..=3 {
            store.send(client, &command(&["SET", &one, &i.to_string()]));
            store.send(client, &command(&["SET", &two, &i.to_string()]));
        }
        store.send(client, &command(&["EXEC"]));
        for _ in 0..steps % 20 {
            store.step();
        }
        let answered = received(&mut store, client).contains("*6\r\n");
        store.kill(0, true);
        store.pass(300);
        let other = store.connect(1, 0, PortKind::Client);
        let seen = store.call(other, &["MGET", &one, &two]);
        let whole = seen == "*2\r\n$1\r\n3\r\n$1\r\n3\r\n";
        assert!(whole || !answered && seen == "*2\r\n$1\r\n0\r\n$1\r\n0\r\n", "{seen}");
        outcomes[usize::from(whole)] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn one_transaction_is_one_entry_and_so_is_a_command_of_several_keys() {
    let mut store = ready(COPIED);
    let (one, two) = pair(&store);
    let client = store.connect(2, 0, PortKind::Client);
    let version = |store: &mut Store, key: &str| {
        let reply = store.call(client, &["DKV.GETV", key]);
        reply.rsplit("\r\n:").next().and_then(|n| n.trim().parse::<u64>().ok()).expect("a version")
    };
    assert_eq!(store.call(client, &["MSET", &one, "0", &two, "0"]), "+OK\r\n");
    let first = version(&mut store, &one);
    assert_eq!(version(&mut store, &two), first);
    let sets = [format!("APPEND {one} 1"), format!("SET {two} 1"), format!("APPEND {one} 1")];
    let lines = ["MULTI", &sets[0], &sets[1], &sets[2], "EXEC"];
    assert_eq!(say(&mut store, client, &lines)[4], "*3\r\n:2\r\n+OK\r\n:3\r\n");
    assert_eq!(version(&mut store, &one), first + 1);
    assert_eq!(version(&mut store, &two), first + 1);
    // The copy that takes over goes on behind it.
    store.pass(200);
    store.assert_copies_are_equal();
    store.kill(0, true);
    store.pass(200);
    assert_eq!(store.call(client, &["MGET", &one, &two]), "*2\r\n$3\r\n011\r\n$1\r\n1\r\n");
    assert_eq!(store.call(client, &["DEL", &one, &two]), ":2\r\n");
}

#[test]
fn a_watched_key_whose_range_changed_hands_aborts() {
    for moved in [true, false] {
        let mut store = ready(COPIED);
        let (one, two) = pair(&store);
        let client = store.connect(2, 0, PortKind::Client);
        assert_eq!(store.call(client, &["SET", &one, "v"]), "+OK\r\n");
        assert_eq!(store.call(client, &["WATCH", &one]), "+OK\r\n");
        assert_eq!(store.call(client, &["MULTI"]), "+OK\r\n");
        assert_eq!(store.call(client, &["SET", &two, "w"]), QUEUED);
        if moved {
            let range = slot_of(one.as_bytes()).range();
            store.place(range, vec![Store::addr(1, 0), Store::addr(2, 0)]);
            store.pass(2000);
        } else {
            store.kill(0, true);
            store.pass(300);
        }
        assert_eq!(store.call(client, &["EXEC"]), "*-1\r\n");
        assert_eq!(store.call(client, &["GET", &two]), "$-1\r\n");
        // And again, as the client will.
        let set = format!("SET {two} w");
        let watch = format!("WATCH {one}");
        let replies = say(&mut store, client, &[&watch, "MULTI", &set, "EXEC"]);
        assert_eq!(replies[3], "*1\r\n+OK\r\n");
    }
}

#[test]
fn a_transaction_that_was_on_its_way_to_a_node_that_is_gone_is_uncertain_and_one_that_reads_is_asked_again()
 {
    let mut store = ready(COPIED);
    let (one, two) = pair(&store);
    assert_eq!(store.shards.len(), 3);
    let (writer, reader) =
        (store.connect(2, 0, PortKind::Client), store.connect(2, 0, PortKind::Client));
    assert_eq!(store.call(writer, &["MSET", &one, "1", &two, "1"]), "+OK\r\n");
    let read = format!("GET {one}");
    let write = format!("INCR {two}");
    assert_eq!(say(&mut store, writer, &["MULTI", &write, "CLIENT ID"])[2], QUEUED);
    assert_eq!(say(&mut store, reader, &["MULTI", &read, &read])[2], QUEUED);
    store.delivering = false;
    store.send(writer, &command(&["EXEC"]));
    store.send(writer, &command(&["PING"]));
    store.send(reader, &command(&["EXEC"]));
    while store.step() {}
    store.kill(0, true);
    store.delivering = true;
    store.pass(300);
    let replies = received(&mut store, writer);
    assert!(replies.starts_with("-UNCERTAIN ") && replies.ends_with("\r\n+PONG\r\n"), "{replies}");
    assert_eq!(received(&mut store, reader), "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!(store.call(writer, &["GET", &two]), "$1\r\n1\r\n");
}
