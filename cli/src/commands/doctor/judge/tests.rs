//! A good host, and each thing that can be wrong with it, planted.

use super::*;
use crate::commands::doctor::facts::{
    BlockDevice, Cpus, Device, Disk, Fact, Limits, Memory, Network, Ports, Ring,
};
use crate::commands::doctor::probe::{Timed, WakeUps, Writes};

use Fact::Known;

fn good() -> Facts {
    Facts {
        ring: Ring {
            kernel: "6.18.3-amd64".into(),
            works: Some(Ok("io=uring".into())),
            flags: vec!["defer_taskrun"],
            operations: Known((Vec::new(), 7)),
            run_dry: Known(Ok(3)),
            disabled: Some(0),
            ..Ring::default()
        },
        limits: Limits {
            ring_bytes: 256 << 10,
            memlock: Some(8 << 20),
            descriptors: (Some(1024), Some(1 << 20)),
            ..Limits::default()
        },
        cpus: Cpus {
            allowed: vec![0, 1, 2, 3],
            online: Known(vec![0, 1, 2, 3]),
            throttled: Known(0),
            siblings: Known(Vec::new()),
            numa_nodes: Known(vec![0]),
            governors: Known(vec!["performance".into()]),
            deepest_idle: Known(("C1".into(), 2)),
            clock_source: Known("tsc".into()),
            ..Cpus::default()
        },
        memory: Memory {
            available: Known(8 << 30),
            swap: Known(0),
            swappiness: Known(60),
            overcommit: Known(0),
            huge_pages: Known("madvise".into()),
            defrag: Known("madvise".into()),
            set_aside: Known((0, 0, 2 << 20)),
            ..Memory::default()
        },
        network: Network {
            somaxconn: Known(4096),
            syn_backlog: Known(4096),
            busy_poll: Known((0, 0)),
            flow_entries: Known(0),
            irqbalance: false,
            devices: vec![nic()],
        },
        ports: Ports {
            local: Known((32768, 60999)),
            reserved: Known(String::new()),
            ..Ports::default()
        },
        disk: Disk {
            free: Some(1 << 30),
            file_system: Known("ext4".into()),
            device: Known(BlockDevice {
                name: "vda".into(),
                scheduler: Known("none".into()),
                nomerges: Known(0),
                write_cache: Known("write through".into()),
                rotational: false,
            }),
            calendar: Known(calendar(true)),
            ..Disk::default()
        },
        container: None,
        timed: Some(Timed {
            wake_ups: vec![WakeUps {
                cpu: 0,
                count: 900,
                steps: [890, 10, 0, 0, 0],
                ..WakeUps::default()
            }],
            steal: Known(0.0),
            write: Known(writes(300)),
            ..Timed::default()
        }),
    }
}

fn nic() -> Device {
    Device {
        name: "eth0".into(),
        driver: Some("ena".into()),
        queues: (4, 4),
        interrupts: (4, [0, 1, 2, 3].into()),
        ..Device::default()
    }
}

fn calendar(synchronised: bool) -> dkv_node::Calendar {
    dkv_node::Calendar { synchronised, error_us_max: 1000 }
}

fn writes(p99_us: u64) -> Writes {
    Writes { count: 100, direct: Ok(()), p50_us: 100, p99_us }
}

fn timed(facts: &mut Facts) -> &mut Timed {
    facts.timed.as_mut().expect("the good host is measured")
}

fn unread<T>() -> Fact<T> {
    Fact::Unread("/sys/x: Permission denied (os error 13)".into())
}

/// The row of a check after something was done to the good host.
fn row_of(check: &str, spoil: impl Fn(&mut Facts)) -> Row {
    let mut facts = good();
    spoil(&mut facts);
    let rows = judge(&facts);
    let shown = || rows.iter().map(|row| row.check.as_str()).collect::<Vec<_>>().join(", ");
    rows.iter()
        .find(|row| row.check == check)
        .cloned()
        .unwrap_or_else(|| panic!("{check} in {}", shown()))
}

