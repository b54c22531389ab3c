//! The launch document on standard input: read within a bound, refused unless it makes sense as a whole.
//!
//! It stands apart so that everything behind it may trust the numbers: indexes are in range, counts fit each other,
//! secrets have their length. It binds nothing and opens nothing.

use crate::start::StartError;
use dkv_protocol::hello::Secret;
use dkv_protocol::ids::{NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::launch::{LAUNCH_VERSION, LaunchDocument};
use dkv_protocol::map::{NodeInfo, StoreMap};
use std::io::Read;

/// Largest launch document, bytes. A node entry with 64 shard ports is under 1 KiB, so a store of 1,000 nodes fits.
pub(crate) const LAUNCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most shards of one node: more than the cores of any machine this is built for; keeps one thread count sane.
pub(crate) const SHARDS_PER_NODE_MAX: usize = 256;
/// Most addresses to bind: loopback and the machine's own, in both families, with room.
const BIND_MAX: usize = 16;

/// A launch document that was checked, with the secrets as bytes.
pub(crate) struct Launch {
    pub(crate) document: LaunchDocument,
    pub(crate) hash_seed: [u64; 2],
    pub(crate) cluster_secret: Secret,
    pub(crate) password_sha256: Option<[u8; 32]>,
}

impl Launch {
    /// This node.
    pub(crate) fn node(&self) -> &NodeInfo {
        &self.document.nodes[usize::from(self.document.index.0)]
    }

    /// Number of shards of this node.
    pub(crate) fn shards(&self) -> usize {
        self.node().shard_ports.len()
    }

    /// Shard `shard` of this node.
    pub(crate) fn shard_addr(&self, shard: usize) -> ShardAddr {
        ShardAddr { node: self.document.index, shard: ShardIndex(shard as u16) }
    }

    /// The map that every node of the store makes of this document.
    pub(crate) fn map(&self) -> StoreMap {
        StoreMap::spread(self.document.nodes.clone(), self.document.epoch)
    }
}

/// Reads and checks the document. Standard input must end after it.
pub(crate) fn read(input: impl Read) -> Result<Launch, StartError> {
    let mut text = Vec::new();
    input
        .take(LAUNCH_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|e| bad(format!("standard input cannot be read: {e}")))?;
    if text.len() as u64 > LAUNCH_BYTES_MAX {
        return Err(bad(format!("it is longer than {LAUNCH_BYTES_MAX} bytes")));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(bad(
            "standard input is empty; `dkv node` is started by the manager (`dkv agent`), which writes it there",
        ));
    }
    parse(&text)
}

fn bad(reason: impl Into<String>) -> StartError {
    StartError::BadDocument(reason.into())
}

fn parse(text: &[u8]) -> Result<Launch, StartError> {
    // The version is looked at first: a newer document must be refused for its version, not for a field of it.
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| bad(format!("it is not JSON: {e}")))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(LAUNCH_VERSION) => {}
        Some(version) => {
            return Err(bad(format!(
                "its version is {version}, this build reads version {LAUNCH_VERSION}; start the node with the dkv binary of its manager"
            )));
        }
        None => return Err(bad("it has no version")),
    }
    let document: LaunchDocument = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
    check(document)
}

