//! Sending: one batch per peer at a time, within its window, entries of all ranges in turn.
//!
//! What is owed is kept as sets of ranges and written only here, so that a peer that cannot be reached costs no memory and
//! ten entries of a turn become one message.

use crate::Store;
use crate::cluster::{Cluster, NS_PER_MS, Peer};
use crate::follower::Standing;
use crate::log::Run;
use crate::resync::Resync;
use crate::state::Answer;
use alloc::vec::Vec;
use dkv_protocol::ids::{RangeId, ShardAddr};
use dkv_protocol::peer::{
    BatchHead, BeaconOf, Entries, HEAD_BYTES, Message, Part, Place, begin_batch, write_beacon,
};

/// What became of sending to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// All there was.
    All,
    /// There is more, for the next batch.
    More,
    /// There is more, once something is acknowledged.
    WindowFull,
}

/// What a batch has room for.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes that the buffer may come to.
    full: usize,
    /// Whether resyncs go on.
    fills: bool,
}

impl Cluster {
    /// The next batch to be sent, and where to. To be called until there is none, at the end of each turn.
    pub fn take_messages(
        &mut self,
        now_ns: u64,
        store: &mut dyn Store,
    ) -> Option<(ShardAddr, Vec<u8>)> {
        let mut batch = Vec::new();
        while let Some(to) = self.next_peer() {
            if self.write_messages(now_ns, store, &mut batch) {
                return Some((to, batch));
            }
        }
        None
    }

    /// The same for who has a place for the batch already, which is what a batch costs a copy less: whom the next one may
    /// be for, to be followed by [`Cluster::write_messages`]. To be called until there is none.
    pub fn next_peer(&mut self) -> Option<ShardAddr> {
        while let Some(peer) = self.peers.get(self.sending) {
            if peer.up && peer.has_work() {
                return Some(peer.addr);
            }
            self.sending += 1;
        }
        self.sending = 0;
        self.walks_left = crate::cluster::WALKS_PER_TURN;
        None
    }

    /// Appends the batch for that peer to `out`. False: there is none for it after all, and nothing was appended.
    pub fn write_messages(
        &mut self,
        now_ns: u64,
        store: &mut dyn Store,
        out: &mut Vec<u8>,
    ) -> bool {
        let (at, start) = (self.sending, out.len());
        if at >= self.peers.len() {
            return false;
        }
        let head = BatchHead { boot: self.me.boot, now_ms: now_ns / NS_PER_MS };
        begin_batch(out, head);
        let echoes = core::mem::take(&mut self.peers[at].out);
        out.extend_from_slice(&echoes);
        self.write_answers(at, out);
        self.write_beacons(at, now_ns, out);
        // Nobody waits longer for a batch with slices than for one slice walked and another sent again.
        let slices_max = 2 * self.settings.slice_bytes;
        let most = self.settings.batch_bytes_max;
        let full = start + if self.filling { most.min(slices_max) } else { most };
        let room = Room { full, fills: start < self.settings.unsent_bytes_max };
        self.write_streams(at, now_ns, out, room, store);
        if out.len() > start + HEAD_BYTES {
            return true;
        }
        out.truncate(start);
        self.sending += 1;
        false
    }

    fn write_answers(&mut self, at: usize, out: &mut Vec<u8>) {
        let peer = &mut self.peers[at];
        let addr = peer.addr;
        let fence = peer.fence.take();
        let (here, loaded, probe) = (peer.here.take(), peer.loaded.take(), peer.probe.take());
        for range in fence.iter() {
            let epoch = self.ranges[usize::from(range.0)].epoch;
            Message::Fence { range, epoch }.write(out);
        }
        for range in here.iter() {
            let r = &self.ranges[usize::from(range.0)];
            let (epoch, generation) = (r.epoch, r.generation);
            let (formed, state, commit) = (r.formed, r.copy, r.commit);
            if r.leader == Some(addr) && r.lead.is_none() {
                Message::Here { range, epoch, generation, formed, state, commit }.write(out);
            }
        }
        for range in loaded.iter() {
            let r = &self.ranges[usize::from(range.0)];
            let (epoch, generation) = (r.epoch, r.generation);
            if let Some(load) = &r.load
                && r.leader == Some(addr)
            {
                let (session, next) = (load.session, load.next);
                Message::Loaded { range, epoch, generation, session, next }.write(out);
            }
        }
        for range in probe.iter() {
            let epoch = self.ranges[usize::from(range.0)].epoch;
            Message::Probe { range, epoch }.write(out);
        }
        for range in self.peers[at].answer.take().iter() {
            self.write_answer(range, addr, out);
        }
    }

