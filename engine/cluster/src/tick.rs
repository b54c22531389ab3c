//! Time: beacons, what is sent again, the promise and the take of a copy whose primary is silent (R6), and the work of a
//! primary towards the placement: shrink, probe, expand, transfer (R9, R11, R13, R14).
//!
//! Asks are decided anew at each pass from what is known, and sent again while they stand. At one epoch a primary may have
//! asked for several things, since at most one of them can be granted; what depends on the outcome of an ask (who counts,
//! whether to serve) is therefore settled by the next epoch and by nothing else.

use crate::cluster::{ASKS_MAX, Cluster, RESYNCS_MAX};
use crate::follower::{Follower, Standing};
use crate::lead::Transfer;
use crate::state::Asked;
use crate::{Lost, Store};
use dkv_protocol::ids::RangeId;
use dkv_protocol::peer::CopyState;
use dkv_protocol::ranges::{Ack, Change, ConfigAsk, RangeConfig, Rid};

/// A handover that did not come about is tried again after so many asks.
const TRANSFER_PAUSE_ASKS: u64 = 5;
/// So many asks later than it heard of an epoch, a copy asks for its configuration.
const FETCH_AFTER_ASKS: u64 = 3;

/// Places that are asked in a pass for what they hold: so many answers there can be for the few that are taken up.
const PROBES_PER_PASS: usize = 4 * RESYNCS_MAX;

impl Cluster {
    /// Does what is due. Cheap when nothing is.
    pub fn tick(&mut self, now_ns: u64, store: &mut dyn Store) {
        if now_ns < self.next_pass_ns {
            return;
        }
        self.next_pass_ns = now_ns + self.settings.tick_ns;
        let resyncs = self.resyncs();
        self.filling = resyncs > 0;
        self.probes_left = if resyncs < RESYNCS_MAX { PROBES_PER_PASS } else { 0 };
        if now_ns >= self.next_beacon_ns {
            self.next_beacon_ns = now_ns + self.settings.beacon_ns;
            for peer in &mut self.peers {
                peer.beacon = true;
            }
        }
        // What is too much is found from the waits of this pass, before anybody is let go for it.
        self.judge(now_ns);
        let mut managed = false;
        for id in 0..=u8::MAX {
            let range = RangeId(id);
            let r = &self.ranges[usize::from(id)];
            if r.config.is_none() && r.leader.is_none() {
                continue;
            }
            managed = true;
            if r.lead.is_some() {
                self.mirror_journal(now_ns, range, store);
                self.send_again(now_ns, range);
                self.relieve(now_ns, range);
                self.probe_places(now_ns, range);
            }
            if let Some(ask) = self.wanted(now_ns, range) {
                self.ask(now_ns, range, ask);
            }
        }
        if !managed {
            self.next_pass_ns = u64::MAX;
        }
        if self.account.bytes > self.settings.backlog_bytes {
            self.trim();
        }
    }

    /// When [`Cluster::tick`] has something to do next, if nothing comes in.
    pub const fn next_wake_ns(&self) -> u64 {
        self.next_pass_ns
    }

    /// How late each place is that holds copies of what is led here, learners that have all of it as well.
    fn judge(&mut self, now_ns: u64) {
        let passed_ns = self.punctuality.pass(now_ns, &self.settings);
        for r in &mut self.ranges {
            let Some(lead) = r.lead.as_deref_mut() else { continue };
            if core::mem::replace(&mut lead.passed_end, r.log.end()) != r.log.end() {
                lead.written_ns = now_ns;
            }
            for follower in lead.followers.iter().filter(|f| f.whole || f.is_required()) {
                let ns = now_ns.saturating_sub(follower.progress_ns);
                self.peers[follower.peer].lateness.waits(if follower.waits() { ns } else { 0 });
            }
        }
        for peer in &mut self.peers {
            peer.lateness.pass(passed_ns);
        }
    }

