//! What the API does to stores: reserve, commit, create, extend, delete, join. Every step checks first and changes last,
//! and each may be repeated.

use crate::auth::random_hex;
use crate::catalogue::{Agent, Held, Inner};
use crate::checks::{
    check_alone, check_at_rest, check_base, check_record, drop_expired, exists, seconds_left,
    supersede,
};
use crate::foreign;
use crate::ledger::{NodeEntry, StoreEntry};
use crate::plan::cpus::{self, CpuWish};
use crate::plan::names;
use crate::plan::ports::{self, PortWish};
use crate::plan::steps::Wanted;
use crate::process;
use crate::refusal::Refusal;
use crate::supervise::{Command, NodePaths};
use dkv_protocol::admin::{
    AddInstanceRequest, CommitRequest, DeletedStore, NodeRecord, NodeState, Reservation,
    ReservationRequest, StoreChange, StoreChanged, StoreDefinition, StoreRecord,
};
use dkv_protocol::ids::{Epoch, StoreId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Most stores of a machine; each has a port and a process at least.
const STORES_MAX: usize = 1000;
/// Most reservations under way.
const RESERVATIONS_MAX: usize = 100;
/// Deletions that are remembered, for managers that were away.
const DELETED_MAX: usize = 1000;

/// Where a record comes from that is to be written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A command, which has reserved the new nodes here, or completes what an earlier one began.
    Command(Option<String>),
    /// The other managers: they have it already, with the ports and CPUs that this machine once gave. The new nodes shall
    /// run when those of the others do.
    Others { runs: bool },
}

/// What a node leaves behind. What of it cannot be removed disturbs nobody: identities are never used again.
fn remove_files(paths: NodePaths) {
    let mut older = paths.log.clone().into_os_string();
    older.push(".1");
    for path in [paths.socket, paths.lock, paths.log, older.into()] {
        let _ = std::fs::remove_file(path);
    }
}

impl Agent {
    /// Holds names, ports and CPUs for a while.
    pub(crate) fn reserve(&self, request: &ReservationRequest) -> Result<Reservation, Refusal> {
        let mut inner = self.lock();
        self.reserve_locked(&mut inner, request)
    }

    fn reserve_locked(
        &self,
        inner: &mut Inner,
        request: &ReservationRequest,
    ) -> Result<Reservation, Refusal> {
        let definition = &request.definition;
        names::check_definition(definition)?;
        names::check_machines(&request.machines, self.options().loopback_group)?;
        if !request.machines.iter().any(|machine| machine == self.machine()) {
            return Err(Refusal::bad(
                "another_machine",
                format!("{} is not among the machines of the change", self.machine()),
                "name the manager as it names itself: dkv connect shows it",
            ));
        }
        if definition.replication.is_some() {
            let members = self.ranges().group().members;
            let of_group = |machine: &&String| members.iter().any(|m| m.machine == **machine);
            if let Some(apart) = request.machines.iter().find(|machine| !of_group(machine)) {
                return Err(Refusal::conflict(
                    "not_one_group",
                    format!(
                        "the managers of {} and {apart} do not decide together (yet), which a store with copies needs",
                        self.machine()
                    ),
                    "see why with: dkv manager status; a manager that was just connected needs a moment",
                ));
            }
        }
        if request.count > 0 && self.options().witness {
            return Err(Refusal::conflict(
                "witness",
                format!(
                    "{} is a witness: it helps the others to decide and runs no nodes",
                    self.machine()
                ),
                "name another machine, or start its manager without --witness",
            ));
        }
        if request.count > dkv_protocol::limits::NODES_PER_MACHINE_MAX {
            return Err(Refusal::bad(
                "bad_count",
                "too many new nodes",
                "39 nodes fit on a machine",
            ));
        }
        drop_expired(inner);
        check_base(inner, request)?;
        supersede(inner, definition)?;
        if inner.reservations.len() >= RESERVATIONS_MAX || inner.ledger.stores.len() >= STORES_MAX {
            return Err(Refusal::of(
                429,
                "too_many",
                format!("{STORES_MAX} stores and {RESERVATIONS_MAX} reservations are the most"),
                "delete what is not needed, or wait a minute",
            ));
        }
        let (nodes, warnings) = self.new_nodes(inner, request)?;
        let pace = self.options().pace;
        let reservation = Reservation {
            id: random_hex(8),
            machine: self.machine().to_string(),
            nodes,
            warnings,
            expires_in_s: pace.reservation.as_secs() as u32,
        };
        let held = Held {
            definition: definition.clone(),
            reservation: reservation.clone(),
            until: Instant::now() + pace.reservation,
        };
        inner.reservations.insert(reservation.id.clone(), held);
        Ok(reservation)
    }

