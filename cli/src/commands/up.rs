//! `dkv up`: a working store on this machine in one command. Each step first looks whether it is done already, so that
//! the command can be run again at any point; what a failed run began it takes back.

use super::store::wait_until_whole;
use crate::amounts::{self, bytes_text};
use crate::contexts::{self, Context, Contexts};
use crate::failure::Failure;
use crate::interrupt;
use crate::local_manager::{self, Manager};
use crate::output::{self, Format, OutputArgs};
use crate::reach::{admin_failure, read_token};
use dkv_agent::coordinate::{self, Group, Outcome, Report, Settings};
use dkv_protocol::admin::{NodeState, NodeView, StoreDefinition, StoreRecord, StoreView};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::io::{IoChoice, short_name};
use dkv_protocol::limits::{CLIENT_PORT, CLUSTER_PORT, NODES_PER_MACHINE_MAX};
use dkv_protocol::ranges::{OnTotalLoss, Replication};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The store, and the name of the context.
pub(super) const LOCAL: &str = "local";
/// Nodes of a new store.
const NODES: u32 = 2;

/// The flags of `dkv up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv up
  dkv up --nodes 3
  dkv up --nodes 3 --replicas 2
  dkv up --data-dir /tmp/try

It starts a manager if none runs, creates and starts the store `local`, and remembers it as the context `local`.")]
pub(crate) struct Args {
    /// Nodes of the store [default: 2, or as many as it has]
    #[arg(long, env = "DKV_NODES", value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_PER_MACHINE_MAX)))]
    nodes: Option<u32>,
    /// Copies of each range besides the primary [default: 1 of two nodes or more, or as many as it has]
    #[arg(long, env = "DKV_REPLICAS", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(0..=6))]
    replicas: Option<u8>,
    /// First cluster port [default: 7811, or that which it has]
    #[arg(long, alias = "cluster-port", env = "DKV_CLUSTRON_PORT", value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    clustron_port: Option<u16>,
    /// First client port [default: 7861, or that which it has]
    #[arg(long, env = "DKV_CLIENT_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    client_port: Option<u16>,
    /// Most memory for the data of each node, as 512MiB or 4GiB [default: no limit, or that which it has]
    #[arg(long, env = "DKV_MAX_MEMORY", value_name = "SIZE", value_parser = amounts::bytes)]
    max_memory: Option<u64>,
    /// What happens when that is reached; see: dkv store create --help [default: noeviction, or that which it has]
    #[arg(long, env = "DKV_EVICTION", value_name = "POLICY")]
    eviction: Option<Eviction>,
    /// How nodes talk to the kernel; see: dkv store create --help [default: auto, or that which it has]
    #[arg(long, env = "DKV_IO", value_name = "auto|uring|epoll")]
    io: Option<IoChoice>,
    /// Directory of the catalogue, the token and the logs [default: $XDG_DATA_HOME/dkv or ~/.local/share/dkv]
    #[arg(long, env = "DKV_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Most seconds for each step
    #[arg(long, env = "DKV_TIMEOUT_SEC", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_sec: u64,
    /// See [`OutputArgs`].
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let data_dir = contexts::data_dir(args.data_dir.as_deref())?;
    // A file that cannot be read is said before anything is started.
    Contexts::load()?;
    interrupt::goes_on("what was started runs on; dkv up again completes it, dkv down ends it");
    let timeout = Duration::from_secs(args.timeout_sec);
    let (manager, fresh) = if let Some(manager) = local_manager::running(&data_dir)? {
        (manager, None)
    } else {
        let started = local_manager::start(&data_dir, timeout)?;
        (started.manager, Some(started))
    };
    let result = bring_up(args, &manager, &data_dir, timeout);
    match result {
        Ok(store) => {
            show(args.output.output, &manager, &store, &data_dir.join("token"));
            warn_of_epoll(&store);
            Ok(0)
        }
        Err(failure) => {
            // A manager that this run started for nothing shall not stay behind.
            if let Some(started) = fresh {
                started.stop();
            }
            Err(failure)
        }
    }
}

