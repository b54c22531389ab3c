//! The OpenAPI document, written by hand and held to the types by a test: every field of every document is in its schema.

use dkv_protocol::eviction::Eviction;
use dkv_protocol::io::IoChoice;
use serde_json::{Value, json};

/// The document at `/admin/v1/openapi.json`.
pub(super) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DKV manager",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Creates and runs the stores of a machine. On loopback the token is a Bearer token; elsewhere a call \
                carries `Authorization: DKV-HMAC-SHA256 time=T,nonce=N,signature=S`, where S is HMAC-SHA256(token; \"dkv admin 1\", \
                method, Host, path with query, SHA-256 of the body in hexadecimal, N, T, joined by newlines) in hexadecimal, T is \
                the Unix time in seconds, and N 32 random hexadecimal digits."
        },
        "components": { "schemas": schemas(), "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer" }
        }},
        "security": [ { "token": [] } ],
        "paths": paths(),
    })
}

fn paths() -> Value {
    let store = parameter("store", "path", &json!({ "type": "string" }), "The store.");
    let node =
        parameter("node", "path", &json!({ "type": "string" }), "The node; node-1 finds node1.");
    let reservation =
        parameter("reservation", "path", &json!({ "type": "string" }), "The reservation.");
    let force = parameter(
        "force",
        "query",
        &json!({ "type": "boolean" }),
        "Also when it runs; without waiting long.",
    );
    let last = parameter(
        "force",
        "query",
        &json!({ "type": "boolean" }),
        "Also when it has the only copy of some ranges, which is lost then.",
    );
    let machine = parameter(
        "machine",
        "path",
        &json!({ "type": "string" }),
        "Address and port of its manager.",
    );
    let handover = parameter(
        "handover",
        "query",
        &json!({ "type": "boolean" }),
        "Whether others lead its ranges before it ends, which is the default without force; refused when it has the only copy of some.",
    );
    let log = parameter("log", "path", &json!({ "type": "string" }), "The name in the listing.");
    let bytes = parameter(
        "bytes",
        "query",
        &json!({ "type": "integer", "minimum": 1, "maximum": super::logs::BYTES_MAX, "default": 1_048_576 }),
        "Most bytes that are given.",
    );
    let window = parameter(
        "windowSec",
        "query",
        &json!({ "type": "integer", "minimum": 1, "maximum": 60, "default": 5 }),
        "Seconds that the rates span.",
    );
    let group = parameter(
        "group",
        "query",
        &json!({ "type": "boolean", "default": false }),
        "Ask all managers of the group and put their answers together.",
    );
    let mut health =
        call("Whether the manager is up; needs no token.", &[], None, "200", "HealthView");
    health["security"] = json!([]);
    let mut create =
        call("Create a store, or commit a reserved one.", &[], None, "201", "StoreChanged");
    create["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": { "oneOf": [
        reference("StoreDefinition"), reference("CommitRequest")
    ]}}}});
    create["responses"]["200"] =
        answer("It exists already, the same; or it was extended.", &reference("StoreChanged"));
    json!({
        "/health": { "get": health },
        "/metrics": { "get": {
            "summary": "Counters and histograms in Prometheus' text format. `dkv generate prometheus-token` makes a Bearer token that reads them from any machine.",
            "responses": { "200": { "description": "The text.", "content": { "text/plain": {} } }, "default": error() }
        }},
        "/admin/v1/openapi.json": { "get": {
            "summary": "This document.",
            "responses": { "200": { "description": "OpenAPI 3.1.", "content": { "application/json": {} } }, "default": error() }
        }},
        "/admin/v1/managers": {
            "get": call("The machines of this group; with group=true how each stands.", &[&group], None, "200", "ManagersView"),
            "post": call("Add machines to this group.", &[], Some("JoinRequest"), "200", "ManagersView")
        },
        "/admin/v1/managers/{machine}": {
            "delete": call("Remove a machine from the group; asked of itself, it goes on alone.", &[&machine], None, "200", "ManagersView")
        },
        "/admin/v1/managers/{machine}/prefer": {
            "post": call("Have a machine come first: of two, its manager decides alone.", &[&machine], None, "200", "ManagersView")
        },
        "/admin/v1/raft": { "post": {
            "summary": "Messages between managers: the sender's machine and a line feed, then each with its length in four bytes.",
            "requestBody": { "required": true, "content": { "application/octet-stream": {} } },
            "responses": { "200": answer("Taken, or not.", &reference("MessagesAnswer")), "default": error() }
        }},
        "/admin/v1/catchup": {
            "post": call("What another manager has missed about its machine; managers ask it.", &[], Some("CatchUpRequest"), "200", "CatchUpAnswer")
        },
        "/admin/v1/raft/join": {
            "post": call("Take another manager into the group.", &[], Some("TakeInRequest"), "200", "GroupView")
        },
        "/admin/v1/stores/{store}/force": {
            "post": call("Go on without machines that are gone for certain, as an operator vouches.", &[&store], Some("ForceRequest"), "200", "StoreView")
        },
        "/admin/v1/stores/{store}/accept-loss": {
            "post": call("Give up what the offline ranges of a store held; they start empty.", &[&store], Some("AcceptLossRequest"), "200", "StoreView")
        },
        "/admin/v1/logs": {
            "get": call("The logs of this machine's manager and nodes.", &[], None, "200", "LogsView")
        },
        "/admin/v1/logs/{log}": { "get": {
            "summary": "The end of a log, from the beginning of a line.",
            "parameters": [log, bytes],
            "responses": { "200": { "description": "The text.", "content": { "text/plain": {} } }, "default": error() }
        }},
        "/admin/v1/metrics": {
            "get": call("Rates and totals of the nodes of this machine.", &[&window, &group], None, "200", "MetricsView")
        },
        "/admin/v1/metrics/history": {
            "get": call("What the nodes did over the last five minutes, a point every two seconds.", &[&group], None, "200", "HistoryView")
        },
        "/admin/v1/stores": {
            "get": call("All stores of this machine.", &[&group], None, "200", "StoresView"),
            "post": create
        },
        "/admin/v1/stores/{store}": {
            "get": call("One store.", &[&store], None, "200", "StoreView"),
            "delete": call("Delete a store from this machine.", &[&store, &force], None, "200", "StoreChanged")
        },
        "/admin/v1/stores/{store}/reservations": {
            "post": call("Hold names, ports and CPUs for 60 s.", &[&store], Some("ReservationRequest"), "201", "Reservation")
        },
        "/admin/v1/stores/{store}/reservations/{reservation}": { "delete": {
            "summary": "Give a reservation back.",
            "parameters": [store, reservation],
            "responses": { "200": { "description": "It is gone.", "content": { "application/json": {} } }, "default": error() }
        }},
        "/admin/v1/stores/{store}/instances": {
            "post": call("Add a node to a stopped store.", &[&store], Some("AddInstanceRequest"), "200", "StoreChanged")
        },
        "/admin/v1/stores/{store}/instances/{node}/start": {
            "post": call("Start a node; answered when it serves.", &[&store, &node], None, "200", "NodeChanged")
        },
        "/admin/v1/stores/{store}/instances/{node}/stop": {
            "post": call("Stop a node; answered when it is gone.", &[&store, &node, &force, &handover], None, "200", "NodeChanged")
        },
        "/admin/v1/stores/{store}/instances/{node}/kill": {
            "post": call("Kill the process of a node, which then starts anew, as after a crash: for tests of what that costs. Answered at once.", &[&store, &node, &last], None, "200", "NodeChanged")
        },
        "/admin/v1/stores/{store}/instances/{node}/duty": {
            "post": call("Give a node of a store with copies another part; its ranges move afterwards.", &[&store, &node], Some("DutyRequest"), "200", "StoreView")
        },
        "/admin/v1/stores/{store}/users": {
            "get": call("The users of a store, each a line as ACL LIST shows it.", &[&store], None, "200", "Users"),
            "post": call("Change users, if what is given of them is so still; the same on every node.", &[&store], Some("UserChanges"), "200", "Users")
        },
        "/admin/v1/stores/{store}/start": {
            "post": call("Start all nodes of a store, on all its machines; answered when each serves.", &[&store], None, "200", "StoreRan")
        },
        "/admin/v1/stores/{store}/stop": {
            "post": call("Stop all nodes of a store, on all its machines; what it holds in memory is lost.", &[&store, &force], None, "200", "StoreRan")
        },
        "/admin/v1/stores/{store}/restart": {
            "post": call("Restart all nodes of a store: with copies one after the other, so that nothing is lost.", &[&store], None, "200", "StoreRan")
        },
        "/admin/v1/stores/{store}/life": {
            "post": call("Begin a new life of a store with copies that was stopped on all its machines.", &[&store], Some("LifeRequest"), "200", "StoreView")
        }
    })
}

