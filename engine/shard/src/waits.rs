//! WAIT: how many copies hold what a connection has written.
//!
//! A session notes the ranges it writes. Where a write is answered when all copies have it, they all hold what was
//! answered. Under `--ack async` whoever leads each of the ranges is asked once all replies before the WAIT have come, so
//! that what was written is in the log there: first up to where its log goes, then again and again how many copies hold
//! that much. The leader keeps nothing. It is asked by the identity of its copy, and who leads is compared with who did at
//! the first write: after a change nobody knows whether the writes are still there, and no copy counts.

use crate::command::{Args, Now};
use crate::connection::parse;
use crate::face::SessionId;
use crate::links::Waiting;
use crate::replication::{Copies, range_of_place};
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_cluster::RangeSet;
use dkv_protocol::ids::{BootId, RangeId};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::{Ack, Rid};
use dkv_protocol::resp::{Proto, reply};
use dkv_table::Place;

/// What shards ask each other for WAIT; clients cannot reach it. The argument names ranges, see [`write_asked`]; the reply
/// has as many answers in their order, see [`Entry::answered`].
pub(crate) const HELD_REQUEST: &[u8] = b"DKV.HELD";

/// How far the looks at a connection in WAIT lie apart, in nanoseconds: at first, and at most.
const LOOK_NS_MIN: u64 = 500_000;
const LOOK_NS_MAX: u64 = 20_000_000;
/// Within EXEC, where nothing waits for copies: how long for the answers of those who lead, in nanoseconds.
const IN_EXEC_NS_MAX: u64 = 1_000_000_000;

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// Bytes of a range that is asked about: its number, the boot and generation of the copy that leads, and the position.
const ASKED_BYTES: usize = 1 + 8 + 4 + 8;
/// Bytes of an answer: how many copies, and the position.
const ANSWER_BYTES: usize = 1 + 8;
/// Instead of a position: the end of the log.
const LOG_END: u64 = u64::MAX;
/// Instead of a number of copies: the copy that was named does not lead.
const DOES_NOT_LEAD: u8 = u8::MAX;

/// What a connection has written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    ranges: RangeSet,
    /// What [`Copies::changes`] was at the first of these writes.
    since: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was written.
    #[default]
    Nothing,
    /// Something was written to the ranges.
    Written,
    /// All of it was found on all copies: the next write begins anew.
    Proven,
}

impl Written {
    /// Something is written to a range.
    #[inline]
    fn add(&mut self, range: RangeId, changes: u64) {
        if self.state != State::Written {
            *self = Self { since: changes, state: State::Written, ..Self::default() };
        }
        self.ranges.insert(range);
    }
}

/// A WAIT that waits.
#[derive(Debug)]
pub(crate) struct Wait {
    wanted: i64,
    until_ns: u64,
    /// It does not wait for copies.
    at_once: bool,
    /// It is to end with an error.
    unblocked: bool,
    /// The replies before it have all come.
    settled: bool,
    /// When it is looked at again, and how long after that the next time.
    due_ns: u64,
    pause_ns: u64,
    /// Its place in the queue, once somebody was asked.
    slot: Option<u32>,
    /// The ranges in question, and how many shards are still to answer.
    entries: Vec<Entry>,
    left: usize,
    /// A round of questions has begun and was not evaluated.
    asking: bool,
}

/// A range that was written.
#[derive(Debug)]
struct Entry {
    range: RangeId,
    /// Up to where its log has to be held, once that is known.
    position: Option<u64>,
    /// How many copies do. They do not lose it while the same copy leads.
    holders: usize,
    /// The shard that is to answer.
    asked: Option<u16>,
}

impl Entry {
    /// Takes an answer.
    fn answered(&mut self, answer: &[u8; ANSWER_BYTES]) {
        let [count, position @ ..] = *answer;
        if count != DOES_NOT_LEAD {
            self.held(u64::from_le_bytes(position), count.into());
        }
    }

    fn held(&mut self, position: u64, holders: usize) {
        self.position.get_or_insert(position);
        self.holders = self.holders.max(holders);
    }
}

