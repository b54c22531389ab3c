//! What clients did to one key, and whether one copy of that key, changed at one moment by each operation, could have
//! answered so.
//!
//! Every written value is written once, which makes the exact answer cheap: no search, and no bound on clients, operations
//! or unknown outcomes. A register is linearizable when the spans of its values do not cross (Gibbons and Korach, *Testing
//! shared memories*, 1997); of a counter and of a list each reply says its own place in the order, so that only real time has
//! to agree with it. The last reads of a key, after everything has come to rest, are operations like any other; an order that
//! fails only because of them is a lost write, any other a stale read.

use std::collections::{BTreeMap, BTreeSet};

/// The end of an operation whose outcome nobody knows: it may take effect at any later time.
pub const NEVER: u64 = u64::MAX;

/// Bytes of one token of a list.
pub const TOKEN_BYTES: usize = 12;

/// One operation. Times are nanoseconds of one clock that all clients share.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// When it was first sent.
    pub begin: u64,
    /// When it was answered; [`NEVER`] when that could mean anything.
    pub end: u64,
    /// What it was.
    pub what: What,
}

/// What an operation was and what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// SET to a value that nobody else writes.
    Set(u64, Outcome),
    /// INCR; done: the reply.
    Incr(Outcome),
    /// APPEND of a token that nobody else appends; done: the length in tokens.
    Append(u64, Outcome),
    /// GET.
    Get(Seen),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, with this number where the command gives one.
    Done(u64),
    /// Nobody knows.
    Uncertain,
    /// Refused: nothing may ever be seen of it.
    Refused,
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No such key.
    Nothing,
    /// A value of a register, or the number of a counter.
    Value(u64),
    /// A list of so many tokens with this [`digest`].
    List(u64, u64),
}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SET and GET.
    Register,
    /// INCR and GET.
    Counter,
    /// APPEND and GET.
    List,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// So many answered writes are gone.
    Lost(u64),
    /// A read, or the reply of a write, was older than one that had been answered before it was asked.
    Stale,
    /// A refused write was applied, or an answered one twice.
    Phantom,
    /// A value that nobody wrote, or that had not been written yet.
    Invented,
}

/// What a key holds in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Final {
    /// No such key.
    Nothing,
    /// A value of a register, or the number of a counter.
    Value(u64),
    /// The tokens of a list.
    List(Vec<u64>),
}

/// Identifies a list of tokens; grows by one token at a time.
pub fn digest(before: u64, token: u64) -> u64 {
    (before ^ token).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ token
}

/// All that is wrong with a key that held `last` when everything had come to rest; `rest` is when that was read.
pub fn check(kind: Kind, ops: &[Op], last: &Final, rest: u64) -> Vec<Fault> {
    let mut faults = match kind {
        Kind::Register => register(ops, last, rest),
        Kind::Counter => counter(ops, last, rest),
        Kind::List => list(ops, last, rest),
    };
    // Of several losses only the largest: the others are its traces.
    faults.sort_unstable_by(|a, b| b.cmp(a));
    let same =
        |a: &mut Fault, b: &mut Fault| a == b || matches!((a, b), (Fault::Lost(_), Fault::Lost(_)));
    faults.dedup_by(same);
    faults.reverse();
    faults
}

