//! A shard with copies of its ranges elsewhere, and copies of the ranges of others: what the state machine of the copies is
//! told and asked on the way of a command.
//!
//! The machine itself is `dkv_cluster`, which knows no commands; here its answers become replies, its progress opens gates,
//! and what commands did to the table goes to its log. A store without copies has none of it. Requests for ranges that
//! others lead are in `reroute`, the table as the machine sees it is in `copied`.

use crate::command::{Args, Merge, Now, Scope, Spec};
use crate::commands::scan;
use crate::copied::Copied;
use crate::face::SessionId;
use crate::gates::{Gate, GateState, Gates, Hold, Noticed};
use crate::lag::Lag;
use crate::reroute::Parked;
use crate::session::Session;
use crate::shard::Shard;
use crate::stillness::Stillness;
use crate::waits::Waiters;
use alloc::boxed::Box;
use alloc::vec::Vec;
use dkv_cluster::{Cluster, Lost, PeerError, Refused, Role, Settings};
use dkv_protocol::ids::{BootId, RangeId, ShardAddr, Slot};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::{Ack, ConfigAsk, RangeNews, RangeState, ReadMode, Rid};
use dkv_protocol::resp::reply;
use dkv_protocol::slots::slot_of;
use dkv_table::Place;

/// How long a command waits while its range is handed over or its log is full, in nanoseconds. Most wait for a few
/// milliseconds; the rest is for managers that are slow to agree, so that a planned move is no error to anybody.
const HOLD_NS: u64 = 1_000_000_000;
/// How long one waits for leases that ran out. They last a second from their asking, so that a primary that is cut off
/// refuses within 1.2 seconds; and who was only slow has them back in this time.
const LEASE_HOLD_NS: u64 = 150_000_000;
/// Who asks later than this after the last one that had to wait waits for a reason of its own.
const HELD_APART_NS: u64 = 50_000_000;

const TRY_AGAIN: &str = "TRYAGAIN the range is changing hands; try again";
const NO_LEASE: &str = "TRYAGAIN the copies of the range do not answer; try again";
const BUSY: &str = "TRYAGAIN the copies of the range do not keep up; try again";
const TOO_FEW_COPIES: &str = "NOREPLICAS Not enough good replicas to write.";
pub(crate) const OFFLINE: &str = "CLUSTERDOWN Hash slot not served: all copies of it are lost";

/// Whether a command may run here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may.
    Go,
    /// In a moment, perhaps; what comes behind it would have to wait as well.
    Wait,
    /// It is answered so.
    Refused(&'static str),
    /// Another shard leads this range, or will in a moment, or this one will be able to serve it: its commands are parked
    /// where they came in, and others go on.
    Elsewhere(RangeId),
}

/// Since when commands for a range wait, and when the last of them was seen waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    since_ns: u64,
    seen_ns: u64,
}

/// What is known of a range besides who leads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    /// Copies that count, the leader's included.
    pub(crate) in_sync: Vec<ShardAddr>,
    pub(crate) offline: bool,
    /// The copy that leads; none while nobody does.
    pub(crate) primary: Option<Rid>,
    /// What [`Copies::changes`] was when that became so.
    pub(crate) led_since: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) cluster: Cluster,
    pub(crate) gates: Gates,
    pub(crate) parked: Parked,
    /// By range.
    pub(crate) known: Vec<Known>,
    /// Counts what was given to the logs of ranges.
    pub(crate) appended: u64,
    /// Counts the changes of who leads a range, as far as they were heard of.
    pub(crate) changes: u64,
    held: Vec<Held>,
    /// By the number of a shard and range: whether its requests are turned away until one begins a row.
    turned_away: Vec<[bool; RANGES]>,
    /// By range: the connections whose next reply waits for it.
    waiting: Vec<Vec<(Gate, SessionId)>>,
    /// Whether reads are confirmed by the copies, and when writes are answered.
    confirms: bool,
    pub(crate) ack: Ack,
    pub(crate) waiters: Waiters,
    pub(crate) stillness: Stillness,
    pub(crate) next_gauges_ns: u64,
    pub(crate) lag: Lag,
    /// Scratch.
    ranges: Vec<RangeId>,
    moved: Vec<RangeId>,
    ready: Vec<SessionId>,
    lost: Vec<Lost>,
}

