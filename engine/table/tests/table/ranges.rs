//! Ranges that are led, followed, journaled and cleared, each at a time: what random operations do not reach.

use crate::counted::{Counted, Out};
use dkv_table::{ApplyError, Effect, Eviction, Expiry, LARGE_BYTES_MIN, Options, Record, Table};

const FIRST: u64 = 1 << 20;

fn table_of(memory_bytes_max: u64, eviction: Eviction) -> (Table, Out) {
    let out = Out::default();
    let options = Options { seed: [5, 6], memory_bytes_max, eviction, first_version: FIRST };
    (Table::new(options, Box::new(Counted(out.clone()))), out)
}

fn table() -> Table {
    table_of(0, Eviction::None).0
}

fn set(t: &mut Table, i: u64, slot: u16, value: &[u8], expiry: Expiry) -> bool {
    let place = t.place(&i.to_le_bytes(), slot);
    t.set(0, place, &i.to_le_bytes(), value, expiry).is_ok()
}

/// What the journal has, with versions counted from the first and the lengths of values that are handles.
fn effects(t: &mut Table) -> Vec<(u16, u64, Vec<u8>, usize)> {
    let mut all = Vec::new();
    t.take_journal(&mut |range, version, effect| {
        let value = effect.value.map_or(0, |value| value.len());
        all.push((range, version - FIRST, effect.head.to_vec(), value));
    });
    all
}

#[test]
fn the_journal_has_every_effect_of_its_ranges_and_none_of_others() {
    let mut t = table();
    t.set_journal(1, true);
    let (a, b, other) = (t.place(b"a", 67), t.place(b"b", 64), t.place(b"c", 0));
    t.set(5, a, b"a", b"1", Expiry::Clear).unwrap();
    t.set(5, other, b"c", b"not journaled", Expiry::Clear).unwrap();
    assert_eq!(t.append(5, a, b"a", b"23"), Ok(3));
    assert!(t.set_expiry(5, a, b"a", Some(258)).is_some());
    assert!(t.set_expiry(5, a, b"a", None).is_some());
    assert_eq!(t.append(5, b, b"b", b"new"), Ok(3));
    assert!(t.remove(5, a, b"a") && !t.remove(5, a, b"a"));
    t.set(5, b, b"b", b"", Expiry::At(9)).unwrap();
    assert!(!t.expire_if_due(8, b, b"b") && t.expire_if_due(9, b, b"b"));
    t.set(9, b, b"b", b"", Expiry::At(10)).unwrap();
    assert_eq!(t.expire_due(1000, 100_000).removed, 1);
    t.set(1000, b, b"b", b"", Expiry::Keep).unwrap();
    t.clear_range(1);
    t.clear_range(1);
    let none = [0; 8];
    let at = |ms: u64| ms.to_le_bytes();
    let put =
        |place: u8, at: [u8; 8], rest: &[u8]| [&[1, place], &at[..], &[1, 0, 0, 0], rest].concat();
    let heads = [
        put(3, none, b"a1"),
        [&b"\x03\x03"[..], &at(1), &[1, 0, 0, 0], b"a23"].concat(),
        [&b"\x02\x03"[..], &at(258), b"a"].concat(),
        [&b"\x02\x03"[..], &none, b"a"].concat(),
        put(0, none, b"bnew"),
        b"\x04\x03a".to_vec(),
        put(0, at(9), b"b"),
        b"\x04\x00b".to_vec(),
        put(0, at(10), b"b"),
        b"\x04\x00b".to_vec(),
        put(0, none, b"b"),
        b"\x05\x00".to_vec(),
    ];
    let want: Vec<_> =
        heads.into_iter().enumerate().map(|(i, head)| (1, i as u64 + 1, head, 0)).collect();
    assert!(t.has_journal());
    assert_eq!(effects(&mut t), want);
    assert!(!t.has_journal());
    t.set_journal(1, false);
    t.set(1000, b, b"b", b"", Expiry::Keep).unwrap();
    assert_eq!((effects(&mut t), t.version_of_range(1)), (vec![], FIRST + 13));
}

