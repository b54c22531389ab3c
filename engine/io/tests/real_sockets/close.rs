//! Ends of connections, at any moment, from either side; and of the reactor itself.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use dkv_io::{Event, Reactor, Wait};

use super::Tested;
use super::rig::{connect, listener, pair, reactor, turn_until};

#[test]
fn closing_while_sending_ends_with_closed_and_no_sent() {
    let (socket, client) = pair();
    let mut reactor = reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    // More than the socket buffers on both sides take: nobody reads.
    reactor.send(conn, vec![5; 64 << 20], Vec::new());
    let mut events = Vec::new();
    for _ in 0..3 {
        reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    }
    assert!(events.is_empty(), "{events:?}");
    reactor.close(conn);
    reactor.close(conn);
    turn_until(&mut reactor, "the close", |_, event| match event {
        Event::Closed { conn: closed } => closed == conn,
        other => panic!("{other:?}"),
    });
    assert_eq!(reactor.connections(), 0);
    drop(client);
}

#[test]
fn a_peer_that_goes_in_mid_send_is_told_as_a_failure() {
    let (socket, client) = pair();
    let mut reactor = reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.send(conn, vec![5; 64 << 20], Vec::new());
    let mut events = Vec::new();
    reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    // Bytes unread: the close is a reset.
    drop(client);
    let mut closed = false;
    turn_until(&mut reactor, "the failure", |reactor, event| {
        match event {
            Event::Ended { conn: ended, error } => {
                assert_eq!(ended, conn);
                assert!(error.is_some() || !closed, "a clean end may come first");
                if error.is_some() {
                    reactor.close(conn);
                }
            }
            Event::Closed { .. } => closed = true,
            other => panic!("{other:?}"),
        }
        closed
    });
    assert_eq!(reactor.connections(), 0);
}

#[test]
fn a_name_of_an_earlier_use_of_the_place_is_ignored() {
    let mut reactor = reactor();
    let (socket, first_client) = pair();
    let first = reactor.adopt(socket).expect("a socket");
    reactor.close(first);
    // Not before the driver has seen that the first one is gone.
    let (socket, other_client) = pair();
    let other = reactor.adopt(socket).expect("a socket");
    assert_ne!(first.index(), other.index());
    turn_until(&mut reactor, "the close", |reactor, event| {
        let (socket, client) = pair();
        let early = reactor.adopt(socket).expect("a socket");
        assert_ne!(early.index(), first.index());
        drop(client);
        matches!(event, Event::Closed { .. })
    });
    reactor.turn(Wait::Now, &mut Vec::new()).expect("the reactor works");
    let (socket, mut client) = pair();
    let second = reactor.adopt(socket).expect("a socket");
    assert_eq!(first.index(), second.index(), "the place is used again");
    assert_ne!(first, second);
    reactor.send(first, b"for nobody".to_vec(), Vec::new());
    reactor.pause(first);
    reactor.close(first);
    reactor.resume(first);
    client.write_all(b"hello").expect("writes");
    turn_until(&mut reactor, "the bytes", |reactor, event| match event {
        Event::Ended { .. } => false,
        Event::Received { conn, chunk } => {
            assert_eq!(conn, second);
            assert_eq!(reactor.bytes(&chunk), b"hello");
            reactor.give_back(chunk);
            true
        }
        other => panic!("{other:?}"),
    });
    reactor.send(second, b"for you".to_vec(), Vec::new());
    turn_until(&mut reactor, "the reply", |_, event| matches!(event, Event::Sent { .. }));
    let mut answer = [0; 7];
    client.read_exact(&mut answer).expect("reads");
    assert_eq!(&answer, b"for you");
    drop((first_client, other_client));
}

#[test]
fn a_peer_that_only_stops_writing_still_gets_its_reply() {
    let (socket, client) = pair();
    let mut echo = super::rig::Echo::new(super::rig::options());
    echo.adopt(socket);
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(b"one last question").expect("writes");
            client.shutdown(Shutdown::Write).expect("shuts down");
            let mut answer = String::new();
            (&client).read_to_string(&mut answer).expect("reads to the end");
            assert_eq!(answer, "one last question");
        });
        echo.serve(1);
    });
}

/// Nothing happens and nothing is tried over and over.
fn stays_asleep(reactor: &mut Tested) {
    let mut events = Vec::new();
    reactor.turn(Wait::Now, &mut events).expect("the reactor works");
    let start = std::time::Instant::now();
    reactor.turn(Wait::Until(Duration::from_millis(20)), &mut events).expect("the reactor works");
    assert!(events.is_empty(), "{events:?}");
    assert!(start.elapsed() >= Duration::from_millis(20), "woken after {:?}", start.elapsed());
}

