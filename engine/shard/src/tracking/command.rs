//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO.

use super::Mode;
use crate::command::{Args, Now};
use crate::connection::parse;
use crate::session::Session;
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::reply;

/// Prefixes that one connection may have, and bytes of each.
const PREFIXES_MAX: usize = 64;
const PREFIX_BYTES_MAX: usize = 1024;

const SYNTAX: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const REDIRECTED_TWICE: &str = "ERR A client can only redirect to a single other client";
const NO_BCAST: &str = "ERR PREFIX option requires BCAST mode to be enabled";
const OTHER_BCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                           re-enabling it with a different mode.";
const OTHER_OPT: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                         re-enabling it with a different mode.";
const BCAST_AND_OPT: &str = "ERR OPTIN and OPTOUT are not compatible with BCAST";
const BOTH: &str = "ERR You can't specify both OPTIN mode and OPTOUT mode";
const TOO_MANY: &str = "ERR a connection has at most 64 prefixes of at most 1024 bytes";
const _: () = assert!(PREFIXES_MAX == 64 && PREFIX_BYTES_MAX == 1024);
const NO_CACHING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                          mode enabled";
const NO_OPTIN: &str =
    "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.";
const NO_OPTOUT: &str =
    "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";

/// What CLIENT TRACKING asks for: how to track, and the connection to be told instead; none for not any more.
fn wanted(args: Args<'_>) -> Result<Option<(Mode, Option<u64>)>, String> {
    let mut mode = Mode::default();
    let mut redirect = None;
    let mut at = 3;
    while at < args.len() {
        let is = |word: &[u8]| args.get(at).eq_ignore_ascii_case(word);
        let more = at + 1 < args.len();
        match () {
            () if is(b"REDIRECT") && more => {
                at += 1;
                if redirect.is_some() {
                    return Err(REDIRECTED_TWICE.into());
                }
                redirect = Some(parse(args.get(at)).ok_or(NOT_AN_INTEGER)? as u64);
            }
            () if is(b"BCAST") => mode.bcast = true,
            () if is(b"OPTIN") => mode.optin = true,
            () if is(b"OPTOUT") => mode.optout = true,
            () if is(b"NOLOOP") => mode.noloop = true,
            () if is(b"PREFIX") && more => {
                at += 1;
                mode.prefixes.push(args.get(at).into());
            }
            () => return Err(SYNTAX.into()),
        }
        at += 1;
    }
    match () {
        () if args.get(2).eq_ignore_ascii_case(b"ON") => Ok(Some((mode, redirect))),
        () if args.get(2).eq_ignore_ascii_case(b"OFF") => Ok(None),
        () => Err(SYNTAX.into()),
    }
}

/// Whether a connection that tracks as `before` says may track as `mode` says, with its prefixes added.
fn check(mode: &Mode, before: Option<&Mode>) -> Result<(), String> {
    if !mode.bcast && !mode.prefixes.is_empty() {
        return Err(NO_BCAST.into());
    }
    if before.is_some_and(|before| before.bcast != mode.bcast) {
        return Err(OTHER_BCAST.into());
    }
    if mode.bcast && (mode.optin || mode.optout) {
        return Err(BCAST_AND_OPT.into());
    }
    if mode.optin && mode.optout {
        return Err(BOTH.into());
    }
    if before.is_some_and(|was| mode.optin && was.optout || mode.optout && was.optin) {
        return Err(OTHER_OPT.into());
    }
    let known = before.map_or(&[][..], |before| &before.prefixes);
    if known.len() + mode.prefixes.len() > PREFIXES_MAX
        || mode.prefixes.iter().any(|prefix| prefix.len() > PREFIX_BYTES_MAX)
    {
        return Err(TOO_MANY.into());
    }
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let text = |prefix: &[u8]| String::from_utf8_lossy(prefix).into_owned();
    for (i, one) in mode.prefixes.iter().enumerate() {
        if let Some(other) = known.iter().find(|other| overlap(one, other)) {
            return Err(format!(
                "ERR Prefix '{}' overlaps with an existing prefix '{}'. Prefixes for a single client must not overlap.",
                text(one),
                text(other)
            ));
        }
        if let Some(other) = mode.prefixes[i + 1..].iter().find(|other| overlap(one, other)) {
            return Err(format!(
                "ERR Prefix '{}' overlaps with another provided prefix '{}'. Prefixes for a single client must not overlap.",
                text(one),
                text(other)
            ));
        }
    }
    Ok(())
}

