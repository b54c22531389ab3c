//! How long values are and what is in them. Pure.

use super::random::Random;

/// How long the values are that a load writes, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSizes {
    /// All alike.
    Fixed(usize),
    /// Evenly from the first to the second, both included.
    Range(usize, usize),
    /// These sizes, each as often as its weight.
    Histogram(Vec<(usize, u64)>),
}

impl ValueSizes {
    /// The longest.
    pub fn max(&self) -> usize {
        match self {
            ValueSizes::Fixed(size) | ValueSizes::Range(_, size) => *size,
            ValueSizes::Histogram(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }
}

/// Bytes that repeat after so many; no server here compresses, so it need not be long.
const BLOCK_BYTES: usize = 64 * 1024;

/// Draws values.
#[derive(Debug)]
pub(super) struct Values {
    sizes: ValueSizes,
    /// Of a histogram: sums of the weights so far.
    sums: Vec<u64>,
    block: Vec<u8>,
}

impl Values {
    pub(super) fn new(sizes: ValueSizes) -> Self {
        let mut random = Random::new(1);
        let letter = |_| b'a' + random.below(26) as u8;
        let block = (0..BLOCK_BYTES.min(sizes.max())).map(letter).collect();
        let mut sums = Vec::new();
        if let ValueSizes::Histogram(sizes) = &sizes {
            let mut sum = 0_u64;
            sums.extend(sizes.iter().map(|(_, weight)| {
                sum = sum.saturating_add(*weight);
                sum
            }));
        }
        Self { sizes, sums, block }
    }

    /// Length of the next value.
    pub(super) fn size(&self, random: &mut Random) -> usize {
        match &self.sizes {
            ValueSizes::Fixed(size) => *size,
            ValueSizes::Range(least, most) => {
                least + random.below((most - least) as u64 + 1) as usize
            }
            ValueSizes::Histogram(sizes) => {
                let drawn = random.below(self.sums.last().copied().unwrap_or(1));
                sizes[self.sums.partition_point(|sum| *sum <= drawn)].0
            }
        }
    }

    /// Appends a value of that length.
    pub(super) fn append(&self, mut size: usize, out: &mut Vec<u8>) {
        while size > 0 {
            let piece = size.min(self.block.len());
            out.extend_from_slice(&self.block[..piece]);
            size -= piece;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sizes: ValueSizes) -> std::collections::BTreeMap<usize, u32> {
        let (values, mut random) = (Values::new(sizes), Random::new(5));
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            *seen.entry(values.size(&mut random)).or_default() += 1;
        }
        seen
    }

    #[test]
    fn sizes_are_as_frequent_as_asked_for() {
        assert_eq!(drawn(ValueSizes::Fixed(7)).into_iter().collect::<Vec<_>>(), [(7, 10_000)]);
        let range = drawn(ValueSizes::Range(3, 6));
        assert_eq!(range.keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!(range.values().all(|count| (2300..2700).contains(count)), "{range:?}");
        let histogram = drawn(ValueSizes::Histogram(vec![(10, 90), (100, 0), (1000, 10)]));
        assert_eq!(histogram.keys().copied().collect::<Vec<_>>(), [10, 1000]);
        assert!((8800..9200).contains(&histogram[&10]), "{histogram:?}");
    }

    #[test]
    fn a_value_is_as_long_as_said_also_beyond_the_block() {
        for size in [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 1] {
            let mut out = Vec::new();
            Values::new(ValueSizes::Fixed(size)).append(size, &mut out);
            assert_eq!(out.len(), size);
        }
    }
}
