//! The executor: a store of two shards in memory, spoken to in bytes. Whatever comes, its replies are whole and the store
//! serves on.

use super::{Target, mixed, numbers};
use crate::bare::command;
use dkv_protocol::resp::value::{is_error, skip};
use dkv_shard::PortKind;
use store::{PLAIN, Settings, Store};

// The harness of the shard's own tests, so that there is one.
#[path = "../../../engine/shard/tests/store/mod.rs"]
mod store;

/// Inputs that one store takes before it is made anew: what they leave behind makes an input slow, and hard to try again.
const INPUTS_PER_STORE: u64 = 200;

fn new_store() -> Store {
    // Little memory, so that being full is tried as well.
    Store::new(Settings { shards: 2, memory_bytes_max: 64 << 20, ..PLAIN })
}

/// One shard for those who need no more than its answers.
pub(super) struct Alone {
    store: Store,
    client: usize,
    calls: u64,
}

impl Alone {
    pub(super) fn new() -> Self {
        let mut store = Store::new(PLAIN);
        let client = store.connect(0, 0, PortKind::Client);
        Self { store, client, calls: 0 }
    }

    fn say(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        command(&mut bytes, args);
        self.store.input(self.client, &bytes);
        self.store.run();
        self.store.take(self.client)
    }

    /// Whether KEYS finds a key by a pattern.
    pub(super) fn finds(&mut self, pattern: &[u8], key: &[u8]) -> bool {
        self.calls += 1;
        if self.calls.is_multiple_of(1000) {
            *self = Self::new();
        }
        assert_eq!(self.say(&[b"SET", key, b"1"]), b"+OK\r\n");
        let reply = self.say(&[b"KEYS", pattern]);
        let refused = pattern.len() > 1024;
        assert_eq!(is_error(&reply), refused, "{}", reply.escape_ascii());
        assert_eq!(self.say(&[b"DEL", key]), b":1\r\n");
        !refused && reply.starts_with(b"*1\r\n")
    }
}

pub(super) struct Executor {
    store: Store,
    inputs: u64,
}

impl Executor {
    pub(super) fn new() -> Self {
        Self { store: new_store(), inputs: 0 }
    }
}

impl Target for Executor {
    fn examples(&self) -> Vec<Vec<u8>> {
        // Every command with some arguments, plausible ones first.
        let mut all = Vec::new();
        for spec in dkv_shard::commands::all() {
            let wanted = usize::from(spec.arity.unsigned_abs());
            let name = spec.name.as_bytes();
            for fillers in [[&b"key"[..], b"5", b"1"], [b"a", b"b", b"GET"], [b"{t}1", b"-1", b"*"]]
            {
                for count in [wanted, wanted + 1, wanted + 3] {
                    let fill = (1..count).map(|i| fillers[(i - 1) % 3]);
                    let args: Vec<&[u8]> = std::iter::once(name).chain(fill).collect();
                    let mut bytes = Vec::new();
                    command(&mut bytes, &[b"SET", b"key", b"12345"]);
                    command(&mut bytes, &args);
                    all.push(bytes);
                }
            }
            // By itself, and where only few commands are allowed.
            let mut bytes = Vec::new();
            command(&mut bytes, &[b"SUBSCRIBE", b"a"]);
            command(&mut bytes, &[name]);
            all.push(bytes);
            for sub in spec.subcommands {
                let count = usize::from(sub.arity.unsigned_abs()).max(2);
                let fill = (2..count).map(|_| &b"1"[..]);
                let args: Vec<&[u8]> =
                    [name, sub.name.as_bytes()].into_iter().chain(fill).collect();
                let mut bytes = Vec::new();
                command(&mut bytes, &args);
                all.push(bytes);
            }
        }
        let mut transaction = Vec::new();
        for args in [
            &[&b"WATCH"[..], b"{t}1"][..],
            &[b"MULTI"],
            &[b"SET", b"{t}1", b"x"],
            &[b"APPEND", b"{t}1", b"y"],
            &[b"EXEC"],
        ] {
            command(&mut transaction, args);
        }
        all.push(transaction);
        all
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = [
            "\r\n", "key", "{t}1", "{t}2", "a", "*", "NX", "XX", "EX", "PX", "KEEPTTL", "GET",
            "MATCH", "COUNT", "u8", "i64", "BIT", "BYTE", "OVERFLOW", "SAT", "IDX", "LEN", "HELP",
            "REPLACE", "ABSTTL",
        ];
        let bulk = |word: &[u8]| {
            let mut bytes = format!("${}\r\n", word.len()).into_bytes();
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
            bytes
        };
        let plain: Vec<Vec<u8>> =
            words.iter().map(|word| word.as_bytes().to_vec()).chain(numbers()).collect();
        plain.iter().map(|word| bulk(word)).chain(plain.clone()).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        self.inputs += 1;
        if self.inputs.is_multiple_of(INPUTS_PER_STORE) {
            self.store = new_store();
        }
        let store = &mut self.store;
        let client = store.connect(0, 0, PortKind::Client);
        let half = input.len() / 2;
        for piece in [&input[..half], &input[half..]] {
            store.input(client, piece);
            store.run();
        }
        let replies = store.take(client);
        // Replies are whole, whatever was asked.
        let (mut rest, mut ways) = (&replies[..], Vec::new());
        while !rest.is_empty() {
            let reply = match skip(rest) {
                Ok(Some(len)) => &rest[..len],
                broken => panic!("{broken:?}: \"{}\"", rest.escape_ascii()),
            };
            let head = &reply[..reply.len().min(if is_error(reply) { 24 } else { 2 })];
            ways.extend(head.iter().map(|byte| u64::from(*byte)));
            rest = &rest[reply.len()..];
        }
        store.disconnect(client);
        store.run();
        ways.truncate(120);
        let way = mixed(ways);
        // Somebody else is served, unless the input may have said that nobody is to be, for a while.
        if input.to_ascii_lowercase().windows(5).any(|word| word == b"pause") {
            self.store = new_store();
            return way;
        }
        let other = store.connect(0, 1, PortKind::Client);
        assert_eq!(store.call(other, &["ECHO", "served"]), "$6\r\nserved\r\n");
        store.disconnect(other);
        store.run();
        way
    }
}
