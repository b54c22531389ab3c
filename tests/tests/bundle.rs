//! `dkv debug bundle`: what a helper elsewhere needs, and none of the secrets that were planted wherever they can be.

use dkv_tests::machine::{Machine, Network, workspace};
use std::fs;

const TOKEN: &str = "planted-token-0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "planted correct horse";
const USER: &str = "plantedannspassword";
const SEED: &str = "00112233445566778899aabbccddeeff";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIplantedkey\n-----END PRIVATE KEY-----\n";

/// All of a bundle as one text, each entry after its name.
fn unpacked(machine: &Machine, file: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let into = dir.path().to_str().expect("a plain path");
    machine.run("tar", &["-xzf", file, "-C", into]).ok();
    machine.run("grep", &["-r", "", into]).ok().out
}

#[test]
fn a_bundle_has_everything_but_secrets() {
    let machine = Network::alone();
    let token = machine.file("group.token", &format!("{TOKEN}\n"));
    let token = token.to_str().expect("a plain path");
    machine.file("store.password", &format!("{PASSWORD}\n"));
    let _manager = machine.manager(&["--token-file", token]);
    machine.dkv("connect -m 127.0.0.1:7801 --token-file group.token").ok();
    machine.dkv("store create Safe --instance-prefix n --instance-count 1 --password-file store.password").ok();
    machine.dkv("store start Safe").ok();
    machine.dkv(&format!("store user set Safe ann on >{USER} ~* +@all")).ok();
    let seed = machine
        .run(
            "curl",
            &[
                "-s",
                "-H",
                &format!("Authorization: Bearer {TOKEN}"),
                "http://127.0.0.1:7801/admin/v1/stores/Safe",
            ],
        )
        .ok()
        .out;
    let seed: serde_json::Value = serde_json::from_str(&seed).expect("a document");
    let record = &seed["record"];
    let secret = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let hashes = [secret(&record["hash_seed"]), secret(&record["definition"]["password_sha256"])];
    // A log is where a secret ends up that nobody meant to write down.
    let log = machine.data.join("logs/Safe.n1.log");
    let mut text = fs::read_to_string(&log).expect("the node's log");
    let planted = format!(
        "{KEY}seed {} token {TOKEN} {{\"hash_seed\":\"{SEED}\"}} Bearer plantedbearer password=plantedword\n\
         SETUSER bob on >plantedbob\nwith {PASSWORD} in it\nthe last line\n",
        hashes[0],
    );
    text.push_str(&planted);
    fs::write(&log, text).expect("the log is writable");

    // One that does not answer is noted, and keeps nobody.
    let line = "debug bundle -m 127.0.0.1:7801,127.0.0.1:7999 --token-file group.token --output b.tar.gz --password-file store.password";
    let shown = machine.dkv(line).ok().says(&["missing", "127.0.0.1:7999", "cannot connect"]).out;
    for entry in [
        "version.json",
        "doctor.json",
        "contexts.json",
        "managers/127.0.0.1:7801/health.json",
        "managers/127.0.0.1:7801/managers.json",
        "managers/127.0.0.1:7801/stores.json",
        "managers/127.0.0.1:7801/users-Safe.json",
        "managers/127.0.0.1:7801/metrics-1.txt",
        "managers/127.0.0.1:7801/metrics-3.txt",
        "managers/127.0.0.1:7801/logs/Safe.n1.log",
        "nodes/Safe.n1.info",
    ] {
        assert!(shown.contains(entry), "{entry} is not in\n{shown}");
    }
    let all = unpacked(&machine, "b.tar.gz");
    for part in [
        "dkv_store:Safe",
        "the last line",
        "wake-up CPU",
        "user ann on #[redacted]",
        "CONTENTS.txt",
        "dkv_",
    ] {
        assert!(all.contains(part), "{part} is not in the bundle");
    }
    let planted =
        [TOKEN, PASSWORD, USER, SEED, "MIIplanted", "plantedbearer", "plantedword", "plantedbob"];
    for secret in planted.into_iter().chain(hashes.iter().map(String::as_str)) {
        let line = all.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the bundle");
    }
    // The hash of the user's password, which the managers keep.
    let hash =
        machine.run("sh", &["-c", &format!("printf %s {USER} | sha256sum | cut -c1-64")]).ok().out;
    assert!(!all.contains(hash.trim()), "{hash}");

    machine
        .dkv("debug bundle --output b.tar.gz")
        .fails(1)
        .says(&["exists already"])
        .says(&["--force"]);
    machine.dkv("debug bundle --output b.tar.gz --force").ok();
    machine
        .dkv("debug bundle Nope --output n.tar.gz")
        .fails(1)
        .says(&["no store \"Nope\"", "Safe"]);
    assert!(!machine.path("n.tar.gz").exists());
}

#[test]
fn a_machine_without_a_manager_gives_what_it_has() {
    let machine = Network::alone();
    fs::create_dir_all(machine.data.join("logs")).expect("a directory");
    fs::write(machine.data.join("manager.log"), "it did not start\n").expect("a log");
    let shown = machine.dkv("debug bundle --output b.tar.gz").ok().says(&["No managers connected"]);
    assert!(shown.out.contains("local/logs/manager.log"), "{}", shown.out);
    assert!(unpacked(&machine, "b.tar.gz").contains("it did not start"));
}

#[test]
fn the_commands_of_the_readme_work() {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let (_, section) = readme.split_once("\n## What a host costs\n").expect("its section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let commands: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("$ dkv ")).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    let machine = Network::alone();
    for command in commands {
        machine.dkv(command).ok();
    }
}