impl Wait {
    /// It is to end now: as if its time were over, or with an error.
    pub(crate) fn unblock(&mut self, error: bool) {
        self.until_ns = 0;
        self.unblocked = error;
    }

    /// Takes the reply of a shard that was asked. False: it is the reply to something else.
    pub(crate) fn take(&mut self, slot: u32, shard: u32, reply: &[u8]) -> bool {
        if self.slot != Some(slot) {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        // An error is a shard that is away, or of a build that knows nothing of this: no copies are known of then.
        let body =
            reply.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &reply[at + 1..]);
        let mut answers = body.as_chunks().0.iter().filter(|_| reply.starts_with(b"$"));
        for entry in self.entries.iter_mut().filter(|e| e.asked.map(u32::from) == Some(shard)) {
            entry.asked = None;
            if let Some(answer) = answers.next() {
                entry.answered(answer);
            }
        }
        true
    }
}

/// Connections in WAIT. Each is listed once at most, and looked at within [`LOOK_NS_MAX`] even when it is gone.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    sessions: Vec<SessionId>,
    next_look_ns: u64,
}

impl Waiters {
    /// When it must be looked at again.
    pub(crate) fn next_ns(&self) -> u64 {
        if self.sessions.is_empty() { u64::MAX } else { self.next_look_ns }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn add(&mut self, id: SessionId, due_ns: u64) {
        let next_ns = if self.sessions.is_empty() { u64::MAX } else { self.next_look_ns };
        self.next_look_ns = next_ns.min(due_ns);
        self.sessions.push(id);
    }
}

impl Copies {
    /// How many copies besides its leader a range has, as far as is known here.
    fn others(&self, range: RangeId) -> usize {
        self.known[usize::from(range.0)].in_sync.len().saturating_sub(1)
    }

    /// How many copies hold what was written, when nobody has to be asked for it.
    fn holders_known(&self, written: &Written) -> Option<usize> {
        if written.state == State::Nothing {
            return (0..RANGES).map(|range| self.others(RangeId(range as u8))).min();
        }
        let known = self.ack == Ack::All || written.state == State::Proven;
        known.then(|| written.ranges.iter().map(|range| self.others(range)).min().unwrap_or(0))
    }

    /// Whether another copy leads one of the ranges than at the first write.
    fn is_lost(&self, written: &Written) -> bool {
        let led_since = |range: RangeId| self.known[usize::from(range.0)].led_since;
        written.ranges.iter().any(|range| led_since(range) > written.since)
    }

    /// How a range stands that is asked about.
    fn held(&self, range: RangeId, primary: Rid, position: u64) -> Option<(u64, usize)> {
        let position = Some(position).filter(|position| *position != LOG_END);
        self.cluster.held(range, primary, position)
    }
}

impl Shard {
    /// A connection writes to a range.
    #[inline]
    pub(crate) fn note_written(&self, session: &mut Session, range: RangeId) {
        if let Some(copies) = &self.copies {
            session.written.add(range, copies.changes);
        }
    }

    /// The same for a command that is executed here; without a place it is about all ranges that are led here.
    #[inline]
    pub(crate) fn note_written_here(&self, session: &mut Session, place: Option<Place>) {
        if let Some(place) = place {
            return self.note_written(session, range_of_place(place));
        }
        let all = (0..RANGES).map(|range| RangeId(range as u8));
        all.filter(|range| self.links.owner_of_range(*range) == self.links.me())
            .for_each(|range| self.note_written(session, range));
    }

    /// WAIT: how many copies besides the primary hold what this connection has written; the least over its ranges.
    pub(crate) fn wait(
        &mut self,
        now: Now,
        session: &mut Session,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let wait = match session.wait.take() {
            Some(wait) => Ok(wait),
            None => Wait::begin(now, session.in_exec, args),
        };
        let mut wait = match wait {
            Ok(wait) => wait,
            Err(text) => {
                let mut out = Vec::new();
                reply::error(&mut out, text);
                self.answer(session, &out);
                return ControlFlow::Continue(());
            }
        };
        if let Some(count) = self.holders(now, session, &mut wait) {
            self.end_wait(now, session, &wait, count);
            return ControlFlow::Continue(());
        }
        if let Some(copies) = self.copies.as_deref_mut()
            && !session.listed_in_wait
        {
            session.listed_in_wait = true;
            copies.waiters.add(session.id, wait.due_ns);
            self.stats.blocked_clients.set(copies.waiters.len() as u64);
        }
        session.wait = Some(wait);
        self.stall(session, Stall::Copies);
        ControlFlow::Break(())
    }

