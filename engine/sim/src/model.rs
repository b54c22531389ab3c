//! What one key does when commands come one at a time: the sequential specification that histories are held against.
//!
//! A key is a value or nothing. One with an expiry may be gone from the earliest moment that its clock could have come to
//! the deadline, and must be gone a good while after the latest; between the two both answers are right, but once it was
//! seen gone it stays gone. Values are numbered, so that a state is two words.

use hashbrown::HashMap;
use std::fmt;

/// A value, by the number under which [`Values`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(u32);

/// All values of a run.
#[derive(Debug, Default)]
pub struct Values {
    list: Vec<Box<[u8]>>,
    ids: HashMap<Box<[u8]>, ValueId, rapidhash::fast::RandomState>,
    joined: HashMap<(ValueId, ValueId), ValueId, rapidhash::fast::RandomState>,
}

impl Values {
    /// The number of a value.
    pub fn id(&mut self, value: &[u8]) -> ValueId {
        if let Some(id) = self.ids.get(value) {
            return *id;
        }
        let id = ValueId(self.list.len() as u32);
        self.list.push(value.into());
        self.ids.insert(value.into(), id);
        id
    }

    /// A value.
    pub fn bytes(&self, id: ValueId) -> &[u8] {
        &self.list[id.0 as usize]
    }

    fn join(&mut self, first: Option<ValueId>, second: ValueId) -> ValueId {
        let Some(first) = first else {
            return second;
        };
        if let Some(id) = self.joined.get(&(first, second)) {
            return *id;
        }
        let whole = [self.bytes(first), self.bytes(second)].concat();
        let id = self.id(&whole);
        self.joined.insert((first, second), id);
        id
    }

    fn number(&self, id: Option<ValueId>) -> Option<i64> {
        let Some(id) = id else {
            return Some(0);
        };
        std::str::from_utf8(self.bytes(id)).ok()?.parse().ok()
    }

    fn length(&self, id: Option<ValueId>) -> i64 {
        id.map_or(0, |id| self.bytes(id).len() as i64)
    }

    /// A value as a reader of a trace wants it.
    pub fn shown(&self, id: Option<ValueId>) -> String {
        id.map_or_else(|| "nil".into(), |id| String::from_utf8_lossy(self.bytes(id)).into_owned())
    }
}

/// What a client asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET`: the value.
    Get,
    /// `SET`: done.
    Set(ValueId),
    /// `SET … PX`: done.
    SetFor(ValueId, u64),
    /// The value becomes another if it is this one: whether it was.
    SetIf(Option<ValueId>, ValueId),
    /// `INCR`: the new number.
    Incr,
    /// `APPEND`: the new length.
    Append(ValueId),
    /// `DEL`: whether there was one.
    Del,
    /// `PEXPIRE`: whether there was one.
    Expire(u64),
    /// `PERSIST`: whether there was one with an expiry.
    Persist,
}

impl Ask {
    /// Whether it only looks.
    pub fn reads(self) -> bool {
        self == Self::Get
    }
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A value or nil.
    Value(Option<ValueId>),
    /// `OK`.
    Done,
    /// One or nothing.
    Flag(bool),
    /// A number.
    Number(i64),
}

/// One command of a client.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Who; for the reader of a trace.
    pub client: u8,
    /// When it was sent.
    pub call_ns: u64,
    /// When it was answered.
    pub return_ns: u64,
    /// What.
    pub ask: Ask,
    /// The answer; none when nobody knows whether it took place.
    pub answer: Option<Answer>,
}

/// A key between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    value: Option<ValueId>,
    may_be_gone_ns: u64,
    must_be_gone_ns: u64,
}

impl State {
    /// No value.
    pub const NONE: Self =
        Self { value: None, may_be_gone_ns: u64::MAX, must_be_gone_ns: u64::MAX };

    fn lasting(value: ValueId) -> Self {
        Self { value: Some(value), ..Self::NONE }
    }
}

/// How far the clocks may be off when an expiry is judged.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// By how much, in millionths, a clock may run fast or slow.
    pub rate_ppm: u64,
    /// How long after the latest deadline a key may still be seen: what pauses and queues add when it changes hands.
    pub late_ns: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { rate_ppm: 20_500, late_ns: 5_000_000_000 }
    }
}

