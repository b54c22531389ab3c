//! CLIENT TRACKING: clients that keep what they read are told when it changes, wherever it is led.

mod store;

use dkv_protocol::ranges::Replication;
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store, command, key_of};

const OK: &str = "+OK\r\n";
const ALL: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

fn invalidated(keys: &[&str]) -> String {
    let one = |key: &&str| format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len());
    keys.iter().map(one).collect()
}

/// A store of two nodes with two shards each, a client that tracks and one that does not, both on the first shard.
fn store_with(settings: Settings, options: &[&str]) -> (Store, usize, usize) {
    let mut store = Store::new(settings);
    let tracking = store.connect(0, 0, PortKind::Client);
    let other = store.connect(0, 0, PortKind::Client);
    assert!(store.call(tracking, &["HELLO", "3"]).starts_with("%7\r\n"));
    let command: Vec<&str> = ["CLIENT", "TRACKING", "ON"].iter().chain(options).copied().collect();
    assert_eq!(store.call(tracking, &command), OK);
    (store, tracking, other)
}

fn four(options: &[&str]) -> (Store, usize, usize) {
    store_with(Settings { nodes: 2, shards: 2, ..PLAIN }, options)
}

/// A key of each shard.
fn keys(store: &Store) -> Vec<String> {
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(node, shard)| key_of(store, node, shard, "key")).into()
}

fn pushed(store: &mut Store, client: usize) -> String {
    String::from_utf8(store.take(client)).expect("text")
}

#[test]
fn a_key_that_was_read_is_told_of_once_whoever_leads_it() {
    let (mut store, tracking, other) = four(&[]);
    for key in keys(&store) {
        assert_eq!(store.call(other, &["SET", &key, "1"]), OK);
        assert_eq!(pushed(&mut store, tracking), "", "{key} was not read");
        assert_eq!(store.call(tracking, &["GET", &key]), "$1\r\n1\r\n");
        assert_eq!(store.call(tracking, &["GET", &key]), "$1\r\n1\r\n");
        assert_eq!(store.call(other, &["SET", &key, "2"]), OK);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
        assert_eq!(store.call(other, &["SET", &key, "3"]), OK);
        assert_eq!(pushed(&mut store, tracking), "", "{key} was not read again");
        // Its own writes are told of behind their replies.
        assert_eq!(store.call(tracking, &["GET", &key]), "$1\r\n3\r\n");
        let reply = store.call(tracking, &["INCR", &key]);
        assert_eq!(reply, format!(":4\r\n{}", invalidated(&[&key])));
        // And a key that is not there may come.
        assert_eq!(store.call(other, &["DEL", &key]), ":1\r\n");
        assert_eq!(store.call(tracking, &["EXISTS", &key]), ":0\r\n");
        assert_eq!(store.call(other, &["SETRANGE", &key, "0", "x"]), ":1\r\n");
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
    }
    let info = store.call(other, &["INFO", "clients"]);
    assert!(info.contains("tracking_clients:1\r\n"), "{info}");
    assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "OFF"]), OK);
    let key = key_of(&store, 1, 0, "key");
    store.call(tracking, &["GET", &key]);
    store.call(other, &["SET", &key, "4"]);
    assert_eq!(pushed(&mut store, tracking), "");
}

#[test]
fn commands_of_several_keys_and_transactions_are_told_of_key_by_key() {
    let (mut store, tracking, other) = four(&[]);
    let keys = keys(&store);
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mget: Vec<&str> = ["MGET"].iter().chain(&all).copied().collect();
    let del: Vec<&str> = ["DEL"].iter().chain(&all).copied().collect();
    let told = |store: &mut Store| {
        let text = pushed(store, tracking);
        let mut found: Vec<&str> =
            all.iter().copied().filter(|key| text.contains(&invalidated(&[key]))).collect();
        found.sort_unstable();
        (found.len(), text.matches('>').count())
    };
    store.call(tracking, &mget);
    assert_eq!(
        store.call(other, &["MSET", all[0], "1", all[1], "1", all[2], "1", all[3], "1"]),
        OK
    );
    assert_eq!(told(&mut store), (4, 4));
    store.call(tracking, &mget);
    assert_eq!(store.call(other, &del), ":4\r\n");
    assert_eq!(told(&mut store), (4, 4));
    for key in &all {
        for args in [&["MULTI"][..], &["GET", key], &["PING"], &["EXEC"]] {
            store.call(tracking, args);
        }
        for args in [&["MULTI"][..], &["SET", key, "2"], &["GET", key], &["EXEC"]] {
            store.call(other, args);
        }
        assert_eq!(pushed(&mut store, tracking), invalidated(&[key]));
    }
}

