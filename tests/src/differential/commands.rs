//! What COMMAND tells, compared with what redis-server tells: facts, keys and arguments of every command that both know.

use super::{Redis, Side, Talks};
use crate::bare::{Bare, command};
use dkv_protocol::resp::value::{Value, parse};
use std::collections::BTreeMap;
use std::path::Path;

/// A fact that differs, and is meant to.
pub struct Meant {
    /// The command, with a bar before its subcommand.
    pub command: &'static str,
    /// What of it.
    pub fact: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The differences that are meant.
pub const MEANT: &[Meant] = &[
    Meant { command: "keys", fact: "flags", reason: "7.2 says that it touches arbitrary keys" },
    Meant { command: "scan", fact: "flags", reason: "7.2 says that it touches arbitrary keys" },
    Meant { command: "scan", fact: "tips", reason: "7.2 has a policy for its reply" },
    Meant { command: "wait", fact: "flags", reason: "7.2: it blocks, and scripts may call it" },
    Meant { command: "wait", fact: "categories", reason: "7.2 counts it among what blocks" },
    Meant { command: "command|getkeys", fact: "arity", reason: "7.2 looks at one word too" },
    Meant {
        command: "command|getkeysandflags",
        fact: "arity",
        reason: "7.2 looks at one word too",
    },
    Meant { command: "config|resetstat", fact: "tips", reason: "7.2 has policies for it" },
    Meant { command: "config|rewrite", fact: "tips", reason: "7.2 has policies for it" },
];

/// What is told of commands: by command and fact.
type Told = BTreeMap<String, BTreeMap<&'static str, String>>;

fn ask(side: &mut dyn Talks, words: &[&str]) -> Value {
    let mut bytes = Vec::new();
    command(&mut bytes, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    let reply = side.talk(&bytes);
    let (value, len) = parse(&reply).expect("well formed").expect("whole");
    assert_eq!(len, reply.len());
    value
}

fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(all) | Value::Set(all) => all,
        other => panic!("an array or a set was expected: {other:?}"),
    }
}

fn pairs(value: &Value) -> &[(Value, Value)] {
    match value {
        Value::Map(all) => all,
        other => panic!("a map was expected: {other:?}"),
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().expect("a text")).into_owned()
}

/// A value in one line; maps and sets in order.
fn line(value: &Value) -> String {
    match value {
        Value::Array(all) => format!("[{}]", all.iter().map(line).collect::<Vec<_>>().join(" ")),
        Value::Set(all) => {
            let mut all: Vec<String> = all.iter().map(line).collect();
            all.sort();
            format!("({})", all.join(" "))
        }
        Value::Map(all) => {
            let mut all: Vec<String> =
                all.iter().map(|(name, of)| format!("{}={}", line(name), line(of))).collect();
            all.sort();
            format!("{{{}}}", all.join(" "))
        }
        Value::Integer(number) => number.to_string(),
        Value::Null => "-".to_owned(),
        other => text(other),
    }
}

const FACTS: [&str; 9] = [
    "name",
    "arity",
    "flags",
    "first key",
    "last key",
    "step",
    "categories",
    "tips",
    "key specifications",
];

fn facts(described: &Value, told: &mut Told) {
    let all = elements(described);
    let of = told.entry(text(&all[0])).or_default();
    of.extend(FACTS.iter().zip(all).map(|(fact, value)| (*fact, line(value))));
    for sub in elements(&all[9]) {
        facts(sub, told);
    }
}

/// Texts are everybody's own: of the history it is the versions that are compared.
fn documents(all: &Value, told: &mut Told) {
    for (name, fields) in pairs(all) {
        let of = told.entry(text(name)).or_default();
        for (field, value) in pairs(fields) {
            let (fact, value) = match text(field).as_str() {
                "since" => ("since", line(value)),
                "group" => ("group", line(value)),
                "doc_flags" => ("documentation flags", line(value)),
                "deprecated_since" => ("deprecated", line(value)),
                "arguments" => ("arguments", line(value)),
                "history" => {
                    let versions = elements(value).iter().map(|one| text(&elements(one)[0]));
                    ("history", versions.collect::<Vec<_>>().join(" "))
                }
                _ => continue,
            };
            of.insert(fact, value);
        }
        let subcommands = pairs(fields).iter().find(|(field, _)| text(field) == "subcommands");
        if let Some((_, subcommands)) = subcommands {
            documents(subcommands, told);
        }
    }
}

