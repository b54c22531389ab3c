//! Random operations on a table whose journal feeds another one, late, in batches, and by walks in the middle of it: in the
//! end both hold the same.

use crate::counted::{Counted, Out};
use crate::model::{key_bytes, slot_of};
use dkv_table::{
    Effect, Eviction, Expiry, LARGE_BYTES_MIN, Options, Place, Record, Table, convert_deadline,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const FIRST_VERSION: u64 = 1_700_000_000 << 16;
const RANGES: [u16; 4] = [0, 1, 127, 255];
/// How far the replica's clock is ahead.
const AHEAD_MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Op {
    Set {
        key: u16,
        len: usize,
        after_ms: Option<u64>,
    },
    SetLarge {
        key: u16,
        len: usize,
    },
    Append {
        key: u16,
        len: usize,
    },
    Patch {
        key: u16,
        offset: usize,
        len: usize,
    },
    SetExpiry {
        key: u16,
        after_ms: Option<u64>,
    },
    Remove {
        key: u16,
    },
    Get {
        key: u16,
    },
    /// Several writes of the keys of a range that are one.
    Unit {
        range: usize,
        seed: u64,
        len: usize,
    },
    Background {
        budget: u32,
    },
    Advance {
        ms: u64,
    },
    ClearRange {
        range: usize,
    },
    Clear,
    Deliver {
        effects: usize,
    },
    Resync {
        range: usize,
    },
    Walk {
        range: usize,
        budget: usize,
    },
    ReplicaBackground,
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..600, 2 => 3900usize..4200, 1 => 4096usize..20_000]
}

fn ops(keys: u16) -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => (0..keys, lengths(), prop::option::of(1u64..5_000))
            .prop_map(|(key, len, after_ms)| Op::Set { key, len, after_ms }),
        3 => (0..keys, 4_000usize..40_000).prop_map(|(key, len)| Op::SetLarge { key, len }),
        20 => (0..keys, prop_oneof![9 => 0usize..40, 1 => lengths()]).prop_map(|(key, len)| Op::Append { key, len }),
        15 => (0..keys, prop_oneof![9 => lengths(), 1 => 16_000usize..60_000], prop_oneof![9 => 0usize..40, 1 => lengths()])
            .prop_map(|(key, offset, len)| Op::Patch { key, offset, len }),
        15 => (0..keys, prop::option::of(1u64..5_000)).prop_map(|(key, after_ms)| Op::SetExpiry { key, after_ms }),
        20 => (0..keys).prop_map(|key| Op::Remove { key }),
        10 => (0..keys).prop_map(|key| Op::Get { key }),
        15 => (0..RANGES.len(), any::<u64>(), prop_oneof![5 => 0usize..300, 1 => 4_000usize..9_000])
            .prop_map(|(range, seed, len)| Op::Unit { range, seed, len }),
        5 => (1u32..2000).prop_map(|budget| Op::Background { budget }),
        5 => (1u64..800).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Advance { ms: 100_000_000 }),
        2 => (0..RANGES.len()).prop_map(|range| Op::ClearRange { range }),
        1 => Just(Op::Clear),
        15 => (1usize..60).prop_map(|effects| Op::Deliver { effects }),
        2 => (0..RANGES.len()).prop_map(|range| Op::Resync { range }),
        25 => (0..RANGES.len(), 1usize..5_000).prop_map(|(range, budget)| Op::Walk { range, budget }),
        3 => Just(Op::ReplicaBackground),
    ]
}

/// An effect under way, as a network would carry it.
struct Sent {
    range: u16,
    version: u64,
    head: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// A copy in the making.
#[derive(Clone, Copy, Debug)]
enum Resync {
    Walking {
        cursor: u64,
    },
    /// All is walked; effects up to this version may say again what was.
    Until(u64),
}

type Held = (u16, Vec<u8>, Vec<u8>, u64, Option<u64>);

/// All records of a range, with deadlines of the primary.
fn records(table: &Table, range: u16, ahead_ms: u64) -> Vec<Held> {
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        cursor = table.walk_range(range, cursor, 3_000, &mut |r| {
            assert_eq!(r.large.is_some(), r.value.len() >= LARGE_BYTES_MIN);
            assert!(r.large.is_none_or(|large| **large == *r.value));
            let at = r.expires_at_ms.map(|at| at - ahead_ms);
            all.push((r.slot, r.key.to_vec(), r.value.to_vec(), r.version, at));
        });
        if cursor == 0 {
            all.sort();
            return all;
        }
    }
}

