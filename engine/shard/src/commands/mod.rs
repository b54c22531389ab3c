//! The commands: one table of facts and handlers, one file per family.
//!
//! A name is found in one step, whatever its case and without an allocation, because it happens for every request. The
//! handlers know the table, the time and the node's unchanging facts; they know nothing of sessions, sockets or of who
//! owns which key: when they run, the key is this shard's.
//!
//! Commands that clients never send (what shards ask each other) stand apart in [`internal`], so that COMMAND does not
//! name them and a client cannot reach them.

mod acl;
mod bitfield;
mod bits;
pub(crate) mod checksum;
pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod config;
mod config_set;
mod connection;
mod counters;
mod docs;
mod dump;
mod errors;
mod expiry;
mod extended;
mod floats;
pub(crate) mod glob;
pub(crate) mod hotkeys;
pub mod info;
pub(crate) mod keys;
mod lcs;
pub(crate) mod naming;
mod number;
mod object;
pub(crate) mod pubsub;
mod record;
pub mod scan;
mod server;
mod sessions;
mod setters;
pub(crate) mod slowlog;
mod strings;
mod substrings;
pub(crate) mod transactions;

#[cfg(test)]
mod tests;

use crate::command::{Args, Exec, Spec, Subcommand};
use alloc::vec::Vec;
use dkv_protocol::limits::VALUE_BYTES_MAX;
use dkv_protocol::resp::reply;
pub(crate) use errors::OUT_OF_MEMORY;

/// The families, in the order in which COMMAND lists them.
const FAMILIES: [&[Spec]; 20] = [
    strings::SPECS,
    setters::SPECS,
    substrings::SPECS,
    SINGLE,
    bits::SPECS,
    bitfield::SPECS,
    counters::SPECS,
    keys::SPECS,
    naming::SPECS,
    dump::SPECS,
    expiry::SPECS,
    scan::SPECS,
    connection::SPECS,
    sessions::SPECS,
    transactions::SPECS,
    pubsub::SPECS,
    command::SPECS,
    server::SPECS,
    slowlog::SPECS,
    INTROSPECTION,
];

/// Commands that are alone in their files.
const SINGLE: &[Spec] = &[floats::INCRBYFLOAT, lcs::LCS, object::OBJECT];

const INTROSPECTION: &[Spec] =
    &[acl::ACL, info::INFO, config::CONFIG, checksum::CHECKSUM, hotkeys::HOTKEYS];

/// What only shards ask of each other.
const INTERNAL: &[Spec] = &[
    info::KEYSPACE,
    scan::WALK,
    scan::WALK_RANGES,
    command::DESCRIBE,
    keys::COUNT,
    keys::CLEAR,
    naming::RANDOM,
    transactions::WATCHING,
    transactions::EXECUTING,
    transactions::EXECUTING_READS,
];

const COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// The commands with their numbers; those of subcommands follow behind all of them.
static SPECS: [Spec; COUNT] = {
    let mut all = [FAMILIES[0][0]; COUNT];
    let (mut family, mut at, mut subcommands) = (0, 0, COUNT);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            all[at] = FAMILIES[family][i];
            all[at].number = at as u16;
            all[at].first_subcommand = subcommands as u16;
            all[at].is_plain = all[at].subcommands.is_empty();
            subcommands += all[at].subcommands.len();
            at += 1;
            i += 1;
        }
        family += 1;
    }
    all
};

static ALL: [&Spec; COUNT] = {
    let mut all = [&SPECS[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = &SPECS[at];
        at += 1;
    }
    all
};

/// Commands and subcommands.
pub(crate) const NUMBERS: usize = {
    let (mut numbers, mut family) = (COUNT, 0);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            numbers += FAMILIES[family][i].subcommands.len();
            i += 1;
        }
        family += 1;
    }
    numbers
};

/// The number by which a request is counted: its command's, or its subcommand's where it has one.
#[inline]
pub(crate) fn number_of(spec: &Spec, args: Args<'_>) -> u16 {
    if spec.is_plain { spec.number } else { number_of_part(spec, args) }
}

#[cold]
fn number_of_part(spec: &Spec, args: Args<'_>) -> u16 {
    if spec.name.starts_with("DKV.EXEC") {
        return lookup(b"EXEC").map_or(u16::MAX, |exec| exec.number);
    }
    if args.len() < 2 {
        return spec.number;
    }
    let name = args.get(1);
    let at = spec.subcommands.iter().position(|s| s.name.as_bytes().eq_ignore_ascii_case(name));
    at.map_or(spec.number, |at| spec.first_subcommand + at as u16)
}

