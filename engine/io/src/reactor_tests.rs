//! What both reactors must hold and only their insides can show. Each kind says in its own tests what is left of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Conn, EpollReactor, Event, Options, Reactor, UringReactor, Wait, WakeHandle, clock, self_test,
};

/// A reactor that can be looked into.
pub(crate) trait Examined: Reactor + Sized {
    fn make(change: impl FnOnce(Options) -> Options) -> Self;

    fn wake(&self) -> WakeHandle;

    /// Connections that are open or closing.
    fn open(&self) -> usize;

    /// Panics unless every buffer is back, every place is free or about to be, and the kernel holds nothing of it.
    fn nothing_is_left(&self, what: &str);
}

/// Has a test run for both.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test::<super::UringReactor>(); })*
        }
        mod epoll {
            $(#[test] fn $test() { super::$test::<super::EpollReactor>(); })*
        }
    };
}

for_both!(
    the_self_test_leaves_a_fresh_reactor,
    a_wake_handle_wakes_one_reactor_only,
    the_end_of_a_stream_is_told_once_even_when_the_kernel_calls_it_readable,
    whatever_drivers_and_peers_do_nothing_is_left_behind,
);

pub(crate) fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    (listener.accept().expect("accepts").0.into(), client)
}

pub(crate) fn turn<R: Reactor>(reactor: &mut R) -> Vec<Event> {
    let mut events = Vec::new();
    reactor.turn(Wait::Until(Duration::from_secs(10)), &mut events).expect("it works");
    events
}

fn the_self_test_leaves_a_fresh_reactor<R: Examined>() {
    let mut reactor = R::make(|options| options);
    let wake = reactor.wake();
    self_test(&mut reactor, &wake).expect("this machine can");
    self_test(&mut reactor, &wake).expect("twice");
    reactor.turn(Wait::Now, &mut Vec::new()).expect("it works");
    assert_eq!(reactor.open(), 0);
    reactor.nothing_is_left("self-test");
}

fn a_wake_handle_wakes_one_reactor_only<R: Examined>() {
    let first = R::make(|options| options);
    let taken = || Options::new(first.wake());
    let error = UringReactor::new(taken()).expect_err("taken");
    assert!(error.to_string().contains("another reactor"), "{error}");
    let error = EpollReactor::new(taken()).expect_err("taken");
    assert!(error.to_string().contains("another reactor"), "{error}");
}

