//! How the copies of a store stand, for people: counted from the catalogue of the ranges.

use super::Ranges;
use dkv_catalog::{Duty, Range, Store};
use dkv_protocol::admin::{CopiesView, NodeCopies, NodeDuty, StoreRecord};
use dkv_protocol::ids::{NodeIndex, ShardAddr};

/// Counts them. None of a store without copies, or one that the catalogue does not have yet.
pub(crate) fn view(ranges: &Ranges, record: &StoreRecord) -> Option<CopiesView> {
    record.definition.replication?;
    ranges.look(&record.id, |store| of(store, record))
}

/// The nodes whose processes are registered. None of a store without copies.
pub(crate) fn up(ranges: &Ranges, record: &StoreRecord) -> Option<Vec<String>> {
    record.definition.replication?;
    let runs = |store: &Store, index| store.nodes.get(&index).is_some_and(|n| n.boot.is_some());
    ranges.look(&record.id, |store| {
        let running = record.indexed().filter(|(index, _)| runs(store, *index));
        running.map(|(_, node)| node.name.clone()).collect()
    })
}

fn of(store: &Store, record: &StoreRecord) -> CopiesView {
    let wanted = usize::from(store.replication.replicas) + 1;
    let count = |is: &dyn Fn(&Range) -> bool| {
        store.each_range().filter(|(_, range)| is(range)).count() as u32
    };
    let in_sync = |range: &Range| range.config.as_ref().map_or(0, |config| config.in_sync.len());
    let node = |(index, own): (NodeIndex, &dkv_protocol::admin::NodeRecord)| {
        let known = store.nodes.get(&index);
        NodeCopies {
            name: own.name.clone(),
            up: known.is_some_and(|node| node.boot.is_some()),
            duty: known.map_or(NodeDuty::Full, |node| match node.duty {
                Duty::Full => NodeDuty::Full,
                Duty::Follows => NodeDuty::Follows,
                Duty::Leaves => NodeDuty::Leaves,
            }),
            leads: store.led_by(index).count() as u32,
            in_sync: store.held_by(index).count() as u32,
            alone: count(&|range| range.has_member_on(index) && in_sync(range) == 1),
            placed: count(&|range| range.placement.iter().any(|addr| addr.node == index)),
        }
    };
    CopiesView {
        life: store.life,
        changes: store.each_range().filter_map(|(_, r)| Some(r.config.as_ref()?.epoch.0)).sum(),
        unformed_ranges: count(&|range| range.config.is_none()),
        offline_ranges: count(&Range::is_offline),
        degraded_ranges: count(&|range| range.is_served() && in_sync(range) < wanted),
        moving_ranges: count(&|range| range.is_served() && !is_placed(range)),
        nodes: record.indexed().map(node).collect(),
    }
}

/// Whether its copies and its primary are where they should be.
fn is_placed(range: &Range) -> bool {
    let Some(config) = &range.config else { return false };
    let sorted = |addrs: &mut dyn Iterator<Item = ShardAddr>| {
        let mut all: Vec<ShardAddr> = addrs.collect();
        all.sort_unstable();
        all
    };
    let members = sorted(&mut config.in_sync.iter().map(|rid| rid.addr));
    members == sorted(&mut range.placement.iter().copied())
        && range.placement.first() == Some(&config.primary.addr)
}