fn bring_up(
    args: &Args,
    manager: &Manager,
    data_dir: &Path,
    timeout: Duration,
) -> Result<StoreView, Failure> {
    let token_file = data_dir.join("token");
    let token = read_token(&token_file)?;
    let settings = Settings { timeout, parallel: true, fail_fast: false };
    let mut group = Group::new(&[manager.address], &token, settings);
    let others = group.complete();
    if !others.is_empty() {
        let what =
            format!("the manager of this machine belongs to a group with {}", others.join(", "));
        return Err(Failure::failed(
            what,
            "dkv connect and dkv store create, as the group's stores are made",
        ));
    }
    let known = group.clients()[0].find_store(LOCAL).map_err(|error| admin_failure(&error))?;
    let created = create(args, &group, known.as_ref())?;
    if let Err(failure) = start(&group, known.as_ref(), timeout) {
        take_back(&group, known.as_ref(), created);
        return Err(failure);
    }
    let store = group.clients()[0].store(LOCAL).map_err(|error| admin_failure(&error))?;
    let endpoint =
        |node: &NodeView| format!("{}:{}", manager.address.ip(), node.record.client_port);
    let context = Context {
        managers: group.managers(),
        token_file: Some(token_file),
        store: Some(LOCAL.into()),
        endpoints: store.nodes.iter().map(endpoint).collect(),
    };
    let remembered = Contexts::update(|contexts| {
        contexts.contexts.insert(LOCAL.into(), context);
        contexts.current = Some(LOCAL.into());
        // What `kv` means from here on is this store.
        contexts.connection = None;
    });
    if let Err(failure) = remembered {
        // The store runs and serves all the same, which is what was asked for.
        let (what, manager) = (failure.what, manager.address);
        output::warn(&format!("the context {LOCAL} is not remembered ({what}); give -m {manager}"));
    }
    Ok(store)
}

/// Undoes what a failed run did. Best effort: the failure that is reported is the one that came first.
fn take_back(group: &Group, known: Option<&StoreView>, created: bool) {
    if created {
        let _ = coordinate::delete(group, LOCAL, true);
        return;
    }
    let at_rest = |node: &&NodeView| node.state != Some(NodeState::Running);
    for node in known.iter().flat_map(|store| &store.nodes).filter(at_rest) {
        let _ = coordinate::stop(group, LOCAL, Some(&node.record.name), true);
    }
}

/// Creates the store unless it is there; whether it was created.
fn create(args: &Args, group: &Group, known: Option<&StoreView>) -> Result<bool, Failure> {
    if let Some(known) = known {
        let differences = differences(args, &known.record);
        if differences.is_empty() {
            return Ok(false);
        }
        let what = format!("the store {LOCAL} is there {}", differences.join(" and "));
        let hint =
            "dkv up without these flags, or dkv down --purge first (what the store holds is lost)";
        return Err(Failure::failed(what, hint));
    }
    let definition = StoreDefinition {
        name: LOCAL.into(),
        instance_prefix: "node".into(),
        instance_count: args.nodes.unwrap_or(NODES),
        clustron_port: Some(args.clustron_port.unwrap_or(CLUSTER_PORT)),
        client_port: Some(args.client_port.unwrap_or(CLIENT_PORT)),
        cpus: None,
        memory_bytes_max: args.max_memory.unwrap_or(0),
        eviction: args.eviction.unwrap_or_default(),
        io: args.io.unwrap_or_default(),
        replication: Some(Replication {
            replicas: args.replicas.unwrap_or(u8::from(args.nodes.unwrap_or(NODES) > 1)),
            on_total_loss: OnTotalLoss::Offline,
            ..Replication::NONE
        })
        .filter(|replication| replication.replicas > 0),
        password_sha256: None,
        protected_mode: true,
    };
    let report = coordinate::create(group, &definition, false);
    for warning in &report.warnings {
        output::warn(warning);
    }
    match check(&report) {
        // The manager's hint speaks of `store create`, which finds ports by itself when none are named.
        Err(failure) if failure.code == "port_in_use" => {
            let hint = "end what holds it, or take other ports: dkv up --clustron-port PORT --client-port PORT";
            Err(Failure { hint: hint.into(), ..failure })
        }
        result => result.map(|()| true),
    }
}

