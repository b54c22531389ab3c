//! Inputs that nobody thought of, for everything that reads bytes from elsewhere.
//!
//! Each target has examples of what it reads. An input is made of them by a seed: pieces are cut out, doubled, overwritten,
//! swapped with those of other examples and with words and numbers that often hurt; what a target calls new joins the
//! examples. The same seed makes the same inputs, so that a finding is its target, seed and number. `cargo run --release
//! -p dkv-tests --bin fuzz` runs for a time; a test runs a few thousand inputs of each target.

mod executor;
mod globs;
mod readers;

use std::time::{Duration, Instant};

/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 4096;
/// Examples that are kept, the given ones included.
const EXAMPLES_MAX: usize = 4096;
/// Longest that one input may take. Generous: machines are slow and shared, and what hangs takes for ever.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// Something that reads bytes from elsewhere.
pub trait Target {
    /// Inputs to begin with, of every kind that it knows.
    fn examples(&self) -> Vec<Vec<u8>>;
    /// Words and numbers that mean something in its inputs.
    fn words(&self) -> Vec<Vec<u8>>;
    /// Reads an input and panics when what came of it cannot be. What it gives tells inputs apart that took another way.
    fn read(&mut self, input: &[u8]) -> u64;
}

/// The targets by name.
pub const TARGETS: [&str; 6] = ["requests", "replies", "frames", "documents", "globs", "executor"];

/// The target of that name.
pub fn target(name: &str) -> Option<Box<dyn Target>> {
    Some(match name {
        "requests" => Box::new(readers::Requests),
        "replies" => Box::new(readers::Replies),
        "frames" => Box::new(readers::Frames),
        "documents" => Box::new(readers::Documents),
        "globs" => Box::new(globs::Globs::new()),
        "executor" => Box::new(executor::Executor::new()),
        _ => return None,
    })
}

/// Small, fast, and the same everywhere (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// One of them.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Inputs that were read.
    pub inputs: u64,
    /// Examples at the end; those it began with included.
    pub examples: usize,
    /// The longest time that one took.
    pub longest: Duration,
}

/// Feeds a target until `go_on` says no, which is asked before each input with how many there were.
///
/// # Panics
/// When an input makes the target panic or takes too long; its bytes are printed before.
pub fn run(target: &mut dyn Target, seed: u64, mut go_on: impl FnMut(u64) -> bool) -> Run {
    let mut chance = Chance::new(seed);
    let words = target.words();
    let mut examples = target.examples();
    let given = examples.len();
    let mut seen = std::collections::BTreeSet::new();
    let (mut inputs, mut longest) = (0, Duration::ZERO);
    while go_on(inputs) {
        // The examples first, as they are.
        let input = if inputs < given as u64 {
            examples[inputs as usize].clone()
        } else {
            changed(&mut chance, &examples, &words)
        };
        let shown = Shown(&input, inputs);
        let start = Instant::now();
        let way = target.read(&input);
        let taken = start.elapsed();
        assert!(taken < INPUT_TIME_MAX, "an input took {taken:?}");
        drop(shown);
        longest = longest.max(taken);
        if seen.insert(way) && inputs > given as u64 && examples.len() < EXAMPLES_MAX {
            examples.push(input);
        }
        inputs += 1;
    }
    Run { inputs, examples: examples.len(), longest }
}

/// Prints an input when the thread panics while it is read.
struct Shown<'a>(&'a [u8], u64);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {}: \"{}\"", self.1, self.0.escape_ascii());
        }
    }
}

/// An input that nobody thought of.
fn changed(chance: &mut Chance, examples: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = chance.one(examples).clone();
    for _ in 0..=chance.below(6) {
        let at = chance.below(input.len() + 1);
        let end = (at + chance.below(17)).min(input.len());
        match chance.below(9) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            3 if at < input.len() => input[at] ^= 1 << chance.below(8),
            4 if at < input.len() => input[at] = chance.bits() as u8,
            5 | 6 => drop(input.splice(at..end, chance.one(words).iter().copied())),
            7 => {
                let other = chance.one(examples);
                let from = chance.below(other.len() + 1);
                let to = (from + chance.below(200)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let count = chance.below(12);
                let bytes: Vec<u8> = (0..count).map(|_| chance.bits() as u8).collect();
                input.splice(at..at, bytes);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Numbers in decimal that are at the edge of something.
fn numbers() -> impl Iterator<Item = Vec<u8>> {
    let edges = [
        "0",
        "-1",
        "1",
        "10",
        "11",
        "63",
        "64",
        "65",
        "255",
        "256",
        "16383",
        "16384",
        "16385",
        "65535",
        "65536",
        "65537",
        "1048576",
        "1048577",
        "536870911",
        "536870912",
        "536870913",
        "2147483647",
        "-2147483648",
        "2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
        "1e400",
        "nan",
        "-inf",
        "0.1",
        "1e-400",
        "00",
        "-0",
        "+1",
        " 1",
    ];
    edges.into_iter().map(|text| text.as_bytes().to_vec())
}

/// A number that tells ways apart: the more that is put in alike, the more alike it is.
fn mixed(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, |sum, part| Chance::new(sum ^ part).bits())
}
