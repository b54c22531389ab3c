//! Several machines, one manager on each: the second deployment model.

use dkv_tests::machine::{Machine, Network, PATIENCE, Process, until};
use std::time::Instant;

const TOKEN: &str = "7f1c9a52e04b4d6688c3a1f0be7725d97f1c9a52e04b4d6688c3a1f0be7725d9";

fn manager(machine: &Machine) -> Process {
    let token = machine.file("group.token", TOKEN);
    let listen = format!("{}:7801", machine.address);
    machine.manager(&["--listen", &listen, "--token-file", token.to_str().expect("a plain path")])
}

fn dkv(machine: &Machine, line: &str) -> dkv_tests::Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let begin = Instant::now();
    loop {
        let mut command = machine.command("dkv", &words);
        command.env("DKV_TOKEN_FILE", machine.path("group.token"));
        let output = machine.run_command(command);
        // Timed out: a machine that is busy with other things needs longer, and the same command again waits on.
        if output.code != 5 || begin.elapsed() > PATIENCE {
            return output;
        }
    }
}

fn nodes(machine: &Machine, store: &str) -> Vec<(String, String, u64, u64)> {
    let output = dkv(machine, &format!("store show {store} -o json")).ok();
    let value: serde_json::Value = serde_json::from_str(&output.out).expect("JSON");
    let nodes = value["nodes"].as_array().expect("nodes").clone();
    nodes
        .iter()
        .map(|n| {
            (
                n["name"].as_str().expect("a name").to_owned(),
                n["machine"]
                    .as_str()
                    .expect("a machine")
                    .split(':')
                    .next()
                    .expect("a host")
                    .to_owned(),
                n["cluster_port"].as_u64().expect("a port"),
                n["client_port"].as_u64().expect("a port"),
            )
        })
        .collect()
}

fn whole(from: &Machine, host: &str, extra: &[&str]) {
    until("the store is whole", || {
        let mut args = extra.to_vec();
        args.extend_from_slice(&["cluster", "info"]);
        let mut all = vec!["-h", host, "-p", "7861"];
        all.extend_from_slice(&args);
        from.run("redis-cli", &all).out.contains("cluster_state:ok")
    });
}

#[test]
fn one_create_covers_both_machines() {
    let network = Network::of(3);
    let [a, b, c] = &network.machines[..] else { panic!("three machines") };
    let (_a, _b) = (manager(a), manager(b));
    dkv(a, "connect -m 10.77.0.11,10.77.0.12").ok();
    let create = "store create Orders --instance-prefix node --instance-count 1 --replicas 0 --clustron-port 7811 --client-port 7861 --no-protected-mode";
    dkv(a, create).ok();
    assert_eq!(
        nodes(a, "Orders"),
        [
            ("node1".into(), "10.77.0.11".into(), 7811, 7861),
            ("node2".into(), "10.77.0.12".into(), 7811, 7861)
        ]
    );
    dkv(a, "store start Orders").ok();
    whole(c, "10.77.0.11", &[]);
    c.python("anynode.py", &["2000", "-", "10.77.0.11:7861", "10.77.0.12:7861"])
        .ok()
        .says(&["2000 keys"]);
    assert_eq!(c.redis("10.77.0.12", 7861, &["get", "any:17"]), "17");

    // The cable of B is pulled: its ranges say so at once, the rest goes on; plugged in again, all is served.
    network.cable(1, false);
    until("A knows that B is gone", || {
        c.redis("10.77.0.11", 7861, &["cluster", "info"]).contains("cluster_state:fail")
    });
    let mut served = 0;
    let mut down = 0;
    for i in 0..40 {
        let reply = c.redis("10.77.0.11", 7861, &["get", &format!("any:{i}")]);
        if reply.contains("CLUSTERDOWN") {
            down += 1;
        } else {
            served += usize::from(reply == i.to_string());
        }
    }
    assert!(served > 0 && down > 0 && served + down == 40, "{served} served, {down} down");
    network.cable(1, true);
    whole(c, "10.77.0.11", &[]);
    dkv(b, "store list -m 10.77.0.12").ok().says(&["Orders", "Running"]);
}