#[test]
fn great_values_are_journaled_as_handles() {
    let mut t = table();
    t.set_journal(0, true);
    let place = t.place(b"k", 0);
    let empty = t.memory_bytes();
    let long = vec![7; LARGE_BYTES_MIN];
    t.set(0, place, b"k", &long[1..], Expiry::Clear).unwrap();
    t.set(0, place, b"k", &long, Expiry::Clear).unwrap();
    t.append(0, place, b"k", &long).unwrap();
    t.append(0, place, b"k", b"short").unwrap();
    t.set_expiry(0, place, b"k", Some(5)).unwrap();
    let mut block = t.block(3 << 20).unwrap();
    block.extend(&vec![1; 3 << 20]);
    t.set_large(0, place, b"k", block.freeze(), Expiry::Clear).unwrap();
    let held = t.memory_bytes();
    let shared = t.get(0, place, b"k").and_then(|entry| entry.large).unwrap().share().as_ptr();
    let mut at = Vec::new();
    t.take_journal(&mut |_, _, effect| {
        at.extend(effect.value.map(|value| value.share().as_ptr()));
    });
    assert!(at.len() == 3 && at[2] == shared, "no copy");
    assert!(
        t.memory_bytes() < held - 2 * LARGE_BYTES_MIN as u64,
        "what only the journal held is gone"
    );
    t.set(0, place, b"k", &long, Expiry::Clear).unwrap();
    t.append(0, place, b"k", &long).unwrap();
    let sizes: Vec<_> =
        effects(&mut t).into_iter().map(|(.., head, value)| (head.len(), value)).collect();
    assert_eq!(sizes, [(15, LARGE_BYTES_MIN), (15, LARGE_BYTES_MIN)]);
    assert!(t.remove(0, place, b"k"));
    effects(&mut t);
    assert_eq!(t.memory_bytes(), empty);
}

#[test]
fn a_range_that_is_not_led_keeps_its_expired_keys_and_nobody_sees_them() {
    let mut t = table();
    for i in 0..4096u64 {
        set(&mut t, i, (i % 128) as u16, b"v", Expiry::At(1000 + i));
    }
    t.lead(1, false);
    assert_eq!((t.len(), t.len_with_expiry(), t.len_of_range(1)), (2048, 2048, 2048));
    let removed: u32 = (0..200).map(|i| t.background(10_000 + 100 * i, 1000).removed).sum();
    assert_eq!((removed, t.len(), t.len_of_range(1)), (2048, 0, 2048));
    let place = t.place(&64u64.to_le_bytes(), 64);
    assert_eq!(t.get(10_000, place, &64u64.to_le_bytes()), None);
    assert!(t.get(1000, place, &64u64.to_le_bytes()).is_some());
    t.set_journal(1, true);
    assert!(!t.expire_if_due(10_000, place, &64u64.to_le_bytes()));
    assert_eq!(t.set_expiry(10_000, place, &64u64.to_le_bytes(), None), None);
    assert_eq!(t.scan(0, 0, 0..256, 10_000, &mut |_, _| panic!("none is led")), 0);
    assert_eq!(t.random(0, 99), None);
    t.clear();
    assert_eq!(t.len_of_range(1), 2048, "it is not this table's to clear");
    // So much later that the hints have gone half round their circle it comes to lead; the sweep never rested meanwhile.
    for now in (20_000..6_000_000).step_by(200_000) {
        set(&mut t, 9_999, 0, b"v", Expiry::At(now + 1_000_000));
        while t.background(now, 1000).more {}
    }
    assert_eq!(t.len_of_range(1), 2048);
    t.lead(1, true);
    for now in (6_000_000..6_030_000).step_by(100) {
        t.background(now, 1000);
    }
    assert_eq!((t.len(), t.len_of_range(1)), (1, 0));
    assert_eq!(effects(&mut t).len(), 2048);
}

