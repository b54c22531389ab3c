//! CLIENT LIST, KILL and UNBLOCK: which connections they speak of, and how what the shards of a node say of theirs becomes one
//! reply.

use super::{QUOTED_BYTES_MAX, errors, head, number};
use crate::command::{Args, Exec};
use crate::session::Session;
use alloc::vec::Vec;
use core::net::SocketAddr;
use dkv_protocol::resp::{reply, value};

/// The kinds of clients that can be asked for. There are none of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal,
    Subscriber,
    Other,
}

impl Type {
    fn parse(word: &[u8]) -> Result<Self, Vec<u8>> {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        match () {
            () if is(b"normal") => Ok(Self::Normal),
            () if is(b"pubsub") => Ok(Self::Subscriber),
            () if is(b"master") || is(b"slave") || is(b"replica") => Ok(Self::Other),
            () => Err(quoting("ERR Unknown client type '", word)),
        }
    }
}

/// Which connections are meant: those that all of it is true of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// Ascending.
    ids: Option<Vec<u64>>,
    kind: Option<Type>,
    address: Option<SocketAddr>,
    local_address: Option<SocketAddr>,
    /// An address that none can have was named.
    nobody: bool,
    user: Option<&'a [u8]>,
    older_than_s: Option<u64>,
    /// The connection that is not meant.
    but: Option<u64>,
}

fn quoting(begin: &str, word: &[u8]) -> Vec<u8> {
    let mut text = begin.as_bytes().to_vec();
    text.extend_from_slice(head(word, QUOTED_BYTES_MAX));
    text.push(b'\'');
    text
}

impl<'a> Filter<'a> {
    /// The options of CLIENT LIST; otherwise the error.
    pub(crate) fn of_list(args: Args<'a>) -> Result<Self, Vec<u8>> {
        let mut filter = Self::default();
        match args.len() {
            2 => {}
            4 if args.get(2).eq_ignore_ascii_case(b"TYPE") => {
                filter.kind = Some(Type::parse(args.get(3))?);
            }
            4.. if args.get(2).eq_ignore_ascii_case(b"ID") => {
                let mut refusal = Vec::new();
                if !super::names_bearable(args.len() - 3, &mut refusal) {
                    // As a reply it has the ends that are added to it again.
                    return Err(refusal[1..refusal.len() - 2].to_vec());
                }
                let ids: Option<Vec<i64>> = args.iter_from(3).map(number::parse_i64).collect();
                let ids = ids.ok_or_else(|| b"ERR Invalid client ID".to_vec())?;
                let mut ids: Vec<u64> =
                    ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect();
                ids.sort_unstable();
                filter.ids = Some(ids);
            }
            _ => return Err(errors::SYNTAX.into()),
        }
        Ok(filter)
    }

    /// The options of CLIENT KILL that `client` sent; otherwise the error. Of three arguments the last is an address.
    pub(crate) fn of_kill(args: Args<'a>, client: u64) -> Result<Self, Vec<u8>> {
        let mut filter = Self::default();
        if args.len() == 3 {
            filter.address = filter.parsed(args.get(2));
            return Ok(filter);
        }
        filter.but = Some(client);
        for i in (2..args.len()).step_by(2) {
            let is = |word: &[u8]| args.get(i).eq_ignore_ascii_case(word);
            if i + 1 == args.len() {
                return Err(errors::SYNTAX.into());
            }
            let value = args.get(i + 1);
            match () {
                () if is(b"ID") => match number::parse_i64(value) {
                    Some(id @ 1..) => filter.ids = Some([id as u64].into()),
                    _ => return Err(b"ERR client-id should be greater than 0".to_vec()),
                },
                () if is(b"TYPE") => filter.kind = Some(Type::parse(value)?),
                () if is(b"ADDR") => filter.address = filter.parsed(value),
                () if is(b"LADDR") => filter.local_address = filter.parsed(value),
                () if is(b"USER") => filter.user = Some(value),
                () if is(b"MAXAGE") => match number::parse_i64(value) {
                    None => {
                        return Err(b"ERR maxage is not an integer or out of range".to_vec());
                    }
                    Some(seconds @ 1..) => filter.older_than_s = Some(seconds as u64),
                    Some(_) => return Err(b"ERR maxage should be greater than 0".to_vec()),
                },
                () if is(b"SKIPME") && value.eq_ignore_ascii_case(b"yes") => {
                    filter.but = Some(client);
                }
                () if is(b"SKIPME") && value.eq_ignore_ascii_case(b"no") => filter.but = None,
                () => return Err(errors::SYNTAX.into()),
            }
        }
        Ok(filter)
    }

    /// The address that a text stands for.
    fn parsed(&mut self, text: &[u8]) -> Option<SocketAddr> {
        let address = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        self.nobody |= address.is_none();
        address
    }

