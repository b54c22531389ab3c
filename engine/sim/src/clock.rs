//! The clocks of a machine: boot time, which runs a little fast or slow and has an origin of its own, and the calendar,
//! which somebody may set.
//!
//! Only their readings reach the code under test; true time stays with the scheduler.

/// Parts of a million.
const MILLION: u64 = 1_000_000;

/// The clocks of one machine.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Readings at the last change of the rate.
    base_true_ns: u64,
    base_boot_ns: u64,
    /// How many millionths of a second pass on it in a true second.
    rate_ppm: u64,
    calendar_offset_ms: i64,
}

impl Clock {
    /// A machine that has been up for a while.
    pub fn new(up_ns: u64, rate_ppm: u64, calendar_offset_ms: i64) -> Self {
        Self { base_true_ns: 0, base_boot_ns: up_ns, rate_ppm, calendar_offset_ms }
    }

    /// `CLOCK_BOOTTIME`.
    pub fn boot_ns(&self, true_ns: u64) -> u64 {
        let passed = u128::from(true_ns - self.base_true_ns) * u128::from(self.rate_ppm);
        self.base_boot_ns + (passed / u128::from(MILLION)) as u64
    }

    /// The true moment at which boot time will have come to a reading.
    pub fn true_ns(&self, boot_ns: u64) -> u64 {
        let ahead = u128::from(boot_ns.saturating_sub(self.base_boot_ns)) * u128::from(MILLION);
        // Rounded up, so that a timer never fires before its moment.
        self.base_true_ns + ahead.div_ceil(u128::from(self.rate_ppm)) as u64
    }

    /// What the calendar says.
    pub fn calendar_ms(&self, true_ns: u64) -> u64 {
        let ms = (self.boot_ns(true_ns) / MILLION) as i64;
        ms.saturating_add(self.calendar_offset_ms).max(0) as u64
    }

    /// Boot time goes on from here at another rate.
    pub fn set_rate(&mut self, true_ns: u64, rate_ppm: u64) {
        self.base_boot_ns = self.boot_ns(true_ns);
        self.base_true_ns = true_ns;
        self.rate_ppm = rate_ppm;
    }

    /// Somebody sets the calendar.
    pub fn jump_calendar(&mut self, by_ms: i64) {
        self.calendar_offset_ms += by_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_has_a_rate_and_never_goes_back() {
        let mut clock = Clock::new(500, 1_020_000, 7);
        assert_eq!(clock.boot_ns(1_000_000), 500 + 1_020_000);
        clock.set_rate(1_000_000, 980_000);
        assert_eq!(clock.boot_ns(2_000_000), 500 + 1_020_000 + 980_000);
        let before = clock.boot_ns(3_000_000);
        clock.jump_calendar(-3_600_000);
        assert_eq!(clock.boot_ns(3_000_000), before, "a jump of the calendar moved boot time");
        assert_eq!(clock.calendar_ms(3_000_000), 0);
    }

    #[test]
    fn a_timer_fires_at_its_reading_or_just_after() {
        for rate_ppm in [980_000, 1_000_000, 1_020_000, 1_400_000] {
            let clock = Clock::new(123_456, rate_ppm, 0);
            for boot_ns in [123_456, 123_457, 200_001, 999_999_999] {
                let at = clock.boot_ns(clock.true_ns(boot_ns));
                assert!((boot_ns..boot_ns + 2).contains(&at), "{rate_ppm} {boot_ns} {at}");
            }
        }
    }
}
