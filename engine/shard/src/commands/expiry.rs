//! Expiry: when a key ends, in the words of clients (seconds or milliseconds, from now or calendar time) and in those
//! of the table (CLOCK_BOOTTIME milliseconds).
//!
//! A deadline is kept on the clock that nobody can set, so that a corrected wall clock neither kills keys nor keeps
//! them. Calendar time is translated when a client speaks it.

use super::number::parse_i64;
use super::{errors, record};
use crate::command::{Args, Exec, Now, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::resp::reply;
use dkv_table::Place;

const WRITE: Spec = Spec {
    arity: -3,
    flags: &["write", "fast"],
    categories: &["@keyspace", "@write", "@fast"],
    key_flags: &["RW", "update"],
    write: true,
    ..READ
};

const READ: Spec = Spec {
    arity: 2,
    flags: &["readonly", "fast"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@keyspace", "@read", "@fast"],
    key_flags: &["RO", "access"],
    scope: Scope::Keyed,
    group: "generic",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "EXPIRE",
        handler: |x, args, out| expire(x, args, Unit::Seconds, From::Now, out),
        summary: "Sets the expiration time of a key in seconds.",
        since: "1.0.0",
        ..WRITE
    },
    Spec {
        name: "PEXPIRE",
        handler: |x, args, out| expire(x, args, Unit::Milliseconds, From::Now, out),
        summary: "Sets the expiration time of a key in milliseconds.",
        since: "2.6.0",
        ..WRITE
    },
    Spec {
        name: "EXPIREAT",
        handler: |x, args, out| expire(x, args, Unit::Seconds, From::Epoch, out),
        summary: "Sets the expiration time of a key to a Unix timestamp.",
        since: "1.2.0",
        ..WRITE
    },
    Spec {
        name: "PEXPIREAT",
        handler: |x, args, out| expire(x, args, Unit::Milliseconds, From::Epoch, out),
        summary: "Sets the expiration time of a key to a Unix milliseconds timestamp.",
        since: "2.6.0",
        ..WRITE
    },
    Spec {
        name: "TTL",
        tips: &["nondeterministic_output"],
        handler: |x, args, out| time_left(x, args, Unit::Seconds, From::Now, out),
        summary: "Returns the expiration time in seconds of a key.",
        since: "1.0.0",
        ..READ
    },
    Spec {
        name: "PTTL",
        tips: &["nondeterministic_output"],
        handler: |x, args, out| time_left(x, args, Unit::Milliseconds, From::Now, out),
        summary: "Returns the expiration time in milliseconds of a key.",
        since: "2.6.0",
        ..READ
    },
    Spec {
        name: "EXPIRETIME",
        handler: |x, args, out| time_left(x, args, Unit::Seconds, From::Epoch, out),
        summary: "Returns the expiration time of a key as a Unix timestamp.",
        since: "7.0.0",
        ..READ
    },
    Spec {
        name: "PEXPIRETIME",
        handler: |x, args, out| time_left(x, args, Unit::Milliseconds, From::Epoch, out),
        summary: "Returns the expiration time of a key as a Unix milliseconds timestamp.",
        since: "7.0.0",
        ..READ
    },
    Spec {
        name: "PERSIST",
        arity: 2,
        handler: persist,
        summary: "Removes the expiration time of a key.",
        since: "2.2.0",
        ..WRITE
    },
];

/// What a client's number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// What a client's number counts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Now,
    /// 1970: calendar time.
    Epoch,
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// It has ended already.
    Past,
    /// CLOCK_BOOTTIME, milliseconds.
    At(u64),
}

/// Why a client's number is no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotAnInteger,
    /// Zero, negative where that makes no sense, or beyond what 64 bits hold.
    Invalid,
}

/// A client's number as calendar time in milliseconds, which may lie in the past.
fn unix_ms(now: Now, n: i64, unit: Unit, from: From) -> Option<i64> {
    let ms = match unit {
        Unit::Seconds => n.checked_mul(1000)?,
        Unit::Milliseconds => n,
    };
    match from {
        From::Now => ms.checked_add(now.unix_ms as i64),
        From::Epoch => Some(ms),
    }
}

/// Calendar time on the table's clock.
fn deadline_of(now: Now, unix_ms: i64) -> Deadline {
    match u64::try_from(unix_ms).ok().and_then(|at| at.checked_sub(now.unix_ms)) {
        None | Some(0) => Deadline::Past,
        // At most 2^63 ahead of a clock that has counted milliseconds since this machine's start: it cannot wrap.
        Some(ahead) => Deadline::At(now.boot_ms().saturating_add(ahead)),
    }
}

