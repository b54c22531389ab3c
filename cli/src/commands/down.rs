//! `dkv down`: stops what `dkv up` started, and nothing else.

use super::up::{LOCAL, check};
use crate::contexts::{self, Contexts};
use crate::failure::Failure;
use crate::interrupt;
use crate::local_manager::{self, Manager};
use crate::output;
use crate::reach::{admin_failure, read_token};
use dkv_agent::coordinate::{self, Group, Settings};
use dkv_protocol::admin::{NodeState, StoreView};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The flags of `dkv down`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv down
  dkv down --purge

What the nodes hold in memory is lost. Other stores of the same manager, and a manager that `dkv up` did not start, go on.")]
pub(crate) struct Args {
    /// Also forget the store and remove the files of the manager
    #[arg(long, env = "DKV_PURGE", value_parser = clap::builder::FalseyValueParser::new())]
    purge: bool,
    /// Data directory that `dkv up` was given [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Most seconds for each step
    #[arg(long, env = "DKV_TIMEOUT_SEC", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_sec: u64,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let data_dir = contexts::data_dir(args.data_dir.as_deref())?;
    let timeout = Duration::from_secs(args.timeout_sec);
    if !data_dir.join("token").exists() && dkv_agent::guard::running().is_none() {
        output::line("nothing runs here");
        return Ok(0);
    }
    interrupt::goes_on("what was asked to stop goes on stopping; dkv down again completes it");
    // Nodes outlive a manager that was killed: a new one finds them again and can stop them.
    let manager = match local_manager::running(&data_dir)? {
        Some(manager) => manager,
        None => local_manager::start(&data_dir, timeout)?.manager,
    };
    let others = stop_store(args, &manager, &data_dir, timeout)?;
    let stays = end_manager(&manager, &others, timeout)?;
    if args.purge {
        return purge(&data_dir, stays);
    }
    Ok(0)
}

/// Stops the store, and gives the names of other stores that still run.
fn stop_store(
    args: &Args,
    manager: &Manager,
    data_dir: &Path,
    timeout: Duration,
) -> Result<Vec<String>, Failure> {
    let token = read_token(&data_dir.join("token"))?;
    let settings = Settings { timeout, parallel: true, fail_fast: false };
    let group = Group::new(&[manager.address], &token, settings);
    let stores = group.clients()[0].stores().map_err(|error| admin_failure(&error))?;
    let local = stores.iter().find(|store| store.record.definition.name == LOCAL);
    if let Some(store) = local {
        if is_up(store) {
            let report = coordinate::stop(&group, LOCAL, None, args.purge);
            check(&report)?;
            output::line(&format!("store {LOCAL}: stopped"));
        } else {
            output::line(&format!("store {LOCAL}: was not running"));
        }
        if args.purge {
            let report = coordinate::delete(&group, LOCAL, true);
            check(&report)?;
            output::line(&format!("store {LOCAL}: deleted"));
        }
    }
    let running =
        stores.iter().filter(|store| store.record.definition.name != LOCAL && is_up(store));
    Ok(running.map(|store| store.record.definition.name.clone()).collect())
}

fn is_up(store: &StoreView) -> bool {
    let rest = [NodeState::Requested, NodeState::Stopped, NodeState::Failed];
    store.nodes.iter().any(|node| node.state.is_some_and(|state| !rest.contains(&state)))
}

/// Ends the manager if it is `dkv up`'s own and nothing else needs it; whether it stays.
fn end_manager(manager: &Manager, others: &[String], timeout: Duration) -> Result<bool, Failure> {
    let pid = manager.pid;
    if !others.is_empty() {
        output::line(&format!("manager (pid {pid}): goes on, it also runs {}", others.join(", ")));
        return Ok(true);
    }
    if !manager.by_up {
        output::line(&format!("manager (pid {pid}): goes on, dkv up did not start it"));
        return Ok(true);
    }
    manager.end(timeout)?;
    output::line(&format!("manager (pid {pid}): stopped"));
    Ok(false)
}

/// Removes the files of the manager and the context.
fn purge(data_dir: &Path, manager_stays: bool) -> Result<u8, Failure> {
    Contexts::update(|contexts| {
        contexts.contexts.remove(LOCAL);
        contexts.current.take_if(|current| current == LOCAL);
    })?;
    if manager_stays {
        output::line(&format!("{}: kept, the manager goes on using it", data_dir.display()));
        return Ok(0);
    }
    let left = local_manager::remove_files(data_dir)?;
    if left.is_empty() {
        output::line(&format!("{}: removed", data_dir.display()));
    } else {
        output::line(&format!(
            "{}: removed, but for what is not DKV's: {}",
            data_dir.display(),
            left.join(", ")
        ));
    }
    Ok(0)
}
