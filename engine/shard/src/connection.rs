//! Commands that the session executes itself: AUTH, HELLO, CLIENT, SELECT, QUIT and their like.

use crate::command::{Args, Now, Spec};
use crate::commands::info::REDIS_VERSION;
use crate::face::SessionId;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::pubsub::Kind;
use crate::refusal;
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What shards of one node ask each other for CLIENT LIST; clients cannot reach it.
pub(crate) const CLIENT_LIST_REQUEST: &[u8] = b"DKV.CLIENTLIST";
/// Longest name of a connection or of a client library, in bytes. Redis has no limit; an idle connection must stay small.
const NAME_BYTES_MAX: usize = 1024;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";
const HELLO_UNAUTHENTICATED: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                                     HELLO AUTH <user> <pass> option can be used to authenticate the client and \
                                     select the RESP protocol version at the same time";
const BAD_CLIENT_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";
const NAME_TOO_LONG: &str = "ERR a client's name is at most 1024 bytes long";
const _: () = assert!(NAME_BYTES_MAX == 1024);
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

impl Shard {
    /// Executes a command of `Scope::Session` or `Scope::Slot`. Break: not now, the session is stalled.
    pub(crate) fn session_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let mut out = Vec::new();
        match spec.name {
            "AUTH" => self.auth(session, args, &mut out),
            "HELLO" => self.hello(session, args, &mut out),
            "QUIT" => {
                reply::ok(&mut out);
                session.end = End::Settling;
            }
            "RESET" => {
                self.unsubscribe_from_all(session)?;
                session.name = Box::default();
                session.proto = Proto::Resp2;
                session.readonly = false;
                session.transaction = None;
                session.authenticated = self.env.password_sha256.is_none();
                reply::simple(&mut out, "RESET");
            }
            "SELECT" => select(args, &mut out),
            "READONLY" | "READWRITE" => {
                session.readonly = spec.name == "READONLY";
                reply::ok(&mut out);
            }
            "DKV.CHECKSUM" => self.checksum(args, &mut out),
            "WAIT" => return self.wait(now, session, args),
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
            | "SUNSUBSCRIBE" | "PUBLISH" | "SPUBLISH" | "PUBSUB" => {
                return self.pubsub_command(session, spec, args);
            }
            // Only where it is not executed by any shard.
            "PING" => {
                Self::ping_subscribed(session, args);
                return ControlFlow::Continue(());
            }
            "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" => {
                return self.transaction_command(now, session, spec, args);
            }
            // There are no ASK redirects to follow; a client that sends it is told that it may go on.
            "ASKING" => reply::ok(&mut out),
            "CLIENT" => {
                if let Some(refusal) = refusal::check_subcommand(spec, args) {
                    refusal::write(refusal, Some(spec), args, &mut out);
                } else if args.get(1).eq_ignore_ascii_case(b"LIST") {
                    return self.client_list(now, session, spec, args);
                } else {
                    client(now, session, args, &mut out);
                }
            }
            "CLUSTER" => return self.cluster_command(now, session, spec, args),
            _ => refusal::write(refusal::Refusal::Unknown, None, args, &mut out),
        }
        self.answer(session, &out);
        ControlFlow::Continue(())
    }

    /// A reply made by the session.
    pub(crate) fn answer(&mut self, session: &mut Session, reply: &[u8]) {
        if reply.first() == Some(&b'-') {
            self.stats.errors.add(1);
        }
        session.replies.push(reply);
    }

    fn auth(&self, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
        let (user, password) = match args.len() {
            2 => (&b"default"[..], args.get(1)),
            3 => (args.get(1), args.get(2)),
            _ => return reply::error(out, "ERR syntax error"),
        };
        if args.len() == 2 && self.env.password_sha256.is_none() {
            return reply::error(out, NO_PASSWORD);
        }
        if self.is_password(user, password) {
            session.authenticated = true;
            reply::ok(out);
        } else {
            reply::error(out, WRONG_PASSWORD);
        }
    }

    /// Takes as long for a wrong user as for a wrong password. There is one user, `default`; without a password any will
    /// do, as in Redis.
    fn is_password(&self, user: &[u8], password: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(password).into();
        let expected = self.env.password_sha256.unwrap_or(given);
        let right = given.ct_eq(&expected) & user.ct_eq(b"default");
        right.into()
    }

    fn hello(&self, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
        let mut proto = session.proto;
        if args.len() > 1 {
            proto = match parse(args.get(1)) {
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return reply::error(out, text);
                }
                Some(2) => Proto::Resp2,
                Some(3) => Proto::Resp3,
                Some(_) => return reply::error(out, "NOPROTO unsupported protocol version"),
            };
        }
        let (mut credentials, mut name) = (None, None);
        let mut at = 2;
        while at < args.len() {
            let option = args.get(at);
            let left = args.len() - at - 1;
            if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
                credentials = Some((args.get(at + 1), args.get(at + 2)));
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
                name = Some(args.get(at + 1));
                at += 2;
            } else {
                let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                text.extend_from_slice(&option[..option.len().min(128)]);
                text.push(b'\'');
                return reply::error_bytes(out, &text);
            }
        }
        if let Some((user, password)) = credentials {
            if !self.is_password(user, password) {
                return reply::error(out, WRONG_PASSWORD);
            }
            session.authenticated = true;
        }
        if !session.authenticated {
            return reply::error(out, HELLO_UNAUTHENTICATED);
        }
        if let Some(name) = name {
            if let Err(text) = check_name(name) {
                return reply::error(out, text);
            }
            session.name = name.into();
        }
        session.proto = proto;
        let field = |out: &mut Vec<u8>, name: &str, value: &str| {
            reply::bulk(out, name.as_bytes());
            reply::bulk(out, value.as_bytes());
        };
        reply::map(out, proto, 7);
        field(out, "server", "dkv");
        field(out, "version", REDIS_VERSION);
        reply::bulk(out, b"proto");
        reply::integer(out, if proto == Proto::Resp3 { 3 } else { 2 });
        reply::bulk(out, b"id");
        reply::integer(out, session.client_id as i64);
        field(out, "mode", "cluster");
        field(out, "role", "master");
        reply::bulk(out, b"modules");
        reply::array(out, 0);
    }

    /// CLIENT LIST speaks of all connections of this node: each of its shards is asked.
    fn client_list(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if let Err(text) = Filter::parse(args, 2) {
            let mut out = Vec::new();
            reply::error_bytes(&mut out, &text);
            self.answer(session, &out);
            return ControlFlow::Continue(());
        }
        let first = self.links.first_of(self.me);
        let shards = first..first + self.env.stats.len() as u16;
        let me = self.links.me();
        for to in shards.clone().filter(|to| *to != me) {
            self.admit(session, to)?;
        }
        session.last = (spec.name, "list");
        let slot = session.replies.wait_for_all(Merging::texts(session.proto, shards.len() as u32));
        for to in shards.filter(|to| *to != me) {
            let waiting = Waiting {
                session: session.id,
                slot,
                part: 0,
                write: false,
                shared: true,
                weight: session.expected_bytes(),
                range: None,
            };
            let request = core::iter::once(CLIENT_LIST_REQUEST).chain(args.iter_from(2));
            self.links.push(to, waiting, Proto::Resp2, false, request);
            self.stats.forwarded.add(1);
        }
        let mut own = Vec::new();
        self.list_clients(now, args, 2, Some(session), &mut own);
        self.resolve(now, session, slot, 0, own.into());
        ControlFlow::Continue(())
    }

    /// This shard's part of CLIENT LIST, with options from argument `from` on. `current` is the session that is being
    /// worked on.
    pub(crate) fn list_clients(
        &self,
        now: Now,
        args: Args<'_>,
        from: usize,
        current: Option<&Session>,
        out: &mut Vec<u8>,
    ) {
        let filter = match Filter::parse(args, from) {
            Ok(filter) => filter,
            Err(text) => return reply::error_bytes(out, &text),
        };
        let mut text = Vec::new();
        for session in self.sessions.iter().chain(current).filter(|s| filter.matches(s)) {
            describe(now, session, &mut text);
            text.push(b'\n');
        }
        reply::bulk(out, &text);
    }
}

