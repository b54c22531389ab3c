//! What the host says of itself: `/proc`, `/sys`, limits, attempts to make a ring and what stands in for it. No verdicts here.
//!
//! Everything may be missing: a file that is not there (another kernel, a container) is a fact too, and one that this user
//! may not read is told apart from it. What takes time to find out is in [`crate::commands::doctor::probe`].

mod cpus;
mod disk;
mod memory;
mod network;
mod ports;
mod read;

pub(super) use cpus::{Cpus, steal};
pub(super) use disk::{BlockDevice, Disk, existing};
pub(super) use memory::Memory;
pub(super) use network::{Device, Network};
pub(super) use ports::{PORT_FIRST, PORT_LAST, Ports};
pub(super) use read::Fact;

use super::probe::Timed;
use std::path::Path;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The kernel and its rings.
    pub(super) ring: Ring,
    /// Limits of this process, which nodes inherit.
    pub(super) limits: Limits,
    /// See [`Cpus`].
    pub(super) cpus: Cpus,
    /// See [`Memory`].
    pub(super) memory: Memory,
    /// See [`Network`].
    pub(super) network: Network,
    /// See [`Ports`].
    pub(super) ports: Ports,
    /// See [`Disk`].
    pub(super) disk: Disk,
    /// In which kind of container this runs; none: in none, as far as can be seen.
    pub(super) container: Option<String>,
    /// What the probes measured; none: they were left out.
    pub(super) timed: Option<Timed>,
}

/// The kernel and its rings.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    /// `6.18.44`.
    pub(super) kernel: String,
    /// What came of making a ring: its features, or the cause and the fix.
    pub(super) works: Option<Result<String, String>>,
    /// What the kernel said to the plainest ring; none: it made one.
    pub(super) setup_error: Option<String>,
    /// Flags that the kernel accepted.
    pub(super) flags: Vec<&'static str>,
    /// Operations that are missing, and how many are needed; absent: there is no ring to ask.
    pub(super) operations: Fact<(Vec<&'static str>, usize)>,
    /// A ring that runs out of receive buffers: how often it did before it went on, or what failed; absent: no ring.
    pub(super) run_dry: Fact<Result<u64, String>>,
    /// What of epoll does not work; none: it does.
    pub(super) epoll: Option<String>,
    /// `kernel.io_uring_disabled`.
    pub(super) disabled: Option<u32>,
    /// `Seccomp:` of `/proc/self/status`.
    pub(super) seccomp: u32,
}

/// Limits of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Whether the limit of locked memory does not apply (CAP_IPC_LOCK).
    pub(super) memlock_exempt: bool,
    /// Locked memory that one shard needs, in bytes.
    pub(super) ring_bytes: u64,
    /// Soft limit of locked memory in bytes; none is no limit.
    pub(super) memlock: Option<u64>,
    /// Locked memory of this process, in bytes.
    pub(super) memlock_used: u64,
    /// Soft and hard limit of descriptors; none is no limit.
    pub(super) descriptors: (Option<u64>, Option<u64>),
}

/// Reads them all; the timed ones are left to the probes.
pub(super) fn read(data_dir: &Path) -> Facts {
    let probe = dkv_node::probe();
    let operations = probe.operations;
    Facts {
        limits: Limits {
            memlock_exempt: probe.memlock_exempt,
            memlock: probe.memlock_limit_bytes,
            memlock_used: probe.memlock_used_bytes,
            ring_bytes: probe.memlock_need_bytes,
            descriptors: probe.nofile_limit,
        },
        ring: Ring {
            kernel: probe.kernel,
            works: Some(probe.result.map(|()| probe.describe).map_err(|error| error.to_string())),
            setup_error: probe
                .setup_errno
                .map(|errno| std::io::Error::from_raw_os_error(errno).to_string()),
            flags: probe.flags,
            operations: probe
                .operations_missing
                .map_or(Fact::Absent, |missing| Fact::Known((missing, operations))),
            run_dry: probe.run_dry.map_or(Fact::Absent, Fact::Known),
            epoll: probe.epoll.err(),
            disabled: probe.io_uring_disabled,
            seccomp: probe.seccomp,
        },
        cpus: cpus::read(),
        memory: memory::read(),
        network: network::read(),
        ports: ports::read(),
        disk: disk::read(data_dir),
        container: container(),
        timed: None,
    }
}

/// What the runtimes of containers leave behind for those inside.
fn container() -> Option<String> {
    let named =
        [read::plain("/run/systemd/container"), std::env::var("container").unwrap_or_default()];
    if let Some(name) = named.into_iter().find(|name| !name.is_empty()) {
        return Some(name);
    }
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    if let Some((_, name)) = marks.iter().find(|(path, _)| Path::new(path).exists()) {
        return Some((*name).to_owned());
    }
    std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts() {
        let facts = read(Path::new("/nonexistent/deep/down"));
        assert!(!facts.ring.kernel.is_empty());
        assert!(!facts.cpus.allowed.is_empty());
        assert!(facts.memory.available.known().is_some());
        assert!(facts.disk.free.is_some());
        assert!(facts.disk.file_system.known().is_some());
        assert!(facts.ring.setup_error.is_some() || facts.ring.operations.known().is_some());
    }
}
