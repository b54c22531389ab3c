//! What a connection is told about itself and about the store, and who is let in: Redis' exact words.

mod store;

use dkv_shard::PortKind;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};
use store::{PLAIN, Settings, Store, command, key_of};

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

fn check(store: &mut Store, client: usize, cases: &[(&[&str], &str)]) {
    for (args, expected) in cases {
        assert_eq!(store.call(client, args), *expected, "{args:?}");
    }
}

fn with_password() -> Store {
    let password = Some(Sha256::digest(b"secret").into());
    Store::new(Settings { password, ..PLAIN })
}

#[test]
fn commands_are_refused_in_the_words_of_redis() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let (long, quoted) = ("a".repeat(200), "a".repeat(128));
    check(
        &mut store,
        client,
        &[
            (&["foo"], "-ERR unknown command 'foo', with args beginning with: \r\n"),
            (
                &["foo", "a", "b"],
                "-ERR unknown command 'foo', with args beginning with: 'a' 'b' \r\n",
            ),
            (
                &["foo", &long, "b"],
                &format!("-ERR unknown command 'foo', with args beginning with: '{quoted}' \r\n"),
            ),
            (&[&long], &format!("-ERR unknown command '{quoted}', with args beginning with: \r\n")),
            (&["get"], "-ERR wrong number of arguments for 'get' command\r\n"),
            (&["mset", "a", "1", "b"], "-ERR wrong number of arguments for 'mset' command\r\n"),
            (&["client"], "-ERR wrong number of arguments for 'client' command\r\n"),
            (&["client", "foo"], "-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"),
            (
                &["client", "MAINT_NOTIFICATIONS", "on"],
                "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
            ),
            (
                &["CLIENT", "SETNAME"],
                "-ERR wrong number of arguments for 'client|setname' command\r\n",
            ),
            (
                &["cluster", "keyslot"],
                "-ERR wrong number of arguments for 'cluster|keyslot' command\r\n",
            ),
            (&["cluster", "foo"], "-ERR unknown subcommand 'foo'. Try CLUSTER HELP.\r\n"),
            (&["lpush"], "-ERR unknown command 'lpush', with args beginning with: \r\n"),
            (
                &["DKV.CLIENTLIST"],
                "-ERR unknown command 'DKV.CLIENTLIST', with args beginning with: \r\n",
            ),
        ],
    );
}

