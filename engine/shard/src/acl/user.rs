//! A user: how it proves who it is, what it may do, and the line of text that says both.

use super::selector::Selector;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use dkv_protocol::limits::{UNAUTHENTICATED_BULK_BYTES_MAX, USER_LINE_BYTES_MAX};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const BAD_HASH: &str = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
const NO_SUCH_PASSWORD: &str = "The password you are trying to remove from the user does not exist";
const SYNTAX: &str = "Syntax error";
const NOT_TEXT: &str = "A rule is text in UTF-8 without control characters";
const TOO_LONG: &str =
    "ERR the rules of a user take at most 16384 bytes together; give fewer, or wider patterns";
const _: () = assert!(USER_LINE_BYTES_MAX == 16 * 1024);
const TOO_MANY: &str = "ERR the rules of one command take at most 20480 bytes together; give them in several commands, or \
                        wider patterns";
/// Bytes of the rules that are applied at once: a line as long as can be, and what takes the place of something in it.
const RULES_BYTES_MAX: usize = USER_LINE_BYTES_MAX + 4 * 1024;
const _: () = assert!(RULES_BYTES_MAX == 20_480);
/// The longest password. Nobody who has not said one yet could send a longer one.
pub(crate) const PASSWORD_BYTES_MAX: usize = UNAUTHENTICATED_BULK_BYTES_MAX;
const _: () = assert!(PASSWORD_BYTES_MAX == 16 * 1024);
const PASSWORD_TOO_LONG: &str = "A password has at most 16384 bytes";
const SPACE: &str = "Only passwords, and selectors in parentheses, hold spaces";
/// Selectors are kept as text between parentheses, so a rule of one that ends with one would end it.
const PARENTHESIS: &str = "A rule of a selector does not end with a parenthesis";
/// Patterns, passwords and selectors of one user: each that comes is compared with those that are there.
const ITEMS_MAX: usize = 1024;
const ITEMS: &str =
    "ERR a user has at most 1024 patterns, passwords and selectors together; give wider patterns";
const _: () = assert!(ITEMS_MAX == 1024);
/// Bytes of a rule that an error repeats.
const QUOTED_BYTES_MAX: usize = 128;
/// What the rules of a user would mean another time is what they mean now, or they are not taken.
const NOT_THE_SAME: &str = "ERR these rules cannot be kept as text that means the same; give them one by one, without \
                            parentheses within rules";

/// SHA-256 of a password.
pub(crate) type Hash = [u8; 32];

/// See the module.
#[derive(Debug, PartialEq)]
pub(crate) struct User {
    pub(crate) name: String,
    on: bool,
    nopass: bool,
    /// `sanitize-payload` (true) or `skip-sanitize-payload`, which are kept and mean nothing: every payload of RESTORE is
    /// looked at.
    sanitize: Option<bool>,
    passwords: Vec<Hash>,
    /// The root, and those in parentheses.
    selectors: Vec<Selector>,
}

