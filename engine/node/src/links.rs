//! The links of one shard to the shards of other nodes: batches framed out, frames taken apart in, and a sense of whether
//! the other end still lives.
//!
//! A link has one direction of asking: the side that dialled sends requests and the other answers them on the same
//! connection. Both sides say [`FrameKind::Ping`] when they have been quiet, so that a cut cable, which no one is told of,
//! shows as silence. The handshake happened elsewhere; whoever is at the other end has proved who it is.

use crate::board::Remotes;
use crate::driver::{Driver, Role, TURN_NS_MAX};
use crate::mail::NewLink;
use dkv_io::clock::{boottime_ns, thread_cpu_ns};
use dkv_io::{Chunk, Conn, Reactor};
use dkv_protocol::frame::{self, FrameError, FrameKind, FrameReader};
use dkv_protocol::ids::{BootId, NodeIndex, ShardAddr};
use dkv_protocol::limits::{BATCHES_UNDER_WAY_MAX, OUTPUT_BYTES_MAX};
use dkv_protocol::map::StoreMap;
use dkv_shard::Hold;
use std::collections::VecDeque;
use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// A side that has sent nothing for this long says that it is there. Each ping costs both sides a turn, and there are as
/// many links as pairs of shards: more often would be felt on idle machines.
const PING_AFTER_NS: u64 = 200_000_000;
/// A link on which nothing came for this long is dead (four pings in a row are missing), unless the other machine goes on
/// acknowledging: then the node there is busy, with a value of hundreds of megabytes perhaps, or stopped.
const DEAD_AFTER_NS: u64 = 1_000_000_000;
/// A node that is busy for longer than this is as good as dead.
const STUCK_AFTER_NS: u64 = 4_000_000_000;
/// Our pings are acknowledged within this or the other machine is not there.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(700);
/// A tick this late means that we were not looking, not that the others were silent.
const LATE_TICK_NS: u64 = 250_000_000;
/// Buffers larger than this are not kept for the next frames.
const KEPT_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// One link. See the module.
pub(crate) struct Link {
    peer: ShardAddr,
    /// The number of `peer` among the remote shards.
    number: usize,
    boot: BootId,
    dialled: bool,
    conn: Conn,
    reader: FrameReader,
    /// The start of a frame that is not complete, or what the turn was too short for.
    input: Vec<u8>,
    /// Batches whose requests wait, those of the first from `rest_at` on: for the replies to those before them to be sent,
    /// for the next turn, or for copies. Messages of copies do not wait behind them, since they may be what is waited for.
    rest: VecDeque<Vec<u8>>,
    rest_at: usize,
    /// There is more to do in what was received, and only the turn was over.
    unfinished: bool,
    /// Frames to send when the send under way is done.
    output: Vec<u8>,
    /// Batches of replies that wait for the copies, and those behind them.
    waiting: VecDeque<(Vec<u8>, Hold)>,
    waiting_bytes: usize,
    /// The buffer of the last send.
    spare: Vec<u8>,
    sending: bool,
    heard_ns: u64,
    said_ns: u64,
}

/// The links of one shard, each in a slot of its own for as long as it lives.
pub(crate) struct Links {
    remotes: Remotes,
    slots: Vec<Option<Link>>,
    /// For each remote shard the slot of the link that we dialled.
    asking: Vec<Option<usize>>,
    /// For each remote shard the slot of the link that it dialled.
    answering: Vec<Option<usize>>,
    last_tick_ns: u64,
}

/// Why a link ends.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// The other end closed it or the network says so.
    Gone(Option<std::io::Error>),
    /// Nothing was heard for so many milliseconds.
    Silent(u64),
    /// It answers nothing, and others have taken its place.
    Still,
    /// What came is not a frame.
    Frame(FrameError),
    /// What came in a frame is not what belongs there.
    Batch(String),
    /// A newer connection of the same peer stands in its place.
    Replaced,
    /// This node stops.
    Stopping,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(None) => f.write_str("the other end closed it"),
            Self::Gone(Some(error)) => write!(f, "{error}"),
            Self::Silent(ms) => write!(f, "nothing was heard for {ms} ms"),
            Self::Still => {
                f.write_str("it answers no requests, and its ranges have gone to others")
            }
            Self::Frame(error) => write!(f, "{error}"),
            Self::Batch(error) => f.write_str(error),
            Self::Replaced => f.write_str("a newer one stands"),
            Self::Stopping => f.write_str("this node stops"),
        }
    }
}

