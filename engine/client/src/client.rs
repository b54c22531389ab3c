//! The client: which node to ask, what may be asked twice, and the typed calls.

use crate::connection::{Connection, write_request};
use crate::{ClientError, Options, Value};
use std::time::Duration;

/// Requests and their bytes that are sent before their replies are read. What is beyond waits: a client that only
/// sends and a node that only answers would stop each other.
const WINDOW_REQUESTS_MAX: usize = 256;
/// See [`WINDOW_REQUESTS_MAX`]; one request may exceed it.
const WINDOW_BYTES_SOFT_MAX: usize = 32 * 1024;

/// A connection to a store through one of its nodes, and through another one when that fails.
#[derive(Debug)]
pub struct Client {
    options: Options,
    addresses: Vec<(String, u16)>,
    /// The endpoint in use, or the next to try.
    current: usize,
    connection: Option<Connection>,
}

/// When a value that is set shall expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// As the value before it (KEEPTTL).
    Keep,
    /// After this time; it is counted in milliseconds.
    After(Duration),
    /// At this time, in Unix milliseconds.
    AtUnixMs(u64),
}

/// On what condition a value is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// On none.
    #[default]
    Always,
    /// Only when the key does not exist (NX).
    IfAbsent,
    /// Only when the key exists (XX).
    IfPresent,
}

/// Options of [`Client::set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// When the value expires.
    pub expiry: Expiry,
    /// When it is set at all.
    pub condition: Condition,
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// Grows with each write of the key.
    pub version: u64,
}

/// How long a key lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// There is no such key.
    Missing,
    /// It does not expire.
    Forever,
    /// This long, in milliseconds.
    Left(Duration),
}

impl Client {
    /// Connects to the first endpoint that can be reached and takes the password.
    ///
    /// # Errors
    /// Of the endpoint, or of each when none of several can be reached.
    pub fn connect(options: Options) -> Result<Self, ClientError> {
        let addresses = options.addresses()?;
        let mut client = Self { options, addresses, current: 0, connection: None };
        client.connection()?;
        Ok(client)
    }