/// What the flags ask for and the store has otherwise.
fn differences(args: &Args, record: &StoreRecord) -> Vec<String> {
    let definition = &record.definition;
    let mut differences = Vec::new();
    let have = record.nodes.len();
    if let Some(wanted) = args.nodes.filter(|wanted| *wanted as usize != have) {
        differences.push(format!("with {have} nodes, not {wanted}"));
    }
    let have = definition.replication.map_or(0, |replication| replication.replicas);
    if let Some(wanted) = args.replicas.filter(|wanted| *wanted != have) {
        differences.push(format!("with {have} copies besides the primary, not {wanted}"));
    }
    let ports = [
        ("cluster", args.clustron_port, definition.clustron_port),
        ("client", args.client_port, definition.client_port),
    ];
    for (kind, wanted, have) in ports {
        let (Some(wanted), Some(have)) = (wanted, have) else { continue };
        if wanted != have {
            differences.push(format!("with {kind} ports from {have}, not {wanted}"));
        }
    }
    let memory = definition.memory_bytes_max;
    if let Some(wanted) = args.max_memory.filter(|wanted| *wanted != memory) {
        let have = if memory == 0 { "without a memory limit".into() } else { bytes_text(memory) };
        differences.push(format!("with {have}, not {}", bytes_text(wanted)));
    }
    let eviction = definition.eviction;
    if let Some(wanted) = args.eviction.filter(|wanted| *wanted != eviction) {
        differences.push(format!("with {eviction}, not {wanted}"));
    }
    let io = definition.io;
    if let Some(wanted) = args.io.filter(|wanted| *wanted != io) {
        differences.push(format!("with --io {io}, not {wanted}"));
    }
    differences
}

/// Starts the nodes that do not run, and waits until they serve together.
fn start(group: &Group, known: Option<&StoreView>, timeout: Duration) -> Result<(), Failure> {
    let runs = known
        .is_some_and(|store| store.nodes.iter().all(|node| node.state == Some(NodeState::Running)));
    if !runs {
        check(&coordinate::start(group, LOCAL, None))?;
    }
    wait_until_whole(group, LOCAL, timeout)
}

/// A report that is not a success is the end of the way.
pub(super) fn check(report: &Report) -> Result<(), Failure> {
    let outcome = report.outcome();
    let failed = report.rows.iter().find(|row| !row.code.is_empty());
    let Some(row) = failed.filter(|_| outcome != Outcome::Done) else { return Ok(()) };
    Err(Failure {
        code: row.code.clone(),
        ..Failure::failed(row.message.clone(), row.hint.clone())
    })
}

/// Says why nodes that may take io_uring run on epoll, and what to do.
fn warn_of_epoll(store: &StoreView) {
    if store.record.definition.io != IoChoice::Auto {
        return;
    }
    // Nodes of one machine have the same reason.
    let reason = store.nodes.iter().find_map(|node| {
        let io = node.io.as_deref().filter(|io| short_name(io) == Some("epoll"))?;
        io.split_once("; no io_uring: ").map(|(_, reason)| reason)
    });
    if let Some(reason) = reason {
        output::warn(&format!(
            "the nodes run on epoll, where a command costs more CPU; for io_uring: {reason}"
        ));
    }
}

fn show(format: Format, manager: &Manager, store: &StoreView, token: &Path) {
    let endpoint = |port: u16| format!("{}:{port}", manager.address.ip());
    if format == Format::Json {
        let nodes = store.nodes.iter().map(|node| {
            json!({
                "name": node.record.name,
                "client": endpoint(node.record.client_port),
                "cluster": endpoint(node.record.cluster_port),
                "pid": node.pid,
            })
        });
        output::json(&json!({
            "store": LOCAL,
            "status": store.status,
            "manager": {"address": manager.address.to_string(), "pid": manager.pid},
            "console": format!("http://{}/", manager.address),
            "nodes": nodes.collect::<Vec<_>>(),
        }));
        return;
    }
    let rows: Vec<_> = store
        .nodes
        .iter()
        .map(|node| {
            let record = &node.record;
            vec![
                json!(record.name),
                json!(endpoint(record.client_port)),
                json!(endpoint(record.cluster_port)),
                json!(node.pid),
            ]
        })
        .collect();
    output::line(&format!(
        "The store `{LOCAL}` runs; any node serves any key. Manager: {} (pid {})\n",
        manager.address, manager.pid
    ));
    output::rows(Format::Table, &["Node", "Client", "Cluster", "Pid"], &rows);
    output::line(&format!(
        "\nWeb console: http://{}/  (log in with: cat {})",
        manager.address,
        token.display()
    ));
    let port = |at: usize| store.record.nodes.get(at).map_or(CLIENT_PORT, |node| node.client_port);
    let last = store.record.nodes.len().saturating_sub(1);
    let host = manager.address.ip();
    let host = if host.is_loopback() { String::new() } else { format!("-h {host} ") };
    output::line(&format!(
        "\nNext:
  dkv kv set greeting hello
  dkv kv get greeting
  redis-cli {host}-p {} set a 1
  redis-cli {host}-p {} get a
  dkv store show {LOCAL}
  dkv down",
        port(0),
        port(last)
    ));
}
