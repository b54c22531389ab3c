//! What a manager refuses at its own start, and that it says what to type.

use crate::harness::{Machine, definition};
use dkv_agent::exit;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[track_caller]
fn refused(machine: &Machine, code: u8, words: &[&str]) {
    let Err(error) = machine.try_start() else { panic!("it started") };
    let text = error.to_string();
    assert_eq!(error.exit_code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn a_second_manager_of_the_machine_is_refused_whatever_its_port_and_directory() {
    let first = Machine::new();
    let _running = first.start();
    let mut second = Machine::new();
    second.options.guard_name.clone_from(&first.options.guard_name);
    let pid = std::process::id().to_string();
    refused(&second, exit::ALREADY_RUNNING, &[&pid, &first.address.to_string(), "kill"]);
    assert!(!second.data().exists(), "nothing was made");
}

#[test]
fn one_directory_serves_one_manager() {
    let first = Machine::new();
    let _running = first.start();
    let mut second = Machine::new();
    second.options.data_dir.clone_from(&first.options.data_dir);
    refused(&second, exit::ALREADY_RUNNING, &["data directory", "--data-dir"]);
}

#[test]
fn addresses_and_tokens_that_will_not_do_are_refused() {
    let mut machine = Machine::new();
    machine.options.listen = "0.0.0.0:7801".parse().unwrap();
    refused(&machine, exit::BAD_CONFIGURATION, &["0.0.0.0", "--listen"]);
    machine.options.listen = "192.0.2.1:7801".parse().unwrap();
    refused(&machine, exit::BAD_CONFIGURATION, &["not an address of this machine"]);
    machine.options.token_file = None;
    refused(&machine, exit::BAD_CONFIGURATION, &["openssl rand -hex 32", "--token-file"]);

    let machine = Machine::new();
    let token = machine.options.token_file.clone().unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&machine, exit::BAD_CONFIGURATION, &["0644", "chmod 600"]);
    std::fs::remove_file(&token).unwrap();
    refused(&machine, exit::BAD_CONFIGURATION, &["cannot read the token file"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let machine = Machine::new();
    let _taken = std::net::TcpListener::bind(machine.address).unwrap();
    refused(&machine, exit::ALREADY_RUNNING, &[&machine.address.to_string(), "--listen"]);
}

#[test]
fn a_directory_of_somebody_else_is_not_closed_to_him() {
    let mut machine = Machine::new();
    let open = machine.path().join("home");
    std::fs::create_dir(&open).unwrap();
    std::fs::write(open.join("letter"), "dear").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    machine.options.data_dir = open.clone();
    refused(&machine, exit::BAD_CONFIGURATION, &["chmod 700"]);
    assert_eq!(mode(&open), 0o755);
    std::fs::remove_file(open.join("letter")).unwrap();
    let running = machine.start();
    assert_eq!(mode(&open), 0o700);
    running.end();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_damaged_catalogue_is_said_and_left_alone() {
    let machine = Machine::new();
    machine.start().end();
    let path = machine.data().join("catalogue.json");
    let whole = std::fs::read(&path).unwrap();
    // An empty catalogue is hardly longer than its first line, which is looked at by itself.
    let torn = &whole[..whole.len() - 10];
    std::fs::write(&path, torn).unwrap();
    refused(&machine, exit::CATALOGUE, &["catalogue.json", "cut short", "mv "]);
    assert_eq!(std::fs::read(&path).unwrap(), torn);
}

#[test]
fn a_machine_with_stores_keeps_its_address() {
    let mut machine = Machine::new();
    let running = machine.start();
    machine.client().create(&definition("S", 1)).unwrap();
    running.end();
    let before = machine.address;
    machine.options.listen.set_port(7802);
    refused(&machine, exit::CATALOGUE, &[&before.to_string(), "--listen", "(S)"]);
}
