//! Bytes come back, all of them, in order, whatever runs short.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dkv_io::{Event, Options, Reactor};

use super::Tested;
use super::rig::{
    Echo, Noise, check_echo, connect, listener, options, pair, raise_descriptors, turn_until,
};

/// `clients` connections at once, each checking `total` bytes; returns the server for a look at its counts.
pub(crate) fn echo_under(options: Options, clients: usize, total: usize, hold: usize) -> Echo {
    let (listener, address) = listener();
    let mut echo = Echo::new(options);
    echo.hold = hold;
    echo.reactor.listen(listener).expect("listens");
    thread::scope(|scope| {
        for seed in 0..clients {
            scope.spawn(move || check_echo(&connect(address), seed as u64, total, 9000));
        }
        echo.serve(clients);
    });
    assert_eq!(echo.failures, 0);
    assert_eq!(echo.reactor.connections(), 0);
    echo
}

#[test]
fn pipelined_messages_come_back_in_order() {
    let (socket, mut client) = pair();
    let mut echo = Echo::new(options());
    echo.adopt(socket);
    let server = |echo: &mut Echo| echo.serve(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut noise = Noise::new(7);
            for _ in 0..200 {
                let messages: Vec<Vec<u8>> = (0..64)
                    .map(|_| {
                        let length = 1 + noise.below(300) as usize;
                        noise.bytes(length)
                    })
                    .collect();
                for message in &messages {
                    client.write_all(message).expect("writes");
                }
                for message in &messages {
                    let mut answer = vec![0; message.len()];
                    client.read_exact(&mut answer).expect("reads");
                    assert_eq!(&answer, message);
                }
            }
        });
        server(&mut echo);
    });
}

#[test]
fn many_connections_at_once_are_served_byte_for_byte() {
    echo_under(options(), 32, 1 << 20, 0);
}

#[test]
fn four_buffers_serve_sixteen_connections() {
    let few = Options { buffers: 4, buffers_at_first: 1, ..options() };
    let echo = echo_under(few, 16, 200_000, 0);
    assert!(echo.reactor.counts().buffers_missed > 0, "the test did not run out of buffers");
}

#[test]
fn buffers_that_a_driver_keeps_are_waited_for() {
    // Whether eight buffers suffice depends on how the clients' threads are scheduled.
    let ran_out = (0..100).any(|_| {
        let few = Options { buffers: 8, buffers_at_first: 8, ..options() };
        let echo = echo_under(few, 12, 100_000, 7);
        echo.reactor.counts().buffers_missed > 0
    });
    assert!(ran_out, "the test did not run out of buffers");
}

/// Of those armed together the first takes every buffer: unless the others keep their place in the queue, some are never
/// first.
#[test]
fn few_buffers_go_round_among_all_who_want_them() {
    let few = Options { buffers: 4, buffers_at_first: 4, ..options() };
    let mut reactor = Tested::new(few).expect("a reactor");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (socket, mut client) = pair();
        // Fits the socket buffers: no thread is needed to write it.
        client.write_all(&vec![1; 128 << 10]).expect("writes");
        reactor.adopt(socket).expect("a socket");
        clients.push(client);
    }
    let mut received = [0; 8];
    turn_until(&mut reactor, "three rounds", |reactor, event| match event {
        Event::Received { conn, chunk } => {
            received[conn.index()] += chunk.len();
            reactor.give_back(chunk);
            received[conn.index()] >= 3 * 4 * 4096
        }
        other => panic!("{other:?}"),
    });
    assert!(received.iter().all(|bytes| *bytes >= 4096), "{received:?}");
}

/// With one buffer, a connection that always has bytes would always be the first to get it.
#[test]
fn a_firehose_does_not_starve_others_of_buffers() {
    let (listener, address) = listener();
    let mut echo = Echo::new(Options { buffers: 2, buffers_at_first: 1, ..options() });
    echo.reactor.listen(listener).expect("listens");
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let hose = connect(address);
        let reader = hose.try_clone().expect("clones");
        scope.spawn(|| {
            let piece = vec![7_u8; 64 << 10];
            let mut hose = hose;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                hose.write_all(&piece).expect("writes");
            }
            hose.shutdown(std::net::Shutdown::Write).expect("shuts down");
        });
        scope.spawn(move || {
            let mut reader = reader;
            std::io::copy(&mut reader, &mut std::io::sink()).expect("reads to the end");
        });
        scope.spawn(|| {
            for seed in 0..20 {
                check_echo(&connect(address), seed, 30_000, 3000);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        echo.serve(21);
    });
}

