//! From facts to findings. Pure: each file judges one area, and each severity is argued in the row's "why".

mod cpus;
mod disk;
mod io_uring;
mod limits;
mod memory;
mod network;
mod ports;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use rows::{Fix, Row, Severity};

use super::facts::Facts;
use rows::Rows;

/// Rows whose facts are the whole host's, also when they are seen from inside a container.
const OF_THE_HOST: [&str; 17] = [
    "io_uring sysctl",
    "governor",
    "idle states",
    "SMT",
    "clock source",
    "swap",
    "overcommit",
    "huge pages",
    "huge page defrag",
    "huge pages set aside",
    "busy poll",
    "irqbalance",
    "disk scheduler",
    "disk merges",
    "calendar",
    "stolen time",
    "memory",
];

/// See the module.
pub(super) fn judge(facts: &Facts) -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    io_uring::judge(&facts.ring, &mut rows);
    limits::judge(&facts.limits, facts.cpus.allowed.len(), &mut rows);
    cpus::judge(&facts.cpus, facts.timed.as_ref(), &mut rows);
    memory::judge(&facts.memory, &mut rows);
    network::judge(&facts.network, facts.cpus.allowed.len(), &mut rows);
    ports::judge(&facts.ports, &mut rows);
    disk::judge(&facts.disk, facts.timed.as_ref(), &mut rows);
    if let Some(kind) = &facts.container {
        let why = "sysctls, /sys and limits are set by its host; net.* also by its start (docker run --sysctl)";
        rows.add("container", kind, "none, or one set up for it", Some(rows::note(why)));
        rows.0.iter_mut().for_each(place);
    }
    rows.0
}

/// Says where a fix belongs that the inside of a container cannot do.
fn place(row: &mut Row) {
    let Fix::Command(command) = &row.fix else { return };
    let device = row.check.starts_with("network ");
    if OF_THE_HOST.contains(&row.check.as_str()) || device {
        row.fix = Fix::Advice(format!("on the container's host: {command}"));
    } else if let Some(setting) = command.strip_prefix("sysctl -w ") {
        row.fix = Fix::Advice(format!(
            "at the container's start, --sysctl {setting}; or on its host, {command}"
        ));
    }
}