    /// The user that is meant, if one is named.
    pub(crate) fn user(&self) -> Option<&'a [u8]> {
        self.user
    }

    pub(crate) fn matches(&self, session: &Session, now_ms: u64) -> bool {
        let age_s = now_ms.saturating_sub(session.opened_ms) / 1000;
        self.ids.as_ref().is_none_or(|ids| ids.binary_search(&session.client_id).is_ok())
            && !self.nobody
            && self.but != Some(session.client_id)
            && self.kind.is_none_or(|kind| kind == kind_of(session))
            && self.address.is_none_or(|at| session.peer == at)
            && self.local_address.is_none_or(|at| session.local == at)
            && self
                .user
                .is_none_or(|user| session.authenticated && user == session.user_name().as_bytes())
            && self.older_than_s.is_none_or(|older| age_s >= older)
    }
}

/// Whether a connection has subscriptions.
pub(crate) fn is_subscribed(session: &Session) -> bool {
    session.listening.as_ref().is_some_and(|listening| listening.is_subscribed())
}

fn kind_of(session: &Session) -> Type {
    if is_subscribed(session) { Type::Subscriber } else { Type::Normal }
}

/// The error for a user that is none.
pub(crate) fn no_such_user(user: &[u8]) -> Vec<u8> {
    quoting("ERR No such user '", user)
}

/// What CLIENT UNBLOCK asks for: the connection, and whether its command is to be an error; otherwise the error.
pub(crate) fn unblock(args: Args<'_>) -> Result<(u64, bool), Vec<u8>> {
    let error = match args.len() {
        3 => false,
        4 if args.get(3).eq_ignore_ascii_case(b"TIMEOUT") => false,
        4 if args.get(3).eq_ignore_ascii_case(b"ERROR") => true,
        4 => return Err(b"ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_vec()),
        _ => return Err(too_many("unblock")),
    };
    match number::parse_i64(args.get(2)) {
        Some(id) => Ok((id as u64, error)),
        None => Err(errors::NOT_AN_INTEGER.into()),
    }
}

/// What CLIENT PAUSE asks for: milliseconds, and whether commands that read wait too; otherwise the error.
pub(crate) fn pause(args: Args<'_>) -> Result<(u64, bool), Vec<u8>> {
    let all = match args.len() {
        3 => true,
        4 if args.get(3).eq_ignore_ascii_case(b"ALL") => true,
        4 if args.get(3).eq_ignore_ascii_case(b"WRITE") => false,
        4 => return Err(b"ERR CLIENT PAUSE mode must be WRITE or ALL".to_vec()),
        _ => return Err(too_many("pause")),
    };
    match number::parse_i64(args.get(2)) {
        None => Err(b"ERR timeout is not an integer or out of range".to_vec()),
        Some(..0) => Err(b"ERR timeout is negative".to_vec()),
        Some(ms) => Ok((ms as u64, all)),
    }
}

/// Redis' words for a subcommand that takes fewer arguments.
pub(crate) fn too_many(subcommand: &str) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
    text.extend_from_slice(subcommand.as_bytes());
    text.extend_from_slice(b"'. Try CLIENT HELP.");
    text
}

/// Writes the reply to a CLIENT of which each shard of the node has executed its part.
pub(super) fn finish(x: &Exec<'_>, args: Args<'_>, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let is = |word: &[u8]| args.get(1).eq_ignore_ascii_case(word);
    if is(b"LIST") {
        let mut text: Vec<u8> =
            parts.iter().filter_map(|part| text_of(part)).flatten().copied().collect();
        if args.len() > 3 && args.get(2).eq_ignore_ascii_case(b"ID") {
            text = in_order(&text, args);
        }
        return reply::verbatim(out, x.proto, &text);
    }
    let count: i64 = parts.iter().filter_map(|part| value::integer(part)).sum();
    match () {
        () if is(b"UNPAUSE") => reply::ok(out),
        () if is(b"KILL") && args.len() == 3 && count > 0 => reply::ok(out),
        () if is(b"KILL") && args.len() == 3 => reply::error(out, "ERR No such client"),
        () => reply::integer(out, count),
    }
}

/// The lines of the connections that a CLIENT LIST ID asks for, in its order and each as often as it is named.
fn in_order(text: &[u8], args: Args<'_>) -> Vec<u8> {
    let id_of = |line: &[u8]| {
        let id = line.strip_prefix(b"id=")?;
        number::parse_i64(&id[..id.iter().position(|byte| *byte == b' ')?])
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut lines: Vec<(i64, &[u8])> =
        lines.filter_map(|line| Some((id_of(line)?, line))).collect();
    lines.sort_unstable();
    let line_of = |id: &[u8]| {
        let at = lines.binary_search_by_key(&number::parse_i64(id)?, |(id, _)| *id).ok()?;
        Some(lines[at].1)
    };
    args.iter_from(3).filter_map(line_of).flatten().copied().collect()
}

/// The text of a bulk string.
pub(crate) fn text_of(reply: &[u8]) -> Option<&[u8]> {
    let head = reply.iter().position(|&b| b == b'\n')? + 1;
    reply.get(head..)?.strip_suffix(b"\r\n")
}
