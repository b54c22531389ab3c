//! PUBLISH and SPUBLISH: to the subscribers of this shard, and to the shards that may have more.

use super::directory::{FanOut, Found, Kind};
use super::interest::{PATTERNS, place_of};
use super::{
    Begun, INTEREST_REQUEST, MALFORMED, PUBLISH_REQUEST, QUERY_REQUEST, UNITS_OF_NAME, subscribe,
};
use crate::command::{Args, Spec};
use crate::face::SessionId;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::frame::RequestHead;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::limits::KEY_BYTES_MAX;
use dkv_protocol::resp::{Proto, reply};

/// Bytes of a message that count one unit of pace.
const BYTES_PER_UNIT: usize = 4096;
/// A buffer for messages keeps so much, in bytes.
const FRAME_BYTES_KEPT: usize = 64 * 1024;

/// What is published.
#[derive(Clone, Copy)]
struct Message<'a> {
    kind: Kind,
    channel: &'a [u8],
    payload: &'a [u8],
}

/// How it went with one subscriber.
enum Delivery {
    Done,
    /// It is gone, or about to.
    Gone,
    /// Its connection is being worked on: not now.
    Busy,
}

impl Message<'_> {
    /// As a subscriber gets it.
    fn frame(&self, pattern: Option<&[u8]>, proto: Proto, out: &mut Vec<u8>) {
        reply::push(out, proto, if pattern.is_some() { 4 } else { 3 });
        let word: &[u8] = match (pattern, self.kind) {
            (Some(_), _) => b"pmessage",
            (None, Kind::Shard) => b"smessage",
            (None, _) => b"message",
        };
        reply::bulk(out, word);
        if let Some(pattern) = pattern {
            reply::bulk(out, pattern);
        }
        reply::bulk(out, self.channel);
        reply::bulk(out, self.payload);
    }
}

impl Shard {
    /// PUBLISH or SPUBLISH of a client. Break: not now, the session is stalled.
    pub(super) fn publish(
        &mut self,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let kind = if spec.name == "SPUBLISH" { Kind::Shard } else { Kind::Channel };
        let message = Message { kind, channel: args.get(1), payload: args.get(2) };
        if message.channel.len() > KEY_BYTES_MAX {
            let mut out = Vec::new();
            reply::error(&mut out, subscribe::NAME_TOO_LONG);
            self.answer(session, &out);
            return ControlFlow::Continue(());
        }
        // Who gets the message may look at what the connection wrote before it.
        if session.replies.waiting() > session.replies.publishing() {
            // For a moment only: it is read on, for to stop reading costs more.
            session.stall = Stall::Replies;
            return ControlFlow::Break(());
        }
        let (me, place) = (self.links.me(), place_of(kind, message.channel));
        let mut parts = 1;
        for to in (0..self.links.len()).filter(|to| *to != me) {
            if self.pubsub.interest.wants(to, kind, place) && self.links.is_up(to) {
                self.admit(session, to)?;
                parts += 1;
            }
        }
        let begun = session.listening.as_mut().and_then(|own| own.progress.begun.take());
        let mut at = match begun {
            Some(Begun::Publish(at)) => at,
            _ => FanOut::default(),
        };
        if !self.fan_out(Some(session), message, &mut at) {
            let own = session.listening.get_or_insert_default();
            own.progress.begun = Some(Begun::Publish(at));
            self.later(session);
            return ControlFlow::Break(());
        }
        self.stats.published.add(1);
        let mut count = Vec::new();
        reply::integer(&mut count, at.receivers);
        if parts == 1 {
            session.replies.push(&count);
        } else {
            let slot = session.replies.wait_for_all(Merging::receivers(parts));
            self.resolve(self.now, session, slot, 0, count.into());
            let waiting = Waiting { session: session.id, slot, ..Waiting::UNASKED };
            let request = [PUBLISH_REQUEST, kind.letter(), message.channel, message.payload];
            for to in (0..self.links.len()).filter(|to| *to != me) {
                if self.pubsub.interest.wants(to, kind, place) && self.links.is_up(to) {
                    self.links.push(to, waiting, Proto::Resp2, false, request);
                    self.stats.forwarded.add(1);
                }
            }
        }
        for to in 0..self.links.len() {
            let interest = &mut self.pubsub.interest;
            let away = interest.wants(to, kind, place) && !self.links.is_up(to);
            if away && !interest.gives_up(to, self.now.boot_ms()) {
                self.stats.messages_lost.add(1);
            }
        }
        ControlFlow::Continue(())
    }

