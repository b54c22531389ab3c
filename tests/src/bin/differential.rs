//! Compares DKV with redis-server command by command: `differential [--commands N] [--seed N] [--nodes 1|2] [--resp 2|3]`.
//! Without a choice of nodes and protocol each combination gets a quarter of the commands. The `dkv` to be tried is the one
//! beside this program, or the one that DKV_TEST_BINARY names.

use dkv_tests::differential::run;
use dkv_tests::machine::dkv;
use std::process::ExitCode;

const USAGE: &str = "differential [--commands 100000] [--seed 1] [--nodes 1|2] [--resp 2|3]";

/// The number behind one of the options.
fn number(args: &[String], at: usize) -> Result<u64, String> {
    let name = &args[at];
    let text = args.get(at + 1).ok_or_else(|| format!("{name} needs a number"))?;
    text.parse().map_err(|_| format!("{name} needs a number, not {text:?}"))
}

/// What was asked for: commands, seed, numbers of nodes, versions of the protocol.
fn asked(args: &[String]) -> Result<(u64, u64, Vec<u64>, Vec<u64>), String> {
    let (mut commands, mut seed, mut nodes, mut protocols) = (100_000, 1, vec![1, 2], vec![2, 3]);
    for at in (0..args.len()).step_by(2) {
        match args[at].as_str() {
            "--commands" => commands = number(args, at)?,
            "--seed" => seed = number(args, at)?,
            "--nodes" => nodes = vec![number(args, at)?],
            "--resp" => protocols = vec![number(args, at)?],
            other => return Err(format!("{other:?} is not known")),
        }
    }
    match (&nodes[..], &protocols[..]) {
        ([1 | 2, ..], [2 | 3, ..]) => Ok((commands, seed, nodes, protocols)),
        _ => Err("there are 1 or 2 nodes, and versions 2 and 3 of the protocol".to_string()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (commands, seed, nodes, protocols) = match asked(&args) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let each = commands.div_ceil((nodes.len() * protocols.len()) as u64);
    let (mut compared, mut different) = (0, 0);
    for nodes in &nodes {
        for protocol in &protocols {
            let found = run(&dkv(), *nodes as usize, seed, each, *protocol == 3);
            println!(
                "{nodes} node(s), RESP{protocol}: {} commands, {} differ as they may, {} otherwise",
                found.commands,
                found.allowed,
                found.different.len()
            );
            found.different.iter().for_each(|one| println!("{one}"));
            compared += found.commands;
            different += found.different.len();
        }
    }
    println!("{compared} commands compared, {different} differences that nobody allowed");
    if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
