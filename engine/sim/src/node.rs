//! A node that drives the real replication code over a plain table: it executes commands, gates replies, and passes on
//! what another node has to do.
//!
//! What it does around the copies is the least that the rules ask of a node (R1, R3, R11, R12, R15), written to be read.
//! The real node does the same with sessions, batches and memory of its own; here a violation has few places to hide.

use crate::copies::{Copies, Encoded, stamp};
use crate::face::{Content, Held, Input, Node, Now, Out, Outcome, Request, Sent, Serial, Told};
use crate::model::{Answer, Ask};
use crate::net::{Link, Machine, Parcel};
use crate::peers;
use crate::planted::Planted;
use crate::scenario::{MS, addr, machine_of};
use bytes::Bytes;
use dkv_cluster::{Cluster, Refused, Role, Settings};
use dkv_protocol::ids::{BootId, RangeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a request waits for news of who leads, or for a link.
const ROUTE_WAIT_NS: u64 = 400 * MS;
/// How long it waits while a range is handed over or its log is full.
const HOLD_NS: u64 = 50 * MS;
/// Expired keys that one turn removes unasked.
const SWEEP_MAX: usize = 2;

/// Who waits for a reply.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Client,
    Link(Link),
}

/// A reply that waits until what it depends on is committed.
#[derive(Debug)]
struct Gated {
    origin: Origin,
    serial: Serial,
    range: RangeId,
    told: Told,
    /// The position it depends on.
    index: u64,
    /// Whether that is its own effect.
    writes: bool,
    /// A read that the other copies have to confirm waits for this round.
    round: u64,
}

/// A request that cannot be worked on yet.
#[derive(Debug)]
struct Waiting {
    origin: Origin,
    request: Request,
    until_ns: u64,
    refusal: &'static str,
}

/// A request that another node works on.
#[derive(Debug)]
struct PassedOn {
    request: Request,
    to: Machine,
    until_ns: u64,
}

/// See the module.
pub struct SimNode {
    me: Machine,
    cluster: Cluster,
    copies: Copies,
    planted: Planted,
    gated: Vec<Gated>,
    waiting: Vec<Waiting>,
    passed_on: BTreeMap<Serial, PassedOn>,
    links: BTreeSet<Machine>,
    /// Effects of this primary that are not committed: range, position, stamp.
    uncommitted: BTreeMap<u8, VecDeque<(u64, u64)>>,
    /// Ranges whose gates have to be looked at.
    moved: Vec<RangeId>,
    now: Now,
}

impl SimNode {
    /// A node that has just started and holds nothing.
    pub fn new(me: Machine, boot: BootId, settings: Settings, planted: Planted) -> Self {
        Self {
            me,
            cluster: Cluster::new(addr(me), boot, settings),
            copies: Copies::default(),
            planted,
            gated: Vec::new(),
            waiting: Vec::new(),
            passed_on: BTreeMap::new(),
            links: BTreeSet::new(),
            uncommitted: BTreeMap::new(),
            moved: Vec::new(),
            now: Now { boot_ns: 0, calendar_ms: 0 },
        }
    }

    fn input(&mut self, input: Input, out: &mut Out) {
        let now_ns = self.now.boot_ns;
        match input {
            Input::Request(request) => self.request(Origin::Client, request, out),
            Input::News(news) => {
                for news in &news {
                    self.cluster.news(now_ns, news, &mut self.copies);
                    self.settle(out);
                }
            }
            Input::LinkUp(peer) => {
                self.links.insert(peer);
                self.cluster.link_up(now_ns, addr(peer));
            }
            Input::LinkDown(peer) => {
                self.links.remove(&peer);
                self.cluster.link_down(now_ns, addr(peer));
                self.lost_with_link(peer, out);
            }
            Input::Parcel(parcel) => self.parcel(parcel, out),
        }
    }

