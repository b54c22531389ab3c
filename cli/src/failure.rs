//! How a command ends when it does not end well: what happened and why, what to type next, and the exit code.
//!
//! Every command returns a [`Failure`] up to `main`, which alone prints it; nothing below prints an error or exits.

use serde_json::json;
use std::fmt;
use std::io;

/// The exit codes of every command but `agent` and `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Tried and failed.
    Failed = 1,
    /// Asked for in a way that makes no sense.
    Usage = 2,
    /// No manager or node could be reached.
    NotConnected = 3,
    /// Done on some machines or nodes, not on others.
    Partly = 4,
    /// Not done in the time allowed.
    TimedOut = 5,
    /// Ended by Ctrl-C.
    Interrupted = crate::interrupt::EXIT as isize,
}

impl Exit {
    /// A word for programs.
    fn code(self) -> &'static str {
        match self {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotConnected => "not_connected",
            Exit::Partly => "partly_done",
            Exit::TimedOut => "timed_out",
            Exit::Interrupted => "interrupted",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// With which code to exit.
    pub(crate) exit: Exit,
    /// A word for programs; the manager's own where the failure is a manager's.
    pub(crate) code: String,
    /// What and why, without a full stop.
    pub(crate) what: String,
    /// What to type next; may be empty.
    pub(crate) hint: String,
}

impl Failure {
    /// A failure with the hint that belongs to it.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { exit, code: exit.code().into(), what: what.into(), hint: hint.into() }
    }

    /// The operation failed.
    pub(crate) fn failed(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::new(Exit::Failed, what, hint)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, what, hint)
    }

    /// Nobody answers.
    pub(crate) fn not_connected(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::new(Exit::NotConnected, what, hint)
    }

    /// There was not enough time.
    pub(crate) fn timed_out(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::new(Exit::TimedOut, what, hint)
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("check the owner: ls -l {}", path.display()),
            io::ErrorKind::NotFound => "check the path".to_owned(),
            io::ErrorKind::StorageFull => "make room on that disk".to_owned(),
            _ => String::new(),
        };
        Failure::failed(format!("{}: {error}", path.display()), hint)
    }

    /// As a document, for `-o json`.
    pub(crate) fn document(&self) -> String {
        json!({"error": {"code": self.code, "message": self.what, "hint": self.hint}}).to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n hint: {}", self.hint) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_to_type_next() {
        let failure = Failure::usage("no store is named", "name one: dkv store show NAME");
        let text = "error: no store is named\n hint: name one: dkv store show NAME";
        assert_eq!(failure.to_string(), text);
        let expected = r#"{"error":{"code":"usage","hint":"name one: dkv store show NAME","message":"no store is named"}}"#;
        assert_eq!(failure.document(), expected);
    }
}
