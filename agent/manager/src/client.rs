//! The client of one manager's admin API: blocking, with the right proof for each address, a time limit on everything,
//! and errors that a program can tell apart.

use crate::auth::{Signed, Token};
use crate::ranges::encode_messages;
use dkv_protocol::admin::{
    AcceptLossRequest, ForceRequest, GroupView, MessagesAnswer, TakeInRequest,
};
use dkv_protocol::admin::{
    AddInstanceRequest, CommitRequest, DutyRequest, ErrorBody, ErrorDocument, HealthView,
    JoinRequest, LifeRequest, LogFile, LogsView, ManagersView, MetricsView, NodeChanged, NodeDuty,
    Reservation, ReservationRequest, StoreChanged, StoreDefinition, StoreView, StoresView,
};
use dkv_protocol::admin::{CatchUp, CatchUpAnswer, CatchUpRequest};
use dkv_protocol::limits::MANAGER_PORT;
use dkv_protocol::users::{UserChanges, Users};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most time for a connection to be made; a machine that is there answers in a round trip.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Of the time for the whole call, so that a machine that is down is told from one that is slow to answer.
fn connect_max(call: Duration) -> Duration {
    CONNECT_MAX.min(call * 3 / 4)
}

/// Whether nothing can have been sent yet.
fn is_of_connecting(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    let before_all = [
        AddrNotAvailable,
        ConnectionRefused,
        HostUnreachable,
        NetworkDown,
        NetworkUnreachable,
        PermissionDenied,
    ];
    before_all.contains(&error.kind())
}

/// Where messages of the log go, and what their body is called.
pub(crate) const MESSAGES_PATH: &str = "/admin/v1/raft";
pub(crate) const MESSAGES_TYPE: &str = "application/octet-stream";
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a call gave no answer that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The connection ended before the answer came. The same call again tells.
    #[error(
        "the connection to the manager {manager} broke before its answer came ({reason}); what it was asked may be done"
    )]
    Broken {
        /// The manager.
        manager: String,
        /// What happened.
        reason: String,
    },
    /// No connection: nothing listens there, or the machine is down.
    #[error("cannot connect to the manager {manager}: {reason}")]
    NotConnected {
        /// Its address.
        manager: String,
        /// What the kernel said.
        reason: String,
    },
    /// Connected, but no answer in time. Whether the call was done is not known.
    #[error(
        "the manager {manager} did not answer within {seconds} s; what it was asked may still be done"
    )]
    TimedOut {
        /// Its address.
        manager: String,
        /// The limit.
        seconds: u64,
    },
    /// The manager said no.
    #[error("{}", .error.message)]
    Refused {
        /// Its address.
        manager: String,
        /// The HTTP status: 400 is a mistake in the request, 401 the wrong token, 404 not there, 409 a conflict.
        status: u16,
        /// Code, message and hint.
        error: ErrorBody,
    },
    /// Something else than a manager of a fitting version listens there.
    #[error("what listens at {manager} did not answer as a manager does: {reason}")]
    BadAnswer {
        /// Its address.
        manager: String,
        /// What was odd.
        reason: String,
    },
}

impl AdminError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::NotConnected { manager, .. } => format!(
                "start it on that machine with: dkv agent --listen {manager}  (or, for a local one: dkv up)"
            ),
            Self::TimedOut { .. } | Self::Broken { .. } => {
                "look at the state with: dkv store list; the same command again completes it"
                    .to_string()
            }
            Self::Refused { error, .. } => error.hint.clone(),
            Self::BadAnswer { .. } => "check the address and port of the manager".to_string(),
        }
    }

    /// Whether the thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The code of the refusal, as `store_exists`.
    pub fn code(&self) -> &str {
        match self {
            Self::NotConnected { .. } => "not_connected",
            Self::Broken { .. } => "connection_broken",
            Self::TimedOut { .. } => "timed_out",
            Self::Refused { error, .. } => &error.code,
            Self::BadAnswer { .. } => "bad_answer",
        }
    }
}

