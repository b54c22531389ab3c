//! The log of one range: entries in the bytes in which they are sent, in chunks, oldest first.
//!
//! It stands apart because everything else counts on its arithmetic: indexes are contiguous, a chunk is of one epoch, a
//! great effect is a chunk of its own that is kept by handle. It knows nothing of what is committed or who needs what; its
//! owner trims and truncates. Bytes of all logs of a shard are counted in one [`Account`].

use crate::Effect;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::ids::Epoch;
use dkv_protocol::peer::ENTRY_HEAD_BYTES;

/// Bytes after which a chunk takes no more entries.
const CHUNK_BYTES: usize = 32 * 1024;
/// What an entry costs besides its bytes.
const ENTRY_COST_BYTES: usize = 4;

/// Bytes of all logs of a shard.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) bytes: usize,
    /// A chunk was begun since somebody looked: time to trim.
    pub(crate) grown: bool,
    /// Buffers of chunks that were trimmed, for logs that fill one after the other.
    spare: Vec<(Vec<u8>, Vec<u32>)>,
}

/// Buffers that are kept.
const SPARE_MAX: usize = 32;

impl Account {
    fn take_back(&mut self, content: Content) {
        if let Content::Small { mut bytes, mut ends } = content
            && bytes.capacity() >= CHUNK_BYTES
            && self.spare.len() < SPARE_MAX
        {
            bytes.clear();
            ends.clear();
            self.spare.push((bytes, ends));
        }
    }
}

#[derive(Debug)]
enum Content {
    /// Entries, and where each ends.
    Small { bytes: Vec<u8>, ends: Vec<u32> },
    /// One entry.
    Large { head: Vec<u8>, body: Bytes },
}

#[derive(Debug)]
struct Chunk {
    first: u64,
    epoch: Epoch,
    /// Bytes of the log before it, since the log began.
    start: u64,
    content: Content,
}

impl Chunk {
    fn last(&self) -> u64 {
        match &self.content {
            Content::Small { ends, .. } => self.first + ends.len() as u64 - 1,
            Content::Large { .. } => self.first,
        }
    }

    fn cost(&self) -> usize {
        match &self.content {
            Content::Small { bytes, ends } => bytes.len() + ends.len() * ENTRY_COST_BYTES,
            Content::Large { head, body } => head.len() + body.len(),
        }
    }

    /// Bytes of the chunk up to the end of this entry of it.
    fn bytes_to(&self, index: u64) -> u64 {
        match &self.content {
            Content::Small { ends, .. } => u64::from(ends[(index - self.first) as usize]),
            Content::Large { head, body } => (head.len() + body.len()) as u64,
        }
    }

    /// Where this entry of it begins.
    fn start_of(&self, index: u64) -> usize {
        match &self.content {
            Content::Small { ends, .. } if index > self.first => {
                ends[(index - self.first) as usize - 1] as usize
            }
            _ => 0,
        }
    }
}

/// Entries that lie one after the other.
#[derive(Debug)]
pub(crate) enum Run<'a> {
    /// So many, in the bytes of a message.
    Small { epoch: Epoch, count: u32, bytes: &'a [u8] },
    /// One, by handle.
    Large { epoch: Epoch, head: &'a [u8], body: &'a Bytes },
}

/// What a write needs stands first, see [`crate::state::Range`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Log {
    end: u64,
    end_bytes: u64,
    chunks: VecDeque<Chunk>,
    /// The entry before the first that is kept.
    base_index: u64,
    base_epoch: Epoch,
}

impl Log {
    /// Of a range of which nothing is known.
    pub(crate) const fn new() -> Self {
        Self { base_index: 0, base_epoch: Epoch(0), end: 0, end_bytes: 0, chunks: VecDeque::new() }
    }

    /// Empty, after this entry.
    pub(crate) fn reset(&mut self, index: u64, epoch: Epoch, account: &mut Account) {
        account.bytes -= self.cost();
        self.chunks.clear();
        self.base_index = index;
        self.base_epoch = epoch;
        self.end = index;
        self.end_bytes = 0;
    }

    pub(crate) const fn base(&self) -> u64 {
        self.base_index
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.chunks.back().map_or(self.base_epoch, |chunk| chunk.epoch)
    }

