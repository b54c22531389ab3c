//! Memory: what there is of it, and how the kernel deals it out.

use super::cpus::Groups;
use super::read::{self, Fact, choice, field, first_number, sysctl};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Memory {
    /// Memory limit of the control group, in bytes; absent: none.
    pub(in super::super) limit: Fact<u64>,
    /// `MemAvailable`, in bytes.
    pub(in super::super) available: Fact<u64>,
    /// `SwapTotal`, in bytes.
    pub(in super::super) swap: Fact<u64>,
    /// `vm.swappiness`.
    pub(in super::super) swappiness: Fact<u64>,
    /// `vm.overcommit_memory`.
    pub(in super::super) overcommit: Fact<u64>,
    /// The chosen word of `transparent_hugepage/enabled`.
    pub(in super::super) huge_pages: Fact<String>,
    /// The chosen word of `transparent_hugepage/defrag`.
    pub(in super::super) defrag: Fact<String>,
    /// Huge pages set aside, those of them that nobody uses, and bytes of each.
    pub(in super::super) set_aside: Fact<(u64, u64, u64)>,
}

pub(super) fn read() -> Memory {
    const PATH: &str = "/proc/meminfo";
    const HUGE: &str = "/sys/kernel/mm/transparent_hugepage";
    let info = read::text(PATH);
    let number = |text: &str, key: &str| field(text, key).and_then(first_number);
    let kib = |key| info.clone().and_then(|text| number(&text, key).map(|kib| kib * 1024), PATH);
    let set_aside = |text: &str| {
        let count = |key| number(text, key);
        Some((count("HugePages_Total")?, count("HugePages_Free")?, count("Hugepagesize")? * 1024))
    };
    Memory {
        limit: Groups::of_this_process().memory_max(),
        available: kib("MemAvailable"),
        swap: kib("SwapTotal"),
        swappiness: sysctl("vm/swappiness"),
        overcommit: sysctl("vm/overcommit_memory"),
        huge_pages: choice(format!("{HUGE}/enabled")),
        defrag: choice(format!("{HUGE}/defrag")),
        // A kernel without them does not count them.
        set_aside: match &info {
            Fact::Known(text) => set_aside(text).map_or(Fact::Absent, Fact::Known),
            Fact::Absent => Fact::Absent,
            Fact::Unread(why) => Fact::Unread(why.clone()),
        },
    }
}
