//! The users of a store at its nodes: from the launch document, and from the manager that follows.

mod harness;

use dkv_protocol::control::{FromNode, ToNode};
use dkv_protocol::users::{UserChanges, Users, UsersAnswer, UsersRefusal};
use harness::follower::open;
use harness::{Store, encode};
use std::io::{BufRead, BufReader, Read, Write};
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

/// What the node wants changed next.
fn wish(lines: &mut BufReader<UnixStream>) -> (u64, UserChanges) {
    let mut line = String::new();
    lines.read_line(&mut line).expect("it asks");
    match serde_json::from_str(&line).expect("words of a node") {
        FromNode::ChangesUsers { id, changes } => (id, changes),
        FromNode::Asks { asks } => panic!("{asks:?}"),
    }
}

#[test]
fn a_change_waits_for_the_managers_and_whoever_was_faster_is_made_up_for() {
    let mut store = Store::new(&[2]);
    store.start(0);
    let mut client = store.client(0);
    client
        .stream
        .write_all(&encode(&["ACL", "SETUSER", "bob", "on", "nopass", "~b", "+get"]))
        .expect("sent");
    // Nobody is asked who has not told users: an earlier manager would not understand it.
    let (mut stream, mut lines) = open(&store, 0);
    say(&mut stream, &ToNode::Users { users: Users::default() });
    let (id, changes) = wish(&mut lines);
    assert!(changes.given.iter().all(|given| given.line.is_none()), "{changes:?}");
    // Somebody was faster: it is made again, of the users that there are by now.
    say(&mut stream, &ToNode::Users { users: users(1) });
    let why = UsersRefusal::Changed { version: 1 };
    say(&mut stream, &ToNode::UsersAnswer { id, answer: UsersAnswer::Refused { why } });
    let (id, changes) = wish(&mut lines);
    let mut now = users(1);
    assert_eq!(now.change(&changes), Ok(true));
    say(&mut stream, &ToNode::Users { users: now });
    say(&mut stream, &ToNode::UsersAnswer { id, answer: UsersAnswer::Done { version: 2 } });
    assert_eq!(client.reply(), "+OK\r\n");
    // The shard that has another connection knows him too.
    for _ in 0..4 {
        assert_eq!(store.client(0).ask(&["AUTH", "bob", "any"]), "+OK\r\n");
    }
}

#[test]
fn without_an_answer_of_a_manager_a_client_is_told_whether_anything_may_have_changed() {
    let mut store = Store::new(&[1]);
    store.start(0);
    let mut client = store.client(0);
    // Nobody follows.
    let refused = client.ask(&["ACL", "SETUSER", "bob", "on"]);
    assert!(
        refused.starts_with('-') && refused.contains("the users are what they were"),
        "{refused}"
    );
    // Somebody was asked, and went away.
    client.stream.write_all(&encode(&["ACL", "SETUSER", "bob", "on"])).expect("sent");
    let (mut stream, mut lines) = open(&store, 0);
    say(&mut stream, &ToNode::Users { users: Users::default() });
    wish(&mut lines);
    drop((stream, lines));
    let uncertain = client.reply();
    assert!(uncertain.starts_with("-UNCERTAIN"), "{uncertain}");
    // The connection goes on.
    assert_eq!(client.ask(&["PING"]), "+PONG\r\n");
}
