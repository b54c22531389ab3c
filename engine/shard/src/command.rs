//! What a command is: its place in the table of commands, its arguments, and what it may touch while it runs.

use crate::gates::Gates;
use crate::settings::Settings;
use crate::stats::{Counter, ShardStats};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::map::StoreMap;
use dkv_protocol::resp::Proto;
use dkv_protocol::resp::request::OUTSIDE;
use dkv_protocol::slots::slot_of;
use dkv_table::{Large, Place, Table};

/// The time of one turn. Expiry counts on `boot_ms`, which no change of the wall clock moves; `unix_ms` only translates
/// what clients say and hear in calendar time. The driver keeps `unix_ms - boot_ms` constant for as long as nobody sets the
/// wall clock, so that a deadline given as calendar time reads back exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// CLOCK_REALTIME, milliseconds.
    pub unix_ms: u64,
}

impl Now {
    /// CLOCK_BOOTTIME, milliseconds.
    #[inline]
    pub const fn boot_ms(self) -> u64 {
        self.boot_ns / 1_000_000
    }
}

/// The arguments of one command, the name first. Borrowed from wherever the request lies.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    /// Start and end of each argument in `bytes`; [`OUTSIDE`] and its number for one of `large`.
    spans: &'a [(u32, u32)],
    large: &'a [Large],
}

impl<'a> Args<'a> {
    /// `spans` must lie inside `bytes`.
    pub const fn new(bytes: &'a [u8], spans: &'a [(u32, u32)]) -> Self {
        Self { bytes, spans, large: &[] }
    }

    /// The same with arguments that were received into memory of their own.
    pub const fn with_large(bytes: &'a [u8], spans: &'a [(u32, u32)], large: &'a [Large]) -> Self {
        Self { bytes, spans, large }
    }

    /// Some of the arguments of this command: those whose spans are in `spans`.
    pub const fn with_spans<'b>(&self, spans: &'b [(u32, u32)]) -> Args<'b>
    where
        'a: 'b,
    {
        Args { bytes: self.bytes, spans, large: self.large }
    }

    #[inline]
    fn at(&self, span: (u32, u32)) -> &'a [u8] {
        match span {
            (OUTSIDE, number) => &self.large[number as usize],
            (start, end) => &self.bytes[start as usize..end as usize],
        }
    }

    /// Argument `i` as memory that can be kept, when it was received into its own.
    #[inline]
    pub fn large(&self, i: usize) -> Option<&'a Large> {
        match self.spans[i] {
            (OUTSIDE, number) => self.large.get(number as usize),
            _ => None,
        }
    }

    /// Number of arguments, the name included.
    #[inline]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `i`; panics when there are fewer.
    #[inline]
    pub fn get(&self, i: usize) -> &'a [u8] {
        self.at(self.spans[i])
    }

    /// All arguments from `from` on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = &'a [u8]> + 'a {
        let all = *self;
        self.spans[from.min(self.spans.len())..].iter().map(move |&span| all.at(span))
    }

    /// `len` arguments from `from` on, as a command of their own.
    pub fn slice(&self, from: usize, len: usize) -> Self {
        Self { spans: &self.spans[from..from + len], ..*self }
    }

    /// Where the arguments at `positions` lie: a part of a command, for [`Args::with_spans`].
    pub fn select(&self, positions: &[usize]) -> Vec<(u32, u32)> {
        positions.iter().map(|i| self.spans[*i]).collect()
    }
}

/// What does not change while a node runs, shared by its shards.
#[derive(Debug)]
pub struct Env {
    /// The store's name.
    pub store: String,
    /// The store's identity; the ids of its shards are made from it.
    pub store_id: String,
    /// This node's name.
    pub node: String,
    /// The node's boot as 40 hexadecimal digits, for `run_id`.
    pub run_id: String,
    /// The process.
    pub pid: u32,
    /// The node's machine, as it is advertised.
    pub address: IpAddr,
    /// The client port.
    pub client_port: u16,
    /// When the node began to serve (CLOCK_BOOTTIME, milliseconds).
    pub started_boot_ms: u64,
    /// The map of the store.
    pub map: Arc<StoreMap>,
    /// SHA-256 of the client password.
    pub password_sha256: Option<[u8; 32]>,
    /// Whether clients from elsewhere are refused while there is no password.
    pub protected_mode: bool,
    /// What CONFIG SET may change.
    pub settings: Settings,
    /// Nanoseconds on a clock that never goes back, for how long commands take. It is read only around a command that may take
    /// long, or for somebody who wants to know of every one; the simulator's stands still.
    pub clock: fn() -> u64,
    /// Fills bytes that nobody can guess; whether it could. The simulator's are always the same.
    pub random: fn(&mut [u8]) -> bool,
    /// Kernel features in use, for INFO.
    pub io: String,
    /// The counters of this node's shards, in order.
    pub stats: Vec<Arc<ShardStats>>,
    /// What the process costs its machine.
    pub process: ProcessStats,
}

