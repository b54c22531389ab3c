//! The promises of the table at sizes and in corners that random operations do not reach.

use dkv_table::{Eviction, Expiry, HeapMemory, Options, OutOfMemory, Table};
use std::collections::{BTreeMap, BTreeSet};

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Keys of the large tests.
const N: u64 = 1_000_000;

fn limited(memory_bytes_max: u64, first_version: u64) -> Table {
    let options = Options { seed: SEED, memory_bytes_max, eviction: Eviction::None, first_version };
    Table::new(options, Box::new(HeapMemory))
}

fn table() -> Table {
    limited(0, 100 << 16)
}

fn set(table: &mut Table, key: &[u8], slot: u16, value: &[u8]) {
    let place = table.place(key, slot);
    table.set(0, place, key, value, Expiry::Keep).expect("there is no limit");
}

fn spread(i: u64) -> u16 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

fn scan_all(table: &Table, count: usize) -> (BTreeSet<Vec<u8>>, usize) {
    let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), 0, 0);
    loop {
        cursor = table.scan(0, cursor, 0..256, count, &mut |key, _| {
            seen.insert(key.to_vec());
        });
        calls += 1;
        assert!(cursor < 1 << 63);
        if cursor == 0 {
            return (seen, calls);
        }
    }
}

#[test]
fn a_million_keys_are_all_found_and_all_given_back() {
    let mut t = table();
    let empty = t.memory_bytes();
    for i in 0..N {
        set(&mut t, format!("key:{i:012}").as_bytes(), spread(i), &i.to_le_bytes());
    }
    assert_eq!(t.len(), N);
    assert_eq!((0..16384).map(|slot| t.count_in_slot(slot)).sum::<u64>(), N);
    for i in 0..N {
        let key = format!("key:{i:012}");
        let place = t.place(key.as_bytes(), spread(i));
        assert_eq!(
            t.get(0, place, key.as_bytes()).map(|e| e.value),
            Some(&i.to_le_bytes()[..]),
            "{key}"
        );
        let absent = format!("kez:{i:012}");
        let place = t.place(absent.as_bytes(), spread(i));
        assert_eq!(t.get(0, place, absent.as_bytes()), None);
    }
    // Key 16 + value 8 in a record of 32, and the bucket's share.
    let each = (t.memory_bytes() - empty) as f64 / N as f64;
    assert!((32.0..46.0).contains(&each), "{each} bytes a key");
    for i in 0..N {
        let key = format!("key:{i:012}");
        let place = t.place(key.as_bytes(), spread(i));
        assert!(t.remove(0, place, key.as_bytes()), "{key}");
    }
    assert_eq!((t.len(), t.memory_bytes()), (0, empty));
}

#[test]
fn a_million_keys_of_one_slot_are_all_found() {
    let mut t = table();
    for i in 0..1_000_000u32 {
        set(&mut t, &i.to_le_bytes(), 42, b"");
    }
    assert_eq!(t.count_in_slot(42), 1_000_000);
    for i in 0..1_000_000u32 {
        let place = t.place(&i.to_le_bytes(), 42);
        assert!(t.get(0, place, &i.to_le_bytes()).is_some(), "{i}");
    }
    // A great directory shrinks again, and grows again.
    for i in 0..1_000_000u32 {
        let place = t.place(&i.to_le_bytes(), 42);
        assert!(t.remove(0, place, &i.to_le_bytes()), "{i}");
        if i == 990_000 {
            for i in 0..200_000u32 {
                set(&mut t, &i.to_be_bytes(), 42, b"");
            }
        }
    }
    assert_eq!(
        t.count_in_slot(42),
        200_000
            - (0..200_000u32)
                .filter(|i| i.swap_bytes() > 990_000 && i.swap_bytes() < 1_000_000)
                .count() as u64
    );
}

