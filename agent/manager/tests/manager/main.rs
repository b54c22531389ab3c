//! Managers as a whole: their API over real sockets, their nodes as real processes (played by the fake of this crate), and
//! several of them as one group.

mod api;
mod console;
mod deciding;
mod groups;
mod harness;
mod lost;
mod ranges;
mod starting;
mod supervision;
mod users;
