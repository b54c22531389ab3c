//! What the driver of a shard and the shard say to each other besides bytes.

use crate::command::Inserts;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// A connection as the shard knows it. The generation keeps a late call for a connection that is gone from meeting its
/// successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl SessionId {
    /// A small number, unique among the open connections of this shard: fit to index a driver's own list.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Which kind of port a connection came in on: PRODUCT.md section 5, "two kinds of port, two meanings".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// The client port: the whole store.
    Client,
    /// The port of this shard: the shard alone, as in Redis Cluster.
    Shard,
}

/// A new connection.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Where it came in.
    pub port: PortKind,
    /// The client's end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// CLIENT ID: unique in the node, growing.
    pub id: u64,
}

/// Bytes for a client, and what goes out between them: each insert before the byte at its position, which ascend.
#[derive(Debug, Default)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The inserts.
    pub inserts: Inserts,
}

/// What the driver is asked to do with a connection. Orders for connections that are gone must be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// There is output: call `take_output` as soon as no send is under way.
    Flush(SessionId),
    /// Close once all output is sent (the driver bounds how long it waits for that); what still comes in is ignored.
    Close(SessionId),
    /// Close at once, unsent output is dropped: the reader was too slow.
    Cut(SessionId),
    /// Stop reading from it. What had been received already may still be given to `input`.
    Pause(SessionId),
    /// Read from it again.
    Resume(SessionId),
    /// So many more bytes of one argument are to come: a hint, for a driver that has larger buffers for them.
    Expect(SessionId, usize),
}
