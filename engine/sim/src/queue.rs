//! The scheduler: one queue of events in true time, which no node can see.
//!
//! Events of one moment leave in the order they were put in, so that a run is a function of its seed alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens when, earliest first.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    next: u64,
    now_ns: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at_ns: u64,
    order: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ns, self.order) == (other.at_ns, other.order)
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next: 0, now_ns: 0 }
    }
}

impl<E> Queue<E> {
    /// True time: that of the event that left last.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Lets something happen at a moment; one that has passed means now.
    pub fn at(&mut self, at_ns: u64, event: E) {
        let entry = Entry { at_ns: at_ns.max(self.now_ns), order: self.next, event };
        self.next += 1;
        self.heap.push(Reverse(entry));
    }

    /// Lets something happen later.
    pub fn after(&mut self, delay_ns: u64, event: E) {
        self.at(self.now_ns + delay_ns, event);
    }

    /// The next event, and moves time to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(entry) = self.heap.pop()?;
        self.now_ns = entry.at_ns;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_leave_by_time_and_then_by_arrival() {
        let mut queue = Queue::default();
        for (at_ns, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.at(at_ns, name);
        }
        assert_eq!(queue.pop(), Some("a"));
        queue.at(0, "now");
        let rest: Vec<_> =
            std::iter::from_fn(|| queue.pop().map(|e| (queue.now_ns(), e))).collect();
        assert_eq!(rest, [(1, "now"), (3, "b"), (5, "c"), (5, "d")]);
    }
}
