//! A process that is a node and nothing else: what the tests of this crate start, stop and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(dkv_node::run())
}