/// Why a text is not the address of a manager.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `0.0.0.0` or `::`.
    #[error(
        "{0} stands for every address of a machine and cannot be connected to. Give the machine's own address"
    )]
    Unspecified(String),
    /// Not an address at all.
    #[error("{0:?} is not the address of a manager. Give HOST, HOST:PORT or http://HOST:PORT")]
    Malformed(String),
    /// A name that no resolver knows.
    #[error("{name} cannot be resolved: {reason}. Give the machine's address")]
    Unknown {
        /// The name.
        name: String,
        /// What the resolver said.
        reason: String,
    },
}

/// Reads the address of a manager: `10.0.0.11`, `10.0.0.11:7801`, `[fd00::11]:7801`, `name:7801`,
/// `http://10.0.0.11:7801`. Without a port it is `port`.
pub fn parse_address(text: &str, port: Option<u16>) -> Result<SocketAddr, AddressError> {
    let malformed = || AddressError::Malformed(text.to_string());
    let port = port.unwrap_or(MANAGER_PORT);
    let plain = text.trim();
    let plain = plain.strip_prefix("http://").unwrap_or(plain).trim_end_matches('/');
    let address = if let Ok(address) = plain.parse::<SocketAddr>() {
        address
    } else if let Ok(ip) = plain.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        SocketAddr::new(ip, port)
    } else {
        let (name, port) = match plain.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| malformed())?),
            None => (plain, port),
        };
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
        if name.is_empty() || !name.bytes().all(letters) {
            return Err(malformed());
        }
        resolve(name, port)?
    };
    if address.ip().is_unspecified() {
        return Err(AddressError::Unspecified(text.to_string()));
    }
    if address.port() == 0 {
        return Err(malformed());
    }
    Ok(address)
}

fn resolve(name: &str, port: u16) -> Result<SocketAddr, AddressError> {
    let unknown = |reason: String| AddressError::Unknown { name: name.to_string(), reason };
    let found: Vec<SocketAddr> =
        (name, port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?.collect();
    // The first of the older kind: a manager given by name most often listens there.
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| unknown("it has no address".to_string()))
}

/// One manager, as its clients reach it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminClient {
    address: SocketAddr,
    manager: String,
    token: Token,
    timeout: Duration,
    agent: ureq::Agent,
}

impl AdminClient {
    /// A client of the manager at `address`. Nothing is sent yet. `timeout` bounds each call as a whole.
    pub fn new(address: SocketAddr, token: Token, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .timeout_connect(Some(connect_max(timeout)))
            .timeout_global(Some(timeout))
            .user_agent("dkv")
            .build();
        let agent = ureq::Agent::new_with_config(config);
        Self { address, manager: address.to_string(), token, timeout, agent }
    }

