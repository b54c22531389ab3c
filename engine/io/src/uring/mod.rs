//! The io_uring reactor: one ring, built and used on one thread.
//!
//! The kernel is a second owner of everything that an operation names. So a connection's place keeps its socket and the
//! buffer under way until the *final* completion of each of its operations was drained, whatever happened meanwhile;
//! only then is the place free, under a new generation. At most one receive and one send of a connection are in the
//! kernel at any time, so kind, index and generation name an operation for good.
//!
//! Deliberately absent, because measured useless or harmful for this work: SQPOLL, zero-copy send, receive bundles, busy
//! polling, linked operations (a short send would still run the next link).

mod finish;
mod judge;
mod name;
mod place;
mod pool;
mod receive;
mod ring;
mod send;
mod setup;
#[cfg(all(test, not(loom)))]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};

use crate::{
    Acknowledged, Chunk, Conn, Counts, Event, IoUnavailable, ListenerId, Options, Reactor, Wait,
    WakeHandle, clock, probe, self_test, send as message, sockets,
};
use name::Kind;
use place::{Place, Receiving};
use receive::Source;
use ring::{Completion, Ring};
use send::{Gather, Sending};
pub(crate) use setup::{OPERATIONS_USED, bare, need_bytes};

/// Smallest page of the machines that DKV runs on; only for sums of sizes.
const PAGE_BYTES: u64 = 4096;
/// Completions taken in one turn. More wait in the ring and make the next turn return at once.
const COMPLETIONS_PER_TURN: usize = 2048;
/// How long a dropped reactor waits for the kernel to let go of its memory. It takes microseconds; when it does not, the
/// memory is kept for good instead of given away under the kernel's hands.
const DRAIN_NS_MAX: u64 = 5_000_000_000;
/// A cancellation that found nothing is repeated this often, for kernels whose look-up misses an operation that is just
/// being run.
const CANCEL_TRIES_MAX: u8 = 3;

struct Listener {
    /// Kept until the accept's final completion.
    socket: Option<TcpListener>,
    armed: bool,
    stopping: bool,
    /// When to accept again after a pause.
    retry_at_ns: Option<u64>,
}

/// [`Reactor`] on io_uring.
pub struct UringReactor {
    // The order of the next three is the order of destruction: the ring is closed before memory that it was told of is
    // freed.
    ring: Ring,
    small: Source,
    great: Source,
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
    /// Operations in the kernel that name memory or descriptors of ours.
    under_way: usize,
    /// Events that need no completion.
    ready: Vec<Event>,
    woken: bool,
    cancel_again: Vec<Conn>,
    completions: Vec<Completion>,
    /// Lists for sends with inserts that nothing is sent with now.
    #[expect(clippy::vec_box, reason = "the kernel is given its address, so it must not move")]
    gathers: Vec<Box<Gather>>,
    /// Reactors woken so far; a wake that failed is found here by its name.
    peers: Vec<WakeHandle>,
    wake: WakeHandle,
    stopping: bool,
    accepted: setup::Accepted,
    counts: Counts,
    send_bytes_max: usize,
    expect_bytes_min: usize,
    /// A ring with SINGLE_ISSUER belongs to the thread that made it.
    not_send: PhantomData<*mut ()>,
}

impl UringReactor {
    /// Makes a reactor, on the thread that will use it.
    ///
    /// # Errors
    /// There is no usable ring; the error says why and what to type.
    pub fn new(options: Options) -> Result<Self, IoUnavailable> {
        let setup::Built { ring, small, great, accepted } = setup::build(&options)?;
        let other =
            |step, error: io::Error| IoUnavailable::Other { step, error: error.to_string() };
        let duplicate = ring.duplicate().map_err(|error| other("duplicating the ring", error))?;
        if !options.wake.attach(Some(duplicate)) {
            let error = io::Error::other("the wake handle belongs to another reactor already");
            return Err(other("taking over the wake handle", error));
        }
        let mut reactor = Self {
            ring,
            small: Source::new(small),
            great: Source::new(great),
            places: Vec::new(),
            free: Vec::new(),
            vacated: Vec::new(),
            told_closed: Vec::new(),
            connections: 0,
            listeners: Vec::new(),
            listeners_paused: 0,
            under_way: 0,
            ready: Vec::new(),
            woken: false,
            cancel_again: Vec::new(),
            completions: Vec::with_capacity(256),
            gathers: Vec::new(),
            peers: Vec::new(),
            wake: options.wake,
            stopping: false,
            accepted,
            counts: Counts::default(),
            send_bytes_max: options.send_bytes_max.clamp(1, 1 << 30),
            expect_bytes_min: options.expect_bytes_min,
            not_send: PhantomData,
        };
        reactor.arm_poll();
        Ok(reactor)
    }

