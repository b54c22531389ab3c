//! The routes: each reads its document, asks the manager, and answers JSON. What they mean stands in PRODUCT.md section 3
//! and in the OpenAPI document.

use super::{Api, group, logs, openapi, prometheus};
use crate::client::MESSAGES_PATH;
use crate::console;
use crate::history::HistoryView;
use crate::ranges::decode_messages;
use crate::refusal::Refusal;
use crate::samples::WINDOW_S_MAX;
use crate::supervise::Command;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use dkv_catalog::NotTaken;
use dkv_protocol::admin::{
    AcceptLossRequest, ForceRequest, GroupView, MessagesAnswer, TakeInRequest,
};
use dkv_protocol::admin::{
    AddInstanceRequest, CommitRequest, DutyRequest, HealthView, JoinRequest, LifeRequest,
    ManagersView, MetricsView, NodeChanged, NodeState, Reservation, ReservationRequest,
    StoreChange, StoreChanged, StoreDefinition, StoreView, StoresView,
};
use dkv_protocol::admin::{CatchUpAnswer, CatchUpRequest};
use dkv_protocol::users::{UserChanges, Users};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

pub(super) type Shared = State<Arc<Api>>;

pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(console::answer))
        .route("/console/{file}", get(console::answer))
        .route("/health", get(health))
        .route("/metrics", get(metrics_text))
        .route("/admin/v1/openapi.json", get(openapi_document))
        .route("/admin/v1/managers", get(managers).post(join))
        .route("/admin/v1/metrics", get(metrics))
        .route("/admin/v1/metrics/history", get(history))
        .route("/admin/v1/logs", get(logs::list))
        .route("/admin/v1/logs/{log}", get(logs::tail))
        .route("/admin/v1/stores", get(stores).post(create))
        .route("/admin/v1/stores/{store}", get(store).delete(delete_store))
        .route("/admin/v1/stores/{store}/reservations", post(reserve))
        .route("/admin/v1/stores/{store}/reservations/{reservation}", delete(release))
        .route("/admin/v1/stores/{store}/instances", post(add_instance))
        .route("/admin/v1/stores/{store}/instances/{node}/start", post(start))
        .route("/admin/v1/stores/{store}/instances/{node}/stop", post(stop))
        .route("/admin/v1/stores/{store}/instances/{node}/kill", post(kill))
        .route("/admin/v1/stores/{store}/instances/{node}/duty", post(set_duty))
        .route("/admin/v1/stores/{store}/users", get(users).post(change_users))
        .route("/admin/v1/stores/{store}/start", post(group::start))
        .route("/admin/v1/stores/{store}/stop", post(group::stop))
        .route("/admin/v1/stores/{store}/restart", post(group::restart))
        .route("/admin/v1/stores/{store}/life", post(begin_life))
        .route("/admin/v1/stores/{store}/force", post(go_on_without))
        .route("/admin/v1/stores/{store}/accept-loss", post(accept_loss))
        .route("/admin/v1/managers/{machine}", delete(remove_manager))
        .route("/admin/v1/managers/{machine}/prefer", post(prefer_manager))
        // The gate has bounded it.
        .route(MESSAGES_PATH, post(messages).layer(DefaultBodyLimit::disable()))
        .route("/admin/v1/raft/join", post(take_in))
        .route("/admin/v1/catchup", post(missed))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
}

async fn no_such_path(uri: Uri) -> Refusal {
    let shown: String = uri.path().chars().take(120).collect();
    Refusal::absent(
        "no_such_path",
        format!("there is nothing at {shown}"),
        "see what there is at /admin/v1/openapi.json",
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::of(
        405,
        "wrong_method",
        format!("{method} is not for {}", uri.path()),
        "see the methods at /admin/v1/openapi.json",
    )
}

/// Reads a document; every mistake in it is the caller's.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::bad(
            "bad_document",
            format!("the document is not what this call takes: {error}"),
            "see its fields at /admin/v1/openapi.json",
        )
    })
}