    fn write_answer(&mut self, range: RangeId, to: ShardAddr, out: &mut Vec<u8>) {
        let r = &mut self.ranges[usize::from(range.0)];
        // One that is owed to another leader stays for that one.
        if r.leader != Some(to) {
            return;
        }
        let Some(answer) = r.answer.take() else { return };
        let (epoch, generation, matched) = (r.epoch, r.generation, r.matched);
        let kept = r.promised == Some(epoch) && !self.settings.planted.acks_after_promise();
        if r.lead.is_some() || kept {
            return;
        }
        match answer {
            Answer::Nack => Message::Nack { range, epoch, generation, matched }.write(out),
            Answer::Ack => {
                let part = r.part.as_ref().filter(|part| part.of.0 == matched + 1);
                let part_bytes = part.map_or(0, crate::state::Assembly::bytes);
                let whole = r.copy == dkv_protocol::peer::CopyState::Whole;
                let applied = r.commit;
                Message::Ack { range, epoch, generation, matched, applied, part_bytes, whole }
                    .write(out);
            }
        }
    }

    /// R4: the beacon of all ranges when it is due, and at any time of those whose reads want to be confirmed.
    fn write_beacons(&mut self, at: usize, now_ns: u64, out: &mut Vec<u8>) {
        let peer = &mut self.peers[at];
        let all = core::mem::take(&mut peer.beacon);
        let confirm = peer.confirm.take();
        if !all && confirm.is_empty() {
            return;
        }
        self.round += 1;
        let ranges = &self.ranges;
        let of = |r: &crate::state::Range| {
            let lead = r.lead.as_deref().filter(|lead| lead.epoch == r.epoch)?;
            let follower = lead.followers.iter().find(|follower| follower.peer == at)?;
            let commit = follower.may_apply(r.commit);
            Some(BeaconOf { range: r.id, epoch: lead.epoch, commit })
        };
        if all {
            write_beacon(out, self.round, now_ns, ranges.iter().filter_map(of));
        } else {
            let some = confirm.iter().map(|range| &ranges[usize::from(range.0)]);
            write_beacon(out, self.round, now_ns, some.filter_map(of));
        }
    }

    /// What copies of ranges are to hold, as far as there is room.
    fn write_streams(
        &mut self,
        at: usize,
        now_ns: u64,
        out: &mut Vec<u8>,
        room: Room,
        store: &mut dyn Store,
    ) {
        let start = self.peers[at].stream_from;
        for range in self.peers[at].stream.iter_from(start) {
            if out.len() >= room.full {
                return;
            }
            // The next batch begins with the range after the one that was cut short.
            self.peers[at].stream_from = range.0.wrapping_add(1);
            match self.write_stream(at, range, now_ns, out, room, store) {
                Sent::All => self.peers[at].stream.remove(range),
                Sent::More => {}
                Sent::WindowFull => return,
            }
        }
    }

