//! CPUs: how many, what holds them back, how deep they sleep.

use super::read::{self, Fact, list, names};
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Cpus {
    /// CPUs this process may run on.
    pub(in super::super) allowed: Vec<u32>,
    /// CPUs that the machine has running.
    pub(in super::super) online: Fact<Vec<u32>>,
    /// CPU quota of the control group, in CPUs; absent: none.
    pub(in super::super) quota: Fact<f64>,
    /// How often the control group was stopped for its quota; absent: it has no quota to count for.
    pub(in super::super) throttled: Fact<u64>,
    /// Allowed CPUs that share a core with another allowed one, in groups.
    pub(in super::super) siblings: Fact<Vec<Vec<u32>>>,
    /// NUMA nodes that the allowed CPUs lie on.
    pub(in super::super) numa_nodes: Fact<Vec<u32>>,
    /// Scaling governors of the CPUs, each once; absent: a hypervisor decides.
    pub(in super::super) governors: Fact<Vec<String>>,
    /// The deepest idle state that is switched on: its name and microseconds to leave it; absent: a hypervisor decides.
    pub(in super::super) deepest_idle: Fact<(String, u64)>,
    /// The clock source in use.
    pub(in super::super) clock_source: Fact<String>,
}

const CPU: &str = "/sys/devices/system/cpu";

pub(super) fn read() -> Cpus {
    let allowed: Vec<u32> =
        dkv_node::cpu::available().unwrap_or_default().into_iter().map(|cpu| cpu as u32).collect();
    let online = format!("{CPU}/online");
    let groups = Groups::of_this_process();
    Cpus {
        online: read::text(&online).and_then(|text| list(&text), &online),
        quota: groups.quota(),
        throttled: groups.throttled(),
        siblings: siblings(&allowed),
        numa_nodes: numa_nodes(&allowed),
        governors: governors(&allowed),
        deepest_idle: deepest_idle(&allowed),
        clock_source: read::text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        allowed,
    }
}

fn siblings(allowed: &[u32]) -> Fact<Vec<Vec<u32>>> {
    let mut groups = Vec::new();
    for cpu in allowed {
        let path = format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
        match read::text(&path).and_then(|text| list(&text), &path) {
            Fact::Known(mut group) => {
                group.retain(|cpu| allowed.contains(cpu));
                if group.len() > 1 && !groups.contains(&group) {
                    groups.push(group);
                }
            }
            Fact::Absent => return Fact::Absent,
            Fact::Unread(why) => return Fact::Unread(why),
        }
    }
    Fact::Known(groups)
}

fn numa_nodes(allowed: &[u32]) -> Fact<Vec<u32>> {
    let dir = "/sys/devices/system/node";
    let mut nodes = Vec::new();
    for node in names(dir).iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()) {
        let path = format!("{dir}/node{node}/cpulist");
        let cpus = list(&read::plain(&path)).unwrap_or_default();
        if cpus.iter().any(|cpu| allowed.contains(cpu)) {
            nodes.push(node);
        }
    }
    if nodes.is_empty() { Fact::Absent } else { Fact::Known(nodes) }
}

fn governors(allowed: &[u32]) -> Fact<Vec<String>> {
    let mut found = Vec::new();
    for cpu in allowed {
        match read::text(format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor")) {
            Fact::Known(governor) => found.push(governor),
            Fact::Absent => {}
            Fact::Unread(why) => return Fact::Unread(why),
        }
    }
    found.sort();
    found.dedup();
    if found.is_empty() { Fact::Absent } else { Fact::Known(found) }
}

fn deepest_idle(allowed: &[u32]) -> Fact<(String, u64)> {
    let mut deepest: Option<(String, u64)> = None;
    for cpu in allowed {
        let dir = format!("{CPU}/cpu{cpu}/cpuidle");
        for state in names(&dir).iter().filter(|name| name.starts_with("state")) {
            let file = |name: &str| read::plain(format!("{dir}/{state}/{name}"));
            if file("disable") == "1" {
                continue;
            }
            let Ok(latency) = file("latency").parse() else { continue };
            if deepest.as_ref().is_none_or(|(_, known)| latency > *known) {
                deepest = Some((file("name"), latency));
            }
        }
    }
    deepest.map_or(Fact::Absent, Fact::Known)
}

/// The control groups of this process and those above them, nearest first, in both versions of control groups.
pub(super) struct Groups {
    unified: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
}

