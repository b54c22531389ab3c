//! What a key costs in resident memory, all counted: `cargo bench -p dkv-table --bench memory -- [sizes]`.
//!
//! Keys of 16 bytes with values of 64, in one table that grows; 2, 5 and 20 million unless told otherwise.

use dkv_table::{Eviction, Expiry, HeapMemory, Options, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn main() {
    let mut sizes: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![2_000_000, 5_000_000, 20_000_000];
    }
    let options =
        Options { seed: [1, 2], memory_bytes_max: 0, eviction: Eviction::None, first_version: 1 };
    let mut table = Table::new(options, Box::new(HeapMemory));
    let before = resident_bytes();
    let mut next = 0;
    for size in sizes {
        for i in next..size {
            let key = key(i);
            let place = table.place(&key, slot(i));
            table.set(0, place, &key, &[i as u8; 64], Expiry::Clear).expect("no limit");
        }
        next = size;
        let each = |bytes: u64| bytes as f64 / size as f64;
        println!(
            "{size:10} keys of 16 + 64 bytes: {:.1} bytes a key resident, {:.1} counted",
            each(resident_bytes() - before),
            each(table.memory_bytes())
        );
    }
}
