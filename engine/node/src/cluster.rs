//! The cluster port and the dialling of other nodes, on the control thread: connections become links here.
//!
//! A connection is nobody until the handshake of `dkv_protocol::hello` is through. Only then does it go to a shard, which
//! from then on owns it; the control thread sees it again only as the news that it has ended. Everything here is bounded
//! in time and number, because anybody can connect. Sockets are tokio's own: the handshake has a time-out, and an
//! operation of tokio-uring must not be dropped unfinished.

use crate::board::Place;
use crate::mail::{NewLink, Post};
use crate::refusals::Refusals;
use crate::shared::Shared;
use bytes::Bytes;
use dkv_protocol::frame::{FrameError, FrameKind, FrameReader};
use dkv_protocol::hello::{Acceptor, Dialer, Identity, NONCE_BYTES, Nonce, Peer, Refusal, Step};
use dkv_protocol::ids::NodeIndex;
use dkv_protocol::map::{NodeInfo, StoreMap};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// Strangers that may be in a handshake at a time. One more, and the oldest has to go: an honest one takes milliseconds.
const HANDSHAKES_MAX: usize = 64;
/// The pauses between attempts to reach a node that is down.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// A link that lived as long as this was a good one: the next attempt is made soon.
const GOOD_LIFE: Duration = Duration::from_secs(1);
/// Data that the other machine does not acknowledge for this long ends the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// What the tasks of the cluster port share.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    posts: Vec<Post>,
    identity: RefCell<Arc<Identity>>,
    /// What keeps the links standing, one task for each place of the board, in its order.
    dialling: RefCell<Vec<AbortHandle>>,
    refusals: Refusals,
    handshakes: RefCell<VecDeque<AbortHandle>>,
}

