//! The managers of a group: who they are, which of them vote, and the next change that brings the voters there.
//!
//! A manager is a member under a number of its own; one that lost its disk joins under another, because its votes and
//! acknowledgements are forgotten. Who votes is a pure function of the members, so that nobody has to decide it.

use crate::command::{Machine, Outcome, Refusal};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The number of a member, random, never 0, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u64);

/// A manager of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// Its machine, with or without nodes.
    pub machine: Machine,
}

/// Most managers of a group.
pub const MEMBERS_MAX: usize = 64;

/// A change of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "group")]
pub enum GroupChange {
    /// A manager joins; an earlier member of its machine is thereby gone, and its place taken.
    Join {
        /// The member.
        member: Member,
    },
    /// A manager leaves.
    Leave {
        /// Of which machine.
        machine: Machine,
    },
    /// A machine comes first: of two, its manager decides alone.
    Prefer {
        /// Which.
        machine: Machine,
    },
}

/// All managers, the preferred one first, then as they joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group {
    members: Vec<Member>,
}

impl Group {
    /// A group of one.
    pub fn of(member: Member) -> Self {
        Self { members: alloc::vec![member] }
    }

    /// The members in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Who should vote: one of one or two, three of three or four, five of more; the first in order.
    pub fn voters(&self) -> BTreeSet<MemberId> {
        let voters = match self.members.len() {
            0..=2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        self.members.iter().take(voters).map(|member| member.id).collect()
    }

    pub(crate) fn apply(&mut self, change: &GroupChange) -> Outcome {
        let place = |machine: &Machine| self.members.iter().position(|m| m.machine == *machine);
        match change {
            GroupChange::Join { member } => {
                let there = place(&member.machine);
                if there.is_some_and(|at| self.members[at] == *member) {
                    return Outcome::Nothing;
                }
                if member.id.0 == 0 || self.member(member.id).is_some() {
                    return Outcome::Refused(Refusal::DefinedOtherwise);
                }
                match there {
                    Some(at) => self.members[at] = member.clone(),
                    None if self.members.len() == MEMBERS_MAX => {
                        return Outcome::Refused(Refusal::TooManyMembers);
                    }
                    None => self.members.push(member.clone()),
                }
            }
            GroupChange::Leave { machine } => match place(machine) {
                None => return Outcome::Nothing,
                Some(_) if self.members.len() == 1 => return Outcome::Refused(Refusal::LastMember),
                Some(at) => {
                    self.members.remove(at);
                }
            },
            GroupChange::Prefer { machine } => match place(machine) {
                None => return Outcome::Refused(Refusal::NoSuchMember),
                Some(0) => return Outcome::Nothing,
                Some(at) => {
                    let member = self.members.remove(at);
                    self.members.insert(0, member);
                }
            },
        }
        Outcome::Done
    }

    /// What the leader does next to make the voters those of [`Group::voters`]. A member learns before it votes, a vote
    /// goes only when those that replace it have caught up, and a leader that is to lose its vote hands over first.
    pub(crate) fn next_step(
        &self,
        voting: &BTreeSet<MemberId>,
        learning: &BTreeSet<MemberId>,
        me: MemberId,
        caught_up: impl Fn(MemberId) -> bool,
    ) -> Option<Step> {
        let wanted = self.voters();
        let mut moves = Vec::new();
        for id in self.members.iter().map(|member| member.id) {
            if !voting.contains(&id) && !learning.contains(&id) {
                moves.push((id, Part::Learns));
            }
        }
        for id in learning.iter().filter(|id| self.member(**id).is_none()) {
            moves.push((*id, Part::Nothing));
        }
        if !moves.is_empty() {
            return Some(Step::Change(moves));
        }
        if !wanted.iter().all(|id| voting.contains(id) || caught_up(*id)) {
            return None;
        }
        moves.extend(wanted.difference(voting).map(|id| (*id, Part::Votes)));
        for id in voting.difference(&wanted).filter(|id| **id != me) {
            let part = if self.member(*id).is_some() { Part::Learns } else { Part::Nothing };
            moves.push((*id, part));
        }
        if !moves.is_empty() {
            return Some(Step::Change(moves));
        }
        if wanted.contains(&me) {
            return None;
        }
        let heir =
            self.members.iter().map(|m| m.id).find(|id| wanted.contains(id) && caught_up(*id));
        heir.map(Step::HandOver)
    }
}

/// What part a member takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Votes,
    Learns,
    Nothing,
}

/// What a leader does next for its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Change(Vec<(MemberId, Part)>),
    HandOver(MemberId),
}

