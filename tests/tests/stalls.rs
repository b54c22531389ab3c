//! The cases that could keep a shard from everybody else, small: nothing takes long. The full sizes and the bound of a
//! millisecond are `cargo run --release -p dkv-tests --bin stalls`.

use dkv_tests::machine::{dkv, until};
use dkv_tests::stalls::{Sizes, run};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Stdio};

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

#[test]
fn a_signal_ends_the_node_with_the_program() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut program = Command::new(env!("CARGO_BIN_EXE_stalls"))
        .arg("--small")
        .env("DKV_TEST_BINARY", dkv())
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let pid = program.id();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let node = || std::fs::read_to_string(&children).ok()?.split(' ').next()?.parse::<u32>().ok();
    // What has been killed and not been waited for has no command line any more.
    let line =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // The program that asks the kernel to end it with its parent comes first, with the same last words.
    let runs = |line: &str| line.ends_with("\0node\0") && !line.starts_with("setpriv\0");
    until("the node runs", || node().is_some_and(|pid| runs(&line(pid))));
    let node = node().expect("it runs");
    kill_process(Pid::from_child(&program), Signal::TERM).expect("it runs");
    assert!(!program.wait().expect("it ends").success());
    until("the node is gone", || line(node).is_empty());
}
