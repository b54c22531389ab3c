//! Stores with copies: formed, told to their nodes, changed by their asks and by deaths, and kept over restarts.

use crate::harness::{Machine, definition, group, kill, node, until};
use dkv_agent::coordinate::{self, NewInstance, Outcome};
use dkv_protocol::admin::{AddInstanceRequest, NodeDuty, NodeState, StoreDefinition};
use dkv_protocol::control::{FromNode, ToNode};
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId};
use dkv_protocol::ranges::{Change, ConfigAsk, OnTotalLoss, RangeConfig, RangeNews, RangeState};
use dkv_protocol::ranges::{Replication, Rid};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) fn with_copies(name: &str, nodes: u32, replicas: u8) -> StoreDefinition {
    let on_total_loss = OnTotalLoss::Offline;
    let replication = Some(Replication { replicas, on_total_loss, ..Replication::NONE });
    StoreDefinition { replication, ..definition(name, nodes) }
}

const MOST: Duration = Duration::from_secs(20);

/// A node's files: of the one store of the machine.
pub(crate) fn beside(machine: &Machine, index: u16, what: &str) -> PathBuf {
    beside_if_there(machine, index, what).expect("the node has a socket")
}

/// The same of a node that may be about to start only, of a manager that may be.
pub(crate) fn beside_if_there(machine: &Machine, index: u16, what: &str) -> Option<PathBuf> {
    let run = machine.data().join("run");
    let suffix = format!("-{index}.sock");
    let found = std::fs::read_dir(&run).ok()?.flatten();
    let mut sockets = found.map(|entry| entry.path().display().to_string());
    let socket = sockets.find(|path| path.ends_with(&suffix))?;
    Some(PathBuf::from(format!("{socket}.{what}")))
}

/// What a node was told last of each range, and of which ranges it got an answer since the file was last removed.
pub(crate) fn told(
    machine: &Machine,
    index: u16,
) -> (BTreeMap<RangeId, RangeNews>, Vec<RangeNews>) {
    let path = beside_if_there(machine, index, "told");
    let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let mut latest = BTreeMap::new();
    let mut answers = Vec::new();
    // The last line may be under way.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let ToNode::Ranges { news } = serde_json::from_str(line).expect("a line") else { continue };
        for one in news {
            answers.extend(one.answer.then(|| one.clone()));
            latest.insert(one.range, one);
        }
    }
    (latest, answers)
}

pub(crate) fn config(machine: &Machine, index: u16, range: u8) -> Option<RangeConfig> {
    told(machine, index).0.get(&RangeId(range)).and_then(|news| news.config.clone())
}

pub(crate) fn ask(machine: &Machine, index: u16, asks: Vec<ConfigAsk>) {
    let path = beside(machine, index, "asks");
    let mut text = serde_json::to_string(&FromNode::Asks { asks }).expect("plain data");
    text.push('\n');
    let part = path.with_extension("part");
    std::fs::write(&part, text).expect("the directory is there");
    std::fs::rename(&part, &path).expect("ours");
}

fn start_all(machine: &Machine, store: &str, nodes: u32) {
    for number in 1..=nodes {
        machine.client().start(store, &format!("node{number}")).expect("it starts");
    }
    until("all ranges are formed", || (0..nodes).all(|i| formed(machine, i as u16) == 256));
}

fn formed(machine: &Machine, index: u16) -> usize {
    told(machine, index).0.values().filter(|news| news.config.is_some()).count()
}

fn pid(machine: &Machine, name: &str) -> u32 {
    node(&machine.client(), "S", name).pid.expect("it runs")
}

#[test]
fn a_store_is_formed_when_its_nodes_are_up_and_every_node_is_told_all() {
    let machine = Machine::new();
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let (first, second) = (told(&machine, 0).0, told(&machine, 1).0);
    assert_eq!(first, second);
    let leads = |node| {
        let led_by = |n: &&RangeNews| n.config.as_ref().unwrap().primary.addr.node == node;
        first.values().filter(led_by).count()
    };
    assert_eq!((leads(NodeIndex(0)), leads(NodeIndex(1))), (128, 128));
    for news in first.values() {
        let config = news.config.as_ref().unwrap();
        assert_eq!((config.in_sync.len(), config.epoch, config.formed), (2, Epoch(1), Epoch(1)));
        assert_eq!(config.primary.addr, news.placement[0]);
    }
    // Without copies there is nothing to tell.
    let free = StoreDefinition { clustron_port: None, client_port: None, ..definition("Plain", 1) };
    machine.client().create(&free).unwrap();
    machine.client().start("Plain", "node1").unwrap();
}

