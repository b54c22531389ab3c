//! How what was measured is shown: for people, and as the document that `--compare` reads.

use super::ended;
use super::load::value_sizes_text;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::store_link::server_failure;
use dkv_bench::generator::{
    Arrivals, Distribution, Latencies, Limit, Outcome, Pace, Plan, SHOWN_FROM, Target, supported,
    supported_of,
};
use serde_json::{Value, json};

/// The percentiles that are shown, by their names.
pub(super) const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// Milliseconds with three digits that count.
pub(super) fn ms_text(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        100.0.. => format!("{ms:.0}"),
        10.0.. => format!("{ms:.1}"),
        1.0.. => format!("{ms:.2}"),
        _ => format!("{ms:.3}"),
    }
}

pub(super) fn ms(ns: f64) -> f64 {
    (ns / 1e3).round() / 1e3
}

/// Columns of the longest name of a percentile.
const LABEL_COLUMNS: usize = 6;

/// In place of a percentile that too few samples support.
pub(super) const FEW: &str = "-";

/// A percentile, where it is known.
pub(super) fn known(ns: Option<u64>) -> String {
    ns.map_or_else(|| FEW.to_owned(), ms_text)
}

/// A percentile, where its samples support it.
fn percentile_text(latencies: &Latencies, quantile: f64) -> String {
    known(supported(latencies, quantile, SHOWN_FROM))
}

/// Why some percentiles of so many requests are not shown; none when all are.
pub(super) fn few_note(count: u64) -> Option<String> {
    let few = QUANTILES.iter().find(|(_, quantile)| !supported_of(count, *quantile, SHOWN_FROM));
    let (name, quantile) = few.filter(|_| count > 0)?;
    let needed = (SHOWN_FROM as f64 / (1.0 - quantile)).round();
    Some(format!(
        "no {name} and beyond of {count} requests: of fewer than {SHOWN_FROM} beyond it, a percentile is chance; {name} needs \
         {needed} requests"
    ))
}

/// Latencies as a document, in milliseconds; none where nothing was measured. A percentile that too few samples support is
/// null.
pub(super) fn latency_document(latencies: &Latencies) -> Value {
    if latencies.is_empty() {
        return Value::Null;
    }
    let mut document = json!({
        "count": latencies.len(),
        "min": ms(latencies.min() as f64),
        "mean": ms(latencies.mean()),
        "max": ms(latencies.max() as f64),
    });
    for (name, quantile) in QUANTILES {
        let supported = supported(latencies, quantile, SHOWN_FROM);
        document[name] = json!(supported.map(|ns| ms(ns as f64)));
    }
    document
}

fn pace_text(plan: &Plan) -> String {
    match plan.pace {
        Pace::Closed => "closed loop".into(),
        Pace::Open { per_second, arrivals } => {
            let arrivals = if arrivals == Arrivals::Poisson { "Poisson" } else { "constant" };
            format!("{per_second} a second, {arrivals}")
        }
    }
}

fn distribution_text(plan: &Plan) -> String {
    match plan.distribution {
        Distribution::Uniform => "uniform".into(),
        Distribution::Sequential => "sequential".into(),
        Distribution::Zipfian(exponent) => format!("zipfian:{exponent}"),
    }
}

fn route_text(plan: &Plan) -> &'static str {
    match plan.target {
        Target::One => "one",
        Target::All => "all",
        Target::Cluster => "cluster",
    }
}

/// What to know before believing the figures, each with what to do.
pub(super) fn warnings(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut warnings: Vec<String> = outcome.limits().into_iter().map(|limit| match limit {
        Limit::Busy(share) => format!(
            "the generator itself was busy for {:.0} % of the time: the server may be faster than this; --threads {} or fewer requests",
            share * 100.0,
            plan.threads * 2
        ),
        Limit::Late(ns) => format!(
            "the generator itself sent late, one of a hundred requests by {} ms with a connection free; that is in the \
             latencies: leave it a CPU of its own, or ask for less",
            ms_text(ns)
        ),
        Limit::Unsent(count) => format!(
            "the rate was not reached: {count} requests fell due and found no connection free, and are in no percentile; \
             lower --rate, or more --connections or --pipeline"
        ),
        Limit::Unanswered(count) => {
            format!("{count} requests were never answered and are in no percentile; the real ones are higher")
        }
    }).collect();
    let missing = outcome.reads.missing;
    if missing > 0 && missing * 10 > outcome.reads.latency.len() {
        let of = outcome.reads.latency.len();
        warnings.push(format!("{missing} of {of} reads found no key; --prefill writes them first"));
    }
    if outcome.redirected + outcome.again > 0 {
        warnings.push(format!(
            "{} requests were sent on to another node, and {} asked again because their connection ended; the map of slots \
             changed {} times",
            outcome.redirected, outcome.again, outcome.routes_changed
        ));
    }
    if outcome.reconnected > 0 {
        warnings.push(format!("{} connections ended and were made anew", outcome.reconnected));
    }
    warnings
}

