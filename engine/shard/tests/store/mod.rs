//! A store in memory: several shards on several nodes, clients, and the batches between them, driven by a seeded order
//! of events. Links between nodes can be cut and mended; batches that are on the way over a cut link are lost.
#![expect(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod clock;
mod ranges;

use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, RangeId, ShardAddr, ShardIndex};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_protocol::ranges::{RangeNews, Replication};
use dkv_protocol::users::{Users, UsersAnswer};
use dkv_shard::command::{Env, Now, ProcessStats};
use dkv_shard::stats::ShardStats;
use dkv_shard::{Hold, Opened, Order, Output, PortKind, SessionId, Shard, UsersOutcome};
use dkv_table::{HeapMemory, Options, Table};
use ranges::Ranges;
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
    /// How ranges are copied; without copies nothing of it is there.
    pub(crate) replication: Replication,
}

pub(crate) const PLAIN: Settings = Settings {
    nodes: 1,
    shards: 1,
    seed: 1,
    password: None,
    protected_mode: true,
    memory_bytes_max: 0,
    eviction: Eviction::None,
    replication: Replication::NONE,
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
    Peer,
}

type HeldReplies = VecDeque<(Vec<u8>, Hold)>;

pub(crate) struct Store {
    pub(crate) shards: Vec<(ShardAddr, Shard)>,
    pub(crate) envs: Vec<Arc<Env>>,
    pub(crate) clients: Vec<Client>,
    /// Batches on the way, by kind, sender and receiver.
    mail: BTreeMap<(Kind, usize, usize), VecDeque<Vec<u8>>>,
    /// Batches of replies that wait for copies, by who answered and who asked.
    held: BTreeMap<(usize, usize), HeldReplies>,
    /// News on the way to shards.
    news: Vec<VecDeque<Vec<RangeNews>>>,
    /// The users that the managers keep, and whether they decide on changes of them.
    pub(crate) users: Users,
    pub(crate) grants: bool,
    /// What the managers agree on; none without copies.
    pub(crate) ranges: Option<Ranges>,
    /// Whether the managers hear and are heard.
    pub(crate) managed: bool,
    /// Pairs of nodes whose links are cut.
    cut: BTreeSet<(u16, u16)>,
    /// Nodes whose process is gone, and those that do nothing.
    dead: BTreeSet<u16>,
    pub(crate) paused: BTreeSet<u16>,
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
                    settings: dkv_shard::settings::Settings::new(
                        settings.memory_bytes_max,
                        settings.eviction,
                    ),
                    clock: clock::now_ns,
                    random: |bytes| {
                        bytes.fill(7);
                        true
                    },
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
        let replication = settings.replication;
        let copied = replication.replicas > 0;
        let mut shards: Vec<(ShardAddr, Shard)> = shards;
        if copied {
            let settings = dkv_cluster::Settings::of(&replication);
            for (addr, shard) in &mut shards {
                shard.replicate(ranges::boot_of(addr.node), settings);
            }
        }
        let mut store = Self {
            news: shards.iter().map(|_| VecDeque::new()).collect(),
            ranges: copied.then(|| Ranges::form(&map, u16::from(replication.replicas))),
            managed: true,
            users: Users::default(),
            grants: true,
            held: BTreeMap::new(),
            dead: BTreeSet::new(),
            paused: BTreeSet::new(),
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
        if let Some(ranges) = &store.ranges {
            let all: Vec<RangeNews> =
                (0..=u8::MAX).map(|range| ranges.news(RangeId(range))).collect();
            store.tell(&all);
            store.run();
        }
        store
    }

    /// The managers tell every node.
    pub(crate) fn tell(&mut self, news: &[RangeNews]) {
        if self.managed {
            self.news.iter_mut().for_each(|way| way.push_back(news.to_vec()));
        }
    }

    /// A node hears of the configuration of a range in which the same copy leads, this much later than of the last one.
    pub(crate) fn skip_epochs(&mut self, node: u16, range: RangeId, epochs: u64) {
        let mut news = self.ranges.as_ref().expect("a store with copies").news(range);
        news.config.as_mut().expect("formed").epoch.0 += epochs;
        self.news[usize::from(node)].push_back(vec![news]);
    }

