//! A message to a peer: a buffer, and pieces that others own and that go out between its bytes. What is said here is which
//! bytes come next, whichever way they are handed to the kernel.

use bytes::Bytes;

/// How far a message is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// The first piece that is not out: the buffer up to the first insert is 0, that insert is 1, and so on.
    piece: usize,
    /// Bytes of that piece which are out.
    within: usize,
}

impl Cursor {
    /// What is not out, in order, at most `bytes_max` bytes of it and no empty pieces.
    pub(crate) fn rest<'a>(
        &self,
        buffer: &'a [u8],
        inserts: &'a [(usize, Bytes)],
        bytes_max: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (first, mut within, mut room) = (self.piece, self.within, bytes_max);
        (first..=2 * inserts.len())
            .map_while(move |number| {
                if room == 0 {
                    return None;
                }
                let rest = &piece(buffer, inserts, number)[within..];
                within = 0;
                let length = rest.len().min(room);
                room -= length;
                Some(&rest[..length])
            })
            .filter(|piece| !piece.is_empty())
    }

    /// Counts what was sent; whether that was the last of it.
    pub(crate) fn advance(
        &mut self,
        buffer: &[u8],
        inserts: &[(usize, Bytes)],
        mut count: usize,
    ) -> bool {
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
pub(crate) fn check(buffer: &[u8], inserts: &[(usize, Bytes)]) -> usize {
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

    #[test]
    #[should_panic(expected = "an insert at 3 after one at 4")]
    fn offsets_that_go_back_are_refused() {
        check(b"01234", &[(4, Bytes::new()), (3, Bytes::new())]);
    }
}
