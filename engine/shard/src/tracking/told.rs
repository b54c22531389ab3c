//! What shards tell each other about keys that clients keep.

use super::redirect::{FIND_REQUEST, GONE_REQUEST, TELL_REQUEST};
use crate::links::Waiting;
use crate::merge::Merging;
use crate::session::Session;
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::resp::{Proto, reply};

/// Clients cannot reach these. `DKV.TRACK key`: a client here reads it and keeps it. `DKV.BROADCAST prefix…`: clients here
/// want to know of all keys with one of these prefixes, and of no others. `DKV.CHANGED key…`: these have changed, all when
/// none is named.
const TRACK_REQUEST: &[u8] = b"DKV.TRACK";
const BROADCAST_REQUEST: &[u8] = b"DKV.BROADCAST";
const CHANGED_REQUEST: &[u8] = b"DKV.CHANGED";

/// Keys that one request names.
const KEYS_AT_ONCE: usize = 128;

/// Whether a request of another shard is one of these.
pub(crate) fn is_request(name: &[u8]) -> bool {
    let all = [
        TRACK_REQUEST,
        BROADCAST_REQUEST,
        CHANGED_REQUEST,
        FIND_REQUEST,
        TELL_REQUEST,
        GONE_REQUEST,
    ];
    all.contains(&name)
}

impl Shard {
    pub(super) fn tell_read(&mut self, owner: u16, key: &[u8]) {
        self.links.push(owner, Waiting::UNASKED, Proto::Resp2, false, [TRACK_REQUEST, key]);
    }

    /// The prefixes about which clients of this shard want to know; the empty one is of all keys.
    fn wanted_prefixes(&self, own: Option<&Session>) -> Vec<Box<[u8]>> {
        let mut prefixes: Vec<Box<[u8]>> = Vec::new();
        for session in self.sessions.iter().chain(own) {
            match &session.tracking {
                Some(mode) if mode.bcast => prefixes.extend(mode.prefixes.iter().cloned()),
                _ => {}
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    fn tell_prefixes(&mut self, to: u16, prefixes: &[Box<[u8]>], waiting: Waiting) {
        let request = core::iter::once(BROADCAST_REQUEST).chain(prefixes.iter().map(|p| &**p));
        self.links.push(to, waiting, Proto::Resp2, false, request);
    }

    /// A connection begins to broadcast: it is answered when all shards that can be reached know.
    pub(super) fn begin_broadcast(&mut self, session: &mut Session, answer: Vec<u8>) {
        let prefixes = self.wanted_prefixes(Some(session));
        let me = self.links.me();
        let others: Vec<u16> =
            (0..self.links.len()).filter(|to| *to != me && self.links.is_up(*to)).collect();
        if others.is_empty() {
            session.replies.push(&answer);
            return;
        }
        let merging = Merging::given(answer, others.len() as u32);
        let slot = session.replies.wait_for_all(merging);
        for to in others {
            let waiting = Waiting { session: session.id, slot, ..Waiting::UNASKED };
            self.tell_prefixes(to, &prefixes, waiting);
        }
    }

    /// The way to a shard is open: what it did meanwhile is not known here, and it knows nothing of clients here.
    pub(crate) fn begin_tracking_with(&mut self, to: u16) {
        self.tracking.forget_all();
        if !self.tracking.broadcasting.is_empty() {
            let prefixes = self.wanted_prefixes(None);
            self.tell_prefixes(to, &prefixes, Waiting::UNASKED);
        }
    }

    /// The way to a shard is lost: it tells its clients to forget what this one leads.
    pub(crate) fn end_tracking_with(&mut self, to: u16) {
        self.tracking.forget_all();
        self.tracking.outgoing.remove(&to);
        self.tracking.prefixes.retain(|(shard, _)| *shard != to);
    }

    /// Sends other shards what they are to be told, as far as the way to them is free.
    pub(super) fn send_told(&mut self) {
        if core::mem::take(&mut self.tracking.prefixes_changed) {
            let (prefixes, me) = (self.wanted_prefixes(None), self.links.me());
            for to in (0..self.links.len()).filter(|to| *to != me) {
                if self.links.is_up(to) {
                    self.tell_prefixes(to, &prefixes, Waiting::UNASKED);
                }
            }
        }
        let mut outgoing = core::mem::take(&mut self.tracking.outgoing);
        outgoing.retain(|to, way| {
            // A shard that cannot be reached has told its clients to forget everything.
            if !self.links.is_up(*to) {
                return false;
            }
            while !self.links.is_full(*to) && (way.all || !way.keys.is_empty()) {
                let keys = if core::mem::take(&mut way.all) {
                    0
                } else {
                    way.keys.len().min(KEYS_AT_ONCE)
                };
                let keys: Vec<Box<[u8]>> = way.keys.drain(..keys).collect();
                let request =
                    core::iter::once(CHANGED_REQUEST).chain(keys.iter().map(|key| &**key));
                self.links.push(*to, Waiting::UNASKED, Proto::Resp2, false, request);
            }
            way.all || !way.keys.is_empty()
        });
        self.tracking.outgoing = outgoing;
    }

    /// A request of another shard about keys that clients keep.
    pub(crate) fn serve_tracking(
        &mut self,
        from: ShardAddr,
        args: crate::command::Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let same_node = from.node == self.me.node;
        let Some(from) = self.links.number(from) else {
            return reply::error(out, "ERR a shard that this one does not know");
        };
        match args.get(0) {
            FIND_REQUEST | TELL_REQUEST | GONE_REQUEST => {
                if same_node {
                    return self.serve_redirects(from, args, out);
                }
                return reply::error(out, "ERR only shards of the same node know its connections");
            }
            TRACK_REQUEST => {
                let keys_max = self.tracked_keys_max();
                for key in args.iter_from(1) {
                    self.tracking.read_elsewhere(key, from, keys_max);
                }
                self.table.note_removed(true);
            }
            BROADCAST_REQUEST => {
                let prefixes = &mut self.tracking.prefixes;
                prefixes.retain(|(shard, _)| *shard != from);
                prefixes.extend(args.iter_from(1).map(|prefix| (from, prefix.into())));
                self.table.note_removed(true);
            }
            _ if args.len() == 1 => self.tracking.forget_all(),
            _ => args.iter_from(1).for_each(|key| self.tell_own(key, None)),
        }
        reply::ok(out);
    }
}
