//! A closed-loop client: so many connections, each of which sends a batch of requests, waits for all of its replies, and
//! sends the next. One thread on DKV's own reactor, the same for every server.
//!
//! Latency is counted for each request, from the moment its batch was given to the reactor to the moment its reply was
//! looked at, so what waits in this client counts too. All requests of a run have one length: a batch is written once and
//! only the digits of its keys change. It checks that each reply is the one it expects and nothing else of the server.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dkv_io::{Conn, Event, Options, Reactor, UringReactor, Wait, WakeHandle};
use dkv_protocol::resp::value::ReplyScanner;
use hdrhistogram::Histogram;

use crate::cpu_time;

/// Longest silence of a server, after which it is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Completions that fit, so that ten thousand connections do not overflow the ring.
const CQ_ENTRIES: u32 = 32_768;
/// Longest latency that is told apart, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// `key:` and twelve digits, as redis-benchmark has them.
const DIGITS: usize = 12;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// GET of keys that are there.
    Get,
    /// SET of random keys.
    Set,
    /// SET of every key once, in order.
    Fill,
    /// MGET of so many keys.
    Mget(usize),
}

/// One run.
#[derive(Clone, Debug)]
pub struct Load {
    /// The server.
    pub target: SocketAddr,
    /// What is asked.
    pub test: Test,
    /// Connections.
    pub connections: usize,
    /// Requests that a connection sends at a time.
    pub pipeline: usize,
    /// Requests to measure; a little more are sent. [`Test::Fill`] sends one for each key instead.
    pub operations: u64,
    /// The keys: these numbers.
    pub keys: std::ops::Range<u64>,
    /// Length of each value.
    pub value_bytes: usize,
    /// Whose CPU time is counted.
    pub pids: Vec<u32>,
    /// Seed of the order of keys.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Requests answered while it was measured.
    pub operations: u64,
    /// How long that took.
    pub elapsed: Duration,
    /// Latency of each, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Keys that were asked for and not there.
    pub misses: u64,
    /// CPU time of the processes named.
    pub server_cpu_ns: u64,
    /// CPU time of this client.
    pub client_cpu_ns: u64,
}

/// A batch as bytes, and where the digits of its keys stand.
struct Batch {
    bytes: Vec<u8>,
    digits: Vec<usize>,
}

/// One connection.
#[derive(Default)]
struct Session {
    /// The batch, while the kernel does not have it.
    buffer: Option<Vec<u8>>,
    /// Replies of the batch that are to come.
    missing: usize,
    since_ns: u64,
    /// The beginning of a reply that is cut.
    partial: Vec<u8>,
    scanner: ReplyScanner,
}

impl Load {
    fn batch(&self) -> Batch {
        let (name, keys, value) = match self.test {
            Test::Get => ("GET", 1, None),
            Test::Set | Test::Fill => ("SET", 1, Some("x".repeat(self.value_bytes))),
            Test::Mget(keys) => ("MGET", keys, None),
        };
        let arguments = 1 + keys + usize::from(value.is_some());
        let mut batch = Batch { bytes: Vec::new(), digits: Vec::new() };
        for _ in 0..self.pipeline {
            let head = format!("*{arguments}\r\n${}\r\n{name}\r\n", name.len());
            batch.bytes.extend_from_slice(head.as_bytes());
            for _ in 0..keys {
                batch.bytes.extend_from_slice(format!("${}\r\nkey:", 4 + DIGITS).as_bytes());
                batch.digits.push(batch.bytes.len());
                batch.bytes.extend_from_slice(&[b'0'; DIGITS]);
                batch.bytes.extend_from_slice(b"\r\n");
            }
            if let Some(value) = &value {
                let argument = format!("${}\r\n{value}\r\n", value.len());
                batch.bytes.extend_from_slice(argument.as_bytes());
            }
        }
        batch
    }

