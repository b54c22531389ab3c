//! `dkv manager`: the managers of the group, who of them decides, and what happens when a machine fails.

use crate::clustron::Spelling;
use crate::contexts::Contexts;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, Format, OutputArgs};
use crate::reach::{ReachArgs, Reached, admin_failure, show};
use dkv_agent::client::parse_address;
use dkv_agent::coordinate::{self, ActionResult, NotTogether, Report, Standing};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shared {
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The subcommands of `dkv manager`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The managers of the group: who leads, who votes, who is down
    #[command(after_help = "Examples:\n  dkv manager list\n  dkv manager list -o json")]
    List {
        #[command(flatten)]
        shared: Shared,
    },
    /// As list, and what happens when each of the machines fails
    #[command(after_help = "Example:\n  dkv manager status")]
    Status {
        #[command(flatten)]
        shared: Shared,
    },
    /// Takes further machines into the group
    #[command(after_help = "\
Examples:
  dkv manager add 10.0.0.13
  dkv manager add 10.0.0.13:7801 10.0.0.14:7801

Two machines alone cannot tell a dead one from a cut cable. A third manager that runs no nodes settles it; start it with:
dkv agent --witness --listen 10.0.0.13:7801 --token-file group.token")]
    Add {
        /// Managers, as HOST or HOST:PORT
        #[arg(required = true, value_name = "HOST:PORT")]
        hosts: Vec<String>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Which of two managers decides: it goes on alone when the other machine fails
    #[command(after_help = "\
Example:
  dkv manager prefer 10.0.0.12:7801

Of two managers one decides alone. When the other machine fails it goes on by itself; when its own fails, the other one is
promoted by hand. Both must be up, and nothing stops meanwhile. Of three or more the one that comes first always votes. A
third manager as a witness settles it for good: dkv manager add --help")]
    Prefer {
        /// The manager, as HOST or HOST:PORT
        #[arg(value_name = "HOST:PORT")]
        host: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Removes a machine without nodes from the group; it may be down
    #[command(after_help = "Example:\n  dkv manager remove 10.0.0.13:7801")]
    Remove {
        /// Its manager, as HOST or HOST:PORT
        #[arg(value_name = "HOST:PORT")]
        host: String,
        #[command(flatten)]
        shared: Shared,
    },
}

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::List { shared } => list(shared, spelling, false),
        Command::Status { shared } => list(shared, spelling, true),
        Command::Add { hosts, shared } => {
            let new = hosts
                .iter()
                .map(|host| address(host, shared, "add"))
                .collect::<Result<Vec<_>, _>>()?;
            let Reached { mut group, .. } = shared.reach.group(None, spelling)?;
            interrupt::goes_on(
                "the managers that were asked go on joining; look with: dkv manager status",
            );
            ended(shared, &coordinate::add_managers(&mut group, &new, coordinate::TOGETHER_MAX))
        }
        Command::Prefer { host, shared } => {
            let machine = address(host, shared, "prefer")?.to_string();
            let reached = shared.reach.group(None, spelling)?;
            let most = coordinate::TOGETHER_MAX;
            interrupt::goes_on("the managers go on; look with: dkv manager status");
            ended(shared, &coordinate::prefer_manager(&reached.group, &machine, most))
        }
        Command::Remove { host, shared } => {
            let machine = address(host, shared, "remove")?.to_string();
            let reached = shared.reach.group(None, spelling)?;
            let most = coordinate::TOGETHER_MAX;
            interrupt::goes_on("the managers that were asked go on; look with: dkv manager status");
            let done = coordinate::remove_manager(&reached.group, &machine, most);
            let removed = done.0.rows.iter().any(|row| row.result == ActionResult::Success);
            if removed && let Err(failure) = forget(&machine, &reached.group.managers()) {
                output::warn(&format!("the contexts still name {machine}: {}", failure.what));
            }
            ended(shared, &done)
        }
    }
}

/// Leaves a machine out of the contexts of its group, by which every later command would look for it.
fn forget(machine: &str, group: &[String]) -> Result<(), Failure> {
    Contexts::update(|contexts| {
        for context in contexts.contexts.values_mut() {
            let stays = |one: &String| one != machine;
            if context.managers.iter().any(|one| stays(one) && group.contains(one)) {
                context.managers.retain(stays);
            }
        }
    })
}

