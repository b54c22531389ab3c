//! Random operations on the table and on a plain map, which must always agree; but for evicted keys, which may be gone.

use crate::counted::{Counted, Out};
use dkv_table::{Eviction, Expiry, LARGE_BYTES_MIN, Options, OutOfMemory, Room, Table};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FIRST_VERSION: u64 = 1_700_000_000 << 16;
const SLOTS: [u16; 6] = [0, 1, 63, 64, 8191, 16383];

#[derive(Clone, Debug)]
struct Held {
    value: Vec<u8>,
    version: u64,
    expires_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set { key: u16, len: usize, expiry: Expire },
    SetLarge { key: u16, len: usize, expiry: Expire },
    Append { key: u16, len: usize },
    Patch { key: u16, offset: usize, len: usize },
    SetExpiry { key: u16, after_ms: Option<u64> },
    Remove { key: u16 },
    Get { key: u16 },
    Scan { count: usize },
    KeysInSlot { slot: usize, buckets: usize },
    Random { entropy: u64 },
    Sweep { budget: u32 },
    Background { budget: u32 },
    MakeRoom { bytes: u64 },
    Hold { key: u16 },
    LetGo,
    Advance { ms: u64 },
    Clear,
}

#[derive(Clone, Copy, Debug)]
enum Expire {
    Keep,
    Clear,
    After(u64),
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0usize..100,
        2 => 100usize..600,
        2 => 3900usize..4200,
        1 => 4096usize..20_000,
    ]
}

fn expiry() -> impl Strategy<Value = Expire> {
    prop_oneof![
        2 => Just(Expire::Keep),
        2 => Just(Expire::Clear),
        2 => (1u64..5_000).prop_map(Expire::After),
        1 => Just(Expire::After(1 << 45)),
    ]
}

fn ops(keys: u16) -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0..keys, lengths(), expiry()).prop_map(|(key, len, expiry)| Op::Set { key, len, expiry }),
        6 => (0..keys, prop_oneof![8 => lengths(), 1 => 1_000_000usize..1_200_000], expiry())
            .prop_map(|(key, len, expiry)| Op::SetLarge { key, len, expiry }),
        20 => (0..keys, prop_oneof![4 => 0usize..40, 1 => lengths()]).prop_map(|(key, len)| Op::Append { key, len }),
        15 => (0..keys, lengths(), prop_oneof![4 => 1usize..40, 1 => lengths()])
            .prop_map(|(key, offset, len)| Op::Patch { key, offset, len: len.max(1) }),
        10 => (0..keys, prop::option::of(1u64..5_000)).prop_map(|(key, after_ms)| Op::SetExpiry { key, after_ms }),
        30 => (0..keys).prop_map(|key| Op::Remove { key }),
        20 => (0..keys).prop_map(|key| Op::Get { key }),
        2 => (1usize..200).prop_map(|count| Op::Scan { count }),
        2 => (0..SLOTS.len(), 0usize..50).prop_map(|(slot, buckets)| Op::KeysInSlot { slot, buckets }),
        2 => any::<u64>().prop_map(|entropy| Op::Random { entropy }),
        3 => (1u32..2000).prop_map(|budget| Op::Sweep { budget }),
        3 => (1u32..2000).prop_map(|budget| Op::Background { budget }),
        1 => (0u64..100_000).prop_map(|bytes| Op::MakeRoom { bytes }),
        3 => (0..keys).prop_map(|key| Op::Hold { key }),
        2 => Just(Op::LetGo),
        5 => (1u64..800).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Advance { ms: 100_000_000 }),
        1 => Just(Op::Clear),
    ]
}

/// Keys of every length up to beyond a small record's, all different.
pub(crate) fn key_bytes(key: u16) -> Vec<u8> {
    let mut bytes = key.to_le_bytes().to_vec();
    let more = match key % 16 {
        0 => 300,
        1 => 5000,
        n => n as usize,
    };
    bytes.resize(2 + more, key as u8);
    bytes
}

pub(crate) fn slot_of(key: u16) -> u16 {
    SLOTS[key as usize % SLOTS.len()]
}

struct Both {
    table: Table,
    out: Out,
    model: BTreeMap<u16, Held>,
    versions: BTreeMap<u16, u64>,
    /// Handles of values as a connection holds them that sends, with what they must stay.
    sent: Vec<(bytes::Bytes, Vec<u8>)>,
    now_ms: u64,
    max: u64,
    evicts: bool,
    refused: u32,
}

