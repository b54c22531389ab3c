//! What only the reactor on epoll could get wrong.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Tested;
use super::rig::{options, pair, reactor, turn_until};
use dkv_io::{Event, Options, Reactor, UringReactor, Wait, WakeHandle};

/// Threads of one process may be of both kinds, as when a benchmark compares them.
#[test]
fn a_ring_and_a_reactor_without_one_wake_each_other() {
    let (ours, theirs) =
        (WakeHandle::new().expect("an eventfd"), WakeHandle::new().expect("an eventfd"));
    let mut epoll = Tested::new(Options::new(ours.clone())).expect("a reactor");
    let mut ring = UringReactor::new(Options::new(theirs.clone())).expect("a ring");
    for _ in 0..1000 {
        ring.wake_peer(&ours);
        ring.turn(Wait::Now, &mut Vec::new()).expect("the ring works");
        turn_until(&mut epoll, "the wake", |_, event| matches!(event, Event::Woken));
        epoll.wake_peer(&theirs);
        turn_until(&mut ring, "the wake", |_, event| matches!(event, Event::Woken));
    }
}

/// A receive stops before urgent data and says nothing of what is behind it; the kernel tells of a socket but once.
#[test]
fn what_comes_behind_urgent_data_is_not_left_lying() {
    let (socket, client) = pair();
    let mut reactor = reactor();
    reactor.adopt(socket).expect("a socket");
    let client = socket2::Socket::from(client);
    let mut wanted = Vec::new();
    for round in 0..50_u8 {
        client.send(b"before").expect("sent");
        client.send_out_of_band(b"!").expect("sent");
        client.send(&[round; 100]).expect("sent");
        wanted.extend_from_slice(b"before");
        wanted.extend_from_slice(&[round; 100]);
        // Over loopback all of it is here before the first receive.
        let mut received = Vec::new();
        turn_until(&mut reactor, "what is behind it", |reactor, event| {
            if let Event::Received { chunk, .. } = event {
                received.extend_from_slice(reactor.bytes(&chunk));
                reactor.give_back(chunk);
            }
            received.len() >= 106
        });
        assert!(received == wanted[wanted.len() - 106..], "round {round}: {received:?}");
    }
}

/// A receive of a Unix socket ends where a descriptor was sent along, whatever is behind it.
#[test]
fn a_socket_that_is_not_tcp_is_read_to_the_end() {
    let mut reactor = reactor();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    for _ in 0..3 {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = rustix::net::SendAncillaryBuffer::new(&mut space);
        let descriptors = [std::os::fd::AsFd::as_fd(&theirs)];
        assert!(along.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
        let piece = [std::io::IoSlice::new(b"piece")];
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&theirs, &piece, &mut along, flags).expect("sent");
    }
    reactor.adopt(ours.into()).expect("a stream socket");
    let mut bytes = 0;
    turn_until(&mut reactor, "all pieces", |reactor, event| {
        if let Event::Received { chunk, .. } = event {
            bytes += chunk.len();
            reactor.give_back(chunk);
        }
        bytes == 15
    });
}

/// What a paused connection has stays noted, but is no reason to look again and again.
#[test]
fn a_paused_connection_with_bytes_lets_its_reactor_sleep() {
    let (socket, mut client) = pair();
    let mut reactor = reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.pause(conn);
    client.write_all(b"later").expect("writes");
    let mut events = Vec::new();
    // The first one takes in what the kernel tells.
    reactor.turn(Wait::Until(Duration::from_millis(100)), &mut events).expect("works");
    reactor.turn(Wait::Now, &mut events).expect("works");
    let start = Instant::now();
    reactor.turn(Wait::Until(Duration::from_millis(20)), &mut events).expect("works");
    assert!(events.is_empty() && start.elapsed() >= Duration::from_millis(20), "{events:?}");
    reactor.resume(conn);
    reactor.turn(Wait::Now, &mut events).expect("works");
    assert!(matches!(&events[..], [Event::Received { .. }]), "{events:?}");
}

/// However many have something, a turn ends, and the next one begins with those that waited.
#[test]
fn a_turn_is_bounded_and_everybody_gets_one() {
    let descriptors = super::rig::raise_descriptors();
    let count = ((descriptors.saturating_sub(200) / 2) as usize).min(600);
    assert!(count >= 300, "a limit of {descriptors} descriptors is too low for this test");
    let mut reactor = Tested::new(options()).expect("a reactor");
    let mut clients = Vec::new();
    for _ in 0..count {
        let (socket, mut client) = pair();
        client.write_all(&vec![7; 100_000]).expect("fits the socket's buffers");
        reactor.adopt(socket).expect("a socket");
        clients.push(client);
    }
    let mut received = vec![0_usize; count];
    let mut turns = 0;
    while received.iter().sum::<usize>() < count * 100_000 {
        let mut events = Vec::new();
        reactor.turn(Wait::Now, &mut events).expect("works");
        turns += 1;
        assert!(events.len() <= 256, "{} events in one turn", events.len());
        for event in events {
            let Event::Received { conn, chunk } = event else { panic!("{event:?}") };
            received[conn.index()] += chunk.len();
            reactor.give_back(chunk);
        }
        // Nobody is a share and a half ahead of anybody.
        let (least, most) = (received.iter().min(), received.iter().max());
        let ahead = most.expect("some") - least.expect("some");
        assert!(ahead <= 2 * 4 * 4096, "after {turns} turns somebody is {ahead} bytes ahead");
    }
}

/// One connection that takes without end must not keep others from getting theirs.
#[test]
fn a_great_message_leaves_room_for_small_ones() {
    let mut reactor = Tested::new(options()).expect("a reactor");
    let (socket, reader) = pair();
    let greedy = reactor.adopt(socket).expect("a socket");
    let (socket, _other) = pair();
    let modest = reactor.adopt(socket).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = reader;
            std::io::copy(&mut reader, &mut std::io::sink()).expect("reads to the end");
        });
        reactor.send(greedy, vec![1; 256 << 20], Vec::new());
        reactor.turn(Wait::Now, &mut Vec::new()).expect("works");
        reactor.send(modest, b"hello".to_vec(), Vec::new());
        let mut events = Vec::new();
        while events.is_empty() {
            reactor.turn(Wait::Now, &mut events).expect("works");
        }
        assert!(matches!(&events[..], [Event::Sent { conn, .. }] if *conn == modest), "{events:?}");
        reactor.close(greedy);
    });
}