impl Env {
    /// The part of the memory limit that one shard has, in bytes; 0 is none.
    pub fn shard_memory_bytes_max(&self) -> u64 {
        match self.settings.memory_bytes_max.get() {
            0 => 0,
            limit => (limit / self.stats.len().max(1) as u64).max(1),
        }
    }

    /// The policy as the tables know it.
    pub fn table_eviction(&self) -> dkv_table::Eviction {
        use dkv_table::Eviction as Table;
        match self.settings.eviction() {
            Eviction::None => Table::None,
            Eviction::AllKeysLru => Table::AllKeysLru,
            Eviction::AllKeysLfu => Table::AllKeysLfu,
            Eviction::AllKeysRandom => Table::AllKeysRandom,
            Eviction::VolatileLru => Table::VolatileLru,
            Eviction::VolatileLfu => Table::VolatileLfu,
            Eviction::VolatileRandom => Table::VolatileRandom,
            Eviction::VolatileTtl => Table::VolatileTtl,
        }
    }
}

/// Gauges of the process, sampled by whoever drives the shards (the node's control thread); 0 until it has.
#[derive(Debug, Default)]
pub struct ProcessStats {
    /// Resident bytes.
    pub resident_bytes: Counter,
    /// CPU time spent in the program, microseconds.
    pub cpu_user_us: Counter,
    /// CPU time spent in the kernel for it, microseconds.
    pub cpu_system_us: Counter,
}

/// Everything that one command may touch while it runs on the shard that owns its key.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The time of this turn.
    pub now: Now,
    /// The shard's table.
    pub table: &'a mut Table,
    /// The node.
    pub env: &'a Env,
    /// This shard.
    pub me: ShardAddr,
    /// Whether the command came in on a client port, where it speaks of the whole store; on a shard port it speaks of
    /// that shard alone. Only commands of [`Scope::Whole`] look at it.
    pub whole_store: bool,
    /// How the reply must be written.
    pub proto: Proto,
    /// This shard's counters.
    pub stats: &'a ShardStats,
    /// The place of the first key, when the caller has hashed it already (it does, to prefetch); handlers find it
    /// themselves otherwise.
    pub place: Option<Place>,
    /// What goes out between the bytes of the reply without being copied there: ascending positions in the output, each
    /// with what is sent before the byte at it. None where the reply is not for a client's connection, or must be whole.
    pub inserts: Option<&'a mut Inserts>,
    /// Where it is noted what the reply must wait for; none in a store without copies, and at a copy that does not lead.
    pub gates: Option<&'a Gates>,
}

/// See [`Exec::inserts`].
pub type Inserts = Vec<(usize, Bytes)>;

/// Runs a command whose keys, if any, are this shard's, and writes exactly one reply to `out`. The number of arguments
/// fits the command's arity.
pub type Handler = fn(&mut Exec<'_>, Args<'_>, &mut Vec<u8>);

/// Who executes a command, and how several replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The session itself (AUTH, HELLO, CLIENT, QUIT, ASKING, …); its handler is never called.
    Session,
    /// Any shard, without a key (PING, ECHO, COMMAND, CONFIG, CLUSTER SLOTS, …).
    Anywhere,
    /// The owner of the key at `first_key`. When there are more, all of them must be of one slot. A request that ends before
    /// the key is executed by any shard (OBJECT HELP).
    Keyed,
    /// The owner of the slot in argument 2 (CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT; decided by the session).
    Slot,
    /// Each key by its owner; the session splits the command and merges the replies.
    Split(Merge),
    /// On a client port every shard of the store, in a store with copies whoever leads each range; on a shard port that
    /// shard. The session merges the replies.
    Whole(Merge),
    /// SCAN: the owner of the range that the cursor names.
    Cursor,
    /// What shards ask each other about one range: whoever leads the range that the first argument names, as a cursor does.
    Range,
}

/// How the replies of several shards become one. The first error, if any, is the whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The sum of integers (DEL, EXISTS, UNLINK, TOUCH, DBSIZE).
    Sum,
    /// `+OK` when all said so (MSET, FLUSHALL).
    Ok,
    /// Elements back in the order of the keys asked for (MGET).
    InOrder,
    /// One array of all elements, in any order (KEYS).
    Concat,
    /// One of the keys that the shards have each taken by chance, as likely as any other key (RANDOMKEY).
    Random,
    /// INFO: the node's own text, with its keyspace line from the sum of all shards. See `commands::info`.
    Info,
}

/// More keys of a command, of which it does something else with than with the first.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Position of the first of them.
    pub first: i8,
    /// Position of the last; negative counts from the end.
    pub last: i8,
    /// As [`Spec::key_flags`].
    pub flags: &'static [&'static str],
}

