//! The users of a store at its nodes: from the launch document, and from the manager that follows.

mod harness;

use dkv_protocol::control::ToNode;
use dkv_protocol::users::Users;
use harness::Store;
use harness::follower::open;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn users(version: u64) -> Users {
    Users { version, lines: vec![format!("user u{version} on nopass ~* &* +@all")] }
}

fn say(stream: &mut UnixStream, told: &ToNode) {
    let mut line = serde_json::to_vec(told).expect("JSON");
    line.push(b'\n');
    stream.write_all(&line).expect("sent");
}

#[test]
fn a_node_has_the_users_that_it_was_launched_with_and_then_those_it_is_told() {
    let mut store = Store::new(&[2, 1]);
    store.documents[0].users = users(3);
    store.start(0);
    store.start(1);
    assert_eq!(store.status(0).users_version, Some(3));
    assert_eq!(store.status(1).users_version, Some(0));
    // A store without copies is told of users all the same.
    let (mut stream, _lines) = open(&store, 0);
    say(&mut stream, &ToNode::Users { users: users(4) });
    store.wait_status(0, |status| status.users_version == Some(4));
    // What its manager says counts, also when that is less.
    say(&mut stream, &ToNode::Users { users: users(2) });
    store.wait_status(0, |status| status.users_version == Some(2));
}

#[test]
fn what_are_no_users_ends_the_stream_and_changes_nothing() {
    let mut store = Store::new(&[1]);
    store.documents[0].users = users(3);
    store.start(0);
    let bad = Users { version: 9, lines: vec!["nonsense".into()] };
    let ranges = ToNode::Ranges { news: vec![] };
    for said in [ToNode::Users { users: bad }, ranges] {
        let (mut stream, mut lines) = open(&store, 0);
        say(&mut stream, &said);
        let mut rest = Vec::new();
        let _ = lines.read_to_end(&mut rest);
        assert_eq!((rest.len(), store.status(0).users_version), (0, Some(3)), "{said:?}");
    }
}