    /// What nearly every reply is, whole.
    fn usual_reply(&self) -> Vec<u8> {
        match self.test {
            Test::Get => {
                format!("${}\r\n{}\r\n", self.value_bytes, "x".repeat(self.value_bytes)).into()
            }
            Test::Set | Test::Fill => b"+OK\r\n".to_vec(),
            Test::Mget(_) => Vec::new(),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The server cannot be reached, answers with an error, or is silent; the text says which.
    pub fn run(&self) -> Result<Outcome, String> {
        let wake = WakeHandle::new().map_err(|error| error.to_string())?;
        let options = Options { cq_entries: CQ_ENTRIES, ..Options::new(wake) };
        let mut reactor = UringReactor::new(options).map_err(|error| error.to_string())?;
        let mut client = Client::new(self)?;
        for number in 0..self.connections {
            let socket = TcpStream::connect(self.target).map_err(|error| {
                format!("connection {} to {} failed: {error}", number + 1, self.target)
            })?;
            let conn = reactor.adopt(OwnedFd::from(socket)).map_err(|error| error.to_string())?;
            client.sessions.resize_with(conn.index() + 1, Session::default);
            client.sessions[conn.index()].buffer = Some(client.batch.bytes.clone());
            client.conns.push(conn);
        }
        client.drive(&mut reactor)
    }
}

struct Client<'a> {
    load: &'a Load,
    batch: Batch,
    usual: Vec<u8>,
    sessions: Vec<Session>,
    conns: Vec<Conn>,
    random: u64,
    next_in_order: u64,
    answered: u64,
    misses: u64,
    /// Requests of batches that are under way.
    under_way: u64,
    latency: Histogram<u64>,
}

impl<'a> Client<'a> {
    fn new(load: &'a Load) -> Result<Self, String> {
        if load.keys.is_empty() || load.pipeline == 0 || load.connections == 0 {
            return Err("there must be a key, a connection and a request".into());
        }
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .map_err(|error| format!("no histogram: {error:?}"))?;
        Ok(Self {
            load,
            batch: load.batch(),
            usual: load.usual_reply(),
            sessions: Vec::new(),
            conns: Vec::new(),
            random: load.seed | 1,
            next_in_order: load.keys.start,
            answered: 0,
            misses: 0,
            under_way: 0,
            latency,
        })
    }

    fn drive(&mut self, reactor: &mut UringReactor) -> Result<Outcome, String> {
        for conn in self.conns.clone() {
            self.send(reactor, conn);
        }
        // Connecting is not measured: that begins when as many requests were answered as were sent at first. A fill is
        // measured from its first request, because each of them matters.
        let (warm, enough) = match self.load.test {
            Test::Fill => (0, u64::MAX),
            _ => (self.under_way, self.load.operations),
        };
        let mut start = self.start();
        let mut started = warm == 0;
        let mut events = Vec::new();
        while self.under_way > 0 {
            let waiting_since = Instant::now();
            reactor.turn(Wait::Until(PATIENCE), &mut events).map_err(|error| error.to_string())?;
            if events.is_empty() && waiting_since.elapsed() >= PATIENCE {
                return Err(format!("{} is silent for {PATIENCE:?}", self.load.target));
            }
            for event in events.drain(..) {
                match event {
                    Event::Received { conn, chunk } => {
                        let result = self.received(conn, reactor.bytes(&chunk));
                        reactor.give_back(chunk);
                        result?;
                        self.send(reactor, conn);
                    }
                    Event::Sent { conn, buffer, .. } => {
                        self.sessions[conn.index()].buffer = Some(buffer);
                        self.send(reactor, conn);
                    }
                    Event::Ended { error, .. } => {
                        return Err(match error {
                            Some(error) => format!("a connection failed: {error}"),
                            None => "the server closed a connection".into(),
                        });
                    }
                    _ => {}
                }
            }
            if !started && self.answered >= warm {
                started = true;
                start = self.start();
                self.latency.reset();
                self.misses = 0;
            } else if started && self.answered - start.answered >= enough {
                break;
            }
        }
        Ok(Outcome {
            operations: self.answered - start.answered,
            elapsed: start.at.elapsed(),
            latency: self.latency.clone(),
            misses: self.misses,
            server_cpu_ns: cpu_time::of_processes(&self.load.pids) - start.server_cpu_ns,
            client_cpu_ns: dkv_io::clock::process_cpu_ns() - start.client_cpu_ns,
        })
    }

    fn start(&self) -> Start {
        Start {
            at: Instant::now(),
            answered: self.answered,
            server_cpu_ns: cpu_time::of_processes(&self.load.pids),
            client_cpu_ns: dkv_io::clock::process_cpu_ns(),
        }
    }

    /// Sends the next batch when the last one is over and its buffer is back.
    fn send(&mut self, reactor: &mut UringReactor, conn: Conn) {
        let place = conn.index();
        let session = &mut self.sessions[place];
        if session.missing > 0 {
            return;
        }
        let Some(mut buffer) = session.buffer.take() else { return };
        if self.load.test == Test::Fill {
            let left = (self.load.keys.end - self.next_in_order) as usize;
            if left == 0 {
                return;
            }
            if left < self.load.pipeline {
                buffer.truncate(buffer.len() / self.load.pipeline * left);
            }
        }
        let mut keys = 0;
        for at in &self.batch.digits {
            let Some(digits) = buffer.get_mut(*at..at + DIGITS) else { break };
            write_digits(digits, next_key(self.load, &mut self.random, &mut self.next_in_order));
            keys += 1;
        }
        let requests = keys / (self.batch.digits.len() / self.load.pipeline);
        session.missing = requests;
        session.since_ns = dkv_io::clock::monotonic_ns();
        self.under_way += requests as u64;
        reactor.send(conn, buffer, Vec::new());
    }

