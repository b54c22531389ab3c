//! Numbers with a fraction as Redis counts with them: 64 bits of mantissa and 15 of exponent, the `long double` of x86, so
//! that INCRBYFLOAT gives the same digits on every machine.
//!
//! Reading is exact and rounds once, as C's `strtold` does; so is writing, with 17 digits behind the point at most. Long
//! numbers are lists of 32-bit words, the lowest first; a text has at most a few thousand digits.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Longest text that is read as a number (Redis' own).
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// The exponent of the lowest bit of the greatest number, and of the least one.
const EXPONENT_MAX: i32 = 16383 - 63;
const EXPONENT_MIN: i32 = -16382 - 63;
/// So many bits are to spare in a sum that what is cut off the smaller number need only be known not to be nothing.
const SPARE: u32 = 62;
/// Digits behind the point that are written.
const DIGITS: u32 = 17;

/// A number: `mantissa * 2^exponent`. The highest bit of the mantissa is set, unless the exponent is the least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Finite(Extended),
    Infinite,
}

/// Reads what C and Redis together take for a number: decimal or hexadecimal, with or without an exponent, or infinity.
pub(super) fn parse(text: &[u8]) -> Option<Number> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if [&b"inf"[..], b"infinity"].iter().any(|word| rest.eq_ignore_ascii_case(word)) {
        return Some(Number::Infinite);
    }
    let (base, mark, written) = match rest {
        [b'0', b'x' | b'X', rest @ ..] => (2, b'p', rest),
        _ => (10, b'e', rest),
    };
    let (digits, exponent) = parts(written, if base == 2 { 16 } else { 10 }, mark)?;
    if digits.is_empty() {
        let zero = Extended { negative, mantissa: 0, exponent: EXPONENT_MIN };
        return Some(Number::Finite(zero));
    }
    // Far beyond what there is, and before anything is multiplied out.
    if exponent.abs() > 40_000 {
        return None;
    }
    let exponent = exponent as i32;
    let (mantissa, exponent) = if base == 2 {
        (digits, exponent)
    } else if exponent >= 0 {
        let mut whole = digits;
        multiply_by_power(&mut whole, 10, exponent as u32);
        (whole, 0)
    } else {
        divide(&digits, -exponent as u32)
    };
    round(negative, &mantissa, exponent).map(Number::Finite)
}

/// The digits as a whole number, and the power of ten or two that it is to be multiplied by.
fn parts(text: &[u8], radix: u32, mark: u8) -> Option<(Vec<u32>, i64)> {
    let mut whole = Vec::new();
    let (mut seen, mut behind, mut point) = (0, 0i64, false);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == b'.' && !point {
            point = true;
        } else if let Some(digit) = char::from(*byte).to_digit(radix) {
            multiply_and_add(&mut whole, radix, digit);
            seen += 1;
            behind += i64::from(point);
        } else {
            break;
        }
        at += 1;
    }
    if seen == 0 {
        return None;
    }
    let mut exponent = -behind * if radix == 16 { 4 } else { 1 };
    if let Some(byte) = text.get(at) {
        if !byte.eq_ignore_ascii_case(&mark) {
            return None;
        }
        exponent += exponent_of(&text[at + 1..])?;
    }
    Some((whole, exponent))
}

fn exponent_of(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let fold = |n: i64, digit: &u8| (n * 10 + i64::from(digit - b'0')).min(1_000_000);
    let exponent = digits.iter().fold(0, fold);
    Some(if negative { -exponent } else { exponent })
}

fn multiply_and_add(number: &mut Vec<u32>, by: u32, add: u32) {
    let mut carry = u64::from(add);
    for word in number.iter_mut() {
        carry += u64::from(*word) * u64::from(by);
        *word = carry as u32;
        carry >>= 32;
    }
    if carry > 0 {
        number.push(carry as u32);
    }
}

fn multiply_by_power(number: &mut Vec<u32>, by: u32, mut power: u32) {
    // As much at a time as a word holds.
    while power > 0 {
        let step = power.min(9);
        multiply_and_add(number, by.pow(step), 0);
        power -= step;
    }
}

/// The bits of a number, without those above its highest one.
fn bits(number: &[u32]) -> u32 {
    match number.iter().rposition(|word| *word != 0) {
        Some(at) => at as u32 * 32 + 32 - number[at].leading_zeros(),
        None => 0,
    }
}