fn sum(table: &Table, range: u16, budget: usize) -> u128 {
    let (mut sum, mut cursor) = (0, 0);
    loop {
        cursor = table.checksum(range, cursor, budget, &mut sum);
        if cursor == 0 {
            return sum;
        }
    }
}

fn plain() -> Table {
    let eviction = Eviction::None;
    let options =
        Options { seed: [7, 9], memory_bytes_max: 0, eviction, first_version: FIRST_VERSION };
    Table::new(options, Box::new(Counted(Out::default())))
}

struct Pair {
    primary: Table,
    replica: Table,
    sent: VecDeque<Sent>,
    /// The last version that the journal gave for each range.
    noted: BTreeMap<u16, u64>,
    resyncs: BTreeMap<u16, Resync>,
    now_ms: u64,
    /// Makes the handles that come to the replica.
    maker: Table,
    skipped: u32,
}

impl Pair {
    fn new(max: u64, eviction: Eviction) -> Self {
        let options =
            Options { seed: [7, 9], memory_bytes_max: max, eviction, first_version: FIRST_VERSION };
        let mut primary = Table::new(options, Box::new(Counted(Out::default())));
        // No memory at all is allowed here, and everything may be evicted.
        let tiny = Options { memory_bytes_max: 1, eviction: Eviction::AllKeysRandom, ..options };
        let mut replica = Table::new(tiny, Box::new(Counted(Out::default())));
        for range in RANGES {
            primary.set_journal(range, true);
            replica.lead(range, false);
            // A replica that was to note what it is told would note it twice.
            replica.set_journal(range, true);
        }
        Self {
            primary,
            replica,
            sent: VecDeque::new(),
            noted: RANGES.iter().map(|range| (*range, FIRST_VERSION)).collect(),
            resyncs: BTreeMap::new(),
            now_ms: 1000,
            maker: plain(),
            skipped: 0,
        }
    }

    fn take(&mut self) {
        let (sent, noted) = (&mut self.sent, &mut self.noted);
        self.primary.take_journal(&mut |range, version, effect| {
            let last = noted.get_mut(&range).expect("only these are journaled");
            assert_eq!(version, *last + 1, "no version is missing");
            *last = version;
            let value = effect.value.map(|value| value.to_vec());
            assert!(value.as_ref().is_none_or(|value| value.len() >= LARGE_BYTES_MIN));
            assert!(effect.head.len() < LARGE_BYTES_MIN + 6000, "{}", effect.head.len());
            sent.push_back(Sent { range, version, head: effect.head.to_vec(), value });
        });
        assert!(!self.primary.has_journal());
        for range in RANGES {
            assert_eq!(self.primary.version_of_range(range), self.noted[&range]);
        }
    }

