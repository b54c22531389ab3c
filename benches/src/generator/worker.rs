//! One thread of the load: a ring, its connections, the schedule, and the latencies.
//!
//! A request that is due takes a connection that is free, else it waits for one with its intended moment noted. An open loop
//! and a closed one differ in one thing: what makes a request due, the clock or an answer.

use super::arrivals::Schedule;
use super::keys::Keys;
use super::plan::{Pace, Plan, Target};
use super::problem::Problem;
use super::random::Random;
use super::redial::{Desk, Post};
use super::requests::{ASKING, Kind, Reply, Requests, look};
use super::sessions::{Asked, Group, Session};
use super::tally::{Tally, count_error};
use super::values::Values;
use dkv_io::clock::{monotonic_ns, thread_cpu_ns};
use dkv_io::{Conn, Event, Reactor, Wait};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Requests that wait for a connection of their node at most; beyond it the schedule itself waits, which loses no moment.
const WAITING_MAX: usize = 1 << 20;
/// Bytes after which a send is closed; one request may exceed it.
const SEND_BYTES_SOFT_MAX: usize = 256 * 1024;
/// A thread that sleeps wakes up some ten microseconds late: for the last stretch before a request is due it polls.
const SPIN_NS: u64 = 60_000;
/// And for so long after a request was sent: that this thread wakes up late is no latency of the server's.
const SPIN_FOR_ANSWER_NS: u64 = 4 * SPIN_NS;
/// How often the others are told how it goes.
const TELL_NS: u64 = 200_000_000;
/// How long what fell due before the end may still be sent after it, so that a stall at the end is measured too.
const DRAIN_NS: u64 = 500_000_000;
/// Times that a request is sent on before its redirection counts as an error.
const REDIRECTIONS_MAX: u8 = 16;

/// One thread.
pub(super) struct Worker<'a> {
    plan: &'a Plan,
    post: Arc<Post>,
    desk: &'a Desk,
    requests: Requests,
    values: Values,
    keys: Keys,
    random: Random,
    schedule: Option<Schedule>,
    sessions: Vec<Option<Session>>,
    groups: Vec<Group>,
    routes_version: u64,
    /// For each slot its group; empty unless the target is a cluster.
    owner: Vec<u16>,
    next_group: usize,
    waiting: usize,
    under_way: usize,
    alive: usize,
    down_since_ns: Option<u64>,
    /// Requests to measure that may still be sent.
    left: u64,
    measure_from_ns: u64,
    end_ns: u64,
    last_answer_ns: u64,
    last_sent_ns: u64,
    tally: Tally,
}

impl<'a> Worker<'a> {
    /// Thread `number`, with what it sends and where.
    pub(super) fn new(plan: &'a Plan, number: usize, post: Arc<Post>, desk: &'a Desk) -> Self {
        let threads = plan.threads as u64;
        let share = |all: u64| all / threads + u64::from((number as u64) < all % threads);
        let first = plan.keys / threads * number as u64 + (number as u64).min(plan.keys % threads);
        Self {
            plan,
            post,
            desk,
            requests: Requests::new(&plan.key_prefix, plan.ttl_ms),
            values: Values::new(plan.values.clone()),
            keys: Keys::new(plan.distribution, plan.keys, first),
            random: Random::new(plan.seed.wrapping_mul(1021).wrapping_add(number as u64)),
            schedule: None,
            sessions: Vec::new(),
            groups: Vec::new(),
            routes_version: 0,
            owner: Vec::new(),
            next_group: 0,
            waiting: 0,
            under_way: 0,
            alive: 0,
            down_since_ns: None,
            left: plan.requests.map_or(u64::MAX, share),
            measure_from_ns: 0,
            end_ns: 0,
            last_answer_ns: 0,
            last_sent_ns: 0,
            tally: Tally::new(),
        }
    }

    /// Takes the connections that were made for it.
    pub(super) fn prepare(&mut self, reactor: &mut impl Reactor) {
        self.take_routes();
        self.collect(reactor);
    }

