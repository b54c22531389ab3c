//! Operations over the managers of a group, from the client's side: the command line makes several managers keep one
//! catalogue by writing to each of them.
//!
//! A change is first reserved on every machine it touches and then committed on each. If a reservation fails, the others
//! are given back and nothing was changed. After the first commit a failure leaves the change half done on purpose: the
//! same command run again completes it. Knows the admin API only; it starts nothing and writes no file.

mod change;
mod copies;
mod leave;
mod managers;
mod run;

use crate::auth::Token;
use crate::client::{AdminClient, AdminError};
use dkv_protocol::admin::{NodeRecord, NodeView, StoreRecord, StoreStatus, StoreView};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

pub use change::{NewInstance, add_instance, create, delete};
pub use copies::{
    Patience, accept_loss, check_force, failover, force, offline_ranges, restart_rolling,
};
pub use leave::remove_instance;
pub(crate) use managers::group_of;
pub use managers::{
    NotTogether, Standing, TOGETHER_MAX, add_managers, await_together, fates, prefer_manager,
    remove_manager, standing,
};
pub use run::{NotWhole, await_whole, kill, start, stop};

/// The managers that an operation speaks to, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct Group {
    clients: Vec<AdminClient>,
    token: Token,
    settings: Settings,
}

/// How an operation goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most time for one call to one manager.
    pub timeout: Duration,
    /// All machines at once instead of one after the other (starting and stopping).
    pub parallel: bool,
    /// Stop at the first failure instead of going on with what does not need it.
    pub fail_fast: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), parallel: false, fail_fast: false }
    }
}

/// How one action at one manager ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionResult {
    /// Done, or there was nothing to do.
    Success,
    /// Not done.
    Failed,
    /// Not tried, or taken back, because another one failed.
    Skipped,
}

impl ActionResult {
    /// The word of the result column.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// One row of admin output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionRow {
    /// The manager's address and port.
    pub manager: String,
    /// `Connect`, `CreateStore`, `ExtendStore`, `DeleteStore`, `AddInstance`, `StartInstance:node1`,
    /// `StopInstance:node1`, `Check`.
    pub action: String,
    /// How it ended.
    pub result: ActionResult,
    /// What was done, or what failed and why; one line.
    pub message: String,
    /// What to type next; empty when nothing is wrong.
    pub hint: String,
    /// The code of a failure, as `port_in_use`, `not_connected`; empty when nothing is wrong.
    pub code: String,
    #[serde(skip)]
    outcome: Outcome,
}

impl ActionRow {
    pub(crate) fn success(manager: &str, action: &str, message: impl Into<String>) -> Self {
        Self::new(manager, action, ActionResult::Success, message.into(), Outcome::Done)
    }

    fn skipped(manager: &str, action: &str, message: impl Into<String>) -> Self {
        Self::new(manager, action, ActionResult::Skipped, message.into(), Outcome::Failed)
    }

    fn failed(manager: &str, action: &str, code: &str, message: String, hint: String) -> Self {
        let row = Self::new(manager, action, ActionResult::Failed, message, Outcome::Failed);
        Self { hint, code: code.to_string(), ..row }
    }

    fn late(manager: &str, action: &str, message: String, hint: String) -> Self {
        let row = Self::failed(manager, action, "timed_out", message, hint);
        Self { outcome: Outcome::TimedOut, ..row }
    }

    fn error(manager: &str, action: &str, error: &AdminError) -> Self {
        let outcome = match error {
            AdminError::NotConnected { .. } | AdminError::Broken { .. } => Outcome::NotConnected,
            AdminError::TimedOut { .. } => Outcome::TimedOut,
            AdminError::Refused { status: 400, .. } => Outcome::Usage,
            _ => Outcome::Failed,
        };
        let row = Self::failed(manager, action, error.code(), error.to_string(), error.hint());
        Self { outcome, ..row }
    }

    fn new(
        manager: &str,
        action: &str,
        result: ActionResult,
        message: String,
        outcome: Outcome,
    ) -> Self {
        Self {
            manager: manager.to_string(),
            action: action.to_string(),
            result,
            message,
            hint: String::new(),
            code: String::new(),
            outcome,
        }
    }
}

/// How an operation ended as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// All of it.
    Done,
    /// None of it.
    Failed,
    /// None of it: the request itself is wrong.
    Usage,
    /// None of it: no manager could be reached.
    NotConnected,
    /// Some of it; the same command again completes it.
    Partly,
    /// No answer in time.
    TimedOut,
}

impl Outcome {
    /// The exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotConnected => 3,
            Self::Partly => 4,
            Self::TimedOut => 5,
        }
    }
}

