//! Transactions: the facts about MULTI and its like, which the session executes, and what the owner of the keys is asked.
//!
//! What a client queued goes to the owner as one request, with the keys that it watches and how they were then. Between
//! two commands of it nobody else has a turn, and for the copies of the range its effects are one
//! ([`dkv_table::Table::begin_unit`]).
//!
//! `DKV.WATCH key…` answers a mark for each key: it stays the same for as long as nothing has happened to the key and the
//! same shard leads its range. `DKV.EXEC key watched commands (key mark)… (arguments name argument…)…` has the numbers as
//! four bytes, little endian; `key` is any of them, for those who route the request. `DKV.EXEC.RO` is the same when no
//! command writes.

use super::{errors, lookup, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use core::ops::Range;
use dkv_protocol::limits::TRANSACTION_WRITTEN_BYTES_MAX;
use dkv_protocol::resp::{reply, value};
use dkv_protocol::slots::slot_of;

pub(crate) const WATCH_REQUEST: &[u8] = b"DKV.WATCH";
pub(crate) const EXEC_REQUEST: &[u8] = b"DKV.EXEC";
pub(crate) const EXEC_READING_REQUEST: &[u8] = b"DKV.EXEC.RO";
/// Arguments of the latter two before the first watched key.
pub(crate) const EXEC_HEAD_ARGS: usize = 4;
/// Length of a mark.
pub(crate) const MARK_BYTES: usize = 32;

const WROTE_TOO_MUCH: &str =
    "ERR the transaction has written 256 MiB already; write the rest in another one";
const _: () = assert!(TRANSACTION_WRITTEN_BYTES_MAX == 256 << 20);

const FAST: Spec = Spec {
    arity: 1,
    flags: &["noscript", "loading", "stale", "fast", "allow_busy"],
    categories: &["@fast", "@transaction"],
    group: "transactions",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec { name: "MULTI", summary: "Starts a transaction.", since: "1.2.0", ..FAST },
    Spec {
        name: "EXEC",
        flags: &["noscript", "loading", "stale", "skip_slowlog"],
        categories: &["@slow", "@transaction"],
        summary: "Executes all commands in a transaction.",
        since: "1.2.0",
        ..FAST
    },
    Spec { name: "DISCARD", summary: "Discards a transaction.", since: "2.0.0", ..FAST },
    Spec {
        name: "WATCH",
        arity: -2,
        first_key: 1,
        last_key: -1,
        key_step: 1,
        key_flags: &["RO"],
        summary: "Monitors changes to keys to determine the execution of a transaction.",
        since: "2.2.0",
        ..FAST
    },
    Spec {
        name: "UNWATCH",
        summary: "Forgets about watched keys of a transaction.",
        since: "2.2.0",
        ..FAST
    },
];

pub(super) const WATCHING: Spec = Spec {
    name: "DKV.WATCH",
    arity: -2,
    first_key: 1,
    last_key: 1,
    key_step: 1,
    scope: Scope::Keyed,
    handler: watch,
    ..Spec::NOTHING
};

pub(super) const EXECUTING: Spec = Spec {
    name: "DKV.EXEC",
    arity: -(EXEC_HEAD_ARGS as i8),
    flags: &["denyoom"],
    long: true,
    write: true,
    handler: execute,
    ..WATCHING
};

pub(super) const EXECUTING_READS: Spec =
    Spec { name: "DKV.EXEC.RO", flags: &[], write: false, ..EXECUTING };

/// How a key stands: who says so, in which time of leading the range, and the version of its record, or that of the last
/// removal in its range when it is not there: a key that came and went since is found out, and now and then one that
/// never came is suspected.
fn mark(x: &mut Exec<'_>, key: &[u8]) -> [u8; MARK_BYTES] {
    let place = x.table.place(key, slot_of(key).0);
    if x.gates.is_some() {
        x.table.expire_if_due(x.now.boot_ms(), place, key);
    }
    let range = slot_of(key).range();
    let entry = record::look(x.table, x.gates, x.now.boot_ms(), place, key);
    let state = match entry {
        Some(entry) => entry.version << 1 | 1,
        None => x.table.last_removal(u16::from(range.0)) << 1,
    };
    let mut mark = [0; MARK_BYTES];
    let boot = x.env.run_id.as_bytes();
    let known = boot.len().min(16);
    mark[..known].copy_from_slice(&boot[..known]);
    mark[16..18].copy_from_slice(&x.me.node.0.to_le_bytes());
    mark[18..20].copy_from_slice(&x.me.shard.0.to_le_bytes());
    let reign = x.gates.map_or(0, |gates| gates.reign(range));
    mark[20..24].copy_from_slice(&reign.to_le_bytes());
    mark[24..].copy_from_slice(&state.to_le_bytes());
    mark
}

fn watch(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    reply::array(out, args.len() - 1);
    for key in args.iter_from(1) {
        reply::bulk(out, &mark(x, key));
    }
}

fn number(argument: &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(argument.try_into().ok()?) as usize)
}

