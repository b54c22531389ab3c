//! `store start` and `store stop`, and waiting until the nodes of a store reach each other.

use super::Shared;
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::interrupt;
use crate::output;
use crate::reach::show;
use dkv_agent::client::{AddressError, parse_address};
use dkv_agent::coordinate::{self, Group, NotWhole, Outcome, Patience, Report};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Runs `store start`.
pub(super) fn start(
    name: &str,
    instance: Option<&str>,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    interrupt::goes_on(format!(
        "nodes already asked to start go on starting; look with: dkv store show {name}"
    ));
    let progress = progress(format!("starting {name}"));
    let report = coordinate::start(&reached.group, name, instance);
    progress.finish_and_clear();
    let code = show(shared.output.output, &report)?;
    // A single node may well be started while others are down on purpose.
    if report.outcome() == Outcome::Done && instance.is_none() {
        wait_until_whole(&reached.group, name, Duration::from_secs(shared.reach.timeout_sec))?;
    }
    Ok(code)
}

/// Waits until every node of a store reaches all others.
pub(crate) fn wait_until_whole(group: &Group, store: &str, most: Duration) -> Result<(), Failure> {
    interrupt::goes_on(format!("the nodes of {store} run on and go on connecting to each other"));
    let progress = progress(format!("waiting for the nodes of {store} to reach each other"));
    let result = coordinate::await_whole(group, store, most);
    progress.finish_and_clear();
    result.map_err(|why| match why {
        NotWhole::Late(what) => {
            let hint =
                format!("dkv store show {store}; are the cluster ports open between the machines?");
            Failure::timed_out(what, hint)
        }
        NotWhole::NobodyAnswers { message, hint } => Failure::not_connected(message, hint),
        NotWhole::Gone(_) => Failure::failed(why.to_string(), "dkv store list"),
    })
}

/// Runs `store stop`.
pub(super) fn stop(
    name: &str,
    instance: Option<&str>,
    force: bool,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    interrupt::goes_on(format!(
        "nodes already asked to stop go on stopping; look with: dkv store show {name}"
    ));
    let progress = progress(format!("stopping {name}"));
    let report = coordinate::stop(&reached.group, name, instance, force);
    progress.finish_and_clear();
    show(shared.output.output, &report)
}

/// Runs what has copies moved, and waits for that: the first Ctrl-C has it end as soon as nothing is left half done.
pub(super) fn copies(
    shared: &Shared,
    spelling: Spelling,
    (what, most): (&str, Duration),
    run: impl FnOnce(&Group, Patience<'_>) -> Report,
) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    // The steps are taken from here, so none follows the one under way.
    interrupt::goes_on(
        "the step under way goes on, those after it are not taken: a node may be stopped, or follow only. Look with: dkv \
         store show NAME",
    );
    let stop = interrupt::ends_early("it where nothing is left half done");
    let progress = progress(what.to_owned());
    let report = run(&reached.group, Patience { most, stop: Some(stop) });
    progress.finish_and_clear();
    interrupt::ends_at_once();
    let code = show(shared.output.output, &report)?;
    Ok(if stop.load(Relaxed) { interrupt::EXIT } else { code })
}

/// Goes on without machines that are gone, once their addresses were typed again.
pub(super) fn force(
    name: &str,
    gone: &[String],
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let usage = |error: AddressError| Failure::usage(error.to_string(), "--gone 10.0.0.11:7801");
    let gone: Result<Vec<String>, Failure> = gone
        .iter()
        .map(|text| Ok(parse_address(text, Some(shared.reach.port)).map_err(usage)?.to_string()))
        .collect();
    let gone = gone?;
    let reached = shared.group(spelling)?;
    if let Err(rows) = coordinate::check_force(&reached.group, name, &gone) {
        return show(shared.output.output, &Report { rows, ..Report::default() });
    }
    let all = gone.join(",");
    output::note(&format!(
        "{all} is said to be gone. If it lives and goes on by itself, the store {name} exists twice from now on, and what \
         clients write to one of the two is lost.\nType {all} to go on without it:"
    ));
    confirm(&all)?;
    show(shared.output.output, &coordinate::force(&reached.group, name, &gone))
}

/// Gives up what offline ranges held, once the name of the store was typed again.
pub(super) fn accept_loss(
    name: &str,
    most: Duration,
    shared: &Shared,
    spelling: Spelling,
) -> Result<u8, Failure> {
    let reached = shared.group(spelling)?;
    let offline = match coordinate::offline_ranges(&reached.group, name) {
        Ok(0) => {
            output::note(&format!("no range of {name} is offline; nothing is lost"));
            return Ok(0);
        }
        Ok(offline) => offline,
        Err(rows) => return show(shared.output.output, &Report { rows, ..Report::default() }),
    };
    output::note(&format!(
        "{offline} ranges of {name} are offline: all their copies are gone, and what they held with them. They start empty.\n\
         Type {name} to go on:"
    ));
    confirm(name)?;
    let report = coordinate::accept_loss(&reached.group, name, offline, most);
    show(shared.output.output, &report)
}

/// Nothing is done before this was typed.
fn confirm(what: &str) -> Result<(), Failure> {
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    if read.is_err() || typed.trim() != what {
        return Err(Failure::failed("not confirmed; nothing was changed", format!("type {what}")));
    }
    Ok(())
}

/// A turning wheel with the seconds, on a terminal alone.
fn progress(message: String) -> ProgressBar {
    if !std::io::stderr().is_terminal() || !output::is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
