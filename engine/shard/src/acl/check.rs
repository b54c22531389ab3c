//! Whether a user may do what a request asks for.
//!
//! Each key is compared with each pattern until one allows it, and there may be a million keys and thousands of patterns. So the
//! look goes in steps: a [`Check`] knows where it is, and goes on from there.

use super::User;
use super::selector::{READ, Selector, WRITE};
use crate::command::{Args, Spec};
use crate::commands;
use crate::stats::DeniedKind;
use dkv_protocol::limits::KEY_BYTES_MAX;

/// What it takes to come to a selector, to a key or channel, and to a pattern, besides comparing them, in nanoseconds.
const SELECTOR_NS: usize = 40;
const OBJECT_NS: usize = 8;
const PATTERN_NS: usize = 8;
/// Arguments of a SET that are looked through for what it does; all of its options together are fewer.
const SET_ARGS_MAX: usize = 16;

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

impl Denied {
    /// What INFO counts it as.
    pub(crate) const fn kind(self) -> DeniedKind {
        match self {
            Self::Command => DeniedKind::Command,
            Self::Key(_) => DeniedKind::Key,
            Self::Channel(_) => DeniedKind::Channel,
        }
    }
}

/// What a selector may allow or not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Object<'a> {
    /// A key, and what is done to it.
    Key(&'a [u8], u8),
    Channel(&'a [u8]),
    /// A pattern of channels, of which only what it says is compared.
    ChannelPattern(&'a [u8]),
}

/// How far the look at a request is whose number of arguments fits it.
#[derive(Debug)]
pub(crate) struct Check {
    /// What is done to its first keys. That may depend on all of its arguments, so it is found out once.
    flags: u8,
    /// The selector, the object among those of the request, and the pattern that come next.
    selector: usize,
    object: usize,
    pattern: usize,
    /// What the selectors before it say.
    why: Denied,
}

impl Check {
    pub(crate) fn new(spec: &Spec, args: Args<'_>) -> Self {
        let (selector, object, pattern) = (0, 0, 0);
        let flags = permissions(uses(spec, args));
        Self { flags, selector, object, pattern, why: Denied::Command }
    }

    /// Goes on for as long as there is some of `left_ns`, and takes from that. None: it is to go on another time, with the same
    /// user and the same request; at least one pattern was looked at.
    pub(crate) fn go_on(
        &mut self,
        user: &User,
        spec: &Spec,
        args: Args<'_>,
        left_ns: &mut usize,
    ) -> Option<Result<(), Denied>> {
        while let Some(selector) = user.selectors().get(self.selector) {
            match self.go_on_with(selector, spec, args, left_ns)? {
                Ok(()) => return Some(Ok(())),
                Err(denied) => {
                    self.why = self.why.max(denied);
                    (self.object, self.pattern) = (0, 0);
                    self.selector += 1;
                }
            }
        }
        Some(Err(self.why))
    }

    fn go_on_with(
        &mut self,
        selector: &Selector,
        spec: &Spec,
        args: Args<'_>,
        left_ns: &mut usize,
    ) -> Option<Result<(), Denied>> {
        *left_ns = left_ns.saturating_sub(SELECTOR_NS);
        let number = commands::number_of(spec, args);
        let at = if number == spec.number { 1 } else { 2 };
        let first = (args.len() > at).then(|| args.get(at));
        // Nobody could become a user otherwise.
        if !spec.flags.contains(&"no_auth") && !selector.allows_command(number, first) {
            return Some(Err(Denied::Command));
        }
        for (at, object) in objects(spec, args, self.flags).skip(self.object) {
            if !allows(selector, object, &mut self.pattern, left_ns)? {
                return Some(Err(match object {
                    Object::Key(..) => Denied::Key(at as u32),
                    Object::Channel(_) | Object::ChannelPattern(_) => Denied::Channel(at as u32),
                }));
            }
            self.object += 1;
            self.pattern = 0;
        }
        Some(Ok(()))
    }
}

/// Whether a selector allows that; `pattern` is the one that comes next. None: it is not known yet.
fn allows(
    selector: &Selector,
    object: Object<'_>,
    pattern: &mut usize,
    left_ns: &mut usize,
) -> Option<bool> {
    let Some(patterns) = selector.patterns(object) else { return Some(true) };
    // Whoever executes the command refuses such a name; nobody is to compare megabytes before.
    if matches!(object, Object::Channel(name) if name.len() > KEY_BYTES_MAX) {
        return Some(true);
    }
    *left_ns = left_ns.saturating_sub(OBJECT_NS);
    while *pattern < patterns {
        let (allows, ns) = selector.allows(*pattern, object);
        *left_ns = left_ns.saturating_sub(PATTERN_NS + ns);
        if allows {
            return Some(true);
        }
        *pattern += 1;
        if *left_ns == 0 {
            return None;
        }
    }
    Some(false)
}

/// The same for a request at once, however long it takes: for who administers users, and asks for it.
pub(crate) fn check(user: &User, spec: &Spec, args: Args<'_>) -> Result<(), Denied> {
    let mut left_ns = usize::MAX;
    // There is never so much to do.
    Check::new(spec, args).go_on(user, spec, args, &mut left_ns).unwrap_or(Err(Denied::Command))
}

/// Where the look at one name goes on: the selector and the pattern that come next.
pub(super) type At = (usize, usize);

/// Whether one selector of a user allows that, from `at` on. None: it is not known yet.
pub(super) fn allows_one(
    user: &User,
    object: Object<'_>,
    at: &mut At,
    left_ns: &mut usize,
) -> Option<bool> {
    while let Some(selector) = user.selectors().get(at.0) {
        if allows(selector, object, &mut at.1, left_ns)? {
            return Some(true);
        }
        *at = (at.0 + 1, 0);
    }
    Some(false)
}

/// What a request names: where it stands, and what it is. Channels come first.
fn objects<'a>(
    spec: &'a Spec,
    args: Args<'a>,
    flags: u8,
) -> impl Iterator<Item = (usize, Object<'a>)> {
    let is_pattern = spec.name == "PSUBSCRIBE";
    let channel = move |i: usize| {
        let name = args.get(i);
        (i, if is_pattern { Object::ChannelPattern(name) } else { Object::Channel(name) })
    };
    let key = move |(i, flags): (usize, u8)| (i, Object::Key(args.get(i), flags));
    channels(spec, args).map(channel).chain(keys(spec, args, flags).map(key))
}

/// The arguments that are channels, or patterns of them. Whoever may be subscribed may stop being so.
fn channels(spec: &Spec, args: Args<'_>) -> core::ops::Range<usize> {
    match spec.name {
        "PUBLISH" | "SPUBLISH" => 1..2.min(args.len()),
        "SUBSCRIBE" | "SSUBSCRIBE" | "PSUBSCRIBE" => 1..args.len(),
        _ => 0..0,
    }
}

/// As the tables of commands name what a request does to its first keys; nothing where it has none.
fn names_of_flags(spec: &Spec, args: Args<'_>) -> &'static [&'static str] {
    let number = commands::number_of(spec, args);
    let flags = if number == spec.number { spec.key_flags } else { commands::key_flags_of(number) };
    if spec.first_key == 0 || flags.contains(&"not_key") { &[] } else { flags }
}

/// The arguments that are keys, and what is done to each.
fn keys(spec: &Spec, args: Args<'_>, flags: u8) -> impl Iterator<Item = (usize, u8)> {
    let keyless = names_of_flags(spec, args).is_empty();
    let others = spec.other_keys;
    let last = if others.is_some() { spec.first_key } else { spec.last_key };
    let first = range(args, spec.first_key, last, keyless)
        .step_by(usize::try_from(spec.key_step).unwrap_or_default().max(1))
        .map(move |i| (i, flags));
    let rest = others.into_iter().filter(move |_| !keyless).flat_map(move |keys| {
        let flags = permissions(keys.flags);
        range(args, keys.first, keys.last, false).map(move |i| (i, flags))
    });
    first.chain(rest)
}

/// Whether a key of a request is longer than a key can be.
pub(super) fn has_long_key(spec: &Spec, args: Args<'_>) -> bool {
    keys(spec, args, 0).any(|(i, _)| args.get(i).len() > KEY_BYTES_MAX)
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

/// What this request does to its first keys, in the words of the tables of commands: for who looks at what its user may do, and
/// for COMMAND GETKEYSANDFLAGS. Where it depends on the other arguments it is decided by them.
pub(crate) fn uses(spec: &Spec, args: Args<'_>) -> &'static [&'static str] {
    let has = |word: &[u8]| args.iter_from(3).any(|arg| arg.eq_ignore_ascii_case(word));
    match spec.name {
        // What is longer is no SET at all, and not worth the look.
        "SET" if args.len() <= SET_ARGS_MAX && !has(b"GET") => &["OW", "update"],
        "BITFIELD" if only_reads(args) => &["RO", "access"],
        "SET" | "BITFIELD" => &["RW", "access", "update"],
        _ => names_of_flags(spec, args),
    }
}

/// Whether a BITFIELD does nothing but GET.
fn only_reads(args: Args<'_>) -> bool {
    let mut at = 2;
    while at < args.len() {
        let is = |word: &[u8]| args.get(at).eq_ignore_ascii_case(word);
        at += match () {
            () if is(b"GET") && at + 2 < args.len() => 3,
            () if is(b"OVERFLOW") && at + 1 < args.len() => 2,
            () => return false,
        };
    }
    true
}
