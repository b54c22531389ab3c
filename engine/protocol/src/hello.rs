//! The handshake of a cluster link: who dials whom, and the proof that both belong to the same group.
//!
//! It stands apart as two small machines without I/O, so that tests and the node drive the same code. Four frames go
//! back and forth: Hello, Challenge, Proof, Welcome; at any point either side may answer Refused with a reason and close.
//! Its invariants: each side proves the group's secret over *everything* both have said (version, store, map, nodes,
//! shards, boots, nonces) and over its own role, so that a proof can be neither reflected, replayed nor moved to another
//! link; nothing of a peer is believed before its proof; comparisons of proofs take the same time whatever differs.
//! Nonces come in as arguments. It does not encrypt: that is TLS' part. It knows nothing of sockets, and time-outs are its
//! driver's.
//!
//! Bodies, all numbers little endian: Hello is `u16` version, `u8` length and bytes of the store's identity, `u64` hash of
//! the map, `u64` epoch, `u16` node and `u16` shard of the dialer, `u64` boot of the dialer, `u16` node and `u16` shard of
//! the acceptor, 32 bytes nonce. Challenge is `u64` boot of the acceptor, 32 bytes nonce, 32 bytes proof. Proof is 32
//! bytes. Welcome is empty. Refused is the reason as text. A proof is HMAC-SHA256 with the group's secret over the role's
//! label, the body of Hello, and boot and nonce of Challenge.

use crate::frame::{FrameKind, VERSION, begin_frame, end_frame};
use crate::hex;
use crate::ids::{BootId, Epoch, NodeIndex, ShardAddr, ShardIndex, StoreId};
use crate::limits::RANGES;
use crate::map::{NodeInfo, StoreMap};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Length of a nonce.
pub const NONCE_BYTES: usize = 32;
/// A number used once, from the system's random source.
pub type Nonce = [u8; NONCE_BYTES];

const PROOF_BYTES: usize = 32;
/// Bytes of a Challenge before its proof.
const CHALLENGE_HEAD_BYTES: usize = 8 + NONCE_BYTES;
/// Longest identity of a store on the wire.
const STORE_ID_BYTES_MAX: usize = 64;
/// Longest reason that is sent or believed.
const REASON_BYTES_MAX: usize = 512;

const DIALER: &[u8] = b"dkv cluster link 1 dialer\0";
const ACCEPTOR: &[u8] = b"dkv cluster link 1 acceptor\0";

