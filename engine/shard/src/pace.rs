//! How much one call into a shard does before it lets others have their turn.
//!
//! The driver's clock is not known here, so work is counted: in units of about a quarter of a microsecond, most of all
//! for what is long. A connection that has more waits for the end of the turn; what other shards asked for is executed
//! in part. What a command does to its keys is not cut. What looks at all keys, or describes many commands, goes in steps of its own
//! (`walk`); the commands of publish and subscribe, and the look whether a user may execute a request, end when the call has done
//! enough, and go on from there when the request is tried again. Memory that others must leave first is a reason to wait for the
//! next turn, too.

use crate::command::{Args, Now, Scope, Spec};
use crate::commands;
use crate::face::Order;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use dkv_protocol::slots::slot_of;
use dkv_table::{HEAP_BYTES_MAX, Place, Room};

/// Units after which a call ends: about 300 µs. Input that the driver gives at a time is far below it but for commands
/// with many keys, long replies or many keys looked at.
const UNITS_MAX: u32 = 1200;
/// What a SCAN or a step of a walk counts: about 100 µs.
const UNITS_OF_WALK: u32 = 400;
/// What a command counts that had to let keys go for its room: about 150 µs.
const UNITS_OF_EVICTION: u32 = 600;
/// What a connection counts that is put off to the next turn: about 2 µs, for taking it out and finding that it must wait.
/// Thousands that wait for memory would make a turn long otherwise.
const UNITS_OF_WAITING: u32 = 8;
/// Bytes of a reply that count one unit.
const BYTES_PER_UNIT: usize = 4096;
/// What a record takes besides key and value, and a little more.
const RECORD_BYTES: usize = 32;
/// A connection whose commands wait for the next turn is read on until it has so much that waits.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    spent: u32,
    /// Keys that were evicted so far.
    evicted: u64,
}

impl Pace {
    /// A call begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.spent = 0;
    }

    /// Whether the call has done enough.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.spent > UNITS_MAX
    }

    /// A command was executed; how much work it was.
    #[inline]
    pub(crate) fn spend(&mut self, spec: &Spec, args: Args<'_>, reply_bytes: usize) -> u32 {
        // A word or two besides the key of a plain command are free.
        let units = 1 + args.len() / 4 * 2 + reply_bytes / BYTES_PER_UNIT;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_add(units);
        // What gathers much without a key counts as a walk, however little comes of it.
        if spec.scope == Scope::Cursor || spec.long && spec.first_key == 0 {
            self.walked();
            return units.saturating_add(UNITS_OF_WALK);
        }
        units
    }

    /// So many keys were ever evicted: when they are more than before, a command has worked for its room.
    #[inline]
    pub(crate) fn evicted(&mut self, ever: u64) {
        if ever != self.evicted {
            self.evicted = ever;
            self.spent = self.spent.saturating_add(UNITS_OF_EVICTION);
        }
    }

    /// Work of so many units was done.
    #[inline]
    pub(crate) fn work(&mut self, units: usize) {
        self.spent = self.spent.saturating_add(u32::try_from(units).unwrap_or(u32::MAX));
    }

    /// A connection was put off.
    pub(crate) fn put_off(&mut self) {
        self.spent = self.spent.saturating_add(UNITS_OF_WAITING);
    }

    /// Many keys were looked at.
    pub(crate) fn walked(&mut self) {
        self.spent = self.spent.saturating_add(UNITS_OF_WALK);
    }
}

impl Shard {
    /// Whether a write may run as far as memory goes: when its store has a limit and lets keys go for new ones, they go
    /// in slices, one a turn, and the write waits. One for which nothing can be done runs, and is refused by the table.
    pub(crate) fn has_room(
        &mut self,
        now: Now,
        spec: &Spec,
        place: Option<Place>,
        args: Args<'_>,
    ) -> bool {
        if self.env.settings.memory_bytes_max.get() == 0
            || !spec.write
            || !spec.flags.contains(&"denyoom")
        {
            return true;
        }
        if self.starved {
            return false;
        }
        let bytes = self.growth(now, spec, place, args);
        self.starved = self.table.make_room(now.boot_ms(), bytes) == Room::More;
        !self.starved
    }

    /// How many bytes a write may need. What was received into memory of its own is counted already, and is kept as it is
    /// but by APPEND, which copies it behind the old value.
    fn growth(&self, now: Now, spec: &Spec, place: Option<Place>, args: Args<'_>) -> u64 {
        let inside = (1..args.len()).filter(|i| args.large(*i).is_none());
        let mut bytes = inside.map(|i| args.get(i).len() + RECORD_BYTES).sum::<usize>();
        if spec.name == "APPEND" {
            bytes += args.large(2).map_or(0, |added| added.len());
            // The old value may move to a place with room to grow; a longer one grows where it is.
            let old = place.and_then(|at| self.table.get(now.boot_ms(), at, args.get(1)));
            bytes +=
                old.map(|old| old.value.len()).filter(|len| *len <= HEAP_BYTES_MAX).unwrap_or(0);
        }
        bytes += self.growth_beyond(now, spec, place, args);
        // A record takes the next size that there is.
        (bytes + bytes / 4) as u64
    }

    /// What a command writes besides its arguments: values of other keys, and the zeros before an offset.
    fn growth_beyond(&self, now: Now, spec: &Spec, place: Option<Place>, args: Args<'_>) -> usize {
        let len_of = |key: &[u8]| {
            let at = self.table.place(key, slot_of(key).0);
            self.table.get_quietly(now.boot_ms(), at, key)
        };
        let old = || {
            let key = spec.routing_key(args)?;
            self.table.get_quietly(now.boot_ms(), place?, key)
        };
        match spec.name {
            "SETRANGE" | "SETBIT" | "BITFIELD" => {
                let old = old().map_or(0, |old| old.value.len());
                let end = commands::end_of_write(spec, args);
                // A value that grows may move.
                if end > old { end - old + old.min(HEAP_BYTES_MAX) } else { 0 }
            }
            // A great value is shared, not copied.
            "COPY" => len_of(args.get(1))
                .filter(|old| old.large.is_none())
                .map_or(0, |old| old.value.len()),
            "BITOP" => args
                .iter_from(3)
                .filter_map(|key| Some(len_of(key)?.value.len()))
                .max()
                .unwrap_or(0),
            _ => 0,
        }
    }

    /// A connection goes on at the end of the turn.
    #[cold]
    pub(crate) fn later(&mut self, session: &mut Session) {
        session.stall = Stall::Turn;
        session.waits_from(self.now);
        self.pace.put_off();
        self.later.push_back(session.id);
    }

    /// A stalled connection has got more bytes. One that only waits for the next turn is read on for a while: to stop
    /// reading costs more than the turn.
    pub(crate) fn kept(&mut self, session: &mut Session) {
        if !session.paused && session.input.len() > WAITING_BYTES_MAX {
            session.paused = true;
            self.orders.push(Order::Pause(session.id));
        }
    }

    /// Goes on with connections that had to wait for the end of the turn. Whether some still wait.
    pub(crate) fn go_on_later(&mut self, now: Now) -> bool {
        self.pace.begin();
        for _ in 0..self.later.len() {
            if self.pace.is_over() {
                break;
            }
            let Some(id) = self.later.pop_front() else { break };
            let Some(mut session) = self.sessions.take(id) else { continue };
            if session.stall == Stall::Turn && session.end == End::No {
                self.go_on(now, &mut session);
            }
            self.settle(session);
        }
        !self.later.is_empty()
    }
}
