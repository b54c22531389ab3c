//! The table of clients and tools in README.md: what is claimed there is what a test saw.
//!
//! A run says in one line who ran, in which way and what it did, `ioredis 5.11.1 cluster: strings, mget`; the table must say
//! the same. A row that no test runs is a claim without proof and found by [`TRIED`].

use crate::machine::workspace;

/// The clients and tools that tests run, by the names in the table, and how; sorted.
pub const TRIED: [(&str, &str); 15] = [
    ("ioredis", "cluster"),
    ("ioredis", "plain"),
    ("node-redis", "cluster"),
    ("node-redis", "plain"),
    ("prometheus_client", "manager"),
    ("redis-benchmark", "cluster"),
    ("redis-benchmark", "plain"),
    ("redis-cli", "cluster"),
    ("redis-cli", "plain"),
    ("redis-py", "cluster"),
    ("redis-py", "plain"),
    ("redis-rs", "cluster"),
    ("redis-rs", "plain"),
    ("redis_exporter", "cluster"),
    ("redis_exporter", "plain"),
];

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Client or tool.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it was used, `plain` or `cluster` or both.
    pub kinds: String,
    /// What ran.
    pub ran: String,
    /// What became of it.
    pub result: String,
}

/// The rows of the table.
pub fn rows() -> Vec<Row> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let head = "| client or tool | version | as | what ran | result |";
    let (_, table) = readme.split_once(head).expect("README.md has the table");
    table
        .trim_start_matches('\n')
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let mut cell = || cells.next().unwrap_or_default();
            Row { name: cell(), version: cell(), kinds: cell(), ran: cell(), result: cell() }
        })
        .collect()
}

/// Panics unless the table has what a run said of itself: `NAME VERSION KIND: what ran`.
#[track_caller]
pub fn holds(line: &str) {
    let said = line.trim();
    let parts = said.split_once(": ").and_then(|(who, ran)| {
        let mut words = who.split(' ');
        Some((words.next()?, words.next()?, words.next()?, ran))
    });
    let (name, version, kind, ran) = parts.unwrap_or_else(|| panic!("no report: {said:?}"));
    assert!(TRIED.contains(&(name, kind)), "{name} {kind} is not among what the tests run");
    let wanted = |row: &Row| {
        row.name == name
            && row.version == version
            && row.kinds.split(", ").any(|word| word == kind)
            && row.ran == ran
            && row.result == "passes"
    };
    assert!(
        rows().iter().any(wanted),
        "README.md does not say what was seen: | {name} | {version} | {kind} | {ran} | passes |"
    );
}
