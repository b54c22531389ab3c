//! A few thousand inputs of each fuzz target, always the same; the program `fuzz` runs longer.

use dkv_tests::fuzz::{TARGETS, run, target};

fn feed(name: &str, inputs: u64) {
    assert!(TARGETS.contains(&name));
    let mut target = target(name).expect("it is there");
    let given = target.examples().len();
    let done = run(target.as_mut(), 20_261_123, |count| count < inputs);
    assert_eq!(done.inputs, inputs);
    // Inputs that take the way of an earlier one only were not worth making.
    assert!(done.examples > given, "{done:?}");
}

#[test]
fn requests() {
    feed("requests", 20_000);
}

#[test]
fn replies() {
    feed("replies", 20_000);
}

#[test]
fn frames() {
    feed("frames", 20_000);
}

#[test]
fn documents() {
    feed("documents", 20_000);
}

#[test]
fn globs() {
    feed("globs", 5_000);
}

#[test]
fn executor() {
    feed("executor", 3_000);
}