impl Link {
    /// Begins a frame behind what is to be sent, in the buffer of the last send if that is free: the same memory over and
    /// over stays in the cache.
    fn begin_frame(&mut self) -> usize {
        if self.output.capacity() == 0 {
            self.output = std::mem::take(&mut self.spare);
        }
        frame::begin_frame(&mut self.output)
    }

    /// Whether requests may be executed: the other end takes its replies as fast as it asks.
    fn has_room(&self) -> bool {
        self.output.len() + self.waiting_bytes <= OUTPUT_BYTES_MAX
    }
}

impl Links {
    pub(crate) fn new(map: &StoreMap, me: NodeIndex, now_ns: u64) -> Self {
        let remotes = Remotes::new(map, me);
        let count = remotes.addresses().len();
        Self {
            remotes,
            slots: Vec::new(),
            asking: vec![None; count],
            answering: vec![None; count],
            last_tick_ns: now_ns,
        }
    }

    fn insert(&mut self, link: Link) -> usize {
        let places = if link.dialled { &mut self.asking } else { &mut self.answering };
        let place = &mut places[link.number];
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        *place = Some(slot);
        if slot == self.slots.len() {
            self.slots.push(Some(link));
        } else {
            self.slots[slot] = Some(link);
        }
        slot
    }

    fn remove(&mut self, slot: usize) -> Option<Link> {
        let link = self.slots.get_mut(slot)?.take()?;
        let places = if link.dialled { &mut self.asking } else { &mut self.answering };
        places[link.number] = None;
        Some(link)
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn all_sent(&self) -> bool {
        self.slots
            .iter()
            .flatten()
            .all(|link| !link.sending && link.output.is_empty() && link.waiting.is_empty())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    fn open_slots(&self) -> impl Iterator<Item = usize> + use<> {
        let open: Vec<usize> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, link)| link.is_some().then_some(slot))
            .collect();
        open.into_iter()
    }
}

impl<R: Reactor> Driver<R> {
    /// Nodes have joined the store; the others keep their numbers.
    pub(crate) fn more_nodes(&mut self, map: &Arc<StoreMap>) {
        self.links.remotes = Remotes::new(map, self.me.node);
        let count = self.links.remotes.addresses().len();
        self.links.asking.resize(count, None);
        self.links.answering.resize(count, None);
        self.map = Arc::clone(map);
        self.shard.nodes(map);
    }

