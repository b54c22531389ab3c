//! The way to the other shards: one open batch for each, the requests that wait for a reply, and the credits that bound
//! both.
//!
//! Replies come in the order of the requests (each batch is executed as a whole, and mailboxes and links keep order), so
//! the requests under way form a window of ids. Ids go on over a lost link: a reply of a former link finds nothing.
//!
//! In a store with copies the batches under way are kept, so that a request whose shard does not lead its range any more,
//! or is gone, can be asked of another.

use crate::face::SessionId;
use crate::walk::Request;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use dkv_protocol::frame::{RequestHead, RequestIter, write_request};
use dkv_protocol::ids::{RangeId, ShardAddr, Slot};
use dkv_protocol::limits::{
    BATCH_BYTES_SOFT_MAX, BATCHES_UNDER_WAY_MAX, LINK_BYTES_MAX, RANGES, REPLIES_EXPECTED_BYTES_MAX,
};
use dkv_protocol::map::StoreMap;
use dkv_protocol::resp::Proto;

/// The longest batch that is kept until it is answered: one great value need not be copied for it.
const KEPT_BYTES_MAX: usize = 2 * BATCH_BYTES_SOFT_MAX;
/// Buffers of batches kept for the next ones.
const SPARE_MAX: usize = 2 * BATCHES_UNDER_WAY_MAX;

/// How a way stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Since when it has been open.
    pub(crate) since_unix_ms: u64,
    /// What the buffers of requests that were not sent take.
    pub(crate) buffer_bytes: usize,
    /// Requests that are not answered, in bytes.
    pub(crate) unanswered_bytes: usize,
}

/// A request under way: whose reply it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) session: SessionId,
    /// The place in the session's queue.
    pub(crate) slot: u32,
    /// Which part of its command it is.
    pub(crate) part: u32,
    /// Whether it writes.
    pub(crate) write: bool,
    /// Whether other parts of the command may have been executed.
    pub(crate) shared: bool,
    /// How many bytes the reply is expected to have.
    pub(crate) weight: u32,
    /// The range whose leader is asked; none where it is a shard that is asked, and in a store without copies.
    pub(crate) range: Option<RangeId>,
}

impl Waiting {
    /// For a request that only reads or tells, and whose answer nobody waits for.
    pub(crate) const UNASKED: Self = Self {
        session: SessionId { index: u32::MAX, generation: 0 },
        slot: 0,
        part: 0,
        write: false,
        shared: false,
        weight: 16,
        range: None,
    };
}

/// A request that will not be answered any more.
#[derive(Debug)]
pub(crate) struct LostRequest {
    pub(crate) waiting: Waiting,
    pub(crate) lost: Lost,
    /// What it was, when it can be asked of another shard.
    pub(crate) request: Option<Request>,
}

/// How a request ended that will not be answered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was not executed, or it does not matter whether it was.
    Refused,
    /// It is a write, and it may have been executed.
    Uncertain,
}

/// The way to one shard.
#[derive(Debug)]
struct Link {
    addr: ShardAddr,
    up: bool,
    /// Since when it has been up.
    since_unix_ms: u64,
    /// The batch that is being filled.
    open: Vec<u8>,
    /// Closed batches with the id after their last, waiting for a credit.
    closed: VecDeque<(Vec<u8>, u32)>,
    /// For each batch under way the id after its last, and its length.
    under_way: VecDeque<(u32, usize)>,
    /// What is in the batches under way, in a store with copies; nothing where a batch is too long for it.
    kept: VecDeque<Vec<u8>>,
    /// Where a kept request was last found: the end of its batch, the position behind it and its id.
    found: Option<(u32, usize, u32)>,
    /// Bytes of all batches that are not answered.
    bytes: usize,
    /// Bytes of replies that are expected.
    expected: u64,
    /// Requests from `first_id` on that have no reply yet.
    waiting: VecDeque<Option<Waiting>>,
    first_id: u32,
    /// The first id that has not been sent.
    unsent_id: u32,
    /// Connections that wait for room.
    stalled: VecDeque<SessionId>,
    /// Whether it stands in `Links::listed`.
    listed: bool,
}