/// A moment of the table's clock as calendar time, for clients.
fn calendar_ms(now: Now, boot_ms: u64) -> i64 {
    i64::try_from(u128::from(boot_ms) + u128::from(now.unix_ms) - u128::from(now.boot_ms()))
        .unwrap_or(i64::MAX)
}

/// The deadline that SET and GETEX are given, which must be greater than 0.
pub(super) fn positive(now: Now, text: &[u8], unit: Unit, from: From) -> Result<Deadline, Refused> {
    let n = parse_i64(text).ok_or(Refused::NotAnInteger)?;
    if n <= 0 {
        return Err(Refused::Invalid);
    }
    unix_ms(now, n, unit, from).map(|at| deadline_of(now, at)).ok_or(Refused::Invalid)
}

/// Sets or clears the expiry of a key that is there, and counts it as a write.
pub(super) fn change(x: &mut Exec<'_>, place: Place, key: &[u8], deadline: Option<u64>) {
    if x.table.set_expiry(x.now.boot_ms(), place, key, deadline).is_some() {
        x.stats.puts.add(1);
    }
}

/// NX, XX, GT and LT.
#[derive(Default)]
struct Conditions {
    absent: bool,
    present: bool,
    greater: bool,
    less: bool,
}

/// The words from argument 3 on; none after a refusal was written.
fn conditions(args: Args<'_>, out: &mut Vec<u8>) -> Option<Conditions> {
    let mut found = Conditions::default();
    for word in args.iter_from(3) {
        match () {
            () if word.eq_ignore_ascii_case(b"NX") => found.absent = true,
            () if word.eq_ignore_ascii_case(b"XX") => found.present = true,
            () if word.eq_ignore_ascii_case(b"GT") => found.greater = true,
            () if word.eq_ignore_ascii_case(b"LT") => found.less = true,
            () => {
                let mut text = Vec::from(b"ERR Unsupported option ");
                text.extend_from_slice(super::head(word, super::QUOTED_BYTES_MAX));
                // Line breaks at its end are not quoted, as in Redis.
                while text.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                    text.pop();
                }
                reply::error_bytes(out, &text);
                return None;
            }
        }
    }
    if found.absent && (found.present || found.greater || found.less) {
        reply::error(out, "ERR NX and XX, GT or LT options at the same time are not compatible");
        return None;
    }
    if found.greater && found.less {
        reply::error(out, "ERR GT and LT options at the same time are not compatible");
        return None;
    }
    Some(found)
}

fn expire(x: &mut Exec<'_>, args: Args<'_>, unit: Unit, from: From, out: &mut Vec<u8>) {
    let Some(conditions) = conditions(args, out) else { return };
    let Some(n) = parse_i64(args.get(2)) else {
        return reply::error(out, errors::NOT_AN_INTEGER);
    };
    let Some(wanted) = unix_ms(x.now, n, unit, from) else {
        return errors::invalid_expire_time(args.get(0), out);
    };
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let Some(entry) = record::peek(x, place, key) else { return reply::integer(out, 0) };
    let current = entry.expires_at_ms.map(|at| calendar_ms(x.now, at));
    // A key without an expiry ends later than any that has one.
    let holds = !(conditions.absent && current.is_some()
        || conditions.present && current.is_none()
        || conditions.greater && current.is_none_or(|current| wanted <= current)
        || conditions.less && current.is_some_and(|current| wanted >= current));
    if holds {
        match deadline_of(x.now, wanted) {
            Deadline::Past => {
                record::remove(x, place, key);
            }
            Deadline::At(at) => change(x, place, key, Some(at)),
        }
    }
    reply::integer(out, i64::from(holds));
}

fn persist(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let had = record::peek(x, place, key).is_some_and(|entry| entry.expires_at_ms.is_some());
    if had {
        change(x, place, key, None);
    }
    reply::integer(out, i64::from(had));
}

/// -2: no such key; -1: no expiry.
fn time_left(x: &mut Exec<'_>, args: Args<'_>, unit: Unit, from: From, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    let ms = match record::read(x, place, key).map(|entry| entry.expires_at_ms) {
        None => return reply::integer(out, -2),
        Some(None) => return reply::integer(out, -1),
        Some(Some(at)) => match from {
            From::Now => i64::try_from(at.saturating_sub(x.now.boot_ms())).unwrap_or(i64::MAX),
            From::Epoch => calendar_ms(x.now, at),
        },
    };
    reply::integer(
        out,
        match unit {
            Unit::Milliseconds => ms,
            // To the nearest, as Redis rounds.
            Unit::Seconds => ms.saturating_add(500) / 1000,
        },
    );
}
