//! What could keep a shard from everybody else, and how long it does: each case does its worst to a real node and reads
//! from INFO the longest piece of work and the longest turn, in CPU time of the shard's thread.
//!
//! `cargo run --release -p dkv-tests --bin stalls` prints them at full size; a test runs them small.

use crate::bare::{Bare, Connection, command};
use std::path::Path;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// How much each case does.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Keys of growth, KEYS and FLUSHALL.
    pub keys: usize,
    /// Keys that expire within a second.
    pub expiring: usize,
    /// Bytes of the great value.
    pub great: usize,
    /// Writes under eviction.
    pub evicting: usize,
    /// Appends to one value.
    pub appends: usize,
    /// Subscribers of one channel, and messages to all of them.
    pub subscribers: usize,
    /// See `subscribers`.
    pub messages: usize,
}

impl Sizes {
    /// What the promises speak of.
    pub const FULL: Self = Self {
        keys: 10_000_000,
        expiring: 1_000_000,
        great: 512 << 20,
        evicting: 3_000_000,
        appends: 1_000_000,
        subscribers: 1000,
        messages: 2000,
    };
    /// What a debug build does in a minute.
    pub const SMALL: Self = Self {
        keys: 200_000,
        expiring: 50_000,
        great: 48 << 20,
        evicting: 100_000,
        appends: 50_000,
        subscribers: 300,
        messages: 200,
    };
}

/// What a case took.
#[derive(Clone, Debug)]
pub struct Case {
    /// What was done.
    pub name: String,
    /// The longest piece of work, microseconds of CPU time.
    pub piece_us: u64,
    /// The longest turn, microseconds of CPU time.
    pub turn_us: u64,
    /// Pieces of over a millisecond.
    pub stalls: u64,
    /// What else is to be known.
    pub note: String,
}

/// Commands that a connection has under way.
const PIPELINE: usize = 64;
/// Unsent bytes of all connections above which those who do not read are cut although they want no more.
const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Connections of a case under load.
const CONNECTIONS: usize = 8;

/// What this machine does to a program that cannot stall, in microseconds of CPU time: the longest of many pieces of 100
/// µs of pure computation, and the longest first touch of 2 MiB of memory. What the kernel, and whoever runs this machine
/// as a guest, do on a thread's account is in every other figure, too.
pub fn machine() -> (u64, u64) {
    let compute = |rounds: u64| {
        let mut sum = 0u64;
        for round in 0..rounds {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(round));
        }
    };
    let mut rounds = 1000;
    while timed(|| compute(rounds)) < 100 {
        rounds *= 2;
    }
    let begin = Instant::now();
    let mut computed = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        computed = computed.max(timed(|| compute(rounds)));
    }
    let mut fresh: Vec<u8> = Vec::with_capacity(256 << 20);
    let touched = (0..128).map(|_| timed(|| fresh.resize(fresh.len() + (2 << 20), 1)));
    (computed, touched.max().unwrap_or(0))
}

/// CPU time of this thread that something takes, microseconds.
fn timed(work: impl FnOnce()) -> u64 {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    };
    let begin = now();
    work();
    now() - begin
}

/// A node and a connection that looks at it.
struct Rig {
    node: Bare,
    look: Connection,
    told: Box<dyn FnMut(&Case)>,
    cases: Vec<Case>,
}

impl Rig {
    fn case(&mut self, name: &str, work: impl FnOnce(&Bare, &mut Connection) -> String) {
        assert_eq!(self.look.ask("CONFIG RESETSTAT"), "OK");
        let note = work(&self.node, &mut self.look);
        let case = Case {
            name: name.to_owned(),
            piece_us: info(&mut self.look, "dkv_piece_us_max"),
            turn_us: info(&mut self.look, "dkv_turn_us_max"),
            stalls: info(&mut self.look, "dkv_stalls"),
            note,
        };
        (self.told)(&case);
        self.cases.push(case);
    }
}

/// A number of INFO.
fn info(look: &mut Connection, field: &str) -> u64 {
    let text = look.ask("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{field} in {text}"))
}

