//! MULTI, EXEC, DISCARD, WATCH and UNWATCH as the session executes them: queueing, and putting the replies together.
//!
//! Commands with keys, which all are of one slot, go to its owner as one request (`commands::transactions`), and its reply
//! is that of EXEC. When there are others among them, which only the session can execute or which ask other shards,
//! EXEC waits for that request and then runs these in their places; so it does not run them when a watched key
//! changed. A connection that waits for such a request, or for the marks of WATCH, executes nothing behind it: the command
//! stays in its input and is tried again, as WAIT is.

use crate::acl::User;
use crate::acl::check::{Check, Denied};
use crate::command::{Args, Now, Scope, Spec};
use crate::commands::{self, transactions as owner};
use crate::gates::{Gate, Noticed, Standing, write_failure};
use crate::input::Plan;
use crate::refusal::{self, Refusal};
use crate::session::{End, Session, Stall};
use crate::shard::Shard;
use crate::walk::Request;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::ids::Slot;
use dkv_protocol::limits::{
    ARGS_MAX, KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_COMMANDS_MAX, WATCHED_KEYS_MAX,
};
use dkv_protocol::resp::{Proto, reply, value};
use dkv_protocol::slots::slot_of;

const NO_SHARD_CHANNELS: &str = "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client";
const NO_MONITOR: &str = "ERR MONITOR isn't allowed for DENY BLOCKING client";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const TOO_MANY_COMMANDS: &str =
    "ERR a transaction holds at most 65536 commands; send EXEC before more of them";
const _: () = assert!(TRANSACTION_COMMANDS_MAX == 65536);
const TOO_LONG: &str = "ERR the commands and watched keys of a transaction take at most 512 MiB and a million \
                        arguments together; send EXEC before more of them";
const TOO_MANY_KEYS: &str =
    "ERR a connection watches at most 1024 keys; send EXEC or UNWATCH first";
const _: () = assert!(WATCHED_KEYS_MAX == 1024);

/// What an argument, and a command or mark besides its arguments, take on their way to the owner, in bytes at most.
const ARGUMENT_COST_BYTES: usize = 4;
const COMMAND_COST_BYTES: usize = 8;
const WATCHED_COST_BYTES: usize = owner::MARK_BYTES + 2 * ARGUMENT_COST_BYTES;

/// A command that is queued.
#[derive(Debug)]
struct Queued {
    spec: &'static Spec,
    /// Its arguments among all.
    first: u32,
    len: u32,
    /// Whether the owner of the keys runs it when there is one: it must, or it may.
    keyed: bool,
    plain: bool,
}

/// What a connection has begun.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// MULTI was sent.
    open: bool,
    /// A command was refused since.
    refused: bool,
    /// A command may have subscribed to something by then.
    listens: bool,
    /// The slot of all keys.
    slot: Option<Slot>,
    watched: Vec<(Box<[u8]>, [u8; owner::MARK_BYTES])>,
    arguments: Request,
    commands: Vec<Queued>,
    /// What all of it will take as a request, in bytes.
    bytes: usize,
    /// The command that is looked at next because its user is held to other rules, and how far that is.
    checking: Option<(usize, Option<Check>)>,
    /// EXEC is under way.
    going: Option<Going>,
}

/// An EXEC whose replies are put together.
#[derive(Debug, Default)]
struct Going {
    /// The owner's replies, those from `at` on to be used.
    replies: Vec<u8>,
    at: usize,
    /// The command whose reply comes next.
    next: usize,
}

/// A reply that the session itself waits for.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Its place in the queue.
    slot: u32,
    /// The reply, and what it waits for, once it has come.
    reply: Option<(Vec<u8>, Vec<Gate>)>,
}

/// Whether a command is one of those that CLIENT PAUSE of writes holds back though they write nothing.
pub(crate) fn is_publish(spec: &Spec) -> bool {
    matches!(spec.name, "PUBLISH" | "SPUBLISH")
}

impl Transaction {
    /// Whether EXEC has begun to run it.
    pub(crate) fn is_going(&self) -> bool {
        self.going.is_some()
    }

