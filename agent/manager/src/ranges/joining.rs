//! How a manager finds its group: founded alone, taken in by others, taken in anew when its disk or its group is lost.
//!
//! What to do is a pure function of what the managers say of themselves. Nothing that keeps stores with copies is ever given
//! up by itself, except a group that an operator declared dead.

use super::keeper::random_number;
use super::{NewLog, Undecided};
use crate::catalogue::Agent;
use crate::checks::has_nodes;
use crate::client::AdminClient;
use crate::plan::names;
use crate::refusal::Refusal;
use dkv_catalog::{GroupChange, Machine, Member, MemberId, Outcome, Proposal};
use dkv_protocol::admin::{GroupView, ManagersView, StoreRecord, TakeInRequest};
use dkv_protocol::ids::StoreId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often a manager looks whether it is where it belongs.
const LOOK: Duration = Duration::from_millis(500);
/// Most time for one of the others to say what it is.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Most time to be taken in.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// What a manager does about its group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It is where it belongs, or there is nobody yet to whom it could belong.
    Stay,
    /// It asks this one to be taken in.
    Join(String),
    /// It founds a group of its own.
    Found,
    /// It was removed while it was away: it founds one, and forgets the others.
    Leave,
}

/// `own` is this manager's group, `listed` the machines it shall be together with, in order and with itself, and `others`
/// what those of them say that answer. Its group took it in at `taken_in_at` of the group's log.
fn next_step(
    me: &str,
    own: &GroupView,
    taken_in_at: u64,
    listed: &[String],
    others: &[(String, GroupView)],
) -> Step {
    let in_group = |(_, other): &&(String, GroupView)| other.number.is_some();
    let dead = |(_, other): &&(String, GroupView)| {
        own.number.is_some_and(|number| other.superseded.contains(&number))
    };
    if let Some((machine, _)) = others.iter().filter(in_group).find(dead) {
        return Step::Join(machine.clone());
    }
    // While the votes are not where they belong, the one that was removed may have to decide that it goes.
    let without_us = |(_, other): &&(String, GroupView)| {
        let same = own.number.is_some() && other.number == own.number;
        same && other.settled
            && other.applied >= own.applied.max(taken_in_at)
            && other.members.iter().all(|m| m.machine != me)
    };
    if own.leader.is_none() && others.iter().find(without_us).is_some() {
        return Step::Leave;
    }
    let of_ours = |(_, other): &&(String, GroupView)| {
        other.number.is_some_and(|n| own.superseded.contains(&n)) || other.number == own.number
    };
    let mut foreign: Vec<&(String, GroupView)> =
        others.iter().filter(in_group).filter(|other| !of_ours(other)).collect();
    let place = |machine: &str| listed.iter().position(|l| l == machine).unwrap_or(usize::MAX);
    // Established groups first, then those that keep stores, then as listed.
    foreign.sort_by_key(|(machine, group)| {
        (group.members.len() < 2, group.stores == 0, place(machine))
    });
    let best = foreign.first();
    let Some(_) = own.number else {
        let all_outside = others.len() + 1 >= listed.len() && best.is_none();
        return match best {
            Some((machine, _)) => Step::Join(machine.clone()),
            None if all_outside && listed.first().is_none_or(|first| first == me) => Step::Found,
            None => Step::Stay,
        };
    };
    match best {
        // It has something to lose, or company.
        _ if own.members.len() > 1 || own.stores > 0 => Step::Stay,
        Some((machine, group))
            if group.members.len() > 1 || group.stores > 0 || place(machine) < place(me) =>
        {
            Step::Join(machine.clone())
        }
        _ => Step::Stay,
    }
}

