//! The checker is held against histories whose verdict is known: written ones, legal ones that were made by really
//! executing commands one at a time, and mutants of those.

use super::*;
use crate::model::{Answer, Ask, ValueId};
use crate::rng::Rng;

const MS: u64 = 1_000_000;

fn op(client: u8, from: u64, to: u64, ask: Ask, answer: Option<Answer>) -> Op {
    let return_ns = if answer.is_some() { to * MS } else { u64::MAX };
    Op { client, call_ns: from * MS, return_ns, ask, answer }
}

fn verdict(values: &mut Values, ops: &[Op]) -> Verdict {
    check(values, Tolerance { rate_ppm: 20_500, late_ns: 100 * MS }, ops)
}

#[test]
fn written_histories_get_their_verdict() {
    let mut values = Values::default();
    let (a, b) = (values.id(b"a"), values.id(b"b"));
    let ok = Some(Answer::Done);
    let got = |value| Some(Answer::Value(value));
    let number = |n| Some(Answer::Number(n));
    let flag = |f| Some(Answer::Flag(f));
    let fine = |ops: &[Op]| (true, ops.to_vec());
    let wrong = |ops: &[Op]| (false, ops.to_vec());
    let cases = [
        ("nothing", fine(&[])),
        ("a read of nothing", fine(&[op(0, 0, 1, Ask::Get, got(None))])),
        ("a read of a value nobody wrote", wrong(&[op(0, 0, 1, Ask::Get, got(Some(a)))])),
        (
            "a read beside a write sees either",
            fine(&[
                op(0, 0, 9, Ask::Set(a), ok),
                op(1, 1, 2, Ask::Get, got(None)),
                op(2, 3, 4, Ask::Get, got(Some(a))),
            ]),
        ),
        (
            "a value that was seen and then was not",
            wrong(&[
                op(0, 0, 9, Ask::Set(a), ok),
                op(1, 1, 2, Ask::Get, got(Some(a))),
                op(2, 3, 4, Ask::Get, got(None)),
            ]),
        ),
        (
            "a stale read",
            wrong(&[
                op(0, 0, 1, Ask::Set(a), ok),
                op(0, 2, 3, Ask::Set(b), ok),
                op(1, 4, 5, Ask::Get, got(Some(a))),
            ]),
        ),
        (
            "a write of unknown outcome, seen late",
            fine(&[
                op(0, 0, 1, Ask::Set(a), ok),
                op(1, 2, 0, Ask::Set(b), None),
                op(2, 3, 4, Ask::Get, got(Some(a))),
                op(2, 5, 6, Ask::Get, got(Some(b))),
            ]),
        ),
        (
            "a write of unknown outcome that came and went",
            wrong(&[
                op(0, 0, 1, Ask::Set(a), ok),
                op(1, 2, 0, Ask::Set(b), None),
                op(2, 3, 4, Ask::Get, got(Some(b))),
                op(2, 5, 6, Ask::Get, got(Some(a))),
            ]),
        ),
        ("a lost write", wrong(&[op(0, 0, 1, Ask::Set(a), ok), op(0, 2, 3, Ask::Get, got(None))])),
        (
            "numbers",
            fine(&[
                op(0, 0, 9, Ask::Incr, number(2)),
                op(1, 0, 9, Ask::Incr, number(1)),
                op(2, 0, 9, Ask::Incr, number(3)),
            ]),
        ),
        (
            "a number that was given twice",
            wrong(&[op(0, 0, 9, Ask::Incr, number(1)), op(1, 0, 9, Ask::Incr, number(1))]),
        ),
        (
            "an increment applied twice",
            wrong(&[op(0, 0, 1, Ask::Incr, number(1)), op(0, 2, 3, Ask::Incr, number(3))]),
        ),
        (
            "appends in either order, by what a read says",
            fine(&[
                op(0, 0, 9, Ask::Append(a), number(2)),
                op(1, 0, 9, Ask::Append(b), number(1)),
                op(2, 10, 11, Ask::Get, got(Some(values.id(b"ba")))),
            ]),
        ),
        (
            "appends in the order that their lengths forbid",
            wrong(&[
                op(0, 0, 9, Ask::Append(a), number(2)),
                op(1, 0, 9, Ask::Append(b), number(1)),
                op(2, 10, 11, Ask::Get, got(Some(values.id(b"ab")))),
            ]),
        ),
        (
            "only one of two wins a comparison",
            wrong(&[
                op(0, 0, 9, Ask::SetIf(None, a), flag(true)),
                op(1, 0, 9, Ask::SetIf(None, b), flag(true)),
            ]),
        ),
        (
            "a key that expires",
            fine(&[
                op(0, 0, 1, Ask::SetFor(a, 50 * MS), ok),
                op(0, 2, 3, Ask::Get, got(Some(a))),
                op(0, 60, 61, Ask::Get, got(None)),
                op(0, 62, 63, Ask::Del, flag(false)),
            ]),
        ),
        (
            "a key that expires too early",
            wrong(&[op(0, 0, 1, Ask::SetFor(a, 50 * MS), ok), op(0, 2, 3, Ask::Get, got(None))]),
        ),
        (
            "a key that does not expire",
            wrong(&[
                op(0, 0, 1, Ask::SetFor(a, 50 * MS), ok),
                op(0, 400, 401, Ask::Get, got(Some(a))),
            ]),
        ),
        (
            "an expired key that rises again",
            wrong(&[
                op(0, 0, 1, Ask::SetFor(a, 50 * MS), ok),
                op(0, 60, 61, Ask::Get, got(None)),
                op(0, 62, 63, Ask::Get, got(Some(a))),
            ]),
        ),
        (
            "an expiry that was taken away",
            fine(&[
                op(0, 0, 1, Ask::Set(a), ok),
                op(0, 2, 3, Ask::Expire(50 * MS), flag(true)),
                op(0, 4, 5, Ask::Persist, flag(true)),
                op(0, 400, 401, Ask::Get, got(Some(a))),
            ]),
        ),
        (
            "a key without an expiry is never gone",
            wrong(&[op(0, 0, 1, Ask::Set(a), ok), op(0, 900, 901, Ask::Get, got(None))]),
        ),
    ];
    for (name, (fine, ops)) in cases {
        let verdict = verdict(&mut values, &ops);
        assert_eq!(verdict == Verdict::Linearizable, fine, "{name}: {verdict:?}");
        assert_ne!(verdict, Verdict::Undecided, "{name}");
    }
}

