//! Too few descriptors.

use std::time::{Duration, Instant};

use super::Tested;
use super::rig::{PATIENCE, connect, in_child, is_child, listener, options, test_name, turn_until};
use dkv_io::{Event, Reactor, Wait};
use rustix::process::{Resource, Rlimit, setrlimit};

#[test]
fn running_out_of_descriptors_pauses_accepting_and_does_not_spin() {
    let name =
        test_name(module_path!(), "running_out_of_descriptors_pauses_accepting_and_does_not_spin");
    if !is_child(&name) {
        return in_child(&name, |_| {});
    }
    let (listener, address) = listener();
    let mut reactor = Tested::new(options()).expect("a reactor");
    reactor.listen(listener).expect("listens");
    // The clients first: they need descriptors too.
    let clients: Vec<_> = (0..10).map(|_| connect(address)).collect();
    let open = std::fs::read_dir("/proc/self/fd").expect("reads").count() as u64;
    let limit = Rlimit { current: Some(open + 3), maximum: Some(open + 100) };
    setrlimit(Resource::Nofile, limit).expect("lowers");
    let mut accepted = Vec::new();
    let mut pauses = 0;
    let mut turns = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(550) {
        let mut events = Vec::new();
        reactor.turn(Wait::Until(Duration::from_secs(1)), &mut events).expect("the reactor works");
        turns += 1;
        for event in events {
            match event {
                Event::Accepted { socket, .. } => accepted.push(socket),
                Event::AcceptPaused { error, .. } => {
                    assert_eq!(error.raw_os_error(), Some(24), "EMFILE");
                    pauses += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(accepted.len() < 10 && pauses >= 2, "{} accepted, {pauses} pauses", accepted.len());
    assert!(turns < 50, "{turns} turns: it spins");
    // Descriptors come back, and so do the peers.
    let limit = Rlimit { current: Some(open + 100), maximum: Some(open + 100) };
    setrlimit(Resource::Nofile, limit).expect("raises");
    let start = Instant::now();
    while accepted.len() < 10 {
        turn_until(&mut reactor, "the accept", |_, event| match event {
            Event::Accepted { socket, .. } => {
                accepted.push(socket);
                true
            }
            _ => false,
        });
        assert!(start.elapsed() < PATIENCE);
    }
    drop(clients);
}