    fn new() -> Box<Self> {
        Box::new(Self {
            open: false,
            refused: false,
            listens: false,
            slot: None,
            watched: Vec::new(),
            arguments: Request::empty(Proto::Resp2, true),
            commands: Vec::new(),
            bytes: 0,
            checking: None,
            going: None,
        })
    }

    /// Whether commands are queued.
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Commands that are queued, and the bytes that they keep.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.commands.len(), self.arguments.bytes())
    }

    /// Whether a command that is queued writes.
    pub(crate) fn writes(&self) -> bool {
        self.commands.iter().any(|command| command.spec.write || is_publish(command.spec))
    }

    /// Whether CLIENT CACHING YES is among its commands.
    pub(crate) fn caches(&self) -> bool {
        self.commands.iter().any(|command| {
            let args = self.args_of(command);
            let is =
                |at: usize, word: &[u8]| args.len() > at && args.get(at).eq_ignore_ascii_case(word);
            command.spec.name == "CLIENT" && is(1, b"CACHING") && is(2, b"YES")
        })
    }

    /// The keys that its commands read.
    pub(crate) fn keys_read(&self) -> impl Iterator<Item = &[u8]> {
        let reads = self.commands.iter().filter(|one| one.spec.flags.contains(&"readonly"));
        reads.flat_map(|one| one.spec.keys(self.args_of(one)))
    }

    /// Its user is held to other rules: EXEC looks at all of its commands again.
    pub(crate) fn check_anew(&mut self) {
        self.checking = Some((0, None));
    }

    /// Goes on looking whether a user may execute all of its commands, for as long as there is some of `left_ns`. None: it is not
    /// known yet. It does not run when there is one that may not be executed, which is named.
    pub(crate) fn check_on(
        &mut self,
        user: &User,
        left_ns: &mut usize,
    ) -> Option<Result<(), (usize, Denied)>> {
        let Some((mut at, mut begun)) = self.checking.take() else { return Some(Ok(())) };
        while let Some(command) = self.commands.get(at).filter(|_| !self.refused) {
            let args = self.args_of(command);
            let mut check = begun.take().unwrap_or_else(|| Check::new(command.spec, args));
            match check.go_on(user, command.spec, args, left_ns) {
                Some(Ok(())) => at += 1,
                Some(Err(denied)) => {
                    self.refused = true;
                    return Some(Err((at, denied)));
                }
                None => begun = Some(check),
            }
            if *left_ns == 0 {
                self.checking = Some((at, begun));
                return None;
            }
        }
        Some(Ok(()))
    }

    /// A command that is queued.
    pub(crate) fn at(&self, at: usize) -> Option<(&'static Spec, Args<'_>)> {
        self.commands.get(at).map(|command| (command.spec, self.args_of(command)))
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let watched = self.watched.iter().map(|(key, mark)| key.len() + mark.len()).sum::<usize>();
        size_of::<Self>()
            + self.arguments.bytes()
            + self.commands.capacity() * size_of::<Queued>()
            + watched
    }

    /// Whether keys of this slot may be added.
    fn accepts(&mut self, keys: impl Iterator<Item = Slot>) -> Result<(), &'static str> {
        let mut slot = self.slot;
        for one in keys {
            if *slot.get_or_insert(one) != one {
                return Err(CROSS_SLOT);
            }
        }
        self.slot = slot;
        Ok(())
    }

    /// Queues a command; `plain`: any shard may run it.
    fn add(
        &mut self,
        spec: &'static Spec,
        plain: bool,
        args: Args<'_>,
    ) -> Result<(), &'static str> {
        let cost = args.iter_from(0).map(|arg| arg.len() + ARGUMENT_COST_BYTES).sum::<usize>();
        let bytes = self.bytes + cost + COMMAND_COST_BYTES;
        let (arguments, commands) = (self.arguments.args().len(), self.commands.len());
        let request = owner::EXEC_HEAD_ARGS + 2 * self.watched.len() + arguments + commands;
        if commands == TRANSACTION_COMMANDS_MAX {
            return Err(TOO_MANY_COMMANDS);
        }
        if bytes > TRANSACTION_BYTES_MAX || request + args.len() + 1 > ARGS_MAX {
            return Err(TOO_LONG);
        }
        self.accepts(spec.keys(args).map(slot_of))?;
        args.iter_from(0).for_each(|arg| self.arguments.add(arg));
        let (first, len) = (arguments as u32, args.len() as u32);
        self.listens |= spec.group == "pubsub";
        self.commands.push(Queued {
            spec,
            first,
            len,
            keyed: spec.first_key > 0 && spec.scope != Scope::Session,
            plain,
        });
        self.bytes = bytes;
        Ok(())
    }

    /// Whether somebody has to be asked.
    fn has_owner(&self) -> bool {
        !self.watched.is_empty() || self.commands.iter().any(|command| command.keyed)
    }

    /// The commands that the owner runs.
    fn of_owner(&self) -> impl Iterator<Item = &Queued> {
        let asked = self.has_owner();
        self.commands.iter().filter(move |command| command.keyed || asked && command.plain)
    }

    fn args_of(&self, command: &Queued) -> Args<'_> {
        self.arguments.args().slice(command.first as usize, command.len as usize)
    }

    /// What the owner is asked.
    fn request(&self) -> Request {
        let mut request = Request::empty(Proto::Resp2, true);
        let writes = self.of_owner().any(|command| command.spec.write);
        request.add(if writes { owner::EXEC_REQUEST } else { owner::EXEC_READING_REQUEST });
        let keys = self.commands.iter().flat_map(|one| one.spec.keys(self.args_of(one)));
        let mut keys = self.watched.iter().map(|(key, _)| &**key).chain(keys);
        request.add(keys.next().unwrap_or_default());
        request.add(&(self.watched.len() as u32).to_le_bytes());
        request.add(&(self.of_owner().count() as u32).to_le_bytes());
        for (key, mark) in &self.watched {
            request.add(key);
            request.add(mark);
        }
        for command in self.of_owner() {
            request.add(&command.len.to_le_bytes());
            self.args_of(command).iter_from(0).for_each(|arg| request.add(arg));
        }
        request
    }
}

