//! DKV.CHECKSUM: what each shard holds of a range, summed up, is the same wherever the range has a copy.

mod store;

use dkv_protocol::ranges::Replication;
use dkv_protocol::slots::slot_of;
use dkv_shard::PortKind;
use std::collections::BTreeMap;
use store::{PLAIN, Random, Settings, Store, key_of};

const RANGES: usize = 256;
const ZERO: &str = "00000000000000000000000000000000";

/// A whole sum.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sum {
    digits: String,
    index: u64,
    keys: u64,
    role: String,
    in_sync: u64,
    slices: u64,
}

/// Goes through a range from slice to slice.
fn sum(store: &mut Store, client: usize, range: usize) -> Sum {
    let range = range.to_string();
    let mut reply = store.call(client, &["DKV.CHECKSUM", &range]);
    for slices in 1.. {
        let lines: Vec<&str> = reply.split("\r\n").collect();
        let number = |at: usize| lines[at][1..].parse::<u64>().expect("a number");
        assert_eq!(lines[0], "*6", "{reply}");
        let (cursor, digits) = (number(1), lines[3].to_owned());
        if cursor == 0 {
            let role = lines[7].to_owned();
            let (index, keys, in_sync) = (number(4), number(5), number(8));
            return Sum { digits, index, keys, role, in_sync, slices };
        }
        reply = store.call(client, &["DKV.CHECKSUM", &range, &cursor.to_string(), &digits]);
    }
    unreachable!("a walk ends")
}

#[test]
fn copies_of_a_range_have_the_same_sum() {
    let replication = Replication { replicas: 1, ..Replication::NONE };
    let mut store = Store::new(Settings { nodes: 3, shards: 2, replication, ..PLAIN });
    store.pass(300);
    let writer = store.connect(0, 0, PortKind::Client);
    let mut random = Random(5);
    for i in 0..400 {
        let (key, value) = (format!("k{}", random.below(200)), format!("v{i}"));
        match i % 5 {
            0 => store.call(writer, &["APPEND", &key, &value]),
            1 => store.call(writer, &["SET", &key, &value, "PX", "90000"]),
            2 => store.call(writer, &["DEL", &key]),
            _ => store.call(writer, &["SET", &key, &value]),
        };
    }
    let keys = store.call(writer, &["DBSIZE"]);
    store.pass(300);
    let mut sums: BTreeMap<usize, Vec<Sum>> = BTreeMap::new();
    for (node, shard) in (0..3).flat_map(|node| (0..2).map(move |shard| (node, shard))) {
        let client = store.connect(node, shard, PortKind::Shard);
        for range in 0..RANGES {
            let sum = sum(&mut store, client, range);
            if sum.role != "none" {
                sums.entry(range).or_default().push(sum);
            }
        }
    }
    let mut led_keys = 0;
    for range in 0..RANGES {
        let [one, other] = &sums[&range][..] else { panic!("range {range}: {:?}", sums[&range]) };
        let mut roles = [one.role.as_str(), other.role.as_str()];
        roles.sort_unstable();
        assert_eq!(roles, ["primary", "replica"], "range {range}");
        let facts = |s: &Sum| (s.digits.clone(), s.index, s.keys, s.in_sync);
        assert_eq!(facts(one), facts(other), "range {range}");
        assert_eq!((one.in_sync, one.digits == ZERO), (2, one.keys == 0), "range {range}");
        led_keys += one.keys;
    }
    assert_eq!(keys, format!(":{led_keys}\r\n"));
}

