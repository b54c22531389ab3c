//! COMMAND: what clients ask to learn flags and key positions, in the shapes of Redis 7.2.

use super::glob::{PATTERN_BYTES_MAX, Pattern};
use super::number::parse_u64;
use super::{
    ALL, COUNT, docs, errors, help, lookup, number_named, numbered, unknown_subcommand, wrong_arity,
};
use crate::acl::check;
use crate::command::{Args, Exec, Keys, Scope, Spec, Subcommand};
use alloc::string::String;
use alloc::vec::Vec;
use dkv_protocol::resp::{Proto, reply};

/// Names of which a COMMAND DOCS or INFO is answered at once: each takes up to 45 µs.
const NAMES_AT_ONCE: usize = 4;

/// `DKV.DESCRIBE at what of numbers`, a step of a COMMAND DOCS (`what` is then `+`) or INFO (`-`) of more: the numbers of some
/// commands, two bytes each, of which the first is the one `at` of `of` that are asked for. The reply is that of a step of a walk.
const DESCRIBE_REQUEST: &[u8] = b"DKV.DESCRIBE";
/// Commands that a step is asked for, and bytes after which it ends: about 0.1 ms.
const DESCRIBED_AT_ONCE: usize = 64;
const STEP_BYTES_MAX: usize = 16 * 1024;

pub(super) const DESCRIBE: Spec = Spec {
    name: "DKV.DESCRIBE",
    arity: 5,
    scope: Scope::Anywhere,
    handler: describe_some,
    ..Spec::NOTHING
};

const SUB: Subcommand = Subcommand {
    name: "",
    arity: 2,
    flags: &["loading", "stale"],
    key_flags: &[],
    categories: &["@slow", "@connection"],
    tips: &[],
    summary: "",
    since: "2.8.13",
};

pub(super) const SPECS: &[Spec] = &[Spec {
    name: "COMMAND",
    arity: -1,
    flags: &["loading", "stale"],
    categories: &["@slow", "@connection"],
    tips: &["nondeterministic_output_order"],
    subcommands: &[
        Subcommand { name: "count", summary: "Returns a count of commands.", ..SUB },
        Subcommand {
            name: "docs",
            arity: -2,
            tips: &["nondeterministic_output_order"],
            summary: "Returns documentary information about one, multiple or all commands.",
            since: "7.0.0",
            ..SUB
        },
        Subcommand {
            name: "getkeys",
            arity: -3,
            summary: "Extracts the key names from an arbitrary command.",
            ..SUB
        },
        Subcommand {
            name: "getkeysandflags",
            arity: -3,
            summary: "Extracts the key names and access flags for an arbitrary command.",
            since: "7.0.0",
            ..SUB
        },
        Subcommand {
            name: "info",
            arity: -2,
            tips: &["nondeterministic_output_order"],
            summary: "Returns information about one, multiple or all commands.",
            ..SUB
        },
        Subcommand {
            name: "list",
            arity: -2,
            tips: &["nondeterministic_output_order"],
            summary: "Returns a list of command names.",
            since: "7.0.0",
            ..SUB
        },
        Subcommand {
            name: "help",
            summary: "Returns helpful text about the different subcommands.",
            since: "5.0.0",
            ..SUB
        },
    ],
    scope: Scope::Anywhere,
    // Of a few names, or with a pattern.
    long: true,
    handler: command,
    summary: "Returns detailed information about all commands.",
    since: "2.8.13",
    group: "server",
    ..Spec::NOTHING
}];

/// Commands that a COMMAND describes which goes in steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// Whether DOCS is asked for, or what INFO tells.
    docs: bool,
    proto: Proto,
    /// One that is none is [`u16::MAX`].
    numbers: Vec<u16>,
}