fn check(document: LaunchDocument) -> Result<Launch, StartError> {
    let nodes = &document.nodes;
    let index = usize::from(document.index.0);
    let Some(me) = nodes.get(index) else {
        return Err(bad(format!("index {index} names none of its {} nodes", nodes.len())));
    };
    if document.store.is_empty() {
        return Err(bad("the store has no name"));
    }
    if hex::<16>(&document.store_id.0).is_none() {
        return Err(bad("store_id is not 32 hexadecimal digits"));
    }
    if document.removed.iter().any(|node| usize::from(node.0) >= nodes.len()) {
        return Err(bad("it removes a node that it does not have"));
    }
    if document.removed.contains(&document.index) {
        return Err(bad("this node has left the store"));
    }
    if let Some(replication) = &document.replication
        && !(1..=replication.replicas.saturating_add(1)).contains(&replication.min_insync)
    {
        return Err(bad(format!(
            "min_insync is {}, and each range has {} copies",
            replication.min_insync,
            u32::from(replication.replicas) + 1
        )));
    }
    for node in nodes {
        check_node(node)?;
    }
    // Who has left the store may have left its ports to another.
    let present: Vec<&NodeInfo> = (0..)
        .zip(nodes)
        .filter(|(i, _)| !document.removed.contains(&NodeIndex(*i)))
        .map(|(_, node)| node)
        .collect();
    for (i, node) in present.iter().enumerate() {
        if let Some(twin) = present[..i].iter().find(|other| other.name == node.name) {
            return Err(bad(format!("two nodes are named {}", twin.name)));
        }
        let taken =
            present[..i].iter().filter(|other| other.address == node.address).find_map(|other| {
                ports(other).find(|port| ports(node).any(|p| p == *port)).map(|port| (other, port))
            });
        if let Some((other, port)) = taken {
            return Err(bad(format!(
                "{} and {} both have port {port} of {}",
                other.name, node.name, node.address
            )));
        }
    }
    if document.cpus.len() != me.shard_ports.len() {
        return Err(bad(format!(
            "{} CPUs for {} shard ports; each shard has one of each",
            document.cpus.len(),
            me.shard_ports.len()
        )));
    }
    if document.bind.is_empty() || document.bind.len() > BIND_MAX {
        return Err(bad(format!(
            "{} addresses to bind; 1 to {BIND_MAX} are possible",
            document.bind.len()
        )));
    }
    if let Some(address) = document
        .bind
        .iter()
        .enumerate()
        .find_map(|(i, a)| document.bind[..i].contains(a).then_some(a))
    {
        return Err(bad(format!("{address} is to be bound twice")));
    }
    for (what, path) in
        [("control_socket", &document.control_socket), ("lock_file", &document.lock_file)]
    {
        if path.is_empty() || path.contains('\0') {
            return Err(bad(format!("{what} is not a path")));
        }
    }
    document.users.check().map_err(|why| bad(format!("its users are none: {why}")))?;
    let seed = hex::<16>(&document.hash_seed)
        .ok_or_else(|| bad("hash_seed is not 32 hexadecimal digits"))?;
    let (first, second) = seed.split_at(8);
    let hash_seed = [first, second]
        .map(|half| u64::from_be_bytes(half.try_into().expect("half of sixteen bytes")));
    let cluster_secret = Secret::from_hex(&document.cluster_secret)
        .ok_or_else(|| bad("cluster_secret is not 64 hexadecimal digits"))?;
    let password_sha256 = match &document.password_sha256 {
        None => None,
        Some(text) => Some(
            hex::<32>(text).ok_or_else(|| bad("password_sha256 is not 64 hexadecimal digits"))?,
        ),
    };
    Ok(Launch { document, hash_seed, cluster_secret, password_sha256 })
}

fn check_node(node: &NodeInfo) -> Result<(), StartError> {
    if node.name.is_empty()
        || !node.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(bad(format!(
            "{:?} is not a node name (letters, digits, '-' and '_')",
            node.name
        )));
    }
    if node.shard_ports.is_empty() || node.shard_ports.len() > SHARDS_PER_NODE_MAX {
        return Err(bad(format!(
            "{} has {} shard ports; 1 to {SHARDS_PER_NODE_MAX} are possible",
            node.name,
            node.shard_ports.len()
        )));
    }
    let mut seen: Vec<u16> = ports(node).collect();
    seen.sort_unstable();
    if seen[0] == 0 {
        return Err(bad(format!("{} has port 0; others could not find it", node.name)));
    }
    if let Some([port, _]) = seen.array_windows().find(|[one, next]| one == next) {
        return Err(bad(format!("{} has port {port} twice", node.name)));
    }
    Ok(())
}

fn ports(node: &NodeInfo) -> impl Iterator<Item = u16> + '_ {
    [node.cluster_port, node.client_port].into_iter().chain(node.shard_ports.iter().copied())
}

