//! Queues of connections, and the devices that bring requests.

use super::rows::{Problem, Rows, Severity, advice, command, note, warning};
use crate::commands::doctor::facts::{Device, Fact, Network};

/// Connections that may wait to be accepted.
const BACKLOG: u64 = 1024;

pub(super) fn judge(network: &Network, cpus: usize, rows: &mut Rows) {
    let queues = [
        ("somaxconn", &network.somaxconn, "net.core.somaxconn", "is refused by the kernel"),
        (
            "syn backlog",
            &network.syn_backlog,
            "net.ipv4.tcp_max_syn_backlog",
            "waits for a second try",
        ),
    ];
    for (check, fact, sysctl, what) in queues {
        rows.fact(check, fact, &BACKLOG.to_string(), None, |length| {
            let problem = (*length < BACKLOG).then(|| {
                let fix = command(format!("sysctl -w {sysctl}={}", BACKLOG * 4));
                warning(format!("a burst of connections {what}"), fix)
            });
            (length.to_string(), problem)
        });
    }
    rows.fact(
        "busy poll",
        &network.busy_poll,
        "0 and 0",
        Some("not in this kernel"),
        |(poll, read)| {
            let problem = (*poll > 0 || *read > 0).then(|| {
                let why =
                    "every socket burns CPU while it waits; measured here it makes nothing faster";
                warning(why, command("sysctl -w net.core.busy_poll=0 net.core.busy_read=0"))
            });
            (format!("{poll} and {read} µs"), problem)
        },
    );
    for device in &network.devices {
        judge_device(device, network, cpus, rows);
    }
    let moves = network.devices.iter().any(|device| device.interrupts.0 > 2);
    let problem = (network.irqbalance && moves).then(|| {
        let why = "it moves the interrupts of devices from CPU to CPU, and with them the pauses of the shards there";
        warning(why, command("systemctl disable --now irqbalance"))
    });
    let found = if network.irqbalance { "runs" } else { "does not run" };
    rows.add("irqbalance", found, "not with several queues", problem);
}

fn judge_device(device: &Device, network: &Network, cpus: usize, rows: &mut Rows) {
    let check = format!("network {}", device.name);
    let (receive, send) = device.queues;
    let Some(driver) = &device.driver else {
        let found = format!("software device, {receive} receive and {send} send queues");
        rows.add(check, found, "", None);
        return;
    };
    let (interrupts, served) = (device.interrupts.0, &device.interrupts.1);
    let flows = match network.flow_entries {
        Fact::Known(entries) => entries.to_string(),
        _ => "?".to_owned(),
    };
    let found = format!(
        "{driver}, {receive} receive and {send} send queues, {interrupts} interrupts on {} CPUs, RPS {}, RFS {} ({flows} flows), XPS {}",
        served.len(),
        of(device.rps, receive),
        of(device.rfs, receive),
        of(device.xps, send),
    );
    let wanted = "receive work on several CPUs";
    if let Some(why) = &device.unread {
        rows.unknown(&check, &format!("{found}; {why}"), wanted);
        return;
    }
    rows.add(check, found, wanted, problem(device, cpus));
}

fn of(set: usize, all: usize) -> String {
    if set == 0 { "off".to_owned() } else { format!("{set}/{all}") }
}

fn problem(device: &Device, cpus: usize) -> Option<Problem> {
    let name = &device.name;
    let (receive, _) = device.queues;
    let (interrupts, served) = (device.interrupts.0, &device.interrupts.1);
    if receive > 1 && interrupts > 1 && served.len() == 1 && cpus > 1 {
        let why =
            "all queues interrupt the same CPU, whose shard waits for all packets of the machine";
        let fix = "let irqbalance spread them once (irqbalance --oneshot), or write a CPU of each into /proc/irq/N/smp_affinity_list";
        return Some(warning(why, advice(fix)));
    }
    if receive != 1 || cpus < 2 || device.rps > 0 {
        return None;
    }
    // With two CPUs one of them does the network's work, which is as it should be.
    if cpus < 4 {
        return Some(note(
            "one CPU takes all packets, as there is one receive queue; enough for few CPUs",
        ));
    }
    let why = "one CPU takes all packets of the machine, and is the first to be full";
    let mask = (1_u128 << cpus.min(127)) - 1;
    let fix = if mask > u128::from(u32::MAX) {
        advice(format!(
            "ethtool -L {name} combined {}; where the device has one queue only, RPS: the mask of CPUs into /sys/class/net/{name}/queues/rx-0/rps_cpus",
            cpus.min(16)
        ))
    } else {
        command(format!(
            "ethtool -L {name} combined {} || echo {mask:x} > /sys/class/net/{name}/queues/rx-0/rps_cpus",
            cpus.min(16),
        ))
    };
    Some((Severity::Warning, why.to_owned(), fix))
}
