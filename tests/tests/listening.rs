//! Subscribers of real nodes: one that does not read, one that goes away, and a node that ends with its subscribers.

use dkv_tests::bare::{Bare, Connection};
use dkv_tests::machine::{dkv, until};

/// A number of INFO.
fn info(connection: &mut Connection, field: &str) -> u64 {
    let text = connection.ask("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{field} in {text}"))
}

fn subscriber(node: &Bare) -> Connection {
    let mut connection = node.connect();
    connection.send(&[b"SUBSCRIBE", b"news"]);
    assert_eq!(connection.skip_whole(), b"*3");
    connection
}

fn store() -> Vec<Bare> {
    let nodes = Bare::store(&dkv(), (0, "noeviction"), 2);
    for node in &nodes {
        let mut client = node.connect();
        until("the nodes find each other", || client.ask("DBSIZE") == "0");
    }
    nodes
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_the_others_get_everything() {
    let nodes = store();
    let slow = subscriber(&nodes[1]);
    let mut reader = subscriber(&nodes[1]);
    let mut publisher = nodes[0].connect();
    let mut look = nodes[1].connect();
    let payload = vec![b'x'; 1 << 20];
    let before = nodes[1].resident_bytes();
    let mut receivers = Vec::new();
    for _ in 0..80 {
        publisher.send(&[b"PUBLISH", b"news", &payload]);
        receivers.push(publisher.reply());
        assert_eq!(reader.skip_whole(), b"*3");
    }
    assert_eq!((&receivers[0][..], &receivers[79][..]), (&b"2"[..], &b"1"[..]));
    assert_eq!(info(&mut look, "dkv_subscribers_cut"), 1);
    assert_eq!(info(&mut look, "pubsub_clients"), 1);
    let grown = nodes[1].resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 200, "{grown} MiB for a bound of 32");
    drop(slow);
}

#[test]
fn who_goes_away_is_not_counted_and_a_node_that_ends_takes_its_subscribers_with_it() {
    let mut nodes = store();
    let stays = subscriber(&nodes[0]);
    let goes = subscriber(&nodes[1]);
    let _ends = subscriber(&nodes[1]);
    let mut publisher = nodes[0].connect();
    assert_eq!(publisher.ask("PUBLISH news 1"), "3");
    drop(goes);
    until("the one that went is not counted", || publisher.ask("PUBLISH news 2") == "2");
    drop(nodes.pop());
    until("the node's are not counted", || publisher.ask("PUBLISH news 3") == "1");
    assert!(info(&mut publisher, "pubsub_clients") == 1);
    drop(stays);
}
