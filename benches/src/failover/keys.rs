//! The keys of the load and what is written to them: as many in each range of slots, and each value says who wrote it where
//! and when. Pure.

use super::ledger::Held;
use dkv_protocol::limits::{RANGES, SLOTS_PER_RANGE};
use dkv_protocol::slots::slot_of;

/// Shortest value: its own account must fit.
pub(crate) const VALUE_BYTES_MIN: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    /// For each range a word whose slot is of it.
    tags: Vec<String>,
    value_bytes: usize,
}

impl Keys {
    pub(super) fn new(prefix: &str, value_bytes: usize) -> Self {
        let mut tags = vec![String::new(); RANGES];
        let mut left = RANGES;
        for number in 0.. {
            let tag = format!("{number:x}");
            let own = &mut tags[usize::from(slot_of(tag.as_bytes()).0 / SLOTS_PER_RANGE)];
            if own.is_empty() {
                *own = tag;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        Self { prefix: prefix.to_owned(), tags, value_bytes: value_bytes.max(VALUE_BYTES_MIN) }
    }

    /// The range of a key.
    pub(super) fn range(slot: usize) -> usize {
        slot % RANGES
    }

    /// The key of a place in the ledger.
    pub(super) fn key(&self, slot: usize, generation: u32) -> String {
        format!("{}{{{}}}:{slot}:{generation}", self.prefix, self.tags[Self::range(slot)])
    }

    /// The slot of all keys of a range.
    pub(super) fn slot(&self, range: usize) -> u16 {
        slot_of(self.tags[range].as_bytes()).0
    }

    pub(super) fn value(&self, writer: usize, slot: usize, generation: u32, number: u64) -> String {
        let width = self.value_bytes;
        format!("{:.<width$}", format!("{writer} {slot} {generation} {number} "))
    }

    /// What a value says that was read from a key.
    pub(super) fn held(slot: usize, generation: u32, value: Option<&[u8]>) -> Held {
        let Some(value) = value else { return Some(0) };
        let mut words = std::str::from_utf8(value).ok()?.split(' ').skip(1);
        let mut is = |wanted: u64| words.next()?.parse::<u64>().ok().filter(|it| *it == wanted);
        is(slot as u64)?;
        is(u64::from(generation))?;
        words.next()?.parse().ok().filter(|number| *number > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_a_key_and_a_value_tells_its_place() {
        let keys = Keys::new("p:", 100);
        for slot in 0..2 * RANGES {
            let key = keys.key(slot, 3);
            let of = slot_of(key.as_bytes()).0;
            assert_eq!(usize::from(of / SLOTS_PER_RANGE), Keys::range(slot), "{key}");
            assert_eq!(keys.slot(Keys::range(slot)), of);
        }
        let value = keys.value(7, 42, 3, 99);
        assert_eq!(value.len(), 100);
        let held =
            |slot, generation, text: &str| Keys::held(slot, generation, Some(text.as_bytes()));
        assert_eq!(held(42, 3, &value), Some(99));
        assert_eq!((held(41, 3, &value), held(42, 2, &value)), (None, None));
        assert_eq!(
            (held(42, 3, "7 42 3 0 "), held(42, 3, ""), held(42, 3, "x")),
            (None, None, None)
        );
        assert_eq!(Keys::held(42, 3, None), Some(0));
        assert_eq!(Keys::held(42, 3, Some(&[0xff])), None);
    }
}
