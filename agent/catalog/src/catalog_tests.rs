//! The rules one by one, and the invariants over any row of commands.

use super::*;
use crate::command::{Drain, Machine, NodeSpec, Wish};
use crate::store::Duty;
use Outcome::{Done, Nothing, Refused};
use dkv_protocol::ids::{BootId, NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::ranges::{
    Ack, Change, ConfigAsk, DeadBoot, OnTotalLoss, Placement, RangeConfig, RangeState, ReadMode,
    Replication, Rid,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const FIRST: u64 = 1_700_000_000 << 16;
const R: RangeId = RangeId(0);

fn id() -> StoreId {
    StoreId("5e".repeat(16))
}

fn replication(replicas: u8, on_total_loss: OnTotalLoss) -> Replication {
    Replication { replicas, ack: Ack::All, min_insync: 1, read: ReadMode::Lease, on_total_loss }
}

fn spec(node: u16) -> NodeSpec {
    NodeSpec { node: NodeIndex(node), shards: 2, machine: Machine(format!("10.0.0.{node}")) }
}

fn define(nodes: u16, replication: Replication) -> Command {
    Command::DefineStore { store: id(), replication, nodes: (0..nodes).map(spec).collect() }
}

fn up(node: u16, boot: u64) -> Command {
    Command::NodeUp { store: id(), node: NodeIndex(node), boot: BootId(boot), first_index: FIRST }
}

fn form(only_up: bool) -> Command {
    Command::Form { store: id(), first_index: FIRST, only_up }
}

fn dead(node: u16, boot: u64) -> Command {
    Command::Dead { store: id(), dead: DeadBoot { node: NodeIndex(node), boot: BootId(boot) } }
}

fn place(wish: Wish) -> Command {
    Command::Place { store: id(), wish }
}

fn reform(accept_loss: bool) -> Command {
    Command::ReformOffline { store: id(), first_index: FIRST, accept_loss }
}

/// A store whose nodes have boots 100, 101, …, formed.
fn formed(nodes: u16, replicas: u8, loss: OnTotalLoss) -> Catalog {
    let mut catalog = Catalog::default();
    assert_eq!(catalog.apply(&define(nodes, replication(replicas, loss))).outcome, Done);
    for node in 0..nodes {
        assert_eq!(catalog.apply(&up(node, 100 + u64::from(node))).outcome, Done);
    }
    assert_eq!(catalog.apply(&form(false)).outcome, Done);
    catalog
}

fn range(catalog: &Catalog) -> &crate::range::Range {
    catalog.store(&id()).expect("it is defined").range(R)
}

fn config(catalog: &Catalog) -> RangeConfig {
    range(catalog).config.clone().expect("it is formed")
}

fn left(catalog: &Catalog) -> Vec<Rid> {
    catalog.news(&id(), R).expect("it is defined").left
}

fn ask(catalog: &mut Catalog, caller: Rid, change: Change) -> Outcome {
    let epoch = config(catalog).epoch;
    ask_at(catalog, epoch, caller, change)
}

fn ask_at(catalog: &mut Catalog, epoch: Epoch, caller: Rid, change: Change) -> Outcome {
    let asks = vec![ConfigAsk { range: R, epoch, caller, change }];
    catalog.apply(&Command::Asks { store: id(), asks }).asks[0]
}

#[test]
fn a_store_forms_where_its_nodes_are_up() {
    let mut catalog = Catalog::default();
    catalog.apply(&define(2, replication(1, OnTotalLoss::Offline)));
    assert_eq!(catalog.news(&id(), R).expect("news").config, None);
    catalog.apply(&up(0, 100));
    assert_eq!(catalog.apply(&form(false)).outcome, Refused(Refusal::NotAllUp));
    let applied = catalog.apply(&form(true));
    assert_eq!((applied.outcome, applied.changed.len()), (Done, 256));
    let config = config(&catalog);
    assert_eq!(config.in_sync, [config.primary]);
    assert_eq!((config.epoch, config.formed, config.first_index), (Epoch(1), Epoch(1), FIRST));
    assert_eq!(config.primary.boot, BootId(100));
    // All is formed: the other one joins as a learner.
    assert_eq!(catalog.apply(&form(true)).outcome, Nothing);
    let applied = catalog.apply(&up(1, 101));
    assert_eq!((applied.outcome, applied.changed), (Done, vec![]));
}

#[test]
fn a_node_that_comes_late_forms_what_waited_for_it() {
    let mut catalog = Catalog::default();
    catalog.apply(&define(2, replication(0, OnTotalLoss::Reinit)));
    catalog.apply(&up(0, 100));
    assert_eq!(catalog.apply(&form(true)).changed.len(), 128);
    let applied = catalog.apply(&up(1, 101));
    let late: Vec<RangeId> = (128..=255).map(RangeId).collect();
    assert_eq!((applied.outcome, applied.changed), (Done, late));
}

#[test]
fn only_a_member_in_the_present_epoch_changes_anything() {
    let mut catalog = formed(3, 2, OnTotalLoss::Offline);
    let start = config(&catalog);
    let [a, b, c] = start.in_sync[..] else { panic!("{start:?}") };
    assert_eq!(start.primary, a);
    let stale = |epoch| Refused(Refusal::Stale(epoch));
    let other_boot = Rid { boot: BootId(7), ..b };
    let other_generation = Rid { generation: 1, ..b };
    for (epoch, caller, change, expect) in [
        (Epoch(0), a, Change::Shrink { remove: b }, stale(Epoch(1))),
        (Epoch(2), a, Change::Shrink { remove: b }, stale(Epoch(1))),
        (Epoch(1), b, Change::Shrink { remove: c }, Refused(Refusal::NotPrimary)),
        (Epoch(1), a, Change::Shrink { remove: a }, Refused(Refusal::Primary)),
        (Epoch(1), a, Change::Shrink { remove: other_generation }, Refused(Refusal::NotMember)),
        (Epoch(1), a, Change::Take, Refused(Refusal::Primary)),
        (Epoch(1), other_boot, Change::Take, Refused(Refusal::Fenced)),
        (Epoch(1), other_generation, Change::Take, Refused(Refusal::NotMember)),
        (Epoch(1), a, Change::Expand { add: b }, Refused(Refusal::AlreadyMember)),
        (Epoch(1), a, Change::Expand { add: other_generation }, Refused(Refusal::AlreadyMember)),
        (Epoch(1), a, Change::Expand { add: other_boot }, Refused(Refusal::Fenced)),
        (Epoch(1), a, Change::Transfer { to: other_generation }, Refused(Refusal::NotMember)),
        (Epoch(1), b, Change::Transfer { to: c }, Refused(Refusal::NotPrimary)),
        (Epoch(9), other_boot, Change::Discarded, Refused(Refusal::Fenced)),
    ] {
        assert_eq!(ask_at(&mut catalog, epoch, caller, change), expect, "{caller:?} {change:?}");
        assert_eq!(config(&catalog), start);
    }
    assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
    assert_eq!(ask(&mut catalog, a, Change::Expand { add: b }), Done);
    assert_eq!(ask(&mut catalog, a, Change::Transfer { to: c }), Done);
    assert_eq!(ask(&mut catalog, a, Change::Take), Done);
    let end = config(&catalog);
    assert_eq!((end.epoch, end.primary), (Epoch(5), a));
    assert_eq!(end.in_sync, [a, b]);
}

#[test]
fn a_transfer_to_the_primary_itself_voids_what_it_asked_before() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let before = config(&catalog);
    let [a, b] = before.in_sync[..] else { panic!("{before:?}") };
    assert_eq!(ask(&mut catalog, a, Change::Transfer { to: a }), Done);
    assert_eq!(config(&catalog), RangeConfig { epoch: Epoch(2), ..before });
    let late = ask_at(&mut catalog, Epoch(1), a, Change::Shrink { remove: b });
    assert_eq!(late, Refused(Refusal::Stale(Epoch(2))));
    assert_eq!(ask(&mut catalog, b, Change::Transfer { to: b }), Refused(Refusal::NotPrimary));
}

#[test]
fn who_was_taken_over_or_discarded_comes_back_as_another_only() {
    let mut catalog = formed(2, 1, OnTotalLoss::Offline);
    let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
    assert_eq!(ask(&mut catalog, b, Change::Take), Done);
    assert_eq!(config(&catalog).in_sync, [b]);
    let next = Rid { generation: 1, ..a };
    assert_eq!(ask(&mut catalog, b, Change::Expand { add: a }), Refused(Refusal::Left));
    // It is discarded before the primary takes it in: the identity is used up though it never counted.
    assert_eq!(ask(&mut catalog, next, Change::Discarded), Nothing);
    assert_eq!(ask(&mut catalog, b, Change::Expand { add: next }), Refused(Refusal::Left));
    let third = Rid { generation: 2, ..a };
    assert_eq!(ask(&mut catalog, b, Change::Expand { add: third }), Done);
    assert_eq!(ask(&mut catalog, b, Change::Discarded), Done);
    assert_eq!(config(&catalog).in_sync, [third]);
    assert_eq!(config(&catalog).primary, third);
}

#[test]
fn the_dead_leave_all_ranges_at_once_and_their_boot_is_over() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let held = catalog.store(&id()).expect("store").held_by(NodeIndex(0)).count();
    let applied = catalog.apply(&dead(0, 100));
    assert_eq!((applied.outcome, applied.changed.len()), (Done, held));
    let store = catalog.store(&id()).expect("store");
    assert_eq!(store.held_by(NodeIndex(0)).count(), 0);
    assert!(store.each_range().all(|(_, range)| range.is_served()));
    assert_eq!(catalog.apply(&dead(0, 100)).outcome, Nothing);
    assert_eq!(catalog.apply(&up(0, 100)).outcome, Refused(Refusal::Fenced));
    // News of a death may come before the news of the start.
    assert_eq!(catalog.apply(&dead(0, 200)).outcome, Done);
    assert_eq!(catalog.apply(&up(0, 200)).outcome, Refused(Refusal::Fenced));
    assert_eq!(catalog.apply(&up(0, 201)).outcome, Done);
    // A restart that nobody saw is a death too.
    let before = catalog.store(&id()).expect("store").held_by(NodeIndex(1)).count();
    assert_eq!(catalog.apply(&up(1, 301)).changed.len(), before);
}

