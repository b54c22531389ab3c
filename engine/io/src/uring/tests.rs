//! What only the inside of the ring's reactor can show.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

use super::*;
use crate::reactor_tests::{Examined, pair, turn};

fn reactor() -> UringReactor {
    UringReactor::make(|options| options)
}

impl Examined for UringReactor {
    fn make(change: impl FnOnce(Options) -> Options) -> Self {
        let wake = WakeHandle::new().expect("an eventfd");
        Self::new(change(Options::new(wake))).expect("a ring")
    }

    fn wake(&self) -> WakeHandle {
        self.wake.clone()
    }

    fn open(&self) -> usize {
        self.connections()
    }

    fn nothing_is_left(&self, what: &str) {
        assert_eq!(self.under_way, 1, "{what}: more than the poll of the eventfd is left");
        for source in [&self.small, &self.great] {
            let (back, all) = (source.pool.available(), usize::from(source.pool.circulating()));
            assert_eq!(back, all, "{what}");
        }
        assert_eq!(self.free.len() + self.told_closed.len(), self.places.len(), "{what}");
    }
}

#[test]
fn a_quiet_connection_keeps_to_the_few_warm_buffers() {
    let mut reactor = reactor();
    let (socket, mut client) = pair();
    let conn = reactor.adopt(socket).expect("a socket");
    for _ in 0..3000 {
        client.write_all(b"ping").expect("writes");
        let mut received = false;
        while !received {
            for event in turn(&mut reactor) {
                if let Event::Received { chunk, .. } = event {
                    reactor.give_back(chunk);
                    received = true;
                }
            }
        }
    }
    assert_eq!(reactor.small.pool.circulating(), 64);
    assert_eq!(reactor.small.pool.available(), 64);
    assert_eq!(reactor.connections(), 1);
    reactor.close(conn);
    while reactor.connections() > 0 {
        turn(&mut reactor);
    }
    assert_eq!(reactor.under_way, 1, "only the poll of the eventfd is left");
}

#[test]
fn winding_up_has_the_kernel_let_go_of_everything() {
    for turns in 0..4 {
        let mut reactor = reactor();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        reactor.listen(listener).expect("listens");
        let mut peers = Vec::new();
        for number in 0..16 {
            let (socket, mut peer) = pair();
            let conn = reactor.adopt(socket).expect("a socket");
            match number % 4 {
                0 => reactor.send(conn, vec![1; 16 << 20], Vec::new()),
                1 => peer.write_all(&[2; 10_000]).expect("writes"),
                2 => reactor.pause(conn),
                _ => reactor.expect(conn, 1 << 20),
            }
            peers.push(peer);
        }
        for _ in 0..turns {
            let mut events = Vec::new();
            reactor.turn(Wait::Now, &mut events).expect("the ring works");
            for event in events {
                if let Event::Received { chunk, .. } = event {
                    reactor.give_back(chunk);
                }
            }
        }
        assert!(reactor.under_way > 16);
        assert!(reactor.wind_up());
        assert_eq!(reactor.connections(), 0);
        assert!(reactor.places.iter().all(|place| place.is_idle() && place.socket.is_none()));
        assert!(reactor.listeners.iter().all(|listener| listener.socket.is_none()));
        for source in [&reactor.small, &reactor.great] {
            assert_eq!(source.pool.available(), usize::from(source.pool.circulating()));
        }
    }
}

#[test]
fn great_buffers_are_not_touched_before_somebody_expects_much_and_are_left_again_after_it() {
    let mut reactor = reactor();
    let (socket, mut client) = pair();
    let conn = reactor.adopt(socket).expect("a socket");
    let mut exchange = |reactor: &mut UringReactor, bytes: usize| {
        client.write_all(&vec![9; bytes]).expect("writes");
        let mut rest = bytes;
        while rest > 0 {
            for event in turn(reactor) {
                if let Event::Received { chunk, .. } = event {
                    rest -= chunk.len();
                    reactor.give_back(chunk);
                }
            }
        }
    };
    exchange(&mut reactor, 20_000);
    // Too few to change over.
    reactor.expect(conn, 5000);
    exchange(&mut reactor, 5000);
    assert_eq!(reactor.great.pool.touched(), 0);
    reactor.expect(conn, 100_000);
    exchange(&mut reactor, 100_000);
    let touched = reactor.great.pool.touched();
    assert!((90_000..600_000).contains(&touched), "{touched} bytes were touched");
    let lane = |reactor: &mut UringReactor| reactor.place(conn).expect("open").lane;
    assert_eq!(lane(&mut reactor), place::Lane::Great);
    for _ in 0..100 {
        exchange(&mut reactor, 10);
    }
    assert_eq!(lane(&mut reactor), place::Lane::Small);
    assert_eq!(reactor.great.pool.circulating(), 4);
}