impl Described {
    /// What a COMMAND asks for that [`goes_in_steps`]. The error is the reply.
    pub(crate) fn of(args: Args<'_>, proto: Proto) -> Result<Self, Vec<u8>> {
        let docs = args.len() > 1 && args.get(1).eq_ignore_ascii_case(b"DOCS");
        let mut refusal = Vec::new();
        if !super::names_bearable(args.len().saturating_sub(2), &mut refusal) {
            return Err(refusal);
        }
        let mut numbers: Vec<u16> =
            args.iter_from(2).map(|name| number_named(name).unwrap_or(u16::MAX)).collect();
        if args.len() <= 2 {
            numbers = (0..COUNT as u16).collect();
        }
        // Those that do not exist have no documentation.
        numbers.retain(|number| !docs || *number != u16::MAX);
        Ok(Self { docs, proto, numbers })
    }

    /// Adds what a step is asked.
    pub(crate) fn ask(&self, at: u64, mut add: impl FnMut(&[u8])) {
        let mut number = itoa::Buffer::new();
        let rest = self.numbers.get(at as usize..).unwrap_or_default();
        let next = &rest[..rest.len().min(DESCRIBED_AT_ONCE)];
        let bytes: Vec<u8> = next.iter().flat_map(|number| number.to_le_bytes()).collect();
        add(DESCRIBE_REQUEST);
        add(number.format(at).as_bytes());
        add(if self.docs { b"+" } else { b"-" });
        add(number.format(self.numbers.len()).as_bytes());
        add(&bytes);
    }

    /// The head of the whole reply.
    pub(crate) fn head(&self, count: usize, out: &mut Vec<u8>) {
        if self.docs { reply::map(out, self.proto, count) } else { reply::array(out, count) }
    }
}

/// Whether a COMMAND takes so long that it goes in steps.
pub(crate) fn goes_in_steps(spec: &Spec, args: Args<'_>) -> bool {
    let describes =
        |word: &[u8]| word.eq_ignore_ascii_case(b"DOCS") || word.eq_ignore_ascii_case(b"INFO");
    let many = args.len() <= 2 || args.len() > 2 + NAMES_AT_ONCE;
    spec.name == "COMMAND" && many && (args.len() == 1 || describes(args.get(1)))
}

/// See [`DESCRIBE_REQUEST`].
fn describe_some(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let Some((at, of)) = parse_u64(args.get(1)).zip(parse_u64(args.get(3))) else {
        return reply::error(out, errors::SYNTAX);
    };
    let docs = args.get(2) == b"+";
    let (mut elements, mut found) = (Vec::new(), 0);
    for number in args.get(4).as_chunks::<2>().0 {
        match (numbered(u16::from_le_bytes(*number)), docs) {
            (Some((spec, None)), true) => document(spec, x.proto, &mut elements),
            (Some((spec, Some(sub))), true) => {
                document_subcommand(spec, sub, x.proto, &mut elements);
            }
            (Some((spec, None)), false) => describe(spec, x.proto, &mut elements),
            (Some((spec, Some(sub))), false) => {
                describe_subcommand(spec, sub, x.proto, &mut elements);
            }
            (None, _) => reply::null_array(&mut elements, x.proto),
        }
        found += 1;
        if elements.len() > STEP_BYTES_MAX {
            break;
        }
    }
    let next = at + found as u64;
    reply::array(out, 2);
    reply::integer(out, if next < of { next as i64 } else { 0 });
    reply::array(out, found);
    out.append(&mut elements);
}

fn command(x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let proto = x.proto;
    if args.len() == 1 {
        reply::array(out, COUNT);
        return ALL.iter().for_each(|spec| describe(spec, proto, out));
    }
    let is = |name: &str| args.get(1).eq_ignore_ascii_case(name.as_bytes());
    match args.len() {
        _ if is("INFO") => info(args, proto, out),
        _ if is("DOCS") => docs(args, proto, out),
        _ if is("LIST") => list(args, out),
        3.. if is("GETKEYS") => getkeys(args, None, out),
        3.. if is("GETKEYSANDFLAGS") => getkeys(args, Some(proto), out),
        2 if is("COUNT") => reply::integer(out, COUNT as i64),
        2 if is("HELP") => help(
            "COMMAND",
            &[
                "(no subcommand)",
                "    Return details about all commands.",
                "COUNT",
                "    Return the total number of commands.",
                "LIST [FILTERBY MODULE|ACLCAT|PATTERN <text>]",
                "    Return the names of all or of some commands.",
                "INFO [<command-name> ...]",
                "    Return details about commands, about all when none is named.",
                "DOCS [<command-name> ...]",
                "    Return documentation of commands, of all when none is named.",
                "GETKEYS <full-command>",
                "    Return the keys of a full command.",
                "GETKEYSANDFLAGS <full-command>",
                "    Return the keys of a full command, and what it does with each.",
            ],
            out,
        ),
        _ if is("GETKEYS") => wrong_arity("command|getkeys", out),
        _ if is("GETKEYSANDFLAGS") => wrong_arity("command|getkeysandflags", out),
        _ if is("COUNT") => wrong_arity("command|count", out),
        _ if is("HELP") => wrong_arity("command|help", out),
        _ => unknown_subcommand("COMMAND", args.get(1), out),
    }
}