#[test]
fn the_loss_of_the_last_copy_waits_for_a_human_or_starts_empty() {
    for (loss, without_word) in
        [(OnTotalLoss::Offline, Refused(Refusal::LossNotAccepted)), (OnTotalLoss::Reinit, Nothing)]
    {
        let mut catalog = formed(1, 0, loss);
        let was = config(&catalog);
        catalog.apply(&dead(0, 100));
        let offline = config(&catalog);
        assert_eq!((offline.state, offline.epoch), (RangeState::Offline, Epoch(2)));
        assert_eq!(offline.in_sync, was.in_sync);
        assert_eq!(catalog.apply(&reform(false)).outcome, without_word);
        let changed = catalog.apply(&up(0, 101)).changed.len();
        if loss == OnTotalLoss::Offline {
            assert_eq!((changed, config(&catalog)), (0, offline));
            assert_eq!(catalog.apply(&reform(true)).outcome, Done);
        }
        let anew = config(&catalog);
        assert_eq!((anew.state, anew.epoch, anew.formed), (RangeState::Normal, Epoch(3), Epoch(3)));
        assert!(anew.first_index > was.first_index);
        assert_eq!(anew.primary.boot, BootId(101));
    }
}

#[test]
fn a_discarded_only_copy_is_formed_under_the_next_generation() {
    let mut catalog = formed(1, 0, OnTotalLoss::Reinit);
    let only = config(&catalog).primary;
    assert_eq!(ask(&mut catalog, only, Change::Discarded), Done);
    assert!(range(&catalog).is_offline());
    assert_eq!(ask(&mut catalog, only, Change::Discarded), Nothing);
    assert_eq!(catalog.apply(&reform(false)).changed, [R]);
    // Whatever generations it had without ever counting, this one is above them.
    assert_eq!(config(&catalog).primary, Rid { generation: 1 << 16, ..only });
}