#[test]
fn a_good_host_gets_no_complaint() {
    let rows = judge(&good());
    assert!(rows.len() >= 43, "{} {rows:#?}", rows.len());
    for row in &rows {
        assert_eq!((row.severity, &row.fix), (Severity::Ok, &Fix::None), "{row:?}");
    }
    let mut names: Vec<_> = rows.iter().map(|row| &row.check).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "each check once");
}

type Case = (&'static str, fn(&mut Facts), Severity, &'static str);

fn no_ring(facts: &mut Facts) {
    facts.ring.works = Some(Err("seccomp forbids it; --security-opt seccomp=x".into()));
    facts.ring.setup_error = Some("Operation not permitted (os error 1)".into());
}

fn check(cases: &[Case]) {
    for (check, spoil, severity, fix) in cases {
        let row = row_of(check, spoil);
        assert_eq!(row.severity, *severity, "{row:?}");
        assert!(row.fix.text().contains(fix), "{row:?}");
        assert!(!row.why.is_empty(), "{row:?}");
    }
}

#[test]
fn what_is_wrong_with_the_kernel_is_found_with_its_fix() {
    use Severity::{Fatal, Note, Warning};
    check(&[
        ("io_uring", no_ring, Warning, "--security-opt seccomp=x"),
        ("io_uring", |f| (no_ring(f), f.ring.epoll = Some("EPERM".into())).1, Fatal, "seccomp=x"),
        ("ring operations", |f| f.ring.operations = Known((vec!["MSG_RING"], 7)), Warning, "6.1"),
        ("ring self-test", |f| f.ring.run_dry = Known(Err("stuck".into())), Warning, "--io epoll"),
        ("epoll", |f| f.ring.epoll = Some("no".into()), Warning, "epoll_pwait"),
        ("epoll", |f| (no_ring(f), f.ring.epoll = Some("no".into())).1, Fatal, "epoll_pwait"),
        (
            "io_uring sysctl",
            |f| f.ring.disabled = Some(2),
            Warning,
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        ("io_uring sysctl", |f| f.ring.disabled = Some(1), Warning, "io_uring_disabled=0"),
        ("seccomp", |f| (no_ring(f), f.ring.seccomp = 2).1, Warning, "--security-opt"),
        ("kernel", |f| f.ring.kernel = "5.15.0-1".into(), Warning, "backports"),
        ("iowait", |f| f.ring.kernel = "6.12.48".into(), Note, ""),
        ("memlock", |f| f.limits.memlock = Some(0), Warning, "LimitMEMLOCK"),
        ("memlock", |f| f.limits.memlock_used = 8 << 20, Warning, "LimitMEMLOCK"),
        (
            "descriptors",
            |f| f.limits.descriptors = (Some(1024), Some(4096)),
            Warning,
            "LimitNOFILE",
        ),
    ]);
    let row = row_of("io_uring", no_ring);
    assert!(row.found.contains("io_uring_setup: Operation not permitted"), "{row:?}");
}

#[test]
fn what_is_wrong_with_cpus_is_found_with_its_fix() {
    use Severity::{Note, Warning};
    check(&[
        ("cpus", |f| f.cpus.allowed = vec![0], Warning, "two CPUs"),
        ("cpu quota", |f| f.cpus.quota = Known(1.5), Warning, "--cpuset-cpus"),
        ("cpu throttling", |f| f.cpus.throttled = Known(9), Warning, "CPUQuota="),
        ("SMT", |f| f.cpus.siblings = Known(vec![vec![0, 2]]), Note, ""),
        ("NUMA nodes", |f| f.cpus.numa_nodes = Known(vec![0, 1]), Note, "numactl"),
        ("governor", |f| f.cpus.governors = Known(vec!["powersave".into()]), Warning, "cpupower"),
        (
            "idle states",
            |f| f.cpus.deepest_idle = Known(("C6".into(), 133)),
            Warning,
            "cpupower idle-set -D 101",
        ),
        ("clock source", |f| f.cpus.clock_source = Known("hpet".into()), Warning, "tsc"),
        ("stolen time", |f| timed(f).steal = Known(0.02), Warning, "dedicated"),
        ("wake-up CPU 0", |f| timed(f).wake_ups[0].steps[4] = 3, Warning, "dedicated"),
        ("wake-up CPU 0", |f| timed(f).wake_ups[0].steps[4] = 1, Note, "ps -eLo"),
        (
            "wake-up",
            |f| timed(f).unwatched.push("CPU 1: EPERM".into()),
            Severity::Unknown,
            "by hand",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_memory_and_disk_is_found_with_its_fix() {
    use Severity::{Fatal, Note, Warning};
    fn device(facts: &mut Facts, change: impl Fn(&mut BlockDevice)) {
        if let Known(device) = &mut facts.disk.device {
            change(device);
        }
    }
    check(&[
        ("memory", |f| f.memory.limit = Known(64 << 20), Warning, "--max-memory"),
        ("memory", |f| f.memory.available = Known(64 << 20), Warning, "--max-memory"),
        ("swap", |f| f.memory.swap = Known(1 << 30), Warning, "swapoff"),
        ("overcommit", |f| f.memory.overcommit = Known(2), Warning, "overcommit_memory=0"),
        ("huge pages", |f| f.memory.huge_pages = Known("never".into()), Warning, "madvise"),
        (
            "huge page defrag",
            |f| f.memory.defrag = Known("always".into()),
            Warning,
            "defer+madvise >",
        ),
        ("huge pages set aside", |f| f.memory.set_aside = Known((512, 500, 2 << 20)), Note, ""),
        (
            "data directory",
            |f| f.disk.data_dir.1 = Some("/: read-only".into()),
            Fatal,
            "--data-dir",
        ),
        ("disk", |f| f.disk.free = Some(1), Warning, "--data-dir"),
        ("file system", |f| f.disk.file_system = Known("overlay".into()), Warning, "docker run -v"),
        ("file system", |f| f.disk.file_system = Known("nfs4".into()), Warning, "--data-dir"),
        ("disk writes", |f| timed(f).write = Known(writes(20_000)), Warning, "faster disk"),
        (
            "O_DIRECT",
            |f| timed(f).write = Known(Writes { direct: Err("EINVAL".into()), ..writes(1) }),
            Note,
            "",
        ),
        (
            "disk scheduler",
            |f| device(f, |d| d.scheduler = Known("bfq".into())),
            Warning,
            "echo none > /sys/block/vda/queue/scheduler",
        ),
        ("disk merges", |f| device(f, |d| d.nomerges = Known(2)), Note, ""),
        (
            "disk write cache",
            |f| device(f, |d| d.write_cache = Known("write back".into())),
            Note,
            "",
        ),
        ("calendar", |f| f.disk.calendar = Known(calendar(false)), Warning, "chrony"),
    ]);
}

#[test]
fn what_is_wrong_with_the_network_is_found_with_its_fix() {
    use Severity::{Note, Warning};
    fn nic(facts: &mut Facts) -> &mut Device {
        &mut facts.network.devices[0]
    }
    check(&[
        ("somaxconn", |f| f.network.somaxconn = Known(128), Warning, "somaxconn=4096"),
        ("syn backlog", |f| f.network.syn_backlog = Known(128), Warning, "syn_backlog=4096"),
        ("busy poll", |f| f.network.busy_poll = Known((50, 0)), Warning, "busy_poll=0"),
        ("irqbalance", |f| f.network.irqbalance = true, Warning, "disable --now irqbalance"),
        ("network eth0", |f| nic(f).interrupts.1 = [2].into(), Warning, "smp_affinity_list"),
        (
            "network eth0",
            |f| nic(f).queues = (1, 1),
            Warning,
            "ethtool -L eth0 combined 4 || echo f >",
        ),
        ("network eth0", |f| (nic(f).queues = (1, 1), f.cpus.allowed.truncate(2)).1, Note, ""),
        (
            "local ports",
            |f| f.ports.local = Known((1024, 65535)),
            Warning,
            "reserved_ports=7801-7999",
        ),
        (
            "client ports",
            |f| drop(f.ports.listeners.insert(7861, Some("nginx (pid 17)".into()))),
            Warning,
            "stop nginx (pid 17)",
        ),
        ("client ports", |f| drop(f.ports.listeners.insert(7861, None)), Note, ""),
    ]);
}

#[test]
fn what_is_not_wrong_is_not_complained_of() {
    type Fine = (&'static str, fn(&mut Facts));
    let fine: &[Fine] = &[
        ("memlock", |f| (f.limits.memlock, f.limits.memlock_exempt) = (Some(0), true)),
        ("seccomp", |f| f.ring.seccomp = 2),
        ("swap", |f| (f.memory.swap, f.memory.swappiness) = (Known(1 << 30), Known(1))),
        ("overcommit", |f| f.memory.overcommit = Known(1)),
        ("cpu quota", |f| f.cpus.quota = Known(4.0)),
        ("governor", |f| f.cpus.governors = Fact::Absent),
        ("irqbalance", |f| (f.network.irqbalance = true, f.network.devices.clear()).1),
        ("network eth0", |f| {
            let nic = &mut f.network.devices[0];
            (nic.queues, nic.rps) = ((1, 1), 1);
        }),
        ("network eth0", |f| f.network.devices[0].driver = None),
        ("disk scheduler", |f| f.disk.device = Fact::Absent),
        ("local ports", |f| {
            f.ports.local = Known((1024, 65535));
            f.ports.reserved = Known("80,7801-7999".into());
        }),
        ("client ports", |f| drop(f.ports.listeners.insert(7861, Some("dkv (pid 17)".into())))),
    ];
    for (check, change) in fine {
        let row = row_of(check, change);
        assert_eq!(row.severity, Severity::Ok, "{row:?}");
    }
}

#[test]
fn what_could_not_be_read_is_never_called_fine() {
    type Unreadable = (&'static str, fn(&mut Facts));
    let rows: &[Unreadable] = &[
        ("governor", |f| f.cpus.governors = unread()),
        ("SMT", |f| f.cpus.siblings = unread()),
        ("swap", |f| f.memory.swap = unread()),
        ("memory", |f| f.memory.available = unread()),
        ("somaxconn", |f| f.network.somaxconn = unread()),
        ("network eth0", |f| f.network.devices[0].unread = Some("x: Permission denied".into())),
        ("local ports", |f| f.ports.local = unread()),
        ("disk scheduler", |f| f.disk.device = unread()),
        ("calendar", |f| f.disk.calendar = unread()),
        ("disk writes", |f| timed(f).write = unread()),
        ("kernel", |f| f.ring.kernel = "strange".into()),
    ];
    for (check, change) in rows {
        let row = row_of(check, change);
        assert_eq!(row.severity, Severity::Unknown, "{row:?}");
        let fix = if *check == "kernel" { "by hand" } else { "sudo dkv doctor" };
        assert!(row.fix.text().contains(fix), "{row:?}");
    }
}

#[test]
fn probes_that_were_left_out_say_so() {
    for check in ["wake-up", "stolen time", "disk writes"] {
        let row = row_of(check, |facts| facts.timed = None);
        assert_eq!((row.severity, row.found.as_str()), (Severity::Unknown, "left out (--quick)"));
    }
}

#[test]
fn inside_a_container_a_fix_says_where_it_belongs() {
    let inside = |facts: &mut Facts| {
        facts.container = Some("docker".into());
        facts.memory.swap = Known(1 << 30);
        facts.network.somaxconn = Known(128);
        facts.cpus.governors = Known(vec!["powersave".into()]);
    };
    for (check, fix) in [
        ("swap", "on the container's host: swapoff -a"),
        ("governor", "on the container's host: cpupower"),
        (
            "somaxconn",
            "--sysctl net.core.somaxconn=4096; or on its host, sysctl -w net.core.somaxconn=4096",
        ),
    ] {
        let row = row_of(check, inside);
        assert!(matches!(&row.fix, Fix::Advice(text) if text.contains(fix)), "{row:?}");
    }
    assert_eq!(row_of("container", inside).severity, Severity::Note);
}

#[test]
fn the_rows_of_the_host_exist() {
    let names: Vec<String> = judge(&good()).into_iter().map(|row| row.check).collect();
    for check in OF_THE_HOST {
        assert!(names.iter().any(|name| name == check), "{check}");
    }
}
