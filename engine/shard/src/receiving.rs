//! Bytes of a connection that cannot be executed yet: an unfinished request in its buffer, and a large argument in memory of
//! its own, from where the table can keep it.

use crate::face::Order;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use dkv_protocol::limits::{KEY_BYTES_MAX, OUTPUT_BYTES_MAX};
use dkv_table::{LARGE_BYTES_MIN, Large};

/// The least that is added to an unfinished request before it is parsed again, in bytes.
pub(crate) const PIECE_BYTES: usize = 512;

impl Shard {
    /// Begins to receive the argument that an unfinished request waits for into memory of its own, when it is a large
    /// one: from there the table can keep it without a copy.
    pub(crate) fn begin_large(&mut self, session: &mut Session) {
        if session.stall != Stall::None || session.end != End::No {
            return;
        }
        let Some((at, len)) = session.parser.pending().filter(|p| p.1 > LARGE_BYTES_MIN) else {
            return;
        };
        let here = session.input.len().min(at + len);
        match self.table.block(len) {
            Ok(mut block) => {
                block.extend(&session.input[at..here]);
                session.filling = Some(block);
            }
            // It may be a key, and what reads or removes one needs no memory. A write will be refused by the table.
            Err(_) if len <= KEY_BYTES_MAX => return,
            // What there is no memory for is not kept anywhere: its command will be refused.
            Err(_) => session.dropping = at + len - here,
        }
        self.orders.push(Order::Expect(session.id, at + len - here));
        session.input.drain(at..here);
        session.input.shrink_to(PIECE_BYTES);
        session.parser.take_out();
        session.need = 0;
        if session.filling.is_some() {
            end_large(session);
        } else {
            end_dropped(session);
        }
    }
}

/// Ends the receiving of a large argument when all of it has come.
pub(crate) fn end_large(session: &mut Session) {
    if let Some(block) = session.filling.take_if(|block| block.len() == block.capacity()) {
        session.large.push(block.freeze());
    }
}

/// The same for one that was dropped: an empty one stands for it, which none of the others is.
pub(crate) fn end_dropped(session: &mut Session) {
    if session.dropping == 0 {
        session.large.push(Large::default());
    }
}

/// Adds received bytes to what a connection has not executed. Room grows with what has come, never with what was
/// announced; but the last doubling goes no further than the announced length.
pub(crate) fn keep(session: &mut Session, bytes: &[u8]) {
    let len = session.input.len() + bytes.len();
    let room = session.input.capacity();
    if len > room && len > OUTPUT_BYTES_MAX / 64 && (len..2 * room).contains(&session.need) {
        session.input.reserve_exact(session.need - session.input.len());
    }
    session.input.extend_from_slice(bytes);
}