/// Runs every case on nodes of `binary`; each is given to `told` when it is over.
pub fn run(binary: &Path, sizes: Sizes, told: impl FnMut(&Case) + Clone + 'static) -> Vec<Case> {
    let mut cases = grow_walk_and_clear(binary, sizes, told.clone());
    cases.extend(great_values(binary, sizes, told.clone()));
    cases.extend(publish(binary, sizes, told.clone()));
    cases.extend(evict(binary, sizes, told));
    cases
}

fn rig(binary: &Path, memory: (u64, &str), told: impl FnMut(&Case) + 'static) -> Rig {
    let node = Bare::start(binary, memory);
    let look = node.connect();
    Rig { node, look, told: Box::new(told), cases: Vec::new() }
}

fn grow_walk_and_clear(
    binary: &Path,
    sizes: Sizes,
    told: impl FnMut(&Case) + 'static,
) -> Vec<Case> {
    let mut rig = rig(binary, (0, "noeviction"), told);
    let keys = sizes.keys;
    let begin = Instant::now();
    rig.case(&format!("growth to {keys} keys, {CONNECTIONS} connections"), |node, _| {
        load(node, keys, |out, i| command(out, &[b"SET", &key(i), &[b'v'; 64]]));
        format!("{:.1?}", begin.elapsed())
    });
    let per_million_ms = begin.elapsed().as_millis() as u64 * 1_000_000 / keys as u64;
    rig.case(&format!("KEYS * of {keys} keys, under load"), |node, look| {
        let busy = busy(node);
        let begin = Instant::now();
        look.send(&[b"KEYS", b"*"]);
        let found = look.skip_array();
        assert_eq!(found, keys as u64);
        let took = begin.elapsed();
        format!("{took:.1?}, others meanwhile: {}", busy.end())
    });
    rig.case("KEYS with a pattern of 30 stars", |_, look| {
        let pattern = "a*".repeat(30) + "b";
        look.send(&[b"KEYS", pattern.as_bytes()]);
        assert_eq!(look.skip_array(), 0);
        String::new()
    });
    rig.case("SCAN COUNT 1000000, CLUSTER GETKEYSINSLOT 0 1000000", |_, look| {
        for _ in 0..50 {
            look.send(&[b"SCAN", b"0", b"COUNT", b"1000000"]);
            let _ = look.scan();
        }
        look.send(&[b"CLUSTER", b"GETKEYSINSLOT", b"0", b"1000000"]);
        let found = look.skip_array();
        format!("{found} keys in the slot")
    });
    let expiring = sizes.expiring;
    rig.case(&format!("{expiring} keys expire within a second, under load"), |node, look| {
        // All are written before the first goes.
        let at_ms = unix_ms() + 2000 + per_million_ms * expiring as u64 / 300_000;
        load(node, expiring, |out, i| {
            let at = (at_ms + (i % 1000) as u64).to_string();
            command(out, &[b"SET", &[b"x", &key(i)[..]].concat(), b"v", b"PXAT", at.as_bytes()]);
        });
        assert!(unix_ms() < at_ms, "writing them took too long");
        let busy = busy(node);
        let mut lag_ms = 0;
        while info(look, "expired_keys") < expiring as u64 {
            lag_ms = lag_ms.max(info(look, "dkv_expiry_lag_ms"));
            assert!(unix_ms() < at_ms + 60_000, "they never expired");
            rest();
        }
        format!("lag at most {lag_ms} ms, others meanwhile: {}", busy.end())
    });
    rig.case(&format!("FLUSHALL of {keys} keys, until the memory is back"), |node, look| {
        let before = info(look, "used_memory");
        let busy = busy(node);
        let begin = Instant::now();
        assert_eq!(look.ask("FLUSHALL"), "OK");
        let answered = begin.elapsed();
        assert_eq!(look.ask("DBSIZE").parse::<u64>().map(|keys| keys <= 1), Ok(true));
        while info(look, "used_memory") > before / 50 {
            assert!(begin.elapsed() < Duration::from_mins(2), "the memory never came back");
            rest();
        }
        let others = busy.end();
        format!("answered in {answered:.1?}, back in {:.1?}, others: {others}", begin.elapsed())
    });
    rig.cases
}

