//! Who listens to what on one shard, and to what one connection listens.
//!
//! Everything is ordered, so that a message, or a list of names, can go on behind the last one that was seen, whoever came
//! and went in between. It knows nothing of other shards and of bytes on a connection.

use super::Progress;
use super::interest::{BUCKETS, PATTERNS, place_of};
use crate::commands::glob::Pattern;
use crate::face::SessionId;
use crate::pace::Pace;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};
use dkv_protocol::resp::reply;

/// What a subscription takes besides its name, in bytes: its places in two trees.
pub(super) const SUBSCRIPTION_COST_BYTES: usize = 128;
/// Subscribers that are given out at a time.
pub(super) const LISTENERS_AT_ONCE: usize = 64;
/// Nanoseconds of matching that count one unit of pace.
const NS_PER_UNIT: usize = 256;

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    /// A channel of the sharded commands: a name space of its own.
    Shard,
}

impl Kind {
    /// The kind as shards call it.
    pub(super) const fn letter(self) -> &'static [u8] {
        match self {
            Self::Channel => b"c",
            Self::Pattern => b"p",
            Self::Shard => b"s",
        }
    }

    pub(super) fn of_letter(letter: &[u8]) -> Option<Self> {
        [Self::Channel, Self::Pattern, Self::Shard].into_iter().find(|kind| kind.letter() == letter)
    }
}

/// To what a connection listens, and how far it is with a command that goes in steps.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeSet<Arc<[u8]>>,
    shard_channels: BTreeSet<Arc<[u8]>>,
    pub(super) progress: Progress,
    /// Since when more is unsent than a subscriber may leave for long, in milliseconds.
    pub(super) slow_since_ms: Option<u64>,
}

impl Listening {
    /// What it listens to.
    pub(crate) fn names(&self, kind: Kind) -> &BTreeSet<Arc<[u8]>> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    fn names_mut(&mut self, kind: Kind) -> &mut BTreeSet<Arc<[u8]>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    /// Whether a command of its connection goes in steps and is not through.
    pub(crate) const fn has_begun(&self) -> bool {
        self.progress.has_begun()
    }

    /// Whether it listens to anything.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.len() > 0
    }

    /// Subscriptions of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }

    /// Subscriptions of one kind.
    pub(crate) fn len_of(&self, kind: Kind) -> usize {
        self.names(kind).len()
    }

    /// The number that confirmations tell: channels and patterns together, channels of shards alone.
    pub(super) fn told_len(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
        }
    }

    pub(super) fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.names(kind).contains(name)
    }

    pub(super) fn add(&mut self, kind: Kind, name: Arc<[u8]>) {
        self.names_mut(kind).insert(name);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        self.names_mut(kind).remove(name)
    }

    /// Takes any subscription of a kind.
    pub(super) fn pop_of(&mut self, kind: Kind) -> Option<Arc<[u8]>> {
        self.names_mut(kind).pop_first()
    }

    /// Takes any subscription.
    pub(super) fn pop(&mut self) -> Option<(Kind, Arc<[u8]>)> {
        let kinds = [Kind::Channel, Kind::Pattern, Kind::Shard];
        kinds.into_iter().find_map(|kind| Some((kind, self.pop_of(kind)?)))
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.len() * SUBSCRIPTION_COST_BYTES
    }
}

type Listeners = BTreeMap<Arc<[u8]>, BTreeSet<SessionId>>;

#[derive(Debug)]
struct Patterned {
    pattern: Pattern,
    listeners: BTreeSet<SessionId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Directory {
    channels: Listeners,
    shard_channels: Listeners,
    patterns: BTreeMap<Arc<[u8]>, Patterned>,
    /// By place: how many channels with subscribers. Empty before the first.
    counts: Vec<u32>,
    bytes: usize,
}

/// How far a message has come. It begins with the subscribers of its channel.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    stage: Stage,
    last: Option<SessionId>,
    pub(super) receivers: i64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Channel,
    /// The subscribers of that pattern.
    Pattern(Arc<[u8]>),
    /// Looking for a pattern behind that one.
    Behind(Option<Arc<[u8]>>),
}

