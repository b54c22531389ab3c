//! `dkv top`: what every node of a store does, again and again.
//!
//! Each time all managers are asked at once for the nodes that they know and for what their own nodes counted. On a terminal the
//! picture is drawn in place and keys change how it looks; elsewhere each picture is a paragraph, or a line of JSON.

mod screen;
mod view;

use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use crate::reach::{FanoutArgs, ReachArgs, Reached};
use dkv_agent::client::{AdminClient, AdminError};
use dkv_agent::coordinate::{self, Listing};
use dkv_protocol::admin::{MetricsView, NodeMetrics, NodeState, StoreView};
use screen::Screen;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use view::{Facts, Look, Node};

/// Columns of a picture that goes to no terminal.
const PLAIN_WIDTH: usize = 400;

/// The flags of `dkv top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv top
  dkv top local --interval-sec 2
  dkv top local --count 3
  dkv top local --once -o json
  dkv Watch-DkvStoreMetrics -StoreName local -RefreshSec 1

On a terminal: left and right sort by another column, up and down pick a node, enter shows it alone, m turns rows and columns,
? explains every column, q quits. Elsewhere each picture is a paragraph; with -o json it is one line, an object.")]
pub(crate) struct Args {
    /// Store [default: the only one there is]
    #[arg(env = "DKV_STORE", value_name = "NAME")]
    name: Option<String>,
    /// Seconds between two pictures
    #[arg(long, env = "DKV_INTERVAL_SEC", default_value_t = 1, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=60))]
    interval_sec: u64,
    /// Seconds over which rates and percentiles are taken
    #[arg(long, env = "DKV_WINDOW_SEC", default_value_t = 5, value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=60))]
    window_sec: u32,
    /// End after so many pictures
    #[arg(long, env = "DKV_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// One picture alone
    #[arg(long, env = "DKV_ONCE", conflicts_with = "count",
        value_parser = clap::builder::FalseyValueParser::new())]
    once: bool,
    /// A row for each metric and a column for each node
    #[arg(long, env = "DKV_BY_METRIC", value_parser = clap::builder::FalseyValueParser::new())]
    by_metric: bool,
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs it.
pub(crate) fn run(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let fanout = FanoutArgs { parallel: true, fail_fast: false };
    let reached = args.reach.group(Some(fanout), spelling)?;
    // As the original shows it.
    let by_metric = args.by_metric || spelling == Spelling::Clustron;
    let mut look = Look { by_metric, ..Look::default() };
    let (first, name) = begin(args, &reached)?;
    let mut picture = Picture { name, reached, window_s: args.window_sec };
    let pictures = if args.once { Some(1) } else { args.count };
    let interval = Duration::from_secs(args.interval_sec);
    if args.output.output == Format::Table && Screen::is_there() && pictures != Some(1) {
        return interactive(&mut picture, &mut look, first, interval, pictures);
    }
    let (mut answer, mut taken) = (first, 0);
    let mut due = Instant::now();
    loop {
        match args.output.output {
            Format::Json => output::line(&object(&answer).to_string()),
            Format::Table => {
                let width = Screen::width().unwrap_or(PLAIN_WIDTH);
                let lines = view::lines(&answer.facts, &look, width);
                for line in lines {
                    output::line(&line.text);
                }
            }
        }
        taken += 1;
        if pictures.is_some_and(|all| taken >= all) {
            return Ok(answer.outcome);
        }
        if args.output.output == Format::Table {
            output::line("");
        }
        due += interval;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        answer = picture.take()?;
    }
}

/// What all managers say at a time.
struct Answer {
    facts: Facts,
    metrics: Vec<NodeMetrics>,
    /// The exit code, if this is the last one.
    outcome: u8,
}

/// Whom to ask for what.
struct Picture {
    name: String,
    reached: Reached,
    window_s: u32,
}

