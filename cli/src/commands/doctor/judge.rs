//! From facts to findings. Pure.

use super::facts::{Facts, PORT_FIRST, PORT_LAST};
use super::{Row, Severity};
use crate::amounts::bytes_text;
use dkv_protocol::limits::{CLIENT_PORT, CLIENTS_MAX, CLUSTER_PORT, MANAGER_PORT, SHARD_PORT};

/// Descriptors of a node with all its clients, links and files.
const DESCRIPTORS: u64 = CLIENTS_MAX as u64 + 1024;
/// Connections that may wait to be accepted.
const BACKLOG: u64 = 1024;
/// Room for the catalogue and the logs.
const DISK_BYTES: u64 = 256 * 1024 * 1024;
/// Memory that a small store needs beside the system.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

struct Rows(Vec<Row>);

impl Rows {
    fn ok(&mut self, check: &'static str, found: impl Into<String>, wanted: impl Into<String>) {
        self.add(check, found, wanted, Severity::Ok, "", "");
    }

    fn add(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        wanted: impl Into<String>,
        severity: Severity,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let (found, wanted, why, fix) = (found.into(), wanted.into(), why.into(), fix.into());
        self.0.push(Row { check, found, wanted, severity, why, fix });
    }

    /// One finding that is either fine or not.
    fn judge(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        wanted: &str,
        fine: bool,
        otherwise: (Severity, &str, &str),
    ) {
        if fine {
            self.ok(check, found, wanted);
        } else {
            self.add(check, found, wanted, otherwise.0, otherwise.1, otherwise.2);
        }
    }
}

/// See the module.
pub(super) fn judge(facts: &Facts) -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    io_uring(facts, &mut rows);
    limits(facts, &mut rows);
    cpus(facts, &mut rows);
    memory(facts, &mut rows);
    network(facts, &mut rows);
    ports(facts, &mut rows);
    disk(facts, &mut rows);
    rows.0
}

fn io_uring(facts: &Facts, rows: &mut Rows) {
    // Without rings there is epoll. Without that there is nothing.
    let (worst, why) = match &facts.epoll {
        None => (Severity::Warning, "nodes run on epoll instead, where a command costs more CPU"),
        Some(_) => (Severity::Fatal, "no node can start"),
    };
    match &facts.ring {
        Some(Ok(_)) => rows.ok("io_uring", "works", "a ring can be made"),
        Some(Err(cause)) => {
            // The cause says its own fix after the first sentence; a table wants them apart.
            let (what, fix) = cause.split_once("; ").unwrap_or((cause, ""));
            rows.add("io_uring", what, "a ring can be made", worst, why, fix);
        }
        None => {}
    }
    match &facts.epoll {
        None => rows.ok("epoll", "works", "it stands in for io_uring"),
        Some(what) => rows.add(
            "epoll",
            what,
            "it stands in for io_uring",
            worst_without_epoll(facts),
            "where there is no io_uring, no node can start",
            "allow epoll_create1, epoll_ctl, epoll_pwait, eventfd2, recvfrom, sendto, sendmsg and accept4 in the filter",
        ),
    }
    if let Some(disabled) = facts.io_uring_disabled {
        let why = if disabled == 1 {
            "only members of a group may make rings"
        } else {
            "nobody may make rings"
        };
        // 1 lets privileged processes and a group through: whether that is enough, the ring above says.
        let worst = if disabled == 2 { worst } else { Severity::Warning };
        let fix = "sysctl -w kernel.io_uring_disabled=0";
        rows.judge("io_uring sysctl", disabled.to_string(), "0", disabled == 0, (worst, why, fix));
    }
    let words = ["off", "strict", "filtering"];
    let found = words
        .get(facts.seccomp as usize)
        .map_or_else(|| facts.seccomp.to_string(), ToString::to_string);
    let works = facts.seccomp == 0 || facts.ring.as_ref().is_none_or(Result::is_ok);
    let why = "the container's filter may forbid io_uring_setup";
    let fix = "run the container with a profile that allows io_uring_setup, _enter and _register: --security-opt seccomp=FILE, FILE being scripts/seccomp.json of DKV";
    rows.judge("seccomp", found, "io_uring allowed", works, (worst, why, fix));
    rows.ok("kernel", &facts.kernel, "6.1 or newer");
}

/// No epoll is a nuisance where there are rings.
fn worst_without_epoll(facts: &Facts) -> Severity {
    if matches!(facts.ring, Some(Ok(_))) { Severity::Warning } else { Severity::Fatal }
}

