//! Operations on stores with copies: leadership that leaves a node, and a restart of one node after the other. Each has the
//! managers wish for something, waits until the primaries have brought it about, and goes on.

use super::run::{LOOK, find, start, stop};
use super::{ActionResult, ActionRow, Group, Report, list};
use crate::client::AdminError;
use crate::plan::names;
use dkv_protocol::admin::{CopiesView, NodeCopies, NodeDuty, NodeRecord, NodeState, StoreView};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long an operation waits for what the primaries bring about, and what ends it early.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    /// Most time for each wait.
    pub most: Duration,
    /// Set when the operator has had enough: what is under way is brought to an end that leaves nothing half done.
    pub stop: Option<&'a AtomicBool>,
}

impl From<Duration> for Patience<'_> {
    fn from(most: Duration) -> Self {
        Self { most, stop: None }
    }
}

impl Patience<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Relaxed))
    }
}

/// Looks in a row at which nothing moves, before that is taken for what stays: managers hear of a wish one after the other.
const RESTING_LOOKS: u32 = 10;

/// Has others lead what a node leads, and keeps it so; with `back` the node takes its full part again. Waits until that is
/// so, no longer than it is waited for.
pub fn failover<'a>(
    group: &Group,
    store: &str,
    node: &str,
    back: bool,
    patience: impl Into<Patience<'a>>,
) -> Report {
    let action = "Failover";
    let most = patience.into();
    let (view, node) = match with_copies(group, store, Some(node), action) {
        Ok((view, Some(node))) => (view, node),
        Ok((_, None)) => return Report::default(),
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let duty = if back { NodeDuty::Full } else { NodeDuty::Follows };
    let action = format!("{action}:{}", node.name);
    if let Some(row) = set_duty(group, store, &node, duty, &action) {
        return report(vec![row], view);
    }
    let led = |copies: &CopiesView| of(copies, &node).map_or(0, |own| own.leads);
    // What has no other copy stays where it is.
    let led_alone =
        |copies: &CopiesView| of(copies, &node).is_none_or(|own| own.leads <= own.alone);
    // Nor does anything change where all is as it is wished to be: nobody else may lead those that it still leads.
    let at_rest = std::cell::Cell::new(0);
    let comes_to_rest = |copies: &CopiesView| {
        at_rest.set(if copies.moving_ranges == 0 { at_rest.get() + 1 } else { 0 });
        at_rest.get() >= RESTING_LOOKS
    };
    let done = |copies: &CopiesView| {
        if back { copies.moving_ranges == 0 } else { led_alone(copies) || comes_to_rest(copies) }
    };
    let row = match wait(group, store, most, done) {
        Ok(copies) if back => {
            let message = format!("Leads {} ranges again", led(&copies));
            ActionRow::success(&node.machine, &action, message)
        }
        Ok(copies) if led(&copies) > 0 && led_alone(&copies) => {
            let message =
                format!("{} ranges stay with {}: it has their only copy", led(&copies), node.name);
            let hint = format!("wait until others are in sync: dkv store show {store}");
            ActionRow::failed(&node.machine, &action, "only_copy", message, hint)
        }
        Ok(copies) if led(&copies) > 0 => {
            let message = format!(
                "{} ranges stay with {}: the nodes that have copies of them do not run, or follow only by order",
                led(&copies),
                node.name
            );
            let hint =
                format!("let them lead again: dkv store failover {store} --instance NODE --back");
            ActionRow::failed(&node.machine, &action, "nobody_may_lead", message, hint)
        }
        Ok(_) => ActionRow::success(&node.machine, &action, "Leads nothing any more"),
        Err(last) => late(&node, &action, store, most, &format!("it leads {} ranges", led(&last))),
    };
    report(vec![row], view)
}

/// Restarts the nodes of a store one after the other, each when all ranges have their copies; nothing is lost and nothing
/// waits for long. Stops at the first that fails. Interrupted, it starts the node again that it has stopped.
pub fn restart_rolling<'a>(
    group: &Group,
    store: &str,
    patience: impl Into<Patience<'a>>,
) -> Report {
    const ACTION: &str = "Restart";
    let patience = patience.into();
    let view = match with_copies(group, store, None, ACTION) {
        Ok((view, _)) => view,
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let nodes: Vec<NodeRecord> = view.record.nodes.clone();
    let mut rows: Vec<ActionRow> = Vec::new();
    let mut failed = false;
    for node in &nodes {
        let action = format!("{ACTION}:{}", node.name);
        if failed || patience.is_over() {
            rows.push(ActionRow::skipped(&node.machine, &action, "Not tried"));
            continue;
        }
        let row = restart_one(group, store, node, &action, patience);
        failed = row.result != ActionResult::Success;
        rows.push(row);
    }
    report(rows, view)
}

/// The steps of a restart.
enum Step {
    Stop,
    Start,
}

fn restart_one(
    group: &Group,
    store: &str,
    node: &NodeRecord,
    action: &str,
    most: Patience<'_>,
) -> ActionRow {
    let whole = |copies: &CopiesView| copies.degraded_ranges == 0 && copies.offline_ranges == 0;
    let rest = |last: &CopiesView| {
        format!("{} ranges have fewer copies than they should", last.degraded_ranges)
    };
    if let Err(last) = wait(group, store, most, whole) {
        if most.is_over() {
            return ActionRow::skipped(&node.machine, action, "Not tried");
        }
        return late(node, action, store, most, &rest(&last));
    }
    for step in [Step::Stop, Step::Start] {
        let done = match step {
            Step::Stop => stop(group, store, Some(&node.name), false),
            Step::Start => start(group, store, Some(&node.name)),
        };
        if let Some(row) = done.rows.into_iter().find(|row| row.result != ActionResult::Success) {
            return ActionRow { action: action.to_string(), ..row };
        }
    }
    match wait(group, store, most, whole) {
        Ok(_) => ActionRow::success(&node.machine, action, "Restarted; its copies are in sync"),
        Err(last) if most.is_over() => {
            let message = format!("Restarted; {}, and come into sync by themselves", rest(&last));
            ActionRow::success(&node.machine, action, message)
        }
        Err(last) => late(node, action, store, most, &rest(&last)),
    }
}

const FORCE: &str = "ForceFailover";

/// Whether [`force`] has anything to go on without: before an operator is asked to confirm it.
///
/// # Errors
/// Rows that say why not: no such store, none with copies, or a machine that is neither of the store nor of its managers.
pub fn check_force(group: &Group, store: &str, gone: &[String]) -> Result<(), Vec<ActionRow>> {
    let view = find(group, store, FORCE)?;
    let manager = group.managers().into_iter().find(|one| !gone.contains(one)).unwrap_or_default();
    let refuse = |code: &str, message: String, hint: String| {
        Err(vec![ActionRow::failed(&manager, FORCE, code, message, hint)])
    };
    if view.record.definition.replication.is_none() {
        let message = format!("the store {store} has one copy of each range: nobody can take over");
        let hint = format!("copies are chosen at creation: dkv store create {store} --replicas 1");
        return refuse("no_copies", message, hint);
    }
    let views = group.each(crate::client::AdminClient::managers);
    let known: Vec<String> = views.into_iter().flatten().flat_map(|view| view.managers).collect();
    let covers = |machine: &String| view.record.nodes.iter().any(|node| node.machine == *machine);
    match gone.iter().find(|machine| !covers(machine) && !known.contains(machine)) {
        None => Ok(()),
        Some(machine) => {
            let message =
                format!("{machine} is no machine of the store {store} or of its managers");
            refuse("bad_machine", message, format!("dkv store show {store}; dkv manager list"))
        }
    }
}

/// Has the managers that are reached go on without machines that the operator vouches to be gone. The first that does it
/// is enough.
pub fn force(group: &Group, store: &str, gone: &[String]) -> Report {
    let action = FORCE;
    let mut rows = Vec::new();
    for client in group.clients().iter().filter(|c| !gone.iter().any(|g| g == c.manager())) {
        match client.go_on_without(store, gone) {
            Ok(_) => {
                let message = format!("Goes on without {}", gone.join(", "));
                rows = vec![ActionRow::success(client.manager(), action, message)];
                break;
            }
            Err(error) => rows.push(ActionRow::error(client.manager(), action, &error)),
        }
    }
    if rows.is_empty() {
        let manager = gone.first().cloned().unwrap_or_default();
        let message = "no manager is left that could go on".to_string();
        let hint = "name one that lives: -m 10.0.0.12:7801".to_string();
        rows.push(ActionRow::failed(&manager, action, "nobody_left", message, hint));
    }
    Report { rows, ..Report::default() }
}

/// How many ranges of a store are offline.
pub fn offline_ranges(group: &Group, store: &str) -> Result<u32, Vec<ActionRow>> {
    let (view, _) = with_copies(group, store, None, ACCEPT_LOSS)?;
    Ok(view.copies.map_or(0, |copies| copies.offline_ranges))
}

const ACCEPT_LOSS: &str = "AcceptLoss";

/// Has the offline ranges of a store start empty, as an operator accepts who has seen so many of them. The first manager
/// that does it is enough; then waits until they are served, at most `most`.
pub fn accept_loss(group: &Group, store: &str, seen: u32, most: Duration) -> Report {
    let view = match with_copies(group, store, None, ACCEPT_LOSS) {
        Ok((view, _)) => view,
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let mut rows = Vec::new();
    for client in group.clients() {
        match client.accept_loss(store, seen) {
            Ok(_) => {
                let served = |copies: &CopiesView| copies.offline_ranges == 0;
                let row = match wait(group, store, most.into(), served) {
                    Ok(_) => {
                        let message = format!("{seen} ranges are served again, empty");
                        ActionRow::success(client.manager(), ACCEPT_LOSS, message)
                    }
                    Err(last) => {
                        let left = last.offline_ranges;
                        let message = format!("{left} ranges have no node that runs to start on");
                        let hint = format!("dkv store start {store}; then the same command again");
                        ActionRow::late(client.manager(), ACCEPT_LOSS, message, hint)
                    }
                };
                return report(vec![row], view);
            }
            Err(error) => rows.push(ActionRow::error(client.manager(), ACCEPT_LOSS, &error)),
        }
    }
    report(rows, view)
}

pub(super) fn report(rows: Vec<ActionRow>, view: StoreView) -> Report {
    Report { rows, record: Some(view.record), ..Report::default() }
}

/// A store with copies that runs, and the node that was named.
pub(super) fn with_copies(
    group: &Group,
    store: &str,
    node: Option<&str>,
    action: &str,
) -> Result<(StoreView, Option<NodeRecord>), Vec<ActionRow>> {
    let view = find(group, store, action)?;
    let manager = view.record.nodes.first().map_or_else(String::new, |own| own.machine.clone());
    let refuse = |code: &str, message: String, hint: String| {
        Err(vec![ActionRow::failed(&manager, action, code, message, hint)])
    };
    let definition = &view.record.definition;
    if definition.replication.is_none() {
        return refuse(
            "no_copies",
            format!(
                "the store {store} has one copy of each range: what a node holds is lost when it stops"
            ),
            format!("copies are chosen at creation: dkv store create {store} --replicas 1"),
        );
    }
    if !view.nodes.iter().any(|node| node.state == Some(NodeState::Running)) {
        let hint = format!("dkv store start {store}");
        return refuse("store_stopped", format!("no node of the store {store} runs"), hint);
    }
    let Some(asked) = node else { return Ok((view, None)) };
    let prefix = &definition.instance_prefix;
    let found = view.record.nodes.iter().find(|own| names::is_node(prefix, &own.name, asked));
    let Some(found) = found.cloned() else {
        let all: Vec<&str> = view.record.nodes.iter().map(|own| own.name.as_str()).collect();
        return refuse(
            "no_such_node",
            format!("the store {store} has no node {asked:?}; its nodes are: {}", all.join(", ")),
            format!("dkv store show {store}"),
        );
    };
    Ok((view, Some(found)))
}

/// Any manager of the store will do; the node's own comes first. A row only when none did it.
pub(super) fn set_duty(
    group: &Group,
    store: &str,
    node: &NodeRecord,
    duty: NodeDuty,
    action: &str,
) -> Option<ActionRow> {
    let own = group.client(&node.machine);
    let others = group.clients().iter().filter(|client| client.manager() != node.machine);
    // What a manager answered says more than that another one is not there.
    let (mut answered, mut unreached) = (None, None);
    for client in own.into_iter().chain(others) {
        match client.set_duty(store, &node.name, duty) {
            Ok(_) => return None,
            Err(error) => {
                let refused = matches!(error, AdminError::Refused { .. });
                let first = if refused { &mut answered } else { &mut unreached };
                first.get_or_insert_with(|| ActionRow::error(client.manager(), action, &error));
            }
        }
    }
    answered
        .or(unreached)
        .or_else(|| Some(ActionRow::skipped(&node.machine, action, "No manager to ask")))
}

pub(super) fn of<'a>(copies: &'a CopiesView, node: &NodeRecord) -> Option<&'a NodeCopies> {
    copies.nodes.iter().find(|own| own.name == node.name)
}

/// Looks at the store until something is so; gives what was seen last when it is not in time, or not waited for.
pub(super) fn wait(
    group: &Group,
    store: &str,
    patience: Patience<'_>,
    so: impl Fn(&CopiesView) -> bool,
) -> Result<CopiesView, CopiesView> {
    let deadline = Instant::now() + patience.most;
    let mut last = CopiesView::default();
    loop {
        if let Some(copies) = list(group).store(store).and_then(|view| view.copies.clone()) {
            last = copies;
            if so(&last) {
                return Ok(last);
            }
        }
        if Instant::now() >= deadline || patience.is_over() {
            return Err(last);
        }
        std::thread::park_timeout(LOOK);
    }
}

pub(super) fn late(
    node: &NodeRecord,
    action: &str,
    store: &str,
    patience: Patience<'_>,
    what: &str,
) -> ActionRow {
    let when = if patience.is_over() {
        "interrupted:".to_string()
    } else {
        format!("after {} s", patience.most.as_secs())
    };
    let message = format!("{when} {what}; they go on moving");
    let hint = format!("look with: dkv store show {store}; the same command again goes on");
    ActionRow::late(&node.machine, action, message, hint)
}
