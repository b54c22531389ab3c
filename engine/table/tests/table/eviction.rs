//! Eviction: who goes, who stays, and that it is done in slices.

use crate::counted::Counted;
use dkv_table::{Eviction, Expiry, Options, OutOfMemory, Room, Table};
use std::collections::BTreeSet;

const SECOND: u64 = 1_000;

fn table(memory_bytes_max: u64, eviction: Eviction) -> Table {
    let options = Options { seed: [5, 6], memory_bytes_max, eviction, first_version: 0 };
    Table::new(options, Box::new(Counted::default()))
}

fn spread(i: u64) -> u16 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

fn set(t: &mut Table, now: u64, i: u64, expiry: Expiry) -> Result<u64, OutOfMemory> {
    let key = i.to_le_bytes();
    let place = t.place(&key, spread(i));
    t.set(now, place, &key, &[i as u8; 100], expiry)
}

fn get(t: &Table, now: u64, i: u64) -> bool {
    let key = i.to_le_bytes();
    let found = t.get(now, t.place(&key, spread(i)), &key);
    assert!(found.is_none_or(|entry| entry.value == [i as u8; 100]));
    found.is_some()
}

/// A generator of numbers, the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        self.0 >> 16
    }

    /// A key out of `n`: small numbers far more often, like Zipf's law with an exponent near one.
    fn zipf(&mut self, n: u64) -> u64 {
        let part = (self.next() % (1 << 40)) as f64 / (1u64 << 40) as f64;
        ((n as f64).powf(part) as u64 - 1).min(n - 1)
    }
}

/// Reads of a cache that holds a tenth of the keys: the part that is found.
fn hit_rate(eviction: Eviction) -> f64 {
    let mut t = table(3 << 20, eviction);
    let mut chance = Chance(7);
    let (mut hits, mut reads) = (0, 0);
    for step in 0..600_000u64 {
        let now = 10 * SECOND + step / 10;
        let i = chance.zipf(200_000);
        let hit = get(&t, now, i);
        if !hit {
            // Expiries far away, so that the volatile policies may choose among all.
            set(&mut t, now, i, Expiry::At(now + 100_000 * SECOND)).expect("others are evicted");
        }
        if step % 100 == 0 {
            t.background(now, 16);
        }
        if step > 300_000 {
            hits += u32::from(hit);
            reads += 1;
        }
    }
    assert!(t.memory_bytes() <= 3 << 20);
    f64::from(hits) / f64::from(reads)
}

#[test]
fn recency_and_frequency_keep_the_keys_that_are_used() {
    let random = hit_rate(Eviction::AllKeysRandom);
    for eviction in
        [Eviction::AllKeysLru, Eviction::VolatileLru, Eviction::AllKeysLfu, Eviction::VolatileLfu]
    {
        let rate = hit_rate(eviction);
        println!("{eviction:?} {rate:.3}, random {random:.3}");
        assert!(rate > random + 0.02, "{eviction:?} {rate:.3}, random {random:.3}");
    }
}

#[test]
fn a_hot_set_outlives_a_flood_of_keys_that_are_used_once() {
    for eviction in [Eviction::AllKeysLru, Eviction::AllKeysLfu] {
        let mut t = table(3 << 20, eviction);
        for i in 0..2_000 {
            set(&mut t, 0, i, Expiry::Clear).unwrap();
        }
        for flood in 0..200_000u64 {
            let now = SECOND + flood / 10;
            get(&t, now, flood % 2_000);
            set(&mut t, now, 1_000_000 + flood, Expiry::Clear).expect("others are evicted");
        }
        let kept = (0..2_000).filter(|i| get(&t, 30 * SECOND, *i)).count();
        assert!(kept > 1_950, "{eviction:?} kept {kept} of 2000 hot keys");
    }
}

#[test]
fn only_keys_with_an_expiry_go_under_the_volatile_policies() {
    for eviction in [
        Eviction::VolatileLru,
        Eviction::VolatileLfu,
        Eviction::VolatileRandom,
        Eviction::VolatileTtl,
    ] {
        let mut t = table(3 << 20, eviction);
        for i in 0..10_000 {
            set(&mut t, 0, i, Expiry::Clear).unwrap();
        }
        for i in 10_000..12_000 {
            set(&mut t, 0, i, Expiry::At(SECOND * 1000)).unwrap();
        }
        let refused = (12_000..100_000).find(|i| set(&mut t, 0, *i, Expiry::Clear).is_err());
        assert!(refused.is_some_and(|i| i > 14_000), "{eviction:?} {refused:?}");
        assert!(t.evicted() > 1_950, "{eviction:?} evicted {}", t.evicted());
        let calls = (0..1000).find(|_| t.make_room(0, 50_000) != Room::More);
        assert!(calls.is_some_and(|calls| calls < 20), "{calls:?} calls");
        assert_eq!(t.make_room(0, 50_000), Room::Never);
        assert_eq!((t.evicted(), t.len_with_expiry()), (2_000, 0), "{eviction:?}");
        assert!((0..10_000).all(|i| get(&t, 0, i)), "{eviction:?}");
    }
}

