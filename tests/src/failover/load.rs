//! Clients that write what nobody else writes, read it back, and note when they asked, when they were answered and what.

use super::history::{Final, Kind, NEVER, Op, Outcome, Seen, TOKEN_BYTES, What, digest};
use super::wire::{Broken, Client, Reply, slot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tokens of a list after which it is only read: every operation on it moves all of it.
const TOKENS_MAX: u64 = 400;
/// Bytes of a register's value.
const VALUE_BYTES: usize = 100;
/// The rest after a refusal that asks to try again.
const REFUSED_REST: Duration = Duration::from_millis(2);

/// A key of one round.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What is done to it.
    pub kind: Kind,
}

impl Key {
    /// Slots are moved and fail over in ranges of 64.
    pub fn range(&self) -> u16 {
        slot(&self.name) / 64
    }
}

/// The keys of a round: half registers, the rest counters and lists, no two in one range.
pub fn keys(round: u64, count: usize) -> Vec<Key> {
    let mut taken = BTreeSet::new();
    let names = (0..).map(|i| format!("r{round}:{i}"));
    let free = names.filter(|name| taken.insert(slot(name) / 64)).take(count);
    let kinds = [Kind::Register, Kind::Counter, Kind::Register, Kind::List];
    free.enumerate().map(|(i, name)| Key { name, kind: kinds[i % kinds.len()] }).collect()
}

/// What the clients of a round share.
#[derive(Debug)]
pub struct Shared {
    /// All times count from here.
    pub start: Instant,
    /// Set to end them.
    pub stop: AtomicBool,
    /// Their keys.
    pub keys: Vec<Key>,
    /// The rest between two operations.
    pub pace: Duration,
    /// Ask again on another connection when one breaks, as client libraries do: for what must break nothing.
    pub again: bool,
}

