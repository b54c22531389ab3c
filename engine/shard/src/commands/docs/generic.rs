//! Keys, whatever is in them, and transactions.

use super::{Arg, Doc, doc, integer, key, one_of, pattern, string, unix_time, word};

const KEY: Arg = key("key", 0);
const KEYS: &[Arg] = &[KEY.multiple()];
const CONDITION: Arg =
    one_of("condition", &[word("nx", "NX"), word("xx", "XX"), word("gt", "GT"), word("lt", "LT")])
        .since("7.0.0")
        .optional();
const CONDITION_HISTORY: &[(&str, &str)] = &[("7.0.0", "`NX`, `XX`, `GT` and `LT`.")];
const TTL_HISTORY: &[(&str, &str)] = &[("2.8.0", "The reply -2, for a key that is not there.")];
const FLUSH: &[Arg] = &[one_of(
    "async",
    &[word("async", "ASYNC").since("4.0.0"), word("sync", "SYNC").since("6.2.0")],
)
.optional()];
const FLUSH_HISTORY: &[(&str, &str)] = &[("4.0.0", "`ASYNC`."), ("6.2.0", "`SYNC`.")];
const RENAME: &[Arg] = &[KEY, key("newkey", 1)];

pub(super) const DOCS: &[Doc] = &[
    doc("object", "That of the subcommand", &[]),
    doc("object|encoding", "O(1)", &[KEY]),
    doc("object|freq", "O(1)", &[KEY]),
    doc("object|idletime", "O(1)", &[KEY]),
    doc("object|refcount", "O(1)", &[KEY]),
    doc("object|help", "O(1)", &[]),
    doc("del", "O(N) for N keys", KEYS),
    doc("unlink", "O(N) for N keys", KEYS),
    doc("exists", "O(N) for N keys", KEYS).history(&[("3.0.3", "Several keys.")]),
    doc("touch", "O(N) for N keys", KEYS),
    doc("type", "O(1)", &[KEY]),
    doc("dbsize", "O(N) for N shards of the store", &[]),
    doc("flushall", "O(N) for all N keys of the store", FLUSH).history(FLUSH_HISTORY),
    doc("flushdb", "O(N) for all N keys of the store", FLUSH).history(FLUSH_HISTORY),
    doc("rename", "O(1)", RENAME),
    doc("renamenx", "O(1)", RENAME).history(&[("3.2.0", "A key may be renamed to itself.")]),
    doc(
        "copy",
        "O(N) for N bytes of the value",
        &[
            key("source", 0),
            key("destination", 1),
            integer("destination-db").token("DB").optional(),
            word("replace", "REPLACE").optional(),
        ],
    ),
    doc("randomkey", "O(N) for N shards of the store", &[]),
    doc("dump", "O(N) for N bytes of the value", &[KEY]),
    doc(
        "restore",
        "O(N) for N bytes of the value",
        &[
            KEY,
            integer("ttl"),
            string("serialized-value"),
            word("replace", "REPLACE").since("3.0.0").optional(),
            word("absttl", "ABSTTL").since("5.0.0").optional(),
            integer("seconds").token("IDLETIME").since("5.0.0").optional(),
            integer("frequency").token("FREQ").since("5.0.0").optional(),
        ],
    )
    .history(&[
        ("3.0.0", "`REPLACE`."),
        ("5.0.0", "`ABSTTL`."),
        ("5.0.0", "`IDLETIME` and `FREQ`."),
    ]),
    doc("expire", "O(1)", &[KEY, integer("seconds"), CONDITION]).history(CONDITION_HISTORY),
    doc("pexpire", "O(1)", &[KEY, integer("milliseconds"), CONDITION]).history(CONDITION_HISTORY),
    doc("expireat", "O(1)", &[KEY, unix_time("unix-time-seconds"), CONDITION])
        .history(CONDITION_HISTORY),
    doc("pexpireat", "O(1)", &[KEY, unix_time("unix-time-milliseconds"), CONDITION])
        .history(CONDITION_HISTORY),
    doc("ttl", "O(1)", &[KEY]).history(TTL_HISTORY),
    doc("pttl", "O(1)", &[KEY]).history(TTL_HISTORY),
    doc("expiretime", "O(1)", &[KEY]),
    doc("pexpiretime", "O(1)", &[KEY]),
    doc("persist", "O(1)", &[KEY]),
    doc(
        "scan",
        "O(1) for a call, O(N) for all N keys of the store",
        &[
            integer("cursor"),
            pattern("pattern").token("MATCH").optional(),
            integer("count").token("COUNT").optional(),
            string("type").token("TYPE").since("6.0.0").optional(),
        ],
    )
    .history(&[("6.0.0", "`TYPE`.")]),
    doc("keys", "O(N) for all N keys of the store", &[pattern("pattern")]),
    doc("wait", "O(1)", &[integer("numreplicas"), integer("timeout")]),
    doc("multi", "O(1)", &[]),
    doc("exec", "That of the commands of the transaction", &[]),
    doc("discard", "O(N) for N commands that were queued", &[]),
    doc("watch", "O(N) for N keys", KEYS),
    doc("unwatch", "O(N) for N keys that are watched", &[]),
];
