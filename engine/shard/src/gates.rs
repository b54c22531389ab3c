//! What replies wait for in a store with copies: that the writes they depend on are on all of them.
//!
//! A gate names a range and a position of its log. It opens when the range is committed up to there, and fails when this
//! shard stopped leading the range before. The shard's [`Gates`] know how far each range is and collect the gates of the
//! command that runs; where the gates stand is up to whoever holds the replies: the queue of a connection, or a [`Hold`]
//! beside a batch of replies for another shard. Nothing of this exists in a store without copies.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use dkv_protocol::frame::{ReplyIter, begin_reply, end_reply};
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::reply;

/// What a write is answered whose range changed hands before all copies had it.
pub(crate) const UNCERTAIN: &str =
    "UNCERTAIN write may or may not have been applied (epoch changed)";
/// What a read is answered that saw such a write.
pub(crate) const UNCOMMITTED_READ: &str =
    "TRYAGAIN the read met a write that was not committed when the range changed hands";

/// One thing that a reply waits for. Two whole words, because it is stored and read again at once for each command: a
/// processor waits for stores that are read in other pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The position in the log, or the number of the confirmation.
    pub(crate) index: u64,
    /// Range, kind and reign: what must have come how far, in which time of leading the range.
    of: u64,
}

/// What a gate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// That what the command wrote is committed.
    Written,
    /// That what the command saw is committed.
    Seen,
    /// That the copies confirm that the shard led the range when the command ran.
    Confirmed,
}

impl Gate {
    #[inline]
    fn new(range: RangeId, kind: Kind, reign: u32, index: u64) -> Self {
        Self { index, of: u64::from(range.0) | (kind as u64) << 8 | u64::from(reign) << 32 }
    }

    #[inline]
    pub(crate) const fn range(self) -> RangeId {
        RangeId(self.of as u8)
    }

    #[inline]
    const fn kind(self) -> Kind {
        match (self.of >> 8) as u8 {
            0 => Kind::Written,
            1 => Kind::Seen,
            _ => Kind::Confirmed,
        }
    }

    /// Which time of leading the range it belongs to.
    #[inline]
    const fn reign(self) -> u32 {
        (self.of >> 32) as u32
    }

    /// Whether another is of the same range and the same time of leading it, and waits for the same.
    pub(crate) fn covers(&self, other: Self) -> bool {
        self.of == other.of
    }

    /// Becomes as late as both.
    pub(crate) fn merge(&mut self, other: Self) {
        self.index = self.index.max(other.index);
    }

    /// Whether the command wrote what it waits for.
    pub(crate) fn is_write(&self) -> bool {
        self.kind() == Kind::Written
    }
}

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GateState {
    /// The reply must stay.
    Shut,
    /// It may leave.
    Open,
    /// It must not leave, ever: something else is answered.
    Failed,
}

/// How far a range is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Up to where a write, and what a read saw, need not be waited for; `u64::MAX` when nothing has to be.
    written: u64,
    seen: u64,
    /// Up to where it is confirmed who leads.
    confirmed: u64,
    /// Counts the times that the shard stopped leading the range.
    reign: u32,
    /// Up to where it was committed when the last such time ended.
    before: u64,
}

/// Gates of the command that runs, one of each kind for each range at most.
#[derive(Debug)]
struct Noted {
    /// By range and kind: the greatest index, 0 for none.
    index: [[u64; 3]; RANGES],
    /// The ranges that have one.
    ranges: Vec<RangeId>,
}

/// See the module.
///
/// The two words of the one gate are stored and at once read again for each command. They lie far apart so that nobody
/// reads them as one: a processor would wait until both stores, and all memory that was written before them, are through.
#[derive(Debug)]
#[repr(C)]
pub struct Gates {
    /// What was noted, when that is one thing, as of nearly every command: its position, ...
    one_index: Cell<u64>,
    progress: [Progress; RANGES],
    /// ... and the rest of it; [`NOTHING`] when it is none.
    one_of: Cell<u64>,
    /// Whether more than that was noted.
    many: Cell<bool>,
    noted: RefCell<Box<Noted>>,
}

/// No [`Gate`] is of this.
const NOTHING: u64 = u64::MAX;

impl Gates {
    /// No range has anything to wait for.
    pub(crate) fn new() -> Self {
        let progress =
            Progress { written: u64::MAX, seen: u64::MAX, confirmed: 0, reign: 0, before: 0 };
        let noted = Noted { index: [[0; 3]; RANGES], ranges: Vec::new() };
        Self {
            progress: [progress; RANGES],
            noted: RefCell::new(Box::new(noted)),
            one_index: Cell::new(0),
            one_of: Cell::new(NOTHING),
            many: Cell::new(false),
        }
    }