impl Shared {
    /// The time now.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// What a client saw.
#[derive(Debug, Default)]
pub struct Log {
    /// Operations, each with its key's number.
    pub ops: Vec<(u16, Op)>,
    /// When each operation, whatever it was, was asked and how it ended: `true` for an answer that served it.
    pub waits: Vec<(u64, u64, bool)>,
    /// Errors by their first word, and broken connections as `closed`, `silent` and `refused`.
    pub errors: BTreeMap<String, u64>,
    /// Connections that broke under an operation that was then asked again.
    pub again: u64,
    /// An example of each error.
    pub examples: BTreeMap<String, String>,
}

/// A small generator of numbers (SplitMix64): the same seed, the same choices.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// One client, until it is told to stop. What it writes counts up from `first`.
pub fn drive(mut client: Client, shared: &Shared, mut rng: Rng, first: u64) -> Log {
    let mut log = Log::default();
    let mut next = first;
    let mut lengths = vec![0; shared.keys.len()];
    while !shared.stop.load(Ordering::Relaxed) {
        let number = rng.below(shared.keys.len() as u64) as usize;
        let key = &shared.keys[number];
        let full = key.kind == Kind::List && lengths[number] >= TOKENS_MAX;
        let write = !full && rng.below(10) < 5;
        next += 1;
        let (value, token) = (value(next), token(next));
        let name = key.name.as_bytes();
        let args: &[&[u8]] = match (write, key.kind) {
            (false, _) => &[b"GET", name],
            (true, Kind::Register) => &[b"SET", name, value.as_bytes()],
            (true, Kind::Counter) => &[b"INCR", name],
            (true, Kind::List) => &[b"APPEND", name, token.as_bytes()],
        };
        let begin = shared.now();
        let reply = asked(&mut client, shared, key, args, &mut log);
        let end = shared.now();
        let what = if write {
            let outcome = outcome(&reply, key.kind);
            if let (Kind::List, Outcome::Done(length)) = (key.kind, outcome) {
                lengths[number] = length;
            }
            match key.kind {
                Kind::Register => Some(What::Set(next, outcome)),
                Kind::Counter => Some(What::Incr(outcome)),
                Kind::List => Some(What::Append(next, outcome)),
            }
        } else {
            seen(&reply, key.kind).map(What::Get)
        };
        let served = reply.as_ref().is_ok_and(|reply| !matches!(reply, Reply::Error(_)));
        log.waits.push((begin, end, served));
        note(&mut log, &reply);
        if reply == Err(Broken::Refused) {
            std::thread::park_timeout(REFUSED_REST);
            continue;
        }
        if let Some(what) = what {
            let unknown = matches!(
                what,
                What::Set(_, Outcome::Uncertain)
                    | What::Append(_, Outcome::Uncertain)
                    | What::Incr(Outcome::Uncertain)
            );
            let end = if unknown { NEVER } else { end };
            log.ops.push((number as u16, Op { begin, end, what }));
        }
        std::thread::park_timeout(if served { shared.pace } else { REFUSED_REST });
    }
    log
}

fn asked(
    client: &mut Client,
    shared: &Shared,
    key: &Key,
    args: &[&[u8]],
    log: &mut Log,
) -> Result<Reply, Broken> {
    let mut reply = client.call(&key.name, args);
    let mut sent = false;
    for _ in 0..5 {
        let Err(broken) = &reply else { break };
        sent |= *broken != Broken::Refused;
        // Who hears nothing does not ask again: what it sent may still be done.
        if !shared.again || *broken == Broken::Silent {
            break;
        }
        log.again += 1;
        reply = client.call(&key.name, args);
    }
    // What was sent once may have been done, whatever became of it when it was sent again.
    match reply {
        Err(_) | Ok(Reply::Error(_)) if sent && shared.again => Err(Broken::Closed),
        reply => reply,
    }
}

fn note(log: &mut Log, reply: &Result<Reply, Broken>) {
    let (word, text) = match reply {
        Ok(Reply::Error(text)) => (text.split(' ').next().unwrap_or_default(), text.as_str()),
        Err(Broken::Refused) => ("refused", "no connection"),
        Err(Broken::Closed) => ("closed", "the connection ended"),
        Err(Broken::Silent) => ("silent", "no reply in time"),
        Ok(_) => return,
    };
    *log.errors.entry(word.into()).or_default() += 1;
    log.examples.entry(word.into()).or_insert_with(|| text.into());
}

fn outcome(reply: &Result<Reply, Broken>, kind: Kind) -> Outcome {
    match (reply, kind) {
        (Ok(Reply::Simple(_)), Kind::Register) => Outcome::Done(0),
        (Ok(Reply::Number(number)), Kind::Counter) => Outcome::Done(*number as u64),
        (Ok(Reply::Number(bytes)), Kind::List) => Outcome::Done(*bytes as u64 / TOKEN_BYTES as u64),
        (Ok(Reply::Error(text)), _) if !text.starts_with("UNCERTAIN") => Outcome::Refused,
        (Err(Broken::Refused), _) => Outcome::Refused,
        _ => Outcome::Uncertain,
    }
}

fn seen(reply: &Result<Reply, Broken>, kind: Kind) -> Option<Seen> {
    let Ok(Reply::Bulk(bytes)) = reply else { return None };
    Some(match held(kind, bytes.as_deref()) {
        Final::Nothing => Seen::Nothing,
        Final::Value(value) => Seen::Value(value),
        Final::List(tokens) => {
            Seen::List(tokens.len() as u64, tokens.iter().fold(0, |sum, token| digest(sum, *token)))
        }
    })
}

/// What a value says. What no client wrote is told by a value that nobody wrote.
pub fn held(kind: Kind, bytes: Option<&[u8]>) -> Final {
    let Some(bytes) = bytes else { return Final::Nothing };
    let number = |digits: &[u8]| {
        std::str::from_utf8(digits).ok().and_then(|digits| digits.trim().parse().ok())
    };
    match kind {
        Kind::Register if bytes.len() == VALUE_BYTES => {
            Final::Value(number(bytes).unwrap_or(u64::MAX))
        }
        Kind::Register => Final::Value(u64::MAX),
        Kind::Counter => Final::Value(number(bytes).unwrap_or(u64::MAX >> 2)),
        Kind::List => Final::List(
            bytes.chunks(TOKEN_BYTES).map(|token| number(token).unwrap_or(u64::MAX)).collect(),
        ),
    }
}

fn value(number: u64) -> String {
    format!("{number:>VALUE_BYTES$}")
}

fn token(number: u64) -> String {
    format!("{number:>TOKEN_BYTES$}")
}

/// The longest time that each range went without a served operation, from `from` to `to`.
pub fn gaps(keys: &[Key], logs: &[Log], from: u64, to: u64) -> BTreeMap<u16, u64> {
    let mut served: Vec<Vec<u64>> = vec![vec![from, to]; keys.len()];
    for (number, op) in logs.iter().flat_map(|log| &log.ops) {
        let refused = matches!(
            op.what,
            What::Set(_, Outcome::Refused)
                | What::Append(_, Outcome::Refused)
                | What::Incr(Outcome::Refused)
        );
        if !refused && op.end > from && op.end < to {
            served[usize::from(*number)].push(op.end);
        }
    }
    let longest = |mut times: Vec<u64>| {
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    };
    keys.iter().zip(served).map(|(key, times)| (key.range(), longest(times))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Final, Key, Kind, Log, Op, Seen, What, gaps, held, keys, token, value};

    #[test]
    fn what_is_written_is_read_back() {
        let list = format!("{}{}", token(1), token(22));
        let cases = [
            (Kind::Register, Some(value(17)), Final::Value(17)),
            (Kind::Register, Some("17".into()), Final::Value(u64::MAX)),
            (Kind::Counter, Some("17".into()), Final::Value(17)),
            (Kind::List, Some(list.clone()), Final::List(vec![1, 22])),
            (Kind::List, Some(list + "3"), Final::List(vec![1, 22, 3])),
            (Kind::List, None, Final::Nothing),
        ];
        for (kind, text, expect) in cases {
            assert_eq!(held(kind, text.as_deref().map(str::as_bytes)), expect, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn no_two_keys_of_a_round_share_a_range() {
        let keys = keys(3, 48);
        let mut ranges: Vec<u16> = keys.iter().map(Key::range).collect();
        ranges.sort_unstable();
        ranges.dedup();
        assert_eq!(ranges.len(), 48);
    }

    #[test]
    fn a_gap_is_the_longest_time_without_service() {
        let keys = keys(0, 2);
        let at = |key, end| (key, Op { begin: 0, end, what: What::Get(Seen::Nothing) });
        let log = Log { ops: vec![at(0, 5), at(0, 30), at(0, 70), at(1, 50)], ..Log::default() };
        let gaps = gaps(&keys, &[log], 10, 100);
        assert_eq!(gaps[&keys[0].range()], 40);
        assert_eq!(gaps[&keys[1].range()], 50);
    }
}
