//! In which places a shard has subscribers, as the others know it. A place is one of some buckets of channels by their
//! hash, and one more stands for patterns, which may match anything.
//!
//! A shard that gets a subscriber in a new place tells everybody, and confirms the subscription when all have answered: so a
//! message that is published after the confirmation is not sent past it. When the last one of a place is gone it says
//! nothing, until a message comes for nobody. Who is told over a new link is told everything; what was told over the former
//! one may stand, and costs a message that nobody wanted.

use super::directory::Kind;
use alloc::vec::Vec;

/// Places of channels. With so many a shard whose clients listen to a hundred channels gets one in ten of the others.
pub(super) const BUCKETS: usize = 1024;
/// The place of patterns.
pub(super) const PATTERNS: usize = BUCKETS;

/// How long it is counted what the subscribers of a shard miss that cannot be reached, in milliseconds. It may be gone for
/// ever.
const AWAY_MS_MAX: u64 = 60_000;

/// The place of what is subscribed to: FNV-1a over the name. A client that finds names of one place makes its own
/// messages cost what they would without places.
pub(super) fn place_of(kind: Kind, name: &[u8]) -> usize {
    if kind == Kind::Pattern {
        return PATTERNS;
    }
    let seed = if kind == Kind::Shard { 0x9dc5_811c } else { 0x811c_9dc5_u32 };
    let hash =
        name.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 16) as usize % BUCKETS
}

#[derive(Clone, Debug, Default)]
struct Places([u64; BUCKETS / 64], bool);

impl Places {
    fn has(&self, place: usize) -> bool {
        if place == PATTERNS { self.1 } else { self.0[place / 64] >> (place % 64) & 1 == 1 }
    }

    fn set(&mut self, place: usize, there: bool) {
        if place == PATTERNS {
            self.1 = there;
        } else if there {
            self.0[place / 64] |= 1 << (place % 64);
        } else {
            self.0[place / 64] &= !(1 << (place % 64));
        }
    }
}

/// What passed between this shard and another.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// Where it has subscribers.
    theirs: Places,
    /// Where it was told that there are some here.
    told: Places,
    /// The last request that told it something.
    last: Option<u32>,
    /// Since when the way to it is lost, in milliseconds.
    lost_ms: Option<u64>,
    /// Whether what it told was forgotten since.
    forgotten: bool,
}

/// See the module. Shards go by their number.
#[derive(Debug, Default)]
pub(super) struct Interest {
    peers: Vec<Peer>,
}

impl Interest {
    fn peer(&mut self, shard: u16) -> &mut Peer {
        let shard = usize::from(shard);
        if self.peers.len() <= shard {
            self.peers.resize(shard + 1, Peer::default());
        }
        &mut self.peers[shard]
    }

    /// Whether a message to a place goes to a shard.
    #[inline]
    pub(super) fn wants(&self, shard: u16, kind: Kind, place: usize) -> bool {
        self.peers.get(usize::from(shard)).is_some_and(|peer| {
            peer.theirs.has(place) || kind == Kind::Channel && peer.theirs.has(PATTERNS)
        })
    }

    /// Another shard has told us.
    pub(super) fn hear(&mut self, shard: u16, place: usize, there: bool) {
        self.peer(shard).theirs.set(place, there);
    }

    /// Whether a shard was told of all these places.
    pub(super) fn has_told(&self, shard: u16, places: &[u16]) -> bool {
        self.peers
            .get(usize::from(shard))
            .is_some_and(|peer| places.iter().all(|place| peer.told.has(usize::from(*place))))
    }

    /// The last request that told a shard something.
    pub(super) fn last(&self, shard: u16) -> Option<u32> {
        self.peers.get(usize::from(shard))?.last
    }

    /// A shard is told, by that request.
    pub(super) fn tell(&mut self, shard: u16, places: &[u16], there: bool, request: u32) {
        let peer = self.peer(shard);
        for place in places {
            peer.told.set(usize::from(*place), there);
        }
        peer.last = Some(request);
    }

    /// The way to a shard is lost: it may be another process by the next time.
    pub(super) fn lose(&mut self, shard: u16, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(usize::from(shard)) {
            peer.told = Places::default();
            peer.last = None;
            peer.lost_ms = Some(now_ms);
        }
    }

    /// Whether a shard is away for so long that nobody counts what its subscribers miss: what it told is forgotten then.
    pub(super) fn gives_up(&mut self, shard: u16, now_ms: u64) -> bool {
        let peer = self.peer(shard);
        let over = peer.lost_ms.is_some_and(|lost| now_ms.saturating_sub(lost) > AWAY_MS_MAX);
        if over {
            peer.theirs = Places::default();
            peer.forgotten = true;
        }
        over
    }

    /// The way to a shard is open again. Whether it must be asked what it told.
    pub(super) fn find_again(&mut self, shard: u16) -> bool {
        let Some(peer) = self.peers.get_mut(usize::from(shard)) else { return false };
        peer.lost_ms = None;
        core::mem::take(&mut peer.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_wants_what_it_told_of_and_with_patterns_every_channel() {
        let mut interest = Interest::default();
        let place = place_of(Kind::Channel, b"news");
        assert!(!interest.wants(3, Kind::Channel, place));
        interest.hear(3, place, true);
        assert!(
            interest.wants(3, Kind::Channel, place) && !interest.wants(2, Kind::Channel, place)
        );
        assert!(!interest.wants(3, Kind::Channel, (place + 1) % BUCKETS));
        interest.hear(3, place, false);
        assert!(!interest.wants(3, Kind::Channel, place));
        interest.hear(3, PATTERNS, true);
        assert!(interest.wants(3, Kind::Channel, place) && !interest.wants(3, Kind::Shard, place));
    }

    #[test]
    fn what_was_told_over_a_lost_way_is_told_again() {
        let mut interest = Interest::default();
        assert!(!interest.has_told(1, &[5]) && interest.last(1).is_none());
        interest.tell(1, &[5, PATTERNS as u16], true, 7);
        assert!(interest.has_told(1, &[5, PATTERNS as u16]) && !interest.has_told(1, &[5, 6]));
        assert_eq!(interest.last(1), Some(7));
        interest.tell(1, &[5], false, 8);
        assert!(!interest.has_told(1, &[5]) && interest.has_told(1, &[PATTERNS as u16]));
        interest.lose(1, 0);
        assert!(!interest.has_told(1, &[PATTERNS as u16]) && interest.last(1).is_none());
    }

    #[test]
    fn places_are_spread() {
        let mut used = Places::default();
        for i in 0..4 * BUCKETS {
            used.set(place_of(Kind::Channel, alloc::format!("channel:{i}").as_bytes()), true);
        }
        let count = used.0.iter().map(|word| word.count_ones()).sum::<u32>();
        assert!(count > 900, "{count} of {BUCKETS} places for four times as many names");
    }
}
