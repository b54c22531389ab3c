//! The Unix socket on which the node answers its manager: one JSON line in, one out.
//!
//! Whoever may open the socket may stop the node, so it is made with mode 0600 from the first moment (by umask, not by a
//! chmod that comes later) and lies in the manager's own directory.

use crate::cluster::Cluster;
use crate::follow::Follower;
use crate::identity::IdentityLock;
use crate::shared::Shared;
use crate::start::StartError;
use crate::status;
use crate::users::UsersDesk;
use dkv_protocol::control::ControlRequest;
use rustix::fs::Mode;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Longest request line, bytes. Requests are a few dozen.
const LINE_BYTES_MAX: u64 = 4096;
/// Connections at a time: the manager's, its successor's, and people with a tool. One more, and the oldest has to go.
const CONNECTIONS_MAX: usize = 16;

/// How often it is looked whether the files by which a manager finds this node are still there.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// The socket's file, removed with this value.
pub(crate) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the socket. A file that an earlier process left behind is removed, unless somebody answers on it.
///
/// To be called before other threads make files: the umask is the process's.
pub(crate) fn bind(path: &str) -> Result<(UnixListener, SocketFile), StartError> {
    let path = Path::new(path);
    Ok((listen(path)?, SocketFile { path: path.to_owned() }))
}

fn listen(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |cause: io::Error| {
        StartError::BadConfiguration(format!(
            "the control socket {} cannot be made: {cause}",
            path.display()
        ))
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(failed(io::Error::other(
                "something that is no socket stands there; move it away",
            )));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                return Err(StartError::AlreadyRunning(format!(
                    "somebody answers on {}, the control socket of this node: it already runs",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
    }
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Makes the files of this node anew that were removed under it, as when the manager's directory was lost with its disk:
/// a manager that starts there anew finds the node by them. A new socket when that was among them.
fn renew(lock: &IdentityLock, path: &str) -> io::Result<Option<tokio::net::UnixListener>> {
    // The lock first: who finds the socket finds the node's identity taken.
    lock.renew()?;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(|_| None),
    }
    // The umask is changed for a moment. Other threads that make a file just then make one that is more private.
    let listener = listen(Path::new(path)).map_err(|error| io::Error::other(error.to_string()))?;
    tracing::warn!(path, "the control socket was removed, and is made anew");
    tokio::net::UnixListener::from_std(listener).map(Some)
}

/// Serves the socket, for ever. `stop` is told when the manager wants the node to stop.
pub(crate) async fn serve(
    mut listener: tokio::net::UnixListener,
    lock: Rc<IdentityLock>,
    shared: Arc<Shared>,
    cluster: Rc<Cluster>,
    stop: Rc<Notify>,
) {
    let users = Rc::new(UsersDesk::new(Arc::clone(&shared), cluster.posts().to_vec()));
    let follower = Rc::new(Follower::new(Arc::clone(&shared), Rc::clone(&users)));
    tokio::task::spawn_local(async move { users.run().await });
    let connections: RefCell<VecDeque<AbortHandle>> = RefCell::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                // Without the directory there is no place for them; it is looked again.
                if let Ok(Some(renewed)) = renew(&lock, &shared.launch.document.control_socket) {
                    listener = renewed;
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let (shared, stop) = (Arc::clone(&shared), Rc::clone(&stop));
                let (cluster, follower) = (Rc::clone(&cluster), Rc::clone(&follower));
                let task = tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &shared, &cluster, follower, &stop).await {
                        tracing::debug!(%error, "control socket: a connection ended");
                    }
                });
                let mut connections = connections.borrow_mut();
                connections.retain(|task| !task.is_finished());
                connections.push_back(task.abort_handle());
                if connections.len() > CONNECTIONS_MAX
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: no connection can be accepted for now");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    stream: tokio::net::UnixStream,
    shared: &Shared,
    cluster: &Rc<Cluster>,
    follower: Rc<Follower>,
    stop: &Notify,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut read).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        if length as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            return refuse(
                &mut write,
                &format!("a request is one line of at most {LINE_BYTES_MAX} bytes"),
            )
            .await;
        }
        let request: ControlRequest = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => return refuse(&mut write, &format!("not a request: {error}")).await,
        };
        let mut answer =
            serde_json::to_vec(&status::node_status(shared)).map_err(io::Error::other)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
        match request {
            ControlRequest::Status => {}
            ControlRequest::Stop => {
                tracing::info!("asked to stop by the manager");
                stop.notify_one();
            }
            ControlRequest::Follow => {
                return follower.follow(read, write, cluster).await;
            }
        }
    }
}

/// Says what was wrong and ends the connection: what follows could be the rest of anything.
async fn refuse(write: &mut tokio::net::unix::OwnedWriteHalf, reason: &str) -> io::Result<()> {
    tracing::warn!("control socket: refused: {reason}");
    let mut answer =
        serde_json::to_vec(&serde_json::json!({ "error": reason })).map_err(io::Error::other)?;
    answer.push(b'\n');
    write.write_all(&answer).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::launch::exit;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_is_private_from_the_start_and_goes_with_its_node() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.sock");
        let text = path.to_str().expect("plain path");
        let (listener, file) = bind(text).map_err(|e| e.to_string()).expect("free");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let error = bind(text).err().expect("somebody answers");
        assert_eq!(error.exit_code(), exit::ALREADY_RUNNING, "{error}");
        drop(listener);
        let (_listener, _second) =
            bind(text).map_err(|e| e.to_string()).expect("nobody answers any more");
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn files_that_were_removed_are_made_anew_once_there_is_a_place_for_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = directory.path().join("run");
        std::fs::create_dir(&run).expect("made");
        let (socket, locked) = (run.join("node.sock"), run.join("node.lock"));
        let path = socket.to_str().expect("plain path");
        let lock = IdentityLock::take(locked.to_str().expect("plain path"));
        let lock = lock.map_err(|e| e.to_string()).expect("free");
        let (first, _file) = bind(path).map_err(|e| e.to_string()).expect("free");
        assert!(renew(&lock, path).expect("all is there").is_none());
        std::fs::remove_dir_all(&run).expect("there");
        assert!(renew(&lock, path).is_err());
        std::fs::create_dir(&run).expect("made");
        let renewed = renew(&lock, path).expect("there is a place").expect("it was removed");
        drop(first);
        UnixStream::connect(path).expect("somebody listens");
        drop(renewed);
        assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(IdentityLock::take(locked.to_str().expect("plain path")).is_err());
    }

    #[test]
    fn something_else_in_its_place_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.sock");
        std::fs::write(&path, "precious").expect("written");
        let error = bind(path.to_str().expect("plain path")).err().expect("refused");
        assert_eq!(error.exit_code(), exit::BAD_CONFIGURATION);
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }
}
