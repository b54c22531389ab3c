//! One task for each node of this machine: it starts the process, waits for its ready line, watches it, starts it again,
//! and stops it. Requests come as commands, one after the other, so that no two of them can get in each other's way.
//!
//! What is wanted is written to the catalogue before anything is done, what happened after it was seen; so a manager that
//! is killed at any point finds out from the catalogue and the processes what is left to do (see `plan::steps`).

use crate::catalogue::Agent;
use crate::control;
use crate::ledger::NodeEntry;
use crate::plan::steps::{AfterExit, Ended, FirstStep, Restarts, Wanted, first_step};
use crate::process::{self, Exit, Process};
use crate::ranges::{self, Followed, NodeKey};
use crate::refusal::Refusal;
use crate::watch::{Live, watch};
use dkv_protocol::admin::NodeState;
use dkv_protocol::control::ControlRequest;
use dkv_protocol::launch::ReadyLine;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Commands that may wait for one node; beyond it the API says that the node is busy.
pub(crate) const COMMANDS_MAX: usize = 16;
/// Most time to wait with everything else for the word to go round that a node is gone: its restart is work, and the ranges
/// that it led wait.
const WORD_MAX: Duration = Duration::from_millis(50);

/// The answer to a command: what was done, in a word or two.
pub(crate) type Answer = Result<String, Refusal>;

/// What the API asks of a node's task. A task ends when nobody can send to it any more.
#[derive(Debug)]
pub(crate) enum Command {
    Start(oneshot::Sender<Answer>),
    Stop { force: bool, reply: oneshot::Sender<Answer> },
    Kill(oneshot::Sender<Answer>),
}

/// Where a node's files are.
#[derive(Clone, Debug)]
pub(crate) struct NodePaths {
    pub(crate) socket: PathBuf,
    pub(crate) lock: PathBuf,
    pub(crate) log: PathBuf,
}

/// A process with what belongs to it.
struct Running {
    process: Process,
    sampler: Option<JoinHandle<()>>,
    /// Of a node that is in the catalogue.
    follower: Option<JoinHandle<()>>,
    /// Length of the log when the process was started.
    log_from: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.sampler.iter().chain(&self.follower) {
            task.abort();
        }
    }
}

enum Phase {
    /// No process and none to come.
    Down,
    /// Started, no ready line yet.
    Coming { running: Running, ready: JoinHandle<Result<ReadyLine, String>>, deadline: Instant },
    /// Serves.
    Up { running: Running, since: Instant },
    /// Ended by itself; the next start is at that time.
    Waiting { until: Instant },
    /// Asked to stop.
    Leaving { running: Running, deadline: Instant, force: bool, overdue: bool },
}

enum Happened {
    Command(Command),
    Forgotten,
    Exited(Exit),
    Ready(Result<ReadyLine, String>),
    Time,
}

struct Supervisor {
    agent: Arc<Agent>,
    live: Arc<Live>,
    /// Of a node of a store with copies: how the keeper of the ranges knows it.
    key: Option<NodeKey>,
    store: String,
    node: String,
    paths: NodePaths,
    phase: Phase,
    /// Whether its process was found by its lock alone, so that it has to make its control socket anew before it can answer.
    unanswering: bool,
    restarts: Restarts,
    /// Who waits for the start.
    starters: Vec<oneshot::Sender<Answer>>,
    /// Who waits for the stop.
    stoppers: Vec<oneshot::Sender<Answer>>,
}

