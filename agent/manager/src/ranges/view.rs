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
        moving_ranges: count(&|range| range.is_served() && !is_placed(store, range)),
        nodes: record.indexed().map(node).collect(),
    }
}

/// Whether its copies and its primary are where they should be, as far as nodes are up: to one that is not nothing moves.
fn is_placed(store: &Store, range: &Range) -> bool {
    let Some(config) = &range.config else { return false };
    let up = |addr: &&ShardAddr| store.nodes.get(&addr.node).is_some_and(|n| n.boot.is_some());
    let mut wished: Vec<ShardAddr> = range.placement.iter().filter(up).copied().collect();
    let mut members: Vec<ShardAddr> = config.in_sync.iter().map(|rid| rid.addr).collect();
    let leads = wished.first().is_none_or(|first| *first == config.primary.addr);
    wished.sort_unstable();
    members.sort_unstable();
    leads && (members == wished || wished.is_empty())
}
