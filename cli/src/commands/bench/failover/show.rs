//! How the rounds are shown.

use super::Args;
use super::rounds::Round;
use crate::commands::bench::report::{FEW, ms_text};
use crate::output::{self, Format};
use dkv_bench::failover::{Counts, FailoverPlan};
use dkv_bench::generator::{SHOWN_FROM, supported_of};
use serde_json::{Value, json};
use std::time::Duration;

/// What is told of gaps, by its name.
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

/// Gaps, sorted.
struct Gaps(Vec<Duration>);

impl Gaps {
    fn of<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Self {
        let mut gaps: Vec<Duration> =
            rounds.into_iter().flat_map(|round| round.gaps.iter().copied()).collect();
        gaps.sort_unstable();
        Self(gaps)
    }

    /// None where too few ranges lie beyond it.
    fn quantile(&self, quantile: f64) -> Option<Duration> {
        let supported = supported_of(self.0.len() as u64, quantile, SHOWN_FROM);
        let at = (self.0.len() as f64 * quantile) as usize;
        self.0.get(at).copied().filter(|_| supported)
    }

    fn max(&self) -> Option<Duration> {
        self.0.last().copied()
    }

    fn document(&self) -> Value {
        let mut document = json!({"ranges": self.0.len(), "max": ms(self.max())});
        for (name, quantile) in QUANTILES {
            document[name] = ms(self.quantile(quantile));
        }
        document
    }

    fn text(&self) -> String {
        let quantiles =
            QUANTILES.map(|(name, quantile)| format!("{name} {}", text(self.quantile(quantile))));
        format!(
            "{}, max {} ms over {} ranges",
            quantiles.join(", "),
            text(self.max()),
            self.0.len()
        )
    }
}

fn ms(of: Option<Duration>) -> Value {
    of.map_or(Value::Null, |of| json!((of.as_secs_f64() * 1e4).round() / 10.0))
}

fn text(of: Option<Duration>) -> String {
    of.map_or_else(|| FEW.to_owned(), |of| ms_text(of.as_nanos() as u64))
}

fn seconds(of: Option<Duration>) -> Value {
    of.map_or(Value::Null, |of| json!((of.as_secs_f64() * 100.0).round() / 100.0))
}

/// Shows it.
pub(super) fn show(
    args: &Args,
    plan: &FailoverPlan,
    rounds: &[Round],
    counts: &Counts,
    keys: u64,
    interrupted: bool,
) {
    let steady = Gaps::of(rounds.iter().filter(|round| round.node.is_none()));
    let hits: Vec<&Round> = rounds.iter().filter(|round| round.node.is_some()).collect();
    let gaps = Gaps::of(hits.iter().copied());
    match args.output.output {
        Format::Json => {
            output::json(&document(args, plan, &hits, (&steady, &gaps), counts, keys, interrupted));
        }
        Format::Table => {
            let errors: Vec<String> = counts
                .errors
                .iter()
                .map(|(word, error)| {
                    let example =
                        error.example.strip_prefix(word.as_str()).unwrap_or(&error.example);
                    format!("{} {word} ({})", error.count, output::printable(example.trim_start()))
                })
                .collect();
            let errors = if errors.is_empty() { "0".to_owned() } else { errors.join("; ") };
            let done = format!("{} of {} rounds of {}", hits.len(), args.rounds, args.how.name());
            let load = format!(
                "{} clients, {} a second, {} reads of 100",
                plan.clients, plan.per_second, plan.reads_percent
            );
            let fields = [
                ("Store", args.name.clone()),
                ("Rounds", if interrupted { format!("{done}; interrupted") } else { done }),
                ("Load", load),
                ("Answered", format!("{} writes, {} reads", counts.writes, counts.reads)),
                ("Lost", counts.lost.to_string()),
                ("Stale", counts.stale.to_string()),
                ("Invented", counts.invented.to_string()),
                ("Uncertain", counts.uncertain.to_string()),
                ("Verified", format!("{keys} keys")),
                ("Errors", errors),
                ("Steady", steady.text()),
                ("Gap", gaps.text()),
            ];
            let head = fields.each_ref().map(|(name, _)| *name);
            let row = fields.map(|(_, text)| json!(text));
            output::record(Format::Table, &head, &row);
            for example in &counts.examples {
                output::line(&format!("  {}", output::printable(example)));
            }
            output::line("");
            let head = [
                "Round",
                "Node",
                "Ranges",
                "GapP50Ms",
                "GapMaxMs",
                "FullCopiesSec",
                "Answered",
                "Uncertain",
                "Errors",
            ];
            let row = |(number, round): (usize, &&Round)| {
                let gaps = Gaps::of([*round]);
                vec![
                    json!(number + 1),
                    json!(round.node),
                    json!(round.gaps.len()),
                    json!(text(gaps.quantile(0.5))),
                    json!(text(gaps.max())),
                    round.whole.map_or_else(|| json!("-"), |_| seconds(round.whole)),
                    json!(round.answered),
                    json!(round.uncertain),
                    json!(round.failed),
                ]
            };
            output::rows(
                Format::Table,
                &head,
                &hits.iter().enumerate().map(row).collect::<Vec<_>>(),
            );
        }
    }
}

fn document(
    args: &Args,
    plan: &FailoverPlan,
    hits: &[&Round],
    (steady, gaps): (&Gaps, &Gaps),
    counts: &Counts,
    keys: u64,
    interrupted: bool,
) -> Value {
    let errors: serde_json::Map<String, Value> = counts
        .errors
        .iter()
        .map(|(word, error)| {
            (word.clone(), json!({"count": error.count, "example": error.example}))
        })
        .collect();
    let round = |round: &&Round| {
        json!({
            "node": round.node,
            "gap_ms": Gaps::of([*round]).document(),
            "full_copies_s": seconds(round.whole),
            "answered": round.answered,
            "uncertain": round.uncertain,
            "errors": round.failed,
        })
    };
    json!({
        "store": args.name,
        "how": args.how.name(),
        "load": {
            "clients": plan.clients,
            "rate": plan.per_second,
            "reads_percent": plan.reads_percent,
            "value_size": plan.value_bytes,
        },
        "interrupted": interrupted,
        "answered": {"writes": counts.writes, "reads": counts.reads},
        "lost": counts.lost,
        "stale": counts.stale,
        "invented": counts.invented,
        "uncertain": counts.uncertain,
        "verified_keys": keys,
        "redirected": counts.redirected,
        "errors": errors,
        "examples": counts.examples,
        "steady_gap_ms": steady.document(),
        "gap_ms": gaps.document(),
        "rounds": hits.iter().map(round).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_of_gaps_needs_its_samples() {
        let gaps = |count: u64| Gaps((1..=count).map(Duration::from_millis).collect());
        assert_eq!(gaps(19).quantile(0.5), None);
        assert_eq!(gaps(20).quantile(0.5), Some(Duration::from_millis(11)));
        assert_eq!(gaps(999).quantile(0.99), None);
        assert_eq!(gaps(1000).quantile(0.99), Some(Duration::from_millis(991)));
        assert_eq!((gaps(0).max(), gaps(3).max()), (None, Some(Duration::from_millis(3))));
    }
}
