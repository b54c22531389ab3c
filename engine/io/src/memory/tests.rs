//! The memory of shards: handed out once, populated in time and no further, returned by the keeper alone.

use std::collections::BTreeSet;

use super::keeper::SLICE_BYTES;
use super::*;
use crate::clock;

const LIMIT_NS: u64 = 20_000_000_000;

/// Waits for the keeper.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = clock::monotonic_ns() + LIMIT_NS;
    while !done() {
        assert!(clock::monotonic_ns() < end, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// Bytes of the range that are in memory; `None` if it is not mapped.
fn resident(start: *const u8, bytes: usize) -> Option<usize> {
    let mut pages = vec![0_u8; bytes / 4096];
    // SAFETY: mincore(2) writes one byte for each page of the range, whatever is mapped there.
    let done = unsafe { libc::mincore(start.cast_mut().cast(), bytes, pages.as_mut_ptr()) };
    (done == 0).then(|| pages.iter().filter(|&&page| page & 1 == 1).count() * 4096)
}

fn is_ready(arena: &Arena, shard: usize) -> bool {
    !arena.handle.shared().ready[shard].load(Ordering::Acquire).is_null()
}

fn give_all_back(lent: Vec<&'static mut [u8; CHUNK_BYTES]>, memory: &mut ShardMemory) {
    for chunk in lent {
        memory.give_back(chunk);
    }
}

#[test]
fn a_chunk_is_handed_out_once_until_it_is_given_back() {
    let arena = Arena::new(2).expect("an arena");
    let (mut first, mut second) = (arena.shard(0), arena.shard(1));
    let mut lent = Vec::new();
    for number in 0..60_u8 {
        for memory in [&mut first, &mut second] {
            let chunk = memory.take().expect("there is memory");
            assert!(chunk.as_ptr().addr().is_multiple_of(CHUNK_BYTES));
            chunk[0] = number;
            chunk[CHUNK_BYTES - 1] = number;
            lent.push((number, chunk));
        }
    }
    let addresses: BTreeSet<_> = lent.iter().map(|(_, chunk)| chunk.as_ptr().addr()).collect();
    assert_eq!(addresses.len(), 120);
    for (number, chunk) in lent {
        assert_eq!((chunk[0], chunk[CHUNK_BYTES - 1]), (number, number));
        first.give_back(chunk);
    }
    let counts = arena.counts();
    assert_eq!((counts.taken, counts.given_back), (120, 120));
}

#[test]
fn a_shard_gets_a_populated_chunk_and_no_more_than_one_is_kept_ahead() {
    let arena = Arena::new(3).expect("an arena");
    // Those that never took one have none ready.
    let _unused = [arena.shard(0), arena.shard(2)];
    let mut memory = arena.shard(1);
    let mut lent = vec![memory.take().expect("there is memory")];
    assert_eq!(arena.counts().late, 1);
    for number in 0..20 {
        until("a chunk ahead", || is_ready(&arena, 1));
        if number == 10 {
            let stretches = arena.handle.shared().stretches();
            let resident: usize = stretches
                .iter()
                .map(|(start, bytes)| resident(*start, *bytes).expect("mapped"))
                .sum();
            let most = (lent.len() + 1) * CHUNK_BYTES;
            assert!(resident <= most, "{resident} bytes for eleven chunks and one ahead");
        }
        let chunk = memory.take().expect("there is memory");
        assert_eq!(resident(chunk.as_ptr(), CHUNK_BYTES), Some(CHUNK_BYTES));
        lent.push(chunk);
    }
    assert_eq!(arena.counts().late, 1);
    assert!(!is_ready(&arena, 0) && !is_ready(&arena, 2));
    give_all_back(lent, &mut memory);
}

#[test]
fn a_shard_that_is_faster_than_the_keeper_gets_chunks_that_are_not_populated() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let lent: Vec<_> = (0..600).map(|_| memory.take().expect("there is memory")).collect();
    assert!(arena.counts().late > 0, "nobody populates 1.2 GB so quickly");
    give_all_back(lent, &mut memory);
}

/// What `/proc/self/smaps` says of the mapping that an address is in.
fn huge_bytes(start: *const u8) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is there");
    let mut inside = false;
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some((low, high)) = first.split_once('-')
            && let (Ok(low), Ok(high)) =
                (usize::from_str_radix(low, 16), usize::from_str_radix(high, 16))
        {
            inside = (low..high).contains(&start.addr());
        } else if inside && let Some(rest) = line.strip_prefix("AnonHugePages:") {
            return rest.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024;
        }
    }
    0
}

