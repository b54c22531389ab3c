//! Pipelines over a store of several nodes: every reply comes, in order, and is what one map would have answered.

mod store;

use dkv_protocol::limits::REPLIES_BYTES_SOFT_MAX;
use dkv_protocol::resp::value;
use dkv_shard::PortKind;
use std::collections::BTreeMap;
use std::fmt::Write;
use store::{PLAIN, Random, Settings, Store, command, command_bytes};

const NIL: [&str; 2] = ["$-1\r\n", "_\r\n"];

/// A plain map that answers as the store should.
#[derive(Default)]
struct Model {
    map: BTreeMap<String, String>,
    resp3: bool,
}

impl Model {
    fn bulk(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    fn get(&self, key: &str) -> String {
        self.map.get(key).map_or(NIL[usize::from(self.resp3)].to_string(), |v| Self::bulk(v))
    }

    fn answer(&mut self, args: &[String]) -> String {
        let rest = &args[1..];
        match args[0].as_str() {
            "GET" => self.get(&rest[0]),
            "SET" => {
                self.map.insert(rest[0].clone(), rest[1].clone());
                "+OK\r\n".into()
            }
            "DEL" | "UNLINK" => {
                let gone = rest.iter().filter(|k| self.map.remove(*k).is_some()).count();
                format!(":{gone}\r\n")
            }
            "EXISTS" | "TOUCH" => {
                format!(":{}\r\n", rest.iter().filter(|k| self.map.contains_key(*k)).count())
            }
            "MGET" => {
                let mut all = format!("*{}\r\n", rest.len());
                for k in rest {
                    all.push_str(&self.get(k));
                }
                all
            }
            "MSET" => {
                for pair in rest.chunks(2) {
                    self.map.insert(pair[0].clone(), pair[1].clone());
                }
                "+OK\r\n".into()
            }
            "APPEND" => {
                let value = self.map.entry(rest[0].clone()).or_default();
                value.push_str(&rest[1]);
                format!(":{}\r\n", value.len())
            }
            "STRLEN" => format!(":{}\r\n", self.map.get(&rest[0]).map_or(0, String::len)),
            "DBSIZE" => format!(":{}\r\n", self.map.len()),
            "FLUSHALL" => {
                self.map.clear();
                "+OK\r\n".into()
            }
            "PING" => "+PONG\r\n".into(),
            "ECHO" => Self::bulk(&rest[0]),
            "NOSUCH" => "-ERR unknown command 'NOSUCH', with args beginning with: \r\n".into(),
            "HELLO" => {
                self.resp3 = rest[0] == "3";
                String::new()
            }
            other => panic!("the model does not know {other}"),
        }
    }
}

/// With `great`, some values are of the lengths at which values are received and kept in another way.
fn random_command(random: &mut Random, great: bool) -> Vec<String> {
    let key = |random: &mut Random| format!("k{}", random.below(40));
    let text = |random: &mut Random| {
        let most = if great && random.below(8) == 0 { 50_000 } else { 60 };
        ["x", "y", "z"][random.below(3)].repeat(random.below(most))
    };
    let mut args: Vec<String> = Vec::new();
    match random.below(40) {
        0..10 => args.extend(["GET".into(), key(random)]),
        10..20 => args.extend(["SET".into(), key(random), text(random)]),
        20..26 => {
            let name = ["DEL", "UNLINK", "EXISTS", "TOUCH", "MGET", "MGET"][random.below(6)];
            args.push(name.into());
            (0..=random.below(6)).for_each(|_| args.push(key(random)));
        }
        26..30 => {
            args.push("MSET".into());
            for _ in 0..=random.below(5) {
                args.extend([key(random), text(random)]);
            }
        }
        30..33 => args.extend(["APPEND".into(), key(random), text(random)]),
        33 => args.extend(["STRLEN".into(), key(random)]),
        34 | 35 => args.push("DBSIZE".into()),
        36 => args.push("PING".into()),
        37 => args.extend(["ECHO".into(), text(random)]),
        38 => args.push("NOSUCH".into()),
        _ if random.below(8) == 0 => args.push("FLUSHALL".into()),
        _ => args.push("PING".into()),
    }
    args
}

#[test]
fn random_pipelines_through_any_shard_answer_as_one_map() {
    let mut forwarded = 0;
    for seed in 0..40 {
        let nodes = 1 + (seed % 3) as u16;
        let shards = 1 + (seed % 2) as u16;
        let mut store = Store::new(Settings { nodes, shards, seed, ..PLAIN });
        let mut random = Random(seed ^ 0xabcd);
        let mut model = Model::default();
        for round in 0..6 {
            let node = random.below(nodes as usize) as u16;
            let shard = random.below(shards as usize) as u16;
            let client = store.connect(node, shard, PortKind::Client);
            model.resp3 = round % 2 == 1;
            if model.resp3 {
                assert!(store.call(client, &["HELLO", "3"]).starts_with("%7\r\n"));
            }
            let mut expected = String::new();
            let mut log = String::new();
            for _ in 0..=random.below(200) {
                let args = random_command(&mut random, seed % 4 == 3);
                let parts: Vec<&str> = args.iter().map(String::as_str).collect();
                store.send(client, &command(&parts));
                let reply = model.answer(&args);
                let _ = writeln!(log, "{parts:?} => {reply:?}");
                expected.push_str(&reply);
            }
            store.run();
            let received = String::from_utf8(store.take(client)).unwrap();
            assert!(
                received == expected,
                "seed {seed} round {round}\n{}",
                if seed % 4 == 3 { String::new() } else { format!("{log}\ngot {received:?}") }
            );
            store.disconnect(client);
        }
        forwarded += (0..nodes)
            .flat_map(|n| (0..shards).map(move |s| (n, s)))
            .map(|(n, s)| store.stats(n, s).forwarded.get())
            .sum::<u64>();
    }
    assert!(forwarded > 1000, "the test must have looked at forwarded commands: {forwarded}");
}

#[test]
fn a_large_value_is_kept_where_it_was_received_and_sent_from_there() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let great = "0123456789".repeat(100_000);
    let small = "y".repeat(100);
    for args in [
        &["SET", "a", &great, "EX", "100"][..],
        &["MSET", "b", &small, "c", &great, "d", &great],
        &["SET", "n", &great, "NX"],
        &["SET", "n", &small, "NX"],
        &["APPEND", "c", "tail"],
        &["APPEND", "e", &great],
    ] {
        store.send(client, &command(args));
    }
    store.run();
    assert_eq!(store.take(client), b"+OK\r\n+OK\r\n+OK\r\n$-1\r\n:1000004\r\n:1000000\r\n");
    // All but what came with the first bytes of each.
    assert!(store.expected > 5 * great.len() - 5 * 8192, "{}", store.expected);
    let whole = Model::bulk(&great);
    let longer = Model::bulk(&format!("{great}tail"));
    for (args, reply) in [
        (&["GET", "a"][..], whole.clone()),
        (&["GETEX", "a", "PERSIST"], whole.clone()),
        (&["GETDEL", "a"], whole.clone()),
        (&["GET", "a"], NIL[0].to_string()),
        (&["MGET", "b", "c", "x", "d"], {
            format!("*4\r\n{}{longer}{}{whole}", Model::bulk(&small), NIL[0])
        }),
        (&["STRLEN", "e"], format!(":{}\r\n", great.len())),
    ] {
        assert!(store.call(client, args) == reply, "{args:?}");
    }
    assert_eq!(store.inserted, 5 * great.len() + "tail".len());
    // Sent late, it is what it was when it was asked for.
    store.clients[client].reads = false;
    store.send(client, &command(&["GET", "c"]));
    store.send(client, &command(&["APPEND", "c", "more"]));
    store.send(client, &command(&["SET", "c", "other"]));
    store.send(client, &command(&["GET", "c"]));
    store.run();
    store.clients[client].reads = true;
    store.run();
    let received = String::from_utf8(store.take(client)).unwrap();
    assert!(received == format!("{longer}:1000008\r\n+OK\r\n$5\r\nother\r\n"));
}

