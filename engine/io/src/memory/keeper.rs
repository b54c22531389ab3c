//! The keeper: the thread that touches memory before it is needed and takes apart what is not needed any more.
//!
//! It sleeps until a shard has taken its chunk or let something go; an idle node costs nothing.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::chunk::{Chunk, Chunks, Ruin, Ruins, Stack};
use super::pages::{self, CHUNK_BYTES};

/// Addresses taken from the kernel at a time: so many at first, doubling up to the second number; less where there are
/// fewer. Where the kernel was told never to overcommit they count as memory, so an arena that is little used asks for
/// little.
const STRETCH_BYTES_MIN: usize = 64 << 20;
const STRETCH_BYTES_MAX: usize = 1 << 30;
/// Chunks that are mapped but not touched, at hand for shards that are faster than the keeper.
const BARE_MAX: usize = 32;
/// Chunks handed out on small pages that are made into huge ones later.
const THIN_MAX: usize = 16 * 1024;
/// How long nothing else must have been to do before one of them is: making one keeps whoever uses it waiting for some
/// hundred microseconds, and a shard that fills many is still busy with them.
const THIN_PAUSE: Duration = Duration::from_millis(20);
/// Chunks given back that stay populated for each shard, besides the one that the shard keeps itself.
const WARM_PER_SHARD: usize = 2;
/// Dropped mappings that stay as they are for the next ones of the same size, so many and each no larger than that: pages
/// that are there already are worth a great deal to a value that is overwritten again and again.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 4 << 20;
/// How long they stay when none is used and none is added.
const SPARE_TIME: Duration = Duration::from_secs(1);
/// A mapping is returned to the kernel in slices of so much: some 130 µs each.
pub(super) const SLICE_BYTES: usize = 2 << 20;

/// What shards and keeper share.
#[derive(Debug)]
pub(super) struct Shared {
    /// For each shard its populated chunk; null: it was taken, or none was made yet.
    pub(super) ready: Box<[AtomicPtr<u8>]>,
    /// For each shard whether it has ever taken one.
    begun: Box<[AtomicBool]>,
    /// On small pages, because to touch a huge one for the first time can take milliseconds.
    bare: ArrayQueue<Chunk>,
    /// Where chunks are that were handed out so. They are somebody's, unless they came back since.
    pub(super) thin: ArrayQueue<Address>,
    /// Chunks given back.
    pub(super) returned: Stack,
    /// Mappings that were dropped.
    ruins: Stack,
    /// Some of them, to be used again, and how often one was added or used.
    spare: ArrayQueue<Ruin>,
    spare_uses: AtomicU64,
    stock: Mutex<Stock>,
    stopping: AtomicBool,
    keeper: std::sync::OnceLock<Thread>,
    pub(super) counts: AtomicCounts,
}

/// See [`super::Counts`].
#[derive(Debug, Default)]
pub(super) struct AtomicCounts {
    pub(super) taken: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) given_back: AtomicU64,
    pub(super) released_bytes: AtomicU64,
}

impl Shared {
    /// A chunk for a shard: populated if the keeper was in time.
    pub(super) fn take(&self, shard: usize) -> Option<Chunk> {
        let ready = NonNull::new(self.ready[shard].swap(std::ptr::null_mut(), Ordering::Acquire));
        // SAFETY: whoever put the address there gave up the chunk for it, and the swap gives it to one taker alone.
        let chunk = ready.map(|start| unsafe { Chunk::new(start) }).or_else(|| {
            self.counts.late.fetch_add(1, Ordering::Relaxed);
            let chunk = self.bare.pop().or_else(|| {
                let chunk = self.stock().carve()?;
                // SAFETY: a chunk is mapped.
                unsafe { pages::on_huge_pages(chunk.start(), CHUNK_BYTES, false) };
                Some(chunk)
            })?;
            // One that finds no place stays on small pages.
            let _ = self.thin.push(Address(chunk.start()));
            Some(chunk)
        });
        self.begun[shard].store(true, Ordering::Relaxed);
        self.wake_keeper();
        chunk
    }

    pub(super) fn give_back(&self, chunk: Chunk) {
        self.returned.push_chunk(chunk);
        self.wake_keeper();
    }

