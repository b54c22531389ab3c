//! MONITOR: the commands of one node's clients, as they are executed, to connections that look on.
//!
//! Each shard writes a line for each command of its connections while anybody of the node looks on, and gives the lines of a
//! turn to its own onlookers and, as one request, to the shards of the node that have some. Nobody waits for an onlooker:
//! lines beyond a bound are dropped and counted, and one that reads too slowly is cut like a subscriber.

use crate::command::{Args, Now, Spec};
use crate::face::SessionId;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::session::{End, Session};
use crate::shard::Shard;
use crate::slowlog::is_secret;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::{ControlFlow, Range};
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::limits::{MONITOR_LINE_BYTES_MAX, MONITOR_LINES_BYTES_MAX};
use dkv_protocol::resp::{Proto, reply};

/// What shards of one node tell each other; clients cannot reach it. `DKV.MONITOR +` and `-`: somebody here looks on, or
/// nobody any more; `DKV.MONITOR = lines`.
const MONITOR_REQUEST: &[u8] = b"DKV.MONITOR";
const REDACTED: &str = " \"(redacted)\"";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    /// Whether anybody looks on.
    pub(crate) on: bool,
    here: Vec<SessionId>,
    /// Shards of this node with onlookers.
    there: Vec<u16>,
    /// The lines of this turn.
    lines: Vec<u8>,
}

impl Monitor {
    fn look(&mut self) {
        self.on = !self.here.is_empty() || !self.there.is_empty();
    }

    /// Whether there is something to be given out.
    #[inline]
    pub(crate) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }
}

impl Shard {
    /// The shards of this node, with this one.
    fn shards_of_node(&self) -> Range<u16> {
        let first = self.links.first_of(self.me);
        first..first + self.env.stats.len() as u16
    }

    /// MONITOR. Like Redis it says nothing to who looks on already. Break: not now, the session is stalled.
    pub(crate) fn monitor(&mut self, session: &mut Session) -> ControlFlow<()> {
        if session.looks_on {
            return ControlFlow::Continue(());
        }
        let me = self.links.me();
        let others = self.shards_of_node().filter(|to| *to != me);
        for to in others.clone() {
            self.admit(session, to)?;
        }
        session.looks_on = true;
        self.monitor.here.push(session.id);
        self.monitor.look();
        if others.clone().next().is_none() {
            session.replies.push(b"+OK\r\n");
            return ControlFlow::Continue(());
        }
        let merging = Merging::given(b"+OK\r\n".to_vec(), others.clone().count() as u32);
        let slot = session.replies.wait_for_all(merging);
        for to in others {
            let waiting = Waiting { session: session.id, slot, ..Waiting::UNASKED };
            self.links.push(to, waiting, Proto::Resp2, false, [MONITOR_REQUEST, b"+"]);
        }
        ControlFlow::Continue(())
    }

    /// A connection does not look on any more.
    pub(crate) fn look_away(&mut self, session: &mut Session) {
        if !core::mem::take(&mut session.looks_on) {
            return;
        }
        self.monitor.here.retain(|id| *id != session.id);
        self.monitor.look();
        if self.monitor.here.is_empty() {
            let me = self.links.me();
            for to in self.shards_of_node().filter(|to| *to != me) {
                self.links.push(to, Waiting::UNASKED, Proto::Resp2, false, [MONITOR_REQUEST, b"-"]);
            }
        }
    }

    /// A command of a client was executed, or queued.
    #[cold]
    pub(crate) fn note_for_onlookers(
        &mut self,
        now: Now,
        session: &Session,
        spec: &Spec,
        args: Args<'_>,
    ) {
        let sub = crate::refusal::subcommand_of(spec, args);
        let flags =
            spec.subcommands.iter().find(|one| one.name == sub).map_or(spec.flags, |s| s.flags);
        // Like Redis it leaves out the commands of those who administer, itself among them.
        if flags.contains(&"admin") {
            return;
        }
        if self.monitor.lines.len() >= MONITOR_LINES_BYTES_MAX {
            self.stats.monitor_lines_lost.add(1);
            return;
        }
        line(now, session, args, &mut self.monitor.lines);
    }

    /// The end of a turn: gives out its lines.
    #[cold]
    pub(crate) fn give_lines(&mut self) {
        let mut lines = core::mem::take(&mut self.monitor.lines);
        self.give_to_onlookers(&lines);
        for to in self.monitor.there.clone() {
            if self.links.is_full(to) {
                let lost = lines.split(|byte| *byte == b'\n').count() - 1;
                self.stats.monitor_lines_lost.add(lost as u64);
                continue;
            }
            let request = [MONITOR_REQUEST, b"=", &lines];
            self.links.push(to, Waiting::UNASKED, Proto::Resp2, false, request);
        }
        lines.clear();
        lines.shrink_to(MONITOR_LINE_BYTES_MAX);
        self.monitor.lines = lines;
    }

    fn give_to_onlookers(&mut self, lines: &[u8]) {
        for id in self.monitor.here.clone() {
            let Some(mut session) = self.sessions.take(id) else { continue };
            if session.end == End::No {
                session.replies.lend(|| self.buffers.take());
                session.replies.message(lines);
                self.bound_listener(&mut session);
            }
            self.settle(session);
        }
    }

    /// What another shard of this node tells.
    pub(crate) fn serve_monitor(&mut self, from: ShardAddr, args: Args<'_>, out: &mut Vec<u8>) {
        if let Some(from) = self.links.number(from) {
            match (args.len(), args.get(args.len().min(2) - 1)) {
                (2, sign) => {
                    self.monitor.there.retain(|one| *one != from);
                    if sign == b"+" {
                        self.monitor.there.push(from);
                    }
                    self.monitor.look();
                }
                (3, b"=") => self.give_to_onlookers(args.get(2)),
                _ => {}
            }
        }
        reply::ok(out);
    }
}

/// Whether a request of another shard is one of these.
pub(crate) fn is_request(args: Args<'_>) -> bool {
    args.get(0) == MONITOR_REQUEST
}

/// `+seconds.microseconds [0 address] "command" "argument"…`; the turn's clock has milliseconds. Passwords are left out, and
/// what would make the line too long.
fn line(now: Now, session: &Session, args: Args<'_>, out: &mut Vec<u8>) {
    let (seconds, micros) = (now.unix_ms / 1000, now.unix_ms % 1000 * 1000);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "+{seconds}.{micros:06} [0 {}]", session.peer);
    for (i, arg) in args.iter_from(0).enumerate() {
        if is_secret(args, i) {
            text.push_str(REDACTED);
            continue;
        }
        let Some(room) = MONITOR_LINE_BYTES_MAX.checked_sub(text.len()).filter(|room| *room > 0)
        else {
            let _ = write!(text, " \"... ({} more arguments)\"", args.len() - i);
            break;
        };
        text.push_str(" \"");
        let shown = arg.len().min(room);
        quote(&arg[..shown], &mut text);
        if shown < arg.len() {
            let _ = write!(text, "... ({} more bytes)", arg.len() - shown);
        }
        text.push('"');
    }
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Bytes as Redis shows them.
fn quote(bytes: &[u8], text: &mut String) {
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => text.extend(['\\', char::from(byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
}
