//! Faults against a store with copies, under load, and the proof that nothing answered was lost and nothing old was read.
//!
//! `cargo run --release -p dkv-tests --bin failover` runs many rounds of one kind; tests run few of each. A round begins
//! with a store that is whole: clients write through every node, the fault comes and goes, the store becomes whole again,
//! the clients end, and every key of this and all earlier rounds is read and judged by what was answered
//! ([`history`]).

pub mod faults;
pub mod history;
pub mod load;
pub mod site;
pub mod sums;
pub mod wire;

use faults::{Kind, Mark, Plan};
use history::{Fault, Final, Op, Outcome, What, check, check_again};
use load::{Key, Log, Rng, Shared, drive, gaps, held, keys};
use site::{Site, rest};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::{Client, Manner, Reply, Wire};

/// Keys of a round.
const KEYS: usize = 48;
/// Clients on the cut side of a cut.
const CUT_OFF_CLIENTS: usize = 6;
/// How long a primary may read without hearing from its copies, with what is allowed for on the way.
const LEASE: Duration = Duration::from_millis(1200);
/// By when writes are to be about as fast as before something became slow.
const GRAY: Duration = Duration::from_millis(1500);
/// A manager gives up a node that ends within ten seconds of its start over and over, as it must; so it is let live longer.
const LIFE_MIN: Duration = Duration::from_secs(14);
/// Longest that a reply may take before a client gives the connection up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest that a store may take to be whole again.
const WHOLE_MAX: Duration = Duration::from_mins(1);
/// Longest that a copy may take to hold what its primary holds when nobody writes.
const COPIED_MAX: Duration = Duration::from_secs(5);
/// Keys that are read at once.
const PIPELINE: usize = 256;
/// Writes of all clients are told apart by their number: so many for each client of each round.
const WRITES_MAX: u64 = 1_000_000;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of clients; the second half follows the owners of slots.
    pub clients: usize,
    /// The rest of a client between two operations.
    pub pace: Duration,
    /// Of all that is chosen at random.
    pub seed: u64,
    /// Nobody else writes to the store.
    pub is_quiet: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { clients: 8, pace: Duration::from_micros(500), seed: 1, is_quiet: true }
    }
}

/// What came of a round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// For people: who was hit.
    pub note: String,
    /// Operations that were answered.
    pub answered: u64,
    /// Writes of which nobody knows whether they were done.
    pub uncertain: u64,
    /// Answered writes that are gone.
    pub lost: u64,
    /// Keys with reads that were too old, and other impossible answers.
    pub stale: u64,
    /// Error replies and broken connections by kind.
    pub errors: BTreeMap<String, u64>,
    /// An example of each error reply.
    pub examples: BTreeMap<String, String>,
    /// Operations that were asked again because their connection broke.
    pub again: u64,
    /// The longest time that a touched range went unserved.
    pub gap_ms: f64,
    /// From the begin of the fault until the store was whole again.
    pub whole_ms: f64,
    /// On the cut side: from the cut to the last answer that served, and the longest wait for an answer to what was asked
    /// when the leases had run out.
    pub cut_off_ms: Option<(f64, f64)>,
    /// Where something is slow, and not gone: the 99th percentile of writes of ranges that the slow part has copies of, or
    /// nothing, before the fault, and from [`GRAY`] after its begin until it is undone. Of cluster clients, because what
    /// others ask may go through the slow part.
    pub gray_ms: Option<(f64, f64)>,
    /// What else was wrong.
    pub wrong: Vec<String>,
}

impl Round {
    /// Whether all promises were kept but those of time.
    pub fn is_sound(&self) -> bool {
        self.lost == 0 && self.stale == 0 && self.wrong.is_empty()
    }
}

/// When the fault of a round began, when it was undone, and when the clients were told to end.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    begun: u64,
    ending: u64,
    end: u64,
}

