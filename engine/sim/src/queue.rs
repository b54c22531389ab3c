//! The scheduler: one queue of events in true time, which no node can see.
//!
//! Events of one moment leave in the order they were put in, so that a run is a function of its seed alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens when, earliest first. The heap holds small entries only, since it moves them about; events stay where
/// they are.
#[derive(Debug)]
pub struct Queue<E> {
    /// The moment, the order of arrival, and the place of the event.
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    next: u64,
    now_ns: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        let (events, free) = (Vec::new(), Vec::new());
        Self { heap: BinaryHeap::new(), events, free, next: 0, now_ns: 0 }
    }
}

impl<E> Queue<E> {
    /// True time: that of the event that left last.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Lets something happen at a moment; one that has passed means now.
    pub fn at(&mut self, at_ns: u64, event: E) {
        let place = if let Some(place) = self.free.pop() {
            self.events[place] = Some(event);
            place
        } else {
            self.events.push(Some(event));
            self.events.len() - 1
        };
        self.heap.push(Reverse((at_ns.max(self.now_ns), self.next, place)));
        self.next += 1;
    }

    /// Lets something happen later.
    pub fn after(&mut self, delay_ns: u64, event: E) {
        self.at(self.now_ns + delay_ns, event);
    }

    /// The next event, and moves time to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((at_ns, _, place)) = self.heap.pop()?;
        self.now_ns = at_ns;
        self.free.push(place);
        self.events[place].take()
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