fn info(args: Args<'_>, proto: Proto, out: &mut Vec<u8>) {
    if !super::names_bearable(args.len() - 2, out) {
        return;
    }
    if args.len() == 2 {
        reply::array(out, COUNT);
        return ALL.iter().for_each(|spec| describe(spec, proto, out));
    }
    reply::array(out, args.len() - 2);
    for name in args.iter_from(2) {
        match named(name) {
            Some((spec, None)) => describe(spec, proto, out),
            Some((spec, Some(sub))) => describe_subcommand(spec, sub, proto, out),
            None => reply::null_array(out, proto),
        }
    }
}

/// A command by its name, or a subcommand by both names with a bar between (`config|get`).
fn named(name: &[u8]) -> Option<(&'static Spec, Option<&'static Subcommand>)> {
    let mut parts = name.splitn(2, |b| *b == b'|');
    let spec = lookup(parts.next()?)?;
    match parts.next() {
        None => Some((spec, None)),
        Some(sub) => {
            let wanted = |known: &&Subcommand| known.name.as_bytes().eq_ignore_ascii_case(sub);
            Some((spec, Some(spec.subcommands.iter().find(wanted)?)))
        }
    }
}

fn lower(name: &str, out: &mut Vec<u8>) {
    reply::bulk(out, name.to_ascii_lowercase().as_bytes());
}

fn lower_subcommand(spec: &Spec, sub: &Subcommand, out: &mut Vec<u8>) {
    reply::bulk(out, full_name(spec, Some(sub)).as_bytes());
}

/// In lower case, of a subcommand with its container before it.
fn full_name(spec: &Spec, sub: Option<&Subcommand>) -> String {
    let mut name = spec.name.to_ascii_lowercase();
    if let Some(sub) = sub {
        name.push('|');
        name.push_str(sub.name);
    }
    name
}

pub(super) fn simple_set(words: &[&str], proto: Proto, out: &mut Vec<u8>) {
    reply::set(out, proto, words.len());
    for word in words {
        reply::simple(out, word);
    }
}

fn bulk_set(words: &[&str], proto: Proto, out: &mut Vec<u8>) {
    reply::set(out, proto, words.len());
    for word in words {
        reply::bulk(out, word.as_bytes());
    }
}

/// The ten elements of Redis 7.
fn describe(spec: &Spec, proto: Proto, out: &mut Vec<u8>) {
    reply::array(out, 10);
    lower(spec.name, out);
    reply::integer(out, spec.arity.into());
    simple_set(spec.flags, proto, out);
    // The keys of a container are those of its subcommands.
    let keyed = spec.first_key > 0 && spec.subcommands.is_empty();
    positions(spec, keyed, out);
    simple_set(spec.categories, proto, out);
    bulk_set(spec.tips, proto, out);
    reply::set(out, proto, if keyed { 1 + usize::from(spec.other_keys.is_some()) } else { 0 });
    if keyed {
        let last = if spec.other_keys.is_some() { spec.first_key } else { spec.last_key };
        let keys = Keys { first: spec.first_key, last, flags: spec.key_flags };
        key_specification(spec, keys, proto, out);
        if let Some(keys) = spec.other_keys {
            key_specification(spec, keys, proto, out);
        }
    }
    reply::set(out, proto, spec.subcommands.len());
    for sub in spec.subcommands {
        describe_subcommand(spec, sub, proto, out);
    }
}

