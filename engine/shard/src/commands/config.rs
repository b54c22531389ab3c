//! CONFIG: the settings that clients and exporters ask for, each as it really is here, and those that can be changed while a node
//! runs (`config_set`). RESETSTAT begins the counters of INFO anew.
//!
//! As in Redis it speaks of one node. What a store keeps is its definition, which the managers have.

use super::config_set::{self, Sets};
use super::glob::{PATTERN_BYTES_MAX, Pattern};
use super::{errors, help};
use crate::command::{Args, Exec, Scope, Spec, Subcommand};
use crate::refusal;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use config_set::Sets::{Integer, Memory, YesOrNo};
use dkv_protocol::limits::{CLIENTS_MAX, VALUE_BYTES_MAX};
use dkv_protocol::resp::reply;

const SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["admin", "noscript", "loading", "stale"],
    key_flags: &[],
    categories: &["@admin", "@slow", "@dangerous"],
    tips: &[],
    summary: "",
    since: "2.0.0",
};
const EVERYWHERE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub(super) const CONFIG: Spec = Spec {
    name: "CONFIG",
    arity: -2,
    categories: &["@slow"],
    subcommands: &[
        Subcommand {
            name: "get",
            arity: -3,
            summary: "Returns the effective values of configuration parameters.",
            ..SUB
        },
        Subcommand {
            name: "help",
            flags: &["loading", "stale"],
            categories: &["@slow"],
            summary: "Returns helpful text about the different subcommands.",
            since: "5.0.0",
            ..SUB
        },
        Subcommand {
            name: "resetstat",
            tips: EVERYWHERE,
            summary: "Resets the server's statistics.",
            ..SUB
        },
        Subcommand {
            name: "rewrite",
            tips: EVERYWHERE,
            summary: "Persists the effective configuration to file; there is none, and it says so.",
            since: "2.8.0",
            ..SUB
        },
        Subcommand {
            name: "set",
            arity: -4,
            tips: EVERYWHERE,
            summary: "Sets configuration parameters of a node in-flight.",
            ..SUB
        },
    ],
    scope: Scope::Session,
    handler: config,
    summary: "A container for server configuration commands.",
    since: "2.0.0",
    group: "server",
    ..Spec::NOTHING
};

