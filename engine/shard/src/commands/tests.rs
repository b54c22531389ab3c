//! The commands against their exact replies, written as data (`cases/*.txt`), and against a plain map.
//!
//! A line of a case file is a request, ` => `, and the bytes of its reply with `|` for CR LF. A line that starts with
//! `==` begins a fresh shard; `@` lines change what surrounds the requests: the protocol, the port, the clocks.

use super::scan::{WALK_REQUEST, is_pattern, step_of};
use super::{fits, internal, lookup, unknown, wrong_arity};
use crate::command::{Args, Env, Exec, Handler, Now, ProcessStats};
use crate::stats::ShardStats;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_protocol::resp::{Proto, reply};
use dkv_table::{HeapMemory, Options, Table};
use std::{format, vec};

/// Milliseconds of calendar time at which every shard of these tests begins.
const UNIX_MS: u64 = 1_700_000_000_000;
/// Milliseconds since the machine's start at which every shard of these tests begins.
const BOOT_MS: u64 = 100_000_000;

/// One shard without sessions: what executes a request.
pub(super) struct Bench {
    table: Table,
    env: Env,
    me: ShardAddr,
    pub(super) now: Now,
    pub(super) proto: Proto,
    pub(super) whole_store: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(1, 1, 0)
    }

    /// A shard of a store of so many nodes with so many shards each: the first of the first.
    fn with(nodes: u16, shards: u16, memory_bytes_max: u64) -> Self {
        let nodes = (0..nodes)
            .map(|i| NodeInfo {
                name: format!("node{}", i + 1),
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
                cluster_port: 7811 + i,
                client_port: 7861 + i,
                shard_ports: (0..shards).map(|s| 7900 + i * shards + s).collect(),
            })
            .collect();
        let env = Env {
            store: "test".to_string(),
            store_id: "0123456789abcdef0123456789abcdef".to_string(),
            node: "node1".to_string(),
            run_id: "0123456789abcdef0123456789abcdef01234567".to_string(),
            pid: 4711,
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            client_port: 7861,
            started_boot_ms: BOOT_MS - 90_000_000,
            map: Arc::new(StoreMap::spread(nodes, Epoch(1))),
            password_sha256: None,
            protected_mode: true,
            settings: crate::settings::Settings::new(memory_bytes_max, Eviction::None),
            clock: || 0,
            random: |bytes| {
                bytes.fill(7);
                true
            },
            io: "test".to_string(),
            stats: (0..shards).map(|_| Arc::new(ShardStats::default())).collect(),
            process: ProcessStats::default(),
        };
        Self {
            table: Table::new(
                Options {
                    seed: [1, 2],
                    memory_bytes_max,
                    eviction: dkv_table::Eviction::None,
                    first_version: 1 << 16,
                },
                alloc::boxed::Box::new(HeapMemory),
            ),
            env,
            me: ShardAddr { node: NodeIndex(0), shard: ShardIndex(0) },
            now: Now { boot_ns: BOOT_MS * 1_000_000, unix_ms: UNIX_MS },
            proto: Proto::Resp2,
            whole_store: true,
        }
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.now.boot_ns += ms * 1_000_000;
        self.now.unix_ms += ms;
    }

    /// The reply to a request.
    pub(super) fn run(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let (bytes, spans) = packed(words);
        let args = Args::new(&bytes, &spans);
        let mut out = Vec::new();
        match internal(words[0]).or_else(|| lookup(words[0])) {
            None => unknown(args, &mut out),
            Some(spec) if !fits(spec, args.len()) => wrong_arity(spec.name, &mut out),
            Some(spec) if spec.name == "KEYS" => self.keys(words[1], &mut out),
            Some(spec) => self.handle(spec.handler, args, &mut out),
        }
        out
    }

    /// KEYS as the session drives it, in a store of one shard.
    fn keys(&mut self, pattern: &[u8], out: &mut Vec<u8>) {
        if !is_pattern(pattern, out) {
            return;
        }
        let (mut cursor, mut count, mut keys) = (0, 0, Vec::new());
        loop {
            let step = self.run(&[WALK_REQUEST, cursor.to_string().as_bytes(), pattern]);
            let (next, found, elements) = step_of(&step).expect("a step");
            count += found;
            keys.extend_from_slice(elements);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        reply::array(out, count);
        out.append(&mut keys);
    }

    fn handle(&mut self, handler: Handler, args: Args<'_>, out: &mut Vec<u8>) {
        let stats = Arc::clone(&self.env.stats[0]);
        let mut exec = Exec {
            now: self.now,
            table: &mut self.table,
            env: &self.env,
            me: self.me,
            whole_store: self.whole_store,
            proto: self.proto,
            stats: &stats,
            place: None,
            inserts: None,
            gates: None,
        };
        handler(&mut exec, args, out);
    }

    /// The reply to a request of words without spaces, with `|` for CR LF.
    pub(super) fn say(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        shown(&self.run(&words))
    }
}

