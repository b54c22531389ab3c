//! Whether a user may do what a request asks for.

use super::User;
use super::selector::{READ, Selector, WRITE};
use crate::command::{Args, Spec};
use crate::commands;

/// Why it may not; of several selectors the reason that is furthest from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denied {
    /// The command.
    Command,
    /// The key in that argument.
    Key(u32),
    /// The channel in that argument.
    Channel(u32),
}

/// Looks at a request whose number of arguments fits it.
pub(crate) fn check(user: &User, spec: &Spec, args: Args<'_>) -> Result<(), Denied> {
    let mut why = Denied::Command;
    for selector in user.selectors() {
        match check_selector(selector, spec, args) {
            Ok(()) => return Ok(()),
            Err(denied) => why = why.max(denied),
        }
    }
    Err(why)
}

fn check_selector(selector: &Selector, spec: &Spec, args: Args<'_>) -> Result<(), Denied> {
    let number = commands::number_of(spec, args);
    let at = if number == spec.number { 1 } else { 2 };
    let first = (args.len() > at).then(|| args.get(at));
    // Nobody could become a user otherwise.
    if !spec.flags.contains(&"no_auth") && !selector.allows_command(number, first) {
        return Err(Denied::Command);
    }
    let is_pattern = spec.name == "PSUBSCRIBE";
    let denied = channels(spec, args).find(|i| !selector.allows_channel(args.get(*i), is_pattern));
    if let Some(at) = denied {
        return Err(Denied::Channel(at as u32));
    }
    let denied = keys(spec, args).find(|(i, flags)| !selector.allows_key(args.get(*i), *flags));
    denied.map_or(Ok(()), |(at, _)| Err(Denied::Key(at as u32)))
}

/// The arguments that are channels, or patterns of them. Whoever may be subscribed may stop being so.
fn channels(spec: &Spec, args: Args<'_>) -> core::ops::Range<usize> {
    match spec.name {
        "PUBLISH" | "SPUBLISH" => 1..2.min(args.len()),
        "SUBSCRIBE" | "SSUBSCRIBE" | "PSUBSCRIBE" => 1..args.len(),
        _ => 0..0,
    }
}

/// The arguments that are keys, and what is done to each.
fn keys(spec: &Spec, args: Args<'_>) -> impl Iterator<Item = (usize, u8)> {
    let is_part = commands::number_of(spec, args) != spec.number;
    let flags = if is_part {
        let number = commands::number_of(spec, args);
        commands::key_flags_of(number)
    } else {
        spec.key_flags
    };
    let keyless = spec.first_key == 0 || flags.is_empty() || flags.contains(&"not_key");
    let others = spec.other_keys;
    let last = if others.is_some() { spec.first_key } else { spec.last_key };
    let flags = flags_of(spec, args, flags);
    let first = range(args, spec.first_key, last, keyless)
        .step_by(usize::try_from(spec.key_step).unwrap_or_default().max(1))
        .map(move |i| (i, flags));
    let rest = others.into_iter().filter(move |_| !keyless).flat_map(move |keys| {
        let flags = permissions(keys.flags);
        range(args, keys.first, keys.last, false).map(move |i| (i, flags))
    });
    first.chain(rest)
}

/// The arguments from one to another, the last included; a negative one counts from the end.
fn range(args: Args<'_>, first: i8, last: i8, none: bool) -> core::ops::Range<usize> {
    let first = usize::try_from(first).unwrap_or_default();
    let end = match last {
        _ if none => first,
        0.. => usize::try_from(last).unwrap_or_default() + 1,
        _ => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
    };
    first..end.min(args.len()).max(first)
}

fn permissions(flags: &[&str]) -> u8 {
    flags.iter().fold(0, |permissions, flag| match *flag {
        "access" => permissions | READ,
        "insert" | "update" | "delete" => permissions | WRITE,
        _ => permissions,
    })
}

/// What is done to the first keys of this request, where that depends on its other arguments.
fn flags_of(spec: &Spec, args: Args<'_>, flags: &[&str]) -> u8 {
    let has = |word: &[u8]| args.iter_from(3).any(|arg| arg.eq_ignore_ascii_case(word));
    match spec.name {
        "SET" if !has(b"GET") => WRITE,
        "BITFIELD" if only_reads(args) => READ,
        _ => permissions(flags),
    }
}

/// Whether a BITFIELD does nothing but GET.
fn only_reads(args: Args<'_>) -> bool {
    let mut at = 2;
    while at < args.len() {
        let is = |word: &[u8]| args.get(at).eq_ignore_ascii_case(word);
        at += match () {
            () if is(b"GET") => 3,
            () if is(b"OVERFLOW") => 2,
            () => return false,
        };
    }
    true
}
