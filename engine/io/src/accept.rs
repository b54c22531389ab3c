//! What an error of an accept means, whichever way it was asked for. Pure, because most of these are too rare to be provoked.

/// How long accepting pauses after an error that would come again at once (no descriptors, no memory).
pub(crate) const PAUSE_NS: u64 = 100_000_000;

/// What to make of an accept's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// That one peer is gone, or nothing happened at all: accept on.
    Again,
    /// It will fail again right now (no descriptors, no memory): accept on after a pause.
    Pause,
}

/// Judges an accept's errno.
pub(crate) fn judge(errno: i32) -> AcceptError {
    match errno {
        // Linux hands over pending network errors of the new connection (accept(2)).
        libc::ECANCELED
        | libc::EINTR
        | libc::EAGAIN
        | libc::ECONNABORTED
        | libc::EPROTO
        | libc::ENETDOWN
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::ETIMEDOUT => AcceptError::Again,
        _ => AcceptError::Pause,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_accept_error_that_stays_makes_a_pause_and_one_that_passes_does_not() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM] {
            assert_eq!(judge(errno), AcceptError::Pause);
        }
        for errno in [libc::ECONNABORTED, libc::EINTR, libc::EHOSTUNREACH] {
            assert_eq!(judge(errno), AcceptError::Again);
        }
    }
}