/// The secret of a group. Never printed.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From the 64 hexadecimal digits of a launch document.
    pub fn from_hex(digits: &str) -> Option<Self> {
        hex::decode(digits).map(Self)
    }

    fn mac(&self, role: &[u8], hello: &[u8], challenge_head: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(role);
        mac.update(hello);
        mac.update(challenge_head);
        mac
    }

    fn proof(&self, role: &[u8], hello: &[u8], challenge_head: &[u8]) -> [u8; PROOF_BYTES] {
        self.mac(role, hello, challenge_head).finalize().into_bytes().into()
    }

    /// In constant time.
    fn proves(&self, role: &[u8], hello: &[u8], challenge_head: &[u8], proof: &[u8]) -> bool {
        self.mac(role, hello, challenge_head).verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a node brings to each handshake.
#[derive(Clone, Debug)]
pub struct Identity {
    store: StoreId,
    map: Arc<StoreMap>,
    agreed: Agreed,
    epoch: Epoch,
    node: NodeIndex,
    boot: BootId,
    secret: Secret,
}

/// What two nodes must know alike before they talk.
#[derive(Clone, Copy, Debug)]
enum Agreed {
    /// The whole map, by its hash: it alone says who owns what.
    Map(u64),
    /// Each other. Who owns what is told by the managers, with epochs of its own, and nodes join and leave meanwhile.
    Ends,
}

impl Identity {
    /// Of the node `node` of `map`, in this boot.
    ///
    /// # Panics
    /// When the map has no such node, or the store's identity is longer than 64 bytes: both were checked with the launch
    /// document.
    pub fn new(
        store: StoreId,
        map: Arc<StoreMap>,
        node: NodeIndex,
        boot: BootId,
        secret: Secret,
    ) -> Self {
        assert!(usize::from(node.0) < map.nodes().len() && store.0.len() <= STORE_ID_BYTES_MAX);
        let agreed = Agreed::Map(map_hash(&map));
        let epoch = epoch_of(&map);
        Self { store, map, agreed, epoch, node, boot, secret }
    }

    /// The same in a store whose ranges are configured by its managers: the two ends of a link need only agree on each
    /// other, so that a node may talk to one that knows of a third which it does not know, or no longer.
    #[must_use]
    pub fn configured(mut self) -> Self {
        self.agreed = Agreed::Ends;
        self.epoch = Epoch(0);
        self
    }

    /// The same with another map, in which this node has its place.
    #[must_use]
    pub fn with_map(&self, map: Arc<StoreMap>) -> Self {
        assert!(usize::from(self.node.0) < map.nodes().len(), "a node keeps its index");
        let (store, secret) = (self.store.clone(), self.secret.clone());
        let other = Self::new(store, map, self.node, self.boot, secret);
        if matches!(self.agreed, Agreed::Ends) { other.configured() } else { other }
    }

    /// What both ends of a link must come to. `dialer` and `acceptor` are nodes of the map.
    fn agreed_hash(&self, dialer: NodeIndex, acceptor: NodeIndex) -> u64 {
        match self.agreed {
            Agreed::Map(hash) => hash,
            Agreed::Ends => {
                let mut hash = Sha256::new();
                for node in [dialer, acceptor] {
                    hash.update(node.0.to_le_bytes());
                    hash_node(&mut hash, self.map.node(node));
                }
                short(hash)
            }
        }
    }

    fn has_shard(&self, addr: ShardAddr) -> bool {
        self.map
            .nodes()
            .get(usize::from(addr.node.0))
            .is_some_and(|node| usize::from(addr.shard.0) < node.shard_ports.len())
    }

    fn name(&self, node: NodeIndex) -> &str {
        &self.map.node(node).name
    }
}

/// The greatest epoch of a map.
fn epoch_of(map: &StoreMap) -> Epoch {
    let ranges = 0..=u8::MAX;
    ranges.map(|r| map.epoch(crate::ids::RangeId(r))).max().unwrap_or(Epoch(0))
}

/// A hash of all that a map says. Two nodes whose maps differ would send each other requests for ranges that the other
/// does not own, so they do not talk.
pub fn map_hash(map: &StoreMap) -> u64 {
    let mut hash = Sha256::new();
    hash.update((map.nodes().len() as u32).to_le_bytes());
    for node in map.nodes() {
        hash_node(&mut hash, node);
    }
    for range in 0..RANGES {
        let range = crate::ids::RangeId(range as u8);
        let owner = map.owner(range);
        hash.update(owner.node.0.to_le_bytes());
        hash.update(owner.shard.0.to_le_bytes());
        hash.update(map.epoch(range).0.to_le_bytes());
    }
    short(hash)
}

fn hash_node(hash: &mut Sha256, node: &NodeInfo) {
    hash.update((node.name.len() as u32).to_le_bytes());
    hash.update(node.name.as_bytes());
    match node.address {
        IpAddr::V4(v4) => hash.update(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => hash.update(v6.octets()),
    }
    hash.update(node.cluster_port.to_le_bytes());
    hash.update(node.client_port.to_le_bytes());
    hash.update((node.shard_ports.len() as u32).to_le_bytes());
    for port in &node.shard_ports {
        hash.update(port.to_le_bytes());
    }
}

fn short(hash: Sha256) -> u64 {
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

/// The other end of a link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The shard at the other end.
    pub remote: ShardAddr,
    /// The shard at this end.
    pub local: ShardAddr,
    /// The boot of the other node.
    pub boot: BootId,
}

/// What to do after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// A whole frame to send; empty for none.
    pub send: Vec<u8>,
    /// Set when this end is satisfied: after `send` is out the link carries batches.
    pub done: Option<Peer>,
}

/// The link is not to be: send `send`, log the reason, close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for the log. Holds no control characters.
    pub reason: String,
    /// A whole frame that tells the other end; empty when it was the other end that refused.
    pub send: Vec<u8>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for Refusal {}

impl Refusal {
    fn here(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let send = frame(FrameKind::Refused, &[reason.as_bytes()]);
        Self { reason, send }
    }

    fn there(who: &str, body: &[u8]) -> Self {
        let body = &body[..body.len().min(REASON_BYTES_MAX)];
        let text = String::from_utf8_lossy(body);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { reason: format!("{who} refused the link: {text}"), send: Vec::new() }
    }

    fn unexpected(kind: FrameKind) -> Self {
        Self::here(format!("{kind:?} is not due in the handshake"))
    }

    fn malformed(kind: FrameKind) -> Self {
        Self::here(format!("malformed {kind:?} in the handshake"))
    }
}

fn frame(kind: FrameKind, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_frame(&mut out);
    for part in parts {
        out.extend_from_slice(part);
    }
    end_frame(&mut out, start, kind);
    out
}

/// The end that dials. Make it, send the frame it comes with, then give it each frame that arrives.
#[derive(Debug)]
pub struct Dialer {
    me: Arc<Identity>,
    local: ShardAddr,
    remote: ShardAddr,
    /// The body of our Hello.
    hello: Vec<u8>,
    /// The boot that the other end has proven.
    proven: Option<BootId>,
}

impl Dialer {
    /// A link from our shard `from` to the shard `to` of another node; the second part is the first frame to send.
    ///
    /// # Panics
    /// When the map has no such shards, or `to` is of our own node.
    pub fn new(
        me: Arc<Identity>,
        from: ShardIndex,
        to: ShardAddr,
        nonce: Nonce,
    ) -> (Self, Vec<u8>) {
        let local = ShardAddr { node: me.node, shard: from };
        assert!(me.has_shard(local) && me.has_shard(to) && to.node != me.node);
        let mut hello = Vec::with_capacity(128);
        hello.extend_from_slice(&VERSION.to_le_bytes());
        hello.push(me.store.0.len() as u8);
        hello.extend_from_slice(me.store.0.as_bytes());
        hello.extend_from_slice(&me.agreed_hash(me.node, to.node).to_le_bytes());
        hello.extend_from_slice(&me.epoch.0.to_le_bytes());
        put_shard(&mut hello, local);
        hello.extend_from_slice(&me.boot.0.to_le_bytes());
        put_shard(&mut hello, to);
        hello.extend_from_slice(&nonce);
        let first = frame(FrameKind::Hello, &[&hello]);
        (Self { me, local, remote: to, hello, proven: None }, first)
    }

    /// Takes a frame of the acceptor.
    ///
    /// # Errors
    /// See [`Refusal`]; the machine must not be used again.
    pub fn handle(&mut self, kind: FrameKind, body: &[u8]) -> Result<Step, Refusal> {
        match (kind, self.proven) {
            (FrameKind::Refused, _) => Err(Refusal::there(self.me.name(self.remote.node), body)),
            (FrameKind::Challenge, None) => self.challenge(body),
            (FrameKind::Welcome, Some(boot)) if body.is_empty() => Ok(Step {
                send: Vec::new(),
                done: Some(Peer { remote: self.remote, local: self.local, boot }),
            }),
            (FrameKind::Welcome, Some(_)) => Err(Refusal::malformed(kind)),
            _ => Err(Refusal::unexpected(kind)),
        }
    }

    fn challenge(&mut self, body: &[u8]) -> Result<Step, Refusal> {
        let malformed = Refusal::malformed(FrameKind::Challenge);
        let Some((head, proof)) = body.split_at_checked(CHALLENGE_HEAD_BYTES) else {
            return Err(malformed);
        };
        if proof.len() != PROOF_BYTES {
            return Err(malformed);
        }
        let secret = &self.me.secret;
        if !secret.proves(ACCEPTOR, &self.hello, head, proof) {
            return Err(Refusal::here(WRONG_SECRET));
        }
        let Some(boot) = head.first_chunk() else { return Err(malformed) };
        self.proven = Some(BootId(u64::from_le_bytes(*boot)));
        let proof = secret.proof(DIALER, &self.hello, head);
        Ok(Step { send: frame(FrameKind::Proof, &[&proof]), done: None })
    }
}

const WRONG_SECRET: &str = "the other node does not hold this group's secret (its manager's token)";

/// The end that is dialled. Give it each frame that arrives.
#[derive(Debug)]
pub struct Acceptor {
    me: Arc<Identity>,
    nonce: Nonce,
    due: Due,
}

#[derive(Debug)]
enum Due {
    Hello,
    Proof { peer: Peer, hello: Vec<u8>, challenge_head: [u8; CHALLENGE_HEAD_BYTES] },
    Nothing,
}

impl Acceptor {
    /// For one connection; `nonce` is fresh for each.
    pub fn new(me: Arc<Identity>, nonce: Nonce) -> Self {
        Self { me, nonce, due: Due::Hello }
    }

    /// Takes a frame of the dialer.
    ///
    /// # Errors
    /// See [`Refusal`]; the machine must not be used again.
    pub fn handle(&mut self, kind: FrameKind, body: &[u8]) -> Result<Step, Refusal> {
        match (kind, core::mem::replace(&mut self.due, Due::Nothing)) {
            (FrameKind::Refused, _) => Err(Refusal::there("the dialing node", body)),
            (FrameKind::Hello, Due::Hello) => self.hello(body),
            (FrameKind::Proof, Due::Proof { peer, hello, challenge_head }) => {
                if body.len() != PROOF_BYTES {
                    return Err(Refusal::malformed(kind));
                }
                if !self.me.secret.proves(DIALER, &hello, &challenge_head, body) {
                    return Err(Refusal::here(WRONG_SECRET));
                }
                Ok(Step { send: frame(FrameKind::Welcome, &[]), done: Some(peer) })
            }
            _ => Err(Refusal::unexpected(kind)),
        }
    }

    fn hello(&mut self, body: &[u8]) -> Result<Step, Refusal> {
        let hello = parse_hello(body)?;
        let me = &self.me;
        if hello.store != me.store.0.as_bytes() {
            return Err(Refusal::here("this node belongs to another store"));
        }
        let knows_both = me.has_shard(hello.to) && me.has_shard(hello.from);
        let agreed = match me.agreed {
            Agreed::Map(hash) => hello.map_hash == hash,
            // A node that is new to the store is known to all in a moment, and dials again until then.
            Agreed::Ends => {
                !knows_both || hello.map_hash == me.agreed_hash(hello.from.node, hello.to.node)
            }
        };
        if !agreed {
            let (theirs, ours) = (hello.epoch.0, me.epoch.0);
            return Err(Refusal::here(format!(
                "the nodes know different maps of the store (epoch {theirs} there, {ours} here): \
                 restart the node with the older one"
            )));
        }
        if hello.to.node != me.node {
            return Err(Refusal::here(format!(
                "this is {}, not the node dialled",
                me.name(me.node)
            )));
        }
        if !knows_both || hello.from.node == me.node {
            return Err(Refusal::here("no such shard in this store"));
        }
        let mut challenge_head = [0; CHALLENGE_HEAD_BYTES];
        challenge_head[..8].copy_from_slice(&me.boot.0.to_le_bytes());
        challenge_head[8..].copy_from_slice(&self.nonce);
        let proof = me.secret.proof(ACCEPTOR, body, &challenge_head);
        self.due = Due::Proof {
            peer: Peer { remote: hello.from, local: hello.to, boot: hello.from_boot },
            hello: body.to_vec(),
            challenge_head,
        };
        Ok(Step { send: frame(FrameKind::Challenge, &[&challenge_head, &proof]), done: None })
    }
}

/// The parts of a Hello that the acceptor looks at; the nonce is only summed.
struct Hello<'a> {
    store: &'a [u8],
    map_hash: u64,
    epoch: Epoch,
    from: ShardAddr,
    from_boot: BootId,
    to: ShardAddr,
}

