//! Timers, bounds and choices of the replication, and the rules that a simulator may leave out. Knows no state.

use dkv_protocol::ranges::{Ack, ReadMode, Replication};

/// How the copies behave. All shards of a store use the same.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Between two beacons of a primary.
    pub beacon_ns: u64,
    /// How long a lease lasts, from when its beacon was sent.
    pub lease_ns: u64,
    /// How long a copy waits for a beacon before it promises to follow no more: at least 1.041 leases, so that clocks
    /// whose rates differ by 2 % cannot make a lease outlive it.
    pub grace_ns: u64,
    /// Between two sendings of the same ask.
    pub ask_ns: u64,
    /// Between two probes of a place that should hold a copy.
    pub probe_ns: u64,
    /// Without progress for so long, what was sent is sent again.
    pub retry_ns: u64,
    /// Answers that wait are given as unknown after so long.
    pub unknown_ns: u64,
    /// A handover that is not ready to be asked for within this is given up for a while.
    pub handover_ns: u64,
    /// Between two looks at what is due.
    pub tick_ns: u64,
    /// Bytes of logs that are kept for copies that come back, all ranges together.
    pub backlog_bytes: usize,
    /// Bytes of logs above which no write is taken.
    pub log_bytes_max: usize,
    /// Bytes of entries, and of slices of a resync, that may be under way to one peer.
    pub window_bytes: usize,
    /// Bytes after which a batch is sent. One message may exceed it.
    pub batch_bytes_max: usize,
    /// Bytes that were written for a peer and not sent, above which a resync goes on later: what comes of a walk waits in
    /// the table, where it costs nothing, instead of in a buffer that grows and is copied for that.
    pub unsent_bytes_max: usize,
    /// Bytes of a slice of a resync, and of a part of a great effect.
    pub slice_bytes: usize,
    /// When a write is answered.
    pub ack: Ack,
    /// Writes are refused with fewer copies in sync.
    pub min_insync: u8,
    /// How a primary reads.
    pub read: ReadMode,
    /// The rule that is left out, in a simulator.
    pub planted: Planted,
}

const MS: u64 = 1_000_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            beacon_ns: 100 * MS,
            lease_ns: 1000 * MS,
            grace_ns: 1100 * MS,
            ask_ns: 150 * MS,
            probe_ns: 200 * MS,
            retry_ns: 300 * MS,
            unknown_ns: 5000 * MS,
            handover_ns: 50 * MS,
            tick_ns: 10 * MS,
            backlog_bytes: 16 * 1024 * 1024,
            log_bytes_max: 32 * 1024 * 1024,
            window_bytes: 4 * 1024 * 1024,
            batch_bytes_max: 256 * 1024,
            unsent_bytes_max: 256 * 1024,
            slice_bytes: 32 * 1024,
            ack: Ack::All,
            min_insync: 1,
            read: ReadMode::Lease,
            planted: Planted::None,
        }
    }
}

impl Settings {
    /// With the choices of a store.
    pub fn of(replication: &Replication) -> Self {
        Self {
            ack: replication.ack,
            min_insync: replication.min_insync,
            read: replication.read,
            ..Self::default()
        }
    }

    /// The grace that counts.
    pub(crate) const fn grace(&self) -> u64 {
        if self.planted.grace_is_short() { self.lease_ns / 4 } else { self.grace_ns }
    }
}

macro_rules! planted {
    ($($(#[doc = $doc:literal])+ $variant:ident $asked:ident)+) => {
        /// A rule that is left out, so that a simulator can prove that it notices. Outside of simulators there is none
        /// to choose, and nothing is asked at run time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Planted {
            /// All rules hold.
            #[default]
            None,
            $($(#[doc = $doc])+ #[cfg(feature = "planted-bugs")] $variant,)+
        }

        impl Planted {
            /// Each rule that can be left out.
            #[cfg(feature = "planted-bugs")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            $($(#[doc = $doc])+
            #[inline]
            pub const fn $asked(self) -> bool {
                #[cfg(feature = "planted-bugs")]
                { matches!(self, Self::$variant) }
                #[cfg(not(feature = "planted-bugs"))]
                { let _ = self; false }
            })+
        }
    };
}

planted! {
    /// Writes are answered before copies hold them.
    AckBeforeHeld acks_before_held
    /// R7: a copy truncates its log to its commit index when the epoch changes.
    TruncateOnEpoch truncates_on_epoch
    /// R2: a member no longer counts once its shrink is sent.
    ShrinkWhenSent shrinks_when_sent
    /// R3: reads are answered before what they saw is committed.
    ReadsUngated leaves_reads_ungated
    /// R4: reads are served without a lease.
    NoLeaseCheck skips_lease_check
    /// R6: a copy promises long before leases have run out.
    ShortGrace grace_is_short
    /// R8: a process that starts anew takes itself for the one before. For the driver: it starts the next [`crate::Cluster`]
    /// with the boot number of the one that crashed, and reports no death.
    RestartKeepsIdentity keeps_identity_on_restart
    /// R5: a copy obeys primaries of epochs that have passed.
    NoFencing skips_fencing
    /// R12: for the driver: a shard that forwards sends a write again whose outcome is unknown.
    RetriesUnknown retries_unknown
    /// R12: for the driver: what is unknown is told as a definite failure.
    UnknownIsFailure tells_unknown_as_failure
    /// R8: a copy that is cleared keeps its generation.
    DiscardKeepsGeneration keeps_generation_on_discard
    /// R6: beacons and entries are still acknowledged after the promise.
    AcksAfterPromise acks_after_promise
    /// R4: a lease counts from when its echo arrives.
    LeaseFromArrival leases_from_arrival
    /// R2: a new member is required only once its expand is confirmed.
    ExpandWhenConfirmed expands_when_confirmed
    /// For the shard: what a transaction writes is as many effects as writes.
    SplitTransactions splits_transactions
}
