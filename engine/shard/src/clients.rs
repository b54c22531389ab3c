//! CLIENT: what a connection sets for itself, and what it asks about others of its node.

use crate::acl::Acl;
use crate::command::{Args, Now, Spec};
use crate::commands::clients::{self, Filter};
use crate::connection::{check_name, help, set_info};
use crate::face::SessionId;
use crate::node_wide::Asker;
use crate::pubsub::Kind;
use crate::refusal;
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use crate::tracking::command as tracking;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};

const HELP: &[&str] = &[
    "CACHING (YES|NO)",
    "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "    * ID <client-id>",
    "      Kill connections by client id.",
    "    * MAXAGE <maxage>",
    "      Kill connections older than the specified age.",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "SETINFO <option> <value>",
    "    Set client meta attr. Options are LIB-NAME and LIB-VER.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT] [NOLOOP]",
    "    Control server assisted client side caching.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Unblock the specified blocked client.",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "NO-TOUCH (ON|OFF)",
    "    Will not touch LRU/LFU stats when this mode is on.",
];

impl Shard {
    /// Executes CLIENT. Break: not now, the session is stalled.
    pub(crate) fn client_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let mut out = Vec::new();
        let result = match refusal::check_subcommand(spec, args) {
            Some(refusal) => {
                refusal::write(refusal, Some(spec), args, &mut out);
                Ok(())
            }
            None => match refusal::subcommand_of(spec, args) {
                "list" => match Filter::of_list(args) {
                    Ok(_) => {
                        session.last = (spec.name, "list");
                        return self.of_node(now, session, args);
                    }
                    Err(error) => Err(error),
                },
                "kill" => match check_kill(&self.acl, session, args) {
                    Ok(()) => return self.of_node(now, session, args),
                    Err(error) => Err(error),
                },
                "unblock" => match clients::unblock(args) {
                    Ok(_) => return self.of_node(now, session, args),
                    Err(error) => Err(error),
                },
                "tracking" => self.client_tracking(now, session, args)?.map_err(String::into_bytes),
                "unpause" => {
                    self.env.settings.unpause();
                    self.tune();
                    return self.of_node(now, session, args);
                }
                subcommand => self.client_alone(now, session, subcommand, args, &mut out),
            },
        };
        if let Err(error) = result {
            reply::error_bytes(&mut out, &error);
        }
        if !out.is_empty() {
            self.answer(session, &out);
        }
        ControlFlow::Continue(())
    }

    /// The subcommands that need nobody else; the error is the reply. Without a reply there is none.
    fn client_alone(
        &mut self,
        now: Now,
        session: &mut Session,
        subcommand: &'static str,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Vec<u8>> {
        match subcommand {
            "id" => reply::integer(out, session.client_id as i64),
            "getname" => match session.name.as_ref() {
                [] => reply::null(out, session.proto),
                name => reply::bulk(out, name),
            },
            "setname" => match check_name(args.get(2)) {
                Ok(()) => {
                    session.name = args.get(2).into();
                    reply::ok(out);
                }
                Err(text) => reply::error(out, text),
            },
            "setinfo" => set_info(session, args, out),
            "info" => {
                let mut text = Vec::new();
                session.last = ("CLIENT", "info");
                describe(now, session, &mut text);
                text.push(b'\n');
                reply::verbatim(out, session.proto, &text);
            }
            "pause" => {
                let (ms, all) = clients::pause(args)?;
                self.env.settings.pause(now, ms, all);
                self.tune();
                reply::ok(out);
            }
            "caching" => {
                tracking::caching(session, args.get(2)).map_err(<Vec<u8>>::from)?;
                reply::ok(out);
            }
            "getredir" => reply::integer(out, tracking::redirection(session)),
            "trackinginfo" => tracking::info(session, out),
            "reply" => client_reply(session, args.get(2), out)?,
            // Connections are let go for what they leave unread, and there is no other reason to.
            "no-evict" => {
                session.no_evict = on_or_off(args.get(2))?;
                reply::ok(out);
            }
            "no-touch" => {
                session.no_touch = on_or_off(args.get(2))?;
                session.is_odd |= session.no_touch;
                reply::ok(out);
            }
            _ => help("CLIENT", HELP, out),
        }
        Ok(())
    }

    /// This shard's part of a CLIENT that speaks of all connections of the node.
    pub(crate) fn clients_part(
        &mut self,
        now: Now,
        asker: Asker<'_>,
        subcommand: &str,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        // A quarter of a microsecond to look at each.
        self.pace.work(self.sessions.len());
        match subcommand {
            "list" => self.list_clients(now, &asker, args, out),
            "kill" => self.kill_clients(now, asker, args, out),
            "unblock" => {
                let unblocked =
                    clients::unblock(args).is_ok_and(|(id, error)| self.unblock(now, id, error));
                reply::integer(out, unblocked.into());
            }
            _ => {
                self.tune();
                reply::ok(out);
            }
        }
    }

    fn list_clients(&self, now: Now, asker: &Asker<'_>, args: Args<'_>, out: &mut Vec<u8>) {
        let filter = match Filter::of_list(args) {
            Ok(filter) => filter,
            Err(text) => return reply::error_bytes(out, &text),
        };
        let mut text = Vec::new();
        let all = self.sessions.iter().chain(asker.session.as_deref());
        for session in all.filter(|session| filter.matches(session, now.boot_ms())) {
            describe(now, session, &mut text);
            text.push(b'\n');
        }
        reply::bulk(out, &text);
    }

    /// Ends connections: others at once, the one that asks when it has been answered.
    fn kill_clients(&mut self, now: Now, asker: Asker<'_>, args: Args<'_>, out: &mut Vec<u8>) {
        let filter = match Filter::of_kill(args, asker.client_id) {
            Ok(filter) => filter,
            Err(text) => return reply::error_bytes(out, &text),
        };
        let found: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|session| session.end == End::No && filter.matches(session, now.boot_ms()))
            .map(|session| session.id)
            .collect();
        let mut killed = found.len();
        for id in found {
            let Some(mut session) = self.sessions.take(id) else { continue };
            self.let_go(&mut session);
            self.settle(session);
        }
        if let Some(session) = asker.session
            && filter.matches(session, now.boot_ms())
        {
            killed += 1;
            session.end = End::Settling;
        }
        reply::integer(out, killed as i64);
    }

    /// Has a connection's WAIT end now, with what it knows or with an error. Whether there was one.
    fn unblock(&mut self, now: Now, client_id: u64, error: bool) -> bool {
        let blocked = |session: &&Session| {
            session.client_id == client_id
                && session.stall == Stall::Copies
                && session.wait.is_some()
        };
        let Some(id) = self.sessions.iter().find(blocked).map(|session| session.id) else {
            return false;
        };
        let Some(mut session) = self.sessions.take(id) else { return false };
        if let Some(wait) = &mut session.wait {
            wait.unblock(error);
        }
        self.go_on(now, &mut session);
        self.settle(session);
        true
    }
}

