//! One machine, several nodes: what a new user does first, and what the topology rules promise.

use dkv_tests::machine::{Network, until};

const CREATE: &str = "New-DkvStore -Name TestStore -InstancePrefix node -ClustronPort 7811 -ClientPort 7861 -InstanceCount";

#[test]
fn up_gives_a_store_that_any_node_serves() {
    let machine = Network::alone();
    machine.dkv("up").ok().says(&["7861"]).says(&["7862"]);
    for i in 0..64 {
        let key = format!("key:{i}");
        assert_eq!(machine.redis("127.0.0.1", 7861, &["set", &key, &i.to_string()]), "OK");
        assert_eq!(machine.redis("127.0.0.1", 7862, &["get", &key]), i.to_string());
    }
    assert_eq!(machine.redis("127.0.0.1", 7862, &["dbsize"]), "64");
    assert_eq!(
        machine.redis("127.0.0.1", 7861, &["cluster", "info"]).lines().next(),
        Some("cluster_state:ok")
    );
    // Idempotent: the data is still there.
    let nodes = machine.pids("node");
    machine.dkv("up").ok();
    assert_eq!(machine.pids("node"), nodes);
    assert_eq!(machine.redis("127.0.0.1", 7861, &["get", "key:7"]), "7");
    assert_eq!(machine.dkv("kv get key:9").ok().out.trim(), "9");

    machine.dkv("down").ok();
    assert_eq!((machine.pids("node"), machine.pids("agent")), (vec![], vec![]));
    machine.dkv("up").ok();
    assert_eq!(machine.redis("127.0.0.1", 7861, &["dbsize"]), "0");
    machine.dkv("down --purge").ok();
    assert!(!machine.data.join("token").exists());
}

#[test]
fn a_rolling_restart_that_is_interrupted_leaves_no_node_stopped() {
    let machine = Network::alone();
    machine.dkv("up --nodes 3").ok();
    assert_eq!(machine.redis("127.0.0.1", 7861, &["set", "kept", "yes"]), "OK");
    let before = machine.pids("node");
    let words = ["store", "restart", "local", "--rolling"];
    let mut restart = machine.background("dkv", &words, "restart.log");
    until("a node was stopped", || machine.pids("node") != before);
    restart.interrupt();
    let mut code = None;
    until("it ends", || {
        code = restart.ended();
        code.is_some()
    });
    let said = std::fs::read_to_string(machine.path("restart.log")).expect("its log");
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("Restart:node1") && said.contains("Not tried"), "{said}");
    machine.dkv("store list").ok().says(&["Running:3"]);
    assert_eq!(machine.redis("127.0.0.1", 7862, &["get", "kept"]), "yes");
    // Two of the three are the processes that they were.
    let stay = machine.pids("node").iter().filter(|pid| before.contains(pid)).count();
    assert_eq!(stay, 2, "{said}");
}

#[test]
fn what_somebody_clears_away_is_made_anew_and_what_is_removed_leaves_nothing() {
    let machine = Network::alone();
    machine.dkv("up --nodes 3").ok();
    let (run, logs) = (machine.data.join("run"), machine.data.join("logs"));
    let files = |dir: &std::path::Path, end: &str| {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        names.filter(|file| file.file_name().to_string_lossy().ends_with(end)).count()
    };
    let before = machine.pids("node");
    assert_eq!((files(&run, ".sock"), files(&run, ".lock"), before.len()), (3, 3, 3));
    std::fs::remove_dir_all(&run).expect("it is there");
    until("the nodes have their sockets again", || files(&run, ".sock") == 3);
    assert_eq!(machine.pids("node"), before, "nobody was ended for it");
    // One that ends starts again, with a lock of its own.
    dkv_tests::machine::kill(before[0]);
    until("another process has started", || {
        let now = machine.pids("node");
        now.len() == 3 && now != before
    });
    until("all ranges have their copies", || {
        machine.dkv("store show local").out.contains("256 of 256 served")
            && !machine.dkv("store show local").out.contains("degraded")
    });
    machine.dkv("store add-instance local").ok();
    assert_eq!(files(&logs, "node4.log"), 1);
    machine.dkv("store remove-instance local --instance node4").ok();
    assert_eq!((files(&run, ".sock"), files(&run, ".lock"), files(&logs, "node4.log")), (3, 3, 0));
}