    /// The number that a WAIT is answered with; none: not yet.
    fn holders(&mut self, now: Now, session: &mut Session, wait: &mut Wait) -> Option<usize> {
        let Some(copies) = &self.copies else { return Some(0) };
        let over = now.boot_ns >= wait.until_ns;
        if now.boot_ns >= wait.due_ns {
            wait.pause_ns = (2 * wait.pause_ns).min(LOOK_NS_MAX);
        }
        let due = now.boot_ns >= wait.due_ns || !wait.settled;
        if due {
            wait.due_ns = wait.until_ns.min(now.boot_ns + wait.pause_ns);
        }
        // What is still to be answered may yet turn out not to be held.
        wait.settled |= session.replies.is_settled();
        if !wait.settled {
            return (over || wait.at_once).then_some(0);
        }
        if let Some(count) = copies.holders_known(&session.written) {
            return (over || wait.at_once || count as i64 >= wait.wanted).then_some(count);
        }
        if copies.is_lost(&session.written) {
            return Some(0);
        }
        if wait.left == 0 && !wait.asking && due {
            self.ask_leaders(session, wait);
            wait.asking = true;
        }
        if wait.left > 0 && !over {
            return None;
        }
        wait.asking = false;
        let count = wait.entries.iter().map(|entry| entry.holders).min().unwrap_or(0);
        (over || wait.at_once || count as i64 >= wait.wanted).then_some(count)
    }

    /// Asks whoever leads the ranges of a WAIT how many copies hold what was written. Who cannot be asked now will be the
    /// next time.
    fn ask_leaders(&mut self, session: &mut Session, wait: &mut Wait) {
        let Some(copies) = &self.copies else { return };
        if wait.entries.is_empty() {
            let entry = |range| Entry { range, position: None, holders: 0, asked: None };
            wait.entries = session.written.ranges.iter().map(entry).collect();
        }
        let mut asked: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for entry in &mut wait.entries {
            let known = &copies.known[usize::from(entry.range.0)];
            let Some(primary) = known.primary else { continue };
            let position = entry.position.unwrap_or(LOG_END);
            if primary.addr == self.me {
                if let Some((position, holders)) = copies.held(entry.range, primary, position) {
                    entry.held(position, holders);
                }
            } else if let Some(to) = self.links.number(primary.addr)
                && self.links.is_up(to)
                && !self.links.is_full(to)
            {
                entry.asked = Some(to);
                write_asked(entry.range, primary, position, asked.entry(to).or_default());
            }
        }
        wait.left = asked.len();
        for (to, ranges) in asked {
            let slot = *wait.slot.get_or_insert_with(|| session.replies.wait());
            let waiting = Waiting {
                session: session.id,
                slot,
                part: u32::from(to),
                shared: true,
                weight: ranges.len() as u32,
                ..Waiting::UNASKED
            };
            self.links.push(to, waiting, Proto::Resp2, false, [HELD_REQUEST, &ranges[..]]);
            self.stats.forwarded.add(1);
        }
    }

    fn end_wait(&mut self, now: Now, session: &mut Session, wait: &Wait, count: usize) {
        if let Some(copies) = &self.copies
            && session.written.state == State::Written
        {
            let on_all = |entry: &Entry| (1..=entry.holders).contains(&copies.others(entry.range));
            if copies.ack == Ack::Async && copies.is_lost(&session.written) {
                // That has been said now; what is written from here on is another matter.
                session.written = Written::default();
            } else if !wait.entries.is_empty() && wait.entries.iter().all(on_all) {
                session.written.state = State::Proven;
            }
        }
        let mut out = Vec::new();
        if wait.unblocked {
            reply::error(&mut out, UNBLOCKED);
        } else {
            reply::integer(&mut out, count as i64);
        }
        match wait.slot {
            Some(slot) => self.resolve(now, session, slot, 0, out.into()),
            None => self.answer(session, &out),
        }
    }