fn limits(facts: &Facts, rows: &mut Rows) {
    let needed = facts.ring_bytes * facts.cpus.max(1) as u64;
    let found = match facts.memlock {
        None => "no limit".to_owned(),
        Some(bytes) => bytes_text(bytes),
    };
    let fine = facts.memlock_exempt || facts.memlock.is_none_or(|limit| limit >= needed);
    let found = if facts.memlock_exempt { format!("{found}, and CAP_IPC_LOCK") } else { found };
    let fix = "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container, or ulimit -l unlimited";
    let why = "rings are charged to this limit; nodes get small rings, or run on epoll";
    let wanted = format!("{} or CAP_IPC_LOCK", bytes_text(needed));
    rows.judge("memlock", found, &wanted, fine, (Severity::Warning, why, fix));

    let (soft, hard) = facts.descriptors;
    let number =
        |limit: Option<u64>| limit.map_or_else(|| "no limit".into(), |limit| limit.to_string());
    let found = format!("{} (hard {})", number(soft), number(hard));
    // A node raises its soft limit to the hard one by itself.
    let fine = hard.is_none_or(|hard| hard >= DESCRIPTORS);
    let why = format!("fewer than {CLIENTS_MAX} clients can connect to a node");
    let fix = format!("LimitNOFILE={} in the unit, or ulimit -Hn {}", 65536, 65536);
    rows.judge(
        "descriptors",
        found,
        &DESCRIPTORS.to_string(),
        fine,
        (Severity::Warning, &why, &fix),
    );
}

fn cpus(facts: &Facts, rows: &mut Rows) {
    let why = "every node's shards share one CPU with everything else";
    let fix = "give this machine or container two CPUs or more";
    rows.judge("cpus", facts.cpus.to_string(), "2", facts.cpus >= 2, (Severity::Warning, why, fix));
    if let Some(quota) = facts.cpu_quota {
        let fine = quota >= facts.cpus as f64;
        let why = "a quota below the number of CPUs stops all threads for 10 to 100 ms when it is used up";
        let fix = "limit the CPU set instead of the quota: cpuset.cpus, or whole CPUs with a static policy";
        let found = format!("{quota:.1} CPUs");
        rows.judge("cpu quota", found, "none", fine, (Severity::Warning, why, fix));
    }
    if !facts.governors.is_empty() {
        let found = facts.governors.join(", ");
        let fine = facts.governors == ["performance"];
        let why = "a CPU that slows down when idle answers the next request late";
        let fix = "cpupower frequency-set -g performance";
        rows.judge("governor", found, "performance", fine, (Severity::Warning, why, fix));
    }
    if let Some(source) = &facts.clock_source {
        let fine = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"]
            .contains(&source.as_str());
        let why = "reading this clock is a system call, and a shard reads it every turn";
        let fix = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource";
        rows.judge("clock source", source, "tsc or kvm-clock", fine, (Severity::Warning, why, fix));
    }
}

fn memory(facts: &Facts, rows: &mut Rows) {
    let available = match (facts.memory_available, facts.memory_max) {
        (Some(available), Some(max)) => Some(available.min(max)),
        (available, max) => available.or(max),
    };
    if let Some(available) = available {
        let fine = available >= MEMORY_BYTES;
        let found = format!("{} MiB", available >> 20);
        let wanted = format!("{} MiB", MEMORY_BYTES >> 20);
        let why = "a store has little room; the kernel may end a node";
        let fix =
            "give it more memory, or each node a limit: dkv store create … --max-memory 64MiB";
        rows.judge("memory", found, &wanted, fine, (Severity::Warning, why, fix));
    }
    let (swap, swappiness) = facts.swap;
    if swap > 0 {
        let swappiness = swappiness.unwrap_or(60);
        let found = format!("{} MiB, swappiness {swappiness}", swap >> 20);
        let why = "a value that was swapped out is answered after a disk read";
        rows.judge(
            "swap",
            found,
            "off, or swappiness 1",
            swappiness <= 1,
            (Severity::Warning, why, "swapoff -a"),
        );
    }
    if let Some(chosen) = &facts.huge_pages {
        let why = "without huge pages a lookup costs a quarter more CPU";
        let fix = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
        rows.judge(
            "huge pages",
            chosen,
            "madvise",
            chosen != "never",
            (Severity::Warning, why, fix),
        );
    }
}

