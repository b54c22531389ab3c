//! Receiving: each connection that has something gets its share of a turn, then the next one.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::EpollReactor;
use crate::{Conn, Event};

/// Receives of one turn: some tenth of a millisecond. Who is left over comes first in the next.
const RECEIVES_MAX: usize = 256;
/// Receives of one connection before others get their turn.
const RECEIVES_EACH: usize = 4;

/// How it is with a connection after its share.
enum Share {
    /// It has nothing more, or nobody wants it now.
    Over,
    /// There may be more.
    More,
    /// There was no buffer for it.
    NoBuffer,
}

impl EpollReactor {
    /// Has a connection wait for its turn, if it may have something that is wanted.
    pub(super) fn queue_reader(&mut self, conn: Conn) {
        let Some(place) = self.place(conn) else { return };
        if place.wants_to_receive() && !std::mem::replace(&mut place.queued, true) {
            self.readers.push_back(conn);
        }
    }

    pub(super) fn receive_ready(&mut self, events: &mut Vec<Event>) {
        let mut calls = RECEIVES_MAX;
        for _ in 0..self.readers.len() {
            if calls == 0 {
                break;
            }
            let Some(conn) = self.readers.pop_front() else { break };
            // A stale name: its connection was closed while it waited.
            let Some(place) = self.place(conn) else { continue };
            place.queued = false;
            match self.receive(conn, &mut calls, events) {
                Share::Over => {}
                Share::More => self.queue_reader(conn),
                Share::NoBuffer => {
                    self.counts.buffers_missed += 1;
                    if let Some(place) = self.place(conn) {
                        place.queued = true;
                        // It has had less than its share, so it is the next one when buffers come back.
                        self.readers.push_front(conn);
                    }
                    break;
                }
            }
        }
    }

    fn receive(&mut self, conn: Conn, calls: &mut usize, events: &mut Vec<Event>) -> Share {
        for received in 0..RECEIVES_EACH {
            let Some(place) = self.places.get_mut(conn.index()) else { return Share::Over };
            let Some(socket) = place.socket.as_ref().filter(|_| place.wants_to_receive()) else {
                return Share::Over;
            };
            if *calls == 0 {
                return Share::More;
            }
            let mut pool = &mut self.small;
            if place.expecting > 0 {
                if self.great.has_free() {
                    pool = &mut self.great;
                } else {
                    // The small ones do as well, in more pieces.
                    self.counts.buffers_missed += 1;
                }
            }
            let Some(buffer) = pool.take() else {
                return if received == 0 { Share::NoBuffer } else { Share::More };
            };
            *calls -= 1;
            let room = pool.room(&buffer);
            let most = room.len();
            match recv(socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    pool.unused(buffer);
                    place.readable = false;
                    place.ended = true;
                    events.push(Event::Ended { conn, error: None });
                    return Share::Over;
                }
                Ok((_, bytes)) => {
                    let chunk = pool.filled(buffer, bytes);
                    place.expecting = place.expecting.saturating_sub(bytes);
                    place.readable = bytes == most || place.to_the_end;
                    events.push(Event::Received { conn, chunk });
                }
                Err(Errno::AGAIN) => {
                    pool.unused(buffer);
                    place.readable = false;
                    return Share::Over;
                }
                Err(Errno::INTR) => pool.unused(buffer),
                Err(error) => {
                    pool.unused(buffer);
                    self.tell_failure(conn, error.into(), events);
                    return Share::Over;
                }
            }
        }
        Share::More
    }
}
