//! Records: what the table keeps of a key, in a slot of the slab or, when it is large, in a block.
//!
//! A header of 8 bytes holds the version (48 bits) and how to read the rest; then the expiry (8 bytes) if there is one;
//! then, by form:
//! - small: key, value, and up to 7 bytes of slack; all lengths follow from the header and the slot's class;
//! - wide: two lengths of 4 bytes, key, value, and any slack: long keys, and values that grow;
//! - large: the number of a block, which holds the value, and the key's length, 4 bytes each; then the key, unless it is
//!   too long for a slot and kept beside the block.

use crate::blocks::Blocks;
use crate::large::{self, Large, Meter, Tail, spare_for, spare_within};
use crate::slab::{Class, FINE_BYTES_MAX, SLOT_BYTES_MAX, Slab};
use crate::{Entry, Memory, OutOfMemory};
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
    /// What it costs beside its slot: the block and a key beside it, for a large record.
    beside: u64,
}

impl Shape {
    #[inline]
    fn of(key: usize, value: usize, has_expiry: bool) -> Self {
        let head = HEADER + if has_expiry { EXPIRY } else { 0 };
        let small = head + key + value;
        if small <= FINE_BYTES_MAX && key <= SMALL_KEY_MAX {
            let class = Class::for_bytes(small).expect("below the largest slot");
            return Self { form: SMALL, class, beside: 0 };
        }
        if let Some(class) = Class::for_bytes(small + LENGTHS) {
            return Self { form: WIDE, class, beside: 0 };
        }
        let shape = Self::large(key, has_expiry);
        Self { beside: shape.beside + large::cost_of(value), ..shape }
    }

    /// A large record, without its value.
    fn large(key: usize, has_expiry: bool) -> Self {
        let head = HEADER + LENGTHS + if has_expiry { EXPIRY } else { 0 };
        match Class::for_bytes(head + key) {
            Some(class) => Self { form: LARGE, class, beside: 0 },
            None => Self {
                form: LARGE,
                class: Class::for_bytes(head).expect("a few bytes"),
                beside: key as u64,
            },
        }
    }

    fn cost(self) -> u64 {
        self.class.bytes() as u64 + self.beside
    }
}

/// What a record of these lengths costs, in bytes.
pub(crate) fn cost_of(key: usize, value: usize, has_expiry: bool) -> u64 {
    Shape::of(key, value, has_expiry).cost()
}

