//! The test rig: an echo server as a driver of the reactor, and clients that check every byte.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Tested;
use dkv_io::{Chunk, Conn, Event, Options, Reactor, Wait, WakeHandle};

/// Everything here takes milliseconds; a stalled machine gets time, a hung test ends.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn options() -> Options {
    Options::new(WakeHandle::new().expect("an eventfd"))
}

pub(crate) fn reactor() -> Tested {
    Tested::new(options()).expect("a reactor")
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener =
        dkv_io::sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 4096).expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// A connected pair: the server's end and the client's.
pub(crate) fn pair() -> (OwnedFd, TcpStream) {
    let (listener, address) = listener();
    let client = connect(address);
    (listener.accept().expect("accepts").0.into(), client)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("connects");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    client.set_nodelay(true).expect("no delay");
    client
}

/// Turns until `done`, handing each event over.
pub(crate) fn turn_until<R: Reactor>(
    reactor: &mut R,
    what: &str,
    mut done: impl FnMut(&mut R, Event) -> bool,
) {
    let start = Instant::now();
    let mut events = Vec::new();
    loop {
        reactor
            .turn(Wait::Until(Duration::from_millis(100)), &mut events)
            .expect("the reactor works");
        let mut found = false;
        for event in events.drain(..) {
            found |= done(reactor, event);
        }
        if found {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
    }
}

/// A reproducible stream of bytes, different for each seed, without a period that a lost buffer could hide in.
#[derive(Clone)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// xorshift64*.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

#[derive(Default)]
struct Session {
    conn: Option<Conn>,
    output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    ended: bool,
}

/// Echoes what it receives, one send in flight for a connection, and closes after the peer did.
pub(crate) struct Echo {
    pub(crate) reactor: Tested,
    sessions: Vec<Session>,
    dirty: Vec<Conn>,
    /// Chunks kept for a while, to be short of buffers.
    held: VecDeque<Chunk>,
    pub(crate) hold: usize,
    pub(crate) opened: usize,
    pub(crate) closed: usize,
    pub(crate) failures: usize,
}

impl Echo {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            reactor: Tested::new(options).expect("a reactor"),
            sessions: Vec::new(),
            dirty: Vec::new(),
            held: VecDeque::new(),
            hold: 0,
            opened: 0,
            closed: 0,
            failures: 0,
        }
    }

    pub(crate) fn adopt(&mut self, socket: OwnedFd) -> Conn {
        let conn = self.reactor.adopt(socket).expect("a socket");
        if self.sessions.len() <= conn.index() {
            self.sessions.resize_with(conn.index() + 1, Session::default);
        }
        let session = &mut self.sessions[conn.index()];
        assert!(session.conn.is_none(), "a place is used again before it was told closed");
        *session = Session { conn: Some(conn), ..Session::default() };
        self.opened += 1;
        conn
    }

    fn session(&mut self, conn: Conn) -> &mut Session {
        let session = &mut self.sessions[conn.index()];
        assert_eq!(session.conn, Some(conn), "an event of a connection that is gone");
        session
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                self.adopt(socket);
            }
            Event::Received { conn, chunk } => {
                let bytes = self.reactor.bytes(&chunk);
                assert!(!bytes.is_empty() && bytes.len() == chunk.len());
                let session = &mut self.sessions[conn.index()];
                assert_eq!(session.conn, Some(conn));
                assert!(!session.ended, "bytes after the end");
                session.output.extend_from_slice(bytes);
                self.dirty.push(conn);
                self.held.push_back(chunk);
                if self.held.len() > self.hold {
                    let oldest = self.held.pop_front().expect("just pushed");
                    self.reactor.give_back(oldest);
                }
            }
            Event::Sent { conn, buffer, .. } => {
                let session = self.session(conn);
                assert!(std::mem::replace(&mut session.sending, false));
                session.spare = buffer;
                session.spare.clear();
                self.dirty.push(conn);
            }
            Event::Ended { conn, error: None } => {
                let session = self.session(conn);
                assert!(!std::mem::replace(&mut session.ended, true), "the end is told once");
                self.dirty.push(conn);
            }
            Event::Ended { conn, error: Some(_) } => {
                self.session(conn);
                self.failures += 1;
                self.reactor.close(conn);
            }
            Event::Closed { conn } => {
                self.session(conn).conn = None;
                self.closed += 1;
            }
            Event::Woken | Event::AcceptPaused { .. } => {}
        }
    }

    /// One turn, then all the sends.
    pub(crate) fn turn(&mut self) {
        let mut events = Vec::new();
        self.reactor
            .turn(Wait::Until(Duration::from_millis(100)), &mut events)
            .expect("the reactor works");
        let nothing = events.is_empty();
        for event in events {
            self.event(event);
        }
        // A driver keeps chunks for a moment, not for ever.
        if nothing {
            for chunk in self.held.drain(..) {
                self.reactor.give_back(chunk);
            }
        }
        for conn in std::mem::take(&mut self.dirty) {
            let session = &mut self.sessions[conn.index()];
            if session.conn != Some(conn) || session.sending {
                continue;
            }
            if session.output.is_empty() {
                if session.ended {
                    self.reactor.close(conn);
                }
                continue;
            }
            let spare = std::mem::take(&mut session.spare);
            let buffer = std::mem::replace(&mut session.output, spare);
            session.sending = true;
            self.reactor.send(conn, buffer, Vec::new());
        }
    }

    /// Serves until so many connections were opened and all of them closed.
    pub(crate) fn serve(&mut self, connections: usize) {
        let start = Instant::now();
        while self.opened < connections || self.closed < self.opened {
            self.turn();
            assert!(
                start.elapsed() < PATIENCE,
                "hung with {} opened, {} closed, {:?}, {:?}",
                self.opened,
                self.closed,
                self.reactor,
                self.reactor.counts()
            );
        }
    }
}

/// Sends `total` bytes in pieces of random length while reading the echo, and checks all of it.
pub(crate) fn check_echo(client: &TcpStream, seed: u64, total: usize, piece_max: usize) {
    let bytes = Noise::new(seed).bytes(total);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut noise = Noise::new(seed + 1);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let length = 1 + noise.below(piece_max as u64) as usize;
                let (piece, after) = rest.split_at(length.min(rest.len()));
                (&*client).write_all(piece).expect("writes");
                rest = after;
            }
            client.shutdown(Shutdown::Write).expect("shuts down");
        });
        let mut echo = Vec::new();
        let mut reader = client;
        reader.read_to_end(&mut echo).expect("reads to the end");
        assert_eq!(echo.len(), bytes.len(), "seed {seed}");
        assert!(echo == bytes, "seed {seed}: bytes differ");
    });
}

/// The name of a test for the test runner, which leaves out the program's.
pub(crate) fn test_name(module: &str, function: &str) -> String {
    let (_, inside) = module.split_once("::").expect("tests are in modules");
    format!("{inside}::{function}")
}

/// Runs one test of this program again, in a process of its own, prepared by `prepare`. That test does its work only when
/// `inside` is true there.
pub(crate) fn in_child(test: &str, prepare: impl FnOnce(&mut Command)) {
    let program = std::env::current_exe().expect("has a path");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("DKV_TEST_CHILD", test);
    prepare(&mut command);
    let output = command.output().expect("starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "the child looked at nothing: {said}");
}

pub(crate) fn is_child(test: &str) -> bool {
    std::env::var("DKV_TEST_CHILD").is_ok_and(|name| name == test)
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub(crate) fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    if limit.current.is_some_and(|soft| soft < most) {
        let raised = Rlimit { current: Some(most), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    }
    most
}
