//! Why there is no ring, and what to do about it.

use std::fmt::Write as _;
use std::io;

/// The kernel gave no usable ring. Every text ends with what to type; the user (or whoever runs the container) recovers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoUnavailable {
    /// Switched off by the administrator.
    #[error(
        "io_uring is switched off on this machine: sysctl kernel.io_uring_disabled is {value}; run `sysctl -w \
         kernel.io_uring_disabled=0`{group}",
        group = if *value == 1 { ", or put this user into the group of sysctl kernel.io_uring_group" } else { "" }
    )]
    Disabled {
        /// The value of the switch: 1 allows a group and the administrator, 2 nobody.
        value: u32,
    },
    /// A system call filter forbids it.
    #[error(
        "io_uring is forbidden by the system call filter of this container or service ({sign}, Seccomp: {mode} in \
         /proc/self/status); {fix}",
        fix = seccomp_fix()
    )]
    Filtered {
        /// The mode in `/proc/self/status`.
        mode: u32,
        /// `EPERM` (Docker, containerd, systemd) or `ENOSYS` (Podman).
        sign: &'static str,
    },
    /// Refused although neither the switch nor a filter shows.
    #[error(
        "io_uring is forbidden ({sign}) though kernel.io_uring_disabled is 0 and no system call filter is set: a security \
         module (SELinux, AppArmor) or the sandbox (gVisor) refuses it; look into `dmesg` or `journalctl -k`, or run \
         outside of that sandbox"
    )]
    Forbidden {
        /// What the kernel said.
        sign: &'static str,
    },
    /// The kernel was built without it.
    #[error(
        "this kernel ({kernel}) has no io_uring; DKV needs Linux 6.1 or later, built with CONFIG_IO_URING"
    )]
    Missing {
        /// Version.
        kernel: String,
    },
    /// The kernel lacks something that is needed.
    #[error("this kernel ({kernel}) is too old: {lacks}; DKV needs Linux 6.1 or later")]
    TooOld {
        /// Version.
        kernel: String,
        /// What is not there.
        lacks: String,
    },
    /// Rings count as locked memory, for all processes of a user together.
    #[error(
        "not enough lockable memory for a ring: each shard needs {need_kib} KiB and the limit for all processes of this \
         user together is {limit_kib} KiB{locked}; raise it (`ulimit -l unlimited`, for a container `--ulimit \
         memlock=-1`, in a systemd unit `LimitMEMLOCK=infinity`) or grant CAP_IPC_LOCK (for a container `--cap-add \
         IPC_LOCK`)",
        locked = locked(*used_kib)
    )]
    LockedMemory {
        /// The smallest ring that was tried, in KiB.
        need_kib: u64,
        /// `RLIMIT_MEMLOCK`, in KiB.
        limit_kib: u64,
        /// What this process itself has locked (`VmLck` and `VmPin`); rings of other processes of the user count too, but no
        /// process can see them.
        used_kib: u64,
    },
    /// Out of file descriptors.
    #[error(
        "no file descriptor is left for a ring (limit {limit}); raise it with `ulimit -n 65536`, in a systemd unit \
         `LimitNOFILE=65536`"
    )]
    Descriptors {
        /// `RLIMIT_NOFILE`.
        limit: u64,
    },
    /// The ring exists but does not do its work.
    #[error(
        "the ring failed its self-test: {what}; this kernel ({kernel}) is not usable, please report it with the output of \
         `dkv doctor`"
    )]
    SelfTest {
        /// Version.
        kernel: String,
        /// What went wrong.
        what: String,
    },
    /// Something else.
    #[error("no ring could be made: {step}: {error}; `dkv doctor` shows more")]
    Other {
        /// At what.
        step: &'static str,
        /// What the kernel said.
        error: String,
    },
}

fn seccomp_fix() -> &'static str {
    "with Docker or Podman add `--security-opt seccomp=FILE`, FILE being scripts/seccomp.json of DKV, or a copy of the \
     default profile with io_uring_setup, io_uring_enter and io_uring_register added to the allowed calls; in Kubernetes set seccompProfile to \
     Localhost with that file; in a systemd unit allow @io-event and io_uring_setup io_uring_enter io_uring_register in \
     SystemCallFilter="
}

fn locked(used_kib: u64) -> String {
    let mut text = String::new();
    if used_kib > 0 {
        let _ = write!(text, " ({used_kib} KiB of it locked by this process in other ways)");
    }
    text
}

