//! The node's account of itself: what it tells its manager, and the gauges of the process that INFO shows.

use crate::shared::Shared;
use dkv_protocol::control::NodeStatus;

/// What the process costs its machine, as of now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessCost {
    pub(crate) resident_bytes: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

/// Reads `/proc`, on the control thread's ring if it has one. A file that cannot be read leaves its numbers at 0: they are shown, nothing
/// acts on them.
pub(crate) async fn process_cost(has_ring: bool) -> ProcessCost {
    let mut cost = ProcessCost::default();
    if let Some(text) = read_small("/proc/self/statm", has_ring).await {
        // statm: size resident …, in pages.
        let pages =
            text.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        cost.resident_bytes = pages * rustix::param::page_size() as u64;
    }
    if let Some(text) = read_small("/proc/self/stat", has_ring).await {
        // The second field is the name in parentheses and may hold blanks; utime and stime are fields 14 and 15, in ticks.
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let mut fields =
            after_name.split_ascii_whitespace().skip(11).map_while(|n| n.parse::<u64>().ok());
        cost.user_us = fields.next().unwrap_or(0) * tick_us;
        cost.system_us = fields.next().unwrap_or(0) * tick_us;
    }
    cost
}

async fn read_small(path: &str, has_ring: bool) -> Option<String> {
    if !has_ring {
        // The kernel makes these files up as they are read: no disk is waited for.
        return std::fs::read_to_string(path).ok();
    }
    let file = tokio_uring::fs::File::open(path).await.ok()?;
    let (read, mut bytes) = file.read_at(Vec::with_capacity(4096), 0).await;
    let closed = file.close().await;
    bytes.truncate(read.ok()?);
    closed.ok()?;
    String::from_utf8(bytes).ok()
}

/// The status line.
pub(crate) fn node_status(shared: &Shared) -> NodeStatus {
    let document = &shared.launch.document;
    let unreachable: Vec<String> = shared
        .board
        .unreachable()
        .into_iter()
        .map(|node| shared.map().node(node).name.clone())
        .collect();
    NodeStatus {
        store: document.store.clone(),
        store_id: document.store_id.0.clone(),
        node: shared.env.node.clone(),
        pid: shared.env.pid,
        boot: shared.boot_text(),
        uptime_ms: dkv_io::clock::boottime_ms().saturating_sub(shared.env.started_boot_ms),
        io: shared.env.io.clone(),
        cluster_ok: unreachable.is_empty(),
        unreachable,
        resident_bytes: shared.env.process.resident_bytes.get(),
        cpu_us: dkv_io::clock::process_cpu_ns() / 1_000,
        users_version: Some(shared.users().version),
        shards: shared.env.stats.iter().map(|stats| stats.snapshot()).collect(),
        commands: dkv_shard::stats::of_commands(&shared.env.stats),
    }
}
