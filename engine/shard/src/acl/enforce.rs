//! Which user a connection is, and what becomes of its requests and of itself because of that.

use super::check::{Check, Denied, has_long_key};
use super::user::PASSWORD_BYTES_MAX;
use super::{DEFAULT, Hash, User};
use crate::command::{Args, Now, Spec};
use crate::face::SessionId;
use crate::input::Plan;
use crate::refusal::{self, Refusal};
use crate::session::{End, Session};
use crate::shard::Shard;
use crate::stats::DeniedKind;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::users::Users;
use sha2::{Digest, Sha256};

/// Nanoseconds of looking at what a user may do that count one unit of pace.
const NS_PER_UNIT: usize = 256;
/// How long a look goes on at a time, in nanoseconds, and how much longer for each argument of the request: a request that waits
/// is parsed and planned again each time, which takes as long.
pub(super) const STEP_NS: usize = 100_000;
const STEP_NS_PER_ARGUMENT: usize = 100;
/// What a connection counts that is held to other rules, in units.
const UNITS_OF_CHANGE: usize = 2;

/// The units of pace of so many nanoseconds.
pub(super) const fn units_of(ns: usize) -> usize {
    (ns + NS_PER_UNIT / 2) / NS_PER_UNIT
}

/// How far it is known whether the user of a connection may execute the next command.
#[derive(Debug, Default)]
pub(crate) enum Checking {
    #[default]
    Unknown,
    Begun(Box<Check>),
    /// It is known, and the command could not be executed, or refused, since.
    Known(Result<(), Denied>),
}

impl Session {
    /// It is this user from here on.
    pub(crate) fn become_user(&mut self, user: &Arc<User>) {
        self.checking = Checking::Unknown;
        self.authenticated = true;
        self.free = user.is_free();
        self.user = Some(Arc::clone(user));
    }

    /// It is nobody yet, or the default user where that one needs no password.
    pub(crate) fn become_nobody(&mut self, default: &Arc<User>) {
        (self.authenticated, self.free, self.user) = (false, false, None);
        self.checking = Checking::Unknown;
        self.unproven = !default.needs_no_password();
        if default.needs_no_password() {
            self.become_user(default);
        }
    }

