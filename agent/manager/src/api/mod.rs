//! The admin API over HTTP: connections with limits on everything a stranger can make long or slow, a gate that every
//! request passes, and routes.
//!
//! The order of the checks is that of their cost to us: host and origin (a browser on the operator's machine must not be
//! able to do anything), then the body within its bound, then the proof of the token, then the route.

mod group;
mod logs;
mod openapi;
mod prometheus;
mod routes;

use crate::auth::{Denied, Gate, Signed};
use crate::catalogue::Agent;
use crate::client::{MESSAGES_PATH, MESSAGES_TYPE, unix_s};
use crate::console;
use crate::refusal::Refusal;
use axum::Extension;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 100;
/// Most time for a request's head to come in, and for an idle connection.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest body, in bytes: a record of a thousand nodes fits.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest body of messages between managers, in bytes: what they agreed on about some hundred stores fits.
const MESSAGES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most time for a body to come in.
const BODY_MAX: Duration = Duration::from_secs(10);
/// Most time that a connection lives, whatever it does: a reader that never reads is gone after it.
const CONNECTION_MAX: Duration = Duration::from_mins(5);

/// What the gate and the routes share.
pub(crate) struct Api {
    pub(crate) agent: Arc<Agent>,
    gate: Mutex<Gate>,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

/// Answers calls until it is dropped.
pub(crate) async fn serve(agent: Arc<Agent>, listener: TcpListener) {
    let gate = Mutex::new(Gate::new(agent.token().clone()));
    let api = Arc::new(Api { agent, gate });
    let router = routes::router(Arc::clone(&api)).layer(from_fn_with_state(api, pass_gate));
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: those of connections that end will do.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        tokio::spawn(async move {
            let _permit = permit;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            // How a connection ends concerns its client alone.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        });
    }
}

async fn pass_gate(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match check(&api, peer, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    // A browser must not take an answer for anything else than it says it is.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn check(api: &Api, peer: SocketAddr, request: Request) -> Result<Request, Refusal> {
    let (head, body) = request.into_parts();
    let host = text(&head.headers, HOST.as_str()).unwrap_or_default();
    check_host(host, api.agent.address())?;
    check_origin(&head.headers, host)?;
    let messages = head.uri.path() == MESSAGES_PATH;
    // Only where a manager of the group sends from: a stranger makes nobody hold so much before he has proved anything.
    let most = if messages && api.agent.is_member_at(peer.ip()) {
        MESSAGES_BYTES_MAX
    } else {
        BODY_BYTES_MAX
    };
    let body = read_body(body, most).await?;
    // Whether a manager is up is no secret, and whoever asks it (a supervisor, a load balancer) has no token. Neither are the
    // files of the console, the same in every copy of the program; what they show they ask for with the token.
    if head.uri.path() != "/health" && !console::is_at(head.uri.path()) {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let method = head.method.as_str();
        let signed = Signed { method, host, target, body: &body };
        let authorization = text(&head.headers, AUTHORIZATION.as_str());
        let mut gate = api.gate.lock().expect("no holder of this lock panics");
        let from_loopback = is_this_machine(peer, api.agent.address());
        gate.check(authorization, from_loopback, &signed, unix_s()).map_err(denied)?;
    }
    let takes_body = head.method == Method::POST;
    if !takes_body && !body.is_empty() {
        return Err(Refusal::bad(
            "body_refused",
            format!("a {} has no body", head.method),
            "send the document with POST",
        ));
    }
    let kind = text(&head.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let fitting = if messages { MESSAGES_TYPE } else { "application/json" };
    if !body.is_empty() && !kind.eq_ignore_ascii_case(fitting) {
        return Err(Refusal::of(
            415,
            "not_json",
            "the body of a call is a JSON document",
            "send it with: Content-Type: application/json",
        ));
    }
    Ok(Request::from_parts(head, Body::from(body)))
}

/// Whether a call never left this machine: it came over loopback, or from the very address that this manager listens at,
/// which the kernel takes from no network.
fn is_this_machine(peer: SocketAddr, own: SocketAddr) -> bool {
    let from = peer.ip().to_canonical();
    from.is_loopback() || from == own.ip().to_canonical()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Only our own address (or a name of loopback) is us: a page that makes its own name point here gets nothing.
fn check_host(host: &str, own: SocketAddr) -> Result<(), Refusal> {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = if bare.eq_ignore_ascii_case("localhost") {
        own.ip().is_loopback().then_some(own.ip())
    } else {
        bare.trim_matches(['[', ']']).parse::<IpAddr>().ok()
    };
    if name == Some(own.ip()) {
        return Ok(());
    }
    let shown: String = host.chars().take(80).flat_map(char::escape_default).collect();
    Err(Refusal::of(
        421,
        "wrong_host",
        format!("the host \"{shown}\" is not this manager, which is {own}"),
        format!("call http://{own}/"),
    ))
}

/// Of the pages in a browser only our own console may call: it came from the very host that was just found to be us. A page
/// from elsewhere says so in this header and cannot help it; programs send none.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let own = format!("http://{host}");
    if headers.get_all(ORIGIN).iter().all(|origin| origin.as_bytes() == own.as_bytes()) {
        return Ok(());
    }
    Err(Refusal::of(
        403,
        "origin_refused",
        "calls from web pages are refused, except from this manager's own console",
        format!("open {own}/ or call the API from a program, without an Origin header"),
    ))
}

async fn read_body(body: Body, most: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::of(
            413,
            "body_too_large",
            format!("the body is longer than {most} bytes"),
            "send a smaller document",
        )
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(BODY_MAX, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::bad(
            "body_broken",
            "the body did not come in whole",
            "send the call again",
        )),
        Err(_) => Err(Refusal::of(
            408,
            "body_too_slow",
            format!("the body did not come in within {} s", BODY_MAX.as_secs()),
            "send the call again",
        )),
    }
}

fn denied(reason: Denied) -> Refusal {
    let (message, hint) = match reason {
        Denied::Missing => (
            "the call has no Authorization header",
            "use the dkv command line; or, on the manager's machine, curl -H \"Authorization: Bearer $(cat DATA_DIR/token)\"",
        ),
        Denied::Malformed => (
            "the Authorization header is neither a Bearer token nor a DKV-HMAC-SHA256 signature",
            "use the dkv command line; it signs its calls by itself",
        ),
        Denied::BearerFromElsewhere => (
            "the token itself is taken from the manager's own machine only",
            "use the dkv command line (it signs its calls), or call from that machine; for Prometheus: dkv generate prometheus-token",
        ),
        Denied::Wrong => (
            "the token is not this manager's",
            "give the token file of the group with --token-file or DKV_TOKEN_FILE",
        ),
        Denied::Clock => (
            "the call was signed more than 60 s ago, or in the future: the clocks of the two machines differ",
            "set both clocks (timedatectl status shows whether they are synchronised)",
        ),
        Denied::Replayed => ("the call was received before", "send it anew"),
        Denied::TooMany => ("too many calls within a minute", "try again in a minute"),
    };
    let status = if reason == Denied::TooMany { 429 } else { 401 };
    Refusal::of(status, "not_allowed", message, hint)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.document())).into_response();
        if self.status == 401 {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert("www-authenticate", scheme);
        }
        if [408, 413].contains(&self.status) {
            // The rest of the body would be taken for the next request.
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_names_are_taken_for_the_manager() {
        for (host, own, fine) in [
            ("127.0.0.1:7801", "127.0.0.1:7801", true),
            ("localhost:7801", "127.0.0.1:7801", true),
            ("localhost", "127.0.0.1:7801", true),
            ("127.0.0.1", "127.0.0.1:7801", true),
            ("[::1]:7801", "[::1]:7801", true),
            ("[::1]", "[::1]:7801", true),
            ("[::1]:99", "[::1]:7801", true),
            ("10.0.0.11:7801", "10.0.0.11:7801", true),
            ("localhost:7801", "10.0.0.11:7801", false),
            ("evil.example", "127.0.0.1:7801", false),
            ("127.0.0.1.evil.example:7801", "127.0.0.1:7801", false),
            ("", "127.0.0.1:7801", false),
        ] {
            assert_eq!(check_host(host, own.parse().unwrap()).is_ok(), fine, "{host} {own}");
        }
    }
}
