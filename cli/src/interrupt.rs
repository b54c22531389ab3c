//! Ctrl-C: exit 130 with a line on what still goes on without the command; or, where a command says so, the end of what it
//! does and its result, and only the second Ctrl-C ends it at once.
//!
//! Nothing needs undoing here: what is written is written atomically, and what managers and nodes were asked to do they
//! finish or undo by themselves.

use crate::output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The exit code of a command that was interrupted.
pub(crate) const EXIT: u8 = 130;

/// What goes on when the command is interrupted now.
static GOES_ON: Mutex<Option<String>> = Mutex::new(None);
/// What must be put back before the process ends.
static BEFORE_THE_END: Mutex<Option<fn()>> = Mutex::new(None);
/// What the command ends early when it is asked to; none: it is ended.
static ENDS_EARLY: Mutex<Option<&'static str>> = Mutex::new(None);
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends the command with 130.
pub(crate) fn install() {
    let result = ctrlc::set_handler(|| {
        let early = ENDS_EARLY.lock().map(|early| *early).unwrap_or_default();
        if let Some(what) = early.filter(|_| !ASKED_TO_END.swap(true, Relaxed)) {
            output::note(&format!("\ninterrupted; ending {what}, once more ends it at once"));
            return;
        }
        let before = BEFORE_THE_END.lock().map(|before| *before).unwrap_or_default();
        if let Some(before) = before {
            before();
        }
        let goes_on = GOES_ON.lock().map(|text| text.clone()).unwrap_or_default();
        output::note(&format!(
            "\ninterrupted; {}",
            goes_on.as_deref().unwrap_or("nothing goes on")
        ));
        std::process::exit(i32::from(EXIT));
    });
    if let Err(error) = result {
        output::warn(&format!("Ctrl-C will end the command without a word: {error}"));
    }
}

/// What an interruption does before it ends the process, from now on: a terminal that was taken over is given back.
pub(crate) fn before_the_end(what: fn()) {
    if let Ok(mut before) = BEFORE_THE_END.lock() {
        *before = Some(what);
    }
}

/// Says what an interruption would leave going on, until the next call.
pub(crate) fn goes_on(what: impl Into<String>) {
    if let Ok(mut text) = GOES_ON.lock() {
        *text = Some(what.into());
    }
}

/// From now on the first Ctrl-C sets what is given back, and the command ends `what` by itself; only the second ends it.
pub(crate) fn ends_early(what: &'static str) -> &'static AtomicBool {
    if let Ok(mut early) = ENDS_EARLY.lock() {
        *early = Some(what);
    }
    &ASKED_TO_END
}

/// From now on Ctrl-C ends the command again.
pub(crate) fn ends_at_once() {
    if let Ok(mut early) = ENDS_EARLY.lock() {
        *early = None;
    }
}
