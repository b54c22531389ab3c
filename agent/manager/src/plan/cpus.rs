//! CPU sets of new nodes: disjoint while there are enough CPUs, shared and said so when there are not.

use crate::refusal::Refusal;
use dkv_protocol::limits::NODES_PER_MACHINE_MAX;
use std::collections::BTreeMap;

/// What is known of the machine, and what is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuWish {
    /// CPUs that the manager may use, in order.
    pub(crate) available: Vec<u32>,
    /// How many nodes of this machine use a CPU already.
    pub(crate) used: BTreeMap<u32, u32>,
    /// Nodes of this machine that exist already.
    pub(crate) nodes_before: u32,
    /// New nodes.
    pub(crate) count: u32,
    /// CPUs of each; none: the machine's shared out.
    pub(crate) cpus: Option<u32>,
}

/// The CPUs of the new nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuPlan {
    /// One set a node, and whether no other node uses it.
    pub(crate) sets: Vec<(Vec<u32>, bool)>,
    /// Shared or unused CPUs.
    pub(crate) warnings: Vec<String>,
}

/// Gives CPUs to new nodes.
pub(crate) fn assign(wish: &CpuWish) -> Result<CpuPlan, Refusal> {
    let total = wish.available.len() as u32;
    let free = free_count(wish);
    let each = match wish.cpus {
        Some(cpus) if cpus > total => {
            return Err(Refusal::bad(
                "bad_cpus",
                format!(
                    "{cpus} CPUs for one node are more than the {total} that this machine's manager may use"
                ),
                format!("give --cpus {total} or less, or leave it out"),
            ));
        }
        Some(cpus) => cpus,
        None => {
            let fair = (total / (wish.nodes_before + wish.count)).max(1);
            // Fewer than the fair share is better than shared CPUs, as long as each node gets one.
            if free >= wish.count { fair.min(free / wish.count) } else { fair }
        }
    };
    let mut used = wish.used.clone();
    let mut chosen: Vec<Vec<u32>> = Vec::new();
    for _ in 0..wish.count {
        let mut order = wish.available.clone();
        order.sort_by_key(|cpu| (used.get(cpu).copied().unwrap_or(0), *cpu));
        order.truncate(each as usize);
        order.sort_unstable();
        for cpu in &order {
            *used.entry(*cpu).or_default() += 1;
        }
        chosen.push(order);
    }
    let sets: Vec<(Vec<u32>, bool)> = chosen
        .into_iter()
        .map(|set| {
            let exclusive = set.iter().all(|cpu| used.get(cpu) == Some(&1));
            (set, exclusive)
        })
        .collect();
    let warnings = [shared(wish, &sets, total), unused(wish, &used, each)];
    Ok(CpuPlan { sets, warnings: warnings.into_iter().flatten().collect() })
}

fn free_count(wish: &CpuWish) -> u32 {
    let free = |cpu: &&u32| wish.used.get(cpu).copied().unwrap_or(0) == 0;
    wish.available.iter().filter(free).count() as u32
}

fn shared(wish: &CpuWish, sets: &[(Vec<u32>, bool)], total: u32) -> Option<String> {
    let sharing = sets.iter().filter(|(_, exclusive)| !exclusive).count();
    (sharing > 0).then(|| {
        format!(
            "{sharing} of {} new nodes share CPUs with other nodes: the {total} CPUs of this machine do not give each node its own",
            wish.count
        )
    })
}

fn unused(wish: &CpuWish, used: &BTreeMap<u32, u32>, each: u32) -> Option<String> {
    let idle = wish.available.iter().filter(|cpu| !used.contains_key(cpu)).count() as u32;
    if idle == 0 {
        return None;
    }
    let mine = idle + each * wish.count;
    let mut ways = Vec::new();
    // With the CPUs of a node left as they are, or shared out anew.
    let counts = |count: &u32| match wish.cpus {
        Some(cpus) => count * cpus == mine,
        None => mine.is_multiple_of(*count),
    };
    if let Some(count) = (wish.count + 1..=NODES_PER_MACHINE_MAX).find(counts) {
        ways.push(format!("--instance-count {count}"));
    }
    if wish.cpus.is_some() && mine / wish.count > each {
        ways.push(format!("--cpus {}", mine / wish.count));
    }
    let cure = if ways.is_empty() {
        "they cannot be shared out evenly".to_string()
    } else {
        format!("{} would use them", ways.join(" or "))
    };
    Some(format!("{idle} of {} CPUs of this machine stay unused: {cure}", wish.available.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        available: std::ops::Range<u32>,
        used: &'static [u32],
        count: u32,
        cpus: Option<u32>,
        sets: &'static [(&'static [u32], bool)],
        warning: Option<&'static str>,
    }

    #[test]
    fn cpus_are_shared_out_by_the_documented_rules() {
        let cases = [
            Case {
                available: 0..2,
                used: &[],
                count: 2,
                cpus: None,
                sets: &[(&[0], true), (&[1], true)],
                warning: None,
            },
            Case {
                available: 0..8,
                used: &[],
                count: 2,
                cpus: None,
                sets: &[(&[0, 1, 2, 3], true), (&[4, 5, 6, 7], true)],
                warning: None,
            },
            // Fewer CPUs than nodes.
            Case {
                available: 0..2,
                used: &[],
                count: 3,
                cpus: None,
                sets: &[(&[0], false), (&[1], true), (&[0], false)],
                warning: Some("2 of 3 new nodes share CPUs"),
            },
            // A second store takes what is left, or shares.
            Case {
                available: 0..4,
                used: &[0, 1],
                count: 1,
                cpus: None,
                sets: &[(&[2, 3], true)],
                warning: None,
            },
            Case {
                available: 0..2,
                used: &[0, 1],
                count: 1,
                cpus: None,
                sets: &[(&[0], false)],
                warning: Some("share CPUs"),
            },
            // Too few for the CPUs.
            Case {
                available: 0..2,
                used: &[],
                count: 1,
                cpus: Some(1),
                sets: &[(&[0], true)],
                warning: Some(
                    "1 of 2 CPUs of this machine stay unused: --instance-count 2 or --cpus 2",
                ),
            },
            Case {
                available: 4..12,
                used: &[],
                count: 3,
                cpus: None,
                sets: &[(&[4, 5], true), (&[6, 7], true), (&[8, 9], true)],
                warning: Some("2 of 8 CPUs of this machine stay unused: --instance-count 4 would"),
            },
        ];
        for case in cases {
            let wish = CpuWish {
                available: case.available.collect(),
                used: case.used.iter().map(|cpu| (*cpu, 1)).collect(),
                nodes_before: u32::from(!case.used.is_empty()),
                count: case.count,
                cpus: case.cpus,
            };
            let plan = assign(&wish).unwrap();
            let sets: Vec<(&[u32], bool)> =
                plan.sets.iter().map(|(set, own)| (&set[..], *own)).collect();
            assert_eq!(sets, case.sets, "{wish:?}");
            match case.warning {
                None => assert_eq!(plan.warnings, Vec::<String>::new(), "{wish:?}"),
                Some(words) => assert!(plan.warnings[0].contains(words), "{:?}", plan.warnings),
            }
        }
    }

    #[test]
    fn more_cpus_than_there_are_is_refused_with_the_number() {
        let wish = CpuWish { available: vec![0, 1], count: 1, cpus: Some(3), ..CpuWish::default() };
        let refused = assign(&wish).unwrap_err();
        assert!(refused.message.contains('2') && refused.hint.contains("--cpus 2"));
    }
}
