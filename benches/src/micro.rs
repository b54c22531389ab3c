//! What the micro-benchmarks have in common: rows of a table, in thread CPU time, because the machines are shared and
//! wall-clock time says little there.
//!
//! `cargo bench -p dkv-bench` runs them all, `--bench NAME` one. `-- --quick` does everything once and little of it, to
//! show that it works.

/// Times that a row is measured; the median is shown.
const RUNS: usize = 5;

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Micro {
    quick: bool,
}

impl Micro {
    /// Reads the arguments and prints the head of the table.
    pub fn new(title: &str) -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        println!(
            "\n{title} (thread CPU time{})",
            if quick { "; --quick: no measurement" } else { "" }
        );
        Self { quick }
    }

    /// As many as a measurement needs, or a few that show that it works.
    pub fn count(self, full: u64) -> u64 {
        if self.quick { full.min(2_000) } else { full }
    }

    /// A number given as an argument, or as many as a measurement needs.
    pub fn count_given(self, full: u64) -> u64 {
        let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
        given.unwrap_or_else(|| self.count(full))
    }

    /// Measures `work`, which does so many operations each time it is called.
    pub fn row(self, name: &str, operations: u64, mut work: impl FnMut()) {
        let mut samples = [0.0; RUNS];
        let runs = if self.quick { 1 } else { RUNS };
        for sample in &mut samples[..runs] {
            let start = dkv_io::clock::thread_cpu_ns();
            work();
            *sample = (dkv_io::clock::thread_cpu_ns() - start) as f64 / operations.max(1) as f64;
        }
        samples[..runs].sort_by(f64::total_cmp);
        self.show(name, samples[runs / 2], "ns");
    }

    /// Shows a number that was found otherwise.
    pub fn show(self, name: &str, value: f64, unit: &str) {
        println!("  {name:52} {value:10.1} {unit}");
    }
}