impl Both {
    fn new(max: u64, eviction: Eviction) -> Self {
        let options =
            Options { seed: [7, 9], memory_bytes_max: max, eviction, first_version: FIRST_VERSION };
        let out = Out::default();
        let table = Table::new(options, Box::new(Counted(out.clone())));
        Self {
            table,
            out,
            model: BTreeMap::new(),
            versions: BTreeMap::new(),
            sent: Vec::new(),
            now_ms: 1000,
            max,
            evicts: eviction != Eviction::None,
            refused: 0,
        }
    }

    /// Takes over that keys are gone which the table may have evicted; `kept` is one that it may not.
    fn forget_evicted(&mut self, kept: Option<u16>) {
        if !self.evicts {
            return;
        }
        let (table, now) = (&self.table, self.now_ms);
        self.model.retain(|key, held| {
            let bytes = key_bytes(*key);
            let there = table.get(now, table.place(&bytes, slot_of(*key)), &bytes).is_some();
            let expired = held.expires_at_ms.is_some_and(|at| at <= now);
            assert!(there || expired || kept != Some(*key), "the key of a write was evicted");
            there || expired
        });
    }

    fn live(&self, key: u16) -> Option<&Held> {
        self.model.get(&key).filter(|h| h.expires_at_ms.is_none_or(|at| self.now_ms < at))
    }

    /// The version of what was just written: the next one, but for keys that had to go before.
    fn next_version(&self, key: u16) -> u64 {
        let range = slot_of(key) / 64;
        let (before, version) = (self.versions[&range], self.table.version_of_range(range));
        assert!(version == before + 1 || self.evicts && version > before, "{before} {version}");
        version
    }

    /// Versions of all ranges, by range.
    fn versions(&self) -> BTreeMap<u16, u64> {
        SLOTS.iter().map(|slot| (slot / 64, self.table.version_of_range(slot / 64))).collect()
    }

    fn check_key(&self, key: u16) {
        let bytes = key_bytes(key);
        let place = self.table.place(&bytes, slot_of(key));
        self.table.prefetch_bucket(place);
        self.table.prefetch_record(place);
        let got = self.table.get(self.now_ms, place, &bytes);
        if let Some(large) = got.as_ref().and_then(|entry| entry.large) {
            assert_eq!(Some(&**large), got.map(|entry| entry.value));
        } else {
            assert!(got.is_none_or(|entry| bytes.len() + entry.value.len() < 4096));
        }
        let got = got.map(|e| (e.value, e.version, e.expires_at_ms));
        let want = self.live(key).map(|h| (&h.value[..], h.version, h.expires_at_ms));
        assert_eq!(got, want);
    }