fn describe_subcommand(spec: &Spec, sub: &Subcommand, proto: Proto, out: &mut Vec<u8>) {
    reply::array(out, 10);
    lower_subcommand(spec, sub, out);
    reply::integer(out, sub.arity.into());
    simple_set(sub.flags, proto, out);
    let keyed = !sub.key_flags.is_empty();
    positions(spec, keyed, out);
    simple_set(sub.categories, proto, out);
    bulk_set(sub.tips, proto, out);
    reply::set(out, proto, usize::from(keyed));
    if keyed {
        let keys = Keys { first: spec.first_key, last: spec.last_key, flags: sub.key_flags };
        key_specification(spec, keys, proto, out);
    }
    reply::set(out, proto, 0);
}

/// Where the keys are in the older form.
fn positions(spec: &Spec, keyed: bool, out: &mut Vec<u8>) {
    for at in [spec.first_key, spec.last_key, spec.key_step] {
        reply::integer(out, if keyed { at.into() } else { 0 });
    }
}

/// Where the keys are in the newer form: an index to begin at, and a range from there.
fn key_specification(spec: &Spec, keys: Keys, proto: Proto, out: &mut Vec<u8>) {
    reply::map(out, proto, 3 + usize::from(!spec.key_notes.is_empty()));
    if !spec.key_notes.is_empty() {
        reply::bulk(out, b"notes");
        reply::bulk(out, spec.key_notes.as_bytes());
    }
    reply::bulk(out, b"flags");
    simple_set(keys.flags, proto, out);
    reply::bulk(out, b"begin_search");
    reply::map(out, proto, 2);
    reply::bulk(out, b"type");
    reply::bulk(out, b"index");
    reply::bulk(out, b"spec");
    reply::map(out, proto, 1);
    reply::bulk(out, b"index");
    reply::integer(out, keys.first.into());
    reply::bulk(out, b"find_keys");
    reply::map(out, proto, 2);
    reply::bulk(out, b"type");
    reply::bulk(out, b"range");
    reply::bulk(out, b"spec");
    reply::map(out, proto, 3);
    reply::bulk(out, b"lastkey");
    // Counted from the first key; negative stays counted from the end.
    let last = if keys.last < 0 { keys.last } else { keys.last - keys.first };
    reply::integer(out, last.into());
    reply::bulk(out, b"keystep");
    reply::integer(out, spec.key_step.into());
    reply::bulk(out, b"limit");
    reply::integer(out, 0);
}

fn docs(args: Args<'_>, proto: Proto, out: &mut Vec<u8>) {
    if !super::names_bearable(args.len() - 2, out) {
        return;
    }
    if args.len() == 2 {
        reply::map(out, proto, COUNT);
        return ALL.iter().for_each(|spec| document(spec, proto, out));
    }
    // Commands that do not exist are left out.
    reply::map(out, proto, args.iter_from(2).filter(|name| named(name).is_some()).count());
    for (spec, sub) in args.iter_from(2).filter_map(named) {
        match sub {
            None => document(spec, proto, out),
            Some(sub) => document_subcommand(spec, sub, proto, out),
        }
    }
}

fn document(spec: &Spec, proto: Proto, out: &mut Vec<u8>) {
    lower(spec.name, out);
    let doc = docs::of(&full_name(spec, None));
    let fields = doc.map_or(0, docs::Doc::fields);
    reply::map(out, proto, 3 + fields + usize::from(!spec.subcommands.is_empty()));
    facts(spec.summary, spec.since, spec.group, out);
    if let Some(doc) = doc {
        doc.write(proto, out);
    }
    if !spec.subcommands.is_empty() {
        reply::bulk(out, b"subcommands");
        reply::map(out, proto, spec.subcommands.len());
        for sub in spec.subcommands {
            document_subcommand(spec, sub, proto, out);
        }
    }
}

fn document_subcommand(spec: &Spec, sub: &Subcommand, proto: Proto, out: &mut Vec<u8>) {
    lower_subcommand(spec, sub, out);
    let doc = docs::of(&full_name(spec, Some(sub)));
    reply::map(out, proto, 3 + doc.map_or(0, docs::Doc::fields));
    facts(sub.summary, sub.since, spec.group, out);
    if let Some(doc) = doc {
        doc.write(proto, out);
    }
}

