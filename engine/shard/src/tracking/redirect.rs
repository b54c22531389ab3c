//! CLIENT TRACKING REDIRECT: what a connection would be told goes to another one of the same node, for clients that speak RESP2
//! and so need a connection for nothing but that.
//!
//! Which shard has the other connection is asked once, when tracking begins; from then on it is known by its place there. Where
//! it is gone when something is to be told, whoever keeps the key learns that nobody hears of it any more.

use super::{Message, Way};
use crate::command::{Args, Now};
use crate::commands::clients::is_subscribed;
use crate::face::SessionId;
use crate::links::Waiting;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};

/// Clients cannot reach these, and only shards of the same node ask them. `DKV.FIND id`: the answer is the place of that
/// connection, or nothing. `DKV.TELL from to [key]`: the connection `to` is to be told of a key that `from` keeps, of all without
/// one. `DKV.GONE from to`: there was none.
pub(super) const FIND_REQUEST: &[u8] = b"DKV.FIND";
pub(super) const TELL_REQUEST: &[u8] = b"DKV.TELL";
pub(super) const GONE_REQUEST: &[u8] = b"DKV.GONE";

/// The channel on which Redis tells connections that speak RESP2.
const CHANNEL: &[u8] = b"__redis__:invalidate";
const NO_SUCH_CLIENT: &str = "ERR The client ID you want redirect to does not exist";

/// The connection that is told instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redirect {
    /// Its CLIENT ID.
    pub(super) client_id: u64,
    shard: u16,
    to: SessionId,
    /// It is gone.
    pub(super) broken: bool,
}

/// A connection that is looked for on the other shards of the node.
#[derive(Debug)]
pub(crate) struct Seek {
    client_id: u64,
    /// The place in the queue that keeps replies behind it back.
    slot: u32,
    left: usize,
    found: Option<(u16, SessionId)>,
}

impl Seek {
    /// Takes the answer of a shard. False: it is the reply to something else.
    pub(crate) fn take(&mut self, slot: u32, shard: u32, answer: &[u8]) -> bool {
        if self.slot != slot {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        // The answer is a bulk string: its length, eight bytes in a line of their own.
        let place = answer.strip_prefix(b"$8\r\n").and_then(|rest| rest.first_chunk());
        if let Some(place) = place {
            self.found = Some((shard as u16, id_of(*place)));
        }
        true
    }
}

const fn bytes_of(id: SessionId) -> [u8; 8] {
    (((id.generation as u64) << 32) | id.index as u64).to_le_bytes()
}

const fn id_of(bytes: [u8; 8]) -> SessionId {
    let both = u64::from_le_bytes(bytes);
    SessionId { index: both as u32, generation: (both >> 32) as u32 }
}

impl Shard {
    /// Looks for the connection that is to be told instead of `session`. Break: it is asked for, and the command is to be
    /// executed again.
    pub(super) fn find_redirect(
        &mut self,
        now: Now,
        session: &mut Session,
        client_id: u64,
    ) -> ControlFlow<(), Result<Redirect, &'static str>> {
        let me = self.links.me();
        let found = |(shard, to)| Ok(Redirect { client_id, shard, to, broken: false });
        if let Some(seek) = session.seek.take() {
            if seek.left > 0 {
                session.seek = Some(seek);
                self.stall(session, Stall::Copies);
                return ControlFlow::Break(());
            }
            self.resolve(now, session, seek.slot, 0, (&[][..]).into());
            if seek.client_id == client_id {
                return ControlFlow::Continue(seek.found.map_or(Err(NO_SUCH_CLIENT), found));
            }
        }
        let own = self.sessions.iter().chain([&*session]).find(|one| one.client_id == client_id);
        if let Some(own) = own {
            return ControlFlow::Continue(found((me, own.id)));
        }
        let first = self.links.first_of(self.me);
        let others: Vec<u16> =
            (first..first + self.env.stats.len() as u16).filter(|shard| *shard != me).collect();
        if others.is_empty() {
            return ControlFlow::Continue(Err(NO_SUCH_CLIENT));
        }
        for to in &others {
            self.admit(session, *to)?;
        }
        let slot = session.replies.wait();
        for to in &others {
            let waiting =
                Waiting { session: session.id, slot, part: u32::from(*to), ..Waiting::UNASKED };
            let id = client_id.to_le_bytes();
            self.links.push(*to, waiting, Proto::Resp2, false, [FIND_REQUEST, &id[..]]);
        }
        session.seek = Some(Box::new(Seek { client_id, slot, left: others.len(), found: None }));
        self.stall(session, Stall::Copies);
        ControlFlow::Break(())
    }