#[test]
fn names_and_small_settings_of_a_connection() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    check(
        &mut store,
        client,
        &[
            (&["CLIENT", "ID"], ":1\r\n"),
            (&["CLIENT", "GETNAME"], "$-1\r\n"),
            (
                &["CLIENT", "SETNAME", "a b"],
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            (
                &["CLIENT", "SETNAME", "a\nb"],
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            (&["CLIENT", "SETNAME", "me"], "+OK\r\n"),
            (&["CLIENT", "GETNAME"], "$2\r\nme\r\n"),
            (&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"], "+OK\r\n"),
            (&["CLIENT", "SETINFO", "lib-ver", "8.0"], "+OK\r\n"),
            (&["CLIENT", "SETINFO", "x", "8.0"], "-ERR Unrecognized option 'x'\r\n"),
            (
                &["CLIENT", "SETINFO", "LIB-NAME", "a b"],
                "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n",
            ),
            (&["SELECT", "0"], "+OK\r\n"),
            (&["SELECT", "1"], "-ERR DB index is out of range\r\n"),
            (&["SELECT", "x"], "-ERR value is not an integer or out of range\r\n"),
            (&["SELECT", "00"], "-ERR value is not an integer or out of range\r\n"),
            (
                &["SELECT", "9223372036854775807"],
                "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
            ),
            (&["READONLY"], "+OK\r\n"),
            (&["READWRITE"], "+OK\r\n"),
            (&["ASKING"], "+OK\r\n"),
        ],
    );
    let list = store.call(client, &["CLIENT", "LIST"]);
    assert!(list.contains("id=1 addr=127.0.0.1:50000 laddr=10.0.0.1:7861 "), "{list}");
    assert!(list.contains(" name=me ") && list.contains(" cmd=client|list "), "{list}");
    assert!(list.ends_with(" resp=2 lib-name=redis-py lib-ver=8.0\n\r\n"), "{list}");
    check(&mut store, client, &[(&["RESET"], "+RESET\r\n"), (&["CLIENT", "GETNAME"], "$-1\r\n")]);
}

#[test]
fn hello_switches_the_protocol_and_refuses_what_it_does_not_know() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let fields = |proto: u8| {
        format!(
            "$6\r\nserver\r\n$3\r\ndkv\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:{proto}\r\n$2\r\nid\r\n:1\r\n\
             $4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
    };
    let (two, three) = (format!("*14\r\n{}", fields(2)), format!("%7\r\n{}", fields(3)));
    check(
        &mut store,
        client,
        &[
            (&["HELLO"], &two),
            (&["HELLO", "4"], "-NOPROTO unsupported protocol version\r\n"),
            (&["HELLO", "x"], "-ERR Protocol version is not an integer or out of range\r\n"),
            (&["HELLO", "3", "auth", "u"], "-ERR Syntax error in HELLO option 'auth'\r\n"),
            (&["HELLO", "3", "foo"], "-ERR Syntax error in HELLO option 'foo'\r\n"),
            (&["GET", "a"], "$-1\r\n"),
            (&["HELLO", "3", "AUTH", "default", "any", "SETNAME", "me"], &three),
            (&["GET", "a"], "_\r\n"),
            (&["CLIENT", "GETNAME"], "$2\r\nme\r\n"),
            (&["HELLO"], &three),
            (&["RESET"], "+RESET\r\n"),
            (&["GET", "a"], "$-1\r\n"),
            (
                &["AUTH", "x"],
                "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?\r\n",
            ),
            (&["AUTH", "u", "p"], WRONGPASS),
            (&["AUTH", "default", "p"], "+OK\r\n"),
            (&["AUTH", "a", "b", "c"], "-ERR syntax error\r\n"),
        ],
    );
}

#[test]
fn nothing_but_who_one_is_can_be_said_before_the_password() {
    let mut store = with_password();
    let client = store.connect(0, 0, PortKind::Client);
    let hello = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
                 <pass> option can be used to authenticate the client and select the RESP protocol version at the same \
                 time\r\n";
    check(
        &mut store,
        client,
        &[
            (&["GET", "a"], NOAUTH),
            (&["GET"], NOAUTH),
            (&["foo"], NOAUTH),
            (&["PING"], NOAUTH),
            (&["CLIENT", "SETNAME", "a"], NOAUTH),
            (&["CLUSTER", "SLOTS"], NOAUTH),
            (&["HELLO", "3"], hello),
            (&["AUTH", "wrong"], WRONGPASS),
            (&["AUTH", "other", "secret"], WRONGPASS),
            (&["HELLO", "3", "AUTH", "default", "wrong"], WRONGPASS),
            (&["RESET"], "+RESET\r\n"),
            (&["AUTH", "secret"], "+OK\r\n"),
            (&["GET", "a"], "$-1\r\n"),
            (&["RESET"], "+RESET\r\n"),
            (&["GET", "a"], NOAUTH),
            (&["AUTH", "default", "secret"], "+OK\r\n"),
            (&["AUTH", "wrong"], WRONGPASS),
            (&["PING"], "+PONG\r\n"),
        ],
    );
    // In one piece: what follows the password is read as a known client's.
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(20_000);
    let pieces: [&[&str]; 4] =
        [&["GET", "a"], &["AUTH", "secret"], &["SET", "a", &value], &["STRLEN", "a"]];
    let all: Vec<u8> = pieces.iter().flat_map(|args| command(args)).collect();
    store.input(client, &all);
    store.run();
    let expected = format!("{NOAUTH}+OK\r\n+OK\r\n:20000\r\n");
    assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected);
}

#[test]
fn a_stranger_costs_little_and_not_for_long() {
    let mut store = with_password();
    for (bytes, text) in [
        (&b"*11\r\n"[..], "unauthenticated multibulk length"),
        (b"*2\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let client = store.connect(0, 0, PortKind::Client);
        store.input(client, bytes);
        store.run();
        let expected = format!("-ERR Protocol error: {text}\r\n");
        assert_eq!(String::from_utf8(store.take(client)).unwrap(), expected);
        assert!(store.clients[client].closed);
    }
    let client = store.connect(0, 0, PortKind::Client);
    store.clients[client].reads = false;
    let gets: Vec<u8> = (0..10_000).flat_map(|_| command(&["GET", "x"])).collect();
    store.send(client, &gets);
    store.run();
    assert!(store.clients[client].cut);
    assert_eq!(store.stats(0, 0).connections_cut.get(), 1);

    let (idle, known) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 0, PortKind::Client));
    assert_eq!(store.call(known, &["AUTH", "secret"]), "+OK\r\n");
    store.now.boot_ns += 10_001_000_000;
    store.background();
    store.run();
    assert!(store.clients[idle].closed && !store.clients[known].closed);
    assert_eq!(store.stats(0, 0).connections.get(), 1);
}

