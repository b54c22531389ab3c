//! Redis' glob patterns: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! A pattern becomes a small automaton whose states are bits, one for each thing that takes a byte, so that all ways to
//! match are followed at once: a key costs its length times the pattern's length / 64, whatever stands in either. The
//! usual matcher with backtracking takes seconds for `a*a*a*…b`.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The longest pattern. It bounds the memory of a compiled one: 256 masks of as many bits.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
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
    pub(crate) fn new(text: &[u8]) -> Self {
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

    /// Memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.takes) + size_of_val(&*self.stays)
    }

    /// About what [`Self::matches`] takes.
    pub(crate) fn cost_ns(&self, text: &[u8]) -> usize {
        text.len() * self.words
    }

    /// Whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        if self.words == 1 { self.match_short(text).0 } else { self.match_long(text).0 }
    }

    #[inline]
    fn match_short(&self, text: &[u8]) -> (bool, usize) {
        match_short(self.stays[0], self.last, text, |byte| self.takes[byte as usize])
    }

    fn match_long(&self, text: &[u8]) -> (bool, usize) {
        let takes = |byte: u8| &self.takes[byte as usize * self.words..][..self.words];
        match_long(&self.stays, self.last, text, takes)
    }

    /// The same, folded together.
    pub(crate) fn compact(&self) -> Compact {
        let row = |byte: u8| &self.takes[byte as usize * self.words..][..self.words];
        let starts: Box<[u8]> = (1..=u8::MAX).filter(|byte| row(*byte) != row(*byte - 1)).collect();
        let others = starts.iter().flat_map(|start| row(*start));
        let takes = row(0).iter().chain(others).copied().collect();
        Compact { starts, takes, stays: self.stays.as_slice().into(), last: self.last }
    }
}

/// A compiled pattern of which there are many: a few dozen bytes for each of its text at the most, where the other kind takes two
/// thousand for the shortest text. For that each byte of a name is searched for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compact {
    /// Bytes that the same steps take stand together: the first of each such row, but of that of 0.
    starts: Box<[u8]>,
    /// For each row the steps that take its bytes.
    takes: Box<[u64]>,
    stays: Box<[u64]>,
    last: usize,
}

impl Compact {
    /// Words of states that each byte of a name is compared with.
    pub(crate) fn words(&self) -> usize {
        self.stays.len()
    }

    /// Whether the whole of `text` matches, and how many bytes of it were looked at: when it cannot match any more, the others
    /// are not.
    pub(crate) fn look(&self, text: &[u8]) -> (bool, usize) {
        let words = self.words();
        let takes = |byte: u8| {
            let row = self.starts.partition_point(|start| *start <= byte);
            &self.takes[row * words..][..words]
        };
        if words == 1 {
            match_short(self.stays[0], self.last, text, |byte| takes(byte)[0])
        } else {
            match_long(&self.stays, self.last, text, takes)
        }
    }

    /// Memory that it takes, in bytes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let masks = size_of_val(&*self.takes) + size_of_val(&*self.stays);
        size_of::<Self>() + self.starts.len() + masks
    }
}

/// The states fit in one word. Also how many bytes were looked at.
#[inline]
fn match_short(stays: u64, last: usize, text: &[u8], takes: impl Fn(u8) -> u64) -> (bool, usize) {
    let mut states = 1u64;
    for (at, &byte) in text.iter().enumerate() {
        states = (states & stays) | ((states & takes(byte)) << 1);
        if states == 0 {
            return (false, at + 1);
        }
    }
    (states >> last & 1 == 1, text.len())
}

