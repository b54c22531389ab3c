//! The manager of this machine as `dkv up` and `dkv down` see it: found, started in its own session, ended.

use crate::failure::Failure;
use dkv_agent::AgentOptions;
use dkv_agent::guard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden flag by which a manager that `dkv up` started is told from others.
pub(crate) const OWN_SESSION: &str = "--own-session";
/// The pause between two looks at a manager that starts.
const LOOK: Duration = Duration::from_millis(5);
/// Lines of the log that are shown when it does not start.
const LOG_LINES: usize = 5;

/// A manager that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manager {
    /// Where its API is.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
    /// Whether `dkv up` started it.
    pub(crate) by_up: bool,
}

/// A manager that this process started.
#[derive(Debug)]
pub(crate) struct Started {
    /// As others see it.
    pub(crate) manager: Manager,
    child: Child,
}

/// The manager of this machine, if one runs and uses this data directory.
pub(crate) fn running(data_dir: &Path) -> Result<Option<Manager>, Failure> {
    let Some(holder) = guard::running() else { return Ok(None) };
    let pid = holder.pid;
    let user = rustix::process::geteuid().as_raw();
    if holder.uid != user && user != 0 {
        let what = format!(
            "a manager of another user (uid {}) runs on this machine, pid {pid}",
            holder.uid
        );
        return Err(Failure::failed(
            what,
            "have that user stop it; there is one manager on a machine",
        ));
    }
    let Some(address) = holder.address else {
        let what = format!("the manager of this machine (pid {pid}) does not say its address");
        return Err(Failure::failed(
            what,
            format!("wait a moment and try again, or stop it: kill {pid}"),
        ));
    };
    let arguments = arguments_of(pid);
    if let Some(other) = data_dir_of(pid, &arguments).filter(|other| !same(other, data_dir)) {
        let what = format!(
            "the manager of this machine (pid {pid}, {address}) uses another data directory: {}",
            other.display()
        );
        return Err(Failure::failed(
            what,
            format!("use it: --data-dir {}; or stop it: kill {pid}", other.display()),
        ));
    }
    let by_up = arguments.iter().any(|argument| argument == OWN_SESSION);
    Ok(Some(Manager { address, pid, by_up }))
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    real(a) == real(b)
}

fn strings(path: String) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn arguments_of(pid: u32) -> Vec<String> {
    strings(format!("/proc/{pid}/cmdline"))
}

/// The data directory of a running manager, from its arguments and its environment, by the rule it applied itself.
fn data_dir_of(pid: u32, arguments: &[String]) -> Option<PathBuf> {
    let flag = arguments.iter().enumerate().find_map(|(at, argument)| {
        match argument.strip_prefix("--data-dir") {
            Some("") => arguments.get(at + 1).cloned(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        }
    });
    let environment = strings(format!("/proc/{pid}/environ"));
    let variable = |name: &str| {
        let value = |line: &String| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        environment.iter().find_map(value).filter(|value| !value.is_empty())
    };
    let given = flag.or_else(|| variable("DKV_DATA_DIR")).map(PathBuf::from);
    let rule = || {
        let xdg = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = xdg.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
        base.map(|base| base.join("dkv"))
    };
    let dir = given.or_else(rule)?;
    // Relative to where it was started, unless it moved since.
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    Some(cwd.join(dir))
}

/// Starts a manager on loopback in a session of its own, with its log in its data directory, and waits until it answers.
pub(crate) fn start(data_dir: &Path, timeout: Duration) -> Result<Started, Failure> {
    let failed = |error: io::Error| {
        let what = match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                format!("{} is not a directory", data_dir.display())
            }
            _ => format!("cannot keep files in {}: {error}", data_dir.display()),
        };
        Failure::failed(what, "take another directory: --data-dir DIR, or DKV_DATA_DIR")
    };
    let existed = data_dir.exists();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let empty = fs::read_dir(data_dir).map_err(failed)?.next().is_none();
    if empty {
        // Nobody loses access to anything: there is nothing in it.
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let log_path = data_dir.join("manager.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
    let log = log.map_err(failed)?;
    let begin = log.metadata().map_or(0, |about| about.len());
    let errors = log.try_clone().map_err(|error| Failure::file(&log_path, &error))?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find this program: {error}"), ""))?;
    let mut command = Command::new(program);
    command
        .args(["agent", "--listen", &AgentOptions::LISTEN.to_string(), "--data-dir"])
        .arg(data_dir)
        .arg(OWN_SESSION)
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DKV_"))
    {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .map_err(|error| Failure::failed(format!("cannot start the manager: {error}"), ""))?;
    let pid = child.id();
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(holder) = guard::running().filter(|holder| holder.pid == pid)
            && let Some(address) = holder.address
            && data_dir.join("token").exists()
            && answers(address)
        {
            return Ok(Started { manager: Manager { address, pid, by_up: true }, child });
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let end = tail(&log_path, begin);
                let why = if end.is_empty() {
                    format!("and its log says nothing; is there room in {}?", data_dir.display())
                } else {
                    end
                };
                let what = format!("the manager ended at once ({status}): {why}");
                if begin == 0 {
                    // It never was this manager's directory: nothing is left behind in it.
                    let _ = fs::remove_file(&log_path);
                    if !existed {
                        let _ = fs::remove_dir(data_dir);
                    }
                    return Err(Failure::failed(what, ""));
                }
                return Err(Failure::failed(what, format!("its log is {}", log_path.display())));
            }
            Err(error) => {
                return Err(Failure::failed(format!("cannot watch the manager: {error}"), ""));
            }
        }
        if Instant::now() >= deadline {
            let started = Started {
                manager: Manager { address: AgentOptions::LISTEN, pid, by_up: true },
                child,
            };
            started.stop();
            let what = format!(
                "the manager did not answer within {} s: {}",
                timeout.as_secs(),
                tail(&log_path, begin)
            );
            return Err(Failure::timed_out(what, format!("its log is {}", log_path.display())));
        }
        std::thread::park_timeout(LOOK);
    }
}

