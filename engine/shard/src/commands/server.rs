//! What tools ask a server about itself: MEMORY, ROLE and LOLWUT.

use super::{errors, help, record};
use crate::command::{Args, Exec, Scope, Spec, Subcommand};
use crate::refusal;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use dkv_protocol::resp::reply;

const SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &[],
    key_flags: &[],
    categories: &["@slow"],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    summary: "",
    since: "4.0.0",
};

const MEMORY: Spec = Spec {
    name: "MEMORY",
    arity: -2,
    first_key: 2,
    last_key: 2,
    key_step: 1,
    categories: &["@slow"],
    key_flags: &["RO"],
    subcommands: &[
        Subcommand { name: "doctor", summary: "Outputs a memory problems report.", ..SUB },
        Subcommand {
            name: "help",
            flags: &["loading", "stale"],
            tips: &[],
            summary: "Returns helpful text about the different subcommands.",
            ..SUB
        },
        Subcommand { name: "malloc-stats", summary: "Returns the allocator statistics.", ..SUB },
        Subcommand {
            name: "purge",
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            summary: "Asks the allocator to release memory.",
            ..SUB
        },
        Subcommand { name: "stats", summary: "Returns details about memory usage.", ..SUB },
        Subcommand {
            name: "usage",
            arity: -3,
            flags: &["readonly"],
            key_flags: &["RO"],
            categories: &["@read", "@slow"],
            tips: &[],
            summary: "Estimates the memory usage of a key.",
            ..SUB
        },
    ],
    scope: Scope::Keyed,
    handler: memory,
    summary: "A container for memory diagnostics commands.",
    since: "4.0.0",
    group: "server",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    MEMORY,
    Spec {
        name: "ROLE",
        arity: 1,
        flags: &["noscript", "loading", "stale", "fast"],
        categories: &["@admin", "@fast", "@dangerous"],
        scope: Scope::Anywhere,
        handler: |_, _, out| {
            // Every node leads what it answers for; who follows it is told by CLUSTER SHARDS.
            reply::array(out, 3);
            reply::bulk(out, b"master");
            reply::integer(out, 0);
            reply::array(out, 0);
        },
        summary: "Returns the replication role.",
        since: "2.8.12",
        group: "server",
        ..Spec::NOTHING
    },
    Spec {
        name: "LOLWUT",
        arity: -1,
        flags: &["readonly", "fast"],
        categories: &["@read", "@fast"],
        scope: Scope::Anywhere,
        handler: lolwut,
        summary: "Displays computer art and the version.",
        since: "5.0.0",
        group: "server",
        ..Spec::NOTHING
    },
];

fn memory(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if let Some(refusal) = refusal::check_subcommand(&MEMORY, args) {
        return refusal::write(refusal, Some(&MEMORY), args, out);
    }
    match refusal::subcommand_of(&MEMORY, args) {
        "usage" => usage(x, args, out),
        "stats" => stats(x, out),
        "doctor" => {
            let text = doctor(x);
            reply::verbatim(out, x.proto, text.as_bytes());
        }
        "malloc-stats" => {
            let text = "Stats not supported for the current allocator; see MEMORY STATS\n";
            reply::verbatim(out, x.proto, text.as_bytes());
        }
        // Idle memory goes back to the kernel by itself, all the time.
        "purge" => reply::ok(out),
        _ => help(
            "MEMORY",
            &[
                "DOCTOR",
                "    Return memory problems reports.",
                "MALLOC-STATS",
                "    Return internal statistics report from the memory allocator.",
                "PURGE",
                "    Attempt to purge dirty pages for reclamation by the allocator.",
                "STATS",
                "    Return information about the memory usage of the server.",
                "USAGE <key> [SAMPLES <count>]",
                "    Return memory in bytes used by <key> and its value. Nested values are",
                "    sampled up to <count> times (default: 5, 0 means sample all).",
            ],
            out,
        ),
    }
}

/// SAMPLES is for nested values, of which there are none.
fn usage(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let mut rest = args.iter_from(3);
    while let Some(word) = rest.next() {
        let samples = if word.eq_ignore_ascii_case(b"SAMPLES") { rest.next() } else { None };
        match samples.map(super::number::parse_i64) {
            Some(Some(0..)) => {}
            Some(None) => return reply::error(out, errors::NOT_AN_INTEGER),
            _ => return reply::error(out, errors::SYNTAX),
        }
    }
    let key = args.get(2);
    let Some(place) = record::place(x, key, out) else { return };
    if record::peek_quietly(x, place, key).is_none() {
        return reply::null(out, x.proto);
    }
    let bytes = x.table.cost(x.now.boot_ms(), place, key).unwrap_or(0);
    reply::integer(out, bytes as i64);
}

