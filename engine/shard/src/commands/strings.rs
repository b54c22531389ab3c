//! Strings: reading, writing and the options of SET and GETEX.

use super::record::Ahead;
use super::{errors, expiry, record};
use crate::command::{Args, Exec, Merge, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;
use dkv_table::Expiry;

const ONE_KEY: Spec = Spec {
    first_key: 1,
    last_key: 1,
    key_step: 1,
    scope: Scope::Keyed,
    group: "string",
    ..Spec::NOTHING
};

const READ: Spec = Spec {
    flags: &["readonly", "fast"],
    categories: &["@read", "@string", "@fast"],
    key_flags: &["RO", "access"],
    ..ONE_KEY
};

const WRITE: Spec = Spec {
    flags: &["write", "fast"],
    categories: &["@write", "@string", "@fast"],
    write: true,
    ..ONE_KEY
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "GET",
        arity: 2,
        handler: get,
        summary: "Returns the string value of a key.",
        since: "1.0.0",
        ..READ
    },
    Spec {
        name: "SET",
        arity: -3,
        flags: &["write", "denyoom"],
        categories: &["@write", "@string", "@slow"],
        key_flags: &["RW", "access", "update", "variable_flags"],
        key_notes: "RW and ACCESS due to the optional `GET` argument",
        handler: set,
        summary: "Sets the string value of a key, ignoring its type. The key is created if it \
                  doesn't exist.",
        since: "1.0.0",
        ..WRITE
    },
    Spec {
        name: "GETDEL",
        arity: 2,
        key_flags: &["RW", "access", "delete"],
        handler: getdel,
        summary: "Returns the string value of a key after deleting the key.",
        since: "6.2.0",
        ..WRITE
    },
    Spec {
        name: "GETEX",
        arity: -2,
        key_flags: &["RW", "access", "update"],
        key_notes: "RW and UPDATE because it changes the TTL",
        handler: getex,
        summary: "Returns the string value of a key after setting its expiration time.",
        since: "6.2.0",
        ..WRITE
    },
    Spec {
        name: "MGET",
        arity: -2,
        last_key: -1,
        tips: &["request_policy:multi_shard"],
        scope: Scope::Split(Merge::InOrder),
        handler: mget,
        summary: "Atomically returns the string values of one or more keys of one slot; each key \
                  by itself otherwise.",
        since: "1.0.0",
        ..READ
    },
    Spec {
        name: "MSET",
        arity: -3,
        last_key: -1,
        key_step: 2,
        flags: &["write", "denyoom"],
        categories: &["@write", "@string", "@slow"],
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        key_flags: &["OW", "update"],
        scope: Scope::Split(Merge::Ok),
        handler: mset,
        summary: "Creates or modifies the string values of one or more keys, each key by itself.",
        since: "1.0.1",
        ..WRITE
    },
    Spec {
        name: "APPEND",
        arity: 3,
        flags: &["write", "denyoom", "fast"],
        key_flags: &["RW", "insert"],
        handler: append,
        summary: "Appends a string to the value of a key. Creates the key if it doesn't exist.",
        since: "2.0.0",
        ..WRITE
    },
    Spec {
        name: "STRLEN",
        arity: 2,
        key_flags: &["RO"],
        handler: strlen,
        summary: "Returns the length of a string value.",
        since: "2.2.0",
        ..READ
    },
    Spec {
        name: "DKV.GETV",
        arity: 2,
        handler: getv,
        summary: "Returns the value of a key and its version, which grows with every write.",
        since: "7.2.0",
        ..READ
    },
];

fn get(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place_as_it_is(x, key, out) else { return };
    if !record::reply_value(x, place, key, out) {
        record::expire(x, place, key);
    }
}

fn strlen(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let len = record::read(x, place, key).map_or(0, |entry| entry.value.len());
    reply::integer(out, len as i64);
}

fn getv(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    match record::read(x, place, key) {
        Some(entry) => {
            reply::array(out, 2);
            reply::bulk(out, entry.value);
            reply::integer(out, entry.version as i64);
        }
        None => reply::null_array(out, x.proto),
    }
}

fn mget(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    mget_within(x, args, record::REPLY_BYTES_MAX, out);
}

