//! What `dkv top` shows, as lines of text: pure, so that a terminal of any width can be tried without one.

use dkv_protocol::admin::{NodeMetrics, Rate};
use std::fmt::Write;

/// Below this width each node is a list of lines instead of a row.
const ROWS_WIDTH_MIN: usize = 40;

/// A node of the store.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) machine: String,
    /// A word for its state.
    pub(super) state: String,
    /// None where it does not run, or its manager was not reached.
    pub(super) metrics: Option<NodeMetrics>,
}

/// What there is to show.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) store: String,
    /// Time of day, in UTC.
    pub(super) updated: String,
    pub(super) nodes: Vec<Node>,
    /// Who could not be asked, and what else is not as it should be.
    pub(super) remarks: Vec<String>,
}

/// How it is to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// A row for each metric and a column for each node, as the original has it.
    pub(super) by_metric: bool,
    /// The column that the rows are sorted by; the first is the name.
    pub(super) sort: usize,
    pub(super) reverse: bool,
    /// The row that is picked, and whether it is shown alone.
    pub(super) picked: Option<usize>,
    pub(super) alone: bool,
    pub(super) help: bool,
}

/// How a line looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Head,
    Picked,
    Bad,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// A column, or in the other form a row.
struct Column {
    title: &'static str,
    /// What it is, in a line of the help and of one node alone.
    meaning: &'static str,
    /// The lower, the longer it stays when there is little room.
    rank: u8,
    text: fn(&NodeMetrics) -> String,
    /// What it is sorted by.
    value: fn(&NodeMetrics) -> f64,
}

fn per_second(rate: Rate) -> f64 {
    rate.per_second.unwrap_or_default()
}

const COLUMNS: &[Column] = &[
    Column {
        title: "Get",
        meaning: "reads of keys a second (since the node started)",
        rank: 1,
        text: |m| rate_text(m.gets),
        value: |m| per_second(m.gets),
    },
    Column {
        title: "Put",
        meaning: "writes of keys",
        rank: 2,
        text: |m| rate_text(m.puts),
        value: |m| per_second(m.puts),
    },
    Column {
        title: "Remove",
        meaning: "removals of keys",
        rank: 6,
        text: |m| rate_text(m.removes),
        value: |m| per_second(m.removes),
    },
    Column {
        title: "Count",
        meaning: "keys now",
        rank: 4,
        text: |m| grouped(m.keys),
        value: |m| m.keys as f64,
    },
    Column {
        title: "p50",
        meaning: "time of half of the commands in the node, at most",
        rank: 7,
        text: |m| time_text(m.p50_us),
        value: |m| m.p50_us.unwrap_or_default(),
    },
    Column {
        title: "p99",
        meaning: "time of 99 % of them",
        rank: 3,
        text: |m| time_text(m.p99_us),
        value: |m| m.p99_us.unwrap_or_default(),
    },
    Column {
        title: "p99.9",
        meaning: "time of 99.9 % of them",
        rank: 8,
        text: |m| time_text(m.p999_us),
        value: |m| m.p999_us.unwrap_or_default(),
    },
    Column {
        title: "Queue",
        meaning: "of the mean of those times, what others of the same turn took",
        rank: 14,
        text: |m| time_text(m.queue_us),
        value: |m| m.queue_us.unwrap_or_default(),
    },
    Column {
        title: "Exec",
        meaning: "of the mean of those times, its own execution",
        rank: 15,
        text: |m| time_text(m.execution_us),
        value: |m| m.execution_us.unwrap_or_default(),
    },
    Column {
        title: "Used",
        meaning: "memory that counts against the limit",
        rank: 10,
        text: |m| bytes_text(m.memory_bytes),
        value: |m| m.memory_bytes as f64,
    },
    Column {
        title: "Resident",
        meaning: "memory of the process",
        rank: 16,
        text: |m| bytes_text(m.resident_bytes),
        value: |m| m.resident_bytes as f64,
    },
    Column {
        title: "Conns",
        meaning: "client connections now",
        rank: 9,
        text: |m| grouped(m.connections),
        value: |m| m.connections as f64,
    },
    Column {
        title: "Fwd",
        meaning: "share of the commands that another shard executes",
        rank: 12,
        text: |m| forwarded(m).map_or_else(none, |part| format!("{:.0}%", part * 100.0)),
        value: |m| forwarded(m).unwrap_or_default(),
    },
    Column {
        title: "Wait",
        meaning: "mean time that writes waited for their copies",
        rank: 13,
        text: |m| time_text(m.replication_wait_us),
        value: |m| m.replication_wait_us.unwrap_or_default(),
    },
    Column {
        title: "Lag",
        meaning: "changes that the copy furthest behind does not hold yet, and since when",
        rank: 19,
        text: |m| match m.replication_oldest_ms {
            0 => grouped(m.replication_lag),
            since => format!("{} {}ms", grouped(m.replication_lag), grouped(since)),
        },
        value: |m| m.replication_lag as f64,
    },
    Column {
        title: "Expiry",
        meaning: "how late expired keys are removed that nobody asks for",
        rank: 18,
        text: |m| format!("{}ms", grouped(m.expiry_lag_ms)),
        value: |m| m.expiry_lag_ms as f64,
    },
    Column {
        title: "Stalls",
        meaning: "pieces of work over 1 ms of CPU time (since the node started)",
        rank: 17,
        text: |m| rate_text(m.stalls),
        value: |m| m.stalls.total as f64,
    },
    Column {
        title: "CPU",
        meaning: "of one CPU",
        rank: 11,
        text: |m| m.cpus_used.map_or_else(none, |used| format!("{:.0}%", used * 100.0)),
        value: |m| m.cpus_used.unwrap_or_default(),
    },
];

