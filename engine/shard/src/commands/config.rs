//! CONFIG GET: the settings that clients and exporters ask for, each as it really is here. Nothing can be set: a store's
//! settings are its definition, which the manager keeps. RESETSTAT begins the counters of INFO anew.

use super::glob::{PATTERN_BYTES_MAX, Pattern};
use super::{errors, help, unknown_subcommand, wrong_arity};
use crate::command::{Args, Exec, Scope, Spec, Subcommand};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use dkv_protocol::limits::{CLIENTS_MAX, VALUE_BYTES_MAX};
use dkv_protocol::resp::reply;

pub(super) const CONFIG: Spec = Spec {
    name: "CONFIG",
    arity: -2,
    categories: &["@slow"],
    subcommands: &[
        Subcommand {
            name: "get",
            arity: -3,
            flags: &["admin", "noscript", "loading", "stale"],
            key_flags: &[],
            categories: &["@admin", "@slow", "@dangerous"],
            tips: &[],
            summary: "Returns the effective values of configuration parameters.",
            since: "2.0.0",
        },
        Subcommand {
            name: "help",
            arity: 2,
            flags: &["loading", "stale"],
            key_flags: &[],
            categories: &["@slow"],
            tips: &[],
            summary: "Returns helpful text about the different subcommands.",
            since: "5.0.0",
        },
        Subcommand {
            name: "resetstat",
            arity: 2,
            flags: &["admin", "noscript", "loading", "stale"],
            key_flags: &[],
            categories: &["@admin", "@slow", "@dangerous"],
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            summary: "Resets the server's statistics.",
            since: "2.0.0",
        },
    ],
    scope: Scope::Anywhere,
    handler: config,
    summary: "A container for server configuration commands.",
    since: "2.0.0",
    group: "server",
    ..Spec::NOTHING
};

/// What a parameter says.
enum Value {
    Always(&'static str),
    Of(fn(&Exec<'_>) -> String),
}
use Value::{Always, Of};

const PARAMETERS: &[(&str, Value)] = &[
    ("appendonly", Always("no")),
    ("bind", Of(bind)),
    ("cluster-enabled", Always("yes")),
    ("cluster-require-full-coverage", Always("no")),
    ("databases", Always("1")),
    ("io-threads", Of(|x| x.env.map.node(x.me.node).shard_ports.len().to_string())),
    ("maxclients", Of(|_| CLIENTS_MAX.to_string())),
    ("maxmemory", Of(|x| memory_bytes_max(x).to_string())),
    ("maxmemory-policy", Of(|x| x.env.eviction.to_string())),
    ("notify-keyspace-events", Always("")),
    ("port", Of(|x| port(x).to_string())),
    ("proto-max-bulk-len", Of(|_| VALUE_BYTES_MAX.to_string())),
    ("protected-mode", Of(|x| yes_or_no(x.env.protected_mode))),
    ("replica-read-only", Always("yes")),
    // Only that there is one: what is kept is its hash, and not even that is shown.
    (
        "requirepass",
        Of(|x| String::from(if x.env.password_sha256.is_some() { "*****" } else { "" })),
    ),
    ("save", Always("")),
    ("slave-read-only", Always("yes")),
    ("slowlog-log-slower-than", Always("-1")),
    ("slowlog-max-len", Always("0")),
    ("timeout", Always("0")),
];

/// The memory limit that the reader is subject to: the node's, or on a shard port the shard's part of it.
pub(super) fn memory_bytes_max(x: &Exec<'_>) -> u64 {
    if x.whole_store {
        x.env.memory_bytes_max
    } else {
        x.env.memory_bytes_max / x.env.map.node(x.me.node).shard_ports.len().max(1) as u64
    }
}

/// The port that the reader is connected to, as far as that can be known here.
pub(super) fn port(x: &Exec<'_>) -> u16 {
    if x.whole_store {
        return x.env.client_port;
    }
    let ports = &x.env.map.node(x.me.node).shard_ports;
    ports.get(x.me.shard.0 as usize).copied().unwrap_or(x.env.client_port)
}

fn bind(x: &Exec<'_>) -> String {
    let address = x.env.address;
    if address.is_loopback() { address.to_string() } else { format!("127.0.0.1 {address}") }
}

fn yes_or_no(yes: bool) -> String {
    String::from(if yes { "yes" } else { "no" })
}

fn config(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let is = |name: &str| args.get(1).eq_ignore_ascii_case(name.as_bytes());
    match args.len() {
        3.. if is("GET") => get(x, args, out),
        2 if is("HELP") => help(
            "CONFIG",
            &[
                "GET <pattern> [<pattern> ...]",
                "    Return parameters matching the glob-like patterns and their values.",
                "RESETSTAT",
                "    Reset statistics reported by the INFO command.",
            ],
            out,
        ),
        2 if is("RESETSTAT") => {
            match x.env.stats.get(x.me.shard.0 as usize) {
                Some(own) if !x.whole_store => own.reset(),
                _ => x.env.stats.iter().for_each(|shard| shard.reset()),
            }
            reply::ok(out);
        }
        _ if is("RESETSTAT") => wrong_arity("config|resetstat", out),
        _ if is("GET") => wrong_arity("config|get", out),
        _ if is("HELP") => wrong_arity("config|help", out),
        _ => unknown_subcommand("CONFIG", args.get(1), out),
    }
}

fn get(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !super::names_bearable(args.len() - 2, out) {
        return;
    }
    let mut wanted = vec![false; PARAMETERS.len()];
    for text in args.iter_from(2) {
        if text.len() > PATTERN_BYTES_MAX {
            return reply::error(out, errors::PATTERN_TOO_LONG);
        }
        let pattern = Pattern::new(&text.to_ascii_lowercase());
        for ((name, _), wanted) in PARAMETERS.iter().zip(&mut wanted) {
            *wanted |= pattern.matches(name.as_bytes());
        }
    }
    reply::map(out, x.proto, wanted.iter().filter(|w| **w).count());
    for ((name, value), _) in PARAMETERS.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
        reply::bulk(out, name.as_bytes());
        match value {
            Always(text) => reply::bulk(out, text.as_bytes()),
            Of(text) => reply::bulk(out, text(x).as_bytes()),
        }
    }
}
