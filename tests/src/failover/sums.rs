//! Whether all copies of all ranges hold the same: the sums that the shards themselves make of what they hold.

use super::site::{Site, rest};
use super::wire::{Broken, Reply, Wire};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Ranges of a store.
const RANGES: u16 = 256;
/// Longest that a shard may take to sum up a slice.
const SLICE_MAX: Duration = Duration::from_secs(10);

/// What a shard holds of a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    digits: String,
    index: u64,
    keys: u64,
}

/// What is not the same: a copy may be some moments behind, but no longer than `patience`. While others write
/// (`is_quiet` is false) copies at different positions are nothing to wonder at, and pass.
pub fn differences(site: &Site, is_quiet: bool, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    loop {
        let found = compare(site, is_quiet);
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        rest(Duration::from_millis(50));
    }
}

fn compare(site: &Site, is_quiet: bool) -> Vec<String> {
    let mut ranges: BTreeMap<u16, Vec<(SocketAddr, Sum)>> = BTreeMap::new();
    for shard in site.nodes.iter().flat_map(|node| &node.shards) {
        let Ok(sums) = sums(*shard) else {
            return vec![format!("{shard} does not sum up what it holds")];
        };
        for (range, sum) in sums {
            ranges.entry(range).or_default().push((*shard, sum));
        }
    }
    let alone = (0..RANGES).filter(|range| ranges.get(range).is_none_or(|held| held.len() < 2));
    let alone = alone.map(|range| format!("range {range} has no second copy"));
    let differs = |one: &Sum, other: &Sum| one != other && (is_quiet || one.index == other.index);
    let differ =
        ranges.iter().filter(|(_, held)| held.iter().any(|one| differs(&one.1, &held[0].1)));
    let differ = differ.map(|(range, held)| format!("copies of range {range} differ: {held:?}"));
    differ.chain(alone).collect()
}

/// The sums of all ranges of which a shard has a copy that counts.
fn sums(shard: SocketAddr) -> Result<Vec<(u16, Sum)>, Broken> {
    let mut wire = Wire::connect(shard, SLICE_MAX)?;
    let mut found = Vec::new();
    for range in 0..RANGES {
        let mut line = format!("DKV.CHECKSUM {range}");
        loop {
            let Reply::Array(parts) = wire.ask(&line)? else { return Err(Broken::Closed) };
            let [cursor, digits, index, keys, role, _] = parts.as_slice() else {
                return Err(Broken::Closed);
            };
            let (cursor, digits) = (cursor.text(), digits.text());
            if cursor == "0" {
                let number = |reply: &Reply| reply.text().parse().unwrap_or(u64::MAX);
                let sum = Sum { digits, index: number(index), keys: number(keys) };
                if role.text() != "none" {
                    found.push((range, sum));
                }
                break;
            }
            line = format!("DKV.CHECKSUM {range} {cursor} {digits}");
        }
    }
    Ok(found)
}
