//! The keyed hash of keys.
//!
//! rapidhash v3 (micro, protected), with its seed *and* all its secrets drawn from the store's 128 secret bits: with
//! public secrets keys can be crafted that collide under every seed. It was taken over foldhash and ahash because its
//! output is fixed by its version: equal on every platform and build, which positions of SCAN cursors need, where those
//! two promise the opposite. SipHash would resist even somebody who measures, at about three times the cost; here an
//! attacker sees the order of SCAN at most.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

/// A hash function, chosen by the secret.
pub(crate) struct KeyHash(RapidSecrets);

impl KeyHash {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        // Two generators, one per half of the seed, so that every secret word depends on all 128 bits.
        let (a, b) = (RapidSecrets::seed(seed[0]), RapidSecrets::seed(seed[1].rotate_left(32)));
        let mut secrets = a.secrets;
        for (word, other) in secrets.iter_mut().zip(b.secrets) {
            // Odd, so that no secret is zero and no factor vanishes.
            *word = (*word ^ other.rotate_left(29)) | 1;
        }
        Self(RapidSecrets { seed: a.seed ^ b.seed.rotate_left(17), secrets })
    }

    #[inline]
    pub(crate) fn of(&self, key: &[u8]) -> u64 {
        rapidhash_v3_micro_inline::<true, true>(key, &self.0)
    }
}

/// Two functions that are the same in every process, for sums that compare copies: 128 bits that no accident meets.
static SUMS: [RapidSecrets; 2] = [RapidSecrets::seed(0x5eed), RapidSecrets::seed(0xfeed)];

/// What a record counts in the sum of its range.
pub(crate) fn sum_of(key: &[u8], value: &[u8], version: u64, has_expiry: bool) -> u128 {
    let [high, low] = SUMS.each_ref().map(|secrets| {
        let of = |bytes: &[u8]| rapidhash_v3_micro_inline::<true, true>(bytes, secrets);
        let mut words = [0; 32];
        let numbers = [of(key), of(value), version, u64::from(has_expiry)];
        for (word, number) in words.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *word = number.to_le_bytes();
        }
        of(&words)
    });
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Eviction, Expiry, HeapMemory, Options, Table};
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    fn table(seed: [u64; 2]) -> Table {
        let options =
            Options { seed, memory_bytes_max: 0, eviction: Eviction::None, first_version: 1 };
        Table::new(options, Box::new(HeapMemory))
    }

    /// Depth of the directory when these keys are put into one slot.
    fn depth_with(seed: [u64; 2], keys: &[[u8; 16]]) -> u32 {
        let mut table = table(seed);
        for key in keys {
            let place = table.place(key, 0);
            table.set(0, place, key, b"", Expiry::Clear).expect("there is no limit");
        }
        table.ranges[0].depth()
    }

    #[test]
    fn keys_crafted_for_one_bucket_of_one_seed_spread_evenly_under_another() {
        let known = [1, 2];
        // Whoever knows a seed finds such keys by trying: all in one of 4096 parts of the range.
        let hash = KeyHash::new(known);
        let crafted: Vec<[u8; 16]> = (0..4_000_000u128)
            .map(u128::to_le_bytes)
            .filter(|key| hash.of(key) >> 52 == 0)
            .take(900)
            .collect();
        assert!(crafted.len() > 800);
        assert!(depth_with(known, &crafted) >= 14, "under their seed they all collide");
        for seed in [[1, 3], [2, 1], [0, 0], [u64::MAX, 7], [1 << 63 | 1, 2]] {
            assert!(depth_with(seed, &crafted) <= 5, "seed {seed:?} is not told apart");
            let other = KeyHash::new(seed);
            let mut counts = [0u32; 16];
            for key in &crafted {
                counts[(other.of(key) >> 60) as usize] += 1;
            }
            let mean = crafted.len() as u32 / 16;
            assert!(counts.iter().all(|n| (mean / 2..mean * 2).contains(n)), "{counts:?}");
        }
    }

    #[test]
    fn tables_with_different_seeds_disagree_about_every_place() {
        let (one, same, other) = (table([1, 2]), table([1, 2]), table([1, 1 << 40]));
        for key in (0..1000u32).map(u32::to_le_bytes) {
            assert_eq!(one.place(&key, 5), same.place(&key, 5));
            assert_ne!(one.place(&key, 5), other.place(&key, 5));
        }
    }
}