#[test]
fn a_scan_reports_every_key_that_was_there_all_the_time() {
    for count in [1, 10, 1000] {
        let mut t = table();
        for i in 0..20_000u64 {
            set(&mut t, &i.to_le_bytes(), spread(i), b"stays");
        }
        let mut given: BTreeSet<Vec<u8>> = BTreeSet::new();
        let (mut cursor, mut calls, mut last) = (0, 0u64, 0);
        loop {
            cursor = t.scan(0, cursor, 0..256, count, &mut |key, _| {
                given.insert(key.to_vec());
            });
            calls += 1;
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << 63 && cursor > last, "the position only grows");
            last = cursor;
            // Between calls the table grows, so that everything splits under the cursor, and then shrinks again.
            let phase = calls % 200;
            for i in 0..(if phase < 100 { 60 } else { 0 }) {
                let n = 1_000_000 + (calls / 200) * 100_000 + phase * 60 + i;
                set(&mut t, &n.to_le_bytes(), spread(n), b"comes and goes");
            }
            if phase >= 100 {
                for i in 0..60 {
                    let n = 1_000_000 + (calls / 200) * 100_000 + (phase - 100) * 60 + i;
                    let place = t.place(&n.to_le_bytes(), spread(n));
                    t.remove(0, place, &n.to_le_bytes());
                }
            }
        }
        for i in 0..20_000u64 {
            assert!(given.contains(&i.to_le_bytes()[..]), "key {i} is missing with count {count}");
        }
        assert!(given.iter().all(|k| {
            let n = u64::from_le_bytes(k[..].try_into().unwrap());
            !(20_000..1_000_000).contains(&n)
        }));
    }
}

#[test]
fn a_scan_outlives_mass_removal() {
    let mut t = table();
    for i in 0..100_000u64 {
        set(&mut t, &i.to_le_bytes(), spread(i), b"");
    }
    let mut given = BTreeSet::new();
    let mut cursor = t.scan(0, 0, 0..256, 30_000, &mut |key, _| {
        given.insert(key.to_vec());
    });
    // Nineteen of twenty go: segments merge under the cursor.
    for i in (0..100_000u64).filter(|i| i % 20 != 0) {
        let place = t.place(&i.to_le_bytes(), spread(i));
        assert!(t.remove(0, place, &i.to_le_bytes()));
    }
    while cursor != 0 {
        cursor = t.scan(0, cursor, 0..256, 100, &mut |key, _| {
            given.insert(key.to_vec());
        });
    }
    assert!((0..100_000u64).step_by(20).all(|i| given.contains(&i.to_le_bytes()[..])));
}

#[test]
fn a_scan_stays_in_its_ranges_and_does_bounded_work() {
    let mut t = table();
    for i in 0..50_000u64 {
        set(&mut t, &i.to_le_bytes(), spread(i), b"");
    }
    let (mut cursor, mut seen) = (0, BTreeSet::new());
    loop {
        let mut visited = 0;
        cursor = t.scan(0, cursor, 10..20, 10, &mut |key, _| {
            visited += 1;
            seen.insert(u64::from_le_bytes(key.try_into().unwrap()));
        });
        assert!(visited <= 10 + 36, "{visited} keys for a count of 10");
        if cursor == 0 {
            break;
        }
        assert!((10..20).contains(&(cursor >> 48)));
    }
    let want: BTreeSet<u64> =
        (0..50_000).filter(|i| (10..20).contains(&(spread(*i) / 64))).collect();
    assert_eq!(seen, want);
    // Positions that no scan returned are answered all the same.
    for cursor in [u64::MAX, 1 << 63, 20 << 48, 256 << 48] {
        assert_eq!(t.scan(0, cursor, 10..20, 10, &mut |_, _| panic!("nothing is there")), 0);
    }
    assert_eq!(t.scan(0, 5, 10..10, 10, &mut |_, _| panic!("no ranges")), 0);
}

#[test]
fn a_tiny_table_is_scanned_in_one_call() {
    let mut t = table();
    for i in 0..5u64 {
        set(&mut t, &i.to_le_bytes(), spread(i), b"");
    }
    assert_eq!(scan_all(&t, 10).1, 1);
    assert_eq!(scan_all(&t, 10).0.len(), 5);
}

#[test]
fn keys_with_little_entropy_spread_like_others() {
    // Shapes that break hashes with a public secret, or weak ones: long runs of zeros, one bit, multiples of powers of two.
    let mut t = table();
    let mut keys = BTreeSet::new();
    for i in 0..200_000u64 {
        keys.insert((i << 32).to_le_bytes().to_vec());
        keys.insert((i * 4096).to_be_bytes().to_vec());
    }
    keys.extend((0..4096usize).map(|n| vec![0; n]));
    for bit in 0..4096usize {
        let mut key = vec![0; 512];
        key[bit / 8] = 1 << (bit % 8);
        keys.insert(key);
    }
    for key in &keys {
        set(&mut t, key, 7, b"v");
    }
    // Were they to collide, segments would split far more often than their number asks for.
    let records: u64 =
        keys.iter().map(|k| (k.len() as u64 + 1 + 8 + 8).next_multiple_of(8) * 9 / 8 + 8).sum();
    assert!(t.memory_bytes() < records + keys.len() as u64 * 12, "{} bytes", t.memory_bytes());
    assert_eq!(scan_all(&t, 1000).0, keys);
}