/// A key of an earlier round.
#[derive(Debug)]
struct Kept {
    key: Key,
    /// Writes that may still be done.
    uncertain: Vec<Op>,
    last: Final,
}

/// A store under test.
#[derive(Debug)]
pub struct Trial {
    /// The store.
    pub site: Site,
    options: Options,
    start: Instant,
    rng: Rng,
    rounds: u64,
    turns: BTreeMap<&'static str, u64>,
    writers: u64,
    kept: Vec<Kept>,
    /// When the processes of nodes were killed last.
    killed: BTreeMap<String, Instant>,
}

impl Trial {
    /// A trial of a store that has just been started. The calling thread moves to where the clients are.
    pub fn new(site: Site, options: Options) -> Self {
        site.clients().entrance().enter();
        let rng = Rng(options.seed);
        let (start, turns, kept) = (Instant::now(), BTreeMap::new(), Vec::new());
        let killed = BTreeMap::new();
        Self { site, options, start, rng, rounds: 0, turns, writers: 0, kept, killed }
    }

    /// One round.
    pub fn round(&mut self, kind: Kind) -> Round {
        self.round_at(kind, None)
    }

    /// One round in which a certain machine is hit.
    pub fn round_at(&mut self, kind: Kind, hit: Option<usize>) -> Round {
        let mut round = Round::default();
        self.site.look();
        if self.site.whole(&[], WHOLE_MAX).is_none() {
            round.wrong.push(format!("not whole before the fault: {}", self.site.complaint()));
            return round;
        }
        self.site.look();
        let turn = self.turns.entry(kind.name()).or_default();
        let plan = Plan::new(kind, hit, *turn, &self.site, &mut self.rng);
        *turn += 1;
        if kind.kills_a_node() {
            let name = self.site.nodes[plan.nodes[0]].name.clone();
            if let Some(killed) = self.killed.get(&name) {
                rest(LIFE_MIN.saturating_sub(killed.elapsed()));
            }
            self.killed.insert(name, Instant::now());
        }
        self.rounds += 1;
        round.note.clone_from(&plan.note);
        let touched: Vec<u16> = plan.nodes.iter().flat_map(|node| self.site.leads(*node)).collect();
        let shared = Shared {
            start: self.start,
            stop: AtomicBool::new(false),
            keys: keys(self.rounds, KEYS),
            pace: self.options.pace,
            again: kind.is_graceful(),
        };
        let mut marks = Marks::default();
        let (logs, cut_off) = self.under_load(&plan, &shared, &mut round, &mut marks);
        let touched_gap = gaps(&shared.keys, &logs, marks.begun, marks.end)
            .into_iter()
            .filter(|(range, _)| touched.contains(range))
            .map(|(_, gap)| gap)
            .max();
        round.gap_ms = ms(touched_gap.unwrap_or(0));
        if kind.is_gray() {
            let cluster = &logs[self.options.clients / 2..];
            let of = |from, to| write_p99(&shared.keys, cluster, &touched, from, to);
            let late = marks.begun + GRAY.as_nanos() as u64;
            round.gray_ms = of(0, marks.begun).zip(of(late, marks.ending));
        }
        if kind.cuts_off() && !cut_off.is_empty() {
            round.cut_off_ms = Some(cut_side(&cut_off, marks.begun, marks.ending));
        }
        self.judge(&shared, &logs, &cut_off, &mut round);
        round
    }