    fn deliver(&mut self) {
        let Some(Sent { range, version, mut head, value }) = self.sent.pop_front() else { return };
        if version <= self.replica.version_of_range(range) {
            assert!(self.resyncs.contains_key(&range), "sent before the copy was begun anew");
            return;
        }
        let resync = match self.resyncs.get(&range) {
            Some(Resync::Until(last)) if version > *last => {
                self.resyncs.remove(&range);
                false
            }
            other => other.is_some(),
        };
        convert_deadline(&mut head, AHEAD_MS as i64);
        let now = self.now_ms + AHEAD_MS;
        let large = value.as_ref().filter(|value| value.len() % 2 == 0).map(|value| {
            let mut block = self.maker.block(value.len()).expect("a block");
            block.extend(value);
            block.freeze()
        });
        if large.is_none() {
            head.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        let effect = Effect { head: &head, value: large.as_ref() };
        let changed = self.replica.apply(now, range, version, effect, resync);
        assert!(changed == Ok(true) || changed == Ok(false) && resync, "{changed:?}");
        self.skipped += u32::from(changed == Ok(false));
        assert_eq!(self.replica.version_of_range(range), version);
        assert!(!self.replica.has_journal());
    }

    fn walk(&mut self, range: u16, budget: usize) {
        let Some(Resync::Walking { cursor }) = self.resyncs.get(&range).copied() else { return };
        let (replica, now) = (&mut self.replica, self.now_ms + AHEAD_MS);
        let before = replica.version_of_range(range);
        let next = self.primary.walk_range(range, cursor, budget, &mut |record| {
            let expires_at_ms = record.expires_at_ms.map(|at| at + AHEAD_MS);
            replica.load(now, &Record { expires_at_ms, ..*record }).expect("there is memory");
        });
        assert_eq!(replica.version_of_range(range), before);
        self.resyncs.insert(
            range,
            match next {
                0 => Resync::Until(self.primary.version_of_range(range)),
                cursor => Resync::Walking { cursor },
            },
        );
    }

    fn at(&self, key: u16) -> (Vec<u8>, Place) {
        let bytes = key_bytes(key);
        let place = self.primary.place(&bytes, slot_of(key));
        (bytes, place)
    }

    fn apply(&mut self, op: Op) {
        let now = self.now_ms;
        match op {
            Op::Set { key, len, after_ms } => {
                let (bytes, place) = self.at(key);
                let expiry = after_ms.map_or(Expiry::Keep, |ms| Expiry::At(now + ms));
                let value = vec![(now + u64::from(key)) as u8; len];
                let _ = self.primary.set(now, place, &bytes, &value, expiry);
            }
            Op::SetLarge { key, len } => {
                let (bytes, place) = self.at(key);
                if let Ok(mut block) = self.primary.block(len) {
                    block.extend(&vec![now as u8; len]);
                    let value = block.freeze();
                    let _ = self.primary.set_large(now, place, &bytes, value, Expiry::Clear);
                }
            }
            Op::Append { key, len } => {
                let (bytes, place) = self.at(key);
                let _ = self.primary.append(now, place, &bytes, &vec![now as u8; len]);
            }
            Op::Patch { key, offset, len } => {
                let (bytes, place) = self.at(key);
                let _ = self.primary.patch(now, place, &bytes, offset, &vec![now as u8; len]);
            }
            Op::SetExpiry { key, after_ms } => {
                let (bytes, place) = self.at(key);
                self.primary.set_expiry(now, place, &bytes, after_ms.map(|ms| now + ms));
            }
            Op::Remove { key } => {
                let (bytes, place) = self.at(key);
                let (range, live) =
                    (slot_of(key) / 64, self.primary.get(now, place, &bytes).is_some());
                assert_eq!(self.primary.remove(now, place, &bytes), live);
                if live {
                    assert_eq!(
                        self.primary.last_removal(range),
                        self.primary.version_of_range(range)
                    );
                }
            }
            Op::Get { key } => {
                let (bytes, place) = self.at(key);
                let live = self.primary.get(now, place, &bytes).is_some();
                let due = self.primary.expire_if_due(now, place, &bytes);
                assert!(!(live && due));
                assert!(!self.primary.expire_if_due(now, place, &bytes));
                assert!(!self.replica.expire_if_due(now + AHEAD_MS, place, &bytes));
            }
            Op::Unit { range, seed, len } => self.unit(RANGES[range], seed, len),
            Op::Background { budget } => {
                self.primary.background(now, budget);
            }
            Op::Advance { ms } => self.now_ms += ms,
            Op::ClearRange { range } => {
                self.primary.clear_range(RANGES[range]);
                assert_eq!(self.primary.len_of_range(RANGES[range]), 0);
            }
            Op::Clear => {
                self.primary.clear();
                assert_eq!(self.primary.len(), 0);
            }
            Op::Deliver { effects } => (0..effects).for_each(|_| self.deliver()),
            Op::Resync { range } => {
                let range = RANGES[range];
                self.replica.discard_range(range);
                self.replica.set_version(range, self.primary.version_of_range(range));
                self.resyncs.insert(range, Resync::Walking { cursor: 0 });
            }
            Op::Walk { range, budget } => self.walk(RANGES[range], budget),
            Op::ReplicaBackground => {
                let before = RANGES.map(|range| self.replica.len_of_range(range));
                let done = self.replica.background(now + AHEAD_MS, 100_000);
                assert_eq!((done.removed, self.replica.evicted()), (0, 0));
                assert_eq!(before, RANGES.map(|range| self.replica.len_of_range(range)));
            }
        }
        self.take();
        assert_eq!((self.replica.len(), self.replica.len_with_expiry()), (0, 0));
    }

    /// Up to seven writes of up to four keys of a range, so that some meet each other.
    fn unit(&mut self, range: u16, seed: u64, len: usize) {
        let now = self.now_ms;
        let before = (self.primary.version_of_range(range), self.noted[&range]);
        assert_eq!(before.0, before.1);
        let keys: Vec<u16> = (0..500).filter(|key| slot_of(*key) / 64 == range).collect();
        self.primary.begin_unit(range);
        for i in 0..seed % 8 {
            let draw = seed >> (8 + 4 * i);
            let key = keys[(seed >> 40) as usize % 7 * 4 + draw as usize % 4];
            let (bytes, place) = self.at(key);
            let value = vec![(seed + i) as u8; len];
            match draw >> 2 & 3 {
                0 => drop(self.primary.append(now, place, &bytes, &value)),
                1 => {
                    self.primary.set_expiry(now, place, &bytes, (i > 2).then_some(now + 700));
                }
                2 => {
                    self.primary.remove(now, place, &bytes);
                }
                _ => {
                    let expiry = if i == 1 { Expiry::At(now + 900) } else { Expiry::Clear };
                    let _ = self.primary.set(now, place, &bytes, &value, expiry);
                }
            }
        }
        self.primary.end_unit();
        assert!(self.primary.version_of_range(range) <= before.0 + 1);
    }

    fn catch_up(&mut self) {
        for range in RANGES {
            while let Some(Resync::Walking { .. }) = self.resyncs.get(&range) {
                self.walk(range, 1000);
            }
        }
        while !self.sent.is_empty() {
            self.deliver();
        }
        self.resyncs.clear();
    }

    fn check_equal(&self) {
        for range in RANGES {
            assert_eq!(self.primary.version_of_range(range), self.replica.version_of_range(range));
            assert_eq!(self.primary.len_of_range(range), self.replica.len_of_range(range));
            assert!(self.primary.last_removal(range) <= self.replica.last_removal(range));
            let (here, there) =
                (records(&self.primary, range, 0), records(&self.replica, range, AHEAD_MS));
            assert!(here == there, "range {range} differs");
            assert_eq!(sum(&self.primary, range, 100), sum(&self.replica, range, 100_000));
        }
    }
}

fn run(max: u64, eviction: Eviction, script: &[Op]) -> u32 {
    let mut pair = Pair::new(max, eviction);
    for op in script {
        pair.apply(*op);
    }
    pair.catch_up();
    pair.check_equal();
    let Pair { mut primary, mut replica, now_ms, skipped, .. } = pair;
    // The replica takes over, and does from then on what the primary would have done.
    for range in RANGES {
        replica.lead(range, true);
    }
    assert_eq!(replica.len(), primary.len());
    assert_eq!(replica.len_with_expiry(), primary.len_with_expiry());
    let mut third = plain();
    for range in RANGES {
        third.lead(range, false);
        third.set_version(range, replica.version_of_range(range));
        let mut cursor = 0;
        loop {
            cursor = replica.walk_range(range, cursor, 1 << 20, &mut |record| {
                assert_eq!(third.load(now_ms, record), Ok(true));
                assert_eq!(third.load(now_ms, record), Ok(false), "it is there");
            });
            if cursor == 0 {
                break;
            }
        }
    }
    let late = now_ms + 10_000;
    for _ in 0..2 {
        while primary.expire_due(late, 100).more {}
        while replica.expire_due(late + AHEAD_MS, 100).more {}
    }
    assert_eq!((replica.len_with_expiry(), primary.len_with_expiry()), (0, 0));
    replica.take_journal(&mut |range, version, effect| {
        assert!(effect.value.is_none());
        third.apply(0, range, version, effect, false).expect("it follows");
    });
    for range in RANGES {
        assert_eq!(records(&replica, range, 0), records(&third, range, 0));
    }
    skipped
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_fed_by_the_journal_ends_up_the_same(script in prop::collection::vec(ops(500), 1..2000)) {
        run(0, Eviction::None, &script);
    }

    #[test]
    fn so_it_does_when_the_primary_refuses_or_evicts(
        script in prop::collection::vec(ops(300), 500..2000),
        eviction in prop::sample::select(vec![Eviction::None, Eviction::AllKeysLru, Eviction::VolatileTtl]),
    ) {
        run(300_000, eviction, &script);
    }
}
