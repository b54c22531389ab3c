//! The loop of one shard: completions in, the pure shard in the middle, submissions out.
//!
//! One turn is one system call and then work that never waits: completions, the mailbox, batches to other shards, orders
//! of the shard, a slice of background. It knows sockets, links and mail and nothing of commands; what bytes mean is the
//! shard's. Clients are in `clients`, links to other nodes in `links`.

use crate::clients::Client;
use crate::clocks::Clocks;
use crate::links::{LinkEnd, Links};
use crate::mail::{Letterbox, Mail, News, Post};
use crate::meter::Meter;
use crate::shared::Shared;
use crate::users::UsersAsk;
use dkv_io::{Chunk, Conn, Event, ListenerId, Reactor, Wait, Wakeup};
use dkv_protocol::frame::FrameKind;
use dkv_protocol::ids::{ShardAddr, ShardIndex};
use dkv_protocol::limits::OUTPUT_BYTES_MAX;
use dkv_protocol::map::StoreMap;
use dkv_protocol::ranges::ConfigAsk;
use dkv_protocol::users::{UsersAnswer, UsersRefusal};
use dkv_shard::command::Now;
use dkv_shard::stats::ShardStats;
use dkv_shard::{Hold, Order, Output, Piece, PortKind, SessionId, Shard, UsersOutcome};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Links are looked after, clocks compared and idle shards woken this often.
const TICK_NS: u64 = 100_000_000;
/// How long an idle shard with a CPU of its own looks around before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// It does so while no more clients than this are talking to it: for few it halves the answering time; of many somebody
/// is always there, and looking out for each costs more than sleeping until several have come.
const TALKING_MAX: u32 = 8;
/// After so much work a turn ends, whatever else has come in: links are answered and fed, replies leave. The rest of the
/// turn and the piece of work that was going on must fit into a millisecond besides; another system call in so much
/// work costs less than a hundredth of it.
pub(crate) const TURN_NS_MAX: u64 = 300_000;
/// Buckets that a background slice may look at: some 20 µs of them, or 200 µs when all of their keys have expired.
const BACKGROUND_BUDGET: u32 = 160;
/// Pieces of mail taken in one turn. Each may be a batch; the connections must get their turn too.
const MAIL_PER_TURN_MAX: usize = 64;
/// Accepting that fails is tried ten times a second and logged this often.
const ACCEPT_LOG_NS: u64 = 60_000_000_000;
/// Pieces of clients that the shard gets at a time, and bytes after which it gets what there is: some hundred commands,
/// which take a tenth of a millisecond, so that a turn can end between them.
const RECEIVED_MAX: usize = 32;
pub(crate) const RECEIVED_BYTES_MAX: usize = 16 * 1024;
/// Events that need no look at the clock among them.
const EVENTS_PER_LOOK: u32 = 16;
/// Events of clients in one turn. Each may end in a send, which is some 2 µs of the kernel's time that no clock of ours sees:
/// the system call that hands over so many takes half a millisecond. One that would fill the ring takes several.
const EVENTS_PER_TURN_MAX: usize = 256;
/// What is left of them when orders have piled up.
const EVENTS_PER_TURN_MIN: usize = 32;
/// Orders of the shard in one turn, for the same reason: one batch of replies may serve thousands of clients.
const ORDERS_PER_TURN_MAX: usize = 256;
/// Rounds of orders that beget orders in one turn.
const ROUNDS_MAX: usize = 8;
/// How long a node that was told to stop tries to answer what it had read.
const STOP_NS_MAX: u64 = 2_000_000_000;
/// Buffers for batches of replies that are kept for the next ones, and the largest that is kept.
const REPLY_BUFFERS_MAX: usize = 32;
const REPLY_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// What a connection of the reactor is to this shard.
pub(crate) enum Role {
    /// Nothing, or nothing any more.
    Closing,
    /// A client.
    Client(Client),
    /// A client that was not let in: its refusal is on its way.
    Refused,
    /// A link to another node, by its slot.
    Link(usize),
}

/// Pieces that clients sent, in the order in which they came: the shard gets many at a time.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) ids: Vec<SessionId>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) bytes: usize,
}

/// A batch of another shard of this node, as far as it was executed.
struct Unanswered {
    batch: Vec<u8>,
    at: usize,
    /// The replies that were not sent.
    replies: Vec<u8>,
    /// What those replies wait for.
    hold: Hold,
}

