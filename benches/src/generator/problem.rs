//! Why a load could not be made, in words that end with what to do.

use std::fmt;
use std::time::Duration;

/// Which kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// What was asked for makes no sense.
    Usage,
    /// Nobody answers, or nobody does any more.
    Unreachable,
    /// Somebody answers, and something else than was wanted; or this machine refuses.
    Failed,
}

/// A load that was not made, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub kind: ProblemKind,
    /// What and why, without a full stop.
    pub what: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl Problem {
    fn new(kind: ProblemKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: hint.into() }
    }

    /// The load makes no sense.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ProblemKind::Usage, what, hint)
    }

    pub(crate) fn failed(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ProblemKind::Failed, what, hint)
    }

    pub(super) fn unreachable(endpoint: &str, why: &str) -> Self {
        let hint =
            "is it running, and is that its client port? dkv store list shows those of stores";
        Self::new(ProblemKind::Unreachable, format!("cannot ask {endpoint}: {why}"), hint)
    }

    pub(super) fn other_product(endpoint: &str, what: &str) -> Self {
        let hint = "name the client port of a Redis-compatible server: --target 127.0.0.1:6379";
        let what = format!("{endpoint} is no Redis-compatible server: {what}");
        Self::new(ProblemKind::Failed, what, hint)
    }

    pub(super) fn gone(endpoints: &str, after_s: f64, patience: Duration) -> Self {
        let what = format!(
            "{endpoints} went away {after_s:.1} s after measuring began and did not come back for {:.0} s",
            patience.as_secs_f64()
        );
        Self::new(
            ProblemKind::Unreachable,
            what,
            "start it again, or wait longer: --timeout-sec 60",
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}
