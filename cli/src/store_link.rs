//! Which node to ask: `--endpoint`, else the store connection of `kv connect`, else the nodes that the managers name.
//! And how a client's failure ends a command.

use crate::clustron::Spelling;
use crate::contexts::{Connection, Contexts, Login};
use crate::failure::Failure;
use crate::interrupt;
use crate::reach::ReachArgs;
use crate::targets;
use dkv_agent::client::AdminError;
use dkv_agent::{coordinate, guard};
use dkv_client::{Client, ClientError, Options};
use dkv_protocol::admin::{NodeState, NodeView, StoreView};
use dkv_protocol::limits::CLIENT_PORT;
use std::path::PathBuf;
use std::time::Duration;

/// The options of every command that talks to a store.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LinkArgs {
    /// Nodes of the store, as HOST or HOST:PORT of their client ports, tried in turn [default: the managers are asked]
    #[arg(short, long, env = "DKV_ENDPOINT", value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) endpoint: Vec<String>,
    /// Name of the store [default: that of the connection, of the context, or the only one]
    #[arg(short, long, env = "DKV_STORE", value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// User of the store to be [default: that of the connection, else the default user, whose password is the store's]
    #[arg(long, env = "DKV_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// File with the password of the store, or of the user
    #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// See [`ReachArgs`].
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its name, as far as it is known.
    pub(crate) store: String,
    /// The client.
    pub(crate) client: Client,
}

impl LinkArgs {
    /// Finds the store and connects.
    pub(crate) fn open(&self, spelling: Spelling) -> Result<Link, Failure> {
        let mut options = self.locate(spelling)?;
        options.timeout = Duration::from_secs(self.reach.timeout_sec);
        open(options)
    }

    /// Finds the store without connecting to it: its nodes, its name and who to be.
    pub(crate) fn locate(&self, spelling: Spelling) -> Result<Options, Failure> {
        let mut options = Options { store: self.store.clone(), ..Options::default() };
        let mut login =
            Login { user: self.user.clone(), password_file: self.password_file.clone() };
        if self.endpoint.iter().any(|endpoint| !endpoint.trim().is_empty()) {
            options.endpoints = endpoints(&self.endpoint)?;
        } else if let Some(connection) = self.remembered()? {
            options.endpoints = connection.endpoints;
            options.store = Some(connection.store);
            login = login.or(connection.login);
        } else {
            let (store, endpoints) = self.ask_managers(spelling)?;
            options.endpoints = endpoints;
            options.store = Some(store);
        }
        options.password = login.password()?;
        options.user = login.user;
        Ok(options)
    }

    /// The connection of `kv connect`, unless the flags speak of something else.
    fn remembered(&self) -> Result<Option<Connection>, Failure> {
        let elsewhere = !self.reach.managers.is_empty() || self.reach.context.is_some();
        let connection = Contexts::load()?.connection;
        let fits = |connection: &Connection| {
            self.store.as_ref().is_none_or(|store| *store == connection.store)
        };
        Ok(connection.filter(|connection| !elsewhere && fits(connection)))
    }

    fn ask_managers(&self, spelling: Spelling) -> Result<(String, Vec<String>), Failure> {
        let reached = self.reach.group(None, spelling)?;
        let context = reached.context.unwrap_or_default();
        let listing = coordinate::list(&reached.group);
        let failed =
            |(_, answer): &'_ (String, Result<_, AdminError>)| answer.as_ref().err().cloned();
        let errors: Vec<AdminError> = listing.managers.iter().filter_map(failed).collect();
        if let (Some(error), true) = (errors.first(), errors.len() == listing.managers.len()) {
            // Nodes serve without their managers: where they were is where they are.
            let meant = |store: &String| self.store.as_ref().is_none_or(|named| named == store);
            return match context.store.filter(meant) {
                Some(store) if !context.endpoints.is_empty() => Ok((store, context.endpoints)),
                _ => Err(crate::reach::admin_failure(error)),
            };
        }
        let names: Vec<&str> =
            listing.stores.iter().map(|store| store.record.definition.name.as_str()).collect();
        let wanted =
            self.store.clone().or(context.store.filter(|store| names.contains(&store.as_str())));
        let name = match (wanted, names.as_slice()) {
            (Some(name), _) => name,
            (None, [only]) => (*only).to_owned(),
            (None, []) => {
                return Err(Failure::failed(
                    "there is no store yet",
                    "dkv store create NAME, or dkv up",
                ));
            }
            (None, several) => {
                let what = format!("there are several stores: {}", several.join(", "));
                return Err(Failure::usage(what, format!("name one: --store {}", several[0])));
            }
        };
        let Some(store) = listing.store(&name) else {
            let known = if names.is_empty() {
                "there is none yet".into()
            } else {
                format!("there are: {}", names.join(", "))
            };
            return Err(Failure::failed(
                format!("there is no store {name:?}; {known}"),
                "dkv store list",
            ));
        };
        let endpoints = endpoints_of(store, this_machine().as_deref());
        if endpoints.is_empty() {
            let what = format!("no node of the store {name} runs");
            return Err(Failure::not_connected(what, format!("dkv store start {name}")));
        }
        Ok((name, endpoints))
    }
}

