//! What COMMAND DOCS tells beyond the facts of the table of commands: complexity, history, what replaces a command, and its
//! arguments, which redis-cli shows as hints while one types. Data in tables, one file per family; a row is found by the
//! command's name.

mod connection;
mod generic;
mod server;
mod strings;

use alloc::vec::Vec;
use dkv_protocol::resp::{Proto, reply};

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doc {
    /// Lower case, of a subcommand with its container (`config|get`).
    name: &'static str,
    /// How its cost grows; empty where there is nothing to say.
    complexity: &'static str,
    /// Since when it should not be used, and what to use instead; empty where it may be used.
    deprecated: (&'static str, &'static str),
    /// Versions of Redis, and what each of them changed.
    history: &'static [(&'static str, &'static str)],
    /// Behind the name.
    arguments: &'static [Arg],
}

const fn doc(name: &'static str, complexity: &'static str, arguments: &'static [Arg]) -> Doc {
    Doc { name, complexity, deprecated: ("", ""), history: &[], arguments }
}

impl Doc {
    const fn history(self, history: &'static [(&'static str, &'static str)]) -> Self {
        Self { history, ..self }
    }

    const fn deprecated(self, since: &'static str, instead: &'static str) -> Self {
        Self { deprecated: (since, instead), ..self }
    }
}

/// An argument of a command, or a part of one.
#[derive(Clone, Copy, Debug)]
struct Arg {
    name: &'static str,
    kind: Kind,
    /// Of a key: which of the command's key specifications finds it.
    specification: Option<u8>,
    /// The word before it, or that it is; empty for none.
    token: &'static str,
    since: &'static str,
    deprecated_since: &'static str,
    is_optional: bool,
    is_multiple: bool,
    /// Whether the word stands before each of several.
    is_token_multiple: bool,
    parts: &'static [Self],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Key => "key",
            Self::Pattern => "pattern",
            Self::UnixTime => "unix-time",
            Self::PureToken => "pure-token",
            Self::OneOf => "oneof",
            Self::Block => "block",
        }
    }
}

const fn arg(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        specification: None,
        token: "",
        since: "",
        deprecated_since: "",
        is_optional: false,
        is_multiple: false,
        is_token_multiple: false,
        parts: &[],
    }
}

const fn string(name: &'static str) -> Arg {
    arg(name, Kind::String)
}

const fn integer(name: &'static str) -> Arg {
    arg(name, Kind::Integer)
}

const fn pattern(name: &'static str) -> Arg {
    arg(name, Kind::Pattern)
}

const fn unix_time(name: &'static str) -> Arg {
    arg(name, Kind::UnixTime)
}

const fn key(name: &'static str, specification: u8) -> Arg {
    Arg { specification: Some(specification), ..arg(name, Kind::Key) }
}

/// A word that says something by being there.
const fn word(name: &'static str, token: &'static str) -> Arg {
    arg(name, Kind::PureToken).token(token)
}

const fn one_of(name: &'static str, parts: &'static [Arg]) -> Arg {
    Arg { parts, ..arg(name, Kind::OneOf) }
}

const fn block(name: &'static str, parts: &'static [Arg]) -> Arg {
    Arg { parts, ..arg(name, Kind::Block) }
}

impl Arg {
    const fn token(self, token: &'static str) -> Self {
        Self { token, ..self }
    }

    const fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    const fn deprecated(self, deprecated_since: &'static str) -> Self {
        Self { deprecated_since, ..self }
    }

    const fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    const fn multiple(self) -> Self {
        Self { is_multiple: true, ..self }
    }

    const fn each_with_token(self) -> Self {
        Self { is_multiple: true, is_token_multiple: true, ..self }
    }

    fn write(&self, proto: Proto, out: &mut Vec<u8>) {
        let flags: Vec<&str> = [
            ("optional", self.is_optional),
            ("multiple", self.is_multiple),
            ("multiple_token", self.is_token_multiple),
        ]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
        let texts = [
            ("token", self.token),
            ("since", self.since),
            ("deprecated_since", self.deprecated_since),
        ];
        let fields = 2
            + usize::from(self.specification.is_some())
            + texts.iter().filter(|(_, text)| !text.is_empty()).count()
            + usize::from(!flags.is_empty())
            + usize::from(!self.parts.is_empty());
        reply::map(out, proto, fields);
        text("name", self.name, out);
        text("type", self.kind.name(), out);
        if let Some(at) = self.specification {
            reply::bulk(out, b"key_spec_index");
            reply::integer(out, at.into());
        }
        for (name, of) in texts {
            text(name, of, out);
        }
        if !flags.is_empty() {
            reply::bulk(out, b"flags");
            super::command::simple_set(&flags, proto, out);
        }
        arguments(self.parts, proto, out);
    }
}

/// A field, unless there is nothing in it.
fn text(name: &str, of: &str, out: &mut Vec<u8>) {
    if !of.is_empty() {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, of.as_bytes());
    }
}

fn arguments(all: &[Arg], proto: Proto, out: &mut Vec<u8>) {
    if !all.is_empty() {
        reply::bulk(out, b"arguments");
        reply::array(out, all.len());
        for arg in all {
            arg.write(proto, out);
        }
    }
}

const FAMILIES: [&[Doc]; 4] = [strings::DOCS, generic::DOCS, connection::DOCS, server::DOCS];

/// The row of a command, by its name in lower case. One that is missing has no more to tell.
pub(super) fn of(name: &str) -> Option<&'static Doc> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|doc| doc.name == name)
}

impl Doc {
    /// How many fields [`Self::write`] writes.
    pub(super) fn fields(&self) -> usize {
        usize::from(!self.complexity.is_empty())
            + if self.deprecated.0.is_empty() { 0 } else { 3 }
            + usize::from(!self.history.is_empty())
            + usize::from(!self.arguments.is_empty())
    }

    /// Writes names and values of its fields.
    pub(super) fn write(&self, proto: Proto, out: &mut Vec<u8>) {
        text("complexity", self.complexity, out);
        if !self.deprecated.0.is_empty() {
            reply::bulk(out, b"doc_flags");
            super::command::simple_set(&["deprecated"], proto, out);
            text("deprecated_since", self.deprecated.0, out);
            text("replaced_by", self.deprecated.1, out);
        }
        if !self.history.is_empty() {
            reply::bulk(out, b"history");
            reply::set(out, proto, self.history.len());
            for (version, change) in self.history {
                reply::array(out, 2);
                reply::bulk(out, version.as_bytes());
                reply::bulk(out, change.as_bytes());
            }
        }
        arguments(self.arguments, proto, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{NUMBERS, name_of};

    #[test]
    fn every_command_has_one_row_and_tells_its_complexity() {
        for number in 0..NUMBERS as u16 {
            let name = name_of(number);
            let rows =
                FAMILIES.iter().flat_map(|family| family.iter()).filter(|doc| doc.name == name);
            assert_eq!(rows.count(), 1, "{name}");
            assert!(of(&name).is_some_and(|doc| !doc.complexity.is_empty()), "{name}");
        }
    }
}
