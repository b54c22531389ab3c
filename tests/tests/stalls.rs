//! The cases that could keep a shard from everybody else, small: nothing takes long. The full sizes and the bound of a
//! millisecond are `cargo run --release -p dkv-tests --bin stalls`.

use dkv_tests::machine::dkv;
use dkv_tests::stalls::{Sizes, run};

/// What nothing may take in this build, microseconds: without optimisation everything takes some ten times as long,
/// and the machines that run tests are busy. What is not sliced takes hundreds of milliseconds there.
const BOUND_US: u64 = if cfg!(debug_assertions) { 50_000 } else { 1000 };

#[test]
fn nothing_keeps_a_shard_for_long() {
    let cases = run(&dkv(), Sizes::SMALL, |case| {
        eprintln!("{}: {} us, turn {} us; {}", case.name, case.piece_us, case.turn_us, case.note);
    });
    assert!(cases.len() >= 12, "{}", cases.len());
    assert!(cases.iter().all(|case| case.turn_us > 0), "they were measured");
    for case in &cases {
        assert!(case.turn_us.max(case.piece_us) <= BOUND_US, "{case:?}");
    }
}
