//! The replies of one connection, in the order of its requests.
//!
//! A reply that is made here goes straight to the output for as long as nothing before it waits for another shard, or for
//! copies; otherwise it is held back behind the wait. It does not know who answers or how bytes leave.

use crate::command::{Exec, Inserts};
use crate::face::Output;
use crate::gates::{Gate, GateState, Gates, Noticed, Standing, write_failure};
use crate::merge::Merging;
use crate::walk::Request;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::resp::value;

/// Capacity of the buffers that an idle connection may keep.
const KEPT_BYTES: usize = 64 * 1024;
/// Places that an idle connection's queue may keep.
const KEPT_SLOTS: usize = 64;

#[derive(Debug)]
enum Slot {
    /// Replies made here, this many bytes of `held`.
    Held(usize),
    /// The reply of one other shard, passed on as it is.
    Waiting,
    /// The replies of several shards, to become one.
    Merging(Box<Merging>),
    /// Came before its turn.
    Ready(Vec<u8>),
    /// The same in pieces, of so many bytes.
    Pieces(Vec<Bytes>, usize),
    /// A reply made here that waits for copies, this many bytes of `held`.
    Gated(usize, Gate),
    /// Any other reply that waits for copies.
    GatedWhole(Box<GatedWhole>),
    /// From here on replies are dropped, or not any more.
    Silence(bool),
    /// No reply: it leaves even where replies are dropped.
    Message(Vec<u8>),
}

#[derive(Debug)]
struct GatedWhole {
    body: Body,
    gates: Vec<Gate>,
}

/// Where a reply that waits for copies is.
#[derive(Debug)]
enum Body {
    /// This many bytes of `held`.
    Held(usize),
    Ready(Vec<u8>),
    Pieces(Vec<Bytes>, usize),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    output: Vec<u8>,
    /// What goes out between the bytes of `output`.
    inserts: Inserts,
    /// Bytes of them, as far as they were counted.
    inserted: usize,
    /// Bytes that the driver took and has not reported as sent.
    sending: usize,
    held: Vec<u8>,
    /// How much of `held` has gone to the output.
    held_at: usize,
    slots: VecDeque<Slot>,
    /// Number of the first slot; numbers wrap.
    first: u32,
    /// Slots whose reply has not come.
    waiting: usize,
    /// Of those, messages whose receivers are counted.
    publishing: usize,
    /// Slots whose reply waits for copies.
    gated: usize,
    /// Bytes of replies that are neither in `held` nor in the output.
    kept: usize,
    /// Whether the next reply to the output is dropped, and whether the one of the next command is.
    silent: bool,
    silent_next: bool,
}

impl Replies {
    /// Where the next reply made here is to be appended, and what it inserts if it may; [`Self::wrote`] must follow, with
    /// the lengths that both had before.
    #[inline]
    pub(crate) fn begin(&mut self) -> (&mut Vec<u8>, Option<&mut Inserts>) {
        if self.slots.is_empty() {
            (&mut self.output, Some(&mut self.inserts))
        } else {
            (&mut self.held, None)
        }
    }

