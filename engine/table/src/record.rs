//! Records: what the table keeps of a key, in a slot of the slab or, when it is large, in a block.
//!
//! A header of 8 bytes holds the version (48 bits) and how to read the rest; then the expiry (8 bytes) if there is one;
//! then, by form:
//! - small: key, value, and up to 7 bytes of slack; all lengths follow from the header and the slot's class;
//! - wide: two lengths of 4 bytes, key, value, and any slack: long keys, and values that grow;
//! - large: the number of a block and the key's length, 4 bytes each; the block holds key and value.

use crate::blocks::{BLOCK_OVERHEAD_BYTES, Blocks, spare_for};
use crate::slab::{Class, FINE_BYTES_MAX, SLOT_BYTES_MAX, Slab};
use crate::{Entry, OutOfMemory};
use alloc::vec::Vec;

const HEADER: usize = 8;
const EXPIRY: usize = 8;
const LENGTHS: usize = 8;
const SMALL_KEY_MAX: usize = 255;
/// Versions have so many bits.
pub(crate) const VERSION_MAX: u64 = (1 << 48) - 1;

// The low 16 bits of the header.
const FORM: u64 = 3;
const SMALL: u64 = 0;
const WIDE: u64 = 1;
const LARGE: u64 = 2;
const HAS_EXPIRY: u64 = 1 << 2;
const SLACK: u32 = 3;
const KEY: u32 = 8;

/// How a record is laid out, and so what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    form: u64,
    class: Class,
    /// Bytes of the block, for a large record.
    block: usize,
}

impl Shape {
    #[inline]
    fn of(key: usize, value: usize, has_expiry: bool) -> Self {
        let head = HEADER + if has_expiry { EXPIRY } else { 0 };
        let small = head + key + value;
        if small <= FINE_BYTES_MAX && key <= SMALL_KEY_MAX {
            let class = Class::for_bytes(small).expect("below the largest slot");
            return Self { form: SMALL, class, block: 0 };
        }
        match Class::for_bytes(small + LENGTHS) {
            Some(class) => Self { form: WIDE, class, block: 0 },
            None => Self::large(key + value, has_expiry),
        }
    }

    fn large(block: usize, has_expiry: bool) -> Self {
        let head = HEADER + LENGTHS + if has_expiry { EXPIRY } else { 0 };
        Self { form: LARGE, class: Class::for_bytes(head).expect("a few bytes"), block }
    }

    fn cost(self) -> u64 {
        let block = if self.form == LARGE { self.block as u64 + BLOCK_OVERHEAD_BYTES } else { 0 };
        self.class.bytes() as u64 + block
    }
}

/// What a record of these lengths costs, in bytes.
pub(crate) fn cost_of(key: usize, value: usize, has_expiry: bool) -> u64 {
    Shape::of(key, value, has_expiry).cost()
}

/// A record, read.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) entry: Entry<'a>,
}

impl View<'_> {
    #[inline]
    pub(crate) fn live(&self, now_ms: u64) -> bool {
        self.entry.expires_at_ms.is_none_or(|at| now_ms < at)
    }
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a record holds what its header says"))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a record holds what its header says"))
}