/// Why some of the figures are not there, for each kind of request.
fn notes(outcome: &Outcome) -> Vec<String> {
    let kinds = [("reads", &outcome.reads.latency), ("writes", &outcome.writes.latency)];
    let few = |(name, latencies): &(&str, &Latencies)| {
        few_note(latencies.len()).map(|text| format!("{name}: {text}"))
    };
    kinds.iter().filter_map(few).collect()
}

/// The whole result for programs.
pub(super) fn document(plan: &Plan, store: Option<&str>, outcome: &Outcome) -> Value {
    let errors: serde_json::Map<String, Value> = outcome
        .errors
        .iter()
        .map(|(word, error)| {
            (word.clone(), json!({"count": error.count, "example": error.example}))
        })
        .collect();
    let asked = match plan.pace {
        Pace::Open { per_second, .. } => json!(per_second),
        Pace::Closed => Value::Null,
    };
    json!({
        "store": store,
        "endpoints": plan.endpoints,
        "load": {
            "route": route_text(plan),
            "pace": pace_text(plan),
            "rate": asked,
            "connections": plan.connections,
            "threads": plan.threads,
            "pipeline": plan.pipeline,
            "reads_percent": plan.reads_percent,
            "keys": plan.keys,
            "distribution": distribution_text(plan),
            "value_size": value_sizes_text(&plan.values),
            "ttl_ms": plan.ttl_ms,
        },
        "seconds": (outcome.measured.as_secs_f64() * 1e3).round() / 1e3,
        "requests": outcome.answered(),
        "rate": (outcome.per_second() * 10.0).round() / 10.0,
        "errors": errors,
        "missing": outcome.reads.missing,
        "redirected": outcome.redirected,
        "asked_again": outcome.again,
        "routes_changed": outcome.routes_changed,
        "reconnected": outcome.reconnected,
        "latency_ms": {
            "all": latency_document(&outcome.latency()),
            "read": latency_document(&outcome.reads.latency),
            "write": latency_document(&outcome.writes.latency),
        },
        "since_send_ms": latency_document(&outcome.service()),
        "generator": {
            "io": outcome.io,
            "cpu_us_per_request": ms(outcome.cpu_ns_per_request * 1e3),
            "busiest_thread": (outcome.busiest * 1e3).round() / 1e3,
            "late_ms": latency_document(&outcome.late),
            "unsent": outcome.unsent,
            "unanswered": outcome.unanswered,
        },
        "interrupted": outcome.interrupted,
        "cut_off": outcome.cut_off.as_ref().map(|problem| problem.what.as_str()),
        "rate_held": outcome.held_its_rate(),
        "notes": notes(outcome),
        "warnings": warnings(plan, outcome),
    })
}

/// Shows it. The exit code says whether all of it went well.
pub(super) fn show(
    format: Format,
    plan: &Plan,
    store: Option<&str>,
    outcome: &Outcome,
) -> Result<u8, Failure> {
    match format {
        Format::Json => output::json(&document(plan, store, outcome)),
        Format::Table => {
            summary(plan, store, outcome);
            table(outcome);
            for text in notes(outcome) {
                output::note(&text);
            }
            for text in warnings(plan, outcome) {
                output::warn(&text);
            }
        }
    }
    if outcome.answered() == 0 && !outcome.interrupted {
        let Some(error) = outcome.errors.values().max_by_key(|error| error.count) else {
            if outcome.unsent > 0 {
                let what = "the rate is far too high: nothing that fell due while it was measured was even sent";
                return Err(Failure::failed(
                    what,
                    "lower --rate, or see with --closed how much goes",
                ));
            }
            let what = "not one request was answered: there is no latency to report";
            return Err(Failure::timed_out(
                what,
                "a longer --duration, or look at the server: dkv store list",
            ));
        };
        let what = format!("all {} requests failed: {}", outcome.failed(), error.example);
        return Err(Failure::failed(what, server_failure(&error.example).hint));
    }
    let whole = outcome.failed() == 0 && outcome.held_its_rate();
    ended(outcome, if whole { 0 } else { Exit::Partly as u8 })
}