    /// The manager's address and port, which is also the name of its machine.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// The manager's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`; the path starts with `/`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.read(&self.call("GET", path, Vec::new(), "")?)
    }

    /// `GET path` of something that is not JSON, as `/metrics`.
    pub fn get_text(&self, path: &str) -> Result<String, AdminError> {
        let bytes = self.call("GET", path, Vec::new(), "")?;
        String::from_utf8(bytes).map_err(|_| self.bad_answer("not a text".to_string()))
    }

    /// `POST path` with a document.
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, AdminError> {
        let body = serde_json::to_vec(body).expect("the documents of the API are plain data");
        self.read(&self.call("POST", path, body, "application/json")?)
    }

    /// `DELETE path`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.read(&self.call("DELETE", path, Vec::new(), "")?)
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        kind: &str,
    ) -> Result<Vec<u8>, AdminError> {
        let host = &self.manager;
        let authorization = if self.address.ip().is_loopback() {
            self.token.bearer()
        } else {
            let signed = Signed { method, host, target: path, body: &body };
            self.token.sign(&signed, unix_s())
        };
        let has_body = method == "POST";
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"))
            .header("host", host)
            .header("authorization", authorization);
        if has_body {
            request = request.header("content-type", kind);
        }
        let bad = |error: ureq::http::Error| self.bad_answer(error.to_string());
        let answer = if has_body {
            self.agent.run(request.body(body).map_err(bad)?)
        } else {
            self.agent.run(request.body(()).map_err(bad)?)
        };
        let mut answer = answer.map_err(|error| self.failure(&error))?;
        let status = answer.status().as_u16();
        let read = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = read.map_err(|error| self.failure(&error))?;
        if (200..300).contains(&status) {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ErrorDocument>(&bytes) {
            Ok(document) => Err(AdminError::Refused {
                manager: self.manager.clone(),
                status,
                error: document.error,
            }),
            Err(_) => Err(self.bad_answer(format!("status {status} without an error document"))),
        }
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, AdminError> {
        serde_json::from_slice(bytes).map_err(|error| self.bad_answer(error.to_string()))
    }

    fn bad_answer(&self, reason: String) -> AdminError {
        AdminError::BadAnswer { manager: self.manager.clone(), reason }
    }

    fn failure(&self, error: &ureq::Error) -> AdminError {
        let manager = self.manager.clone();
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => AdminError::NotConnected {
                manager,
                reason: format!("no answer within {} s", connect_max(self.timeout).as_secs_f32()),
            },
            ureq::Error::Timeout(_) => {
                AdminError::TimedOut { manager, seconds: self.timeout.as_secs() }
            }
            ureq::Error::Io(error) if is_of_connecting(error) => {
                AdminError::NotConnected { manager, reason: error.to_string() }
            }
            ureq::Error::Io(error) => AdminError::Broken { manager, reason: error.to_string() },
            other => AdminError::BadAnswer { manager, reason: other.to_string() },
        }
    }
}

/// The calls of the API by name.
impl AdminClient {
    /// Whether it is up; needs no token.
    pub fn health(&self) -> Result<HealthView, AdminError> {
        self.get("/health")
    }

    /// The machines of its group.
    pub fn managers(&self) -> Result<ManagersView, AdminError> {
        self.get("/admin/v1/managers")
    }

    /// Adds machines to its group.
    pub fn join(&self, managers: Vec<String>) -> Result<ManagersView, AdminError> {
        self.post("/admin/v1/managers", &JoinRequest { managers })
    }

    /// Removes a machine from its group; asked of that machine itself, it goes on alone.
    pub fn remove_manager(&self, machine: &str) -> Result<ManagersView, AdminError> {
        self.delete(&format!("/admin/v1/managers/{}", segment(machine)))
    }

    /// Has a machine come first in its group: of two, its manager decides alone from then on.
    pub fn prefer_manager(&self, machine: &str) -> Result<ManagersView, AdminError> {
        let path = format!("/admin/v1/managers/{}/prefer", segment(machine));
        self.post(&path, &serde_json::json!({}))
    }

    /// Asks to be taken into its group.
    pub fn take_in(&self, request: &TakeInRequest) -> Result<GroupView, AdminError> {
        self.post("/admin/v1/raft/join", request)
    }

    /// What a manager has missed, as this one knows it. An answer that does not prove to be one of the group is no answer.
    pub(crate) fn catch_up(&self, request: &CatchUpRequest) -> Result<CatchUp, AdminError> {
        let answer: CatchUpAnswer = self.post("/admin/v1/catchup", request)?;
        if !self.token.is_proof(&request.nonce, &answer.text, &answer.proof) {
            return Err(self
                .bad_answer("it does not prove to come from a manager of the group".to_string()));
        }
        self.read(answer.text.as_bytes())
    }

