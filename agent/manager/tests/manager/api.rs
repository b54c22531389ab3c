//! Every mistake of a caller gets its status and a document that says what to type, and disturbs nobody.

use crate::harness::{Machine, definition, node};
use dkv_agent::auth::Signed;
use dkv_agent::client::{AdminClient, AdminError};
use dkv_protocol::admin::{AddInstanceRequest, ErrorDocument, StoreChange, StoreDefinition};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TOKEN: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// Sends bytes and gives the status and the body of the answer.
fn send(machine: &Machine, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(machine.address).expect("the manager listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
    // The manager may refuse and close before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8(answer).expect("a text");
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_string();
    (status, body)
}

fn request(machine: &Machine, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut lines = vec![format!("{line} HTTP/1.1"), "Connection: close".to_string()];
    if headers.iter().all(|h| !h.starts_with("Host:")) {
        lines.push(format!("Host: {}", machine.address));
    }
    lines.extend(headers.iter().map(ToString::to_string));
    if !body.is_empty() {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    send(machine, format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes())
}

#[test]
fn every_mistake_is_answered_with_a_document() {
    let machine = Machine::new();
    let _manager = machine.start();
    let bearer = &format!("Authorization: Bearer {TOKEN}")[..];
    let json = "Content-Type: application/json";
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    let stores = "/admin/v1/stores";
    let cases: &[(u16, &str, &[&str], &str)] = &[
        (401, "GET /admin/v1/stores", &[], ""),
        (401, "GET /admin/v1/stores", &["Authorization: Bearer 00"], ""),
        (401, "GET /admin/v1/stores", &["Authorization: Basic eDp5"], ""),
        (401, "GET /metrics", &[], ""),
        (401, "GET /nowhere", &[], ""),
        (200, "GET /health", &[], ""),
        (200, "GET /admin/v1/openapi.json", &[bearer], ""),
        (200, "GET /admin/v1/stores", &[bearer], ""),
        (404, "GET /admin/v1/stores/Nowhere", &[bearer], ""),
        (404, "GET /admin/v1/stores/..%2F..%2Fetc%2Fpasswd", &[bearer], ""),
        (404, "GET /nowhere", &[bearer], ""),
        (404, "POST /admin/v1/stores/S/instances/node1/start", &[bearer], ""),
        (405, "PUT /admin/v1/stores", &[bearer], ""),
        (405, "DELETE /admin/v1/stores", &[bearer], ""),
        (400, "GET /admin/v1/stores", &[bearer, json], "{}"),
        (400, "POST /admin/v1/stores", &[bearer, json], "{"),
        (400, "POST /admin/v1/stores", &[bearer, json], "[1]"),
        (400, "POST /admin/v1/stores", &[bearer, json], "{\"record\": 1}"),
        (
            400,
            "POST /admin/v1/stores",
            &[bearer, json],
            r#"{"name":"../../etc","instance_prefix":"n","instance_count":1}"#,
        ),
        (
            400,
            "POST /admin/v1/stores",
            &[bearer, json],
            r#"{"name":"a","instance_prefix":"n","instance_count":1,"colour":1}"#,
        ),
        (401, "GET /admin/v1/logs", &[], ""),
        (401, "GET /admin/v1/logs/manager.log", &[], ""),
        (200, "GET /admin/v1/logs", &[bearer], ""),
        (400, "GET /admin/v1/logs?all=1", &[bearer], ""),
        (404, "GET /admin/v1/logs/token", &[bearer], ""),
        (404, "GET /admin/v1/logs/..%2Ftoken", &[bearer], ""),
        (400, "GET /admin/v1/logs/a.log?bytes=0", &[bearer], ""),
        (400, "GET /admin/v1/logs/a.log?bytes=99999999", &[bearer], ""),
        (400, "GET /admin/v1/metrics?windowSec=0", &[bearer], ""),
        (400, "GET /admin/v1/metrics?window=5", &[bearer], ""),
        (415, "POST /admin/v1/stores", &[bearer, "Content-Type: text/plain"], "{}"),
        (413, "POST /admin/v1/stores", &[bearer, json], &big),
        (403, "GET /admin/v1/stores", &[bearer, "Origin: http://evil"], ""),
        (421, "GET /admin/v1/stores", &[bearer, "Host: evil.example"], ""),
    ];
    for (wanted, line, headers, body) in cases {
        let (status, answer) = request(&machine, line, headers, body);
        assert_eq!(status, *wanted, "{line} {headers:?}: {answer}");
        if status != 200 {
            let document: ErrorDocument = serde_json::from_str(&answer).expect(line);
            let error = document.error;
            assert!(!error.message.is_empty() && !error.hint.is_empty(), "{error:?}");
            assert!(!answer.contains(TOKEN));
        }
    }
    let (_, answer) = request(
        &machine,
        &format!("POST {stores}"),
        &[bearer, json],
        r#"{"name":"a","instance_prefix":"n","instance_count":1,"colour":1}"#,
    );
    assert!(answer.contains("colour"), "{answer}");
}

#[test]
fn a_signed_call_needs_no_token_on_the_wire_and_works_once() {
    let machine = Machine::new();
    let _manager = machine.start();
    let host = machine.address.to_string();
    let target = "/admin/v1/stores?";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let signed = Signed { method: "GET", host: &host, target, body: b"" };
    let header = format!("Authorization: {}", machine.token().sign(&signed, now.as_secs()));
    assert!(!header.contains(TOKEN));
    let line = format!("GET {target}");
    assert_eq!(request(&machine, &line, &[&header], "").0, 200);
    let (status, answer) = request(&machine, &line, &[&header], "");
    assert_eq!(status, 401);
    assert!(answer.contains("received before"), "{answer}");
}

#[test]
fn garbage_and_endless_heads_are_cut_off() {
    let machine = Machine::new();
    let _manager = machine.start();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"*1\r\n$4\r\nPING\r\n", long.as_bytes()] {
        let (status, _) = send(&machine, bytes);
        assert!([0, 400, 431].contains(&status), "{status}");
    }
    assert_eq!(machine.client().health().unwrap().status, "ok");
}

#[test]
fn the_same_definition_again_is_a_success_and_another_names_the_differences() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    let definition = definition("TestStore", 2);
    assert_eq!(client.create(&definition).unwrap().change, StoreChange::Created);
    assert_eq!(client.create(&definition).unwrap().change, StoreChange::AlreadyExists);
    let other = StoreDefinition { instance_count: 3, ..definition.clone() };
    let refused = client.create(&other).unwrap_err();
    assert_eq!(refused.code(), "store_exists");
    assert!(refused.to_string().contains("instance count is 2, asked for 3"), "{refused}");

    let clash = StoreDefinition { name: "Other".to_string(), ..definition.clone() };
    let refused = client.create(&clash).unwrap_err().to_string();
    for word in ["node1", "TestStore", &machine.address.to_string(), "7811"] {
        assert!(refused.contains(word), "{word:?} is not in {refused:?}");
    }
    let free = StoreDefinition { clustron_port: None, client_port: None, ..clash };
    let created = client.create(&free).unwrap().record;
    assert_eq!((created.nodes[0].cluster_port, created.nodes[0].client_port), (7813, 7863));
}

