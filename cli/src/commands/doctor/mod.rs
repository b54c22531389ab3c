//! `dkv doctor`: what on this host stops io_uring or costs latency, and the fix for each.
//!
//! Facts ([`facts`], and [`probe`] for those that take time) are plain data read from the host; [`judge`] is a pure function
//! from facts to rows, so that every verdict has a test; [`show`] lays rows out. It changes nothing; a fix is a command to
//! type.

mod facts;
mod judge;
mod probe;
mod show;

use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use judge::{Row, Severity};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The flags of `dkv doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv doctor
  dkv doctor --quick
  dkv doctor --fix
  dkv doctor -o json

Results: ok; note, where nothing is wrong but other numbers of this host are read with it in mind; unknown, where this user
may not read it or a probe was left out; warning, what costs latency or CPU; fatal, what stops a node. It takes 1.5 s: each
CPU is watched for a second, and 4 KiB are written to the data directory for 0.2 s, in a file without a name.
Exit codes: 0 a node can run here, with or without warnings; 1 something stops it.")]
pub(crate) struct Args {
    /// Data directory to look at [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the commands that mend what was found, and run none of them
    #[arg(long, env = "DKV_FIX", value_parser = clap::builder::FalseyValueParser::new())]
    fix: bool,
    /// Leave out what takes time: wake-ups of each CPU, stolen time, writes to the disk
    #[arg(long, env = "DKV_QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// See [`OutputArgs`].
    #[command(flatten)]
    output: OutputArgs,
}

/// Looks, shows, and gives the exit code.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let data_dir = crate::contexts::data_dir(args.data_dir.as_deref())?;
    let (facts, rows) = look(&data_dir, args.quick);
    if args.fix {
        output::write(show::fixes(&rows).as_bytes());
    } else if args.output.output == Format::Json {
        output::json(&document(&rows));
    } else {
        let text = show::report(&rows, output::columns());
        let text = if output::is_terminal() { show::coloured(&text) } else { text };
        output::write(text.as_bytes());
        // The line that a node's log begins with.
        if let Some(Ok(features)) = &facts.ring.works {
            output::line(&format!("\n{features}"));
        }
    }
    // What costs latency is for people to weigh; a script asks whether a node can run.
    Ok(u8::from(rows.iter().any(|row| row.severity == Severity::Fatal)))
}

/// What `dkv doctor -o json` prints about this machine.
pub(crate) fn findings(data_dir: &Path) -> Value {
    document(&look(data_dir, false).1)
}

fn look(data_dir: &Path, quick: bool) -> (facts::Facts, Vec<Row>) {
    let mut facts = facts::read(data_dir);
    if !quick {
        facts.timed = Some(probe::run(&facts.cpus.allowed, data_dir));
    }
    let rows = judge::judge(&facts);
    (facts, rows)
}

fn document(rows: &[Row]) -> Value {
    let object = |row: &Row| {
        json!({
            "Check": row.check,
            "Found": row.found,
            "Wanted": row.wanted,
            "Result": row.severity.word(),
            "Why": row.why,
            "Fix": row.fix.text(),
        })
    };
    rows.iter().map(object).collect()
}
