//! What each node did over the last minutes, a point every two seconds: so that a chart that is opened now begins in the past.
//! Rates and percentiles alone, no histograms: some kilobytes a node. In memory; a manager that starts has none.

use dkv_protocol::admin::NodeMetrics;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// The time between two points, in seconds. At least one sample falls into each.
pub(crate) const STEP_S: u64 = 2;
/// How far back points are kept, in seconds.
pub(crate) const SPAN_S: u64 = 300;
/// Points kept of one node.
const POINTS_MAX: usize = (SPAN_S / STEP_S) as usize;
/// What the rates and percentiles of a point are taken over, as those of `GET /admin/v1/metrics` without a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);

/// `GET /admin/v1/metrics/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HistoryView {
    /// Seconds between two points.
    pub(crate) step_s: u64,
    /// The nodes of this machine; with `?group=true` those of all machines of the group.
    pub(crate) nodes: Vec<NodeHistory>,
    /// Of a group: the machines that could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreached: Vec<String>,
}

/// The points of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeHistory {
    /// Store.
    pub(crate) store: String,
    /// Node.
    pub(crate) node: String,
    /// In order of time; there are none for when it did not run.
    pub(crate) points: Vec<Point>,
}

/// What a node did in the five seconds before a moment; rates per second, times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Unix time in seconds, a multiple of the step, by the clock of its machine.
    pub(crate) at_s: u64,
    pub(crate) gets: Option<f64>,
    pub(crate) puts: Option<f64>,
    pub(crate) removes: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
}

/// The last points of one node.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    points: VecDeque<Point>,
}

impl Trail {
    /// Notes what a node does at a time; of several in one step the last one stays.
    pub(crate) fn note(&mut self, unix_s: u64, metrics: &NodeMetrics) {
        let at_s = unix_s - unix_s % STEP_S;
        // Where the clock was set back, what it said of later was wrong.
        while self.points.back().is_some_and(|last| last.at_s >= at_s) {
            self.points.pop_back();
        }
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at_s,
            gets: metrics.gets.per_second,
            puts: metrics.puts.per_second,
            removes: metrics.removes.per_second,
            p50_us: metrics.p50_us,
            p99_us: metrics.p99_us,
            p999_us: metrics.p999_us,
        });
    }

    /// The points of the last minutes.
    pub(crate) fn points(&self, unix_s: u64) -> Vec<Point> {
        let since = unix_s.saturating_sub(SPAN_S);
        self.points.iter().filter(|point| point.at_s >= since).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::admin::Rate;

    fn doing(gets: f64) -> NodeMetrics {
        let mut metrics = crate::samples::Samples::default();
        metrics.add(
            std::time::Instant::now(),
            serde_json::from_value(serde_json::json!({
                "store": "S", "store_id": "", "node": "node1", "pid": 1, "boot": "a", "uptime_ms": 0, "io": "",
                "cluster_ok": true, "unreachable": [], "resident_bytes": 0, "cpu_us": 0, "users_version": null,
                "shards": []
            }))
            .unwrap(),
        );
        let metrics = metrics.metrics("m", WINDOW).unwrap();
        NodeMetrics { gets: Rate { per_second: Some(gets), total: 0 }, ..metrics }
    }

    #[test]
    fn points_are_a_step_apart_and_five_minutes_of_them_stay() {
        let mut trail = Trail::default();
        for second in 0..1_000_u32 {
            trail.note(1_000_000 + u64::from(second), &doing(f64::from(second)));
        }
        let points = trail.points(1_000_999);
        assert_eq!(points.len(), 150);
        assert_eq!(
            points.last().map(|point| (point.at_s, point.gets)),
            Some((1_000_998, Some(999.0)))
        );
        assert!(points.windows(2).all(|two| two[1].at_s == two[0].at_s + STEP_S));
        // What is long ago is not told, though it is still held.
        assert_eq!(trail.points(1_001_200).len(), 50);
        assert!(trail.points(2_000_000).is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_no_points_of_the_future() {
        let mut trail = Trail::default();
        trail.note(5_000, &doing(1.0));
        trail.note(5_002, &doing(2.0));
        trail.note(4_001, &doing(3.0));
        let points = trail.points(4_001);
        assert_eq!(points.iter().map(|point| point.at_s).collect::<Vec<_>>(), [4_000]);
    }
}
