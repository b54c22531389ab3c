//! The sweep: takes back the memory of expired keys, and empties sparse pages of the slab.
//!
//! It walks all segments in the order of the hash. A segment, and a bucket in it, is looked into only when its hint says
//! that an expiry may have come: the hints cost no memory per key, and a sweep over a table where nothing is due reads
//! four bytes a segment. A sweep begins at most every [`PAUSE_MS`], on large tables less often, so that sweeping for ever
//! stays near one hundredth of a core.
//!
//! What expired in a range that the table does not lead stays, invisible, until the one that leads it says that it is gone.
//! When it comes to lead it, the hints may be as old as they like: the next sweep then takes all of that range as due.
//!
//! Bound of the lag: an expired key is removed by the first sweep that begins after its expiry. So it is late by at most
//! the pause and the time that two sweeps take; how long a sweep takes is the caller's budget.

use crate::growth::MERGE_LOW;
use crate::ranges::Flags;
use crate::segment::{BUCKETS, HOMES, Spot, home_of, start_of_home};
use crate::table::Table;
use crate::{Expired, RANGES, tick};

/// The least time from the start of a sweep to the start of the next, in milliseconds.
const PAUSE_MS: u64 = 100;
/// Segments for which the time from start to start grows by a millisecond. A segment that is looked into costs about
/// 100 ns beside its expired keys, one that is not a tenth of it.
const SEGMENTS_PER_PAUSE_MS: u64 = 128;

/// Where the sweep is.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    running: bool,
    /// Whether every hint counts as due, because they were left alone for so long that they may be mistaken.
    all_due: bool,
    /// Whether records are moved out of sparse pages.
    moves: bool,
    /// When the last sweep began, if any did.
    started_ms: Option<u64>,
    /// When the hints were last known to be fresh, if ever.
    fresh_ms: Option<u64>,
    range: usize,
    hash: u64,
    /// What is due in the range at which it is.
    due: Due,
}

/// Which hints count as due in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    /// None: another table removes what expires.
    Nothing,
    #[default]
    Whose,
    All,
}

impl Due {
    const fn is(self, now_ms: u64, hint: u16) -> bool {
        match self {
            Self::Nothing => false,
            Self::Whose => tick::due(now_ms, hint),
            Self::All => hint != tick::NONE,
        }
    }
}

impl Table {
    /// One slice of the sweep that removes expired keys. It looks at about `budget` buckets, one segment of 16 at least.
    ///
    /// To be called at every turn or timer; it returns at once when no sweep is due. A key is removed by the first sweep
    /// that begins after its expiry; sweeps begin every 100 ms, on tables of more than a million keys about every 60 ms
    /// for each million.
    pub fn expire_due(&mut self, now_ms: u64, budget: u32) -> Expired {
        let mut expired = Expired::default();
        if !self.sweep.running && !self.begin_sweep(now_ms) {
            return expired;
        }
        let mut left = i64::from(budget.max(1));
        while left > 0 {
            let (range, hash) = (self.sweep.range, self.sweep.hash);
            if range == RANGES {
                self.sweep.running = false;
                self.sweep.fresh_ms = self.sweep.started_ms;
                return expired;
            }
            if hash == 0 {
                self.sweep.due = self.due_in(range);
            }
            let idle = self.sweep.due == Due::Nothing && !self.sweep.moves;
            let Some(named) = self.ranges[range].find(hash).filter(|_| !idle) else {
                (self.sweep.range, self.sweep.hash) = (range + 1, 0);
                continue;
            };
            let about = self.segments.about(named.segment);
            left -= 1;
            if self.sweep.due.is(now_ms, about.tick) || self.sweep.moves {
                left -= BUCKETS as i64 - 1;
                left -= self.sweep_segment(now_ms, range, named.segment, named.depth, &mut expired);
            }
            (self.sweep.range, self.sweep.hash) = match start_of_home(hash, named.depth, HOMES) {
                Some(next) => (range, next),
                None => (range + 1, 0),
            };
            // Last, because merging may close the range. The position stays right: it is one in the hash.
            if self.segments.about(named.segment).len <= MERGE_LOW {
                self.merge(now_ms, range, hash);
            }
        }
        expired.more = true;
        expired
    }

    /// What is due in a range that the sweep comes to.
    fn due_in(&mut self, range: usize) -> Due {
        let r = &mut self.ranges[range];
        if !r.leads() {
            return Due::Nothing;
        }
        let old = r.flags.any_of(Flags::HINTS_OLD);
        r.flags.set(Flags::HINTS_OLD, false);
        if old || self.sweep.all_due { Due::All } else { Due::Whose }
    }

    fn begin_sweep(&mut self, now_ms: u64) -> bool {
        let moves = self.records.is_fragmented();
        if self.len_with_expiry() == 0 {
            // There are no hints that could grow old.
            self.sweep.fresh_ms = Some(now_ms);
            if !moves {
                return false;
            }
        }
        let since = |ms: Option<u64>| ms.map_or(u64::MAX, |ms| now_ms.saturating_sub(ms));
        if since(self.sweep.started_ms)
            < PAUSE_MS.max(self.segments.in_use() / SEGMENTS_PER_PAUSE_MS)
        {
            return false;
        }
        self.sweep = Sweep {
            running: true,
            all_due: since(self.sweep.fresh_ms) > tick::STALE_MS,
            moves,
            started_ms: Some(now_ms),
            fresh_ms: self.sweep.fresh_ms,
            range: 0,
            hash: 0,
            due: Due::default(),
        };
        true
    }

    /// Removes what expired in a segment and writes its hints anew. Returns the records touched.
    fn sweep_segment(
        &mut self,
        now_ms: u64,
        range: usize,
        segment: u32,
        depth: u32,
        expired: &mut Expired,
    ) -> i64 {
        let mut touched = 0;
        let mut earliest = tick::NONE;
        let whole = self.sweep.due;
        for bucket in 0..BUCKETS {
            let hint = self.segments.get(segment)[bucket].tick();
            let due = whole.is(now_ms, hint);
            if !due && !self.sweep.moves {
                earliest = tick::earlier(earliest, hint);
                continue;
            }
            let mut fresh = tick::NONE;
            for lane in self.segments.get(segment)[bucket].lanes() {
                let held = &self.segments.get(segment)[bucket];
                let (reference, print) = (held.reference(lane), held.print(lane));
                if due {
                    touched += 1;
                    let view = self.records.view(reference);
                    if !view.live(now_ms) {
                        let hash = self.hash.of(view.key);
                        let late = now_ms - view.entry.expires_at_ms.unwrap_or(now_ms);
                        let slot = Self::slot_of(range, print, hash);
                        self.take_out(
                            range,
                            home_of(hash, depth),
                            slot,
                            Spot { segment, bucket, lane },
                        );
                        expired.removed += 1;
                        expired.lag_ms = expired.lag_ms.max(late);
                        expired.late_ms += late;
                        continue;
                    }
                    fresh = tick::earlier(fresh, tick::of(now_ms, view.entry.expires_at_ms));
                }
                if self.sweep.moves
                    && let Some(new) = self.records.move_if_sparse(&mut *self.memory, reference)
                {
                    touched += 1;
                    self.segments.get_mut(segment)[bucket].set_reference(lane, new);
                }
            }
            let fresh = if due { fresh } else { hint };
            self.segments.get_mut(segment)[bucket].set_tick(fresh);
            earliest = tick::earlier(earliest, fresh);
        }
        self.segments.about_mut(segment).tick = earliest;
        touched
    }
}
