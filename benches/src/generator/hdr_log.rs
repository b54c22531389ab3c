//! Latencies as an HdrHistogram log, for the plotters and viewers of that format (version 1.3; histograms in its second
//! encoding). Pure.

use super::outcome::Outcome;
use super::tally::Latencies;
use std::fmt::Write;
use std::time::Duration;

/// Compressed, and inside of it the histogram itself: the second encoding, with counts as variable-length numbers.
const COOKIE_COMPRESSED: u32 = 0x1c84_9314;
const COOKIE: u32 = 0x1c84_9313;
/// Longest piece of a zlib stream that is stored as it is.
const STORED_BYTES_MAX: usize = 65_535;

/// The log of a run that began at `began` after 1970: one line for reads and one for writes, in nanoseconds.
pub fn hdr_log(outcome: &Outcome, began: Duration) -> String {
    let began_s = began.as_secs_f64();
    let mut log = format!(
        "#[Logged with dkv bench]\n#[Histogram log format version 1.3]\n\
         #[StartTime: {began_s:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    );
    for (tag, side) in [("read", &outcome.reads), ("write", &outcome.writes)] {
        let latency = &side.latency;
        if !latency.is_empty() {
            let (length, longest) = (outcome.measured.as_secs_f64(), latency.max() as f64 / 1e6);
            let line = base64(&compressed(latency));
            // Writing to a string cannot fail. The maximum is in milliseconds by the format's own convention.
            let _ = writeln!(log, "Tag={tag},0.000,{length:.3},{longest:.3},{line}");
        }
    }
    log
}

/// A histogram as the format wants it in a log.
fn compressed(latencies: &Latencies) -> Vec<u8> {
    let stream = zlib_stored(&encoded(latencies));
    let mut out = COOKIE_COMPRESSED.to_be_bytes().to_vec();
    out.extend_from_slice(&(stream.len() as u32).to_be_bytes());
    out.extend_from_slice(&stream);
    out
}

fn encoded(latencies: &Latencies) -> Vec<u8> {
    let mut counts = Vec::new();
    let mut zeros = 0_i64;
    for step in latencies.iter_all() {
        match step.count_at_value() {
            0 => zeros += 1,
            count => {
                if zeros > 0 {
                    push_number(-zeros, &mut counts);
                    zeros = 0;
                }
                push_number(count as i64, &mut counts);
            }
        }
    }
    let mut out = COOKIE.to_be_bytes().to_vec();
    out.extend_from_slice(&(counts.len() as u32).to_be_bytes());
    // No offset of values.
    out.extend_from_slice(&0_u32.to_be_bytes());
    out.extend_from_slice(&u32::from(latencies.sigfig()).to_be_bytes());
    out.extend_from_slice(&latencies.low().to_be_bytes());
    out.extend_from_slice(&latencies.high().to_be_bytes());
    out.extend_from_slice(&1_f64.to_be_bytes());
    out.extend_from_slice(&counts);
    out
}

/// Zigzag, then seven bits a byte, the lowest first; the ninth byte has eight.
fn push_number(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            out.push(rest as u8);
            return;
        }
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A zlib stream that compresses nothing: runs of zeros are one number already, and no library is needed.
fn zlib_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let pieces = bytes.len().div_ceil(STORED_BYTES_MAX);
    for (number, piece) in bytes.chunks(STORED_BYTES_MAX).enumerate() {
        let length = piece.len() as u16;
        out.push(u8::from(number + 1 == pieces));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    out.extend_from_slice(&(high << 16 | low).to_be_bytes());
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            out.push(if place > three.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_the_standard_has_it() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, text) in cases {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn numbers_are_zigzag_and_seven_bits_a_byte() {
        let cases: [(i64, &[u8]); 5] =
            [(0, &[0]), (-1, &[1]), (1, &[2]), (64, &[0x80, 1]), (-2000, &[0x9f, 0x1f])];
        for (number, bytes) in cases {
            let mut out = Vec::new();
            push_number(number, &mut out);
            assert_eq!(out, bytes, "{number}");
        }
        let mut out = Vec::new();
        push_number(i64::MIN, &mut out);
        assert_eq!(out, [0xff; 9]);
    }

    #[test]
    fn a_stored_stream_has_its_lengths_and_its_sum() {
        let stream = zlib_stored(b"Wikipedia");
        assert_eq!(stream[..7], [0x78, 1, 1, 9, 0, 0xf6, 0xff]);
        assert_eq!(stream[16..], 0x11e6_0398_u32.to_be_bytes());
        let long = zlib_stored(&vec![0; STORED_BYTES_MAX + 1]);
        assert_eq!((long[2], long[7 + STORED_BYTES_MAX]), (0, 1));
    }
}
