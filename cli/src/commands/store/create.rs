//! `store create` and `store add-instance`: from flags to a definition, and what to say about it.

use super::Shared;
use crate::amounts;
use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::interrupt;
use crate::output;
use crate::reach::show;
use dkv_agent::auth::password_sha256;
use dkv_agent::client::parse_address;
use dkv_agent::coordinate::{self, ActionResult, Group, NewInstance, Outcome, Report};
use dkv_protocol::admin::StoreDefinition;
use dkv_protocol::eviction::Eviction;
use dkv_protocol::io::IoChoice;
use dkv_protocol::ranges::{Ack, OnTotalLoss, ReadMode, Replication};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest password, in bytes; more is some other file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The flags of `store create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv store create TestStore --instance-prefix node --instance-count 2 --clustron-port 7811 --client-port 7861
  dkv store create Orders --instance-count 2 --max-memory 4GiB --password-file orders.password
  dkv store create Ledger --instance-count 3 --replicas 2 --min-insync 2
  dkv store create Cache --max-memory 4GiB --eviction allkeys-lru
  dkv store create Orders --instance-count 2 --no-protected-mode --dry-run
  dkv New-DkvStore -Name TestStore -InstancePrefix node -InstanceCount 2 -ClustronPort 7811 -ClientPort 7861

The same command again changes nothing; with one more machine connected it extends the stopped store there.")]
pub(crate) struct Args {
    /// Name of the store: a letter, then letters, digits, _ or -
    name: String,
    /// Prefix of the nodes' names: node gives node1, node2, …
    #[arg(long, env = "DKV_INSTANCE_PREFIX", default_value = "node", value_name = "PREFIX")]
    instance_prefix: String,
    /// Nodes on each machine
    #[arg(long, env = "DKV_INSTANCE_COUNT", default_value_t = 1, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..))]
    instance_count: u32,
    /// First cluster port on each machine [default: the next free one from 7811]
    #[arg(long, alias = "cluster-port", env = "DKV_CLUSTRON_PORT", value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    clustron_port: Option<u16>,
    /// First client port on each machine [default: the next free one from 7861]
    #[arg(long, env = "DKV_CLIENT_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    client_port: Option<u16>,
    /// CPUs of each node [default: those of the machine, shared out]
    #[arg(long, env = "DKV_CPUS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Most memory for the data of each node, as 512MiB or 4GiB [default: no limit]
    #[arg(long, env = "DKV_MAX_MEMORY", value_name = "SIZE", value_parser = amounts::bytes)]
    max_memory: Option<u64>,
    /// What happens when that is reached: noeviction refuses writes (-OOM); allkeys-lru, allkeys-lfu, allkeys-random,
    /// volatile-lru, volatile-lfu, volatile-random and volatile-ttl (volatile: keys with an expiry) let keys go for them
    #[arg(long, env = "DKV_EVICTION", value_name = "POLICY", default_value_t)]
    eviction: Eviction,
    /// Copies of each range besides the primary, on other machines where there are others; fewer than there are nodes
    /// [default: 1 of two nodes or more, or as many as the store has]
    #[arg(long, env = "DKV_REPLICAS", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(0..=6))]
    replicas: Option<u8>,
    /// When a write is answered: all: when every copy in sync holds it; async: when the primary has it, so that a failover
    /// may lose the last moments [default: all]
    #[arg(long, env = "DKV_ACK", value_name = "all|async")]
    ack: Option<Ack>,
    /// Copies in sync, the primary included, without which writes are refused (-NOREPLICAS) [default: 1]
    #[arg(long, env = "DKV_MIN_INSYNC", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    min_insync: Option<u8>,
    /// How a primary reads: lease: at once, under a lease of the copies; confirm: after asking them, which needs no
    /// clocks that run alike [default: lease]
    #[arg(long, env = "DKV_READ", value_name = "lease|confirm")]
    read: Option<ReadMode>,
    /// What becomes of a range whose copies are all lost: offline: it says so and waits for a human; reinit: it starts
    /// empty [default: offline; without copies: reinit]
    #[arg(long, env = "DKV_ON_TOTAL_LOSS", value_name = "offline|reinit")]
    on_total_loss: Option<OnTotalLoss>,
    /// What survives when all copies stop: none is all there is in this version
    #[arg(long, env = "DKV_DURABILITY", value_name = "none", value_parser = durability, default_value = "none")]
    durability: String,
    /// How nodes talk to the kernel: auto: io_uring where it gives a ring, else epoll, which costs more CPU, and a line in
    /// the node's log that says why; uring: no node starts without a ring; epoll
    #[arg(long, env = "DKV_IO", value_name = "auto|uring|epoll", default_value_t)]
    io: IoChoice,
    /// File with the password that clients must give
    #[arg(
        long,
        env = "DKV_PASSWORD_FILE",
        value_name = "FILE",
        conflicts_with = "no_protected_mode"
    )]
    password_file: Option<PathBuf>,
    /// Let clients of other hosts in without a password
    #[arg(long, env = "DKV_NO_PROTECTED_MODE", value_parser = clap::builder::FalseyValueParser::new())]
    no_protected_mode: bool,
    /// Check everything, show what would be, change nothing
    #[arg(long, env = "DKV_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    dry_run: bool,
    #[command(flatten)]
    shared: Shared,
}

/// The flags of `store add-instance`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Name of the store
    name: String,
    /// Name of the node [default: the prefix and the next number]
    #[arg(long, env = "DKV_INSTANCE", value_name = "NODE")]
    instance: Option<String>,
    /// Manager of the machine it shall live on [default: the machine with the fewest nodes of the store]
    #[arg(long, env = "DKV_MACHINE", value_name = "HOST:PORT")]
    machine: Option<String>,
    /// Its cluster port [default: the next free one]
    #[arg(long, alias = "cluster-port", env = "DKV_CLUSTRON_PORT", value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    clustron_port: Option<u16>,
    /// Its client port [default: the next free one]
    #[arg(long, env = "DKV_CLIENT_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    client_port: Option<u16>,
    #[command(flatten)]
    shared: Shared,
}

/// Runs `store create`.
pub(super) fn create(args: &Args, spelling: Spelling) -> Result<u8, Failure> {
    let mut definition = args.definition()?;
    let reached = args.shared.group(spelling)?;
    if args.replicas.is_none() {
        definition.replication = args.usual_replication(&reached.group);
    }
    if !args.dry_run {
        interrupt::goes_on(
            "managers already asked keep what they agreed to; the same command again completes it",
        );
    }
    let mut report = coordinate::create(&reached.group, &definition, args.dry_run);
    let warning = protected_mode_warning(&reached.group, &definition);
    report
        .warnings
        .extend(warning.filter(|_| report.outcome() == Outcome::Done && is_new(&report)));
    let code = show(args.shared.output.output, &report)?;
    if code == 0 && !is_new(&report) {
        output::note(&format!(
            "{} already exists with this definition; nothing was changed",
            args.name
        ));
    } else if code == 0 && !args.dry_run {
        let next = match spelling {
            Spelling::Native => format!("dkv store start {}", args.name),
            Spelling::Clustron => format!("dkv Start-DkvStore -Name {}", args.name),
        };
        output::note(&format!("next: {next}"));
    } else if report.outcome() == Outcome::Partly && !args.dry_run && committed(&report) {
        output::note(
            "some managers have it and some have not: the same command again completes it",
        );
    }
    Ok(code)
}

/// Whether the report speaks of a change, and not of a store that was there.
fn is_new(report: &Report) -> bool {
    report.rows.iter().any(|row| row.message != "Already exists")
}

fn committed(report: &Report) -> bool {
    report.rows.iter().any(|row| row.result == ActionResult::Success)
}

/// What the operator of a store without a password should know, when there are other hosts at all.
fn protected_mode_warning(group: &Group, definition: &StoreDefinition) -> Option<String> {
    let open = definition.password_sha256.is_some() || !definition.protected_mode;
    let alone = group.clients().iter().all(|client| client.address().ip().is_loopback());
    (!open && !alone).then(|| {
        "the store is in protected mode: clients of other hosts are refused; settle it with --password-file FILE or \
         --no-protected-mode"
            .to_owned()
    })
}

/// There is one; the others are named so that nobody takes an unknown word for a typing error.
fn durability(text: &str) -> Result<String, String> {
    match text {
        "none" => Ok(text.to_owned()),
        "async" | "sync" => Err(format!(
            "nothing is written to disk in this version, so {text} cannot be promised; copies (--replicas) survive the loss \
             of a machine"
        )),
        _ => Err("there is: none".to_owned()),
    }
}

impl Args {
    /// So many copies, in the way that the other flags say.
    fn with_replicas(&self, replicas: u8) -> Replication {
        Replication {
            replicas,
            ack: self.ack.unwrap_or_default(),
            min_insync: self.min_insync.unwrap_or(1),
            read: self.read.unwrap_or_default(),
            on_total_loss: self.on_total_loss.unwrap_or(OnTotalLoss::Offline),
        }
    }

    /// The first flag that makes sense only where there are copies.
    fn flag_of_copies(&self) -> Option<&'static str> {
        let flags = [
            ("--ack", self.ack.is_some()),
            ("--min-insync", self.min_insync.is_some_and(|least| least > 1)),
            ("--read", self.read.is_some()),
            ("--on-total-loss", self.on_total_loss == Some(OnTotalLoss::Offline)),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// How the store keeps copies, as far as `--replicas` was given; none for one copy, where there is nothing to choose.
    fn replication(&self) -> Result<Option<Replication>, Failure> {
        match self.replicas {
            Some(0) => match self.flag_of_copies() {
                None => Ok(None),
                Some(flag) => Err(Failure::usage(
                    format!("{flag} is about copies, and the store has none beside the primary"),
                    "give --replicas 1 or more, or leave it out",
                )),
            },
            Some(replicas) => Ok(Some(self.with_replicas(replicas))),
            None => Ok(None),
        }
    }

    /// The same where `--replicas` was not given: what the store has if it is there, a copy where a second node can hold
    /// it, and what the other flags ask for in any case.
    fn usual_replication(&self, group: &Group) -> Option<Replication> {
        let known = coordinate::list(group);
        let known = known.store(&self.name).map(|view| view.record.definition.replication);
        match known {
            Some(has) if self.flag_of_copies().is_none() => has,
            Some(Some(has)) => Some(self.with_replicas(has.replicas)),
            _ => {
                let nodes = self.instance_count as usize * group.managers().len();
                let copies = nodes > 1 || self.flag_of_copies().is_some();
                copies.then(|| self.with_replicas(1))
            }
        }
    }

    fn definition(&self) -> Result<StoreDefinition, Failure> {
        let password = self.password_file.as_deref().map(read_password).transpose()?;
        Ok(StoreDefinition {
            name: self.name.clone(),
            instance_prefix: self.instance_prefix.clone(),
            instance_count: self.instance_count,
            clustron_port: self.clustron_port,
            client_port: self.client_port,
            cpus: self.cpus,
            memory_bytes_max: self.max_memory.unwrap_or(0),
            eviction: self.eviction,
            io: self.io,
            replication: self.replication()?,
            password_sha256: password.as_deref().map(password_sha256),
            protected_mode: !self.no_protected_mode,
        })
    }
}

/// The first line of a password file.
pub(crate) fn read_password(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
    let mut bytes = Vec::new();
    file.take(PASSWORD_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::file(path, &error))?;
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let hint = "put the password on the first line of the file";
    if line.is_empty() {
        return Err(Failure::usage(format!("{} holds no password", path.display()), hint));
    }
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        let what = format!("{}: a password has {PASSWORD_BYTES_MAX} bytes at most", path.display());
        return Err(Failure::usage(what, hint));
    }
    Ok(line.to_vec())
}

/// Runs `store add-instance`.
pub(super) fn add_instance(args: &AddArgs, spelling: Spelling) -> Result<u8, Failure> {
    let port = args.shared.reach.port;
    let machine = match &args.machine {
        None => None,
        Some(text) => match parse_address(text, Some(port)) {
            Ok(address) => Some(address.to_string()),
            Err(error) => {
                return Err(Failure::usage(error.to_string(), "--machine 10.0.0.12:7801"));
            }
        },
    };
    let reached = args.shared.group(spelling)?;
    let new = NewInstance {
        machine,
        name: args.instance.clone(),
        cluster_port: args.clustron_port,
        client_port: args.client_port,
    };
    interrupt::goes_on(
        "managers already asked keep what they agreed to; look with: dkv store show",
    );
    let report = coordinate::add_instance(&reached.group, &args.name, &new);
    let code = show(args.shared.output.output, &report)?;
    let started = report.rows.iter().any(|row| row.action.starts_with("StartInstance"));
    let added = report.record.as_ref().and_then(|record| record.nodes.last());
    match added {
        Some(_) if code == 0 && started => output::note(&format!(
            "its part of the ranges moves to it now; look with: dkv store show {}",
            args.name
        )),
        Some(node) if code == 0 => {
            output::note(&format!("next: dkv store start {} --instance {}", args.name, node.name));
        }
        _ => {}
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (text, expected) in
            [("s3cret word\n", "s3cret word"), ("a\r\nb", "a"), ("x", "x"), (" x \n", " x ")]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(read_password(&path).unwrap(), expected.as_bytes());
        }
        fs::write(&path, "\n").unwrap();
        assert!(read_password(&path).unwrap_err().what.contains("holds no password"));
        assert!(read_password(&dir.path().join("none")).is_err());
    }
}