#[test]
fn hundreds_armed_at_once_are_all_served() {
    // All receives are armed in one turn: far more than the queue of this ring holds.
    let small = Options { sq_entries: 8, ..options() };
    let (listener, address) = listener();
    let mut echo = Echo::new(small);
    let mut clients = Vec::new();
    for _ in 0..200 {
        let client = connect(address);
        echo.adopt(listener.accept().expect("accepts").0.into());
        clients.push(client);
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            for (number, client) in clients.iter_mut().enumerate() {
                client.write_all(&[number as u8; 100]).expect("writes");
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let mut answer = [0; 100];
                client.read_exact(&mut answer).expect("reads");
                assert_eq!(answer, [number as u8; 100]);
            }
        });
        echo.serve(200);
    });
}

/// Takes every second part of `bytes` out, so that it is to be inserted again.
fn take_out(bytes: &[u8], part: usize) -> (Vec<u8>, Vec<(usize, Bytes)>) {
    let (mut buffer, mut inserts) = (Vec::new(), Vec::new());
    for (number, part) in bytes.chunks(part).enumerate() {
        if number % 2 == 0 {
            buffer.extend_from_slice(part);
        } else {
            inserts.push((buffer.len(), Bytes::copy_from_slice(part)));
        }
    }
    (buffer, inserts)
}

/// `part`: every second part of that many bytes goes as an insert.
fn fifty_megabytes_to_a_slow_reader(options: Options, part: usize) -> Echo {
    const TOTAL: usize = 50_000_000;
    let (socket, client) = pair();
    let mut echo = Echo::new(options);
    let conn = echo.reactor.adopt(socket).expect("a socket");
    let bytes = Noise::new(50).bytes(TOTAL);
    let wanted = bytes.clone();
    // Open until all is over: its end may otherwise be told before that of the send.
    let reader = &client;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut client = reader;
            let mut noise = Noise::new(51);
            let mut piece = vec![0; 200_000];
            let mut place = 0;
            while place < TOTAL {
                let most = 1 + noise.below(piece.len() as u64) as usize;
                let count = client.read(&mut piece[..most]).expect("reads");
                assert!(count > 0, "the end after {place} bytes");
                assert!(piece[..count] == wanted[place..place + count], "differs near {place}");
                place += count;
                if noise.below(50) == 0 {
                    // Slow: the sender's socket buffer fills up meanwhile.
                    thread::park_timeout(Duration::from_millis(2));
                }
            }
        });
        let (buffer, inserts) = take_out(&bytes, part);
        let known = (buffer.len(), buffer.capacity(), inserts.capacity());
        echo.reactor.send(conn, buffer, inserts);
        turn_until(&mut echo.reactor, "the whole buffer being sent", |_, event| match event {
            Event::Sent { buffer, inserts, .. } => {
                assert_eq!((buffer.len(), buffer.capacity(), inserts.capacity()), known);
                assert!(inserts.is_empty());
                true
            }
            other => panic!("{other:?}"),
        });
    });
    echo
}

#[test]
fn fifty_megabytes_reach_a_slow_reader_byte_for_byte() {
    fifty_megabytes_to_a_slow_reader(options(), usize::MAX);
}

/// The kernel is asked to finish short sends by itself; here each operation is short on purpose.
#[test]
fn the_rest_of_a_short_send_follows() {
    let short = Options { send_bytes_max: 70_001, ..options() };
    let echo = fifty_megabytes_to_a_slow_reader(short, usize::MAX);
    assert!(echo.reactor.counts().sends_continued >= 700);
}

#[test]
fn inserts_reach_a_slow_reader_in_their_places() {
    fifty_megabytes_to_a_slow_reader(options(), 3_333_333);
    // More pieces than one operation takes.
    let echo = fifty_megabytes_to_a_slow_reader(options(), 10_007);
    assert!(echo.reactor.counts().sends_continued >= 4);
    let short = Options { send_bytes_max: 70_001, ..options() };
    let echo = fifty_megabytes_to_a_slow_reader(short, 100_000);
    assert!(echo.reactor.counts().sends_continued >= 700);
}

