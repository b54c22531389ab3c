//! Starts nodes as processes of their own, each store on a loopback address that no other test uses, and speaks to them as
//! clients, managers and other nodes do.
#![expect(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod follower;
pub(crate) mod handshake;

use dkv_protocol::control::NodeStatus;
use dkv_protocol::eviction::Eviction;
use dkv_protocol::ids::{Epoch, NodeIndex, StoreId};
use dkv_protocol::io::IoChoice;
use dkv_protocol::launch::{LAUNCH_VERSION, LaunchDocument, ReadyLine};
use dkv_protocol::map::{NodeInfo, StoreMap};
use dkv_protocol::ranges::Replication;
use dkv_protocol::resp::value;
use dkv_protocol::slots::slot_of;
use dkv_protocol::users::Users;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The longest that anything here may take on a loaded machine before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The way of input and output under which these tests are run: `DKV_TEST_IO`.
pub(crate) fn asked_io() -> IoChoice {
    match std::env::var("DKV_TEST_IO") {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("DKV_TEST_IO is {text:?}: {error}")),
        Err(_) => IoChoice::Auto,
    }
}

/// A store whose nodes are started and killed one by one.
pub(crate) struct Store {
    pub(crate) documents: Vec<LaunchDocument>,
    nodes: Vec<Option<Node>>,
    _directory: tempfile::TempDir,
}