/// Runs the task of one node until its commands end. The process is left as it is.
pub(crate) async fn supervise(
    agent: Arc<Agent>,
    live: Arc<Live>,
    (store, node): (String, String),
    paths: NodePaths,
    mut commands: mpsc::Receiver<Command>,
) {
    let key = agent.node_key(&store, &node);
    let mut supervisor = Supervisor {
        agent,
        live,
        key,
        store,
        node,
        paths,
        phase: Phase::Down,
        unanswering: false,
        restarts: Restarts::default(),
        starters: Vec::new(),
        stoppers: Vec::new(),
    };
    supervisor.find_again().await;
    loop {
        let happened = supervisor.next(&mut commands).await;
        match happened {
            Happened::Forgotten => return,
            Happened::Command(Command::Start(reply)) => supervisor.start(reply).await,
            Happened::Command(Command::Stop { force, reply }) => supervisor.stop(force, reply),
            Happened::Command(Command::Kill(reply)) => supervisor.kill(reply),
            Happened::Exited(exit) => {
                supervisor.ready_before_exit().await;
                supervisor.tell_of_end().await;
                supervisor.exited(exit).await;
            }
            Happened::Ready(Ok(line)) => supervisor.ready(&line),
            Happened::Ready(Err(reason)) => supervisor.not_ready(&reason).await,
            Happened::Time => supervisor.time().await,
        }
    }
}