#[test]
fn keys_that_end_by_themselves_are_told_of_and_so_is_clearing() {
    let (mut store, tracking, other) = four(&[]);
    for key in keys(&store) {
        assert_eq!(store.call(other, &["SET", &key, "1", "PX", "50"]), OK);
        assert_eq!(store.call(tracking, &["GET", &key]), "$1\r\n1\r\n");
        store.now.boot_ns += 60_000_000_000;
        store.background();
        store.run();
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
        assert_eq!(store.call(tracking, &["GET", &key]), "_\r\n");
    }
    assert_eq!(store.call(other, &["FLUSHALL"]), OK);
    assert!(pushed(&mut store, tracking).starts_with(ALL));
    store.call(other, &["SET", &key_of(&store, 1, 1, "key"), "1"]);
    assert_eq!(pushed(&mut store, tracking), "");
}

#[test]
fn keys_that_are_evicted_are_told_of() {
    let (mut store, tracking, other) = store_with(Settings { shards: 2, ..PLAIN }, &[]);
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "key"));
    for key in [&here, &there] {
        store.call(other, &["SET", key, "1"]);
        store.call(tracking, &["GET", key]);
    }
    assert_eq!(
        store.call(
            other,
            &["CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "allkeys-random"]
        ),
        OK
    );
    store.background();
    store.run();
    let told = pushed(&mut store, tracking);
    assert!(
        told.contains(&invalidated(&[&here])) && told.contains(&invalidated(&[&there])),
        "{told}"
    );
}

#[test]
fn clients_choose_what_is_tracked() {
    let (mut store, tracking, other) = four(&["OPTIN"]);
    let keys = keys(&store);
    for key in &keys {
        store.call(tracking, &["GET", key]);
        store.call(other, &["SET", key, "1"]);
        assert_eq!(pushed(&mut store, tracking), "");
        assert_eq!(store.call(tracking, &["CLIENT", "CACHING", "YES"]), OK);
        store.call(tracking, &["GET", key]);
        store.call(tracking, &["GET", "another"]);
        store.call(other, &["SET", key, "1"]);
        store.call(other, &["SET", "another", "1"]);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[key]));
    }
    let (mut store, tracking, other) = four(&["OPTOUT"]);
    for key in &keys {
        assert_eq!(store.call(tracking, &["CLIENT", "CACHING", "NO"]), OK);
        store.call(tracking, &["GET", key]);
        store.call(other, &["SET", key, "1"]);
        assert_eq!(pushed(&mut store, tracking), "");
        store.call(tracking, &["GET", key]);
        store.call(other, &["SET", key, "1"]);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[key]));
    }
    let (mut store, tracking, other) = four(&["NOLOOP"]);
    for key in &keys {
        store.call(tracking, &["GET", key]);
        let replies = store.call(tracking, &["SET", key, "1"]);
        // Another shard does not know who of this one wrote.
        let told = if *key == keys[0] { String::new() } else { invalidated(&[key]) };
        assert_eq!(replies, format!("{OK}{told}"), "{key}");
        store.call(tracking, &["GET", key]);
        assert_eq!(store.call(other, &["SET", key, "1"]), OK);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[key]));
    }
}

#[test]
fn an_own_write_that_changes_nothing_does_not_end_the_watch() {
    let (mut store, tracking, other) = four(&["NOLOOP"]);
    for key in keys(&store) {
        for own in [&["SETNX", &key, "x"][..], &["SET", &key, "x", "NX"], &["INCR", &key]] {
            store.call(other, &["SET", &key, "text"]);
            store.call(tracking, &["GET", &key]);
            let before = store.call(tracking, own);
            store.call(other, &["SET", &key, "new"]);
            let told = before + &pushed(&mut store, tracking);
            assert!(told.contains(&invalidated(&[&key])), "{own:?} {told}");
        }
    }
}

#[test]
fn caching_in_a_transaction_holds_for_what_it_reads() {
    let (mut store, tracking, other) = four(&["OPTIN"]);
    for key in keys(&store) {
        for args in [&["MULTI"][..], &["CLIENT", "CACHING", "YES"], &["GET", &key], &["EXEC"]] {
            store.call(tracking, args);
        }
        store.call(other, &["SET", &key, "new"]);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
    }
}

