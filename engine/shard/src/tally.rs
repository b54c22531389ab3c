//! How often each command was executed and how long it took, for INFO and LATENCY HISTOGRAM; and which took so long that
//! somebody should know, for SLOWLOG and LATENCY.
//!
//! A look at the clock for each command would be a tenth of what a GET costs. The driver looks at it after every piece of work
//! anyway, so what a piece took is spread over its commands, each by the work that `pace` counts for it. A command that
//! may be long is timed by itself; so is every one while SLOWLOG is to have commands that no piece would be long for.

use crate::command::{Args, Spec};
use crate::commands;
use crate::session::Session;
use crate::shard::Shard;
use crate::slowlog::{Slow, SlowReply, Times, Who};
use alloc::vec::Vec;

/// Commands with so many arguments are timed by themselves.
const ARGUMENTS_LONG: usize = 64;
/// When SLOWLOG is to have what is shorter, every command is timed by itself, in microseconds.
const TIMED_BELOW_US: i64 = 1000;

/// The most units that one command counts, so that those of a piece fit beside their number.
const UNITS_MAX: u32 = u16::MAX as u32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tally {
    /// By the command's number: how many there were in this piece of work, and in the lower half how many units they were.
    ones: Vec<u64>,
    /// The numbers of those that are not zero.
    touched: Vec<u16>,
    /// What was timed by itself in this piece, nanoseconds.
    timed_ns: u64,
    /// Whether each command is timed by itself.
    pub(crate) each: bool,
    /// Whether it is counted how often keys are used.
    pub(crate) hot: bool,
    /// From how long on a command is for SLOWLOG, and a piece or command for LATENCY; [`u64::MAX`] is never.
    pub(crate) slow_ns: u64,
    pub(crate) spike_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            ones: alloc::vec![0; commands::NUMBERS],
            touched: Vec::with_capacity(commands::NUMBERS),
            timed_ns: 0,
            each: false,
            hot: false,
            slow_ns: u64::MAX,
            spike_ns: u64::MAX,
        }
    }
}

impl Tally {
    /// Settings as they are now: microseconds, negative for never; milliseconds, 0 for never.
    pub(crate) fn follow(&mut self, slower_than_us: i64, threshold_ms: u64) {
        self.slow_ns = u64::try_from(slower_than_us).map_or(u64::MAX, |us| us.saturating_mul(1000));
        self.each = (0..TIMED_BELOW_US).contains(&slower_than_us);
        self.spike_ns = match threshold_ms {
            0 => u64::MAX,
            ms => ms.saturating_mul(1_000_000),
        };
    }

    /// A command was executed, which was so much work.
    #[inline]
    pub(crate) fn executed(&mut self, number: u16, units: u32) {
        let Some(one) = self.ones.get_mut(usize::from(number)) else { return };
        if *one == 0 {
            self.touched.push(number);
        }
        *one += 1 << 32 | u64::from(units.min(UNITS_MAX));
    }
}

/// A command that is being timed by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    began_ns: u64,
}

impl Shard {
    /// Begins to time a command, if it is one that is timed by itself.
    #[inline]
    pub(crate) fn begin_timing(&self, spec: &Spec, args: Args<'_>) -> Option<Timing> {
        let long = self.tally.each | spec.long | (args.len() >= ARGUMENTS_LONG);
        long.then(|| Timing { began_ns: (self.env.clock)() })
    }

    /// A command has been executed; what it replied was an error or not. Returns what is known of it when it was slow.
    #[inline]
    pub(crate) fn executed(
        &mut self,
        number: u16,
        units: u32,
        timing: Option<Timing>,
        args: Args<'_>,
        who: &Who<'_>,
    ) -> Option<SlowReply> {
        if self.tally.hot {
            self.note_keys(args);
        }
        match timing {
            None => {
                self.tally.executed(number, units);
                None
            }
            Some(timing) => self.timed(number, timing, args, who),
        }
    }

    /// The same of a client of this shard, whose reply stands behind all it is to be sent.
    #[inline]
    pub(crate) fn executed_for(
        &mut self,
        session: &mut Session,
        number: u16,
        units: u32,
        timing: Option<Timing>,
        args: Args<'_>,
    ) {
        if let Some(slow) = self.executed(number, units, timing, args, &Who::Client(session)) {
            session.time_flush(slow);
        }
    }

    #[cold]
    fn timed(
        &mut self,
        number: u16,
        timing: Timing,
        args: Args<'_>,
        who: &Who<'_>,
    ) -> Option<SlowReply> {
        let executed_ns = (self.env.clock)();
        let ns = executed_ns.saturating_sub(timing.began_ns);
        let mut reply = None;
        self.tally.timed_ns += ns;
        self.stats.executed.add(1);
        self.stats.executing_ns.add(ns);
        self.stats.of_commands.executed(
            number,
            1,
            ns,
            self.env.settings.latency_tracking.get() == 1,
        );
        if ns >= self.tally.slow_ns {
            let len_max = self.env.settings.slowlog_len_max.get() as usize;
            let id = self.env.settings.next_slow_id();
            let unix_s = self.now.unix_ms / 1000;
            let came_ns = match who {
                Who::Client(session) if session.waits_since_ns > 0 => session.waits_since_ns,
                _ => self.now.boot_ns,
            };
            let queue_us = timing.began_ns.saturating_sub(came_ns) / 1000;
            let times = Times { queue_us, us: ns / 1000, flush_us: None };
            self.slow.add(Slow::new((id, unix_s), times, args, who, &self.map), len_max);
            reply = Some(SlowReply { id, executed_ns });
        }
        if ns >= self.tally.spike_ns {
            let fast = commands::flags_of(number).contains(&"fast");
            self.spikes.add(if fast { "fast-command" } else { "command" }, self.now, ns);
        }
        reply
    }

    /// A piece of work took so long, and `what` it was.
    #[inline]
    pub fn took(&mut self, what: Piece, ns: u64) {
        // What was timed by itself has been told.
        let ns = ns.saturating_sub(core::mem::take(&mut self.tally.timed_ns));
        if !self.tally.touched.is_empty() {
            self.spread(ns);
        }
        if ns >= self.tally.spike_ns {
            self.spike(what, ns);
        }
    }

    /// Spreads the time of a piece over its commands.
    fn spread(&mut self, ns: u64) {
        let tally = &mut self.tally;
        let units_of = |one: u64| one & u64::from(u32::MAX);
        let all = tally.touched.iter().map(|number| units_of(tally.ones[usize::from(*number)]));
        let units = all.sum::<u64>().max(1);
        let tracked = self.env.settings.latency_tracking.get() == 1;
        self.stats.executing_ns.add(ns);
        let mut count = 0;
        for number in tally.touched.drain(..) {
            let one = core::mem::take(&mut tally.ones[usize::from(number)]);
            count += one >> 32;
            let part = (u128::from(ns) * u128::from(units_of(one)) / u128::from(units)) as u64;
            self.stats.of_commands.executed(number, one >> 32, part, tracked);
        }
        self.stats.executed.add(count);
    }

    #[cold]
    fn spike(&mut self, what: Piece, ns: u64) {
        let event = match what {
            Piece::Commands => "command",
            Piece::Output => "output",
            Piece::Background if self.evicted_lately => "eviction-cycle",
            Piece::Background => "expire-cycle",
        };
        self.spikes.add(event, self.now, ns);
    }
}

/// What a driver did in a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Requests of clients or of other shards, and what came with them.
    Commands,
    /// Sending.
    Output,
    /// [`Shard::background`].
    Background,
}