    /// The same, put through a small exchange over loopback before anybody relies on it.
    ///
    /// # Errors
    /// There is no usable ring; the error says why and what to type.
    pub fn tested(options: Options) -> Result<Self, IoUnavailable> {
        let wake = options.wake.clone();
        let mut reactor = Self::new(options)?;
        self_test(&mut reactor, &wake).map_err(|error| IoUnavailable::SelfTest {
            kernel: probe::kernel(),
            what: error.to_string(),
        })?;
        Ok(reactor)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Connections that are open or closing.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The flags that the kernel accepted.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = self.accepted.flags.clone();
        if self.ring.is_registered() {
            flags.push("registered_ring");
        }
        if self.ring.has_no_iowait() {
            flags.push("no_iowait");
        }
        flags
    }

    /// The place of a connection, unless the name is stale.
    fn place(&mut self, conn: Conn) -> Option<&mut Place> {
        self.places
            .get_mut(conn.index())
            .filter(|place| place.generation == conn.generation && place.socket.is_some())
    }

    fn arm_poll(&mut self) {
        let fd = Fd(self.wake.eventfd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: the entry names no memory, and the eventfd is open as long as `self.wake`, which drops after the ring.
        unsafe { self.ring.push(entry.user_data(name::plain(Kind::Poll, 0))) };
        self.under_way += 1;
    }

    fn arm_accept(&mut self, id: ListenerId) {
        if self.stopping {
            return;
        }
        let listener = &mut self.listeners[id.0 as usize];
        let Some(socket) = listener.socket.as_ref().filter(|_| !listener.stopping) else { return };
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        listener.armed = true;
        self.under_way += 1;
        // SAFETY: the entry names no memory; `finish` drops the socket only after the final completion.
        unsafe { self.ring.push(entry.build().user_data(name::plain(Kind::Accept, id.0))) };
    }

    /// Puts the unsent rest of what a connection has to say into the ring.
    fn push_send(&mut self, conn: Conn) {
        let most = self.send_bytes_max;
        let Some(place) = self.place(conn) else { return };
        let (Some(socket), Some(sending)) = (&place.socket, &mut place.sending) else { return };
        let fd = Fd(socket.as_raw_fd());
        // MSG_WAITALL has the kernel itself go on after a partial send, so that one completion usually does.
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = if let Some(gather) = &mut sending.gather {
            let header = gather.list(&sending.buffer, &sending.inserts, most);
            opcode::SendMsg::new(fd, header).flags(flags as u32).build()
        } else {
            let rest = &sending.buffer[sending.done..];
            let length = rest.len().min(most) as u32;
            opcode::Send::new(fd, rest.as_ptr(), length).flags(flags).build()
        };
        self.under_way += 1;
        // SAFETY: socket, buffer, inserts and their list stay in the place, neither written nor resized, until the final
        // completion was drained: `finish` is the only one to take them out, `send` refuses a second buffer, the list is
        // in a box and shared bytes never change; moving any of these does not move what the entry points to.
        unsafe { self.ring.push(entry.user_data(name::of(Kind::Send, conn))) };
    }

    /// What waited for this turn: cancellations to repeat, receives that had no buffer, accepts after a pause.
    fn catch_up(&mut self) {
        while let Some(conn) = self.cancel_again.pop() {
            if self.place(conn).is_some_and(|place| place.receiving == Receiving::Cancelling) {
                self.cancel_receive(conn);
            }
        }
        self.arm_starved();
        if self.listeners_paused > 0 {
            let now = clock::monotonic_ns();
            for index in 0..self.listeners.len() {
                let listener = &mut self.listeners[index];
                if listener.retry_at_ns.is_some_and(|at| at <= now) {
                    listener.retry_at_ns = None;
                    self.listeners_paused -= 1;
                    self.arm_accept(ListenerId(index as u32));
                }
            }
        }
    }

    /// The wait, cut to the end of the next pause.
    fn clamp(&self, wait: Duration) -> Duration {
        if self.listeners_paused == 0 {
            return wait;
        }
        let now = clock::monotonic_ns();
        let next = self.listeners.iter().filter_map(|listener| listener.retry_at_ns).min();
        next.map_or(wait, |at| wait.min(Duration::from_nanos(at.saturating_sub(now))))
    }

    /// Takes completions from the ring and turns them into events.
    fn collect(&mut self, events: &mut Vec<Event>) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.drain(&mut completions, COMPLETIONS_PER_TURN);
        for completion in completions.drain(..) {
            self.finish(completion, events);
        }
        self.completions = completions;
        self.small.settle();
        self.great.settle();
        if std::mem::take(&mut self.woken) {
            events.push(Event::Woken);
        }
    }
}

