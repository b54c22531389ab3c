//! Managers that come back with less than the others know: without their disk, or after a change that they missed.

use crate::harness::{Machine, definition, done, group, kill, node, together, until};
use crate::ranges::{told, with_copies};
use dkv_agent::coordinate;
use dkv_protocol::admin::{CommitRequest, NodeState, RemovedNode, StoreDefinition, StoreRecord};

fn wipe(machine: &Machine) {
    std::fs::remove_dir_all(machine.data()).expect("it is there");
}

fn record(machine: &Machine, store: &str) -> Option<StoreRecord> {
    machine.client().find_store(store).expect("it answers").map(|view| view.record)
}

fn is_up(machine: &Machine, name: &str) -> bool {
    let view = machine.client().find_store("S").expect("it answers");
    let found = view.and_then(|view| view.nodes.into_iter().find(|node| node.record.name == name));
    found.is_some_and(|node| node.state == Some(NodeState::Running))
}

#[test]
fn a_wiped_manager_gets_its_stores_back_and_takes_over_the_nodes_that_live() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    let password = Some("ab".repeat(32));
    let two = StoreDefinition { password_sha256: password, ..definition("S", 2) };
    let created = done(coordinate::create(&both, &two, false)).record.unwrap();
    done(coordinate::start(&both, "S", None));
    let pid = |name: &str| node(&b.client(), "S", name).pid.expect("it runs");
    let (lives, dies) = (pid("node3"), pid("node4"));

    managers.remove(1).end();
    kill(dies);
    wipe(&b);
    let _b = b.start();
    until("both of its nodes run", || is_up(&b, "node3") && is_up(&b, "node4"));
    assert_eq!(record(&b, "S"), Some(created));
    assert_eq!(pid("node3"), lives, "the process that lived is the one that is supervised");
    assert_ne!(pid("node4"), dies);
    until("they answer their manager", || {
        let node = |name| node(&b.client(), "S", name);
        node("node3").cluster_ok && node("node4").cluster_ok
    });
    done(coordinate::check(&both));
    assert_eq!(coordinate::stop(&both, "S", Some("node3"), false).rows[0].message, "Stopped");
}

#[test]
fn of_a_store_at_rest_nothing_is_started() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    let created = done(coordinate::create(&both, &definition("S", 1), false)).record;
    managers.remove(1).end();
    wipe(&b);
    let _b = b.start();
    until("the store is back", || record(&b, "S") == created);
    assert_eq!(node(&b.client(), "S", "node2").state, Some(NodeState::Requested));
    assert_eq!(b.client().health().unwrap().nodes_wanted, 0);
}

#[test]
fn a_wiped_manager_joins_its_group_first_and_its_copies_are_led_on() {
    let machines = [Machine::new(), Machine::new(), Machine::new()];
    let [a, b, c] = &machines;
    let mut managers = together(&[a, b, c]);
    let all = group(&[a, b, c]);
    done(coordinate::create(&all, &with_copies("S", 1, 1), false));
    done(coordinate::start(&all, "S", None));
    let formed = |machine: &Machine, index| {
        let told = told(machine, index).0;
        told.len() == 256 && told.values().all(|news| news.config.is_some())
    };
    until("all is formed", || (0..3).all(|i| formed(&machines[usize::from(i)], i)));
    let number = |machine: &Machine| machine.client().managers().unwrap().group.number;
    let (pid, group_before) = (node(&c.client(), "S", "node3").pid.unwrap(), number(a));

    managers.remove(2).end();
    kill(pid);
    wipe(c);
    let _c = c.start();
    until("its node runs", || is_up(c, "node3"));
    assert_eq!(number(c), group_before, "it is one group, and one store");
    until("its node is told what the others know", || formed(c, 2));
    until("all managers know the new process", || {
        let up = |machine: &Machine| {
            let copies = machine.client().store("S").unwrap().copies;
            copies.is_some_and(|copies| copies.nodes.iter().all(|node| node.up))
        };
        up(a) && up(b) && up(c)
    });
    // The old process is known to be gone: nothing waits for it any more.
    assert_eq!(c.client().store("S").unwrap().copies.unwrap().unformed_ranges, 0);
}

#[test]
fn by_itself_a_store_with_copies_is_not_begun_again() {
    // The only manager that decided lost its disk. What it is told of the store must not make it begin another one.
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    let created = done(coordinate::create(&both, &with_copies("S", 1, 1), false)).record.unwrap();
    let plain =
        StoreDefinition { clustron_port: None, client_port: None, ..definition("Plain", 1) };
    done(coordinate::create(&both, &plain, false));
    managers.remove(0).end();
    wipe(&a);
    let _a = a.start();
    until("the other store is back", || record(&a, "Plain").is_some());
    assert_eq!(record(&a, "S"), None);
    let commit = CommitRequest { record: created.clone(), reservation: None };
    let refused = a.client().commit(&commit).unwrap_err();
    assert_eq!(refused.code(), "not_one_group", "{refused}");
    assert_eq!(record(&b, "S"), Some(created));
}

#[test]
fn an_extension_and_a_removal_that_were_missed_are_made_up_for() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    let before = done(coordinate::create(&both, &with_copies("S", 2, 1), false)).record.unwrap();
    managers.remove(1).end();
    let mut after = before.clone();
    after.epoch.0 += 1;
    let node = after.nodes.remove(1);
    after.removed.push(RemovedNode { index: before.index_of(&node.name).unwrap(), node });
    a.client().commit(&CommitRequest { record: after.clone(), reservation: None }).unwrap();
    assert_eq!(record(&a, "S"), Some(after.clone()));
    let _b = b.start();
    until("it has the newer record", || record(&b, "S").as_ref() == Some(&after));
    done(coordinate::check(&both));
}

#[test]
fn a_deletion_that_was_missed_is_made_up_for_when_nothing_runs_or_by_force() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    let named = |name: &str| StoreDefinition {
        clustron_port: None,
        client_port: None,
        ..definition(name, 1)
    };
    for name in ["Rests", "Forced", "Runs"] {
        done(coordinate::create(&both, &named(name), false));
    }
    for name in ["Forced", "Runs"] {
        b.client().start(name, "node2").unwrap();
    }
    managers.remove(1).end();
    a.client().delete_store("Rests", false).unwrap();
    a.client().delete_store("Forced", true).unwrap();
    a.client().delete_store("Runs", false).unwrap();
    // Of this one the other manager knows nothing; it is nobody's business but its own.
    let _b = b.start();
    b.client().start("Runs", "node2").unwrap();
    until("they are gone", || record(&b, "Rests").is_none() && record(&b, "Forced").is_none());
    assert!(record(&b, "Runs").is_some(), "a node runs, and nobody ordered its end");
    b.client().stop("Runs", "node2", false).unwrap();
    until("it is gone, too", || record(&b, "Runs").is_none());
}

#[test]
fn what_the_others_do_not_know_is_left_alone() {
    let (a, b) = (Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    let both = group(&[&a, &b]);
    done(coordinate::create(&both, &definition("S", 1), false));
    let mut own = definition("Own", 1);
    (own.clustron_port, own.client_port) = (None, None);
    done(coordinate::create(&group(&[&b]), &own, false));
    managers.remove(0).end();
    wipe(&a);
    let _a = a.start();
    until("the common store is back", || record(&a, "S").is_some());
    assert!(record(&a, "Own").is_none() && record(&b, "Own").is_some());
}