/// Why there is no link.
#[derive(Debug)]
enum Failure {
    Frame(FrameError),
    Refused(Refusal),
    Io(io::Error),
    /// The other end closed before it had said anything.
    SaidNothing,
    Closed,
    TooSlow,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::SaidNothing => f.write_str("closed without a word"),
            Self::Closed => f.write_str("closed in the middle of the handshake"),
            Self::TooSlow => write!(f, "no handshake within {} s", HANDSHAKE_MAX.as_secs()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Cluster {
    pub(crate) fn new(shared: Arc<Shared>, posts: Vec<Post>, identity: Identity) -> Rc<Self> {
        Rc::new(Self {
            shared,
            posts,
            identity: RefCell::new(Arc::new(identity)),
            dialling: RefCell::default(),
            refusals: Refusals::default(),
            handshakes: RefCell::default(),
        })
    }

    pub(crate) fn posts(&self) -> &[Post] {
        &self.posts
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// The store has these nodes now, of which those in `removed` are gone. Returns the map when there are nodes in it of
    /// which the shards are to hear, until [`Cluster::nodes_are`] says that they have. A list in which known nodes stand
    /// otherwise than before is a mistake of the manager and ignored.
    pub(crate) fn map_of(
        &self,
        nodes: Vec<NodeInfo>,
        removed: &[NodeIndex],
    ) -> Option<Arc<StoreMap>> {
        let known = self.shared.map();
        if !nodes.starts_with(known.nodes()) {
            tracing::error!("the manager tells of other nodes than those this one knows; ignored");
            return None;
        }
        if nodes.len() == known.nodes().len() {
            self.shared.board.grow(&known, removed);
            return None;
        }
        Some(Arc::new(StoreMap::spread(nodes, self.shared.launch.document.epoch)))
    }

    /// All shards have heard of the nodes of this map: links to them may be made, from either side.
    pub(crate) fn nodes_are(self: &Rc<Self>, map: Arc<StoreMap>, removed: &[NodeIndex]) {
        self.shared.board.grow(&map, removed);
        let identity = Arc::new(self.identity().with_map(Arc::clone(&map)));
        self.identity.replace(identity);
        self.shared.set_map(map);
        self.dial_new();
    }

    /// Keeps links standing for all places of the board for which that is not done yet.
    pub(crate) fn dial_new(self: &Rc<Self>) {
        let mut dialling = self.dialling.borrow_mut();
        for place in self.shared.board.places().into_iter().skip(dialling.len()) {
            dialling.push(tokio::task::spawn_local(Rc::clone(self).keep(place)).abort_handle());
        }
    }

    /// Dials nobody any more.
    pub(crate) fn stop_dialling(&self) {
        for task in self.dialling.borrow().iter() {
            task.abort();
        }
    }

    /// Accepts nodes on one address, for ever.
    pub(crate) async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let task = tokio::task::spawn_local(Rc::clone(&self).greet(stream, from));
                    self.remember_handshake(task.abort_handle());
                }
                Err(error) => {
                    // Out of descriptors, mostly. Whoever comes meanwhile waits in the kernel's queue.
                    self.refusals
                        .log(None, &format!("no connection can be accepted for now: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn remember_handshake(&self, task: AbortHandle) {
        let mut handshakes = self.handshakes.borrow_mut();
        handshakes.retain(|task| !task.is_finished());
        handshakes.push_back(task);
        if handshakes.len() > HANDSHAKES_MAX
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
        }
    }

    /// One connection on the cluster port.
    async fn greet(self: Rc<Self>, mut stream: TcpStream, from: SocketAddr) {
        let mut received = Vec::new();
        let outcome = match nonce() {
            Ok(nonce) => {
                let mut acceptor = Acceptor::new(self.identity(), nonce);
                converse(&mut stream, &mut received, |kind, body| acceptor.handle(kind, body)).await
            }
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(peer) => {
                self.shared.board.is_alive(peer.remote.node);
                self.hand_over(stream, peer, false, received).await;
            }
            // A look whether the port is open is nobody's mistake.
            Err(Failure::SaidNothing) => {
                tracing::debug!(%from, "cluster port: closed without a word");
            }
            Err(failure) => self.refusals.log(Some(from), &failure.to_string()),
        }
    }

    /// Keeps one link standing: dials, hands the connection over, waits for its end, dials again.
    async fn keep(self: Rc<Self>, place: Arc<Place>) {
        let name = self.shared.map().node(place.remote.node).name.clone();
        let alive = self.shared.board.alive(place.remote.node);
        let mut pause = REDIAL_MIN;
        let mut last_failure = String::new();
        while !self.shared.board.is_removed(place.remote.node) {
            match self.dial(&place).await {
                Ok((stream, peer, received)) => {
                    let since = Instant::now();
                    last_failure.clear();
                    if self.hand_over(stream, peer, true, received).await {
                        place.ended.notified().await;
                    }
                    if since.elapsed() >= GOOD_LIFE {
                        pause = REDIAL_MIN;
                    }
                }
                Err(failure) => {
                    let failure = failure.to_string();
                    if failure == last_failure {
                        tracing::debug!(peer = name, "still no link: {failure}");
                    } else {
                        tracing::info!(
                            peer = name,
                            remote_shard = place.remote.shard.0,
                            from_shard = place.local.0,
                            "no link: {failure}; trying again"
                        );
                        last_failure = failure;
                    }
                }
            }
            // A node that has just come to us is worth another try at once.
            tokio::select! {
                () = tokio::time::sleep(with_jitter(pause)) => {}
                () = alive.notified() => {}
            }
            pause = (pause * 2).min(REDIAL_MAX);
        }
    }

    async fn dial(&self, place: &Place) -> Result<(TcpStream, Peer, Vec<u8>), Failure> {
        let map = self.shared.map();
        let node = map.node(place.remote.node);
        let address = SocketAddr::new(node.address, node.cluster_port);
        let mut stream =
            match tokio::time::timeout(HANDSHAKE_MAX, TcpStream::connect(address)).await {
                Ok(connected) => connected?,
                Err(_) => return Err(Failure::TooSlow),
            };
        stream.set_nodelay(true)?;
        let (mut dialer, hello) = Dialer::new(self.identity(), place.local, place.remote, nonce()?);
        let mut received = Vec::new();
        stream.write_all(&hello).await?;
        let peer =
            converse(&mut stream, &mut received, |kind, body| dialer.handle(kind, body)).await?;
        Ok((stream, peer, received))
    }

    /// Gives a proven connection to its shard. `false`: it could not be, and nobody will tell of its end.
    async fn hand_over(
        &self,
        stream: TcpStream,
        peer: Peer,
        dialled: bool,
        received: Vec<u8>,
    ) -> bool {
        let socket = match stream.into_std() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a proven connection cannot be handed over");
                return false;
            }
        };
        if let Err(error) =
            socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
        {
            tracing::debug!(%error, "no time-out for unacknowledged data");
        }
        if !dkv_io::sockets::recover_soon(&socket) {
            tracing::debug!(
                "what is lost on the way is sent again no sooner than the system's default"
            );
        }
        let mut link = NewLink {
            peer: peer.remote,
            boot: peer.boot,
            dialled,
            socket: socket.into(),
            received: Bytes::from(received),
        };
        // A shard takes its links in its next turn; that it has no seat free is a matter of a moment.
        while let Err(back) = self.posts[usize::from(peer.local.shard.0)].hand_link(link) {
            link = back;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

/// Drives one end of a handshake to its result. What came in behind it stays in `received`.
async fn converse(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    mut machine: impl FnMut(FrameKind, &[u8]) -> Result<Step, Refusal>,
) -> Result<Peer, Failure> {
    let talk = async {
        let mut reader = FrameReader::for_hello();
        loop {
            // The reader refuses a longer frame than a handshake has, so that `received` stays short.
            while let Some((kind, body, used)) = reader.next(received).map_err(Failure::Frame)? {
                let step = match machine(kind, body) {
                    Ok(step) => step,
                    Err(refusal) => {
                        // The reason is a courtesy; that it cannot be sent changes nothing.
                        let _ = stream.write_all(&refusal.send).await;
                        let _ = stream.shutdown().await;
                        return Err(Failure::Refused(refusal));
                    }
                };
                received.drain(..used);
                stream.write_all(&step.send).await?;
                if let Some(peer) = step.done {
                    return Ok(peer);
                }
            }
            let mut piece = [0; 1024];
            match stream.read(&mut piece).await? {
                0 if received.is_empty() => return Err(Failure::SaidNothing),
                0 => return Err(Failure::Closed),
                n => received.extend_from_slice(&piece[..n]),
            }
        }
    };
    tokio::time::timeout(HANDSHAKE_MAX, talk).await.unwrap_or(Err(Failure::TooSlow))
}

fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// Between three quarters and five quarters of the pause, so that nodes that lost each other do not meet in step.
fn with_jitter(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause * 3 / 4 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}