    fn parcel(&mut self, parcel: Parcel<Content>, out: &mut Out) {
        let from = parcel.from();
        match parcel.content {
            Content::Peer(body) => {
                let read = self.cluster.peer(self.now.boot_ns, addr(from), &body, &mut self.copies);
                if let Err(error) = read {
                    out.breach.get_or_insert(format!("a frame of {from:?} is refused: {error:?}"));
                }
                self.settle(out);
            }
            Content::Requests(_) | Content::Replies(_) => {}
            Content::Forward(request) => self.request(Origin::Link(parcel.link), request, out),
            Content::Back(serial, outcome) => self.back(serial, outcome, out),
        }
    }

    /// The node that a request was passed on to has said what became of it.
    fn back(&mut self, serial: Serial, outcome: Option<Outcome>, out: &mut Out) {
        let Some(passed) = self.passed_on.remove(&serial) else { return };
        let again = self.planted.rule().retries_unknown() && outcome == Some(Outcome::Unknown);
        match outcome {
            Some(outcome) if !again => out.replies.push((serial, outcome)),
            // Nothing was appended there: it may go elsewhere. Where, only news can tell.
            _ => self.wait(Origin::Client, passed.request, passed.until_ns, "TRYAGAIN route"),
        }
    }

    fn lost_with_link(&mut self, peer: Machine, out: &mut Out) {
        let lost: Vec<Serial> = self
            .passed_on
            .iter()
            .filter(|(_, passed)| passed.to == peer)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in lost {
            let Some(passed) = self.passed_on.remove(&serial) else { continue };
            if passed.request.ask.reads() || self.planted.rule().retries_unknown() {
                self.wait(Origin::Client, passed.request, passed.until_ns, "TRYAGAIN link");
            } else {
                out.replies.push((serial, self.unknown()));
            }
        }
    }

    fn unknown(&self) -> Outcome {
        if self.planted.rule().tells_unknown_as_failure() {
            Outcome::Refused("UNCERTAIN as refused")
        } else {
            Outcome::Unknown
        }
    }

    fn wait(&mut self, origin: Origin, request: Request, until_ns: u64, refusal: &'static str) {
        self.waiting.push(Waiting { origin, request, until_ns, refusal });
    }

    fn request(&mut self, origin: Origin, request: Request, out: &mut Out) {
        let until_ns = self.now.boot_ns + ROUTE_WAIT_NS;
        self.work_on(Waiting { origin, request, until_ns, refusal: "TRYAGAIN" }, true, out);
    }

    /// Executes a request, passes it on, or lets it wait.
    fn work_on(&mut self, mut waiting: Waiting, fresh: bool, out: &mut Out) {
        let (range, now_ns) = (waiting.request.range, self.now.boot_ns);
        let allowed = if waiting.request.ask.reads() {
            self.cluster.may_read(now_ns, range)
        } else {
            self.cluster.may_write(now_ns, range)
        };
        let (origin, serial) = (waiting.origin, waiting.request.serial);
        let refusal = match allowed {
            Ok(()) => {
                self.execute(origin, &waiting.request, out);
                return;
            }
            Err(Refused::NotPrimary) => {
                self.pass_on(waiting, out);
                return;
            }
            Err(Refused::Handover | Refused::LogFull) => {
                if fresh {
                    waiting.until_ns = now_ns + HOLD_NS;
                }
                if now_ns < waiting.until_ns {
                    waiting.refusal = "TRYAGAIN hold";
                    self.waiting.push(waiting);
                    return;
                }
                "TRYAGAIN hold"
            }
            Err(Refused::NoLease) => "TRYAGAIN lease",
            Err(Refused::TooFewCopies) => "NOREPLICAS",
            Err(Refused::Offline) => "CLUSTERDOWN",
        };
        reply(origin, serial, Some(Outcome::Refused(refusal)), out);
    }