fn parse_hello(body: &[u8]) -> Result<Hello<'_>, Refusal> {
    let mut rest = body;
    let malformed = || Refusal::malformed(FrameKind::Hello);
    let version = u16::from_le_bytes(take(&mut rest).ok_or_else(malformed)?);
    if version != VERSION {
        return Err(Refusal::here(format!(
            "version {version} of the cluster protocol, {VERSION} is spoken here"
        )));
    }
    let mut fields = || {
        let [store_len] = take(&mut rest)?;
        let (store, tail) = rest.split_at_checked(usize::from(store_len))?;
        rest = tail;
        let map_hash = u64::from_le_bytes(take(&mut rest)?);
        let epoch = Epoch(u64::from_le_bytes(take(&mut rest)?));
        let from = take_shard(&mut rest)?;
        let from_boot = BootId(u64::from_le_bytes(take(&mut rest)?));
        let to = take_shard(&mut rest)?;
        let _nonce: Nonce = take(&mut rest)?;
        rest.is_empty().then_some(Hello { store, map_hash, epoch, from, from_boot, to })
    };
    fields().ok_or_else(malformed)
}

/// The next `N` bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*first)
}

fn take_shard(rest: &mut &[u8]) -> Option<ShardAddr> {
    let node = NodeIndex(u16::from_le_bytes(take(rest)?));
    let shard = ShardIndex(u16::from_le_bytes(take(rest)?));
    Some(ShardAddr { node, shard })
}

fn put_shard(out: &mut Vec<u8>, addr: ShardAddr) {
    out.extend_from_slice(&addr.node.0.to_le_bytes());
    out.extend_from_slice(&addr.shard.0.to_le_bytes());
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
