//! Waking a reactor from another thread.
//!
//! A handle exists before the reactor that it wakes: every shard's outboxes carry the handles of all the others, while
//! each ring can be built only on its own thread. Until a reactor has attached its ring, and for threads without a ring,
//! a wake goes through an eventfd, which remembers it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one reactor. Cheap to clone; may be used from any thread, before the reactor exists and after it is gone.
#[derive(Clone, Debug)]
pub struct WakeHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: u32,
    eventfd: OwnedFd,
    /// Set by the reactor that it wakes: a duplicate of its ring's descriptor, none if it has no ring. Being a duplicate, its
    /// number cannot come to mean another file while a handle exists, not even after the reactor is gone.
    ring: OnceLock<Option<OwnedFd>>,
}

impl WakeHandle {
    /// Makes a handle for a reactor that is yet to be built.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Ok(Self {
            shared: Arc::new(Shared {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                // Non-blocking, so that neither a reader of an empty counter nor a writer to a full one (2^64 wakes
                // unread, so it is awake for sure) ever waits.
                eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                ring: OnceLock::new(),
            }),
        })
    }

    /// Wakes the reactor from a thread that has none of its own; a thread that has one uses
    /// [`Reactor::wake_peer`](crate::Reactor::wake_peer), which needs no system call.
    pub fn wake(&self) {
        // The only failures left are a full counter (then it is awake for sure) and an interrupt.
        while rustix::io::write(&self.shared.eventfd, &1_u64.to_ne_bytes())
            == Err(rustix::io::Errno::INTR)
        {}
    }

    /// Number of the handle, unique in the process.
    pub(crate) fn id(&self) -> u32 {
        self.shared.id
    }

    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }

    /// The ring to send a wake to, once there is one.
    pub(crate) fn ring(&self) -> Option<BorrowedFd<'_>> {
        self.shared.ring.get()?.as_ref().map(AsFd::as_fd)
    }

    /// Ties the handle to the reactor that it wakes, and names its ring if it has one. `false` if it wakes another already.
    pub(crate) fn attach(&self, ring: Option<OwnedFd>) -> bool {
        self.shared.ring.set(ring).is_ok()
    }
}
