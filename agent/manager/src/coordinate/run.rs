//! Starting and stopping the nodes of a store, each at its own manager, and waiting until they reach each other.

use super::{ActionResult, ActionRow, Group, Report, list};
use crate::client::{AdminClient, AdminError};
use crate::plan::names;
use dkv_protocol::admin::{NodeChanged, NodeRecord, NodeState, NodeView, StoreView};
use dkv_protocol::limits::RANGES;
use std::time::{Duration, Instant};

/// The pause between two looks at a store that comes up.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Starts the nodes of a store, or the one named, and waits until each serves. One row a node. When all are up they may
/// still be connecting to each other: see [`await_whole`].
pub fn start(group: &Group, store: &str, node: Option<&str>) -> Report {
    if let (None, Some(row)) = (node, begin_life(group, store)) {
        return Report { rows: vec![row], ..Report::default() };
    }
    each_node(group, store, node, "StartInstance", |client, node| client.start(store, node))
}

/// Stops the nodes of a store, or the one named, and waits until each is gone. What they held in memory is lost. One row
/// a node.
pub fn stop(group: &Group, store: &str, node: Option<&str>, force: bool) -> Report {
    let with_copies = || {
        let views = group.each(|client| client.find_store(store));
        let has = |view: &StoreView| view.record.definition.replication.is_some();
        views.into_iter().flatten().flatten().any(|view| has(&view))
    };
    if node.is_none() && !force && with_copies() {
        return each_node(group, store, node, "StopInstance", |client, node| {
            client.stop_with_all(store, node)
        });
    }
    each_node(group, store, node, "StopInstance", |client, node| client.stop(store, node, force))
}

/// Kills the process of a node as a crash would; its manager starts it again. Refused where that loses the only copy of
/// something, unless `force`. One row.
pub fn kill(group: &Group, store: &str, node: &str, force: bool) -> Report {
    each_node(group, store, Some(node), "KillInstance", |client, node| {
        client.kill(store, node, force)
    })
}

/// A store with copies that was stopped on all its machines begins a new life with its start: what it held was given up. A
/// row only when that fails. When a machine is not reached, nobody can know that it is at rest, and the old life goes on.
fn begin_life(group: &Group, store: &str) -> Option<ActionRow> {
    let listing = list(group);
    let view = listing.store(store)?;
    let copies = view.copies.as_ref()?;
    let at_rest = |node: &NodeView| {
        [Some(NodeState::Requested), Some(NodeState::Stopped)].contains(&node.state)
    };
    let lived = (copies.unformed_ranges as usize) < RANGES;
    if !lived || !view.nodes.iter().all(at_rest) {
        return None;
    }
    let machine = &view.nodes.first()?.record.machine;
    let begun = group.client(machine)?.begin_life(store, copies.life + 1);
    begun.err().map(|error| ActionRow::error(machine, "StartStore", &error))
}

/// How long no manager may answer while a store comes up: one that is restarted is back by then.
const SILENCE: Duration = Duration::from_secs(3);

/// Why a store is not known to be whole. Its nodes run on in any case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole {
    /// Some node did not reach the others in time; the operator looks at the network, or waits longer.
    #[error("{0}")]
    Late(String),
    /// No manager answers any more; the operator starts it again.
    #[error("{message}")]
    NobodyAnswers {
        /// Which and why.
        message: String,
        /// What to type.
        hint: String,
    },
    /// Somebody deleted it meanwhile.
    #[error("the store {0} is not there any more")]
    Gone(String),
}

