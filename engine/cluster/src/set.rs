//! A set of ranges. Ordered, of fixed size, so that marking a range a thousand times costs no memory.

use dkv_protocol::ids::RangeId;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSet([u64; 4]);

impl RangeSet {
    /// Puts a range in.
    #[inline]
    pub fn insert(&mut self, range: RangeId) {
        self.0[usize::from(range.0 >> 6)] |= 1 << (range.0 & 63);
    }

    #[inline]
    pub(crate) fn remove(&mut self, range: RangeId) {
        self.0[usize::from(range.0 >> 6)] &= !(1 << (range.0 & 63));
    }

    /// Whether no range is in it.
    pub const fn is_empty(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// All that is in either.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    /// All that is not in the other.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= !other);
    }

    pub(crate) fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = RangeId> {
        self.0.into_iter().zip(0u8..).flat_map(|(word, at)| {
            let mut left = word;
            core::iter::from_fn(move || {
                let bit = left.trailing_zeros() as u8;
                left &= left.wrapping_sub(1);
                (bit < 64).then(|| RangeId(at * 64 + bit))
            })
        })
    }

    /// In order from `start` on, and around.
    pub(crate) fn iter_from(self, start: u8) -> impl Iterator<Item = RangeId> {
        let behind = self.iter().filter(move |range| range.0 >= start);
        behind.chain(self.iter().filter(move |range| range.0 < start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_set_gives_back_in_order_what_was_put_in() {
        let mut set = RangeSet::default();
        for range in [255, 0, 64, 63, 64, 200] {
            set.insert(RangeId(range));
        }
        set.remove(RangeId(200));
        let all = |set: RangeSet| set.iter().map(|range| range.0).collect::<Vec<_>>();
        assert_eq!(all(set), [0, 63, 64, 255]);
        assert_eq!(set.iter_from(64).map(|range| range.0).collect::<Vec<_>>(), [64, 255, 0, 63]);
        let mut other = RangeSet::default();
        for range in [0, 7, 255] {
            other.insert(RangeId(range));
        }
        let mut left = set;
        left.subtract(other);
        assert_eq!(all(left), [63, 64]);
        left.add(other);
        assert_eq!(all(left), [0, 7, 63, 64, 255]);
        assert_eq!(all(set.take()), [0, 63, 64, 255]);
        assert!(set.is_empty());
    }
}