impl Shard {
    /// CLIENT TRACKING. The error is the reply; otherwise it has been answered, or will be. Break: not now, the session is
    /// stalled.
    pub(crate) fn client_tracking(
        &mut self,
        now: Now,
        session: &mut Session,
        args: Args<'_>,
    ) -> ControlFlow<(), Result<(), String>> {
        let (mut mode, redirect) = match wanted(args) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                self.stop_tracking(session);
                session.replies.push(b"+OK\r\n");
                return ControlFlow::Continue(Ok(()));
            }
            Err(error) => return ControlFlow::Continue(Err(error)),
        };
        if let Some(client_id) = redirect {
            match self.find_redirect(now, session, client_id)? {
                Ok(other) => mode.redirect = Some(other),
                Err(error) => return ControlFlow::Continue(Err(error.into())),
            }
        }
        ControlFlow::Continue(self.begin_tracking(session, mode))
    }

    fn begin_tracking(&mut self, session: &mut Session, mut mode: Mode) -> Result<(), String> {
        check(&mode, session.tracking.as_deref())?;
        if mode.bcast && mode.prefixes.is_empty() {
            // All keys. It is not looked at whether that overlaps, in Redis neither.
            let known = session.tracking.as_ref().map_or(&[][..], |before| &before.prefixes);
            if !known.iter().any(|prefix| prefix.is_empty()) {
                mode.prefixes.push(Box::default());
            }
        }
        if let Some(before) = session.tracking.take() {
            mode.prefixes.splice(..0, before.prefixes).for_each(drop);
        } else {
            self.tracking.clients += 1;
            self.stats.tracking_clients.set(self.tracking.clients);
            if mode.bcast {
                self.tracking.broadcasting.push(session.id);
            }
        }
        let bcast = mode.bcast;
        session.tracking = Some(Box::new(mode));
        self.table.note_removed(true);
        session.is_odd = true;
        let mut answer = Vec::new();
        reply::ok(&mut answer);
        if bcast {
            self.begin_broadcast(session, answer);
        } else {
            session.replies.push(&answer);
        }
        Ok(())
    }
}

/// CLIENT CACHING; the error is the reply.
pub(crate) fn caching(session: &mut Session, word: &[u8]) -> Result<(), &'static str> {
    let mode = session.tracking.as_mut().filter(|mode| mode.optin || mode.optout);
    let mode = mode.ok_or(NO_CACHING)?;
    match () {
        () if word.eq_ignore_ascii_case(b"YES") && mode.optin => mode.caching = true,
        () if word.eq_ignore_ascii_case(b"YES") => return Err(NO_OPTIN),
        () if word.eq_ignore_ascii_case(b"NO") && mode.optout => mode.caching = true,
        () if word.eq_ignore_ascii_case(b"NO") => return Err(NO_OPTOUT),
        () => return Err(SYNTAX),
    }
    Ok(())
}

/// CLIENT GETREDIR: who is told instead, 0 for nobody, -1 where nothing is tracked.
pub(crate) fn redirection(session: &Session) -> i64 {
    session
        .tracking
        .as_ref()
        .map_or(-1, |mode| mode.redirect.map_or(0, |other| other.client_id as i64))
}

/// Whether it is said to nobody what the connection keeps, because the one that was told instead is gone; and whether it wants
/// to hear of all keys with its prefixes. CLIENT LIST shows both.
pub(crate) fn flags(session: &Session) -> (bool, bool) {
    session.tracking.as_ref().map_or((false, false), |mode| {
        (mode.redirect.is_some_and(|other| other.broken), mode.bcast)
    })
}

/// CLIENT TRACKINGINFO.
pub(crate) fn info(session: &Session, out: &mut Vec<u8>) {
    let proto = session.proto;
    reply::map(out, proto, 3);
    reply::bulk(out, b"flags");
    let flags: Vec<&str> = match session.tracking.as_deref() {
        None => Vec::from(["off"]),
        Some(mode) => [
            (true, "on"),
            (mode.bcast, "bcast"),
            (mode.optin, "optin"),
            (mode.optin && mode.caching, "caching-yes"),
            (mode.optout, "optout"),
            (mode.optout && mode.caching, "caching-no"),
            (mode.noloop, "noloop"),
            (mode.redirect.is_some_and(|other| other.broken), "broken_redirect"),
        ]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, flag)| flag)
        .collect(),
    };
    reply::set(out, proto, flags.len());
    for flag in flags {
        reply::bulk(out, flag.as_bytes());
    }
    reply::bulk(out, b"redirect");
    reply::integer(out, redirection(session));
    reply::bulk(out, b"prefixes");
    let prefixes = session.tracking.as_ref().map_or(&[][..], |mode| &mode.prefixes);
    reply::array(out, prefixes.len());
    for prefix in prefixes {
        reply::bulk(out, prefix);
    }
}