#[test]
fn eviction_leaves_ranges_alone_that_are_not_led() {
    for eviction in [Eviction::AllKeysLru, Eviction::AllKeysRandom, Eviction::VolatileTtl] {
        let (mut t, _) = table_of(2 << 20, eviction);
        for i in 0..5000u64 {
            assert!(set(&mut t, i, 64 + (i % 64) as u16, &[1; 100], Expiry::At(1 << 40)));
        }
        t.lead(1, false);
        t.set_journal(0, true);
        let before = t.version_of_range(0);
        for i in 10_000..40_000u64 {
            assert!(
                set(&mut t, i, (i % 64) as u16, &[1; 100], Expiry::At(1 << 40)),
                "{eviction:?} {i}"
            );
        }
        assert_eq!(t.len_of_range(1), 5000);
        assert!(t.evicted() > 10_000);
        let all = effects(&mut t);
        assert_eq!(all.len() as u64, 30_000 + t.evicted());
        assert_eq!(t.version_of_range(0) - before, all.len() as u64);
        // With nothing left to lead nothing may be evicted, and a copy is not refused.
        t.lead(0, false);
        assert!(!set(&mut t, 50_000, 5000, &vec![1; 500_000], Expiry::Clear));
        let value = &vec![1; 500_000];
        let record =
            Record { slot: 64, key: b"k", value, large: None, version: 1, expires_at_ms: None };
        assert_eq!(t.load(0, &record), Ok(true));
        assert!(t.memory_bytes() > 2 << 20);
    }
}

#[test]
fn a_cleared_range_is_gone_at_once_and_its_memory_comes_back_in_slices() {
    let (mut t, out) = table_of(0, Eviction::None);
    let empty = t.memory_bytes();
    for i in 0..204_800u64 {
        set(&mut t, i, (i % 128) as u16, &[1; 100], Expiry::At(1 << 40));
    }
    for i in 204_800..205_300u64 {
        set(&mut t, i, 0, &[2; 8192], Expiry::Clear);
    }
    set(&mut t, 300_000, 0, &vec![2; 2 << 20], Expiry::Clear);
    let full = t.memory_bytes();
    t.clear_range(0);
    assert_eq!(
        (t.len_of_range(0), t.count_in_slot(0), t.len(), t.len_with_expiry()),
        (0, 0, 102_400, 102_400)
    );
    assert!(
        t.memory_bytes() > full * 9 / 10 && out.regions() == 1,
        "nothing is taken apart at once"
    );
    // Life goes on meanwhile, in that range too, also with another clearing.
    let mut slices = 0u64;
    loop {
        let before = t.memory_bytes();
        let more = t.background(0, 100_000).more;
        // 512 records of 128 bytes and as many entries, or 64 large values.
        assert!(before - t.memory_bytes() < 3 << 20, "{}", before - t.memory_bytes());
        slices += 1;
        set(&mut t, slices, 0, b"new", Expiry::Clear);
        if slices == 20 {
            t.clear_range(0);
        }
        if !more {
            break;
        }
    }
    assert!((200..300).contains(&slices), "{slices} slices");
    assert_eq!((t.len_of_range(0), out.regions()), (slices - 20, 0));
    for i in (0..204_800u64).filter(|i| i % 128 >= 64) {
        let place = t.place(&i.to_le_bytes(), (i % 128) as u16);
        assert!(t.get(0, place, &i.to_le_bytes()).is_some(), "{i}");
    }
    t.clear_range(0);
    t.clear_range(1);
    t.background(0, 16);
    // What is half taken apart goes with all the rest.
    set(&mut t, 1, 9999, b"v", Expiry::Clear);
    t.clear();
    while t.background(0, 16).more {}
    assert_eq!(t.memory_bytes(), empty);
    assert!(out.chunks() <= 2);
}

