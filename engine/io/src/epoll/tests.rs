//! What only the inside of this reactor can show.

use super::*;
use crate::reactor_tests::{Examined, pair, turn};

impl Examined for EpollReactor {
    fn make(change: impl FnOnce(Options) -> Options) -> Self {
        let wake = WakeHandle::new().expect("an eventfd");
        Self::new(change(Options::new(wake))).expect("epoll")
    }

    fn wake(&self) -> WakeHandle {
        self.wake.clone()
    }

    fn open(&self) -> usize {
        self.connections()
    }

    fn nothing_is_left(&self, what: &str) {
        assert!(self.small.is_whole() && self.great.is_whole(), "{what}: {self:?}");
        assert!(self.places.iter().all(|place| place.sending.is_none()), "{what}");
        assert!(self.senders.is_empty() && self.polled.is_empty(), "{what}: {self:?}");
        assert_eq!(self.free.len() + self.told_closed.len(), self.places.len(), "{what}");
    }
}

/// The kernel tells once that a socket takes more, and only after it refused.
#[test]
fn a_full_socket_is_left_alone_until_the_kernel_says_that_it_has_room() {
    let mut reactor = EpollReactor::make(|options| options);
    let (socket, client) = pair();
    let conn = reactor.adopt(socket).expect("a socket");
    reactor.send(conn, vec![1; 64 << 20], Vec::new());
    let mut events = Vec::new();
    while !reactor.place(conn).expect("open").full {
        reactor.turn(Wait::Now, &mut events).expect("works");
    }
    assert!(events.is_empty() && reactor.senders.is_empty() && !reactor.has_work());
    let before = reactor.counts();
    for _ in 0..10 {
        reactor.turn(Wait::Now, &mut events).expect("works");
    }
    assert_eq!(reactor.counts(), before, "it was tried again and again");
    let reader = std::thread::spawn(move || {
        let mut client = client;
        std::io::Read::read_exact(&mut client, &mut vec![0; 64 << 20]).expect("reads all");
        client
    });
    while events.is_empty() {
        events = turn(&mut reactor);
    }
    assert!(matches!(&events[..], [Event::Sent { .. }]), "{events:?}");
    drop(reader.join().expect("no panic"));
}

/// Memory is touched where buffers were in use together, and nowhere else.
#[test]
fn a_quiet_connection_uses_one_buffer_again_and_again() {
    let mut reactor = EpollReactor::make(|options| options);
    let (socket, mut client) = pair();
    reactor.adopt(socket).expect("a socket");
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        std::io::Write::write_all(&mut client, b"ping").expect("writes");
        let mut received = false;
        while !received {
            for event in turn(&mut reactor) {
                if let Event::Received { chunk, .. } = event {
                    used.insert(chunk.buffer);
                    reactor.give_back(chunk);
                    received = true;
                }
            }
        }
    }
    assert_eq!(used.len(), 1);
}