    /// Runs clients, lets the fault happen, waits until all is well again and ends them.
    fn under_load(
        &mut self,
        plan: &Plan,
        shared: &Shared,
        round: &mut Round,
        marks: &mut Marks,
    ) -> (Vec<Log>, Vec<Log>) {
        let Self { site, options, rng, writers, .. } = self;
        let mut first = || {
            *writers += 1;
            *writers * WRITES_MAX
        };
        let clients = options.clients;
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..clients)
                .map(|number| {
                    let manner = if number < clients / 2 { Manner::Plain } else { Manner::Cluster };
                    let client = site.client(manner, number, PATIENCE);
                    let (rng, first) = (Rng(rng.below(u64::MAX)), first());
                    scope.spawn(move || drive(client, shared, rng, first))
                })
                .collect();
            let cut_off: Vec<_> = (0..if plan.kind.cuts_off() { CUT_OFF_CLIENTS } else { 0 })
                .map(|_| {
                    let entries = [site.nodes[plan.nodes[0]].client];
                    let client = Client::new(Manner::Plain, &entries, 0, Duration::from_secs(8));
                    let (rng, first) = (Rng(rng.below(u64::MAX)), first());
                    let there = site.machine(plan.machine).entrance();
                    scope.spawn(move || {
                        there.enter();
                        drive(client, shared, rng, first)
                    })
                })
                .collect();
            rest(if plan.kind.is_gray() { GRAY } else { Duration::from_millis(300) });
            let mut mark = |mark| match mark {
                Mark::Begun => marks.begun = shared.now(),
                Mark::Ending => marks.ending = shared.now(),
            };
            let done = plan.carry_out(site, &mut mark);
            match done {
                Err(wrong) => round.wrong.push(wrong),
                Ok(gone) => match site.whole(&gone, WHOLE_MAX) {
                    None => round.wrong.push(format!("not whole again: {}", site.complaint())),
                    Some(_) => round.whole_ms = ms(shared.now() - marks.begun),
                },
            }
            rest(Duration::from_millis(200));
            marks.end = shared.now();
            shared.stop.store(true, Ordering::Relaxed);
            let join = |client: std::thread::ScopedJoinHandle<'_, Log>| {
                client.join().expect("a client does not panic")
            };
            (running.into_iter().map(join).collect(), cut_off.into_iter().map(join).collect())
        })
    }

    /// Reads every key and judges it.
    fn judge(&mut self, shared: &Shared, logs: &[Log], cut_off: &[Log], round: &mut Round) {
        let mut ops: Vec<Vec<Op>> = vec![Vec::new(); shared.keys.len()];
        for log in logs.iter().chain(cut_off) {
            round.answered += log.waits.iter().filter(|(.., served)| *served).count() as u64;
            for (number, op) in &log.ops {
                ops[usize::from(*number)].push(*op);
            }
        }
        for log in logs {
            round.again += log.again;
            round.examples.extend(log.examples.clone());
            for (word, count) in &log.errors {
                *round.errors.entry(word.clone()).or_default() += count;
            }
        }
        let rest = shared.now();
        let read = self.read(&shared.keys);
        for ((key, mut ops), last) in shared.keys.iter().zip(ops).zip(read) {
            let Some(last) = last else {
                round.wrong.push(format!("{} cannot be read", key.name));
                continue;
            };
            for fault in check(key.kind, &ops, &last, rest) {
                note(round, key, fault, &ops, &last);
            }
            ops.retain(|op| is_uncertain(op.what));
            round.uncertain += ops.len() as u64;
            self.kept.push(Kept { key: key.clone(), uncertain: ops, last });
        }
        self.compare(shared.keys.len(), round);
        if round.wrong.is_empty() {
            round.wrong.extend(sums::differences(&self.site, self.options.is_quiet, COPIED_MAX));
        }
        let earlier = self.kept.len() - shared.keys.len().min(self.kept.len());
        let keys: Vec<Key> = self.kept[..earlier].iter().map(|kept| kept.key.clone()).collect();
        let read = self.read(&keys);
        for (kept, now) in self.kept.iter_mut().zip(read) {
            let Some(now) = now else {
                round.wrong.push(format!("{} of an earlier round cannot be read", kept.key.name));
                continue;
            };
            let fault = check_again(kept.key.kind, &kept.uncertain, &kept.last, &now);
            if let Some(fault) = fault {
                note(round, &kept.key, fault, &kept.uncertain, &now);
            }
            kept.last = now;
        }
    }

    /// Whether the copies of the last so many keys hold what their primaries do. After READONLY a node answers from its own
    /// copy where it has one; that may be some moments behind.
    fn compare(&self, count: usize, round: &mut Round) {
        let kept = &self.kept[self.kept.len().saturating_sub(count)..];
        let entries = self.site.entries();
        let mut left: Vec<(&Kept, SocketAddr)> =
            kept.iter().flat_map(|kept| entries.iter().map(move |entry| (kept, *entry))).collect();
        let deadline = Instant::now() + COPIED_MAX;
        let mut wires = BTreeMap::new();
        loop {
            left.retain(|(kept, address)| {
                let wire = wires.entry(*address).or_insert_with(|| {
                    let mut wire = Wire::connect(*address, PATIENCE).ok()?;
                    wire.ask("READONLY").ok().map(|_| wire)
                });
                let reply = wire.as_mut().map(|wire| wire.ask(&format!("GET {}", kept.key.name)));
                let same =
                    |bytes: &Option<Vec<u8>>| held(kept.key.kind, bytes.as_deref()) == kept.last;
                !matches!(&reply, Some(Ok(Reply::Bulk(bytes))) if same(bytes))
            });
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            wires.clear();
            rest(Duration::from_millis(20));
        }
        for (kept, address) in left {
            let key = &kept.key;
            let wrong =
                format!("{} (range {}): the copy of {address} differs", key.name, key.range());
            round.wrong.push(wrong);
        }
    }

    /// The values of keys, each through another node than its neighbour.
    fn read(&self, keys: &[Key]) -> Vec<Option<Final>> {
        let entries = self.site.entries();
        let mut all = Vec::new();
        for (turn, keys) in keys.chunks(PIPELINE).enumerate() {
            let mut values = vec![None; keys.len()];
            let deadline = Instant::now() + WHOLE_MAX;
            let mut entry = turn;
            while values.iter().any(Option::is_none) && Instant::now() < deadline {
                entry += 1;
                let missing: Vec<usize> =
                    (0..keys.len()).filter(|at| values[*at].is_none()).collect();
                let names: Vec<[&[u8]; 2]> =
                    missing.iter().map(|at| [&b"GET"[..], keys[*at].name.as_bytes()]).collect();
                let commands: Vec<&[&[u8]]> = names.iter().map(<[&[u8]; 2]>::as_slice).collect();
                let wire = Wire::connect(entries[entry % entries.len()], Duration::from_secs(8));
                let Ok(replies) = wire.and_then(|mut wire| wire.calls(&commands)) else {
                    rest(Duration::from_millis(20));
                    continue;
                };
                for (at, reply) in missing.into_iter().zip(replies) {
                    if let Reply::Bulk(bytes) = reply {
                        values[at] = Some(held(keys[at].kind, bytes.as_deref()));
                    }
                }
            }
            all.extend(values);
        }
        all
    }
}

