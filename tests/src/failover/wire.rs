//! A connection that may fail at any moment and says how, and the two ways in which clients use a store: through any one
//! node, or straight to the owner of each slot.

use crate::bare::command;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest that a node may take to accept a connection before the next one is tried.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-ERR …`, without the minus.
    Error(String),
    /// `:5`.
    Number(i64),
    /// A bulk string, or none.
    Bulk(Option<Vec<u8>>),
    /// An array.
    Array(Vec<Reply>),
}

impl Reply {
    /// What a simple or bulk string says.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Bulk(bytes) => {
                String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
            }
            Self::Array(_) => String::new(),
        }
    }
}

/// Why a connection gave no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It could not be made, so nothing was sent.
    Refused,
    /// It ended, or what came was no reply.
    Closed,
    /// Nothing came in time.
    Silent,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    at: usize,
    patience: Duration,
}

impl Wire {
    /// Connects; replies may take `patience`.
    pub fn connect(address: SocketAddr, patience: Duration) -> Result<Self, Broken> {
        let stream =
            TcpStream::connect_timeout(&address, CONNECT_MAX).map_err(|_| Broken::Refused)?;
        stream.set_nodelay(true).map_err(|_| Broken::Refused)?;
        Ok(Self { stream, received: Vec::new(), at: 0, patience })
    }

    /// One command and its reply. After an error the connection is of no use.
    pub fn call(&mut self, args: &[&[u8]]) -> Result<Reply, Broken> {
        let mut replies = self.calls(&[args])?;
        replies.pop().ok_or(Broken::Closed)
    }

    /// The same, given as words.
    pub fn ask(&mut self, line: &str) -> Result<Reply, Broken> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.call(&args)
    }

    /// Several commands at once and their replies.
    pub fn calls(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Reply>, Broken> {
        let mut bytes = Vec::new();
        for args in commands {
            command(&mut bytes, args);
        }
        self.stream.write_all(&bytes).map_err(|_| Broken::Closed)?;
        let deadline = Instant::now() + self.patience;
        commands.iter().map(|_| self.reply(deadline)).collect()
    }

    fn reply(&mut self, deadline: Instant) -> Result<Reply, Broken> {
        let line = self.line(deadline)?;
        let (kind, rest) = line.split_at_checked(1).ok_or(Broken::Closed)?;
        let number = || rest.parse::<i64>().map_err(|_| Broken::Closed);
        Ok(match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => Reply::Bulk(Some(self.take(length, deadline)?)),
                Err(_) => Reply::Bulk(None),
            },
            "*" => {
                let count = number()?.max(0);
                Reply::Array((0..count).map(|_| self.reply(deadline)).collect::<Result<_, _>>()?)
            }
            _ => return Err(Broken::Closed),
        })
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.received[self.at..].iter().position(|byte| *byte == b'\n') {
                let line = &self.received[self.at..self.at + end.saturating_sub(1)];
                let line = String::from_utf8_lossy(line).into_owned();
                self.at += end + 1;
                return Ok(line);
            }
            self.more(deadline)?;
        }
    }

    fn take(&mut self, length: usize, deadline: Instant) -> Result<Vec<u8>, Broken> {
        while self.received.len() - self.at < length + 2 {
            self.more(deadline)?;
        }
        let bytes = self.received[self.at..self.at + length].to_vec();
        self.at += length + 2;
        Ok(bytes)
    }

    fn more(&mut self, deadline: Instant) -> Result<(), Broken> {
        self.received.drain(..self.at);
        self.at = 0;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Silent);
        }
        self.stream.set_read_timeout(Some(left)).map_err(|_| Broken::Closed)?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Broken::Closed),
            Ok(read) => {
                self.received.extend_from_slice(&bytes[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::Silent)
            }
            Err(_) => Err(Broken::Closed),
        }
    }
}

/// How a client finds the node that it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One node for everything, the next one when that is gone.
    Plain,
    /// The owner of each slot, as the nodes tell it.
    Cluster,
}

/// A client with its connections.
#[derive(Debug)]
pub struct Client {
    manner: Manner,
    /// The client ports of the nodes, from the one it prefers.
    entries: Vec<SocketAddr>,
    entry: usize,
    owners: Vec<(u16, u16, SocketAddr)>,
    wires: BTreeMap<SocketAddr, Wire>,
    patience: Duration,
}

impl Client {
    /// A client that begins with the given one of the nodes.
    pub fn new(manner: Manner, nodes: &[SocketAddr], first: usize, patience: Duration) -> Self {
        let mut entries = nodes.to_vec();
        entries.rotate_left(first % nodes.len());
        Self { manner, entries, entry: 0, owners: Vec::new(), wires: BTreeMap::new(), patience }
    }

    /// One command on one key. A cluster client follows MOVED, which says that nothing was done.
    pub fn call(&mut self, key: &str, args: &[&[u8]]) -> Result<Reply, Broken> {
        let mut target = self.target(key).map_err(|_| Broken::Refused)?;
        for _ in 0..8 {
            let reply = self.at(target, args)?;
            match &reply {
                Reply::Error(text) if text.starts_with("MOVED ") => {
                    let next = text.rsplit(' ').next().and_then(|to| to.parse().ok());
                    target = next.ok_or(Broken::Closed)?;
                    self.owners.clear();
                }
                _ => return Ok(reply),
            }
        }
        Ok(Reply::Error("MOVED in a circle".into()))
    }

    fn target(&mut self, key: &str) -> Result<SocketAddr, Broken> {
        let entry = self.entries[self.entry];
        if self.manner == Manner::Plain {
            return Ok(entry);
        }
        if self.owners.is_empty() {
            let told = self.at(entry, &[b"CLUSTER", b"SLOTS"])?;
            self.owners = owners(&told);
        }
        let slot = slot(key);
        let owner = self.owners.iter().find(|(from, to, _)| (*from..=*to).contains(&slot));
        Ok(owner.map_or(entry, |(.., owner)| *owner))
    }

    fn at(&mut self, address: SocketAddr, args: &[&[u8]]) -> Result<Reply, Broken> {
        let wire = match self.wires.entry(address) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                match Wire::connect(address, self.patience) {
                    Ok(wire) => entry.insert(wire),
                    Err(broken) => {
                        self.next();
                        return Err(broken);
                    }
                }
            }
        };
        let reply = wire.call(args);
        if reply.is_err() {
            self.wires.remove(&address);
            self.next();
        }
        reply
    }

    fn next(&mut self) {
        self.entry = (self.entry + 1) % self.entries.len();
        self.owners.clear();
    }
}

/// The primaries in a reply to CLUSTER SLOTS.
pub fn owners(reply: &Reply) -> Vec<(u16, u16, SocketAddr)> {
    let Reply::Array(ranges) = reply else { return Vec::new() };
    let number = |reply: &Reply| reply.text().parse::<u16>().ok();
    let range = |range: &Reply| {
        let Reply::Array(parts) = range else { return None };
        let [from, to, Reply::Array(primary), ..] = parts.as_slice() else { return None };
        let [host, port, ..] = primary.as_slice() else { return None };
        let address = SocketAddr::new(host.text().parse().ok()?, number(port)?);
        Some((number(from)?, number(to)?, address))
    };
    ranges.iter().filter_map(range).collect()
}

/// The slot of a key without a tag: CRC-16 (XMODEM) modulo 16384.
pub fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::{Reply, owners, slot};

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12182);
    }

    #[test]
    fn primaries_are_read_from_cluster_slots() {
        let text = |text: &str| Reply::Bulk(Some(text.into()));
        let node = |port| Reply::Array(vec![text("10.0.0.1"), Reply::Number(port), text("id")]);
        let range = vec![Reply::Number(0), Reply::Number(63), node(7), node(8)];
        let first = "10.0.0.1:7".parse().expect("an address");
        let told = Reply::Array(vec![Reply::Array(range)]);
        assert_eq!(owners(&told), [(0, 63, first)]);
        assert_eq!(owners(&Reply::Error("ERR".into())), []);
    }
}