#[test]
fn a_chunk_that_comes_late_is_touched_in_small_steps_and_made_huge_afterwards() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let shared = arena.handle.shared();
    let mut lent = Vec::new();
    while arena.counts().late == 0 {
        lent.push(memory.take().expect("there is memory"));
    }
    let late = lent.pop().expect("the last one");
    let start = late.as_ptr();
    assert_eq!(resident(start, CHUNK_BYTES), Some(0));
    late[5000] = 1;
    let touched = resident(start, CHUNK_BYTES).expect("mapped");
    // Unless the keeper came in between.
    assert!(touched == 4096 || huge_bytes(start) > 0, "{touched} bytes for one");
    late.fill(7);
    until("making huge pages", || shared.thin.is_empty());
    // Where the system makes huge pages at all, that is.
    let made = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if made.is_ok_and(|made| !made.contains("[never]")) {
        until("a huge page", || huge_bytes(start) > 0);
    }
    assert!(late.iter().all(|byte| *byte == 7));
    memory.give_back(late);
    give_all_back(lent, &mut memory);
}

#[test]
fn chunks_that_came_back_before_they_were_made_huge_are_passed_over_without_a_pause() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    // With a pause for each the limit of the wait would not do.
    let lent: Vec<_> = (0..3000).map(|_| memory.take().expect("there is memory")).collect();
    assert!(arena.counts().late > 2000, "nobody populates so much so quickly");
    give_all_back(lent, &mut memory);
    let shared = arena.handle.shared();
    until("looking at all of them", || shared.thin.is_empty());
}

#[test]
fn chunks_given_back_are_returned_to_the_kernel_but_for_a_few() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut lent = Vec::new();
    for _ in 0..100 {
        let chunk = memory.take().expect("there is memory");
        chunk.fill(7);
        lent.push(chunk);
    }
    let addresses: Vec<_> = lent.iter().map(|chunk| chunk.as_ptr()).collect();
    let before = clock::thread_cpu_ns();
    give_all_back(lent, &mut memory);
    let took = clock::thread_cpu_ns() - before;
    assert!(took < 2_000_000, "giving back 100 chunks took {took} ns of this thread");
    // The shard's own, the ready one, the warm ones.
    let most = (1 + 1 + 2) * CHUNK_BYTES;
    until("returning", || {
        addresses.iter().map(|at| resident(*at, CHUNK_BYTES).unwrap_or(0)).sum::<usize>() <= most
    });
    assert!(arena.counts().released_bytes >= 90 * CHUNK_BYTES as u64);
    // They are used again, not new ones.
    let again: Vec<_> = (0..100).map(|_| memory.take().expect("there is memory")).collect();
    assert!(again.iter().filter(|chunk| addresses.contains(&chunk.as_ptr())).count() >= 60);
    give_all_back(again, &mut memory);
}

#[test]
fn taking_and_giving_back_one_by_one_bothers_nobody() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let first = memory.take().expect("there is memory");
    until("the first chunk", || is_ready(&arena, 0));
    for number in 0..1000_u32 {
        let chunk = memory.take().expect("there is memory");
        if number > 0 {
            assert_eq!(chunk[..4], (number - 1).to_le_bytes());
        }
        chunk[..4].copy_from_slice(&number.to_le_bytes());
        memory.give_back(chunk);
    }
    assert_eq!(arena.counts().released_bytes, 0);
    memory.give_back(first);
}

#[test]
fn dropping_half_a_gigabyte_costs_the_dropping_thread_nothing() {
    const BYTES: usize = 512 << 20;
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(BYTES).expect("there is memory");
    for place in (0..BYTES).step_by(4096) {
        mapped.bytes_mut()[place] = 1;
    }
    let start = mapped.bytes().as_ptr();
    assert_eq!(resident(start, BYTES), Some(BYTES));
    let before = clock::thread_cpu_ns();
    drop(mapped);
    let took = clock::thread_cpu_ns() - before;
    assert!(took < 100_000, "the drop took {took} ns of this thread");
    until("unmapping", || resident(start, 4096).is_none());
    assert_eq!(arena.counts().released_bytes, BYTES as u64);
}

