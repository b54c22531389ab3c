//! The files of the web console, who may call the API from a browser, and what one manager answers for its whole group.

use crate::harness::{Machine, definition, together, until};
use dkv_protocol::admin::{ErrorDocument, ManagersView, MetricsView, NodeState, StoresView};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TOKEN: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(own, _)| own == name);
        let line = self.head.lines().find(|line| of(line));
        line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }
}

fn send(machine: &Machine, line: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(machine.address).expect("the manager listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    let mut lines = vec![format!("{line} HTTP/1.1"), "Connection: close".to_string()];
    if headers.iter().all(|header| !header.starts_with("Host:")) {
        lines.push(format!("Host: {}", machine.address));
    }
    lines.extend(headers.iter().map(ToString::to_string));
    stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head: head.to_string(), body: body.to_string() }
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

/// What `src="…"` and `href="…"` of the page, and `from "./…"` of its modules, lead to.
fn links(text: &str) -> Vec<String> {
    let after = |mark: &str, base: &str| {
        let parts = text.split(mark).skip(1).map(|part| part.split('"').next().unwrap_or_default());
        parts.map(|link| format!("{base}{link}")).collect::<Vec<_>>()
    };
    [after("src=\"", ""), after("href=\"", ""), after("from \"./", "/console/")].concat()
}

#[test]
fn the_page_and_all_it_leads_to_come_without_a_token_and_from_here() {
    let machine = Machine::new();
    let _manager = machine.start();
    let (mut open, mut seen) = (vec!["/".to_string()], vec![]);
    while let Some(path) = open.pop() {
        let answer = send(&machine, &format!("GET {path}"), &[]);
        assert_eq!(answer.status, 200, "{path}");
        let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
            None => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(other) => panic!("{other}"),
        };
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
        let policy = answer.header("content-security-policy");
        for rule in ["default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        // Names of schemas that a document must state are no links.
        let named = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !named.contains("http://") && !named.contains("https://"),
            "{path} leads elsewhere"
        );
        assert!(!named.contains("innerHTML") && !named.contains("style=\""), "{path}");
        seen.push(path);
        for link in links(&answer.body) {
            if !link.starts_with('#') && !seen.contains(&link) && !open.contains(&link) {
                open.push(link);
            }
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
    let size: usize =
        seen.iter().map(|p| send(&machine, &format!("GET {p}"), &[]).body.len()).sum();
    assert!(size < 200_000, "{size} bytes");
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let machine = Machine::new();
    let _manager = machine.start();
    let first = send(&machine, "GET /console/app.js", &[]);
    let tag = first.header("etag");
    assert!(tag.len() > 10 && tag.starts_with('"'), "{tag}");
    assert_eq!(first.header("cache-control"), "no-cache");
    for known in [tag.to_string(), format!("\"x\", W/{tag}")] {
        let again = send(&machine, "GET /console/app.js", &[&format!("If-None-Match: {known}")]);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
        assert_eq!(again.header("etag"), tag);
    }
    let changed = send(&machine, "GET /console/app.js", &["If-None-Match: \"x\""]);
    assert_eq!((changed.status, changed.body), (200, first.body.clone()));
    let other = send(&machine, "GET /console/api.js", &[]);
    assert_ne!(other.header("etag"), tag);
    let head = send(&machine, "HEAD /console/app.js", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), first.body.len().to_string());
}

#[test]
fn what_the_console_has_not_is_absent_and_data_wants_the_token() {
    let machine = Machine::new();
    let _manager = machine.start();
    for (status, line) in [
        (404, "GET /console/nothing.js"),
        (404, "GET /console/"),
        (404, "GET /console/../token"),
        (404, "GET /console/..%2Ftoken"),
        (405, "POST /"),
        (405, "DELETE /console/app.js"),
        (401, "GET /consoles"),
        (401, "GET /index.html"),
        (401, "GET /admin/v1/managers?group=true"),
        (401, "GET /admin/v1/stores?group=true"),
        (401, "GET /admin/v1/metrics?group=true"),
        (401, "GET /admin/v1/metrics/history"),
        (401, "POST /admin/v1/stores/S/start"),
        (401, "POST /admin/v1/stores/S/stop"),
        (401, "POST /admin/v1/stores/S/restart"),
    ] {
        let answer = send(&machine, line, &[]);
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        let document: ErrorDocument = serde_json::from_str(&answer.body).expect(line);
        assert!(!document.error.message.is_empty() && !document.error.hint.is_empty(), "{line}");
    }
}

#[test]
fn of_web_pages_only_the_managers_own_may_call() {
    let machine = Machine::new();
    let _manager = machine.start();
    let own = machine.address;
    let port = own.port();
    let bearer = bearer();
    for (status, origin, host) in [
        // The console: a browser names it in each call that changes something.
        (404, format!("http://{own}"), own.to_string()),
        // Without the token it is nobody either.
        (401, format!("http://{own}"), "no token".to_string()),
        (403, "http://evil.example".to_string(), own.to_string()),
        (403, format!("http://evil.example:{port}"), own.to_string()),
        // A page of another program on this machine, of a file, in a sandbox; and the console of another manager.
        (403, format!("http://{}:3000", own.ip()), own.to_string()),
        (403, "null".to_string(), own.to_string()),
        (403, format!("https://{own}"), own.to_string()),
        (403, format!("http://127.0.0.1:{port}"), own.to_string()),
        (403, format!("http://{own}.evil.example"), own.to_string()),
        // A page whose own name was made to lead here: its origin fits its host, and the host is not us.
        (421, format!("http://evil.example:{port}"), format!("evil.example:{port}")),
    ] {
        let mut headers = vec![format!("Origin: {origin}")];
        if host != "no token" {
            headers.extend([bearer.clone(), format!("Host: {host}")]);
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = send(&machine, "POST /admin/v1/stores/Nowhere/stop", &headers);
        assert_eq!(answer.status, status, "{origin} {host}: {}", answer.body);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
    let two = ["Origin: http://evil.example", &format!("Origin: http://{own}"), &bearer];
    assert_eq!(send(&machine, "GET /admin/v1/stores", &two).status, 403, "one of two origins");
}

#[test]
fn one_manager_answers_for_its_group_and_starts_and_stops_what_is_elsewhere() {
    let machines = [Machine::new(), Machine::new()];
    let [a, b] = &machines;
    let mut managers = together(&[a, b]);
    let bearer = bearer();
    let call = |line: &str| send(a, line, &[&bearer]);
    let stores = |line: &str| -> StoresView {
        let answer = call(line);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("a listing")
    };
    let created =
        dkv_agent::coordinate::create(&crate::harness::group(&[a, b]), &definition("S", 1), false);
    crate::harness::done(created);

    let started = call("POST /admin/v1/stores/S/start");
    assert_eq!(started.status, 200, "{}", started.body);
    assert!(started.body.contains("\"outcome\":\"Done\""), "{}", started.body);
    let whole = stores("GET /admin/v1/stores?group=true");
    let states: Vec<_> = whole.stores[0].nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [Some(NodeState::Running); 2]);
    assert!(whole.unreached.is_empty() && whole.differences.is_empty(), "{whole:?}");
    let alone = stores("GET /admin/v1/stores");
    assert!(alone.stores[0].nodes.iter().any(|node| node.state.is_none()), "that is for the group");
    until("both nodes have figures", || {
        let answer = call("GET /admin/v1/metrics?group=true&windowSec=2");
        let view: MetricsView = serde_json::from_str(&answer.body).expect("figures");
        let machines: Vec<_> = view.nodes.iter().map(|node| node.machine.clone()).collect();
        machines == [a.address.to_string(), b.address.to_string()] && view.unreached.is_empty()
    });
    until("both nodes have a past", || {
        let answer = call("GET /admin/v1/metrics/history?group=true");
        let view: serde_json::Value = serde_json::from_str(&answer.body).expect("a history");
        let nodes = view["nodes"].as_array().expect("nodes");
        let known = |node: &serde_json::Value| {
            let last = node["points"].as_array().and_then(|points| points.last().cloned());
            last.is_some_and(|p| {
                p["at_s"].as_u64().is_some_and(|at| at % 2 == 0) && p["gets"].is_number()
            })
        };
        nodes.len() == 2 && nodes.iter().all(known)
    });
    let restarted = call("POST /admin/v1/stores/S/restart");
    assert_eq!(restarted.status, 200, "{}", restarted.body);
    let again = stores("GET /admin/v1/stores?group=true");
    for (before, after) in whole.stores[0].nodes.iter().zip(&again.stores[0].nodes) {
        assert!(after.state == Some(NodeState::Running) && after.pid != before.pid, "{after:?}");
    }

    let standing = || -> ManagersView {
        let answer = call("GET /admin/v1/managers?group=true");
        serde_json::from_str(&answer.body).expect("managers")
    };
    let both = standing().standing;
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|one| one.reachable && one.fate.is_some() && one.version.is_some()));
    assert_eq!(both.iter().filter(|one| one.leads).count(), 1, "{both:?}");

    // One of them goes: its machine is named, and what is done at the other one is done.
    managers.pop().expect("the second").end();
    let one = standing().standing;
    assert!(one[0].reachable && !one[1].reachable && one[1].reason.is_some(), "{one:?}");
    let rest = stores("GET /admin/v1/stores?group=true");
    assert_eq!(rest.unreached, [b.address.to_string()]);
    let stopped = call("POST /admin/v1/stores/S/stop");
    assert_eq!(stopped.status, 200, "{}", stopped.body);
    assert!(stopped.body.contains("\"outcome\":\"Partly\""), "{}", stopped.body);
    assert!(stopped.body.contains("not_connected"), "{}", stopped.body);

    let nowhere = call("POST /admin/v1/stores/Nowhere/start");
    assert_eq!(nowhere.status, 502, "who is not reached may have it: {}", nowhere.body);
    let _manager = b.start();
    let nowhere = call("POST /admin/v1/stores/Nowhere/start");
    let document: ErrorDocument = serde_json::from_str(&nowhere.body).expect("an error");
    assert_eq!((nowhere.status, document.error.code.as_str()), (404, "no_such_store"));
    assert_eq!(call("POST /admin/v1/stores/S/start?fast=true").status, 400);
    assert_eq!(call("GET /admin/v1/stores?group=yes").status, 400);
    assert_eq!(call("POST /admin/v1/stores/S/stop").status, 200);
}