#[test]
fn two_nodes_on_each_machine_and_a_password() {
    let network = Network::of(3);
    let [a, b, c] = &network.machines[..] else { panic!("three machines") };
    let (_a, _b) = (manager(a), manager(b));
    dkv(a, "connect -m 10.77.0.11:7801,10.77.0.12:7801").ok();
    let password = a.file("password", "s3cret word\n");
    dkv(
        a,
        &format!(
            "store create Orders --instance-prefix orders- --instance-count 2 --password-file {}",
            password.display()
        ),
    )
    .ok();
    let found: Vec<_> = nodes(a, "Orders").into_iter().map(|n| (n.0, n.1, n.3)).collect();
    assert_eq!(
        found,
        [
            ("orders-1".into(), "10.77.0.11".into(), 7861),
            ("orders-2".into(), "10.77.0.11".into(), 7862),
            ("orders-3".into(), "10.77.0.12".into(), 7861),
            ("orders-4".to_owned(), "10.77.0.12".to_owned(), 7862),
        ]
    );
    dkv(b, "connect -m 10.77.0.12").ok();
    dkv(b, "store start Orders").ok();
    assert!(c.redis("10.77.0.11", 7861, &["get", "x"]).contains("NOAUTH"));
    let wrong = c.run("redis-cli", &["-h", "10.77.0.11", "-p", "7861", "-a", "wrong", "get", "x"]);
    assert!(wrong.all().contains("WRONGPASS"), "{}", wrong.all());
    whole(c, "10.77.0.11", &["-a", "s3cret word"]);
    c.python(
        "anynode.py",
        &[
            "1000",
            "s3cret word",
            "10.77.0.11:7861",
            "10.77.0.11:7862",
            "10.77.0.12:7861",
            "10.77.0.12:7862",
        ],
    )
    .ok()
    .says(&["1000 keys"]);
    c.python("mixed.py", &["cluster", "10.77.0.12", "7862", "500", "s3cret word"]).ok();
}

#[test]
fn without_copies_what_lived_on_a_machine_that_dies_is_gone_and_the_rest_is_served() {
    let network = Network::of(4);
    let [a, b, c, client] = &network.machines[..] else { panic!("four machines") };
    let (_a, _b) = (manager(a), manager(b));
    let third = manager(c);
    dkv(a, "connect -m 10.77.0.11,10.77.0.12,10.77.0.13").ok();
    dkv(a, "store create Orders --instance-prefix node --replicas 0 --no-protected-mode").ok();
    dkv(a, "store start Orders").ok();
    whole(client, "10.77.0.13", &[]);
    let endpoints = ["10.77.0.11:7861", "10.77.0.12:7861", "10.77.0.13:7861"];
    client
        .python("anynode.py", &[&["1500", "-"], &endpoints[..]].concat())
        .ok()
        .says(&["1500 keys"]);

    // The whole machine: manager and node. What lived there says so, what lives elsewhere is served.
    third.kill();
    for pid in c.pids("node") {
        dkv_tests::machine::kill(pid);
    }
    until("A knows", || {
        client.redis("10.77.0.11", 7861, &["cluster", "info"]).contains("cluster_state:fail")
    });
    let replies: Vec<String> =
        (0..30).map(|i| client.redis("10.77.0.12", 7861, &["get", &format!("any:{i}")])).collect();
    let down = replies.iter().filter(|r| r.contains("CLUSTERDOWN")).count();
    let served = replies.iter().enumerate().filter(|(i, r)| **r == i.to_string()).count();
    assert!(down > 0 && served > 0 && down + served == replies.len(), "{replies:?}");
    let listing = dkv(a, "store list");
    assert!(
        listing.all().contains("10.77.0.13"),
        "the machine that is down is named: {}",
        listing.all()
    );

    // Its manager comes back and brings its node with it, empty.
    let _c = manager(c);
    whole(client, "10.77.0.11", &[]);
    client.python("anynode.py", &[&["1500", "-"], &endpoints[..]].concat()).ok();
}

