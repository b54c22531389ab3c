//! Whether a history of one key is linearizable: the search of Wing and Gong with the memory of Lowe.
//!
//! Commands are tried in the order of their calls; a command may be chosen while no other that is still open was answered
//! before it was called. What was chosen and the state that came out are remembered, so that no pair is tried twice. A
//! command of which nobody knows whether it took place may be chosen at any later moment, or never. The search is given
//! up after a number of steps: such a verdict is neither a pass nor a violation, and whoever counts must say so.

use crate::model::{Op, State, Tolerance, Values, step};
use hashbrown::HashSet;

/// Most commands of one history.
pub const OPS_MAX: usize = 320;
const WORDS: usize = OPS_MAX / 64;
/// Steps of a search before it is given up.
const STEPS_MAX: u64 = 2_000_000;

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order in which it could have happened.
    Linearizable,
    /// There is none. The longest order that could be built leaves this command out, by its index.
    Violated {
        /// The answered command that could not be placed when the most others were.
        stuck: usize,
    },
    /// The search was given up.
    Undecided,
}

/// One end of a command in the order of time.
#[derive(Clone, Copy)]
struct Entry {
    op: usize,
    is_call: bool,
    previous: usize,
    next: usize,
    /// Of a call: where the answer is, or `NONE`.
    answer: usize,
}

const NONE: usize = usize::MAX;
const HEAD: usize = 0;

/// Judges a history. More than [`OPS_MAX`] commands are not looked at: the verdict is `Undecided`.
pub fn check(values: &mut Values, tolerance: Tolerance, ops: &[Op]) -> Verdict {
    if ops.len() > OPS_MAX {
        return Verdict::Undecided;
    }
    let mut entries = entries(ops);
    let mut open = ops.iter().filter(|op| op.answer.is_some()).count();
    let mut state = State::NONE;
    let mut chosen = [0_u64; WORDS];
    let mut seen: HashSet<([u64; WORDS], State), rapidhash::fast::RandomState> = HashSet::default();
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut at = entries[HEAD].next;
    let mut furthest = (usize::MAX, 0);
    let mut steps = 0_u64;
    while open > 0 {
        steps += 1;
        if steps > STEPS_MAX {
            return Verdict::Undecided;
        }
        let entry = entries[at];
        if entry.is_call {
            if let Some(next) = step(values, tolerance, state, &ops[entry.op]) {
                chosen[entry.op / 64] |= 1 << (entry.op % 64);
                if seen.insert((chosen, next)) {
                    path.push((at, state));
                    state = next;
                    open -= usize::from(entry.answer != NONE);
                    lift(&mut entries, at);
                    at = entries[HEAD].next;
                    continue;
                }
                chosen[entry.op / 64] &= !(1 << (entry.op % 64));
            }
            at = entry.next;
            continue;
        }
        // An answer comes before anything else can be chosen, and its command was not: back.
        if open < furthest.0 {
            furthest = (open, entry.op);
        }
        let Some((call, before)) = path.pop() else {
            return Verdict::Violated { stuck: furthest.1 };
        };
        let op = entries[call].op;
        chosen[op / 64] &= !(1 << (op % 64));
        open += usize::from(entries[call].answer != NONE);
        state = before;
        unlift(&mut entries, call);
        at = entries[call].next;
    }
    Verdict::Linearizable
}

fn entries(ops: &[Op]) -> Vec<Entry> {
    let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(ops.len() * 2);
    for (index, op) in ops.iter().enumerate() {
        // At one moment calls come before answers: such commands overlap.
        order.push((op.call_ns, false, index));
        if op.answer.is_some() {
            order.push((op.return_ns, true, index));
        }
    }
    order.sort_unstable();
    let last = order.len();
    let mut entries =
        vec![Entry { op: NONE, is_call: false, previous: NONE, next: 1, answer: NONE }];
    let mut call_of = vec![NONE; ops.len()];
    for (place, (_, is_answer, op)) in order.into_iter().enumerate() {
        let here = place + 1;
        let next = if here == last { NONE } else { here + 1 };
        entries.push(Entry { op, is_call: !is_answer, previous: place, next, answer: NONE });
        if is_answer {
            entries[call_of[op]].answer = here;
        } else {
            call_of[op] = here;
        }
    }
    entries
}

fn lift(entries: &mut [Entry], call: usize) {
    unlink(entries, call);
    let answer = entries[call].answer;
    if answer != NONE {
        unlink(entries, answer);
    }
}

fn unlift(entries: &mut [Entry], call: usize) {
    let answer = entries[call].answer;
    if answer != NONE {
        relink(entries, answer);
    }
    relink(entries, call);
}

fn unlink(entries: &mut [Entry], at: usize) {
    let Entry { previous, next, .. } = entries[at];
    entries[previous].next = next;
    if next != NONE {
        entries[next].previous = previous;
    }
}

fn relink(entries: &mut [Entry], at: usize) {
    let Entry { previous, next, .. } = entries[at];
    entries[previous].next = at;
    if next != NONE {
        entries[next].previous = at;
    }
}

#[cfg(test)]
mod tests;
