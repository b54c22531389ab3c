//! Processes of nodes: started with a clean environment and a log file, recognised again after a restart of the manager,
//! watched through a pidfd, never confused with another process that got the same number.

use crate::ledger::ProcessEntry;
use dkv_protocol::launch::{LaunchDocument, ReadyLine};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// A log file is moved aside (one older one is kept) when it is longer, in bytes.
pub(crate) const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest ready line, in bytes.
const READY_BYTES_MAX: u64 = 64 * 1024;
/// Lines of a log that a failure shows.
const LAST_LINES: usize = 5;
/// What a node may inherit of the manager's environment: what changes its log, nothing that changes its work.
const ENVIRONMENT: &[&str] = &["DKV_LOG", "RUST_BACKTRACE", "TZ"];
/// No huge pages for what a node's allocator has: each thread of an idle node would touch some, and the first touch of one
/// can take milliseconds. A node allows them again for the memory of its tables.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    born: String,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    /// Ours to reap; none when it was adopted.
    child: Option<Child>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    Signal(i32),
    /// It was adopted, so that only its real parent learns how.
    Unknown,
}

impl Exit {
    pub(crate) fn code(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            _ => None,
        }
    }

    /// Whether somebody ended it who is not its manager: by SIGKILL, or by SIGTERM or SIGINT, which a node that serves takes
    /// as being asked to stop.
    pub(crate) fn is_from_outside(self, served: bool) -> bool {
        let signals = [Signal::KILL, Signal::TERM, Signal::INT].map(Signal::as_raw);
        match self {
            Self::Code(code) => served && code == dkv_protocol::launch::exit::OK,
            Self::Signal(signal) => signals.contains(&signal),
            Self::Unknown => false,
        }
    }

    pub(crate) fn in_words(self) -> String {
        match self {
            Self::Code(code) => {
                format!("{} (exit code {code})", crate::plan::steps::code_in_words(code))
            }
            Self::Signal(9) => {
                "it was killed (signal 9; by somebody, or for want of memory)".to_string()
            }
            Self::Signal(signal) => format!("it was ended by signal {signal}"),
            Self::Unknown => "it ended".to_string(),
        }
    }
}

/// A started process with the line that is still to come.
pub(crate) struct Started {
    pub(crate) process: Process,
    /// Ends with the ready line, or with why there is none.
    pub(crate) ready: tokio::task::JoinHandle<Result<ReadyLine, String>>,
}

/// A process that was started and that nobody looks after yet.
pub(crate) struct Launched {
    child: Child,
    stdin: OwnedFd,
    stdout: OwnedFd,
    /// The launch document, for its standard input.
    text: Vec<u8>,
}

/// Starts `command` with its standard error in `log`. Blocks: the kernel gives back a child when it has been given a memory
/// of its own and its program was found.
pub(crate) fn launch(
    command: &[String],
    document: &LaunchDocument,
    dir: &Path,
    log: &Path,
) -> io::Result<Launched> {
    let (program, args) =
        command.split_first().ok_or_else(|| io::Error::other("there is no node command"))?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let mut text = serde_json::to_vec(document).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut process = Command::new(program);
    process.args(args).current_dir(dir).env_clear().env(ALLOCATOR.0, ALLOCATOR.1);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            process.env(name, value);
        }
    }
    let mut child = process.spawn()?;
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(io::Error::other("the pipes to the node are missing"));
    };
    Ok(Launched { child, stdin, stdout, text })
}

impl Launched {
    /// Hands it its launch document and watches it, on the runtime that this is called on.
    pub(crate) fn attend(self) -> io::Result<Started> {
        let Self { child, stdin, stdout, text } = self;
        let mut writer = pipe::Sender::from_owned_fd(stdin)?;
        let reader = pipe::Receiver::from_owned_fd(stdout)?;
        let ready = tokio::spawn(async move {
            // A node that ends before it has read all is known by its exit.
            let _ = writer.write_all(&text).await;
            drop(writer);
            read_ready(reader).await
        });
        let process = watch(child.id(), Some(child))?;
        Ok(Started { process, ready })
    }
}

