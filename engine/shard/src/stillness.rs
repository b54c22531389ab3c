//! Links whose other end stands still while its ranges have gone to others.
//!
//! A process that is stopped keeps its connections and answers nothing. What is under way to it holds up every later
//! request for its ranges, because a connection's requests are executed in their order. Once such a range has another leader
//! and the one that stands still is no copy that counts any more, nothing can come of waiting: it can commit nothing. So
//! the driver is told to end the link, and its requests end as those of a lost link do.

use crate::shard::Shard;
use alloc::vec::Vec;
use dkv_protocol::ids::ShardAddr;

/// Who has answered nothing for this long stands still, in nanoseconds.
const STILL_NS: u64 = 200_000_000;
/// How often that is looked at, in nanoseconds.
const LOOK_NS: u64 = 40_000_000;

/// By the number of a shard: the oldest request that it has not answered, and since when that is the oldest.
#[derive(Debug, Default)]
pub(crate) struct Stillness {
    oldest: Vec<(Option<u32>, u64)>,
    next_look_ns: u64,
}

impl Shard {
    /// A shard of another node whose link is to be ended, because it stands still and was replaced. To be asked until there
    /// is none, in each turn.
    pub fn next_still_link(&mut self) -> Option<ShardAddr> {
        let now = self.now;
        let copies = self.copies.as_deref_mut()?;
        let still = &mut copies.stillness;
        if now.boot_ns < still.next_look_ns {
            return None;
        }
        still.oldest.resize(usize::from(self.links.len()), (None, 0));
        for to in 0..self.links.len() {
            let oldest = self.links.oldest(to);
            let (known, since_ns) = &mut still.oldest[usize::from(to)];
            if *known != oldest {
                (*known, *since_ns) = (oldest, now.boot_ns);
            }
            if oldest.is_none() || now.boot_ns < *since_ns + STILL_NS {
                continue;
            }
            let addr = self.links.addr(to);
            let replaced = |range: usize| !copies.known[range].in_sync.contains(&addr);
            if addr.node != self.me.node && self.links.asked_ranges(to).any(replaced) {
                *since_ns = now.boot_ns;
                return Some(addr);
            }
        }
        still.next_look_ns = now.boot_ns + LOOK_NS;
        None
    }
}
