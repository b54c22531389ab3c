//! Prints what crowds of connections cost a node and what they cost others, and fails when that is more than is promised:
//! `cargo run --release -p dkv-tests --bin crowds`. With `--small`, fewer connections.

use dkv_tests::crowds::{Case, Sizes, run};
use dkv_tests::machine::dkv_made;
use std::process::ExitCode;

/// What a connection may cost: one that does nothing, and one that is in the middle of a command.
const IDLE_BYTES: u64 = 4 * 1024;
const BUSY_BYTES: u64 = 16 * 1024;
/// How many times longer others may wait.
const RATIO: f64 = 1.5;

fn main() -> ExitCode {
    let small = std::env::args().any(|arg| arg == "--small");
    println!(
        "{:<42} {:>10} {:>10} {:>10} {:>6}",
        "", "bytes each", "alone us", "crowd us", "ratio"
    );
    let cases = run(&dkv_made(), if small { Sizes::SMALL } else { Sizes::FULL }, print);
    let mut over = Vec::new();
    for case in &cases {
        let bound = if case.name.contains("byte a second") { BUSY_BYTES } else { IDLE_BYTES };
        // What readers that never read make the node hold is bounded for all of them together, not for each.
        if case.bytes_each > bound && !case.name.contains("never read") {
            over.push(format!("{}: {} bytes each, {bound} may be", case.name, case.bytes_each));
        }
        if case.ratio() > RATIO {
            over.push(format!("{}: others wait {:.2} times as long", case.name, case.ratio()));
        }
    }
    for line in &over {
        println!("{line}");
    }
    if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(case: &Case) {
    let Case { name, bytes_each, alone_us, crowded_us, note } = case;
    let ratio = case.ratio();
    println!(
        "{name:<42} {bytes_each:>10} {alone_us:>10.0} {crowded_us:>10.0} {ratio:>6.2}  p99 of PING; {note}"
    );
}
