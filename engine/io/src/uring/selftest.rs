//! A small echo over loopback, done before a reactor serves: a kernel that takes every flag may still not do the work
//! (a filter that lets the set-up through, a sandbox with half an implementation).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::UringReactor;
use crate::{Conn, Event, IoUnavailable, Reactor, Wait, clock, probe, sockets};

/// Messages echoed; small enough for all to fit a socket buffer.
const MESSAGES: usize = 64;
const MESSAGE_BYTES: usize = 32;
/// A machine that needs longer is stalled, not slow.
const LIMIT_NS: u64 = 5_000_000_000;

/// Accepts, receives, sends, is woken, closes; all on this thread and on loopback. To be called on a fresh reactor, which
/// is as fresh afterwards.
///
/// # Errors
/// [`IoUnavailable::SelfTest`] says what did not work.
pub fn self_test(reactor: &mut UringReactor) -> Result<(), IoUnavailable> {
    run(reactor)
        .map_err(|what| IoUnavailable::SelfTest { kernel: probe::kernel(), what: what.to_string() })
}

fn run(reactor: &mut UringReactor) -> io::Result<()> {
    let listener = sockets::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), 8)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let address = listener.local_addr()?;
    let listener = reactor.listen(listener)?;
    let mut peer = TcpStream::connect(address)?;
    peer.set_read_timeout(Some(Duration::from_nanos(LIMIT_NS)))?;
    let mut test = Test { reactor, events: Vec::new(), end: clock::monotonic_ns() + LIMIT_NS };

    let socket = test.until("accepting a connection", |event| match event {
        Event::Accepted { socket, .. } => Some(socket),
        _ => None,
    })?;
    let conn = test.reactor.adopt(socket)?;
    for number in 0..MESSAGES {
        peer.write_all(&[number as u8; MESSAGE_BYTES])?;
    }
    let mut echo = Vec::new();
    while echo.len() < MESSAGES * MESSAGE_BYTES {
        let chunk = test.until("receiving", |event| match event {
            Event::Received { chunk, .. } => Some(chunk),
            _ => None,
        })?;
        echo.extend_from_slice(test.reactor.bytes(&chunk));
        test.reactor.give_back(chunk);
    }
    let wanted: Vec<u8> = (0..MESSAGES).flat_map(|number| [number as u8; MESSAGE_BYTES]).collect();
    if echo != wanted {
        return Err(io::Error::other("received bytes differ from those sent"));
    }
    test.reactor.send(conn, echo, Vec::new());
    test.until("sending", |event| match event {
        Event::Sent { .. } => Some(()),
        _ => None,
    })?;
    let mut answer = vec![0; wanted.len()];
    peer.read_exact(&mut answer)?;
    if answer != wanted {
        return Err(io::Error::other("sent bytes differ from those given"));
    }
    test.reactor.wake.clone().wake();
    test.until("being woken", |event| matches!(event, Event::Woken).then_some(()))?;
    drop(peer);
    test.until("noticing the end of a connection", |event| {
        matches!(event, Event::Ended { .. }).then_some(())
    })?;
    test.close(conn)?;
    test.reactor.stop_listening(listener);
    test.reactor.turn(Wait::Now, &mut test.events)
}

struct Test<'a> {
    reactor: &'a mut UringReactor,
    events: Vec<Event>,
    end: u64,
}

impl Test<'_> {
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

    fn close(&mut self, conn: Conn) -> io::Result<()> {
        self.reactor.close(conn);
        self.until("closing a connection", |event| {
            matches!(event, Event::Closed { .. }).then_some(())
        })
    }
}
