//! Fixed-length bytes as hexadecimal digits, as the launch and admin documents carry seeds, secrets and digests.

use alloc::string::String;

/// The `N` bytes that exactly `2 * N` hexadecimal digits stand for, of either case.
pub fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower-case digits of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let half = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    bytes.iter().flat_map(|b| [half(b >> 4), half(b & 15)]).collect()
}

/// The value of one digit.
pub(crate) fn digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes_round_trip() {
        assert_eq!(decode::<3>("00fFa7"), Some([0x00, 0xff, 0xa7]));
        assert_eq!(encode(&[0x00, 0xff, 0xa7]), "00ffa7");
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn wrong_lengths_and_digits_are_refused() {
        for bad in ["", "00f", "00ff0", "00ff000", "00fg00", "é0ff0", "+0ff00"] {
            assert_eq!(decode::<3>(bad), None, "{bad}");
        }
    }
}
