//! What happened, as a number and, when somebody wants to read it, as text.
//!
//! The number is a hash over every event with its moment and its content. Two runs of one seed must have the same; when
//! they do not, something in the code under test depends on what is not an argument.

use std::fmt::Arguments;

/// The account of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    text: Option<Vec<String>>,
}

/// Most lines that are kept, the last ones; a run has some ten thousand.
const LINES_MAX: usize = 400_000;

impl Trace {
    /// An account, with or without text.
    pub fn new(readable: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, text: readable.then(Vec::new) }
    }

    /// Counts an event: its moment, its kind with whom it concerns, and what it carries.
    pub fn event(&mut self, at_ns: u64, what: u64, content: &[u8]) {
        self.events += 1;
        self.mix(at_ns);
        self.mix(what);
        if !content.is_empty() {
            self.mix(rapidhash::v3::rapidhash_v3(content));
        }
    }

    /// Takes a number into the hash.
    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    /// Writes a line, when the text is wanted. The arguments are not formatted otherwise.
    pub fn line(&mut self, at_ns: u64, text: Arguments<'_>) {
        if let Some(lines) = &mut self.text
            && lines.len() < LINES_MAX
        {
            lines.push(format!("{:>12.6} {text}", at_ns as f64 / 1e6));
        }
    }

    /// Whether lines are kept.
    pub fn readable(&self) -> bool {
        self.text.is_some()
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines.
    pub fn into_lines(self) -> Vec<String> {
        self.text.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_counts() {
        let hash_of = |events: &[(u64, u64, &[u8])]| {
            let mut trace = Trace::new(false);
            for (at_ns, what, content) in events {
                trace.event(*at_ns, *what, content);
            }
            trace.hash()
        };
        let base = hash_of(&[(1, 2, b"x"), (3, 4, b"")]);
        assert_eq!(base, hash_of(&[(1, 2, b"x"), (3, 4, b"")]));
        for other in [
            &[(0, 2, &b"x"[..]), (3, 4, b"")][..],
            &[(1, 3, b"x"), (3, 4, b"")],
            &[(1, 2, b"y"), (3, 4, b"")],
            &[(3, 4, b""), (1, 2, b"x")],
        ] {
            assert_ne!(base, hash_of(other));
        }
    }
}
