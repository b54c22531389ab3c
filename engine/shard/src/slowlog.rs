//! Commands that took long: the last ones that this shard executed, as SLOWLOG shows them.
//!
//! Each shard keeps what it executed, for a client of its own or for another shard; the node's log is all of them in the order
//! of their ids, which are the node's.

use crate::command::Args;
use crate::session::Session;
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::map::StoreMap;
use dkv_protocol::resp::reply;

/// Arguments that an entry keeps, the note on how many more there were included, and bytes of each (Redis' own).
const ARGUMENTS_MAX: usize = 32;
const ARGUMENT_BYTES_MAX: usize = 128;
/// What stands for an argument that nobody is to read.
const REDACTED: &[u8] = b"(redacted)";

/// For whom a command was executed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    /// A client of this shard.
    Client(&'a Session),
    /// A client of another one.
    Shard(ShardAddr),
}

/// A command that took long.
#[derive(Debug)]
pub(crate) struct Slow {
    id: u64,
    unix_s: u64,
    times: Times,
    args: Vec<Box<[u8]>>,
    client: String,
    name: Box<[u8]>,
}

/// Where the time of a command went, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Until it began: the others of its turn, and what its connection had to wait for before.
    pub(crate) queue_us: u64,
    /// Its execution, which is what makes it slow.
    pub(crate) us: u64,
    /// From then until the kernel had taken its reply, copies that the reply had to wait for included. None before that, and
    /// where another shard sends the reply.
    pub(crate) flush_us: Option<u64>,
}

impl Slow {
    /// `number` is the entry's id and the unix time in seconds.
    pub(crate) fn new(
        (id, unix_s): (u64, u64),
        times: Times,
        args: Args<'_>,
        who: &Who<'_>,
        map: &StoreMap,
    ) -> Self {
        let (client, name) = match who {
            Who::Client(session) => (session.peer.to_string(), session.name.clone()),
            // The client is known to the shard that asked; it is named as it is in CLUSTER NODES.
            Who::Shard(addr) => {
                let node = map.node(addr.node);
                let port = node.shard_ports.get(usize::from(addr.shard.0)).copied();
                let port = port.unwrap_or(node.client_port);
                (format!("{}:{port}", node.address), node.name.as_bytes().into())
            }
        };
        Self { id, unix_s, times, args: kept(args), client, name }
    }

    fn write(&self, with_times: bool, out: &mut Vec<u8>) {
        reply::array(out, if with_times { 8 } else { 6 });
        for number in [self.id, self.unix_s, self.times.us] {
            reply::integer(out, number as i64);
        }
        reply::array(out, self.args.len());
        self.args.iter().for_each(|arg| reply::bulk(out, arg));
        reply::bulk(out, self.client.as_bytes());
        reply::bulk(out, &self.name);
        if with_times {
            reply::integer(out, self.times.queue_us as i64);
            reply::integer(out, self.times.flush_us.map_or(-1, |us| us as i64));
        }
    }
}

/// Replies whose way to the kernel is timed, of one connection at a time; more are not.
const FLUSHES_MAX: usize = 16;

/// Replies of slow commands that a connection has not been sent.
#[derive(Debug, Default)]
pub(crate) struct Flushes(Vec<Flush>);

#[derive(Debug)]
struct Flush {
    id: u64,
    executed_ns: u64,
    /// Bytes to send until the end of the reply.
    left: usize,
}

impl Session {
    /// The reply of a slow command is the last of what there is to send.
    #[cold]
    pub(crate) fn time_flush(&mut self, slow: SlowReply) {
        let left = self.replies.unsent();
        let flushes = &mut self.flushes.get_or_insert_default().0;
        if flushes.len() < FLUSHES_MAX {
            flushes.push(Flush { id: slow.id, executed_ns: slow.executed_ns, left });
        }
    }
}

/// A slow command that was executed for a connection of this shard just now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowReply {
    pub(crate) id: u64,
    pub(crate) executed_ns: u64,
}

