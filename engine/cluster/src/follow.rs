//! Following: what a copy that does not lead does with what a primary sends (R5, R7, R13).
//!
//! Whatever comes from an epoch that has passed is answered with the one that holds, and else ignored.

use crate::cluster::{Cluster, NS_PER_MS};
use crate::state::{Answer, Assembly, Load, Range};
use crate::{Effect, Store};
use alloc::vec::Vec;
use dkv_protocol::ids::{BootId, Epoch, RangeId, ShardAddr};
use dkv_protocol::peer::{
    BeaconRanges, CopyState, EchoOf, Entries, Part, Place, Records, SliceHead, write_echo,
};

/// One range's share of the bytes of all logs: so much of its own it may always hold.
const FULL_SHARES: usize = 64;

/// Where a batch came from, and what of it holds for each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From {
    pub(crate) now_ns: u64,
    pub(crate) peer: usize,
    pub(crate) addr: ShardAddr,
    pub(crate) boot: BootId,
    /// What turns a deadline of the sender into one of this machine.
    pub(crate) delta_ms: i64,
}

/// Where the log of a resync begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    pub(crate) index: u64,
    pub(crate) epoch: Epoch,
    pub(crate) formed: Epoch,
}

impl From {
    const fn now_ms(&self) -> u64 {
        self.now_ns / NS_PER_MS
    }
}

impl Cluster {
    /// Whether a message of somebody who leads is to be obeyed.
    fn heed(&mut self, from: &From, range: RangeId, epoch: Epoch, store: &mut dyn Store) -> bool {
        let r = &mut self.ranges[usize::from(range.0)];
        if epoch < r.epoch {
            if self.settings.planted.skips_fencing() && r.lead.is_none() {
                r.epoch = epoch;
                r.leader = Some(from.addr);
                r.matched = r.commit;
                return true;
            }
            self.peers[from.peer].fence.insert(range);
            return false;
        }
        if epoch > r.epoch {
            self.hear(from.now_ns, range, epoch, Some(from.addr));
            // Nothing was appended since the transfer was asked for: whether it was granted or the other took the range,
            // this copy is a prefix of what the other leads with.
            let r = &mut self.ranges[usize::from(range.0)];
            let handed = r.lead.as_deref().and_then(|lead| lead.transfer).is_some_and(|transfer| {
                transfer.asked && transfer.to.addr == from.addr && transfer.to.boot == from.boot
            });
            if handed && r.journal && r.commit == r.log.end() {
                self.step_down(range, store);
            }
        }
        let r = &mut self.ranges[usize::from(range.0)];
        if r.lead.is_some() {
            return false;
        }
        *r.leader.get_or_insert(from.addr) == from.addr
    }

    /// There is a later epoch. Who leads in an earlier one stops serving until it knows what it is now.
    pub(crate) fn hear(
        &mut self,
        now_ns: u64,
        range: RangeId,
        epoch: Epoch,
        leader: Option<ShardAddr>,
    ) {
        let r = &mut self.ranges[usize::from(range.0)];
        if epoch > r.epoch {
            r.enter(now_ns, epoch, leader, &self.settings, &mut self.account);
            self.progress.insert(range);
        }
    }

    fn keeps_promise(&self, range: RangeId) -> bool {
        let r = &self.ranges[usize::from(range.0)];
        r.promised == Some(r.epoch) && !self.settings.planted.acks_after_promise()
    }

    fn owe(&mut self, from: &From, range: RangeId, answer: Answer) {
        let r = &mut self.ranges[usize::from(range.0)];
        // Of several answers of a turn the one that makes the primary go back must not be hidden by an acknowledgement.
        if r.answer != Some(Answer::Nack) {
            r.answer = Some(answer);
        }
        self.peers[from.peer].answer.insert(range);
    }

    /// Whether the log of a range may not grow: all together are over their bound, and this one has its share of it. So
    /// one that is stuck does not keep others from going on.
    fn is_full(&self, range: RangeId) -> bool {
        let bytes_max = self.settings.log_bytes_max;
        self.account.bytes > bytes_max.saturating_mul(2)
            && self.ranges[usize::from(range.0)].log.cost() > bytes_max / FULL_SHARES
    }

    /// Whether entries can be taken that belong there: the log before them is the same (R7). That is said even by a log
    /// that is full, since it is what lets it be applied and trimmed.
    fn joins(&mut self, from: &From, place: &Place, store: &mut dyn Store) -> bool {
        if !self.heed(from, place.range, place.epoch, store) || self.keeps_promise(place.range) {
            return false;
        }
        let full = self.is_full(place.range);
        let r = &mut self.ranges[usize::from(place.range.0)];
        if r.copy == CopyState::Blank {
            return false;
        }
        r.told = r.told.max(place.commit);
        let joins = place.prev_index <= r.commit
            || place.prev_index <= r.log.end()
                && r.log.epoch_at(place.prev_index) == Some(place.prev_epoch);
        if joins {
            r.matched = r.matched.max(place.prev_index.min(r.log.end()));
        } else if !full || place.prev_index <= r.log.end() {
            // What comes behind an entry that was refused for want of room is not asked for before there is some.
            self.owe(from, place.range, Answer::Nack);
        }
        joins
    }