    fn write_stream(
        &mut self,
        at: usize,
        range: RangeId,
        now_ns: u64,
        out: &mut Vec<u8>,
        room: Room,
        store: &mut dyn Store,
    ) -> Sent {
        let settings = &self.settings;
        let r = &mut self.ranges[usize::from(range.0)];
        let Some(lead) = r.lead.as_deref_mut().filter(|lead| lead.epoch == r.epoch) else {
            return Sent::All;
        };
        let Some(follower) = lead.followers.iter_mut().find(|follower| follower.peer == at) else {
            return Sent::All;
        };
        let total = &mut self.peers[at].under_way;
        let window = settings.window_bytes as u64;
        let mut sent = Sent::All;
        if let Some(resync) = follower.resync.as_deref_mut() {
            if !resync.started {
                if resync.start_sent_ns.is_none() {
                    resync.start_sent_ns = Some(now_ns);
                    let (session, base_index) = (resync.session, resync.base_index);
                    let (base_epoch, formed) = (resync.base_epoch, r.formed);
                    let epoch = lead.epoch;
                    Message::Start { range, epoch, session, base_index, base_epoch, formed }
                        .write(out);
                }
                return Sent::All;
            }
            if room.fills && resync.wants_walk() && self.walks_left > 0 {
                self.walks_left -= 1;
                resync.walk(range, r.log.end(), settings, store);
            }
            let before = resync.under_way();
            let has_window = |resync: &Resync| *total + resync.under_way() - before < window;
            while room.fills && has_window(resync) && out.len() < room.full {
                if !resync.send(range, lead.epoch, out) {
                    break;
                }
            }
            self.filled.full_bytes += resync.under_way() - before;
            // What was walked and found no room has nobody else to remember it: nothing of it is under way.
            if resync.has_unsent() {
                sent = if has_window(resync) { Sent::More } else { Sent::WindowFull };
            }
            follower.recount(&r.log, total);
        }
        let commit = follower.may_apply(r.commit);
        while follower.next <= r.log.end() {
            if *total >= window {
                sent = Sent::WindowFull;
                break;
            }
            if out.len() >= room.full {
                sent = Sent::More;
                break;
            }
            let prev_index = follower.next - 1;
            let bytes_max = settings.batch_bytes_max.min(settings.slice_bytes);
            let (Some(prev_epoch), Some(run)) =
                (r.log.epoch_at(prev_index), r.log.run(follower.next, bytes_max))
            else {
                follower.hopeless = true;
                break;
            };
            let mut place = Place {
                range,
                epoch: lead.epoch,
                entry_epoch: prev_epoch,
                prev_index,
                prev_epoch,
                commit,
            };
            match run {
                Run::Small { epoch, count, bytes } => {
                    place.entry_epoch = epoch;
                    let entries = Entries::new(count, bytes);
                    Message::Prepare { place, entries }.write(out);
                    if follower.standing == Standing::Learner {
                        self.filled.log_bytes += bytes.len() as u64;
                    }
                    follower.next += u64::from(count);
                    follower.under_way += bytes.len() as u64;
                    *total += bytes.len() as u64;
                }
                Run::Large { epoch, head, body } => {
                    place.entry_epoch = epoch;
                    let total_bytes = (head.len() + body.len()) as u64;
                    let offset = follower.next_part;
                    let rest = match head.get(offset as usize..) {
                        Some(rest) if !rest.is_empty() => rest,
                        _ => &body[offset as usize - head.len()..],
                    };
                    let bytes = &rest[..rest.len().min(settings.slice_bytes)];
                    let head_bytes = head.len() as u32;
                    let part = Part { head_bytes, total_bytes, offset, bytes };
                    Message::PreparePart { place, part }.write(out);
                    if follower.standing == Standing::Learner {
                        self.filled.log_bytes += bytes.len() as u64;
                    }
                    follower.next_part += bytes.len() as u64;
                    if follower.next_part == total_bytes {
                        follower.next += 1;
                        follower.next_part = 0;
                    }
                    follower.recount(&r.log, total);
                }
            }
            follower.due = false;
            follower.told = commit;
        }
        if follower.due && !follower.hopeless && sent == Sent::All {
            follower.due = false;
            follower.told = commit;
            let prev_index = follower.next - 1;
            if let Some(prev_epoch) = r.log.epoch_at(prev_index) {
                let (epoch, entry_epoch) = (lead.epoch, prev_epoch);
                let place = Place { range, epoch, entry_epoch, prev_index, prev_epoch, commit };
                Message::Prepare { place, entries: Entries::new(0, &[]) }.write(out);
            }
        }
        let walking = follower.resync.as_ref().is_some_and(|resync| resync.wants_walk());
        if walking && sent == Sent::All { Sent::More } else { sent }
    }
}

impl Peer {
    /// Whether there may be something to send.
    fn has_work(&self) -> bool {
        self.beacon
            || !self.out.is_empty()
            || [
                self.fence,
                self.here,
                self.loaded,
                self.probe,
                self.answer,
                self.confirm,
                self.stream,
            ]
            .iter()
            .any(|set| !set.is_empty())
    }
}
