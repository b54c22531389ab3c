//! Mailboxes: bounded queues into one thread, which is woken only when it sleeps.
//!
//! A wake-up costs about 20 µs and a push about 20 ns, so the sender must know whether its receiver sleeps. Protocol:
//!
//! | receiver, before it sleeps | sender |
//! |---|---|
//! | 1. `parked = true` | 1. push |
//! | 2. fence (SeqCst) | 2. fence (SeqCst) |
//! | 3. queue empty? then sleep, else `parked = false` | 3. `parked` was true? set it to false and wake |
//!
//! With both fences at least one of the two sees what the other wrote: either the receiver sees the item and stays awake,
//! or the sender sees `parked`. Only one of several senders finds it set, so one sleep costs one wake. All changes of the
//! flag are read-modify-writes, so that they stand in one line whoever made them, spurious wake-ups included.
//!
//! The queue is `crossbeam_queue::ArrayQueue`. loom cannot see into that, so under `cfg(loom)` a small model stands in
//! its place, no more ordered than the real one, and loom checks the protocol around it:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p dkv-io --release
//! ```

use crate::WakeHandle;
use queue::Queue;
use sync::{Arc, AtomicBool, Ordering, fence};

#[cfg(not(loom))]
mod sync {
    pub(super) use std::sync::Arc;
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

#[cfg(loom)]
mod sync {
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

/// Whether a push found the receiver asleep.
#[must_use = "a receiver that sleeps does not look into its mailbox until it is woken"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// The receiver is awake and will look by itself.
    NotNeeded,
    /// The receiver sleeps or is about to: wake it with [`Outbox::wake_handle`].
    Needed,
}

/// Makes a mailbox for at most `capacity` items into the thread that `wake` wakes.
///
/// # Panics
/// If the capacity is zero.
pub fn mailbox<T>(capacity: usize, wake: WakeHandle) -> (Inbox<T>, Outbox<T>) {
    let shared =
        Arc::new(Shared { queue: Queue::new(capacity), parked: AtomicBool::new(false), wake });
    (Inbox { shared: Arc::clone(&shared) }, Outbox { shared })
}

struct Shared<T> {
    queue: Queue<T>,
    parked: AtomicBool,
    wake: WakeHandle,
}

/// The receiving end; one thread owns it.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

/// A sending end; clone one for every thread that sends.
pub struct Outbox<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl<T> Inbox<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Whether nothing is waiting. A plain look, for a thread that spins before it sleeps.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// To be called last before sleeping. `true`: the mailbox is empty and every later push will find that a wake is
    /// needed; sleep, then call [`Inbox::unpark`]. `false`: something came in; do not sleep.
    #[must_use = "sleeping with a full mailbox is what this call prevents"]
    pub fn park(&mut self) -> bool {
        self.shared.parked.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.shared.queue.is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    /// To be called first after sleeping, for whatever reason the sleep ended.
    pub fn unpark(&mut self) {
        self.shared.parked.swap(false, Ordering::Relaxed);
    }
}

impl<T> Outbox<T> {
    /// Puts an item in. Never blocks.
    ///
    /// # Errors
    /// The mailbox is full; the item comes back. Keep it and stop taking in what makes more of them: the receiver is
    /// awake (a full mailbox is never parked with).
    pub fn push(&self, item: T) -> Result<Wakeup, T> {
        self.shared.queue.push(item)?;
        fence(Ordering::SeqCst);
        // The load keeps the common case, a receiver that is awake, from writing to a line that all senders share.
        if self.shared.parked.load(Ordering::Relaxed)
            && self.shared.parked.swap(false, Ordering::Relaxed)
        {
            return Ok(Wakeup::Needed);
        }
        Ok(Wakeup::NotNeeded)
    }

    /// [`Outbox::push`] and wake, for a thread that has no reactor of its own.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn push_and_wake(&self, item: T) -> Result<(), T> {
        if self.push(item)? == Wakeup::Needed {
            self.shared.wake.wake();
        }
        Ok(())
    }

    /// Wakes the receiver.
    pub fn wake_handle(&self) -> &WakeHandle {
        &self.shared.wake
    }
}

#[cfg(not(loom))]
mod queue {
    //! The real queue.
    use crossbeam_queue::ArrayQueue;

    pub(super) struct Queue<T>(ArrayQueue<T>);

    impl<T> Queue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self(ArrayQueue::new(capacity))
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            self.0.push(item)
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.0.pop()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }
}