impl Shard {
    /// What was being sent to a connection with replies that are timed has been sent.
    #[cold]
    pub(crate) fn note_flushed(&mut self, session: &mut Session) {
        let sent = session.replies.sending();
        let Some(flushes) = session.flushes.as_mut().filter(|_| sent > 0) else { return };
        let now_ns = (self.env.clock)();
        flushes.0.retain_mut(|flush| {
            flush.left = flush.left.saturating_sub(sent);
            if flush.left == 0 {
                self.slow.flushed(flush.id, now_ns.saturating_sub(flush.executed_ns) / 1000);
            }
            flush.left > 0
        });
        if flushes.0.is_empty() {
            session.flushes = None;
        }
    }
}

/// What an entry keeps of a command.
fn kept(args: Args<'_>) -> Vec<Box<[u8]>> {
    let name = args.get(0);
    // A transaction came as one request of the session; what is in it is for shards to read.
    if name.starts_with(b"DKV.EXEC") {
        return [Box::from(&b"EXEC"[..])].into();
    }
    let all = args.len();
    let whole = if all > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { all };
    let mut kept: Vec<Box<[u8]>> = args
        .iter_from(0)
        .take(whole)
        .enumerate()
        .map(|(i, arg)| match arg.len().checked_sub(ARGUMENT_BYTES_MAX) {
            _ if is_secret(args, i) => REDACTED.into(),
            None | Some(0) => arg.into(),
            Some(more) => {
                let mut cut = arg[..ARGUMENT_BYTES_MAX].to_vec();
                cut.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                cut.into()
            }
        })
        .collect();
    if all > whole {
        kept.push(format!("... ({} more arguments)", all - whole).into_bytes().into());
    }
    kept
}

/// Whether an argument may be a password or the name of a user.
pub(crate) fn is_secret(args: Args<'_>, i: usize) -> bool {
    if i < secret_from(args) {
        return false;
    }
    if !args.get(0).eq_ignore_ascii_case(b"HELLO") {
        return true;
    }
    let mut at = 2;
    while at < i {
        let option = args.get(at);
        at += match () {
            () if option.eq_ignore_ascii_case(b"AUTH") && i <= at + 2 => return true,
            () if option.eq_ignore_ascii_case(b"AUTH") => 3,
            () if option.eq_ignore_ascii_case(b"SETNAME") => 2,
            // Nobody knows what was meant from here on.
            () => return true,
        };
    }
    false
}

/// The first argument that may be a password.
fn secret_from(args: Args<'_>) -> usize {
    let is = |i: usize, word: &[u8]| args.len() > i && args.get(i).eq_ignore_ascii_case(word);
    match () {
        () if is(0, b"AUTH") => 1,
        () if is(0, b"HELLO") => 2,
        () if is(0, b"ACL") && is(1, b"SETUSER") => 2,
        () if is(0, b"CONFIG")
            && is(1, b"SET")
            && args.iter_from(2).any(|arg| arg.eq_ignore_ascii_case(b"requirepass")) =>
        {
            2
        }
        () => usize::MAX,
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    entries: VecDeque<Slow>,
}

impl SlowLog {
    /// Adds the latest; at most `len_max` stay.
    pub(crate) fn add(&mut self, slow: Slow, len_max: usize) {
        self.entries.push_back(slow);
        self.shorten(len_max);
    }

    pub(crate) fn shorten(&mut self, len_max: usize) {
        let over = self.entries.len().saturating_sub(len_max);
        self.entries.drain(..over);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }

    /// The reply of a command has been sent, unless it is not among the latest any more.
    fn flushed(&mut self, id: u64, us: u64) {
        if let Some(slow) = self.entries.iter_mut().rev().find(|slow| slow.id == id) {
            slow.times.flush_us = Some(us);
        }
    }

    /// Writes the latest entries, so many at most, the latest first.
    pub(crate) fn write(&self, count: usize, with_times: bool, out: &mut Vec<u8>) {
        reply::array(out, count.min(self.entries.len()));
        self.entries.iter().rev().take(count).for_each(|slow| slow.write(with_times, out));
    }
}
