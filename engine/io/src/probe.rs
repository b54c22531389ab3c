//! What this machine gives: for `dkv doctor`, and for saying why there is no ring.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::selftest::run_dry;
use crate::unavailable::Surroundings;
use crate::{EpollReactor, IoUnavailable, Options, Reactor, UringReactor, WakeHandle};

/// What [`probe`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Version of the running kernel.
    pub kernel: String,
    /// What `io_uring_setup` of the smallest ring without any flags failed with; none: it did not.
    pub setup_errno: Option<i32>,
    /// Operations that nodes use and this kernel, or a filter, does not give; none without a ring to ask.
    pub operations_missing: Option<Vec<&'static str>>,
    /// How many operations nodes use.
    pub operations: usize,
    /// What came of a ring that ran out of receive buffers: how many receives found none before it went on, or what did
    /// not work; none without a ring.
    pub run_dry: Option<Result<u64, String>>,
    /// Ring flags that the kernel accepted; empty without a ring.
    pub flags: Vec<&'static str>,
    /// The line that a shard prints about its reactor; empty without a ring.
    pub describe: String,
    /// `kernel.io_uring_disabled`; `None` on kernels before 6.6, which have no such switch.
    pub io_uring_disabled: Option<u32>,
    /// `Seccomp` of `/proc/self/status`: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// `RLIMIT_MEMLOCK` in bytes; `None` for no limit.
    pub memlock_limit_bytes: Option<u64>,
    /// Locked memory of this process, in bytes: of all processes of the user those that no process can see count as well.
    pub memlock_used_bytes: u64,
    /// Whether the limit does not apply (CAP_IPC_LOCK).
    pub memlock_exempt: bool,
    /// Lockable memory that one shard needs, in bytes.
    pub memlock_need_bytes: u64,
    /// Soft and hard `RLIMIT_NOFILE`; `None` for no limit.
    pub nofile_limit: (Option<u64>, Option<u64>),
    /// The ring, tried: made, and put through a self-test.
    pub result: Result<(), IoUnavailable>,
    /// What stands in for it, tried in the same way; the text says what did not work.
    pub epoll: Result<(), String>,
}

/// Makes a ring on this thread, tests it, and drops it; and the same with epoll.
pub fn probe() -> Report {
    let around = surroundings();
    let nofile = getrlimit(Resource::Nofile);
    let bare = crate::uring::bare();
    let mut report = Report {
        kernel: around.kernel,
        setup_errno: bare.as_ref().err().and_then(std::io::Error::raw_os_error),
        operations_missing: bare.ok(),
        operations: crate::uring::OPERATIONS_USED,
        run_dry: None,
        flags: Vec::new(),
        describe: String::new(),
        io_uring_disabled: around.io_uring_disabled,
        seccomp: around.seccomp,
        memlock_limit_bytes: Some(around.memlock_limit).filter(|limit| *limit != u64::MAX),
        memlock_used_bytes: around.memlock_used_kib * 1024,
        memlock_exempt: around.memlock_exempt,
        memlock_need_bytes: 0,
        nofile_limit: (nofile.current, nofile.maximum),
        result: Ok(()),
        epoll: Ok(()),
    };
    report.result = WakeHandle::new()
        .map_err(|error| IoUnavailable::Other { step: "eventfd", error: error.to_string() })
        .and_then(|wake| {
            let options = Options::new(wake);
            report.memlock_need_bytes = options.locked_bytes();
            let reactor = UringReactor::tested(options)?;
            report.flags = reactor.flags();
            report.describe = reactor.describe();
            Ok(())
        });
    if report.result.is_ok() {
        report.run_dry = Some(dry());
    }
    report.epoll = WakeHandle::new()
        .and_then(|wake| EpollReactor::tested(Options::new(wake)))
        .map(drop)
        .map_err(|error| error.to_string());
    report
}

/// A ring of its own with few buffers, which therefore runs out of them.
fn dry() -> Result<u64, String> {
    let wake = WakeHandle::new().map_err(|error| error.to_string())?;
    let small = Options { sq_entries: 8, cq_entries: 64, buffers: 4, ..Options::new(wake) };
    let small = Options { buffers_at_first: 4, ..small };
    let mut ring = UringReactor::new(small).map_err(|error| error.to_string())?;
    run_dry(&mut ring).map_err(|error| error.to_string())
}

/// Version of the running kernel.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(crate) fn surroundings() -> Surroundings {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let switch = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let kib = |name| field(&status, name).and_then(|text| text.split(' ').next()?.parse().ok());
    let capabilities = field(&status, "CapEff").and_then(|text| u64::from_str_radix(text, 16).ok());
    Surroundings {
        kernel: kernel(),
        io_uring_disabled: switch.and_then(|text| text.trim().parse().ok()),
        seccomp: field(&status, "Seccomp").and_then(|text| text.parse().ok()).unwrap_or(0),
        memlock_limit: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX),
        memlock_used_kib: kib("VmLck").unwrap_or(0_u64) + kib("VmPin").unwrap_or(0_u64),
        memlock_exempt: capabilities.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1),
        nofile_limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

/// `CAP_IPC_LOCK` of `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

/// A line `Name:  value` of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_status_are_read_by_their_whole_name() {
        let status = "Name:\tx\nVmLck:\t       8 kB\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "VmLck"), Some("8 kB"));
        assert_eq!(field(status, "Vm"), None);
    }

    #[test]
    fn the_probe_finds_a_working_ring_or_names_the_cause() {
        let report = probe();
        assert!(!report.kernel.is_empty());
        match &report.result {
            Ok(()) => {
                assert!(report.flags.contains(&"defer_taskrun"));
                assert!(report.describe.starts_with("io=uring kernel="), "{}", report.describe);
            }
            Err(cause) => panic!("this machine cannot run the tests: {cause}"),
        }
        assert_eq!(report.epoll, Ok(()));
        assert_eq!((report.setup_errno, report.operations_missing), (None, Some(Vec::new())));
        assert!(matches!(report.run_dry, Some(Ok(1..))), "{:?}", report.run_dry);
    }
}
