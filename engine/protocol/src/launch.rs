//! The launch document: everything a node needs to know, given by its manager as one JSON document on standard input.

use crate::eviction::Eviction;
use crate::ids::{Epoch, NodeIndex, StoreId};
use crate::io::IoChoice;
use crate::map::NodeInfo;
use crate::ranges::Replication;
use crate::users::Users;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The version of the launch document this build reads and writes.
pub const LAUNCH_VERSION: u32 = 1;

/// See the module. Unknown fields are refused, so that a newer manager cannot be half understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDocument {
    /// [`LAUNCH_VERSION`].
    pub version: u32,
    /// The store's name.
    pub store: String,
    /// The store's identity.
    pub store_id: StoreId,
    /// This node's position in `nodes`.
    pub index: NodeIndex,
    /// All nodes of the store, in order. The map is spread over them.
    pub nodes: Vec<NodeInfo>,
    /// Those of them that have left a store with copies; they keep their place so that no other node takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<NodeIndex>,
    /// The epoch that every range starts with; grows with each change of `nodes`.
    pub epoch: Epoch,
    /// Addresses to bind for every port of the node (loopback and the machine's own).
    pub bind: Vec<IpAddr>,
    /// The CPUs of this node; shard `i` is pinned to `cpus[i]`. As many as this node's `shard_ports`.
    pub cpus: Vec<u32>,
    /// Whether no other node of this machine uses these CPUs: only then may an idle shard spin before it sleeps.
    pub cpus_exclusive: bool,
    /// Seed of the table's hash, secret, the same on all nodes of the store: 32 hexadecimal digits.
    pub hash_seed: String,
    /// The group's secret for cluster links, from the manager's token: 64 hexadecimal digits.
    pub cluster_secret: String,
    /// `SHA-256` of the client password as 64 hexadecimal digits; none when the store has no password.
    pub password_sha256: Option<String>,
    /// The users of the store. Left out where there are none, which nodes of an earlier version know.
    #[serde(default, skip_serializing_if = "Users::is_empty")]
    pub users: Users,
    /// Whether clients from elsewhere are refused while there is no password.
    pub protected_mode: bool,
    /// Most bytes of memory for the node's data; 0 is no limit.
    pub memory_bytes_max: u64,
    /// What happens when that is reached. Left out where it is the default, which nodes of an earlier version know.
    #[serde(default, skip_serializing_if = "Eviction::is_none")]
    pub eviction: Eviction,
    /// How the store keeps copies: then the ranges are configured by the managers, and the node serves what their news give
    /// it. Without it each range has one copy, where the map's spread puts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// The way of input and output. Left out where the node chooses, which nodes of an earlier version know.
    #[serde(default, skip_serializing_if = "IoChoice::is_auto")]
    pub io: IoChoice,
    /// Path of the Unix socket on which the node answers its manager (mode 0600).
    pub control_socket: String,
    /// Path of a file on which the node holds a lock for as long as it lives: a second start with one identity fails.
    pub lock_file: String,
}

/// The one line that a node prints on standard output when it serves, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyLine {
    /// The process.
    pub pid: u32,
    /// The node's boot, hexadecimal.
    pub boot: String,
    /// Which kernel features are in use, and why not others.
    pub io: String,
}

