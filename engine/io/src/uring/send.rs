//! What a connection has under way to its peer: one buffer, and pieces that others own and that go out between its bytes.
//!
//! A buffer alone leaves with a plain send. With inserts the kernel is given a list of where the bytes lie, so that a
//! value of megabytes is never copied into a buffer first. The list counts as much as the bytes: it stays where it is, in
//! a box of its own, until the operation's final completion.

use std::mem::ManuallyDrop;

use bytes::Bytes;

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
            Some(gather) => gather.advance(&self.buffer, &self.inserts, count),
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
    /// The first piece that is not out: the buffer up to the first insert is 0, that insert is 1, and so on.
    piece: usize,
    /// Bytes of that piece which are out.
    within: usize,
}

impl Gather {
    pub(super) fn new() -> Self {
        // SAFETY: a msghdr is numbers and pointers, for all of which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        Self { header, iovecs: Vec::new(), piece: 0, within: 0 }
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
        let mut room = bytes_max;
        let mut within = self.within;
        for number in self.piece..=2 * inserts.len() {
            if room == 0 || self.iovecs.len() == PIECES_MAX {
                break;
            }
            let rest = &piece(buffer, inserts, number)[within..];
            within = 0;
            let length = rest.len().min(room);
            if length > 0 {
                room -= length;
                // The kernel only reads, whatever the type says.
                let start = rest.as_ptr().cast_mut().cast();
                self.iovecs.push(libc::iovec { iov_base: start, iov_len: length });
            }
        }
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len() as _;
        &raw const self.header
    }

    fn advance(&mut self, buffer: &[u8], inserts: &[(usize, Bytes)], mut count: usize) -> bool {
        loop {
            let rest = piece(buffer, inserts, self.piece).len() - self.within;
            if count < rest {
                self.within += count;
                return false;
            }
            count -= rest;
            self.within = 0;
            if self.piece == 2 * inserts.len() {
                debug_assert_eq!(count, 0, "more was sent than there is");
                return true;
            }
            self.piece += 1;
        }
    }

    /// Makes it fit for another message; `None`: it is too large to be kept.
    pub(super) fn cleared(mut self: Box<Self>) -> Option<Box<Self>> {
        self.iovecs.clear();
        (self.piece, self.within) = (0, 0);
        (self.iovecs.capacity() <= KEPT_PIECES_MAX).then_some(self)
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather")
            .field("pieces", &self.iovecs.len())
            .field("piece", &self.piece)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// Even numbers are the buffer's parts, odd ones the inserts between them.
fn piece<'a>(buffer: &'a [u8], inserts: &'a [(usize, Bytes)], number: usize) -> &'a [u8] {
    let insert = number / 2;
    if number % 2 == 1 {
        return &inserts[insert].1;
    }
    let start = if insert == 0 { 0 } else { inserts[insert - 1].0 };
    let end = inserts.get(insert).map_or(buffer.len(), |(offset, _)| *offset);
    &buffer[start..end]
}

/// Bytes of the whole message.
///
/// # Panics
/// If an offset is smaller than the one before it or beyond the buffer's end.
pub(super) fn check(buffer: &[u8], inserts: &[(usize, Bytes)]) -> usize {
    let mut before = 0;
    let mut bytes = buffer.len();
    for (offset, insert) in inserts {
        assert!(
            (before..=buffer.len()).contains(offset),
            "an insert at {offset} after one at {before} in {} bytes",
            buffer.len()
        );
        before = *offset;
        bytes += insert.len();
    }
    bytes
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
            if gather.advance(buffer, inserts, listed.min(takes)) {
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
        assert_eq!(check(buffer, &inserts), 17);
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

    #[test]
    #[should_panic(expected = "an insert at 3 after one at 4")]
    fn offsets_that_go_back_are_refused() {
        check(b"01234", &[(4, Bytes::new()), (3, Bytes::new())]);
    }
}