    /// Runs it from `start_ns` on.
    pub(super) fn run(
        mut self,
        number: usize,
        reactor: &mut impl Reactor,
        start_ns: u64,
    ) -> Result<Tally, Problem> {
        self.measure_from_ns = start_ns.saturating_add(nanoseconds(self.plan.warm_up));
        self.end_ns = self.measure_from_ns.saturating_add(nanoseconds(self.plan.duration));
        self.last_answer_ns = self.measure_from_ns;
        if let Pace::Open { per_second, arrivals } = self.plan.pace {
            let threads = self.plan.threads as f64;
            let phase = number as f64 / threads;
            self.schedule = Some(Schedule::new(arrivals, per_second / threads, start_ns, phase));
        }
        // A closed loop has no clock of its own: what it sent earlier would be sent twice, once unmeasured.
        while let Some(left @ 1..) = start_ns.checked_sub(monotonic_ns()) {
            std::thread::park_timeout(Duration::from_nanos(left));
        }
        let (cpu_before, mut tell_at, mut events) = (thread_cpu_ns(), start_ns, Vec::new());
        // When the last request fell due, and whether those that still wait have been given up.
        let (mut closed_at, mut given_up) = (None, false);
        loop {
            let mut now = monotonic_ns();
            if self.desk.aborted() {
                break;
            }
            if closed_at.is_none() && self.desk.ended() {
                self.end_ns = self.end_ns.min(now);
            }
            if closed_at.is_none() && (now >= self.end_ns || self.left == 0) {
                if self.schedule.is_some() {
                    // All that fell due before the end, and nothing that fell due at it.
                    self.draw(now.min(self.end_ns.saturating_sub(1)));
                } else if self.left > 0 {
                    self.give_up_waiting();
                }
                closed_at = Some(now);
            }
            if let Some(since) = closed_at {
                let waited = now.saturating_sub(since);
                if !given_up && waited >= DRAIN_NS {
                    given_up = true;
                    self.give_up_waiting();
                }
                // Who ends early does not wait for what is not answered.
                let most =
                    if self.desk.ended() { DRAIN_NS } else { nanoseconds(self.plan.timeout) };
                let nobody = self.desk.ended() && self.alive == 0;
                if self.under_way + self.waiting == 0 || waited >= most || nobody {
                    break;
                }
            } else {
                self.draw(now);
            }
            if now >= tell_at {
                tell_at = now + TELL_NS;
                self.tell();
                self.give_up_when_nobody_is_there(now);
            }
            self.take_routes();
            self.flush(reactor);
            now = monotonic_ns();
            let due_ns = self.next_due_ns(closed_at.is_some());
            self.wait(reactor, now, due_ns, tell_at, &mut events)?;
            for event in events.drain(..) {
                if let Err(problem) = self.happened(reactor, event) {
                    self.desk.cut(problem);
                }
            }
        }
        self.finish(closed_at, cpu_before, start_ns);
        Ok(self.tally)
    }

