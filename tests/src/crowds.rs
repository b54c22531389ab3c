//! Connections that cost more than they are worth: idle ones by the thousand, those that send a byte a second, those that never
//! read, and those too many. Each case says what it costs the node and what it costs others.
//!
//! `cargo run --release -p dkv-tests --bin crowds` prints them at full size; a test runs them small. What others wait is a
//! ratio to what they wait without the crowd, of rounds one after the other in the same run.

use crate::bare::{Bare, Connection, command};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connections of those who want nothing but to be served.
const OTHERS: usize = 10;
/// Bytes of the value that slow readers ask for.
const VALUE_BYTES: usize = 1_000_000;
/// Values that each of them asks for: twice what may wait for one connection.
const VALUES: usize = 2 * dkv_protocol::limits::OUTPUT_BYTES_MAX / VALUE_BYTES;
/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many connections each case makes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Idle connections.
    pub idle: usize,
    /// Connections that send a byte a second.
    pub slow: usize,
    /// Connections that never read.
    pub deaf: usize,
    /// How often others are measured in each case, and by how many requests each time.
    pub rounds: usize,
    /// See `rounds`.
    pub requests: usize,
}

impl Sizes {
    /// What the promises speak of. One connection of the ten thousand is for what asks, and ten are for others.
    pub const FULL: Self = Self { idle: 9_980, slow: 5_000, deaf: 200, rounds: 5, requests: 2_000 };
    /// What a debug build does in half a minute.
    pub const SMALL: Self = Self { idle: 1_000, slow: 300, deaf: 10, rounds: 1, requests: 500 };
}

/// What a case cost.
#[derive(Clone, Debug)]
pub struct Case {
    /// What was done.
    pub name: String,
    /// Resident bytes of the node for each connection of the crowd.
    pub bytes_each: u64,
    /// p99 of a PING of others, in microseconds: without the crowd, and with it.
    pub alone_us: f64,
    /// See `alone_us`.
    pub crowded_us: f64,
    /// What else is to be known.
    pub note: String,
}

impl Case {
    /// How many times longer others wait.
    pub fn ratio(&self) -> f64 {
        self.crowded_us / self.alone_us
    }
}

/// Runs all cases, each on a node of its own, and shows each as it ends.
pub fn run(binary: &Path, sizes: Sizes, mut show: impl FnMut(&Case)) -> Vec<Case> {
    let cases: [fn(&Path, Sizes) -> Case; 4] = [idle, slow_senders, slow_readers, too_many];
    let mut all = Vec::new();
    for case in cases {
        let case = case(binary, sizes);
        show(&case);
        all.push(case);
    }
    all
}

/// A node and those who want nothing but to be served by it.
struct Served {
    node: Bare,
    others: Vec<Connection>,
    sizes: Sizes,
}

impl Served {
    fn start(binary: &Path, sizes: Sizes) -> Self {
        let node = Bare::start(binary, (0, "noeviction"));
        let others = (0..OTHERS).map(|_| node.connect()).collect();
        let mut served = Self { node, others, sizes };
        served.p99_us();
        served
    }

    /// p99 of a PING, each connection in its turn.
    fn p99_us(&mut self) -> f64 {
        let requests = self.sizes.requests;
        let mut taken: Vec<Duration> = Vec::with_capacity(requests);
        for i in 0..requests {
            let other = &mut self.others[i % OTHERS];
            let start = Instant::now();
            assert_eq!(other.ask("PING"), "PONG");
            taken.push(start.elapsed());
        }
        taken.sort_unstable();
        taken[requests * 99 / 100].as_secs_f64() * 1e6
    }