impl Shard {
    /// This shard's ranges have copies, and it holds copies of others. To be called before anything else; until the first
    /// news nobody is known to lead any range.
    pub fn replicate(&mut self, boot: BootId, settings: Settings) {
        let confirms = settings.read == ReadMode::Confirm;
        (0..RANGES as u16).for_each(|range| self.table.lead(range, false));
        self.links.keep();
        if settings.planted.splits_transactions() {
            self.table.split_units();
        }
        let mut cluster = Cluster::new(self.me, boot, settings);
        self.links.down_ones().for_each(|addr| cluster.link_down(0, addr));
        self.copies = Some(Box::new(Copies {
            cluster,
            gates: Gates::new(),
            parked: Parked::default(),
            known: alloc::vec![Known::default(); RANGES],
            appended: 0,
            changes: 0,
            held: alloc::vec![Held::default(); RANGES],
            waiting: alloc::vec![Vec::new(); RANGES],
            turned_away: Vec::new(),
            confirms,
            ack: settings.ack,
            waiters: Waiters::default(),
            stillness: Stillness::default(),
            next_gauges_ns: 0,
            lag: Lag::default(),
            ranges: Vec::new(),
            moved: Vec::new(),
            ready: Vec::new(),
            lost: Vec::new(),
        }));
    }

    /// News of ranges, from the managers. Every shard is told of every range: it routes by them too.
    pub fn news(&mut self, now: Now, news: &[RangeNews]) {
        self.now = now;
        for one in news {
            let Some(copies) = &mut self.copies else { return };
            if let Some(config) = &one.config {
                let known = &mut copies.known[usize::from(one.range.0)];
                if config.epoch.0 >= known.epoch {
                    // Between configurations that were not heard of another copy may have led, and written.
                    if config.epoch.0 > known.epoch + 1 {
                        self.tracking.forget_all();
                    }
                    let offline = config.state == RangeState::Offline;
                    let primary = Some(config.primary).filter(|_| !offline);
                    copies.changes += u64::from(primary != known.primary);
                    let led_since =
                        if primary == known.primary { known.led_since } else { copies.changes };
                    *known = Known {
                        epoch: config.epoch.0,
                        in_sync: config.in_sync.iter().map(|rid| rid.addr).collect(),
                        offline,
                        primary,
                        led_since,
                    };
                }
            }
            copies.cluster.news(now.boot_ns, one, &mut Copied(&mut self.table));
            let owner = copies.cluster.primary(one.range);
            let config = one
                .config
                .as_ref()
                .filter(|c| c.epoch.0 == copies.known[usize::from(one.range.0)].epoch);
            // Before a range is formed its first place will lead it.
            let leader =
                owner.or(config.map(|c| c.primary.addr)).or(one.placement.first().copied());
            if let Some(number) = leader.and_then(|addr| self.links.number(addr)) {
                self.change_owner(one.range, number);
            }
        }
        self.follow(now);
        self.unpark(now, true);
    }

    /// Messages of the copies that came from another shard, over the link that it dialled.
    ///
    /// # Errors
    /// The other side does not keep to the protocol: drop that link.
    pub fn peer(&mut self, now: Now, from: ShardAddr, body: &[u8]) -> Result<(), PeerError> {
        self.now = now;
        let Some(copies) = &mut self.copies else { return Ok(()) };
        let result = copies.cluster.peer(now.boot_ns, from, body, &mut Copied(&mut self.table));
        self.follow(now);
        result
    }

    /// Whom the next messages may be for, to be followed by [`Self::write_peer_batch`]. Call both until there is nobody,
    /// at the end of a turn.
    pub fn next_peer(&mut self) -> Option<ShardAddr> {
        let now = self.now;
        let peer = self.copies.as_mut()?.cluster.next_peer();
        if peer.is_none() {
            self.follow(now);
        }
        peer
    }

    /// Appends the messages for that shard to `out`: the body of a frame. False: there are none after all.
    pub fn write_peer_batch(&mut self, out: &mut Vec<u8>) -> bool {
        let now = self.now;
        self.copies.as_mut().is_some_and(|copies| {
            copies.cluster.write_messages(now.boot_ns, &mut Copied(&mut self.table), out)
        })
    }

    /// The same as a batch of its own.
    pub fn next_peer_batch(&mut self) -> Option<(ShardAddr, Vec<u8>)> {
        let mut batch = Vec::new();
        while let Some(to) = self.next_peer() {
            if self.write_peer_batch(&mut batch) {
                return Some((to, batch));
            }
        }
        None
    }

    /// Whether the next messages may hold slices of ranges that copies are filled with, which is the longest work there
    /// is with messages.
    pub fn fills_copies(&self) -> bool {
        self.copies.as_ref().is_some_and(|copies| copies.cluster.is_filling())
    }

