//! The client connections of one shard: let in, given to the session, their replies sent one buffer at a time, let go.
//!
//! What a client says is the session's business. Here is only who may still be owed something: a client that stops
//! sending but reads on gets its replies; one that never reads, or that the shard wants gone, has a moment and is closed.

use crate::driver::{Driver, RECEIVED_BYTES_MAX, Role};
use crate::mail::Mail;
use dkv_io::{Conn, Reactor};
use dkv_protocol::ids::ShardIndex;
use dkv_shard::{Opened, Order, Output, PortKind, SessionId};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a connection that is to be closed may take to read what it is still owed.
const LINGER_NS: u64 = 2_000_000_000;

/// One client.
pub(crate) struct Client {
    pub(crate) session: SessionId,
    conn: Conn,
    sending: bool,
    leaving: Leaving,
    /// The tick of the driver in which it was heard last.
    pub(crate) heard_at_tick: u32,
}

/// Whether and when a client goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It stays.
    No,
    /// When its replies are all made and sent, or at this time.
    WhenAnswered(u64),
    /// When its output is sent, or at this time.
    WhenSent(u64),
}

impl<R: Reactor> Driver<R> {
    /// A connection came in on the client port: it goes to the shard with the fewest.
    pub(crate) fn spread(&mut self, socket: OwnedFd) {
        let load = |shard: usize| {
            let post = &self.posts[shard];
            self.shared.env.stats[shard].connections.get() as usize + post.clients_on_their_way()
        };
        let here = usize::from(self.me.shard.0);
        let best = (0..self.posts.len()).min_by_key(|&shard| (load(shard), shard)).unwrap_or(here);
        if best == here || !self.posts[best].take_client_seat() {
            self.new_client(socket, PortKind::Client);
        } else {
            self.post(ShardIndex(best as u16), Mail::Client(socket));
        }
    }

    /// Lets a client in, or tells it why not.
    pub(crate) fn new_client(&mut self, socket: OwnedFd, port: PortKind) {
        if self.is_stopping() {
            return;
        }
        let stream = TcpStream::from(socket);
        // A client that has gone already has no address.
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
        dkv_io::sockets::spare_congestion_control(&stream, local, peer);
        let silent_s = self.shared.env.settings.tcp_keepalive_s.get();
        if silent_s > 0 {
            dkv_io::sockets::keep_alive(&stream, local, peer, Duration::from_secs(silent_s));
        }
        let conn = match self.reactor.adopt(stream.into()) {
            Ok(conn) => conn,
            Err(error) => {
                tracing::debug!(%peer, %error, "a new connection cannot be used");
                return;
            }
        };
        let id = self.shared.next_client_id();
        match self.shard.open(self.now, Opened { port, peer, local, id }) {
            Ok(session) => {
                if self.conn_of_session.len() <= session.index() {
                    self.conn_of_session.resize(session.index() + 1, None);
                }
                self.conn_of_session[session.index()] = Some(conn);
                self.set_role(
                    conn,
                    Role::Client(Client {
                        session,
                        conn,
                        sending: false,
                        leaving: Leaving::No,
                        heard_at_tick: 0,
                    }),
                );
            }
            Err(refusal) => {
                tracing::debug!(%peer, "a client is refused");
                self.set_role(conn, Role::Refused);
                self.reactor.send(conn, refusal, Vec::new());
            }
        }
    }

    /// Gives the shard what clients sent.
    pub(crate) fn clients_received(&mut self) {
        if self.received.ids.is_empty() {
            return;
        }
        let before = self.shard.commands();
        let (reactor, received) = (&self.reactor, &self.received);
        self.shard.inputs(self.now, &received.ids, &|i| reactor.bytes(&received.chunks[i]));
        self.received.ids.clear();
        let bytes = std::mem::take(&mut self.received.bytes);
        self.received.chunks.drain(..).for_each(|chunk| self.reactor.give_back(chunk));
        let commands = self.shard.commands() - before;
        if commands > 0 {
            self.worked("commands");
            self.shard.note_latency(commands, self.worked_until_ns - self.now.boot_ns);
        } else if bytes >= RECEIVED_BYTES_MAX {
            // Parts of a great value are work, too.
            self.worked("commands");
        }
    }

    /// The client sends no more, or is gone.
    pub(crate) fn client_ended(&mut self, conn: Conn, error: Option<&io::Error>) {
        if error.is_some() {
            self.close_client(conn);
        } else {
            self.leave(conn, Leaving::WhenAnswered(self.now.boot_ns + LINGER_NS));
        }
    }

