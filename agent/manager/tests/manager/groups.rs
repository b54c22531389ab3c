//! Several managers as one group: the catalogue is the same on each, whoever writes to it and whatever fails meanwhile.

use crate::harness::{Machine, definition, done, group};
use dkv_agent::coordinate::{self, ActionResult, NewInstance, Outcome};
use dkv_protocol::admin::{
    CommitRequest, ReservationRequest, StoreDefinition, StoreRecord, StoreStatus,
};
use std::time::Duration;

fn nodes(record: &StoreRecord) -> Vec<(&str, &str, u16)> {
    let of = |n: &'_ dkv_protocol::admin::NodeRecord| n.client_port;
    record.nodes.iter().map(|n| (n.name.as_str(), n.machine.as_str(), of(n))).collect()
}

#[test]
fn one_create_covers_all_machines_and_runs_on_all() {
    let (a, b) = (Machine::new(), Machine::new());
    let (_a, _b) = (a.start(), b.start());
    let mut both = group(&[&a, &b]);
    let connected = done(coordinate::connect(&mut both));
    assert_eq!(connected.rows[0].message, "Connected");
    assert_eq!(a.client().managers().unwrap().managers, both.managers());
    assert_eq!(b.client().managers().unwrap().managers, both.managers());

    // A dry run changes nothing.
    let dry = done(coordinate::create(&both, &definition("Orders", 2), true));
    assert!(dry.rows[1].message.contains("node3 7811/7861"), "{dry:?}");
    assert!(coordinate::list(&both).stores.is_empty());

    let created = done(coordinate::create(&both, &definition("Orders", 2), false));
    assert_eq!(created.rows[0].result.word(), "SUCCESS");
    let (at_a, at_b) = (a.address.to_string(), b.address.to_string());
    assert_eq!(
        nodes(&created.record.unwrap()),
        [
            ("node1", &at_a[..], 7861),
            ("node2", &at_a, 7862),
            ("node3", &at_b, 7861),
            ("node4", &at_b, 7862)
        ]
    );
    done(coordinate::check(&both));
    let again = done(coordinate::create(&both, &definition("Orders", 2), false));
    assert!(again.rows.iter().all(|row| row.message == "Already exists"));
    let other = coordinate::create(&both, &definition("Orders", 1), false);
    assert_eq!(other.outcome(), Outcome::Failed);
    assert!(other.rows[0].message.contains("instance count is 2, asked for 1"), "{other:?}");

    let started = done(coordinate::start(&both, "Orders", None));
    assert_eq!(started.rows[2].action, "StartInstance:node3");
    coordinate::await_whole(&both, "Orders", Duration::from_secs(20)).unwrap();
    let listing = coordinate::list(&both);
    assert_eq!(listing.store("Orders").unwrap().status, StoreStatus::Running);

    let refused = coordinate::delete(&both, "Orders", false);
    assert_eq!(refused.outcome(), Outcome::Failed);
    assert_eq!(coordinate::list(&both).stores.len(), 1);
    let stopped = done(coordinate::stop(&both, "Orders", Some("node-4"), false));
    assert_eq!(stopped.rows[0].action, "StopInstance:node4");
    done(coordinate::stop(&both, "Orders", None, false));
    done(coordinate::delete(&both, "Orders", false));
    assert!(coordinate::list(&both).stores.is_empty());
}

#[test]
fn run_on_each_machine_extends_the_store_and_never_makes_a_second_node1() {
    let (a, b) = (Machine::new(), Machine::new());
    let (_a, _b) = (a.start(), b.start());
    let only_a = group(&[&a]);
    done(coordinate::create(&only_a, &definition("TestStore", 1), false));
    let mut both = group(&[&a, &b]);
    done(coordinate::connect(&mut both));
    let extended = done(coordinate::create(&both, &definition("TestStore", 1), false));
    let (at_a, at_b) = (a.address.to_string(), b.address.to_string());
    let record = extended.record.unwrap();
    assert_eq!(nodes(&record), [("node1", &at_a[..], 7861), ("node2", &at_b, 7861)]);
    assert_eq!(a.client().store("TestStore").unwrap().record, record);
    assert_eq!(b.client().store("TestStore").unwrap().record, record);

    // One manager is enough to find the others.
    let mut one = group(&[&b]);
    assert_eq!(one.complete(), [&at_a[..]]);
    let again = done(coordinate::create(&one, &definition("TestStore", 1), false));
    assert!(again.rows.iter().all(|row| row.message == "Already exists"), "{again:?}");
    let mut one = group(&[&b]);
    let connected = done(coordinate::connect(&mut one));
    assert!(connected.rows[1].message.contains("left out"), "{connected:?}");

    // A node more, on the machine that is named; not while it runs.
    let new = NewInstance { machine: Some(at_b.clone()), ..NewInstance::default() };
    done(coordinate::start(&both, "TestStore", Some("node1")));
    let refused = coordinate::add_instance(&both, "TestStore", &new);
    assert_eq!(refused.rows[0].code, "store_running", "{refused:?}");
    done(coordinate::stop(&both, "TestStore", None, false));
    let added = done(coordinate::add_instance(&both, "TestStore", &new)).record.unwrap();
    assert_eq!(nodes(&added)[2], ("node3", &at_b[..], 7862));
    done(coordinate::check(&both));
}

