//! The categories of commands, and the commands of each.

use crate::commands;

/// The names of all categories, as ACL CAT lists them. Some have no command here.
pub(crate) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// The category of that name, in any case.
pub(crate) fn named(name: &[u8]) -> Option<&'static str> {
    CATEGORIES.into_iter().find(|one| one.as_bytes().eq_ignore_ascii_case(name))
}

/// The numbers of the commands, and of the subcommands, that are in a category by themselves. A number of a container that
/// is among them stands for all of its subcommands.
pub(crate) fn members(category: &str) -> impl Iterator<Item = u16> {
    (0..commands::NUMBERS as u16).filter(move |number| {
        let has = |one: &&str| one.strip_prefix('@') == Some(category);
        commands::categories_of(*number).iter().any(has)
    })
}
