//! What the host says of itself: `/proc`, `/sys`, limits, and one attempt to make a ring and what stands in for it. No verdicts here.
//!
//! Everything is optional: a file that is not there (another kernel, a container) is a fact too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// `6.18.44`.
    pub(super) kernel: String,
    /// What came of making a ring: its features, or the cause and the fix.
    pub(super) ring: Option<Result<String, String>>,
    /// What of epoll does not work; none: it does.
    pub(super) epoll: Option<String>,
    /// `kernel.io_uring_disabled`.
    pub(super) io_uring_disabled: Option<u32>,
    /// `Seccomp:` of `/proc/self/status`.
    pub(super) seccomp: u32,
    /// Whether the limit of locked memory does not apply (CAP_IPC_LOCK).
    pub(super) memlock_exempt: bool,
    /// Locked memory that one shard needs, in bytes.
    pub(super) ring_bytes: u64,
    /// Soft limit of locked memory in bytes; none is no limit.
    pub(super) memlock: Option<u64>,
    /// Soft and hard limit of descriptors; none is no limit.
    pub(super) descriptors: (Option<u64>, Option<u64>),
    /// CPUs this process may run on.
    pub(super) cpus: usize,
    /// CPU quota of the control group, in CPUs.
    pub(super) cpu_quota: Option<f64>,
    /// Memory limit of the control group, in bytes.
    pub(super) memory_max: Option<u64>,
    /// `MemAvailable`, in bytes.
    pub(super) memory_available: Option<u64>,
    /// `SwapTotal`, in bytes, and `vm.swappiness`.
    pub(super) swap: (u64, Option<u64>),
    /// The chosen word of `transparent_hugepage/enabled`.
    pub(super) huge_pages: Option<String>,
    /// `net.core.somaxconn`.
    pub(super) somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub(super) syn_backlog: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub(super) local_ports: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as written.
    pub(super) reserved_ports: String,
    /// The clock source in use.
    pub(super) clock_source: Option<String>,
    /// Scaling governors of the CPUs, each once.
    pub(super) governors: Vec<String>,
    /// Listening ports of the documented ranges, and who holds them, as `dkv (pid 17)`.
    pub(super) listeners: BTreeMap<u16, String>,
    /// The manager that runs on this machine.
    pub(super) manager: Option<String>,
    /// The data directory and, when it cannot be written, why.
    pub(super) data_dir: (PathBuf, Option<String>),
    /// Free bytes on the disk of the data directory.
    pub(super) disk_free: Option<u64>,
}

/// First port of the documented ranges.
pub(super) const PORT_FIRST: u16 = dkv_protocol::limits::MANAGER_PORT;
/// Last port of the documented ranges.
pub(super) const PORT_LAST: u16 = dkv_protocol::limits::SHARD_PORT_LAST;

/// Reads them all.
pub(super) fn read(data_dir: &Path) -> Facts {
    let meminfo = text("/proc/meminfo");
    let kib = |key: &str| field(&meminfo, key).and_then(number).map(|kib| kib * 1024);
    let (cpu_quota, memory_max) = control_group();
    let probe = dkv_node::probe();
    Facts {
        kernel: probe.kernel,
        ring: Some(probe.result.map(|()| probe.describe).map_err(|error| error.to_string())),
        epoll: probe.epoll.err(),
        io_uring_disabled: probe.io_uring_disabled,
        seccomp: probe.seccomp,
        memlock_exempt: probe.memlock_exempt,
        memlock: probe.memlock_limit_bytes,
        ring_bytes: probe.memlock_need_bytes,
        descriptors: probe.nofile_limit,
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        cpu_quota,
        memory_max,
        memory_available: kib("MemAvailable"),
        swap: (kib("SwapTotal").unwrap_or(0), sysctl("vm/swappiness")),
        huge_pages: chosen(&text("/sys/kernel/mm/transparent_hugepage/enabled")),
        somaxconn: sysctl("net/core/somaxconn"),
        syn_backlog: sysctl("net/ipv4/tcp_max_syn_backlog"),
        local_ports: port_range(&text("/proc/sys/net/ipv4/ip_local_port_range")),
        reserved_ports: text("/proc/sys/net/ipv4/ip_local_reserved_ports").trim().to_owned(),
        clock_source: Some(text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        ))
        .map(|source| source.trim().to_owned())
        .filter(|source| !source.is_empty()),
        governors: governors(),
        listeners: listeners(),
        manager: dkv_agent::guard::running().map(|holder| {
            let address =
                holder.address.map_or_else(|| "address unknown".into(), |a| a.to_string());
            format!("pid {}, {address}", holder.pid)
        }),
        data_dir: (data_dir.to_path_buf(), not_writable(data_dir)),
        disk_free: existing(data_dir)
            .and_then(|dir| rustix::fs::statvfs(dir).ok())
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn sysctl(name: &str) -> Option<u64> {
    number(&text(&format!("/proc/sys/{name}")))
}

/// The value of `key: value` in a file of such lines.
fn field<'a>(file: &'a str, key: &str) -> Option<&'a str> {
    file.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
}