fn hex_digits(byte: u8) -> impl Iterator<Item = char> {
    [byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16))
}

/// Words as a request holds them: their bytes, and where each lies in them.
fn packed(words: &[&[u8]]) -> (Vec<u8>, Vec<(u32, u32)>) {
    let mut bytes = Vec::new();
    let mut spans = Vec::new();
    for word in words {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(word);
        spans.push((start, bytes.len() as u32));
    }
    (bytes, spans)
}

/// Bytes of a reply as the case files write them.
fn shown(reply: &[u8]) -> String {
    let mut text = String::new();
    for byte in reply {
        match byte {
            b'\r' => {}
            b'\n' => text.push('|'),
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(*byte as char),
            other => text.extend(['\\', 'x'].into_iter().chain(hex_digits(*other))),
        }
    }
    text
}

/// The words of a request line: parted by spaces, in quotes where they contain some, with `\xNN` for any byte and
/// `{c*n}` for n times the letter c.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = vec![];
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut rest = line.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, rest) {
            (b'"', _) => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            (b' ', _) if !quoted => words.extend(word.take()),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal") as u8;
                word.get_or_insert_default().push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (b'{', [letter, b'*', after @ ..]) => {
                let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
                let times = core::str::from_utf8(&after[..digits]).expect("digits");
                let times = times.parse().expect("a number of times");
                word.get_or_insert_default().extend(core::iter::repeat_n(*letter, times));
                rest = &after[digits + 1..];
            }
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// Runs a case file; every line that differs is told.
fn check(name: &str, cases: &str) {
    let mut bench = Bench::new();
    let mut title = "";
    let mut checked = 0;
    let mut wrong = vec![];
    for (at, line) in cases.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(text) = line.strip_prefix("==") {
            title = text.trim();
            bench = Bench::new();
            continue;
        }
        if let Some(order) = line.strip_prefix('@') {
            let (order, number) = order.split_once(' ').unwrap_or((order, "0"));
            let number: u64 = number.parse().expect("a number");
            match order {
                "resp2" => bench.proto = Proto::Resp2,
                "resp3" => bench.proto = Proto::Resp3,
                "shard-port" => bench.whole_store = false,
                "client-port" => bench.whole_store = true,
                "pass-ms" => bench.pass_ms(number),
                "set-wall-clock-ms" => bench.now.unix_ms = number,
                "memory-limit" => bench = Bench::with(1, 1, number),
                "nodes" => bench = Bench::with(number as u16, 1, 0),
                _ => panic!("{name}:{}: no such order", at + 1),
            }
            continue;
        }
        let (request, expected) = line.split_once(" => ").expect("a request and its reply");
        let request = words(request);
        let reply = bench.run(&request.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let reply = shown(&reply);
        checked += 1;
        if reply != expected.trim() {
            wrong.push(format!("{name}:{} ({title})\n  {line}\n  got {reply}", at + 1));
        }
    }
    assert!(checked > 10, "{name}: nothing was checked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! case_files {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            check($file, include_str!(concat!("cases/", $file)));
        })*
    };
}