    pub(crate) fn prepare(
        &mut self,
        from: &From,
        place: &Place,
        entries: Entries<'_>,
        store: &mut dyn Store,
    ) {
        if !self.joins(from, place, store) {
            return;
        }
        let mut index = place.prev_index;
        for entry in entries {
            index += 1;
            let r = &mut self.ranges[usize::from(place.range.0)];
            if !makes_room(r, index, place.entry_epoch, &mut self.account) {
                continue;
            }
            if self.is_full(place.range) {
                index -= 1;
                break;
            }
            let r = &mut self.ranges[usize::from(place.range.0)];
            let effect = Effect::small(entry);
            r.hold(place.entry_epoch, effect, from.delta_ms, &mut self.account, store);
        }
        self.matched_to(from, place.range, index, store);
    }

    pub(crate) fn prepare_part(
        &mut self,
        from: &From,
        place: &Place,
        part: &Part<'_>,
        store: &mut dyn Store,
    ) {
        if !self.joins(from, place, store) {
            return;
        }
        let full = self.is_full(place.range);
        let r = &mut self.ranges[usize::from(place.range.0)];
        let index = place.prev_index + 1;
        let of = (index, place.entry_epoch.0);
        let held = index <= r.commit
            || index <= r.log.end() && r.log.epoch_at(index) == Some(place.entry_epoch);
        if held || full && index > r.log.end() {
            self.matched_to(from, place.range, if held { index } else { place.prev_index }, store);
            return;
        }
        if part.offset == 0 && r.part.as_ref().is_none_or(|whole| whole.of != of) {
            r.part = Some(Assembly::new(of, part));
        }
        match r.part.as_mut() {
            Some(whole) if whole.of == of && whole.fits(part) => {
                let complete = whole.add(part);
                let Some((head, body)) = complete else {
                    self.owe(from, place.range, Answer::Ack);
                    return;
                };
                r.part = None;
                if makes_room(r, index, place.entry_epoch, &mut self.account) {
                    let effect = Effect { head: &head, body: Some(&body) };
                    r.hold(place.entry_epoch, effect, from.delta_ms, &mut self.account, store);
                }
                self.matched_to(from, place.range, index, store);
            }
            // It came before, or in another try.
            Some(whole) if whole.of == of && part.offset < whole.bytes() => {
                self.owe(from, place.range, Answer::Ack);
            }
            _ if index <= r.matched => self.owe(from, place.range, Answer::Ack),
            _ => {
                r.part = None;
                self.owe(from, place.range, Answer::Nack);
            }
        }
    }

    fn matched_to(&mut self, from: &From, range: RangeId, index: u64, store: &mut dyn Store) {
        let r = &mut self.ranges[usize::from(range.0)];
        r.matched = r.matched.max(index.min(r.log.end()));
        if !r.advance(from.now_ms(), store) {
            return self.give_up(range, store);
        }
        self.owe(from, range, Answer::Ack);
    }

    /// What came does not fit the copy here: it is of no use to anybody, and says so (R8).
    fn give_up(&mut self, range: RangeId, store: &mut dyn Store) {
        self.misfit = true;
        let me = self.me(range);
        let r = &mut self.ranges[usize::from(range.0)];
        r.stale = r.is_member(me).then_some(me).or(r.stale);
        r.discard(&self.settings, &mut self.account, store);
        self.progress.insert(range);
    }

    pub(crate) fn beacon(
        &mut self,
        from: &From,
        round: u64,
        sent_ns: u64,
        ranges: BeaconRanges<'_>,
        store: &mut dyn Store,
    ) {
        let mut granted = Vec::new();
        for of in ranges {
            if !self.heed(from, of.range, of.epoch, store) || self.keeps_promise(of.range) {
                continue;
            }
            let r = &mut self.ranges[usize::from(of.range.0)];
            r.last_beacon_ns = r.last_beacon_ns.max(from.now_ns);
            r.beacon_came_ns = r.beacon_came_ns.max(from.now_ns);
            if r.copy != CopyState::Blank {
                let before = (r.commit, r.copy);
                r.told = r.told.max(of.commit);
                if !r.advance(from.now_ms(), store) {
                    self.give_up(of.range, store);
                    continue;
                }
                if before != (r.commit, r.copy) {
                    self.owe(from, of.range, Answer::Ack);
                }
            }
            let generation = self.ranges[usize::from(of.range.0)].generation;
            granted.push(EchoOf { range: of.range, epoch: of.epoch, generation });
        }
        let peer = &mut self.peers[from.peer];
        // More than this waits only when nothing is sent, and then the leases have run out anyway.
        if peer.out.len() < crate::cluster::ECHO_BYTES_MAX {
            write_echo(&mut peer.out, round, sent_ns, granted);
        }
    }