pub(super) fn mget_within(
    x: &mut Exec<'_>,
    args: Args<'_>,
    reply_bytes_max: usize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let inserts = x.inserts.as_ref().map_or(0, |inserts| inserts.len());
    let mut inserted = 0;
    if !record::keys_fit(args.iter_from(1), out) {
        return;
    }
    reply::array(out, args.len() - 1);
    let mut keys = Ahead::new(x, args.iter_from(1));
    while let Some((key, place)) = keys.next(x) {
        let entry = record::look(x.table, x.gates, x.now.boot_ms(), place, key);
        record::count(x.stats, entry.is_some());
        let Some(entry) = entry else {
            reply::null(out, x.proto);
            continue;
        };
        if out.len() - start + inserted + entry.value.len() > reply_bytes_max {
            out.truncate(start);
            if let Some(all) = &mut x.inserts {
                all.truncate(inserts);
            }
            return reply::error(out, errors::REPLY_TOO_LONG);
        }
        inserted += record::write_value(entry, &mut x.inserts, out);
    }
}

/// Keys that were stored before memory ran out stay stored: the error says that not all were.
fn mset(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    if !record::keys_fit(args.iter_from(1).step_by(2), out) {
        return;
    }
    let mut keys = Ahead::new(x, args.iter_from(1).step_by(2));
    let mut value = 2;
    while let Some((key, place)) = keys.next(x) {
        if !record::store_argument(x, place, key, args, value, Expiry::Clear, out) {
            return;
        }
        value += 2;
    }
    reply::ok(out);
}

fn append(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let (key, tail) = (args.get(1), args.get(2));
    let Some(place) = record::place(x, key, out) else { return };
    let len = record::peek(x, place, key).map_or(0, |entry| entry.value.len());
    if len + tail.len() > VALUE_BYTES_MAX {
        reply::error(out, errors::TOO_LONG);
        return;
    }
    match x.table.append(x.now.boot_ms(), place, key, tail) {
        Ok(len) => {
            x.stats.puts.add(1);
            reply::integer(out, len as i64);
        }
        Err(_) => reply::error(out, errors::OUT_OF_MEMORY),
    }
}

fn getdel(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    if record::reply_value(x, place, key, out) {
        record::remove(x, place, key);
    }
}

/// When SET stores.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Always,
    Absent,
    Present,
    Equal(&'a [u8]),
}

/// What SET and GETEX are asked to do with the expiry.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// Nothing was said: SET clears it, GETEX leaves it.
    Unsaid,
    Keep,
    Persist,
    At {
        text: &'a [u8],
        unit: expiry::Unit,
        from: expiry::From,
    },
}

struct Options<'a> {
    condition: Condition<'a>,
    get: bool,
    change: Change<'a>,
}

/// Which of the two commands the options are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Set,
    Getex,
}

/// The options from argument `from` on; none when they make no sense together.
fn options(args: Args<'_>, from: usize, dialect: Dialect) -> Option<Options<'_>> {
    let mut found = Options { condition: Condition::Always, get: false, change: Change::Unsaid };
    let mut rest = args.iter_from(from);
    while let Some(word) = rest.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if dialect == Dialect::Set {
            let condition = match () {
                () if is("NX") => Some(Condition::Absent),
                () if is("XX") => Some(Condition::Present),
                () if is("IFEQ") => Some(Condition::Equal(rest.next()?)),
                () => None,
            };
            if let Some(condition) = condition {
                // The same word twice is as good as once, two different ones are not.
                let same = match (found.condition, condition) {
                    (Condition::Always, _)
                    | (Condition::Absent, Condition::Absent)
                    | (Condition::Present, Condition::Present) => true,
                    (Condition::Equal(a), Condition::Equal(b)) => a == b,
                    _ => false,
                };
                if !same {
                    return None;
                }
                found.condition = condition;
                continue;
            }
            if is("GET") {
                found.get = true;
                continue;
            }
        }
        let change = match () {
            () if is("KEEPTTL") && dialect == Dialect::Set => Change::Keep,
            () if is("PERSIST") && dialect == Dialect::Getex => Change::Persist,
            () => {
                let (unit, from) = match () {
                    () if is("EX") => (expiry::Unit::Seconds, expiry::From::Now),
                    () if is("PX") => (expiry::Unit::Milliseconds, expiry::From::Now),
                    () if is("EXAT") => (expiry::Unit::Seconds, expiry::From::Epoch),
                    () if is("PXAT") => (expiry::Unit::Milliseconds, expiry::From::Epoch),
                    () => return None,
                };
                Change::At { text: rest.next()?, unit, from }
            }
        };
        match (found.change, change) {
            (Change::Unsaid, _)
            | (Change::Keep, Change::Keep)
            | (Change::Persist, Change::Persist) => found.change = change,
            // Redis takes the last of two equal words (EX 1 EX 2) and refuses different ones.
            (
                Change::At { unit, from, .. },
                Change::At { unit: next_unit, from: next_from, .. },
            ) if unit == next_unit && from == next_from => found.change = change,
            _ => return None,
        }
    }
    Some(found)
}