/// Facts about a subcommand, as COMMAND tells them.
#[derive(Clone, Copy, Debug)]
pub struct Subcommand {
    /// Lower case.
    pub name: &'static str,
    /// Number of arguments, both names included; negative: at least that many.
    pub arity: i8,
    /// Flags as COMMAND names them.
    pub flags: &'static [&'static str],
    /// What it does with its key, as [`Spec::key_flags`]; empty when it has none. The key is where the container says.
    pub key_flags: &'static [&'static str],
    /// ACL categories as COMMAND names them.
    pub categories: &'static [&'static str],
    /// Hints to cluster clients.
    pub tips: &'static [&'static str],
    /// One sentence, for COMMAND DOCS.
    pub summary: &'static str,
    /// The version of Redis that brought it, for COMMAND DOCS.
    pub since: &'static str,
}

/// Facts about a command, as COMMAND tells them.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Upper case.
    pub name: &'static str,
    /// Number of arguments, the name included; negative: at least that many.
    pub arity: i8,
    /// Flags as COMMAND names them, in Redis' order.
    pub flags: &'static [&'static str],
    /// Position of the first key, 0 for none.
    pub first_key: i8,
    /// Position of the last key; negative counts from the end.
    pub last_key: i8,
    /// Distance between keys.
    pub key_step: i8,
    /// ACL categories as COMMAND names them.
    pub categories: &'static [&'static str],
    /// Hints to cluster clients, as COMMAND names them (`request_policy:all_shards`).
    pub tips: &'static [&'static str],
    /// What it does with its keys, as the key specifications of COMMAND name it (`RO`, `access`); empty without keys.
    pub key_flags: &'static [&'static str],
    /// The keys behind the first, where the command does something else with them.
    pub other_keys: Option<Keys>,
    /// The note that Redis gives with the key specification; mostly empty.
    pub key_notes: &'static str,
    /// Its subcommands, for COMMAND.
    pub subcommands: &'static [Subcommand],
    /// One sentence, for COMMAND DOCS.
    pub summary: &'static str,
    /// The version of Redis that brought it, for COMMAND DOCS.
    pub since: &'static str,
    /// The group of Redis' documentation, for COMMAND DOCS.
    pub group: &'static str,
    /// Who executes it.
    pub scope: Scope,
    /// Its place among all commands; [`u16::MAX`] for what only shards ask each other.
    pub number: u16,
    /// The number of its first subcommand; the others follow.
    pub first_subcommand: u16,
    /// Whether it has a number and no subcommands.
    pub is_plain: bool,
    /// Whether it may take so long that it is worth a look at the clock.
    pub long: bool,
    /// Whether it writes (refused with -OOM by the table when memory is at its limit; INFO's counters).
    pub write: bool,
    /// What runs it.
    pub handler: Handler,
}

impl Spec {
    /// Runs it, as [`Handler`] says. What it does to several keys of a range is one effect for the copies: a shard that takes
    /// over has all of it or nothing.
    #[inline]
    pub(crate) fn run(&self, x: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
        let (first, step) = (self.first_key as usize, self.key_step as usize);
        let one = self.first_key == self.last_key || args.len() <= first + step;
        if x.gates.is_none() || !self.write || one {
            return (self.handler)(x, args, out);
        }
        x.table.begin_unit(u16::from(slot_of(args.get(first)).range().0));
        (self.handler)(x, args, out);
        x.table.end_unit();
    }

    /// The keys among the arguments, which fit its arity.
    pub(crate) fn keys<'a>(&self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let first = usize::try_from(self.first_key).unwrap_or_default();
        let end = match self.last_key {
            _ if first == 0 => 0,
            last @ 0.. => last as usize + 1,
            last => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
        };
        let step = usize::try_from(self.key_step).unwrap_or_default().max(1);
        (first..end.min(args.len())).step_by(step).map(move |i| args.get(i))
    }

    /// What a spec starts from: no keys, no flags, and a handler that refuses.
    pub(crate) const NOTHING: Self = Self {
        name: "",
        arity: 0,
        flags: &[],
        first_key: 0,
        last_key: 0,
        key_step: 0,
        categories: &[],
        tips: &[],
        key_flags: &[],
        other_keys: None,
        key_notes: "",
        subcommands: &[],
        summary: "",
        since: "",
        group: "",
        scope: Scope::Session,
        number: u16::MAX,
        first_subcommand: u16::MAX,
        is_plain: false,
        long: false,
        write: false,
        handler: refuse,
    };

    /// The key that decides who executes the command; none where the request ends before it.
    #[inline]
    pub fn routing_key<'a>(&self, args: Args<'a>) -> Option<&'a [u8]> {
        let first = self.first_key as usize;
        (first > 0 && first < args.len()).then(|| args.get(first))
    }

    /// Whether its keys must all be of one slot.
    #[inline]
    pub const fn has_keys_of_one_slot(&self) -> bool {
        matches!(self.scope, Scope::Keyed) && self.last_key != self.first_key
    }
}

/// What a command of the session answers where there is no session (a request of another shard).
fn refuse(_: &mut Exec<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let mut text = Vec::from(b"ERR '");
    text.extend_from_slice(args.get(0));
    text.extend_from_slice(b"' is only understood on a connection of a client");
    dkv_protocol::resp::reply::error_bytes(out, &text);
}