    fn pass_on(&mut self, waiting: Waiting, out: &mut Out) {
        let Waiting { origin, request, until_ns, refusal } = waiting;
        if let Origin::Link(_) = origin {
            reply(origin, request.serial, None, out);
            return;
        }
        let to = self.cluster.primary(request.range).map(machine_of);
        if let Some(to) = to.filter(|to| *to != self.me && self.links.contains(to)) {
            out.sent.push(Sent::Forth(to, Content::Forward(request.clone())));
            self.passed_on.insert(request.serial, PassedOn { request, to, until_ns });
        } else if self.now.boot_ns < until_ns {
            self.wait(origin, request, until_ns, refusal);
        } else {
            reply(origin, request.serial, Some(Outcome::Refused("TRYAGAIN route")), out);
        }
    }

    fn execute(&mut self, origin: Origin, request: &Request, out: &mut Out) {
        let range = request.range;
        if !self.remove_if_expired(range, request.key.as_bytes()) {
            let refused = Outcome::Refused("TRYAGAIN expiry");
            reply(origin, request.serial, Some(refused), out);
            return;
        }
        let (effect, told) = self.plan(request);
        let writes = effect.is_some();
        let mut round = 0;
        let index = if let Some(effect) = effect {
            self.append(range, &effect)
        } else {
            // A write that changes nothing is a read, whatever its name.
            if self.cluster.may_read(self.now.boot_ns, range).is_err() {
                let refused = Outcome::Refused("TRYAGAIN lease");
                reply(origin, request.serial, Some(refused), out);
                return;
            }
            round = self.cluster.confirm(range);
            let copy = self.copies.copy(range);
            copy.get(request.key.as_bytes()).map_or(copy.last_removal, |record| record.version)
        };
        let serial = request.serial;
        self.gated.push(Gated { origin, serial, range, told, index, writes, round });
        self.moved.push(range);
    }

    /// Whether the key is not there expired any more: a read that meets one removes it by an effect, so that no later
    /// primary with a slower clock shows it again.
    fn remove_if_expired(&mut self, range: RangeId, key: &[u8]) -> bool {
        let now_ms = self.now.boot_ns / MS;
        let record = self.copies.copy(range).get(key);
        let expired = record.is_some_and(|r| r.deadline_ms > 0 && r.deadline_ms <= now_ms);
        if !expired || self.planted == Planted::ExpiryNotLogged {
            return true;
        }
        if self.cluster.may_write(self.now.boot_ns, range).is_err() {
            return false;
        }
        self.append(range, &Encoded::delete(key));
        true
    }

    /// The effect of a command on what is there now, and its answer.
    fn plan(&mut self, request: &Request) -> (Option<Encoded>, Told) {
        let now_ms = self.now.boot_ns / MS;
        let key = request.key.as_bytes();
        let record = self.copies.copy(request.range).get(key);
        let record = record.filter(|r| r.deadline_ms == 0 || r.deadline_ms > now_ms);
        let value = record.map(|r| r.value.clone());
        let deadline_ms = record.map_or(0, |r| r.deadline_ms);
        let new = Bytes::copy_from_slice(&request.value);
        let flag = |is: bool| Told::Other(Answer::Flag(is));
        match request.ask {
            Ask::Get => (None, Told::Value(value.map(|value| value[..].into()))),
            Ask::Set(_) => (Some(Encoded::put(key, &new, 0)), Told::Other(Answer::Done)),
            Ask::SetFor(_, ttl_ns) => {
                let put = Encoded::put(key, &new, now_ms + ttl_ns / MS);
                (Some(put), Told::Other(Answer::Done))
            }
            Ask::SetIf(..) => {
                let as_expected = value.as_deref() == request.expected.as_deref();
                (as_expected.then(|| Encoded::put(key, &new, 0)), flag(as_expected))
            }
            Ask::Incr => {
                let text = value.as_deref().unwrap_or(b"0");
                let number: i64 =
                    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
                let next = Bytes::from((number + 1).to_string());
                let told = Told::Other(Answer::Number(number + 1));
                (Some(Encoded::put(key, &next, deadline_ms)), told)
            }
            Ask::Append(_) => {
                let offset = value.map_or(0, |value| value.len() as u64);
                let length = offset as i64 + new.len() as i64;
                let told = Told::Other(Answer::Number(length));
                (Some(Encoded::append(key, offset, &new)), told)
            }
            Ask::Del => (value.as_ref().map(|_| Encoded::delete(key)), flag(value.is_some())),
            Ask::Expire(ttl_ns) => {
                let expire = Encoded::expire(key, now_ms + ttl_ns / MS);
                (value.as_ref().map(|_| expire), flag(value.is_some()))
            }
            Ask::Persist => {
                let expires = value.is_some() && deadline_ms > 0;
                (expires.then(|| Encoded::expire(key, 0)), flag(expires))
            }
        }
    }

