//! `dkv bench --compare`: two results beside each other.

use crate::failure::Failure;
use crate::output::{self, Format};
use serde_json::{Value, json};
use std::path::Path;

/// What is compared: its name, where it stands in a result, and whether more of it is better.
const MEASURES: [(&str, &str, bool); 10] = [
    ("rate/s", "/rate", true),
    ("p50 ms", "/latency_ms/all/p50", false),
    ("p90 ms", "/latency_ms/all/p90", false),
    ("p99 ms", "/latency_ms/all/p99", false),
    ("p99.9 ms", "/latency_ms/all/p99.9", false),
    ("p99.99 ms", "/latency_ms/all/p99.99", false),
    ("max ms", "/latency_ms/all/max", false),
    ("read p99 ms", "/latency_ms/read/p99", false),
    ("write p99 ms", "/latency_ms/write/p99", false),
    ("own CPU us", "/generator/cpu_us_per_request", false),
];

/// Runs it.
pub(super) fn run(first: &Path, second: &Path, format: Format) -> Result<u8, Failure> {
    let (a, b) = (read(first)?, read(second)?);
    let rows = rows(&a, &b);
    output::rows(format, &["Measure", "First", "Second", "ChangePct", "Verdict"], &rows);
    if a["load"] != b["load"] {
        for (name, value) in a["load"].as_object().into_iter().flatten() {
            let other = &b["load"][name];
            if value != other {
                output::warn(&format!("the loads differ: {name} {value} and {other}"));
            }
        }
    }
    for (path, result) in [(first, &a), (second, &b)] {
        for warning in result["warnings"].as_array().into_iter().flatten() {
            output::warn(&format!("{}: {}", path.display(), output::cell_text(warning)));
        }
    }
    Ok(0)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
    let wrong = |why: String| {
        let what = format!("{} is no result of dkv bench: {why}", path.display());
        // Not this file: it may be one that somebody needs.
        Failure::usage(what, "results are made by: dkv bench -o json > result.json".to_string())
    };
    let value: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if value.pointer("/latency_ms/all").is_none() {
        return Err(wrong("it has no latency_ms".into()));
    }
    Ok(value)
}

fn rows(a: &Value, b: &Value) -> Vec<Vec<Value>> {
    let number = |result: &Value, at: &str| result.pointer(at).and_then(Value::as_f64);
    let row = |(name, at, more): &(&str, &str, bool)| {
        let (first, second) = (number(a, at)?, number(b, at)?);
        let change = (first != 0.0).then(|| (second / first - 1.0) * 100.0);
        let verdict = match change {
            Some(change) if change.abs() < 0.05 => "same",
            Some(change) if (change > 0.0) == *more => "better",
            Some(_) => "worse",
            None => "",
        };
        let change = change.map(|change| format!("{change:+.1}"));
        Some(vec![json!(name), json!(first), json!(second), json!(change), json!(verdict)])
    };
    MEASURES.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_better_for_a_rate_and_worse_for_a_latency() {
        let result =
            |rate: f64, p50: f64| json!({"rate": rate, "latency_ms": {"all": {"p50": p50}}});
        let rows = rows(&result(100.0, 2.0), &result(150.0, 3.0));
        assert_eq!(
            rows[0],
            [json!("rate/s"), json!(100.0), json!(150.0), json!("+50.0"), json!("better")]
        );
        assert_eq!(rows[1][3..], [json!("+50.0"), json!("worse")]);
        assert_eq!(rows.len(), 2, "what one of them has not is not compared: {rows:?}");
    }

    #[test]
    fn a_file_that_is_no_result_is_told_with_the_command_that_makes_one() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for text in ["", "[]", "{\"a\":1}"] {
            std::fs::write(file.path(), text).expect("written");
            let failure = read(file.path()).expect_err(text);
            assert!(failure.hint.contains("dkv bench -o json"), "{failure:?}");
        }
    }
}