    pub(crate) fn client_sent(&mut self, conn: Conn, sent: Output) {
        if let Role::Client(client) = self.role(conn) {
            client.sending = false;
        }
        self.flush(conn, sent);
    }

    /// Carries out what the shard wants of a connection.
    pub(crate) fn client_order(&mut self, order: Order) {
        let (Order::Flush(id)
        | Order::Close(id)
        | Order::Cut(id)
        | Order::Pause(id)
        | Order::Resume(id)
        | Order::Expect(id, _)) = order;
        let Some(conn) = self.conn_of_session.get(id.index()).copied().flatten() else { return };
        // A session that has gone may have left orders behind, and its index may be another's by now.
        let Role::Client(client) = self.role(conn) else { return };
        if client.session != id {
            return;
        }
        let leaving = client.leaving;
        match order {
            Order::Flush(_) => self.flush(conn, Output::default()),
            Order::Close(_) => self.leave(conn, Leaving::WhenSent(self.now.boot_ns + LINGER_NS)),
            Order::Cut(_) => self.close_client(conn),
            Order::Pause(_) => self.reactor.pause(conn),
            // What was paused for good stays so.
            Order::Resume(_) if leaving == Leaving::No => self.reactor.resume(conn),
            Order::Resume(_) => {}
            Order::Expect(_, bytes) => self.reactor.expect(conn, bytes),
        }
    }

    /// Sends what there is, if nothing is under way; when nothing is and the client was to leave, it leaves.
    fn flush(&mut self, conn: Conn, spare: Output) {
        let Role::Client(client) = self.role(conn) else { return };
        if client.sending {
            return;
        }
        let (session, leaving) = (client.session, client.leaving);
        if let Some(Output { bytes, inserts }) = self.shard.take_output(session, spare) {
            if let Role::Client(client) = self.role(conn) {
                client.sending = true;
            }
            self.reactor.send(conn, bytes, inserts);
            return;
        }
        let gone = match leaving {
            Leaving::No => false,
            Leaving::WhenSent(_) => true,
            Leaving::WhenAnswered(_) => !self.shard.owes(session),
        };
        if gone {
            self.close_client(conn);
        }
    }

    /// From now on the client is only waited for.
    fn leave(&mut self, conn: Conn, when: Leaving) {
        let Role::Client(client) = self.role(conn) else { return };
        match (client.leaving, when) {
            (Leaving::No, _) => self.leaving.push(conn),
            // The shard's own wish is the stronger one; a second one changes nothing.
            (Leaving::WhenAnswered(_), Leaving::WhenSent(_)) => {}
            _ => return,
        }
        if let Role::Client(client) = self.role(conn) {
            client.leaving = when;
        }
        self.reactor.pause(conn);
        self.flush(conn, Output::default());
    }

    fn close_client(&mut self, conn: Conn) {
        let Role::Client(client) = self.role(conn) else { return };
        let session = client.session;
        self.set_role(conn, Role::Closing);
        self.conn_of_session[session.index()] = None;
        self.shard.ended(session);
        self.reactor.close(conn);
    }

    /// Closes who had its moment.
    pub(crate) fn tick_clients(&mut self) {
        let mut at = 0;
        while at < self.leaving.len() {
            let conn = self.leaving[at];
            let over = match self.role(conn) {
                // The place may be another client's by now.
                Role::Client(client) if client.conn == conn => match client.leaving {
                    Leaving::WhenAnswered(end_ns) | Leaving::WhenSent(end_ns) => Some(end_ns),
                    Leaving::No => None,
                },
                _ => None,
            };
            match over {
                Some(end_ns) if self.now.boot_ns < end_ns => at += 1,
                Some(_) => {
                    self.leaving.swap_remove(at);
                    self.close_client(conn);
                }
                None => {
                    self.leaving.swap_remove(at);
                }
            }
        }
    }

    /// Reads from no client any more and lets each go when it has its answers, or at `deadline_ns`.
    pub(crate) fn dismiss_clients(&mut self, deadline_ns: u64) {
        let conns: Vec<Conn> = self.conn_of_session.iter().copied().flatten().collect();
        for conn in conns {
            self.leave(conn, Leaving::WhenAnswered(deadline_ns));
        }
    }

    /// Whether no client is left.
    pub(crate) fn no_clients(&self) -> bool {
        self.conn_of_session.iter().all(Option::is_none)
    }
}