    /// The effect takes place here and goes to the copies. Returns its position.
    fn append(&mut self, range: RangeId, effect: &Encoded) -> u64 {
        let copy = self.copies.copy(range);
        let index = copy.index + 1;
        copy.perform(index, effect.effect());
        if self.cluster.journals(range) {
            self.cluster.append(range, index, effect.effect());
        }
        let stamp = stamp(effect.effect());
        self.uncommitted.entry(range.0).or_default().push_back((index, stamp));
        index
    }

    /// Takes notice of what the copies did during a call.
    fn settle(&mut self, out: &mut Out) {
        for range in std::mem::take(&mut self.copies.cleared) {
            self.uncommitted.remove(&range.0);
        }
        for (range, index, stamp) in std::mem::take(&mut self.copies.applied) {
            if self.cluster.role(range) == Role::Primary {
                // What a new primary inherits is committed by the copies of its own epoch, not by being there.
                self.uncommitted.entry(range.0).or_default().push_back((index, stamp));
            } else {
                out.committed.push((range, index, stamp));
            }
        }
        if let Some(breach) = self.copies.breach.take() {
            out.breach.get_or_insert(breach);
        }
        let mut lost = Vec::new();
        self.cluster.take_lost(&mut lost);
        for lost in lost {
            self.commit_up_to(lost.range, lost.committed, out);
            self.uncommitted.remove(&lost.range.0);
            let (of_it, others) = std::mem::take(&mut self.gated)
                .into_iter()
                .partition(|gated: &Gated| gated.range == lost.range);
            self.gated = others;
            for gated in of_it {
                let outcome = if !gated.writes {
                    Outcome::Refused("TRYAGAIN deposed")
                } else if gated.index <= lost.committed {
                    out.acknowledged.push((gated.range, gated.index));
                    Outcome::Answer(gated.told)
                } else {
                    self.unknown()
                };
                reply(gated.origin, gated.serial, Some(outcome), out);
            }
        }
    }

    fn commit_up_to(&mut self, range: RangeId, committed: u64, out: &mut Out) {
        let Some(list) = self.uncommitted.get_mut(&range.0) else { return };
        while let Some((index, stamp)) = list.front().copied().filter(|(at, _)| *at <= committed) {
            list.pop_front();
            out.committed.push((range, index, stamp));
        }
    }

    fn release(&mut self, out: &mut Out) {
        self.cluster.take_progress(&mut self.moved);
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        for range in moved {
            self.commit_up_to(range, self.cluster.committed(range), out);
            let mut index = 0;
            while index < self.gated.len() {
                let gated = &self.gated[index];
                if gated.range != range || !self.is_free(gated) {
                    index += 1;
                    continue;
                }
                let gated = self.gated.remove(index);
                if gated.writes {
                    out.acknowledged.push((gated.range, gated.index));
                }
                let outcome = Some(Outcome::Answer(gated.told));
                reply(gated.origin, gated.serial, outcome, out);
            }
        }
    }