/// In Redis it tracks what the transaction reads behind it. Here that is read before, and a change could be missed.
#[test]
fn tracking_does_not_begin_in_a_transaction_but_may_end_there() {
    let (mut store, tracking, other) = four(&[]);
    let id = "1";
    for options in [&["ON"][..], &["on", "OPTIN"], &["ON", "REDIRECT", id], &["x"]] {
        for client in [tracking, other] {
            assert_eq!(store.call(client, &["MULTI"]), OK);
            let command = [&["CLIENT", "TRACKING"][..], options].concat();
            let text = store.call(client, &command);
            assert!(text.starts_with("-ERR CLIENT TRACKING ON is not allowed in a tr"), "{text}");
            let text = store.call(client, &["EXEC"]);
            assert!(text.starts_with("-EXECABORT"), "{text}");
        }
    }
    let key = key_of(&store, 1, 0, "key");
    for args in [&["MULTI"][..], &["GET", &key], &["CLIENT", "TRACKING", "OFF"]] {
        store.call(tracking, args);
    }
    assert_eq!(store.call(tracking, &["EXEC"]), "*2\r\n_\r\n+OK\r\n");
    store.call(other, &["SET", &key, "1"]);
    assert_eq!(pushed(&mut store, tracking), "");
    let info = store.call(other, &["INFO", "clients"]);
    assert!(info.contains("tracking_clients:0\r\n"), "{info}");
}

#[test]
fn a_transaction_that_removes_all_keys_tells_all() {
    let mut store = Store::new(PLAIN);
    let [tracking, other] = [0; 2].map(|_| store.connect(0, 0, PortKind::Client));
    store.call(tracking, &["HELLO", "3"]);
    assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON"]), OK);
    store.call(other, &["SET", "{q}k", "1"]);
    store.call(tracking, &["GET", "{q}k"]);
    for args in [&["MULTI"][..], &["SET", "{q}z", "1"], &["FLUSHALL"], &["EXEC"]] {
        store.call(other, args);
    }
    assert_eq!(pushed(&mut store, tracking), ALL);
}

#[test]
fn all_keys_and_prefixes_are_not_confused() {
    let (mut store, tracking, other) = four(&["BCAST", "PREFIX", "zz"]);
    let key = key_of(&store, 0, 1, "x");
    assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON", "BCAST"]), OK);
    store.call(other, &["SET", &key, "1"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
    let refused = store.call(tracking, &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "y"]);
    assert!(refused.starts_with("-ERR Prefix 'y' overlaps with an existing prefix"), "{refused}");
    store.call(other, &["SET", &key, "2"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
}

#[test]
fn who_broadcasts_is_told_of_all_keys_with_its_prefixes() {
    let (mut store, tracking, other) = four(&["BCAST", "PREFIX", "key", "PREFIX", "user:"]);
    for key in keys(&store) {
        store.call(other, &["SET", &key, "1"]);
        store.call(other, &["SET", &format!("not{key}"), "1"]);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
        store.call(other, &["SET", &key, "1"]);
        assert_eq!(pushed(&mut store, tracking), invalidated(&[&key]));
    }
    assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "OFF"]), OK);
    for key in keys(&store) {
        store.call(other, &["SET", &key, "1"]);
    }
    assert_eq!(pushed(&mut store, tracking), "");
    // Without prefixes it is all keys.
    assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON", "BCAST"]), OK);
    let there = key_of(&store, 1, 1, "x");
    store.call(other, &["SET", &there, "1"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&there]));
    // A node that was away may have changed anything, and tells again afterwards.
    store.cut(0, 1);
    store.cut(1, 0);
    store.run();
    assert_eq!(pushed(&mut store, tracking), ALL);
    store.mend(0, 1);
    store.mend(1, 0);
    store.run();
    assert!(pushed(&mut store, tracking).contains(ALL));
    store.call(other, &["SET", &there, "1"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&there]));
}

#[test]
fn a_lost_link_makes_clients_forget_what_they_keep() {
    let (mut store, tracking, other) = four(&[]);
    let there = key_of(&store, 1, 0, "key");
    store.call(other, &["SET", &there, "1"]);
    store.call(tracking, &["GET", &there]);
    // The other node cannot say any more that the key has changed.
    store.cut(0, 1);
    store.cut(1, 0);
    store.run();
    assert_eq!(pushed(&mut store, tracking), ALL);
    store.mend(0, 1);
    store.mend(1, 0);
    store.run();
    pushed(&mut store, tracking);
    assert_eq!(store.call(tracking, &["GET", &there]), "$1\r\n1\r\n");
    store.call(other, &["SET", &there, "2"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&there]));
}

