//! Whether nodes can run at all, and on what.

use super::rows::{Rows, Severity, advice, command, note};
use crate::commands::doctor::facts::{Fact, Ring};

pub(super) fn judge(ring: &Ring, rows: &mut Rows) {
    // Without rings there is epoll. Without that there is nothing.
    let (worst, why) = match &ring.epoll {
        None => (Severity::Warning, "nodes run on epoll instead, where a command costs more CPU"),
        Some(_) => (Severity::Fatal, "no node can start"),
    };
    match &ring.works {
        Some(Ok(_)) => rows.add("io_uring", "works", "a ring can be made", None),
        Some(Err(cause)) => {
            // The cause says its own fix after the first sentence; a table wants them apart.
            let (what, fix) = cause.split_once("; ").unwrap_or((cause, ""));
            let fix = if fix.is_empty() { advice(what) } else { advice(fix) };
            let found = match &ring.setup_error {
                Some(error) => format!("{what} (io_uring_setup: {error})"),
                None => what.to_owned(),
            };
            rows.add("io_uring", found, "a ring can be made", Some((worst, why.into(), fix)));
        }
        None => {}
    }
    if !ring.flags.is_empty() {
        let wanted = "defer_taskrun and the others of 6.1";
        rows.add("ring flags", ring.flags.join(", "), wanted, None);
    }
    rows.fact("ring operations", &ring.operations, "all", None, |(missing, needed)| {
        if missing.is_empty() {
            return (format!("{needed} of {needed}"), None);
        }
        let what = format!("{} of {needed} are missing: {}", missing.len(), missing.join(", "));
        let fix = advice("run Linux 6.1 or newer, or allow them in the filter of the container");
        (what, Some((worst, why.into(), fix)))
    });
    rows.fact("ring self-test", &ring.run_dry, "echoes, also short of buffers", None, |result| {
        match result {
            Ok(dry) => (format!("multishot echo; out of buffers {dry} times and went on"), None),
            Err(what) => {
                let why = "a burst that uses up the receive buffers would stop connections";
                let fix =
                    advice("report it with this output; until then: dkv store create … --io epoll");
                (what.clone(), Some((Severity::Warning, why.into(), fix)))
            }
        }
    });
    judge_epoll(ring, rows);
    if let Some(disabled) = ring.disabled {
        let why = if disabled == 1 {
            "only members of a group may make rings"
        } else {
            "nobody may make rings"
        };
        // 1 lets privileged processes and a group through: whether that is enough, the ring above says.
        let worst = if disabled == 2 { worst } else { Severity::Warning };
        let fix = command("sysctl -w kernel.io_uring_disabled=0");
        let problem = (disabled != 0).then(|| (worst, why.to_owned(), fix));
        rows.add("io_uring sysctl", disabled.to_string(), "0", problem);
    }
    let words = ["off", "strict", "filtering"];
    let found = words
        .get(ring.seccomp as usize)
        .map_or_else(|| ring.seccomp.to_string(), ToString::to_string);
    let works = ring.seccomp == 0 || ring.works.as_ref().is_none_or(Result::is_ok);
    let problem = (!works).then(|| {
        let why = "the container's filter may forbid io_uring_setup";
        let fix = "run the container with a profile that allows io_uring_setup, _enter and _register: --security-opt seccomp=FILE, FILE being scripts/seccomp.json of DKV";
        (worst, why.to_owned(), advice(fix))
    });
    rows.add("seccomp", found, "io_uring allowed", problem);
    judge_kernel(ring, rows);
}

/// No epoll is a nuisance where there are rings.
fn judge_epoll(ring: &Ring, rows: &mut Rows) {
    let found = ring.epoll.as_deref().unwrap_or("works");
    let problem = ring.epoll.as_ref().map(|_| {
        let worst = match &ring.works {
            Some(Ok(_)) => Severity::Warning,
            _ => Severity::Fatal,
        };
        let fix = "allow epoll_create1, epoll_ctl, epoll_pwait, eventfd2, recvfrom, sendto, sendmsg and accept4 in the filter";
        (worst, "where there is no io_uring, no node can start".to_owned(), advice(fix))
    });
    rows.add("epoll", found, "it stands in for io_uring", problem);
}

fn judge_kernel(ring: &Ring, rows: &mut Rows) {
    let version = version(&ring.kernel);
    let fact = version
        .map_or_else(|| Fact::Unread(format!("{}: not understood", ring.kernel)), Fact::Known);
    let wanted = "6.1 or newer";
    rows.fact("kernel", &fact, wanted, None, |version| {
        let problem = (*version < (6, 1)).then(|| {
            let why = "rings of older kernels lack what nodes need; they run on epoll, where a command costs more CPU";
            let fix = command("apt-get install -t bookworm-backports linux-image-amd64");
            (Severity::Warning, why.to_owned(), fix)
        });
        (ring.kernel.clone(), problem)
    });
    if version.is_some_and(|version| version < (6, 15)) && matches!(ring.works, Some(Ok(_))) {
        let why = "before Linux 6.15 a shard that waits for requests counts as waiting for a disk: top and vmstat show iowait on idle CPUs, and it is no load";
        rows.add("iowait", "idle rings are shown as iowait", "6.15 or newer", Some(note(why)));
    }
}

/// `6.18` of `6.18.44-amd64`.
pub(super) fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut parts = kernel.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