/// What [`Directory::next`] found.
pub(super) enum Found {
    Listeners,
    /// There are no more.
    End,
    /// It has taken long.
    Paused,
}

impl FanOut {
    /// The pattern whose subscribers are served.
    pub(super) fn pattern(&self) -> Option<&[u8]> {
        match &self.stage {
            Stage::Pattern(pattern) => Some(pattern),
            Stage::Channel | Stage::Behind(_) => None,
        }
    }

    /// One has been served.
    pub(super) fn served(&mut self, id: SessionId) {
        self.last = Some(id);
    }
}

/// Names that are looked for in steps, and those that were found as elements of an array.
#[derive(Debug, Default)]
pub(super) struct Listing {
    last: Option<Arc<[u8]>>,
    count: usize,
    elements: Vec<u8>,
}

impl Listing {
    /// The reply that names them.
    pub(super) fn reply(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.elements.len() + 16);
        reply::array(&mut out, self.count);
        out.extend_from_slice(&self.elements);
        out
    }
}

impl Directory {
    fn listeners(&self, kind: Kind) -> &Listeners {
        if kind == Kind::Shard { &self.shard_channels } else { &self.channels }
    }

    /// Channels, or patterns, with subscribers.
    pub(super) fn len(&self, kind: Kind) -> usize {
        if kind == Kind::Pattern { self.patterns.len() } else { self.listeners(kind).len() }
    }

    /// Subscribers of a channel.
    pub(super) fn listeners_of(&self, kind: Kind, channel: &[u8]) -> usize {
        self.listeners(kind).get(channel).map_or(0, BTreeSet::len)
    }

    /// Bytes that all subscriptions take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are subscribers in a place.
    pub(super) fn is_interested(&self, place: usize) -> bool {
        if place == PATTERNS {
            return !self.patterns.is_empty();
        }
        self.counts.get(place).is_some_and(|count| *count > 0)
    }

    /// All places with subscribers.
    pub(super) fn places(&self) -> Vec<u16> {
        (0..=PATTERNS)
            .filter(|place| self.is_interested(*place))
            .map(|place| place as u16)
            .collect()
    }

    /// A connection listens to one thing more, which it did not before.
    pub(super) fn add(&mut self, kind: Kind, name: &[u8], id: SessionId) -> Arc<[u8]> {
        self.bytes += SUBSCRIPTION_COST_BYTES;
        if kind == Kind::Pattern {
            if let Some((name, _)) = self.patterns.get_key_value(name) {
                let name = Arc::clone(name);
                if let Some(patterned) = self.patterns.get_mut(&name) {
                    patterned.listeners.insert(id);
                }
                return name;
            }
            let name: Arc<[u8]> = name.into();
            let pattern = Pattern::new(&name);
            self.bytes += name.len() + pattern.memory_bytes();
            let listeners = BTreeSet::from([id]);
            self.patterns.insert(Arc::clone(&name), Patterned { pattern, listeners });
            return name;
        }
        let channels =
            if kind == Kind::Shard { &mut self.shard_channels } else { &mut self.channels };
        if let Some((name, _)) = channels.get_key_value(name) {
            let name = Arc::clone(name);
            if let Some(listeners) = channels.get_mut(&name) {
                listeners.insert(id);
            }
            return name;
        }
        let name: Arc<[u8]> = name.into();
        self.bytes += name.len();
        channels.insert(Arc::clone(&name), BTreeSet::from([id]));
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        self.counts[place_of(kind, &name)] += 1;
        name
    }

