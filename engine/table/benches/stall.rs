//! The longest steps of the table, in thread CPU time: `cargo bench -p dkv-table --bench stall -- [thousands of keys]
//! [growth] [slot] [values] [eviction] [ranges]`.
//!
//! Growth, growth of a single slot, expiry of a tenth of the keys in one second, eviction under full load, taking apart
//! what was cleared, and walking, comparing, feeding and clearing ranges. Each line says how long steps took; a step is
//! one call of the table.

use dkv_table::{Eviction, Expiry, HeapMemory, Memory, Options, Room, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time of this thread, in nanoseconds.
fn cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Counts of steps by tens of nanoseconds, so that nothing grows while it measures.
struct Steps {
    tens: Vec<u32>,
    count: u64,
    total: u64,
    /// The longest steps and which they were, the longest first. Those that are others' doing are others each time.
    worst: [(u64, u64); 3],
}

impl Steps {
    fn new() -> Self {
        Self { tens: vec![0; 200_000], count: 0, total: 0, worst: [(0, 0); 3] }
    }

    fn step<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = cpu();
        let result = work();
        let took = cpu() - start;
        let last = self.tens.len() - 1;
        self.tens[(took as usize / 10).min(last)] += 1;
        self.count += 1;
        self.total += took;
        if took > self.worst[2].0 {
            self.worst[2] = (took, self.count);
            self.worst.sort_by(|a, b| b.cmp(a));
        }
        result
    }

    fn at(&self, part: f64) -> f64 {
        let mut left = (self.count as f64 * part) as u64;
        let tens = self
            .tens
            .iter()
            .take_while(|n| left.checked_sub(u64::from(**n)).map(|rest| left = rest).is_some());
        tens.count() as f64 / 100.0
    }

    fn print(&self, name: &str) {
        println!(
            "{name:44} {:9} steps, us: mean {:6.2} p50 {:6.2} p99 {:6.2} p99.9 {:6.2} p99.99 {:6.2} worst {}",
            self.count,
            self.total as f64 / self.count.max(1) as f64 / 1e3,
            self.at(0.5),
            self.at(0.99),
            self.at(0.999),
            self.at(0.9999),
            self.worst.map(|(took, n)| format!("{} (no. {n})", took / 1000)).join(", ")
        );
    }
}

fn spread(i: u64) -> u16 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}

/// Touches memory ahead, as a node's helper thread does: the first touch of a page is not the table's.
fn touch(bytes: u64) {
    let chunks: Vec<_> = (0..bytes >> 21).filter_map(|_| HeapMemory.take()).collect();
    for chunk in chunks {
        chunk.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        HeapMemory.give_back(chunk);
    }
}

fn table(memory_bytes_max: u64, eviction: Eviction) -> Table {
    let options = Options { seed: [1, 2], memory_bytes_max, eviction, first_version: 1 };
    Table::new(options, Box::new(HeapMemory))
}

fn set(table: &mut Table, now: u64, i: u64, slot: u16, expiry: Expiry) {
    let key = (i as u128).to_le_bytes();
    let place = table.place(&key, slot);
    let _ = table.set(now, place, &key, &[i as u8; 64], expiry);
}

/// Measures one thing with so many keys.
type Part = fn(u64);

fn main() {
    let thousands: u64 = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(10_000);
    let n = thousands * 1000;
    touch(n * 110);
    let parts: [(&str, Part); 5] = [
        ("growth", growth_expiry_and_clear),
        ("slot", growth_of_one_slot),
        ("values", values_apart),
        ("eviction", eviction),
        ("ranges", ranges),
    ];
    let named = |name: &str| std::env::args().any(|arg| arg == name);
    let all = !parts.iter().any(|(name, _)| named(name));
    for (name, part) in parts {
        if all || named(name) {
            part(n);
        }
    }
}

fn growth_expiry_and_clear(n: u64) {
    let mut t = table(0, Eviction::None);
    let mut steps = Steps::new();
    let mut most_moved = 0;
    for i in 0..n {
        let before = t.moved_and_copied().0;
        steps.step(|| set(&mut t, 0, i, spread(i), Expiry::Clear));
        most_moved = most_moved.max(t.moved_and_copied().0 - before);
    }
    steps.print(&format!("growth to {n} keys"));
    println!("{:44} {most_moved} at most", "entries that one insert moved");

    // A tenth expires in one second.
    for i in (0..n).step_by(10) {
        let key = (i as u128).to_le_bytes();
        let place = t.place(&key, spread(i));
        t.set_expiry(0, place, &key, Some(10_000 + i % 1000));
    }
    let mut steps = Steps::new();
    let mut removed = 0;
    let mut now = 11_000;
    while removed < n.div_ceil(10) {
        let expired = steps.step(|| t.background(now, 512));
        removed += u64::from(expired.removed);
        now += u64::from(!expired.more) * 10;
    }
    steps.print(&format!("expiry of {removed} keys, budget 512"));

    let mut steps = Steps::new();
    steps.step(|| t.clear());
    steps.print("clear");
    let mut steps = Steps::new();
    while steps.step(|| t.background(now, 512)).more {}
    steps.print("taking it apart");
    println!("{:44} {} bytes", "left", t.memory_bytes());
}

