//! Memory: enough of it, in RAM, in huge pages.

use super::rows::{Rows, advice, command, note, warning};
use crate::commands::doctor::facts::{Fact, Memory};

/// Memory that a small store needs beside the system.
const BYTES: u64 = 256 * 1024 * 1024;

pub(super) fn judge(memory: &Memory, rows: &mut Rows) {
    let available = match (&memory.available, &memory.limit) {
        (Fact::Known(available), Fact::Known(limit)) => Fact::Known(*available.min(limit)),
        (Fact::Absent, limit) => limit.clone(),
        (available, _) => available.clone(),
    };
    let wanted = format!("{} MiB", BYTES >> 20);
    rows.fact("memory", &available, &wanted, None, |bytes| {
        let problem = (*bytes < BYTES).then(|| {
            let why = "a store has little room; the kernel may end a node";
            let fix =
                "give it more memory, or each node a limit: dkv store create … --max-memory 64MiB";
            warning(why, advice(fix))
        });
        let limit = match memory.limit.known() {
            Some(limit) => format!(", limit {} MiB", limit >> 20),
            None => ", no limit".to_owned(),
        };
        (format!("{} MiB available{limit}", bytes >> 20), problem)
    });
    rows.fact("swap", &memory.swap, "off, or swappiness 1", Some("none"), |bytes| {
        let swappiness = memory.swappiness.known().copied();
        let found = match (bytes, swappiness) {
            (0, _) => "off".to_owned(),
            (_, Some(swappiness)) => format!("{} MiB, swappiness {swappiness}", bytes >> 20),
            (_, None) => format!("{} MiB, swappiness unknown", bytes >> 20),
        };
        let problem =
            (*bytes > 0 && swappiness.is_none_or(|swappiness| swappiness > 1)).then(|| {
                let why = "a value that was swapped out is answered after a disk read";
                warning(why, command("swapoff -a"))
            });
        (found, problem)
    });
    rows.fact("overcommit", &memory.overcommit, "0 or 1", None, |mode| {
        let problem = (*mode == 2).then(|| {
            let why = "address space is counted as if it were memory: a node that reserves some for its table may not start though there is memory";
            warning(why, command("sysctl -w vm.overcommit_memory=0"))
        });
        (mode.to_string(), problem)
    });
    rows.fact("huge pages", &memory.huge_pages, "madvise", Some("not in this kernel"), |chosen| {
        let problem = (chosen == "never").then(|| {
            let why = "without huge pages a lookup costs a quarter more CPU";
            warning(why, command("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"))
        });
        (chosen.clone(), problem)
    });
    let wanted = "defer+madvise or madvise";
    rows.fact("huge page defrag", &memory.defrag, wanted, Some("not in this kernel"), |chosen| {
        let problem = (chosen == "always").then(|| {
            let why = "every thread that touches new memory may have to move pages first, for milliseconds";
            let fix = "echo defer+madvise > /sys/kernel/mm/transparent_hugepage/defrag";
            warning(why, command(fix))
        });
        (chosen.clone(), problem)
    });
    rows.fact("huge pages set aside", &memory.set_aside, "0", Some("none"), |(all, free, bytes)| {
        let problem = (*all > 0).then(|| {
            let mib = (free * bytes) >> 20;
            note(format!("DKV takes transparent huge pages: {mib} MiB lie idle for other programs (vm.nr_hugepages)"))
        });
        (format!("{all}, {free} of them free"), problem)
    });
}