/// How a node ends when it cannot start or must stop. Listed in ARCHITECTURE.md.
pub mod exit {
    /// Asked to stop, and stopped.
    pub const OK: u8 = 0;
    /// Failed while running; the log says why.
    pub const FAILED: u8 = 1;
    /// The launch document could not be read or made no sense.
    pub const BAD_LAUNCH_DOCUMENT: u8 = 65;
    /// A port is in use; the log names it.
    pub const ADDRESS_IN_USE: u8 = 69;
    /// The kernel refuses io_uring, and nothing else was allowed; the log says which of its switches, and the fix.
    pub const IO_URING_UNAVAILABLE: u8 = 71;
    /// The same node already runs.
    pub const ALREADY_RUNNING: u8 = 75;
    /// The configuration is refused (say, a CPU that does not exist).
    pub const BAD_CONFIGURATION: u8 = 78;
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "version": 1,
            "store": "Orders",
            "store_id": "0123456789abcdef0123456789abcdef",
            "index": 0,
            "nodes": [{
                "name": "node1",
                "address": "10.0.0.1",
                "cluster_port": 7811,
                "client_port": 7861,
                "shard_ports": [7900, 7901],
            }],
            "epoch": 1,
            "bind": ["127.0.0.1", "::1"],
            "cpus": [0, 1],
            "cpus_exclusive": true,
            "hash_seed": "00112233445566778899aabbccddeeff",
            "cluster_secret": "00",
            "password_sha256": null,
            "protected_mode": true,
            "memory_bytes_max": 0,
            "control_socket": "/run/node1.sock",
            "lock_file": "/run/node1.lock",
        })
    }

    #[test]
    fn the_document_is_this_json() {
        let read: LaunchDocument = serde_json::from_value(document()).unwrap();
        assert_eq!(read.nodes[0].shard_ports, vec![7900, 7901]);
        assert_eq!(read.bind, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(serde_json::to_value(&read).unwrap(), document());
    }

    #[test]
    fn a_policy_of_eviction_may_be_named() {
        let mut evicting = document();
        evicting["eviction"] = json!("volatile-ttl");
        let read: LaunchDocument = serde_json::from_value(evicting.clone()).unwrap();
        assert_eq!(read.eviction, Eviction::VolatileTtl);
        assert_eq!(serde_json::to_value(&read).unwrap(), evicting);
    }

    #[test]
    fn a_way_of_input_and_output_may_be_asked_for() {
        let mut asked = document();
        asked["io"] = json!("epoll");
        let read: LaunchDocument = serde_json::from_value(asked.clone()).unwrap();
        assert_eq!(read.io, IoChoice::Epoll);
        assert_eq!(serde_json::to_value(&read).unwrap(), asked);
    }

    #[test]
    fn copies_may_be_asked_for() {
        let mut copied = document();
        copied["replication"] = json!({
            "replicas": 1, "ack": "all", "min_insync": 1, "read": "lease", "on_total_loss": "offline",
        });
        let read: LaunchDocument = serde_json::from_value(copied.clone()).unwrap();
        let replication = read.replication.unwrap();
        assert_eq!((replication.replicas, replication.min_insync), (1, 1));
        assert_eq!(serde_json::to_value(&read).unwrap(), copied);
    }

    #[test]
    fn users_may_be_given() {
        let mut with_users = document();
        with_users["users"] = json!({"version": 7, "lines": ["user ann on ~* +@all"]});
        let read: LaunchDocument = serde_json::from_value(with_users.clone()).unwrap();
        assert_eq!(read.users.line("ann"), Some("user ann on ~* +@all"));
        assert_eq!(serde_json::to_value(&read).unwrap(), with_users);
    }

    #[test]
    fn unknown_and_missing_fields_are_refused() {
        let mut newer = document();
        newer["durability"] = json!("sync");
        let error = serde_json::from_value::<LaunchDocument>(newer).unwrap_err();
        assert!(alloc::string::ToString::to_string(&error).contains("durability"), "{error}");
        for field in document().as_object().unwrap().keys() {
            let mut partial = document();
            partial.as_object_mut().unwrap().remove(field);
            let optional = field == "password_sha256";
            assert_eq!(
                serde_json::from_value::<LaunchDocument>(partial).is_ok(),
                optional,
                "{field}"
            );
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for (field, value) in [
            ("index", json!(65536)),
            ("index", json!(-1)),
            ("epoch", json!(1.5)),
            ("bind", json!(["localhost"])),
            ("cpus", json!([-1])),
        ] {
            let mut wrong = document();
            wrong[field] = value;
            assert!(serde_json::from_value::<LaunchDocument>(wrong).is_err(), "{field}");
        }
    }

    #[test]
    fn the_ready_line_round_trips() {
        let line = ReadyLine { pid: 7, boot: "ff".into(), io: "io=uring".into() };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(json, r#"{"pid":7,"boot":"ff","io":"io=uring"}"#);
        assert_eq!(serde_json::from_str::<ReadyLine>(&json).unwrap(), line);
    }
}