    /// A mapping that nobody needs any more: kept for the next one of its size, or given to the keeper.
    pub(super) fn let_go(&self, ruin: Ruin) {
        if ruin.bytes() > SPARE_BYTES_MAX {
            self.take_apart(ruin);
        } else {
            self.spare_uses.fetch_add(1, Ordering::Relaxed);
            self.keep_spare(ruin);
        }
    }

    /// Puts a mapping among the spare ones, and wakes the keeper, also when it only goes back there: while it was in
    /// somebody's hand the keeper may have seen that there is none, and would sleep for ever.
    fn keep_spare(&self, ruin: Ruin) {
        // The one that has waited longest makes room.
        match self.spare.force_push(ruin) {
            Some(past) => self.take_apart(past),
            None => self.wake_keeper(),
        }
    }

    /// For the keeper, whatever it is.
    pub(super) fn take_apart(&self, ruin: Ruin) {
        self.ruins.push_ruin(ruin);
        self.wake_keeper();
    }

    /// A mapping of exactly this size, with anything in it.
    pub(super) fn spare(&self, bytes: usize) -> Option<Ruin> {
        if bytes > SPARE_BYTES_MAX {
            return None;
        }
        for _ in 0..self.spare.len() {
            let ruin = self.spare.pop()?;
            if ruin.bytes() == bytes {
                self.spare_uses.fetch_add(1, Ordering::Relaxed);
                return Some(ruin);
            }
            self.keep_spare(ruin);
        }
        None
    }

    pub(super) fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    fn stock(&self) -> std::sync::MutexGuard<'_, Stock> {
        // Nothing in it can be half done.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where chunks come from.
    #[cfg(all(test, not(loom)))]
    pub(super) fn stretches(&self) -> Vec<(*const u8, usize)> {
        let stock = self.stock();
        stock.stretches.iter().map(|s| (s.start.as_ptr().cast_const(), s.bytes)).collect()
    }

    fn released(&self, bytes: usize) {
        self.counts.released_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    /// Collects the chunks, so that the stock can tell which stretches are complete.
    fn drop(&mut self) {
        let stock = self.stock.get_mut().unwrap_or_else(PoisonError::into_inner);
        for ready in &mut self.ready {
            if let Some(start) = NonNull::new(*ready.get_mut()) {
                // SAFETY: as in `take`.
                stock.free.push(unsafe { Chunk::new(start) });
            }
        }
        stock.free.extend(std::iter::from_fn(|| self.bare.pop()));
        stock.free.extend(Chunks::take(&self.returned));
    }
}

/// Where a chunk is that somebody has.
#[derive(Debug)]
pub(super) struct Address(NonNull<u8>);

// SAFETY: it is a number here: nothing is read or written through it.
unsafe impl Send for Address {}

/// Sleeps for a while; whether nobody ended that.
fn rests(pause: Duration) -> bool {
    let start = Instant::now();
    std::thread::park_timeout(pause);
    start.elapsed() >= pause
}

/// Chunks that are not populated.
#[derive(Debug, Default)]
struct Stock {
    free: Vec<Chunk>,
    stretches: Vec<Stretch>,
}

/// Addresses from the kernel, made into chunks one after the other.
#[derive(Debug)]
struct Stretch {
    start: NonNull<u8>,
    bytes: usize,
    carved: usize,
}

// SAFETY: it is an address of memory of which the part beyond `carved` is nobody's, and the other part is the chunks'.
unsafe impl Send for Stretch {}

impl Stock {
    /// A chunk that nobody has; its pages are not there yet.
    fn carve(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.free.pop() {
            return Some(chunk);
        }
        if self.stretches.last().is_none_or(|stretch| stretch.carved == stretch.bytes) {
            self.stretch().ok()?;
        }
        let stretch = self.stretches.last_mut()?;
        // SAFETY: `carved < bytes`, both multiples of a chunk.
        let start = unsafe { stretch.start.add(stretch.carved) };
        stretch.carved += CHUNK_BYTES;
        // SAFETY: the next part of an aligned mapping, carved only this once; it is unmapped only when its chunk is back.
        Some(unsafe { Chunk::new(start) })
    }

