//! `dkv kv`: keys and values, for people and scripts. Bare values by default; `-o table` and `-o json` give objects with
//! the fields of the original's item cmdlets.

mod connection;
mod expiry;
mod items;
mod scan;

pub(crate) use items::bytes_value;

use crate::amounts;
use crate::clustron::Spelling;
use crate::commands::counter;
use crate::failure::Failure;
use crate::output::Format;
use crate::store_link::LinkArgs;
use std::path::PathBuf;

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shared {
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// Objects instead of bare values
    #[arg(short = 'o', long, env = "DKV_OUTPUT", value_enum)]
    pub(crate) output: Option<Format>,
}

/// The subcommands of `dkv kv`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The value of a key; exit code 1 when there is none (with -o, the field Exists says it and the code is 0)
    #[command(after_help = "\
Examples:
  dkv kv get greeting
  dkv kv get greeting -o json
  dkv kv get logo --no-newline > logo.png
  dkv kv get greeting --endpoint 127.0.0.1:7862
  dkv Get-DkvItem greeting")]
    Get {
        /// The key
        key: String,
        /// Nothing after the value: its bytes as they are
        #[arg(short, long, env = "DKV_NO_NEWLINE", conflicts_with = "output",
            value_parser = clap::builder::FalseyValueParser::new())]
        no_newline: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// The values of several keys
    #[command(after_help = "\
