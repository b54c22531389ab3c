//! Connections whose user may hear less than before: those that are subscribed to more are closed.
//!
//! A connection has tens of thousands of subscriptions at most, and a user thousands of patterns; so the look goes in steps. One
//! that is in the middle of a command of publish and subscribe is looked at behind it: that began before the rules changed, and
//! what it leaves subscribed counts.

use super::User;
use super::check::{At, Object, allows_one};
use super::enforce::{STEP_NS, units_of};
use crate::face::SessionId;
use crate::pubsub::Kind;
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::sync::Arc;
use core::ops::Bound::{Excluded, Unbounded};

const KINDS: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

/// A connection that is to be looked at.
#[derive(Debug)]
pub(crate) struct Suspect {
    id: SessionId,
    /// Who it was when it came here; as another user it comes again.
    user: Arc<User>,
    /// The kind that is looked at, as its place among [`KINDS`], and the last name of it that was.
    kind: usize,
    last: Option<Arc<[u8]>>,
    /// A name that the look has begun at, and how far it is.
    begun: Option<(Arc<[u8]>, At)>,
}

/// What a step has found.
enum Found {
    /// It may hear all that it is subscribed to, or is gone.
    Nothing,
    /// It may not.
    Forbidden,
    /// There is more to look at; or there may be, when a command is through.
    More,
    Busy,
}

impl Suspect {
    fn step(&mut self, session: &Session, left_ns: &mut usize) -> Found {
        let same = session.user.as_ref().is_some_and(|user| Arc::ptr_eq(user, &self.user));
        let Some(listening) = session.listening.as_ref().filter(|_| same) else {
            return Found::Nothing;
        };
        if listening.has_begun() {
            return Found::Busy;
        }
        while let Some(kind) = KINDS.get(self.kind).copied() {
            let last = self.last.clone();
            let from = last.as_ref().map_or(Unbounded, |last| Excluded(&last[..]));
            for name in listening.names(kind).range::<[u8], _>((from, Unbounded)) {
                if *left_ns == 0 {
                    return Found::More;
                }
                let object = match kind {
                    Kind::Pattern => Object::ChannelPattern(name),
                    Kind::Channel | Kind::Shard => Object::Channel(name),
                };
                let begun = self.begun.take().filter(|(begun, _)| begun == name);
                let mut at = begun.map_or((0, 0), |(_, at)| at);
                match allows_one(&self.user, object, &mut at, left_ns) {
                    None => {
                        self.begun = Some((Arc::clone(name), at));
                        return Found::More;
                    }
                    Some(false) => return Found::Forbidden,
                    Some(true) => self.last = Some(Arc::clone(name)),
                }
            }
            (self.kind, self.last) = (self.kind + 1, None);
        }
        Found::Nothing
    }
}

impl Shard {
    /// A connection is held to other rules: it is to be looked at, if it is subscribed or about to be.
    pub(super) fn suspect(&mut self, session: &Session) {
        if let Some(user) = session.user.as_ref().filter(|_| !session.free)
            && session.listening.is_some()
        {
            let (id, user) = (session.id, Arc::clone(user));
            let (kind, last, begun) = (0, None, None);
            self.suspects.push_back(Suspect { id, user, kind, last, begun });
        }
    }

    /// Looks at some of these connections. Whether there is more to do, besides for those that are busy.
    pub(crate) fn look_at_suspects(&mut self) -> bool {
        let mut more = false;
        for _ in 0..self.suspects.len() {
            if self.pace.is_over() {
                return true;
            }
            let Some(mut suspect) = self.suspects.pop_front() else { break };
            let session = self.sessions.get(suspect.id).filter(|session| session.end == End::No);
            let Some(session) = session else { continue };
            let mut left_ns = STEP_NS;
            let found = suspect.step(session, &mut left_ns);
            self.pace.work(1 + units_of(STEP_NS - left_ns));
            match found {
                Found::Nothing => {}
                Found::Forbidden => {
                    if let Some(mut session) = self.sessions.take(suspect.id) {
                        self.let_go(&mut session);
                        self.settle(session);
                    }
                }
                Found::More => {
                    more = true;
                    self.suspects.push_back(suspect);
                }
                Found::Busy => self.suspects.push_back(suspect),
            }
        }
        more
    }
}
