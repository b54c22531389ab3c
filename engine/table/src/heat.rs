//! How recently or how often a key was used: 16 bits a key, kept beside the segments and only under a policy that asks.
//!
//! Least recently used: a moment in ticks of 64 ms on a circle of 70 minutes. Before it could be mistaken for a later
//! one, a round in the background writes it as a generation, which every further round makes older: the order holds for
//! days, in steps of a round. Least frequently used: the logarithmic counter of Redis, which loses one a minute, and the
//! minute that it was last written in; the round writes it anew before the minutes come round.

use crate::{Eviction, Usage};

/// What is kept of the use of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    Recency,
    Frequency,
}

impl Kind {
    pub(crate) const fn of(eviction: Eviction) -> Self {
        match eviction {
            Eviction::AllKeysLru | Eviction::VolatileLru => Self::Recency,
            Eviction::AllKeysLfu | Eviction::VolatileLfu => Self::Frequency,
            _ => Self::Nothing,
        }
    }
}

/// The time from the start of a round to the start of the next, in milliseconds: twice in the half circle.
pub(crate) const ROUND_MS: u64 = 16 * 60_000;

const TICK_BITS: u32 = 6;
/// Smaller values are generations, 0 the oldest.
const GENERATIONS: u16 = 256;
const CIRCLE: u16 = u16::MAX - GENERATIONS + 1;

const _: () = assert!(2 * ROUND_MS < ((CIRCLE / 2) as u64) << TICK_BITS);

/// What a key that was never used again counts, so that it has a chance to be.
const COUNT_AT_FIRST: u8 = 5;
/// How much rarer it gets for a count to grow, for each that it has.
const LOG_FACTOR: u64 = 10;
const MINUTE_MS: u64 = 60_000;

fn tick(now_ms: u64) -> u16 {
    GENERATIONS + ((now_ms >> TICK_BITS) % u64::from(CIRCLE)) as u16
}

/// Ticks since a moment that is not a generation.
fn ticks_since(now_ms: u64, heat: u16) -> u16 {
    let (now, heat) = (u32::from(tick(now_ms)), u32::from(heat));
    (if now >= heat { now - heat } else { now + u32::from(CIRCLE) - heat }) as u16
}

const fn minute(now_ms: u64) -> u8 {
    (now_ms / MINUTE_MS) as u8
}

const fn minutes_since(now_ms: u64, heat: u16) -> u8 {
    minute(now_ms).wrapping_sub((heat >> 8) as u8)
}

const fn count(now_ms: u64, heat: u16) -> u8 {
    (heat as u8).saturating_sub(minutes_since(now_ms, heat))
}

const fn frequency(now_ms: u64, count: u8) -> u16 {
    (minute(now_ms) as u16) << 8 | count as u16
}

/// The heat of a new key.
#[inline]
pub(crate) fn first(kind: Kind, now_ms: u64) -> u16 {
    match kind {
        Kind::Nothing => 0,
        Kind::Recency => tick(now_ms),
        Kind::Frequency => frequency(now_ms, COUNT_AT_FIRST),
    }
}

/// The heat of a key that is used again. `chance` is asked for a number taken by chance.
#[inline]
pub(crate) fn again(kind: Kind, now_ms: u64, heat: u16, chance: impl FnOnce() -> u64) -> u16 {
    match kind {
        Kind::Nothing => 0,
        Kind::Recency => tick(now_ms),
        Kind::Frequency => {
            let count = count(now_ms, heat);
            let above = u64::from(count.saturating_sub(COUNT_AT_FIRST));
            let grows = count < u8::MAX && ((chance() >> 32) * (above * LOG_FACTOR + 1)) >> 32 == 0;
            frequency(now_ms, count + u8::from(grows))
        }
    }
}

/// How cold a key is: the coldest goes first.
pub(crate) fn coldness(kind: Kind, now_ms: u64, heat: u16) -> u64 {
    match kind {
        Kind::Nothing => 0,
        Kind::Recency if heat < GENERATIONS => u64::from(CIRCLE + (GENERATIONS - 1 - heat)),
        Kind::Recency => u64::from(ticks_since(now_ms, heat)),
        // Among those of one count the one that had it for longer.
        Kind::Frequency => {
            u64::from(u8::MAX - count(now_ms, heat)) << 8 | u64::from(minutes_since(now_ms, heat))
        }
    }
}

