//! One shard: sessions, routes and table behind the few calls that its driver makes.

use crate::BatchError;
use crate::command::{Env, Now};
use crate::face::{Opened, Order, SessionId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use dkv_protocol::ids::ShardAddr;
use dkv_table::Table;

/// See the crate. A driver calls, in each turn: `open`, `input`, `ended`, `requests` and `replies` for what came in, then
/// `next_batch` until there is none, then `orders` and `take_output`, then `background` for a slice.
#[derive(Debug)]
pub struct Shard {
    env: Arc<Env>,
    me: ShardAddr,
    table: Table,
    orders: Vec<Order>,
}

impl Shard {
    /// A shard without connections. `table` holds its ranges; links to shards of other nodes start down, own node's
    /// shards are always up.
    pub fn new(env: Arc<Env>, me: ShardAddr, table: Table) -> Self {
        Self { env, me, table, orders: Vec::new() }
    }

    /// A connection has been accepted. `Err` holds what to send before it is closed (protected mode, too many clients).
    pub fn open(&mut self, now: Now, opened: Opened) -> Result<SessionId, Vec<u8>> {
        let _ = (now, opened, &self.env, self.me, &self.table);
        Ok(SessionId { index: 0, generation: 0 })
    }

    /// Bytes of a client. All of them are taken: what cannot be executed yet is kept by the session.
    pub fn input(&mut self, now: Now, id: SessionId, bytes: &[u8]) {
        let _ = (now, id, bytes);
    }

    /// The connection is gone, whoever closed it: forget it. Replies under way for it are dropped when they come.
    pub fn ended(&mut self, id: SessionId) {
        let _ = id;
    }

    /// The bytes to send to a client now. Call it when ordered to flush and no send is under way, and whenever a send
    /// has ended, with that send's buffer as `spare`; none: nothing to send.
    pub fn take_output(&mut self, id: SessionId, spare: Vec<u8>) -> Option<Vec<u8>> {
        let _ = (id, spare);
        None
    }

    /// What the driver shall do with connections; it empties the list in each turn.
    pub fn orders(&mut self) -> &mut Vec<Order> {
        &mut self.orders
    }

    /// Executes a batch of another shard and appends the replies, in the order of the requests, to `replies`: one reply
    /// batch, which may be cut between two replies when it has to go in several frames.
    pub fn requests(
        &mut self,
        now: Now,
        from: ShardAddr,
        batch: &[u8],
        replies: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let _ = (now, from, batch, replies);
        Ok(())
    }

    /// Replies of another shard to a batch from here. An error means that the other side does not keep to the protocol:
    /// drop that link and call `link_down`.
    pub fn replies(&mut self, now: Now, from: ShardAddr, batch: &[u8]) -> Result<(), BatchError> {
        let _ = (now, from, batch);
        Ok(())
    }

    /// The next batch of requests that may be sent now. Call it until there is none, at the end of a turn.
    pub fn next_batch(&mut self) -> Option<(ShardAddr, Vec<u8>)> {
        None
    }

    /// Gives back the buffer of a batch that has been sent or read.
    pub fn give_batch_buffer(&mut self, buffer: Vec<u8>) {
        let _ = buffer;
    }

    /// The link to a shard of another node stands; nothing sent over an earlier one will be answered.
    pub fn link_up(&mut self, to: ShardAddr) {
        let _ = to;
    }

    /// The link to a shard of another node is lost. What waits for it is answered at once: definite errors for what was
    /// not sent and for reads, `-UNCERTAIN` for writes that had been sent.
    pub fn link_down(&mut self, to: ShardAddr) {
        let _ = to;
    }

    /// `commands` client commands were answered `ns` after the completion that brought them.
    pub fn note_latency(&mut self, commands: u64, ns: u64) {
        let _ = (commands, ns);
    }

    /// Client commands executed or forwarded since the shard began; the driver takes the difference over an `input` for
    /// [`Self::note_latency`].
    pub fn commands(&self) -> u64 {
        0
    }

    /// A slice of background work: expiry (at most `budget` buckets looked at), gauges, deadlines. Whether more is due.
    /// To be called at least every 100 ms.
    pub fn background(&mut self, now: Now, budget: u32) -> bool {
        let _ = (now, budget);
        false
    }
}
