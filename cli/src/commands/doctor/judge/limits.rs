//! Limits that nodes inherit.

use super::rows::{Rows, advice, warning};
use crate::amounts::bytes_text;
use crate::commands::doctor::facts::Limits;
use dkv_protocol::limits::CLIENTS_MAX;

/// Descriptors of a node with all its clients, links and files.
const DESCRIPTORS: u64 = CLIENTS_MAX as u64 + 1024;

pub(super) fn judge(limits: &Limits, cpus: usize, rows: &mut Rows) {
    // In whole pages, as it is charged, and as it reads.
    let needed = limits.ring_bytes.next_multiple_of(4096) * cpus.max(1) as u64;
    let limit = limits.memlock.map_or_else(|| "no limit".to_owned(), bytes_text);
    let used = match limits.memlock_used {
        0 => String::new(),
        bytes => format!(", {} used by this process", bytes_text(bytes)),
    };
    let fine = limits.memlock_exempt
        || limits.memlock.is_none_or(|limit| limit >= needed + limits.memlock_used);
    let problem = (!fine).then(|| {
        let why = "rings are charged to this limit, those of all processes of the user together; nodes get small rings, or run on epoll";
        let fix = "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container, or ulimit -l unlimited";
        warning(why, advice(fix))
    });
    let wanted = format!("{} for a ring on each CPU, or CAP_IPC_LOCK", bytes_text(needed));
    rows.add("memlock", format!("{limit}{used}"), wanted, problem);
    let found = if limits.memlock_exempt {
        "held: memlock does not apply"
    } else {
        "not held: memlock applies"
    };
    rows.add("CAP_IPC_LOCK", found, "held, or memlock enough", None);

    let (soft, hard) = limits.descriptors;
    let number =
        |limit: Option<u64>| limit.map_or_else(|| "no limit".into(), |limit| limit.to_string());
    let found = format!("{} (hard {})", number(soft), number(hard));
    // A node raises its soft limit to the hard one by itself.
    let problem = hard.is_some_and(|hard| hard < DESCRIPTORS).then(|| {
        let why = format!("fewer than {CLIENTS_MAX} clients can connect to a node");
        warning(why, advice("LimitNOFILE=65536 in the unit, or ulimit -Hn 65536"))
    });
    rows.add("descriptors", found, DESCRIPTORS.to_string(), problem);
}
