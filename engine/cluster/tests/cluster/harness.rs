//! A few clusters with a store of maps, a catalogue, a network that is a list, and time that is a number.

use bytes::Bytes;
use dkv_cluster::{Cluster, Effect, Lost, PeerError, Refused, Role, Settings, Store};
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, ShardAddr, ShardIndex};
use dkv_protocol::ranges::{Change, ConfigAsk, RangeConfig, RangeNews, RangeState, Rid};
use std::collections::BTreeMap;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const R: RangeId = RangeId(7);
/// Where the log of a range begins.
pub(crate) const FIRST: u64 = 1000;

pub(crate) fn addr(node: usize) -> ShardAddr {
    ShardAddr { node: NodeIndex(node as u16), shard: ShardIndex(0) }
}

#[derive(Default, Debug, Clone)]
struct Content {
    index: u64,
    journal: bool,
    keys: BTreeMap<Vec<u8>, (u64, u64, Vec<u8>)>,
}

/// Keys with version, deadline and value. An effect is its kind, a deadline, the length of the key, key and value.
#[derive(Default, Debug)]
pub(crate) struct Maps {
    ranges: BTreeMap<u8, Content>,
    pub(crate) clears: usize,
    pub(crate) records_per_slice: usize,
    /// This key fits no copy here.
    pub(crate) refuses: Option<Vec<u8>>,
}

const PUT: u8 = 0;
const DEL: u8 = 1;

fn head(kind: u8, deadline_ms: u64, key: &[u8]) -> Vec<u8> {
    [&[kind][..], &deadline_ms.to_le_bytes(), &[key.len() as u8], key].concat()
}

fn parse(effect: &Effect<'_>) -> (u8, u64, Vec<u8>, Vec<u8>) {
    let deadline_ms = u64::from_le_bytes(effect.head[1..9].try_into().expect("eight bytes"));
    let (key, value) = effect.head[10..].split_at(usize::from(effect.head[9]));
    let body = effect.body.map_or(value.to_vec(), |body| body.to_vec());
    (effect.head[0], deadline_ms, key.to_vec(), body)
}

impl Maps {
    fn of(&mut self, range: RangeId) -> &mut Content {
        self.ranges.entry(range.0).or_default()
    }

    pub(crate) fn get(&self, range: RangeId, key: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (version, _, value) = self.ranges.get(&range.0)?.keys.get(key)?;
        Some((*version, value.clone()))
    }

    pub(crate) fn deadline_ms(&self, range: RangeId, key: &[u8]) -> u64 {
        self.ranges[&range.0].keys[key].1
    }

    pub(crate) fn keys(&self, range: RangeId) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
        let of = self.ranges.get(&range.0).map(|content| content.keys.clone());
        of.unwrap_or_default().into_iter().map(|(key, (v, _, value))| (key, (v, value))).collect()
    }
}

impl Store for Maps {
    fn index(&self, range: RangeId) -> u64 {
        self.ranges.get(&range.0).map_or(0, |content| content.index)
    }

    fn set_index(&mut self, range: RangeId, index: u64) {
        self.of(range).index = index;
    }

    fn journal(&mut self, range: RangeId, on: bool) {
        self.of(range).journal = on;
    }

    fn apply(
        &mut self,
        _now_ms: u64,
        range: RangeId,
        index: u64,
        effect: Effect<'_>,
        filling: bool,
    ) -> bool {
        let (kind, deadline_ms, key, value) = parse(&effect);
        if self.refuses.as_ref() == Some(&key) {
            return false;
        }
        let content = self.of(range);
        let next = index == content.index + 1;
        content.index = index;
        if content.keys.get(&key).is_some_and(|known| known.0 >= index) {
            return filling;
        }
        if !filling && !next {
            return false;
        }
        if kind == PUT {
            content.keys.insert(key, (index, deadline_ms, value));
        } else {
            content.keys.remove(&key);
        }
        true
    }

    fn clear(&mut self, range: RangeId) {
        self.clears += 1;
        self.of(range).keys.clear();
    }

