//! How the copies stand, for people and clients: who has copies of what, how far they are behind.

use crate::command::{Args, Now, Spec};
use crate::commands::checksum::{self, Standing};
use crate::session::Session;
use crate::shard::Shard;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use dkv_cluster::{RangeView, Role};
use dkv_protocol::ids::{RangeId, ShardAddr};
use dkv_protocol::limits::{RANGES, SLOTS_PER_RANGE};

/// How far the looks at the gauges lie apart, in nanoseconds.
const GAUGES_NS: u64 = 500_000_000;
/// A copy that has heard nothing of its primary for longer is not read, in nanoseconds.
const STALE_NS_MAX: u64 = 1_000_000_000;

/// Consecutive slots with the same copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) owner: u16,
    /// Whether somebody serves it.
    pub(crate) served: bool,
    /// Who holds copies in sync besides the owner.
    pub(crate) copies: Vec<u16>,
}

impl Shard {
    /// What there is to know of a range; none in a store without copies.
    pub fn range_view(&self, range: RangeId) -> Option<RangeView> {
        self.copies.as_ref().map(|copies| copies.cluster.view(range))
    }

    /// A slice of the sum over the records that this shard holds of a range, whether it leads it or not: about `budget` bytes
    /// from `cursor` on, 0 at first. Where to go on, 0 at the end. Copies that are equal have the same sum.
    pub fn sum_range(&self, range: RangeId, cursor: u64, budget: usize, sum: &mut u128) -> u64 {
        self.table.checksum(u16::from(range.0), cursor, budget, sum)
    }