    /// What this shard asks of the managers.
    pub fn take_asks(&mut self, out: &mut Vec<ConfigAsk>) {
        if let Some(copies) = &mut self.copies {
            copies.cluster.take_asks(out);
        }
    }

    /// When `background` must be called again at the latest (CLOCK_BOOTTIME, nanoseconds).
    pub fn next_wake_ns(&self) -> u64 {
        self.copies.as_ref().map_or(u64::MAX, |copies| {
            let parked_ns = copies.parked.next_ns().min(copies.waiters.next_ns());
            copies.cluster.next_wake_ns().min(parked_ns)
        })
    }

    /// Whether a batch of replies may leave that was held; what failed meanwhile is replaced in it then.
    pub fn release(&mut self, hold: &mut Hold, replies: &mut Vec<u8>) -> bool {
        let Some(copies) = &self.copies else { return true };
        match hold.release(&copies.gates, replies) {
            None => false,
            Some(failures) => {
                self.stats.errors.add(failures);
                true
            }
        }
    }

    /// Time passes for the copies. Whether there is more to do at once.
    pub(crate) fn tick_copies(&mut self, now: Now) -> bool {
        self.send_effects();
        let Some(copies) = &mut self.copies else { return false };
        // What nobody asked for has no reply that waits for it.
        let _ = copies.gates.take();
        copies.cluster.tick(now.boot_ns, &mut Copied(&mut self.table));
        self.follow(now);
        let more = self.unpark(now, false);
        self.look_at_waiters(now);
        self.gauge_copies(now);
        more
    }

    /// Takes over what has changed in the machine: who leads what, and which replies may leave.
    pub(crate) fn follow(&mut self, now: Now) {
        self.pace.begin();
        loop {
            let Some(copies) = self.copies.as_deref_mut() else { return };
            copies.cluster.take_lost(&mut copies.lost);
            for lost in copies.lost.drain(..) {
                copies.gates.deposed(lost.range, lost.committed);
                copies.lag.lost(lost.range);
                copies.ranges.push(lost.range);
            }
            self.follow_moved(now);
            let Some(copies) = self.copies.as_deref_mut() else { return };
            copies.cluster.take_progress(&mut copies.ranges);
            if copies.ranges.is_empty() {
                return;
            }
            let ranges = core::mem::take(&mut copies.ranges);
            for range in &ranges {
                let cluster = &copies.cluster;
                copies.gates.committed(
                    *range,
                    cluster.committed(*range),
                    cluster.committed_for_reads(*range),
                );
                copies.gates.confirmed(*range, cluster.confirmed(*range));
                let hands_over = cluster.may_write(now.boot_ns, *range) == Err(Refused::Handover);
                let is_primary = cluster.role(*range) == Role::Primary;
                let leads = is_primary && !hands_over;
                let (heard_ns, committed) =
                    (cluster.led_until_ns(*range), cluster.committed(*range));
                copies.lag.leads(now.boot_ns, *range, is_primary, heard_ns, &self.stats);
                copies.lag.committed(now.boot_ns, *range, committed, &self.stats);
                self.table.lead(u16::from(range.0), leads);
            }
            for range in &ranges {
                let primary = self.copies.as_ref().and_then(|c| c.cluster.primary(*range));
                if let Some(number) = primary.and_then(|addr| self.links.number(addr)) {
                    self.change_owner(*range, number);
                }
                self.open_gates(now, *range);
            }
            if let Some(copies) = &mut self.copies {
                copies.ranges = ranges;
                copies.ranges.clear();
            }
        }
    }

    /// The same for ranges that are only committed further, which at each write is nearly all there is.
    fn follow_moved(&mut self, now: Now) {
        let Some(copies) = self.copies.as_deref_mut() else { return };
        let mut moved = core::mem::take(&mut copies.moved);
        copies.cluster.take_moved(&mut moved);
        for range in &moved {
            let cluster = &copies.cluster;
            let (written, seen) = (cluster.committed(*range), cluster.committed_for_reads(*range));
            copies.gates.committed(*range, written, seen);
            copies.lag.committed(now.boot_ns, *range, written, &self.stats);
        }
        for range in &moved {
            self.open_gates(now, *range);
        }
        moved.clear();
        if let Some(copies) = &mut self.copies {
            copies.moved = moved;
        }
    }

