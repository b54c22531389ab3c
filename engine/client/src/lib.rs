//! The Rust client of a store: blocking, over RESP3, through any of its nodes.
//!
//! It stands apart because programs link it and nothing else of DKV. Its invariants: a read is tried on the next node when
//! one fails; a write is never sent twice, and when its answer is lost the caller is told so
//! ([`ClientError::Uncertain`]); replies are bounded and nothing is reserved for what has not arrived. It knows nothing
//! of managers, and of nodes only their client ports.
//!
//! ```no_run
//! use dkv_client::{Client, Options, SetOptions};
//!
//! let mut store = Client::connect(Options::from_url("dkv://127.0.0.1:7861/TestStore")?)?;
//! store.set(b"greeting", b"hello", &SetOptions::default())?;
//! assert_eq!(store.get(b"greeting")?.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), dkv_client::ClientError>(())
//! ```
#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod options;

pub use client::{Client, Condition, Expiry, Scan, SetOptions, Ttl, Versioned};
pub use dkv_protocol::resp::value::Value;
pub use error::ClientError;
pub use options::Options;
