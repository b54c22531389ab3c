//! Walking the keys: SCAN and KEYS.
//!
//! A cursor is a range of slots and a position in it, the same number whoever looks at it: a client may go on with it
//! at any node. A plain client walks all ranges in order, so a shard that has come to the end of its own run names the
//! first range of the next. KEYS is a walk that the session drives, in steps that are commands of their own.

use super::glob::{PATTERN_BYTES_MAX, Pattern};
use super::number::{parse_i64, parse_u64};
use super::{errors, record};
use crate::command::{Args, Exec, Merge, Scope, Spec};
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::{RANGES, SLOTS_PER_RANGE};
use dkv_protocol::resp::reply;
use dkv_protocol::slots::slot_of;

const LOOKING: Spec = Spec {
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
        ..LOOKING
    },
    Spec {
        name: "KEYS",
        arity: 2,
        categories: &["@keyspace", "@read", "@slow", "@dangerous"],
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        scope: Scope::Whole(Merge::Concat),
        summary: "Returns all key names that match a pattern.",
        ..LOOKING
    },
];

/// Where the range stands in a cursor; below it is the table's position in the range.
const RANGE_SHIFT: u32 = 48;

/// Keys that a call looks at when the client names no number (Redis' own), and at most: a greater COUNT is a wish.
const COUNT: i64 = 10;
const COUNT_MAX: i64 = 1000;

/// What a shard is asked for a step of a walk: `DKV.WALK cursor pattern`, or `DKV.WALK cursor * slot count` for keys of a
/// slot. The reply is where to go on, as an integer, and the keys.
pub(crate) const WALK_REQUEST: &[u8] = b"DKV.WALK";
/// Bytes of keys after which a step ends, or a call of SCAN.
pub(crate) const STEP_BYTES_MAX: usize = 64 * 1024;
/// What a step, or a call of SCAN, may cost, in nanoseconds as they are estimated below.
const STEP_NS_MAX: usize = 120_000;
/// A look at a key that is not in the processor's cache, and at the buckets of a few that are not there.
const KEY_NS: usize = 120;
const LOOK_NS: usize = 1_500;
/// Keys that are looked at before the cost is.
const LOOK: usize = 8;

/// The longest reply of a walk, and the refusal of a longer one.
pub(crate) const WALK_BYTES_MAX: usize = super::record::REPLY_BYTES_MAX;
pub(crate) const WALK_TOO_LONG: &str = errors::REPLY_TOO_LONG;

pub(super) const WALK: Spec =
    Spec { name: "DKV.WALK", arity: -3, scope: Scope::Cursor, handler: walk, ..Spec::NOTHING };

/// The same of some ranges in order, in a store with copies, where they change hands one by one:
/// `DKV.WALKRANGES cursor end pattern`. Asked of whoever leads the range of the cursor, it goes as far as that shard leads
/// what follows, and no further than to the range `end`. The reply is the same; where to go on is in a range that it did
/// not come to, or zero behind the last one.
pub(crate) const WALK_RANGES_REQUEST: &[u8] = b"DKV.WALKRANGES";
pub(super) const WALK_RANGES: Spec = Spec {
    name: "DKV.WALKRANGES",
    arity: 4,
    scope: Scope::Range,
    handler: walk_ranges,
    ..Spec::NOTHING
};

/// The cursor that names a range and no place in it.
pub(crate) const fn start_of(range: u16) -> u64 {
    (range as u64) << RANGE_SHIFT
}

/// The range of a cursor that is not at the end.
pub(crate) const fn range_at(cursor: u64) -> RangeId {
    RangeId((cursor >> RANGE_SHIFT) as u8)
}

/// The range that the cursor of a SCAN names, whose owner executes it on a client port; none when it names none (any
/// shard answers then).
pub fn cursor_range(args: Args<'_>) -> Option<RangeId> {
    let range = parse_u64(args.get(1))? >> RANGE_SHIFT;
    u8::try_from(range).ok().map(RangeId)
}

/// Whether a text is a pattern; otherwise the refusal is written.
pub(crate) fn is_pattern(text: &[u8], out: &mut Vec<u8>) -> bool {
    let fits = text.len() <= PATTERN_BYTES_MAX;
    if !fits {
        reply::error(out, errors::PATTERN_TOO_LONG);
    }
    fits
}

/// The pattern of MATCH or KEYS, compiled; outer none after a refusal, inner none when everything matches.
#[expect(clippy::option_option, reason = "a refusal is not the pattern that matches everything")]
fn pattern(text: &[u8], out: &mut Vec<u8>) -> Option<Option<Pattern>> {
    is_pattern(text, out).then(|| (text != b"*").then(|| Pattern::new(text)))
}