case_files! {
    strings_answer_as_redis_does: "strings.txt",
    parts_of_strings_answer_as_redis_does: "substrings.txt",
    bits_answer_as_redis_does: "bits.txt",
    names_and_dumps_answer_as_redis_does: "naming.txt",
    counters_answer_as_redis_does: "counters.txt",
    keys_answer_as_redis_does: "keys.txt",
    expiry_answers_as_redis_does: "expiry.txt",
    scans_answer_as_redis_does: "scan.txt",
    introspection_answers_as_redis_does: "introspection.txt",
}

#[test]
fn commands_are_found_whatever_their_case() {
    for spec in super::all() {
        let lower = spec.name.to_ascii_lowercase();
        let mixed: String = (spec.name.char_indices())
            .map(|(i, c)| if i % 2 == 0 { c.to_ascii_lowercase() } else { c })
            .collect();
        for name in [spec.name, &lower, &mixed] {
            assert_eq!(lookup(name.as_bytes()).map(|s| s.name), Some(spec.name));
        }
        for other in
            [format!("{}X", spec.name), format!("X{}", spec.name), spec.name[1..].to_string()]
        {
            assert!(lookup(other.as_bytes()).is_none_or(|s| s.name == other), "{other}");
        }
    }
    for name in ["", "G", "GE", "GET\0", "GET ", "DKV.KEYSPACE", "DKV", &"A".repeat(100_000)] {
        assert!(lookup(name.as_bytes()).is_none(), "{name:.20}");
    }
    // The dot shares all but its case bit with another byte.
    assert!(lookup(b"DKV\x0eGETV").is_none());
}

#[test]
fn facts_about_commands_are_consistent() {
    for spec in super::all() {
        assert!(spec.name.len() <= super::NAME_BYTES_MAX, "{}", spec.name);
        assert_eq!(spec.name, spec.name.to_ascii_uppercase());
        assert!(spec.arity != 0, "{}", spec.name);
        assert_eq!(spec.write, spec.flags.contains(&"write"), "{}", spec.name);
        assert_eq!(spec.write, spec.categories.contains(&"@write"), "{}", spec.name);
        assert_eq!(
            spec.flags.contains(&"fast"),
            spec.categories.contains(&"@fast"),
            "{}",
            spec.name
        );
        assert_ne!(
            spec.flags.contains(&"fast"),
            spec.categories.contains(&"@slow"),
            "{}",
            spec.name
        );
        assert!(!(spec.write && spec.flags.contains(&"readonly")), "{}", spec.name);
        assert_eq!(spec.first_key != 0, spec.key_step != 0, "{}", spec.name);
        assert_eq!(spec.first_key != 0, !spec.key_flags.is_empty(), "{}", spec.name);
        for text in [spec.summary, spec.since, spec.group] {
            assert!(!text.is_empty(), "{}", spec.name);
        }
        for sub in spec.subcommands {
            assert!(!sub.summary.is_empty() && !sub.since.is_empty(), "{} {}", spec.name, sub.name);
        }
    }
}