/// What an operation did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One row per manager, or per node for starting and stopping.
    pub rows: Vec<ActionRow>,
    /// What the operator should know although nothing failed: unused CPUs, shared CPUs, odd ports.
    pub warnings: Vec<String>,
    /// The record after the change, when there is one.
    pub record: Option<StoreRecord>,
}

impl Report {
    /// How it ended as a whole.
    pub fn outcome(&self) -> Outcome {
        let failures: Vec<&ActionRow> =
            self.rows.iter().filter(|row| row.result != ActionResult::Success).collect();
        if failures.is_empty() {
            return Outcome::Done;
        }
        if failures.len() < self.rows.len() {
            return Outcome::Partly;
        }
        let real: Vec<Outcome> = failures
            .iter()
            .filter(|row| row.result == ActionResult::Failed)
            .map(|row| row.outcome)
            .collect();
        match real.first() {
            Some(first) if real.iter().all(|outcome| outcome == first) => *first,
            _ => Outcome::Failed,
        }
    }

    fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

impl Group {
    /// A group of the managers that were named. Nothing is sent yet.
    pub fn new(managers: &[SocketAddr], token: &Token, settings: Settings) -> Self {
        let mut group = Self { clients: Vec::new(), token: token.clone(), settings };
        for address in managers {
            group.add(*address);
        }
        group
    }

    fn add(&mut self, address: SocketAddr) {
        if self.clients.iter().all(|client| client.address() != address) {
            let client = AdminClient::new(address, self.token.clone(), self.settings.timeout);
            self.clients.push(client);
        }
    }

    /// One client for each manager, in order.
    pub fn clients(&self) -> &[AdminClient] {
        &self.clients
    }

    /// The addresses of the managers, in order.
    pub fn managers(&self) -> Vec<String> {
        self.clients.iter().map(|client| client.manager().to_string()).collect()
    }

    /// Adds the members of the group that were left out, and gives their addresses. Managers that cannot be asked are
    /// passed over: the operation itself will say so.
    pub fn complete(&mut self) -> Vec<String> {
        let mut added = Vec::new();
        for members in self.each(AdminClient::managers).into_iter().flatten() {
            for member in members.managers {
                let Ok(address) = member.parse::<SocketAddr>() else { continue };
                if self.clients.iter().all(|client| client.address() != address) {
                    self.add(address);
                    added.push(member);
                }
            }
        }
        added
    }

    /// Machines that run no nodes.
    fn witnesses(&self) -> Vec<String> {
        let views = self.each(AdminClient::managers).into_iter().flatten();
        views.filter(|view| view.witness).map(|view| view.this).collect()
    }

    fn client(&self, machine: &str) -> Option<&AdminClient> {
        self.clients.iter().find(|client| client.manager() == machine)
    }

    /// Asks every manager the same, at once: what is only read need not wait for a machine that is down.
    pub(crate) fn each<T: Send>(
        &self,
        ask: impl Fn(&AdminClient) -> Result<T, AdminError> + Sync,
    ) -> Vec<Result<T, AdminError>> {
        if let [only] = &self.clients[..] {
            return vec![ask(only)];
        }
        std::thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> =
                self.clients.iter().map(|client| scope.spawn(move || ask(client))).collect();
            let join = |asked: std::thread::ScopedJoinHandle<'_, _>| {
                asked.join().expect("a call to a manager returns its failures")
            };
            asked.into_iter().map(join).collect()
        })
    }
}

/// What all managers said of one store, or of all.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Each manager with the stores of its catalogue, states of its own nodes only; in the order of the group.
    pub managers: Vec<(String, Result<Vec<StoreView>, AdminError>)>,
    /// Each store once: its newest record, each node's state from its own manager (none when that one was not reached).
    pub stores: Vec<StoreView>,
    /// Every difference between the catalogues, in words.
    pub differences: Vec<String>,
}

impl Listing {
    /// A row for each manager that could not be asked.
    pub fn failures(&self) -> Vec<ActionRow> {
        let failed = |(manager, answer): &(String, Result<_, AdminError>)| {
            answer.as_ref().err().map(|error| ActionRow::error(manager, "GetStore", error))
        };
        self.managers.iter().filter_map(failed).collect()
    }

    /// How the listing ended: no manager reached, all of them, or some.
    pub fn outcome(&self) -> Outcome {
        let failures = self.failures();
        if failures.len() == self.managers.len() {
            return Report { rows: failures, ..Report::default() }.outcome();
        }
        if failures.is_empty() { Outcome::Done } else { Outcome::Partly }
    }

    /// The store of that name.
    pub fn store(&self, name: &str) -> Option<&StoreView> {
        self.stores.iter().find(|store| store.record.definition.name == name)
    }
}

