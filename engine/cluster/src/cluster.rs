//! The state of a shard's ranges and peers, and what the data path asks of it at each command.
//!
//! Everything here is O(1) and without side effects on the wire: messages are made at the end of a turn, and time passes
//! in [`Cluster::tick`].

use crate::follow::From;
use crate::log::Account;
use crate::set::RangeSet;
use crate::slow::{Lateness, Punctuality};
use crate::state::Range;
use crate::{CopyView, Effect, Filled, Lost, PeerError, RangeView, Refused, Role, Settings, Store};
use alloc::vec::Vec;
use dkv_protocol::ids::{BootId, RangeId, ShardAddr};
use dkv_protocol::limits::RANGES;
use dkv_protocol::peer::{CopyState, Message, read_batch};
use dkv_protocol::ranges::{Ack, ConfigAsk, ReadMode, Rid};

pub(crate) const NS_PER_MS: u64 = 1_000_000;
/// Resyncs in full that a shard serves at a time.
pub(crate) const RESYNCS_MAX: usize = 8;
/// Slices that are walked in a turn.
pub(crate) const WALKS_PER_TURN: usize = 1;
/// Echoes that may wait for a peer.
pub(crate) const ECHO_BYTES_MAX: usize = 64 * 1024;
/// Asks that may wait to be taken.
pub(crate) const ASKS_MAX: usize = 2 * RANGES;

/// Where copies are, and what is owed to them.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: ShardAddr,
    pub(crate) up: bool,
    /// Echoes, written as they are.
    pub(crate) out: Vec<u8>,
    pub(crate) fence: RangeSet,
    pub(crate) here: RangeSet,
    pub(crate) loaded: RangeSet,
    pub(crate) probe: RangeSet,
    pub(crate) answer: RangeSet,
    pub(crate) confirm: RangeSet,
    pub(crate) beacon: bool,
    /// Ranges that are led here and have something for it.
    pub(crate) stream: RangeSet,
    pub(crate) stream_from: u8,
    /// Bytes that were sent and not acknowledged.
    pub(crate) under_way: u64,
    pub(crate) lateness: Lateness,
}

/// Who this process is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me {
    pub(crate) addr: ShardAddr,
    pub(crate) boot: BootId,
}

/// The copies of ranges at one shard.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) me: Me,
    pub(crate) settings: Settings,
    pub(crate) ranges: Vec<Range>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) account: Account,
    pub(crate) progress: RangeSet,
    /// Ranges of which only the commit index has moved.
    pub(crate) moved: RangeSet,
    pub(crate) lost: Vec<Lost>,
    pub(crate) asks: Vec<ConfigAsk>,
    /// Counts beacons.
    pub(crate) round: u64,
    /// Counts resyncs in full.
    pub(crate) sessions: u64,
    pub(crate) next_beacon_ns: u64,
    pub(crate) next_pass_ns: u64,
    pub(crate) punctuality: Punctuality,
    /// The peer whose batch comes next in this turn.
    pub(crate) sending: usize,
    pub(crate) walks_left: usize,
    /// Places that may be asked in this pass for what they hold.
    pub(crate) probes_left: usize,
    /// Whether copies are being filled in full, as of the last look at all ranges, or since.
    pub(crate) filling: bool,
    pub(crate) filled: Filled,
    pub(crate) trim_from: usize,
    /// By range: a time before which it may be read, as long as nothing has happened since; see [`Cluster::may_read_at_once`].
    readable: Vec<Readable>,
    /// Counts what may have changed that.
    pub(crate) happened: u64,
    /// Something in the batch that is read did not fit the copy that it was for.
    pub(crate) misfit: bool,
}

/// An answer of [`Cluster::may_read`] that was yes.
#[derive(Clone, Copy, Debug)]
struct Readable {
    happened: u64,
    until_ns: u64,
}

