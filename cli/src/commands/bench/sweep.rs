//! `dkv bench sweep`: the highest rate whose latency stays within a bound, and the curve on the way there.

use super::load::{ArrivalsArg, LoadArgs, rate, time_or_none};
use super::report::{QUANTILES, known, latency_document, ms_text, warnings};
use super::{curve, ended, measure, prefill};
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use dkv_bench::generator::{Outcome, Pace, RATE_MAX, SHOWN_FROM, supported};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// The rate is known well enough when the lowest that fails is no more above the highest that holds.
const NEAR: f64 = 1.1;
/// Most rates that are tried.
const POINTS_MAX: usize = 24;
/// The quantile that is held against the bound.
const QUANTILE: f64 = 0.999;
/// One request in so many lies beyond it.
const ONE_BEYOND_OF: u64 = 1000;
/// A rate is reached but for a little: what a lengthened point is given more.
const MORE: f64 = 1.02;

/// The flags of `dkv bench sweep`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv bench sweep --p99.9-max 1ms --duration 5s --prefill
  dkv bench sweep --target 127.0.0.1:6379 --p99.9-max 500us --svg curve.svg

A rate holds when 99.9 of 100 requests, counted from when they were due, were answered within the bound, none failed and the
rate was reached. It is doubled until it does not hold, then narrowed down to a tenth.

A p99.9 of few requests is chance: a rate is measured until --samples requests lie beyond it, for --longest at most. How many
lie beyond the bound varies by the square root of that: with 100 of them by a tenth, which is as near as the rate itself is
looked for, and takes 100,000 requests, a minute at 1,700/s; a thousand would be three times as sure and take ten times as long.
Where --longest does not suffice, no p99.9 is told; such a rate only shows the way, by its p99.")]
pub(crate) struct Args {
    /// The bound, as 1ms or 500us
    #[arg(long = "p99.9-max", env = "DKV_BENCH_P999_MAX", default_value = "1ms", value_parser = bound, value_name = "TIME")]
    bound_ns: u64,
    /// The first rate
    #[arg(long, env = "DKV_BENCH_FROM", default_value = "1000", value_parser = rate, value_name = "RATE")]
    from: f64,
    /// The highest rate
    #[arg(long, env = "DKV_BENCH_TO", default_value = "10M", value_parser = rate, value_name = "RATE")]
    to: f64,
    /// Requests that must lie beyond p99.9 before a rate is judged by it; a thousand times as many are measured
    #[arg(long, env = "DKV_BENCH_SAMPLES", default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    samples: u64,
    /// How long a rate is measured at most to get them; never less than --duration
    #[arg(long, env = "DKV_BENCH_LONGEST", default_value = "60s", value_parser = time_or_none, value_name = "TIME")]
    longest: Duration,
    /// How requests lie in time
    #[arg(long, env = "DKV_BENCH_ARRIVALS", value_enum, default_value = "constant")]
    arrivals: ArrivalsArg,
    /// Also draw the curve as a picture
    #[arg(long, env = "DKV_BENCH_SVG", value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is known of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    /// Its p99 is within the bound, and nobody knows its p99.9.
    TooFew,
    Fails,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::TooFew => "too few samples",
            Verdict::Fails => "does not hold",
        }
    }

    /// Of what was measured, all well or not, and its percentiles, each only where samples suffice.
    fn of(whole: bool, p99_ns: Option<u64>, p999_ns: Option<u64>, bound_ns: u64) -> Self {
        let above = |ns: Option<u64>| ns.is_some_and(|ns| ns > bound_ns);
        match p999_ns {
            _ if !whole || above(p99_ns) || above(p999_ns) => Verdict::Fails,
            Some(_) => Verdict::Holds,
            None => Verdict::TooFew,
        }
    }
}

/// One rate and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) rate: f64,
    /// Percentiles are none where too few requests lie beyond them.
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) p999_ns: Option<u64>,
    pub(super) max_ns: u64,
    pub(super) verdict: Verdict,
    reached: f64,
    document: Value,
    /// The generator was the limit, and not the server.
    warnings: Vec<String>,
}