    /// A link that the control thread made.
    pub(crate) fn new_link(&mut self, new: NewLink) {
        let NewLink { peer, boot, dialled, socket, received } = new;
        let Some(number) = self.links.remotes.number(peer) else {
            tracing::error!(
                ?peer,
                "a link to a shard that the map does not have was handed over; it is dropped"
            );
            return;
        };
        let places = if dialled { &self.links.asking } else { &self.links.answering };
        if let Some(older) = places[number] {
            self.end_link(older, &LinkEnd::Replaced);
        }
        let conn = if self.is_stopping() {
            Err("this node stops".to_owned())
        } else {
            let stream = TcpStream::from(socket);
            // A link whose other end has gone already has no address; the reactor will say that it has ended.
            if let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) {
                dkv_io::sockets::spare_congestion_control(&stream, here, there);
            }
            self.reactor.adopt(stream.into()).map_err(|e| e.to_string())
        };
        let conn = match conn {
            Ok(conn) => conn,
            Err(reason) => {
                tracing::warn!(peer = %self.name_of(peer), reason, "a new link cannot be used");
                if dialled {
                    self.shared.board.ended(self.me.shard, number);
                }
                return;
            }
        };
        let now_ns = self.now.boot_ns;
        let slot = self.links.insert(Link {
            peer,
            number,
            boot,
            dialled,
            conn,
            reader: FrameReader::new(),
            input: Vec::new(),
            rest: VecDeque::new(),
            rest_at: 0,
            unfinished: false,
            output: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            spare: Vec::new(),
            sending: false,
            heard_ns: now_ns,
            said_ns: now_ns,
        });
        self.set_role(conn, Role::Link(slot));
        if dialled {
            self.shard.link_up(peer);
            self.shared.board.up(self.me.shard, number);
        }
        tracing::info!(peer = %self.name_of(peer), boot = %format_args!("{:016x}", boot.0), dialled, "link up");
        self.link_bytes(slot, &received);
    }

    /// `node2/0`.
    fn name_of(&self, peer: ShardAddr) -> String {
        format!("{}/{}", self.map.node(peer.node).name, peer.shard.0)
    }

    /// Ends a link, whoever wants it.
    pub(crate) fn end_link(&mut self, slot: usize, why: &LinkEnd) {
        let Some(link) = self.links.remove(slot) else { return };
        self.set_role(link.conn, Role::Closing);
        self.reactor.close(link.conn);
        if link.dialled {
            // Its waiting requests are answered now; the orders that come of it are carried out in this turn.
            self.shard.link_down(link.peer);
            self.shared.board.ended(self.me.shard, link.number);
        }
        let peer = self.name_of(link.peer);
        let boot = format!("{:016x}", link.boot.0);
        if matches!(why, LinkEnd::Replaced | LinkEnd::Stopping) {
            tracing::info!(peer, boot, dialled = link.dialled, "link ended: {why}");
        } else {
            tracing::warn!(peer, boot, dialled = link.dialled, "link lost: {why}");
        }
    }

    pub(crate) fn link_received(&mut self, slot: usize, chunk: Chunk) {
        let bytes = self.reactor.bytes(&chunk);
        if let Some(link) = self.links.slots.get_mut(slot).and_then(Option::as_mut) {
            link.heard_ns = self.now.boot_ns;
            let result = take_frames(link, bytes, &mut self.shard, self.now);
            self.reactor.give_back(chunk);
            self.worked("link");
            self.after_frames(slot, result);
        } else {
            self.reactor.give_back(chunk);
        }
    }

    /// Bytes that lie elsewhere than in a chunk.
    fn link_bytes(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(link) = self.links.slots.get_mut(slot).and_then(Option::as_mut) {
            let result = take_frames(link, bytes, &mut self.shard, self.now);
            self.after_frames(slot, result);
        }
    }

    /// Goes on with links for which the turn was too short.
    pub(crate) fn go_on_links(&mut self) {
        for slot in 0..self.links.slots.len() {
            let link = self.links.slots[slot].as_mut();
            let Some(link) = link.filter(|link| link.unfinished) else { continue };
            // Our own stillness was no silence of the other end.
            link.heard_ns = self.now.boot_ns;
            self.link_bytes(slot, &[]);
            self.worked("link");
        }
    }

    fn after_frames(&mut self, slot: usize, result: Result<(), LinkEnd>) {
        if let Err(why) = result {
            self.end_link(slot, &why);
            return;
        }
        let Some(link) = self.links.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        self.more |= link.unfinished;
        self.send_link(slot);
    }

    /// Sends what waits, if nothing is under way.
    fn send_link(&mut self, slot: usize) {
        let Some(link) = self.links.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if link.sending || link.output.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut link.output);
        link.sending = true;
        link.said_ns = self.now.boot_ns;
        self.reactor.send(link.conn, buffer, Vec::new());
    }

    pub(crate) fn link_sent(&mut self, slot: usize, mut buffer: Vec<u8>) {
        let Some(link) = self.links.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        link.sending = false;
        link.said_ns = self.now.boot_ns;
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            buffer.clear();
            link.spare = buffer;
        }
        if !link.rest.is_empty() && link.output.is_empty() && link.waiting.is_empty() {
            self.link_bytes(slot, &[]);
        }
        self.send_link(slot);
    }

    /// Frames a batch for a shard of another node, requests or messages. It was given only because the link is up.
    pub(crate) fn ask(&mut self, to: ShardAddr, kind: FrameKind, batch: &[u8]) {
        let slot = self.links.remotes.number(to).and_then(|number| self.links.asking[number]);
        let link = slot.and_then(|slot| self.links.slots[slot].as_mut());
        let Some(link) = link else {
            tracing::error!(?to, "a batch for a link that is down is dropped");
            return;
        };
        let start = link.begin_frame();
        link.output.extend_from_slice(batch);
        frame::end_frame(&mut link.output, start, kind);
    }

    /// Frames what the copies of ranges say to others, where it will be sent from.
    pub(crate) fn speak_to_copies(&mut self) {
        loop {
            // Two readings beside 32 KiB of records and more; without a resync there is none.
            let began_ns = self.shard.fills_copies().then(thread_cpu_ns);
            let Some(to) = self.shard.next_peer() else { return };
            let slot = self.links.remotes.number(to).and_then(|number| self.links.asking[number]);
            let Some(link) = slot.and_then(|slot| self.links.slots[slot].as_mut()) else {
                tracing::error!(?to, "messages for a link that is down are dropped");
                self.shard.write_peer_batch(&mut Vec::new());
                continue;
            };
            let start = link.begin_frame();
            if self.shard.write_peer_batch(&mut link.output) {
                frame::end_frame(&mut link.output, start, FrameKind::Peer);
            } else {
                link.output.truncate(start);
            }
            if let Some(began_ns) = began_ns {
                let us = (thread_cpu_ns() - began_ns).div_ceil(1000);
                self.stats.resync_us_max.raise(us);
            }
        }
    }

    /// Ends the links whose other end stands still and was replaced.
    pub(crate) fn end_still_links(&mut self) {
        while let Some(peer) = self.shard.next_still_link() {
            let slot = self.links.remotes.number(peer).and_then(|number| self.links.asking[number]);
            if let Some(slot) = slot {
                self.end_link(slot, &LinkEnd::Still);
            }
        }
    }

    /// Starts the sends that this turn has made.
    pub(crate) fn send_links(&mut self) {
        for slot in 0..self.links.slots.len() {
            if let Some(link) = self.links.slots[slot].as_mut() {
                release(link, &mut self.shard);
            }
            self.send_link(slot);
        }
    }

    /// Looks who is silent and says that we are there.
    pub(crate) fn tick_links(&mut self) {
        let now_ns = self.now.boot_ns;
        let gap = now_ns - self.links.last_tick_ns;
        self.links.last_tick_ns = now_ns;
        if gap > LATE_TICK_NS {
            // We were stopped or busy, and what the others said meanwhile may still lie in the sockets.
            for link in self.links.slots.iter_mut().flatten() {
                link.heard_ns = now_ns;
            }
        }
        for slot in self.links.open_slots() {
            let Some(link) = self.links.slots[slot].as_mut() else { continue };
            let silent_ns = now_ns.saturating_sub(link.heard_ns);
            if silent_ns > DEAD_AFTER_NS {
                let busy = silent_ns <= STUCK_AFTER_NS
                    && self
                        .reactor
                        .acknowledged(link.conn)
                        .is_some_and(|a| a.full || a.last < ACKNOWLEDGED_WITHIN);
                if !busy {
                    self.end_link(slot, &LinkEnd::Silent(silent_ns / 1_000_000));
                    continue;
                }
            }
            // A little early, because the next tick may come a little late.
            if !link.sending
                && link.output.is_empty()
                && now_ns - link.said_ns >= PING_AFTER_NS * 3 / 4
            {
                let start = link.begin_frame();
                frame::end_frame(&mut link.output, start, FrameKind::Ping);
                self.send_link(slot);
            }
        }
    }

    /// Ends all links, at the end of the node.
    pub(crate) fn end_links(&mut self) {
        for slot in self.links.open_slots() {
            self.end_link(slot, &LinkEnd::Stopping);
        }
    }
}