impl Shard {
    /// Whether this shard is the whole store.
    fn is_alone(&self) -> bool {
        self.copies.is_none() && self.links.len() == 1
    }

    /// What becomes of a command that comes after MULTI.
    #[cold]
    pub(crate) fn plan_queued(&self, spec: &'static Spec, args: Args<'_>) -> Plan {
        if let Some(refusal) = refusal::check_arguments(spec, args) {
            return Plan::Refused(refusal);
        }
        if matches!(spec.name, "EXEC" | "DISCARD" | "MULTI" | "WATCH" | "QUIT" | "RESET") {
            return Plan::Session;
        }
        if !spec.subcommands.is_empty()
            && args.len() > 1
            && let Some(refusal) = refusal::check_subcommand(spec, args)
        {
            return Plan::Refused(refusal);
        }
        // What the managers decide is not a matter of one moment.
        let changes_users = spec.name == "ACL"
            && matches!(refusal::subcommand_of(spec, args), "setuser" | "deluser");
        if changes_users || spec.flags.contains(&"no_multi") {
            return Plan::Refused(Refusal::InTransaction);
        }
        // Its keys are read before, by their owner: what is told meanwhile would find nobody who keeps them.
        if spec.name == "CLIENT"
            && refusal::subcommand_of(spec, args) == "tracking"
            && !args.get(2).eq_ignore_ascii_case(b"OFF")
        {
            return Plan::Refused(Refusal::TrackingInTransaction);
        }
        if spec.keys(args).any(|key| key.len() > KEY_BYTES_MAX) {
            return Plan::Refused(Refusal::KeyTooLong);
        }
        if spec.write && matches!(spec.scope, Scope::Whole(_)) && !self.is_alone() {
            return Plan::Refused(Refusal::WholeStoreInTransaction);
        }
        Plan::Queue
    }

