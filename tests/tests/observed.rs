//! What an operator sees of a running store: metrics and what is made for them, hot keys, slow commands, `dkv top`.

use dkv_tests::machine::{Machine, Network, until};
use dkv_tests::terminal::Terminal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// `/metrics` of the manager at an address, asked for from a machine with a token; none when it is refused.
fn metrics(from: &Machine, address: &str, token: &str) -> Option<String> {
    let header = format!("Authorization: Bearer {}", token.trim());
    let url = format!("http://{address}:7801/metrics");
    let answer = from.run("curl", &["-sf", "-H", &header, &url]);
    (answer.code == 0).then_some(answer.out)
}

/// The names of metrics in a text, as `dkv_gets_total`.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("dkv_"));
    words.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_shows_what_managers_export() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    machine.redis("127.0.0.1", 7861, &["set", "a", "1"]);
    let token = machine.dkv("generate prometheus-token").ok().out;
    let mut exported = BTreeSet::new();
    until("the first counts have come", || {
        exported = names(&metrics(&machine, "127.0.0.1", &token).expect("it is let in"));
        exported.contains("dkv_command_seconds_bucket")
    });
    let text = machine.dkv("generate grafana-dashboard --title Ours").ok().out;
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(dashboard["title"], "Ours");
    let shown = names(&text);
    assert!(shown.len() > 40, "{shown:?}");
    let missing: Vec<_> = shown.difference(&exported).collect();
    assert!(missing.is_empty(), "no manager exports {missing:?}");
}

#[test]
fn prometheus_reads_the_metrics_of_every_manager_and_may_do_nothing_else() {
    let network = Network::of(2);
    let [one, two] = &network.machines[..] else { panic!("two machines") };
    let token = "5d".repeat(32);
    let managers = [one, two].map(|machine| {
        let file = machine.file("group.token", &token);
        let listen = format!("{}:7801", machine.address);
        machine.manager(&[
            "--listen",
            &listen,
            "--token-file",
            file.to_str().expect("a plain path"),
        ])
    });
    assert_eq!(managers.len(), 2);
    let dkv = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = one.command("dkv", &words);
        command.env("DKV_TOKEN_FILE", one.path("group.token"));
        one.run_command(command)
    };
    dkv(&format!("connect -m {},{}", one.address, two.address)).ok();
    let config = dkv("generate prometheus-config --bearer-token-file /t").ok().out;
    for machine in [one, two] {
        let target = format!("- '{}:7801'", machine.address);
        assert!(config.contains(&target), "no {target} in\n{config}");
    }
    let of_metrics = dkv("generate prometheus-token").ok().out;
    for to in [one, two] {
        let text = metrics(one, &to.address, &of_metrics).expect("the metrics token is let in");
        assert!(text.contains(&format!("machine=\"{}:7801\"", to.address)), "{text}");
    }
    assert_eq!(metrics(one, &two.address, &token), None, "the token itself does not travel");
    let header = format!("Authorization: Bearer {}", of_metrics.trim());
    let url = format!("http://{}:7801/admin/v1/managers", two.address);
    let answer =
        one.run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url]);
    assert_eq!(answer.out, "401");
    dkv("store create Orders --instance-count 1").ok();
    let config = dkv("generate prometheus-config Orders").ok().out;
    assert!(config.contains("regex: '(Orders)?'"), "{config}");
    let none = dkv("generate prometheus-config Nothing");
    assert_eq!(none.code, 1, "{}", none.all());
}

/// Commands of keys k0 to k999, the key of rank `i` as often as 1 / (i + 1) of the first one's, in a mixed order, the most used
/// being `hot`.
fn zipfian(hot: usize) -> Vec<u8> {
    let weights: Vec<f64> = (0..1000).map(|i| 1.0 / f64::from(i + 1)).collect();
    let all: f64 = weights.iter().sum();
    let (mut random, mut bytes) = (0x9e37_79b9_7f4a_7c15_u64, Vec::new());
    for _ in 0..500 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut left = (random >> 11) as f64 / (1u64 << 53) as f64 * all;
        let rank = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        let key = (rank.unwrap_or(0) + hot) % 1000;
        let name = if rank.is_some_and(|rank| rank % 2 == 0) { "INCR" } else { "GET" };
        bytes.extend_from_slice(format!("{name} k{key}\r\n").as_bytes());
    }
    bytes
}

