//! Coarse moments of expiry, 16 bits, for the hints of buckets.
//!
//! A tick is 128 ms of the clock, counted modulo 2^16, and never later than the expiry it stands for. Ticks are compared
//! within half a circle (70 minutes): an expiry further away than [`HORIZON_MS`] is written as the horizon, and found to
//! be early when its turn comes; hints that nobody looked at for [`STALE_MS`] are all taken as due.

const TICK_BITS: u32 = 7;

/// The furthest expiry that a hint expresses, in milliseconds.
pub(crate) const HORIZON_MS: u64 = 0x6000 << TICK_BITS;
/// The time after which hints could be mistaken for later ones, in milliseconds.
pub(crate) const STALE_MS: u64 = 0x0800 << TICK_BITS;
/// No expiry.
pub(crate) const NONE: u16 = 0;

const _: () = assert!(HORIZON_MS + 2 * STALE_MS < 0x8000 << TICK_BITS);

const fn of_moment(ms: u64) -> u16 {
    match (ms >> TICK_BITS) as u16 {
        // 0 stands for none: one tick earlier does as well.
        0 => u16::MAX,
        tick => tick,
    }
}

/// The hint for an expiry.
#[inline]
pub(crate) fn of(now_ms: u64, expires_at_ms: Option<u64>) -> u16 {
    match expires_at_ms {
        None => NONE,
        Some(at) => of_moment(at.clamp(now_ms, now_ms.saturating_add(HORIZON_MS))),
    }
}

/// Whether the hint's time has come.
#[inline]
pub(crate) const fn due(now_ms: u64, tick: u16) -> bool {
    tick != NONE && ((now_ms >> TICK_BITS) as u16).wrapping_sub(tick) as i16 >= 0
}

/// The earlier of two hints.
#[inline]
pub(crate) const fn earlier(a: u16, b: u16) -> u16 {
    if a == NONE || b != NONE && (b.wrapping_sub(a) as i16) < 0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_due_when_its_expiry_has_come_and_not_a_tick_before() {
        for now in [0u64, 127, 128 * 65_535, 128 * 65_536, 1 << 40] {
            for after in [0u64, 1, 1000, 100_000, HORIZON_MS] {
                let tick = of(now, Some(now + after));
                assert_ne!(tick, NONE);
                assert!(due(now + after, tick), "{now} {after}");
                if after >= 384 {
                    assert!(!due(now + after - 384, tick), "{now} {after}");
                }
            }
        }
        assert!(!due(5, NONE));
    }

    #[test]
    fn the_earlier_hint_wins_over_the_end_of_the_circle() {
        let now = 128 * 65_530;
        let (soon, late) = (of(now, Some(now + 128)), of(now, Some(now + 128 * 100)));
        assert_eq!((earlier(soon, late), earlier(late, soon)), (soon, soon));
        assert_eq!((earlier(NONE, late), earlier(late, NONE)), (late, late));
    }
}
