//! Which user a connection is, and what becomes of its requests and of itself because of that.

use super::check::{Denied, check};
use super::{DEFAULT, Hash, User, log};
use crate::command::{Args, Now, Spec};
use crate::face::SessionId;
use crate::input::Plan;
use crate::pubsub::Kind;
use crate::refusal::{self, Refusal};
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dkv_protocol::users::Users;
use sha2::{Digest, Sha256};

impl Session {
    /// It is this user from here on.
    pub(crate) fn become_user(&mut self, user: &Arc<User>) {
        self.authenticated = true;
        self.free = user.is_free();
        self.user = Some(Arc::clone(user));
    }

    /// It is nobody yet, or the default user where that one needs no password.
    pub(crate) fn become_nobody(&mut self, default: &Arc<User>) {
        (self.authenticated, self.free, self.user) = (false, false, None);
        if default.needs_no_password() {
            self.become_user(default);
        }
    }

    /// Whether it is in the middle of a command, which is tried again.
    fn has_begun(&self) -> bool {
        let going = |one: &crate::transaction::Transaction| one.is_going();
        self.change.is_some()
            || self.wait.is_some()
            || self.seek.is_some()
            || self.awaited.is_some()
            || self.transaction.as_deref().is_some_and(going)
            || self.listening.as_ref().is_some_and(|listening| listening.has_begun())
    }

    /// The name of its user; the default one for who is nobody yet, as Redis calls it.
    pub(crate) fn user_name(&self) -> &str {
        self.user.as_ref().map_or(DEFAULT, |user| &user.name)
    }
}

impl Shard {
    /// What becomes of a request of a connection that may not do everything. None: what becomes of any other.
    #[cold]
    pub(crate) fn plan_bound(
        session: &Session,
        spec: Option<&'static Spec>,
        args: Args<'_>,
    ) -> Option<Plan> {
        let Some(user) = session.user.as_ref().filter(|_| session.authenticated) else {
            let allowed = spec.is_some_and(|spec| spec.flags.contains(&"no_auth"));
            return (!allowed).then_some(Plan::Refused(Refusal::Unauthenticated));
        };
        let spec = spec?;
        // It was allowed when it began, and cannot be taken back in the middle.
        if session.has_begun() {
            return None;
        }
        if let Some(refusal) = refusal::check_arguments(spec, args) {
            return Some(Plan::Refused(refusal));
        }
        // What is no subcommand has no permissions either.
        if !spec.subcommands.is_empty()
            && args.len() > 1
            && let Some(refusal) = refusal::check_subcommand(spec, args)
        {
            return Some(Plan::Refused(refusal));
        }
        let denied = check(user, spec, args).err()?;
        Some(Plan::Refused(Refusal::Denied(denied)))
    }

    /// Notes that a request was refused.
    #[cold]
    pub(crate) fn note_denied(
        &mut self,
        session: &Session,
        spec: Option<&'static Spec>,
        args: Args<'_>,
        denied: Denied,
    ) {
        let Some(spec) = spec else { return };
        let client = log::client_of(self.now, session);
        self.acl_log.denied(self.now, session, spec, args, denied, client);
    }

    /// Whether a connection is that user now: the password is the user's. Otherwise it is who it was.
    pub(crate) fn authenticate(
        &mut self,
        now: Now,
        session: &mut Session,
        command: &str,
        user: &[u8],
        password: &[u8],
    ) -> bool {
        let given: Hash = Sha256::digest(password).into();
        if let Some(user) = self.acl.authenticate(user, &given) {
            let user = Arc::clone(user);
            session.become_user(&user);
            return true;
        }
        let client = log::client_of(now, session);
        self.acl_log.wrong_password(now, command, user, client);
        false
    }

    /// The users are these now. Connections of those that are gone are closed, those of others are held to the rules of now,
    /// and closed when they subscribe to what they may not hear any more.
    pub(crate) fn follow_users(&mut self, users: &Users) {
        self.acl.follow(users);
        let changed = |session: &&Session| {
            let known =
                session.user.as_ref().map(|user| (user, self.acl.get(user.name.as_bytes())));
            session.end == End::No
                && known.is_some_and(|(had, has)| has.is_none_or(|has| !Arc::ptr_eq(had, has)))
        };
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(changed).map(|session| session.id).collect();
        for id in ids {
            let Some(mut session) = self.sessions.take(id) else { continue };
            match self.acl.get(session.user_name().as_bytes()).map(Arc::clone) {
                Some(user) if may_hear(&user, &session) => {
                    session.become_user(&user);
                    Self::abort_denied(&mut session, &user);
                }
                // It is answered first.
                None if session.change.is_some() => {}
                _ => self.let_go(&mut session),
            }
            self.settle(session);
        }
    }

    /// A transaction with a command that its user may not execute any more does not run.
    fn abort_denied(session: &mut Session, user: &User) {
        // One that is under way is not stopped any more.
        let begun = session.has_begun();
        if let Some(transaction) = session.transaction.as_mut().filter(|_| !begun) {
            transaction.refuse_if(|spec, args| check(user, spec, args).is_err());
        }
    }
}

/// Whether a user may hear all that a connection is subscribed to.
fn may_hear(user: &User, session: &Session) -> bool {
    let Some(listening) = &session.listening else { return true };
    if user.is_free() {
        return true;
    }
    // It may be about to subscribe to more.
    if listening.has_begun() {
        return false;
    }
    [Kind::Channel, Kind::Pattern, Kind::Shard].into_iter().all(|kind| {
        listening.names(kind).iter().all(|name| {
            let may =
                |one: &super::selector::Selector| one.allows_channel(name, kind == Kind::Pattern);
            user.selectors().iter().any(may)
        })
    })
}