#[test]
fn the_death_of_a_node_is_known_to_the_others_at_once_and_it_comes_back_as_another() {
    let machine = Machine::new();
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let before = config(&machine, 1, 0).unwrap();
    assert_eq!(before.primary.addr.node, NodeIndex(0));
    let begin = Instant::now();
    kill(pid(&machine, "node1"));
    let survivor = before.member_at(before.in_sync[1].addr).unwrap();
    until("the other one leads", || config(&machine, 1, 0).is_some_and(|c| c.primary == survivor));
    println!("from the kill to the news: {:?}", begin.elapsed());
    let after = config(&machine, 1, 0).unwrap();
    assert_eq!((after.epoch, after.in_sync.len()), (Epoch(2), 1));

    // Back under another boot, it is told all, and the primary takes it in.
    until("it is told", || config(&machine, 0, 0).is_some_and(|c| c.primary == survivor));
    let boot = BootId(u64::from(pid(&machine, "node1")));
    let back = Rid { addr: before.primary.addr, boot, generation: 0 };
    let expand = |epoch| ConfigAsk {
        range: RangeId(0),
        epoch,
        caller: survivor,
        change: Change::Expand { add: back },
    };
    let of_another = ConfigAsk { caller: back, ..expand(Epoch(2)) };
    ask(&machine, 1, vec![expand(Epoch(1)), of_another]);
    until("it is refused", || told(&machine, 1).1.iter().any(|n| n.range == RangeId(0)));
    assert_eq!(config(&machine, 1, 0).unwrap().epoch, Epoch(2));
    ask(&machine, 1, vec![expand(Epoch(2))]);
    until("it is granted", || config(&machine, 0, 0).is_some_and(|c| c.in_sync.len() == 2));
    let granted = config(&machine, 1, 0).unwrap();
    assert_eq!((granted.epoch, granted.has(back)), (Epoch(3), true));
}

#[test]
fn a_manager_that_is_started_again_goes_on_where_it_was() {
    let machine = Machine::new();
    let manager = machine.start();
    machine.client().create(&with_copies("S", 3, 1)).unwrap();
    start_all(&machine, "S", 3);
    let before = told(&machine, 1).0;
    let (first, second) = (pid(&machine, "node1"), pid(&machine, "node2"));
    manager.end();
    std::fs::remove_file(beside(&machine, 1, "told")).unwrap();
    kill(first);
    let socket = beside(&machine, 0, "").with_extension("sock");
    until("it is gone", || std::os::unix::net::UnixStream::connect(&socket).is_err());
    let _manager = machine.start();
    // What it led is led by others, and nothing else has changed.
    until("its end was found out", || {
        let now = told(&machine, 1).0;
        let led = |news: &RangeNews| news.config.as_ref().unwrap().primary.addr.node;
        now.len() == 256 && now.values().all(|news| led(news) != NodeIndex(0))
    });
    assert_eq!(pid(&machine, "node2"), second);
    let now = told(&machine, 1).0;
    for (range, news) in &before {
        let (had, has) = (news.config.as_ref().unwrap(), now[range].config.as_ref().unwrap());
        let lost = had.in_sync.iter().any(|rid| rid.addr.node == NodeIndex(0));
        assert_eq!(has.epoch, Epoch(if lost { 2 } else { 1 }), "{range:?}");
    }
}

fn raw(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid as i32).expect("a process number")
}

