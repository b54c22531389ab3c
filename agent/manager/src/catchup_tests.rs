//! What one manager tells another that it has missed.

use super::*;
use crate::ledger::{Ledger, NodeEntry, StoreEntry};
use dkv_protocol::admin::{NodeRecord, RemovedNode, StoreDefinition, StoreRecord};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, StoreId};
use dkv_protocol::io::IoChoice;

const HERE: &str = "10.0.0.11:7801";
const THERE: &str = "10.0.0.12:7801";

fn node(name: &str, machine: &str) -> NodeRecord {
    NodeRecord {
        name: name.to_string(),
        machine: machine.to_string(),
        cluster_port: 7811,
        client_port: 7861,
        shard_ports: vec![7900],
        cpus: vec![0],
        cpus_exclusive: true,
    }
}

fn record(name: &str, id: &str, epoch: u64, nodes: Vec<NodeRecord>) -> StoreRecord {
    StoreRecord {
        definition: StoreDefinition {
            name: name.to_string(),
            instance_prefix: "node".to_string(),
            instance_count: 1,
            clustron_port: None,
            client_port: None,
            cpus: None,
            memory_bytes_max: 0,
            eviction: Eviction::None,
            io: IoChoice::Auto,
            replication: None,
            password_sha256: None,
            protected_mode: true,
        },
        id: StoreId(id.to_string()),
        hash_seed: String::new(),
        epoch: Epoch(epoch),
        nodes,
        removed: vec![],
    }
}

/// A manager that has this record, with its own nodes wanted so.
fn having(record: &StoreRecord, wanted: Wanted) -> Inner {
    let own = record.nodes.iter().filter(|node| node.machine == HERE);
    let entry = |node: &NodeRecord| (node.name.clone(), NodeEntry { wanted, ..NodeEntry::new() });
    let nodes = own.map(entry).collect();
    let mut ledger = Ledger { machine: HERE.to_string(), ..Ledger::default() };
    let store = StoreEntry { record: record.clone(), deleting: false, nodes };
    ledger.stores.insert(record.definition.name.clone(), store);
    Inner::new(ledger)
}

fn asks(known: &[(&str, u64)]) -> CatchUpRequest {
    let known = known
        .iter()
        .map(|(id, epoch)| KnownStore { id: StoreId((*id).to_string()), epoch: Epoch(*epoch) });
    CatchUpRequest { machine: THERE.to_string(), nonce: String::new(), known: known.collect() }
}

#[test]
fn nodes_that_a_newer_record_removed_are_stopped_and_no_others() {
    let replication = dkv_protocol::ranges::Replication {
        replicas: 1,
        ack: dkv_protocol::ranges::Ack::All,
        min_insync: 1,
        read: dkv_protocol::ranges::ReadMode::Lease,
        on_total_loss: dkv_protocol::ranges::OnTotalLoss::Offline,
    };
    let mut old = record("S", "a", 3, vec![node("node1", HERE), node("node2", HERE)]);
    old.definition.replication = Some(replication);
    let inner = having(&old, Wanted::Up);
    let stopped = |record: &StoreRecord| removed_from(&inner.ledger.stores["S"], record);
    let mut new = StoreRecord { epoch: Epoch(4), ..old.clone() };
    new.removed.push(RemovedNode { index: NodeIndex(1), node: new.nodes.remove(1) });
    assert_eq!(stopped(&new), ["node2"]);
    assert!(stopped(&StoreRecord { epoch: Epoch(3), ..new.clone() }).is_empty(), "no newer");
    assert!(stopped(&StoreRecord { id: StoreId("b".into()), ..new.clone() }).is_empty(), "another");
    let mut plain = new.clone();
    plain.definition.replication = None;
    assert!(stopped(&plain).is_empty(), "without copies nobody is removed");
    // Added once more by the same name.
    new.nodes.push(node("node2", HERE));
    assert!(stopped(&new).is_empty());
}