fn network(facts: &Facts, rows: &mut Rows) {
    if let Some(somaxconn) = facts.somaxconn {
        let why = "a burst of connections is refused by the kernel";
        let fix = format!("sysctl -w net.core.somaxconn={}", BACKLOG * 4);
        let fine = somaxconn >= BACKLOG;
        rows.judge(
            "somaxconn",
            somaxconn.to_string(),
            &BACKLOG.to_string(),
            fine,
            (Severity::Warning, why, &fix),
        );
    }
    if let Some(backlog) = facts.syn_backlog {
        let why = "a burst of connections waits for a second try";
        let fix = format!("sysctl -w net.ipv4.tcp_max_syn_backlog={}", BACKLOG * 4);
        let fine = backlog >= BACKLOG;
        rows.judge(
            "syn backlog",
            backlog.to_string(),
            &BACKLOG.to_string(),
            fine,
            (Severity::Warning, why, &fix),
        );
    }
    if let Some((first, last)) = facts.local_ports {
        let reserved = covers(&facts.reserved_ports, PORT_FIRST, PORT_LAST);
        let fine = last < PORT_FIRST || first > PORT_LAST || reserved;
        let found = format!("{first}-{last}{}", if reserved { ", ours reserved" } else { "" });
        let why = "an outgoing connection may take a port that a node wants";
        let fix = format!("sysctl -w net.ipv4.ip_local_reserved_ports={PORT_FIRST}-{PORT_LAST}");
        let wanted = format!("without {PORT_FIRST}-{PORT_LAST}");
        rows.judge("local ports", found, &wanted, fine, (Severity::Warning, why, &fix));
    }
}

/// Whether a list as `8080,7801-7999` holds all of a range in one piece.
fn covers(list: &str, first: u16, last: u16) -> bool {
    list.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if from <= first && to >= last)
    })
}

fn ports(facts: &Facts, rows: &mut Rows) {
    match &facts.manager {
        Some(manager) => rows.ok("manager", format!("runs: {manager}"), "one or none"),
        None => rows.ok("manager", "none runs", "one or none"),
    }
    let ranges = [
        ("manager ports", MANAGER_PORT, CLUSTER_PORT - 1),
        ("cluster ports", CLUSTER_PORT, CLIENT_PORT - 1),
        ("client ports", CLIENT_PORT, SHARD_PORT - 1),
        ("shard ports", SHARD_PORT, PORT_LAST),
    ];
    for (check, first, last) in ranges {
        let held: Vec<_> = facts.listeners.range(first..=last).collect();
        let wanted = format!("{first}-{last} free or held by dkv");
        if held.is_empty() {
            rows.ok(check, "all free", wanted);
            continue;
        }
        let found =
            held.iter().map(|(port, who)| format!("{port}: {who}")).collect::<Vec<_>>().join(", ");
        let foreign = held.iter().find(|(_, who)| !who.starts_with("dkv"));
        let Some((port, who)) = foreign else {
            rows.ok(check, found, wanted);
            continue;
        };
        let why = format!("a store or manager that wants port {port} cannot have it");
        let fix =
            format!("stop {who}, or choose other ports with --clustron-port and --client-port");
        rows.add(check, found, wanted, Severity::Warning, why, fix);
    }
}

