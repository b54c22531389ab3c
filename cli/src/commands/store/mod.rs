//! `dkv store`: stores and their nodes, through the managers.

mod create;
mod each_node;
mod hotkeys;
mod run;
mod show;
mod slowlog;
mod user;
mod verify;

use crate::clustron::Spelling;
use crate::contexts::Login;
use crate::failure::Failure;
use crate::output::OutputArgs;
use crate::reach::{FanoutArgs, ReachArgs, Reached, show as show_report};
use dkv_agent::coordinate;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use create::read_password;
pub(crate) use run::wait_until_whole;
pub(crate) use show::find;

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shared {
    /// See [`ReachArgs`].
    #[command(flatten)]
    reach: ReachArgs,
    /// See [`FanoutArgs`].
    #[command(flatten)]
    fanout: FanoutArgs,
    /// See [`OutputArgs`].
    #[command(flatten)]
    output: OutputArgs,
}

/// How long to wait for copies to move.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Patience {
    /// Most seconds to wait for copies to move, for each node; they go on moving afterwards
    #[arg(long, env = "DKV_WAIT_SEC", default_value_t = 600, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_sec: u64,
}

impl Patience {
    fn most(self) -> Duration {
        Duration::from_secs(self.wait_sec)
    }
}

impl Shared {
    fn group(&self, spelling: Spelling) -> Result<Reached, Failure> {
        self.reach.group(Some(self.fanout), spelling)
    }
}

/// The subcommands of `dkv store`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Defines a store on all connected machines; it is not started yet
    Create(create::Args),
    /// Starts the nodes of a store, or one of them
    #[command(after_help = "\
Examples:
  dkv store start TestStore
  dkv store start TestStore --instance node1")]
    Start {
        /// Name of the store
        name: String,
        /// One node alone, as node1
        #[arg(long, env = "DKV_INSTANCE", value_name = "NODE")]
        instance: Option<String>,
        #[command(flatten)]
        shared: Shared,
    },
    /// Stops the nodes of a store, or one of them; what they hold in memory is gone
    #[command(after_help = "\
Examples:
  dkv store stop TestStore
  dkv store stop TestStore --instance node2 --force")]
    Stop {
        /// Name of the store
        name: String,
        /// One node alone, as node1
        #[arg(long, env = "DKV_INSTANCE", value_name = "NODE")]
        instance: Option<String>,
        /// Do not wait long for clients; kill what does not end
        #[arg(long, env = "DKV_STOP_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
        force: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// All stores, or one, as each manager knows them
    #[command(after_help = "\
Examples:
  dkv store list
  dkv store list TestStore --detailed
  dkv Get-DkvStore -Name TestStore -Detailed")]
    List {
        /// Name of one store
        name: Option<String>,
        /// With every node and its ports
        #[arg(long, env = "DKV_DETAILED", value_parser = clap::builder::FalseyValueParser::new())]
        detailed: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// One store: its definition, its nodes, their ports and states
    #[command(after_help = "\
Examples:
  dkv store show TestStore
  dkv store show TestStore -o json")]
    Show {
        /// Name of the store
        name: String,
        #[command(flatten)]
        shared: Shared,
    },
    /// Says whether all copies of a store agree: 0 when they do, 1 when some differ, 4 when some could not be compared
    #[command(after_help = "\
Examples:
  dkv store verify TestStore
  dkv store verify TestStore --timeout-sec 120 -o json

Ranges that are written to all the time are asked for until the seconds are over, and are called busy then.")]
    Verify {
        /// Name of the store
        name: String,
        /// User of the store to be; it has to be allowed DKV.CHECKSUM [default: that of the connection, else the default user]
        #[arg(long, env = "DKV_USER", value_name = "NAME")]
        user: Option<String>,
        /// File with the password of the store, or of the user
        #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
    /// The keys that are used most, counted on all nodes for some seconds
    Hotkeys(hotkeys::Args),
    /// The commands that took long on any node, with what they waited for, before and after
    Slowlog(slowlog::Args),
    /// Shows and changes the users of a store, the same on all its nodes
    #[command(subcommand, after_help = "Example:\n  dkv store user list TestStore")]
    User(user::Command),
    /// Forgets a stopped store on all its machines
    #[command(after_help = "\
Examples:
  dkv store delete TestStore
  dkv store delete TestStore --force")]
    Delete {
        /// Name of the store
        name: String,
        /// Also when it runs, or when one of its machines is down
        #[arg(long, env = "DKV_DELETE_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
        force: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Restarts a store; with --rolling one node after the other, without losing anything or keeping anybody waiting
    #[command(after_help = "\
Examples:
  dkv store restart TestStore --rolling
  dkv store restart TestStore

Without --rolling the whole store is stopped and started: what it holds in memory is gone.")]
    Restart {
        /// Name of the store
        name: String,
        /// One node after the other, each when all ranges have their copies; needs --replicas 1 or more
        #[arg(long, env = "DKV_ROLLING", value_parser = clap::builder::FalseyValueParser::new())]
        rolling: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        shared: Shared,
    },
    /// Has other nodes lead what a node leads; with --force, goes on without machines that are gone
    #[command(after_help = "\
Examples:
  dkv store failover TestStore --instance node1
  dkv store failover TestStore --instance node1 --back
  dkv store failover TestStore --force --gone 10.0.0.11:7801 -m 10.0.0.12:7801

Clients do not notice a failover of a node, but for some milliseconds; it keeps its copies. A node whose process or machine
dies is taken over from without this command, where enough managers are left to decide: dkv manager status says so. --force
is for when they are not. It makes two stores of one if a machine that is said to be gone lives on.")]
    Failover {
        /// Name of the store
        name: String,
        /// The node, as node1
        #[arg(long, env = "DKV_INSTANCE", value_name = "NODE", required_unless_present = "force")]
        instance: Option<String>,
        /// It leads its part again
        #[arg(long, env = "DKV_BACK", value_parser = clap::builder::FalseyValueParser::new())]
        back: bool,
        /// Go on without the machines of --gone; asks for their addresses once more
        #[arg(long, env = "DKV_FAILOVER_FORCE", value_parser = clap::builder::FalseyValueParser::new(),
            requires = "gone", conflicts_with_all = ["instance", "back"])]
        force: bool,
        /// Machines that are gone for certain: their managers' addresses, with commas between them
        #[arg(
            long,
            env = "DKV_GONE",
            value_delimiter = ',',
            value_name = "HOST:PORT",
            requires = "force"
        )]
        gone: Vec<String>,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        shared: Shared,
    },
    /// Gives up what offline ranges held, whose last copies are gone; they start empty, the others stay as they are
    #[command(after_help = "\
