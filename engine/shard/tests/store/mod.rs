//! A store in memory: several shards on several nodes, clients, and the batches between them, driven by a seeded order
//! of events. Links between nodes can be cut and mended; batches that are on the way over a cut link are lost.
#![expect(dead_code, reason = "each test file uses a part of it")]

use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_shard::command::{Env, Now, ProcessStats};
use dkv_shard::stats::ShardStats;
use dkv_shard::{Opened, Order, Output, PortKind, SessionId, Shard};
use dkv_table::{HeapMemory, Options, Table};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// SplitMix64.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) nodes: u16,
    pub(crate) shards: u16,
    pub(crate) seed: u64,
    pub(crate) password: Option<[u8; 32]>,
    pub(crate) protected_mode: bool,
    /// Of each node; 0 is none.
    pub(crate) memory_bytes_max: u64,
    pub(crate) eviction: Eviction,
}

pub(crate) const PLAIN: Settings = Settings {
    nodes: 1,
    shards: 1,
    seed: 1,
    password: None,
    protected_mode: true,
    memory_bytes_max: 0,
    eviction: Eviction::None,
};

pub(crate) struct Client {
    at: usize,
    pub(crate) session: SessionId,
    to_send: VecDeque<u8>,
    pub(crate) received: Vec<u8>,
    /// What the "kernel" sends now.
    sending: Option<Output>,
    /// Whether it takes what is sent to it.
    pub(crate) reads: bool,
    pub(crate) paused: bool,
    pub(crate) closing: bool,
    pub(crate) closed: bool,
    pub(crate) cut: bool,
    /// How often it has been paused.
    pub(crate) pauses: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Requests,
    Replies,
}

pub(crate) struct Store {
    pub(crate) shards: Vec<(ShardAddr, Shard)>,
    pub(crate) envs: Vec<Arc<Env>>,
    pub(crate) clients: Vec<Client>,
    /// Batches on the way, by kind, sender and receiver.
    mail: BTreeMap<(Kind, usize, usize), VecDeque<Vec<u8>>>,
    /// Pairs of nodes whose links are cut.
    cut: BTreeSet<(u16, u16)>,
    /// Whether batches are delivered.
    pub(crate) delivering: bool,
    /// Bytes of the longest batch of replies.
    pub(crate) longest_replies: usize,
    /// Bytes of large arguments that were announced to the driver, and bytes that left as inserts.
    pub(crate) expected: usize,
    pub(crate) inserted: usize,
    pub(crate) random: Random,
    pub(crate) now: Now,
    next_client: u64,
}

