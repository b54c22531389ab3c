//! Redis' glob patterns: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! A pattern becomes a small automaton whose states are bits, one for each thing that takes a byte, so that all ways to
//! match are followed at once: a key costs its length times the pattern's length / 64, whatever stands in either. The
//! usual matcher with backtracking takes seconds for `a*a*a*…b`.

use alloc::vec::Vec;

/// The longest pattern. It bounds the memory of a compiled one: 256 masks of as many bits.
pub(super) const PATTERN_BYTES_MAX: usize = 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Words in a mask: one bit for each step, and the last state after them.
    words: usize,
    /// For each byte, the steps that take it: 256 masks, one after the other.
    takes: Vec<u64>,
    /// The states that a `*` holds: they stay, whatever the byte.
    stays: Vec<u64>,
    /// The state in which the whole pattern has been seen.
    last: usize,
}

/// One thing of a pattern that takes one byte.
type Step = [bool; 256];

impl Pattern {
    /// Compiles; every text is a pattern. Ends of sets that are missing are at the end of the text, as in Redis.
    pub(super) fn new(text: &[u8]) -> Self {
        // No more steps than bytes, and one state after the last step.
        let words = text.len() / 64 + 1;
        let mut pattern = Self {
            words,
            takes: alloc::vec![0; 256 * words],
            stays: alloc::vec![0; words],
            last: 0,
        };
        let mut rest = text;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'*' => pattern.stays[pattern.last / 64] |= 1 << (pattern.last % 64),
                b'?' => pattern.step(|_| true),
                b'[' => {
                    let (set, after) = set(rest);
                    pattern.step(|byte| set[byte as usize]);
                    rest = after;
                }
                b'\\' if !rest.is_empty() => {
                    let escaped = rest[0];
                    pattern.step(|byte| byte == escaped);
                    rest = &rest[1..];
                }
                literal => pattern.step(|byte| byte == literal),
            }
        }
        pattern
    }

    fn step(&mut self, takes: impl Fn(u8) -> bool) {
        for byte in 0..=u8::MAX {
            if takes(byte) {
                self.takes[byte as usize * self.words + self.last / 64] |= 1 << (self.last % 64);
            }
        }
        self.last += 1;
    }

    /// Whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        if self.words == 1 { self.matches_short(text) } else { self.matches_long(text) }
    }

    /// The states fit in one word.
    fn matches_short(&self, text: &[u8]) -> bool {
        let stays = self.stays[0];
        let mut states = 1u64;
        for &byte in text {
            states = (states & stays) | ((states & self.takes[byte as usize]) << 1);
            if states == 0 {
                return false;
            }
        }
        states >> self.last & 1 == 1
    }

    fn matches_long(&self, text: &[u8]) -> bool {
        let mut states = alloc::vec![0u64; self.words];
        states[0] = 1;
        for &byte in text {
            let takes = &self.takes[byte as usize * self.words..][..self.words];
            let mut carry = 0;
            let mut any = 0;
            for ((state, takes), stays) in states.iter_mut().zip(takes).zip(&self.stays) {
                let taken = *state & takes;
                *state = (*state & stays) | taken << 1 | carry;
                carry = taken >> 63;
                any |= *state;
            }
            if any == 0 {
                return false;
            }
        }
        states[self.last / 64] >> (self.last % 64) & 1 == 1
    }
}

/// What a set takes, and what follows it; `rest` starts after its `[`.
fn set(rest: &[u8]) -> (Step, &[u8]) {
    let (negated, mut rest) = match rest {
        [b'^', after @ ..] => (true, after),
        _ => (false, rest),
    };
    let mut set = [false; 256];
    loop {
        match rest {
            [] => break,
            [b'\\', escaped, after @ ..] => {
                set[*escaped as usize] = true;
                rest = after;
            }
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [a, b'-', b, after @ ..] => {
                set[*a.min(b) as usize..=*a.max(b) as usize].fill(true);
                rest = after;
            }
            [byte, after @ ..] => {
                set[*byte as usize] = true;
                rest = after;
            }
        }
    }
    if negated {
        for taken in &mut set {
            *taken = !*taken;
        }
    }
    (set, rest)
}
