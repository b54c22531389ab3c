//! The replies of one connection, in the order of its requests.
//!
//! A reply that is made here goes straight to the output for as long as nothing before it waits for another shard;
//! otherwise it is held back behind the wait. It does not know who answers or how bytes leave.

use crate::command::{Exec, Inserts};
use crate::face::Output;
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
    /// Bytes in `Ready` and `Merging` slots.
    kept: usize,
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
        if self.inserts.len() > before {
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
            return;
        }
        let len = self.held.len() - start;
        if let Some(Slot::Held(bytes)) = self.slots.back_mut() {
            *bytes += len;
        } else {
            self.slots.push_back(Slot::Held(len));
        }
    }

    /// A whole reply made here.
    pub(crate) fn push(&mut self, reply: &[u8]) {
        let (out, _) = self.begin();
        let start = out.len();
        out.extend_from_slice(reply);
        self.wrote(start);
    }

    /// A place for the reply of another shard.
    pub(crate) fn wait(&mut self) -> u32 {
        self.add(Slot::Waiting)
    }

    /// A place for a reply out of several.
    pub(crate) fn wait_for_all(&mut self, merging: Merging) -> u32 {
        self.kept += merging.bytes();
        self.add(Slot::Merging(Box::new(merging)))
    }

    fn add(&mut self, slot: Slot) -> u32 {
        let number = self.first.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(slot);
        self.waiting += 1;
        number
    }

    /// A reply, or part of one, has come for a place. Whether the command is now answered, and with an error.
    pub(crate) fn resolve(
        &mut self,
        number: u32,
        part: u32,
        reply: Cow<'_, [u8]>,
        exec: &Exec<'_>,
    ) -> Option<Answered> {
        let at = number.wrapping_sub(self.first) as usize;
        let front = at == 0;
        let slot = self.slots.get_mut(at)?;
        let failed = match slot {
            Slot::Waiting => {
                let failed = value::is_error(&reply);
                if front {
                    self.output.extend_from_slice(&reply);
                } else {
                    self.kept += reply.len();
                    *slot = Slot::Ready(reply.into_owned());
                }
                failed
            }
            Slot::Merging(merging) => {
                self.kept -= merging.bytes();
                merging.add(part, reply);
                if !merging.is_complete() {
                    self.kept += merging.bytes();
                    return None;
                }
                let failed = merging.failed();
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
                    *slot = Slot::Ready(whole);
                }
                failed
            }
            Slot::Held(_) | Slot::Ready(_) | Slot::Pieces(..) => return None,
        };
        self.waiting -= 1;
        if front {
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
            self.release();
        }
        Some(Answered { failed })
    }

    /// A reply that is a step of a walk, with more to come: takes it, and says where to go on.
    pub(crate) fn walk_on(&mut self, number: u32, reply: &[u8]) -> Option<u64> {
        let at = number.wrapping_sub(self.first) as usize;
        let Some(Slot::Merging(merging)) = self.slots.get_mut(at) else { return None };
        let before = merging.bytes();
        let cursor = merging.walk_on(reply);
        self.kept = self.kept + merging.bytes() - before;
        cursor
    }

    /// The request for the next step of a walk, if it still goes on.
    pub(crate) fn walk_request(&self, number: u32, cursor: u64) -> Option<Request> {
        match self.slots.get(number.wrapping_sub(self.first) as usize) {
            Some(Slot::Merging(merging)) => merging.walk_request(cursor),
            _ => None,
        }
    }

    /// Puts pieces of a reply into the output. Their end is copied: there are always bytes behind an insert.
    fn insert(&mut self, mut pieces: Vec<Bytes>) {
        let end = pieces.last_mut().map(|last| last.split_off(last.len().saturating_sub(2)));
        for piece in pieces {
            self.inserted += piece.len();
            self.inserts.push((self.output.len(), piece));
        }
        self.output.extend_from_slice(&end.unwrap_or_default());
    }

    /// Moves what no longer waits to the output.
    fn release(&mut self) {
        loop {
            match self.slots.front_mut() {
                Some(Slot::Held(len)) => {
                    let end = self.held_at + *len;
                    self.output.extend_from_slice(&self.held[self.held_at..end]);
                    self.held_at = end;
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
                Some(Slot::Waiting | Slot::Merging(_)) => break,
                None => {
                    self.held.clear();
                    self.held_at = 0;
                    self.held.shrink_to(KEPT_BYTES);
                    if self.slots.capacity() > KEPT_SLOTS {
                        self.slots.shrink_to(KEPT_SLOTS);
                    }
                    return;
                }
            }
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        // Held bytes that are out are dropped when they are the greater part, so that each byte moves once on average.
        if self.held_at > KEPT_BYTES && self.held_at > self.held.len() / 2 {
            self.held.drain(..self.held_at);
            self.held_at = 0;
        }
    }

    /// Commands whose reply has not come.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
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
    /// With an error.
    pub(crate) failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::with_exec;

    fn resolve(replies: &mut Replies, number: u32, reply: &[u8]) -> Option<Answered> {
        with_exec(|exec| replies.resolve(number, 0, reply.into(), exec))
    }

    fn local(replies: &mut Replies, text: &[u8]) {
        replies.push(text);
    }

    #[test]
    fn local_replies_go_straight_out_while_nothing_waits() {
        let mut replies = Replies::default();
        local(&mut replies, b"+a\r\n");
        local(&mut replies, b"+b\r\n");
        assert!(replies.is_settled());
        assert_eq!(replies.take(Output::default()).bytes, b"+a\r\n+b\r\n");
        assert_eq!(replies.unsent(), 8);
        replies.sent();
        assert_eq!(replies.unsent(), 0);
    }

    #[test]
    fn replies_leave_in_the_order_of_their_requests() {
        let mut replies = Replies::default();
        let first = replies.wait();
        local(&mut replies, b"+2\r\n");
        local(&mut replies, b"+3\r\n");
        let fourth = replies.wait();
        local(&mut replies, b"+5\r\n");
        assert_eq!(replies.waiting(), 2);
        assert_eq!(resolve(&mut replies, fourth, b"-4\r\n"), Some(Answered { failed: true }));
        assert!(!replies.has_output());
        assert_eq!(replies.unsent(), 16);
        resolve(&mut replies, first, b"+1\r\n");
        assert_eq!(replies.take(Output::default()).bytes, b"+1\r\n+2\r\n+3\r\n-4\r\n+5\r\n");
        assert!(replies.is_settled());
        assert_eq!(replies.unsent(), 20);
    }

    #[test]
    fn a_reply_for_a_place_that_is_gone_is_dropped() {
        let mut replies = Replies::default();
        let first = replies.wait();
        resolve(&mut replies, first, b"+1\r\n");
        assert_eq!(resolve(&mut replies, first, b"+1\r\n"), None);
        let second = replies.wait();
        replies.drop_all();
        assert_eq!(resolve(&mut replies, second, b"+2\r\n"), None);
        assert_eq!(replies.unsent(), 0);
    }
}