    fn walk(
        &mut self,
        range: RangeId,
        cursor: u64,
        _bytes_max: usize,
        sink: &mut dyn FnMut(u64, Effect<'_>),
    ) -> Option<u64> {
        let step = self.records_per_slice.max(1);
        // Keys are walked in the order of a number that does not change when others come and go.
        let slot = |key: &[u8]| {
            u64::from(key.iter().fold(0u8, |sum, b| sum.wrapping_mul(31).wrapping_add(*b)))
        };
        let end = cursor + step as u64;
        for (key, (version, deadline_ms, value)) in &self.of(range).keys {
            if (cursor..end).contains(&slot(key)) {
                let mut record = head(PUT, *deadline_ms, key);
                if value.len() < 1000 {
                    record.extend_from_slice(value);
                    sink(*version, Effect::small(&record));
                } else {
                    let body = Bytes::copy_from_slice(value);
                    sink(*version, Effect { head: &record, body: Some(&body) });
                }
            }
        }
        (end < 256).then_some(end)
    }

    fn load(&mut self, _now_ms: u64, range: RangeId, version: u64, record: Effect<'_>) -> bool {
        let (_, deadline_ms, key, value) = parse(&record);
        if self.refuses.as_ref() == Some(&key) {
            return false;
        }
        let content = self.of(range);
        if content.keys.get(&key).is_none_or(|known| known.0 <= version) {
            content.keys.insert(key, (version, deadline_ms, value));
        }
        true
    }

    fn rebase(&self, head: &mut [u8], delta_ms: i64) {
        let deadline_ms = u64::from_le_bytes(head[1..9].try_into().expect("eight bytes"));
        if deadline_ms > 0 {
            head[1..9].copy_from_slice(&deadline_ms.wrapping_add_signed(delta_ms).to_le_bytes());
        }
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) store: Maps,
    pub(crate) boot: BootId,
    pub(crate) up: bool,
    /// What its clock is ahead of the others'.
    pub(crate) ahead_ns: u64,
    /// Bytes that were written for its peer and are not sent.
    pub(crate) unsent_bytes: usize,
    pub(crate) lost: Vec<Lost>,
}

/// One range, decided by compare-and-set.
pub(crate) struct Catalogue {
    pub(crate) config: RangeConfig,
    pub(crate) placement: Vec<ShardAddr>,
    pub(crate) placement_version: u64,
    pub(crate) reachable: bool,
    left: Vec<Rid>,
    dead: Vec<BootId>,
}

impl Catalogue {
    fn decide(&mut self, ask: &ConfigAsk) -> bool {
        let mut config = self.config.clone();
        if self.dead.contains(&ask.caller.boot) {
            return false;
        }
        if ask.change == Change::Discarded {
            self.left.push(ask.caller);
            if !config.has(ask.caller) || config.state == RangeState::Offline {
                return false;
            }
            Self::leave(&mut config, |rid| rid == ask.caller);
        } else if ask.change == Change::Leave {
            let (at, normal) = (ask.caller.addr, config.state == RangeState::Normal);
            if ask.epoch == config.epoch
                && normal
                && config.member_at(at).is_none()
                && !self.placement.contains(&at)
            {
                self.left.push(ask.caller);
            }
            return false;
        } else {
            let leads = config.primary == ask.caller;
            if ask.epoch != config.epoch
                || config.state == RangeState::Offline
                || !config.has(ask.caller)
                || leads == (ask.change == Change::Take)
            {
                return false;
            }
            match ask.change {
                Change::Take => {
                    self.left.push(config.primary);
                    config.in_sync.retain(|rid| *rid != config.primary);
                    config.primary = ask.caller;
                }
                Change::Shrink { remove } if config.has(remove) && remove != ask.caller => {
                    config.in_sync.retain(|rid| *rid != remove);
                }
                Change::Expand { add }
                    if config.member_at(add.addr).is_none()
                        && !self.has_left(add)
                        && !self.dead.contains(&add.boot) =>
                {
                    config.in_sync.push(add);
                }
                Change::Transfer { to } if config.has(to) => config.primary = to,
                _ => return false,
            }
        }
        config.epoch.0 += 1;
        self.config = config;
        true
    }

    fn has_left(&self, rid: Rid) -> bool {
        let same = |left: &&Rid| (left.addr, left.boot) == (rid.addr, rid.boot);
        self.left.iter().filter(same).any(|left| left.generation >= rid.generation)
    }

