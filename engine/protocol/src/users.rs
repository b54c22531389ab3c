//! The users of a store, as they travel: one line of text each, in the form of ACL LIST, and a version that grows with
//! every change.
//!
//! Here a line is its length and the name in it. What the rules behind the name mean is known to the nodes alone, who made
//! the line; the managers keep it and pass it on.

use crate::limits::{USER_CHANGES_BYTES_MAX, USER_LINE_BYTES_MAX, USERS_BYTES_MAX, USERS_MAX};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// All users of a store. Without a line for `default`, that user is what the store's password makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// How often they were changed; 0 in a store whose users nobody ever touched.
    pub version: u64,
    /// `user NAME RULE…`, in the order of the names and no name twice.
    pub lines: Vec<String>,
}

/// One user, as it shall be or as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLine {
    /// Who.
    pub name: String,
    /// Its whole line, which begins with `user NAME `; none where there shall be no such user, or is none.
    pub line: Option<String>,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserChanges {
    /// What must be so still, or they are refused: the lines that new ones were made of, and that of the user who wants
    /// them. What others change meanwhile does not matter, and whoever may no longer change users changes nothing.
    pub given: Vec<UserLine>,
    /// As they shall be. In order; a later one of the same name counts.
    pub changes: Vec<UserLine>,
}

/// What became of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum UsersAnswer {
    /// They are made, or all was so already. Whoever reads this has been told the users of this version before.
    Done {
        /// The version since.
        version: u64,
    },
    /// They were refused and changed nothing.
    Refused {
        /// Why.
        why: UsersRefusal,
    },
    /// They were not decided in time: too few managers reach each other. They may still be made.
    Undecided,
}

/// Why changes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum UsersRefusal {
    /// What was given is not so any more. To be made anew of the users of this version.
    Changed {
        /// The present version.
        version: u64,
    },
    /// A name or a line is none: empty, too long, with a control character in it, or the line of another name.
    BadLine,
    /// There would be more than [`USERS_MAX`].
    TooMany,
    /// The lines would have more than [`USERS_BYTES_MAX`] bytes together, or the changes more than
    /// [`USER_CHANGES_BYTES_MAX`].
    TooLong,
    /// There is no such store, or it is being deleted.
    NoSuchStore,
    /// The managers take no more changes for now.
    Busy,
}

impl fmt::Display for UsersRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { .. } => {
                f.write_str("the users were changed by somebody else meanwhile")
            }
            Self::BadLine => write!(
                f,
                "a user has a name without spaces and rules of {USER_LINE_BYTES_MAX} bytes at most, without control characters"
            ),
            Self::TooMany => write!(f, "a store has {USERS_MAX} users at most"),
            Self::TooLong => write!(
                f,
                "the rules of all users of a store have {USERS_BYTES_MAX} bytes at most, those changed at once {USER_CHANGES_BYTES_MAX}"
            ),
            Self::NoSuchStore => f.write_str("the managers do not have this store any more"),
            Self::Busy => f.write_str("too many changes wait for the managers already"),
        }
    }
}

/// The name in a line of a user. None when it is not one, or longer than it may be.
pub fn name_of(line: &str) -> Option<&str> {
    let good = line.len() <= USER_LINE_BYTES_MAX && !line.bytes().any(|b| b.is_ascii_control());
    named(line).filter(|name| good && !name.is_empty())
}

/// The name in a line that was looked at before.
fn named(line: &str) -> Option<&str> {
    line.strip_prefix("user ")?.split(' ').next()
}

impl UserLine {
    fn is_good(&self) -> bool {
        let named = |name: &String| {
            let fine = |byte: u8| byte != b' ' && !byte.is_ascii_control();
            !name.is_empty() && name.len() < USER_LINE_BYTES_MAX && name.bytes().all(fine)
        };
        let own = |line: &String| name_of(line) == Some(self.name.as_str());
        named(&self.name) && self.line.as_ref().is_none_or(own)
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.line.as_ref().map_or(0, String::len)
    }
}

impl UserChanges {
    /// Whether they could be made of any users at all: every line is one, and they are not too long to be agreed on.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), UsersRefusal> {
        if self.changes.len() > USERS_MAX || self.given.len() > USERS_MAX {
            return Err(UsersRefusal::TooMany);
        }
        let all = || self.given.iter().chain(&self.changes);
        if !all().all(UserLine::is_good) {
            return Err(UsersRefusal::BadLine);
        }
        let bytes: usize = all().map(UserLine::bytes).sum();
        if bytes > USER_CHANGES_BYTES_MAX { Err(UsersRefusal::TooLong) } else { Ok(()) }
    }
}

impl Users {
    /// Whether there are no lines: every client is the default user of a store that has no others.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The line of a user.
    pub fn line(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|at| self.lines[at].as_str())
    }

    /// The names in order, each with its line.
    pub fn each(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| Some((named(line)?, line.as_str())))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.lines.binary_search_by(|line| named(line).unwrap_or_default().cmp(name))
    }

    /// Whether these can be users: what was read of a document or a file may be anything.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), UsersRefusal> {
        if self.lines.len() > USERS_MAX {
            return Err(UsersRefusal::TooMany);
        }
        let names: Option<Vec<&str>> = self.lines.iter().map(|line| name_of(line)).collect();
        if !names.is_some_and(|names| names.is_sorted_by(|a, b| a < b)) {
            return Err(UsersRefusal::BadLine);
        }
        let bytes: usize = self.lines.iter().map(String::len).sum();
        if bytes > USERS_BYTES_MAX { Err(UsersRefusal::TooLong) } else { Ok(()) }
    }

    /// Makes the changes, all of them or none. Says whether anything is different; only then the version grows.
    ///
    /// # Errors
    /// Why they are refused; nothing has changed then.
    pub fn change(&mut self, asked: &UserChanges) -> Result<bool, UsersRefusal> {
        asked.check()?;
        if asked.given.iter().any(|given| self.line(&given.name) != given.line.as_deref()) {
            return Err(UsersRefusal::Changed { version: self.version });
        }
        let mut after = self.clone();
        for change in &asked.changes {
            match (after.find(&change.name), &change.line) {
                (Ok(at), Some(line)) => after.lines[at].clone_from(line),
                (Ok(at), None) => {
                    after.lines.remove(at);
                }
                (Err(at), Some(line)) => after.lines.insert(at, line.clone()),
                (Err(_), None) => {}
            }
        }
        after.check()?;
        if after.lines == self.lines {
            return Ok(false);
        }
        after.version += 1;
        *self = after;
        Ok(true)
    }
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
