//! `dkv counter`: counters, with the fields of the original's counter cmdlets.

use super::kv::Shared;
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output;
use crate::store_link::{client_failure, server_failure};
use dkv_client::{ClientError, Value as Reply};
use serde_json::{Value, json};

/// The subcommands of `dkv counter`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The value of a counter; exit code 1 when there is none
    #[command(after_help = "Examples:\n  dkv counter get visits\n  dkv Get-DkvCounter visits")]
    Get {
        /// The counter
        key: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Sets a counter, new or not
    #[command(
        after_help = "Examples:\n  dkv counter set visits 100\n  dkv Set-DkvCounter -Key visits -Value 100"
    )]
    Set {
        /// The counter
        key: String,
        /// Its value
        #[arg(allow_negative_numbers = true)]
        value: i64,
        #[command(flatten)]
        shared: Shared,
    },
    /// Adds to a counter, which begins at 0
    #[command(after_help = "\
Examples:
  dkv counter incr visits
  dkv counter incr visits 10
  dkv Increment-DkvCounter -Key visits -Delta 10")]
    Incr(StepArgs),
    /// Takes from a counter, which begins at 0
    #[command(after_help = "\
Examples:
  dkv counter decr stock
  dkv counter decr stock 3
  dkv Decrement-DkvCounter -Key stock -Delta 3")]
    Decr(StepArgs),
}

/// The flags of a step up or down.
#[derive(Debug, clap::Args)]
pub(crate) struct StepArgs {
    /// The counter
    key: String,
    /// By how much, 1 or more
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    delta: i64,
    #[command(flatten)]
    shared: Shared,
}

/// Fields of a counter.
const COUNTER: [&str; 5] = ["StoreName", "Key", "Value", "Success", "Error"];
/// Fields of a counter that was changed.
const STEPPED: [&str; 6] = ["StoreName", "Key", "Value", "Delta", "Success", "Error"];

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::Get { key, shared } => get(key, shared, spelling),
        Command::Set { key, value, shared } => set(key, *value, shared, spelling),
        Command::Incr(args) => step(args, 1, spelling),
        Command::Decr(args) => step(args, -1, spelling),
    }
}

/// The number that a reply holds, or the error that it is.
fn number(reply: Result<Reply, ClientError>) -> Result<Result<i64, String>, Failure> {
    let wrong = || "InvalidInput: the value is not an integer".to_owned();
    match reply {
        Ok(Reply::Null) => Ok(Err("NotFound: there is no such counter".into())),
        Ok(Reply::Integer(value)) => Ok(Ok(value)),
        Ok(reply) => Ok(reply
            .as_bytes()
            .and_then(|b| std::str::from_utf8(b).ok()?.parse().ok())
            .ok_or_else(wrong)),
        Err(ClientError::Server(text)) => Ok(Err(text)),
        Err(error) => Err(client_failure(&error)),
    }
}

fn show(
    shared: &Shared,
    head: &[&str],
    mut row: Vec<Value>,
    value: &Result<i64, String>,
) -> Result<u8, Failure> {
    row.extend([json!(value.is_ok()), json!(value.as_ref().err())]);
    match (shared.output, value) {
        (Some(format), value) => {
            output::record(format, head, &row);
            Ok(u8::from(value.is_err()))
        }
        (None, Ok(value)) => {
            output::line(&value.to_string());
            Ok(0)
        }
        (None, Err(error)) => Err(server_failure(error)),
    }
}

fn get(key: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let value = number(link.client.call(&[b"GET", key.as_bytes()]))?;
    show(shared, &COUNTER, vec![json!(link.store), json!(key), json!(value.as_ref().ok())], &value)
}

fn set(key: &str, value: i64, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = shared.link.open(spelling)?;
    let text = value.to_string();
    let value = match link.client.call(&[b"SET", key.as_bytes(), text.as_bytes()]) {
        Ok(_) => Ok(value),
        Err(ClientError::Server(text)) => Err(text),
        Err(error) => return Err(client_failure(&error)),
    };
    show(shared, &COUNTER, vec![json!(link.store), json!(key), json!(value.as_ref().ok())], &value)
}

/// Adds `sign` times the delta.
pub(crate) fn step(args: &StepArgs, sign: i64, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = args.shared.link.open(spelling)?;
    let delta = args.delta * sign;
    let text = delta.to_string();
    let value = number(link.client.call(&[b"INCRBY", args.key.as_bytes(), text.as_bytes()]))?;
    let row = vec![json!(link.store), json!(args.key), json!(value.as_ref().ok()), json!(delta)];
    show(&args.shared, &STEPPED, row, &value)
}
