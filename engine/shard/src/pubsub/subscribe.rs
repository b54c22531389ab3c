//! SUBSCRIBE, UNSUBSCRIBE and their like, and what a connection with subscriptions may do.

use super::directory::{Kind, SUBSCRIPTION_COST_BYTES};
use super::interest::place_of;
use super::{NAMES_AT_ONCE, UNITS_OF_NAME};
use crate::command::{Args, Spec};
use crate::commands::glob::PATTERN_BYTES_MAX;
use crate::commands::pubsub::PATTERN_TOO_LONG;
use crate::input::Plan;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::refusal::{self, Refusal};
use crate::session::Session;
use crate::shard::Shard;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::limits::{
    KEY_BYTES_MAX, SUBSCRIPTION_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
};
use dkv_protocol::resp::{Proto, reply};
use dkv_protocol::slots::slot_of;

pub(super) const NAME_TOO_LONG: &str =
    "ERR the name of a channel is longer than 65536 bytes; use a shorter one";
const _: () = assert!(KEY_BYTES_MAX == 65536);
const TOO_MANY: &str = "ERR a connection subscribes to at most 65536 channels and patterns; use another connection \
                        for more, or a pattern";
const _: () = assert!(SUBSCRIPTIONS_PER_CONNECTION_MAX == 65536);
const TOO_MUCH: &str = "ERR the subscriptions of this shard's connections would take more than 256 MiB; connect again, \
                        to another shard perhaps, or subscribe to patterns";
const _: () = assert!(SUBSCRIPTION_BYTES_MAX == 256 << 20);
const SEVERAL_SLOTS: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// `*3 subscribe name count`, or as a push.
fn confirm(proto: Proto, word: &[u8], name: Option<&[u8]>, count: usize, out: &mut Vec<u8>) {
    reply::push(out, proto, 3);
    reply::bulk(out, word);
    match name {
        Some(name) => reply::bulk(out, name),
        None => reply::null(out, proto),
    }
    reply::integer(out, count as i64);
}

const fn word_of(kind: Kind, subscribe: bool) -> &'static [u8] {
    match (kind, subscribe) {
        (Kind::Channel, true) => b"subscribe",
        (Kind::Channel, false) => b"unsubscribe",
        (Kind::Pattern, true) => b"psubscribe",
        (Kind::Pattern, false) => b"punsubscribe",
        (Kind::Shard, true) => b"ssubscribe",
        (Kind::Shard, false) => b"sunsubscribe",
    }
}

