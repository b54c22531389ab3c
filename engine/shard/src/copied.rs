//! The table as the state machine of the copies sees it.
//!
//! A record travels as the effect that puts it, so that there is one encoding for the log and for copying a range.

use alloc::vec::Vec;
use dkv_cluster::{Effect, Store};
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::SLOTS_PER_RANGE;
use dkv_table::{Large, Record, Table};

/// See the module.
pub(crate) struct Copied<'a>(pub(crate) &'a mut Table);

const DAMAGED: &str = "what a copy is told fits what it holds, or the process must not go on";

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

    fn apply(&mut self, now_ms: u64, range: RangeId, index: u64, effect: Effect<'_>) {
        let range = u16::from(range.0);
        let body = effect.body.map(|body| self.large(body));
        let applied = match &body {
            None => self.0.apply(now_ms, range, index, dkv_table::Effect::bytes(effect.head), true),
            Some(Ok(large)) => {
                let effect = dkv_table::Effect { head: effect.head, value: Some(large) };
                self.0.apply(now_ms, range, index, effect, true)
            }
            Some(Err(bytes)) => {
                let whole = [effect.head, bytes].concat();
                self.0.apply(now_ms, range, index, dkv_table::Effect::bytes(&whole), true)
            }
        };
        applied.expect(DAMAGED);
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

    fn load(&mut self, now_ms: u64, range: RangeId, version: u64, record: Effect<'_>) {
        let large = record.body.map(|body| self.large(body));
        let large = match &large {
            None => None,
            Some(Ok(large)) => Some(large),
            Some(Err(bytes)) => {
                return self.load_copied(now_ms, range, version, record.head, bytes);
            }
        };
        let mut read = read_record(range, version, record.head).expect(DAMAGED);
        if let Some(large) = large {
            read.value = large;
            read.large = Some(large);
        }
        self.0.load(now_ms, &read).expect(DAMAGED);
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

    fn load_copied(
        &mut self,
        now_ms: u64,
        range: RangeId,
        version: u64,
        head: &[u8],
        value: &[u8],
    ) {
        let mut read = read_record(range, version, head).expect(DAMAGED);
        read.value = value;
        self.0.load(now_ms, &read).expect(DAMAGED);
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
    let (&[PUT, slot], rest) = head.split_first_chunk()? else { return None };
    let (deadline, rest) = rest.split_first_chunk()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let deadline = u64::from_le_bytes(*deadline);
    Some(Record {
        slot: u16::from(range.0) * SLOTS_PER_RANGE + u16::from(slot),
        key,
        value,
        large: None,
        version,
        expires_at_ms: (deadline > 0).then_some(deadline),
    })
}
