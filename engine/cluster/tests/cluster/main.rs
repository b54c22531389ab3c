//! Tests of the replication's rules, a few clusters at a time.

mod harness;
mod rules;
mod storms;
