//! What two processes of DKV must agree on: RESP, slots, the map of a store, cluster frames, the launch document of a
//! node, the control and admin documents, and every limit.
//!
//! It stands apart because every other crate speaks it and none may bend it. Pure: no clock, no socket, no thread; all
//! input is bytes and all output is bytes or values. It knows nothing of tables, rings or files.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod admin;
pub mod control;
pub mod eviction;
pub mod frame;
pub mod hello;
pub mod hex;
pub mod ids;
pub mod io;
pub mod launch;
pub mod limits;
pub mod map;
pub mod peer;
pub mod ranges;
pub mod resp;
pub mod slots;
pub mod users;
