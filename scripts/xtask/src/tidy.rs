//! The rules of the house that a compiler does not hold: length of files, where `unsafe` may stand, the opening
//! comment, purity of the pure crates, and words that must not appear.
//!
//! Rust is read as tokens, so that a word in a comment or a string is not taken for code.

use crate::sources::Source;
use proc_macro2::{Spacing, TokenStream, TokenTree};
use std::str::FromStr;

/// Most lines of a file. Longer ones hold more than one idea.
const LINES_MAX: usize = 800;
/// Where `unsafe` may stand.
const UNSAFE_ROOMS: &[&str] = &["engine/io/", "engine/table/"];
/// Crates in which a clock, a socket or an allocator trick must fail to compile.
const PURE: &[&str] = &["engine/protocol/", "engine/shard/", "engine/cluster/", "agent/catalog/"];
/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "impls", "misc"];
/// Words that no text of the project holds, in lower case. Split, so that this file does not hold them either.
const WORDS: &[&str] = &[
    concat!("fix", "me"),
    concat!("crates", ".io"),
    concat!("/wo", "rk/"),
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("chat", "gpt"),
    concat!("as an ai ", "language"),
    concat!("sub-", "agent"),
];

/// Every breach, as `path:line: what`.
pub(crate) fn check(files: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        check_words(file, &mut found);
        check_length(file, &mut found);
        if file.is("rs") {
            check_name(file, &mut found);
            check_opening(file, &mut found);
            check_tokens(file, &mut found);
            check_purity(file, &mut found);
        }
    }
    found
}

fn check_words(file: &Source, found: &mut Vec<String>) {
    for (number, line) in file.text.lines().enumerate() {
        let line = line.to_lowercase();
        for word in WORDS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: holds the word {word:?}", file.path, number + 1));
        }
    }
}

fn check_length(file: &Source, found: &mut Vec<String>) {
    let lines = file.text.lines().count();
    let counts = ["rs", "py", "sh"].iter().any(|ending| file.is(ending));
    if counts && lines > LINES_MAX {
        found.push(format!("{}: {lines} lines, {LINES_MAX} are the limit", file.path));
    }
}

fn check_name(file: &Source, found: &mut Vec<String>) {
    let parts = file.path.trim_end_matches(".rs").split('/');
    for part in parts.filter(|part| EMPTY_NAMES.contains(part)) {
        found.push(format!("{}: {part:?} does not say what is inside", file.path));
    }
}

fn check_opening(file: &Source, found: &mut Vec<String>) {
    let first = file.text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") || first.trim_end().len() < "//! a word".len() {
        found.push(format!("{}:1: does not open with a //! that says what it is", file.path));
    }
}

fn check_purity(file: &Source, found: &mut Vec<String>) {
    let Some(room) = PURE.iter().find(|room| file.path == format!("{room}src/lib.rs")) else {
        return;
    };
    for line in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        // Tests may have std: `#![cfg_attr(not(test), no_std)]` holds for everything that ships.
        let softer = "#![cfg_attr(not(test), no_std)]";
        let held = file.text.lines().any(|l| l == line || (line.contains("no_std") && l == softer));
        if !held {
            found.push(format!("{}: {room} is pure and lacks {line}", file.path));
        }
    }
}

fn check_tokens(file: &Source, found: &mut Vec<String>) {
    let Ok(tokens) = TokenStream::from_str(&file.text) else {
        found.push(format!("{}: is not Rust", file.path));
        return;
    };
    let unsafe_fine = UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room));
    walk(tokens, &mut |word, line, in_attribute| {
        if word == "unsafe" && !unsafe_fine {
            found.push(format!(
                "{}:{line}: unsafe stands in engine/io and engine/table alone",
                file.path
            ));
        }
        if word == "ignore" && in_attribute {
            found.push(format!("{}:{line}: a test that is ignored is no test", file.path));
        }
        if EMPTY_NAMES.contains(&word) && !in_attribute {
            found.push(format!("{}:{line}: {word:?} does not say what is inside", file.path));
        }
        if word.len() > "Manager".len() && word.ends_with("Manager") {
            found.push(format!(
                "{}:{line}: {word}: the manager is the agent, nothing else",
                file.path
            ));
        }
    });
}

