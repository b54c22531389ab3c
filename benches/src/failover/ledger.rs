//! What was written to each key and what was answered, and whether a value that is read can be right. Pure.
//!
//! Each key has one writer, who waits for each answer before the next write, and each write has a number of its own. So of a
//! key only the last numbers have to be kept, however long the load lasts: every write asks for the value before it (SET with
//! GET), which must be the last answered one, and the last of all is read at the end. A key with a write whose outcome nobody
//! knows is retired, because that write may be done at any later time: the writer goes on with a new key in its place.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys that may be retired; each takes 40 bytes. Who would retire more only reads from then on.
const RETIRED_MAX: usize = 1 << 20;

/// What a key held: the number of a write, 0 where there is no such key, none where it is a value that nobody wrote there.
pub(super) type Held = Option<u64>;

/// What is wrong with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An answered write is gone.
    Lost,
    /// It is older than what had been answered or read before it was asked for.
    Stale,
    /// Nobody wrote it, or its write was refused.
    Invented,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Answered, with what the key held before.
    Answered(Held),
    /// Refused, or never sent: nothing of it may ever be seen.
    Refused,
    /// Nobody knows.
    Uncertain,
}

/// One of the keys.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// How often its key was retired.
    generation: u32,
    /// Number of the last write that was sent.
    sent: u64,
    /// Number of the last that was answered; 0: none.
    answered: u64,
    /// The highest that was answered or read.
    seen: u64,
}

/// A key that is not written any more, because of a write whose outcome nobody knows.
#[derive(Clone, Copy, Debug)]
struct Retired {
    slot: u32,
    of: Slot,
}

/// A write that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    pub(super) slot: usize,
    pub(super) generation: u32,
    pub(super) number: u64,
}

/// A read that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) slot: usize,
    pub(super) generation: u32,
    /// What had been answered or read when it began.
    floor: u64,
}

/// What a key is to hold in the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) slot: usize,
    pub(super) generation: u32,
    answered: u64,
    seen: u64,
    /// A write that may have been done as well.
    uncertain: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    slots: Vec<Mutex<Slot>>,
    retired: Mutex<Vec<Retired>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain numbers have no broken state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(super) fn new(keys: usize) -> Self {
        Self { slots: (0..keys).map(|_| Mutex::default()).collect(), retired: Mutex::default() }
    }

    /// Begins the next write of a key; none when too many outcomes are unknown to keep one more.
    pub(super) fn write(&self, slot: usize) -> Option<Writing> {
        if lock(&self.retired).len() >= RETIRED_MAX {
            return None;
        }
        let mut own = lock(&self.slots[slot]);
        own.sent += 1;
        Some(Writing { slot, generation: own.generation, number: own.sent })
    }

    /// The write has ended. What it says of the one before it.
    pub(super) fn written(&self, write: Writing, how: Written) -> Option<Fault> {
        let mut own = lock(&self.slots[write.slot]);
        match how {
            Written::Answered(before) => {
                let fault = match before {
                    Some(number) if number == own.answered => None,
                    Some(number) if number < own.answered => Some(Fault::Lost),
                    _ => Some(Fault::Invented),
                };
                own.answered = write.number;
                own.seen = own.seen.max(write.number);
                fault
            }
            Written::Refused => None,
            Written::Uncertain => {
                let of = *own;
                *own = Slot { generation: of.generation + 1, ..Slot::default() };
                drop(own);
                lock(&self.retired).push(Retired { slot: write.slot as u32, of });
                None
            }
        }
    }

    /// Begins a read of a key.
    pub(super) fn read(&self, slot: usize) -> Reading {
        let own = lock(&self.slots[slot]);
        Reading { slot, generation: own.generation, floor: own.seen }
    }

    /// The read has ended. What is wrong with what it saw.
    pub(super) fn seen(&self, read: Reading, held: Held) -> Option<Fault> {
        let Some(number) = held else { return Some(Fault::Invented) };
        if number < read.floor {
            return Some(Fault::Stale);
        }
        let mut own = lock(&self.slots[read.slot]);
        if own.generation != read.generation {
            // Retired meanwhile: what it may hold is looked at when all is over.
            return None;
        }
        if number > own.sent {
            return Some(Fault::Invented);
        }
        own.seen = own.seen.max(number);
        None
    }

    /// All keys that were ever written, with what they are to hold when nobody writes any more.
    pub(super) fn expected(&self) -> Vec<Expected> {
        let expect = |slot: usize, of: &Slot, uncertain| Expected {
            slot,
            generation: of.generation,
            answered: of.answered,
            seen: of.seen,
            uncertain,
        };
        let live = self.slots.iter().enumerate().filter_map(|(slot, own)| {
            let own = lock(own);
            (own.sent > 0).then(|| expect(slot, &own, None))
        });
        let retired = lock(&self.retired);
        let retired = retired.iter().map(|it| expect(it.slot as usize, &it.of, Some(it.of.sent)));
        live.chain(retired).collect()
    }
}

