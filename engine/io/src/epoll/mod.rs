//! The reactor where there is no ring: epoll, told of each socket once and for all, and plain calls that never block.
//!
//! Edge-triggered, so that nothing has to be said to the kernel but once when a connection comes: what it told stays noted in
//! the connection's place until a call says that there is no more. A pause, a lack of buffers, a full socket buffer cost no
//! system call. Each turn sends what was queued, asks the kernel once, and receives from those that have something, each its
//! share, in turn. Within a call the kernel borrows our memory and lets go of it before it returns, so that a connection is
//! closed as soon as it is given up.

mod accept;
mod name;
mod place;
mod pool;
mod receive;
mod send;
#[cfg(all(test, not(loom)))]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::{
    Acknowledged, Chunk, Conn, Counts, Event, ListenerId, Options, Reactor, Wait, WakeHandle,
    clock, probe, self_test, send as message, sockets,
};
use accept::Listener;
use name::{Name, PLACES_MAX};
use place::{Place, Sending};
use pool::Pool;

/// Sockets that one call tells of. More wait in the kernel and are told by the next.
const EVENTS_MAX: usize = 512;

/// [`Reactor`] on epoll.
pub struct EpollReactor {
    epoll: OwnedFd,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Places whose [`Event::Closed`] is yet to be told, and those which it was told of in the last turn. Neither is used
    /// again before the driver has seen that event, or it would take the new connection for the old one.
    vacated: Vec<u32>,
    told_closed: Vec<u32>,
    connections: usize,
    listeners: Vec<Listener>,
    /// Listeners in a pause; saves looking at them all on each turn.
    listeners_paused: usize,
    small: Pool,
    great: Pool,
    /// Connections that may have something to receive, the next one first. Each is in here once.
    readers: VecDeque<Conn>,
    /// Connections that have something to send and whose socket may take it.
    senders: VecDeque<Conn>,
    /// Room for what the kernel tells; empty between calls.
    polled: Vec<epoll::Event>,
    /// The kernel was asked by a spin and told of something, so that the turn which follows need not ask.
    asked: bool,
    /// Events that need no look at a socket.
    ready: Vec<Event>,
    woken: bool,
    wake: WakeHandle,
    counts: Counts,
    kernel: String,
    send_bytes_max: usize,
    expect_bytes_min: usize,
}

impl EpollReactor {
    /// Makes a reactor.
    ///
    /// # Errors
    /// There is no descriptor or no memory left, or the kernel refuses epoll.
    pub fn new(options: Options) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: each wake is told once, whatever the counter is, so that nobody has to read it.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let name = epoll::EventData::new_u64(Name::Wake.write());
        epoll::add(&epoll, options.wake.eventfd(), name, flags)?;
        if !options.wake.attach(None) {
            return Err(io::Error::other("the wake handle belongs to another reactor already"));
        }
        Ok(Self {
            epoll,
            places: Vec::new(),
            free: Vec::new(),
            vacated: Vec::new(),
            told_closed: Vec::new(),
            connections: 0,
            listeners: Vec::new(),
            listeners_paused: 0,
            small: Pool::new(options.buffers, options.buffer_bytes)?,
            great: Pool::new(options.great_buffers, options.great_buffer_bytes)?,
            readers: VecDeque::new(),
            senders: VecDeque::new(),
            polled: Vec::with_capacity(EVENTS_MAX),
            asked: false,
            ready: Vec::new(),
            woken: false,
            wake: options.wake,
            counts: Counts::default(),
            kernel: probe::kernel(),
            send_bytes_max: options.send_bytes_max.max(1),
            expect_bytes_min: options.expect_bytes_min.max(1),
        })
    }

    /// The same, put through a small exchange over loopback before anybody relies on it.
    ///
    /// # Errors
    /// As [`EpollReactor::new`], or what of the exchange did not work.
    pub fn tested(options: Options) -> io::Result<Self> {
        let wake = options.wake.clone();
        let mut reactor = Self::new(options)?;
        self_test(&mut reactor, &wake)
            .map_err(|error| io::Error::other(format!("epoll failed its self-test: {error}")))?;
        Ok(reactor)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The place of a connection, unless the name is stale.
    fn place(&mut self, conn: Conn) -> Option<&mut Place> {
        self.places
            .get_mut(conn.index())
            .filter(|place| place.generation == conn.generation && place.socket.is_some())
    }

    /// Whether a turn finds something to do without asking the kernel.
    fn has_work(&self) -> bool {
        self.woken
            || !self.ready.is_empty()
            || !self.senders.is_empty()
            || (!self.readers.is_empty() && self.small.has_free())
            || self.listeners.iter().any(Listener::may_accept)
    }

    /// Asks the kernel what is new, sleeps for up to `time` when nothing is, and notes it. The kernel counts in milliseconds
    /// and is told to round up.
    fn poll(&mut self, time: Duration) -> io::Result<()> {
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.polled), Some(&time)) {
            Ok(_) => self.take_in(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn take_in(&mut self) {
        let mut polled = std::mem::take(&mut self.polled);
        for event in polled.drain(..) {
            match Name::read(event.data.u64()) {
                Name::Wake => self.woken = true,
                Name::Listener(id) => {
                    if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
                        listener.ready = true;
                    }
                }
                Name::Conn(conn) => {
                    let flags = event.flags;
                    let Some(place) = self.place(conn) else { continue };
                    let was_full = place.full;
                    place.heard(flags);
                    if was_full && !place.full && place.sending.is_some() {
                        self.senders.push_back(conn);
                    }
                    self.queue_reader(conn);
                }
            }
        }
        self.polled = polled;
    }

    fn tell_failure(&mut self, conn: Conn, error: io::Error, events: &mut Vec<Event>) {
        let Some(place) = self.place(conn) else { return };
        place.sending = None;
        if !std::mem::replace(&mut place.failed, true) {
            events.push(Event::Ended { conn, error: Some(error) });
        }
    }
}