#[inline]
fn match_long<'p>(
    stays: &[u64],
    last: usize,
    text: &[u8],
    takes: impl Fn(u8) -> &'p [u64],
) -> (bool, usize) {
    let mut states = alloc::vec![0u64; stays.len()];
    states[0] = 1;
    for (at, &byte) in text.iter().enumerate() {
        let mut carry = 0;
        let mut any = 0;
        for ((state, takes), stays) in states.iter_mut().zip(takes(byte)).zip(stays) {
            let taken = *state & takes;
            *state = (*state & stays) | taken << 1 | carry;
            carry = taken >> 63;
            any |= *state;
        }
        if any == 0 {
            return (false, at + 1);
        }
    }
    (states[last / 64] >> (last % 64) & 1 == 1, text.len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one step at a time and with all its recursion.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                reference(rest, text) || (!text.is_empty() && reference(pattern, &text[1..]))
            }
            ([], _) | (_, []) => false,
            ([b'?', rest @ ..], [_, text @ ..]) => reference(rest, text),
            ([b'[', rest @ ..], [byte, text @ ..]) => {
                let (takes, rest) = reference_set(rest, *byte);
                takes && reference(rest, text)
            }
            ([b'\\', literal, rest @ ..] | [literal, rest @ ..], [byte, text @ ..]) => {
                literal == byte && reference(rest, text)
            }
        }
    }

    /// As Redis' `stringmatchlen` reads a set: whether it takes the byte, and what follows it.
    fn reference_set(mut rest: &[u8], byte: u8) -> (bool, &[u8]) {
        let negated = rest.first() == Some(&b'^');
        if negated {
            rest = &rest[1..];
        }
        let mut takes = false;
        while !rest.is_empty() && rest[0] != b']' {
            if rest[0] == b'\\' && rest.len() >= 2 {
                takes |= rest[1] == byte;
                rest = &rest[2..];
            } else if rest.len() >= 3 && rest[1] == b'-' {
                let (low, high) = (rest[0].min(rest[2]), rest[0].max(rest[2]));
                takes |= (low..=high).contains(&byte);
                rest = &rest[3..];
            } else {
                takes |= rest[0] == byte;
                rest = &rest[1..];
            }
        }
        (takes != negated, rest.get(1..).unwrap_or_default())
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("**", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "hllo", true),
            ("h*llo", "heeeello", true),
            ("h*llo", "heeeellx", false),
            ("h[ae]llo", "hello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("h[-]llo", "h-llo", true),
            ("[a-]", "a", true),
            ("[\\]]", "]", true),
            ("[\\-a]", "-", true),
            ("[", "[", false),
            ("[]", "", false),
            ("[]a", "a", false),
            ("[^]", "x", true),
            ("[^", "x", true),
            ("[abc", "b", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\", "a\\", true),
            ("\\", "\\", true),
            ("\\?", "?", true),
            ("\\?", "x", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("user:*:name", "user:17:name", true),
            ("user:*:name", "user:17:names", false),
            ("A", "a", false),
        ] {
            assert_eq!(
                Pattern::new(pattern.as_bytes()).matches(text.as_bytes()),
                matches,
                "{pattern:?} {text:?}"
            );
        }
    }

    #[test]
    fn patterns_longer_than_a_word_match_too() {
        for length in [62, 63, 64, 65, 127, 128, 129, 1024] {
            let text = alloc::vec![b'a'; length];
            let pattern = Pattern::new(&text);
            assert!(pattern.matches(&text), "{length}");
            assert!(!pattern.matches(&text[1..]), "{length}");
            assert!(!pattern.matches(&[&text[..], b"a"].concat()), "{length}");
            let mut other = text.clone();
            other[length - 1] = b'b';
            assert!(!pattern.matches(&other), "{length}");
            let mut open = text.clone();
            open[length - 1] = b'*';
            assert!(Pattern::new(&open).matches(&[&text[..], &text].concat()), "{length}");
            assert!(Pattern::new(&open).matches(&text[1..]), "{length}");
            assert!(!Pattern::new(&open).matches(&text[2..]), "{length}");
        }
    }

    /// The work is a fixed number of words for each byte of the key: with backtracking this would not end.
    #[test]
    fn patterns_that_ruin_backtracking_end_at_once() {
        let key = alloc::vec![b'a'; 64 * 1024];
        for pattern in ["a*".repeat(511) + "b", "*a".repeat(511) + "b", "*".repeat(1024) + "b"] {
            let pattern = Pattern::new(&pattern.as_bytes()[..pattern.len().min(1024)]);
            assert!(pattern.takes.len() <= 256 * (PATTERN_BYTES_MAX / 64 + 1));
            let _ = pattern.matches(&key);
        }
        let pattern = Pattern::new(("a*".repeat(30) + "b").as_bytes());
        assert_eq!(pattern.words, 1);
        assert!(!pattern.matches(&key));
        let mut key = key;
        key.push(b'b');
        assert!(pattern.matches(&key));
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop::sample::select(b"ab-*?[]^\\c".as_slice()), 0..14)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_pattern_matches_as_the_reference_does(
            pattern in pattern(),
            text in proptest::collection::vec(prop::sample::select(b"ab-c]^\\*".as_slice()), 0..8),
        ) {
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), reference(&pattern, &text));
        }
    }
}
