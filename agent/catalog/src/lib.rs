//! What the managers of a group agree on: for each store its nodes, where the copies of each range should be, and the
//! configuration of each range, changed by compare-and-set alone.
//!
//! It stands apart because it is the one thing that must be the same on every manager: a pure function of the commands in
//! the order of their log, and the log itself, which is Raft's. No clock, no file, no socket, no thread, no random number; a command carries what it needs of
//! these. It does not know how its bytes are kept or sent, nor what a copy holds.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ask;
mod catalog;
mod command;
mod consensus;
mod group;
mod kept;
mod log;
mod range;
mod spread;
mod store;
mod wire;

pub use catalog::{Applied, Catalog};
pub use command::{ASKS_MAX, Command, Drain, Machine, NodeSpec, Outcome, Refusal, Wish};
pub use consensus::{Consensus, ELECTION_TICKS_MIN};
pub use group::{Group, GroupChange, MEMBERS_MAX, Member, MemberId};
pub use kept::Unreadable;
pub use log::{
    After, Committed, ConfigLog, Envelope, Halted, NotProposed, NotTaken, PROPOSAL_BYTES_MAX,
    Persist, Proposal, Ready,
};
pub use range::Range;
pub use spread::{Site, rebalance, spread};
pub use store::{Duty, Node, Store};
