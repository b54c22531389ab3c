//! `kv scan`: the keys of the store, as they come. Nothing is collected: a store may have more keys than this process
//! has room for.

use super::Shared;
use super::items::{bytes_value, print_bytes};
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::store_link::client_failure;
use serde_json::json;

/// The flags of `kv scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only keys that match this glob pattern
    #[arg(long = "match", env = "DKV_MATCH", value_name = "PATTERN", conflicts_with = "prefix")]
    pattern: Option<String>,
    /// Only keys that begin like this
    #[arg(long, env = "DKV_PREFIX", value_name = "PREFIX")]
    prefix: Option<String>,
    /// Stop after this many keys
    #[arg(long, env = "DKV_LIMIT", value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Keys that a node looks at in each step
    #[arg(long, env = "DKV_COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    #[command(flatten)]
    shared: Shared,
}

/// Runs it.
pub(super) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let mut link = args.shared.link.open(spelling)?;
    let pattern = args.pattern.clone().or_else(|| args.prefix.as_deref().map(prefix_pattern));
    let limit = usize::try_from(args.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let keys = link.client.scan(pattern.as_deref().map(str::as_bytes), args.count).take(limit);
    let format = args.shared.output;
    let mut first = true;
    match format {
        Some(Format::Json) => output::write(b"["),
        Some(Format::Table) => output::write(b"Key\n---\n"),
        None => {}
    }
    for key in keys {
        let key = key.map_err(|error| client_failure(&error))?;
        match format {
            Some(Format::Json) => {
                let separator = if first { "\n  " } else { ",\n  " };
                output::write(format!("{separator}{}", json!(bytes_value(&key))).as_bytes());
            }
            Some(Format::Table) => output::line(&output::cell_text(&bytes_value(&key))),
            None => print_bytes(&key),
        }
        first = false;
    }
    if format == Some(Format::Json) {
        output::write(if first { b"]\n" } else { b"\n]\n" });
    }
    Ok(0)
}

/// A pattern that matches what begins like `prefix`, whatever characters it has.
fn prefix_pattern(prefix: &str) -> String {
    let mut pattern = String::new();
    for c in prefix.chars() {
        if "*?[]\\^-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_is_taken_to_the_letter() {
        assert_eq!(super::prefix_pattern("user:*[1]"), "user:\\*\\[1\\]*");
        assert_eq!(super::prefix_pattern(""), "*");
    }
}
