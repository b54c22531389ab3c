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

/// Two nodes of a cluster, and who has all the slots as the nodes tell it.
struct Pair {
    ports: [u16; 2],
    owner: std::sync::atomic::AtomicUsize,
}

/// What node `0` or `1` answers to a command, and whether the one before it was ASKING.
type OfNode = fn(&Pair, usize, &str, bool) -> String;

impl Pair {
    fn start(answer: OfNode) -> (Arc<Self>, Vec<String>) {
        let listeners = [listener(), listener()];
        let ports = listeners.each_ref().map(|(it, _)| it.local_addr().expect("bound").port());
        let pair = Arc::new(Self { ports, owner: 0.into() });
        let mut addresses = Vec::new();
        for (number, (listener, address)) in listeners.into_iter().enumerate() {
            addresses.push(address);
            let pair = Arc::clone(&pair);
            // Serves until the process of the tests ends.
            std::thread::spawn(move || {
                for socket in listener.incoming().flatten() {
                    let pair = Arc::clone(&pair);
                    std::thread::spawn(move || pair.serve(socket, number, answer));
                }
            });
        }
        (pair, addresses)
    }

    fn serve(&self, mut socket: std::net::TcpStream, number: usize, answer: OfNode) {
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        let mut asking = false;
        while let Ok(read @ 1..) = socket.read(&mut piece) {
            seen.extend_from_slice(&piece[..read]);
            let mut out = String::new();
            while let Ok(Some((value, length))) = dkv_protocol::resp::value::parse(&seen) {
                seen.drain(..length);
                let words = value.into_elements().unwrap_or_default();
                let name = words.first().and_then(|word| word.as_bytes()).unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                match name.as_str() {
                    "ASKING" => out.push_str("+OK\r\n"),
                    "CLUSTER" => {
                        let port = self.ports[self.owner.load(Relaxed)];
                        let slots =
                            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:{port}\r\n");
                        out.push_str(&slots);
                    }
                    name => out.push_str(&answer(self, number, name, asking)),
                }
                asking = name == "ASKING";
            }
            if socket.write_all(out.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn cluster(endpoints: Vec<String>) -> Plan {
    Plan { target: Target::Cluster, endpoints, pipeline: 3, threads: 2, ..plan(String::new()) }
}

#[test]
fn what_has_moved_is_asked_for_where_it_is_and_the_map_is_asked_for_anew() {
    // With and without the host, which then is that of who was asked.
    for host in ["127.0.0.1", ""] {
        let answer: OfNode = if host.is_empty() {
            |pair, number, name, _| moved(pair, number, name, "")
        } else {
            |pair, number, name, _| moved(pair, number, name, "127.0.0.1")
        };
        let (pair, endpoints) = Pair::start(answer);
        for pace in [Pace::Closed, open(20_000.0)] {
            pair.owner.store(0, Relaxed);
            let plan =
                Plan { pace, duration: Duration::from_mins(10), ..cluster(endpoints.clone()) };
            let outcome = run(&plan, &mut |_| ()).expect("they answer");
            assert_eq!((outcome.answered(), outcome.failed()), (2000, 0), "{:?}", outcome.errors);
            assert!((1..2000).contains(&outcome.redirected), "{}", outcome.redirected);
        }
    }
}

/// The first node has given everything away by the time that somebody asks it.
fn moved(pair: &Pair, number: usize, name: &str, host: &str) -> String {
    if number == 1 || name == "PING" {
        return usual(name).into();
    }
    pair.owner.store(1, Relaxed);
    format!("-MOVED 7 {host}:{}\r\n", pair.ports[1])
}

#[test]
fn what_is_on_its_way_is_asked_for_with_asking_before_it_and_the_map_stays() {
    let (_pair, endpoints) = Pair::start(|pair, number, name, asking| match (number, name) {
        (_, "PING") => usual(name).into(),
        (0, _) => format!("-ASK 7 127.0.0.1:{}\r\n", pair.ports[1]),
        (_, _) if asking => usual(name).into(),
        _ => format!("-MOVED 7 127.0.0.1:{}\r\n", pair.ports[0]),
    });
    for pace in [Pace::Closed, open(20_000.0)] {
        let plan = Plan { pace, duration: Duration::from_mins(10), ..cluster(endpoints.clone()) };
        let outcome = run(&plan, &mut |_| ()).expect("they answer");
        assert_eq!((outcome.answered(), outcome.failed()), (2000, 0), "{:?}", outcome.errors);
        assert_eq!((outcome.redirected, outcome.unanswered), (2000, 0));
    }
}

#[test]
fn a_circle_of_redirections_ends_as_an_error() {
    let (_pair, endpoints) = Pair::start(|pair, number, name, _| match name {
        "PING" => usual(name).into(),
        _ => format!("-MOVED 7 127.0.0.1:{}\r\n", pair.ports[1 - number]),
    });
    let plan = Plan { requests: Some(20), ..cluster(endpoints) };
    let outcome = run(&plan, &mut |_| ()).expect("they answer");
    assert_eq!((outcome.answered(), outcome.errors["MOVED"].count), (0, 20));
}
