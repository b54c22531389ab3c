//! Facts about publish and subscribe, which the session executes.

pub(crate) use super::errors::PATTERN_TOO_LONG;
use crate::command::{Spec, Subcommand};

const LISTENING: Spec = Spec {
    arity: -2,
    flags: &["pubsub", "noscript", "loading", "stale"],
    categories: &["@pubsub", "@slow"],
    since: "2.0.0",
    group: "pubsub",
    ..Spec::NOTHING
};

const SHARDED: Spec = Spec {
    first_key: 1,
    last_key: -1,
    key_step: 1,
    key_flags: &["not_key"],
    since: "7.0.0",
    ..LISTENING
};

const PUBLISHING: Spec = Spec {
    arity: 3,
    flags: &["pubsub", "loading", "stale", "fast"],
    categories: &["@pubsub", "@fast"],
    ..LISTENING
};

const QUERY: Subcommand = Subcommand {
    name: "",
    arity: -2,
    flags: &["pubsub", "loading", "stale"],
    key_flags: &[],
    categories: &["@pubsub", "@slow"],
    tips: &[],
    summary: "",
    since: "2.8.0",
};

pub(super) const SPECS: &[Spec] = &[
    Spec { name: "SUBSCRIBE", summary: "Listens for messages published to channels.", ..LISTENING },
    Spec {
        name: "PSUBSCRIBE",
        summary: "Listens for messages published to channels that match one or more patterns.",
        ..LISTENING
    },
    Spec {
        name: "SSUBSCRIBE",
        summary: "Listens for messages published to shard channels.",
        ..SHARDED
    },
    Spec {
        name: "UNSUBSCRIBE",
        arity: -1,
        summary: "Stops listening to messages posted to channels.",
        ..LISTENING
    },
    Spec {
        name: "PUNSUBSCRIBE",
        arity: -1,
        summary: "Stops listening to messages published to channels that match one or more patterns.",
        ..LISTENING
    },
    Spec {
        name: "SUNSUBSCRIBE",
        arity: -1,
        summary: "Stops listening to messages posted to shard channels.",
        ..SHARDED
    },
    Spec { name: "PUBLISH", summary: "Posts a message to a channel.", ..PUBLISHING },
    Spec {
        name: "SPUBLISH",
        first_key: 1,
        last_key: 1,
        key_step: 1,
        key_flags: &["not_key"],
        summary: "Post a message to a shard channel.",
        since: "7.0.0",
        ..PUBLISHING
    },
    Spec {
        name: "PUBSUB",
        flags: &[],
        categories: &["@slow"],
        subcommands: PUBSUB,
        summary: "A container for Pub/Sub commands.",
        since: "2.8.0",
        ..LISTENING
    },
];

const PUBSUB: &[Subcommand] = &[
    Subcommand { name: "channels", summary: "Returns the active channels.", ..QUERY },
    Subcommand { name: "numsub", summary: "Returns a count of subscribers to channels.", ..QUERY },
    Subcommand {
        name: "numpat",
        arity: 2,
        summary: "Returns a count of unique pattern subscriptions.",
        ..QUERY
    },
    Subcommand {
        name: "shardchannels",
        summary: "Returns the active shard channels.",
        since: "7.0.0",
        ..QUERY
    },
    Subcommand {
        name: "shardnumsub",
        summary: "Returns the count of subscribers of shard channels.",
        since: "7.0.0",
        ..QUERY
    },
    Subcommand {
        name: "help",
        arity: 2,
        flags: &["loading", "stale"],
        categories: &["@slow"],
        summary: "Returns helpful text about the different subcommands.",
        since: "6.2.0",
        ..QUERY
    },
];

/// The reply to PUBSUB HELP.
pub(crate) const HELP: [&str; 11] = [
    "CHANNELS [<pattern>]",
    "    Return the currently active channels matching a <pattern> (default: '*').",
    "NUMPAT",
    "    Return number of subscriptions to patterns.",
    "NUMSUB [<channel> ...]",
    "    Return the number of subscribers for the specified channels, excluding",
    "    pattern subscriptions(default: no channels).",
    "SHARDCHANNELS [<pattern>]",
    "    Return the currently active shard level channels matching a <pattern> (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of subscribers for the specified shard level channel(s)",
];
