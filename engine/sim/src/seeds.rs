//! The committed seeds: one that catches each planted bug, and each that ever failed.
//!
//! A line is a bug's name (or `nothing`), `shard` if it is the whole shard that is run, a seed, and why it is there. A seed means the same run as long as what draws
//! from it does not change; when that changes, seeds of planted bugs are searched anew.

use crate::planted::Planted;
use crate::scenario::Driven;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What is planted.
    pub planted: Planted,
    /// The seed.
    pub seed: u64,
    /// What it drives.
    pub driven: Driven,
    /// Why.
    pub why: String,
}

/// The lines of a file, or the first that is none.
pub fn parse(text: &str) -> Result<Vec<Committed>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut all = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut seed = words.next().unwrap_or_default();
        let mut driven = Driven::Copies;
        if seed == "shard" {
            driven = Driven::Shard;
            seed = words.next().unwrap_or_default();
        }
        let planted = match Planted::named(name) {
            None if name != Planted::Nothing.name() => return Err(format!("no such bug: {line}")),
            known => known.unwrap_or_default(),
        };
        let seed = seed.parse().map_err(|_| format!("no seed: {line}"))?;
        all.push(Committed { planted, seed, driven, why: words.collect::<Vec<_>>().join(" ") });
    }
    Ok(all)
}

/// The file that is built in.
pub fn committed() -> Result<Vec<Committed>, String> {
    parse(include_str!("../seeds.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_bad_ones_are_named() {
        let all =
            parse("# head\n\nnothing shard 7 was stuck once\nwild-clocks 9 # caught\n").unwrap();
        let expected = [
            Committed {
                planted: Planted::Nothing,
                seed: 7,
                driven: Driven::Shard,
                why: "was stuck once".into(),
            },
            Committed {
                planted: Planted::WildClocks,
                seed: 9,
                driven: Driven::Copies,
                why: String::new(),
            },
        ];
        assert_eq!(all, expected);
        assert_eq!(parse("no-such-thing 1").unwrap_err(), "no such bug: no-such-thing 1");
        assert_eq!(parse("nothing x").unwrap_err(), "no seed: nothing x");
    }
}
