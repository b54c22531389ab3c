//! Tests of the table from outside: against a plain map, and its promises at sizes and in corners.

mod counted;
mod eviction;
mod growth;
mod large;
mod model;
mod promises;
mod ranges;
mod replica;