#[test]
fn empty_long_and_large_keys_and_values_come_back_whole() {
    let mut t = table();
    let cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (vec![], vec![]),
        (vec![0], vec![]),
        (vec![1; 255], vec![2; 10]),
        (vec![1; 256], vec![2; 10]),
        (vec![3; 64 * 1024], vec![]),
        (vec![4; 64 * 1024], vec![5; 3 << 20]),
        (b"several megabytes".to_vec(), (0..8_000_000u32).map(|i| i as u8).collect()),
    ];
    for round in 0..3 {
        for (key, value) in &cases {
            let place = t.place(key, 9);
            let expiry = if round == 1 { Expiry::At(1 << 50) } else { Expiry::Clear };
            t.set(5, place, key, value, expiry).unwrap();
        }
        for (key, value) in &cases {
            let place = t.place(key, 9);
            let entry = t.get(5, place, key).unwrap();
            assert!(entry.value == value, "{} bytes", value.len());
            assert_eq!(entry.expires_at_ms, (round == 1).then_some(1 << 50));
        }
    }
}

#[test]
fn a_million_appends_neither_leak_nor_copy_without_end() {
    let mut t = table();
    let empty = t.memory_bytes();
    let key = b"log";
    let place = t.place(key, 1);
    for i in 0..1_000_000usize {
        assert_eq!(t.append(0, place, key, b"0123456789"), Ok((i + 1) * 10));
        let memory = t.memory_bytes();
        assert!(memory - empty < 3000 + (i as u64 + 1) * 10 * 3 / 2, "{memory} bytes after {i}");
    }
    // A region grows in place, so only the way to a region is copied.
    let (_, copied) = t.moved_and_copied();
    assert!(copied < 8 << 20, "{copied} bytes of a value of 10 MB were copied");
    assert!(t.remove(0, place, key));
    assert_eq!(t.memory_bytes(), empty);
    // Many values that grow a little, over and over.
    for i in 0..1_000_000u32 {
        let key = (i % 1000).to_le_bytes();
        let place = t.place(&key, 1);
        t.append(0, place, &key, b"tail").unwrap();
        if i % 10_000 == 9_999 {
            for key in 0..1000u32 {
                let place = t.place(&key.to_le_bytes(), 1);
                t.remove(0, place, &key.to_le_bytes());
            }
            assert_eq!(t.memory_bytes(), empty);
        }
    }
}

#[test]
fn the_limit_holds_for_inserts_overwrites_and_appends_and_lets_go_after_removals() {
    let max = 2 << 20;
    let mut t = limited(max, 0);
    let mut n = 0u64;
    let refused = loop {
        let place = t.place(&n.to_le_bytes(), spread(n));
        match t.set(0, place, &n.to_le_bytes(), &[1; 100], Expiry::Clear) {
            Ok(_) => n += 1,
            Err(OutOfMemory) => break n,
        }
    };
    assert!(t.memory_bytes() <= max && t.memory_bytes() > max - 4096 && refused > 5000);
    let full = t.memory_bytes();
    let first = t.place(&0u64.to_le_bytes(), spread(0));
    let before = t.get(0, first, &0u64.to_le_bytes()).unwrap().version;
    assert_eq!(t.set(0, first, &0u64.to_le_bytes(), &[2; 8000], Expiry::Clear), Err(OutOfMemory));
    assert_eq!(t.append(0, first, &0u64.to_le_bytes(), &[2; 8000]), Err(OutOfMemory));
    assert_eq!((t.memory_bytes(), t.len()), (full, n));
    let entry = t.get(0, first, &0u64.to_le_bytes()).unwrap();
    assert_eq!((entry.value, entry.version), (&[1; 100][..], before));
    // The same size and smaller ones go on.
    assert!(t.set(0, first, &0u64.to_le_bytes(), &[3; 100], Expiry::Clear).is_ok());
    assert!(t.set(0, first, &0u64.to_le_bytes(), b"", Expiry::Clear).is_ok());
    for i in 1..200u64 {
        let place = t.place(&i.to_le_bytes(), spread(i));
        assert!(t.remove(0, place, &i.to_le_bytes()));
    }
    assert!(t.set(0, first, &0u64.to_le_bytes(), &[2; 8000], Expiry::Clear).is_ok());
}

