//! `store slowlog`: the commands that took long on the nodes of a store, with what they waited for.

use super::each_node::{LoginArgs, Nodes};
use super::{Shared, show};
use crate::clustron::Spelling;
use crate::commands::kv::bytes_value;
use crate::failure::Failure;
use crate::output::{self, Format};
use dkv_client::Value as Reply;
use serde_json::{Value, json};
use std::time::Duration;

const HEAD: [&str; 9] =
    ["Time", "Node", "Id", "QueueUs", "ExecutionUs", "FlushUs", "Client", "ClientName", "Command"];

/// What is wanted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv store slowlog TestStore
  dkv store slowlog TestStore --count 100 -o json
  dkv store slowlog TestStore --reset

A command is logged whose execution alone takes longer than CONFIG SET slowlog-log-slower-than says (10000 microseconds), on the
node that executed it. QueueUs is what it waited for its turn before; FlushUs is from its end until the kernel had taken the
reply, what the copies took included. FlushUs is empty where another shard has the client, which Client names then.")]
pub(crate) struct Args {
    /// Name of the store
    name: String,
    /// Most entries to show, the latest first
    #[arg(long, env = "DKV_SLOWLOG_COUNT", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Clear the log of every node
    #[arg(long, env = "DKV_SLOWLOG_RESET", value_parser = clap::builder::FalseyValueParser::new())]
    reset: bool,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    shared: Shared,
}

/// Runs it.
pub(super) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let listing = show::ask(&args.shared, spelling)?;
    let store = show::find(&listing, &args.name)?;
    let timeout = Duration::from_secs(args.shared.reach.timeout_sec);
    let mut nodes = Nodes::connect(store, &args.login, timeout)?;
    if args.reset {
        let cleared = nodes.call(&["SLOWLOG", "RESET"])?;
        let rows: Vec<Vec<Value>> =
            cleared.iter().map(|(node, _)| vec![json!(node), json!("Cleared")]).collect();
        output::rows(args.shared.output.output, &["Node", "Result"], &rows);
        return Ok(nodes.exit_code());
    }
    let answers = nodes.call(&["SLOWLOG", "GET", &args.count.to_string(), "WITHTIMES"])?;
    let mut entries: Vec<Entry> = Vec::new();
    for (node, reply) in answers {
        let found = reply.into_elements().unwrap_or_default();
        entries.extend(found.into_iter().filter_map(|entry| Entry::parse(&node, entry)));
    }
    entries.sort_by(|a, b| (b.unix_s, &b.node, b.id).cmp(&(a.unix_s, &a.node, a.id)));
    entries.truncate(args.count as usize);
    let format = args.shared.output.output;
    let rows: Vec<Vec<Value>> = entries.iter().map(|entry| entry.row(format)).collect();
    output::rows(format, &HEAD, &rows);
    Ok(nodes.exit_code())
}

#[derive(Debug)]
struct Entry {
    node: String,
    id: i64,
    unix_s: i64,
    times_us: [Option<i64>; 3],
    client: [Vec<u8>; 2],
    command: Vec<Vec<u8>>,
}

impl Entry {
    fn parse(node: &str, reply: Reply) -> Option<Self> {
        let mut fields = reply.into_elements()?.into_iter();
        let mut next = || fields.next();
        let number = |value: Option<Reply>| match value {
            Some(Reply::Integer(n)) => Some(n),
            _ => None,
        };
        let (id, unix_s, execution) = (number(next())?, number(next())?, number(next()));
        let command = next()?.into_elements()?.into_iter().filter_map(Reply::into_bytes).collect();
        let client = [next()?.into_bytes()?, next()?.into_bytes()?];
        // A node of an earlier version does not know.
        let known = |us: Option<i64>| us.filter(|us| *us >= 0);
        let times_us = [known(number(next())), execution, known(number(next()))];
        Some(Self { node: node.to_owned(), id, unix_s, times_us, client, command })
    }

    fn row(&self, format: Format) -> Vec<Value> {
        let [queue, execution, flush] = self.times_us;
        let [client, client_name] = &self.client;
        let words: Vec<Value> = self.command.iter().map(|word| bytes_value(word)).collect();
        let command = match format {
            Format::Json => Value::Array(words),
            Format::Table => {
                let words: Vec<String> = words.iter().map(output::cell_text).collect();
                json!(words.join(" "))
            }
        };
        vec![
            json!(time_text(self.unix_s)),
            json!(self.node),
            json!(self.id),
            json!(queue),
            json!(execution),
            json!(flush),
            bytes_value(client),
            bytes_value(client_name),
            command,
        ]
    }
}

/// `2026-11-24 02:10:00Z`, by the civil calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn time_text(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_700_000_000, "2023-11-14 22:13:20Z"),
            (4_102_444_799, "2099-12-31 23:59:59Z"),
        ] {
            assert_eq!(time_text(unix_s), text);
        }
    }

    #[test]
    fn an_entry_of_six_fields_has_no_times_beside_its_own() {
        let text = |text: &str| Reply::Bulk(text.into());
        let six = || {
            let command = Reply::Array(vec![text("SET"), text("a"), Reply::Bulk(vec![0xff])]);
            let numbers = [7, 1_700_000_000, 12_000].map(Reply::Integer);
            numbers.into_iter().chain([command, text("127.0.0.1:5"), text("me")])
        };
        let entry = Entry::parse("node1", Reply::Array(six().collect())).unwrap();
        assert_eq!(entry.times_us, [None, Some(12_000), None]);
        let eight = six().chain([Reply::Integer(30), Reply::Integer(-1)]);
        let entry = Entry::parse("node1", Reply::Array(eight.collect())).unwrap();
        assert_eq!(entry.times_us, [Some(30), Some(12_000), None]);
        assert_eq!(entry.row(Format::Table)[8], json!("SET a 0xff"));
        assert_eq!(entry.row(Format::Json)[8], json!(["SET", "a", "0xff"]));
    }
}
