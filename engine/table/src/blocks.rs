//! Large values: a block of its own for each, key first, named by a number.

use crate::OutOfMemory;
use alloc::vec::Vec;

/// Blocks per row. Rows never move, so that adding a block never copies a long list.
const ROW: usize = 1024;
/// What a block costs beside its bytes: its place in the row and the allocator's rounding, roughly.
pub(crate) const BLOCK_OVERHEAD_BYTES: u64 = 64;

/// The blocks of a table.
#[derive(Default)]
pub(crate) struct Blocks {
    rows: Vec<Vec<Vec<u8>>>,
    free: Vec<u32>,
    bytes: u64,
}

impl Blocks {
    /// Memory of all blocks, by capacity.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        &self.rows[id as usize / ROW][id as usize % ROW]
    }

    fn block_mut(&mut self, id: u32) -> &mut Vec<u8> {
        &mut self.rows[id as usize / ROW][id as usize % ROW]
    }

    /// What a block costs.
    pub(crate) fn cost(&self, id: u32) -> u64 {
        self.rows[id as usize / ROW][id as usize % ROW].capacity() as u64 + BLOCK_OVERHEAD_BYTES
    }

    /// A block of these parts, with room for `spare` more bytes.
    pub(crate) fn insert(&mut self, parts: &[&[u8]], spare: usize) -> Result<u32, OutOfMemory> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let mut block = Vec::new();
        block.try_reserve_exact(len + spare).map_err(|_| OutOfMemory)?;
        for part in parts {
            block.extend_from_slice(part);
        }
        self.bytes += block.capacity() as u64 + BLOCK_OVERHEAD_BYTES;
        if let Some(id) = self.free.pop() {
            *self.block_mut(id) = block;
            return Ok(id);
        }
        if self.rows.last().is_none_or(|row| row.len() == ROW) {
            self.rows.push(Vec::with_capacity(ROW));
        }
        let row = self.rows.len() - 1;
        self.rows[row].push(block);
        Ok((row * ROW + self.rows[row].len() - 1) as u32)
    }

    /// Frees a block.
    pub(crate) fn remove(&mut self, id: u32) {
        self.bytes -= self.cost(id);
        *self.block_mut(id) = Vec::new();
        self.free.push(id);
    }

    /// Puts `value` in the place of everything after the first `kept` bytes, if it fits and does not leave more than
    /// half of the block empty; says whether it did.
    pub(crate) fn rewrite(&mut self, id: u32, kept: usize, value: &[u8]) -> bool {
        let block = self.block_mut(id);
        let len = kept + value.len();
        if len > block.capacity() || len < block.capacity() / 2 {
            return false;
        }
        block.truncate(kept);
        block.extend_from_slice(value);
        true
    }

    /// Adds to the end of a block. `room` is how much the block's cost may grow.
    pub(crate) fn append(&mut self, id: u32, tail: &[u8], room: u64) -> Result<(), OutOfMemory> {
        let block = self.block_mut(id);
        let before = block.capacity();
        let len = block.len() + tail.len();
        if len > before {
            let needed = (len - before) as u64;
            let spare =
                room.checked_sub(needed).ok_or(OutOfMemory)?.min(spare_for(len) as u64 * 2) / 2;
            let wanted = len + spare as usize - block.len();
            block.try_reserve_exact(wanted).map_err(|_| OutOfMemory)?;
        }
        block.extend_from_slice(tail);
        let grown = block.capacity() - before;
        self.bytes += grown as u64;
        Ok(())
    }
}

/// Room to leave behind a block that grows, so that growing by small steps copies each byte a few times only. When the
/// memory limit is near, half of what is left is taken instead: still few copies, and others get the other half.
pub(crate) const fn spare_for(len: usize) -> usize {
    len / 4
}