/// Looks now and then whether this manager is where it belongs, for as long as it lives.
pub(crate) async fn seek(agent: Arc<Agent>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut complained = String::new();
    let mut looked_back = false;
    loop {
        look.tick().await;
        let own = agent.ranges().group();
        agent.note_members(&own);
        let listed = agent.listed();
        if listed.len() > 1 {
            agent.ranges().set_left(false);
        }
        let strangers: Vec<String> = agent.ranges().strangers();
        let alone = own.members.len() < 2;
        let settled = own.number.is_some() && own.leader.is_some() && (!alone || listed.len() < 2);
        if strangers.is_empty() && settled {
            if !looked_back && alone {
                agent.finish_leaving();
            }
            looked_back = true;
            continue;
        }
        let mut ask: Vec<String> = listed.iter().chain(&strangers).cloned().collect();
        ask.sort_unstable();
        ask.dedup();
        ask.retain(|machine| machine != agent.machine());
        let others = ask_all(&agent, ask).await;
        let taken_in_at = agent.ranges().taken_in_at();
        let done = match next_step(agent.machine(), &own, taken_in_at, &listed, &others) {
            Step::Stay => {
                agent.ranges().forget_strangers();
                Ok(())
            }
            Step::Found => agent.ranges().replace(NewLog::Alone).await,
            Step::Leave => {
                let own = agent.machine().to_string();
                agent.remove_manager(&own).await.map_err(|refusal| refusal.message)
            }
            Step::Join(machine) => join(&agent, &machine).await,
        };
        if let Err(reason) = done
            && reason != complained
        {
            tracing::warn!(reason, "not in the group of the other managers yet");
            complained = reason;
        }
    }
}

/// What the managers that answer say of themselves.
async fn ask_all(agent: &Agent, machines: Vec<String>) -> Vec<(String, GroupView)> {
    let mut asked = Vec::new();
    for machine in machines {
        let Some(client) = agent.client_of(&machine, ASK_MAX) else { continue };
        asked.push(tokio::task::spawn_blocking(move || (machine, client.managers())));
    }
    let mut others = Vec::new();
    for answer in asked {
        if let Ok((machine, Ok(ManagersView { group, .. }))) = answer.await {
            others.push((machine, group));
        }
    }
    others
}

async fn join(agent: &Agent, machine: &str) -> Result<(), String> {
    let client = agent.client_of(machine, JOIN_MAX).ok_or("not an address")?;
    let me = MemberId(random_number());
    let request = TakeInRequest { machine: agent.machine().to_string(), id: me.0 };
    let answer = tokio::task::spawn_blocking(move || client.take_in(&request));
    let answer = answer.await.map_err(|error| error.to_string())?;
    let group: GroupView = answer.map_err(|error| format!("{machine}: {error}"))?;
    let number = group.number.ok_or_else(|| format!("{machine} is in no group itself"))?;
    let introduced = group.members.iter().map(|m| (MemberId(m.id), m.machine.clone())).collect();
    let taken_in_at = group.applied;
    let joined = NewLog::Joined { group: number, me, introduced, taken_in_at };
    agent.ranges().replace(joined).await?;
    agent.note_members(&group);
    tracing::info!(
        through = machine,
        group = number,
        "taken in by the group of the other managers"
    );
    Ok(())
}

impl Agent {
    /// Another manager asks to be taken in. The answer names the members to it.
    pub(crate) async fn take_in(&self, request: &TakeInRequest) -> Result<GroupView, Refusal> {
        let machine = &request.machine;
        let both = [self.machine().to_string(), machine.clone()];
        names::check_machines(&both, self.options().loopback_group)?;
        let member = Member { id: MemberId(request.id), machine: Machine(machine.clone()) };
        self.decide_group(GroupChange::Join { member }).await?;
        let group = self.ranges().group();
        self.note_members(&group);
        Ok(group)
    }

    /// A machine leaves the group for good. The machine itself begins a group of its own by it.
    pub(crate) async fn remove_manager(&self, machine: &str) -> Result<(), Refusal> {
        let holds = {
            let inner = self.lock();
            let mut records = inner.ledger.stores.values().map(|entry| &entry.record);
            records.find_map(|record| has_nodes(record, machine))
        };
        if let Some(refusal) = holds {
            return Err(refusal);
        }
        if machine == self.machine() {
            self.keep_members(|member| member == machine)?;
            self.ranges().set_left(true);
            let replaced = self.ranges().replace(NewLog::Alone).await;
            replaced
                .map_err(|why| Refusal::of(507, "not_written", why, "make room on the disk"))?;
            return self.forget_stores_of_others();
        }
        self.decide_group(GroupChange::Leave { machine: Machine(machine.to_string()) }).await?;
        self.keep_members(|member| member != machine)
    }

