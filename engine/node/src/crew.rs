//! The threads of the shards, as they come up: all of them on rings, or all of them on epoll.
//!
//! Whether this machine gives rings is found out by making them, one for each shard with all it needs, and having each do some
//! work; nothing is concluded from versions. Where one cannot be had and the node may choose, none is kept.

use crate::launch::Launch;
use crate::mail::{Letterbox, Post, letterbox};
use crate::shard_thread::ShardThread;
use crate::start::StartError;
use dkv_io::WakeHandle;
use dkv_protocol::io::IoChoice;

/// What the shards' reactors are made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uring,
    Epoll,
}

/// The threads of a node, each with its reactor, before they are given anything to serve.
pub(crate) struct Crew {
    pub(crate) threads: Vec<ShardThread>,
    pub(crate) letterboxes: Vec<Letterbox>,
    pub(crate) posts: Vec<Post>,
    pub(crate) kind: Kind,
    /// Which kernel features are in use, and why not others.
    pub(crate) io: String,
}

impl Crew {
    /// Starts the threads, in the way that the launch document asks for.
    pub(crate) fn come_up(launch: &Launch) -> Result<Self, StartError> {
        match launch.document.io {
            IoChoice::Uring => Self::of(launch, Kind::Uring),
            IoChoice::Epoll => Self::of(launch, Kind::Epoll),
            IoChoice::Auto => match Self::of(launch, Kind::Uring) {
                Err(StartError::IoUnavailable(cause)) => {
                    let mut crew = Self::of(launch, Kind::Epoll)?;
                    tracing::warn!(
                        "no io_uring here, so this node runs on epoll, where a command costs more CPU; to change that: {cause}"
                    );
                    crew.io.extend(["; no io_uring: ", &cause]);
                    Ok(crew)
                }
                result => result,
            },
        }
    }

    fn of(launch: &Launch, kind: Kind) -> Result<Self, StartError> {
        let shards = launch.shards();
        let mut crew = Self {
            threads: Vec::with_capacity(shards),
            letterboxes: Vec::with_capacity(shards),
            posts: Vec::with_capacity(shards),
            kind,
            io: String::new(),
        };
        for (shard, &cpu) in launch.document.cpus.iter().enumerate() {
            let wake = WakeHandle::new().map_err(|e| {
                StartError::Failed(format!("no descriptor for waking shard {shard}: {e}"))
            })?;
            let (letters, post) = letterbox(shards, wake.clone());
            crew.letterboxes.push(letters);
            crew.posts.push(post);
            let label = (launch.document.store.clone(), launch.node().name.clone());
            crew.threads.push(ShardThread::start(shard, (cpu, kind), wake, label)?);
        }
        let heard = crew.threads.iter().map(ShardThread::hear).collect::<Result<Vec<_>, _>>();
        match heard {
            Ok(descriptions) => {
                crew.io = descriptions.into_iter().next().unwrap_or_default();
                Ok(crew)
            }
            Err(error) => {
                // Rings of those that got one are gone before anything else is tried.
                crew.threads.into_iter().for_each(ShardThread::dismiss);
                Err(error)
            }
        }
    }
}
