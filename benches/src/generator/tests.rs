//! Loads of real sockets against the echo server, which answers everything at once.

use super::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

fn listener() -> (TcpListener, String) {
    let listener =
        dkv_io::sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 64).expect("a port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    (listener, address.to_string())
}

/// A server that answers each request line of RESP with what `answer` makes of the command's name.
fn server(answer: fn(&str) -> &'static str) -> String {
    let (listener, address) = listener();
    // Serves until the process of the tests ends.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket, answer));
        }
    });
    address
}

fn serve(mut socket: std::net::TcpStream, answer: fn(&str) -> &'static str) {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read) = socket.read(&mut piece) {
        if read == 0 {
            return;
        }
        seen.extend_from_slice(&piece[..read]);
        let mut out = String::new();
        while let Ok(Some((value, length))) = dkv_protocol::resp::value::parse(&seen) {
            seen.drain(..length);
            let words = value.into_elements().unwrap_or_default();
            let name = words.first().and_then(|word| word.as_bytes()).unwrap_or_default();
            out.push_str(answer(&String::from_utf8_lossy(name)));
        }
        // An answer of this text is the end of the connection.
        if out.contains("close") || socket.write_all(out.as_bytes()).is_err() {
            return;
        }
    }
}

fn usual(name: &str) -> &'static str {
    match name {
        "PING" => "+PONG\r\n",
        "GET" => "$3\r\nabc\r\n",
        _ => "+OK\r\n",
    }
}

fn plan(endpoint: String) -> Plan {
    Plan { endpoints: vec![endpoint], keys: 1000, requests: Some(2000), ..Plan::default() }
}

fn open(per_second: f64) -> Pace {
    Pace::Open { per_second, arrivals: Arrivals::Poisson }
}

#[test]
fn every_request_is_counted_once_in_each_way() {
    let endpoint = server(usual);
    for (pace, io) in
        [(Pace::Closed, Io::Auto), (open(50_000.0), Io::Auto), (open(50_000.0), Io::Epoll)]
    {
        let plan = Plan {
            pace,
            io,
            threads: 2,
            pipeline: 4,
            duration: Duration::from_mins(10),
            ..plan(endpoint.clone())
        };
        let outcome = run(&plan, &mut |_| ()).expect("the server answers");
        assert_eq!((outcome.answered(), outcome.failed()), (2000, 0), "{pace:?} {io:?}");
        assert_eq!((outcome.unsent, outcome.unanswered), (0, 0), "{pace:?} {io:?}");
        assert!(outcome.reads.latency.len() > outcome.writes.latency.len(), "{pace:?} {io:?}");
        assert!(outcome.latency().value_at_quantile(0.5) >= outcome.service().min());
    }
}

#[test]
fn a_sequence_of_writes_reaches_every_key_once_whatever_the_threads() {
    static KEYS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let (listener, address) = listener();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = socket.read(&mut piece) {
                    seen.extend_from_slice(&piece[..read]);
                    while let Ok(Some((value, length))) = dkv_protocol::resp::value::parse(&seen) {
                        seen.drain(..length);
                        let words = value.into_elements().unwrap_or_default();
                        let ping = words.len() == 1;
                        if let Some(key) = words.get(1).and_then(|key| key.as_bytes()) {
                            KEYS.lock()
                                .expect("whole")
                                .push(String::from_utf8_lossy(key).into_owned());
                        }
                        let _ = socket.write_all(if ping { b"+PONG\r\n" } else { b"+OK\r\n" });
                    }
                }
            });
        }
    });
    let fill =
        Plan { keys: 17, threads: 3, connections: 5, pipeline: 2, ..Plan::fill_of(&plan(address)) };
    let fill = Plan { requests: Some(17), ..fill };
    assert_eq!(run(&fill, &mut |_| ()).expect("it answers").answered(), 17);
    let mut keys = std::mem::take(&mut *KEYS.lock().expect("whole"));
    keys.sort();
    assert_eq!(keys, (0..17).map(|n| format!("bench:{n:012}")).collect::<Vec<_>>());
}

#[test]
fn errors_are_counted_and_have_no_latency() {
    let endpoint = server(|name| if name == "SET" { "-OOM no memory\r\n" } else { usual(name) });
    let outcome =
        run(&Plan { reads_percent: 50, ..plan(endpoint) }, &mut |_| ()).expect("it answers");
    assert_eq!(outcome.writes.latency.len(), 0);
    assert_eq!(outcome.errors["OOM"].count, outcome.failed());
    assert_eq!(outcome.answered() + outcome.failed(), 2000);
    assert!(outcome.failed() > 500, "{}", outcome.failed());
}

#[test]
fn who_is_no_server_is_told_apart() {
    let (silent, nobody) = listener();
    drop(silent);
    let cases = [
        (nobody, ProblemKind::Unreachable, "cannot ask"),
        (
            server(|_| "HTTP/1.1 400 Bad Request\r\n\r\n"),
            ProblemKind::Failed,
            "no Redis-compatible server",
        ),
        (
            server(|_| "-NOAUTH Authentication required.\r\n"),
            ProblemKind::Failed,
            "wants a password",
        ),
        (server(|_| "close"), ProblemKind::Unreachable, "without an answer"),
    ];
    for (endpoint, kind, says) in cases {
        let problem = run(&plan(endpoint), &mut |_| ()).expect_err(says);
        assert_eq!(problem.kind, kind, "{problem:?}");
        assert!(problem.what.contains(says) && !problem.hint.is_empty(), "{problem:?}");
    }
    let wrong = server(|name| if name == "AUTH" { "-WRONGPASS no\r\n" } else { usual(name) });
    let plan = Plan { password: Some("x".into()), ..plan(wrong) };
    let problem = run(&plan, &mut |_| ()).expect_err("it lets nobody in");
    assert!(problem.what.contains("does not let default in: WRONGPASS"), "{problem:?}");
}

#[test]
fn an_answer_that_is_no_resp_ends_the_run() {
    let endpoint = server(|name| if name == "PING" { "+PONG\r\n" } else { "nonsense\r\n" });
    let problem = run(&plan(endpoint), &mut |_| ()).expect_err("nonsense");
    assert!(problem.what.contains("no Redis-compatible server"), "{problem:?}");
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_then_given_up() {
    let (listener, address) = listener();
    let gone = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the first, which asks whether it is there");
        serve(socket, usual);
        let (mut socket, _) = listener.accept().expect("the connection of the load");
        drop(listener);
        let mut piece = [0; 64];
        let read = socket.read(&mut piece).expect("PING");
        assert!(read > 0);
        socket.write_all(b"+PONG\r\n").expect("open");
        let _ = socket.read(&mut piece);
    });
    let plan = Plan { connections: 1, timeout: Duration::from_millis(300), ..plan(address) };
    let problem = run(&plan, &mut |_| ()).expect_err("it is gone");
    assert_eq!(problem.kind, ProblemKind::Unreachable);
    assert!(problem.what.contains("went away"), "{problem:?}");
    gone.join().expect("the server ended as meant");
}
