//! The room that touches the kernel: rings, buffers, sockets, mailboxes, pinning, clocks.
//!
//! It knows bytes, file descriptors and threads. It does not know RESP, tables, slots or nodes, and it owns every byte
//! that the kernel may touch: a buffer goes in by value and comes back by value, in an [`Event`], when the kernel is done
//! with it. `unsafe` lives in this crate alone, one operation to a block, each with the rule that it relies on.
//!
//! [`Reactor`] is completion-shaped and dispatched statically: [`UringReactor`] where the kernel gives a ring, and
//! [`EpollReactor`] where it does not, without a change in their drivers.

mod accept;
pub mod clock;
pub mod cpu;
mod epoll;
pub mod mailbox;
mod mapping;
pub mod memory;
mod options;
pub mod probe;
mod selftest;
mod send;
pub mod sockets;
mod unavailable;
mod uring;
mod wake;

#[cfg(all(test, not(loom)))]
mod reactor_tests;

pub use epoll::EpollReactor;
pub use mailbox::{Inbox, Outbox, Wakeup, mailbox};
pub use options::{Counts, Options};
pub use probe::{Report, probe};
pub use selftest::self_test;
pub use sockets::Acknowledged;
pub use unavailable::IoUnavailable;
pub use uring::UringReactor;
pub use wake::WakeHandle;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;

/// A connection of one reactor. It names this use of the place and no later one: when the place is used again, the
/// generation differs and the old name is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    index: u32,
    generation: u32,
}

impl Conn {
    /// The place in the reactor: small, dense, used again after [`Event::Closed`]; good as an index into a `Vec`.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Which use of the place this is.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

/// A listening socket of one reactor. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(u32);

/// A received piece, still in the reactor's own buffer. Read it with [`Reactor::bytes`], then give it back with
/// [`Reactor::give_back`]; a chunk that is dropped instead is a receive buffer lost to the reactor for good.
#[must_use = "a chunk holds a receive buffer: hand it to Reactor::give_back"]
#[derive(Debug)]
pub struct Chunk {
    pool: u32,
    offset: u32,
    length: u32,
    buffer: u16,
}

impl Chunk {
    /// Bytes in the piece; never zero.
    #[expect(clippy::len_without_is_empty, reason = "an empty piece is never delivered")]
    pub fn len(&self) -> usize {
        self.length as usize
    }
}

/// What a [`Reactor`] has to tell.
#[derive(Debug)]
pub enum Event {
    /// A peer connected. The socket belongs to the driver: adopt it here, or hand it to another thread.
    Accepted {
        /// Whose listening socket it was.
        listener: ListenerId,
        /// The connection; close-on-exec, `TCP_NODELAY` if the listener had it.
        socket: OwnedFd,
    },
    /// Accepting failed (usually out of file descriptors). The reactor tries again by itself after a pause; peers wait
    /// in the kernel's queue meanwhile.
    AcceptPaused {
        /// Whose.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// Bytes came in. They are in order for each connection.
    Received {
        /// From whom.
        conn: Conn,
        /// The bytes.
        chunk: Chunk,
    },
    /// The connection has come to its end and the driver must [`Reactor::close`] it.
    ///
    /// With no error the peer will send no more, but may still read (`printf PING | nc` does): what was asked before may
    /// be answered first, then close. With an error nothing reaches the peer any more: close at once; an in-flight buffer
    /// is not reported as [`Event::Sent`]. At most one of each comes, an error never before the clean end.
    Ended {
        /// Whose.
        conn: Conn,
        /// The failure, if it was one.
        error: Option<io::Error>,
    },
    /// All of it was taken by the kernel; here is the buffer back, contents and capacity unchanged.
    Sent {
        /// On which connection.
        conn: Conn,
        /// The buffer given to [`Reactor::send`].
        buffer: Vec<u8>,
        /// The list given with it, emptied: the inserts are let go.
        inserts: Vec<(usize, Bytes)>,
    },
    /// The last event of a connection: nothing of it is left in the kernel, its socket is closed, and a buffer that was
    /// still under way is dropped. Its place is used again from the next turn on, not while the events of this one are
    /// being looked at.
    Closed {
        /// Whose.
        conn: Conn,
    },
    /// Somebody woke this reactor: look into the mailboxes. Wakes that come together may be told as one.
    Woken,
}

/// How long a [`Reactor::turn`] may take when there is nothing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit, collect what is there, return.
    Now,
    /// Sleep until something happens, but no longer than this.
    Until(Duration),
}

/// Completion-shaped network I/O for one thread.
///
/// Calls queue work and never block; [`Reactor::turn`] hands everything queued to the kernel in one system call and
/// brings back what is done. A [`Conn`] that is unknown or was closed is ignored everywhere.
pub trait Reactor {
    /// Takes over a listening socket and accepts on it until [`Reactor::stop_listening`].
    ///
    /// # Errors
    /// The socket cannot be set to the mode that the reactor needs.
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId>;

