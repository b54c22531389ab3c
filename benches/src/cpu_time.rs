//! CPU time of other processes, as the kernel's scheduler accounts it.

use std::fs;

/// CPU time of all threads of these processes, in nanoseconds. A process that is gone has none.
pub fn of_processes(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| of_process(*pid)).sum()
}

fn of_process(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let stats = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    stats.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_seen() {
        let before = of_processes(&[std::process::id()]);
        let used = dkv_io::clock::thread_cpu_ns();
        while dkv_io::clock::thread_cpu_ns() - used < 20_000_000 {
            std::hint::black_box(());
        }
        assert!(of_processes(&[std::process::id()]) - before > 5_000_000);
    }
}