/// What may have become of `last` when the key is read again much later and nobody wrote to it since: writes whose outcome is
/// not known may still arrive, nothing else.
pub fn check_again(kind: Kind, ops: &[Op], last: &Final, now: &Final) -> Option<Fault> {
    if last == now {
        return None;
    }
    let uncertain: BTreeSet<u64> = ops
        .iter()
        .filter_map(|op| match op.what {
            What::Set(value, Outcome::Uncertain) | What::Append(value, Outcome::Uncertain) => {
                Some(value)
            }
            _ => None,
        })
        .collect();
    let unknown = ops.iter().filter(|op| op.what == What::Incr(Outcome::Uncertain)).count() as u64;
    let empty = Vec::new();
    match (kind, last, now) {
        (Kind::Register, _, Final::Value(value)) if uncertain.contains(value) => None,
        (Kind::Counter, last, Final::Value(value)) => {
            let before = if let Final::Value(before) = last { *before } else { 0 };
            match value.checked_sub(before) {
                None => Some(Fault::Lost(before - value)),
                Some(more) if more > unknown => Some(Fault::Phantom),
                Some(_) => None,
            }
        }
        (Kind::List, last, Final::List(now)) => {
            let before = if let Final::List(before) = last { before } else { &empty };
            match now.strip_prefix(before.as_slice()) {
                Some(more) if more.iter().all(|token| uncertain.contains(token)) => None,
                Some(_) => Some(Fault::Phantom),
                None => Some(Fault::Lost(1)),
            }
        }
        _ => Some(Fault::Lost(1)),
    }
}

/// The operations on one value: the write of it and the reads that saw it.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The write.
    begin: u64,
    known: bool,
    read: bool,
    /// The first end and the last begin of all of them.
    first_end: u64,
    last_begin: u64,
}

fn register(ops: &[Op], last: &Final, rest: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let start = Span { begin: 0, known: true, read: false, first_end: 0, last_begin: 0 };
    let mut spans = BTreeMap::from([(None, start)]);
    let mut refused = BTreeSet::new();
    for op in ops {
        let What::Set(value, outcome) = op.what else { continue };
        if outcome == Outcome::Refused {
            refused.insert(value);
            continue;
        }
        let span = Span {
            begin: op.begin,
            known: outcome != Outcome::Uncertain,
            read: false,
            first_end: op.end,
            last_begin: op.begin,
        };
        if spans.insert(Some(value), span).is_some() {
            faults.push(Fault::Invented);
        }
    }
    let mut see = |spans: &mut BTreeMap<Option<u64>, Span>, value: Option<u64>, begin, end| {
        if value.is_some_and(|value| refused.contains(&value)) {
            faults.push(Fault::Phantom);
            return;
        }
        let Some(span) = spans.get_mut(&value).filter(|span| span.begin <= end) else {
            faults.push(Fault::Invented);
            return;
        };
        span.read = true;
        span.first_end = span.first_end.min(end);
        span.last_begin = span.last_begin.max(begin);
    };
    for op in ops {
        let value = match op.what {
            What::Get(Seen::Nothing) => None,
            What::Get(Seen::Value(value)) => Some(value),
            _ => continue,
        };
        see(&mut spans, value, op.begin, op.end);
    }
    let before = crossing(&spans);
    let value = if let Final::Value(value) = last { Some(*value) } else { None };
    see(&mut spans, value, rest, rest + 1);
    if before {
        faults.push(Fault::Stale);
    } else if crossing(&spans) {
        faults.push(Fault::Lost(1));
    }
    faults
}

/// Whether no order of the values agrees with real time.
fn crossing(spans: &BTreeMap<Option<u64>, Span>) -> bool {
    let seen = || spans.values().filter(|span| span.known || span.read);
    // Some operation on the value ended before another began: the register held it all the time between.
    let mut held: Vec<(u64, u64)> = seen()
        .filter(|span| span.first_end < span.last_begin)
        .map(|span| (span.first_end, span.last_begin))
        .collect();
    held.sort_unstable();
    if held.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return true;
    }
    // All overlap: the register held it at some moment between, which must not lie wholly where it held another.
    seen().filter(|span| span.first_end >= span.last_begin).any(|span| {
        let before = held.partition_point(|(from, _)| *from < span.last_begin);
        before > 0 && span.first_end < held[before - 1].1
    })
}

/// An operation with its place in the order: writes at odd places, reads at the even one behind the write they saw.
type Placed = (u64, u64, u64);

