//! Connections and their clients, and what they subscribe to.

use super::{Arg, Doc, block, doc, integer, one_of, pattern, string, word};

const SWITCH: &[Arg] = &[word("on", "ON"), word("off", "OFF")];
const NORMAL: Arg = word("normal", "NORMAL");
const MASTER: Arg = word("master", "MASTER");
const REPLICA: Arg = word("replica", "REPLICA");
const PUBSUB: Arg = word("pubsub", "PUBSUB");
const CLIENT_ID: Arg = integer("client-id");
const PER_CLIENT: &str = "O(N) for N connections of the store";
const PER_CHANNEL: &str = "O(N) for N channels";
const CHANNELS: Arg = string("channel").multiple();
const SHARD_CHANNELS: Arg = string("shardchannel").multiple();

pub(super) const DOCS: &[Doc] = &[
    doc("ping", "O(1)", &[string("message").optional()]),
    doc("echo", "O(1)", &[string("message")]),
    doc(
        "auth",
        "O(N) for N passwords of the user",
        &[string("username").since("6.0.0").optional(), string("password")],
    )
    .history(&[("6.0.0", "A user's name before the password.")]),
    doc(
        "hello",
        "O(1)",
        &[block(
            "arguments",
            &[
                integer("protover"),
                block("username_password", &[string("username"), string("password")])
                    .token("AUTH")
                    .optional(),
                string("clientname").token("SETNAME").optional(),
            ],
        )
        .optional()],
    )
    .history(&[("6.2.0", "Without arguments it tells of the connection.")]),
    doc("quit", "O(1)", &[]),
    doc("reset", "O(1)", &[]),
    doc("select", "O(1)", &[integer("index")]),
    doc("readonly", "O(1)", &[]),
    doc("readwrite", "O(1)", &[]),
    doc("asking", "O(1)", &[]),
    doc("client", "That of the subcommand", &[]),
    doc("client|getname", "O(1)", &[]),
    doc("client|setname", "O(1)", &[string("connection-name")]),
    doc(
        "client|setinfo",
        "O(1)",
        &[one_of(
            "attr",
            &[string("libname").token("LIB-NAME"), string("libver").token("LIB-VER")],
        )],
    ),
    doc("client|id", "O(1)", &[]),
    doc("client|info", "O(1)", &[]),
    doc("client|caching", "O(1)", &[one_of("mode", &[word("yes", "YES"), word("no", "NO")])]),
    doc("client|getredir", "O(1)", &[]),
    doc(
        "client|tracking",
        "O(N) for N prefixes",
        &[
            one_of("status", SWITCH),
            CLIENT_ID.token("REDIRECT").optional(),
            string("prefix").token("PREFIX").optional().each_with_token(),
            word("bcast", "BCAST").optional(),
            word("optin", "OPTIN").optional(),
            word("optout", "OPTOUT").optional(),
            word("noloop", "NOLOOP").optional(),
        ],
    ),
    doc("client|trackinginfo", "O(1)", &[]),
    doc(
        "client|kill",
        PER_CLIENT,
        &[one_of(
            "filter",
            &[
                string("ip:port").deprecated("2.8.12"),
                one_of(
                    "new-format",
                    &[
                        CLIENT_ID.token("ID").since("2.8.12").optional(),
                        one_of(
                            "normal_master_slave_pubsub",
                            &[
                                NORMAL,
                                MASTER.since("3.2.0"),
                                word("slave", "SLAVE"),
                                REPLICA.since("5.0.0"),
                                PUBSUB,
                            ],
                        )
                        .token("TYPE")
                        .since("2.8.12")
                        .optional(),
                        string("username").token("USER").optional(),
                        string("ip:port").token("ADDR").optional(),
                        string("ip:port").token("LADDR").since("6.2.0").optional(),
                        string("yes/no").token("SKIPME").optional(),
                    ],
                )
                .multiple(),
            ],
        )],
    )
    .history(&[
        ("2.8.12", "Filters instead of an address."),
        ("2.8.12", "`ID`."),
        ("3.2.0", "`master` as a `TYPE`."),
        ("5.0.0", "`replica` as a `TYPE`; `slave` is the same."),
        ("6.2.0", "`LADDR`."),
    ]),
    doc(
        "client|list",
        PER_CLIENT,
        &[
            one_of("normal_master_replica_pubsub", &[NORMAL, MASTER, REPLICA, PUBSUB])
                .token("TYPE")
                .since("5.0.0")
                .optional(),
            block("id", &[CLIENT_ID.multiple()]).token("ID").since("6.2.0").optional(),
        ],
    )
    .history(&[
        ("2.8.12", "The field `id`."),
        ("5.0.0", "`TYPE`."),
        ("6.0.0", "The field `user`."),
        ("6.2.0", "`ID`, and the fields `argv-mem`, `tot-mem`, `laddr` and `redir`."),
        ("7.0.0", "The fields `resp`, `multi-mem`, `rbs` and `rbp`."),
        ("7.0.3", "The field `ssub`."),
    ]),
    doc("client|no-evict", "O(1)", &[one_of("enabled", SWITCH)]),
    doc("client|no-touch", "O(1)", &[one_of("enabled", SWITCH)]),
    doc(
        "client|pause",
        "O(1)",
        &[
            integer("timeout"),
            one_of("mode", &[word("write", "WRITE"), word("all", "ALL")]).since("6.2.0").optional(),
        ],
    )
    .history(&[("6.2.0", "`WRITE` and `ALL`.")]),
    doc(
        "client|reply",
        "O(1)",
        &[one_of("on_off_skip", &[word("on", "ON"), word("off", "OFF"), word("skip", "SKIP")])],
    ),
    doc(
        "client|unblock",
        PER_CLIENT,
        &[
            CLIENT_ID,
            one_of("timeout_error", &[word("timeout", "TIMEOUT"), word("error", "ERROR")])
                .optional(),
        ],
    ),
    doc("client|unpause", PER_CLIENT, &[]),
    doc("client|help", "O(1)", &[]),
    doc("subscribe", PER_CHANNEL, &[CHANNELS]),
    doc(
        "psubscribe",
        "O(N) for N patterns of the connection",
        &[block("pattern", &[pattern("pattern")]).multiple()],
    ),
    doc("ssubscribe", PER_CHANNEL, &[SHARD_CHANNELS]),
    doc("unsubscribe", PER_CHANNEL, &[CHANNELS.optional()]),
    doc(
        "punsubscribe",
        "O(N) for N patterns of the connection",
        &[pattern("pattern").optional().multiple()],
    ),
    doc("sunsubscribe", PER_CHANNEL, &[SHARD_CHANNELS.optional()]),
    doc(
        "publish",
        "O(N+M) for N who have subscribed and all M patterns",
        &[string("channel"), string("message")],
    ),
    doc("spublish", "O(N) for N who have subscribed", &[string("shardchannel"), string("message")]),
    doc("pubsub", "That of the subcommand", &[]),
    doc("pubsub|channels", PER_CHANNEL, &[pattern("pattern").optional()]),
    doc("pubsub|numsub", PER_CHANNEL, &[CHANNELS.optional()]),
    doc("pubsub|numpat", "O(N) for N shards of the store", &[]),
    doc("pubsub|shardchannels", PER_CHANNEL, &[pattern("pattern").optional()]),
    doc("pubsub|shardnumsub", PER_CHANNEL, &[SHARD_CHANNELS.optional()]),
    doc("pubsub|help", "O(1)", &[]),
];
