//! The catalogue: all stores with copies, the users of all stores, and the one function by which anything changes.

use crate::command::{ASKS_MAX, Command, Outcome, Refusal};
use crate::store::Store;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use dkv_protocol::ids::{Epoch, RangeId, StoreId};
use dkv_protocol::ranges::RangeNews;
use dkv_protocol::users::{UserChanges, Users};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    stores: BTreeMap<StoreId, Store>,
    /// Of stores whose users were changed ever; the others have none. Left out while there are none, which managers of an
    /// earlier version know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    users: BTreeMap<StoreId, Users>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Of the command as a whole.
    pub outcome: Outcome,
    /// Of each ask, when it was asks.
    pub asks: Vec<Outcome>,
    /// The ranges whose configuration or placement is different now, in order.
    pub changed: Vec<RangeId>,
}

impl Catalog {
    /// Applies the next command of the log.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let mut asks = Vec::new();
        let before = self.stores.get(command.store()).map(marks);
        let outcome = self.perform(command, &mut asks);
        let changed = match (before, self.stores.get(command.store())) {
            (_, None) => Vec::new(),
            (None, Some(store)) => store.each_range().map(|(range, _)| range).collect(),
            (Some(before), Some(store)) => {
                let now = marks(store).into_iter();
                let differs = |(i, (now, before)): (usize, (Mark, Mark))| {
                    (now != before).then_some(RangeId(i as u8))
                };
                now.zip(before).enumerate().filter_map(differs).collect()
            }
        };
        Applied { outcome, asks, changed }
    }

    fn perform(&mut self, command: &Command, asks_done: &mut Vec<Outcome>) -> Outcome {
        if let Command::DefineStore { store, replication, nodes } = command {
            if let Some(there) = self.stores.get(store) {
                let same = there.is_defined_as(*replication, nodes);
                return if same {
                    Outcome::Nothing
                } else {
                    Outcome::Refused(Refusal::DefinedOtherwise)
                };
            }
            return match Store::new(*replication, nodes) {
                Ok(new) => {
                    self.stores.insert(store.clone(), new);
                    Outcome::Done
                }
                Err(refusal) => Outcome::Refused(refusal),
            };
        }
        if let Command::ForgetStore { store } = command {
            let was = [self.stores.remove(store).is_some(), self.users.remove(store).is_some()];
            return if was.contains(&true) { Outcome::Done } else { Outcome::Nothing };
        }
        if let Command::ChangeUsers { store, changes } = command {
            return self.change_users(store, changes);
        }
        let Some(store) = self.stores.get_mut(command.store()) else {
            return Outcome::Refused(Refusal::NoSuchStore);
        };
        match command {
            Command::DefineStore { .. }
            | Command::ForgetStore { .. }
            | Command::ChangeUsers { .. } => Outcome::Nothing,
            Command::StartStore { life, .. } => store.start(*life),
            Command::NodeUp { node, boot, first_index, .. } => {
                store.node_up(*node, *boot, *first_index)
            }
            Command::Form { first_index, only_up, .. } => store.form(*first_index, *only_up),
            Command::Asks { asks, .. } if asks.len() > ASKS_MAX => {
                Outcome::Refused(Refusal::TooManyAsks)
            }
            Command::Asks { asks, .. } => {
                asks_done.extend(asks.iter().map(|ask| store.ask(ask)));
                let done = asks_done.contains(&Outcome::Done);
                if done { Outcome::Done } else { Outcome::Nothing }
            }
            Command::Dead { dead, .. } => store.dead(*dead),
            Command::End { end, .. } => store.end(*end),
            Command::Spare { end, .. } => store.spare(*end),
            Command::Place { wish, .. } => store.place(wish),
            Command::ReformOffline { first_index, accept_loss, .. } => {
                store.reform_offline(*first_index, *accept_loss)
            }
        }
    }

    fn change_users(&mut self, store: &StoreId, changes: &UserChanges) -> Outcome {
        let mut users = self.users.get(store).cloned().unwrap_or_default();
        match users.change(changes) {
            Ok(true) => {
                self.users.insert(store.clone(), users);
                Outcome::Done
            }
            Ok(false) => Outcome::Nothing,
            Err(why) => Outcome::Refused(Refusal::Users(why)),
        }
    }

    /// The users of each store whose users were ever changed.
    pub fn users(&self) -> &BTreeMap<StoreId, Users> {
        &self.users
    }

    /// How many stores there is something about: what would be lost with this catalogue.
    pub fn stores_known(&self) -> usize {
        let without_ranges = self.users.keys().filter(|store| !self.stores.contains_key(*store));
        self.stores.len() + without_ranges.count()
    }

    /// One store.
    pub fn store(&self, store: &StoreId) -> Option<&Store> {
        self.stores.get(store)
    }

    /// All stores, in the order of their identities.
    pub fn stores(&self) -> impl Iterator<Item = (&StoreId, &Store)> {
        self.stores.iter()
    }

    /// The news of one range for the nodes of its store.
    pub fn news(&self, store: &StoreId, range: RangeId) -> Option<RangeNews> {
        Some(self.stores.get(store)?.range(range).news(range))
    }
}

/// What tells two states of a range apart: its epoch, whether it is formed, and the version of its placement.
type Mark = (Epoch, bool, u64);

fn marks(store: &Store) -> Vec<Mark> {
    let mark = |(_, range): (RangeId, &crate::range::Range)| {
        (range.epoch, range.config.is_some(), range.placement_version)
    };
    store.each_range().map(mark).collect()
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "users_tests.rs"]
mod users_tests;
