//! News of configurations and placements: the only way in which a role changes.
//!
//! News may come late, twice and in any order: only a higher epoch than the one that is known counts. News of an epoch
//! that others have spoken of already, or not yet, is the usual case.

use crate::Store;
use crate::cluster::Cluster;
use crate::follower::{Follower, Standing};
use crate::lead::Lead;
use crate::state::Answer;
use alloc::boxed::Box;
use dkv_protocol::ids::{RangeId, ShardAddr};
use dkv_protocol::peer::CopyState;
use dkv_protocol::ranges::{RangeConfig, RangeNews, RangeState, Rid};

impl Cluster {
    /// Takes news of a range from the control plane, whatever became of earlier ones.
    pub fn news(&mut self, now_ns: u64, news: &RangeNews, store: &mut dyn Store) {
        self.happened += 1;
        let range = news.range;
        let r = &mut self.ranges[usize::from(range.0)];
        if news.placement_version >= r.placement_version {
            r.placement.clone_from(&news.placement);
            r.placement_version = news.placement_version;
        }
        if let Some(config) = &news.config {
            let known = r.config.as_ref().map(|config| config.epoch);
            if known.is_none_or(|known| config.epoch > known) {
                self.adopt(now_ns, range, config, store);
            } else if known == Some(config.epoch) && news.answer {
                self.refused(range);
            }
        }
        self.leave(range, &news.left, store);
        self.mirror_journal(now_ns, range, store);
        self.next_pass_ns = self.next_pass_ns.min(now_ns);
    }

    /// Whoever left for good never counts again, whatever this copy has heard by now: it becomes another one (R8). Where
    /// none should be it forgets what it holds; what a whole one holds is as good under another name.
    fn leave(&mut self, range: RangeId, left: &[Rid], store: &mut dyn Store) {
        let me = self.me(range);
        let r = &mut self.ranges[usize::from(range.0)];
        let covers = |rid: &&Rid| {
            (rid.addr, rid.boot) == (me.addr, me.boot) && rid.generation >= me.generation
        };
        let Some(left) = left.iter().find(covers) else { return };
        if r.lead.is_some() || r.is_member(me) {
            return;
        }
        if r.copy == CopyState::Whole && r.placement.contains(&me.addr) {
            r.rename(&self.settings);
        } else {
            r.discard(&self.settings, &mut self.account, store);
        }
        r.outlive(left.generation, &self.settings);
        self.progress.insert(range);
    }

