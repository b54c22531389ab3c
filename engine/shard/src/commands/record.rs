//! How handlers reach the records of the table: the limit on keys, the counters, and the refusal when memory is full.

use super::errors;
use crate::command::{Args, Exec, Inserts};
use crate::gates::Gates;
use crate::stats::ShardStats;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use dkv_protocol::ids::{RangeId, Slot};
use dkv_protocol::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use dkv_protocol::resp::reply;
use dkv_protocol::slots::slot_of;
use dkv_table::{Entry, Expiry, LARGE_BYTES_MIN, Large, Place, Table};

/// Where `key` is; none after a refusal was written. To be called for the command's first key before any other: that
/// one's place may be known already.
#[inline]
pub(super) fn place(x: &mut Exec<'_>, key: &[u8], out: &mut Vec<u8>) -> Option<Place> {
    let place = place_as_it_is(x, key, out)?;
    if x.gates.is_some() {
        x.table.expire_if_due(x.now.boot_ms(), place, key);
    }
    Some(place)
}

/// The same for a command that replaces whatever is there, or that calls [`expire`] when it finds nothing: it need not
/// look the key up twice.
#[inline]
pub(super) fn place_as_it_is(x: &mut Exec<'_>, key: &[u8], out: &mut Vec<u8>) -> Option<Place> {
    if key.len() > KEY_BYTES_MAX {
        reply::error(out, errors::KEY_TOO_LONG);
        return None;
    }
    Some(match x.place.take() {
        Some(place) => place,
        None => x.table.place(key, slot_of(key).0),
    })
}

/// Where a further key of a command is; none after a refusal was written.
pub(super) fn another(x: &mut Exec<'_>, key: &[u8], out: &mut Vec<u8>) -> Option<Place> {
    let first = x.place.take();
    let place = place(x, key, out);
    x.place = first;
    place
}

/// A key was not found. If that is because it expired, its copies must know before the reply leaves.
pub(super) fn expire(x: &mut Exec<'_>, place: Place, key: &[u8]) {
    if let Some(gates) = x.gates
        && x.table.expire_if_due(x.now.boot_ms(), place, key)
    {
        let range = Slot(place.slot()).range();
        gates.saw(range, x.table.last_removal(u16::from(range.0)));
    }
}

/// Whether each of `keys` is short enough; otherwise the refusal is written. For commands of several keys, which must
/// be refused before the first of them is touched.
pub(super) fn keys_fit<'a>(mut keys: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> bool {
    let fit = keys.all(|key| key.len() <= KEY_BYTES_MAX);
    if !fit {
        reply::error(out, errors::KEY_TOO_LONG);
    }
    fit
}

/// The longest reply of several keys. Any value fits in one with its heads, and one fits in a frame between two shards;
/// without a bound a key that is named often enough in one MGET would take all memory.
pub(super) const REPLY_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024;
const _: () = assert!(REPLY_BYTES_MAX < FRAME_BYTES_MAX);

/// Looks a key up. In a store with copies it is noted what the reply says of it: its last write, or, when it is not there,
/// the last removal of any key of its range.
#[inline]
pub(super) fn look<'t>(
    table: &'t Table,
    gates: Option<&Gates>,
    now_ms: u64,
    place: Place,
    key: &[u8],
) -> Option<Entry<'t>> {
    let entry = table.get(now_ms, place, key);
    if let Some(gates) = gates {
        let range = Slot(place.slot()).range();
        match &entry {
            Some(entry) => gates.saw(range, entry.version),
            None => gates.saw(range, table.last_removal(u16::from(range.0))),
        }
    }
    entry
}

/// Notes that a reply speaks of all keys of some ranges, as far as they are led here.
pub(super) fn look_at_ranges(x: &Exec<'_>, ranges: core::ops::Range<u16>) {
    let Some(gates) = x.gates else { return };
    for range in ranges.filter(|range| x.table.leads(*range)) {
        gates.saw(RangeId(range as u8), x.table.version_of_range(range));
    }
}

