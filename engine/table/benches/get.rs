//! What reads and writes cost, in thread CPU time: the machine is shared, so wall-clock times say little.
//!
//! `cargo bench -p dkv-table -- [keys]`: one million keys of 16 bytes with values of 64 unless told otherwise.

use dkv_table::{Eviction, Expiry, HeapMemory, Options, Place, Table};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands that a shard takes together.
const BATCH: usize = 32;

/// CPU time of this thread, in nanoseconds.
fn cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is there");
    let pages: u64 = statm.split(' ').nth(1).expect("its second field").parse().expect("a number");
    pages * 4096
}

fn key(i: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut n = i;
    for digit in key[4..].iter_mut().rev() {
        *digit += (n % 10) as u8;
        n /= 10;
    }
    key
}

fn slot(i: u64) -> u16 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

fn each(name: &str, n: u64, mut work: impl FnMut(u64)) {
    let start = cpu();
    for i in 0..n {
        work(i);
    }
    println!("{name:32} {:7.1} ns", (cpu() - start) as f64 / n as f64);
}

fn main() {
    let n: u64 = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let options =
        Options { seed: [1, 2], memory_bytes_max: 0, eviction: Eviction::None, first_version: 0 };
    let mut table = Table::new(options, Box::new(HeapMemory));
    // Counts by tens of nanoseconds, so that the measurement takes no memory that grows.
    let (mut worst, mut took_tens) = (0, vec![0u64; 100_000]);
    each("insert (with two clock reads)", n, |i| {
        let key = key(i);
        let place = table.place(&key, slot(i));
        let start = cpu();
        table.set(0, place, &key, &[i as u8; 64], Expiry::Clear).expect("no limit");
        let took = cpu() - start;
        worst = worst.max(took);
        let last = took_tens.len() - 1;
        took_tens[(took as usize / 10).min(last)] += 1;
    });
    let at = |part: f64| {
        let mut left = (n as f64 * part) as u64;
        10 * took_tens
            .iter()
            .take_while(|count| left.checked_sub(**count).map(|rest| left = rest).is_some())
            .count()
    };
    let parts = [0.5, 0.99, 0.999, 0.9999].map(at);
    println!("insert p50, p99, p99.9, p99.99: {parts:?} ns, worst {worst} ns");
    println!(
        "counted {:.1} bytes a key over key and value",
        table.memory_bytes() as f64 / n as f64 - 80.0
    );
    println!(
        "resident {:.1} (with what the allocator keeps)",
        (resident_bytes() - before) as f64 / n as f64 - 80.0
    );

    let mut state = 1u64;
    let order: Vec<u64> = (0..n.min(4_000_000))
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 20) % n
        })
        .collect();
    let m = order.len() as u64;
    each("hash alone", m, |i| {
        let i = order[i as usize];
        black_box(table.place(&key(i), slot(i)));
    });
    for round in 0..3 {
        each(&format!("get, one by one ({round})"), m, |i| {
            let i = order[i as usize];
            let key = key(i);
            let place = table.place(&key, slot(i));
            let entry = table.get(0, place, &key).expect("it is there");
            black_box(entry.value[0]);
        });
        let start = cpu();
        let mut places: Vec<(Place, [u8; 16])> = Vec::with_capacity(BATCH);
        for batch in order.chunks(BATCH) {
            places.clear();
            for &i in batch {
                let key = key(i);
                let place = table.place(&key, slot(i));
                table.prefetch_bucket(place);
                places.push((place, key));
            }
            for (place, _) in &places {
                table.prefetch_record(*place);
            }
            for (place, key) in &places {
                let entry = table.get(0, *place, key).expect("it is there");
                black_box(entry.value[0]);
            }
        }
        println!(
            "{:32} {:7.1} ns",
            format!("get, batches of 32 ({round})"),
            (cpu() - start) as f64 / m as f64
        );
    }
    each("get, absent", m, |i| {
        let i = order[i as usize] + n;
        let key = key(i);
        let place = table.place(&key, slot(i));
        assert!(table.get(0, place, &key).is_none());
    });
    each("overwrite, same size", m, |i| {
        let i = order[i as usize];
        let key = key(i);
        let place = table.place(&key, slot(i));
        table.set(0, place, &key, &[7; 64], Expiry::Clear).expect("no limit");
    });
    let start = cpu();
    let mut places: Vec<(Place, [u8; 16])> = Vec::with_capacity(BATCH);
    for batch in order.chunks(BATCH) {
        places.clear();
        for &i in batch {
            let key = key(i);
            let place = table.place(&key, slot(i));
            table.prefetch_bucket(place);
            places.push((place, key));
        }
        for (place, _) in &places {
            table.prefetch_record(*place);
        }
        for (place, key) in &places {
            table.set(0, *place, key, &[9; 64], Expiry::Clear).expect("no limit");
        }
    }
    println!("{:32} {:7.1} ns", "overwrite, batches of 32", (cpu() - start) as f64 / m as f64);
    let start = cpu();
    let (mut cursor, mut seen) = (0, 0u64);
    loop {
        cursor = table.scan(0, cursor, 0..256, 100, &mut |_, _| seen += 1);
        if cursor == 0 {
            break;
        }
    }
    println!("{:32} {:7.1} ns a key", "scan, 100 a call", (cpu() - start) as f64 / seen as f64);
    table.expire_due(0, 1);
    each("set an expiry", n, |i| {
        let key = key(i);
        let place = table.place(&key, slot(i));
        table.set_expiry(0, place, &key, Some(1_000_000 + i % 1000));
    });
    let start = cpu();
    while table.expire_due(1_000, 1_000).more {}
    println!("{:32} {:7.1} us", "sweep, nothing due", (cpu() - start) as f64 / 1e3);
    let start = cpu();
    while table.expire_due(1_002_000, 1_000).more {}
    println!("{:32} {:7.1} ns a key", "sweep, all due", (cpu() - start) as f64 / n as f64);
    println!("left: {} keys, {} bytes", table.len(), table.memory_bytes());
}