#[test]
fn a_store_that_was_stopped_starts_a_new_life() {
    let machine = Machine::new();
    let _manager = machine.start();
    let client = machine.client();
    client.create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let before = config(&machine, 0, 7).unwrap();
    let report = coordinate::stop(&group(&[&machine]), "S", None, false);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    for index in 0..2 {
        let told = machine.data().join("run");
        let files = std::fs::read_dir(told).unwrap().flatten();
        let of_node = format!("-{index}.sock.told");
        for file in files.filter(|f| f.path().display().to_string().ends_with(&of_node)) {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    start_all(&machine, "S", 2);
    let after = config(&machine, 0, 7).unwrap();
    assert_eq!((after.in_sync.len(), after.state), (2, RangeState::Normal));
    assert!(after.epoch > before.epoch && after.first_index > before.first_index);
    assert_eq!(after.formed, after.epoch);
}

#[test]
fn a_range_whose_last_copy_is_gone_waits_for_a_human_or_starts_empty() {
    for on_total_loss in [OnTotalLoss::Offline, OnTotalLoss::Reinit] {
        let machine = Machine::new();
        let _manager = machine.start();
        let mut wanted = with_copies("S", 2, 1);
        wanted.replication = wanted.replication.map(|r| Replication { on_total_loss, ..r });
        machine.client().create(&wanted).unwrap();
        start_all(&machine, "S", 2);
        // The second one goes before the first is a copy again: nobody resyncs here.
        kill(pid(&machine, "node1"));
        let alone = |c: RangeConfig| c.in_sync.len() == 1;
        until("one is left", || config(&machine, 1, 0).is_some_and(alone));
        until("it is back", || node(&machine.client(), "S", "node1").restarts == 1);
        kill(pid(&machine, "node2"));
        let state = |c: &RangeConfig| match on_total_loss {
            OnTotalLoss::Offline => c.state == RangeState::Offline,
            OnTotalLoss::Reinit => c.state == RangeState::Normal && c.formed > Epoch(1),
        };
        until("that is known", || config(&machine, 0, 0).as_ref().is_some_and(state));
        if on_total_loss == OnTotalLoss::Reinit {
            continue;
        }
        let offline = || machine.client().store("S").unwrap().copies.unwrap().offline_ranges;
        until("all are offline", || offline() == 256);
        let refused = machine.client().accept_loss("S", 255).unwrap_err();
        assert!(refused.to_string().contains("256 ranges of S are offline by now"), "{refused}");
        machine.client().accept_loss("S", 256).unwrap();
        until("a human accepted it", || {
            config(&machine, 0, 0)
                .is_some_and(|c| c.state == RangeState::Normal && c.formed > Epoch(1))
        });
        until("nothing is offline any more", || offline() == 0);
    }
}

#[test]
fn a_node_that_is_silent_is_killed_unless_it_has_the_last_copy() {
    let mut machine = Machine::new();
    machine.options.pace.silence_max = Duration::from_millis(500);
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let stopped = pid(&machine, "node1");
    rustix::process::kill_process(raw(stopped), rustix::process::Signal::STOP).unwrap();
    until("the other one leads", || {
        config(&machine, 1, 0).is_some_and(|c| c.primary.addr.node == NodeIndex(1))
    });
    until("it is started again", || node(&machine.client(), "S", "node1").restarts == 1);
    let last = pid(&machine, "node2");
    rustix::process::kill_process(raw(last), rustix::process::Signal::STOP).unwrap();
    until("it is called silent", || {
        node(&machine.client(), "S", "node2").message.is_some_and(|m| m.contains("does not answer"))
    });
    assert_eq!(pid(&machine, "node2"), last);
    rustix::process::kill_process(raw(last), rustix::process::Signal::CONT).unwrap();
    until("it answers again", || node(&machine.client(), "S", "node2").message.is_none());
    assert_eq!((pid(&machine, "node2"), node(&machine.client(), "S", "node2").restarts), (last, 0));
}

#[test]
fn of_nodes_that_fall_silent_in_the_same_moment_one_keeps_what_both_hold() {
    let mut machine = Machine::new();
    machine.options.pace.silence_max = Duration::from_millis(500);
    let manager = machine.start();
    machine.client().create(&with_copies("S", 3, 1)).unwrap();
    start_all(&machine, "S", 3);
    // The next manager takes them up together, and asks them at the same beats.
    manager.end();
    let _manager = machine.start();
    let names = ["node1", "node2", "node3"];
    until("they answer", || {
        names.iter().all(|name| {
            let node = node(&machine.client(), "S", name);
            node.state == Some(NodeState::Running) && node.message.is_none()
        })
    });
    let pids = names.map(|name| pid(&machine, name));
    let signal = |signal| {
        for pid in pids {
            // One that was killed is gone.
            let _ = rustix::process::kill_process(raw(pid), signal);
        }
    };
    signal(rustix::process::Signal::STOP);
    until("one is started again", || {
        names.iter().any(|name| node(&machine.client(), "S", name).restarts == 1)
    });
    // Long enough for the others, had they been let go.
    std::thread::park_timeout(machine.options.pace.silence_max * 2);
    let offline = machine.client().store("S").unwrap().copies.unwrap().offline_ranges;
    signal(rustix::process::Signal::CONT);
    assert_eq!(offline, 0);
}

#[test]
fn of_nodes_that_are_stopped_in_the_same_moment_one_keeps_what_both_hold() {
    let mut machine = Machine::new();
    // These nodes hand nothing over, so that both stops wait for it at once.
    machine.options.pace.handover_max = Duration::from_millis(300);
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 3, 1)).unwrap();
    start_all(&machine, "S", 3);
    let stops = ["node1", "node2"].map(|name| {
        let client = machine.client();
        std::thread::spawn(move || client.stop("S", name, false))
    });
    let mut stopped = 0;
    for stop in stops {
        match stop.join().expect("no panic") {
            Ok(_) => stopped += 1,
            Err(refused) => assert_eq!(refused.code(), "last_copy"),
        }
    }
    assert_eq!(stopped, 1);
    assert_eq!(machine.client().store("S").unwrap().copies.unwrap().offline_ranges, 0);
}

