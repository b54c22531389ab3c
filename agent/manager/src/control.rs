//! The manager's end of a node's control socket: one JSON line there, one back, each within a bound of time and size.

use dkv_protocol::control::{ControlRequest, NodeStatus};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Most time for one answer. A node answers from a thread of its own that does nothing long.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longest answer, in bytes: 256 shards with their histograms fit.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Asks a node.
pub(crate) async fn ask(socket: &Path, request: ControlRequest) -> io::Result<NodeStatus> {
    let asked = tokio::time::timeout(ANSWER_MAX, exchange(socket, request)).await;
    asked.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

async fn exchange(socket: &Path, request: ControlRequest) -> io::Result<NodeStatus> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut text = serde_json::to_vec(&request).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    let mut line = Vec::new();
    let mut searched = 0;
    loop {
        let read = stream.read_buf(&mut line).await?;
        if let Some(end) = line[searched..].iter().position(|b| *b == b'\n') {
            return serde_json::from_slice(&line[..searched + end]).map_err(io::Error::other);
        }
        searched = line.len();
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}