    fn apply(&mut self, op: Op) {
        self.versions = self.versions();
        let now = self.now_ms;
        match op {
            Op::Set { key, len, expiry } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                let value = vec![(key as u8) ^ (len as u8); len];
                let before = self.table.memory_bytes();
                let expiry_given = match expiry {
                    Expire::Keep => Expiry::Keep,
                    Expire::Clear => Expiry::Clear,
                    Expire::After(ms) => Expiry::At(now + ms),
                };
                let result = self.table.set(now, place, &bytes, &value, expiry_given);
                self.wrote(key, value, expiry, before, result);
            }
            Op::SetLarge { key, len, expiry } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                let value = vec![(key as u8) ^ (len as u8); len];
                let before = self.table.memory_bytes();
                let Ok(mut block) = self.table.block(len) else {
                    self.refused(before, len as u64 + 6000);
                    self.forget_evicted(None);
                    return;
                };
                for piece in value.chunks(1000) {
                    block.extend(piece);
                }
                assert_eq!((block.len(), block.capacity()), (len, len));
                let expiry_given = match expiry {
                    Expire::Keep => Expiry::Keep,
                    Expire::Clear => Expiry::Clear,
                    Expire::After(ms) => Expiry::At(now + ms),
                };
                let result = self.table.set_large(now, place, &bytes, block.freeze(), expiry_given);
                self.wrote(key, value, expiry, before, result);
            }
            Op::Hold { key } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                if let Some(large) = self.table.get(now, place, &bytes).and_then(|e| e.large) {
                    self.sent.push((large.share(), large.to_vec()));
                }
            }
            Op::LetGo => self.sent.clear(),
            Op::Background { budget } => {
                self.table.background(now, budget);
                self.forget_evicted(None);
            }
            Op::MakeRoom { bytes } => {
                let room = self.table.make_room(now, bytes);
                if self.max == 0 || self.table.memory_bytes() + bytes <= self.max {
                    assert_eq!(room, Room::Enough);
                }
                self.forget_evicted(None);
            }
            Op::Append { key, len } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                let tail = vec![len as u8; len];
                let before = self.table.memory_bytes();
                let result = self.table.append(now, place, &bytes, &tail);
                self.forget_evicted(Some(key));
                if let Ok(new_len) = result {
                    let mut held = self.live(key).cloned().unwrap_or(Held {
                        value: Vec::new(),
                        version: 0,
                        expires_at_ms: None,
                    });
                    held.value.extend_from_slice(&tail);
                    assert_eq!(new_len, held.value.len());
                    held.version = self.next_version(key);
                    self.model.insert(key, held);
                } else {
                    // It may have to move what is there.
                    let moved = self.live(key).map_or(0, |h| h.value.len());
                    self.refused(before, (len + moved) as u64 + 6000);
                }
                self.check_key(key);
            }
            Op::Patch { key, offset, len } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                let part = vec![offset as u8; len];
                let before = self.table.memory_bytes();
                if offset >= LARGE_BYTES_MIN && self.live(key).is_none() {
                    // An expired key goes as an effect of its own before so long a value is made.
                    self.table.remove(now, place, &bytes);
                    self.versions = self.versions();
                }
                let result = self.table.patch(now, place, &bytes, offset, &part);
                self.forget_evicted(Some(key));
                if let Ok(new_len) = result {
                    let mut held = self.live(key).cloned().unwrap_or(Held {
                        value: Vec::new(),
                        version: 0,
                        expires_at_ms: None,
                    });
                    let end = offset + len;
                    held.value.resize(held.value.len().max(end), 0);
                    held.value[offset..end].copy_from_slice(&part);
                    assert_eq!(new_len, held.value.len());
                    held.version = self.next_version(key);
                    self.model.insert(key, held);
                } else {
                    let moved = self.live(key).map_or(0, |h| h.value.len());
                    self.refused(before, (offset + len + moved) as u64 + 6000);
                }
                self.check_key(key);
            }
            Op::SetExpiry { key, after_ms } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                let at = after_ms.map(|ms| now + ms);
                let got = self.table.set_expiry(now, place, &bytes, at);
                self.forget_evicted(Some(key));
                let want = self.live(key).is_some().then(|| self.next_version(key));
                assert_eq!(got, want);
                if let Some(version) = want {
                    let held = self.model.get_mut(&key).expect("it is live");
                    held.version = version;
                    held.expires_at_ms = at;
                }
                self.check_key(key);
            }
            Op::Remove { key } => {
                let bytes = key_bytes(key);
                let place = self.table.place(&bytes, slot_of(key));
                assert_eq!(self.table.remove(now, place, &bytes), self.live(key).is_some());
                self.model.remove(&key);
                self.check_key(key);
            }
            Op::Get { key } => self.check_key(key),
            Op::Scan { count } => self.check_scan(count),
            Op::KeysInSlot { slot, buckets } => {
                let slot = SLOTS[slot];
                let (mut seen, mut cursor) = (Vec::new(), 0);
                loop {
                    let visit = &mut |key: &[u8]| seen.push(key.to_vec());
                    cursor = self.table.scan_slot(now, slot, cursor, buckets, visit);
                    if cursor == 0 {
                        break;
                    }
                }
                let here = |key: &u16| slot_of(*key) == slot && self.live(*key).is_some();
                let keys = self.model.keys().copied().filter(here);
                let mut want: Vec<_> = keys.map(key_bytes).collect();
                want.sort();
                seen.sort();
                assert_eq!(seen, want);
            }
            Op::Random { entropy } => {
                let any = self.model.keys().any(|k| self.live(*k).is_some());
                let got = self.table.random(now, entropy);
                assert_eq!(got.is_some(), any);
                if let Some((key, entry)) = got {
                    let id = u16::from_le_bytes([key[0], key[1]]);
                    assert_eq!(self.live(id).map(|h| &h.value[..]), Some(entry.value));
                }
            }
            Op::Sweep { budget } => {
                let before = self.table.len();
                let expired = self.table.expire_due(now, budget);
                assert_eq!(before - self.table.len(), u64::from(expired.removed));
                let effects =
                    self.versions().values().sum::<u64>() - self.versions.values().sum::<u64>();
                assert_eq!(effects, u64::from(expired.removed), "each removal is an effect");
            }
            Op::Advance { ms } => self.now_ms += ms,
            Op::Clear => {
                self.table.clear();
                self.model.clear();
                assert_eq!(self.table.len(), 0);
            }
        }
        for (bytes, want) in &self.sent {
            assert_eq!(bytes, want, "what is being sent never changes");
        }
        if self.max > 0 {
            // An expiry may take its 8 bytes beyond the limit, and up to 700 keys one granule of 512.
            assert!(
                self.table.memory_bytes() <= self.max + 300 * 512,
                "{}",
                self.table.memory_bytes()
            );
        }
    }

    fn wrote(
        &mut self,
        key: u16,
        value: Vec<u8>,
        expiry: Expire,
        before: u64,
        result: Result<u64, OutOfMemory>,
    ) {
        if let Ok(version) = result {
            let expires_at_ms = match expiry {
                Expire::Keep => self.live(key).and_then(|h| h.expires_at_ms),
                Expire::Clear => None,
                Expire::After(ms) => Some(self.now_ms + ms),
            };
            assert_eq!(version, self.next_version(key));
            self.model.insert(key, Held { value, version, expires_at_ms });
        } else {
            self.refused(before, value.len() as u64 + 6000);
        }
        self.forget_evicted(Some(key));
        self.check_key(key);
    }

    fn refused(&mut self, before: u64, at_most: u64) {
        self.refused += 1;
        if self.evicts {
            return;
        }
        assert!(self.max > 0 && before + at_most > self.max, "refused at {before} of {}", self.max);
    }

    fn check_scan(&self, count: usize) {
        let mut seen = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = self.table.scan(self.now_ms, cursor, 0..256, count, &mut |key, entry| {
                assert!(
                    seen.insert(key.to_vec(), entry.value.to_vec()).is_none(),
                    "a quiet scan repeats nothing"
                );
            });
            assert!(cursor < 1 << 63);
            if cursor == 0 {
                break;
            }
        }
        let want: BTreeMap<_, _> = self
            .model
            .iter()
            .filter(|(k, _)| self.live(**k).is_some())
            .map(|(k, h)| (key_bytes(*k), h.value.clone()))
            .collect();
        assert_eq!(seen.len(), want.len());
        assert_eq!(seen, want);
    }

    /// What must hold when all expired keys are swept.
    fn check_swept(&mut self) {
        // The first round ends a sweep that may be under way, which began too early for some.
        for _ in 0..2 {
            self.now_ms += 1000;
            while self.table.expire_due(self.now_ms, 100).more {}
        }
        self.model.retain(|_, h| h.expires_at_ms.is_none_or(|at| self.now_ms < at));
        assert_eq!(self.table.len(), self.model.len() as u64);
        let with_expiry = self.model.values().filter(|h| h.expires_at_ms.is_some()).count();
        assert_eq!(self.table.len_with_expiry(), with_expiry as u64);
        for slot in SLOTS {
            let want = self.model.keys().filter(|k| slot_of(**k) == slot).count();
            assert_eq!(self.table.count_in_slot(slot), want as u64);
        }
        self.check_scan(7);
    }
}