/// The memory of this node, all its shards together.
struct Sums {
    keys: u64,
    with_expiry: u64,
    used: u64,
    resident: u64,
}

fn sums(x: &Exec<'_>) -> Sums {
    let all = |counter: fn(&crate::stats::ShardStats) -> u64| {
        x.env.stats.iter().map(|stats| counter(stats)).sum::<u64>()
    };
    Sums {
        keys: all(|stats| stats.keys.get()),
        with_expiry: all(|stats| stats.keys_with_expiry.get()),
        used: all(|stats| stats.memory_bytes.get()),
        resident: x.env.process.resident_bytes.get(),
    }
}

/// The fields of Redis that mean something here; those of parts that do not exist are 0.
fn stats(x: &Exec<'_>, out: &mut Vec<u8>) {
    let Sums { keys, with_expiry, used, resident } = sums(x);
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let numbers = [
        ("peak.allocated", resident.max(used)),
        ("total.allocated", used),
        ("startup.allocated", 0),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", 0),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", 0),
        ("functions.caches", 0),
        ("overhead.total", 0),
        ("keys.count", keys),
        ("keys.bytes-per-key", used.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", used),
    ];
    let ratios = [
        ("dataset.percentage", if used > 0 { 100.0 } else { 0.0 }),
        ("peak.percentage", 100.0 * ratio(used, resident.max(used))),
    ];
    let more = [
        ("allocator.allocated", used),
        ("allocator.active", resident),
        ("allocator.resident", resident),
        ("fragmentation.bytes", resident.saturating_sub(used)),
    ];
    reply::map(out, x.proto, numbers.len() + ratios.len() + more.len() + 2);
    let number = |(name, n): (&str, u64), out: &mut Vec<u8>| {
        reply::bulk(out, name.as_bytes());
        reply::integer(out, n as i64);
    };
    for pair in numbers {
        number(pair, out);
    }
    reply::bulk(out, b"db.0");
    reply::map(out, x.proto, 2);
    number(("overhead.hashtable.main", 0), out);
    number(("overhead.hashtable.expires", with_expiry * 8), out);
    for (name, n) in ratios.into_iter().chain([("fragmentation", ratio(resident, used))]) {
        reply::bulk(out, name.as_bytes());
        reply::double(out, x.proto, n);
    }
    for pair in more {
        number(pair, out);
    }
}

/// From so much used memory on the ratio of resident memory to it means something.
const EMPTY_BYTES: u64 = 5 << 20;

fn doctor(x: &Exec<'_>) -> String {
    let Sums { used, resident, .. } = sums(x);
    let limit = x.env.settings.memory_bytes_max.get();
    if used < EMPTY_BYTES {
        return "This node holds next to nothing, so there is nothing to say about its memory.\n"
            .into();
    }
    let mut text = String::new();
    if limit > 0 && used > limit / 10 * 9 {
        let _ = writeln!(
            text,
            "* {used} of {limit} bytes are in use: writes are refused or evict soon. Raise the limit of the store, or let \
             keys expire."
        );
    }
    if resident > used / 10 * 15 {
        let _ = writeln!(
            text,
            "* The process holds {resident} bytes for {used} in use: values being sent or received, or memory that goes \
             back to the kernel in the next seconds."
        );
    }
    if text.is_empty() { "No problem was found.\n".into() } else { text }
}

/// A maze of one line of code, another one each time, then the version.
fn lolwut(x: &mut Exec<'_>, _: Args<'_>, out: &mut Vec<u8>) {
    const COLUMNS: usize = 64;
    const ROWS: usize = 12;
    let mut text = String::new();
    for _ in 0..ROWS {
        let mut row = x.table.chance();
        for _ in 0..COLUMNS {
            text.push(if row & 1 == 1 { '╱' } else { '╲' });
            row >>= 1;
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\nDKV ver. {}", env!("CARGO_PKG_VERSION"));
    reply::verbatim(out, x.proto, text.as_bytes());
}
