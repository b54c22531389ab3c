//! The web console in a real browser (Debian's Chromium, headless), as a person uses it: `tests/clients/console.py` does it.
//!
//! `DKV_PICTURES=DIR` leaves pictures of the page there, for people to look at; the README's is one of them.

use dkv_tests::machine::{Machine, Network, Output, workspace};
use std::path::Path;

/// Runs the script on a machine, against the manager at `url`.
fn browse(machine: &Machine, kind: &str, url: &str, token: &Path) -> Output {
    for (program, package) in [("chromium", "chromium"), ("chromedriver", "chromium-driver")] {
        let path = Path::new("/usr/bin").join(program);
        assert!(path.exists(), "{} is missing: apt-get install {package}", path.display());
    }
    let token = token.to_str().expect("a plain path");
    let pictures = std::env::var("DKV_PICTURES").ok().map(|directory| workspace().join(directory));
    let mut args = vec![kind, url, token];
    args.extend(pictures.as_deref().map(|path| path.to_str().expect("a plain path")));
    let output = machine.python("console.py", &args).ok();
    print!("{}", output.out);
    output
}

#[test]
fn a_person_sees_and_runs_a_store_in_a_browser() {
    let machine = Network::alone();
    let up = machine.dkv("up").ok();
    let token = machine.data.join("token");
    up.says(&["Web console: http://127.0.0.1:7801/", token.to_str().expect("a plain path")]);
    let output = browse(&machine, "one", "http://127.0.0.1:7801", &token);
    for step in [
        "log in",
        "under load",
        "no token on the wire",
        "stop and start with keys alone",
        "a manager that is away",
        "360 pixels",
        "no errors in the console",
    ] {
        assert!(output.out.contains(step), "{step:?} is not in {}", output.out);
    }
}

#[test]
fn a_browser_on_another_machine_sees_the_whole_group() {
    let network = Network::of(2);
    let [a, b] = &network.machines[..] else { unreachable!("two") };
    let mut managers = Vec::new();
    let token = "5".repeat(64);
    for machine in [a, b] {
        let file = machine.file("group.token", &token);
        let listen = format!("{}:7801", machine.address);
        let file = file.to_str().expect("a plain path");
        managers.push(machine.manager(&["--listen", &listen, "--token-file", file]));
    }
    a.dkv("connect -m 10.77.0.11,10.77.0.12 --token-file group.token").ok();
    a.dkv("store create Orders --instance-prefix node --no-protected-mode").ok();
    a.dkv("store start Orders").ok();
    // Of this page the browser trusts nothing (an address, plain HTTP), and the manager no token that travels.
    let output = browse(b, "two", "http://10.77.0.11:7801", &b.path("group.token"));
    assert!(output.out.contains("stopped on both machines"), "{}", output.out);
    for machine in [a, b] {
        assert!(machine.pids("node").is_empty(), "a node of {} runs", machine.address);
    }
}
