//! One shard: sessions, links and table behind the few calls that its driver makes.

use crate::acl::log::AclLog;
use crate::acl::{Acl, Suspect};
use crate::cluster::{ShardId, shard_ids};
use crate::command::{Env, Exec, Now};
use crate::face::{Opened, Order, Output, SessionId};
use crate::hotkeys::HotKeys;
use crate::input::{Batch, Begun};
use crate::links::{Links, Lost, LostRequest};
use crate::monitor::Monitor;
use crate::pace::Pace;
use crate::pubsub::PubSub;
use crate::refusal;
use crate::replication::Copies;
use crate::serving::Served;
use crate::session::{End, OUTPUT_FAIR_BYTES, Session, Sessions, Stall};
use crate::slowlog::SlowLog;
use crate::spikes::Spikes;
use crate::stats::ShardStats;
use crate::tally::Tally;
use crate::tracking::Tracking;
use crate::tuning::Tuning;
use crate::users::Desk;
use crate::walk::Step;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dkv_protocol::control::latency_bucket;
use dkv_protocol::frame::{BatchError, ELSEWHERE, ReplyIter};
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::limits::{
    OUTPUT_TOTAL_BYTES_HARD_MAX, OUTPUT_TOTAL_BYTES_MAX, WAITING_PER_CONNECTION_MAX,
};
use dkv_protocol::map::StoreMap;
use dkv_protocol::resp::{Proto, reply};
use dkv_table::Table;

/// How far the looks for slow readers lie apart, in milliseconds.
const SLOW_LOOK_MS: u64 = 100;
/// How long a client may take to authenticate, in milliseconds; up to twice as long when it did and sent RESET since.
const AUTHENTICATION_MS: u64 = 10_000;

/// See the crate. A driver calls, in each turn: `open`, `input`, `ended`, `requests` and `replies` for what came in, then
/// `next_batch` until there is none, then `orders` and `take_output`, then `background` for a slice.
#[derive(Debug)]
pub struct Shard {
    pub(crate) env: Arc<Env>,
    pub(crate) me: ShardAddr,
    /// The nodes of the store as far as they are known; more than those of `env.map` when some joined since.
    pub(crate) map: Arc<StoreMap>,
    pub(crate) table: Table,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) ids: Vec<ShardId>,
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    /// None in a store without copies.
    pub(crate) copies: Option<Box<Copies>>,
    pub(crate) orders: Vec<Order>,
    pub(crate) buffers: Buffers,
    pub(crate) batch: Batch,
    /// Scratch for the input of several connections.
    pub(crate) begun: Vec<Begun>,
    /// Whether these run now, and so are not among the sessions.
    pub(crate) together: bool,
    pub(crate) pace: Pace,
    pub(crate) pubsub: PubSub,
    pub(crate) monitor: Monitor,
    pub(crate) tuning: Tuning,
    pub(crate) tracking: Tracking,
    pub(crate) tally: Tally,
    pub(crate) slow: SlowLog,
    pub(crate) spikes: Spikes,
    /// None while nobody wants to know.
    pub(crate) hot: Option<Box<HotKeys>>,
    /// Whether the last slice of the background evicted anything.
    pub(crate) evicted_lately: bool,
    /// Connections that go on at the end of the turn.
    pub(crate) later: VecDeque<SessionId>,
    pub(crate) desk: Desk,
    pub(crate) acl: Acl,
    pub(crate) acl_log: AclLog,
    /// Connections that may be subscribed to what their users may not hear any more.
    pub(crate) suspects: VecDeque<Suspect>,
    /// Whether writes wait for memory until the next turn.
    pub(crate) starved: bool,
    /// Steps of walks that are to be taken.
    pub(crate) walks: VecDeque<Step>,
    /// Scratch for the requests of other shards.
    pub(crate) served: Vec<Served>,
    /// Times at which connections are looked at, ascending.
    pub(crate) deadlines: VecDeque<(u64, SessionId)>,
    /// Unsent bytes of all connections.
    pub(crate) unsent_total: usize,
    /// When slow readers are looked for again.
    look_for_slow_ms: u64,
    /// The time of the last call that brought one.
    pub(crate) now: Now,
}

