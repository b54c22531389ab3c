//! `dkv-bench`: the programs that `benches/compare` runs beside the servers. What they find is printed as JSON.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dkv_bench::load::{Load, Outcome, Test};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Programs that `benches/compare` runs beside the servers.
#[derive(Parser)]
#[command(name = "dkv-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves canned replies: the echo floor
    Echo {
        /// Where
        #[arg(long, default_value = "127.0.0.1:6390")]
        listen: SocketAddr,
    },
    /// Asks a server in a closed loop
    Load(LoadArgs),
    /// Starts a server and waits for its first PONG
    Start(StartArgs),
}

#[derive(Args)]
struct LoadArgs {
    /// The server
    #[arg(long)]
    target: SocketAddr,
    /// What is asked
    #[arg(long, value_enum)]
    test: TestName,
    /// Connections
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests that a connection sends at a time
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Requests to measure
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// First key
    #[arg(long, default_value_t = 0)]
    first_key: u64,
    /// Number of keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Length of a value
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Keys of one MGET
    #[arg(long, default_value_t = 100)]
    mget_keys: usize,
    /// Process whose CPU time is counted; may be repeated
    #[arg(long)]
    pid: Vec<u32>,
    /// Seed of the order of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum TestName {
    Get,
    Set,
    Fill,
    Mget,
}

#[derive(Args)]
struct StartArgs {
    /// Where it will answer
    #[arg(long)]
    target: SocketAddr,
    /// File that it gets on its standard input
    #[arg(long)]
    input: Option<PathBuf>,
    /// Its CPU
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU of the one who asks
    #[arg(long, default_value_t = 1)]
    own_cpu: usize,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    let done = match Cli::parse().command {
        Command::Echo { listen } => echo(listen),
        Command::Load(arguments) => load(&arguments),
        Command::Start(arguments) => start(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dkv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn echo(listen: SocketAddr) -> Result<(), String> {
    let listener =
        dkv_io::sockets::bind_listener(listen, BACKLOG).map_err(|error| error.to_string())?;
    dkv_bench::canned::serve(listener)
}

fn load(arguments: &LoadArgs) -> Result<(), String> {
    let load = Load {
        target: arguments.target,
        test: match arguments.test {
            TestName::Get => Test::Get,
            TestName::Set => Test::Set,
            TestName::Fill => Test::Fill,
            TestName::Mget => Test::Mget(arguments.mget_keys),
        },
        connections: arguments.connections,
        pipeline: arguments.pipeline,
        operations: arguments.operations,
        keys: arguments.first_key..arguments.first_key + arguments.keys,
        value_bytes: arguments.value_bytes,
        pids: arguments.pid.clone(),
        seed: arguments.seed,
    };
    let Outcome { operations, elapsed, latency, misses, server_cpu_ns, client_cpu_ns } =
        load.run()?;
    let count = operations.max(1) as f64;
    let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let found = json!({
        "operations": operations,
        "seconds": elapsed.as_secs_f64(),
        "operations_per_s": count / elapsed.as_secs_f64(),
        "misses": misses,
        "server_ns": server_cpu_ns as f64 / count,
        "client_ns": client_cpu_ns as f64 / count,
        "p50_us": us(0.5),
        "p99_us": us(0.99),
        "p999_us": us(0.999),
        "max_us": latency.max() as f64 / 1e3,
    });
    println!("{found}");
    Ok(())
}

fn start(arguments: &StartArgs) -> Result<(), String> {
    let input = match &arguments.input {
        Some(path) => {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Vec::new(),
    };
    let cpus = (arguments.server_cpu, arguments.own_cpu);
    let took = dkv_bench::startup::first_pong(&arguments.command, &input, arguments.target, cpus)?;
    println!("{}", json!({ "ms": took.as_secs_f64() * 1e3 }));
    Ok(())
}

/// Ten thousand connections need as many descriptors; the usual limit is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // When it cannot be raised, opening the connections says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
