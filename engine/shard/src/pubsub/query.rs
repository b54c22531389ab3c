//! PUBSUB: who listens to what. On a client port of all shards that can be reached, on a shard port of that one.

use super::directory::{Kind, Listing};
use super::{Begun, QUERY_REQUEST};
use crate::command::{Args, Spec};
use crate::commands::glob::{PATTERN_BYTES_MAX, Pattern};
use crate::commands::pubsub::{HELP, PATTERN_TOO_LONG};
use crate::connection::help;
use crate::face::PortKind;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::refusal;
use crate::session::Session;
use crate::shard::Shard;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};

/// Before the kind: how many listen is asked, not what there is.
const COUNTS: &[u8] = b"#";

/// What is asked.
#[derive(Clone, Copy)]
enum Query<'a> {
    /// The names that match.
    Names(Kind, Option<&'a [u8]>),
    /// How many names there are, each counted once.
    Number(Kind),
    /// How many listen to each of the channels from this argument on.
    Counts(Kind, usize),
}

impl Shard {
    /// PUBSUB. Break: not now, the session is stalled.
    pub(super) fn pubsub_query(
        &mut self,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.refuses_subcommand(session, spec, args) {
            return ControlFlow::Continue(());
        }
        let mut out = Vec::new();
        let pattern = (args.len() > 2).then(|| args.get(2));
        let query = match refusal::subcommand_of(spec, args) {
            "channels" if args.len() <= 3 => Query::Names(Kind::Channel, pattern),
            "shardchannels" if args.len() <= 3 => Query::Names(Kind::Shard, pattern),
            "numpat" => Query::Number(Kind::Pattern),
            "numsub" => Query::Counts(Kind::Channel, 2),
            "shardnumsub" => Query::Counts(Kind::Shard, 2),
            subcommand => {
                if subcommand == "help" {
                    help("PUBSUB", &HELP, &mut out);
                } else {
                    let mut text =
                        b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
                    text.extend_from_slice(args.get(1));
                    text.extend_from_slice(b"'. Try PUBSUB HELP.");
                    reply::error_bytes(&mut out, &text);
                }
                self.answer(session, &out);
                return ControlFlow::Continue(());
            }
        };
        if let Query::Names(_, Some(pattern)) = query
            && pattern.len() > PATTERN_BYTES_MAX
        {
            reply::error(&mut out, PATTERN_TOO_LONG);
            self.answer(session, &out);
            return ControlFlow::Continue(());
        }
        self.ask_everybody(session, query, args)
    }

    fn ask_everybody(
        &mut self,
        session: &mut Session,
        query: Query<'_>,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let me = self.links.me();
        let others: Vec<u16> = (0..self.links.len())
            .filter(|to| session.port == PortKind::Client && *to != me && self.links.is_up(*to))
            .collect();
        for to in &others {
            self.admit(session, *to)?;
        }
        let begun = session.listening.as_mut().and_then(|own| own.progress.begun.take());
        let mut at = match begun {
            Some(Begun::Query(at)) => at,
            _ => Listing::default(),
        };
        let Some(own) = self.look(query, args, &mut at) else {
            let listening = session.listening.get_or_insert_default();
            listening.progress.begun = Some(Begun::Query(at));
            self.later(session);
            return ControlFlow::Break(());
        };
        let parts = others.len() as u32 + 1;
        let slot = session.replies.wait_for_all(match query {
            Query::Names(..) => Merging::names(parts, false),
            Query::Number(_) => Merging::names(parts, true),
            Query::Counts(_, first) => Merging::counts(parts, args.iter_from(first)),
        });
        for to in others {
            let weight = session.expected_bytes();
            let waiting = Waiting { session: session.id, slot, weight, ..Waiting::UNASKED };
            let (name, pattern) = match query {
                Query::Names(kind, pattern) => (kind.letter(), pattern),
                Query::Number(kind) => (kind.letter(), None),
                Query::Counts(kind, first) => {
                    let head = [QUERY_REQUEST, COUNTS, kind.letter()];
                    let request = head.into_iter().chain(args.iter_from(first));
                    self.links.push(to, waiting, Proto::Resp2, false, request);
                    continue;
                }
            };
            let request = [QUERY_REQUEST, name].into_iter().chain(pattern);
            self.links.push(to, waiting, Proto::Resp2, false, request);
        }
        self.resolve(self.now, session, slot, 0, own.into());
        ControlFlow::Continue(())
    }

    /// This shard's part of an answer. None: it has taken long, and goes on from `at`.
    fn look(&mut self, query: Query<'_>, args: Args<'_>, at: &mut Listing) -> Option<Vec<u8>> {
        let directory = &self.pubsub.directory;
        let (kind, pattern) = match query {
            Query::Names(kind, pattern) => (kind, pattern.map(Pattern::new)),
            Query::Number(kind) => (kind, None),
            Query::Counts(kind, first) => {
                let mut out = Vec::new();
                reply::array(&mut out, args.len() - first);
                for name in args.iter_from(first) {
                    reply::integer(&mut out, directory.listeners_of(kind, name) as i64);
                }
                self.pace.work(args.len());
                return Some(out);
            }
        };
        directory.list(kind, pattern.as_ref(), at, &mut self.pace).then(|| at.reply())
    }

    /// The same for another shard. False: not now.
    pub(super) fn serve_query(
        &mut self,
        from: u16,
        id: u32,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let counts = args.get(1) == COUNTS;
        let letter = if counts { 2 } else { 1 };
        let kind = (args.len() > letter).then(|| Kind::of_letter(args.get(letter))).flatten();
        let query = match kind {
            Some(kind) if counts => Query::Counts(kind, 3),
            Some(kind) => Query::Names(kind, (args.len() > 2).then(|| args.get(2))),
            None => {
                reply::error(out, super::MALFORMED);
                return true;
            }
        };
        let mut at = match self.pubsub.begun.remove(&from) {
            Some((begun, Begun::Query(at))) if begun == id => at,
            _ => Listing::default(),
        };
        let Some(own) = self.look(query, args, &mut at) else {
            self.pubsub.begun.insert(from, (id, Begun::Query(at)));
            return false;
        };
        out.extend_from_slice(&own);
        true
    }
}
