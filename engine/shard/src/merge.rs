//! How the replies of several shards to the parts of one command become its one reply.

use crate::command::{Args, Exec, Merge};
use crate::commands;
use crate::commands::clients::text_of;
use crate::commands::info::{self, Keyspace};
use crate::commands::naming;
use crate::commands::scan::{self, WALK_BYTES_MAX, WALK_TOO_LONG};
use crate::gates::{Gate, Noticed};
use crate::walk::{Request, Wanted};
use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;
use dkv_protocol::resp::{Proto, reply, value};

/// The reply to a command that several shards execute, as far as it has come. The first error is the whole reply, and a
/// write of which nobody knows whether it happened outranks other errors: a definite error would be a false one.
#[derive(Debug)]
pub(crate) struct Merging {
    kind: Kind,
    left: u32,
    error: Option<Vec<u8>>,
    /// What the parts that were made here wait for.
    gates: Vec<Gate>,
}

#[derive(Debug)]
enum Kind {
    Sum(i64),
    Ok,
    InOrder {
        /// The reply of each part.
        parts: Vec<Vec<u8>>,
        /// For each element of the whole, the part whose next element it is.
        order: Vec<u32>,
        bytes: usize,
    },
    /// What the steps of a walk have found. In pieces: one buffer that grows to hundreds of megabytes would be copied
    /// again and again.
    Walk {
        wanted: Wanted,
        /// Of a walk through ranges: for each part the range before which it ends.
        ends: Vec<u16>,
        count: usize,
        pieces: Vec<Vec<u8>>,
        bytes: usize,
    },
    /// A key taken by chance: its reply, how many keys it stands for, and the next number by chance.
    Random {
        reply: Vec<u8>,
        keys: u64,
        chance: u64,
    },
    /// A reply that is written already, and waits for those who must know. Their answers, also none, make no difference.
    Given(Vec<u8>),
    /// How many received a message, and how many shards did not say. They may not have got it.
    Receivers(i64, u64),
    /// Names, each once; or how many there are.
    Names {
        names: BTreeSet<Vec<u8>>,
        bytes: usize,
        number: bool,
    },
    /// How many listen to each of some channels.
    Counts {
        names: Vec<Vec<u8>>,
        counts: Vec<i64>,
    },
    /// A command that each shard of the node executes a part of: the command, and the parts.
    Node {
        request: Vec<u8>,
        spans: Vec<(u32, u32)>,
        parts: Vec<Vec<u8>>,
    },
    /// INFO, written when the keyspace of every shard that answers is known.
    Info {
        keyspace: Keyspace,
        request: Vec<u8>,
        spans: Vec<(u32, u32)>,
    },
}

/// Room for the head of an array.
const HEAD_BYTES_MAX: usize = 32;
/// What a walk finds is kept in pieces of so many bytes, or as they come.
const PIECE_BYTES: usize = 256 * 1024;
const MALFORMED: &str =
    "ERR a shard answered a part of this command with something else than it should";

impl Merging {
    /// For a command of which `parts` parts are under way. `order` names for each key its part, in the order of the keys;
    /// only [`Merge::InOrder`] needs it.
    pub(crate) fn new(merge: Merge, parts: u32, order: Vec<u32>) -> Self {
        let kind = match merge {
            Merge::Sum => Kind::Sum(0),
            // Walks, INFO and RANDOMKEY have beginnings of their own.
            Merge::Ok | Merge::Concat | Merge::Info | Merge::Random => Kind::Ok,
            Merge::InOrder => {
                Kind::InOrder { parts: (0..parts).map(|_| Vec::new()).collect(), order, bytes: 0 }
            }
        };
        Self { kind, left: parts, error: None, gates: Vec::new() }
    }

    /// For an INFO that speaks of the keyspace of all shards; `args` are its own.
    pub(crate) fn info(args: Args<'_>, parts: u32) -> Self {
        let (request, spans) = copied(args);
        Self {
            kind: Kind::Info { keyspace: Keyspace::default(), request, spans },
            left: parts,
            error: None,
            gates: Vec::new(),
        }
    }

    /// For keys that are looked for in steps at so many shards.
    pub(crate) fn walk(wanted: Wanted, parts: u32) -> Self {
        Self { left: parts, ..Self::walk_ranges(wanted, Vec::new()) }
    }