    /// Answers another shard that asks how many copies hold ranges that are led here.
    pub(crate) fn serve_held(&mut self, args: Args<'_>, out: &mut Vec<u8>) {
        let asked = if args.len() > 1 { args.get(1).as_chunks::<ASKED_BYTES>().0 } else { &[] };
        let mut answers = Vec::with_capacity(asked.len().min(RANGES) * ANSWER_BYTES);
        for one in asked.iter().take(RANGES) {
            let held = self.copies.as_ref().and_then(|copies| {
                let (range, primary, position) = read_asked(one, self.me);
                copies.held(range, primary, position)
            });
            let (position, count) = held.map_or((0, DOES_NOT_LEAD), |(position, holders)| {
                (position, holders.min(usize::from(DOES_NOT_LEAD - 1)) as u8)
            });
            answers.push(count);
            answers.extend_from_slice(&position.to_le_bytes());
        }
        reply::bulk(out, &answers);
    }

    /// Looks at the connections in WAIT that are due.
    pub(crate) fn look_at_waiters(&mut self, now: Now) {
        let Some(Copies { waiters, .. }) = self.copies.as_deref_mut() else { return };
        if waiters.sessions.is_empty() || now.boot_ns < waiters.next_look_ns {
            return;
        }
        for id in core::mem::take(&mut waiters.sessions) {
            let Some(mut session) = self.sessions.take(id) else { continue };
            let due_ns = session.wait.as_ref().map(|wait| wait.due_ns);
            match due_ns {
                Some(due_ns) if due_ns > now.boot_ns => {
                    if let Some(copies) = self.copies.as_deref_mut() {
                        copies.waiters.add(id, due_ns);
                    }
                }
                _ => {
                    session.listed_in_wait = false;
                    let waits = due_ns.is_some() && session.stall == Stall::Copies;
                    if waits && session.end == End::No {
                        self.go_on(now, &mut session);
                    }
                }
            }
            self.settle(session);
        }
        if let Some(copies) = &self.copies {
            self.stats.blocked_clients.set(copies.waiters.len() as u64);
        }
    }
}

impl Wait {
    fn begin(now: Now, at_once: bool, args: Args<'_>) -> Result<Box<Self>, &'static str> {
        let wanted = parse(args.get(1)).ok_or("ERR value is not an integer or out of range")?;
        let timeout_ns = match parse(args.get(2)) {
            None => return Err("ERR timeout is not an integer or out of range"),
            Some(..0) => return Err("ERR timeout is negative"),
            Some(_) if at_once => IN_EXEC_NS_MAX,
            Some(0) => u64::MAX,
            Some(ms) => (ms as u64).saturating_mul(1_000_000),
        };
        Ok(Box::new(Self {
            wanted,
            until_ns: now.boot_ns.saturating_add(timeout_ns),
            at_once,
            unblocked: false,
            settled: false,
            due_ns: now.boot_ns,
            pause_ns: LOOK_NS_MIN / 2,
            slot: None,
            entries: Vec::new(),
            left: 0,
            asking: false,
        }))
    }
}

/// Writes a range that is asked about; the shard that is asked is where `primary` is.
fn write_asked(range: RangeId, primary: Rid, position: u64, out: &mut Vec<u8>) {
    out.push(range.0);
    out.extend_from_slice(&primary.boot.0.to_le_bytes());
    out.extend_from_slice(&primary.generation.to_le_bytes());
    out.extend_from_slice(&position.to_le_bytes());
}

/// What [`write_asked`] wrote, at the shard that is asked.
fn read_asked(
    asked: &[u8; ASKED_BYTES],
    addr: dkv_protocol::ids::ShardAddr,
) -> (RangeId, Rid, u64) {
    let (range, rest) = (asked[0], &asked[1..]);
    let number = |at: usize| {
        let bytes = core::array::from_fn(|i| rest[at + i]);
        u64::from_le_bytes(bytes)
    };
    let generation = u32::from_le_bytes(core::array::from_fn(|i| rest[8 + i]));
    (RangeId(range), Rid { addr, boot: BootId(number(0)), generation }, number(12))
}