/// The command of a number, and its subcommand where the number is one's.
fn numbered(number: u16) -> Option<(&'static Spec, Option<&'static Subcommand>)> {
    let at = usize::from(number);
    if let Some(spec) = ALL.get(at) {
        return Some((spec, None));
    }
    let spec =
        ALL.iter().rev().find(|s| s.first_subcommand <= number && !s.subcommands.is_empty())?;
    let subcommand = spec.subcommands.get(usize::from(number - spec.first_subcommand))?;
    Some((spec, Some(subcommand)))
}

/// The flags of the command, or subcommand, of a number.
pub(crate) fn flags_of(number: u16) -> &'static [&'static str] {
    match numbered(number) {
        Some((_, Some(subcommand))) => subcommand.flags,
        Some((spec, None)) => spec.flags,
        None => &[],
    }
}

/// The categories of the command, or subcommand, of a number.
pub(crate) fn categories_of(number: u16) -> &'static [&'static str] {
    match numbered(number) {
        Some((_, Some(subcommand))) => subcommand.categories,
        Some((spec, None)) => spec.categories,
        None => &[],
    }
}

/// What is done to the keys of the command, or subcommand, of a number.
pub(crate) fn key_flags_of(number: u16) -> &'static [&'static str] {
    match numbered(number) {
        Some((_, Some(subcommand))) => subcommand.key_flags,
        Some((spec, None)) => spec.key_flags,
        None => &[],
    }
}

/// The number of a command by its name, or of a subcommand by both names with a bar between.
pub(crate) fn number_named(name: &[u8]) -> Option<u16> {
    let (whole, part) = match name.iter().position(|b| *b == b'|') {
        Some(bar) => (&name[..bar], Some(&name[bar + 1..])),
        None => (name, None),
    };
    let spec = lookup(whole)?;
    let Some(part) = part else { return Some(spec.number) };
    let at = spec.subcommands.iter().position(|s| s.name.as_bytes().eq_ignore_ascii_case(part))?;
    Some(spec.first_subcommand + at as u16)
}

/// Whether a number is a subcommand's.
pub(crate) fn is_part(number: u16) -> bool {
    usize::from(number) >= COUNT
}

/// The numbers of the subcommands of a command.
pub(crate) fn parts_of(number: u16) -> core::ops::Range<u16> {
    match ALL.get(usize::from(number)) {
        Some(spec) => spec.first_subcommand..spec.first_subcommand + spec.subcommands.len() as u16,
        None => 0..0,
    }
}

/// Its name as INFO and LATENCY HISTOGRAM give it: `get`, `config|set`.
pub(crate) fn name_of(number: u16) -> alloc::string::String {
    let Some((spec, subcommand)) = numbered(number) else { return alloc::string::String::new() };
    let mut name = spec.name.to_ascii_lowercase();
    if let Some(subcommand) = subcommand {
        name.push('|');
        name.push_str(subcommand.name);
    }
    name
}

/// The numbers that a name stands for: of a container all its subcommands.
pub(crate) fn numbers_named(name: &[u8]) -> core::ops::Range<u16> {
    let mut parts = name.splitn(2, |b| *b == b'|');
    let Some(spec) = parts.next().and_then(lookup) else { return 0..0 };
    let first = spec.first_subcommand;
    let count = spec.subcommands.len() as u16;
    match parts.next() {
        None if count == 0 => spec.number..spec.number + 1,
        None => first..first + count,
        Some(sub) => {
            let known = |s: &Subcommand| s.name.as_bytes().eq_ignore_ascii_case(sub);
            match spec.subcommands.iter().position(known) {
                Some(at) => first + at as u16..first + at as u16 + 1,
                None => 0..0,
            }
        }
    }
}

/// Writes the reply to a command of which each shard of the node has executed its part.
pub(crate) fn finish_of_node(x: &Exec<'_>, args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    if args.get(0).eq_ignore_ascii_case(b"CLIENT") {
        clients::finish(x, args, parts, out);
    } else if args.get(0).eq_ignore_ascii_case(b"ACL") {
        crate::acl::log::finish(x, args, parts, out);
    } else if args.get(0).eq_ignore_ascii_case(b"DKV.HOTKEYS") {
        hotkeys::finish(args, parts, out);
    } else {
        slowlog::finish(x, args, parts, out);
    }
}

/// Places of the name index. A power of two, a few times the number of commands, so that a search takes one step.
const PLACES: usize = 512;
const _: () = assert!(COUNT * 4 <= PLACES && COUNT < u8::MAX as usize);

/// By hash of the name: 1 + the position in [`ALL`], 0 for none; a taken place continues at the next one.
static INDEX: [u8; PLACES] = {
    let mut index = [0u8; PLACES];
    let mut i = 0;
    while i < COUNT {
        let mut place = name_hash(ALL[i].name.as_bytes());
        while index[place] != 0 {
            place = (place + 1) % PLACES;
        }
        index[place] = i as u8 + 1;
        i += 1;
    }
    index
};