#[test]
fn a_takeover_makes_clients_forget_what_they_keep() {
    let replication = Replication { replicas: 1, ..Replication::NONE };
    let settings = Settings { nodes: 3, replication, ..PLAIN };
    let (mut store, tracking, other) = store_with(settings, &[]);
    let there = key_of(&store, 2, 0, "key");
    assert_eq!(store.call(other, &["SET", &there, "1"]), OK);
    assert_eq!(store.call(tracking, &["GET", &there]), "$1\r\n1\r\n");
    store.call(other, &["SET", &there, "2"]);
    assert_eq!(pushed(&mut store, tracking), invalidated(&[&there]));
    store.call(tracking, &["GET", &there]);
    store.kill(2, true);
    let mut told = String::new();
    for _ in 0..200_000 {
        store.step();
        store.now.boot_ns += 100_000;
        told.push_str(&pushed(&mut store, tracking));
        if told.contains(ALL) {
            break;
        }
    }
    assert!(told.contains(ALL), "{told}");
}

#[test]
fn who_led_between_two_configurations_may_have_written() {
    let replication = Replication { replicas: 1, ..Replication::NONE };
    let settings = Settings { nodes: 3, replication, ..PLAIN };
    let (mut store, tracking, _) = store_with(settings, &[]);
    let there = key_of(&store, 2, 0, "key");
    let range = slot_of(there.as_bytes()).range();
    store.call(tracking, &["GET", &there]);
    store.skip_epochs(0, range, 1);
    store.run();
    assert_eq!(pushed(&mut store, tracking), "", "there is none between them");
    store.skip_epochs(0, range, 3);
    store.run();
    assert_eq!(pushed(&mut store, tracking), ALL);
}

#[test]
fn connections_that_are_gone_are_not_remembered_with_the_keys_they_read() {
    let (mut store, first, other) = four(&[]);
    let key = &keys(&store)[0];
    store.call(first, &["GET", key]);
    let mut most = 0u64;
    for _ in 0..500 {
        let client = store.connect(0, 0, PortKind::Client);
        store.call(client, &["HELLO", "3"]);
        store.call(client, &["CLIENT", "TRACKING", "ON"]);
        store.call(client, &["GET", key]);
        store.disconnect(client);
        let info = store.call(other, &["INFO", "stats"]);
        let of = |name: &str| -> u64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|n| n.strip_prefix(':')?.parse().ok()).expect("a number")
        };
        assert_eq!(of("tracking_total_keys"), 1);
        most = most.max(of("tracking_total_items"));
    }
    assert!((10..64).contains(&most), "{most}");
    assert_eq!(store.call(other, &["SET", key, "1"]), OK);
    assert_eq!(pushed(&mut store, first), invalidated(&[key]));
}

#[test]
fn a_table_that_is_full_tells_more_than_it_must() {
    let (mut store, tracking, other) = four(&[]);
    assert_eq!(store.call(other, &["CONFIG", "SET", "tracking-table-max-keys", "2"]), OK);
    let mut told = String::new();
    for i in 0..10 {
        told.push_str(&store.call(tracking, &["GET", &format!("key{i}")]));
        store.run();
        told.push_str(&pushed(&mut store, tracking));
    }
    assert_eq!(told.matches('>').count(), 8, "{told}");
}

#[test]
fn reads_of_a_pipeline_are_never_older_than_what_was_told() {
    let (mut store, tracking, other) = four(&[]);
    let key = key_of(&store, 1, 0, "key");
    for round in 0..200 {
        store.send(tracking, &[command(&["GET", &key]), command(&["GET", &key])].concat());
        store.send(other, &command(&["SET", &key, &format!("{round:03}")]));
        for _ in 0..store.random.below(20) {
            store.step();
        }
    }
    store.run();
    // What the client keeps at the end, doing as it is told, is what is there.
    let received = pushed(&mut store, tracking);
    let (mut kept, mut lines) = (None, received.split("\r\n"));
    while let Some(line) = lines.next() {
        match line {
            "$3" => kept = lines.next(),
            "_" => kept = Some("nothing"),
            ">2" => {
                lines.by_ref().take(4).for_each(drop);
                assert_eq!(lines.next(), Some(key.as_str()));
                kept = None;
            }
            _ => {}
        }
    }
    assert!(kept.is_none_or(|value| value == "199"), "{kept:?} is kept of {key}");
}

