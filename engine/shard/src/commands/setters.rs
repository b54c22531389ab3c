//! SET in other words: GETSET, SETNX, SETEX, PSETEX and MSETNX.

use super::record::Ahead;
use super::{errors, expiry, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::resp::reply;
use dkv_table::Expiry;

const WRITE: Spec = Spec {
    flags: &["write", "denyoom", "fast"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@write", "@string", "@fast"],
    key_flags: &["OW", "insert"],
    scope: Scope::Keyed,
    write: true,
    since: "1.0.0",
    group: "string",
    ..Spec::NOTHING
};

const SLOW: Spec =
    Spec { flags: &["write", "denyoom"], categories: &["@write", "@string", "@slow"], ..WRITE };

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "GETSET",
        arity: 3,
        key_flags: &["RW", "access", "update"],
        handler: getset,
        summary: "Returns the previous string value of a key after setting it to a new value.",
        ..WRITE
    },
    Spec {
        name: "SETNX",
        arity: 3,
        handler: setnx,
        summary: "Sets the string value of a key only when the key doesn't exist.",
        ..WRITE
    },
    Spec {
        name: "SETEX",
        arity: 4,
        key_flags: &["OW", "update"],
        handler: |x, args, out| setex(x, args, expiry::Unit::Seconds, out),
        summary: "Sets the string value and the expiration time in seconds of a key.",
        since: "2.0.0",
        ..SLOW
    },
    Spec {
        name: "PSETEX",
        arity: 4,
        key_flags: &["OW", "update"],
        handler: |x, args, out| setex(x, args, expiry::Unit::Milliseconds, out),
        summary: "Sets the string value and the expiration time in milliseconds of a key.",
        since: "2.6.0",
        ..SLOW
    },
    Spec {
        name: "MSETNX",
        arity: -3,
        last_key: -1,
        key_step: 2,
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        handler: msetnx,
        summary: "Atomically sets the string values of one or more keys of one slot only when none \
                  of them exists.",
        since: "1.0.1",
        ..SLOW
    },
];

fn getset(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let (start, inserts) = (out.len(), x.inserts.as_ref().map_or(0, |inserts| inserts.len()));
    record::reply_value(x, place, key, out);
    let mut refusal = Vec::new();
    if !record::store_argument(x, place, key, args, 2, Expiry::Clear, &mut refusal) {
        out.truncate(start);
        if let Some(all) = &mut x.inserts {
            all.truncate(inserts);
        }
        out.extend_from_slice(&refusal);
    }
}

fn setnx(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    if record::peek(x, place, key).is_some() {
        return reply::integer(out, 0);
    }
    if record::store_argument(x, place, key, args, 2, Expiry::Clear, out) {
        reply::integer(out, 1);
    }
}

fn setex(x: &mut Exec<'_>, args: Args<'_>, unit: expiry::Unit, out: &mut Vec<u8>) {
    let at = match expiry::positive(x.now, args.get(2), unit, expiry::From::Now) {
        Ok(expiry::Deadline::At(at)) => at,
        Err(expiry::Refused::NotAnInteger) => return reply::error(out, errors::NOT_AN_INTEGER),
        Ok(expiry::Deadline::Past) | Err(expiry::Refused::Invalid) => {
            return errors::invalid_expire_time(args.get(0), out);
        }
    };
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    if record::store_argument(x, place, key, args, 3, Expiry::At(at), out) {
        reply::ok(out);
    }
}

/// All or none, also when memory runs out in the middle: what was stored is removed then, and nothing was there before.
fn msetnx(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let names = || args.iter_from(1).step_by(2);
    if !record::keys_fit(names(), out) {
        return;
    }
    let mut keys = Ahead::new(x, names());
    while let Some((key, place)) = keys.next(x) {
        if record::peek(x, place, key).is_some() {
            return reply::integer(out, 0);
        }
    }
    let mut keys = Ahead::new(x, names());
    let mut stored = 0;
    while let Some((key, place)) = keys.next(x) {
        if !record::store_argument(x, place, key, args, 2 + 2 * stored, Expiry::Clear, out) {
            let mut again = Ahead::new(x, names().take(stored));
            while let Some((key, place)) = again.next(x) {
                record::remove(x, place, key);
            }
            return;
        }
        stored += 1;
    }
    reply::integer(out, 1);
}