/// The query's values; anything that the call does not know is refused instead of passed over.
pub(super) fn query(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if known.contains(&name) {
                return Ok((name.to_string(), value.to_string()));
            }
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            Err(Refusal::bad(
                "bad_query",
                format!("{name:?} is not a parameter of this call; it takes: {known}"),
                "see the parameters at /admin/v1/openapi.json",
            ))
        })
        .collect()
}

pub(super) fn force(uri: &Uri) -> Result<bool, Refusal> {
    switches(uri, &["force"]).map(|[force]| force.unwrap_or(false))
}

/// The switches of a call that its query sets.
fn switches<const N: usize>(uri: &Uri, known: &[&str; N]) -> Result<[Option<bool>; N], Refusal> {
    let mut set = [None; N];
    for (name, value) in query(uri, known)? {
        let on = switch(&name, &value)?;
        if let Some(at) = known.iter().position(|one| *one == name) {
            set[at] = Some(on);
        }
    }
    Ok(set)
}

fn switch(name: &str, value: &str) -> Result<bool, Refusal> {
    value.parse().map_err(|_| {
        Refusal::bad(
            "bad_query",
            format!("{name} is true or false, not {value:?}"),
            format!("?{name}=true"),
        )
    })
}

async fn health(State(api): Shared) -> Json<HealthView> {
    Json(api.agent.health())
}

async fn metrics_text(State(api): Shared) -> Response {
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, prometheus::text(&api.agent)).into_response()
}

async fn openapi_document() -> Json<serde_json::Value> {
    Json(openapi::document())
}

async fn managers(State(api): Shared, uri: Uri) -> Result<Json<ManagersView>, Refusal> {
    match switches(&uri, &["group"])? {
        [Some(true)] => group::managers(&api).await.map(Json),
        _ => Ok(Json(api.agent.managers_view())),
    }
}

async fn join(State(api): Shared, body: Bytes) -> Result<Json<ManagersView>, Refusal> {
    let request: JoinRequest = read(&body)?;
    api.agent.join(&request.managers)?;
    Ok(Json(api.agent.managers_view()))
}

async fn metrics(State(api): Shared, uri: Uri) -> Result<Json<MetricsView>, Refusal> {
    let (mut window_s, mut of_group) = (5, false);
    for (name, value) in query(&uri, &["windowSec", "group"])? {
        if name == "group" {
            of_group = switch(&name, &value)?;
            continue;
        }
        window_s =
            value.parse().ok().filter(|s| (1..=WINDOW_S_MAX).contains(s)).ok_or_else(|| {
                Refusal::bad(
                    "bad_query",
                    format!(
                        "windowSec is a number of seconds from 1 to {WINDOW_S_MAX}, not {value:?}"
                    ),
                    "?windowSec=5",
                )
            })?;
    }
    if of_group {
        return group::metrics(&api, window_s).await.map(Json);
    }
    let window = Duration::from_secs(u64::from(window_s));
    let mut nodes = Vec::new();
    let machine = api.agent.machine();
    api.agent.each_live(|_, _, own, live| {
        let samples = live.samples.lock().expect("no holder of this lock panics");
        let running = own.state == NodeState::Running;
        nodes.extend(samples.metrics(machine, window).filter(|_| running));
    });
    Ok(Json(MetricsView { window_s, nodes, unreached: Vec::new() }))
}

async fn history(State(api): Shared, uri: Uri) -> Result<Json<HistoryView>, Refusal> {
    match switches(&uri, &["group"])? {
        [Some(true)] => group::history(&api).await.map(Json),
        _ => Ok(Json(group::own_history(&api.agent))),
    }
}

async fn stores(State(api): Shared, uri: Uri) -> Result<Json<StoresView>, Refusal> {
    match switches(&uri, &["group"])? {
        [Some(true)] => group::stores(&api).await.map(Json),
        _ => Ok(Json(StoresView { stores: api.agent.store_views(), ..StoresView::default() })),
    }
}

