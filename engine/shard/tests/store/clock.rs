//! The clock by which commands are timed: it stands still but for what a test lets pass at each reading.

use std::cell::Cell;

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
    static STEP_NS: Cell<u64> = const { Cell::new(0) };
}

/// From now on so much time passes from one reading to the next.
pub(crate) fn step(ns: u64) {
    STEP_NS.set(ns);
}

/// It is so late now.
pub(crate) fn set(ns: u64) {
    NOW_NS.set(ns);
}

pub(crate) fn now_ns() -> u64 {
    NOW_NS.set(NOW_NS.get() + STEP_NS.get());
    NOW_NS.get()
}
