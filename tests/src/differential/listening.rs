//! Publish and subscribe, compared with redis-server: a connection that subscribes and one that publishes, the same on
//! either side, drawn by a seed. What one command brings to both connections is read up to the answer to a PING behind it.

use super::generator::Chance;
use super::{Redis, Side};
use crate::bare::{Bare, command};
use crate::machine::until;
use std::io::{Read, Write};
use std::path::Path;

/// None is empty: no pattern of redis-server matches that, not even `*`.
const NAMES: &[&str] = &["a", "b", "ab", "abc", "x", "{s}1", "{s}2"];
const PATTERNS: &[&str] = &["*", "a*", "?", "[ab]", "a", "x*"];
const SHARDED: &[&str] = &["{s}1", "{s}2", "{s}3"];
/// Behind each command; no message and no name is called so.
const MARK: &str = "the-end";

/// The two connections to a side.
struct Pair<S> {
    listens: Side<S>,
    publishes: Side<S>,
}

/// Everything that comes for a command.
trait Ask {
    fn ask(&mut self, listens: bool, words: &[&str]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>);
}

impl<S: Read + Write> Ask for Pair<S> {
    fn ask(&mut self, listens: bool, words: &[&str]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let bytes = bytes_of(words);
        let first = if listens { &mut self.listens } else { &mut self.publishes };
        first.send(&bytes);
        let first = up_to_mark(first);
        let second = if listens { &mut self.publishes } else { &mut self.listens };
        let second = up_to_mark(second);
        if listens { (first, second) } else { (second, first) }
    }
}

fn bytes_of(words: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    command(&mut bytes, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    bytes
}

fn up_to_mark<S: Read + Write>(side: &mut Side<S>) -> Vec<Vec<u8>> {
    side.send(&bytes_of(&["PING", MARK]));
    let mut all = Vec::new();
    loop {
        let one = side.reply();
        if one.ends_with(format!("{MARK}\r\n").as_bytes()) {
            return all;
        }
        all.push(one);
    }
}

fn draw<'w>(chance: &mut Chance, listens: bool) -> Vec<&'w str> {
    let some = |chance: &mut Chance, word: &'w str, names: &[&'w str], least: u64| {
        let count = least + chance.below(3);
        let mut words = vec![word];
        words.extend((0..count).map(|_| names[chance.below(names.len() as u64) as usize]));
        words
    };
    let roll = chance.below(if listens { 16 } else { 8 });
    match roll {
        0 | 1 => some(chance, "PUBLISH", NAMES, 2),
        2 => {
            let mut words = some(chance, "PUBLISH", NAMES, 1);
            words.truncate(2);
            words.push("message");
            words
        }
        3 => {
            let mut words = some(chance, "SPUBLISH", SHARDED, 1);
            words.truncate(2);
            words.push("message");
            words
        }
        4 => some(chance, "PUBSUB", &["NUMPAT", "HELP", "CHANNELS", "SHARDCHANNELS", "nothing"], 1),
        5 => {
            let mut words = some(chance, "PUBSUB", NAMES, 0);
            words.insert(1, if chance.below(2) == 0 { "NUMSUB" } else { "SHARDNUMSUB" });
            words
        }
        6 => {
            let mut words = some(chance, "PUBSUB", PATTERNS, 1);
            words.truncate(2);
            words.insert(1, "CHANNELS");
            words
        }
        7 => vec![["PING", "GET", "SET"][chance.below(3) as usize], "x"],
        8 | 9 => some(chance, "SUBSCRIBE", NAMES, 0),
        10 => some(chance, "PSUBSCRIBE", PATTERNS, 1),
        11 => some(chance, "SSUBSCRIBE", SHARDED, 1),
        12 => some(chance, "UNSUBSCRIBE", NAMES, 0),
        13 => some(chance, "PUNSUBSCRIBE", PATTERNS, 0),
        14 => some(chance, "SUNSUBSCRIBE", SHARDED, 0),
        _ if chance.below(6) == 0 => vec!["RESET"],
        _ => some(chance, "unsubscribe", NAMES, 1),
    }
}

/// What a command brought, as it is compared: Redis keeps names in no order.
fn comparable(words: &[&str], mut all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let given = |names: usize| words.len() > names;
    match words[0] {
        "PUBLISH" if given(2) => all.sort(),
        "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" if !given(1) => {
            let mut lines: Vec<Vec<u8>> =
                all.concat().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            all = lines;
        }
        "PUBSUB" => {
            for one in &mut all {
                let mut lines: Vec<&[u8]> = one.split(|byte| *byte == b'\n').collect();
                if matches!(words[1], "CHANNELS" | "SHARDCHANNELS") {
                    lines.sort_unstable();
                }
                // 7.2 helps with other words.
                lines.retain(|line| !line.starts_with(b"+    Print"));
                *one = lines.concat();
            }
        }
        _ => {}
    }
    all
}

/// Draws `commands` commands; what differs, as a reader wants it. The connection that listens speaks to the last of
/// `nodes` nodes, the other to the first.
pub fn run(binary: &Path, nodes: usize, seed: u64, commands: u64, resp3: bool) -> Vec<String> {
    let redis = Redis::start();
    let store = Bare::store(binary, (0, "noeviction"), nodes);
    let side = |node: &Bare| Side::new(node.connect().stream);
    let mut theirs =
        Pair { listens: Side::new(redis.connect()), publishes: Side::new(redis.connect()) };
    let mut ours = Pair { listens: side(&store[nodes - 1]), publishes: side(&store[0]) };
    until("the nodes of the store find each other", || {
        [true, false].iter().all(|listens| {
            let (first, second) = ours.ask(*listens, &["DBSIZE"]);
            first.iter().chain(&second).all(|reply| reply.starts_with(b":"))
        })
    });
    let mut chance = Chance(seed);
    let mut different = Vec::new();
    let hello = |sides: [&mut dyn Ask; 2]| {
        for side in sides.into_iter().filter(|_| resp3) {
            side.ask(true, &["HELLO", "3"]);
        }
    };
    hello([&mut theirs, &mut ours]);
    for number in 0..commands {
        let listens = chance.below(3) != 0;
        let words = draw(&mut chance, listens);
        let [their, our] = [&mut theirs as &mut dyn Ask, &mut ours].map(|side| {
            let (first, second) = side.ask(listens, &words);
            (comparable(&words, first), comparable(&words, second))
        });
        if their != our {
            let shown = |(first, second): &(Vec<Vec<u8>>, Vec<Vec<u8>>)| {
                format!("{} / {}", first.concat().escape_ascii(), second.concat().escape_ascii())
            };
            different.push(format!(
                "command {number} of seed {seed}: {words:?}\n  redis {}\n  dkv   {}",
                shown(&their),
                shown(&our)
            ));
            if different.len() == super::FINDINGS_MAX {
                break;
            }
        }
        if words[0] == "RESET" {
            hello([&mut theirs, &mut ours]);
        }
    }
    different
}
