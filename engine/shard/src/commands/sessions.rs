//! Facts about the commands that the session itself executes. They are here because COMMAND must name them: cluster
//! clients refuse a command that it leaves out.

use crate::command::{Spec, Subcommand};

const FAST: Spec = Spec {
    flags: &["loading", "stale", "fast"],
    categories: &["@fast", "@connection"],
    group: "connection",
    ..Spec::NOTHING
};

/// Allowed before AUTH.
const FIRST: Spec =
    Spec { flags: &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"], ..FAST };

const CLIENT_SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["noscript", "loading", "stale"],
    key_flags: &[],
    categories: &["@slow", "@connection"],
    tips: &[],
    summary: "",
    since: "",
};

/// What only an administrator is to do.
const CLIENT_ADMIN: Subcommand = Subcommand {
    flags: &["admin", "noscript", "loading", "stale"],
    categories: &["@admin", "@slow", "@dangerous", "@connection"],
    ..CLIENT_SUB
};

const CLUSTER_SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["stale"],
    key_flags: &[],
    categories: &["@slow"],
    tips: &["nondeterministic_output"],
    summary: "",
    since: "3.0.0",
};

pub(super) const SPECS: &[Spec] = &[
    Spec {
        name: "AUTH",
        arity: -2,
        summary: "Authenticates the connection.",
        since: "1.0.0",
        ..FIRST
    },
    Spec {
        name: "HELLO",
        arity: -1,
        summary: "Handshakes with the server.",
        since: "6.0.0",
        ..FIRST
    },
    Spec { name: "QUIT", arity: -1, summary: "Closes the connection.", since: "1.0.0", ..FIRST },
    Spec { name: "RESET", arity: 1, summary: "Resets the connection.", since: "6.2.0", ..FIRST },
    Spec {
        name: "SELECT",
        arity: 2,
        summary: "Changes the selected database; there is one, 0.",
        since: "1.0.0",
        ..FAST
    },
    Spec {
        name: "CLIENT",
        arity: -2,
        flags: &[],
        categories: &["@slow"],
        subcommands: CLIENT,
        summary: "A container for client connection commands.",
        since: "2.4.0",
        ..FAST
    },
    Spec {
        name: "READONLY",
        arity: 1,
        summary: "Enables read-only queries for a connection to a replica.",
        since: "3.0.0",
        group: "cluster",
        ..FAST
    },
    Spec {
        name: "READWRITE",
        arity: 1,
        summary: "Disables read-only queries for a connection to a replica.",
        since: "3.0.0",
        group: "cluster",
        ..FAST
    },
    Spec {
        name: "ASKING",
        arity: 1,
        flags: &["fast"],
        summary: "Signals that a cluster client is following an -ASK redirect.",
        since: "3.0.0",
        group: "cluster",
        ..FAST
    },
    Spec {
        name: "WAIT",
        arity: 3,
        flags: &["blocking"],
        categories: &["@slow", "@blocking", "@connection"],
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        summary: "Says how many copies besides the primary hold the last write of the connection.",
        since: "3.0.0",
        group: "generic",
        ..FAST
    },
    Spec {
        name: "MONITOR",
        arity: 1,
        flags: &["admin", "noscript", "loading", "stale"],
        categories: &["@admin", "@slow", "@dangerous"],
        summary: "Listens for all requests received by the server in real-time.",
        since: "1.0.0",
        group: "server",
        ..FAST
    },
    Spec {
        name: "CLUSTER",
        long: true,
        arity: -2,
        flags: &[],
        categories: &["@slow"],
        subcommands: CLUSTER,
        summary: "A container for Redis Cluster commands.",
        since: "3.0.0",
        group: "cluster",
        ..FAST
    },
];