    /// Messages of the log, from the manager of a machine. Why they were not for this one, if they were not.
    pub fn send_messages(
        &self,
        from: &str,
        messages: &[Vec<u8>],
    ) -> Result<Option<String>, AdminError> {
        let body = encode_messages(from, messages);
        let answer = self.call("POST", MESSAGES_PATH, body, MESSAGES_TYPE)?;
        self.read::<MessagesAnswer>(&answer).map(|answer| answer.refused)
    }

    /// Has it go on without machines that are gone, as an operator vouches.
    pub fn go_on_without(&self, store: &str, gone: &[String]) -> Result<StoreView, AdminError> {
        self.post(&store_path(store, "/force"), &ForceRequest { gone: gone.to_vec() })
    }

    /// Has offline ranges start empty, as an operator accepts who has seen so many of them.
    pub fn accept_loss(&self, store: &str, offline_ranges: u32) -> Result<StoreView, AdminError> {
        self.post(&store_path(store, "/accept-loss"), &AcceptLossRequest { offline_ranges })
    }

    /// The logs of its machine.
    pub fn logs(&self) -> Result<Vec<LogFile>, AdminError> {
        self.get::<LogsView>("/admin/v1/logs").map(|view| view.logs)
    }

    /// The last bytes of a log, as many at most.
    pub fn log_tail(&self, name: &str, bytes: u64) -> Result<String, AdminError> {
        self.get_text(&format!("/admin/v1/logs/{}?bytes={bytes}", segment(name)))
    }

    /// All stores of its catalogue.
    pub fn stores(&self) -> Result<Vec<StoreView>, AdminError> {
        self.get::<StoresView>("/admin/v1/stores").map(|view| view.stores)
    }

    /// One store.
    pub fn store(&self, name: &str) -> Result<StoreView, AdminError> {
        self.get(&store_path(name, ""))
    }

    /// The users of a store, as the managers agreed on them.
    pub fn users(&self, store: &str) -> Result<Users, AdminError> {
        self.get(&store_path(store, "/users"))
    }

    /// Changes users of a store; refused when they are not those any more that the changes were made of. Gives all users
    /// there are then.
    pub fn change_users(&self, store: &str, changes: &UserChanges) -> Result<Users, AdminError> {
        self.post(&store_path(store, "/users"), changes)
    }