#[test]
fn protected_mode_lets_in_the_own_machine_only() {
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99));
    let own = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut store = Store::new(PLAIN);
    for port in [PortKind::Client, PortKind::Shard] {
        let refusal = store.try_connect(0, 0, port, elsewhere).unwrap_err();
        assert!(refusal.starts_with(b"-DENIED Running in protected mode because "));
        assert!(refusal.ends_with(b"\r\n") && !refusal[..refusal.len() - 2].contains(&b'\n'));
        assert!(store.try_connect(0, 0, port, own).is_ok());
    }
    assert_eq!(store.stats(0, 0).connections_refused.get(), 2);
    let mut open = Store::new(Settings { protected_mode: false, ..PLAIN });
    assert!(open.try_connect(0, 0, PortKind::Client, elsewhere).is_ok());
    let mut locked = with_password();
    assert!(locked.try_connect(0, 0, PortKind::Client, elsewhere).is_ok());
}

#[test]
fn the_clients_of_a_node_are_bounded_over_its_shards() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    store.stats(0, 1).connections.set(9_999);
    let client = store.connect(0, 0, PortKind::Client);
    let refusal = store.try_connect(0, 0, PortKind::Client, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(refusal, Err(b"-ERR max number of clients reached\r\n".to_vec()));
    store.disconnect(client);
    store.connect(0, 0, PortKind::Client);
}

#[test]
fn client_list_names_the_connections_of_all_shards_of_the_node() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let clients: Vec<usize> =
        [(0, 0), (0, 1), (1, 0)].map(|(n, s)| store.connect(n, s, PortKind::Client)).to_vec();
    let lines = |text: &str| text.matches("id=").count();
    assert_eq!(lines(&store.call(clients[0], &["CLIENT", "LIST"])), 2);
    assert_eq!(lines(&store.call(clients[1], &["CLIENT", "LIST"])), 2);
    assert_eq!(lines(&store.call(clients[2], &["CLIENT", "LIST"])), 1);
    let list = store.call(clients[1], &["CLIENT", "LIST", "ID", "1", "3", "77"]);
    assert!(lines(&list) == 1 && list.contains("id=1 "), "{list}");
    assert_eq!(store.call(clients[1], &["CLIENT", "LIST", "TYPE", "pubsub"]), "$0\r\n\r\n");
    check(
        &mut store,
        clients[0],
        &[
            (&["CLIENT", "LIST", "TYPE", "x"], "-ERR Unknown client type 'x'\r\n"),
            (&["CLIENT", "LIST", "ID", "x"], "-ERR Invalid client ID\r\n"),
            (&["CLIENT", "LIST", "x"], "-ERR syntax error\r\n"),
        ],
    );
    store.call(clients[0], &["HELLO", "3"]);
    let list = store.call(clients[0], &["CLIENT", "LIST"]);
    assert!(list.starts_with('=') && lines(&list) == 2 && list.contains("\r\ntxt:id="), "{list}");
}