    /// Counts what a reply inserted; there were `before` inserts.
    #[inline]
    pub(crate) fn inserted(&mut self, before: usize) {
        if self.silent {
            self.inserts.truncate(before);
        } else if self.inserts.len() > before {
            self.inserted +=
                self.inserts[before..].iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
    }

    /// How many inserts the output has.
    #[inline]
    pub(crate) fn inserts(&self) -> usize {
        self.inserts.len()
    }

    /// A reply made here is complete.
    #[inline]
    pub(crate) fn wrote(&mut self, start: usize) {
        if self.slots.is_empty() {
            if self.silent {
                self.output.truncate(start);
            }
            return;
        }
        let len = self.held.len() - start;
        if let Some(Slot::Held(bytes)) = self.slots.back_mut() {
            *bytes += len;
        } else {
            self.slots.push_back(Slot::Held(len));
        }
    }

    /// The same for a reply that waits for copies. `inserts` is how many there were before it.
    pub(crate) fn wrote_gated(&mut self, start: usize, inserts: usize, noticed: Noticed) {
        let body = if !self.slots.is_empty() {
            Body::Held(self.held.len() - start)
        } else if self.inserts.len() == inserts {
            let len = self.output.len() - start;
            self.held.extend_from_slice(&self.output[start..]);
            self.output.truncate(start);
            Body::Held(len)
        } else {
            let mut pieces = Vec::new();
            let mut at = start;
            for (position, insert) in self.inserts.drain(inserts..) {
                pieces.push(Bytes::copy_from_slice(&self.output[at..position]));
                pieces.push(insert);
                at = position;
            }
            pieces.push(Bytes::copy_from_slice(&self.output[at..]));
            self.output.truncate(start);
            let bytes = pieces.iter().map(Bytes::len).sum();
            self.kept += bytes;
            Body::Pieces(pieces, bytes)
        };
        self.gated += 1;
        self.slots.push_back(match (body, noticed) {
            (Body::Held(len), Noticed::One(gate)) => Slot::Gated(len, gate),
            (body, noticed) => {
                Slot::GatedWhole(Box::new(GatedWhole { body, gates: noticed.into_vec() }))
            }
        });
    }

    /// A whole reply made here.
    pub(crate) fn push(&mut self, reply: &[u8]) {
        let (out, _) = self.begin();
        let start = out.len();
        out.extend_from_slice(reply);
        self.wrote(start);
    }

    /// From the next reply on they are dropped, or not any more. Those that are still to come of earlier commands are as they
    /// were.
    pub(crate) fn silence(&mut self, silent: bool) {
        if self.slots.is_empty() {
            self.silent = silent;
        } else if self.silent_next != silent {
            self.slots.push_back(Slot::Silence(silent));
        }
        self.silent_next = silent;
    }

    /// Something that is no reply, to leave behind the replies of all commands so far.
    pub(crate) fn message(&mut self, bytes: &[u8]) {
        if !self.silent && !self.silent_next {
            self.push(bytes);
        } else if self.slots.is_empty() {
            self.output.extend_from_slice(bytes);
        } else {
            self.kept += bytes.len();
            self.slots.push_back(Slot::Message(bytes.to_vec()));
        }
    }

    /// Drops what has come to the output since it had so many bytes, inserts, and bytes of them.
    fn drop_since(&mut self, (bytes, inserts, inserted): (usize, usize, usize)) {
        self.output.truncate(bytes);
        self.inserts.truncate(inserts);
        self.inserted = inserted;
    }

    fn marks(&self) -> (usize, usize, usize) {
        (self.output.len(), self.inserts.len(), self.inserted)
    }

    /// The number of the place that comes next.
    pub(crate) fn next_number(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// A place for the reply of another shard.
    pub(crate) fn wait(&mut self) -> u32 {
        self.add(Slot::Waiting)
    }

    /// A place for a reply out of several.
    pub(crate) fn wait_for_all(&mut self, merging: Merging) -> u32 {
        self.kept += merging.bytes();
        self.publishing += usize::from(merging.is_publish());
        self.add(Slot::Merging(Box::new(merging)))
    }

    fn add(&mut self, slot: Slot) -> u32 {
        let number = self.next_number();
        self.slots.push_back(slot);
        self.waiting += 1;
        number
    }

    /// A reply, or part of one, has come for a place; one that was made here may wait for copies. Whether the command is
    /// now answered, and with how many errors.
    pub(crate) fn resolve(
        &mut self,
        number: u32,
        part: u32,
        reply: Cow<'_, [u8]>,
        noticed: Noticed,
        exec: &Exec<'_>,
    ) -> Option<Answered> {
        let at = number.wrapping_sub(self.first) as usize;
        let marks = self.marks();
        let slot = self.slots.get_mut(at)?;
        let (failed, gates, front);
        let mut given = false;
        match slot {
            Slot::Waiting => {
                failed = value::is_error(&reply);
                gates = noticed.into_vec();
                front = at == 0 && gates.is_empty();
                if front {
                    self.output.extend_from_slice(&reply);
                } else {
                    self.kept += reply.len();
                    *slot = Slot::Ready(reply.into_owned());
                }
            }
            Slot::Merging(merging) => {
                self.kept -= merging.bytes();
                merging.add(part, reply);
                merging.wait_for(&noticed);
                if !merging.is_complete() {
                    self.kept += merging.bytes();
                    return None;
                }
                failed = merging.failed();
                self.publishing -= usize::from(merging.is_publish());
                given = merging.is_given();
                gates = merging.take_gates();
                front = at == 0 && gates.is_empty();
                if let Some(pieces) = merging.take_pieces() {
                    let bytes = pieces.iter().map(Bytes::len).sum();
                    if front {
                        self.insert(pieces);
                    } else {
                        self.kept += bytes;
                        *slot = Slot::Pieces(pieces, bytes);
                    }
                } else if front {
                    merging.finish(exec, &mut self.output);
                } else {
                    let mut whole = Vec::new();
                    merging.finish(exec, &mut whole);
                    self.kept += whole.len();
                    *slot = if given { Slot::Message(whole) } else { Slot::Ready(whole) };
                }
            }
            Slot::Held(_)
            | Slot::Ready(_)
            | Slot::Pieces(..)
            | Slot::Gated(..)
            | Slot::GatedWhole(_)
            | Slot::Silence(_)
            | Slot::Message(_) => return None,
        }
        self.waiting -= 1;
        let mut failures = u64::from(failed);
        if front {
            if self.silent && !given {
                self.drop_since(marks);
            }
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        } else if !gates.is_empty()
            && let Some(slot) = self.slots.get_mut(at)
        {
            self.gated += 1;
            let body = match core::mem::replace(slot, Slot::Waiting) {
                Slot::Ready(bytes) => Body::Ready(bytes),
                Slot::Pieces(pieces, bytes) => Body::Pieces(pieces, bytes),
                _ => Body::Held(0),
            };
            *slot = Slot::GatedWhole(Box::new(GatedWhole { body, gates }));
        }
        if at == 0 {
            failures += self.release(exec.gates);
        }
        Some(Answered { failures })
    }

    /// What the first reply waits for that is to leave next, when that is copies.
    #[inline]
    pub(crate) fn front_gate(&self, gates: &Gates) -> Option<Gate> {
        match self.slots.front()? {
            Slot::Gated(_, gate) => Some(*gate),
            Slot::GatedWhole(whole) => match gates.state_of(&whole.gates) {
                Standing::Shut(gate) => Some(gate),
                // It leaves with the next look.
                Standing::Open | Standing::Failed { .. } => whole.gates.first().copied(),
            },
            _ => None,
        }
    }

    /// Lets go what no longer waits for copies. How many replies became errors.
    pub(crate) fn open_gates(&mut self, gates: &Gates) -> u64 {
        self.release(Some(gates))
    }

    /// How many replies wait for copies.
    #[inline]
    pub(crate) fn gated(&self) -> usize {
        self.gated
    }

    /// A reply that is a step of a walk, with more to come: takes it, and says where to go on.
    pub(crate) fn walk_on(&mut self, number: u32, reply: &[u8], noticed: &Noticed) -> Option<u64> {
        let at = number.wrapping_sub(self.first) as usize;
        let Some(Slot::Merging(merging)) = self.slots.get_mut(at) else { return None };
        let before = merging.bytes();
        let cursor = merging.walk_on(reply);
        self.kept = self.kept + merging.bytes() - before;
        if cursor.is_some() {
            merging.wait_for(noticed);
        }
        cursor
    }

    /// The request for the next step of a walk, if it still goes on.
    pub(crate) fn walk_request(&self, number: u32, part: u32, cursor: u64) -> Option<Request> {
        match self.slots.get(number.wrapping_sub(self.first) as usize) {
            Some(Slot::Merging(merging)) => merging.walk_request(part, cursor),
            _ => None,
        }
    }

    /// Whether a walk has not found all of its keys yet.
    pub(crate) fn is_walking(&self, number: u32) -> bool {
        let slot = self.slots.get(number.wrapping_sub(self.first) as usize);
        matches!(slot, Some(Slot::Merging(_)))
    }

    /// Whether a walk goes through ranges, and asks whoever leads them.
    pub(crate) fn walks_ranges(&self, number: u32) -> bool {
        match self.slots.get(number.wrapping_sub(self.first) as usize) {
            Some(Slot::Merging(merging)) => merging.walks_ranges(),
            _ => false,
        }
    }

    /// Puts pieces of a reply into the output. Their end is copied: there are always bytes behind an insert.
    fn insert(&mut self, mut pieces: Vec<Bytes>) {
        let end = pieces.last_mut().map(|last| last.split_off(last.len().saturating_sub(2)));
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            self.inserted += piece.len();
            self.inserts.push((self.output.len(), piece));
        }
        self.output.extend_from_slice(&end.unwrap_or_default());
    }

    /// Moves what no longer waits to the output. How many replies became errors.
    fn release(&mut self, gates: Option<&Gates>) -> u64 {
        let mut failures = 0;
        loop {
            let marks = self.marks();
            let mut is_reply = true;
            match self.slots.front_mut() {
                Some(Slot::Held(len)) => {
                    let len = *len;
                    self.release_held(len);
                }
                Some(Slot::Ready(bytes)) => {
                    self.kept -= bytes.len();
                    self.output.extend_from_slice(bytes);
                }
                Some(Slot::Pieces(pieces, bytes)) => {
                    self.kept -= *bytes;
                    let pieces = core::mem::take(pieces);
                    self.insert(pieces);
                }
                Some(Slot::Gated(len, gate)) => {
                    let (len, gate) = (*len, *gate);
                    match gates.map_or(GateState::Shut, |gates| gates.state(gate)) {
                        GateState::Shut => break,
                        GateState::Open => self.release_held(len),
                        GateState::Failed => {
                            self.held_at += len;
                            write_failure(gate.is_write(), &mut self.output);
                            failures += 1;
                        }
                    }
                    self.gated -= 1;
                }
                Some(Slot::GatedWhole(whole)) => {
                    let standing = gates.map(|gates| gates.state_of(&whole.gates));
                    let body = core::mem::replace(&mut whole.body, Body::Held(0));
                    match standing {
                        None | Some(Standing::Shut(_)) => {
                            whole.body = body;
                            break;
                        }
                        Some(Standing::Open) => self.release_body(body),
                        Some(Standing::Failed { wrote }) => {
                            match body {
                                Body::Held(len) => self.held_at += len,
                                Body::Ready(bytes) => self.kept -= bytes.len(),
                                Body::Pieces(_, bytes) => self.kept -= bytes,
                            }
                            write_failure(wrote, &mut self.output);
                            failures += 1;
                        }
                    }
                    self.gated -= 1;
                }
                Some(Slot::Waiting | Slot::Merging(_)) => break,
                Some(Slot::Silence(silent)) => self.silent = *silent,
                Some(Slot::Message(bytes)) => {
                    self.kept -= bytes.len();
                    self.output.extend_from_slice(bytes);
                    is_reply = false;
                }
                None => {
                    self.held.clear();
                    self.held_at = 0;
                    self.held.shrink_to(KEPT_BYTES);
                    if self.slots.capacity() > KEPT_SLOTS {
                        self.slots.shrink_to(KEPT_SLOTS);
                    }
                    return failures;
                }
            }
            if self.silent && is_reply {
                self.drop_since(marks);
            }
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        // Held bytes that are out are dropped when they are the greater part, so that each byte moves once on average.
        if self.held_at > KEPT_BYTES && self.held_at > self.held.len() / 2 {
            self.held.drain(..self.held_at);
            self.held_at = 0;
        }
        failures
    }

    fn release_held(&mut self, len: usize) {
        let end = self.held_at + len;
        self.output.extend_from_slice(&self.held[self.held_at..end]);
        self.held_at = end;
    }

    fn release_body(&mut self, body: Body) {
        match body {
            Body::Held(len) => self.release_held(len),
            Body::Ready(bytes) => {
                self.kept -= bytes.len();
                self.output.extend_from_slice(&bytes);
            }
            Body::Pieces(pieces, bytes) => {
                self.kept -= bytes;
                self.insert(pieces);
            }
        }
    }

    /// Commands whose reply has not come.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them are messages whose receivers are counted.
    #[inline]
    pub(crate) fn publishing(&self) -> usize {
        self.publishing
    }

    /// Whether every reply is in the output or gone.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether there is something to send.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Bytes that the client has not been sent, whatever they wait for.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.sending
            + self.output.len()
            + self.inserted
            + (self.held.len() - self.held_at)
            + self.kept
    }

    /// Bytes that are on their way to the client.
    pub(crate) fn sending(&self) -> usize {
        self.sending
    }

    /// The output, in exchange for an empty buffer. What was taken before has been sent.
    pub(crate) fn take(&mut self, empty: Output) -> Output {
        let bytes = core::mem::replace(&mut self.output, empty.bytes);
        let inserts = core::mem::replace(&mut self.inserts, empty.inserts);
        self.sending = bytes.len() + core::mem::take(&mut self.inserted);
        Output { bytes, inserts }
    }

    /// What was taken before has been sent, and nothing follows.
    pub(crate) fn sent(&mut self) {
        self.sending = 0;
    }

    /// Gives the output a buffer if it has none; gives back what is not taken.
    pub(crate) fn lend(&mut self, lender: impl FnOnce() -> Vec<u8>) {
        if self.output.capacity() == 0 {
            self.output = lender();
        }
    }

    /// The output's buffer when nothing is in it, so that an idle connection holds none.
    pub(crate) fn reclaim(&mut self) -> Option<Vec<u8>> {
        (self.output.is_empty() && self.output.capacity() > 0)
            .then(|| core::mem::take(&mut self.output))
    }

    /// Forgets everything: the connection is cut. Replies that still come find no place.
    pub(crate) fn drop_all(&mut self) {
        let first = self.first.wrapping_add(self.slots.len() as u32);
        *self = Self { first, ..Self::default() };
    }

    /// Bytes of buffers, for CLIENT LIST.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.output.capacity() + self.held.capacity() + self.kept
    }
}

/// A command has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Replies that are errors, of this command and those that were behind it.
    pub(crate) failures: u64,
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