/// The store to look at, and the first look at it.
fn begin(args: &Args, reached: &Reached) -> Result<(Answer, String), Failure> {
    let (listing, metrics) = ask(reached, args.window_sec);
    let name = match &args.name {
        Some(name) => name.clone(),
        None => only(&listing)?,
    };
    Ok((answer(&listing, metrics, &name)?, name))
}

impl Picture {
    fn take(&self) -> Result<Answer, Failure> {
        let (listing, metrics) = ask(&self.reached, self.window_s);
        answer(&listing, metrics, &self.name)
    }
}

type Metrics = Vec<(String, Result<MetricsView, AdminError>)>;

/// Asks all managers at once.
fn ask(reached: &Reached, window_s: u32) -> (Listing, Metrics) {
    let clients = reached.group.clients();
    std::thread::scope(|scope| {
        let asked: Vec<_> = clients
            .iter()
            .map(|client: &AdminClient| {
                (client.manager().to_owned(), scope.spawn(move || client.metrics(window_s)))
            })
            .collect();
        let listing = coordinate::list(&reached.group);
        let answered = asked.into_iter().map(|(manager, thread)| {
            let answer = thread.join().unwrap_or_else(|_| {
                let reason = "the question ended without an answer".to_owned();
                Err(AdminError::Broken { manager: manager.clone(), reason })
            });
            (manager, answer)
        });
        (listing, answered.collect())
    })
}

/// The name of the only store.
fn only(listing: &Listing) -> Result<String, Failure> {
    let names: Vec<&str> =
        listing.stores.iter().map(|store| store.record.definition.name.as_str()).collect();
    match names[..] {
        [one] => Ok(one.to_owned()),
        [] => match unreachable(listing) {
            Some(failure) => Err(failure),
            None => Err(Failure::failed("there is no store to look at yet", "dkv up")),
        },
        [first, ..] => {
            let what = format!("there are several stores: {}", names.join(", "));
            Err(Failure::usage(what, format!("name one: dkv top {first}")))
        }
    }
}

/// The failure, where no manager answered.
fn unreachable(listing: &Listing) -> Option<Failure> {
    let mut errors = listing.managers.iter().map(|(_, answer)| answer.as_ref().err());
    let first = listing.managers.iter().find_map(|(_, answer)| answer.as_ref().err())?;
    errors.all(|error| error.is_some()).then(|| crate::reach::admin_failure(first))
}

fn answer(listing: &Listing, metrics: Metrics, name: &str) -> Result<Answer, Failure> {
    if let Some(failure) = unreachable(listing) {
        return Err(failure);
    }
    let store = crate::commands::store::find(listing, name)?;
    let mut remarks: Vec<String> = metrics
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err().map(ToString::to_string))
        .collect();
    remarks.extend(of_copies(store));
    let metrics: Vec<NodeMetrics> = metrics
        .into_iter()
        .filter_map(|(_, answer)| answer.ok())
        .flat_map(|view| view.nodes)
        .filter(|node| node.store == name)
        .collect();
    let nodes = store.nodes.iter().map(|node| {
        let of = metrics.iter().find(|one| one.node == node.record.name);
        Node {
            name: node.record.name.clone(),
            machine: node.record.machine.clone(),
            state: node.state.map_or("Unknown", word).to_owned(),
            metrics: of.filter(|_| node.state == Some(NodeState::Running)).cloned(),
        }
    });
    let facts =
        Facts { store: name.to_owned(), updated: time_of_day(), nodes: nodes.collect(), remarks };
    Ok(Answer { facts, metrics, outcome: listing.outcome().exit_code() })
}

/// What is wrong with the copies of a store.
fn of_copies(store: &StoreView) -> Vec<String> {
    let Some(copies) = &store.copies else { return Vec::new() };
    let all = [
        (copies.offline_ranges, "ranges have lost all copies"),
        (copies.unformed_ranges, "ranges are served by nobody yet"),
        (copies.degraded_ranges, "ranges have fewer copies in sync than asked for"),
    ];
    all.iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

const fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Requested => "Requested",
        NodeState::Spawning => "Spawning",
        NodeState::Running => "Running",
        NodeState::Stopping => "Stopping",
        NodeState::Stopped => "Stopped",
        NodeState::Restarting => "Restarting",
        NodeState::Failed => "Failed",
    }
}

fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02} UTC", now / 3600 % 24, now / 60 % 60, now % 60)
}

/// One picture for a program.
fn object(answer: &Answer) -> serde_json::Value {
    let node = |node: &Node| {
        let metrics = answer.metrics.iter().find(|one| one.node == node.name);
        json!({
            "name": node.name,
            "machine": node.machine,
            "state": node.state,
            "metrics": metrics.filter(|_| node.metrics.is_some()),
        })
    };
    json!({
        "store": answer.facts.store,
        "updated": answer.facts.updated,
        "nodes": answer.facts.nodes.iter().map(node).collect::<Vec<_>>(),
        "remarks": answer.facts.remarks,
    })
}

/// Draws on the terminal until somebody has seen enough.
fn interactive(
    picture: &mut Picture,
    look: &mut Look,
    first: Answer,
    interval: Duration,
    pictures: Option<u64>,
) -> Result<u8, Failure> {
    let mut screen = Screen::open()?;
    let (mut answer, mut taken) = (first, 1);
    let mut due = Instant::now() + interval;
    loop {
        screen.draw(&view::lines(&answer.facts, look, Screen::width().unwrap_or(80)))?;
        if pictures.is_some_and(|all| taken >= all) {
            return Ok(answer.outcome);
        }
        // A key is answered at once, from the picture that is there.
        match screen.key(due.saturating_duration_since(Instant::now()))? {
            Some(screen::Key::Quit) => return Ok(0),
            Some(key) => turn(look, key, answer.facts.nodes.len()),
            None => {
                answer = picture.take()?;
                taken += 1;
                due = Instant::now() + interval;
            }
        }
    }
}

/// What a key changes.
fn turn(look: &mut Look, key: screen::Key, nodes: usize) {
    use screen::Key;
    match key {
        Key::Left => look.sort = (look.sort + view::SORTS - 1) % view::SORTS,
        Key::Right => look.sort = (look.sort + 1) % view::SORTS,
        Key::Reverse => look.reverse = !look.reverse,
        Key::Metrics => look.by_metric = !look.by_metric,
        Key::Help => look.help = !look.help,
        Key::Down => {
            let next = look.picked.map_or(0, |at| at + 1);
            look.picked = Some(next.min(nodes.saturating_sub(1)));
        }
        Key::Up => look.picked = look.picked.and_then(|at| at.checked_sub(1)),
        Key::Enter if look.picked.is_some() => look.alone = !look.alone,
        Key::Back if look.help => look.help = false,
        Key::Back if look.alone => look.alone = false,
        Key::Back => look.picked = None,
        Key::Enter | Key::Quit | Key::Resized => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use screen::Key;

    #[test]
    fn keys_change_the_look_and_nothing_leaves_its_bounds() {
        let mut look = Look::default();
        let mut press = |keys: &[Key], nodes| {
            for key in keys {
                turn(&mut look, *key, nodes);
            }
            look.clone()
        };
        assert_eq!(press(&[Key::Left], 2).sort, view::SORTS - 1);
        assert_eq!(press(&[Key::Right, Key::Right], 2).sort, 1);
        assert!(!press(&[Key::Enter], 2).alone, "nothing is picked");
        assert_eq!(press(&[Key::Down, Key::Down, Key::Down], 2).picked, Some(1));
        assert!(press(&[Key::Enter], 2).alone);
        assert!(press(&[Key::Help], 2).help);
        let back = press(&[Key::Back], 2);
        assert!(!back.help && back.alone, "one at a time");
        assert!(!press(&[Key::Back], 2).alone);
        assert_eq!(press(&[Key::Up, Key::Up], 2).picked, None);
        assert_eq!(press(&[Key::Down], 0).picked, Some(0));
    }
}