fn growth_of_one_slot(n: u64) {
    let mut t = table(0, Eviction::None);
    let mut steps = Steps::new();
    for i in 0..n {
        steps.step(|| set(&mut t, 0, i, 7, Expiry::Clear));
    }
    steps.print(&format!("growth to {n} keys of one slot"));
}

fn values_apart(n: u64) {
    let mut t = table(0, Eviction::None);
    let value = vec![1u8; 8192];
    let values = (n / 10).min(1_000_000);
    for i in 0..values {
        let key = i.to_le_bytes();
        let place = t.place(&key, spread(i));
        t.set(0, place, &key, &value, Expiry::Clear).expect("no limit");
    }
    t.clear();
    let mut steps = Steps::new();
    while steps.step(|| t.background(0, 512)).more {}
    steps.print(&format!("taking {values} values of 8 KiB apart"));
}

fn eviction(n: u64) {
    for eviction in [
        Eviction::AllKeysLru,
        Eviction::AllKeysLfu,
        Eviction::AllKeysRandom,
        Eviction::VolatileLru,
        Eviction::VolatileTtl,
    ] {
        let full = n / 10 * 100;
        let mut t = table(full, eviction);
        let mut i = 0;
        let expiry = |i: u64| Expiry::At(1_000_000_000 + i % 1_000_000);
        while t.evicted() == 0 {
            set(&mut t, i / 1000, i, spread(i), expiry(i));
            i += 1;
        }
        let mut steps = Steps::new();
        for _ in 0..n / 10 {
            steps.step(|| set(&mut t, i / 1000, i, spread(i), expiry(i)));
            i += 1;
        }
        steps.print(&format!("{eviction:?}: writes that evict"));
        let mut steps = Steps::new();
        while steps.step(|| t.make_room(i / 1000, full / 2)) == Room::More {}
        steps.print(&format!("{eviction:?}: make_room"));
    }
}

fn ranges(n: u64) {
    let (mut t, mut copy) = (table(0, Eviction::None), table(0, Eviction::None));
    for i in 0..n {
        set(&mut t, 0, i, spread(i), Expiry::Clear);
    }
    let (mut walks, mut sums, mut loads) = (Steps::new(), Steps::new(), Steps::new());
    for range in 0..256 {
        copy.lead(range, false);
        copy.set_version(range, t.version_of_range(range));
        let (mut cursor, mut seen) = (0, 0u64);
        while {
            cursor = walks.step(|| t.walk_range(range, cursor, 64 << 10, &mut |_| seen += 1));
            cursor > 0
        } {}
        assert_eq!(seen, t.len_of_range(range));
        let mut sum = 0;
        while {
            cursor = sums.step(|| t.checksum(range, cursor, 64 << 10, &mut sum));
            cursor > 0
        } {}
        while {
            cursor = t.walk_range(range, cursor, 64 << 10, &mut |record| {
                let loaded = loads.step(|| copy.load(0, record));
                assert_eq!(loaded, Ok(true));
            });
            cursor > 0
        } {}
        t.set_journal(range, true);
    }
    walks.print("walk, 64 KiB a slice");
    sums.print("checksum, 64 KiB a slice");
    loads.print(&format!("{n} records loaded, a record a step"));
    let (mut writes, mut applied) = (Steps::new(), Steps::new());
    for i in 0..n / 10 {
        writes.step(|| set(&mut t, 0, i * 7 % n, spread(i * 7 % n), Expiry::Clear));
        t.take_journal(&mut |range, version, effect| {
            let fits = applied.step(|| copy.apply(0, range, version, effect, false));
            assert_eq!(fits, Ok(true));
        });
    }
    writes.print("journaled writes");
    applied.print("effects applied");
    let mut steps = Steps::new();
    (0..256).for_each(|range| steps.step(|| t.clear_range(range)));
    steps.print("clear_range");
    let mut steps = Steps::new();
    while steps.step(|| t.background(0, 512)).more {}
    steps.print(&format!("taking {n} records of ranges apart"));
    let values = (n / 10).min(1_000_000);
    let value = vec![1u8; 8192];
    for i in 0..values {
        let key = i.to_le_bytes();
        let place = copy.place(&key, 7);
        t.set(0, place, &key, &value, Expiry::Clear).expect("no limit");
    }
    t.clear_range(0);
    let mut steps = Steps::new();
    while steps.step(|| t.background(0, 512)).more {}
    steps.print(&format!("taking {values} values of 8 KiB of a range apart"));
    println!("{:44} {} bytes", "left", t.memory_bytes());
}