    /// The copies of a range should be elsewhere.
    pub(crate) fn place(&mut self, range: RangeId, placement: Vec<ShardAddr>) {
        let news = self.ranges.as_mut().expect("a store with copies").place(range, placement);
        self.tell(&[news]);
    }

    /// The process of a node ends, and its manager says so, or not.
    pub(crate) fn kill(&mut self, node: u16, told: bool) {
        self.dead.insert(node);
        for other in 0..self.envs.len() as u16 {
            self.cut(node, other);
            self.cut(other, node);
        }
        for client in 0..self.clients.len() {
            if self.shards[self.clients[client].at].0.node.0 == node {
                self.clients[client].closed = true;
                self.clients[client].sending = None;
            }
        }
        if told {
            let ranges = self.ranges.as_mut().expect("a store with copies");
            let news = ranges.dead(NodeIndex(node));
            self.tell(&news);
        }
    }

    /// Whether all copies of each range that count hold the same.
    pub(crate) fn assert_copies_are_equal(&self) {
        let ranges = self.ranges.as_ref().expect("a store with copies");
        for (range, config) in ranges.configs.iter().enumerate() {
            let sum_at = |addr: ShardAddr| {
                let (mut sum, mut cursor) = (0, 0);
                loop {
                    let shard = &self.shards[self.position(addr)].1;
                    cursor = shard.sum_range(RangeId(range as u8), cursor, 4096, &mut sum);
                    if cursor == 0 {
                        return sum;
                    }
                }
            };
            let sums: Vec<u128> = config.in_sync.iter().map(|rid| sum_at(rid.addr)).collect();
            assert!(
                sums.iter().all(|sum| *sum == sums[0]),
                "range {range}: {sums:x?} of {config:?}"
            );
        }
    }