    fn new_nodes(
        &self,
        inner: &Inner,
        request: &ReservationRequest,
    ) -> Result<(Vec<NodeRecord>, Vec<String>), Refusal> {
        let count = request.count;
        if count == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let definition = &request.definition;
        let node_name = |i: u32| match &request.node_name {
            Some(name) if count == 1 => name.clone(),
            _ => names::node_name(&definition.instance_prefix, request.first_ordinal + i),
        };
        let new_names: Vec<String> = (0..count).map(node_name).collect();
        let known = inner.ledger.stores.get(&definition.name);
        for name in &new_names {
            names::check_node_name(name)?;
            if known.is_some_and(|entry| entry.record.nodes.iter().any(|n| n.name == *name)) {
                return Err(Refusal::conflict(
                    "node_exists",
                    format!("the store {} has a node {name} already", definition.name),
                    "give another name, or none",
                ));
            }
            // node-1 is the other spelling of node1: two nodes cannot have one name.
            let prefix = &definition.instance_prefix;
            let same = |other: &str| {
                names::is_node(prefix, other, name) || names::is_node(prefix, name, other)
            };
            let nodes = known.iter().flat_map(|entry| &entry.record.nodes);
            if let Some(other) = nodes.map(|node| &node.name).find(|other| same(other)) {
                return Err(Refusal::conflict(
                    "node_exists",
                    format!("{name} is another spelling of {other}, a node of {}", definition.name),
                    "give another name, or none",
                ));
            }
        }
        let others = self.others(inner);
        let wish = CpuWish {
            available: process::available_cpus(),
            used: others.iter().flat_map(|node| &node.cpus).fold(
                BTreeMap::new(),
                |mut used, cpu| {
                    *used.entry(*cpu).or_default() += 1;
                    used
                },
            ),
            nodes_before: others.len() as u32,
            count,
            cpus: definition.cpus,
        };
        let plan = cpus::assign(&wish)?;
        let cpus = plan.sets.iter().map(|(set, _)| set.len()).max().unwrap_or(0);
        names::check_memory(definition, cpus as u32)?;
        // A store's named ports are those of its first nodes on a machine; a further node gets what is free.
        let first = known.is_none_or(|entry| entry.nodes.is_empty());
        let base = |asked: Option<u16>, defined: Option<u16>| asked.or(defined.filter(|_| first));
        let wish = PortWish {
            count,
            shards: plan.sets.iter().map(|(set, _)| set.len() as u32).collect(),
            cluster: base(request.cluster_port, definition.clustron_port),
            client: base(request.client_port, definition.client_port),
        };
        let given = self.given_ports(inner);
        let bind = self.bind_addresses();
        let mut try_out = |port: u16| foreign::holder(&bind, port);
        let mut held = ports::Held { given: &given, foreign: &mut try_out };
        let (all, warnings) = ports::assign(&wish, &mut held)?;
        let nodes = new_names.into_iter().zip(all).zip(plan.sets).map(
            |((name, ports), (cpus, cpus_exclusive))| NodeRecord {
                name,
                machine: self.machine().to_string(),
                cluster_port: ports.cluster,
                client_port: ports.client,
                shard_ports: ports.shards,
                cpus,
                cpus_exclusive,
            },
        );
        let prefixed = |text: String| format!("{}: {text}", self.machine());
        let warnings = plan.warnings.into_iter().chain(warnings).map(prefixed).collect();
        Ok((nodes.collect(), warnings))
    }

    /// All nodes of this machine, those of reservations included.
    fn others(&self, inner: &Inner) -> Vec<NodeRecord> {
        let own = inner.ledger.stores.values().flat_map(|entry| &entry.record.nodes);
        let own = own.filter(|node| node.machine == self.machine());
        let held = inner.reservations.values().flat_map(|held| &held.reservation.nodes);
        own.chain(held).cloned().collect()
    }