/// The word in brackets.
fn chosen(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn governors() -> Vec<String> {
    let mut found: Vec<String> = (0..4096)
        .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
        .map_while(|path| fs::read_to_string(path).ok())
        .map(|governor| governor.trim().to_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The tightest CPU quota and memory limit from the process's control group up to the root.
fn control_group() -> (Option<f64>, Option<u64>) {
    let groups = text("/proc/self/cgroup");
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return (None, None);
    };
    let (mut quota, mut memory) = (None::<f64>, None::<u64>);
    for group in Path::new("/sys/fs/cgroup")
        .join(path)
        .ancestors()
        .take_while(|p| p.starts_with("/sys/fs/cgroup"))
    {
        let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
        if let Some(cpus) = quota_cpus(&read("cpu.max")) {
            quota = Some(quota.map_or(cpus, |known| known.min(cpus)));
        }
        if let Some(bytes) = number(&read("memory.max")) {
            memory = Some(memory.map_or(bytes, |known| known.min(bytes)));
        }
    }
    (quota, memory)
}

/// `cpu.max`: `max 100000` or `150000 100000`.
fn quota_cpus(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace();
    let (quota, period): (f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

/// Who listens on the documented ports of this network namespace.
fn listeners() -> BTreeMap<u16, String> {
    let mut sockets = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(text(file).lines().skip(1).filter_map(listening));
    }
    if sockets.is_empty() {
        return BTreeMap::new();
    }
    let owners = owners();
    let name = |inode: &u64| {
        owners.get(inode).cloned().unwrap_or_else(|| "a process of another user".into())
    };
    sockets.iter().map(|(port, inode)| (*port, name(inode))).collect()
}

/// Port and inode of a line of `/proc/net/tcp`, when it listens on a documented port.
fn listening(line: &str) -> Option<(u16, u64)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.get(3) != Some(&LISTEN) {
        return None;
    }
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.get(9)?.parse().ok()?;
    (PORT_FIRST..=PORT_LAST).contains(&port).then_some((port, inode))
}

/// Which process holds which socket, as far as this user may see.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                owners.insert(inode, format!("{} (pid {pid})", name.trim()));
            }
        }
    }
    owners
}

/// The directory, or the nearest one above it that exists.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.is_dir())
}

fn not_writable(dir: &Path) -> Option<String> {
    let existing = existing(dir)?;
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(existing, access)
        .err()
        .map(|error| format!("{}: {error}", existing.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(quota_cpus("150000 100000\n"), Some(1.5));
        assert_eq!(quota_cpus("max 100000\n"), None);
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(field("Seccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp"), Some("\t2"));
        let line = "   0: 0100007F:1E79 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(listening(line), Some((7801, 4711)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening(&line.replace(":1E79", ":0016")), None);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = read(Path::new("/nonexistent/deep/down"));
        assert!(!facts.kernel.is_empty());
        assert!(facts.cpus > 0);
        assert!(facts.disk_free.is_some());
    }
}