async fn store(State(api): Shared, Path(store): Path<String>) -> Result<Json<StoreView>, Refusal> {
    api.agent.store_view(&store).map(Json)
}

async fn create(State(api): Shared, body: Bytes) -> Result<Response, Refusal> {
    // Two documents, told apart by the field that only one of them has, so that each keeps its own messages.
    let shape: serde_json::Value = read(&body)?;
    let changed = if shape.get("record").is_some() {
        api.agent.commit(&read::<CommitRequest>(&body)?)?
    } else {
        api.agent.create(&read::<StoreDefinition>(&body)?)?
    };
    Ok(answer(changed))
}

fn answer(changed: StoreChanged) -> Response {
    let status = match changed.change {
        StoreChange::Created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    (status, Json(changed)).into_response()
}

async fn delete_store(
    State(api): Shared,
    Path(store): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let force = force(&uri)?;
    // A task of its own: a caller that goes away must not leave it half done.
    let done = tokio::spawn(async move { api.agent.delete(&store, force).await });
    finished(done).await.map(answer)
}

async fn finished<T>(task: tokio::task::JoinHandle<Result<T, Refusal>>) -> Result<T, Refusal> {
    task.await.unwrap_or_else(|_| {
        Err(Refusal::of(500, "failed", "the call failed inside the manager", "read its log"))
    })
}

async fn reserve(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Reservation>), Refusal> {
    let request: ReservationRequest = read(&body)?;
    if request.definition.name != store {
        return Err(Refusal::bad(
            "bad_name",
            format!("the path names {store:?}, the definition {:?}", request.definition.name),
            "name the same store in both",
        ));
    }
    let reservation = api.agent.reserve(&request)?;
    Ok((StatusCode::CREATED, Json(reservation)))
}

async fn release(
    State(api): Shared,
    Path((store, reservation)): Path<(String, String)>,
) -> Json<serde_json::Value> {
    api.agent.release(&store, &reservation);
    Json(serde_json::json!({}))
}

async fn add_instance(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request: AddInstanceRequest = read(&body)?;
    api.agent.add_instance(&store, &request).map(answer)
}

async fn start(
    State(api): Shared,
    Path((store, node)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<NodeChanged>, Refusal> {
    query(&uri, &[])?;
    let node = api.agent.resolve(&store, &node)?;
    api.agent.check_start(&store)?;
    api.agent.begin_life_alone(&store).await?;
    let message = api.agent.command(&store, &node, Command::Start).await?;
    api.agent.take_part_again(&store, &node).await?;
    changed(&api, &store, &node, message)
}

async fn stop(
    State(api): Shared,
    Path((store, node)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<NodeChanged>, Refusal> {
    let [force, handover] = switches(&uri, &["force", "handover"])?;
    let force = force.unwrap_or(false);
    let node = api.agent.resolve(&store, &node)?;
    let relieved = handover.unwrap_or(!force);
    // A task of its own: a caller that goes away must not leave it half done.
    let (agent, of, name) = (Arc::clone(&api.agent), store.clone(), node.clone());
    let done = tokio::spawn(async move {
        if relieved {
            return agent.stop_relieved(&of, &name, force).await;
        }
        agent.command(&of, &name, |reply| Command::Stop { force, reply }).await
    });
    let message = finished(done).await?;
    changed(&api, &store, &node, message)
}

async fn kill(
    State(api): Shared,
    Path((store, node)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<NodeChanged>, Refusal> {
    let force = force(&uri)?;
    let node = api.agent.resolve(&store, &node)?;
    let message = if force {
        api.agent.command(&store, &node, Command::Kill).await?
    } else {
        api.agent.kill_safely(&store, &node).await?
    };
    changed(&api, &store, &node, message)
}

async fn set_duty(
    State(api): Shared,
    Path((store, node)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<StoreView>, Refusal> {
    let request: DutyRequest = read(&body)?;
    api.agent.set_duty(&store, &node, request.duty).await?;
    api.agent.store_view(&store).map(Json)
}

async fn go_on_without(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<Json<StoreView>, Refusal> {
    let request: ForceRequest = read(&body)?;
    // A task of its own: a caller that goes away must not leave it half done.
    let agent = Arc::clone(&api.agent);
    let name = store.clone();
    let done = tokio::spawn(async move { agent.go_on_without(&name, &request.gone).await });
    finished(done).await?;
    api.agent.store_view(&store).map(Json)
}

async fn accept_loss(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<Json<StoreView>, Refusal> {
    let request: AcceptLossRequest = read(&body)?;
    api.agent.accept_loss(&store, request.offline_ranges).await?;
    api.agent.store_view(&store).map(Json)
}

async fn users(State(api): Shared, Path(store): Path<String>) -> Result<Json<Users>, Refusal> {
    api.agent.users(&store).map(Json)
}

async fn change_users(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<Json<Users>, Refusal> {
    let changes: UserChanges = read(&body)?;
    // A task of its own: a caller that goes away must not leave it undecided.
    let changed = tokio::spawn(async move { api.agent.change_users(&store, changes).await });
    finished(changed).await.map(Json)
}

async fn remove_manager(
    State(api): Shared,
    Path(machine): Path<String>,
) -> Result<Json<ManagersView>, Refusal> {
    api.agent.remove_manager(&machine).await?;
    Ok(Json(api.agent.managers_view()))
}

async fn prefer_manager(
    State(api): Shared,
    Path(machine): Path<String>,
    uri: Uri,
) -> Result<Json<ManagersView>, Refusal> {
    query(&uri, &[])?;
    api.agent.prefer_manager(&machine).await?;
    Ok(Json(api.agent.managers_view()))
}

async fn take_in(State(api): Shared, body: Bytes) -> Result<Json<GroupView>, Refusal> {
    let request: TakeInRequest = read(&body)?;
    api.agent.take_in(&request).await.map(Json)
}

async fn missed(State(api): Shared, body: Bytes) -> Result<Json<CatchUpAnswer>, Refusal> {
    let request: CatchUpRequest = read(&body)?;
    api.agent.missed_by(&request).map(Json)
}

async fn messages(State(api): Shared, body: Bytes) -> Result<Json<MessagesAnswer>, Refusal> {
    let Some((from, messages)) = decode_messages(&body) else {
        return Err(Refusal::bad(
            "bad_messages",
            "these are no messages between managers",
            "managers send them; there is nothing to do here for others",
        ));
    };
    let refused = api.agent.ranges().messages(from, &messages).map(|refused| match refused {
        NotTaken::OtherGroup => "other_group",
        NotTaken::OtherMember => "other_member",
        NotTaken::Forgotten => "forgotten",
        NotTaken::Malformed | NotTaken::Busy => "malformed",
    });
    Ok(Json(MessagesAnswer { refused: refused.map(str::to_string) }))
}

async fn begin_life(
    State(api): Shared,
    Path(store): Path<String>,
    body: Bytes,
) -> Result<Json<StoreView>, Refusal> {
    let request: LifeRequest = read(&body)?;
    api.agent.begin_life(&store, request.life).await?;
    api.agent.store_view(&store).map(Json)
}

fn changed(
    api: &Api,
    store: &str,
    node: &str,
    message: String,
) -> Result<Json<NodeChanged>, Refusal> {
    let view = api.agent.store_view(store)?;
    let node = view.nodes.into_iter().find(|own| own.record.name == node).ok_or_else(|| {
        Refusal::absent("no_such_node", "it was deleted meanwhile", "dkv store list")
    })?;
    Ok(Json(NodeChanged { message, node }))
}
