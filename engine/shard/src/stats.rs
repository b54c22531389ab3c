//! One shard's counters: written by its own thread with relaxed stores, read by whoever reports.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use dkv_protocol::control::{LATENCY_BUCKETS, ShardCounters};

/// A number that one thread writes and any may read. Nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning shard calls it, so load and store need not be one step.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Keeps the greater.
    #[inline]
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// The value of now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// See the module and [`ShardCounters`], whose fields these are.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "the fields are those of ShardCounters, documented there")]
        pub struct ShardStats {
            $(pub $name: Counter,)*
            pub latency: Vec<Counter>,
        }

        impl Default for ShardStats {
            fn default() -> Self {
                Self {
                    $($name: Counter::default(),)*
                    latency: (0..LATENCY_BUCKETS).map(|_| Counter::default()).collect(),
                }
            }
        }

        impl ShardStats {
            /// A copy to report.
            pub fn snapshot(&self) -> ShardCounters {
                ShardCounters {
                    $($name: self.$name.get(),)*
                    latency: self.latency.iter().map(Counter::get).collect(),
                }
            }
        }
    };
}

counters!(
    commands, gets, puts, removes, hits, misses, expired, forwarded, served_for_others, errors,
    connections_accepted, connections_refused, connections_cut, bytes_in, bytes_out, stalls, turn_us_max,
    connections, keys, keys_with_expiry, memory_bytes, expiry_lag_ms,
);