impl Supervisor {
    async fn next(&mut self, commands: &mut mpsc::Receiver<Command>) -> Happened {
        let deadline = match &self.phase {
            Phase::Coming { deadline, .. }
            | Phase::Leaving { deadline, overdue: false, .. }
            | Phase::Waiting { until: deadline } => Some(*deadline),
            _ => None,
        };
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        let (process, ready) = match &mut self.phase {
            Phase::Coming { running, ready, .. } => (Some(&mut running.process), Some(ready)),
            Phase::Up { running, .. } | Phase::Leaving { running, .. } => {
                (Some(&mut running.process), None)
            }
            Phase::Down | Phase::Waiting { .. } => (None, None),
        };
        let exited = async {
            match process {
                Some(process) => process.exited().await,
                None => pending().await,
            }
        };
        let ready = async {
            match ready {
                Some(ready) => ready.await.unwrap_or_else(|error| Err(error.to_string())),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            exit = exited => Happened::Exited(exit),
            line = ready => Happened::Ready(line),
            command = commands.recv() => command.map_or(Happened::Forgotten, Happened::Command),
            () = timer => Happened::Time,
        }
    }

    /// The manager has just started: what is there of this node?
    async fn find_again(&mut self) {
        let Some(mut entry) = self.agent.node_entry(&self.store, &self.node) else { return };
        let process = self.find_process(&entry).await;
        if process.is_some() && entry.state == NodeState::Requested {
            // It was started by a manager that knew more than this one, and nobody has asked it to stop.
            entry.wanted = Wanted::Up;
            self.write(|entry| entry.wanted = Wanted::Up);
        }
        if let (Some(key), None) = (&self.key, &process)
            && process::nobody_holds(&self.paths.lock)
        {
            // It ended while no manager looked.
            self.agent.ranges().gone(key);
        }
        match first_step(entry.wanted, entry.state, process.is_some()) {
            FirstStep::Adopt | FirstStep::Stop if process.is_none() => {}
            FirstStep::Adopt => {
                if let Some(process) = process {
                    tracing::info!(store = %self.store, node = %self.node, pid = process.pid(), "adopted");
                    self.up(process, process::log_len(&self.paths.log));
                }
            }
            FirstStep::Stop => {
                if let Some(process) = process {
                    let log_from = process::log_len(&self.paths.log);
                    let follower = self.follow(&process);
                    self.leave(Running { process, sampler: None, follower, log_from }, false);
                }
            }
            FirstStep::Spawn => self.spawn().await,
            FirstStep::Rest(state) => {
                if entry.state != state || entry.process.is_some() {
                    self.write(|entry| {
                        entry.state = state;
                        entry.process = None;
                    });
                }
            }
        }
    }

    /// The process of this node: by its number and birth, by what answers on its control socket, or, when the files that
    /// would lead there are gone, by the lock that it holds. It makes the files anew, so that it can be talked to then.
    async fn find_process(&mut self, entry: &NodeEntry) -> Option<Process> {
        let known = entry.process.as_ref().and_then(process::find);
        if known.is_some() {
            return known;
        }
        let answers = self.find_by_socket().await;
        if answers.is_some() {
            return answers;
        }
        let lock = self.paths.lock.clone();
        let holder = tokio::task::spawn_blocking(move || process::holder(&lock)).await;
        let found = process::adopt_holder(&self.paths.lock, holder.ok().flatten()?);
        self.unanswering = found.is_some();
        found
    }

    async fn find_by_socket(&self) -> Option<Process> {
        let status = control::ask(&self.paths.socket, ControlRequest::Status).await.ok()?;
        let id = self.agent.store_id(&self.store)?;
        if status.store_id != id.0 || status.node != self.node {
            return None;
        }
        process::adopt(status.pid).ok()
    }

    async fn start(&mut self, reply: oneshot::Sender<Answer>) {
        match &self.phase {
            Phase::Up { .. } => answer(reply, Ok("Already running".to_string())),
            Phase::Coming { .. } => self.starters.push(reply),
            Phase::Leaving { .. } => answer(
                reply,
                Err(Refusal::conflict(
                    "node_stopping",
                    format!("{} is on its way down", self.node),
                    format!("wait for it, or type: dkv store stop {} --force", self.store),
                )),
            ),
            Phase::Down | Phase::Waiting { .. } => {
                let wanted = self.agent.change_node(&self.store, &self.node, |entry| {
                    entry.wanted = Wanted::Up;
                    entry.state = NodeState::Spawning;
                    entry.restarts = 0;
                    entry.message = None;
                });
                if let Err(refusal) = wanted {
                    answer(reply, Err(refusal));
                    return;
                }
                self.restarts = Restarts::default();
                self.starters.push(reply);
                self.spawn().await;
            }
        }
    }

    fn stop(&mut self, force: bool, reply: oneshot::Sender<Answer>) {
        let is_down = matches!(self.phase, Phase::Down);
        let failed = || {
            self.agent
                .node_entry(&self.store, &self.node)
                .is_some_and(|entry| entry.state == NodeState::Failed)
        };
        if is_down && !failed() {
            answer(reply, Ok("Already stopped".to_string()));
            return;
        }
        let wanted = self.agent.change_node(&self.store, &self.node, |entry| {
            entry.wanted = Wanted::Down;
            if is_down {
                entry.state = NodeState::Stopped;
                entry.message = None;
            }
        });
        if let Err(refusal) = wanted {
            answer(reply, Err(refusal));
            return;
        }
        let refusal = Refusal::conflict(
            "stopped_meanwhile",
            format!("{} was stopped before it was ready", self.node),
            format!("dkv store start {}", self.store),
        );
        self.answer_starters(&Err(refusal));
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Down | Phase::Waiting { .. } => {
                self.write(|entry| {
                    entry.state = NodeState::Stopped;
                    entry.process = None;
                });
                answer(reply, Ok("Stopped".to_string()));
            }
            // It serves nobody yet: there is nothing to be graceful about.
            Phase::Coming { running, .. } => {
                running.process.signaller().kill();
                self.stoppers.push(reply);
                self.leave(running, true);
            }
            Phase::Up { running, .. } => {
                self.stoppers.push(reply);
                self.leave(running, force);
            }
            Phase::Leaving { running, force: before, .. } => {
                self.stoppers.push(reply);
                self.leave(running, force || before);
            }
        }
    }

    /// Ends the process of a node that serves, as a crash would; what follows is what follows a crash.
    fn kill(&self, reply: oneshot::Sender<Answer>) {
        let Phase::Up { running, .. } = &self.phase else {
            let refusal = Refusal::conflict(
                "node_not_running",
                format!("{} does not run, so there is nothing to kill", self.node),
                format!("look at it with: dkv store show {}", self.store),
            );
            return answer(reply, Err(refusal));
        };
        tracing::warn!(store = %self.store, node = %self.node, pid = running.process.pid(), "killed on request");
        running.process.signaller().kill();
        answer(reply, Ok("Killed".to_string()));
    }

