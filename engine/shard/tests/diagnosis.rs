//! What a node tells about its commands: SLOWLOG, LATENCY, and the counters of INFO by command and error.

mod store;

use dkv_shard::{Piece, PortKind};
use store::{PLAIN, Settings, Store, clock, command, key_of};

const OK: &str = "+OK\r\n";
const US: u64 = 1000;

fn two_shards() -> (Store, usize) {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    let client = store.connect(0, 0, PortKind::Client);
    (store, client)
}

#[test]
fn slow_commands_of_all_shards_are_one_log_with_the_latest_first() {
    let (mut store, client) = two_shards();
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "k"));
    assert_eq!(store.call(client, &["SLOWLOG", "LEN"]), ":0\r\n");
    assert_eq!(store.call(client, &["CLIENT", "SETNAME", "me"]), OK);
    assert_eq!(store.call(client, &["CONFIG", "SET", "slowlog-log-slower-than", "50"]), OK);
    clock::step(40 * US);
    assert_eq!(store.call(client, &["SET", &here, "quick"]), OK);
    clock::step(70 * US);
    assert_eq!(store.call(client, &["SET", &here, &"x".repeat(300)]), OK);
    assert_eq!(store.call(client, &["SET", &there, "a"]), OK);
    let many: Vec<String> = (0..80).map(|i| i.to_string()).collect();
    let mget: Vec<&str> =
        ["CLIENT", "KILL"].into_iter().chain(many.iter().map(String::as_str)).collect();
    store.call(client, &mget);
    clock::step(0);
    assert_eq!(store.call(client, &["SLOWLOG", "LEN"]), ":3\r\n");
    let log = store.call(client, &["SLOWLOG", "GET"]);
    let entry = |id: u32, args: &str, client: &str, name: &str| {
        format!(
            "*6\r\n:{id}\r\n:1700000000\r\n:70\r\n{args}${}\r\n{client}\r\n${}\r\n{name}\r\n",
            client.len(),
            name.len()
        )
    };
    let words = |words: &[String]| {
        String::from_utf8(command(&words.iter().map(String::as_str).collect::<Vec<_>>())).unwrap()
    };
    let mut kill: Vec<String> = ["CLIENT", "KILL"].map(String::from).into();
    kill.extend(many[..29].iter().cloned());
    kill.push("... (51 more arguments)".into());
    let cut = format!("{}... (172 more bytes)", "x".repeat(128));
    let expected = format!(
        "*3\r\n{}{}{}",
        entry(2, &words(&kill), "127.0.0.1:50000", "me"),
        // Who asked the shard that executed it: the shard of the client.
        entry(1, &words(&["SET".into(), there, "a".into()]), "10.0.0.1:7900", "node1"),
        entry(0, &words(&["SET".into(), here, cut]), "127.0.0.1:50000", "me"),
    );
    assert_eq!(log, expected);
    let first = store.call(client, &["SLOWLOG", "GET", "1"]);
    assert!(first.starts_with("*1\r\n*6\r\n:2\r\n"), "{first}");
    assert_eq!(store.call(client, &["CONFIG", "SET", "slowlog-max-len", "2"]), OK);
    assert_eq!(store.call(client, &["SLOWLOG", "LEN"]), ":2\r\n");
    assert!(store.call(client, &["SLOWLOG", "GET", "-1"]).starts_with("*2\r\n*6\r\n:2\r\n"));
    assert_eq!(store.call(client, &["SLOWLOG", "RESET"]), OK);
    assert_eq!(store.call(client, &["SLOWLOG", "GET"]), "*0\r\n");
    for (args, reply) in [
        (&["SLOWLOG", "GET", "x"][..], "-ERR count should be greater than or equal to -1\r\n"),
        (&["SLOWLOG", "GET", "-2"], "-ERR count should be greater than or equal to -1\r\n"),
        (
            &["SLOWLOG", "GET", "2", "3"],
            "-ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.\r\n",
        ),
        (&["SLOWLOG", "LEN", "x"], "-ERR wrong number of arguments for 'slowlog|len' command\r\n"),
        (&["SLOWLOG", "foo"], "-ERR unknown subcommand 'foo'. Try SLOWLOG HELP.\r\n"),
        (&["SLOWLOG"], "-ERR wrong number of arguments for 'slowlog' command\r\n"),
    ] {
        assert_eq!(store.call(client, args), reply);
    }
}

