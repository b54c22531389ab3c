//! Breaks a store with copies over and over, under load, and proves that nothing answered is lost and nothing old is read:
//! `cargo run --release -p dkv-tests --bin failover -- --rounds 200 --kind kill`. It makes network namespaces: run it as
//! root.

use dkv_tests::failover::faults::Kind;
use dkv_tests::failover::site::Site;
use dkv_tests::failover::{Options, Round, Summary, Trial, apart, errors};
use dkv_tests::machine::dkv_made;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
failover [--kind KIND[,KIND…]] [--rounds 200] [--nodes 3] [--clients 8] [--pace-us 500] [--seed 1]

Kinds, in one namespace: kill pause slow pause-manager kill-manager rolling handover resize
resize-kill
Kinds, with three machines: machine wipe wipe-manager cable one-way partial
flap loss, and any of the others when one of these is named
Several kinds take turns. `all` is all of them.";

/// Wrong things of a round that are shown.
const SHOWN: usize = 8;

/// What was asked for.
struct Asked {
    kinds: Vec<Kind>,
    rounds: u64,
    nodes: usize,
    options: Options,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    dkv_made();
    let sound = apart(move || run(&asked));
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(asked: &Asked) -> bool {
    let several = asked.kinds.iter().any(|kind| kind.needs_machines());
    let site = if several { Site::of_machines(3) } else { Site::of_nodes(asked.nodes) };
    let mut trial = Trial::new(site, asked.options);
    let mut summaries: Vec<Summary> = vec![Summary::default(); asked.kinds.len()];
    println!(
        "{:>5} {:<14} {:>8} {:>9} {:>5} {:>5} {:>8} {:>9}",
        "round", "kind", "answered", "uncertain", "lost", "stale", "gap ms", "whole ms"
    );
    for number in 0..asked.rounds {
        let turn = number as usize % asked.kinds.len();
        let kind = asked.kinds[turn];
        let round = trial.round(kind);
        print(number + 1, kind, &round);
        summaries[turn].add(&round);
    }
    println!();
    for (kind, summary) in asked.kinds.iter().zip(&summaries) {
        conclude(*kind, summary);
    }
    summaries.iter().all(|summary| summary.all.is_sound())
}

fn print(number: u64, kind: Kind, round: &Round) {
    let Round { answered, uncertain, lost, stale, gap_ms, whole_ms, note, .. } = round;
    let cut_off = round.cut_off_ms.map_or_else(String::new, |(served, wait)| {
        format!("; cut side served for {served:.0} ms, longest wait {wait:.0} ms")
    });
    let gray = round.gray_ms.map_or_else(String::new, |(before, later)| {
        format!("; p99 of writes elsewhere {before:.1} ms before, {later:.1} ms later")
    });
    let name = kind.name();
    let errors = errors(&round.errors);
    println!(
        "{number:>5} {name:<14} {answered:>8} {uncertain:>9} {lost:>5} {stale:>5} {gap_ms:>8.0} {whole_ms:>9.0}  \
         {note}; errors: {errors}{cut_off}{gray}"
    );
    if kind.is_graceful() {
        for text in round.examples.values() {
            println!("      {text}");
        }
    }
    for wrong in round.wrong.iter().take(SHOWN) {
        println!("      WRONG {wrong}");
    }
    if let Some(more) = round.wrong.len().checked_sub(SHOWN + 1) {
        println!("      WRONG and {} more", more + 1);
    }
}

fn conclude(kind: Kind, summary: &Summary) {
    let Round { answered, uncertain, lost, stale, again, .. } = summary.all;
    println!(
        "{}: {} rounds, {answered} answered, {lost} lost, {stale} stale, {uncertain} uncertain; errors: {}; asked again \
         {again}",
        kind.name(),
        summary.rounds,
        errors(&summary.all.errors),
    );
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| summary.gap_ms(share));
    print!("  longest gap of a round: p50 {half:.0} ms, p99 {most:.0} ms, max {all:.0} ms");
    match kind.gaps_ms() {
        Some((a, b, c)) => println!(" (aimed at: {a}, {b}, {c})"),
        None => println!(),
    }
    if let Some((served, wait)) = summary.all.cut_off_ms {
        println!(
            "  the cut side served for at most {served:.0} ms; longest wait there {wait:.0} ms"
        );
    }
    if let Some((before, later)) = summary.gray_ms() {
        println!(
            "  p99 of writes of other ranges: {before:.1} ms before, {later:.1} ms from 1.5 s after the begin until it was \
             undone (aimed at: below twice as long; medians of {} rounds)",
            summary.grays_ms.len(),
        );
    }
    if !summary.all.wrong.is_empty() {
        println!("  {} things were wrong; see above", summary.all.wrong.len());
    }
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked =
        Asked { kinds: vec![Kind::Kill], rounds: 200, nodes: 3, options: Options::default() };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is no number"));
        match flag.as_str() {
            "--kind" | "--kinds" if value == "all" => asked.kinds = Kind::ALL.to_vec(),
            "--kind" | "--kinds" => {
                let kind = |name: &str| {
                    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
                    found.ok_or_else(|| format!("there is no kind {name}"))
                };
                asked.kinds = value.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--rounds" => asked.rounds = number()?,
            "--nodes" => asked.nodes = number()?.clamp(2, 16) as usize,
            "--clients" => asked.options.clients = number()?.clamp(1, 64) as usize,
            "--pace-us" => asked.options.pace = Duration::from_micros(number()?),
            "--seed" => asked.options.seed = number()?,
            _ => return Err(format!("there is no {flag}")),
        }
    }
    Ok(asked)
}