/// The records of a table.
pub(crate) struct Records {
    slab: Slab,
    blocks: Blocks,
    /// Holds a record while it moves.
    moving: Vec<u8>,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new(), blocks: Blocks::default(), moving: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.slab.live_bytes() + self.blocks.bytes()
    }

    pub(crate) fn clear(&mut self) {
        self.slab.clear();
        self.blocks = Blocks::default();
    }

    pub(crate) fn is_fragmented(&self) -> bool {
        self.slab.is_fragmented()
    }

    pub(crate) const fn idle_bytes(&self) -> u64 {
        self.slab.idle_bytes()
    }

    #[inline]
    pub(crate) fn prefetch(&self, reference: u32) {
        self.slab.prefetch(reference);
    }

    #[inline]
    pub(crate) fn view(&self, reference: u32) -> View<'_> {
        let slot = self.slab.get(reference);
        let header = u64_at(slot, 0);
        let (expires_at_ms, head) = if header & HAS_EXPIRY == 0 {
            (None, HEADER)
        } else {
            (Some(u64_at(slot, HEADER)), HEADER + EXPIRY)
        };
        let (key, value) = if header & FORM == SMALL {
            let end = slot.len() - ((header >> SLACK) & 7) as usize;
            slot[head..end].split_at(((header >> KEY) & 0xff) as usize)
        } else {
            let (first, second) = (u32_at(slot, head), u32_at(slot, head + 4));
            if header & FORM == WIDE {
                let start = head + LENGTHS;
                slot[start..start + first as usize + second as usize].split_at(first as usize)
            } else {
                self.blocks.get(first).split_at(second as usize)
            }
        };
        View { key, entry: Entry { value, version: header >> 16, expires_at_ms } }
    }

    /// What a record costs now, in bytes.
    pub(crate) fn cost(&self, reference: u32) -> u64 {
        let slot = self.slab.class(reference).bytes() as u64;
        slot + self.block(reference).map_or(0, |id| self.blocks.cost(id))
    }

    fn block(&self, reference: u32) -> Option<u32> {
        let slot = self.slab.get(reference);
        let header = u64_at(slot, 0);
        let head = if header & HAS_EXPIRY == 0 { HEADER } else { HEADER + EXPIRY };
        (header & FORM == LARGE).then(|| u32_at(slot, head))
    }

    /// A new record.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        value: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<u32, OutOfMemory> {
        let shape = Shape::of(key.len(), value.len(), expires_at_ms.is_some());
        let reference = self.slab.alloc(shape.class).ok_or(OutOfMemory)?;
        if shape.form == LARGE {
            match self.blocks.insert(&[key, value], 0) {
                Ok(id) => self.write_large(reference, id, key.len(), version, expires_at_ms),
                Err(error) => {
                    self.slab.free(reference);
                    return Err(error);
                }
            }
        } else {
            write(self.slab.get_mut(reference), shape.form, key, value, version, expires_at_ms);
        }
        Ok(reference)
    }

    fn write_large(
        &mut self,
        reference: u32,
        id: u32,
        key: usize,
        version: u64,
        expires_at_ms: Option<u64>,
    ) {
        let slot = self.slab.get_mut(reference);
        let head = write_start(slot, LARGE, version, expires_at_ms);
        slot[head..head + 4].copy_from_slice(&id.to_le_bytes());
        slot[head + 4..head + 8].copy_from_slice(&(key as u32).to_le_bytes());
    }

    /// Writes another value, in place when the record keeps its size. Returns where it is now.
    pub(crate) fn overwrite(
        &mut self,
        reference: u32,
        key: &[u8],
        value: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<u32, OutOfMemory> {
        let shape = Shape::of(key.len(), value.len(), expires_at_ms.is_some());
        let block = self.block(reference);
        if shape.class == self.slab.class(reference) {
            match block {
                None if shape.form != LARGE => {
                    write(
                        self.slab.get_mut(reference),
                        shape.form,
                        key,
                        value,
                        version,
                        expires_at_ms,
                    );
                    return Ok(reference);
                }
                Some(id) if shape.form == LARGE && self.blocks.rewrite(id, key.len(), value) => {
                    self.write_large(reference, id, key.len(), version, expires_at_ms);
                    return Ok(reference);
                }
                _ => {}
            }
        }
        let new = self.insert(key, value, version, expires_at_ms)?;
        self.remove(reference);
        Ok(new)
    }

    /// Frees a record.
    pub(crate) fn remove(&mut self, reference: u32) {
        if let Some(id) = self.block(reference) {
            self.blocks.remove(id);
        }
        self.slab.free(reference);
    }

    /// Adds to the end of a value. `room` is how much the record's cost may grow. Returns where it is now.
    pub(crate) fn append(
        &mut self,
        reference: u32,
        key: &[u8],
        tail: &[u8],
        version: u64,
        room: u64,
    ) -> Result<u32, OutOfMemory> {
        let Entry { value, expires_at_ms, .. } = self.view(reference).entry;
        let len = value.len() + tail.len();
        if let Some(id) = self.block(reference) {
            self.blocks.append(id, tail, room)?;
            self.write_large(reference, id, key.len(), version, expires_at_ms);
            return Ok(reference);
        }
        let slot = self.slab.get_mut(reference);
        let form = u64_at(slot, 0) & FORM;
        if fits_in_place(form, slot.len(), key.len(), len, expires_at_ms.is_some()) {
            // The key and the start of the value are where they must be.
            let start = write_head(slot, form, key.len(), len, version, expires_at_ms);
            let end = start + key.len() + len;
            slot[end - tail.len()..end].copy_from_slice(tail);
            return Ok(reference);
        }
        let budget = room + slot.len() as u64;
        let mut moving = core::mem::take(&mut self.moving);
        moving.clear();
        moving.extend_from_slice(self.view(reference).entry.value);
        moving.extend_from_slice(tail);
        let result = self.insert_growing(key, &moving, version, expires_at_ms, budget);
        moving.clear();
        moving.shrink_to(SLOT_BYTES_MAX);
        self.moving = moving;
        let new = result?;
        self.remove(reference);
        Ok(new)
    }

    /// A new record for a value that grew and will grow again: half as much room is left behind it, if `budget`
    /// allows.
    fn insert_growing(
        &mut self,
        key: &[u8],
        value: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
        budget: u64,
    ) -> Result<u32, OutOfMemory> {
        let exact = Shape::of(key.len(), value.len(), expires_at_ms.is_some()).cost();
        if exact > budget {
            return Err(OutOfMemory);
        }
        let head = HEADER + LENGTHS + if expires_at_ms.is_some() { EXPIRY } else { 0 };
        if let Some(class) = Class::for_bytes(head + key.len() + value.len() + value.len() / 2) {
            if class.bytes() as u64 <= budget {
                let reference = self.slab.alloc(class).ok_or(OutOfMemory)?;
                write(self.slab.get_mut(reference), WIDE, key, value, version, expires_at_ms);
                return Ok(reference);
            }
        } else {
            let shape = Shape::large(key.len() + value.len(), expires_at_ms.is_some());
            if let Some(left) = budget.checked_sub(shape.cost()) {
                let spare = (spare_for(value.len()) as u64).min(left / 2) as usize;
                let reference = self.slab.alloc(shape.class).ok_or(OutOfMemory)?;
                match self.blocks.insert(&[key, value], spare) {
                    Ok(id) => {
                        self.write_large(reference, id, key.len(), version, expires_at_ms);
                        return Ok(reference);
                    }
                    Err(error) => {
                        self.slab.free(reference);
                        return Err(error);
                    }
                }
            }
        }
        self.insert(key, value, version, expires_at_ms)
    }

    /// Sets or clears the expiry and returns where the record is now. It fails only when the system has no memory at
    /// all: slots for this are kept in reserve.
    pub(crate) fn set_expiry(
        &mut self,
        reference: u32,
        key: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<u32, OutOfMemory> {
        let old = self.view(reference).entry;
        if old.expires_at_ms.is_some() == expires_at_ms.is_some() {
            let slot = self.slab.get_mut(reference);
            let how = u64_at(slot, 0) & 0xffff;
            write_start(slot, how, version, expires_at_ms);
            return Ok(reference);
        }
        let has_expiry = expires_at_ms.is_some();
        if let Some(id) = self.block(reference) {
            let new =
                self.slab.alloc_reserved(Shape::large(0, has_expiry).class).ok_or(OutOfMemory)?;
            self.write_large(new, id, key.len(), version, expires_at_ms);
            self.slab.free(reference);
            return Ok(new);
        }
        let shape = Shape::of(key.len(), old.value.len(), has_expiry);
        let mut moving = core::mem::take(&mut self.moving);
        moving.clear();
        moving.extend_from_slice(self.view(reference).entry.value);
        let result = if shape.form == LARGE {
            self.insert(key, &moving, version, expires_at_ms)
        } else {
            self.slab.alloc_reserved(shape.class).ok_or(OutOfMemory).inspect(|&new| {
                write(self.slab.get_mut(new), shape.form, key, &moving, version, expires_at_ms);
            })
        };
        self.moving = moving;
        let new = result?;
        self.slab.free(reference);
        Ok(new)
    }

    /// Moves a record out of a sparse page, and says where it is then.
    pub(crate) fn move_if_sparse(&mut self, reference: u32) -> Option<u32> {
        if !self.slab.is_sparse(reference) {
            return None;
        }
        let new = self.slab.alloc(self.slab.class(reference))?;
        self.moving.clear();
        self.moving.extend_from_slice(self.slab.get(reference));
        self.slab.get_mut(new).copy_from_slice(&self.moving);
        self.slab.free(reference);
        Some(new)
    }
}

/// Whether a record of this form and slot can take other lengths without moving its key or value.
fn fits_in_place(form: u64, slot: usize, key: usize, value: usize, has_expiry: bool) -> bool {
    let head = HEADER + if has_expiry { EXPIRY } else { 0 };
    if form == SMALL {
        let bytes = head + key + value;
        bytes <= slot && slot - bytes < 8
    } else {
        head + LENGTHS + key + value <= slot
    }
}

/// Writes header and expiry; `how` is the header's low 16 bits but for the expiry's. Returns their size.
#[inline]
fn write_start(slot: &mut [u8], how: u64, version: u64, expires_at_ms: Option<u64>) -> usize {
    let header = version << 16 | how & !HAS_EXPIRY;
    if let Some(at) = expires_at_ms {
        slot[..HEADER].copy_from_slice(&(header | HAS_EXPIRY).to_le_bytes());
        slot[HEADER..HEADER + EXPIRY].copy_from_slice(&at.to_le_bytes());
        HEADER + EXPIRY
    } else {
        slot[..HEADER].copy_from_slice(&header.to_le_bytes());
        HEADER
    }
}

/// Writes everything before the key of a small or wide record, and returns where the key begins.
#[inline]
fn write_head(
    slot: &mut [u8],
    form: u64,
    key: usize,
    value: usize,
    version: u64,
    expires_at_ms: Option<u64>,
) -> usize {
    if form == SMALL {
        let head = HEADER + if expires_at_ms.is_some() { EXPIRY } else { 0 };
        let slack = (slot.len() - head - key - value) as u64;
        debug_assert!(slack < 8 && key <= SMALL_KEY_MAX);
        write_start(slot, SMALL | slack << SLACK | (key as u64) << KEY, version, expires_at_ms)
    } else {
        let head = write_start(slot, form, version, expires_at_ms);
        slot[head..head + 4].copy_from_slice(&(key as u32).to_le_bytes());
        slot[head + 4..head + 8].copy_from_slice(&(value as u32).to_le_bytes());
        head + LENGTHS
    }
}

/// Writes a small or wide record.
#[inline]
fn write(
    slot: &mut [u8],
    form: u64,
    key: &[u8],
    value: &[u8],
    version: u64,
    expires_at_ms: Option<u64>,
) {
    let start = write_head(slot, form, key.len(), value.len(), version, expires_at_ms);
    let (to_key, rest) = slot[start..].split_at_mut(key.len());
    to_key.copy_from_slice(key);
    rest[..value.len()].copy_from_slice(value);
}