fn run(max: u64, eviction: Eviction, script: Vec<Op>) -> Ran {
    let empty = Both::new(max, eviction).table.memory_bytes();
    let mut both = Both::new(max, eviction);
    for op in script {
        both.apply(op);
    }
    both.check_swept();
    for key in both.model.keys().copied().collect::<Vec<_>>() {
        both.apply(Op::Remove { key });
    }
    while both.table.background(both.now_ms, 100).more {}
    both.sent.clear();
    assert_eq!(both.table.memory_bytes(), empty, "everything is given back");
    assert_eq!(both.out.regions(), 0);
    assert!(both.out.chunks() <= 3, "{} chunks for nothing", both.out.chunks());
    let ran = Ran { refused: both.refused, evicted: both.table.evicted() };
    drop(both.table);
    assert_eq!(both.out.chunks(), 0, "a table that goes gives back all");
    ran
}

struct Ran {
    refused: u32,
    evicted: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_map_does(script in prop::collection::vec(ops(700), 1..2500)) {
        run(0, Eviction::None, script);
    }

    #[test]
    fn a_refused_write_changes_nothing(script in prop::collection::vec(ops(300), 500..2500)) {
        run(400_000, Eviction::None, script);
    }

    #[test]
    fn eviction_loses_keys_but_never_mistakes_them(
        script in prop::collection::vec(ops(300), 500..2500),
        eviction in prop::sample::select(vec![
            Eviction::AllKeysLru,
            Eviction::VolatileLru,
            Eviction::AllKeysLfu,
            Eviction::VolatileLfu,
            Eviction::AllKeysRandom,
            Eviction::VolatileRandom,
            Eviction::VolatileTtl,
        ]),
    ) {
        run(400_000, eviction, script);
    }
}

#[test]
fn a_small_budget_does_refuse_writes_or_evict() {
    let script: Vec<Op> =
        (0..300).map(|key| Op::Set { key, len: 5000, expiry: Expire::Keep }).collect();
    assert!(run(400_000, Eviction::None, script.clone()).refused > 100);
    assert!(run(400_000, Eviction::VolatileTtl, script.clone()).refused > 100);
    let ran = run(400_000, Eviction::AllKeysLru, script);
    assert!(ran.refused == 0 && ran.evicted > 100, "{} {}", ran.refused, ran.evicted);
}
