//! Spreads are even and apart, begin where the map of an unreplicated store does, and change little.

use super::*;
use dkv_protocol::ids::{Epoch, RangeId};
use dkv_protocol::map::{NodeInfo, StoreMap};
use proptest::prelude::*;
use std::net::IpAddr;

/// Sites from (shards, machine).
fn sites(nodes: &[(u16, u8)]) -> Vec<Site> {
    let site = |(i, &(shards, machine)): (usize, &(u16, u8))| Site {
        node: NodeIndex(i as u16),
        shards,
        machine: Machine(format!("10.0.0.{machine}")),
        leads: true,
    };
    nodes.iter().enumerate().map(site).collect()
}

fn count(placements: &[Placement], of: impl Fn(&Placement) -> bool) -> usize {
    placements.iter().filter(|placement| of(placement)).count()
}

fn held(placements: &[Placement], sites: &[Site]) -> Vec<usize> {
    sites.iter().map(|s| count(placements, |p| holds(p, s.node))).collect()
}

fn led(placements: &[Placement], sites: &[Site]) -> Vec<usize> {
    sites.iter().map(|s| count(placements, |p| p[0].node == s.node)).collect()
}

fn difference(sizes: &[usize]) -> usize {
    sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0)
}

/// How many copies are where none of the range was before.
fn moved(before: &[Placement], after: &[Placement]) -> usize {
    before.iter().zip(after).map(|(b, a)| a.iter().filter(|addr| !b.contains(addr)).count()).sum()
}

fn check_sound(placements: &[Placement], sites: &[Site], copies: usize) {
    assert_eq!(placements.len(), RANGES);
    let machine = |addr: &ShardAddr| {
        let site = sites.iter().find(|site| site.node == addr.node).expect("a site");
        assert!(addr.shard.0 < site.shards);
        site.machine.clone()
    };
    let machines: BTreeSet<Machine> = sites.iter().map(|site| site.machine.clone()).collect();
    for placement in placements {
        assert_eq!(placement.len(), copies.min(sites.len()));
        let nodes: BTreeSet<NodeIndex> = placement.iter().map(|addr| addr.node).collect();
        assert_eq!(nodes.len(), placement.len(), "one node twice: {placement:?}");
        let used: BTreeSet<Machine> = placement.iter().map(machine).collect();
        assert_eq!(used.len(), machines.len().min(placement.len()), "together: {placement:?}");
    }
}

#[test]
fn equal_machines_lead_and_hold_alike() {
    for (nodes, copies) in [
        (vec![(2, 1), (2, 2)], 2),
        (vec![(1, 1), (1, 2), (1, 3)], 2),
        (vec![(4, 1), (4, 2), (4, 3)], 3),
        (vec![(1, 1), (1, 1), (1, 2), (1, 2)], 2),
        (vec![(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)], 3),
    ] {
        let sites = sites(&nodes);
        let placements = spread(&sites, copies);
        check_sound(&placements, &sites, copies);
        assert!(difference(&led(&placements, &sites)) <= 1, "{nodes:?}");
        assert!(difference(&held(&placements, &sites)) <= 2, "{nodes:?}");
        for site in &sites {
            let on = |shard| {
                let addr = ShardAddr { node: site.node, shard: ShardIndex(shard) };
                count(&placements, |p| p.contains(&addr))
            };
            let by_shard: Vec<usize> = (0..site.shards).map(on).collect();
            assert!(difference(&by_shard) <= 2, "{nodes:?} {by_shard:?}");
        }
    }
}

#[test]
fn the_ranges_of_one_node_are_copied_to_all_others() {
    let sites = sites(&[(1, 1), (1, 2), (1, 3), (1, 4)]);
    let placements = spread(&sites, 2);
    for lead in &sites {
        for other in sites.iter().filter(|other| other.node != lead.node) {
            let both = count(&placements, |p| p[0].node == lead.node && p[1].node == other.node);
            assert!((20..=23).contains(&both), "{lead:?} {other:?} {both}");
        }
    }
}