    fn received(&mut self, conn: Conn, bytes: &[u8]) -> Result<(), String> {
        let session = &mut self.sessions[conn.index()];
        let waited_ns = dkv_io::clock::monotonic_ns().saturating_sub(session.since_ns);
        let before = session.missing;
        let joined;
        let mut rest = bytes;
        if !session.partial.is_empty() {
            session.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut session.partial);
            rest = &joined;
        }
        while !rest.is_empty() {
            let length = if !self.usual.is_empty() && rest.starts_with(&self.usual) {
                session.scanner = ReplyScanner::default();
                self.usual.len()
            } else {
                let found = session.scanner.scan(rest).map_err(|error| error.to_string())?;
                let Some(length) = found else { break };
                self.misses += misses_in(&rest[..length])?;
                length
            };
            rest = &rest[length..];
            session.missing =
                session.missing.checked_sub(1).ok_or("the server sent more than was asked for")?;
        }
        session.partial.extend_from_slice(rest);
        let answered = (before - session.missing) as u64;
        self.answered += answered;
        self.under_way -= answered;
        self.latency.saturating_record_n(waited_ns.max(1), answered);
        Ok(())
    }
}

struct Start {
    at: Instant,
    answered: u64,
    server_cpu_ns: u64,
    client_cpu_ns: u64,
}

/// How many keys a reply says are not there.
fn misses_in(reply: &[u8]) -> Result<u64, String> {
    match reply.first() {
        Some(b'-') => {
            Err(format!("the server answered {}", String::from_utf8_lossy(reply).trim_end()))
        }
        Some(b'*') => Ok(reply.windows(5).filter(|window| *window == b"$-1\r\n").count() as u64),
        _ => Ok(u64::from(reply == b"$-1\r\n")),
    }
}

fn next_key(load: &Load, random: &mut u64, next_in_order: &mut u64) -> u64 {
    if load.test == Test::Fill {
        *next_in_order += 1;
        return *next_in_order - 1;
    }
    // xorshift64*: good enough to spread keys, and cheap.
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    let drawn = random.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let count = load.keys.end - load.keys.start;
    load.keys.start + ((u128::from(drawn) * u128::from(count)) >> 64) as u64
}

fn write_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;
    use std::net::Ipv4Addr;

    fn echo() -> SocketAddr {
        let listener =
            dkv_io::sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 64).expect("a port");
        let address = listener.local_addr().expect("bound");
        // Serves until the process of the tests ends.
        std::thread::spawn(move || canned::serve(listener));
        address
    }

    fn load(test: Test) -> Load {
        Load {
            target: echo(),
            test,
            connections: 3,
            pipeline: 7,
            operations: 1000,
            keys: 0..100,
            value_bytes: 64,
            pids: vec![std::process::id()],
            seed: 1,
        }
    }

    #[test]
    fn every_answer_is_counted_with_its_latency() {
        for test in [Test::Get, Test::Set, Test::Mget(10)] {
            let outcome = load(test).run().expect("the echo server answers");
            assert!((1000..1100).contains(&outcome.operations), "{outcome:?}");
            assert_eq!(outcome.latency.len(), outcome.operations);
            assert_eq!(outcome.misses, 0);
            assert!(outcome.server_cpu_ns > 0 && outcome.client_cpu_ns > 0);
            assert!(outcome.latency.value_at_quantile(0.999) >= outcome.latency.min());
        }
    }

    #[test]
    fn a_fill_sends_each_key_once_and_ends() {
        for keys in [1, 100, 3000] {
            let fill = Load { keys: 0..keys, ..load(Test::Fill) };
            let outcome = fill.run().expect("the echo server answers");
            assert_eq!(outcome.operations, keys);
        }
    }

    #[test]
    fn keys_stay_within_their_range_and_reach_all_of_it() {
        let load = Load { keys: 10..20, ..load(Test::Get) };
        let (mut random, mut order, mut seen) = (1, 0, [0u32; 20]);
        for _ in 0..10_000 {
            seen[next_key(&load, &mut random, &mut order) as usize] += 1;
        }
        assert!(seen[..10].iter().all(|count| *count == 0));
        assert!(seen[10..].iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn errors_and_absent_keys_are_told_apart() {
        assert_eq!(misses_in(b"$-1\r\n"), Ok(1));
        assert_eq!(misses_in(b"*3\r\n$1\r\na\r\n$-1\r\n$-1\r\n"), Ok(2));
        assert_eq!(misses_in(b"$1\r\na\r\n"), Ok(0));
        assert!(misses_in(b"-OOM no\r\n").expect_err("an error").contains("OOM"));
    }
}