async fn read_ready(reader: pipe::Receiver) -> Result<ReadyLine, String> {
    let mut reader = reader.take(READY_BYTES_MAX);
    let mut line = Vec::new();
    loop {
        let read = reader.read_buf(&mut line).await.map_err(|error| error.to_string())?;
        if let Some(end) = line.iter().position(|b| *b == b'\n') {
            return serde_json::from_slice(&line[..end])
                .map_err(|error| format!("its ready line is not one: {error}"));
        }
        if read == 0 {
            return Err("it ended without a ready line".to_string());
        }
    }
}

/// The process that a catalogue speaks of, if it still lives.
pub(crate) fn find(entry: &ProcessEntry) -> Option<Process> {
    // The pidfd first: from then on the number cannot be given to another process.
    let process = watch(entry.pid, None).ok()?;
    (process.born == entry.born).then_some(process)
}

/// Whether no process holds the lock of a node: then none of its processes lives.
pub(crate) fn nobody_holds(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The process of a node of which nothing is written down any more: the one that has the node's lock open, wherever that
/// file is by now and whether or not it still has a name. Only processes of this machine, which is one network namespace,
/// are looked at. Blocks: it reads the descriptors of all processes.
pub(crate) fn holder(lock: &Path) -> Option<u32> {
    let name = lock.file_name()?.to_str()?;
    let own = std::process::id();
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| *pid != own && is_here(*pid) && has_open(*pid, name))
}

/// Watches the process that [`holder`] found, when it still is that one.
pub(crate) fn adopt_holder(lock: &Path, pid: u32) -> Option<Process> {
    // The pidfd first: from then on the number cannot be given to another process.
    let process = watch(pid, None).ok()?;
    let name = lock.file_name()?.to_str()?;
    (is_here(pid) && has_open(pid, name)).then_some(process)
}

/// Whether a process is of our network namespace.
fn is_here(pid: u32) -> bool {
    let space = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    space(&pid.to_string()).is_some_and(|there| space("self") == Some(there))
}

/// Whether a process has a file of that name open; the names of locks hold the identity of store and node.
fn has_open(pid: u32, name: &str) -> bool {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|fd| {
        let target = std::fs::read_link(fd.path()).unwrap_or_default();
        let found = target.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        found.strip_suffix(" (deleted)").unwrap_or(found) == name
    })
}

/// Watches a process that is not a child.
pub(crate) fn adopt(pid: u32) -> io::Result<Process> {
    watch(pid, None)
}

fn watch(pid: u32, child: Option<Child>) -> io::Result<Process> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| io::Error::other("no such process number"))?;
    let pidfd = rustix::process::pidfd_open(number, PidfdFlags::NONBLOCK)?;
    let born = born(pid)?;
    #[expect(
        deprecated,
        reason = "its successor needs unsafe, for descriptors that change while registered; a pidfd that is owned cannot"
    )]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    Ok(Process { pid, born, pidfd: Arc::new(pidfd), child })
}

/// The machine's boot and the start time of a process in it.
fn born(pid: u32) -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets that may hold anything; what follows its last bracket is plain.
    let start =
        stat.rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
            .ok_or_else(|| io::Error::other("the kernel's account of the process is cut short"))?;
    Ok(format!("{}/{start}", boot.trim()))
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn entry(&self) -> ProcessEntry {
        ProcessEntry { pid: self.pid, born: self.born.clone() }
    }

    /// Waits for its end. May be dropped and called again.
    pub(crate) async fn exited(&mut self) -> Exit {
        loop {
            // Readable from its end on, for ever.
            let ready = self.pidfd.readable().await;
            let Some(child) = &mut self.child else { return Exit::Unknown };
            match child.try_wait() {
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => Exit::Code(code as u8),
                        (None, Some(signal)) => Exit::Signal(signal),
                        _ => Exit::Unknown,
                    };
                }
                Ok(None) => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                Err(_) => return Exit::Unknown,
            }
        }
    }

    /// A handle to signal it that may outlive it.
    pub(crate) fn signaller(&self) -> Signaller {
        Signaller(Arc::clone(&self.pidfd))
    }
}

/// See [`Process::signaller`].
#[derive(Clone, Debug)]
pub(crate) struct Signaller(Arc<AsyncFd<OwnedFd>>);

impl Signaller {
    pub(crate) fn terminate(&self) {
        self.send(Signal::TERM);
    }

