//! A machine is a network namespace with a data directory; several of them hang on one switch.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that a condition may take to come true, and a command to end. Generous: the machines that run the tests are
/// slow and shared, and nothing waits longer than it must.
pub const PATIENCE: Duration = Duration::from_mins(1);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A switch and the machines on it. With one machine there is no switch.
#[derive(Debug)]
pub struct Network {
    switch: Option<String>,
    /// The machines, in the order of their addresses.
    pub machines: Vec<Machine>,
}

/// One machine: a network namespace, an address, a data directory and what was started there.
#[derive(Debug)]
pub struct Machine {
    namespace: String,
    /// Its address on the switch; loopback when it stands alone.
    pub address: String,
    /// Where its manager keeps its data.
    pub data: PathBuf,
    directory: tempfile::TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -1 when it was ended by a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Panics with everything the command said unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "command failed\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Panics unless it ended with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "wrong exit code\nstdout:\n{}\nstderr:\n{}",
            self.out, self.err
        );
        self
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Panics unless some line holds every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let all = self.all();
        assert!(
            all.lines().any(|line| words.iter().all(|w| line.contains(w))),
            "no line with {words:?} in:\n{all}"
        );
        self
    }

    /// Panics when it says this anywhere.
    #[track_caller]
    pub fn silent_on(self, words: &str) -> Self {
        let all = self.all();
        assert!(!all.contains(words), "there is {words:?} in:\n{all}");
        self
    }
}

impl Network {
    /// One machine with nothing but loopback.
    #[track_caller]
    pub fn alone() -> Machine {
        Machine::new("127.0.0.1".into())
    }

    /// `count` machines, 10.77.0.11 and up, on one switch.
    #[track_caller]
    pub fn of(count: usize) -> Self {
        let switch = name("s");
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        let mut machines = Vec::new();
        for i in 0..count {
            let machine = Machine::new(format!("10.77.0.{}", 11 + i));
            let port = format!("p{i}");
            ip(&[
                "-n",
                &switch,
                "link",
                "add",
                &port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &machine.namespace,
            ]);
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &machine.namespace, "link", "set", "eth0", "up"]);
            let address = format!("{}/24", machine.address);
            ip(&["-n", &machine.namespace, "address", "add", &address, "dev", "eth0"]);
            machines.push(machine);
        }
        Self { switch: Some(switch), machines }
    }

    /// Pulls (or plugs in again) the cable of machine `i`.
    pub fn cable(&self, i: usize, plugged: bool) {
        let switch = self.switch.as_deref().expect("a network of several machines");
        ip(&["-n", switch, "link", "set", &format!("p{i}"), if plugged { "up" } else { "down" }]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.machines.clear();
        if let Some(switch) = &self.switch {
            remove(switch);
        }
    }
}