    fn stretch(&mut self) -> io::Result<()> {
        let doublings = self.stretches.len().min(8) as u32;
        let mut bytes = (STRETCH_BYTES_MIN << doublings).min(STRETCH_BYTES_MAX);
        loop {
            match pages::map(bytes, true) {
                Ok(start) => {
                    self.stretches.push(Stretch { start, bytes, carved: 0 });
                    return Ok(());
                }
                Err(error) if bytes == CHUNK_BYTES => return Err(error),
                Err(_) => bytes /= 2,
            }
        }
    }
}

impl Drop for Stock {
    /// Unmaps the stretches of which every chunk is here. Somebody may have the others for good.
    fn drop(&mut self) {
        let mut free: Vec<usize> =
            self.free.iter().map(|chunk| chunk.start().addr().get()).collect();
        free.sort_unstable();
        for stretch in &self.stretches {
            let start = stretch.start.addr().get();
            let here = free.partition_point(|&chunk| chunk < start + stretch.carved)
                - free.partition_point(|&chunk| chunk < start);
            if here * CHUNK_BYTES == stretch.carved {
                // SAFETY: every chunk of it is in the list that is dropped here, so nobody uses any of it.
                let _ = unsafe { pages::unmap(stretch.start, stretch.bytes) };
            }
        }
    }
}

/// Stops the keeper when the last one who could need it is gone.
#[derive(Debug)]
pub(super) struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn start(shards: usize) -> io::Result<Arc<Self>> {
        let mut stock = Stock::default();
        stock.stretch()?;
        let shared = Arc::new(Shared {
            ready: (0..shards).map(|_| AtomicPtr::default()).collect(),
            begun: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            bare: ArrayQueue::new(BARE_MAX),
            thin: ArrayQueue::new(THIN_MAX),
            returned: Stack::default(),
            ruins: Stack::default(),
            spare: ArrayQueue::new(SPARE_MAX),
            spare_uses: AtomicU64::new(0),
            stock: Mutex::new(stock),
            stopping: AtomicBool::new(false),
            keeper: std::sync::OnceLock::new(),
            counts: AtomicCounts::default(),
        });
        let theirs = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("dkv-memory".into())
            .spawn(move || Keeper::new(theirs).run())?;
        let set = shared.keeper.set(keeper.thread().clone());
        debug_assert!(set.is_ok(), "set once");
        Ok(Arc::new(Self { shared }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake_keeper();
    }
}

/// The thread's own side.
struct Keeper {
    shared: Arc<Shared>,
    /// Chunks given back, as they were taken off the stack.
    coming: Chunks,
    /// Those of them which stay populated.
    warm: Vec<Chunk>,
    /// Mappings to be taken apart, as they were taken off the stack.
    ruins: Ruins,
    /// The mapping that is being taken apart and the bytes of it that still have pages.
    current: Option<(Ruin, usize)>,
    /// Mappings without pages that could not be ended, because that would have made one too many (`vm.max_map_count`).
    stuck: Vec<Ruin>,
    /// What `spare_uses` was when it was last seen to change, and when that was.
    spare_unused: (u64, Instant),
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            coming: Chunks::take(&shared.returned),
            ruins: Ruins::take(&shared.ruins),
            warm: Vec::new(),
            current: None,
            stuck: Vec::new(),
            spare_unused: (0, Instant::now()),
            shared,
        }
    }

    fn run(mut self) {
        let mut rested = false;
        loop {
            // Whoever changes something wakes this thread afterwards, and a wake before the sleep ends it at once.
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            // One thing at a time, the most urgent first.
            let worked = (!stopping && self.prepare()) || self.settle_chunk() || self.take_slice();
            if worked {
                rested = false;
                continue;
            }
            if !stopping && !self.shared.thin.is_empty() {
                rested = (rested || rests(THIN_PAUSE)) && !self.thicken();
            } else if self.shared.spare.is_empty() {
                if stopping {
                    break;
                }
                std::thread::park();
            } else if stopping || self.nobody_wants_spare() {
                while let Some(ruin) = self.shared.spare.pop() {
                    self.shared.ruins.push_ruin(ruin);
                }
            }
        }
        self.shared.stock().free.append(&mut self.warm);
    }

    /// Whether spare mappings were neither added nor used for as long as they stay; sleeps for what is left of that. A wake
    /// for something else does not begin it anew.
    fn nobody_wants_spare(&mut self) -> bool {
        let uses = self.shared.spare_uses.load(Ordering::Relaxed);
        if self.spare_unused.0 != uses {
            self.spare_unused = (uses, Instant::now());
        }
        let left = SPARE_TIME.saturating_sub(self.spare_unused.1.elapsed());
        if !left.is_zero() {
            std::thread::park_timeout(left);
        }
        left.is_zero()
    }

