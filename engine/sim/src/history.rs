//! What clients asked and were told, key by key, and the judgement of it.

use crate::checker::{self, Verdict};
use crate::model::{self, Answer, Ask, Op, Tolerance, Values};
use dkv_protocol::ids::RangeId;

/// A key of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// What kind of commands a key gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Written, compared, removed.
    Register,
    /// Counted up.
    Counter,
    /// Appended to.
    List,
    /// Written with an expiry.
    Expiring,
}

/// One command of a history, to be answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpRef {
    /// Of which key.
    pub key: KeyId,
    /// Which.
    pub index: u32,
}

/// A key's commands.
#[derive(Debug)]
pub struct KeyHistory {
    /// The key.
    pub name: String,
    /// Where it lives.
    pub range: RangeId,
    /// What it gets.
    pub class: Class,
    /// Its commands, in the order of their calls.
    pub ops: Vec<Op>,
    refused: Vec<bool>,
    /// How many writes have an unknown outcome.
    pub unknown: u32,
    void: bool,
}

/// All histories of a run.
#[derive(Debug, Default)]
pub struct History {
    /// All values.
    pub values: Values,
    keys: Vec<KeyHistory>,
}

/// What all histories came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Keys whose history is not linearizable, each with its history as text.
    pub violated: Vec<String>,
    /// Keys on which the search was given up.
    pub undecided: u32,
    /// Keys that were passed.
    pub passed: u32,
    /// Commands that were answered.
    pub answered: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Commands that were refused.
    pub refused: u64,
}

impl History {
    /// Another key.
    pub fn add_key(&mut self, name: String, range: RangeId, class: Class) -> KeyId {
        let key = KeyHistory {
            name,
            range,
            class,
            ops: Vec::new(),
            refused: Vec::new(),
            unknown: 0,
            void: false,
        };
        self.keys.push(key);
        KeyId(self.keys.len() as u32 - 1)
    }

    /// A key.
    pub fn key(&self, key: KeyId) -> &KeyHistory {
        &self.keys[key.0 as usize]
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, &KeyHistory)> {
        self.keys.iter().enumerate().map(|(index, key)| (KeyId(index as u32), key))
    }

    /// A client asks.
    pub fn call(&mut self, now_ns: u64, client: u8, key: KeyId, ask: Ask) -> OpRef {
        let history = &mut self.keys[key.0 as usize];
        history.ops.push(Op { client, call_ns: now_ns, return_ns: u64::MAX, ask, answer: None });
        history.refused.push(false);
        OpRef { key, index: history.ops.len() as u32 - 1 }
    }

    /// It was answered.
    pub fn answered(&mut self, now_ns: u64, op: OpRef, answer: Answer) {
        let op = &mut self.keys[op.key.0 as usize].ops[op.index as usize];
        op.return_ns = now_ns;
        op.answer = Some(answer);
    }

    /// It was refused for certain: it has not taken place.
    pub fn refused(&mut self, op: OpRef) {
        self.keys[op.key.0 as usize].refused[op.index as usize] = true;
    }

    /// Nobody will ever know.
    pub fn unknown(&mut self, op: OpRef) {
        let history = &mut self.keys[op.key.0 as usize];
        history.unknown += u32::from(!history.ops[op.index as usize].ask.reads());
    }

    /// Everything that a range held is gone, rightly: its keys are judged no more.
    pub fn void_range(&mut self, range: RangeId) {
        for key in self.keys.iter_mut().filter(|key| key.range == range) {
            key.void = true;
        }
    }

    /// Whether a key is not judged any more.
    pub fn is_void(&self, key: KeyId) -> bool {
        self.keys[key.0 as usize].void
    }

    /// Judges all.
    pub fn judge(&mut self, tolerance: Tolerance) -> Judgement {
        let mut judgement = Judgement::default();
        for key in &self.keys {
            judgement.refused += key.refused.iter().filter(|refused| **refused).count() as u64;
            let happened = key.ops.iter().zip(&key.refused).filter(|(_, refused)| !**refused);
            // A read without an answer says nothing.
            let ops: Vec<Op> = happened
                .map(|(op, _)| *op)
                .filter(|op| op.answer.is_some() || !op.ask.reads())
                .collect();
            let answered = ops.iter().filter(|op| op.answer.is_some()).count() as u64;
            judgement.answered += answered;
            judgement.unknown += ops.len() as u64 - answered;
            if key.void {
                continue;
            }
            match checker::check(&mut self.values, tolerance, &ops) {
                Verdict::Linearizable => judgement.passed += 1,
                Verdict::Undecided => judgement.undecided += 1,
                Verdict::Violated { stuck } => {
                    let mut text = format!("{} (range {})\n", key.name, key.range.0);
                    for (index, op) in ops.iter().enumerate() {
                        let mark = if index == stuck { ">" } else { " " };
                        text.extend([mark, " ", &model::shown(&self.values, op), "\n"]);
                    }
                    judgement.violated.push(text);
                }
            }
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_or_only_read_without_an_answer_is_not_judged() {
        let mut history = History::default();
        let key = history.add_key("k".into(), RangeId(3), Class::Register);
        let a = history.values.id(b"a");
        let refused = history.call(1, 0, key, Ask::Set(a));
        history.refused(refused);
        let unanswered = history.call(2, 1, key, Ask::Get);
        history.unknown(unanswered);
        let get = history.call(3, 0, key, Ask::Get);
        history.answered(4, get, Answer::Value(None));
        let judgement = history.judge(Tolerance::default());
        let expected = Judgement { passed: 1, answered: 1, refused: 1, ..Judgement::default() };
        assert_eq!(judgement, expected);
        // Had the refused write taken place, a later read would show it.
        let get = history.call(5, 0, key, Ask::Get);
        history.answered(6, get, Answer::Value(Some(a)));
        let judgement = history.judge(Tolerance::default());
        assert_eq!(judgement.violated.len(), 1);
        assert!(judgement.violated[0].contains("> "), "{}", judgement.violated[0]);
        history.void_range(RangeId(3));
        assert!(history.judge(Tolerance::default()).violated.is_empty());
    }
}
