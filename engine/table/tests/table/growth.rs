//! Growing, and taking apart what was cleared: no step is long, and everything is given back.

use crate::counted::{Counted, Out};
use dkv_table::{Eviction, Expiry, Options, Table};

fn table(memory_bytes_max: u64) -> (Table, Out) {
    let out = Out::default();
    let options =
        Options { seed: [8, 9], memory_bytes_max, eviction: Eviction::None, first_version: 0 };
    (Table::new(options, Box::new(Counted(out.clone()))), out)
}

/// Every write says at once that there is no memory, and everything that is there stays right.
#[test]
fn a_system_without_memory_refuses_writes_and_loses_nothing() {
    for chunks in 0..5 {
        let out = Out::up_to(chunks);
        let options = Options {
            seed: [8, 9],
            memory_bytes_max: 0,
            eviction: Eviction::AllKeysLru,
            first_version: 0,
        };
        let mut t = Table::new(options, Box::new(Counted(out.clone())));
        let mut written = Vec::new();
        for i in 0..40_000u64 {
            // Sizes of many classes, so that pages run out at different times.
            let value = vec![i as u8; (i % 37 * 8) as usize];
            if set(&mut t, i, spread(i), &value) {
                written.push(i);
            }
        }
        assert_eq!((t.len(), t.evicted()), (written.len() as u64, 0), "{chunks} chunks");
        assert!(chunks > 1 || written.is_empty());
        for i in written {
            let place = t.place(&i.to_le_bytes(), spread(i));
            let got = t.get(0, place, &i.to_le_bytes()).map(|entry| entry.value.len() as u64);
            assert_eq!(got, Some(i % 37 * 8));
            assert!(t.remove(0, place, &i.to_le_bytes()));
        }
        assert!(t.is_empty());
    }
    let options =
        Options { seed: [8, 9], memory_bytes_max: 0, eviction: Eviction::None, first_version: 0 };
    let mut t = Table::new(options, Box::new(Counted(Out::up_to(0))));
    assert!(t.block(2 << 20).is_err());
    assert!(!set(&mut t, 1, 1, &vec![0; 2 << 20]));
}

fn spread(i: u64) -> u16 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

fn set(t: &mut Table, i: u64, slot: u16, value: &[u8]) -> bool {
    let place = t.place(&i.to_le_bytes(), slot);
    t.set(0, place, &i.to_le_bytes(), value, Expiry::Clear).is_ok()
}

#[test]
fn no_insert_moves_more_than_a_segment() {
    let (mut all, mut one) = (table(0).0, table(0).0);
    let (mut most, mut most_of_one) = (0, 0);
    for i in 0..2_000_000u64 {
        let before = all.moved_and_copied().0;
        set(&mut all, i, spread(i), b"");
        most = most.max(all.moved_and_copied().0 - before);
        if i < 500_000 {
            let before = one.moved_and_copied().0;
            set(&mut one, i, 99, b"");
            most_of_one = most_of_one.max(one.moved_and_copied().0 - before);
        }
    }
    assert!((100..=192).contains(&most), "{most}");
    assert!((100..=192).contains(&most_of_one), "{most_of_one}");
}

#[test]
fn clearing_is_quick_and_the_memory_comes_back_in_slices() {
    let (mut t, out) = table(0);
    let empty = t.memory_bytes();
    for i in 0..300_000 {
        set(&mut t, i, spread(i), &[1; 100]);
    }
    for i in 300_000..310_000 {
        set(&mut t, i, spread(i), &[2; 8192]);
    }
    for i in 310_000..310_003 {
        set(&mut t, i, spread(i), &vec![3; 2 << 20]);
    }
    let (full, chunks) = (t.memory_bytes(), out.chunks());
    assert_eq!(out.regions(), 3);
    t.clear();
    assert_eq!((t.len(), t.count_in_slot(spread(1))), (0, 0));
    assert_eq!((out.chunks(), out.regions()), (chunks, 3), "nothing is taken apart at once");
    assert!(t.memory_bytes() > full * 9 / 10 && t.memory_bytes() <= full);
    // Life goes on meanwhile, also with another clear.
    let (mut slices, mut before) = (0, t.memory_bytes());
    loop {
        let (chunks, more) = (out.chunks(), t.background(0, 16).more);
        assert!(chunks - out.chunks() <= 16, "{} chunks in a slice", chunks - out.chunks());
        assert!(t.memory_bytes() <= before + 4096);
        slices += 1;
        set(&mut t, slices, 5, b"new");
        before = t.memory_bytes();
        if slices == 5 {
            t.clear();
        }
        if !more {
            break;
        }
    }
    assert!((100..500).contains(&slices), "{slices} slices");
    assert_eq!(out.regions(), 0);
    assert_eq!(t.len(), slices - 5);
    for i in 6..=slices {
        let place = t.place(&i.to_le_bytes(), 5);
        assert!(t.remove(0, place, &i.to_le_bytes()), "{i}");
    }
    while t.background(0, 16).more {}
    assert_eq!(t.memory_bytes(), empty);
    assert!(out.chunks() <= 2);
    drop(t);
    assert_eq!(out.chunks(), 0);
}

#[test]
fn after_a_clear_writes_go_on_at_once_at_the_limit() {
    let (mut t, _) = table(8 << 20);
    let mut n = 0;
    while set(&mut t, n, spread(n), &[1; 200]) {
        n += 1;
    }
    t.clear();
    for i in 0..n * 9 / 10 {
        assert!(set(&mut t, i, spread(i), &[2; 200]), "{i} of {n}");
        assert!(t.memory_bytes() <= 8 << 20);
    }
}

#[test]
fn many_expiries_in_one_second_are_swept_in_slices() {
    let (mut t, _) = table(0);
    for i in 0..200_000u64 {
        let place = t.place(&i.to_le_bytes(), spread(i));
        t.set(0, place, &i.to_le_bytes(), b"v", Expiry::At(5_000 + i % 1000)).unwrap();
    }
    let (mut removed, mut slices) = (0, 0);
    while removed < 200_000 {
        let expired = t.background(6_000, 512);
        assert!(expired.removed <= 512 + 192, "{} in a slice", expired.removed);
        removed += expired.removed;
        slices += 1;
        assert!(expired.more || removed == 200_000);
    }
    assert!(slices > 200 && t.is_empty());
}

#[test]
fn the_keys_of_a_slot_are_walked_in_slices() {
    let (mut t, _) = table(0);
    for i in 0..50_000u64 {
        set(&mut t, i, (i % 64) as u16, b"");
    }
    let (mut cursor, mut seen, mut calls) = (0, Vec::new(), 0);
    loop {
        cursor = t.scan_slot(0, 7, cursor, 100, &mut |key| {
            seen.push(u64::from_le_bytes(key.try_into().unwrap()));
        });
        calls += 1;
        if cursor == 0 {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..50_000).filter(|i| i % 64 == 7).collect::<Vec<u64>>());
    assert!(calls > 20);
    assert_eq!(t.scan_slot(0, 64, 0, 100, &mut |_| panic!("nothing is there")), 0);
}
