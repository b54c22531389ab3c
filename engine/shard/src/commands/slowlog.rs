//! SLOWLOG and LATENCY: what they are, and how what the shards of a node know becomes one reply. The shards are asked by the
//! session (`node_wide`).

use super::{help, number};
use crate::command::{Args, Exec, Spec, Subcommand};
use crate::command_stats::Sum;
use crate::spikes::{self, Event};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use dkv_protocol::resp::{reply, value};

const ADMIN: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["admin", "loading", "stale"],
    key_flags: &[],
    categories: &["@admin", "@slow", "@dangerous"],
    tips: &[],
    summary: "",
    since: "2.2.12",
};
const HELP: Subcommand = Subcommand {
    name: "help",
    flags: &["loading", "stale"],
    categories: &["@slow"],
    summary: "Returns helpful text about the different subcommands.",
    since: "6.2.0",
    ..ADMIN
};
const SPECIAL: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
const ALL_SUCCEEDED: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const LATENCY_SUB: Subcommand = Subcommand {
    flags: &["admin", "noscript", "loading", "stale"],
    tips: SPECIAL,
    since: "2.8.13",
    ..ADMIN
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "SLOWLOG",
        arity: -2,
        categories: &["@slow"],
        subcommands: &[
            Subcommand {
                name: "get",
                arity: -2,
                tips: &["request_policy:all_nodes", "nondeterministic_output"],
                summary: "Returns the slow log's entries.",
                ..ADMIN
            },
            HELP,
            Subcommand {
                name: "len",
                tips: &[
                    "request_policy:all_nodes",
                    "response_policy:agg_sum",
                    "nondeterministic_output",
                ],
                summary: "Returns the number of entries in the slow log.",
                ..ADMIN
            },
            Subcommand {
                name: "reset",
                tips: ALL_SUCCEEDED,
                summary: "Clears all entries from the slow log.",
                ..ADMIN
            },
        ],
        summary: "A container for slow log commands.",
        since: "2.2.12",
        group: "server",
        ..Spec::NOTHING
    },
    Spec {
        name: "LATENCY",
        long: true,
        arity: -2,
        categories: &["@slow"],
        subcommands: &[
            Subcommand {
                name: "doctor",
                summary: "Returns a human-readable latency analysis report.",
                ..LATENCY_SUB
            },
            Subcommand {
                name: "graph",
                arity: 3,
                summary: "Returns a latency graph for an event.",
                ..LATENCY_SUB
            },
            Subcommand { since: "2.8.13", ..HELP },
            Subcommand {
                name: "histogram",
                arity: -2,
                summary: "Returns the cumulative distribution of latencies of a subset or all commands.",
                since: "7.0.0",
                ..LATENCY_SUB
            },
            Subcommand {
                name: "history",
                arity: 3,
                summary: "Returns timestamp-latency samples for an event.",
                ..LATENCY_SUB
            },
            Subcommand {
                name: "latest",
                summary: "Returns the latest latency samples for all events.",
                ..LATENCY_SUB
            },
            Subcommand {
                name: "reset",
                arity: -2,
                tips: ALL_SUCCEEDED,
                summary: "Resets the latency data for one or more events.",
                ..LATENCY_SUB
            },
        ],
        summary: "A container for latency diagnostics commands.",
        since: "2.8.13",
        group: "server",
        ..Spec::NOTHING
    },
];

/// Entries that SLOWLOG GET shows when nobody says how many.
const SHOWN: usize = 10;

/// What is wrong with an argument of one of these commands, or the whole reply where no other shard needs to be asked.
pub(crate) fn at_once(
    x: &Exec<'_>,
    spec: &Spec,
    subcommand: &str,
    args: Args<'_>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match (spec.name, subcommand) {
        ("SLOWLOG", "help") => slowlog_help(&mut out),
        ("LATENCY", "help") => latency_help(&mut out),
        ("LATENCY", "histogram") => histogram(x, args, &mut out),
        ("SLOWLOG", "get") if args.len() > 3 && !wants_times(args) => {
            // Redis' own words for too many arguments of this one.
            let text =
                "ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.";
            reply::error(&mut out, text);
        }
        ("SLOWLOG", "get") if count(args).is_none() => {
            reply::error(&mut out, "ERR count should be greater than or equal to -1");
        }
        ("LATENCY", "doctor") if x.env.settings.latency_threshold_ms.get() == 0 => {
            let text = "Latency monitoring is off on this node. CONFIG SET latency-monitor-threshold <milliseconds> turns \
                        it on: what takes longer is noted, and explained here.\n";
            reply::verbatim(&mut out, x.proto, text.as_bytes());
        }
        _ => return None,
    }
    Some(out)
}

