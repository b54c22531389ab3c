//! The facts that take time to find out: how late a sleeping thread wakes on each CPU, what the hypervisor takes, what a
//! synchronous write costs. They change nothing that stays.

use super::facts::{Fact, existing, steal};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long CPUs are watched.
const WATCH: Duration = Duration::from_secs(1);
/// The sleep of the watching threads.
const NAP_NS: i64 = 1_000_000;
/// How long the disk is written to.
const WRITE: Duration = Duration::from_millis(200);
/// A block of a disk, and what a direct write is aligned to.
const BLOCK: usize = 4096;
/// Upper ends of the ranges that wake-ups are counted in, microseconds.
pub(super) const STEPS_US: [u64; 4] = [50, 100, 250, 1000];

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Timed {
    /// How late threads woke, by CPU.
    pub(super) wake_ups: Vec<WakeUps>,
    /// CPUs on which no thread could be put, and why.
    pub(super) unwatched: Vec<String>,
    /// The share of time that the hypervisor gave to others, 0 to 1.
    pub(super) steal: Fact<f64>,
    /// What a synchronous write of 4 KiB took.
    pub(super) write: Fact<Writes>,
}

/// How late threads woke on one CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WakeUps {
    /// Which.
    pub(super) cpu: u32,
    /// Wake-ups.
    pub(super) count: u64,
    /// Microseconds of the median one.
    pub(super) p50_us: u64,
    /// Microseconds of 99 %.
    pub(super) p99_us: u64,
    /// Microseconds of the latest.
    pub(super) max_us: u64,
    /// Wake-ups up to each of [`STEPS_US`], and above the last.
    pub(super) steps: [u64; STEPS_US.len() + 1],
}

/// What synchronous writes took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writes {
    /// How many there were.
    pub(super) count: u64,
    /// Whether past the page cache (O_DIRECT), or why not.
    pub(super) direct: Result<(), String>,
    /// Microseconds of the median one.
    pub(super) p50_us: u64,
    /// Microseconds of 99 %.
    pub(super) p99_us: u64,
}

/// Measures for a little more than a second.
pub(super) fn run(cpus: &[u32], data_dir: &Path) -> Timed {
    // Before the CPUs are watched, so that the writes are not what disturbs them.
    let write = existing(data_dir).map_or(Fact::Absent, |dir| {
        writes(dir)
            .map_or_else(|error| Fact::Unread(format!("{}: {error}", dir.display())), Fact::Known)
    });
    let stat = || steal(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    let before = stat();
    let watchers: Vec<_> =
        cpus.iter().map(|&cpu| (cpu, std::thread::spawn(move || watch(cpu)))).collect();
    let (mut wake_ups, mut unwatched) = (Vec::new(), Vec::new());
    for (cpu, watcher) in watchers {
        match watcher.join() {
            Ok(Ok(seen)) => wake_ups.push(seen),
            Ok(Err(error)) => unwatched.push(format!("CPU {cpu}: {error}")),
            Err(_) => unwatched.push(format!("CPU {cpu}: the watch broke off")),
        }
    }
    let share = match (before, stat()) {
        (Some((stolen, all)), Some((stolen_then, all_then))) if all_then > all => {
            Fact::Known(stolen_then.saturating_sub(stolen) as f64 / (all_then - all) as f64)
        }
        _ => Fact::Unread("/proc/stat: not understood".into()),
    };
    Timed { wake_ups, unwatched, steal: share, write }
}

/// Sleeps a millisecond, again and again, and sees how late it wakes.
fn watch(cpu: u32) -> io::Result<WakeUps> {
    dkv_node::cpu::pin(cpu as usize)?;
    // The kernel may else wait 50 µs for company, which says nothing about the host.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut late = histogram();
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        let due = after(clock_gettime(ClockId::Monotonic), NAP_NS);
        // A signal only ends one sleep early, which is not late.
        let _ = rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &due);
        let now = clock_gettime(ClockId::Monotonic);
        let late_ns = (now.tv_sec - due.tv_sec) * 1_000_000_000 + (now.tv_nsec - due.tv_nsec);
        late.saturating_record(u64::try_from(late_ns / 1000).unwrap_or(0));
    }
    Ok(summary(cpu, &late))
}