impl Cluster {
    /// Nothing is held and nothing is known.
    pub fn new(me: ShardAddr, boot: BootId, settings: Settings) -> Self {
        Self {
            me: Me { addr: me, boot },
            settings,
            ranges: (0..=u8::MAX).map(|id| Range::new(RangeId(id))).collect(),
            peers: Vec::new(),
            account: Account::default(),
            progress: RangeSet::default(),
            moved: RangeSet::default(),
            lost: Vec::new(),
            asks: Vec::new(),
            round: 0,
            sessions: 0,
            next_beacon_ns: 0,
            next_pass_ns: u64::MAX,
            punctuality: Punctuality::default(),
            sending: 0,
            walks_left: WALKS_PER_TURN,
            probes_left: 0,
            filling: false,
            filled: Filled::default(),
            trim_from: 0,
            readable: alloc::vec![Readable { happened: 0, until_ns: 0 }; RANGES],
            happened: 1,
            misfit: false,
        }
    }

    /// The copy of a range that is here now.
    pub(crate) fn me(&self, range: RangeId) -> Rid {
        let generation = self.ranges[usize::from(range.0)].generation;
        Rid { addr: self.me.addr, boot: self.me.boot, generation }
    }

    /// Peers are few; they are looked up once per batch and change of a configuration.
    pub(crate) fn peer_of(&mut self, addr: ShardAddr) -> usize {
        if let Some(at) = self.peers.iter().position(|peer| peer.addr == addr) {
            return at;
        }
        self.peers.push(Peer {
            addr,
            up: true,
            out: Vec::new(),
            fence: RangeSet::default(),
            here: RangeSet::default(),
            loaded: RangeSet::default(),
            probe: RangeSet::default(),
            answer: RangeSet::default(),
            confirm: RangeSet::default(),
            beacon: false,
            stream: RangeSet::default(),
            stream_from: 0,
            under_way: 0,
            lateness: Lateness::default(),
        });
        self.peers.len() - 1
    }

    /// The link to a peer is up. One that was never spoken of counts as up.
    pub fn link_up(&mut self, now_ns: u64, peer: ShardAddr) {
        self.happened += 1;
        let at = self.peer_of(peer);
        self.peers[at].up = true;
        self.rewind_peer(at, now_ns);
    }

    /// The link to a peer is gone, with what was under way: nothing is made for it until it is up.
    pub fn link_down(&mut self, now_ns: u64, peer: ShardAddr) {
        self.happened += 1;
        let at = self.peer_of(peer);
        self.peers[at].up = false;
        self.peers[at].out = Vec::new();
        self.rewind_peer(at, now_ns);
    }

    /// Takes the body of a `Peer` frame.
    ///
    /// # Errors
    /// The sender is broken, or the copy here and its own have come apart: the link to it is to be closed. What stood
    /// before the error in the batch was taken.
    pub fn peer(
        &mut self,
        now_ns: u64,
        from: ShardAddr,
        body: &[u8],
        store: &mut dyn Store,
    ) -> Result<(), PeerError> {
        self.happened += 1;
        let (head, messages) = read_batch(body)?;
        if from == self.me.addr {
            return Ok(());
        }
        let now_ms = now_ns / NS_PER_MS;
        let delta_ms = now_ms.wrapping_sub(head.now_ms) as i64;
        let peer = self.peer_of(from);
        let from = From { now_ns, peer, addr: from, boot: head.boot, delta_ms };
        for message in messages {
            self.message(&from, message?, store);
            if core::mem::take(&mut self.misfit) {
                return Err(PeerError::Misfit);
            }
        }
        if self.account.grown {
            self.trim();
        }
        Ok(())
    }