fn the_end_of_a_stream_is_told_once_even_when_the_kernel_calls_it_readable<R: Examined>() {
    let mut reactor = R::make(|options| options);
    let (socket, mut client) = pair();
    let conn = reactor.adopt(socket).expect("a socket");
    client.write_all(b"last words").expect("writes");
    client.shutdown(std::net::Shutdown::Write).expect("shuts down");
    let mut told = 0;
    while told == 0 {
        for event in turn(&mut reactor) {
            match event {
                Event::Received { chunk, .. } => {
                    assert_eq!(reactor.bytes(&chunk), b"last words");
                    reactor.give_back(chunk);
                }
                Event::Ended { error: None, .. } => told += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    // The way back is still open.
    reactor.send(conn, b"reply".to_vec(), Vec::new());
    let events = turn(&mut reactor);
    assert!(matches!(&events[..], [Event::Sent { .. }]), "{events:?}");
    reactor.close(conn);
    let mut text = String::new();
    let events = turn(&mut reactor);
    assert!(matches!(&events[..], [Event::Closed { .. }]), "{events:?}");
    client.read_to_string(&mut text).expect("reads to the end");
    assert_eq!(text, "reply");
}

/// A reproducible stream of numbers (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Shared bytes that can be counted.
struct Insert {
    bytes: Vec<u8>,
    _counted: Arc<()>,
}

impl Insert {
    fn bytes(counted: &Arc<()>, bytes: usize) -> Bytes {
        Bytes::from_owner(Self { bytes: vec![3; bytes], _counted: Arc::clone(counted) })
    }
}

impl AsRef<[u8]> for Insert {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a driver knows of one connection.
struct Known {
    peer: Option<TcpStream>,
    sending: bool,
    ended: bool,
    failed: bool,
    closing: bool,
}

/// Everything a driver and a peer can do, in random order: events stay within the contract, and in the end nothing is
/// left in the kernel and every buffer is back.
fn anything_goes<R: Examined>(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut reactor = R::make(|options| Options {
        sq_entries: 8,
        cq_entries: 16,
        buffers: 8,
        buffers_at_first: 2,
        great_buffers: 4,
        great_buffer_bytes: 16 * 1024,
        great_buffers_at_first: 1,
        great_in_pieces: !seed.is_multiple_of(4),
        expect_bytes_min: 1,
        send_bytes_max: 200_000,
        ..options
    });
    let mut known: std::collections::BTreeMap<Conn, Known> = std::collections::BTreeMap::new();
    let mut held = Vec::new();
    let inserted = Arc::new(());
    let (mut told, mut closed) = (0, 0);
    for step in 0..3000_u32 {
        let winding_up = step >= 2500;
        let pick = dice.below(known.len().max(1) as u64) as usize;
        let picked = known.keys().nth(pick).copied();
        match (dice.below(12), picked) {
            (0 | 1, _) if known.len() < 30 && !winding_up => {
                let (socket, client) = pair();
                client.set_nonblocking(true).expect("non-blocking");
                let conn = reactor.adopt(socket).expect("a socket");
                let new = Known {
                    peer: Some(client),
                    sending: false,
                    ended: false,
                    failed: false,
                    closing: false,
                };
                assert!(known.insert(conn, new).is_none(), "{conn:?} is in use");
            }
            (2 | 3, Some(conn)) => {
                if let Some(peer) = &mut known.get_mut(&conn).expect("picked").peer {
                    let _ = peer.write(&vec![9; 1 + dice.below(60_000) as usize]);
                }
            }
            (4, Some(conn)) => {
                if let Some(peer) = &mut known.get_mut(&conn).expect("picked").peer {
                    let _ = peer.read(&mut vec![0; 1 << 20]);
                }
            }
            (5, Some(conn)) => {
                let known = known.get_mut(&conn).expect("picked");
                match dice.below(3) {
                    0 => known.peer = None,
                    1 => {
                        let half = std::net::Shutdown::Write;
                        let _ = known.peer.as_ref().map(|peer| peer.shutdown(half));
                    }
                    _ => {}
                }
            }
            (6 | 7, Some(conn)) => {
                let known = known.get_mut(&conn).expect("picked");
                if !known.sending && !known.failed && !known.closing {
                    known.sending = true;
                    let bytes = dice.below(900_000) as usize;
                    let mut inserts = Vec::new();
                    for _ in 0..dice.below(4) {
                        let after = inserts.last().map_or(0, |(offset, _)| *offset);
                        let offset = after + dice.below((bytes - after) as u64 + 1) as usize;
                        let insert = Insert::bytes(&inserted, dice.below(300_000) as usize);
                        inserts.push((offset, insert));
                    }
                    reactor.send(conn, vec![3; bytes], inserts);
                }
            }
            (8, Some(conn)) if dice.below(3) == 0 => {
                reactor.expect(conn, dice.below(100_000) as usize);
            }
            (8, Some(conn)) => reactor.pause(conn),
            (9, Some(conn)) => reactor.resume(conn),
            (10, Some(conn)) if winding_up || dice.below(4) == 0 => {
                known.get_mut(&conn).expect("picked").closing = true;
                reactor.close(conn);
            }
            _ => {
                if dice.below(2) == 0 {
                    held.drain(..).for_each(|chunk| reactor.give_back(chunk));
                }
                let mut events = Vec::new();
                reactor.turn(Wait::Now, &mut events).expect("it works");
                told += events.len();
                for event in events {
                    match event {
                        Event::Received { conn, chunk } => {
                            let known = &known[&conn];
                            assert!(
                                !known.ended && !known.failed,
                                "seed {seed}: bytes after the end"
                            );
                            assert!(*reactor.bytes(&chunk) == vec![9; chunk.len()]);
                            held.push(chunk);
                        }
                        Event::Sent { conn, buffer, inserts } => {
                            assert!(inserts.is_empty());
                            let known = known.get_mut(&conn).expect("in use");
                            assert!(known.sending && !known.failed, "seed {seed}");
                            assert!(buffer == vec![3; buffer.len()]);
                            known.sending = false;
                        }
                        Event::Ended { conn, error } => {
                            let known = known.get_mut(&conn).expect("in use");
                            assert!(!known.failed, "seed {seed}: told after a failure");
                            assert!(error.is_some() || !known.ended, "seed {seed}: two ends");
                            known.failed |= error.is_some();
                            known.ended = true;
                        }
                        Event::Closed { conn } => {
                            let known = known.remove(&conn).expect("in use");
                            assert!(known.closing, "seed {seed}: closed unasked");
                            closed += 1;
                        }
                        Event::Woken => {}
                        other => panic!("seed {seed}: {other:?}"),
                    }
                }
            }
        }
    }
    for conn in known.keys() {
        reactor.close(*conn);
    }
    let closing = clock::monotonic_ns();
    while reactor.open() > 0 {
        assert!(
            clock::monotonic_ns() - closing < 9_000_000_000,
            "seed {seed}: an event is missing"
        );
        held.drain(..).for_each(|chunk| reactor.give_back(chunk));
        for event in turn(&mut reactor) {
            match event {
                Event::Received { chunk, .. } => held.push(chunk),
                Event::Closed { .. } => closed += 1,
                _ => {}
            }
        }
    }
    held.drain(..).for_each(|chunk| reactor.give_back(chunk));
    reactor.turn(Wait::Now, &mut Vec::new()).expect("it works");
    assert!(
        told > 100 && closed > 10,
        "seed {seed} looked at nothing: {told} told, {closed} closed"
    );
    assert_eq!(Arc::strong_count(&inserted), 1, "seed {seed}: inserts are kept");
    reactor.nothing_is_left(&format!("seed {seed}"));
}

fn whatever_drivers_and_peers_do_nothing_is_left_behind<R: Examined>() {
    for seed in 0..25 {
        anything_goes::<R>(seed);
    }
}