impl User {
    /// One that may do nothing.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            on: false,
            nopass: false,
            sanitize: None,
            passwords: Vec::new(),
            selectors: [Selector::new()].into(),
        }
    }

    /// The default user of a store where nobody changed it, with the store's password.
    pub(crate) fn default_with(password: Option<Hash>) -> Self {
        let mut root = Selector::new();
        for rule in ["~*", "&*", "+@all"] {
            // They are rules.
            let _ = root.apply(rule);
        }
        Self {
            on: true,
            nopass: password.is_none(),
            passwords: password.into_iter().collect(),
            selectors: [root].into(),
            ..Self::new(super::DEFAULT)
        }
    }

    /// The user of a line. None when it is not one of a user.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("user ")?.split(' ');
        let mut user = Self::new(words.next()?);
        let rules: Vec<&[u8]> = words.filter(|word| !word.is_empty()).map(str::as_bytes).collect();
        // A command of a later version is none here, whether it is allowed or not.
        user.apply_all(&rules, true).ok()?;
        Some(user)
    }

    /// Applies rules in their order; a selector may be spread over several. `lenient`: rules about
    /// commands and categories that are not known here are kept and mean nothing.
    ///
    /// # Errors
    /// The reply of ACL SETUSER; the user is of no use then.
    pub(crate) fn apply_all(&mut self, rules: &[&[u8]], lenient: bool) -> Result<(), Vec<u8>> {
        if rules.iter().map(|rule| rule.len() + 1).sum::<usize>() > RULES_BYTES_MAX {
            return Err(TOO_MANY.into());
        }
        for rule in merged(rules)? {
            let refused = match (rule[..].split_first(), core::str::from_utf8(&rule)) {
                // A password is any bytes.
                (Some((b'>' | b'<', password)), _) if password.len() > PASSWORD_BYTES_MAX => {
                    Err(PASSWORD_TOO_LONG)
                }
                (Some((b'>', password)), _) => {
                    self.add_password(Sha256::digest(password).into());
                    Ok(())
                }
                (Some((b'<', password)), _) => {
                    self.remove_password(Sha256::digest(password).into())
                }
                (_, Ok(text)) if !text.chars().any(char::is_control) => self.apply(text, lenient),
                _ => Err(NOT_TEXT),
            };
            if let Err(why) = refused {
                let quoted = &rule[..rule.len().min(QUOTED_BYTES_MAX)];
                let text = [b"ERR Error in ACL SETUSER modifier '", quoted, b"': ", why.as_bytes()];
                return Err(text.concat());
            }
            if self.items() > ITEMS_MAX {
                return Err(ITEMS.into());
            }
        }
        self.selectors.iter_mut().for_each(Selector::settle);
        if self.line().len() > USER_LINE_BYTES_MAX { Err(TOO_LONG.into()) } else { Ok(()) }
    }

    /// Its line, given that the same user can be made of it.
    ///
    /// # Errors
    /// It would be another one, which might have more rights; as a reply.
    pub(crate) fn kept_line(&self) -> Result<String, Vec<u8>> {
        let line = self.line();
        if Self::of_line(&line).as_ref() == Some(self) {
            Ok(line)
        } else {
            Err(NOT_THE_SAME.into())
        }
    }

    fn items(&self) -> usize {
        let patterns = self.selectors.iter().map(|selector| 1 + selector.patterns_len());
        self.passwords.len() + patterns.sum::<usize>()
    }

    fn apply(&mut self, rule: &str, lenient: bool) -> Result<(), &'static str> {
        let is = |name: &str| rule.eq_ignore_ascii_case(name);
        if is("on") || is("off") {
            self.on = is("on");
        } else if is("nopass") {
            (self.nopass, self.passwords) = (true, Vec::new());
        } else if is("resetpass") {
            (self.nopass, self.passwords) = (false, Vec::new());
        } else if is("sanitize-payload") || is("skip-sanitize-payload") {
            self.sanitize = Some(is("sanitize-payload"));
        } else if is("clearselectors") {
            self.selectors.truncate(1);
        } else if is("reset") {
            *self = Self { sanitize: Some(true), ..Self::new(&self.name) };
        } else if let Some(text) = rule.strip_prefix('#') {
            self.add_password(hash(text)?);
        } else if let Some(text) = rule.strip_prefix('!') {
            self.remove_password(hash(text)?)?;
        } else if let Some(rules) = rule.strip_prefix('(') {
            let mut selector = Selector::new();
            for rule in rules.strip_suffix(')').ok_or(SYNTAX)?.split(' ').filter(|r| !r.is_empty())
            {
                if rule.ends_with(')') {
                    return Err(PARENTHESIS);
                }
                apply_to(&mut selector, rule, lenient)?;
            }
            self.selectors.push(selector);
        } else {
            apply_to(&mut self.selectors[0], rule, lenient)?;
            // The first argument of a command may be anything else.
            if rule.contains(char::is_whitespace) {
                return Err(SPACE);
            }
        }
        Ok(())
    }

    fn add_password(&mut self, hash: Hash) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), &'static str> {
        let at = self.passwords.iter().position(|known| *known == hash).ok_or(NO_SUCH_PASSWORD)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// Whether connections may be it without saying anything.
    pub(crate) fn needs_no_password(&self) -> bool {
        self.on && self.nopass
    }

    /// Whether any password is right.
    pub(crate) fn takes_any_password(&self) -> bool {
        self.nopass
    }

    /// Whether who says this password is this user; none is one that nobody has. Takes as long for a right one as for a wrong
    /// one.
    pub(crate) fn accepts(&self, given: Option<&Hash>) -> bool {
        let mut right = subtle::Choice::from(u8::from(self.nopass));
        for (given, password) in
            given.into_iter().flat_map(|g| self.passwords.iter().map(move |p| (g, p)))
        {
            right |= given.ct_eq(password);
        }
        (right & subtle::Choice::from(u8::from(self.on))).into()
    }

    /// Whether it may do everything.
    pub(crate) fn is_free(&self) -> bool {
        self.selectors.iter().any(Selector::is_free)
    }

    /// The root, and those in parentheses.
    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Its flags, as ACL GETUSER shows them.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = Vec::from([if self.on { "on" } else { "off" }]);
        flags.extend(self.nopass.then_some("nopass"));
        flags.extend(
            self.sanitize
                .map(|does| if does { "sanitize-payload" } else { "skip-sanitize-payload" }),
        );
        flags
    }

    /// Its passwords as they are shown: hashed.
    pub(crate) fn passwords(&self) -> impl Iterator<Item = String> {
        self.passwords.iter().map(|hash| {
            hash.iter().fold(String::new(), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }

    /// Its line, as ACL LIST shows it.
    pub(crate) fn line(&self) -> String {
        let mut text = format!("user {} {} ", self.name, self.flags().join(" "));
        for hash in self.passwords() {
            let _ = write!(text, "#{hash} ");
        }
        self.selectors[0].describe(&mut text);
        for selector in &self.selectors[1..] {
            text.push_str(" (");
            selector.describe(&mut text);
            text.push(')');
        }
        text
    }
}

/// The rules with each selector as one of them.
fn merged(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = rules.iter();
    while let Some(first) = rest.next() {
        let mut rule = first.to_vec();
        while rule.starts_with(b"(") && !rule.ends_with(b")") {
            let Some(more) = rest.next() else {
                let begin = b"ERR Unmatched parenthesis in acl selector starting at '";
                return Err([&begin[..], first, b"'."].concat());
            };
            rule.push(b' ');
            rule.extend_from_slice(more);
        }
        all.push(rule);
    }
    Ok(all)
}

fn apply_to(selector: &mut Selector, rule: &str, lenient: bool) -> Result<(), &'static str> {
    match selector.apply(rule) {
        Err(_) if lenient && is_of_later(rule) => {
            selector.keep(rule);
            Ok(())
        }
        result => result,
    }
}

/// Whether a rule may be about a command or category of a later version.
fn is_of_later(rule: &str) -> bool {
    let of_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.|@".contains(&b);
    rule.strip_prefix(['+', '-']).is_some_and(|name| !name.is_empty() && name.bytes().all(of_name))
}

fn hash(text: &str) -> Result<Hash, &'static str> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut hash = [0; 32];
    if pairs.len() != hash.len() || !rest.is_empty() {
        return Err(BAD_HASH);
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high).ok_or(BAD_HASH)? << 4 | digit(*low).ok_or(BAD_HASH)?;
    }
    Ok(hash)
}
