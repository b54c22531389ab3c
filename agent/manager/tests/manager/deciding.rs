//! Several managers that decide together about stores with copies: who joins, who votes, who is lost, and what goes on.

use crate::harness::{MOST, Machine, done, group, kill, node, together, until};
use crate::ranges::{config, told, with_copies};
use dkv_agent::client::AdminClient;
use dkv_agent::coordinate::{self, ActionResult, Outcome};
use dkv_protocol::admin::GroupView;
use dkv_protocol::ids::{Epoch, NodeIndex, RangeId};
use dkv_protocol::ranges::{Change, ConfigAsk, RangeConfig, RangeState};
use std::time::Duration;

fn view(machine: &Machine) -> GroupView {
    machine.client().managers().expect("it answers").group
}

fn votes(machine: &Machine) -> usize {
    view(machine).members.iter().filter(|member| member.votes).count()
}

/// A store S with a node on each machine but witnesses, started and formed.
fn running_store(machines: &[&Machine], replicas: u8) {
    let group = group(machines);
    done(coordinate::create(&group, &with_copies("S", 1, replicas), false));
    done(coordinate::start(&group, "S", None));
    let store = coordinate::list(&group).stores.remove(0);
    for (NodeIndex(index), record) in store.record.indexed() {
        let machine = machines.iter().find(|m| m.address.to_string() == record.machine);
        let machine = *machine.expect("a machine of the test");
        until("all is formed and told", || {
            let told = told(machine, index).0;
            told.len() == 256 && told.values().all(|news| news.config.is_some())
        });
    }
}

fn pid(client: &AdminClient, name: &str) -> u32 {
    node(client, "S", name).pid.expect("it runs")
}

#[test]
fn three_managers_decide_together_and_go_on_when_one_is_gone() {
    let machines = [Machine::new(), Machine::new(), Machine::new()];
    let [a, b, c] = &machines;
    let mut managers = together(&[a, b, c]);
    assert_eq!([votes(a), votes(b), votes(c)], [3; 3], "they are together when it is said");
    running_store(&[a, b, c], 1);
    for range in [0, 100, 255] {
        assert_eq!(config(a, 0, range), config(c, 2, range));
    }
    // A process that ends on B is news on A and C.
    kill(pid(&b.client(), "node2"));
    let led_by = |machine: &Machine, index: u16, node: u16| {
        let led = |config: &RangeConfig| {
            let primary = config.primary.addr.node;
            config.state == RangeState::Normal && primary == NodeIndex(node)
        };
        told(machine, index).0.values().filter(|n| n.config.as_ref().is_some_and(led)).count()
    };
    until("nobody takes B for a leader", || led_by(a, 0, 1) == 0 && led_by(c, 2, 1) == 0);

    // The leader of the managers goes away; the others decide on.
    let leader = view(b).leader.expect("somebody leads");
    let at = machines.iter().position(|m| m.address.to_string() == leader).expect("one of them");
    let left: Vec<&Machine> = machines.iter().filter(|m| m.address.to_string() != leader).collect();
    managers.remove(at).end();
    until("another one leads", || view(left[0]).leader.is_some_and(|now| now != leader));
    let other = if at == 2 { 0 } else { 2 };
    let (name, index) = (format!("node{}", other + 1), other as u16);
    kill(pid(&machines[other].client(), &name));
    let witness = left.iter().find(|m| m.address != machines[other].address).expect("two are left");
    let seen_by = machines.iter().position(|m| m.address == witness.address).expect("one of them");
    until("that end is known as well", || led_by(witness, seen_by as u16, index) == 0);
}

#[test]
fn a_manager_that_lost_its_log_is_taken_in_again() {
    let machines = [Machine::new(), Machine::new(), Machine::new()];
    let [a, b, c] = &machines;
    let mut managers = together(&[a, b, c]);
    running_store(&[a, b, c], 1);
    let before = view(c).id;
    managers.remove(2).end();
    std::fs::remove_file(c.data().join("ranges.log")).unwrap();
    let _c = c.start();
    until("it is back under another number", || {
        let view = view(c);
        view.id.is_some() && view.id != before && view.leader.is_some() && view.stores == 1
    });
    until("it votes again", || votes(a) == 3 && view(a).members.len() == 3);
    let number = view(c).id.expect("it has one");
    assert!(view(a).members.iter().any(|member| member.id == number && member.votes));
}

