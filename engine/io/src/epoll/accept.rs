//! Accepting, some at a time, with a pause after what would fail again at once.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::EpollReactor;
use super::name::Name;
use crate::accept::{self, AcceptError};
use crate::{Event, ListenerId, clock};

/// Peers that one listening socket lets in before others get their turn.
const ACCEPTS_EACH: usize = 64;

pub(super) struct Listener {
    /// `None`: it was stopped.
    socket: Option<TcpListener>,
    /// Somebody may wait. The kernel says so once.
    pub(super) ready: bool,
    /// When to accept again after a pause.
    retry_at_ns: Option<u64>,
}

impl Listener {
    /// Whether an accept may find somebody now.
    pub(super) fn may_accept(&self) -> bool {
        self.ready && self.retry_at_ns.is_none() && self.socket.is_some()
    }
}

impl EpollReactor {
    pub(super) fn add_listener(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        listener.set_nonblocking(true)?;
        let id = ListenerId(self.listeners.len() as u32);
        let data = epoll::EventData::new_u64(Name::Listener(id).write());
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &listener, data, flags)?;
        let socket = Some(listener);
        self.listeners.push(Listener { socket, ready: false, retry_at_ns: None });
        Ok(id)
    }

    pub(super) fn remove_listener(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        if listener.retry_at_ns.take().is_some() {
            self.listeners_paused -= 1;
        }
        if let Some(socket) = listener.socket.take() {
            let _ = epoll::delete(&self.epoll, &socket);
        }
    }

    /// Ends the pauses that are over.
    pub(super) fn end_pauses(&mut self) {
        if self.listeners_paused == 0 {
            return;
        }
        let now = clock::monotonic_ns();
        for listener in &mut self.listeners {
            if listener.retry_at_ns.is_some_and(|at| at <= now) {
                listener.retry_at_ns = None;
                self.listeners_paused -= 1;
            }
        }
    }

    /// The wait, cut to the end of the next pause.
    pub(super) fn clamp(&self, wait: Duration) -> Duration {
        if self.listeners_paused == 0 {
            return wait;
        }
        let now = clock::monotonic_ns();
        let next = self.listeners.iter().filter_map(|listener| listener.retry_at_ns).min();
        next.map_or(wait, |at| wait.min(Duration::from_nanos(at.saturating_sub(now))))
    }

    pub(super) fn accept_ready(&mut self, events: &mut Vec<Event>) {
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            if !listener.may_accept() {
                continue;
            }
            let Some(socket) = &listener.socket else { continue };
            let id = ListenerId(number as u32);
            for _ in 0..ACCEPTS_EACH {
                match accept_with(socket, SocketFlags::CLOEXEC) {
                    Ok(socket) => events.push(Event::Accepted { listener: id, socket }),
                    Err(Errno::AGAIN) => {
                        listener.ready = false;
                        break;
                    }
                    Err(error) if accept::judge(error.raw_os_error()) == AcceptError::Again => {}
                    Err(error) => {
                        let error = io::Error::from(error);
                        tracing::warn!(%error, "accepting pauses");
                        listener.retry_at_ns = Some(clock::monotonic_ns() + accept::PAUSE_NS);
                        self.listeners_paused += 1;
                        events.push(Event::AcceptPaused { listener: id, error });
                        break;
                    }
                }
            }
        }
    }
}