#[test]
fn a_port_of_a_stranger_is_found_before_anything_is_written() {
    let machine = Machine::new();
    let _manager = machine.start();
    let _stranger = std::net::TcpListener::bind((machine.address.ip(), 7862)).unwrap();
    let client = machine.client();
    let refused = client.create(&definition("Blocked", 2)).unwrap_err();
    assert_eq!(refused.code(), "port_in_use");
    assert!(refused.to_string().contains("7862"), "{refused}");
    assert!(client.stores().unwrap().is_empty());
}

#[test]
fn a_node_is_added_to_a_stopped_store() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&definition("S", 1)).unwrap();
    let named = AddInstanceRequest {
        name: Some("extra".to_string()),
        cluster_port: Some(9100),
        client_port: Some(9200),
        ..AddInstanceRequest::default()
    };
    let record = client.add_instance("S", &named).unwrap().record;
    let added = record.nodes.last().unwrap();
    assert_eq!((added.name.as_str(), added.cluster_port, added.client_port), ("extra", 9100, 9200));
    let record = client.add_instance("S", &AddInstanceRequest::default()).unwrap().record;
    let added = record.nodes.last().unwrap();
    assert_eq!((added.name.as_str(), added.cluster_port, added.client_port), ("node3", 7812, 7862));
    // node-1 is how others write node1: it cannot be a node beside it.
    let alias =
        AddInstanceRequest { name: Some("node-1".to_string()), ..AddInstanceRequest::default() };
    let refused = client.add_instance("S", &alias).unwrap_err();
    assert_eq!(refused.code(), "node_exists");
    assert!(refused.to_string().contains("another spelling of node1"), "{refused}");
    assert_eq!(client.start("S", "extra").unwrap().message, "Started");
    let refused = client.add_instance("S", &AddInstanceRequest::default()).unwrap_err();
    assert_eq!(refused.code(), "store_running");
    assert_eq!(node(&client, "S", "node1").restarts, 0);
}

#[test]
fn errors_of_the_client_can_be_told_apart() {
    let machine = Machine::new();
    let client = machine.client();
    assert!(matches!(client.stores(), Err(AdminError::NotConnected { .. })));
    let silent = std::net::TcpListener::bind((machine.address.ip(), 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let hasty = AdminClient::new(address, machine.token(), Duration::from_millis(200));
    assert!(matches!(hasty.stores(), Err(AdminError::TimedOut { .. })));
    let _manager = machine.start();
    let other = dkv_agent::auth::Token::new(&"6b".repeat(32)).unwrap();
    let stranger = AdminClient::new(machine.address, other, Duration::from_secs(5));
    let refused = stranger.stores().unwrap_err();
    assert!(matches!(refused, AdminError::Refused { status: 401, .. }), "{refused}");
    assert!(refused.hint().contains("--token-file"));
}
