//! Parts of strings: GETRANGE, SUBSTR and SETRANGE.

use super::number::parse_i64;
use super::{errors, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;

const READ: Spec = Spec {
    arity: 4,
    flags: &["readonly"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@read", "@string", "@slow"],
    key_flags: &["RO", "access"],
    scope: Scope::Keyed,
    handler: getrange,
    summary: "Returns a substring of the string stored at a key.",
    group: "string",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec { name: "GETRANGE", since: "2.4.0", ..READ },
    Spec { name: "SUBSTR", since: "1.0.0", ..READ },
    Spec {
        name: "SETRANGE",
        flags: &["write", "denyoom"],
        categories: &["@write", "@string", "@slow"],
        key_flags: &["RW", "update"],
        write: true,
        handler: setrange,
        summary: "Overwrites a part of a string value with another by an offset. Creates the key \
                  if it doesn't exist.",
        since: "2.2.0",
        ..READ
    },
];

/// The positions of a whole of `len` that a client means by the first and the last of them, both included, negative ones
/// counting from its end. None: none at all.
pub(super) fn span(start: i64, end: i64, len: usize) -> Option<core::ops::RangeInclusive<usize>> {
    if start < 0 && end < 0 && start > end || len == 0 {
        return None;
    }
    // At most 2^32 bits of a value.
    let len = len as i64;
    let from_start = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(len - 1));
    (start <= end).then_some(start as usize..=end as usize)
}

fn getrange(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let (Some(start), Some(end)) = (parse_i64(args.get(2)), parse_i64(args.get(3))) else {
        return reply::error(out, errors::NOT_AN_INTEGER);
    };
    let Some(place) = record::place(x, key, out) else { return };
    let entry = record::look(x.table, x.gates, x.now.boot_ms(), place, key);
    record::count(x.stats, entry.is_some());
    match entry.and_then(|entry| Some((entry, span(start, end, entry.value.len())?))) {
        Some((entry, span)) => record::write_part(entry, span, &mut x.inserts, out),
        None => reply::bulk(out, b""),
    }
}

fn setrange(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let (key, bytes) = (args.get(1), args.get(3));
    let Some(offset) = parse_i64(args.get(2)) else {
        return reply::error(out, errors::NOT_AN_INTEGER);
    };
    let Ok(offset) = usize::try_from(offset) else {
        return reply::error(out, "ERR offset is out of range");
    };
    let Some(place) = record::place(x, key, out) else { return };
    if bytes.is_empty() {
        let len = record::peek(x, place, key).map_or(0, |entry| entry.value.len());
        return reply::integer(out, len as i64);
    }
    if offset.saturating_add(bytes.len()) > VALUE_BYTES_MAX {
        return reply::error(out, errors::TOO_LONG);
    }
    if let Some(len) = record::patch(x, place, key, offset, bytes, out) {
        reply::integer(out, len as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn negative_positions_count_from_the_end_and_nothing_lies_outside() {
        for (start, end, len, wanted) in [
            (0, -1, 5, Some((0, 4))),
            (0, 0, 5, Some((0, 0))),
            (-3, -2, 5, Some((2, 3))),
            (-100, 100, 5, Some((0, 4))),
            (1, 100, 5, Some((1, 4))),
            (5, 100, 5, None),
            (3, 2, 5, None),
            (-1, -2, 5, None),
            // Both lie before the start, which is then meant twice.
            (-100, -50, 5, Some((0, 0))),
            (0, -1, 0, None),
            (i64::MIN, i64::MAX, 5, Some((0, 4))),
            (i64::MAX, i64::MAX, 5, None),
            (i64::MIN, i64::MIN, 5, Some((0, 0))),
        ] {
            let found = span(start, end, len).map(|span| (*span.start(), *span.end()));
            assert_eq!(found, wanted, "{start} {end} of {len}");
        }
    }
}
