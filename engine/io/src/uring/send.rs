//! What a connection has under way to its peer: one buffer, and pieces that others own and that go out between its bytes.
//!
//! A buffer alone leaves with a plain send. With inserts the kernel is given a list of where the bytes lie, so that a
//! value of megabytes is never copied into a buffer first. The list counts as much as the bytes: it stays where it is, in
//! a box of its own, until the operation's final completion.

use std::mem::ManuallyDrop;

use bytes::Bytes;

use crate::send::Cursor;

/// Most pieces of one operation, the kernel's own bound (`UIO_MAXIOV`). What is more follows in the next operation.
const PIECES_MAX: usize = 1024;
/// Lists that a reactor keeps for the next sends with inserts; those of more pieces than the second number are not kept.
pub(super) const SPARE_MAX: usize = 64;
const KEPT_PIECES_MAX: usize = 64;

/// A buffer under way, with what is inserted: the kernel may read all of it.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) buffer: Vec<u8>,
    /// Bytes of the buffer that are out; counts only without a list.
    pub(super) done: usize,
    /// Ascending offsets into the buffer, and what goes out before the byte there.
    pub(super) inserts: Vec<(usize, Bytes)>,
    /// Where the bytes of the operation under way lie. There is one exactly if there are inserts.
    pub(super) gather: Option<Box<Gather>>,
}

impl Sending {
    /// Counts what an operation has sent; whether that was the last of it.
    pub(super) fn sent(&mut self, count: usize) -> bool {
        match &mut self.gather {
            None => {
                self.done += count;
                self.done == self.buffer.len()
            }
            Some(gather) => gather.cursor.advance(&self.buffer, &self.inserts, count),
        }
    }

    /// Keeps for good what the kernel would not let go of.
    pub(super) fn leak(self) {
        let _ = ManuallyDrop::new(self);
    }
}

/// The list of one `sendmsg`, and how far the message is.
pub(super) struct Gather {
    header: libc::msghdr,
    iovecs: Vec<libc::iovec>,
    cursor: Cursor,
}

impl Gather {
    pub(super) fn new() -> Self {
        // SAFETY: a msghdr is numbers and pointers, for all of which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        Self { header, iovecs: Vec::new(), cursor: Cursor::default() }
    }

    /// Lists the rest of the message, at most `bytes_max` bytes of it, for the next operation.
    ///
    /// What it returns points into this box, whose list points into the buffer and the inserts: none of the three may be
    /// touched until the operation is done, but all may be moved, because moving them does not move their bytes.
    pub(super) fn list(
        &mut self,
        buffer: &[u8],
        inserts: &[(usize, Bytes)],
        bytes_max: usize,
    ) -> *const libc::msghdr {
        self.iovecs.clear();
        self.iovecs.extend(self.cursor.rest(buffer, inserts, bytes_max).take(PIECES_MAX).map(
            // The kernel only reads, whatever the type says.
            |piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            },
        ));
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len() as _;
        &raw const self.header
    }

    /// Makes it fit for another message; `None`: it is too large to be kept.
    pub(super) fn cleared(mut self: Box<Self>) -> Option<Box<Self>> {
        self.iovecs.clear();
        self.cursor = Cursor::default();
        (self.iovecs.capacity() <= KEPT_PIECES_MAX).then_some(self)
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather")
            .field("pieces", &self.iovecs.len())
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What a kernel that takes `takes` bytes of each operation would have sent.
    fn sent(buffer: &[u8], inserts: &[(usize, Bytes)], most: usize, takes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut gather = Gather::new();
        for _ in 0..10_000 {
            gather.list(buffer, inserts, most);
            assert!(gather.iovecs.len() <= PIECES_MAX && !gather.iovecs.is_empty());
            let mut room = takes;
            for iovec in &gather.iovecs {
                let length = iovec.iov_len.min(room);
                room -= length;
                // SAFETY: the list points into `buffer` and `inserts`, which are borrowed over the call.
                let bytes =
                    unsafe { std::slice::from_raw_parts(iovec.iov_base.cast::<u8>(), length) };
                out.extend_from_slice(bytes);
            }
            let listed: usize = gather.iovecs.iter().map(|iovec| iovec.iov_len).sum();
            assert!(listed <= most);
            if gather.cursor.advance(buffer, inserts, listed.min(takes)) {
                return out;
            }
        }
        panic!("no end");
    }

    #[test]
    fn inserts_go_out_before_the_byte_at_their_offset_however_short_the_sends_are() {
        let buffer = b"0123456789";
        let inserts = [
            (0, Bytes::from_static(b"a")),
            (4, Bytes::from_static(b"bcd")),
            (4, Bytes::new()),
            (4, Bytes::from_static(b"e")),
            (10, Bytes::from_static(b"fg")),
        ];
        assert_eq!(crate::send::check(buffer, &inserts), 17);
        for most in [1, 2, 3, 7, 100] {
            for takes in [1, 2, 5, 100] {
                assert_eq!(sent(buffer, &inserts, most, takes), b"a0123bcde456789fg");
            }
        }
        assert_eq!(sent(b"", &[(0, Bytes::from_static(b"alone"))], 100, 2), b"alone");
    }

    #[test]
    fn more_pieces_than_the_kernel_takes_go_in_several_operations() {
        let buffer = vec![b'.'; 3000];
        let inserts: Vec<_> = (0..3000).map(|at| (at, Bytes::from_static(b"x"))).collect();
        assert_eq!(sent(&buffer, &inserts, 1 << 30, 1 << 30), b"x.".repeat(3000));
    }
}