#[test]
fn tracking_is_asked_for_in_the_words_of_redis() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let other_bcast = "-ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                       re-enabling it with a different mode.\r\n";
    let other_opt = "-ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                     re-enabling it with a different mode.\r\n";
    let no_caching = "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                      mode enabled\r\n";
    let off =
        "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n";
    for (args, reply) in [
        ("CLIENT TRACKINGINFO", off),
        ("CLIENT GETREDIR", ":-1\r\n"),
        ("CLIENT TRACKING foo", "-ERR syntax error\r\n"),
        ("CLIENT TRACKING OFF foo", "-ERR syntax error\r\n"),
        ("CLIENT TRACKING ON PREFIX a", "-ERR PREFIX option requires BCAST mode to be enabled\r\n"),
        (
            "CLIENT TRACKING ON BCAST OPTIN",
            "-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n",
        ),
        (
            "CLIENT TRACKING ON OPTIN OPTOUT",
            "-ERR You can't specify both OPTIN mode and OPTOUT mode\r\n",
        ),
        (
            "CLIENT TRACKING ON BCAST PREFIX a PREFIX ab",
            "-ERR Prefix 'a' overlaps with another provided prefix 'ab'. Prefixes for a single client must not overlap.\r\n",
        ),
        ("CLIENT CACHING YES", no_caching),
        ("CLIENT TRACKING ON OPTIN NOLOOP", OK),
        ("CLIENT TRACKING ON OPTOUT", other_opt),
        ("CLIENT TRACKING ON BCAST", other_bcast),
        (
            "CLIENT CACHING NO",
            "-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.\r\n",
        ),
        ("CLIENT CACHING x", "-ERR syntax error\r\n"),
        ("CLIENT CACHING YES", OK),
        ("HELLO 3", ""),
        (
            "CLIENT TRACKINGINFO",
            "%3\r\n$5\r\nflags\r\n~3\r\n$2\r\non\r\n$5\r\noptin\r\n$6\r\nnoloop\r\n$8\r\nredirect\r\n:0\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
        ("CLIENT CACHING YES", OK),
        (
            "CLIENT TRACKINGINFO",
            "%3\r\n$5\r\nflags\r\n~4\r\n$2\r\non\r\n$5\r\noptin\r\n$11\r\ncaching-yes\r\n$6\r\nnoloop\r\n$8\r\nredirect\r\n:0\r\n\
             $8\r\nprefixes\r\n*0\r\n",
        ),
        ("CLIENT TRACKING OFF", OK),
        ("CLIENT TRACKING ON BCAST PREFIX ab PREFIX cd", OK),
        (
            "CLIENT TRACKING ON BCAST PREFIX a",
            "-ERR Prefix 'a' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.\r\n",
        ),
        (
            "CLIENT TRACKINGINFO",
            "%3\r\n$5\r\nflags\r\n~2\r\n$2\r\non\r\n$5\r\nbcast\r\n$8\r\nredirect\r\n:0\r\n$8\r\nprefixes\r\n*2\r\n$2\r\nab\r\n$2\r\ncd\r\n",
        ),
        ("CLIENT GETREDIR", ":0\r\n"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let got = store.call(client, &args);
        assert!(reply.is_empty() || got == reply, "{args:?}: {got}");
    }
    assert_eq!(store.call(client, &["RESET"]), "+RESET\r\n");
    assert_eq!(store.call(client, &["CLIENT", "TRACKINGINFO"]), off);
}

/// What a connection that speaks RESP2 hears of what another one keeps.
fn redirected(keys: &[&str]) -> String {
    let one = |key: &&str| {
        let begin = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
        format!("{begin}*1\r\n${}\r\n{key}\r\n", key.len())
    };
    keys.iter().map(one).collect()
}

fn client_id(store: &mut Store, client: usize) -> String {
    store.call(client, &["CLIENT", "ID"]).trim_matches([':', '\r', '\n']).to_owned()
}

#[test]
fn another_connection_of_the_node_is_told_instead() {
    for shard in [0, 1] {
        let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
        let [tracking, other] = [0; 2].map(|_| store.connect(0, 0, PortKind::Client));
        let listener = store.connect(0, shard, PortKind::Client);
        let id = client_id(&mut store, listener);
        store.call(listener, &["SUBSCRIBE", "__redis__:invalidate"]);
        let on = ["CLIENT", "TRACKING", "ON", "REDIRECT", &id];
        assert_eq!(store.call(tracking, &on), OK, "{shard}");
        assert_eq!(store.call(tracking, &["CLIENT", "GETREDIR"]), format!(":{id}\r\n"));
        for key in keys(&store) {
            store.call(tracking, &["GET", &key]);
            store.call(other, &["SET", &key, "1"]);
            assert_eq!(pushed(&mut store, listener), redirected(&[&key]), "{shard}");
            // A pipeline behind the search for the connection keeps its order.
            let pipeline = [&on[..], &["GET", &key], &["PING"]].map(command).concat();
            store.send(tracking, &pipeline);
            store.run();
            assert_eq!(pushed(&mut store, tracking), format!("{OK}$1\r\n1\r\n+PONG\r\n"));
            store.call(other, &["FLUSHALL"]);
            let all = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";
            assert!(pushed(&mut store, listener).contains(all), "{shard}");
        }
        assert_eq!(pushed(&mut store, tracking), "");
        // Who hears RESP3 needs no channel.
        store.call(listener, &["RESET"]);
        store.call(listener, &["HELLO", "3"]);
        let key = &keys(&store)[3];
        store.call(tracking, &["GET", key]);
        store.call(other, &["SET", key, "2"]);
        assert_eq!(pushed(&mut store, listener), invalidated(&[key]), "{shard}");
        assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON"]), OK);
        assert_eq!(store.call(tracking, &["CLIENT", "GETREDIR"]), ":0\r\n");
    }
}

#[test]
fn nobody_is_told_instead_who_is_not_there() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let tracking = store.connect(0, 0, PortKind::Client);
    let elsewhere = store.connect(1, 0, PortKind::Client);
    let id = client_id(&mut store, elsewhere);
    let missing = "-ERR The client ID you want redirect to does not exist\r\n";
    for id in [&id, "0", "123456", "-1", "9223372036854775807"] {
        let on = ["CLIENT", "TRACKING", "ON", "REDIRECT", id];
        assert_eq!(store.call(tracking, &on), missing, "{id}");
        assert_eq!(store.call(tracking, &["CLIENT", "GETREDIR"]), ":-1\r\n");
    }
    let refused = |store: &mut Store, options: &[&str]| {
        let args: Vec<&str> = ["CLIENT", "TRACKING", "ON"].iter().chain(options).copied().collect();
        store.call(tracking, &args)
    };
    assert_eq!(
        refused(&mut store, &["REDIRECT", "x"]),
        "-ERR value is not an integer or out of range\r\n"
    );
    assert_eq!(
        refused(&mut store, &["REDIRECT", "1", "REDIRECT", "1"]),
        "-ERR A client can only redirect to a single other client\r\n"
    );
    assert_eq!(refused(&mut store, &["REDIRECT"]), "-ERR syntax error\r\n");
}

