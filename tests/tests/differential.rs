//! DKV and redis-server give the same replies: some ten thousand commands here, a million with the program of that name.

use dkv_tests::bare::Bare;
use dkv_tests::differential::{Found, acl, listening, run};
use dkv_tests::machine::{Network, dkv, until};
use std::net::{SocketAddr, TcpStream};

fn same(found: &Found, commands: u64) {
    assert!(found.different.is_empty(), "{}", found.different.join("\n"));
    assert!(found.commands >= commands, "{found:?}");
    // Most replies are compared byte for byte.
    assert!(found.allowed * 5 < found.commands, "{found:?}");
}

#[test]
fn one_node_answers_as_redis_does() {
    same(&run(&dkv(), 1, 20_260_101, 15_000, false), 15_000);
    same(&run(&dkv(), 1, 20_260_102, 10_000, true), 10_000);
}

#[test]
fn any_node_of_two_answers_as_redis_does() {
    same(&run(&dkv(), 2, 20_260_103, 10_000, false), 10_000);
    same(&run(&dkv(), 2, 20_260_104, 10_000, true), 10_000);
}

#[test]
fn subscribers_and_publishers_are_answered_as_by_redis() {
    for (nodes, seed, resp3) in [(1, 1, false), (1, 2, true), (2, 3, false), (2, 4, true)] {
        let different = listening::run(&dkv(), nodes, seed, 1500, resp3);
        assert!(different.is_empty(), "{}", different.join("\n"));
    }
}

#[test]
fn users_and_what_they_may_do_are_as_in_redis() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let address = SocketAddr::from(([127, 0, 0, 1], 7861));
    for (seed, resp3) in [(1, false), (2, true)] {
        let stream = machine.inside(|| TcpStream::connect(address).expect("it listens"));
        let different = acl::run(stream, seed, 400, resp3);
        assert!(different.is_empty(), "{}", different.join("\n"));
        for name in ["ann", "bob", "nobody"] {
            machine.redis("127.0.0.1", 7861, &["acl", "deluser", name]);
        }
    }
}

#[test]
fn what_needs_all_its_keys_at_once_takes_those_of_one_slot() {
    let nodes = Bare::store(&dkv(), (0, "noeviction"), 2);
    for node in &nodes {
        let mut client = node.connect();
        until("the nodes find each other", || client.ask("DBSIZE") == "0");
        for line in [
            "RENAME a b",
            "RENAMENX a b",
            "COPY a b",
            "MSETNX a 1 b 2",
            "BITOP OR a a b",
            "LCS a b LEN",
        ] {
            let text = "-CROSSSLOT Keys in request don't hash to the same slot";
            assert_eq!(client.ask(line), text, "{line}");
        }
        // Nothing of them was done, and other numbers of arguments are refused for that.
        assert_eq!(client.ask("DBSIZE"), "0");
        assert!(client.ask("RENAME a").starts_with("-ERR wrong number"));
    }
    let mut client = nodes[0].connect();
    // Keys of both nodes are drawn.
    for i in 0..20 {
        assert_eq!(client.ask(&format!("SET key{i} {i}")), "OK");
    }
    let mut missing: Vec<String> = (0..20).map(|i| format!("key{i}")).collect();
    until("every key was drawn", || {
        let key = client.ask("RANDOMKEY");
        assert!(key.starts_with("key"), "{key}");
        missing.retain(|one| *one != key);
        missing.is_empty()
    });
}
