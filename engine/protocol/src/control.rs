//! What a manager and its node say to each other over the node's Unix socket: one JSON document a line, a request
//! and then its answer; after [`ControlRequest::Follow`] each side says what it has to, unasked.

use crate::ids::NodeIndex;
use crate::map::NodeInfo;
use crate::ranges::{ConfigAsk, RangeNews};
use crate::users::{UserChanges, Users, UsersAnswer};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A request of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum ControlRequest {
    /// Who are you, how are you, what have you counted. Answered by [`NodeStatus`].
    Status,
    /// Stop gracefully: no new connections, answer what was read, close, exit 0. Answered by [`NodeStatus`] first.
    Stop,
    /// From here on this connection carries [`ToNode`] one way and [`FromNode`] the other, in any order. Answered by
    /// [`NodeStatus`] first. The manager then sends the news of all ranges. A later connection that follows takes the
    /// place of an earlier one.
    Follow,
}

/// What a manager tells a node that it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "tell")]
pub enum ToNode {
    /// The nodes of the store. Told before ranges that name them.
    Nodes {
        /// Every node that the store ever had, in the order of its index.
        nodes: Vec<NodeInfo>,
        /// Which of them are gone.
        removed: Vec<NodeIndex>,
    },
    /// Configurations and placements of ranges, in any order; older ones than the node has are ignored.
    Ranges {
        /// At most one for each range.
        news: Vec<RangeNews>,
    },
    /// The users of the store, all of them: first whenever a node is followed anew, then with each change. Told to nodes
    /// alone whose [`NodeStatus`] names a version of users.
    Users {
        /// Older ones than the node has are ignored.
        users: Users,
    },
    /// What became of changes that the node asked for over this connection.
    UsersAnswer {
        /// The number that the node gave them.
        id: u64,
        /// After it was told the users that came of it.
        answer: UsersAnswer,
    },
}

/// What a node tells the manager that follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "tell")]
pub enum FromNode {
    /// Changes of configurations that copies on this node want. Asked again while they are neither granted nor refused.
    Asks {
        /// In any order.
        asks: Vec<ConfigAsk>,
    },
    /// Changes of the store's users that a client asked for. Sent to managers alone that have told users over this
    /// connection; answered once, by [`ToNode::UsersAnswer`], unless the connection ends before.
    ChangesUsers {
        /// For the answer.
        id: u64,
        /// Made together or not at all.
        changes: UserChanges,
    },
}

/// A node's account of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The store's name.
    pub store: String,
    /// The store's identity.
    pub store_id: String,
    /// The node's name.
    pub node: String,
    /// The process.
    pub pid: u32,
    /// The node's boot, hexadecimal.
    pub boot: String,
    /// Milliseconds since it began to serve.
    pub uptime_ms: u64,
    /// Kernel features in use.
    pub io: String,
    /// Whether every range can be served: all links to the other nodes are up.
    pub cluster_ok: bool,
    /// Names of the nodes it has no link to.
    pub unreachable: Vec<String>,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
    /// CPU time of the process, microseconds.
    pub cpu_us: u64,
    /// The version of the store's users that it has; none of an older node, which cannot be told any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_version: Option<u64>,
    /// One entry for each shard.
    pub shards: Vec<ShardCounters>,
    /// The commands that were called, of all shards together; none of an older node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandCounters>,
}

/// What the shards of a node have counted of one command since they began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandCounters {
    /// Its name in small letters; of a subcommand both words with a `|` between them.
    pub name: String,
    /// Times that it was executed.
    pub calls: u64,
    /// Times that it was refused before it ran.
    pub rejected: u64,
    /// Times that it ran and answered with an error.
    pub failed: u64,
    /// How long executing it took in all, nanoseconds: of the calls in `buckets`, which are those while
    /// `latency-tracking` was on.
    pub ns: u64,
    /// Counts of execution times: bucket `i` holds what took less than [`command_bucket_ns_max`] says and no less than the
    /// bound before; the last what took longer than all bounds.
    pub buckets: Vec<u64>,
}

