//! The 64 bits that come back with every completion: what kind of operation, on which place, in which use of it.

use crate::Conn;

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 1,
    Send = 2,
    Accept = 3,
    /// Poll of the eventfd.
    Poll = 4,
    /// Cancellation of a receive.
    CancelReceive = 5,
    /// Any other cancellation, whose result says nothing.
    Cancel = 6,
    /// A wake that came in from another ring.
    Woken = 7,
    /// A wake that was sent to another ring; completes here only when it failed.
    Wake = 8,
    /// A receive through the greater buffers.
    ReceiveGreat = 9,
}

const INDEX_BITS: u32 = 28;
const KIND_SHIFT: u32 = 60;

/// Most places a reactor can have: what fits beside a whole generation.
pub(super) const PLACES_MAX: usize = 1 << INDEX_BITS;

/// The name of an operation on a connection.
pub(super) fn of(kind: Kind, conn: Conn) -> u64 {
    debug_assert!((conn.index as usize) < PLACES_MAX);
    (kind as u64) << KIND_SHIFT | u64::from(conn.generation) << INDEX_BITS | u64::from(conn.index)
}

/// The name of an operation that is not on a connection.
pub(super) fn plain(kind: Kind, index: u32) -> u64 {
    of(kind, Conn { index, generation: 0 })
}

/// Reads a name. `None`: no operation of ours has it.
pub(super) fn read(name: u64) -> Option<(Kind, Conn)> {
    let kind = match name >> KIND_SHIFT {
        1 => Kind::Receive,
        2 => Kind::Send,
        3 => Kind::Accept,
        4 => Kind::Poll,
        5 => Kind::CancelReceive,
        6 => Kind::Cancel,
        7 => Kind::Woken,
        8 => Kind::Wake,
        9 => Kind::ReceiveGreat,
        _ => return None,
    };
    let index = (name & (PLACES_MAX as u64 - 1)) as u32;
    Some((kind, Conn { index, generation: (name >> INDEX_BITS) as u32 }))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_given() {
        let kinds = [
            Kind::Receive,
            Kind::Send,
            Kind::Accept,
            Kind::Poll,
            Kind::CancelReceive,
            Kind::Cancel,
            Kind::Woken,
            Kind::Wake,
            Kind::ReceiveGreat,
        ];
        for kind in kinds {
            for index in [0, 1, 77_777, PLACES_MAX as u32 - 1] {
                for generation in [0, 1, u32::MAX] {
                    let conn = Conn { index, generation };
                    assert_eq!(read(of(kind, conn)), Some((kind, conn)));
                }
            }
        }
        assert_eq!(read(0), None);
        assert_eq!(read(u64::MAX), None);
    }
}