/// Plays the primaries of a store for as long as it lives: brings the copies to where they are placed, as nodes do.
struct Primaries {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Primaries {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Primaries {
    fn play(machine: &Arc<Machine>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (machine, told) = (Arc::clone(machine), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                play_once(&machine);
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

fn play_once(machine: &Machine) {
    let Ok(view) = machine.client().store("S") else { return };
    let mut boots = BTreeMap::new();
    for (index, record) in view.record.indexed() {
        let running = view.nodes.iter().find(|n| n.record.name == record.name);
        if let Some(pid) = running.and_then(|n| n.pid) {
            boots.insert(index, BootId(u64::from(pid)));
        }
    }
    for &NodeIndex(index) in boots.keys() {
        if beside_if_there(machine, index, "asks").is_none_or(|path| path.exists()) {
            continue;
        }
        let leads =
            |rid: &Rid| (rid.addr.node.0, Some(&rid.boot)) == (index, boots.get(&rid.addr.node));
        let wanted = told(machine, index).0.into_values().filter_map(|news| {
            let config = news.config.filter(|config| leads(&config.primary))?;
            let missing = news.placement.iter().find(|addr| config.member_at(**addr).is_none());
            let change = if let Some(addr) = missing {
                // An old copy of that node has to be known as dead first.
                let boot = *boots.get(&addr.node)?;
                Change::Expand { add: Rid { addr: *addr, boot, generation: 0 } }
            } else if config.primary.addr != news.placement[0] {
                Change::Transfer { to: config.member_at(news.placement[0])? }
            } else {
                let extra =
                    config.in_sync.iter().find(|rid| !news.placement.contains(&rid.addr))?;
                Change::Shrink { remove: *extra }
            };
            Some(ConfigAsk {
                range: news.range,
                epoch: config.epoch,
                caller: config.primary,
                change,
            })
        });
        let wanted: Vec<ConfigAsk> = wanted.collect();
        if !wanted.is_empty() {
            ask(machine, index, wanted);
        }
    }
}

#[test]
fn what_a_node_leads_is_led_by_others_on_request_and_back_again() {
    let machine = Arc::new(Machine::new());
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 3, 1)).unwrap();
    start_all(&machine, "S", 3);
    let _primaries = Primaries::play(&machine);
    let group = group(&[&machine]);
    let part = |name: &str| {
        let copies = machine.client().store("S").unwrap().copies.unwrap();
        copies.nodes.into_iter().find(|node| node.name == name).unwrap()
    };
    let report = coordinate::failover(&group, "S", "node-2", false, MOST);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    let text = machine.client().get_text("/metrics").unwrap();
    assert!(text.contains("dkv_node_ranges_led{store=\"S\",node=\"node2\"} 0"), "{text}");
    assert!(text.contains("dkv_degraded_ranges{store=\"S\"} 0"), "{text}");
    let relieved = part("node2");
    assert_eq!((relieved.leads, relieved.duty), (0, NodeDuty::Follows));
    assert!(relieved.in_sync > 100);
    let report = coordinate::failover(&group, "S", "node2", true, MOST);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    assert!(part("node2").leads > 50, "{:?}", part("node2"));
    let refused = coordinate::failover(&group, "S", "node9", false, MOST);
    assert_eq!(refused.rows[0].code, "no_such_node");
}

#[test]
fn a_rolling_restart_keeps_a_copy_of_everything_and_a_last_copy_is_not_stopped() {
    let machine = Arc::new(Machine::new());
    let _manager = machine.start();
    let client = machine.client();
    client.create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let before = (pid(&machine, "node1"), pid(&machine, "node2"));
    {
        let _primaries = Primaries::play(&machine);
        let report = coordinate::restart_rolling(&group(&[&machine]), "S", MOST);
        assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
        let after = (pid(&machine, "node1"), pid(&machine, "node2"));
        assert!(before.0 != after.0 && before.1 != after.1);
        let copies = client.store("S").unwrap().copies.unwrap();
        assert_eq!((copies.life, copies.offline_ranges, copies.degraded_ranges), (1, 0, 0));
        client.stop("S", "node1", false).unwrap();
    }
    let refused = client.stop("S", "node2", false).unwrap_err();
    assert_eq!(refused.code(), "last_copy");
    assert!(refused.hint().contains("dkv store stop S"), "{}", refused.hint());
    let copies = client.store("S").unwrap().copies.unwrap();
    assert_eq!((copies.degraded_ranges, copies.nodes[1].alone), (256, 256));
    // The whole store is stopped on purpose.
    let report = coordinate::stop(&group(&[&machine]), "S", None, false);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
}

#[test]
fn a_node_is_killed_on_request_unless_what_it_holds_would_be_lost() {
    let machine = Machine::new();
    let _manager = machine.start();
    machine.client().create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let before = pid(&machine, "node1");
    assert_eq!(machine.client().kill("S", "node-1", false).unwrap().message, "Killed");
    until("it is back", || {
        let own = node(&machine.client(), "S", "node1");
        own.state == Some(NodeState::Running) && own.pid.is_some_and(|pid| pid != before)
    });
    // Nobody made copies on it since: the other one has the only ones.
    let refused = |error: dkv_agent::client::AdminError, code: &str| {
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.hint().is_empty());
    };
    refused(machine.client().kill("S", "node2", false).unwrap_err(), "last_copy");
    refused(machine.client().kill("S", "node3", false).unwrap_err(), "no_such_node");
    machine.client().stop("S", "node1", true).unwrap();
    refused(machine.client().kill("S", "node1", false).unwrap_err(), "node_not_running");
    machine.client().kill("S", "node2", true).unwrap();
    // Without copies every node has the only one.
    let plain = StoreDefinition { clustron_port: None, client_port: None, ..definition("P", 1) };
    machine.client().create(&plain).unwrap();
    machine.client().start("P", "node1").unwrap();
    refused(machine.client().kill("P", "node1", false).unwrap_err(), "last_copy");
    machine.client().kill("P", "node1", true).unwrap();
}

#[test]
fn a_node_joins_and_another_leaves_while_the_store_runs() {
    let machine = Arc::new(Machine::new());
    let manager = machine.start();
    let client = machine.client();
    client.create(&with_copies("S", 2, 1)).unwrap();
    start_all(&machine, "S", 2);
    let group = group(&[&machine]);
    let refused = coordinate::remove_instance(&group, "S", "node1", false, MOST);
    assert!(refused.rows[0].message.contains("need 2 nodes"), "{refused:?}");
    let primaries = Primaries::play(&machine);
    let report = coordinate::add_instance(&group, "S", &NewInstance::default());
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    assert_eq!(node(&client, "S", "node3").state, Some(NodeState::Running));
    let part = |name: &str| {
        let copies = client.store("S").unwrap().copies.unwrap();
        copies.nodes.into_iter().find(|node| node.name == name).map_or(0, |node| node.in_sync)
    };
    until("the new one has its part", || part("node3") > 160);
    // Nodes that ran before were told of it.
    let text = std::fs::read_to_string(beside(&machine, 0, "told")).unwrap();
    assert!(text.lines().any(|line| line.contains("\"nodes\"") && line.contains("node3")));

    // One that never ran goes as it came.
    client.add_instance("S", &AddInstanceRequest::default()).unwrap();
    let report = coordinate::remove_instance(&group, "S", "node4", false, MOST);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    let report = coordinate::remove_instance(&group, "S", "node2", false, MOST);
    assert_eq!(report.outcome(), Outcome::Done, "{report:?}");
    let view = client.store("S").unwrap();
    let names: Vec<&str> = view.record.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["node1", "node3"]);
    assert_eq!(view.record.index_of("node3"), Some(NodeIndex(2)));
    assert_eq!((part("node1"), part("node3")), (256, 256));
    drop(primaries);
    // Its place stays its own, and nothing of it is left.
    manager.end();
    let _manager = machine.start();
    let report = coordinate::add_instance(&group, "S", &NewInstance::default());
    let record = report.record.unwrap();
    assert_eq!(record.index_of("node5"), Some(NodeIndex(4)), "{record:?}");
}
