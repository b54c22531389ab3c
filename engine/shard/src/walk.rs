//! Commands that look at as many keys as there are, in steps: KEYS, and CLUSTER GETKEYSINSLOT; and COMMAND, where it describes many.
//!
//! The session drives them: it asks each shard for a step, which names where to go on, and asks again until every shard
//! is through. Between two steps everybody else has their turn, so the keys are those of different moments, each as
//! SCAN would have found it. This shard's own steps are taken at the end of turns, one a turn. What has come is held
//! with the connection's replies and bounded like them; a connection that goes takes its steps with it.
//!
//! In a store with copies, where ranges change hands one by one, KEYS on a client port goes through the ranges: each step
//! is asked of whoever leads the range that comes next, as a command on a key would be.

use crate::command::{Args, Now, Spec};
use crate::commands::command::Described;
use crate::commands::{self, scan};
use crate::face::SessionId;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::replication::{Admission, refuse};
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::frame::RequestHead;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::RANGES;
use dkv_protocol::resp::{Proto, reply};

/// Which keys are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that match a pattern.
    Matching(Vec<u8>),
    /// So many of a slot.
    OfSlot(u16, usize),
    /// No keys, but what is told of commands.
    Commands(Described),
}

/// A step to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    session: SessionId,
    /// The place in the session's queue, and the part of the reply: the number of the shard that takes the steps, but in a
    /// walk through ranges.
    slot: u32,
    part: u32,
    cursor: u64,
    /// The range whose leader takes it, in a walk through ranges.
    range: Option<RangeId>,
}

/// A request that is kept: its arguments, and how its reply must be written.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
    pub(crate) proto: Proto,
    pub(crate) whole_store: bool,
    /// Whether it leaves the keys that it reads as they are for eviction (CLIENT NO-TOUCH).
    pub(crate) no_touch: bool,
}

impl Request {
    /// A copy of a request of a batch.
    pub(crate) fn new(head: RequestHead, bytes: &[u8], spans: &[(u32, u32)]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            spans: spans.to_vec(),
            proto: head.proto,
            whole_store: head.whole_store,
            no_touch: head.no_touch,
        }
    }

    /// One without arguments.
    pub(crate) fn empty(proto: Proto, whole_store: bool) -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), proto, whole_store, no_touch: false }
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.spans)
    }

    pub(crate) fn add(&mut self, argument: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(argument);
        self.spans.push((start, self.bytes.len() as u32));
    }

    pub(crate) fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

impl Wanted {
    /// The request for a step, when `found` keys have been found; `end` is the range before which a walk through ranges
    /// ends.
    pub(crate) fn request(&self, cursor: u64, found: usize, end: Option<u16>) -> Request {
        let mut request = Request::empty(Proto::Resp2, true);
        let mut number = itoa::Buffer::new();
        if let (Some(end), Self::Matching(pattern)) = (end, self) {
            request.add(scan::WALK_RANGES_REQUEST);
            request.add(number.format(cursor).as_bytes());
            request.add(number.format(end).as_bytes());
            request.add(pattern);
            return request;
        }
        if let Self::Commands(described) = self {
            described.ask(cursor, |argument| request.add(argument));
            return request;
        }
        request.add(scan::WALK_REQUEST);
        request.add(number.format(cursor).as_bytes());
        match self {
            Self::Commands(_) => {}
            Self::Matching(pattern) => request.add(pattern),
            Self::OfSlot(slot, count) => {
                request.add(b"*");
                request.add(number.format(*slot).as_bytes());
                request.add(number.format(count.saturating_sub(found)).as_bytes());
            }
        }
        request
    }

    /// Most keys.
    pub(crate) fn count_max(&self) -> usize {
        match self {
            Self::Matching(_) | Self::Commands(_) => usize::MAX,
            Self::OfSlot(_, count) => *count,
        }
    }

    /// The head of the whole reply.
    pub(crate) fn head(&self, count: usize, out: &mut Vec<u8>) {
        match self {
            Self::Commands(described) => described.head(count, out),
            Self::Matching(_) | Self::OfSlot(..) => reply::array(out, count),
        }
    }
}

impl Shard {
    /// KEYS.
    pub(crate) fn keys(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        session.last = (spec.name, "");
        let pattern = args.get(1);
        let mut refusal = Vec::new();
        if !scan::is_pattern(pattern, &mut refusal) {
            self.answer(session, &refusal);
            return ControlFlow::Continue(());
        }
        let wanted = Wanted::Matching(pattern.into());
        match (session.whole_store(), self.copies.is_some()) {
            (true, true) => self.walk_ranges(now, session, wanted),
            (true, false) => {
                let all = self.everybody();
                self.walk(now, session, &all, wanted)
            }
            (false, _) => {
                let me = self.links.me();
                self.walk(now, session, &[me], wanted)
            }
        }
    }

    /// A COMMAND that goes in steps.
    pub(crate) fn describe_commands(
        &mut self,
        now: Now,
        session: &mut Session,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        match Described::of(args, session.proto) {
            Ok(described) => {
                let me = self.links.me();
                self.walk(now, session, &[me], Wanted::Commands(described))
            }
            Err(refusal) => {
                self.answer(session, &refusal);
                ControlFlow::Continue(())
            }
        }
    }

