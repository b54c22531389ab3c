//! The next step of a node: from what is wanted of it and what is seen of it.

use dkv_protocol::admin::NodeState;
use dkv_protocol::launch::exit;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is wanted of a node. Written down before anything is done about it, so that a manager that dies in between
/// finishes the work after its restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// It shall run.
    Up,
    /// It shall not.
    Down,
}

/// What a manager does first with a node that it finds in its catalogue after its own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstStep {
    /// Go on supervising the process that is there.
    Adopt,
    /// Finish stopping the process that is there.
    Stop,
    /// Start a process.
    Spawn,
    /// Leave it in this state.
    Rest(NodeState),
}

/// Decides the first step.
pub(crate) fn first_step(wanted: Wanted, state: NodeState, alive: bool) -> FirstStep {
    match (wanted, alive) {
        (Wanted::Up, true) => FirstStep::Adopt,
        (Wanted::Down, true) => FirstStep::Stop,
        (Wanted::Up, false) if state == NodeState::Failed => FirstStep::Rest(NodeState::Failed),
        (Wanted::Up, false) => FirstStep::Spawn,
        (Wanted::Down, false) => match state {
            NodeState::Requested | NodeState::Failed => FirstStep::Rest(state),
            _ => FirstStep::Rest(NodeState::Stopped),
        },
    }
}

/// How a process ended, as far as its restart is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Time since its ready line; none when there was none.
    pub(crate) served: Option<Duration>,
    /// Its exit code; none when a signal ended it, or when it was adopted and nobody can know.
    pub(crate) code: Option<u8>,
    /// Whether somebody else ended it, so that it says nothing about the program.
    pub(crate) from_outside: bool,
}

/// What to do about a process that ended although it was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterExit {
    /// Start it again after this pause.
    Restart(Duration),
    /// It fails for good until somebody starts it.
    GiveUp,
}

/// Most early exits in a row.
pub(crate) const EARLY_EXITS_MAX: u32 = 5;
/// How often the pause doubles at most: who kills a node again and again shall not keep its manager busy, and who stops
/// doing it shall not wait for long.
const DOUBLINGS_MAX: u32 = 4;

/// Counts early exits of one node since it was last started on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// Those that were its own.
    early: u32,
    /// Those that somebody else brought about. They never make it fail for good.
    killed: u32,
}

impl Restarts {
    /// Decides about an exit. `on_request` is a start that somebody waits for: it fails at once instead of being tried
    /// again behind his back, except when the node's own predecessor is still on its way out.
    pub(crate) fn after(
        &mut self,
        ended: Ended,
        on_request: bool,
        pace: &crate::Pace,
    ) -> AfterExit {
        let hopeless =
            [exit::BAD_LAUNCH_DOCUMENT, exit::IO_URING_UNAVAILABLE, exit::BAD_CONFIGURATION];
        if ended.code.is_some_and(|code| hopeless.contains(&code)) {
            return AfterExit::GiveUp;
        }
        if on_request && ended.served.is_none() && ended.code != Some(exit::ALREADY_RUNNING) {
            return AfterExit::GiveUp;
        }
        if ended.served.is_some_and(|served| served >= pace.early_exit) {
            *self = Self::default();
            return AfterExit::Restart(Duration::ZERO);
        }
        if ended.from_outside {
            self.killed = self.killed.saturating_add(1);
            return match self.killed {
                1 if ended.served.is_some() => AfterExit::Restart(Duration::ZERO),
                killed => {
                    AfterExit::Restart(pace.backoff * (1 << (killed.max(2) - 2).min(DOUBLINGS_MAX)))
                }
            };
        }
        self.early += 1;
        match self.early {
            1 if ended.served.is_some() => AfterExit::Restart(Duration::ZERO),
            early if early > EARLY_EXITS_MAX => AfterExit::GiveUp,
            early => AfterExit::Restart(pace.backoff * (1 << (early.max(2) - 2))),
        }
    }
}