fn facts(summary: &str, since: &str, group: &str, out: &mut Vec<u8>) {
    for (name, text) in [("summary", summary), ("since", since), ("group", group)] {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
}

fn list(args: Args<'_>, out: &mut Vec<u8>) {
    let wanted: Vec<String> = match args.len() {
        2 => names(|_, _| true),
        5 if args.get(2).eq_ignore_ascii_case(b"FILTERBY") => {
            let text = args.get(4).to_ascii_lowercase();
            match () {
                // There are no modules.
                () if args.get(3).eq_ignore_ascii_case(b"MODULE") => Vec::new(),
                () if args.get(3).eq_ignore_ascii_case(b"ACLCAT") => {
                    names(|_, categories| categories.iter().any(|c| c.as_bytes()[1..] == text))
                }
                () if args.get(3).eq_ignore_ascii_case(b"PATTERN") => {
                    if text.len() > PATTERN_BYTES_MAX {
                        return reply::error(out, errors::PATTERN_TOO_LONG);
                    }
                    let pattern = Pattern::new(&text);
                    names(|name, _| pattern.matches(name.as_bytes()))
                }
                () => return reply::error(out, errors::SYNTAX),
            }
        }
        _ => return reply::error(out, errors::SYNTAX),
    };
    reply::array(out, wanted.len());
    for name in wanted {
        reply::bulk(out, name.as_bytes());
    }
}

/// The names of commands and subcommands that are wanted for their names and categories.
fn names(wanted: impl Fn(&str, &[&str]) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |name: String, categories: &[&str]| {
        if wanted(&name, categories) {
            names.push(name);
        }
    };
    for spec in ALL {
        add(full_name(spec, None), spec.categories);
        for sub in spec.subcommands {
            add(full_name(spec, Some(sub)), sub.categories);
        }
    }
    names
}

/// The keys of a command; with `flags` also what it does with each, in that protocol.
fn getkeys(args: Args<'_>, flags: Option<Proto>, out: &mut Vec<u8>) {
    let Some(spec) = lookup(args.get(2)) else {
        return reply::error(out, "ERR Invalid command specified");
    };
    let given = args.len() - 2;
    let named = spec
        .subcommands
        .iter()
        .find(|sub| given > 1 && sub.name.as_bytes().eq_ignore_ascii_case(args.get(3)));
    if !spec.subcommands.is_empty() && given > 1 && named.is_none() {
        return reply::error(out, "ERR Invalid command specified");
    }
    // Of a container it is the subcommand that has a key, or none.
    // Channels are where keys are and are none.
    let keyless =
        named.is_some_and(|sub| sub.key_flags.is_empty()) || spec.key_flags.contains(&"not_key");
    if spec.first_key == 0 || keyless || !spec.subcommands.is_empty() && named.is_none() {
        return reply::error(out, "ERR The command has no key arguments");
    }
    let arity = named.map_or(spec.arity, |sub| sub.arity);
    let wanted = usize::from(arity.unsigned_abs());
    if given < wanted || (arity > 0 && given > wanted) {
        return reply::error(out, "ERR Invalid number of arguments specified for command");
    }
    let first = spec.first_key as usize;
    let last = if spec.last_key < 0 {
        given - spec.last_key.unsigned_abs() as usize
    } else {
        spec.last_key as usize
    };
    let keys = (first..=last).step_by(spec.key_step as usize);
    reply::array(out, keys.clone().count());
    for i in keys {
        if let Some(proto) = flags {
            reply::array(out, 2);
            reply::bulk(out, args.get(2 + i));
            simple_set(uses(spec, args.slice(2, given), i), proto, out);
        } else {
            reply::bulk(out, args.get(2 + i));
        }
    }
}

/// What a command does with its argument `at`, a key.
fn uses(spec: &Spec, args: Args<'_>, at: usize) -> &'static [&'static str] {
    match spec.other_keys {
        Some(keys) if at >= usize::from(keys.first.unsigned_abs()) => keys.flags,
        _ => check::uses(spec, args),
    }
}