impl Reactor for EpollReactor {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        self.add_listener(listener)
    }

    fn stop_listening(&mut self, id: ListenerId) {
        self.remove_listener(id);
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<Conn> {
        let options = socket2::SockRef::from(&socket);
        if options.r#type()? != socket2::Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
        }
        // Unix sockets have no such option and no such delay. Whether the socket is blocking is all the same: no call waits.
        let is_tcp = options.set_tcp_nodelay(true).is_ok();
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(Place::default());
                (self.places.len() - 1) as u32
            }
            None => return Err(io::Error::other("too many connections for one reactor")),
        };
        let place = &mut self.places[index as usize];
        let name = Name::Conn(Conn { index, generation: place.generation });
        let data = epoll::EventData::new_u64(name.write());
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::PRI
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        if let Err(error) = epoll::add(&self.epoll, &socket, data, flags) {
            self.free.push(index);
            return Err(error.into());
        }
        self.connections += 1;
        Ok(place.occupy(index, socket, !is_tcp))
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>, mut inserts: Vec<(usize, Bytes)>) {
        let bytes = message::check(&buffer, &inserts);
        let Some(place) = self.place(conn) else { return };
        assert!(place.sending.is_none(), "{conn:?} has a buffer under way already");
        if place.failed {
            return;
        }
        if bytes == 0 {
            inserts.clear();
            self.ready.push(Event::Sent { conn, buffer, inserts });
            return;
        }
        place.sending = Some(Sending { buffer, inserts, cursor: message::Cursor::default() });
        if !place.full {
            self.senders.push_back(conn);
        }
    }

    fn expect(&mut self, conn: Conn, bytes: usize) {
        if bytes < self.expect_bytes_min {
            return;
        }
        if let Some(place) = self.place(conn) {
            place.expecting = bytes;
        }
    }

    fn pause(&mut self, conn: Conn) {
        if let Some(place) = self.place(conn) {
            place.paused = true;
        }
    }

    fn resume(&mut self, conn: Conn) {
        if let Some(place) = self.place(conn) {
            place.paused = false;
            self.queue_reader(conn);
        }
    }

    fn close(&mut self, conn: Conn) {
        let epoll = self.epoll.as_fd();
        let Some(place) =
            self.places.get_mut(conn.index()).filter(|place| place.generation == conn.generation)
        else {
            return;
        };
        let Some(socket) = place.socket.take() else { return };
        // Both for the case that somebody else has a descriptor of the same socket. The first fails when the peer is gone
        // already.
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        let _ = epoll::delete(epoll, &socket);
        place.vacate();
        self.vacated.push(conn.index);
        self.connections -= 1;
        self.ready.push(Event::Closed { conn });
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        if self.small.owns(chunk) { self.small.bytes(chunk) } else { self.great.bytes(chunk) }
    }

    fn give_back(&mut self, chunk: Chunk) {
        if self.small.owns(&chunk) {
            self.small.give_back(chunk);
        } else {
            self.great.give_back(chunk);
        }
    }

    fn wake_peer(&mut self, target: &WakeHandle) {
        if target.id() == self.wake.id() {
            self.woken = true;
        } else {
            target.wake();
        }
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        self.free.append(&mut self.told_closed);
        self.end_pauses();
        let before = events.len();
        events.append(&mut self.ready);
        self.send_queued(events);
        // After a spin there may be all that the call would bring: it is saved then.
        if !std::mem::take(&mut self.asked) {
            let time = match wait {
                Wait::Until(time) if events.len() == before && !self.has_work() => self.clamp(time),
                Wait::Until(_) | Wait::Now => Duration::ZERO,
            };
            self.poll(time)?;
        }
        self.accept_ready(events);
        self.receive_ready(events);
        // Those whose sockets have room again.
        self.send_queued(events);
        if std::mem::take(&mut self.woken) {
            events.push(Event::Woken);
        }
        // By now the events of all of them are in the list.
        std::mem::swap(&mut self.told_closed, &mut self.vacated);
        Ok(())
    }

    fn spin(&mut self, limit: Duration, also: &mut dyn FnMut() -> bool) -> io::Result<bool> {
        self.end_pauses();
        let mut ready = std::mem::take(&mut self.ready);
        self.send_queued(&mut ready);
        self.ready = ready;
        if self.has_work() {
            return Ok(true);
        }
        let end = clock::monotonic_ns().saturating_add(limit.as_nanos() as u64);
        loop {
            // Asking the kernel costs more than these looks.
            for _ in 0..16 {
                if also() {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            self.poll(Duration::ZERO)?;
            // What the kernel told may be of no interest, as that a new socket has room.
            if self.has_work() {
                self.asked = true;
                return Ok(true);
            }
            if clock::monotonic_ns() >= end {
                return Ok(false);
            }
        }
    }

    fn acknowledged(&self, conn: Conn) -> Option<Acknowledged> {
        let place = self.places.get(conn.index())?;
        let socket = place.socket.as_ref().filter(|_| place.generation == conn.generation)?;
        sockets::acknowledged(socket.as_fd()).ok()
    }

    fn describe(&self) -> String {
        format!(
            "io=epoll kernel={} recv={}+{} send=sendmsg wake=eventfd",
            self.kernel,
            self.small.describe(),
            self.great.describe()
        )
    }
}

impl std::fmt::Debug for EpollReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpollReactor")
            .field("connections", &self.connections)
            .field("readers", &self.readers.len())
            .field("senders", &self.senders.len())
            .finish_non_exhaustive()
    }
}