#[test]
fn a_copy_that_never_heard_that_a_forming_named_it_is_told_to_go_on_above_that() {
    let mut catalog = formed(2, 1, OnTotalLoss::Reinit);
    let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
    assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
    assert_eq!(ask(&mut catalog, a, Change::Discarded), Done);
    assert_eq!(catalog.apply(&reform(false)).changed, [R]);
    let [a, named] = config(&catalog).in_sync[..] else { panic!("two") };
    assert_eq!((named.addr, named.generation), (b.addr, 1 << 16));
    assert_eq!(left(&catalog), [], "those that count are told by their configuration");
    assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: named }), Done);
    let own = Rid { generation: 3, ..b };
    assert_eq!(ask(&mut catalog, a, Change::Expand { add: own }), Refused(Refusal::Left));
    assert_eq!(left(&catalog), [Rid { generation: named.generation - 1, ..b }]);
    assert_eq!(ask(&mut catalog, a, Change::Expand { add: named }), Done);
    assert_eq!(ask(&mut catalog, named, Change::Take), Done);
    assert_eq!(ask(&mut catalog, named, Change::Expand { add: a }), Refused(Refusal::Left));
    let next = Rid { generation: a.generation + 1, ..a };
    assert_eq!(ask(&mut catalog, named, Change::Expand { add: next }), Done);
}