fn disk(facts: &Facts, rows: &mut Rows) {
    let (dir, problem) = &facts.data_dir;
    let fix = "name another one: --data-dir DIR or DKV_DATA_DIR";
    match problem {
        None => rows.ok("data directory", dir.display().to_string(), "can be written"),
        Some(problem) => {
            rows.add(
                "data directory",
                problem,
                "can be written",
                Severity::Fatal,
                "no manager can start with it",
                fix,
            );
        }
    }
    if let Some(free) = facts.disk_free {
        let wanted = format!("{} MiB free", DISK_BYTES >> 20);
        let why = "a full disk keeps the manager from writing its catalogue";
        let fine = free >= DISK_BYTES;
        rows.judge(
            "disk",
            format!("{} MiB free", free >> 20),
            &wanted,
            fine,
            (Severity::Warning, why, fix),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            kernel: "6.12.48".into(),
            ring: Some(Ok("io=uring".into())),
            io_uring_disabled: Some(0),
            ring_bytes: 256 << 10,
            memlock: Some(8 << 20),
            descriptors: (Some(1024), Some(1 << 20)),
            cpus: 4,
            memory_available: Some(8 << 30),
            huge_pages: Some("madvise".into()),
            somaxconn: Some(4096),
            syn_backlog: Some(4096),
            local_ports: Some((32768, 60999)),
            clock_source: Some("tsc".into()),
            governors: vec!["performance".into()],
            disk_free: Some(1 << 30),
            ..Facts::default()
        }
    }

    #[test]
    fn a_good_host_gets_no_complaint() {
        let rows = judge(&good());
        assert!(rows.len() >= 15, "{rows:#?}");
        for row in rows {
            assert_eq!((row.severity, row.fix.as_str()), (Severity::Ok, ""), "{row:?}");
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_with_its_fix() {
        type Case = (&'static str, fn(&mut Facts), Severity, &'static str);
        let cases: &[Case] = &[
            (
                "io_uring",
                |f| f.ring = Some(Err("seccomp forbids it; --security-opt seccomp=x".into())),
                Severity::Warning,
                "--security-opt seccomp=x",
            ),
            (
                "io_uring",
                |f| {
                    f.ring = Some(Err("seccomp forbids it; --security-opt seccomp=x".into()));
                    f.epoll = Some("Operation not permitted".into());
                },
                Severity::Fatal,
                "--security-opt seccomp=x",
            ),
            ("epoll", |f| f.epoll = Some("no".into()), Severity::Warning, "epoll_pwait"),
            (
                "epoll",
                |f| (f.ring, f.epoll) = (Some(Err("no".into())), Some("no".into())),
                Severity::Fatal,
                "epoll_pwait",
            ),
            (
                "io_uring sysctl",
                |f| f.io_uring_disabled = Some(2),
                Severity::Warning,
                "sysctl -w kernel.io_uring_disabled=0",
            ),
            (
                "io_uring sysctl",
                |f| f.io_uring_disabled = Some(1),
                Severity::Warning,
                "io_uring_disabled=0",
            ),
            (
                "seccomp",
                |f| (f.seccomp, f.ring) = (2, Some(Err("EPERM".into()))),
                Severity::Warning,
                "--security-opt",
            ),
            ("memlock", |f| f.memlock = Some(0), Severity::Warning, "LimitMEMLOCK"),
            (
                "descriptors",
                |f| f.descriptors = (Some(1024), Some(4096)),
                Severity::Warning,
                "LimitNOFILE",
            ),
            ("cpus", |f| f.cpus = 1, Severity::Warning, "two CPUs"),
            ("cpu quota", |f| f.cpu_quota = Some(1.5), Severity::Warning, "cpuset.cpus"),
            ("governor", |f| f.governors = vec!["powersave".into()], Severity::Warning, "cpupower"),
            ("clock source", |f| f.clock_source = Some("hpet".into()), Severity::Warning, "tsc"),
            ("memory", |f| f.memory_max = Some(64 << 20), Severity::Warning, "--max-memory"),
            ("swap", |f| f.swap = (1 << 30, Some(60)), Severity::Warning, "swapoff"),
            ("huge pages", |f| f.huge_pages = Some("never".into()), Severity::Warning, "madvise"),
            ("somaxconn", |f| f.somaxconn = Some(128), Severity::Warning, "somaxconn=4096"),
            ("syn backlog", |f| f.syn_backlog = Some(128), Severity::Warning, "syn_backlog=4096"),
            (
                "local ports",
                |f| f.local_ports = Some((1024, 65535)),
                Severity::Warning,
                "reserved_ports=7801-7999",
            ),
            (
                "client ports",
                |f| drop(f.listeners.insert(7861, "nginx (pid 17)".into())),
                Severity::Warning,
                "stop nginx (pid 17)",
            ),
            (
                "data directory",
                |f| f.data_dir.1 = Some("/: read-only".into()),
                Severity::Fatal,
                "--data-dir",
            ),
            ("disk", |f| f.disk_free = Some(1), Severity::Warning, "--data-dir"),
        ];
        for (check, spoil, severity, fix) in cases {
            let mut facts = good();
            spoil(&mut facts);
            let rows = judge(&facts);
            let row =
                rows.iter().find(|row| row.check == *check).unwrap_or_else(|| panic!("{check}"));
            assert_eq!(row.severity, *severity, "{row:?}");
            assert!(row.fix.contains(fix), "{row:?}");
            assert!(!row.why.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn what_is_not_wrong_is_not_complained_of() {
        type Case = (&'static str, fn(&mut Facts));
        let fine: &[Case] = &[
            ("memlock", |f| (f.memlock, f.memlock_exempt) = (Some(0), true)),
            ("seccomp", |f| f.seccomp = 2),
            ("local ports", |f| {
                (f.local_ports, f.reserved_ports) = (Some((1024, 65535)), "80,7801-7999".into());
            }),
            ("client ports", |f| drop(f.listeners.insert(7861, "dkv (pid 17)".into()))),
        ];
        for (check, change) in fine {
            let mut facts = good();
            change(&mut facts);
            let rows = judge(&facts);
            let row =
                rows.iter().find(|row| row.check == *check).unwrap_or_else(|| panic!("{check}"));
            assert_eq!(row.severity, Severity::Ok, "{row:?}");
        }
    }
}
