//! Why the manager says no: one shape for every failure of the API, made where the reason is known.

use dkv_protocol::admin::{ErrorBody, ErrorDocument};

/// A refusal: what failed and why, and what to type next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// A word for programs.
    pub(crate) code: &'static str,
    /// What and why.
    pub(crate) message: String,
    /// What to type next.
    pub(crate) hint: String,
}

impl Refusal {
    /// A mistake in the request itself.
    pub(crate) fn bad(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::of(400, code, message, hint)
    }

    /// Something that is not there.
    pub(crate) fn absent(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::of(404, code, message, hint)
    }

    /// A request that is fine, against what is there.
    pub(crate) fn conflict(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::of(409, code, message, hint)
    }

    /// Any other.
    pub(crate) fn of(
        status: u16,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, code, message: message.into(), hint: hint.into() }
    }

    /// As the API answers it.
    pub(crate) fn document(&self) -> ErrorDocument {
        let error = ErrorBody {
            code: self.code.to_string(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        };
        ErrorDocument { error }
    }
}