/// Asynchronous runtimes make their sockets non-blocking, which a ring may answer with EAGAIN at once, over and over.
#[test]
fn a_non_blocking_socket_and_listener_are_served_as_well() {
    let (listener, address) = listener();
    listener.set_nonblocking(true).expect("non-blocking");
    let mut reactor = reactor();
    reactor.listen(listener).expect("listens");
    stays_asleep(&mut reactor);
    let mut client = connect(address);
    let mut accepted = None;
    turn_until(&mut reactor, "the accept", |_, event| match event {
        Event::Accepted { socket, .. } => {
            accepted = Some(socket);
            true
        }
        other => panic!("{other:?}"),
    });
    let socket = std::net::TcpStream::from(accepted.expect("accepted"));
    socket.set_nonblocking(true).expect("non-blocking");
    reactor.adopt(OwnedFd::from(socket)).expect("a socket");
    stays_asleep(&mut reactor);
    client.write_all(b"hello").expect("writes");
    turn_until(&mut reactor, "the bytes", |reactor, event| match event {
        Event::Received { chunk, .. } => {
            reactor.give_back(chunk);
            true
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn unix_sockets_are_served_and_other_descriptors_refused() {
    let mut reactor = reactor();
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let conn = reactor.adopt(ours.into()).expect("a stream socket");
    reactor.send(conn, b"hello".to_vec(), Vec::new());
    turn_until(&mut reactor, "the send", |_, event| matches!(event, Event::Sent { .. }));
    let mut answer = [0; 5];
    theirs.read_exact(&mut answer).expect("reads");
    assert_eq!(&answer, b"hello");

    let file = std::fs::File::open("/proc/self/status").expect("opens");
    assert!(reactor.adopt(file.into()).is_err());
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    assert!(reactor.adopt(datagrams.into()).is_err());
    assert_eq!(reactor.connections(), 1);
}

#[test]
fn an_empty_buffer_is_sent_at_once() {
    let (socket, _client) = pair();
    let mut reactor = reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.send(conn, Vec::with_capacity(100), Vec::new());
    turn_until(&mut reactor, "the send", |_, event| match event {
        Event::Sent { buffer, .. } => buffer.capacity() == 100,
        other => panic!("{other:?}"),
    });
}

#[test]
#[should_panic(expected = "has a buffer under way already")]
fn a_second_buffer_under_way_is_refused() {
    let (socket, _client) = pair();
    let mut reactor = reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.send(conn, b"one".to_vec(), Vec::new());
    reactor.send(conn, b"two".to_vec(), Vec::new());
}

#[test]
fn a_listener_that_stopped_refuses_peers() {
    let (listener, address) = listener();
    let mut reactor = reactor();
    let id = reactor.listen(listener).expect("listens");
    let first = connect(address);
    turn_until(&mut reactor, "the accept", |_, event| matches!(event, Event::Accepted { .. }));
    reactor.stop_listening(id);
    reactor.stop_listening(id);
    let mut events = Vec::new();
    let start = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_ok() {
        reactor.turn(Wait::Now, &mut events).expect("the reactor works");
        assert!(start.elapsed() < super::rig::PATIENCE, "still listening");
    }
    assert!(events.is_empty(), "{events:?}");
    drop(first);
}

/// Listeners, accepts, receives, sends, cancellations, chunks in the driver's hand: all of it at once.
#[test]
fn a_reactor_may_be_dropped_with_everything_in_flight() {
    for round in 0..20_u32 {
        let (listener, address) = listener();
        let mut reactor = reactor();
        reactor.listen(listener).expect("listens");
        let mut clients = Vec::new();
        let mut chunks = Vec::new();
        for number in 0..20_u32 {
            let (socket, mut client) = pair();
            let conn = reactor.adopt(socket).expect("a socket");
            match number % 4 {
                0 => reactor.send(conn, vec![1; 16 << 20], Vec::new()),
                1 => client.write_all(&vec![2; 100_000]).expect("writes"),
                2 => reactor.pause(conn),
                _ => {}
            }
            clients.push(client);
        }
        clients.push(connect(address));
        let mut events = Vec::new();
        for _ in 0..round % 4 {
            reactor.turn(Wait::Now, &mut events).expect("the reactor works");
        }
        for event in events {
            if let Event::Received { chunk, .. } = event {
                chunks.push(chunk);
            }
        }
        clients.push(connect(address));
        let start = std::time::Instant::now();
        drop(reactor);
        assert!(start.elapsed() < Duration::from_secs(4), "the kernel did not let go");
        for mut client in clients {
            // Ended, cleanly or by a reset, and not left hanging.
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
    }
}