/// Whether real time contradicts the places: something ended before what stands in front of it began.
fn contradicts(placed: &mut [Placed]) -> bool {
    placed.sort_unstable_by_key(|(place, ..)| *place);
    let mut ended = NEVER;
    for same in placed.chunk_by(|a, b| a.0 == b.0).rev() {
        if same.iter().any(|(_, begin, _)| ended < *begin) {
            return true;
        }
        ended = same.iter().map(|(.., end)| *end).min().unwrap_or(NEVER).min(ended);
    }
    false
}

fn counter(ops: &[Op], last: &Final, rest: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut replies = BTreeSet::new();
    let (mut unknown, mut doubled) = (0, 0);
    for op in ops {
        match op.what {
            What::Incr(Outcome::Done(reply)) => {
                doubled += u64::from(!replies.insert(reply));
                placed.push((2 * reply - 1, op.begin, op.end));
            }
            What::Incr(Outcome::Uncertain) => unknown += 1,
            What::Get(Seen::Nothing) => placed.push((0, op.begin, op.end)),
            What::Get(Seen::Value(value)) => placed.push((2 * value, op.begin, op.end)),
            _ => {}
        }
    }
    let last = if let Final::Value(last) = last { *last } else { 0 };
    let gone = replies.range(last + 1..).count() as u64 + doubled;
    if gone > 0 {
        faults.push(Fault::Lost(gone));
    }
    if last.saturating_sub(replies.range(..=last).count() as u64) > unknown {
        faults.push(Fault::Phantom);
    }
    let before = contradicts(&mut placed);
    placed.push((2 * last, rest, rest + 1));
    if before {
        faults.push(Fault::Stale);
    } else if gone == 0 && contradicts(&mut placed) {
        // Nothing answered is gone, but something that had been read is.
        faults.push(Fault::Lost(1));
    }
    faults
}