    fn is_still(&self, at: usize) -> bool {
        let node = self.shards[at].0.node.0;
        self.dead.contains(&node) || self.paused.contains(&node)
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.boot_ns += 1_000_000;
            self.now.unix_ms += 1;
            self.run();
        }
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
        if !self.cut.remove(&(from, to)) {
            // Newer ones take their place.
            self.lose_mail(from, to);
        }
        self.links(from, to, Shard::link_up);
    }

    /// They are lost, with all that is on the way over them.
    pub(crate) fn cut(&mut self, from: u16, to: u16) {
        if from == to {
            return;
        }
        self.cut.insert((from, to));
        self.lose_mail(from, to);
        self.links(from, to, Shard::link_down);
    }

    fn lose_mail(&mut self, from: u16, to: u16) {
        if from == to {
            return;
        }
        let of = |at: usize, shards: &[(ShardAddr, Shard)]| shards[at].0.node.0;
        for ((answerer, asker), held) in &mut self.held {
            if (of(*asker, &self.shards), of(*answerer, &self.shards)) == (from, to) {
                held.clear();
            }
        }
        let node = |at: usize, shards: &[(ShardAddr, Shard)]| shards[at].0.node.0;
        for ((kind, sender, receiver), batches) in &mut self.mail {
            let (a, b) = (node(*sender, &self.shards), node(*receiver, &self.shards));
            if (*kind != Kind::Replies && (a, b) == (from, to))
                || (*kind == Kind::Replies && (b, a) == (from, to))
            {
                batches.clear();
            }
        }
    }

    fn links(&mut self, from: u16, to: u16, mut act: impl FnMut(&mut Shard, ShardAddr)) {
        if from == to {
            return;
        }
        let all: Vec<ShardAddr> = self.shards.iter().map(|(a, _)| *a).collect();
        for (own, shard) in &mut self.shards {
            if self.dead.contains(&own.node.0) {
                continue;
            }
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
            if !self.is_still(at) {
                more |= self.shards[at].1.background(self.now, 16);
                while let Some(still) = self.shards[at].1.next_still_link() {
                    self.cut(self.shards[at].0.node.0, still.node.0);
                }
                self.collect(at);
            }
        }
        let sends = self.clients.iter().enumerate().filter(|(_, c)| c.sending.is_some() && c.reads);
        let inputs = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, c)| !c.to_send.is_empty() && !c.paused && !c.closing && !c.closed)
            .filter(|(_, c)| !self.is_still(c.at));
        let mail = self.mail.iter().filter(|((_, _, to), batches)| {
            self.delivering && !batches.is_empty() && !self.is_still(*to)
        });
        let news = self.news.iter().enumerate();
        let news = news.filter(|(at, way)| !way.is_empty() && !self.is_still(*at));
        let events: Vec<(u8, usize, usize)> = sends
            .map(|(i, _)| (0, i, 0))
            .chain(inputs.map(|(i, _)| (1, i, 0)))
            .chain(mail.map(|((kind, a, b), _)| (2 + *kind as u8, *a, *b)))
            .chain(news.map(|(at, _)| (5, at, 0)))
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
                let asker = self.shards[a].0;
                while at < batch.len() {
                    let (mut replies, mut hold) = (Vec::new(), Hold::default());
                    let used = self.shards[b]
                        .1
                        .requests_held(self.now, asker, &batch[at..], &mut replies, &mut hold)
                        .expect("a batch");
                    if used == 0 {
                        self.shards[b].1.background(self.now, 16);
                        if self.ranges.is_some() {
                            // What it waits for may be time, or messages.
                            self.now.boot_ns += 100_000;
                            let way = self.mail.entry((Kind::Requests, a, b)).or_default();
                            way.push_front(batch[at..].to_vec());
                            break;
                        }
                        continue;
                    }
                    at += used;
                    self.longest_replies = self.longest_replies.max(replies.len());
                    self.held.entry((b, a)).or_default().push_back((replies, hold));
                    self.release(b);
                }
                self.shards[a].1.give_batch_buffer(batch);
            }
            4 => {
                let batch = self.mail.get_mut(&(Kind::Peer, a, b)).and_then(VecDeque::pop_front);
                let (from, batch) = (self.shards[a].0, batch.expect("it is there"));
                self.shards[b].1.peer(self.now, from, &batch).expect("messages");
            }
            5 => {
                let news = self.news[a].pop_front().expect("it is there");
                self.shards[a].1.news(self.now, &news);
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

    /// The managers tell every shard which users there are.
    pub(crate) fn tell_users(&mut self) {
        let users = Arc::new(self.users.clone());
        self.shards.iter_mut().for_each(|(_, shard)| shard.users_are(Arc::clone(&users)));
        (0..self.shards.len()).for_each(|at| self.collect(at));
    }

    /// They decide on what clients of a shard want changed.
    fn change_users(&mut self, at: usize) {
        while self.grants
            && let Some((number, changes)) = self.shards[at].1.take_user_changes()
        {
            let answer = match self.users.change(&changes) {
                Ok(_) => UsersAnswer::Done { version: self.users.version },
                Err(why) => UsersAnswer::Refused { why },
            };
            self.tell_users();
            let outcome = UsersOutcome::Answered(answer);
            self.shards[at].1.users_answered(self.now, number, outcome);
        }
    }

    /// What a driver does at the end of a turn.
    fn collect(&mut self, at: usize) {
        self.change_users(at);
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
        while let Some((to, batch)) = self.shards[at].1.next_peer_batch() {
            if !self.cut.contains(&(from.node.0, to.node.0)) {
                let to_at = self.position(to);
                self.mail.entry((Kind::Peer, at, to_at)).or_default().push_back(batch);
            }
        }
        self.release(at);
        let mut asks = Vec::new();
        self.shards[at].1.take_asks(&mut asks);
        if self.managed
            && let Some(ranges) = &mut self.ranges
        {
            let news: Vec<RangeNews> = asks.iter().map(|ask| ranges.ask(ask)).collect();
            for one in news {
                self.tell(&[RangeNews { answer: false, ..one.clone() }]);
                self.news[at].push_back(vec![one]);
            }
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

    /// Lets go the replies to other shards that wait no longer.
    fn release(&mut self, at: usize) {
        for ((_, asker), held) in self.held.iter_mut().filter(|((answerer, _), _)| *answerer == at)
        {
            while let Some((replies, hold)) = held.front_mut()
                && (hold.is_empty() || self.shards[at].1.release(hold, replies))
            {
                let (replies, _) = held.pop_front().expect("it is the first");
                self.mail.entry((Kind::Replies, at, *asker)).or_default().push_back(replies);
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