#[test]
fn a_machine_is_told_of_what_it_lacks_and_of_nothing_else() {
    let both = record("S", "a", 3, vec![node("node1", HERE), node("node2", THERE)]);
    let inner = having(&both, Wanted::Up);
    let told = |known: &[(&str, u64)]| missed_by(&inner, &asks(known)).stores;
    assert_eq!(told(&[]), [MissedStore { record: both.clone(), runs: true, users_version: 0 }]);
    assert_eq!(told(&[("a", 2)]).len(), 1);
    assert_eq!(told(&[("b", 9)]).len(), 1);
    // As new as ours, or newer.
    assert!(told(&[("a", 3)]).is_empty() && told(&[("a", 4)]).is_empty());
    let stopped = having(&both, Wanted::Down);
    assert!(!missed_by(&stopped, &asks(&[])).stores[0].runs);
    // Not of stores that do not cover it, nor of one that is on its way out.
    let alone = having(&record("S", "a", 3, vec![node("node1", HERE)]), Wanted::Up);
    assert!(missed_by(&alone, &asks(&[])).stores.is_empty());
    let mut leaving = having(&both, Wanted::Down);
    leaving.ledger.stores.get_mut("S").unwrap().deleting = true;
    assert!(missed_by(&leaving, &asks(&[])).stores.is_empty());
}

#[test]
fn a_machine_whose_last_node_was_removed_is_told_when_it_still_has_the_store() {
    let mut record = record("S", "a", 4, vec![node("node1", HERE)]);
    record.removed.push(RemovedNode { index: NodeIndex(1), node: node("node2", THERE) });
    let inner = having(&record, Wanted::Up);
    assert_eq!(missed_by(&inner, &asks(&[("a", 3)])).stores.len(), 1);
    assert!(missed_by(&inner, &asks(&[])).stores.is_empty());
}

#[test]
fn deletions_are_told_to_those_who_have_the_store() {
    let mut inner = having(&record("S", "a", 1, vec![node("node1", HERE)]), Wanted::Up);
    let gone = DeletedStore { id: StoreId("z".to_string()), force: true };
    inner.ledger.deleted.push(gone.clone());
    assert_eq!(missed_by(&inner, &asks(&[("z", 1)])).deleted, [gone]);
    assert!(missed_by(&inner, &asks(&[("a", 1)])).deleted.is_empty());
}

#[test]
fn a_name_that_stands_for_two_stores_is_found() {
    let missed = |name: &str, id: &str| CatchUp {
        stores: vec![MissedStore {
            record: record(name, id, 1, vec![]),
            runs: true,
            users_version: 0,
        }],
        deleted: vec![],
    };
    let all = [missed("S", "a"), missed("T", "b"), missed("S", "a")];
    assert!(named_twice(all.iter()).is_empty());
    let all = [missed("S", "a"), missed("T", "b"), missed("S", "c")];
    assert_eq!(named_twice(all.iter()), BTreeSet::from(["S".to_string()]));
}

#[test]
fn an_answer_proves_that_it_is_for_the_request_and_of_the_group() {
    use crate::auth::Token;
    let token = Token::new(&"5a".repeat(32)).unwrap();
    let proof = token.prove_answer("n", "text");
    assert!(token.is_proof("n", "text", &proof));
    let other = Token::new(&"6b".repeat(32)).unwrap();
    for (by, nonce, text) in [(&token, "m", "text"), (&token, "n", "test"), (&other, "n", "text")] {
        assert!(!by.is_proof(nonce, text, &proof));
    }
    assert!(!token.is_proof("n", "text", "") && !token.is_proof("n", "text", "é"));
}

#[test]
fn what_is_left_after_a_removal_has_a_node() {
    let id = "0123456789abcdef0123456789abcdef";
    let whole = record("Orders", id, 3, vec![node("node1", HERE), node("node2", THERE)]);
    let mut left = StoreRecord { hash_seed: id.to_string(), ..whole };
    let gone = left.nodes.pop().expect("it has two");
    left.removed.push(RemovedNode { index: NodeIndex(1), node: gone });
    crate::checks::check_record(&left).expect("one node is left");
    let last = left.nodes.pop().expect("it has one");
    left.removed.push(RemovedNode { index: NodeIndex(0), node: last });
    let refusal = crate::checks::check_record(&left).expect_err("nothing is left");
    assert_eq!(refusal.code, "bad_record");
    assert!(refusal.message.contains("Orders would have no node"), "{}", refusal.message);
}
