//! What a result of a receive means. Pure, because most of these cases are too rare to be provoked.

use io_uring::cqueue;

/// What to make of a receive's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Bytes. Receive on.
    Bytes,
    /// The peer sends no more.
    End,
    /// Nothing was read though the socket says that there is something. True at the end of a stream as well (the kernel
    /// counts the end as readable), so look at the socket.
    Unclear,
    /// The buffers ran out: again when some were given back.
    NoBuffers,
    /// Ended by a cancellation, or by something that passes by itself. Again, if it is still wanted.
    Again,
    /// The connection broke, with this errno.
    Failed(i32),
}

/// Judges a receive.
pub(super) fn receive(result: i32, flags: u32) -> Received {
    match result {
        1.. => Received::Bytes,
        0 if cqueue::sock_nonempty(flags) => Received::Unclear,
        0 => Received::End,
        _ => match -result {
            libc::ENOBUFS => Received::NoBuffers,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => Received::Again,
            errno => Received::Failed(errno),
        },
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NONEMPTY: u32 = 1 << 2;

    #[test]
    fn nothing_read_from_a_nonempty_socket_is_not_taken_for_the_end() {
        assert_eq!(receive(0, NONEMPTY), Received::Unclear);
        assert_eq!(receive(0, 0), Received::End);
    }

    #[test]
    fn receive_results_are_told_apart() {
        let cases = [
            (4096, Received::Bytes),
            (1, Received::Bytes),
            (-libc::ENOBUFS, Received::NoBuffers),
            (-libc::ECANCELED, Received::Again),
            (-libc::EINTR, Received::Again),
            (-libc::EAGAIN, Received::Again),
            (-libc::ECONNRESET, Received::Failed(libc::ECONNRESET)),
            (-libc::ETIMEDOUT, Received::Failed(libc::ETIMEDOUT)),
        ];
        for (result, wanted) in cases {
            assert_eq!(receive(result, 0), wanted, "{result}");
        }
    }
}