#[test]
fn what_a_slow_command_waited_for_stands_behind_what_redis_shows() {
    let (mut store, client) = two_shards();
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "k"));
    assert_eq!(store.call(client, &["CONFIG", "SET", "slowlog-log-slower-than", "50"]), OK);
    // Whoever reads the clock finds it 70 µs later: the beginning and the end of the command, and the end of the send.
    clock::set(store.now.boot_ns + 500 * US);
    clock::step(70 * US);
    assert_eq!(store.call(client, &["SET", &here, "a"]), OK);
    assert_eq!(store.call(client, &["SET", &there, "a"]), OK);
    clock::step(0);
    let log = store.call(client, &["SLOWLOG", "GET", "-1", "withtimes"]);
    let entries: Vec<&str> = log.split("*8\r\n").skip(1).collect();
    let last = |entry: &str, at: usize| -> i64 {
        entry.trim_end().rsplit("\r\n").nth(at).and_then(|n| n[1..].parse().ok()).unwrap()
    };
    assert_eq!(entries.len(), 2, "{log}");
    assert!(entries[1].starts_with(":0\r\n:1700000000\r\n:70\r\n"), "{log}");
    assert_eq!(last(entries[1], 0), 70, "the send took as long: {log}");
    assert!((540..=570).contains(&last(entries[1], 1)), "the command waited: {log}");
    assert_eq!(last(entries[0], 0), -1, "another shard sends that reply: {log}");
    // Who does not ask for it gets what Redis has.
    assert!(store.call(client, &["SLOWLOG", "GET", "-1"]).starts_with("*2\r\n*6\r\n:1\r\n"));
    assert_eq!(
        store.call(client, &["SLOWLOG", "GET", "-1", "times"]),
        "-ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.\r\n"
    );
    assert!(store.call(client, &["SLOWLOG", "HELP"]).contains("GET <count> WITHTIMES"));
}

#[test]
fn the_keys_that_are_used_most_are_known_while_somebody_wants_to_know() {
    let (mut store, client) = two_shards();
    let [here, there] = [0, 1].map(|shard| key_of(&store, 0, shard, "hot"));
    let no = "-ERR no keys are counted on this node: DKV.HOTKEYS START <seconds> begins it, for so long\r\n";
    assert_eq!(store.call(client, &["DKV.HOTKEYS", "GET"]), no);
    assert_eq!(store.call(client, &["DKV.HOTKEYS", "START", "5"]), OK);
    for i in 0..600 {
        store.call(client, &["GET", &format!("cold{i}")]);
        if i % 3 == 0 {
            store.call(client, &["SET", &here, "1"]);
        }
        if i % 6 == 0 {
            store.call(client, &["EXISTS", &there, &here]);
        }
    }
    let reply = store.call(client, &["DKV.HOTKEYS", "GET", "2"]);
    let lines: Vec<&str> = reply.split("\r\n").collect();
    let number = |at: usize| lines[at][1..].parse::<u64>().unwrap();
    assert_eq!((lines[0], lines[3]), ("*3", "*2"), "{reply}");
    assert_eq!(number(2), 600 + 200 + 200, "uses of all keys: {reply}");
    let (first, second) = (lines[6], lines[12]);
    assert_eq!((first, second), (here.as_str(), there.as_str()), "{reply}");
    assert_eq!((number(7), number(9)), (300, 200), "uses, and those that wrote: {reply}");
    assert_eq!((number(13), number(15)), (100, 0), "{reply}");
    // It ends by itself; what was counted can be asked for a while longer, and is forgotten then.
    store.now.boot_ns += 6_000_000_000;
    store.background();
    store.call(client, &["SET", &here, "1"]);
    let later = store.call(client, &["DKV.HOTKEYS", "GET", "2"]);
    assert!(later.ends_with(&lines[4..].join("\r\n")), "{later}");
    store.now.boot_ns += 61_000_000_000;
    store.background();
    assert_eq!(store.call(client, &["DKV.HOTKEYS", "GET"]), no);
    for (args, reply) in [
        (
            &["DKV.HOTKEYS", "START", "0"][..],
            "-ERR invalid time: a number of seconds from 1 to 3600 is expected\r\n",
        ),
        (
            &["DKV.HOTKEYS", "GET", "513"],
            "-ERR invalid count: a number from 1 to 512 is expected\r\n",
        ),
        (
            &["DKV.HOTKEYS", "START"],
            "-ERR wrong number of arguments for 'dkv.hotkeys|start' command\r\n",
        ),
    ] {
        assert_eq!(store.call(client, args), reply);
    }
}