impl Store {
    pub(crate) fn new(settings: Settings) -> Self {
        let infos: Vec<NodeInfo> = (0..settings.nodes)
            .map(|i| NodeInfo {
                name: format!("node{}", i + 1),
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + i as u8)),
                cluster_port: 7811 + i,
                client_port: 7861 + i,
                shard_ports: (0..settings.shards).map(|s| 7900 + i * settings.shards + s).collect(),
            })
            .collect();
        let map = Arc::new(StoreMap::spread(infos.clone(), Epoch(7)));
        let envs: Vec<Arc<Env>> = infos
            .iter()
            .map(|node| {
                Arc::new(Env {
                    store: "TestStore".into(),
                    store_id: "0123456789abcdef0123456789abcdef".into(),
                    node: node.name.clone(),
                    run_id: "0".repeat(40),
                    pid: 1,
                    address: node.address,
                    client_port: node.client_port,
                    started_boot_ms: 0,
                    map: map.clone(),
                    password_sha256: settings.password,
                    protected_mode: settings.protected_mode,
                    memory_bytes_max: settings.memory_bytes_max,
                    eviction: settings.eviction,
                    io: "test".into(),
                    stats: node
                        .shard_ports
                        .iter()
                        .map(|_| Arc::new(ShardStats::default()))
                        .collect(),
                    process: ProcessStats::default(),
                })
            })
            .collect();
        let shards = map
            .shards()
            .map(|addr| {
                let table = Table::new(
                    Options {
                        seed: [3, 4],
                        memory_bytes_max: settings.memory_bytes_max / u64::from(settings.shards),
                        eviction: envs[addr.node.0 as usize].table_eviction(),
                        first_version: 1 << 32,
                    },
                    Box::new(HeapMemory),
                );
                (addr, Shard::new(envs[addr.node.0 as usize].clone(), addr, table))
            })
            .collect();
        let mut store = Self {
            shards,
            envs,
            clients: Vec::new(),
            mail: BTreeMap::new(),
            cut: BTreeSet::new(),
            delivering: true,
            longest_replies: 0,
            expected: 0,
            inserted: 0,
            random: Random(settings.seed),
            now: Now { boot_ns: 1_000_000_000_000, unix_ms: 1_700_000_000_000 },
            next_client: 1,
        };
        for a in 0..settings.nodes {
            for b in 0..settings.nodes {
                store.mend(a, b);
            }
        }
        store
    }

    pub(crate) fn addr(node: u16, shard: u16) -> ShardAddr {
        ShardAddr { node: NodeIndex(node), shard: ShardIndex(shard) }
    }

    pub(crate) fn position(&self, addr: ShardAddr) -> usize {
        self.shards.iter().position(|(a, _)| *a == addr).expect("a shard of this store")
    }

    pub(crate) fn stats(&self, node: u16, shard: u16) -> &ShardStats {
        &self.envs[node as usize].stats[shard as usize]
    }

    /// The links of one direction between two nodes come up.
    pub(crate) fn mend(&mut self, from: u16, to: u16) {
        self.cut.remove(&(from, to));
        self.links(from, to, Shard::link_up);
    }

    /// They are lost, with all that is on the way over them.
    pub(crate) fn cut(&mut self, from: u16, to: u16) {
        if from == to {
            return;
        }
        self.cut.insert((from, to));
        let node = |at: usize, shards: &[(ShardAddr, Shard)]| shards[at].0.node.0;
        for ((kind, sender, receiver), batches) in &mut self.mail {
            let (a, b) = (node(*sender, &self.shards), node(*receiver, &self.shards));
            if (*kind == Kind::Requests && (a, b) == (from, to))
                || (*kind == Kind::Replies && (b, a) == (from, to))
            {
                batches.clear();
            }
        }
        self.links(from, to, Shard::link_down);
    }

    fn links(&mut self, from: u16, to: u16, mut act: impl FnMut(&mut Shard, ShardAddr)) {
        if from == to {
            return;
        }
        let all: Vec<ShardAddr> = self.shards.iter().map(|(a, _)| *a).collect();
        for (own, shard) in &mut self.shards {
            for other in all.iter().filter(|o| own.node.0 == from && o.node.0 == to) {
                act(shard, *other);
            }
        }
    }

    pub(crate) fn try_connect(
        &mut self,
        node: u16,
        shard: u16,
        port: PortKind,
        peer: IpAddr,
    ) -> Result<usize, Vec<u8>> {
        let at = self.position(Self::addr(node, shard));
        let id = self.next_client;
        self.next_client += 1;
        let local = SocketAddr::new(self.envs[node as usize].address, 7861 + node);
        let opened = Opened { port, peer: SocketAddr::new(peer, 50_000), local, id };
        let session = self.shards[at].1.open(self.now, opened)?;
        self.clients.push(Client {
            at,
            session,
            to_send: VecDeque::new(),
            received: Vec::new(),
            sending: None,
            reads: true,
            paused: false,
            closing: false,
            closed: false,
            cut: false,
            pauses: 0,
        });
        Ok(self.clients.len() - 1)
    }

    pub(crate) fn connect(&mut self, node: u16, shard: u16, port: PortKind) -> usize {
        self.try_connect(node, shard, port, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("let in")
    }

    /// Bytes that the client has sent; they arrive in pieces, in time.
    pub(crate) fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].to_send.extend(bytes);
    }

    /// Bytes that arrive now, as they are.
    pub(crate) fn input(&mut self, client: usize, bytes: &[u8]) {
        let c = &self.clients[client];
        self.shards[c.at].1.input(self.now, c.session, bytes);
    }

    pub(crate) fn disconnect(&mut self, client: usize) {
        let c = &mut self.clients[client];
        c.closed = true;
        self.shards[c.at].1.ended(c.session);
    }

    pub(crate) fn take(&mut self, client: usize) -> Vec<u8> {
        std::mem::take(&mut self.clients[client].received)
    }

    /// One command and all that comes back.
    pub(crate) fn call(&mut self, client: usize, args: &[&str]) -> String {
        self.send(client, &command(args));
        self.run();
        String::from_utf8_lossy(&self.take(client)).into_owned()
    }

    pub(crate) fn background(&mut self) {
        let now = self.now;
        for (_, shard) in &mut self.shards {
            while shard.background(now, 1000) {}
        }
    }

    /// Lets things happen, in a seeded order, until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// One event. False: nothing is left to happen.
    pub(crate) fn step(&mut self) -> bool {
        self.now.boot_ns += 1000;
        let mut more = false;
        for at in 0..self.shards.len() {
            more |= self.shards[at].1.background(self.now, 16);
            self.collect(at);
        }
        let sends = self.clients.iter().enumerate().filter(|(_, c)| c.sending.is_some() && c.reads);
        let inputs = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, c)| !c.to_send.is_empty() && !c.paused && !c.closing && !c.closed);
        let mail = self.mail.iter().filter(|(_, batches)| self.delivering && !batches.is_empty());
        let events: Vec<(u8, usize, usize)> = sends
            .map(|(i, _)| (0, i, 0))
            .chain(inputs.map(|(i, _)| (1, i, 0)))
            .chain(
                mail.map(|((kind, a, b), _)| (if *kind == Kind::Requests { 2 } else { 3 }, *a, *b)),
            )
            .collect();
        if events.is_empty() {
            return more;
        }
        let (what, a, b) = events[self.random.below(events.len())];
        match what {
            0 => {
                let client = &mut self.clients[a];
                let buffer = client.sending.take().expect("it is sending");
                client.received.extend_from_slice(&joined(&buffer));
                self.inserted += buffer.inserts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                let next = self.shards[client.at].1.take_output(client.session, buffer);
                client.sending = next;
                self.close_if_done(a);
            }
            1 => {
                let at = self.clients[a].at;
                // Now and then several come in one turn, one of them perhaps twice.
                let mut together = vec![a];
                while self.random.below(2) == 0 {
                    let other = events[self.random.below(events.len())];
                    if other.0 == 1 && self.clients[other.1].at == at {
                        together.push(other.1);
                    }
                }
                let pieces: Vec<(SessionId, Vec<u8>)> = together
                    .into_iter()
                    .map(|i| {
                        let len = 1 + self.random.below(4096);
                        let client = &mut self.clients[i];
                        let len = len.min(client.to_send.len());
                        (client.session, client.to_send.drain(..len).collect())
                    })
                    .collect();
                let shard = &mut self.shards[at].1;
                if let [(session, bytes)] = &pieces[..] {
                    shard.input(self.now, *session, bytes);
                } else {
                    let ids: Vec<SessionId> = pieces.iter().map(|piece| piece.0).collect();
                    shard.inputs(self.now, &ids, &|i| &pieces[i].1);
                }
            }
            2 => {
                let batch =
                    self.mail.get_mut(&(Kind::Requests, a, b)).and_then(VecDeque::pop_front);
                let batch = batch.expect("it is there");
                let mut at = 0;
                while at < batch.len() {
                    let mut replies = Vec::new();
                    let used = self.shards[b]
                        .1
                        .requests(self.now, &batch[at..], &mut replies)
                        .expect("a batch");
                    if used == 0 {
                        self.shards[b].1.background(self.now, 16);
                        continue;
                    }
                    at += used;
                    self.longest_replies = self.longest_replies.max(replies.len());
                    self.mail.entry((Kind::Replies, b, a)).or_default().push_back(replies);
                }
                self.shards[a].1.give_batch_buffer(batch);
            }
            _ => {
                let batch = self.mail.get_mut(&(Kind::Replies, a, b)).and_then(VecDeque::pop_front);
                let from = self.shards[a].0;
                let batch = batch.expect("it is there");
                self.shards[b].1.replies(self.now, from, &batch).expect("a batch");
            }
        }
        true
    }

    /// What a driver does at the end of a turn.
    fn collect(&mut self, at: usize) {
        let from = self.shards[at].0;
        while let Some((to, batch)) = self.shards[at].1.next_batch() {
            assert!(!batch.is_empty());
            let to_at = self.position(to);
            assert!(!self.cut.contains(&(from.node.0, to.node.0)), "sent over a cut link");
            let way = self.mail.entry((Kind::Requests, at, to_at)).or_default();
            way.push_back(batch);
            let under_way = way.len();
            assert!(under_way <= dkv_protocol::limits::BATCHES_UNDER_WAY_MAX);
        }
        let orders: Vec<Order> = self.shards[at].1.orders().drain(..).collect();
        for order in orders {
            let find = |id: SessionId| {
                self.clients.iter().position(|c| c.at == at && c.session == id && !c.closed)
            };
            match order {
                Order::Flush(id) => {
                    if let Some(i) = find(id)
                        && self.clients[i].sending.is_none()
                    {
                        self.clients[i].sending =
                            self.shards[at].1.take_output(id, Output::default());
                    }
                }
                Order::Close(id) => {
                    if let Some(i) = find(id) {
                        self.clients[i].closing = true;
                        self.close_if_done(i);
                    }
                }
                Order::Cut(id) => {
                    if let Some(i) = find(id) {
                        self.clients[i].cut = true;
                        self.clients[i].closed = true;
                        self.clients[i].sending = None;
                        self.shards[at].1.ended(id);
                    }
                }
                Order::Pause(id) => {
                    if let Some(i) = find(id) {
                        assert!(!self.clients[i].paused);
                        self.clients[i].paused = true;
                        self.clients[i].pauses += 1;
                    }
                }
                Order::Resume(id) => {
                    if let Some(i) = find(id) {
                        assert!(self.clients[i].paused);
                        self.clients[i].paused = false;
                    }
                }
                Order::Expect(id, bytes) => {
                    self.expected += bytes;
                    assert!(find(id).is_none_or(|i| !self.clients[i].closed));
                }
            }
        }
    }

    fn close_if_done(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if c.closing && c.sending.is_none() && !c.closed {
            // Output that was made since the last send goes out first.
            c.sending = self.shards[c.at].1.take_output(c.session, Output::default());
            if c.sending.is_none() {
                c.closed = true;
                self.shards[c.at].1.ended(c.session);
            }
        }
    }
}

/// The bytes of an output with its inserts in their places.
pub(crate) fn joined(output: &Output) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = 0;
    for (position, insert) in &output.inserts {
        all.extend_from_slice(&output.bytes[at..*position]);
        all.extend_from_slice(insert);
        at = *position;
    }
    all.extend_from_slice(&output.bytes[at..]);
    all
}

/// A command as clients send it.
pub(crate) fn command(args: &[&str]) -> Vec<u8> {
    let args: Vec<&[u8]> = args.iter().map(|a| a.as_bytes()).collect();
    command_bytes(&args)
}

pub(crate) fn command_bytes(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A key that the shard owns, made of `stem`.
pub(crate) fn key_of(store: &Store, node: u16, shard: u16, stem: &str) -> String {
    let map = &store.envs[0].map;
    (0..1_000_000)
        .map(|i| format!("{stem}{i}"))
        .find(|k| {
            map.owner_of(dkv_protocol::slots::slot_of(k.as_bytes())) == Store::addr(node, shard)
        })
        .expect("some key lies there")
}
