//! Sending: as much as a socket takes, then wait until the kernel says that it takes more.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::EpollReactor;
use super::place::Sending;
use crate::{Conn, Event};

/// Pieces of a message that one call is given. More would only make a longer list: the call costs little beside them.
const PIECES_MAX: usize = 64;
/// Bytes of one connection before others get their turn, and of one turn: both are copied by the kernel, at some tenth of a
/// millisecond a MiB.
const BYTES_EACH: usize = 512 * 1024;
const BYTES_MAX: usize = 2 * 1024 * 1024;

impl Sending {
    /// Gives the kernel what it takes of the rest, at most `most` bytes; how many it took.
    fn hand_over(&self, socket: &OwnedFd, most: usize) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut rest = self.cursor.rest(&self.buffer, &self.inserts, most);
        if self.inserts.is_empty() {
            return send(socket, rest.next().unwrap_or_default(), flags);
        }
        let mut list = [IoSlice::new(&[]); PIECES_MAX];
        let mut pieces = 0;
        for (slot, piece) in list.iter_mut().zip(rest) {
            *slot = IoSlice::new(piece);
            pieces += 1;
        }
        sendmsg(socket, &list[..pieces], &mut SendAncillaryBuffer::default(), flags)
    }
}

impl EpollReactor {
    /// Sends what is queued. What is too much for a turn stays queued.
    pub(super) fn send_queued(&mut self, events: &mut Vec<Event>) {
        let mut sent = 0;
        for _ in 0..self.senders.len() {
            if sent >= BYTES_MAX {
                break;
            }
            let Some(conn) = self.senders.pop_front() else { break };
            sent += self.transmit(conn, events);
        }
    }

    /// Sends for one connection; how many bytes.
    fn transmit(&mut self, conn: Conn, events: &mut Vec<Event>) -> usize {
        let most = self.send_bytes_max.min(BYTES_EACH);
        let mut total = 0;
        loop {
            let Some(place) = self.place(conn) else { return total };
            let (Some(socket), Some(sending)) = (&place.socket, &mut place.sending) else {
                return total;
            };
            match sending.hand_over(socket, most) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::WriteZero);
                    self.tell_failure(conn, error, events);
                    return total;
                }
                Ok(bytes) => {
                    total += bytes;
                    if sending.cursor.advance(&sending.buffer, &sending.inserts, bytes) {
                        if let Some(Sending { buffer, mut inserts, .. }) = place.sending.take() {
                            inserts.clear();
                            events.push(Event::Sent { conn, buffer, inserts });
                        }
                        return total;
                    }
                    // That it took less than it was given does not mean that the kernel will say when it takes more: only
                    // a refusal does. So it is tried until then, or until others must have their turn.
                    self.counts.sends_continued += 1;
                    if total >= BYTES_EACH {
                        self.senders.push_back(conn);
                        return total;
                    }
                }
                Err(Errno::AGAIN) => {
                    place.full = true;
                    return total;
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.tell_failure(conn, error.into(), events);
                    return total;
                }
            }
        }
    }
}