#[test]
fn clearing_all_touches_what_is_led_and_is_journaled() {
    let mut t = table();
    for range in 0..4u16 {
        for i in 0..100 {
            set(&mut t, i, range * 64, b"v", Expiry::Clear);
        }
    }
    t.lead(1, false);
    t.set_journal(0, true);
    t.set_journal(1, true);
    t.clear();
    assert_eq!([0, 1, 2, 3].map(|range| t.len_of_range(range)), [0, 100, 0, 0]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|range| t.version_of_range(range) - FIRST),
        [101, 100, 101, 101, 0]
    );
    assert_eq!(effects(&mut t), [(0, 101, b"\x05\x00".to_vec(), 0)]);
    t.discard_range(1);
    assert_eq!(
        (t.len_of_range(1), t.version_of_range(1) - FIRST, effects(&mut t)),
        (0, 100, vec![])
    );
    assert_eq!((t.len(), t.is_empty()), (0, true));
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let put =
        |value: &str| [&b"\x01\x00\0\0\0\0\0\0\0\0\x01\0\0\0k"[..], value.as_bytes()].concat();
    let append = |before: u8, tail: &str| {
        [b"\x03\x00", &[before, 0, 0, 0, 0, 0, 0, 0][..], b"\x01\0\0\0k", tail.as_bytes()].concat()
    };
    let (expire, delete) = (b"\x02\x00\x09\0\0\0\0\0\0\0k".to_vec(), b"\x04\x00k".to_vec());
    let (gap, conflict) = (Err(ApplyError::Gap), Err(ApplyError::Conflict));
    // Version, effect, whether in a resync, what comes of it.
    let steps = [
        (1, append(0, "x"), false, conflict),
        (1, expire.clone(), false, conflict),
        (1, delete.clone(), false, conflict),
        (1, b"\x07\x00k".to_vec(), false, Err(ApplyError::Malformed)),
        (2, put("x"), false, gap),
        (0, put("x"), false, gap),
        (0, put("x"), true, gap),
        (1, put("ab"), false, Ok(true)),
        (1, put("ab"), false, gap),
        (2, append(1, "c"), false, conflict),
        (2, append(3, "c"), true, conflict),
        (2, append(2, "c"), false, Ok(true)),
        (3, expire.clone(), false, Ok(true)),
        (4, delete.clone(), false, Ok(true)),
        (4, delete.clone(), true, gap),
        (7, delete.clone(), true, Ok(false)),
        (9, append(0, "x"), true, Ok(false)),
        (10, expire, true, Ok(false)),
        (20, put("z"), true, Ok(true)),
        (22, b"\x05\x00".to_vec(), false, gap),
        (21, b"\x05\x00".to_vec(), false, Ok(true)),
        (22, b"\x05\x00".to_vec(), false, Ok(true)),
    ];
    let mut t = table();
    t.lead(0, false);
    for (i, (version, effect, resync, want)) in steps.into_iter().enumerate() {
        let before = (t.version_of_range(0), t.last_removal(0), t.len_of_range(0));
        let got = t.apply(0, 0, FIRST + version, Effect::bytes(&effect), resync);
        assert_eq!(got, want, "step {i}");
        if got.is_ok() {
            assert_eq!(t.version_of_range(0), FIRST + version);
        } else {
            assert_eq!((t.version_of_range(0), t.last_removal(0), t.len_of_range(0)), before);
        }
    }
    assert_eq!((t.len_of_range(0), t.last_removal(0)), (0, FIRST + 22));
    let malformed = Err(ApplyError::Malformed);
    for (range, version) in [(256, FIRST + 1), (u16::MAX, FIRST + 1), (1, 1 << 48), (1, u64::MAX)] {
        assert_eq!(t.apply(0, range, version, Effect::bytes(&put("x")), true), malformed);
    }
    for (slot, version) in [(16384, 1), (u16::MAX, 1), (5, 0), (5, 1 << 48)] {
        let record =
            Record { slot, key: b"k", value: b"", large: None, version, expires_at_ms: None };
        assert_eq!(t.load(0, &record), malformed, "{slot} {version}");
    }
}

#[test]
fn a_clearing_in_a_resync_takes_what_was_loaded_and_the_effects_after_it_bring_it_back() {
    let mut t = table();
    t.lead(0, false);
    let load = |t: &mut Table, key: &[u8], value: &[u8], version: u64| {
        let version = FIRST + version;
        let record = Record { slot: 0, key, value, large: None, version, expires_at_ms: None };
        t.load(0, &record).expect("there is memory")
    };
    assert!(load(&mut t, b"old", b"v", 40));
    assert!(load(&mut t, b"k", b"ab", 52) && !load(&mut t, b"k", b"other", 52));
    // In the log: a clearing, and how "k" came to be what was walked.
    let effects: [&[u8]; 3] = [
        b"\x05\x00",
        b"\x01\x00\0\0\0\0\0\0\0\0\x01\0\0\0ka",
        b"\x03\x00\x01\0\0\0\0\0\0\0\x01\0\0\0kb",
    ];
    for (version, effect) in (FIRST + 50..).zip(effects) {
        assert_eq!(t.apply(0, 0, version, Effect::bytes(effect), true), Ok(true));
    }
    let entry = t.get(0, t.place(b"k", 0), b"k").map(|entry| (entry.value, entry.version));
    assert_eq!(entry, Some((&b"ab"[..], FIRST + 52)));
    assert_eq!(
        (t.len_of_range(0), t.version_of_range(0), t.last_removal(0)),
        (1, FIRST + 52, FIRST + 50)
    );
}

