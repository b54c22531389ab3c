//! The table as the state machine of the copies sees it.
//!
//! A record travels as the effect that puts it, so that there is one encoding for the log and for copying a range.

use alloc::vec::Vec;
use dkv_cluster::{Effect, Store};
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::SLOTS_PER_RANGE;
use dkv_table::{ApplyError, Large, Record, Table};

/// See the module.
pub(crate) struct Copied<'a>(pub(crate) &'a mut Table);

/// Whether what a copy was told fits what it holds. Who has no memory for it must not go on: nothing that the copy could
/// say or forget would change that, and a process that starts anew has what the system has left.
fn fits(result: Result<bool, ApplyError>) -> bool {
    assert!(
        result != Err(ApplyError::OutOfMemory),
        "the system has no memory for a copy of a range"
    );
    result.is_ok()
}

impl Store for Copied<'_> {
    fn index(&self, range: RangeId) -> u64 {
        self.0.version_of_range(u16::from(range.0))
    }

    fn set_index(&mut self, range: RangeId, index: u64) {
        self.0.set_version(u16::from(range.0), index);
    }

    fn journal(&mut self, range: RangeId, on: bool) {
        self.0.set_journal(u16::from(range.0), on);
    }

    fn apply(
        &mut self,
        now_ms: u64,
        range: RangeId,
        index: u64,
        effect: Effect<'_>,
        filling: bool,
    ) -> bool {
        let range = u16::from(range.0);
        let body = effect.body.map(|body| self.large(body));
        let applied = match &body {
            None => {
                self.0.apply(now_ms, range, index, dkv_table::Effect::bytes(effect.head), filling)
            }
            Some(Ok(large)) => {
                let effect = dkv_table::Effect { head: effect.head, value: Some(large) };
                self.0.apply(now_ms, range, index, effect, filling)
            }
            Some(Err(bytes)) => {
                let whole = [effect.head, bytes].concat();
                self.0.apply(now_ms, range, index, dkv_table::Effect::bytes(&whole), filling)
            }
        };
        fits(applied)
    }

    fn clear(&mut self, range: RangeId) {
        self.0.discard_range(u16::from(range.0));
    }

    fn walk(
        &mut self,
        range: RangeId,
        cursor: u64,
        bytes_max: usize,
        sink: &mut dyn FnMut(u64, Effect<'_>),
    ) -> Option<u64> {
        let mut head = Vec::new();
        let next = self.0.walk_range(u16::from(range.0), cursor, bytes_max, &mut |record| {
            write_record(record, &mut head);
            let body = record.large.map(Large::share);
            sink(record.version, Effect { head: &head, body: body.as_ref() });
        });
        (next != 0).then_some(next)
    }

    fn load(&mut self, now_ms: u64, range: RangeId, version: u64, record: Effect<'_>) -> bool {
        let Some(mut read) = read_record(range, version, record.head) else { return false };
        let large = record.body.map(|body| self.large(body));
        match &large {
            None => {}
            Some(Ok(large)) => {
                read.value = large;
                read.large = Some(large);
            }
            Some(Err(bytes)) => read.value = bytes,
        }
        fits(self.0.load(now_ms, &read))
    }

    fn rebase(&self, effect: &mut [u8], delta_ms: i64) {
        dkv_table::convert_deadline(effect, delta_ms);
    }
}

impl Copied<'_> {
    /// A value in memory of the table's own; the bytes when the table has no room for it as such.
    fn large<'b>(&mut self, bytes: &'b [u8]) -> Result<Large, &'b [u8]> {
        let mut block = self.0.block(bytes.len()).map_err(|_| bytes)?;
        block.extend(bytes);
        Ok(block.freeze())
    }
}

/// The kind of effect that puts a record, as dkv-table numbers it.
const PUT: u8 = 1;

/// Writes a record as the effect that puts it, without its value when that is a large one.
fn write_record(record: &Record<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[PUT, (record.slot % SLOTS_PER_RANGE) as u8]);
    out.extend_from_slice(&record.expires_at_ms.map_or(0, |at| at.max(1)).to_le_bytes());
    out.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
    out.extend_from_slice(record.key);
    if record.large.is_none() {
        out.extend_from_slice(record.value);
    }
}