/// All stores of the group.
pub fn list(group: &Group) -> Listing {
    let answers = group.each(AdminClient::stores);
    let managers: Vec<_> = group.managers().into_iter().zip(answers).collect();
    let stores = merge(&managers);
    let differences = differences(&managers, &stores);
    Listing { managers, stores, differences }
}

fn merge(managers: &[(String, Result<Vec<StoreView>, AdminError>)]) -> Vec<StoreView> {
    let views = || managers.iter().filter_map(|(m, views)| views.as_ref().ok().map(|v| (m, v)));
    let mut names: Vec<&str> = views()
        .flat_map(|(_, views)| views.iter().map(|view| view.record.definition.name.as_str()))
        .collect();
    names.sort_unstable();
    names.dedup();
    let merged = names.into_iter().filter_map(|name| {
        let of_name = |view: &&StoreView| view.record.definition.name == name;
        let found = || views().filter_map(|(m, views)| views.iter().find(of_name).map(|v| (m, v)));
        let record = found().map(|(_, view)| &view.record).max_by_key(|record| record.epoch)?;
        let nodes: Vec<NodeView> = record
            .nodes
            .iter()
            .map(|node| {
                let own = found()
                    .filter(|(manager, _)| **manager == node.machine)
                    .find_map(|(_, view)| view.nodes.iter().find(|n| n.record.name == node.name));
                own.cloned().unwrap_or_else(|| NodeView {
                    record: node.clone(),
                    state: None,
                    pid: None,
                    restarts: 0,
                    message: None,
                    cluster_ok: false,
                    io: None,
                })
            })
            .collect();
        let states: Vec<_> = nodes.iter().map(|node| node.state).collect();
        let copies = found().filter_map(|(_, view)| view.copies.as_ref());
        let copies = copies.max_by_key(|copies| (copies.life, copies.changes)).cloned();
        Some(StoreView { record: record.clone(), status: StoreStatus::of(&states), nodes, copies })
    });
    merged.collect()
}

/// In what two records of one store and one epoch differ.
fn apart(there: &StoreRecord, elsewhere: &StoreRecord) -> String {
    let definition = there.definition.differences(&elsewhere.definition);
    let mut found: Vec<String> =
        definition.iter().map(|text| text.replace(", asked for ", " there, elsewhere ")).collect();
    for node in &there.nodes {
        match elsewhere.nodes.iter().find(|other| other.name == node.name) {
            None => found.push(format!("it alone knows of {}", node.name)),
            Some(other) if other != node => {
                found.push(format!("{} has another machine, ports or CPUs there", node.name));
            }
            Some(_) => {}
        }
    }
    let missing = |node: &&NodeRecord| there.nodes.iter().all(|own| own.name != node.name);
    let missing = elsewhere.nodes.iter().filter(missing);
    found.extend(missing.map(|node| format!("it does not know of {}", node.name)));
    if found.is_empty() {
        found.push("what it was made with (the hash seed, or the order of its nodes)".to_string());
    }
    found.join("; ")
}

/// Compares what the managers hold with the newest record of each store.
fn differences(
    managers: &[(String, Result<Vec<StoreView>, AdminError>)],
    stores: &[StoreView],
) -> Vec<String> {
    let mut found = Vec::new();
    for StoreView { record, .. } in stores {
        let name = &record.definition.name;
        for (manager, views) in managers {
            let Ok(views) = views else { continue };
            let covered = record.nodes.iter().any(|node| node.machine == *manager);
            match views.iter().find(|view| view.record.definition.name == *name) {
                None if covered => found.push(format!(
                    "{manager} has no record of the store {name}, although it covers that machine; run the same \
                     `dkv store create` again to complete it"
                )),
                Some(view) if view.record.id != record.id => found.push(format!(
                    "{manager} has another store under the name {name} (identity {}, not {})",
                    view.record.id, record.id
                )),
                Some(view) if view.record.epoch != record.epoch => found.push(format!(
                    "{manager} has epoch {} of the store {name}, the newest is {}; run the same `dkv store create` \
                     again to complete it",
                    view.record.epoch.0, record.epoch.0
                )),
                Some(view) if view.record != *record => found.push(format!(
                    "{manager} has another record of the store {name} with the same epoch {}: {}",
                    record.epoch.0,
                    apart(&view.record, record)
                )),
                _ => {}
            }
        }
    }
    found
}

