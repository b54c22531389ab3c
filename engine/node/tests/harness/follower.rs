//! A manager as far as copies go: tells the nodes who leads which range and decides what they ask, by compare-and-set on the
//! epoch. Everything is in memory, and a test can have it say nothing or say anything.

use super::{PATIENCE, Store};
use dkv_protocol::control::{FromNode, ToNode};
use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, ShardAddr};
use dkv_protocol::limits::RANGES;
use dkv_protocol::ranges::{Change, ConfigAsk, Placement, RangeConfig, RangeNews, RangeState, Rid};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// The log position that ranges begin with.
const FIRST_INDEX: u64 = 1 << 16;

/// See the module.
pub(crate) struct Follower {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    configs: Vec<Option<RangeConfig>>,
    placements: Vec<Placement>,
    placement_version: u64,
    streams: BTreeMap<usize, UnixStream>,
    /// All that was granted.
    granted: Vec<ConfigAsk>,
    /// By range: the copies that never count again.
    left: Vec<Vec<Rid>>,
    /// Nothing is decided and nobody is told anything.
    away: bool,
}

/// The boot that a node told when it was ready.
fn boot_of(store: &mut Store, node: usize) -> BootId {
    BootId(u64::from_str_radix(&store.node(node).ready.boot, 16).expect("hexadecimal"))
}

impl Follower {
    /// Forms every range at the places that `placement` gives for it, in sync from the start, and tells all nodes that run.
    pub(crate) fn form(store: &mut Store, placement: impl Fn(RangeId) -> Placement) -> Self {
        let boots: Vec<BootId> = (0..store.documents.len())
            .map(|node| if store.runs(node) { boot_of(store, node) } else { BootId(0) })
            .collect();
        let placements: Vec<Placement> =
            (0..RANGES).map(|range| placement(RangeId(range as u8))).collect();
        let config = |placement: &Placement| {
            let in_sync: Vec<Rid> = placement
                .iter()
                .map(|&addr| Rid { addr, boot: boots[usize::from(addr.node.0)], generation: 0 })
                .collect();
            RangeConfig {
                epoch: Epoch(1),
                primary: in_sync[0],
                in_sync,
                state: RangeState::Normal,
                first_index: FIRST_INDEX,
                formed: Epoch(1),
            }
        };
        let configs = placements.iter().map(|placement| Some(config(placement))).collect();
        let state = State {
            configs,
            placements,
            placement_version: 1,
            streams: BTreeMap::new(),
            granted: Vec::new(),
            left: vec![Vec::new(); RANGES],
            away: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let follower = Self { shared };
        for node in 0..store.documents.len() {
            if store.runs(node) {
                follower.follow(store, node);
            }
        }
        follower
    }

    /// Follows a node, which is told everything, and hears what it asks.
    pub(crate) fn follow(&self, store: &Store, node: usize) {
        let (stream, mut lines) = open(store, node);
        let mut state = self.shared.state.lock().expect("whole");
        state.streams.insert(node, stream);
        state.tell(node, 0..RANGES, false);
        drop(state);
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                let FromNode::Asks { asks } = serde_json::from_str(&line).expect("asks") else {
                    panic!("changes of users that nobody told the node: {line}");
                };
                shared.state.lock().expect("whole").decide_all(node, &asks);
                shared.changed.notify_all();
                line.clear();
            }
        });
    }

    /// Says this to a node, whatever it is; a stream of its own for it can be had from [`open`].
    pub(crate) fn say(&self, node: usize, told: &ToNode) {
        self.shared.state.lock().expect("whole").say(node, told);
    }

    /// From now on nothing is decided and told, or again.
    pub(crate) fn go_away(&self, away: bool) {
        self.shared.state.lock().expect("whole").away = away;
    }

    /// This start of a node is over: it leaves all ranges, and where it led another member does.
    pub(crate) fn dead(&self, node: usize) {
        let mut state = self.shared.state.lock().expect("whole");
        state.streams.remove(&node);
        let is_gone = |rid: &Rid| usize::from(rid.addr.node.0) == node;
        for config in state.configs.iter_mut().flatten() {
            if config.in_sync.iter().any(is_gone) && !config.in_sync.iter().all(is_gone) {
                config.in_sync.retain(|rid| !is_gone(rid));
                config.epoch.0 += 1;
                if is_gone(&config.primary) {
                    config.primary = config.in_sync[0];
                }
            }
        }
        state.tell_all(0..RANGES);
        self.shared.changed.notify_all();
    }

    /// Wishes for other places.
    pub(crate) fn place(&self, placement: impl Fn(RangeId) -> Placement) {
        let mut state = self.shared.state.lock().expect("whole");
        state.placements = (0..RANGES).map(|range| placement(RangeId(range as u8))).collect();
        state.placement_version += 1;
        state.tell_all(0..RANGES);
    }

    /// Waits until every range has as many copies in sync, the first of which is at the place that is wanted.
    pub(crate) fn wait_in_sync(&self, copies: usize) {
        self.wait(|state| {
            state.configs.iter().flatten().all(|config| config.in_sync.len() == copies)
        });
    }

    /// Waits until every range is led by the first of its places, with exactly those in sync.
    pub(crate) fn wait_placed(&self) {
        self.wait(|state| {
            state.configs.iter().zip(&state.placements).all(|(config, placement)| {
                config.as_ref().is_some_and(|config| {
                    config.primary.addr == placement[0]
                        && config.in_sync.len() == placement.len()
                        && placement.iter().all(|addr| config.member_at(*addr).is_some())
                })
            })
        });
    }

    fn wait(&self, wanted: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().expect("whole");
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never as wanted: {:?} ...", state.configs[0]);
            state = self.shared.changed.wait_timeout(state, left).expect("whole").0;
        }
    }

    /// All changes that were granted.
    pub(crate) fn granted(&self) -> Vec<ConfigAsk> {
        self.shared.state.lock().expect("whole").granted.clone()
    }
}

