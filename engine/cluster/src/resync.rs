//! A resync in full, at the primary: the walk through a range in slices, beside the log that streams (R13).
//!
//! The slices must come in order, and a log effect that is younger than a slice must not be applied before that slice: so
//! a learner is told to apply only up to the end of the log as it was when the oldest slice that it lacks was walked.

use crate::{Effect, Settings, Store};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::ids::{Epoch, RangeId};
use dkv_protocol::peer::{Message, Part, Records, SliceHead, write_record};

/// Slices that wait for their acknowledgement; beyond it the walk pauses. A record in parts may exceed it.
const SLICES_MAX: usize = 8;

#[derive(Debug)]
enum Content {
    Records(Vec<u8>),
    Part { version: u64, head_bytes: u32, total_bytes: u64, offset: u64, bytes: Bytes },
}

#[derive(Debug)]
struct Slice {
    end_index: u64,
    last: bool,
    content: Content,
}

impl Slice {
    fn bytes(&self) -> u64 {
        match &self.content {
            Content::Records(bytes) => bytes.len() as u64,
            Content::Part { bytes, .. } => bytes.len() as u64,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Resync {
    pub(crate) session: u64,
    /// The log streams from after this entry.
    pub(crate) base_index: u64,
    pub(crate) base_epoch: Epoch,
    /// The learner has said that it began.
    pub(crate) started: bool,
    /// When the start was sent last.
    pub(crate) start_sent_ns: Option<u64>,
    /// When it last got on, and when it last began anew to send what waits.
    pub(crate) progress_ns: u64,
    pub(crate) rewound_ns: u64,
    /// Where the walk goes on; none at its end.
    cursor: Option<u64>,
    /// Walked and not acknowledged; the first has the number `first`.
    queue: VecDeque<Slice>,
    first: u32,
    /// How many of the queue were sent.
    sent: usize,
    sent_bytes: u64,
}

impl Resync {
    pub(crate) const fn new(session: u64, base_index: u64, base_epoch: Epoch, now_ns: u64) -> Self {
        Self {
            session,
            base_index,
            base_epoch,
            started: false,
            start_sent_ns: None,
            progress_ns: now_ns,
            rewound_ns: now_ns,
            cursor: Some(0),
            queue: VecDeque::new(),
            first: 0,
            sent: 0,
            sent_bytes: 0,
        }
    }

    pub(crate) const fn under_way(&self) -> u64 {
        self.sent_bytes
    }

    pub(crate) fn may_apply(&self, commit: u64) -> u64 {
        self.queue.front().map_or(commit, |slice| commit.min(slice.end_index))
    }

    pub(crate) fn wants_walk(&self) -> bool {
        self.started && self.cursor.is_some() && self.queue.len() < SLICES_MAX
    }

    /// Whether slices were walked that wait to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.queue.len()
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        !self.started || self.sent > 0
    }

    pub(crate) fn is_done(&self) -> bool {
        self.cursor.is_none() && self.queue.is_empty()
    }

    /// Everything that was not acknowledged is sent again.
    pub(crate) const fn rewind(&mut self, now_ns: u64) {
        self.sent = 0;
        self.sent_bytes = 0;
        self.start_sent_ns = None;
        self.rewound_ns = now_ns;
    }

    /// The learner waits for this slice; whether that is news.
    pub(crate) fn acknowledged(&mut self, next: u32, now_ns: u64) -> bool {
        let count = next.wrapping_sub(self.first) as usize;
        if count == 0 || next < self.first || count > self.queue.len() {
            return false;
        }
        for slice in self.queue.drain(..count) {
            if self.sent > 0 {
                self.sent -= 1;
                self.sent_bytes -= slice.bytes();
            }
        }
        self.first = next;
        self.progress_ns = now_ns;
        true
    }

    /// Walks a little. `end_index`: the last entry of the log.
    pub(crate) fn walk(
        &mut self,
        range: RangeId,
        end_index: u64,
        settings: &Settings,
        store: &mut dyn Store,
    ) {
        let Some(cursor) = self.cursor else { return };
        let slice_bytes = settings.slice_bytes;
        // The last record may exceed it; no other makes the buffer grow.
        let mut records = Vec::with_capacity(slice_bytes + slice_bytes / 8);
        let queue = &mut self.queue;
        self.cursor =
            store.walk(range, cursor, slice_bytes, &mut |version, record| match record.body {
                None => write_record(&mut records, version, record.head),
                Some(body) => queue_parts(queue, version, record, body, slice_bytes, end_index),
            });
        let last = self.cursor.is_none();
        if last || !records.is_empty() {
            let content = Content::Records(records);
            self.queue.push_back(Slice { end_index, last, content });
        }
    }

    /// Writes the slice that comes next, if there is one.
    pub(crate) fn send(&mut self, range: RangeId, epoch: Epoch, out: &mut Vec<u8>) -> bool {
        let Some(slice) = self.queue.get(self.sent) else { return false };
        let head = SliceHead {
            range,
            epoch,
            session: self.session,
            number: self.first.wrapping_add(self.sent as u32),
            last: slice.last,
            end_index: slice.end_index,
        };
        match &slice.content {
            Content::Records(bytes) => {
                Message::Slice { slice: head, records: Records::new(bytes) }.write(out);
            }
            Content::Part { version, head_bytes, total_bytes, offset, bytes } => {
                let part = Part {
                    head_bytes: *head_bytes,
                    total_bytes: *total_bytes,
                    offset: *offset,
                    bytes,
                };
                Message::SlicePart { slice: head, version: *version, part }.write(out);
            }
        }
        self.sent += 1;
        self.sent_bytes += slice.bytes();
        true
    }
}

/// The pieces of a great record: of its head, then of its body by handle.
fn queue_parts(
    queue: &mut VecDeque<Slice>,
    version: u64,
    record: Effect<'_>,
    body: &Bytes,
    slice_bytes: usize,
    end_index: u64,
) {
    let head = Bytes::copy_from_slice(record.head);
    let total_bytes = (head.len() + body.len()) as u64;
    let mut offset = 0;
    for whole in [&head, body] {
        let mut at = 0;
        while at < whole.len() {
            let bytes = whole.slice(at..whole.len().min(at + slice_bytes));
            at += bytes.len();
            let content = Content::Part {
                version,
                head_bytes: head.len() as u32,
                total_bytes,
                offset,
                bytes: bytes.clone(),
            };
            offset += bytes.len() as u64;
            queue.push_back(Slice { end_index, last: false, content });
        }
    }
}