#[test]
fn without_password_other_hosts_are_refused() {
    let network = Network::of(2);
    let [a, b] = &network.machines[..] else { panic!("two machines") };
    let _a = manager(a);
    dkv(a, "connect -m 10.77.0.11").ok();
    dkv(a, "store create Safe --instance-prefix node")
        .ok()
        .says(&["--password-file", "--no-protected-mode"]);
    dkv(a, "store start Safe").ok();
    assert_eq!(a.redis("127.0.0.1", 7861, &["set", "k", "v"]), "OK");
    let answer = b.run("redis-cli", &["-h", "10.77.0.11", "-p", "7861", "get", "k"]);
    assert!(answer.all().contains("DENIED"), "{}", answer.all());
}

#[test]
fn run_on_each_machine_as_the_page_says() {
    let network = Network::of(2);
    let [a, b] = &network.machines[..] else { panic!("two machines") };
    let (_a, _b) = (manager(a), manager(b));
    let create = "New-DkvStore -Name TestStore -InstancePrefix node -InstanceCount 1 -ClustronPort 7811 -ClientPort 7861";
    dkv(a, "Connect-DkvManager -Managers 10.77.0.11:7801").ok();
    dkv(a, create).ok();
    assert_eq!(nodes(a, "TestStore").len(), 1);
    dkv(b, "Connect-DkvManager -Managers 10.77.0.11:7801,10.77.0.12:7801").ok();
    dkv(b, create).ok();
    let wanted = [
        ("node1".into(), "10.77.0.11".into(), 7811, 7861),
        ("node2".to_owned(), "10.77.0.12".to_owned(), 7811u64, 7861u64),
    ];
    assert_eq!(nodes(b, "TestStore"), wanted);
    assert_eq!(nodes(a, "TestStore"), wanted);
    // Once more changes nothing, from either side.
    dkv(b, create).ok().says(&["already exists"]);
    dkv(a, create).ok().says(&["already exists"]);
    assert_eq!(nodes(a, "TestStore"), wanted);

    // A list that leaves one out is completed, and says so.
    dkv(b, "connect -m 10.77.0.11 --force").ok().says(&["10.77.0.12"]);
    dkv(b, "store start TestStore").ok();
    whole(b, "127.0.0.1", &[]);
}

#[test]
fn a_machine_that_is_down_is_named_and_nothing_is_changed() {
    let network = Network::of(2);
    let [a, b] = &network.machines[..] else { panic!("two machines") };
    let (_a, b_manager) = (manager(a), manager(b));
    dkv(a, "connect -m 10.77.0.11,10.77.0.12").ok();
    dkv(a, "store create Early --instance-prefix e").ok();
    b_manager.kill();
    let failed = dkv(a, "store create Orders --instance-prefix node");
    assert_ne!(failed.code, 0);
    failed.says(&["10.77.0.12"]);
    let listing = dkv(a, "store list");
    assert!(listing.out.contains("Early") && !listing.out.contains("Orders"), "{}", listing.all());
    let _b = manager(b);
    dkv(a, "store create Orders --instance-prefix node").ok();
    assert_eq!(nodes(a, "Orders").len(), 2);
}

/// A store with a node on each of two machines, and a copy of all on both.
fn orders_with_copies(from: &Machine, client: &Machine) {
    dkv(from, "connect -m 10.77.0.11,10.77.0.12").ok();
    let create = "store create Orders --instance-prefix node --replicas 1 --no-protected-mode";
    dkv(from, create).ok();
    dkv(from, "store start Orders").ok();
    whole(client, "10.77.0.11", &[]);
    until("all ranges have their copies", || copies(from, "degraded_ranges") == Some(0));
}

fn copies(from: &Machine, field: &str) -> Option<u64> {
    let output = dkv(from, "store show Orders -o json");
    let value: serde_json::Value = serde_json::from_str(&output.out).ok()?;
    value["copies"][field].as_u64()
}

