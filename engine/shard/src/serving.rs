//! Requests of other shards: a batch is fetched for, executed and answered as a whole.

use crate::command::{Args, Exec, Now, Scope, Spec};
use crate::commands;
use crate::gates::Hold;
use crate::input::BATCH_MAX;
use crate::node_wide::NODE_REQUEST;
use crate::refusal::{self, Refusal};
use crate::replication::{Admission, range_of, range_of_place};
use crate::shard::Shard;
use crate::slowlog::Who;
use crate::waits::HELD_REQUEST;
use crate::{monitor, pubsub, tracking};
use alloc::vec::Vec;
use dkv_protocol::frame::{
    BatchError, ELSEWHERE, RequestHead, RequestIter, begin_reply, end_reply,
};
use dkv_protocol::ids::ShardAddr;
use dkv_protocol::limits::REPLIES_BYTES_SOFT_MAX;
use dkv_protocol::resp::{reply, value};
use dkv_protocol::slots::slot_of;
use dkv_table::Place;

/// A request of another shard: its head, its bytes, and where it ends in its batch.
type Head<'a> = (RequestHead, &'a [u8], usize);

/// A request of another shard while its batch is worked on.
#[derive(Debug, Default)]
pub(crate) struct Served {
    spans: Vec<(u32, u32)>,
    spec: Option<&'static Spec>,
    place: Option<Place>,
}

