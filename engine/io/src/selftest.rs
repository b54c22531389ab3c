//! A small echo over loopback, done before a reactor serves: a kernel that takes every flag may still not do the work
//! (a filter that lets the set-up through, a sandbox with half an implementation).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

use crate::{Conn, Event, Reactor, UringReactor, Wait, WakeHandle, clock, sockets};

/// A machine that needs longer is stalled, not slow.
const LIMIT_NS: u64 = 5_000_000_000;

/// Accepts, receives, sends, is woken by `wake`, its own handle, closes; all on this thread and on loopback. To be called on a
/// fresh reactor, which is as fresh afterwards.
///
/// # Errors
/// The text says what did not work.
pub fn self_test<R: Reactor>(reactor: &mut R, wake: &WakeHandle) -> io::Result<()> {
    let listener = sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 8)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let address = listener.local_addr()?;
    let listener = reactor.listen(listener)?;
    let mut peer = TcpStream::connect(address)?;
    // Else the end of a long message waits 40 ms for an acknowledgement, and so does the start of every node.
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(Duration::from_nanos(LIMIT_NS)))?;
    let mut test = Test { reactor, events: Vec::new(), end: clock::monotonic_ns() + LIMIT_NS };

    let socket = test.until("accepting a connection", |event| match event {
        Event::Accepted { socket, .. } => Some(socket),
        _ => None,
    })?;
    let conn = test.reactor.adopt(socket)?;
    let small = test.exchange(conn, &mut peer, 8, 32)?;
    test.send(conn, small.clone(), Vec::new(), &mut peer, &small)?;
    // Through the great buffers, in two pieces of one buffer if the kernel fills them so, and back with an insert.
    test.reactor.expect(conn, usize::MAX);
    let first = test.exchange(conn, &mut peer, 2, 3000)?;
    let second = test.exchange(conn, &mut peer, 3, 2000)?;
    let whole = [&first[..4000], &second, &first[4000..]].concat();
    let insert = vec![(4000, Bytes::from(second))];
    test.send(conn, first, insert, &mut peer, &whole)?;
    wake.wake();
    test.until("being woken", |event| matches!(event, Event::Woken).then_some(()))?;
    drop(peer);
    test.until("noticing the end of a connection", |event| {
        matches!(event, Event::Ended { .. }).then_some(())
    })?;
    test.close(conn)?;
    test.reactor.stop_listening(listener);
    test.reactor.turn(Wait::Now, &mut test.events)
}

/// Bytes that are sent to a ring which has buffers for a part of them only.
const FLOOD_BYTES: usize = 64 * 1024;

/// Has a ring run out of receive buffers (ENOBUFS) and go on when it gets them back; on this thread and on loopback. To be
/// called on a fresh ring with buffers for fewer than [`FLOOD_BYTES`]. Gives how many receives found none.
///
/// # Errors
/// The text says what did not work.
pub(crate) fn run_dry(ring: &mut UringReactor) -> io::Result<u64> {
    let listener = sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 8)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let listener = ring.listen(listener)?;
    peer.set_write_timeout(Some(Duration::from_nanos(LIMIT_NS)))?;
    let mut test =
        Test { reactor: ring, events: Vec::new(), end: clock::monotonic_ns() + LIMIT_NS };
    let socket = test.until("accepting a connection", |event| match event {
        Event::Accepted { socket, .. } => Some(socket),
        _ => None,
    })?;
    let conn = test.reactor.adopt(socket)?;
    let wanted: Vec<u8> = (0..FLOOD_BYTES).map(|at| (at / 256) as u8).collect();
    peer.write_all(&wanted)?;
    let (mut held, mut received) = (Vec::new(), Vec::new());
    while received.len() < wanted.len() {
        // Nothing is given back before the ring has run dry.
        if test.reactor.counts().buffers_missed > 0 {
            held.drain(..).for_each(|chunk| test.reactor.give_back(chunk));
        }
        if clock::monotonic_ns() > test.end {
            return Err(io::Error::other(
                "going on after the receive buffers ran out took too long",
            ));
        }
        let mut events = Vec::new();
        test.reactor.turn(Wait::Until(Duration::from_millis(20)), &mut events)?;
        for event in events {
            if let Event::Received { chunk, .. } = event {
                received.extend_from_slice(test.reactor.bytes(&chunk));
                held.push(chunk);
            }
        }
    }
    held.drain(..).for_each(|chunk| test.reactor.give_back(chunk));
    test.close(conn)?;
    test.reactor.stop_listening(listener);
    test.reactor.turn(Wait::Now, &mut test.events)?;
    match test.reactor.counts().buffers_missed {
        0 => Err(io::Error::other("the receive buffers did not run out though they had to")),
        _ if received != wanted => Err(io::Error::other("received bytes differ from those sent")),
        missed => Ok(missed),
    }
}

struct Test<'a, R> {
    reactor: &'a mut R,
    events: Vec<Event>,
    end: u64,
}

impl<R: Reactor> Test<'_, R> {
    /// Turns until an event is the one waited for; events before it that are not are dropped.
    fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(Event) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            while !self.events.is_empty() {
                if let Some(found) = wanted(self.events.remove(0)) {
                    return Ok(found);
                }
            }
            if clock::monotonic_ns() > self.end {
                return Err(io::Error::other(format!("{what} took too long")));
            }
            self.reactor.turn(Wait::Until(Duration::from_millis(100)), &mut self.events)?;
        }
    }

    /// Has the peer send messages, few enough for all to fit a socket buffer, and receives them.
    fn exchange(
        &mut self,
        conn: Conn,
        peer: &mut TcpStream,
        messages: u8,
        bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let mut wanted = Vec::new();
        for number in 0..messages {
            wanted.resize(wanted.len() + bytes, number + bytes as u8);
            peer.write_all(&wanted[wanted.len() - bytes..])?;
        }
        let mut received = Vec::new();
        while received.len() < wanted.len() {
            let chunk = self.until("receiving", |event| match event {
                Event::Received { chunk, conn: from } if from == conn => Some(chunk),
                _ => None,
            })?;
            received.extend_from_slice(self.reactor.bytes(&chunk));
            self.reactor.give_back(chunk);
        }
        if received == wanted {
            Ok(received)
        } else {
            Err(io::Error::other("received bytes differ from those sent"))
        }
    }

    fn send(
        &mut self,
        conn: Conn,
        buffer: Vec<u8>,
        inserts: Vec<(usize, Bytes)>,
        peer: &mut TcpStream,
        wanted: &[u8],
    ) -> io::Result<()> {
        self.reactor.send(conn, buffer, inserts);
        self.until("sending", |event| matches!(event, Event::Sent { .. }).then_some(()))?;
        let mut answer = vec![0; wanted.len()];
        peer.read_exact(&mut answer)?;
        if answer == wanted {
            Ok(())
        } else {
            Err(io::Error::other("sent bytes differ from those given"))
        }
    }

    fn close(&mut self, conn: Conn) -> io::Result<()> {
        self.reactor.close(conn);
        self.until("closing a connection", |event| {
            matches!(event, Event::Closed { .. }).then_some(())
        })
    }
}
