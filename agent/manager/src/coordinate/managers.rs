//! The managers themselves: who they are, who of them decides, and what happens when one of their machines fails.

use super::{ActionRow, Group, Report, connect, list};
use crate::checks::has_nodes;
use crate::client::{AdminClient, AdminError};
use crate::refusal::Refusal;
use dkv_protocol::admin::{GroupView, ManagersView, StoreView};
use std::time::{Duration, Instant};

/// The pause between two looks at managers that find together.
const LOOK: Duration = Duration::from_millis(200);

/// One manager, as itself says or as the others know it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its machine.
    pub machine: String,
    /// What it said, or why nothing.
    pub view: Result<ManagersView, AdminError>,
}

/// All managers of the group, in order.
pub fn standing(group: &Group) -> Vec<Standing> {
    let answers = group.each(AdminClient::managers);
    let all = group.managers().into_iter().zip(answers);
    all.map(|(machine, view)| Standing { machine, view }).collect()
}

/// What those that decide together are, as the one knows it who knows most.
pub(crate) fn group_of(all: &[Standing]) -> Option<&GroupView> {
    let views = all.iter().filter_map(|one| one.view.as_ref().ok());
    views.map(|view| &view.group).max_by_key(|group| (group.leader.is_some(), group.applied))
}

/// Why managers cannot become one group: two of them keep stores with copies, apart from each other.
pub(super) fn two_groups<'a>(views: impl Iterator<Item = &'a ManagersView>) -> Option<String> {
    let keeping: Vec<&ManagersView> = views.filter(|view| view.group.stores > 0).collect();
    let first = keeping.first()?;
    let of_one = |one: &GroupView, other: &GroupView| {
        let dead = |group: &GroupView, by: &GroupView| {
            group.number.is_some_and(|number| by.superseded.contains(&number))
        };
        one.number == other.number || dead(one, other) || dead(other, one)
    };
    let other = keeping.iter().find(|view| !of_one(&view.group, &first.group))?;
    Some(format!(
        "{} and {} keep stores with copies, each in a group of its own; they cannot become one",
        first.this, other.this
    ))
}

/// What happens when each machine fails, in words; one for each member of the group. It depends on who decides, and on what
/// the stores have there and elsewhere.
pub fn fates(all: &[Standing], stores: &[StoreView]) -> Vec<(String, String)> {
    let Some(group) = group_of(all) else { return Vec::new() };
    let reached = |machine: &str| all.iter().any(|one| one.machine == machine && one.view.is_ok());
    let witness = |machine: &str| {
        let view = all.iter().find(|one| one.machine == machine);
        view.is_some_and(|one| one.view.as_ref().is_ok_and(|view| view.witness))
    };
    let voters: Vec<&str> =
        group.members.iter().filter(|m| m.votes).map(|m| m.machine.as_str()).collect();
    let others: Vec<&str> = group.members.iter().map(|m| m.machine.as_str()).collect();
    let fate = |machine: &str| {
        let left = voters.iter().filter(|voter| **voter != machine && reached(voter)).count();
        let decides = left * 2 > voters.len();
        let survivor = others.iter().find(|o| **o != machine && !witness(o)).copied();
        let Some(survivor) = survivor else {
            return "its stores are down until it is back".to_string();
        };
        let mut said: Vec<String> = Vec::new();
        match losses(machine, stores) {
            Loss::Nothing => {
                said.push("nothing changes for clients".to_string());
                if !decides {
                    said.push(
                        "the others cannot decide until it is back: no further failure is covered, and nothing can be changed"
                            .to_string(),
                    );
                } else if voters.contains(&machine) {
                    said.push("no further failure is covered until it is back".to_string());
                }
            }
            Loss::Of { copied, only_there } => {
                if copied && decides {
                    said.push(
                        "the others take over by themselves within about 2 s what it leads and they have copies of"
                            .to_string(),
                    );
                } else if copied {
                    said.push(format!(
                        "the others cannot decide without it: what it leads stops until it is back, or until {survivor} is \
                         promoted by hand (dkv store failover NAME --force --gone {machine} -m {survivor})"
                    ));
                }
                said.extend(only_there);
            }
        }
        said.join("; ")
    };
    others.iter().map(|machine| ((*machine).to_string(), fate(machine))).collect()
}

/// What the stores have on one machine.
enum Loss {
    /// No nodes.
    Nothing,
    /// Nodes: of a store with copies, or ranges that are nowhere else, in words.
    Of { copied: bool, only_there: Vec<String> },
}

