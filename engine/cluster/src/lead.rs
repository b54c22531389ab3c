//! Leading a range: what counts towards a commit (R2), the leases (R4), and the answers of the other copies.
//!
//! An answer counts only in the epoch in which the range is led, and only from the very copy that is meant.

use crate::cluster::Cluster;
use crate::follower::{Follower, Standing};
use crate::log::Log;
use crate::resync::Resync;
use crate::set::RangeSet;
use crate::{Settings, Store};
use alloc::boxed::Box;
use alloc::vec::Vec;
use dkv_protocol::ids::{Epoch, RangeId};
use dkv_protocol::peer::{CopyState, EchoOf};
use dkv_protocol::ranges::Rid;

/// Leadership is moving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: Rid,
    pub(crate) since_ns: u64,
    /// It was asked for: nothing is served before the epoch has moved on.
    pub(crate) asked: bool,
}

/// What a copy says it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) matched: u64,
    pub(crate) applied: u64,
    pub(crate) part_bytes: u64,
    pub(crate) whole: bool,
}

/// What a copy says it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) formed: Epoch,
    pub(crate) state: CopyState,
    pub(crate) commit: u64,
}

/// What writes need stands first, see [`crate::state::Range`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Lead {
    pub(crate) epoch: Epoch,
    /// The earliest end of the leases of the copies that are required.
    pub(crate) lease_ns: u64,
    /// The last beacon that all of them echoed.
    pub(crate) confirmed: u64,
    /// When the commit index last moved, or there was nothing to commit.
    pub(crate) moved_ns: u64,
    pub(crate) followers: Vec<Follower>,
    /// No other copy is required.
    pub(crate) alone: bool,
    /// The asks of this epoch must become void: an epoch is asked for that changes nothing.
    pub(crate) renew: bool,
    pub(crate) transfer: Option<Transfer>,
    /// Copies that count by the configuration, this one included.
    pub(crate) in_sync: usize,
    pub(crate) since_ns: u64,
    pub(crate) next_transfer_ns: u64,
    /// A copy that was not let in: it may come back as another only.
    pub(crate) refused: Option<Rid>,
    pub(crate) next_probe_ns: u64,
    /// The end of the log at the last pass, and the last one at which it had moved.
    pub(crate) passed_end: u64,
    pub(crate) written_ns: u64,
}

impl Lead {
    pub(crate) const fn new(epoch: Epoch, now_ns: u64) -> Self {
        Self {
            epoch,
            since_ns: now_ns,
            followers: Vec::new(),
            in_sync: 1,
            alone: true,
            lease_ns: u64::MAX,
            confirmed: u64::MAX,
            transfer: None,
            next_transfer_ns: 0,
            renew: false,
            refused: None,
            next_probe_ns: 0,
            moved_ns: now_ns,
            passed_end: 0,
            written_ns: now_ns,
        }
    }

    /// Whether it was written to lately.
    pub(crate) const fn is_written(&self, now_ns: u64) -> bool {
        const LATELY_NS: u64 = 1_000_000_000;
        now_ns < self.written_ns + LATELY_NS
    }

    /// The commit index and leases, as the copies that are required have them.
    fn count(&mut self, log: &Log, settings: &Settings) -> u64 {
        let (mut held, mut lease_ns, mut echoed) = (log.end(), u64::MAX, u64::MAX);
        self.alone = true;
        for follower in self.followers.iter().filter(|follower| follower.counts(settings)) {
            self.alone = false;
            held = held.min(follower.acked);
            lease_ns = lease_ns.min(follower.lease_ns);
            echoed = echoed.min(follower.echoed);
        }
        self.lease_ns = lease_ns;
        self.confirmed = echoed;
        held
    }
}

