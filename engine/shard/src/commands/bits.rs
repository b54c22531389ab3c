//! Strings as rows of bits, the highest bit of the first byte first: SETBIT, GETBIT, BITCOUNT, BITPOS and BITOP.

use super::number::parse_i64;
use super::record::Kept;
use super::substrings::span;
use super::{errors, record};
use crate::command::{Args, Exec, Keys, Scope, Spec};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;
use dkv_table::{Expiry, LARGE_BYTES_MIN};

const READ: Spec = Spec {
    flags: &["readonly"],
    first_key: 1,
    last_key: 1,
    key_step: 1,
    categories: &["@read", "@bitmap", "@slow"],
    key_flags: &["RO", "access"],
    scope: Scope::Keyed,
    group: "bitmap",
    ..Spec::NOTHING
};

const WRITE: Spec = Spec {
    flags: &["write", "denyoom"],
    categories: &["@write", "@bitmap", "@slow"],
    write: true,
    ..READ
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "SETBIT",
        arity: 4,
        key_flags: &["RW", "access", "update"],
        handler: setbit,
        summary: "Sets or clears the bit at offset of the string value. Creates the key if it \
                  doesn't exist.",
        since: "2.2.0",
        ..WRITE
    },
    Spec {
        name: "GETBIT",
        arity: 3,
        flags: &["readonly", "fast"],
        categories: &["@read", "@bitmap", "@fast"],
        handler: getbit,
        summary: "Returns a bit value by offset.",
        since: "2.2.0",
        ..READ
    },
    Spec {
        name: "BITCOUNT",
        long: true,
        arity: -2,
        handler: bitcount,
        summary: "Counts the number of set bits (population counting) in a string.",
        since: "2.6.0",
        ..READ
    },
    Spec {
        name: "BITPOS",
        long: true,
        arity: -3,
        handler: bitpos,
        summary: "Finds the first set (1) or clear (0) bit in a string.",
        since: "2.8.7",
        ..READ
    },
    Spec {
        name: "BITOP",
        long: true,
        arity: -4,
        first_key: 2,
        last_key: -1,
        key_flags: &["OW", "update"],
        other_keys: Some(Keys { first: 3, last: -1, flags: &["RO", "access"] }),
        handler: bitop,
        summary: "Performs bitwise operations on multiple strings of one slot, and stores the \
                  result.",
        since: "2.6.0",
        ..WRITE
    },
];

pub(super) const BAD_OFFSET: &str = "ERR bit offset is not an integer or out of range";
const BAD_BIT: &str = "ERR bit is not an integer or out of range";

/// A bit's offset as clients write it: inside the longest value.
pub(super) fn offset(text: &[u8]) -> Option<usize> {
    let offset = usize::try_from(parse_i64(text)?).ok()?;
    (offset / 8 < VALUE_BYTES_MAX).then_some(offset)
}

