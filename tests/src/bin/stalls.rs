//! Prints how long a shard was kept from everybody else by what could keep it longest, and fails when that is over a
//! millisecond of its CPU time: `cargo run --release -p dkv-tests --bin stalls`. With `--small`, fewer keys and shorter
//! values.

use dkv_tests::machine::dkv_made;
use dkv_tests::stalls::{Case, Sizes, machine, run};
use std::process::ExitCode;

/// What nothing may take, microseconds.
const BOUND_US: u64 = 1000;

fn main() -> ExitCode {
    let small = std::env::args().any(|arg| arg == "--small");
    let binary = dkv_made();
    println!(
        "{:<58} {:>9} {:>9} {:>7}",
        "CPU time of the shard's thread", "piece us", "turn us", "stalls"
    );
    let (computed, touched) = machine();
    println!(
        "this machine: 100 us of computation take at most {computed} us, 2 MiB of new memory {touched} us"
    );
    let cases = run(&binary, if small { Sizes::SMALL } else { Sizes::FULL }, print);
    let over = cases.iter().filter(|case| case.turn_us.max(case.piece_us) > BOUND_US).count();
    if over > 0 {
        println!("{over} of {} cases over {BOUND_US} us", cases.len());
        return ExitCode::FAILURE;
    }
    println!("nothing took over {BOUND_US} us");
    ExitCode::SUCCESS
}

fn print(case: &Case) {
    let Case { name, piece_us, turn_us, stalls, note } = case;
    println!("{name:<58} {piece_us:>9} {turn_us:>9} {stalls:>7}  {note}");
}