    /// A range has come so far: writes are answered up to `written`, and reads of what was written up to `seen`.
    pub(crate) fn committed(&mut self, range: RangeId, written: u64, seen: u64) {
        let progress = &mut self.progress[usize::from(range.0)];
        (progress.written, progress.seen) = (written, seen);
    }

    /// It is confirmed who led a range, up to this number.
    pub(crate) fn confirmed(&mut self, range: RangeId, number: u64) {
        self.progress[usize::from(range.0)].confirmed = number;
    }

    /// The shard no longer leads a range: what waits for it beyond `committed` has failed.
    pub(crate) fn deposed(&mut self, range: RangeId, committed: u64) {
        let progress = &mut self.progress[usize::from(range.0)];
        progress.reign = progress.reign.wrapping_add(1);
        progress.before = committed;
    }

    /// Counts the times that the shard stopped leading a range.
    pub(crate) fn reign(&self, range: RangeId) -> u32 {
        self.progress[usize::from(range.0)].reign
    }

    /// The command that runs has seen what was written at `index`.
    #[inline]
    pub(crate) fn saw(&self, range: RangeId, index: u64) {
        if index > self.progress[usize::from(range.0)].seen {
            self.note(range, index, Kind::Seen);
        }
    }

    /// The command that runs has written `index`.
    #[inline]
    pub(crate) fn wrote(&self, range: RangeId, index: u64) {
        if index > self.progress[usize::from(range.0)].written {
            self.note(range, index, Kind::Written);
        }
    }

    /// What the command that runs reads is to be answered when the confirmation of this number is there.
    pub(crate) fn confirm(&self, range: RangeId, number: u64) {
        if number > self.progress[usize::from(range.0)].confirmed {
            self.note(range, number, Kind::Confirmed);
        }
    }

    #[inline]
    fn note(&self, range: RangeId, index: u64, kind: Kind) {
        let reign = self.progress[usize::from(range.0)].reign;
        let gate = Gate::new(range, kind, reign, index);
        if self.one_of.get() == NOTHING && !self.many.get() {
            self.one_index.set(index);
            self.one_of.set(gate.of);
        } else {
            self.note_another(gate);
        }
    }

    fn note_another(&self, gate: Gate) {
        if self.one_of.get() != NOTHING {
            let mut first = Gate { index: self.one_index.get(), of: self.one_of.get() };
            if first.covers(gate) {
                first.merge(gate);
                return self.one_index.set(first.index);
            }
            self.one_of.set(NOTHING);
            self.many.set(true);
            self.note_among(first);
        }
        self.note_among(gate);
    }

    fn note_among(&self, gate: Gate) {
        let noted = &mut **self.noted.borrow_mut();
        let indexes = &mut noted.index[usize::from(gate.range().0)];
        if *indexes == [0; 3] {
            noted.ranges.push(gate.range());
        }
        let index = &mut indexes[gate.kind() as usize];
        *index = gate.index.max(*index);
    }

    /// The gates of the command that ran, if it has any; the next begins with none.
    #[inline]
    pub(crate) fn take(&self) -> Noticed {
        let of = self.one_of.replace(NOTHING);
        if of != NOTHING {
            Noticed::One(Gate { index: self.one_index.get(), of })
        } else if self.many.get() {
            self.take_noted()
        } else {
            Noticed::None
        }
    }

    fn take_noted(&self) -> Noticed {
        let noted = &mut **self.noted.borrow_mut();
        self.many.set(false);
        let index = &mut noted.index;
        let mut gates = noted.ranges.drain(..).flat_map(|range| {
            let at = usize::from(range.0);
            let [written, seen, confirmed] = core::mem::take(&mut index[at]);
            let reign = self.progress[at].reign;
            // When a later write is on all copies, so is what was seen, and nobody else led.
            let kinds = [
                (Kind::Written, written),
                (Kind::Seen, if seen > written { seen } else { 0 }),
                (Kind::Confirmed, if written == 0 { confirmed } else { 0 }),
            ];
            kinds
                .into_iter()
                .filter(|(_, index)| *index > 0)
                .map(move |(kind, index)| Gate::new(range, kind, reign, index))
        });
        match (gates.next(), gates.next()) {
            (None, _) => Noticed::None,
            (Some(gate), None) => Noticed::One(gate),
            (Some(first), Some(second)) => {
                Noticed::Many([first, second].into_iter().chain(gates).collect())
            }
        }
    }

