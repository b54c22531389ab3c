//! How a shard follows what CONFIG SET has changed, and what it does by itself for that: idle clients are let go, and those that
//! leave too much unread.

use crate::command::{Args, Now, Spec};
use crate::commands::clients::is_subscribed;
use crate::face::SessionId;
use crate::input::Plan;
use crate::session::{End, Session, Stall};
use crate::settings::OutputLimit;
use crate::shard::Shard;
use crate::transaction::is_publish;
use alloc::vec::Vec;
use core::ops::ControlFlow;

/// How far the looks for idle clients lie apart, in milliseconds.
const IDLE_LOOK_MS: u64 = 500;

/// What commands ask of the settings, so that none of them looks further.
#[derive(Debug, Default)]
pub(crate) struct Tuning {
    /// [`crate::settings::Settings::changes`] when they were looked at last; one more, so that the first look finds them.
    seen: u64,
    timeout_ms: u64,
    next_idle_look_ms: u64,
    /// Until when CLIENT PAUSE holds commands back (CLOCK_BOOTTIME, milliseconds), 0 for not; and whether all of them.
    pub(crate) paused_until_ms: u64,
    pauses_all: bool,
    /// Connections that it holds back.
    paused: Vec<SessionId>,
    /// Whether normal clients have a limit on what they leave unread.
    pub(crate) limits_output: bool,
    normal: OutputMax,
    /// The same of those that subscribe.
    pub(crate) subscribers: OutputMax,
}

/// What clients may leave unread; [`usize::MAX`] is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputMax {
    pub(crate) hard_bytes: usize,
    pub(crate) soft_bytes: usize,
    pub(crate) soft_ms: u64,
}

impl Default for OutputMax {
    fn default() -> Self {
        Self { hard_bytes: usize::MAX, soft_bytes: usize::MAX, soft_ms: u64::MAX }
    }
}

impl OutputMax {
    fn of(limit: &OutputLimit) -> Self {
        let bytes = |limit: u64| match limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        Self {
            hard_bytes: bytes(limit.hard_bytes.get()),
            soft_bytes: bytes(limit.soft_bytes.get()),
            soft_ms: limit.soft_s.get().saturating_mul(1000),
        }
    }
}

impl Shard {
    /// Looks whether the settings were changed. To be called before clients' commands run.
    #[inline]
    pub(crate) fn tune(&mut self) {
        if self.tuning.seen != self.env.settings.changes() + 1 {
            self.follow_settings();
        }
    }

    #[cold]
    fn follow_settings(&mut self) {
        let settings = &self.env.settings;
        let tuning = &mut self.tuning;
        tuning.seen = settings.changes() + 1;
        tuning.timeout_ms = settings.timeout_s.get() * 1000;
        let [normal, _, subscribers] = &settings.output_limits;
        (tuning.normal, tuning.subscribers) = (OutputMax::of(normal), OutputMax::of(subscribers));
        tuning.limits_output =
            (tuning.normal.hard_bytes, tuning.normal.soft_bytes) != (usize::MAX, usize::MAX);
        (tuning.paused_until_ms, tuning.pauses_all) = settings.paused();
        self.tally.follow(
            settings.slowlog_slower_than_us.get() as i64,
            settings.latency_threshold_ms.get(),
        );
        self.slow.shorten(settings.slowlog_len_max.get() as usize);
        self.table.set_memory_bytes_max(self.env.shard_memory_bytes_max());
        self.table.set_eviction(self.env.table_eviction());
    }

    /// Executes a command that is not to be executed as all others: clients are paused, or its own does not want a reply or
    /// keys to be touched. Break: not now, the session is stalled.
    #[cold]
    pub(crate) fn execute_oddly(
        &mut self,
        now: Now,
        session: &mut Session,
        spec: Option<&'static Spec>,
        plan: Plan,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        if session.is_walking() {
            self.stall(session, Stall::Walk);
            return ControlFlow::Break(());
        }
        session.walking = None;
        if self.is_held_back(session, spec, plan) {
            self.tuning.paused.push(session.id);
            self.stall(session, Stall::Pause);
            return ControlFlow::Break(());
        }
        let runs = !matches!(plan, Plan::Refused(_) | Plan::Queue);
        if session.tracking.is_some()
            && runs
            && let Some(spec) = spec
        {
            self.track(session, spec, args)?;
        }
        let skip = core::mem::take(&mut session.skip_next);
        self.table.touch_keys(!session.no_touch);
        self.links.no_touch = session.no_touch;
        let flow = self.execute_plainly(now, session, spec, plan, args);
        self.table.touch_keys(true);
        self.links.no_touch = false;
        if flow.is_break() {
            session.skip_next |= skip;
            return flow;
        }
        if skip {
            session.replies.silence(session.reply_off || session.skip_next);
        }
        Self::end_caching(session, spec);
        session.is_odd = session.skip_next
            || session.no_touch
            || session.tracking.is_some()
            || session.walking.is_some();
        flow
    }