/// A connection that follows a node, and nothing said on it yet.
pub(crate) fn open(store: &Store, node: usize) -> (UnixStream, BufReader<UnixStream>) {
    let mut stream =
        UnixStream::connect(&store.documents[node].control_socket).expect("it answers");
    stream.write_all(b"{\"op\":\"follow\"}\n").expect("sent");
    let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
    let mut status = String::new();
    lines.read_line(&mut status).expect("answered");
    assert!(status.contains("\"boot\""), "{status}");
    (stream, lines)
}

impl State {
    fn news(&self, range: usize, answer: bool) -> RangeNews {
        RangeNews {
            range: RangeId(range as u8),
            config: self.configs[range].clone(),
            placement: self.placements[range].clone(),
            placement_version: self.placement_version,
            answer,
            left: self.left[range].clone(),
        }
    }

    fn say(&mut self, node: usize, told: &ToNode) {
        let Some(stream) = self.streams.get_mut(&node) else { return };
        let mut line = serde_json::to_vec(told).expect("JSON");
        line.push(b'\n');
        // A node that was killed is told of as dead a moment later.
        let _ = stream.write_all(&line);
    }

    fn tell(&mut self, node: usize, ranges: impl IntoIterator<Item = usize>, answer: bool) {
        let news = ranges.into_iter().map(|range| self.news(range, answer)).collect();
        self.say(node, &ToNode::Ranges { news });
    }

    fn tell_all(&mut self, ranges: std::ops::Range<usize>) {
        for node in self.streams.keys().copied().collect::<Vec<_>>() {
            self.tell(node, ranges.clone(), false);
        }
    }

    fn decide_all(&mut self, from: usize, asks: &[ConfigAsk]) {
        if self.away {
            return;
        }
        for ask in asks {
            self.decide(ask);
        }
        let ranges: Vec<usize> = asks.iter().map(|ask| usize::from(ask.range.0)).collect();
        for node in self.streams.keys().copied().collect::<Vec<_>>() {
            self.tell(node, ranges.iter().copied(), node == from);
        }
    }

    fn decide(&mut self, ask: &ConfigAsk) {
        let Some(config) = self.configs[usize::from(ask.range.0)].as_mut() else { return };
        let current = config.epoch == ask.epoch;
        let leads = current && config.primary == ask.caller;
        let left = &mut self.left[usize::from(ask.range.0)];
        match ask.change {
            Change::Leave => {
                let placement = &self.placements[usize::from(ask.range.0)];
                let at = ask.caller.addr;
                if current && config.member_at(at).is_none() && !placement.contains(&at) {
                    left.push(ask.caller);
                }
                return;
            }
            Change::Expand { add } if left.contains(&add) => return,
            Change::Shrink { remove } if leads && remove != ask.caller && config.has(remove) => {
                config.in_sync.retain(|rid| *rid != remove);
            }
            Change::Expand { add } if leads && config.member_at(add.addr).is_none() => {
                config.in_sync.push(add);
            }
            Change::Transfer { to } if leads && config.has(to) => config.primary = to,
            Change::Take if current && !leads && config.has(ask.caller) => {
                let old = config.primary;
                config.in_sync.retain(|rid| *rid != old);
                config.primary = ask.caller;
            }
            Change::Discarded if config.has(ask.caller) && config.in_sync.len() > 1 => {
                config.in_sync.retain(|rid| *rid != ask.caller);
                if config.primary == ask.caller {
                    config.primary = config.in_sync[0];
                }
            }
            _ => return,
        }
        config.epoch.0 += 1;
        self.granted.push(*ask);
    }
}

/// The first shards of these nodes.
pub(crate) fn first_shards<const N: usize>(nodes: [u16; N]) -> Placement {
    nodes.map(|node| shard(node, 0)).to_vec()
}

pub(crate) fn shard(node: u16, shard: u16) -> ShardAddr {
    ShardAddr { node: NodeIndex(node), shard: dkv_protocol::ids::ShardIndex(shard) }
}