    /// Lets go the replies of connections that waited for a range.
    fn open_gates(&mut self, now: Now, range: RangeId) {
        let Some(copies) = self.copies.as_deref_mut() else { return };
        let gates = &copies.gates;
        let waiting = &mut copies.waiting[usize::from(range.0)];
        if waiting.is_empty() {
            return;
        }
        let mut ready = core::mem::take(&mut copies.ready);
        waiting.retain(|(gate, id)| {
            let shut = gates.state(*gate) == GateState::Shut;
            if !shut {
                ready.push(*id);
            }
            shut
        });
        for id in ready.drain(..) {
            let Some(mut session) = self.sessions.take(id) else { continue };
            session.listed = None;
            session.replies.lend(|| self.buffers.take());
            if let Some(copies) = &self.copies {
                self.stats.errors.add(session.replies.open_gates(&copies.gates));
            }
            self.wake(now, session);
        }
        if let Some(copies) = &mut self.copies {
            copies.ready = ready;
        }
    }

    /// Notes what the next reply of a connection waits for.
    pub(crate) fn list_gate(&mut self, session: &mut Session) {
        let Some(copies) = self.copies.as_deref_mut() else { return };
        if session.listed.is_none()
            && let Some(gate) = session.replies.front_gate(&copies.gates)
        {
            session.listed = Some(gate.range());
            copies.waiting[usize::from(gate.range().0)].push((gate, session.id));
        }
    }

    /// Wakes a connection when a gate is open, or has failed.
    pub(crate) fn wake_at(&mut self, gate: Gate, id: SessionId) {
        if let Some(copies) = &mut self.copies {
            copies.waiting[usize::from(gate.range().0)].push((gate, id));
        }
    }

    /// A connection is gone.
    pub(crate) fn unlist_gate(&mut self, session: &Session) {
        if let Some(range) = session.listed
            && let Some(copies) = &mut self.copies
        {
            copies.waiting[usize::from(range.0)].retain(|(_, id)| *id != session.id);
        }
    }

    /// Gives the effects of what was done to the table to the copies.
    #[inline]
    fn send_effects(&mut self) {
        if self.table.has_journal()
            && let Some(copies) = self.copies.as_deref_mut()
        {
            let Copies { cluster, gates, appended, lag, .. } = copies;
            let now_ns = self.now.boot_ns;
            self.table.take_journal(&mut |range, index, effect| {
                let range = RangeId(range as u8);
                let body = effect.value.map(dkv_table::Large::share);
                let effect = dkv_cluster::Effect { head: effect.head, body: body.as_ref() };
                cluster.append(range, index, effect);
                *appended += 1;
                gates.wrote(range, index);
                lag.appended(now_ns, range, index);
            });
        }
    }

    /// Whether a request of another shard comes behind one of the same range that it was told to ask elsewhere.
    pub(crate) fn is_turned_away(
        &mut self,
        from: ShardAddr,
        range: Option<RangeId>,
        first: bool,
    ) -> bool {
        let (Some(copies), Some(from), Some(range)) =
            (&mut self.copies, self.links.number(from), range)
        else {
            return false;
        };
        let Some(ranges) = copies.turned_away.get_mut(usize::from(from)) else { return false };
        let away = &mut ranges[usize::from(range.0)];
        *away &= !first;
        *away
    }

    /// A shard is told to ask elsewhere.
    pub(crate) fn turn_away(&mut self, from: ShardAddr, range: RangeId) {
        let (Some(copies), Some(from)) = (&mut self.copies, self.links.number(from)) else {
            return;
        };
        let from = usize::from(from);
        if copies.turned_away.len() <= from {
            copies.turned_away.resize(from + 1, [false; RANGES]);
        }
        copies.turned_away[from][usize::from(range.0)] = true;
    }

    /// After a command ran here: what its reply waits for.
    #[inline]
    pub(crate) fn noticed(&mut self) -> Noticed {
        if self.copies.is_none() {
            return Noticed::None;
        }
        self.send_effects();
        self.copies.as_ref().map_or(Noticed::None, |copies| copies.gates.take())
    }

    /// Whether a command may run here now, as far as the copies go. All of its ranges are looked at before any of it runs.
    #[inline]
    pub(crate) fn admission(
        &mut self,
        now: Now,
        spec: &Spec,
        whole_store: bool,
        args: Args<'_>,
    ) -> Admission {
        match &mut self.copies {
            None => Admission::Go,
            Some(copies) => copies.admission(now, spec, whole_store, args),
        }
    }
}

/// The range whose leader runs a command; none when that is not a matter of one range.
pub(crate) fn range_of(spec: &Spec, args: Args<'_>) -> Option<RangeId> {
    match spec.scope {
        Scope::Keyed | Scope::Split(_) => Some(slot_of(spec.routing_key(args)?).range()),
        Scope::Cursor if spec.name == "SCAN" => scan::cursor_range(args),
        Scope::Range => scan::cursor_range(args),
        _ => None,
    }
}