impl Shard {
    /// A shard without connections. `table` holds its ranges; links to shards of other nodes start down, own node's
    /// shards are always up.
    pub fn new(env: Arc<Env>, me: ShardAddr, table: Table) -> Self {
        let stats = env.stats[me.shard.0 as usize].clone();
        let links = Links::new(&env.map, me);
        let ids = shard_ids(&env, &env.map);
        let map = Arc::clone(&env.map);
        let acl = Acl::new(env.password_sha256);
        Self {
            env,
            me,
            map,
            table,
            stats,
            ids,
            sessions: Sessions::default(),
            links,
            copies: None,
            orders: Vec::new(),
            buffers: Buffers::default(),
            batch: Batch::default(),
            begun: Vec::new(),
            together: false,
            pace: Pace::default(),
            pubsub: PubSub::default(),
            monitor: Monitor::default(),
            tuning: Tuning::default(),
            tracking: Tracking::default(),
            tally: Tally::default(),
            slow: SlowLog::default(),
            spikes: Spikes::default(),
            hot: None,
            evicted_lately: false,
            later: VecDeque::new(),
            desk: Desk::default(),
            acl,
            acl_log: AclLog::default(),
            suspects: VecDeque::new(),
            starved: false,
            walks: VecDeque::new(),
            served: Vec::new(),
            deadlines: VecDeque::new(),
            unsent_total: 0,
            look_for_slow_ms: 0,
            now: Now::default(),
        }
    }

    /// Nodes have joined the store. `map` has all of the earlier ones in their places; who owns what is not read from it.
    pub fn nodes(&mut self, map: &Arc<StoreMap>) {
        self.map = Arc::clone(map);
        let known = usize::from(self.links.len());
        self.links.grow(map);
        if let Some(copies) = &mut self.copies {
            let new = map.shards().skip(known);
            new.for_each(|addr| copies.cluster.link_down(self.now.boot_ns, addr));
        }
        self.ids = shard_ids(&self.env, map);
    }

    /// A connection has been accepted. `Err` holds what to send before it is closed (protected mode, too many clients).
    pub fn open(&mut self, now: Now, opened: Opened) -> Result<SessionId, Vec<u8>> {
        self.now = now;
        let from_here =
            opened.peer.ip().to_canonical().is_loopback() || opened.peer.ip() == opened.local.ip();
        let default = self.acl.default_user();
        let refused = if self.env.protected_mode && default.takes_any_password() && !from_here {
            Some(refusal::PROTECTED_MODE)
        } else {
            let clients: u64 = self.env.stats.iter().map(|s| s.connections.get()).sum();
            (clients >= self.env.settings.clients_max.get()).then_some(refusal::TOO_MANY_CLIENTS)
        };
        if let Some(text) = refused {
            self.stats.connections_refused.add(1);
            return Err(text.to_vec());
        }
        let id = self.sessions.open(now, opened, default);
        if let Some(mut session) = self.sessions.take(id) {
            self.is_nobody(now, &mut session);
            self.sessions.put(session);
        }
        self.stats.connections_accepted.add(1);
        self.stats.connections.set(self.sessions.len() as u64);
        Ok(id)
    }

    /// A connection has to say who it is, if it is nobody.
    pub(crate) fn is_nobody(&mut self, now: Now, session: &mut Session) {
        if session.authenticated {
            return;
        }
        session.nobody_since_ms = now.boot_ms();
        // One at a time: it may become nobody again and again.
        if !core::mem::replace(&mut session.has_deadline, true) {
            self.deadlines.push_back((now.boot_ms() + AUTHENTICATION_MS, session.id));
        }
    }

    /// Bytes of a client. All of them are taken: what cannot be executed yet is kept by the session.
    pub fn input(&mut self, now: Now, id: SessionId, bytes: &[u8]) {
        self.now = now;
        self.tune();
        self.pace.begin();
        self.input_of_one(now, id, bytes);
    }

    pub(crate) fn input_of_one(&mut self, now: Now, id: SessionId, bytes: &[u8]) {
        let Some(mut session) = self.sessions.take(id) else { return };
        self.stats.bytes_in.add(bytes.len() as u64);
        session.active_ms = now.boot_ms();
        if session.end == End::No {
            self.feed(now, &mut session, bytes);
        }
        self.settle(session);
    }