    /// How a gate stands now.
    #[inline]
    pub(crate) fn state(&self, gate: Gate) -> GateState {
        let progress = &self.progress[usize::from(gate.range().0)];
        if gate.reign() == progress.reign {
            let reached = match gate.kind() {
                Kind::Written => progress.written,
                Kind::Seen => progress.seen,
                Kind::Confirmed => progress.confirmed,
            };
            return if gate.index <= reached { GateState::Open } else { GateState::Shut };
        }
        let before = gate.kind() != Kind::Confirmed
            && gate.reign().wrapping_add(1) == progress.reign
            && gate.index <= progress.before;
        if before { GateState::Open } else { GateState::Failed }
    }

    /// How a reply stands that waits for all of `gates`: the first that is shut, or whether one has failed and the
    /// command wrote there.
    pub(crate) fn state_of(&self, gates: &[Gate]) -> Standing {
        let mut failed = None;
        for gate in gates {
            match self.state(*gate) {
                // What failed is answered at once, whatever else is open.
                GateState::Failed => failed = Some(failed.unwrap_or(false) | gate.is_write()),
                GateState::Shut | GateState::Open => {}
            }
        }
        if let Some(wrote) = failed {
            // A command that wrote elsewhere and only read here has still done something.
            return Standing::Failed { wrote: wrote || gates.iter().any(Gate::is_write) };
        }
        match gates.iter().find(|gate| self.state(**gate) == GateState::Shut) {
            Some(gate) => Standing::Shut(*gate),
            None => Standing::Open,
        }
    }
}

/// How a reply with several gates stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits, for this first.
    Shut(Gate),
    /// It may leave.
    Open,
    /// It is answered with an error.
    Failed {
        /// Whether the command may have written.
        wrote: bool,
    },
}

/// The gates of a command.
#[derive(Debug)]
pub(crate) enum Noticed {
    None,
    One(Gate),
    Many(Vec<Gate>),
}

