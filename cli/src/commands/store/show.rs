//! `store list` and `store show`: what the managers say, in the columns that the original has.

use super::Shared;
use super::user::default_line;
use crate::amounts::bytes_text;
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::reach::hints;
use dkv_agent::coordinate::{self, Listing};
use dkv_protocol::admin::{CopiesView, NodeDuty, NodeState, NodeView, StoreView};
use dkv_protocol::io::short_name;
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::Replication;
use serde_json::{Value, json};

/// The head of the list form.
const LIST: [&str; 7] = [
    "Manager",
    "StoreName",
    "StoreStatus",
    "InstanceCount",
    "RunningInstances",
    "StoppedInstances",
    "ParticipatingNodes",
];

/// Runs `store list`.
pub(super) fn list(
    name: Option<&str>,
    detailed: bool,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let listing = ask(shared, spelling)?;
    if let Some(name) = name {
        find(&listing, name)?;
    }
    let stores = || {
        listing
            .stores
            .iter()
            .filter(|store| name.is_none_or(|name| store.record.definition.name == name))
    };
    match shared.output.output {
        Format::Json => {
            let mut objects = Vec::new();
            for (manager, view) in per_manager(&listing)
                .filter(|(_, v)| name.is_none_or(|n| v.record.definition.name == n))
            {
                let mut object: Value = LIST.iter().copied().zip(list_row(manager, view)).collect();
                if detailed {
                    object["Nodes"] = view.nodes.iter().map(node_object).collect();
                }
                objects.push(object);
            }
            output::json(&Value::Array(objects));
        }
        Format::Table if detailed => {
            for store in stores() {
                for (manager, view) in
                    per_manager(&listing).filter(|(_, view)| view.record.id == store.record.id)
                {
                    output::record(Format::Table, &LIST, &list_row(manager, view));
                    output::line("");
                }
                nodes_table(store);
            }
        }
        Format::Table => {
            let mut rows: Vec<Vec<Value>> = per_manager(&listing)
                .filter(|(_, view)| name.is_none_or(|name| view.record.definition.name == name))
                .map(|(manager, view)| table_row(manager, view))
                .collect();
            let failed = |row: dkv_agent::coordinate::ActionRow| {
                vec![json!(row.manager), json!("-"), json!("FAILED"), json!(row.message)]
            };
            rows.extend(listing.failures().into_iter().map(failed));
            output::rows(Format::Table, &["Manager", "Store", "Result", "Message"], &rows);
        }
    }
    Ok(listing.outcome().exit_code())
}

/// Runs `store show`.
pub(super) fn show(name: &str, shared: &Shared, spelling: Spelling) -> Result<u8, Failure> {
    let listing = ask(shared, spelling)?;
    let store = find(&listing, name)?;
    let definition = &store.record.definition;
    let default_user = default_line(&shared.group(spelling)?.group, name)?;
    let needs_password = match &default_user {
        Some(line) => !dkv_node::user_needs_no_password(line),
        None => definition.password_sha256.is_some(),
    };
    match shared.output.output {
        Format::Json => output::json(&json!({
            "name": definition.name,
            "status": store.status,
            "id": store.record.id,
            "epoch": store.record.epoch,
            "instance_prefix": definition.instance_prefix,
            "instance_count": definition.instance_count,
            "cpus": definition.cpus,
            "memory_bytes_max": definition.memory_bytes_max,
            "eviction": definition.eviction,
            "io": definition.io,
            "replication": definition.replication.unwrap_or(Replication::NONE),
            "password": needs_password,
            "protected_mode": definition.protected_mode,
            "nodes": store.nodes.iter().map(node_object).collect::<Vec<_>>(),
            "copies": store.copies,
            "differences": listing.differences,
        })),
        Format::Table => {
            let memory = match definition.memory_bytes_max {
                0 => "no limit".to_owned(),
                bytes => format!("{}, {}", bytes_text(bytes), definition.eviction),
            };
            let access = match (needs_password, definition.protected_mode) {
                (true, _) if default_user.is_some() => "as a user; see `dkv store user list`",
                (true, _) => "password",
                (false, true) => "no password; protected mode: clients of other hosts are refused",
                (false, false) => "no password; open to every host",
            };
            let head = [
                "Store",
                "Status",
                "Instances per machine",
                "Memory of a node",
                "Copies",
                "Access",
                "Id",
            ];
            let row = [
                json!(definition.name),
                json!(store.status),
                json!(definition.instance_count),
                json!(memory),
                json!(copies_text(definition.replication)),
                json!(access),
                json!(store.record.id),
            ];
            output::record(Format::Table, &head, &row);
            if let Some(copies) = &store.copies {
                output::record(Format::Table, &["Ranges"], &[json!(ranges_text(copies))]);
            }
            output::line("");
            nodes_table(store);
        }
    }
    Ok(listing.outcome().exit_code())
}