/// What surrounds a failed call, read once so that the judgement is a pure function.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) kernel: String,
    pub(crate) io_uring_disabled: Option<u32>,
    pub(crate) seccomp: u32,
    pub(crate) memlock_limit: u64,
    pub(crate) memlock_used_kib: u64,
    pub(crate) memlock_exempt: bool,
    pub(crate) nofile_limit: u64,
}

/// Judges a failed set-up call.
pub(crate) fn judge(
    around: &Surroundings,
    step: &'static str,
    error: &io::Error,
    need_bytes: u64,
) -> IoUnavailable {
    let kernel = around.kernel.clone();
    match error.raw_os_error() {
        Some(code @ (libc::EPERM | libc::EACCES)) => {
            let sign = if code == libc::EPERM { "EPERM" } else { "EACCES" };
            match (around.io_uring_disabled, around.seccomp) {
                (Some(value @ 1..), _) => IoUnavailable::Disabled { value },
                (_, mode @ 1..) => IoUnavailable::Filtered { mode, sign },
                _ => IoUnavailable::Forbidden { sign },
            }
        }
        Some(libc::ENOSYS) => match around.seccomp {
            0 => IoUnavailable::Missing { kernel },
            mode => IoUnavailable::Filtered { mode, sign: "ENOSYS" },
        },
        Some(libc::EINVAL) => IoUnavailable::TooOld {
            kernel,
            lacks: format!("{step} does not know what DKV asks of it (EINVAL)"),
        },
        Some(libc::ENOMEM) if !around.memlock_exempt && around.memlock_limit != u64::MAX => {
            IoUnavailable::LockedMemory {
                need_kib: need_bytes.div_ceil(1024),
                limit_kib: around.memlock_limit / 1024,
                used_kib: around.memlock_used_kib,
            }
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            IoUnavailable::Descriptors { limit: around.nofile_limit }
        }
        _ => IoUnavailable::Other { step, error: error.to_string() },
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            kernel: "6.12.48".into(),
            io_uring_disabled: Some(0),
            seccomp: 0,
            memlock_limit: 8 << 20,
            memlock_used_kib: 0,
            memlock_exempt: false,
            nofile_limit: 1024,
        }
    }

    fn judged(around: &Surroundings, errno: i32) -> IoUnavailable {
        judge(around, "io_uring_setup", &io::Error::from_raw_os_error(errno), 200_000)
    }

    #[test]
    fn each_cause_is_told_from_the_others_and_names_its_fix() {
        let cases: [(Surroundings, i32, &[&str]); 9] = [
            (
                Surroundings { io_uring_disabled: Some(2), ..around() },
                libc::EPERM,
                &["io_uring_disabled is 2", "sysctl -w kernel.io_uring_disabled=0"],
            ),
            (
                Surroundings { io_uring_disabled: Some(1), seccomp: 2, ..around() },
                libc::EPERM,
                &["io_uring_disabled is 1", "io_uring_group"],
            ),
            (
                Surroundings { seccomp: 2, ..around() },
                libc::EPERM,
                &["EPERM", "Seccomp: 2", "--security-opt seccomp="],
            ),
            (
                Surroundings { seccomp: 2, ..around() },
                libc::ENOSYS,
                &["ENOSYS", "Seccomp: 2", "--security-opt seccomp="],
            ),
            (around(), libc::ENOSYS, &["6.12.48", "has no io_uring"]),
            (around(), libc::EPERM, &["security module"]),
            (around(), libc::EINVAL, &["6.12.48", "too old", "6.1 or later"]),
            (
                Surroundings { memlock_limit: 64 << 10, ..around() },
                libc::ENOMEM,
                &["196 KiB", "64 KiB", "--ulimit memlock=-1", "LimitMEMLOCK=", "CAP_IPC_LOCK"],
            ),
            (around(), libc::EMFILE, &["limit 1024", "ulimit -n"]),
        ];
        for (around, errno, wanted) in cases {
            let text = judged(&around, errno).to_string();
            for part in wanted {
                assert!(text.contains(part), "{errno}: {text:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn memory_shortage_without_a_limit_is_not_blamed_on_the_limit() {
        let exempt = Surroundings { memlock_exempt: true, ..around() };
        assert!(matches!(judged(&exempt, libc::ENOMEM), IoUnavailable::Other { .. }));
    }
}