impl Shard {
    /// What becomes of a command of a connection that has subscriptions and speaks RESP2, where a message cannot be told
    /// from a reply. None: what becomes of any other.
    #[cold]
    pub(crate) fn plan_subscribed(
        session: &Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> Option<Plan> {
        // In the words of Redis, to whom one that looks on is a kind of copy.
        let with_keys = spec.write || spec.flags.contains(&"readonly");
        let publishes = matches!(spec.name, "PUBLISH" | "SPUBLISH");
        if session.looks_on && (with_keys || publishes) {
            return Some(Plan::Refused(Refusal::LooksOn));
        }
        let subscribed = session.listening.as_ref().is_some_and(|own| own.is_subscribed());
        if !subscribed || session.proto != Proto::Resp2 {
            return None;
        }
        let misspelt = refusal::check_arguments(spec, args).is_some()
            || !spec.subcommands.is_empty() && refusal::check_subcommand(spec, args).is_some();
        match spec.name {
            _ if misspelt => None,
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
            | "SUNSUBSCRIBE" | "QUIT" | "RESET" => None,
            "PING" if args.len() > 2 => None,
            "PING" => Some(Plan::Session),
            _ => Some(Plan::Refused(Refusal::Subscribed)),
        }
    }

    /// PING where a message cannot be told from a reply.
    pub(crate) fn ping_subscribed(session: &mut Session, args: Args<'_>) {
        let (out, _) = session.replies.begin();
        let start = out.len();
        reply::array(out, 2);
        reply::bulk(out, b"pong");
        reply::bulk(out, if args.len() > 1 { args.get(1) } else { b"" });
        session.replies.wrote(start);
    }

    /// A command of publish and subscribe. Break: not now, the session is stalled.
    pub(crate) fn pubsub_command(
        &mut self,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        match spec.name {
            "SUBSCRIBE" => self.subscribe(session, Kind::Channel, args),
            "PSUBSCRIBE" => self.subscribe(session, Kind::Pattern, args),
            "SSUBSCRIBE" => self.subscribe(session, Kind::Shard, args),
            "UNSUBSCRIBE" => self.unsubscribe(session, Kind::Channel, args),
            "PUNSUBSCRIBE" => self.unsubscribe(session, Kind::Pattern, args),
            "SUNSUBSCRIBE" => self.unsubscribe(session, Kind::Shard, args),
            "PUBSUB" => self.pubsub_query(session, spec, args),
            _ => self.publish(session, spec, args),
        }
    }

    /// Why a connection may not subscribe to all of these.
    fn forbids(&self, session: &Session, kind: Kind, args: Args<'_>) -> Option<&'static str> {
        let names = || args.iter_from(1);
        let has = session.listening.as_ref().map_or(0, |own| own.len());
        let cost = names().map(|name| name.len() + SUBSCRIPTION_COST_BYTES).sum::<usize>();
        if kind == Kind::Pattern && names().any(|name| name.len() > PATTERN_BYTES_MAX) {
            Some(PATTERN_TOO_LONG)
        } else if names().any(|name| name.len() > KEY_BYTES_MAX) {
            Some(NAME_TOO_LONG)
        } else if has + args.len() - 1 > SUBSCRIPTIONS_PER_CONNECTION_MAX {
            Some(TOO_MANY)
        } else if self.pubsub.directory.bytes() + cost > SUBSCRIPTION_BYTES_MAX {
            Some(TOO_MUCH)
        } else if kind == Kind::Shard && names().any(|name| slot_of(name) != slot_of(args.get(1))) {
            Some(SEVERAL_SLOTS)
        } else {
            None
        }
    }

    fn subscribe(&mut self, session: &mut Session, kind: Kind, args: Args<'_>) -> ControlFlow<()> {
        let begun = session.listening.as_ref().map_or(0, |own| own.progress.at);
        if begun == 0
            && let Some(text) = self.forbids(session, kind, args)
        {
            let mut out = Vec::new();
            reply::error(&mut out, text);
            self.answer(session, &out);
            return ControlFlow::Continue(());
        }
        session.listening.get_or_insert_default().progress.at = begun.max(1);
        while let Some(at) = session.listening.as_ref().map(|own| own.progress.at)
            && at < args.len()
        {
            if at > 1 && self.pace.is_over() {
                self.later(session);
                return ControlFlow::Break(());
            }
            let names = args.slice(at, NAMES_AT_ONCE.min(args.len() - at));
            self.subscribe_some(session, kind, names)?;
        }
        if let Some(own) = &mut session.listening {
            own.progress.at = 0;
        }
        ControlFlow::Continue(())
    }

    /// Subscribes to a few, and confirms when every shard that can be reached knows.
    fn subscribe_some(
        &mut self,
        session: &mut Session,
        kind: Kind,
        names: Args<'_>,
    ) -> ControlFlow<()> {
        let mut places: Vec<u16> =
            names.iter_from(0).map(|name| place_of(kind, name) as u16).collect();
        places.sort_unstable();
        places.dedup();
        let me = self.links.me();
        let untold: Vec<u16> = (0..self.links.len())
            .filter(|to| *to != me && self.links.is_up(*to) && !self.knows(*to, &places))
            .collect();
        for to in &untold {
            self.admit(session, *to)?;
        }
        let Some(own) = &mut session.listening else { return ControlFlow::Continue(()) };
        let was_subscribed = own.is_subscribed();
        let mut out = Vec::new();
        for name in names.iter_from(0) {
            if !own.has(kind, name) {
                own.add(kind, self.pubsub.directory.add(kind, name, session.id));
            }
            let count = own.told_len(kind);
            confirm(session.proto, word_of(kind, true), Some(name), count, &mut out);
        }
        own.progress.at += names.len();
        self.pubsub.clients += u64::from(!was_subscribed);
        self.pace.work(names.len() * UNITS_OF_NAME as usize);
        self.gauge_pubsub();
        if untold.is_empty() {
            session.replies.message(&out);
            return ControlFlow::Continue(());
        }
        let slot = session.replies.wait_for_all(Merging::given(out, untold.len() as u32));
        for to in untold {
            let waiting = Waiting { session: session.id, slot, ..Waiting::UNASKED };
            self.tell(to, &places, true, waiting);
        }
        ControlFlow::Continue(())
    }

    /// Whether a shard has answered that it knows of subscribers in these places.
    fn knows(&self, shard: u16, places: &[u16]) -> bool {
        let interest = &self.pubsub.interest;
        interest.has_told(shard, places)
            && interest.last(shard).is_none_or(|id| self.links.is_answered(shard, id))
    }

    fn unsubscribe(
        &mut self,
        session: &mut Session,
        kind: Kind,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let mut out = Vec::new();
        let mut at = session.listening.as_ref().map_or(0, |own| own.progress.at).max(1);
        let begun = at;
        let all = args.len() == 1;
        let was_subscribed = session.listening.as_ref().is_some_and(|own| own.is_subscribed());
        let more = loop {
            if at - begun >= NAMES_AT_ONCE && self.pace.is_over() {
                break true;
            }
            let (name, listened): (Option<Arc<[u8]>>, bool);
            let given = (!all && at < args.len()).then(|| args.get(at));
            if let Some(given) = given {
                let own = session.listening.as_mut();
                listened = own.is_some_and(|own| own.remove(kind, given));
                name = None;
            } else if all {
                name = session.listening.as_mut().and_then(|own| own.pop_of(kind));
                listened = name.is_some();
                // Only who had nothing at all is told so.
                if !listened && at > 1 {
                    break false;
                }
            } else {
                break false;
            }
            let called = given.or(name.as_deref());
            if let Some(called) = called.filter(|_| listened) {
                self.pubsub.directory.remove(kind, called, session.id);
            }
            let count = session.listening.as_ref().map_or(0, |own| own.told_len(kind));
            confirm(session.proto, word_of(kind, false), called, count, &mut out);
            self.pace.work(UNITS_OF_NAME as usize);
            at += 1;
            if all && !listened {
                break false;
            }
        };
        session.replies.message(&out);
        self.gauge_pubsub();
        if let Some(own) = &mut session.listening {
            own.progress.at = if more { at } else { 0 };
        }
        if more {
            self.later(session);
            return ControlFlow::Break(());
        }
        if session.listening.take_if(|own| !own.is_subscribed()).is_some() && was_subscribed {
            self.pubsub.clients -= 1;
            self.gauge_pubsub();
        }
        ControlFlow::Continue(())
    }

    /// RESET gives up everything. Break: not all of it yet.
    pub(crate) fn unsubscribe_from_all(&mut self, session: &mut Session) -> ControlFlow<()> {
        let Some(own) = &mut session.listening else { return ControlFlow::Continue(()) };
        if !own.is_subscribed() {
            session.listening = None;
            return ControlFlow::Continue(());
        }
        let mut taken = 0;
        while let Some((kind, name)) = own.pop() {
            self.pubsub.directory.remove(kind, &name, session.id);
            self.pace.work(UNITS_OF_NAME as usize);
            taken += 1;
            if taken >= NAMES_AT_ONCE && self.pace.is_over() && own.is_subscribed() {
                self.gauge_pubsub();
                self.later(session);
                return ControlFlow::Break(());
            }
        }
        session.listening = None;
        self.pubsub.clients -= 1;
        self.gauge_pubsub();
        ControlFlow::Continue(())
    }
}