    /// The endpoint in use, as `HOST:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoints[self.current]
    }

    /// Sends one command and takes its reply. A command that only reads is tried again on another node when the
    /// connection fails; any other is not.
    ///
    /// # Errors
    /// [`ClientError::Server`] for an error reply; [`ClientError::Uncertain`] when the outcome of a write is unknown.
    pub fn call(&mut self, args: &[&[u8]]) -> Result<Value, ClientError> {
        let reply = self.call_many(&[args])?.pop();
        match reply {
            Some(Value::Error(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if text.starts_with("UNCERTAIN") {
                    return Err(ClientError::Uncertain { command: name(args), why: text });
                }
                Err(ClientError::Server(text))
            }
            Some(value) => Ok(value),
            None => Err(unexpected(args, &Value::Null)),
        }
    }

    /// Sends several commands in a pipeline and takes their replies in order; error replies are among them. They are
    /// tried again on another node only when all of them only read.
    ///
    /// # Errors
    /// When the connection failed before all replies were there. [`ClientError::Uncertain`] then says that writes among
    /// the commands may have happened.
    pub fn call_many(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Value>, ClientError> {
        if commands.iter().any(|args| args.is_empty()) {
            return Err(ClientError::Server("ERR empty command".into()));
        }
        let write = commands.iter().find(|args| !is_read(args));
        let mut causes = Vec::new();
        loop {
            // A connection that ended while it was idle is replaced before anything is trusted to it.
            if self.connection.as_ref().is_some_and(Connection::is_stale) {
                self.connection = None;
            }
            let connection = self.connection()?;
            let (answered, failure) = match exchange(connection, commands) {
                Ok(replies) => return Ok(replies),
                Err(failure) => failure,
            };
            // What is left of that connection belongs to replies that nobody waits for.
            self.connection = None;
            self.current = (self.current + 1) % self.addresses.len();
            if let Some(args) = write {
                if failure.sent || answered > 0 {
                    let (command, why) = (name(args), failure.error.to_string());
                    return Err(ClientError::Uncertain { command, why });
                }
                return Err(failure.error);
            }
            if !failure.error.is_transport() {
                return Err(failure.error);
            }
            // The only node gets a second chance when it closed the connection (it was restarted), not when it is silent.
            let timed_out = matches!(failure.error, ClientError::TimedOut { .. });
            causes.push(failure.error);
            let tries = self.addresses.len().max(if timed_out { 1 } else { 2 });
            if causes.len() >= tries {
                return Err(one_or_all(causes));
            }
        }
    }

    /// The connection, made to the first endpoint that can be reached when there is none.
    fn connection(&mut self) -> Result<&mut Connection, ClientError> {
        if self.connection.is_none() {
            let mut causes = Vec::new();
            for _ in 0..self.addresses.len() {
                let (host, port) = &self.addresses[self.current];
                match Connection::open(host, *port, &self.options) {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        break;
                    }
                    // A wrong password is wrong on every node.
                    Err(error) if !error.is_transport() => return Err(error),
                    Err(error) => causes.push(error),
                }
                self.current = (self.current + 1) % self.addresses.len();
            }
            if self.connection.is_none() {
                return Err(one_or_all(causes));
            }
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    /// The value of a key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let args: &[&[u8]] = &[b"GET", key];
        bytes_or_null(args, self.call(args)?)
    }

    /// The value of a key with its version.
    pub fn get_versioned(&mut self, key: &[u8]) -> Result<Option<Versioned>, ClientError> {
        let args: &[&[u8]] = &[b"DKV.GETV", key];
        match self.call(args)? {
            Value::Null => Ok(None),
            Value::Array(items) => {
                let Ok([value, version]) = <[Value; 2]>::try_from(items) else {
                    return Err(unexpected_shape(args));
                };
                let version = version.as_integer().and_then(|n| u64::try_from(n).ok());
                match (value.into_bytes(), version) {
                    (Some(value), Some(version)) => Ok(Some(Versioned { value, version })),
                    _ => Err(unexpected_shape(args)),
                }
            }
            other => Err(unexpected(args, &other)),
        }
    }

    /// Sets a key; whether it was set, which is false only for a condition that does not hold.
    pub fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        options: &SetOptions,
    ) -> Result<bool, ClientError> {
        let number;
        let mut args: Vec<&[u8]> = vec![b"SET", key, value];
        match options.condition {
            Condition::Always => {}
            Condition::IfAbsent => args.push(b"NX"),
            Condition::IfPresent => args.push(b"XX"),
        }
        match options.expiry {
            Expiry::Never => {}
            Expiry::Keep => args.push(b"KEEPTTL"),
            Expiry::After(time) => {
                number = time.as_millis().to_string();
                args.extend([&b"PX"[..], number.as_bytes()]);
            }
            Expiry::AtUnixMs(ms) => {
                number = ms.to_string();
                args.extend([&b"PXAT"[..], number.as_bytes()]);
            }
        }
        match self.call(&args)? {
            Value::Simple(_) => Ok(true),
            Value::Null => Ok(false),
            other => Err(unexpected(&args, &other)),
        }
    }

    /// Removes keys; how many there were.
    pub fn del(&mut self, keys: &[&[u8]]) -> Result<u64, ClientError> {
        self.count(b"DEL", keys)
    }

    /// How many of the keys exist; one that is named twice counts twice.
    pub fn exists(&mut self, keys: &[&[u8]]) -> Result<u64, ClientError> {
        self.count(b"EXISTS", keys)
    }

    /// Adds to a counter; its new value.
    pub fn incr_by(&mut self, key: &[u8], by: i64) -> Result<i64, ClientError> {
        self.integer(&[b"INCRBY", key, by.to_string().as_bytes()])
    }

    /// Lets a key expire after `time`, which is counted in milliseconds; whether there is such a key.
    pub fn expire(&mut self, key: &[u8], time: Duration) -> Result<bool, ClientError> {
        let ms = time.as_millis().to_string();
        Ok(self.integer(&[b"PEXPIRE", key, ms.as_bytes()])? == 1)
    }

    /// Lets a key live on; whether there is such a key and it would have expired.
    pub fn persist(&mut self, key: &[u8]) -> Result<bool, ClientError> {
        Ok(self.integer(&[b"PERSIST", key])? == 1)
    }

    /// How long a key lives on.
    pub fn ttl(&mut self, key: &[u8]) -> Result<Ttl, ClientError> {
        let args: &[&[u8]] = &[b"PTTL", key];
        match self.integer(args)? {
            -2 => Ok(Ttl::Missing),
            -1 => Ok(Ttl::Forever),
            ms => match u64::try_from(ms) {
                Ok(ms) => Ok(Ttl::Left(Duration::from_millis(ms))),
                Err(_) => Err(unexpected(args, &Value::Integer(ms))),
            },
        }
    }

    /// The values of keys, in their order.
    pub fn mget(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(keys.iter().copied()).collect();
        match self.call(&args)? {
            Value::Array(items) if items.len() == keys.len() => {
                items.into_iter().map(|item| bytes_or_null(&args, item)).collect()
            }
            other => Err(unexpected(&args, &other)),
        }
    }

    /// Sets several keys. Each is set atomically, all of them together are not.
    pub fn mset(&mut self, entries: &[(&[u8], &[u8])]) -> Result<(), ClientError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut args: Vec<&[u8]> = vec![b"MSET"];
        args.extend(entries.iter().flat_map(|(key, value)| [key, value]));
        match self.call(&args)? {
            Value::Simple(_) => Ok(()),
            other => Err(unexpected(&args, &other)),
        }
    }

    /// The keys that match a glob-style pattern, or all. A key that is there all the while comes at least once, and may
    /// come twice when others are written meanwhile. `count` is how many keys a node looks at in each step; 0 leaves it
    /// to the node.
    pub fn scan<'a>(&'a mut self, pattern: Option<&[u8]>, count: u32) -> Scan<'a> {
        Scan {
            client: self,
            cursor: Some(b"0".to_vec()),
            pattern: pattern.map(<[u8]>::to_vec),
            count,
            keys: Vec::new().into_iter(),
        }
    }

    /// Number of keys of the store.
    pub fn dbsize(&mut self) -> Result<u64, ClientError> {
        self.count(b"DBSIZE", &[])
    }

    /// Removes every key of the store.
    pub fn flush_all(&mut self) -> Result<(), ClientError> {
        let args: &[&[u8]] = &[b"FLUSHALL"];
        match self.call(args)? {
            Value::Simple(_) => Ok(()),
            other => Err(unexpected(args, &other)),
        }
    }

    /// Whether the node answers.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.call(&[b"PING"]).map(drop)
    }

    /// The node's account of itself, of one section or of the usual ones.
    pub fn info(&mut self, section: Option<&str>) -> Result<String, ClientError> {
        let mut args: Vec<&[u8]> = vec![b"INFO"];
        args.extend(section.map(str::as_bytes));
        let text = bytes_or_null(&args, self.call(&args)?)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn count(&mut self, command: &[u8], keys: &[&[u8]]) -> Result<u64, ClientError> {
        let args: Vec<&[u8]> = [command].into_iter().chain(keys.iter().copied()).collect();
        let n = self.integer(&args)?;
        u64::try_from(n).map_err(|_| unexpected(&args, &Value::Integer(n)))
    }

    fn integer(&mut self, args: &[&[u8]]) -> Result<i64, ClientError> {
        let reply = self.call(args)?;
        reply.as_integer().ok_or_else(|| unexpected(args, &reply))
    }
}