    /// Whether it is in the middle of a command, which is tried again.
    pub(crate) fn has_begun(&self) -> bool {
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
    /// What becomes of a request of a connection that may not do everything, whatever it may do. None: what becomes of any other,
    /// once it is known to be allowed.
    #[cold]
    pub(crate) fn plan_bound(
        session: &Session,
        spec: Option<&'static Spec>,
        args: Args<'_>,
    ) -> Option<Plan> {
        if !session.authenticated || session.user.is_none() {
            let allowed = spec.is_some_and(|spec| spec.flags.contains(&"no_auth"));
            return (!allowed).then_some(Plan::Refused(Refusal::Unauthenticated));
        }
        let spec = spec?;
        // It was allowed when it began.
        if session.has_begun() {
            return None;
        }
        if let Some(refusal) = refusal::check_arguments(spec, args) {
            return Some(Plan::Refused(refusal));
        }
        // What is no subcommand has no permissions either.
        if !spec.subcommands.is_empty() && args.len() > 1 {
            return refusal::check_subcommand(spec, args).map(Plan::Refused);
        }
        None
    }

    /// Executes a command of a connection that may not do everything: it is refused where its user may not do that. Break: not
    /// now, the session is stalled.
    #[cold]
    pub(crate) fn execute_bound(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        plan: Plan,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let of_form = matches!(plan, Plan::Refused(refusal) if refusal.is_of_form());
        // It was allowed when it began, and cannot be taken back in the middle.
        if !session.authenticated || of_form || session.has_begun() {
            // What is known is of this command alone.
            session.checking = Checking::Unknown;
            return self.execute_one(now, session, Some(spec), plan, args);
        }
        if matches!(session.checking, Checking::Unknown) && has_long_key(spec, args) {
            let plan = Plan::Refused(Refusal::KeyTooLong);
            return self.execute_one(now, session, Some(spec), plan, args);
        }
        let plan = match self.check_step(session, spec, args)? {
            Ok(()) => plan,
            Err(denied) => Plan::Refused(Refusal::Denied(denied)),
        };
        let flow = self.execute_one(now, session, Some(spec), plan, args);
        // It is not looked at again when it is tried again: what a look takes may be all that there is in a turn.
        session.checking = match plan {
            _ if flow.is_continue() => Checking::Unknown,
            Plan::Refused(Refusal::Denied(denied)) => Checking::Known(Err(denied)),
            _ => Checking::Known(Ok(())),
        };
        flow
    }

    /// Whether a user may execute that. Break: it is not known yet, and the session is stalled.
    fn check_step(
        &mut self,
        session: &mut Session,
        spec: &Spec,
        args: Args<'_>,
    ) -> ControlFlow<(), Result<(), Denied>> {
        let Some(user) = &session.user else { return ControlFlow::Continue(Ok(())) };
        if self.pace.is_over() {
            self.later(session);
            return ControlFlow::Break(());
        }
        let mut check = match core::mem::take(&mut session.checking) {
            Checking::Known(result) => return ControlFlow::Continue(result),
            Checking::Begun(check) => *check,
            Checking::Unknown => Check::new(spec, args),
        };
        let step_ns = STEP_NS + args.len() * STEP_NS_PER_ARGUMENT;
        let mut left_ns = step_ns;
        let result = check.go_on(user, spec, args, &mut left_ns);
        self.pace.work(units_of(step_ns - left_ns));
        let Some(result) = result else {
            session.checking = Checking::Begun(Box::new(check));
            self.later(session);
            return ControlFlow::Break(());
        };
        ControlFlow::Continue(result)
    }

    /// EXEC: looks at the commands of a transaction again whose user is held to other rules since they were queued. Break: it is
    /// not through, and the session is stalled.
    pub(crate) fn check_queued(&mut self, session: &mut Session) -> ControlFlow<()> {
        let (Some(user), Some(transaction)) = (&session.user, &mut session.transaction) else {
            return ControlFlow::Continue(());
        };
        let mut left_ns = STEP_NS;
        let checked = transaction.check_on(user, &mut left_ns);
        self.pace.work(units_of(STEP_NS - left_ns));
        match checked {
            None => {
                self.later(session);
                return ControlFlow::Break(());
            }
            Some(Ok(())) => {}
            Some(Err((at, denied))) => {
                if let Some((spec, args)) = session.transaction.as_ref().and_then(|t| t.at(at)) {
                    self.note_denied(session, Some(spec), args, denied);
                }
            }
        }
        ControlFlow::Continue(())
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
        self.stats.acl_denied[denied.kind() as usize].add(1);
        self.acl_log.denied(self.now, session, spec, args, denied);
    }

    /// Whether a connection is that user now: the password is the user's. Otherwise it is who it was.
    pub(crate) fn authenticate(
        &mut self,
        now: Now,
        session: &mut Session,
        command: &[u8],
        user: &[u8],
        password: &[u8],
    ) -> bool {
        // Nobody has a longer one, and to look through megabytes would keep others waiting.
        let given: Option<Hash> =
            (password.len() <= PASSWORD_BYTES_MAX).then(|| Sha256::digest(password).into());
        if let Some(user) = self.acl.authenticate(user, given.as_ref()) {
            let user = Arc::clone(user);
            session.become_user(&user);
            session.unproven = false;
            return true;
        }
        self.stats.acl_denied[DeniedKind::Auth as usize].add(1);
        self.acl_log.wrong_password(now, session, command, user);
        false
    }

    /// The users are these now. Connections of those that are gone are closed, those of others are held to the rules of now,
    /// and closed when they subscribe to what they may not hear any more.
    pub(crate) fn follow_users(&mut self, users: &Users) {
        self.acl.follow(users);
        self.pace.begin();
        let changed = |session: &&Session| {
            let known =
                session.user.as_ref().map(|user| (user, self.acl.get(user.name.as_bytes())));
            let other =
                |(had, has): (_, Option<&Arc<User>>)| has.is_none_or(|has| !Arc::ptr_eq(had, has));
            // Who is nobody yet may be the default user now.
            session.end == End::No && known.map_or(session.unproven, other)
        };
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(changed).map(|session| session.id).collect();
        for id in ids {
            let Some(mut session) = self.sessions.take(id) else { continue };
            match self.acl.get(session.user_name().as_bytes()).map(Arc::clone) {
                Some(default) if session.unproven && !default.needs_no_password() => {
                    session.become_nobody(&default);
                }
                Some(user) => {
                    session.become_user(&user);
                    // What is under way is not stopped any more.
                    let begun = session.has_begun();
                    if let Some(transaction) = session.transaction.as_mut().filter(|_| !begun) {
                        transaction.check_anew();
                    }
                    self.suspect(&session);
                }
                // It is answered first.
                None if session.change.is_some() => {}
                None => self.let_go(&mut session),
            }
            self.pace.work(UNITS_OF_CHANGE);
            self.settle(session);
        }
        self.look_at_suspects();
    }
}