/// The deadline that `text` names; none after a refusal was written.
fn deadline(
    x: &Exec<'_>,
    args: Args<'_>,
    change: Change<'_>,
    out: &mut Vec<u8>,
) -> Option<expiry::Deadline> {
    let Change::At { text, unit, from } = change else { return Some(expiry::Deadline::Past) };
    match expiry::positive(x.now, text, unit, from) {
        Ok(deadline) => Some(deadline),
        Err(expiry::Refused::NotAnInteger) => {
            reply::error(out, errors::NOT_AN_INTEGER);
            None
        }
        Err(expiry::Refused::Invalid) => {
            errors::invalid_expire_time(args.get(0), out);
            None
        }
    }
}

fn set(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    if args.len() == 3 {
        let Some(place) = record::place_as_it_is(x, key, out) else { return };
        if record::store_argument(x, place, key, args, 2, Expiry::Clear, out) {
            reply::ok(out);
        }
        return;
    }
    let Some(options) = options(args, 3, Dialect::Set) else {
        return reply::error(out, errors::SYNTAX);
    };
    let expiry = match options.change {
        Change::Unsaid | Change::Persist => Some(Expiry::Clear),
        Change::Keep => Some(Expiry::Keep),
        Change::At { .. } => match deadline(x, args, options.change, out) {
            None => return,
            Some(expiry::Deadline::Past) => None,
            Some(expiry::Deadline::At(at)) => Some(Expiry::At(at)),
        },
    };
    let Some(place) = record::place(x, key, out) else { return };
    let reply_start = out.len();
    let old = if options.get { record::read(x, place, key) } else { record::peek(x, place, key) };
    let holds = match options.condition {
        Condition::Always => true,
        Condition::Absent => old.is_none(),
        Condition::Present => old.is_some(),
        Condition::Equal(wanted) => old.is_some_and(|entry| entry.value == wanted),
    };
    if options.get {
        match old {
            Some(entry) => reply::bulk(out, entry.value),
            None => reply::null(out, x.proto),
        }
    }
    if !holds {
        if !options.get {
            reply::null(out, x.proto);
        }
        return;
    }
    match expiry {
        // A deadline that has passed: what is stored is gone at once.
        None => {
            record::remove(x, place, key);
        }
        Some(expiry) => {
            let mut refusal = Vec::new();
            if !record::store_argument(x, place, key, args, 2, expiry, &mut refusal) {
                out.truncate(reply_start);
                out.extend_from_slice(&refusal);
                return;
            }
        }
    }
    if !options.get {
        reply::ok(out);
    }
}

fn getex(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(options) = options(args, 2, Dialect::Getex) else {
        return reply::error(out, errors::SYNTAX);
    };
    let Some(place) = record::place(x, key, out) else { return };
    let entry = record::look(x.table, x.gates, x.now.boot_ms(), place, key);
    record::count(x.stats, entry.is_some());
    let Some(entry) = entry else { return reply::null(out, x.proto) };
    let wanted = match options.change {
        Change::Unsaid | Change::Keep => {
            record::write_value(entry, &mut x.inserts, out);
            return;
        }
        Change::Persist => None,
        Change::At { .. } => match deadline(x, args, options.change, out) {
            None => return,
            Some(deadline) => Some(deadline),
        },
    };
    let had_expiry = entry.expires_at_ms.is_some();
    record::write_value(entry, &mut x.inserts, out);
    match wanted {
        None if had_expiry => expiry::change(x, place, key, None),
        None => {}
        Some(expiry::Deadline::At(at)) => expiry::change(x, place, key, Some(at)),
        Some(expiry::Deadline::Past) => {
            record::remove(x, place, key);
        }
    }
}