Examples:
  dkv kv mget a b c
  dkv Get-DkvItems -Keys a,b,c")]
    Mget {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Sets a key
    #[command(after_help = "\
Examples:
  dkv kv set greeting hello
  dkv kv set session:7 open --ttl 30m
  dkv kv set logo --value-file logo.png
  dkv Set-DkvItem greeting hello -ExpireAfterSec 60")]
    Set(items::SetArgs),
    /// Sets several keys; each is set atomically, all together are not
    #[command(after_help = "\
Examples:
  dkv kv mset a 1 b 2
  dkv Set-DkvItems -Items a=1,b=2")]
    Mset {
        /// Keys and values in turn
        #[arg(required = true, num_args = 2.., allow_negative_numbers = true, value_names = ["KEY", "VALUE"])]
        pairs: Vec<String>,
        /// Say what would be done and do nothing
        #[arg(long, env = "DKV_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
        dry_run: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Removes keys; prints how many there were
    #[command(after_help = "\
Examples:
  dkv kv del greeting
  dkv kv del a b c
  dkv Remove-DkvItem greeting")]
    Del {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Whether keys exist: True or False for each
    #[command(after_help = "\
Examples:
  dkv kv exists greeting
  dkv Test-DkvItem greeting -Detailed")]
    Exists {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        /// Objects instead of True or False
        #[arg(long, env = "DKV_DETAILED", value_parser = clap::builder::FalseyValueParser::new())]
        detailed: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// The keys of the store, one a line; a key that is written meanwhile may come twice
    #[command(after_help = "\
Examples:
  dkv kv scan
  dkv kv scan --prefix user: --limit 100
  dkv kv scan --match 'user:*:name' -o json")]
    Scan(scan::Args),
    /// Seconds that a key lives on: -1 for ever, -2 there is no such key
    #[command(after_help = "Example:\n  dkv kv ttl session:7")]
    Ttl {
        /// The key
        key: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Lets a key expire after a time
    #[command(after_help = "\
Examples:
  dkv kv expire session:7 90
  dkv kv expire session:7 1h30m
  dkv Set-DkvItemExpiration session:7 00:05:00")]
    Expire {
        /// The key
        key: String,
        /// Time to live: seconds, or as 90s, 5m, 1h30m, 00:01:30
        #[arg(value_parser = amounts::duration_ms, value_name = "TIME")]
        time: u64,
        #[command(flatten)]
        shared: Shared,
    },
    /// Lets a key live for ever
    #[command(after_help = "Example:\n  dkv kv persist session:7")]
    Persist {
        /// The key
        key: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Writes the remaining time to live of a key anew, so that its version grows
    #[command(after_help = "\
Examples:
  dkv kv refresh session:7
  dkv Refresh-DkvItem session:7")]
    Refresh {
        /// The key
        key: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// What is known of a key beside its value: version, time to live, type, size
    #[command(after_help = "\
Examples:
  dkv kv metadata greeting
  dkv Get-DkvItemMetadata greeting")]
    Metadata {
        /// The key
        key: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Adds to a counter and prints its new value
    #[command(after_help = "Examples:\n  dkv kv incr visits\n  dkv kv incr visits 10")]
    Incr(counter::StepArgs),
    /// Takes from a counter and prints its new value
    #[command(after_help = "Examples:\n  dkv kv decr stock\n  dkv kv decr stock 3")]
    Decr(counter::StepArgs),
    /// Remembers a store and its nodes for the commands that follow
    #[command(after_help = "\
Examples:
  dkv kv connect TestStore 127.0.0.1:7861 127.0.0.1:7862
  dkv Connect-DkvStore -StoreName TestStore -Endpoints 127.0.0.1:7861,127.0.0.1:7862")]
    Connect(connection::ConnectArgs),
    /// Forgets it
    #[command(after_help = "Examples:\n  dkv kv disconnect\n  dkv Disconnect-DkvStore")]
    Disconnect {
        /// See [`Format`].
        #[arg(short = 'o', long, env = "DKV_OUTPUT", value_enum, default_value = "table")]
        output: Format,
    },
    /// Shows it, without asking anybody
    #[command(after_help = "Examples:\n  dkv kv connection\n  dkv Get-DkvConnection")]
    Connection {
        /// See [`Format`].
        #[arg(short = 'o', long, env = "DKV_OUTPUT", value_enum, default_value = "table")]
        output: Format,
    },
    /// Whether the store answers, and how fast
    #[command(after_help = "\
Examples:
  dkv kv ping
  dkv kv ping --endpoint 127.0.0.1:7861
  dkv Test-DkvConnection TestStore 127.0.0.1:7861")]
    Ping {
        #[command(flatten)]
        shared: Shared,
    },
}

/// The largest file or standard input that is taken as a value.
const VALUE_BYTES_MAX: u64 = dkv_protocol::limits::VALUE_BYTES_MAX as u64;

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::Get { key, no_newline, shared } => items::get(key, *no_newline, shared, spelling),
        Command::Mget { keys, shared } => items::mget(keys, shared, spelling),
        Command::Set(args) => items::set(args, spelling),
        Command::Mset { pairs, dry_run, shared } => items::mset(pairs, *dry_run, shared, spelling),
        Command::Del { keys, shared } => items::del(keys, shared, spelling),
        Command::Exists { keys, detailed, shared } => {
            items::exists(keys, *detailed, shared, spelling)
        }
        Command::Scan(args) => scan::run(args, spelling),
        Command::Ttl { key, shared } => expiry::ttl(key, shared, spelling),
        Command::Expire { key, time, shared } => expiry::expire(key, *time, shared, spelling),
        Command::Persist { key, shared } => expiry::persist(key, shared, spelling),
        Command::Refresh { key, shared } => expiry::refresh(key, shared, spelling),
        Command::Metadata { key, shared } => items::metadata(key, shared, spelling),
        Command::Incr(args) => counter::step(args, 1, spelling),
        Command::Decr(args) => counter::step(args, -1, spelling),
        Command::Connect(args) => connection::connect(args, spelling),
        Command::Disconnect { output } => connection::disconnect(*output),
        Command::Connection { output } => connection::show(*output),
        Command::Ping { shared } => connection::ping(shared, spelling),
    }
}

/// The value of `kv set`: an argument, a file, or standard input.
fn read_value(value: Option<&str>, file: Option<&PathBuf>) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let too_large = || {
        Failure::usage(
            format!("a value has {VALUE_BYTES_MAX} bytes at most"),
            "split it over several keys",
        )
    };
    let mut bytes = Vec::new();
    let read = match (value, file) {
        (Some(value), _) => return Ok(value.as_bytes().to_vec()),
        (None, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
            file.take(VALUE_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::file(path, &error))
        }
        (None, None) => std::io::stdin()
            .lock()
            .take(VALUE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("standard input: {error}"), "")),
    };
    if read? as u64 > VALUE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}
