//! `dkv-bench`: the programs that `benches/compare` runs beside the servers.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    let done = match Cli::parse().command {
        Command::Echo { listen } => echo(listen),
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

/// Ten thousand connections need as many descriptors; the usual limit is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // When it cannot be raised, opening the connections says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
