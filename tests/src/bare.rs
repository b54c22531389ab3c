//! One node by itself, without a manager, and connections to it: for what is measured and not for how stores are run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest that a reply may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// A node of one shard on a loopback address of its own. Ended when dropped, or with the thread that started it.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Bare {
    /// Starts `dkv node`. `memory` is its limit in bytes, 0 for none, and its policy of eviction.
    pub fn start(binary: &Path, memory: (u64, &str)) -> Self {
        Self::store(binary, memory, 1).pop().expect("one node")
    }

    /// The nodes of a store, each as [`Self::start`] makes it. The last one is returned last.
    pub fn store(binary: &Path, memory: (u64, &str), count: usize) -> Vec<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let mut reserved: Vec<TcpListener> = Vec::new();
        let nodes: Vec<(SocketAddr, serde_json::Value)> = (0..count)
            .map(|i| {
                // Any address of 127.0.0.0/8 is this machine's, and on one of its own no port is taken.
                let number = std::process::id()
                    .wrapping_mul(64)
                    .wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed));
                let [_, a, b, c] = number.to_be_bytes();
                let address = IpAddr::V4(Ipv4Addr::new(127, a | 2, b, c.clamp(1, 254)));
                let mut port = || {
                    let listener = TcpListener::bind((address, 0)).expect("a free port");
                    let port = listener.local_addr().expect("bound").port();
                    reserved.push(listener);
                    port
                };
                let (cluster, client, shard) = (port(), port(), port());
                let node = serde_json::json!({
                    "name": format!("node{}", i + 1),
                    "address": address,
                    "cluster_port": cluster,
                    "client_port": client,
                    "shard_ports": [shard],
                });
                (SocketAddr::new(address, client), node)
            })
            .collect();
        drop(reserved);
        let all: Vec<_> = nodes.iter().map(|(_, node)| node).collect();
        let start = |(i, (address, _)): (usize, &(SocketAddr, serde_json::Value))| {
            let document = serde_json::json!({
                "version": 1,
                "store": "Measured",
                "store_id": "0123456789abcdef0123456789abcdef",
                "index": i,
                "nodes": all,
                "epoch": 1,
                "bind": [address.ip()],
                "cpus": [cpu()],
                "cpus_exclusive": false,
                "hash_seed": "00112233445566778899aabbccddeeff",
                "cluster_secret": "5a".repeat(32),
                "password_sha256": null,
                "protected_mode": true,
                "memory_bytes_max": memory.0,
            });
            Self::spawn(binary, document, *address, memory.1)
        };
        nodes.iter().enumerate().map(start).collect()
    }

    fn spawn(
        binary: &Path,
        mut document: serde_json::Value,
        address: SocketAddr,
        eviction: &str,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (field, name) in [("control_socket", "control"), ("lock_file", "lock")] {
            document[field] = directory.path().join(name).display().to_string().into();
        }
        if eviction != "noeviction" {
            document["eviction"] = eviction.into();
        }
        if let Some(io) = crate::machine::io() {
            document["io"] = io.into();
        }
        // Nothing is dropped by a process that a signal ends, and the node leaves its session, so no terminal reaches it: the
        // kernel ends it with this thread. setpriv becomes the node, and so the child has the node's pid.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary)
            .arg("node")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // As a manager does it.
            .env("MIMALLOC_ALLOW_THP", "0")
            .env("DKV_LOG", std::env::var("DKV_LOG").unwrap_or_else(|_| "warn".into()))
            .spawn()
            .expect("setpriv (Debian: util-linux) is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(document.to_string().as_bytes()).expect("taken");
        drop(stdin);
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut ready).expect("readable");
        assert!(ready.contains("pid"), "no ready line but {ready:?}; it says why above");
        Self { child, address, _directory: directory }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection.
    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("settable");
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        Connection { stream, received: Vec::new(), at: 0 }
    }

    /// Resident bytes of the process.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("a number of pages") * rustix::param::page_size() as u64
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first CPU that this process may use.
fn cpu() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split([',', '-']).next()?.parse().ok());
    first.expect("a list of CPUs")
}

/// A client that says what it is told, in pipelines or one by one.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    received: Vec<u8>,
    at: usize,
}

impl Connection {
    /// Sends a command.
    pub fn send(&mut self, args: &[&[u8]]) {
        let mut bytes = Vec::new();
        command(&mut bytes, args);
        self.stream.write_all(&bytes).expect("sent");
    }

    /// One command given as words, and its reply without its line ends: `OK`, `:5`, the bytes of a bulk string.
    pub fn ask(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(&args);
        String::from_utf8_lossy(&self.reply()).into_owned()
    }

    /// The next reply that is no array: what stands behind its first byte, or in its bulk string.
    pub fn reply(&mut self) -> Vec<u8> {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            b"$" => {
                let length = number(rest);
                if length < 0 {
                    return b"(null)".to_vec();
                }
                self.take(length as usize + 2, true)
            }
            b"+" | b":" => rest.to_vec(),
            _ => line,
        }
    }

    /// Reads an array of bulk strings and forgets them; how many there were.
    pub fn skip_array(&mut self) -> u64 {
        let line = self.line();
        assert_eq!(line[0], b'*', "{}", String::from_utf8_lossy(&line));
        let count = number(&line[1..]);
        for _ in 0..count {
            let line = self.line();
            self.take(number(&line[1..]) as usize + 2, false);
        }
        count as u64
    }

    /// Reads whatever comes next and forgets it; its first line.
    pub fn skip_whole(&mut self) -> Vec<u8> {
        let first = self.line();
        let mut line = first.clone();
        let mut left = 1;
        loop {
            left -= 1;
            match line[0] {
                b'*' | b'>' => left += number(&line[1..]),
                b'$' => drop(self.take(number(&line[1..]) as usize + 2, false)),
                _ => {}
            }
            if left == 0 {
                return first;
            }
            line = self.line();
        }
    }

    /// Reads the reply to a SCAN: where to go on.
    pub fn scan(&mut self) -> Vec<u8> {
        assert_eq!(self.line(), b"*2");
        let cursor = self.reply();
        self.skip_array();
        cursor
    }

    /// Reads so many simple replies and counts those that are errors.
    pub fn skip_replies(&mut self, count: usize) -> usize {
        (0..count).filter(|_| self.reply().starts_with(b"-")).count()
    }

    fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.received[self.at..].iter().position(|byte| *byte == b'\n') {
                let line = self.received[self.at..self.at + end - 1].to_vec();
                self.at += end + 1;
                return line;
            }
            self.more();
        }
    }

    /// The next bytes, of which the last two end a line.
    fn take(&mut self, count: usize, keep: bool) -> Vec<u8> {
        let mut left = count;
        let mut all = Vec::new();
        loop {
            let here = left.min(self.received.len() - self.at);
            if keep {
                all.extend_from_slice(&self.received[self.at..self.at + here]);
            }
            self.at += here;
            left -= here;
            if left == 0 {
                all.truncate(count.saturating_sub(2));
                return all;
            }
            self.more();
        }
    }

    fn more(&mut self) {
        self.received.drain(..self.at);
        self.at = 0;
        let length = self.received.len();
        self.received.resize(length + 256 * 1024, 0);
        let read = self.stream.read(&mut self.received[length..]).expect("a reply in time");
        assert!(read > 0, "the node closed the connection");
        self.received.truncate(length + read);
    }
}

fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// Appends a command as clients send it.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", args.len());
    for arg in args {
        let _ = write!(out, "${}\r\n", arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}
