//! What is asked of all managers of the group through one of them, for those who reach only this one, as a page in a browser
//! does: how they stand, their stores put together, what all nodes do, and starting and stopping a store as a whole.
//!
//! It is the command line's own way ([`coordinate`]), gone from here with the group's token. A machine that is down is named
//! in the answer and holds up nothing for longer than [`LOOK_MAX`].

use super::Api;
use super::routes::{Shared, force, query};
use crate::catalogue::Agent;
use crate::client::{AdminClient, unix_s};
use crate::coordinate::{
    self, ActionResult, ActionRow, Group, Outcome, Report, Settings, Standing,
};
use crate::history::{HistoryView, NodeHistory, STEP_S};
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dkv_protocol::admin::{
    ErrorBody, ErrorDocument, ManagerStanding, ManagersView, MetricsView, StoreView, StoresView,
};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::oneshot;

/// Most time for another manager to say how things stand. Somebody looks again every few seconds, so a machine that is down
/// must not hold up what is known of the others.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Most time for one call that starts or stops a node.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Most time that a rolling restart waits for the copies of one node.
const IN_SYNC_MAX: Duration = Duration::from_mins(1);

/// What became of a store that was started, stopped or restarted.
#[derive(Debug, Serialize)]
pub(super) struct StoreRan {
    /// `Done`, or `Partly` when some nodes did not do it; the same call again completes it.
    pub(super) outcome: Outcome,
    /// One row a node.
    pub(super) rows: Vec<ActionRow>,
}

fn members(agent: &Agent, timeout: Duration) -> Group {
    let members: Vec<_> = agent.managers_view().managers.iter().flat_map(|m| m.parse()).collect();
    Group::new(&members, agent.token(), Settings { timeout, parallel: true, fail_fast: false })
}

/// Asks the group in a thread of its own: its calls wait, and this manager, which is one of those asked, must not. What was begun
/// goes on when the caller goes away, and ends with the manager, which waits for none of it when it is told to stop.
async fn ask<T: Send + 'static>(
    api: &Api,
    timeout: Duration,
    question: impl FnOnce(&Group) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let group = members(&api.agent, timeout);
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("group".to_string());
    // Where none can be had the sender is dropped, as it is when the question fails.
    let _ = thread.spawn(move || tell.send(question(&group)));
    told.await.map_err(|_| {
        Refusal::of(500, "failed", "the call failed inside the manager", "read its log")
    })
}

pub(super) async fn managers(api: &Api) -> Result<ManagersView, Refusal> {
    let look = |group: &Group| (coordinate::standing(group), coordinate::list(group).stores);
    let (all, stores) = ask(api, LOOK_MAX, look).await?;
    let own = api.agent.managers_view();
    Ok(ManagersView { standing: standing(&all, &stores), ..own })
}

fn standing(all: &[Standing], stores: &[StoreView]) -> Vec<ManagerStanding> {
    let fates = coordinate::fates(all, stores);
    let group = coordinate::group_of(all);
    let of_one = |one: &Standing| {
        let view = one.view.as_ref().ok();
        let member = group.and_then(|g| g.members.iter().find(|m| m.machine == one.machine));
        ManagerStanding {
            machine: one.machine.clone(),
            reachable: view.is_some(),
            reason: one.view.as_ref().err().map(ToString::to_string),
            version: view.map(|view| view.version.clone()),
            witness: view.map(|view| view.witness),
            votes: member.map(|member| member.votes),
            leads: group.is_some_and(|g| g.leader.as_ref() == Some(&one.machine)),
            fate: fates.iter().find(|(m, _)| *m == one.machine).map(|(_, fate)| fate.clone()),
        }
    };
    all.iter().map(of_one).collect()
}

pub(super) async fn stores(api: &Api) -> Result<StoresView, Refusal> {
    let listing = ask(api, LOOK_MAX, coordinate::list).await?;
    let silent = listing.managers.into_iter().filter(|(_, answer)| answer.is_err());
    let unreached = silent.map(|(machine, _)| machine).collect();
    Ok(StoresView { stores: listing.stores, unreached, differences: listing.differences })
}