    /// Runs of slots with their owner and the shards to read copies from, ascending, without holes. In a cluster as clients
    /// know it a server is a master or a replica, and they mistake one that is named as both; so a shard that leads
    /// anything is no replica there, whatever it has copies of.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for range in (0..RANGES).map(|range| RangeId(range as u8)) {
            let owner = self.links.owner_of_range(range);
            let (mut copies, mut offline) = (Vec::new(), false);
            if let Some(own) = &self.copies {
                let known = &own.known[usize::from(range.0)];
                let others = known.in_sync.iter().filter_map(|addr| self.links.number(*addr));
                copies =
                    others.filter(|number| *number != owner && !self.links.owns(*number)).collect();
                copies.sort_unstable();
                offline = known.offline;
            }
            let served = self.links.is_up(owner) && !offline;
            let first = u16::from(range.0) * SLOTS_PER_RANGE;
            let last = first + (SLOTS_PER_RANGE - 1);
            match runs.last_mut() {
                Some(run) if (run.owner, run.served, &run.copies) == (owner, served, &copies) => {
                    run.last = last;
                }
                _ => runs.push(Run { first, last, owner, served, copies }),
            }
        }
        runs
    }

    /// The epoch of a range.
    pub(crate) fn epoch_of(&self, range: RangeId) -> u64 {
        self.copies.as_ref().map_or_else(
            || self.env.map.epoch(range).0,
            |copies| copies.known[usize::from(range.0)].epoch,
        )
    }

    /// How far the log of some slots is at a shard, as far as this one knows.
    pub(crate) fn offset_of(&self, slots: &[(u16, u16)], shard: u16) -> u64 {
        let Some(copies) = &self.copies else { return 0 };
        let addr = self.links.addr(shard);
        let ranges = slots.iter().flat_map(|(first, last)| {
            (first / SLOTS_PER_RANGE..=last / SLOTS_PER_RANGE).map(|range| RangeId(range as u8))
        });
        ranges.map(|range| held_by(&copies.cluster.view(range), addr, self.me)).sum()
    }

    /// Whether a command may read the copy here, though another shard leads: the client has said so, and the copy hears of
    /// what is written.
    pub(crate) fn reads_copy(&self, session: &Session, spec: &Spec, range: RangeId) -> bool {
        session.readonly
            && !spec.write
            && self.copies.as_ref().is_some_and(|copies| {
                copies.cluster.role(range) == Role::Replica
                    && self.now.boot_ns.saturating_sub(copies.cluster.heard_ns(range))
                        < STALE_NS_MAX
            })
    }

    /// DKV.CHECKSUM, which counts for pace as a step of a walk.
    pub(crate) fn checksum(&mut self, args: Args<'_>, out: &mut Vec<u8>) {
        self.pace.walked();
        let standing = |range: RangeId| match &self.copies {
            Some(copies) => Standing {
                role: copies.cluster.role(range),
                in_sync: copies.known[usize::from(range.0)].in_sync.len(),
            },
            None if self.links.owner_of_range(range) == self.links.me() => {
                Standing { role: Role::Primary, in_sync: 1 }
            }
            None => Standing { role: Role::None, in_sync: 1 },
        };
        checksum::checksum(&self.table, standing, args, out);
    }

    /// Sets the gauges, now and then.
    pub(crate) fn gauge_copies(&mut self, now: Now) {
        let Some(copies) = self.copies.as_deref_mut() else { return };
        if now.boot_ns < copies.next_gauges_ns {
            return;
        }
        copies.next_gauges_ns = now.boot_ns + GAUGES_NS;
        let (mut led, mut copied, mut degraded, mut lag) = (0, 0, 0, 0);
        let mut holders: BTreeMap<ShardAddr, (u64, u64)> = BTreeMap::new();
        for range in (0..RANGES).map(|range| RangeId(range as u8)) {
            match copies.cluster.role(range) {
                Role::None => {}
                Role::Replica => copied += 1,
                Role::Primary => {
                    led += 1;
                    let view = copies.cluster.view(range);
                    degraded += u64::from(view.degraded);
                    for copy in view.copies.iter().filter(|copy| copy.in_sync) {
                        let holder = holders.entry(copy.rid.addr).or_default();
                        holder.0 += copy.lag;
                        holder.1 = holder.1.max(copy.lease_ns);
                        lag = lag.max(copy.lag);
                    }
                }
            }
        }
        self.stats.ranges_led.set(led);
        self.stats.ranges_copied.set(copied);
        self.stats.ranges_degraded.set(degraded);
        self.stats.replication_lag.set(lag);
        self.stats.commit_oldest_ms.set(copies.lag.oldest_ns(now.boot_ns) / 1_000_000);
        self.stats.copies.set(holders.len() as u64);
        self.stats.replicated.set(copies.appended + copies.cluster.applied());
        let lease_ns = copies.cluster.lease_ns();
        let mut holders = holders.into_iter();
        for shown in &self.stats.followers {
            let Some((addr, (behind, granted_ns))) = holders.next() else {
                shown.set(None, 0, 0);
                continue;
            };
            let node = self.map.node(addr.node);
            let port = node.shard_ports.get(usize::from(addr.shard.0)).copied();
            let silent_ns = (now.boot_ns + lease_ns).saturating_sub(granted_ns);
            shown.set(Some((node.address, port.unwrap_or(0))), behind, silent_ns / 1_000_000);
        }
        let filled = copies.cluster.filled();
        self.stats.resyncs_full.set(filled.full);
        self.stats.resyncs_partial.set(filled.partial);
        self.stats.resyncs_unfit.set(filled.unfit);
        self.stats.resync_bytes_full.set(filled.full_bytes);
        self.stats.resync_bytes_log.set(filled.log_bytes);
        self.stats.copies_let_go_late.set(filled.let_go_late);
    }
}

/// How far a copy of a range is.
fn held_by(view: &RangeView, addr: ShardAddr, me: ShardAddr) -> u64 {
    if addr == me {
        return view.last;
    }
    if view.primary == Some(addr) {
        // A copy knows of its leader what that has told.
        return view.last.max(view.told);
    }
    let copy = view.copies.iter().find(|copy| copy.rid.addr == addr);
    copy.map_or(0, |copy| view.last.saturating_sub(copy.lag))
}