/// The range of a key whose place is known.
#[inline]
pub(crate) const fn range_of_place(place: Place) -> RangeId {
    Slot(place.slot()).range()
}

impl Copies {
    pub(crate) fn admission(
        &mut self,
        now: Now,
        spec: &Spec,
        whole_store: bool,
        args: Args<'_>,
    ) -> Admission {
        match spec.scope {
            Scope::Keyed | Scope::Range => match range_of(spec, args) {
                Some(range) => self.check(now, range, spec.write),
                None => Admission::Go,
            },
            Scope::Split(_) => {
                let mut last = None;
                for key in args.iter_from(spec.first_key as usize).step_by(spec.key_step as usize) {
                    let range = slot_of(key).range();
                    if last.replace(range) == Some(range) {
                        continue;
                    }
                    let admission = self.check(now, range, spec.write);
                    if admission != Admission::Go {
                        self.forget_gates();
                        return admission;
                    }
                }
                Admission::Go
            }
            Scope::Cursor if whole_store => match range_of(spec, args) {
                Some(range) => self.check(now, range, false),
                None => Admission::Go,
            },
            // FLUSHALL and DBSIZE on a shard port: of what is led here.
            Scope::Whole(Merge::Ok | Merge::Sum) => {
                for range in (0..RANGES).map(|range| RangeId(range as u8)) {
                    if self.cluster.role(range) != Role::Primary {
                        continue;
                    }
                    let admission = self.check(now, range, spec.write);
                    if admission != Admission::Go {
                        self.forget_gates();
                        // It is bound to this shard and can go nowhere else.
                        let elsewhere = matches!(admission, Admission::Elsewhere(_));
                        return if elsewhere { Admission::Wait } else { admission };
                    }
                }
                Admission::Go
            }
            _ => Admission::Go,
        }
    }

    /// Whether a command with one key of this range may run now. The long way finds out why not.
    #[inline]
    pub(crate) fn admits_at_once(&mut self, now: Now, range: RangeId, write: bool) -> bool {
        !self.confirms
            && !self.parked.holds(range)
            && if write {
                self.cluster.may_write(now.boot_ns, range).is_ok()
            } else {
                self.cluster.may_read_at_once(now.boot_ns, range)
            }
    }

    /// A command that does not run after all leaves no gates.
    fn forget_gates(&self) {
        let _ = self.gates.take();
    }

    fn check(&mut self, now: Now, range: RangeId, write: bool) -> Admission {
        let allowed = if write {
            self.cluster.may_write(now.boot_ns, range)
        } else {
            self.cluster.may_read(now.boot_ns, range)
        };
        match allowed {
            Ok(()) => {
                let held = &mut self.held[usize::from(range.0)];
                if held.seen_ns > 0 {
                    *held = Held::default();
                }
                if self.confirms {
                    let number = self.cluster.confirm(range);
                    self.gates.confirm(range, number);
                }
                Admission::Go
            }
            Err(Refused::NotPrimary) => Admission::Elsewhere(range),
            Err(Refused::Offline) => Admission::Refused(OFFLINE),
            Err(Refused::NoLease) => {
                self.hold(now, range, LEASE_HOLD_NS, NO_LEASE, Admission::Elsewhere(range))
            }
            Err(Refused::TooFewCopies) => Admission::Refused(TOO_FEW_COPIES),
            Err(Refused::Handover) => {
                self.hold(now, range, HOLD_NS, TRY_AGAIN, Admission::Elsewhere(range))
            }
            // The log is one for all ranges: whoever writes waits until the copies have taken more of it.
            Err(Refused::LogFull) => self.hold(now, range, HOLD_NS, BUSY, Admission::Wait),
        }
    }

    /// A range cannot serve for a moment: commands wait for that, and are refused when it is a long one.
    fn hold(
        &mut self,
        now: Now,
        range: RangeId,
        hold_ns: u64,
        refusal: &'static str,
        meanwhile: Admission,
    ) -> Admission {
        let held = &mut self.held[usize::from(range.0)];
        if now.boot_ns.saturating_sub(held.seen_ns) > HELD_APART_NS {
            held.since_ns = now.boot_ns;
        }
        held.seen_ns = now.boot_ns;
        let waits = now.boot_ns - held.since_ns < hold_ns;
        if waits { meanwhile } else { Admission::Refused(refusal) }
    }
}

/// Writes the refusal of a command that may not run.
#[cold]
pub(crate) fn refuse(text: &str, out: &mut Vec<u8>) {
    reply::error(out, text);
}
