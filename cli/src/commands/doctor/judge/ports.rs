//! Ports that stores and managers want.

use super::rows::{Rows, advice, command, note, warning};
use crate::commands::doctor::facts::{Fact, PORT_FIRST, PORT_LAST, Ports};
use dkv_protocol::limits::{CLIENT_PORT, CLUSTER_PORT, MANAGER_PORT, SHARD_PORT};

pub(super) fn judge(ports: &Ports, rows: &mut Rows) {
    let wanted = format!("without {PORT_FIRST}-{PORT_LAST}");
    rows.fact("local ports", &ports.local, &wanted, None, |(first, last)| {
        let reserved = match &ports.reserved {
            Fact::Known(list) => covers(list, PORT_FIRST, PORT_LAST),
            _ => false,
        };
        let fine = *last < PORT_FIRST || *first > PORT_LAST || reserved;
        let problem = (!fine).then(|| {
            let why = "an outgoing connection may take a port that a node wants";
            warning(
                why,
                command(format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports={PORT_FIRST}-{PORT_LAST}"
                )),
            )
        });
        (format!("{first}-{last}{}", if reserved { ", ours reserved" } else { "" }), problem)
    });
    let manager = match &ports.manager {
        Some(manager) => format!("runs: {manager}"),
        None => "none runs".to_owned(),
    };
    rows.add("manager", manager, "one or none", None);
    let ranges = [
        ("manager ports", MANAGER_PORT, CLUSTER_PORT - 1),
        ("cluster ports", CLUSTER_PORT, CLIENT_PORT - 1),
        ("client ports", CLIENT_PORT, SHARD_PORT - 1),
        ("shard ports", SHARD_PORT, PORT_LAST),
    ];
    for (check, first, last) in ranges {
        let held: Vec<_> = ports.listeners.range(first..=last).collect();
        let wanted = format!("{first}-{last} free or held by dkv");
        if held.is_empty() {
            rows.add(check, "all free", wanted, None);
            continue;
        }
        let name = |who: &Option<String>| {
            who.clone().unwrap_or_else(|| "a process of another user".to_owned())
        };
        let found = held
            .iter()
            .map(|(port, who)| format!("{port}: {}", name(who)))
            .collect::<Vec<_>>()
            .join(", ");
        let foreign =
            held.iter().find(|(_, who)| who.as_ref().is_some_and(|who| !who.starts_with("dkv")));
        let hidden = held.iter().any(|(_, who)| who.is_none());
        let problem = match foreign {
            Some((port, Some(who))) => {
                let why = format!("a store or manager that wants port {port} cannot have it");
                let fix = format!(
                    "stop {who}, or choose other ports with --clustron-port and --client-port"
                );
                Some(warning(why, advice(fix)))
            }
            // It may well be dkv, of the user that runs the service.
            _ if hidden => Some(note("whose they are only root can see: sudo dkv doctor")),
            _ => None,
        };
        rows.add(check, found, wanted, problem);
    }
}

/// Whether a list as `8080,7801-7999` holds all of a range in one piece.
fn covers(list: &str, first: u16, last: u16) -> bool {
    list.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if from <= first && to >= last)
    })
}
