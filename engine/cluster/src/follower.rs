//! What a primary knows of one other copy: how it stands, what it holds, what is under way to it, the lease it granted.
//! Arithmetic only; who it is sent to and when is decided elsewhere.

use crate::Settings;
use crate::log::Log;
use crate::resync::Resync;
use alloc::boxed::Box;
use dkv_protocol::ranges::Rid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It catches up.
    Learner,
    /// Its expand was sent: it is required from now on, confirmed or not (R2).
    Pending,
    /// The configuration names it.
    Member,
}

/// What writes need stands first, see [`crate::state::Range`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Follower {
    pub(crate) peer: usize,
    /// The entry that is sent next, and how much of it went in parts.
    pub(crate) next: u64,
    pub(crate) next_part: u64,
    /// What it certainly holds, and how much of the entry after it has come in parts.
    pub(crate) acked: u64,
    pub(crate) acked_part: u64,
    /// Bytes between the two.
    pub(crate) under_way: u64,
    pub(crate) resync: Option<Box<Resync>>,
    pub(crate) standing: Standing,
    /// It could lead.
    pub(crate) whole: bool,
    /// A message is due even without entries.
    pub(crate) due: bool,
    /// It has acknowledged in this epoch all that it was known to hold.
    pub(crate) joined: bool,
    /// It can not be served from the log, or stands in the way of all: it must go.
    pub(crate) hopeless: bool,
    /// Only with a planted bug: its shrink was sent, and it counts no more.
    pub(crate) left_early: bool,
    pub(crate) rid: Rid,
    /// The last index that its table has.
    pub(crate) applied: u64,
    /// The highest commit index that was sent.
    pub(crate) told: u64,
    /// Until when it grants (R4), and the last beacon it echoed.
    pub(crate) lease_ns: u64,
    pub(crate) echoed: u64,
    /// When it last got on, when it was added, and when it was last sent to from the start.
    pub(crate) progress_ns: u64,
    pub(crate) added_ns: u64,
    pub(crate) rewound_ns: u64,
}

impl Follower {
    pub(crate) fn new(rid: Rid, peer: usize, standing: Standing, acked: u64, now_ns: u64) -> Self {
        Self {
            rid,
            peer,
            standing,
            next: acked + 1,
            next_part: 0,
            acked,
            acked_part: 0,
            under_way: 0,
            applied: 0,
            progress_ns: now_ns,
            added_ns: now_ns,
            rewound_ns: 0,
            lease_ns: 0,
            echoed: 0,
            whole: false,
            told: 0,
            due: true,
            joined: false,
            hopeless: false,
            left_early: false,
            resync: None,
        }
    }

    /// Whether nothing commits and nothing is read without it (R2).
    pub(crate) const fn counts(&self, settings: &Settings) -> bool {
        match self.standing {
            Standing::Learner => false,
            Standing::Pending => !settings.planted.expands_when_confirmed(),
            Standing::Member => !self.left_early,
        }
    }

    /// Whether the configuration names it, or will.
    pub(crate) fn is_required(&self) -> bool {
        self.standing != Standing::Learner
    }

    /// Whether something was sent that it has not acknowledged.
    pub(crate) const fn waits(&self) -> bool {
        self.next > self.acked + 1 || self.next_part > 0
    }

    /// Whether it must go: it cannot be served, or it grants leases and takes nothing of what is sent again and again
    /// (R11). Who has only now been sent to again, as after a pause of this process, may yet answer.
    pub(crate) const fn is_of_no_help(&self, now_ns: u64, settings: &Settings) -> bool {
        let patience_ns = settings.lease_ns + settings.lease_ns / 2;
        self.hopeless
            || self.waits()
                && now_ns >= self.progress_ns + patience_ns
                && now_ns >= self.rewound_ns + settings.retry_ns / 2
    }

    /// Whether entries can be sent to it: not before a resync has begun there.
    pub(crate) fn streams(&self) -> bool {
        self.resync.as_ref().is_none_or(|resync| resync.started)
    }

    /// Up to where it may apply: records that are still to come must not meet effects that are younger than they.
    pub(crate) fn may_apply(&self, commit: u64) -> u64 {
        self.resync.as_ref().map_or(commit, |resync| resync.may_apply(commit))
    }

    /// Goes on after what it certainly holds.
    pub(crate) const fn rewind(&mut self, now_ns: u64) {
        self.next = self.acked + 1;
        self.next_part = 0;
        self.acked_part = 0;
        self.rewound_ns = now_ns;
        self.due = true;
    }

    /// Counts anew what is under way to it; `total` is that of its peer.
    pub(crate) fn recount(&mut self, log: &Log, total: &mut u64) {
        let (sent, held) = if self.next == self.acked + 1 {
            (self.next_part, self.acked_part)
        } else {
            let sent = log.bytes_to(self.next - 1) + self.next_part;
            (sent, log.bytes_to(self.acked) + self.acked_part)
        };
        let queued = self.resync.as_ref().map_or(0, |resync| resync.under_way());
        let under_way = sent.saturating_sub(held) + queued;
        *total = (*total + under_way).saturating_sub(self.under_way);
        self.under_way = under_way;
    }
}