impl Cluster {
    /// Counts anew what is committed and granted, and notes what waits for it.
    pub(crate) fn settle(&mut self, now_ns: u64, range: RangeId) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        let before = (lead.alone, lead.lease_ns < now_ns, lead.confirmed);
        let held = lead.count(&r.log, &self.settings);
        if held > r.commit {
            r.commit = held;
            lead.moved_ns = now_ns;
            self.moved.insert(range);
        }
        self.happened += 1;
        if before != (lead.alone, lead.lease_ns < now_ns, lead.confirmed) {
            self.progress.insert(range);
        }
    }

    /// The follower that this very copy is, if the range is led in this epoch.
    fn follower(
        &mut self,
        range: RangeId,
        epoch: Epoch,
        peer: usize,
        rid: Rid,
    ) -> Option<(&mut Follower, &Log, &mut u64)> {
        let r = &mut self.ranges[usize::from(range.0)];
        let lead = r.lead.as_deref_mut()?;
        if lead.epoch != epoch || r.epoch != epoch {
            return None;
        }
        let follower = lead.followers.iter_mut().find(|follower| follower.rid == rid)?;
        Some((follower, &r.log, &mut self.peers[peer].under_way))
    }

    pub(crate) fn acked(
        &mut self,
        now_ns: u64,
        peer: usize,
        rid: Rid,
        range: RangeId,
        epoch: Epoch,
        got: &Got,
    ) {
        let matched = got.matched;
        let Some((follower, log, under_way)) = self.follower(range, epoch, peer, rid) else {
            return;
        };
        if matched > log.end() || !follower.streams() {
            return;
        }
        follower.joined |= matched >= follower.acked;
        follower.whole |= got.whole;
        follower.applied = follower.applied.max(got.applied);
        let held_before = (follower.acked, follower.acked_part);
        if matched > follower.acked {
            follower.acked = matched;
            follower.acked_part = 0;
            if follower.next <= matched {
                follower.next = matched + 1;
                follower.next_part = 0;
            }
        }
        if matched == follower.acked && follower.next == matched + 1 {
            follower.acked_part = got.part_bytes.min(follower.next_part);
        }
        if (follower.acked, follower.acked_part) > held_before {
            follower.progress_ns = now_ns;
        }
        follower.recount(log, under_way);
        let more = follower.next <= log.end();
        let counts = follower.standing != Standing::Learner;
        if more {
            self.peers[peer].stream.insert(range);
        }
        if counts {
            self.settle(now_ns, range);
        }
    }

    pub(crate) fn nacked(
        &mut self,
        now_ns: u64,
        peer: usize,
        rid: Rid,
        range: RangeId,
        epoch: Epoch,
        matched: u64,
    ) {
        let pause_ns = self.settings.retry_ns / 8;
        let Some((follower, log, under_way)) = self.follower(range, epoch, peer, rid) else {
            return;
        };
        if matched > log.end() || !follower.streams() {
            return;
        }
        let news = matched > follower.acked;
        follower.acked = follower.acked.max(matched);
        // Every message that was under way behind a lost one is answered like this.
        if news || now_ns >= follower.rewound_ns + pause_ns {
            follower.rewind(now_ns);
        }
        // A copy that counts holds what is committed, and what is trimmed is committed.
        follower.hopeless |= follower.acked < log.base();
        follower.recount(log, under_way);
        self.peers[peer].stream.insert(range);
        self.settle(now_ns, range);
    }

    pub(crate) fn echoed(
        &mut self,
        now_ns: u64,
        peer: usize,
        rid: Rid,
        round: u64,
        sent_ns: u64,
        of: EchoOf,
    ) {
        // What was never sent grants nothing.
        if sent_ns > now_ns || round > self.round {
            return;
        }
        let from_ns = if self.settings.planted.leases_from_arrival() { now_ns } else { sent_ns };
        let lease_ns = from_ns + self.settings.lease_ns;
        let Some((follower, ..)) = self.follower(of.range, of.epoch, peer, rid) else { return };
        follower.lease_ns = follower.lease_ns.max(lease_ns);
        follower.echoed = follower.echoed.max(round);
        if follower.standing != Standing::Learner {
            self.settle(now_ns, of.range);
        }
    }

    /// A place that should hold a copy says what it has.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn found(
        &mut self,
        now_ns: u64,
        peer: usize,
        rid: Rid,
        range: RangeId,
        epoch: Epoch,
        found: Found,
        store: &mut dyn Store,
    ) {
        let full = self.resyncs() >= crate::cluster::RESYNCS_MAX;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        if full {
            lead.next_probe_ns = now_ns;
            return;
        }
        let wanted = r.placement.contains(&rid.addr) && rid.addr != self.me.addr;
        let known = lead.followers.iter().any(|follower| follower.rid.addr == rid.addr);
        if lead.epoch != epoch || r.epoch != epoch || !wanted || known {
            return;
        }
        if !r.journal {
            r.journal = true;
            let index = store.index(range);
            r.log.reset(index, epoch, &mut self.account);
            r.commit = index;
            store.journal(range, true);
        }
        let mut follower = Follower::new(rid, peer, Standing::Learner, r.log.end(), now_ns);
        let commit = found.commit;
        let fits = found.state == CopyState::Whole
            && found.formed == r.formed
            && commit >= r.log.base()
            && commit <= r.log.end();
        if fits && lead.refused != Some(rid) {
            follower.acked = commit;
            follower.whole = true;
            follower.rewind(now_ns);
            self.filled.partial += 1;
        } else {
            self.sessions += 1;
            self.filling = true;
            self.filled.full += 1;
            self.filled.unfit += u64::from(found.state == CopyState::Whole);
            let (base, base_epoch) = (r.log.end(), r.log.last_epoch());
            follower.resync = Some(Box::new(Resync::new(self.sessions, base, base_epoch, now_ns)));
        }
        lead.followers.push(follower);
        self.peers[peer].stream.insert(range);
        self.settle(now_ns, range);
    }

    /// A learner has taken slices.
    pub(crate) fn loaded(
        &mut self,
        now_ns: u64,
        peer: usize,
        rid: Rid,
        range: RangeId,
        epoch: Epoch,
        (session, next): (u64, u32),
    ) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        if lead.epoch != epoch || r.epoch != epoch {
            return;
        }
        let Some(follower) = lead.followers.iter_mut().find(|follower| {
            follower.resync.as_ref().is_some_and(|resync| resync.session == session)
                && follower.rid.addr == rid.addr
                && follower.rid.boot == rid.boot
        }) else {
            return;
        };
        let Some(resync) = follower.resync.as_deref_mut() else { return };
        if !resync.started {
            // What it held before is gone, and with it the copy that it was.
            resync.started = true;
            resync.progress_ns = now_ns;
            follower.rid = rid;
            follower.acked = resync.base_index;
            follower.rewind(now_ns);
        }
        if follower.rid != rid {
            return;
        }
        let Some(resync) = follower.resync.as_deref_mut() else { return };
        if resync.acknowledged(next, now_ns) {
            follower.progress_ns = now_ns;
        }
        if resync.is_done() {
            follower.resync = None;
            follower.due = true;
        }
        follower.recount(&r.log, &mut self.peers[peer].under_way);
        self.peers[peer].stream.insert(range);
    }

    /// Forgets a follower; what was under way to it does not count any more.
    pub(crate) fn drop_follower(&mut self, range: RangeId, at: usize) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        let gone = lead.followers.remove(at);
        let under_way = &mut self.peers[gone.peer].under_way;
        *under_way = under_way.saturating_sub(gone.under_way);
    }

    /// Resyncs in full that are going on.
    pub(crate) fn resyncs(&self) -> usize {
        let leads = self.ranges.iter().filter_map(|r| r.lead.as_deref());
        let followers = leads.flat_map(|lead| lead.followers.iter());
        followers.filter(|follower| follower.resync.is_some()).count()
    }

    /// The link to a peer is gone, or came back: what was under way is not any more.
    pub(crate) fn rewind_peer(&mut self, peer: usize, now_ns: u64) {
        let mut stream = RangeSet::default();
        for r in &mut self.ranges {
            let Some(lead) = r.lead.as_deref_mut() else { continue };
            for follower in lead.followers.iter_mut().filter(|follower| follower.peer == peer) {
                follower.rewind(now_ns);
                if let Some(resync) = follower.resync.as_deref_mut() {
                    resync.rewind(now_ns);
                }
                follower.recount(&r.log, &mut self.peers[peer].under_way);
                stream.insert(r.id);
            }
        }
        self.peers[peer].stream = stream;
    }
}
