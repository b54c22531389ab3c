//! Completions: what each one means for its connection, and what is told of it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::name::{self, Kind};
use super::place::{Lane, Receiving};
use super::ring::Completion;
use super::send::{self, Gather, Sending};
use super::{CANCEL_TRIES_MAX, UringReactor};
use crate::accept::{self, AcceptError};
use crate::{Conn, Event, ListenerId, clock};

impl UringReactor {
    pub(super) fn finish(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let Some((kind, conn)) = name::read(completion.name) else {
            // Only this crate puts names into this ring, and a message from another ring of ours has one too.
            debug_assert!(false, "unknown completion {completion:?}");
            return;
        };
        match kind {
            Kind::Receive => self.finish_receive(conn, Lane::Small, completion, events),
            Kind::ReceiveGreat => self.finish_receive(conn, Lane::Great, completion, events),
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
        if errno > 0 && accept::judge(errno) == AcceptError::Pause {
            let error = io::Error::from_raw_os_error(errno);
            tracing::warn!(%error, "accepting pauses");
            listener.retry_at_ns = Some(clock::monotonic_ns() + accept::PAUSE_NS);
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

    pub(super) fn tell_end(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let Some(place) = self.place(conn) else { return };
        if !std::mem::replace(&mut place.ended, true) {
            events.push(Event::Ended { conn, error: None });
        }
    }

    pub(super) fn tell_failure(&mut self, conn: Conn, error: io::Error, events: &mut Vec<Event>) {
        let Some(place) = self.place(conn) else { return };
        let told = std::mem::replace(&mut place.failed, true);
        if !told && !place.closing {
            events.push(Event::Ended { conn, error: Some(error) });
        }
    }

    pub(super) fn tell_closed(&mut self, conn: Conn, events: &mut Vec<Event>) {
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
