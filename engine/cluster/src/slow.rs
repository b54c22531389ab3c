//! Copies that answer, but late. Every write waits for each copy that counts, so one that is stopped for a fifth of a second
//! again and again, or behind a link that loses packets, makes all writes as slow as itself and is never gone for a lease.
//! So its lateness is added up, and above a bound it is let go like one that is gone (R11 b). It comes back when it keeps
//! up, later each time that it had to go.
//!
//! Whoever judges others has to be punctual itself: on a machine where this thread does not get its turns, everybody looks
//! late. And a copy that the store must have is kept, however late it is.

use crate::Settings;

const MS: u64 = 1_000_000;
/// What is longer on its way than this is late.
const LATE_NS: u64 = 50 * MS;
/// So much lateness is too much, and more than the second number is not counted. Time in which nothing is late takes a
/// quarter of itself away.
const TOO_MUCH_NS: u64 = 600 * MS;
const COUNTED_NS_MAX: u64 = 750 * MS;
const FORGIVEN: u64 = 4;
/// For how long one that had to go is not let in again: the first time, and at the most.
const BARRED_NS_MIN: u64 = 2000 * MS;
const BARRED_NS_MAX: u64 = 8000 * MS;
/// After so long without having to go it begins anew.
const FORGOTTEN_NS: u64 = 60_000 * MS;
/// A pass that comes later than so many ticks after the last one says that this thread is late itself, and for how long
/// nobody is judged then.
const OWN_TICKS_MAX: u64 = 3;
const UNJUDGED_NS: u64 = 500 * MS;

/// Whether this thread had its turns in time, so that it may judge others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Punctuality {
    last_ns: u64,
    judges_from_ns: u64,
}

impl Punctuality {
    /// At each pass: the time since the last one, or `None` while nobody can be judged.
    pub(crate) const fn pass(&mut self, now_ns: u64, settings: &Settings) -> Option<u64> {
        let passed_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        if passed_ns > OWN_TICKS_MAX * settings.tick_ns {
            self.judges_from_ns = now_ns + UNJUDGED_NS;
        }
        if now_ns >= self.judges_from_ns { Some(passed_ns) } else { None }
    }
}

/// How late a place is with what it acknowledges.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "they are times")]
pub(crate) struct Lateness {
    /// The longest that something waits for it, as of this pass; `None`: there is no copy there that something could wait for.
    waits_ns: Option<u64>,
    /// Lateness of the last time.
    sum_ns: u64,
    /// When a copy there had to go last, and for how long none is let in since.
    went_ns: u64,
    barred_ns: u64,
}

impl Lateness {
    /// In a pass, of each copy there: something waits for it for so long, or nothing does.
    pub(crate) fn waits(&mut self, ns: u64) {
        self.waits_ns = self.waits_ns.max(Some(ns));
    }

    /// At the end of a pass, `passed_ns` after the last one; `None`: nobody can be judged.
    pub(crate) fn pass(&mut self, passed_ns: Option<u64>) {
        self.sum_ns = match passed_ns.zip(self.waits_ns.take()) {
            None => 0,
            Some((passed_ns, LATE_NS..)) => (self.sum_ns + passed_ns).min(COUNTED_NS_MAX),
            Some((passed_ns, _)) => self.sum_ns.saturating_sub(passed_ns / FORGIVEN),
        };
    }

    /// Whether copies there have to go.
    pub(crate) const fn is_too_much(&self) -> bool {
        self.sum_ns >= TOO_MUCH_NS
    }

    /// A copy there has to go. Those of several ranges go one after the other, as these are written to; that is once.
    pub(crate) fn goes(&mut self, now_ns: u64) {
        if now_ns >= self.went_ns + self.barred_ns || self.barred_ns == 0 {
            let again = self.barred_ns > 0 && now_ns < self.went_ns + FORGOTTEN_NS;
            let longer = if again { 2 * self.barred_ns } else { BARRED_NS_MIN };
            self.barred_ns = longer.min(BARRED_NS_MAX);
            self.went_ns = now_ns;
        }
    }

    /// Whether a copy there may be required.
    pub(crate) const fn may_count(&self, now_ns: u64) -> bool {
        self.barred_ns == 0 || self.sum_ns == 0 && now_ns >= self.went_ns + self.barred_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 10 * MS;

    /// Passes over some time, each with the same wait.
    fn over(lateness: &mut Lateness, ms: u64, waits_ms: u64) {
        for _ in 0..ms / 10 {
            lateness.waits(waits_ms * MS);
            lateness.pass(Some(TICK_NS));
        }
    }

    #[test]
    fn a_place_that_is_late_again_and_again_is_too_late_within_a_second_and_a_half() {
        let mut lateness = Lateness::default();
        let mut ms = 0;
        while !lateness.is_too_much() {
            over(&mut lateness, 150, 100);
            over(&mut lateness, 70, 1);
            ms += 220;
        }
        assert!(ms <= 1300, "{ms}");
    }

    #[test]
    fn what_is_late_once_in_a_while_may_stay() {
        let mut lateness = Lateness::default();
        over(&mut lateness, 500, 400);
        for _ in 0..100 {
            over(&mut lateness, 1000, 20);
            over(&mut lateness, 200, 100);
            assert!(!lateness.is_too_much());
        }
    }

    #[test]
    fn who_had_to_go_comes_back_when_it_keeps_up_and_later_the_next_time() {
        let mut lateness = Lateness::default();
        assert!(lateness.may_count(0));
        let mut now_ns = 0;
        for barred_ms in [2000, 4000, 8000, 8000] {
            over(&mut lateness, 900, 100);
            assert!(lateness.is_too_much());
            now_ns += 20_000 * MS;
            lateness.goes(now_ns);
            // Of the next range.
            lateness.goes(now_ns + 5 * MS);
            let end_ns = now_ns + barred_ms * MS;
            assert!(!lateness.may_count(end_ns), "it is late still");
            over(&mut lateness, 3000, 1);
            assert!(!lateness.may_count(end_ns - MS) && lateness.may_count(end_ns), "{barred_ms}");
        }
        over(&mut lateness, 600, 100);
        now_ns += 100_000 * MS;
        lateness.goes(now_ns);
        over(&mut lateness, 3000, 1);
        assert!(lateness.may_count(now_ns + BARRED_NS_MIN), "long ago");
    }

    #[test]
    fn of_a_place_without_copies_nothing_is_known() {
        let mut lateness = Lateness::default();
        over(&mut lateness, 900, 100);
        lateness.pass(Some(TICK_NS));
        assert!(!lateness.is_too_much());
    }

    #[test]
    fn who_is_late_itself_judges_nobody_for_a_while() {
        let settings = Settings::default();
        let mut own = Punctuality::default();
        assert_eq!(own.pass(1000 * MS, &settings), None, "it begins");
        for ms in (1010..1500).step_by(10) {
            assert_eq!(own.pass(ms * MS, &settings), None);
        }
        assert_eq!(own.pass(1500 * MS, &settings), Some(TICK_NS));
        assert_eq!(own.pass(1530 * MS, &settings), Some(3 * TICK_NS));
        assert_eq!(own.pass(1561 * MS, &settings), None);
        let mut lateness = Lateness::default();
        over(&mut lateness, 600, 100);
        lateness.waits(100 * MS);
        lateness.pass(None);
        assert!(!lateness.is_too_much());
    }
}