#[test]
fn a_single_key_with_an_expiry_is_found_among_a_hundred_thousand() {
    let mut t = table(0, Eviction::None);
    for i in 0..100_000 {
        set(&mut t, 0, i, Expiry::Clear).unwrap();
    }
    let full = t.memory_bytes();
    for eviction in [Eviction::VolatileTtl, Eviction::VolatileRandom] {
        let mut t = table(full, eviction);
        set(&mut t, 0, 777, Expiry::At(SECOND * 1000)).unwrap();
        for i in (0..100_000).filter(|i| *i != 777) {
            if set(&mut t, 0, i, Expiry::Clear).is_err() {
                break;
            }
        }
        let calls = (0..1000).find(|_| t.make_room(0, 5_000) == Room::Never);
        assert!(calls.is_some_and(|calls| calls < 50), "{calls:?}");
        assert_eq!((t.evicted(), get(&t, 0, 777)), (1, false));
    }
}

#[test]
fn what_expires_first_goes_first() {
    let mut t = table(3 << 20, Eviction::VolatileTtl);
    let mut i = 0;
    while t.evicted() < 5_000 {
        let after = 1 + (i * 7919) % 10_000;
        set(&mut t, 0, i, Expiry::At(after * SECOND)).expect("others are evicted");
        i += 1;
    }
    let kept: Vec<u64> = (0..i).filter(|i| get(&t, 0, *i)).collect();
    let mean = kept.iter().map(|i| 1 + (i * 7919) % 10_000).sum::<u64>() / kept.len() as u64;
    assert!(mean > 5_700, "{mean} where 5000 is the mean of all");
    let soon = kept.iter().filter(|i| 1 + (*i * 7919) % 10_000 < 800).count();
    assert!(soon * 100 < kept.len(), "{soon} of {} that were next to expire", kept.len());
}

#[test]
fn what_expired_goes_before_anything_else_and_is_not_counted_as_evicted() {
    let mut t = table(3 << 20, Eviction::VolatileLru);
    let mut i = 0;
    while t.memory_bytes() < (3 << 20) - 20_000 {
        let expiry = if i % 2 == 0 { SECOND } else { 1000 * SECOND };
        set(&mut t, 0, i, Expiry::At(expiry)).unwrap();
        i += 1;
    }
    let mut removed = 0;
    for more in 0..i / 4 {
        set(&mut t, 2 * SECOND, 1_000_000 + more, Expiry::At(1000 * SECOND)).unwrap();
    }
    assert_eq!(t.evicted(), 0);
    assert!((0..i).filter(|i| i % 2 == 1).all(|i| get(&t, 2 * SECOND, i)));
    loop {
        let expired = t.background(2 * SECOND, 1_000);
        removed += u64::from(expired.removed);
        if !expired.more {
            break;
        }
    }
    assert_eq!(removed, i.div_ceil(2), "those that eviction met are reported too");
}

#[test]
fn the_background_leaves_room_so_that_writes_seldom_evict() {
    let max = 8 << 20;
    let mut t = table(max, Eviction::AllKeysLru);
    let mut i = 0;
    while t.evicted() == 0 {
        set(&mut t, i, i, Expiry::Clear).unwrap();
        i += 1;
    }
    let (mut slices, mut evicted) = (0, t.evicted());
    while t.background(i, 100).more {
        assert!(t.evicted() - evicted <= 36, "a slice is bounded");
        evicted = t.evicted();
        slices += 1;
        assert!(slices < 1_000);
    }
    let free = max - t.memory_bytes();
    assert!((max / 128..max / 32).contains(&free), "{free} bytes are free");
    for _ in 0..400 {
        set(&mut t, i, i, Expiry::Clear).unwrap();
        i += 1;
    }
    assert_eq!(t.evicted(), evicted.max(t.evicted()), "no write had to");
}