fn is_uncertain(what: What) -> bool {
    matches!(
        what,
        What::Set(_, Outcome::Uncertain)
            | What::Append(_, Outcome::Uncertain)
            | What::Incr(Outcome::Uncertain)
    )
}

/// Counts what is wrong with a key, and keeps its history for people.
fn note(round: &mut Round, key: &Key, fault: Fault, ops: &[Op], last: &Final) {
    match fault {
        Fault::Lost(count) => round.lost += count,
        Fault::Stale | Fault::Phantom | Fault::Invented => round.stale += 1,
    }
    let mut ops = ops.to_vec();
    ops.sort_unstable_by_key(|op| op.begin);
    let mut text = format!("{} {:?} {fault:?}\nlast: {last:?}\n", key.name, key.kind);
    for op in ops {
        let _ = writeln!(text, "{:>14} {:>14} {:?}", op.begin, op.end, op.what);
    }
    let name = format!("dkv-failover-{}-{}.txt", std::process::id(), key.name.replace(':', "-"));
    let path = std::env::temp_dir().join(name);
    let kept = match std::fs::write(&path, text) {
        Ok(()) => format!("; its history: {}", path.display()),
        Err(_) => String::new(),
    };
    round.wrong.push(format!("{} (range {}): {fault:?}{kept}", key.name, key.range()));
}

