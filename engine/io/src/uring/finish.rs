//! Completions: what each one means for its connection, and what is told of it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::judge::{self, AcceptError, Received};
use super::name::{self, Kind};
use super::place::Receiving;
use super::ring::Completion;
use super::send::{self, Gather, Sending};
use super::{ACCEPT_PAUSE_NS, CANCEL_TRIES_MAX, UringReactor};
use crate::{Conn, Event, ListenerId, clock};

impl UringReactor {
    pub(super) fn finish(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let Some((kind, conn)) = name::read(completion.name) else {
            // Only this crate puts names into this ring, and a message from another ring of ours has one too.
            debug_assert!(false, "unknown completion {completion:?}");
            return;
        };
        match kind {
            Kind::Receive => self.finish_receive(conn, completion, events),
            Kind::Send => self.finish_send(conn, completion, events),
            Kind::Accept => self.finish_accept(ListenerId(conn.index), completion, events),
            Kind::Poll => self.finish_poll(),
            Kind::CancelReceive => self.finish_cancel(conn, completion.result),
            Kind::Cancel => {}
            Kind::Woken => self.woken = true,
            Kind::Wake => {
                self.counts.wakes_failed += 1;
                if let Some(peer) = self.peers.get(conn.index()) {
                    peer.wake();
                }
            }
        }
    }

    fn finish_receive(&mut self, conn: Conn, completion: Completion, events: &mut Vec<Event>) {
        let Completion { result, flags, .. } = completion;
        let last = !cqueue::more(flags);
        let chunk = cqueue::buffer_select(flags)
            .map(|buffer| self.pool.taken(buffer, u32::try_from(result).unwrap_or(0)));
        if last {
            self.under_way -= 1;
        }
        let Some(place) = self.place(conn) else {
            // A place is freed after this completion only; but a buffer must never be lost.
            debug_assert!(false, "a completion for {conn:?} after its last one");
            if let Some(chunk) = chunk {
                self.pool.give_back(chunk);
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
            }
            Received::NoBuffers => {
                arm = false;
                self.wait_for_buffers(conn);
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
            Some(chunk) => self.pool.give_back(chunk),
            None => {}
        }
        if arm {
            self.arm_receive(conn);
        }
        self.tell_closed(conn, events);
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

    fn wait_for_buffers(&mut self, conn: Conn) {
        self.no_buffers = true;
        self.counts.buffers_missed += 1;
        let Some(place) = self.place(conn) else { return };
        if !place.wants_to_receive() || std::mem::replace(&mut place.queued, true) {
            return;
        }
        if place.received_since_armed {
            self.starved.push_back(conn);
        } else {
            self.unlucky.push(conn);
        }
    }

    fn finish_send(&mut self, conn: Conn, completion: Completion, events: &mut Vec<Event>) {
        self.under_way -= 1;
        let Some(place) = self.place(conn) else {
            debug_assert!(false, "a completion for {conn:?} after its last one");
            return;
        };
        let closing = place.closing;
        let Some(mut sending) = place.sending.take() else {
            debug_assert!(false, "a send of {conn:?} ended that was not under way");
            return;
        };
        match completion.result {
            count @ 1.. => {
                if sending.sent(count as usize) {
                    if !closing {
                        let Sending { buffer, mut inserts, gather, .. } = sending;
                        if let Some(gather) = gather {
                            inserts.clear();
                            self.keep_gather(gather);
                        }
                        events.push(Event::Sent { conn, buffer, inserts });
                    }
                } else if !closing {
                    // A short send is not success: the rest follows.
                    place.sending = Some(sending);
                    self.counts.sends_continued += 1;
                    self.push_send(conn);
                }
            }
            0 => {
                self.tell_failure(conn, io::Error::from(io::ErrorKind::WriteZero), events);
            }
            negative => match -negative {
                libc::EINTR | libc::EAGAIN if !closing => {
                    place.sending = Some(sending);
                    self.push_send(conn);
                }
                errno => self.tell_failure(conn, io::Error::from_raw_os_error(errno), events),
            },
        }
        self.tell_closed(conn, events);
    }

    fn keep_gather(&mut self, gather: Box<Gather>) {
        if self.gathers.len() < send::SPARE_MAX {
            self.gathers.extend(gather.cleared());
        }
    }

    fn finish_accept(&mut self, id: ListenerId, completion: Completion, events: &mut Vec<Event>) {
        let last = !cqueue::more(completion.flags);
        if last {
            self.under_way -= 1;
        }
        let stopping = self.stopping;
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        if last {
            listener.armed = false;
        }
        let stopping = stopping || listener.stopping;
        if completion.result >= 0 {
            // SAFETY: a successful accept made this descriptor and nobody else knows of it.
            let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
            if !stopping {
                events.push(Event::Accepted { listener: id, socket });
            }
        }
        if !last {
            return;
        }
        if stopping {
            listener.socket = None;
            return;
        }
        let errno = -completion.result;
        if errno > 0 && judge::accept(errno) == AcceptError::Pause {
            let error = io::Error::from_raw_os_error(errno);
            tracing::warn!(%error, "accepting pauses");
            listener.retry_at_ns = Some(clock::monotonic_ns() + ACCEPT_PAUSE_NS);
            self.listeners_paused += 1;
            events.push(Event::AcceptPaused { listener: id, error });
        } else {
            self.arm_accept(id);
        }
    }

    fn finish_poll(&mut self) {
        self.under_way -= 1;
        if self.stopping {
            return;
        }
        // Reading before the next poll is armed means that a wake in between is seen by that poll.
        if rustix::io::read(self.wake.eventfd(), &mut [0_u8; 8]).is_ok() {
            self.woken = true;
        }
        self.arm_poll();
    }

    /// A cancellation that found nothing although the receive goes on is repeated in the next turn.
    fn finish_cancel(&mut self, conn: Conn, result: i32) {
        if result >= 0 {
            return;
        }
        let Some(place) = self.place(conn) else { return };
        if place.receiving == Receiving::Cancelling && place.cancel_tries < CANCEL_TRIES_MAX {
            place.cancel_tries += 1;
            self.cancel_again.push(conn);
        }
    }

    fn tell_end(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let Some(place) = self.place(conn) else { return };
        if !std::mem::replace(&mut place.ended, true) {
            events.push(Event::Ended { conn, error: None });
        }
    }

    fn tell_failure(&mut self, conn: Conn, error: io::Error, events: &mut Vec<Event>) {
        let Some(place) = self.place(conn) else { return };
        let told = std::mem::replace(&mut place.failed, true);
        if !told && !place.closing {
            events.push(Event::Ended { conn, error: Some(error) });
        }
    }

    fn tell_closed(&mut self, conn: Conn, events: &mut Vec<Event>) {
        if self.vacate(conn) {
            events.push(Event::Closed { conn });
        }
    }

    /// Frees the place of a connection that was given up and of which nothing is left in the kernel.
    pub(super) fn vacate(&mut self, conn: Conn) -> bool {
        let Some(place) = self.place(conn) else { return false };
        if !place.closing || !place.is_idle() {
            return false;
        }
        place.vacate();
        self.vacated.push(conn.index);
        self.connections -= 1;
        true
    }
}
