//! ACL LOG: what users were not allowed to do, and wrong passwords. Each shard keeps what its own connections did.

use super::check::Denied;
use crate::command::{Args, Exec, Now, Spec};
use crate::commands;
use crate::session::Session;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use dkv_protocol::resp::{reply, value};

/// Entries of a shard (the default of Redis' acllog-max-len), and those that ACL LOG shows when nobody says how many.
const ENTRIES_MAX: usize = 128;
const SHOWN: usize = 10;
/// Bytes of a key, a channel or a user's name that an entry keeps.
const OBJECT_BYTES_MAX: usize = 128;
/// The same again within so long is counted, not noted, in milliseconds.
const SAME_MS: u64 = 60_000;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

#[derive(Debug)]
struct Entry {
    count: u64,
    reason: Reason,
    in_multi: bool,
    object: Vec<u8>,
    user: Vec<u8>,
    /// How many entries the shard had before.
    number: u64,
    /// When it was last (CLOCK_BOOTTIME, milliseconds).
    at_ms: u64,
    /// When it was first and last, in Unix time in milliseconds.
    created_unix_ms: u64,
    updated_unix_ms: u64,
    /// The connection, as CLIENT LIST shows it and by its CLIENT ID.
    client: Vec<u8>,
    client_id: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AclLog {
    /// The latest first.
    entries: VecDeque<Entry>,
    /// The number of the next one.
    next: u64,
}

/// The beginning of what a client sent.
fn head(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(OBJECT_BYTES_MAX)].to_vec()
}

impl AclLog {
    /// A request that was refused.
    pub(crate) fn denied(
        &mut self,
        now: Now,
        session: &Session,
        spec: &Spec,
        args: Args<'_>,
        denied: Denied,
    ) {
        let (reason, object) = match denied {
            Denied::Command => {
                (Reason::Command, commands::name_of(commands::number_of(spec, args)).into_bytes())
            }
            Denied::Key(at) => (Reason::Key, head(args.get(at as usize))),
            Denied::Channel(at) => (Reason::Channel, head(args.get(at as usize))),
        };
        let in_multi = session.transaction.as_ref().is_some_and(|one| one.is_open());
        self.add(now, session, (reason, in_multi), object, session.user_name().as_bytes());
    }

    /// A wrong password, given with AUTH or HELLO.
    pub(crate) fn wrong_password(
        &mut self,
        now: Now,
        session: &Session,
        command: &[u8],
        user: &[u8],
    ) {
        let user = &user[..user.len().min(OBJECT_BYTES_MAX)];
        self.add(now, session, (Reason::Auth, false), head(command), user);
    }

    /// Counts what was noted lately, or notes it. The connection is described when it is another one than before: that costs
    /// more than all the rest, and one that is refused again and again is described already.
    fn add(
        &mut self,
        now: Now,
        session: &Session,
        (reason, in_multi): (Reason, bool),
        object: Vec<u8>,
        user: &[u8],
    ) {
        let at_ms = now.boot_ms();
        let same = |one: &Entry| {
            (one.reason, one.in_multi) == (reason, in_multi)
                && at_ms - one.at_ms <= SAME_MS
                && one.object == object
                && one.user == user
        };
        let client_id = session.client_id;
        let known = self.entries.iter().position(same).and_then(|at| self.entries.remove(at));
        let mut entry = known.unwrap_or_else(|| {
            let (user, client) = (user.to_vec(), client_of(now, session));
            let number = self.next;
            self.next += 1;
            let (created_unix_ms, updated_unix_ms) = (now.unix_ms, now.unix_ms);
            Entry {
                count: 0,
                reason,
                in_multi,
                object,
                user,
                number,
                at_ms,
                created_unix_ms,
                updated_unix_ms,
                client,
                client_id,
            }
        });
        if entry.client_id != client_id {
            (entry.client, entry.client_id) = (client_of(now, session), client_id);
        }
        entry.count += 1;
        (entry.at_ms, entry.updated_unix_ms) = (at_ms, now.unix_ms);
        self.entries.push_front(entry);
        self.entries.truncate(ENTRIES_MAX);
    }

    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }

    /// Writes the part of one of the node's shards: for each entry its fields, as strings and numbers. No two entries of a node
    /// have the same id, and those of a shard grow.
    pub(crate) fn write_part(&self, shard: usize, shards: usize, out: &mut Vec<u8>) {
        reply::array(out, self.entries.len() * FIELDS);
        for entry in &self.entries {
            reply::integer(out, entry.at_ms as i64);
            reply::integer(out, entry.count as i64);
            reply::bulk(out, entry.reason.word().as_bytes());
            reply::bulk(out, if entry.in_multi { b"multi" } else { b"toplevel" });
            reply::bulk(out, &entry.object);
            reply::bulk(out, &entry.user);
            reply::bulk(out, &entry.client);
            reply::integer(out, entry.number as i64 * shards as i64 + shard as i64);
            reply::integer(out, entry.created_unix_ms as i64);
            reply::integer(out, entry.updated_unix_ms as i64);
        }
    }
}

/// Of an entry in a part.
const FIELDS: usize = 10;

/// How many entries ACL LOG is to show; none when it is not a number.
pub(crate) fn count(args: Args<'_>) -> Option<usize> {
    if args.len() < 3 {
        return Some(SHOWN);
    }
    Some(usize::try_from(crate::connection::parse(args.get(2))?).unwrap_or(0))
}

/// Makes one reply of the parts.
pub(crate) fn finish(x: &Exec<'_>, args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    if args.len() > 2 && args.get(2).eq_ignore_ascii_case(b"RESET") {
        return reply::ok(out);
    }
    let mut entries: Vec<Vec<&[u8]>> = Vec::new();
    for part in parts {
        let fields: Vec<&[u8]> =
            value::elements(part).into_iter().flatten().filter_map(Result::ok).collect();
        entries.extend(fields.chunks_exact(FIELDS).map(<[&[u8]]>::to_vec));
    }
    entries.sort_by_key(|entry| core::cmp::Reverse(value::integer(entry[0])));
    entries.truncate(count(args).unwrap_or(SHOWN));
    reply::array(out, entries.len());
    for entry in entries {
        let at_ms = value::integer(entry[0]).unwrap_or_default();
        let age_ms = (x.now.boot_ms() as i64).saturating_sub(at_ms).max(0);
        reply::map(out, x.proto, FIELDS);
        let names = ["count", "reason", "context", "object", "username"];
        for (name, field) in names.iter().zip(&entry[1..]) {
            reply::bulk(out, name.as_bytes());
            out.extend_from_slice(field);
        }
        reply::bulk(out, b"age-seconds");
        reply::double(out, x.proto, age_ms as f64 / 1000.0);
        reply::bulk(out, b"client-info");
        out.extend_from_slice(entry[6]);
        // Redis has these since 7.2.
        let names = ["entry-id", "timestamp-created", "timestamp-last-updated"];
        for (name, field) in names.iter().zip(&entry[7..]) {
            reply::bulk(out, name.as_bytes());
            out.extend_from_slice(field);
        }
    }
}

/// A connection as an entry shows it.
fn client_of(now: Now, session: &Session) -> Vec<u8> {
    let mut text = Vec::new();
    crate::clients::describe(now, session, &mut text);
    String::from_utf8_lossy(&text).into_owned().into_bytes()
}