/// Shows what was done, and fails when the managers have not come together after it.
fn ended(
    shared: &Shared,
    (report, together): &(Report, Result<(), NotTogether>),
) -> Result<u8, Failure> {
    let code = show(shared.output.output, report)?;
    match together {
        Ok(()) => Ok(code),
        Err(late) => Err(Failure::timed_out(late.to_string(), late.hint.clone())),
    }
}

fn address(text: &str, shared: &Shared, verb: &str) -> Result<SocketAddr, Failure> {
    let hint = || format!("dkv manager {verb} 10.0.0.13:7801");
    parse_address(text, Some(shared.reach.port))
        .map_err(|error| Failure::usage(error.to_string(), hint()))
}

fn list(shared: &Shared, spelling: Spelling, with_fates: bool) -> Result<u8, Failure> {
    let reached = shared.reach.group(None, spelling)?;
    let all = coordinate::standing(&reached.group);
    if let Some(error) = all.iter().find_map(|one| one.view.as_ref().err())
        && all.iter().all(|one| one.view.is_err())
    {
        return Err(admin_failure(error));
    }
    let rows: Vec<Vec<Value>> = all.iter().map(|one| row(one, &all)).collect();
    let fates = if with_fates {
        coordinate::fates(&all, &coordinate::list(&reached.group).stores)
    } else {
        Vec::new()
    };
    let head = ["Manager", "Part", "Runs", "Version", "Message"];
    let down = all.iter().any(|one| one.view.is_err());
    if shared.output.output == Format::Json {
        let objects: Vec<Value> = rows
            .iter()
            .map(|row| head.iter().copied().zip(row.iter().cloned()).collect())
            .collect();
        let fates: Vec<Value> = fates
            .iter()
            .map(|(machine, fate)| json!({"if_fails": machine, "then": fate}))
            .collect();
        let shown = json!({ "managers": objects, "fates": fates });
        output::json(if with_fates { &shown } else { &shown["managers"] });
    } else {
        output::rows(Format::Table, &head, &rows);
        if with_fates {
            output::line("");
            let rows: Vec<Vec<Value>> =
                fates.iter().map(|(machine, fate)| vec![json!(machine), json!(fate)]).collect();
            output::rows(Format::Table, &["If this fails", "then"], &rows);
        }
    }
    Ok(if down { 4 } else { 0 })
}

/// One manager: by itself, or by what the others know of it.
fn row(one: &Standing, all: &[Standing]) -> Vec<Value> {
    let known = all.iter().filter_map(|other| other.view.as_ref().ok()).map(|view| &view.group);
    let latest = known.max_by_key(|group| (group.leader.is_some(), group.applied));
    let member = latest.and_then(|g| g.members.iter().find(|m| m.machine == one.machine));
    let leads = latest.is_some_and(|group| group.leader.as_deref() == Some(&one.machine));
    let part = match member {
        None => "not in the group",
        Some(_) if leads => "leads",
        Some(member) if member.votes => "votes",
        Some(_) => "learns",
    };
    let view = one.view.as_ref();
    let apart = view.ok().zip(latest).is_some_and(|(v, latest)| v.group.number != latest.number);
    let decides_alone = latest.is_some_and(|group| {
        let first = group.members.first().map(|member| member.machine.as_str());
        group.members.len() == 2 && first == Some(one.machine.as_str())
    });
    let message = match &one.view {
        Err(error) => error.to_string(),
        Ok(_) if apart => "keeps a group of its own".to_owned(),
        Ok(view) if view.group.leader.is_none() => "reaches too few to decide".to_owned(),
        Ok(_) if decides_alone => "preferred: it decides when the other is away".to_owned(),
        Ok(_) => String::new(),
    };
    let runs = match view {
        Ok(view) if view.witness => "witness, no nodes",
        Ok(_) => "nodes",
        Err(_) => "unknown",
    };
    vec![
        json!(one.machine),
        json!(part),
        json!(runs),
        json!(view.ok().map(|view| view.version.clone())),
        json!(message),
    ]
}
