//! What the benchmarks are made of: an echo server that is the floor of a machine, a closed-loop client that counts the
//! latency of each request, the load generator of `dkv bench`, a stopwatch for the start of a server, and the table of the micro-benchmarks.
//!
//! It stands apart from the product: a benchmark must not share what it measures. It speaks RESP to any server and knows
//! nothing of stores, nodes or tables; what is run beside what is decided by `benches/compare`.
#![forbid(unsafe_code)]

pub mod canned;
pub mod cpu_time;
pub mod failover;
pub mod generator;
pub mod load;
pub mod micro;
pub mod startup;
