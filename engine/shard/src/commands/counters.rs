//! Counters: strings that hold a number in decimal.

use super::number::parse_i64;
use super::{errors, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::resp::reply;
use dkv_table::Expiry;

const COUNTER: Spec = Spec {
    flags: &["write", "denyoom", "fast"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@write", "@string", "@fast"],
    key_flags: &["RW", "access", "update"],
    scope: Scope::Keyed,
    write: true,
    since: "1.0.0",
    group: "string",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "INCR",
        arity: 2,
        handler: |x, args, out| add(x, args, 1, out),
        summary: "Increments the integer value of a key by one. Uses 0 as initial value if the \
                  key doesn't exist.",
        ..COUNTER
    },
    Spec {
        name: "DECR",
        arity: 2,
        handler: |x, args, out| add(x, args, -1, out),
        summary: "Decrements the integer value of a key by one. Uses 0 as initial value if the \
                  key doesn't exist.",
        ..COUNTER
    },
    Spec {
        name: "INCRBY",
        arity: 3,
        handler: incrby,
        summary: "Increments the integer value of a key by a number. Uses 0 as initial value if \
                  the key doesn't exist.",
        ..COUNTER
    },
    Spec {
        name: "DECRBY",
        arity: 3,
        handler: decrby,
        summary: "Decrements a number from the integer value of a key. Uses 0 as initial value \
                  if the key doesn't exist.",
        ..COUNTER
    },
];

fn incrby(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    match parse_i64(args.get(2)) {
        Some(step) => add(x, args, step, out),
        None => reply::error(out, errors::NOT_AN_INTEGER),
    }
}

fn decrby(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    match parse_i64(args.get(2)).map(i64::checked_neg) {
        Some(Some(step)) => add(x, args, step, out),
        Some(None) => reply::error(out, errors::DECREMENT_OVERFLOW),
        None => reply::error(out, errors::NOT_AN_INTEGER),
    }
}

/// The expiry stays: a counter with a time limit is what rate limiters are made of.
fn add(x: &mut Exec<'_>, args: Args<'_>, step: i64, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let old = match record::peek(x, place, key) {
        None => 0,
        Some(entry) => match parse_i64(entry.value) {
            Some(n) => n,
            None => return reply::error(out, errors::NOT_AN_INTEGER),
        },
    };
    let Some(new) = old.checked_add(step) else {
        return reply::error(out, errors::OVERFLOW);
    };
    let mut text = itoa::Buffer::new();
    if record::store(x, place, key, text.format(new).as_bytes(), Expiry::Keep, out) {
        reply::integer(out, new);
    }
}