fn great_values(binary: &Path, sizes: Sizes, told: impl FnMut(&Case) + 'static) -> Vec<Case> {
    let mut rig = rig(binary, (0, "noeviction"), told);
    let great = sizes.great;
    let mib = great >> 20;
    rig.case(&format!("SET of {mib} MiB, others meanwhile"), |node, look| {
        let busy = busy(node);
        look.send(&[b"SET", b"great", &vec![b'v'; great]]);
        assert_eq!(look.reply(), b"OK");
        format!("others: {}", busy.end())
    });
    rig.case(&format!("GET of {mib} MiB, others meanwhile"), |node, look| {
        let busy = busy(node);
        look.send(&[b"GET", b"great"]);
        assert_eq!(look.reply().len(), great);
        format!("others: {}", busy.end())
    });
    rig.case(&format!("a reader that stops in the middle of {mib} MiB"), |node, look| {
        let before = node.resident_bytes();
        let mut stopped = node.connect();
        stopped.send(&[b"GET", b"great"]);
        let mut some = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut stopped.stream, &mut some).expect("the beginning");
        let busy = busy(node);
        for _ in 0..100 {
            rest();
        }
        let others = busy.end();
        let grown = node.resident_bytes().saturating_sub(before) >> 20;
        assert!(grown < 64, "{grown} MiB for a reader that does not read");
        if great > UNSENT_BYTES_MAX {
            // Ten seconds, and what a network of 8 MiB/s would take.
            let begin = Instant::now();
            let patience = Duration::from_secs(10 + 2 * (great >> 23) as u64);
            while info(look, "client_output_buffer_limit_disconnections") == 0 {
                assert!(begin.elapsed() < patience, "it was never cut");
                rest();
            }
            let took = begin.elapsed();
            return format!("{grown} MiB more meanwhile, cut after {took:.0?}, others: {others}");
        }
        drop(stopped);
        format!("{grown} MiB more meanwhile, others: {others}")
    });
    rig.case(&format!("DEL of {mib} MiB, others meanwhile"), |node, look| {
        let busy = busy(node);
        let (begin, before) = (Instant::now(), node.resident_bytes());
        assert_eq!(look.ask("DEL great"), "1");
        let took = begin.elapsed();
        while node.resident_bytes() > before.saturating_sub(great as u64 / 2) {
            assert!(begin.elapsed() < Duration::from_mins(1), "the memory never came back");
            rest();
        }
        format!("answered in {took:.1?}, others: {}", busy.end())
    });
    let appends = sizes.appends;
    rig.case(&format!("{appends} APPENDs of 100 bytes to one value"), |node, look| {
        let mut out = Vec::new();
        for first in (0..appends).step_by(1000) {
            out.clear();
            let count = 1000.min(appends - first);
            (0..count).for_each(|_| command(&mut out, &[b"APPEND", b"long", &[b'a'; 100]]));
            std::io::Write::write_all(&mut look.stream, &out).expect("sent");
            assert_eq!(look.skip_replies(count), 0);
        }
        assert_eq!(look.ask("STRLEN long"), (appends * 100).to_string());
        let used = info(look, "used_memory") >> 20;
        let resident = node.resident_bytes() >> 20;
        let value = (appends * 100) >> 20;
        assert!(used < 2 * value as u64 + 16, "{used} MiB for {value}");
        format!("{value} MiB of value: {used} MiB used, {resident} MiB resident")
    });
    rig.cases
}