    fn is_free(&self, gated: &Gated) -> bool {
        if gated.writes {
            return self.cluster.committed(gated.range) >= gated.index;
        }
        let confirmed = gated.round == 0 || self.cluster.confirmed(gated.range) >= gated.round;
        confirmed && self.cluster.committed_for_reads(gated.range) >= gated.index
    }

    /// With a planted bug: every copy removes what has expired.
    fn drop_expired(&mut self) {
        let now_ms = self.now.boot_ns / MS;
        for range in (0..=u8::MAX).map(RangeId) {
            if self.cluster.role(range) == Role::Replica {
                self.copies.copy(range).drop_expired(now_ms);
            }
        }
    }

    /// A primary removes some keys that expired and that nobody asks for.
    fn sweep(&mut self) {
        let now_ms = self.now.boot_ns / MS;
        let ranges: Vec<RangeId> = self.uncommitted.keys().map(|range| RangeId(*range)).collect();
        for range in ranges {
            if self.cluster.role(range) != Role::Primary
                || self.cluster.may_write(self.now.boot_ns, range).is_err()
            {
                continue;
            }
            let expired: Vec<Box<[u8]>> = self
                .copies
                .copy(range)
                .records()
                .filter(|r| r.deadline_ms > 0 && r.deadline_ms <= now_ms)
                .map(|r| r.key.clone())
                .take(SWEEP_MAX)
                .collect();
            for key in expired {
                self.append(range, &Encoded::delete(&key));
            }
        }
    }
}

fn reply(origin: Origin, serial: Serial, outcome: Option<Outcome>, out: &mut Out) {
    match origin {
        Origin::Link(link) => out.sent.push(Sent::Back(link, Content::Back(serial, outcome))),
        Origin::Client => {
            let outcome = outcome.unwrap_or(Outcome::Refused("TRYAGAIN"));
            out.replies.push((serial, outcome));
        }
    }
}

impl Node for SimNode {
    fn turn(&mut self, now: Now, inputs: &mut VecDeque<Input>, out: &mut Out) {
        self.now = now;
        while let Some(input) = inputs.pop_front() {
            self.input(input, out);
        }
        self.cluster.tick(now.boot_ns, &mut self.copies);
        self.settle(out);
        for waiting in std::mem::take(&mut self.waiting) {
            if now.boot_ns >= waiting.until_ns {
                let refused = Outcome::Refused(waiting.refusal);
                reply(waiting.origin, waiting.request.serial, Some(refused), out);
            } else {
                self.work_on(waiting, false, out);
            }
        }
        match self.planted {
            Planted::ExpiryNotLogged => {}
            Planted::CopiesExpire => {
                self.drop_expired();
                self.sweep();
            }
            _ => self.sweep(),
        }
        self.release(out);
        while let Some((to, body)) = self.cluster.take_messages(now.boot_ns, &mut self.copies) {
            out.sent.push(Sent::Forth(machine_of(to), Content::Peer(body)));
        }
        // Taking messages may have walked, sent and so changed what is free.
        self.settle(out);
        self.release(out);
        self.cluster.take_asks(&mut out.asks);
    }

    fn wake_ns(&self) -> u64 {
        let waits = self.waiting.iter().map(|waiting| waiting.until_ns).min();
        self.cluster.next_wake_ns().min(waits.unwrap_or(u64::MAX))
    }

    fn held(&self, now: Now, range: RangeId) -> (u64, Vec<Held>) {
        let now_ms = now.boot_ns / MS;
        let Some(copy) = self.copies.known(range) else { return (0, Vec::new()) };
        let live = copy.records().filter(|r| r.deadline_ms == 0 || r.deadline_ms > now_ms);
        let mut held: Vec<Held> = live
            .map(|record| Held {
                key: record.key.to_vec(),
                value: record.value.to_vec(),
                version: record.version,
                expires: record.deadline_ms > 0,
            })
            .collect();
        held.sort_unstable();
        (copy.index, held)
    }

    fn shown(&self, range: RangeId) -> String {
        peers::view(&self.cluster.view(range))
    }
}