impl Link {
    fn new(addr: ShardAddr) -> Self {
        Self {
            addr,
            up: false,
            since_unix_ms: 0,
            open: Vec::new(),
            closed: VecDeque::new(),
            under_way: VecDeque::new(),
            kept: VecDeque::new(),
            found: None,
            bytes: 0,
            expected: 0,
            waiting: VecDeque::new(),
            first_id: 0,
            unsent_id: 0,
            stalled: VecDeque::new(),
            listed: false,
        }
    }

    fn next_id(&self) -> u32 {
        self.first_id.wrapping_add(self.waiting.len() as u32)
    }

    fn close_batch(&mut self, empty: Vec<u8>) {
        let end = self.next_id();
        self.closed.push_back((core::mem::replace(&mut self.open, empty), end));
    }

    fn is_full(&self) -> bool {
        self.bytes >= LINK_BYTES_MAX
            || self.expected >= REPLIES_EXPECTED_BYTES_MAX
            || (self.open.len() >= BATCH_BYTES_SOFT_MAX
                && self.closed.len() + self.under_way.len() >= BATCHES_UNDER_WAY_MAX)
    }

    fn wants_to_send(&self) -> bool {
        !self.closed.is_empty() || !self.open.is_empty()
    }
}

/// See the module. Shards are numbered in the order of [`StoreMap::shards`].
#[derive(Debug)]
pub(crate) struct Links {
    ways: Vec<Link>,
    owners: [u16; RANGES],
    /// Whether batches are kept.
    keeps: bool,
    /// By range, in a store with copies: its requests under way, and whether the next one begins a row.
    under_way_of: Vec<u32>,
    begins: Vec<bool>,
    /// Whether what is asked now is asked for a client that does not want keys to count as used.
    pub(crate) no_touch: bool,
    /// For each node the number of its first shard.
    first_of_node: Vec<u16>,
    me: u16,
    /// Links with something to send and a credit, perhaps.
    listed: VecDeque<u16>,
    spare: Vec<Vec<u8>>,
}

impl Links {
    /// Links to the shards of `me`'s own node are up, the others are down.
    pub(crate) fn new(map: &StoreMap, me: ShardAddr) -> Self {
        let mut links = Self {
            ways: Vec::new(),
            owners: [0; RANGES],
            keeps: false,
            under_way_of: Vec::new(),
            begins: Vec::new(),
            no_touch: false,
            first_of_node: Vec::new(),
            me: 0,
            listed: VecDeque::new(),
            spare: Vec::new(),
        };
        links.grow(map);
        links.ways.iter_mut().for_each(|way| way.up = way.addr.node == me.node);
        let number = |addr: ShardAddr| links.first_of_node[addr.node.0 as usize] + addr.shard.0;
        links.owners = core::array::from_fn(|range| number(map.owner(RangeId(range as u8))));
        links.me = number(me);
        links
    }

    /// Adds ways, which are down, to the shards of the nodes that it does not know yet. Owners stay.
    pub(crate) fn grow(&mut self, map: &StoreMap) {
        self.ways.extend(map.shards().skip(self.ways.len()).map(Link::new));
        let mut first = 0;
        self.first_of_node.clear();
        for node in map.nodes() {
            self.first_of_node.push(first);
            first += node.shard_ports.len() as u16;
        }
    }