    /// Puts what a connection would be told on the way to the one that is told instead.
    pub(super) fn tell_other(&mut self, from: SessionId, other: Redirect, key: Option<Box<[u8]>>) {
        let way = Way::For(self.links.me(), from);
        let message = Message { to: other.to, key, way };
        if other.shard == self.links.me() {
            self.tracking.redirected(message);
        } else {
            self.tracking.elsewhere(other.shard, message);
        }
    }

    /// Tells a connection; without a key, that all it keeps may have changed.
    pub(super) fn invalidate(
        &mut self,
        session: &mut Session,
        key: Option<&[u8]>,
        redirected: bool,
    ) {
        let proto = session.proto;
        let mut frame = Vec::new();
        if proto == Proto::Resp3 {
            reply::push(&mut frame, proto, 2);
            reply::bulk(&mut frame, b"invalidate");
        } else if redirected && is_subscribed(session) {
            reply::push(&mut frame, proto, 3);
            reply::bulk(&mut frame, b"message");
            reply::bulk(&mut frame, CHANNEL);
        } else {
            return;
        }
        match key {
            None => reply::null(&mut frame, proto),
            Some(key) => {
                reply::array(&mut frame, 1);
                reply::bulk(&mut frame, key);
            }
        }
        session.replies.lend(|| self.buffers.take());
        session.replies.message(&frame);
    }

    /// The connection that was to be told instead of `from`, of that shard, is gone.
    pub(super) fn other_is_gone(&mut self, shard: u16, from: SessionId, to: SessionId) {
        if shard == self.links.me() {
            self.redirect_is_broken(from, to);
        } else {
            let (from, to) = (bytes_of(from), bytes_of(to));
            let request = [GONE_REQUEST, &from[..], &to[..]];
            self.links.push(shard, Waiting::UNASKED, Proto::Resp2, false, request);
        }
    }

    /// A connection learns that nobody is told instead of it any more.
    pub(super) fn redirect_is_broken(&mut self, from: SessionId, to: SessionId) {
        let Some(mut session) = self.sessions.take(from) else { return };
        let redirect = session.tracking.as_mut().and_then(|mode| mode.redirect.as_mut());
        if let Some(redirect) = redirect.filter(|redirect| redirect.to == to) {
            redirect.broken = true;
            let client_id = redirect.client_id;
            if session.proto == Proto::Resp3 && session.end == End::No {
                let mut frame = Vec::new();
                reply::push(&mut frame, Proto::Resp3, 2);
                reply::bulk(&mut frame, b"tracking-redir-broken");
                reply::integer(&mut frame, client_id as i64);
                session.replies.lend(|| self.buffers.take());
                session.replies.message(&frame);
            }
        }
        self.settle(session);
    }

    /// Sends what connections of other shards are to be told. What finds no room waits.
    pub(super) fn send_redirected(&mut self) {
        let mut elsewhere = core::mem::take(&mut self.tracking.elsewhere);
        elsewhere.retain(|shard, messages| {
            while !self.links.is_full(*shard) {
                let Some(message) = messages.pop_front() else { break };
                let Way::For(_, from) = message.way else { continue };
                let (from, to) = (bytes_of(from), bytes_of(message.to));
                let request = [TELL_REQUEST, &from[..], &to[..]].into_iter();
                let request = request.chain(message.key.as_deref());
                self.links.push(*shard, Waiting::UNASKED, Proto::Resp2, false, request);
            }
            !messages.is_empty()
        });
        self.tracking.elsewhere = elsewhere;
    }

    /// A request of another shard of this node about connections that are told instead of others.
    pub(super) fn serve_redirects(&mut self, from: u16, args: Args<'_>, out: &mut Vec<u8>) {
        let place = |at: usize| {
            let bytes = if at < args.len() { args.get(at) } else { &[] };
            bytes.try_into().map(id_of).ok()
        };
        match (args.get(0), place(1), place(2)) {
            (FIND_REQUEST, Some(_), _) => {
                let id = args.get(1);
                let is = |one: &&Session| one.client_id.to_le_bytes() == id && one.end == End::No;
                // As dear as the same look by CLIENT KILL.
                self.pace.work(self.sessions.len());
                let found = self.sessions.iter().find(is).map(|one| bytes_of(one.id));
                return reply::bulk(out, found.as_ref().map_or(&[][..], |place| &place[..]));
            }
            (TELL_REQUEST, Some(keeps), Some(to)) => {
                let key = (args.len() > 3).then(|| args.get(3).into());
                self.tracking.redirected(Message { to, key, way: Way::For(from, keeps) });
            }
            (GONE_REQUEST, Some(keeps), Some(to)) => {
                self.tracking.redirected(Message { to: keeps, key: None, way: Way::Broken(to) });
            }
            _ => return reply::error(out, "ERR a request about connections that is none"),
        }
        reply::ok(out);
    }
}
