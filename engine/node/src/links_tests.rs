//! Tests of what a link does with its frames, without a driver around it.

use super::*;
use dkv_io::{Options, UringReactor};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::frame::{RequestHead, write_request};
use dkv_protocol::ids::{Epoch, RangeId, ShardIndex};
use dkv_protocol::map::NodeInfo;
use dkv_protocol::peer::{BatchHead, EchoOf, Message, begin_batch, read_batch, write_echo};
use dkv_protocol::ranges::{RangeConfig, RangeNews, RangeState, Rid};
use dkv_protocol::resp::Proto;
use dkv_protocol::slots::slot_of;
use dkv_shard::Shard;
use dkv_shard::command::{Env, Now, ProcessStats};
use dkv_shard::settings::Settings;
use dkv_shard::stats::ShardStats;
use dkv_table::{HeapMemory, Table};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

const OTHER_BOOT: BootId = BootId(8);

const fn shard_of(node: u16) -> ShardAddr {
    ShardAddr { node: NodeIndex(node), shard: ShardIndex(0) }
}

fn now() -> Now {
    Now { boot_ns: boottime_ns(), unix_ms: 1 }
}

fn rid(node: u16, boot: u64) -> Rid {
    Rid { addr: shard_of(node), boot: BootId(boot), generation: 0 }
}

/// The first of two shards, which leads `range` with a copy at the other, and whose log is full with anything in it.
fn leading(range: RangeId) -> Shard {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let node = |i: u16| NodeInfo {
        name: format!("node{}", i + 1),
        address,
        cluster_port: 7811 + i,
        client_port: 7861 + i,
        shard_ports: vec![7900 + i],
    };
    let env = Env {
        store: "test".into(),
        store_id: "id".into(),
        node: "node1".into(),
        run_id: "0".repeat(40),
        pid: 1,
        address,
        client_port: 7861,
        started_boot_ms: 0,
        map: Arc::new(StoreMap::spread((0..2).map(node).collect(), Epoch(1))),
        password_sha256: None,
        protected_mode: true,
        settings: Settings::new(0, Eviction::None),
        clock: || 0,
        random: |bytes| {
            bytes.fill(7);
            true
        },
        io: "test".into(),
        stats: vec![Arc::new(ShardStats::default())],
        process: ProcessStats::default(),
    };
    let options = dkv_table::Options {
        seed: [1, 2],
        memory_bytes_max: 0,
        eviction: dkv_table::Eviction::None,
        first_version: 1,
    };
    let table = Table::new(options, Box::new(HeapMemory));
    let mut shard = Shard::new(Arc::new(env), shard_of(0), table);
    let settings = dkv_cluster::Settings { log_bytes_max: 1, ..dkv_cluster::Settings::default() };
    shard.replicate(BootId(7), settings);
    let members = vec![rid(0, 7), rid(1, OTHER_BOOT.0)];
    let config = RangeConfig {
        epoch: Epoch(1),
        primary: members[0],
        in_sync: members,
        state: RangeState::Normal,
        first_index: 1000,
        formed: Epoch(1),
    };
    let placement = vec![shard_of(0), shard_of(1)];
    shard.link_up(shard_of(1));
    let news = RangeNews {
        range,
        config: Some(config),
        placement,
        placement_version: 1,
        answer: false,
        left: Vec::new(),
    };
    shard.news(now(), &[news]);
    shard
}

fn from_copy(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    begin_batch(&mut body, BatchHead { boot: OTHER_BOOT, now_ms: 1 });
    write(&mut body);
    body
}

/// The copy grants a lease: it echoes the beacon that was sent to it.
fn grant(shard: &mut Shard, range: RangeId) {
    let mut echoes = Vec::new();
    shard.background(now(), 1);
    while let Some((_, body)) = shard.next_peer_batch() {
        for message in read_batch(&body).unwrap().1.map(Result::unwrap) {
            if let Message::Beacon { round, sent_ns, .. } = message {
                let of = EchoOf { range, epoch: Epoch(1), generation: 0 };
                echoes = from_copy(|body| write_echo(body, round, sent_ns, [of]));
            }
        }
    }
    assert!(!echoes.is_empty(), "a beacon was sent");
    shard.peer(now(), shard_of(1), &echoes).unwrap();
}

fn link(conn: Conn) -> Link {
    Link {
        peer: shard_of(1),
        number: 0,
        boot: OTHER_BOOT,
        dialled: false,
        conn,
        reader: FrameReader::new(),
        input: Vec::new(),
        rest: VecDeque::new(),
        rest_at: 0,
        unfinished: false,
        output: Vec::new(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        spare: Vec::new(),
        sending: false,
        heard_ns: 0,
        said_ns: 0,
    }
}

fn frame_of(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frame::begin_frame(&mut out);
    out.extend_from_slice(body);
    frame::end_frame(&mut out, start, kind);
    out
}

/// In as many turns as it takes: on a busy machine each may be long enough for one frame only.
fn take_all(link: &mut Link, frames: &[u8], shard: &mut Shard) {
    take_frames(link, frames, shard, now()).unwrap();
    for _ in 0..100 {
        take_frames(link, &[], shard, now()).unwrap();
    }
}

fn set(id: u32) -> Vec<u8> {
    let mut batch = Vec::new();
    let head =
        RequestHead { id, proto: Proto::Resp2, whole_store: true, first: true, no_touch: false };
    write_request(&mut batch, head, [&b"SET"[..], b"key", b"value"]);
    frame_of(FrameKind::Requests, &batch)
}

#[test]
fn what_copies_say_does_not_wait_behind_requests_that_wait_for_them() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut reactor = UringReactor::new(Options::new(dkv_io::WakeHandle::new().unwrap())).unwrap();
    let mut link = link(reactor.adopt(stream.into()).unwrap());
    let range = slot_of(b"key").range();
    let mut shard = leading(range);
    grant(&mut shard, range);
    let acknowledged = from_copy(|body| {
        let epoch = Epoch(1);
        Message::Ack {
            range,
            epoch,
            generation: 0,
            matched: 1001,
            applied: 1000,
            part_bytes: 0,
            whole: true,
        }
        .write(body);
    });
    // The first fills the log. The others wait for room in it, which the acknowledgement behind them makes.
    let frames = [set(1), set(2), set(3), frame_of(FrameKind::Peer, &acknowledged)].concat();
    take_all(&mut link, &frames, &mut shard);
    assert_eq!(shard.range_view(range).unwrap().commit, 1001, "the copy was heard");
    assert_eq!(link.rest.len(), 2, "and nothing was executed out of turn");
}

#[test]
fn more_batches_than_may_be_under_way_end_the_link() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut reactor = UringReactor::new(Options::new(dkv_io::WakeHandle::new().unwrap())).unwrap();
    let mut link = link(reactor.adopt(stream.into()).unwrap());
    let range = slot_of(b"key").range();
    let mut shard = leading(range);
    grant(&mut shard, range);
    let most = 1 + BATCHES_UNDER_WAY_MAX as u32;
    let frames: Vec<u8> = (0..most).flat_map(set).collect();
    take_all(&mut link, &frames, &mut shard);
    assert_eq!(link.rest.len(), BATCHES_UNDER_WAY_MAX);
    let end = take_frames(&mut link, &set(most), &mut shard, now()).unwrap_err();
    assert!(matches!(end, LinkEnd::Batch(_)), "{end}");
}
