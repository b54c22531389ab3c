//! What every build proves of the simulator and, with it, of the replication: the committed seeds do what they are there
//! for, a run is a function of its seed, and a batch of fresh seeds passes.

use dkv_sim::{Driven, Planted, planted, run, seeds};

#[test]
fn the_committed_seeds_catch_every_planted_bug_and_nothing_else() {
    let committed = seeds::committed().unwrap();
    for line in &committed {
        let report = run(line.seed, line.planted, line.driven, false);
        let as_wanted = report.passed() == (line.planted == Planted::Nothing);
        assert!(as_wanted, "{} {}: {:?}", line.planted.name(), line.seed, report.breaches);
        // A run that was given up has found nothing.
        let found = line.planted == Planted::Nothing || !report.breaches.is_empty();
        assert!(found, "{} {}: only undecided", line.planted.name(), line.seed);
    }
    for (name, planted, _) in planted::ALL {
        let has_seed = committed.iter().any(|line| line.planted == *planted);
        assert!(has_seed, "{name} has no committed seed");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut hashes = Vec::new();
    for seed in 0..40 {
        let driven = if seed < 20 { Driven::Copies } else { Driven::Shard };
        let again = || run(seed, Planted::Nothing, driven, false);
        let (first, second) = (again(), again());
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        hashes.push(first.hash);
    }
    let told = run(7, Planted::Nothing, Driven::Copies, true);
    assert_eq!(told.hash, hashes[7], "a trace that is read changes the run");
    assert!(told.lines.len() > 100, "{} lines", told.lines.len());
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 40, "two seeds are one run");
}

#[test]
fn fresh_seeds_pass() {
    let (mut answered, mut changes) = (0, 0);
    for seed in 1_000_000..1_000_200 {
        let driven = if seed % 2 == 0 { Driven::Copies } else { Driven::Shard };
        let report = run(seed, Planted::Nothing, driven, false);
        assert!(
            report.passed(),
            "seed {seed}: {:?}, {} undecided",
            report.breaches,
            report.undecided
        );
        answered += report.answered;
        changes += report.changes;
    }
    assert!(answered > 15_000, "{answered} commands were answered");
    assert!(changes > 500, "{changes} changes of configurations");
}