#[test]
fn passwords_are_not_for_the_slow_log() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    assert_eq!(store.call(client, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]), OK);
    store.call(client, &["AUTH", "topsecret"]);
    store.call(client, &["AUTH", "default", "topsecret"]);
    store.call(client, &["HELLO", "2", "AUTH", "default", "topsecret"]);
    store.call(client, &["CONFIG", "SET", "requirepass", "topsecret"]);
    let log = store.call(client, &["SLOWLOG", "GET", "-1"]);
    assert!(log.contains("(redacted)") && !log.contains("topsecret"), "{log}");
}

#[test]
fn a_transaction_is_one_entry_without_what_shards_tell_each_other() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    // Transactions are timed without being asked to.
    clock::step(20_000 * US);
    for args in [&["MULTI"][..], &["SET", "a", "1"], &["GET", "a"], &["EXEC"]] {
        store.call(client, args);
    }
    clock::step(0);
    let log = store.call(client, &["SLOWLOG", "GET"]);
    assert!(
        log.starts_with("*1\r\n*6\r\n:0\r\n:1700000000\r\n:20000\r\n*1\r\n$4\r\nEXEC\r\n"),
        "{log}"
    );
    let stats = store.call(client, &["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_exec:calls=1,usec=20000,usec_per_call=20000.00,"), "{stats}");
    assert!(
        stats.contains("cmdstat_get:calls=1,") && stats.contains("cmdstat_set:calls=1,"),
        "{stats}"
    );
}

#[test]
fn a_piece_of_work_is_spread_over_its_commands_and_what_was_timed_is_not_counted_twice() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let mut pipeline = Vec::new();
    (0..15).for_each(|_| pipeline.extend(command(&["GET", "key"])));
    pipeline.extend(command(&["SET", "key", "1"]));
    clock::step(500 * US);
    pipeline.extend(command(&["BITCOUNT", "key"]));
    store.input(client, &pipeline);
    clock::step(0);
    store.shards[0].1.took(Piece::Commands, 532 * US);
    store.run();
    let stats = store.call(client, &["INFO", "commandstats"]);
    assert!(
        stats.contains(
            "cmdstat_get:calls=15,usec=30,usec_per_call=2.00,rejected_calls=0,failed_calls=0\r\n"
        ),
        "{stats}"
    );
    assert!(stats.contains("cmdstat_set:calls=1,usec=2,"), "{stats}");
    assert!(stats.contains("cmdstat_bitcount:calls=1,usec=500,"), "{stats}");
    let histogram = store.call(client, &["LATENCY", "HISTOGRAM", "get", "nosuch", "bitcount"]);
    assert_eq!(
        histogram,
        "*4\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:15\r\n$14\r\nhistogram_usec\r\n*2\r\n:2\r\n:15\r\n\
         $8\r\nbitcount\r\n*4\r\n$5\r\ncalls\r\n:1\r\n$14\r\nhistogram_usec\r\n*2\r\n:528\r\n:1\r\n"
    );
    let percentiles = store.call(client, &["INFO", "latencystats"]);
    let line = "latency_percentiles_usec_get:p50=2.048,p99=2.048,p99.9=2.048\r\n";
    assert!(percentiles.contains(line), "{percentiles}");
    assert_eq!(store.call(client, &["CONFIG", "RESETSTAT"]), OK);
    assert!(!store.call(client, &["INFO", "everything"]).contains("cmdstat_get"));
    assert_eq!(store.call(client, &["LATENCY", "HISTOGRAM", "get"]), "*0\r\n");
}