    fn message(&mut self, from: &From, message: Message<'_>, store: &mut dyn Store) {
        let (now_ns, peer) = (from.now_ns, from.peer);
        let rid = |generation| Rid { addr: from.addr, boot: from.boot, generation };
        match message {
            Message::Prepare { place, entries } => self.prepare(from, &place, entries, store),
            Message::PreparePart { place, part } => self.prepare_part(from, &place, &part, store),
            Message::Ack { range, epoch, generation, matched, applied, part_bytes, whole } => {
                let rid = rid(generation);
                let got = crate::lead::Got { matched, applied, part_bytes, whole };
                self.acked(now_ns, peer, rid, range, epoch, &got);
            }
            Message::Nack { range, epoch, generation, matched } => {
                self.nacked(now_ns, peer, rid(generation), range, epoch, matched);
            }
            Message::Fence { range, epoch } => self.hear(now_ns, range, epoch, None),
            Message::Beacon { round, sent_ns, ranges } => {
                self.beacon(from, round, sent_ns, ranges, store);
            }
            Message::Echo { round, sent_ns, ranges } => {
                for of in ranges {
                    self.echoed(now_ns, peer, rid(of.generation), round, sent_ns, of);
                }
            }
            Message::Probe { range, epoch } => self.probe(from, range, epoch, store),
            Message::Here { range, epoch, generation, formed, state, commit } => {
                let found = crate::lead::Found { formed, state, commit };
                self.found(now_ns, peer, rid(generation), range, epoch, found, store);
            }
            Message::Start { range, epoch, session, base_index, base_epoch, formed } => {
                let base = crate::follow::Base { index: base_index, epoch: base_epoch, formed };
                self.start(from, range, epoch, session, base, store);
            }
            Message::Slice { slice, records } => self.slice(from, &slice, records, store),
            Message::SlicePart { slice, version, part } => {
                self.slice_part(from, &slice, version, &part, store);
            }
            Message::Loaded { range, epoch, generation, session, next } => {
                self.loaded(now_ns, peer, rid(generation), range, epoch, (session, next));
            }
        }
    }

    /// The part that this shard has in a range.
    #[inline]
    pub fn role(&self, range: RangeId) -> Role {
        let r = &self.ranges[usize::from(range.0)];
        if r.lead.is_some() {
            Role::Primary
        } else if r.copy == CopyState::Whole && r.is_member(self.me(range)) && !r.is_offline() {
            Role::Replica
        } else {
            Role::None
        }
    }

    /// Who leads a range, as far as is known here.
    pub fn primary(&self, range: RangeId) -> Option<ShardAddr> {
        let r = &self.ranges[usize::from(range.0)];
        if r.is_offline() { None } else { r.leader }
    }

    /// When the copy here last heard from the primary of a range, on this clock.
    pub fn heard_ns(&self, range: RangeId) -> u64 {
        self.ranges[usize::from(range.0)].last_beacon_ns
    }

    /// When a beacon of a range's leader, the present one or an earlier one, came last; 0 when none ever came.
    pub fn led_until_ns(&self, range: RangeId) -> u64 {
        self.ranges[usize::from(range.0)].beacon_came_ns
    }

    /// Whether a write may be appended now; nothing was done when it may not (R1).
    #[inline]
    pub fn may_write(&self, now_ns: u64, range: RangeId) -> Result<(), Refused> {
        let r = &self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref() else {
            return Err(if r.is_offline() { Refused::Offline } else { Refused::NotPrimary });
        };
        if lead.transfer.is_some() {
            return Err(Refused::Handover);
        }
        if lead.epoch != r.epoch {
            return Err(Refused::NoLease);
        }
        if now_ns >= lead.lease_ns && !self.settings.planted.skips_lease_check() {
            return Err(self.no_lease(now_ns, lead));
        }
        if lead.in_sync < usize::from(self.settings.min_insync) {
            return Err(Refused::TooFewCopies);
        }
        if r.journal && self.account.bytes >= self.settings.log_bytes_max {
            return Err(Refused::LogFull);
        }
        Ok(())
    }

    /// Reads what a write to this range will need, so that it is near by then; what is returned means nothing. Writes go to
    /// all ranges in turn, and those of a batch wait for memory together when each is touched before the first is done.
    #[inline]
    pub fn touch(&self, range: RangeId) -> u64 {
        let r = &self.ranges[usize::from(range.0)];
        let lead = r.lead.as_deref().map_or(0, |lead| {
            lead.lease_ns ^ lead.followers.first().map_or(0, |follower| follower.next)
        });
        lead ^ r.log.touch()
    }

    /// Whether a read may be served now, its answer waiting for what it saw.
    #[inline]
    pub fn may_read(&self, now_ns: u64, range: RangeId) -> Result<(), Refused> {
        let r = &self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref() else {
            return Err(if r.is_offline() { Refused::Offline } else { Refused::NotPrimary });
        };
        if lead.transfer.is_some_and(|transfer| transfer.asked) {
            return Err(Refused::Handover);
        }
        if lead.epoch != r.epoch {
            return Err(Refused::NoLease);
        }
        let leases = self.settings.read == ReadMode::Lease;
        if leases && now_ns >= lead.lease_ns && !self.settings.planted.skips_lease_check() {
            return Err(self.no_lease(now_ns, lead));
        }
        Ok(())
    }

