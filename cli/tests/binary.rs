//! The built binary, for everything that needs no manager: exit codes, where the words go, what is written where.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `dkv` with a home of its own and nothing of the caller's environment that it reads.
fn dkv(home: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dkv"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DKV_"))
    {
        command.env_remove(name);
    }
    command
        .args(line)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_HOME", home.join("data"))
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for this test")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A port of loopback that nobody listens on: bound, so that nobody gets it meanwhile, and not listening.
fn silent_port() -> (rustix::fd::OwnedFd, String) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&held, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address =
        std::net::SocketAddr::try_from(getsockname(&held).expect("bound")).expect("an address");
    (held, address.to_string())
}

#[test]
fn exit_codes_are_as_documented() {
    let home = tempfile::tempdir().unwrap();
    let (_held, nobody) = silent_port();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--help"], 0, ""),
        (&["--version"], 0, ""),
        (&["store", "create", "--help"], 0, ""),
        (&["New-DkvStore", "-?"], 0, ""),
        (&["completions", "bash"], 0, ""),
        (&["completions", "zsh"], 0, ""),
        (&["completions", "fish"], 0, ""),
        (&["context", "list"], 0, ""),
        (&["Get-DkvConnection"], 0, ""),
        (&["Disconnect-DkvStore"], 0, ""),
        (&[], 2, "Usage"),
        (&["nonsense"], 2, "nonsense"),
        (&["store", "create", "S", "--replicas", "0", "--ack", "async"], 2, "--replicas"),
        (&["store", "create", "S", "--durability", "sync"], 2, "cannot be promised"),
        (&["store", "create", "S", "--client-port", "70000"], 2, "70000"),
        (&["store", "create", "S", "--instance-count", "0"], 2, "--instance-count"),
        (&["connect"], 2, "dkv connect -m"),
        (&["connect", "-m", "0.0.0.0:7801"], 2, "0.0.0.0"),
        (&["Connect-DkvManager", "-Managers", "::"], 2, "::"),
        (&["connect", "-m", "127.0.0.1,10.77.0.11"], 2, "127.0.0.1:7801"),
        (&["New-DkvStore"], 2, "New-DkvStore needs -Name"),
        (&["Watch-DkvKey", "a"], 2, "there is no cmdlet"),
        (&["context", "use", "nowhere"], 2, "nowhere"),
        (&["store", "list", "--context", "nowhere"], 2, "nowhere"),
        (&["kv", "get", "a", "-e", "0.0.0.0"], 2, "every address"),
        (&["kv", "set", "a"], 2, "VALUE"),
        (&["kv", "mset", "a", "1", "b"], 2, "\"b\" has no value"),
        (&["store", "list"], 3, "No managers connected. Use dkv connect or specify -m."),
        (
            &["Get-DkvStore"],
            3,
            "No managers connected. Use Connect-DkvManager or specify -Managers.",
        ),
        (&["kv", "get", "a"], 3, "No managers connected."),
        (&["store", "list", "-m", &nobody], 3, &nobody),
        (&["connect", "-m", &nobody], 3, &nobody),
        (&["kv", "get", "a", "-e", &nobody], 3, &nobody),
        (&["bench"], 3, "No managers connected."),
        (&["bench", "--target", &nobody], 3, &nobody),
        (&["bench", "--target", &nobody, "--keys", "0"], 2, "0 keys"),
        (&["bench", "--target", &nobody, "--threads", "20"], 2, "each thread needs one"),
        (&["bench", "--value-size", "600MiB"], 2, "at most 512MiB"),
        (&["bench", "--rate", "5", "--closed"], 2, "--closed"),
        (&["bench", "--compare", "a.json", "b.json"], 1, "a.json"),
        (&["Test-DkvLatency", "S"], 2, "Test-DkvLatency needs -Iterations"),
        (&["Test-DkvLatency", "S", "-Iterations", "1000001"], 2, "1000001"),
        (&["Stress-DkvStore", "S", "-DurationSec", "1", "-Concurrency", "2049"], 2, "2049"),
        (&["Benchmark-DkvStore", "S", "-Profile", "Most"], 2, "Most"),
    ];
    for (line, expected, says) in cases {
        let output = dkv(home.path(), line);
        let errors = text(&output.stderr);
        assert_eq!(code(&output), *expected, "{line:?}: {errors}");
        assert!(errors.contains(says), "{line:?}: {errors}");
        // Results and errors never share a stream.
        assert_eq!(output.stdout.is_empty(), *expected != 0, "{line:?}: {}", text(&output.stdout));
    }
}

#[test]
fn a_failure_is_json_for_a_program() {
    let home = tempfile::tempdir().unwrap();
    for line in [["store", "list", "-o", "json"], ["store", "list", "--output", "json"]] {
        let output = dkv(home.path(), &line);
        assert_eq!(code(&output), 3);
        let document: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(document["error"]["code"], "not_connected");
        assert!(
            document["error"]["hint"].as_str().is_some_and(|hint| hint.contains("dkv connect"))
        );
    }
}

