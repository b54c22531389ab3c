//! What reads and writes of one shard's table cost, one by one and in batches; what growing costs each insert; what the
//! slab costs when values come, go and change their size.
//!
//! `cargo bench -p dkv-bench --bench table -- [keys]`: a million keys of 16 bytes with values of 64 unless told otherwise;
//! 20000000 is the growth that the store promises something of.

use std::hint::black_box;

use dkv_bench::micro::Micro;
use dkv_io::clock;
use dkv_io::memory::{Arena, ShardMemory};
use dkv_node::memory::NodeMemory;
use dkv_table::{Eviction, Expiry, Options, Place, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands that a shard takes together.
const BATCH: usize = 32;
/// Keys that are asked for, at most.
const ASKED_MAX: u64 = 2_000_000;

type Key = [u8; 16];

fn key(number: u64) -> Key {
    let mut key = *b"key:000000000000";
    let mut left = number;
    for digit in key[4..].iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    key
}

fn slot(number: u64) -> u16 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

fn placed(table: &Table, number: u64) -> (Place, Key) {
    let key = key(number);
    (table.place(&key, slot(number)), key)
}

fn new_table(memory: ShardMemory) -> Table {
    let options =
        Options { seed: [1, 2], memory_bytes_max: 0, eviction: Eviction::None, first_version: 0 };
    Table::new(options, Box::new(NodeMemory(memory)))
}

fn resident_bytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc is there");
    let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("it has that line");
    let kib: u64 =
        line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}

/// Each insert on its own, so that the dearest can be seen. Reading the clock twice is in it.
fn grow(micro: Micro, table: &mut Table, keys: u64) {
    let resident = resident_bytes();
    let mut histogram =
        hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3).expect("bounds");
    // The first chunk of memory may not be there yet; a node serves nobody before it is.
    let (place, first) = placed(table, 0);
    let start = clock::thread_cpu_ns();
    set(table, place, &first, &[0; 64]);
    micro.show("the very first insert", (clock::thread_cpu_ns() - start) as f64, "ns");
    let begun = clock::thread_cpu_ns();
    for number in 1..keys {
        let (place, key) = placed(table, number);
        let start = clock::thread_cpu_ns();
        table.set(0, place, &key, &[number as u8; 64], Expiry::Clear).expect("no limit");
        histogram.saturating_record(clock::thread_cpu_ns() - start);
    }
    let mean = (clock::thread_cpu_ns() - begun) as f64 / keys as f64;
    micro.show("insert, growing, with two clock reads: mean", mean, "ns");
    for quantile in [0.5, 0.99, 0.999, 0.9999, 1.0] {
        let name = format!("insert, growing: quantile {quantile}");
        micro.show(&name, histogram.value_at_quantile(quantile) as f64, "ns");
    }
    let counted = table.memory_bytes() as f64 / keys as f64;
    micro.show("memory of a key of 16 and a value of 64, counted", counted, "bytes");
    let held = (resident_bytes() - resident) as f64 / keys as f64;
    micro.show("the same, resident", held, "bytes");
}

/// Does `work` with each number, after its bucket and then its record were fetched ahead for a batch together.
fn in_batches(table: &mut Table, order: &[u64], mut work: impl FnMut(&mut Table, Place, &Key)) {
    let mut batch: Vec<(Place, Key)> = Vec::with_capacity(BATCH);
    for numbers in order.chunks(BATCH) {
        batch.clear();
        for number in numbers {
            let (place, key) = placed(table, *number);
            table.prefetch_bucket(place);
            batch.push((place, key));
        }
        for (place, _) in &batch {
            table.prefetch_record(*place);
        }
        for (place, key) in &batch {
            work(table, *place, key);
        }
    }
}

fn get(table: &mut Table, place: Place, key: &Key) {
    black_box(table.get(0, place, key).expect("it is there").value[0]);
}

fn set(table: &mut Table, place: Place, key: &Key, value: &[u8]) {
    table.set(0, place, key, value, Expiry::Clear).expect("no limit");
}