/// Waits until every running node of a store reaches all others. The error says which node does not.
pub fn await_whole(group: &Group, store: &str, most: Duration) -> Result<(), NotWhole> {
    let deadline = Instant::now() + most;
    let mut answered = Instant::now();
    loop {
        let listing = list(group);
        let Some(view) = listing.store(store) else {
            let failures = listing.failures();
            let Some(failure) = failures.first() else {
                return Err(NotWhole::Gone(store.to_string()));
            };
            if answered.elapsed() > SILENCE || Instant::now() >= deadline {
                let message = format!("the nodes of {store} were started, and {}", failure.message);
                return Err(NotWhole::NobodyAnswers { message, hint: failure.hint.clone() });
            }
            std::thread::park_timeout(LOOK);
            continue;
        };
        answered = Instant::now();
        let waiting: Vec<&str> = view
            .nodes
            .iter()
            .filter(|node| node.state != Some(NodeState::Running) || !node.cluster_ok)
            .map(|node| node.record.name.as_str())
            .collect();
        let unformed = view.copies.as_ref().map_or(0, |copies| copies.unformed_ranges);
        if waiting.is_empty() && unformed == 0 {
            return Ok(());
        }
        if waiting.is_empty() && Instant::now() >= deadline {
            return Err(NotWhole::Late(format!(
                "after {} s the managers have not agreed yet on who leads {unformed} ranges of {store}; see: dkv manager status",
                most.as_secs()
            )));
        }
        if Instant::now() >= deadline {
            return Err(NotWhole::Late(format!(
                "after {} s the store {store} is not whole: waiting for {}",
                most.as_secs(),
                waiting.join(", ")
            )));
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The store, or the row that says why not.
pub(super) fn find(group: &Group, store: &str, action: &str) -> Result<StoreView, Vec<ActionRow>> {
    let listing = list(group);
    if let Some(view) = listing.store(store) {
        return Ok(view.clone());
    }
    let failures = listing.failures();
    if !failures.is_empty() {
        return Err(failures
            .into_iter()
            .map(|row| ActionRow { action: action.to_string(), ..row })
            .collect());
    }
    let names: Vec<&str> =
        listing.stores.iter().map(|view| view.record.definition.name.as_str()).collect();
    let known = if names.is_empty() {
        "there is no store yet".to_string()
    } else {
        format!("there are: {}", names.join(", "))
    };
    let message = format!("there is no store {store:?}; {known}");
    let manager = group.managers().first().cloned().unwrap_or_default();
    let hint = "dkv store list".to_string();
    Err(vec![ActionRow::failed(&manager, action, "no_such_store", message, hint)])
}

fn each_node(
    group: &Group,
    store: &str,
    node: Option<&str>,
    action: &str,
    call: impl Fn(&AdminClient, &str) -> Result<NodeChanged, AdminError> + Sync,
) -> Report {
    let view = match find(group, store, action) {
        Ok(view) => view,
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let record = view.record;
    let prefix = &record.definition.instance_prefix;
    let wanted: Vec<&NodeRecord> = record
        .nodes
        .iter()
        .filter(|own| node.is_none_or(|asked| names::is_node(prefix, &own.name, asked)))
        .collect();
    if let (true, Some(asked)) = (wanted.is_empty(), node) {
        let names: Vec<&str> = record.nodes.iter().map(|node| node.name.as_str()).collect();
        let message =
            format!("the store {store} has no node {asked:?}; its nodes are: {}", names.join(", "));
        let manager = group.managers().first().cloned().unwrap_or_default();
        let action = format!("{action}:{asked}");
        let hint = format!("dkv store show {store}");
        let row = ActionRow::failed(&manager, &action, "no_such_node", message, hint);
        return Report { rows: vec![row], record: Some(record), ..Report::default() };
    }
    let one = |node: &NodeRecord| {
        let action = format!("{action}:{}", node.name);
        let Some(client) = group.client(&node.machine) else {
            return ActionRow::failed(
                &node.machine,
                &action,
                "not_connected",
                format!("the manager {} of this node is not among those connected", node.machine),
                format!("dkv connect -m {},{} --force", group.managers().join(","), node.machine),
            );
        };
        match call(client, &node.name) {
            Ok(changed) => ActionRow::success(&node.machine, &action, changed.message),
            Err(error) => ActionRow::error(&node.machine, &action, &error),
        }
    };
    let rows = if group.settings.parallel {
        in_parallel(&wanted, &one)
    } else {
        in_turn(&wanted, action, group.settings.fail_fast, &one)
    };
    Report { rows, record: Some(record), ..Report::default() }
}

fn in_parallel(
    nodes: &[&NodeRecord],
    one: &(impl Fn(&NodeRecord) -> ActionRow + Sync),
) -> Vec<ActionRow> {
    let mut machines: Vec<&str> = nodes.iter().map(|node| node.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    let of_machine = |machine: &str| {
        let own = nodes.iter().enumerate().filter(|(_, node)| node.machine == machine);
        own.map(|(at, node)| (at, one(node))).collect::<Vec<_>>()
    };
    let of_machine = &of_machine;
    let mut rows: Vec<(usize, ActionRow)> = std::thread::scope(|scope| {
        let running: Vec<_> =
            machines.iter().map(|machine| scope.spawn(move || of_machine(machine))).collect();
        let done = running
            .into_iter()
            .flat_map(|machine| machine.join().expect("a call to a manager returns its failures"));
        done.collect()
    });
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn in_turn(
    nodes: &[&NodeRecord],
    action: &str,
    fail_fast: bool,
    one: &impl Fn(&NodeRecord) -> ActionRow,
) -> Vec<ActionRow> {
    let mut rows: Vec<ActionRow> = Vec::new();
    for node in nodes {
        let failed = rows.iter().any(|row| row.result == ActionResult::Failed);
        if fail_fast && failed {
            let action = format!("{action}:{}", node.name);
            rows.push(ActionRow::skipped(&node.machine, &action, "Not tried"));
        } else {
            rows.push(one(node));
        }
    }
    rows
}