    /// Sleeps or polls until something is to be done.
    fn wait(
        &mut self,
        reactor: &mut impl Reactor,
        now: u64,
        due_ns: u64,
        tell_at: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Problem> {
        let broken = |error: std::io::Error| {
            Problem::failed(format!("the ring of the load failed: {error}"), "dkv doctor")
        };
        let gap = due_ns.saturating_sub(now);
        if gap == 0 {
            return reactor.turn(Wait::Now, events).map_err(broken);
        }
        let answer_is_due = self.schedule.is_some()
            && self.under_way > 0
            && now.saturating_sub(self.last_sent_ns) < SPIN_FOR_ANSWER_NS;
        if self.plan.spin && (gap <= SPIN_NS || answer_is_due) {
            let most = Duration::from_nanos(gap.min(SPIN_NS));
            reactor.spin(most, &mut || false).map_err(broken)?;
            self.tally.spun_ns += monotonic_ns().saturating_sub(now);
            return reactor.turn(Wait::Now, events).map_err(broken);
        }
        let early = if self.plan.spin { SPIN_NS * 5 / 6 } else { 0 };
        let until = (due_ns - early).min(tell_at.max(now + 1_000_000));
        reactor.turn(Wait::Until(Duration::from_nanos(until - now)), events).map_err(broken)
    }

    /// When something is to be sent next whatever is answered until then.
    fn next_due_ns(&self, closed: bool) -> u64 {
        match &self.schedule {
            Some(schedule) if !closed && self.waiting < WAITING_MAX && self.left > 0 => {
                schedule.next_ns().min(self.end_ns)
            }
            _ if !closed && self.end_ns != 0 => self.end_ns,
            _ => u64::MAX,
        }
    }

    /// Draws what is due.
    fn draw(&mut self, now: u64) {
        if let Some(mut schedule) = self.schedule.take() {
            while schedule.next_ns() <= now && self.waiting < WAITING_MAX && self.left > 0 {
                let intended_ns = schedule.next_ns();
                schedule.advance(&mut self.random);
                self.ask(intended_ns);
            }
            self.schedule = Some(schedule);
            return;
        }
        let most = self.alive * self.plan.pipeline;
        while self.under_way + self.waiting < most && self.left > 0 {
            self.ask(now);
        }
    }

    fn ask(&mut self, intended_ns: u64) {
        if intended_ns >= self.measure_from_ns {
            self.left -= 1;
        }
        let key = self.keys.next(&mut self.random);
        let write = match self.plan.reads_percent {
            0 => true,
            100 => false,
            percent => self.random.below(100) >= u64::from(percent),
        };
        let asked = Asked { intended_ns, sent_ns: 0, key, write, redirected: 0, asking: false };
        let group = self.group_for(key);
        self.groups[group].waiting.push_back(asked);
        self.waiting += 1;
    }

    fn group_for(&mut self, key: u64) -> usize {
        if !self.owner.is_empty() {
            let slot = dkv_protocol::slots::slot_of(&self.requests.key(key));
            return usize::from(self.owner[usize::from(slot.0)]);
        }
        if self.groups.len() == 1 {
            return 0;
        }
        // Nodes that are away get nothing, as a balancer before plain clients would do it.
        for _ in 0..self.groups.len() {
            self.next_group = (self.next_group + 1) % self.groups.len();
            if self.groups[self.next_group].alive > 0 {
                break;
            }
        }
        self.next_group
    }

    /// Sends what waits over the connections that are free.
    fn flush(&mut self, reactor: &mut impl Reactor) {
        let open = self.schedule.is_some();
        for number in 0..self.groups.len() {
            while !self.groups[number].waiting.is_empty() {
                let group = &mut self.groups[number];
                let Some(place) = group.ready.pop_front() else { break };
                let Some(session) = self.sessions.get_mut(place).and_then(Option::as_mut) else {
                    continue;
                };
                session.queued = false;
                let Some(mut buffer) = session.buffer.take() else { continue };
                buffer.clear();
                let room = self.plan.pipeline - session.asked.len();
                // An open loop spreads what is due, a closed one sends whole batches.
                let share =
                    if open { group.waiting.len().div_ceil(group.ready.len() + 1) } else { room };
                let now = monotonic_ns();
                for _ in 0..room.min(share) {
                    let Some(mut asked) = group.waiting.pop_front() else { break };
                    if open {
                        let free_ns = session.free_since_ns.max(asked.intended_ns);
                        if asked.intended_ns >= self.measure_from_ns && asked.redirected == 0 {
                            self.tally.late.saturating_record(now.saturating_sub(free_ns).max(1));
                        }
                    } else if asked.redirected == 0 {
                        asked.intended_ns = now;
                    }
                    asked.sent_ns = now;
                    if asked.asking {
                        asked.asking = false;
                        buffer.extend_from_slice(ASKING);
                        // Due before everything, it is never counted.
                        session.asked.push_back(Asked { intended_ns: 0, write: false, ..asked });
                        self.under_way += 1;
                    }
                    if asked.write {
                        let size = self.values.size(&mut self.random);
                        self.requests.set(asked.key, &self.values, size, &mut buffer);
                    } else {
                        self.requests.get(asked.key, &mut buffer);
                    }
                    self.waiting -= 1;
                    self.under_way += 1;
                    session.asked.push_back(asked);
                    if buffer.len() >= SEND_BYTES_SOFT_MAX {
                        break;
                    }
                }
                self.last_sent_ns = now;
                reactor.send(session.conn, buffer, Vec::new());
            }
        }
    }

    fn happened(&mut self, reactor: &mut impl Reactor, event: Event) -> Result<(), Problem> {
        match event {
            Event::Received { conn, chunk } => {
                let result = self.received(conn, reactor.bytes(&chunk));
                reactor.give_back(chunk);
                self.offer(conn);
                result
            }
            Event::Sent { conn, mut buffer, .. } => {
                if buffer.capacity() > 4 * SEND_BYTES_SOFT_MAX {
                    buffer = Vec::new();
                }
                if let Some(session) = self.session(conn) {
                    session.buffer = Some(buffer);
                }
                self.offer(conn);
                Ok(())
            }
            Event::Ended { conn, .. } => {
                reactor.close(conn);
                self.lost(conn);
                Ok(())
            }
            Event::Woken => {
                self.collect(reactor);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn session(&mut self, conn: Conn) -> Option<&mut Session> {
        let session = self.sessions.get_mut(conn.index())?.as_mut()?;
        (session.conn == conn).then_some(session)
    }

    /// Puts a connection among those that may be sent on, if it may.
    fn offer(&mut self, conn: Conn) {
        let most = if self.schedule.is_some() { self.plan.pipeline } else { 1 };
        let Some(session) = self.session(conn) else { return };
        if session.queued || session.buffer.is_none() || session.asked.len() >= most {
            return;
        }
        session.queued = true;
        session.free_since_ns = monotonic_ns();
        let group = session.group;
        self.groups[group].ready.push_back(conn.index());
    }

    fn received(&mut self, conn: Conn, bytes: &[u8]) -> Result<(), Problem> {
        let now = monotonic_ns();
        let place = conn.index();
        let Some(mut session) = self.sessions.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        let result = self.read(&mut session, bytes, now);
        let endpoint = &self.groups[session.group].endpoint;
        let result = result.map_err(|what| Problem::other_product(endpoint, &what));
        self.sessions[place] = Some(session);
        result
    }

    fn read(&mut self, session: &mut Session, bytes: &[u8], now: u64) -> Result<(), String> {
        let joined;
        let mut rest = bytes;
        if session.to_skip > 0 {
            let skipped = session.to_skip.min(rest.len());
            session.to_skip -= skipped;
            rest = &rest[skipped..];
            if session.to_skip > 0 {
                return Ok(());
            }
            self.answered(session, Kind::Answer, &[], now)?;
        } else if !session.partial.is_empty() {
            session.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut session.partial);
            rest = &joined;
        }
        while !rest.is_empty() {
            match look(rest)? {
                Reply::Done { length, kind } => {
                    self.answered(session, kind, &rest[..length], now)?;
                    rest = &rest[length..];
                }
                Reply::Long { total } => {
                    session.to_skip = total - rest.len();
                    return Ok(());
                }
                Reply::Cut => break,
            }
        }
        session.partial.extend_from_slice(rest);
        Ok(())
    }

    fn answered(
        &mut self,
        session: &mut Session,
        kind: Kind,
        reply: &[u8],
        now: u64,
    ) -> Result<(), String> {
        let asked = session.asked.pop_front().ok_or("it sends more than was asked for")?;
        self.under_way -= 1;
        self.tally.replies += 1;
        let measured = asked.intended_ns >= self.measure_from_ns;
        if kind == Kind::Error {
            let text =
                String::from_utf8_lossy(reply.get(1..).unwrap_or_default()).trim_end().to_owned();
            let sent_on = text.starts_with("MOVED ") || text.starts_with("ASK ");
            if sent_on && !self.owner.is_empty() && asked.redirected < REDIRECTIONS_MAX {
                self.redirect(asked, &text, session.group);
            } else if measured {
                count_error(&mut self.tally.errors, &text, 1);
            }
            return Ok(());
        }
        if !measured {
            return Ok(());
        }
        self.last_answer_ns = now;
        let side = if asked.write { &mut self.tally.writes } else { &mut self.tally.reads };
        side.missing += u64::from(kind == Kind::Missing);
        side.latency.saturating_record(now.saturating_sub(asked.intended_ns).max(1));
        // In a closed loop a request is due when it is sent: see `finish`.
        if self.schedule.is_some() {
            side.service.saturating_record(now.saturating_sub(asked.sent_ns).max(1));
        }
        Ok(())
    }

    /// Sends a request on to where its slot is now (MOVED), or where its key may be already (ASK); its latency goes on.
    fn redirect(&mut self, asked: Asked, text: &str, from: usize) {
        self.tally.redirected += 1;
        let asking = text.starts_with("ASK ");
        if !asking {
            self.desk.want_routes();
        }
        let Some(told) = text.split(' ').nth(2) else {
            return count_error(&mut self.tally.errors, text, 1);
        };
        // No host means the one that was asked.
        let endpoint = match (told.strip_prefix(':'), self.groups[from].endpoint.rsplit_once(':')) {
            (Some(port), Some((host, _))) => format!("{host}:{port}"),
            _ => told.to_owned(),
        };
        let group = self.group_of(&endpoint);
        if !asking {
            // Until the map is there, as a cluster client does it.
            let slot = dkv_protocol::slots::slot_of(&self.requests.key(asked.key));
            self.owner[usize::from(slot.0)] = group as u16;
        }
        let asked = Asked { redirected: asked.redirected + 1, asking, ..asked };
        self.groups[group].waiting.push_back(asked);
        self.waiting += 1;
    }

    /// The group of an endpoint, with connections or some on their way.
    fn group_of(&mut self, endpoint: &str) -> usize {
        let known = self.groups.iter().position(|group| group.endpoint == endpoint);
        let place = known.unwrap_or_else(|| {
            self.groups.push(Group::new(endpoint));
            self.groups.len() - 1
        });
        if self.groups[place].alive + self.groups[place].wanted == 0 {
            for _ in 0..self.plan.connections_of_group(self.groups.len()) {
                self.want_connection(place);
            }
        }
        place
    }

    fn want_connection(&mut self, group: usize) {
        self.groups[group].wanted += 1;
        self.desk.want_connection(&self.post, &self.groups[group].endpoint);
    }

    /// Follows the map of slots when there is a newer one.
    fn take_routes(&mut self) {
        if self.plan.target != Target::Cluster {
            return;
        }
        let Some((version, routes)) = self.desk.newer_routes(self.routes_version) else { return };
        self.routes_version = version;
        let known: Vec<&str> = self.groups.iter().map(|group| group.endpoint.as_str()).collect();
        if known.is_empty() {
            // The first connections were made before the threads.
            let wanted = self.plan.connections_of_group(routes.endpoints.len());
            let group = |endpoint: &String| Group { wanted, ..Group::new(endpoint) };
            self.groups = routes.endpoints.iter().map(group).collect();
        }
        let places: Vec<u16> =
            routes.endpoints.iter().map(|endpoint| self.group_of(endpoint) as u16).collect();
        self.owner = routes.owner.iter().map(|owner| places[usize::from(*owner)]).collect();
        // What waits may wait for the wrong one; it goes where its slot is now.
        let waiting: Vec<Asked> =
            self.groups.iter_mut().flat_map(|group| group.waiting.drain(..)).collect();
        self.send_on(waiting);
    }

    fn send_on(&mut self, waiting: Vec<Asked>) {
        for asked in waiting {
            let group = self.group_for(asked.key);
            self.groups[group].waiting.push_back(Asked { asking: false, ..asked });
        }
    }

    /// Takes connections that were made for this thread.
    fn collect(&mut self, reactor: &mut impl Reactor) {
        for (endpoint, socket) in self.post.take() {
            let group = self.groups.iter().position(|group| group.endpoint == endpoint);
            let group = group.unwrap_or_else(|| {
                self.groups.push(Group::new(&endpoint));
                self.groups.len() - 1
            });
            self.groups[group].wanted = self.groups[group].wanted.saturating_sub(1);
            let Some(socket) = socket else {
                // Whatever waits there goes where the map says; there is one, or nobody would have been given up.
                let waiting = std::mem::take(&mut self.groups[group].waiting);
                self.send_on(waiting.into());
                continue;
            };
            let Ok(conn) = reactor.adopt(OwnedFd::from(socket)) else {
                self.want_connection(group);
                continue;
            };
            if self.sessions.len() <= conn.index() {
                self.sessions.resize_with(conn.index() + 1, || None);
            }
            self.sessions[conn.index()] = Some(Session::new(conn, group));
            self.groups[group].alive += 1;
            self.alive += 1;
            self.down_since_ns = None;
            if self.measure_from_ns > 0 {
                self.tally.reconnected += 1;
            }
            self.offer(conn);
        }
    }

    /// A connection ended: what was asked on it has no answer, and another connection is wanted. A cluster client asks again,
    /// as its library would: to read or write twice changes nothing here.
    fn lost(&mut self, conn: Conn) {
        if self.session(conn).is_none() {
            return;
        }
        let Some(session) = self.sessions[conn.index()].take() else { return };
        self.under_way -= session.asked.len();
        let mut unanswered = 0;
        for asked in session.asked {
            let is_request = asked.intended_ns > 0;
            if is_request && !self.owner.is_empty() && asked.redirected < REDIRECTIONS_MAX {
                let again = Asked { redirected: asked.redirected + 1, ..asked };
                self.groups[session.group].waiting.push_back(again);
                self.waiting += 1;
                self.tally.again += 1;
            } else {
                unanswered += u64::from(asked.intended_ns >= self.measure_from_ns);
            }
        }
        if unanswered > 0 {
            let text = "CLOSED the connection ended before the answer";
            count_error(&mut self.tally.errors, text, unanswered);
        }
        let group = &mut self.groups[session.group];
        group.alive -= 1;
        self.alive -= 1;
        self.want_connection(session.group);
        self.desk.want_routes();
        if self.alive == 0 {
            self.down_since_ns = Some(monotonic_ns());
        }
    }

    /// Ends the load when all connections have been gone for too long; it lasted until they were.
    fn give_up_when_nobody_is_there(&mut self, now: u64) {
        let gone = self
            .down_since_ns
            .filter(|since| now.saturating_sub(*since) >= nanoseconds(self.plan.timeout));
        let Some(since) = gone else { return };
        let names: Vec<&str> = self.groups.iter().map(|group| group.endpoint.as_str()).collect();
        let after = since.saturating_sub(self.measure_from_ns) as f64 / 1e9;
        self.desk.cut(Problem::gone(&names.join(", "), after, self.plan.timeout));
        self.end_ns = self.end_ns.min(since.max(self.measure_from_ns));
    }

    /// What fell due and was not sent stays unsent.
    fn give_up_waiting(&mut self) {
        let measured =
            |asked: &&Asked| (self.measure_from_ns..self.end_ns).contains(&asked.intended_ns);
        for group in &mut self.groups {
            self.tally.unsent += group.waiting.iter().filter(measured).count() as u64;
            group.waiting.clear();
        }
        self.waiting = 0;
        let Some(schedule) = self.schedule.as_mut() else {
            // Nothing falls due in a closed loop: what was drawn and not sent was never promised.
            self.tally.unsent = 0;
            return;
        };
        // What the bound on waiting requests kept in the schedule.
        while schedule.next_ns() < self.end_ns && self.left > 0 {
            if schedule.next_ns() >= self.measure_from_ns {
                self.tally.unsent += 1;
                self.left -= 1;
            }
            schedule.advance(&mut self.random);
        }
    }

    fn tell(&self) {
        self.post.tell(&self.tally);
    }

    fn finish(&mut self, closed_at: Option<u64>, cpu_before: u64, start_ns: u64) {
        if self.schedule.is_none() {
            for side in [&mut self.tally.reads, &mut self.tally.writes] {
                side.service.clone_from(&side.latency);
            }
        }
        self.give_up_waiting();
        let measured = |asked: &&Asked| asked.intended_ns >= self.measure_from_ns;
        let open = self.sessions.iter().flatten().flat_map(|session| &session.asked);
        self.tally.unanswered = open.filter(measured).count() as u64;
        self.tally.cpu_ns = thread_cpu_ns().saturating_sub(cpu_before);
        self.tally.wall_ns = monotonic_ns().saturating_sub(start_ns);
        let end = closed_at.unwrap_or_default().min(self.end_ns).max(self.last_answer_ns);
        self.tally.measured_ns = end.saturating_sub(self.measure_from_ns);
        self.tell();
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
