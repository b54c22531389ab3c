//! Patterns: what KEYS finds by one is what a plain matcher with backtracking finds, and no pattern takes long.

use super::executor::Alone;
use super::{Target, mixed};

/// Longest pattern and key for the plain matcher, which may take as long as two to the power of the stars.
const PLAIN_BYTES_MAX: usize = 24;

pub(super) struct Globs(Alone);

impl Globs {
    pub(super) fn new() -> Self {
        Self(Alone::new())
    }
}

/// One thing of a pattern.
enum Step {
    /// Any bytes.
    Any,
    /// One byte of these.
    Of(Box<[bool; 256]>),
}

/// What the steps of a pattern are, by the rules of Redis: a set that is not closed goes to the end, `\` takes the next byte as
/// it stands, and a range may be given from its end.
fn steps(pattern: &[u8]) -> Vec<Step> {
    let of = |takes: &dyn Fn(u8) -> bool| {
        let mut set = Box::new([false; 256]);
        (0..=255_u8).for_each(|byte| set[usize::from(byte)] = takes(byte));
        Step::Of(set)
    };
    let (mut all, mut at) = (Vec::new(), 0);
    while at < pattern.len() {
        match pattern[at] {
            b'*' => all.push(Step::Any),
            b'?' => all.push(of(&|_| true)),
            b'[' => {
                at += 1;
                let not = pattern.get(at) == Some(&b'^');
                at += usize::from(not);
                let mut set = [false; 256];
                while at < pattern.len() && pattern[at] != b']' {
                    let left = &pattern[at..];
                    if left[0] == b'\\' && left.len() >= 2 {
                        set[usize::from(left[1])] = true;
                        at += 2;
                    } else if left.len() >= 3 && left[1] == b'-' {
                        let (low, high) = (left[0].min(left[2]), left[0].max(left[2]));
                        (low..=high).for_each(|byte| set[usize::from(byte)] = true);
                        at += 3;
                    } else {
                        set[usize::from(left[0])] = true;
                        at += 1;
                    }
                }
                all.push(of(&|byte| set[usize::from(byte)] != not));
            }
            b'\\' if at + 1 < pattern.len() => {
                at += 1;
                let escaped = pattern[at];
                all.push(of(&|byte| byte == escaped));
            }
            literal => all.push(of(&|byte| byte == literal)),
        }
        at += 1;
    }
    all
}

fn matches(steps: &[Step], text: &[u8]) -> bool {
    match steps.split_first() {
        None => text.is_empty(),
        Some((Step::Any, rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((Step::Of(set), rest)) => text
            .split_first()
            .is_some_and(|(byte, left)| set[usize::from(*byte)] && matches(rest, left)),
    }
}

impl Target for Globs {
    // A pattern and a key with a line break between them.
    fn examples(&self) -> Vec<Vec<u8>> {
        let stars = "a*".repeat(12);
        let mut all: Vec<Vec<u8>> = [
            "*\nkey",
            "k?y\nkey",
            "k[a-f]y\nkey",
            "k[^a-f]y\nkey",
            "\\*\n*",
            "[]\n]",
            "[\\]]\n]",
            "a[\na[",
            "[z-a]\nm",
            "**a*\nba",
            "[^\nx",
            "\\\n\\",
            "\n",
            "*\n",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
        all.push(format!("{stars}b\n{}", "a".repeat(24)).into_bytes());
        all.push([&b"*a".repeat(400)[..], b"\n", &[b'a'; 400]].concat());
        all
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = ["*", "?", "[", "]", "^", "-", "\\", "[^", "[a-z]", "a", "b", "\n", "\0"];
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn read(&mut self, input: &[u8]) -> u64 {
        let middle = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let (pattern, key) = (&input[..middle], input.get(middle + 1..).unwrap_or_default());
        let found = self.0.finds(pattern, key);
        let plain = pattern.len() <= PLAIN_BYTES_MAX && key.len() <= PLAIN_BYTES_MAX;
        if plain {
            let wanted = matches(&steps(pattern), key);
            assert_eq!(found, wanted, "\"{}\"", pattern.escape_ascii());
        }
        let has = |byte: u8| u64::from(pattern.contains(&byte));
        let ways = [b'*', b'[', b'\\', b'?', b'^'].map(has);
        mixed(ways.into_iter().chain([u64::from(found), key.len().min(3) as u64]))
    }
}