impl Noticed {
    pub(crate) fn as_slice(&self) -> &[Gate] {
        match self {
            Self::None => &[],
            Self::One(gate) => core::slice::from_ref(gate),
            Self::Many(gates) => gates,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Gate> {
        match self {
            Self::None => Vec::new(),
            Self::One(gate) => Vec::from([gate]),
            Self::Many(gates) => gates,
        }
    }
}

/// Writes what is answered instead of a reply whose gate failed.
#[cold]
pub(crate) fn write_failure(wrote: bool, out: &mut Vec<u8>) {
    reply::error(out, if wrote { UNCERTAIN } else { UNCOMMITTED_READ });
}

/// What a batch of replies for another shard waits for. It belongs to the bytes of that batch; see `Shard::requests_held`.
#[derive(Debug, Default)]
pub struct Hold {
    /// For each reply that waits: its number in the batch, and its gates.
    held: Vec<(u32, Vec<Gate>)>,
    /// How many of them are known to be open.
    open: usize,
    /// Replies in the batch so far.
    replies: u32,
    /// Whether one has failed and is to be replaced.
    failed: bool,
}

impl Hold {
    /// Whether the replies may leave at once.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// One more reply stands in the batch.
    #[inline]
    pub(crate) fn replied(&mut self, gates: Noticed) {
        match gates {
            Noticed::None => {}
            Noticed::One(gate) => self.held.push((self.replies, Vec::from([gate]))),
            Noticed::Many(gates) => self.held.push((self.replies, gates)),
        }
        self.replies += 1;
    }

    /// Whether the batch may leave; what failed was replaced in it then, and is counted.
    pub(crate) fn release(&mut self, gates: &Gates, replies: &mut Vec<u8>) -> Option<u64> {
        while let Some((_, waits)) = self.held.get(self.open) {
            match gates.state_of(waits) {
                Standing::Shut(_) => return None,
                Standing::Open => {}
                Standing::Failed { .. } => self.failed = true,
            }
            self.open += 1;
        }
        let failures = if self.failed { self.rewrite(gates, replies) } else { 0 };
        // Their number stays: more replies may be added behind them.
        self.held.clear();
        (self.open, self.failed) = (0, false);
        Some(failures)
    }

    #[cold]
    fn rewrite(&mut self, gates: &Gates, replies: &mut Vec<u8>) -> u64 {
        let old = core::mem::take(replies);
        let mut held = self.held.iter().peekable();
        let mut failures = 0;
        for (number, one) in ReplyIter::new(&old).enumerate() {
            // It was written here and is well formed.
            let Ok((id, resp)) = one else { break };
            let start = begin_reply(replies, id);
            let waits = held.next_if(|(at, _)| *at as usize == number);
            match waits.map(|(_, waits)| gates.state_of(waits)) {
                Some(Standing::Failed { wrote }) => {
                    failures += 1;
                    write_failure(wrote, replies);
                }
                _ => replies.extend_from_slice(resp),
            }
            end_reply(replies, start);
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const A: RangeId = RangeId(3);
    const B: RangeId = RangeId(200);

    fn gates() -> Gates {
        let mut gates = Gates::new();
        gates.committed(A, 10, 10);
        gates.committed(B, 10, 10);
        gates
    }

    #[test]
    fn only_what_is_not_committed_is_a_gate() {
        let gates = gates();
        gates.saw(A, 10);
        gates.wrote(A, 9);
        gates.saw(RangeId(7), 1 << 40);
        assert!(gates.take().as_slice().is_empty());
        gates.saw(A, 12);
        gates.wrote(A, 13);
        gates.wrote(A, 11);
        gates.confirm(A, 1);
        let noticed = gates.take();
        let [gate] = noticed.as_slice() else { panic!("one gate") };
        assert_eq!((gate.range(), gate.index, gate.kind()), (A, 13, Kind::Written));
        gates.saw(B, 11);
        gates.confirm(B, 1);
        gates.wrote(A, 13);
        assert_eq!(gates.take().as_slice().len(), 3);
        assert!(gates.take().as_slice().is_empty());
    }

    #[test]
    fn a_gate_opens_with_its_range_and_fails_with_the_reign_above_what_was_committed() {
        let mut gates = gates();
        let notice = |gates: &Gates, note: &dyn Fn(&Gates)| {
            note(gates);
            gates.take().as_slice()[0]
        };
        let first = notice(&gates, &|gates| gates.wrote(A, 11));
        let second = notice(&gates, &|gates| gates.saw(A, 12));
        let third = notice(&gates, &|gates| gates.confirm(A, 1));
        let states = |gates: &Gates| [first, second, third].map(|gate| gates.state(gate));
        let (shut, open, failed) = (GateState::Shut, GateState::Open, GateState::Failed);
        assert_eq!(states(&gates), [shut, shut, shut]);
        gates.committed(A, 11, 10);
        assert_eq!(states(&gates), [open, shut, shut]);
        gates.confirmed(A, 1);
        assert_eq!(states(&gates), [open, shut, open]);
        gates.deposed(A, 11);
        assert_eq!(states(&gates), [open, failed, failed]);
        // Whatever the range comes to afterwards says nothing of them.
        gates.committed(A, 100, 100);
        gates.confirmed(A, 100);
        assert_eq!(states(&gates), [open, failed, failed]);
        gates.deposed(A, 200);
        assert_eq!(states(&gates), [failed, failed, failed]);
    }

    #[test]
    fn a_batch_leaves_when_all_of_it_may_with_what_failed_replaced() {
        let mut gates = gates();
        let mut hold = Hold::default();
        let mut batch = vec![];
        let add = |batch: &mut Vec<u8>, id, text: &[u8]| {
            let start = begin_reply(batch, id);
            batch.extend_from_slice(text);
            end_reply(batch, start);
        };
        assert!(hold.is_empty());
        for (id, range) in [(5, None), (6, Some(A)), (7, None), (8, Some(B))] {
            if let Some(range) = range {
                gates.wrote(range, 11);
            }
            hold.replied(gates.take());
            add(&mut batch, id, b"+OK\r\n");
        }
        assert!(!hold.is_empty());
        assert_eq!(hold.release(&gates, &mut batch), None);
        gates.committed(A, 11, 11);
        assert_eq!(hold.release(&gates, &mut batch), None);
        gates.deposed(B, 10);
        assert_eq!(hold.release(&gates, &mut batch), Some(1));
        assert!(hold.is_empty());
        // What comes behind is counted from there.
        gates.wrote(A, 12);
        hold.replied(gates.take());
        add(&mut batch, 9, b"+OK\r\n");
        gates.committed(A, 12, 12);
        assert_eq!(hold.release(&gates, &mut batch), Some(0));
        let replies: Vec<_> = ReplyIter::new(&batch).map(|one| one.expect("a reply")).collect();
        assert_eq!(replies.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        assert!(replies[..3].iter().all(|(_, resp)| *resp == b"+OK\r\n"));
        assert!(replies[3].1.starts_with(b"-UNCERTAIN "));
    }
}