/// Which clients CLIENT LIST names.
enum Filter {
    All,
    None,
    /// Those with subscriptions, or those without.
    Subscribed(bool),
    Ids(Vec<u64>),
}

impl Filter {
    fn parse(args: Args<'_>, from: usize) -> Result<Self, Vec<u8>> {
        if args.len() == from {
            return Ok(Self::All);
        }
        let option = args.get(from);
        if option.eq_ignore_ascii_case(b"ID") && args.len() > from + 1 {
            let ids = args
                .iter_from(from + 1)
                .map(|id| parse(id).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0));
            return match ids.collect::<Option<Vec<u64>>>() {
                Some(ids) => Ok(Self::Ids(ids)),
                None => Err(b"ERR Invalid client ID".to_vec()),
            };
        }
        if option.eq_ignore_ascii_case(b"TYPE") && args.len() == from + 2 {
            let kind = args.get(from + 1);
            for (name, subscribed) in [(&b"normal"[..], false), (b"pubsub", true)] {
                if kind.eq_ignore_ascii_case(name) {
                    return Ok(Self::Subscribed(subscribed));
                }
            }
            let known: [&[u8]; 3] = [b"master", b"slave", b"replica"];
            if known.iter().any(|k| kind.eq_ignore_ascii_case(k)) {
                return Ok(Self::None);
            }
            let mut text = b"ERR Unknown client type '".to_vec();
            text.extend_from_slice(&kind[..kind.len().min(128)]);
            text.push(b'\'');
            return Err(text);
        }
        Err(b"ERR syntax error".to_vec())
    }

    fn matches(&self, session: &Session) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Subscribed(wanted) => is_subscribed(session) == *wanted,
            Self::Ids(ids) => ids.contains(&session.client_id),
        }
    }
}

