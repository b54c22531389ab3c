//! CLUSTER: the store as cluster clients see it. Every shard has an id and an address of its own; it is the
//! master of the slots that it leads, or, when it leads none, a replica of those that it has copies of.

use crate::command::{Args, Env, Now, Spec};
use crate::connection::{help, parse};
use crate::face::PortKind;
use crate::refusal;
use crate::session::Session;
use crate::shard::Shard;
use crate::standing::Run;
use crate::walk::Wanted;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::ControlFlow;
use dkv_protocol::ids::{RangeId, Slot};
use dkv_protocol::limits::{RANGES, SLOTS};
use dkv_protocol::map::StoreMap;
use dkv_protocol::resp::{Proto, reply};
use dkv_protocol::slots::slot_of;
use sha2::{Digest, Sha256};

/// The id of a shard: 40 hexadecimal digits, the same at every start of the store.
pub(crate) type ShardId = [u8; 40];

/// The ids of all shards, in their order.
pub(crate) fn shard_ids(env: &Env, map: &StoreMap) -> Vec<ShardId> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let id = |node: &str, shard: u16| {
        let digest = Sha256::new()
            .chain_update(env.store_id.as_bytes())
            .chain_update([0])
            .chain_update(node.as_bytes())
            .chain_update([0])
            .chain_update(shard.to_le_bytes())
            .finalize();
        core::array::from_fn(|i| {
            let byte = digest[i / 2];
            DIGITS[usize::from(if i % 2 == 0 { byte >> 4 } else { byte & 15 })]
        })
    };
    map.shards().map(|addr| id(&map.node(addr.node).name, addr.shard.0)).collect()
}

/// Subcommands of Redis Cluster that would change the topology, and what does it here.
const MUTATORS: [(&str, &str); 15] = [
    ("ADDSLOTS", "slots are spread by the manager; see 'dkv store show'"),
    ("ADDSLOTSRANGE", "slots are spread by the manager; see 'dkv store show'"),
    ("BUMPEPOCH", "epochs are given by the manager; see 'dkv store show'"),
    ("DELSLOTS", "slots are spread by the manager; see 'dkv store show'"),
    ("DELSLOTSRANGE", "slots are spread by the manager; see 'dkv store show'"),
    ("FAILOVER", "use 'dkv store failover'"),
    ("FLUSHSLOTS", "slots are spread by the manager; see 'dkv store show'"),
    ("FORGET", "use 'dkv store remove-instance'"),
    ("MEET", "use 'dkv store add-instance' or 'dkv connect'"),
    ("REPLICATE", "roles are given by the manager; see 'dkv store show'"),
    ("RESET", "use 'dkv store stop' and 'dkv store start'"),
    ("SAVECONFIG", "the manager keeps the configuration; see 'dkv store show'"),
    ("SET-CONFIG-EPOCH", "epochs are given by the manager; see 'dkv store show'"),
    ("SETSLOT", "slots are spread by the manager; see 'dkv store show'"),
    ("MYSHARDID", "every shard is a shard of its own; use CLUSTER MYID"),
];

/// Bytes of an id that an error repeats.
const QUOTED_BYTES_MAX: usize = 128;