    /// A connection does not listen to something any more.
    pub(super) fn remove(&mut self, kind: Kind, name: &[u8], id: SessionId) {
        if kind == Kind::Pattern {
            let Some(patterned) = self.patterns.get_mut(name) else { return };
            if !patterned.listeners.remove(&id) {
                return;
            }
            self.bytes -= SUBSCRIPTION_COST_BYTES;
            if patterned.listeners.is_empty() {
                self.bytes -= name.len() + patterned.pattern.memory_bytes();
                self.patterns.remove(name);
            }
            return;
        }
        let channels =
            if kind == Kind::Shard { &mut self.shard_channels } else { &mut self.channels };
        let Some(listeners) = channels.get_mut(name) else { return };
        if !listeners.remove(&id) {
            return;
        }
        self.bytes -= SUBSCRIPTION_COST_BYTES;
        if listeners.is_empty() {
            channels.remove(name);
            self.bytes -= name.len();
            self.counts[place_of(kind, name)] -= 1;
        }
    }

    /// The next subscribers that a message to `channel` goes to, behind those that `at` says were served.
    pub(super) fn next(
        &self,
        kind: Kind,
        channel: &[u8],
        at: &mut FanOut,
        ids: &mut Vec<SessionId>,
        pace: &mut Pace,
    ) -> Found {
        let behind =
            |listeners: &BTreeSet<SessionId>, last: Option<SessionId>, ids: &mut Vec<_>| {
                let from = last.map_or(Unbounded, Excluded);
                ids.extend(listeners.range((from, Unbounded)).take(LISTENERS_AT_ONCE));
                !ids.is_empty()
            };
        ids.clear();
        loop {
            match &at.stage {
                Stage::Channel => {
                    let listeners = self.listeners(kind).get(channel);
                    if listeners.is_some_and(|listeners| behind(listeners, at.last, ids)) {
                        return Found::Listeners;
                    }
                    at.stage = Stage::Behind(None);
                }
                Stage::Pattern(pattern) => {
                    let patterned = self.patterns.get(pattern);
                    if patterned.is_some_and(|one| behind(&one.listeners, at.last, ids)) {
                        return Found::Listeners;
                    }
                    at.stage = Stage::Behind(Some(Arc::clone(pattern)));
                }
                Stage::Behind(last) => {
                    if kind == Kind::Shard {
                        return Found::End;
                    }
                    let from = last.as_ref().map_or(Unbounded, |last| Excluded(&last[..]));
                    let mut stage = None;
                    for (name, one) in self.patterns.range::<[u8], _>((from, Unbounded)) {
                        pace.work(1 + one.pattern.cost_ns(channel) / NS_PER_UNIT);
                        if one.pattern.matches(channel) {
                            stage = Some(Stage::Pattern(Arc::clone(name)));
                            break;
                        }
                        if pace.is_over() {
                            at.stage = Stage::Behind(Some(Arc::clone(name)));
                            return Found::Paused;
                        }
                    }
                    let Some(stage) = stage else { return Found::End };
                    at.stage = stage;
                }
            }
            at.last = None;
        }
    }

    /// Goes on looking for names that match. Whether all were looked at.
    pub(super) fn list(
        &self,
        kind: Kind,
        pattern: Option<&Pattern>,
        at: &mut Listing,
        pace: &mut Pace,
    ) -> bool {
        let last = at.last.take();
        let from = last.as_ref().map_or(Unbounded, |last| Excluded(&last[..]));
        let mut one = |name: &Arc<[u8]>| {
            pace.work(1 + pattern.map_or(0, |pattern| pattern.cost_ns(name)) / NS_PER_UNIT);
            if pattern.is_none_or(|pattern| pattern.matches(name)) {
                at.count += 1;
                reply::bulk(&mut at.elements, name);
            }
            if pace.is_over() {
                at.last = Some(Arc::clone(name));
            }
            pace.is_over()
        };
        let over = if kind == Kind::Pattern {
            self.patterns.range::<[u8], _>((from, Unbounded)).any(|(name, _)| one(name))
        } else {
            self.listeners(kind).range::<[u8], _>((from, Unbounded)).any(|(name, _)| one(name))
        };
        !over
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