fn summary(cpu: u32, late: &Histogram<u64>) -> WakeUps {
    let mut steps = [0; STEPS_US.len() + 1];
    for value in late.iter_recorded() {
        let us = value.value_iterated_to();
        let at = STEPS_US.iter().position(|step| us <= *step).unwrap_or(STEPS_US.len());
        steps[at] += value.count_at_value();
    }
    WakeUps {
        cpu,
        count: late.len(),
        p50_us: late.value_at_quantile(0.5),
        p99_us: late.value_at_quantile(0.99),
        max_us: late.max(),
        steps,
    }
}

/// Microseconds up to ten seconds, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000, 3).expect("the bounds of the histogram fit")
}

fn after(time: Timespec, ns: i64) -> Timespec {
    let sum = time.tv_nsec + ns;
    Timespec { tv_sec: time.tv_sec + sum / 1_000_000_000, tv_nsec: sum % 1_000_000_000 }
}

/// Writes a block again and again, each one on the disk before the next.
fn writes(dir: &Path) -> io::Result<Writes> {
    let (file, direct) = match nameless(dir, OFlags::DIRECT) {
        Ok(file) => (file, Ok(())),
        Err(error) => (nameless(dir, OFlags::empty())?, Err(error.to_string())),
    };
    // Room for a block that begins where direct writes must.
    let room = vec![0x5a_u8; BLOCK * 2];
    let start = room.as_ptr().align_offset(BLOCK);
    let block = &room[start..start + BLOCK];
    let mut taken = histogram();
    let (mut file, mut direct) = (file, direct);
    let begin = Instant::now();
    while taken.is_empty() || begin.elapsed() < WRITE {
        let one = Instant::now();
        if let Err(error) = file.rewind().and_then(|()| file.write_all(block)) {
            // Some file systems take the flag and refuse the write.
            if direct.is_err() {
                return Err(error);
            }
            direct = Err(error.to_string());
            file = nameless(dir, OFlags::empty())?;
            continue;
        }
        taken.saturating_record(one.elapsed().as_micros() as u64);
    }
    Ok(Writes {
        count: taken.len(),
        direct,
        p50_us: taken.value_at_quantile(0.5),
        p99_us: taken.value_at_quantile(0.99),
    })
}

/// A new file whose writes are synchronous, and which lost its name at once: whatever ends this process ends the file.
fn nameless(dir: &Path, more: OFlags) -> io::Result<File> {
    let path = dir.join(format!(".dkv-doctor-{}", std::process::id()));
    let flags = (OFlags::DSYNC | more).bits() as i32;
    let opened =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&path);
    // Some file systems make the file and then refuse the flag.
    match (std::fs::remove_file(&path), opened) {
        (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(file)) => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_are_counted_by_how_late_they_are() {
        let mut late = histogram();
        for us in [10, 50, 51, 100, 900, 5000] {
            late.record(us).unwrap();
        }
        let seen = summary(3, &late);
        assert_eq!((seen.cpu, seen.count), (3, 6));
        assert_eq!(seen.steps, [2, 2, 0, 1, 1]);
        assert!(seen.max_us >= 5000, "{seen:?}");
    }

    #[test]
    fn times_carry_over_into_seconds() {
        let time = after(Timespec { tv_sec: 1, tv_nsec: 999_500_000 }, NAP_NS);
        assert_eq!((time.tv_sec, time.tv_nsec), (2, 500_000));
    }

    #[test]
    fn the_probe_of_the_disk_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let seen = writes(dir.path()).unwrap();
        assert!(seen.count > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = dir.path().join("gone");
        assert!(writes(&gone).is_err());
    }
}