fn told(side: &mut dyn Talks) -> Told {
    let mut told = Told::new();
    ask(side, &["HELLO", "3"]);
    for one in elements(&ask(side, &["COMMAND"])) {
        facts(one, &mut told);
    }
    documents(&ask(side, &["COMMAND", "DOCS"]), &mut told);
    told
}

/// Names in order, those that both know.
fn known(value: &Value, both: &[&String]) -> Vec<String> {
    let mut names: Vec<String> = elements(value).iter().map(text).collect();
    names.retain(|name| both.contains(&name));
    names.sort();
    names
}

/// Compares all that is told of all commands; what differs, as a reader wants it, and how many commands were compared.
pub fn run(binary: &Path) -> (usize, Vec<String>) {
    let redis = Redis::start();
    let store = Bare::start(binary, (0, "noeviction"));
    let (mut theirs, mut ours) = (Side::new(redis.connect()), Side::new(store.connect().stream));
    let (their, our) = (told(&mut theirs), told(&mut ours));
    let both: Vec<&String> = our.keys().filter(|name| their.contains_key(*name)).collect();
    let mut different = Vec::new();
    for name in &both {
        let (their, our) = (&their[*name], &our[*name]);
        let facts: std::collections::BTreeSet<_> = their.keys().chain(our.keys()).collect();
        for fact in facts {
            let is_meant = MEANT.iter().any(|row| row.command == *name && row.fact == *fact);
            // What is meant to differ and does not would hide what comes later.
            if (their.get(fact) == our.get(fact)) == is_meant {
                let (their, our) = (their.get(fact), our.get(fact));
                different.push(format!("{name}, {fact}:\n  redis {their:?}\n  dkv   {our:?}"));
            }
        }
    }
    // Lists, filtered by every category and by the name of every command and subcommand.
    let mut lists = vec![vec![], vec!["MODULE".to_owned(), "none".to_owned()]];
    for category in elements(&ask(&mut theirs, &["ACL", "CAT"])) {
        lists.push(vec!["ACLCAT".to_owned(), text(category)]);
    }
    lists.extend(both.iter().map(|name| vec!["pattern".to_owned(), format!("{}*", &name[..3])]));
    lists.push(vec!["PATTERN".to_owned(), "*|?et*".to_owned()]);
    for list in lists {
        let mut words = vec!["COMMAND", "LIST"];
        if !list.is_empty() {
            words.push("FILTERBY");
        }
        words.extend(list.iter().map(String::as_str));
        let [mut their, mut our] =
            [&mut theirs as &mut dyn Talks, &mut ours].map(|side| known(&ask(side, &words), &both));
        for names in [&mut their, &mut our] {
            names.retain(|name| {
                list.first().is_none_or(|by| by != "ACLCAT")
                    || !MEANT.iter().any(|row| row.command == name && row.fact == "categories")
            });
        }
        if their != our {
            different.push(format!("{words:?}:\n  redis {their:?}\n  dkv   {our:?}"));
        }
    }
    // One by one, as INFO and DOCS answer for a name.
    for name in &both {
        let is_meant = MEANT
            .iter()
            .any(|row| row.command == *name || row.command.starts_with(&format!("{name}|")));
        if is_meant {
            continue;
        }
        let [their, our] = [&mut theirs as &mut dyn Talks, &mut ours].map(|side| {
            let mut told = Told::new();
            for one in elements(&ask(side, &["COMMAND", "INFO", name])) {
                facts(one, &mut told);
            }
            documents(&ask(side, &["COMMAND", "DOCS", name]), &mut told);
            told.retain(|name, _| both.contains(&name));
            told
        });
        if their != our {
            different
                .push(format!("COMMAND INFO and DOCS {name}:\n  redis {their:?}\n  dkv   {our:?}"));
        }
    }
    (both.len(), different)
}