    /// Gives a message to subscribers of this shard, behind those that have it. Whether all of them have it.
    fn fan_out(
        &mut self,
        mut own: Option<&mut Session>,
        message: Message<'_>,
        at: &mut FanOut,
    ) -> bool {
        let mut frames = core::mem::take(&mut self.pubsub.frames);
        let mut ids = Vec::new();
        let done = loop {
            let directory = &self.pubsub.directory;
            match directory.next(message.kind, message.channel, at, &mut ids, &mut self.pace) {
                Found::End => break true,
                Found::Paused => break false,
                Found::Listeners => {}
            }
            frames.iter_mut().for_each(Vec::clear);
            let mut stopped = false;
            for &id in &ids {
                let frame = |proto: Proto, frames: &mut [Vec<u8>; 2]| {
                    let frame = &mut frames[usize::from(proto == Proto::Resp3)];
                    if frame.is_empty() {
                        message.frame(at.pattern(), proto, frame);
                    }
                };
                let delivery = match own.as_deref_mut().filter(|session| session.id == id) {
                    Some(session) => {
                        frame(session.proto, &mut frames);
                        session
                            .replies
                            .message(&frames[usize::from(session.proto == Proto::Resp3)]);
                        Delivery::Done
                    }
                    None => self.deliver(id, &mut frames, &frame),
                };
                match delivery {
                    Delivery::Busy => {
                        stopped = true;
                        break;
                    }
                    Delivery::Done => at.receivers += 1,
                    Delivery::Gone => {}
                }
                at.served(id);
                let bytes = message.channel.len() + message.payload.len();
                self.pace.work(UNITS_OF_NAME as usize + bytes / BYTES_PER_UNIT);
                if self.pace.is_over() {
                    stopped = true;
                    break;
                }
            }
            if stopped {
                break false;
            }
        };
        for frame in &mut frames {
            frame.clear();
            frame.shrink_to(FRAME_BYTES_KEPT);
        }
        self.pubsub.frames = frames;
        done
    }

    /// Puts a message into the output of a connection.
    fn deliver(
        &mut self,
        id: SessionId,
        frames: &mut [Vec<u8>; 2],
        make: &impl Fn(Proto, &mut [Vec<u8>; 2]),
    ) -> Delivery {
        let Some(mut session) = self.sessions.take(id) else {
            return if self.sessions.is_taken(id) { Delivery::Busy } else { Delivery::Gone };
        };
        if session.end != End::No {
            self.sessions.put(session);
            return Delivery::Gone;
        }
        make(session.proto, frames);
        session.replies.lend(|| self.buffers.take());
        session.replies.message(&frames[usize::from(session.proto == Proto::Resp3)]);
        self.stats.delivered.add(1);
        self.bound_listener(&mut session);
        self.settle(session);
        Delivery::Done
    }

    /// Cuts a subscriber, or one that looks on, that leaves too much unread, or much for too long.
    pub(crate) fn bound_listener(&mut self, session: &mut Session) {
        let (unsent, now_ms) = (session.replies.unsent(), self.now.boot_ms());
        let max = self.tuning.subscribers;
        let since_ms = match &mut session.listening {
            Some(own) if unsent > max.soft_bytes => *own.slow_since_ms.get_or_insert(now_ms),
            Some(own) => {
                own.slow_since_ms = None;
                now_ms
            }
            None => now_ms,
        };
        if unsent > max.hard_bytes || now_ms - since_ms > max.soft_ms {
            self.stats.subscribers_cut.add(1);
            self.cut(session);
        }
    }

