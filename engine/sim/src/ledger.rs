//! What must never be contradicted: the effects that some copy held for committed, and the writes that were answered.
//!
//! Two effects at one position of a range mean that two copies went apart; an answered write above the end of the final
//! primary's copy means that it was lost. Both are seen here even when no client could see them any more.

use dkv_protocol::ids::RangeId;
use std::collections::{BTreeMap, BTreeSet};

/// The account of all ranges.
#[derive(Debug, Default)]
pub struct Ledger {
    committed: BTreeMap<(RangeId, u64), u64>,
    acknowledged: BTreeMap<RangeId, u64>,
    renewed: BTreeSet<RangeId>,
}

impl Ledger {
    /// A copy holds an effect for committed. Says so when another one was at its position.
    pub fn committed(&mut self, range: RangeId, index: u64, stamp: u64) -> Result<(), String> {
        let first = *self.committed.entry((range, index)).or_insert(stamp);
        if first == stamp || self.renewed.contains(&range) {
            return Ok(());
        }
        Err(format!("range {}: two effects were committed at position {index}", range.0))
    }

    /// A write was answered.
    pub fn acknowledged(&mut self, range: RangeId, index: u64) {
        let last = self.acknowledged.entry(range).or_default();
        *last = (*last).max(index);
    }

    /// The range begins anew. From then on a position may have had another effect in its former life.
    pub fn forget(&mut self, range: RangeId) {
        self.renewed.insert(range);
        self.acknowledged.remove(&range);
    }

    /// Whether the final primary's copy goes as far as the last write that was answered.
    pub fn check_end(&self, range: RangeId, index: u64) -> Result<(), String> {
        let last = self.acknowledged.get(&range).copied().unwrap_or(0);
        if index >= last {
            return Ok(());
        }
        Err(format!("range {}: answered up to {last}, the final primary is at {index}", range.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_seen() {
        let mut ledger = Ledger::default();
        let (a, b) = (RangeId(1), RangeId(2));
        assert_eq!(ledger.committed(a, 5, 77), Ok(()));
        assert_eq!(ledger.committed(a, 5, 77), Ok(()));
        assert_eq!(ledger.committed(b, 5, 78), Ok(()));
        assert!(ledger.committed(a, 5, 78).is_err());
        ledger.acknowledged(a, 9);
        ledger.acknowledged(a, 7);
        assert!(ledger.check_end(a, 8).is_err());
        assert_eq!((ledger.check_end(a, 9), ledger.check_end(b, 0)), (Ok(()), Ok(())));
        ledger.forget(a);
        assert_eq!(ledger.check_end(a, 0), Ok(()));
        assert_eq!(ledger.committed(a, 5, 79), Ok(()));
    }
}