    /// Stops accepting. Connections accepted but not told yet are closed; so is the listening socket, soon.
    fn stop_listening(&mut self, listener: ListenerId);

    /// Takes over a connected stream socket, whoever made it, and starts to receive. Sets `TCP_NODELAY` (where the
    /// socket has that) and blocking mode.
    ///
    /// # Errors
    /// The descriptor is not a usable stream socket; it is closed.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<Conn>;

    /// Sends the whole buffer, and between its bytes the inserts, without copying them: each goes out before the byte of
    /// the buffer at its offset (at the end for the buffer's length), those of one offset in their order. One buffer at a
    /// time for a connection: wait for [`Event::Sent`] before the next.
    ///
    /// An insert costs the kernel more than a small copy costs us: below some kilobytes, copy.
    ///
    /// # Panics
    /// If the previous buffer is still under way: two sends in flight could interleave their bytes. If the offsets do not
    /// ascend or lie beyond the buffer.
    fn send(&mut self, conn: Conn, buffer: Vec<u8>, inserts: Vec<(usize, Bytes)>);

    /// So many bytes are to come for one great argument: receive them through greater buffers, in fewer and longer pieces.
    /// A hint, which costs something: nothing else changes, and a reactor may pass over it.
    fn expect(&mut self, conn: Conn, bytes: usize);

    /// Stops receiving from a connection, so that the peer feels back pressure. What was received before still arrives.
    fn pause(&mut self, conn: Conn);

    /// Starts receiving again after [`Reactor::pause`].
    fn resume(&mut self, conn: Conn);

    /// Shuts the connection down both ways and gives up whatever is in flight; [`Event::Closed`] follows. To have the
    /// peer read a last reply, wait for its [`Event::Sent`] first.
    fn close(&mut self, conn: Conn);

    /// The bytes of a chunk.
    ///
    /// # Panics
    /// If the chunk is of another reactor.
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8];

    /// Returns a chunk's buffer for the next receive.
    ///
    /// # Panics
    /// If the chunk is of another reactor.
    fn give_back(&mut self, chunk: Chunk);

    /// Wakes another reactor; rides on this one's next [`Reactor::turn`], so turn soon. Only worth its cost when the
    /// other one sleeps: see [`Outbox::push`].
    fn wake_peer(&mut self, target: &WakeHandle);

    /// One round: submit all that is queued, wait if told to and if nothing is there yet, append what happened to
    /// `events`.
    ///
    /// # Errors
    /// The reactor is broken and no later turn will work.
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()>;

    /// Submits all that is queued and polls, without sleeping, until a turn would bring something, `also` says true, or
    /// `limit` is over. Returns whether to turn with [`Wait::Now`]; `false` means that it is time to park the mailbox and
    /// sleep. Only for a thread with a CPU of its own: it burns the time.
    ///
    /// # Errors
    /// The reactor is broken and no later turn will work.
    fn spin(&mut self, limit: Duration, also: &mut dyn FnMut() -> bool) -> io::Result<bool>;

    /// What the kernel of the other end lets be seen of a TCP connection; none for other sockets and closed connections.
    /// A system call: for those who wonder, not for every turn.
    fn acknowledged(&self, conn: Conn) -> Option<Acknowledged>;

    /// One line for the log: which way of I/O, kernel, flags, sizes.
    fn describe(&self) -> String;
}
