//! LCS: the longest common subsequence of two values.
//!
//! Not the table of lengths that the textbook fills, but whether each of them is greater than its left neighbour, 64 of
//! them in a word: a row follows from the one above by an addition and a few operations for each word. That is all that
//! the way back through the table asks for, since where two bytes differ the greater of the two neighbours is the upper
//! one exactly when the left one is smaller than the length itself. It takes a thirty-second of the memory, and less of
//! the time.

use super::number::parse_i64;
use super::{errors, record};
use crate::command::{Args, Exec, Scope, Spec};
use alloc::vec;
use alloc::vec::Vec;
use dkv_protocol::resp::{Proto, reply};

pub(super) const LCS: Spec = Spec {
    name: "LCS",
    long: true,
    arity: -3,
    flags: &["readonly"],
    first_key: 1,
    last_key: 2,
    key_step: 1,
    categories: &["@read", "@string", "@slow"],
    key_flags: &["RO", "access"],
    scope: Scope::Keyed,
    handler: lcs,
    summary: "Finds the longest common subsequence of two strings.",
    since: "7.0.0",
    group: "string",
    ..Spec::NOTHING
};

/// Words of the table, so that a call ends within a millisecond or two: two values of 8 KB each.
const WORDS_MAX: usize = 1 << 20;
/// Redis' own bound on its table, of four bytes for each pair of positions.
const REDIS_PAIRS_MAX: u128 = (512 << 20) / 4;
const REDIS_REFUSAL: &str =
    "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
const REFUSAL: &str = "ERR LCS of these values would take too long: the product of their lengths is at most 67108864; \
                       compare parts of them (GETRANGE)";
const _: () = assert!(WORDS_MAX * 64 == 67_108_864);

#[derive(Default)]
struct Options {
    index: bool,
    length: bool,
    with_lengths: bool,
    length_min: i64,
}

fn options(args: Args<'_>, out: &mut Vec<u8>) -> Option<Options> {
    let mut found = Options::default();
    let mut rest = args.iter_from(3);
    while let Some(word) = rest.next() {
        match () {
            () if word.eq_ignore_ascii_case(b"IDX") => found.index = true,
            () if word.eq_ignore_ascii_case(b"LEN") => found.length = true,
            () if word.eq_ignore_ascii_case(b"WITHMATCHLEN") => found.with_lengths = true,
            () if word.eq_ignore_ascii_case(b"MINMATCHLEN") => match rest.next().map(parse_i64) {
                Some(Some(n)) => found.length_min = n.max(0),
                Some(None) => {
                    reply::error(out, errors::NOT_AN_INTEGER);
                    return None;
                }
                None => {
                    reply::error(out, errors::SYNTAX);
                    return None;
                }
            },
            () => {
                reply::error(out, errors::SYNTAX);
                return None;
            }
        }
    }
    if found.index && found.length {
        let text = "ERR If you want both the length and indexes, please just use IDX.";
        reply::error(out, text);
        return None;
    }
    Some(found)
}

fn lcs(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let (first, second) = (args.get(1), args.get(2));
    let Some(place) = record::place(x, first, out) else { return };
    let Some(other) = record::another(x, second, out) else { return };
    let Some(options) = options(args, out) else { return };
    let a = record::read(x, place, first).map_or(&b""[..], |entry| entry.value);
    let b = record::read(x, other, second).map_or(&b""[..], |entry| entry.value);
    if (a.len() as u128 + 1) * (b.len() as u128 + 1) > REDIS_PAIRS_MAX {
        return reply::error(out, REDIS_REFUSAL);
    }
    if a.len().saturating_mul(b.len().div_ceil(64)) > WORDS_MAX {
        return reply::error(out, REFUSAL);
    }
    let table = Table::new(a, b, !options.length);
    if options.length {
        return reply::integer(out, table.length as i64);
    }
    let mut shared = vec![0; table.length];
    let mut ranges = Vec::new();
    table.walk_back(a, b, &mut |range, byte| match byte {
        Some((at, byte)) => shared[at] = byte,
        None => ranges.push(range),
    });
    if !options.index {
        return reply::bulk(out, &shared);
    }
    ranges.retain(|range| range.len as i64 >= options.length_min);
    write_ranges(x.proto, &ranges, options.with_lengths, out);
    reply::bulk(out, b"len");
    reply::integer(out, table.length as i64);
}

/// A run of equal bytes: where it begins in each value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    a: usize,
    b: usize,
    len: usize,
}