impl Tolerance {
    fn expiring(self, value: Option<ValueId>, op: &Op, ttl_ns: u64) -> State {
        let off = (u128::from(ttl_ns) * u128::from(self.rate_ppm) / 1_000_000) as u64;
        // Deadlines have whole milliseconds, and each change of hands may round one off.
        let earliest = (op.call_ns + ttl_ns).saturating_sub(off + 5_000_000);
        let latest = op.return_ns.saturating_add(ttl_ns + off).saturating_add(self.late_ns);
        State { value, may_be_gone_ns: earliest, must_be_gone_ns: latest }
    }
}

/// The state after a command, if it may take place in this state with that answer.
pub fn step(values: &mut Values, tolerance: Tolerance, state: State, op: &Op) -> Option<State> {
    if op.call_ns <= state.must_be_gone_ns
        && let Some(next) = step_as_it_is(values, tolerance, state, op)
    {
        return Some(next);
    }
    let may_be_gone = state.value.is_some() && state.may_be_gone_ns <= op.return_ns;
    if may_be_gone { step_as_it_is(values, tolerance, State::NONE, op) } else { None }
}

fn step_as_it_is(
    values: &mut Values,
    tolerance: Tolerance,
    state: State,
    op: &Op,
) -> Option<State> {
    let told = |right: Answer, next: State| match op.answer {
        Some(answer) if answer != right => None,
        _ => Some(next),
    };
    let present = state.value.is_some();
    match op.ask {
        Ask::Get => told(Answer::Value(state.value), state),
        Ask::Set(value) => told(Answer::Done, State::lasting(value)),
        Ask::SetFor(value, ttl_ns) => {
            told(Answer::Done, tolerance.expiring(Some(value), op, ttl_ns))
        }
        Ask::SetIf(expected, value) => {
            let as_expected = state.value == expected;
            told(Answer::Flag(as_expected), if as_expected { State::lasting(value) } else { state })
        }
        Ask::Incr => {
            let number = values.number(state.value)?.checked_add(1)?;
            let value = values.id(number.to_string().as_bytes());
            told(Answer::Number(number), State { value: Some(value), ..state })
        }
        Ask::Append(piece) => {
            let length = values.length(state.value) + values.length(Some(piece));
            if op.answer.is_some_and(|answer| answer != Answer::Number(length)) {
                return None;
            }
            Some(State { value: Some(values.join(state.value, piece)), ..state })
        }
        Ask::Del => told(Answer::Flag(present), State::NONE),
        Ask::Expire(ttl_ns) => {
            let next = if present { tolerance.expiring(state.value, op, ttl_ns) } else { state };
            told(Answer::Flag(present), next)
        }
        Ask::Persist => {
            let expires = state.may_be_gone_ns != u64::MAX;
            let next = State { value: state.value, ..State::NONE };
            told(Answer::Flag(expires), next)
        }
    }
}

/// A command and its answer on one line.
pub fn shown(values: &Values, op: &Op) -> String {
    let ask = ask_shown(values, op.ask);
    let answer = op.answer.map_or_else(|| "unknown".into(), |answer| answer_shown(values, answer));
    let until = if op.return_ns == u64::MAX {
        "         ...".into()
    } else {
        format!("{:>12.6}", op.return_ns as f64 / 1e6)
    };
    format!("{:>12.6} {until} c{} {ask} -> {answer}", op.call_ns as f64 / 1e6, op.client)
}

/// A command as one would type it.
pub fn ask_shown(values: &Values, ask: Ask) -> impl fmt::Display {
    let value = |id| values.shown(Some(id));
    match ask {
        Ask::Get => "get".to_owned(),
        Ask::Set(id) => format!("set {}", value(id)),
        Ask::SetFor(id, ttl_ns) => format!("set {} px {}", value(id), ttl_ns / 1_000_000),
        Ask::SetIf(from, to) => format!("set {} if {}", value(to), values.shown(from)),
        Ask::Incr => "incr".to_owned(),
        Ask::Append(id) => format!("append {}", value(id)),
        Ask::Del => "del".to_owned(),
        Ask::Expire(ttl_ns) => format!("pexpire {}", ttl_ns / 1_000_000),
        Ask::Persist => "persist".to_owned(),
    }
}

/// An answer as one would see it.
pub fn answer_shown(values: &Values, answer: Answer) -> String {
    match answer {
        Answer::Value(id) => values.shown(id),
        Answer::Done => "ok".to_owned(),
        Answer::Flag(flag) => u8::from(flag).to_string(),
        Answer::Number(number) => number.to_string(),
    }
}
