//! The users of the store as a shard has them, and the way of a change: from the command that wants it to the managers, who
//! decide, and back.
//!
//! The users that a shard has are replaced as a whole when others are told. A command that changes them does not change these: it asks, its
//! connection waits, and it is executed again when the answer has come, behind the users that came of it.

use crate::command::Now;
use crate::face::SessionId;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ops::ControlFlow;
use dkv_protocol::users::{UserChanges, Users, UsersAnswer, UsersRefusal};

/// Changes of one shard's connections that may be under way, and how many of them one user may want: the others leave room
/// for whoever has to stop that one.
const UNDER_WAY_MAX: usize = 16;
const OF_ONE_USER_MAX: usize = 4;

/// What became of changes that a connection wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsersOutcome {
    /// What the managers say.
    Answered(UsersAnswer),
    /// No manager could be asked in time; nothing has changed.
    Unreachable,
    /// One was asked and did not answer; they may be made or not.
    Unanswered,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    present: Arc<Users>,
    /// The number of the last change.
    last: u64,
    /// Who waits for which, and the user that it was.
    under_way: BTreeMap<u64, (SessionId, String)>,
    /// Those that were not taken yet.
    out: VecDeque<(u64, UserChanges)>,
}

/// A change that a connection waits for, or what became of it.
#[derive(Debug)]
pub(crate) struct Change {
    /// How often it was refused before.
    tries: u8,
    /// How many users it is of.
    count: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// With its number.
    Asked(u64),
    Decided(UsersOutcome),
}

impl Change {
    /// How often it was refused before.
    pub(crate) const fn tries(&self) -> u8 {
        self.tries
    }
}

impl Shard {
    /// The users of the store.
    pub fn users(&self) -> &Arc<Users> {
        &self.desk.present
    }

    /// The users of the store are these now.
    pub fn users_are(&mut self, users: Arc<Users>) {
        self.follow_users(&users);
        self.desk.present = users;
    }

    /// A change that a connection wants and that is to go to the managers, with its number.
    pub fn take_user_changes(&mut self) -> Option<(u64, UserChanges)> {
        self.desk.out.pop_front()
    }

    /// What became of a change. The users that came of it were told before.
    pub fn users_answered(&mut self, now: Now, number: u64, outcome: UsersOutcome) {
        let Some((id, _)) = self.desk.under_way.remove(&number) else { return };
        let Some(mut session) = self.sessions.take(id) else { return };
        match &mut session.change {
            Some(change) if matches!(change.state, State::Asked(asked) if asked == number) => {
                change.state = State::Decided(outcome);
                if session.stall == Stall::Users && session.end == End::No {
                    self.pace.begin();
                    self.go_on(now, &mut session);
                }
            }
            _ => {}
        }
        self.settle(session);
    }

    /// Has the managers change the users for the command that a connection executes, which was refused `tries` times before.
    /// Break: its connection waits, and the command is to be executed again; then it gets what became of what it asked for,
    /// whatever it asks for now, and of how many users that was.
    pub(crate) fn change_users(
        &mut self,
        session: &mut Session,
        tries: u8,
        asked: UserChanges,
    ) -> ControlFlow<(), (UsersOutcome, u32)> {
        let count = asked.changes.len() as u32;
        let name = session.user_name();
        let of_user = self.desk.under_way.values().filter(|(_, user)| user == name).count();
        match session.change.take().map(|change| *change) {
            Some(Change { state: State::Decided(outcome), count, .. }) => {
                return ControlFlow::Continue((outcome, count));
            }
            Some(waiting) => session.change = Some(Box::new(waiting)),
            None if self.desk.under_way.len() >= UNDER_WAY_MAX || of_user >= OF_ONE_USER_MAX => {
                let why = UsersRefusal::Busy;
                let outcome = UsersOutcome::Answered(UsersAnswer::Refused { why });
                return ControlFlow::Continue((outcome, count));
            }
            None => {
                self.desk.last += 1;
                let number = self.desk.last;
                self.desk.under_way.insert(number, (session.id, session.user_name().to_string()));
                self.desk.out.push_back((number, asked));
                let state = State::Asked(number);
                session.change = Some(Box::new(Change { tries, count, state }));
            }
        }
        self.stall(session, Stall::Users);
        ControlFlow::Break(())
    }
}