/// Each counts on the other's copy. Both stops at once are one too many, whichever managers they are sent to.
#[test]
fn of_two_machines_whose_nodes_are_stopped_together_one_goes_on() {
    let network = Network::of(3);
    let [a, b, client] = &network.machines[..] else { panic!("three machines") };
    let (_a, _b) = (manager(a), manager(b));
    orders_with_copies(a, client);
    dkv(b, "connect -m 10.77.0.11,10.77.0.12").ok();
    for round in 0..3 {
        let stop = |machine: &Machine, node: &str| {
            dkv(machine, &format!("store stop Orders --instance {node}"))
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| stop(b, "node2"));
            (stop(a, "node1"), second.join().expect("it does not panic"))
        });
        let failed: Vec<_> = [&first, &second].into_iter().filter(|out| out.code != 0).collect();
        assert_eq!(failed.len(), 1, "round {round}: {} {}", first.all(), second.all());
        assert!(failed[0].all().contains("being stopped"), "{}", failed[0].all());
        assert_eq!(copies(a, "offline_ranges"), Some(0));
        dkv(a, "store start Orders").ok();
        until("all ranges have their copies", || copies(a, "degraded_ranges") == Some(0));
    }
}

#[test]
fn after_a_promotion_by_hand_the_other_machine_comes_back_without_its_disk() {
    let network = Network::of(3);
    let [a, b, client] = &network.machines[..] else { panic!("three machines") };
    let (first, _b) = (manager(a), manager(b));
    orders_with_copies(a, client);
    dkv(b, "connect -m 10.77.0.11,10.77.0.12").ok();
    assert_eq!(client.redis("10.77.0.11", 7861, &["set", "kept", "yes"]), "OK");
    let force = || {
        let line = "store failover Orders --force --gone 10.77.0.11:7801 -m 10.77.0.12:7801";
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = b.command("dkv", &words);
        command.env("DKV_TOKEN_FILE", b.path("group.token"));
        let typed = b.file("typed", "10.77.0.11:7801\n");
        command.stdin(std::fs::File::open(typed).expect("just written"));
        b.run_command(command)
    };
    first.kill();
    // Its manager is gone. The machine is not.
    force().fails(1).says(&["the node node1 answers"]);
    for pid in a.pids("node") {
        dkv_tests::machine::kill(pid);
    }
    until("its node is gone", || a.pids("node").is_empty());
    // It alone decided, so nothing can be removed until the one that is left goes on by itself.
    let removal = dkv(b, "store remove-instance Orders --instance node1 --gone").fails(1);
    removal
        .says(&["did not decide"])
        .says(&["dkv store failover Orders --force --gone 10.77.0.11:7801"]);
    force().ok();
    until("the other one serves", || {
        client.run("redis-cli", &["-h", "10.77.0.12", "-p", "7861", "get", "kept"]).out == "yes\n"
    });

    // Nobody tells it anything: it is asked by the one that goes on.
    std::fs::remove_dir_all(a.path("data")).expect("the manager is gone");
    let _a = manager(a);
    until("its node is back with all copies", || {
        let both = copies(b, "degraded_ranges") == Some(0);
        both && client.run("redis-cli", &["-h", "10.77.0.11", "-p", "7861", "get", "kept"]).out
            == "yes\n"
    });
}

/// A manager knows the stores that it has nodes of, so one that has none must not be the one that lets a machine go.
#[test]
fn a_machine_with_nodes_stays_in_the_group_though_a_manager_without_any_knows_nothing_of_them() {
    let network = Network::of(4);
    let [a, b, c, client] = &network.machines[..] else { panic!("four machines") };
    let (_a, _b) = (manager(a), manager(b));
    orders_with_copies(a, client);
    let _c = manager(c);
    dkv(a, "manager add 10.77.0.13").ok();
    let removal = dkv(a, "manager remove 10.77.0.12:7801").fails(1);
    removal.says(&["10.77.0.12:7801 has nodes of the store Orders"]).says(&["remove-instance"]);
    for machine in ["10.77.0.11", "10.77.0.13"] {
        let list = dkv(a, &format!("manager list -m {machine} -o json")).ok();
        assert!(list.out.contains("10.77.0.12:7801"), "{machine}: {}", list.out);
    }
}

