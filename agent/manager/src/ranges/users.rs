//! The users of the stores, in a manager: what the managers agreed on about them, as those see it who tell the nodes, and
//! how a change comes about.
//!
//! They stand in the catalogue of the ranges, also those of stores without copies, so that one log decides about all of
//! them and a manager that lost its disk has them with the rest.

use super::joining::undecided;
use super::{Part, Ranges, State, Undecided};
use crate::catalogue::Agent;
use crate::refusal::Refusal;
use dkv_catalog::{Command, ConfigLog, Outcome, Proposal, Refusal as RangesRefusal};
use dkv_protocol::ids::StoreId;
use dkv_protocol::users::{UserChanges, Users, UsersAnswer, UsersRefusal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The users of each store whose users were ever changed. None while it is not known what the managers agreed on: before
/// this one has heard of whoever leads them.
pub(crate) type UsersOf = Option<Arc<BTreeMap<StoreId, Arc<Users>>>>;

/// Most time for a manager that has lost its log to be taken in by the others before it starts nodes without their users.
const KNOWN_MAX: Duration = Duration::from_secs(3);
/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_millis(50);

impl Ranges {
    /// The users of all stores, from now on.
    pub(crate) fn users(&self) -> watch::Receiver<UsersOf> {
        self.lock().users.subscribe()
    }

    /// The users of a store, as far as this manager knows.
    pub(crate) fn users_of(&self, store: &StoreId) -> Users {
        self.lock().catalog().users().get(store).cloned().unwrap_or_default()
    }

    /// Waits until this manager has a log of its own or of a group, but not for ever.
    pub(crate) async fn until_users_known(&self) {
        let known = || matches!(&self.lock().part, Part::Member(log) if log.applied() > 0);
        let wait = async {
            while !known() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(KNOWN_MAX, wait).await.is_err() {
            tracing::warn!(
                "a node starts without users: this manager is not in the group of the others yet, which may know some; it is \
                 told them as soon as they are known"
            );
        }
    }

    /// Has changes of a store's users decided.
    pub(crate) async fn change_users(&self, store: &StoreId, changes: UserChanges) -> UsersAnswer {
        if let Err(why) = changes.check() {
            return UsersAnswer::Refused { why };
        }
        let command = Command::ChangeUsers { store: store.clone(), changes };
        match self.request(Proposal::Command(command)).await {
            Ok(Outcome::Refused(RangesRefusal::Users(why))) => UsersAnswer::Refused { why },
            Ok(Outcome::Refused(_)) => UsersAnswer::Refused { why: UsersRefusal::NoSuchStore },
            Ok(Outcome::Done | Outcome::Nothing) => {
                UsersAnswer::Done { version: self.users_of(store).version }
            }
            Err(Undecided::Busy) => UsersAnswer::Refused { why: UsersRefusal::Busy },
            Err(Undecided::Late) => UsersAnswer::Undecided,
        }
    }
}

impl State {
    /// Has those who tell the nodes see the users that the catalogue has now.
    pub(super) fn show_users(&self) {
        let Part::Member(log) = &self.part else { return };
        let before = self.users.borrow().clone();
        // A log that was just joined holds nothing yet, which says nothing about users.
        if log.applied() == 0 || before.is_none() && log.leader().is_none() {
            return;
        }
        let one = |(store, users): (&StoreId, &Users)| {
            let same = before.as_ref().and_then(|before| before.get(store));
            let same = same.filter(|before| ***before == *users).cloned();
            (store.clone(), same.unwrap_or_else(|| Arc::new(users.clone())))
        };
        let now: BTreeMap<StoreId, Arc<Users>> = log.catalog().users().iter().map(one).collect();
        self.users.send_if_modified(|shown| {
            let differs = shown.as_deref() != Some(&now);
            if differs {
                *shown = Some(Arc::new(now));
            }
            differs
        });
    }
}

impl Agent {
    /// The users of a store.
    pub(crate) fn users(&self, store: &str) -> Result<Users, Refusal> {
        let id = self.lock().store(store)?.record.id.clone();
        Ok(self.ranges().users_of(&id))
    }

    /// Changes them, and gives those there are then.
    pub(crate) async fn change_users(
        &self,
        store: &str,
        changes: UserChanges,
    ) -> Result<Users, Refusal> {
        let id = {
            let inner = self.lock();
            let entry = inner.store(store)?;
            if entry.deleting {
                return Err(in_words(store, UsersRefusal::NoSuchStore));
            }
            entry.record.id.clone()
        };
        match self.ranges().change_users(&id, changes).await {
            UsersAnswer::Done { .. } => Ok(self.ranges().users_of(&id)),
            UsersAnswer::Refused { why: UsersRefusal::Busy } => Err(undecided(Undecided::Busy)),
            UsersAnswer::Refused { why } => Err(in_words(store, why)),
            UsersAnswer::Undecided => Err(undecided(Undecided::Late)),
        }
    }
}

/// Why the users of a store stay as they are.
fn in_words(store: &str, why: UsersRefusal) -> Refusal {
    let message = why.to_string();
    let list = format!("dkv store user list {store}");
    match why {
        UsersRefusal::Changed { .. } => Refusal::conflict(
            "users_changed",
            message,
            format!("look at them and try again: {list}"),
        ),
        UsersRefusal::BadLine => Refusal::bad("bad_user", message, list),
        UsersRefusal::TooMany | UsersRefusal::TooLong => Refusal::conflict(
            "too_many_users",
            message,
            format!("remove some first: dkv store user remove {store} USER"),
        ),
        UsersRefusal::NoSuchStore | UsersRefusal::Busy => {
            Refusal::conflict("store_changing", message, "dkv store list")
        }
    }
}