/// Executes every complete frame of what the link received before and `bytes`, and keeps the rest. Requests that have to
/// wait do not keep anything else waiting.
fn take_frames(
    link: &mut Link,
    bytes: &[u8],
    shard: &mut dkv_shard::Shard,
    now: dkv_shard::command::Now,
) -> Result<(), LinkEnd> {
    let until_ns = now.boot_ns + TURN_NS_MAX;
    link.unfinished = false;
    // The common case is a chunk of whole frames and nothing kept: then nothing is copied.
    let kept = !link.input.is_empty();
    if kept {
        link.input.extend_from_slice(bytes);
    }
    let mut input = std::mem::take(&mut link.input);
    let all: &[u8] = if kept { &input } else { bytes };
    let mut at = 0;
    let mut over = false;
    while at < all.len() && !over {
        let Some((kind, body, used)) = link.reader.next(&all[at..]).map_err(LinkEnd::Frame)? else {
            break;
        };
        at += used;
        match kind {
            FrameKind::Requests if !link.dialled => {
                let done = if link.rest.is_empty() {
                    answer(link, body, shard, now, until_ns)?
                } else {
                    0
                };
                if done < body.len() {
                    if link.rest.len() == BATCHES_UNDER_WAY_MAX {
                        let text = "more batches of requests than may be under way";
                        return Err(LinkEnd::Batch(text.to_owned()));
                    }
                    link.rest.push_back(body[done..].to_vec());
                }
            }
            // Copies speak like those who ask: each over the links that it dialled.
            FrameKind::Peer if !link.dialled => {
                shard.peer(now, link.peer, body).map_err(|e| LinkEnd::Batch(e.to_string()))?;
            }
            FrameKind::Replies if link.dialled => {
                shard
                    .replies(now, link.peer, body)
                    .map_err(|e| LinkEnd::Batch(format!("replies: {e}")))?;
            }
            FrameKind::Ping => {}
            other => {
                return Err(LinkEnd::Batch(format!("a frame of kind {other:?} is out of place")));
            }
        }
        over = kind != FrameKind::Ping && boottime_ns() > until_ns;
        link.unfinished |= over;
    }
    let rest = all.len() - at;
    if kept {
        if rest == 0 && input.capacity() > KEPT_BUFFER_BYTES_MAX {
            input = Vec::new();
        } else {
            input.copy_within(at.., 0);
            input.truncate(rest);
        }
    } else {
        input.extend_from_slice(&bytes[at..]);
    }
    link.input = input;
    if over { Ok(()) } else { answer_rest(link, shard, now, until_ns) }
}