#[test]
fn a_large_value_whose_command_must_wait_is_not_lost() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let million = "m".repeat(1_000_000);
    assert_eq!(store.call(client, &["SET", "a", &million]), "+OK\r\n");
    store.clients[client].reads = false;
    // The last of these is the first with which the connection has too much to read.
    let gets = dkv_protocol::limits::OUTPUT_BYTES_MAX / million.len() + 1;
    (0..gets).for_each(|_| store.send(client, &command(&["GET", "a"])));
    let great = "g".repeat(50_000);
    store.send(client, &command(&["MSET", "b", &great, "c", "1", "d", &million]));
    store.send(client, &command(&["STRLEN", "b"]));
    store.run();
    assert_eq!(store.clients[client].pauses, 1, "it waits");
    store.clients[client].reads = true;
    store.run();
    let received = store.take(client);
    assert!(received.ends_with(b"m\r\n+OK\r\n:50000\r\n"));
    assert_eq!(store.call(client, &["STRLEN", "d"]), ":1000000\r\n");
}

#[test]
fn a_large_value_may_be_cut_anywhere_and_given_up() {
    let great = "v".repeat(40_000);
    let mut request = command(&["SET", "a", &great, "PX", "100000"]);
    request.extend(command(&["STRLEN", "a"]));
    for at in (1..request.len()).step_by(997).chain(request.len() - 60..request.len()) {
        let mut store = Store::new(PLAIN);
        let client = store.connect(0, 0, PortKind::Client);
        store.input(client, &request[..at]);
        store.input(client, &request[at..]);
        store.run();
        assert_eq!(store.take(client), b"+OK\r\n:40000\r\n", "cut at {at}");
        // Another stops in the middle; a third says something else where the end should be.
        let other = store.connect(0, 0, PortKind::Client);
        store.input(other, &request[..at.min(20_000)]);
        store.disconnect(other);
        let wrong = store.connect(0, 0, PortKind::Client);
        let end = request.iter().rposition(|b| *b == b'v').expect("the value") + 1;
        store.input(wrong, &request[..end]);
        store.input(wrong, b"xx");
        store.run();
        assert_eq!(store.take(wrong), b"-ERR Protocol error: expected CRLF after bulk\r\n");
        assert_eq!(store.call(client, &["DBSIZE"]), ":1\r\n");
    }
}

