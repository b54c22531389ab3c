//! What a user may do: commands, keys and channels, as one root selector and each one in parentheses describe it.

use super::categories;
use super::check::Object;
use super::pattern::Pattern;
use crate::commands::glob::PATTERN_BYTES_MAX;
use crate::commands::{self, NUMBERS};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

const SYNTAX: &str = "Syntax error";
const UNKNOWN: &str = "Unknown command or category name in ACL";
const NO_FIRST_ARGUMENT: &str = "Allowing first-arg of a subcommand is not supported";
const ALL_KEYS_ALREADY: &str = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
                                any effect. Try 'resetkeys' to start with an empty list of patterns";
const ALL_CHANNELS_ALREADY: &str = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
                                    not have any effect. Try 'resetchannels' to start with an empty list of channels";
const PATTERN_TOO_LONG: &str = "A pattern has at most 1024 bytes";
const _: () = assert!(PATTERN_BYTES_MAX == 1024);

/// What may be done to keys.
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;

/// A pattern of keys, and what may be done to those that match.
#[derive(Debug, PartialEq)]
struct KeyPattern {
    flags: u8,
    pattern: Pattern,
}

/// Commands that may be run.
#[derive(Clone, Debug, PartialEq)]
struct Commands {
    /// By number, of commands and subcommands.
    allowed: [u64; NUMBERS.div_ceil(64)],
    /// Whether everything was allowed first, and so is what comes with a later version; otherwise nothing was.
    all: bool,
    /// What was said since, in order: whether it allows, and the name of a command, of a subcommand behind a bar, or of a
    /// category behind an `@`. A name that a later one covers is left out when all is said ([`Self::settle`]).
    rules: Vec<(bool, String)>,
    /// Commands that may be run with a certain first argument, which is lower case.
    first_args: Vec<(u16, String)>,
}

impl Commands {
    const NONE: Self = Self {
        allowed: [0; NUMBERS.div_ceil(64)],
        all: false,
        rules: Vec::new(),
        first_args: Vec::new(),
    };

    fn reset(&mut self, all: bool) {
        *self = Self { all, ..Self::NONE };
        (0..NUMBERS as u16).for_each(|number| self.set(number, all));
    }

    fn set(&mut self, number: u16, allow: bool) {
        let (word, bit) = (usize::from(number) / 64, 1 << (number % 64));
        if allow {
            self.allowed[word] |= bit;
        } else {
            self.allowed[word] &= !bit;
        }
    }

    fn has(&self, number: u16) -> bool {
        self.allowed
            .get(usize::from(number) / 64)
            .is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Allows commands or not, each with all of its subcommands and whatever its first argument.
    fn set_all(&mut self, allow: bool, numbers: impl Iterator<Item = u16>) {
        let mut said = Self::NONE;
        for number in numbers {
            self.set(number, allow);
            said.set(number, true);
            commands::parts_of(number).for_each(|part| self.set(part, allow));
        }
        self.first_args.retain(|(of, _)| !said.has(*of));
    }

    fn note(&mut self, allow: bool, name: &str) {
        self.rules.push((allow, name.to_ascii_lowercase()));
    }

    /// All rules were applied: leaves out what a later one covers, and first arguments that were said twice. Not with each rule,
    /// because thousands would be compared with each other then.
    fn settle(&mut self) {
        let mut later = BTreeSet::new();
        let mut rules = Vec::new();
        for (allow, name) in self.rules.drain(..).rev() {
            let wholes = name.match_indices('|').map(|(bar, _)| &name[..bar]);
            if !wholes.chain([name.as_str()]).any(|name| later.contains(name)) {
                later.insert(name.clone());
                rules.push((allow, name));
            }
        }
        rules.reverse();
        self.rules = rules;
        self.first_args.sort_unstable();
        self.first_args.dedup();
    }

    /// `+name` or `-name`.
    fn apply(&mut self, allow: bool, name: &str) -> Result<(), &'static str> {
        if let Some(category) = name.strip_prefix('@') {
            if category.eq_ignore_ascii_case("all") {
                self.reset(allow);
                return Ok(());
            }
            let category = categories::named(category.as_bytes()).ok_or(UNKNOWN)?;
            self.set_all(allow, categories::members(category));
        } else if let Some(number) = commands::number_named(name.as_bytes()) {
            self.set_all(allow, core::iter::once(number));
        } else {
            let (base, first) = name.rsplit_once('|').filter(|_| allow).ok_or(UNKNOWN)?;
            let number = commands::number_named(base.as_bytes()).ok_or(UNKNOWN)?;
            if commands::is_part(number) {
                return Err(NO_FIRST_ARGUMENT);
            }
            if commands::parts_of(number).next().is_some() {
                return Err(UNKNOWN);
            }
            if first.is_empty() {
                return Err(SYNTAX);
            }
            self.first_args.push((number, first.to_ascii_lowercase()));
        }
        self.note(allow, name);
        Ok(())
    }

