//! What the managers of a group agree on: for each store its nodes, where the copies of each range should be, and the
//! configuration of each range, changed by compare-and-set alone.
//!
//! It stands apart because it is the one thing that must be the same on every manager: a pure function of the commands in
//! the order of their log. No clock, no file, no socket, no thread, no random number; a command carries what it needs of
//! these. It does not know how its bytes are kept or sent, nor what a copy holds.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ask;
mod catalog;
mod command;
mod range;
mod spread;
mod store;

pub use catalog::{Applied, Catalog};
pub use command::{ASKS_MAX, Command, Drain, Machine, NodeSpec, Outcome, Refusal, Wish};
pub use range::Range;
pub use spread::{Site, rebalance, spread};
pub use store::{Duty, Node, Store};