fn is_subscribed(session: &Session) -> bool {
    session.listening.as_ref().is_some_and(|listening| listening.is_subscribed())
}

/// A connection as a line of CLIENT LIST, with the fields of Redis 7.2.
fn describe(now: Now, session: &Session, out: &mut Vec<u8>) {
    let mut text = String::with_capacity(256);
    let SessionId { index, .. } = session.id;
    let age = now.boot_ms().saturating_sub(session.opened_ms) / 1000;
    let idle = now.boot_ms().saturating_sub(session.active_ms) / 1000;
    let in_transaction = session.transaction.as_ref().is_some_and(|one| one.is_open());
    let mut flags = String::new();
    for (flag, set) in
        [('P', is_subscribed(session)), ('x', in_transaction), ('r', session.readonly)]
    {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let listens =
        |kind: Kind| session.listening.as_ref().map_or(0, |listening| listening.len_of(kind));
    let [sub, psub, ssub] = [Kind::Channel, Kind::Pattern, Kind::Shard].map(listens);
    let unsent = session.replies.unsent();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "id={} addr={} laddr={} fd={index} name=",
        session.client_id, session.peer, session.local
    );
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&session.name);
    text.clear();
    let (command, subcommand) = session.last;
    let open = session.transaction.as_ref().filter(|transaction| transaction.is_open());
    let queued = open.map(|transaction| transaction.queued());
    let _ = write!(
        text,
        " age={age} idle={idle} flags={flags} db=0 sub={sub} psub={psub} ssub={ssub} multi={} qbuf={} qbuf-free={} argv-mem=0 \
         multi-mem={} rbs=0 rbp=0 obl={unsent} oll={} omem={} tot-mem={} events=r cmd=",
        queued.map_or(-1, |(commands, _)| commands as i64),
        session.input.len(),
        session.input.capacity() - session.input.len(),
        queued.map_or(0, |(_, bytes)| bytes),
        session.replies.waiting(),
        session.replies.buffer_bytes(),
        session.memory_bytes(),
    );
    text.push_str(&command.to_ascii_lowercase());
    if !subcommand.is_empty() {
        text.push('|');
        text.push_str(subcommand);
    }
    let proto = if session.proto == Proto::Resp3 { 3 } else { 2 };
    let _ = write!(text, " user=default redir=-1 resp={proto} lib-name=");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&session.lib_name);
    out.extend_from_slice(b" lib-ver=");
    out.extend_from_slice(&session.lib_ver);
}

