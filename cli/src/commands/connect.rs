//! `dkv connect`: makes one group of the managers named and remembers it as a context.

use crate::clustron::Spelling;
use crate::contexts::{Context, Contexts};
use crate::failure::Failure;
use crate::output::{self, OutputArgs};
use crate::reach::{FanoutArgs, ReachArgs, nobody_there, read_token, show};
use dkv_agent::coordinate::{self, ActionResult, Group};

/// The flags of `dkv connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv connect -m 127.0.0.1:7801
  dkv connect -m 10.0.0.11,10.0.0.12 --token-file group.token
  dkv Connect-DkvManager -Managers 10.0.0.11:7801,10.0.0.12:7801

Any manager of a group is enough: the others are found through it. A machine that is new joins the group.")]
pub(crate) struct Args {
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    fanout: FanoutArgs,
    /// Name under which it is remembered
    #[arg(long, env = "DKV_CONNECT_NAME", default_value = "default", value_name = "NAME")]
    name: String,
    /// Replace a context that is for other managers
    #[arg(long, env = "DKV_CONNECT_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs it.
pub(crate) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let named = args.reach.named()?;
    if named.is_empty() {
        return Err(Failure::usage("no manager is named", "dkv connect -m 127.0.0.1:7801"));
    }
    if let Some(own) = named.iter().find(|one| named.len() > 1 && one.ip().is_loopback()) {
        let what =
            format!("{own} is each machine's own address, so a group cannot be made with it");
        let hint =
            "name each machine by the address that its manager listens on: -m 10.0.0.11,10.0.0.12";
        return Err(Failure::usage(what, hint));
    }
    let contexts = Contexts::load()?;
    let known = contexts.contexts.get(&args.name);
    let token_path = args.reach.token_path(None)?;
    let token =
        read_token(&token_path).map_err(|failure| nobody_there(&named).unwrap_or(failure))?;
    let mut group = Group::new(&named, &token, args.reach.settings(Some(args.fanout)));
    let asked = group.managers();
    // The same group by another of its members is no other connection.
    let mut whole = group.clone();
    whole.complete();
    let members = whole.managers();
    let already = known.filter(|known| !known.managers.iter().any(|known| members.contains(known)));
    if let (Some(already), false) = (already, args.force) {
        let force = if spelling == Spelling::Clustron {
            "-Force"
        } else {
            "--force, or --name for another context"
        };
        let what =
            format!("already connected to {} (context {})", already.managers.join(", "), args.name);
        return Err(Failure::failed(what, format!("replace it with {force}")));
    }
    let report = coordinate::connect(&mut group);
    let reached = report.rows.iter().any(|row| row.result == ActionResult::Success);
    let code = show(args.output.output, &report)?;
    if !reached {
        return Ok(code);
    }
    let together = coordinate::await_together(&group, coordinate::TOGETHER_MAX);
    let managers = group.managers();
    for manager in managers.iter().filter(|manager| !asked.contains(manager)) {
        output::note(&format!(
            "{manager} belongs to the group and was left out of the list; it is connected too"
        ));
    }
    let token_file = args.reach.token_file.is_some() || args.reach.data_dir.is_some();
    let context = Context {
        managers,
        token_file: token_file.then_some(token_path),
        store: None,
        endpoints: Vec::new(),
    };
    Contexts::update(|contexts| {
        contexts.contexts.insert(args.name.clone(), context);
        contexts.current = Some(args.name.clone());
    })?;
    match together {
        Err(late) if code == 0 => Err(Failure::timed_out(late.to_string(), late.hint)),
        Err(late) => {
            output::warn(&late.to_string());
            Ok(code)
        }
        Ok(()) => Ok(code),
    }
}
