//! What to do, decided apart from doing it: names, ports, CPUs, and the next step of a node. Pure: what is free, what is
//! alive and what time it is come in as arguments.

pub(crate) mod cpus;
pub(crate) mod names;
pub(crate) mod ports;
pub(crate) mod steps;