/// Looks a key up for a client, and counts it.
#[inline]
pub(super) fn read<'t>(x: &'t Exec<'_>, place: Place, key: &[u8]) -> Option<Entry<'t>> {
    let entry = peek(x, place, key);
    count(x.stats, entry.is_some());
    entry
}

/// Counts a read of a client.
#[inline]
pub(super) fn count(stats: &ShardStats, found: bool) {
    stats.gets.add(1);
    if found {
        stats.hits.add(1);
    } else {
        stats.misses.add(1);
    }
}

/// Reads a key for a client and writes its value; null when there is none. Whether there was one.
#[inline]
pub(super) fn reply_value(x: &mut Exec<'_>, place: Place, key: &[u8], out: &mut Vec<u8>) -> bool {
    let entry = look(x.table, x.gates, x.now.boot_ms(), place, key);
    count(x.stats, entry.is_some());
    match entry {
        Some(entry) => {
            write_value(entry, &mut x.inserts, out);
        }
        None => reply::null(out, x.proto),
    }
    entry.is_some()
}

/// Writes a value, or has it sent from where it is when it is a large one; returns how many bytes are sent so.
#[inline]
pub(super) fn write_value(
    entry: Entry<'_>,
    inserts: &mut Option<&mut Inserts>,
    out: &mut Vec<u8>,
) -> usize {
    match (entry.large, inserts) {
        (Some(large), Some(inserts)) if entry.value.len() > LARGE_BYTES_MIN => {
            reply::bulk_head(out, entry.value.len());
            inserts.push((out.len(), large.share()));
            out.extend_from_slice(b"\r\n");
            entry.value.len()
        }
        _ => {
            reply::bulk(out, entry.value);
            0
        }
    }
}

/// Writes a part of a value, or has it sent from where it is when it is a long one.
pub(super) fn write_part(
    entry: Entry<'_>,
    part: RangeInclusive<usize>,
    inserts: &mut Option<&mut Inserts>,
    out: &mut Vec<u8>,
) {
    let bytes = &entry.value[part.clone()];
    match (entry.large, inserts) {
        (Some(large), Some(inserts)) if bytes.len() > LARGE_BYTES_MIN => {
            reply::bulk_head(out, bytes.len());
            inserts.push((out.len(), large.share().slice(part)));
            out.extend_from_slice(b"\r\n");
        }
        _ => reply::bulk(out, bytes),
    }
}

/// Looks a key up on the way to changing it, which no counter of reads sees.
#[inline]
pub(super) fn peek<'t>(x: &'t Exec<'_>, place: Place, key: &[u8]) -> Option<Entry<'t>> {
    look(x.table, x.gates, x.now.boot_ms(), place, key)
}

/// The same without being a use of the key.
pub(super) fn peek_quietly<'t>(x: &'t Exec<'_>, place: Place, key: &[u8]) -> Option<Entry<'t>> {
    let entry = x.table.get_quietly(x.now.boot_ms(), place, key);
    if let Some(gates) = x.gates {
        let range = Slot(place.slot()).range();
        let removal = || x.table.last_removal(u16::from(range.0));
        gates.saw(range, entry.map_or_else(removal, |entry| entry.version));
    }
    entry
}

/// Stores argument `value` of the command: without a copy when it was received into memory of its own. Otherwise as
/// [`store`].
#[inline]
pub(super) fn store_argument(
    x: &mut Exec<'_>,
    place: Place,
    key: &[u8],
    args: Args<'_>,
    value: usize,
    expiry: Expiry,
    out: &mut Vec<u8>,
) -> bool {
    match args.large(value) {
        None => store(x, place, key, args.get(value), expiry, out),
        Some(large) => {
            let stored = x.table.set_large(x.now.boot_ms(), place, key, large.clone(), expiry);
            stored_or_refused(x, stored.is_ok(), out)
        }
    }
}

/// Stores, and counts it. False after the refusal for want of memory was written; the old value is still there then.
#[inline]
pub(super) fn store(
    x: &mut Exec<'_>,
    place: Place,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
    out: &mut Vec<u8>,
) -> bool {
    let stored = x.table.set(x.now.boot_ms(), place, key, value, expiry).is_ok();
    stored_or_refused(x, stored, out)
}