    /// Makes a huge page of the next chunk that was handed out on small ones. `false`: that one has come back and has no
    /// pages to lose, so nobody was kept waiting, and the one after it needs no pause before it.
    fn thicken(&self) -> bool {
        let Some(Address(start)) = self.shared.thin.pop() else { return false };
        if self.shared.stock().free.iter().any(|chunk| chunk.start() == start) {
            return false;
        }
        // SAFETY: chunks stay mapped for as long as the keeper runs.
        unsafe { pages::on_huge_pages(start, CHUNK_BYTES, true) };
        // SAFETY: as above.
        unsafe { pages::collapse(start, CHUNK_BYTES) };
        true
    }

    /// Has a populated chunk for each shard and bare ones at hand; whether it did something of it.
    fn prepare(&mut self) -> bool {
        for shard in 0..self.shared.ready.len() {
            if !self.shared.begun[shard].load(Ordering::Relaxed)
                || !self.shared.ready[shard].load(Ordering::Relaxed).is_null()
            {
                continue;
            }
            let Some(chunk) = self.populated() else { break };
            // Release: with the address goes what was written there.
            self.shared.ready[shard].store(chunk.into_raw().as_ptr(), Ordering::Release);
            return true;
        }
        let mut filled = false;
        while !self.shared.bare.is_full() {
            let Some(chunk) = self.shared.stock().carve() else { break };
            // SAFETY: a chunk is mapped.
            unsafe { pages::on_huge_pages(chunk.start(), CHUNK_BYTES, false) };
            if let Err(chunk) = self.shared.bare.push(chunk) {
                self.shared.stock().free.push(chunk);
                break;
            }
            filled = true;
        }
        filled
    }

    fn populated(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.warm.pop().or_else(|| self.next_returned()) {
            return Some(chunk);
        }
        let chunk = self.shared.stock().carve()?;
        // SAFETY: a chunk is mapped.
        unsafe { pages::on_huge_pages(chunk.start(), CHUNK_BYTES, true) };
        // SAFETY: nobody uses a chunk that this thread has.
        unsafe { pages::populate(chunk.start(), CHUNK_BYTES) };
        Some(chunk)
    }

    fn next_returned(&mut self) -> Option<Chunk> {
        self.coming.next().or_else(|| {
            self.coming = Chunks::take(&self.shared.returned);
            self.coming.next()
        })
    }

    /// Keeps a chunk that was given back, or returns its pages to the kernel; whether there was one.
    fn settle_chunk(&mut self) -> bool {
        let Some(chunk) = self.next_returned() else { return false };
        if self.warm.len() < WARM_PER_SHARD * self.shared.ready.len() {
            self.warm.push(chunk);
            return true;
        }
        // SAFETY: nobody uses a chunk that this thread has. Pages that cannot be returned (locked ones) are used again.
        if unsafe { pages::discard(chunk.start(), CHUNK_BYTES) }.is_ok() {
            self.shared.released(CHUNK_BYTES);
        }
        self.shared.stock().free.push(chunk);
        true
    }

    /// Returns a slice of a dropped mapping to the kernel; whether there was one.
    fn take_slice(&mut self) -> bool {
        let next = self.current.take().or_else(|| {
            let ruin = self.ruins.next().or_else(|| {
                self.ruins = Ruins::take(&self.shared.ruins);
                self.ruins.next()
            })?;
            let bytes = ruin.bytes();
            Some((ruin, bytes))
        });
        let Some((ruin, left)) = next else { return false };
        // From the end, in multiples of a slice from the start, so that each is one whole table of the kernel's pages.
        let rest = left.saturating_sub(1) / SLICE_BYTES * SLICE_BYTES;
        // SAFETY: `rest < left`, and `left` is at most what is mapped.
        let slice = unsafe { ruin.start().add(rest) };
        // SAFETY: nobody uses a mapping that this thread is to take apart. What fails here is done by its end.
        let _ = unsafe { pages::discard(slice, left - rest) };
        self.shared.released(left - rest);
        if rest > 0 {
            self.current = Some((ruin, rest));
            return true;
        }
        self.stuck.push(ruin);
        // SAFETY: as above; and nobody maps there again before it is unmapped.
        self.stuck.retain(|ruin| unsafe { pages::unmap(ruin.start(), ruin.bytes()) }.is_err());
        true
    }
}