pub(super) async fn metrics(api: &Api, window_s: u32) -> Result<MetricsView, Refusal> {
    ask(api, LOOK_MAX, move |group| {
        let answers = group.each(|client: &AdminClient| client.metrics(window_s));
        let mut view = MetricsView { window_s, nodes: Vec::new(), unreached: Vec::new() };
        for (machine, answer) in group.managers().into_iter().zip(answers) {
            match answer {
                Ok(own) => view.nodes.extend(own.nodes),
                Err(_) => view.unreached.push(machine),
            }
        }
        view
    })
    .await
}

/// What the nodes of this machine did over the last minutes.
pub(super) fn own_history(agent: &Agent) -> HistoryView {
    let now = unix_s();
    let mut nodes = Vec::new();
    agent.each_live(|store, record, _, live| {
        let points = live.trail.lock().expect("no holder of this lock panics").points(now);
        if !points.is_empty() {
            nodes.push(NodeHistory { store: store.to_string(), node: record.name.clone(), points });
        }
    });
    HistoryView { step_s: STEP_S, nodes, unreached: Vec::new() }
}

pub(super) async fn history(api: &Api) -> Result<HistoryView, Refusal> {
    ask(api, LOOK_MAX, |group| {
        let answers = group
            .each(|client: &AdminClient| client.get::<HistoryView>("/admin/v1/metrics/history"));
        let mut view = HistoryView { step_s: STEP_S, ..HistoryView::default() };
        for (machine, answer) in group.managers().into_iter().zip(answers) {
            match answer {
                Ok(own) => view.nodes.extend(own.nodes),
                Err(_) => view.unreached.push(machine),
            }
        }
        view
    })
    .await
}

pub(super) async fn start(
    State(api): Shared,
    Path(store): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    query(&uri, &[])?;
    let done = ask(&api, CALL_MAX, move |group| coordinate::start(group, &store, None));
    done.await.map(ran)
}

pub(super) async fn stop(
    State(api): Shared,
    Path(store): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let force = force(&uri)?;
    let done = ask(&api, CALL_MAX, move |group| coordinate::stop(group, &store, None, force));
    done.await.map(ran)
}

pub(super) async fn restart(
    State(api): Shared,
    Path(store): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    query(&uri, &[])?;
    ask(&api, CALL_MAX, move |group| restarted(group, &store)).await.map(ran)
}

/// With copies node after node, so that nothing is lost and nobody waits for long; without, all at once.
fn restarted(group: &Group, store: &str) -> Report {
    let listing = coordinate::list(group);
    let record = listing.store(store).map(|view| &view.record);
    if record.is_some_and(|record| record.definition.replication.is_some()) {
        return coordinate::restart_rolling(group, store, IN_SYNC_MAX);
    }
    let stopped = coordinate::stop(group, store, None, false);
    match stopped.outcome() {
        Outcome::Done => coordinate::start(group, store, None),
        _ => stopped,
    }
}

/// What was done at least in part is an answer; what was not, an error with the status that fits its reason.
fn ran(report: Report) -> Response {
    let outcome = report.outcome();
    let failed = report.rows.iter().find(|row| row.result == ActionResult::Failed);
    let status = match outcome {
        Outcome::Done | Outcome::Partly => 200,
        Outcome::Usage => 400,
        Outcome::NotConnected => 502,
        Outcome::TimedOut => 504,
        Outcome::Failed if failed.is_some_and(|row| row.code.starts_with("no_such")) => 404,
        Outcome::Failed => 409,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match failed {
        Some(row) if !status.is_success() => {
            let (code, message) = (row.code.clone(), row.message.clone());
            let error = ErrorBody { code, message, hint: row.hint.clone() };
            (status, Json(ErrorDocument { error })).into_response()
        }
        _ => (status, Json(StoreRan { outcome, rows: report.rows })).into_response(),
    }
}
