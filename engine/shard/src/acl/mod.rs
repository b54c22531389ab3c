//! Users as a shard has them, and what they may do (ACL).
//!
//! The managers keep a line of text for each user of the store ([`dkv_protocol::users`]); here it becomes what commands, keys and
//! channels are compared with. That happens once, where the client's connection is: what shards ask each other is not
//! looked at again. A connection whose user may do everything is told from others by one flag, so it pays nothing.

pub(crate) mod categories;
pub(crate) mod check;
pub(crate) mod command;
mod enforce;
mod hearing;
pub(crate) mod line;
pub(crate) mod log;
mod pattern;
mod selector;
mod show;
#[cfg(test)]
mod tests;
mod user;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dkv_protocol::users::Users;
pub(crate) use enforce::Checking;
pub(crate) use hearing::Suspect;
pub(crate) use user::{Hash, User};

/// The user of a connection that says nothing, or a password alone.
pub(crate) const DEFAULT: &str = "default";

/// A user, with the line that it was made of.
#[derive(Debug)]
struct Known {
    line: String,
    user: Arc<User>,
}

/// All users of the store.
#[derive(Debug)]
pub(crate) struct Acl {
    /// What the store's password makes of the default user where there is no line of it.
    original: Arc<User>,
    /// In the order of the names; always with the default user.
    known: Vec<Known>,
}

impl Acl {
    /// The users of a store where nobody changed them.
    pub(crate) fn new(password: Option<Hash>) -> Self {
        let original = Arc::new(User::default_with(password));
        let known = Known { line: original.line(), user: Arc::clone(&original) };
        Self { original, known: [known].into() }
    }

    /// These are the users now. Who has the same line as before stays as it is, because a thousand are not read at once in a
    /// moment.
    pub(crate) fn follow(&mut self, users: &Users) {
        let before = core::mem::take(&mut self.known);
        let same = |name: &str, line: &str| {
            let at = before.binary_search_by(|known| known.user.name.as_str().cmp(name)).ok()?;
            (before[at].line == line).then(|| Arc::clone(&before[at].user))
        };
        for (name, line) in users.each() {
            // Of a line that cannot be read nobody can know what it allows.
            let read = || Arc::new(User::of_line(line).unwrap_or_else(|| User::new(name)));
            let user = same(name, line).unwrap_or_else(read);
            self.known.push(Known { line: line.into(), user });
        }
        if users.line(DEFAULT).is_none() {
            let user = Arc::clone(&self.original);
            self.known.push(Known { line: user.line(), user });
        }
        self.known.sort_by(|a, b| a.user.name.cmp(&b.user.name));
    }

    /// The user of that name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        let at = self.known.binary_search_by(|known| known.user.name.as_bytes().cmp(name));
        at.ok().map(|at| &self.known[at].user)
    }

    /// The default user, who is always there.
    pub(crate) fn default_user(&self) -> &Arc<User> {
        self.get(DEFAULT.as_bytes()).unwrap_or(&self.original)
    }

    /// The line that a user was made of.
    fn line_of(&self, name: &[u8]) -> Option<&str> {
        let at = self.known.binary_search_by(|known| known.user.name.as_bytes().cmp(name));
        at.ok().map(|at| self.known[at].line.as_str())
    }

    /// The lines of all of them, in the order of their names.
    fn lines(&self) -> impl ExactSizeIterator<Item = &str> {
        self.known.iter().map(|known| known.line.as_str())
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.known.iter().map(|known| &known.user)
    }

    /// The user of that name, when that is its password. It takes as long when there is no such user.
    pub(crate) fn authenticate(&self, name: &[u8], password: Option<&Hash>) -> Option<&Arc<User>> {
        let user = self.get(name);
        let right = user.unwrap_or(&self.original).accepts(password);
        user.filter(|_| right)
    }
}