    /// Queues a command of a transaction.
    pub(crate) fn queue(&mut self, session: &mut Session, spec: &'static Spec, args: Args<'_>) {
        session.last = (spec.name, refusal::subcommand_of(spec, args));
        let listens = session.transaction.as_ref().is_some_and(|transaction| transaction.listens);
        // What PING answers depends on what the connection listens to.
        let anywhere = matches!(spec.name, "ECHO" | "TIME") || spec.name == "PING" && !listens;
        let here = matches!(self.plan_known(session.port, spec, args), Plan::Here(None));
        let plain = anywhere || here && self.is_alone() && !listens;
        let Some(transaction) = &mut session.transaction else { return };
        match transaction.add(spec, plain, args) {
            Ok(()) => session.replies.push(b"+QUEUED\r\n"),
            Err(text) => {
                transaction.refused = true;
                self.answer_error(session, text);
            }
        }
    }

    fn answer_error(&mut self, session: &mut Session, text: &str) {
        let mut out = Vec::new();
        reply::error(&mut out, text);
        self.answer(session, &out);
    }

    /// A command was refused before it ran: a transaction that it belonged to will not run either.
    #[cold]
    pub(crate) fn refused_in_transaction(session: &mut Session, spec: Option<&'static Spec>) {
        if spec.is_some_and(|spec| spec.name == "EXEC") {
            session.transaction = None;
        } else if let Some(transaction) = session.transaction.as_mut().filter(|t| t.open) {
            transaction.refused = true;
        }
    }

    /// One of MULTI, EXEC, DISCARD, WATCH and UNWATCH. Break: not now, the session is stalled.
    pub(crate) fn transaction_command(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let open = session.transaction.as_ref().is_some_and(|transaction| transaction.open);
        let refusal = match (spec.name, open) {
            ("MULTI", true) => "ERR MULTI calls can not be nested",
            ("WATCH", true) => "ERR WATCH inside MULTI is not allowed",
            ("EXEC", false) => "ERR EXEC without MULTI",
            ("DISCARD", false) => "ERR DISCARD without MULTI",
            ("WATCH", false) => return self.watch(now, session, args),
            ("EXEC", true) => {
                self.check_queued(session)?;
                let Some(mut transaction) = session.transaction.take() else {
                    return ControlFlow::Continue(());
                };
                // Who looks on was shown its commands when they were queued.
                let shown = core::mem::take(&mut self.monitor.on);
                let flow = self.exec_transaction(now, session, &mut transaction);
                self.monitor.on = shown;
                if flow.is_break() && session.end != End::Ordered {
                    session.transaction = Some(transaction);
                }
                return flow;
            }
            ("MULTI", false) => {
                session.transaction.get_or_insert_with(Transaction::new).open = true;
                ""
            }
            _ => {
                session.transaction = None;
                ""
            }
        };
        if refusal.is_empty() {
            session.replies.push(b"+OK\r\n");
        } else {
            self.answer_error(session, refusal);
        }
        ControlFlow::Continue(())
    }

