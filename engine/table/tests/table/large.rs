//! Large values: shared, grown, copied only when they must be, and given back.

use crate::counted::{Counted, Out};
use dkv_table::{Eviction, Expiry, LARGE_BYTES_MIN, Options, OutOfMemory, Table};

const MIB: usize = 1 << 20;

fn table(memory_bytes_max: u64) -> (Table, Out) {
    let out = Out::default();
    let options =
        Options { seed: [3, 4], memory_bytes_max, eviction: Eviction::None, first_version: 0 };
    (Table::new(options, Box::new(Counted(out.clone()))), out)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8).collect()
}

#[test]
fn a_received_value_is_kept_without_a_copy_and_shared_without_one() {
    let (mut t, out) = table(0);
    let empty = t.memory_bytes();
    for len in [0, 10, 4096, LARGE_BYTES_MIN, MIB, MIB + 1, 5 * MIB] {
        let value = pattern(len);
        let place = t.place(b"key", 1);
        let mut block = t.block(len).unwrap();
        assert!(block.is_empty());
        for piece in value.chunks(4096) {
            block.extend(piece);
        }
        assert_eq!((block.len(), block.capacity()), (len, len));
        t.set_large(0, place, b"key", block.freeze(), Expiry::At(9)).unwrap();
        let entry = t.get(0, place, b"key").unwrap();
        assert!(entry.value == value && entry.expires_at_ms == Some(9));
        assert_eq!(entry.large.is_some(), len >= 4096, "{len} bytes");
        if let Some(large) = entry.large {
            let shared = large.share();
            assert_eq!(shared.as_ptr(), entry.value.as_ptr(), "no copy");
            // Removed, it lives as long as somebody sends it, and is counted as long.
            let held = t.memory_bytes();
            assert!(t.remove(0, place, b"key"));
            assert!(held - t.memory_bytes() < 8192 && t.memory_bytes() > empty + len as u64);
            assert!(shared == value);
        }
        t.remove(0, place, b"key");
        assert_eq!((t.memory_bytes(), out.regions()), (empty, 0));
    }
    assert_eq!(t.moved_and_copied().1, 0);
}

#[test]
fn memory_is_counted_as_a_block_is_filled() {
    let (mut t, out) = table(100 << 20);
    let empty = t.memory_bytes();
    let mut block = t.block(80 << 20).unwrap();
    assert!(t.memory_bytes() - empty < 1000 && out.regions() == 1);
    block.extend(&pattern(20 << 20));
    let held = t.memory_bytes() - empty;
    assert!((20 << 20..(20 << 20) + 8192).contains(&held), "{held}");
    assert_eq!(t.block(81 << 20).err(), Some(OutOfMemory), "what is filled is not left");
    assert_eq!(t.block(200 << 20).err(), Some(OutOfMemory));
    drop(block);
    assert_eq!((t.memory_bytes(), out.regions()), (empty, 0));
}

#[test]
fn what_an_announced_value_holds_is_what_has_come_of_it() {
    let (mut t, out) = table(0);
    let empty = t.memory_bytes();
    let place = t.place(b"key", 1);
    for len in [100_000, MIB, MIB + 1, 3 * MIB] {
        let value = pattern(len);
        for piece in [1, 1000, 4096, 100_000, 200_000, 3 * MIB] {
            let mut block = t.block(len).unwrap();
            for part in value.chunks(piece).take(5_000) {
                block.extend(part);
                let held = t.memory_bytes() - empty;
                assert!((block.len() as u64..block.len() as u64 + 8192).contains(&held), "{held}");
            }
            let come = block.len();
            block.extend(&value[come..]);
            t.set_large(0, place, b"key", block.freeze(), Expiry::Clear).unwrap();
            assert!(t.get(0, place, b"key").unwrap().value == value, "{len} in pieces of {piece}");
            assert!(t.remove(0, place, b"key"));
            // What ends before all has come leaves nothing.
            let mut block = t.block(len).unwrap();
            block.extend(&value[..piece.min(50_000)]);
            drop(block);
            assert_eq!((t.memory_bytes(), out.regions()), (empty, 0));
        }
    }
}