fn write_ranges(proto: Proto, ranges: &[Range], with_lengths: bool, out: &mut Vec<u8>) {
    reply::map(out, proto, 2);
    reply::bulk(out, b"matches");
    reply::array(out, ranges.len());
    for range in ranges {
        reply::array(out, 2 + usize::from(with_lengths));
        for start in [range.a, range.b] {
            reply::array(out, 2);
            reply::integer(out, start as i64);
            reply::integer(out, (start + range.len - 1) as i64);
        }
        if with_lengths {
            reply::integer(out, range.len as i64);
        }
    }
}

/// For each byte of `a` a row of bits, one for each byte of `b`: whether the length here is the same as to the left.
struct Table {
    rows: Vec<u64>,
    words: usize,
    length: usize,
}

impl Table {
    /// Only the length, unless all rows are to be kept.
    fn new(a: &[u8], b: &[u8], keep: bool) -> Self {
        let words = b.len().div_ceil(64);
        // Where in `b` each byte stands.
        let mut of_byte: Vec<u64> = Vec::new();
        let mut starts = [usize::MAX; 256];
        for (i, byte) in b.iter().enumerate() {
            let start = &mut starts[usize::from(*byte)];
            if *start == usize::MAX {
                *start = of_byte.len();
                of_byte.resize(of_byte.len() + words, 0);
            }
            of_byte[*start + i / 64] |= 1 << (i % 64);
        }
        let mut rows = Vec::with_capacity(if keep { a.len() * words } else { 0 });
        let mut row = vec![u64::MAX; words];
        for byte in a {
            let start = starts[usize::from(*byte)];
            if start != usize::MAX {
                let mut carry = false;
                for (word, equal) in row.iter_mut().zip(&of_byte[start..start + words]) {
                    let both = *word & equal;
                    let (sum, first) = word.overflowing_add(both);
                    let (sum, second) = sum.overflowing_add(u64::from(carry));
                    carry = first || second;
                    *word = sum | (*word & !equal);
                }
            }
            if keep {
                rows.extend_from_slice(&row);
            }
        }
        // Bits behind the end of `b` are never cleared: no byte stands there.
        let length = row.iter().map(|word| word.count_zeros() as usize).sum();
        Self { rows, words, length }
    }

    fn is_as_to_the_left(&self, row: usize, column: usize) -> bool {
        self.rows[row * self.words + column / 64] >> (column % 64) & 1 == 1
    }

    /// From the ends of both values to their starts: each common byte with its place, and each run of them when it is over.
    fn walk_back(&self, a: &[u8], b: &[u8], visit: &mut impl FnMut(Range, Option<(usize, u8)>)) {
        let (mut i, mut j, mut left) = (a.len(), b.len(), self.length);
        let mut run = Range::default();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j, left) = (i - 1, j - 1, left - 1);
                run = Range { a: i, b: j, len: run.len + 1 };
                visit(run, Some((left, a[i])));
                continue;
            }
            if run.len > 0 {
                visit(core::mem::take(&mut run), None);
            }
            if self.is_as_to_the_left(i - 1, j - 1) {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        if run.len > 0 {
            visit(run, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook: the string and the runs as Redis finds them.
    fn plainly(a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Range>) {
        let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table[i][j] = if a[i - 1] == b[j - 1] {
                    table[i - 1][j - 1] + 1
                } else {
                    table[i - 1][j].max(table[i][j - 1])
                };
            }
        }
        let (mut i, mut j) = (a.len(), b.len());
        let (mut shared, mut ranges, mut run) = (vec![], vec![], Range::default());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                shared.insert(0, a[i]);
                run = Range { a: i, b: j, len: run.len + 1 };
                continue;
            }
            if run.len > 0 {
                ranges.push(core::mem::take(&mut run));
            }
            if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        if run.len > 0 {
            ranges.push(run);
        }
        (shared, ranges)
    }

    proptest! {
        #[test]
        fn words_find_what_the_textbook_finds(
            a in prop::collection::vec(b'a'..b'e', 0..200),
            b in prop::collection::vec(b'a'..b'e', 0..200),
        ) {
            let (wanted, runs) = plainly(&a, &b);
            let table = Table::new(&a, &b, true);
            prop_assert_eq!(table.length, wanted.len());
            prop_assert_eq!(Table::new(&a, &b, false).length, wanted.len());
            let (mut shared, mut ranges) = (vec![0; table.length], vec![]);
            table.walk_back(&a, &b, &mut |range, byte| match byte {
                Some((at, byte)) => shared[at] = byte,
                None => ranges.push(range),
            });
            prop_assert_eq!(shared, wanted);
            prop_assert_eq!(ranges, runs);
        }
    }
}