fn publish(binary: &Path, sizes: Sizes, told: impl FnMut(&Case) + 'static) -> Vec<Case> {
    let mut rig = rig(binary, (0, "noeviction"), told);
    let (count, messages) = (sizes.subscribers, sizes.messages);
    let name = format!("{messages} messages in a pipeline to {count} subscribers, under load");
    rig.case(&name, |node, look| {
        let subscribers: Vec<Connection> = (0..count).map(|_| node.connect()).collect();
        let readers = subscribers.into_iter().map(|mut subscriber| {
            subscriber.send(&[b"SUBSCRIBE", b"news"]);
            assert_eq!(subscriber.skip_whole(), b"*3");
            subscriber
        });
        let readers: Vec<Connection> = readers.collect();
        let busy = busy(node);
        let begin = Instant::now();
        let mut out = Vec::new();
        (0..messages).for_each(|_| command(&mut out, &[b"PUBLISH", b"news", &[b'm'; 64]]));
        let everything = spawn(move || {
            for mut reader in readers {
                for _ in 0..messages {
                    assert_eq!(reader.skip_whole(), b"*3");
                }
            }
        });
        std::io::Write::write_all(&mut look.stream, &out).expect("sent");
        for _ in 0..messages {
            assert_eq!(look.reply(), count.to_string().as_bytes());
        }
        everything.join().expect("every subscriber gets every message");
        let took = begin.elapsed();
        let rate = (count * messages) as f64 / took.as_secs_f64() / 1e6;
        format!("{took:.1?}, {rate:.2} million a second, others: {}", busy.end())
    });
    rig.cases
}

fn evict(binary: &Path, sizes: Sizes, told: impl FnMut(&Case) + Clone + 'static) -> Vec<Case> {
    let mut cases = Vec::new();
    for policy in ["allkeys-lru", "allkeys-lfu", "volatile-ttl"] {
        let limit = 32 << 20;
        let mut rig = rig(binary, (limit, policy), told.clone());
        let count = sizes.evicting;
        rig.case(&format!("{count} SETs into 32 MiB, {policy}"), |node, look| {
            let refused = load(node, count, |out, i| {
                // Of every size up to 8 KiB, the small ones more often.
                let length = (i * 7919) % (16 << (i % 10));
                let value = vec![b'v'; length];
                command(out, &[b"SET", &key(i), &value, b"EX", b"1000"]);
            });
            assert_eq!(refused, 0, "nobody is refused what fits");
            let (used, evicted) = (info(look, "used_memory"), info(look, "evicted_keys"));
            assert!(used <= limit && evicted > 0, "{used} of {limit} bytes used, {evicted} gone");
            let resident = node.resident_bytes() >> 20;
            format!("{evicted} keys evicted, {} MiB used, {resident} resident", used >> 20)
        });
        cases.append(&mut rig.cases);
    }
    cases
}

fn key(i: usize) -> Vec<u8> {
    format!("key:{i:012}").into_bytes()
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A short rest between two looks at something that another process does.
fn rest() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// Sends commands `0..count` over some connections, each in a pipeline; how many were refused.
fn load(node: &Bare, count: usize, make: impl Fn(&mut Vec<u8>, usize) + Copy + Send) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|lane| {
                let mut connection = node.connect();
                scope.spawn(move || {
                    let mut out = Vec::new();
                    let mut refused = 0;
                    for first in (lane * PIPELINE..count).step_by(CONNECTIONS * PIPELINE) {
                        out.clear();
                        let last = count.min(first + PIPELINE);
                        (first..last).for_each(|i| make(&mut out, i));
                        std::io::Write::write_all(&mut connection.stream, &out).expect("sent");
                        refused += connection.skip_replies(last - first);
                    }
                    refused
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).sum()
    })
}

/// Somebody else, who asks one thing after the other and looks how long each takes.
struct Busy {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

fn busy(node: &Bare) -> Busy {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut connection = node.connect();
    let stopped = std::sync::Arc::clone(&stop);
    let thread = spawn(move || {
        let mut took = Vec::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) || took.is_empty() {
            let begin = Instant::now();
            assert_eq!(connection.ask("GET other"), "(null)");
            took.push(begin.elapsed());
        }
        took
    });
    Busy { stop, thread }
}

impl Busy {
    /// How they were served.
    fn end(self) -> String {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut took = self.thread.join().expect("a client does not panic");
        took.sort_unstable();
        let at = |share: usize| took[(took.len() - 1) * share / 1000];
        format!(
            "{} GETs, p50 {:.0?}, p99 {:.0?}, longest {:.1?}",
            took.len(),
            at(500),
            at(990),
            at(1000)
        )
    }
}