fn ids(store: &mut Store, client: usize) -> Vec<String> {
    let nodes = store.call(client, &["CLUSTER", "NODES"]);
    let body = nodes.split_once("\r\n").expect("a bulk string").1.trim_end();
    body.lines().map(|line| line[..40].to_string()).collect()
}

#[test]
fn cluster_replies_list_every_shard_as_a_master_of_its_own() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let client = store.connect(1, 1, PortKind::Client);
    let direct = store.connect(1, 1, PortKind::Shard);
    let ids = ids(&mut store, client);
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_hexdigit())));
    let line = |i: usize, ip: &str, port: u16, bus: u16, flags: &str, slots: &str| {
        format!("{} {ip}:{port}@{bus} {flags} - 0 0 7 connected {slots}\n", ids[i])
    };
    let nodes = |myself: [&str; 4]| {
        let text = [
            line(0, "10.0.0.1", 7900, 7811, myself[0], "0-4095"),
            line(1, "10.0.0.1", 7901, 7811, myself[1], "4096-8191"),
            line(2, "10.0.0.2", 7902, 7812, myself[2], "8192-12287"),
            line(3, "10.0.0.2", 7903, 7812, myself[3], "12288-16383"),
        ]
        .concat();
        format!("${}\r\n{text}\r\n", text.len())
    };
    // The client port speaks for the node's first shard, a shard port for its shard.
    let on_client_port = nodes(["master", "master", "myself,master", "master"]);
    let on_shard_port = nodes(["master", "master", "master", "myself,master"]);
    assert_eq!(store.call(client, &["CLUSTER", "NODES"]), on_client_port);
    assert_eq!(store.call(direct, &["CLUSTER", "NODES"]), on_shard_port);
    assert_eq!(store.call(client, &["CLUSTER", "MYID"]), format!("$40\r\n{}\r\n", ids[2]));
    assert_eq!(store.call(direct, &["CLUSTER", "MYID"]), format!("$40\r\n{}\r\n", ids[3]));
    let entry = |i: usize, first: u16, ip: &str, port: u16, meta: &str| {
        let last = first + 4095;
        let id = &ids[i];
        format!(
            "*3\r\n:{first}\r\n:{last}\r\n*4\r\n$8\r\n{ip}\r\n:{port}\r\n$40\r\n{id}\r\n{meta}0\r\n"
        )
    };
    let slots = |meta: &str| {
        format!(
            "*4\r\n{}{}{}{}",
            entry(0, 0, "10.0.0.1", 7900, meta),
            entry(1, 4096, "10.0.0.1", 7901, meta),
            entry(2, 8192, "10.0.0.2", 7902, meta),
            entry(3, 12288, "10.0.0.2", 7903, meta)
        )
    };
    assert_eq!(store.call(direct, &["CLUSTER", "SLOTS"]), slots("*"));
    let shards = store.call(direct, &["CLUSTER", "SHARDS"]);
    let first = format!(
        "*4\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:4095\r\n$5\r\nnodes\r\n*1\r\n*14\r\n$2\r\nid\r\n$40\r\n{}\r\n$4\r\nport\r\n\
         :7900\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$8\r\nendpoint\r\n$8\r\n10.0.0.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
         $18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n$6\r\nonline\r\n",
        ids[0]
    );
    assert!(shards.starts_with(&first), "{shards}");
    let info = store.call(direct, &["CLUSTER", "INFO"]);
    for field in [
        "cluster_state:ok\r\n",
        "cluster_slots_assigned:16384\r\n",
        "cluster_slots_ok:16384\r\n",
        "cluster_known_nodes:4\r\n",
        "cluster_size:4\r\n",
        "cluster_current_epoch:7\r\n",
    ] {
        assert!(info.contains(field), "{info}");
    }
    store.call(direct, &["HELLO", "3"]);
    assert_eq!(store.call(direct, &["CLUSTER", "SLOTS"]), slots("%"));
    let mut restarted = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let client = restarted.connect(0, 0, PortKind::Client);
    assert_eq!(self::ids(&mut restarted, client), ids, "the same at every start");
}