    /// Whether a read may certainly be served now: as [`Cluster::may_read`], whose answer it remembers until something
    /// happens, so that reads without writes among them look at nothing else.
    #[inline]
    pub fn may_read_at_once(&mut self, now_ns: u64, range: RangeId) -> bool {
        let readable = self.readable[usize::from(range.0)];
        if readable.happened == self.happened && now_ns < readable.until_ns {
            return true;
        }
        self.may_read_as_known(now_ns, range)
    }

    fn may_read_as_known(&mut self, now_ns: u64, range: RangeId) -> bool {
        if self.may_read(now_ns, range).is_err() {
            return false;
        }
        let lead = self.ranges[usize::from(range.0)].lead.as_deref();
        let leases = self.settings.read == ReadMode::Lease;
        // Whatever the time is: without leases, or with a planted bug, nothing that passes counts.
        let until_ns = match lead {
            Some(lead) if leases => lead.lease_ns,
            _ => 0,
        };
        self.readable[usize::from(range.0)] = Readable { happened: self.happened, until_ns };
        true
    }

    /// Who has only begun to lead will have its leases at any moment.
    const fn no_lease(&self, now_ns: u64, lead: &crate::lead::Lead) -> Refused {
        if now_ns < lead.since_ns + self.settings.beacon_ns {
            Refused::Handover
        } else {
            Refused::NoLease
        }
    }

    /// Whether changes of a range that are made here must be appended.
    #[inline]
    pub fn journals(&self, range: RangeId) -> bool {
        self.ranges[usize::from(range.0)].journal
    }

    /// Appends what was just done to the table, as the position it got there (R1).
    ///
    /// # Panics
    /// When it is not the position after the last: the copies would differ, and going on would hide it.
    #[inline]
    pub fn append(&mut self, range: RangeId, index: u64, effect: Effect<'_>) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut().filter(|_| r.journal) else { return };
        assert!(index == r.log.end() + 1, "a change that is not the next of its range");
        r.log.push(lead.epoch, effect, &mut self.account);
        if lead.alone {
            r.commit = index;
        }
        for follower in &lead.followers {
            self.peers[follower.peer].stream.insert(range);
        }
        if self.account.grown {
            self.trim();
        }
    }

    /// A write is answered once this has reached its position (R3).
    #[inline]
    pub fn committed(&self, range: RangeId) -> u64 {
        if self.settings.planted.acks_before_held() {
            return u64::MAX;
        }
        let r = &self.ranges[usize::from(range.0)];
        match r.lead.as_deref() {
            Some(lead) if lead.alone || self.settings.ack == Ack::Async => u64::MAX,
            _ => r.commit,
        }
    }

    /// A read is answered once this has reached the version of what it saw (R3).
    #[inline]
    pub fn committed_for_reads(&self, range: RangeId) -> u64 {
        if self.settings.planted.leaves_reads_ungated() {
            return u64::MAX;
        }
        self.committed(range)
    }

    /// A read was served that must be confirmed by the copies: its answer waits until [`Cluster::confirmed`] has reached
    /// what this returns. Under leases there is nothing to wait for.
    #[inline]
    pub fn confirm(&mut self, range: RangeId) -> u64 {
        let r = &self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref() else { return 0 };
        if self.settings.read == ReadMode::Lease || lead.alone {
            return 0;
        }
        for follower in &lead.followers {
            self.peers[follower.peer].confirm.insert(range);
        }
        self.round + 1
    }

    /// See [`Cluster::confirm`].
    #[inline]
    pub fn confirmed(&self, range: RangeId) -> u64 {
        self.ranges[usize::from(range.0)].lead.as_deref().map_or(0, |lead| lead.confirmed)
    }