/// How a key was used, as far as its heat says: an idle time beyond half the circle is one of whole rounds.
pub(crate) fn usage(kind: Kind, now_ms: u64, heat: u16) -> Option<Usage> {
    match kind {
        Kind::Nothing => None,
        Kind::Recency if heat < GENERATIONS => {
            let rounds = u64::from(GENERATIONS - 1 - heat);
            Some(Usage::IdleMs((u64::from(CIRCLE / 2) << TICK_BITS) + rounds * ROUND_MS))
        }
        Kind::Recency => Some(Usage::IdleMs(u64::from(ticks_since(now_ms, heat)) << TICK_BITS)),
        Kind::Frequency => Some(Usage::Frequency(count(now_ms, heat))),
    }
}

/// What a round makes of a heat.
#[inline]
pub(crate) fn grow_old(kind: Kind, now_ms: u64, heat: u16) -> u16 {
    match kind {
        Kind::Nothing => 0,
        Kind::Recency if heat < GENERATIONS => heat.saturating_sub(1),
        Kind::Recency if ticks_since(now_ms, heat) >= CIRCLE / 2 => GENERATIONS - 1,
        Kind::Recency => heat,
        Kind::Frequency => frequency(now_ms, count(now_ms, heat)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_later_is_never_colder_also_over_days() {
        // One key each minute, with a round every 16 minutes.
        let mut heats: alloc::vec::Vec<u16> = alloc::vec::Vec::new();
        for minutes in 0..3 * 24 * 60u64 {
            let now = (1 << 33) + minutes * MINUTE_MS;
            heats.push(first(Kind::Recency, now));
            if minutes % 16 == 0 {
                for heat in &mut heats {
                    *heat = grow_old(Kind::Recency, now, *heat);
                }
                let cold: alloc::vec::Vec<u64> =
                    heats.iter().map(|heat| coldness(Kind::Recency, now, *heat)).collect();
                assert!(cold.is_sorted_by(|older, newer| older >= newer), "after {minutes}");
            }
        }
        let end = (1 << 33) + 3 * 24 * 60 * MINUTE_MS;
        assert!(
            coldness(Kind::Recency, end, heats[0]) > coldness(Kind::Recency, end, heats[2000]),
            "a day's difference is still seen"
        );
    }

    #[test]
    fn the_idle_time_is_told_in_ticks_and_then_in_rounds() {
        let start = 1 << 40;
        let mut heat = first(Kind::Recency, start);
        assert_eq!(usage(Kind::Recency, start + 640, heat), Some(Usage::IdleMs(640)));
        let mut now = start;
        for _ in 0..20 {
            now += ROUND_MS;
            heat = grow_old(Kind::Recency, now, heat);
            let Some(Usage::IdleMs(idle)) = usage(Kind::Recency, now, heat) else { panic!() };
            assert!(idle.abs_diff(now - start) <= 2 * ROUND_MS, "{idle} of {}", now - start);
        }
        let counted = first(Kind::Frequency, start);
        assert_eq!(usage(Kind::Frequency, start, counted), Some(Usage::Frequency(COUNT_AT_FIRST)));
        assert_eq!(usage(Kind::Nothing, start, 0), None);
    }

    #[test]
    fn recency_tells_tenths_of_a_second_apart() {
        for now in [0u64, 12_345, (u64::from(CIRCLE) << TICK_BITS) - 50, 1 << 40] {
            let (first, second) =
                (first(Kind::Recency, now), again(Kind::Recency, now + 100, 0, || 0));
            let then = now + 150;
            assert!(
                coldness(Kind::Recency, then, first) > coldness(Kind::Recency, then, second),
                "{now}"
            );
        }
    }

    #[test]
    fn counts_grow_ever_slower_and_fall_by_one_a_minute() {
        let mut state = 1u64;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        };
        let mut heat = first(Kind::Frequency, 0);
        let mut uses = [0; 3];
        for (i, until) in [10u8, 20, 40].into_iter().enumerate() {
            while count(0, heat) < until {
                heat = again(Kind::Frequency, 0, heat, &mut chance);
                uses[i] += 1;
            }
        }
        assert!(uses[0] > 40 && uses[1] > 3 * uses[0] && uses[2] > uses[1], "{uses:?}");
        assert_eq!(count(15 * MINUTE_MS, heat), 25);
        let later = 200 * MINUTE_MS;
        heat = grow_old(Kind::Frequency, later, heat);
        assert_eq!((count(later, heat), count(later + 100 * MINUTE_MS, heat)), (0, 0));
        assert!(
            coldness(Kind::Frequency, later, heat)
                > coldness(Kind::Frequency, later, first(Kind::Frequency, later))
        );
    }
}