    /// Who holds which port of this machine, in words.
    fn given_ports(&self, inner: &Inner) -> BTreeMap<u16, String> {
        let mut given = BTreeMap::new();
        let machine = self.machine();
        given.insert(self.address().port(), format!("the manager of this machine, {machine}"));
        let mut add = |node: &NodeRecord, store: &str, what: &str| {
            let ports = [(node.cluster_port, "cluster port"), (node.client_port, "client port")];
            let shards = node.shard_ports.iter().map(|port| (*port, "shard port"));
            for (port, kind) in ports.into_iter().chain(shards) {
                let holder = format!(
                    "node {} of the store {store} on {machine} (its {kind}{what})",
                    node.name
                );
                given.insert(port, holder);
            }
        };
        for held in inner.reservations.values() {
            for node in &held.reservation.nodes {
                add(node, &held.definition.name, ", reserved for a creation under way");
            }
        }
        for (store, entry) in &inner.ledger.stores {
            for node in entry.record.nodes.iter().filter(|node| node.machine == machine) {
                add(node, store, "");
            }
        }
        given
    }

    /// Gives a reservation back. One that is not there (any more) is fine.
    pub(crate) fn release(&self, store: &str, id: &str) {
        let mut inner = self.lock();
        if inner.reservations.get(id).is_some_and(|held| held.definition.name == store) {
            inner.reservations.remove(id);
        }
    }

    /// Writes a record into the catalogue.
    pub(crate) fn commit(
        self: &Arc<Self>,
        request: &CommitRequest,
    ) -> Result<StoreChanged, Refusal> {
        let mut inner = self.lock();
        self.commit_locked(&mut inner, request)
    }

    fn commit_locked(
        self: &Arc<Self>,
        inner: &mut Inner,
        request: &CommitRequest,
    ) -> Result<StoreChanged, Refusal> {
        let source = Source::Command(request.reservation.clone());
        self.write_record(inner, &request.record, &source)
    }

