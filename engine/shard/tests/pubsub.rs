//! Publish and subscribe over the shards of a store: the words of Redis, who gets a message, in which order, and what
//! becomes of those who are slow, gone or cut off.

mod store;

use dkv_protocol::limits::{SUBSCRIBER_OUTPUT_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use dkv_shard::PortKind;
use store::{PLAIN, Random, Settings, Store, command, command_bytes, key_of};

const FOUR: Settings = Settings { nodes: 2, shards: 2, ..PLAIN };

fn check(store: &mut Store, client: usize, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let args: Vec<&str> = line.split(' ').collect();
        let reply = store.call(client, &args).replace("\r\n", "|");
        assert_eq!(reply, *expected, "{line}");
    }
}

/// A connection on every shard.
fn everywhere(store: &mut Store) -> Vec<usize> {
    let addresses: Vec<_> = store.shards.iter().map(|(addr, _)| *addr).collect();
    addresses
        .into_iter()
        .map(|addr| store.connect(addr.node.0, addr.shard.0, PortKind::Client))
        .collect()
}

fn message(channel: &str, payload: &str) -> String {
    String::from_utf8(command(&["message", channel, payload])).expect("text")
}

#[test]
fn a_connection_that_listens_hears_the_words_of_redis() {
    const REFUSED: &str =
        "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context|";
    let refused = |name: &str| format!("-ERR Can't execute '{name}': {REFUSED}");
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    check(
        &mut store,
        client,
        &[
            ("SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command|"),
            ("PUBLISH a", "-ERR wrong number of arguments for 'publish' command|"),
            ("UNSUBSCRIBE", "*3|$11|unsubscribe|$-1|:0|"),
            ("UNSUBSCRIBE x y", "*3|$11|unsubscribe|$1|x|:0|*3|$11|unsubscribe|$1|y|:0|"),
            ("PUNSUBSCRIBE", "*3|$12|punsubscribe|$-1|:0|"),
            ("SUNSUBSCRIBE", "*3|$12|sunsubscribe|$-1|:0|"),
            ("SUNSUBSCRIBE q", "*3|$12|sunsubscribe|$1|q|:0|"),
            (
                "SUBSCRIBE a b a",
                "*3|$9|subscribe|$1|a|:1|*3|$9|subscribe|$1|b|:2|*3|$9|subscribe|$1|a|:2|",
            ),
            ("PSUBSCRIBE p* a", "*3|$10|psubscribe|$2|p*|:3|*3|$10|psubscribe|$1|a|:4|"),
            ("SSUBSCRIBE s", "*3|$10|ssubscribe|$1|s|:1|"),
            ("GET x", &refused("get")),
            ("COMMAND", &refused("command")),
            ("COMMAND COUNT", &refused("command|count")),
            ("PING", "*2|$4|pong|$0||"),
            ("PING hi", "*2|$4|pong|$2|hi|"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command|"),
            ("CLIENT ID", &refused("client|id")),
            ("client foo", "-ERR unknown subcommand 'foo'. Try CLIENT HELP.|"),
            ("FOO", "-ERR unknown command 'FOO', with args beginning with: |"),
            ("GET", "-ERR wrong number of arguments for 'get' command|"),
            ("PUBLISH a hi", &refused("publish")),
            ("MULTI", &refused("multi")),
            (
                "EXEC",
                &format!(
                    "-EXECABORT Transaction discarded because of: Can't execute 'exec': {REFUSED}"
                ),
            ),
            ("PUBSUB numpat", &refused("pubsub|numpat")),
            ("HELLO 3", &refused("hello")),
            ("SSUBSCRIBE a b", "-CROSSSLOT Keys in request don't hash to the same slot|"),
            (
                "SSUBSCRIBE {s}1 {s}2 s",
                "*3|$10|ssubscribe|$4|{s}1|:2|*3|$10|ssubscribe|$4|{s}2|:3|*3|$10|ssubscribe|$1|s|:3|",
            ),
            ("UNSUBSCRIBE a", "*3|$11|unsubscribe|$1|a|:3|"),
            ("UNSUBSCRIBE", "*3|$11|unsubscribe|$1|b|:2|"),
            ("PUNSUBSCRIBE p*", "*3|$12|punsubscribe|$2|p*|:1|"),
            ("PUNSUBSCRIBE", "*3|$12|punsubscribe|$1|a|:0|"),
            ("GET x", &refused("get")),
            (
                "SUNSUBSCRIBE",
                "*3|$12|sunsubscribe|$1|s|:2|*3|$12|sunsubscribe|$4|{s}1|:1|*3|$12|sunsubscribe|$4|{s}2|:0|",
            ),
            ("GET x", "$-1|"),
            ("SUBSCRIBE z", "*3|$9|subscribe|$1|z|:1|"),
            ("RESET", "+RESET|"),
            ("GET x", "$-1|"),
            ("PUBSUB NUMSUB z", "*2|$1|z|:0|"),
        ],
    );
    let long = "x".repeat(1025);
    check(
        &mut store,
        client,
        &[(&format!("PSUBSCRIBE {long}"), "-ERR pattern too long: at most 1024 bytes|")],
    );
    store.send(client, &[command(&["SUBSCRIBE", "z"]), command(&["QUIT"])].concat());
    store.run();
    assert_eq!(store.take(client), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nz\r\n:1\r\n+OK\r\n");
    assert!(store.clients[client].closed);
    assert_eq!(store.stats(0, 0).pubsub_clients.get(), 0);
}

#[test]
fn in_resp3_messages_are_pushes_among_the_replies() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    store.call(client, &["HELLO", "3"]);
    check(
        &mut store,
        client,
        &[
            ("UNSUBSCRIBE", ">3|$11|unsubscribe|_|:0|"),
            ("SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1|"),
            ("PSUBSCRIBE a*", ">3|$10|psubscribe|$2|a*|:2|"),
            ("SSUBSCRIBE s", ">3|$10|ssubscribe|$1|s|:1|"),
            ("GET x", "_|"),
            ("PING", "+PONG|"),
            ("PUBLISH a hi", ">3|$7|message|$1|a|$2|hi|>4|$8|pmessage|$2|a*|$1|a|$2|hi|:2|"),
            ("PUBLISH ab hi", ">4|$8|pmessage|$2|a*|$2|ab|$2|hi|:1|"),
            ("PUBLISH b hi", ":0|"),
            ("SPUBLISH s m", ">3|$8|smessage|$1|s|$1|m|:1|"),
            ("SPUBLISH a m", ":0|"),
            ("PUBSUB CHANNELS", "*1|$1|a|"),
            ("PUBSUB NUMPAT", ":1|"),
            ("PUBSUB SHARDCHANNELS", "*1|$1|s|"),
            ("RESET", "+RESET|"),
            ("PUBLISH a hi", ":0|"),
        ],
    );
}

#[test]
fn pubsub_tells_of_the_whole_store_on_a_client_port_and_of_the_shard_on_its_own() {
    let mut store = Store::new(FOUR);
    let clients = everywhere(&mut store);
    let publisher = store.connect(0, 0, PortKind::Client);
    for (i, client) in clients.iter().enumerate() {
        store.call(*client, &["SUBSCRIBE", "news", &format!("own{i}")]);
        store.call(*client, &["PSUBSCRIBE", "n*", &format!("p{}", i % 2)]);
        store.call(*client, &["SSUBSCRIBE", "shared"]);
    }
    check(
        &mut store,
        publisher,
        &[
            ("PUBSUB CHANNELS", "*5|$4|news|$4|own0|$4|own1|$4|own2|$4|own3|"),
            ("PUBSUB CHANNELS own[12]", "*2|$4|own1|$4|own2|"),
            ("PUBSUB NUMSUB news own3 none", "*6|$4|news|:4|$4|own3|:1|$4|none|:0|"),
            ("PUBSUB NUMSUB", "*0|"),
            ("PUBSUB NUMPAT", ":3|"),
            ("PUBSUB SHARDCHANNELS", "*1|$6|shared|"),
            ("PUBSUB SHARDNUMSUB shared x", "*4|$6|shared|:4|$1|x|:0|"),
            ("PUBSUB FOO", "-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.|"),
            ("PUBSUB NUMPAT x", "-ERR wrong number of arguments for 'pubsub|numpat' command|"),
            (
                "PUBSUB CHANNELS a b",
                "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.|",
            ),
        ],
    );
    let own = store.connect(1, 0, PortKind::Shard);
    check(
        &mut store,
        own,
        &[
            ("PUBSUB CHANNELS", "*2|$4|news|$4|own2|"),
            ("PUBSUB NUMSUB news", "*2|$4|news|:1|"),
            ("PUBSUB NUMPAT", ":2|"),
        ],
    );
    let info = store.call(publisher, &["INFO", "stats"]);
    for field in ["pubsub_channels:4", "pubsub_patterns:4", "pubsubshard_channels:2"] {
        assert!(info.contains(field), "{field} in {info}");
    }
    assert!(store.call(publisher, &["INFO", "clients"]).contains("pubsub_clients:2"));
    let list = store.call(publisher, &["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert_eq!(list.matches("flags=P db=0 sub=2 psub=2 ssub=1 ").count(), 2, "{list}");
    assert_eq!(
        store.call(publisher, &["CLIENT", "LIST", "TYPE", "normal"]).matches("id=").count(),
        1
    );
    // A node that cannot be reached is left out.
    store.cut(0, 1);
    check(
        &mut store,
        publisher,
        &[("PUBSUB NUMSUB news", "*2|$4|news|:2|"), ("PUBSUB NUMPAT", ":3|")],
    );
}

#[test]
fn a_message_reaches_every_subscriber_of_the_store_from_every_shard() {
    let mut store = Store::new(FOUR);
    let (subscribers, publishers) = (everywhere(&mut store), everywhere(&mut store));
    for client in &subscribers {
        store.call(*client, &["SUBSCRIBE", "news"]);
    }
    store.call(subscribers[3], &["PSUBSCRIBE", "n?ws"]);
    store.call(subscribers[2], &["SSUBSCRIBE", "shared"]);
    for (i, publisher) in publishers.iter().enumerate() {
        let payload = i.to_string();
        assert_eq!(store.call(*publisher, &["PUBLISH", "news", &payload]), ":5\r\n");
        for (at, client) in subscribers.iter().enumerate() {
            let mut expected = message("news", &payload);
            if at == 3 {
                expected.push_str(&String::from_utf8_lossy(&command(&[
                    "pmessage", "n?ws", "news", &payload,
                ])));
            }
            assert_eq!(String::from_utf8(store.take(*client)).unwrap(), expected);
        }
        assert_eq!(store.call(*publisher, &["SPUBLISH", "shared", &payload]), ":1\r\n");
        let expected = command(&["smessage", "shared", &payload]);
        assert_eq!(store.take(subscribers[2]), expected);
    }
}

#[test]
fn messages_of_one_connection_arrive_in_their_order_and_all_of_them() {
    for seed in 0..20 {
        let mut store = Store::new(Settings { seed, ..FOUR });
        let (subscribers, publishers) = (everywhere(&mut store), everywhere(&mut store));
        for client in &subscribers {
            store.call(*client, &["SUBSCRIBE", "c"]);
        }
        for (who, publisher) in publishers.iter().enumerate() {
            for i in 0..200 {
                store.send(*publisher, &command(&["PUBLISH", "c", &format!("{who}:{i:03}")]));
            }
        }
        store.run();
        for publisher in &publishers {
            assert_eq!(store.take(*publisher), b":4\r\n".repeat(200), "seed {seed}");
        }
        for client in &subscribers {
            let text = String::from_utf8(store.take(*client)).expect("text");
            let mut next = [0; 4];
            for payload in text.split("\r\n").filter(|line| line.len() == 5 && line.contains(':')) {
                let (who, i) = payload.split_once(':').expect("who and which");
                let who: usize = who.parse().expect("a number");
                assert_eq!(i, format!("{:03}", next[who]), "seed {seed}");
                next[who] += 1;
            }
            assert_eq!(next, [200; 4], "seed {seed}");
        }
    }
}

#[test]
fn what_is_published_after_the_confirmation_is_not_missed() {
    for seed in 0..200 {
        let mut store = Store::new(Settings { seed, ..FOUR });
        let clients = everywhere(&mut store);
        let mut random = Random(seed);
        let (subscriber, publisher) = (clients[random.below(4)], clients[random.below(4)]);
        if subscriber == publisher {
            continue;
        }
        // Others come and go in the same places meanwhile.
        for client in clients.iter().filter(|c| ![subscriber, publisher].contains(c)) {
            for _ in 0..10 {
                store.send(*client, &command(&["SUBSCRIBE", "c", "p*"]));
                store.send(*client, &command(&["UNSUBSCRIBE"]));
            }
        }
        (0..5).for_each(|_| store.send(publisher, &command(&["PUBLISH", "c", "early"])));
        let by_pattern = random.below(2) == 0;
        let what = if by_pattern { ["PSUBSCRIBE", "c*"] } else { ["SUBSCRIBE", "c"] };
        store.send(subscriber, &command(&what));
        while store.clients[subscriber].received.is_empty() {
            assert!(store.step(), "the confirmation comes");
        }
        store.send(publisher, &command(&["PUBLISH", "c", "late"]));
        store.run();
        let text = String::from_utf8(store.take(subscriber)).expect("text");
        assert!(text.ends_with("\r\nlate\r\n"), "seed {seed}: {text}");
    }
}

#[test]
fn who_subscribes_while_the_others_are_being_told_waits_for_their_answer_too() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let clients: Vec<usize> = (0..2).map(|_| store.connect(0, 0, PortKind::Client)).collect();
    store.delivering = false;
    for client in &clients {
        store.send(*client, &command(&["SUBSCRIBE", "c"]));
        store.run();
        assert!(store.take(*client).is_empty(), "the other shard has not answered");
    }
    store.delivering = true;
    store.run();
    let other = store.connect(0, 1, PortKind::Client);
    assert_eq!(store.call(other, &["PUBLISH", "c", "x"]), ":2\r\n");
    for client in &clients {
        let text = String::from_utf8(store.take(*client)).expect("text");
        assert!(text.ends_with(&message("c", "x")) && text.contains("subscribe"), "{text}");
    }
}

#[test]
fn a_message_does_not_overtake_what_its_publisher_wrote() {
    for seed in 0..50 {
        let mut store = Store::new(Settings { seed, ..FOUR });
        let clients = everywhere(&mut store);
        store.call(clients[2], &["HELLO", "3"]);
        store.call(clients[2], &["SUBSCRIBE", "changed"]);
        let key = key_of(&store, 1, 1, "k");
        store.send(clients[0], &command(&["SET", &key, "new"]));
        store.send(clients[0], &command(&["PUBLISH", "changed", &key]));
        store.take(clients[2]);
        while store.clients[clients[2]].received.is_empty() {
            assert!(store.step(), "the message comes");
        }
        store.take(clients[2]);
        assert_eq!(store.call(clients[2], &["GET", &key]), "$3\r\nnew\r\n", "seed {seed}");
    }
}

#[test]
fn shards_without_subscribers_get_no_messages() {
    let mut store = Store::new(FOUR);
    let clients = everywhere(&mut store);
    let forwarded = |store: &Store| store.stats(0, 0).forwarded.get();
    let before = forwarded(&store);
    let publish = |store: &mut Store| store.call(clients[0], &["PUBLISH", "c", "x"]);
    assert_eq!(publish(&mut store), ":0\r\n");
    assert_eq!(forwarded(&store), before);
    store.call(clients[3], &["SUBSCRIBE", "c"]);
    assert_eq!(publish(&mut store), ":1\r\n");
    assert_eq!(forwarded(&store), before + 1);
    store.call(clients[3], &["RESET"]);
    // One message finds nobody, and is the last that is sent.
    (0..10).for_each(|_| assert_eq!(publish(&mut store), ":0\r\n"));
    assert_eq!(forwarded(&store), before + 2);
    // So it is with the channels of shards, also while somebody listens to patterns.
    store.call(clients[3], &["SSUBSCRIBE", "c"]);
    store.call(clients[3], &["PSUBSCRIBE", "x*"]);
    let sharded = |store: &mut Store| store.call(clients[0], &["SPUBLISH", "c", "x"]);
    assert_eq!(sharded(&mut store), ":1\r\n");
    store.call(clients[3], &["SUNSUBSCRIBE"]);
    (0..10).for_each(|_| assert_eq!(sharded(&mut store), ":0\r\n"));
    assert_eq!(forwarded(&store), before + 4);
    store.call(clients[3], &["RESET"]);
    (0..10).for_each(|_| assert_eq!(publish(&mut store), ":0\r\n"));
    let before = forwarded(&store) - 2;
    // So it is with patterns, which may match anything; and with those whose connection is gone.
    store.call(clients[3], &["PSUBSCRIBE", "x*"]);
    assert_eq!(publish(&mut store), ":0\r\n");
    assert_eq!(forwarded(&store), before + 3);
    store.disconnect(clients[3]);
    (0..10).for_each(|_| assert_eq!(publish(&mut store), ":0\r\n"));
    assert_eq!(forwarded(&store), before + 4);
    store.call(clients[2], &["SUBSCRIBE", "c"]);
    assert_eq!(publish(&mut store), ":1\r\n");
}

#[test]
fn a_link_that_is_down_loses_messages_and_counts_them() {
    let mut store = Store::new(FOUR);
    let clients = everywhere(&mut store);
    store.call(clients[1], &["SUBSCRIBE", "c"]);
    store.call(clients[2], &["SUBSCRIBE", "c"]);
    assert_eq!(store.call(clients[0], &["PUBLISH", "c", "1"]), ":2\r\n");
    store.take(clients[2]);
    store.cut(0, 1);
    assert_eq!(store.call(clients[0], &["PUBLISH", "c", "2"]), ":1\r\n");
    assert_eq!(store.stats(0, 0).messages_lost.get(), 1);
    assert!(store.take(clients[2]).is_empty());
    store.mend(0, 1);
    assert_eq!(store.call(clients[0], &["PUBLISH", "c", "3"]), ":2\r\n");
    assert_eq!(store.take(clients[2]), command(&["message", "c", "3"]));
    // Who subscribes while nobody can be told is heard of when the link is back.
    store.cut(1, 0);
    assert_eq!(
        store.call(clients[3], &["SUBSCRIBE", "other"]),
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n"
    );
    store.mend(1, 0);
    store.run();
    assert_eq!(store.call(clients[0], &["PUBLISH", "other", "4"]), ":1\r\n");
    // A link that is lost while a message is on its way leaves no publisher waiting.
    store.delivering = false;
    store.send(clients[0], &command(&["PUBLISH", "c", "5"]));
    store.run();
    store.cut(0, 1);
    store.delivering = true;
    store.run();
    assert_eq!(store.take(clients[0]), b":1\r\n");
    assert_eq!(store.stats(0, 0).messages_lost.get(), 2);
}

#[test]
fn who_is_away_for_long_is_not_counted_for_ever_and_is_asked_when_it_is_back() {
    let mut store = Store::new(FOUR);
    let clients = everywhere(&mut store);
    store.call(clients[2], &["SUBSCRIBE", "c"]);
    store.cut(0, 1);
    let publish = |store: &mut Store| store.call(clients[0], &["PUBLISH", "c", "x"]);
    let lost = |store: &Store| store.stats(0, 0).messages_lost.get();
    assert_eq!((publish(&mut store), lost(&store)), (":0\r\n".into(), 1));
    store.now.boot_ns += 61_000_000_000;
    assert_eq!((publish(&mut store), lost(&store)), (":0\r\n".into(), 1));
    // The other direction stood all the time, so nothing is told unasked.
    store.mend(0, 1);
    store.run();
    assert_eq!((publish(&mut store), lost(&store)), (":1\r\n".into(), 1));
}

#[test]
fn a_slow_subscriber_is_cut_off_and_nobody_else_notices() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let clients: Vec<usize> = (0..3).map(|i| store.connect(0, i % 2, PortKind::Client)).collect();
    store.call(clients[0], &["SUBSCRIBE", "c"]);
    store.call(clients[2], &["SUBSCRIBE", "c"]);
    store.clients[clients[0]].reads = false;
    let payload = vec![b'x'; 1024 * 1024];
    let publish = command_bytes(&[b"PUBLISH", b"c", &payload]);
    let mut got = 0;
    for i in 0..SUBSCRIBER_OUTPUT_BYTES_MAX / payload.len() + 2 {
        store.send(clients[1], &publish);
        store.run();
        let expected = if store.clients[clients[0]].cut { ":1\r\n" } else { ":2\r\n" };
        let reply = String::from_utf8(store.take(clients[1])).expect("text");
        // The one that cuts it off still counts it.
        assert!(reply == expected || reply == ":2\r\n", "message {i}: {reply}");
        got += store.take(clients[2]).len();
    }
    assert!(store.clients[clients[0]].cut);
    assert_eq!(store.stats(0, 0).subscribers_cut.get(), 1);
    assert!(got > SUBSCRIBER_OUTPUT_BYTES_MAX && !store.clients[clients[2]].cut);
    assert_eq!(store.call(clients[1], &["PUBSUB", "NUMSUB", "c"]), "*2\r\n$1\r\nc\r\n:1\r\n");
    // One that has much unread for a minute is cut off too.
    store.clients[clients[2]].reads = false;
    for _ in 0..12 {
        store.send(clients[1], &publish);
        store.run();
    }
    assert!(!store.clients[clients[2]].cut);
    store.now.boot_ns += 61_000_000_000;
    store.call(clients[1], &["PUBLISH", "c", "small"]);
    assert!(store.clients[clients[2]].cut);
}

#[test]
fn a_message_to_thousands_goes_in_steps_and_others_have_their_turn() {
    const MANY: usize = 3000;
    for (from, seed) in [((0, 0), 1), ((1, 0), 2)] {
        let mut store = Store::new(Settings { nodes: 2, seed, ..PLAIN });
        let subscribers: Vec<usize> =
            (0..MANY).map(|_| store.connect(0, 0, PortKind::Client)).collect();
        // All at once: one after the other would take the test long.
        for client in &subscribers {
            store.input(*client, &command(&["SUBSCRIBE", "c"]));
        }
        store.run();
        for client in &subscribers {
            store.take(*client);
        }
        let publisher = store.connect(from.0, from.1, PortKind::Client);
        let pipeline: Vec<u8> =
            (0..3).flat_map(|i| command(&["PUBLISH", "c", &i.to_string()])).collect();
        store.input(publisher, &pipeline);
        if from.0 == 0 {
            let delivered = store.stats(0, 0).delivered.get();
            assert!((1..MANY as u64).contains(&delivered), "{delivered} in one call");
        }
        store.run();
        assert_eq!(store.take(publisher), format!(":{MANY}\r\n").repeat(3).as_bytes());
        let expected: String = (0..3).map(|i| message("c", &i.to_string())).collect();
        for client in &subscribers {
            assert_eq!(store.take(*client), expected.as_bytes());
        }
        // They go all together, and what they leave behind goes in steps.
        for client in &subscribers {
            store.disconnect(*client);
        }
        store.run();
        assert_eq!(store.call(publisher, &["PUBSUB", "NUMSUB", "c"]), "*2\r\n$1\r\nc\r\n:0\r\n");
        assert_eq!(store.stats(0, 0).pubsub_clients.get(), 0);
    }
}

#[test]
fn a_subscriber_whose_own_bytes_are_being_executed_gets_its_message() {
    let mut store = Store::new(PLAIN);
    let (subscriber, publisher) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 0, PortKind::Client));
    store.call(subscriber, &["HELLO", "3"]);
    store.call(subscriber, &["SUBSCRIBE", "c"]);
    let ids = [store.clients[publisher].session, store.clients[subscriber].session];
    let bytes = [command(&["PUBLISH", "c", "x"]), command(&["PING"])];
    let now = store.now;
    store.shards[0].1.inputs(now, &ids, &|i| &bytes[i]);
    store.run();
    assert_eq!(store.take(publisher), b":1\r\n");
    let text = String::from_utf8(store.take(subscriber)).expect("text");
    assert_eq!(text, "+PONG\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n");
}