#[test]
fn a_mapping_takes_memory_by_the_small_page() {
    const BYTES: usize = 8 << 20;
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(BYTES).expect("there is memory");
    assert_eq!(resident(mapped.bytes().as_ptr(), BYTES), Some(0));
    for (touched, place) in [0, 5000, 3 << 20, BYTES - 1].into_iter().enumerate() {
        mapped.bytes_mut()[place] = 1;
        assert_eq!(resident(mapped.bytes().as_ptr(), BYTES), Some((touched + 1) * 4096));
    }
    // Where it grows, too, also when it has to move for that.
    let _neighbour = memory.map(BYTES).expect("there is memory");
    assert!(mapped.resize(4 * BYTES));
    mapped.bytes_mut()[3 * BYTES] = 1;
    assert_eq!(resident(mapped.bytes().as_ptr(), 4 * BYTES), Some(5 * 4096));
}

#[test]
fn a_mapping_keeps_its_contents_however_it_is_resized() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(1 << 20).expect("there is memory");
    // Something in the way: growth has to move.
    let _neighbours: Vec<_> = (0..8).map(|_| memory.map(1 << 20).expect("memory")).collect();
    let (mut written, mut marks) = (0_usize, Vec::new());
    let mut moved = false;
    for bytes in [1 << 20, (1 << 20) + 1, 3 << 20, 64 << 20, 65 << 20, 256 << 20] {
        let before = mapped.bytes().as_ptr();
        assert!(mapped.resize(bytes));
        moved |= before != mapped.bytes().as_ptr();
        assert!((bytes..bytes + 4096).contains(&mapped.bytes().len()));
        assert!(mapped.bytes().as_ptr().addr().is_multiple_of(CHUNK_BYTES));
        let end = mapped.bytes().len() / 8;
        let word = |number: usize| (number as u64 ^ 0xABCD).to_le_bytes();
        for number in (0..end).rev().step_by(509).take_while(|number| *number >= written) {
            mapped.bytes_mut()[number * 8..][..8].copy_from_slice(&word(number));
            marks.push(number);
        }
        written = end;
        for number in &marks {
            assert_eq!(mapped.bytes()[number * 8..][..8], word(*number), "{number} of {bytes}");
        }
    }
    assert!(moved, "it never had to move");
    let before = clock::thread_cpu_ns();
    assert!(mapped.resize(5 << 20));
    let took = clock::thread_cpu_ns() - before;
    assert!(took < 1_000_000, "letting the tail go took {took} ns");
    assert_eq!(mapped.bytes().len(), 5 << 20);
    for number in marks.iter().filter(|number| **number < (5 << 20) / 8) {
        assert_eq!(mapped.bytes()[number * 8..][..8], (*number as u64 ^ 0xABCD).to_le_bytes());
    }
    until("the tail", || arena.counts().released_bytes == 251 << 20);
    assert!(mapped.resize(6 << 20));
}

#[test]
fn a_value_that_is_overwritten_again_and_again_finds_its_pages_there() {
    const BYTES: usize = 3 << 20;
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(BYTES).expect("there is memory");
    mapped.bytes_mut().fill(1);
    let first = mapped.bytes().as_ptr();
    for _ in 0..100 {
        drop(mapped);
        mapped = memory.map(BYTES).expect("there is memory");
        assert_eq!(resident(mapped.bytes().as_ptr(), BYTES), Some(BYTES));
    }
    let other = memory.map(BYTES - 4096).expect("there is memory");
    assert_eq!(resident(other.bytes().as_ptr(), BYTES - 4096), Some(0), "of another size");
    // So much is kept, and no more; and not for ever.
    let mut many: Vec<_> = (0..20).map(|_| memory.map(BYTES).expect("memory")).collect();
    for mapped in &mut many {
        mapped.bytes_mut().fill(2);
    }
    let addresses: Vec<_> = many.iter().map(|mapped| mapped.bytes().as_ptr()).collect();
    drop(many);
    let kept = || addresses.iter().filter(|at| resident(**at, 4096).is_some()).count();
    until("the ones beyond the bound", || kept() <= 8);
    until("all of them", || kept() == 0);
    drop((mapped, other));
    until("all memory", || resident(first, 4096).is_none());
}