    /// What was sent and not acknowledged for too long was lost.
    fn send_again(&mut self, now_ns: u64, range: RangeId) {
        let retry_ns = self.settings.retry_ns;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        for follower in &mut lead.followers {
            let mut again = false;
            let commit = follower.may_apply(r.commit);
            if let Some(resync) = follower.resync.as_deref_mut()
                && resync.is_waiting()
                && now_ns >= resync.progress_ns.max(resync.rewound_ns) + retry_ns
            {
                resync.rewind(now_ns);
                again = true;
            }
            if !follower.waits() {
                follower.progress_ns = now_ns;
            } else if now_ns >= follower.progress_ns.max(follower.rewound_ns) + retry_ns {
                follower.rewind(now_ns);
                again = true;
            }
            // An answer that was lost, that it holds what is sent or that it is whole, nothing else brings back.
            let unheard = !follower.joined || !follower.whole && follower.resync.is_none();
            if unheard && now_ns >= follower.rewound_ns + retry_ns {
                follower.rewound_ns = now_ns;
                follower.due = true;
            }
            // A learner is told at once how far it may apply, so that it becomes whole without waiting for a beacon.
            if !follower.whole && follower.standing == Standing::Learner && follower.told < commit {
                follower.due = true;
            }
            if again || follower.due {
                follower.recount(&r.log, &mut self.peers[follower.peer].under_way);
                self.peers[follower.peer].stream.insert(range);
            }
        }
    }

    /// Lets go of learners that do not get on, names members that hold everybody up, and gives up waiting for a commit
    /// (R11 e).
    fn relieve(&mut self, now_ns: u64, range: RangeId) {
        let (lease_ns, unknown_ns) = (self.settings.lease_ns, self.settings.unknown_ns);
        let full = self.account.bytes >= self.settings.log_bytes_max;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        if r.commit == r.log.end() || lead.alone {
            lead.moved_ns = now_ns;
        } else if now_ns >= lead.moved_ns + unknown_ns {
            lead.moved_ns = now_ns;
            self.lost.push(Lost { range, committed: r.commit });
        }
        // Nobody is in the way of a log without entries: it is others that are long.
        let oldest = r.log.oldest().unwrap_or(0);
        let mut gone = None;
        for (at, follower) in lead.followers.iter_mut().enumerate() {
            let resync_ns = follower.resync.as_ref().map_or(now_ns, |resync| {
                if resync.is_waiting() { resync.progress_ns } else { now_ns }
            });
            // It echoes no beacon: with nothing under way nothing else would show that it is gone.
            let silent = now_ns >= follower.lease_ns.max(follower.added_ns) + lease_ns;
            let stuck = silent || now_ns >= follower.progress_ns.min(resync_ns) + lease_ns;
            let in_the_way = full && follower.acked < oldest;
            if follower.standing == Standing::Learner {
                if follower.hopeless
                    || stuck
                    || in_the_way
                    || !r.placement.contains(&follower.rid.addr)
                {
                    gone = Some(at);
                }
            } else if in_the_way && now_ns >= follower.progress_ns + lease_ns / 2 {
                follower.hopeless = true;
            }
        }
        if let Some(at) = gone {
            lead.next_probe_ns = now_ns + self.settings.probe_ns;
            self.drop_follower(range, at);
        }
    }

    /// Asks the places that should hold a copy and hold none that counts what they have.
    fn probe_places(&mut self, now_ns: u64, range: RangeId) {
        let me = self.me.addr;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        if lead.epoch != r.epoch || now_ns < lead.next_probe_ns {
            return;
        }
        let known = |addr| addr == me || lead.followers.iter().any(|f| f.rid.addr == addr);
        let all = r.placement.iter().all(|addr| known(*addr));
        // Who waits only for room asks in the pass that has some.
        if !all && self.probes_left == 0 {
            return;
        }
        lead.next_probe_ns = now_ns + self.settings.probe_ns;
        if all {
            return;
        }
        for at in 0..self.ranges[usize::from(range.0)].placement.len() {
            let r = &self.ranges[usize::from(range.0)];
            let addr = r.placement[at];
            let followers = r.lead.as_deref().map_or(&[][..], |lead| &lead.followers[..]);
            let known = followers.iter().any(|follower| follower.rid.addr == addr);
            if addr != self.me.addr && !known {
                let peer = self.peer_of(addr);
                self.peers[peer].probe.insert(range);
                // Whoever cannot be asked keeps nobody else from it.
                let asked = usize::from(self.peers[peer].up);
                self.probes_left = self.probes_left.saturating_sub(asked);
            }
        }
    }