fn reads_and_writes(micro: Micro, table: &mut Table, keys: u64) {
    let mut state = 1u64;
    let order: Vec<u64> = (0..keys.min(ASKED_MAX))
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 20) % keys
        })
        .collect();
    let count = order.len() as u64;
    micro.row("key made and hashed, nothing else", count, || {
        for number in &order {
            black_box(placed(table, *number));
        }
    });
    micro.row("get, one by one", count, || {
        for number in &order {
            let (place, key) = placed(table, *number);
            get(table, place, &key);
        }
    });
    micro.row("get, batches of 32", count, || in_batches(table, &order, get));
    micro.row("get, absent", count, || {
        for number in &order {
            let (place, key) = placed(table, number + keys);
            assert!(table.get(0, place, &key).is_none());
        }
    });
    micro.row("set, same size, one by one", count, || {
        for number in &order {
            let (place, key) = placed(table, *number);
            set(table, place, &key, &[7; 64]);
        }
    });
    micro.row("set, same size, batches of 32", count, || {
        in_batches(table, &order, |table, place, key| set(table, place, key, &[8; 64]));
    });
    let mut cursor = 0;
    let mut seen = 0u64;
    micro.row("scan, 100 a call, per key", table.len(), || {
        loop {
            cursor = table.scan(0, cursor, 0..256, 100, &mut |_, _| seen += 1);
            if cursor == 0 {
                break;
            }
        }
    });
    assert!(seen >= table.len());
}

/// Records that move between the slab's classes, and those that come and go.
fn slab(micro: Micro, memory: ShardMemory) {
    let keys = micro.count(200_000);
    let mut table = new_table(memory);
    for bytes in [8, 64, 250, 1000, 4000] {
        let value = vec![b'v'; bytes];
        micro.row(&format!("new key, value of {bytes}, and its removal"), keys, || {
            for number in 0..keys {
                let (place, key) = placed(&table, number);
                set(&mut table, place, &key, &value);
            }
            for number in 0..keys {
                let (place, key) = placed(&table, number);
                assert!(table.remove(0, place, &key));
            }
        });
    }
    micro.row("set to another size and back, 64 and 250 bytes", 2 * keys, || {
        for bytes in [64, 250] {
            for number in 0..keys {
                let (place, key) = placed(&table, number);
                set(&mut table, place, &key, &[b'v'; 250][..bytes]);
            }
        }
    });
    let (place, key) = placed(&table, 0);
    set(&mut table, place, &key, b"");
    micro.row("append of 16 bytes to a value that grows", keys, || {
        for _ in 0..keys {
            table.append(0, place, &key, &[b'a'; 16]).expect("no limit");
        }
    });
}

fn expiry(micro: Micro, table: &mut Table, keys: u64) {
    table.expire_due(0, 1);
    micro.show("keys before expiry", table.len() as f64, "");
    let start = clock::thread_cpu_ns();
    for number in 0..keys {
        let (place, key) = placed(table, number);
        table.set_expiry(0, place, &key, Some(1_000_000 + number % 1000));
    }
    let per_key = |start: u64| (clock::thread_cpu_ns() - start) as f64 / keys as f64;
    micro.show("set an expiry", per_key(start), "ns");
    let start = clock::thread_cpu_ns();
    while table.expire_due(1_000, 1_000).more {}
    micro.show("sweep, nothing due, per key", per_key(start), "ns");
    let start = clock::thread_cpu_ns();
    while table.expire_due(1_002_000, 1_000).more {}
    micro.show("sweep, all due, per key", per_key(start), "ns");
    assert_eq!(table.len(), 0, "all keys are due");
}

fn main() {
    let micro = Micro::new("table, per operation");
    let keys = micro.count_given(1_000_000);
    // Its thread ends when it is dropped, so it outlives the tables.
    let arena = Arena::new(2).expect("a thread");
    let mut table = new_table(arena.shard(0));
    grow(micro, &mut table, keys);
    reads_and_writes(micro, &mut table, keys);
    slab(micro, arena.shard(1));
    expiry(micro, &mut table, keys);
}