    /// Begins to walk the keys of all ranges in a store with copies: side by side those that have one leader each, but so
    /// that every range is walked once, whoever leads it by then.
    fn walk_ranges(&mut self, now: Now, session: &mut Session, wanted: Wanted) -> ControlFlow<()> {
        let owner = |shard: &Self, range: u16| shard.links.owner_of_range(RangeId(range as u8));
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for range in 0..RANGES as u16 {
            if range == 0 || owner(self, range) != owner(self, range - 1) {
                starts.push(range);
                ends.extend((range > 0).then_some(range));
                self.admit(session, owner(self, range))?;
            }
        }
        ends.push(RANGES as u16);
        let slot = session.replies.wait_for_all(Merging::walk_ranges(wanted, ends));
        (session.walking, session.is_odd) = (Some(slot), true);
        for (part, start) in starts.into_iter().enumerate() {
            let range = Some(RangeId(start as u8));
            let cursor = scan::start_of(start);
            let step = Step { session: session.id, slot, part: part as u32, cursor, range };
            self.step_of_range(now, session, step);
        }
        ControlFlow::Continue(())
    }

    /// Begins to walk the keys of `shards`.
    pub(crate) fn walk(
        &mut self,
        now: Now,
        session: &mut Session,
        shards: &[u16],
        wanted: Wanted,
    ) -> ControlFlow<()> {
        if !self.admit_all(session, shards)? {
            return ControlFlow::Continue(());
        }
        let merging = Merging::walk(wanted, shards.len() as u32);
        let slot = session.replies.wait_for_all(merging);
        (session.walking, session.is_odd) = (Some(slot), true);
        let step = |to: u16| {
            let part = u32::from(to);
            Step { session: session.id, slot, part, cursor: 0, range: None }
        };
        let me = self.links.me();
        for to in shards.iter().copied().filter(|to| *to != me) {
            self.ask(session, step(to));
        }
        if shards.contains(&me) {
            self.step_here(now, session, step(me));
        }
        ControlFlow::Continue(())
    }

    /// A step has been taken, and there is more.
    pub(crate) fn walk_goes_on(&mut self, session: &Session, slot: u32, part: u32, cursor: u64) {
        let range = session.replies.walks_ranges(slot).then(|| scan::range_at(cursor));
        self.walks.push_back(Step { session: session.id, slot, part, cursor, range });
    }

    /// The shard that takes a step, as far as is known.
    fn taker(&self, step: Step) -> u16 {
        step.range.map_or(step.part as u16, |range| self.links.owner_of_range(range))
    }

    /// Whose reply the one to a step is.
    fn waiting_for(step: Step) -> Waiting {
        Waiting {
            session: step.session,
            slot: step.slot,
            part: step.part,
            write: false,
            shared: true,
            weight: scan::STEP_BYTES_MAX as u32,
            range: step.range,
        }
    }

    /// Asks another shard, which is up, for a step.
    fn ask(&mut self, session: &Session, step: Step) {
        let request = session.replies.walk_request(step.slot, step.part, step.cursor);
        let Some(request) = request else { return };
        let (to, whole_store) = (self.taker(step), session.whole_store());
        let args = request.args();
        self.links.push(to, Self::waiting_for(step), session.proto, whole_store, args.iter_from(0));
        self.stats.forwarded.add(1);
    }

    /// Takes a step here.
    fn step_here(&mut self, now: Now, session: &mut Session, step: Step) {
        let request = session.replies.walk_request(step.slot, step.part, step.cursor);
        let Some(request) = request else { return };
        let Some(spec) = commands::internal(request.args().get(0)) else { return };
        self.part_here(now, session, spec, step.slot, step.part, request.args());
        self.pace.walked();
    }

    /// Takes a step of a walk through ranges: here, at whoever leads the range, or later when that is not known.
    fn step_of_range(&mut self, now: Now, session: &mut Session, step: Step) {
        let request = session.replies.walk_request(step.slot, step.part, step.cursor);
        let (Some(request), Some(range)) = (request, step.range) else { return };
        let Some(spec) = commands::internal(request.args().get(0)) else { return };
        let owner = self.links.owner_of_range(range);
        let refusal = match self.must_park(range) {
            Err(text) => Some(text),
            Ok(true) => None,
            Ok(false) if owner == self.links.me() => {
                match self.admission(now, spec, true, request.args()) {
                    Admission::Go => return self.step_here(now, session, step),
                    Admission::Refused(text) => Some(text),
                    Admission::Wait | Admission::Elsewhere(_) => None,
                }
            }
            Ok(false) if self.links.is_up(owner) => return self.ask(session, step),
            Ok(false) => {
                let error = self.unreachable(owner);
                return self.resolve(now, session, step.slot, step.part, error.into());
            }
        };
        if let Some(text) = refusal {
            let mut error = Vec::new();
            refuse(text, &mut error);
            self.resolve(now, session, step.slot, step.part, error.into());
        } else {
            let args = request.args();
            self.park_part(now, session, Self::waiting_for(step), args.iter_from(0));
        }
    }

    /// Takes the next steps: those of other shards that have room, one here. Whether another is to be taken here.
    pub(crate) fn walk_on(&mut self, now: Now) -> bool {
        let mut taken = false;
        for _ in 0..self.walks.len() {
            let Some(step) = self.walks.pop_front() else { break };
            let to = self.taker(step);
            let here = to == self.links.me();
            let up = self.links.is_up(to);
            let waits = if here { taken } else { up && self.links.is_full(to) };
            if waits {
                self.walks.push_back(step);
                continue;
            }
            let Some(mut session) = self.sessions.take(step.session) else { continue };
            if session.end != End::Ordered {
                taken |= here;
                if step.range.is_some() {
                    self.step_of_range(now, &mut session, step);
                } else if here {
                    self.step_here(now, &mut session, step);
                } else if up {
                    self.ask(&session, step);
                } else {
                    let error = self.unreachable(to);
                    self.resolve(now, &mut session, step.slot, step.part, error.into());
                }
            }
            self.wake(now, session);
        }
        self.walks.iter().any(|step| self.taker(*step) == self.links.me())
    }
}
