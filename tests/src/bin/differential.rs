//! Compares DKV with redis-server command by command: `differential [--commands N] [--seed N] [--nodes 1|2] [--resp 2|3]`.
//! Without a choice of nodes and protocol each combination gets a quarter of the commands. The `dkv` to be tried is the one
//! beside this program, or the one that DKV_TEST_BINARY names.

use dkv_tests::differential::run;
use dkv_tests::machine::dkv;
use std::process::ExitCode;

fn number(args: &[String], name: &str) -> Option<u64> {
    let at = args.iter().position(|arg| arg == name)?;
    let text = args.get(at + 1).unwrap_or_else(|| panic!("{name} needs a number"));
    Some(text.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {text:?}")))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let commands = number(&args, "--commands").unwrap_or(100_000);
    let seed = number(&args, "--seed").unwrap_or(1);
    let of = |name, all: [u64; 2]| number(&args, name).map_or(all.to_vec(), |one| vec![one]);
    let (nodes, protocols) = (of("--nodes", [1, 2]), of("--resp", [2, 3]));
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
