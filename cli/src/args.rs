//! The command line as clap sees it: the tree of commands. Each command's own flags stand in its own file.

use crate::commands::{
    agent, bench, completions, connect, context, counter, debug, doctor, down, generate, kv,
    manager, store, top, up,
};
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A distributed in-memory key-value store
#[derive(Debug, Parser)]
#[command(
    name = "dkv",
    version,
    styles = STYLES,
    disable_help_subcommand = true,
    max_term_width = 120,
    after_help = "\
Examples:
  dkv up
  dkv kv set greeting hello
  dkv kv get greeting
  dkv store list

The Clustron spelling works too; -? after a cmdlet explains it:
  dkv New-DkvStore -Name TestStore -InstancePrefix node -InstanceCount 2 -ClustronPort 7811 -ClientPort 7861

Every flag can be set by the environment variable shown beside it.
Exit codes: 0 ok, 1 failed, 2 usage, 3 not connected, 4 partly done, 5 timed out, 130 interrupted."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A working store on this machine in one command
    Up(up::Args),
    /// Stops what `dkv up` started
    Down(down::Args),
    /// Remembers which managers to talk to
    Connect(connect::Args),
    /// Creates, starts, stops and shows stores
    #[command(subcommand, after_help = "Example:\n  dkv store show local")]
    Store(store::Command),
    /// Shows, adds and removes the managers of the group
    #[command(subcommand, after_help = "Example:\n  dkv manager status")]
    Manager(manager::Command),
    /// Reads and writes keys
    #[command(subcommand, after_help = "Example:\n  dkv kv get greeting")]
    Kv(kv::Command),
    /// Reads and writes counters
    #[command(subcommand, after_help = "Example:\n  dkv counter incr visits")]
    Counter(counter::Command),
    /// What every node of a store does, live
    Top(top::Args),
    /// The groups of managers that `dkv connect` and `dkv up` remember
    #[command(subcommand, after_help = "Example:\n  dkv context list")]
    Context(context::Command),
    /// Load on a store or any Redis-compatible server, and how long each request took
    Bench(Box<bench::Args>),
    /// What on this host stops io_uring or costs latency, and the fix for each
    Doctor(doctor::Args),
    /// What somebody elsewhere needs to find the cause of something
    #[command(subcommand, after_help = "Example:\n  dkv debug bundle")]
    Debug(debug::Command),
    /// Configurations for Prometheus and Grafana, on standard output
    #[command(subcommand, after_help = "Example:\n  dkv generate grafana-dashboard")]
    Generate(generate::Command),
    /// Shell completions, on standard output
    Completions(completions::Args),
    /// The manager of this machine, in the foreground
    Agent(agent::Args),
    /// A node; started by a manager, with its launch document on standard input
    #[command(hide = true)]
    Node,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Every command below `command`, itself included, with the words that lead to it.
    fn each(command: &clap::Command, words: &str, visit: &mut impl FnMut(&clap::Command, &str)) {
        visit(command, words);
        for sub in command.get_subcommands() {
            each(sub, &format!("{words} {}", sub.get_name()), visit);
        }
    }

    fn split(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(n, part)| -> Vec<String> {
            if n % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        });
        words.collect()
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_and_every_example_parses() {
        let mut examples = 0;
        each(&Cli::command(), "dkv", &mut |command, words| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> =
                help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(!lines.is_empty() || command.is_hide_set(), "{words} has no example");
            for line in lines {
                examples += 1;
                // An example may prepare its input: what follows the last pipe or assignment is ours.
                let ours = &line[line.find("dkv ").unwrap_or_else(|| panic!("{line}"))..];
                let ours = ours.split(" > ").next().unwrap_or(ours);
                let mut arguments = split(ours);
                if crate::clustron::is_cmdlet(&arguments[1]) {
                    match crate::clustron::translate(&arguments[1..]) {
                        Ok(crate::clustron::Translated::Command(native)) => {
                            arguments.splice(1.., native)
                        }
                        other => panic!("{line}: {other:?}"),
                    };
                }
                if let Err(error) = Cli::try_parse_from(&arguments) {
                    panic!("{line}: {error}");
                }
                let native = arguments.join(" ");
                assert!(
                    line.contains("Dkv") || native.starts_with(words),
                    "{line} is no example of {words}"
                );
            }
        });
        assert!(examples >= 30, "only {examples} examples were looked at");
    }

    #[test]
    fn the_loads_of_the_readme_parse() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(readme).expect("README.md");
        let (_, section) = readme.split_once("## Load and latency").expect("its section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let lines: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        assert!(lines.len() >= 6, "{lines:?}");
        for line in lines {
            let mut arguments = split(line.split(" > ").next().unwrap_or(line));
            if crate::clustron::is_cmdlet(&arguments[1]) {
                let translated = crate::clustron::translate(&arguments[1..]);
                let Ok(crate::clustron::Translated::Command(native)) = translated else {
                    panic!("{line}: {translated:?}")
                };
                arguments.splice(1.., native);
            }
            if let Err(error) = Cli::try_parse_from(&arguments) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        let mut flags = 0;
        each(&Cli::command(), "dkv", &mut |command, words| {
            for flag in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                if ["help", "version"].contains(&flag.get_id().as_str()) {
                    continue;
                }
                flags += 1;
                let variable =
                    flag.get_env().unwrap_or_else(|| panic!("{words} {flag} has no variable"));
                assert!(variable.to_string_lossy().starts_with("DKV_"), "{words} {flag}");
            }
        });
        assert!(flags >= 60, "only {flags} flags were looked at");
    }

    #[test]
    fn flags_of_features_to_come_do_not_exist() {
        let lines = [
            "dkv store create S --durability sync",
            "dkv store create S --replicas 9",
            "dkv store create S --ack some",
            "dkv store create S --replicas 1 --min-insync 0",
            "dkv store create S --instance-count 0",
            "dkv store create S --client-port 0",
            "dkv store create S --client-port 70000",
            "dkv store create S --max-memory 4gigs",
            "dkv store create S --password-file f --no-protected-mode",
            "dkv store create",
            "dkv store failover S",
            "dkv store remove-instance S",
            "dkv lease",
            "dkv lock",
            "dkv watch",
            "dkv up --nodes 0",
            "dkv kv expire a 0",
            "dkv counter incr c 0",
        ];
        for line in lines {
            assert!(Cli::try_parse_from(split(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn other_spellings_of_flags_are_known() {
        let lines = [
            "dkv store create S --cluster-port 7811",
            "dkv kv set a -- -5",
            "dkv kv set a -5",
            "dkv kv get -o json a",
            "dkv kv exists a b --store S",
            "dkv kv mset a -1 b 2 -o json",
            "dkv kv mset a -1 --dry-run b 2",
            "dkv kv mset -- a -x b --y",
            "dkv connect -m a -m b,c",
            "dkv counter set c -9",
        ];
        for line in lines {
            if let Err(error) = Cli::try_parse_from(split(line)) {
                panic!("{line}: {error}");
            }
        }
    }
}