#[test]
fn a_machine_that_is_down_is_named_and_nothing_is_changed() {
    let (a, b) = (Machine::new(), Machine::new());
    let (_a, at_b) = (a.start(), b.start());
    let mut both = group(&[&a, &b]);
    done(coordinate::connect(&mut both));
    done(coordinate::create(&both, &definition("Early", 1), false));
    at_b.end();
    let mut one = group(&[&a]);
    one.complete();
    let failed = coordinate::create(&one, &definition("Orders", 1), false);
    assert_eq!(failed.outcome(), Outcome::NotConnected, "{failed:?}");
    assert_eq!(failed.rows[0].result, ActionResult::Skipped);
    assert_eq!(failed.rows[1].manager, b.address.to_string());
    let listing = coordinate::list(&one);
    assert_eq!((listing.stores.len(), listing.outcome()), (1, Outcome::Partly));
    assert_eq!(listing.stores[0].nodes[1].state, None);
    // What does not need it goes on.
    let started = coordinate::start(&one, "Early", None);
    assert_eq!(started.outcome(), Outcome::Partly);
    assert_eq!(started.rows[0].message, "Started");
}

#[test]
fn a_refused_reservation_leaves_nothing_anywhere() {
    let (a, b) = (Machine::new(), Machine::new());
    let (_a, _b) = (a.start(), b.start());
    let both = group(&[&a, &b]);
    let stranger = std::net::TcpListener::bind((b.address.ip(), 7811)).unwrap();
    let failed = coordinate::create(&both, &definition("S", 1), false);
    assert_eq!(failed.outcome(), Outcome::Failed, "{failed:?}");
    assert_eq!(failed.rows[1].code, "port_in_use");
    assert!(coordinate::list(&both).stores.is_empty());
    drop(stranger);
    // The reservation of A was given back: another definition gets the same ports at once.
    done(coordinate::create(&both, &definition("S", 2), false));
    let bad = StoreDefinition { instance_count: 40, ..definition("Many", 1) };
    assert_eq!(coordinate::create(&both, &bad, false).outcome(), Outcome::Usage);
}

#[test]
fn a_commit_that_reached_one_machine_only_is_found_and_completed() {
    let (a, b) = (Machine::new(), Machine::new());
    let (running_a, _b) = (a.start(), b.start());
    let both = group(&[&a, &b]);
    // As if the command had died between its two commits: B holds the reservation still, so that it waits for the command
    // and does not ask A what it missed.
    let planned = done(coordinate::create(&both, &definition("S", 1), true)).record.unwrap();
    let reservation = ReservationRequest {
        definition: definition("S", 1),
        machines: both.managers(),
        first_ordinal: 2,
        count: 1,
        base_epoch: None,
        node_name: None,
        cluster_port: None,
        client_port: None,
    };
    b.client().reserve(&reservation).unwrap();
    a.client().commit(&CommitRequest { record: planned, reservation: None }).unwrap();
    let check = coordinate::check(&both);
    assert_eq!(check.outcome(), Outcome::Failed);
    let lacks = format!("{} has no record of the store S", b.address);
    assert!(check.rows.iter().any(|row| row.message.contains(&lacks)), "{check:?}");
    let completed = done(coordinate::create(&both, &definition("S", 1), false));
    assert_eq!(completed.rows[0].message, "Completed");
    done(coordinate::check(&both));
    running_a.end();
    // Nothing of it depends on the memory of a manager.
    let _a = a.start();
    done(coordinate::check(&both));
}

#[test]
fn reservations_hold_ports_until_they_are_released_or_end() {
    let mut a = Machine::new();
    a.options.pace.reservation = Duration::from_millis(300);
    let _a = a.start();
    let client = a.client();
    let request = |name: &str, count| ReservationRequest {
        definition: definition(name, count),
        machines: vec![a.address.to_string()],
        first_ordinal: 1,
        count,
        base_epoch: None,
        node_name: None,
        cluster_port: None,
        client_port: None,
    };
    let first = client.reserve(&request("S", 1)).unwrap();
    assert_eq!(first.nodes[0].name, "node1");
    // The same creation takes it over, another one has to wait.
    let again = client.reserve(&request("S", 1)).unwrap();
    assert_ne!(again.id, first.id);
    assert_eq!(client.reserve(&request("S", 2)).unwrap_err().code(), "store_reserved");
    assert_eq!(client.reserve(&request("T", 1)).unwrap_err().code(), "port_in_use");
    client.release("S", &again.id).unwrap();
    client.reserve(&request("T", 1)).unwrap();
    crate::harness::until("it ends by itself", || client.reserve(&request("S", 2)).is_ok());
}

#[test]
fn a_group_of_several_machines_holds_no_loopback_address() {
    let (mut a, b) = (Machine::new(), Machine::new());
    a.options.loopback_group = false;
    let (_a, _b) = (a.start(), b.start());
    let refused = a.client().join(vec![b.address.to_string()]).unwrap_err();
    assert_eq!(refused.code(), "loopback_in_group");
    assert!(refused.hint().contains("--listen"));
}