const SYNTAX: &str = "ERR syntax error";

/// Whether the options of CLIENT KILL make sense.
fn check_kill(acl: &Acl, session: &Session, args: Args<'_>) -> Result<(), Vec<u8>> {
    let filter = Filter::of_kill(args, session.client_id)?;
    match filter.user() {
        Some(user) if acl.get(user).is_none() => Err(clients::no_such_user(user)),
        _ => Ok(()),
    }
}

/// CLIENT REPLY. Where replies are dropped there is none.
fn client_reply(session: &mut Session, mode: &[u8], out: &mut Vec<u8>) -> Result<(), Vec<u8>> {
    let is = |word: &[u8]| mode.eq_ignore_ascii_case(word);
    match () {
        () if is(b"ON") => {
            session.reply_off = false;
            session.replies.silence(false);
            reply::ok(out);
        }
        () if is(b"OFF") => {
            session.reply_off = true;
            session.replies.silence(true);
        }
        () if is(b"SKIP") => {
            if !session.reply_off {
                session.skip_next = true;
                session.is_odd = true;
                session.replies.silence(true);
            }
        }
        () => return Err(SYNTAX.into()),
    }
    Ok(())
}

fn on_or_off(word: &[u8]) -> Result<bool, Vec<u8>> {
    match () {
        () if word.eq_ignore_ascii_case(b"ON") => Ok(true),
        () if word.eq_ignore_ascii_case(b"OFF") => Ok(false),
        () => Err(SYNTAX.into()),
    }
}
/// A connection as a line of CLIENT LIST, with the fields of Redis 7.2.
pub(crate) fn describe(now: Now, session: &Session, out: &mut Vec<u8>) {
    let mut text = String::with_capacity(256);
    let SessionId { index, .. } = session.id;
    let age = now.boot_ms().saturating_sub(session.opened_ms) / 1000;
    let idle = now.boot_ms().saturating_sub(session.active_ms) / 1000;
    let flags = flags(session);
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
    let _ = write!(
        text,
        " user={} redir={} resp={proto} lib-name=",
        session.user_name(),
        tracking::redirection(session)
    );
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&session.lib_name);
    out.extend_from_slice(b" lib-ver=");
    out.extend_from_slice(&session.lib_ver);
}

/// What is special about a connection, as CLIENT LIST shows it.
fn flags(session: &Session) -> String {
    let open = session.transaction.as_ref().is_some_and(|transaction| transaction.is_open());
    let blocked = session.stall == Stall::Copies && session.wait.is_some();
    let (broken, bcast) = tracking::flags(session);
    let all = [
        (session.looks_on, 'O'),
        (clients::is_subscribed(session), 'P'),
        (open, 'x'),
        (blocked, 'b'),
        (session.end == End::Settling, 'c'),
        (session.readonly, 'r'),
        (session.tracking.is_some(), 't'),
        (broken, 'R'),
        (bcast, 'B'),
        (session.no_evict, 'e'),
        (session.no_touch, 'T'),
    ];
    let flags: String = all.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect();
    if flags.is_empty() { "N".into() } else { flags }
}
