//! Changes of the catalogue over several managers: create, extend, add a node, delete. Reserve everywhere, then commit
//! everywhere; see the module above for what a failure leaves.

use super::run::find;
use super::{ActionResult, ActionRow, Group, Outcome, Report};
use crate::auth::random_hex;
use crate::client::{AdminClient, AdminError};
use crate::plan::names;
use dkv_protocol::admin::{
    CommitRequest, NodeRecord, NodeState, Reservation, ReservationRequest, StoreChange,
    StoreDefinition, StoreRecord, StoreView,
};
use dkv_protocol::ids::{Epoch, StoreId};
use std::collections::BTreeMap;

/// A node to add to a store.
#[derive(Clone, Debug, Default)]
pub struct NewInstance {
    /// The manager of its machine; none: the only one, else the machine with the fewest nodes of the store.
    pub machine: Option<String>,
    /// Its name; none: prefix and the next number.
    pub name: Option<String>,
    /// Its cluster port; none: the next free one.
    pub cluster_port: Option<u16>,
    /// Its client port; none: the next free one.
    pub client_port: Option<u16>,
}

/// Makes the store be what `definition` says on all managers of the group: creates it, extends it to the machines that
/// it does not cover yet, completes what an earlier run left half done, or finds that it is there already. With `dry_run`
/// everything is checked and nothing is changed.
pub fn create(group: &Group, definition: &StoreDefinition, dry_run: bool) -> Report {
    const ACTION: &str = "CreateStore";
    let views = match ask_all(group, &definition.name, ACTION) {
        Ok(views) => views,
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let Some(record) = newest(&views) else {
        let machines = additions(group, definition.instance_count, &[]);
        let nodes = machines.iter().map(|(_, count)| *count as usize).sum();
        if let Err(refusal) = names::check_copies(definition, nodes) {
            let manager = group.managers().first().cloned().unwrap_or_default();
            let error = refusal.document().error;
            let refused = AdminError::Refused { manager: manager.clone(), status: 400, error };
            let row = ActionRow::error(&manager, ACTION, &refused);
            return Report { rows: vec![row], ..Report::default() };
        }
        let change = Change {
            action: ACTION,
            definition,
            base: None,
            additions: additions(group, definition.instance_count, &[]),
            done: "Created",
            dry_run,
        };
        return change.run(group, None);
    };
    if let Some(report) = not_the_same(group, definition, &record, &views) {
        return report;
    }
    let mut report = if dry_run { Report::default() } else { complete(group, &record, &views) };
    if report.rows.iter().any(|row| row.result == ActionResult::Failed) {
        return report;
    }
    let covered: Vec<&str> = record.nodes.iter().map(|node| node.machine.as_str()).collect();
    let additions = additions(group, definition.instance_count, &covered);
    if additions.iter().all(|(_, count)| *count == 0) {
        for manager in group.managers() {
            if report.rows.iter().all(|row| row.manager != manager) {
                report.rows.push(ActionRow::success(&manager, ACTION, "Already exists"));
            }
        }
        report.record = Some(record);
        return report;
    }
    let action = "ExtendStore";
    let change =
        Change { action, definition, base: Some(&record), additions, done: "Extended", dry_run };
    change.run(group, None)
}

/// Adds one node: to a store with copies also while it runs, and then the node is started; to others when they are stopped.
/// Every machine of the store must be reached.
pub fn add_instance(group: &Group, store: &str, new: &NewInstance) -> Report {
    const ACTION: &str = "AddInstance";
    let view = match find(group, store, ACTION) {
        Ok(view) => view,
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let record = view.record;
    let managers = group.managers();
    let fewest = || {
        let nodes_on = |machine: &str| record.nodes.iter().filter(|n| n.machine == machine).count();
        let witnesses = group.witnesses();
        let fit = managers.iter().filter(|machine| !witnesses.contains(machine));
        fit.min_by_key(|machine| nodes_on(machine)).cloned()
    };
    let machine = new.machine.clone().or_else(fewest).unwrap_or_default();
    if !managers.contains(&machine) {
        let message =
            format!("{machine} is not a manager of the group; it has {}", managers.join(", "));
        let hint = format!("dkv connect -m {},{machine} --force", managers.join(","));
        let row = ActionRow::failed(&machine, ACTION, "no_such_manager", message, hint);
        return Report { rows: vec![row], ..Report::default() };
    }
    let covered = |manager: &String| record.nodes.iter().any(|node| node.machine == *manager);
    let additions = managers
        .iter()
        .filter(|manager| **manager == machine || covered(manager))
        .map(|manager| (manager.clone(), u32::from(*manager == machine)))
        .collect();
    let definition = &record.definition;
    let done = "Instance added";
    let base = Some(&record);
    let change = Change { action: ACTION, definition, base, additions, done, dry_run: false };
    let mut report = change.run(group, Some(new));
    // Where copies move, a store that runs goes on with one node more.
    let runs = view.nodes.iter().any(|node| node.state == Some(NodeState::Running));
    let added = report.record.as_ref().and_then(|record| record.nodes.last());
    if let (true, Some(added), Outcome::Done) = (runs, added.cloned(), report.outcome()) {
        report.rows.extend(super::start(group, store, Some(&added.name)).rows);
    }
    report
}

/// Deletes a stopped store from all managers; a running one with `force`, which also goes on when a machine is down.
pub fn delete(group: &Group, store: &str, force: bool) -> Report {
    const ACTION: &str = "DeleteStore";
    let answers = group.each(|client| client.find_store(store));
    let failed = answers.iter().any(Result::is_err);
    let found: Vec<&StoreView> = answers.iter().flatten().flatten().collect();
    if found.is_empty() && !failed {
        return match find(group, store, ACTION) {
            Ok(_) => Report::default(),
            Err(rows) => Report { rows, ..Report::default() },
        };
    }
    let at_rest = |state: &Option<NodeState>| {
        let rest = [NodeState::Requested, NodeState::Stopped, NodeState::Failed];
        state.is_none_or(|state| rest.contains(&state))
    };
    let running: Vec<&str> = found
        .iter()
        .flat_map(|view| &view.nodes)
        .filter(|node| !at_rest(&node.state))
        .map(|node| node.record.name.as_str())
        .collect();
    if !force && (failed || !running.is_empty()) {
        let rows = group.clients().iter().zip(&answers).map(|(client, answer)| match answer {
            Err(error) => ActionRow::error(client.manager(), ACTION, error),
            Ok(_) if running.is_empty() => skipped(client, ACTION),
            Ok(_) => ActionRow::failed(
                client.manager(),
                ACTION,
                "store_running",
                format!("the store {store} runs ({}), so nothing was deleted", running.join(", ")),
                format!("dkv store stop {store}   (or: dkv store delete {store} --force)"),
            ),
        });
        return Report { rows: rows.collect(), ..Report::default() };
    }
    let mut report = Report::default();
    for (client, answer) in group.clients().iter().zip(&answers) {
        let manager = client.manager();
        let row = match answer {
            Err(error) => ActionRow::error(manager, ACTION, error),
            Ok(None) => continue,
            Ok(Some(_)) => match client.delete_store(store, force) {
                Ok(_) => ActionRow::success(manager, ACTION, "Deleted"),
                Err(error) if error.is_not_found() => {
                    ActionRow::success(manager, ACTION, "Was not there")
                }
                Err(error) => ActionRow::error(manager, ACTION, &error),
            },
        };
        report.rows.push(row);
    }
    report
}

fn skipped(client: &AdminClient, action: &str) -> ActionRow {
    ActionRow::skipped(client.manager(), action, "Nothing was changed")
}

/// Every manager's view of a store. A change needs them all: one that is not reached makes the report.
fn ask_all(
    group: &Group,
    store: &str,
    action: &str,
) -> Result<Vec<(String, Option<StoreView>)>, Vec<ActionRow>> {
    let answers = group.each(|client| client.find_store(store));
    if answers.iter().any(Result::is_err) {
        let rows = group.clients().iter().zip(&answers).map(|(client, answer)| match answer {
            Err(error) => ActionRow::error(client.manager(), action, error),
            Ok(_) => skipped(client, action),
        });
        return Err(rows.collect());
    }
    Ok(group.managers().into_iter().zip(answers.into_iter().flatten()).collect())
}

fn newest(views: &[(String, Option<StoreView>)]) -> Option<StoreRecord> {
    let records = views.iter().filter_map(|(_, view)| view.as_ref().map(|view| &view.record));
    records.max_by_key(|record| record.epoch).cloned()
}

/// How many new nodes each manager of the group gets: none where the store has some already.
fn additions(group: &Group, count: u32, covered: &[&str]) -> Vec<(String, u32)> {
    let witnesses = group.witnesses();
    let of = |manager: String| {
        let none = covered.contains(&manager.as_str()) || witnesses.contains(&manager);
        let count = if none { 0 } else { count };
        (manager, count)
    };
    group.managers().into_iter().map(of).collect()
}

/// The report of a store that is there and is another one than asked for.
fn not_the_same(
    group: &Group,
    asked: &StoreDefinition,
    record: &StoreRecord,
    views: &[(String, Option<StoreView>)],
) -> Option<Report> {
    let name = &asked.name;
    let refuse = |code: &str, message: &str, hint: &str| {
        let rows = group.managers().into_iter().map(|manager| {
            ActionRow::failed(&manager, "CreateStore", code, message.to_string(), hint.to_string())
        });
        Some(Report { rows: rows.collect(), ..Report::default() })
    };
    let other = |view: &StoreView| view.record.id != record.id;
    if let Some((manager, _)) = views.iter().find(|(_, v)| v.as_ref().is_some_and(other)) {
        let message = format!(
            "two different stores have the name {name}; one of them is known at {manager} only"
        );
        let hint = format!("delete the wrong one with: dkv store delete {name} -m {manager}");
        return refuse("two_stores", &message, &hint);
    }
    let differences = record.differences(asked);
    if !differences.is_empty() {
        let message =
            format!("the store {name} exists with another definition: {}", differences.join("; "));
        let hint = format!(
            "look at it with: dkv store show {name}; take another name, or delete it first: dkv store delete {name}"
        );
        return refuse("store_exists", &message, &hint);
    }
    let missing: Vec<&str> = record
        .nodes
        .iter()
        .map(|node| node.machine.as_str())
        .filter(|machine| group.client(machine).is_none())
        .collect();
    if let Some(first) = missing.first() {
        let message = format!(
            "the store {name} also covers {first}, whose manager is not among those connected"
        );
        let hint = format!("dkv connect -m {},{first} --force", group.managers().join(","));
        return refuse("manager_missing", &message, &hint);
    }
    None
}

/// Writes the newest record to the machines that it covers and that do not hold it.
fn complete(group: &Group, record: &StoreRecord, views: &[(String, Option<StoreView>)]) -> Report {
    let mut report = Report::default();
    for (manager, view) in views {
        let covered = record.nodes.iter().any(|node| node.machine == *manager);
        let current = view.as_ref().is_some_and(|view| view.record.epoch == record.epoch);
        let Some(client) = group.client(manager).filter(|_| covered && !current) else { continue };
        let request = CommitRequest { record: record.clone(), reservation: None };
        report.rows.push(match client.commit(&request) {
            Ok(_) => ActionRow::success(manager, "CreateStore", "Completed"),
            Err(error) => ActionRow::error(manager, "CreateStore", &error),
        });
    }
    report
}

/// A change under way: which nodes are added where.
struct Change<'a> {
    action: &'a str,
    definition: &'a StoreDefinition,
    /// The record that is extended; none for a new store.
    base: Option<&'a StoreRecord>,
    /// Each machine that takes part, with its count of new nodes.
    additions: Vec<(String, u32)>,
    done: &'a str,
    dry_run: bool,
}

impl Change<'_> {
    fn run(&self, group: &Group, new: Option<&NewInstance>) -> Report {
        let mut report = Report::default();
        let reservations = match self.reserve(group, new) {
            Ok(reservations) => reservations,
            Err(rows) => return Report { rows, ..Report::default() },
        };
        report.warn(reservations.values().flat_map(|r| r.warnings.iter().cloned()));
        let record = self.record(&reservations);
        if self.dry_run {
            self.release(group, &reservations);
            for (manager, _) in &self.additions {
                let nodes = self.new_nodes(&record, manager);
                let message = format!("Nothing was changed; would be: {}", describe(&nodes));
                report.rows.push(ActionRow::success(manager, self.action, message));
            }
        } else {
            self.commit(group, &record, &reservations, &mut report);
        }
        report.record = Some(record);
        report
    }

    fn reserve(
        &self,
        group: &Group,
        new: Option<&NewInstance>,
    ) -> Result<BTreeMap<String, Reservation>, Vec<ActionRow>> {
        let mut machines: Vec<String> = Vec::new();
        let covered = self.base.iter().flat_map(|record| &record.nodes).map(|node| &node.machine);
        let growing = self.additions.iter().filter(|(_, count)| *count > 0).map(|(m, _)| m);
        for machine in covered.chain(growing) {
            if !machines.contains(machine) {
                machines.push(machine.clone());
            }
        }
        let mut ordinal = self.base.map_or(1, next_ordinal);
        let mut held: BTreeMap<String, Reservation> = BTreeMap::new();
        for (machine, count) in &self.additions {
            let Some(client) = group.client(machine) else { continue };
            let request = ReservationRequest {
                definition: self.definition.clone(),
                machines: machines.clone(),
                first_ordinal: ordinal,
                count: *count,
                base_epoch: self.base.map(|record| record.epoch),
                node_name: new.and_then(|new| new.name.clone()),
                cluster_port: new.and_then(|new| new.cluster_port),
                client_port: new.and_then(|new| new.client_port),
            };
            ordinal += count;
            // A machine that the store does not cover and that gets no node has no say.
            if *count == 0 && !machines.contains(machine) {
                continue;
            }
            match client.reserve(&request) {
                Ok(reservation) => {
                    held.insert(machine.clone(), reservation);
                }
                Err(error) => {
                    self.release(group, &held);
                    return Err(self.refused(group, machine, &error));
                }
            }
        }
        Ok(held)
    }

    fn refused(&self, group: &Group, machine: &str, error: &AdminError) -> Vec<ActionRow> {
        let takes_part =
            |client: &&AdminClient| self.additions.iter().any(|(m, _)| m == client.manager());
        let rows = group.clients().iter().filter(takes_part).map(|client| {
            if client.manager() == machine {
                ActionRow::error(machine, self.action, error)
            } else {
                skipped(client, self.action)
            }
        });
        rows.collect()
    }

    fn release(&self, group: &Group, held: &BTreeMap<String, Reservation>) {
        for (machine, reservation) in held {
            // A reservation that cannot be given back ends by itself.
            let _ = group
                .client(machine)
                .map(|client| client.release(&self.definition.name, &reservation.id));
        }
    }

    fn record(&self, reservations: &BTreeMap<String, Reservation>) -> StoreRecord {
        let mut record = self.base.cloned().unwrap_or_else(|| StoreRecord {
            definition: self.definition.clone(),
            id: StoreId(random_hex(16)),
            hash_seed: random_hex(16),
            epoch: Epoch(0),
            nodes: Vec::new(),
            removed: Vec::new(),
        });
        record.epoch = Epoch(record.epoch.0 + 1);
        for (machine, _) in &self.additions {
            let new = reservations.get(machine).map(|r| r.nodes.clone()).unwrap_or_default();
            record.nodes.extend(new);
        }
        record
    }

    /// What the change adds on one machine.
    fn new_nodes<'a>(&self, record: &'a StoreRecord, machine: &str) -> Vec<&'a NodeRecord> {
        let before = |node: &NodeRecord| self.base.is_some_and(|base| base.nodes.contains(node));
        record.nodes.iter().filter(|node| node.machine == machine && !before(node)).collect()
    }

    fn commit(
        &self,
        group: &Group,
        record: &StoreRecord,
        reservations: &BTreeMap<String, Reservation>,
        report: &mut Report,
    ) {
        let mut committed = false;
        for (machine, reservation) in ordered(&self.additions, reservations) {
            let Some(client) = group.client(machine) else { continue };
            let id = Some(reservation.id.clone());
            let mut request = CommitRequest { record: record.clone(), reservation: id };
            let mut answer = client.commit(&request);
            // Past the first commit there is no way back: a manager that forgot the reservation (it was restarted) checks
            // the record by itself.
            if committed && answer.as_ref().is_err_and(|e| e.code() == "reservation_gone") {
                request.reservation = None;
                answer = client.commit(&request);
            }
            match answer {
                Ok(changed) => {
                    committed = true;
                    let message = match changed.change {
                        StoreChange::AlreadyExists => "Already exists".to_string(),
                        _ => {
                            format!("{}: {}", self.done, describe(&self.new_nodes(record, machine)))
                        }
                    };
                    report.rows.push(ActionRow::success(machine, self.action, message));
                }
                Err(error) => {
                    report.rows.push(ActionRow::error(machine, self.action, &error));
                    if !committed && !uncertain(&error) {
                        self.release(group, reservations);
                        for (other, _) in ordered(&self.additions, reservations) {
                            if other != machine {
                                let text = "Nothing was changed";
                                report.rows.push(ActionRow::skipped(other, self.action, text));
                            }
                        }
                        return;
                    }
                    committed = true;
                }
            }
        }
    }
}