fn shifted_left(number: &[u32], by: u32) -> Vec<u32> {
    let mut result = vec![0; (by / 32) as usize];
    let mut carry = 0u64;
    for word in number {
        carry |= u64::from(*word) << (by % 32);
        result.push(carry as u32);
        carry >>= 32;
    }
    result.push(carry as u32);
    result
}

fn compare(a: &[u32], b: &[u32]) -> Ordering {
    let at = |number: &[u32], i: usize| number.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .rev()
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn subtract(a: &mut [u32], b: &[u32]) {
    let mut borrow = 0i64;
    for (i, word) in a.iter_mut().enumerate() {
        let difference = i64::from(*word) - i64::from(b.get(i).copied().unwrap_or(0)) + borrow;
        *word = difference as u32;
        borrow = difference >> 32;
    }
}

/// `number / 10^power` to more bits than a mantissa has; the lowest bit says whether anything was left over.
fn divide(number: &[u32], power: u32) -> (Vec<u32>, i32) {
    let mut divisor = vec![1];
    multiply_by_power(&mut divisor, 10, power);
    let (have, want) = (bits(number), bits(&divisor) + 68);
    let shift = want.saturating_sub(have);
    let mut rest = shifted_left(number, shift);
    // Bit by bit: the quotient has about 68, unless the number is far longer than the divisor.
    let top = bits(&rest) - bits(&divisor);
    let mut quotient = vec![0u32; top as usize / 32 + 2];
    let mut part = shifted_left(&divisor, top);
    for bit in (0..=top).rev() {
        if compare(&rest, &part).is_ge() {
            subtract(&mut rest, &part);
            quotient[bit as usize / 32] |= 1 << (bit % 32);
        }
        halve(&mut part);
    }
    quotient = shifted_left(&quotient, 1);
    quotient[0] |= u32::from(rest.iter().any(|word| *word != 0));
    (quotient, -(shift as i32) - 1)
}

fn halve(number: &mut [u32]) {
    let mut carry = 0;
    for word in number.iter_mut().rev() {
        let next = *word << 31;
        *word = *word >> 1 | carry;
        carry = next;
    }
}

/// The nearest number that there is, the even one of two. None when it is too great, or vanishes.
fn round(negative: bool, number: &[u32], exponent: i32) -> Option<Extended> {
    let have = bits(number) as i32;
    // So many bits at the end are more than the mantissa has.
    let cut = (have - 64).max(EXPONENT_MIN - exponent);
    let bit =
        |i: i32| i >= 0 && number.get(i as usize / 32).is_some_and(|w| w >> (i % 32) & 1 == 1);
    let mut mantissa = 0u64;
    for i in (cut.max(0)..have).rev() {
        mantissa = mantissa << 1 | u64::from(bit(i));
    }
    let mut exponent = exponent;
    if cut > 0 {
        exponent += cut;
        let half = bit(cut - 1);
        let more = (0..cut - 1).any(bit);
        if half && (more || mantissa & 1 == 1) {
            mantissa = mantissa.wrapping_add(1);
            if mantissa == 0 {
                (mantissa, exponent) = (1 << 63, exponent + 1);
            }
        }
    } else {
        let room = mantissa.leading_zeros().min((exponent - EXPONENT_MIN) as u32);
        (mantissa, exponent) = (mantissa << room, exponent - room as i32);
    }
    (mantissa != 0 && exponent <= EXPONENT_MAX).then_some(Extended { negative, mantissa, exponent })
}

impl Extended {
    const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The sum; none when it is too great.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        if self.is_zero() || other.is_zero() {
            let other_counts = self.is_zero();
            return Some(if other_counts { other } else { self });
        }
        let size = |n: Self| (n.exponent, n.mantissa);
        let (great, small) = if size(self) >= size(other) { (self, other) } else { (other, self) };
        let apart = (great.exponent - small.exponent) as u32;
        let high = u128::from(great.mantissa) << SPARE;
        let low = u128::from(small.mantissa) << SPARE;
        let low = match apart {
            0..=127 => low >> apart | u128::from(low & ((1 << apart) - 1) != 0),
            _ => 1,
        };
        let sum = if great.negative == small.negative { high + low } else { high - low };
        if sum == 0 {
            return Some(Self { negative: false, mantissa: 0, exponent: EXPONENT_MIN });
        }
        let words: Vec<u32> = (0..4).map(|i| (sum >> (32 * i)) as u32).collect();
        round(great.negative, &words, great.exponent - SPARE as i32)
    }

    /// Its digits, with as many behind the point as are needed, at most 17.
    pub(super) fn format(self) -> Vec<u8> {
        let below = self.exponent.min(0).unsigned_abs();
        let mut whole = match below {
            0 => shifted_left(
                &[self.mantissa as u32, (self.mantissa >> 32) as u32],
                self.exponent as u32,
            ),
            1..=63 => {
                let whole = self.mantissa >> below;
                vec![whole as u32, (whole >> 32) as u32]
            }
            _ => vec![0],
        };
        let one = 10u128.pow(DIGITS);
        let mut fraction = match below {
            1..=127 => {
                let part =
                    if below < 64 { self.mantissa & ((1 << below) - 1) } else { self.mantissa };
                let scaled = u128::from(part) * one;
                let (quotient, rest) = (scaled >> below, scaled & ((1 << below) - 1));
                let half = 1u128 << (below - 1);
                quotient + u128::from(rest > half || rest == half && quotient & 1 == 1)
            }
            _ => 0,
        };
        if fraction == one {
            fraction = 0;
            multiply_and_add(&mut whole, 1, 1);
        }
        let mut text = Vec::new();
        while bits(&whole) > 0 {
            text.push(b'0' + divide_by_ten(&mut whole));
        }
        if text.is_empty() {
            text.push(b'0');
        }
        if self.negative && (fraction > 0 || text != b"0") {
            text.push(b'-');
        }
        text.reverse();
        if fraction > 0 {
            text.push(b'.');
            let mut digits = one / 10;
            while fraction > 0 {
                text.push(b'0' + (fraction / digits) as u8);
                (fraction, digits) = (fraction % digits, digits / 10);
            }
        }
        text
    }
}

