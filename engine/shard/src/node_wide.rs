//! Commands that speak of all shards of this node, whichever of them the client is connected to: each executes its part, and the
//! parts become one reply.

use crate::command::{Args, Now, Spec};
use crate::commands::{self, slowlog};
use crate::links::Waiting;
use crate::merge::Merging;
use crate::refusal;
use crate::session::Session;
use crate::shard::Shard;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::resp::{Proto, reply};

/// What shards of one node ask each other; clients cannot reach it. The client's id and its command follow.
pub(crate) const NODE_REQUEST: &[u8] = b"DKV.NODE";

/// Who asks: the connection's id, and the connection where it is of this shard.
pub(crate) struct Asker<'a> {
    pub(crate) client_id: u64,
    pub(crate) session: Option<&'a mut Session>,
}

impl Shard {
    /// SLOWLOG, LATENCY and DKV.HOTKEYS.
    pub(crate) fn diagnose(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: &'static Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if self.refuses_subcommand(session, spec, args) {
            return ControlFlow::Continue(());
        }
        let subcommand = refusal::subcommand_of(spec, args);
        let exec = self.exec(now, session.whole_store(), session.proto);
        if let Some(reply) = slowlog::at_once(&exec, spec, subcommand, args) {
            self.answer(session, &reply);
            return ControlFlow::Continue(());
        }
        self.of_node(now, session, args)
    }

    /// Has each shard of this node execute its part of a command, and puts the parts together. Break: not now, the session
    /// is stalled.
    pub(crate) fn of_node(
        &mut self,
        now: Now,
        session: &mut Session,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let first = self.links.first_of(self.me);
        let shards = first..first + self.env.stats.len() as u16;
        let me = self.links.me();
        for to in shards.clone().filter(|to| *to != me) {
            self.admit(session, to)?;
        }
        let slot = session.replies.wait_for_all(Merging::node(args, shards.len() as u32));
        let client_id = session.client_id;
        for to in shards.filter(|to| *to != me) {
            let weight = session.expected_bytes();
            let (id, shared) = (session.id, true);
            let waiting = Waiting { session: id, slot, shared, weight, ..Waiting::UNASKED };
            let asker = client_id.to_le_bytes();
            let request = [NODE_REQUEST, &asker].into_iter().chain(args.iter_from(0));
            self.links.push(to, waiting, Proto::Resp2, false, request);
            self.stats.forwarded.add(1);
        }
        let mut own = Vec::new();
        self.part_of_node(now, Asker { client_id, session: Some(session) }, args, &mut own);
        self.resolve(now, session, slot, 0, own.into());
        ControlFlow::Continue(())
    }

    /// This shard's part of a command that another shard of this node was sent.
    pub(crate) fn serve_node(&mut self, now: Now, args: Args<'_>, out: &mut Vec<u8>) {
        let client_id = (args.len() > 2).then(|| args.get(1).try_into().map(u64::from_le_bytes));
        match client_id {
            Some(Ok(client_id)) => {
                let command = args.slice(2, args.len() - 2);
                self.part_of_node(now, Asker { client_id, session: None }, command, out);
            }
            _ => refusal::write(refusal::Refusal::Unknown, None, args, out),
        }
    }

    /// Executes this shard's part.
    fn part_of_node(&mut self, now: Now, asker: Asker<'_>, args: Args<'_>, out: &mut Vec<u8>) {
        let spec = commands::lookup(args.get(0));
        let subcommand = spec.map_or("", |spec| refusal::subcommand_of(spec, args));
        match (spec.map_or("", |spec| spec.name), subcommand) {
            ("SLOWLOG", "get") => {
                let count = slowlog::count(args).unwrap_or(0);
                self.slow.write(count, slowlog::wants_times(args), out);
            }
            ("SLOWLOG", "len") => reply::integer(out, self.slow.len() as i64),
            ("SLOWLOG", _) => {
                self.slow.clear();
                reply::ok(out);
            }
            ("LATENCY", "reset") => {
                let names: Vec<&[u8]> = args.iter_from(2).collect();
                self.spikes.reset(&names, out);
            }
            ("LATENCY", _) => self.spikes.write(out),
            ("DKV.HOTKEYS", _) => self.hot_keys_part(now, subcommand, args, out),
            ("ACL", _) => self.acl_log_part(args, out),
            ("CLIENT", _) => self.clients_part(now, asker, subcommand, args, out),
            _ => refusal::write(refusal::Refusal::Unknown, None, args, out),
        }
    }
}
