//! The key-value path of one core, pure: bytes of clients and batches of other shards in; replies, batches and a few
//! orders to the driver out.
//!
//! It owns the sessions of its connections, the order of their replies, the table of its ranges and the requests it
//! has under way elsewhere. It knows no socket, no ring, no thread and no clock: `now` comes in with every call, so the
//! node and a simulator drive the same code.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acl;
mod asking;
#[cfg(test)]
mod bench;
mod clients;
mod cluster;
pub mod command;
mod command_stats;
pub mod commands;
mod connection;
mod copied;
mod face;
mod gates;
mod hotkeys;
mod input;
mod lag;
mod links;
mod merge;
mod monitor;
mod node_wide;
mod pace;
mod pubsub;
mod queue;
mod receiving;
mod refusal;
mod replication;
mod reroute;
mod serving;
mod session;
pub mod settings;
mod shard;
mod slowlog;
mod spikes;
mod standing;
pub mod stats;
mod stillness;
mod tally;
mod tracking;
mod transaction;
mod tuning;
mod users;
mod waits;
mod walk;

pub use acl::line::{user_line, user_needs_no_password};
pub use dkv_protocol::frame::BatchError;
pub use face::{Opened, Order, Output, PortKind, SessionId};
pub use gates::{Gates, Hold};
pub use shard::Shard;
pub use tally::Piece;
pub use users::UsersOutcome;
