//! Receiving: one multishot receive for a connection, armed again whenever it ends, through one of two sets of buffers.
//!
//! The small ones are for everybody. A connection that a great argument is to come from changes over to the great ones:
//! fewer completions, longer copies. It changes back after it has sent this and that for a while, because changing costs a
//! cancellation and two turns.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};

use super::UringReactor;
use super::judge::{self, Received};
use super::name::{self, Kind};
use super::place::{Lane, Receiving};
use super::pool::{self, Pool};
use super::ring::Completion;
use crate::{Chunk, Conn, Event};

/// A connection goes back to the small buffers after so many pieces that were no part of an expected argument. In a
/// buffer that is filled in pieces, small pieces cost nothing.
const UNEXPECTED_MAX: u8 = 64;

/// A set of buffers and who waits for one.
pub(super) struct Source {
    pub(super) pool: Pool,
    /// Connections whose receive ended for want of buffers, the next one to be armed first.
    starved: VecDeque<Conn>,
    /// Those of this turn which got nothing since they were armed: they stay at the head, so that each gets its turn
    /// however few the buffers are.
    unlucky: Vec<Conn>,
    missed: bool,
}

impl Source {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, starved: VecDeque::new(), unlucky: Vec::new(), missed: false }
    }

    /// All completions of a turn were seen.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.missed) {
            for conn in self.unlucky.drain(..).rev() {
                self.starved.push_front(conn);
            }
            self.pool.grow();
        }
    }
}

impl UringReactor {
    pub(super) fn source_of(&self, chunk: &Chunk) -> &Source {
        if self.small.pool.owns(chunk) { &self.small } else { &self.great }
    }

