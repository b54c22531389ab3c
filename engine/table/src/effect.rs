//! The encoding of effects: what a write did to the table, for a log that copies of a range are fed from.
//!
//! Little endian, and fixed: logs of processes of other builds are read.
//! - Put: 1, place of the slot, deadline (8), length of the key (4), key, value
//! - Expire: 2, place of the slot, deadline (8), key
//! - Append: 3, place of the slot, length before (8), length of the key (4), key, tail
//! - Delete: 4, place of the slot, key
//! - Clear: 5, 0
//! - Unit: 6, 0, difference of clocks (8), then each effect that it holds, none of them a unit, behind its length (4)
//! - Patch: 7, place of the slot, length before (8; all ones: there is no such key yet), offset (8), length of the key (4),
//!   key, bytes. What lies between the length before and the offset is zero.
//!
//! The place of the slot is that of the key's slot in its range, a byte, so that nobody has to work out the slot again. A
//! deadline is CLOCK_BOOTTIME of the machine that holds the effect, in milliseconds, 0 for none; it stands where
//! [`convert_deadline`] finds it without reading the rest. Deadlines inside of a unit stay as they were on the machine that
//! made it: the difference, in milliseconds and signed, is what has to be added to them.

use crate::{Large, SLOTS_PER_RANGE};
use alloc::vec::Vec;
use core::ops::Range;

const PUT: u8 = 1;
const EXPIRE: u8 = 2;
const APPEND: u8 = 3;
const DELETE: u8 = 4;
const CLEAR: u8 = 5;
const UNIT: u8 = 6;
const PATCH: u8 = 7;

/// What stands for the length before in a patch that makes its key.
const NO_LENGTH: u64 = u64::MAX;

const DEADLINE: Range<usize> = 2..10;

/// An effect in its encoding: all of it in `head`, or all but the bytes at its end, which are `value` then. `head` followed
/// by `value` is the encoding in either case.
#[derive(Clone, Copy, Debug)]
pub struct Effect<'a> {
    /// The encoding, up to `value` if there is one.
    pub head: &'a [u8],
    /// The value of a put, the tail of an append or the bytes of a patch, when it is long enough to be worth a handle.
    pub value: Option<&'a Large>,
}

impl<'a> Effect<'a> {
    /// An effect whose encoding is in one piece.
    pub const fn bytes(all: &'a [u8]) -> Self {
        Self { head: all, value: None }
    }
}

/// Moves the deadline of an effect, if it has one, by the difference between the clocks of two machines. The head of an
/// effect does as well as all of it.
pub fn convert_deadline(effect: &mut [u8], delta_ms: i64) {
    if effect.first() == Some(&UNIT)
        && let Some(place) = effect.get_mut(DEADLINE)
        && let Ok(bytes) = <[u8; 8]>::try_from(&*place)
    {
        let difference = i64::from_le_bytes(bytes).saturating_add(delta_ms);
        place.copy_from_slice(&difference.to_le_bytes());
        return;
    }
    if matches!(effect.first(), Some(&(PUT | EXPIRE)))
        && let Some(place) = effect.get_mut(DEADLINE)
        && let Ok(bytes) = <[u8; 8]>::try_from(&*place)
        && let deadline @ 1.. = u64::from_le_bytes(bytes)
    {
        // Not to 0, which would be none at all.
        let moved = deadline.saturating_add_signed(delta_ms).max(1);
        place.copy_from_slice(&moved.to_le_bytes());
    }
}

/// Writes what stands before the effects of a unit.
pub(crate) fn begin_unit(out: &mut Vec<u8>) {
    start(out, UNIT, 0);
    out.extend_from_slice(&0i64.to_le_bytes());
}

/// Writes an effect of a unit, which is in two pieces.
pub(crate) fn unit_part(out: &mut Vec<u8>, head: &[u8], value: &[u8]) {
    out.extend_from_slice(&((head.len() + value.len()) as u32).to_le_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(value);
}

/// The effects of a unit.
pub(crate) struct Parts<'a> {
    rest: &'a [u8],
    range: u16,
    delta_ms: i64,
}

