//! Waking: none is lost, from a ring or from a plain thread, to a reactor that sleeps, spins, or is yet to be built.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use dkv_io::{Event, Inbox, Outbox, Reactor, Wait, WakeHandle, Wakeup, mailbox};

use super::Tested;
use super::rig::{Echo, Noise, PATIENCE, connect, listener, options};

const ROUND_TRIPS: u32 = 100_000;
/// A sleep that only this ends is a lost wake.
const SLEEP: Duration = Duration::from_secs(20);

/// One side of the ping-pong: sleeps, spins or just looks, at random, until the next number is there.
fn next(
    reactor: &mut Tested,
    inbox: &mut Inbox<u32>,
    noise: &mut Noise,
    events: &mut Vec<Event>,
) -> u32 {
    loop {
        if let Some(number) = inbox.pop() {
            return number;
        }
        let spun = noise.below(4) == 0
            && reactor
                .spin(Duration::from_micros(noise.below(30)), &mut || !inbox.is_empty())
                .expect("the reactor works");
        let before = Instant::now();
        if !spun && inbox.park() {
            reactor.turn(Wait::Until(SLEEP), events).expect("the reactor works");
            inbox.unpark();
            assert!(before.elapsed() < SLEEP, "a wake was lost");
        } else {
            reactor.turn(Wait::Now, events).expect("the reactor works");
        }
        events.clear();
    }
}

fn push(reactor: &mut Tested, outbox: &Outbox<u32>, number: u32) {
    if outbox.push(number).expect("there is room") == Wakeup::Needed {
        reactor.wake_peer(outbox.wake_handle());
    }
}

#[test]
fn no_wake_is_lost_between_two_rings() {
    let (wake_a, wake_b) =
        (WakeHandle::new().expect("an eventfd"), WakeHandle::new().expect("an eventfd"));
    let (mut inbox_a, outbox_a) = mailbox::<u32>(4, wake_a.clone());
    let (mut inbox_b, outbox_b) = mailbox::<u32>(4, wake_b.clone());
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut reactor = Tested::new(dkv_io::Options::new(wake_b)).expect("a reactor");
            let (mut noise, mut events) = (Noise::new(1), Vec::new());
            for number in 0..ROUND_TRIPS {
                assert_eq!(next(&mut reactor, &mut inbox_b, &mut noise, &mut events), number);
                push(&mut reactor, &outbox_a, number);
            }
            reactor.turn(Wait::Now, &mut events).expect("the reactor works");
        });
        let mut reactor = Tested::new(dkv_io::Options::new(wake_a)).expect("a reactor");
        let (mut noise, mut events) = (Noise::new(2), Vec::new());
        for number in 0..ROUND_TRIPS {
            push(&mut reactor, &outbox_b, number);
            assert_eq!(next(&mut reactor, &mut inbox_a, &mut noise, &mut events), number);
        }
        // The peer's ring existed before its first answer; until then wakes go through the eventfd and do not fail.
        assert_eq!(reactor.counts().wakes_failed, 0);
    });
}

#[test]
fn no_wake_is_lost_from_a_thread_without_a_ring() {
    let wake = WakeHandle::new().expect("an eventfd");
    let (mut inbox, outbox) = mailbox::<u32>(4, wake.clone());
    let (answer, answers) = std::sync::mpsc::sync_channel(4);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut reactor = Tested::new(dkv_io::Options::new(wake)).expect("a reactor");
            let (mut noise, mut events) = (Noise::new(3), Vec::new());
            for number in 0..ROUND_TRIPS {
                assert_eq!(next(&mut reactor, &mut inbox, &mut noise, &mut events), number);
                answer.send(number).expect("the other side listens");
            }
        });
        for number in 0..ROUND_TRIPS {
            outbox.push_and_wake(number).expect("there is room");
            assert_eq!(answers.recv().expect("an answer"), number);
        }
    });
}

