//! The users of stores: agreed on by the managers, told to the nodes, changed by compare-and-set, and kept.

use crate::harness::{Machine, definition, done, group, kill, node, together, until};
use crate::ranges::{beside, beside_if_there, with_copies};
use dkv_agent::coordinate;
use dkv_protocol::control::{FromNode, NodeStatus, ToNode};
use dkv_protocol::users::{UserChanges, UserLine, Users, UsersAnswer, UsersRefusal};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// A new user.
fn set(name: &str) -> UserChanges {
    let line = Some(format!("user {name} on ~* +@all"));
    let given = vec![UserLine { name: name.to_string(), line: None }];
    UserChanges { given, changes: vec![UserLine { name: name.to_string(), line }] }
}

fn names(users: &Users) -> Vec<&str> {
    users.each().map(|(name, _)| name).collect()
}

/// Everything that a node was told about users, in order.
fn told(machine: &Machine, index: u16) -> Vec<ToNode> {
    let Some(path) = beside_if_there(machine, index, "told") else { return Vec::new() };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let told = whole.map(|line| serde_json::from_str(line).expect("a line"));
    told.filter(|told| matches!(told, ToNode::Users { .. } | ToNode::UsersAnswer { .. })).collect()
}

/// The version of the users that a node was told last.
fn version(machine: &Machine, index: u16) -> Option<u64> {
    let of = |told| if let ToNode::Users { users } = told { Some(users.version) } else { None };
    told(machine, index).into_iter().filter_map(of).next_back()
}

fn asks(machine: &Machine, index: u16, id: u64, changes: UserChanges) {
    let path = beside(machine, index, "asks");
    let mut text =
        serde_json::to_string(&FromNode::ChangesUsers { id, changes }).expect("plain data");
    text.push('\n');
    let part = path.with_extension("part");
    std::fs::write(&part, text).expect("the directory is there");
    std::fs::rename(&part, &path).expect("ours");
}

/// The version of the users in the launch document of a node.
fn launched_with(machine: &Machine, index: u16) -> Option<u64> {
    let socket = beside_if_there(machine, index, "")?.display().to_string();
    let mut stream = UnixStream::connect(socket.trim_end_matches('.')).ok()?;
    stream.write_all(b"{\"op\":\"status\"}\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str::<NodeStatus>(&line).expect("an account").users_version
}

#[test]
fn a_change_is_told_to_all_nodes_of_its_store_and_kept_over_restarts() {
    let machine = Machine::new();
    let manager = machine.start();
    machine.client().create(&definition("S", 2)).unwrap();
    let client = machine.client();
    assert_eq!(client.users("S").unwrap(), Users::default());
    // Before the store runs as well as while it does.
    assert_eq!(names(&client.change_users("S", &set("ann")).unwrap()), ["ann"]);
    for name in ["node1", "node2"] {
        client.start("S", name).unwrap();
    }
    until("both are told", || (0..2).all(|i| version(&machine, i) == Some(1)));
    assert_eq!(launched_with(&machine, 0), Some(1));
    assert_eq!(names(&client.change_users("S", &set("bob")).unwrap()), ["ann", "bob"]);
    until("both are told", || (0..2).all(|i| version(&machine, i) == Some(2)));

    let refused = client.change_users("S", &set("bob")).unwrap_err();
    assert_eq!(refused.code(), "users_changed", "{refused}");
    let refused = client.change_users("S", &set("")).unwrap_err();
    assert_eq!(refused.code(), "bad_user", "{refused}");
    assert_eq!(client.users("T").unwrap_err().code(), "no_such_store");
    assert_eq!(client.change_users("T", &set("a")).unwrap_err().code(), "no_such_store");

    manager.end();
    let _manager = machine.start();
    assert_eq!(names(&client.users("S").unwrap()), ["ann", "bob"]);
    kill(node(&client, "S", "node1").pid.expect("it runs"));
    until("it starts with them", || launched_with(&machine, 0) == Some(2));
}

#[test]
fn what_a_client_of_a_node_changes_is_answered_behind_the_users_that_came_of_it() {
    let machine = Machine::new();
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 2, 1)).unwrap();
    for name in ["node1", "node2"] {
        machine.client().start("S", name).unwrap();
    }
    until("both are told", || (0..2).all(|i| version(&machine, i) == Some(0)));
    asks(&machine, 0, 7, set("ann"));
    let answered =
        |id| move |told: &ToNode| matches!(told, ToNode::UsersAnswer { id: of, .. } if *of == id);
    until("it is answered", || told(&machine, 0).iter().any(answered(7)));
    let all = told(&machine, 0);
    let users =
        all.iter().position(|told| matches!(told, ToNode::Users { users } if users.version == 1));
    let answer = all.iter().position(answered(7)).expect("there");
    assert!(users.is_some_and(|users| users < answer), "{all:?}");
    assert_eq!(
        all[answer],
        ToNode::UsersAnswer { id: 7, answer: UsersAnswer::Done { version: 1 } }
    );
    until("the other one is told", || version(&machine, 1) == Some(1));
    // Made of users that are not those any more, by the other one.
    asks(&machine, 1, 8, set("ann"));
    until("it is answered", || told(&machine, 1).iter().any(answered(8)));
    let why = UsersRefusal::Changed { version: 1 };
    let refused = ToNode::UsersAnswer { id: 8, answer: UsersAnswer::Refused { why } };
    assert_eq!(told(&machine, 1).last(), Some(&refused));
    assert_eq!(names(&machine.client().users("S").unwrap()), ["ann"]);
}

#[test]
fn a_store_takes_its_users_with_it() {
    for definition in [definition("S", 1), with_copies("S", 2, 1)] {
        let machine = Machine::new();
        let _manager = machine.start();
        let client = machine.client();
        client.create(&definition).unwrap();
        client.change_users("S", &set("ann")).unwrap();
        client.delete_store("S", false).unwrap();
        client.create(&definition).unwrap();
        assert_eq!(client.users("S").unwrap(), Users::default());
        let stores = || client.managers().unwrap().group.stores;
        let with_ranges = u32::from(definition.replication.is_some());
        until("those of the first are gone", || stores() == with_ranges);
    }
}

#[test]
fn every_manager_has_them_and_one_that_lost_its_disk_gets_them_before_it_starts_a_node() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    done(coordinate::create(&both, &definition("S", 1), false));
    done(coordinate::start(&both, "S", None));
    // At either manager.
    b.client().change_users("S", &set("ann")).unwrap();
    until("the other has them", || a.client().users("S").unwrap().version == 1);
    a.client().change_users("S", &set("bob")).unwrap();
    until("all nodes are told", || version(&a, 0) == Some(2) && version(&b, 1) == Some(2));

    let pid = node(&b.client(), "S", "node2").pid.expect("it runs");
    managers.remove(1).end();
    kill(pid);
    std::fs::remove_dir_all(b.data()).expect("it is there");
    let _b = b.start();
    until("its node runs", || {
        let view = b.client().find_store("S").expect("it answers");
        let mut nodes = view.into_iter().flat_map(|view| view.nodes);
        nodes.any(|node| node.record.name == "node2" && node.pid.is_some())
    });
    until("its node answers", || launched_with(&b, 1).is_some());
    assert_eq!(launched_with(&b, 1), Some(2), "it never served without users");
    assert_eq!(names(&b.client().users("S").unwrap()), ["ann", "bob"]);
}