    /// Reads where the next entry will be written, so that it is near by then.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        match self.chunks.back().map(|chunk| &chunk.content) {
            Some(Content::Small { bytes, ends }) => {
                u64::from(bytes.last().copied().unwrap_or(0))
                    ^ u64::from(ends.last().copied().unwrap_or(0))
            }
            _ => 0,
        }
    }

    /// Bytes that it is charged with.
    pub(crate) fn cost(&self) -> usize {
        self.chunks.iter().map(Chunk::cost).sum()
    }

    /// Appends an entry; its head may be altered afterwards, in length not.
    #[inline]
    pub(crate) fn push(
        &mut self,
        epoch: Epoch,
        effect: Effect<'_>,
        account: &mut Account,
    ) -> &mut [u8] {
        self.end += 1;
        if let Some(body) = effect.body {
            return self.push_large(epoch, effect.head, body.clone(), account);
        }
        let len = ENTRY_HEAD_BYTES + effect.head.len();
        let fits = self.chunks.back().is_some_and(|chunk| {
            chunk.epoch == epoch
                && matches!(&chunk.content, Content::Small { bytes, .. } if bytes.len() < CHUNK_BYTES)
        });
        if !fits {
            // A log that filled a chunk will fill the next; others begin small, since most ranges are written little.
            let (bytes, ends) = if self.chunks.back().is_some_and(|last| last.cost() > CHUNK_BYTES)
            {
                account
                    .spare
                    .pop()
                    .unwrap_or_else(|| (Vec::with_capacity(2 * CHUNK_BYTES), Vec::new()))
            } else {
                (Vec::new(), Vec::new())
            };
            let content = Content::Small { bytes, ends };
            self.chunks.push_back(Chunk { first: self.end, epoch, start: self.end_bytes, content });
            account.grown = true;
        }
        self.end_bytes += len as u64;
        account.bytes += len + ENTRY_COST_BYTES;
        match self.chunks.back_mut().map(|chunk| &mut chunk.content) {
            Some(Content::Small { bytes, ends }) => {
                bytes.extend_from_slice(&(effect.head.len() as u32).to_le_bytes());
                let start = bytes.len();
                bytes.extend_from_slice(effect.head);
                ends.push(bytes.len() as u32);
                &mut bytes[start..]
            }
            _ => &mut [],
        }
    }

    fn push_large(
        &mut self,
        epoch: Epoch,
        head: &[u8],
        body: Bytes,
        account: &mut Account,
    ) -> &mut [u8] {
        let chunk = Chunk {
            first: self.end,
            epoch,
            start: self.end_bytes,
            content: Content::Large { head: head.to_vec(), body },
        };
        account.bytes += chunk.cost();
        account.grown = true;
        self.end_bytes += chunk.cost() as u64;
        self.chunks.push_back(chunk);
        match self.chunks.back_mut().map(|chunk| &mut chunk.content) {
            Some(Content::Large { head, .. }) => head,
            _ => &mut [],
        }
    }

    #[inline]
    fn chunk_of(&self, index: u64) -> Option<&Chunk> {
        if index <= self.base_index || index > self.end {
            return None;
        }
        if let Some(last) = self.chunks.back()
            && last.first <= index
        {
            return Some(last);
        }
        let at = self.chunks.partition_point(|chunk| chunk.first <= index);
        self.chunks.get(at.checked_sub(1)?)
    }

    /// The epoch in which an entry was appended; none when it is not kept.
    pub(crate) fn epoch_at(&self, index: u64) -> Option<Epoch> {
        if index == self.base_index {
            return Some(self.base_epoch);
        }
        self.chunk_of(index).map(|chunk| chunk.epoch)
    }

    /// Bytes of the log up to the end of an entry, since it began. Of entries that are not kept: of all before those that
    /// are.
    pub(crate) fn bytes_to(&self, index: u64) -> u64 {
        match self.chunk_of(index) {
            Some(chunk) => chunk.start + chunk.bytes_to(index),
            None if index > self.base_index => self.end_bytes,
            None => self.chunks.front().map_or(self.end_bytes, |chunk| chunk.start),
        }
    }

    pub(crate) fn get(&self, index: u64) -> Option<Effect<'_>> {
        let chunk = self.chunk_of(index)?;
        Some(match &chunk.content {
            Content::Small { bytes, .. } => {
                let start = chunk.start_of(index) + ENTRY_HEAD_BYTES;
                Effect::small(&bytes[start..chunk.bytes_to(index) as usize])
            }
            Content::Large { head, body } => Effect { head, body: Some(body) },
        })
    }

    /// Entries from `index` on, of one epoch: at least one, and no more than fit `bytes_max` if there are more.
    pub(crate) fn run(&self, index: u64, bytes_max: usize) -> Option<Run<'_>> {
        let chunk = self.chunk_of(index)?;
        let epoch = chunk.epoch;
        Some(match &chunk.content {
            Content::Large { head, body } => Run::Large { epoch, head, body },
            Content::Small { bytes, ends } => {
                let start = chunk.start_of(index);
                let from = (index - chunk.first) as usize;
                let within = ends[from..].partition_point(|end| *end as usize - start <= bytes_max);
                let to = from + within.max(1);
                let bytes = &bytes[start..ends[to - 1] as usize];
                Run::Small { epoch, count: (to - from) as u32, bytes }
            }
        })
    }

    /// Removes what is after an entry.
    pub(crate) fn truncate_after(&mut self, index: u64, account: &mut Account) {
        if index >= self.end {
            return;
        }
        let before = self.cost();
        while self.chunks.back().is_some_and(|chunk| chunk.first > index) {
            self.chunks.pop_back();
        }
        if let Some(chunk) = self.chunks.back_mut()
            && let Content::Small { bytes, ends } = &mut chunk.content
        {
            ends.truncate((index - chunk.first) as usize + 1);
            bytes.truncate(ends.last().map_or(0, |end| *end as usize));
        }
        self.end = index.max(self.base_index);
        self.end_bytes =
            self.chunks.back().map_or(0, |chunk| chunk.start + chunk.bytes_to(chunk.last()));
        account.bytes -= before - self.cost();
    }

    /// The last entry of the oldest chunk.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.chunks.front().map(Chunk::last)
    }

    /// Forgets the oldest chunk.
    pub(crate) fn trim(&mut self, account: &mut Account) {
        if let Some(chunk) = self.chunks.pop_front() {
            account.bytes -= chunk.cost();
            self.base_index = chunk.last();
            self.base_epoch = chunk.epoch;
            account.take_back(chunk.content);
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