    fn watch(&mut self, now: Now, session: &mut Session, args: Args<'_>) -> ControlFlow<()> {
        if session.awaited.is_none() {
            let transaction = session.transaction.get_or_insert_with(Transaction::new);
            let keys = args.len() - 1;
            let cost = args.iter_from(1).map(|key| key.len() + WATCHED_COST_BYTES).sum::<usize>();
            let result = if args.iter_from(1).any(|key| key.len() > KEY_BYTES_MAX) {
                Err(refusal::KEY_TOO_LONG)
            } else if transaction.watched.len() + keys > WATCHED_KEYS_MAX {
                Err(TOO_MANY_KEYS)
            } else if transaction.bytes + cost > TRANSACTION_BYTES_MAX {
                Err(TOO_LONG)
            } else {
                transaction.accepts(args.iter_from(1).map(slot_of))
            };
            if let Err(text) = result {
                self.answer_error(session, text);
                return ControlFlow::Continue(());
            }
            let mut request = Request::empty(Proto::Resp2, true);
            request.add(owner::WATCH_REQUEST);
            args.iter_from(1).for_each(|key| request.add(key));
            self.ask_owner(now, session, &request)?;
        }
        let Some((slot, reply)) = self.awaited(session)? else {
            unbind(session);
            return ControlFlow::Continue(());
        };
        let marks = value::elements(&reply).ok().map(|marks| {
            marks.filter_map(|mark| mark.ok()?.strip_suffix(b"\r\n")?.last_chunk().copied())
        });
        let marks: Vec<[u8; owner::MARK_BYTES]> = marks.into_iter().flatten().collect();
        let known = marks.len() == args.len() - 1;
        if let Some(transaction) = session.transaction.as_mut().filter(|_| known) {
            let keys = args.iter_from(1).map(|key| key.len() + WATCHED_COST_BYTES);
            transaction.bytes += keys.sum::<usize>();
            transaction.watched.extend(args.iter_from(1).map(Into::into).zip(marks));
        } else {
            unbind(session);
        }
        let reply = if known { Cow::Borrowed(&b"+OK\r\n"[..]) } else { Cow::Owned(reply) };
        self.resolve(now, session, slot, 0, reply);
        ControlFlow::Continue(())
    }

    fn exec_transaction(
        &mut self,
        now: Now,
        session: &mut Session,
        transaction: &mut Transaction,
    ) -> ControlFlow<()> {
        if transaction.refused {
            self.answer_error(session, ABORTED);
            return ControlFlow::Continue(());
        }
        let all = transaction.commands.len();
        if transaction.going.is_none() {
            let mut head = Vec::new();
            reply::array(&mut head, all);
            if !transaction.has_owner() {
                session.replies.push(&head);
                transaction.going = Some(Going::default());
            } else if session.awaited.is_none() && transaction.of_owner().count() == all {
                let request = transaction.request();
                let spec = commands::internal(request.args().get(0));
                let plan = spec.map_or(Plan::Session, |spec| {
                    self.plan_known(session.port, spec, request.args())
                });
                return self.execute_one(now, session, spec, plan, request.args());
            } else {
                if session.awaited.is_none() {
                    self.ask_owner(now, session, &transaction.request())?;
                }
                let Some((slot, replies)) = self.awaited(session)? else {
                    return ControlFlow::Continue(());
                };
                let at = replies.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let count = transaction.of_owner().count();
                let whole = value::elements(&replies).is_ok_and(|found| found.len() == count);
                // Null when a watched key changed, which is no array in RESP3 and an empty one in RESP2.
                if value::is_error(&replies) || replies.starts_with(b"*-1") || !whole {
                    self.resolve(now, session, slot, 0, replies.into());
                    return ControlFlow::Continue(());
                }
                self.resolve(now, session, slot, 0, head.into());
                transaction.going = Some(Going { replies, at, next: 0 });
            }
        }
        self.go_through(now, session, transaction)
    }

    /// Runs what is left of a transaction, whose keys have been seen to.
    fn go_through(
        &mut self,
        now: Now,
        session: &mut Session,
        transaction: &mut Transaction,
    ) -> ControlFlow<()> {
        let asked = transaction.has_owner();
        let Some(mut going) = transaction.going.take() else { return ControlFlow::Continue(()) };
        while let Some(command) = transaction.commands.get(going.next)
            && session.end == End::No
        {
            if command.keyed || asked && command.plain {
                let rest = &going.replies[going.at..];
                let len = value::skip(rest).ok().flatten().unwrap_or(rest.len());
                session.replies.push(&rest[..len]);
                going.at += len;
            } else {
                let args = transaction.args_of(command);
                let mut plan = self.plan_known(session.port, command.spec, args);
                match command.spec.name {
                    "SSUBSCRIBE" | "MONITOR" => {
                        let monitor = command.spec.name == "MONITOR";
                        let text = if monitor { NO_MONITOR } else { NO_SHARD_CHANNELS };
                        self.answer_error(session, text);
                        going.next += 1;
                        continue;
                    }
                    "PING" => {
                        let subscribed = Self::plan_subscribed(session, command.spec, args);
                        plan = subscribed.unwrap_or(plan);
                    }
                    _ => {}
                }
                session.in_exec = true;
                let flow = self.execute_one(now, session, Some(command.spec), plan, args);
                session.in_exec = false;
                if flow.is_break() {
                    transaction.going = Some(going);
                    return ControlFlow::Break(());
                }
            }
            going.next += 1;
        }
        ControlFlow::Continue(())
    }

