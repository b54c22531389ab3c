//! Which keys are asked for most, for as long as somebody wants to know: of the commands with keys a random one in so many is looked at,
//! and a Space-Saving summary (Metwally, Agrawal, El Abbadi, 2005) keeps the most frequent of their keys.
//!
//! How many are passed over follows how many there are, so that what it costs while it is on is bounded: some 25,000 looks a
//! second at 0.3 µs each. While it is off it costs each command one look at a flag beside others that it looks at anyway.

use crate::command::{Args, Now, Spec};
use crate::commands::{self, hotkeys};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use dkv_protocol::resp::reply;

/// Keys that are counted at a time. A key with more than this part of all that is looked at is certainly among them.
pub(crate) const PLACES: usize = 512;
/// Bytes of a key that are kept.
const KEY_BYTES_MAX: usize = 512;
/// After so many looks it is seen whether they come too fast or too slowly, and the most that are passed over for one.
const LOOKS: u32 = 1024;
const EVERY_MAX: u32 = 1024;
/// So many looks should take about so long, in nanoseconds.
const LOOKS_NS_MIN: u64 = 40_000_000;
const LOOKS_NS_MAX: u64 = 160_000_000;
/// How long what was counted is kept after the end, in nanoseconds.
const KEPT_NS: u64 = 60_000_000_000;

/// A key with what is known of it: by `error` at most it was asked for less often than `count` says.
#[derive(Debug, Default)]
struct Hot {
    error: u64,
    writes: u64,
    key: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct HotKeys {
    began_ns: u64,
    until_ns: u64,
    /// When it ended; 0 as long as it goes on.
    ended_ns: u64,
    /// Commands to pass over until the next look, and one in how many is looked at.
    skip: u32,
    every: u32,
    random: u64,
    /// Looks since `looked_ns`.
    looks: u32,
    looked_ns: u64,
    /// Uses of keys that all looks stand for.
    seen: u64,
    /// By place: the hash of a key and how often it was used. Apart from the rest, because each look goes through them.
    hashes: Vec<u64>,
    counts: Vec<u64>,
    hot: Vec<Hot>,
}

impl HotKeys {
    fn new(now_ns: u64, until_ns: u64) -> Self {
        Self {
            began_ns: now_ns,
            until_ns,
            ended_ns: 0,
            skip: 0,
            every: 1,
            random: now_ns | 1,
            looks: 0,
            looked_ns: now_ns,
            seen: 0,
            hashes: Vec::with_capacity(PLACES),
            counts: Vec::with_capacity(PLACES),
            hot: Vec::with_capacity(PLACES),
        }
    }

    /// A command with a key was executed: whether it is one to be looked at.
    #[inline]
    fn is_due(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = if due { self.pass_over() } else { self.skip - 1 };
        due
    }

    /// Xorshift: of a pattern in what clients send each part is as likely to be looked at.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// One in `every` is looked at in the mean.
    fn pass_over(&mut self) -> u32 {
        let most = u64::from(self.every) * 2 - 1;
        (self.next_random() % most) as u32
    }

    fn look(&mut self, now_ns: u64, spec: &Spec, args: Args<'_>) {
        self.looks += 1;
        if self.looks == LOOKS {
            let took_ns = now_ns.saturating_sub(self.looked_ns);
            if took_ns < LOOKS_NS_MIN {
                self.every = (self.every * 2).min(EVERY_MAX);
            } else if took_ns > LOOKS_NS_MAX {
                self.every = (self.every / 2).max(1);
            }
            (self.looks, self.looked_ns) = (0, now_ns);
        }
        // One of its keys stands for all of them.
        let keys = spec.keys(args).size_hint().0;
        let first = usize::try_from(spec.first_key).unwrap_or_default();
        let step = usize::try_from(spec.key_step).unwrap_or_default().max(1);
        let one = if keys > 1 { (self.next_random() % keys as u64) as usize } else { 0 };
        if keys > 0 {
            let weight = u64::from(self.every) * keys as u64;
            self.count(args.get(first + one * step), weight, spec.write);
        }
    }

    fn count(&mut self, key: &[u8], weight: u64, write: bool) {
        self.seen += weight;
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        let hash = hash_of(key);
        let writes = if write { weight } else { 0 };
        let known = self.hashes.iter().position(|known| *known == hash);
        let at = match known {
            Some(at) if *self.hot[at].key == *key => {
                self.counts[at] += weight;
                self.hot[at].writes += writes;
                return;
            }
            _ if self.hot.len() < PLACES => {
                self.hashes.push(hash);
                self.counts.push(0);
                self.hot.push(Hot::default());
                self.hot.len() - 1
            }
            _ => {
                let least = self.counts.iter().enumerate().min_by_key(|(_, count)| **count);
                least.map_or(0, |(at, _)| at)
            }
        };
        // It may have been used as often as the one whose place it takes.
        self.hashes[at] = hash;
        self.hot[at] = Hot { error: self.counts[at], writes, key: key.into() };
        self.counts[at] += weight;
    }

    fn elapsed_ms(&self, now_ns: u64) -> u64 {
        let until = if self.ended_ns > 0 { self.ended_ns } else { now_ns };
        until.saturating_sub(self.began_ns) / 1_000_000
    }

