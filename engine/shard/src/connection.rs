//! Commands that the session executes itself: AUTH, HELLO, CLIENT, SELECT, QUIT and their like.

use crate::acl::DEFAULT;
use crate::command::{Args, Now, Spec};
use crate::commands;
use crate::commands::info::REDIS_VERSION;
use crate::refusal;
use crate::session::{End, Session};
use crate::shard::Shard;
use crate::waits::Written;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};

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
            "AUTH" => self.auth(now, session, args, &mut out),
            "HELLO" => self.hello(now, session, args, &mut out),
            "ACL" => return self.acl_command(now, session, spec, args),
            "QUIT" => {
                reply::ok(&mut out);
                session.end = End::Settling;
            }
            "RESET" => {
                self.unsubscribe_from_all(session)?;
                self.look_away(session);
                session.name = Box::default();
                session.proto = Proto::Resp2;
                session.readonly = false;
                self.stop_tracking(session);
                (session.no_evict, session.no_touch) = (false, false);
                (session.reply_off, session.skip_next) = (false, false);
                session.replies.silence(false);
                session.transaction = None;
                session.written = Written::default();
                let was_somebody = session.authenticated;
                session.become_nobody(self.acl.default_user());
                // Whoever has said nothing yet gets no more time for it.
                if was_somebody {
                    self.is_nobody(now, session);
                }
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
            "MONITOR" => return self.monitor(session),
            "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" => {
                return self.transaction_command(now, session, spec, args);
            }
            // There are no ASK redirects to follow; a client that sends it is told that it may go on.
            "ASKING" => reply::ok(&mut out),
            "CLIENT" => return self.client_command(now, session, spec, args),
            "SLOWLOG" | "LATENCY" | "DKV.HOTKEYS" => {
                return self.diagnose(now, session, spec, args);
            }
            "CONFIG" => {
                let mut exec = self.exec(now, session.whole_store(), session.proto);
                commands::config::config(&mut exec, args, &mut out);
                self.tune();
            }
            // Only where it goes in steps.
            "COMMAND" => return self.describe_commands(now, session, args),
            "CLUSTER" => return self.cluster_command(now, session, spec, args),
            _ => refusal::write(refusal::Refusal::Unknown, None, args, &mut out),
        }
        self.answer(session, &out);
        ControlFlow::Continue(())
    }

    /// Whether the subcommand is none, or has too few or too many arguments; that is the answer then.
    pub(crate) fn refuses_subcommand(
        &mut self,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> bool {
        let Some(refusal) = refusal::check_subcommand(spec, args) else { return false };
        let mut out = Vec::new();
        refusal::write(refusal, Some(spec), args, &mut out);
        self.answer(session, &out);
        true
    }

    /// A reply made by the session.
    pub(crate) fn answer(&mut self, session: &mut Session, reply: &[u8]) {
        if reply.first() == Some(&b'-') {
            self.stats.error(reply);
        }
        session.replies.push(reply);
    }

    fn auth(&mut self, now: Now, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
        let (user, password) = match args.len() {
            2 => (DEFAULT.as_bytes(), args.get(1)),
            3 => (args.get(1), args.get(2)),
            _ => return reply::error(out, "ERR syntax error"),
        };
        if args.len() == 2 && self.acl.default_user().takes_any_password() {
            return reply::error(out, NO_PASSWORD);
        }
        if self.authenticate(now, session, args.get(0), user, password) {
            reply::ok(out);
        } else {
            reply::error(out, WRONG_PASSWORD);
        }
    }

    fn hello(&mut self, now: Now, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
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
        if let Some((user, password)) = credentials
            && !self.authenticate(now, session, args.get(0), user, password)
        {
            return reply::error(out, WRONG_PASSWORD);
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
}

pub(crate) fn set_info(session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) {
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
pub(crate) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NAME_TOO_LONG);
    }
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) { Ok(()) } else { Err(BAD_CLIENT_NAME) }
}

const NO_DB_NUMBER: &str =
    "ERR value is out of range, value must between -2147483648 and 2147483647";

/// There is one database.
fn select(args: Args<'_>, out: &mut Vec<u8>) {
    let text = args.get(1);
    // A number has one spelling in Redis, and this one 32 bits.
    match parse(text).filter(|number| format!("{number}").as_bytes() == text) {
        None => reply::error(out, NOT_AN_INTEGER),
        Some(0) => reply::ok(out),
        Some(number) if i32::try_from(number).is_err() => reply::error(out, NO_DB_NUMBER),
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
        .chain(["HELP", "    Prints this help."])
    {
        reply::simple(out, line);
    }
}