/// The keys of a store. See [`Client::scan`].
#[derive(Debug)]
pub struct Scan<'a> {
    client: &'a mut Client,
    /// Where the next step starts; none after the last.
    cursor: Option<Vec<u8>>,
    pattern: Option<Vec<u8>>,
    count: u32,
    keys: std::vec::IntoIter<Value>,
}

impl Scan<'_> {
    fn step(&mut self, cursor: &[u8]) -> Result<(), ClientError> {
        let count = self.count.to_string();
        let mut args: Vec<&[u8]> = vec![b"SCAN", cursor];
        if let Some(pattern) = &self.pattern {
            args.extend([&b"MATCH"[..], pattern]);
        }
        if self.count > 0 {
            args.extend([&b"COUNT"[..], count.as_bytes()]);
        }
        let reply = self.client.call(&args)?;
        let Some(Ok([cursor, keys])) = reply.into_elements().map(<[Value; 2]>::try_from) else {
            return Err(unexpected_shape(&args));
        };
        let (Some(cursor), Some(keys)) = (cursor.into_bytes(), keys.into_elements()) else {
            return Err(unexpected_shape(&args));
        };
        self.cursor = (cursor != b"0").then_some(cursor);
        self.keys = keys.into_iter();
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Vec<u8>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.keys.next() {
                return Some(key.into_bytes().ok_or_else(|| unexpected_shape(&[b"SCAN"])));
            }
            let cursor = self.cursor.take()?;
            if let Err(error) = self.step(&cursor) {
                return Some(Err(error));
            }
        }
    }
}