    /// Whether a command may be run, whose first argument, behind its name, is this one.
    fn allow(&self, number: u16, first: Option<&[u8]>) -> bool {
        let is_first =
            |text: &String| first.is_some_and(|arg| arg.eq_ignore_ascii_case(text.as_bytes()));
        self.has(number) || self.first_args.iter().any(|(of, text)| *of == number && is_first(text))
    }

    fn describe(&self) -> String {
        let mut text = String::from(if self.all { "+@all" } else { "-@all" });
        for (allow, name) in &self.rules {
            text.push_str(if *allow { " +" } else { " -" });
            text.push_str(name);
        }
        text
    }
}

/// See the module.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    commands: Commands,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Pattern>,
}

impl Selector {
    /// One that allows nothing.
    pub(crate) const fn new() -> Self {
        Self {
            commands: Commands::NONE,
            all_keys: false,
            keys: Vec::new(),
            all_channels: false,
            channels: Vec::new(),
        }
    }

    /// How many patterns it has.
    pub(super) fn patterns_len(&self) -> usize {
        self.keys.len() + self.channels.len()
    }

    /// Whether it allows everything.
    pub(crate) fn is_free(&self) -> bool {
        self.commands.all && self.commands.rules.is_empty() && self.all_keys && self.all_channels
    }