/// An exit code of a node in words.
pub(crate) fn code_in_words(code: u8) -> &'static str {
    match code {
        exit::OK => "it ended by itself",
        exit::BAD_LAUNCH_DOCUMENT => "it refused its launch document",
        exit::ADDRESS_IN_USE => "one of its ports is in use",
        exit::IO_URING_UNAVAILABLE => {
            "the kernel refuses io_uring, and --io uring allows nothing else"
        }
        exit::ALREADY_RUNNING => "the same node already runs",
        exit::BAD_CONFIGURATION => "it refused its configuration",
        _ => "it failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeState::{Failed, Requested, Restarting, Running, Spawning, Stopped, Stopping};

    #[test]
    fn after_its_own_restart_a_manager_finishes_what_was_under_way() {
        for (wanted, state, alive, step) in [
            (Wanted::Up, Running, true, FirstStep::Adopt),
            (Wanted::Up, Spawning, true, FirstStep::Adopt),
            (Wanted::Up, Spawning, false, FirstStep::Spawn),
            (Wanted::Up, Running, false, FirstStep::Spawn),
            (Wanted::Up, Restarting, false, FirstStep::Spawn),
            (Wanted::Up, Failed, false, FirstStep::Rest(Failed)),
            (Wanted::Down, Stopping, true, FirstStep::Stop),
            (Wanted::Down, Stopping, false, FirstStep::Rest(Stopped)),
            (Wanted::Down, Requested, false, FirstStep::Rest(Requested)),
            (Wanted::Down, Stopped, false, FirstStep::Rest(Stopped)),
            (Wanted::Down, Stopped, true, FirstStep::Stop),
        ] {
            assert_eq!(first_step(wanted, state, alive), step, "{wanted:?} {state:?} {alive}");
        }
    }

    #[test]
    fn restarts_are_at_once_then_slower_then_no_more() {
        let pace = crate::Pace { backoff: Duration::from_millis(200), ..crate::Pace::default() };
        let early = Ended { served: Some(Duration::from_secs(1)), code: None, from_outside: false };
        let mut restarts = Restarts::default();
        let pauses: Vec<AfterExit> = (0..7).map(|_| restarts.after(early, false, &pace)).collect();
        let ms = |ms| AfterExit::Restart(Duration::from_millis(ms));
        let end = AfterExit::GiveUp;
        assert_eq!(pauses, [ms(0), ms(200), ms(400), ms(800), ms(1600), end, end]);
    }

    #[test]
    fn who_is_killed_by_others_is_started_again_for_ever_and_slower_each_time() {
        let pace = crate::Pace { backoff: Duration::from_millis(200), ..crate::Pace::default() };
        let killed = Ended { served: Some(Duration::from_secs(1)), code: None, from_outside: true };
        let mut restarts = Restarts::default();
        let mut pause = || restarts.after(killed, false, &pace);
        let pauses: Vec<AfterExit> = (0..8).map(|_| pause()).collect();
        let ms = |ms| AfterExit::Restart(Duration::from_millis(ms));
        let most = ms(3200);
        assert_eq!(pauses, [ms(0), ms(200), ms(400), ms(800), ms(1600), most, most, most]);
        assert!((0..1000).all(|_| pause() == most));
        // It does not count towards its own crashes, and a long life makes good for it.
        let own = Ended { from_outside: false, ..killed };
        assert_eq!(restarts.after(own, false, &pace), ms(0));
        let late = Ended { served: Some(Duration::from_secs(10)), ..killed };
        assert_eq!(restarts.after(late, false, &pace), ms(0));
        assert_eq!(restarts.after(killed, false, &pace), ms(0));
    }

    #[test]
    fn a_long_life_makes_good_for_early_exits() {
        let pace = crate::Pace::default();
        let mut restarts = Restarts::default();
        let after =
            |s| Ended { served: Some(Duration::from_secs(s)), code: Some(1), from_outside: false };
        let (early, late) = (after(9), after(10));
        for _ in 0..20 {
            assert_eq!(restarts.after(early, false, &pace), AfterExit::Restart(Duration::ZERO));
            assert_eq!(restarts.after(late, false, &pace), AfterExit::Restart(Duration::ZERO));
        }
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let pace = crate::Pace::default();
        for (code, on_request, gives_up) in [
            (exit::IO_URING_UNAVAILABLE, false, true),
            (exit::BAD_LAUNCH_DOCUMENT, false, true),
            (exit::BAD_CONFIGURATION, false, true),
            (exit::ADDRESS_IN_USE, false, false),
            (exit::ADDRESS_IN_USE, true, true),
            (exit::ALREADY_RUNNING, true, false),
        ] {
            let ended = Ended { served: None, code: Some(code), from_outside: false };
            let after = Restarts::default().after(ended, on_request, &pace);
            assert_eq!(after == AfterExit::GiveUp, gives_up, "{code} {on_request}");
        }
    }
}