    /// Asks the owner of a key on behalf of the session; [`Self::awaited`] gives the reply. It may have been answered with
    /// a refusal already.
    fn ask_owner(&mut self, now: Now, session: &mut Session, request: &Request) -> ControlFlow<()> {
        let args = request.args();
        let Some(spec) = commands::internal(args.get(0)) else {
            return ControlFlow::Continue(());
        };
        let (slot, waiting) = (session.replies.next_number(), session.replies.waiting());
        let last = session.last;
        match self.plan_known(session.port, spec, args) {
            Plan::Here(place) => {
                if self.copies.is_none() || self.admit_here(now, session, spec, place, args)? {
                    if !self.has_room(now, spec, place, args) {
                        let _ = self.noticed();
                        self.later(session);
                        return ControlFlow::Break(());
                    }
                    if spec.write {
                        self.note_written_here(session, place);
                    }
                    let slot = session.replies.wait();
                    session.awaited = Some(Box::new(Awaited { slot, reply: None }));
                    self.part_here(now, session, spec, slot, 0, args);
                    return ControlFlow::Continue(());
                }
            }
            Plan::There(owner) => self.forward(now, session, spec, owner, args)?,
            _ => return ControlFlow::Continue(()),
        }
        session.last = last;
        if session.replies.waiting() > waiting {
            session.awaited = Some(Box::new(Awaited { slot, reply: None }));
        }
        ControlFlow::Continue(())
    }

    /// Takes a reply that the session waits for; gives back any other, with what it waits for.
    pub(crate) fn take_awaited<'r>(
        session: &mut Session,
        slot: u32,
        reply: Cow<'r, [u8]>,
        noticed: Noticed,
    ) -> Option<(Cow<'r, [u8]>, Noticed)> {
        match &mut session.awaited {
            Some(awaited) if awaited.slot == slot && awaited.reply.is_none() => {
                awaited.reply = Some((reply.into_owned(), noticed.into_vec()));
                None
            }
            _ => Some((reply, noticed)),
        }
    }

    /// The reply that was asked for, and its place in the queue, which is still to be filled; none when the command has been
    /// answered. Break: it has not come, or must not leave yet.
    fn awaited(&mut self, session: &mut Session) -> ControlFlow<(), Option<(u32, Vec<u8>)>> {
        let Some(awaited) = session.awaited.take() else { return ControlFlow::Continue(None) };
        let Awaited { slot, reply: Some((reply, gates)) } = *awaited else {
            session.awaited = Some(awaited);
            self.stall(session, Stall::Copies);
            return ControlFlow::Break(());
        };
        let standing =
            self.copies.as_ref().map_or(Standing::Open, |copies| copies.gates.state_of(&gates));
        match standing {
            Standing::Open => ControlFlow::Continue(Some((slot, reply))),
            Standing::Failed { wrote } => {
                let mut error = Vec::new();
                write_failure(wrote, &mut error);
                ControlFlow::Continue(Some((slot, error)))
            }
            Standing::Shut(gate) => {
                session.awaited = Some(Box::new(Awaited { slot, reply: Some((reply, gates)) }));
                self.wake_at(gate, session.id);
                self.stall(session, Stall::Copies);
                ControlFlow::Break(())
            }
        }
    }
}

/// A WATCH failed: when nothing is watched, its slot does not bind what comes next.
fn unbind(session: &mut Session) {
    session.transaction.take_if(|transaction| transaction.watched.is_empty());
}
