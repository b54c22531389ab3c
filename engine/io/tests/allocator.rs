//! Memory of the allocator that is free goes back to the kernel though the thread that used it sleeps.

use std::sync::mpsc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    (pages * rustix::param::page_size()) >> 20
}

#[test]
fn what_a_sleeping_thread_freed_goes_back_to_the_kernel() {
    let before = resident_mib();
    let (end, ended) = mpsc::channel::<()>();
    let (say, said) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // As a request of that length is received.
        let mut received = Vec::new();
        while received.len() < 200 << 20 {
            received.extend_from_slice(&[1; 4096]);
        }
        say.send(resident_mib()).unwrap();
        drop(received);
        say.send(0).unwrap();
        let _ = ended.recv();
    });
    assert!(said.recv().unwrap() > before + 190);
    said.recv().unwrap();
    let start = Instant::now();
    while resident_mib() > before + 50 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} MiB are still there",
            resident_mib()
        );
        dkv_io::memory::give_back_unused();
        std::thread::park_timeout(Duration::from_millis(50));
    }
    drop(end);
    thread.join().unwrap();
}