fn answers(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// The last lines that a log got since it had `begin` bytes.
fn tail(log: &Path, begin: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let new = bytes.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("; ")
}

impl Started {
    /// Ends it again.
    pub(crate) fn stop(mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Manager {
    /// Asks it to end, and waits until it is gone. Its nodes, if there are any, go on.
    pub(crate) fn end(&self, timeout: Duration) -> Result<(), Failure> {
        let failed = |error: Errno| {
            Failure::failed(format!("cannot stop the manager (pid {}): {error}", self.pid), "")
        };
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return Ok(()) };
        let handle: OwnedFd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        match pidfd_send_signal(&handle, Signal::TERM) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        let limit = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: 0 };
        let mut wait = [PollFd::new(&handle, PollFlags::IN)];
        match poll(&mut wait, Some(&limit)) {
            Ok(0) => {
                let what = format!(
                    "the manager (pid {}) does not end within {} s",
                    self.pid,
                    timeout.as_secs()
                );
                Err(Failure::timed_out(what, format!("kill -9 {}", self.pid)))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// What a manager and its nodes keep in a data directory.
const FILES: &[&str] = &[
    "token",
    "token.new",
    "catalogue.json",
    "catalogue.json.new",
    "ranges.log",
    "ranges.log.new",
    "lock",
    "run",
    "logs",
    "manager.log",
];

/// Removes what is DKV's from a data directory, and the directory when nothing else is in it; gives what is left.
pub(crate) fn remove_files(data_dir: &Path) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(left),
        Err(error) => return Err(Failure::file(data_dir, &error)),
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !FILES.contains(&name.as_str()) {
            left.push(name);
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| Failure::file(&path, &error))?;
    }
    if left.is_empty() {
        fs::remove_dir(data_dir).map_err(|error| Failure::file(data_dir, &error))?;
    }
    left.sort();
    Ok(left)
}

/// Called first thing in a manager that was given [`OWN_SESSION`]: it shall not end with the terminal.
pub(crate) fn own_session() -> Result<(), Failure> {
    match rustix::process::setsid() {
        // Refused to the leader of a group: whoever started it took care of that.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot make a session: {error}"), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("token"), "x").unwrap();
        fs::write(data.join("thesis.tex"), "x").unwrap();
        assert_eq!(remove_files(&data).unwrap(), ["thesis.tex"]);
        assert!(!data.join("token").exists() && data.join("thesis.tex").exists());
        fs::remove_file(data.join("thesis.tex")).unwrap();
        assert!(remove_files(&data).unwrap().is_empty());
        assert!(!data.exists());
        assert!(remove_files(&data).unwrap().is_empty());
    }

    #[test]
    fn the_end_of_a_log_is_shown_from_this_start_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old\nnew one\n\nnew two\n").unwrap();
        assert_eq!(tail(&log, 4), "new one; new two");
        assert_eq!(tail(&dir.path().join("none"), 0), "");
    }
}
