//! What the nodes counted, sampled: rates over a window, and percentiles from the difference of two histograms. Pure:
//! the time of a sample comes with it.

use dkv_protocol::admin::{NodeMetrics, Rate};
use dkv_protocol::control::{LATENCY_BUCKETS, NodeStatus, ShardCounters, latency_bucket_ns_max};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longest window, in seconds.
pub(crate) const WINDOW_S_MAX: u32 = 60;
/// Samples kept of one node: the longest window at one a second, and the one before it.
const SAMPLES_MAX: usize = WINDOW_S_MAX as usize + 2;

/// The samples of one node since its process started.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    taken: VecDeque<Sample>,
    last: Option<NodeStatus>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    sum: ShardCounters,
    cpu_us: u64,
}

impl Samples {
    /// Forgets everything: another process counts from zero.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn add(&mut self, at: Instant, status: NodeStatus) {
        if self.last.as_ref().is_some_and(|last| last.boot != status.boot) {
            self.clear();
        }
        if self.taken.len() == SAMPLES_MAX {
            self.taken.pop_front();
        }
        let sum = sum(&status.shards);
        self.taken.push_back(Sample { at, sum, cpu_us: status.cpu_us });
        self.last = Some(status);
    }

    /// What the node said last.
    pub(crate) fn last(&self) -> Option<&NodeStatus> {
        self.last.as_ref()
    }

    /// Rates over the last `window`, or over what there is of it.
    pub(crate) fn metrics(&self, machine: &str, window: Duration) -> Option<NodeMetrics> {
        let status = self.last.as_ref()?;
        let newest = self.taken.back()?;
        let since = newest.at.checked_sub(window);
        let oldest =
            self.taken.iter().find(|sample| since.is_none_or(|since| sample.at >= since))?;
        let span = newest.at.duration_since(oldest.at).as_secs_f64();
        let rate = |of: fn(&ShardCounters) -> u64| {
            let total = of(&newest.sum);
            let grown = total.saturating_sub(of(&oldest.sum));
            Rate { per_second: (span > 0.0).then(|| grown as f64 / span), total }
        };
        let counts: Vec<u64> = newest
            .sum
            .latency
            .iter()
            .zip(&oldest.sum.latency)
            .map(|(new, old)| new.saturating_sub(*old))
            .collect();
        let cpu_us = newest.cpu_us.saturating_sub(oldest.cpu_us) as f64;
        let grown =
            |of: fn(&ShardCounters) -> u64| of(&newest.sum).saturating_sub(of(&oldest.sum)) as f64;
        let mean_us = |ns: f64, count: f64| (count > 0.0).then(|| ns / count / 1000.0);
        let execution_us = mean_us(grown(|c| c.executing_ns), grown(|c| c.executed));
        let expired = newest.sum.expired.saturating_sub(oldest.sum.expired).max(1);
        let late_ms = newest.sum.expired_late_ms.saturating_sub(oldest.sum.expired_late_ms);
        let late_ms = late_ms.div_ceil(expired);
        let in_turn_us = mean_us(grown(|c| c.in_turn_ns), counts.iter().sum::<u64>() as f64);
        Some(NodeMetrics {
            store: status.store.clone(),
            node: status.node.clone(),
            machine: machine.to_string(),
            span_s: span,
            commands: rate(|c| c.commands),
            gets: rate(|c| c.gets),
            puts: rate(|c| c.puts),
            removes: rate(|c| c.removes),
            keys: newest.sum.keys,
            connections: newest.sum.connections,
            forwarded: rate(|c| c.forwarded),
            errors: rate(|c| c.errors),
            memory_bytes: newest.sum.memory_bytes,
            resident_bytes: status.resident_bytes,
            cpus_used: (span > 0.0).then(|| cpu_us / 1e6 / span),
            p50_us: percentile_us(&counts, 0.5),
            p99_us: percentile_us(&counts, 0.99),
            p999_us: percentile_us(&counts, 0.999),
            queue_us: in_turn_us
                .map(|in_turn| (in_turn - execution_us.unwrap_or_default()).max(0.0)),
            execution_us,
            replication_lag: newest.sum.replication_lag,
            replication_wait_us: mean_us(grown(|c| c.commit_wait_ns), grown(|c| c.commits)),
            replication_oldest_ms: newest.sum.commit_oldest_ms,
            expiry_lag_ms: late_ms.max(newest.sum.expiry_lag_ms),
            stalls: rate(|c| c.stalls),
        })
    }
}

/// The upper bound of the bucket that holds the percentile: never better than the truth.
fn percentile_us(counts: &[u64], part: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * part).ceil() as u64).clamp(1, total);
    let mut passed = 0;
    let bucket = counts.iter().position(|count| {
        passed += count;
        passed >= rank
    })?;
    Some(latency_bucket_ns_max(bucket) as f64 / 1000.0)
}