    fn source(&mut self, lane: Lane) -> &mut Source {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Great => &mut self.great,
        }
    }

    /// Shows the kernel which buffers were given back.
    pub(super) fn publish(&mut self) {
        self.small.pool.publish();
        self.great.pool.publish();
    }

    /// Arms the receive of a connection if it is wanted and not armed.
    pub(super) fn arm_receive(&mut self, conn: Conn) {
        if self.stopping {
            return;
        }
        let Some(place) = self.place(conn) else { return };
        if !place.wants_to_receive() || place.receiving != Receiving::Idle {
            return;
        }
        let Some(socket) = &place.socket else { return };
        let (group, kind) = match place.lane {
            Lane::Small => (pool::SMALL_GROUP, Kind::Receive),
            Lane::Great => (pool::GREAT_GROUP, Kind::ReceiveGreat),
        };
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), group).build();
        place.receiving = Receiving::Armed;
        place.armed = place.lane;
        place.received_since_armed = false;
        self.under_way += 1;
        // SAFETY: the socket stays open until the final completion (see `finish`); the memory is the pool's, which the
        // kernel takes from the ring registered for it.
        unsafe { self.ring.push(entry.user_data(name::of(kind, conn))) };
    }

    /// Asks for the end of the receive that is in the kernel, if there is one.
    pub(super) fn stop_receiving(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        if place.receiving == Receiving::Armed {
            place.receiving = Receiving::Cancelling;
            place.cancel_tries = 0;
            self.cancel_receive(conn);
        }
    }

    pub(super) fn cancel_receive(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        let kind = match place.armed {
            Lane::Small => Kind::Receive,
            Lane::Great => Kind::ReceiveGreat,
        };
        let target = CancelBuilder::user_data(name::of(kind, conn));
        self.ring
            .push_cancel(opcode::AsyncCancel2::new(target), name::of(Kind::CancelReceive, conn));
    }

    /// See [`crate::Reactor::expect`].
    pub(super) fn expect_bytes(&mut self, conn: Conn, bytes: usize) {
        if bytes < self.expect_bytes_min {
            return;
        }
        let Some(place) = self.place(conn) else { return };
        place.expecting = bytes;
        place.unexpected = 0;
        self.change_over(conn, Lane::Great);
    }

    /// From the next receive on through other buffers; the one that is armed now ends.
    fn change_over(&mut self, conn: Conn, lane: Lane) {
        let Some(place) = self.place(conn) else { return };
        place.lane = lane;
        if place.armed != lane {
            self.stop_receiving(conn);
        }
    }

    /// Arms those that waited for buffers.
    pub(super) fn arm_starved(&mut self) {
        for lane in [Lane::Small, Lane::Great] {
            // No more receives than buffers: those in excess could only fail again.
            for _ in 0..self.source(lane).pool.available() {
                let Some(conn) = self.source(lane).starved.pop_front() else { break };
                if let Some(place) = self.place(conn) {
                    place.queued = false;
                    self.arm_receive(conn);
                }
            }
        }
    }

    fn wait_for_buffers(&mut self, conn: Conn, lane: Lane) {
        self.source(lane).missed = true;
        self.counts.buffers_missed += 1;
        let Some(place) = self.place(conn) else { return };
        if !place.wants_to_receive() || std::mem::replace(&mut place.queued, true) {
            return;
        }
        let lucky = place.received_since_armed;
        let source = self.source(lane);
        if lucky {
            source.starved.push_back(conn);
        } else {
            source.unlucky.push(conn);
        }
    }

    pub(super) fn finish_receive(
        &mut self,
        conn: Conn,
        lane: Lane,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        let Completion { result, flags, .. } = completion;
        let last = !cqueue::more(flags);
        let chunk = cqueue::buffer_select(flags).map(|buffer| {
            let bytes = u32::try_from(result).unwrap_or(0);
            self.source(lane).pool.taken(buffer, bytes, cqueue::buffer_more(flags))
        });
        if last {
            self.under_way -= 1;
        }
        let Some(place) = self.place(conn) else {
            // A place is freed after this completion only; but a buffer must never be lost.
            debug_assert!(false, "a completion for {conn:?} after its last one");
            if let Some(chunk) = chunk {
                self.source(lane).pool.give_back(chunk);
            }
            return;
        };
        if last {
            place.receiving = Receiving::Idle;
        }
        let tell = !place.closing && !place.failed;
        let mut arm = last;
        match judge::receive(result, flags) {
            Received::Bytes => {
                place.received_since_armed = true;
                self.counts.receives_cut += u64::from(last);
                if lane == Lane::Great {
                    self.count_expected(conn, result as usize);
                }
            }
            Received::NoBuffers => {
                arm = false;
                self.wait_for_buffers(conn, lane);
            }
            Received::Again => {}
            Received::Unclear => {
                if tell && self.has_ended(conn) {
                    self.tell_end(conn, events);
                }
            }
            Received::End => {
                if tell {
                    self.tell_end(conn, events);
                }
            }
            Received::Failed(errno) => {
                self.tell_failure(conn, io::Error::from_raw_os_error(errno), events);
            }
        }
        match chunk {
            Some(chunk) if result > 0 && tell => events.push(Event::Received { conn, chunk }),
            Some(chunk) => self.source(lane).pool.give_back(chunk),
            None => {}
        }
        if arm {
            self.arm_receive(conn);
        }
        self.tell_closed(conn, events);
    }

    /// Bytes came through the great buffers.
    fn count_expected(&mut self, conn: Conn, bytes: usize) {
        let patience = if self.great.pool.is_in_pieces() { UNEXPECTED_MAX } else { 1 };
        let Some(place) = self.place(conn) else { return };
        if place.expecting > 0 {
            place.expecting = place.expecting.saturating_sub(bytes);
            if place.expecting > 0 || patience > 1 {
                return;
            }
        }
        place.unexpected = place.unexpected.saturating_add(1);
        if place.unexpected >= patience && place.lane == Lane::Great {
            self.change_over(conn, Lane::Small);
        }
    }

    /// Whether the peer sent all it will, for a receive that could not tell.
    fn has_ended(&mut self, conn: Conn) -> bool {
        let Some(socket) = self.place(conn).and_then(|place| place.socket.as_ref()) else {
            return false;
        };
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        // An error here is found again, and told, by the receive that follows.
        matches!(rustix::net::recv(socket, &mut [0_u8; 1][..], flags), Ok((_, 0)))
    }
}
