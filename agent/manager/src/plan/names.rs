//! Names of stores and nodes, and whether a definition and its machines make sense at all.

use crate::refusal::Refusal;
use dkv_protocol::admin::StoreDefinition;
use dkv_protocol::limits::{MEMORY_BYTES_PER_SHARD_MIN, NODES_PER_MACHINE_MAX};
use dkv_protocol::ranges::Replication;
use std::net::SocketAddr;

/// Longest name of a store, a prefix or a node.
const NAME_CHARS_MAX: usize = 63;
/// Most CPUs of one node: a shard needs a range, and there are 256.
const CPUS_MAX: u32 = 256;
/// Most copies besides the primary: each costs the memory of all, and every write waits for the slowest.
const REPLICAS_MAX: u8 = 6;

/// A letter, then letters, digits, `_` or `-`.
fn is_name(text: &str) -> bool {
    text.len() <= NAME_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The name of the node with a number: the prefix and the number, nothing in between.
pub(crate) fn node_name(prefix: &str, ordinal: u32) -> String {
    format!("{prefix}{ordinal}")
}

/// Whether `asked` names the node `name`: also `node-1` for `node1`.
pub(crate) fn is_node(prefix: &str, name: &str, asked: &str) -> bool {
    if name == asked {
        return true;
    }
    let number = asked.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| {
        number.bytes().all(|b| b.is_ascii_digit()) && name.strip_prefix(prefix) == Some(number)
    })
}

/// Checks the name of a node that was given by hand.
pub(crate) fn check_node_name(name: &str) -> Result<(), Refusal> {
    if is_name(name) { Ok(()) } else { Err(bad_name("node", name, "node3")) }
}

fn bad_name(what: &str, name: &str, example: &str) -> Refusal {
    let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
    Refusal::bad(
        "bad_name",
        format!(
            "\"{shown}\" is not the name of a {what}: a name is a letter, then letters, digits, _ or -, {NAME_CHARS_MAX} at most"
        ),
        format!("take a name as {example}"),
    )
}

/// Checks what can be checked without looking at the machine.
pub(crate) fn check_definition(definition: &StoreDefinition) -> Result<(), Refusal> {
    if !is_name(&definition.name) {
        return Err(bad_name("store", &definition.name, "TestStore"));
    }
    let longest = node_name(&definition.instance_prefix, 9_999);
    if !is_name(&longest) {
        return Err(bad_name("node (its prefix)", &definition.instance_prefix, "node"));
    }
    let count = definition.instance_count;
    if count == 0 {
        return Err(Refusal::bad(
            "bad_count",
            "an instance count of 0 makes no node",
            "give --instance-count 1 or more",
        ));
    }
    if count > NODES_PER_MACHINE_MAX {
        return Err(Refusal::bad(
            "bad_count",
            format!(
                "{count} nodes on a machine are too many: {NODES_PER_MACHINE_MAX} fit, as many as there are client ports \
                 from 7861 to 7899"
            ),
            format!("give --instance-count {NODES_PER_MACHINE_MAX} or less, or take more machines"),
        ));
    }
    match definition.cpus {
        Some(0) => {
            return Err(Refusal::bad(
                "bad_cpus",
                "a node needs a CPU at least",
                "give --cpus 1 or more, or leave it out",
            ));
        }
        Some(cpus) if cpus > CPUS_MAX => {
            return Err(Refusal::bad(
                "bad_cpus",
                format!("{cpus} CPUs for one node are too many: {CPUS_MAX} is the most"),
                "give a smaller --cpus, and more nodes",
            ));
        }
        _ => {}
    }
    check_memory(definition, definition.cpus.unwrap_or(1))?;
    if definition.memory_bytes_max == 0 && !definition.eviction.is_none() {
        return Err(Refusal::bad(
            "bad_eviction",
            format!(
                "{} says what goes when memory is at its limit, and there is no limit",
                definition.eviction
            ),
            "give a limit, as --max-memory 4GiB, or leave --eviction out",
        ));
    }
    check_replication(definition)?;
    let hash = definition.password_sha256.as_ref();
    if hash.is_some_and(|h| h.len() != 64 || !h.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Refusal::bad(
            "bad_password",
            "password_sha256 is not 64 hexadecimal digits",
            "give the password with --password-file",
        ));
    }
    Ok(())
}

