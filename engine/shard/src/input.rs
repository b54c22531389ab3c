//! From the bytes of a client to commands that run: parse a batch, decide who executes each, fetch what they will touch,
//! then execute in order.
//!
//! Nothing is allocated here for a command whose key is this shard's: the spans of a batch and the plan of each command
//! live in scratch space of the shard.

use crate::command::{Args, Exec, Merge, Now, Scope, Spec};
use crate::commands;
use crate::face::{Order, PortKind, SessionId};
use crate::gates::Noticed;
use crate::receiving::{PIECE_BYTES, end_dropped, end_large, keep};
use crate::refusal::{self, Refusal};
use crate::replication::range_of_place;
use crate::session::{End, OUTPUT_FAIR_BYTES, Session, Stall};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::limits::{KEY_BYTES_MAX, OUTPUT_TOTAL_BYTES_MAX};
use dkv_protocol::resp::request::{Parsed, ProtocolError, RequestParser};
use dkv_protocol::resp::{reply, value};
use dkv_protocol::slots::slot_of;
use dkv_table::{Large, Place};

/// Commands that are parsed before the first of them runs.
pub(crate) const BATCH_MAX: usize = 32;
/// Commands of several connections that are parsed before the first of them runs; the last connection may bring a
/// batch more. More than the processor fetches at a time would only push each other out of its cache.
const TOGETHER_MAX: usize = 64;
/// What a command counts that its user may not execute: it is noted, about 2 µs.
const UNITS_OF_DENIAL: usize = 8;
/// Connections that are looked at before the commands of the first are parsed.
const SESSIONS_TOGETHER_MAX: usize = u32::BITS as usize;

/// Who runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// This shard, its key at that place.
    Here(Option<Place>),
    /// This shard's copy of what another shard leads.
    Copy(Place),
    /// The shard with that number, as it stands.
    There(u16),
    /// Each key's owner.
    Split(Merge),
    /// Every shard of the store.
    Everywhere(Merge),
    /// The session.
    Session,
    /// Nobody yet: it is one of a transaction.
    Queue,
    /// Nobody.
    Refused(Refusal),
}

impl Plan {
    fn place(self) -> Option<Place> {
        match self {
            Self::Here(place) => place,
            Self::Copy(place) => Some(place),
            _ => None,
        }
    }
}

/// One parsed command of a batch.
#[derive(Debug, Default)]
pub(crate) struct Item {
    /// Where it starts in the bytes of the batch.
    pub(crate) start: usize,
    /// Its arguments, relative to `start` or in `copy`.
    pub(crate) spans: Vec<(u32, u32)>,
    pub(crate) planned: Option<(Option<&'static Spec>, Plan)>,
}

/// Scratch space: parsed commands, reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    items: Vec<Item>,
    len: usize,
    /// The arguments of an inline command with quotes, which ends its batch.
    copy: Vec<u8>,
    copied: bool,
    /// The arguments of the first command that were received into memory of their own, and what its parser said of them.
    large: Vec<Large>,
    outside: Vec<(u32, u32)>,
}

impl Batch {
    fn clear(&mut self) {
        self.len = 0;
        self.copied = false;
        self.large.clear();
    }

    fn next(&mut self) -> &mut Item {
        if self.len == self.items.len() {
            self.items.push(Item::default());
        }
        let item = &mut self.items[self.len];
        // One command of a million arguments must not hold its spans for ever.
        item.spans.shrink_to(1024);
        item
    }

    fn args<'a>(&'a self, at: usize, buf: &'a [u8]) -> Args<'a> {
        let item = &self.items[at];
        if self.copied && at + 1 == self.len {
            Args::new(&self.copy, &item.spans)
        } else {
            Args::with_large(&buf[item.start..], &item.spans, &self.large)
        }
    }
}

/// A connection whose first batch is parsed and not yet executed.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// None: its bytes are not for a batch of several connections.
    session: Option<Box<Session>>,
    batch: Batch,
    /// Bytes of the batch.
    len: usize,
    ended: Ended,
}

