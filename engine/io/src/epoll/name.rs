//! What the kernel gives back with an event: which connection, in which use of its place, or which listening socket.

use crate::{Conn, ListenerId};

/// Whom an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Conn(Conn),
    Listener(ListenerId),
    /// The eventfd.
    Wake,
}

const LISTENER: u32 = 1 << 31;
const WAKE: u64 = u64::MAX;

/// Most places a reactor can have.
pub(super) const PLACES_MAX: usize = 1 << 28;

impl Name {
    pub(super) fn write(self) -> u64 {
        match self {
            Self::Conn(conn) => {
                debug_assert!((conn.index as usize) < PLACES_MAX);
                u64::from(conn.generation) << 32 | u64::from(conn.index)
            }
            Self::Listener(id) => u64::from(LISTENER | id.0),
            Self::Wake => WAKE,
        }
    }

    pub(super) fn read(name: u64) -> Self {
        let low = name as u32;
        if name == WAKE {
            Self::Wake
        } else if low & LISTENER != 0 {
            Self::Listener(ListenerId(low & !LISTENER))
        } else {
            Self::Conn(Conn { index: low, generation: (name >> 32) as u32 })
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_given() {
        let mut names = vec![Name::Wake];
        for index in [0, 1, 77_777, PLACES_MAX as u32 - 1] {
            names.push(Name::Listener(ListenerId(index)));
            for generation in [0, 1, u32::MAX] {
                names.push(Name::Conn(Conn { index, generation }));
            }
        }
        for name in names {
            assert_eq!(Name::read(name.write()), name);
        }
    }
}
