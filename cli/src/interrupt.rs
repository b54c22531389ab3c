//! Ctrl-C: exit 130 with a line on what still goes on without the command.
//!
//! Nothing needs undoing here: what is written is written atomically, and what managers and nodes were asked to do they
//! finish or undo by themselves.

use crate::output;
use std::sync::Mutex;

/// What goes on when the command is interrupted now.
static GOES_ON: Mutex<Option<String>> = Mutex::new(None);
/// What must be put back before the process ends.
static BEFORE_THE_END: Mutex<Option<fn()>> = Mutex::new(None);

/// From now on Ctrl-C ends the command with 130.
pub(crate) fn install() {
    let result = ctrlc::set_handler(|| {
        let before = BEFORE_THE_END.lock().map(|before| *before).unwrap_or_default();
        if let Some(before) = before {
            before();
        }
        let goes_on = GOES_ON.lock().map(|text| text.clone()).unwrap_or_default();
        output::note(&format!(
            "\ninterrupted; {}",
            goes_on.as_deref().unwrap_or("nothing goes on")
        ));
        std::process::exit(130);
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