    /// For keys that are looked for in steps through the ranges, a part for each of `ends`, at whoever leads them.
    pub(crate) fn walk_ranges(wanted: Wanted, ends: Vec<u16>) -> Self {
        let left = ends.len() as u32;
        let kind = Kind::Walk { wanted, ends, count: 0, pieces: Vec::new(), bytes: 0 };
        Self { kind, left, error: None, gates: Vec::new() }
    }

    /// Takes the reply to a step after which more are to come, and says where to go on. None: it is another reply, or
    /// the last of its part, or no more is wanted; [`Self::add`] takes it then.
    pub(crate) fn walk_on(&mut self, reply: &[u8]) -> Option<u64> {
        let Kind::Walk { wanted, count, pieces, bytes, .. } = &mut self.kind else { return None };
        let (cursor, found, elements) = scan::step_of(reply)?;
        if cursor == 0 || self.error.is_some() || *count + found >= wanted.count_max() {
            return None;
        }
        *count += found;
        keep_piece(pieces, bytes, elements);
        if *bytes > WALK_BYTES_MAX {
            let mut error = Vec::new();
            reply::error(&mut error, WALK_TOO_LONG);
            (*count, *bytes) = (0, 0);
            pieces.clear();
            self.error = Some(error);
        }
        // After an error the part is asked once more, and its answer ends it.
        Some(cursor)
    }

    /// The request for the next step of a part.
    pub(crate) fn walk_request(&self, part: u32, cursor: u64) -> Option<Request> {
        match &self.kind {
            Kind::Walk { wanted, ends, count, .. } => {
                Some(wanted.request(cursor, *count, ends.get(part as usize).copied()))
            }
            _ => None,
        }
    }

    /// Whether it is a walk through ranges, whose steps are asked of whoever leads them.
    pub(crate) fn walks_ranges(&self) -> bool {
        matches!(&self.kind, Kind::Walk { ends, .. } if !ends.is_empty())
    }

    /// For a key that is taken by chance; `chance` decides.
    pub(crate) fn random(proto: Proto, chance: u64, parts: u32) -> Self {
        let mut none = Vec::new();
        reply::null(&mut none, proto);
        let kind = Kind::Random { reply: none, keys: 0, chance };
        Self { kind, left: parts, error: None, gates: Vec::new() }
    }

    /// For a command that so many shards of this node execute a part of.
    pub(crate) fn node(args: Args<'_>, parts: u32) -> Self {
        let (request, spans) = copied(args);
        let kind = Kind::Node { request, spans, parts: Vec::new() };
        Self { kind, left: parts, error: None, gates: Vec::new() }
    }

    fn of(kind: Kind, parts: u32) -> Self {
        Self { kind, left: parts, error: None, gates: Vec::new() }
    }

    /// For a reply that leaves when so many shards have answered, whatever they say.
    pub(crate) fn given(reply: Vec<u8>, parts: u32) -> Self {
        Self::of(Kind::Given(reply), parts)
    }

