//! Requests whose range changes hands while they are on their way: asked of the shard that leads it now, or parked until
//! it is known who that is.
//!
//! A request comes here when a shard says that it does not lead the range, when the link to its shard is lost and it was
//! not executed or only reads, and when it is made while nobody can be asked. It is never executed twice: a write that
//! may have been executed is answered `-UNCERTAIN` and does not come here. What is parked waits a second at most, and
//! requests of one range and connection keep their order.

use crate::command::{Args, Merge, Now, Scope, Spec};
use crate::commands::{self, scan};
use crate::links::Waiting;
use crate::merge::Merging;
use crate::replication::{Admission, OFFLINE, range_of, range_of_place, refuse};
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use crate::walk::Request;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::{LINK_BYTES_MAX, RANGES, WAITING_PER_CONNECTION_MAX};
use dkv_protocol::slots::slot_of;
use dkv_table::Place;

/// How long a request waits for a shard that leads its range, in nanoseconds.
const PARKED_NS_MAX: u64 = 1_000_000_000;
/// A shard that could not serve a range is asked again after this, in nanoseconds: its news may come later than ours.
const AGAIN_NS: u64 = 10_000_000;
/// What is parked is looked at this often, in nanoseconds.
const LOOK_NS: u64 = 5_000_000;
/// Bytes of all requests that are parked; more are refused.
const PARKED_BYTES_MAX: usize = LINK_BYTES_MAX;
/// Requests that are sent on their way at a time: some hundred microseconds of work.
const MOVES_MAX: usize = 256;

/// What a reply that is a number has at most.
const NUMBER_BYTES: u32 = 32;

const NOT_SERVED: &str = "TRYAGAIN nobody leads the range at the moment; try again";

/// A request that waits for a shard that leads its range.
#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    request: Request,
    until_ns: u64,
    /// Who said that it does not lead the range, and until when it is not asked again.
    refused_by: Option<u16>,
    again_ns: u64,
}

/// The requests of one range.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Whether some came back from a former leader: they are older than what was parked before them.
    unsorted: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parked {
    /// By range.
    queues: Vec<Queue>,
    count: usize,
    bytes: usize,
    next_look_ns: u64,
}

impl Default for Parked {
    fn default() -> Self {
        let queues = (0..RANGES).map(|_| Queue::default()).collect();
        Self { queues, count: 0, bytes: 0, next_look_ns: 0 }
    }
}

impl Parked {
    /// When it must be looked at again.
    pub(crate) fn next_ns(&self) -> u64 {
        if self.count == 0 { u64::MAX } else { self.next_look_ns }
    }

    /// Whether there are requests for a range.
    #[inline]
    pub(crate) fn holds(&self, range: RangeId) -> bool {
        !self.queues[usize::from(range.0)].entries.is_empty()
    }

    fn push(&mut self, range: RangeId, entry: Entry) {
        self.count += 1;
        self.bytes += entry.request.bytes();
        let queue = &mut self.queues[usize::from(range.0)];
        queue.unsorted |= entry.refused_by.is_some();
        queue.entries.push_back(entry);
    }

    fn pop(&mut self, range: usize) -> Option<Entry> {
        let entry = self.queues[range].entries.pop_front()?;
        self.count -= 1;
        self.bytes -= entry.request.bytes();
        Some(entry)
    }
}

impl Shard {
    /// Another shard leads a range, or is thought to.
    pub(crate) fn change_owner(&mut self, range: RangeId, owner: u16) {
        if self.links.owner_of_range(range) != owner {
            self.tracking.forget_all();
        }
        self.links.set_owner(range, owner);
    }

    /// Whether requests for a range must wait behind others.
    fn must_wait(&self, range: RangeId) -> bool {
        self.links.is_between_rows(range)
            || self.copies.as_ref().is_some_and(|copies| copies.parked.holds(range))
    }

