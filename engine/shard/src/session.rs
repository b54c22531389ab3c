//! What a shard knows of one client connection, and the list of them.
//!
//! An idle connection costs less than a KiB: its buffers are lent to it while it is busy.

use crate::acl::{Checking, User};
use crate::command::Now;
use crate::face::{Opened, PortKind, SessionId};
use crate::pubsub::Listening;
use crate::queue::Replies;
use crate::slowlog::Flushes;
use crate::tracking::{Mode, Seek};
use crate::transaction::{Awaited, Transaction};
use crate::users::Change;
use crate::waits::{Wait, Written};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use dkv_protocol::ids::RangeId;
use dkv_protocol::limits::{
    OUTPUT_BYTES_MAX, UNAUTHENTICATED_OUTPUT_BYTES_MAX, WAITING_PER_CONNECTION_MAX,
};
use dkv_protocol::resp::Proto;
use dkv_protocol::resp::request::{Limits, RequestParser};
use dkv_table::{Block, Large};

/// What a forwarded reply is taken to weigh before any has come, in bytes: a connection begins with 4 commands under way,
/// which may all bring the greatest value, and may have [`WAITING_PER_CONNECTION_MAX`] after a few dozen small replies.
const REPLY_BYTES_ASSUMED: u32 = 16 * 1024 * 1024;
/// What such a reply weighs on the way to a shard, where the first commands of many connections come together.
const REPLY_BYTES_UNKNOWN: u32 = 1024 * 1024;

/// How long a client that has much to read may take until it has read a piece of it, in milliseconds, and how fast it must
/// read in bytes per millisecond when that piece is great.
const OUTPUT_GRACE_MS: u64 = 10_000;
const OUTPUT_BYTES_PER_MS_MIN: u64 = 8 * 1024;
/// Unsent bytes of one connection that nobody minds.
pub(crate) const OUTPUT_FAIR_BYTES: usize = 1024 * 1024;

/// Why a connection's commands wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// They do not.
    None,
    /// Too many of them wait for other shards.
    Replies,
    /// The way to that shard is full.
    Link(u16),
    /// The client has many replies to read.
    Output,
    /// They have had their share of this turn.
    Turn,
    /// A WAIT waits for copies.
    Copies,
    /// CLIENT PAUSE holds back its next command.
    Pause,
    /// The managers are asked to change users.
    Users,
    /// A walk through the keys has not found all of them.
    Walk,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It does not.
    No,
    /// After the replies that are due.
    Settling,
    /// The driver has been told.
    Ordered,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) client_id: u64,
    pub(crate) port: PortKind,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) opened_ms: u64,
    /// Since when it is nobody, where it has to say who it is, and whether there is a deadline for that.
    pub(crate) nobody_since_ms: u64,
    pub(crate) has_deadline: bool,
    pub(crate) active_ms: u64,
    pub(crate) name: Box<[u8]>,
    pub(crate) lib_name: Box<[u8]>,
    pub(crate) lib_ver: Box<[u8]>,
    pub(crate) proto: Proto,
    pub(crate) authenticated: bool,
    /// Whether it came, or was reset, while the default user had to say a password, and has said none since: it is that user
    /// only as long as none is needed, as in Redis.
    pub(crate) unproven: bool,
    /// Whether it is a user who may do everything: nothing is looked at then.
    pub(crate) free: bool,
    /// Who it is, once that is known.
    pub(crate) user: Option<Arc<User>>,
    /// Whether that one may execute the next command, where it may not do everything.
    pub(crate) checking: Checking,
    pub(crate) readonly: bool,
    /// CLIENT NO-EVICT, NO-TOUCH and REPLY.
    pub(crate) no_evict: bool,
    pub(crate) no_touch: bool,
    pub(crate) reply_off: bool,
    /// The next command has no reply.
    pub(crate) skip_next: bool,
    /// The place in the queue of replies of a walk that was begun: what is sent behind it must not change what it finds.
    pub(crate) walking: Option<u32>,
    /// How it tracks the keys that it reads.
    pub(crate) tracking: Option<Box<Mode>>,
    /// Whether any of this makes the execution of its commands something special.
    pub(crate) is_odd: bool,
    /// Name of the last command, and of its subcommand.
    pub(crate) last: (&'static str, &'static str),
    pub(crate) parser: RequestParser,
    /// Received and not executed: an unfinished request, or more while the connection is stalled.
    pub(crate) input: Vec<u8>,
    /// The argument that is being received into memory of its own, and those of the unfinished request that have been.
    pub(crate) filling: Option<Block>,
    /// Bytes still to come of an argument that no memory is there for.
    pub(crate) dropping: usize,
    pub(crate) large: Vec<Large>,
    /// How long `input` must be before parsing it again can succeed; 0 when unknown.
    pub(crate) need: usize,
    pub(crate) replies: Replies,
    pub(crate) stall: Stall,
    /// Since when something of it waits that was received (CLOCK_BOOTTIME); 0: nothing that is known.
    pub(crate) waits_since_ns: u64,
    pub(crate) flushes: Option<Box<Flushes>>,
    pub(crate) end: End,
    /// Whether the driver has been asked to stop reading.
    pub(crate) paused: bool,
    /// Whether the driver has been asked to take output.
    pub(crate) flushing: bool,
    /// Mean weight of recent forwarded replies, bytes.
    pub(crate) reply_bytes: u32,
    /// The same of the last few alone.
    expected_bytes: u32,
    /// What was written, in a store with copies.
    pub(crate) written: Written,
    /// A WAIT that waits.
    pub(crate) wait: Option<Box<Wait>>,
    /// A connection that CLIENT TRACKING looks for.
    pub(crate) seek: Option<Box<Seek>>,
    /// A change of users that it wants.
    pub(crate) change: Option<Box<Change>>,
    /// Whether the shard has it in its list of those that wait.
    pub(crate) listed_in_wait: bool,
    /// Whether a command of a transaction runs that the session executes itself.
    pub(crate) in_exec: bool,
    /// What MULTI and WATCH have begun.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// A reply that the session itself waits for.
    pub(crate) awaited: Option<Box<Awaited>>,
    /// What it is subscribed to; also how far a command of publish and subscribe is.
    pub(crate) listening: Option<Box<Listening>>,
    /// Whether it is shown the commands of the node (MONITOR).
    pub(crate) looks_on: bool,
    /// The range that the next reply waits for, where the connection is listed for it.
    pub(crate) listed: Option<RangeId>,
    /// Share of this connection in the shard's total of unsent bytes.
    pub(crate) accounted: usize,
    /// Since when it leaves more unread than its soft limit (CLOCK_BOOTTIME, milliseconds); 0: it does not.
    pub(crate) over_soft_since_ms: u64,
    /// When it last took what it was sent, or had little to take (CLOCK_BOOTTIME, milliseconds).
    pub(crate) progress_ms: u64,
}