/// Its log is its own already, and its catalogue not yet.
#[test]
fn a_manager_that_died_while_it_left_its_group_forgets_the_stores_of_the_others() {
    let network = Network::of(4);
    let [a, b, c, client] = &network.machines[..] else { panic!("four machines") };
    let (_a, _b) = (manager(a), manager(b));
    orders_with_copies(a, client);
    let third = manager(c);
    dkv(a, "manager add 10.77.0.13").ok();
    dkv(a, "store add-instance Orders --machine 10.77.0.13:7801").ok();
    until("the new node has its copies", || copies(a, "degraded_ranges") == Some(0));
    dkv(a, "store remove-instance Orders --instance node3").ok();

    let path = c.data.join("catalogue.json");
    let read = || {
        let text = std::fs::read_to_string(&path).expect("the manager writes it");
        let (head, body) = text.split_once('\n').expect("a first line");
        let magic: Vec<String> = head.split(' ').take(2).map(str::to_string).collect();
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        (magic.join(" "), body)
    };
    let before = read().1["stores"].clone();
    assert!(before["Orders"].is_object(), "{before}");
    dkv(a, "manager remove 10.77.0.13:7801").ok();
    third.kill();
    let (magic, mut catalogue) = read();
    assert!(catalogue["stores"]["Orders"].is_null(), "{catalogue}");
    catalogue["stores"] = before;
    let body = serde_json::to_string_pretty(&catalogue).expect("plain data");
    let sum = c.run("sha256sum", &[&c.file("body", &body).display().to_string()]).out;
    let sum = sum.split(' ').next().expect("a checksum");
    let text = format!("{magic} bytes={} sha256={sum}\n{body}\n", body.len());
    std::fs::write(&path, text).expect("the directory is there");

    let _c = manager(c);
    until("it knows no store", || {
        let list = dkv(c, "store list -m 10.77.0.13 -o json");
        list.code == 0 && !list.out.contains("Orders")
    });
    assert_eq!(nodes(a, "Orders").len(), 2);
}

/// With two machines, each of which is needed for a copy: the circle of commands that all want the other one.
#[test]
fn a_machine_that_is_gone_for_good_is_replaced_by_another_one() {
    const KEYS: usize = 60;
    let network = Network::of(4);
    let [a, b, c, client] = &network.machines[..] else { panic!("four machines") };
    let (_a, second) = (manager(a), manager(b));
    orders_with_copies(a, client);
    let copies = |field: &str| copies(a, field);
    for i in 0..KEYS {
        let (key, value) = (format!("gone:{i}"), i.to_string());
        assert_eq!(client.redis("10.77.0.11", 7861, &["set", &key, &value]), "OK");
    }

    // What lives is not said to be gone, neither with its manager nor without.
    let gone = "store remove-instance Orders --instance node2 --gone";
    dkv(a, gone).fails(1).says(&["the manager 10.77.0.12:7801 answers"]);
    second.kill();
    dkv(a, gone).fails(1).says(&["the node node2 answers"]);
    for pid in b.pids("node") {
        dkv_tests::machine::kill(pid);
    }
    dkv(a, "store remove-instance Orders --instance node2").fails(3).says(&["--gone"]);
    dkv(a, "manager remove 10.77.0.12:7801").fails(1).says(&["remove-instance", "--gone"]);
    dkv(a, gone).ok();
    dkv(a, "manager remove 10.77.0.12:7801").ok();
    assert_eq!(nodes(a, "Orders").len(), 1);

    let _c = manager(c);
    dkv(a, "manager add 10.77.0.13").ok();
    dkv(a, "store add-instance Orders --machine 10.77.0.13:7801").ok();
    until("the new machine has its copies", || copies("degraded_ranges") == Some(0));
    let read = |from: &str| {
        let mut lost = Vec::new();
        for i in 0..KEYS {
            let value = client.redis(from, 7861, &["get", &format!("gone:{i}")]);
            lost.extend((value != i.to_string()).then_some((i, value)));
        }
        lost
    };
    assert_eq!(read("10.77.0.13"), []);

    // It comes back after all: it learns that its node was removed, and serves nobody.
    let _b = manager(b);
    until("its node is gone", || {
        let output = dkv(b, "store list -m 10.77.0.12 -o json");
        output.code == 0 && !output.out.contains("Orders") && b.pids("node").is_empty()
    });
    assert_eq!(read("10.77.0.11"), []);
    assert_eq!(nodes(a, "Orders").len(), 2);
}