/// What tools of Redis Cluster send to change a cluster, as they send it. The manager does these things here.
const MUTATIONS: [(&str, &[&str]); 14] = [
    ("addslots", &["1", "2"]),
    ("addslotsrange", &["1", "2"]),
    ("bumpepoch", &[]),
    ("delslots", &["1"]),
    ("delslotsrange", &["1", "2"]),
    ("failover", &["TAKEOVER"]),
    ("flushslots", &[]),
    ("forget", &["0123456789abcdef0123456789abcdef01234567"]),
    ("meet", &["1.2.3.4", "1"]),
    ("replicate", &["0123456789abcdef0123456789abcdef01234567"]),
    ("RESET", &["HARD"]),
    ("SaveConfig", &[]),
    ("set-config-epoch", &["1"]),
    ("setslot", &["1", "MIGRATING", "0123456789abcdef0123456789abcdef01234567"]),
];

#[test]
fn slots_are_asked_of_their_owner_through_any_port() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let direct = store.connect(0, 1, PortKind::Shard);
    let key = key_of(&store, 1, 1, "k");
    let slot = dkv_protocol::slots::slot_of(key.as_bytes()).0.to_string();
    assert_eq!(store.call(client, &["CLUSTER", "KEYSLOT", &key]), format!(":{slot}\r\n"));
    assert_eq!(store.call(client, &["SET", &key, "v"]), "+OK\r\n");
    let keys = format!("*1\r\n${}\r\n{key}\r\n", key.len());
    for client in [client, direct] {
        check(
            &mut store,
            client,
            &[
                (&["CLUSTER", "COUNTKEYSINSLOT", &slot], ":1\r\n"),
                (&["CLUSTER", "GETKEYSINSLOT", &slot, "10"], &keys),
                (&["CLUSTER", "GETKEYSINSLOT", &slot, "0"], "*0\r\n"),
                (&["CLUSTER", "COUNTKEYSINSLOT", "0"], ":0\r\n"),
                (&["CLUSTER", "COUNTKEYSINSLOT", "16384"], "-ERR Invalid slot\r\n"),
                (
                    &["CLUSTER", "COUNTKEYSINSLOT", "x"],
                    "-ERR value is not an integer or out of range\r\n",
                ),
                (
                    &["CLUSTER", "GETKEYSINSLOT", "1", "-1"],
                    "-ERR Invalid slot or number of keys\r\n",
                ),
            ],
        );
        for (name, words) in MUTATIONS {
            for arguments in [words, &[]] {
                let command = [&["CLUSTER", name], arguments].concat();
                let refused = store.call(client, &command);
                let begins = format!("-ERR CLUSTER {} is not supported: ", name.to_uppercase());
                assert!(refused.starts_with(&begins), "{command:?}: {refused}");
                assert!(refused.contains("'dkv ") && refused.ends_with("'\r\n"), "{refused}");
            }
        }
    }
}