    /// Bytes of several clients, those of `ids[i]` being `bytes(i)`, in the order in which they came: the same as
    /// [`Self::input`] for one after the other, and quicker.
    pub fn inputs<'a>(&mut self, now: Now, ids: &[SessionId], bytes: &dyn Fn(usize) -> &'a [u8]) {
        self.now = now;
        self.tune();
        self.pace.begin();
        self.feed_together(now, ids, bytes);
    }

    /// The connection is gone, whoever closed it: forget it. Replies under way for it are dropped when they come.
    pub fn ended(&mut self, id: SessionId) {
        if let Some(mut session) = self.sessions.close(id) {
            self.forget_listener(&mut session);
            self.look_away(&mut session);
            self.stop_tracking(&mut session);
            self.unlist_gate(&session);
            self.unsent_total -= session.accounted;
            self.stats.connections.set(self.sessions.len() as u64);
        }
    }

    /// Whether a client is still owed replies besides the output to be taken: some are under way elsewhere, or commands
    /// that it sent wait for their turn. A connection that sends no more may be closed when it is owed nothing.
    pub fn owes(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| {
            session.end != End::Ordered
                && (!session.replies.is_settled() || session.stall != Stall::None)
        })
    }

    /// The bytes to send to a client now. Call it when ordered to flush and no send is under way, and whenever a send
    /// has ended, with that send's buffer as `spare`; none: nothing to send.
    pub fn take_output(&mut self, id: SessionId, mut spare: Output) -> Option<Output> {
        spare.bytes.clear();
        spare.inserts.clear();
        let Some(mut session) = self.sessions.take(id) else {
            self.buffers.give(spare.bytes);
            return None;
        };
        session.flushing = false;
        if session.flushes.is_some() {
            self.note_flushed(&mut session);
        }
        let output = if session.replies.has_output() {
            if !Buffers::fits(&spare.bytes) {
                spare.bytes = Vec::new();
            }
            let output = session.replies.take(spare);
            self.stats.bytes_out.add(session.replies.sending() as u64);
            Some(output)
        } else {
            session.replies.sent();
            self.buffers.give(spare.bytes);
            None
        };
        session.progress_ms = self.now.boot_ms();
        let unsent_max = if self.unsent_total > OUTPUT_TOTAL_BYTES_MAX {
            OUTPUT_FAIR_BYTES
        } else {
            session.output_bytes_max() / 2
        };
        if session.stall == Stall::Output && session.replies.unsent() <= unsent_max {
            self.go_on(self.now, &mut session);
        }
        self.settle(session);
        output
    }

    /// What the driver shall do with connections; it empties the list in each turn.
    pub fn orders(&mut self) -> &mut Vec<Order> {
        &mut self.orders
    }

    /// What a command may touch here. Its place is not known, and its reply is written whole.
    #[inline]
    pub(crate) fn exec(&mut self, now: Now, whole_store: bool, proto: Proto) -> Exec<'_> {
        Exec {
            now,
            table: &mut self.table,
            env: &self.env,
            me: self.me,
            whole_store,
            proto,
            stats: &self.stats,
            place: None,
            inserts: None,
            gates: self.copies.as_deref().map(|copies| &copies.gates),
        }
    }

    /// Replies of another shard to a batch from here.
    ///
    /// # Errors
    /// The other side does not keep to the protocol: drop that link and call `link_down`.
    pub fn replies(&mut self, now: Now, from: ShardAddr, batch: &[u8]) -> Result<(), BatchError> {
        self.now = now;
        self.pace.begin();
        let Some(from) = self.links.number(from) else { return Ok(()) };
        let mut result = Ok(());
        let mut redirects = false;
        for one in ReplyIter::new(batch) {
            match one {
                Ok((id, reply)) => {
                    let elsewhere = self.copies.is_some() && reply == ELSEWHERE;
                    let request = if elsewhere { self.links.request(from, id) } else { None };
                    let Some(waiting) = self.links.answer(from, id) else { continue };
                    if elsewhere {
                        redirects = true;
                        self.redirected(now, from, waiting, request);
                        continue;
                    }
                    let Some(mut session) = self.sessions.take(waiting.session) else { continue };
                    session.weigh(reply.len());
                    self.resolve(now, &mut session, waiting.slot, waiting.part, reply.into());
                    self.wake(now, session);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.links.collect_credits(from);
        self.let_in(now, from);
        if redirects {
            self.unpark(now, true);
        }
        result
    }

    /// A connection has got a reply: it may go on when it waited for that.
    pub(crate) fn wake(&mut self, now: Now, mut session: Box<Session>) {
        let may_go_on = match session.stall {
            Stall::Copies => true,
            Stall::Walk => !session.is_walking(),
            Stall::Replies => {
                session.replies.waiting() <= session.waiting_max() / 2
                    && session.replies.gated() <= WAITING_PER_CONNECTION_MAX / 2
            }
            Stall::None
            | Stall::Link(_)
            | Stall::Output
            | Stall::Turn
            | Stall::Pause
            | Stall::Users => false,
        };
        if may_go_on && session.end == End::No {
            self.go_on(now, &mut session);
        }
        self.settle(session);
    }

    /// There may be room on the way to a shard: connections that wait for it go on, in their order.
    fn let_in(&mut self, now: Now, to: u16) {
        while let Some(id) = self.links.next_stalled(to) {
            let Some(mut session) = self.sessions.take(id) else { continue };
            if session.stall == Stall::Link(to) && session.end == End::No {
                self.go_on(now, &mut session);
            }
            self.settle(session);
        }
    }

    /// The next batch of requests that may be sent now. Call it until there is none, at the end of a turn.
    pub fn next_batch(&mut self) -> Option<(ShardAddr, Vec<u8>)> {
        if self.monitor.has_lines() {
            self.give_lines();
        }
        if self.tracking.has_news() {
            self.tell_news();
        }
        let batch = self.links.next_batch()?;
        // Closing a batch makes room in the one that follows.
        if let Some(to) = self.links.number(batch.0) {
            self.let_in(self.now, to);
        }
        Some(batch)
    }

    /// Gives back the buffer of a batch that has been sent or read.
    pub fn give_batch_buffer(&mut self, buffer: Vec<u8>) {
        self.links.recycle(buffer);
    }

    /// The link to a shard of another node stands; nothing sent over an earlier one will be answered.
    pub fn link_up(&mut self, to: ShardAddr) {
        let Some(number) = self.links.number(to) else { return };
        if !self.links.up(number, self.now.unix_ms) {
            self.link_down(to);
            self.links.up(number, self.now.unix_ms);
        }
        self.renew_interest(number);
        self.begin_tracking_with(number);
        if let Some(copies) = &mut self.copies {
            copies.cluster.link_up(self.now.boot_ns, to);
            self.follow(self.now);
            self.unpark(self.now, true);
        }
    }

    /// The link to a shard of another node is lost. What waits for it is answered at once: definite errors for what was
    /// not sent and for reads, `-UNCERTAIN` for writes that had been sent.
    pub fn link_down(&mut self, to: ShardAddr) {
        let now = self.now;
        let Some(number) = self.links.number(to) else { return };
        if to.node == self.me.node {
            return;
        }
        self.forget_interest(number);
        self.end_tracking_with(number);
        let refused = self.unreachable(number);
        let mut uncertain = Vec::new();
        let node = &self.map.node(to.node).name;
        let text = format!("UNCERTAIN write may or may not have been applied ({node} was lost)");
        reply::error(&mut uncertain, &text);
        if let Some(copies) = &mut self.copies {
            copies.cluster.link_down(now.boot_ns, to);
        }
        for LostRequest { waiting, lost, request } in self.links.down(number) {
            if let Some(request) = request {
                self.relocate(now, waiting, request);
                continue;
            }
            let Some(mut session) = self.sessions.take(waiting.session) else { continue };
            let text = if lost == Lost::Uncertain { &uncertain } else { &refused };
            self.resolve(now, &mut session, waiting.slot, waiting.part, text.into());
            self.wake(now, session);
        }
        self.let_in(now, number);
        self.follow(now);
        self.unpark(now, true);
    }

    /// `commands` client commands were answered `ns` after the completion that brought them.
    pub fn note_latency(&mut self, commands: u64, ns: u64) {
        self.stats.latency[latency_bucket(ns)].add(commands);
        self.stats.in_turn_ns.add(commands.saturating_mul(ns));
    }

    /// Client commands executed or forwarded since the shard began; the driver takes the difference over an `input` for
    /// [`Self::note_latency`].
    pub fn commands(&self) -> u64 {
        self.stats.commands.get()
    }

    /// Bytes that memory holds for clients who have not read them, over all connections.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_total
    }

    /// The end of a turn: expiry (at most `budget` buckets looked at), eviction and other slices of the table, connections
    /// and walks that go on, gauges, deadlines. Whether more is due.
    /// To be called at least every 100 ms.
    pub fn background(&mut self, now: Now, budget: u32) -> bool {
        self.now = now;
        self.tune();
        let expired = self.table.background(now.boot_ms(), budget);
        self.starved = false;
        let moving = self.tick_copies(now);
        self.evicted_lately = self.table.evicted() != self.stats.evicted.get();
        self.stats.evicted.set(self.table.evicted());
        self.stats.expired.add(u64::from(expired.removed));
        self.stats.expiry_lag_ms.set(expired.lag_ms);
        self.stats.expired_late_ms.add(expired.late_ms);
        self.stats.expired_late_ms_max.raise(expired.lag_ms);
        self.stats.keys.set(self.table.len());
        self.stats.keys_with_expiry.set(self.table.len_with_expiry());
        self.stats.memory_bytes.set(self.table.memory_bytes());
        self.stats.sample_rates(now.boot_ms());
        while let Some((deadline, id)) = self.deadlines.front().copied() {
            if deadline > now.boot_ms() {
                break;
            }
            self.deadlines.pop_front();
            let Some(mut session) = self.sessions.take(id) else { continue };
            session.has_deadline = false;
            let since_ms = session.nobody_since_ms;
            if !session.authenticated && since_ms + AUTHENTICATION_MS <= deadline {
                self.cut(&mut session);
            } else {
                // It became nobody again meanwhile.
                self.is_nobody(now, &mut session);
                session.nobody_since_ms = since_ms;
            }
            self.settle(session);
        }
        self.cut_slow(now);
        let leaving = self.has_gone_listeners() && self.take_off_gone();
        if self.tracking.is_watching() || self.table.notes_removed() {
            self.tell_removed();
        }
        self.end_idle(now);
        self.end_hot_keys(now);
        self.end_pause(now);
        self.pace.begin();
        let looking = !self.suspects.is_empty() && self.look_at_suspects();
        let waiting = self.go_on_later(now);
        let walking = self.walk_on(now);
        expired.more || waiting || walking || moving || leaving || looking
    }

    /// Cuts those who read too slowly: always when they want more, and whoever has much to read while all together have
    /// too much.
    fn cut_slow(&mut self, now: Now) {
        if self.unsent_total <= OUTPUT_FAIR_BYTES || now.boot_ms() < self.look_for_slow_ms {
            return;
        }
        self.look_for_slow_ms = now.boot_ms() + SLOW_LOOK_MS;
        for id in self.sessions.slow(now.boot_ms(), self.unsent_total > OUTPUT_TOTAL_BYTES_MAX) {
            self.cut_by_id(id);
        }
    }

    fn cut_by_id(&mut self, id: SessionId) {
        let Some(mut session) = self.sessions.take(id) else { return };
        self.cut(&mut session);
        self.settle(session);
    }

    /// Ends a connection at once, because of what it has not read.
    pub(crate) fn cut(&mut self, session: &mut Session) {
        self.stats.connections_cut.add(u64::from(session.end != End::Ordered));
        self.let_go(session);
    }

    /// Ends a connection at once.
    pub(crate) fn let_go(&mut self, session: &mut Session) {
        if session.end != End::Ordered {
            self.orders.push(Order::Cut(session.id));
        }
        session.end = End::Ordered;
        session.forget_input();
        session.replies.drop_all();
    }

    /// After work on a connection: tells the driver what it must do, and puts the connection back.
    #[inline]
    pub(crate) fn settle(&mut self, mut session: Box<Session>) {
        if self.tuning.limits_output && self.is_over_output_limit(&mut session) {
            self.cut(&mut session);
        }
        if session.replies.has_output() {
            if !session.flushing {
                session.flushing = true;
                self.orders.push(Order::Flush(session.id));
            }
        } else if let Some(buffer) = session.replies.reclaim() {
            self.buffers.give(buffer);
        }
        if session.end == End::Settling {
            session.forget_input();
            if session.replies.is_settled() {
                session.end = End::Ordered;
                self.orders.push(Order::Close(session.id));
            }
        }
        if session.input.is_empty() && session.input.capacity() > 0 {
            self.buffers.give(core::mem::take(&mut session.input));
        }
        let unsent = session.replies.unsent();
        if session.accounted <= OUTPUT_FAIR_BYTES {
            session.progress_ms = self.now.boot_ms();
        }
        if self.copies.is_some() {
            self.list_gate(&mut session);
        }
        self.unsent_total = self.unsent_total + unsent - session.accounted;
        session.accounted = unsent;
        self.sessions.put(session);
        if self.unsent_total > OUTPUT_TOTAL_BYTES_HARD_MAX
            && let Some(slowest) = self.sessions.slowest()
        {
            // And the next one, as long as it is too much.
            self.cut_by_id(slowest);
        }
    }
}

/// Empty buffers, lent to connections while they are busy.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Vec<Vec<u8>>,
}

/// Buffers kept.
const BUFFERS_MAX: usize = 128;
/// The largest buffer that is kept, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

impl Buffers {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    pub(crate) fn fits(buffer: &Vec<u8>) -> bool {
        (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity())
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if Self::fits(&buffer) && self.free.len() < BUFFERS_MAX {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}
