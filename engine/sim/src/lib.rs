//! Deterministic simulation of a store with copies: the real replication code and the real catalogue under a seeded
//! scheduler, network and clocks, with clients whose histories are checked.
//!
//! It stands apart because it may know what no part of the product may: all machines at once, and true time. A run is a
//! function of its seed. It never touches a socket, a file or a real clock; only the command line looks at one, to stop.

pub mod checker;
pub mod clients;
pub mod clock;
pub mod control;
pub mod copies;
mod ending;
pub mod face;
mod faults;
pub mod history;
pub mod ledger;
pub mod model;
pub mod net;
pub mod node;
mod peers;
pub mod planted;
pub mod queue;
pub mod real;
pub mod rng;
pub mod scenario;
pub mod seeds;
pub mod trace;
mod world;

pub use ending::Report;
pub use planted::Planted;
pub use scenario::Driven;

/// Runs a seed.
pub fn run(seed: u64, planted: Planted, driven: Driven, readable: bool) -> Report {
    world::World::new(seed, planted, driven, readable).run()
}
