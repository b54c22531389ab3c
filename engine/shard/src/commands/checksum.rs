//! DKV.CHECKSUM: the sum over what one shard holds of a range, so that an operator sees that copies agree.
//!
//! It speaks of the table of the shard that is asked, whatever that shard's part in the range is, and never of another's. The
//! caller goes through a range in slices and carries cursor and sum on; the sum means something when the index was the
//! same in all slices. A primary's table may be ahead of what is committed: sums are comparable at equal indices alone.
//! Deadlines are deliberately not in the sum, since each machine counts them on its own clock.

use super::{errors, number, wrong_arity};
use crate::command::{Args, Scope, Spec};
use alloc::format;
use alloc::vec::Vec;
use dkv_cluster::Role;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::reply;
use dkv_table::Table;

pub(super) const CHECKSUM: Spec = Spec {
    name: "DKV.CHECKSUM",
    arity: -2,
    flags: &["admin", "noscript", "loading", "stale"],
    categories: &["@admin", "@slow", "@dangerous"],
    tips: &["nondeterministic_output"],
    scope: Scope::Session,
    summary: "Returns a sum over what this shard holds of a range, in slices.",
    since: "7.2.0",
    group: "server",
    ..Spec::NOTHING
};

/// Bytes of keys and values that one call sums up, about: a value is summed up whole.
const SLICE_BYTES: usize = 64 * 1024;
const SUM_DIGITS: usize = 32;
const INVALID_RANGE: &str = "ERR invalid range: a number from 0 to 255 is expected";
const _: () = assert!(RANGES == 256);
const INVALID_SUM: &str = "ERR invalid sum: 32 hexadecimal digits are expected";
const _: () = assert!(SUM_DIGITS == 32);

/// What a shard is to a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) role: Role,
    /// Copies that count, the primary's included, as far as the shard knows.
    pub(crate) in_sync: usize,
}

/// Executes `DKV.CHECKSUM range [cursor sum]`. The reply: where to go on (0: the end), the sum so far, the range's index in
/// this table, its records, this shard's role, and how many copies count.
pub(crate) fn checksum(
    table: &Table,
    standing: impl FnOnce(RangeId) -> Standing,
    args: Args<'_>,
    out: &mut Vec<u8>,
) {
    if !matches!(args.len(), 2 | 4) {
        return wrong_arity(CHECKSUM.name, out);
    }
    let Some(range) = number::parse_u64(args.get(1)).and_then(|range| u8::try_from(range).ok())
    else {
        return reply::error(out, INVALID_RANGE);
    };
    let (mut cursor, mut sum) = (0, 0);
    if args.len() == 4 {
        let Some(given) = number::parse_u64(args.get(2)) else {
            return reply::error(out, errors::INVALID_CURSOR);
        };
        let Some(so_far) = parse_sum(args.get(3)) else {
            return reply::error(out, INVALID_SUM);
        };
        (cursor, sum) = (given, so_far);
    }
    let Standing { role, in_sync } = standing(RangeId(range));
    let range = u16::from(range);
    let next = table.checksum(range, cursor, SLICE_BYTES, &mut sum);
    let role: &[u8] = match role {
        Role::Primary => b"primary",
        Role::Replica => b"replica",
        Role::None => b"none",
    };
    reply::array(out, 6);
    reply::integer(out, next as i64);
    reply::bulk(out, format!("{sum:0SUM_DIGITS$x}").as_bytes());
    reply::integer(out, table.version_of_range(range) as i64);
    reply::integer(out, table.len_of_range(range) as i64);
    reply::bulk(out, role);
    reply::integer(out, in_sync as i64);
}

fn parse_sum(text: &[u8]) -> Option<u128> {
    if text.len() != SUM_DIGITS || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(core::str::from_utf8(text).ok()?, 16).ok()
}