    /// See [`Agent::commit`].
    pub(crate) fn write_record(
        self: &Arc<Self>,
        inner: &mut Inner,
        record: &StoreRecord,
        source: &Source,
    ) -> Result<StoreChanged, Refusal> {
        let name = record.definition.name.clone();
        check_record(record)?;
        let mut machines: Vec<String> = Vec::new();
        for node in &record.nodes {
            if !machines.contains(&node.machine) {
                machines.push(node.machine.clone());
            }
        }
        names::check_machines(&machines, self.options().loopback_group)?;
        let removed_here = record.removed.iter().any(|gone| gone.node.machine == self.machine());
        if !removed_here && !machines.iter().any(|machine| machine == self.machine()) {
            return Err(Refusal::bad(
                "another_machine",
                format!("the record of {name} has no node on {}", self.machine()),
                "send it to the machines that it covers",
            ));
        }
        drop_expired(inner);
        let changed =
            |change| StoreChanged { change, record: record.clone(), warnings: Vec::new() };
        let mut before: Vec<NodeRecord> = Vec::new();
        if let Some(entry) = inner.ledger.stores.get(&name) {
            let have = &entry.record;
            if have == record && !entry.deleting {
                if let Source::Command(Some(id)) = source {
                    inner.reservations.remove(id);
                }
                return Ok(changed(StoreChange::AlreadyExists));
            }
            if have.id != record.id {
                return Err(exists(have, &record.definition));
            }
            let removed = |index, node: &NodeRecord| {
                record.removed.iter().any(|gone| gone.index == index && gone.node == *node)
            };
            let kept = have.removed.iter().all(|gone| record.removed.contains(gone))
                && have.indexed().all(|(index, node)| {
                    let same = record.indexed().any(|(i, other)| i == index && other == node);
                    same || removed(index, node)
                });
            if have.epoch >= record.epoch || entry.deleting || !kept {
                return Err(Refusal::conflict(
                    "changed_meanwhile",
                    format!("the store {name} was changed by somebody else meanwhile"),
                    format!("look at it with: dkv store show {name}; then try again"),
                ));
            }
            if record.definition.replication.is_none() {
                check_at_rest(entry, "extended")?;
            }
            let rest = [NodeState::Requested, NodeState::Stopped, NodeState::Failed];
            let leaving = |name: &String| record.nodes.iter().all(|node| node.name != *name);
            let mut running = entry.nodes.iter().filter(|(_, node)| !rest.contains(&node.state));
            if let Some((node, _)) = running.find(|(name, _)| leaving(name)) {
                return Err(Refusal::conflict(
                    "node_running",
                    format!("{node} runs, so it cannot be removed"),
                    format!("dkv store remove-instance {name} --instance {node} sees to that"),
                ));
            }
            before.clone_from(&have.nodes);
        }
        let new: Vec<&NodeRecord> = record
            .nodes
            .iter()
            .filter(|node| node.machine == self.machine() && !before.contains(node))
            .collect();
        self.check_group(inner, record, source)?;
        self.check_new(inner, record, source, &new)?;
        let extended = inner.ledger.stores.contains_key(&name);
        let gone = record.removed.iter().map(|gone| &gone.node.name);
        let stays = |name: &&String| record.nodes.iter().any(|node| node.name == **name);
        let leaving: Vec<String> = gone.filter(|name| !stays(name)).cloned().collect();
        let left_over: Vec<NodePaths> = {
            let entry = inner.ledger.stores.get(&name);
            let own = |entry: &StoreEntry, node: &String| {
                entry.nodes.contains_key(node).then(|| self.paths(&entry.record, node)).flatten()
            };
            entry.map_or_else(Vec::new, |e| leaving.iter().filter_map(|n| own(e, n)).collect())
        };
        self.change(inner, |ledger| {
            let entry = ledger.stores.entry(name.clone()).or_insert_with(|| StoreEntry {
                record: record.clone(),
                deleting: false,
                nodes: BTreeMap::new(),
            });
            entry.record = record.clone();
            entry.nodes.retain(|node, _| !leaving.contains(node));
            let wanted = match source {
                Source::Others { runs: true } => Wanted::Up,
                _ => Wanted::Down,
            };
            for node in &new {
                let entered = NodeEntry { wanted, ..NodeEntry::new() };
                entry.nodes.insert(node.name.clone(), entered);
            }
            ledger.deleted.retain(|deleted| deleted.id != record.id);
            for machine in machines {
                if !ledger.members.contains(&machine) {
                    ledger.members.push(machine);
                }
            }
            Ok(())
        })?;
        inner.reservations.retain(|_, held| held.definition.name != name);
        self.keep_ranges(record);
        Self::forget_nodes(inner, &name, &leaving);
        left_over.into_iter().for_each(remove_files);
        self.supervise_all(inner);
        tracing::info!(store = %name, epoch = record.epoch.0, nodes = record.nodes.len(), "committed");
        Ok(changed(if extended { StoreChange::Extended } else { StoreChange::Created }))
    }

    /// Whether a store with copies that others have already may begin here: only when this manager decides with them. To
    /// another group it would be a new store, which its nodes here would serve empty.
    fn check_group(
        &self,
        inner: &Inner,
        record: &StoreRecord,
        source: &Source,
    ) -> Result<(), Refusal> {
        let known = inner.ledger.stores.contains_key(&record.definition.name)
            || self.ranges().look(&record.id, |_| ()).is_some();
        let reserved = matches!(source, Source::Command(Some(_)));
        if record.definition.replication.is_none() || known || reserved {
            return Ok(());
        }
        let members = self.ranges().group().members;
        let apart =
            |node: &&NodeRecord| members.iter().all(|member| member.machine != node.machine);
        match record.nodes.iter().find(apart) {
            None => Ok(()),
            Some(node) => Err(Refusal::conflict(
                "not_one_group",
                format!(
                    "the managers of {} and {} do not decide together (yet), which a store with copies needs",
                    self.machine(),
                    node.machine
                ),
                "see why with: dkv manager status; a manager that lost its disk needs a moment, and gets its stores by itself",
            )),
        }
    }