    /// An ask of the epoch that still holds was refused; which one does not matter. What depends on the outcome of an ask
    /// is decided by the next epoch alone, and so one is asked for.
    fn refused(&mut self, range: RangeId) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        let pending = lead.followers.iter().any(|follower| follower.standing == Standing::Pending);
        let moving = lead.transfer.is_some_and(|transfer| transfer.asked);
        lead.renew |= pending || moving;
    }

    fn adopt(&mut self, now_ns: u64, range: RangeId, config: &RangeConfig, store: &mut dyn Store) {
        let before = self.me(range);
        let r = &mut self.ranges[usize::from(range.0)];
        let led = r.config.as_ref().is_some_and(|known| known.primary == before);
        if config.epoch > r.epoch {
            let leader = Some(config.primary.addr);
            r.enter(now_ns, config.epoch, leader, &self.settings, &mut self.account);
        } else if config.epoch == r.epoch {
            r.leader = Some(config.primary.addr);
        }
        r.config = Some(config.clone());
        r.asked = None;
        r.stale = None;
        self.progress.insert(range);
        let named = config
            .in_sync
            .iter()
            .copied()
            .find(|rid| rid.addr == self.me.addr && rid.boot == self.me.boot);
        let offline = config.state == RangeState::Offline;
        let leads = !offline && named == Some(config.primary);
        let me = self.me(range);
        if self.ranges[usize::from(range.0)].lead.is_some() {
            if leads && named == Some(me) {
                self.go_on(now_ns, range, config);
            } else {
                self.step_down(range, store);
            }
        }
        let r = &mut self.ranges[usize::from(range.0)];
        // Whoever held the rest of it is gone, and what is formed anew begins empty: what nobody will commit takes no room.
        // News that come late, when it has been formed anew already, say nothing of what was acknowledged since.
        if offline && config.epoch == r.epoch && r.lead.is_none() {
            r.part = None;
            r.matched = r.matched.min(r.commit);
            r.log.truncate_after(r.commit, &mut self.account);
        }
        // Who was taken over is out for good; what it holds is as good under another name.
        if led && !config.has(before) && r.generation == before.generation {
            r.rename(&self.settings);
        }
        let Some(named) = named else { return };
        if offline {
            return;
        }
        // Only a forming can name a later copy than there ever was here.
        if named.generation > r.generation {
            r.discard(&self.settings, &mut self.account, store);
            r.generation = named.generation;
        }
        // A blank copy that is named was formed so, since a copy that was cleared is another.
        if named.generation == r.generation && r.copy == CopyState::Blank {
            r.begin_at(config.first_index, config.formed, &mut self.account);
            r.copy = CopyState::Whole;
            r.formed = config.formed;
            store.set_index(range, config.first_index);
        }
        // A copy that counts is whole, and of this life of the range; of one of a later life late news know nothing.
        if r.copy == CopyState::Loading || r.formed < config.formed {
            r.discard(&self.settings, &mut self.account, store);
        }
        if named.generation != r.generation {
            r.stale = Some(named);
            return;
        }
        if r.lead.is_some() || config.epoch < r.epoch {
            return;
        }
        if leads {
            self.lead(now_ns, range, config, store);
        } else {
            // Lets the primary go on from what is here, whatever it had sent before.
            r.answer = Some(Answer::Nack);
            let peer = self.peer_of(config.primary.addr);
            self.peers[peer].answer.insert(range);
        }
    }

    /// Leads on in a later epoch. What a copy has acknowledged to this primary it still holds, and a lease is a promise to
    /// this primary too; so both are kept.
    fn go_on(&mut self, now_ns: u64, range: RangeId, config: &RangeConfig) {
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        lead.epoch = config.epoch;
        // What was refused would be refused again at once.
        let void = core::mem::take(&mut lead.renew);
        if lead.transfer.take().is_some() {
            lead.next_transfer_ns = now_ns + self.settings.lease_ns;
        }
        lead.next_probe_ns = if void { now_ns + self.settings.probe_ns } else { now_ns };
        lead.in_sync = config.in_sync.len();
        for at in (0..r.lead.as_deref().map_or(0, |lead| lead.followers.len())).rev() {
            let r = &mut self.ranges[usize::from(range.0)];
            let Some(follower) = r.lead.as_deref_mut().and_then(|lead| lead.followers.get_mut(at))
            else {
                continue;
            };
            if config.has(follower.rid) {
                follower.standing = Standing::Member;
                follower.left_early = false;
            } else if follower.standing == Standing::Member
                || void && follower.standing == Standing::Pending
            {
                let refused = (follower.standing == Standing::Pending).then_some(follower.rid);
                if let Some(lead) = r.lead.as_deref_mut() {
                    lead.refused = refused.or(lead.refused);
                }
                self.drop_follower(range, at);
                continue;
            } else {
                follower.standing = Standing::Learner;
            }
            follower.rewind(now_ns);
            follower.joined = false;
            let peer = follower.peer;
            follower.recount(&r.log, &mut self.peers[peer].under_way);
            self.peers[peer].stream.insert(range);
        }
        self.add_members(now_ns, range, config);
        self.settle(now_ns, range);
    }

    /// R6: leads with the whole log as it is. What is committed by then, every other member holds as well.
    fn lead(&mut self, now_ns: u64, range: RangeId, config: &RangeConfig, store: &mut dyn Store) {
        let r = &mut self.ranges[usize::from(range.0)];
        let committed = r.commit;
        if !r.apply_to(r.log.end(), now_ns / crate::cluster::NS_PER_MS, store) {
            // It cannot lead with this log, and must not stand in the way of those who can.
            r.stale = Some(config.primary);
            r.discard(&self.settings, &mut self.account, store);
            return;
        }
        r.commit = committed;
        store.set_index(range, r.log.end());
        r.part = None;
        r.answer = None;
        r.load = None;
        r.promised = None;
        let mut lead = Lead::new(config.epoch, now_ns);
        lead.in_sync = config.in_sync.len();
        r.lead = Some(Box::new(lead));
        r.journal = true;
        store.journal(range, true);
        self.add_members(now_ns, range, config);
        self.settle(now_ns, range);
        self.next_beacon_ns = self.next_beacon_ns.min(now_ns);
    }

    fn add_members(&mut self, now_ns: u64, range: RangeId, config: &RangeConfig) {
        let me = self.me(range);
        for rid in config.in_sync.iter().copied().filter(|rid| *rid != me) {
            let peer = self.peer_of(rid.addr);
            let r = &mut self.ranges[usize::from(range.0)];
            let Some(lead) = r.lead.as_deref_mut() else { return };
            if lead.followers.iter().any(|follower| follower.rid == rid) {
                continue;
            }
            // A learner there was another copy, and is gone.
            if let Some(at) = lead.followers.iter().position(|f| f.rid.addr == rid.addr) {
                self.drop_follower(range, at);
            }
            let r = &mut self.ranges[usize::from(range.0)];
            let Some(lead) = r.lead.as_deref_mut() else { return };
            lead.followers.push(Follower::new(rid, peer, Standing::Member, r.commit, now_ns));
            self.peers[peer].stream.insert(range);
        }
    }

    /// Leads no more (R11 d, R14). Without a change that is not committed the copy is as good as any; with one it is
    /// discarded, since what was done to the table cannot be undone.
    pub(crate) fn step_down(&mut self, range: RangeId, store: &mut dyn Store) {
        let r = &mut self.ranges[usize::from(range.0)];
        if r.lead.is_none() {
            return;
        }
        while let Some(last) = self.ranges[usize::from(range.0)]
            .lead
            .as_deref()
            .and_then(|l| l.followers.len().checked_sub(1))
        {
            self.drop_follower(range, last);
        }
        let r = &mut self.ranges[usize::from(range.0)];
        self.lost.push(r.lost());
        r.lead = None;
        let clean = r.journal && r.commit == r.log.end() && store.index(range) == r.commit;
        r.journal = false;
        store.journal(range, false);
        r.told = r.commit;
        r.matched = r.commit;
        r.answer = None;
        if !clean {
            r.discard(&self.settings, &mut self.account, store);
        }
        self.progress.insert(range);
    }

    /// A log is kept where another copy is or should be.
    pub(crate) fn mirror_journal(&mut self, now_ns: u64, range: RangeId, store: &mut dyn Store) {
        let me = self.me.addr;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut() else { return };
        let elsewhere = |addr: &ShardAddr| *addr != me;
        let wanted = !lead.followers.is_empty() || r.placement.iter().any(elsewhere);
        if wanted == r.journal {
            return;
        }
        let index = store.index(range);
        r.log.reset(index, lead.epoch, &mut self.account);
        r.commit = index;
        lead.moved_ns = now_ns;
        r.journal = wanted;
        store.journal(range, wanted);
    }
}