/// A stop under way.
#[derive(Clone, Copy)]
struct Stopping {
    deadline_ns: u64,
    /// Whether this shard has said that it owes nothing any more.
    drained: bool,
    /// Whether the links were told to end.
    links_ended: bool,
}

/// See the module.
pub(crate) struct Driver<R: Reactor> {
    pub(crate) reactor: R,
    pub(crate) shard: Shard,
    pub(crate) me: ShardAddr,
    pub(crate) shared: Arc<Shared>,
    /// The nodes of the store, as far as this shard has been told.
    pub(crate) map: Arc<StoreMap>,
    pub(crate) stats: Arc<ShardStats>,
    letterbox: Letterbox,
    /// The mailboxes of this node's shards, by shard; its own is never used for batches.
    pub(crate) posts: Vec<Post>,
    listeners: Vec<(ListenerId, PortKind)>,
    /// By [`Conn::index`], with the generation whose role it is: events of an earlier one may still be waiting.
    roles: Vec<(u32, Role)>,
    /// The role of all who are gone.
    nobody: Role,
    /// By the session's index: the connection.
    pub(crate) conn_of_session: Vec<Option<Conn>>,
    /// Clients that are to be closed in the end, whatever they still wait for.
    pub(crate) leaving: Vec<Conn>,
    pub(crate) links: Links,
    clocks: Clocks,
    pub(crate) now: Now,
    /// The events of a turn.
    events: Vec<Event>,
    /// Those of earlier turns that are still to be looked at.
    backlog: VecDeque<Event>,
    /// What clients sent and the shard has not been given.
    pub(crate) received: Received,
    /// What the shard wants of connections, in its order.
    orders: VecDeque<Order>,
    /// How many of them this turn may still carry out.
    orders_left: usize,
    /// Scratch for what the copies want of the manager.
    asks: Vec<ConfigAsk>,
    reply_buffers: Vec<Vec<u8>>,
    /// By shard of this node: its batches of which requests are left to execute.
    unanswered: Vec<VecDeque<Unanswered>>,
    /// By shard of this node: replies that wait for the copies, and those behind them. As many as batches under way.
    waiting: Vec<VecDeque<(Vec<u8>, Hold)>>,
    /// The shard whose batches come first.
    answer_first: usize,
    exclusive_cpu: bool,
    /// Clients that were heard since the last tick, and the number of that tick.
    talking: u32,
    ticks: u32,
    /// Whether so few talk that it looks around before it sleeps.
    few_talk: bool,
    /// Whether the last turn found anything to do.
    busy: bool,
    /// Whether there is work that needs no event.
    pub(crate) more: bool,
    next_tick_ns: u64,
    /// When the last work of clients or links was done, as far as it was looked at.
    pub(crate) worked_until_ns: u64,
    meter: Meter,
    /// Events since the last look at the clock.
    unlooked: u32,
    stopping: Option<Stopping>,
    /// When it may be logged again that nobody can be accepted.
    accept_log_ns: u64,
}

impl<R: Reactor> Driver<R> {
    /// A driver without connections and listeners.
    pub(crate) fn new(
        reactor: R,
        shard: Shard,
        me: ShardAddr,
        shared: Arc<Shared>,
        letterbox: Letterbox,
        posts: Vec<Post>,
    ) -> Self {
        let clocks = Clocks::new();
        let now = clocks.now();
        Self {
            reactor,
            shard,
            me,
            map: Arc::clone(&shared.env.map),
            stats: Arc::clone(&shared.env.stats[usize::from(me.shard.0)]),
            letterbox,
            listeners: Vec::new(),
            roles: Vec::new(),
            nobody: Role::Closing,
            conn_of_session: Vec::new(),
            leaving: Vec::new(),
            links: Links::new(&shared.env.map, me.node, now.boot_ns),
            clocks,
            now,
            events: Vec::with_capacity(1024),
            backlog: VecDeque::new(),
            received: Received::default(),
            orders: VecDeque::new(),
            orders_left: ORDERS_PER_TURN_MAX,
            asks: Vec::new(),
            reply_buffers: Vec::new(),
            unanswered: posts.iter().map(|_| VecDeque::new()).collect(),
            waiting: posts.iter().map(|_| VecDeque::new()).collect(),
            answer_first: 0,
            exclusive_cpu: shared.launch.document.cpus_exclusive,
            talking: 0,
            ticks: 1,
            few_talk: true,
            busy: false,
            more: false,
            next_tick_ns: now.boot_ns + TICK_NS,
            worked_until_ns: now.boot_ns,
            meter: Meter::new(now.boot_ns),
            unlooked: 0,
            stopping: None,
            accept_log_ns: 0,
            posts,
            shared,
        }
    }