/// The record that an effect puts; its value is what follows the key.
fn read_record(range: RangeId, version: u64, head: &[u8]) -> Option<Record<'_>> {
    let (&[PUT, place], rest) = head.split_first_chunk()? else { return None };
    // Another one would be a key of another range.
    let place = u16::from(place);
    if place >= SLOTS_PER_RANGE {
        return None;
    }
    let (deadline, rest) = rest.split_first_chunk()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let deadline = u64::from_le_bytes(*deadline);
    Some(Record {
        slot: u16::from(range.0) * SLOTS_PER_RANGE + place,
        key,
        value,
        large: None,
        version,
        expires_at_ms: (deadline > 0).then_some(deadline),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use bytes::Bytes;
    use dkv_table::{HeapMemory, Options};

    const RANGE: RangeId = RangeId(3);

    fn table() -> Table {
        let eviction = dkv_table::Eviction::None;
        let options = Options { seed: [1, 2], memory_bytes_max: 0, eviction, first_version: 1 };
        Table::new(options, Box::new(HeapMemory))
    }

    /// Puts `key` at this place of its range.
    fn record(place: u8, key_bytes: u32) -> Vec<u8> {
        [&[PUT, place][..], &[0; 8], &key_bytes.to_le_bytes(), b"key", b"value"].concat()
    }

    #[test]
    fn what_is_no_record_of_the_range_is_not_loaded_and_takes_nothing_down() {
        let mut table = table();
        let mut copied = Copied(&mut table);
        let fine = record(5, 3);
        assert!(copied.load(1, RANGE, 7, Effect::small(&fine)));
        for bad in [&record(64, 3)[..], &record(5, 9), &record(5, u32::MAX), b"", b"\x04\x05key"] {
            assert!(!copied.load(1, RANGE, 8, Effect::small(bad)), "{bad:?}");
        }
        for version in [0, 1 << 48, u64::MAX] {
            assert!(!copied.load(1, RANGE, version, Effect::small(&fine)), "{version}");
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_is_no_effect_or_none_that_comes_next_is_not_applied_and_takes_nothing_down() {
        let mut table = table();
        let mut copied = Copied(&mut table);
        copied.set_index(RANGE, 100);
        assert!(copied.apply(1, RANGE, 101, Effect::small(&record(5, 3)), false));
        let body = Bytes::from_static(b"a great value");
        let deletion = Effect { head: b"\x04\x05key", body: Some(&body) };
        let append =
            [&[3, 5][..], &9u64.to_le_bytes(), &3u32.to_le_bytes(), b"key", b"tail"].concat();
        for bad in [
            Effect::small(b""),
            Effect::small(b"\x09\x05"),
            Effect::small(b"\x04\x40key"),
            Effect::small(&append),
            deletion,
        ] {
            assert!(!copied.apply(1, RANGE, 102, bad, true), "{bad:?}");
        }
        for index in [0, 101, u64::MAX] {
            let deletion = Effect::small(b"\x04\x05key");
            assert!(!copied.apply(1, RANGE, index, deletion, true), "{index}");
        }
        assert_eq!((copied.index(RANGE), table.len()), (101, 1));
    }

    #[test]
    fn what_a_copy_that_is_filled_passes_over_does_not_fit_a_whole_one() {
        let mut table = table();
        let mut copied = Copied(&mut table);
        copied.set_index(RANGE, 100);
        let (absent, here) = (&b"\x04\x06other"[..], record(5, 3));
        assert!(!copied.apply(1, RANGE, 101, Effect::small(absent), false));
        assert!(copied.apply(1, RANGE, 101, Effect::small(absent), true));
        // A record of a later time is here already.
        assert!(copied.load(1, RANGE, 110, Effect::small(&here)));
        assert!(!copied.apply(1, RANGE, 102, Effect::small(&here), false));
        assert!(copied.apply(1, RANGE, 102, Effect::small(&here), true));
        // And whatever is left out is noticed.
        assert!(!copied.apply(1, RANGE, 112, Effect::small(&here), false));
        assert!(copied.apply(1, RANGE, 103, Effect::small(&record(7, 3)), false));
        assert_eq!(copied.index(RANGE), 103);
    }
}