#[test]
fn a_copy_that_neither_counts_nor_should_leaves_for_good() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
    let away = |at: ShardAddr| Wish::Explicit { placements: vec![(R, vec![at])] };
    assert_eq!(ask(&mut catalog, b, Change::Leave), Refused(Refusal::AlreadyMember));
    assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
    assert_eq!(ask(&mut catalog, b, Change::Leave), Refused(Refusal::Placed));
    assert_eq!(catalog.apply(&place(away(a.addr))).outcome, Done);
    let epoch = config(&catalog).epoch;
    let before = Epoch(epoch.0 - 1);
    assert_eq!(
        ask_at(&mut catalog, before, b, Change::Leave),
        Refused(Refusal::Stale(epoch)),
        "what it knows is not what is"
    );
    assert_eq!(left(&catalog), []);
    assert_eq!(ask(&mut catalog, b, Change::Leave), Done);
    assert_eq!(ask(&mut catalog, b, Change::Leave), Nothing);
    assert_eq!((config(&catalog).epoch, left(&catalog)), (epoch, vec![b]));
    assert_eq!(ask(&mut catalog, a, Change::Expand { add: b }), Refused(Refusal::Left));
    let next = Rid { generation: b.generation + 1, ..b };
    assert_eq!(ask(&mut catalog, a, Change::Expand { add: next }), Done);
    assert_eq!(left(&catalog), []);
    catalog.apply(&dead(b.addr.node.0, b.boot.0));
    assert_eq!(left(&catalog), [], "its boot is over, and need not be told anything");
}

#[test]
fn what_is_remembered_of_copies_does_not_grow_with_what_happens_to_them() {
    let mut catalog = formed(3, 1, OnTotalLoss::Reinit);
    let size = |catalog: &Catalog| serde_json::to_string(range(catalog)).expect("JSON").len();
    let mut after = Vec::new();
    for round in 0..40 {
        let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
        assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
        // The last copy is lost, and both are formed again.
        assert_eq!(ask(&mut catalog, a, Change::Discarded), Done);
        assert_eq!(catalog.apply(&reform(false)).changed, [R]);
        let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
        assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
        let next = Rid { generation: b.generation + 1 + round, ..b };
        assert_eq!(ask(&mut catalog, a, Change::Expand { add: next }), Done);
        after.push(size(&catalog));
    }
    // The numbers in it get longer.
    assert!(after[39] < after[0] + 60, "{after:?}");
}

#[test]
fn a_deliberate_stop_is_no_loss_and_epochs_go_on() {
    let mut catalog = formed(2, 1, OnTotalLoss::Offline);
    let start = |life| Command::StartStore { store: id(), life };
    assert_eq!(catalog.apply(&start(1)).outcome, Nothing);
    assert_eq!(catalog.apply(&start(3)).outcome, Refused(Refusal::WrongLife));
    assert_eq!(catalog.apply(&start(2)).outcome, Done);
    assert_eq!(catalog.apply(&start(2)).outcome, Nothing);
    assert_eq!(range(&catalog).config, None);
    assert_eq!(catalog.apply(&up(0, 100)).outcome, Refused(Refusal::Fenced));
    assert_eq!(catalog.apply(&up(0, 200)).changed, []);
    catalog.apply(&up(1, 201));
    assert_eq!(catalog.apply(&form(false)).outcome, Done);
    let config = config(&catalog);
    assert_eq!((config.epoch, config.formed), (Epoch(2), Epoch(2)));
    assert_eq!(config.first_index, FIRST + 1);
}

#[test]
fn definitions_are_whole_and_the_same_one_twice_is_one() {
    let mut catalog = Catalog::default();
    let none = replication(0, OnTotalLoss::Reinit);
    let twice = Command::DefineStore { store: id(), replication: none, nodes: vec![spec(0); 2] };
    for (command, expect) in [
        (up(0, 1), Refused(Refusal::NoSuchStore)),
        (define(0, none), Refused(Refusal::BadDefinition)),
        (twice, Refused(Refusal::BadDefinition)),
        (define(2, none), Done),
        (define(2, none), Nothing),
        (define(3, none), Refused(Refusal::DefinedOtherwise)),
        (Command::ForgetStore { store: id() }, Done),
        (Command::ForgetStore { store: id() }, Nothing),
        (define(3, none), Done),
    ] {
        assert_eq!(catalog.apply(&command).outcome, expect, "{command:?}");
    }
}

