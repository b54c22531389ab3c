//! Everything at once, from seeds: loss, doubles, overtaking, cuts, crashes, moves. What was answered must be there.

use crate::harness::{MS, Net, R, addr, settings};
use dkv_cluster::{Role, Settings};
use std::collections::BTreeMap;

fn fast() -> Settings {
    Settings {
        beacon_ns: 40 * MS,
        lease_ns: 300 * MS,
        grace_ns: 330 * MS,
        ask_ns: 50 * MS,
        probe_ns: 60 * MS,
        retry_ns: 60 * MS,
        backlog_bytes: 4096,
        log_bytes_max: 256 * 1024,
        window_bytes: 8192,
        batch_bytes_max: 2048,
        slice_bytes: 700,
        ..settings()
    }
}

struct Storm {
    net: Net,
    /// Asked of a node, and not answered yet.
    open: Vec<(usize, u64, String, Vec<u8>)>,
    answered: BTreeMap<String, (u64, Vec<u8>)>,
    down: Vec<usize>,
    writes: u64,
}

impl Storm {
    fn write(&mut self) {
        self.writes += 1;
        let node = self.net.chance(self.net.nodes.len() as u64) as usize;
        if !self.net.nodes[node].up || self.net.nodes[node].cluster.role(R) != Role::Primary {
            return;
        }
        let key = format!("k{}", self.writes);
        let long = if self.net.chance(40) == 0 { 3000 } else { 8 };
        let value = vec![self.writes as u8; long];
        if let Ok(index) = self.net.put(node, &key, &value) {
            self.open.push((node, index, key, value));
        }
        if self.net.chance(5) == 0 {
            let _ = self.net.del(node, &format!("gone{}", self.writes % 7));
        } else if self.net.chance(3) == 0 {
            let _ = self.net.put(node, &format!("gone{}", self.writes % 7), b"x");
        }
    }

    /// What is committed is answered; what was lost is not waited for.
    fn answer(&mut self) {
        let net = &mut self.net;
        for at in 0..net.nodes.len() {
            let lost = std::mem::take(&mut net.nodes[at].lost);
            for lost in lost {
                self.open.retain(|(node, index, key, value)| {
                    if *node != at {
                        return true;
                    }
                    if *index <= lost.committed {
                        self.answered.insert(key.clone(), (*index, value.clone()));
                    }
                    false
                });
            }
        }
        self.open.retain(|(node, index, key, value)| {
            let done = net.is_answered(*node, *index);
            if done {
                self.answered.insert(key.clone(), (*index, value.clone()));
            }
            !done
        });
    }

    fn disturb(&mut self) {
        let nodes = self.net.nodes.len() as u64;
        let (a, b) = (self.net.chance(nodes) as usize, self.net.chance(nodes) as usize);
        match self.net.chance(12) {
            0 => self.net.cut.push((a, b)),
            1 => self.net.cut.extend([(a, b), (b, a)]),
            2 => self.net.cut.extend((0..nodes as usize).flat_map(|n| [(a, n), (n, a)])),
            3 => self.net.cut.push((a, usize::MAX)),
            4..=6 => self.net.cut.clear(),
            // One copy may go at a time, and only while another that counts is left.
            7 if self.down.is_empty()
                && self.net.in_sync().iter().any(|node| *node != a && self.net.nodes[*node].up) =>
            {
                self.net.crash(a);
                self.down.push(a);
                self.open.retain(|(node, ..)| *node != a);
            }
            8 if !self.down.is_empty() => {
                let node = self.down.remove(0);
                self.net.bury(node);
                self.net.restart(node);
            }
            9 => {
                let c = self.net.chance(nodes) as usize;
                let mut places = vec![a, b, c];
                places.sort_unstable();
                places.dedup();
                let turn = self.net.chance(places.len() as u64) as usize;
                places.rotate_left(turn);
                self.net.place(&places);
            }
            10 => {
                self.net.nodes[a].cluster.link_down(self.net.now_ns, addr(b));
                let news = self.net.news(false);
                self.net.tell(a, &news);
                self.net.nodes[a].cluster.link_up(self.net.now_ns, addr(b));
            }
            _ => {
                self.net.lose = self.net.chance(2) * self.net.chance(200);
                self.net.double = self.net.chance(2) * self.net.chance(200);
                self.net.overtake = self.net.chance(2) * self.net.chance(300);
            }
        }
    }

    fn calm(&mut self) {
        self.net.cut.clear();
        self.net.lose = 0;
        self.net.double = 0;
        self.net.overtake = 0;
        for node in std::mem::take(&mut self.down) {
            self.net.bury(node);
            self.net.restart(node);
        }
        self.net.tell_all(false);
        for _ in 0..8 {
            self.net.run(500);
            self.answer();
        }
    }
}

fn storm(seed: u64) {
    let mut net = Net::new(4, 3, fast());
    net.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut storm =
        Storm { net, open: Vec::new(), answered: BTreeMap::new(), down: Vec::new(), writes: 0 };
    for step in 0..3000u32 {
        if storm.net.chance(3) == 0 {
            storm.write();
        }
        if storm.net.chance(60) == 0 && step < 2900 {
            storm.disturb();
        }
        storm.net.turn();
        storm.net.deliver();
        storm.answer();
        storm.net.now_ns += MS;
    }
    storm.calm();
    let net = &storm.net;
    let Some(primary) = net.primary() else {
        panic!("seed {seed}: nobody leads: {:?}", net.catalogue.config)
    };
    let node = &net.nodes[primary];
    assert_eq!(
        node.cluster.may_write(net.now_ns, R),
        Ok(()),
        "seed {seed}: {:?}",
        node.cluster.view(R)
    );
    for (key, (index, value)) in &storm.answered {
        let found = node.store.get(R, key.as_bytes());
        assert_eq!(found, Some((*index, value.clone())), "seed {seed}: {key} was answered");
    }
    let mut placed: Vec<usize> =
        net.catalogue.placement.iter().map(|addr| usize::from(addr.node.0)).collect();
    assert_eq!(primary, placed[0], "seed {seed}: {:?}", node.cluster.view(R));
    placed.sort_unstable();
    assert_eq!(net.in_sync(), placed, "seed {seed}: {:?}", node.cluster.view(R));
    net.same();
    assert!(storm.answered.len() > 20, "seed {seed}: {} answered", storm.answered.len());
}

#[test]
fn what_was_answered_survives_every_storm_and_all_is_well_after_it() {
    // More at will: SEEDS=10000.
    let seeds = std::env::var("SEEDS").map_or(25, |seeds| seeds.parse().expect("a number"));
    for seed in 1..=seeds {
        storm(seed);
    }
}
