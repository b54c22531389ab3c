//! DKV.HOTKEYS: which keys are asked for most, counted for as long as somebody wants to know.

use super::number;
use crate::command::{Args, Scope, Spec, Subcommand};
use alloc::vec::Vec;
use dkv_protocol::resp::{reply, value};

const PART: Subcommand = Subcommand {
    name: "",
    arity: -2,
    flags: &["admin", "noscript", "loading", "stale"],
    key_flags: &[],
    categories: &["@admin", "@slow", "@dangerous"],
    tips: &["request_policy:all_nodes", "response_policy:special"],
    summary: "",
    since: "7.2.0",
};

pub(super) const HOTKEYS: Spec = Spec {
    name: "DKV.HOTKEYS",
    arity: -2,
    categories: &["@slow"],
    scope: Scope::Session,
    subcommands: &[
        Subcommand {
            name: "start",
            arity: 3,
            summary: "Counts how often keys are used on this node for so many seconds.",
            ..PART
        },
        Subcommand {
            name: "get",
            summary: "Returns the keys that were used most since the counting began.",
            ..PART
        },
    ],
    summary: "A container for commands about the keys that are used most.",
    since: "7.2.0",
    group: "server",
    ..Spec::NOTHING
};

/// Keys that are shown when nobody says how many.
const SHOWN: usize = 10;
/// Longest time of counting, in seconds.
const SECONDS_MAX: u64 = 3600;

pub(crate) const INVALID_SECONDS: &str =
    "ERR invalid time: a number of seconds from 1 to 3600 is expected";
pub(crate) const INVALID_COUNT: &str = "ERR invalid count: a number from 1 to 512 is expected";
const _: () = assert!(crate::hotkeys::PLACES == 512 && SECONDS_MAX == 3600);
pub(crate) const NOT_STARTED: &str =
    "ERR no keys are counted on this node: DKV.HOTKEYS START <seconds> begins it, for so long";

/// For how many seconds DKV.HOTKEYS START is to count.
pub(crate) fn seconds(args: Args<'_>) -> Option<u64> {
    number::parse_u64(args.get(2)).filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
}

/// How many keys DKV.HOTKEYS GET is to show.
pub(crate) fn count(args: Args<'_>) -> Option<usize> {
    match args.len() {
        2 => Some(SHOWN),
        3 => {
            let count = usize::try_from(number::parse_u64(args.get(2))?).ok()?;
            (1..=crate::hotkeys::PLACES).contains(&count).then_some(count)
        }
        _ => None,
    }
}

/// A key with how often it was used: `count` may be too great by `error`, and `writes` of them wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) count: u64,
    pub(crate) error: u64,
    pub(crate) writes: u64,
}

/// Writes milliseconds of counting, uses of all keys, and the keys.
pub(crate) fn write<'a>(
    elapsed_ms: u64,
    seen: u64,
    used: impl ExactSizeIterator<Item = Used<'a>>,
    out: &mut Vec<u8>,
) {
    reply::array(out, 3);
    reply::integer(out, elapsed_ms as i64);
    reply::integer(out, seen as i64);
    reply::array(out, used.len());
    for one in used {
        reply::array(out, 4);
        reply::bulk(out, one.key);
        for n in [one.count, one.error, one.writes] {
            reply::integer(out, n as i64);
        }
    }
}

/// What one shard wrote.
fn read(part: &[u8]) -> Option<(u64, u64, Vec<Used<'_>>)> {
    let number = |n: &[u8]| value::integer(n).and_then(|n| u64::try_from(n).ok());
    let mut fields = value::elements(part).ok()?;
    let elapsed_ms = number(fields.next()?.ok()?)?;
    let seen = number(fields.next()?.ok()?)?;
    let used = value::elements(fields.next()?.ok()?).ok()?.filter_map(|one| {
        let mut fields = value::elements(one.ok()?).ok()?;
        let bulk = fields.next()?.ok()?;
        let head = bulk.iter().position(|b| *b == b'\n')? + 1;
        let key = bulk.get(head..)?.strip_suffix(b"\r\n")?;
        let mut next = || number(fields.next()?.ok()?);
        Some(Used { key, count: next()?, error: next()?, writes: next()? })
    });
    Some((elapsed_ms, seen, used.collect()))
}

/// Writes the reply of which each shard of the node has written its part.
pub(crate) fn finish(args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    if let Some(error) = parts.iter().find(|part| value::is_error(part)) {
        return out.extend_from_slice(error);
    }
    if args.get(1).eq_ignore_ascii_case(b"START") {
        return reply::ok(out);
    }
    let (mut elapsed_ms, mut seen, mut used) = (0, 0, Vec::new());
    for part in parts.iter().filter_map(|part| read(part)) {
        elapsed_ms = part.0.max(elapsed_ms);
        seen += part.1;
        used.extend(part.2);
    }
    // A key is one shard's, but for copies that are read and ranges that have changed hands.
    used.sort_unstable_by(|a: &Used<'_>, b: &Used<'_>| a.key.cmp(b.key));
    used.dedup_by(|other, one| {
        let same = one.key == other.key;
        if same {
            one.count += other.count;
            one.error += other.error;
            one.writes += other.writes;
        }
        same
    });
    used.sort_by_key(|one| core::cmp::Reverse(one.count));
    used.truncate(count(args).unwrap_or(SHOWN));
    write(elapsed_ms, seen, used.into_iter(), out);
}