#[test]
fn of_two_the_preferred_one_decides_and_goes_on_alone() {
    let machines = [Machine::new(), Machine::new()];
    let [a, b] = &machines;
    let mut managers = together(&[a, b]);
    running_store(&[a, b], 1);
    let both = group(&[a, b]);
    let votes_are = |of: &Machine, at: &Machine| {
        let votes = |m: &Machine| {
            let member = view(at).members.into_iter().find(|e| e.machine == m.address.to_string());
            member.is_some_and(|member| member.votes)
        };
        machines.iter().all(|machine| votes(machine) == (machine.address == of.address))
    };
    assert!(votes_are(a, a) && votes_are(a, b));
    let nobody = coordinate::prefer_manager(&both, "127.0.0.1:1", MOST).0;
    assert_eq!(nobody.rows[0].code, "no_such_manager");

    let (report, settled) = coordinate::prefer_manager(&both, &b.address.to_string(), MOST);
    done(report);
    assert_eq!(settled, Ok(()));
    assert!(votes_are(b, a) && votes_are(b, b));
    assert_eq!(view(a).leader, Some(b.address.to_string()));
    let fates = fates(&both);
    let fate = |of: &Machine| {
        let of = of.address.to_string();
        fates.iter().find(|(machine, _)| *machine == of).expect("it is one of them").1.clone()
    };
    assert!(fate(b).contains("promoted by hand") && fate(a).contains("by themselves"), "{fates:?}");

    // What was promised: without the first machine the second decides.
    let first = managers.remove(0);
    first.end();
    kill(pid(&b.client(), "node2"));
    until("the end of a process is decided on", || {
        let copies = b.client().store("S").expect("it has it").copies;
        let of = |name: &str| copies.iter().flat_map(|c| &c.nodes).any(|n| n.name == name && n.up);
        of("node2") && node(&b.client(), "S", "node2").restarts == 1
    });
    // One that is away is not preferred, and the one that decides goes on.
    let away = coordinate::prefer_manager(&both, &a.address.to_string(), MOST).0;
    assert_eq!(away.rows[0].code, "not_connected", "{away:?}");
    let refused = b.client().prefer_manager(&a.address.to_string()).unwrap_err();
    assert_eq!(refused.code(), "manager_away");
    assert!(votes_are(b, b));
}

#[test]
fn of_two_the_first_decides_and_the_other_goes_on_by_order_of_its_operator() {
    let machines = [Machine::new(), Machine::new()];
    let [a, b] = &machines;
    let mut managers = together(&[a, b]);
    running_store(&[a, b], 1);
    assert_eq!((votes(a), votes(b)), (1, 1));
    let fates = fates(&group(&[a, b]));
    assert!(fates[0].1.contains("promoted by hand"), "{fates:?}");
    assert!(fates[1].1.contains("by themselves"), "{fates:?}");
    let before = config(b, 1, 0).expect("formed");
    assert_eq!(before.primary.addr.node, NodeIndex(0));

    let gone = [a.address.to_string()];
    // Before anybody is asked to confirm it.
    let check = |store: &str, gone: &str| {
        let rows = coordinate::check_force(&group(&[b]), store, &[gone.to_owned()]);
        rows.map_err(|rows| rows[0].code.clone())
    };
    assert_eq!(check("S", &gone[0]), Ok(()));
    assert_eq!(check("S", "10.255.255.1:7801"), Err("bad_machine".into()));
    assert_eq!(check("Other", &gone[0]), Err("no_such_store".into()));
    let refused = coordinate::force(&group(&[b]), "S", &gone);
    assert_eq!(refused.rows[0].code, "it_lives", "{refused:?}");
    managers.remove(0).end();
    done(coordinate::force(&group(&[b]), "S", &gone));
    until("B leads", || config(b, 1, 0).is_some_and(|c| c.primary.addr.node == NodeIndex(1)));
    assert_eq!(config(b, 1, 0).unwrap().epoch, Epoch(before.epoch.0 + 1));
    let copies = b.client().store("S").unwrap().copies.unwrap();
    assert_eq!((copies.nodes[1].leads, copies.offline_ranges), (256, 0));

    // The old first one comes back, with its node: it follows the other, and the node comes back as another process.
    let old = pid_of(a);
    let _a = a.start();
    until("A has joined B", || view(a).number == view(b).number && view(a).leader.is_some());
    until("its node was started again", || pid_of(a).is_some_and(|new| Some(new) != old));
    until("it is told who leads", || {
        config(a, 0, 0).is_some_and(|c| c.primary.addr.node == NodeIndex(1))
    });
}

