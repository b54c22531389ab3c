//! What a shard knows of one range, and the changes of it that need nothing else: entering an epoch, taking over what was
//! matched, applying what is committed, forgetting a copy. Knows no peers and sends nothing.

use crate::log::{Account, Log};
use crate::{Effect, Lost, Settings, Store};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::ids::{BootId, Epoch, RangeId, ShardAddr};
use dkv_protocol::peer::{CopyState, Part};
use dkv_protocol::ranges::{Change, Placement, RangeConfig, RangeState, Rid};

use crate::lead::Lead;

/// What a copy owes its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ack,
    Nack,
}

/// A great effect or record that comes in parts.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// What it will be: the index of an entry, or the number of the next slice, and the epoch or version.
    pub(crate) of: (u64, u64),
    total: u64,
    head_bytes: usize,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Assembly {
    /// The whole as it begins with this part.
    pub(crate) const fn new(of: (u64, u64), part: &Part<'_>) -> Self {
        Self {
            of,
            total: part.total_bytes,
            head_bytes: part.head_bytes as usize,
            head: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) const fn bytes(&self) -> u64 {
        (self.head.len() + self.body.len()) as u64
    }

    /// Whether this is the part that comes next.
    pub(crate) const fn fits(&self, part: &Part<'_>) -> bool {
        part.offset == self.bytes()
            && part.total_bytes == self.total
            && part.head_bytes as usize == self.head_bytes
    }

    /// Takes a part that fits; the head and body once they are complete.
    pub(crate) fn add(&mut self, part: &Part<'_>) -> Option<(Vec<u8>, Bytes)> {
        let of_head = (self.head_bytes - self.head.len()).min(part.bytes.len());
        self.head.extend_from_slice(&part.bytes[..of_head]);
        self.body.extend_from_slice(&part.bytes[of_head..]);
        (self.bytes() == self.total).then(|| {
            (core::mem::take(&mut self.head), Bytes::from(core::mem::take(&mut self.body)))
        })
    }
}

/// A resync that comes in here.
#[derive(Debug)]
pub(crate) struct Load {
    /// Of which process, and its number there.
    pub(crate) boot: BootId,
    pub(crate) session: u64,
    /// The slice that must come next.
    pub(crate) next: u32,
    /// After the last slice: the copy is whole once it has applied this index.
    pub(crate) end_index: Option<u64>,
    pub(crate) assembly: Option<Assembly>,
}

/// The ask that was sent last, and when to send it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) change: Change,
    pub(crate) caller: Rid,
    pub(crate) epoch: Epoch,
    pub(crate) again_ns: u64,
}

/// Writes go to all ranges in turn, so that what a write, its sending and its acknowledgement touch of a range has left the
/// nearest caches by the next one: therefore it stands first, in as few cache lines as hold it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Range {
    pub(crate) lead: Option<Box<Lead>>,
    /// The highest epoch that was heard of.
    pub(crate) epoch: Epoch,
    /// Every index up to here is committed. At a copy that does not lead, the table has exactly these.
    pub(crate) commit: u64,
    pub(crate) log: Log,
    pub(crate) id: RangeId,
    /// Whether changes that are made here are appended.
    pub(crate) journal: bool,
    pub(crate) copy: CopyState,
    pub(crate) answer: Option<Answer>,
    /// The copy here.
    pub(crate) generation: u32,
    /// How many entries of others were applied here, in whatever life of the range.
    pub(crate) applied: u64,
    /// The highest commit index that a primary told.
    pub(crate) told: u64,
    /// Up to here the log is certainly that of the leader.
    pub(crate) matched: u64,
    /// Who leads in `epoch`.
    pub(crate) leader: Option<ShardAddr>,
    /// In this epoch nothing is acknowledged any more (R6).
    pub(crate) promised: Option<Epoch>,
    pub(crate) part: Option<Assembly>,
    pub(crate) load: Option<Load>,
    /// When a beacon came last, or the epoch was entered.
    pub(crate) last_beacon_ns: u64,
    /// When a beacon came last, in whatever epoch.
    pub(crate) beacon_came_ns: u64,
    /// Since when `epoch` was heard of.
    pub(crate) entered_ns: u64,
    /// The newest configuration that was told; its epoch may be lower.
    pub(crate) config: Option<RangeConfig>,
    pub(crate) placement: Placement,
    pub(crate) placement_version: u64,
    /// The epoch in which the range was formed whose history this is. Positions alone do not tell one life of a range
    /// from another.
    pub(crate) formed: Epoch,
    /// A copy that was here and is named though it is gone.
    pub(crate) stale: Option<Rid>,
    pub(crate) asked: Option<Asked>,
}

