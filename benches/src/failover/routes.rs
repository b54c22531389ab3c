//! How a client of the load reaches the store: through any node, as a plain client, or at each key's owner, as a cluster client.

use crate::generator::{Dialer, Problem, Routes};
use dkv_client::{Client, ClientError, Options, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// The map of slots is asked for no more often, by all clients together.
const MAP_EVERY: Duration = Duration::from_millis(10);
/// Times that a request is sent on before that counts as an error.
const REDIRECTIONS_MAX: u32 = 16;

/// The map of slots that all cluster clients share.
#[derive(Debug)]
pub(super) struct Map {
    dialer: Dialer,
    /// Who is asked for it.
    nodes: Vec<String>,
    routes: RwLock<Arc<Routes>>,
    asked: Mutex<Instant>,
}

impl Map {
    /// Asks for it the first time.
    ///
    /// # Errors
    /// Nobody answers, or not with a map of all slots.
    pub(super) fn new(dialer: Dialer, nodes: Vec<String>) -> Result<Self, Problem> {
        let routes = RwLock::new(Arc::new(dialer.routes(&nodes)?));
        Ok(Self { dialer, nodes, routes, asked: Mutex::new(Instant::now()) })
    }

    pub(super) fn now(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks again, unless somebody does or just did. While a range is nobody's the last map stays.
    pub(super) fn renew(&self) {
        let Ok(mut asked) = self.asked.try_lock() else { return };
        if asked.elapsed() < MAP_EVERY {
            return;
        }
        if let Ok(found) = self.dialer.routes(&self.nodes) {
            *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
        *asked = Instant::now();
    }
}

/// The connections of one client.
#[derive(Debug)]
pub(super) enum Way {
    Plain(Options, Box<Option<Client>>),
    Cluster(Options, Arc<Map>, BTreeMap<String, Client>),
}

impl Way {
    /// One request, with how often it was sent on to another node. A cluster client follows MOVED and ASK, which say that
    /// nothing was done.
    pub(super) fn call(&mut self, slot: u16, args: &[&[u8]]) -> (Result<Value, ClientError>, u32) {
        match self {
            Way::Plain(options, client) => (plain(options, client, args), 0),
            Way::Cluster(options, map, clients) => {
                let mut redirected = 0;
                let result = cluster(options, map, clients, slot, args, &mut redirected);
                if result.is_err() || redirected > 0 {
                    map.renew();
                }
                (result, redirected)
            }
        }
    }
}

fn plain(
    options: &Options,
    client: &mut Option<Client>,
    args: &[&[u8]],
) -> Result<Value, ClientError> {
    if client.is_none() {
        *client = Some(Client::connect(options.clone())?);
    }
    match client.as_mut() {
        Some(client) => client.call(args),
        None => Err(ClientError::Unreachable { causes: Vec::new() }),
    }
}

fn cluster(
    options: &Options,
    map: &Map,
    clients: &mut BTreeMap<String, Client>,
    slot: u16,
    args: &[&[u8]],
    redirected: &mut u32,
) -> Result<Value, ClientError> {
    let routes = map.now();
    let mut endpoint = routes.endpoints[usize::from(routes.owner[usize::from(slot)])].clone();
    let mut asking = false;
    loop {
        let client = match clients.entry(endpoint.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let options = Options { endpoints: vec![endpoint.clone()], ..options.clone() };
                place.insert(Client::connect(options)?)
            }
        };
        let result = if asking { ask(client, args) } else { client.call(args) };
        let text = match result {
            Err(ClientError::Server(text)) => text,
            Err(error) => {
                clients.remove(&endpoint);
                return Err(error);
            }
            Ok(value) => return Ok(value),
        };
        let mut words = text.split(' ');
        let told = words.next().filter(|word| ["MOVED", "ASK"].contains(word));
        let (Some(word), Some(to)) = (told, words.nth(1)) else {
            return Err(ClientError::Server(text));
        };
        *redirected += 1;
        if *redirected > REDIRECTIONS_MAX {
            return Err(ClientError::Server(text));
        }
        asking = word == "ASK";
        // No host means the one that was asked.
        endpoint = match (to.strip_prefix(':'), endpoint.rsplit_once(':')) {
            (Some(port), Some((host, _))) => format!("{host}:{port}"),
            _ => to.to_owned(),
        };
    }
}

/// One request behind ASKING.
fn ask(client: &mut Client, args: &[&[u8]]) -> Result<Value, ClientError> {
    match client.call_many(&[&[b"ASKING"], args])?.pop() {
        Some(Value::Error(text)) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.starts_with("UNCERTAIN") {
                let command = String::from_utf8_lossy(args[0]).into_owned();
                return Err(ClientError::Uncertain { command, why: text });
            }
            Err(ClientError::Server(text))
        }
        Some(value) => Ok(value),
        None => Err(ClientError::Server("ERR no answer behind ASKING".into())),
    }
}