#[test]
fn wishes_change_placements_and_nothing_else() {
    let mut catalog = formed(2, 1, OnTotalLoss::Offline);
    let before = config(&catalog);
    let addr = |node, shard| ShardAddr { node: NodeIndex(node), shard: ShardIndex(shard) };
    let explicit = |placement: Placement| Wish::Explicit { placements: vec![(R, placement)] };
    let node = NodeIndex(0);
    let drain = |node, how| Wish::Drain { node: NodeIndex(node), how };
    let bad = Refused(Refusal::BadPlacement);
    for (wish, expect, changed) in [
        (explicit(vec![]), bad, 0),
        (explicit(vec![addr(0, 0), addr(0, 1)]), bad, 0),
        (explicit(vec![addr(0, 2)]), bad, 0),
        (explicit(vec![addr(7, 0)]), bad, 0),
        (explicit(vec![addr(1, 1), addr(0, 1)]), Done, 1),
        (explicit(vec![addr(1, 1), addr(0, 1)]), Nothing, 0),
        (explicit(vec![addr(0, 1), addr(1, 1)]), Done, 1),
        (drain(0, Drain::Leadership), Done, 128),
        (Wish::Undrain { node }, Done, 128),
        (Wish::RemoveNode { node }, Refused(Refusal::StillHolds(R)), 0),
        (drain(0, Drain::Copies), Done, 256),
        (drain(1, Drain::Copies), Refused(Refusal::LastNode), 0),
        (Wish::AddNode { spec: spec(2) }, Done, 256),
        (Wish::AddNode { spec: spec(2) }, Nothing, 0),
        (
            Wish::AddNode { spec: NodeSpec { shards: 1, ..spec(2) } },
            Refused(Refusal::DefinedOtherwise),
            0,
        ),
        (Wish::RemoveNode { node: NodeIndex(9) }, Nothing, 0),
    ] {
        let applied = catalog.apply(&place(wish.clone()));
        assert_eq!((applied.outcome, applied.changed.len()), (expect, changed), "{wish:?}");
    }
    assert_eq!(config(&catalog), before);
    let store = catalog.store(&id()).expect("store");
    assert_eq!(store.nodes[&node].duty, Duty::Leaves);
    assert!(store.each_range().all(|(_, r)| r.placement.iter().all(|a| a.node != node)));
    // Its copies go when the primaries let them; a death does it here.
    catalog.apply(&dead(0, 100));
    assert_eq!(catalog.apply(&place(Wish::RemoveNode { node })).outcome, Done);
    assert_eq!(catalog.store(&id()).expect("store").nodes.len(), 2);
}

/// A node's shards cannot fill each other: a wish to have on one what another holds would never come true.
#[test]
fn a_move_that_is_called_back_leaves_copies_on_the_shards_where_they_are() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let held: Vec<Placement> = {
        let store = catalog.store(&id()).expect("store");
        store.each_range().map(|(_, range)| range.counting()).collect()
    };
    let node = NodeIndex(3);
    assert_eq!(catalog.apply(&place(Wish::AddNode { spec: spec(3) })).outcome, Done);
    assert_eq!(catalog.apply(&up(3, 103)).outcome, Done);
    let wished = |catalog: &Catalog| -> Vec<Placement> {
        let store = catalog.store(&id()).expect("store");
        store.each_range().map(|(_, range)| range.placement.clone()).collect()
    };
    let to_new = wished(&catalog).iter().flatten().filter(|addr| addr.node == node).count();
    assert_eq!(to_new, 128, "a fourth of 512 copies");
    let back = Wish::Drain { node, how: Drain::Copies };
    assert_eq!(catalog.apply(&place(back)).outcome, Done);
    for (range, (held, wished)) in held.iter().zip(wished(&catalog)).enumerate() {
        let (held, wished): (BTreeSet<_>, BTreeSet<_>) =
            (held.iter().collect(), wished.iter().collect());
        assert_eq!(wished, held, "range {range}: nothing has moved yet, so nothing needs to");
    }
}