    /// From now on batches are kept until they are answered. To be called before the first request.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
        self.under_way_of = alloc::vec![0; RANGES];
        self.begins = alloc::vec![false; RANGES];
    }

    /// Another shard leads a range, which begins a row.
    pub(crate) fn set_owner(&mut self, range: RangeId, owner: u16) {
        let owner = core::mem::replace(&mut self.owners[usize::from(range.0)], owner) != owner;
        self.begins[usize::from(range.0)] |= owner;
    }

    /// The next request for a range waits until none is under way: what connections sent before comes first.
    pub(crate) fn begin_row(&mut self, range: RangeId) {
        self.begins[usize::from(range.0)] = true;
    }

    /// Whether the next request for a range has to wait for those under way.
    #[inline]
    pub(crate) fn is_between_rows(&self, range: RangeId) -> bool {
        let at = usize::from(range.0);
        self.begins[at] && self.under_way_of[at] > 0
    }

    fn count(&mut self, waiting: &Waiting, more: bool) {
        if let Some(range) = waiting.range {
            let count = &mut self.under_way_of[usize::from(range.0)];
            *count = if more { *count + 1 } else { *count - 1 };
        }
    }

    /// The owner of a slot.
    #[inline]
    pub(crate) fn owner(&self, slot: Slot) -> u16 {
        self.owners[slot.range().0 as usize]
    }

    /// The owner of a range.
    pub(crate) fn owner_of_range(&self, range: RangeId) -> u16 {
        self.owners[range.0 as usize]
    }

    /// Whether a shard leads any range.
    pub(crate) fn owns(&self, shard: u16) -> bool {
        self.owners.contains(&shard)
    }

    /// This shard.
    #[inline]
    pub(crate) fn me(&self) -> u16 {
        self.me
    }

    /// Number of shards.
    pub(crate) fn len(&self) -> u16 {
        self.ways.len() as u16
    }

    /// The shard with that number.
    pub(crate) fn addr(&self, to: u16) -> ShardAddr {
        self.ways[to as usize].addr
    }

    /// The number of a shard, unless the store has no such shard.
    pub(crate) fn number(&self, addr: ShardAddr) -> Option<u16> {
        let number = self.first_of_node.get(addr.node.0 as usize)?.checked_add(addr.shard.0)?;
        (self.ways.get(number as usize)?.addr == addr).then_some(number)
    }

    /// The first shard of a node.
    pub(crate) fn first_of(&self, addr: ShardAddr) -> u16 {
        self.first_of_node[addr.node.0 as usize]
    }

    /// Whether a shard can be reached.
    #[inline]
    pub(crate) fn is_up(&self, to: u16) -> bool {
        self.ways[to as usize].up
    }

    /// The shards that cannot be reached.
    pub(crate) fn down_ones(&self) -> impl Iterator<Item = ShardAddr> {
        self.ways.iter().filter(|way| !way.up).map(|way| way.addr)
    }

    /// Whether no more requests may be queued to a shard now.
    #[inline]
    pub(crate) fn is_full(&self, to: u16) -> bool {
        self.ways[to as usize].is_full()
    }

    /// The number of the next request to a shard.
    pub(crate) fn next_id(&self, to: u16) -> u32 {
        self.ways[to as usize].next_id()
    }

    /// Whether a request to a shard, with all before it, is answered or lost.
    pub(crate) fn is_answered(&self, to: u16, id: u32) -> bool {
        self.ways[to as usize].first_id.wrapping_sub(id) as i32 > 0
    }

    /// Puts a request into the batch for a shard that is up.
    pub(crate) fn push<'a>(
        &mut self,
        to: u16,
        waiting: Waiting,
        proto: Proto,
        whole_store: bool,
        args: impl IntoIterator<Item = &'a [u8]>,
    ) {
        if self.ways[to as usize].open.len() >= BATCH_BYTES_SOFT_MAX {
            let empty = self.spare.pop().unwrap_or_default();
            self.ways[to as usize].close_batch(empty);
        }
        let link = &mut self.ways[to as usize];
        let id = link.next_id();
        let before = link.open.len();
        let begins = waiting.range.and_then(|range| self.begins.get_mut(usize::from(range.0)));
        let first = begins.is_some_and(core::mem::take);
        let head = RequestHead { id, proto, whole_store, first, no_touch: self.no_touch };
        write_request(&mut link.open, head, args);
        link.bytes += link.open.len() - before;
        link.expected += u64::from(waiting.weight);
        link.waiting.push_back(Some(waiting));
        self.count(&waiting, true);
        self.list(to);
    }

    fn list(&mut self, to: u16) {
        let link = &mut self.ways[to as usize];
        if !link.listed && link.wants_to_send() {
            link.listed = true;
            self.listed.push_back(to);
        }
    }

    /// The next batch that has a credit.
    pub(crate) fn next_batch(&mut self) -> Option<(ShardAddr, Vec<u8>)> {
        while let Some(to) = self.listed.pop_front() {
            let link = &mut self.ways[to as usize];
            link.listed = false;
            if link.under_way.len() >= BATCHES_UNDER_WAY_MAX {
                // Listed again by the reply that frees a credit.
                continue;
            }
            if link.closed.is_empty() && !link.open.is_empty() {
                let empty = self.spare.pop().unwrap_or_default();
                link.close_batch(empty);
            }
            let Some((batch, end)) = link.closed.pop_front() else { continue };
            link.under_way.push_back((end, batch.len()));
            link.unsent_id = end;
            if self.keeps {
                let mut copy = Vec::new();
                if batch.len() <= KEPT_BYTES_MAX {
                    copy = self.spare.pop().unwrap_or_default();
                    copy.extend_from_slice(&batch);
                }
                link.kept.push_back(copy);
            }
            let addr = link.addr;
            self.list(to);
            return Some((addr, batch));
        }
        None
    }

    /// Keeps the buffer of a batch that is gone.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        Self::recycle_into(&mut self.spare, buffer);
    }

    fn recycle_into(spare: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
        if spare.len() < SPARE_MAX && (1..=2 * BATCH_BYTES_SOFT_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// Whose reply `id` is. None: nobody's any more.
    #[inline]
    pub(crate) fn answer(&mut self, from: u16, id: u32) -> Option<Waiting> {
        let link = &mut self.ways[from as usize];
        let at = id.wrapping_sub(link.first_id);
        if at >= link.unsent_id.wrapping_sub(link.first_id) {
            return None;
        }
        let waiting = link.waiting.get_mut(at as usize)?.take();
        link.expected -= waiting.map_or(0, |w| u64::from(w.weight));
        while let Some(None) = link.waiting.front() {
            link.waiting.pop_front();
            link.first_id = link.first_id.wrapping_add(1);
        }
        if let Some(waiting) = &waiting {
            self.count(waiting, false);
        }
        waiting
    }

    /// The first request to a shard that was sent and is not answered.
    pub(crate) fn oldest(&self, to: u16) -> Option<u32> {
        let link = &self.ways[to as usize];
        (link.up && link.first_id != link.unsent_id).then_some(link.first_id)
    }

    /// The ranges of the requests to a shard that are not answered.
    pub(crate) fn asked_ranges(&self, to: u16) -> impl Iterator<Item = usize> {
        let waiting = self.ways[to as usize].waiting.iter().flatten();
        waiting.filter_map(|waiting| waiting.range.map(|range| usize::from(range.0)))
    }

    /// The request `id` to a shard, which is not answered yet, as long as it is kept.
    pub(crate) fn request(&mut self, to: u16, id: u32) -> Option<Request> {
        let link = &mut self.ways[to as usize];
        let batch = link.under_way.iter().position(|(end, _)| end.wrapping_sub(id) as i32 > 0)?;
        let (end, kept) = (link.under_way[batch].0, link.kept.get(batch)?);
        // Replies come in the order of the requests, so the next one is mostly right behind.
        let from = match link.found {
            Some((of, at, last)) if of == end && id.wrapping_sub(last) as i32 > 0 => at,
            _ => 0,
        };
        let (mut requests, mut spans) = (RequestIter::new(&kept[from..]), Vec::new());
        // Batches are well formed: they were written here.
        while let Some(Ok((head, bytes))) = requests.next(&mut spans) {
            if head.id == id {
                link.found = Some((end, kept.len() - requests.left(), id));
                return Some(Request::new(head, bytes, &spans));
            }
        }
        None
    }

    /// Takes back the credits of batches that are answered as a whole.
    pub(crate) fn collect_credits(&mut self, from: u16) {
        let link = &mut self.ways[from as usize];
        while let Some(&(end, bytes)) = link.under_way.front() {
            if link.first_id.wrapping_sub(end) as i32 >= 0 {
                link.under_way.pop_front();
                link.bytes -= bytes;
                if let Some(kept) = link.kept.pop_front() {
                    Self::recycle_into(&mut self.spare, kept);
                }
            } else {
                break;
            }
        }
        self.list(from);
    }

    /// A connection waits for room on the way to a shard.
    pub(crate) fn stall(&mut self, to: u16, session: SessionId) {
        self.ways[to as usize].stalled.push_back(session);
    }

    /// The next connection that waits for room, when there is some.
    pub(crate) fn next_stalled(&mut self, to: u16) -> Option<SessionId> {
        let link = &mut self.ways[to as usize];
        if link.up && link.is_full() { None } else { link.stalled.pop_front() }
    }

    /// Marks a way as open. False: it was already.
    pub(crate) fn up(&mut self, to: u16, unix_ms: u64) -> bool {
        let link = &mut self.ways[to as usize];
        link.since_unix_ms = unix_ms;
        !core::mem::replace(&mut link.up, true)
    }

    /// What there is to tell of a way.
    pub(crate) fn standing(&self, to: u16) -> Standing {
        let link = &self.ways[to as usize];
        let closed = link.closed.iter().map(|(batch, _)| batch);
        let buffer_bytes = closed.chain([&link.open]).map(Vec::capacity).sum();
        let (since_unix_ms, unanswered_bytes) = (link.since_unix_ms, link.bytes);
        Standing { since_unix_ms, buffer_bytes, unanswered_bytes }
    }

    /// Marks a way as closed and returns what waited for it.
    pub(crate) fn down(&mut self, to: u16) -> Vec<LostRequest> {
        let link = &mut self.ways[to as usize];
        link.up = false;
        let (first, unsent) = (link.first_id, link.unsent_id);
        let sent = unsent.wrapping_sub(first) as usize;
        let next = link.next_id();
        let mut requests: Vec<Option<Request>> = Vec::new();
        if self.keeps {
            requests.resize_with(link.waiting.len(), || None);
            let closed = link.closed.iter().map(|(batch, _)| batch);
            let mut spans = Vec::new();
            for batch in link.kept.iter().chain(closed).chain([&link.open]) {
                let mut iter = RequestIter::new(batch);
                while let Some(Ok((head, bytes))) = iter.next(&mut spans) {
                    let at = head.id.wrapping_sub(first) as usize;
                    if let Some(Some(waiting)) = link.waiting.get(at)
                        && waiting.range.is_some()
                        && !(waiting.write && at < sent)
                    {
                        requests[at] = Some(Request::new(head, bytes, &spans));
                    }
                }
            }
        }
        let lost: Vec<LostRequest> = link
            .waiting
            .drain(..)
            .enumerate()
            .filter_map(|(at, waiting)| {
                let waiting = waiting?;
                let request = requests.get_mut(at).and_then(Option::take);
                let uncertain = waiting.write && (at < sent || waiting.shared) && request.is_none();
                let lost = if uncertain { Lost::Uncertain } else { Lost::Refused };
                Some(LostRequest { waiting, lost, request })
            })
            .collect();
        link.open.clear();
        link.closed.clear();
        link.under_way.clear();
        link.kept.clear();
        link.bytes = 0;
        link.expected = 0;
        link.first_id = next;
        link.unsent_id = next;
        for lost in &lost {
            self.count(&lost.waiting, false);
            if let Some(range) = lost.waiting.range {
                self.begin_row(range);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{ME, map};
    use dkv_protocol::frame::RequestIter;

    const THERE: u16 = 1;

    fn links() -> Links {
        let mut links = Links::new(&map(2), ME);
        assert!(!links.is_up(THERE) && links.is_up(0) && links.me() == 0);
        assert!(links.up(THERE, 0));
        links
    }

    fn push(links: &mut Links, slot: u32, write: bool, value: &[u8]) {
        let session = SessionId { index: 0, generation: 0 };
        let waiting =
            Waiting { session, slot, part: 0, write, shared: false, weight: 1, range: None };
        links.push(THERE, waiting, Proto::Resp2, true, [&b"SET"[..], value]);
    }

    fn ids(batch: &[u8]) -> Vec<u32> {
        let (mut requests, mut spans) = (RequestIter::new(batch), Vec::new());
        core::iter::from_fn(|| requests.next(&mut spans))
            .map(|r| r.expect("a request").0.id)
            .collect()
    }

    #[test]
    fn requests_that_are_kept_can_be_asked_of_another() {
        let mut links = links();
        links.keep();
        let session = SessionId { index: 0, generation: 0 };
        let push = |links: &mut Links, slot: u32, write, value: &[u8]| {
            let range = Some(RangeId(200));
            let waiting = Waiting { session, slot, part: 0, write, shared: true, weight: 1, range };
            links.push(THERE, waiting, Proto::Resp3, true, [&b"SET"[..], value]);
        };
        (0..3).for_each(|slot| push(&mut links, slot, true, &[slot as u8]));
        while links.next_batch().is_some() {}
        let great = std::vec![0; KEPT_BYTES_MAX + 1];
        push(&mut links, 3, false, &great);
        while links.next_batch().is_some() {}
        push(&mut links, 4, false, b"a");
        while links.next_batch().is_some() {}
        push(&mut links, 5, true, b"b");
        let of = |request: Option<Request>| request.map(|r| r.args().get(1).to_vec());
        for id in [1, 2, 0, 1] {
            assert_eq!(of(links.request(THERE, id)), Some(std::vec![id as u8]));
        }
        assert_eq!(of(links.request(THERE, 3)), None, "too long to be kept");
        let request = links.request(THERE, 4).expect("it is kept");
        assert_eq!((request.proto, request.whole_store), (Proto::Resp3, true));
        assert!(links.answer(THERE, 1).is_some());
        assert_eq!(links.under_way_of[200], 5);
        let lost: Vec<_> = links
            .down(THERE)
            .into_iter()
            .map(|l| (l.waiting.slot, l.lost, of(l.request)))
            .collect();
        let expected = [
            (0, Lost::Uncertain, None),
            (2, Lost::Uncertain, None),
            (3, Lost::Refused, None),
            (4, Lost::Refused, Some(b"a".to_vec())),
            (5, Lost::Refused, Some(b"b".to_vec())),
        ];
        assert_eq!(lost, expected);
        assert_eq!((links.under_way_of[200], links.begins[200]), (0, true));
    }

    #[test]
    fn a_way_takes_its_credits_and_no_more_and_gives_them_back() {
        let mut links = links();
        let value = std::vec![0; 100_000];
        let mut pushed = 0;
        while !links.is_full(THERE) {
            push(&mut links, pushed, true, &value);
            pushed += 1;
        }
        let mut sent = Vec::new();
        while let Some((_, batch)) = links.next_batch() {
            sent.push(ids(&batch));
            links.recycle(batch);
        }
        assert_eq!(sent.len(), BATCHES_UNDER_WAY_MAX);
        assert!(sent.iter().all(|batch| batch.len() == 3), "closed at its soft limit");
        while !links.is_full(THERE) {
            push(&mut links, pushed, true, &value);
            pushed += 1;
        }
        assert!(links.next_batch().is_none());
        for id in &sent[0][1..] {
            assert!(links.answer(THERE, *id).is_some());
            links.collect_credits(THERE);
        }
        assert!(links.next_batch().is_none(), "the first request of the batch is not answered");
        assert!(links.answer(THERE, sent[0][0]).is_some_and(|w| w.slot == 0));
        assert!(links.answer(THERE, sent[0][0]).is_none(), "twice");
        links.collect_credits(THERE);
        assert!(!links.is_full(THERE));
        assert!(links.next_batch().is_some());
        assert!(links.next_batch().is_none());
    }

    #[test]
    fn what_is_lost_with_a_link_depends_on_whether_it_was_sent() {
        let mut links = links();
        push(&mut links, 0, true, b"a");
        push(&mut links, 1, false, b"a");
        let (_, batch) = links.next_batch().expect("a batch");
        push(&mut links, 2, true, b"a");
        let lost: Vec<(u32, Lost)> =
            links.down(THERE).iter().map(|l| (l.waiting.slot, l.lost)).collect();
        assert_eq!(lost, [(0, Lost::Uncertain), (1, Lost::Refused), (2, Lost::Refused)]);
        assert!(links.next_batch().is_none());
        assert!(links.up(THERE, 0));
        push(&mut links, 3, true, b"a");
        let (_, next) = links.next_batch().expect("a batch");
        assert_eq!(ids(&next), [3]);
        for id in ids(&batch) {
            assert!(links.answer(THERE, id).is_none(), "a reply of the former link");
        }
        assert!(links.answer(THERE, 3).is_some_and(|w| w.slot == 3));
    }

    #[test]
    fn a_node_that_joins_gets_ways_behind_the_others_and_changes_nothing_else() {
        let mut links = links();
        links.grow(&map(3));
        assert_eq!(links.len(), 3);
        assert!(links.is_up(0) && links.is_up(THERE) && !links.is_up(2));
        let new = links.addr(2);
        assert_eq!((links.number(new), links.first_of(new)), (Some(2), 2));
        assert!((0..RANGES).all(|range| links.owner_of_range(RangeId(range as u8)) < 2));
        assert!(links.up(2, 0));
    }

    #[test]
    fn a_few_great_requests_fill_a_way_too() {
        let mut links = links();
        let value = std::vec![0; LINK_BYTES_MAX / 4];
        let mut pushed = 0;
        while !links.is_full(THERE) {
            push(&mut links, pushed, true, &value);
            pushed += 1;
        }
        assert_eq!(pushed, 4);
        let batches: Vec<_> = core::iter::from_fn(|| links.next_batch()).collect();
        assert!(batches.len() == 4 && links.is_full(THERE));
        for id in 0..pushed {
            assert!(links.answer(THERE, id).is_some());
            links.collect_credits(THERE);
            assert!(!links.is_full(THERE));
        }
        assert_eq!(links.ways[THERE as usize].bytes, 0);
    }

    #[test]
    fn a_few_great_replies_that_are_expected_fill_a_way_too() {
        let mut links = links();
        let session = SessionId { index: 0, generation: 0 };
        let weight = (REPLIES_EXPECTED_BYTES_MAX / 4) as u32;
        let get = |links: &mut Links, slot, weight| {
            let waiting = Waiting {
                session,
                slot,
                part: 0,
                write: false,
                shared: false,
                weight,
                range: None,
            };
            links.push(THERE, waiting, Proto::Resp2, true, [&b"GET"[..], b"a"]);
        };
        (0..4).for_each(|slot| get(&mut links, slot, weight));
        assert!(links.is_full(THERE));
        let _ = links.next_batch();
        links.stall(THERE, session);
        assert!(links.next_stalled(THERE).is_none());
        assert!(links.answer(THERE, 0).is_some() && !links.is_full(THERE));
        assert_eq!(links.next_stalled(THERE), Some(session));
        (1..4).for_each(|id| assert!(links.answer(THERE, id).is_some()));
        get(&mut links, 4, u32::MAX);
        assert!(links.is_full(THERE), "one alone may be as great as it is");
        assert_eq!(links.down(THERE).len(), 1);
        assert!(links.up(THERE, 0) && !links.is_full(THERE));
        assert_eq!(links.ways[THERE as usize].expected, 0);
    }

    #[test]
    fn a_reply_to_what_was_not_sent_answers_nothing() {
        let mut links = links();
        push(&mut links, 0, true, b"a");
        assert!(links.answer(THERE, 0).is_none());
        let _ = links.next_batch();
        assert!(links.answer(THERE, 1).is_none() && links.answer(THERE, 0).is_some());
    }
}