#[test]
fn a_scan_over_all_shards_visits_every_key_once() {
    // Three nodes, one shard each; the cursor says which of them is next, as a session would read it.
    let mut benches: Vec<Bench> = (0..3)
        .map(|i| {
            let mut bench = Bench::with(3, 1, 0);
            bench.me.node = NodeIndex(i);
            bench
        })
        .collect();
    let owner = |cursor: &[u8]| {
        let bytes = [b"SCAN".as_slice(), cursor].concat();
        let spans = [(0, 4), (4, bytes.len() as u32)];
        let range = super::scan::cursor_range(Args::new(&bytes, &spans)).expect("a range");
        benches_owner(range)
    };
    for i in 0..1000 {
        let key = format!("key:{i}");
        let owner = benches_owner(dkv_protocol::slots::slot_of(key.as_bytes()).range());
        assert_eq!(benches[owner].say(&format!("SET {key} v")), "+OK|");
    }
    let mut seen = vec![];
    let mut cursor = b"0".to_vec();
    let mut calls = 0;
    loop {
        let reply = benches[owner(&cursor)].run(&[b"SCAN", &cursor, b"COUNT", b"7"]);
        let text = core::str::from_utf8(&reply).expect("text");
        let mut lines = text.split("\r\n").skip(1).filter(|l| !l.starts_with(['$', '*']));
        cursor = lines.next().expect("a cursor").as_bytes().to_vec();
        assert!(cursor.len() < 19);
        seen.extend(lines.filter(|l| !l.is_empty()).map(ToString::to_string));
        calls += 1;
        assert!(calls < 5000, "the scan does not end");
        if cursor == b"0" {
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
}

/// The node that owns a range when 256 ranges are spread over three.
fn benches_owner(range: dkv_protocol::ids::RangeId) -> usize {
    match range.0 {
        0..85 => 0,
        85..170 => 1,
        _ => 2,
    }
}

#[test]
fn a_reply_that_would_be_too_long_is_an_error() {
    let mut bench = Bench::new();
    assert_eq!(bench.say("SET a 0123456789"), "+OK|");
    for (times, reply) in [(2, "*2|$10|0123456789|$10|0123456789|"), (10, "")] {
        let (bytes, spans) =
            packed(&[&[b"MGET".as_slice()], vec![b"a".as_slice(); times].as_slice()].concat());
        let mut out = b"+before\r\n".to_vec();
        bench.handle(
            |x, args, out| super::strings::mget_within(x, args, 60, out),
            Args::new(&bytes, &spans),
            &mut out,
        );
        let out = shown(&out);
        let out = out.strip_prefix("+before|").expect("what was there before stays");
        if reply.is_empty() {
            assert!(out.starts_with("-ERR reply is longer than"), "{out}");
        } else {
            assert_eq!(out, reply);
        }
    }
}

#[test]
fn endless_lists_of_names_are_refused() {
    let mut bench = Bench::new();
    for words in [["CONFIG", "GET"], ["COMMAND", "INFO"], ["COMMAND", "DOCS"]] {
        let mut request: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        request.extend(core::iter::repeat_n(b"x".as_slice(), 1025));
        let reply = shown(&bench.run(&request));
        assert_eq!(reply, "-ERR too many names in one command: at most 1024|");
        request.pop();
        assert!(!bench.run(&request).starts_with(b"-"));
    }
}

#[test]
fn info_has_the_lines_that_exporters_read() {
    let mut bench = Bench::new();
    let text = bench.say("INFO");
    for line in [
        "# Server|",
        "# Clients|",
        "# Memory|",
        "# Persistence|",
        "# Stats|",
        "# Replication|",
        "# CPU|",
        "# Cluster|",
        "# Keyspace|",
        "# DKV|",
        "|redis_version:7.2.4|",
        "|server_name:dkv|",
        "|redis_mode:cluster|",
        "|process_id:4711|",
        "|run_id:0123456789abcdef0123456789abcdef01234567|",
        "|tcp_port:7861|",
        "|uptime_in_seconds:90000|",
        "|uptime_in_days:1|",
        "|connected_clients:0|",
        "|maxclients:10000|",
        "|used_memory:0|",
        "|used_memory_human:0B|",
        "|maxmemory:0|",
        "|maxmemory_policy:noeviction|",
        "|loading:0|",
        "|total_connections_received:0|",
        "|total_commands_processed:0|",
        "|instantaneous_ops_per_sec:0|",
        "|instantaneous_input_kbps:0.00|",
        "|rejected_connections:0|",
        "|expired_keys:0|",
        "|evicted_keys:0|",
        "|keyspace_hits:0|",
        "|keyspace_misses:0|",
        "|role:master|",
        "|connected_slaves:0|",
        "|cluster_enabled:1|",
        "|used_cpu_sys:0.000000|",
        "|dkv_store:test|",
        "|dkv_node:node1|",
        "|dkv_shards_missing:0|",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    assert!(!text.contains("db0:"), "an empty store has no keyspace line");
    assert_eq!(bench.say("SET a 1"), "+OK|");
    assert_eq!(bench.say("SET b 1 PX 1000"), "+OK|");
    assert!(bench.say("INFO keyspace").ends_with("# Keyspace|db0:keys=2,expires=1,avg_ttl=1000||"));
    assert_eq!(bench.say("INFO cluster"), "$30|# Cluster|cluster_enabled:1||");
    assert_eq!(bench.say("INFO nosuch"), "$0||");
    bench.proto = Proto::Resp3;
    assert_eq!(bench.say("INFO CLUSTER"), "=34|txt:# Cluster|cluster_enabled:1||");
    assert_eq!(bench.say("DKV.KEYSPACE"), "*3|:2|:1|:1000|");
    let both = bench.say("INFO cluster keyspace");
    assert!(both.contains("cluster_enabled:1||# Keyspace|db0"), "{both}");
    bench.whole_store = false;
    assert!(bench.say("INFO server").contains("|tcp_port:7900|"));
}

#[test]
fn keyspaces_add_up_and_count_who_is_missing() {
    let mut sum = super::info::Keyspace::default();
    sum.add(b"*3\r\n:2\r\n:1\r\n:1000\r\n");
    sum.add(b"*3\r\n:3\r\n:1\r\n:3000\r\n");
    sum.add(b"-CLUSTERDOWN Hash slot not served\r\n");
    sum.add(b"garbage");
    assert_eq!((sum.keys, sum.expires, sum.ttl_ms_sum, sum.shards_missing), (5, 2, 4000, 2));
}

#[test]
fn rates_are_those_of_the_last_second_or_of_the_sleep_since() {
    let stats = ShardStats::default();
    stats.sample_rates(10_000);
    stats.commands.add(500);
    stats.bytes_in.add(2000);
    stats.sample_rates(10_500);
    assert_eq!(stats.rates(10_500), [0, 0, 0]);
    stats.sample_rates(11_000);
    assert_eq!(stats.rates(11_500), [500, 2000, 0]);
    stats.commands.add(100);
    assert_eq!(stats.rates(21_000), [10, 0, 0]);
}

mod model {
    //! Random commands against a map with deadlines, each reply compared.

    use super::Bench;
    use crate::commands::number::parse_i64;
    use alloc::collections::BTreeMap;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use std::format;

    /// What the store must hold: values and deadlines (milliseconds since the test began).
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<String, (String, Option<u64>)>,
        now_ms: u64,
    }

    const NULL: &str = "$-1|";

    fn bulk(text: &str) -> String {
        format!("${}|{text}|", text.len())
    }

    impl Model {
        fn expire(&mut self) {
            let now = self.now_ms;
            self.keys.retain(|_, (_, deadline)| deadline.is_none_or(|at| at > now));
        }

        fn get(&self, key: &str) -> Option<&str> {
            self.keys.get(key).map(|(value, _)| value.as_str())
        }

        fn get_bulk(&self, key: &str) -> String {
            self.get(key).map_or(NULL.to_string(), bulk)
        }

        fn deadline(&self, key: &str) -> Option<u64> {
            self.keys.get(key).and_then(|(_, at)| *at)
        }

        fn set_deadline(&mut self, key: &str, at: Option<u64>) {
            if at.is_some_and(|at| at <= self.now_ms) {
                self.keys.remove(key);
            } else if let Some((_, deadline)) = self.keys.get_mut(key) {
                *deadline = at;
            }
        }

        fn count(&self, keys: &[&str]) -> String {
            format!(":{}|", keys.iter().filter(|key| self.keys.contains_key(**key)).count())
        }

        fn add(&mut self, key: &str, step: i64) -> String {
            let old = self.get(key).map_or(Some(0), |text| parse_i64(text.as_bytes()));
            match old.map(|n| n.checked_add(step)) {
                None => "-ERR value is not an integer or out of range|".to_string(),
                Some(None) => "-ERR increment or decrement would overflow|".to_string(),
                Some(Some(n)) => {
                    let deadline = self.deadline(key);
                    self.keys.insert(key.to_string(), (n.to_string(), deadline));
                    format!(":{n}|")
                }
            }
        }

        fn run(&mut self, words: &[&str]) -> String {
            self.expire();
            let now = self.now_ms;
            let number = |i: usize| words[i].parse::<u64>().expect("a number");
            match *words {
                ["GET", key] => self.get_bulk(key),
                ["SET", key, value, ref options @ ..] => {
                    let old = self.get_bulk(key);
                    let there = self.keys.contains_key(key);
                    let says = |word: &str| options.contains(&word);
                    let wanted = !(says("NX") && there || says("XX") && !there);
                    if wanted {
                        let deadline = match *options {
                            [.., "PX", ms] => Some(now + ms.parse::<u64>().expect("a number")),
                            _ if says("KEEPTTL") => self.deadline(key),
                            _ => None,
                        };
                        self.keys.insert(key.to_string(), (value.to_string(), deadline));
                    }
                    match (says("GET"), wanted) {
                        (true, _) => old,
                        (false, true) => "+OK|".to_string(),
                        (false, false) => NULL.to_string(),
                    }
                }
                ["GETDEL", key] => {
                    let old = self.get_bulk(key);
                    self.keys.remove(key);
                    old
                }
                ["GETEX", key, ref options @ ..] => {
                    let old = self.get_bulk(key);
                    match *options {
                        ["PERSIST"] => self.set_deadline(key, None),
                        ["PX", ms] => {
                            let at = now + ms.parse::<u64>().expect("a number");
                            self.set_deadline(key, Some(at));
                        }
                        _ => {}
                    }
                    old
                }
                ["MGET", ref keys @ ..] => {
                    let values: String = keys.iter().map(|key| self.get_bulk(key)).collect();
                    format!("*{}|{values}", keys.len())
                }
                ["MSET", ref pairs @ ..] => {
                    for pair in pairs.chunks(2) {
                        self.keys.insert(pair[0].to_string(), (pair[1].to_string(), None));
                    }
                    "+OK|".to_string()
                }
                ["APPEND", key, tail] => {
                    let value = self.get(key).unwrap_or_default().to_string() + tail;
                    let deadline = self.deadline(key);
                    let reply = format!(":{}|", value.len());
                    self.keys.insert(key.to_string(), (value, deadline));
                    reply
                }
                ["STRLEN", key] => format!(":{}|", self.get(key).unwrap_or_default().len()),
                ["INCR", key] => self.add(key, 1),
                ["DECRBY", key, step] => self.add(key, -step.parse::<i64>().expect("a number")),
                ["DEL" | "UNLINK", ref keys @ ..] => {
                    let removed =
                        keys.iter().filter(|key| self.keys.remove(**key).is_some()).count();
                    format!(":{removed}|")
                }
                ["EXISTS" | "TOUCH", ref keys @ ..] => self.count(keys),
                ["TYPE", key] => {
                    (if self.keys.contains_key(key) { "+string|" } else { "+none|" }).to_string()
                }
                ["PEXPIRE", key, _, ref condition @ ..] => {
                    let at = now + number(2);
                    let current = self.deadline(key);
                    let holds = self.keys.contains_key(key)
                        && match *condition {
                            ["NX"] => current.is_none(),
                            ["XX"] => current.is_some(),
                            ["GT"] => current.is_some_and(|current| at > current),
                            ["LT"] => current.is_none_or(|current| at < current),
                            _ => true,
                        };
                    if holds {
                        self.set_deadline(key, Some(at));
                    }
                    format!(":{}|", u8::from(holds))
                }
                ["PERSIST", key] => {
                    let had = self.deadline(key).is_some();
                    self.set_deadline(key, None);
                    format!(":{}|", u8::from(had))
                }
                ["PTTL", key] => match self.keys.get(key) {
                    None => ":-2|".to_string(),
                    Some((_, None)) => ":-1|".to_string(),
                    Some((_, Some(at))) => format!(":{}|", at - now),
                },
                ["PEXPIRETIME", key] => match self.keys.get(key) {
                    None => ":-2|".to_string(),
                    Some((_, None)) => ":-1|".to_string(),
                    Some((_, Some(at))) => format!(":{}|", at + super::UNIX_MS),
                },
                ["FLUSHALL"] => {
                    self.keys.clear();
                    "+OK|".to_string()
                }
                ref other => panic!("the model does not know {other:?}"),
            }
        }
    }

    fn key() -> impl Strategy<Value = String> {
        prop::sample::select(&["a", "b", "c", "{t}1", "{t}2"][..]).prop_map(ToString::to_string)
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            (-20i64..20).prop_map(|n| n.to_string()),
            Just(i64::MAX.to_string()),
            Just(i64::MIN.to_string()),
            "[a-z]{1,40}",
            Just("x".repeat(3000)),
        ]
    }

    /// A request, or (with an empty name) a time that passes.
    fn request() -> impl Strategy<Value = String> {
        let options = prop::sample::select(
            &["", " NX", " XX", " GET", " KEEPTTL", " NX GET", " XX GET KEEPTTL", " PX 70"][..],
        );
        let condition = prop::sample::select(&["", " NX", " XX", " GT", " LT"][..]);
        let ms = 0u64..200;
        prop_oneof![
            4 => ms.clone().prop_map(|ms| format!(" {ms}")),
            8 => (key(), value(), options).prop_map(|(k, v, o)| format!("SET {k} {v}{o}")),
            4 => (key(), ms.clone(), condition).prop_map(|(k, n, c)| format!("PEXPIRE {k} {n}{c}")),
            2 => (key(), value()).prop_map(|(k, v)| format!("APPEND {k} {v}")),
            2 => (key(), 0i64..100).prop_map(|(k, n)| format!("DECRBY {k} {n}")),
            2 => (key(), 1..200u64).prop_map(|(k, n)| format!("GETEX {k} PX {n}")),
            1 => (key(), value(), key(), value())
                .prop_map(|(a, v, b, w)| format!("MSET {a} {v} {b} {w}")),
            2 => (prop::sample::select(&["DEL", "UNLINK", "EXISTS", "TOUCH", "MGET"][..]), key(), key())
                .prop_map(|(name, a, b)| format!("{name} {a} {b}")),
            12 => (
                prop::sample::select(&[
                    "GET", "GETDEL", "GETEX", "STRLEN", "INCR", "TYPE", "PERSIST", "PTTL",
                    "PEXPIRETIME",
                ][..]),
                key(),
            )
                .prop_map(|(name, key)| format!("{name} {key}")),
            1 => Just("FLUSHALL".to_string()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_commands_answer_as_a_map_with_deadlines_does(
            requests in proptest::collection::vec(request(), 1..120),
        ) {
            let mut bench = Bench::new();
            let mut model = Model::default();
            for line in &requests {
                if let Some(ms) = line.strip_prefix(' ') {
                    let ms = ms.parse().expect("a number");
                    bench.pass_ms(ms);
                    model.now_ms += ms;
                    continue;
                }
                let words: Vec<&str> = line.split(' ').collect();
                prop_assert_eq!(bench.say(line), model.run(&words), "{}", line);
            }
            model.expire();
            // In the end the keys are the same too.
            let keys = bench.say("KEYS *");
            prop_assert_eq!(keys.matches('$').count(), model.keys.len());
            for key in model.keys.keys() {
                prop_assert!(keys.contains(&bulk(key)), "{} is missing in {}", key, keys);
            }
        }
    }
}