/// Whether a commit that failed like this may have been done all the same.
fn uncertain(error: &AdminError) -> bool {
    matches!(
        error,
        AdminError::TimedOut { .. } | AdminError::Broken { .. } | AdminError::BadAnswer { .. }
    )
}

/// The reservations in the order of the machines, not of their names.
fn ordered<'a>(
    additions: &'a [(String, u32)],
    reservations: &'a BTreeMap<String, Reservation>,
) -> impl Iterator<Item = (&'a str, &'a Reservation)> {
    additions.iter().filter_map(|(m, _)| reservations.get(m).map(|r| (m.as_str(), r)))
}

fn describe(nodes: &[&NodeRecord]) -> String {
    let each = nodes.iter().map(|n| format!("{} {}/{}", n.name, n.cluster_port, n.client_port));
    let text: Vec<String> = each.collect();
    if text.is_empty() { "no new node here".to_string() } else { text.join(", ") }
}

/// One more than the greatest number in use, so that a name is never given twice.
fn next_ordinal(record: &StoreRecord) -> u32 {
    let prefix = &record.definition.instance_prefix;
    let numbers = record
        .nodes
        .iter()
        .chain(record.removed.iter().map(|gone| &gone.node))
        .filter_map(|node| node.name.strip_prefix(prefix.as_str())?.parse().ok());
    let highest: u32 = numbers.max().unwrap_or(0);
    highest.max(record.nodes.len() as u32) + 1
}