impl Groups {
    pub(super) fn of_this_process() -> Self {
        Self::of(&read::plain("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
    }

    fn of(groups: &str, root: &Path) -> Self {
        let chain = |mount: PathBuf, path: &str| -> Vec<PathBuf> {
            let group = mount.join(path.trim_start_matches('/'));
            let above = group.ancestors().take_while(|path| path.starts_with(&mount));
            above.map(Path::to_path_buf).collect()
        };
        let find = |controller: &str| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|one| one == controller).then_some((controllers, path))
            })
        };
        // Version 1 mounts a controller under its name, or under those of all that are mounted together.
        let old = |controller: &str| {
            find(controller).map_or_else(Vec::new, |(together, path)| {
                let names = [together, controller];
                let mount = names.iter().map(|name| root.join(name)).find(|dir| dir.is_dir());
                mount.map_or_else(Vec::new, |mount| chain(mount, path))
            })
        };
        let unified = find("").map_or_else(Vec::new, |(_, path)| chain(root.to_path_buf(), path));
        Self { unified, cpu: old("cpu"), memory: old("memory") }
    }

    /// The tightest quota, in CPUs.
    fn quota(&self) -> Fact<f64> {
        let new =
            self.unified.iter().filter_map(|dir| quota_cpus(&read::plain(dir.join("cpu.max"))));
        let old = self.cpu.iter().filter_map(|dir| {
            let period = read::plain(dir.join("cpu.cfs_period_us"));
            quota_cpus(&format!("{} {period}", read::plain(dir.join("cpu.cfs_quota_us"))))
        });
        new.chain(old).min_by(f64::total_cmp).map_or(Fact::Absent, Fact::Known)
    }

    fn throttled(&self) -> Fact<u64> {
        let stat = |dir: &PathBuf| {
            let text = read::plain(dir.join("cpu.stat"));
            text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
        };
        self.unified
            .iter()
            .chain(&self.cpu)
            .filter_map(stat)
            .max()
            .map_or(Fact::Absent, Fact::Known)
    }

    /// The tightest limit of memory, in bytes.
    pub(super) fn memory_max(&self) -> Fact<u64> {
        let new = self.unified.iter().map(|dir| dir.join("memory.max"));
        let old = self.memory.iter().map(|dir| dir.join("memory.limit_in_bytes"));
        let limits = new.chain(old).filter_map(|path| read::first_number(&read::plain(path)));
        // Version 1 writes "no limit" as the greatest number of whole pages.
        limits.filter(|bytes| *bytes < 1 << 60).min().map_or(Fact::Absent, Fact::Known)
    }
}

/// `cpu.max`: `max 100000` or `150000 100000`; in version 1 no quota is -1.
fn quota_cpus(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace();
    let (quota, period): (f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (period > 0.0 && quota > 0.0).then(|| quota / period)
}

/// Jiffies of a CPU: those that the hypervisor took, and all.
pub(in super::super) fn steal(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).map_while(|number| number.parse().ok()).collect();
    // Guest time, which follows, is part of user time.
    Some((*numbers.get(7)?, numbers.iter().take(8).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn quotas_and_stolen_time_are_read() {
        assert_eq!(quota_cpus("150000 100000\n"), Some(1.5));
        assert_eq!(quota_cpus("max 100000\n"), None);
        assert_eq!(quota_cpus("-1 100000\n"), None);
        let stat = "cpu  10 0 20 60 0 0 5 5 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(steal(stat), Some((5, 100)));
        assert_eq!(steal("cpu 1 2"), None);
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/b/cpu.max", "400000 100000");
        put("a/cpu.max", "150000 100000");
        put("a/b/cpu.stat", "nr_periods 9\nnr_throttled 3\n");
        put("a/memory.max", "max");
        put("a/b/memory.max", "4096");
        let new = Groups::of("0::/a/b\n", root.path());
        assert_eq!((new.quota(), new.throttled()), (Fact::Known(1.5), Fact::Known(3)));
        assert_eq!(new.memory_max(), Fact::Known(4096));
        put("cpu,cpuacct/x/cpu.cfs_quota_us", "50000");
        put("cpu,cpuacct/x/cpu.cfs_period_us", "100000");
        put("memory/x/memory.limit_in_bytes", "9223372036854771712");
        let old = Groups::of("3:cpu,cpuacct:/x\n2:memory:/x\n", root.path());
        assert_eq!((old.quota(), old.memory_max()), (Fact::Known(0.5), Fact::Absent));
        assert_eq!(Groups::of("", root.path()).quota(), Fact::Absent);
    }
}