impl UringReactor {
    /// Cancels everything and drains until the kernel holds nothing. `false`: it would not let go in time.
    fn wind_up(&mut self) -> bool {
        self.stopping = true;
        for index in 0..self.places.len() {
            let generation = self.places[index].generation;
            self.close(Conn { index: index as u32, generation });
        }
        for index in 0..self.listeners.len() {
            self.stop_listening(ListenerId(index as u32));
        }
        let target = CancelBuilder::user_data(name::plain(Kind::Poll, 0));
        self.ring.push_cancel(opcode::AsyncCancel2::new(target), name::plain(Kind::Cancel, 0));
        let end = clock::monotonic_ns() + DRAIN_NS_MAX;
        let mut events = Vec::new();
        while self.under_way > 0 && clock::monotonic_ns() < end {
            self.publish();
            if self.ring.enter(Some(Duration::from_millis(10))).is_err() {
                break;
            }
            // Sockets accepted at the last moment are in there and are closed with it.
            events.clear();
            self.collect(&mut events);
            self.catch_up();
        }
        self.under_way == 0
    }
}

impl Reactor for UringReactor {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        // Some operations of some kernels take the mark of a non-blocking descriptor for the wish to fail with EAGAIN
        // instead of waiting, which here would mean trying for ever.
        listener.set_nonblocking(false)?;
        let id = ListenerId(self.listeners.len() as u32);
        self.listeners.push(Listener {
            socket: Some(listener),
            armed: false,
            stopping: false,
            retry_at_ns: None,
        });
        self.arm_accept(id);
        Ok(id)
    }

    fn stop_listening(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        if std::mem::replace(&mut listener.stopping, true) {
            return;
        }
        if listener.retry_at_ns.take().is_some() {
            self.listeners_paused -= 1;
        }
        if listener.armed {
            let target = CancelBuilder::user_data(name::plain(Kind::Accept, id.0));
            self.ring.push_cancel(opcode::AsyncCancel2::new(target), name::plain(Kind::Cancel, 0));
        } else {
            listener.socket = None;
        }
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<Conn> {
        let options = socket2::SockRef::from(&socket);
        if options.r#type()? != socket2::Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
        }
        // As for listeners: sockets that come from an async runtime are non-blocking.
        options.set_nonblocking(false)?;
        // Unix sockets have no such option and no such delay.
        let _ = options.set_tcp_nodelay(true);
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < name::PLACES_MAX => {
                self.places.push(Place::default());
                (self.places.len() - 1) as u32
            }
            None => return Err(io::Error::other("too many connections for one reactor")),
        };
        let conn = self.places[index as usize].occupy(index, socket);
        self.connections += 1;
        self.arm_receive(conn);
        Ok(conn)
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>, mut inserts: Vec<(usize, Bytes)>) {
        let mut bytes = buffer.len();
        let mut gather = None;
        if !inserts.is_empty() {
            bytes = message::check(&buffer, &inserts);
            gather = Some(self.gathers.pop().unwrap_or_else(|| Box::new(Gather::new())));
        }
        let Some(place) = self.place(conn) else { return };
        assert!(place.sending.is_none(), "{conn:?} has a buffer under way already");
        if place.closing || place.failed {
            return;
        }
        if bytes == 0 {
            inserts.clear();
            self.ready.push(Event::Sent { conn, buffer, inserts });
            return;
        }
        place.sending = Some(Sending { buffer, done: 0, inserts, gather });
        self.push_send(conn);
    }

    fn expect(&mut self, conn: Conn, bytes: usize) {
        self.expect_bytes(conn, bytes);
    }

    fn pause(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        place.paused = true;
        self.stop_receiving(conn);
    }

    fn resume(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        place.paused = false;
        // A receive that is still being cancelled is armed again by its final completion, one that waits for a buffer
        // when it is its turn.
        if !place.queued {
            self.arm_receive(conn);
        }
    }

    fn close(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        if std::mem::replace(&mut place.closing, true) {
            return;
        }
        if let Some(socket) = &place.socket {
            // Ends both operations by itself; the cancellations below only make it quicker. Fails when the peer is gone
            // already.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        let sending = place.sending.is_some();
        self.stop_receiving(conn);
        if sending {
            let target = CancelBuilder::user_data(name::of(Kind::Send, conn));
            self.ring.push_cancel(opcode::AsyncCancel2::new(target), name::of(Kind::Cancel, conn));
        }
        if self.vacate(conn) {
            self.ready.push(Event::Closed { conn });
        }
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.source_of(chunk).pool.bytes(chunk)
    }

    fn give_back(&mut self, chunk: Chunk) {
        if self.small.pool.owns(&chunk) {
            self.small.pool.give_back(chunk);
        } else {
            self.great.pool.give_back(chunk);
        }
    }

    fn wake_peer(&mut self, target: &WakeHandle) {
        if target.id() == self.wake.id() {
            self.woken = true;
            return;
        }
        // Known ones are few (the shards of a node) and mostly the same few.
        let known = self.peers.iter().position(|peer| peer.id() == target.id());
        let index = known.unwrap_or_else(|| {
            self.peers.push(target.clone());
            self.peers.len() - 1
        });
        let Some(ring) = self.peers[index].ring() else {
            target.wake();
            return;
        };
        let woken = name::plain(Kind::Woken, 0);
        let entry = opcode::MsgRingData::new(Fd(ring.as_raw_fd()), 0, woken, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(name::plain(Kind::Wake, index as u32));
        // SAFETY: the entry names no memory; the target's descriptor is a duplicate kept by the handle in `self.peers`,
        // which drops after the ring.
        unsafe { self.ring.push(entry) };
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        self.free.append(&mut self.told_closed);
        self.catch_up();
        self.publish();
        let wait = match wait {
            Wait::Until(time) if self.ready.is_empty() && !self.woken => Some(self.clamp(time)),
            Wait::Until(_) | Wait::Now => None,
        };
        // After a spin there may be all that the call would bring: it is saved then.
        if wait.is_some() || self.ring.has_queued() || !self.ring.has_completions() {
            self.ring.enter(wait)?;
        }
        events.append(&mut self.ready);
        self.collect(events);
        // By now the events of all of them are in the list.
        std::mem::swap(&mut self.told_closed, &mut self.vacated);
        Ok(())
    }

    fn spin(&mut self, limit: Duration, also: &mut dyn FnMut() -> bool) -> io::Result<bool> {
        if !self.ready.is_empty() || self.woken {
            return Ok(true);
        }
        self.catch_up();
        self.publish();
        if self.ring.has_queued() {
            self.ring.enter(None)?;
        }
        let end = clock::monotonic_ns().saturating_add(limit.as_nanos() as u64);
        loop {
            // The clock costs more than the looks.
            for _ in 0..16 {
                if self.ring.has_pending() || also() {
                    return Ok(true);
                }
                std::hint::spin_loop();
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
        let (sq, cq) = self.ring.sizes();
        format!(
            "io=uring kernel={} flags={} sq={sq} cq={cq} recv=multishot+{}+{} send=waitall wake=msg_ring",
            self.accepted.kernel,
            self.flags().join(","),
            self.small.pool.describe(),
            self.great.pool.describe(),
        )
    }
}

impl std::fmt::Debug for UringReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringReactor")
            .field("connections", &self.connections())
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Drop for UringReactor {
    /// Only after the kernel let go are the fields let go: ring first, memory after.
    fn drop(&mut self) {
        if self.wind_up() {
            return;
        }
        tracing::error!(
            under_way = self.under_way,
            "the kernel keeps operations of a closed ring; their memory is given up for lost"
        );
        self.small.pool.leak();
        self.great.pool.leak();
        for place in &mut self.places {
            place.leak();
        }
    }
}