    /// Writes the keys that were used most, for [`hotkeys::finish`].
    fn write(&self, now_ns: u64, count: usize, out: &mut Vec<u8>) {
        let mut order: Vec<usize> = (0..self.hot.len()).collect();
        order.sort_unstable_by_key(|at| core::cmp::Reverse(self.counts[*at]));
        order.truncate(count);
        let of = |at: usize| hotkeys::Used {
            key: &self.hot[at].key,
            count: self.counts[at],
            error: self.hot[at].error,
            writes: self.hot[at].writes,
        };
        hotkeys::write(self.elapsed_ms(now_ns), self.seen, order.into_iter().map(of), out);
    }
}

/// FNV-1a. What meets another key's is told from it by its bytes.
fn hash_of(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Shard {
    /// A command was executed while keys are counted.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_keys(&mut self, args: Args<'_>) {
        let now_ns = self.now.boot_ns;
        let Some(hot) = self.hot.as_deref_mut() else { return };
        if !hot.is_due() {
            return;
        }
        let name = args.get(0);
        let spec = commands::lookup(name).or_else(|| commands::internal(name));
        if let Some(spec) = spec.filter(|spec| spec.first_key > 0) {
            hot.look(now_ns, spec, args);
        }
    }

    /// Ends what is over, and forgets what nobody has asked for since.
    pub(crate) fn end_hot_keys(&mut self, now: Now) {
        let Some(hot) = &mut self.hot else { return };
        if hot.ended_ns == 0 && now.boot_ns >= hot.until_ns {
            hot.ended_ns = now.boot_ns;
            self.tally.hot = false;
        }
        if hot.ended_ns > 0 && now.boot_ns >= hot.ended_ns + KEPT_NS {
            self.hot = None;
        }
    }

    /// This shard's part of DKV.HOTKEYS.
    pub(crate) fn hot_keys_part(
        &mut self,
        now: Now,
        subcommand: &str,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        if subcommand == "start" {
            let Some(seconds) = hotkeys::seconds(args) else {
                return reply::error(out, hotkeys::INVALID_SECONDS);
            };
            let until_ns = now.boot_ns + seconds * 1_000_000_000;
            match &mut self.hot {
                // Somebody else looks, too: what is counted serves both.
                Some(hot) if hot.ended_ns == 0 => hot.until_ns = hot.until_ns.max(until_ns),
                _ => self.hot = Some(Box::new(HotKeys::new(now.boot_ns, until_ns))),
            }
            self.tally.hot = true;
            return reply::ok(out);
        }
        let Some(count) = hotkeys::count(args) else {
            return reply::error(out, hotkeys::INVALID_COUNT);
        };
        match &self.hot {
            Some(hot) => hot.write(now.boot_ns, count, out),
            None => reply::error(out, hotkeys::NOT_STARTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many uses of keys, the key of rank `i` as often as 1 / (i + 1) of the first one's, in a mixed order.
    fn zipfian(keys: u64, uses: usize) -> impl Iterator<Item = u64> {
        let weights: Vec<f64> = (0..keys).map(|i| 1.0 / (i + 1) as f64).collect();
        let all: f64 = weights.iter().sum();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        (0..uses).map(move |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut left = (random >> 11) as f64 / (1u64 << 53) as f64 * all;
            weights
                .iter()
                .position(|weight| {
                    left -= weight;
                    left <= 0.0
                })
                .unwrap_or(0) as u64
        })
    }

    #[test]
    fn the_keys_that_are_used_most_stay_whatever_else_comes() {
        let mut hot = HotKeys::new(1, 2);
        let mut used = [0u64; 2000];
        for key in zipfian(2000, 60_000) {
            hot.count(&key.to_be_bytes(), 1, key % 2 == 0);
            used[key as usize] += 1;
        }
        assert_eq!(hot.hot.len(), PLACES);
        assert_eq!(hot.seen, 60_000);
        let mut order: Vec<usize> = (0..PLACES).collect();
        order.sort_unstable_by_key(|at| core::cmp::Reverse(hot.counts[*at]));
        for (rank, at) in order[..10].iter().enumerate() {
            let key = u64::from_be_bytes(hot.hot[*at].key[..].try_into().unwrap());
            let truth = used[key as usize];
            assert!((rank as u64).abs_diff(key) <= 1, "{key} is at place {rank}");
            assert!(hot.counts[*at] >= truth, "never too few");
            assert!(hot.counts[*at] - hot.hot[*at].error <= truth, "never more by more than that");
            assert!(hot.hot[*at].writes == if key % 2 == 0 { truth } else { 0 });
        }
    }

    #[test]
    fn looks_are_as_rare_as_commands_are_many_and_stand_for_all() {
        let mut hot = HotKeys::new(1, 2);
        let spec = commands::lookup(b"GET").unwrap();
        let bytes = b"GETkey";
        let spans = [(0, 3), (3, 6)];
        // A command each microsecond, for two seconds.
        let mut looks = 0u64;
        for us in 0..2_000_000u64 {
            if hot.is_due() {
                looks += 1;
                hot.look(us * 1000, spec, Args::new(bytes, &spans));
            }
        }
        assert!((20_000..100_000).contains(&looks), "{looks} looks");
        assert!(hot.seen.abs_diff(2_000_000) < 60_000, "{} uses", hot.seen);
        assert_eq!((hot.counts.len(), hot.counts[0]), (1, hot.seen));
    }
}