#[test]
fn a_limit_smaller_than_anything_refuses_the_first_write() {
    let mut t = limited(1, 0);
    let place = t.place(b"a", 0);
    assert_eq!(t.set(0, place, b"a", b"b", Expiry::Clear), Err(OutOfMemory));
    assert_eq!(t.append(0, place, b"a", b"b"), Err(OutOfMemory));
    assert_eq!(t.get(0, place, b"a"), None);
    assert_eq!((t.remove(0, place, b"a"), t.len()), (false, 0));
}

#[test]
fn every_effect_gives_its_range_the_next_version() {
    const FIRST: u64 = 100 << 16;
    let mut t = table();
    let (a, b) = (t.place(b"a", 0), t.place(b"b", 16383));
    let versions = |t: &Table| {
        (t.version_of_range(0) - FIRST, t.last_removal(0) - FIRST, t.version_of_range(255) - FIRST)
    };
    assert_eq!(versions(&t), (0, 0, 0));
    assert_eq!(t.set(0, a, b"a", b"", Expiry::Clear), Ok(FIRST + 1));
    assert_eq!(t.set(0, b, b"b", b"", Expiry::Clear), Ok(FIRST + 1), "ranges count for themselves");
    assert!(t.remove(0, a, b"a") && !t.remove(0, a, b"a"));
    assert_eq!(versions(&t), (2, 2, 1));
    assert_eq!(t.set(0, a, b"a", b"", Expiry::Clear), Ok(FIRST + 3));
    t.clear();
    assert_eq!((t.len(), versions(&t)), (0, (4, 4, 2)));
    t.clear();
    assert_eq!(versions(&t), (4, 4, 2), "nothing was there");
    assert_eq!(t.append(0, a, b"a", b"x"), Ok(1));
    assert_eq!(t.get(0, a, b"a").map(|e| e.version), Some(FIRST + 5));
    assert_eq!(t.set_expiry(0, a, b"a", Some(5)), Some(FIRST + 6));
    assert_eq!(t.expire_due(5_000, 100_000).removed, 1);
    assert_eq!(versions(&t), (7, 7, 2));
    t.set_version(0, FIRST + 50);
    assert_eq!(versions(&t), (50, 50, 2));
    assert_eq!(t.set(0, a, b"a", b"", Expiry::At(6_000)), Ok(FIRST + 51));
    assert_eq!(t.set_expiry(6_000, a, b"a", None), None, "it had expired, and goes");
    t.set(6_000, a, b"a", b"", Expiry::Clear).unwrap();
    t.clear_range(0);
    t.clear_range(0);
    assert_eq!(versions(&t), (54, 54, 2));
    t.set(6_000, a, b"a", b"", Expiry::Clear).unwrap();
    t.discard_range(0);
    assert_eq!((t.len(), versions(&t)), (0, (55, 55, 2)), "that is no effect");
}

#[test]
fn an_expired_key_is_invisible_at_once_and_swept_by_the_next_sweep() {
    let mut t = table();
    let empty = t.memory_bytes();
    for i in 0..10_000u64 {
        let place = t.place(&i.to_le_bytes(), spread(i));
        let expiry = if i % 2 == 0 { Expiry::At(5_000 + i / 100) } else { Expiry::Clear };
        t.set(1, place, &i.to_le_bytes(), b"value", expiry).unwrap();
    }
    assert_eq!(t.len_with_expiry(), 5_000);
    assert_eq!(t.expire_due(4_000, u32::MAX).removed, 0);
    let place = t.place(&0u64.to_le_bytes(), spread(0));
    assert!(t.get(4_999, place, &0u64.to_le_bytes()).is_some());
    assert_eq!(t.get(5_000, place, &0u64.to_le_bytes()), None);
    let now = 5_100;
    let mut seen = 0;
    let mut cursor = 0;
    loop {
        cursor = t.scan(now, cursor, 0..256, 100, &mut |_, _| seen += 1);
        if cursor == 0 {
            break;
        }
    }
    assert_eq!((seen, t.len()), (5_000, 10_000));
    let (mut removed, mut lag_ms, mut calls) = (0, 0, 0);
    loop {
        let expired = t.expire_due(now, 64);
        removed += expired.removed;
        lag_ms = lag_ms.max(expired.lag_ms);
        calls += 1;
        if !expired.more {
            break;
        }
    }
    assert_eq!((removed, lag_ms), (5_000, 100));
    assert!(calls > 10, "the budget bounds a call");
    assert_eq!((t.len(), t.len_with_expiry()), (5_000, 0));
    assert_eq!((0..16384).map(|slot| t.count_in_slot(slot)).sum::<u64>(), 5_000);
    // A sweep with nothing to do costs nothing, and what is left can be taken away.
    assert_eq!(t.expire_due(now + 1_000, u32::MAX), dkv_table::Expired::default());
    for i in (1..10_000u64).step_by(2) {
        let place = t.place(&i.to_le_bytes(), spread(i));
        assert!(t.remove(now, place, &i.to_le_bytes()));
    }
    assert_eq!(t.memory_bytes(), empty);
}

