//! redis-rs, the client of Rust programs: the everyday use that the scripts of `tests/clients` make of the others.

use dkv_tests::machine::{Network, kill};
use dkv_tests::roster;
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::{Commands, Connection, ConnectionLike, RedisResult, SetExpiry, SetOptions, pipe};
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

const PATIENCE: std::time::Duration = dkv_tests::machine::PATIENCE;

/// What the steps need and a plain connection does in another way than a cluster's.
trait Kind: Commands + ConnectionLike {
    const NAME: &'static str;
    /// Whether the client has transactions; its blocking cluster connection refuses them itself.
    const TRANSACTIONS: bool;
    /// How all keys are found; its cluster client has no SCAN of all nodes.
    const SCAN: &'static str;
    /// A value of each of the keys, of any slots.
    fn get_many(&mut self, keys: &[String]) -> RedisResult<Vec<Option<String>>>;
    /// SET and GET of each pair without waiting for one reply, and what the GETs brought.
    fn pipeline(&mut self, pairs: &[(String, String)]) -> RedisResult<Vec<String>>;
    /// The keys of the whole store that match.
    fn scan_all(&mut self, pattern: &str) -> HashSet<String>;
}

impl Kind for Connection {
    const NAME: &'static str = "plain";
    const TRANSACTIONS: bool = true;
    const SCAN: &'static str = "scan";

    fn get_many(&mut self, keys: &[String]) -> RedisResult<Vec<Option<String>>> {
        self.mget(keys)
    }

    fn pipeline(&mut self, pairs: &[(String, String)]) -> RedisResult<Vec<String>> {
        let mut all = pipe();
        for (key, value) in pairs {
            all.set(key, value).ignore().get(key);
        }
        all.query(self)
    }

    fn scan_all(&mut self, pattern: &str) -> HashSet<String> {
        let keys: RedisResult<HashSet<String>> = self.scan_match(pattern).expect("SCAN").collect();
        keys.expect("keys")
    }
}

impl Kind for ClusterConnection {
    const NAME: &'static str = "cluster";
    const TRANSACTIONS: bool = false;
    const SCAN: &'static str = "keys";

    fn get_many(&mut self, keys: &[String]) -> RedisResult<Vec<Option<String>>> {
        self.mget(keys)
    }

    fn pipeline(&mut self, pairs: &[(String, String)]) -> RedisResult<Vec<String>> {
        let mut all = cluster_pipe();
        for (key, value) in pairs {
            all.set(key, value).ignore().get(key);
        }
        all.query(self)
    }

    fn scan_all(&mut self, pattern: &str) -> HashSet<String> {
        // It goes to each node.
        self.keys(pattern).expect("KEYS")
    }
}

