//! The same commands, drawn by a seed, to Debian's redis-server and to DKV, and every reply compared.
//!
//! What may differ is in the table of commands (`grammar.rs`: how the replies of each are compared) and in [`ALLOWED`], each
//! with its reason. Everything else that differs is a finding.

pub mod acl;
pub mod commands;
pub mod generator;
pub mod grammar;
pub mod listening;

use crate::bare::Bare;
use crate::machine::until;
use generator::{Chance, Drawn};
use grammar::Compare;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest that a reply may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Commands that are sent before the first reply is read, at most.
const PIPELINE_MAX: u64 = 40;

/// Why a difference is none: the words that begin the two replies, and the reason.
pub struct Allowed {
    /// What Redis says.
    pub redis: &'static str,
    /// What DKV says.
    pub dkv: &'static str,
    /// Of which command; empty: of any.
    pub command: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The differences that are meant.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        redis: "-ERR wrong number of arguments for 'command|getkeys' command",
        dkv: "-ERR ",
        command: "COMMAND",
        reason: "7.2 looks at commands of one word too, and says what is wrong with them",
    },
    Allowed {
        redis: "",
        dkv: "-ERR LCS of these values would take too long",
        command: "LCS",
        reason: "the bound on the work of one command is half of Redis'",
    },
    Allowed {
        redis: "*",
        dkv: "-ERR pattern too long: at most 1024 bytes",
        command: "KEYS",
        reason: "a pattern is compared with every key, and its length is bounded for that",
    },
];

/// What an error of DKV quotes of a command is cut after so many bytes; Redis quotes all of it.
const QUOTED_BYTES_MAX: usize = 128;