/// Stores what is another key's entry: without a copy when it has memory of its own.
pub(super) fn store_entry(
    x: &mut Exec<'_>,
    place: Place,
    key: &[u8],
    value: &Kept,
    expiry: Expiry,
    out: &mut Vec<u8>,
) -> bool {
    let now_ms = x.now.boot_ms();
    let stored = match value {
        Kept::Bytes(bytes) => x.table.set(now_ms, place, key, bytes, expiry),
        Kept::Large(large) => x.table.set_large(now_ms, place, key, large.clone(), expiry),
    };
    stored_or_refused(x, stored.is_ok(), out)
}

/// A value that was taken out of the table's hands: copied, or as a handle.
pub(super) enum Kept {
    Bytes(Vec<u8>),
    Large(Large),
}

impl Kept {
    pub(super) fn of(entry: Entry<'_>) -> Self {
        match entry.large {
            Some(large) => Self::Large(large.clone()),
            None => Self::Bytes(entry.value.to_vec()),
        }
    }
}

/// Puts bytes into a value, behind its end or into none, and counts it. Its length then; none after the refusal for want
/// of memory was written.
pub(super) fn patch(
    x: &mut Exec<'_>,
    place: Place,
    key: &[u8],
    offset: usize,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Option<usize> {
    let patched = x.table.patch(x.now.boot_ms(), place, key, offset, bytes);
    stored_or_refused(x, patched.is_ok(), out);
    patched.ok()
}

#[inline]
fn stored_or_refused(x: &Exec<'_>, stored: bool, out: &mut Vec<u8>) -> bool {
    if stored {
        x.stats.puts.add(1);
    } else {
        reply::error(out, errors::OUT_OF_MEMORY);
    }
    stored
}

/// Removes, and counts it; whether there was such a key.
#[inline]
pub(super) fn remove(x: &mut Exec<'_>, place: Place, key: &[u8]) -> bool {
    let removed = x.table.remove(x.now.boot_ms(), place, key);
    if removed {
        x.stats.removes.add(1);
    } else if let Some(gates) = x.gates {
        let range = Slot(place.slot()).range();
        gates.saw(range, x.table.last_removal(u16::from(range.0)));
    }
    removed
}

/// Keys that are fetched before the first of them is looked at.
const AHEAD: usize = 32;

/// The keys of a command with several, each with its place, fetched ahead: otherwise each would wait for memory alone.
/// The keys are known to fit.
pub(super) struct Ahead<'a, I> {
    keys: I,
    ready: [(&'a [u8], Place); AHEAD],
    at: usize,
    len: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Ahead<'a, I> {
    pub(super) fn new(x: &mut Exec<'_>, keys: I) -> Self {
        // Of the first key alone, which is hashed here again with the others.
        x.place = None;
        Self { keys, ready: [(&[], x.table.place(&[], 0)); AHEAD], at: 0, len: 0 }
    }

    /// The next key.
    #[inline]
    pub(super) fn next(&mut self, x: &mut Exec<'_>) -> Option<(&'a [u8], Place)> {
        if self.at == self.len {
            self.fetch(x);
        }
        let found = (self.at < self.len).then(|| self.ready[self.at]);
        self.at += 1;
        found
    }

    fn fetch(&mut self, x: &mut Exec<'_>) {
        (self.at, self.len) = (0, 0);
        for (ready, key) in self.ready.iter_mut().zip(&mut self.keys) {
            let place = x.table.place(key, slot_of(key).0);
            x.table.prefetch_bucket(place);
            *ready = (key, place);
            self.len += 1;
        }
        self.ready[..self.len].iter().for_each(|(_, place)| x.table.prefetch_record(*place));
        if x.gates.is_some() {
            for (key, place) in &self.ready[..self.len] {
                x.table.expire_if_due(x.now.boot_ms(), *place, key);
            }
        }
    }
}