impl<'a> Iterator for Parts<'a> {
    /// None is no effect.
    type Item = Option<Said<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let part = take_key(&mut self.rest);
        if part.is_none() {
            self.rest = &[];
        }
        Some(part.and_then(|part| Effect::bytes(part).read(self.range)?.moved(self.delta_ms)))
    }
}

/// What an effect says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Put { slot: u16, expires_at_ms: Option<u64>, key: &'a [u8], value: &'a [u8] },
    Expire { slot: u16, expires_at_ms: Option<u64>, key: &'a [u8] },
    Append { slot: u16, before: u64, key: &'a [u8], tail: &'a [u8] },
    Patch { slot: u16, before: Option<u64>, offset: u64, key: &'a [u8], bytes: &'a [u8] },
    Delete { slot: u16, key: &'a [u8] },
    Clear,
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

/// The key after its length; the rest is what follows it.
fn take_key<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(rest)?) as usize;
    let (key, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(key)
}

fn take_word(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn expiry(deadline: u64) -> Option<u64> {
    (deadline > 0).then_some(deadline)
}

impl<'a> Effect<'a> {
    /// The effects that it holds, when it is a unit.
    pub(crate) fn parts(self, range: u16) -> Option<Parts<'a>> {
        let (&[UNIT, 0], mut rest) = self.head.split_first_chunk()? else { return None };
        let delta_ms = i64::from_le_bytes(take(&mut rest)?);
        Some(Parts { rest: self.end(rest)?, range, delta_ms })
    }

    /// What it says about keys of this range, or `None` when it is not an effect.
    pub(crate) fn read(self, range: u16) -> Option<Said<'a>> {
        let (&[kind, place], mut rest) = self.head.split_first_chunk()?;
        if usize::from(place) >= SLOTS_PER_RANGE {
            return None;
        }
        let slot = range * SLOTS_PER_RANGE as u16 + u16::from(place);
        let rest = &mut rest;
        let said = match kind {
            PUT => {
                let (expires_at_ms, key) = (expiry(take_word(rest)?), take_key(rest)?);
                Said::Put { slot, expires_at_ms, key, value: self.end(rest)? }
            }
            APPEND => {
                let (before, key) = (take_word(rest)?, take_key(rest)?);
                Said::Append { slot, before, key, tail: self.end(rest)? }
            }
            PATCH => {
                let before = Some(take_word(rest)?).filter(|before| *before != NO_LENGTH);
                let (offset, key) = (take_word(rest)?, take_key(rest)?);
                Said::Patch { slot, before, offset, key, bytes: self.end(rest)? }
            }
            _ if self.value.is_some() => return None,
            EXPIRE => Said::Expire { slot, expires_at_ms: expiry(take_word(rest)?), key: rest },
            DELETE => Said::Delete { slot, key: rest },
            CLEAR if place == 0 && rest.is_empty() => Said::Clear,
            _ => return None,
        };
        Some(said)
    }

    /// What follows the key, wherever it is.
    fn end(self, rest: &'a [u8]) -> Option<&'a [u8]> {
        match self.value {
            None => Some(rest),
            Some(value) => rest.is_empty().then_some(value),
        }
    }
}

impl<'a> Said<'a> {
    /// The same on a machine whose clock differs by so much; none of a clearing, which no unit holds.
    fn moved(self, delta_ms: i64) -> Option<Self> {
        let moved = |at: Option<u64>| at.map(|at| at.saturating_add_signed(delta_ms).max(1));
        Some(match self {
            Self::Put { slot, expires_at_ms, key, value } => {
                Self::Put { slot, expires_at_ms: moved(expires_at_ms), key, value }
            }
            Self::Expire { slot, expires_at_ms, key } => {
                Self::Expire { slot, expires_at_ms: moved(expires_at_ms), key }
            }
            Self::Clear => return None,
            other => other,
        })
    }

    /// Its slot and key, unless it is of all keys.
    pub(crate) const fn key(self) -> Option<(u16, &'a [u8])> {
        match self {
            Self::Put { slot, key, .. }
            | Self::Expire { slot, key, .. }
            | Self::Append { slot, key, .. }
            | Self::Patch { slot, key, .. }
            | Self::Delete { slot, key } => Some((slot, key)),
            Self::Clear => None,
        }
    }
}

impl Said<'_> {
    /// Writes its encoding; `value`, `tail` and `bytes` too, or nothing of them when they are empty.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Put { slot, expires_at_ms, key, value } => {
                start(out, PUT, slot);
                out.extend_from_slice(&word(expires_at_ms));
                with_length(out, key);
                out.extend_from_slice(value);
            }
            Self::Expire { slot, expires_at_ms, key } => {
                start(out, EXPIRE, slot);
                out.extend_from_slice(&word(expires_at_ms));
                out.extend_from_slice(key);
            }
            Self::Append { slot, before, key, tail } => {
                start(out, APPEND, slot);
                out.extend_from_slice(&before.to_le_bytes());
                with_length(out, key);
                out.extend_from_slice(tail);
            }
            Self::Patch { slot, before, offset, key, bytes } => {
                start(out, PATCH, slot);
                out.extend_from_slice(&before.unwrap_or(NO_LENGTH).to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                with_length(out, key);
                out.extend_from_slice(bytes);
            }
            Self::Delete { slot, key } => {
                start(out, DELETE, slot);
                out.extend_from_slice(key);
            }
            Self::Clear => start(out, CLEAR, 0),
        }
    }
}