#[test]
fn growing_a_full_mapping_moves_pages_and_does_not_copy() {
    const BYTES: usize = 256 << 20;
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(BYTES).expect("there is memory");
    mapped.bytes_mut().fill(1);
    let _neighbour = memory.map(1 << 20).expect("there is memory");
    let before = clock::thread_cpu_ns();
    assert!(mapped.resize(2 * BYTES));
    let took = clock::thread_cpu_ns() - before;
    // Copying would take 30 ms at least.
    assert!(took < 5_000_000, "it took {took} ns");
    assert_eq!(resident(mapped.bytes().as_ptr(), 2 * BYTES), Some(BYTES));
}

#[test]
fn what_the_system_cannot_give_is_refused_and_changes_nothing() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    assert!(memory.map(usize::MAX).is_none());
    assert!(memory.map(1 << 60).is_none());
    let mut mapped = memory.map(1 << 20).expect("there is memory");
    mapped.bytes_mut()[77] = 9;
    assert!(!mapped.resize(1 << 60));
    assert!(!mapped.resize(usize::MAX));
    assert_eq!((mapped.bytes().len(), mapped.bytes()[77]), (1 << 20, 9));
}

#[test]
fn mappings_may_be_dropped_on_any_thread_and_after_the_arena() {
    let arena = Arena::new(2).expect("an arena");
    let mut memory = arena.shard(0);
    let mut mapped = memory.map(3 * SLICE_BYTES + 5000).expect("there is memory");
    mapped.bytes_mut().fill(3);
    let start = mapped.bytes().as_ptr();
    let chunk = memory.take().expect("there is memory");
    chunk.fill(4);
    let theirs = chunk.as_ptr();
    memory.give_back(chunk);
    let never_back = memory.take().expect("there is memory");
    never_back.fill(5);
    drop(memory);
    drop(arena);
    std::thread::spawn(move || {
        assert_eq!(mapped.bytes()[3 * SLICE_BYTES + 4999], 3);
        drop(mapped);
    })
    .join()
    .expect("no panic");
    until("unmapping", || resident(start, 4096).is_none());
    // Whoever has a chunk has it for good.
    assert!(never_back.iter().all(|byte| *byte == 5));
    assert!(resident(theirs, 4096).is_some(), "of the same stretch");
}

#[test]
fn an_arena_of_which_everything_came_back_leaves_no_mapping() {
    let arena = Arena::new(1).expect("an arena");
    let mut memory = arena.shard(0);
    let lent: Vec<_> = (0..50).map(|_| memory.take().expect("there is memory")).collect();
    let addresses: Vec<_> = lent.iter().map(|chunk| chunk.as_ptr()).collect();
    give_all_back(lent, &mut memory);
    drop(arena);
    assert!(addresses.iter().all(|at| resident(*at, 4096).is_some()), "a shard still has it");
    drop(memory);
    until("unmapping", || addresses.iter().all(|at| resident(*at, 4096).is_none()));
}

/// Shards and keeper at full speed, with every way of taking and letting go.
#[test]
fn many_shards_take_and_give_back_at_once() {
    let arena = Arena::new(4).expect("an arena");
    std::thread::scope(|scope| {
        for shard in 0..4_usize {
            let mut memory = arena.shard(shard);
            scope.spawn(move || {
                let mut lent: Vec<&'static mut [u8; CHUNK_BYTES]> = Vec::new();
                let mut mapped = Vec::new();
                let mut dice = shard as u64 + 1;
                for step in 0..2000_u64 {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    match (dice >> 33) % 8 {
                        0..=3 if lent.len() < 12 => {
                            let chunk = memory.take().expect("there is memory");
                            chunk[..8].copy_from_slice(&(step << 8 | shard as u64).to_le_bytes());
                            lent.push(chunk);
                        }
                        4..=6 if !lent.is_empty() => {
                            let pick = (dice >> 40) as usize % lent.len();
                            let chunk = lent.swap_remove(pick);
                            assert_eq!(usize::from(chunk[0]), shard, "lent to two");
                            memory.give_back(chunk);
                        }
                        7 if mapped.len() < 3 => {
                            mapped.push(memory.map(1 + (dice >> 44) as usize).expect("memory"));
                        }
                        _ => mapped.clear(),
                    }
                }
                give_all_back(lent, &mut memory);
            });
        }
    });
    let counts = arena.counts();
    assert_eq!(counts.taken, counts.given_back);
}
