//! Ports, and who holds them.

use super::read::{self, Fact, names};
use std::collections::BTreeMap;
use std::fs;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Ports {
    /// `net.ipv4.ip_local_port_range`.
    pub(in super::super) local: Fact<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as written.
    pub(in super::super) reserved: Fact<String>,
    /// Listening ports of the documented ranges, and who holds them, as `dkv (pid 17)`; none: a process that this user may
    /// not look into.
    pub(in super::super) listeners: BTreeMap<u16, Option<String>>,
    /// The manager that runs on this machine.
    pub(in super::super) manager: Option<String>,
}

/// First port of the documented ranges.
pub(in super::super) const PORT_FIRST: u16 = dkv_protocol::limits::MANAGER_PORT;
/// Last port of the documented ranges.
pub(in super::super) const PORT_LAST: u16 = dkv_protocol::limits::SHARD_PORT_LAST;

pub(super) fn read() -> Ports {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    Ports {
        local: read::text(RANGE).and_then(|text| port_range(&text), RANGE),
        reserved: read::text("/proc/sys/net/ipv4/ip_local_reserved_ports"),
        listeners: listeners(),
        manager: dkv_agent::guard::running().map(|holder| {
            let address =
                holder.address.map_or_else(|| "address unknown".into(), |a| a.to_string());
            format!("pid {}, {address}", holder.pid)
        }),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Who listens on the documented ports of this network namespace.
fn listeners() -> BTreeMap<u16, Option<String>> {
    let mut sockets = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        sockets.extend(read::plain(file).lines().skip(1).filter_map(listening));
    }
    if sockets.is_empty() {
        return BTreeMap::new();
    }
    let owners = owners();
    sockets.iter().map(|(port, inode)| (*port, owners.get(inode).cloned())).collect()
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
    for pid in names("/proc").iter().filter_map(|name| name.parse::<u32>().ok()) {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                let name = read::plain(format!("/proc/{pid}/comm"));
                owners.insert(inode, format!("{name} (pid {pid})"));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_ranges_are_read() {
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        let line = "   0: 0100007F:1E79 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(listening(line), Some((7801, 4711)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening(&line.replace(":1E79", ":0016")), None);
    }
}
