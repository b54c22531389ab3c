//! A node that leaves a store for good: its copies move to the others, it is stopped, and the store goes on without it. Of a
//! machine that is gone for good there is nothing to stop and nobody to tell; should it come back, it hears from the others.

use super::copies::{Patience, late, of, report, set_duty, wait, with_copies};
use super::run::stop;
use super::{ActionResult, ActionRow, Group, Report};
use crate::plan::names;
use dkv_protocol::admin::{
    CommitRequest, CopiesView, NodeDuty, NodeRecord, RemovedNode, StoreRecord,
};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const ACTION: &str = "RemoveInstance";
/// Most time for a node that is said to be gone to show that it is not.
const ALIVE_MAX: Duration = Duration::from_secs(2);
/// How long the copies of a machine that is gone may count: its leases, the takeover, and a decision of the managers.
const GONE_MAX: Duration = Duration::from_secs(30);

/// Removes a node; interrupted while its copies move, it keeps them. With `gone` its machine need not be reached, and must not: the operator says that it does
/// not come back.
pub fn remove_instance<'a>(
    group: &Group,
    store: &str,
    node: &str,
    gone: bool,
    patience: impl Into<Patience<'a>>,
) -> Report {
    let mut patience = patience.into();
    let (view, node) = match with_copies(group, store, Some(node), ACTION) {
        Ok((view, Some(node))) => (view, node),
        Ok((_, None)) => return Report::default(),
        Err(rows) => return Report { rows, ..Report::default() },
    };
    let action = format!("{ACTION}:{}", node.name);
    let checked = if gone { check_gone(group, store, &node, &action) } else { Ok(()) };
    let checked =
        checked.and_then(|()| check_reached(group, &view.record, &node, gone, &action)).and_then(
            |()| if gone { Ok(()) } else { check_leaves(store, &view.record, &node, &action) },
        );
    if let Err(row) = checked {
        return report(vec![*row], view);
    }
    // One that never ran holds nothing, and the managers may not even know it.
    let part = view.copies.as_ref().and_then(|copies| of(copies, &node));
    let has_part = part.is_none_or(|part| part.up || part.placed > 0 || part.in_sync > 0);
    if has_part && let Some(mut row) = set_duty(group, store, &node, NodeDuty::Leaves, &action) {
        if gone && row.code == "not_decided" {
            row.hint = format!(
                "when the machine that is gone was one of those that decide, the others go on without it after: \
                 dkv store failover {store} --force --gone {}; then this command again",
                node.machine
            );
        }
        return report(vec![row], view);
    }
    let held = |copies: &CopiesView| of(copies, &node).map_or(0, |own| own.in_sync);
    if gone {
        patience.most = patience.most.min(GONE_MAX);
    }
    if let Err(last) = wait(group, store, patience, |copies| held(copies) == 0) {
        if patience.is_over() && !gone {
            return report(vec![takes_part_again(group, store, &node, &action)], view);
        }
        let alone = of(&last, &node).map_or(0, |own| own.alone);
        if gone && alone > 0 {
            let message = format!("{} has the only copy of {alone} ranges", node.name);
            let hint = format!(
                "when it does not come back they are lost: dkv store failover {store} --force --gone {}; dkv store accept-loss \
                 {store}; then this command again",
                node.machine
            );
            let row = ActionRow::failed(&node.machine, &action, "only_copy", message, hint);
            return report(vec![row], view);
        }
        let what = format!("it still holds {} ranges", held(&last));
        return report(vec![late(&node, &action, store, patience, &what)], view);
    }
    if !gone {
        let stopped = stop(group, store, Some(&node.name), false);
        let failed = |row: &ActionRow| row.result != ActionResult::Success;
        if let Some(row) = stopped.rows.into_iter().find(failed) {
            return report(vec![ActionRow { action, ..row }], view);
        }
    }
    let mut record = view.record.clone();
    let Some(index) = record.index_of(&node.name) else { return Report::default() };
    let machines: Vec<String> = record.nodes.iter().map(|own| own.machine.clone()).collect();
    record.nodes.retain(|own| own.name != node.name);
    record.removed.push(RemovedNode { index, node: node.clone() });
    record.epoch.0 += 1;
    let request = CommitRequest { record: record.clone(), reservation: None };
    let mut rows: Vec<ActionRow> = Vec::new();
    let told = |manager: &str| {
        machines.iter().any(|machine| machine == manager) && !(gone && manager == node.machine)
    };
    for client in group.clients().iter().filter(|client| told(client.manager())) {
        rows.push(match client.commit(&request) {
            Ok(_) => ActionRow::success(client.manager(), &action, "Removed"),
            Err(error) => ActionRow::error(client.manager(), &action, &error),
        });
    }
    Report { rows, record: Some(record), ..Report::default() }
}