#[cfg(loom)]
mod queue {
    //! The model: slots that are claimed by a relaxed counter and published by a release store, as the real queue does
    //! it. The look at an empty queue synchronizes with nobody: a model with one lock would order the two sides by
    //! itself and prove the protocol right without its fences.
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    pub(super) struct Queue<T> {
        slots: Vec<(AtomicBool, Mutex<Option<T>>)>,
        claimed: AtomicUsize,
        taken: AtomicUsize,
    }

    impl<T> Queue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self {
                slots: (0..capacity).map(|_| (AtomicBool::new(false), Mutex::new(None))).collect(),
                claimed: AtomicUsize::new(0),
                taken: AtomicUsize::new(0),
            }
        }

        /// The model does not wrap around: `capacity` pushes in all.
        pub(super) fn push(&self, item: T) -> Result<(), T> {
            let place = self.claimed.fetch_add(1, Ordering::Relaxed);
            let Some((full, value)) = self.slots.get(place) else { return Err(item) };
            *value.lock().expect("no panic while held") = Some(item);
            full.store(true, Ordering::Release);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            let place = self.taken.load(Ordering::Relaxed);
            let (full, value) = self.slots.get(place)?;
            if !full.load(Ordering::Acquire) {
                return None;
            }
            self.taken.store(place + 1, Ordering::Relaxed);
            value.lock().expect("no panic while held").take()
        }

        pub(super) fn is_empty(&self) -> bool {
            let place = self.taken.load(Ordering::Relaxed);
            self.slots.get(place).is_none_or(|(full, _)| !full.load(Ordering::Acquire))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pair(capacity: usize) -> (Inbox<u32>, Outbox<u32>) {
        mailbox(capacity, WakeHandle::new().expect("an eventfd"))
    }

    #[test]
    fn only_the_first_push_to_a_parked_receiver_must_wake_it() {
        let (mut inbox, outbox) = pair(8);
        assert_eq!(outbox.push(1), Ok(Wakeup::NotNeeded));
        assert!(!inbox.park(), "something is there");
        assert_eq!(inbox.pop(), Some(1));
        assert!(inbox.park());
        assert_eq!(outbox.clone().push(2), Ok(Wakeup::Needed));
        assert_eq!(outbox.push(3), Ok(Wakeup::NotNeeded));
        inbox.unpark();
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn a_full_mailbox_gives_the_item_back() {
        let (mut inbox, outbox) = pair(2);
        assert_eq!(outbox.push(1), Ok(Wakeup::NotNeeded));
        assert_eq!(outbox.push(2), Ok(Wakeup::NotNeeded));
        assert_eq!(outbox.push(3), Err(3));
        assert_eq!(outbox.push_and_wake(4), Err(4));
        assert_eq!(inbox.pop(), Some(1));
        assert_eq!(outbox.push_and_wake(5), Ok(()));
        assert_eq!((inbox.pop(), inbox.pop()), (Some(2), Some(5)));
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Notify;
    use loom::thread;

    /// Senders push one item each and wake as told; the receiver sleeps whenever `park` lets it. loom reports a
    /// deadlock when a wake is lost in any interleaving and any reordering that the memory model allows.
    fn senders_and_a_sleeper(senders: u32, preemptions_max: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions_max;
        model.check(move || {
            let (mut inbox, outbox) =
                mailbox::<u32>(senders as usize, WakeHandle::new().expect("an eventfd"));
            let bell = Arc::new(Notify::new());
            let threads: Vec<_> = (0..senders)
                .map(|item| {
                    let (outbox, bell) = (outbox.clone(), Arc::clone(&bell));
                    thread::spawn(move || {
                        if outbox.push(item).expect("there is room") == Wakeup::Needed {
                            bell.notify();
                        }
                    })
                })
                .collect();
            let mut received = 0;
            while received < senders {
                if inbox.pop().is_some() {
                    received += 1;
                } else if inbox.park() {
                    bell.wait();
                    inbox.unpark();
                }
            }
            for thread in threads {
                thread.join().expect("no panic");
            }
        });
    }

    #[test]
    fn no_wake_is_lost_between_one_sender_and_a_sleeper() {
        senders_and_a_sleeper(1, None);
    }

    #[test]
    fn no_wake_is_lost_between_two_senders_and_a_sleeper() {
        senders_and_a_sleeper(2, Some(3));
    }
}