#[test]
fn a_sum_is_that_of_keys_and_values_and_of_which_expire() {
    let key = "key";
    let range = slot_of(key.as_bytes()).range().0 as usize;
    let of = |requests: &[&[&str]]| {
        let mut store = Store::new(PLAIN);
        let client = store.connect(0, 0, PortKind::Client);
        for request in requests {
            store.call(client, request);
        }
        sum(&mut store, client, range)
    };
    let plain = of(&[&["SET", key, "value"]]);
    let expected = ("primary", 1, 1, 1);
    assert_eq!((plain.role.as_str(), plain.in_sync, plain.keys, plain.slices), expected);
    assert_eq!(of(&[&["SET", key, "value"]]), plain);
    assert_ne!(of(&[&["SET", key, "other"]]).digits, plain.digits);
    let expiring = of(&[&["SET", key, "value", "EX", "100"]]);
    assert_ne!(expiring.digits, plain.digits);
    assert_eq!(of(&[&["SET", key, "value", "EX", "5000"]]), expiring);
    assert_eq!(of(&[]).digits, ZERO);
}

#[test]
fn a_long_range_is_summed_up_in_slices() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let value = "v".repeat(1000);
    let range = slot_of(b"{tag}").range().0 as usize;
    for i in 0..500 {
        store.call(client, &["SET", &format!("{{tag}}{i}"), &value]);
    }
    let whole = sum(&mut store, client, range);
    assert_eq!(whole.keys, 500);
    // Half a megabyte in slices of about 64 KiB, which may be longer by what shares a bucket with their end.
    assert!((4..=9).contains(&whole.slices), "{whole:?}");
    store.call(client, &["SET", "{tag}7", &value]);
    let after = sum(&mut store, client, range);
    assert_eq!(after.index, whole.index + 1);
    assert_ne!(after.digits, whole.digits, "the version counts");
}

#[test]
fn any_port_speaks_of_its_own_shard_alone() {
    let mut store = Store::new(Settings { nodes: 2, ..PLAIN });
    let key = key_of(&store, 0, 0, "k");
    let range = slot_of(key.as_bytes()).range().0 as usize;
    for port in [PortKind::Client, PortKind::Shard] {
        let client = store.connect(1, 0, port);
        if port == PortKind::Client {
            assert_eq!(store.call(client, &["SET", &key, "v"]), "+OK\r\n");
        }
        let there = sum(&mut store, client, range);
        assert_eq!((there.role.as_str(), there.keys, there.digits.as_str()), ("none", 0, ZERO));
        let client = store.connect(0, 0, port);
        let here = sum(&mut store, client, range);
        assert_eq!((here.role.as_str(), here.keys), ("primary", 1));
    }
}

#[test]
fn bad_ranges_cursors_and_sums_are_refused() {
    let range = "-ERR invalid range: a number from 0 to 255 is expected\r\n";
    let cursor = "-ERR invalid cursor\r\n";
    let digits = "-ERR invalid sum: 32 hexadecimal digits are expected\r\n";
    let arity = "-ERR wrong number of arguments for 'dkv.checksum' command\r\n";
    let done = "*6\r\n:0\r\n";
    let cases: &[(&[&str], &str)] = &[
        (&[], arity),
        (&["0", "0"], arity),
        (&["0", "0", ZERO, "0"], arity),
        (&["256"], range),
        (&["-1"], range),
        (&["x"], range),
        (&[""], range),
        (&["18446744073709551616"], range),
        (&["0", "x", ZERO], cursor),
        (&["0", "-1", ZERO], cursor),
        (&["0", "", ZERO], cursor),
        (&["0", "0", "0"], digits),
        (&["0", "0", &ZERO[1..]], digits),
        (&["0", "0", "g0000000000000000000000000000000"], digits),
        (&["0", "0", "+0000000000000000000000000000000"], digits),
        (&["0", "0", ZERO], done),
        (&["255", "18446744073709551615", "FFFFFFFFFFFFFFFFffffffffffffffff"], done),
        (&["255", "281474976710656", ZERO], done),
    ];
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    store.call(client, &["SET", "k", "v"]);
    for (arguments, expected) in cases {
        let request: Vec<&str> = ["dkv.checksum"].iter().chain(*arguments).copied().collect();
        let reply = store.call(client, &request);
        assert!(reply.starts_with(expected), "{arguments:?}: {reply}");
    }
}
