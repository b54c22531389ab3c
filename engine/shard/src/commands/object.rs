//! OBJECT: how a value is kept, and how it was used.

use super::number::parse_i64;
use super::{help, record};
use crate::command::{Args, Exec, Scope, Spec, Subcommand};
use crate::refusal;
use alloc::vec::Vec;
use dkv_protocol::resp::reply;
use dkv_table::Usage;

const SUB: Subcommand = Subcommand {
    name: "",
    arity: 3,
    flags: &["readonly"],
    key_flags: &["RO"],
    categories: &["@keyspace", "@read", "@slow"],
    tips: &["nondeterministic_output"],
    summary: "",
    since: "2.2.3",
};

pub(super) const OBJECT: Spec = Spec {
    name: "OBJECT",
    arity: -2,
    first_key: 2,
    last_key: 2,
    key_step: 1,
    categories: &["@slow"],
    key_flags: &["RO"],
    subcommands: &[
        Subcommand {
            name: "encoding",
            summary: "Returns the internal encoding of a Redis object.",
            ..SUB
        },
        Subcommand {
            name: "freq",
            summary: "Returns the logarithmic access frequency counter of a Redis object.",
            since: "4.0.0",
            ..SUB
        },
        Subcommand {
            name: "idletime",
            summary: "Returns the time since the last access to a Redis object.",
            ..SUB
        },
        Subcommand {
            name: "refcount",
            summary: "Returns the reference count of a value of a key.",
            ..SUB
        },
        Subcommand {
            name: "help",
            arity: 2,
            flags: &["loading", "stale"],
            key_flags: &[],
            categories: &["@keyspace", "@slow"],
            tips: &[],
            summary: "Returns helpful text about the different subcommands.",
            since: "6.2.0",
        },
    ],
    scope: Scope::Keyed,
    handler: object,
    summary: "A container for object introspection commands.",
    since: "2.2.3",
    group: "generic",
    ..Spec::NOTHING
};

/// Longer values are not embedded in their object, in Redis.
const EMBEDDED_BYTES_MAX: usize = 44;

const NO_FREQUENCY: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
                            when switching between policies at runtime LRU and LFU data will take some time to adjust.";
const NO_IDLE_TIME: &str = "ERR An LRU maxmemory policy is not selected, idle time not tracked. Create the store with \
                            '--eviction allkeys-lru' or '--eviction volatile-lru' to have it.";

fn object(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if let Some(refusal) = refusal::check_subcommand(&OBJECT, args) {
        return refusal::write(refusal, Some(&OBJECT), args, out);
    }
    let is = |name: &str| args.get(1).eq_ignore_ascii_case(name.as_bytes());
    if is("HELP") {
        return help(
            "OBJECT",
            &[
                "ENCODING <key>",
                "    Return the kind of internal representation used in order to store the value",
                "    associated with a <key>.",
                "FREQ <key>",
                "    Return the access frequency index of the <key>. The returned integer is",
                "    proportional to the logarithm of the recent access frequency of the key.",
                "IDLETIME <key>",
                "    Return the idle time of the <key>, that is the approximated number of",
                "    seconds elapsed since the last access to the key.",
                "REFCOUNT <key>",
                "    Return the number of references of the value associated with the specified",
                "    <key>.",
            ],
            out,
        );
    }
    let key = args.get(2);
    let Some(place) = record::place(x, key, out) else { return };
    // Asking must not be a use.
    let usage = x.table.usage(x.now.boot_ms(), place, key);
    let Some(entry) = record::peek_quietly(x, place, key) else {
        return reply::null(out, x.proto);
    };
    match usage {
        _ if is("ENCODING") => reply::bulk(out, encoding(entry.value).as_bytes()),
        _ if is("REFCOUNT") => reply::integer(out, 1),
        Some(Usage::Frequency(count)) if is("FREQ") => reply::integer(out, count.into()),
        Some(Usage::IdleMs(ms)) if !is("FREQ") => reply::integer(out, (ms / 1000) as i64),
        _ if is("FREQ") => reply::error(out, NO_FREQUENCY),
        _ => reply::error(out, NO_IDLE_TIME),
    }
}

/// How Redis would keep a value that was just set.
fn encoding(value: &[u8]) -> &'static str {
    if parse_i64(value).is_some() {
        "int"
    } else if value.len() <= EMBEDDED_BYTES_MAX {
        "embstr"
    } else {
        "raw"
    }
}
