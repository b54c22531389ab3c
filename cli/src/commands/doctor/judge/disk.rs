//! The disk that the manager writes its decisions to, and the calendar.

use super::cpus::left_out;
use super::rows::{Rows, Severity, advice, command, note, warning};
use crate::commands::doctor::facts::{BlockDevice, Disk, Fact};
use crate::commands::doctor::probe::Timed;

/// Room for the catalogue and the logs.
const FREE_BYTES: u64 = 256 * 1024 * 1024;
/// A synchronous write that takes longer is felt in a failover, which waits for several.
const WRITE_US: u64 = 10_000;
/// Calls between machines are refused when their clocks differ by more.
const CLOCKS_US: u64 = dkv_agent::auth::CLOCK_DIFFERENCE_S_MAX * 1_000_000;

pub(super) fn judge(disk: &Disk, timed: Option<&Timed>, rows: &mut Rows) {
    let (dir, problem) = &disk.data_dir;
    let elsewhere = "name another one: --data-dir DIR or DKV_DATA_DIR";
    let found = problem.clone().unwrap_or_else(|| dir.display().to_string());
    let problem = problem
        .as_ref()
        .map(|_| (Severity::Fatal, "no manager can start with it".to_owned(), advice(elsewhere)));
    rows.add("data directory", found, "can be written", problem);
    if let Some(free) = disk.free {
        let wanted = format!("{} MiB free", FREE_BYTES >> 20);
        let why = "a full disk keeps the manager from writing its catalogue";
        let problem = (free < FREE_BYTES).then(|| warning(why, advice(elsewhere)));
        rows.add("disk", format!("{} MiB free", free >> 20), wanted, problem);
    }
    rows.fact("file system", &disk.file_system, "ext4, xfs or another local one", None, |kind| {
        let lost = ["tmpfs", "ramfs", "overlay", "aufs"].contains(&kind.as_str());
        let far = ["nfs", "nfs4", "cifs", "9p", "ceph", "glusterfs"].contains(&kind.as_str())
            || kind.starts_with("fuse");
        let problem = if lost {
            let why = "what the manager keeps there is gone with the container, or at the next start of the machine: it has to join the others anew";
            Some(warning(why, advice("keep the data directory on a disk: a volume (docker run -v), or --data-dir DIR")))
        } else if far {
            let why = "each decision of the managers waits for a write over the network, and stops when it is cut";
            Some(warning(why, advice(elsewhere)))
        } else {
            None
        };
        (kind.clone(), problem)
    });
    match timed {
        Some(timed) => judge_writes(timed, rows),
        None => left_out("disk writes", "p99 within 10 ms", rows),
    }
    let none = "no block device of its own";
    match &disk.device {
        Fact::Known(device) => judge_device(device, rows),
        Fact::Absent => rows.add("disk scheduler", none, "none or mq-deadline", None),
        Fact::Unread(why) => rows.unknown("disk scheduler", why, "none or mq-deadline"),
    }
    rows.fact("calendar", &disk.calendar, "kept right (NTP)", None, |calendar| {
        let off = calendar.error_us_max;
        let found = if calendar.synchronised { format!("synchronised, within {} ms", off / 1000) } else { "not synchronised".to_owned() };
        let problem = (!calendar.synchronised || off > CLOCKS_US).then(|| {
            let why = "managers refuse each other's calls when their clocks differ by more than 60 s, and times in logs of several machines do not fit; nothing stored depends on it";
            warning(why, command("apt-get install -y chrony"))
        });
        (found, problem)
    });
}

fn judge_writes(timed: &Timed, rows: &mut Rows) {
    rows.fact("disk writes", &timed.write, "p99 within 10 ms", Some("no directory to write to"), |seen| {
        let problem = (seen.p99_us > WRITE_US).then(|| {
            let why = "a decision of the managers is answered when it is on the disk: each failover waits for such writes";
            warning(why, advice("put the data directory on a faster disk: --data-dir DIR"))
        });
        let found = format!("4 KiB synchronously: p50 {} µs, p99 {} µs of {}", seen.p50_us, seen.p99_us, seen.count);
        (found, problem)
    });
    if let Fact::Known(seen) = &timed.write {
        let (found, problem) = match &seen.direct {
            Ok(()) => ("works".to_owned(), None),
            Err(error) => {
                let why =
                    "the writes above went through the page cache, whose work is in their times";
                (format!("does not: {error}"), Some(note(why)))
            }
        };
        rows.add("O_DIRECT", found, "works", problem);
    }
}

fn judge_device(device: &BlockDevice, rows: &mut Rows) {
    let name = &device.name;
    let wanted = "none or mq-deadline";
    rows.fact("disk scheduler", &device.scheduler, wanted, Some("not shown"), |chosen| {
        let problem = (!device.rotational
            && !["none", "mq-deadline", "noop", "deadline"].contains(&chosen.as_str()))
        .then(|| {
            let why = "it holds writes back to be fair to others, and a synchronous write waits";
            warning(why, command(format!("echo none > /sys/block/{name}/queue/scheduler")))
        });
        (format!("{name}: {chosen}"), problem)
    });
    rows.fact("disk merges", &device.nomerges, "0", Some("not shown"), |mode| {
        let found = format!("{name}: nomerges {mode}");
        let problem = (*mode == 2).then(|| note("neighbouring writes go to the disk one by one; the managers' log is one file and loses little by it"));
        (found, problem)
    });
    rows.fact("disk write cache", &device.write_cache, "either", Some("not shown"), |mode| {
        let problem = (mode == "write back").then(|| note("each synchronous write makes the disk empty its cache, which the times above contain; the disk must keep that promise at a power cut"));
        (format!("{name}: {mode}"), problem)
    });
}
