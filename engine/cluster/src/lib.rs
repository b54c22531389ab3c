//! The copies of ranges: who leads, what is committed, who may read, and how a copy comes, catches up and takes over.
//!
//! It stands apart because it must be tried in a simulator against every order of messages, news and clocks. Pure: time
//! and news are arguments, messages are bytes that are handed in and out, order never depends on a hash. One [`Cluster`]
//! per shard keeps all ranges; what a range contains is behind [`Store`]. It decides no configuration: it asks, and obeys
//! what it is told. The rules are named R1 to R17 as in the design of replication.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cluster;
mod follow;
mod follower;
mod lead;
mod log;
mod news;
mod resync;
mod send;
mod set;
mod settings;
mod slow;
mod state;
mod tick;

pub use cluster::Cluster;
pub use dkv_protocol::peer::PeerError;
pub use set::RangeSet;
pub use settings::{Planted, Settings};

use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::ids::{Epoch, RangeId, ShardAddr};
use dkv_protocol::ranges::Rid;

/// What one change did to a range, in an encoding that only the store knows: its head, and its body after it. A body is
/// a great value that is kept by handle and sent in parts.
#[derive(Clone, Copy, Debug)]
pub struct Effect<'a> {
    /// All of a small effect; what stands before the value of a great one, at most
    /// [`dkv_protocol::peer::LARGE_HEAD_BYTES_MAX`].
    pub head: &'a [u8],
    /// The great value.
    pub body: Option<&'a Bytes>,
}

impl<'a> Effect<'a> {
    /// An effect without a body.
    pub const fn small(bytes: &'a [u8]) -> Self {
        Self { head: bytes, body: None }
    }
}

/// What a range contains, as the replication sees it.
pub trait Store {
    /// Position of the last change of a range.
    fn index(&self, range: RangeId) -> u64;
    /// The next change that is made here gets `index + 1`.
    fn set_index(&mut self, range: RangeId, index: u64);
    /// Whether changes that are made here must be given to [`Cluster::append`], each in order.
    fn journal(&mut self, range: RangeId, on: bool);
    /// Does what an effect says, as position `index`, for each key only when its version is lower; a clearing removes the
    /// keys of lower versions. Never journaled. While a copy is being filled, an effect on a key that is not here yet, or
    /// that is newer here, is passed over; in a whole one it does not fit. False: it is no effect, or none that fits what
    /// is here, and the copy is of no use any more.
    #[must_use]
    fn apply(
        &mut self,
        now_ms: u64,
        range: RangeId,
        index: u64,
        effect: Effect<'_>,
        filling: bool,
    ) -> bool;
    /// The range is empty from now on, as far as anybody can see.
    fn clear(&mut self, range: RangeId);
    /// Some records from `cursor` on (0: the start), each with its version, about so many bytes and for at most about
    /// 200 us; returns where to go on, none at the end. A record that is there during the whole walk must come.
    fn walk(
        &mut self,
        range: RangeId,
        cursor: u64,
        bytes_max: usize,
        sink: &mut dyn FnMut(u64, Effect<'_>),
    ) -> Option<u64>;
    /// Stores a walked record, unless the key has a newer version here. False: it is no record, and nothing was changed.
    #[must_use]
    fn load(&mut self, now_ms: u64, range: RangeId, version: u64, record: Effect<'_>) -> bool;
    /// Moves the deadline inside the head of an effect or record, if it has one, by the difference of two clocks.
    fn rebase(&self, head: &mut [u8], delta_ms: i64);
}

/// The part that this shard has in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// None that anybody may see.
    None,
    /// It holds a copy that counts.
    Replica,
    /// It leads. Whether it may serve is another question.
    Primary,
}

/// Why nothing was done: nothing was appended (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another shard leads, or nobody is known to.
    NotPrimary,
    /// The range has lost all its copies.
    Offline,
    /// A copy has not granted a lease for too long (R4, R11).
    NoLease,
    /// Fewer copies in sync than writes want.
    TooFewCopies,
    /// Leadership is moving; soon decided (R14).
    Handover,
    /// The log waits for slow copies; soon decided.
    LogFull,
}

/// A range whose answers that wait must be given now (R12): changes above `committed` are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which range.
    pub range: RangeId,
    /// Up to here every change is committed.
    pub committed: u64,
}

/// How copies were brought up to date by this shard, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Copies that came and got the whole range.
    pub full: u64,
    /// Copies that came and got what followed on what they had.
    pub partial: u64,
    /// Of the former, those that had something which did not fit or was too old.
    pub unfit: u64,
    /// Bytes of records that were sent in slices.
    pub full_bytes: u64,
    /// Bytes of entries that were sent to copies that did not count yet: what followed on what they had, and what was
    /// written while they were filled.
    pub log_bytes: u64,
    /// Copies that were let go because they were late again and again.
    pub let_go_late: u64,
}

/// One copy, as its primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyView {
    /// Which copy.
    pub rid: Rid,
    /// Whether it counts.
    pub in_sync: bool,
    /// Entries that it does not hold yet.
    pub lag: u64,
    /// Until when it has granted a lease, on this clock.
    pub lease_ns: u64,
}

/// What there is to know of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeView {
    /// See [`Role`].
    pub role: Role,
    /// The highest epoch that has been heard of.
    pub epoch: Epoch,
    /// The copy here.
    pub me: Rid,
    /// Whether it is complete up to its commit index.
    pub whole: bool,
    /// Who leads, as far as known.
    pub primary: Option<ShardAddr>,
    /// The copies that count, as far as known.
    pub in_sync: Vec<Rid>,
    /// Where copies should be.
    pub placement: Vec<ShardAddr>,
    /// The log here begins after this index.
    pub first: u64,
    /// Its last index.
    pub last: u64,
    /// Up to where it is committed.
    pub commit: u64,
    /// The highest commit index that a primary told.
    pub told: u64,
    /// At the primary: the other copies.
    pub copies: Vec<CopyView>,
    /// Whether fewer copies count than should.
    pub degraded: bool,
}
