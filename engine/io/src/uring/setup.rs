//! Making a ring: by trying, from the richest flags and the largest queues down, never by version number.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, opcode};

use super::PAGE_BYTES;
use super::pool::{Filling, GREAT_GROUP, Pool, SMALL_GROUP, Sizes};
use super::ring::Ring;
use crate::Options;
use crate::probe::surroundings;
use crate::unavailable::{IoUnavailable, judge};

/// What was asked of the kernel and accepted.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) kernel: String,
    pub(super) flags: Vec<&'static str>,
}

/// Operations in use; a kernel that has DEFER_TASKRUN has them all, unless a filter took some out.
const OPERATIONS: [(u8, &str); 7] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel2::CODE, "ASYNC_CANCEL"),
    (opcode::MsgRingData::CODE, "MSG_RING"),
];

/// How many they are.
pub(crate) const OPERATIONS_USED: usize = OPERATIONS.len();

/// Makes the smallest ring there is, without any flag, and says which operations are missing from it.
pub(crate) fn bare() -> io::Result<Vec<&'static str>> {
    Ring::new(IoUring::new(1)?).missing(&OPERATIONS)
}

/// How often the queues may be halved when memory is short.
const HALVINGS_MAX: u32 = 2;
/// The memory of rings that were just closed is given back late, by a kernel thread: a process that follows another one
/// of the same user waits this often, this long.
const PATIENCE: u32 = 5;
const PATIENCE_STEP: Duration = Duration::from_millis(100);

/// Lockable memory that a ring of these sizes is charged for.
pub(crate) fn need_bytes(sq: u32, cq: u32, options: &Options) -> u64 {
    let queues = u64::from(sq) * (64 + 4) + u64::from(cq) * 16;
    let buffers = u64::from(options.buffers) + u64::from(options.great_buffers);
    queues + buffers * 16 + 4 * PAGE_BYTES
}

/// A ring with its buffers.
pub(super) struct Built {
    // The ring is closed before memory that it was told of is freed.
    pub(super) ring: Ring,
    pub(super) small: Pool,
    pub(super) great: Pool,
    pub(super) accepted: Accepted,
}

/// Makes the ring and its buffers.
pub(super) fn build(options: &Options) -> Result<Built, IoUnavailable> {
    let mut halvings = 0;
    let mut patience = 0;
    loop {
        let sq = (options.sq_entries >> halvings).max(1);
        let cq = (options.cq_entries >> halvings).max(2);
        let (step, error) = match attempt(options, sq, cq) {
            Ok(done) => return check(done),
            Err(failed) => failed,
        };
        let short_of_memory = error.raw_os_error() == Some(libc::ENOMEM);
        if short_of_memory && halvings < HALVINGS_MAX {
            halvings += 1;
        } else if short_of_memory && patience < PATIENCE {
            patience += 1;
            pause(PATIENCE_STEP);
        } else {
            let need = need_bytes(sq, cq, options);
            return Err(judge(&surroundings(), step, &error, need));
        }
    }
}

/// Waits on nothing, with a timeout.
fn pause(time: Duration) {
    let timespec = rustix::event::Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    // An interrupt only shortens the pause.
    let _ = rustix::event::poll(&mut [], Some(&timespec));
}

type Failed = (&'static str, io::Error);

fn attempt(options: &Options, sq: u32, cq: u32) -> Result<Built, Failed> {
    let mut flags =
        vec!["single_issuer", "defer_taskrun", "coop_taskrun", "taskrun_flag", "submit_all"];
    let built = match set_up(sq, cq, true) {
        // 6.6 and later: one table less to keep.
        Ok(ring) => {
            flags.push("no_sqarray");
            Ok(ring)
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_up(sq, cq, false),
        Err(error) => Err(error),
    };
    let ring = Ring::new(built.map_err(|error| ("io_uring_setup", error))?);
    let small = Sizes {
        count: options.buffers,
        bytes: options.buffer_bytes,
        at_first: options.buffers_at_first,
    };
    let great = Sizes {
        count: options.great_buffers,
        bytes: options.great_buffer_bytes,
        at_first: options.great_buffers_at_first,
    };
    let failed = |error| ("registering the receive buffers", error);
    let small = Pool::new(&ring, SMALL_GROUP, &small, Filling::Whole).map_err(failed)?;
    let wanted = if options.great_in_pieces { Filling::InPieces } else { Filling::Whole };
    let great = match Pool::new(&ring, GREAT_GROUP, &great, wanted) {
        // Before 6.12.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Pool::new(&ring, GREAT_GROUP, &great, Filling::Whole)
        }
        result => result,
    };
    let great = great.map_err(failed)?;
    let kernel = crate::probe::kernel();
    Ok(Built { ring, small, great, accepted: Accepted { kernel, flags } })
}

fn set_up(sq: u32, cq: u32, no_sqarray: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(cq);
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(sq)
}

fn check(done: Built) -> Result<Built, IoUnavailable> {
    let kernel = || done.accepted.kernel.clone();
    match done.ring.missing(&OPERATIONS) {
        Ok(missing) if missing.is_empty() => Ok(done),
        Ok(missing) => Err(IoUnavailable::TooOld {
            kernel: kernel(),
            lacks: format!("it lacks the operations {}", missing.join(", ")),
        }),
        Err(error) => Err(judge(&surroundings(), "io_uring_register", &error, 0)),
    }
}