    /// Whether it is a reply that was written beforehand. Those confirm subscriptions, and leave whatever CLIENT REPLY says.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.kind, Kind::Given(_))
    }

    /// For how many received a message. A shard that does not answer is left out.
    pub(crate) fn receivers(parts: u32) -> Self {
        Self::of(Kind::Receivers(0, 0), parts)
    }

    /// Whether it is how many received a message.
    pub(crate) fn is_publish(&self) -> bool {
        matches!(self.kind, Kind::Receivers(..))
    }

    /// For names, each of which is told once, or only how many there are. A shard that does not answer is left out.
    pub(crate) fn names(parts: u32, number: bool) -> Self {
        Self::of(Kind::Names { names: BTreeSet::new(), bytes: 0, number }, parts)
    }

    /// For how many listen to each of `names`. A shard that does not answer is left out.
    pub(crate) fn counts<'n>(parts: u32, names: impl Iterator<Item = &'n [u8]>) -> Self {
        let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
        let counts = alloc::vec![0; names.len()];
        Self::of(Kind::Counts { names, counts }, parts)
    }

    /// Takes the reply to a part.
    pub(crate) fn add(&mut self, part: u32, reply: Cow<'_, [u8]>) {
        // The one kind that keeps a reply as it is keeps the buffer too.
        if self.error.is_none()
            && !value::is_error(&reply)
            && let Kind::InOrder { parts, bytes, .. } = &mut self.kind
            && let Some(place) = parts.get_mut(part as usize)
        {
            self.left = self.left.saturating_sub(1);
            *bytes += reply.len();
            *place = reply.into_owned();
            return;
        }
        self.add_bytes(&reply);
    }

    fn add_bytes(&mut self, reply: &[u8]) {
        self.left = self.left.saturating_sub(1);
        if let Kind::Info { keyspace, .. } = &mut self.kind {
            // An error is a shard that is away: INFO tells what it can, and how many are missing.
            keyspace.add(reply);
            return;
        }
        match &mut self.kind {
            Kind::Given(_) => return,
            Kind::Receivers(_, lost) if value::is_error(reply) => {
                *lost += 1;
                return;
            }
            Kind::Names { .. } | Kind::Counts { .. } if value::is_error(reply) => return,
            _ => {}
        }
        if value::is_error(reply) {
            if self.error.is_none() || reply.starts_with(b"-UNCERTAIN") {
                self.error = Some(reply.to_vec());
            }
            return;
        }
        if self.error.is_some() {
            return;
        }
        let taken = match &mut self.kind {
            Kind::Sum(sum) => value::integer(reply).is_some_and(|n| {
                *sum = sum.saturating_add(n);
                true
            }),
            Kind::Ok => reply.starts_with(b"+"),
            Kind::InOrder { .. } => false,
            Kind::Walk { count, pieces, bytes, .. } => match scan::step_of(reply) {
                Some((_, found, elements)) => {
                    *count += found;
                    keep_piece(pieces, bytes, elements);
                    true
                }
                None => false,
            },
            Kind::Random { reply: chosen, keys, chance } => match naming::random_of(reply) {
                Some((0, _)) => true,
                Some((more, key)) => {
                    *keys = keys.saturating_add(more);
                    // As likely to be chosen as its keys are many among all so far.
                    if *chance % *keys < more && !is_null(key) {
                        *chosen = key.to_vec();
                    }
                    *chance = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
                    true
                }
                None => false,
            },
            Kind::Node { parts, .. } => {
                parts.push(reply.to_vec());
                true
            }
            Kind::Receivers(sum, _) => value::integer(reply).is_some_and(|n| {
                *sum = sum.saturating_add(n);
                true
            }),
            Kind::Names { names, bytes, .. } => value::elements(reply).is_ok_and(|mut found| {
                found.all(|one| {
                    let name = one.ok().and_then(text_of);
                    name.is_some_and(|name| {
                        if !names.contains(name) {
                            *bytes += name.len();
                            names.insert(name.to_vec());
                        }
                        true
                    })
                })
            }),
            Kind::Counts { counts, .. } => value::elements(reply).is_ok_and(|mut found| {
                counts.iter_mut().all(|count| {
                    let more = found.next().and_then(|one| value::integer(one.ok()?));
                    *count += more.unwrap_or(0);
                    more.is_some()
                })
            }),
            Kind::Given(_) | Kind::Info { .. } => true,
        };
        if !taken {
            let mut error = Vec::new();
            reply::error(&mut error, MALFORMED);
            self.error = Some(error);
        }
    }

    /// The part that was added waits for copies.
    pub(crate) fn wait_for(&mut self, noticed: &Noticed) {
        for gate in noticed.as_slice() {
            match self.gates.iter_mut().find(|known| known.covers(*gate)) {
                Some(known) => known.merge(*gate),
                None => self.gates.push(*gate),
            }
        }
    }

    /// What the whole reply waits for.
    pub(crate) fn take_gates(&mut self) -> Vec<Gate> {
        core::mem::take(&mut self.gates)
    }

    /// Whether every part is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Whether the whole reply will be an error.
    pub(crate) fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let held = match &self.kind {
            Kind::Sum(_) | Kind::Ok | Kind::Receivers(..) => 0,
            Kind::InOrder { order, bytes, .. } => order.len() * size_of::<u32>() + bytes,
            Kind::Walk { bytes, ends, .. } => *bytes + size_of_val(&**ends),
            Kind::Random { reply, .. } | Kind::Given(reply) => reply.len(),
            Kind::Node { request, parts, .. } => {
                request.len() + parts.iter().map(Vec::len).sum::<usize>()
            }
            Kind::Info { request, .. } => request.len(),
            Kind::Names { bytes, .. } => *bytes,
            Kind::Counts { names, .. } => names.iter().map(Vec::len).sum(),
        };
        held + self.error.as_ref().map_or(0, Vec::len)
    }

    /// A long reply of a walk: in its pieces, which need not be copied. None: it is to be written by [`Self::finish`].
    pub(crate) fn take_pieces(&mut self) -> Option<Vec<Bytes>> {
        let Kind::Walk { wanted, count, pieces, bytes, .. } = &mut self.kind else { return None };
        if self.error.is_some() || *bytes < PIECE_BYTES {
            return None;
        }
        let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
        wanted.head(*count, &mut head);
        Some(core::iter::once(head).chain(pieces.drain(..)).map(Bytes::from).collect())
    }

    /// Writes the whole reply. `exec` is the shard of the client, for what speaks of the node.
    pub(crate) fn finish(&self, exec: &Exec<'_>, out: &mut Vec<u8>) {
        if let Some(error) = &self.error {
            out.extend_from_slice(error);
            return;
        }
        match &self.kind {
            Kind::Sum(sum) => reply::integer(out, *sum),
            Kind::Ok => reply::ok(out),
            Kind::InOrder { parts, order, .. } => {
                let start = out.len();
                if interleave(parts, order, out).is_none() {
                    out.truncate(start);
                    reply::error(out, MALFORMED);
                }
            }
            Kind::Walk { wanted, count, pieces, bytes, .. } => {
                out.reserve(bytes + HEAD_BYTES_MAX);
                wanted.head(*count, out);
                for piece in pieces {
                    out.extend_from_slice(piece);
                }
            }
            Kind::Node { request, spans, parts } => {
                commands::finish_of_node(exec, Args::new(request, spans), parts, out);
            }
            Kind::Random { reply, .. } | Kind::Given(reply) => out.extend_from_slice(reply),
            Kind::Receivers(sum, lost) => {
                exec.stats.messages_lost.add(*lost);
                reply::integer(out, *sum);
            }
            Kind::Names { names, number: true, .. } => reply::integer(out, names.len() as i64),
            Kind::Names { names, bytes, .. } => {
                out.reserve(bytes + names.len() * 16);
                reply::array(out, names.len());
                for name in names {
                    reply::bulk(out, name);
                }
            }
            Kind::Counts { names, counts } => {
                reply::array(out, 2 * names.len());
                for (name, count) in names.iter().zip(counts) {
                    reply::bulk(out, name);
                    reply::integer(out, *count);
                }
            }
            Kind::Info { keyspace, request, spans } => {
                info::render(exec, Args::new(request, spans), keyspace, out);
            }
        }
    }
}