fn bit_at(value: &[u8], offset: usize) -> bool {
    value.get(offset / 8).is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

fn getbit(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(offset) = offset(args.get(2)) else { return reply::error(out, BAD_OFFSET) };
    let Some(place) = record::place(x, key, out) else { return };
    let bit = record::read(x, place, key).is_some_and(|entry| bit_at(entry.value, offset));
    reply::integer(out, i64::from(bit));
}

/// A bit that is what it shall be already is not written.
fn setbit(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(offset) = offset(args.get(2)) else { return reply::error(out, BAD_OFFSET) };
    let on = match parse_i64(args.get(3)) {
        Some(bit @ 0..=1) => bit == 1,
        _ => return reply::error(out, BAD_BIT),
    };
    let Some(place) = record::place(x, key, out) else { return };
    let old = record::peek(x, place, key).and_then(|entry| entry.value.get(offset / 8).copied());
    let mask = 1 << (7 - offset % 8);
    let byte = old.unwrap_or(0);
    let was = byte & mask != 0;
    if old.is_none() || was != on {
        let byte = if on { byte | mask } else { byte & !mask };
        if record::patch(x, place, key, offset / 8, &[byte], out).is_none() {
            return;
        }
    }
    reply::integer(out, i64::from(was));
}

/// Whether the positions of BITCOUNT and BITPOS are those of bits.
fn unit_is_bit(word: &[u8]) -> Option<bool> {
    match () {
        () if word.eq_ignore_ascii_case(b"BIT") => Some(true),
        () if word.eq_ignore_ascii_case(b"BYTE") => Some(false),
        () => None,
    }
}

/// The whole bytes that a run of bits is in, and how many bits of the first and of the last are not in it.
fn bytes_of(bits: &RangeInclusive<usize>) -> (RangeInclusive<usize>, u32, u32) {
    let (start, end) = (*bits.start(), *bits.end());
    (start / 8..=end / 8, (start % 8) as u32, (7 - end % 8) as u32)
}

fn bitcount(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(place) = record::place(x, key, out) else { return };
    // As in Redis a key that is not there has no bits, whatever else is said.
    let Some(entry) = record::read(x, place, key) else { return reply::integer(out, 0) };
    let value = entry.value;
    if args.len() == 2 {
        return reply::integer(out, ones(value) as i64);
    }
    if !(4..=5).contains(&args.len()) {
        return reply::error(out, errors::SYNTAX);
    }
    let (Some(start), Some(end)) = (parse_i64(args.get(2)), parse_i64(args.get(3))) else {
        return reply::error(out, errors::NOT_AN_INTEGER);
    };
    if start < 0 && end < 0 && start > end {
        return reply::integer(out, 0);
    }
    let Some(in_bits) = args.iter_from(4).next().map_or(Some(false), unit_is_bit) else {
        return reply::error(out, errors::SYNTAX);
    };
    let count = if in_bits {
        span(start, end, value.len() * 8).map_or(0, |bits| {
            let (bytes, before, behind) = bytes_of(&bits);
            let outside = (value[*bytes.start()] & !(0xff >> before)).count_ones()
                + (value[*bytes.end()] & !(0xff << behind)).count_ones();
            ones(&value[bytes]) - u64::from(outside)
        })
    } else {
        span(start, end, value.len()).map_or(0, |bytes| ones(&value[bytes]))
    };
    reply::integer(out, count as i64);
}

fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 =
        words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

fn bitpos(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let key = args.get(1);
    let Some(bit) = parse_i64(args.get(2)) else {
        return reply::error(out, errors::NOT_AN_INTEGER);
    };
    if !(0..=1).contains(&bit) {
        return reply::error(out, "ERR The bit argument must be 1 or 0.");
    }
    let Some(place) = record::place(x, key, out) else { return };
    // Nothing is an endless row of zeros.
    let Some(entry) = record::read(x, place, key) else {
        return reply::integer(out, if bit == 1 { -1 } else { 0 });
    };
    let value = entry.value;
    let (mut start, mut end, mut in_bits) = (0, -1, false);
    if args.len() > 6 {
        return reply::error(out, errors::SYNTAX);
    }
    if args.len() > 3 {
        let Some(n) = parse_i64(args.get(3)) else {
            return reply::error(out, errors::NOT_AN_INTEGER);
        };
        start = n;
    }
    if args.len() == 6 {
        let Some(unit) = unit_is_bit(args.get(5)) else {
            return reply::error(out, errors::SYNTAX);
        };
        in_bits = unit;
    }
    if args.len() > 4 {
        let Some(n) = parse_i64(args.get(4)) else {
            return reply::error(out, errors::NOT_AN_INTEGER);
        };
        end = n;
    }
    let len = value.len() * if in_bits { 8 } else { 1 };
    // Otherwise than for other commands, an end before a start is not looked at while both count from the end.
    let at = |at: i64| if at < 0 { (len as i64).saturating_add(at).max(0) } else { at };
    let (start, end) = (at(start), at(end).min(len as i64 - 1));
    if start > end {
        return reply::integer(out, -1);
    }
    let bits = if in_bits {
        start as usize..=end as usize
    } else {
        start as usize * 8..=end as usize * 8 + 7
    };
    let found = first(value, &bits, bit == 1);
    // Where nobody named an end the row of zeros goes on behind it.
    let endless = bit == 0 && args.len() < 5;
    let found = found.or(endless.then(|| bits.end() + 1));
    reply::integer(out, found.map_or(-1, |at| at as i64));
}

/// The first bit of that kind in a run of bits that lies in `value`.
fn first(value: &[u8], bits: &RangeInclusive<usize>, set: bool) -> Option<usize> {
    let (bytes, before, _) = bytes_of(bits);
    let start = *bytes.start();
    // What is looked for stands where the bits of this are set.
    let flip = if set { 0 } else { 0xff };
    let found = |at: usize, byte: u8| Some(at * 8 + byte.leading_zeros() as usize);
    let byte = (value[start] ^ flip) & (0xff >> before);
    let at = if byte != 0 {
        found(start, byte)
    } else {
        let rest = &value[start + 1..=*bytes.end()];
        let (words, _) = rest.as_chunks::<8>();
        let boring = u64::from_ne_bytes([flip; 8]);
        let skipped = words.iter().take_while(|word| u64::from_ne_bytes(**word) == boring).count();
        let from = skipped * 8;
        let at = rest[from..].iter().position(|byte| byte ^ flip != 0)? + from;
        found(start + 1 + at, rest[at] ^ flip)
    };
    at.filter(|at| at <= bits.end())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

fn bitop(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let is = |name: &str| args.get(1).eq_ignore_ascii_case(name.as_bytes());
    let operation = match () {
        () if is("AND") => Operation::And,
        () if is("OR") => Operation::Or,
        () if is("XOR") => Operation::Xor,
        () if is("NOT") => Operation::Not,
        () => return reply::error(out, errors::SYNTAX),
    };
    if operation == Operation::Not && args.len() != 4 {
        return reply::error(out, "ERR BITOP NOT must be called with a single source key.");
    }
    if !record::keys_fit(args.iter_from(2), out) {
        return;
    }
    let target = args.get(2);
    let Some(place) = record::place(x, target, out) else { return };
    let mut places = Vec::with_capacity(args.len() - 3);
    for key in args.iter_from(3) {
        places.extend(record::another(x, key, out));
    }
    let len = args.iter_from(3).zip(&places).filter_map(|(key, place)| {
        record::peek_quietly(x, *place, key).map(|entry| entry.value.len())
    });
    let len = len.max().unwrap_or(0);
    // A result that will have memory of its own is made there.
    let block = if len > LARGE_BYTES_MIN { Some(x.table.block(len)) } else { None };
    let values: Vec<&[u8]> = args
        .iter_from(3)
        .zip(&places)
        .map(|(key, place)| record::read(x, *place, key).map_or(&b""[..], |entry| entry.value))
        .collect();
    let mut part = Vec::new();
    let result = match block {
        Some(Err(_)) => return reply::error(out, errors::OUT_OF_MEMORY),
        Some(Ok(mut block)) => {
            for start in (0..len).step_by(PART_BYTES) {
                combine(operation, &values, start..len.min(start + PART_BYTES), &mut part);
                block.extend(&part);
            }
            Kept::Large(block.freeze())
        }
        None => {
            combine(operation, &values, 0..len, &mut part);
            Kept::Bytes(part)
        }
    };
    if len == 0 {
        record::remove(x, place, target);
    } else if !record::store_entry(x, place, target, &result, Expiry::Clear, out) {
        return;
    }
    reply::integer(out, len as i64);
}

/// Bytes that are combined at a time: they stay in the processor's cache.
const PART_BYTES: usize = 16 << 10;

/// The bytes of the result from here to there; shorter values end in zeros.
fn combine(
    operation: Operation,
    values: &[&[u8]],
    part: core::ops::Range<usize>,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.resize(part.len(), 0);
    for (i, value) in values.iter().enumerate() {
        let bytes = &value[part.start.min(value.len())..part.end.min(value.len())];
        let (here, beyond) = out.split_at_mut(bytes.len());
        let both = here.iter_mut().zip(bytes);
        match operation {
            _ if i == 0 => here.copy_from_slice(bytes),
            Operation::And => both.for_each(|(a, b)| *a &= b),
            Operation::Or | Operation::Not => both.for_each(|(a, b)| *a |= b),
            Operation::Xor => both.for_each(|(a, b)| *a ^= b),
        }
        if operation == Operation::And {
            beyond.fill(0);
        }
    }
    if operation == Operation::Not {
        for byte in out.iter_mut() {
            *byte = !*byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_found_and_counted_as_one_by_one(
            value in prop::collection::vec(prop_oneof![3 => Just(0u8), 3 => Just(0xff), 1 => any::<u8>()], 1..60),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            set in any::<bool>(),
        ) {
            let (a, b) = (ends.0.index(value.len() * 8), ends.1.index(value.len() * 8));
            let bits = a.min(b)..=a.max(b);
            let wanted = bits.clone().find(|at| bit_at(&value, *at) == set);
            prop_assert_eq!(first(&value, &bits, set), wanted);
            let all = (0..value.len() * 8).filter(|at| bit_at(&value, *at)).count();
            prop_assert_eq!(ones(&value), all as u64);
        }
    }
}
