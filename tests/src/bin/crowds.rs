//! Prints what crowds of connections cost a node and what they cost others, and fails when that is more than is promised:
//! `cargo run --release -p dkv-tests --bin crowds`. With `--small`, fewer connections.

use dkv_tests::crowds::{Case, Sizes, run};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

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
    let cases = run(&binary(), if small { Sizes::SMALL } else { Sizes::FULL }, print);
    let mut over = Vec::new();
    for case in &cases {
        let bound = if case.name.contains("idle") { IDLE_BYTES } else { BUSY_BYTES };
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

/// `DKV_TEST_BINARY`, or the release build, made if need be.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DKV_TEST_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program knows its own path");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "dkv-cli"]).current_dir(dkv_tests::machine::workspace());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.status().is_ok_and(|status| status.success());
    assert!(built, "dkv cannot be built: cargo build --release -p dkv-cli says why");
    own.with_file_name("dkv")
}
