//! Managers in threads of the test, each on a loopback address of its own (so that no port of one test is in the way of
//! another), with nodes that are the fake of this crate.

use dkv_agent::auth::Token;
use dkv_agent::client::AdminClient;
use dkv_agent::coordinate::{self, Group, Outcome, Report, Settings};
use dkv_agent::{AgentOptions, Pace, StartError};
use dkv_protocol::admin::{NodeView, StoreDefinition};
use dkv_protocol::eviction::Eviction;
use dkv_protocol::io::IoChoice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A place where managers can be started again and again.
pub(crate) struct Machine {
    dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) options: AgentOptions,
}

/// A manager that runs.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        // 127/8 is all loopback: the process and a number make an address that nobody else uses.
        let [_, .., high, low] = std::process::id().to_be_bytes();
        let own = Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::new(IpAddr::V4(own), 7801);
        let mut options = AgentOptions::new(address, dir.path().join("data"));
        let fake = env!("CARGO_BIN_EXE_dkv-fake-node").to_string();
        let plan = dir.path().join("plan").display().to_string();
        options.node_command = Some(vec![fake, plan]);
        options.guard_name = format!("dkv-test-{}-{own}", std::process::id());
        options.loopback_group = true;
        options.token_file = Some(dir.path().join("group.token"));
        options.pace = Pace {
            backoff: Duration::from_millis(1),
            sample: Duration::from_millis(20),
            stop_max: Duration::from_millis(300),
            forced_stop_max: Duration::from_millis(100),
            ready_max: Duration::from_secs(10),
            ..Pace::default()
        };
        let machine = Self { dir, address, options };
        machine.write_token();
        machine
    }

    fn write_token(&self) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join("group.token");
        std::fs::write(&path, "5a".repeat(32)).expect("the directory is there");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// What nodes do at their next start; see the fake.
    pub(crate) fn nodes_shall(&self, plan: &str) {
        std::fs::write(self.dir.path().join("plan"), plan).expect("the directory is there");
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn start(&self) -> Running {
        self.try_start().expect("the manager starts")
    }

    pub(crate) fn try_start(&self) -> Result<Running, StartError> {
        let options = self.options.clone();
        let (stop, stopped) = oneshot::channel();
        let (ready, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            // Dropping the runtime drops every task where it stands, as being killed does.
            runtime.block_on(dkv_agent::serve(
                options,
                move |r| ready.send(r.address).expect("the test waits"),
                async {
                    let _ = stopped.await;
                },
            ))
        });
        match told.recv() {
            Ok(address) => {
                assert_eq!(address, self.options.listen);
                Ok(Running { stop: Some(stop), thread: Some(thread) })
            }
            Err(_) => Err(thread.join().expect("no panic").expect_err("it did not start")),
        }
    }

    pub(crate) fn token(&self) -> Token {
        Token::read(&self.path().join("group.token")).expect("the token of the test")
    }

    pub(crate) fn client(&self) -> AdminClient {
        AdminClient::new(self.address, self.token(), Duration::from_secs(20))
    }
}

impl Running {
    /// Ends the manager where it stands.
    pub(crate) fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

pub(crate) fn group(machines: &[&Machine]) -> Group {
    let addresses: Vec<SocketAddr> = machines.iter().map(|machine| machine.address).collect();
    let settings = Settings { timeout: Duration::from_secs(20), ..Settings::default() };
    Group::new(&addresses, &machines[0].token(), settings)
}

/// Most time to come together, on a machine that is busy with other things.
pub(crate) const MOST: Duration = Duration::from_mins(1);

/// Managers of one group.
pub(crate) fn together(machines: &[&Machine]) -> Vec<Running> {
    let managers = machines.iter().map(|machine| machine.start()).collect();
    let mut group = group(machines);
    done(coordinate::connect(&mut group));
    assert_eq!(coordinate::await_together(&group, MOST), Ok(()));
    managers
}

/// The report of what has to succeed everywhere.
#[track_caller]
pub(crate) fn done(report: Report) -> Report {
    assert_eq!(report.outcome(), Outcome::Done, "{report:#?}");
    report
}

pub(crate) fn definition(name: &str, count: u32) -> StoreDefinition {
    StoreDefinition {
        name: name.to_string(),
        instance_prefix: "node".to_string(),
        instance_count: count,
        clustron_port: Some(7811),
        client_port: Some(7861),
        cpus: None,
        memory_bytes_max: 0,
        eviction: Eviction::None,
        io: IoChoice::Auto,
        replication: None,
        password_sha256: None,
        protected_mode: true,
    }
}

/// The node of that name.
pub(crate) fn node(client: &AdminClient, store: &str, name: &str) -> NodeView {
    let view = client.store(store).expect("the store");
    view.nodes.into_iter().find(|node| node.record.name == name).expect("the node")
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
}
