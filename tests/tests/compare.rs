//! The comparison with other servers works as a whole, and leaves nothing behind. What it measures here means nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use dkv_tests::machine::{dkv, until, workspace};
use rustix::process::{Pid, Signal, kill_process};

const SECTIONS: &[&str] = &[
    "start",
    "idle",
    "cpu",
    "latency",
    "mget",
    "connections",
    "forwarding",
    "stalls",
    "cluster",
    "io",
    "generator",
    "memory",
];

fn compare(arguments: &[&str]) -> Command {
    let built = dkv().parent().expect("a directory").to_owned();
    let bench = built.join("dkv-bench");
    assert!(bench.exists(), "{} is missing: cargo build -p dkv-bench", bench.display());
    let mut command = Command::new(workspace().join("benches/compare"));
    command.args(arguments).env("DKV_BUILT", built).stdin(Stdio::null());
    command
}

fn namespaces_of(pid: u32) -> usize {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let own = format!("dkvbench-{pid}-");
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
}

fn start(arguments: &[&str]) -> Child {
    let mut command = compare(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("benches/compare can be started")
}

#[test]
fn every_section_finds_something() {
    let directory = tempfile::tempdir().expect("a directory");
    let found = directory.path().join("found.json");
    let child = start(&["--quick", "--markdown", "--json", found.to_str().expect("a plain path")]);
    let pid = child.id();
    let output = child.wait_with_output().expect("it ends");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{shown}\n{said}");
    assert!(shown.contains("| GET pipeline 64 |"), "{shown}");
    let found: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(&found)).expect("the file"))
            .expect("it is JSON");
    for section in SECTIONS {
        assert!(!found["sections"][section].is_null(), "{section} is missing in {found}");
    }
    let checks = found["checks"].as_array().expect("a list");
    assert!(checks.len() >= 20, "{checks:?}");
    let forwarded = checks.iter().find(|check| {
        check["what"].as_str().is_some_and(|what| what.contains("forwarded requests"))
    });
    // The one check that does not depend on how fast this machine is today.
    assert_eq!(forwarded.expect("it was checked")["value"], 0);
    assert_eq!(namespaces_of(pid), 0);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let child = start(&["--quick", "--only", "cpu"]);
    let pid = child.id();
    until("it has made its namespace", || namespaces_of(pid) > 0);
    let number = Pid::from_raw(pid as i32).expect("a process");
    kill_process(number, Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(namespaces_of(pid), 0);
}
