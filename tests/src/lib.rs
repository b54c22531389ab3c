//! The harness of the tests that run real processes: machines as network namespaces, the `dkv` binary, and the few
//! words of RESP and HTTP that a test needs to speak by hand.
//!
//! It stands apart so that a test reads as the story it tells. Every machine is a namespace of its own, so no port and
//! no manager of one test can meet those of another, and everything that was started in it ends with it. It needs root
//! (namespaces) and says so when it is not. What is measured on one node alone does without: [`bare`], [`crowds`] and [`stalls`];
//! so does what runs in memory, [`fuzz`].

pub mod bare;
pub mod crowds;
pub mod differential;
pub mod failover;
pub mod fuzz;
pub mod machine;
pub mod raw;
pub mod roster;
pub mod stalls;
pub mod terminal;

pub use machine::{Machine, Network, Output};
