//! Following one node: over its control socket it is told what the catalogue says about the users of its store and, in a
//! store with copies, about its ranges; it says what its clients and its copies want changed. It begins anew whenever the
//! connection ends, with everything.

use super::users::UsersOf;
use super::{NodeKey, Ranges, Told};
use dkv_protocol::control::{ControlRequest, FromNode, NodeStatus, ToNode};
use dkv_protocol::ids::BootId;
use dkv_protocol::ranges::RangeNews;
use dkv_protocol::users::{Users, UsersAnswer, UsersRefusal};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The pause before a connection that ended is made again.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest line of a node, in bytes: its account of itself, or the asks of all its ranges.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most time for a node to take what it is told; it reads from a thread that does nothing long.
const TELL_MAX: Duration = Duration::from_secs(3);

/// Changes of users that one node may have under way; more are refused. Its clients are few who do that.
const CHANGES_UNDER_WAY_MAX: usize = 16;

/// A node to be followed.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) key: NodeKey,
    /// Whether its store has copies. Otherwise it is told users alone.
    pub(crate) has_copies: bool,
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
}

/// Follows a node until it is aborted, which who knows of the end of its process does.
pub(crate) async fn follow(ranges: Arc<Ranges>, node: Followed) {
    let mut said = false;
    loop {
        let told = if node.has_copies {
            let Some(told) = ranges.told(&node.key.store) else { return };
            Some(told)
        } else {
            None
        };
        let ended = converse(&ranges, &node, told).await;
        if ended.is_ok() {
            return;
        }
        if !said {
            tracing::debug!(node = node.key.node.0, reason = ?ended.err(), "following ended; it begins anew");
            said = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Carries one connection to its end, which is an error. Otherwise it is a node to which there is nothing to tell.
async fn converse(
    ranges: &Arc<Ranges>,
    node: &Followed,
    mut told: Option<watch::Receiver<Arc<Told>>>,
) -> io::Result<()> {
    let key = &node.key;
    let (read, mut write) = UnixStream::connect(&node.socket).await?.into_split();
    let mut read = BufReader::new(read);
    if !node.has_copies {
        // One of an earlier version refuses to be followed.
        let status = ask(ControlRequest::Status, node, &mut read, &mut write).await?;
        if status.users_version.is_none() {
            return Ok(());
        }
    }
    let status = ask(ControlRequest::Follow, node, &mut read, &mut write).await?;
    let boot = boot_of(&status.boot).ok_or_else(|| io::Error::other("its boot is no number"))?;
    ranges.up(key, boot);
    let mut users = ranges.users();
    let mut sent = Sent { node_users: status.users_version, ..Sent::default() };
    let mut under_way: JoinSet<(u64, UsersAnswer)> = JoinSet::new();
    let mut answers: Vec<(u64, UsersAnswer)> = Vec::new();
    let mut text = Vec::new();
    loop {
        let mut words = Vec::from_iter(sent.users(key, &users.borrow_and_update()));
        if let Some(told) = &mut told {
            words.extend(sent.news(key, &told.borrow_and_update().clone()));
        }
        // Behind the users that came of them.
        let answer = |(id, answer)| ToNode::UsersAnswer { id, answer };
        words.extend(answers.drain(..).map(answer));
        for words in words {
            let taken = tokio::time::timeout(TELL_MAX, write.write_all(&line(&words))).await;
            taken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if let ToNode::Ranges { news } = &words {
                tracing::debug!(node = key.node.0, ranges = news.len(), "told");
            }
        }
        let more = async {
            match &mut told {
                Some(told) => told.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = more => changed.map_err(io::Error::other)?,
            changed = users.changed() => changed.map_err(io::Error::other)?,
            Some(done) = under_way.join_next() => answers.extend(done),
            // What was read of a line stays in `text` when another branch is faster.
            heard = next_line(&mut read, &mut text) => {
                heard?;
                let words = serde_json::from_slice(&text).map_err(io::Error::other)?;
                text.clear();
                match words {
                    FromNode::Asks { asks } => ranges.asks(key, asks),
                    FromNode::ChangesUsers { id, .. } if under_way.len() >= CHANGES_UNDER_WAY_MAX => {
                        answers.push((id, UsersAnswer::Refused { why: UsersRefusal::Busy }));
                    }
                    FromNode::ChangesUsers { id, changes } => {
                        let (ranges, store) = (Arc::clone(ranges), key.store.clone());
                        under_way.spawn(async move { (id, ranges.change_users(&store, changes).await) });
                    }
                }
            }
        }
    }
}

/// Asks the node, and sees that it is the one that is meant.
async fn ask(
    request: ControlRequest,
    node: &Followed,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<NodeStatus> {
    write.write_all(&line(&request)).await?;
    let mut text = Vec::new();
    next_line(read, &mut text).await?;
    let status: NodeStatus = serde_json::from_slice(&text).map_err(io::Error::other)?;
    // A socket that another process has taken over is not this node's.
    if status.pid != node.pid || status.store_id != node.key.store.0 {
        return Err(io::Error::other("another process answers"));
    }
    Ok(status)
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
    /// The version of the users that the node has; none of a node that knows no users.
    node_users: Option<u64>,
    users: Option<Arc<Users>>,
    /// Whether it was said that they are lost.
    lost: bool,
}

impl Sent {
    /// The users of the store, when they are new. A node that has some while the managers never heard of any keeps them:
    /// they were lost with the log of the managers, and nobody shall be let in by that.
    fn users(&mut self, key: &NodeKey, now: &UsersOf) -> Option<ToNode> {
        let had = self.node_users?;
        let now = now.as_ref()?.get(&key.store).cloned().unwrap_or_default();
        if self.users.as_ref() == Some(&now) {
            return None;
        }
        if now.version > 0 || had == 0 {
            self.node_users = Some(now.version);
            self.users = Some(Arc::clone(&now));
            return Some(ToNode::Users { users: Users::clone(&now) });
        }
        if !self.lost {
            self.lost = true;
            tracing::error!(
                store = %key.store,
                node = key.node.0,
                "the managers have lost the users of this store; the node goes on with those that it has until they are set \
                 again: dkv store user set"
            );
        }
        None
    }

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
    fn users_are_told_once_and_again_when_they_change_and_never_taken_away_by_who_lost_them() {
        let key = NodeKey { store: StoreId("s".into()), node: NodeIndex(1) };
        let of = |version| {
            let users = Users { version, lines: vec![format!("user u{version} on")] };
            Some(Arc::new([(key.store.clone(), Arc::new(users))].into()))
        };
        let none: UsersOf = Some(Arc::default());
        let version = |told: Option<ToNode>| match told {
            Some(ToNode::Users { users }) => Some(users.version),
            _ => None,
        };
        let mut sent = Sent { node_users: Some(0), ..Sent::default() };
        assert_eq!(version(sent.users(&key, &None)), None, "nothing is known yet");
        assert_eq!(version(sent.users(&key, &none)), Some(0));
        assert_eq!(version(sent.users(&key, &none)), None);
        assert_eq!(version(sent.users(&key, &of(1))), Some(1));
        assert_eq!(version(sent.users(&key, &of(1))), None);

        let mut sent = Sent { node_users: Some(7), ..Sent::default() };
        assert_eq!(version(sent.users(&key, &none)), None);
        assert_eq!(version(sent.users(&key, &of(1))), Some(1), "they were set again");
        assert_eq!(version(sent.users(&key, &none)), None, "and lost once more");

        let mut older = Sent::default();
        assert_eq!(version(older.users(&key, &of(1))), None);
    }

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
