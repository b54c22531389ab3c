//! The connections of one thread, and the nodes that they lead to.

use dkv_io::Conn;
use std::collections::VecDeque;

/// A request that is due or under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When it should have been sent.
    pub(super) intended_ns: u64,
    /// When it was.
    pub(super) sent_ns: u64,
    pub(super) key: u64,
    pub(super) write: bool,
    /// How often it was sent on.
    pub(super) redirected: u8,
    /// It was sent on by ASK: ASKING goes before it.
    pub(super) asking: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: Conn,
    pub(super) group: usize,
    /// While the kernel does not have it.
    pub(super) buffer: Option<Vec<u8>>,
    /// What is to be answered, in order; never more than the pipeline.
    pub(super) asked: VecDeque<Asked>,
    /// The beginning of a reply that is cut; of a string only its header is ever kept.
    pub(super) partial: Vec<u8>,
    /// Bytes of a long string that are still to come.
    pub(super) to_skip: usize,
    /// Whether it stands among those that are ready.
    pub(super) queued: bool,
    pub(super) free_since_ns: u64,
}

impl Session {
    pub(super) fn new(conn: Conn, group: usize) -> Self {
        Self {
            conn,
            group,
            buffer: Some(Vec::new()),
            asked: VecDeque::new(),
            partial: Vec::new(),
            to_skip: 0,
            queued: false,
            free_since_ns: 0,
        }
    }
}

/// A node, or a shard of one.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) endpoint: String,
    /// Requests that wait for a connection.
    pub(super) waiting: VecDeque<Asked>,
    /// Connections that may be sent on.
    pub(super) ready: VecDeque<usize>,
    pub(super) alive: usize,
    /// Connections that are being made.
    pub(super) wanted: usize,
}

impl Group {
    pub(super) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            alive: 0,
            wanted: 0,
        }
    }
}
