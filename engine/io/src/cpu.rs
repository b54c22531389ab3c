//! Which CPUs this process may use, and tying a thread to one of them.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may run on, in order. Limits set from outside (cgroup cpusets, `taskset`) show here.
///
/// # Errors
/// The kernel refuses to tell.
pub fn available() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Ties the calling thread to one CPU.
///
/// # Errors
/// The CPU does not exist, is offline, or is outside what the process may use; the message says which are usable.
pub fn pin(cpu: usize) -> io::Result<()> {
    let explain = |error: io::Error| {
        let usable = available().map_or_else(|_| "unknown".to_owned(), |cpus| format!("{cpus:?}"));
        io::Error::new(
            error.kind(),
            format!("cannot run on CPU {cpu}: {error}; usable CPUs are {usable}"),
        )
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(explain(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| explain(error.into()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_that_cpu_only() {
        let cpus = available().expect("affinity can be read");
        let last = *cpus.last().expect("at least one CPU");
        std::thread::spawn(move || {
            pin(last).expect("an available CPU");
            assert_eq!(available().expect("affinity can be read"), [last]);
        })
        .join()
        .expect("no panic");
        assert_eq!(available().expect("affinity can be read"), cpus);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_with_the_usable_ones() {
        for cpu in [1023, 100_000] {
            let error = pin(cpu).expect_err("no such CPU").to_string();
            assert!(
                error.contains(&cpu.to_string()) && error.contains("usable CPUs are ["),
                "{error}"
            );
        }
    }
}
