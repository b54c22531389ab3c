//! Feeds targets with inputs that nobody thought of, for a time: `cargo run --release -p dkv-tests --bin fuzz -- --target all
//! --seconds 600`. `--target` is `all` or one of those it names; `--seed` begins elsewhere. Ends with a panic that shows the
//! input at the first finding.

use dkv_tests::fuzz::{TARGETS, run, target};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let (mut wanted, mut seconds, mut seed) = (String::from("all"), 60, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = || value.parse::<u64>().ok();
        let known = match arg.as_str() {
            "--target" => {
                wanted.clone_from(&value);
                wanted == "all" || TARGETS.contains(&value.as_str())
            }
            "--seconds" => number().map(|n| seconds = n).is_some(),
            "--seed" => number().map(|n| seed = n).is_some(),
            _ => false,
        };
        if !known {
            eprintln!(
                "{arg} {value}: use --target all|{}, --seconds N, --seed N",
                TARGETS.join("|")
            );
            return ExitCode::from(2);
        }
    }
    for name in TARGETS.into_iter().filter(|name| wanted == "all" || wanted == *name) {
        let mut target = target(name).expect("it is in the list");
        let end = Instant::now() + Duration::from_secs(seconds);
        let done = run(target.as_mut(), seed, |_| Instant::now() < end);
        println!(
            "{name}: {} inputs, {} examples, the longest took {:.1} ms, nothing found",
            done.inputs,
            done.examples,
            done.longest.as_secs_f64() * 1e3
        );
    }
    ExitCode::SUCCESS
}
