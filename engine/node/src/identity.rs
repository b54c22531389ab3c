//! What makes this process *the* node: its session, its lock, its limits, its boot.
//!
//! The lock is held for as long as the process lives, so a second start with the same identity ends before it touches
//! a port, whatever happened to the first one's manager.

use crate::start::StartError;
use dkv_protocol::ids::BootId;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// Leaves the manager's session, so that no terminal's end reaches the node.
pub(crate) fn leave_session() {
    // It fails only for a process that already leads a group, as when started by hand; then there is nothing to leave.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "the session stays");
    }
}

/// Raises the soft limit of descriptors to the hard one: each client is one.
pub(crate) fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of descriptors cannot be raised");
        }
    }
    let most = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if most < dkv_protocol::limits::CLIENTS_MAX as u64 + 256 {
        tracing::warn!(
            descriptors = most,
            clients = dkv_protocol::limits::CLIENTS_MAX,
            "fewer descriptors than clients are possible; raise the limit with `ulimit -n` or LimitNOFILE="
        );
    }
}

/// A fresh random number for this start, never 0.
pub(crate) fn new_boot() -> Result<BootId, StartError> {
    let random = getrandom::u64()
        .map_err(|e| StartError::Failed(format!("the kernel gives no random numbers: {e}")))?;
    Ok(BootId(random.max(1)))
}

/// The lock of this node's identity, held until the process ends.
pub(crate) struct IdentityLock {
    path: String,
    /// Holds the pid while the node runs and nothing after an orderly end. Closing it frees the lock.
    file: RefCell<File>,
    /// Whether the last holder came to no orderly end. The kernel takes a ring apart after the process is gone, so its
    /// sockets may still be there for a moment.
    pub(crate) holder_was_killed: bool,
}

impl Drop for IdentityLock {
    fn drop(&mut self) {
        // Nobody is told: a pid left behind only makes the next start more patient.
        let _ = self.file.get_mut().set_len(0);
    }
}

impl IdentityLock {
    /// Takes the lock, and leaves the pid in the file for whoever comes second.
    pub(crate) fn take(path: &str) -> Result<Self, StartError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let failed = |cause: io::Error| {
            StartError::BadConfiguration(format!("the lock file {path} cannot be used: {cause}"))
        };
        let file =
            rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        let mut file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                // The holder's text is a help for the reader, not something to rely on: it may be half written.
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let pid = text
                    .trim()
                    .parse::<u32>()
                    .map_or_else(|_| "unknown".to_owned(), |pid| pid.to_string());
                return Err(StartError::AlreadyRunning(format!(
                    "this node already runs, as pid {pid}: it holds {path}"
                )));
            }
            Err(error) => return Err(failed(error.into())),
        }
        let left = file.metadata().map_err(failed)?.len();
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        let (path, file) = (path.to_owned(), RefCell::new(file));
        Ok(Self { path, file, holder_was_killed: left > 0 })
    }

    /// Makes the file anew when it was removed, so that a second start still finds it held. The lock on the old file is
    /// kept until there is one on the new file.
    pub(crate) fn renew(&self) -> io::Result<()> {
        match std::fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|_| ()),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        writeln!(file, "{}", std::process::id())?;
        self.file.replace(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::launch::exit;

    #[test]
    fn a_lock_names_its_holder_and_knows_whether_the_last_one_ended_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.lock");
        let text = path.to_str().expect("plain path");
        let take = || IdentityLock::take(text).map_err(|e| e.to_string()).expect("free");
        let first = take();
        assert!(!first.holder_was_killed);
        let error = IdentityLock::take(text).err().expect("held");
        assert_eq!(error.exit_code(), exit::ALREADY_RUNNING);
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        // Somebody removes the file: the lock is made anew, and one that is there is left alone.
        std::fs::remove_file(&path).expect("there");
        first.renew().expect("the directory is there");
        first.renew().expect("nothing to do");
        assert!(IdentityLock::take(text).is_err());
        drop(first);
        assert!(!take().holder_was_killed);
        std::fs::write(&path, "4711\n").expect("written");
        assert!(take().holder_was_killed);
    }
}