    /// A manager that died while it left its group is alone already, and may still know the stores of the others. Looked at
    /// once after the start, before anybody has told it of a store.
    fn finish_leaving(&self) {
        if let Err(refusal) = self.forget_stores_of_others() {
            tracing::error!(
                reason = refusal.message,
                "cannot forget the stores of the former group"
            );
        }
    }

    /// Stores that have no node here are no concern of a manager that is on its own now. Only then: to its former group the
    /// same would mean that they were deleted.
    fn forget_stores_of_others(&self) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let own =
            |record: &StoreRecord| record.nodes.iter().any(|node| node.machine == self.machine());
        let others: Vec<StoreId> = {
            let records = inner.ledger.stores.values().map(|entry| &entry.record);
            records.filter(|record| !own(record)).map(|record| record.id.clone()).collect()
        };
        if others.is_empty() {
            return Ok(());
        }
        self.change(&mut inner, |ledger| {
            ledger.stores.retain(|_, entry| own(&entry.record));
            Ok(())
        })?;
        drop(inner);
        for store in &others {
            self.ranges().forget(store);
        }
        Ok(())
    }

    /// Has a machine come first: of two, its manager decides alone. Nothing moves before its log is as long as that of the
    /// one that decided until then, and the vote goes there by way of both having one.
    pub(crate) async fn prefer_manager(&self, machine: &str) -> Result<(), Refusal> {
        let members = self.ranges().group().members;
        if members.iter().all(|member| member.machine != machine) {
            let all: Vec<String> = members.into_iter().map(|member| member.machine).collect();
            return Err(Refusal::absent(
                "no_such_manager",
                format!("{machine} is not a manager of the group; it has {}", all.join(", ")),
                "dkv manager list",
            ));
        }
        if machine != self.machine() {
            let client = self.client_of(machine, ASK_MAX);
            let asked = tokio::task::spawn_blocking(move || client.map(|client| client.health()));
            if !matches!(asked.await, Ok(Some(Ok(_)))) {
                return Err(Refusal::conflict(
                    "manager_away",
                    format!("{machine} does not answer, so it cannot be the one that decides"),
                    "start its manager first, and look with: dkv manager status",
                ));
            }
        }
        self.decide_group(GroupChange::Prefer { machine: Machine(machine.to_string()) }).await
    }

    fn keep_members(&self, keep: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let mut inner = self.lock();
        self.change(&mut inner, |ledger| {
            ledger.members.retain(|member| keep(member));
            Ok(())
        })
    }

    /// Has a change of the group decided.
    async fn decide_group(&self, change: GroupChange) -> Result<(), Refusal> {
        match self.ranges().request(Proposal::Group(change)).await {
            Ok(Outcome::Refused(refusal)) => Err(Refusal::conflict(
                "group_refused",
                format!("the managers refused it: {refusal}"),
                "dkv manager status",
            )),
            Ok(_) => Ok(()),
            Err(why) => Err(undecided(why)),
        }
    }

    /// The managers of the group belong to the machines of this one's list.
    fn note_members(&self, group: &GroupView) {
        let mut inner = self.lock();
        let new: Vec<String> = group
            .members
            .iter()
            .map(|member| member.machine.clone())
            .filter(|machine| !inner.ledger.members.contains(machine))
            .collect();
        if new.is_empty() {
            return;
        }
        let noted = self.change(&mut inner, |ledger| {
            ledger.members.extend(new);
            Ok(())
        });
        if let Err(refusal) = noted {
            tracing::error!(reason = refusal.message, "cannot note the members of the group");
        }
    }

    fn listed(&self) -> Vec<String> {
        self.lock().ledger.members.clone()
    }

    /// A client of another manager.
    pub(crate) fn client_of(&self, machine: &str, most: Duration) -> Option<AdminClient> {
        let address: SocketAddr = machine.parse().ok()?;
        Some(AdminClient::new(address, self.token().clone(), most))
    }
}