#[test]
fn a_wake_before_the_reactor_exists_is_remembered_and_one_after_it_is_harmless() {
    let wake = WakeHandle::new().expect("an eventfd");
    wake.wake();
    wake.wake();
    let mut reactor = Tested::new(dkv_io::Options::new(wake.clone())).expect("a reactor");
    let mut events = Vec::new();
    reactor.turn(Wait::Until(SLEEP), &mut events).expect("the reactor works");
    assert!(matches!(&events[..], [Event::Woken]), "{events:?}");
    events.clear();
    reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    reactor.turn(Wait::Until(Duration::from_millis(5)), &mut events).expect("the reactor works");
    assert!(events.is_empty(), "told twice: {events:?}");

    reactor.wake_peer(&wake);
    reactor.turn(Wait::Until(SLEEP), &mut events).expect("the reactor works");
    assert!(matches!(&events[..], [Event::Woken]), "a reactor may wake itself: {events:?}");
    drop(reactor);
    wake.wake();
}

#[test]
fn waking_a_ring_whose_thread_is_gone_is_harmless() {
    let wake = WakeHandle::new().expect("an eventfd");
    let gone = wake.clone();
    thread::spawn(move || drop(Tested::new(dkv_io::Options::new(gone)).expect("a reactor")))
        .join()
        .expect("no panic");
    let mut reactor = Tested::new(options()).expect("a reactor");
    let mut events = Vec::new();
    for _ in 0..100 {
        reactor.wake_peer(&wake);
        reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    }
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn spinning_ends_with_work_with_other_work_or_with_its_limit() {
    let mut reactor = Tested::new(options()).expect("a reactor");
    let spin = |reactor: &mut Tested, limit: Duration, also: bool| {
        reactor.spin(limit, &mut || also).expect("the reactor works")
    };
    assert!(!spin(&mut reactor, Duration::from_micros(50), false));
    assert!(spin(&mut reactor, PATIENCE, true));
    let (socket, client) = super::rig::pair();
    reactor.adopt(socket).expect("a socket");
    let peer = thread::spawn(move || {
        use std::io::Write;
        let mut client = client;
        client.write_all(b"hello").expect("writes");
        client
    });
    assert!(spin(&mut reactor, PATIENCE, false), "bytes came in");
    let mut events = Vec::new();
    reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    assert!(matches!(&events[..], [Event::Received { .. }]), "{events:?}");
    drop(peer.join().expect("no panic"));
}

/// As a node does it: one thread accepts, others own the connections.
#[test]
fn a_connection_accepted_by_one_reactor_is_served_by_another() {
    let (listener, address) = listener();
    let wake = WakeHandle::new().expect("an eventfd");
    let (mut inbox, outbox) = mailbox::<OwnedFd>(64, wake.clone());
    let clients = 40;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut echo = Echo::new(dkv_io::Options::new(wake));
            let start = Instant::now();
            while echo.opened < clients || echo.closed < clients {
                while let Some(socket) = inbox.pop() {
                    echo.adopt(socket);
                }
                if inbox.park() {
                    echo.turn();
                    inbox.unpark();
                }
                assert!(start.elapsed() < PATIENCE, "hung");
            }
        });
        for seed in 0..clients {
            scope.spawn(move || {
                let client: TcpStream = connect(address);
                super::rig::check_echo(&client, seed as u64, 50_000, 4000);
            });
        }
        let mut acceptor = Tested::new(options()).expect("a reactor");
        acceptor.listen(listener).expect("listens");
        let mut accepted = 0;
        let mut events = Vec::new();
        let start = Instant::now();
        while accepted < clients {
            acceptor.turn(Wait::Until(Duration::from_millis(100)), &mut events).expect("works");
            for event in events.drain(..) {
                if let Event::Accepted { socket, .. } = event {
                    accepted += 1;
                    if outbox.push(socket).expect("there is room") == Wakeup::Needed {
                        acceptor.wake_peer(outbox.wake_handle());
                    }
                }
            }
            assert!(start.elapsed() < PATIENCE, "{accepted} accepted");
        }
        // The last wake rides on this turn.
        acceptor.turn(Wait::Now, &mut events).expect("works");
    });
}