    fn ask(&mut self, now_ns: u64, range: RangeId, (change, caller): (Change, Rid)) {
        let again_ns = now_ns + self.settings.ask_ns;
        let r = &mut self.ranges[usize::from(range.0)];
        let epoch = r.config.as_ref().map_or(r.epoch, |config| config.epoch);
        let same = r.asked.is_some_and(|asked| {
            asked.change == change
                && asked.caller == caller
                && asked.epoch == epoch
                && now_ns < asked.again_ns
        });
        if same || self.asks.len() >= ASKS_MAX {
            return;
        }
        r.asked = Some(Asked { change, caller, epoch, again_ns });
        self.asks.push(ConfigAsk { range, epoch, caller, change });
        if self.settings.planted.shrinks_when_sent()
            && let Change::Shrink { remove } = change
            && let Some(lead) = self.ranges[usize::from(range.0)].lead.as_deref_mut()
        {
            for follower in lead.followers.iter_mut().filter(|follower| follower.rid == remove) {
                follower.left_early = true;
            }
            self.settle(now_ns, range);
        }
    }

    /// What this copy wants to be changed now.
    fn wanted(&mut self, now_ns: u64, range: RangeId) -> Option<(Change, Rid)> {
        let me = self.me(range);
        let r = &self.ranges[usize::from(range.0)];
        if let Some(stale) = r.stale {
            return Some((Change::Discarded, stale));
        }
        let config = r.config.as_ref()?;
        if r.is_offline() {
            return None;
        }
        if !config.has(me) {
            return self.is_of_no_use(range).then_some((Change::Leave, me));
        }
        if config.epoch < r.epoch {
            // Refused in any case, and so answered with the configuration that holds.
            let since_ns = r.entered_ns + FETCH_AFTER_ASKS * self.settings.ask_ns;
            let fetch = if r.lead.is_some() { Change::Shrink { remove: me } } else { Change::Take };
            return (now_ns >= since_ns).then_some((fetch, me));
        }
        if r.lead.is_some() {
            self.lead_wants(now_ns, range).map(|change| (change, me))
        } else {
            self.copy_wants(now_ns, range).map(|change| (change, me))
        }
    }

    /// Whether what is held here is nothing that counts, where nothing should be. It may still be let in at any moment, by
    /// who knows of another placement; so it is asked for, and forgotten only once it is certain that it never is.
    fn is_of_no_use(&self, range: RangeId) -> bool {
        let me = self.me.addr;
        let r = &self.ranges[usize::from(range.0)];
        let elsewhere = |config: &RangeConfig| {
            config.epoch >= r.epoch && config.in_sync.iter().all(|rid| rid.addr != me)
        };
        r.copy != CopyState::Blank
            && r.lead.is_none()
            && r.config.as_ref().is_some_and(elsewhere)
            && !r.placement.is_empty()
            && !r.placement.contains(&me)
    }

    /// R6: promises, and only then takes.
    fn copy_wants(&mut self, now_ns: u64, range: RangeId) -> Option<Change> {
        let grace_ns = self.settings.grace();
        let me = self.me(range);
        let r = &mut self.ranges[usize::from(range.0)];
        if r.copy != CopyState::Whole || r.config.as_ref()?.primary == me {
            return None;
        }
        if r.promised != Some(r.epoch) {
            if now_ns <= r.last_beacon_ns + grace_ns {
                return None;
            }
            r.promised = Some(r.epoch);
            r.answer = None;
        }
        Some(Change::Take)
    }