    /// One store, or none when this manager has no record of it.
    pub fn find_store(&self, name: &str) -> Result<Option<StoreView>, AdminError> {
        match self.store(name) {
            Ok(view) => Ok(Some(view)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a store on this machine alone, in one go.
    pub fn create(&self, definition: &StoreDefinition) -> Result<StoreChanged, AdminError> {
        self.post("/admin/v1/stores", definition)
    }

    /// Holds names, ports and CPUs for a while.
    pub fn reserve(&self, request: &ReservationRequest) -> Result<Reservation, AdminError> {
        self.post(&store_path(&request.definition.name, "/reservations"), request)
    }

    /// Gives a reservation back.
    pub fn release(&self, store: &str, reservation: &str) -> Result<(), AdminError> {
        let path = store_path(store, &format!("/reservations/{}", segment(reservation)));
        self.delete::<serde_json::Value>(&path).map(|_| ())
    }

    /// Writes a record into its catalogue.
    pub fn commit(&self, request: &CommitRequest) -> Result<StoreChanged, AdminError> {
        self.post("/admin/v1/stores", request)
    }

    /// Deletes a store from this machine.
    pub fn delete_store(&self, name: &str, force: bool) -> Result<StoreChanged, AdminError> {
        self.delete(&store_path(name, if force { "?force=true" } else { "" }))
    }

    /// One more node on this machine, when it is the only one of its group.
    pub fn add_instance(
        &self,
        store: &str,
        request: &AddInstanceRequest,
    ) -> Result<StoreChanged, AdminError> {
        self.post(&store_path(store, "/instances"), request)
    }

    /// Starts a node of this machine; returns when it serves.
    pub fn start(&self, store: &str, node: &str) -> Result<NodeChanged, AdminError> {
        let path = store_path(store, &format!("/instances/{}/start", segment(node)));
        self.post(&path, &serde_json::json!({}))
    }

    /// Stops a node of this machine; returns when it is gone.
    pub fn stop(&self, store: &str, node: &str, force: bool) -> Result<NodeChanged, AdminError> {
        self.stop_how(store, node, if force { "?force=true" } else { "" })
    }

    /// Kills the process of a node of this machine, which starts anew by itself; `force`: also when the only copy of
    /// something is lost with it.
    pub fn kill(&self, store: &str, node: &str, force: bool) -> Result<NodeChanged, AdminError> {
        let query = if force { "?force=true" } else { "" };
        let path = store_path(store, &format!("/instances/{}/kill{query}", segment(node)));
        self.post(&path, &serde_json::json!({}))
    }

    /// Stops a node without handing over what it leads, because the whole store stops.
    pub fn stop_with_all(&self, store: &str, node: &str) -> Result<NodeChanged, AdminError> {
        self.stop_how(store, node, "?handover=false")
    }

    /// Gives a node of a store with copies, on whatever machine, another part.
    pub fn set_duty(
        &self,
        store: &str,
        node: &str,
        duty: NodeDuty,
    ) -> Result<StoreView, AdminError> {
        let path = store_path(store, &format!("/instances/{}/duty", segment(node)));
        self.post(&path, &DutyRequest { duty })
    }

    /// Begins a new life of a store with copies that is at rest on all its machines.
    pub fn begin_life(&self, store: &str, life: u64) -> Result<StoreView, AdminError> {
        self.post(&store_path(store, "/life"), &LifeRequest { life })
    }

    fn stop_how(&self, store: &str, node: &str, query: &str) -> Result<NodeChanged, AdminError> {
        let path = store_path(store, &format!("/instances/{}/stop{query}", segment(node)));
        self.post(&path, &serde_json::json!({}))
    }

    /// What the nodes of this machine did in the last seconds (1 to 60).
    pub fn metrics(&self, window_s: u32) -> Result<MetricsView, AdminError> {
        self.get(&format!("/admin/v1/metrics?windowSec={window_s}"))
    }
}

fn store_path(store: &str, rest: &str) -> String {
    format!("/admin/v1/stores/{}{rest}", segment(store))
}

/// A name as one part of a path, whatever was typed.
fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_spelling() {
        for (text, wanted) in [
            ("10.0.0.11", "10.0.0.11:7801"),
            ("10.0.0.11:7805", "10.0.0.11:7805"),
            ("http://10.0.0.11:7801/", "10.0.0.11:7801"),
            ("fd00::11", "[fd00::11]:7801"),
            ("[fd00::11]", "[fd00::11]:7801"),
            ("[fd00::11]:99", "[fd00::11]:99"),
            ("localhost", "127.0.0.1:7801"),
            ("localhost:7900", "127.0.0.1:7900"),
        ] {
            assert_eq!(parse_address(text, None).unwrap().to_string(), wanted, "{text}");
        }
        assert_eq!(parse_address("10.0.0.11", Some(99)).unwrap().to_string(), "10.0.0.11:99");
    }

    #[test]
    fn addresses_that_cannot_be_a_machine_are_refused() {
        for text in ["0.0.0.0", "::", "[::]:7801", "0.0.0.0:7801", "http://0.0.0.0"] {
            let refused = parse_address(text, None).unwrap_err();
            assert!(matches!(refused, AddressError::Unspecified(_)), "{text}: {refused}");
        }
        for text in ["", "a b", "10.0.0.11:0", "10.0.0.11:70000", "https://x/y", "::0:x"] {
            assert!(parse_address(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(store_path("../x?y", "/z"), "/admin/v1/stores/%2E%2E%2Fx%3Fy/z");
    }
}