/// Checks what does not depend on the number of nodes.
fn check_replication(definition: &StoreDefinition) -> Result<(), Refusal> {
    let Some(replication) = definition.replication else { return Ok(()) };
    let Replication { replicas, min_insync, .. } = replication;
    if replicas == 0 || replicas > REPLICAS_MAX {
        return Err(Refusal::bad(
            "bad_replicas",
            format!(
                "{replicas} copies besides the primary are not possible: 1 to {REPLICAS_MAX} are"
            ),
            "give --replicas 1, or leave it out for one copy of everything",
        ));
    }
    if min_insync == 0 || min_insync > replicas + 1 {
        return Err(Refusal::bad(
            "bad_min_insync",
            format!(
                "with {} copies of each range, primary included, {min_insync} in sync cannot be asked for",
                replicas + 1
            ),
            format!("give --min-insync from 1 to {}, or more --replicas", replicas + 1),
        ));
    }
    Ok(())
}

/// Whether a store of that many nodes can have the copies that are asked for.
pub(crate) fn check_copies(definition: &StoreDefinition, nodes: usize) -> Result<(), Refusal> {
    let replicas =
        definition.replication.map_or(0, |replication| usize::from(replication.replicas));
    if replicas < nodes.max(1) {
        return Ok(());
    }
    Err(Refusal::bad(
        "bad_replicas",
        format!(
            "{replicas} cop{} besides the primary need {} nodes, and the store {} has {nodes}",
            if replicas == 1 { "y" } else { "ies" },
            replicas + 1,
            definition.name
        ),
        format!(
            "give --instance-count {} or more, connect more machines, or give fewer --replicas",
            replicas + 1
        ),
    ))
}

/// Whether the memory limit of a node of that many CPUs is one to work with.
pub(crate) fn check_memory(definition: &StoreDefinition, cpus: u32) -> Result<(), Refusal> {
    const MIB: u64 = 1 << 20;
    let least = u64::from(cpus) * MEMORY_BYTES_PER_SHARD_MIN;
    if definition.memory_bytes_max == 0 || definition.memory_bytes_max >= least {
        return Ok(());
    }
    Err(Refusal::bad(
        "bad_memory",
        format!(
            "a memory limit of {} bytes is too small for a node of {cpus} CPU{}: each needs {} MiB",
            definition.memory_bytes_max,
            if cpus == 1 { "" } else { "s" },
            MEMORY_BYTES_PER_SHARD_MIN / MIB
        ),
        format!("give --max-memory {}MiB or more, or leave it out", least / MIB),
    ))
}

