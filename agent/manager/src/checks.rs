//! What has to hold before a change of a store: each looks and changes nothing but what has run out.

use crate::catalogue::{Held, Inner};
use crate::ledger::StoreEntry;
use crate::plan::names;
use crate::refusal::Refusal;
use dkv_protocol::admin::{NodeState, ReservationRequest, StoreDefinition, StoreRecord};
use std::collections::BTreeSet;
use std::time::Instant;

/// Whether the change builds on what is there.
pub(crate) fn check_base(inner: &Inner, request: &ReservationRequest) -> Result<(), Refusal> {
    let name = &request.definition.name;
    let Some(entry) = inner.ledger.stores.get(name) else { return Ok(()) };
    let record = &entry.record;
    match request.base_epoch {
        None => Err(exists(record, &request.definition)),
        Some(epoch) if epoch != record.epoch || entry.deleting => Err(Refusal::conflict(
            "changed_meanwhile",
            format!("the store {name} was changed by somebody else meanwhile"),
            format!("look at it with: dkv store show {name}; then try again"),
        )),
        // Copies move to a new node while the store runs; without copies its ranges would have to be somewhere else at once.
        Some(_) if record.definition.replication.is_some() => Ok(()),
        Some(_) => check_at_rest(entry, "extended").map_err(|refusal| Refusal {
            message: format!(
                "{}: with one copy of each range, a range cannot move to another node while it is served",
                refusal.message
            ),
            hint: format!(
                "stop it, which gives up what it holds, add the node, and start it again: dkv store stop {name}; dkv store \
                 add-instance {name}; dkv store start {name}. A store that was created with --replicas 1 or more grows while it \
                 runs"
            ),
            ..refusal
        }),
    }
}

pub(crate) fn check_alone(inner: &Inner) -> Result<(), Refusal> {
    let members = &inner.ledger.members;
    if members.len() <= 1 {
        return Ok(());
    }
    Err(Refusal::conflict(
        "group_has_members",
        format!(
            "this group has {} machines ({}): a change is reserved on each and then committed on each",
            members.len(),
            members.join(", ")
        ),
        "use the command line: dkv store create … does it",
    ))
}

pub(crate) fn seconds_left(until: Instant) -> u64 {
    until.saturating_duration_since(Instant::now()).as_secs() + 1
}

pub(crate) fn drop_expired(inner: &mut Inner) {
    let now = Instant::now();
    inner.reservations.retain(|_, held| held.until > now);
}

/// A creation that is typed again takes over the reservation that an earlier one left; another one has to wait.
pub(crate) fn supersede(inner: &mut Inner, definition: &StoreDefinition) -> Result<(), Refusal> {
    let of_name = |held: &&Held| held.definition.name == definition.name;
    if let Some(other) =
        inner.reservations.values().filter(of_name).find(|held| held.definition != *definition)
    {
        return Err(Refusal::conflict(
            "store_reserved",
            format!("a store {} with another definition is being created", definition.name),
            format!("try again in {} s, or take another name", seconds_left(other.until)),
        ));
    }
    inner.reservations.retain(|_, held| held.definition.name != definition.name);
    Ok(())
}

pub(crate) fn exists(record: &StoreRecord, asked: &StoreDefinition) -> Refusal {
    let name = &record.definition.name;
    let differences = record.differences(asked);
    let difference = if differences.is_empty() {
        "it was created by another command".to_string()
    } else {
        differences.join("; ")
    };
    Refusal::conflict(
        "store_exists",
        format!("the store {name} exists: {difference}"),
        format!(
            "look at it with: dkv store show {name}; take another name, or delete it first: dkv store delete {name}"
        ),
    )
}

pub(crate) fn check_at_rest(entry: &StoreEntry, done: &str) -> Result<(), Refusal> {
    let rest = [NodeState::Requested, NodeState::Stopped, NodeState::Failed];
    let up: Vec<&str> = entry
        .nodes
        .iter()
        .filter(|(_, node)| !rest.contains(&node.state))
        .map(|(name, _)| name.as_str())
        .collect();
    if up.is_empty() {
        return Ok(());
    }
    let name = &entry.record.definition.name;
    Err(Refusal::conflict(
        "store_running",
        format!("the store {name} runs ({}), so it cannot be {done}", up.join(", ")),
        format!("stop it first: dkv store stop {name}"),
    ))
}

/// Why a machine stays in the group: it has nodes of this store.
pub(crate) fn has_nodes(record: &StoreRecord, machine: &str) -> Option<Refusal> {
    let node = &record.nodes.iter().find(|node| node.machine == machine)?.name;
    let store = &record.definition.name;
    let hint = if record.definition.replication.is_some() {
        format!(
            "remove them first: dkv store remove-instance {store} --instance {node}   (--gone when the machine does not \
             come back)"
        )
    } else {
        format!(
            "it has no copies, so what {node} holds is nowhere else: dkv store delete {store}   (--force when the \
             machine does not come back)"
        )
    };
    let message = format!("{machine} has nodes of the store {store}");
    Some(Refusal::conflict("has_nodes", message, hint))
}

/// Whether a record is one that a manager made: a client's mistake must not become a node that cannot start.
pub(crate) fn check_record(record: &StoreRecord) -> Result<(), Refusal> {
    names::check_definition(&record.definition)?;
    let bad =
        |what: String| Refusal::bad("bad_record", what, "create stores with: dkv store create");
    // With a machine that is gone for good there may be too few nodes for all copies, until one is added.
    if record.removed.is_empty() {
        names::check_copies(&record.definition, record.nodes.len())?;
    } else if record.nodes.is_empty() {
        return Err(bad(format!("the store {} would have no node", record.definition.name)));
    }
    let is_hex = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex(&record.id.0) || !is_hex(&record.hash_seed) {
        return Err(bad("identity and hash seed are 32 hexadecimal digits each".to_string()));
    }
    let mut indexes = BTreeSet::new();
    let total = record.nodes.len() + record.removed.len();
    for gone in &record.removed {
        if usize::from(gone.index.0) >= total || !indexes.insert(gone.index) {
            return Err(bad(format!(
                "the position of {}, which was removed, is not its",
                gone.node.name
            )));
        }
    }
    let mut all_names = BTreeSet::new();
    let mut all_ports = BTreeSet::new();
    for node in &record.nodes {
        names::check_node_name(&node.name)?;
        if !all_names.insert(&node.name) {
            return Err(bad(format!("the name {} stands twice", node.name)));
        }
        if node.cpus.is_empty() || node.cpus.len() != node.shard_ports.len() {
            return Err(bad(format!("{} needs a shard port for each of its CPUs", node.name)));
        }
        let ports = [node.cluster_port, node.client_port];
        for port in ports.into_iter().chain(node.shard_ports.iter().copied()) {
            if port == 0 || !all_ports.insert((&node.machine, port)) {
                return Err(bad(format!("port {port} of {} is 0 or stands twice", node.name)));
            }
        }
    }
    Ok(())
}
