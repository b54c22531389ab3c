//! Every command that the README shows is run as it stands there, and what it shows as the answer is the answer.

use dkv_tests::machine::{Machine, Network, until, workspace};

/// The fenced blocks of a kind, each as its commands with the output shown under them.
fn blocks(kind: &str) -> Vec<Vec<(String, String)>> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let mut blocks = Vec::new();
    let mut open: Option<Vec<(String, String)>> = None;
    for line in readme.lines() {
        match &mut open {
            None if line == format!("```{kind}") => open = Some(Vec::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => match line.split_once("$ ") {
                Some((prompt, command)) if prompt.len() <= 1 => {
                    block.push((format!("{prompt}{command}"), String::new()));
                }
                _ => {
                    if let Some((_, output)) = block.last_mut() {
                        output.push_str(line);
                        output.push('\n');
                    }
                }
            },
        }
    }
    blocks
}

fn run(machine: &Machine, command: &str, shown: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = machine.run(words[0], &words[1..]).ok();
    if !shown.is_empty() {
        assert_eq!(output.out, shown, "{command}");
    }
}

#[test]
fn the_first_block_works_after_up() {
    let machine = Network::alone();
    machine.dkv("up").ok();
    let block = &blocks("console")[0];
    assert!(block.len() >= 4, "{block:?}");
    for (command, shown) in block {
        run(&machine, command, shown);
    }
    assert!(machine.pids("node").is_empty() && machine.pids("agent").is_empty());
}

#[test]
fn the_block_of_one_machine_works() {
    let machine = Network::alone();
    let block = &blocks("console")[1];
    assert_eq!(block[0].0, "dkv agent");
    let _manager = machine.manager(&[]);
    for (command, shown) in &block[1..] {
        run(&machine, command, shown);
    }
    until("the store is whole", || {
        machine.redis("127.0.0.1", 7862, &["cluster", "info"]).starts_with("cluster_state:ok")
    });
}

#[test]
fn the_block_of_copies_works() {
    let machine = Network::alone();
    let _manager = machine.manager(&[]);
    machine.dkv("connect -m 127.0.0.1:7801").ok();
    let block = &blocks("console")[2];
    assert!(block.iter().any(|(command, _)| command.contains("--replicas 1")), "{block:?}");
    for (command, shown) in block {
        run(&machine, command, shown);
    }
    let shown = machine.json("store show Ledger");
    assert_eq!(shown["copies"]["offline_ranges"], 0);
    assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_block_of_several_machines_works() {
    let block = blocks("text")
        .into_iter()
        .find(|b| b.iter().any(|(c, _)| c.starts_with("Adkv")))
        .expect("the block");
    let network = Network::of(2);
    let token = "5".repeat(64);
    for machine in &network.machines {
        machine.file("group.token", &token);
        machine.file("orders.password", "a secret\n");
    }
    let mut managers = Vec::new();
    for (line, _) in &block {
        let line = line.replace("10.0.0.", "10.77.0.");
        let (machine, command) = line.split_at(1);
        let machine = &network.machines[usize::from(machine == "B")];
        match command.strip_prefix("dkv agent ") {
            Some(rest) => {
                managers.push(machine.manager(&rest.split_whitespace().collect::<Vec<_>>()));
            }
            None => run(machine, command, ""),
        }
    }
    assert_eq!(managers.len(), 2);
    let a = &network.machines[0];
    until("the store is whole", || {
        a.run("redis-cli", &["-a", "a secret", "-p", "7861", "cluster", "info"])
            .out
            .starts_with("cluster_state:ok")
    });
}

#[test]
fn the_two_commands_are_what_the_scripts_are() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let sh: Vec<&str> = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .map(str::trim)
        .collect();
    assert_eq!(sh, ["cargo run --release -- up", "scripts/ci.sh"]);
    let ci = std::fs::read_to_string(workspace().join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("scripts/ci.sh"));
    let help = Network::alone().dkv("--help").ok();
    for word in ["up", "down", "agent", "connect", "store", "kv", "doctor", "completions"] {
        assert!(
            help.out.lines().any(|l| l.trim_start().starts_with(word)),
            "{word} is not in --help"
        );
    }
}