/// A command that is to be known when its parts have come.
fn copied(args: Args<'_>) -> (Vec<u8>, Vec<(u32, u32)>) {
    let (mut request, mut spans) = (Vec::new(), Vec::new());
    for arg in args.iter_from(0) {
        let start = request.len() as u32;
        request.extend_from_slice(arg);
        spans.push((start, request.len() as u32));
    }
    (request, spans)
}

/// Adds to pieces that are joined while they are small.
fn keep_piece(pieces: &mut Vec<Vec<u8>>, bytes: &mut usize, piece: &[u8]) {
    *bytes += piece.len();
    match pieces.last_mut() {
        Some(last) if last.len() + piece.len() <= last.capacity() => last.extend_from_slice(piece),
        _ => {
            let mut fresh = Vec::with_capacity(piece.len().max(PIECE_BYTES.min(*bytes)));
            fresh.extend_from_slice(piece);
            pieces.push(fresh);
        }
    }
}

/// Elements of the parts back in the order asked for.
fn interleave(parts: &[Vec<u8>], order: &[u32], out: &mut Vec<u8>) -> Option<()> {
    // At once: growing by doubling would copy replies of hundreds of megabytes again.
    out.reserve(parts.iter().map(Vec::len).sum::<usize>() + HEAD_BYTES_MAX);
    let mut elements = Vec::with_capacity(parts.len());
    for part in parts {
        elements.push(value::elements(part).ok()?);
    }
    reply::array(out, order.len());
    for part in order {
        let element = elements.get_mut(*part as usize)?.next()?.ok()?;
        out.extend_from_slice(element);
    }
    Some(())
}

fn is_null(reply: &[u8]) -> bool {
    reply.starts_with(b"$-1") || reply.starts_with(b"_")
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
