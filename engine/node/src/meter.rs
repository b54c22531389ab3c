//! How long a shard's work takes, in CPU time of its thread: the longest piece, the longest turn, and how many were stalls.
//!
//! Whoever waits behind a piece of work waits for its CPU time; what the machine gave to others meanwhile is not the
//! shard's doing. That clock costs a system call, so it is read only when the wall clock, which costs next to nothing
//! and never shows less, says that there may be something to tell. What was used up to the beginning of a piece is
//! known from the last reading, which is at most [`MARK_NS`] old; so a figure may be that much too great, never too
//! small.

use dkv_io::clock::thread_cpu_ns;
use dkv_shard::stats::ShardStats;

/// A piece of work, or a turn, that takes longer is a stall.
const STALL_NS: u64 = 1_000_000;
/// Age at which a reading of the CPU clock is replaced. The clock costs about 0.25 µs.
const MARK_NS: u64 = 200_000;

/// A moment on both clocks. The CPU time is that of a reading at the moment or shortly before.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    wall_ns: u64,
    cpu_ns: u64,
}

/// See the module. Times of the wall clock are those of one clock, whichever.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The last reading of both clocks.
    mark: Moment,
    turn: Moment,
    piece: Moment,
    clock: fn() -> u64,
}

impl Meter {
    pub(crate) fn new(wall_ns: u64) -> Self {
        Self::with(wall_ns, thread_cpu_ns)
    }

    fn with(wall_ns: u64, clock: fn() -> u64) -> Self {
        let mark = Moment { wall_ns, cpu_ns: clock() };
        Self { mark, turn: mark, piece: mark, clock }
    }

    fn read(&mut self, wall_ns: u64) {
        self.mark = Moment { wall_ns, cpu_ns: (self.clock)() };
    }

    fn moment(&mut self, wall_ns: u64) -> Moment {
        if wall_ns.saturating_sub(self.mark.wall_ns) > MARK_NS {
            self.read(wall_ns);
        }
        Moment { wall_ns, cpu_ns: self.mark.cpu_ns }
    }

    /// The system call that waits is over.
    pub(crate) fn turn_begins(&mut self, wall_ns: u64) {
        self.turn = self.moment(wall_ns);
        self.piece = self.turn;
    }

    /// When the piece of work that goes on began.
    pub(crate) fn piece_began_ns(&self) -> u64 {
        self.piece.wall_ns
    }

    /// A piece of work is done: events of some connections, a batch, a slice of the background. The next one begins.
    #[inline]
    pub(crate) fn piece_ends(&mut self, wall_ns: u64, what: &'static str, stats: &ShardStats) {
        let took_ns = wall_ns.saturating_sub(self.piece.wall_ns);
        if took_ns > STALL_NS || took_ns / 1000 > stats.piece_us_max.get() {
            let used_ns = self.used_since(self.piece, wall_ns);
            stats.piece_us_max.raise(used_ns.div_ceil(1000));
            stats.stalls.add(u64::from(used_ns > STALL_NS));
            if used_ns > STALL_NS {
                tracing::debug!(us = used_ns / 1000, what, "a piece of work took long");
            }
        }
        self.piece = self.moment(wall_ns);
    }

    /// The work of a turn is done; a last piece with it.
    pub(crate) fn turn_ends(&mut self, wall_ns: u64, stats: &ShardStats) {
        self.piece_ends(wall_ns, "end of turn", stats);
        let took_ns = wall_ns.saturating_sub(self.turn.wall_ns);
        if took_ns > STALL_NS || took_ns / 1000 > stats.turn_us_max.get() {
            let used_ns = self.used_since(self.turn, wall_ns);
            stats.turn_us_max.raise(used_ns.div_ceil(1000));
            stats.long_turns.add(u64::from(used_ns > STALL_NS));
        }
    }

    fn used_since(&mut self, begin: Moment, wall_ns: u64) -> u64 {
        self.read(wall_ns);
        let used_ns = self.mark.cpu_ns.saturating_sub(begin.cpu_ns);
        used_ns.min(wall_ns.saturating_sub(begin.wall_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static CPU: Cell<u64> = const { Cell::new(0) };
        static READINGS: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> u64 {
        READINGS.set(READINGS.get() + 1);
        CPU.get()
    }

    struct Rig {
        meter: Meter,
        stats: ShardStats,
        wall_ns: u64,
    }

    impl Rig {
        fn new() -> Self {
            let wall_ns = 1_000_000_000;
            CPU.set(0);
            Self { meter: Meter::with(wall_ns, clock), stats: ShardStats::default(), wall_ns }
        }

        /// Passes so much time, of which the thread ran so long.
        fn pass(&mut self, wall_us: u64, cpu_us: u64) {
            self.wall_ns += wall_us * 1000;
            CPU.set(CPU.get() + cpu_us * 1000);
        }

        fn turn(&mut self, pieces: &[(u64, u64)]) {
            self.meter.turn_begins(self.wall_ns);
            for (wall_us, cpu_us) in pieces {
                self.pass(*wall_us, *cpu_us);
                self.meter.piece_ends(self.wall_ns, "test", &self.stats);
            }
            self.meter.turn_ends(self.wall_ns, &self.stats);
        }

        fn said(&self) -> [u64; 4] {
            let stats = &self.stats;
            [&stats.piece_us_max, &stats.stalls, &stats.turn_us_max, &stats.long_turns]
                .map(dkv_shard::stats::Counter::get)
        }
    }

    #[test]
    fn the_longest_piece_and_turn_are_told_and_stalls_counted() {
        let mut rig = Rig::new();
        rig.turn(&[(300, 300), (500, 500), (100, 100)]);
        assert_eq!(rig.said(), [500, 0, 900, 0]);
        rig.turn(&[(700, 700), (700, 700)]);
        assert_eq!(rig.said(), [700, 0, 1400, 1], "many short pieces are no stall of one");
        rig.turn(&[(2000, 2000)]);
        assert_eq!(rig.said(), [2000, 1, 2000, 2]);
    }

    #[test]
    fn time_that_others_had_does_not_count() {
        let mut rig = Rig::new();
        rig.turn(&[(300, 300)]);
        rig.pass(1_000_000, 10);
        rig.turn(&[(5_000, 400)]);
        assert_eq!(rig.said(), [400, 0, 400, 0]);
        rig.turn(&[(250, 250), (5_000, 1_200)]);
        assert_eq!(rig.said(), [1200, 1, 1450, 1]);
    }

    #[test]
    fn short_turns_hardly_ever_read_the_clock() {
        let mut rig = Rig::new();
        rig.turn(&[(100, 100)]);
        let before = READINGS.get();
        for _ in 0..1000 {
            rig.turn(&[(5, 5), (5, 5)]);
        }
        let readings = READINGS.get() - before;
        assert!((1..=60).contains(&readings), "{readings} in 10 ms");
    }
}