impl Range {
    pub(crate) const fn new(id: RangeId) -> Self {
        Self {
            id,
            epoch: Epoch(0),
            entered_ns: 0,
            config: None,
            placement: Vec::new(),
            placement_version: 0,
            generation: 0,
            copy: CopyState::Blank,
            formed: Epoch(0),
            log: Log::new(),
            commit: 0,
            applied: 0,
            told: 0,
            leader: None,
            matched: 0,
            last_beacon_ns: 0,
            beacon_came_ns: 0,
            promised: None,
            load: None,
            part: None,
            answer: None,
            stale: None,
            asked: None,
            journal: false,
            lead: None,
        }
    }

    /// Whether this copy is one of those that count, as far as was told.
    pub(crate) fn is_member(&self, me: Rid) -> bool {
        self.config.as_ref().is_some_and(|config| config.has(me))
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.state == RangeState::Offline)
    }

    /// R5. Nothing of the log is dropped: what does not fit is replaced when the replacement is in hand (R7).
    pub(crate) fn enter(
        &mut self,
        now_ns: u64,
        epoch: Epoch,
        leader: Option<ShardAddr>,
        settings: &Settings,
        account: &mut Account,
    ) {
        self.epoch = epoch;
        self.entered_ns = now_ns;
        self.leader = leader;
        self.matched = self.commit;
        self.part = None;
        self.answer = None;
        self.last_beacon_ns = self.last_beacon_ns.max(now_ns);
        if settings.planted.truncates_on_epoch() && self.lead.is_none() {
            self.log.truncate_after(self.commit, account);
        }
    }

    /// Applies what is known to be committed and certainly held, and looks whether a resync is complete. False: what is
    /// held does not fit the copy, which is to be given up.
    #[must_use]
    pub(crate) fn advance(&mut self, now_ms: u64, store: &mut dyn Store) -> bool {
        let to = self.told.min(self.matched);
        if !self.apply_to(to, now_ms, store) {
            return false;
        }
        if self.copy == CopyState::Loading
            && let Some(end) = self.load.as_ref().and_then(|load| load.end_index)
            && self.commit >= end
            && self.told >= end
        {
            self.copy = CopyState::Whole;
            store.set_index(self.id, self.commit);
            self.answer = self.answer.or(Some(Answer::Ack));
        }
        true
    }

    /// False: something does not fit; what comes before it was applied.
    #[must_use]
    pub(crate) fn apply_to(&mut self, to: u64, now_ms: u64, store: &mut dyn Store) -> bool {
        while self.commit < to {
            let index = self.commit + 1;
            let Some(effect) = self.log.get(index) else { break };
            let filling = self.copy == CopyState::Loading;
            if !store.apply(now_ms, self.id, index, effect, filling) {
                return false;
            }
            self.commit = index;
            self.applied += 1;
        }
        true
    }

    /// Becomes another copy (R8).
    pub(crate) const fn rename(&mut self, settings: &Settings) {
        if !settings.planted.keeps_generation_on_discard() {
            self.generation += 1;
        }
    }

    /// Becomes a copy above all of these generations.
    pub(crate) const fn outlive(&mut self, generation: u32, settings: &Settings) {
        if self.generation <= generation && !settings.planted.keeps_generation_on_discard() {
            self.generation = generation + 1;
        }
    }

    /// Forgets what is here and becomes another copy (R8). A blank one has nothing to forget.
    pub(crate) fn discard(
        &mut self,
        settings: &Settings,
        account: &mut Account,
        store: &mut dyn Store,
    ) {
        if self.copy == CopyState::Blank {
            return;
        }
        self.rename(settings);
        self.copy = CopyState::Blank;
        self.begin_at(0, Epoch(0), account);
        self.load = None;
        store.clear(self.id);
    }

    /// The log is empty after this entry, and everything up to it is committed.
    pub(crate) fn begin_at(&mut self, index: u64, epoch: Epoch, account: &mut Account) {
        self.log.reset(index, epoch, account);
        self.commit = index;
        self.told = index;
        self.matched = index;
        self.part = None;
        self.answer = None;
    }

    /// Takes one entry into the log, after what is there.
    pub(crate) fn hold(
        &mut self,
        epoch: Epoch,
        effect: Effect<'_>,
        delta_ms: i64,
        account: &mut Account,
        store: &dyn Store,
    ) {
        let head = self.log.push(epoch, effect, account);
        if delta_ms != 0 {
            store.rebase(head, delta_ms);
        }
    }

    pub(crate) fn lost(&self) -> Lost {
        Lost { range: self.id, committed: self.commit }
    }
}
