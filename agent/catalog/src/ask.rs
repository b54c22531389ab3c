//! What a copy may have changed: the compare-and-set rules of one range.
//!
//! Only a member, in the epoch that is, through the process that is registered, changes anything; and only `Expand` by
//! the primary lets a copy in. A copy that is no member may have it noted that it never will be.

use crate::command::{Outcome, Refusal};
use crate::store::Store;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::ranges::{Change, ConfigAsk, RangeState, Rid};

impl Store {
    /// Grants an ask or says why not.
    pub(crate) fn ask(&mut self, ask: &ConfigAsk) -> Outcome {
        match self.granted(ask) {
            Ok(()) => Outcome::Done,
            Err(None) => Outcome::Nothing,
            Err(Some(refusal)) => Outcome::Refused(refusal),
        }
    }

    fn granted(&mut self, ask: &ConfigAsk) -> Result<(), Option<Refusal>> {
        let caller = ask.caller;
        self.present(caller)?;
        let enters = if let Change::Expand { add } = ask.change { Some(add) } else { None };
        let entering_is_present = enters.map_or(Ok(()), |add| self.present(add));
        let range = &mut self.ranges[usize::from(ask.range.0)];
        let config = range.config.clone().ok_or(Refusal::NotFormed)?;
        if ask.change == Change::Discarded {
            return if range.leave(caller) { Ok(()) } else { Err(None) };
        }
        if ask.epoch != config.epoch {
            return Err(Some(Refusal::Stale(config.epoch)));
        }
        if config.state == RangeState::Offline {
            return Err(Some(Refusal::Offline));
        }
        if ask.change == Change::Leave {
            if config.member_at(caller.addr).is_some() {
                return Err(Some(Refusal::AlreadyMember));
            }
            if range.placement.contains(&caller.addr) {
                return Err(Some(Refusal::Placed));
            }
            return if range.leave_for_good(caller) { Ok(()) } else { Err(None) };
        }
        if !config.has(caller) {
            return Err(Some(Refusal::NotMember));
        }
        let leads = config.primary == caller;
        match ask.change {
            Change::Take if leads => return Err(Some(Refusal::Primary)),
            Change::Take => {
                let old = config.primary;
                range.take_over(config, caller, &[old]);
            }
            _ if !leads => return Err(Some(Refusal::NotPrimary)),
            Change::Shrink { remove } => {
                check_other_member(remove, caller, config.has(remove))?;
                let mut config = config;
                config.in_sync.retain(|member| *member != remove);
                range.set(config);
            }
            Change::Expand { add } => {
                entering_is_present?;
                if config.in_sync.iter().any(|member| member.addr.node == add.addr.node) {
                    return Err(Some(Refusal::AlreadyMember));
                }
                if !range.may_enter(add) {
                    return Err(Some(Refusal::Left));
                }
                // It was asked for under an earlier placement. Let in now, it would be in the way of the one that is wished for.
                let wished = range.placement.iter().find(|addr| addr.node == add.addr.node);
                if wished.is_some_and(|addr| *addr != add.addr) {
                    return Err(Some(Refusal::PlacedElsewhere));
                }
                range.enter(config, add);
            }
            Change::Transfer { to } => {
                // To the primary itself it is an epoch that changes nothing: what it asked for before is void thereby.
                if to != caller {
                    check_other_member(to, caller, config.has(to))?;
                }
                range.take_over(config, to, &[]);
            }
            // Handled above: these are not for members.
            Change::Discarded | Change::Leave => {}
        }
        Ok(())
    }

    /// Whether the process behind an identity is the registered one of its node.
    fn present(&self, rid: Rid) -> Result<(), Refusal> {
        if !self.has_shard(rid.addr) {
            return Err(Refusal::NoSuchNode);
        }
        let registered = self.nodes.get(&rid.addr.node).and_then(|node| node.boot);
        if registered == Some(rid.boot) { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// Whether there is such a shard.
    pub(crate) fn has_shard(&self, addr: ShardAddr) -> bool {
        self.nodes.get(&addr.node).is_some_and(|node| addr.shard.0 < node.shards)
    }
}

fn check_other_member(rid: Rid, caller: Rid, is_member: bool) -> Result<(), Refusal> {
    if rid == caller {
        return Err(Refusal::Primary);
    }
    if is_member { Ok(()) } else { Err(Refusal::NotMember) }
}