#[test]
fn a_message_of_inserts_alone_is_sent_and_one_of_nothing_is_told_at_once() {
    let (socket, mut client) = pair();
    let mut reactor = super::rig::reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    let hello = vec![(0, Bytes::from_static(b"hel")), (0, Bytes::from_static(b"lo"))];
    for inserts in [hello, vec![(0, Bytes::new())]] {
        reactor.send(conn, Vec::new(), inserts);
        turn_until(&mut reactor, "the send", |_, event| match event {
            Event::Sent { buffer, inserts, .. } => buffer.is_empty() && inserts.is_empty(),
            other => panic!("{other:?}"),
        });
    }
    let mut word = [0; 5];
    client.read_exact(&mut word).expect("reads");
    assert_eq!(&word, b"hello");
}

#[test]
fn pausing_and_resuming_at_random_loses_nothing() {
    const TOTAL: usize = 8 << 20;
    let (socket, client) = pair();
    let mut reactor = super::rig::reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    let bytes = Noise::new(3).bytes(TOTAL);
    let sent = bytes.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut client = client;
            client.write_all(&sent).expect("writes");
        });
        let mut noise = Noise::new(4);
        let mut received = Vec::with_capacity(TOTAL);
        turn_until(&mut reactor, "all bytes arriving", |reactor, event| {
            match event {
                Event::Received { chunk, .. } => {
                    received.extend_from_slice(reactor.bytes(&chunk));
                    reactor.give_back(chunk);
                    match noise.below(6) {
                        0 => reactor.pause(conn),
                        1 => {
                            reactor.pause(conn);
                            reactor.resume(conn);
                        }
                        2 => {
                            reactor.resume(conn);
                            reactor.pause(conn);
                        }
                        _ => {}
                    }
                    // Never left paused: this loop turns on events only.
                    reactor.resume(conn);
                }
                Event::Ended { error: None, .. } => return true,
                other => panic!("{other:?}"),
            }
            false
        });
        assert_eq!(received.len(), TOTAL);
        assert!(received == bytes, "bytes differ");
    });
}

#[test]
fn a_paused_connection_is_not_read_and_its_peer_feels_it() {
    let (socket, mut client) = pair();
    let mut reactor = super::rig::reactor();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.pause(conn);
    // The cancelled receive is gone after this; what had arrived before would still be told.
    let mut events = Vec::new();
    for _ in 0..3 {
        reactor.turn(dkv_io::Wait::Now, &mut events).expect("the reactor works");
    }
    client.set_nonblocking(true).expect("non-blocking");
    let piece = vec![1_u8; 1 << 20];
    let mut written = 0;
    // Ends when the socket buffers on both sides are full, and not before the limit only if somebody reads.
    loop {
        match client.write(&piece) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                reactor.turn(dkv_io::Wait::Now, &mut events).expect("the reactor works");
                if client.write(&piece[..1]).is_err() {
                    break;
                }
                written += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < 256 << 20, "the peer never felt that nobody reads");
    }
    assert!(events.is_empty(), "{events:?}");
    reactor.resume(conn);
    let mut received = 0;
    turn_until(&mut reactor, "the bytes arriving", |reactor, event| match event {
        Event::Received { chunk, .. } => {
            received += chunk.len();
            reactor.give_back(chunk);
            received == written
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn two_thousand_connections_are_served() {
    let descriptors = raise_descriptors();
    let count = ((descriptors.saturating_sub(200) / 2) as usize).min(2000);
    assert!(count >= 200, "a limit of {descriptors} descriptors is too low for this test");
    let (listener, address) = listener();
    let mut echo = Echo::new(options());
    echo.reactor.listen(listener).expect("listens");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
            for round in 0..3_usize {
                for (number, client) in clients.iter_mut().enumerate() {
                    client.write_all(&(number * 3 + round).to_le_bytes()).expect("writes");
                }
                for (number, client) in clients.iter_mut().enumerate() {
                    let mut answer = [0; 8];
                    client.read_exact(&mut answer).expect("reads");
                    assert_eq!(usize::from_le_bytes(answer), number * 3 + round);
                }
            }
        });
        echo.serve(count);
    });
    assert_eq!(echo.opened, count);
}