impl Session {
    /// What was received waits from now on, if it did not already.
    pub(crate) fn waits_from(&mut self, now: Now) {
        if self.waits_since_ns == 0 {
            self.waits_since_ns = now.boot_ns;
        }
    }

    fn new(id: SessionId, now: Now, opened: Opened, default: &Arc<User>) -> Self {
        let mut session = Self {
            id,
            client_id: opened.id,
            port: opened.port,
            peer: opened.peer,
            local: opened.local,
            opened_ms: now.boot_ms(),
            nobody_since_ms: now.boot_ms(),
            has_deadline: false,
            active_ms: now.boot_ms(),
            name: Box::default(),
            lib_name: Box::default(),
            lib_ver: Box::default(),
            proto: Proto::Resp2,
            authenticated: false,
            unproven: false,
            free: false,
            user: None,
            checking: Checking::Unknown,
            readonly: false,
            no_evict: false,
            no_touch: false,
            reply_off: false,
            skip_next: false,
            walking: None,
            tracking: None,
            is_odd: false,
            last: ("NULL", ""),
            parser: RequestParser::default(),
            input: Vec::new(),
            filling: None,
            dropping: 0,
            large: Vec::new(),
            need: 0,
            replies: Replies::default(),
            stall: Stall::None,
            waits_since_ns: 0,
            flushes: None,
            end: End::No,
            paused: false,
            flushing: false,
            reply_bytes: REPLY_BYTES_ASSUMED,
            expected_bytes: REPLY_BYTES_UNKNOWN,
            written: Written::default(),
            wait: None,
            seek: None,
            change: None,
            listed_in_wait: false,
            in_exec: false,
            transaction: None,
            awaited: None,
            listening: None,
            looks_on: false,
            listed: None,
            accounted: 0,
            over_soft_since_ms: 0,
            progress_ms: now.boot_ms(),
        };
        session.become_nobody(default);
        session
    }