/// What a large record costs beside its value, in bytes; `None` when such a record is not large.
pub(crate) fn cost_of_large(key: usize, value: usize, has_expiry: bool) -> Option<u64> {
    let shape = Shape::of(key, value, has_expiry);
    (shape.form == LARGE).then(|| Shape::large(key, has_expiry).cost())
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
    meter: Meter,
    /// Bytes of values that were copied because they grew.
    copied: u64,
    /// Holds a record while it moves.
    moving: Vec<u8>,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::new(),
            blocks: Blocks::default(),
            meter: Meter::default(),
            copied: 0,
            moving: Vec::new(),
        }
    }

    /// Empty ones that go on counting where these stop.
    pub(crate) fn successor(&self) -> Self {
        Self { meter: self.meter.clone(), copied: self.copied, ..Self::new() }
    }

    /// Bytes of records and of large values, those included that are held elsewhere.
    pub(crate) fn bytes(&self) -> u64 {
        self.own_bytes() + self.meter.bytes()
    }

    /// The same without large values.
    pub(crate) const fn own_bytes(&self) -> u64 {
        self.slab.live_bytes() + self.blocks.key_bytes()
    }

    /// Takes everything apart and gives it back: up to `chunks` chunks, then up to `blocks` large values. Says whether
    /// anything is left.
    pub(crate) fn dismantle(
        &mut self,
        memory: &mut dyn Memory,
        chunks: usize,
        blocks: usize,
    ) -> bool {
        let slab = self.slab.dismantle(memory, chunks) == chunks;
        self.blocks.dismantle(blocks) == blocks || slab
    }

    /// What counts large values.
    pub(crate) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Bytes of values that were copied because they grew.
    pub(crate) const fn copied(&self) -> u64 {
        self.copied
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
        let version = header >> 16;
        let (key, value) = if header & FORM == SMALL {
            let end = slot.len() - ((header >> SLACK) & 7) as usize;
            slot[head..end].split_at(((header >> KEY) & 0xff) as usize)
        } else {
            let (first, second) = (u32_at(slot, head), u32_at(slot, head + 4));
            let start = head + LENGTHS;
            if header & FORM == LARGE {
                let value = self.blocks.get(first);
                let key = slot.get(start..start + second as usize);
                return View {
                    key: key.unwrap_or_else(|| self.blocks.key(first)),
                    entry: Entry { value, version, expires_at_ms, large: Some(value) },
                };
            }
            slot[start..start + first as usize + second as usize].split_at(first as usize)
        };
        View { key, entry: Entry { value, version, expires_at_ms, large: None } }
    }

    /// When a record expires.
    pub(crate) fn expires_at_ms(&self, reference: u32) -> Option<u64> {
        let slot = self.slab.get(reference);
        (u64_at(slot, 0) & HAS_EXPIRY != 0).then(|| u64_at(slot, HEADER))
    }

    /// What goes away with a record, in bytes.
    pub(crate) fn cost(&self, reference: u32) -> u64 {
        let slot = self.slab.class(reference).bytes() as u64;
        slot + self.block(reference).map_or(0, |id| self.blocks.cost(id))
    }

    /// What a record takes in the slab, in bytes, with a key that is kept beside it.
    pub(crate) fn slot_bytes(&self, reference: u32) -> u64 {
        let key = self.block(reference).map_or(0, |id| self.blocks.key(id).len() as u64);
        self.slab.class(reference).bytes() as u64 + key
    }

    /// Whether a record's value has memory of its own.
    pub(crate) fn is_large(&self, reference: u32) -> bool {
        self.block(reference).is_some()
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
        memory: &mut dyn Memory,
        key: &[u8],
        value: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<u32, OutOfMemory> {
        let shape = Shape::of(key.len(), value.len(), expires_at_ms.is_some());
        if shape.form == LARGE {
            let large = Large::from_parts(memory, &self.meter, value, Tail::of(&[]), 0)?;
            return self.insert_large(memory, key, large, version, expires_at_ms);
        }
        let reference = self.slab.alloc(memory, shape.class).ok_or(OutOfMemory)?;
        write(self.slab.get_mut(reference), shape.form, key, value, version, expires_at_ms);
        Ok(reference)
    }

    /// A new record for a value in a block of its own.
    pub(crate) fn insert_large(
        &mut self,
        memory: &mut dyn Memory,
        key: &[u8],
        value: Large,
        version: u64,
        expires_at_ms: Option<u64>,
    ) -> Result<u32, OutOfMemory> {
        let shape = Shape::large(key.len(), expires_at_ms.is_some());
        let reference = self.slab.alloc(memory, shape.class).ok_or(OutOfMemory)?;
        let id = self.blocks.insert(value);
        self.write_large(reference, id, key, version, expires_at_ms);
        Ok(reference)
    }

    fn write_large(
        &mut self,
        reference: u32,
        id: u32,
        key: &[u8],
        version: u64,
        expires_at_ms: Option<u64>,
    ) {
        let slot = self.slab.get_mut(reference);
        let head = write_start(slot, LARGE, version, expires_at_ms);
        slot[head..head + 4].copy_from_slice(&id.to_le_bytes());
        slot[head + 4..head + 8].copy_from_slice(&(key.len() as u32).to_le_bytes());
        let start = head + LENGTHS;
        if let Some(place) = slot.get_mut(start..start + key.len()) {
            place.copy_from_slice(key);
            self.blocks.set_key(id, &[]);
        } else {
            self.blocks.set_key(id, key);
        }
    }

    /// Writes another value, in place when the record keeps its size. Returns where it is now.
    pub(crate) fn overwrite(
        &mut self,
        memory: &mut dyn Memory,
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
                    let slot = self.slab.get_mut(reference);
                    write(slot, shape.form, key, value, version, expires_at_ms);
                    return Ok(reference);
                }
                Some(id) if shape.form == LARGE && self.blocks.get_mut(id).rewrite(value) => {
                    self.write_large(reference, id, key, version, expires_at_ms);
                    return Ok(reference);
                }
                _ => {}
            }
        }
        let new = self.insert(memory, key, value, version, expires_at_ms)?;
        self.remove(memory, reference);
        Ok(new)
    }

    /// Frees a record.
    pub(crate) fn remove(&mut self, memory: &mut dyn Memory, reference: u32) {
        if let Some(id) = self.block(reference) {
            self.blocks.remove(id);
        }
        self.slab.free(memory, reference);
    }

    /// Adds to the end of a value. `room` is how much the record's cost may grow. Returns where it is now.
    pub(crate) fn append(
        &mut self,
        memory: &mut dyn Memory,
        reference: u32,
        key: &[u8],
        tail: Tail<'_>,
        version: u64,
        room: u64,
    ) -> Result<u32, OutOfMemory> {
        let Entry { value, expires_at_ms, .. } = self.view(reference).entry;
        let len = value.len() + tail.len();
        if let Some(id) = self.block(reference) {
            self.copied += self.blocks.get_mut(id).append(memory, tail, room)? as u64;
            let slot = self.slab.get_mut(reference);
            write_start(slot, LARGE, version, expires_at_ms);
            return Ok(reference);
        }
        let slot = self.slab.get_mut(reference);
        let form = u64_at(slot, 0) & FORM;
        if fits_in_place(form, slot.len(), key.len(), len, expires_at_ms.is_some()) {
            // The key and the start of the value are where they must be.
            let start = write_head(slot, form, key.len(), len, version, expires_at_ms);
            let end = start + key.len() + len;
            let (zeros, bytes) = slot[end - tail.len()..end].split_at_mut(tail.zeros);
            zeros.fill(0);
            bytes.copy_from_slice(tail.bytes);
            return Ok(reference);
        }
        let budget = room + slot.len() as u64;
        let mut moving = core::mem::take(&mut self.moving);
        moving.clear();
        moving.extend_from_slice(self.view(reference).entry.value);
        self.copied += moving.len() as u64;
        let result =
            self.insert_growing(memory, key, &mut moving, tail, version, expires_at_ms, budget);
        moving.clear();
        moving.shrink_to(SLOT_BYTES_MAX);
        self.moving = moving;
        let new = result?;
        self.remove(memory, reference);
        Ok(new)
    }

    /// A new record for a value that grew by `tail` and will grow again: some room is left behind it, if `budget`
    /// allows.
    #[expect(clippy::too_many_arguments, reason = "the parts of a record, each of which varies")]
    fn insert_growing(
        &mut self,
        memory: &mut dyn Memory,
        key: &[u8],
        value: &mut Vec<u8>,
        tail: Tail<'_>,
        version: u64,
        expires_at_ms: Option<u64>,
        budget: u64,
    ) -> Result<u32, OutOfMemory> {
        let len = value.len() + tail.len();
        let exact = Shape::of(key.len(), len, expires_at_ms.is_some());
        let left = budget.checked_sub(exact.cost()).ok_or(OutOfMemory)?;
        let head = HEADER + LENGTHS + if expires_at_ms.is_some() { EXPIRY } else { 0 };
        if let Some(class) = Class::for_bytes(head + key.len() + len + len / 2)
            && class.bytes() as u64 <= budget
        {
            tail.write(value);
            let reference = self.slab.alloc(memory, class).ok_or(OutOfMemory)?;
            write(self.slab.get_mut(reference), WIDE, key, value, version, expires_at_ms);
            return Ok(reference);
        }
        if exact.form != LARGE {
            tail.write(value);
            return self.insert(memory, key, value, version, expires_at_ms);
        }
        let spare = if len > large::HEAP_BYTES_MAX {
            spare_for(len)
        } else {
            spare_within(len, left).min(large::HEAP_BYTES_MAX - len)
        };
        let large = Large::from_parts(memory, &self.meter, value, tail, spare)?;
        self.insert_large(memory, key, large, version, expires_at_ms)
    }

    /// Puts other bytes in the place of some. `room` is how much the record's cost may grow, for a copy of what is shared.
    pub(crate) fn patch(
        &mut self,
        memory: &mut dyn Memory,
        reference: u32,
        offset: usize,
        bytes: &[u8],
        version: u64,
        room: u64,
    ) -> Result<(), OutOfMemory> {
        if let Some(id) = self.block(reference) {
            let copied = self.blocks.get_mut(id).patch(memory, offset, bytes, room)?;
            self.copied += copied as u64;
        }
        let View { key, entry: Entry { value, expires_at_ms, large, .. } } = self.view(reference);
        let (key, len, in_block) = (key.len(), value.len(), large.is_some());
        let slot = self.slab.get_mut(reference);
        let form = u64_at(slot, 0) & FORM;
        if in_block {
            write_start(slot, LARGE, version, expires_at_ms);
        } else {
            let start = write_head(slot, form, key, len, version, expires_at_ms) + key + offset;
            slot[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Sets or clears the expiry and returns where the record is now. It fails only when the system has no memory at
    /// all: slots for this are kept in reserve.
    pub(crate) fn set_expiry(
        &mut self,
        memory: &mut dyn Memory,
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
            let class = Shape::large(key.len(), has_expiry).class;
            let new = self.slab.alloc_reserved(memory, class).ok_or(OutOfMemory)?;
            self.write_large(new, id, key, version, expires_at_ms);
            self.slab.free(memory, reference);
            return Ok(new);
        }
        let shape = Shape::of(key.len(), old.value.len(), has_expiry);
        let mut moving = core::mem::take(&mut self.moving);
        moving.clear();
        moving.extend_from_slice(self.view(reference).entry.value);
        let result = if shape.form == LARGE {
            self.insert(memory, key, &moving, version, expires_at_ms)
        } else {
            self.slab.alloc_reserved(memory, shape.class).ok_or(OutOfMemory).inspect(|&new| {
                write(self.slab.get_mut(new), shape.form, key, &moving, version, expires_at_ms);
            })
        };
        self.moving = moving;
        let new = result?;
        self.slab.free(memory, reference);
        Ok(new)
    }

    /// Moves a record out of a sparse page, and says where it is then.
    pub(crate) fn move_if_sparse(
        &mut self,
        memory: &mut dyn Memory,
        reference: u32,
    ) -> Option<u32> {
        if !self.slab.is_sparse(reference) {
            return None;
        }
        let new = self.slab.alloc(memory, self.slab.class(reference))?;
        self.moving.clear();
        self.moving.extend_from_slice(self.slab.get(reference));
        self.slab.get_mut(new).copy_from_slice(&self.moving);
        self.slab.free(memory, reference);
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
