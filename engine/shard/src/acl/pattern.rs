//! A pattern of keys or channels as a user has it.
//!
//! A user may have a thousand, and a store a thousand users, so a pattern is kept small: most are a name, or the beginning of
//! one, and are compared as they stand. What is left is compiled, and folded together.

use crate::commands::glob::{Compact, Pattern as Compiled};
use alloc::boxed::Box;

/// What it takes to look up a byte of a name in a compiled pattern, besides following its states, in nanoseconds.
const BYTE_NS: usize = 3;
/// Bytes that are compared with as many others in a nanosecond.
const BYTES_PER_NS: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// The text, and nothing else.
    Name,
    /// The text but its last byte, a `*`, and then anything.
    Beginning,
    Other(Box<Compact>),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let plain = |text: &str| !text.contains(['*', '?', '[', '\\']);
        let kind = if plain(text) {
            Kind::Name
        } else if text.strip_suffix('*').is_some_and(plain) {
            Kind::Beginning
        } else {
            Kind::Other(Box::new(Compiled::new(text.as_bytes()).compact()))
        };
        Self { text: text.into(), kind }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a name matches, and about how many nanoseconds it took to see.
    pub(super) fn look(&self, name: &[u8]) -> (bool, usize) {
        let text = self.text.as_bytes();
        match &self.kind {
            Kind::Name => (text == name, 1 + text.len() / BYTES_PER_NS),
            Kind::Beginning => {
                (name.starts_with(&text[..text.len() - 1]), 1 + text.len() / BYTES_PER_NS)
            }
            Kind::Other(compiled) => {
                let (matches, seen) = compiled.look(name);
                (matches, seen * (BYTE_NS + compiled.words()))
            }
        }
    }

    /// Memory that it takes, in bytes.
    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        let compiled = match &self.kind {
            Kind::Name | Kind::Beginning => 0,
            Kind::Other(compiled) => compiled.memory_bytes(),
        };
        size_of::<Self>() + self.text.len() + compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_takes_little_more_than_its_text() {
        for plain in ["", "a", "app:user:*", "*", "}]^-"] {
            let pattern = Pattern::new(plain);
            assert_eq!(pattern.memory_bytes(), size_of::<Pattern>() + plain.len(), "{plain}");
        }
        let every_byte: String = (0x20..0x7fu8).map(char::from).collect();
        for text in ["a?", "?", "[a-z]*", "*:x", "a\\*", "[!-~][^a-c]x", &every_byte] {
            let bytes = Pattern::new(text).memory_bytes();
            assert!(bytes <= 40 * text.len() + 200, "{text}: {bytes}");
        }
        let long = every_byte.repeat(10);
        assert!(Pattern::new(&long).memory_bytes() <= 40 * long.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_matches_what_the_compiled_one_does(
            text in "[ab?*^\\[\\]\\\\-]{0,6}[*]?",
            // Longer than a word of states, too.
            repeated in prop::sample::select(alloc::vec![1, 1, 1, 30]),
            name in "[ab?*^\\[\\]\\\\-]{0,7}",
        ) {
            let text = text.repeat(repeated);
            let (pattern, compiled) = (Pattern::new(&text), Compiled::new(text.as_bytes()));
            for name in [name.clone(), name.repeat(30), text.clone()] {
                prop_assert_eq!(pattern.look(name.as_bytes()).0, compiled.matches(name.as_bytes()), "{}", name);
            }
        }
    }
}
