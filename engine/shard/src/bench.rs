//! What unit tests need of a shard without connections.

use crate::command::{Env, Exec, Now, ProcessStats};
use crate::stats::ShardStats;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_protocol::resp::Proto;
use dkv_table::{HeapMemory, Options, Table};
use std::vec;

/// The first shard of a store of so many nodes with a shard each.
pub(crate) fn map(nodes: u16) -> StoreMap {
    let info = |i: u16| NodeInfo {
        name: std::format!("node{}", i + 1),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        cluster_port: 7811 + i,
        client_port: 7861 + i,
        shard_ports: vec![7900 + i],
    };
    StoreMap::spread((0..nodes).map(info).collect(), Epoch(1))
}

/// The first shard of the first node.
pub(crate) const ME: ShardAddr = ShardAddr { node: NodeIndex(0), shard: ShardIndex(0) };

/// Lends what a command may touch.
pub(crate) fn with_exec<R>(work: impl FnOnce(&Exec<'_>) -> R) -> R {
    let stats = Arc::new(ShardStats::default());
    let env = Env {
        store: "test".into(),
        store_id: "id".into(),
        node: "node1".into(),
        run_id: "0".repeat(40),
        pid: 1,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_port: 7861,
        started_boot_ms: 0,
        map: Arc::new(map(1)),
        password_sha256: None,
        protected_mode: true,
        settings: crate::settings::Settings::new(0, Eviction::None),
        clock: || 0,
        random: |bytes| {
            bytes.fill(7);
            true
        },
        io: "test".into(),
        stats: vec![stats.clone()],
        process: ProcessStats::default(),
    };
    let options = Options {
        seed: [1, 2],
        memory_bytes_max: 0,
        eviction: dkv_table::Eviction::None,
        first_version: 1,
    };
    let mut table = Table::new(options, Box::new(HeapMemory));
    work(&Exec {
        now: Now::default(),
        table: &mut table,
        env: &env,
        me: ME,
        whole_store: true,
        proto: Proto::Resp2,
        stats: &stats,
        place: None,
        inserts: None,
        gates: None,
    })
}