/// How many entries SLOWLOG GET is to show; none when it is not a number that says so.
pub(crate) fn count(args: Args<'_>) -> Option<usize> {
    if args.len() < 3 {
        return Some(SHOWN);
    }
    match number::parse_i64(args.get(2))? {
        -1 => Some(usize::MAX),
        n => usize::try_from(n).ok(),
    }
}

/// Whether SLOWLOG GET is to show more of each entry than Redis does: behind Redis' six fields how long the command waited before it
/// was executed, and how long its reply took to leave, both in microseconds, the latter -1 where it is not known. It has to be asked
/// for, because some clients read six fields of each entry, whatever there are.
pub(crate) fn wants_times(args: Args<'_>) -> bool {
    args.len() == 4 && args.get(3).eq_ignore_ascii_case(b"WITHTIMES")
}

/// Writes the reply to a command of which each shard of the node has executed its part.
pub(crate) fn finish(x: &Exec<'_>, args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let subcommand = args.get(1).to_ascii_lowercase();
    let events = || spikes::gathered(parts.iter().map(Vec::as_slice));
    match subcommand.as_slice() {
        _ if args.get(0).eq_ignore_ascii_case(b"SLOWLOG") => {
            slowlog(x, &subcommand, args, parts, out);
        }
        b"reset" => {
            let names =
                parts.iter().filter_map(|part| value::elements(part).ok()).flatten().flatten();
            let mut names: Vec<&[u8]> = names.collect();
            names.sort_unstable();
            names.dedup();
            reply::integer(out, names.len() as i64);
        }
        b"latest" => {
            let events = events();
            reply::array(out, events.len());
            for event in &events {
                let (unix_s, ms) = event.samples.back().copied().unwrap_or_default();
                reply::array(out, 4);
                reply::bulk(out, &event.name);
                for n in [unix_s, ms, event.max_ms] {
                    reply::integer(out, n as i64);
                }
            }
        }
        b"doctor" => reply::verbatim(out, x.proto, doctor(x, &events()).as_bytes()),
        name => {
            let events = events();
            let event = events.iter().find(|event| event.name.eq_ignore_ascii_case(args.get(2)));
            if name == b"graph" {
                return graph(x, args.get(2), event, out);
            }
            let samples = event.map(|event| &event.samples);
            reply::array(out, samples.map_or(0, VecDeque::len));
            for (unix_s, ms) in samples.into_iter().flatten() {
                reply::array(out, 2);
                reply::integer(out, *unix_s as i64);
                reply::integer(out, *ms as i64);
            }
        }
    }
}

fn slowlog(x: &Exec<'_>, subcommand: &[u8], args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let len_max = x.env.settings.slowlog_len_max.get() as usize;
    match subcommand {
        b"reset" => reply::ok(out),
        b"len" => {
            let len: i64 = parts.iter().filter_map(|part| value::integer(part)).sum();
            reply::integer(out, len.min(len_max as i64));
        }
        _ => {
            let entries = parts.iter().filter_map(|part| value::elements(part).ok()).flatten();
            let mut entries: Vec<(i64, &[u8])> = entries
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    Some((value::integer(value::elements(entry).ok()?.next()?.ok()?)?, entry))
                })
                .collect();
            entries.sort_unstable_by_key(|(id, _)| core::cmp::Reverse(*id));
            entries.truncate(count(args).unwrap_or(SHOWN).min(len_max));
            reply::array(out, entries.len());
            for (_, entry) in entries {
                out.extend_from_slice(entry);
            }
        }
    }
}