/// Two managers stop, or kill, a node each in the same moment: what both have must not end with both.
#[test]
fn of_processes_that_end_together_one_keeps_what_both_hold() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let of = |node: u16, boot| DeadBoot { node: NodeIndex(node), boot: BootId(boot) };
    let end = |node: u16| Command::End { store: id(), end: of(node, 100 + u64::from(node)) };
    let spare = |node: u16| Command::Spare { store: id(), end: of(node, 100 + u64::from(node)) };
    assert_eq!(catalog.apply(&end(0)).outcome, Done);
    assert_eq!(catalog.apply(&end(0)).outcome, Nothing, "asked for once more");
    let refused = |outcome| matches!(outcome, Refused(Refusal::LastCopy(_)));
    assert!(refused(catalog.apply(&end(1)).outcome) && refused(catalog.apply(&end(2)).outcome));
    // Spared, it counts again; and its copies elsewhere count for the next one.
    assert_eq!(catalog.apply(&spare(0)).outcome, Done);
    assert_eq!(catalog.apply(&spare(0)).outcome, Nothing);
    assert_eq!(catalog.apply(&end(1)).outcome, Done);
    assert!(refused(catalog.apply(&end(0)).outcome));
    // What was granted is looked at again: a copy that was let go meanwhile makes the other one the last.
    let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
    assert_eq!(catalog.apply(&spare(1)).outcome, Done);
    assert_eq!(catalog.apply(&end(a.addr.node.0)).outcome, Done);
    assert_eq!(ask(&mut catalog, a, Change::Shrink { remove: b }), Done);
    assert_eq!(catalog.apply(&end(a.addr.node.0)).outcome, Refused(Refusal::LastCopy(R)));
    // It is of that process alone.
    let node = a.addr.node.0;
    let boot = 100 + u64::from(node);
    catalog.apply(&dead(node, boot));
    assert_eq!(catalog.apply(&up(node, 900)).outcome, Done);
    assert_eq!(catalog.apply(&end(node)).outcome, Refused(Refusal::Fenced));
    assert!(!catalog.store(&id()).expect("store").nodes[&NodeIndex(node)].ending);
    let nobody = Command::End { store: id(), end: of(9, 1) };
    assert_eq!(catalog.apply(&nobody).outcome, Refused(Refusal::NoSuchNode));
}

/// What was asked for under an earlier wish must not get in the way of the present one.
#[test]
fn a_copy_on_another_shard_than_is_wished_by_now_is_not_let_in() {
    let mut catalog = formed(3, 1, OnTotalLoss::Offline);
    let [a, b] = config(&catalog).in_sync[..] else { panic!("two") };
    let other = (0..3).map(NodeIndex).find(|node| ![a.addr.node, b.addr.node].contains(node));
    let node = other.expect("a third");
    let on = |shard| ShardAddr { node, shard: ShardIndex(shard) };
    let boot = BootId(100 + u64::from(node.0));
    let add = |shard| Change::Expand { add: Rid { addr: on(shard), boot, generation: 0 } };
    let wish = Wish::Explicit { placements: vec![(R, vec![a.addr, on(1)])] };
    assert_eq!(catalog.apply(&place(wish)).outcome, Done);
    assert_eq!(ask(&mut catalog, a, add(0)), Refused(Refusal::PlacedElsewhere));
    assert_eq!(ask(&mut catalog, a, add(1)), Done);
    // Wished for on the other one, it stays where it is.
    let wish = Wish::Explicit { placements: vec![(R, vec![on(0), a.addr])] };
    assert_eq!(catalog.apply(&place(wish)).outcome, Done);
    assert_eq!(range(&catalog).placement, [on(1), a.addr]);
}

#[test]
fn a_catalogue_and_its_commands_survive_json() {
    let mut catalog = formed(3, 2, OnTotalLoss::Offline);
    let [a, b, _] = config(&catalog).in_sync[..] else { panic!("three") };
    assert_eq!(ask(&mut catalog, b, Change::Take), Done);
    catalog.apply(&dead(2, 102));
    let written = serde_json::to_vec(&catalog).expect("writes");
    let read: Catalog = serde_json::from_slice(&written).expect("reads");
    assert_eq!(read, catalog);
    let asks =
        vec![ConfigAsk { range: R, epoch: Epoch(9), caller: b, change: Change::Expand { add: a } }];
    for command in [
        define(2, replication(1, OnTotalLoss::Offline)),
        up(1, 7),
        Command::Asks { store: id(), asks },
        place(Wish::AddNode { spec: spec(3) }),
        place(Wish::Undrain { node: NodeIndex(3) }),
    ] {
        let written = serde_json::to_vec(&command).expect("writes");
        assert_eq!(serde_json::from_slice::<Command>(&written).expect("reads"), command);
    }
}