/// How many columns there are to sort by, the name included.
pub(super) const SORTS: usize = COLUMNS.len() + 1;

fn none() -> String {
    "-".into()
}

fn forwarded(metrics: &NodeMetrics) -> Option<f64> {
    let all = metrics.commands.per_second.filter(|all| *all > 0.0)?;
    Some((metrics.forwarded.per_second? / all).min(1.0))
}

/// `2,341/s (134,223)`, and `- (134,223)` before there is a rate.
fn rate_text(rate: Rate) -> String {
    let now = rate.per_second.map_or_else(none, |now| format!("{}/s", grouped(now.round() as u64)));
    format!("{now} ({})", grouped(rate.total))
}

/// With commas between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time_text(us: Option<f64>) -> String {
    match us {
        None => none(),
        Some(us) if us < 10.0 => format!("{us:.1}us"),
        Some(us) if us < 1000.0 => format!("{us:.0}us"),
        Some(us) if us < 10_000.0 => format!("{:.1}ms", us / 1000.0),
        Some(us) => format!("{:.0}ms", us / 1000.0),
    }
}

fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && amount < 100.0);
    format!("{amount:.decimals$}{}", units[unit])
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// The text cut to a width; an ellipsis says so.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// The nodes in the order in which they are shown.
pub(super) fn sorted<'a>(facts: &'a Facts, look: &Look) -> Vec<&'a Node> {
    let mut nodes: Vec<&Node> = facts.nodes.iter().collect();
    if let Some(column) = look.sort.checked_sub(1).and_then(|at| COLUMNS.get(at)) {
        let value = |node: &Node| node.metrics.as_ref().map_or(-1.0, column.value);
        // The greatest first: that is what one looks for.
        nodes.sort_by(|a, b| value(b).total_cmp(&value(a)));
    }
    if look.reverse {
        nodes.reverse();
    }
    nodes
}

/// All lines, none of them wider than `width`.
pub(super) fn lines(facts: &Facts, look: &Look, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let plain = |text: String| Line { text, style: Style::Plain };
    lines.push(plain(format!("Store: {}    Updated: {}", facts.store, facts.updated)));
    if look.help {
        lines.push(plain(String::new()));
        lines.extend(HELP.iter().map(|text| plain((*text).into())));
        for column in COLUMNS {
            lines.push(plain(format!("  {:9} {}", column.title, column.meaning)));
        }
    } else {
        lines.push(plain(String::new()));
        let nodes = sorted(facts, look);
        match look.picked.and_then(|at| nodes.get(at)) {
            Some(node) if look.alone => alone(node, &mut lines),
            _ if width < ROWS_WIDTH_MIN => nodes.iter().for_each(|node| card(node, &mut lines)),
            _ if look.by_metric => by_metric(&nodes, width, &mut lines),
            _ => rows(&nodes, look, width, &mut lines),
        }
        for remark in &facts.remarks {
            lines.push(Line { text: remark.clone(), style: Style::Bad });
        }
    }
    for line in &mut lines {
        line.text = cut(line.text.trim_end(), width);
    }
    lines
}

const HELP: &[&str] = &[
    "  left right  sort by another column     r  the other way round",
    "  up down     pick a node                enter  that node alone",
    "  m           a row for each metric      q  quit",
    "",
];

fn state_style(node: &Node) -> Style {
    if node.metrics.is_some() { Style::Plain } else { Style::Bad }
}