#[test]
fn commands_are_counted_where_they_run_refused_and_failed_ones_apart() {
    let (mut store, client) = two_shards();
    let there = key_of(&store, 0, 1, "k");
    store.call(client, &["SET", &there, "text"]);
    store.call(client, &["INCR", &there]);
    store.call(client, &["GET"]);
    store.call(client, &["CONFIG", "GET"]);
    store.call(client, &["CONFIG", "GET", "x"]);
    store.call(client, &["DBSIZE"]);
    store.call(client, &["nosuch"]);
    // What fails in a transaction has failed as well.
    for args in [&["MULTI"][..], &["INCR", &there], &["EXEC"]] {
        store.call(client, args);
    }
    store.shards.iter_mut().for_each(|(_, shard)| shard.took(Piece::Commands, 0));
    let stats = store.call(client, &["INFO", "commandstats"]);
    let zero = "usec=0,usec_per_call=0.00";
    for line in [
        format!("cmdstat_set:calls=1,{zero},rejected_calls=0,failed_calls=0\r\n"),
        format!("cmdstat_incr:calls=2,{zero},rejected_calls=0,failed_calls=2\r\n"),
        format!("cmdstat_get:calls=0,{zero},rejected_calls=1,failed_calls=0\r\n"),
        format!("cmdstat_config|get:calls=1,{zero},rejected_calls=1,failed_calls=0\r\n"),
        format!("cmdstat_dbsize:calls=1,{zero},rejected_calls=0,failed_calls=0\r\n"),
    ] {
        assert!(stats.contains(&line), "{line} in {stats}");
    }
    let errors = store.call(client, &["INFO", "errorstats"]);
    assert!(errors.contains("# Errorstats\r\nerrorstat_ERR:count=5\r\n"), "{errors}");
    // By default there are the errors, and not the commands.
    let info = store.call(client, &["INFO"]);
    assert!(info.contains("errorstat_ERR") && !info.contains("cmdstat_"), "{info}");
    let sections: Vec<&str> =
        ["# Commandstats", "# Errorstats", "# Latencystats", "# Cluster"].into();
    let all = store.call(client, &["INFO", "all"]);
    let places: Vec<usize> = sections.iter().map(|one| all.find(one).expect(one)).collect();
    assert!(places.is_sorted(), "{all}");
}

