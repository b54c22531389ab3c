//! Commands that other shards execute, whole or in part: whether they may be asked now, what they are asked, and where
//! their replies go.

use crate::command::{Args, Merge, Now, Scope, Spec};
use crate::commands;
use crate::gates::Noticed;
use crate::links::Waiting;
use crate::merge::Merging;
use crate::session::{OUTPUT_FAIR_BYTES, Session, Stall};
use crate::shard::Shard;
use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::{reply, value};
use dkv_protocol::slots::slot_of;

impl Shard {
    /// Whether a connection may have one more command under way; it is stalled otherwise.
    #[inline]
    pub(crate) fn admit(&mut self, session: &mut Session, to: u16) -> ControlFlow<()> {
        if session.replies.waiting() >= session.waiting_max() {
            self.stall(session, Stall::Replies);
            return ControlFlow::Break(());
        }
        if self.links.is_full(to) {
            self.stall(session, Stall::Link(to));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Sends a command to the shard that runs it.
    pub(crate) fn forward(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        to: u16,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.divert(now, session, spec, args)? {
            return ControlFlow::Continue(());
        }
        if !self.links.is_up(to) {
            let error = self.unreachable(to);
            self.answer(session, &error);
            return ControlFlow::Continue(());
        }
        self.admit(session, to)?;
        session.last = (spec.name, "");
        let range = self.bound_to(spec, args);
        if let Some(range) = range.filter(|_| spec.write) {
            self.note_written(session, range);
        }
        let waiting = Waiting {
            session: session.id,
            slot: session.replies.wait(),
            part: 0,
            write: spec.write,
            shared: false,
            weight: session.expected_bytes(),
            range,
        };
        let whole_store = session.whole_store();
        self.links.push(to, waiting, session.proto, whole_store, args.iter_from(0));
        self.stats.forwarded.add(1);
        ControlFlow::Continue(())
    }

    /// Whether all of `shards` can be asked now; a refusal is the reply. None: the session is stalled.
    pub(crate) fn admit_all(
        &mut self,
        session: &mut Session,
        shards: &[u16],
    ) -> ControlFlow<(), bool> {
        for &to in shards {
            if !self.links.is_up(to) {
                let error = self.unreachable(to);
                self.answer(session, &error);
                return ControlFlow::Continue(false);
            }
        }
        for &to in shards {
            if to != self.links.me() {
                self.admit(session, to)?;
            }
        }
        ControlFlow::Continue(true)
    }

    /// Sends each owner its keys. Nothing is executed when one of them cannot be reached.
    pub(crate) fn split(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        merge: Merge,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.copies.is_some() {
            return self.split_by_range(now, session, spec, merge, args);
        }
        let (first, step) = (spec.first_key as usize, spec.key_step as usize);
        let owners: Vec<u16> =
            args.iter_from(first).step_by(step).map(|key| self.links.owner(slot_of(key))).collect();
        // Parts in the order in which their first key comes; `part_of` is by shard.
        let mut shards = Vec::new();
        let mut part_of = alloc::vec![u32::MAX; self.links.len() as usize];
        for &owner in &owners {
            if part_of[owner as usize] == u32::MAX {
                part_of[owner as usize] = shards.len() as u32;
                shards.push(owner);
            }
        }
        if !self.admit_all(session, &shards)? {
            return ControlFlow::Continue(());
        }
        let order: Vec<u32> = owners.iter().map(|owner| part_of[*owner as usize]).collect();
        let mut keys: Vec<Vec<u32>> = shards.iter().map(|_| Vec::new()).collect();
        for (key, part) in order.iter().enumerate() {
            keys[*part as usize].push(key as u32);
        }
        let order = if merge == Merge::InOrder { order } else { Vec::new() };
        let merging = Merging::new(merge, shards.len() as u32, order);
        session.last = (spec.name, "");
        let slot = session.replies.wait_for_all(merging);
        let mut here = None;
        for (part, &to) in shards.iter().enumerate() {
            let positions = keys[part]
                .iter()
                .flat_map(|key| (0..step).map(move |i| first + *key as usize * step + i));
            if to == self.links.me() {
                here =
                    Some((part as u32, core::iter::once(0).chain(positions).collect::<Vec<_>>()));
                continue;
            }
            let waiting = Waiting {
                session: session.id,
                slot,
                part: part as u32,
                write: spec.write,
                shared: true,
                weight: session.expected_bytes(),
                range: None,
            };
            let parts = core::iter::once(0).chain(positions).map(|i| args.get(i));
            self.links.push(to, waiting, session.proto, session.whole_store(), parts);
            self.stats.forwarded.add(1);
        }
        if let Some((part, positions)) = here {
            let spans = args.select(&positions);
            self.part_here(now, session, spec, slot, part, args.with_spans(&spans));
        }
        ControlFlow::Continue(())
    }

    /// Asks every shard of the store, or in a store with copies whoever leads each range.
    pub(crate) fn everywhere(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        merge: Merge,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if merge == Merge::Concat {
            return self.keys(now, session, spec, args);
        }
        let info = merge == Merge::Info;
        if self.copies.is_some() && !info {
            return self.every_range(now, session, spec, merge, args);
        }
        let all = self.everybody();
        let shards: Vec<u16> =
            all.iter().copied().filter(|to| !info || self.links.is_up(*to)).collect();
        if !self.admit_all(session, &shards)? || !self.admit_here(now, session, spec, None, args)? {
            return ControlFlow::Continue(());
        }
        session.last = (spec.name, "");
        let missing: Vec<u16> = all.iter().copied().filter(|to| !shards.contains(to)).collect();
        let all = all.len() as u32;
        // What the shards are asked may be something else than what the client asked.
        let name = match merge {
            Merge::Info => commands::info::KEYSPACE_REQUEST,
            Merge::Random => commands::naming::RANDOM_REQUEST,
            _ => &[],
        };
        let named = [(0, name.len() as u32)];
        let merging = match merge {
            Merge::Info => Merging::info(args, all),
            Merge::Random => Merging::random(session.proto, self.table.chance(), all),
            _ => Merging::new(merge, all, Vec::new()),
        };
        let (asked, spec) = match commands::internal(name) {
            Some(internal) => (Args::new(name, &named), internal),
            None => (args, spec),
        };
        let slot = session.replies.wait_for_all(merging);
        let me = self.links.me();
        for &to in shards.iter().filter(|to| **to != me) {
            let waiting = Waiting {
                session: session.id,
                slot,
                part: u32::from(to),
                write: spec.write,
                shared: true,
                weight: session.expected_bytes(),
                range: None,
            };
            self.links.push(to, waiting, session.proto, session.whole_store(), asked.iter_from(0));
            self.stats.forwarded.add(1);
        }
        for to in missing {
            let error = self.unreachable(to);
            self.resolve(now, session, slot, u32::from(to), error.into());
        }
        self.part_here(now, session, spec, slot, u32::from(me), asked);
        ControlFlow::Continue(())
    }

    /// The shards that a command for the whole store is asked of: all of them, or those that lead a range and this one.
    pub(crate) fn everybody(&self) -> Vec<u16> {
        let me = self.links.me();
        let leads = |to: &u16| self.copies.is_none() || *to == me || self.links.owns(*to);
        (0..self.links.len()).filter(leads).collect()
    }

    /// Runs this shard's part of a command.
    pub(crate) fn part_here(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        slot: u32,
        part: u32,
        args: Args<'_>,
    ) {
        let mut out = self.buffers.take();
        let mut exec = self.exec(now, session.whole_store(), session.proto);
        spec.run(&mut exec, args, &mut out);
        let noticed = self.noticed();
        if spec.write && self.tracking.is_watching() {
            self.tell_written(spec, args, Some(session));
        }
        // What all shards do is one command; what each does with its own keys is one for each.
        if let Scope::Split(_) = spec.scope {
            self.tally.executed(spec.number, (args.len() as u32) / 2);
            if self.tally.hot {
                self.note_keys(args);
            }
        }
        if out.len() > OUTPUT_FAIR_BYTES {
            self.resolve_with(now, session, (slot, part), Cow::Owned(out), noticed);
        } else {
            self.resolve_with(now, session, (slot, part), Cow::Borrowed(&out), noticed);
            self.buffers.give(out);
        }
    }

    /// A reply, or part of one, for a place in the queue of a connection.
    pub(crate) fn resolve(
        &mut self,
        now: Now,
        session: &mut Session,
        slot: u32,
        part: u32,
        reply: Cow<'_, [u8]>,
    ) {
        self.resolve_with(now, session, (slot, part), reply, Noticed::None);
    }

    /// The same for a reply that was made here, with what it waits for.
    fn resolve_with(
        &mut self,
        now: Now,
        session: &mut Session,
        (slot, part): (u32, u32),
        reply: Cow<'_, [u8]>,
        noticed: Noticed,
    ) {
        if session.wait.as_mut().is_some_and(|wait| wait.take(slot, part, &reply)) {
            return;
        }
        if session.seek.as_mut().is_some_and(|seek| seek.take(slot, part, &reply)) {
            return;
        }
        let Some((reply, noticed)) = Self::take_awaited(session, slot, reply, noticed) else {
            return;
        };
        session.replies.lend(|| self.buffers.take());
        if value::is_error(&reply) {
            self.stats.of_errors.note(&reply);
        }
        if let Some(cursor) = session.replies.walk_on(slot, &reply, &noticed) {
            session.progress_ms = now.boot_ms();
            return self.walk_goes_on(session, slot, part, cursor);
        }
        let exec = self.exec(now, session.whole_store(), session.proto);
        if let Some(answered) = session.replies.resolve(slot, part, reply, noticed, &exec) {
            self.stats.errors.add(answered.failures);
        }
    }

    /// The error for a shard that cannot be reached.
    #[cold]
    pub(crate) fn unreachable(&self, to: u16) -> Vec<u8> {
        let mut error = Vec::new();
        let node = &self.map.node(self.links.addr(to).node).name;
        reply::error(
            &mut error,
            &format!("CLUSTERDOWN Hash slot not served: {node} is unreachable"),
        );
        error
    }
}