    /// Applies one rule. The error is why it is none; nothing has changed then.
    pub(crate) fn apply(&mut self, rule: &str) -> Result<(), &'static str> {
        let is = |name: &str| rule.eq_ignore_ascii_case(name);
        if is("allkeys") || rule == "~*" {
            (self.all_keys, self.keys) = (true, Vec::new());
        } else if is("resetkeys") {
            (self.all_keys, self.keys) = (false, Vec::new());
        } else if is("allchannels") || rule == "&*" {
            (self.all_channels, self.channels) = (true, Vec::new());
        } else if is("resetchannels") {
            (self.all_channels, self.channels) = (false, Vec::new());
        } else if is("allcommands") {
            self.commands.reset(true);
        } else if is("nocommands") {
            self.commands.reset(false);
        } else if let Some(name) = rule.strip_prefix('+') {
            self.commands.apply(true, name)?;
        } else if let Some(name) = rule.strip_prefix('-') {
            self.commands.apply(false, name)?;
        } else if rule.starts_with(['~', '%']) {
            self.add_keys(rule)?;
        } else if let Some(pattern) = rule.strip_prefix('&') {
            if self.all_channels {
                return Err(ALL_CHANNELS_ALREADY);
            }
            check_pattern(pattern)?;
            if !self.channels.iter().any(|known| known.text() == pattern) {
                self.channels.push(Pattern::new(pattern));
            }
        } else {
            return Err(SYNTAX);
        }
        Ok(())
    }

    /// All rules were applied.
    pub(crate) fn settle(&mut self) {
        self.commands.settle();
        // It is shown like that, and so is read like that.
        if self.keys.iter().any(|one| one.pattern.text() == "*" && one.flags == READ | WRITE) {
            (self.all_keys, self.keys) = (true, Vec::new());
        }
    }

    /// Keeps a rule about commands that are not known here.
    pub(crate) fn keep(&mut self, rule: &str) {
        self.commands.note(rule.starts_with('+'), &rule[1..]);
    }

    /// `~pattern`, or `%RW~pattern` with any of the letters.
    fn add_keys(&mut self, rule: &str) -> Result<(), &'static str> {
        if self.all_keys {
            return Err(ALL_KEYS_ALREADY);
        }
        let (flags, text) = match rule.strip_prefix('%') {
            None => (READ | WRITE, &rule[1..]),
            Some(rest) => {
                // As in Redis the sign may be left out where nothing follows.
                let (letters, text) = rest.split_once('~').unwrap_or((rest, ""));
                let flags = letters.bytes().try_fold(0, |flags, letter| {
                    let flag = match letter.to_ascii_uppercase() {
                        b'R' => READ,
                        b'W' => WRITE,
                        _ => return None,
                    };
                    (flags & flag == 0).then_some(flags | flag)
                });
                (flags.filter(|flags| *flags != 0).ok_or(SYNTAX)?, text)
            }
        };
        check_pattern(text)?;
        match self.keys.iter_mut().find(|known| known.pattern.text() == text) {
            Some(known) => known.flags |= flags,
            None => self.keys.push(KeyPattern { flags, pattern: Pattern::new(text) }),
        }
        Ok(())
    }

    /// Whether a command may be run, whose first argument, behind its name, is this one.
    pub(crate) fn allows_command(&self, number: u16, first: Option<&[u8]>) -> bool {
        self.commands.allow(number, first)
    }

    /// How many patterns such an object is compared with; none where every one is allowed.
    pub(super) fn patterns(&self, object: Object<'_>) -> Option<usize> {
        match object {
            Object::Key(..) => (!self.all_keys).then_some(self.keys.len()),
            Object::Channel(_) | Object::ChannelPattern(_) => {
                (!self.all_channels).then_some(self.channels.len())
            }
        }
    }

    /// Whether the pattern `at` of those allows it, and about how many nanoseconds it took to see.
    pub(super) fn allows(&self, at: usize, object: Object<'_>) -> (bool, usize) {
        match object {
            Object::Key(key, flags) => match &self.keys[at] {
                one if one.flags & flags == flags => one.pattern.look(key),
                _ => (false, 0),
            },
            Object::Channel(name) => self.channels[at].look(name),
            Object::ChannelPattern(text) => (self.channels[at].text().as_bytes() == text, 0),
        }
    }

    /// Its commands, as ACL GETUSER shows them.
    pub(crate) fn commands(&self) -> String {
        self.commands.describe()
    }

    /// Its keys, as ACL GETUSER shows them.
    pub(crate) fn keys(&self) -> String {
        if self.all_keys {
            return String::from("~*");
        }
        let mut text = String::new();
        for one in &self.keys {
            let flags = match one.flags {
                READ => "%R~",
                WRITE => "%W~",
                _ => "~",
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{flags}{}", space(&text), one.pattern.text());
        }
        text
    }

    /// Its channels, as ACL GETUSER shows them.
    pub(crate) fn channels(&self) -> String {
        if self.all_channels {
            return String::from("&*");
        }
        let mut text = String::new();
        for pattern in &self.channels {
            let _ = write!(text, "{}&{}", space(&text), pattern.text());
        }
        text
    }

    /// All of its rules, as ACL LIST shows them.
    pub(crate) fn describe(&self, text: &mut String) {
        let keys = self.keys();
        if !keys.is_empty() {
            let _ = write!(text, "{keys} ");
        }
        if !self.all_channels {
            text.push_str("resetchannels ");
        }
        let channels = self.channels();
        if !channels.is_empty() {
            let _ = write!(text, "{channels} ");
        }
        text.push_str(&self.commands());
    }
}

const fn space(text: &str) -> &'static str {
    if text.is_empty() { "" } else { " " }
}

fn check_pattern(text: &str) -> Result<(), &'static str> {
    if text.bytes().any(|b| b.is_ascii_whitespace() || b == 0x0b) {
        return Err(SYNTAX);
    }
    if text.len() > PATTERN_BYTES_MAX { Err(PATTERN_TOO_LONG) } else { Ok(()) }
}
