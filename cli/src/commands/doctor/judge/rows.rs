//! Rows of findings, and the ways to add one.

use crate::commands::doctor::facts::Fact;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Severity {
    /// As wanted.
    Ok,
    /// Nothing is wrong, but whoever reads other numbers of this host should know it.
    Note,
    /// It could not be found out.
    Unknown,
    /// Works, and costs something.
    Warning,
    /// Does not work.
    Fatal,
}

impl Severity {
    pub(in super::super) fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Unknown => "unknown",
            Severity::Warning => "warning",
            Severity::Fatal => "fatal",
        }
    }
}

/// What can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Fix {
    /// Nothing has to be.
    None,
    /// A command line for a shell of root on the host.
    Command(String),
    /// What no single command does.
    Advice(String),
}

impl Fix {
    /// What a reader sees.
    pub(in super::super) fn text(&self) -> &str {
        match self {
            Fix::None => "",
            Fix::Command(text) | Fix::Advice(text) => text,
        }
    }
}

/// A command line.
pub(super) fn command(text: impl Into<String>) -> Fix {
    Fix::Command(text.into())
}

/// Something to do that is no command line.
pub(super) fn advice(text: impl Into<String>) -> Fix {
    Fix::Advice(text.into())
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Row {
    pub(in super::super) check: String,
    pub(in super::super) found: String,
    pub(in super::super) wanted: String,
    pub(in super::super) severity: Severity,
    /// What it costs; empty when all is well.
    pub(in super::super) why: String,
    /// What to do; none when all is well.
    pub(in super::super) fix: Fix,
}

/// What is wrong, if anything is: how bad, why, and the way out.
pub(super) type Problem = (Severity, String, Fix);

/// A warning.
pub(super) fn warning(why: impl Into<String>, fix: Fix) -> Problem {
    (Severity::Warning, why.into(), fix)
}

/// A note: nothing to do.
pub(super) fn note(why: impl Into<String>) -> Problem {
    (Severity::Note, why.into(), Fix::None)
}

/// All findings.
pub(super) struct Rows(pub(super) Vec<Row>);

impl Rows {
    /// One finding that is fine where there is no problem.
    pub(super) fn add(
        &mut self,
        check: impl Into<String>,
        found: impl Into<String>,
        wanted: impl Into<String>,
        problem: Option<Problem>,
    ) {
        let (check, found, wanted) = (check.into(), found.into(), wanted.into());
        let (severity, why, fix) = problem.unwrap_or((Severity::Ok, String::new(), Fix::None));
        self.0.push(Row { check, found, wanted, severity, why, fix });
    }

    /// A finding about a fact: `see` gives what was found and the problem. What could not be read is unknown, never fine;
    /// `absent` says what it means that there is no such thing, and none that it means nothing worth a row.
    pub(super) fn fact<T>(
        &mut self,
        check: &str,
        fact: &Fact<T>,
        wanted: &str,
        absent: Option<&str>,
        see: impl FnOnce(&T) -> (String, Option<Problem>),
    ) {
        match fact {
            Fact::Known(value) => {
                let (found, problem) = see(value);
                self.add(check, found, wanted, problem);
            }
            Fact::Absent => {
                if let Some(meaning) = absent {
                    self.add(check, meaning, wanted, None);
                }
            }
            Fact::Unread(why) => self.unknown(check, why, wanted),
        }
    }

    /// What could not be found out.
    pub(super) fn unknown(&mut self, check: &str, why: &str, wanted: &str) {
        let reason = "it could not be read, so nothing is said of it";
        // A file that root could not read either is not read by root.
        let fix = if why.contains("ermission denied") {
            command("sudo dkv doctor")
        } else {
            advice("look at it by hand on the host")
        };
        let problem = (Severity::Unknown, reason.to_owned(), fix);
        self.add(check, why, wanted, Some(problem));
    }
}