#[test]
fn make_room_comes_to_an_end_and_says_so() {
    let max = 4 << 20;
    let mut t = table(max, Eviction::AllKeysRandom);
    for i in 0..20_000 {
        set(&mut t, 0, i, Expiry::Clear).unwrap();
    }
    assert_eq!(t.make_room(0, max), Room::Never, "an empty table would be too large");
    assert!(t.len() > 10_000, "and nothing was evicted for it");
    let mut calls = 0;
    while t.make_room(0, 2 << 20) == Room::More {
        calls += 1;
        assert!(calls < 10_000);
    }
    assert!(calls > 50 && t.memory_bytes() + (2 << 20) <= max && t.len() > 5_000);
    // A value of that size then fits, and goes through a block.
    let mut block = t.block(2 << 20).expect("room was made");
    block.extend(&vec![7; 2 << 20]);
    let place = t.place(b"huge", 0);
    t.set_large(0, place, b"huge", block.freeze(), Expiry::Clear).expect("it is counted already");
    assert_eq!(table(0, Eviction::None).make_room(0, u64::MAX), Room::Enough);
    assert_eq!(table(1, Eviction::AllKeysLru).make_room(0, 1), Room::Never);
}

#[test]
fn what_is_over_the_limit_already_lets_others_go_for_a_smaller_value() {
    let max = 4 << 20;
    for eviction in [Eviction::AllKeysLru, Eviction::AllKeysRandom] {
        let mut t = table(max, eviction);
        let old = t.place(b"old", 0);
        t.set(0, old, b"old", &[1; 300], Expiry::Clear).unwrap();
        let mut others = 0u64;
        while t.evicted() == 0 {
            let key = others.to_le_bytes();
            let place = t.place(&key, spread(others));
            t.set(1, place, &key, &vec![2; 20_000], Expiry::Clear).expect("others are evicted");
            others += 1;
        }
        // The limit is passed by what is received, not by what is written: the record needs less than the one it replaces.
        t.set(2, old, b"old", &[1; 300], Expiry::Clear).unwrap();
        let mut block = t.block(60_000).expect("others can go");
        block.extend(&vec![3; 60_000]);
        assert!(t.memory_bytes() > max);
        let evicted = t.evicted();
        t.set_large(2, old, b"old", block.freeze(), Expiry::Clear).expect("others are evicted");
        assert!(t.evicted() > evicted && t.memory_bytes() <= max, "{eviction:?}");
        assert_eq!(t.get(2, old, b"old").map(|entry| entry.value.len()), Some(60_000));
        // Who makes room first, turn by turn, gets it although nothing more is needed.
        let mut block = t.block(1 << 20).expect("others can go");
        block.extend(&vec![4; 1 << 20]);
        assert!(t.memory_bytes() > max);
        let evicted = t.evicted();
        let calls = (0..100).find(|_| t.make_room(2, 0) != Room::More);
        assert!(calls.is_some() && t.evicted() > evicted, "{eviction:?}");
        assert!(t.make_room(2, 0) == Room::Enough && t.memory_bytes() <= max, "{eviction:?}");
    }
}

#[test]
fn what_is_announced_and_does_not_come_takes_nobodys_memory() {
    let mut t = table(64 << 20, Eviction::None);
    let before = t.memory_bytes();
    let mut blocks: Vec<_> =
        (0..200).map(|_| t.block(1 << 20).expect("nothing has come yet")).collect();
    assert!(t.memory_bytes() - before < 200 * 1024, "{} bytes", t.memory_bytes() - before);
    blocks[0].extend(&vec![1; 1000]);
    assert!(t.memory_bytes() - before < 200 * 1024 + 1000);
    blocks[0].extend(&vec![1; (1 << 20) - 1000]);
    assert!(t.memory_bytes() - before > 1 << 20);
    blocks.clear();
    assert_eq!(t.memory_bytes(), before);
}

#[test]
fn a_batch_meets_the_limit_in_its_middle_and_goes_on() {
    let mut t = table(2 << 20, Eviction::AllKeysLru);
    let mut batch = 0u64;
    while t.evicted() < 10_000 {
        // As a shard does it: places first, all prefetched, then one after the other.
        let places: Vec<_> =
            (batch..batch + 32).map(|i| (i, t.place(&i.to_le_bytes(), spread(i)))).collect();
        for (_, place) in &places {
            t.prefetch_bucket(*place);
        }
        for (_, place) in &places {
            t.prefetch_record(*place);
        }
        for (i, place) in &places {
            t.set(0, *place, &i.to_le_bytes(), &[*i as u8; 100], Expiry::Clear).unwrap();
            assert!(get(&t, 0, *i), "what was just written is there");
        }
        assert!(t.memory_bytes() <= 2 << 20);
        batch += 32;
    }
    // Without a policy the writes before the limit hold, those after it are refused, and reads go on.
    let mut t = table(2 << 20, Eviction::None);
    let results: Vec<bool> =
        (0..20_000).map(|i| set(&mut t, 0, i, Expiry::Clear).is_ok()).collect();
    for (i, ok) in results.iter().enumerate() {
        assert_eq!(get(&t, 0, i as u64), *ok);
    }
    assert!(results.iter().any(|ok| !ok));
}

