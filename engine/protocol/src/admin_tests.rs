//! Tests of the admin documents: the JSON they are, what is refused, and what is made of them.

use super::*;
use crate::ranges::{Ack, ReadMode};
use alloc::vec;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn definition() -> Value {
    json!({
        "name": "Orders",
        "instance_prefix": "node",
        "instance_count": 2,
        "clustron_port": 7811,
        "client_port": 7861,
        "memory_bytes_max": 0,
        "protected_mode": true,
    })
}

fn node() -> Value {
    json!({
        "name": "node1",
        "machine": "10.0.0.1:7801",
        "cluster_port": 7811,
        "client_port": 7861,
        "shard_ports": [7900],
        "cpus": [0],
        "cpus_exclusive": false,
    })
}

fn record() -> Value {
    json!({
        "definition": definition(),
        "id": "0123456789abcdef0123456789abcdef",
        "hash_seed": "00112233445566778899aabbccddeeff",
        "epoch": 2,
        "nodes": [node()],
    })
}

fn view() -> Value {
    let mut view = node();
    view["state"] = json!("Running");
    view["pid"] = json!(7);
    view["restarts"] = json!(0);
    view["message"] = json!(null);
    view["cluster_ok"] = json!(true);
    view
}

fn reservation() -> Value {
    json!({ "definition": definition(), "machines": ["10.0.0.1:7801"], "first_ordinal": 1, "count": 2 })
}

fn round_trips<T: DeserializeOwned + Serialize>(json: &Value) {
    let read: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), *json);
}

fn refuses_unknown_fields<T: DeserializeOwned>(json: &Value) {
    assert!(serde_json::from_value::<T>(json.clone()).is_ok());
    let mut newer = json.clone();
    newer["replicas"] = json!(1);
    assert!(serde_json::from_value::<T>(newer).is_err());
}

fn parsed() -> StoreDefinition {
    serde_json::from_value(definition()).unwrap()
}

#[test]
fn documents_are_this_json() {
    round_trips::<StoreDefinition>(&definition());
    round_trips::<NodeRecord>(&node());
    round_trips::<StoreRecord>(&record());
    round_trips::<NodeView>(&view());
    let store = json!({ "record": record(), "status": "Partial", "nodes": [view()] });
    round_trips::<StoreView>(&store);
    round_trips::<StoresView>(&json!({ "stores": [store] }));
    round_trips::<ErrorDocument>(&json!({ "error": { "code": "c", "message": "m", "hint": "h" } }));
    round_trips::<ReservationRequest>(&reservation());
    round_trips::<CommitRequest>(&json!({ "record": record(), "reservation": "r1" }));
    round_trips::<AddInstanceRequest>(&json!({}));
    round_trips::<JoinRequest>(&json!({ "managers": ["10.0.0.1:7801"] }));
}

#[test]
fn what_a_client_sends_may_hold_nothing_unknown() {
    refuses_unknown_fields::<StoreDefinition>(&definition());
    refuses_unknown_fields::<NodeRecord>(&node());
    refuses_unknown_fields::<StoreRecord>(&record());
    refuses_unknown_fields::<ReservationRequest>(&reservation());
    refuses_unknown_fields::<CommitRequest>(&json!({ "record": record() }));
    refuses_unknown_fields::<AddInstanceRequest>(&json!({}));
    refuses_unknown_fields::<JoinRequest>(&json!({ "managers": [] }));
    let mut nested = record();
    nested["definition"]["replicas"] = json!(1);
    assert!(serde_json::from_value::<StoreRecord>(nested).is_err());
}

#[test]
fn what_is_left_out_of_a_definition_is_the_safe_choice() {
    let least = json!({ "name": "S", "instance_prefix": "node", "instance_count": 1 });
    let read: StoreDefinition = serde_json::from_value(least).unwrap();
    assert!(read.protected_mode);
    assert_eq!(read.eviction, Eviction::None);
    assert_eq!(read.replication, None);
    let written = serde_json::to_string(&read).unwrap();
    assert!(!written.contains("eviction") && !written.contains("replication"));
    assert_eq!((read.clustron_port, read.cpus, read.memory_bytes_max), (None, None, 0));
    for field in ["name", "instance_prefix", "instance_count"] {
        let mut partial = definition();
        partial.as_object_mut().unwrap().remove(field);
        assert!(serde_json::from_value::<StoreDefinition>(partial).is_err(), "{field}");
    }
    for (field, value) in [("client_port", json!(65536)), ("instance_count", json!(-1))] {
        let mut wrong = definition();
        wrong[field] = value;
        assert!(serde_json::from_value::<StoreDefinition>(wrong).is_err(), "{field}");
    }
}