const CLIENT: &[Subcommand] = &[
    Subcommand {
        name: "getname",
        summary: "Returns the name of the connection.",
        since: "2.6.9",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "setname",
        arity: 3,
        summary: "Sets the connection name.",
        since: "2.6.9",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "setinfo",
        arity: 4,
        summary: "Sets information specific to the client or connection.",
        since: "7.2.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "id",
        summary: "Returns the unique client ID of the connection.",
        since: "5.0.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "info",
        tips: &["nondeterministic_output"],
        summary: "Returns information about the connection.",
        since: "6.2.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "caching",
        arity: 3,
        summary: "Instructs the server whether to track the keys in the next request.",
        since: "6.0.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "getredir",
        summary: "Returns the client ID to which the connection's tracking notifications are redirected.",
        since: "6.0.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "tracking",
        arity: -3,
        summary: "Controls server-assisted client-side caching for the connection.",
        since: "6.0.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "trackinginfo",
        summary: "Returns information about server-assisted client-side caching for the connection.",
        since: "6.2.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "kill",
        arity: -3,
        summary: "Terminates open connections.",
        since: "2.4.0",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "list",
        arity: -2,
        tips: &["nondeterministic_output"],
        summary: "Lists open connections.",
        since: "2.4.0",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "no-evict",
        arity: 3,
        summary: "Sets the client eviction mode of the connection.",
        since: "7.0.0",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "no-touch",
        arity: 3,
        summary: "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
        since: "7.2.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "pause",
        arity: -3,
        summary: "Suspends commands processing.",
        since: "2.9.50",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "reply",
        arity: 3,
        summary: "Instructs the server whether to reply to commands.",
        since: "3.2.0",
        ..CLIENT_SUB
    },
    Subcommand {
        name: "unblock",
        arity: -3,
        summary: "Unblocks a client blocked by a blocking command from a different connection.",
        since: "5.0.0",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "unpause",
        summary: "Resumes processing commands from paused clients.",
        since: "6.2.0",
        ..CLIENT_ADMIN
    },
    Subcommand {
        name: "help",
        flags: &["loading", "stale"],
        summary: "Returns helpful text about the different subcommands.",
        since: "5.0.0",
        ..CLIENT_SUB
    },
];

const CLUSTER: &[Subcommand] = &[
    Subcommand {
        name: "slots",
        summary: "Returns the mapping of cluster slots to nodes.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "shards",
        summary: "Returns the mapping of cluster slots to shards.",
        since: "7.0.0",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "nodes",
        summary: "Returns the cluster configuration for a node.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "info",
        summary: "Returns information about the state of a node.",
        ..CLUSTER_SUB
    },
    Subcommand { name: "myid", tips: &[], summary: "Returns the ID of a node.", ..CLUSTER_SUB },
    Subcommand {
        name: "keyslot",
        arity: 3,
        tips: &[],
        summary: "Returns the hash slot for a key.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "countkeysinslot",
        arity: 3,
        tips: &[],
        summary: "Returns the number of keys in a hash slot.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "getkeysinslot",
        arity: 4,
        summary: "Returns the key names in a hash slot.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "replicas",
        arity: 3,
        flags: &["admin", "stale"],
        categories: &["@admin", "@slow", "@dangerous"],
        summary: "Lists the replica nodes of a master node.",
        since: "5.0.0",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "slaves",
        arity: 3,
        flags: &["admin", "stale"],
        categories: &["@admin", "@slow", "@dangerous"],
        summary: "Lists the replica nodes of a master node.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "links",
        summary: "Returns a list of all TCP links to and from peer nodes.",
        since: "7.0.0",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "count-failure-reports",
        arity: 3,
        flags: &["admin", "stale"],
        categories: &["@admin", "@slow", "@dangerous"],
        summary: "Returns the number of active failure reports active for a node.",
        ..CLUSTER_SUB
    },
    Subcommand {
        name: "help",
        flags: &["loading", "stale"],
        tips: &[],
        summary: "Returns helpful text about the different subcommands.",
        since: "5.0.0",
        ..CLUSTER_SUB
    },
];