/// A latency: `1ms`, `500us`, `2s`.
fn bound(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))
        .ok_or_else(|| format!("{text:?} is no latency; as 1ms or 500us"))?;
    let ns = number.trim().parse::<f64>().ok().map(|number| number * factor);
    ns.filter(|ns| (1.0..=3.6e12).contains(ns))
        .map(|ns| ns as u64)
        .ok_or_else(|| format!("{text:?} is no latency; as 1ms or 500us"))
}

/// The rate to try next; none when the answer is near enough.
fn next_rate(tried: &[(f64, bool)], from: f64, to: f64) -> Option<f64> {
    if tried.len() >= POINTS_MAX {
        return None;
    }
    let fails = tried.iter().filter(|(_, holds)| !holds).map(|(rate, _)| *rate).reduce(f64::min);
    let below = |rate: &f64| fails.is_none_or(|fails| *rate < fails);
    let holds = tried
        .iter()
        .filter(|(_, holds)| *holds)
        .map(|(rate, _)| *rate)
        .filter(below)
        .reduce(f64::max);
    match (holds, fails) {
        (None, None) => Some(from.min(to)),
        (Some(holds), None) => (holds < to).then(|| (holds * 2.0).min(to)),
        (None, Some(fails)) => (fails >= 2.0).then(|| (fails / 4.0).max(1.0)),
        (Some(holds), Some(fails)) => {
            // Below some ten a second the two are neighbours before they are near.
            let between = (fails * holds).sqrt().round();
            (fails / holds > NEAR && holds < between && between < fails).then_some(between)
        }
    }
}

/// Runs it.
pub(super) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let pace = |per_second| Pace::Open { per_second, arrivals: args.arrivals.into() };
    let (mut plan, store) = args.load.plan(pace(args.from.min(RATE_MAX)), spelling)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, "").map_err(|error| Failure::file(path, &error))?;
    }
    if args.load.prefill {
        prefill(&plan)?;
    }
    let mut points: Vec<Point> = Vec::new();
    let tried = |points: &[Point]| {
        points.iter().map(|point| (point.rate, point.verdict != Verdict::Fails)).collect::<Vec<_>>()
    };
    let shortest = plan.duration;
    let (mut end, mut broken) = (None, None);
    while let Some(rate) = next_rate(&tried(&points), args.from, args.to.min(RATE_MAX)) {
        plan.pace = pace(rate);
        plan.duration = long_enough(rate, shortest, args.longest, args.samples);
        let outcome = match measure(&plan) {
            Err(failure) if !points.is_empty() => {
                broken = Some(failure);
                break;
            }
            outcome => outcome?,
        };
        if outcome.interrupted || outcome.cut_off.is_some() {
            // A rate that was not measured to its end is not judged.
            end = Some(outcome);
            break;
        }
        let point = Point { warnings: warnings(&plan, &outcome), ..judge(rate, &outcome, args) };
        if args.output.output == Format::Table {
            let (p99, p999) = (known(point.p99_ns), known(point.p999_ns));
            let verdict = point.verdict.text();
            output::note(&format!("{rate:.0}/s: p99 {p99} ms, p99.9 {p999} ms, {verdict}"));
        }
        points.push(point);
    }
    points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    if let Some(path) = &args.svg {
        let title = store.clone().unwrap_or_else(|| plan.endpoints.join(", "));
        std::fs::write(path, curve::svg(&points, args.bound_ns, &title))
            .map_err(|error| Failure::file(path, &error))?;
    }
    let shown = show(args, &points);
    match (end, broken) {
        (_, Some(failure)) => Err(failure),
        (Some(end), None) => ended(&end, 0),
        (None, None) => shown,
    }
}

/// How long a rate is measured: until enough requests lie beyond the quantile. A rate that would take longer than `longest` is
/// not lengthened at all, because it would be waited for in vain.
fn long_enough(rate: f64, shortest: Duration, longest: Duration, samples: u64) -> Duration {
    let seconds = samples as f64 * ONE_BEYOND_OF as f64 / rate * MORE;
    match Duration::try_from_secs_f64(seconds) {
        Ok(wanted) if wanted <= longest => wanted.max(shortest),
        _ => shortest,
    }
}