/// What a store promises about its copies, in a line.
fn copies_text(replication: Option<Replication>) -> String {
    let Some(replication) = replication.filter(|replication| replication.replicas > 0) else {
        return "one of each range; what it holds is lost with its node".to_owned();
    };
    let Replication { replicas, ack, min_insync, read, on_total_loss } = replication;
    format!(
        "primary and {replicas}; ack {ack}, min-insync {min_insync}, read {read}, on-total-loss {on_total_loss}"
    )
}

/// How the ranges of a store with copies stand, in a line.
fn ranges_text(copies: &CopiesView) -> String {
    let served = RANGES as u32 - copies.unformed_ranges - copies.offline_ranges;
    let mut text = format!("{served} of {RANGES} served");
    for (count, what) in [
        (
            copies.offline_ranges,
            "offline: their last copy is gone (dkv store accept-loss gives them up)",
        ),
        (copies.degraded_ranges, "degraded: with fewer copies in sync than there should be"),
        (copies.moving_ranges, "moving"),
    ] {
        if count > 0 {
            text.extend([", ", &count.to_string(), " ", what]);
        }
    }
    text
}

/// Asks all managers, and says who did not answer and what differs.
pub(super) fn ask(shared: &Shared, spelling: Spelling) -> Result<Listing, Failure> {
    let reached = shared.group(spelling)?;
    let listing = coordinate::list(&reached.group);
    if listing.managers.iter().all(|(_, answer)| answer.is_err()) {
        let first = listing.managers.iter().find_map(|(_, answer)| answer.as_ref().err());
        return Err(first.map_or_else(
            || Failure::not_connected("no manager is named", ""),
            crate::reach::admin_failure,
        ));
    }
    hints(&listing.failures());
    for difference in &listing.differences {
        output::warn(difference);
    }
    Ok(listing)
}

/// The store of that name.
pub(crate) fn find<'a>(listing: &'a Listing, name: &str) -> Result<&'a StoreView, Failure> {
    listing.store(name).ok_or_else(|| {
        let names: Vec<&str> =
            listing.stores.iter().map(|store| store.record.definition.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => "there is none yet".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        Failure {
            code: "no_such_store".into(),
            ..Failure::failed(format!("there is no store {name:?}; {known}"), "dkv store list")
        }
    })
}

/// Each store at each manager that holds it, with the states that the whole group knows.
fn per_manager(listing: &Listing) -> impl Iterator<Item = (&str, &StoreView)> {
    let of_manager = |(manager, answer): &'_ (String, Result<Vec<StoreView>, _>)| {
        let names: Vec<String> =
            answer.iter().flatten().map(|view| view.record.definition.name.clone()).collect();
        (manager.clone(), names)
    };
    let held: Vec<(String, Vec<String>)> = listing.managers.iter().map(of_manager).collect();
    listing.managers.iter().zip(held).flat_map(|((manager, _), (_, names))| {
        let views = names.into_iter().filter_map(|name| listing.store(&name));
        views.map(move |view| (manager.as_str(), view)).collect::<Vec<_>>()
    })
}

fn counts(store: &StoreView) -> (usize, usize, usize) {
    let running = store.nodes.iter().filter(|node| node.state == Some(NodeState::Running)).count();
    let rest = [NodeState::Requested, NodeState::Stopped, NodeState::Failed];
    let stopped = store
        .nodes
        .iter()
        .filter(|node| node.state.is_some_and(|state| rest.contains(&state)))
        .count();
    (store.nodes.len(), running, stopped)
}

fn list_row(manager: &str, store: &StoreView) -> Vec<Value> {
    let (instances, running, stopped) = counts(store);
    let nodes: Vec<&str> = store.nodes.iter().map(|node| node.record.name.as_str()).collect();
    vec![
        json!(manager),
        json!(store.record.definition.name),
        json!(store.status),
        json!(instances),
        json!(running),
        json!(stopped),
        json!(nodes),
    ]
}

fn table_row(manager: &str, store: &StoreView) -> Vec<Value> {
    let (instances, running, stopped) = counts(store);
    let status = output::cell_text(&json!(store.status));
    let mut message =
        format!("{status} | Instances:{instances} Running:{running} Stopped:{stopped}");
    if let Some(copies) = &store.copies {
        for (count, what) in
            [(copies.offline_ranges, "Offline"), (copies.degraded_ranges, "Degraded")]
        {
            if count > 0 {
                message.extend([" ", what, ":", &count.to_string()]);
            }
        }
    }
    vec![json!(manager), json!(store.record.definition.name), json!("OK"), json!(message)]
}

/// Columns of stores with copies alone.
const COPIES: [&str; 3] = ["Leads", "InSync", "Duty"];