    fn leave(config: &mut RangeConfig, gone: impl Fn(Rid) -> bool) {
        if config.in_sync.iter().all(|rid| gone(*rid)) {
            config.state = RangeState::Offline;
            return;
        }
        config.in_sync.retain(|rid| !gone(*rid));
        if gone(config.primary) {
            config.primary = config.in_sync[0];
        }
    }
}

pub(crate) struct Net {
    pub(crate) now_ns: u64,
    pub(crate) settings: Settings,
    pub(crate) nodes: Vec<Node>,
    pub(crate) catalogue: Catalogue,
    /// Under way: from, to, bytes.
    pub(crate) flying: Vec<(usize, usize, Vec<u8>)>,
    pub(crate) cut: Vec<(usize, usize)>,
    /// Of a thousand messages so many are lost, doubled, or overtaken by others.
    pub(crate) lose: u64,
    pub(crate) double: u64,
    pub(crate) overtake: u64,
    pub(crate) random: u64,
    boots: u64,
}

pub(crate) fn settings() -> Settings {
    Settings::default()
}

impl Net {
    /// So many nodes, the range formed on the first `copies` of them and placed there.
    pub(crate) fn new(nodes: usize, copies: usize, settings: Settings) -> Self {
        let made = (0..nodes).map(|at| Node {
            cluster: Cluster::new(addr(at), BootId(at as u64), settings),
            store: Maps { records_per_slice: 64, ..Maps::default() },
            boot: BootId(at as u64),
            up: true,
            ahead_ns: 0,
            unsent_bytes: 0,
            lost: Vec::new(),
        });
        let in_sync: Vec<Rid> = (0..copies)
            .map(|at| Rid { addr: addr(at), boot: BootId(at as u64), generation: 0 })
            .collect();
        let config = RangeConfig {
            epoch: Epoch(1),
            primary: in_sync[0],
            in_sync,
            state: RangeState::Normal,
            first_index: FIRST,
            formed: Epoch(1),
        };
        let mut net = Self {
            now_ns: 10_000 * MS,
            settings,
            nodes: made.collect(),
            catalogue: Catalogue {
                config,
                placement: (0..copies).map(addr).collect(),
                placement_version: 1,
                reachable: true,
                left: Vec::new(),
                dead: Vec::new(),
            },
            flying: Vec::new(),
            cut: Vec::new(),
            lose: 0,
            double: 0,
            overtake: 0,
            random: 1,
            boots: 100,
        };
        net.tell_all(false);
        net
    }

    /// A number below `below`, from the seed.
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub(crate) fn news(&self, answer: bool) -> RangeNews {
        RangeNews {
            range: R,
            config: Some(self.catalogue.config.clone()),
            placement: self.catalogue.placement.clone(),
            placement_version: self.catalogue.placement_version,
            answer,
            left: self.catalogue.left.clone(),
        }
    }

    pub(crate) fn tell(&mut self, node: usize, news: &RangeNews) {
        let node = &mut self.nodes[node];
        if node.up {
            node.cluster.news(self.now_ns + node.ahead_ns, news, &mut node.store);
        }
    }

    pub(crate) fn tell_all(&mut self, answer: bool) {
        let news = self.news(answer);
        for node in 0..self.nodes.len() {
            self.tell(node, &news);
        }
    }

    pub(crate) fn place(&mut self, nodes: &[usize]) {
        self.catalogue.placement = nodes.iter().copied().map(addr).collect();
        self.catalogue.placement_version += 1;
        self.tell_all(false);
    }

    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.flying.retain(|(from, to, _)| *from != node && *to != node);
    }

