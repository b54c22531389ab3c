//! What only the inside can show.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::*;
use crate::WakeHandle;

fn reactor() -> UringReactor {
    UringReactor::new(Options::new(WakeHandle::new().expect("an eventfd"))).expect("a ring")
}

fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    (listener.accept().expect("accepts").0.into(), client)
}

fn turn(reactor: &mut UringReactor) -> Vec<Event> {
    let mut events = Vec::new();
    reactor.turn(Wait::Until(Duration::from_secs(10)), &mut events).expect("the ring works");
    events
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
    assert_eq!(reactor.pool.circulating(), 64);
    assert_eq!(reactor.pool.available(), 64);
    assert_eq!(reactor.connections(), 1);
    reactor.close(conn);
    while reactor.connections() > 0 {
        turn(&mut reactor);
    }
    assert_eq!(reactor.under_way, 1, "only the poll of the eventfd is left");
}

#[test]
fn the_self_test_leaves_a_fresh_reactor() {
    let mut reactor = reactor();
    self_test(&mut reactor).expect("this machine can");
    self_test(&mut reactor).expect("twice");
    reactor.turn(Wait::Now, &mut Vec::new()).expect("the ring works");
    assert_eq!(reactor.connections(), 0);
    assert_eq!(reactor.pool.available(), 64);
    assert_eq!(reactor.under_way, 1);
}

#[test]
fn a_second_reactor_cannot_take_the_same_wake_handle() {
    let wake = WakeHandle::new().expect("an eventfd");
    let _first = UringReactor::new(Options::new(wake.clone())).expect("a ring");
    let error = UringReactor::new(Options::new(wake)).expect_err("taken");
    assert!(error.to_string().contains("another reactor"), "{error}");
}

#[test]
fn the_end_of_a_stream_is_told_once_even_when_the_kernel_calls_it_readable() {
    let mut reactor = reactor();
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
    reactor.send(conn, b"reply".to_vec());
    let events = turn(&mut reactor);
    assert!(matches!(&events[..], [Event::Sent { .. }]), "{events:?}");
    reactor.close(conn);
    let mut text = String::new();
    let events = turn(&mut reactor);
    assert!(matches!(&events[..], [Event::Closed { .. }]), "{events:?}");
    client.read_to_string(&mut text).expect("reads to the end");
    assert_eq!(text, "reply");
}