fn nodes_table(store: &StoreView) {
    let head = [
        "Node",
        "Machine",
        "State",
        "ClusterPort",
        "ClientPort",
        "ShardPorts",
        "Cpus",
        "Pid",
        "Restarts",
        "Cluster",
        "Io",
        "Leads",
        "InSync",
        "Duty",
        "Message",
    ];
    // Where there are copies, what each node has of them.
    let shown = |column: &&str| store.copies.is_some() || !COPIES.contains(column);
    let rows: Vec<Vec<Value>> = store
        .nodes
        .iter()
        .map(|node| {
            let running = node.state == Some(NodeState::Running);
            let cluster = match (running, node.cluster_ok) {
                (true, true) => "ok",
                (true, false) => "not whole",
                (false, _) => "-",
            };
            let state = node.state.map_or_else(|| json!("unknown"), |state| json!(state));
            let copies = store.copies.as_ref();
            let part = copies.and_then(|c| c.nodes.iter().find(|n| n.name == node.record.name));
            let row = [
                json!(node.record.name),
                json!(node.record.machine),
                state,
                json!(node.record.cluster_port),
                json!(node.record.client_port),
                json!(node.record.shard_ports),
                json!(node.record.cpus),
                json!(node.pid),
                json!(node.restarts),
                json!(cluster),
                json!(node.io.as_deref().and_then(short_name)),
                json!(part.map(|part| part.leads)),
                json!(part.map(|part| part.in_sync)),
                json!(part.map(|part| duty_word(part.duty))),
                json!(node.message),
            ];
            head.iter().zip(row).filter(|(column, _)| shown(column)).map(|(_, v)| v).collect()
        })
        .collect();
    let head: Vec<&str> = head.into_iter().filter(shown).collect();
    output::rows(Format::Table, &head, &rows);
}

fn duty_word(duty: NodeDuty) -> &'static str {
    match duty {
        NodeDuty::Full => "full",
        NodeDuty::Follows => "follows only",
        NodeDuty::Leaves => "leaves",
    }
}

fn node_object(node: &NodeView) -> Value {
    serde_json::to_value(node).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::admin::{NodeRecord, StoreDefinition, StoreRecord, StoreStatus};
    use dkv_protocol::eviction::Eviction;
    use dkv_protocol::ids::{Epoch, StoreId};
    use dkv_protocol::io::IoChoice;

    fn store(states: &[Option<NodeState>]) -> StoreView {
        let definition = StoreDefinition {
            name: "OrdersStore".into(),
            instance_prefix: "orders-".into(),
            instance_count: 3,
            clustron_port: None,
            client_port: None,
            cpus: None,
            memory_bytes_max: 0,
            eviction: Eviction::None,
            io: IoChoice::Auto,
            replication: None,
            password_sha256: None,
            protected_mode: true,
        };
        let node = |(at, state): (usize, &Option<NodeState>)| NodeView {
            record: NodeRecord {
                name: format!("orders-{}", at + 1),
                machine: "10.0.0.11:7801".into(),
                cluster_port: 7811 + at as u16,
                client_port: 7861 + at as u16,
                shard_ports: vec![7900 + at as u16],
                cpus: vec![at as u32],
                cpus_exclusive: true,
            },
            state: *state,
            pid: None,
            restarts: 0,
            message: None,
            cluster_ok: true,
            io: None,
        };
        let nodes: Vec<NodeView> = states.iter().enumerate().map(node).collect();
        let records = nodes.iter().map(|node| node.record.clone()).collect();
        let id = StoreId("a".repeat(32));
        let record = StoreRecord {
            definition,
            id,
            hash_seed: String::new(),
            epoch: Epoch(1),
            nodes: records,
            removed: vec![],
        };
        StoreView { record, status: StoreStatus::of(states), nodes, copies: None }
    }

    #[test]
    fn a_listed_store_has_the_columns_of_the_original() {
        let running = store(&[Some(NodeState::Running); 3]);
        let row = table_row("10.0.0.11:7801", &running);
        let expected =
            ["10.0.0.11:7801", "OrdersStore", "OK", "Running | Instances:3 Running:3 Stopped:0"];
        assert_eq!(row, expected.map(|text| json!(text)));
        let partial = store(&[Some(NodeState::Running), Some(NodeState::Stopped), None]);
        let row: Vec<String> = list_row("m", &partial).iter().map(output::cell_text).collect();
        assert_eq!(
            row,
            ["m", "OrdersStore", "Partial", "3", "1", "1", "orders-1,orders-2,orders-3"]
        );
    }

    #[test]
    fn a_store_is_listed_once_for_each_manager_that_holds_it() {
        let view = store(&[Some(NodeState::Running)]);
        let listing = Listing {
            managers: vec![
                ("a".into(), Ok(vec![view.clone()])),
                ("b".into(), Ok(vec![])),
                ("c".into(), Ok(vec![view.clone()])),
            ],
            stores: vec![view],
            differences: vec![],
        };
        let managers: Vec<&str> = per_manager(&listing).map(|(manager, _)| manager).collect();
        assert_eq!(managers, ["a", "c"]);
        assert!(find(&listing, "Nowhere").unwrap_err().what.contains("there are: OrdersStore"));
    }
}