/// Frames the replies that need not wait for the copies any more.
fn release(link: &mut Link, shard: &mut dkv_shard::Shard) {
    while let Some((replies, hold)) = link.waiting.front_mut() {
        let len = replies.len();
        if !shard.release(hold, replies) {
            return;
        }
        let Some((replies, _)) = link.waiting.pop_front() else { return };
        let start = link.begin_frame();
        link.output.extend_from_slice(&replies);
        frame::end_frame(&mut link.output, start, FrameKind::Replies);
        link.waiting_bytes -= len;
    }
}

/// Goes on with the batches that were left.
fn answer_rest(
    link: &mut Link,
    shard: &mut dkv_shard::Shard,
    now: dkv_shard::command::Now,
    until_ns: u64,
) -> Result<(), LinkEnd> {
    while !link.unfinished
        && let Some(batch) = link.rest.pop_front()
    {
        link.rest_at += answer(link, &batch[link.rest_at..], shard, now, until_ns)?;
        if link.rest_at < batch.len() {
            link.rest.push_front(batch);
            break;
        }
        link.rest_at = 0;
    }
    Ok(())
}

/// Executes a batch and frames its replies; how many bytes of it were used. Whatever the replies weigh, no more of them
/// wait to be sent than one above the bound, and whatever the requests take, the turn ends: the requests behind are to be
/// kept.
fn answer(
    link: &mut Link,
    batch: &[u8],
    shard: &mut dkv_shard::Shard,
    now: dkv_shard::command::Now,
    until_ns: u64,
) -> Result<usize, LinkEnd> {
    let mut at = 0;
    while at < batch.len() && link.has_room() {
        let before = link.output.len();
        let start = link.begin_frame();
        let mut hold = Hold::default();
        let used = shard
            .requests_held(now, link.peer, &batch[at..], &mut link.output, &mut hold)
            .map_err(|e| LinkEnd::Batch(format!("requests: {e}")))?;
        if used == 0 {
            link.output.truncate(before);
        } else if hold.is_empty() && link.waiting.is_empty() {
            frame::end_frame(&mut link.output, start, FrameKind::Replies);
        } else {
            let replies = link.output[start + frame::HEADER_BYTES..].to_vec();
            link.output.truncate(before);
            link.waiting_bytes += replies.len();
            link.waiting.push_back((replies, hold));
        }
        at += used;
        if used == 0 || boottime_ns() > until_ns {
            link.unfinished = true;
            break;
        }
    }
    Ok(at)
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