fn fates(group: &coordinate::Group) -> Vec<(String, String)> {
    coordinate::fates(&coordinate::standing(group), &coordinate::list(group).stores)
}

fn pid_of(machine: &Machine) -> Option<u32> {
    let text = std::fs::read_to_string(machine.data().join("catalogue.json")).expect("it is there");
    let (_, body) = text.split_once('\n').expect("a first line");
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let mut nodes = value["stores"]["S"]["nodes"].as_object().expect("nodes").values();
    nodes.find_map(|node| node["process"]["pid"].as_u64()).map(|pid| pid as u32)
}

#[test]
fn a_witness_decides_and_runs_nothing() {
    let (a, b, mut w) = (Machine::new(), Machine::new(), Machine::new());
    w.options.witness = true;
    let mut managers = together(&[&a, &b, &w]);
    running_store(&[&a, &b, &w], 1);
    let record = a.client().store("S").unwrap().record;
    let on: Vec<&str> = record.nodes.iter().map(|node| node.machine.as_str()).collect();
    assert_eq!(on, [a.address.to_string(), b.address.to_string()]);
    assert!(w.client().find_store("S").unwrap().is_none());
    let refused = w.client().create(&crate::harness::definition("Own", 1)).unwrap_err();
    assert!(["witness", "group_has_members"].contains(&refused.code()), "{refused}");
    let fates = fates(&group(&[&a, &b, &w]));
    assert!(fates.iter().all(|(_, fate)| !fate.contains("by hand")), "{fates:?}");

    // The machine of A goes as a whole: B and the witness decide that B's copies lead when they ask for it.
    let node1 = pid(&a.client(), "node1");
    managers.remove(0).end();
    kill(node1);
    until("another one leads the managers", || {
        view(&b).leader.is_some_and(|leader| leader != a.address.to_string())
    });
    let before = config(&b, 1, 0).unwrap();
    let mine = before.in_sync.iter().copied().find(|rid| rid.addr.node == NodeIndex(1)).unwrap();
    let take =
        ConfigAsk { range: RangeId(0), epoch: before.epoch, caller: mine, change: Change::Take };
    crate::ranges::ask(&b, 1, vec![take]);
    until("it is granted", || config(&b, 1, 0).is_some_and(|c| c.primary == mine));
}

#[track_caller]
fn remove(machines: &[&Machine], gone: &Machine) {
    let (report, together) =
        coordinate::remove_manager(&group(machines), &gone.address.to_string(), MOST);
    done(report);
    assert_eq!(together, Ok(()));
}