#[test]
fn a_broken_contexts_file_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config/dkv/contexts.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{").unwrap();
    let output = dkv(home.path(), &["store", "list"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("contexts.json cannot be read"));
}

#[test]
fn doctor_gives_a_row_for_each_check() {
    let home = tempfile::tempdir().unwrap();
    let output = dkv(home.path(), &["doctor", "-o", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    // What costs latency is a warning; only what stops a node fails the command.
    let words = ["ok", "note", "unknown", "warning", "fatal"];
    assert!(rows.iter().all(|row| words.iter().any(|word| row["Result"] == *word)), "{rows:#?}");
    let stops = rows.iter().any(|row| row["Result"] == "fatal");
    assert_eq!(code(&output), i32::from(stops), "{rows:#?}");
    for check in [
        "io_uring",
        "memlock",
        "descriptors",
        "cpus",
        "client ports",
        "data directory",
        "stolen time",
    ] {
        assert!(rows.iter().any(|row| row["Check"] == check), "{check}");
    }
    for row in rows.iter().filter(|row| row["Result"] != "ok") {
        assert_ne!(row["Why"], "", "{row}");
        assert!(row["Result"] == "note" || row["Fix"] != "", "{row}");
    }
    let woken =
        rows.iter().filter(|row| row["Check"].as_str().unwrap().starts_with("wake-up CPU")).count();
    assert_eq!(woken, std::thread::available_parallelism().unwrap().get(), "{rows:#?}");
}

#[test]
fn doctor_prints_fixes_and_leaves_out_what_takes_time_when_asked_to() {
    let home = tempfile::tempdir().unwrap();
    let fixes = text(&dkv(home.path(), &["doctor", "--fix", "--quick"]).stdout);
    assert!(fixes.starts_with("# "), "{fixes}");
    let quick = text(&dkv(home.path(), &["doctor", "--quick"]).stdout);
    assert!(quick.contains("left out (--quick)"), "{quick}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn results_in_a_pipe_have_no_colours() {
    let home = tempfile::tempdir().unwrap();
    let table = text(&dkv(home.path(), &["doctor", "--quick"]).stdout);
    assert!(table.starts_with("Check "), "{table}");
    assert!(table.lines().nth(1).is_some_and(|rule| rule.chars().all(|c| c == '-')), "{table}");
    assert!(!table.contains('\x1b'));
    let help = text(&dkv(home.path(), &["--help"]).stdout);
    assert!(!help.contains('\x1b'));
}

#[test]
fn what_if_changes_nothing_and_asks_nobody() {
    let home = tempfile::tempdir().unwrap();
    let output = dkv(home.path(), &["Set-DkvItem", "a", "hello", "-WhatIf"]);
    assert_eq!(code(&output), 0);
    assert_eq!(text(&output.stdout), "would set \"a\" to 5 bytes\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dkv"))
        .args(["completions", "bash"])
        .env("HOME", home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
}

#[test]
fn every_flag_may_come_from_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let (_held, nobody) = silent_port();
    let output = Command::new(env!("CARGO_BIN_EXE_dkv"))
        .args(["store", "list"])
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("DKV_DATA_DIR", home.path())
        .env("DKV_MANAGERS", &nobody)
        .env("DKV_OUTPUT", "json")
        .output()
        .expect("the binary was built for this test");
    assert_eq!(code(&output), 3);
    let document: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert!(document["error"]["message"].as_str().is_some_and(|message| message.contains(&nobody)));
}

#[test]
fn an_interruption_ends_with_130_and_says_what_goes_on() {
    const SIGINT_BIT: u64 = 1 << 1;
    let home = tempfile::tempdir().unwrap();
    // It waits for its value, which never comes.
    let mut child = Command::new(env!("CARGO_BIN_EXE_dkv"))
        .args(["kv", "set", "a", "--stdin"])
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let caught = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mask =
            status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & SIGINT_BIT != 0)
    };
    let begin = std::time::Instant::now();
    while !caught() {
        assert!(begin.elapsed().as_secs() < 60, "the handler is not installed");
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(code(&output), 130);
    assert!(text(&output.stderr).contains("interrupted; "), "{}", text(&output.stderr));
}

#[test]
fn flags_after_keys_and_values_are_flags() {
    let home = tempfile::tempdir().unwrap();
    for line in [
        &["kv", "mset", "a", "1", "b", "-2", "--dry-run", "-o", "json"][..],
        &["kv", "set", "a", "1", "--dry-run", "-o", "json"],
        &["Set-DkvItems", "a=-x,b=2", "-WhatIf", "-Output", "json"],
    ] {
        let output = dkv(home.path(), line);
        assert_eq!(code(&output), 0, "{line:?}: {}", text(&output.stderr));
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(rows[0]["WouldSet"], "a", "{line:?}");
        assert!(rows.iter().all(|row| !row["WouldSet"].as_str().unwrap().starts_with('-')));
    }
}