fn sum(shards: &[ShardCounters]) -> ShardCounters {
    let mut sum = ShardCounters { latency: vec![0; LATENCY_BUCKETS], ..ShardCounters::default() };
    for shard in shards {
        sum.commands += shard.commands;
        sum.gets += shard.gets;
        sum.puts += shard.puts;
        sum.removes += shard.removes;
        sum.forwarded += shard.forwarded;
        sum.errors += shard.errors;
        sum.connections += shard.connections;
        sum.keys += shard.keys;
        sum.memory_bytes += shard.memory_bytes;
        sum.executed += shard.executed;
        sum.executing_ns += shard.executing_ns;
        sum.in_turn_ns += shard.in_turn_ns;
        sum.stalls += shard.stalls;
        sum.commits += shard.commits;
        sum.commit_wait_ns += shard.commit_wait_ns;
        sum.commit_oldest_ms = sum.commit_oldest_ms.max(shard.commit_oldest_ms);
        sum.expired += shard.expired;
        sum.expired_late_ms += shard.expired_late_ms;
        sum.replication_lag = sum.replication_lag.max(shard.replication_lag);
        sum.expiry_lag_ms = sum.expiry_lag_ms.max(shard.expiry_lag_ms);
        for (total, count) in sum.latency.iter_mut().zip(&shard.latency) {
            *total += count;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::control::latency_bucket;

    fn status(boot: &str, gets: u64, slow: u64) -> NodeStatus {
        let mut latency = vec![0; LATENCY_BUCKETS];
        latency[latency_bucket(2_000)] = gets;
        latency[latency_bucket(900_000)] = slow;
        let shard = ShardCounters { gets, commands: gets, keys: 5, latency, ..Default::default() };
        NodeStatus {
            store: "S".to_string(),
            store_id: String::new(),
            node: "node1".to_string(),
            pid: 1,
            boot: boot.to_string(),
            uptime_ms: 0,
            io: String::new(),
            cluster_ok: true,
            unreachable: Vec::new(),
            resident_bytes: 0,
            cpu_us: gets,
            users_version: None,
            shards: vec![shard.clone(), shard],
            commands: Vec::new(),
        }
    }

    #[test]
    fn rates_are_of_the_window_and_totals_of_the_whole_life() {
        let start = Instant::now();
        let mut samples = Samples::default();
        assert_eq!(samples.metrics("m", Duration::from_secs(5)), None);
        for second in 0..100 {
            samples.add(start + Duration::from_secs(second), status("a", second * 100, 0));
        }
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!(metrics.gets, Rate { per_second: Some(200.0), total: 19_800 });
        assert!((metrics.span_s - 5.0).abs() < 1e-9);
        assert_eq!(metrics.keys, 10);
        assert!(samples.taken.len() <= SAMPLES_MAX);
        // Another process counts from zero: no negative rate, no rate at all until its second sample.
        samples.add(start + Duration::from_secs(100), status("b", 7, 0));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!(metrics.gets, Rate { per_second: None, total: 14 });
    }

    #[test]
    fn what_a_command_waits_for_others_is_told_from_what_it_takes() {
        let start = Instant::now();
        let mut samples = Samples::default();
        let with = |gets: u64, in_turn_us: u64, executing_us: u64| {
            let mut status = status("a", gets, 0);
            for shard in &mut status.shards {
                shard.executed = gets;
                shard.in_turn_ns = gets * in_turn_us * 1000;
                shard.executing_ns = gets * executing_us * 1000;
            }
            status
        };
        samples.add(start, with(0, 0, 0));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!((metrics.queue_us, metrics.execution_us), (None, None));
        samples.add(start + Duration::from_secs(1), with(100, 12, 2));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!((metrics.queue_us, metrics.execution_us), (Some(10.0), Some(2.0)));
    }

    #[test]
    fn lags_are_means_of_what_happened_between_samples() {
        let start = Instant::now();
        let mut samples = Samples::default();
        let with = |commits: u64, expired: u64| {
            let mut status = status("a", 0, 0);
            for shard in &mut status.shards {
                (shard.commits, shard.commit_wait_ns) = (commits, commits * 250_000);
                (shard.expired, shard.expired_late_ms) = (expired, expired * 40);
            }
            status.shards[1].commit_oldest_ms = 7;
            status
        };
        samples.add(start, with(0, 0));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!((metrics.replication_wait_us, metrics.expiry_lag_ms), (None, 0));
        // The gauges of this moment say nothing of either.
        samples.add(start + Duration::from_secs(1), with(10, 5));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        assert_eq!((metrics.replication_wait_us, metrics.expiry_lag_ms), (Some(250.0), 40));
        assert_eq!(metrics.replication_oldest_ms, 7);
    }

    #[test]
    fn percentiles_are_those_of_the_window() {
        let start = Instant::now();
        let mut samples = Samples::default();
        samples.add(start, status("a", 0, 1_000));
        samples.add(start + Duration::from_secs(1), status("a", 990, 1_010));
        let metrics = samples.metrics("m", Duration::from_secs(5)).unwrap();
        let (p50, p999) = (metrics.p50_us.unwrap(), metrics.p999_us.unwrap());
        assert!((2.0..3.0).contains(&p50), "{p50}");
        assert!((900.0..1_200.0).contains(&p999), "{p999}");
    }
}