/// LATENCY HISTOGRAM, of this node, or on a shard's port of that shard.
fn histogram(x: &Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !super::names_bearable(args.len() - 2, out) {
        return;
    }
    let shards = || super::info::shards(x).iter().map(|shard| &shard.of_commands);
    let numbers: Vec<u16> = if args.len() == 2 {
        (0..super::NUMBERS as u16).collect()
    } else {
        let mut numbers: Vec<u16> = args.iter_from(2).flat_map(super::numbers_named).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let found: Vec<(u16, Sum)> = numbers
        .into_iter()
        .map(|number| (number, Sum::of(shards(), number)))
        .filter(|(_, sum)| sum.tracked() > 0)
        .collect();
    reply::map(out, x.proto, found.len());
    for (number, sum) in found {
        reply::bulk(out, super::name_of(number).as_bytes());
        reply::map(out, x.proto, 2);
        reply::bulk(out, b"calls");
        reply::integer(out, sum.tracked() as i64);
        reply::bulk(out, b"histogram_usec");
        let levels = sum.levels();
        reply::map(out, x.proto, levels.len());
        for (us, calls) in levels {
            reply::integer(out, us as i64);
            reply::integer(out, calls as i64);
        }
    }
}

/// Columns and rows of a graph.
const COLUMNS: usize = 80;
const ROWS: u64 = 4;

/// One column for each of the last samples, as high as the sample is long.
fn graph(x: &Exec<'_>, name: &[u8], event: Option<&Event>, out: &mut Vec<u8>) {
    let Some(event) = event.filter(|event| !event.samples.is_empty()) else {
        let mut text = b"ERR No samples available for event '".to_vec();
        text.extend_from_slice(super::head(name, super::QUOTED_BYTES_MAX));
        text.push(b'\'');
        return reply::error_bytes(out, &text);
    };
    let first = event.samples.len().saturating_sub(COLUMNS);
    let shown = || event.samples.iter().skip(first);
    let high = shown().map(|(_, ms)| *ms).max().unwrap_or(0);
    let low = shown().map(|(_, ms)| *ms).min().unwrap_or(0);
    let mut text = String::new();
    let name = String::from_utf8_lossy(&event.name);
    let max_ms = event.max_ms;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name} - high {high} ms, low {low} ms (all time high {max_ms} ms)");
    text.extend(core::iter::repeat_n('-', COLUMNS));
    text.push('\n');
    for row in (0..ROWS).rev() {
        for (_, ms) in shown() {
            let height = (ms - low) * (ROWS * 2 - 1) / (high - low).max(1);
            text.push(match height.checked_sub(row * 2) {
                None => ' ',
                Some(0) => '_',
                Some(1) => 'o',
                Some(_) => '|',
            });
        }
        text.push('\n');
    }
    let now_s = x.now.unix_ms / 1000;
    let ages: Vec<String> = shown().map(|(unix_s, _)| age(now_s.saturating_sub(*unix_s))).collect();
    // How long ago each was, downwards.
    for row in 0..ages.iter().map(String::len).max().unwrap_or(0) {
        text.extend(ages.iter().map(|age| age.as_bytes().get(row).map_or(' ', |b| char::from(*b))));
        text.push('\n');
    }
    reply::verbatim(out, x.proto, text.as_bytes());
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => alloc::format!("{seconds}s"),
        60..3600 => alloc::format!("{}m", seconds / 60),
        3600..86_400 => alloc::format!("{}h", seconds / 3600),
        _ => alloc::format!("{}d", seconds / 86_400),
    }
}

fn doctor(x: &Exec<'_>, events: &[Event]) -> String {
    let threshold = x.env.settings.latency_threshold_ms.get();
    if events.is_empty() {
        return alloc::format!("Nothing took {threshold} ms or longer on this node.\n");
    }
    let mut text = String::new();
    for event in events {
        let count = event.samples.len().max(1) as u64;
        let sum: u64 = event.samples.iter().map(|(_, ms)| ms).sum();
        let name = String::from_utf8_lossy(&event.name);
        let _ = writeln!(
            text,
            "* {name}: {count} latency spikes, {} ms on average, {} ms at most. {}",
            sum / count,
            event.max_ms,
            advice(&event.name),
        );
    }
    text
}

fn advice(event: &[u8]) -> &'static str {
    match event {
        b"command" => {
            "Commands with many keys or long values take that long: see SLOWLOG GET. Where it is empty, the machine gave \
             the CPU to others."
        }
        b"fast-command" => {
            "A command that is short by itself: the machine gave the CPU to others, or memory was touched for the first time."
        }
        b"expire-cycle" => "Many keys expired at one moment: spread their times to live.",
        b"eviction-cycle" => {
            "Keys had to go for new ones: give the store more memory, or keys a time to live."
        }
        _ => "The kernel took its time to send: many connections, or great replies.",
    }
}

fn slowlog_help(out: &mut Vec<u8>) {
    help(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "GET <count> WITHTIMES",
            "    The same with two fields more: microseconds before the execution, and until the",
            "    reply had left (-1: not known).",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
        out,
    );
}

fn latency_help(out: &mut Vec<u8>) {
    help(
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
        out,
    );
}