    fn lead_wants(&mut self, now_ns: u64, range: RangeId) -> Option<Change> {
        let me = self.me(range);
        let settings = &self.settings;
        let r = &mut self.ranges[usize::from(range.0)];
        let lead = r.lead.as_deref_mut()?;
        let lease_of = |lease_ns: u64| lease_ns.max(lead.since_ns + settings.lease_ns);
        // R11 b.
        let gone = lead.followers.iter().find(|follower| {
            follower.standing == Standing::Member
                && (follower.is_of_no_help(now_ns, settings)
                    || now_ns >= lease_of(follower.lease_ns))
        });
        if let Some(follower) = gone {
            return Some(Change::Shrink { remove: follower.rid });
        }
        // Where nobody writes nobody waits for it, and it is worth more than the first write that does.
        let enough = usize::from(settings.min_insync).max(1);
        let may_go = settings.ack == Ack::All && lead.in_sync > enough && lead.is_written(now_ns);
        let late = lead.followers.iter().find(|follower| {
            follower.standing == Standing::Member
                && self.peers[follower.peer].lateness.is_too_much()
        });
        if let Some(follower) = late.filter(|_| may_go) {
            self.peers[follower.peer].lateness.goes(now_ns);
            self.filled.let_go_late += 1;
            return Some(Change::Shrink { remove: follower.rid });
        }
        let pending = lead.followers.iter().find(|f| f.standing == Standing::Pending);
        // One that is wished to be elsewhere by now may be refused, and would stay between in and out.
        let wished = |f: &Follower| r.placement.is_empty() || r.placement.contains(&f.rid.addr);
        let vain =
            |f: &Follower| f.is_of_no_help(now_ns, settings) || now_ns >= f.lease_ns || !wished(f);
        lead.renew |= pending.is_some_and(vain);
        if lead.renew {
            return Some(Change::Transfer { to: me });
        }
        if let Some(transfer) = lead.transfer.filter(|transfer| transfer.asked) {
            return Some(Change::Transfer { to: transfer.to });
        }
        // Once it counts as a member it may take the range over: so it must hold all that was committed without it.
        // What comes after that waits for it already.
        if let Some(follower) = pending {
            let holds = follower.acked >= r.commit;
            return holds.then_some(Change::Expand { add: follower.rid });
        }
        if self.require_learner(now_ns, range) {
            return None;
        }
        let me_addr = self.me.addr;
        let r = &mut self.ranges[usize::from(range.0)];
        let lead = r.lead.as_deref_mut()?;
        let member_at = |lead: &crate::lead::Lead, addr| {
            lead.followers.iter().any(|f| f.standing == Standing::Member && f.rid.addr == addr)
        };
        let placed = |addr| addr == me_addr || member_at(lead, addr);
        if !r.placement.is_empty() && r.placement.iter().all(|addr| placed(*addr)) {
            let extra = lead.followers.iter().find(|follower| {
                follower.standing == Standing::Member && !r.placement.contains(&follower.rid.addr)
            });
            if let Some(follower) = extra {
                return Some(Change::Shrink { remove: follower.rid });
            }
        }
        self.hand_over(now_ns, range)
    }

    /// R13, R2: a learner that has nearly caught up is required from before its expand is sent.
    fn require_learner(&mut self, now_ns: u64, range: RangeId) -> bool {
        const LAG_MAX: u64 = 3;
        let peers = &self.peers;
        let r = &mut self.ranges[usize::from(range.0)];
        let end = r.log.end();
        let Some(lead) = r.lead.as_deref_mut().filter(|lead| lead.transfer.is_none()) else {
            return false;
        };
        let placement = &r.placement;
        let ready = lead.followers.iter_mut().find(|follower| {
            follower.standing == Standing::Learner
                && follower.whole
                && follower.resync.is_none()
                && !follower.hopeless
                && follower.acked + LAG_MAX >= end
                && now_ns < follower.lease_ns
                && placement.contains(&follower.rid.addr)
                && peers[follower.peer].lateness.may_count(now_ns)
        });
        let Some(follower) = ready else { return false };
        follower.standing = Standing::Pending;
        self.settle(now_ns, range);
        // Asked for at once when nothing is missing.
        self.next_pass_ns = now_ns;
        true
    }

    /// R14: holds writes until all is committed, and only then asks; from there on nothing is served.
    fn hand_over(&mut self, now_ns: u64, range: RangeId) -> Option<Change> {
        let me = self.me.addr;
        let (handover_ns, ask_ns) = (self.settings.handover_ns, self.settings.ask_ns);
        let r = &mut self.ranges[usize::from(range.0)];
        let (end, commit) = (r.log.end(), r.commit);
        let lead = r.lead.as_deref_mut()?;
        let first = *r.placement.first()?;
        let to = lead.followers.iter().find(|follower| {
            follower.standing == Standing::Member
                && follower.rid.addr == first
                && now_ns < follower.lease_ns
        });
        let held = to.is_some_and(|follower| follower.acked == end);
        let to = to.map(|follower| follower.rid).filter(|_| first != me);
        if to.is_some() || lead.transfer.is_some() {
            self.happened += 1;
        }
        if let Some(transfer) = lead.transfer {
            if to != Some(transfer.to) || now_ns >= transfer.since_ns + handover_ns {
                lead.transfer = None;
                lead.next_transfer_ns = now_ns + TRANSFER_PAUSE_ASKS * ask_ns;
                self.progress.insert(range);
                return None;
            }
        } else {
            // A resync would have to begin anew under another primary.
            let learns = lead.followers.iter().any(|follower| follower.resync.is_some());
            if learns || now_ns < lead.next_transfer_ns {
                return None;
            }
            lead.transfer = Some(Transfer { to: to?, since_ns: now_ns, asked: false });
            self.progress.insert(range);
        }
        if commit != end || !r.journal || !held {
            return None;
        }
        let transfer = lead.transfer.as_mut()?;
        transfer.asked = true;
        self.progress.insert(range);
        Some(Change::Transfer { to: transfer.to })
    }
}
