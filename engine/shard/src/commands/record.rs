//! How handlers reach the records of the table: the limit on keys, the counters, and the refusal when memory is full.

use super::errors;
use crate::command::Exec;
use alloc::vec::Vec;
use dkv_protocol::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use dkv_protocol::resp::reply;
use dkv_protocol::slots::slot_of;
use dkv_table::{Entry, Expiry, Place};

/// Where `key` is; none after a refusal was written. To be called for the command's first key before any other: that
/// one's place may be known already.
#[inline]
pub(super) fn place(x: &mut Exec<'_>, key: &[u8], out: &mut Vec<u8>) -> Option<Place> {
    if key.len() > KEY_BYTES_MAX {
        reply::error(out, errors::KEY_TOO_LONG);
        return None;
    }
    Some(match x.place.take() {
        Some(place) => place,
        None => x.table.place(key, slot_of(key).0),
    })
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

/// Looks a key up for a client, and counts it.
#[inline]
pub(super) fn read<'t>(x: &'t Exec<'_>, place: Place, key: &[u8]) -> Option<Entry<'t>> {
    let entry = x.table.get(x.now.boot_ms(), place, key);
    x.stats.gets.add(1);
    match entry {
        Some(_) => x.stats.hits.add(1),
        None => x.stats.misses.add(1),
    }
    entry
}

/// Looks a key up on the way to changing it, which no counter of reads sees.
#[inline]
pub(super) fn peek<'t>(x: &'t Exec<'_>, place: Place, key: &[u8]) -> Option<Entry<'t>> {
    x.table.get(x.now.boot_ms(), place, key)
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
    }
    removed
}
