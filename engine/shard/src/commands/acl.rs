//! Facts about ACL, which the session executes (`crate::acl`).

use crate::command::{Spec, Subcommand};

/// What everybody may ask.
const SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["noscript", "loading", "stale"],
    key_flags: &[],
    categories: &["@slow"],
    tips: &[],
    summary: "",
    since: "6.0.0",
};

const ADMIN: Subcommand = Subcommand {
    flags: &["admin", "noscript", "loading", "stale"],
    categories: &["@admin", "@slow", "@dangerous"],
    ..SUB
};

pub(super) const ACL: Spec = Spec {
    name: "ACL",
    arity: -2,
    categories: &["@slow"],
    subcommands: &[
        Subcommand {
            name: "cat",
            arity: -2,
            summary: "Lists the categories of commands, or the commands of one.",
            ..SUB
        },
        Subcommand {
            name: "deluser",
            arity: -3,
            summary: "Deletes users of the store, and closes their connections.",
            ..ADMIN
        },
        Subcommand {
            name: "dryrun",
            arity: -4,
            summary: "Says whether a user may execute a command, without executing it.",
            since: "7.0.0",
            ..ADMIN
        },
        Subcommand {
            name: "genpass",
            arity: -2,
            summary: "Makes a password that nobody can guess.",
            ..SUB
        },
        Subcommand { name: "getuser", arity: 3, summary: "Returns the rules of a user.", ..ADMIN },
        Subcommand {
            name: "help",
            flags: &["loading", "stale"],
            summary: "Returns helpful text about the different subcommands.",
            ..SUB
        },
        Subcommand {
            name: "list",
            summary: "Returns the rules of all users, a line each.",
            ..ADMIN
        },
        Subcommand { name: "load", summary: "Is an error: the store keeps its users.", ..ADMIN },
        Subcommand {
            name: "log",
            arity: -2,
            summary: "Lists what users of this node were not allowed to do, or forgets it.",
            ..ADMIN
        },
        Subcommand { name: "save", summary: "Is an error: the store keeps its users.", ..ADMIN },
        Subcommand {
            name: "setuser",
            arity: -3,
            summary: "Creates a user of the store, or changes its rules.",
            ..ADMIN
        },
        Subcommand { name: "users", summary: "Lists the names of all users.", ..ADMIN },
        Subcommand {
            name: "whoami",
            summary: "Returns the name of the user that this connection is.",
            ..SUB
        },
    ],
    summary: "A container for the users of the store and what they may do.",
    since: "6.0.0",
    group: "server",
    ..Spec::NOTHING
};