/// Does the steps, ends the node `pid` in between, and gives the names of the steps. `again` makes a new connection where the
/// client leaves that to the program.
fn everyday<K: Kind>(
    mut client: K,
    pid: u32,
    mut again: impl FnMut(K) -> RedisResult<K>,
) -> Vec<&'static str> {
    let of = |name: &str| format!("{{redis-rs:{}}}:{name}", K::NAME);
    let spread: Vec<String> = (0..200).map(|i| format!("redis-rs:{}:{i}", K::NAME)).collect();
    let client_ref = &mut client;
    let a = of("a");
    assert_eq!(client_ref.set(&a, "1"), Ok("OK".to_owned()));
    assert_eq!(client_ref.get(&a), Ok(1));
    assert_eq!(client_ref.set_nx(&a, "2"), Ok(false));
    assert_eq!(client_ref.append(&a, "x"), Ok(2));
    assert_eq!(client_ref.getrange(&a, 0, 0), Ok("1".to_owned()));
    assert_eq!(client_ref.del(&a), Ok(1));
    assert_eq!(client_ref.get(&a), Ok(None::<String>));
    let mut steps = vec!["strings"];

    assert_eq!(client_ref.incr(of("n"), 41), Ok(41));
    assert_eq!(client_ref.decr(of("n"), 1), Ok(40));
    assert_eq!(client_ref.incr(of("f"), 0.5), Ok(0.5));
    steps.push("counters");

    let pairs: Vec<(String, String)> =
        spread.iter().enumerate().map(|(i, key)| (key.clone(), i.to_string())).collect();
    assert_eq!(client_ref.mset(&pairs), Ok("OK".to_owned()));
    let mut asked = spread.clone();
    asked.push(of("none"));
    let mut wanted: Vec<_> = pairs.iter().map(|(_, value)| Some(value.clone())).collect();
    wanted.push(None);
    assert_eq!(client_ref.get_many(&asked), Ok(wanted));
    steps.push("mget");

    let pairs: Vec<(String, String)> =
        (0..5000).map(|i| (spread[i % 200].clone(), i.to_string())).collect();
    let wanted: Vec<String> = pairs.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(client_ref.pipeline(&pairs), Ok(wanted));
    steps.push("pipeline");

    if K::TRANSACTIONS {
        let t = of("t");
        let mut transaction = pipe();
        transaction.atomic().set(&t, 1).incr(&t, 1).get(&t);
        let got: RedisResult<(String, i64, i64)> = transaction.query(client_ref);
        assert_eq!(got, Ok(("OK".to_owned(), 2, 2)));
        steps.push("transaction");
    }

    let soon = SetOptions::default().with_expiration(SetExpiry::PX(50));
    assert_eq!(client_ref.set_options(of("e"), "x", soon), Ok("OK".to_owned()));
    let deadline = Instant::now() + PATIENCE;
    while client_ref.exists(of("e")) == Ok(true) {
        assert!(Instant::now() < deadline, "a key did not expire");
    }
    assert_eq!(client_ref.expire(of("n"), 1000), Ok(true));
    let ttl: i64 = client_ref.ttl(of("n")).expect("TTL");
    assert!((990..=1000).contains(&ttl), "{ttl}");
    steps.push("expiry");

    let found = client_ref.scan_all(&format!("redis-rs:{}:*", K::NAME));
    assert_eq!(found, spread.iter().cloned().collect());
    steps.push(K::SCAN);

    let large: Vec<u8> =
        (0..9_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(client_ref.set(of("large"), &large), Ok("OK".to_owned()));
    let back: Vec<u8> = client_ref.get(of("large")).expect("GET");
    assert!(back == large);
    assert_eq!(client_ref.strlen(of("large")), Ok(large.len()));
    steps.push("large values");

    let every: Vec<u8> = (0..=255).collect();
    let key = [of("").as_bytes(), &every].concat();
    assert_eq!(client_ref.set(&key, &every), Ok("OK".to_owned()));
    assert_eq!(client_ref.get(&key), Ok(every));
    assert_eq!(client_ref.set(of("empty"), ""), Ok("OK".to_owned()));
    assert_eq!(client_ref.get(of("empty")), Ok(String::new()));
    assert_eq!(client_ref.del(&key), Ok(1));
    steps.push("binary keys");

    kill(pid);
    let wanted: Vec<_> = (4800..5000).map(|i| Some(i.to_string())).collect();
    let deadline = Instant::now() + PATIENCE;
    // Key by key: what its cluster client sends to several nodes at once fails for ever on the dead connection.
    let all = |client: &mut K| {
        let values: RedisResult<Vec<_>> = spread.iter().map(|key| client.get(key)).collect();
        Ok::<(_, String), redis::RedisError>((values?, client.set(of("back"), "1")?))
    };
    let mut got = all(&mut client);
    while let Err(error) = got {
        assert!(Instant::now() < deadline, "not back: {error}");
        client = again(client).expect("a new connection");
        got = all(&mut client);
    }
    assert_eq!(got, Ok((wanted, "OK".to_owned())));
    steps.push("reconnect");
    steps
}

/// The version of redis-rs that this test was built with.
fn version() -> String {
    let lock = std::fs::read_to_string(dkv_tests::machine::workspace().join("Cargo.lock"));
    let lock = lock.expect("Cargo.lock");
    let (_, after) = lock.split_once("name = \"redis\"\nversion = \"").expect("it is a dependency");
    after.split('"').next().expect("a version").to_owned()
}

#[test]
fn redis_rs_plain_and_cluster_work_as_programs_use_them() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine.whole("local");
    let mut ran = BTreeMap::new();
    let pid = machine.node_pid(0);
    let steps = machine.inside(|| {
        let client = redis::Client::open("redis://127.0.0.1:7861").expect("an address");
        let connect = || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match client.get_connection() {
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => std::thread::yield_now(),
                    connection => return connection,
                }
            }
        };
        everyday(connect().expect("a connection"), pid, |_| connect())
    });
    ran.insert("plain", steps);
    machine.whole("local");
    let pid = machine.node_pid(1);
    let steps = machine.inside(|| {
        let client = ClusterClient::new(vec!["redis://127.0.0.1:7862"]).expect("an address");
        everyday(client.get_connection().expect("a connection"), pid, Ok)
    });
    ran.insert("cluster", steps);
    for (kind, steps) in ran {
        roster::holds(&format!("redis-rs {} {kind}: {}", version(), steps.join(", ")));
    }
}