#[test]
fn a_new_node_takes_its_share_and_nothing_else_moves() {
    for (before, after, copies) in [
        (vec![(1, 1), (1, 2)], vec![(1, 1), (1, 2), (1, 3)], 1),
        (vec![(1, 1), (1, 2)], vec![(1, 1), (1, 2), (1, 3)], 2),
        (vec![(2, 1), (2, 2), (2, 3)], vec![(2, 1), (2, 2), (2, 3), (2, 4)], 3),
        (vec![(1, 1)], vec![(1, 1), (1, 2)], 2),
    ] {
        let old = spread(&sites(&before), copies);
        let sites = sites(&after);
        let new = rebalance(&old, &[], &sites, copies, true);
        check_sound(&new, &sites, copies);
        assert!(difference(&held(&new, &sites)) <= 1, "{after:?}: {:?}", held(&new, &sites));
        assert!(difference(&led(&new, &sites)) <= 1, "{after:?}: {:?}", led(&new, &sites));
        // All that moved went to the new node, and it is that node's share.
        assert_eq!(moved(&old, &new), held(&new, &sites)[before.len()], "{after:?}");
    }
}

#[test]
fn a_machine_that_joins_takes_the_copies_that_stood_together() {
    let old = spread(&sites(&[(1, 1), (1, 1)]), 2);
    let sites = sites(&[(1, 1), (1, 1), (1, 2)]);
    let new = rebalance(&old, &[], &sites, 2, true);
    check_sound(&new, &sites, 2);
    assert_eq!(moved(&old, &new), RANGES);
}

#[test]
fn a_node_that_may_not_lead_keeps_its_copies_and_comes_last() {
    let mut sites = sites(&[(1, 1), (1, 2), (1, 3)]);
    let old = spread(&sites, 3);
    sites[1].leads = false;
    let new = rebalance(&old, &[], &sites, 3, false);
    assert_eq!(moved(&old, &new), 0);
    assert_eq!(led(&new, &sites)[1], 0);
    let was_lead = |range: usize| old[range][0].node == NodeIndex(1);
    assert!((0..RANGES).filter(|r| was_lead(*r)).all(|r| new[r][2].node == NodeIndex(1)));
    sites[1].leads = true;
    let back = rebalance(&new, &[], &sites, 3, false);
    assert_eq!(moved(&new, &back), 0);
    assert!(difference(&led(&back, &sites)) <= 1);
}

#[test]
fn a_node_that_leaves_is_replaced_where_it_was_only() {
    let all = sites(&[(1, 1), (1, 2), (1, 3), (1, 4)]);
    let old = spread(&all, 2);
    let staying = &all[..3];
    let new = rebalance(&old, &[], staying, 2, false);
    check_sound(&new, staying, 2);
    assert_eq!(moved(&old, &new), held(&old, &all)[3]);
    assert!(difference(&held(&new, staying)) <= 3, "{:?}", held(&new, staying));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn leaders_stand_as_in_the_map_without_copies(
        nodes in prop::collection::vec((1u16..5, 1u8..5), 1..12), copies in 1usize..4,
    ) {
        let info = |&(shards, _): &(u16, u8)| NodeInfo {
            name: String::new(),
            address: IpAddr::from([127, 0, 0, 1]),
            cluster_port: 7811,
            client_port: 7861,
            shard_ports: vec![7900; usize::from(shards)],
        };
        let map = StoreMap::spread(nodes.iter().map(info).collect(), Epoch(1));
        let sites = sites(&nodes);
        let placements = spread(&sites, copies);
        check_sound(&placements, &sites, copies);
        for range in 0..=255 {
            prop_assert_eq!(placements[usize::from(range)][0], map.owner(RangeId(range)));
        }
        prop_assert_eq!(&spread(&sites, copies), &placements);
    }

    #[test]
    fn any_row_of_changes_stays_sound(
        nodes in prop::collection::vec((1u16..4, 1u8..4), 2..7), copies in 1usize..4,
        changes in prop::collection::vec((any::<bool>(), 0usize..6), 1..5),
    ) {
        let all = sites(&nodes);
        let mut present: Vec<Site> = all[..1].to_vec();
        let mut placements = spread(&present, copies);
        for (joins, which) in changes {
            let site = &all[which % all.len()];
            let there = present.iter().any(|other| other.node == site.node);
            if joins && !there {
                present.push(site.clone());
            } else if !joins && there && present.len() > 1 {
                present.retain(|other| other.node != site.node);
            }
            present.sort_by_key(|site| site.node);
            placements = rebalance(&placements, &[], &present, copies, true);
            check_sound(&placements, &present, copies);
            // A second time nothing moves.
            prop_assert_eq!(&rebalance(&placements, &[], &present, copies, true), &placements);
        }
    }
}