/// A row for each node; columns for which there is no room are left out, the less important first.
fn rows(nodes: &[&Node], look: &Look, width: usize, lines: &mut Vec<Line>) {
    let mut table: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["Node".to_owned(), "State".to_owned()];
    head.extend(COLUMNS.iter().map(|column| column.title.to_owned()));
    if let Some(title) = look.sort.checked_sub(1).map(|at| at + 2) {
        head[title].push(if look.reverse { '^' } else { 'v' });
    }
    table.push(head);
    for node in nodes {
        let mut row = vec![node.name.clone(), node.state.clone()];
        let text = |column: &Column| node.metrics.as_ref().map_or_else(none, column.text);
        row.extend(COLUMNS.iter().map(text));
        table.push(row);
    }
    let widths: Vec<usize> = (0..table[0].len())
        .map(|at| table.iter().map(|row| width_of(&row[at])).max().unwrap_or_default())
        .collect();
    let rank = |at: usize| match at {
        0 => 0,
        1 => 5,
        at => COLUMNS[at - 2].rank,
    };
    let mut shown: Vec<usize> = (0..widths.len()).collect();
    let taken = |shown: &[usize]| shown.iter().map(|at| widths[*at] + 2).sum::<usize>();
    while taken(&shown) > width + 2 && shown.len() > 2 {
        let least = shown.iter().copied().max_by_key(|at| rank(*at)).unwrap_or_default();
        shown.retain(|at| *at != least);
    }
    for (at, row) in table.iter().enumerate() {
        let mut text = String::new();
        for column in &shown {
            // Words to the left, numbers to the right.
            let (cell, width) = (&row[*column], widths[*column]);
            let pad = " ".repeat(width - width_of(cell));
            let words = if *column < 2 { [cell, &pad] } else { [&pad, cell] };
            text.extend(words.into_iter().map(String::as_str).chain(["  "]));
        }
        let style = match at.checked_sub(1) {
            None => Style::Head,
            Some(at) if look.picked == Some(at) => Style::Picked,
            Some(at) => state_style(nodes[at]),
        };
        lines.push(Line { text, style });
    }
}

/// A row for each metric, a column for each node.
fn by_metric(nodes: &[&Node], width: usize, lines: &mut Vec<Line>) {
    let mut table: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["Category".to_owned(), "Metric".to_owned()];
    head.extend(nodes.iter().map(|node| {
        let host = node.machine.rsplit_once(':').map_or(node.machine.as_str(), |(host, _)| host);
        format!("{host}/{}", node.name)
    }));
    table.push(head);
    for column in COLUMNS {
        let category = match column.rank {
            1 | 2 | 4 | 6 => "DKV",
            3 | 7 | 8 | 14 | 15 => "Latency",
            _ => "Node",
        };
        let mut row = vec![category.to_owned(), column.title.to_owned()];
        row.extend(nodes.iter().map(|node| node.metrics.as_ref().map_or_else(none, column.text)));
        table.push(row);
    }
    let widths: Vec<usize> = (0..table[0].len())
        .map(|at| table.iter().map(|row| width_of(&row[at])).max().unwrap_or_default())
        .collect();
    // As many nodes as fit beside each other; the others follow below.
    let lead = widths[0] + widths[1] + 4;
    let mut next = 2;
    while next < widths.len() {
        let (begin, mut taken) = (next, lead);
        while next < widths.len() && (next == begin || taken + widths[next] <= width) {
            taken += widths[next] + 2;
            next += 1;
        }
        for (at, row) in table.iter().enumerate() {
            let mut text =
                format!("{:w0$}  {:w1$}  ", row[0], row[1], w0 = widths[0], w1 = widths[1]);
            for column in begin..next {
                // Writing to a string cannot fail.
                let _ = write!(text, "{:w$}  ", row[column], w = widths[column]);
            }
            let style = if at == 0 { Style::Head } else { Style::Plain };
            lines.push(Line { text, style });
        }
        if next < widths.len() {
            lines.push(Line { text: String::new(), style: Style::Plain });
        }
    }
}

/// One node with all there is to say of it.
fn alone(node: &Node, lines: &mut Vec<Line>) {
    let text = format!("{}  {}  {}", node.name, node.machine, node.state);
    lines.push(Line { text, style: Style::Head });
    for column in COLUMNS {
        let value = node.metrics.as_ref().map_or_else(none, column.text);
        let text = format!("{:9} {value:24} {}", column.title, column.meaning);
        lines.push(Line { text, style: state_style(node) });
    }
}

/// One node on a terminal that is too narrow for rows.
fn card(node: &Node, lines: &mut Vec<Line>) {
    lines.push(Line { text: format!("{} {}", node.name, node.state), style: Style::Head });
    for column in COLUMNS.iter().filter(|column| column.rank <= 6) {
        let value = node.metrics.as_ref().map_or_else(none, column.text);
        lines.push(Line { text: format!("{:6} {value}", column.title), style: state_style(node) });
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
