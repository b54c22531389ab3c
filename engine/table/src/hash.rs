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