/// redis-server on a socket of its own. Ended when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts it, without a port and without files.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("redis.sock");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "redis-server", "--port", "0", "--save", ""])
            // There is one database, as in a cluster.
            .args(["--databases", "1", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian: redis-server) and setpriv are installed");
        let started = Self { child, directory };
        until("redis-server listens", || UnixStream::connect(&socket).is_ok());
        started
    }

    fn connect(&self) -> UnixStream {
        let path: &Path = self.directory.path();
        let stream = UnixStream::connect(path.join("redis.sock")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        stream
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection whose replies are read as the bytes that they are.
struct Side<S> {
    stream: S,
    received: Vec<u8>,
    at: usize,
}

impl<S: Read + Write> Side<S> {
    const fn new(stream: S) -> Self {
        Self { stream, received: Vec::new(), at: 0 }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The next reply, whole.
    fn reply(&mut self) -> Vec<u8> {
        let start = self.at;
        let mut values = 1;
        while values > 0 {
            let line = self.line();
            let number =
                || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse::<i64>().ok());
            values -= 1;
            match line.first() {
                Some(b'$' | b'=' | b'!') => {
                    if let Some(len @ 0..) = number() {
                        self.skip(len as usize + 2);
                    }
                }
                Some(b'*' | b'~' | b'>') => values += number().expect("a count").max(0),
                Some(b'%' | b'|') => values += 2 * number().expect("a count").max(0),
                _ => {}
            }
        }
        let reply = self.received[start..self.at].to_vec();
        if self.at == self.received.len() {
            self.received.clear();
            self.at = 0;
        }
        reply
    }

    fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.received[self.at..].iter().position(|byte| *byte == b'\n') {
                let line = self.received[self.at..self.at + end - 1].to_vec();
                self.at += end + 1;
                return line;
            }
            self.more();
        }
    }

    fn skip(&mut self, count: usize) {
        while self.received.len() - self.at < count {
            self.more();
        }
        self.at += count;
    }

    fn more(&mut self) {
        let mut piece = [0; 8 * 1024];
        let read = self.stream.read(&mut piece).expect("a reply in time");
        assert!(read > 0, "the connection was closed");
        self.received.extend_from_slice(&piece[..read]);
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Commands that were compared.
    pub commands: u64,
    /// Those whose replies differ as they may.
    pub allowed: u64,
    /// Those that differ as they may not, as a reader wants them.
    pub different: Vec<String>,
}

/// Findings after which a run ends: what comes after the first may follow from it.
const FINDINGS_MAX: usize = 20;

/// Sends `commands` commands of a seed to both. `nodes` nodes make the store, and the client speaks to the last of them.
pub fn run(binary: &Path, nodes: usize, seed: u64, commands: u64, resp3: bool) -> Found {
    let redis = Redis::start();
    let store = Bare::store(binary, (0, "noeviction"), nodes);
    let stream: TcpStream = store[nodes - 1].connect().stream;
    let (mut theirs, mut ours) = (Side::new(redis.connect()), Side::new(stream));
    let mut found = Found::default();
    if resp3 {
        for side in [&mut theirs as &mut dyn Talks, &mut ours] {
            side.talk(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
        }
    }
    // The nodes of a store find each other in their own time.
    until("the nodes of the store find each other", || {
        ours.talk(b"*1\r\n$6\r\nDBSIZE\r\n").starts_with(b":")
    });
    let mut chance = Chance(seed);
    while found.commands < commands && found.different.len() < FINDINGS_MAX {
        let count = if chance.below(3) == 0 { 1 } else { 1 + chance.below(PIPELINE_MAX) };
        let drawn: Vec<Drawn> =
            (0..count).flat_map(|_| looked_at(generator::draw(&mut chance))).collect();
        let mut bytes = Vec::new();
        for one in &drawn {
            let words: Vec<&[u8]> = one.words.iter().map(Vec::as_slice).collect();
            crate::bare::command(&mut bytes, &words);
        }
        // The one that is slower to answer must not be waited for while it waits for its replies to be read.
        theirs.send(&bytes);
        ours.send(&bytes);
        for one in &drawn {
            let (their, our) = (theirs.reply(), ours.reply());
            found.commands += 1;
            match judge(one, &their, &our) {
                Judgement::Same => {}
                Judgement::Allowed => found.allowed += 1,
                Judgement::Different => found.different.push(format!(
                    "command {} of seed {seed}: {}\n  redis {}\n  dkv   {}",
                    found.commands,
                    one.shown(),
                    shown(&only(one, &their, &our)),
                    shown(&only(one, &our, &their))
                )),
            }
        }
    }
    found
}

/// What is sent for a command: before MEMORY USAGE a look at its key, because Redis counts one that is past its time until
/// something else looks at it.
fn looked_at(drawn: Drawn) -> impl Iterator<Item = Drawn> {
    let exists = grammar::COMMANDS.iter().find(|command| command.words == ["EXISTS"]);
    let key = drawn.words.get(2).filter(|_| drawn.command.words == ["MEMORY", "USAGE"]);
    let look = exists.zip(key).map(|(command, key)| {
        let words = [b"EXISTS".to_vec(), key.clone()].into();
        Drawn { command, words }
    });
    look.into_iter().chain([drawn])
}

/// A side, whatever its stream.
trait Talks {
    fn talk(&mut self, bytes: &[u8]) -> Vec<u8>;
}

impl<S: Read + Write> Talks for Side<S> {
    fn talk(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.reply()
    }
}

/// What of a reply the other does not have, where the order means nothing; all of it elsewhere.
fn only(one: &Drawn, reply: &[u8], other: &[u8]) -> Vec<u8> {
    if one.command.compare != Compare::AnyOrder {
        return reply.to_vec();
    }
    let others = sorted(other);
    let lacking = |line: &&[u8]| others.binary_search(line).is_err();
    sorted(reply).into_iter().filter(lacking).collect::<Vec<_>>().join(&b"\n"[..])
}

fn shown(reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string();
    if text.len() > 400 { format!("{}… ({} bytes)", &text[..400], reply.len()) } else { text }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Same,
    Allowed,
    Different,
}

fn judge(one: &Drawn, their: &[u8], our: &[u8]) -> Judgement {
    if their == our {
        return Judgement::Same;
    }
    let number = |reply: &[u8]| {
        let text = std::str::from_utf8(reply.strip_prefix(b":")?).ok()?;
        text.trim_end().parse::<i64>().ok()
    };
    let alike = match one.command.compare {
        Compare::Exactly => false,
        Compare::Within(far) => match (number(their), number(our)) {
            // Those below zero say that there is nothing to count.
            (Some(a @ 0..), Some(b @ 0..)) => a.abs_diff(b) <= far.unsigned_abs(),
            _ => false,
        },
        Compare::AnyOrder => sorted(their) == sorted(our),
        Compare::Kind => their.first() == our.first() && !their.starts_with(b"-"),
    };
    let is_cut = our.len() > QUOTED_BYTES_MAX
        && our.starts_with(b"-")
        && their.starts_with(our.trim_ascii_end());
    if alike || is_cut {
        return Judgement::Allowed;
    }
    let of = |row: &&Allowed| {
        (row.command.is_empty() || row.command == one.command.words[0])
            && their.starts_with(row.redis.as_bytes())
            && our.starts_with(row.dkv.as_bytes())
    };
    if ALLOWED.iter().any(|row| of(&row)) { Judgement::Allowed } else { Judgement::Different }
}

/// The lines of a reply in order: enough for an array of keys without line breaks.
fn sorted(reply: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

#[cfg(test)]
mod tests {
    use super::grammar::COMMANDS;
    use super::*;

    fn of(name: &str) -> Drawn {
        let command = COMMANDS.iter().find(|command| command.words[0] == name);
        Drawn { command: command.expect("it is in the table"), words: Vec::new() }
    }

    #[test]
    fn a_difference_is_found_unless_it_is_allowed() {
        let judged = |name, a: &[u8], b: &[u8]| judge(&of(name), a, b);
        assert_eq!(judged("GET", b"$1\r\na\r\n", b"$1\r\na\r\n"), Judgement::Same);
        assert_eq!(judged("GET", b"$1\r\na\r\n", b"$1\r\nb\r\n"), Judgement::Different);
        assert_eq!(judged("GET", b"$-1\r\n", b"_\r\n"), Judgement::Different);
        assert_eq!(judged("TTL", b":5\r\n", b":6\r\n"), Judgement::Allowed);
        assert_eq!(judged("TTL", b":-1\r\n", b":-2\r\n"), Judgement::Different);
        assert_eq!(judged("TTL", b":5\r\n", b":60\r\n"), Judgement::Different);
        let (a, b) = (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n");
        assert_eq!(judged("KEYS", a, b), Judgement::Allowed);
        assert_eq!(judged("MGET", a, b), Judgement::Different);
        assert_eq!(judged("DUMP", b"$1\r\na\r\n", b"$1\r\nb\r\n"), Judgement::Allowed);
        assert_eq!(judged("DUMP", b"-ERR a\r\n", b"-ERR b\r\n"), Judgement::Different);
        // A key that lives takes some memory, whatever that is.
        assert_eq!(judged("MEMORY", b":56\r\n", b":64\r\n"), Judgement::Allowed);
        assert_eq!(judged("MEMORY", b":56\r\n", b"$-1\r\n"), Judgement::Different);
        assert_eq!(judged("MEMORY", b":56\r\n", b"_\r\n"), Judgement::Different);
    }

    #[test]
    fn the_key_of_memory_usage_is_looked_at_before() {
        let mut memory = of("MEMORY");
        memory.words = [&b"memory"[..], b"usage", b"k"].map(<[u8]>::to_vec).into();
        let sent: Vec<Vec<Vec<u8>>> = looked_at(memory.clone()).map(|one| one.words).collect();
        assert_eq!(sent, [[&b"EXISTS"[..], b"k"].map(<[u8]>::to_vec).to_vec(), memory.words]);
        assert_eq!(looked_at(of("GET")).count(), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same_commands_and_all_of_the_table_come() {
        let drawn = |seed| {
            let mut chance = Chance(seed);
            (0..5000).map(|_| generator::draw(&mut chance)).collect::<Vec<_>>()
        };
        let (first, second) = (drawn(7), drawn(7));
        assert!(first.iter().zip(&second).all(|(a, b)| a.words == b.words));
        assert!(drawn(8).iter().zip(&second).any(|(a, b)| a.words != b.words));
        for command in COMMANDS {
            assert!(first.iter().any(|one| std::ptr::eq(one.command, command)), "{command:?}");
        }
    }

    #[test]
    fn replies_are_taken_whole() {
        let bytes = b"*2\r\n$3\r\na\r\n\r\n%1\r\n+k\r\n:1\r\n_\r\n$-1\r\n-ERR x\r\n";
        let mut side = Side::new(std::io::Cursor::new(Vec::new()));
        side.received = bytes.to_vec();
        let all: Vec<Vec<u8>> = (0..4).map(|_| side.reply()).collect();
        assert_eq!(all.concat(), bytes);
        assert_eq!(all[1], b"_\r\n");
    }
}