fn start(out: &mut Vec<u8>, kind: u8, slot: u16) {
    out.extend_from_slice(&[kind, (usize::from(slot) % SLOTS_PER_RANGE) as u8]);
}

fn word(expires_at_ms: Option<u64>) -> [u8; 8] {
    // A moment of 0 is as long ago as one of 1.
    expires_at_ms.map_or(0, |at| at.max(1)).to_le_bytes()
}

fn with_length(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Option<u64> = Some(0x0102_0304_0506_0708);

    fn encoded(said: Said<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        said.write(&mut out);
        out
    }

    #[test]
    fn effects_are_written_as_they_always_were() {
        let (slot, key) = (3 * 64 + 9, &b"key"[..]);
        let cases: &[(Said<'_>, &[u8])] = &[
            (
                Said::Put { slot, expires_at_ms: AT, key, value: b"value" },
                b"\x01\x09\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0keyvalue",
            ),
            (
                Said::Put { slot, expires_at_ms: None, key, value: b"" },
                b"\x01\x09\0\0\0\0\0\0\0\0\x03\0\0\0key",
            ),
            (
                Said::Expire { slot, expires_at_ms: AT, key },
                b"\x02\x09\x08\x07\x06\x05\x04\x03\x02\x01key",
            ),
            (Said::Expire { slot, expires_at_ms: None, key }, b"\x02\x09\0\0\0\0\0\0\0\0key"),
            (
                Said::Append { slot, before: 258, key, tail: b"tail" },
                b"\x03\x09\x02\x01\0\0\0\0\0\0\x03\0\0\0keytail",
            ),
            (
                Said::Patch { slot, before: Some(258), offset: 3, key, bytes: b"new" },
                b"\x07\x09\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0keynew",
            ),
            (
                Said::Patch { slot, before: None, offset: 1, key, bytes: b"" },
                b"\x07\x09\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\x03\0\0\0key",
            ),
            (Said::Delete { slot, key }, b"\x04\x09key"),
            (Said::Delete { slot: 3 * 64, key: b"" }, b"\x04\x00"),
            (Said::Clear, b"\x05\x00"),
        ];
        for (said, bytes) in cases {
            assert_eq!(encoded(*said), *bytes);
            assert_eq!(Effect::bytes(bytes).read(3), Some(*said));
        }
    }

    #[test]
    fn what_is_not_an_effect_is_not_read_as_one() {
        let cases: &[&[u8]] = &[
            b"",
            b"\x01",
            b"\x00\x00",
            b"\x08\x00",
            b"\x07\x00",
            b"\x06\x00",
            b"\x07\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0key",
            b"\x04\x40key",
            b"\x05\x01",
            b"\x05\x00more",
            b"\x01\x00\0\0\0\0\0\0\0",
            b"\x01\x00\0\0\0\0\0\0\0\0\x04\0\0\0key",
            b"\x01\x00\0\0\0\0\0\0\0\0\xff\xff\xff\xffkey",
            b"\x02\x00\0\0\0\0\0\0\0",
            b"\x03\x00\0\0\0\0\0\0\0\0\x04\0\0",
        ];
        for bytes in cases {
            assert_eq!(Effect::bytes(bytes).read(0), None, "{bytes:?}");
        }
        let value = Large::default();
        for head in
            [&b"\x04\x00key"[..], b"\x05\x00", b"\x01\x00\0\0\0\0\0\0\0\0\x03\0\0\0keyvalue"]
        {
            assert_eq!(Effect { head, value: Some(&value) }.read(0), None, "{head:?}");
        }
    }

    fn read(unit: &[u8]) -> Option<Vec<Option<Said<'_>>>> {
        Effect::bytes(unit).parts(0).map(Iterator::collect)
    }

    #[test]
    fn a_unit_holds_effects_and_moves_their_deadlines_when_it_is_read() {
        let put = encoded(Said::Put { slot: 3, expires_at_ms: Some(1000), key: b"k", value: b"v" });
        let delete = encoded(Said::Delete { slot: 4, key: b"other" });
        let (mut unit, mut parts) = (Vec::new(), Vec::new());
        begin_unit(&mut unit);
        unit_part(&mut parts, &put[..put.len() - 1], b"v");
        unit_part(&mut parts, &delete, b"");
        unit.extend_from_slice(&parts);
        assert!(unit.starts_with(b"\x06\0\0\0\0\0\0\0\0\0\x10\0\0\0\x01\x03"));
        convert_deadline(&mut unit, 500);
        convert_deadline(&mut unit[..10], -100);
        assert_eq!(Effect::bytes(&unit).read(0), None, "it is none itself");
        let value = Large::default();
        assert!(Effect { head: &unit, value: Some(&value) }.parts(0).is_none());
        let put = Said::Put { slot: 3, expires_at_ms: Some(1400), key: b"k", value: b"v" };
        let delete = Said::Delete { slot: 4, key: b"other" };
        assert!(read(&unit) == Some(alloc::vec![Some(put), Some(delete)]));
        assert!(read(&unit[..10]) == Some(Vec::new()) && read(&unit[..9]).is_none());
        for end in 11..unit.len() {
            // A whole effect in front is no excuse for what follows it.
            let all = read(&unit[..end]).map(|parts| parts.iter().all(Option::is_some));
            assert_eq!(all, Some(end == 10 + 4 + 16));
        }
        let clear = encoded(Said::Clear);
        for inner in [&clear[..], &unit] {
            let mut outer = unit[..10].to_vec();
            unit_part(&mut outer, inner, b"");
            assert!(read(&outer) == Some(alloc::vec![None]));
        }
    }

    #[test]
    fn deadlines_move_and_nothing_else_does() {
        let cases = [
            (Some(1000), 500, Some(1500)),
            (Some(1000), -999, Some(1)),
            (Some(1000), -1000, Some(1)),
            (Some(1000), i64::MIN, Some(1)),
            (Some(u64::MAX - 1), 500, Some(u64::MAX)),
            (None, 500, None),
        ];
        for (before, delta_ms, expires_at_ms) in cases {
            let (slot, key, value) = (70, &b"k"[..], &b"v"[..]);
            for (said, want) in [
                (
                    Said::Put { slot, expires_at_ms: before, key, value },
                    Said::Put { slot, expires_at_ms, key, value },
                ),
                (
                    Said::Expire { slot, expires_at_ms: before, key },
                    Said::Expire { slot, expires_at_ms, key },
                ),
            ] {
                let mut bytes = encoded(said);
                convert_deadline(&mut bytes, delta_ms);
                assert_eq!(bytes, encoded(want), "{before:?} by {delta_ms}");
            }
        }
        for said in [
            Said::Append { slot: 0, before: 7, key: b"k", tail: b"t" },
            Said::Delete { slot: 0, key: b"a key of more than ten bytes" },
            Said::Clear,
        ] {
            let mut bytes = encoded(said);
            convert_deadline(&mut bytes, 500);
            assert_eq!(bytes, encoded(said));
        }
        convert_deadline(&mut [], 1);
        convert_deadline(&mut [PUT, 0, 1], 1);
    }
}