    /// Asks a process to stop and goes on to wait for its end.
    fn leave(&mut self, running: Running, force: bool) {
        self.write(|entry| entry.state = NodeState::Stopping);
        let signaller = running.process.signaller();
        let socket = self.paths.socket.clone();
        tokio::spawn(async move {
            // A node that cannot be asked is told by signal.
            if control::ask(&socket, ControlRequest::Stop).await.is_err() {
                signaller.terminate();
            }
        });
        let pace = &self.agent.options().pace;
        let most = if force { pace.forced_stop_max } else { pace.stop_max };
        let deadline = Instant::now() + most;
        self.phase = Phase::Leaving { running, deadline, force, overdue: false };
    }

    /// Starts a process. To start one takes its time on a machine that is busy, and the ranges of all stores are driven by
    /// the thread that this runs on; so another one does it.
    async fn spawn(&mut self) {
        self.agent.ranges().until_users_known().await;
        let log = self.paths.log.clone();
        let document = self.agent.launch_document(&self.store, &self.node, &self.paths);
        let document = document.and_then(|document| Ok((document, self.agent.node_command()?)));
        let dir = self.agent.options().data_dir.clone();
        let begun = tokio::task::spawn_blocking(move || {
            if let Err(error) = process::bound_log(&log, process::LOG_BYTES_MAX) {
                tracing::warn!(%error, log = %log.display(), "cannot bound the log");
            }
            let log_from = process::log_len(&log);
            // Somebody may have cleared them away since the manager began.
            let directories = crate::serve::make_directories(&dir).map_err(std::io::Error::other);
            let launched = directories
                .and(document)
                .and_then(|(document, command)| process::launch(&command, &document, &dir, &log));
            (log_from, launched)
        });
        let (log_from, started) = match begun.await {
            Ok((log_from, launched)) => (log_from, launched.and_then(process::Launched::attend)),
            Err(error) => (0, Err(std::io::Error::other(error))),
        };
        match started {
            Ok(started) => {
                let process = started.process.entry();
                tracing::info!(store = %self.store, node = %self.node, pid = process.pid, "started");
                self.write(|entry| {
                    entry.state = NodeState::Spawning;
                    entry.process = Some(process);
                });
                let process = started.process;
                let running = Running { process, sampler: None, follower: None, log_from };
                let deadline = Instant::now() + self.agent.options().pace.ready_max;
                self.phase = Phase::Coming { running, ready: started.ready, deadline };
            }
            Err(error) => self.give_up(&format!("cannot start a process for it: {error}"), 0),
        }
    }

    fn ready(&mut self, line: &ReadyLine) {
        let Phase::Coming { running, .. } = std::mem::replace(&mut self.phase, Phase::Down) else {
            return;
        };
        tracing::info!(store = %self.store, node = %self.node, pid = line.pid, "ready; {}", line.io);
        if let (Some(key), Some(boot)) = (&self.key, ranges::boot_of(&line.boot)) {
            self.agent.ranges().up(key, boot);
        }
        self.up_running(running, Instant::now());
        self.answer_starters(&Ok("Started".to_string()));
    }

    /// Goes on with a process that this manager did not start. When it was ready nobody knows; long ago, most likely.
    fn up(&mut self, process: Process, log_from: u64) {
        let now = Instant::now();
        let since = now.checked_sub(self.agent.options().pace.early_exit).unwrap_or(now);
        self.up_running(Running { process, sampler: None, follower: None, log_from }, since);
    }

    fn up_running(&mut self, mut running: Running, since: Instant) {
        let process = running.process.entry();
        self.write(|entry| {
            entry.state = NodeState::Running;
            entry.process = Some(process);
            entry.message = None;
        });
        running.follower = self.follow(&running.process);
        let watched = self.key.clone().map(|key| (key, running.process.signaller()));
        let sampler = watch(
            Arc::clone(&self.agent),
            Arc::clone(&self.live),
            self.paths.clone(),
            watched,
            std::mem::take(&mut self.unanswering),
        );
        running.sampler = Some(tokio::spawn(sampler));
        self.phase = Phase::Up { running, since };
    }