/// The removal was given up while copies moved away: they come back.
fn takes_part_again(group: &Group, store: &str, node: &NodeRecord, action: &str) -> ActionRow {
    set_duty(group, store, node, NodeDuty::Full, action).unwrap_or_else(|| {
        let message = "interrupted; it stays, and what had left it comes back".to_string();
        let hint = format!("dkv store show {store}");
        ActionRow::failed(&node.machine, action, "interrupted", message, hint)
    })
}

type Checked = Result<(), Box<ActionRow>>;

/// Whether enough nodes would be left for the copies that were asked for.
fn check_leaves(store: &str, record: &StoreRecord, node: &NodeRecord, action: &str) -> Checked {
    let refusal = match names::check_copies(&record.definition, record.nodes.len() - 1) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let message = format!("without it: {}", refusal.message);
    let hint = format!(
        "add another node first: dkv store add-instance {store}; or say that its machine does not come back: --gone"
    );
    Err(Box::new(ActionRow::failed(&node.machine, action, refusal.code, message, hint)))
}

/// Whether a node of which it is said that its machine is gone shows no sign of life, neither its manager nor itself.
fn check_gone(group: &Group, store: &str, node: &NodeRecord, action: &str) -> Checked {
    let manager = group.client(&node.machine).is_some_and(|client| client.health().is_ok());
    let ip = node.machine.parse::<SocketAddr>().map(|address| address.ip());
    let answers = |port: u16| {
        ip.as_ref().is_ok_and(|ip| {
            TcpStream::connect_timeout(&SocketAddr::new(*ip, port), ALIVE_MAX).is_ok()
        })
    };
    let who = if manager {
        format!("the manager {}", node.machine)
    } else if answers(node.cluster_port) || answers(node.client_port) {
        format!("the node {}", node.name)
    } else {
        return Ok(());
    };
    let message = format!("{who} answers, so it is not gone");
    let hint = if manager {
        format!("without --gone: dkv store remove-instance {store} --instance {}", node.name)
    } else {
        format!("start the manager of its machine, {}, and leave out --gone", node.machine)
    };
    Err(Box::new(ActionRow::failed(&node.machine, action, "it_lives", message, hint)))
}

/// The record is written to every machine of the store, so all have to be there before anything moves.
fn check_reached(
    group: &Group,
    record: &StoreRecord,
    node: &NodeRecord,
    gone: bool,
    action: &str,
) -> Checked {
    let needed = record.nodes.iter().filter(|own| !gone || own.machine != node.machine);
    for own in needed {
        let Some(client) = group.client(&own.machine) else {
            let message = format!("the manager {} of {} is not connected", own.machine, own.name);
            let managers = group.managers().join(",");
            let hint = format!("dkv connect -m {managers},{} --force", own.machine);
            let row = ActionRow::failed(&own.machine, action, "not_connected", message, hint);
            return Err(Box::new(row));
        };
        if let Err(error) = client.health() {
            let mut row = ActionRow::error(&own.machine, action, &error);
            if own.machine == node.machine {
                row.hint = format!(
                    "start it; or, when its machine does not come back: dkv store remove-instance {} --instance {} --gone",
                    record.definition.name, node.name
                );
            }
            return Err(Box::new(row));
        }
    }
    Ok(())
}