#[test]
fn many_channels_are_subscribed_and_given_up_in_steps_and_there_is_a_bound() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let names: Vec<String> = (0..20_000).map(|i| format!("c{i:05}")).collect();
    let subscribe: Vec<&str> =
        std::iter::once("SUBSCRIBE").chain(names.iter().map(String::as_str)).collect();
    let reply = store.call(client, &subscribe);
    assert_eq!(reply.matches("subscribe").count(), names.len());
    assert!(reply.ends_with("$6\r\nc19999\r\n:20000\r\n"));
    let other = store.connect(0, 1, PortKind::Client);
    let channels = store.call(other, &["PUBSUB", "CHANNELS", "c1*"]);
    assert!(channels.starts_with("*10000\r\n$6\r\nc10000\r\n"), "{}", &channels[..40]);
    assert_eq!(store.call(other, &["PUBLISH", "c00007", "x"]), ":1\r\n");
    assert_eq!(store.take(client), command(&["message", "c00007", "x"]));
    let reply = store.call(client, &["UNSUBSCRIBE"]);
    assert_eq!(reply.matches("unsubscribe").count(), names.len());
    assert!(reply.ends_with(":0\r\n"));
    // Too many at once are refused, and nothing is done.
    let names: Vec<String> =
        (0..=SUBSCRIPTIONS_PER_CONNECTION_MAX).map(|i| i.to_string()).collect();
    let subscribe: Vec<&str> =
        std::iter::once("SUBSCRIBE").chain(names.iter().map(String::as_str)).collect();
    let reply = store.call(client, &subscribe);
    assert!(reply.starts_with("-ERR a connection subscribes to at most 65536"), "{reply}");
    assert_eq!(store.call(other, &["PUBSUB", "CHANNELS"]), "*0\r\n");
    store.call(client, &subscribe[..5000]);
    assert_eq!(store.call(client, &["RESET"]), "+RESET\r\n");
    assert_eq!(store.call(other, &["PUBSUB", "CHANNELS"]), "*0\r\n");
    let long = "x".repeat(65_537);
    for line in [["SUBSCRIBE", &long, ""], ["PUBLISH", &long, "x"]] {
        let args = &line[..if line[0] == "PUBLISH" { 3 } else { 2 }];
        let reply = store.call(client, args);
        assert!(reply.starts_with("-ERR the name of a channel is longer"), "{reply}");
    }
}