/// See [`Round::cut_off_ms`].
fn cut_side(logs: &[Log], begun: u64, until: u64) -> (f64, f64) {
    let waits = || {
        logs.iter()
            .flat_map(|log| &log.waits)
            .filter(|(begin, end, _)| *begin >= begun && *end < until)
    };
    let served = waits().filter(|(.., served)| *served).map(|(_, end, _)| end - begun).max();
    let late = waits().filter(|(asked, ..)| *asked > begun + LEASE.as_nanos() as u64);
    let wait = late.map(|(begin, end, _)| end - begin).max();
    (ms(served.unwrap_or(0)), ms(wait.unwrap_or(0)))
}

/// The 99th percentile of what writes asked between two times took, in milliseconds; of those of uncertain outcome it is not
/// known, so they took longer than any. Without those of some ranges.
fn write_p99(keys: &[Key], logs: &[Log], without: &[u16], from: u64, to: u64) -> Option<f64> {
    let ops = logs.iter().flat_map(|log| &log.ops);
    let counted = ops.filter(|(number, op)| {
        let range = keys[usize::from(*number)].range();
        !without.contains(&range) && !matches!(op.what, What::Get(_))
    });
    let within = counted.filter(|(_, op)| (from..to).contains(&op.begin));
    let mut took: Vec<u64> = within.map(|(_, op)| op.end - op.begin).collect();
    took.sort_unstable();
    took.get((took.len() * 99).div_ceil(100).checked_sub(1)?).map(|took| ms(*took))
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// What came of many rounds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Of them.
    pub rounds: u64,
    /// Their sums.
    pub all: Round,
    /// The longest gap of each.
    pub gaps_ms: Vec<f64>,
    /// [`Round::gray_ms`] of those that have it.
    pub grays_ms: Vec<(f64, f64)>,
}

impl Summary {
    /// Takes in a round.
    pub fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.all.answered += round.answered;
        self.all.uncertain += round.uncertain;
        self.all.lost += round.lost;
        self.all.stale += round.stale;
        self.all.again += round.again;
        for (word, count) in &round.errors {
            *self.all.errors.entry(word.clone()).or_default() += count;
        }
        self.all.cut_off_ms = match (self.all.cut_off_ms, round.cut_off_ms) {
            (Some(a), Some(b)) => Some((a.0.max(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.all.wrong.extend(round.wrong.iter().cloned());
        self.gaps_ms.push(round.gap_ms);
        self.grays_ms.extend(round.gray_ms);
    }

    /// The median over the rounds of the percentiles before something was slow, and while it was.
    pub fn gray_ms(&self) -> Option<(f64, f64)> {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = self.grays_ms.iter().map(of).collect();
            all.sort_unstable_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        median(|gray| gray.0).zip(median(|gray| gray.1))
    }

    /// The longest gap in this share of all rounds.
    pub fn gap_ms(&self, share: f64) -> f64 {
        let mut gaps = self.gaps_ms.clone();
        gaps.sort_unstable_by(f64::total_cmp);
        let at = (gaps.len() as f64 * share).ceil() as usize;
        gaps.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

/// Errors as `TRYAGAIN 3, closed 1`.
pub fn errors(errors: &BTreeMap<String, u64>) -> String {
    let all: Vec<String> = errors.iter().map(|(word, count)| format!("{word} {count}")).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// Runs a trial on a thread of its own, which moves between networks, and gives what it gives.
pub fn apart<T: Send + 'static>(trial: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(trial).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
