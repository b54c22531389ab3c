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

pub mod command;
pub mod commands;
mod face;
mod shard;
pub mod stats;

pub use face::{Opened, Order, PortKind, SessionId};
pub use shard::Shard;

/// A batch that is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchError;