#[test]
fn who_is_gone_is_told_nothing_and_the_one_that_keeps_learns_it() {
    for shard in [0, 1] {
        let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
        let [tracking, other] = [0; 2].map(|_| store.connect(0, 0, PortKind::Client));
        let listener = store.connect(0, shard, PortKind::Client);
        let id = client_id(&mut store, listener);
        store.call(tracking, &["HELLO", "3"]);
        assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON", "REDIRECT", &id]), OK);
        store.call(listener, &["QUIT"]);
        store.disconnect(listener);
        // Its place belongs to somebody else, whom this does not concern.
        let next = store.connect(0, shard, PortKind::Client);
        store.call(next, &["HELLO", "3"]);
        let key = &keys(&store)[2];
        store.call(tracking, &["GET", key]);
        store.call(other, &["SET", key, "1"]);
        let broken = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n");
        assert_eq!(pushed(&mut store, tracking), broken, "{shard}");
        assert_eq!(pushed(&mut store, next), "");
        let info = store.call(tracking, &["CLIENT", "TRACKINGINFO"]);
        assert!(info.contains("broken_redirect"), "{info}");
        let list = store.call(other, &["CLIENT", "LIST"]);
        assert!(list.contains("flags=tR"), "{list}");
        assert_eq!(store.call(tracking, &["CLIENT", "TRACKING", "ON"]), OK);
        let info = store.call(tracking, &["CLIENT", "TRACKINGINFO"]);
        assert!(!info.contains("broken_redirect"), "{info}");
    }
}
