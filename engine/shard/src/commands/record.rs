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
    pub(super) fn next(&mut self, x: &Exec<'_>) -> Option<(&'a [u8], Place)> {
        if self.at == self.len {
            self.fetch(x);
        }
        let found = (self.at < self.len).then(|| self.ready[self.at]);
        self.at += 1;
        found
    }

    fn fetch(&mut self, x: &Exec<'_>) {
        (self.at, self.len) = (0, 0);
        for (ready, key) in self.ready.iter_mut().zip(&mut self.keys) {
            let place = x.table.place(key, slot_of(key).0);
            x.table.prefetch_bucket(place);
            *ready = (key, place);
            self.len += 1;
        }
        self.ready[..self.len].iter().for_each(|(_, place)| x.table.prefetch_record(*place));
    }
}