/// The subcommands of CLIENT that need nothing but the session. The number of arguments fits.
fn client(now: Now, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
    let subcommand = args.get(1);
    let is = |name: &[u8]| subcommand.eq_ignore_ascii_case(name);
    if is(b"ID") {
        reply::integer(out, session.client_id as i64);
    } else if is(b"GETNAME") {
        match session.name.as_ref() {
            [] => reply::null(out, session.proto),
            name => reply::bulk(out, name),
        }
    } else if is(b"SETNAME") {
        match check_name(args.get(2)) {
            Ok(()) => {
                session.name = args.get(2).into();
                reply::ok(out);
            }
            Err(text) => reply::error(out, text),
        }
    } else if is(b"SETINFO") {
        set_info(session, args, out);
    } else if is(b"INFO") {
        let mut text = Vec::new();
        session.last = ("CLIENT", "info");
        describe(now, session, &mut text);
        text.push(b'\n');
        reply::verbatim(out, session.proto, &text);
    } else {
        const HELP: [&str; 14] = [
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are LIB-NAME and LIB-VER.",
        ];
        help("CLIENT", &HELP, out);
    }
}

fn set_info(session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
    let (option, value) = (args.get(2), args.get(3));
    let place = if option.eq_ignore_ascii_case(b"LIB-NAME") {
        &mut session.lib_name
    } else if option.eq_ignore_ascii_case(b"LIB-VER") {
        &mut session.lib_ver
    } else {
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend_from_slice(&option[..option.len().min(128)]);
        text.push(b'\'');
        return reply::error_bytes(out, &text);
    };
    if check_name(value).is_err() {
        let mut text = b"ERR ".to_vec();
        text.extend_from_slice(&option.to_ascii_lowercase());
        text.extend_from_slice(b" cannot contain spaces, newlines or special characters.");
        return reply::error_bytes(out, &text);
    }
    *place = value.into();
    reply::ok(out);
}

/// As in Redis: printable ASCII without the space, so that a line of CLIENT LIST can be read again.
fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NAME_TOO_LONG);
    }
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) { Ok(()) } else { Err(BAD_CLIENT_NAME) }
}

/// There is one database.
fn select(args: Args<'_>, out: &mut Vec<u8>) {
    match parse(args.get(1)) {
        None => reply::error(out, NOT_AN_INTEGER),
        Some(0) => reply::ok(out),
        Some(_) => reply::error(out, "ERR DB index is out of range"),
    }
}

/// A number of a client.
pub(crate) fn parse(digits: &[u8]) -> Option<i64> {
    core::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?.parse().ok()
}

/// The reply to `X HELP`.
pub(crate) fn help(name: &str, lines: &[&str], out: &mut Vec<u8>) {
    reply::array(out, lines.len() + 3);
    let mut first = String::from(name);
    first.push_str(" <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for line in core::iter::once(first.as_str())
        .chain(lines.iter().copied())
        .chain(["HELP", "    Print this help."])
    {
        reply::simple(out, line);
    }
}