fn call(
    summary: &str,
    parameters: &[&Value],
    body: Option<&str>,
    status: &str,
    schema: &str,
) -> Value {
    let mut call = json!({
        "summary": summary,
        "responses": { status: answer("Done.", &reference(schema)), "default": error() }
    });
    if !parameters.is_empty() {
        call["parameters"] = json!(parameters);
    }
    if let Some(body) = body {
        call["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": reference(body) } } });
    }
    call
}

fn parameter(name: &str, place: &str, schema: &Value, what: &str) -> Value {
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema, "description": what })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn answer(what: &str, schema: &Value) -> Value {
    json!({ "description": what, "content": { "application/json": { "schema": schema } } })
}

fn error() -> Value {
    answer("What failed, why, and what to type next.", &reference("ErrorDocument"))
}

/// A schema from `name: kind` pairs; a `?` at the end of a name is a field that may be left out. Kinds: `string`,
/// `integer`, `number`, `boolean`, a schema's name, any of them in brackets for a list, and `|` between words of a choice.
fn object(fields: &[(&str, &str)]) -> Value {
    let kind = |kind: &str| match kind {
        "string" | "integer" | "number" | "boolean" => json!({ "type": kind }),
        choice if choice.contains('|') => json!({ "enum": choice.split('|').collect::<Vec<_>>() }),
        name => reference(name),
    };
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (name, of) in fields {
        let bare = name.trim_end_matches('?');
        let inner = of.trim_start_matches('[').trim_end_matches(']');
        let mut schema = kind(inner);
        if inner.len() != of.len() {
            schema = json!({ "type": "array", "items": schema });
        }
        if bare.len() == name.len() {
            required.push(bare);
        }
        properties.insert(bare.to_string(), schema);
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn schemas() -> Value {
    const DUTIES: &str = "full|follows|leaves";
    const STATES: &str = "Requested|Spawning|Running|Stopping|Stopped|Restarting|Failed";
    let eviction = Eviction::ALL.map(|(_, name)| name).join("|");
    let io = IoChoice::ALL.map(|(_, name)| name).join("|");
    let node_record = [
        ("name", "string"),
        ("machine", "string"),
        ("cluster_port", "integer"),
        ("client_port", "integer"),
        ("shard_ports", "[integer]"),
        ("cpus", "[integer]"),
        ("cpus_exclusive", "boolean"),
    ];
    let mut node_view = node_record.to_vec();
    node_view.extend([
        ("state?", STATES),
        ("pid?", "integer"),
        ("restarts", "integer"),
        ("message?", "string"),
        ("cluster_ok", "boolean"),
        ("io?", "string"),
    ]);
    let mut all = json!({
        "StoreDefinition": object(&[
            ("name", "string"),
            ("instance_prefix", "string"),
            ("instance_count", "integer"),
            ("clustron_port?", "integer"),
            ("client_port?", "integer"),
            ("cpus?", "integer"),
            ("memory_bytes_max?", "integer"),
            ("eviction?", &eviction),
            ("io?", &io),
            ("replication?", "Replication"),
            ("password_sha256?", "string"),
            ("protected_mode?", "boolean"),
        ]),
        "Replication": object(&[
            ("replicas", "integer"),
            ("ack?", "all|async"),
            ("min_insync?", "integer"),
            ("read?", "lease|confirm"),
            ("on_total_loss?", "offline|reinit"),
        ]),
        "NodeRecord": object(&node_record),
        "StoreRecord": object(&[
            ("definition", "StoreDefinition"),
            ("id", "string"),
            ("hash_seed", "string"),
            ("epoch", "integer"),
            ("nodes", "[NodeRecord]"),
            ("removed?", "[RemovedNode]"),
        ]),
        "RemovedNode": object(&[("index", "integer"), ("node", "NodeRecord")]),
        "NodeView": object(&node_view),
        "StoreView": object(&[
            ("record", "StoreRecord"),
            ("status", "Created|Starting|Running|Partial|Stopped|NoInstances"),
            ("nodes", "[NodeView]"),
            ("copies?", "CopiesView"),
        ]),
        "CopiesView": object(&[
            ("life", "integer"),
            ("changes", "integer"),
            ("unformed_ranges", "integer"),
            ("offline_ranges", "integer"),
            ("degraded_ranges", "integer"),
            ("moving_ranges", "integer"),
            ("nodes", "[NodeCopies]"),
        ]),
        "NodeCopies": object(&[
            ("name", "string"),
            ("up", "boolean"),
            ("duty", DUTIES),
            ("leads", "integer"),
            ("in_sync", "integer"),
            ("alone", "integer"),
            ("placed", "integer"),
        ]),
        "DutyRequest": object(&[("duty", DUTIES)]),
        "LifeRequest": object(&[("life", "integer")]),
        "Users": object(&[("version", "integer"), ("lines", "[string]")]),
        "UserChanges": object(&[("given", "[UserLine]"), ("changes", "[UserLine]")]),
        "UserLine": object(&[("name", "string"), ("line?", "string")]),
        "StoresView": object(&[
            ("stores", "[StoreView]"),
            ("unreached?", "[string]"),
            ("differences?", "[string]"),
        ]),
        "StoreRan": object(&[("outcome", "Done|Partly"), ("rows", "[ActionRow]")]),
        "ActionRow": object(&[
            ("manager", "string"),
            ("action", "string"),
            ("result", "SUCCESS|FAILED|SKIPPED"),
            ("message", "string"),
            ("hint", "string"),
            ("code", "string"),
        ]),
        "ReservationRequest": object(&[
            ("definition", "StoreDefinition"),
            ("machines", "[string]"),
            ("first_ordinal", "integer"),
            ("count", "integer"),
            ("base_epoch?", "integer"),
            ("node_name?", "string"),
            ("cluster_port?", "integer"),
            ("client_port?", "integer"),
        ]),
        "Reservation": object(&[
            ("id", "string"),
            ("machine", "string"),
            ("nodes", "[NodeRecord]"),
            ("warnings", "[string]"),
            ("expires_in_s", "integer"),
        ]),
        "CommitRequest": object(&[("record", "StoreRecord"), ("reservation?", "string")]),
        "StoreChanged": object(&[
            ("change", "Created|AlreadyExists|Extended|Deleted"),
            ("record", "StoreRecord"),
            ("warnings", "[string]"),
        ]),
        "AddInstanceRequest": object(&[
            ("machine?", "string"),
            ("name?", "string"),
            ("cluster_port?", "integer"),
            ("client_port?", "integer"),
        ]),
        "NodeChanged": object(&[("message", "string"), ("node", "NodeView")]),
        "ManagersView": object(&[
            ("this", "string"),
            ("pid", "integer"),
            ("version", "string"),
            ("managers", "[string]"),
            ("witness?", "boolean"),
            ("group?", "GroupView"),
            ("standing?", "[ManagerStanding]"),
        ]),
        "ManagerStanding": object(&[
            ("machine", "string"),
            ("reachable", "boolean"),
            ("reason?", "string"),
            ("version?", "string"),
            ("witness?", "boolean"),
            ("votes?", "boolean"),
            ("leads", "boolean"),
            ("fate?", "string"),
        ]),
        "GroupView": object(&[
            ("number?", "integer"),
            ("id?", "integer"),
            ("leader?", "string"),
            ("members", "[GroupMember]"),
            ("settled?", "boolean"),
            ("applied", "integer"),
            ("stores", "integer"),
            ("superseded", "[integer]"),
        ]),
        "GroupMember": object(&[("machine", "string"), ("id", "integer"), ("votes", "boolean")]),
        "TakeInRequest": object(&[("machine", "string"), ("id", "integer")]),
        "CatchUpRequest": object(&[
            ("machine", "string"),
            ("nonce", "string"),
            ("known", "[KnownStore]"),
        ]),
        "KnownStore": object(&[("id", "string"), ("epoch", "integer")]),
        "CatchUpAnswer": object(&[("text", "string"), ("proof", "string")]),
        "MessagesAnswer": object(&[("refused?", "string")]),
        "ForceRequest": object(&[("gone", "[string]")]),
        "AcceptLossRequest": object(&[("offline_ranges", "integer")]),
        "JoinRequest": object(&[("managers", "[string]")]),
        "HealthView": object(&[
            ("status", "ok|degraded"),
            ("machine", "string"),
            ("nodes_running", "integer"),
            ("nodes_wanted", "integer"),
        ]),
        "Rate": object(&[("per_second?", "number"), ("total", "integer")]),
        "NodeMetrics": object(&[
            ("store", "string"),
            ("node", "string"),
            ("machine", "string"),
            ("span_s", "number"),
            ("commands", "Rate"),
            ("gets", "Rate"),
            ("puts", "Rate"),
            ("removes", "Rate"),
            ("keys", "integer"),
            ("connections", "integer"),
            ("forwarded", "Rate"),
            ("errors", "Rate"),
            ("memory_bytes", "integer"),
            ("resident_bytes", "integer"),
            ("cpus_used?", "number"),
            ("p50_us?", "number"),
            ("p99_us?", "number"),
            ("p999_us?", "number"),
            ("queue_us?", "number"),
            ("execution_us?", "number"),
            ("replication_lag", "integer"),
            ("replication_wait_us?", "number"),
            ("replication_oldest_ms", "integer"),
            ("expiry_lag_ms", "integer"),
            ("stalls", "Rate"),
        ]),
        "MetricsView": object(&[
            ("window_s", "integer"),
            ("nodes", "[NodeMetrics]"),
            ("unreached?", "[string]"),
        ]),
        "ErrorBody": object(&[("code", "string"), ("message", "string"), ("hint", "string")]),
        "ErrorDocument": object(&[("error", "ErrorBody")]),
    });
    // Apart from the others: the macro nests as deep as it has fields.
    for (name, schema) in history_schemas() {
        all[name] = schema;
    }
    all["LogsView"] = object(&[("logs", "[LogFile]")]);
    all["LogFile"] = object(&[("name", "string"), ("bytes", "integer")]);
    all
}

fn history_schemas() -> [(&'static str, Value); 3] {
    [
        (
            "HistoryView",
            object(&[
                ("step_s", "integer"),
                ("nodes", "[NodeHistory]"),
                ("unreached?", "[string]"),
            ]),
        ),
        (
            "NodeHistory",
            object(&[("store", "string"), ("node", "string"), ("points", "[HistoryPoint]")]),
        ),
        (
            "HistoryPoint",
            object(&[
                ("at_s", "integer"),
                ("gets?", "number"),
                ("puts?", "number"),
                ("removes?", "number"),
                ("p50_us?", "number"),
                ("p99_us?", "number"),
                ("p999_us?", "number"),
            ]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::group::StoreRan;
    use crate::coordinate::{ActionRow, Outcome};
    use crate::history::{HistoryView, NodeHistory, Point};
    use dkv_protocol::admin::{
        AcceptLossRequest, ForceRequest, GroupMember, GroupView, MessagesAnswer, TakeInRequest,
    };
    use dkv_protocol::admin::{
        AddInstanceRequest, CommitRequest, CopiesView, DutyRequest, ErrorBody, ErrorDocument,
        HealthView, JoinRequest, LifeRequest, LogFile, LogsView, ManagerStanding, ManagersView,
        MetricsView, NodeChanged, NodeCopies, NodeDuty, NodeMetrics, NodeRecord, NodeState,
        NodeView, Rate, RemovedNode, Reservation, ReservationRequest, StoreChange, StoreChanged,
        StoreDefinition, StoreRecord, StoreStatus, StoreView, StoresView,
    };
    use dkv_protocol::admin::{CatchUpAnswer, CatchUpRequest, KnownStore};
    use dkv_protocol::ids::{Epoch, NodeIndex, StoreId};
    use dkv_protocol::ranges::Replication;
    use dkv_protocol::users::{UserChanges, UserLine, Users};
    use serde::Serialize;
    use std::collections::BTreeSet;

    /// Every field set, so that every field shows.
    fn examples() -> Vec<(&'static str, Value)> {
        fn value(name: &'static str, of: &impl Serialize) -> (&'static str, Value) {
            (name, serde_json::to_value(of).unwrap())
        }
        let text = || "x".to_string();
        let definition = StoreDefinition {
            name: text(),
            instance_prefix: text(),
            instance_count: 1,
            clustron_port: Some(1),
            client_port: Some(1),
            cpus: Some(1),
            memory_bytes_max: 1,
            eviction: Eviction::AllKeysLru,
            io: IoChoice::Epoll,
            replication: Some(Replication::NONE),
            password_sha256: Some(text()),
            protected_mode: true,
        };
        let node = NodeRecord {
            name: text(),
            machine: text(),
            cluster_port: 1,
            client_port: 2,
            shard_ports: vec![3],
            cpus: vec![0],
            cpus_exclusive: true,
        };
        let removed = RemovedNode { index: NodeIndex(1), node: node.clone() };
        let record = StoreRecord {
            definition: definition.clone(),
            id: StoreId(text()),
            hash_seed: text(),
            epoch: Epoch(1),
            nodes: vec![node.clone()],
            removed: vec![removed.clone()],
        };
        let node_view = NodeView {
            record: node.clone(),
            state: Some(NodeState::Running),
            pid: Some(1),
            restarts: 0,
            message: Some(text()),
            cluster_ok: true,
            io: Some(text()),
        };
        // What is sent flat is read back flat.
        let back: NodeView =
            serde_json::from_value(serde_json::to_value(&node_view).unwrap()).unwrap();
        assert_eq!(back, node_view);
        let view = StoreView {
            record: record.clone(),
            status: StoreStatus::Running,
            nodes: vec![node_view.clone()],
            copies: Some(CopiesView::default()),
        };
        let node_copies = NodeCopies {
            name: text(),
            up: true,
            duty: NodeDuty::Full,
            leads: 1,
            in_sync: 2,
            alone: 0,
            placed: 2,
        };
        let rate = Rate { per_second: Some(1.0), total: 1 };
        let metrics = NodeMetrics {
            store: text(),
            node: text(),
            machine: text(),
            span_s: 1.0,
            commands: rate,
            gets: rate,
            puts: rate,
            removes: rate,
            keys: 1,
            connections: 1,
            forwarded: rate,
            errors: rate,
            memory_bytes: 1,
            resident_bytes: 1,
            cpus_used: Some(1.0),
            p50_us: Some(1.0),
            p99_us: Some(1.0),
            p999_us: Some(1.0),
            queue_us: Some(1.0),
            execution_us: Some(1.0),
            replication_lag: 1,
            replication_wait_us: Some(1.0),
            replication_oldest_ms: 1,
            expiry_lag_ms: 1,
            stalls: rate,
        };
        let error = ErrorBody { code: text(), message: text(), hint: text() };
        let (machine, name) = (Some(text()), Some(text()));
        vec![
            value("StoreDefinition", &definition),
            value("Replication", &Replication::NONE),
            value("NodeRecord", &node),
            value("StoreRecord", &record),
            value("RemovedNode", &removed),
            value("NodeView", &node_view),
            value("StoreView", &view),
            value("CopiesView", &CopiesView::default()),
            value("NodeCopies", &node_copies),
            value("DutyRequest", &DutyRequest { duty: NodeDuty::Leaves }),
            value("LifeRequest", &LifeRequest { life: 2 }),
            value("Users", &Users::default()),
            value("UserChanges", &UserChanges { given: vec![], changes: vec![] }),
            value("UserLine", &UserLine { name: text(), line: Some(text()) }),
            value(
                "StoresView",
                &StoresView { stores: vec![], unreached: vec![text()], differences: vec![text()] },
            ),
            value("StoreRan", &StoreRan { outcome: Outcome::Done, rows: vec![] }),
            value("ActionRow", &ActionRow::success("x", "x", "x")),
            value(
                "ReservationRequest",
                &ReservationRequest {
                    definition,
                    machines: vec![],
                    first_ordinal: 1,
                    count: 1,
                    base_epoch: Some(Epoch(1)),
                    node_name: Some(text()),
                    cluster_port: Some(1),
                    client_port: Some(1),
                },
            ),
            value(
                "Reservation",
                &Reservation {
                    id: text(),
                    machine: text(),
                    nodes: vec![],
                    warnings: vec![],
                    expires_in_s: 60,
                },
            ),
            value(
                "CommitRequest",
                &CommitRequest { record: record.clone(), reservation: Some(text()) },
            ),
            value(
                "StoreChanged",
                &StoreChanged { change: StoreChange::Created, record, warnings: vec![] },
            ),
            value(
                "AddInstanceRequest",
                &AddInstanceRequest { machine, name, cluster_port: Some(1), client_port: Some(1) },
            ),
            value("NodeChanged", &NodeChanged { message: text(), node: node_view }),
            value(
                "ManagersView",
                &ManagersView {
                    this: text(),
                    pid: 1,
                    version: text(),
                    managers: vec![],
                    witness: true,
                    group: GroupView::default(),
                    standing: vec![ManagerStanding::default()],
                },
            ),
            value(
                "ManagerStanding",
                &ManagerStanding {
                    reason: Some(text()),
                    version: Some(text()),
                    witness: Some(true),
                    votes: Some(true),
                    fate: Some(text()),
                    ..ManagerStanding::default()
                },
            ),
            value("GroupView", &GroupView::default()),
            value("GroupMember", &GroupMember { machine: text(), id: 1, votes: true }),
            value("TakeInRequest", &TakeInRequest { machine: text(), id: 1 }),
            value(
                "CatchUpRequest",
                &CatchUpRequest { machine: text(), nonce: text(), known: vec![] },
            ),
            value("KnownStore", &KnownStore { id: StoreId(text()), epoch: Epoch(1) }),
            value("CatchUpAnswer", &CatchUpAnswer { text: text(), proof: text() }),
            value("MessagesAnswer", &MessagesAnswer { refused: Some(text()) }),
            value("ForceRequest", &ForceRequest { gone: vec![] }),
            value("AcceptLossRequest", &AcceptLossRequest { offline_ranges: 1 }),
            value("JoinRequest", &JoinRequest { managers: vec![] }),
            value(
                "HealthView",
                &HealthView { status: text(), machine: text(), nodes_running: 1, nodes_wanted: 1 },
            ),
            value("LogsView", &LogsView { logs: vec![] }),
            value("LogFile", &LogFile { name: text(), bytes: 1 }),
            value("Rate", &rate),
            value(
                "MetricsView",
                &MetricsView { window_s: 5, nodes: vec![], unreached: vec![text()] },
            ),
            value("NodeMetrics", &metrics),
            value(
                "HistoryView",
                &HistoryView { unreached: vec![text()], ..HistoryView::default() },
            ),
            value("NodeHistory", &NodeHistory::default()),
            value("HistoryPoint", &Point::default()),
            value("ErrorBody", &error),
            value("ErrorDocument", &ErrorDocument { error: error.clone() }),
        ]
    }

    #[test]
    fn every_field_of_every_document_is_in_its_schema() {
        let schemas = schemas();
        let examples = examples();
        let named: BTreeSet<&str> = examples.iter().map(|(name, _)| *name).collect();
        let all: BTreeSet<&str> = schemas.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(named, all);
        for (name, example) in &examples {
            let have: BTreeSet<&String> = example.as_object().unwrap().keys().collect();
            let want: BTreeSet<&String> =
                schemas[name]["properties"].as_object().unwrap().keys().collect();
            assert_eq!(have, want, "{name}");
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document();
        let text = document.to_string();
        let prefix = "\"#/components/schemas/";
        let mut count = 0;
        for part in text.split(prefix).skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
            count += 1;
        }
        assert!(count > 30);
    }
}