impl Machine {
    #[track_caller]
    fn new(address: String) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let namespace = name("m");
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        Self { namespace, address, data, directory }
    }

    /// A path in this machine's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file (mode 0600) in this machine's own directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(name);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .expect("the machine's directory can be written");
        file.write_all(text.as_bytes()).expect("the machine's directory can be written");
        path
    }

    /// Writes a file and opens it for reading: the input of a program.
    pub fn open(&self, name: &str, bytes: &[u8]) -> fs::File {
        let path = self.path(name);
        fs::write(&path, bytes).expect("the machine's directory can be written");
        fs::File::open(path).expect("it was just written")
    }

    /// Any program on this machine, not started yet.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).args(args);
        let home = self.directory.path();
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("DKV_")) {
            command.env_remove(key);
        }
        command
            .current_dir(home)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("DKV_DATA_DIR", &self.data)
            .envs(io().map(|io| ("DKV_IO", io)))
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    dkv().parent().expect("a directory").display(),
                    std::env::var("PATH").unwrap_or_default()
                ),
            )
            .stdin(Stdio::null());
        command
    }

    /// Runs a program on this machine to its end.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.run_command(self.command(program, args))
    }

    /// Runs a prepared command to its end; ends it and panics when it takes longer than [`PATIENCE`] times three.
    #[track_caller]
    pub fn run_command(&self, mut command: Command) -> Output {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip (Debian: iproute2) is installed");
        let out = reader(child.stdout.take());
        let err = reader(child.stderr.take());
        let deadline = Instant::now() + PATIENCE * 3;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{command:?} did not end");
            }
            pause();
        };
        let join = |handle: std::thread::JoinHandle<String>| {
            handle.join().expect("a reader does not panic")
        };
        Output { code: status.code().unwrap_or(-1), out: join(out), err: join(err) }
    }

    /// The way into this machine for a thread.
    pub fn entrance(&self) -> Entrance {
        Entrance(Path::new("/run/netns").join(&self.namespace))
    }

    /// Runs `story` in a thread that is on this machine, and gives what it gives.
    #[track_caller]
    pub fn inside<T: Send>(&self, story: impl FnOnce() -> T + Send) -> T {
        let entrance = self.entrance();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                entrance.enter();
                story()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gives this machine a packet filter of its own, in nftables' words, in place of what it had; without rules all passes.
    #[track_caller]
    pub fn filter(&self, rules: &[String]) {
        let mut script = String::from("flush ruleset\n");
        if !rules.is_empty() {
            script.push_str("table inet fault {\n chain in { type filter hook input priority 0;\n");
            for rule in rules {
                let _ = writeln!(script, "  {rule}");
            }
            script.push_str(" }\n}\n");
        }
        let path = self.file("rules.nft", &script);
        self.run("nft", &["-f", path.to_str().expect("a plain path")]).ok();
    }

    /// Runs `dkv` on this machine; `line` is split at blanks.
    #[track_caller]
    pub fn dkv(&self, line: &str) -> Output {
        self.run("dkv", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `redis-cli` on this machine and gives what it printed, trimmed.
    #[track_caller]
    pub fn redis(&self, host: &str, port: u16, args: &[&str]) -> String {
        let port = port.to_string();
        let mut all = vec!["-h", host, "-p", &port];
        all.extend_from_slice(args);
        self.run("redis-cli", &all).ok().out.trim_end().to_owned()
    }

    /// Starts the manager in the background and waits until it answers. `ip netns exec` replaces itself by the program,
    /// so the child's pid is the manager's.
    #[track_caller]
    pub fn manager(&self, args: &[&str]) -> Process {
        let mut all = vec!["agent", "--data-dir", self.data.to_str().expect("a plain path")];
        all.extend_from_slice(args);
        let log = fs::File::create(self.path("manager.log")).expect("a log file");
        let mut command = self.command("dkv", &all);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut child = command.spawn().expect("ip (Debian: iproute2) is installed");
        let address = self.address.clone();
        until("the manager answers", || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!(
                    "the manager ended with {status}: {}",
                    fs::read_to_string(self.path("manager.log")).unwrap_or_default()
                );
            }
            let url = format!("http://{address}:7801/health");
            self.run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "2", &url]).out
                == "200"
        });
        Process(child)
    }

    /// Starts a program in the background, which ends with what is returned; both of its streams go to a file of that name.
    #[track_caller]
    pub fn background(&self, program: &str, args: &[&str], log: &str) -> Process {
        let log = fs::File::create(self.path(log)).expect("a log file");
        let mut command = self.command(program, args);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Process(command.spawn().expect("ip (Debian: iproute2) is installed"))
    }

    /// The pid of the node of `dkv up` with that number, from 0, once it runs.
    #[track_caller]
    pub fn node_pid(&self, number: u16) -> u32 {
        let port = 7861 + number;
        let mut pid = None;
        until("the node answers", || {
            let info = self.run("redis-cli", &["-p", &port.to_string(), "info", "server"]).out;
            pid =
                info.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok());
            pid.is_some()
        });
        pid.expect("it answered")
    }

    /// Pids of the processes of this machine whose command line starts with `dkv WORD`.
    pub fn pids(&self, word: &str) -> Vec<u32> {
        let listing = Command::new("ip")
            .args(["netns", "pids", &self.namespace])
            .output()
            .expect("ip (Debian: iproute2) is installed");
        String::from_utf8_lossy(&listing.stdout)
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut words = line.split(|&b| b == 0);
                let program = words.next().unwrap_or_default();
                program.ends_with(b"dkv") && words.next() == Some(word.as_bytes())
            })
            .collect()
    }

    /// `dkv … -o json`, parsed.
    #[track_caller]
    pub fn json(&self, line: &str) -> serde_json::Value {
        let output = self.dkv(&format!("{line} -o json")).ok();
        serde_json::from_str(&output.out)
            .unwrap_or_else(|e| panic!("not JSON ({e}):\n{}", output.out))
    }

    /// Waits until every copy of every range of a store is in sync, so that any of its nodes may end without a loss.
    #[track_caller]
    pub fn whole(&self, store: &str) {
        until("every copy is in sync", || {
            let shown = self.dkv(&format!("store show {store} -o json"));
            let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap_or_default();
            let copies = &shown["copies"];
            let is_zero = |field: &str| copies[field].as_u64() == Some(0);
            is_zero("degraded_ranges")
                && is_zero("offline_ranges")
                && is_zero("unformed_ranges")
                && copies["nodes"]
                    .as_array()
                    .is_some_and(|nodes| nodes.iter().all(|n| n["up"] == true))
        });
    }

    /// Runs a script of `tests/clients` to its end.
    #[track_caller]
    pub fn python(&self, script: &str, args: &[&str]) -> Output {
        self.run_command(self.python_command(script, args))
    }

    /// A script of `tests/clients` under the Python that has the client packages (`scripts/ci.sh` makes it).
    #[track_caller]
    pub fn python_command(&self, script: &str, args: &[&str]) -> Command {
        let root = workspace();
        let python = std::env::var("DKV_TEST_PYTHON")
            .unwrap_or_else(|_| root.join("target/test-python/bin/python").display().to_string());
        assert!(
            Path::new(&python).exists(),
            "{python} is missing: run scripts/ci.sh once, it makes it"
        );
        let script = root.join("tests/clients").join(script);
        let mut all = vec![script.to_str().expect("a plain path")];
        all.extend_from_slice(args);
        self.command(&python, &all)
    }

    /// Runs a script of `tests/clients` to its end under the Node.js that finds the client packages (`scripts/ci.sh` gets them).
    #[track_caller]
    pub fn node(&self, script: &str, args: &[&str]) -> Output {
        let root = workspace();
        let modules = std::env::var("DKV_TEST_NODE_MODULES")
            .map_or_else(|_| root.join("target/test-node/node_modules"), PathBuf::from);
        assert!(
            modules.exists(),
            "{} is missing: run scripts/ci.sh once, it makes it",
            modules.display()
        );
        let script = root.join("tests/clients").join(script);
        let mut all = vec![script.to_str().expect("a plain path")];
        all.extend_from_slice(args);
        let mut command = self.command("node", &all);
        command.env("NODE_PATH", modules);
        self.run_command(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in logs(&self.data).into_iter().chain([self.path("manager.log")]) {
                if let Ok(text) = fs::read_to_string(&log) {
                    let tail: Vec<&str> = text.lines().rev().take(30).collect();
                    eprintln!("--- {}", log.display());
                    tail.iter().rev().for_each(|line| eprintln!("{line}"));
                }
            }
        }
        remove(&self.namespace);
    }
}