#[test]
fn moments_that_took_long_are_told_for_all_shards() {
    let (mut store, client) = two_shards();
    let off = store.call(client, &["LATENCY", "DOCTOR"]);
    assert!(off.contains("CONFIG SET latency-monitor-threshold"), "{off}");
    store.shards[0].1.took(Piece::Commands, 900_000 * US);
    assert_eq!(store.call(client, &["CONFIG", "SET", "latency-monitor-threshold", "5"]), OK);
    assert_eq!(store.call(client, &["LATENCY", "LATEST"]), "*0\r\n");
    store.run();
    store.shards[0].1.took(Piece::Commands, 7_000 * US);
    store.shards[1].1.took(Piece::Commands, 9_000 * US);
    store.shards[1].1.took(Piece::Commands, 4_000 * US);
    store.shards[1].1.took(Piece::Background, 6_000 * US);
    let latest = store.call(client, &["LATENCY", "LATEST"]);
    assert_eq!(
        latest,
        "*2\r\n*4\r\n$7\r\ncommand\r\n:1700000000\r\n:9\r\n:9\r\n*4\r\n$12\r\nexpire-cycle\r\n:1700000000\r\n:6\r\n:6\r\n"
    );
    assert_eq!(
        store.call(client, &["LATENCY", "HISTORY", "command"]),
        "*1\r\n*2\r\n:1700000000\r\n:9\r\n"
    );
    assert_eq!(store.call(client, &["LATENCY", "HISTORY", "fork"]), "*0\r\n");
    assert_eq!(
        store.call(client, &["LATENCY", "GRAPH", "fork"]),
        "-ERR No samples available for event 'fork'\r\n"
    );
    let graph = store.call(client, &["LATENCY", "GRAPH", "command"]);
    assert!(graph.contains("command - high 9 ms, low 9 ms (all time high 9 ms)\n"), "{graph}");
    let doctor = store.call(client, &["LATENCY", "DOCTOR"]);
    assert!(
        doctor.contains("* command: 1 latency spikes, 9 ms on average, 9 ms at most."),
        "{doctor}"
    );
    assert_eq!(store.call(client, &["LATENCY", "RESET", "command", "nosuch"]), ":1\r\n");
    assert_eq!(store.call(client, &["LATENCY", "RESET"]), ":1\r\n");
    assert_eq!(store.call(client, &["LATENCY", "LATEST"]), "*0\r\n");
    // A command that was timed by itself is a moment of its own, and the piece that it was in is none besides.
    clock::step(20_000 * US);
    let key = key_of(&store, 0, 0, "k");
    assert_eq!(store.call(client, &["BITCOUNT", &key]), ":0\r\n");
    clock::step(0);
    store.shards[0].1.took(Piece::Commands, 21_000 * US);
    let history = store.call(client, &["LATENCY", "HISTORY", "command"]);
    assert_eq!(history, "*1\r\n*2\r\n:1700000000\r\n:20\r\n");
}

#[test]
fn what_nobody_may_do_is_counted_by_its_kind_and_logged_with_its_id_and_times() {
    let mut store = Store::new(Settings { shards: 2, ..PLAIN });
    store.now.unix_ms = 1_700_000_000_000;
    let admin = store.connect(0, 0, PortKind::Client);
    let rules = ["ACL", "SETUSER", "u", "on", "nopass", "~a", "+get", "+publish"];
    assert_eq!(store.call(admin, &rules), "+OK\r\n");
    let (client, other) =
        (store.connect(0, 0, PortKind::Client), store.connect(0, 1, PortKind::Client));
    assert_eq!(store.call(client, &["AUTH", "u", "any"]), "+OK\r\n");
    for words in [&["DEL", "a"][..], &["GET", "b"], &["GET", "b"], &["PUBLISH", "c", "m"]] {
        assert!(store.call(client, words).starts_with("-NOPERM"), "{words:?}");
        store.now.unix_ms += 1000;
    }
    // As the client writes it.
    for words in [&["AuTh", "ghost", "x"][..], &["HELLO", "3", "AUTH", "ghost", "x"]] {
        assert!(store.call(other, words).starts_with("-WRONGPASS"), "{words:?}");
    }
    let stats = store.call(admin, &["INFO", "stats"]);
    for (kind, count) in [("auth", 2), ("cmd", 1), ("key", 2), ("channel", 1)] {
        let line = format!("\r\nacl_access_denied_{kind}:{count}\r\n");
        assert!(stats.contains(&line), "{line} is not in {stats}");
    }
    let log = store.call(admin, &["ACL", "LOG"]);
    assert!(log.contains("\r\nobject\r\n$4\r\nAuTh\r\n"), "{log}");
    assert!(log.contains("\r\nobject\r\n$5\r\nHELLO\r\n"), "{log}");
    let times = "\r\ntimestamp-created\r\n:1700000001000\r\n$22\r\ntimestamp-last-updated\r\n:1700000002000\r\n";
    assert!(log.contains(times), "{log}");
    let mut ids: Vec<&str> =
        log.split("\r\nentry-id\r\n").skip(1).filter_map(|rest| rest.lines().next()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{log}");
    assert_eq!(store.call(admin, &["CONFIG", "RESETSTAT"]), "+OK\r\n");
    let stats = store.call(admin, &["INFO", "stats"]);
    assert!(stats.contains("acl_access_denied_key:0\r\n"), "{stats}");
}