/// Looks at about `count` keys of `run`, or fewer when that is much work, and writes those that are wanted. Where to go
/// on, and how many were written.
fn look(
    x: &Exec<'_>,
    mut cursor: u64,
    run: &Range<u16>,
    count: usize,
    matching: Option<&Pattern>,
    wanted: &dyn Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) -> (u64, usize) {
    let (mut found, mut seen, mut cost_ns) = (0, 0, 0);
    if run.is_empty() {
        return (0, 0);
    }
    let first = run.start.max((cursor >> RANGE_SHIFT) as u16);
    let (cursor, found) = loop {
        let few = LOOK.min(count - seen);
        cursor = x.table.scan(x.now.boot_ms(), cursor, run.clone(), few, &mut |key, _| {
            seen += 1;
            cost_ns += KEY_NS + matching.map_or(0, |pattern| pattern.cost_ns(key));
            if wanted(key) && matching.is_none_or(|pattern| pattern.matches(key)) {
                reply::bulk(out, key);
                found += 1;
            }
        });
        cost_ns += LOOK_NS;
        if cursor == 0 || seen >= count || cost_ns > STEP_NS_MAX || out.len() > STEP_BYTES_MAX {
            break (cursor, found);
        }
    };
    let end = if cursor == 0 { run.end } else { run.end.min((cursor >> RANGE_SHIFT) as u16 + 1) };
    record::look_at_ranges(x, first..end);
    (cursor, found)
}

/// The ranges that are walked here from `range` on: all that this shard leads, or with `alone` those up to the first that
/// it does not lead.
fn run_from(x: &Exec<'_>, range: u16, alone: bool) -> Range<u16> {
    if x.gates.is_none() {
        return x.env.map.run(x.me);
    }
    let led = |range: &u16| x.table.leads(*range);
    let Some(start) = (range..RANGES as u16).find(led) else { return 0..0 };
    if alone {
        start..(start..RANGES as u16).find(|range| !led(range)).unwrap_or(RANGES as u16)
    } else {
        start..RANGES as u16
    }
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

    let range = cursor >> RANGE_SHIFT;
    let run = run_from(x, u16::try_from(range).unwrap_or(u16::MAX), x.whole_store);
    let ours = cursor == 0
        || x.gates.is_some()
        || (u64::from(run.start)..u64::from(run.end)).contains(&range);
    let mut found = 0;
    let mut elements = Vec::new();
    if ours && !run.is_empty() {
        let end = run.end;
        let matching = matching.as_ref();
        (cursor, found) =
            look(x, cursor, &run, count as usize, matching, &|_| strings, &mut elements);
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

/// A step of a walk; see [`WALK_REQUEST`].
fn walk(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(cursor) = parse_u64(args.get(1)) else {
        return reply::error(out, errors::INVALID_CURSOR);
    };
    let Some(matching) = pattern(args.get(2), out) else { return };
    let mut run = run_from(x, 0, false);
    let mut elements = Vec::new();
    let (mut next, mut found) = (0, 0);
    if let Some((slot, count)) = slot_of_walk(args) {
        let range = slot / SLOTS_PER_RANGE;
        let ours = run.contains(&range) && (x.gates.is_none() || x.table.leads(range));
        run = if ours { range..range + 1 } else { 0..0 };
        let left = Cell::new(count);
        let wanted = |key: &[u8]| {
            let of_slot = left.get() > 0 && slot_of(key).0 == slot;
            left.set(left.get() - usize::from(of_slot));
            of_slot
        };
        if count > 0 {
            (next, found) = look(x, cursor, &run, usize::MAX, None, &wanted, &mut elements);
        }
    } else {
        (next, found) =
            look(x, cursor, &run, usize::MAX, matching.as_ref(), &|_| true, &mut elements);
    }
    reply::array(out, 2);
    reply::integer(out, next as i64);
    reply::array(out, found);
    out.append(&mut elements);
}

/// See [`WALK_RANGES_REQUEST`].
fn walk_ranges(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let ends = parse_u64(args.get(1)).zip(parse_u64(args.get(2)));
    let Some((cursor, end)) = ends.filter(|(_, end)| *end <= RANGES as u64) else {
        return reply::error(out, errors::INVALID_CURSOR);
    };
    let Some(matching) = pattern(args.get(3), out) else { return };
    let run = run_from(x, (cursor >> RANGE_SHIFT) as u16, true);
    let run = run.start..run.end.min(end as u16);
    let mut elements = Vec::new();
    let (mut next, found) =
        look(x, cursor, &run, usize::MAX, matching.as_ref(), &|_| true, &mut elements);
    if next == 0 && u64::from(run.end) < end {
        next = start_of(run.end);
    }
    reply::array(out, 2);
    reply::integer(out, next as i64);
    reply::array(out, found);
    out.append(&mut elements);
}

fn slot_of_walk(args: Args<'_>) -> Option<(u16, usize)> {
    if args.len() < 5 {
        return None;
    }
    let slot = u16::try_from(parse_u64(args.get(3))?).ok()?;
    Some((slot, parse_u64(args.get(4))? as usize))
}

/// The reply to a step: where to go on, how many keys, and the keys. None: it is something else.
pub(crate) fn step_of(reply: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (cursor, rest) = line_of(reply.strip_prefix(b"*2\r\n:")?)?;
    let (count, elements) = line_of(rest.strip_prefix(b"*")?)?;
    Some((cursor, count as usize, elements))
}

fn line_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(24).position(|byte| *byte == b'\r')?;
    Some((parse_u64(&bytes[..end])?, bytes.get(end + 2..)?))
}