type Change = fn(&mut StoreDefinition);

#[test]
fn each_difference_of_two_definitions_is_named() {
    assert_eq!(parsed().differences(&parsed()), Vec::<String>::new());
    let changes: [(Change, &str); 10] = [
        (|d| d.name = "Other".into(), "name is Orders, asked for Other"),
        (|d| d.instance_prefix = "n".into(), "instance prefix is node, asked for n"),
        (|d| d.instance_count = 3, "instance count is 2, asked for 3"),
        (|d| d.clustron_port = Some(7820), "cluster port is 7811, asked for 7820"),
        (|d| d.client_port = Some(7870), "client port is 7861, asked for 7870"),
        (|d| d.cpus = Some(2), "CPUs of a node is shared out, asked for 2"),
        (|d| d.memory_bytes_max = 5, "memory of a node is without limit, asked for 5 bytes"),
        (|d| d.eviction = Eviction::AllKeysLru, "eviction is noeviction, asked for allkeys-lru"),
        (
            |d| d.replication = Some(Replication { replicas: 2, ..Replication::NONE }),
            "replicas is 0, asked for 2",
        ),
        (|d| d.protected_mode = false, "protected mode is on, asked for off"),
    ];
    for (change, expected) in changes {
        let mut asked = parsed();
        change(&mut asked);
        assert_eq!(parsed().differences(&asked), [expected]);
    }
    let with = |replication| StoreDefinition { replication: Some(replication), ..parsed() };
    let one = Replication { replicas: 1, ..Replication::NONE };
    let other = Replication { ack: Ack::Async, min_insync: 2, read: ReadMode::Confirm, ..one };
    assert_eq!(
        with(one).differences(&with(other)),
        [
            "ack is all, asked for async",
            "min-insync is 1, asked for 2",
            "read is lease, asked for confirm"
        ]
    );
    let mut unnamed = parsed();
    (unnamed.clustron_port, unnamed.client_port) = (None, None);
    assert!(parsed().differences(&unnamed).is_empty(), "who names no port takes any");
}

#[test]
fn passwords_are_compared_and_not_shown() {
    let with = |hash: &str| StoreDefinition { password_sha256: Some(hash.into()), ..parsed() };
    assert!(with("aa").differences(&with("aa")).is_empty());
    assert_eq!(with("aa").differences(&with("bb")), ["password is another one"]);
    assert_eq!(parsed().differences(&with("bb")), ["password is not set, asked for set"]);
}

#[test]
fn the_ports_of_a_record_are_those_that_were_given() {
    let mut record: StoreRecord = serde_json::from_value(record()).unwrap();
    record.definition.clustron_port = None;
    record.definition.client_port = None;
    assert!(record.differences(&parsed()).is_empty());
}

#[test]
fn the_state_of_a_store_follows_from_its_nodes() {
    use NodeState::{Failed, Requested, Restarting, Running, Spawning, Stopped, Stopping};
    for (states, expected) in [
        (vec![], StoreStatus::NoInstances),
        (vec![Requested, Requested], StoreStatus::Created),
        (vec![Running, Running], StoreStatus::Running),
        (vec![Running, Spawning], StoreStatus::Starting),
        (vec![Spawning, Restarting], StoreStatus::Starting),
        (vec![Running, Failed], StoreStatus::Partial),
        (vec![Running, Stopped], StoreStatus::Partial),
        (vec![Stopping, Stopped], StoreStatus::Partial),
        (vec![Stopped, Failed], StoreStatus::Stopped),
        (vec![Requested, Stopped], StoreStatus::Stopped),
    ] {
        let given: Vec<_> = states.iter().copied().map(Some).collect();
        assert_eq!(StoreStatus::of(&given), expected, "{states:?}");
    }
}