/// Powers of two of nanoseconds that bound the first and the last but one bucket of [`CommandCounters`]: 256 ns, 1.07 s.
const COMMAND_OCTAVES: (u32, u32) = (8, 30);
/// Buckets of [`CommandCounters`].
pub const COMMAND_BUCKETS: usize = (COMMAND_OCTAVES.1 - COMMAND_OCTAVES.0) as usize + 2;

/// The upper bound of a bucket of [`CommandCounters`], in nanoseconds; none of the last.
pub const fn command_bucket_ns_max(bucket: usize) -> Option<u64> {
    if bucket + 1 < COMMAND_BUCKETS {
        Some(1 << (COMMAND_OCTAVES.0 as usize + bucket))
    } else {
        None
    }
}

/// What one shard has counted since its start; gauges are as of now. A node that is older than its manager has not
/// counted everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardCounters {
    /// Commands answered to clients of this shard, forwarded ones included.
    pub commands: u64,
    /// Reads of keys executed here (the original's "Get").
    pub gets: u64,
    /// Writes of keys executed here ("Put").
    pub puts: u64,
    /// Removals executed here ("Remove").
    pub removes: u64,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Keys that expired.
    pub expired: u64,
    /// Requests sent to other shards.
    pub forwarded: u64,
    /// Requests executed for other shards.
    pub served_for_others: u64,
    /// Commands answered with an error.
    pub errors: u64,
    /// Client connections accepted.
    pub connections_accepted: u64,
    /// Client connections refused (limit, protected mode).
    pub connections_refused: u64,
    /// Slow readers cut off at their limit.
    pub connections_cut: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes queued for clients.
    pub bytes_out: u64,
    /// Keys that were evicted because memory was at its limit.
    pub evicted: u64,
    /// Messages that clients of this shard published.
    pub published: u64,
    /// Messages that went to subscribers of this shard, each counted once for each subscription.
    pub delivered: u64,
    /// Messages that did not go to a shard with subscribers because the way there was lost, each counted once for each
    /// shard.
    pub messages_lost: u64,
    /// Subscribers that were cut off because they read too slowly.
    pub subscribers_cut: u64,
    /// Lines of MONITOR that were dropped because too many came at a time.
    pub monitor_lines_lost: u64,
    /// Commands executed here, for clients of this shard and for other shards, and how long that took in all, nanoseconds.
    pub executed: u64,
    /// See `executed`.
    pub executing_ns: u64,
    /// How long the commands of clients that are in `latency` were in the shard, added up, nanoseconds.
    pub in_turn_ns: u64,
    /// Pieces of work (some commands, a slice of the background) that took over 1 ms of the shard's CPU time.
    pub stalls: u64,
    /// Turns of the loop that took over 1 ms of the shard's CPU time.
    pub long_turns: u64,
    /// The longest piece of work, microseconds of CPU time.
    pub piece_us_max: u64,
    /// The longest turn, microseconds of CPU time.
    pub turn_us_max: u64,
    /// The longest piece of work at filling a copy (walking, writing and framing slices), microseconds of CPU time.
    pub resync_us_max: u64,
    /// Copies of ranges that came and were filled in full from here.
    pub resyncs_full: u64,
    /// Copies of ranges that came and got from here what followed on what they had.
    pub resyncs_partial: u64,
    /// Of those that were filled in full, those that had something which did not fit or was too old.
    pub resyncs_unfit: u64,
    /// Bytes of records that were sent to copies that were filled in full.
    pub resync_bytes_full: u64,
    /// Bytes of the log that were sent to copies which did not count yet.
    pub resync_bytes_log: u64,
    /// Copies of ranges that were let go because they were late again and again.
    pub copies_let_go_late: u64,
    /// Times that writes of a range that waited for its copies were committed.
    pub commits: u64,
    /// How long the first of these writes waited each time, added up, nanoseconds.
    pub commit_wait_ns: u64,
    /// The longest of these waits, microseconds.
    pub commit_wait_us_max: u64,
    /// Ranges that it leads since another shard led them.
    pub takeovers: u64,
    /// How long these were without a leader, from the last that was heard of the former one, added up, microseconds.
    pub takeover_us: u64,
    /// The longest of these, microseconds.
    pub takeover_us_max: u64,
    /// How late expired keys were removed that nobody asked for, added up over these keys, milliseconds.
    pub expired_late_ms: u64,
    /// How late the latest of them was, milliseconds.
    pub expired_late_ms_max: u64,
    /// Gauge: for how long the oldest write has waited that its copies do not have yet, milliseconds.
    pub commit_oldest_ms: u64,
    /// Gauge: client connections.
    pub connections: u64,
    /// Gauge: keys ("Count").
    pub keys: u64,
    /// Gauge: keys with an expiry.
    pub keys_with_expiry: u64,
    /// Gauge: bytes that count against the memory limit.
    pub memory_bytes: u64,
    /// Gauge: channels with subscribers on this shard.
    pub pubsub_channels: u64,
    /// Gauge: patterns with subscribers on this shard.
    pub pubsub_patterns: u64,
    /// Gauge: channels of the sharded commands with subscribers on this shard.
    pub pubsubshard_channels: u64,
    /// Gauge: connections with subscriptions.
    pub pubsub_clients: u64,
    /// Gauge: connections in WAIT, those included that went while they waited and were not missed yet.
    pub blocked_clients: u64,
    /// Gauge: how far active expiry is behind, milliseconds.
    pub expiry_lag_ms: u64,
    /// Gauge: ranges that the shard leads, in a store with copies.
    pub ranges_led: u64,
    /// Gauge: ranges of which it holds a copy in sync that another shard leads.
    pub ranges_copied: u64,
    /// Gauge: ranges that it leads with fewer copies in sync than there should be.
    pub ranges_degraded: u64,
    /// Gauge: shards that hold copies in sync of what it leads.
    pub copies: u64,
    /// Gauge: how many changes the slowest of them is behind in a range.
    pub replication_lag: u64,
    /// Changes that it appended to the logs of ranges, or applied from those of other shards.
    pub replicated: u64,
    /// Counts of service times, bucket `i` as [`latency_bucket_us`] says. From the completion that brought a request to
    /// its reply being queued.
    pub latency: Vec<u64>,
}