impl Shard {
    /// Executes a batch of another shard and appends the replies, in the order of the requests, to `replies`. Returns how
    /// many bytes of the batch were used: less than all when the replies have become many
    /// ([`REPLIES_BYTES_SOFT_MAX`]), when they are to be sent and the rest given again when there is room for more; or
    /// when it took long, and the rest is for later in this turn or the next; none when it must be the next.
    ///
    /// The batch came from the shard `from`. `hold` belongs to `replies` and grows with them over the calls; in a store
    /// without copies it stays empty. When it is not empty afterwards the replies must not leave yet: they are kept with it,
    /// those behind them wait too, and [`Self::release`] says when they may.
    ///
    /// # Errors
    /// The batch is not one: drop the link it came over. What was executed before the error stays executed.
    pub fn requests_held(
        &mut self,
        now: Now,
        from: ShardAddr,
        batch: &[u8],
        replies: &mut Vec<u8>,
        hold: &mut Hold,
    ) -> Result<usize, BatchError> {
        self.now = now;
        self.pace.begin();
        let full = replies.len() + REPLIES_BYTES_SOFT_MAX;
        let mut requests = RequestIter::new(batch);
        let mut served = core::mem::take(&mut self.served);
        let mut heads: [Option<Head<'_>>; BATCH_MAX] = [None; BATCH_MAX];
        let mut result = Ok(0);
        let mut waits = false;
        while result.is_ok() && replies.len() < full && !self.pace.is_over() && !waits {
            let mut count = 0;
            while count < BATCH_MAX {
                if served.len() == count {
                    served.push(Served::default());
                }
                let one = &mut served[count];
                one.spans.shrink_to(1024);
                match requests.next(&mut one.spans) {
                    None => break,
                    Some(Err(error)) => {
                        result = Err(error);
                        break;
                    }
                    Some(Ok((head, bytes))) => {
                        let args = Args::new(bytes, &one.spans);
                        one.spec = commands::lookup(args.get(0))
                            .or_else(|| commands::internal(args.get(0)));
                        one.place = self.place_of(one.spec, args);
                        heads[count] = Some((head, bytes, batch.len() - requests.left()));
                        count += 1;
                    }
                }
            }
            if count == 0 {
                break;
            }
            let places = || served[..count].iter().filter_map(|one| one.place);
            places().for_each(|place| self.table.prefetch_bucket(place));
            places().for_each(|place| self.table.prefetch_record(place));
            for (one, head) in served[..count].iter().zip(&heads) {
                let Some((head, bytes, end)) = head else { continue };
                let args = Args::new(bytes, &one.spans);
                if one.spec.is_some_and(|spec| !self.has_room(now, spec, one.place, args)) {
                    waits = true;
                    break;
                }
                let start = begin_reply(replies, head.id);
                let reply_at = replies.len();
                let timing = one.spec.and_then(|spec| self.begin_timing(spec, args));
                let served = if one.spec.is_none() && pubsub::is_request(args) {
                    self.serve_pubsub(from, *head, args, replies)
                } else if one.spec.is_none() && monitor::is_request(args) {
                    self.serve_monitor(from, args, replies);
                    true
                } else if one.spec.is_none() && tracking::is_request(args.get(0)) {
                    self.serve_tracking(from, args, replies);
                    true
                } else if self.copies.is_none() {
                    self.serve(now, *head, one, args, replies);
                    true
                } else {
                    self.serve_copied(now, from, *head, one, args, replies)
                };
                if !served {
                    replies.truncate(start);
                    waits = true;
                    break;
                }
                if self.copies.is_some() {
                    hold.replied(self.noticed());
                }
                end_reply(replies, start);
                self.stats.served_for_others.add(1);
                if let Ok(used) = &mut result {
                    *used = *end;
                }
                if let Some(spec) = one.spec {
                    if spec.write && self.tracking.is_watching() {
                        self.tell_written(spec, args, None);
                    }
                    let units = self.pace.spend(spec, args, replies.len() - start);
                    self.pace.evicted(self.table.evicted());
                    // What all shards do counts where the client is.
                    if !matches!(spec.scope, Scope::Whole(_)) {
                        let number = commands::number_of(spec, args);
                        if value::is_error(&replies[reply_at..]) {
                            self.stats.of_commands.failed(number);
                        }
                        self.executed(number, units, timing, args, &Who::Shard(from));
                    }
                }
                if replies.len() >= full || self.pace.is_over() {
                    break;
                }
            }
        }
        self.served = served;
        result
    }

    /// The place of the key of a command with one, when it is this shard's.
    fn place_of(&self, spec: Option<&'static Spec>, args: Args<'_>) -> Option<Place> {
        let spec = spec.filter(|s| s.first_key > 0 && commands::fits(s, args.len()))?;
        let key = spec.routing_key(args)?;
        let slot = slot_of(key);
        let here = self.copies.is_some() || self.links.owner(slot) == self.links.me();
        here.then(|| self.table.place(key, slot.0))
    }

    /// The same in a store with copies. False: not now.
    fn serve_copied(
        &mut self,
        now: Now,
        from: ShardAddr,
        head: RequestHead,
        request: &Served,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let admission = match request.spec {
            Some(spec) if commands::fits(spec, args.len()) => {
                let range = match request.place {
                    Some(place) => Some(range_of_place(place)),
                    None => range_of(spec, args),
                };
                if self.is_turned_away(from, range, head.first) {
                    out.extend_from_slice(ELSEWHERE);
                    return true;
                }
                let at_once = match (range, &mut self.copies) {
                    (Some(range), Some(copies)) if spec.scope == Scope::Keyed => {
                        copies.admits_at_once(now, range, spec.write)
                    }
                    _ => false,
                };
                if at_once {
                    Admission::Go
                } else {
                    self.admission(now, spec, head.whole_store, args)
                }
            }
            _ => Admission::Go,
        };
        match admission {
            Admission::Go => self.serve(now, head, request, args, out),
            Admission::Wait => return false,
            Admission::Refused(text) => reply::error(out, text),
            Admission::Elsewhere(range) => {
                self.turn_away(from, range);
                out.extend_from_slice(ELSEWHERE);
            }
        }
        true
    }

    /// Executes a request of another shard.
    fn serve(
        &mut self,
        now: Now,
        head: RequestHead,
        request: &Served,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let Some(spec) = request.spec else {
            if args.get(0) == HELD_REQUEST {
                return self.serve_held(args, out);
            }
            if args.get(0) == NODE_REQUEST {
                return self.serve_node(now, args, out);
            }
            return refusal::write(Refusal::Unknown, None, args, out);
        };
        if let Some(refusal) = refusal::check_arguments(spec, args) {
            return refusal::write(refusal, Some(spec), args, out);
        }
        match spec.scope {
            Scope::Session | Scope::Slot => {
                let slots = spec.name == "CLUSTER"
                    && refusal::check_subcommand(spec, args).is_none()
                    && refusal::subcommand_of(spec, args) == "countkeysinslot";
                if slots {
                    return self.slot_command(args, out);
                }
                return refusal::write(Refusal::Unknown, None, args, out);
            }
            Scope::Keyed | Scope::Split(_)
                if request.place.is_none() && spec.routing_key(args).is_some() =>
            {
                // Both sides have the same map, so this is a store in the middle of a change.
                return reply::error(out, "CLUSTERDOWN Hash slot not served here");
            }
            _ => {}
        }
        let exec = self.exec(now, head.whole_store, head.proto);
        let mut exec = Exec { place: request.place, ..exec };
        if head.no_touch {
            exec.table.touch_keys(false);
        }
        spec.run(&mut exec, args, out);
        if head.no_touch {
            self.table.touch_keys(true);
        }
    }
}