/// How the parsing of a batch ended.
#[derive(Clone, Copy, Debug, Default)]
enum Ended {
    /// There may be more.
    #[default]
    More,
    /// What is left is not a whole command; it needs that many bytes, or an unknown number.
    Unfinished(usize),
    Failed(ProtocolError),
}

impl Shard {
    /// New bytes of a connection.
    pub(crate) fn feed(&mut self, now: Now, session: &mut Session, bytes: &[u8]) {
        if session.stall != Stall::None {
            keep(session, bytes);
            self.kept(session);
            return;
        }
        let mut given = 0;
        // With no more bytes copied to an unfinished request than it may need.
        let mut piece = PIECE_BYTES;
        while given < bytes.len() {
            if let Some(block) = &mut session.filling {
                let end = bytes.len().min(given + block.capacity() - block.len());
                block.extend(&bytes[given..end]);
                given = end;
                end_large(session);
                continue;
            }
            if session.dropping > 0 {
                let end = bytes.len().min(given + session.dropping);
                session.dropping -= end - given;
                given = end;
                end_dropped(session);
                continue;
            }
            if session.input.is_empty() {
                let used = self.run(now, session, &bytes[given..]);
                self.keep_rest(session, &bytes[given + used..]);
                return;
            }
            let wanted = session.need.saturating_sub(session.input.len()).max(piece);
            let end = bytes.len().min(given + wanted);
            keep(session, &bytes[given..end]);
            given = end;
            piece *= 2;
            let mut own = core::mem::take(&mut session.input);
            let used = self.run(now, session, &own);
            if session.end != End::No {
                return;
            }
            if used == 0 {
                session.input = own;
                self.begin_large(session);
            } else if session.stall == Stall::None {
                // What is left came with this piece: go on with it where it lies.
                given -= own.len() - used;
                self.buffers.give(own);
            } else {
                own.drain(..used);
                session.input = own;
            }
            if session.stall != Stall::None {
                keep(session, &bytes[given..]);
                return;
            }
        }
    }

    /// Goes on with what a stalled connection had received.
    pub(crate) fn go_on(&mut self, now: Now, session: &mut Session) {
        session.stall = Stall::None;
        let mut own = core::mem::take(&mut session.input);
        let used = self.run(now, session, &own);
        if session.end != End::No {
            return;
        }
        if used == own.len() {
            self.buffers.give(own);
        } else {
            own.drain(..used);
            session.input = own;
            self.begin_large(session);
        }
        if session.stall == Stall::None {
            session.waits_since_ns = 0;
            if session.paused {
                session.paused = false;
                self.orders.push(Order::Resume(session.id));
            }
        }
    }