    /// Tells a node what the catalogue of the ranges says, for as long as its process lives.
    fn follow(&self, process: &Process) -> Option<JoinHandle<()>> {
        let node = Followed {
            key: self.agent.any_node_key(&self.store, &self.node)?,
            has_copies: self.key.is_some(),
            socket: self.paths.socket.clone(),
            pid: process.pid(),
        };
        Some(tokio::spawn(ranges::follow(Arc::clone(self.agent.ranges()), node)))
    }

    /// First of all when a process has ended: others shall lead what it led. Waits for that, but not long.
    async fn tell_of_end(&self) {
        let Some(key) = &self.key else { return };
        tracing::debug!(store = %self.store, node = %self.node, "its process has ended");
        let ranges = self.agent.ranges();
        ranges.gone(key);
        let told = async {
            ranges.until_gone(key).await;
            // Those who follow the other nodes were woken with us; what follows here blocks them.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        };
        // A manager that cannot agree with the others now will later.
        let _ = tokio::time::timeout(WORD_MAX, told).await;
    }

    /// No ready line will come. When the process has ended its exit says more; else it is made to end.
    async fn not_ready(&mut self, reason: &str) {
        if let Phase::Coming { running, .. } = &mut self.phase {
            let pause = tokio::time::timeout(Duration::from_secs(1), running.process.exited());
            let exit = pause.await;
            if let Ok(exit) = exit {
                self.exited(exit).await;
            } else {
                running.process.signaller().kill();
                let log_from = running.log_from;
                let text = format!("{reason}, and went on running");
                self.fail_coming(&text, log_from);
            }
        }
    }

    fn fail_coming(&mut self, reason: &str, log_from: u64) {
        if let Phase::Coming { mut running, .. } = std::mem::replace(&mut self.phase, Phase::Down) {
            // Reaped where nobody waits for it.
            tokio::spawn(async move { running.process.exited().await });
        }
        self.give_up(reason, log_from);
    }

    /// A process may end so soon after its ready line that its end is seen first. It did serve, so that this is a crash to
    /// recover from and not a start that failed.
    async fn ready_before_exit(&mut self) {
        if let Phase::Coming { ready, .. } = &mut self.phase {
            // The pipe ended with the process, so the line is there or will never be.
            let line = tokio::time::timeout(Duration::from_secs(1), ready).await;
            if let Ok(Ok(Ok(line))) = line {
                self.ready(&line);
            }
        }
    }

    async fn exited(&mut self, exit: Exit) {
        let (served, log_from) = match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Leaving { .. } => {
                tracing::info!(store = %self.store, node = %self.node, "stopped");
                self.write(|entry| {
                    entry.state = NodeState::Stopped;
                    entry.process = None;
                    entry.message = None;
                });
                self.forget_samples();
                for stopper in self.stoppers.drain(..) {
                    answer(stopper, Ok("Stopped".to_string()));
                }
                return;
            }
            Phase::Coming { running, .. } => (None, running.log_from),
            Phase::Up { running, since } => (Some(since.elapsed()), running.log_from),
            Phase::Down | Phase::Waiting { .. } => return,
        };
        self.forget_samples();
        let code = exit.code();
        let from_outside = !self.live.take_hung() && exit.is_from_outside(served.is_some());
        if served.is_none() && code == Some(dkv_protocol::launch::exit::ALREADY_RUNNING) {
            // A process of an earlier manager, that this one did not know of.
            if let Some(process) = self.find_by_socket().await {
                self.up(process, log_from);
                self.answer_starters(&Ok("Already running".to_string()));
                return;
            }
        }
        let ended = Ended { served, code, from_outside };
        let on_request = !self.starters.is_empty();
        match self.restarts.after(ended, on_request, &self.agent.options().pace) {
            AfterExit::GiveUp => {
                let words = exit.in_words();
                let reason = if served.is_some() {
                    format!("{words}, again and again shortly after its start")
                } else {
                    words
                };
                self.give_up(&reason, log_from);
            }
            AfterExit::Restart(pause) => {
                let lines = process::last_lines(&self.paths.log, log_from);
                let message = with_lines(&exit.in_words(), &lines);
                tracing::warn!(store = %self.store, node = %self.node, reason = message, "ended; starts again");
                self.write(|entry| {
                    entry.state = NodeState::Restarting;
                    entry.process = None;
                    entry.restarts += 1;
                    entry.message = Some(message);
                });
                if pause.is_zero() {
                    self.spawn().await;
                } else {
                    self.phase = Phase::Waiting { until: Instant::now() + pause };
                }
            }
        }
    }

