//! What goes to the terminal: tables, JSON, lines. Knows whether standard output is a terminal; knows nothing of stores.
//!
//! A reader that goes away (`dkv kv scan | head`) ends the command quietly, as it does for other tools.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, TableComponent};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// The options of every command that shows results.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How results are shown
    #[arg(short = 'o', long, env = "DKV_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// Writes bytes to standard output. Ends the process when nobody reads any more.
pub(crate) fn write(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let result = out.write_all(bytes).and_then(|()| out.flush());
    if result.is_err() {
        // The one who asked is gone or the disk under the redirection is full: there is nobody left to tell on standard
        // output, and the status says it.
        let gone = result.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        std::process::exit(i32::from(!gone));
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) {
    write(format!("{text}\n").as_bytes());
}

/// Says something to the person at the terminal that is not the result: on standard error.
pub(crate) fn note(text: &str) {
    // Standard error that is closed is nobody's failure.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A note that the person should act upon.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// Whether colours and redraws make sense on standard output.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Columns of the terminal that standard output is; none where it is none.
pub(crate) fn columns() -> Option<usize> {
    io::stdout().is_terminal().then(|| Table::new().width()).flatten().map(usize::from)
}

/// Shows rows under a head, or as a JSON array of objects with the head's words as keys.
pub(crate) fn rows(format: Format, head: &[&str], rows: &[Vec<Value>]) {
    match format {
        Format::Table => write(table(head, rows, is_terminal()).as_bytes()),
        Format::Json => json(&Value::Array(rows.iter().map(|row| object(head, row)).collect())),
    }
}

/// Shows one object: as a list of `Name : value`, or as JSON.
pub(crate) fn record(format: Format, head: &[&str], row: &[Value]) {
    match format {
        Format::Table => {
            let width = head.iter().map(|name| name.len()).max().unwrap_or_default();
            let mut text = String::new();
            for (name, value) in head.iter().zip(row) {
                text.push_str(format!("{name:width$} : {}", cell_text(value)).trim_end());
                text.push('\n');
            }
            write(text.as_bytes());
        }
        Format::Json => json(&object(head, row)),
    }
}

/// Shows a JSON document.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

fn object(head: &[&str], row: &[Value]) -> Value {
    let pairs = head.iter().zip(row).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// How a value stands in a table: bare, and with nothing in it that could move the cursor.
pub(crate) fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => printable(text),
        Value::Array(list) => list.iter().map(cell_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Text with control characters written out, so that stored bytes cannot steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The rows as text: two blanks between columns, a rule of dashes under the head.
fn table(head: &[&str], rows: &[Vec<Value>], colours: bool) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_style(TableComponent::HeaderLines, '-');
    table.set_style(TableComponent::MiddleHeaderIntersections, '-');
    table.set_content_arrangement(ContentArrangement::Disabled);
    if colours {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    let bold = |text: &&str| {
        let cell = Cell::new(text);
        if colours { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    table.set_header(head.iter().map(bold));
    for row in rows {
        table.add_row(row.iter().map(|value| {
            let text = cell_text(value);
            match colour(&text) {
                Some(colour) if colours => Cell::new(text).fg(colour),
                _ => Cell::new(text),
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    let text = table.to_string();
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.push("");
    lines.join("\n")
}

fn colour(word: &str) -> Option<Color> {
    match word {
        "SUCCESS" | "OK" | "ok" | "Running" => Some(Color::Green),
        "WARNING" | "warning" | "Partial" | "Starting" | "SKIPPED" => Some(Color::Yellow),
        "FAILED" | "fatal" | "Failed" => Some(Color::Red),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_rule_of_dashes_under_its_head() {
        let rows = [
            vec![
                json!("10.0.0.11:7801"),
                json!("StartInstance:node1"),
                json!("SUCCESS"),
                json!("Started"),
            ],
            vec![
                json!("10.0.0.12:7801"),
                json!("StartInstance:node2"),
                json!("FAILED"),
                json!("port 7861 is in use"),
            ],
        ];
        let expected = "\
Manager         Action               Result   Message
------------------------------------------------------------------
10.0.0.11:7801  StartInstance:node1  SUCCESS  Started
10.0.0.12:7801  StartInstance:node2  FAILED   port 7861 is in use
";
        assert_eq!(table(&["Manager", "Action", "Result", "Message"], &rows, false), expected);
    }

    #[test]
    fn colours_are_for_terminals_alone() {
        let rows = [vec![json!("SUCCESS")]];
        assert!(!table(&["Result"], &rows, false).contains('\x1b'));
        assert!(table(&["Result"], &rows, true).contains('\x1b'));
    }

    #[test]
    fn stored_bytes_cannot_steer_the_terminal() {
        assert_eq!(cell_text(&json!("a\x1b[2Jb\n")), "a\\u{1b}[2Jb\\n");
        assert_eq!(cell_text(&json!("grün")), "grün");
    }
}
