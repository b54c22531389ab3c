//! What is asked of nodes: commands, memory, settings, slow commands, the cluster.

use super::{Arg, Doc, block, doc, integer, key, one_of, pattern, string, word};

const PER_COMMAND: &str = "O(N) for N commands";
const PER_NODE: &str = "O(N) for N nodes";
const COMMANDS: &[Arg] = &[string("command-name").optional().multiple()];
const EVENT: Arg = string("event");
const OF_SUBCOMMAND: &str = "That of the subcommand";
const NODE: &[Arg] = &[string("node-id")];

pub(super) const DOCS: &[Doc] = &[
    doc("time", "O(1)", &[]),
    doc("role", "O(1)", &[]),
    doc("monitor", "O(1), and the work of telling of every command", &[]),
    doc("lolwut", "O(1)", &[integer("version").token("VERSION").optional()]),
    doc("info", "O(N) for N shards of the node", &[string("section").optional().multiple()])
        .history(&[("7.0.0", "Several sections.")]),
    doc("dkv.checksum", "O(N) for all N keys of the shard", &[]),
    doc("dkv.hotkeys", OF_SUBCOMMAND, &[]),
    doc("dkv.hotkeys|start", "O(1)", &[integer("seconds")]),
    doc(
        "dkv.hotkeys|get",
        "O(N log N) for N keys that are counted",
        &[integer("count").optional()],
    ),
    doc("command", "O(N) for all N commands", &[]),
    doc("command|count", "O(1)", &[]),
    doc("command|docs", PER_COMMAND, COMMANDS),
    doc("command|getkeys", "O(N) for N arguments", &[]),
    doc("command|getkeysandflags", "O(N) for N arguments", &[]),
    doc("command|info", PER_COMMAND, COMMANDS)
        .history(&[("7.0.0", "Without a name it tells of all commands.")]),
    doc(
        "command|list",
        "O(N) for all N commands",
        &[one_of(
            "filterby",
            &[
                string("module-name").token("MODULE"),
                string("category").token("ACLCAT"),
                pattern("pattern").token("PATTERN"),
            ],
        )
        .token("FILTERBY")
        .optional()],
    ),
    doc("command|help", "O(1)", &[]),
    doc("memory", OF_SUBCOMMAND, &[]),
    doc("memory|doctor", "O(1)", &[]),
    doc("memory|malloc-stats", "O(1)", &[]),
    doc("memory|purge", "O(N) for N pages that nobody uses", &[]),
    doc("memory|stats", "O(1)", &[]),
    doc("memory|usage", "O(1)", &[key("key", 0), integer("count").token("SAMPLES").optional()]),
    doc("memory|help", "O(1)", &[]),
    doc("slowlog", OF_SUBCOMMAND, &[]),
    // WITHTIMES is an addition of ours: SLOWLOG HELP tells of it, and this says what clients know.
    doc("slowlog|get", "O(N) for N entries", &[integer("count").optional()])
        .history(&[("4.0.0", "The client's address, port and name.")]),
    doc("slowlog|len", "O(1)", &[]),
    doc("slowlog|reset", "O(N) for N entries", &[]),
    doc("slowlog|help", "O(1)", &[]),
    doc("latency", OF_SUBCOMMAND, &[]),
    doc("latency|doctor", "O(1)", &[]),
    doc("latency|graph", "O(1)", &[EVENT]),
    doc("latency|histogram", PER_COMMAND, &[string("command").optional().multiple()]),
    doc("latency|history", "O(1)", &[EVENT]),
    doc("latency|latest", "O(1)", &[]),
    doc("latency|reset", "O(1)", &[EVENT.optional().multiple()]),
    doc("latency|help", "O(1)", &[]),
    doc("config", OF_SUBCOMMAND, &[]),
    doc(
        "config|get",
        "O(N) for N parameters",
        &[block("parameter", &[string("parameter")]).multiple()],
    )
    .history(&[("7.0.0", "Several patterns.")]),
    doc(
        "config|set",
        "O(N) for N parameters",
        &[block("parameter_value", &[string("parameter"), string("value")]).multiple()],
    )
    .history(&[("7.0.0", "Several parameters.")]),
    doc("config|resetstat", "O(1)", &[]),
    doc("config|rewrite", "O(1)", &[]),
    doc("config|help", "O(1)", &[]),
    doc("cluster", OF_SUBCOMMAND, &[]),
    doc("cluster|slots", PER_NODE, &[])
        .deprecated("7.0.0", "`CLUSTER SHARDS`")
        .history(&[("4.0.0", "The nodes' identities."), ("7.0.0", "More about networks.")]),
    doc("cluster|shards", PER_NODE, &[]),
    doc("cluster|nodes", PER_NODE, &[]),
    doc("cluster|links", PER_NODE, &[]),
    doc("cluster|replicas", PER_NODE, NODE),
    doc("cluster|slaves", PER_NODE, NODE).deprecated("5.0.0", "`CLUSTER REPLICAS`"),
    doc("cluster|count-failure-reports", PER_NODE, NODE),
    doc("cluster|info", "O(1)", &[]),
    doc("cluster|myid", "O(1)", &[]),
    doc("cluster|keyslot", "O(N) for N bytes of the key", &[string("key")]),
    doc("cluster|countkeysinslot", "O(N) for N keys of the slot", &[integer("slot")]),
    doc(
        "cluster|getkeysinslot",
        "O(N) for N keys of the slot",
        &[integer("slot"), integer("count")],
    ),
    doc("cluster|help", "O(1)", &[]),
    doc("acl", OF_SUBCOMMAND, &[]),
    doc("acl|cat", "O(N) for N categories or commands", &[string("categoryname").optional()]),
    doc("acl|deluser", "O(N) for N names", &[string("username").multiple()]),
    doc(
        "acl|dryrun",
        "O(N) for N keys",
        &[string("username"), string("command"), string("arg").optional().multiple()],
    ),
    doc("acl|genpass", "O(1)", &[integer("bits").optional()]),
    doc("acl|getuser", "O(N) for N rules of the user", &[string("username")])
        .history(&[("6.2.0", "Channels."), ("7.0.0", "Selectors, and keys as rules are written.")]),
    doc("acl|list", "O(N) for N users", &[]),
    doc("acl|load", "O(N) for N users", &[]),
    doc(
        "acl|log",
        "O(N) for N entries",
        &[one_of("operation", &[integer("count"), word("reset", "RESET")]).optional()],
    ),
    doc("acl|save", "O(N) for N users", &[]),
    doc(
        "acl|setuser",
        "O(N) for N rules",
        &[string("username"), string("rule").optional().multiple()],
    )
    .history(&[("6.2.0", "Channels."), ("7.0.0", "Selectors and kinds of access to keys.")]),
    doc("acl|users", "O(N) for N users", &[]),
    doc("acl|whoami", "O(1)", &[]),
    doc("acl|help", "O(1)", &[]),
];