#[test]
fn a_write_never_evicts_the_key_it_writes() {
    for eviction in [Eviction::AllKeysLru, Eviction::AllKeysRandom, Eviction::VolatileTtl] {
        let mut t = table(1 << 20, eviction);
        let mut now = 0;
        for i in 0..30_000u64 {
            now += 100;
            let old = i % 300;
            // The one that is appended to is the coldest, and its expiry the nearest.
            let key = old.to_le_bytes();
            let place = t.place(&key, spread(old));
            let before = t.get(now, place, &key).map(|e| (e.value.len(), e.expires_at_ms));
            if i % 3 == 0 {
                let len = t.append(now, place, &key, &[old as u8; 50]).unwrap_or(0);
                if len > 0 {
                    assert_eq!(len, before.map_or(0, |b| b.0) + 50);
                    let after = t.get(now, place, &key).expect("written").expires_at_ms;
                    assert_eq!(after, before.and_then(|b| b.1));
                }
                if len > 4_000 {
                    t.remove(now, place, &key);
                }
            } else if before.is_some() {
                let result = t.set(now, place, &key, &vec![1; (i % 700) as usize], Expiry::Keep);
                let after = t.get(now, place, &key).expect("it is not evicted");
                assert_eq!(after.expires_at_ms, before.and_then(|b| b.1));
                assert!(result.is_err() || after.value.len() == (i % 700) as usize);
            } else {
                let _ = t.set(now, place, &key, b"", Expiry::At(now + 1_000_000 + i));
            }
            let _ = set(&mut t, now, 1_000 + i, Expiry::At(now + 2_000_000 + i));
        }
        assert!(t.evicted() > 1_000);
    }
}

#[test]
fn a_scan_reports_what_stays_while_others_are_evicted() {
    let mut t = table(3 << 20, Eviction::VolatileRandom);
    for i in 0..10_000 {
        set(&mut t, 0, i, Expiry::Clear).unwrap();
    }
    let (mut cursor, mut next) = (0, 1_000_000);
    let mut seen = BTreeSet::new();
    loop {
        cursor = t.scan(0, cursor, 0..256, 10, &mut |key, _| {
            seen.insert(u64::from_le_bytes(key.try_into().unwrap()));
        });
        if cursor == 0 {
            break;
        }
        for _ in 0..50 {
            set(&mut t, 0, next, Expiry::At(SECOND)).expect("others are evicted");
            next += 1;
        }
    }
    assert!(t.evicted() > 20_000, "{}", t.evicted());
    assert!((0..10_000).all(|i| seen.contains(&i)));
}

#[test]
fn heat_costs_nothing_when_no_policy_asks_for_it() {
    let held = |eviction| {
        let mut t = table(0, eviction);
        for i in 0..100_000 {
            set(&mut t, 0, i, Expiry::Clear).unwrap();
        }
        t.memory_bytes()
    };
    let none = held(Eviction::None);
    assert_eq!(none, held(Eviction::AllKeysRandom));
    assert_eq!(none, held(Eviction::VolatileTtl));
    let heat = (held(Eviction::AllKeysLru) - none) as f64 / 100_000.0;
    assert!((2.0..4.0).contains(&heat), "{heat} bytes a key");
}

#[test]
fn a_policy_that_is_set_later_learns_which_keys_are_used() {
    let mut t = table(0, Eviction::None);
    let mut now = 1_000_000;
    for i in 0..20_000 {
        set(&mut t, now, i, Expiry::Clear).unwrap();
    }
    let used = t.memory_bytes();
    t.set_eviction(Eviction::AllKeysLru);
    while t.background(now, 1000).more {}
    now += 60_000;
    // A tenth of the keys is used from now on.
    (0..2_000).for_each(|i| assert!(get(&t, now, i * 10), "key {i}"));
    now += 60_000;
    t.set_memory_bytes_max(used / 2);
    while t.background(now, 1000).more {}
    assert!(t.evicted() > 5_000, "{} evicted", t.evicted());
    assert!(t.memory_bytes() <= used / 2);
    let kept = (0..2_000).filter(|i| get(&t, now, i * 10)).count();
    assert!(kept > 1_950, "{kept} of the 2,000 keys that were used are left");
    // And is forgotten under one that does not ask.
    t.set_eviction(Eviction::None);
    t.set_memory_bytes_max(1);
    while t.background(now, 1000).more {}
    assert_eq!(t.make_room(now, 1000), Room::Never);
    t.set_memory_bytes_max(0);
    assert_eq!(t.make_room(now, 1000), Room::Enough);
}