    /// Its manager says that the process of a node is gone.
    pub(crate) fn bury(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        self.catalogue.dead.push(boot);
        let mut config = self.catalogue.config.clone();
        if config.state == RangeState::Normal && config.in_sync.iter().any(|rid| rid.boot == boot) {
            Catalogue::leave(&mut config, |rid| rid.boot == boot);
            config.epoch.0 += 1;
            self.catalogue.config = config;
            self.tell_all(false);
        }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.boots += 1;
        let boot = BootId(self.boots);
        let at = &mut self.nodes[node];
        at.cluster = Cluster::new(addr(node), boot, self.settings);
        at.store = Maps { records_per_slice: 64, ..Maps::default() };
        at.boot = boot;
        at.up = true;
        let news = self.news(false);
        self.tell(node, &news);
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Each node's turn: time, asks, and what it sends.
    pub(crate) fn turn(&mut self) {
        for at in 0..self.nodes.len() {
            let mut asks = Vec::new();
            let node = &mut self.nodes[at];
            if !node.up {
                continue;
            }
            let now_ns = self.now_ns + node.ahead_ns;
            node.cluster.tick(now_ns, &mut node.store);
            node.cluster.take_lost(&mut node.lost);
            node.cluster.take_asks(&mut asks);
            let mut output = vec![0; node.unsent_bytes];
            while let Some(to) = node.cluster.next_peer() {
                if node.cluster.write_messages(now_ns, &mut node.store, &mut output) {
                    let body = output.split_off(node.unsent_bytes);
                    self.flying.push((at, usize::from(to.node.0), body));
                }
            }
            for ask in asks {
                if !self.catalogue.reachable || self.is_cut(at, usize::MAX) {
                    continue;
                }
                if self.catalogue.decide(&ask) {
                    for node in (0..self.nodes.len())
                        .filter(|node| !self.is_cut(*node, usize::MAX))
                        .collect::<Vec<_>>()
                    {
                        let news = self.news(node == at);
                        self.tell(node, &news);
                    }
                } else {
                    let news = self.news(true);
                    self.tell(at, &news);
                }
            }
        }
    }

    /// What is under way arrives, or does not.
    pub(crate) fn deliver(&mut self) {
        let mut now = std::mem::take(&mut self.flying);
        while !now.is_empty() {
            let at =
                if self.chance(1000) < self.overtake { self.chance(now.len() as u64) } else { 0 };
            let (from, to, body) = now.remove(at as usize);
            if self.is_cut(from, to) || !self.nodes[to].up || self.chance(1000) < self.lose {
                continue;
            }
            if self.chance(1000) < self.overtake {
                self.flying.push((from, to, body));
                continue;
            }
            if self.chance(1000) < self.double {
                self.flying.push((from, to, body.clone()));
            }
            let node = &mut self.nodes[to];
            let now_ns = self.now_ns + node.ahead_ns;
            let taken = node.cluster.peer(now_ns, addr(from), &body, &mut node.store);
            if node.store.refuses.is_none() {
                taken.expect("peers are sane");
            } else if let Err(error) = taken {
                assert_eq!(error, PeerError::Misfit);
            }
        }
    }

    /// Lets so much time pass, a message taking a millisecond.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.turn();
            self.deliver();
            self.now_ns += MS;
        }
        self.turn();
    }

    pub(crate) fn put(&mut self, node: usize, key: &str, value: &[u8]) -> Result<u64, Refused> {
        self.put_until(node, key, value, 0)
    }

    /// A write, as the shard does it: nothing is done when it is refused.
    pub(crate) fn put_until(
        &mut self,
        node: usize,
        key: &str,
        value: &[u8],
        deadline_ms: u64,
    ) -> Result<u64, Refused> {
        let node = &mut self.nodes[node];
        node.cluster.may_write(self.now_ns + node.ahead_ns, R)?;
        let index = node.store.index(R) + 1;
        let mut head = head(PUT, deadline_ms, key.as_bytes());
        let body = Bytes::copy_from_slice(value);
        if value.len() < 1000 {
            head.extend_from_slice(value);
        }
        let effect = Effect { head: &head, body: (value.len() >= 1000).then_some(&body) };
        assert!(node.store.apply(0, R, index, effect, true));
        node.cluster.append(R, index, effect);
        Ok(index)
    }

    pub(crate) fn del(&mut self, node: usize, key: &str) -> Result<u64, Refused> {
        let node = &mut self.nodes[node];
        node.cluster.may_write(self.now_ns + node.ahead_ns, R)?;
        let index = node.store.index(R) + 1;
        let head = head(DEL, 0, key.as_bytes());
        assert!(node.store.apply(0, R, index, Effect::small(&head), true));
        node.cluster.append(R, index, Effect::small(&head));
        Ok(index)
    }

    pub(crate) fn may_read(&self, node: usize) -> Result<(), Refused> {
        let node = &self.nodes[node];
        node.cluster.may_read(self.now_ns + node.ahead_ns, R)
    }

    pub(crate) fn is_answered(&self, node: usize, index: u64) -> bool {
        self.nodes[node].cluster.committed(R) >= index
    }

    /// Who leads, by its own account and by the catalogue's.
    pub(crate) fn primary(&self) -> Option<usize> {
        let config = &self.catalogue.config;
        let at = usize::from(config.primary.addr.node.0);
        let node = &self.nodes[at];
        let leads = node.up
            && config.state == RangeState::Normal
            && node.cluster.role(R) == Role::Primary
            && node.boot == config.primary.boot;
        leads.then_some(at)
    }

    pub(crate) fn in_sync(&self) -> Vec<usize> {
        let config = &self.catalogue.config;
        let mut nodes: Vec<usize> =
            config.in_sync.iter().map(|rid| usize::from(rid.addr.node.0)).collect();
        nodes.sort_unstable();
        nodes
    }

    /// All copies that count hold what the primary holds.
    pub(crate) fn same(&self) {
        let primary = self.primary().expect("somebody leads");
        let expect = self.nodes[primary].store.keys(R);
        for node in self.in_sync() {
            let found = self.nodes[node].store.keys(R);
            let differs = |(key, value): &(&Vec<u8>, &(u64, Vec<u8>))| {
                expect.get(*key) != Some(*value) || found.get(*key) != Some(*value)
            };
            let which = expect.iter().chain(&found).filter(differs);
            let which: Vec<_> =
                which.map(|(key, (v, _))| (String::from_utf8_lossy(key), v)).collect();
            assert_eq!(which, [], "node {node}, primary {primary}");
        }
    }
}