#[test]
fn the_clustron_page_works_to_the_letter() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    machine
        .dkv(&format!("{CREATE} 2"))
        .fails(3)
        .says(&["No managers connected. Use Connect-DkvManager or specify -Managers."]);
    machine.dkv("Connect-DkvManager -Managers 127.0.0.1:7801").ok().says(&[
        "127.0.0.1:7801",
        "Connect",
        "SUCCESS",
        "Connected",
    ]);
    machine.dkv(&format!("{CREATE} 2")).ok().says(&[
        "127.0.0.1:7801",
        "CreateStore",
        "SUCCESS",
        "Created",
    ]);

    let store = machine.json("store show TestStore");
    let text = store.to_string();
    for part in ["\"node1\"", "\"node2\"", "7811", "7812", "7861", "7862", "Created"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    machine.dkv(&format!("{CREATE} 2")).ok().says(&["already exists"]);
    machine.dkv(&format!("{CREATE} 3")).fails(1).says(&["instance", "2", "3"]);
    machine
        .dkv("store create Other --instance-prefix node --instance-count 1 --clustron-port 7811 --client-port 7861")
        .fails(1)
        .says(&["TestStore", "node1", "7811"]);
    machine.dkv("store create Many --instance-prefix n --instance-count 40").fails(2).says(&["39"]);
    machine
        .dkv("store create Lap --instance-prefix n --instance-count 4 --clustron-port 7700 --client-port 7702")
        .fails(2)
        .says(&["2"]);
    // A second store that names no ports gets the next free ones.
    machine.dkv("store create Second --instance-prefix s --instance-count 1").ok();
    let second = machine.json("store show Second").to_string();
    assert!(second.contains("7813") && second.contains("7863"), "{second}");

    machine
        .dkv("Start-DkvStore -Name TestStore")
        .ok()
        .says(&["StartInstance:node1", "SUCCESS", "Started"])
        .says(&["StartInstance:node2"]);
    until("the store is whole", || {
        machine.redis("127.0.0.1", 7861, &["cluster", "info"]).starts_with("cluster_state:ok")
    });
    machine.dkv("Get-DkvStore").ok().says(&["TestStore", "Running", "2"]);
    machine.dkv("Connect-DkvStore TestStore 127.0.0.1:7862").ok();
    machine.dkv("Set-DkvItem greeting hello").ok().says(&["greeting"]);
    machine.dkv("Get-DkvItem greeting").ok().says(&["hello"]);
    machine.dkv("Increment-DkvCounter -Key hits -Delta 5").ok().says(&["5"]);
    machine.dkv("Stop-DkvStore TestStore").ok().says(&["StopInstance:node2", "SUCCESS", "Stopped"]);
    assert!(machine.pids("node").is_empty());
}

#[test]
fn a_second_manager_is_refused_and_names_the_first() {
    let machine = Network::alone();
    let manager = machine.manager(&[]);
    let pid = manager.pid().to_string();
    let other = machine.path("other");
    let other = other.to_str().expect("a plain path");
    machine
        .dkv(&format!("agent --listen 127.0.0.1:7905 --data-dir {other}"))
        .fails(69)
        .says(&[&pid]);
    machine.dkv("agent").fails(69).says(&[&pid]);
    assert_eq!(machine.pids("agent"), [manager.pid()]);
}

#[test]
fn a_port_of_a_stranger_is_found_before_anything_is_written() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    let mut stranger = machine
        .command("python3", &["-m", "http.server", "7862", "--bind", "127.0.0.1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("python3 is installed");
    until("the stranger listens", || {
        machine.run("curl", &["-s", "-m", "2", "http://127.0.0.1:7862/"]).code == 0
    });
    machine
        .dkv("store create -m 127.0.0.1:7801 Blocked --instance-prefix node --instance-count 2 --clustron-port 7811 --client-port 7861")
        .fails(1)
        .says(&["7862"]);
    stranger.kill().expect("the stranger runs");
    stranger.wait().expect("the stranger ends");
    let listing = machine.dkv("store list -m 127.0.0.1:7801").ok();
    assert!(!listing.out.contains("Blocked"), "{}", listing.out);
}

#[test]
fn bad_names_counts_and_targets_say_what_to_type() {
    let machine = Network::alone();
    machine.dkv("store list").fails(3).says(&["dkv connect"]);
    machine.dkv("connect -m 0.0.0.0:7801").fails(2).says(&["0.0.0.0"]);
    machine.dkv("store list -m 127.0.0.1:1").fails(3).says(&["127.0.0.1:1"]);
    let _manager = machine.manager(&[]);
    for (line, word) in [
        ("store create 9lives --instance-prefix n", "name"),
        ("store create bad/name --instance-prefix n", "name"),
        ("store create Zero --instance-prefix n --instance-count 0", "count"),
        ("store create Port --instance-prefix n --client-port 70000", "70000"),
    ] {
        let output = machine.dkv(&format!("{line} -m 127.0.0.1:7801")).fails(2);
        assert!(output.err.contains(word), "{line}: {}", output.all());
    }
    machine.dkv("store show Nowhere -m 127.0.0.1:7801").fails(1).says(&["Nowhere"]);
    machine.dkv("store create Later --instance-prefix n --replicas 1 -m 127.0.0.1:7801").fails(2);
    machine.dkv("store list -m 127.0.0.1:7801 --dry-run").fails(2);
}

#[test]
fn too_few_nodes_for_the_cpus_is_a_warning() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(cpus >= 2, "this test needs two CPUs");
    machine
        .dkv("store create Small -m 127.0.0.1:7801 --instance-prefix n --instance-count 1 --cpus 1")
        .ok()
        .says(&["--cpus"]);
}
