//! The network: queues of connections, and the devices that have an address with the CPUs that serve them.

use super::read::{self, Fact, first_number, list, names, sysctl};
use std::collections::BTreeSet;
use std::path::Path;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Network {
    /// `net.core.somaxconn`.
    pub(in super::super) somaxconn: Fact<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub(in super::super) syn_backlog: Fact<u64>,
    /// `net.core.busy_poll` and `net.core.busy_read`, microseconds.
    pub(in super::super) busy_poll: Fact<(u64, u64)>,
    /// `net.core.rps_sock_flow_entries`; absent in namespaces but the first.
    pub(in super::super) flow_entries: Fact<u64>,
    /// Whether irqbalance runs.
    pub(in super::super) irqbalance: bool,
    /// Devices with an address that are no loopback.
    pub(in super::super) devices: Vec<Device>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Device {
    /// `eth0`.
    pub(in super::super) name: String,
    /// `virtio_net`; none of a device that is software alone.
    pub(in super::super) driver: Option<String>,
    /// Receive and send queues.
    pub(in super::super) queues: (usize, usize),
    /// Interrupts of it, and the CPUs that they go to.
    pub(in super::super) interrupts: (usize, BTreeSet<u32>),
    /// Receive queues whose packets are spread over CPUs (RPS).
    pub(in super::super) rps: usize,
    /// Receive queues with a table of flows (RFS).
    pub(in super::super) rfs: usize,
    /// Send queues that belong to CPUs (XPS).
    pub(in super::super) xps: usize,
    /// What could not be read of it.
    pub(in super::super) unread: Option<String>,
}

pub(super) fn read() -> Network {
    let busy_poll = match (sysctl("net/core/busy_poll"), sysctl("net/core/busy_read")) {
        (Fact::Known(poll), Fact::Known(read)) => Fact::Known((poll, read)),
        (Fact::Unread(why), _) | (_, Fact::Unread(why)) => Fact::Unread(why),
        _ => Fact::Absent,
    };
    Network {
        somaxconn: sysctl("net/core/somaxconn"),
        syn_backlog: sysctl("net/ipv4/tcp_max_syn_backlog"),
        busy_poll,
        flow_entries: sysctl("net/core/rps_sock_flow_entries"),
        irqbalance: runs("irqbalance"),
        devices: with_address().iter().map(|name| device(name)).collect(),
    }
}

/// Whether a process of that name is there.
fn runs(name: &str) -> bool {
    let is_process = |entry: &&String| entry.bytes().all(|b| b.is_ascii_digit());
    let processes = names("/proc");
    processes.iter().filter(is_process).any(|pid| read::plain(format!("/proc/{pid}/comm")) == name)
}

/// Names of devices that have an IP address and are no loopback.
fn with_address() -> BTreeSet<String> {
    use nix::net::if_::InterfaceFlags;
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return BTreeSet::new() };
    addresses
        .filter(|one| !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter(|one| {
            one.address.as_ref().is_some_and(|address| {
                address.as_sockaddr_in().is_some() || address.as_sockaddr_in6().is_some()
            })
        })
        .map(|one| one.interface_name)
        .collect()
}

fn device(name: &str) -> Device {
    let root = Path::new("/sys/class/net").join(name);
    let queues = names(root.join("queues"));
    let of = |kind: &str| queues.iter().filter(|queue| queue.starts_with(kind)).collect::<Vec<_>>();
    let (receive, send) = (of("rx-"), of("tx-"));
    let mut unread = None;
    let mut set =
        |queue: &str, file: &str| match read::text(root.join("queues").join(queue).join(file)) {
            // A mask of CPUs or a number: either way it is set when it is not all zeros.
            Fact::Known(text) => text.bytes().any(|b| b.is_ascii_hexdigit() && b != b'0'),
            Fact::Absent => false,
            Fact::Unread(why) => {
                // A device with one queue has no XPS, and says so by refusing the read.
                if file != "xps_cpus" {
                    unread = Some(why);
                }
                false
            }
        };
    let rps = receive.iter().filter(|queue| set(queue, "rps_cpus")).count();
    let rfs = receive.iter().filter(|queue| set(queue, "rps_flow_cnt")).count();
    let xps = send.iter().filter(|queue| set(queue, "xps_cpus")).count();
    let driver = std::fs::read_link(root.join("device/driver"))
        .ok()
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    Device {
        name: name.to_owned(),
        driver,
        queues: (receive.len(), send.len()),
        interrupts: interrupts(&root),
        rps,
        rfs,
        xps,
        unread,
    }
}

/// How many interrupts a device has and to which CPUs they go: those of the device, or of what it hangs on (virtio on PCI).
fn interrupts(device: &Path) -> (usize, BTreeSet<u32>) {
    let mut numbers = names(device.join("device/msi_irqs"));
    if numbers.is_empty()
        && let Ok(real) = std::fs::canonicalize(device.join("device"))
        && let Some(parent) = real.parent()
    {
        numbers = names(parent.join("msi_irqs"));
    }
    let mut cpus = BTreeSet::new();
    let mut of_queues = 0;
    for number in numbers.iter().filter_map(|name| first_number(name)) {
        // The one of the configuration, which fires when a cable is pulled, has no part in the traffic.
        let dir = format!("/proc/irq/{number}");
        if names(&dir).iter().any(|name| name.ends_with("-config")) {
            continue;
        }
        of_queues += 1;
        let served = ["effective_affinity_list", "smp_affinity_list"]
            .iter()
            .map(|file| read::plain(format!("{dir}/{file}")))
            .find(|text| !text.is_empty());
        cpus.extend(served.and_then(|text| list(&text)).unwrap_or_default());
    }
    (of_queues, cpus)
}