/// Sends the commands window by window. When it fails, also how many replies there were.
fn exchange(
    connection: &mut Connection,
    commands: &[&[&[u8]]],
) -> Result<Vec<Value>, (usize, crate::connection::Failure)> {
    let mut replies = Vec::with_capacity(commands.len().min(WINDOW_REQUESTS_MAX));
    let mut out = Vec::new();
    let mut window = 0;
    for (i, args) in commands.iter().enumerate() {
        write_request(&mut out, args);
        window += 1;
        let last = i + 1 == commands.len();
        if last || window == WINDOW_REQUESTS_MAX || out.len() >= WINDOW_BYTES_SOFT_MAX {
            match connection.exchange(&out, window) {
                Ok(values) => replies.extend(values),
                Err(failure) => return Err((replies.len(), failure)),
            }
            out.clear();
            window = 0;
        }
    }
    Ok(replies)
}

/// Whether a command only reads, so that it may be sent again. What is not known counts as a write.
fn is_read(args: &[&[u8]]) -> bool {
    const READS: [&str; 32] = [
        "GET",
        "MGET",
        "EXISTS",
        "TTL",
        "PTTL",
        "EXPIRETIME",
        "PEXPIRETIME",
        "STRLEN",
        "GETRANGE",
        "SUBSTR",
        "TYPE",
        "SCAN",
        "KEYS",
        "RANDOMKEY",
        "DBSIZE",
        "INFO",
        "PING",
        "ECHO",
        "TIME",
        "COMMAND",
        "TOUCH",
        "DKV.GETV",
        "DKV.CHECKSUM",
        "CLUSTER",
        "LASTSAVE",
        "ROLE",
        "OBJECT",
        "MEMORY",
        "LCS",
        "GETBIT",
        "BITCOUNT",
        "BITPOS",
    ];
    let Some(name) = args.first() else { return true };
    if name.eq_ignore_ascii_case(b"CONFIG") {
        return args.get(1).is_some_and(|sub| sub.eq_ignore_ascii_case(b"GET"));
    }
    READS.iter().any(|read| name.eq_ignore_ascii_case(read.as_bytes()))
}

fn bytes_or_null(args: &[&[u8]], reply: Value) -> Result<Option<Vec<u8>>, ClientError> {
    match reply {
        Value::Null => Ok(None),
        Value::Error(text) => Err(ClientError::Server(String::from_utf8_lossy(&text).into_owned())),
        Value::Simple(text)
        | Value::Bulk(text)
        | Value::Verbatim(_, text)
        | Value::BigNumber(text) => Ok(Some(text)),
        other => Err(unexpected(args, &other)),
    }
}

fn one_or_all(mut causes: Vec<ClientError>) -> ClientError {
    match causes.pop() {
        Some(only) if causes.is_empty() => only,
        Some(last) => {
            causes.push(last);
            ClientError::Unreachable { causes }
        }
        None => ClientError::Unreachable { causes },
    }
}

fn name(args: &[&[u8]]) -> String {
    args.first().map(|n| String::from_utf8_lossy(n).to_ascii_uppercase()).unwrap_or_default()
}

fn unexpected_shape(args: &[&[u8]]) -> ClientError {
    let reply = "its elements are not what they should be".into();
    ClientError::UnexpectedReply { command: name(args), reply }
}

fn unexpected(args: &[&[u8]], reply: &Value) -> ClientError {
    // Enough to see what it is: a reply may be hundreds of megabytes.
    let reply = match reply {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Map(entries) => format!("a map of {}", entries.len()),
        Value::Set(items) | Value::Push(items) => format!("{} elements", items.len()),
        other => match other.as_bytes() {
            Some(text) => format!("{:?}", String::from_utf8_lossy(&text[..text.len().min(64)])),
            None => format!("{other:?}"),
        },
    };
    ClientError::UnexpectedReply { command: name(args), reply }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
