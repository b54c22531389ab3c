//! What the reactors themselves cost: server CPU time of one echoed message, the floor under every command on this machine, on
//! io_uring and on epoll in turn.
//!
//! `cargo bench -p dkv-bench --bench ring -- [connections]`. The server has one thread, the client another, each on a CPU
//! of its own where there are two.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dkv_bench::micro::Micro;
use dkv_io::{
    EpollReactor, Event, Options, Reactor, UringReactor, Wait, WakeHandle, clock, cpu, sockets,
};

/// How long a row takes, in milliseconds.
const TIME_MS: u64 = 1000;
/// Bytes of a message, and how many are sent at a time.
const SHAPES: [(usize, usize); 5] = [(64, 1), (64, 16), (64, 64), (1024, 1), (1024, 16)];

#[derive(Default)]
struct Session {
    output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    /// Client side: bytes of the batch that are still to come.
    missing: usize,
}

/// Measurements of each kind, one after the other.
const ROUNDS: usize = 3;

fn options() -> Options {
    Options::new(WakeHandle::new().expect("an eventfd"))
}

fn on_uring() -> UringReactor {
    UringReactor::new(options()).unwrap_or_else(|error| panic!("{error}"))
}

fn on_epoll() -> EpollReactor {
    EpollReactor::new(options()).unwrap_or_else(|error| panic!("{error}"))
}

fn pin(place: usize) {
    let cpus = cpu::available().expect("affinity can be read");
    if cpus.len() > 1 {
        cpu::pin(cpus[place % cpus.len()]).expect("an available CPU");
    }
}

/// Echoes until told to stop; returns its CPU time in nanoseconds.
fn serve<R: Reactor>(make: fn() -> R, sockets: Vec<OwnedFd>, stop: &AtomicBool) -> u64 {
    pin(0);
    let mut reactor = make();
    let mut sessions: Vec<Session> = Vec::new();
    for socket in sockets {
        reactor.adopt(socket).expect("a socket");
        sessions.push(Session::default());
    }
    let (mut events, mut dirty) = (Vec::new(), Vec::new());
    let start = clock::thread_cpu_ns();
    while !stop.load(Ordering::Relaxed) {
        reactor.turn(Wait::Until(Duration::from_millis(50)), &mut events).expect("works");
        for event in events.drain(..) {
            match event {
                Event::Received { conn, chunk } => {
                    let session = &mut sessions[conn.index()];
                    session.output.extend_from_slice(reactor.bytes(&chunk));
                    reactor.give_back(chunk);
                    dirty.push(conn);
                }
                Event::Sent { conn, mut buffer, .. } => {
                    buffer.clear();
                    let session = &mut sessions[conn.index()];
                    session.spare = buffer;
                    session.sending = false;
                    if !session.output.is_empty() {
                        dirty.push(conn);
                    }
                }
                _ => {}
            }
        }
        for conn in dirty.drain(..) {
            let session = &mut sessions[conn.index()];
            if !session.sending && !session.output.is_empty() {
                let spare = std::mem::take(&mut session.spare);
                session.sending = true;
                reactor.send(conn, std::mem::replace(&mut session.output, spare), Vec::new());
            }
        }
    }
    clock::thread_cpu_ns() - start
}

/// Keeps one batch of `batch` bytes under way on each connection; counts batches that came back.
fn load(sockets: Vec<OwnedFd>, batch: usize, stop: &AtomicBool, batches: &AtomicU64) {
    pin(1);
    let mut reactor = on_uring();
    let mut missing = Vec::new();
    for socket in sockets {
        let conn = reactor.adopt(socket).expect("a socket");
        reactor.send(conn, vec![b'x'; batch], Vec::new());
        missing.push(Session { missing: batch, ..Session::default() });
    }
    let mut events = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        reactor.turn(Wait::Until(Duration::from_millis(50)), &mut events).expect("works");
        for event in events.drain(..) {
            match event {
                Event::Received { conn, chunk } => {
                    let session = &mut missing[conn.index()];
                    session.missing -= chunk.len();
                    reactor.give_back(chunk);
                    if session.missing == 0 {
                        batches.fetch_add(1, Ordering::Relaxed);
                        session.missing = batch;
                        if session.spare.is_empty() {
                            // The send is not told yet; it goes on from there.
                            session.sending = true;
                        } else {
                            reactor.send(conn, std::mem::take(&mut session.spare), Vec::new());
                        }
                    }
                }
                Event::Sent { conn, buffer, .. } => {
                    let session = &mut missing[conn.index()];
                    if std::mem::take(&mut session.sending) {
                        reactor.send(conn, buffer, Vec::new());
                    } else {
                        session.spare = buffer;
                    }
                }
                _ => {}
            }
        }
    }
}

/// CPU nanoseconds of a message.
fn measure<R: Reactor>(make: fn() -> R, shape: (usize, usize), connections: usize, ms: u64) -> f64 {
    let (bytes, pipeline) = shape;
    let listener = sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 1024)
        .unwrap_or_else(|error| panic!("{error}"));
    let address = listener.local_addr().expect("bound");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        theirs.push(OwnedFd::from(TcpStream::connect(address).expect("connects")));
        ours.push(OwnedFd::from(listener.accept().expect("accepts").0));
    }
    let (stop, batches) = (AtomicBool::new(false), AtomicU64::new(0));
    let used = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(make, ours, &stop));
        scope.spawn(|| load(theirs, bytes * pipeline, &stop, &batches));
        let end = clock::monotonic_ns() + ms * 1_000_000;
        // A park may end early.
        while clock::monotonic_ns() < end {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        server.join().expect("no panic")
    });
    let messages = batches.load(Ordering::Relaxed) * pipeline as u64;
    used as f64 / messages.max(1) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("{}\n{}", on_uring().describe(), on_epoll().describe());
    let micro = Micro::new("reactor echo, server, per message");
    let connections = micro.count_given(50) as usize;
    let ms = micro.count(TIME_MS * 100) / 100;
    for shape in SHAPES {
        let (mut uring, mut epoll) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            uring.push(measure(on_uring, shape, connections, ms));
            epoll.push(measure(on_epoll, shape, connections, ms));
        }
        let (uring, epoll) = (median(uring), median(epoll));
        let (bytes, pipeline) = shape;
        let name = format!("{bytes} bytes, {pipeline} at a time, {connections} connections");
        micro.show(&format!("{name}, io_uring"), uring, "ns");
        micro.show(&format!("{name}, epoll"), epoll, "ns");
        micro.show(&format!("{name}, epoll / io_uring"), 100.0 * epoll / uring.max(1.0), "%");
    }
}