    pub(crate) fn kill(&self) {
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        if let Err(error) = rustix::process::pidfd_send_signal(self.0.get_ref(), signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, ?signal, "cannot signal a node");
        }
    }
}

/// Bytes in a log; 0 when there is none.
pub(crate) fn log_len(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |about| about.len())
}

/// Keeps a log within its bound: what is there moves to `….1` and the file starts anew. The node goes on writing to the
/// same file, which it opened for appending; what it writes during the copy may be lost.
pub(crate) fn bound_log(log: &Path, bytes_max: u64) -> io::Result<bool> {
    if log_len(log) <= bytes_max {
        return Ok(false);
    }
    let mut older = log.as_os_str().to_os_string();
    older.push(".1");
    let older = PathBuf::from(older);
    let mut from = File::open(log)?;
    let mut to =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&older)?;
    // A node that writes faster than this copies must not make it endless.
    io::copy(&mut (&mut from).take(bytes_max * 2), &mut to)?;
    OpenOptions::new().write(true).open(log)?.set_len(0)?;
    Ok(true)
}

/// The last lines that were written after `since`, for a failure's message.
pub(crate) fn last_lines(log: &Path, since: u64) -> Vec<String> {
    const TAIL: u64 = 8 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        let since = if since > len { 0 } else { since };
        file.seek(SeekFrom::Start(since.max(len.saturating_sub(TAIL))))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<String> =
        text.lines().filter(|line| !line.trim().is_empty()).map(plain).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// A log line without terminal colours and other control characters, and of bounded length.
fn plain(line: &str) -> String {
    const CHARS_MAX: usize = 400;
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            text.push(c);
        }
    }
    text.chars().take(CHARS_MAX).collect()
}

/// CPUs that this process may use.
pub(crate) fn available_cpus() -> Vec<u32> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .map(|cpu| cpu as u32)
            .collect(),
        Err(_) => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_bounded_and_their_last_lines_are_plain() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("s.node1.log");
        std::fs::write(&log, "old line\n").unwrap();
        let since = log_len(&log);
        let mut text = std::fs::read_to_string(&log).unwrap();
        text.push_str("\u{1b}[31mERROR\u{1b}[0m port 7811\tis in use\n\nlast\n");
        std::fs::write(&log, &text).unwrap();
        assert_eq!(last_lines(&log, since), ["ERROR port 7811is in use", "last"]);
        assert!(!bound_log(&log, 1000).unwrap());
        assert!(bound_log(&log, 10).unwrap());
        assert_eq!(log_len(&log), 0);
        assert!(log_len(&dir.path().join("s.node1.log.1")) > 0);
        assert_eq!(last_lines(&log, since), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_node_is_found_by_its_lock_also_when_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("0123abcd-7.lock");
        let held = File::create(&lock).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(held).spawn().unwrap();
        assert_eq!(holder(&lock), Some(child.id()));
        std::fs::remove_file(&lock).unwrap();
        assert_eq!(holder(&lock), Some(child.id()));
        assert_eq!(adopt_holder(&lock, child.id()).unwrap().pid(), child.id());
        // Another node's lock is not its.
        assert_eq!(holder(&dir.path().join("0123abcd-77.lock")), None);
        assert!(adopt_holder(&lock, std::process::id()).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holder(&lock), None);
    }

    #[test]
    fn who_ended_a_node_is_told_by_how_it_ended() {
        for (exit, served, from_outside) in [
            (Exit::Signal(9), true, true),
            (Exit::Signal(15), false, true),
            (Exit::Signal(11), true, false),
            (Exit::Signal(6), true, false),
            (Exit::Code(0), true, true),
            (Exit::Code(0), false, false),
            (Exit::Code(1), true, false),
            (Exit::Unknown, true, false),
        ] {
            assert_eq!(exit.is_from_outside(served), from_outside, "{exit:?} {served}");
        }
    }

    #[tokio::test]
    async fn a_process_is_known_by_number_and_birth() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = adopt(child.id()).unwrap();
        let entry = process.entry();
        assert!(find(&entry).is_some());
        let other = ProcessEntry { born: "another".to_string(), ..entry.clone() };
        assert!(find(&other).is_none());
        process.signaller().kill();
        child.wait().unwrap();
        let mut process = process;
        assert_eq!(process.exited().await, Exit::Unknown);
        assert!(find(&entry).is_none());
    }
}