/// What a parameter says.
enum Shows {
    Always(&'static str),
    Of(fn(&Exec<'_>) -> String),
    /// What was set.
    Set,
}
use Shows::{Always, Of, Set};

/// A parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    shows: Shows,
    pub(super) sets: Sets,
}

const fn fixed(name: &'static str, shows: Shows, hint: &'static str) -> Parameter {
    Parameter { name, shows, sets: Sets::Never(hint) }
}

const fn settable(name: &'static str, sets: Sets) -> Parameter {
    Parameter { name, shows: Set, sets }
}

const OF_STORE: &str = "it belongs to the store: see 'dkv store create --help'";
const NO_FILES: &str =
    "a store lives in memory and keeps copies on other nodes: 'dkv store create --replicas N'";
const PASSWORD: &str =
    "the store has one password on all nodes: 'dkv store create --password-file FILE'";
const PROTECTED: &str = "it belongs to the store: 'dkv store create --no-protected-mode', or a password with \
                         '--password-file FILE'";
const PORT: &str = "it belongs to the store: 'dkv store create --client-port N'";
const THREADS: &str = "a node has a thread for each of its CPUs: 'dkv store create --cpus N'";
const NO_EVENTS: &str =
    "keyspace notifications are not there; clients that cache use CLIENT TRACKING";

/// Entries of the slow log that may be asked for: some 300 MiB of them.
const SLOWLOG_LEN_MAX: i64 = 65_536;
/// Most seconds that are believed (Redis' own).
const SECONDS_MAX: i64 = i32::MAX as i64;

pub(super) const PARAMETERS: &[Parameter] = &[
    fixed("appendonly", Always("no"), NO_FILES),
    fixed("bind", Of(bind), OF_STORE),
    settable("client-output-buffer-limit", Sets::OutputLimits),
    fixed("cluster-enabled", Always("yes"), ""),
    fixed("cluster-require-full-coverage", Always("no"), ""),
    fixed("databases", Always("1"), "a store has one database, as a Redis cluster"),
    fixed("io-threads", Of(|x| x.env.map.node(x.me.node).shard_ports.len().to_string()), THREADS),
    settable("latency-monitor-threshold", Integer(0, i64::MAX, |s| &s.latency_threshold_ms)),
    settable("latency-tracking", YesOrNo(|s| &s.latency_tracking)),
    fixed("latency-tracking-info-percentiles", Always("50 99 99.9"), ""),
    settable("maxclients", Integer(1, CLIENTS_MAX as i64, |s| &s.clients_max)),
    Parameter {
        name: "maxmemory",
        shows: Of(|x| memory_bytes_max(x).to_string()),
        sets: Memory(|s| &s.memory_bytes_max),
    },
    settable("maxmemory-policy", Sets::Policy),
    fixed("notify-keyspace-events", Always(""), NO_EVENTS),
    fixed("port", Of(|x| port(x).to_string()), PORT),
    fixed("proto-max-bulk-len", Of(|_| VALUE_BYTES_MAX.to_string()), ""),
    fixed("protected-mode", Of(|x| yes_or_no(x.env.protected_mode)), PROTECTED),
    fixed("replica-read-only", Always("yes"), ""),
    // Only that there is one: what is kept is its hash, and not even that is shown.
    fixed(
        "requirepass",
        Of(|x| String::from(if x.env.password_sha256.is_some() { "*****" } else { "" })),
        PASSWORD,
    ),
    fixed("save", Always(""), NO_FILES),
    fixed("slave-read-only", Always("yes"), ""),
    settable("slowlog-log-slower-than", Integer(-1, i64::MAX, |s| &s.slowlog_slower_than_us)),
    settable("slowlog-max-len", Integer(0, SLOWLOG_LEN_MAX, |s| &s.slowlog_len_max)),
    settable("tcp-keepalive", Integer(0, SECONDS_MAX, |s| &s.tcp_keepalive_s)),
    settable("timeout", Integer(0, SECONDS_MAX, |s| &s.timeout_s)),
    settable("tracking-table-max-keys", Integer(0, i64::MAX, |s| &s.tracking_keys_max)),
];

/// What CONFIG GET says of a parameter.
pub(super) fn shown(x: &Exec<'_>, parameter: &Parameter) -> String {
    match parameter.shows {
        Always(text) => text.into(),
        Of(text) => text(x),
        Set => config_set::show(&x.env.settings, &parameter.sets),
    }
}

/// The memory limit that the reader is subject to: the node's, or on a shard port the shard's part of it.
pub(super) fn memory_bytes_max(x: &Exec<'_>) -> u64 {
    if x.whole_store {
        x.env.settings.memory_bytes_max.get()
    } else {
        x.env.shard_memory_bytes_max()
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

const NO_FILE: &str = "ERR The server is running without a config file: what CONFIG SET changes lasts until the node \
                       restarts, and a store keeps what 'dkv store create' was given";

/// The handler; the session calls it, so that what is set holds for the next command already.
pub(crate) fn config(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if let Some(refusal) = refusal::check_subcommand(&CONFIG, args) {
        return refusal::write(refusal, Some(&CONFIG), args, out);
    }
    match refusal::subcommand_of(&CONFIG, args) {
        "get" => get(x, args, out),
        "set" => config_set::set(x, args, out),
        "rewrite" => reply::error(out, NO_FILE),
        "resetstat" => {
            match x.env.stats.get(x.me.shard.0 as usize) {
                Some(own) if !x.whole_store => own.reset(),
                _ => x.env.stats.iter().for_each(|shard| shard.reset()),
            }
            reply::ok(out);
        }
        _ => help(
            "CONFIG",
            &[
                "GET <pattern>",
                "    Return parameters matching the glob-like <pattern> and their values.",
                "SET <directive> <value>",
                "    Set the configuration <directive> to <value>.",
                "RESETSTAT",
                "    Reset statistics reported by the INFO command.",
                "REWRITE",
                "    Rewrite the configuration file.",
            ],
            out,
        ),
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
        for (parameter, wanted) in PARAMETERS.iter().zip(&mut wanted) {
            *wanted |= pattern.matches(parameter.name.as_bytes());
        }
    }
    reply::map(out, x.proto, wanted.iter().filter(|w| **w).count());
    for (parameter, _) in PARAMETERS.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
        reply::bulk(out, parameter.name.as_bytes());
        reply::bulk(out, shown(x, parameter).as_bytes());
    }
}
