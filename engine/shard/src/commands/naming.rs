//! Keys that change or share their names: RENAME, RENAMENX, COPY and RANDOMKEY.
//!
//! The new name is written before the old one goes, so that a copy of the range that gets only the first of the two effects
//! has the value twice, never not at all.

use super::number::parse_i64;
use super::record::Kept;
use super::{errors, record};
use crate::command::{Args, Exec, Keys, Merge, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::reply;
use dkv_table::{Expiry, Place};

const TWO_KEYS: Spec = Spec {
    arity: 3,
    flags: &["write"],
    first_key: 1,
    last_key: 2,
    key_step: 1,
    categories: &["@keyspace", "@write", "@slow"],
    key_flags: &["RW", "access", "delete"],
    other_keys: Some(Keys { first: 2, last: 2, flags: &["OW", "update"] }),
    scope: Scope::Keyed,
    write: true,
    since: "1.0.0",
    group: "generic",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "RENAME",
        handler: |x, args, out| rename(x, args, false, out),
        summary: "Renames a key and overwrites the destination, in one slot.",
        ..TWO_KEYS
    },
    Spec {
        name: "RENAMENX",
        flags: &["write", "fast"],
        categories: &["@keyspace", "@write", "@fast"],
        other_keys: Some(Keys { first: 2, last: 2, flags: &["OW", "insert"] }),
        handler: |x, args, out| rename(x, args, true, out),
        summary: "Renames a key only when the target key name doesn't exist, in one slot.",
        ..TWO_KEYS
    },
    Spec {
        name: "COPY",
        arity: -3,
        flags: &["write", "denyoom"],
        key_flags: &["RO", "access"],
        handler: copy,
        summary: "Copies the value of a key to a new key, in one slot.",
        since: "6.2.0",
        ..TWO_KEYS
    },
    Spec {
        name: "RANDOMKEY",
        arity: 1,
        flags: &["readonly"],
        categories: &["@keyspace", "@read", "@slow"],
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        scope: Scope::Whole(Merge::Random),
        handler: randomkey,
        summary: "Returns a random key name from the database.",
        since: "1.0.0",
        group: "generic",
        ..Spec::NOTHING
    },
];

const NOT_32_BITS: &str =
    "ERR value is out of range, value must between -2147483648 and 2147483647";
const NO_SUCH_KEY: &str = "ERR no such key";

/// A value and its expiry, out of the table's hands.
fn taken(x: &Exec<'_>, place: Place, key: &[u8]) -> Option<(Kept, Expiry)> {
    let entry = record::peek(x, place, key)?;
    Some((Kept::of(entry), entry.expires_at_ms.map_or(Expiry::Clear, Expiry::At)))
}

fn rename(x: &mut Exec<'_>, args: Args<'_>, only_new: bool, out: &mut Vec<u8>) {
    let (from, to) = (args.get(1), args.get(2));
    let Some(place) = record::place(x, from, out) else { return };
    let Some(target) = record::another(x, to, out) else { return };
    let Some((value, expiry)) = taken(x, place, from) else {
        return reply::error(out, NO_SUCH_KEY);
    };
    let taken = from == to || only_new && record::peek(x, target, to).is_some();
    if !taken {
        if !record::store_entry(x, target, to, &value, expiry, out) {
            return;
        }
        record::remove(x, place, from);
    }
    if only_new {
        reply::integer(out, i64::from(!taken));
    } else {
        reply::ok(out);
    }
}

fn copy(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let (from, to) = (args.get(1), args.get(2));
    let mut replace = false;
    let mut rest = args.iter_from(3);
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"REPLACE") {
            replace = true;
            continue;
        }
        let number = if word.eq_ignore_ascii_case(b"DB") { rest.next() } else { None };
        let Some(number) = number else { return reply::error(out, errors::SYNTAX) };
        match parse_i64(number) {
            Some(0) => {}
            Some(n) if i32::try_from(n).is_err() => return reply::error(out, NOT_32_BITS),
            Some(_) => return reply::error(out, "ERR DB index is out of range"),
            None => return reply::error(out, errors::NOT_AN_INTEGER),
        }
    }
    if from == to {
        return reply::error(out, "ERR source and destination objects are the same");
    }
    let Some(place) = record::place(x, from, out) else { return };
    let Some(target) = record::another(x, to, out) else { return };
    let Some((value, expiry)) = taken(x, place, from) else { return reply::integer(out, 0) };
    if !replace && record::peek(x, target, to).is_some() {
        return reply::integer(out, 0);
    }
    if record::store_entry(x, target, to, &value, expiry, out) {
        reply::integer(out, 1);
    }
}

/// What the shards of a store are asked for a key by chance: how many keys each has, and one of them.
pub(crate) const RANDOM_REQUEST: &[u8] = b"DKV.RANDOM";

pub(super) const RANDOM: Spec = Spec {
    name: "DKV.RANDOM",
    arity: 1,
    scope: Scope::Whole(Merge::Random),
    handler: |x, _, out| {
        reply::array(out, 2);
        reply::integer(out, x.table.len() as i64);
        random(x, out);
    },
    ..Spec::NOTHING
};

fn randomkey(x: &mut Exec<'_>, _: Args<'_>, out: &mut Vec<u8>) {
    random(x, out);
}

fn random(x: &Exec<'_>, out: &mut Vec<u8>) {
    record::look_at_ranges(x, 0..RANGES as u16);
    match x.table.random(x.now.boot_ms(), x.table.chance()) {
        Some((key, _)) => reply::bulk(out, key),
        None => reply::null(out, x.proto),
    }
}

/// The reply to [`RANDOM_REQUEST`]: how many keys, and the reply of RANDOMKEY.
pub(crate) fn random_of(reply: &[u8]) -> Option<(u64, &[u8])> {
    let rest = reply.strip_prefix(b"*2\r\n:")?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    Some((super::number::parse_u64(&rest[..end])?, rest.get(end + 2..)?))
}