/// Calls `visit` with each identifier, its line, and whether it stands in an attribute.
fn walk(tokens: TokenStream, visit: &mut impl FnMut(&str, usize, bool)) {
    walk_in(tokens, false, visit);
}

fn walk_in(tokens: TokenStream, in_attribute: bool, visit: &mut impl FnMut(&str, usize, bool)) {
    let mut hash = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                visit(&ident.to_string(), ident.span().start().line, in_attribute);
                hash = false;
            }
            TokenTree::Group(group) => {
                walk_in(group.stream(), in_attribute || hash, visit);
                hash = false;
            }
            // `#[…]` and `#![…]`.
            TokenTree::Punct(punct) => {
                hash = punct.as_char() == '#'
                    || (hash && punct.as_char() == '!' && punct.spacing() == Spacing::Alone);
            }
            TokenTree::Literal(_) => hash = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.into(), text: text.into() }])
    }

    #[test]
    fn the_tree_is_tidy() {
        let files = crate::sources::read(&crate::sources::root());
        assert!(files.len() > 30, "only {} files were seen", files.len());
        let found = check(&files);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_good_file_passes() {
        let text = "//! What this is.\n// unsafe in a comment\nfn f() -> &'static str { \"unsafe Manager\" }\n";
        assert_eq!(check_one("engine/shard/src/x.rs", text), Vec::<String>::new());
    }

    #[test]
    fn planted_unsafe_is_found_outside_its_rooms() {
        let text = "//! What this is.\nfn f() {\n    unsafe { g() }\n}\n";
        let expected =
            "agent/manager/src/x.rs:3: unsafe stands in engine/io and engine/table alone";
        assert_eq!(check_one("agent/manager/src/x.rs", text), [expected]);
        assert_eq!(check_one("engine/io/src/x.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_planted_long_file_is_found() {
        let text = format!("//! What this is.\n{}", "// line\n".repeat(LINES_MAX));
        assert_eq!(
            check_one("cli/src/x.rs", &text),
            ["cli/src/x.rs: 801 lines, 800 are the limit"]
        );
    }

    #[test]
    fn a_planted_file_without_an_opening_is_found() {
        let expected = "cli/src/x.rs:1: does not open with a //! that says what it is";
        assert_eq!(check_one("cli/src/x.rs", "fn f() {}\n"), [expected]);
        assert_eq!(check_one("cli/src/x.rs", "//! \n"), [expected]);
    }

    #[test]
    fn planted_words_are_found() {
        let text = format!("first\nfrom {}{}\n", "crates", ".io");
        assert_eq!(check_one("README.md", &text).len(), 1);
        let text = format!("//! What this is.\n// {}{}: later\n", "FIX", "ME");
        assert_eq!(check_one("cli/src/x.rs", &text).len(), 1);
    }

    #[test]
    fn planted_empty_names_are_found() {
        assert_eq!(check_one("cli/src/utils.rs", "//! What this is.\n").len(), 1);
        assert_eq!(check_one("cli/src/x.rs", "//! What this is.\nmod helpers;\n").len(), 1);
        assert_eq!(check_one("cli/src/x.rs", "//! What this is.\nstruct StoreManager;\n").len(), 1);
    }

    #[test]
    fn a_planted_ignored_test_is_found() {
        let text = "//! What this is.\n#[test]\n#[ignore]\nfn f() { let ignore = 1; }\n";
        let expected = "cli/src/x.rs:3: a test that is ignored is no test";
        assert_eq!(check_one("cli/src/x.rs", text), [expected]);
    }

    #[test]
    fn a_planted_impure_crate_is_found() {
        let text = "//! What this is.\n#![no_std]\n";
        let expected =
            "engine/shard/src/lib.rs: engine/shard/ is pure and lacks #![forbid(unsafe_code)]";
        assert_eq!(check_one("engine/shard/src/lib.rs", text), [expected]);
    }
}