/// Number of service time buckets.
pub const LATENCY_BUCKETS: usize = 128;

/// The bucket of a service time: four per power of two, from 0.25 µs up; the last holds all that is longer.
pub const fn latency_bucket(ns: u64) -> usize {
    let quarter_us = ns / 250;
    if quarter_us < 4 {
        return quarter_us as usize;
    }
    let exponent = 63 - quarter_us.leading_zeros() as usize;
    let sub = (quarter_us >> (exponent - 2)) as usize & 3;
    let bucket = (exponent - 1) * 4 + sub;
    if bucket < LATENCY_BUCKETS { bucket } else { LATENCY_BUCKETS - 1 }
}

/// The upper bound of a bucket, in nanoseconds.
pub const fn latency_bucket_ns_max(bucket: usize) -> u64 {
    if bucket < 4 {
        return (bucket as u64 + 1) * 250;
    }
    let exponent = bucket / 4 + 1;
    let sub = (bucket % 4) as u64;
    ((4 + sub + 1) << (exponent - 2)) * 250
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn buckets_and_their_bounds_agree() {
        for bucket in 0..LATENCY_BUCKETS - 1 {
            let end = latency_bucket_ns_max(bucket);
            assert_eq!(latency_bucket(end - 1), bucket, "the last of bucket {bucket}");
            assert_eq!(latency_bucket(end), bucket + 1, "the first after bucket {bucket}");
        }
        assert_eq!(latency_bucket(0), 0);
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
        // A bound is never more than a quarter above what it bounds.
        for bucket in 4..LATENCY_BUCKETS - 1 {
            let (start, end) = (latency_bucket_ns_max(bucket - 1), latency_bucket_ns_max(bucket));
            assert!((end - start) * 4 <= start, "bucket {bucket}");
        }
    }

    #[test]
    fn requests_are_these_documents() {
        for (request, json) in [
            (ControlRequest::Status, r#"{"op":"status"}"#),
            (ControlRequest::Stop, r#"{"op":"stop"}"#),
            (ControlRequest::Follow, r#"{"op":"follow"}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), json);
            assert_eq!(serde_json::from_str::<ControlRequest>(json).unwrap(), request);
        }
        for bad in [r#"{"op":"explode"}"#, r#"{"op":null}"#, "{}", "[]", r#""status""#, ""] {
            assert!(serde_json::from_str::<ControlRequest>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_told_is_tagged() {
        let ranges = ToNode::Ranges { news: vec![] };
        assert_eq!(serde_json::to_string(&ranges).unwrap(), r#"{"tell":"ranges","news":[]}"#);
        let nodes = ToNode::Nodes { nodes: vec![], removed: vec![NodeIndex(1)] };
        let json = r#"{"tell":"nodes","nodes":[],"removed":[1]}"#;
        assert_eq!(serde_json::to_string(&nodes).unwrap(), json);
        let asks = FromNode::Asks { asks: vec![] };
        assert_eq!(serde_json::to_string(&asks).unwrap(), r#"{"tell":"asks","asks":[]}"#);
        let users = ToNode::Users { users: Users::default() };
        let json = r#"{"tell":"users","users":{"version":0,"lines":[]}}"#;
        assert_eq!(serde_json::to_string(&users).unwrap(), json);
        let answer = ToNode::UsersAnswer { id: 7, answer: UsersAnswer::Done { version: 2 } };
        let json = r#"{"tell":"users_answer","id":7,"answer":{"answer":"done","version":2}}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
        assert_eq!(serde_json::from_str::<ToNode>(json).unwrap(), answer);
        let changes = UserChanges { given: vec![], changes: vec![] };
        let asks = FromNode::ChangesUsers { id: 7, changes };
        let json = r#"{"tell":"changes_users","id":7,"changes":{"given":[],"changes":[]}}"#;
        assert_eq!(serde_json::to_string(&asks).unwrap(), json);
        assert_eq!(serde_json::from_str::<FromNode>(json).unwrap(), asks);
    }

    #[test]
    fn the_counters_of_an_older_node_are_understood() {
        let shard: ShardCounters = serde_json::from_str(r#"{"gets":7}"#).unwrap();
        assert_eq!(shard, ShardCounters { gets: 7, ..Default::default() });
    }

    #[test]
    fn a_status_round_trips() {
        let shard = ShardCounters { gets: u64::MAX, latency: vec![1, 2], ..Default::default() };
        let status = NodeStatus {
            store: "Orders".into(),
            store_id: "00".into(),
            node: "node1".into(),
            pid: 1,
            boot: "ff".into(),
            uptime_ms: 2,
            io: "uring".into(),
            cluster_ok: false,
            unreachable: vec!["node2".into()],
            resident_bytes: 3,
            cpu_us: 4,
            users_version: Some(5),
            shards: vec![shard, ShardCounters::default()],
            commands: Vec::new(),
        };
        let json = serde_json::to_string(&status).unwrap();
        assert!(!json.contains('\n'), "one document a line");
        assert_eq!(serde_json::from_str::<NodeStatus>(&json).unwrap(), status);
        // A node of an earlier version does not know users.
        let older = NodeStatus { users_version: None, ..status };
        let json = serde_json::to_string(&older).unwrap();
        assert!(!json.contains("users"), "{json}");
        assert_eq!(serde_json::from_str::<NodeStatus>(&json).unwrap(), older);
    }
}