    /// Whether new bytes are to be executed as they are: nothing before them waits. An argument that is being received
    /// into memory of its own belongs to a request whose beginning is in `input`.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.input.is_empty() && self.stall == Stall::None && self.end == End::No
    }

    /// Lets go of all that was received and not executed: no more of this connection will be.
    pub(crate) fn forget_input(&mut self) {
        self.input = Vec::new();
        self.filling = None;
        self.dropping = 0;
        self.large = Vec::new();
        self.checking = Checking::Unknown;
        self.transaction = None;
        self.awaited = None;
        self.wait = None;
        self.seek = None;
        self.change = None;
    }

    /// Whether the connection speaks of the whole store.
    #[inline]
    pub(crate) fn whole_store(&self) -> bool {
        self.port == PortKind::Client
    }

    /// What one request may be.
    #[inline]
    pub(crate) fn limits(&self) -> &'static Limits {
        if self.authenticated { &Limits::AUTHENTICATED } else { &Limits::UNAUTHENTICATED }
    }

    /// Most unsent bytes before the next command.
    #[inline]
    pub(crate) fn output_bytes_max(&self) -> usize {
        if self.authenticated { OUTPUT_BYTES_MAX } else { UNAUTHENTICATED_OUTPUT_BYTES_MAX }
    }

    /// Whether a walk of its own has not found all keys yet.
    pub(crate) fn is_walking(&self) -> bool {
        self.walking.is_some_and(|slot| self.replies.is_walking(slot))
    }

    /// How many commands may wait for other shards: as many as bring no more than the output may hold, going by the
    /// replies that came last.
    pub(crate) fn waiting_max(&self) -> usize {
        (OUTPUT_BYTES_MAX / (self.reply_bytes as usize).max(1)).clamp(1, WAITING_PER_CONNECTION_MAX)
    }

    /// How many bytes to expect of the next forwarded reply, on the way to its shard.
    pub(crate) fn expected_bytes(&self) -> u32 {
        self.expected_bytes
    }

    /// A forwarded reply of that many bytes has come.
    pub(crate) fn weigh(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.expected_bytes = self.expected_bytes / 2 + bytes / 2;
        self.reply_bytes = self.reply_bytes - self.reply_bytes / 8 + bytes / 8;
    }

    /// Whether the client takes longer to read than a slow network would: some seconds, and more for a great reply.
    pub(crate) fn is_slow(&self, now_ms: u64) -> bool {
        self.accounted > OUTPUT_FAIR_BYTES
            && now_ms.saturating_sub(self.progress_ms)
                > OUTPUT_GRACE_MS + self.replies.sending() as u64 / OUTPUT_BYTES_PER_MS_MIN
    }

    /// The connection's share of memory, for CLIENT LIST.
    pub(crate) fn memory_bytes(&self) -> usize {
        let large = self.large.iter().map(|large| large.len()).sum::<usize>();
        let filling = self.filling.as_ref().map_or(0, Block::len);
        let transaction = self.transaction.as_ref().map_or(0, |one| one.memory_bytes());
        let listening = self.listening.as_ref().map_or(0, |own| own.memory_bytes());
        let buffers = self.input.capacity() + self.replies.buffer_bytes();
        size_of::<Self>() + buffers + large + filling + transaction + listening
    }
}

/// The connections of a shard. One that is being worked on is taken out, so that the shard stays free to be changed.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    places: Vec<Place>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    session: Option<Box<Session>>,
}

impl Sessions {
    /// A new connection.
    pub(crate) fn open(&mut self, now: Now, opened: Opened, default: &Arc<User>) -> SessionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, session: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        let id = SessionId { index, generation: place.generation };
        place.session = Some(Box::new(Session::new(id, now, opened, default)));
        self.len += 1;
        id
    }

    /// Takes a connection out to work on it; it must be put back.
    #[inline]
    pub(crate) fn take(&mut self, id: SessionId) -> Option<Box<Session>> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation { place.session.take() } else { None }
    }

    /// Whether a connection is there and taken out.
    pub(crate) fn is_taken(&self, id: SessionId) -> bool {
        let place = self.places.get(id.index as usize);
        place.is_some_and(|place| place.generation == id.generation && place.session.is_none())
    }

    /// A look at a connection.
    #[inline]
    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        let place = self.places.get(id.index as usize)?;
        if place.generation == id.generation { place.session.as_deref() } else { None }
    }

    /// Puts back what was taken.
    #[inline]
    pub(crate) fn put(&mut self, session: Box<Session>) {
        let index = session.id.index as usize;
        self.places[index].session = Some(session);
    }

    /// Forgets a connection.
    pub(crate) fn close(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.take(id)?;
        let place = &mut self.places[id.index as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        self.len -= 1;
        Some(session)
    }

    /// Number of connections.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The connection, of those with much to read, that has taken none of it for the longest.
    pub(crate) fn slowest(&self) -> Option<SessionId> {
        self.iter()
            .filter(|s| s.accounted > OUTPUT_FAIR_BYTES && s.end != End::Ordered)
            .min_by_key(|s| s.progress_ms)
            .map(|s| s.id)
    }

    /// The connections that read too slowly to be waited for; those whose commands wait for that if not `any`.
    pub(crate) fn slow(&self, now_ms: u64, any: bool) -> Vec<SessionId> {
        self.iter()
            .filter(|s| (any || s.stall == Stall::Output) && s.is_slow(now_ms))
            .map(|s| s.id)
            .collect()
    }

    /// All connections but those that are taken out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.places.iter().filter_map(|place| place.session.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_less_than_a_kib() {
        assert!(size_of::<Session>() + size_of::<Place>() + 16 < 1024, "{}", size_of::<Session>());
    }
}