/// Why there was no decision.
pub(super) fn undecided(why: Undecided) -> Refusal {
    match why {
        Undecided::Busy => Refusal::of(
            429,
            "ranges_busy",
            "many requests wait for a decision of the managers already",
            "try again in a moment",
        ),
        Undecided::Late => Refusal::of(
            504,
            "not_decided",
            "the managers did not decide in time: too few of those that vote reach each other, or a disk is full; it may \
             still be done",
            "see who is there with: dkv manager status",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::admin::GroupMember;

    fn group(number: u64, members: &[&str], stores: u32, superseded: &[u64]) -> GroupView {
        let member =
            |machine: &&str| GroupMember { machine: machine.to_string(), id: 1, votes: true };
        GroupView {
            number: (number > 0).then_some(number),
            members: members.iter().map(member).collect(),
            stores,
            settled: true,
            superseded: superseded.to_vec(),
            ..GroupView::default()
        }
    }

    #[test]
    fn a_manager_goes_where_the_others_are_and_gives_up_nothing_of_worth() {
        let alone = |number, machine: &str, stores| group(number, &[machine], stores, &[]);
        let join = |machine: &str| Step::Join(machine.to_string());
        let abc = ["a", "b", "c"];
        for (own, listed, others, step) in [
            // Alone with nobody listed, and the first of several.
            (alone(1, "b", 0), &["b"][..], vec![], Step::Stay),
            (alone(1, "b", 0), &["b", "c"], vec![("c", alone(2, "c", 0))], Step::Stay),
            // The first of the list, who has stores, or who is not alone comes first, in the other order.
            (
                alone(1, "b", 0),
                &abc,
                vec![("a", alone(2, "a", 0)), ("c", alone(3, "c", 0))],
                join("a"),
            ),
            (
                alone(1, "b", 0),
                &abc,
                vec![("a", alone(2, "a", 0)), ("c", alone(3, "c", 1))],
                join("c"),
            ),
            (
                alone(1, "b", 0),
                &abc,
                vec![("a", alone(2, "a", 1)), ("c", group(3, &["c", "d"], 0, &[]))],
                join("c"),
            ),
            // What keeps stores, or has company, stays.
            (alone(1, "b", 1), &abc, vec![("a", alone(2, "a", 0))], Step::Stay),
            (group(1, &["b", "c"], 0, &[]), &abc, vec![("a", alone(2, "a", 0))], Step::Stay),
            // Unless it was declared dead.
            (
                group(1, &["a", "b"], 4, &[]),
                &["a", "b"],
                vec![("a", group(2, &["a"], 4, &[1]))],
                join("a"),
            ),
            // Who declared the others dead does not follow them.
            (
                group(2, &["b"], 0, &[1]),
                &["a", "b"],
                vec![("a", group(1, &["a", "b"], 0, &[]))],
                Step::Stay,
            ),
            // Removed while it was away.
            (
                group(1, &["a", "b"], 2, &[]),
                &["a", "b"],
                vec![("a", group(1, &["a"], 2, &[]))],
                Step::Leave,
            ),
            // The same, but its vote is needed for that still.
            (
                group(1, &["a", "b"], 2, &[]),
                &["a", "b"],
                vec![("a", GroupView { settled: false, ..group(1, &["a"], 2, &[]) })],
                Step::Stay,
            ),
            // A lost disk: taken in by anybody, and founding only when nobody knows anything.
            (
                group(0, &[], 0, &[]),
                &abc,
                vec![("c", group(3, &["a", "b", "c"], 1, &[]))],
                join("c"),
            ),
            (group(0, &[], 0, &[]), &["b", "c"], vec![], Step::Stay),
            (group(0, &[], 0, &[]), &["b", "c"], vec![("c", group(0, &[], 0, &[]))], Step::Found),
            (group(0, &[], 0, &[]), &["c", "b"], vec![("c", group(0, &[], 0, &[]))], Step::Stay),
        ] {
            let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
            let others: Vec<_> =
                others.into_iter().map(|(machine, group)| (machine.to_string(), group)).collect();
            assert_eq!(
                next_step("b", &own, 0, &listed, &others),
                step,
                "{own:?} {listed:?} {others:?}"
            );
        }
    }

    #[test]
    fn who_has_not_heard_yet_that_a_manager_was_taken_in_has_not_removed_it() {
        // Its own log is empty still, and knows nobody.
        let own = group(1, &[], 0, &[]);
        let listed = ["a".to_string(), "b".to_string(), "c".to_string()];
        let step = |applied| {
            let late = GroupView { applied, ..group(1, &["a", "c"], 0, &[]) };
            next_step("b", &own, 7, &listed, &[("c".to_string(), late)])
        };
        assert_eq!(step(6), Step::Stay);
        assert_eq!(step(7), Step::Leave);
    }
}