#[test]
fn input_split_at_every_byte_gives_the_same_output() {
    let mut request = Vec::new();
    let big = "v".repeat(100);
    for args in [
        &["SET", "a", "1"][..],
        &["SET", "b", &big],
        &["MGET", "a", "b", "c"],
        &["NOSUCH", "x y"],
        &["GET"],
        &["DBSIZE"],
        &["CLIENT", "ID"],
    ] {
        request.extend(command(args));
    }
    request.extend_from_slice(b"\r\nPING\r\nECHO \"a b\\x41\"\r\n*0\r\n*-1\r\nGET a\r\n");
    let output = |pieces: &[&[u8]]| {
        let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
        let client = store.connect(0, 0, PortKind::Client);
        for piece in pieces {
            store.input(client, piece);
        }
        store.run();
        store.take(client)
    };
    let whole = output(&[&request]);
    assert_eq!(String::from_utf8_lossy(&whole).matches("PONG").count(), 1);
    assert!(
        whole.ends_with(b"$3\r\na bA\r\n$1\r\n1\r\n".as_slice())
            || whole.ends_with(b"$4\r\na bA\r\n$1\r\n1\r\n")
    );
    for at in 1..request.len() {
        assert_eq!(output(&[&request[..at], &request[at..]]), whole, "split at {at}");
    }
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(output(&bytes), whole);
}

#[test]
fn many_clients_at_once_each_get_their_own_replies_in_order() {
    for seed in 0..10 {
        let mut store = Store::new(Settings { nodes: 2, shards: 2, seed, ..PLAIN });
        let clients: Vec<usize> = (0..12)
            .map(|i| {
                store.connect(i % 2, i / 2 % 2, [PortKind::Client, PortKind::Shard][i as usize % 2])
            })
            .collect();
        for round in 0..50 {
            for client in &clients {
                let (key, value) =
                    (format!("c{client}:{}", round % 7), format!("{client}-{round}"));
                store.send(*client, &command(&["SET", &key, &value]));
                store.send(*client, &command(&["GET", &key]));
            }
            store.step();
        }
        store.run();
        for client in &clients {
            let mut expected = String::new();
            for round in 0..50 {
                let value = format!("{client}-{round}");
                let _ = write!(expected, "+OK\r\n${}\r\n{value}\r\n", value.len());
            }
            assert_eq!(String::from_utf8(store.take(*client)).unwrap(), expected);
        }
    }
}

#[test]
fn hostile_bytes_close_their_connection_and_disturb_nobody() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let good = store.connect(0, 0, PortKind::Client);
    for (bytes, text) in [
        (&b"*1000000000000\r\n"[..], "invalid multibulk length"),
        (b"*abc\r\n", "invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\nxPING", "expected '$', got 'x'"),
        (b"SET a \"b\r\n", "unbalanced quotes in request"),
    ] {
        let client = store.connect(0, 0, PortKind::Client);
        store.input(client, b"PING\r\n");
        store.input(client, bytes);
        store.input(client, b"PING\r\n");
        store.run();
        let expected = format!("+PONG\r\n-ERR Protocol error: {text}\r\n");
        assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected);
        assert!(store.clients[client].closed);
        assert_eq!(store.call(good, &["PING"]), "+PONG\r\n");
    }
    let client = store.connect(0, 0, PortKind::Client);
    store.input(client, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    store.run();
    assert!(store.clients[client].closed && store.take(client).is_empty());

    let mut random = Random(9);
    for _ in 0..2000 {
        let client = store.connect(0, 0, PortKind::Client);
        let alphabet = b"*$\r\n0123-xSETGMD \"'\\{}\x00\xff";
        let bytes: Vec<u8> =
            (0..random.below(80)).map(|_| alphabet[random.below(alphabet.len())]).collect();
        store.input(client, &bytes);
        store.run();
        let received = store.take(client);
        let mut rest = &received[..];
        while !rest.is_empty() {
            let len = value::skip(rest).unwrap().expect("whole replies only");
            rest = &rest[len..];
        }
        if !store.clients[client].closed {
            store.disconnect(client);
        }
    }
    assert_eq!(store.call(good, &["PING"]), "+PONG\r\n");
    assert_eq!(store.stats(0, 0).connections.get(), 1);
}

