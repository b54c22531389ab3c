//! Following one node of a store with copies: over its control socket it is told what the catalogue says, and says what
//! its copies want changed. It begins anew whenever the connection ends, with everything.

use super::{NodeKey, Ranges, Told};
use dkv_protocol::control::{ControlRequest, FromNode, NodeStatus, ToNode};
use dkv_protocol::ids::BootId;
use dkv_protocol::ranges::RangeNews;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::watch;

/// The pause before a connection that ended is made again.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest line of a node, in bytes: its account of itself, or the asks of all its ranges.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most time for a node to take what it is told; it reads from a thread that does nothing long.
const TELL_MAX: Duration = Duration::from_secs(3);

/// Follows a node until it is aborted, which who knows of the end of its process does.
pub(crate) async fn follow(ranges: Arc<Ranges>, key: NodeKey, socket: PathBuf, pid: u32) {
    let mut said = false;
    loop {
        let Some(told) = ranges.told(&key.store) else { return };
        let ended = converse(&ranges, &key, &socket, pid, told).await;
        if !said {
            tracing::debug!(node = key.node.0, reason = ?ended.err(), "following ended; it begins anew");
            said = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn converse(
    ranges: &Ranges,
    key: &NodeKey,
    socket: &PathBuf,
    pid: u32,
    mut told: watch::Receiver<Arc<Told>>,
) -> io::Result<()> {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    let mut read = BufReader::new(read);
    write.write_all(&line(&ControlRequest::Follow)).await?;
    let mut text = Vec::new();
    next_line(&mut read, &mut text).await?;
    let status: NodeStatus = serde_json::from_slice(&text).map_err(io::Error::other)?;
    let boot = boot_of(&status.boot).ok_or_else(|| io::Error::other("its boot is no number"))?;
    // A socket that another process has taken over is not this node's.
    if status.pid != pid || status.store_id != key.store.0 {
        return Err(io::Error::other("another process answers"));
    }
    ranges.up(key, boot);
    let mut sent = Sent::default();
    text.clear();
    loop {
        let now = Arc::clone(&told.borrow_and_update());
        for words in sent.news(key, &now) {
            let taken = tokio::time::timeout(TELL_MAX, write.write_all(&line(&words))).await;
            taken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if let ToNode::Ranges { news } = &words {
                tracing::debug!(node = key.node.0, ranges = news.len(), "told");
            }
        }
        tokio::select! {
            changed = told.changed() => changed.map_err(io::Error::other)?,
            // What was read of a line stays in `text` when the other branch is faster.
            heard = next_line(&mut read, &mut text) => {
                heard?;
                let words = serde_json::from_slice(&text).map_err(io::Error::other)?;
                text.clear();
                match words {
                    FromNode::Asks { asks } => ranges.asks(key, asks),
                    FromNode::ChangesUsers { .. } => {
                        return Err(io::Error::other("changes of users that it was not told"));
                    }
                }
            }
        }
    }
}

/// Reads up to the end of a line.
async fn next_line(read: &mut BufReader<OwnedReadHalf>, text: &mut Vec<u8>) -> io::Result<()> {
    let left = LINE_BYTES_MAX.saturating_sub(text.len() as u64);
    read.take(left).read_until(b'\n', text).await?;
    if text.ends_with(b"\n") { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn line(words: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(words).expect("what is said is plain data");
    text.push(b'\n');
    text
}

/// A boot as ready lines and accounts write it.
pub(crate) fn boot_of(text: &str) -> Option<BootId> {
    u64::from_str_radix(text, 16).ok().map(BootId)
}

/// What this connection was told already.
#[derive(Default)]
struct Sent {
    told: Option<Arc<Told>>,
}

impl Sent {
    /// What is new.
    fn news(&mut self, key: &NodeKey, now: &Arc<Told>) -> Vec<ToNode> {
        let before = self.told.replace(Arc::clone(now));
        let mut words = Vec::new();
        let same_nodes = |b: &Arc<Told>| (&b.nodes, &b.removed) == (&now.nodes, &now.removed);
        if !before.as_ref().is_some_and(same_nodes) {
            let (nodes, removed) = (now.nodes.clone(), now.removed.clone());
            words.push(ToNode::Nodes { nodes, removed });
        }
        let asks = |told: &Told, range: usize| {
            told.answered.get(&key.node).map_or(0, |counts| counts[range])
        };
        let news: Vec<RangeNews> = now
            .news
            .iter()
            .enumerate()
            .filter_map(|(range, news)| {
                let known = before.as_ref().and_then(|b| b.news.get(range));
                // What was decided before this connection began is answered by the news themselves.
                let answer = before.as_ref().is_some_and(|b| asks(b, range) != asks(now, range));
                let tell = answer || known != Some(news);
                tell.then(|| RangeNews { answer, ..news.clone() })
            })
            .collect();
        if !news.is_empty() {
            words.push(ToNode::Ranges { news });
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dkv_protocol::ids::{NodeIndex, RangeId, StoreId};

    #[test]
    fn a_connection_gets_all_first_and_then_what_is_new_and_the_answers_of_its_node() {
        let news = |range, version| RangeNews {
            range: RangeId(range),
            config: None,
            placement: vec![],
            placement_version: version,
            answer: false,
            left: vec![],
        };
        let key = NodeKey { store: StoreId("s".into()), node: NodeIndex(1) };
        let mut told = Told { news: vec![news(0, 1), news(1, 1)], ..Told::default() };
        let mut sent = Sent::default();
        let all = sent.news(&key, &Arc::new(told.clone()));
        assert!(
            matches!(&all[..], [ToNode::Nodes { .. }, ToNode::Ranges { news }] if news.len() == 2)
        );
        assert!(sent.news(&key, &Arc::new(told.clone())).is_empty());
        told.news[1] = news(1, 2);
        let changed = sent.news(&key, &Arc::new(told.clone()));
        assert_eq!(changed, [ToNode::Ranges { news: vec![news(1, 2)] }]);
        // A refusal changes nothing and is answered; the asks of another node are not its business.
        told.answered.insert(NodeIndex(0), vec![3, 0]);
        assert!(sent.news(&key, &Arc::new(told.clone())).is_empty());
        told.answered.insert(NodeIndex(1), vec![1, 0]);
        let answered = sent.news(&key, &Arc::new(told));
        assert_eq!(
            answered,
            [ToNode::Ranges { news: vec![RangeNews { answer: true, ..news(0, 1) }] }]
        );
    }
}