    /// A request of another shard about messages and subscribers. False: not now.
    pub(crate) fn serve_pubsub(
        &mut self,
        from: ShardAddr,
        head: RequestHead,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(from) = self.links.number(from) else {
            reply::error(out, "ERR a shard that this one does not know");
            return true;
        };
        match (args.get(0), args.len()) {
            (PUBLISH_REQUEST, 4) => match Kind::of_letter(args.get(1)) {
                Some(kind @ (Kind::Channel | Kind::Shard)) => {
                    let message = Message { kind, channel: args.get(2), payload: args.get(3) };
                    return self.serve_publish(from, head.id, message, out);
                }
                _ => reply::error(out, MALFORMED),
            },
            (INTEREST_REQUEST, 3) => {
                // When the way there is lost, it is told with the next one.
                if args.get(1) == b"?" && self.links.is_up(from) {
                    self.tell_interest(from);
                }
                for place in args.get(2).chunks_exact(2) {
                    let place = usize::from(u16::from_le_bytes([place[0], place[1]]));
                    if place <= PATTERNS {
                        self.pubsub.interest.hear(from, place, args.get(1) == b"+");
                    }
                }
                reply::ok(out);
            }
            (QUERY_REQUEST, 2..) => return self.serve_query(from, head.id, args, out),
            _ => reply::error(out, MALFORMED),
        }
        true
    }

    fn serve_publish(
        &mut self,
        from: u16,
        id: u32,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut at = match self.pubsub.begun.remove(&from) {
            Some((begun, Begun::Publish(at))) if begun == id => at,
            _ => FanOut::default(),
        };
        if !self.fan_out(None, message, &mut at) {
            self.pubsub.begun.insert(from, (id, Begun::Publish(at)));
            return false;
        }
        reply::integer(out, at.receivers);
        if at.receivers == 0 {
            self.discourage(from, message);
        }
        true
    }

    /// A message has come for nobody: the shard that sent it is told where there are no subscribers, unless something
    /// that it was told is still on its way.
    fn discourage(&mut self, from: u16, message: Message<'_>) {
        let place = place_of(message.kind, message.channel);
        let places = [place as u16, PATTERNS as u16];
        let places = if message.kind == Kind::Shard { &places[..1] } else { &places };
        // With subscribers to patterns every message comes anyway.
        let nobody =
            places.iter().all(|place| !self.pubsub.directory.is_interested(usize::from(*place)));
        let pending =
            self.pubsub.interest.last(from).is_some_and(|id| !self.links.is_answered(from, id));
        if nobody && !pending && self.links.is_up(from) && !self.links.is_full(from) {
            self.tell(from, places, false, Waiting::UNASKED);
        }
    }

    /// Tells a shard, which is up, where there are subscribers, or where there are none.
    pub(super) fn tell(&mut self, to: u16, places: &[u16], there: bool, waiting: Waiting) {
        let bytes: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
        let sign: &[u8] = if there { b"+" } else { b"-" };
        let request = self.links.next_id(to);
        self.links.push(to, waiting, Proto::Resp2, false, [INTEREST_REQUEST, sign, &bytes]);
        self.pubsub.interest.tell(to, places, there, request);
    }

    /// The way to a shard is open: it is told where there are subscribers, and asked if that was forgotten of it.
    pub(crate) fn renew_interest(&mut self, to: u16) {
        self.tell_interest(to);
        if self.pubsub.interest.find_again(to) {
            let request = [INTEREST_REQUEST, b"?", b""];
            self.links.push(to, Waiting::UNASKED, Proto::Resp2, false, request);
        }
    }

    fn tell_interest(&mut self, to: u16) {
        let places = self.pubsub.directory.places();
        if !places.is_empty() {
            self.tell(to, &places, true, Waiting::UNASKED);
        }
    }

    /// The way to a shard is lost.
    pub(crate) fn forget_interest(&mut self, to: u16) {
        self.pubsub.interest.lose(to, self.now.boot_ms());
    }
}
