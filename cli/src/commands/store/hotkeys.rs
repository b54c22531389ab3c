//! `store hotkeys`: which keys of a store are used most, counted on all nodes for some seconds.

use super::each_node::{LoginArgs, Nodes};
use super::{Shared, show};
use crate::clustron::Spelling;
use crate::commands::kv::bytes_value;
use crate::failure::Failure;
use crate::output::{self, Format};
use dkv_client::Value as Reply;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

const HEAD: [&str; 6] = ["Key", "UsesPerSec", "SharePct", "WritesPct", "ErrorPerSec", "Nodes"];
/// The most keys that a node tells.
const KEYS_MAX: u32 = 512;
/// How much longer than this command the nodes count, in seconds: what was counted is asked for while they do.
const LONGER_S: u32 = 5;

/// What is wanted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv store hotkeys TestStore
  dkv store hotkeys TestStore --seconds 30 --count 50 -o json

The nodes count for as long as this command runs and a few seconds more, and not at other times. Of many commands they look at
some: the figures are estimates, too great by ErrorPerSec at most. A key that is used more often than one in some hundred
times is certainly found. Of a transaction the first key is counted.")]
pub(crate) struct Args {
    /// Name of the store
    name: String,
    /// Most keys to show
    #[arg(long, env = "DKV_HOTKEYS_COUNT", default_value_t = 10, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    count: u32,
    /// How long to count
    #[arg(long, env = "DKV_HOTKEYS_SECONDS", default_value_t = 5, value_name = "S",
        value_parser = clap::value_parser!(u32).range(1..=3000))]
    seconds: u32,
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
    nodes.call(&["DKV.HOTKEYS", "START", &(args.seconds + LONGER_S).to_string()])?;
    if args.shared.output.output == Format::Table && output::is_terminal() {
        output::note(&format!("counting for {} s", args.seconds));
    }
    let until = Instant::now() + Duration::from_secs(args.seconds.into());
    while Instant::now() < until {
        thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    let answers = nodes.call(&["DKV.HOTKEYS", "GET", &KEYS_MAX.to_string()])?;
    let mut all = Found::default();
    for (node, reply) in answers {
        all.add(&node, reply).ok_or_else(|| {
            Failure::failed(format!("{node} does not tell its keys as it should"), "dkv --version")
        })?;
    }
    output::rows(args.shared.output.output, &HEAD, &all.rows(args.count as usize));
    Ok(nodes.exit_code())
}

/// What all nodes together know.
#[derive(Debug, Default)]
struct Found {
    /// Uses of all keys a second.
    all: f64,
    keys: BTreeMap<Vec<u8>, Used>,
}

/// Uses a second of a key, and where.
#[derive(Debug, Default)]
struct Used {
    uses: f64,
    error: f64,
    writes: f64,
    nodes: Vec<String>,
}

impl Found {
    /// Adds what one node says: milliseconds, uses of all keys, and keys with their uses, error and writes.
    fn add(&mut self, node: &str, reply: Reply) -> Option<()> {
        let number = |value: Option<Reply>| match value {
            Some(Reply::Integer(n)) => Some(n as f64),
            _ => None,
        };
        let mut fields = reply.into_elements()?.into_iter();
        let seconds = number(fields.next())?.max(1.0) / 1000.0;
        self.all += number(fields.next())? / seconds;
        for one in fields.next()?.into_elements()? {
            let mut fields = one.into_elements()?.into_iter();
            let key = fields.next()?.into_bytes()?;
            let used = self.keys.entry(key).or_default();
            used.uses += number(fields.next())? / seconds;
            used.error += number(fields.next())? / seconds;
            used.writes += number(fields.next())? / seconds;
            used.nodes.push(node.to_owned());
        }
        Some(())
    }

    /// The keys that are used most, most first.
    fn rows(&self, count: usize) -> Vec<Vec<Value>> {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by(|(_, a), (_, b)| b.uses.total_cmp(&a.uses));
        let tenths = |value: f64| json!((value * 10.0).round() / 10.0);
        let percent = |part: f64, of: f64| tenths(if of > 0.0 { part / of * 100.0 } else { 0.0 });
        let row = |(key, used): (&Vec<u8>, &Used)| {
            vec![
                bytes_value(key),
                tenths(used.uses),
                percent(used.uses, self.all),
                // What was not seen of a key may have been either.
                percent(used.writes, (used.uses - used.error).max(used.writes)),
                tenths(used.error),
                json!(used.nodes),
            ]
        };
        keys.into_iter().take(count).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_counted_over_different_times_is_added_as_rates() {
        let key = |key: &str, numbers: [i64; 3]| {
            let numbers = numbers.map(Reply::Integer);
            Reply::Array([Reply::Bulk(key.into())].into_iter().chain(numbers).collect())
        };
        let node = |ms, seen, keys| {
            Reply::Array(vec![Reply::Integer(ms), Reply::Integer(seen), Reply::Array(keys)])
        };
        let mut found = Found::default();
        found
            .add("node1", node(2000, 1000, vec![key("a", [600, 0, 300]), key("b", [40, 20, 0])]))
            .unwrap();
        found.add("node2", node(1000, 500, vec![key("b", [400, 0, 400])])).unwrap();
        let rows = found.rows(5);
        assert_eq!(
            rows[0],
            [
                json!("b"),
                json!(420.0),
                json!(42.0),
                json!(97.6),
                json!(10.0),
                json!(["node1", "node2"])
            ]
        );
        assert_eq!(
            rows[1],
            [json!("a"), json!(300.0), json!(30.0), json!(50.0), json!(0.0), json!(["node1"])]
        );
        assert_eq!(found.rows(1).len(), 1);
        assert_eq!(found.add("node3", Reply::Integer(1)), None);
    }
}
