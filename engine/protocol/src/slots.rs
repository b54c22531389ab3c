//! Keys to slots, exactly as Redis Cluster does it.

use crate::ids::Slot;
use crate::limits::SLOTS;

/// CRC16-CCITT (XModem): polynomial 0x1021, initial value 0, as the Redis Cluster specification fixes it. Row `n` is what
/// a byte does to the sum when `n` bytes follow it, so that eight bytes take one step instead of eight that wait for each
/// other.
static CRC16: [[u16; 256]; STRIDE] = crc16_tables();

/// Bytes of a step.
const STRIDE: usize = 8;

const fn crc16_tables() -> [[u16; 256]; STRIDE] {
    let mut tables = [[0u16; 256]; STRIDE];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut row = 0;
        while row < STRIDE {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            tables[row][i] = crc;
            row += 1;
        }
        i += 1;
    }
    tables
}

/// CRC16 of `bytes`.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let (steps, rest) = bytes.as_chunks::<STRIDE>();
    let mut crc = 0u16;
    for &[a, b, c, d, e, f, g, h] in steps {
        let [high, low] = crc.to_be_bytes();
        let row = |n: usize, byte: u8| CRC16[n][byte as usize];
        crc = row(7, a ^ high) ^ row(6, b ^ low) ^ row(5, c) ^ row(4, d);
        crc ^= row(3, e) ^ row(2, f) ^ row(1, g) ^ row(0, h);
    }
    rest.iter().fold(crc, |crc, &b| (crc << 8) ^ CRC16[0][((crc >> 8) as u8 ^ b) as usize])
}

/// Whether there is a `{`, eight bytes at a time: keys without a hash tag are the most.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = key.as_chunks::<8>();
    words.iter().any(|word| {
        // A byte is zero where it was the brace; then, and only then, subtracting one borrows into its empty top bit.
        let x = u64::from_ne_bytes(*word) ^ (ONES * b'{' as u64);
        x.wrapping_sub(ONES) & !x & (ONES << 7) != 0
    }) || rest.contains(&b'{')
}

/// The slot of a key: of what stands between the first `{` and the next `}` when that is not empty, else of all of it.
#[inline]
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hash_tag(key)) % SLOTS)
}

/// The part of the key that is hashed.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    if !has_brace(key) {
        return key;
    }
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&b| b == b'}') {
        Some(len) if len > 0 => &rest[..len],
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_make_the_sum_that_single_bytes_make() {
        let key: [u8; 100] = core::array::from_fn(|i| (i * i * 7 + i) as u8);
        for len in 0..key.len() {
            let byte_by_byte = key[..len].iter().fold(0u16, |crc, &b| {
                (0..8).fold(crc ^ u16::from(b) << 8, |crc, _| {
                    if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
                })
            });
            assert_eq!(crc16(&key[..len]), byte_by_byte, "{len}");
        }
    }

    #[test]
    fn a_hash_tag_is_found_wherever_it_begins() {
        for len in 0..40 {
            for at in 0..len {
                let mut key = alloc::vec![b'z'; len];
                key[at] = b'{';
                assert!(has_brace(&key), "{at} of {len}");
                key[at] = b'|';
                assert!(!has_brace(&key), "{at} of {len}");
            }
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("", 0), ("{user1000}.following", 3443)]
        {
            assert_eq!(slot_of(key.as_bytes()), Slot(slot), "{key}");
        }
        assert_eq!(slot_of(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % SLOTS));
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
    }
}