#[test]
fn a_history_that_is_too_long_is_not_passed() {
    let ops = vec![op(0, 0, 1, Ask::Get, Some(Answer::Value(None))); OPS_MAX + 1];
    assert_eq!(verdict(&mut Values::default(), &ops), Verdict::Undecided);
    assert_eq!(verdict(&mut Values::default(), &ops[..OPS_MAX]), Verdict::Linearizable);
}

/// A history that really happened: each command takes effect at one moment between call and answer, and a share
/// of the writes is never answered, half of which never took place.
fn legal(
    values: &mut Values,
    rng: &mut Rng,
    (clients, count): (u64, usize),
    unknown_permille: u64,
) -> Vec<Op> {
    let mut free_at = vec![0_u64; clients as usize];
    let mut pending: Vec<(u64, Op)> = Vec::new();
    let mut state: Option<ValueId> = None;
    let mut ops = Vec::new();
    for serial in 0..count {
        let client = rng.index(free_at.len());
        let call_ns = free_at[client] + rng.below(3 * MS);
        let effect_ns = call_ns + rng.below(2 * MS);
        let return_ns = effect_ns + rng.below(2 * MS);
        free_at[client] = return_ns + 1;
        let fresh = values.id(format!("v{serial}").as_bytes());
        let ask = match rng.below(10) {
            0..=4 => Ask::Get,
            5..=7 => Ask::Set(fresh),
            8 => Ask::SetIf(None, fresh),
            _ => Ask::Del,
        };
        pending
            .push((effect_ns, Op { client: client as u8, call_ns, return_ns, ask, answer: None }));
    }
    pending.sort_by_key(|(effect_ns, op)| (*effect_ns, op.call_ns));
    for (_, mut op) in pending {
        let unknown = !op.ask.reads() && rng.chance(unknown_permille);
        if unknown && rng.chance(500) {
            ops.push(Op { return_ns: u64::MAX, ..op });
            continue;
        }
        let answer = match op.ask {
            Ask::Get => Answer::Value(state),
            Ask::Set(value) => {
                state = Some(value);
                Answer::Done
            }
            Ask::SetIf(expected, value) => {
                let as_expected = state == expected;
                if as_expected {
                    state = Some(value);
                }
                Answer::Flag(as_expected)
            }
            _ => Answer::Flag(state.take().is_some()),
        };
        if unknown {
            op.return_ns = u64::MAX;
        } else {
            op.answer = Some(answer);
        }
        ops.push(op);
    }
    ops
}

#[test]
fn legal_histories_pass_and_mutants_do_not() {
    let mut rng = Rng::new(1);
    let (mut rejected, mut undecided, mut mutants) = (0, 0, 0);
    for round in 0..150 {
        let mut values = Values::default();
        let ops = legal(&mut values, &mut rng, (5, 300), 20);
        assert_eq!(verdict(&mut values, &ops), Verdict::Linearizable, "round {round}");
        // A read says what the key held some time before: an older value, or the one before it was removed.
        let reads: Vec<usize> = (60..ops.len())
            .filter(|at| matches!(ops[*at].answer, Some(Answer::Value(Some(_)))))
            .collect();
        let Some(at) = reads.get(rng.index(reads.len().max(1))) else { continue };
        let older = ops[..at - 40].iter().rev().find_map(|op| match op.ask {
            Ask::Set(value) if op.answer.is_some() => Some(value),
            _ => None,
        });
        let Some(older) = older else { continue };
        let mut mutant = ops;
        mutant[*at].answer = Some(Answer::Value(Some(older)));
        mutants += 1;
        match verdict(&mut values, &mutant) {
            Verdict::Violated { .. } => rejected += 1,
            Verdict::Undecided => undecided += 1,
            Verdict::Linearizable => panic!("round {round}: a value of 40 commands ago passed"),
        }
    }
    assert!(mutants >= 140, "{mutants}");
    assert!(undecided * 20 <= mutants, "{undecided} of {mutants} were not decided");
    assert_eq!(rejected + undecided, mutants);
}

#[test]
fn a_lost_write_is_rejected_in_long_histories() {
    let mut rng = Rng::new(2);
    let mut rejected = 0;
    for _ in 0..100 {
        let mut values = Values::default();
        let mut ops = legal(&mut values, &mut rng, (4, 150), 0);
        let end = ops.iter().filter(|op| op.answer.is_some()).map(|op| op.return_ns).max().unwrap();
        let value = values.id(b"last");
        let set = op(0, 0, 0, Ask::Set(value), Some(Answer::Done));
        let get = op(0, 0, 0, Ask::Get, Some(Answer::Value(None)));
        ops.push(Op { call_ns: end + 1, return_ns: end + 2, ..set });
        ops.push(Op { call_ns: end + 3, return_ns: end + 4, ..get });
        match verdict(&mut values, &ops) {
            Verdict::Violated { stuck } => {
                assert_eq!(stuck, ops.len() - 1, "the read that shows it is named");
                rejected += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rejected, 100);
}