    /// The ranges whose commit, role or refusal may have changed since the last call, in order; without those that
    /// [`Cluster::take_moved`] gave.
    pub fn take_progress(&mut self, out: &mut Vec<RangeId>) {
        self.progress.add(self.moved.take());
        out.extend(self.progress.take().iter());
    }

    /// The ranges of which nothing but the commit index has moved since the last call, in order. That is what happens to
    /// nearly all at each write, and there is less to look at.
    pub fn take_moved(&mut self, out: &mut Vec<RangeId>) {
        let mut moved = self.moved.take();
        moved.subtract(self.progress);
        out.extend(moved.iter());
    }

    /// How copies were brought up to date so far.
    pub const fn filled(&self) -> Filled {
        self.filled
    }

    /// Whether messages may hold slices of a resync in full, which takes longer than anything else about them.
    pub const fn is_filling(&self) -> bool {
        self.filling
    }

    /// The ranges whose answers must not wait longer (R12). To be looked at before the progress.
    pub fn take_lost(&mut self, out: &mut Vec<Lost>) {
        out.append(&mut self.lost);
    }

    /// What is asked of the control plane. Asks are repeated until news shows what became of them.
    pub fn take_asks(&mut self, out: &mut Vec<ConfigAsk>) {
        out.append(&mut self.asks);
    }

    /// What there is to know of a range.
    pub fn view(&self, range: RangeId) -> RangeView {
        let r = &self.ranges[usize::from(range.0)];
        let followers = r.lead.as_deref().map_or(&[][..], |lead| &lead.followers[..]);
        let copies = followers.iter().map(|follower| CopyView {
            rid: follower.rid,
            in_sync: follower.standing == crate::follower::Standing::Member,
            lag: r.log.end().saturating_sub(follower.acked),
            lease_ns: follower.lease_ns,
        });
        let in_sync = r.config.as_ref().map_or(&[][..], |config| &config.in_sync[..]);
        RangeView {
            role: self.role(range),
            epoch: r.epoch,
            me: self.me(range),
            whole: r.copy == CopyState::Whole,
            primary: self.primary(range),
            in_sync: in_sync.to_vec(),
            placement: r.placement.clone(),
            first: r.log.base(),
            last: r.log.end(),
            commit: r.commit,
            told: r.told,
            copies: copies.collect(),
            degraded: in_sync.len() < r.placement.len(),
        }
    }

    /// How long a granted lease lasts, in nanoseconds.
    pub const fn lease_ns(&self) -> u64 {
        self.settings.lease_ns
    }

    /// How many entries of other shards were applied here since the start, over all ranges.
    pub fn applied(&self) -> u64 {
        self.ranges.iter().map(|range| range.applied).sum()
    }

    /// How many copies besides this one count and hold the log of a range up to `index`, or up to its end when that is
    /// none, and up to where that is. None: `primary` is not the copy that is here, or it does not lead.
    pub fn held(&self, range: RangeId, primary: Rid, index: Option<u64>) -> Option<(u64, usize)> {
        let r = &self.ranges[usize::from(range.0)];
        let lead = r.lead.as_deref().filter(|_| self.me(range) == primary)?;
        let index = index.unwrap_or_else(|| r.log.end());
        let holds = |follower: &&crate::follower::Follower| {
            follower.standing == crate::follower::Standing::Member && follower.acked >= index
        };
        Some((index, lead.followers.iter().filter(holds).count()))
    }

    /// Forgets the oldest entries that nobody needs, of all ranges in turn, until the logs are within their bound.
    pub(crate) fn trim(&mut self) {
        self.account.grown = false;
        let mut idle = 0;
        while self.account.bytes > self.settings.backlog_bytes && idle < RANGES {
            let r = &mut self.ranges[self.trim_from];
            self.trim_from = (self.trim_from + 1) % RANGES;
            idle += 1;
            let followers = r.lead.as_deref().map_or(&[][..], |lead| &lead.followers[..]);
            let needed = followers.iter().map(|follower| follower.acked).min();
            let needed = needed.unwrap_or(u64::MAX);
            if r.log.oldest().is_some_and(|last| last <= r.commit.min(needed)) {
                r.log.trim(&mut self.account);
                idle = 0;
            }
        }
    }
}