fn list(ops: &[Op], last: &Final, rest: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let empty = Vec::new();
    let last = if let Final::List(last) = last { last } else { &empty };
    let mut places = BTreeMap::new();
    let mut digests = vec![0];
    for (at, token) in last.iter().enumerate() {
        if places.contains_key(token) {
            faults.push(Fault::Phantom);
        } else {
            places.insert(*token, at as u64 + 1);
        }
        digests.push(digest(digests[at], *token));
    }
    let mut placed: Vec<Placed> = Vec::new();
    let mut gone = 0;
    for op in ops {
        match op.what {
            What::Append(token, outcome) => match (outcome, places.remove(&token)) {
                (Outcome::Done(length), Some(place)) if length == place => {
                    placed.push((2 * place - 1, op.begin, op.end));
                }
                // In another place than was answered: what stood before it is gone, or something was put before it.
                (Outcome::Done(_), Some(_)) => faults.push(Fault::Stale),
                (Outcome::Done(_), None) => gone += 1,
                (Outcome::Uncertain, Some(place)) => placed.push((2 * place - 1, op.begin, NEVER)),
                (Outcome::Refused, Some(_)) => faults.push(Fault::Phantom),
                (Outcome::Uncertain | Outcome::Refused, None) => {}
            },
            What::Get(Seen::Nothing) => placed.push((0, op.begin, op.end)),
            What::Get(Seen::List(count, sum)) => {
                placed.push((2 * count, op.begin, op.end));
                // Not what the list began with: what was read, answered or not, is gone.
                if digests.get(count as usize).is_none_or(|digest| *digest != sum) {
                    faults.push(Fault::Lost(1));
                }
            }
            _ => {}
        }
    }
    if !places.is_empty() {
        faults.push(Fault::Invented);
    }
    if gone > 0 {
        faults.push(Fault::Lost(gone));
    }
    let before = contradicts(&mut placed);
    placed.push((2 * last.len() as u64, rest, rest + 1));
    if before {
        faults.push(Fault::Stale);
    } else if faults.is_empty() && contradicts(&mut placed) {
        faults.push(Fault::Lost(1));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{Fault, Final, Kind, NEVER, Op, Outcome, Seen, What, check, check_again, digest};
    use Outcome::{Done, Refused, Uncertain};
    use What::{Append, Get, Incr, Set};

    const fn op(begin: u64, end: u64, what: What) -> Op {
        Op { begin, end, what }
    }
    const fn value(value: u64) -> What {
        Get(Seen::Value(value))
    }
    fn tokens(tokens: &[u64]) -> What {
        let sum = tokens.iter().fold(0, |sum, token| digest(sum, *token));
        Get(Seen::List(tokens.len() as u64, sum))
    }
    const NIL: What = Get(Seen::Nothing);

    #[track_caller]
    fn says(kind: Kind, ops: &[Op], last: &Final, expect: &[Fault]) {
        assert_eq!(check(kind, ops, last, 1000), expect, "{kind:?} {ops:?} {last:?}");
    }

    #[test]
    fn a_register_is_judged_by_what_it_can_have_held() {
        let one = Final::Value(1);
        let two = Final::Value(2);
        let first = op(10, 20, Set(1, Done(0)));
        let later = op(30, 40, Set(2, Done(0)));
        let beside = op(15, 25, Set(2, Done(0)));
        let maybe = op(30, NEVER, Set(2, Uncertain));
        let refused = op(30, 40, Set(2, Refused));
        let cases: &[(&[Op], &Final, &[Fault])] = &[
            (&[], &Final::Nothing, &[]),
            (&[first], &one, &[]),
            (&[first], &Final::Nothing, &[Fault::Lost(1)]),
            (&[first, later], &two, &[]),
            (&[first, later], &one, &[Fault::Lost(1)]),
            (&[first, beside], &one, &[]),
            (&[first, beside], &two, &[]),
            (&[first, later, op(50, 60, value(1))], &two, &[Fault::Stale]),
            (&[first, later, op(35, 60, value(1))], &two, &[]),
            (&[first, op(50, 60, NIL)], &one, &[Fault::Stale]),
            (&[first, op(5, 60, NIL)], &one, &[]),
            (&[first, op(1, 5, value(1))], &one, &[Fault::Invented]),
            (&[first, op(21, 25, value(9))], &one, &[Fault::Invented]),
            // Seen, then not seen any more, by reads that nothing else tells apart.
            (
                &[first, op(30, 90, Set(2, Done(0))), op(40, 50, value(2)), op(60, 70, value(1))],
                &two,
                &[Fault::Stale],
            ),
            (&[first, op(30, 90, Set(2, Done(0))), op(40, 50, value(1))], &two, &[]),
            // An unknown outcome may show at any later time, or never, but not twice with something between.
            (&[first, maybe], &one, &[]),
            (&[first, maybe], &two, &[]),
            (&[first, maybe, op(50, 60, value(1)), op(70, 80, value(2))], &two, &[]),
            (&[first, maybe, op(50, 60, value(2)), op(70, 80, value(1))], &two, &[Fault::Stale]),
            (&[first, maybe, op(50, 60, value(2))], &one, &[Fault::Lost(1)]),
            (&[first, refused], &one, &[]),
            (&[first, refused], &two, &[Fault::Phantom]),
            (&[first, refused, op(50, 60, value(2))], &one, &[Fault::Phantom]),
        ];
        for (ops, last, expect) in cases {
            says(Kind::Register, ops, last, expect);
        }
    }

    #[test]
    fn a_counter_is_judged_by_its_replies() {
        let first = op(10, 20, Incr(Done(1)));
        let second = op(30, 40, Incr(Done(2)));
        let cases: &[(&[Op], u64, &[Fault])] = &[
            (&[first, second], 2, &[]),
            (&[first, second], 1, &[Fault::Lost(1)]),
            (&[first, second], 0, &[Fault::Lost(2)]),
            (&[first, second], 3, &[Fault::Phantom]),
            (&[first, op(30, 40, Incr(Done(1)))], 1, &[Fault::Lost(1)]),
            (&[first, second, op(50, NEVER, Incr(Uncertain))], 3, &[]),
            (&[first, second, op(50, 60, Incr(Refused))], 3, &[Fault::Phantom]),
            (&[first, second, op(50, 60, value(1))], 2, &[Fault::Stale]),
            (&[first, second, op(35, 60, value(1))], 2, &[]),
            (&[first, second, op(5, 9, value(1))], 2, &[Fault::Stale]),
            (&[first, op(50, NEVER, Incr(Uncertain)), op(60, 70, value(2))], 1, &[Fault::Lost(1)]),
            (&[op(10, 20, Incr(Done(2))), op(30, 40, Incr(Done(1)))], 2, &[Fault::Stale]),
        ];
        for (ops, last, expect) in cases {
            says(Kind::Counter, ops, &Final::Value(*last), expect);
        }
    }

    #[test]
    fn a_list_is_judged_by_its_last_state() {
        let first = op(10, 20, Append(7, Done(1)));
        let second = op(30, 40, Append(8, Done(2)));
        let maybe = op(30, NEVER, Append(8, Uncertain));
        let cases: &[(&[Op], &[u64], &[Fault])] = &[
            (&[first, second], &[7, 8], &[]),
            (&[first, second], &[7], &[Fault::Lost(1)]),
            (&[first, second], &[], &[Fault::Lost(2)]),
            (&[first, second], &[7, 8, 8], &[Fault::Phantom]),
            (&[first, second], &[7, 8, 9], &[Fault::Invented]),
            (&[first, second], &[8, 7], &[Fault::Stale]),
            (&[first, maybe], &[7, 8], &[]),
            (&[first, maybe], &[7], &[]),
            (&[first, op(30, 40, Append(8, Refused))], &[7, 8], &[Fault::Phantom]),
            (&[first, second, op(50, 60, tokens(&[7]))], &[7, 8], &[Fault::Stale]),
            (&[first, second, op(50, 60, tokens(&[7, 8]))], &[7, 8], &[]),
            (&[first, second, op(50, 60, tokens(&[7, 9]))], &[7, 8], &[Fault::Lost(1)]),
            (&[first, maybe, op(50, 60, tokens(&[7, 8]))], &[7], &[Fault::Lost(1)]),
        ];
        for (ops, last, expect) in cases {
            says(Kind::List, ops, &Final::List(last.to_vec()), expect);
        }
    }

    #[test]
    fn read_again_a_key_shows_what_was_unknown_and_nothing_else() {
        let ops = [
            op(10, 20, Set(1, Done(0))),
            op(10, NEVER, Set(2, Uncertain)),
            op(10, NEVER, Incr(Uncertain)),
            op(10, NEVER, Append(3, Uncertain)),
        ];
        let list = |tokens: &[u64]| Final::List(tokens.to_vec());
        let cases = [
            (Kind::Register, Final::Value(1), Final::Value(1), None),
            (Kind::Register, Final::Value(1), Final::Value(2), None),
            (Kind::Register, Final::Value(2), Final::Value(1), Some(Fault::Lost(1))),
            (Kind::Register, Final::Value(1), Final::Nothing, Some(Fault::Lost(1))),
            (Kind::Counter, Final::Value(4), Final::Value(5), None),
            (Kind::Counter, Final::Value(4), Final::Value(6), Some(Fault::Phantom)),
            (Kind::Counter, Final::Value(4), Final::Value(1), Some(Fault::Lost(3))),
            (Kind::List, list(&[9]), list(&[9, 3]), None),
            (Kind::List, list(&[9]), list(&[9, 4]), Some(Fault::Phantom)),
            (Kind::List, list(&[9]), list(&[3]), Some(Fault::Lost(1))),
            (Kind::List, list(&[9]), Final::Nothing, Some(Fault::Lost(1))),
        ];
        for (kind, last, now, expect) in cases {
            assert_eq!(check_again(kind, &ops, &last, &now), expect, "{kind:?} {last:?} {now:?}");
        }
    }
}