#[test]
fn a_shared_value_is_copied_before_it_changes() {
    let (mut t, out) = table(0);
    let empty = t.memory_bytes();
    for len in [20_000, 3 * MIB] {
        let value = pattern(len);
        let place = t.place(b"key", 1);
        t.set(0, place, b"key", &value, Expiry::Clear).unwrap();
        let shared = t.get(0, place, b"key").and_then(|e| e.large).unwrap().share();
        let (_, copied) = t.moved_and_copied();
        assert_eq!(t.append(0, place, b"key", b"tail"), Ok(len + 4));
        assert_eq!(t.append(0, place, b"key", b"tail"), Ok(len + 8));
        assert_eq!(t.moved_and_copied().1 - copied, len as u64, "once, not twice");
        assert!(shared == value);
        let now = t.get(0, place, b"key").unwrap().value;
        assert!(now[..len] == value && now[len..] == *b"tailtail");
        // Overwriting leaves the others what they have, too.
        let again = t.get(0, place, b"key").and_then(|e| e.large).unwrap().share();
        t.set(0, place, b"key", &vec![9; len], Expiry::Clear).unwrap();
        assert!(again.len() == len + 8 && again[..len] == value);
        drop((shared, again));
        assert!(t.remove(0, place, b"key"));
        assert_eq!((t.memory_bytes(), out.regions()), (empty, 0));
    }
}

#[test]
fn a_value_that_grows_over_every_boundary_is_copied_a_few_times_and_leaves_nothing() {
    let (mut t, out) = table(0);
    let empty = t.memory_bytes();
    let (mut given, mut appends) = (0u64, 0);
    for (key, tail, times) in
        [(&b"bytes"[..], 1, 300_000), (b"words", 8, 400_000), (b"lines", 61, 300_000)]
    {
        let place = t.place(key, 1);
        let tail = vec![b'x'; tail];
        for i in 0..times {
            assert_eq!(t.append(0, place, key, &tail), Ok((i + 1) * tail.len()));
        }
        given += (times * tail.len()) as u64;
        appends += times;
        let held = t.memory_bytes() - empty;
        assert!(held < given * 5 / 4 + 10_000, "{held} bytes for {given}");
    }
    assert_eq!(appends, 1_000_000);
    // Growing by a quarter copies each byte up to five times, and beyond a mebibyte never again.
    let (_, copied) = t.moved_and_copied();
    assert!(copied < 6 * 3 * MIB as u64, "{copied} bytes were copied");
    assert_eq!(out.regions(), 2);
    for key in [&b"bytes"[..], b"words", b"lines"] {
        let place = t.place(key, 1);
        assert!(t.remove(0, place, key));
    }
    assert_eq!((t.memory_bytes(), out.regions()), (empty, 0));
}

#[test]
fn the_limit_holds_for_large_values() {
    let max = 40 << 20;
    let (mut t, _) = table(max);
    let place = t.place(b"key", 1);
    t.set(0, place, b"key", &pattern(10 * MIB), Expiry::Clear).unwrap();
    let tail = pattern(MIB);
    let mut len = 10 * MIB;
    while t.append(0, place, b"key", &tail).is_ok() {
        len += MIB;
    }
    assert!((38 * MIB..40 * MIB).contains(&len), "{len}");
    assert!(t.memory_bytes() <= max);
    let entry = t.get(0, place, b"key").unwrap();
    assert_eq!((entry.value.len(), &entry.value[..MIB]), (len, &tail[..]));
    // A value that replaces a larger one fits, though both do not.
    let mut block = t.block(MIB / 4).unwrap();
    block.extend(&tail[..MIB / 4]);
    t.set_large(0, place, b"key", block.freeze(), Expiry::Clear).unwrap();
    assert!(t.memory_bytes() < MIB as u64);
}

#[test]
fn keys_too_long_for_a_slot_are_kept_beside_their_value() {
    let (mut t, _) = table(0);
    let empty = t.memory_bytes();
    for len in [4050, 4072, 4073, 4080, 4081, 9000, 60_000] {
        let key = pattern(len);
        let place = t.place(&key, 1);
        for (value, expiry) in
            [(&b"short"[..], Expiry::Clear), (&pattern(50_000), Expiry::At(9)), (b"", Expiry::Keep)]
        {
            t.set(0, place, &key, value, expiry).unwrap();
            t.append(0, place, &key, b"more").unwrap();
            assert!(t.set_expiry(0, place, &key, Some(7)).is_some());
            assert!(t.set_expiry(0, place, &key, None).is_some());
            let got = t.get(0, place, &key).unwrap().value;
            assert!(got[..value.len()] == *value && got[value.len()..] == *b"more");
        }
        let mut seen = 0;
        let mut cursor = 0;
        loop {
            cursor = t.scan_slot(0, 1, cursor, 100, &mut |k| seen += usize::from(k == key));
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, 1);
        assert!(t.remove(0, place, &key));
        assert_eq!(t.memory_bytes(), empty, "a key of {len}");
    }
}