#[test]
fn a_walk_visits_every_key_that_was_there_all_the_time_in_slices() {
    for budget in [1, 1000, 64 << 10] {
        let mut t = table();
        for i in 0..20_000u64 {
            set(&mut t, i, 5, b"stays", Expiry::At(1));
        }
        set(&mut t, 30_000, 5, &vec![0; 1 << 20], Expiry::Clear);
        let mut given = std::collections::BTreeSet::new();
        let (mut cursor, mut calls) = (0, 0u64);
        loop {
            let mut bytes = 0;
            cursor = t.walk_range(0, cursor, budget, &mut |record| {
                bytes += if record.large.is_some() { 64 } else { 64 + 8 + record.value.len() };
                assert_eq!((record.slot, record.version > FIRST), (5, true));
                given.insert(u64::from_le_bytes(record.key.try_into().unwrap()));
            });
            // Beyond the budget there is the rest of a bucket, its neighbour's and the stash at most.
            assert!(bytes < budget + 36 * 100, "{bytes} of {budget}");
            calls += 1;
            if cursor == 0 {
                break;
            }
            // Between slices the range grows, so that everything splits under the cursor, and then shrinks again.
            for i in 0..40 {
                let n = 1_000_000 + calls % 100 * 40 + i;
                if calls % 200 < 100 {
                    set(&mut t, n, 5, b"comes and goes", Expiry::Clear);
                } else {
                    let place = t.place(&n.to_le_bytes(), 5);
                    t.remove(0, place, &n.to_le_bytes());
                }
            }
        }
        assert!((0..20_000).chain([30_000]).all(|i| given.contains(&i)), "budget {budget}");
        assert_eq!(t.walk_range(1, 0, budget, &mut |_| panic!("nothing is there")), 0);
    }
}

#[test]
fn sums_tell_copies_apart_and_do_not_depend_on_the_order() {
    let sum = |t: &Table, budget| {
        let (mut sum, mut cursor) = (0, 0);
        loop {
            cursor = t.checksum(3, cursor, budget, &mut sum);
            if cursor == 0 {
                return sum;
            }
        }
    };
    let with = |change: &dyn Fn(&mut Table)| {
        let mut t = table();
        for i in 0..3000u64 {
            let key = i.to_le_bytes();
            let record = Record {
                slot: 192,
                key: &key,
                value: b"value",
                large: None,
                version: 10 + i,
                expires_at_ms: Some(77),
            };
            t.load(0, &record).expect("there is memory");
        }
        change(&mut t);
        t
    };
    let same = sum(&with(&|_| {}), 1);
    assert_eq!(same, sum(&with(&|_| {}), 1 << 20));
    let key = &5u64.to_le_bytes()[..];
    let other = |value: &'static [u8], version, expires_at_ms| {
        let t = with(&|t| {
            t.discard_range(3);
            for i in (0..3000u64).rev() {
                let changed = i == 5;
                let record = Record {
                    slot: 192,
                    key: if changed { key } else { &i.to_le_bytes() },
                    value: if changed { value } else { b"value" },
                    large: None,
                    version: if changed { version } else { 10 + i },
                    expires_at_ms: if changed { expires_at_ms } else { Some(1) },
                };
                t.load(0, &record).expect("there is memory");
            }
        });
        sum(&t, 500)
    };
    assert_eq!(other(b"value", 15, Some(99)), same);
    assert_ne!(other(b"valuf", 15, Some(99)), same);
    assert_ne!(other(b"value", 16, Some(99)), same);
    assert_ne!(other(b"value", 15, None), same);
    assert_ne!(sum(&with(&|t| t.discard_range(3)), 1), same);
}
