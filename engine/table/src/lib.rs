//! One shard's table: keys, values, expiry, versions and the memory they cost.
//!
//! It stands apart so that its inside can change without anybody noticing, and so that it can be tested against a plain
//! map. It knows bytes and numbers only: no commands, no clock (the time is an argument), no randomness (the seed is an
//! argument), no other shard. A key belongs to a slot, 64 slots make a range; which slot a key has is the caller's to
//! know.
//!
//! Promises:
//! - an expired key is invisible at once, whenever its memory is taken back;
//! - a refused write ([`OutOfMemory`]) leaves everything as it was;
//! - every effect gives its range the next version, removals of any kind too: versions are the places in a log;
//! - a table that is fed what another one's journal gave holds the same keys, values and versions;
//! - a [`Table::scan`] that runs from 0 to 0 reports every key that was there all the time.
//!
//! Deliberately absent: value types other than byte strings, snapshots.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod blocks;
mod copies;
mod effect;
mod evict;
mod growth;
mod hash;
mod heat;
mod journal;
mod large;
mod lead;
mod memory;
mod old;
mod patch;
mod policy;
mod prefetch;
mod ranges;
mod record;
mod replica;
mod scan;
mod segment;
mod slab;
mod sweep;
mod table;
mod tick;

pub use copies::Record;
pub use effect::{Effect, convert_deadline};
pub use evict::{Eviction, Room};
pub use large::{Block, HEAP_BYTES_MAX, LARGE_BYTES_MIN, Large};
pub use memory::{CHUNK_BYTES, HeapMemory, Memory, Region};
pub use replica::ApplyError;
pub use table::Table;

/// Ranges of a table.
pub const RANGES: usize = 256;
/// Slots of one range.
pub const SLOTS_PER_RANGE: usize = 64;

/// How a table is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The secret of the hash. The same for all tables of a store, or cursors mean different places.
    pub seed: [u64; 2],
    /// A write that would take [`Table::memory_bytes`] beyond this evicts other keys or is refused; 0 is no limit.
    pub memory_bytes_max: u64,
    /// Which keys may be evicted, and which of them first.
    pub eviction: Eviction,
    /// The first write of an unused range gets the version after this one (unix seconds << 16, 48 bits).
    pub first_version: u64,
}

/// Where a key belongs: its slot and its keyed hash. Made by [`Table::place`] and valid for every table with the same
/// seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) hash: u64,
    pub(crate) slot: u16,
}

impl Place {
    /// The slot it was made with.
    #[inline]
    pub const fn slot(self) -> u16 {
        self.slot
    }
}

/// What the table holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The version of the last write, 48 bits.
    pub version: u64,
    /// When it ends (CLOCK_BOOTTIME, milliseconds); it is there while `now < expires_at_ms`.
    pub expires_at_ms: Option<u64>,
    /// The value as a handle, which can be sent without a copy, when it has memory of its own.
    pub large: Option<&'a Large>,
}

/// How a key was used, as the policy of eviction looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Milliseconds since the last use, in steps of 64; of minutes when it is longer ago than half an hour.
    IdleMs(u64),
    /// The logarithmic counter of Redis.
    Frequency(u8),
}

/// What a write does to the expiry of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays; a new key has none.
    Keep,
    /// It goes.
    Clear,
    /// It is this moment (CLOCK_BOOTTIME, milliseconds).
    At(u64),
}

/// The write would take more memory than the table may use; nothing was changed. The client recovers, by removing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the write would take more memory than the limit allows")
    }
}

impl core::error::Error for OutOfMemory {}

/// What one slice of the expiry sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Keys removed.
    pub removed: u32,
    /// How long the latest of them had been expired, in milliseconds; 0 when none was removed.
    pub lag_ms: u64,
    /// How long each of them had been, added up, in milliseconds.
    pub late_ms: u64,
    /// Whether the sweep goes on at once. When not, call again later: at the next turn or timer.
    pub more: bool,
}
