//! Walking the keys: SCAN and KEYS.
//!
//! A cursor is a range of slots and a position in it, the same number whoever looks at it: a client may go on with it
//! at any node. A plain client walks all ranges in order, so a shard that has come to the end of its own run names the
//! first range of the next.

use super::errors;
use super::glob::{PATTERN_BYTES_MAX, Pattern};
use super::number::{parse_i64, parse_u64};
use super::record::REPLY_BYTES_MAX;
use crate::command::{Args, Exec, Merge, Scope, Spec};
use alloc::vec::Vec;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::reply;

const WALK: Spec = Spec {
    flags: &["readonly", "touches_arbitrary_keys"],
    since: "1.0.0",
    group: "generic",
    ..Spec::NOTHING
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "SCAN",
        arity: -2,
        categories: &["@keyspace", "@read", "@slow"],
        tips: &["nondeterministic_output", "request_policy:special", "response_policy:special"],
        scope: Scope::Cursor,
        handler: scan,
        summary: "Iterates over the key names in the database.",
        since: "2.8.0",
        ..WALK
    },
    Spec {
        name: "KEYS",
        arity: 2,
        categories: &["@keyspace", "@read", "@slow", "@dangerous"],
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        scope: Scope::Whole(Merge::Concat),
        handler: keys,
        summary: "Returns all key names that match a pattern.",
        ..WALK
    },
];

/// Where the range stands in a cursor; below it is the table's position in the range.
const RANGE_SHIFT: u32 = 48;

/// Keys that a call looks at when the client names no number (Redis' own), and at most: a greater COUNT is a wish, and
/// one turn must stay short.
const COUNT: i64 = 10;
const COUNT_MAX: i64 = 10_000;

/// The range that the cursor of a SCAN names, whose owner executes it on a client port; none when it names none (any
/// shard answers then).
pub fn cursor_range(args: Args<'_>) -> Option<RangeId> {
    let range = parse_u64(args.get(1))? >> RANGE_SHIFT;
    u8::try_from(range).ok().map(RangeId)
}

/// The pattern of MATCH or KEYS, compiled; outer none after a refusal, inner none when everything matches.
#[expect(clippy::option_option, reason = "a refusal is not the pattern that matches everything")]
fn pattern(text: &[u8], out: &mut Vec<u8>) -> Option<Option<Pattern>> {
    if text.len() > PATTERN_BYTES_MAX {
        reply::error(out, errors::PATTERN_TOO_LONG);
        return None;
    }
    Some((text != b"*").then(|| Pattern::new(text)))
}

fn scan(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(mut cursor) = parse_u64(args.get(1)) else {
        return reply::error(out, errors::INVALID_CURSOR);
    };
    let mut count = COUNT;
    let mut matching = None;
    let mut strings = true;
    let mut rest = args.iter_from(2);
    while let Some(word) = rest.next() {
        let Some(value) = rest.next() else { return reply::error(out, errors::SYNTAX) };
        match () {
            () if word.eq_ignore_ascii_case(b"COUNT") => match parse_i64(value) {
                None => return reply::error(out, errors::NOT_AN_INTEGER),
                Some(..1) => return reply::error(out, errors::SYNTAX),
                Some(n) => count = n.min(COUNT_MAX),
            },
            () if word.eq_ignore_ascii_case(b"MATCH") => match pattern(value, out) {
                None => return,
                Some(pattern) => matching = pattern,
            },
            // A type that does not exist has no keys, as in Redis.
            () if word.eq_ignore_ascii_case(b"TYPE") => {
                strings = value.eq_ignore_ascii_case(b"string");
            }
            () => return reply::error(out, errors::SYNTAX),
        }
    }

    let run = x.env.map.run(x.me);
    let range = cursor >> RANGE_SHIFT;
    let ours = cursor == 0 || (u64::from(run.start)..u64::from(run.end)).contains(&range);
    let mut found = 0;
    let mut elements = Vec::new();
    if ours && !run.is_empty() {
        let end = run.end;
        cursor = x.table.scan(x.now.boot_ms(), cursor, run, count as usize, &mut |key, _| {
            if strings && matching.as_ref().is_none_or(|pattern| pattern.matches(key)) {
                reply::bulk(&mut elements, key);
                found += 1;
            }
        });
        if cursor == 0 && x.whole_store && usize::from(end) < RANGES {
            cursor = u64::from(end) << RANGE_SHIFT;
        }
    } else {
        // No shard gave such a cursor: nothing is left to walk.
        cursor = 0;
    }
    reply::array(out, 2);
    reply::bulk(out, itoa::Buffer::new().format(cursor).as_bytes());
    reply::array(out, found);
    out.append(&mut elements);
}

fn keys(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(matching) = pattern(args.get(1), out) else { return };
    let run = x.env.map.run(x.me);
    let mut found = 0;
    let mut elements = Vec::new();
    let mut cursor = 0;
    while !run.is_empty() {
        cursor = x.table.scan(
            x.now.boot_ms(),
            cursor,
            run.clone(),
            COUNT_MAX as usize,
            &mut |key, _| {
                if matching.as_ref().is_none_or(|pattern| pattern.matches(key)) {
                    reply::bulk(&mut elements, key);
                    found += 1;
                }
            },
        );
        if elements.len() > REPLY_BYTES_MAX {
            return reply::error(out, errors::REPLY_TOO_LONG);
        }
        if cursor == 0 {
            break;
        }
    }
    reply::array(out, found);
    out.append(&mut elements);
}