    fn median_p99_us(&mut self) -> f64 {
        let rounds = self.sizes.rounds;
        let mut all: Vec<f64> = (0..rounds).map(|_| self.p99_us()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[rounds / 2]
    }

    /// A number of INFO.
    fn info(&mut self, field: &str) -> u64 {
        let text = self.others[0].ask("INFO");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field}"))
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the node takes it");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream
}

/// Resident bytes for each of so many connections. What the kernel holds is not the node's.
fn each(before: u64, after: u64, connections: usize) -> u64 {
    after.saturating_sub(before) / connections as u64
}

/// Connections that were used once and then do nothing.
fn idle(binary: &Path, sizes: Sizes) -> Case {
    let mut served = Served::start(binary, sizes);
    let alone_us = served.median_p99_us();
    let before = served.node.resident_bytes();
    let start = Instant::now();
    let mut crowd: Vec<TcpStream> =
        (0..sizes.idle).map(|_| connect(served.node.address())).collect();
    let connected = start.elapsed();
    for stream in &mut crowd {
        let mut reply = [0; 7];
        stream.write_all(b"PING\r\n").expect("taken");
        stream.read_exact(&mut reply).expect("a reply");
    }
    let after = served.node.resident_bytes();
    let crowded_us = served.median_p99_us();
    assert_eq!(served.info("connected_clients"), (sizes.idle + OTHERS) as u64);
    drop(crowd);
    served.until("the crowd is gone", |it| it.info("connected_clients") == OTHERS as u64);
    let again_us = served.median_p99_us();
    Case {
        name: format!("{} idle connections", sizes.idle),
        bytes_each: each(before, after, sizes.idle),
        alone_us: f64::midpoint(alone_us, again_us),
        crowded_us,
        note: format!("connected within {:.1} s", connected.as_secs_f64()),
    }
}

/// Connections that send commands at a byte a second.
fn slow_senders(binary: &Path, sizes: Sizes) -> Case {
    let mut served = Served::start(binary, sizes);
    let alone_us = served.median_p99_us();
    let before = served.node.resident_bytes();
    let mut crowd: Vec<TcpStream> =
        (0..sizes.slow).map(|_| connect(served.node.address())).collect();
    let mut line = Vec::new();
    command(&mut line, &[b"SET", b"slow", &[b'v'; 500]]);
    // Each is somewhere in its command before anything is measured.
    for (i, stream) in crowd.iter_mut().enumerate() {
        stream.write_all(&line[..=i % 100]).expect("taken");
    }
    let done = AtomicBool::new(false);
    let (crowded_us, sent) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // A byte of each within a second, evenly.
            let (start, mut sent) = (Instant::now(), 0_usize);
            while !done.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * sizes.slow as f64) as usize;
                while sent < due {
                    let (round, i) = (sent / sizes.slow, sent % sizes.slow);
                    let at = 1 + i % 100 + round;
                    crowd[i].write_all(&line[at..=at]).expect("taken");
                    sent += 1;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            sent
        });
        let crowded_us = served.median_p99_us();
        done.store(true, Ordering::Relaxed);
        (crowded_us, sender.join().expect("it sends"))
    });
    let after = served.node.resident_bytes();
    assert!(served.others[0].ask("EXISTS slow") == "0", "nobody has said all of it");
    Case {
        name: format!("{} that send a byte a second", sizes.slow),
        bytes_each: each(before, after, sizes.slow),
        alone_us,
        crowded_us,
        note: format!("{sent} bytes meanwhile"),
    }
}

/// Connections that ask for a great deal and never read it.
fn slow_readers(binary: &Path, sizes: Sizes) -> Case {
    let mut served = Served::start(binary, sizes);
    served.others[0].send(&[b"SET", b"great", &vec![b'v'; VALUE_BYTES]]);
    assert_eq!(served.others[0].reply(), b"OK");
    let alone_us = served.median_p99_us();
    let before = served.node.resident_bytes();
    let mut asks = Vec::new();
    for _ in 0..VALUES {
        command(&mut asks, &[b"GET", b"great"]);
    }
    let start = Instant::now();
    let mut crowd: Vec<TcpStream> =
        (0..sizes.deaf).map(|_| connect(served.node.address())).collect();
    for stream in &mut crowd {
        match stream.write_all(&asks) {
            Ok(()) => {}
            // The first of them may be closed already.
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(e) => panic!("{e}"),
        }
    }
    let crowded_us = served.median_p99_us();
    let mut most = served.node.resident_bytes();
    served.until("all of them are closed", |it| {
        most = most.max(it.node.resident_bytes());
        it.info("client_output_buffer_limit_disconnections") >= sizes.deaf as u64
    });
    let closed = start.elapsed();
    assert_eq!(served.info("connected_clients"), OTHERS as u64);
    Case {
        name: format!("{} that never read", sizes.deaf),
        bytes_each: each(before, most, sizes.deaf),
        alone_us,
        crowded_us,
        note: format!("all closed after {:.0} s", closed.as_secs_f64()),
    }
}

/// As many connections as there may be, and a hundred more.
fn too_many(binary: &Path, sizes: Sizes) -> Case {
    const MORE: usize = 100;
    let mut served = Served::start(binary, sizes);
    let alone_us = served.median_p99_us();
    assert_eq!(
        served.others[0].ask(&format!("CONFIG SET maxclients {}", sizes.idle + OTHERS)),
        "OK"
    );
    let before = served.node.resident_bytes();
    let crowd: Vec<TcpStream> = (0..sizes.idle).map(|_| connect(served.node.address())).collect();
    served
        .until("all are taken", |it| it.info("connected_clients") == (sizes.idle + OTHERS) as u64);
    for _ in 0..MORE {
        let mut answer = String::new();
        connect(served.node.address()).read_to_string(&mut answer).expect("closed");
        assert_eq!(answer, "-ERR max number of clients reached\r\n");
    }
    let crowded_us = served.median_p99_us();
    let after = served.node.resident_bytes();
    let refused = served.info("rejected_connections");
    assert!(refused >= MORE as u64, "{refused} refused");
    drop(crowd);
    served.until("there is room again", |it| it.info("connected_clients") == OTHERS as u64);
    assert_eq!(served.node.connect().ask("PING"), "PONG");
    Case {
        name: format!("{} connections and {MORE} too many", sizes.idle + OTHERS),
        bytes_each: each(before, after, sizes.idle),
        alone_us,
        crowded_us,
        note: format!("{refused} refused"),
    }
}