    async fn time(&mut self) {
        match &mut self.phase {
            Phase::Waiting { .. } => {
                // Between two tries the process that is in the way may have begun to answer.
                if let Some(process) = self.find_by_socket().await {
                    self.up(process, process::log_len(&self.paths.log));
                    self.answer_starters(&Ok("Already running".to_string()));
                } else {
                    self.spawn().await;
                }
            }
            Phase::Coming { running, .. } => {
                running.process.signaller().kill();
                let log_from = running.log_from;
                let seconds = self.agent.options().pace.ready_max.as_secs_f32();
                self.fail_coming(&format!("it was not ready within {seconds} s"), log_from);
            }
            Phase::Leaving { running, force: true, overdue, .. } => {
                *overdue = true;
                running.process.signaller().kill();
            }
            Phase::Leaving { force: false, overdue, .. } => {
                *overdue = true;
                let seconds = self.agent.options().pace.stop_max.as_secs_f32();
                let refusal = Refusal::of(
                    504,
                    "stop_overdue",
                    format!(
                        "{} did not end within {seconds} s; it is still on its way down",
                        self.node
                    ),
                    format!("dkv store stop {} --force", self.store),
                );
                for stopper in self.stoppers.drain(..) {
                    answer(stopper, Err(refusal.clone()));
                }
            }
            Phase::Down | Phase::Up { .. } => {}
        }
    }

    fn give_up(&mut self, reason: &str, log_from: u64) {
        let lines = process::last_lines(&self.paths.log, log_from);
        let message = with_lines(reason, &lines);
        tracing::error!(store = %self.store, node = %self.node, reason = message, "failed");
        self.phase = Phase::Down;
        self.forget_samples();
        let kept = message.clone();
        self.write(|entry| {
            entry.state = NodeState::Failed;
            entry.process = None;
            entry.message = Some(kept);
        });
        let refusal = Refusal::of(
            500,
            "node_failed",
            format!("{} did not start: {message}", self.node),
            format!("read {}; see also: dkv doctor", self.paths.log.display()),
        );
        self.answer_starters(&Err(refusal));
        for stopper in self.stoppers.drain(..) {
            answer(stopper, Ok("Stopped".to_string()));
        }
    }

    fn answer_starters(&mut self, outcome: &Answer) {
        for starter in self.starters.drain(..) {
            answer(starter, outcome.clone());
        }
    }

    fn forget_samples(&self) {
        self.live.samples.lock().expect("no holder of this lock panics").clear();
    }

    /// Writes down what was seen. It has happened already, so that a disk that is full changes nothing about it.
    fn write(&self, change: impl FnOnce(&mut NodeEntry)) {
        self.agent.record_node(&self.store, &self.node, change);
    }
}

fn with_lines(reason: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return reason.to_string();
    }
    format!("{reason}; its log ends: {}", lines.join(" | "))
}

/// Whoever asked may have gone away; that changes nothing.
fn answer(reply: oneshot::Sender<Answer>, outcome: Answer) {
    let _ = reply.send(outcome);
}