fn summary(plan: &Plan, store: Option<&str>, outcome: &Outcome) {
    let endpoints = plan.endpoints.join(",");
    let target = store.map_or_else(|| endpoints.clone(), |store| format!("{store} ({endpoints})"));
    let load = format!(
        "{}; {} connections, pipeline {}, {} threads ({})",
        pace_text(plan),
        plan.connections,
        plan.pipeline,
        plan.threads,
        outcome.io
    );
    let mix = format!(
        "{} reads of 100; {} {} keys, values of {} bytes",
        plan.reads_percent,
        plan.keys,
        distribution_text(plan),
        value_sizes_text(&plan.values)
    );
    let seconds = outcome.measured.as_secs_f64();
    let asked = match plan.pace {
        Pace::Open { per_second, .. } if !outcome.held_its_rate() => {
            format!(" of {per_second} asked for")
        }
        _ => String::new(),
    };
    let done = format!(
        "{} in {seconds:.2} s, {:.0} a second{asked}",
        outcome.answered(),
        outcome.per_second()
    );
    let errors: Vec<String> = outcome
        .errors
        .iter()
        .map(|(word, error)| {
            format!("{} {word} ({})", error.count, output::printable(&error.example))
        })
        .collect();
    let errors = if errors.is_empty() { "0".to_owned() } else { errors.join("; ") };
    let own = format!(
        "{:.2} us of CPU a request, busiest thread {:.0} %",
        outcome.cpu_ns_per_request / 1e3,
        outcome.busiest * 100.0
    );
    let head = ["Target", "Load", "Mix", "Answered", "Errors", "Generator"];
    let row = [target, load, mix, done, errors, own].map(|text| json!(text));
    output::record(Format::Table, &head, &row);
    output::line("");
}

/// The percentiles, one under the other, so that they fit a narrow terminal.
fn table(outcome: &Outcome) {
    let columns = [
        ("Read", outcome.reads.latency.clone()),
        ("Write", outcome.writes.latency.clone()),
        ("SinceSend", outcome.service()),
    ];
    let mut shown: Vec<&(&str, Latencies)> =
        columns.iter().filter(|(_, latencies)| !latencies.is_empty()).collect();
    if shown.is_empty() {
        return;
    }
    // Rather one column less than lines that wrap.
    let wide = |shown: &[&(&str, Latencies)]| {
        LABEL_COLUMNS + shown.iter().map(|(name, _)| 2 + name.len().max(5)).sum::<usize>()
    };
    while shown.len() > 1 && output::columns().is_some_and(|most| wide(&shown) > most) {
        shown.pop();
    }
    let head: Vec<&str> = ["ms"].into_iter().chain(shown.iter().map(|(name, _)| *name)).collect();
    let row = |name: &str, of: &dyn Fn(&Latencies) -> String| -> Vec<Value> {
        let cells = shown.iter().map(|(_, latencies)| json!(of(latencies)));
        [json!(name)].into_iter().chain(cells).collect()
    };
    let mut rows = vec![row("min", &|l: &Latencies| ms_text(l.min()))];
    rows.extend(
        QUANTILES.map(|(name, quantile)| row(name, &|l: &Latencies| percentile_text(l, quantile))),
    );
    rows.push(row("max", &|l: &Latencies| ms_text(l.max())));
    output::rows(Format::Table, &head, &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_that_its_samples_do_not_support_is_not_told() {
        let mut latencies = Latencies::new(3).expect("three digits");
        latencies.record_n(1_000_000, 999).expect("it counts");
        let document = latency_document(&latencies);
        assert_eq!((&document["p95"], &document["p99"]), (&json!(1.0), &Value::Null));
        assert_eq!(percentile_text(&latencies, 0.99), FEW);
        assert_eq!(percentile_text(&latencies, 0.95), "1.00");
        let note = few_note(999).expect("some are missing");
        assert!(note.contains("no p99 and beyond") && note.contains("needs 1000"), "{note}");
        assert_eq!((few_note(0), few_note(100_000)), (None, None));
    }

    #[test]
    fn milliseconds_have_three_digits_that_count() {
        let cases = [
            (0, "0.000"),
            (1234, "0.001"),
            (1_234_567, "1.23"),
            (12_345_678, "12.3"),
            (523_456_789, "523"),
        ];
        for (ns, text) in cases {
            assert_eq!(ms_text(ns), text);
        }
    }
}
