//! Commands that look at as many keys as there are, in steps: KEYS, and CLUSTER GETKEYSINSLOT.
//!
//! The session drives them: it asks each shard for a step, which names where to go on, and asks again until every shard
//! is through. Between two steps everybody else has their turn, so the keys are those of different moments, each as
//! SCAN would have found it. This shard's own steps are taken at the end of turns, one a turn. What has come is held
//! with the connection's replies and bounded like them; a connection that goes takes its steps with it.

use crate::command::{Args, Now, Spec};
use crate::commands::{self, scan};
use crate::face::SessionId;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::frame::RequestHead;
use dkv_protocol::resp::Proto;

/// Which keys are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that match a pattern.
    Matching(Vec<u8>),
    /// So many of a slot.
    OfSlot(u16, usize),
}

/// A step to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    session: SessionId,
    /// The place in the session's queue.
    slot: u32,
    /// The shard that takes it, also its part of the reply.
    to: u16,
    cursor: u64,
}

/// A request that is kept: its arguments, and how its reply must be written.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
    pub(crate) proto: Proto,
    pub(crate) whole_store: bool,
}

impl Request {
    /// A copy of a request of a batch.
    pub(crate) fn new(head: RequestHead, bytes: &[u8], spans: &[(u32, u32)]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            spans: spans.to_vec(),
            proto: head.proto,
            whole_store: head.whole_store,
        }
    }

    /// One without arguments.
    pub(crate) fn empty(proto: Proto, whole_store: bool) -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), proto, whole_store }
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
    /// The request for a step, when `found` keys have been found.
    pub(crate) fn request(&self, cursor: u64, found: usize) -> Request {
        let mut request = Request::empty(Proto::Resp2, true);
        request.add(scan::WALK_REQUEST);
        let mut number = itoa::Buffer::new();
        request.add(number.format(cursor).as_bytes());
        match self {
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
            Self::Matching(_) => usize::MAX,
            Self::OfSlot(_, count) => *count,
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
        let me = self.links.me();
        let all = if session.whole_store() { self.everybody() } else { Vec::from([me]) };
        self.walk(now, session, &all, Wanted::Matching(pattern.into()))
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
        let step = |to| Step { session: session.id, slot, to, cursor: 0 };
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
        self.walks.push_back(Step { session: session.id, slot, to: part as u16, cursor });
    }

    /// Asks another shard, which is up, for a step.
    fn ask(&mut self, session: &Session, step: Step) {
        let Some(request) = session.replies.walk_request(step.slot, step.cursor) else { return };
        let waiting = Waiting {
            session: session.id,
            slot: step.slot,
            part: u32::from(step.to),
            write: false,
            shared: true,
            weight: scan::STEP_BYTES_MAX as u32,
            range: None,
        };
        let whole_store = session.whole_store();
        self.links.push(step.to, waiting, session.proto, whole_store, request.args().iter_from(0));
        self.stats.forwarded.add(1);
    }

    /// Takes a step here.
    fn step_here(&mut self, now: Now, session: &mut Session, step: Step) {
        let Some(request) = session.replies.walk_request(step.slot, step.cursor) else { return };
        let Some(spec) = commands::internal(scan::WALK_REQUEST) else { return };
        self.part_here(now, session, spec, step.slot, u32::from(step.to), request.args());
        self.pace.walked();
    }

    /// Takes the next steps: those of other shards that have room, one here. Whether another is to be taken here.
    pub(crate) fn walk_on(&mut self, now: Now) -> bool {
        let mut taken = false;
        for _ in 0..self.walks.len() {
            let Some(step) = self.walks.pop_front() else { break };
            let here = step.to == self.links.me();
            let up = self.links.is_up(step.to);
            let waits = if here { taken } else { up && self.links.is_full(step.to) };
            if waits {
                self.walks.push_back(step);
                continue;
            }
            let Some(mut session) = self.sessions.take(step.session) else { continue };
            if session.end != End::Ordered {
                if here {
                    taken = true;
                    self.step_here(now, &mut session, step);
                } else if up {
                    self.ask(&session, step);
                } else {
                    let error = self.unreachable(step.to);
                    let part = u32::from(step.to);
                    self.resolve(now, &mut session, step.slot, part, error.into());
                }
            }
            self.wake(now, session);
        }
        self.walks.iter().any(|step| step.to == self.links.me())
    }
}