/// Where the arguments of each command are, and how many keys are watched; none when the request is not one.
fn layout(args: Args<'_>) -> Option<(usize, Vec<Range<usize>>)> {
    let (watched, count) = (number(args.get(2))?, number(args.get(3))?);
    let mut at = EXEC_HEAD_ARGS.checked_add(watched.checked_mul(2)?)?;
    let mut commands = Vec::with_capacity(count.min(args.len()));
    for _ in 0..count {
        let len = number((at < args.len()).then(|| args.get(at))?)?;
        let end = at.checked_add(1)?.checked_add(len)?;
        if len == 0 || end > args.len() {
            return None;
        }
        commands.push(at + 1..end);
        at = end;
    }
    (at == args.len()).then_some((watched, commands))
}

/// The keys that the commands of a transaction write.
pub(crate) fn keys_written(args: Args<'_>) -> Vec<&[u8]> {
    let commands = layout(args).map_or_else(Vec::new, |(_, commands)| commands);
    let each = commands.into_iter().filter_map(|range| {
        let command = args.slice(range.start, range.len());
        let spec = lookup(command.get(0)).filter(|spec| spec.write)?;
        Some(spec.keys(command).collect::<Vec<_>>())
    });
    each.flatten().collect()
}

/// Whether a command of a transaction removes all keys.
pub(crate) fn flushes(args: Args<'_>) -> bool {
    let commands = layout(args).map_or_else(Vec::new, |(_, commands)| commands);
    commands.into_iter().any(|range| {
        let spec = lookup(args.slice(range.start, range.len()).get(0));
        spec.is_some_and(|spec| matches!(spec.name, "FLUSHALL" | "FLUSHDB"))
    })
}

fn execute(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    x.place = None;
    let Some((watched, commands)) = layout(args) else {
        return reply::error(out, "ERR a transaction that a shard does not understand");
    };
    for i in 0..watched {
        let at = EXEC_HEAD_ARGS + 2 * i;
        if mark(x, args.get(at)) != args.get(at + 1) {
            return reply::null_array(out, x.proto);
        }
    }
    reply::array(out, commands.len());
    let (start, inserts) = (out.len(), x.inserts.as_ref().map_or(0, |all| all.len()));
    if x.gates.is_some() {
        x.table.begin_unit(u16::from(slot_of(args.get(1)).range().0));
    }
    for command in commands {
        one(x, args.slice(command.start, command.len()), (start, inserts), out);
    }
    x.table.end_unit();
}

/// One command of a transaction, whose replies began where `begun` says, in the output and among the inserts.
fn one(x: &mut Exec<'_>, args: Args<'_>, begun: (usize, usize), out: &mut Vec<u8>) {
    // They were looked at when they were queued.
    let Some(spec) = lookup(args.get(0)).filter(|spec| super::fits(spec, args.len())) else {
        return super::unknown(args, out);
    };
    if spec.write && x.table.unit_bytes() > TRANSACTION_WRITTEN_BYTES_MAX {
        return reply::error(out, WROTE_TOO_MUCH);
    }
    x.place = None;
    let before = (out.len(), x.inserts.as_ref().map_or(0, |all| all.len()));
    (spec.handler)(x, args, out);
    // How long it took is told of EXEC.
    let number = super::number_of(spec, args);
    x.stats.of_commands.executed(number, 1, 0, false);
    if value::is_error(&out[before.0..]) {
        x.stats.error(&out[before.0..]);
        x.stats.of_commands.failed(number);
    }
    let inserted = x.inserts.as_ref().map_or(0, |all| {
        all.get(begun.1..).unwrap_or_default().iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    });
    if out.len() - begun.0 + inserted > record::REPLY_BYTES_MAX {
        // It has done what it does; only its reply is too much.
        out.truncate(before.0);
        if let Some(all) = &mut x.inserts {
            all.truncate(before.1);
        }
        reply::error(out, errors::REPLY_TOO_LONG);
    }
}