#[test]
fn the_key_that_is_used_most_is_found_among_many() {
    let machine = Network::alone();
    machine.dkv("up --nodes 2").ok();
    let over = AtomicBool::new(false);
    let entrance = machine.entrance();
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            entrance.enter();
            let mut stream = TcpStream::connect(("127.0.0.1", 7861)).expect("the node listens");
            let commands = zipfian(417);
            let mut bytes = [0; 16384];
            while !over.load(Ordering::Relaxed) {
                stream.write_all(&commands).expect("it reads");
                // Its reply says that all the others are there.
                stream.write_all(b"PING\r\n").expect("it reads");
                let mut tail = Vec::new();
                while !tail.ends_with(b"+PONG\r\n") {
                    let read = stream.read(&mut bytes).expect("it answers");
                    assert!(read > 0, "the node closed the connection");
                    tail.extend_from_slice(&bytes[..read]);
                }
            }
        });
        let found = machine.json("store hotkeys local --seconds 2 --count 5");
        over.store(true, Ordering::Relaxed);
        found
    });
    let found = found.as_array().expect("a list");
    assert_eq!(found.len(), 5);
    // The first of a thousand has about 13 % of all by that rule.
    assert_eq!(found[0]["Key"], "k417", "{found:?}");
    let share = found[0]["SharePct"].as_f64().expect("a number");
    assert!((8.0..20.0).contains(&share), "{found:?}");
    assert_eq!(found[0]["WritesPct"], 100.0, "{found:?}");
    let rates: Vec<f64> = found.iter().filter_map(|row| row["UsesPerSec"].as_f64()).collect();
    assert!(rates.is_sorted_by(|a, b| a >= b) && rates[4] > 0.0, "{rates:?}");
    assert!(machine.dkv("store hotkeys nothing").code == 1);
}

#[test]
fn slow_commands_of_all_nodes_are_shown_with_what_they_waited_for() {
    let machine = Network::alone();
    machine.dkv("up --nodes 2").ok();
    for port in [7861, 7862] {
        machine.redis("127.0.0.1", port, &["config", "set", "slowlog-log-slower-than", "0"]);
        machine.redis("127.0.0.1", port, &["set", &format!("of{port}"), "x"]);
        machine.redis("127.0.0.1", port, &["ping"]);
        machine.redis("127.0.0.1", port, &["config", "set", "slowlog-log-slower-than", "-1"]);
    }
    let shown = machine.json("store slowlog local --count 1000");
    let entries = shown.as_array().expect("a list");
    for port in [7861, 7862] {
        let key = format!("of{port}");
        let of_key = |entry: &&Value| entry["Command"][1] == key.as_str();
        let entry = entries.iter().find(of_key).unwrap_or_else(|| panic!("no {key} in {shown}"));
        assert!(entry["QueueUs"].is_u64() && entry["ExecutionUs"].is_u64(), "{entry}");
    }
    // What was executed where the client was knows when the reply had left.
    let ping = entries.iter().find(|entry| entry["Command"][0] == "ping").expect("PING");
    assert!(ping["FlushUs"].is_u64(), "{ping}");
    let nodes: BTreeSet<&str> = entries.iter().filter_map(|entry| entry["Node"].as_str()).collect();
    assert_eq!(nodes.len(), 2, "{shown}");
    machine.dkv("store slowlog local --count 3").ok().says(&["QueueUs", "ExecutionUs", "FlushUs"]);
    machine.dkv("store slowlog local --reset").ok().says(&["node2", "Cleared"]);
    assert_eq!(machine.json("store slowlog local"), Value::Array(Vec::new()));
}

#[test]
fn top_draws_in_place_on_a_terminal_and_writes_lines_elsewhere() {
    let machine = Network::alone();
    machine.dkv("up --nodes 2").ok();
    let lines = machine.dkv("top local --count 2 --interval-sec 1").ok().out;
    assert!(!lines.contains('\x1b'), "{lines}");
    assert_eq!(lines.matches("Store: local").count(), 2, "{lines}");

    let mut top = Terminal::new(&machine, "dkv", &["top", "local"], 24, 100);
    let both = |screen: &str| screen.contains("\nnode1") && screen.contains("\nnode2");
    let first = top.shows("the first picture", both);
    let updated = |screen: &str| screen.lines().next().map(str::to_owned);
    let second =
        top.shows("the next picture", |screen| both(screen) && updated(screen) != updated(&first));
    assert_eq!(second.lines().count(), first.lines().count(), "{first}\n---\n{second}");
    assert_eq!(second.matches("Store: local").count(), 1, "{second}");
    let raw = top.raw();
    assert!(raw.contains("\x1b[?1049h") && !raw.contains('\n'), "{raw:?}");

    top.press("\x1b[C");
    top.shows("sorted by the first column", |screen| screen.contains("Getv"));
    top.press("r");
    top.shows("the other way round", |screen| screen.contains("Get^"));
    top.press("j");
    until("a node is picked", || top.raw().contains("\x1b[7m"));
    top.press("\r");
    top.shows("that node alone", |screen| {
        screen.contains("reads of keys a second")
            && screen.contains("node1") != screen.contains("node2")
    });
    top.press("?");
    top.shows("the help", |screen| screen.contains("sort by another column"));
    top.press("q");
    assert_eq!(top.ends(), 0);
    assert!(top.raw().contains("\x1b[?1049l") && top.raw().contains("\x1b[?25h"));

    let mut narrow = Terminal::new(&machine, "dkv", &["top", "local"], 40, 20);
    narrow.shows("both nodes as cards", |screen| {
        screen.contains("node1 Running") && screen.contains("node2 Running")
    });
    assert!(narrow.widest() <= 20, "{}:\n{}", narrow.widest(), narrow.screen());
    narrow.press("q");
    assert_eq!(narrow.ends(), 0);
}