    /// New bytes of several connections, `bytes(i)` for the i-th: their commands are parsed and what they will touch is
    /// fetched for all of them before the first runs, because commands of many connections wait for memory as those of
    /// one pipeline do.
    pub(crate) fn feed_together<'a>(
        &mut self,
        now: Now,
        ids: &[SessionId],
        bytes: &dyn Fn(usize) -> &'a [u8],
    ) {
        let mut begun = core::mem::take(&mut self.begun);
        self.together = true;
        let mut at = 0;
        while at < ids.len() {
            let first = at;
            let mut commands = 0;
            // A look at each first: with thousands of connections none is in the cache, and so they come side by side.
            let group = &ids[at..ids.len().min(at + SESSIONS_TOGETHER_MAX)];
            let fresh = group.iter().enumerate().fold(0u32, |fresh, (i, id)| {
                fresh | u32::from(self.sessions.get(*id).is_some_and(Session::is_fresh)) << i
            });
            while at < first + group.len() && commands < TOGETHER_MAX {
                if begun.len() == at - first {
                    begun.push(Begun::default());
                }
                let one = &mut begun[at - first];
                // One that is named twice has begun already; its next bytes wait for their turn.
                let such = fresh & 1 << (at - first) != 0;
                one.session = if such { self.sessions.take(ids[at]) } else { None };
                if let Some(session) = &mut one.session {
                    (one.len, one.ended) = self.parse(session, bytes(at), &mut one.batch);
                    commands += one.batch.len;
                }
                at += 1;
            }
            if commands > 1 {
                let begun = &begun[..at - first];
                for one in begun {
                    self.prefetch_buckets(&one.batch);
                }
                for one in begun {
                    self.prefetch_records(&one.batch);
                }
            }
            for (i, one) in begun[..at - first].iter_mut().enumerate() {
                let Some(mut session) = one.session.take() else {
                    self.input_of_one(now, ids[first + i], bytes(first + i));
                    continue;
                };
                let bytes = bytes(first + i);
                self.stats.bytes_in.add(bytes.len() as u64);
                session.active_ms = now.boot_ms();
                let used =
                    self.run_parsed(now, &mut session, bytes, &mut one.batch, one.len, one.ended);
                self.keep_rest(&mut session, &bytes[used..]);
                self.settle(session);
            }
        }
        self.together = false;
        self.begun = begun;
    }

    /// Whether a command looks through the connections of the shard: for what they are, or for what they want to hear of.
    fn asks_all_connections(spec: &Spec, subcommand: &str) -> bool {
        spec.name == "CLIENT" && matches!(subcommand, "list" | "kill" | "unblock" | "tracking")
    }

    /// Keeps what a run left of its bytes.
    fn keep_rest(&mut self, session: &mut Session, rest: &[u8]) {
        if session.end != End::No || rest.is_empty() {
            return;
        }
        if session.input.capacity() == 0 {
            session.input = self.buffers.take();
        }
        keep(session, rest);
        self.begin_large(session);
    }

    /// Executes the commands at the start of `buf` and returns how many bytes they took. Less than all: the rest is
    /// unfinished, or the session is stalled or ends.
    fn run(&mut self, now: Now, session: &mut Session, buf: &[u8]) -> usize {
        let mut batch = core::mem::take(&mut self.batch);
        let (len, ended) = self.parse(session, buf, &mut batch);
        if batch.len > 1 {
            self.prefetch_buckets(&batch);
            self.prefetch_records(&batch);
        }
        let used = self.run_parsed(now, session, buf, &mut batch, len, ended);
        self.batch = batch;
        used
    }

    /// The same when the first batch is parsed, which took `len` bytes.
    fn run_parsed(
        &mut self,
        now: Now,
        session: &mut Session,
        buf: &[u8],
        batch: &mut Batch,
        mut len: usize,
        mut ended: Ended,
    ) -> usize {
        session.replies.lend(|| self.buffers.take());
        let mut used = 0;
        loop {
            let rest = &buf[used..];
            let mut stalled = false;
            for at in 0..batch.len {
                if self.execute(now, session, batch, at, rest).is_break() {
                    used += batch.items[at].start;
                    stalled = true;
                    break;
                }
                // The table is to be the only holder of what it keeps.
                batch.large.clear();
                if session.end != End::No {
                    break;
                }
            }
            if stalled {
                // The commands behind are parsed again when they can run.
                session.need = 0;
                session.parser = RequestParser::default();
                let large = core::mem::take(&mut batch.large);
                // A connection that was cut has let go of everything, and keeps nothing again.
                if !large.is_empty() && session.end == End::No {
                    session.large = large;
                    session.parser.restart(rest, core::mem::take(&mut batch.outside));
                }
                break;
            }
            if session.end != End::No {
                break;
            }
            used += len;
            match ended {
                Ended::More => {}
                Ended::Unfinished(need) => {
                    session.need = need;
                    break;
                }
                Ended::Failed(error) => {
                    let mut text = Vec::new();
                    reply::error(&mut text, &format!("ERR {error}"));
                    self.stats.error(&text);
                    if !error.closes_silently() {
                        session.replies.push(&text);
                    }
                    session.end = End::Settling;
                    break;
                }
            }
            (len, ended) = self.parse(session, &buf[used..], batch);
            if batch.len > 1 {
                self.prefetch_buckets(batch);
                self.prefetch_records(batch);
            }
        }
        used
    }

    /// Parses up to [`BATCH_MAX`] commands and decides who runs them.
    fn parse(&mut self, session: &mut Session, buf: &[u8], batch: &mut Batch) -> (usize, Ended) {
        batch.clear();
        let mut used = 0;
        while batch.len < BATCH_MAX {
            if used == buf.len() {
                return (used, Ended::Unfinished(0));
            }
            let item = batch.next();
            match session.parser.parse(&buf[used..], session.limits(), &mut item.spans) {
                Err(error) => return (used, Ended::Failed(error)),
                Ok(Parsed::Incomplete { need }) => return (used, Ended::Unfinished(need)),
                Ok(Parsed::Complete { consumed }) => {
                    let start = used;
                    used += consumed;
                    if item.spans.is_empty() {
                        continue;
                    }
                    item.start = start;
                    let bytes = session.parser.bytes(&buf[start..]);
                    let args = Args::with_large(bytes, &item.spans, &session.large);
                    let mut planned = self.plan(session, args);
                    if session.large.iter().any(|large| large.is_empty()) {
                        planned.1 = Plan::Refused(Refusal::OutOfMemory);
                    }
                    item.planned = Some(planned);
                    batch.len += 1;
                    if session.parser.is_owned() {
                        batch.copy.clear();
                        batch.copy.extend_from_slice(bytes);
                        batch.copied = true;
                        return (used, Ended::More);
                    }
                    if !session.large.is_empty() {
                        batch.large = core::mem::take(&mut session.large);
                        batch.outside = session.parser.take_outside();
                    }
                    // It may change how the next bytes are to be read.
                    if planned.1 == Plan::Session {
                        return (used, Ended::More);
                    }
                }
            }
        }
        (used, Ended::More)
    }

    /// Asks for the buckets of a batch. Not while it is parsed: where a bucket is stands in memory too, and the processor
    /// looks up those of several keys at a time only when little stands between them.
    fn prefetch_buckets(&self, batch: &Batch) {
        for item in &batch.items[..batch.len] {
            if let Some((_, Plan::Here(Some(place)))) = item.planned {
                self.table.prefetch_bucket(place);
            }
        }
    }

    /// Asks for the records of a batch, whose buckets should have come by now, and for what its writes need of their ranges.
    fn prefetch_records(&self, batch: &Batch) {
        if let Some(copies) = &self.copies {
            let touched =
                batch.items[..batch.len].iter().fold(0, |touched, item| match item.planned {
                    Some((Some(spec), Plan::Here(Some(place)))) if spec.write => {
                        touched ^ copies.cluster.touch(range_of_place(place))
                    }
                    _ => touched,
                });
            core::hint::black_box(touched);
        }
        for item in &batch.items[..batch.len] {
            if let Some((_, Plan::Here(Some(place)))) = item.planned {
                self.table.prefetch_record(place);
            }
        }
    }

    /// Who runs a command of a client.
    #[inline]
    fn plan(&self, session: &Session, args: Args<'_>) -> (Option<&'static Spec>, Plan) {
        let spec = commands::lookup(args.get(0));
        if !session.free
            && let Some(plan) = Self::plan_bound(session, spec, args)
        {
            return (spec, plan);
        }
        let Some(spec) = spec else { return (None, Plan::Refused(Refusal::Unknown)) };
        if session.transaction.as_ref().is_some_and(|transaction| transaction.is_open()) {
            return (Some(spec), self.plan_queued(spec, args));
        }
        if (session.listening.is_some() || session.looks_on)
            && let Some(plan) = Self::plan_subscribed(session, spec, args)
        {
            return (Some(spec), plan);
        }
        let plan = match refusal::check_arguments(spec, args) {
            Some(refusal) => Plan::Refused(refusal),
            None => match self.plan_known(session.port, spec, args) {
                // What it keeps is told by who leads it, so that is who is asked.
                plan @ Plan::There(_) if session.readonly && session.tracking.is_none() => {
                    self.plan_copy(session, spec, args).unwrap_or(plan)
                }
                plan => plan,
            },
        };
        (Some(spec), plan)
    }

    #[inline]
    pub(crate) fn plan_known(&self, port: PortKind, spec: &Spec, args: Args<'_>) -> Plan {
        match spec.scope {
            Scope::Keyed if spec.has_keys_of_one_slot() => self.plan_one_slot(spec, args),
            Scope::Keyed => {
                spec.routing_key(args).map_or(Plan::Here(None), |key| self.plan_key(key))
            }
            Scope::Anywhere if commands::command::goes_in_steps(spec, args) => Plan::Session,
            Scope::Anywhere => Plan::Here(None),
            Scope::Session | Scope::Slot => Plan::Session,
            Scope::Split(merge) => self.plan_split(spec, merge, args),
            Scope::Whole(merge) => {
                // What is walked goes in steps wherever the keys are; and a shard with copies may be alone for a moment only.
                let alone = self.links.len() == 1 && self.copies.is_none();
                let here = merge != Merge::Concat && (port == PortKind::Shard || alone)
                    || (merge == Merge::Info && !commands::info::needs_keyspace(args));
                if here { Plan::Here(None) } else { Plan::Everywhere(merge) }
            }
            Scope::Cursor => match (port, commands::scan::cursor_range(args)) {
                (PortKind::Client, Some(range)) => match self.links.owner_of_range(range) {
                    owner if owner == self.links.me() => Plan::Here(None),
                    owner => Plan::There(owner),
                },
                _ => Plan::Here(None),
            },
            // No client can name one of these.
            Scope::Range => Plan::Refused(Refusal::Unknown),
        }
    }

    /// A client that takes what a copy has, and a command of another shard: this shard's copy when there is one.
    #[cold]
    fn plan_copy(&self, session: &Session, spec: &Spec, args: Args<'_>) -> Option<Plan> {
        let range = self.bound_to(spec, args).filter(|_| spec.first_key > 0)?;
        let key = spec.routing_key(args)?;
        self.reads_copy(session, spec, range)
            .then(|| Plan::Copy(self.table.place(key, slot_of(key).0)))
    }

    #[inline]
    fn plan_key(&self, key: &[u8]) -> Plan {
        if key.len() > KEY_BYTES_MAX {
            return Plan::Refused(Refusal::KeyTooLong);
        }
        let slot = slot_of(key);
        let owner = self.links.owner(slot);
        if owner == self.links.me() {
            Plan::Here(Some(self.table.place(key, slot.0)))
        } else {
            Plan::There(owner)
        }
    }

    /// The owner of the slot that all keys are of.
    fn plan_one_slot(&self, spec: &Spec, args: Args<'_>) -> Plan {
        let (first, step) = (spec.first_key as usize, spec.key_step as usize);
        let given = args.len();
        let behind = match spec.last_key {
            last @ ..0 => (given + 1).saturating_sub(usize::from(last.unsigned_abs())),
            last => last as usize + 1,
        };
        let keys = || args.iter_from(first).take(behind.saturating_sub(first)).step_by(step);
        if keys().any(|key| key.len() > KEY_BYTES_MAX) {
            return Plan::Refused(Refusal::KeyTooLong);
        }
        let slot = slot_of(args.get(first));
        if keys().skip(1).any(|key| slot_of(key) != slot) {
            return Plan::Refused(Refusal::SeveralSlots);
        }
        self.plan_key(args.get(first))
    }

    /// One owner of all keys runs the command as it stands.
    fn plan_split(&self, spec: &Spec, merge: Merge, args: Args<'_>) -> Plan {
        let first = self.plan_key(args.get(spec.first_key as usize));
        if self.links.len() == 1 && args.len() > 2 {
            let fits = |key: &[u8]| key.len() <= KEY_BYTES_MAX;
            let mut keys = args.iter_from(spec.first_key as usize).step_by(spec.key_step as usize);
            return if keys.all(fits) { first } else { Plan::Refused(Refusal::KeyTooLong) };
        }
        let mut owners = None;
        // Ranges change hands one by one, so each of them is asked for its keys alone.
        let by_range = self.copies.is_some();
        for key in args.iter_from(spec.first_key as usize).step_by(spec.key_step as usize) {
            if key.len() > KEY_BYTES_MAX {
                return Plan::Refused(Refusal::KeyTooLong);
            }
            let slot = slot_of(key);
            let owner = if by_range { u16::from(slot.range().0) } else { self.links.owner(slot) };
            if *owners.get_or_insert(owner) != owner {
                return Plan::Split(merge);
            }
        }
        first
    }

    /// Runs a command or sends it on its way. Break: not now, the session is stalled.
    fn execute(
        &mut self,
        now: Now,
        session: &mut Session,
        batch: &Batch,
        at: usize,
        buf: &[u8],
    ) -> ControlFlow<()> {
        let Some((spec, plan)) = batch.items[at].planned else { return ControlFlow::Continue(()) };
        let args = batch.args(at, buf);
        match spec {
            Some(spec) if !session.free => self.execute_bound(now, session, spec, plan, args),
            _ => self.execute_one(now, session, spec, plan, args),
        }
    }

    /// The same for a command that is planned.
    #[inline]
    pub(crate) fn execute_one(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: Option<&'static Spec>,
        plan: Plan,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if session.is_odd || self.tuning.paused_until_ms > 0 {
            return self.execute_oddly(now, session, spec, plan, args);
        }
        self.execute_plainly(now, session, spec, plan, args)
    }

    #[inline]
    pub(crate) fn execute_plainly(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: Option<&'static Spec>,
        plan: Plan,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.pace.is_over() {
            self.later(session);
            return ControlFlow::Break(());
        }
        if session.replies.unsent() > OUTPUT_FAIR_BYTES.min(session.output_bytes_max()) {
            self.check_output(session)?;
        }
        let spec = match (plan, spec) {
            (Plan::Refused(refusal), spec) => {
                self.refuse(session, refusal, spec, args);
                return ControlFlow::Continue(());
            }
            (_, None) => return ControlFlow::Continue(()),
            (_, Some(spec)) => spec,
        };
        if let Plan::Here(_) = plan
            && self.copies.is_some()
            && !self.admit_here(now, session, spec, plan.place(), args)?
        {
            self.stats.commands.add(1);
            return ControlFlow::Continue(());
        }
        if let Plan::Here(_) | Plan::Split(_) = plan
            && !self.has_room(now, spec, plan.place(), args)
        {
            self.later(session);
            return ControlFlow::Break(());
        }
        match plan {
            Plan::Here(_) | Plan::Copy(_) => {
                session.last = (spec.name, "");
                if spec.write && self.copies.is_some() {
                    self.note_written_here(session, plan.place());
                }
                let whole_store = session.whole_store();
                let inserts = session.replies.inserts();
                let proto = session.proto;
                let (out, may_insert) = session.replies.begin();
                let start = out.len();
                let timing = self.begin_timing(spec, args);
                let exec = self.exec(now, whole_store, proto);
                let mut exec = Exec { place: plan.place(), inserts: may_insert, ..exec };
                if matches!(plan, Plan::Copy(_)) {
                    exec.gates = None;
                }
                spec.run(&mut exec, args, out);
                let number = commands::number_of(spec, args);
                if value::is_error(&out[start..]) {
                    self.stats.error(&out[start..]);
                    self.stats.of_commands.failed(number);
                }
                let units = self.pace.spend(spec, args, out.len() - start);
                self.pace.evicted(self.table.evicted());
                match self.noticed() {
                    Noticed::None => session.replies.wrote(start),
                    noticed => session.replies.wrote_gated(start, inserts, noticed),
                }
                session.replies.inserted(inserts);
                self.executed_for(session, number, units, timing, args);
                if spec.write && self.tracking.is_watching() {
                    self.tell_written(spec, args, Some(session));
                }
            }
            Plan::There(owner) => self.forward(now, session, spec, owner, args)?,
            Plan::Split(merge) => self.split(now, session, spec, merge, args)?,
            Plan::Everywhere(merge) => {
                self.everywhere(now, session, spec, merge, args)?;
                self.tally.executed(spec.number, 1);
            }
            Plan::Queue => self.queue(session, spec, args),
            Plan::Session => {
                let subcommand = refusal::subcommand_of(spec, args);
                if self.together && Self::asks_all_connections(spec, subcommand) {
                    // Those whose bytes came beside these are not among the others now; at the end of the turn they are.
                    self.later(session);
                    return ControlFlow::Break(());
                }
                let (timing, errors) = (self.begin_timing(spec, args), self.stats.errors.get());
                let unsent = session.replies.unsent();
                self.session_command(now, session, spec, args)?;
                let units =
                    self.pace.spend(spec, args, session.replies.unsent().saturating_sub(unsent));
                session.last = (spec.name, subcommand);
                let number = commands::number_of(spec, args);
                if !spec.subcommands.is_empty() && refusal::check_subcommand(spec, args).is_some() {
                    self.stats.of_commands.rejected(number);
                } else {
                    if self.stats.errors.get() > errors {
                        self.stats.of_commands.failed(number);
                    }
                    self.executed_for(session, number, units, timing, args);
                }
            }
            Plan::Refused(_) => {}
        }
        self.stats.commands.add(1);
        if self.monitor.on {
            self.note_for_onlookers(now, session, spec, args);
        }
        ControlFlow::Continue(())
    }

    fn refuse(
        &mut self,
        session: &mut Session,
        refusal: Refusal,
        spec: Option<&'static Spec>,
        args: Args<'_>,
    ) {
        if let Refusal::Denied(denied) = refusal {
            self.note_denied(session, spec, args, denied);
            self.pace.work(UNITS_OF_DENIAL);
        } else {
            self.pace.work(1);
        }
        let (out, _) = session.replies.begin();
        let start = out.len();
        refusal::write(refusal, spec, args, out);
        self.stats.error(&out[start..]);
        session.replies.wrote(start);
        Self::refused_in_transaction(session, spec);
        self.stats.commands.add(1);
        if let Some(spec) = spec {
            self.stats.of_commands.rejected(commands::number_of(spec, args));
        }
    }

    /// A client has much unsent: whether its next command may run.
    #[cold]
    fn check_output(&mut self, session: &mut Session) -> ControlFlow<()> {
        let over = session.replies.unsent() > session.output_bytes_max();
        if over && !session.authenticated {
            self.cut(session);
            return ControlFlow::Break(());
        }
        // While all connections together have too much to read, nobody gets more before it has read what it has. Whoever
        // reads too slowly is cut in the background.
        let total = self.unsent_total + session.replies.unsent() - session.accounted;
        if over || total > OUTPUT_TOTAL_BYTES_MAX {
            self.stall(session, Stall::Output);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Stops executing a connection's commands until what it waits for has come.
    pub(crate) fn stall(&mut self, session: &mut Session, why: Stall) {
        session.stall = why;
        session.waits_from(self.now);
        if let Stall::Link(to) = why {
            self.links.stall(to, session.id);
        }
        if !session.paused {
            session.paused = true;
            self.orders.push(Order::Pause(session.id));
        }
    }
}