    pub(crate) fn probe(
        &mut self,
        from: &From,
        range: RangeId,
        epoch: Epoch,
        store: &mut dyn Store,
    ) {
        if self.heed(from, range, epoch, store) {
            self.peers[from.peer].here.insert(range);
        }
    }

    pub(crate) fn start(
        &mut self,
        from: &From,
        range: RangeId,
        epoch: Epoch,
        session: u64,
        base: Base,
        store: &mut dyn Store,
    ) {
        if !self.heed(from, range, epoch, store) {
            return;
        }
        let me = self.me(range);
        let r = &mut self.ranges[usize::from(range.0)];
        let counts = r.config.as_ref().is_some_and(|c| c.epoch >= epoch && c.has(me));
        if counts {
            return;
        }
        let known = self.ranges[usize::from(range.0)]
            .load
            .as_ref()
            .is_some_and(|load| load.boot == from.boot && load.session >= session);
        let r = &mut self.ranges[usize::from(range.0)];
        if !known {
            r.discard(&self.settings, &mut self.account, store);
            r.begin_at(base.index, base.epoch, &mut self.account);
            r.formed = base.formed;
            // The primary's log may end in what is not committed, and its records may hold it.
            r.told = 0;
            r.copy = CopyState::Loading;
            r.load =
                Some(Load { boot: from.boot, session, next: 0, end_index: None, assembly: None });
            store.set_index(range, base.index);
        }
        self.peers[from.peer].loaded.insert(range);
    }

    /// Whether this slice is the one that must come next; says what must in any case.
    fn is_next(&mut self, from: &From, slice: &SliceHead, store: &mut dyn Store) -> bool {
        if !self.heed(from, slice.range, slice.epoch, store) {
            return false;
        }
        let r = &self.ranges[usize::from(slice.range.0)];
        let Some(load) = &r.load else { return false };
        if load.boot != from.boot || load.session != slice.session {
            return false;
        }
        self.peers[from.peer].loaded.insert(slice.range);
        r.copy == CopyState::Loading && load.next == slice.number
    }

    fn take_slice(&mut self, from: &From, slice: &SliceHead, store: &mut dyn Store) {
        let r = &mut self.ranges[usize::from(slice.range.0)];
        if let Some(load) = r.load.as_mut() {
            load.next += 1;
            if slice.last {
                load.end_index = Some(slice.end_index);
            }
        }
        if !r.advance(from.now_ms(), store) {
            return self.give_up(slice.range, store);
        }
        if r.copy == CopyState::Whole {
            self.owe(from, slice.range, Answer::Ack);
        }
    }

    pub(crate) fn slice(
        &mut self,
        from: &From,
        slice: &SliceHead,
        records: Records<'_>,
        store: &mut dyn Store,
    ) {
        if !self.is_next(from, slice, store) {
            return;
        }
        let mut moved = Vec::new();
        for (version, record) in records {
            let mut record = record;
            if from.delta_ms != 0 {
                moved.clear();
                moved.extend_from_slice(record);
                store.rebase(&mut moved, from.delta_ms);
                record = &moved;
            }
            if !store.load(from.now_ms(), slice.range, version, Effect::small(record)) {
                return self.give_up(slice.range, store);
            }
        }
        self.take_slice(from, slice, store);
    }

    pub(crate) fn slice_part(
        &mut self,
        from: &From,
        slice: &SliceHead,
        version: u64,
        part: &Part<'_>,
        store: &mut dyn Store,
    ) {
        if !self.is_next(from, slice, store) {
            return;
        }
        let r = &mut self.ranges[usize::from(slice.range.0)];
        let Some(load) = r.load.as_mut() else { return };
        let of = (0, version);
        if part.offset == 0 {
            load.assembly = Some(Assembly::new(of, part));
        }
        let Some(whole) = load.assembly.as_mut() else { return };
        if whole.of != of || !whole.fits(part) {
            return;
        }
        if let Some((mut head, body)) = whole.add(part) {
            load.assembly = None;
            store.rebase(&mut head, from.delta_ms);
            let record = Effect { head: &head, body: Some(&body) };
            if !store.load(from.now_ms(), slice.range, version, record) {
                return self.give_up(slice.range, store);
            }
        }
        self.take_slice(from, slice, store);
    }
}

/// Whether the entry must be taken: it is not there yet. One that contradicts it goes, with what is after it; never one
/// that is committed (R7).
fn makes_room(r: &mut Range, index: u64, epoch: Epoch, account: &mut crate::log::Account) -> bool {
    if index <= r.commit {
        return false;
    }
    if index <= r.log.end() {
        if r.log.epoch_at(index) == Some(epoch) {
            return false;
        }
        r.log.truncate_after(index - 1, account);
        r.matched = r.matched.min(index - 1);
    }
    index == r.log.end() + 1
}