    /// Accepts clients on this socket.
    pub(crate) fn listen(
        &mut self,
        listener: std::net::TcpListener,
        port: PortKind,
    ) -> io::Result<()> {
        let id = self.reactor.listen(listener)?;
        self.listeners.push((id, port));
        Ok(())
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// The reactor is broken; the node cannot go on.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.turn()? {}
        Ok(())
    }

    /// Whether this node was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// One turn; whether it was the last.
    fn turn(&mut self) -> io::Result<bool> {
        let mut events = std::mem::take(&mut self.events);
        self.wait(&mut events)?;
        self.now = self.clocks.now();
        let started_ns = self.now.boot_ns;
        self.meter.turn_begins(started_ns);
        self.more = false;
        self.orders_left = ORDERS_PER_TURN_MAX;
        self.go_on_links();

        self.busy = !events.is_empty() || !self.backlog.is_empty();
        // Clients wait in their order when there is much to do, but never a link behind them: its silence would be taken
        // for the end of this node.
        let mut late = !self.backlog.is_empty();
        let mut left =
            EVENTS_PER_TURN_MAX.saturating_sub(self.orders.len()).max(EVENTS_PER_TURN_MIN);
        for event in events.drain(..) {
            if late && !self.is_of_link(&event) {
                self.backlog.push_back(event);
                continue;
            }
            self.event(event);
            self.look_at_clock();
            left = left.saturating_sub(1);
            late |= left == 0 || self.is_late();
        }
        self.clients_received();
        self.events = events;
        while left > 0
            && !self.is_late()
            && let Some(event) = self.backlog.pop_front()
        {
            self.event(event);
            self.look_at_clock();
            left -= 1;
        }
        self.clients_received();
        self.more |= !self.backlog.is_empty();
        self.read_mail();
        self.send_out();

        if started_ns >= self.next_tick_ns {
            self.next_tick_ns = started_ns + TICK_NS;
            self.few_talk = self.talking <= TALKING_MAX;
            self.talking = 0;
            self.ticks = self.ticks.wrapping_add(1);
            self.clocks.check();
            self.tick_links();
            self.tick_clients();
        }
        self.end_still_links();
        let before = self.shard.commands();
        self.more |= self.shard.background(self.now, BACKGROUND_BUDGET);
        self.worked("output and background");
        let commands = self.shard.commands() - before;
        if commands > 0 {
            self.shard.note_latency(commands, self.worked_until_ns - self.now.boot_ns);
        }
        // The background and the tick may have made orders and batches; they must not wait for an event.
        let ordered = !self.shard.orders().is_empty();
        self.send_out();
        let last = self.stop_step();
        if ordered {
            self.worked("output");
        }
        // At one request a turn each look at the clock would be a hundredth of what it costs.
        self.meter.turn_ends(self.worked_until_ns, &self.stats);
        Ok(last)
    }

    /// A piece of work is done: `what`, for the log.
    pub(crate) fn worked(&mut self, what: &'static str) {
        self.unlooked = 0;
        self.worked_until_ns = dkv_io::clock::boottime_ns();
        let kind = match what {
            "output" => Piece::Output,
            "output and background" => Piece::Background,
            _ => Piece::Commands,
        };
        let took_ns = self.worked_until_ns.saturating_sub(self.meter.piece_began_ns());
        self.shard.took(kind, took_ns);
        self.meter.piece_ends(self.worked_until_ns, what, &self.stats);
    }

    /// Whether the turn has done enough.
    pub(crate) fn is_late(&self) -> bool {
        self.worked_until_ns > self.now.boot_ns + TURN_NS_MAX
    }

    /// After an event: some are so short that a look at the clock would cost as much.
    fn look_at_clock(&mut self) {
        self.unlooked += 1;
        if self.unlooked >= EVENTS_PER_LOOK {
            self.worked("events");
        }
    }