fn judge(rate: f64, outcome: &Outcome, args: &Args) -> Point {
    let latency = outcome.latency();
    let whole = outcome.answered() > 0 && outcome.failed() == 0 && outcome.held_its_rate();
    let shown = |quantile| supported(&latency, quantile, SHOWN_FROM);
    let (p99_ns, p999_ns) = (shown(0.99), supported(&latency, QUANTILE, args.samples));
    let mut document = latency_document(&latency);
    for (name, quantile) in QUANTILES {
        // Those beyond have fewer samples still.
        if quantile >= QUANTILE && p999_ns.is_none() && !document.is_null() {
            document[name] = Value::Null;
        }
    }
    Point {
        rate,
        p50_ns: shown(0.5),
        p99_ns,
        p999_ns,
        max_ns: latency.max(),
        verdict: Verdict::of(whole, p99_ns, p999_ns, args.bound_ns),
        reached: outcome.per_second(),
        document,
        warnings: Vec::new(),
    }
}

fn show(args: &Args, points: &[Point]) -> Result<u8, Failure> {
    let fails =
        points.iter().position(|point| point.verdict == Verdict::Fails).unwrap_or(points.len());
    let highest = fails.checked_sub(1).map(|at| &points[at]);
    let best = highest.filter(|point| point.verdict == Verdict::Holds);
    match args.output.output {
        Format::Json => output::json(&json!({
            "p99.9_max_ms": args.bound_ns as f64 / 1e6,
            "highest_rate": best.map(|point| point.rate),
            "points": points.iter().map(|point| json!({
                "rate": point.rate,
                "reached": (point.reached * 10.0).round() / 10.0,
                "holds": match point.verdict {
                    Verdict::Holds => json!(true),
                    Verdict::Fails => json!(false),
                    Verdict::TooFew => Value::Null,
                },
                "verdict": point.verdict.text(),
                "latency_ms": point.document,
                "warnings": point.warnings,
            })).collect::<Vec<_>>(),
        })),
        Format::Table => {
            let row = |point: &Point| {
                let mut row = vec![
                    json!(format!("{:.0}", point.rate)),
                    json!(format!("{:.0}", point.reached)),
                ];
                row.extend([point.p50_ns, point.p99_ns, point.p999_ns].map(|ns| json!(known(ns))));
                row.push(json!(ms_text(point.max_ns)));
                row.push(json!(match point.p999_ns {
                    Some(ns) => curve::bar(ns, args.bound_ns),
                    None => "too few samples".to_owned(),
                }));
                row
            };
            let rows: Vec<Vec<Value>> = points.iter().map(row).collect();
            let head = ["Rate", "Reached", "p50", "p99", "p99.9", "max", "p99.9 to the bound |"];
            output::rows(Format::Table, &head, &rows);
        }
    }
    let bound = ms_text(args.bound_ns);
    let Some(best) = best else {
        if let Some(highest) = highest {
            let what = format!(
                "too few samples: {:.0}/s was held and nothing known of it is above {bound} ms, but too few requests lie beyond its p99.9 to say",
                highest.rate
            );
            let seconds = args.samples as f64 * ONE_BEYOND_OF as f64 / highest.rate * MORE;
            let more = format!(
                "--longest {:.0}s, or fewer --samples than {}",
                seconds.ceil(),
                args.samples
            );
            return Err(Failure::failed(what, more));
        }
        let lowest = points.first().map_or_else(
            || "nothing measured".to_owned(),
            |point| match (point.p999_ns, point.p99_ns) {
                (Some(ns), _) => format!("a p99.9 of {} ms", ms_text(ns)),
                (None, Some(ns)) => format!("a p99 of {} ms", ms_text(ns)),
                (None, None) => format!("a longest of {} ms", ms_text(point.max_ns)),
            },
        );
        let what =
            format!("no rate keeps p99.9 within {bound} ms; the lowest one tried has {lowest}");
        return Err(Failure::failed(
            what,
            "raise --p99.9-max, or look for what disturbs: dkv doctor",
        ));
    };
    if args.output.output == Format::Table {
        output::line(&format!(
            "p99.9 stays within {bound} ms up to {:.0} requests a second",
            best.rate
        ));
        if let Some(first) = points.get(fails).filter(|point| !point.warnings.is_empty()) {
            first
                .warnings
                .iter()
                .for_each(|text| output::warn(&format!("at {:.0}/s {text}", first.rate)));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried when all up to `limit` hold.
    fn search(limit: f64, from: f64, to: f64) -> Vec<(f64, bool)> {
        let mut tried = Vec::new();
        while let Some(rate) = next_rate(&tried, from, to) {
            tried.push((rate, rate <= limit));
        }
        tried
    }

    #[test]
    fn the_search_ends_within_a_tenth_of_the_limit() {
        for limit in [3.0, 999.0, 1000.0, 55_555.0, 1e6] {
            let tried = search(limit, 1000.0, 1e7);
            let best =
                tried.iter().filter(|(_, holds)| *holds).map(|(rate, _)| *rate).fold(0.0, f64::max);
            assert!(
                best <= limit && best * NEAR >= limit * 0.95 && tried.len() < POINTS_MAX,
                "{limit}: {tried:?}"
            );
        }
    }

    #[test]
    fn the_search_ends_at_its_bounds() {
        assert_eq!(
            search(f64::INFINITY, 1000.0, 3000.0),
            [(1000.0, true), (2000.0, true), (3000.0, true)]
        );
        let hopeless = search(0.0, 1000.0, 1e6);
        assert_eq!(hopeless.last(), Some(&(1.0, false)));
    }

    #[test]
    fn a_rate_that_holds_above_one_that_does_not_is_luck() {
        let tried = [(1000.0, true), (2000.0, false), (4000.0, true)];
        let next = next_rate(&tried, 1000.0, 1e6).expect("it goes on");
        assert!(next > 1000.0 && next < 2000.0, "{next}");
    }

    #[test]
    fn a_point_lasts_until_enough_lie_beyond_the_quantile_or_is_not_lengthened() {
        let seconds = Duration::from_secs;
        let lasts = |rate| long_enough(rate, seconds(5), seconds(60), 1000);
        assert_eq!(lasts(1e6), seconds(5));
        assert_eq!(lasts(1e5), Duration::from_millis(10_200));
        assert_eq!(lasts(1e4), seconds(5), "it would take 102 s");
        assert_eq!(long_enough(1e-300, seconds(5), seconds(60), 1_000_000), seconds(5));
        for rate in [17_000.0, 55_555.0, 1e6] {
            assert!(rate * lasts(rate).as_secs_f64() >= 1e6, "{rate}");
        }
    }

    #[test]
    fn a_rate_holds_only_when_its_p999_is_known() {
        let of = |whole, p99, p999| Verdict::of(whole, p99, p999, 100);
        assert_eq!(of(true, Some(50), Some(100)), Verdict::Holds);
        assert_eq!(of(true, Some(50), Some(101)), Verdict::Fails);
        assert_eq!(of(true, Some(50), None), Verdict::TooFew);
        assert_eq!(of(true, None, None), Verdict::TooFew);
        assert_eq!(of(true, Some(101), None), Verdict::Fails);
        assert_eq!(of(false, Some(50), Some(50)), Verdict::Fails);
        assert_eq!(of(false, None, None), Verdict::Fails);
    }

    #[test]
    fn bounds_are_read_with_their_unit() {
        assert_eq!(bound("1ms"), Ok(1_000_000));
        assert_eq!(bound("500us"), Ok(500_000));
        assert_eq!(bound("0.5 ms"), Ok(500_000));
        for text in ["", "1", "ms", "0ms", "-1ms", "2h", "NaNms"] {
            assert!(bound(text).is_err(), "{text}");
        }
    }
}