impl Store {
    /// A store with a node for each number, which is its shard count. Nothing runs yet.
    pub(crate) fn new(shards: &[usize]) -> Self {
        static STORES: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().expect("a directory");
        // Any address of 127.0.0.0/8 is this machine's. On one of its own, a port that was free a moment ago still is:
        // only connections from 127.0.0.1 take ports by themselves.
        let number = std::process::id()
            .wrapping_mul(64)
            .wrapping_add(STORES.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, a | 1, b, c.clamp(1, 254)));
        let mut reserved = Vec::new();
        let mut port = || {
            let listener = TcpListener::bind((address, 0)).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            reserved.push(listener);
            port
        };
        let infos: Vec<NodeInfo> = (0..shards.len())
            .map(|node| NodeInfo {
                name: format!("node{}", node + 1),
                address,
                cluster_port: port(),
                client_port: port(),
                shard_ports: (0..shards[node]).map(|_| port()).collect(),
            })
            .collect();
        let cpus = dkv_io::cpu::available().expect("the CPUs of this process");
        let documents = shards
            .iter()
            .enumerate()
            .map(|(node, &count)| LaunchDocument {
                version: LAUNCH_VERSION,
                store: "TestStore".into(),
                store_id: StoreId("0123456789abcdef0123456789abcdef".into()),
                index: NodeIndex(node as u16),
                nodes: infos.clone(),
                removed: Vec::new(),
                epoch: Epoch(1),
                bind: vec![address],
                cpus: (0..count).map(|shard| cpus[shard % cpus.len()] as u32).collect(),
                cpus_exclusive: false,
                hash_seed: "00112233445566778899aabbccddeeff".into(),
                cluster_secret: "5a".repeat(32),
                password_sha256: None,
                users: Users::default(),
                protected_mode: true,
                memory_bytes_max: 0,
                eviction: Eviction::None,
                replication: None,
                io: asked_io(),
                control_socket: directory.path().join(format!("{node}.sock")).display().to_string(),
                lock_file: directory.path().join(format!("{node}.lock")).display().to_string(),
            })
            .collect();
        Self { documents, nodes: shards.iter().map(|_| None).collect(), _directory: directory }
    }

    /// The same, running, with every node reaching every other.
    pub(crate) fn running(shards: &[usize]) -> Self {
        let mut store = Self::new(shards);
        for node in 0..shards.len() {
            store.start(node);
        }
        for node in 0..shards.len() {
            store.wait_status(node, |status| status.cluster_ok);
        }
        store
    }

    /// All nodes run and reach each other; nobody has told them yet who leads what.
    pub(crate) fn with_copies(shards: &[usize], replication: Replication) -> Self {
        let mut store = Self::new(shards);
        for document in &mut store.documents {
            document.replication = Some(replication);
        }
        for node in 0..shards.len() {
            store.start(node);
        }
        for node in 0..shards.len() {
            store.wait_status(node, |status| status.cluster_ok);
        }
        store
    }

    /// Whether this node was started and not taken away.
    pub(crate) fn runs(&self, node: usize) -> bool {
        self.nodes[node].is_some()
    }

    /// Starts a node and waits until it says that it is ready.
    pub(crate) fn start(&mut self, node: usize) {
        let started = Node::start(&self.documents[node])
            .unwrap_or_else(|(code, log)| panic!("exit {code:?}: {log}"));
        self.nodes[node] = Some(started);
    }

    pub(crate) fn node(&mut self, node: usize) -> &mut Node {
        self.nodes[node].as_mut().expect("it runs")
    }

    /// What remains of a node that is not to run any more.
    pub(crate) fn take(&mut self, node: usize) -> Node {
        self.nodes[node].take().expect("it runs")
    }

    pub(crate) fn client(&self, node: usize) -> Client {
        let info = &self.documents[node].nodes[node];
        Client::connect((info.address, info.client_port).into())
    }

    pub(crate) fn shard_client(&self, node: usize, shard: usize) -> Client {
        let info = &self.documents[0].nodes[node];
        Client::connect((info.address, info.shard_ports[shard]).into())
    }

    pub(crate) fn cluster_address(&self, node: usize) -> SocketAddr {
        let info = &self.documents[0].nodes[node];
        (info.address, info.cluster_port).into()
    }

    /// A key that lives on this shard of this node.
    pub(crate) fn key_of(&self, node: usize, shard: usize) -> String {
        let map = StoreMap::spread(self.documents[0].nodes.clone(), Epoch(1));
        let owner = |key: &String| map.owner_of(slot_of(key.as_bytes()));
        (0..1_000_000)
            .map(|n| format!("key:{n}"))
            .find(|key| {
                usize::from(owner(key).node.0) == node && usize::from(owner(key).shard.0) == shard
            })
            .expect("every shard has ranges")
    }

    pub(crate) fn status(&self, node: usize) -> NodeStatus {
        serde_json::from_str(&self.control(node, r#"{"op":"status"}"#)).expect("a status")
    }

    /// Sends one line to the control socket and returns the answer.
    pub(crate) fn control(&self, node: usize, line: &str) -> String {
        let mut socket =
            UnixStream::connect(&self.documents[node].control_socket).expect("it answers");
        socket.set_read_timeout(Some(PATIENCE)).expect("settable");
        writeln!(socket, "{line}").expect("written");
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).expect("answered");
        answer
    }

    /// Asks for the status until it is as wanted. Each question waits for its answer, so this is no busy loop.
    pub(crate) fn wait_status(
        &self,
        node: usize,
        wanted: impl Fn(&NodeStatus) -> bool,
    ) -> NodeStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(node);
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never as wanted: {status:?}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// A node that runs. Killed when dropped.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) ready: ReadyLine,
    stdout: BufReader<std::process::ChildStdout>,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Node {
    /// Starts a node, or says how it ended and what it logged.
    pub(crate) fn start(document: &LaunchDocument) -> Result<Self, (Option<i32>, String)> {
        Self::start_with(&serde_json::to_vec(document).expect("JSON"))
    }

    /// Starts a node whose log and further output nobody reads, as when its manager was killed.
    pub(crate) fn start_deserted(document: &LaunchDocument) -> Self {
        let mut child = Self::spawn();
        let document = serde_json::to_vec(document).expect("JSON");
        child.stdin.take().expect("piped").write_all(&document).expect("taken");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        drop(child.stderr.take());
        let ready = serde_json::from_str(&line).expect("a ready line");
        Self { child, ready, stdout, log: Arc::default() }
    }

    fn spawn() -> Child {
        Command::new(env!("CARGO_BIN_EXE_dkv-node-process"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG")
            .env("DKV_LOG", "debug")
            .spawn()
            .expect("the program starts")
    }

    /// The same with any bytes as its launch document.
    pub(crate) fn start_with(document: &[u8]) -> Result<Self, (Option<i32>, String)> {
        let mut child = Self::spawn();
        // A node that refuses the document early closes the pipe.
        let _ = child.stdin.take().expect("piped").write_all(document);
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let stderr = child.stderr.take().expect("piped");
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().expect("whole").push(line);
                lines.1.notify_all();
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        if line.is_empty() {
            let status = child.wait().expect("ended");
            reader.join().expect("read to the end");
            return Err((status.code(), log.0.lock().expect("whole").join("\n")));
        }
        let ready = serde_json::from_str(&line).expect("a ready line");
        Ok(Self { child, ready, stdout, log })
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // Its standard output is closed long before; standard error closes with the process.
        self.child.wait().expect("reaped")
    }

    /// Waits for a log line with this text.
    pub(crate) fn wait_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (lines, more) = &*self.log;
        let mut lines = lines.lock().expect("whole");
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{text:?} was not logged in:\n{}", lines.join("\n"));
            lines = more.wait_timeout(lines, left).expect("whole").0;
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.0.lock().expect("whole").join("\n")
    }

    /// What it still wrote to standard output.
    pub(crate) fn rest_of_stdout(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        rest
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of pid {}:\n{}", self.child.id(), self.log());
        }
    }
}

/// A plain client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        stream.set_nodelay(true).expect("settable");
        Self { stream, received: Vec::new() }
    }

    /// Sends a command without waiting for its reply.
    pub(crate) fn send(&mut self, arguments: &[&str]) {
        self.stream.write_all(&encode(arguments)).expect("sent");
    }

    /// The next reply, as it is on the wire.
    pub(crate) fn reply(&mut self) -> String {
        loop {
            if let Some(length) = value::skip(&self.received).expect("a reply") {
                let reply = self.received.drain(..length).collect::<Vec<u8>>();
                return String::from_utf8_lossy(&reply).into_owned();
            }
            let mut piece = [0; 16384];
            let length = self.stream.read(&mut piece).expect("a reply in time");
            assert!(length > 0, "closed; had {:?}", String::from_utf8_lossy(&self.received));
            self.received.extend_from_slice(&piece[..length]);
        }
    }

    pub(crate) fn ask(&mut self, arguments: &[&str]) -> String {
        self.send(arguments);
        self.reply()
    }

    /// Asks again while the store says so, or until the answer is as wanted.
    pub(crate) fn ask_until(
        &mut self,
        arguments: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.ask(arguments);
            if wanted(&reply) {
                return reply;
            }
            assert!(
                Instant::now() < deadline,
                "{arguments:?} is never answered as wanted: {reply}"
            );
        }
    }

    /// Whether no reply, and no part of one, has come yet.
    pub(crate) fn is_unanswered(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("settable");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("settable");
        self.received.is_empty()
            && peeked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Reads until the other end closes; what came.
    pub(crate) fn until_the_end(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.received);
        let mut piece = [0; 16384];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return all,
                Ok(length) => all.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("neither bytes nor an end: {error}"),
            }
        }
    }
}

/// A command as a client sends it.
pub(crate) fn encode(arguments: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    bytes
}

/// `value` as a bulk string.
pub(crate) fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}
