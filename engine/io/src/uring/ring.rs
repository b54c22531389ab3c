//! The two queues of one ring and the one system call that serves them.
//!
//! Nothing pushed is ever lost: what finds the submission queue full waits in a list, in order, and follows in the same
//! turn. Which memory an entry points to is the business of the pusher; here it is only carried.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{EnterFlags, IoUring, opcode, squeue};

/// One finished step of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) name: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

pub(super) struct Ring {
    uring: IoUring,
    /// Index of the ring in the thread's own table, which saves the kernel a look-up on every call.
    registered: Option<u32>,
    no_iowait: bool,
    /// Entries that found the queue full. The queue is a promise to nobody: bounded by what the connections, at three
    /// operations each, can have pending.
    waiting: VecDeque<Entry>,
}

/// `struct io_uring_getevents_arg` of the kernel's `io_uring.h`.
#[repr(C)]
struct WaitArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: libc::c_long = 20;

impl Ring {
    /// Wraps a ring built on this thread.
    pub(super) fn new(uring: IoUring) -> Self {
        let no_iowait = uring.params().is_feature_no_iowait();
        let mut ring = Self { uring, registered: None, no_iowait, waiting: VecDeque::new() };
        ring.registered = ring.register_itself().ok();
        ring
    }

    /// The `io-uring` crate keeps the index in a value that borrows the ring, so it cannot be stored beside it.
    fn register_itself(&self) -> io::Result<u32> {
        let mut update = ResourceUpdate {
            // "Any free place", which the kernel then writes here.
            offset: u32::MAX,
            reserved: 0,
            data: self.uring.as_raw_fd() as u64,
        };
        let pointer: *mut ResourceUpdate = &raw mut update;
        let fd = libc::c_long::from(self.uring.as_raw_fd());
        // SAFETY: io_uring_register(2) with REGISTER_RING_FDS reads and writes one io_uring_rsrc_update at the pointer;
        // `update` has that layout, is valid for both and lives over the call.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, pointer, 1_u64)
        };
        if done == 1 { Ok(update.offset) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    pub(super) fn has_no_iowait(&self) -> bool {
        self.no_iowait
    }

    pub(super) fn sizes(&self) -> (u32, u32) {
        (self.uring.params().sq_entries(), self.uring.params().cq_entries())
    }

    /// A second descriptor of the ring, for those who wake it.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.uring.as_fd().try_clone_to_owned()
    }

    /// The operations that the kernel lacks, of those named.
    pub(super) fn missing(&self, wanted: &[(u8, &'static str)]) -> io::Result<Vec<&'static str>> {
        let mut known = io_uring::Probe::new();
        self.uring.submitter().register_probe(&mut known)?;
        let lacks = wanted.iter().filter(|(code, _)| !known.is_supported(*code));
        Ok(lacks.map(|(_, name)| *name).collect())
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// Descriptors and memory that the entry names must stay valid, and the memory untouched, until the operation's
    /// final completion was drained.
    pub(super) unsafe fn push(&mut self, entry: Entry) {
        // Order matters (a cancellation goes before the operation that uses the same name again), so an entry may not
        // overtake those that wait.
        if !self.waiting.is_empty() {
            self.waiting.push_back(entry);
            return;
        }
        // SAFETY: the caller vouches for what the entry points to.
        let full = unsafe { self.uring.submission().push(&entry) }.is_err();
        if full {
            self.waiting.push_back(entry);
        }
    }

    /// Queues an operation that names no memory and no descriptor. It completes only when it found nothing to cancel.
    pub(super) fn push_cancel(&mut self, cancel: opcode::AsyncCancel2, name: u64) {
        let entry = cancel.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(name);
        // SAFETY: an ASYNC_CANCEL entry by user_data holds a number, no pointer and no descriptor.
        unsafe { self.push(entry) };
    }

    /// Whether something was queued since the last [`Ring::enter`].
    pub(super) fn has_queued(&mut self) -> bool {
        !self.waiting.is_empty() || !self.uring.submission().is_empty()
    }

    /// Whether an [`Ring::enter`] and [`Ring::drain`] would bring something.
    pub(super) fn has_pending(&mut self) -> bool {
        let submission = self.uring.submission();
        if submission.taskrun() || submission.cq_overflow() {
            return true;
        }
        drop(submission);
        self.has_completions()
    }

    /// Whether there are completions to drain without an [`Ring::enter`].
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.waiting.front() {
            // SAFETY: whoever pushed the entry vouched for it until its final completion, which cannot have come yet.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Submits everything, runs what the kernel put off for this thread, and waits for one completion if told to.
    ///
    /// # Errors
    /// The ring is broken. What only means "again later" (interrupt, timeout, memory shortage, completions that must be
    /// drained first) is not an error: drain and come again.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        loop {
            self.refill();
            let queued = self.uring.submission().len();
            let more = !self.waiting.is_empty();
            let submitted = match self.enter_once(queued as u32, wait.filter(|_| !more)) {
                Ok(submitted) => submitted,
                Err(error) => {
                    return match error.raw_os_error() {
                        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
                        _ => Err(error),
                    };
                }
            };
            if !more || submitted == 0 {
                return Ok(());
            }
        }
    }

    fn enter_once(&self, submit: u32, wait: Option<Duration>) -> io::Result<usize> {
        // Deferred task work runs only in an enter that carries GETEVENTS, so every one does.
        let mut flags = EnterFlags::GETEVENTS.bits();
        let timespec;
        let argument;
        let mut argument_pointer: *const WaitArgument = std::ptr::null();
        let mut argument_size = 0;
        if let Some(time) = wait {
            timespec = KernelTimespec {
                seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: i64::from(time.subsec_nanos()),
            };
            argument = WaitArgument {
                sigmask: 0,
                sigmask_size: 0,
                min_wait_us: 0,
                timespec: (&raw const timespec) as u64,
            };
            argument_pointer = &raw const argument;
            argument_size = size_of::<WaitArgument>();
            flags |= EnterFlags::EXT_ARG.bits();
            if self.no_iowait {
                flags |= EnterFlags::NO_IOWAIT.bits();
            }
        }
        let fd = if let Some(index) = self.registered {
            flags |= EnterFlags::REGISTERED_RING.bits();
            libc::c_long::from(index)
        } else {
            libc::c_long::from(self.uring.as_raw_fd())
        };
        let least = u32::from(wait.is_some());
        // SAFETY: io_uring_enter(2) reads one io_uring_getevents_arg, and the timespec that it points to, when EXT_ARG is
        // set (both live until the end of this function), and nothing when the pointer is null. The submitted entries
        // were vouched for by those who pushed them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                submit,
                least,
                flags,
                argument_pointer,
                argument_size,
            )
        };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    /// Appends completions, at most `most` of them; more stay queued and end the next wait at once.
    pub(super) fn drain(&mut self, into: &mut Vec<Completion>, most: usize) {
        into.extend(self.uring.completion().take(most).map(|entry| Completion {
            name: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}