/// The longest name; longer ones are not looked for.
const NAME_BYTES_MAX: usize = 16;

/// FNV-1a over the letters without their case. Names are few and fixed, so nobody can make them collide.
#[inline]
const fn name_hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ (name[i] & 0xdf) as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % PLACES
}

/// The command of that name, in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut place = name_hash(name);
    loop {
        let spec = ALL[(INDEX[place] as usize).checked_sub(1)?];
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        place = (place + 1) % PLACES;
    }
}

/// What shards ask each other and no client may: to be tried by `Shard::requests_held` where [`lookup`] finds nothing.
pub fn internal(name: &[u8]) -> Option<&'static Spec> {
    INTERNAL.iter().find(|spec| spec.name.as_bytes() == name)
}

/// Every command.
pub fn all() -> &'static [&'static Spec] {
    &ALL
}

/// Whether a command takes that many arguments. Keys that come in groups (MSET) must be whole groups.
#[inline]
pub fn fits(spec: &Spec, args: usize) -> bool {
    let wanted = spec.arity.unsigned_abs() as usize;
    if spec.arity >= 0 {
        return args == wanted;
    }
    args >= wanted
        && (spec.key_step < 2
            || (args - spec.first_key as usize).is_multiple_of(spec.key_step as usize))
}

/// How long a value will be at least after a write into its middle, as far as a glance at the arguments shows.
pub(crate) fn end_of_write(spec: &Spec, args: Args<'_>) -> usize {
    let offset = |i: usize| number::parse_i64(args.get(i)).and_then(|n| usize::try_from(n).ok());
    let end = match spec.name {
        "SETRANGE" if !args.get(3).is_empty() => {
            offset(2).map(|at| at.saturating_add(args.get(3).len()))
        }
        "SETBIT" => bits::offset(args.get(2)).map(|at| at / 8 + 1),
        "BITFIELD" => bitfield::end_of_writes(args),
        _ => None,
    };
    end.filter(|end| *end <= VALUE_BYTES_MAX).unwrap_or(0)
}

/// `-ERR wrong number of arguments for 'get' command`.
#[cold]
pub fn wrong_arity(name: &str, out: &mut Vec<u8>) {
    let mut text = Vec::from(b"ERR wrong number of arguments for '");
    text.extend(name.bytes().map(|b| b.to_ascii_lowercase()));
    text.extend_from_slice(b"' command");
    reply::error_bytes(out, &text);
}

/// Names or patterns that one introspection command may list: each costs work, and there are fewer things to name.
const NAMES_MAX: usize = 1024;

/// Whether so many names are bearable; otherwise the refusal is written.
fn names_bearable(names: usize, out: &mut Vec<u8>) -> bool {
    if names > NAMES_MAX {
        reply::error(out, "ERR too many names in one command: at most 1024");
    }
    names <= NAMES_MAX
}
const _: () = assert!(NAMES_MAX == 1024);

/// Most bytes of an unknown command's name, and of its arguments together, that the refusal quotes (Redis' own).
const QUOTED_BYTES_MAX: usize = 128;

/// `-ERR unknown command 'x', with args beginning with: 'y' `.
#[cold]
pub fn unknown(args: Args<'_>, out: &mut Vec<u8>) {
    let mut text = Vec::from(b"ERR unknown command '");
    text.extend_from_slice(head(args.get(0), QUOTED_BYTES_MAX));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for arg in args.iter_from(1) {
        let Some(left) = QUOTED_BYTES_MAX.checked_sub(text.len() - start).filter(|n| *n > 0) else {
            break;
        };
        text.push(b'\'');
        text.extend_from_slice(head(arg, left));
        text.extend_from_slice(b"' ");
    }
    reply::error_bytes(out, &text);
}

/// `-ERR unknown subcommand 'x'. Try CONFIG HELP.` `name` is the container in upper case.
#[cold]
pub fn unknown_subcommand(name: &str, subcommand: &[u8], out: &mut Vec<u8>) {
    let mut text = Vec::from(b"ERR unknown subcommand '");
    text.extend_from_slice(head(subcommand, QUOTED_BYTES_MAX));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b" HELP.");
    reply::error_bytes(out, &text);
}

/// The beginning of what a client sent, fit to be quoted: as in Redis it ends at a NUL.
fn head(bytes: &[u8], len: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(len)];
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// The reply to `X HELP`: a line about the command, then one for each of `lines`, then HELP itself.
fn help(name: &str, lines: &[&str], out: &mut Vec<u8>) {
    reply::array(out, lines.len() + 3);
    let mut first = alloc::string::String::from(name);
    first.push_str(" <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    reply::simple(out, &first);
    for line in lines {
        reply::simple(out, line);
    }
    reply::simple(out, "HELP");
    reply::simple(out, "    Prints this help.");
}
