//! Keys as such: removing, asking whether they are there, counting them, clearing them.

use super::record::Ahead;
use super::{errors, record, scan};
use crate::command::{Args, Exec, Merge, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::reply;

const MANY: Spec = Spec {
    arity: -2,
    flags: &["readonly", "fast"],
    first_key: 1,
    last_key: -1,
    key_step: 1,
    categories: &["@keyspace", "@read", "@fast"],
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    key_flags: &["RO"],
    scope: Scope::Split(Merge::Sum),
    group: "generic",
    ..Spec::NOTHING
};

const FLUSH: Spec = Spec {
    arity: -1,
    flags: &["write"],
    categories: &["@keyspace", "@write", "@slow", "@dangerous"],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    scope: Scope::Whole(Merge::Ok),
    write: true,
    handler: flush,
    group: "server",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "DEL",
        flags: &["write"],
        categories: &["@keyspace", "@write", "@slow"],
        key_flags: &["RM", "delete"],
        write: true,
        handler: delete,
        summary: "Deletes one or more keys.",
        since: "1.0.0",
        ..MANY
    },
    Spec {
        name: "UNLINK",
        flags: &["write", "fast"],
        categories: &["@keyspace", "@write", "@fast"],
        key_flags: &["RM", "delete"],
        write: true,
        handler: delete,
        summary: "Deletes one or more keys.",
        since: "4.0.0",
        ..MANY
    },
    Spec {
        name: "EXISTS",
        handler: exists,
        summary: "Determines whether one or more keys exist.",
        since: "1.0.0",
        ..MANY
    },
    Spec {
        name: "TOUCH",
        handler: exists,
        summary: "Returns the number of existing keys out of those specified.",
        since: "3.2.1",
        ..MANY
    },
    Spec {
        name: "TYPE",
        arity: 2,
        last_key: 1,
        tips: &[],
        scope: Scope::Keyed,
        handler: type_of,
        summary: "Determines the type of value stored at a key.",
        since: "1.0.0",
        ..MANY
    },
    Spec {
        name: "DBSIZE",
        arity: 1,
        flags: &["readonly", "fast"],
        categories: &["@keyspace", "@read", "@fast"],
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        scope: Scope::Whole(Merge::Sum),
        handler: dbsize,
        summary: "Returns the number of keys.",
        since: "1.0.0",
        group: "server",
        ..Spec::NOTHING
    },
    Spec { name: "FLUSHALL", summary: "Removes all keys.", since: "1.0.0", ..FLUSH },
    Spec {
        name: "FLUSHDB",
        summary: "Removes all keys; there is one database.",
        since: "1.0.0",
        ..FLUSH
    },
];

fn delete(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !record::keys_fit(args.iter_from(1), out) {
        return;
    }
    let mut removed = 0;
    let mut keys = Ahead::new(x, args.iter_from(1));
    while let Some((key, place)) = keys.next(x) {
        removed += i64::from(record::remove(x, place, key));
    }
    reply::integer(out, removed);
}

/// A key that is named twice counts twice, as in Redis.
fn exists(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !record::keys_fit(args.iter_from(1), out) {
        return;
    }
    let mut found = 0;
    let mut keys = Ahead::new(x, args.iter_from(1));
    while let Some((key, place)) = keys.next(x) {
        found += i64::from(record::read(x, place, key).is_some());
    }
    reply::integer(out, found);
}

fn type_of(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    reply::simple(out, if record::read(x, place, key).is_some() { "string" } else { "none" });
}

/// What the leader of a range is asked in a store with copies, where ranges change hands one by one: how many keys the
/// range has, and to remove them all. The range is named as by a cursor.
pub(super) const COUNT: Spec =
    Spec { name: "DKV.COUNT", arity: 2, scope: Scope::Range, handler: count, ..Spec::NOTHING };
pub(super) const CLEAR: Spec = Spec {
    name: "DKV.CLEAR",
    arity: 2,
    scope: Scope::Range,
    write: true,
    handler: clear,
    ..Spec::NOTHING
};

/// What is asked of each range for DBSIZE, FLUSHALL and FLUSHDB. An error instead when the arguments make no sense.
pub(crate) fn of_each_range(spec: &Spec, args: Args<'_>) -> Result<&'static Spec, &'static str> {
    match spec.name {
        "DBSIZE" => Ok(&COUNT),
        _ if is_flush(args) => Ok(&CLEAR),
        _ => Err(errors::SYNTAX),
    }
}

fn dbsize(x: &mut Exec<'_>, _args: Args<'_>, out: &mut Vec<u8>) {
    record::look_at_ranges(x, 0..RANGES as u16);
    reply::integer(out, x.table.len() as i64);
}

/// ASYNC and SYNC are one: the table gives its memory back in either case before the next command runs.
fn flush(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !is_flush(args) {
        return reply::error(out, errors::SYNTAX);
    }
    x.table.clear();
    reply::ok(out);
}

fn is_flush(args: Args<'_>) -> bool {
    match args.len() {
        1 => true,
        2 => [b"ASYNC".as_slice(), b"SYNC"].iter().any(|w| args.get(1).eq_ignore_ascii_case(w)),
        _ => false,
    }
}

fn count(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(RangeId(range)) = scan::cursor_range(args) else {
        return reply::error(out, errors::INVALID_CURSOR);
    };
    record::look_at_ranges(x, u16::from(range)..u16::from(range) + 1);
    reply::integer(out, x.table.len_of_range(u16::from(range)) as i64);
}

fn clear(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(RangeId(range)) = scan::cursor_range(args) else {
        return reply::error(out, errors::INVALID_CURSOR);
    };
    x.table.clear_range(u16::from(range));
    reply::ok(out);
}
