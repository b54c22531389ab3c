//! Commands that ask every node of a store as a client, all at once.

use crate::contexts::{Contexts, Login};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::store_link::client_failure;
use dkv_client::{Client, ClientError, Options, Value};
use dkv_protocol::admin::{NodeState, NodeView, StoreView};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Who to be there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// User of the store to be [default: that of the connection, else the default user]
    #[arg(long, env = "DKV_USER", value_name = "NAME")]
    user: Option<String>,
    /// File with the password of the store, or of the user
    #[arg(long, env = "DKV_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// The nodes of a store that run, with a connection to each.
pub(super) struct Nodes {
    nodes: Vec<(String, Client)>,
    /// The first that could not be reached, or did not answer.
    failure: Option<ClientError>,
}

impl Nodes {
    /// Connects to all that run; says which cannot be reached.
    pub(super) fn connect(
        store: &StoreView,
        login: &LoginArgs,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let name = &store.record.definition.name;
        let mut login =
            Login { user: login.user.clone(), password_file: login.password_file.clone() };
        // The connection of `kv connect` knows the password of its own store.
        let remembered = Contexts::load()?.connection.filter(|known| known.store == *name);
        if let Some(connection) = remembered {
            login = login.or(connection.login);
        }
        let password = login.password()?;
        let runs = |node: &&NodeView| {
            matches!(node.state, Some(NodeState::Running) | None) && node.record.client_port != 0
        };
        let running: Vec<&NodeView> = store.nodes.iter().filter(runs).collect();
        if running.is_empty() {
            let what = format!("no node of the store {name} runs");
            return Err(Failure::not_connected(what, format!("dkv store start {name}")));
        }
        let connect = |node: &NodeView| {
            let machine = &node.record.machine;
            let host = machine.rsplit_once(':').map_or(machine.as_str(), |(host, _)| host);
            Client::connect(Options {
                endpoints: vec![format!("{host}:{}", node.record.client_port)],
                user: login.user.clone(),
                password: password.clone(),
                store: Some(name.clone()),
                timeout,
                ..Options::default()
            })
        };
        let mut all = Self { nodes: Vec::new(), failure: None };
        for (node, answer) in at_once(running.iter(), |node| connect(node)) {
            match answer {
                Ok(client) => all.nodes.push((node.record.name.clone(), client)),
                Err(error) => all.failed(&node.record.name, error),
            }
        }
        all.or_failure()
    }

    /// Sends the same command to all; those that do not answer it are asked no more.
    pub(super) fn call(&mut self, words: &[&str]) -> Result<Vec<(String, Value)>, Failure> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let nodes = std::mem::take(&mut self.nodes);
        let mut answers = Vec::new();
        for ((name, client), answer) in
            at_once(nodes.into_iter(), |(_, client)| client.call(&words))
        {
            match answer {
                Ok(value) => {
                    answers.push((name.clone(), value));
                    self.nodes.push((name, client));
                }
                Err(error) => self.failed(&name, error),
            }
        }
        if answers.is_empty() {
            return Err(self.first_failure());
        }
        Ok(answers)
    }

    /// 0 when all nodes were asked, else 4.
    pub(super) fn exit_code(&self) -> u8 {
        if self.failure.is_some() { Exit::Partly as u8 } else { 0 }
    }

    fn failed(&mut self, node: &str, error: ClientError) {
        output::warn(&format!("{node}: {error}"));
        self.failure.get_or_insert(error);
    }

    fn or_failure(self) -> Result<Self, Failure> {
        if self.nodes.is_empty() { Err(self.first_failure()) } else { Ok(self) }
    }

    fn first_failure(&self) -> Failure {
        match &self.failure {
            Some(error) => client_failure(error),
            None => Failure::failed("no node answered", "dkv store list --detailed"),
        }
    }
}

/// Does the same with all of them at once; gives each back with what came of it, in order.
fn at_once<I: Send, T: Send>(
    items: impl Iterator<Item = I>,
    work: impl Fn(&mut I) -> Result<T, ClientError> + Sync,
) -> Vec<(I, Result<T, ClientError>)> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .map(|mut item| {
                scope.spawn(move || {
                    let answer = work(&mut item);
                    (item, answer)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}