fn losses(machine: &str, stores: &[StoreView]) -> Loss {
    let mut copied = false;
    let mut only_there = Vec::new();
    let mut nodes = 0;
    for store in stores {
        let name = &store.record.definition.name;
        let here: Vec<&str> = store
            .record
            .nodes
            .iter()
            .filter(|node| node.machine == machine)
            .map(|node| node.name.as_str())
            .collect();
        if here.is_empty() {
            continue;
        }
        nodes += here.len();
        let Some(copies) = &store.copies else {
            only_there
                .push(format!("{name} has no copies: what {} holds is lost", here.join(", ")));
            continue;
        };
        copied = true;
        let of_here = copies.nodes.iter().filter(|own| here.contains(&own.name.as_str()));
        let alone: u32 = of_here.map(|own| own.alone).sum();
        if alone > 0 {
            only_there.push(format!(
                "{alone} ranges of {name} have their only copy there, and go offline"
            ));
        }
    }
    if nodes == 0 { Loss::Nothing } else { Loss::Of { copied, only_there } }
}

/// Most time that a command waits until the managers decide together.
pub const TOGETHER_MAX: Duration = Duration::from_secs(10);

/// What was asked for was done, and the managers do not decide as they should yet. It goes on by itself once they reach
/// each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotTogether {
    what: String,
    /// What to type next.
    pub hint: String,
}

/// Waits until the managers that can be reached decide together and, when all can be reached, until those of them vote who
/// should: how many failures the group survives holds from then on.
///
/// # Errors
///
/// Names the managers that were not there yet after `most`.
pub fn await_together(group: &Group, most: Duration) -> Result<(), NotTogether> {
    wait(group, None, most)
}

