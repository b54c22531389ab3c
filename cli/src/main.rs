//! `dkv`: the command line, and the host of the two services that share its binary, `dkv agent` and `dkv node`.
//!
//! It decides nothing about stores: it finds the managers or nodes to ask, asks, and shows the answer. What several
//! managers must do together is `dkv_agent::coordinate`.
#![forbid(unsafe_code)]

mod amounts;
mod args;
mod clustron;
mod commands;
mod contexts;
mod failure;
mod interrupt;
mod local_manager;
mod output;
mod reach;
mod store_link;
mod targets;

use clap::{CommandFactory, Parser};
use clustron::{Spelling, Translated};
use failure::Failure;
use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let mut spelling = Spelling::Native;
    let cmdlet =
        arguments.get(1).and_then(|argument| argument.to_str()).is_some_and(clustron::is_cmdlet);
    if cmdlet {
        spelling = Spelling::Clustron;
        let typed: Vec<String> =
            arguments.drain(1..).map(|a| a.to_string_lossy().into_owned()).collect();
        match clustron::translate(&typed) {
            Ok(Translated::Command(native)) => {
                arguments.extend(native.into_iter().map(OsString::from));
            }
            Ok(Translated::Help(text)) => {
                output::line(&text);
                return ExitCode::SUCCESS;
            }
            Err(failure) => return report(&failure, false),
        }
    }
    let cli = match args::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Clap knows whether it is help or a mistake, and where each goes; 2 is its code of a mistake and ours.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let json = wants_json(&arguments);
    match run(cli.command, spelling) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, json),
    }
}

/// Runs one command. `Ok` is its exit code.
fn run(command: args::Command, spelling: Spelling) -> Result<u8, Failure> {
    use args::Command;
    // The services handle signals in their own way.
    if !matches!(command, Command::Agent(_) | Command::Node) {
        interrupt::install();
    }
    match command {
        Command::Up(args) => commands::up::run(&args),
        Command::Down(args) => commands::down::run(&args),
        Command::Connect(args) => commands::connect::run(&args, spelling),
        Command::Store(command) => commands::store::run(&command, spelling),
        Command::Manager(command) => commands::manager::run(&command, spelling),
        Command::Kv(command) => commands::kv::run(&command, spelling),
        Command::Counter(command) => commands::counter::run(&command, spelling),
        Command::Top(args) => commands::top::run(&args, spelling),
        Command::Context(command) => commands::context::run(&command),
        Command::Bench(args) => commands::bench::run(&args, spelling),
        Command::Debug(command) => commands::debug::run(&command, spelling),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Generate(command) => commands::generate::run(&command, spelling),
        Command::Completions(args) => {
            commands::completions::run(&args, &mut args::Cli::command());
            Ok(0)
        }
        Command::Agent(args) => commands::agent::run(&args),
        Command::Node => Ok(dkv_node::run()),
    }
}

/// Whether errors are for a program too.
fn wants_json(arguments: &[OsString]) -> bool {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let by_flag =
        words.iter().any(|word| ["-ojson", "-o=json", "--output=json"].contains(&word.as_ref()))
            || words
                .windows(2)
                .any(|two| ["-o", "--output"].contains(&two[0].as_ref()) && two[1] == "json");
    let other = words.iter().any(|word| word.starts_with("-o") || word.starts_with("--output"));
    by_flag || (!other && std::env::var("DKV_OUTPUT").is_ok_and(|format| format == "json"))
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    let text = if json { failure.document() } else { failure.to_string() };
    output::note(&text);
    ExitCode::from(failure.exit as u8)
}