#[test]
fn a_manager_that_is_added_counts_when_the_command_is_done() {
    let (a, b, w) = (Machine::new(), Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    managers.push(w.start());
    let mut two = group(&[&a, &b]);
    let (report, together) = coordinate::add_managers(&mut two, &[w.address], MOST);
    done(report);
    assert_eq!(together, Ok(()));
    assert_eq!([votes(&a), votes(&b), votes(&w)], [3; 3]);
    let fates = fates(&two);
    assert!(
        !fates.is_empty() && fates.iter().all(|(_, fate)| !fate.contains("by hand")),
        "{fates:?}"
    );
    // What is promised holds: the first one goes, and the others decide.
    managers.remove(0).end();
    until("the others decide that it is gone for good", || {
        let gone = a.address.to_string();
        coordinate::remove_manager(&two, &gone, MOST).0.outcome() == Outcome::Done
    });
    assert_eq!((view(&b).members.len(), view(&w).members.len()), (2, 2));
}

#[test]
fn a_manager_whose_vote_cannot_count_yet_is_named() {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    let mut managers = together(&[&a, &b]);
    managers.push(c.start());
    // B is there when it is asked, and gone before it could vote.
    let mut all = group(&[&a, &b, &c]);
    managers.remove(1).end();
    let report = coordinate::connect(&mut all);
    assert_eq!(report.outcome(), Outcome::Partly, "{report:?}");
    // Who is down keeps nobody waiting; that the others are one group is seen.
    assert_eq!(coordinate::await_together(&all, MOST), Ok(()));
    let reached = group(&[&a, &c]);
    let late = coordinate::await_together(&reached, Duration::from_millis(300)).unwrap_err();
    assert!(late.to_string().contains(&c.address.to_string()), "{late}");
    assert!(late.hint.contains("dkv manager status"));
    let _b = b.start();
    assert_eq!(coordinate::await_together(&all, MOST), Ok(()));
    assert_eq!([votes(&a), votes(&b), votes(&c)], [3; 3]);
}

#[test]
fn the_manager_that_decides_hands_that_over_before_it_goes() {
    for count in [2, 3] {
        let machines: Vec<Machine> = (0..count).map(|_| Machine::new()).collect();
        let all: Vec<&Machine> = machines.iter().collect();
        let mut managers = together(&all);
        // One that was restarted was introduced to nobody; it knows the others by its log alone.
        managers.remove(1).end();
        managers.push(all[1].start());
        assert_eq!(coordinate::await_together(&group(&all), MOST), Ok(()));
        let leader = view(all[0]).leader.expect("somebody leads");
        let gone = all.iter().position(|m| m.address.to_string() == leader).expect("one of them");
        let gone = all[gone];
        remove(&all, gone);
        let left: Vec<&Machine> =
            all.iter().copied().filter(|machine| machine.address != gone.address).collect();
        for machine in &left {
            let view = view(machine);
            assert_eq!((view.members.len(), votes(machine)), (count - 1, 1), "{view:?}");
            assert!(view.settled && view.leader.is_some(), "{view:?}");
        }
        assert_eq!(view(gone).members.len(), 1);
        // They decide without it.
        done(coordinate::create(&group(&left), &with_copies("S", 2, 1), false));
        until("all know the store", || left.iter().all(|machine| view(machine).stores == 1));
    }
}

#[test]
fn managers_leave_and_those_with_stores_of_their_own_do_not_join() {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    let d = Machine::new();
    let managers = together(&[&a, &d, &b]);
    remove(&[&a, &d, &b], &d);
    assert_eq!((view(&d).members.len(), view(&a).members.len()), (1, 2));
    assert_eq!((votes(&a), votes(&b)), (1, 1), "of two the first");
    remove(&[&a, &b], &b);
    assert_eq!((view(&a).members.len(), view(&b).members.len()), (1, 1));
    assert_eq!(a.client().managers().unwrap().managers, [a.address.to_string()]);
    assert_ne!(view(&a).number, view(&b).number);
    assert_eq!(view(&d).members.len(), 1, "it did not come back by itself");

    let _c = c.start();
    for machine in [&a, &c] {
        machine.client().create(&with_copies("S", 2, 1)).unwrap();
    }
    until("both keep their store", || view(&a).stores == 1 && view(&c).stores == 1);
    let report = coordinate::connect(&mut group(&[&a, &c]));
    assert!(report.rows.iter().all(|row| row.result == ActionResult::Failed), "{report:?}");
    assert_eq!(report.rows[0].code, "two_groups");
    drop(managers);
}