#[test]
fn a_client_port_speaks_of_the_whole_store_and_a_shard_port_of_its_shard() {
    let mut store = Store::new(Settings { nodes: 2, shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    let ports: Vec<usize> = [(0, 0), (0, 1), (1, 0), (1, 1)]
        .map(|(n, s)| store.connect(n, s, PortKind::Shard))
        .to_vec();
    for i in 0..200 {
        store.call(client, &["SET", &format!("key{i}"), "v"]);
    }
    let number = |text: String| text[1..].trim_end().parse::<u32>().unwrap();
    assert_eq!(store.call(client, &["DBSIZE"]), ":200\r\n");
    let each: Vec<u32> = ports.iter().map(|p| number(store.call(*p, &["DBSIZE"]))).collect();
    assert!(each.iter().sum::<u32>() == 200 && each.iter().all(|n| *n > 10), "{each:?}");
    assert!(store.call(client, &["KEYS", "*"]).starts_with("*200\r\n"));
    assert!(store.call(ports[0], &["KEYS", "*"]).starts_with(&format!("*{}\r\n", each[0])));
    assert!(store.call(client, &["INFO", "keyspace"]).contains("db0:keys=200,expires=0"));
    let own = format!("db0:keys={},", each[3]);
    assert!(store.call(ports[3], &["INFO"]).contains(&own));

    let mut scan = |client: usize| {
        let mut found = std::collections::BTreeSet::new();
        let mut cursor = String::from("0");
        for _ in 0..1000 {
            let reply = store.call(client, &["SCAN", &cursor, "COUNT", "7"]);
            let mut lines = reply.split("\r\n").skip(2);
            cursor = lines.next().unwrap().to_string();
            found.extend(lines.filter(|l| l.starts_with("key")).map(str::to_string));
            if cursor == "0" {
                return found.len();
            }
        }
        panic!("the scan does not end");
    };
    assert_eq!(scan(client), 200);
    assert_eq!(scan(ports[2]), each[2] as usize);
    // Any key is served on either port.
    assert_eq!(
        store.call(ports[1], &["MGET", "key0", "key1", "none"]),
        "*3\r\n$1\r\nv\r\n$1\r\nv\r\n$-1\r\n"
    );
    assert_eq!(store.call(ports[0], &["FLUSHALL"]), "+OK\r\n");
    assert_eq!(store.call(client, &["DBSIZE"]), format!(":{}\r\n", 200 - each[0]));
    assert_eq!(store.call(client, &["FLUSHALL"]), "+OK\r\n");
    assert_eq!(store.call(ports[3], &["DBSIZE"]), ":0\r\n");
}

#[test]
fn keys_expire_in_the_background_and_are_counted() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["SET", "a", "v", "PX", "100"]), "+OK\r\n");
    store.background();
    assert_eq!(store.stats(0, 0).keys_with_expiry.get(), 1);
    store.now.boot_ns += 200_000_000;
    store.now.unix_ms += 200;
    // A sweep goes over the whole table in slices, a little at each call.
    (0..2000).for_each(|_| store.background());
    assert_eq!(store.stats(0, 0).expired.get(), 1);
    assert_eq!(store.stats(0, 0).keys.get(), 0);
    assert_eq!(store.call(client, &["GET", "a"]), "$-1\r\n");
}

/// As redis-server 7.0 does it.
#[test]
fn who_has_said_no_password_is_the_default_user_for_as_long_as_that_needs_none() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let admin = store.connect(0, 0, PortKind::Client);
    let early = store.connect(0, 0, PortKind::Client);
    let set = |store: &mut Store, rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "default"], rules].concat();
        assert_eq!(store.call(admin, &words), "+OK\r\n");
    };
    let pings = |store: &mut Store, client: usize| store.call(client, &["PING"]) == "+PONG\r\n";
    set(&mut store, &["resetpass", ">pw"]);
    let late = store.connect(0, 1, PortKind::Client);
    // Who was there before stays who it was.
    assert!(pings(&mut store, early) && !pings(&mut store, late));
    set(&mut store, &["nopass"]);
    assert!(pings(&mut store, early) && pings(&mut store, late));
    set(&mut store, &["-acl|whoami"]);
    assert!(pings(&mut store, late));
    assert!(store.call(late, &["ACL", "WHOAMI"]).starts_with("-NOPERM"));
    set(&mut store, &["+acl|whoami", "resetpass", ">pw"]);
    assert!(pings(&mut store, early) && !pings(&mut store, late));
    assert!(store.call(late, &["PING"]).starts_with("-NOAUTH"));
    // Who has said it stays, too.
    assert_eq!(store.call(late, &["AUTH", "pw"]), "+OK\r\n");
    set(&mut store, &[">other", "<pw"]);
    assert!(pings(&mut store, late));
    // Who is off is nobody even without a password.
    let reset = store.connect(0, 1, PortKind::Client);
    set(&mut store, &["nopass", "off"]);
    assert!(!pings(&mut store, reset));
    set(&mut store, &["on"]);
    assert!(pings(&mut store, reset));
}