/// Divides and says what is left.
fn divide_by_ten(number: &mut Vec<u32>) -> u8 {
    let mut rest = 0u64;
    for word in number.iter_mut().rev() {
        rest = rest << 32 | u64::from(*word);
        *word = (rest / 10) as u32;
        rest %= 10;
    }
    while number.last() == Some(&0) {
        number.pop();
    }
    rest as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    fn sum(a: &str, b: &str) -> String {
        let read = |text: &str| match parse(text.as_bytes()) {
            Some(Number::Finite(number)) => number,
            other => panic!("{text}: {other:?}"),
        };
        match read(a).add(read(b)) {
            Some(sum) => String::from_utf8(sum.format()).expect("digits"),
            None => "too great".into(),
        }
    }

    #[test]
    fn sums_have_the_digits_of_a_long_double() {
        // As redis-server 7.0.15 on x86-64 has them.
        for (a, b, wanted) in [
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("3", "1.000000000000000005", "4.00000000000000001"),
            ("-5", "5", "0"),
            ("1", "-1.5", "-0.5"),
            ("0x10", "0x1p-1", "16.5"),
            (".5", "5.", "5.5"),
            ("1e-20", "0", "0"),
            ("-1e-20", "0", "0"),
            ("1e20", "1", "100000000000000000000"),
            ("1e19", "1", "10000000000000000001"),
            ("+7", "-0", "7"),
            ("17179869184", "0.000000001", "17179869184.00000000186264515"),
            ("1e4932", "1e4932", "too great"),
        ] {
            assert_eq!(sum(a, b), wanted, "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_read() {
        for text in [
            "", " 1", "1 ", "1e", "e5", ".", "-", "+", "1e+", "0x", "0xg", "nan", "1,5", "1..2",
            "--1", "1e99999", "1e-99999", "1e5000", "1e-5000", "infinit",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"1\0"), None);
        assert_eq!(parse(b"-Infinity"), Some(Number::Infinite));
        assert_eq!(parse(&[b'1'; 6000]), None);
    }

    #[test]
    fn whole_numbers_and_halves_are_exact() {
        for n in [0i64, 1, -1, 12, 4711, -99_999, i64::MAX, i64::MIN, 1 << 62] {
            assert_eq!(sum(&format!("{n}"), "0"), format!("{n}"));
        }
        assert_eq!(sum("1.25", "2.5"), "3.75");
        assert_eq!(sum("9.99999999999999999", "0.00000000000000001"), "10");
    }
}