    /// Whether CLIENT PAUSE holds a command back.
    fn is_held_back(&self, session: &Session, spec: Option<&'static Spec>, plan: Plan) -> bool {
        let Self { tuning, now, .. } = self;
        if tuning.paused_until_ms <= now.boot_ms() || matches!(plan, Plan::Refused(_)) {
            return false;
        }
        // What has begun goes on: the rest of a transaction, and what waits for an answer, for copies or for the next turn.
        if session.in_exec || session.has_begun() {
            return false;
        }
        let writes = spec.is_some_and(|spec| {
            spec.write
                || is_publish(spec)
                || spec.name == "EXEC"
                    && session.transaction.as_ref().is_some_and(|one| one.writes())
        });
        tuning.pauses_all || writes
    }

    /// Goes on with connections that CLIENT PAUSE held back, when it is over.
    pub(crate) fn end_pause(&mut self, now: Now) {
        if self.tuning.paused_until_ms == 0 && self.tuning.paused.is_empty() {
            return;
        }
        if self.tuning.paused_until_ms > now.boot_ms() {
            return;
        }
        self.tuning.paused_until_ms = 0;
        for id in core::mem::take(&mut self.tuning.paused) {
            let Some(mut session) = self.sessions.take(id) else { continue };
            if session.stall == Stall::Pause && session.end == End::No {
                self.later(&mut session);
            }
            self.settle(session);
        }
    }

    /// Whether a client leaves more unread than it may.
    #[cold]
    pub(crate) fn is_over_output_limit(&self, session: &mut Session) -> bool {
        let (unsent, now_ms) = (session.replies.unsent(), self.now.boot_ms());
        let max = self.tuning.normal;
        // Subscribers have a limit of their own.
        if unsent <= max.soft_bytes || is_subscribed(session) {
            session.over_soft_since_ms = 0;
        } else if session.over_soft_since_ms == 0 {
            session.over_soft_since_ms = now_ms;
        }
        let over_soft =
            session.over_soft_since_ms > 0 && now_ms - session.over_soft_since_ms > max.soft_ms;
        let over_hard = unsent > max.hard_bytes && !is_subscribed(session);
        session.end != End::Ordered && (over_hard || over_soft)
    }

    /// Lets go of clients that have said nothing for longer than `timeout`, and those that are over their soft limit.
    pub(crate) fn end_idle(&mut self, now: Now) {
        let Self { tuning, sessions, .. } = self;
        if tuning.timeout_ms == 0 && !tuning.limits_output
            || now.boot_ms() < tuning.next_idle_look_ms
        {
            return;
        }
        tuning.next_idle_look_ms = now.boot_ms() + IDLE_LOOK_MS;
        let idle = |session: &Session| {
            tuning.timeout_ms > 0
                && session.stall == Stall::None
                && session.replies.is_settled()
                && session.replies.unsent() == 0
                && !session.looks_on
                && !is_subscribed(session)
                && now.boot_ms().saturating_sub(session.active_ms.max(session.progress_ms))
                    > tuning.timeout_ms
        };
        let found: Vec<_> = sessions
            .iter()
            .filter(|session| session.end == End::No)
            .map(|session| (session.id, idle(session), session.over_soft_since_ms > 0))
            .filter(|(_, idle, over)| *idle || *over)
            .collect();
        for (id, idle, _) in found {
            let Some(mut session) = self.sessions.take(id) else { continue };
            if idle {
                self.let_go(&mut session);
            }
            // Which looks at the limit.
            self.settle(session);
        }
    }
}