/// The way into a machine.
#[derive(Clone, Debug)]
pub struct Entrance(PathBuf);

impl Entrance {
    /// Moves the calling thread, and the threads that it starts from now on, to the machine: what they connect to is what can
    /// be reached from there.
    #[track_caller]
    pub fn enter(&self) {
        let file = fs::File::open(&self.0).expect("ip netns keeps namespaces there");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), kind).expect("root may enter");
    }
}

/// A process of a machine that a test started and may end.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What Ctrl-C sends it.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().cast_signed()).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().expect("a child can be waited for")?.code()
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds, at most [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        pause();
    }
}

/// A short rest between two looks at something that another process does.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// The way of input and output that the stores of these tests are to be created with: `DKV_TEST_IO`, as `epoll`. Where it is
/// not set, nodes choose.
pub fn io() -> Option<String> {
    std::env::var("DKV_TEST_IO").ok()
}

/// Sends SIGKILL to one process by pid.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the process exists");
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// For programs that are run by hand: the binary under test, `DKV_TEST_BINARY`, or `dkv` beside the program that runs, made if
/// need be in that profile.
pub fn dkv_made() -> PathBuf {
    if let Some(path) = std::env::var_os("DKV_TEST_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program knows its own path");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "dkv-cli"]).current_dir(workspace());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.status().is_ok_and(|status| status.success());
    assert!(built, "dkv cannot be built: cargo build --release -p dkv-cli says why");
    own.with_file_name("dkv")
}

/// The binary under test: `DKV_TEST_BINARY`, or `dkv` of the profile that this test was built with.
pub fn dkv() -> PathBuf {
    if let Ok(path) = std::env::var("DKV_TEST_BINARY") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let mut beside = test.ancestors().skip(1).map(|directory| directory.join("dkv"));
    let here = beside.next().expect("a directory");
    let binary = if here.exists() { here } else { beside.next().expect("target/PROFILE/deps") };
    assert!(binary.exists(), "{} is missing: cargo build -p dkv-cli", binary.display());
    binary
}

fn reader<R: Read + Send + 'static>(stream: Option<R>) -> std::thread::JoinHandle<String> {
    let mut stream = stream.expect("a piped stream");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn logs(data: &Path) -> Vec<PathBuf> {
    fs::read_dir(data.join("logs"))
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default()
}

fn name(kind: &str) -> String {
    format!("dkv{kind}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn ip(args: &[&str]) {
    let output =
        Command::new("ip").args(args).output().expect("ip (Debian: iproute2) is installed");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ends every process of a namespace, by pid, and removes it.
fn remove(namespace: &str) {
    if let Ok(listing) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&listing.stdout)
            .lines()
            .filter_map(|l| l.trim().parse::<i32>().ok())
        {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
}