/// Exactly `N` bytes from `2 * N` hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::launch::exit;

    fn document() -> serde_json::Value {
        serde_json::json!({
            "version": 1, "store": "TestStore", "store_id": "0123456789abcdef0123456789abcdef", "index": 1,
            "nodes": [
                {"name": "node1", "address": "127.0.0.1", "cluster_port": 7811, "client_port": 7861, "shard_ports": [7900, 7901]},
                {"name": "node2", "address": "127.0.0.1", "cluster_port": 7812, "client_port": 7862, "shard_ports": [7902]},
            ],
            "epoch": 1, "bind": ["127.0.0.1"], "cpus": [0], "cpus_exclusive": false,
            "hash_seed": "000000000000000100000000000000ff",
            "cluster_secret": "11".repeat(32), "password_sha256": null, "protected_mode": true,
            "memory_bytes_max": 0, "control_socket": "/run/node2.sock", "lock_file": "/run/node2.lock",
        })
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut value = document();
        change(&mut value);
        let error = read(value.to_string().as_bytes()).err().expect("the document must be refused");
        assert_eq!(error.exit_code(), exit::BAD_LAUNCH_DOCUMENT, "{error}");
        error.to_string()
    }

    #[test]
    fn a_good_document_is_taken_with_its_secrets_as_bytes() {
        let launch = read(document().to_string().as_bytes()).expect("it is good");
        assert_eq!(launch.hash_seed, [1, 255]);
        assert_eq!((launch.node().name.as_str(), launch.shards()), ("node2", 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_and_why() {
        type Change = fn(&mut serde_json::Value);
        let cases: &[(Change, &str)] = &[
            (|d| d["version"] = 2.into(), "version is 2, this build reads version 1"),
            (|d| drop(d.as_object_mut().unwrap().remove("version")), "no version"),
            (|d| d["colour"] = "red".into(), "unknown field `colour`"),
            (|d| drop(d.as_object_mut().unwrap().remove("epoch")), "missing field `epoch`"),
            (|d| d["index"] = 2.into(), "names none of its 2 nodes"),
            (|d| d["cpus"] = vec![0, 1].into(), "2 CPUs for 1 shard ports"),
            (|d| d["bind"] = Vec::<String>::new().into(), "0 addresses"),
            (|d| d["bind"] = vec!["127.0.0.1", "127.0.0.1"].into(), "bound twice"),
            (|d| d["hash_seed"] = "12".into(), "hash_seed"),
            (|d| d["cluster_secret"] = "zz".repeat(32).into(), "cluster_secret"),
            (|d| d["store_id"] = "x".into(), "store_id"),
            (|d| d["nodes"][0]["name"] = "node2".into(), "two nodes are named node2"),
            (|d| d["nodes"][0]["name"] = "a b".into(), "not a node name"),
            (|d| d["nodes"][0]["client_port"] = 7812.into(), "both have port 7812"),
            (|d| d["nodes"][0]["client_port"] = 7811.into(), "port 7811 twice"),
            (|d| d["nodes"][0]["client_port"] = 0.into(), "port 0"),
            (
                |d| d["users"] = serde_json::json!({"version": 1, "lines": ["nonsense"]}),
                "its users are none",
            ),
            (|d| d["removed"] = vec![2].into(), "removes a node that it does not have"),
            (|d| d["removed"] = vec![1].into(), "this node has left"),
            (
                |d| {
                    d["replication"] = serde_json::json!({
                        "replicas": 1, "ack": "all", "min_insync": 3, "read": "lease", "on_total_loss": "reinit",
                    });
                },
                "min_insync is 3, and each range has 2 copies",
            ),
            (|d| d["nodes"][1]["shard_ports"] = Vec::<u16>::new().into(), "0 shard ports"),
        ];
        for (change, expected) in cases {
            let text = refusal(change);
            assert!(text.contains(expected), "{expected:?} is not in {text:?}");
        }
    }

    #[test]
    fn endless_empty_and_broken_input_is_refused() {
        for (input, expected) in [
            (&b" \n"[..], "empty"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[1]", "no version"),
        ] {
            let error = read(input).err().expect("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read(std::io::repeat(b' ')).err().expect("refused").to_string();
        assert!(error.contains("longer than"), "{error}");
    }
}
