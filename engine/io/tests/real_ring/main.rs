//! The reactor on real rings and real sockets over loopback. Most of these are faults that other io_uring servers had in
//! production; the name of each test says which.

#![cfg(not(loom))]

mod close;
mod echo;
mod great;
mod limits;
mod rig;
mod wake;
