//! CPUs: enough of them, awake, and ours.

use super::rows::{Rows, Severity, advice, command, note, warning};
use crate::commands::doctor::facts::Cpus;
use crate::commands::doctor::probe::{STEPS_US, Timed, WakeUps};

/// Microseconds to leave an idle state above which it shows in a request's latency.
const IDLE_US: u64 = 100;
/// A wake-up that is later was kept from its CPU by somebody else.
const GAP_US: u64 = 1000;
/// Of the wake-ups of a second so many may be late before it is a habit of the host.
const GAPS: u64 = 3;
/// The share of time that the hypervisor may take before requests feel it.
const STEAL: f64 = 0.01;
const PROBE: &str = "wake-up";

pub(super) fn judge(cpus: &Cpus, timed: Option<&Timed>, rows: &mut Rows) {
    let count = cpus.allowed.len();
    let why = "every node's shards share one CPU with everything else";
    let fix = "give this machine or container two CPUs or more";
    let problem = (count < 2).then(|| warning(why, advice(fix)));
    rows.add("cpus", count.to_string(), "2", problem);
    rows.fact("cpu set", &cpus.online, "whole CPUs of our own", None, |online| {
        let found = match online.len().saturating_sub(count) {
            0 => format!("all {} of the machine", online.len()),
            _ => format!("CPUs {} of {}", ranges(&cpus.allowed), online.len()),
        };
        (found, None)
    });
    rows.fact("cpu quota", &cpus.quota, "none", Some("none"), |quota| {
        let problem = (*quota < count as f64).then(|| {
            let why = "a quota below the number of CPUs stops all threads for 10 to 100 ms when it is used up";
            let fix = "limit the CPU set instead of the quota: docker run --cpuset-cpus, AllowedCPUs= in a unit, whole CPUs with the static policy in Kubernetes";
            warning(why, advice(fix))
        });
        (format!("{quota:.1} CPUs"), problem)
    });
    rows.fact("cpu throttling", &cpus.throttled, "never", Some("no quota to exceed"), |times| {
        let problem = (*times > 0).then(|| {
            let why = "each time all threads of the control group stood still until the next period, 10 to 100 ms";
            warning(why, advice("raise or remove the CPU quota: docker update --cpus 0, CPUQuota= in a unit"))
        });
        (format!("{times} times since it was made"), problem)
    });
    judge_layout(cpus, rows);
    judge_sleep(cpus, rows);
    rows.fact("clock source", &cpus.clock_source, "tsc or kvm-clock", None, |source| {
        let fine = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
        let problem = (!fine.contains(&source.as_str())).then(|| {
            let why = "reading this clock is a system call, and a shard reads it every turn";
            let fix = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource";
            warning(why, command(fix))
        });
        (source.clone(), problem)
    });
    match timed {
        Some(timed) => judge_timed(timed, rows),
        None => {
            for (check, wanted) in [("stolen time", "under 1 %"), (PROBE, "within 1 ms")] {
                left_out(check, wanted, rows);
            }
        }
    }
}

/// A probe that was not run is not fine either.
pub(super) fn left_out(check: &str, wanted: &str, rows: &mut Rows) {
    let problem =
        (Severity::Unknown, "it takes a second to measure".to_owned(), command("dkv doctor"));
    rows.add(check, "left out (--quick)", wanted, Some(problem));
}

fn judge_layout(cpus: &Cpus, rows: &mut Rows) {
    let absent = Some("not shown here");
    rows.fact("SMT", &cpus.siblings, "a core for each shard", absent, |groups| match groups.first() {
        None => ("each CPU is a core of its own".into(), None),
        Some(first) => {
            let why = "two shards on one core share its caches: together they do more than one, each does less and is late more often; with latency first, give the manager one CPU of each core (taskset)";
            let found = format!("{} cores with two CPUs, as {}", groups.len(), ranges(first));
            (found, Some(note(why)))
        }
    });
    rows.fact("NUMA nodes", &cpus.numa_nodes, "1", Some("not shown here"), |nodes| {
        let problem = (nodes.len() > 1).then(|| {
            let why = "memory of another NUMA node answers half as fast again; a shard takes its own from where it runs, a NIC's memory is on one of them";
            (Severity::Note, why.to_owned(), advice("a manager for each: numactl --cpunodebind=0 --membind=0 dkv agent …, or leave it"))
        });
        (nodes.len().to_string(), problem)
    });
}

fn judge_sleep(cpus: &Cpus, rows: &mut Rows) {
    let absent = Some("none shown; the hypervisor decides, if there is one");
    rows.fact("governor", &cpus.governors, "performance", absent, |governors| {
        let problem = (*governors != ["performance"]).then(|| {
            let why = "a CPU that slows down when idle answers the next request late";
            warning(why, command("cpupower frequency-set -g performance"))
        });
        (governors.join(", "), problem)
    });
    let wanted = format!("{IDLE_US} µs or less to wake");
    rows.fact("idle states", &cpus.deepest_idle, &wanted, absent, |(name, us)| {
        let problem = (*us > IDLE_US).then(|| {
            let why = "a CPU that sleeps so deeply wakes late for the first request after a pause";
            warning(why, command(format!("cpupower idle-set -D {}", IDLE_US + 1)))
        });
        (format!("{name}, {us} µs to wake"), problem)
    });
}

fn judge_timed(timed: &Timed, rows: &mut Rows) {
    rows.fact("stolen time", &timed.steal, "under 1 %", None, |share| {
        let problem = (*share >= STEAL).then(|| {
            let why = "the hypervisor gave the CPUs to others meanwhile, and every shard stood still for it";
            warning(why, advice("ask for dedicated CPUs, or another kind of machine"))
        });
        (format!("{:.1} % in a second", share * 100.0), problem)
    });
    let wanted = "within 1 ms";
    let (noisy, calm): (Vec<_>, Vec<_>) = timed.wake_ups.iter().partition(|seen| gaps(seen) > 0);
    for seen in noisy {
        let often = gaps(seen) >= GAPS;
        let why = "a thread due to wake was kept from its CPU for over 1 ms: by another process, interrupts, or a noisy neighbour of the hypervisor. A request would have waited as long";
        let fix = "see who else runs there: ps -eLo psr,pcpu,comm --sort=-pcpu | head; on a hypervisor, ask for dedicated CPUs";
        let severity = if often { Severity::Warning } else { Severity::Note };
        let problem = (severity, why.to_owned(), advice(fix));
        rows.add(format!("{PROBE} CPU {}", seen.cpu), shown(seen), wanted, Some(problem));
    }
    for seen in calm {
        rows.add(format!("{PROBE} CPU {}", seen.cpu), shown(seen), wanted, None);
    }
    for why in &timed.unwatched {
        rows.unknown(PROBE, why, wanted);
    }
}

/// Wake-ups later than [`GAP_US`].
fn gaps(seen: &WakeUps) -> u64 {
    seen.steps[STEPS_US.len()]
}

const _: () = assert!(STEPS_US[STEPS_US.len() - 1] == GAP_US);

/// `p50 12 p99 80 max 900 µs; of 930: 900 up to 50, …, 0 over 1000 µs`.
fn shown(seen: &WakeUps) -> String {
    let steps: Vec<_> =
        STEPS_US.iter().zip(seen.steps).map(|(us, count)| format!("≤{us}: {count}")).collect();
    format!(
        "p50 {}, p99 {}, max {} µs late ({}, >{GAP_US}: {})",
        seen.p50_us,
        seen.p99_us,
        seen.max_us,
        steps.join(", "),
        gaps(seen),
    )
}

/// `0-3,8`.
fn ranges(cpus: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}
