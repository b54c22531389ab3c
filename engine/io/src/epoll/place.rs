//! The place of a connection: what is known of its socket, and what was told about it.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::event::epoll::EventFlags;

use crate::Conn;
use crate::send::Cursor;

/// A buffer under way, with what is inserted.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) buffer: Vec<u8>,
    /// Ascending offsets into the buffer, and what goes out before the byte there.
    pub(super) inserts: Vec<(usize, Bytes)>,
    pub(super) cursor: Cursor,
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    /// `None`: the place is free.
    pub(super) socket: Option<OwnedFd>,
    /// The socket may have something to receive. The kernel says so once, whether it is wanted then or not, so this is what
    /// remembers it.
    pub(super) readable: bool,
    /// In the queue of those that receive.
    pub(super) queued: bool,
    /// A receive that brings less than it could says nothing of what is behind it: after urgent data, on sockets that are
    /// not TCP, and when the end of the stream is there too.
    pub(super) to_the_end: bool,
    /// Bytes of great arguments that are still to come, as far as it was told.
    pub(super) expecting: usize,
    /// The driver wants nothing now.
    pub(super) paused: bool,
    /// The end of the stream was told.
    pub(super) ended: bool,
    /// A failure was told.
    pub(super) failed: bool,
    pub(super) sending: Option<Sending>,
    /// The socket took no more; the kernel will say when it does.
    pub(super) full: bool,
}

impl Place {
    pub(super) fn occupy(&mut self, index: u32, socket: OwnedFd, to_the_end: bool) -> Conn {
        debug_assert!(self.socket.is_none() && self.sending.is_none());
        let generation = self.generation;
        *self = Self { generation, socket: Some(socket), to_the_end, ..Self::default() };
        Conn { index, generation }
    }

    pub(super) fn wants_to_receive(&self) -> bool {
        self.readable && !self.paused && !self.ended && !self.failed
    }

    /// Takes in what the kernel says of the socket.
    pub(super) fn heard(&mut self, flags: EventFlags) {
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::PRI | over);
        self.to_the_end |= flags.intersects(EventFlags::PRI | over);
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            self.full = false;
        }
    }

    /// Frees the place; the socket is closed and the next use has another name.
    pub(super) fn vacate(&mut self) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, ..Self::default() };
    }
}