    /// Whether a command for the leader of a range has to be parked instead of run or sent; an error is the reply to it.
    pub(crate) fn must_park(&self, range: RangeId) -> Result<bool, &'static str> {
        let Some(copies) = &self.copies else { return Ok(false) };
        let known = &copies.known[usize::from(range.0)];
        let owner = self.links.owner_of_range(range);
        if known.offline {
            return Err(OFFLINE);
        }
        // Without another copy nobody will take its place soon.
        let lost = !self.links.is_up(owner) && known.in_sync.len() != 1;
        Ok(lost || self.must_wait(range))
    }

    /// Whether a command that this shard is to run may run now. None: it may not, and has been dealt with. Break: not now,
    /// the session is stalled.
    pub(crate) fn admit_here(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        place: Option<Place>,
        args: Args<'_>,
    ) -> ControlFlow<(), bool> {
        // The slot is known already of nearly all commands.
        if let (Scope::Keyed, Some(place)) = (spec.scope, place)
            && let range = range_of_place(place)
            && !self.links.is_between_rows(range)
            && let Some(copies) = &mut self.copies
            && copies.admits_at_once(now, range, spec.write)
            && session.replies.gated() < WAITING_PER_CONNECTION_MAX
        {
            return ControlFlow::Continue(true);
        }
        let whole_store = session.whole_store();
        let bound = range_of(spec, args).filter(|_| whole_store || spec.scope != Scope::Cursor);
        if self.copies.is_none() {
            return ControlFlow::Continue(true);
        }
        if session.replies.gated() >= WAITING_PER_CONNECTION_MAX {
            self.stall(session, Stall::Replies);
            return ControlFlow::Break(());
        }
        let admission = match bound {
            Some(range) if self.must_wait(range) => Admission::Elsewhere(range),
            _ => self.admission(now, spec, whole_store, args),
        };
        match admission {
            Admission::Go => return ControlFlow::Continue(true),
            Admission::Wait => {
                self.later(session);
                return ControlFlow::Break(());
            }
            Admission::Refused(text) => self.refuse_whole(session, text),
            Admission::Elsewhere(range) => self.park_command(now, session, spec, range, args)?,
        }
        ControlFlow::Continue(false)
    }

    fn refuse_whole(&mut self, session: &mut Session, text: &str) {
        let mut error = Vec::new();
        refuse(text, &mut error);
        self.answer(session, &error);
    }

    /// A command for the leader of a range, which is another shard or nobody: whether it has been dealt with.
    pub(crate) fn divert(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<(), bool> {
        let Some(range) = self.bound_to(spec, args) else { return ControlFlow::Continue(false) };
        match self.must_park(range) {
            Ok(true) => self.park_command(now, session, spec, range, args)?,
            Ok(false) => return ControlFlow::Continue(false),
            Err(text) => self.refuse_whole(session, text),
        }
        ControlFlow::Continue(true)
    }

    /// Sends each leader the keys of one range, so that no part ever has to be divided again. Nothing is executed when one
    /// of them is known to refuse.
    pub(crate) fn split_by_range(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        merge: Merge,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let (first, step) = (spec.first_key as usize, spec.key_step as usize);
        // Parts in the order in which their first key comes.
        let mut parts: Vec<(RangeId, Vec<usize>)> = Vec::new();
        let mut part_of = [u32::MAX; RANGES];
        let mut order = Vec::new();
        for (at, key) in args.iter_from(first).step_by(step).enumerate() {
            let range = slot_of(key).range();
            let part = &mut part_of[usize::from(range.0)];
            if *part == u32::MAX {
                *part = parts.len() as u32;
                parts.push((range, Vec::from([0])));
            }
            parts[*part as usize].1.extend((0..step).map(|i| first + at * step + i));
            order.push(*part);
        }
        let parts: Vec<(RangeId, Vec<(u32, u32)>)> =
            parts.iter().map(|(range, positions)| (*range, args.select(positions))).collect();
        let parts: Vec<(RangeId, Args<'_>)> =
            parts.iter().map(|(range, spans)| (*range, args.with_spans(spans))).collect();
        let Some(ways) = self.ways(now, session, spec, &parts)? else {
            return ControlFlow::Continue(());
        };
        session.last = (spec.name, "");
        let order = if merge == Merge::InOrder { order } else { Vec::new() };
        let merging = Merging::new(merge, parts.len() as u32, order);
        let weight = session.expected_bytes();
        self.send_parts(now, session, (spec, merging, weight), &parts, &ways);
        ControlFlow::Continue(())
    }

    /// A command for the whole store, as one part for each range: whoever leads a range when its part is executed does it, so
    /// that every range is counted or cleared exactly once while ranges change hands, and in its place among the commands
    /// of this connection.
    pub(crate) fn every_range(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        merge: Merge,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let part = match commands::keys::of_each_range(spec, args) {
            Ok(part) => part,
            Err(text) => {
                self.refuse_whole(session, text);
                return ControlFlow::Continue(());
            }
        };
        let ranges = || (0..RANGES as u16).map(|range| (range, RangeId(range as u8)));
        let requests: Vec<Request> = ranges()
            .map(|(range, _)| {
                let mut request = Request::empty(session.proto, true);
                request.add(part.name.as_bytes());
                request.add(itoa::Buffer::new().format(scan::start_of(range)).as_bytes());
                request
            })
            .collect();
        let parts: Vec<(RangeId, Args<'_>)> =
            ranges().zip(&requests).map(|((_, range), request)| (range, request.args())).collect();
        let Some(ways) = self.ways(now, session, part, &parts)? else {
            return ControlFlow::Continue(());
        };
        session.last = (spec.name, "");
        let merging = Merging::new(merge, parts.len() as u32, Vec::new());
        self.send_parts(now, session, (part, merging, NUMBER_BYTES), &parts, &ways);
        ControlFlow::Continue(())
    }

    /// Which way each part of a command goes that is about one range: the shard that leads it, or none when it is parked.
    /// Outer none: one of them is known to refuse, so nothing is executed and the command has been answered. Break: not now,
    /// the session is stalled.
    fn ways(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        parts: &[(RangeId, Args<'_>)],
    ) -> ControlFlow<(), Option<Vec<Option<u16>>>> {
        let me = self.links.me();
        let mut ways = Vec::with_capacity(parts.len());
        for (range, args) in parts {
            let owner = self.links.owner_of_range(*range);
            let refusal = match self.must_park(*range) {
                Err(text) => text,
                Ok(true) => {
                    self.admit(session, me)?;
                    ways.push(None);
                    continue;
                }
                Ok(false) if owner != me => {
                    if !self.admit_all(session, &[owner])? {
                        return ControlFlow::Continue(None);
                    }
                    ways.push(Some(owner));
                    continue;
                }
                Ok(false) => match self.admission(now, spec, session.whole_store(), *args) {
                    Admission::Go => {
                        ways.push(Some(me));
                        continue;
                    }
                    Admission::Elsewhere(_) => {
                        ways.push(None);
                        continue;
                    }
                    Admission::Wait => {
                        let _ = self.noticed();
                        self.later(session);
                        return ControlFlow::Break(());
                    }
                    Admission::Refused(text) => text,
                },
            };
            let _ = self.noticed();
            self.refuse_whole(session, refusal);
            return ControlFlow::Continue(None);
        }
        ControlFlow::Continue(Some(ways))
    }

    /// Sends the parts of a command on their ways; `weight` is what a reply to one of them may have in bytes.
    fn send_parts(
        &mut self,
        now: Now,
        session: &mut Session,
        (spec, merging, weight): (&'static Spec, Merging, u32),
        parts: &[(RangeId, Args<'_>)],
        ways: &[Option<u16>],
    ) {
        let slot = session.replies.wait_for_all(merging);
        for (part, ((range, args), way)) in parts.iter().zip(ways).enumerate() {
            let part = part as u32;
            if spec.write {
                self.note_written(session, *range);
            }
            let waiting = Waiting {
                session: session.id,
                slot,
                part,
                write: spec.write,
                shared: true,
                weight,
                range: Some(*range),
            };
            match way {
                None => self.park_part(now, session, waiting, args.iter_from(0)),
                Some(owner) if *owner == self.links.me() => {
                    self.part_here(now, session, spec, slot, part, *args);
                }
                Some(owner) => {
                    let (proto, whole_store) = (session.proto, session.whole_store());
                    self.links.push(*owner, waiting, proto, whole_store, args.iter_from(0));
                    self.stats.forwarded.add(1);
                }
            }
        }
    }

    /// Parks a command of a connection, whole.
    pub(crate) fn park_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        range: RangeId,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let me = self.links.me();
        self.admit(session, me)?;
        session.last = (spec.name, "");
        let waiting = Waiting {
            session: session.id,
            slot: session.replies.wait(),
            part: 0,
            write: spec.write,
            shared: false,
            weight: session.expected_bytes(),
            range: Some(range),
        };
        if spec.write {
            self.note_written(session, range);
        }
        let mut request = Request::empty(session.proto, session.whole_store());
        request.no_touch = session.no_touch;
        args.iter_from(0).for_each(|arg| request.add(arg));
        self.park(now, Some(session), waiting, request, None);
        ControlFlow::Continue(())
    }

    /// Parks a part of a command of a connection.
    pub(crate) fn park_part<'a>(
        &mut self,
        now: Now,
        session: &mut Session,
        waiting: Waiting,
        args: impl Iterator<Item = &'a [u8]>,
    ) {
        let mut request = Request::empty(session.proto, session.whole_store());
        request.no_touch = session.no_touch;
        args.for_each(|arg| request.add(arg));
        self.park(now, Some(session), waiting, request, None);
    }

    /// `session` is the connection when it is being worked on.
    fn park(
        &mut self,
        now: Now,
        session: Option<&mut Session>,
        waiting: Waiting,
        request: Request,
        refused_by: Option<u16>,
    ) {
        let Some(copies) = self.copies.as_deref_mut() else { return };
        let parked = &mut copies.parked;
        let Some(range) = waiting.range.filter(|_| parked.bytes <= PARKED_BYTES_MAX) else {
            return self.answer_lost(now, session, waiting, NOT_SERVED);
        };
        if parked.count == 0 {
            parked.next_look_ns = now.boot_ns + LOOK_NS;
        }
        let until_ns = now.boot_ns + PARKED_NS_MAX;
        let again_ns = now.boot_ns + AGAIN_NS;
        parked.push(range, Entry { waiting, request, until_ns, refused_by, again_ns });
    }

    /// A shard does not lead the range of a request, and has not executed it.
    pub(crate) fn redirected(
        &mut self,
        now: Now,
        from: u16,
        waiting: Waiting,
        request: Option<Request>,
    ) {
        if let Some(range) = waiting.range {
            self.links.begin_row(range);
        }
        match request {
            Some(request) => self.park(now, None, waiting, request, Some(from)),
            None => self.answer_lost(now, None, waiting, NOT_SERVED),
        }
    }

    /// The link to the shard of a request is lost, and the request was not executed, or only reads.
    pub(crate) fn relocate(&mut self, now: Now, waiting: Waiting, request: Request) {
        self.park(now, None, waiting, request, None);
    }

    /// Answers a request with an error.
    fn answer_lost(
        &mut self,
        now: Now,
        session: Option<&mut Session>,
        waiting: Waiting,
        text: &'static str,
    ) {
        let mut error = Vec::new();
        refuse(text, &mut error);
        if let Some(session) = session {
            return self.resolve(now, session, waiting.slot, waiting.part, error.into());
        }
        let Some(mut session) = self.sessions.take(waiting.session) else { return };
        self.resolve(now, &mut session, waiting.slot, waiting.part, error.into());
        self.wake(now, session);
    }

    /// Sends what is parked on its way where that is possible by now. `news`: something has changed. Whether it is to go on
    /// at once.
    pub(crate) fn unpark(&mut self, now: Now, news: bool) -> bool {
        let Some(copies) = self.copies.as_deref_mut() else { return false };
        let parked = &mut copies.parked;
        if !news && now.boot_ns < parked.next_look_ns {
            return false;
        }
        if parked.count == 0 {
            return false;
        }
        parked.next_look_ns = now.boot_ns + LOOK_NS;
        let mut left = MOVES_MAX;
        for range in 0..RANGES {
            while left > 0
                && let Some(placing) = self.place_parked(now, range)
            {
                left -= 1;
                let entry = self.copies.as_mut().and_then(|copies| copies.parked.pop(range));
                let Some(entry) = entry else { break };
                self.send_parked(now, entry, placing);
            }
        }
        if left == 0
            && let Some(copies) = &mut self.copies
        {
            copies.parked.next_look_ns = now.boot_ns;
        }
        left == 0
    }

    /// What becomes of the first parked request of a range now; none when there is none, or it stays.
    fn place_parked(&mut self, now: Now, range: usize) -> Option<Placing> {
        let queue = &mut self.copies.as_deref_mut()?.parked.queues[range];
        if core::mem::take(&mut queue.unsorted) {
            queue.entries.make_contiguous().sort_by_key(|entry| {
                (entry.waiting.session.index(), entry.waiting.slot, entry.waiting.part)
            });
        }
        let entry = queue.entries.pop_front()?;
        let placing = self.placing_of(now, range, &entry);
        if let Some(copies) = &mut self.copies {
            copies.parked.queues[range].entries.push_front(entry);
        }
        placing
    }

    fn placing_of(&mut self, now: Now, range: usize, entry: &Entry) -> Option<Placing> {
        let copies = self.copies.as_deref_mut()?;
        if copies.known[range].offline {
            return Some(Placing::Answered(OFFLINE));
        }
        if now.boot_ns >= entry.until_ns {
            return Some(Placing::Answered(NOT_SERVED));
        }
        let owner = self.links.owner_of_range(RangeId(range as u8));
        let too_early = entry.refused_by == Some(owner) && now.boot_ns < entry.again_ns;
        if too_early || self.links.is_between_rows(RangeId(range as u8)) {
            return None;
        }
        if owner != self.links.me() {
            let open = self.links.is_up(owner) && !self.links.is_full(owner);
            return open.then_some(Placing::There(owner));
        }
        let args = entry.request.args();
        let name = args.get(0);
        let Some(spec) = commands::lookup(name).or_else(|| commands::internal(name)) else {
            return Some(Placing::Answered(NOT_SERVED));
        };
        match copies.admission(now, spec, entry.request.whole_store, args) {
            Admission::Go => Some(Placing::Here(spec)),
            Admission::Refused(text) => Some(Placing::Answered(text)),
            Admission::Wait | Admission::Elsewhere(_) => None,
        }
    }

    fn send_parked(&mut self, now: Now, entry: Entry, placing: Placing) {
        let Entry { waiting, request, .. } = entry;
        match placing {
            Placing::Answered(text) => {
                self.answer_lost(now, None, waiting, text);
            }
            Placing::There(owner) => {
                // A connection that is gone needs no answer.
                if self.sessions.get(waiting.session).is_some() {
                    let Request { proto, whole_store, no_touch, .. } = request;
                    self.links.no_touch = no_touch;
                    self.links.push(
                        owner,
                        waiting,
                        proto,
                        whole_store,
                        request.args().iter_from(0),
                    );
                    self.links.no_touch = false;
                    self.stats.forwarded.add(1);
                }
            }
            Placing::Here(spec) => {
                let Some(mut session) = self.sessions.take(waiting.session) else {
                    let _ = self.noticed();
                    return;
                };
                if session.end != End::Ordered {
                    let (slot, part) = (waiting.slot, waiting.part);
                    self.table.touch_keys(!request.no_touch);
                    self.part_here(now, &mut session, spec, slot, part, request.args());
                    self.table.touch_keys(true);
                }
                self.wake(now, session);
            }
        }
    }

    /// The range to which a command is bound, in a store with copies.
    #[inline]
    pub(crate) fn bound_to(&self, spec: &Spec, args: Args<'_>) -> Option<RangeId> {
        if self.copies.is_none() { None } else { range_of(spec, args) }
    }
}

/// What becomes of a parked request.
#[derive(Clone, Copy, Debug)]
enum Placing {
    Answered(&'static str),
    There(u16),
    Here(&'static Spec),
}