#[test]
fn keys_and_values_are_any_bytes_and_too_long_a_key_is_an_error() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    for key in [&b""[..], b"\x00", b"a\r\nb", b"\xff\xfe", b"{", b"{}"] {
        store.send(client, &command_bytes(&[b"SET", key, b"\r\n\x00"]));
        store.send(client, &command_bytes(&[b"GET", key]));
        store.run();
        assert_eq!(store.take(client), b"+OK\r\n$3\r\n\r\n\x00\r\n");
    }
    let long = "k".repeat(65537);
    for args in [&["GET", &long][..], &["MGET", "a", &long], &["MSET", &long, "v", "a", "v"]] {
        assert!(store.call(client, args).starts_with("-ERR key is longer than 65536 bytes"));
    }
    let longest = "k".repeat(65536);
    assert_eq!(store.call(client, &["SET", &longest, "v"]), "+OK\r\n");
}

#[test]
fn a_quit_is_answered_after_what_came_before_it_and_ends_the_connection() {
    let mut store = Store::new(Settings { nodes: 3, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let keys: Vec<String> = (0..3).map(|n| store::key_of(&store, n, 0, "k")).collect();
    for key in &keys {
        store.send(client, &command(&["GET", key]));
    }
    store.send(client, b"QUIT\r\nPING\r\n");
    store.run();
    assert_eq!(store.take(client), b"$-1\r\n$-1\r\n$-1\r\n+OK\r\n");
    assert!(store.clients[client].closed);
}

#[test]
fn great_replies_travel_in_batches_that_are_bounded_whatever_was_asked_at_once() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let key = store::key_of(&store, 1, 0, "k");
    let value = "v".repeat(400_000);
    assert_eq!(store.call(client, &["SET", &key, &value]), "+OK\r\n");
    for n in 0..40 {
        store.send(client, &command(&["GET", &key]));
        store.send(client, &command(&["SETRANGE", &key, "0"]));
        store.send(client, &command(&["APPEND", &key, if n % 2 == 0 { "a" } else { "b" }]));
    }
    store.run();
    let received = String::from_utf8(store.take(client)).unwrap();
    let mut expected = String::new();
    let mut now = value;
    for n in 0..40 {
        let _ = write!(expected, "${}\r\n{now}\r\n", now.len());
        expected.push_str(&store.call(client, &["SETRANGE", &key, "0"]));
        now.push(if n % 2 == 0 { 'a' } else { 'b' });
        let _ = write!(expected, ":{}\r\n", now.len());
    }
    assert!(received == expected, "replies are out of order");
    assert!(store.longest_replies < REPLIES_BYTES_SOFT_MAX + 500_000, "{}", store.longest_replies);
}

#[test]
fn those_who_read_nothing_are_cut_when_all_have_too_much_to_read() {
    let mut store = Store::new(PLAIN);
    let writer = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(40 << 20);
    assert_eq!(store.call(writer, &["SET", "k", &value]), "+OK\r\n");
    // Each alone is within its bound and asks for nothing more.
    let clients: Vec<usize> = (0..9).map(|_| store.connect(0, 0, PortKind::Client)).collect();
    for client in &clients {
        store.clients[*client].reads = false;
        store.send(*client, &command(&["GET", "k"]));
    }
    store.run();
    store.now.boot_ns += 9_000_000_000;
    store.background();
    store.run();
    assert!(clients.iter().all(|c| !store.clients[*c].cut), "they have the time to read");
    store.clients[clients[0]].reads = true;
    store.run();
    assert_eq!(store.take(clients[0]).len(), value.len() + 13);
    assert_eq!(store.call(clients[0], &["GET", "k"]).len(), value.len() + 13);
    store.now.boot_ns += 60_000_000_000;
    store.background();
    store.run();
    assert!(clients[1..].iter().all(|c| store.clients[*c].cut || store.clients[*c].closed));
    assert_eq!(store.call(clients[0], &["PING"]), "+PONG\r\n");
}
