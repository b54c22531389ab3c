//! INCRBYFLOAT: strings that hold a number with a fraction.

use super::extended::{Number, parse};
use super::record;
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::resp::reply;
use dkv_table::Expiry;

pub(super) const INCRBYFLOAT: Spec = Spec {
    name: "INCRBYFLOAT",
    arity: 3,
    flags: &["write", "denyoom", "fast"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@write", "@string", "@fast"],
    key_flags: &["RW", "access", "update"],
    scope: Scope::Keyed,
    write: true,
    handler: incrbyfloat,
    summary: "Increments the floating point value of a key by a number. Uses 0 as initial value if \
              the key doesn't exist.",
    since: "2.6.0",
    group: "string",
    ..Spec::NOTHING
};

const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const INFINITE: &str = "ERR increment would produce NaN or Infinity";

/// The expiry stays, as with the other counters.
fn incrbyfloat(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let old = match record::peek(x, place, key) {
        None => parse(b"0"),
        Some(entry) => parse(entry.value),
    };
    let (Some(old), Some(step)) = (old, parse(args.get(2))) else {
        return reply::error(out, NOT_A_FLOAT);
    };
    let sum = match (old, step) {
        (Number::Finite(old), Number::Finite(step)) => old.add(step),
        _ => None,
    };
    let Some(sum) = sum else { return reply::error(out, INFINITE) };
    let text = sum.format();
    if record::store(x, place, key, &text, Expiry::Keep, out) {
        reply::bulk(out, &text);
    }
}