#[cfg(test)]
mod tests {
    use super::Part::{Learns, Nothing, Votes};
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: MemberId(id), machine: Machine(format!("10.0.0.{id}")) }
    }

    fn group(ids: &[u64]) -> Group {
        Group { members: ids.iter().map(|id| member(*id)).collect() }
    }

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().map(|id| MemberId(*id)).collect()
    }

    #[test]
    fn one_of_two_three_of_four_and_five_vote() {
        for (members, voters) in [
            (&[][..], &[][..]),
            (&[7], &[7]),
            (&[7, 3], &[7]),
            (&[7, 3, 5], &[3, 5, 7]),
            (&[7, 3, 5, 9], &[3, 5, 7]),
            (&[7, 3, 5, 9, 1], &[1, 3, 5, 7, 9]),
            (&[7, 3, 5, 9, 1, 2, 4], &[1, 3, 5, 7, 9]),
        ] {
            assert_eq!(group(members).voters(), ids(voters), "{members:?}");
        }
    }

    #[test]
    fn managers_join_leave_and_are_preferred() {
        let mut group = Group::of(member(1));
        let join = |id: u64, machine: u64| GroupChange::Join {
            member: Member { id: MemberId(id), machine: member(machine).machine },
        };
        let leave = |id| GroupChange::Leave { machine: member(id).machine };
        let prefer = |id| GroupChange::Prefer { machine: member(id).machine };
        for (change, outcome, order) in [
            (leave(1), Outcome::Refused(Refusal::LastMember), &[1][..]),
            (join(2, 2), Outcome::Done, &[1, 2]),
            (join(2, 2), Outcome::Nothing, &[1, 2]),
            (join(2, 3), Outcome::Refused(Refusal::DefinedOtherwise), &[1, 2]),
            (join(0, 3), Outcome::Refused(Refusal::DefinedOtherwise), &[1, 2]),
            (join(3, 3), Outcome::Done, &[1, 2, 3]),
            (join(12, 2), Outcome::Done, &[1, 12, 3]),
            (prefer(3), Outcome::Done, &[3, 1, 12]),
            (prefer(3), Outcome::Nothing, &[3, 1, 12]),
            (prefer(9), Outcome::Refused(Refusal::NoSuchMember), &[3, 1, 12]),
            (leave(1), Outcome::Done, &[3, 12]),
            (leave(1), Outcome::Nothing, &[3, 12]),
        ] {
            assert_eq!(group.apply(&change), outcome, "{change:?}");
            let now: Vec<u64> = group.members().iter().map(|member| member.id.0).collect();
            assert_eq!(now, order, "{change:?}");
        }
    }

    #[test]
    fn votes_change_one_safe_step_at_a_time() {
        let change = |moves: &[(u64, Part)]| {
            Some(Step::Change(moves.iter().map(|(id, part)| (MemberId(*id), *part)).collect()))
        };
        // (members, voting, learning, caught up) as the leader, who is 1, sees it.
        for (members, voting, learning, caught_up, step) in [
            (&[1][..], &[1][..], &[][..], &[1][..], None),
            (&[1, 2], &[1], &[], &[1], change(&[(2, Learns)])),
            (&[1, 2], &[1], &[2], &[1, 2], None),
            (&[1, 2, 3], &[1], &[2], &[1, 2], change(&[(3, Learns)])),
            (&[1, 2, 3], &[1], &[2, 3], &[1, 2], None),
            (&[1, 2, 3], &[1], &[2, 3], &[1, 2, 3], change(&[(2, Votes), (3, Votes)])),
            // One of three comes back under another number.
            (&[1, 2, 13], &[1, 2, 3], &[], &[1, 2], change(&[(13, Learns)])),
            (&[1, 2, 13], &[1, 2, 3], &[13], &[1, 2], None),
            (&[1, 2, 13], &[1, 2, 3], &[13], &[1, 2, 13], change(&[(13, Votes), (3, Nothing)])),
            // One of three leaves, and only the preferred votes.
            (&[1, 2], &[1, 2, 3], &[], &[1, 2], change(&[(2, Learns), (3, Nothing)])),
            (&[1, 2], &[1], &[2, 3], &[1, 2], change(&[(3, Nothing)])),
            // The leader is to go: the other votes first, then leads, and then takes the vote away.
            (&[2], &[1], &[2], &[1], None),
            (&[2], &[1], &[2], &[1, 2], change(&[(2, Votes)])),
            (&[2], &[1, 2], &[], &[1, 2], Some(Step::HandOver(MemberId(2)))),
            (&[2], &[1, 2], &[], &[1], None),
        ] {
            let caught_up = ids(caught_up);
            let found = group(members)
                .next_step(&ids(voting), &ids(learning), MemberId(1), |id| caught_up.contains(&id));
            assert_eq!(found, step, "{members:?} {voting:?} {learning:?}");
        }
    }
}