    /// The one system call of a turn: hands over what is queued and sleeps only when there is nothing to do.
    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        if self.more || !self.letterbox.inbox.is_empty() {
            return self.reactor.turn(Wait::Now, events);
        }
        let inbox = &self.letterbox.inbox;
        let spins = self.exclusive_cpu && self.few_talk;
        if spins && self.reactor.spin(SPIN, &mut || !inbox.is_empty())? {
            return self.reactor.turn(Wait::Now, events);
        }
        // A parked mailbox costs its senders a wake-up, and the call that follows may be a busy one. With other shards
        // about, the mailbox is parked only when the last turn had nothing to do.
        if !spins && self.busy && self.posts.len() > 1 {
            return self.reactor.turn(Wait::Now, events);
        }
        if !self.letterbox.inbox.park() {
            return self.reactor.turn(Wait::Now, events);
        }
        let due_ns = self.next_tick_ns.min(self.shard.next_wake_ns());
        let until_tick = due_ns.saturating_sub(self.worked_until_ns);
        let result = self.reactor.turn(Wait::Until(Duration::from_nanos(until_tick)), events);
        self.letterbox.inbox.unpark();
        result
    }

    fn is_of_link(&mut self, event: &Event) -> bool {
        match event {
            Event::Received { conn, .. }
            | Event::Ended { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Closed { conn } => matches!(self.role(*conn), Role::Link(_)),
            Event::Accepted { .. } | Event::AcceptPaused { .. } | Event::Woken => false,
        }
    }

    fn event(&mut self, event: Event) {
        let ticks = self.ticks;
        match event {
            Event::Accepted { listener, socket } => {
                let port =
                    self.listeners.iter().find(|(id, _)| *id == listener).map(|(_, port)| *port);
                match port {
                    Some(PortKind::Client) => self.spread(socket),
                    Some(PortKind::Shard) => self.new_client(socket, PortKind::Shard),
                    None => drop(socket),
                }
            }
            Event::AcceptPaused { error, .. } => {
                if self.now.boot_ns >= self.accept_log_ns {
                    self.accept_log_ns = self.now.boot_ns + ACCEPT_LOG_NS;
                    tracing::warn!(%error, "no connection can be accepted for now; those that come wait");
                }
            }
            Event::Received { conn, chunk } => match self.role(conn) {
                Role::Client(client) => {
                    let (session, heard) = (client.session, &mut client.heard_at_tick);
                    let before = std::mem::replace(heard, ticks);
                    if before != ticks {
                        self.talking += 1;
                        self.few_talk &= self.talking <= TALKING_MAX;
                    }
                    self.received.ids.push(session);
                    self.received.bytes += self.reactor.bytes(&chunk).len();
                    self.received.chunks.push(chunk);
                    if self.received.ids.len() == RECEIVED_MAX
                        || self.received.bytes >= RECEIVED_BYTES_MAX
                    {
                        self.clients_received();
                    }
                }
                Role::Link(slot) => {
                    let slot = *slot;
                    self.link_received(slot, chunk);
                }
                Role::Closing | Role::Refused => self.reactor.give_back(chunk),
            },
            Event::Ended { conn, error } => match self.role(conn) {
                Role::Client(_) => {
                    // What it sent before comes first.
                    self.clients_received();
                    self.client_ended(conn, error.as_ref());
                }
                Role::Link(slot) => {
                    let slot = *slot;
                    self.end_link(slot, &LinkEnd::Gone(error));
                }
                // The refusal's end closes it; when it cannot be sent, this does.
                Role::Refused if error.is_none() => {}
                Role::Refused => {
                    self.set_role(conn, Role::Closing);
                    self.reactor.close(conn);
                }
                Role::Closing => {}
            },
            Event::Sent { conn, buffer, inserts } => match self.role(conn) {
                Role::Client(_) => self.client_sent(conn, Output { bytes: buffer, inserts }),
                Role::Link(slot) => {
                    let slot = *slot;
                    self.link_sent(slot, buffer);
                }
                Role::Refused => {
                    self.set_role(conn, Role::Closing);
                    self.reactor.close(conn);
                }
                Role::Closing => {}
            },
            // Who is closed was given up before, and its place may be another's by now.
            Event::Closed { .. } | Event::Woken => {}
        }
    }

    /// What a connection is.
    pub(crate) fn role(&mut self, conn: Conn) -> &mut Role {
        match self.roles.get_mut(conn.index()) {
            Some((generation, role)) if *generation == conn.generation() => role,
            _ => {
                self.nobody = Role::Closing;
                &mut self.nobody
            }
        }
    }

    pub(crate) fn set_role(&mut self, conn: Conn, role: Role) {
        if self.roles.len() <= conn.index() {
            self.roles.resize_with(conn.index() + 1, || (0, Role::Closing));
        }
        self.roles[conn.index()] = (conn.generation(), role);
    }

    fn read_mail(&mut self) {
        for shard in 0..self.waiting.len() as u16 {
            self.release(ShardIndex(shard));
        }
        self.answer_rest();
        for _ in 0..MAIL_PER_TURN_MAX {
            let Some(mail) = self.letterbox.pop() else { return };
            self.busy = true;
            match mail {
                Mail::Requests { from, batch } => {
                    let replies = self.reply_buffers.pop().unwrap_or_default();
                    let waiting = &mut self.unanswered[usize::from(from.0)];
                    waiting.push_back(Unanswered { batch, at: 0, replies, hold: Hold::default() });
                    if waiting.len() == 1 {
                        self.answer_shard(from);
                    }
                }
                Mail::Replies { from, batch, more: _ } => {
                    let answerer = ShardAddr { node: self.me.node, shard: from };
                    self.shard
                        .replies(self.now, answerer, &batch)
                        .expect("a batch of this process is well formed");
                    self.shard.give_batch_buffer(batch);
                }
                Mail::Client(socket) => self.new_client(socket, PortKind::Client),
                Mail::Link(link) => self.new_link(link),
                Mail::News(News::Ranges(news)) => self.shard.news(self.now, &news),
                Mail::News(News::Nodes(map)) => self.more_nodes(&map),
                Mail::News(News::Users(users)) => self.shard.users_are(users),
                Mail::News(News::UsersDecided { number, outcome }) => {
                    self.shard.users_answered(self.now, number, outcome);
                }
                Mail::Stop { now } => self.begin_stop(now),
            }
            self.worked("mail");
            if self.is_late() {
                break;
            }
        }
        self.more = true;
    }

    /// Executes batches of another shard of this node. Great replies go in pieces, and the next piece is made when the
    /// last one was taken, so that one batch cannot fill the memory.
    fn answer_shard(&mut self, from: ShardIndex) {
        let (me, shard) = (self.me.shard, usize::from(from.0));
        let asker = ShardAddr { node: self.me.node, shard: from };
        while let Some(mut one) = self.unanswered[shard].pop_front() {
            while one.at < one.batch.len() && one.replies.len() <= OUTPUT_BYTES_MAX {
                let used = self
                    .shard
                    .requests_held(
                        self.now,
                        asker,
                        &one.batch[one.at..],
                        &mut one.replies,
                        &mut one.hold,
                    )
                    .expect("a batch of this process is well formed");
                one.at += used;
                self.worked("mail");
                if used == 0 || self.is_late() {
                    break;
                }
            }
            if one.at < one.batch.len() {
                let is_piece = one.replies.len() > OUTPUT_BYTES_MAX
                    && self.waiting[shard].is_empty()
                    && self.shard.release(&mut one.hold, &mut one.replies);
                if is_piece && self.posts[shard].take_piece_seat(me) {
                    one.hold = Hold::default();
                    let batch = std::mem::take(&mut one.replies);
                    self.post(from, Mail::Replies { from: me, batch, more: true });
                }
                self.unanswered[shard].push_front(one);
                self.more = true;
                return;
            }
            // Requests' buffers become replies' buffers here and the other way round there, so that neither side runs
            // out whichever way the requests go.
            self.keep_reply_buffer(one.batch);
            self.waiting[shard].push_back((one.replies, one.hold));
            self.release(from);
        }
    }

    /// Sends the replies to a shard of this node that need not wait for the copies any more.
    fn release(&mut self, to: ShardIndex) {
        let shard = usize::from(to.0);
        while let Some((replies, hold)) = self.waiting[shard].front_mut() {
            if !self.shard.release(hold, replies) {
                return;
            }
            let Some((batch, _)) = self.waiting[shard].pop_front() else { return };
            self.post(to, Mail::Replies { from: self.me.shard, batch, more: false });
        }
    }

    /// Goes on with what [`Self::answer_shard`] left.
    fn answer_rest(&mut self) {
        let shards = self.unanswered.len();
        for i in 0..shards {
            let shard = (self.answer_first + i) % shards;
            if self.unanswered[shard].is_empty() {
                continue;
            }
            self.answer_shard(ShardIndex(shard as u16));
            if self.is_late() {
                self.answer_first = (shard + 1) % shards;
                return;
            }
        }
    }

    fn keep_reply_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.reply_buffers.len() < REPLY_BUFFERS_MAX
            && buffer.capacity() <= REPLY_BUFFER_BYTES_MAX
        {
            buffer.clear();
            self.reply_buffers.push(buffer);
        }
    }

    /// Puts mail for which there is a place into another shard's mailbox and wakes that shard if it sleeps.
    pub(crate) fn post(&mut self, to: ShardIndex, mail: Mail) {
        let outbox = &self.posts[usize::from(to.0)].outbox;
        match outbox.push(mail) {
            Ok(Wakeup::Needed) => self.reactor.wake_peer(outbox.wake_handle()),
            Ok(Wakeup::NotNeeded) => {}
            Err(_) => unreachable!(
                "the mailbox has a place for every batch and every seat that was taken"
            ),
        }
    }

    /// Sends what the shard has made: batches, replies, frames. Carrying out an order may make more of them, so it goes
    /// round, but not for ever: what is left after a few rounds is work for the next turn.
    fn send_out(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.send_batches();
            self.carry_out_orders();
            if self.shard.orders().is_empty() {
                self.send_batches();
                break;
            }
        }
        self.send_links();
        self.more |= !self.shard.orders().is_empty() || !self.orders.is_empty();
    }

    fn send_batches(&mut self) {
        while let Some((to, batch)) = self.shard.next_batch() {
            if to.node == self.me.node {
                self.post(to.shard, Mail::Requests { from: self.me.shard, batch });
            } else {
                self.ask(to, FrameKind::Requests, &batch);
                self.shard.give_batch_buffer(batch);
            }
        }
        self.speak_to_copies();
        self.shard.take_asks(&mut self.asks);
        self.shared.asks.put(&mut self.asks);
        while let Some((number, changes)) = self.shard.take_user_changes() {
            let ask = UsersAsk { shard: self.me.shard.0, number, changes };
            if !self.shared.users_asks.put(ask) {
                let why = UsersRefusal::Busy;
                let refused = UsersOutcome::Answered(UsersAnswer::Refused { why });
                self.shard.users_answered(self.now, number, refused);
            }
        }
    }

    /// Not for longer than the rest of a turn may take: a message to a thousand subscribers is a thousand orders, each with the
    /// memory of another connection.
    fn carry_out_orders(&mut self) {
        self.orders.extend(self.shard.orders().drain(..));
        let began_ns = self.worked_until_ns;
        while self.orders_left > 0
            && let Some(order) = self.orders.pop_front()
        {
            self.orders_left -= 1;
            self.client_order(order);
            self.unlooked += 1;
            if self.unlooked >= EVENTS_PER_LOOK {
                self.worked("output");
                if self.worked_until_ns > began_ns + TURN_NS_MAX {
                    self.orders_left = 0;
                }
            }
        }
    }

    fn begin_stop(&mut self, now: bool) {
        let deadline_ns = if now { self.now.boot_ns } else { self.now.boot_ns + STOP_NS_MAX };
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline_ns = stopping.deadline_ns.min(deadline_ns);
            return;
        }
        self.stopping = Some(Stopping { deadline_ns, drained: false, links_ended: false });
        for (listener, _) in std::mem::take(&mut self.listeners) {
            self.reactor.stop_listening(listener);
        }
        self.dismiss_clients(deadline_ns);
    }

    /// Goes on with a stop under way; whether the loop may end.
    fn stop_step(&mut self) -> bool {
        let Some(mut stopping) = self.stopping else { return false };
        let late = self.now.boot_ns >= stopping.deadline_ns;
        if !stopping.drained && (late || self.no_clients()) {
            stopping.drained = true;
            self.shared.one_drained();
        }
        // A shard that owes nothing itself still answers the other shards until they owe nothing either.
        if stopping.drained
            && !stopping.links_ended
            && (late || (self.shared.all_drained() && self.links.all_sent()))
        {
            stopping.links_ended = true;
            self.end_links();
        }
        self.stopping = Some(stopping);
        // While it waits for other shards nothing wakes it but the tick, so the tick is short.
        self.next_tick_ns = self.next_tick_ns.min(self.now.boot_ns + 2_000_000);
        stopping.links_ended && self.links.is_empty()
    }
}