/// Checks the machines of a group: addresses that the others can connect to.
pub(crate) fn check_machines(machines: &[String], loopback_fine: bool) -> Result<(), Refusal> {
    for machine in machines {
        let Ok(address) = machine.parse::<SocketAddr>() else {
            return Err(Refusal::bad(
                "bad_machine",
                format!("{machine:?} is not the address and port of a manager"),
                "give addresses as 10.0.0.11:7801",
            ));
        };
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(Refusal::bad(
                "bad_machine",
                format!("{machine} is not an address that can be connected to"),
                "give the machine's own address, as 10.0.0.11:7801",
            ));
        }
        if machines.len() > 1 && address.ip().is_loopback() && !loopback_fine {
            return Err(Refusal::bad(
                "loopback_in_group",
                format!("{machine} is a loopback address: other machines cannot reach it"),
                "start that manager with its own address: dkv agent --listen 10.0.0.11:7801 --token-file FILE",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::eviction::Eviction;
    use dkv_protocol::io::IoChoice;

    fn definition(name: &str, prefix: &str, count: u32) -> StoreDefinition {
        StoreDefinition {
            name: name.to_string(),
            instance_prefix: prefix.to_string(),
            instance_count: count,
            clustron_port: None,
            client_port: None,
            cpus: None,
            memory_bytes_max: 0,
            eviction: Eviction::None,
            io: IoChoice::Auto,
            replication: None,
            password_sha256: None,
            protected_mode: true,
        }
    }

    #[test]
    fn definitions_are_checked_before_anything_else() {
        for (name, prefix, count, code) in [
            ("TestStore", "node", 1, None),
            ("TestStore", "orders-", 39, None),
            ("9lives", "node", 1, Some("bad_name")),
            ("../../etc", "node", 1, Some("bad_name")),
            ("", "node", 1, Some("bad_name")),
            ("a\nb", "node", 1, Some("bad_name")),
            ("TestStore", "", 1, Some("bad_name")),
            ("TestStore", "n/", 1, Some("bad_name")),
            ("TestStore", "node", 0, Some("bad_count")),
            ("TestStore", "node", 40, Some("bad_count")),
        ] {
            let verdict = check_definition(&definition(name, prefix, count));
            assert_eq!(verdict.err().map(|r| r.code), code, "{name:?} {prefix:?} {count}");
        }
        let refused = check_definition(&definition("S", "n", 40)).unwrap_err();
        assert!(refused.message.contains("39") && refused.hint.contains("39"));
    }

    #[test]
    fn a_memory_limit_is_one_to_work_with_and_a_policy_has_one() {
        let with = |bytes: u64, eviction: Eviction, cpus: Option<u32>| StoreDefinition {
            memory_bytes_max: bytes,
            eviction,
            cpus,
            ..definition("S", "n", 1)
        };
        let code = |definition| check_definition(&definition).err().map(|r| r.code);
        assert_eq!(code(with(1, Eviction::None, None)), Some("bad_memory"));
        assert_eq!(code(with(8 << 20, Eviction::None, None)), None);
        assert_eq!(code(with(8 << 20, Eviction::AllKeysLru, None)), None);
        assert_eq!(code(with(0, Eviction::AllKeysLru, None)), Some("bad_eviction"));
        let refused = check_definition(&with((32 << 20) - 1, Eviction::None, Some(4))).unwrap_err();
        assert!(refused.hint.contains("--max-memory 32MiB"), "{}", refused.hint);
    }

    #[test]
    fn copies_fit_the_nodes_and_what_is_asked_of_them() {
        let with = |replicas: u8, min_insync: u8| StoreDefinition {
            replication: Some(Replication { replicas, min_insync, ..Replication::NONE }),
            ..definition("S", "n", 1)
        };
        for (replicas, min_insync, nodes, code) in [
            (1, 1, 2, None),
            (2, 3, 3, None),
            (0, 1, 2, Some("bad_replicas")),
            (7, 1, 9, Some("bad_replicas")),
            (1, 0, 2, Some("bad_min_insync")),
            (1, 3, 3, Some("bad_min_insync")),
            (1, 1, 1, Some("bad_replicas")),
            (2, 1, 2, Some("bad_replicas")),
        ] {
            let asked = with(replicas, min_insync);
            let verdict = check_definition(&asked).and_then(|()| check_copies(&asked, nodes));
            assert_eq!(verdict.err().map(|r| r.code), code, "{replicas} {min_insync} {nodes}");
        }
        assert!(check_copies(&definition("S", "n", 1), 1).is_ok());
        let refused = check_copies(&with(1, 1), 1).unwrap_err();
        assert!(refused.message.contains("1 copy") && refused.hint.contains("--instance-count 2"));
    }

    #[test]
    fn a_group_holds_no_address_that_others_cannot_reach() {
        for (machines, code) in [
            (vec!["127.0.0.1:7801"], None),
            (vec!["10.0.0.11:7801", "10.0.0.12:7801"], None),
            (vec!["10.0.0.11:7801", "127.0.0.1:7801"], Some("loopback_in_group")),
            (vec!["0.0.0.0:7801"], Some("bad_machine")),
            (vec!["machine-a"], Some("bad_machine")),
        ] {
            let machines: Vec<String> = machines.into_iter().map(String::from).collect();
            assert_eq!(check_machines(&machines, false).err().map(|r| r.code), code);
        }
    }

    #[test]
    fn a_hyphen_before_the_number_is_forgiven() {
        for (prefix, name, asked, same) in [
            ("node", "node1", "node1", true),
            ("node", "node1", "node-1", true),
            ("node", "node11", "node-1", false),
            ("orders-", "orders-1", "orders-1", true),
            ("orders-", "orders-1", "orders1", false),
            ("node", "node1", "node-", false),
        ] {
            assert_eq!(is_node(prefix, name, asked), same, "{name} {asked}");
        }
    }
}