#[test]
fn expiries_of_all_distances_are_swept_in_time() {
    let mut t = table();
    let mut due: BTreeMap<u64, u64> = BTreeMap::new();
    let mut now = 1_000;
    for i in 0..3_000u64 {
        let at = now + 1 + (1 << (i % 40)) + i * 37;
        let place = t.place(&i.to_le_bytes(), spread(i));
        t.set(now, place, &i.to_le_bytes(), b"v", Expiry::At(at)).unwrap();
        *due.entry(at).or_default() += 1;
    }
    // Steps of a few seconds at first, then of hours and days in which nobody sweeps.
    for step in (0..200).map(|_| 5_000).chain((0..60).map(|n| 1u64 << (12 + n % 26))) {
        now += step;
        while t.expire_due(now, 1_000).more {}
        due = due.split_off(&(now + 1));
        assert_eq!(t.len(), due.values().sum::<u64>(), "at {now} after a step of {step}");
        assert_eq!(t.len(), t.len_with_expiry());
    }
    assert!(due.len() < 600);
}

#[test]
fn a_write_replaces_an_expired_key_as_if_it_were_new() {
    let mut t = table();
    let place = t.place(b"k", 3);
    t.set(0, place, b"k", b"old", Expiry::At(10)).unwrap();
    assert_eq!(t.append(10, place, b"k", b"new"), Ok(3));
    let entry = t.get(10, place, b"k").unwrap();
    assert_eq!((entry.value, entry.expires_at_ms), (&b"new"[..], None));
    t.set(10, place, b"k", b"old", Expiry::At(20)).unwrap();
    t.set(20, place, b"k", b"new", Expiry::Keep).unwrap();
    assert_eq!(t.get(20, place, b"k").unwrap().expires_at_ms, None);
    t.set(20, place, b"k", b"old", Expiry::At(30)).unwrap();
    assert_eq!(t.set_expiry(30, place, b"k", None), None);
    assert_eq!((t.len(), t.len_with_expiry()), (0, 0));
    t.set(30, place, b"k", b"old", Expiry::At(40)).unwrap();
    assert!(!t.remove(40, place, b"k"));
    assert_eq!(t.len(), 0);
}

#[test]
fn every_key_has_about_the_same_chance() {
    let mut t = table();
    assert_eq!(t.random(0, 1), None);
    for i in 0..100u64 {
        set(&mut t, &i.to_le_bytes(), (i % 3) as u16 * 64, b"");
    }
    let mut hits = BTreeMap::new();
    for i in 0..100_000u64 {
        let (key, _) = t.random(0, i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
        *hits.entry(key.to_vec()).or_insert(0) += 1;
    }
    assert_eq!(hits.len(), 100);
    assert!(hits.values().all(|n| (600..1500).contains(n)), "{:?}", hits.values());
}

#[test]
fn memory_between_records_is_taken_back_when_sizes_change() {
    let mut t = table();
    for i in 0..200_000u64 {
        set(&mut t, &i.to_le_bytes(), spread(i), &[1; 100]);
    }
    // One of ten stays in each page; the sweep brings them together, and nothing is lost on the way.
    for i in (0..200_000u64).filter(|i| i % 10 != 0) {
        let place = t.place(&i.to_le_bytes(), spread(i));
        t.remove(0, place, &i.to_le_bytes());
    }
    let mut now = 1_000;
    for _ in 0..20 {
        now += 1_000;
        while t.expire_due(now, 500).more {}
    }
    assert!(t.idle_bytes() < 12 << 20, "{} bytes lie idle", t.idle_bytes());
    for i in (0..200_000u64).step_by(10) {
        let place = t.place(&i.to_le_bytes(), spread(i));
        assert_eq!(t.get(now, place, &i.to_le_bytes()).map(|e| e.value), Some(&[1; 100][..]));
    }
}
