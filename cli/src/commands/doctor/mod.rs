//! `dkv doctor`: what on this host stops io_uring or costs latency, and the fix for each.
//!
//! Two halves: [`facts`] reads the host, [`judge`] is a pure function from facts to rows, so that every verdict has a
//! test. It changes nothing; a fix is a command to type.

mod facts;
mod judge;

use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use serde_json::json;
use std::path::PathBuf;

/// The flags of `dkv doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv doctor
  dkv doctor -o json

Exit codes: 0 a node can run here, with or without warnings; 1 something stops it.")]
pub(crate) struct Args {
    /// Data directory to look at [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// See [`OutputArgs`].
    #[command(flatten)]
    output: OutputArgs,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// As wanted.
    Ok,
    /// Works, and costs something.
    Warning,
    /// Does not work.
    Fatal,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Fatal => "fatal",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    check: &'static str,
    found: String,
    wanted: String,
    severity: Severity,
    /// What it costs; empty when all is well.
    why: String,
    /// What to type; empty when all is well.
    fix: String,
}

/// Looks, shows, and gives the exit code.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let data_dir = crate::contexts::data_dir(args.data_dir.as_deref())?;
    let facts = facts::read(&data_dir);
    let rows = judge::judge(&facts);
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                json!(row.check),
                json!(row.found),
                json!(row.wanted),
                json!(row.severity.word()),
                json!(row.why),
                json!(row.fix),
            ]
        })
        .collect();
    output::rows(args.output.output, &["Check", "Found", "Wanted", "Result", "Why", "Fix"], &cells);
    // Too long for a column, and the line that a node's log begins with.
    if let (Format::Table, Some(Ok(features))) = (args.output.output, &facts.ring) {
        output::line(&format!("\n{features}"));
    }
    // What costs latency is for people to weigh; a script asks whether a node can run.
    Ok(u8::from(rows.iter().any(|row| row.severity == Severity::Fatal)))
}