impl Expected {
    /// What is wrong with what the key holds when nobody writes any more.
    pub(super) fn judge(&self, held: Held) -> Option<Fault> {
        let Some(number) = held else { return Some(Fault::Invented) };
        match number {
            _ if self.uncertain == Some(number) => None,
            _ if number < self.answered => Some(Fault::Lost),
            // A read saw a later one, whose outcome its writer does not know: it was done and is not any more.
            _ if number < self.seen => Some(Fault::Stale),
            _ if number == self.answered => None,
            _ => Some(Fault::Invented),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Written::{Answered, Refused, Uncertain};

    fn write(ledger: &Ledger, how: Written) -> Option<Fault> {
        let write = ledger.write(0).expect("there is room");
        ledger.written(write, how)
    }

    fn judged(ledger: &Ledger, held: Held) -> Vec<Option<Fault>> {
        ledger.expected().iter().map(|expected| expected.judge(held)).collect()
    }

    #[test]
    fn a_write_tells_whether_the_one_before_it_is_still_there() {
        let ledger = Ledger::new(1);
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        assert_eq!(write(&ledger, Answered(Some(1))), None);
        assert_eq!(write(&ledger, Answered(Some(1))), Some(Fault::Lost));
        assert_eq!(write(&ledger, Answered(Some(0))), Some(Fault::Lost));
        assert_eq!(write(&ledger, Answered(None)), Some(Fault::Invented));
        assert_eq!(write(&ledger, Refused), None);
        assert_eq!(write(&ledger, Answered(Some(6))), Some(Fault::Invented), "it was refused");
        assert_eq!(write(&ledger, Answered(Some(7))), None);
    }

    #[test]
    fn a_read_must_not_be_older_than_what_was_answered_or_read_before_it() {
        let ledger = Ledger::new(1);
        let early = ledger.read(0);
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        assert_eq!(ledger.seen(early, Some(0)), None, "it began before");
        let late = ledger.read(0);
        assert_eq!(ledger.seen(late, Some(0)), Some(Fault::Stale));
        assert_eq!(ledger.seen(late, Some(2)), Some(Fault::Invented));
        assert_eq!(ledger.seen(late, None), Some(Fault::Invented));
        // A write that is under way may be seen, and not be unseen again.
        let under_way = ledger.write(0).expect("there is room");
        assert_eq!(ledger.seen(ledger.read(0), Some(2)), None);
        assert_eq!(ledger.seen(ledger.read(0), Some(1)), Some(Fault::Stale));
        assert_eq!(ledger.written(under_way, Uncertain), None);
        assert_eq!(judged(&ledger, Some(2)), [None]);
        assert_eq!(judged(&ledger, Some(1)), [Some(Fault::Stale)]);
    }

    #[test]
    fn in_the_end_a_key_holds_its_last_answered_write_or_one_that_nobody_knows_of() {
        let ledger = Ledger::new(2);
        assert_eq!(judged(&ledger, Some(0)), [], "what was never written is not looked at");
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        assert_eq!(judged(&ledger, Some(1)), [None]);
        assert_eq!(judged(&ledger, Some(0)), [Some(Fault::Lost)]);
        assert_eq!(judged(&ledger, Some(2)), [Some(Fault::Invented)]);
        assert_eq!(write(&ledger, Uncertain), None);
        for (held, fault) in [(0, Some(Fault::Lost)), (1, None), (2, None)] {
            assert_eq!(judged(&ledger, Some(held)), [fault], "{held}");
        }
        // The key in its place begins anew.
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        let expected = ledger.expected();
        assert_eq!(expected.iter().map(|it| it.generation).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_read_of_a_key_that_was_retired_meanwhile_says_nothing_of_the_next() {
        let ledger = Ledger::new(1);
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        let read = ledger.read(0);
        assert_eq!(write(&ledger, Uncertain), None);
        assert_eq!(ledger.seen(read, Some(2)), None);
        assert_eq!(write(&ledger, Answered(Some(0))), None);
        assert_eq!(ledger.seen(ledger.read(0), Some(1)), None);
    }
}