Examples:
  dkv store accept-loss TestStore

Asks for the name of the store once more. Without it such ranges answer -CLUSTERDOWN until somebody decides; stopping and
starting the store gives up everything instead.")]
    AcceptLoss {
        /// Name of the store
        name: String,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        shared: Shared,
    },
    /// Removes one node from a running store with copies: its copies move to the others first
    #[command(after_help = "\
Examples:
  dkv store remove-instance TestStore --instance node3
  dkv store remove-instance TestStore --instance node3 --gone

--gone is for a machine that does not come back: it is not asked, and refused while its manager or the node answers. Its
copies are made anew on the others, as many as there are nodes for; then dkv manager remove, and for a machine in its place
dkv manager add and dkv store add-instance.")]
    RemoveInstance {
        /// Name of the store
        name: String,
        /// The node, as node3
        #[arg(long, env = "DKV_INSTANCE", value_name = "NODE")]
        instance: String,
        /// Its machine is gone for good
        #[arg(long, env = "DKV_INSTANCE_GONE", value_parser = clap::builder::FalseyValueParser::new())]
        gone: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        shared: Shared,
    },
    /// Adds one node: to a store with copies while it runs, to others when they are stopped
    #[command(after_help = "\
Examples:
  dkv store add-instance TestStore
  dkv store add-instance TestStore --machine 10.0.0.12:7801 --clustron-port 7813 --client-port 7863")]
    AddInstance(create::AddArgs),
}

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::Create(args) => create::create(args, spelling),
        Command::AddInstance(args) => create::add_instance(args, spelling),
        Command::Start { name, instance, shared } => {
            run::start(name, instance.as_deref(), shared, spelling)
        }
        Command::Stop { name, instance, force, shared } => {
            run::stop(name, instance.as_deref(), *force, shared, spelling)
        }
        Command::Restart { name, rolling: true, patience, shared } => {
            let what = format!("restarting the nodes of {name}");
            run::copies(shared, spelling, (&what, patience.most()), |group, patience| {
                coordinate::restart_rolling(group, name, patience)
            })
        }
        Command::Restart { name, rolling: false, shared, .. } => {
            match run::stop(name, None, false, shared, spelling)? {
                0 => run::start(name, None, shared, spelling),
                code => Ok(code),
            }
        }
        Command::Failover { name, instance: None, gone, shared, .. } => {
            run::force(name, gone, shared, spelling)
        }
        Command::Failover { name, instance: Some(instance), back, patience, shared, .. } => {
            let what = format!("moving the lead of {name}");
            run::copies(shared, spelling, (&what, patience.most()), |group, patience| {
                coordinate::failover(group, name, instance, *back, patience)
            })
        }
        Command::AcceptLoss { name, patience, shared } => {
            run::accept_loss(name, patience.most(), shared, spelling)
        }
        Command::RemoveInstance { name, instance, gone, patience, shared } => {
            let what = format!("moving the copies of {instance}");
            run::copies(shared, spelling, (&what, patience.most()), |group, patience| {
                coordinate::remove_instance(group, name, instance, *gone, patience)
            })
        }
        Command::List { name, detailed, shared } => {
            show::list(name.as_deref(), *detailed, shared, spelling)
        }
        Command::Verify { name, user, password_file, shared } => {
            let login = Login { user: user.clone(), password_file: password_file.clone() };
            verify::verify(name, login, shared, spelling)
        }
        Command::Hotkeys(args) => hotkeys::run(args, spelling),
        Command::Slowlog(args) => slowlog::run(args, spelling),
        Command::Show { name, shared } => show::show(name, shared, spelling),
        Command::User(command) => user::run(command, spelling),
        Command::Delete { name, force, shared } => {
            let reached = shared.group(spelling)?;
            show_report(shared.output.output, &coordinate::delete(&reached.group, name, *force))
        }
    }
}