/// A command in the making; who and what is chosen by the state it meets.
#[derive(Clone, Debug)]
enum Act {
    Up(u16, u8),
    Dead(u16, u8),
    End(u16, u8),
    Spare(u16, u8),
    Form(bool),
    Start,
    Reform(bool),
    Wish(u8, u16),
    Ask { change: u8, caller: u8, other: u8, late: bool, fresh: u8 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let asks = (0..7u8, any::<u8>(), any::<u8>(), prop::bool::weighted(0.1), 0..3u8);
    let ask = asks.prop_map(|(change, caller, other, late, fresh)| Act::Ask {
        change,
        caller,
        other,
        late,
        fresh,
    });
    let act = prop_oneof![
        3 => (0..5u16, 0..4u8).prop_map(|(node, boot)| Act::Up(node, boot)),
        2 => (0..5u16, 0..4u8).prop_map(|(node, boot)| Act::Dead(node, boot)),
        2 => (0..5u16, 0..4u8).prop_map(|(node, boot)| Act::End(node, boot)),
        1 => (0..5u16, 0..4u8).prop_map(|(node, boot)| Act::Spare(node, boot)),
        2 => any::<bool>().prop_map(Act::Form),
        1 => Just(Act::Start),
        1 => any::<bool>().prop_map(Act::Reform),
        2 => (0..5u8, 0..5u16).prop_map(|(wish, node)| Act::Wish(wish, node)),
        20 => ask,
    ];
    prop::collection::vec(act, 1..60)
}

/// Boots of a node in the order of its starts; 0 is the present one when there is one.
fn boot(node: u16, start: u8) -> u64 {
    u64::from(node) * 1000 + u64::from(start)
}

fn command_of(act: &Act, catalog: &Catalog) -> Command {
    let store = catalog.store(&id()).expect("store");
    match *act {
        Act::Up(node, start) => up(node, boot(node, start)),
        Act::Dead(node, start) => dead(node, boot(node, start)),
        Act::End(node, start) | Act::Spare(node, start) => {
            let end = DeadBoot { node: NodeIndex(node), boot: BootId(boot(node, start)) };
            if matches!(act, Act::End(..)) {
                Command::End { store: id(), end }
            } else {
                Command::Spare { store: id(), end }
            }
        }
        Act::Form(only_up) => form(only_up),
        Act::Start => Command::StartStore { store: id(), life: store.life + 1 },
        Act::Reform(accept_loss) => reform(accept_loss),
        Act::Wish(which, node) => {
            let index = NodeIndex(node);
            place(match which {
                0 => Wish::Drain { node: index, how: Drain::Leadership },
                1 => Wish::Drain { node: index, how: Drain::Copies },
                2 => Wish::Undrain { node: index },
                3 => Wish::AddNode { spec: spec(node) },
                _ => Wish::RemoveNode { node: index },
            })
        }
        Act::Ask { change, caller, other, late, fresh } => {
            let epoch = range(catalog).epoch;
            let epoch = if late { Epoch(epoch.0.saturating_sub(1)) } else { epoch };
            let member = |which: u8| {
                let members = range(catalog).config.as_ref().map_or(&[][..], |c| &c.in_sync);
                members.get(usize::from(which) % members.len().max(1)).copied()
            };
            let nobody = Rid {
                addr: ShardAddr {
                    node: NodeIndex(u16::from(other) % 5),
                    shard: ShardIndex(u16::from(other) % 2),
                },
                boot: store
                    .nodes
                    .get(&NodeIndex(u16::from(other) % 5))
                    .and_then(|node| node.boot)
                    .unwrap_or(BootId(boot(u16::from(other) % 5, fresh))),
                generation: u32::from(fresh),
            };
            let primary = range(catalog).config.as_ref().map(|c| c.primary);
            let by_primary = primary.unwrap_or(nobody);
            let other = member(other).unwrap_or(nobody);
            let (caller, change) = match change {
                0 => (by_primary, Change::Shrink { remove: other }),
                1 | 2 => (by_primary, Change::Expand { add: nobody }),
                3 => (member(caller).unwrap_or(nobody), Change::Take),
                4 => (by_primary, Change::Transfer { to: other }),
                5 => (nobody, Change::Leave),
                _ if caller % 2 == 0 => (nobody, Change::Discarded),
                _ => (member(caller).unwrap_or(nobody), Change::Discarded),
            };
            Command::Asks { store: id(), asks: vec![ConfigAsk { range: R, epoch, caller, change }] }
        }
    }
}

/// What must hold of a range whatever happened.
fn check_range(catalog: &Catalog, before: &Catalog, gone: &mut BTreeSet<Rid>, command: &Command) {
    let (store, was, now) = (catalog.store(&id()).expect("store"), range(before), range(catalog));
    assert!(now.epoch >= was.epoch, "{command:?}");
    if now.config.is_some() && now.config != was.config {
        assert!(now.epoch > was.epoch, "changed within an epoch by {command:?}");
    }
    assert!(!now.placement.is_empty());
    let placed: BTreeSet<NodeIndex> = now.placement.iter().map(|addr| addr.node).collect();
    assert_eq!(placed.len(), now.placement.len());
    assert!(placed.iter().all(|node| store.nodes.contains_key(node)), "{command:?}");
    let members = |range: &crate::range::Range| {
        range.config.as_ref().map_or(BTreeSet::new(), |c| c.in_sync.iter().copied().collect())
    };
    let (was_in, now_in): (BTreeSet<Rid>, BTreeSet<Rid>) = (members(was), members(now));
    // By anything but a shrink a member leaves for good.
    let shrunk = matches!(command, Command::Asks { asks, .. }
        if matches!(asks[0].change, Change::Shrink { .. }));
    if !shrunk {
        gone.extend(was_in.difference(&now_in));
    }
    let done = now != was;
    if let Command::Asks { asks, .. } = command
        && (asks[0].change == Change::Discarded || asks[0].change == Change::Leave && done)
        && store.nodes.get(&asks[0].caller.addr.node).and_then(|n| n.boot)
            == Some(asks[0].caller.boot)
        && was.config.is_some()
    {
        gone.insert(asks[0].caller);
    }
    let Some(config) = &now.config else { return };
    assert!(config.has(config.primary), "{config:?} after {command:?}");
    assert_eq!(config.epoch, now.epoch);
    assert!(config.formed <= config.epoch);
    assert_eq!(now_in.len(), config.in_sync.len());
    let nodes: BTreeSet<NodeIndex> = config.in_sync.iter().map(|rid| rid.addr.node).collect();
    assert_eq!(nodes.len(), config.in_sync.len(), "{config:?} after {command:?}");
    if config.state == RangeState::Offline {
        assert_eq!(config.in_sync.len(), 1);
        gone.extend(&now_in);
        return;
    }
    for rid in &config.in_sync {
        assert!(!gone.contains(rid), "{rid:?} came back by {command:?}");
        let wished = now.placement.iter().find(|addr| addr.node == rid.addr.node);
        assert!(
            wished.is_none_or(|addr| *addr == rid.addr),
            "{rid:?} is to be on another shard of its node, {wished:?}, by {command:?}"
        );
        assert_eq!(store.nodes[&rid.addr.node].boot, Some(rid.boot), "{command:?}");
    }
    let entered: Vec<&Rid> = now_in.difference(&was_in).collect();
    if config.formed == config.epoch {
        let first_before = was.config.as_ref().map_or(0, |c| c.first_index);
        assert!(
            config.first_index > first_before || config == was.config.as_ref().unwrap_or(config)
        );
    } else if !entered.is_empty() {
        let by_expand = matches!(command, Command::Asks { asks, .. }
            if asks[0].change == Change::Expand { add: *entered[0] }
                && was.config.as_ref().is_some_and(|c| c.primary == asks[0].caller));
        assert!(by_expand && entered.len() == 1, "{entered:?} entered by {command:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_configuration_stays_sound(
        nodes in 1..5u16, replicas in 0..3u8, reinit in any::<bool>(), acts in acts(),
    ) {
        let loss = if reinit { OnTotalLoss::Reinit } else { OnTotalLoss::Offline };
        let mut catalog = Catalog::default();
        catalog.apply(&define(nodes, replication(replicas, loss)));
        for node in 0..nodes {
            catalog.apply(&up(node, boot(node, 0)));
        }
        catalog.apply(&form(true));
        let mut gone = BTreeSet::new();
        for act in &acts {
            let command = command_of(act, &catalog);
            let before = catalog.clone();
            let applied = catalog.apply(&command);
            check_range(&catalog, &before, &mut gone, &command);
            let same = catalog == before;
            match applied.outcome {
                Refused(_) => prop_assert!(same, "{:?} was refused and did something", command),
                Done => prop_assert!(!same, "{:?} was done and did nothing", command),
                Nothing => prop_assert!(applied.changed.is_empty()),
            }
            // Who left is told to whom it concerns, which asked.
            let told = |catalog: &Catalog| {
                catalog.news(&id(), R).map(|news| RangeNews { left: vec![], ..news })
            };
            let differs = told(&before) != told(&catalog);
            prop_assert_eq!(applied.changed.contains(&R), differs, "{:?}", command);
            // The same command once more changes no configuration.
            let mut again = catalog.clone();
            let twice = again.apply(&command);
            prop_assert!(twice.changed.is_empty(), "{:?} twice", command);
        }
    }
}