/// Asks all managers whether they hold the same: one row a manager that could not be asked, one a difference.
pub fn check(group: &Group) -> Report {
    let listing = list(group);
    let mut report = Report { rows: listing.failures(), ..Report::default() };
    let members = group.each(AdminClient::managers);
    for (manager, members) in group.managers().iter().zip(members) {
        let Ok(members) = members else { continue };
        for other in group.managers().iter().filter(|other| !members.managers.contains(other)) {
            let message = format!("{manager} does not know that {other} belongs to the group");
            let hint = format!("dkv connect -m {} --force", group.managers().join(","));
            report.rows.push(ActionRow::failed(manager, "Check", "group_differs", message, hint));
        }
    }
    for difference in &listing.differences {
        let manager = difference.split(' ').next().unwrap_or_default().to_string();
        let message = difference.clone();
        report.rows.push(ActionRow::failed(
            &manager,
            "Check",
            "catalogue_differs",
            message,
            String::new(),
        ));
    }
    if report.rows.is_empty() {
        for manager in group.managers() {
            report.rows.push(ActionRow::success(&manager, "Check", "The same as the others"));
        }
    }
    report
}

/// Makes one group of the managers that were named and the members they know, and tells each of them. The group is
/// completed by it. One row a manager; those that were left out of the list say so.
pub fn connect(group: &mut Group) -> Report {
    let named = group.managers();
    let mut answers = group.each(AdminClient::managers);
    let added = group.complete();
    let late: Vec<_> = group.clients()[named.len()..].iter().map(AdminClient::managers).collect();
    answers.extend(late);
    let mut union: Vec<String> = Vec::new();
    // Members keep the order in which they joined; new machines come after them.
    let known = answers.iter().flatten().flat_map(|view| view.managers.iter());
    let reached = group.managers().into_iter().zip(&answers).filter(|(_, a)| a.is_ok());
    let established: Vec<String> = answers
        .iter()
        .flatten()
        .max_by_key(|view| view.managers.len())
        .map(|view| view.managers.clone())
        .filter(|managers| managers.len() > 1)
        .unwrap_or_default();
    for member in established
        .into_iter()
        .chain(reached.map(|(manager, _)| manager))
        .chain(known.cloned().collect::<Vec<_>>())
    {
        if !union.contains(&member) {
            union.push(member);
        }
    }
    let mut report = Report::default();
    let apart = managers::two_groups(answers.iter().flatten());
    for (client, answer) in group.clients().iter().zip(&answers) {
        let manager = client.manager();
        let row = match answer {
            Err(error) => ActionRow::error(manager, "Connect", error),
            Ok(_) if apart.is_some() => {
                let message = apart.clone().unwrap_or_default();
                let hint = "delete those of one of them first, or connect them apart".to_string();
                ActionRow::failed(manager, "Connect", "two_groups", message, hint)
            }
            Ok(view) if view.managers == union => connected(manager, &added),
            Ok(_) => match client.join(union.clone()) {
                Ok(_) => connected(manager, &added),
                Err(error) => ActionRow::error(manager, "Connect", &error),
            },
        };
        report.rows.push(row);
    }
    report
}

fn connected(manager: &str, added: &[String]) -> ActionRow {
    let message = if added.iter().any(|a| a == manager) {
        "Connected; it belongs to the group and was left out of the list"
    } else {
        "Connected"
    };
    ActionRow::success(manager, "Connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::admin::StoreDefinition;
    use dkv_protocol::eviction::Eviction;
    use dkv_protocol::ids::{Epoch, StoreId};
    use dkv_protocol::io::IoChoice;

    fn record(protected_mode: bool, nodes: &[(&str, u16)]) -> StoreRecord {
        let node = |(name, client_port): &(&str, u16)| NodeRecord {
            name: (*name).to_string(),
            machine: "10.0.0.11:7801".to_string(),
            cluster_port: 7811,
            client_port: *client_port,
            shard_ports: vec![7900],
            cpus: vec![0],
            cpus_exclusive: true,
        };
        StoreRecord {
            definition: StoreDefinition {
                name: "S".to_string(),
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
                protected_mode,
            },
            id: StoreId("a".repeat(32)),
            hash_seed: String::new(),
            epoch: Epoch(2),
            nodes: nodes.iter().map(node).collect(),
            removed: vec![],
        }
    }

    #[test]
    fn records_of_one_epoch_that_differ_say_in_what() {
        let here = record(true, &[("node1", 7861), ("node2", 7862)]);
        let cases = [
            (
                record(false, &[("node1", 7861), ("node2", 7862)]),
                "protected mode is off there, elsewhere on",
            ),
            (
                record(true, &[("node1", 7863), ("node2", 7862)]),
                "node1 has another machine, ports or CPUs there",
            ),
            (
                record(true, &[("node1", 7861), ("node3", 7862)]),
                "it alone knows of node3; it does not know of node2",
            ),
            (record(true, &[("node2", 7862), ("node1", 7861)]), "the order of its nodes"),
        ];
        for (there, expected) in cases {
            let text = apart(&there, &here);
            assert!(text.contains(expected), "{text}");
        }
    }
}
