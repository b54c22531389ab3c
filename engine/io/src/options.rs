//! How large a reactor is made, and what happened to it so far. The same for both kinds, so that whoever makes one need not
//! know which; what only one kind has says so.

use crate::WakeHandle;

/// Sizes of a reactor.
#[derive(Clone, Debug)]
pub struct Options {
    /// What wakes the reactor.
    pub wake: WakeHandle,
    /// Of a ring: operations submitted in one system call; more than that take several. A power of two.
    pub sq_entries: u32,
    /// Of a ring: completions that fit. Too few cost time (receives must be armed again), never data. A power of two.
    pub cq_entries: u32,
    /// Receive buffers. A power of two.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: usize,
    /// Buffers that circulate at first; the others join when these run out, so that an idle reactor stays small.
    pub buffers_at_first: u16,
    /// Greater receive buffers, for great arguments, each filled piece after piece where the kernel can (6.12 and later).
    /// A power of two.
    pub great_buffers: u16,
    /// Bytes of each.
    pub great_buffer_bytes: usize,
    /// Of these circulate at first.
    pub great_buffers_at_first: u16,
    /// Whether the kernel is asked to fill them piece after piece. Without, each piece takes a whole buffer.
    pub great_in_pieces: bool,
    /// Fewer expected bytes are received through the small buffers: changing over costs more than it saves.
    pub expect_bytes_min: usize,
    /// Most bytes of one send operation; the rest of a buffer follows in the next. The kernel counts them in an `int`.
    pub send_bytes_max: usize,
}

impl Options {
    /// The sizes that were measured best for a shard: about 200 KiB of lockable memory and up to 5 MiB of buffers,
    /// of which an idle reactor touches next to none.
    pub fn new(wake: WakeHandle) -> Self {
        Self {
            wake,
            sq_entries: 1024,
            cq_entries: 8192,
            buffers: 1024,
            buffer_bytes: 4096,
            buffers_at_first: 64,
            // All of them fit a second-level cache: with 4 MiB a message of 256 KiB costs a quarter more.
            great_buffers: 8,
            great_buffer_bytes: 128 * 1024,
            great_buffers_at_first: 4,
            great_in_pieces: true,
            expect_bytes_min: 8 * 1024,
            send_bytes_max: 1 << 30,
        }
    }

    /// Lockable memory (`RLIMIT_MEMLOCK`) that a ring of these sizes is charged for, in bytes.
    pub fn locked_bytes(&self) -> u64 {
        crate::uring::need_bytes(self.sq_entries, self.cq_entries, self)
    }
}

/// What happened to a reactor so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Receives that found no buffer.
    pub buffers_missed: u64,
    /// Receives that ended although data came: the completion queue overflowed.
    pub receives_cut: u64,
    /// Sends that took more than one operation.
    pub sends_continued: u64,
    /// Wakes that could not be delivered through the ring and went through the eventfd.
    pub wakes_failed: u64,
}