/// The same. Of a group that `gone` leaves, all others have to know who votes now, also when some are not reached: until
/// then the one that goes may have the vote on which everything depends.
fn wait(group: &Group, gone: Option<&str>, most: Duration) -> Result<(), NotTogether> {
    let deadline = Instant::now() + most;
    loop {
        let mut all = standing(group);
        all.retain(|one| Some(one.machine.as_str()) != gone);
        let votes_matter = gone.is_some() || all.iter().all(|one| one.view.is_ok());
        let there: Vec<&ManagersView> = all.iter().filter_map(|o| o.view.as_ref().ok()).collect();
        let Some(first) = there.first() else { return Ok(()) };
        let is_member = |view: &ManagersView, machine: &str| {
            view.group.members.iter().any(|member| member.machine == machine)
        };
        let knows = |view: &&&ManagersView| {
            view.group.number.is_some()
                && view.group.number == first.group.number
                && there.iter().all(|other| is_member(view, &other.this))
                && gone.is_none_or(|gone| !is_member(view, gone))
        };
        let settled = |view: &&&ManagersView| view.group.settled && view.group.leader.is_some();
        let names = |waiting: Vec<&&ManagersView>| -> String {
            let names: Vec<&str> = waiting.into_iter().map(|view| view.this.as_str()).collect();
            names.join(", ")
        };
        let apart = names(there.iter().filter(|view| !knows(view)).collect());
        let unsettled = if votes_matter {
            names(there.iter().filter(|view| !settled(view)).collect())
        } else {
            String::new()
        };
        if apart.is_empty() && unsettled.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = most.as_secs();
            let what = if apart.is_empty() {
                format!(
                    "after {seconds} s it is not settled yet who of the managers votes: waiting for {unsettled}; until then \
                     the loss of a machine may need a hand"
                )
            } else {
                format!("after {seconds} s {apart} does not decide together with the others yet")
            };
            let hint = "see who is there with: dkv manager status; it goes on by itself once all of them reach each other";
            return Err(NotTogether { what, hint: hint.to_string() });
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Takes further managers into the group, and waits until those vote who should, at most so long; a witness is one that was
/// started as such.
pub fn add_managers(
    group: &mut Group,
    new: &[std::net::SocketAddr],
    most: Duration,
) -> (Report, Result<(), NotTogether>) {
    for address in new {
        group.add(*address);
    }
    let mut report = connect(group);
    report.rows.iter_mut().for_each(|row| row.action = "AddManager".to_string());
    let together = match report.outcome() {
        super::Outcome::Done => await_together(group, most),
        _ => Ok(()),
    };
    (report, together)
}

/// Removes a machine from the group, and waits until those vote who should of the others, at most so long. It may be down.
pub fn remove_manager(
    group: &Group,
    machine: &str,
    most: Duration,
) -> (Report, Result<(), NotTogether>) {
    let action = "RemoveManager";
    let refused = |row: ActionRow| (Report { rows: vec![row], ..Report::default() }, Ok(()));
    if !group.managers().iter().any(|manager| manager == machine) {
        let managers = group.managers();
        let message =
            format!("{machine} is not a manager of the group; it has {}", managers.join(", "));
        let first = managers.first().cloned().unwrap_or_default();
        let hint = "dkv manager list".to_string();
        return refused(ActionRow::failed(&first, action, "no_such_manager", message, hint));
    }
    let mut report = Report::default();
    let others = || group.clients().iter().filter(|client| client.manager() != machine);
    if others().next().is_none() {
        let message = format!("{machine} is the only manager of its group");
        let hint = "stop it to be rid of it".to_string();
        return refused(ActionRow::failed(machine, action, "last_manager", message, hint));
    }
    // Each looks at the stores that it knows, and one without nodes of them knows none: together they know all.
    let listing = list(group);
    let mut records = listing.stores.iter().map(|view| &view.record);
    if let Some(refusal) = records.find_map(|record| has_nodes(record, machine)) {
        let first = others().next().map_or("", |client| client.manager());
        let Refusal { code, message, hint, .. } = refusal;
        return refused(ActionRow::failed(first, action, code, message, hint));
    }
    for client in others() {
        report.rows.push(match client.remove_manager(machine) {
            Ok(_) => ActionRow::success(client.manager(), action, format!("Removed {machine}")),
            Err(error) => ActionRow::error(client.manager(), action, &error),
        });
    }
    if report.rows.iter().all(|row| row.result != super::ActionResult::Success) {
        return (report, Ok(()));
    }
    // As long as its vote counts it must not go: it may be the one that decides that it goes. It goes by itself later.
    let together = wait(group, Some(machine), most);
    if let (Ok(()), Some(client)) = (&together, group.client(machine)) {
        // One that is down has nothing to give up; it finds out when it is back.
        if client.health().is_ok() {
            report.rows.push(match client.remove_manager(machine) {
                Ok(_) => ActionRow::success(machine, action, "Goes on alone"),
                Err(error) => ActionRow::error(machine, action, &error),
            });
        }
    }
    (report, together)
}

/// Has a machine come first, so that of two its manager decides alone, and waits until it does, at most so long. It must be
/// up, and so must be who decided until now.
pub fn prefer_manager(
    group: &Group,
    machine: &str,
    most: Duration,
) -> (Report, Result<(), NotTogether>) {
    let action = "PreferManager";
    let one = |row: ActionRow| Report { rows: vec![row], ..Report::default() };
    let Some(own) = group.client(machine) else {
        let managers = group.managers();
        let message =
            format!("{machine} is not a manager of the group; it has {}", managers.join(", "));
        let first = managers.first().cloned().unwrap_or_default();
        let hint = "dkv manager list".to_string();
        let row = ActionRow::failed(&first, action, "no_such_manager", message, hint);
        return (one(row), Ok(()));
    };
    // By itself, so that one that is down is never preferred.
    if let Err(error) = own.prefer_manager(machine) {
        return (one(ActionRow::error(machine, action, &error)), Ok(()));
    }
    let together = wait(group, None, most);
    (one(ActionRow::success(machine, action, "Comes first")), together)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::admin::{
        CopiesView, GroupMember, NodeCopies, NodeDuty, NodeRecord, StoreDefinition, StoreRecord,
        StoreStatus,
    };
    use dkv_protocol::eviction::Eviction;
    use dkv_protocol::ids::{Epoch, StoreId};
    use dkv_protocol::io::IoChoice;

    fn standing_of(machine: &str, group: &GroupView, witness: bool) -> Standing {
        let view = ManagersView {
            this: machine.to_string(),
            pid: 1,
            version: String::new(),
            managers: vec![],
            witness,
            group: group.clone(),
            standing: vec![],
        };
        Standing { machine: machine.to_string(), view: Ok(view) }
    }

    fn group(number: u64, members: &[(&str, bool)], stores: u32) -> GroupView {
        let member = |(machine, votes): &(&str, bool)| GroupMember {
            machine: (*machine).to_string(),
            id: 1,
            votes: *votes,
        };
        GroupView {
            number: Some(number),
            members: members.iter().map(member).collect(),
            stores,
            ..GroupView::default()
        }
    }

    /// A store with a node on each of these machines; `alone`: ranges that only the first has.
    fn store(name: &str, machines: &[&str], copies: bool, alone: u32) -> StoreView {
        let node = |machine: &str| NodeRecord {
            name: format!("{name}-on-{machine}"),
            machine: machine.to_string(),
            cluster_port: 7811,
            client_port: 7861,
            shard_ports: vec![7900],
            cpus: vec![0],
            cpus_exclusive: true,
        };
        let nodes: Vec<NodeRecord> = machines.iter().map(|machine| node(machine)).collect();
        let of = |(at, node): (usize, &NodeRecord)| NodeCopies {
            name: node.name.clone(),
            up: true,
            duty: NodeDuty::Full,
            leads: 1,
            in_sync: 1,
            alone: if at == 0 { alone } else { 0 },
            placed: 1,
        };
        let nodes_of_copies = nodes.iter().enumerate().map(of).collect();
        let of_copies = CopiesView { nodes: nodes_of_copies, ..CopiesView::default() };
        let definition = StoreDefinition {
            name: name.to_string(),
            instance_prefix: "node".to_string(),
            instance_count: 1,
            clustron_port: None,
            client_port: None,
            cpus: None,
            memory_bytes_max: 0,
            eviction: Eviction::None,
            io: IoChoice::Auto,
            replication: None,
            password_sha256: None,
            protected_mode: true,
        };
        let record = StoreRecord {
            definition,
            id: StoreId(name.to_string()),
            hash_seed: String::new(),
            epoch: Epoch(1),
            nodes,
            removed: vec![],
        };
        let copies = copies.then_some(of_copies);
        StoreView { record, status: StoreStatus::Running, nodes: vec![], copies }
    }

    #[test]
    fn what_happens_when_a_machine_fails_is_said_for_each() {
        let two = group(1, &[("a", true), ("b", false)], 1);
        let all = [standing_of("a", &two, false), standing_of("b", &two, false)];
        let fate = fates(&all, &[store("S", &["a", "b"], true, 0)]);
        assert!(fate[0].1.contains("--force --gone a -m b"), "{fate:?}");
        assert!(fate[1].1.contains("by themselves"), "{fate:?}");

        let three = group(1, &[("a", true), ("b", true), ("w", true)], 1);
        let mut all = vec![
            standing_of("a", &three, false),
            standing_of("b", &three, false),
            standing_of("w", &three, true),
        ];
        let copied = [store("S", &["a", "b"], true, 0)];
        let fate = fates(&all, &copied);
        assert!(
            fate[0].1.contains("by themselves") && fate[1].1.contains("by themselves"),
            "{fate:?}"
        );
        assert!(fate[2].1.contains("nothing changes"), "{fate:?}");
        // With one of them down the next failure needs a hand.
        let down = AdminError::NotConnected { manager: "w".into(), reason: String::new() };
        let up = std::mem::replace(&mut all[2].view, Err(down));
        let fate = fates(&all, &copied);
        assert!(fate[0].1.contains("promoted by hand"), "{fate:?}");
        all[2].view = up;

        // It depends on what is there. Where nothing is, nobody takes anything over.
        let fate = fates(&all, &[store("S", &["b"], true, 0), store("T", &["b"], true, 0)]);
        assert!(fate[0].1.starts_with("nothing changes for clients"), "{fate:?}");
        let fate = fates(&all, &[store("S", &["a", "b"], true, 7), store("P", &["a"], false, 0)]);
        for part in [
            "by themselves",
            "7 ranges of S have their only copy there",
            "P has no copies: what P-on-a",
        ] {
            assert!(fate[0].1.contains(part), "{fate:?}");
        }
        assert!(!fate[1].1.contains("only copy") && !fate[1].1.contains("no copies"), "{fate:?}");

        let one = group(1, &[("a", true)], 0);
        assert!(fates(&[standing_of("a", &one, false)], &[])[0].1.contains("down until"));
    }

    #[test]
    fn two_groups_that_keep_stores_cannot_become_one() {
        let view =
            |machine: &str, group: &GroupView| standing_of(machine, group, false).view.unwrap();
        let (a, b) = (group(1, &[("a", true)], 1), group(2, &[("b", true)], 1));
        let both = [view("a", &a), view("b", &b)];
        assert!(two_groups(both.iter()).unwrap().contains("a and b"));
        let empty = group(2, &[("b", true)], 0);
        assert_eq!(two_groups([view("a", &a), view("b", &empty)].iter()), None);
        let after = GroupView { superseded: vec![1], ..b };
        assert_eq!(two_groups([view("a", &a), view("b", &after)].iter()), None);
    }
}