/// Connects, and learns the store's name when none was given.
pub(crate) fn open(options: Options) -> Result<Link, Failure> {
    let named = options.store.clone();
    let mut client = Client::connect(options).map_err(|error| client_failure(&error))?;
    let store = match named {
        Some(store) => store,
        // A server that is no DKV has no such line; keys can be read and written all the same.
        None => client
            .info(Some("server"))
            .ok()
            .and_then(|info| {
                info.lines()
                    .find_map(|line| line.strip_prefix("dkv_store:").map(|s| s.trim().to_owned()))
            })
            .unwrap_or_default(),
    };
    interrupt::goes_on("a command that was sent to the store may still be done");
    Ok(Link { store, client })
}

/// `host:port` of client ports.
pub(crate) fn endpoints(names: &[String]) -> Result<Vec<String>, Failure> {
    let hint = format!("--endpoint 127.0.0.1:{CLIENT_PORT}");
    let found =
        targets::list(names, CLIENT_PORT).map_err(|why| Failure::usage(why, hint.clone()))?;
    if found.is_empty() { Err(Failure::usage("no endpoint is named", hint)) } else { Ok(found) }
}

/// Client ports of the nodes that may be reached: those of this machine first, which are nearest and let their own machine
/// in whatever the store's access is, and those that nobody could ask about last.
fn endpoints_of(store: &StoreView, here: Option<&str>) -> Vec<String> {
    let running = |node: &&NodeView| node.state == Some(NodeState::Running);
    let near = |node: &&NodeView| here == Some(node.record.machine.as_str());
    let mut nodes: Vec<&NodeView> =
        store.nodes.iter().filter(|node| running(node) || node.state.is_none()).collect();
    nodes.sort_by_key(|node| (!running(node), !near(node)));
    let endpoint = |node: &NodeView| {
        let machine = &node.record.machine;
        let host = machine.rsplit_once(':').map_or(machine.as_str(), |(host, _)| host);
        format!("{host}:{}", node.record.client_port)
    };
    nodes.into_iter().map(endpoint).collect()
}

/// The manager of this machine, whose address is the machine's name.
fn this_machine() -> Option<String> {
    guard::running()?.address.map(|address| address.to_string())
}

const LOGIN_HINT: &str = "--password-file FILE with the password on its first line, and --user NAME when it is that of a user";

/// How a client's failure ends a command.
pub(crate) fn client_failure(error: &ClientError) -> Failure {
    let what = error.to_string();
    let password = LOGIN_HINT;
    match error {
        ClientError::BadAddress { .. } => {
            Failure::usage(what, format!("--endpoint 127.0.0.1:{CLIENT_PORT}"))
        }
        ClientError::TimedOut { .. } => Failure::timed_out(what, "--timeout-sec 30 waits longer"),
        ClientError::Unreachable { causes }
            if causes.iter().all(|c| matches!(c, ClientError::TimedOut { .. })) =>
        {
            Failure::timed_out(what, "--timeout-sec 30 waits longer")
        }
        ClientError::Unresolved { .. }
        | ClientError::Refused { .. }
        | ClientError::Closed { .. }
        | ClientError::Io { .. }
        | ClientError::Unreachable { .. } => Failure::not_connected(what, "dkv store list"),
        ClientError::PasswordRequired { .. } | ClientError::WrongPassword { .. } => {
            Failure::failed(what, password)
        }
        ClientError::Uncertain { .. } => Failure::failed(what, "read the key and decide"),
        ClientError::NotAStore { .. } | ClientError::WrongStore { .. } => {
            Failure::failed(what, "dkv store list shows which ports belong to which store")
        }
        ClientError::Server(text) => server_failure(text),
        ClientError::UnexpectedReply { .. }
        | ClientError::Malformed { .. }
        | ClientError::ReplyTooLarge { .. } => Failure::failed(what, ""),
    }
}

/// An error reply, with what can be done about it.
pub(crate) fn server_failure(text: &str) -> Failure {
    let code = text.split(' ').next().unwrap_or_default();
    let hint = match code {
        "CLUSTERDOWN" => "a node is down; look with: dkv store list",
        "OOM" => "delete keys, or give the store more memory",
        "NOAUTH" | "WRONGPASS" => LOGIN_HINT,
        "NOPERM" => {
            "another user may, with --user NAME; what each one may: dkv store user list STORE"
        }
        "DENIED" => {
            "the store is in protected mode: ask from its own machine, or create it with a password"
        }
        "UNCERTAIN" => "read the key and decide",
        _ => "",
    };
    Failure { code: code.to_owned(), ..Failure::failed(text, hint) }
}