    /// Whether the new nodes of this machine are those of the reservation, or could be reserved now.
    fn check_new(
        &self,
        inner: &Inner,
        record: &StoreRecord,
        source: &Source,
        new: &[&NodeRecord],
    ) -> Result<(), Refusal> {
        let name = &record.definition.name;
        if let Source::Command(Some(id)) = source {
            let fits = inner.reservations.get(id).is_some_and(|held| {
                held.definition.name == *name
                    && held.reservation.nodes.iter().eq(new.iter().copied())
            });
            if fits {
                return Ok(());
            }
            return Err(Refusal::conflict(
                "reservation_gone",
                format!(
                    "the reservation for {name} is over, or was taken over by another creation"
                ),
                "type the same command again",
            ));
        }
        let mut given = self.given_ports(inner);
        let own = |holder: &String| holder.contains(&format!(" of the store {name} on "));
        given.retain(|_, holder| !own(holder));
        let bind = self.bind_addresses();
        // What others have is not new: its own processes may be what holds the ports, and they are looked for when it is here.
        let fresh = matches!(source, Source::Command(_));
        for node in new {
            let ports = [node.cluster_port, node.client_port];
            for port in ports.into_iter().chain(node.shard_ports.iter().copied()) {
                let foreign = || foreign::holder(&bind, port).filter(|_| fresh);
                let holder = given.get(&port).cloned().or_else(foreign);
                if let Some(holder) = holder {
                    return Err(Refusal::conflict(
                        "port_in_use",
                        format!("port {port} of {} is held by {holder}", node.name),
                        format!(
                            "free it and type the same command again, or: dkv store delete {name}"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The whole creation, when this machine is the only one of its group.
    pub(crate) fn create(
        self: &Arc<Self>,
        definition: &StoreDefinition,
    ) -> Result<StoreChanged, Refusal> {
        names::check_definition(definition)?;
        names::check_copies(definition, definition.instance_count as usize)?;
        let mut inner = self.lock();
        check_alone(&inner)?;
        if let Some(entry) = inner.ledger.stores.get(&definition.name) {
            let record = &entry.record;
            if record.differences(definition).is_empty() && !entry.deleting {
                let change = StoreChange::AlreadyExists;
                let record = record.clone();
                return Ok(StoreChanged { change, record, warnings: Vec::new() });
            }
            return Err(exists(record, definition));
        }
        let request = ReservationRequest {
            definition: definition.clone(),
            machines: vec![self.machine().to_string()],
            first_ordinal: 1,
            count: definition.instance_count,
            base_epoch: None,
            node_name: None,
            cluster_port: None,
            client_port: None,
        };
        let record = StoreRecord {
            definition: definition.clone(),
            id: StoreId(random_hex(16)),
            hash_seed: random_hex(16),
            epoch: Epoch(0),
            nodes: Vec::new(),
            removed: Vec::new(),
        };
        self.reserve_and_commit(&mut inner, &request, record)
    }

    /// One more node here, when this machine is the only one of its group.
    pub(crate) fn add_instance(
        self: &Arc<Self>,
        store: &str,
        request: &AddInstanceRequest,
    ) -> Result<StoreChanged, Refusal> {
        let mut inner = self.lock();
        let record = inner.store(store)?.record.clone();
        check_alone(&inner)?;
        if request.machine.as_ref().is_some_and(|machine| machine != self.machine()) {
            return Err(Refusal::bad(
                "no_such_manager",
                format!("{:?} is not a machine of this group", request.machine),
                format!("leave it out, or give {}", self.machine()),
            ));
        }
        let prefix = record.definition.instance_prefix.as_str();
        let number = |node: &NodeRecord| node.name.strip_prefix(prefix)?.parse::<u32>().ok();
        let gone = record.removed.iter().map(|gone| &gone.node);
        let highest = record.nodes.iter().chain(gone).filter_map(number).max().unwrap_or(0);
        let request = ReservationRequest {
            definition: record.definition.clone(),
            machines: vec![self.machine().to_string()],
            first_ordinal: highest.max(record.nodes.len() as u32) + 1,
            count: 1,
            base_epoch: Some(record.epoch),
            node_name: request.name.clone(),
            cluster_port: request.cluster_port,
            client_port: request.client_port,
        };
        self.reserve_and_commit(&mut inner, &request, record)
    }

    fn reserve_and_commit(
        self: &Arc<Self>,
        inner: &mut Inner,
        request: &ReservationRequest,
        mut record: StoreRecord,
    ) -> Result<StoreChanged, Refusal> {
        let reservation = self.reserve_locked(inner, request)?;
        record.epoch = Epoch(record.epoch.0 + 1);
        record.nodes.extend(reservation.nodes);
        let commit = CommitRequest { record, reservation: Some(reservation.id.clone()) };
        let done = self.commit_locked(inner, &commit);
        inner.reservations.remove(&reservation.id);
        done.map(|changed| StoreChanged { warnings: reservation.warnings, ..changed })
    }

    /// Whether a node may be started: not while its store is changed or deleted.
    pub(crate) fn check_start(&self, store: &str) -> Result<(), Refusal> {
        let mut inner = self.lock();
        drop_expired(&mut inner);
        let deleting = inner.store(store)?.deleting;
        let held = inner.reservations.values().find(|held| held.definition.name == store);
        if deleting || held.is_some() {
            let wait = held.map_or(1, |held| seconds_left(held.until));
            return Err(Refusal::conflict(
                "store_changing",
                format!("the store {store} is being changed"),
                format!("try again in {wait} s"),
            ));
        }
        Ok(())
    }

    /// Deletes a store from this machine: stopped, or with force.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        store: &str,
        force: bool,
    ) -> Result<StoreChanged, Refusal> {
        {
            let mut inner = self.lock();
            let entry = inner.store(store)?;
            if !force {
                check_at_rest(entry, "deleted")?;
            }
            self.change(&mut inner, |ledger| {
                if let Some(entry) = ledger.stores.get_mut(store) {
                    entry.deleting = true;
                    let id = entry.record.id.clone();
                    for node in entry.nodes.values_mut() {
                        node.wanted = Wanted::Down;
                    }
                    ledger.deleted.retain(|deleted| deleted.id != id);
                    if ledger.deleted.len() >= DELETED_MAX {
                        ledger.deleted.remove(0);
                    }
                    ledger.deleted.push(DeletedStore { id, force });
                }
                Ok(())
            })?;
        }
        self.finish_deletion(store).await
    }

    /// Stops what runs and forgets the store. Called again after a restart when it was cut short.
    pub(crate) async fn finish_deletion(
        self: &Arc<Self>,
        store: &str,
    ) -> Result<StoreChanged, Refusal> {
        let entry = self.lock().store(store)?.clone();
        for node in entry.nodes.keys() {
            let stop = |reply| Command::Stop { force: true, reply };
            self.command(store, node, stop).await?;
        }
        let mut inner = self.lock();
        self.change(&mut inner, |ledger| {
            ledger.stores.remove(store);
            Ok(())
        })?;
        Self::forget_tasks(&mut inner, store);
        drop(inner);
        self.ranges().forget(&entry.record.id);
        for node in entry.nodes.keys() {
            let Some(paths) = self.paths(&entry.record, node) else { continue };
            remove_files(paths);
        }
        tracing::info!(%store, "deleted");
        Ok(StoreChanged {
            change: StoreChange::Deleted,
            record: entry.record,
            warnings: Vec::new(),
        })
    }

    /// Finishes the deletions that an earlier manager began.
    pub(crate) fn finish_deletions(self: &Arc<Self>) {
        let stores: Vec<String> = {
            let inner = self.lock();
            let deleting = inner.ledger.stores.iter().filter(|(_, entry)| entry.deleting);
            deleting.map(|(store, _)| store.clone()).collect()
        };
        for store in stores {
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(refusal) = agent.finish_deletion(&store).await {
                    tracing::error!(store, reason = refusal.message, "cannot finish a deletion");
                }
            });
        }
    }

    /// Adds machines to the group.
    pub(crate) fn join(&self, managers: &[String]) -> Result<(), Refusal> {
        const MEMBERS_MAX: usize = 1000;
        let mut inner = self.lock();
        let mut members: Vec<String> = Vec::new();
        // The given order counts, so that all members end with the same list.
        for member in managers.iter().chain(&inner.ledger.members) {
            if !members.contains(member) {
                members.push(member.clone());
            }
        }
        names::check_machines(&members, self.options().loopback_group)?;
        if members.len() > MEMBERS_MAX {
            return Err(Refusal::bad(
                "too_many",
                format!("a group has {MEMBERS_MAX} machines at most"),
                "make a group of its own of the others",
            ));
        }
        self.change(&mut inner, |ledger| {
            ledger.members = members;
            Ok(())
        })
    }
}
