//! What the managers of a store with copies agree on, in one place and at once: configurations that change by
//! compare-and-set.

use dkv_protocol::ids::{BootId, Epoch, NodeIndex, RangeId, ShardAddr};
use dkv_protocol::map::StoreMap;
use dkv_protocol::ranges::{Change, ConfigAsk, RangeConfig, RangeNews, RangeState, Rid};

pub(crate) struct Ranges {
    pub(crate) configs: Vec<RangeConfig>,
    pub(crate) placements: Vec<Vec<ShardAddr>>,
    version: u64,
    /// Copies that never count again.
    left: Vec<(RangeId, Rid)>,
}

pub(crate) fn boot_of(node: NodeIndex) -> BootId {
    BootId(u64::from(node.0) + 1)
}

fn rid(addr: ShardAddr) -> Rid {
    Rid { addr, boot: boot_of(addr.node), generation: 0 }
}

impl Ranges {
    /// Each range at its owner and at the same shard of as many of the nodes behind.
    pub(crate) fn form(map: &StoreMap, replicas: u16) -> Self {
        let nodes = map.nodes().len() as u16;
        let placements: Vec<Vec<ShardAddr>> = (0..=u8::MAX)
            .map(|range| {
                let owner = map.owner(RangeId(range));
                let node = |i| NodeIndex((owner.node.0 + i) % nodes);
                (0..=replicas).map(|i| ShardAddr { node: node(i), ..owner }).collect()
            })
            .collect();
        let config = |placement: &Vec<ShardAddr>| RangeConfig {
            epoch: Epoch(1),
            primary: rid(placement[0]),
            in_sync: placement.iter().map(|addr| rid(*addr)).collect(),
            state: RangeState::Normal,
            first_index: 1 << 33,
            formed: Epoch(1),
        };
        Self {
            configs: placements.iter().map(config).collect(),
            placements,
            version: 1,
            left: Vec::new(),
        }
    }

    pub(crate) fn news(&self, range: RangeId) -> RangeNews {
        RangeNews {
            range,
            config: Some(self.configs[usize::from(range.0)].clone()),
            placement: self.placements[usize::from(range.0)].clone(),
            placement_version: self.version,
            answer: false,
            left: self.left.iter().filter(|(of, _)| *of == range).map(|(_, rid)| *rid).collect(),
        }
    }

    pub(crate) fn place(&mut self, range: RangeId, placement: Vec<ShardAddr>) -> RangeNews {
        self.version += 1;
        self.placements[usize::from(range.0)] = placement;
        self.news(range)
    }

    /// Grants or refuses; the news answers it.
    pub(crate) fn ask(&mut self, ask: &ConfigAsk) -> RangeNews {
        let config = &mut self.configs[usize::from(ask.range.0)];
        let (leads, has) = (config.primary == ask.caller, config.has(ask.caller));
        let known = ask.epoch == config.epoch && config.state == RangeState::Normal;
        let granted = match ask.change {
            Change::Shrink { remove } if known && leads && remove != ask.caller => {
                config.in_sync.retain(|rid| *rid != remove);
                true
            }
            Change::Leave if known && config.member_at(ask.caller.addr).is_none() => {
                if !self.placements[usize::from(ask.range.0)].contains(&ask.caller.addr) {
                    self.left.push((ask.range, ask.caller));
                }
                false
            }
            Change::Expand { add } if self.left.contains(&(ask.range, add)) => false,
            Change::Expand { add } if known && leads && !config.has(add) => {
                config.in_sync.retain(|rid| rid.addr != add.addr);
                config.in_sync.push(add);
                true
            }
            Change::Take if known && has && !leads => {
                let old = config.primary;
                config.in_sync.retain(|rid| *rid != old);
                config.primary = ask.caller;
                true
            }
            Change::Transfer { to } if known && leads && config.has(to) => {
                config.primary = to;
                true
            }
            Change::Discarded if has => {
                leave(config, &|rid| *rid == ask.caller);
                true
            }
            _ => false,
        };
        config.epoch.0 += u64::from(granted);
        RangeNews { answer: true, ..self.news(ask.range) }
    }

    /// The process of a node is gone.
    pub(crate) fn dead(&mut self, node: NodeIndex) -> Vec<RangeNews> {
        let mut news = Vec::new();
        for range in (0..=u8::MAX).map(RangeId) {
            let config = &mut self.configs[usize::from(range.0)];
            if config.in_sync.iter().any(|rid| rid.addr.node == node) {
                leave(config, &|rid| rid.addr.node == node);
                config.epoch.0 += 1;
                news.push(self.news(range));
            }
        }
        news
    }
}

fn leave(config: &mut RangeConfig, gone: &dyn Fn(&Rid) -> bool) {
    let left: Vec<Rid> = config.in_sync.iter().copied().filter(|rid| !gone(rid)).collect();
    match left.first() {
        None => config.state = RangeState::Offline,
        Some(first) => {
            if !left.contains(&config.primary) {
                config.primary = *first;
            }
            config.in_sync = left;
        }
    }
}