#[test]
fn confirmations_and_messages_come_to_one_that_wants_no_replies() {
    for seed in 0..20 {
        let mut store = Store::new(Settings { seed, ..FOUR });
        let clients = everywhere(&mut store);
        for line in [
            "CLIENT REPLY OFF",
            "GET x",
            "SUBSCRIBE c",
            "GET x",
            "PING",
            "SUBSCRIBE d",
            "UNSUBSCRIBE d",
        ] {
            store.send(clients[0], &command(&line.split(' ').collect::<Vec<_>>()));
        }
        store.run();
        assert_eq!(store.call(clients[3], &["PUBLISH", "c", "x"]), ":1\r\n");
        let text = String::from_utf8(store.take(clients[0])).expect("text").replace("\r\n", "|");
        let expected = "*3|$9|subscribe|$1|c|:1|*3|$9|subscribe|$1|d|:2|*3|$11|unsubscribe|$1|d|:1|\
                        *3|$7|message|$1|c|$1|x|";
        assert_eq!(text, expected, "seed {seed}");
    }
}

#[test]
fn a_transaction_may_subscribe_and_publish() {
    let mut store = Store::new(FOUR);
    let (client, other) =
        (store.connect(0, 0, PortKind::Client), store.connect(1, 1, PortKind::Client));
    store.call(other, &["SUBSCRIBE", "a"]);
    let mut exec = |lines: &[&str]| {
        let lines = std::iter::once(&"MULTI").chain(lines).chain([&"EXEC"]);
        let bytes: Vec<u8> =
            lines.flat_map(|line| command(&line.split(' ').collect::<Vec<_>>())).collect();
        store.send(client, &bytes);
        store.run();
        let text = String::from_utf8(store.take(client)).expect("text").replace("\r\n", "|");
        (text.replace("+OK|", "").replace("+QUEUED|", ""), store.take(other).len())
    };
    let len = command(&["message", "a", "hi"]).len();
    assert_eq!(
        exec(&["SUBSCRIBE a b", "PUBLISH a hi", "GET x", "PING", "UNSUBSCRIBE", "PING"]).0,
        "*6|*3|$9|subscribe|$1|a|:1|*3|$9|subscribe|$1|b|:2|*3|$7|message|$1|a|$2|hi|:2|$-1|*2|$4|pong|$0||\
         *3|$11|unsubscribe|$1|a|:1|*3|$11|unsubscribe|$1|b|:0|+PONG|"
    );
    assert_eq!(exec(&["SET x 1", "PUBLISH a hi", "SPUBLISH x y"]), ("*3|:1|:0|".into(), len));
    let refused = "*2|-ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client|:0|";
    assert_eq!(exec(&["SSUBSCRIBE a", "SPUBLISH a x"]), (refused.into(), 0));
    assert_eq!(exec(&["SET x", "PUBLISH a hi"]).1, 0, "nothing of a transaction that is discarded");
}