impl Shard {
    /// CLUSTER, with at least a subcommand.
    pub(crate) fn cluster_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let mut out = Vec::new();
        let subcommand = args.get(1);
        let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
        if let Some((name, instead)) = MUTATORS.iter().find(|(name, _)| is(name)) {
            let mut text = String::from("ERR CLUSTER ");
            let _ = write!(text, "{name} is not supported: {instead}");
            reply::error(&mut out, &text);
        } else if let Some(refusal) = refusal::check_subcommand(spec, args) {
            refusal::write(refusal, Some(spec), args, &mut out);
        } else if is("SLOTS") {
            self.cluster_slots(session.proto, &mut out);
        } else if is("SHARDS") {
            self.cluster_shards(session.proto, &mut out);
        } else if is("NODES") {
            let text = self.cluster_nodes(self.myself(session.port));
            reply::verbatim(&mut out, session.proto, text.as_bytes());
        } else if is("INFO") {
            reply::verbatim(&mut out, session.proto, self.cluster_info().as_bytes());
        } else if is("MYID") {
            reply::bulk(&mut out, &self.ids[self.myself(session.port) as usize]);
        } else if is("REPLICAS") || is("SLAVES") {
            self.cluster_replicas(args.get(2), session.port, &mut out);
        } else if is("LINKS") {
            self.cluster_links(session.proto, &mut out);
        } else if is("COUNT-FAILURE-REPORTS") {
            match self.shard_of_id(args.get(2)) {
                // Nodes report no failures to each other: the managers say who is gone.
                Ok(_) => reply::integer(&mut out, 0),
                Err(error) => reply::error_bytes(&mut out, &error),
            }
        } else if is("KEYSLOT") {
            reply::integer(&mut out, i64::from(slot_of(args.get(2)).0));
        } else if is("COUNTKEYSINSLOT") || is("GETKEYSINSLOT") {
            match slot_argument(args) {
                Ok(slot) => {
                    let owner = self.links.owner(slot);
                    if is("GETKEYSINSLOT") {
                        session.last = (spec.name, "getkeysinslot");
                        let count = parse(args.get(3)).and_then(|n| usize::try_from(n).ok());
                        let wanted = Wanted::OfSlot(slot.0, count.unwrap_or(0));
                        return self.walk(now, session, &[owner], wanted);
                    }
                    if owner != self.links.me() {
                        return self.forward(now, session, spec, owner, args);
                    }
                    self.slot_command(args, &mut out);
                }
                Err(text) => reply::error(&mut out, text),
            }
        } else {
            const HELP: [&str; 22] = [
                "COUNT-FAILURE-REPORTS <node-id>",
                "    Return number of failure reports for <node-id>.",
                "COUNTKEYSINSLOT <slot>",
                "    Return the number of keys in <slot>.",
                "GETKEYSINSLOT <slot> <count>",
                "    Return key names stored in a slot.",
                "INFO",
                "    Return information about the cluster.",
                "KEYSLOT <key>",
                "    Return the hash slot for <key>.",
                "LINKS",
                "    Return information about all network links between this node and its peers.",
                "MYID",
                "    Return the node id.",
                "NODES",
                "    Return cluster configuration seen by node.",
                "REPLICAS <node-id>",
                "    Return <node-id> replicas.",
                "SHARDS",
                "    Return information about slot range mappings and the nodes associated with them.",
                "SLOTS",
                "    Return information about slots range mappings. Each range is made of start, end, node.",
            ];
            help("CLUSTER", &HELP, &mut out);
        }
        self.answer(session, &out);
        ControlFlow::Continue(())
    }

    /// COUNTKEYSINSLOT of a slot of this shard. Also reached by other shards.
    pub(crate) fn slot_command(&self, args: Args<'_>, out: &mut Vec<u8>) {
        let slot = match slot_argument(args) {
            Ok(slot) if self.links.owner(slot) == self.links.me() => slot,
            Ok(_) => return reply::error(out, "CLUSTERDOWN Hash slot not served here"),
            Err(text) => return reply::error(out, text),
        };
        reply::integer(out, self.table.count_in_slot(slot.0) as i64);
    }

    /// Who a port speaks for: the shard on its own port, the node's first shard on the client port.
    fn myself(&self, port: PortKind) -> u16 {
        match port {
            PortKind::Client => self.links.first_of(self.me),
            PortKind::Shard => self.links.me(),
        }
    }

    fn ip(&self, shard: u16) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", self.map.node(self.links.addr(shard).node).address);
        text
    }

    fn port(&self, shard: u16) -> u16 {
        let addr = self.links.addr(shard);
        self.map.node(addr.node).shard_ports[addr.shard.0 as usize]
    }

    fn cluster_slots(&self, proto: Proto, out: &mut Vec<u8>) {
        let runs = self.runs();
        reply::array(out, runs.len());
        for Run { first, last, owner, copies, .. } in runs {
            reply::array(out, 3 + copies.len());
            reply::integer(out, i64::from(first));
            reply::integer(out, i64::from(last));
            for shard in core::iter::once(owner).chain(copies) {
                reply::array(out, 4);
                reply::bulk(out, self.ip(shard).as_bytes());
                reply::integer(out, i64::from(self.port(shard)));
                reply::bulk(out, &self.ids[shard as usize]);
                reply::map(out, proto, 0);
            }
        }
    }

    /// One element for all slots that have the same owner and the same copies, and one for a shard that has nothing.
    fn cluster_shards(&self, proto: Proto, out: &mut Vec<u8>) {
        let mut groups: Vec<Group> = Vec::new();
        for Run { first, last, owner, copies, .. } in self.runs() {
            let shards: Vec<u16> = core::iter::once(owner).chain(copies).collect();
            match groups.iter_mut().find(|group| group.shards == shards) {
                Some(group) => group.slots.push((first, last)),
                None => groups.push(Group { shards, slots: Vec::from([(first, last)]) }),
            }
        }
        for shard in (0..self.links.len()).filter(|shard| self.is_shown(*shard)) {
            if !groups.iter().any(|group| group.shards.contains(&shard)) {
                groups.push(Group { shards: Vec::from([shard]), slots: Vec::new() });
            }
        }
        groups.sort_by(|a, b| a.shards.cmp(&b.shards));
        reply::array(out, groups.len());
        for Group { shards, slots } in groups {
            reply::map(out, proto, 2);
            reply::bulk(out, b"slots");
            reply::array(out, slots.len() * 2);
            for (first, last) in &slots {
                reply::integer(out, i64::from(*first));
                reply::integer(out, i64::from(*last));
            }
            reply::bulk(out, b"nodes");
            reply::array(out, shards.len());
            for (at, shard) in shards.into_iter().enumerate() {
                let role = if at == 0 { "master" } else { "replica" };
                self.cluster_shard(shard, role, &slots, proto, out);
            }
        }
    }

    fn cluster_shard(
        &self,
        shard: u16,
        role: &str,
        slots: &[(u16, u16)],
        proto: Proto,
        out: &mut Vec<u8>,
    ) {
        let ip = self.ip(shard);
        let health = if self.links.is_up(shard) { "online" } else { "fail" };
        reply::map(out, proto, 7);
        let text = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value);
        };
        text(out, "id", &self.ids[shard as usize]);
        reply::bulk(out, b"port");
        reply::integer(out, i64::from(self.port(shard)));
        text(out, "ip", ip.as_bytes());
        text(out, "endpoint", ip.as_bytes());
        text(out, "role", role.as_bytes());
        reply::bulk(out, b"replication-offset");
        reply::integer(out, self.offset_of(slots, shard) as i64);
        text(out, "health", health.as_bytes());
    }

    /// Whether a shard is worth naming: one that is gone and has nothing may have left the store.
    fn is_shown(&self, shard: u16) -> bool {
        self.copies.is_none() || self.links.is_up(shard) || self.links.owns(shard)
    }

    fn cluster_nodes(&self, myself: u16) -> String {
        let runs = self.runs();
        let mut text = String::new();
        for shard in (0..self.links.len()).filter(|shard| self.is_shown(*shard)) {
            self.describe_node(shard, myself, &runs, &mut text);
            text.push('\n');
        }
        text
    }

    fn id_of(&self, shard: u16) -> &str {
        core::str::from_utf8(&self.ids[shard as usize]).unwrap_or_default()
    }

    /// The shard that CLUSTER NODES shows as the master of one that leads nothing but has copies: of the first whose slots it has.
    fn master_of(shard: u16, runs: &[Run]) -> Option<u16> {
        let copied = runs.iter().find(|run| run.copies.contains(&shard));
        copied.filter(|_| runs.iter().all(|run| run.owner != shard)).map(|run| run.owner)
    }

    /// Appends the line of CLUSTER NODES about a shard, without its end.
    fn describe_node(&self, shard: u16, myself: u16, runs: &[Run], text: &mut String) {
        let addr = self.links.addr(shard);
        let node = self.map.node(addr.node);
        let (id, up) = (self.id_of(shard), self.links.is_up(shard));
        let own = || runs.iter().filter(|run| run.owner == shard);
        let master = Self::master_of(shard, runs).map(|master| self.id_of(master));
        let role = if master.is_some() { "slave" } else { "master" };
        let (before, after) = match (shard == myself, up) {
            (true, _) => ("myself,", ""),
            (false, true) => ("", ""),
            (false, false) => ("", ",fail"),
        };
        let link = if up { "connected" } else { "disconnected" };
        let epoch = own().next().map_or(0, |run| self.epoch_of(Slot(run.first).range()));
        let (ip, port, bus) = (node.address, self.port(shard), node.cluster_port);
        let master = master.unwrap_or("-");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{id} {ip}:{port}@{bus} {before}{role}{after} {master} 0 0 {epoch} {link}"
        );
        let mut run: Option<(u16, u16)> = None;
        // Slots with different copies are one run here.
        for next in own().map(|run| (run.first, run.last)).map(Some).chain([None]) {
            match (&mut run, next) {
                (Some(run), Some((first, last))) if run.1 + 1 == first => run.1 = last,
                (run, next) => {
                    if let Some((first, last)) = core::mem::replace(run, next) {
                        let _ = write!(text, " {first}-{last}");
                    }
                }
            }
        }
    }

    /// The shard with an id; otherwise the error.
    fn shard_of_id(&self, id: &[u8]) -> Result<u16, Vec<u8>> {
        (0..self.links.len())
            .find(|shard| self.is_shown(*shard) && self.ids[usize::from(*shard)] == id)
            .ok_or_else(|| unknown_node(id))
    }

    /// CLUSTER REPLICAS: the lines of CLUSTER NODES of those whose master it is there.
    fn cluster_replicas(&self, id: &[u8], port: PortKind, out: &mut Vec<u8>) {
        let master = match self.shard_of_id(id) {
            Ok(master) => master,
            Err(error) => return reply::error_bytes(out, &error),
        };
        let runs = self.runs();
        if Self::master_of(master, &runs).is_some() {
            return reply::error(out, "ERR The specified node is not a master");
        }
        let replicas: Vec<u16> = (0..self.links.len())
            .filter(|shard| self.is_shown(*shard) && Self::master_of(*shard, &runs) == Some(master))
            .collect();
        reply::array(out, replicas.len());
        for replica in replicas {
            let mut text = String::new();
            self.describe_node(replica, self.myself(port), &runs, &mut text);
            reply::bulk(out, text.as_bytes());
        }
    }

    /// CLUSTER LINKS: the ways from this shard to those of other nodes, as far as they are open.
    fn cluster_links(&self, proto: Proto, out: &mut Vec<u8>) {
        let open: Vec<u16> = (0..self.links.len())
            .filter(|to| self.links.addr(*to).node != self.me.node && self.links.is_up(*to))
            .collect();
        reply::array(out, open.len());
        for to in open {
            let standing = self.links.standing(to);
            reply::map(out, proto, 6);
            for (name, value) in [("direction", "to"), ("node", self.id_of(to)), ("events", "rw")] {
                reply::bulk(out, name.as_bytes());
                reply::bulk(out, value.as_bytes());
            }
            for (name, value) in [
                ("create-time", standing.since_unix_ms),
                ("send-buffer-allocated", standing.buffer_bytes as u64),
                ("send-buffer-used", standing.unanswered_bytes as u64),
            ] {
                reply::bulk(out, name.as_bytes());
                reply::integer(out, value as i64);
            }
        }
    }

    fn cluster_info(&self) -> String {
        let runs = self.runs();
        let count = |served: bool| -> u32 {
            let slots = |run: &&Run| run.served == served;
            runs.iter().filter(slots).map(|run| u32::from(run.last - run.first) + 1).sum()
        };
        let epoch = |range: usize| self.epoch_of(RangeId(range as u8));
        let current = (0..RANGES).map(epoch).max().unwrap_or(0);
        let known = (0..self.links.len()).filter(|shard| self.is_shown(*shard)).count();
        let size = (0..self.links.len()).filter(|shard| self.links.owns(*shard)).count();
        let fields: [(&str, u64); 11] = [
            ("cluster_slots_assigned", u64::from(SLOTS)),
            ("cluster_slots_ok", count(true).into()),
            ("cluster_slots_pfail", 0),
            ("cluster_slots_fail", count(false).into()),
            ("cluster_known_nodes", known as u64),
            ("cluster_size", size as u64),
            ("cluster_current_epoch", current),
            ("cluster_my_epoch", current),
            ("cluster_stats_messages_sent", self.stats.forwarded.get()),
            ("cluster_stats_messages_received", self.stats.served_for_others.get()),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        let state = if count(false) == 0 { "ok" } else { "fail" };
        let mut text = String::from("cluster_state:");
        text.push_str(state);
        text.push_str("\r\n");
        for (name, value) in fields {
            // Writing to a string cannot fail.
            let _ = write!(text, "{name}:{value}\r\n");
        }
        text
    }
}

/// Slots that have the same owner and the same copies.
struct Group {
    /// The owner first.
    shards: Vec<u16>,
    slots: Vec<(u16, u16)>,
}

/// The error for an id that is nobody's.
fn unknown_node(id: &[u8]) -> Vec<u8> {
    [b"ERR Unknown node ", &id[..id.len().min(QUOTED_BYTES_MAX)]].concat()
}

/// The slot that COUNTKEYSINSLOT or GETKEYSINSLOT names, with the other number checked.
fn slot_argument(args: Args<'_>) -> Result<Slot, &'static str> {
    const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
    let slot = parse(args.get(2)).ok_or(NOT_AN_INTEGER)?;
    let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOTS).map(Slot);
    if args.len() == 3 {
        return slot.ok_or("ERR Invalid slot");
    }
    let count = parse(args.get(3)).ok_or(NOT_AN_INTEGER)?;
    slot.filter(|_| count >= 0).ok_or("ERR Invalid slot or number of keys")
}
