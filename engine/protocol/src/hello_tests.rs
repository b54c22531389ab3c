//! Tests of the handshake: golden bytes, the way it should go, and every way it should not.

use super::*;
use crate::frame::{FrameReader, HEADER_BYTES};
use crate::map::NodeInfo;
use alloc::vec;

const STORE: &str = "0123456789abcdef0123456789abcdef";

fn map(shards: &[u16], epoch: u64) -> StoreMap {
    let mut port = 7900;
    let nodes = shards.iter().enumerate().map(|(i, &count)| NodeInfo {
        name: format!("node{}", i + 1),
        address: IpAddr::from([10, 0, 0, i as u8 + 1]),
        cluster_port: 7811 + i as u16,
        client_port: 7861 + i as u16,
        shard_ports: (0..count)
            .map(|_| {
                port += 1;
                port
            })
            .collect(),
    });
    StoreMap::spread(nodes.collect(), Epoch(epoch))
}

#[derive(Clone, Copy)]
struct Given {
    store: &'static str,
    epoch: u64,
    node: u16,
    boot: u64,
    secret: u8,
}

const FIRST: Given = Given { store: STORE, epoch: 3, node: 0, boot: 0xb0, secret: 7 };
const SECOND: Given = Given { node: 1, boot: 0xb1, ..FIRST };

fn identity(given: Given) -> Arc<Identity> {
    let Given { store, epoch, node, boot, secret } = given;
    let map = Arc::new(map(&[2, 3], epoch));
    let secret = Secret([secret; 32]);
    Arc::new(Identity::new(StoreId(store.into()), map, NodeIndex(node), BootId(boot), secret))
}

fn shard(node: u16, shard: u16) -> ShardAddr {
    ShardAddr { node: NodeIndex(node), shard: ShardIndex(shard) }
}

fn open(frame: &[u8]) -> (FrameKind, &[u8]) {
    let (kind, body, len) = FrameReader::for_hello().next(frame).unwrap().unwrap();
    assert_eq!(len, frame.len());
    (kind, body)
}

fn dialer(given: Given) -> (Dialer, Vec<u8>) {
    Dialer::new(identity(given), ShardIndex(1), shard(1, 2), [0xd1; 32])
}

fn acceptor(given: Given) -> Acceptor {
    Acceptor::new(identity(given), [0xac; 32])
}

/// Lets both talk until both are done or one refuses; each end's outcome.
fn talk(
    (mut dialer, hello): (Dialer, Vec<u8>),
    mut acceptor: Acceptor,
) -> (Result<Peer, String>, Result<Peer, String>) {
    let mut to_acceptor = hello;
    let mut accepted = None;
    loop {
        let (kind, body) = open(&to_acceptor);
        let answer = match acceptor.handle(kind, body) {
            Ok(step) => {
                accepted = accepted.or(step.done);
                step.send
            }
            Err(refusal) => {
                let (kind, body) = open(&refusal.send);
                let dialed = dialer.handle(kind, body).unwrap_err();
                assert!(dialed.send.is_empty(), "a refusal is not answered");
                return (Err(dialed.reason), Err(refusal.reason));
            }
        };
        let (kind, body) = open(&answer);
        match dialer.handle(kind, body) {
            Ok(Step { done: Some(peer), send }) => {
                assert!(send.is_empty());
                return (Ok(peer), accepted.ok_or_else(|| "not done".into()));
            }
            Ok(Step { done: None, send }) => to_acceptor = send,
            Err(refusal) => {
                let (kind, body) = open(&refusal.send);
                let reason = acceptor.handle(kind, body).unwrap_err().reason;
                return (Err(refusal.reason), Err(reason));
            }
        }
    }
}

#[test]
fn two_nodes_of_a_store_shake_hands() {
    let (dialed, accepted) = talk(dialer(FIRST), acceptor(SECOND));
    let dialed_peer = Peer { remote: shard(1, 2), local: shard(0, 1), boot: BootId(0xb1) };
    assert_eq!(dialed, Ok(dialed_peer));
    let accepted_peer = Peer { remote: shard(0, 1), local: shard(1, 2), boot: BootId(0xb0) };
    assert_eq!(accepted, Ok(accepted_peer));
}

#[test]
fn each_refusal_tells_both_ends_why() {
    let cases = [
        (Given { store: "other", ..FIRST }, SECOND, "this node belongs to another store"),
        (Given { epoch: 4, ..FIRST }, SECOND, "epoch 4 there, 3 here"),
        (FIRST, Given { secret: 8, ..SECOND }, "does not hold this group's secret"),
    ];
    for (ours, theirs, reason) in cases {
        let (dialed, accepted) = talk(dialer(ours), acceptor(theirs));
        let (dialed, accepted) = (dialed.unwrap_err(), accepted.unwrap_err());
        assert!(dialed.contains(reason), "{dialed}");
        assert!(accepted.contains(reason), "{accepted}");
    }
}

#[test]
fn a_dialer_without_the_secret_is_refused() {
    // It cannot check the acceptor's proof, so it goes on as if it could.
    let (_, hello) = dialer(Given { secret: 8, ..FIRST });
    let mut acceptor = acceptor(SECOND);
    let (kind, body) = open(&hello);
    let step = acceptor.handle(kind, body).unwrap();
    let (_, challenge) = open(&step.send);
    let guess = Secret([8; 32]).proof(DIALER, body, &challenge[..CHALLENGE_HEAD_BYTES]);
    let refusal = acceptor.handle(FrameKind::Proof, &guess).unwrap_err();
    assert_eq!(refusal.reason, WRONG_SECRET);
    assert_eq!(open(&refusal.send), (FrameKind::Refused, WRONG_SECRET.as_bytes()));
}

#[test]
fn a_proof_cannot_be_reflected() {
    let (_, hello) = dialer(FIRST);
    let mut acceptor = acceptor(SECOND);
    let (kind, body) = open(&hello);
    let step = acceptor.handle(kind, body).unwrap();
    let (_, challenge) = open(&step.send);
    let reflected = &challenge[CHALLENGE_HEAD_BYTES..];
    assert_eq!(acceptor.handle(FrameKind::Proof, reflected).unwrap_err().reason, WRONG_SECRET);
    // Nor can a Hello be sent back to the node that dialled.
    let mut own = Acceptor::new(identity(FIRST), [1; 32]);
    assert!(own.handle(kind, body).unwrap_err().reason.contains("this is node1"));
}

#[test]
fn an_old_handshake_cannot_be_replayed() {
    let (mut dialer, hello) = dialer(FIRST);
    let mut first = acceptor(SECOND);
    let (kind, hello) = open(&hello);
    let challenge = first.handle(kind, hello).unwrap().send;
    let (challenge_kind, body) = open(&challenge);
    let proof = dialer.handle(challenge_kind, body).unwrap().send;
    let (proof_kind, proof) = open(&proof);
    assert!(first.handle(proof_kind, proof).unwrap().done.is_some());
    let mut second = Acceptor::new(identity(SECOND), [0xad; 32]);
    second.handle(kind, hello).unwrap();
    assert_eq!(second.handle(proof_kind, proof).unwrap_err().reason, WRONG_SECRET);
}

#[test]
fn every_bit_of_the_handshake_counts() {
    let (_, hello) = dialer(FIRST);
    let (_, hello) = open(&hello);
    for bit in 0..hello.len() * 8 {
        let mut flipped = hello.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // The dialer proves what it said; the acceptor checks it against what it heard.
        let mut acceptor = acceptor(SECOND);
        let Ok(step) = acceptor.handle(FrameKind::Hello, &flipped) else { continue };
        let (_, challenge) = open(&step.send);
        let (head, acceptor_proof) = challenge.split_at(CHALLENGE_HEAD_BYTES);
        let secret = Secret([7; 32]);
        assert!(!secret.proves(ACCEPTOR, hello, head, acceptor_proof), "bit {bit}");
        let proof = secret.proof(DIALER, hello, head);
        assert!(acceptor.handle(FrameKind::Proof, &proof).is_err(), "bit {bit}");
    }
    let step = acceptor(SECOND).handle(FrameKind::Hello, hello).unwrap();
    let (_, challenge) = open(&step.send);
    for bit in 0..challenge.len() * 8 {
        let mut flipped = challenge.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (mut dialer, _) = dialer(FIRST);
        let refusal = dialer.handle(FrameKind::Challenge, &flipped).unwrap_err();
        assert_eq!(refusal.reason, WRONG_SECRET, "bit {bit}");
    }
}

#[test]
fn a_hello_for_shards_that_do_not_exist_is_refused() {
    let (_, hello) = dialer(FIRST);
    let (_, hello) = open(&hello);
    let from_at = 2 + 1 + STORE.len() + 16;
    for (at, value, reason) in [
        (from_at, 9, "no such shard"),
        (from_at, 1, "no such shard"),
        (from_at + 2, 2, "no such shard"),
        (from_at + 12, 0, "not the node dialled"),
        (from_at + 14, 3, "no such shard"),
        (0, 2, "version 2 of the cluster protocol, 1 is spoken here"),
    ] {
        let mut changed = hello.to_vec();
        changed[at] = value;
        let refusal = acceptor(SECOND).handle(FrameKind::Hello, &changed).unwrap_err();
        assert!(refusal.reason.contains(reason), "{}", refusal.reason);
    }
}

#[test]
fn truncated_and_overlong_messages_are_refused() {
    let (_, hello) = dialer(FIRST);
    let (_, hello) = open(&hello);
    for end in 0..hello.len() {
        assert!(acceptor(SECOND).handle(FrameKind::Hello, &hello[..end]).is_err(), "to {end}");
    }
    let longer = [hello, b"x"].concat();
    assert!(acceptor(SECOND).handle(FrameKind::Hello, &longer).is_err());
    let step = acceptor(SECOND).handle(FrameKind::Hello, hello).unwrap();
    let (_, challenge) = open(&step.send);
    for end in 0..challenge.len() {
        assert!(dialer(FIRST).0.handle(FrameKind::Challenge, &challenge[..end]).is_err());
    }
    for proof in [0, 31, 33] {
        let mut acceptor = acceptor(SECOND);
        acceptor.handle(FrameKind::Hello, hello).unwrap();
        assert!(acceptor.handle(FrameKind::Proof, &vec![0; proof]).is_err());
    }
}

#[test]
fn messages_out_of_turn_are_refused() {
    use FrameKind::{Challenge, Hello, Ping, Proof, Replies, Requests, Welcome};
    for kind in [Ping, Requests, Replies, Proof, Challenge, Welcome] {
        let refusal = acceptor(SECOND).handle(kind, b"").unwrap_err();
        assert_eq!(refusal.reason, format!("{kind:?} is not due in the handshake"));
    }
    // Welcome before the acceptor has proven anything, in particular.
    for kind in [Ping, Requests, Replies, Proof, Hello, Welcome] {
        let refusal = dialer(FIRST).0.handle(kind, b"").unwrap_err();
        assert_eq!(refusal.reason, format!("{kind:?} is not due in the handshake"));
    }
    let (_, hello) = dialer(FIRST);
    let (kind, hello) = open(&hello);
    let mut acceptor = acceptor(SECOND);
    acceptor.handle(kind, hello).unwrap();
    assert!(acceptor.handle(kind, hello).is_err(), "a second Hello");
}

#[test]
fn a_reason_from_elsewhere_is_fit_for_a_log() {
    let long = [b"bad\r\n\x1b[31m\xff".to_vec(), vec![b'x'; 4000]].concat();
    let refusal = dialer(FIRST).0.handle(FrameKind::Refused, &long).unwrap_err();
    assert!(refusal.reason.starts_with("node2 refused the link: bad   [31m\u{fffd}xxx"));
    assert!(refusal.reason.len() < 600);
}

#[test]
fn secrets_are_64_digits_and_not_printed() {
    assert!(Secret::from_hex(&"0f".repeat(32)).is_some());
    assert!(Secret::from_hex(&"0f".repeat(31)).is_none());
    assert_eq!(format!("{:?}", Secret([1; 32])), "Secret(..)");
    assert!(!format!("{:?}", identity(FIRST)).contains("7, 7"));
}

#[test]
fn maps_that_differ_have_other_hashes() {
    let hash = |shards: &[u16], epoch| map_hash(&map(shards, epoch));
    assert_eq!(hash(&[2, 3], 3), hash(&[2, 3], 3));
    for (shards, epoch) in [(&[3, 2][..], 3), (&[2, 3], 4), (&[2, 3, 1], 3), (&[2], 3)] {
        assert_ne!(hash(shards, epoch), hash(&[2, 3], 3));
    }
}

#[test]
fn the_messages_are_these_bytes() {
    let (mut dialer, hello) = dialer(FIRST);
    let mut acceptor = acceptor(SECOND);
    let (kind, body) = open(&hello);
    assert_eq!(hex::encode(body), GOLDEN_HELLO);
    let challenge = acceptor.handle(kind, body).unwrap().send;
    let (kind, body) = open(&challenge);
    assert_eq!(hex::encode(body), GOLDEN_CHALLENGE);
    let proof = dialer.handle(kind, body).unwrap().send;
    let (kind, body) = open(&proof);
    assert_eq!(hex::encode(body), GOLDEN_PROOF);
    let welcome = acceptor.handle(kind, body).unwrap().send;
    assert_eq!((open(&welcome), welcome.len()), ((FrameKind::Welcome, &b""[..]), HEADER_BYTES));
}

// Computed by another program.
const GOLDEN_HELLO: &str = concat!(
    "0100203031323334353637383961626364656630313233343536373839616263646566a1f4c511e1",
    "1a6b76030000000000000000000100b00000000000000001000200d1d1d1d1d1d1d1d1d1d1d1d1d1",
    "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
);
const GOLDEN_CHALLENGE: &str = concat!(
    "b100000000000000acacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacac",
    "a99a6a277d0da47db30ee33599dab8a7faf33a29537fd2349b1050d59b1df9c0",
);
const GOLDEN_PROOF: &str = "94c5a2d1c7ac248babf9af649ad84085d7432b2980074a3df8dada9548e89fa1";

/// An end of a store whose managers configure its ranges: as `given` says, in a store of nodes with these shards.
fn configured(given: Given, shards: &[u16]) -> Arc<Identity> {
    let map = Arc::new(map(shards, given.epoch));
    let (store, secret) = (StoreId(given.store.into()), Secret([given.secret; 32]));
    let (node, boot) = (NodeIndex(given.node), BootId(given.boot));
    Arc::new(Identity::new(store, map, node, boot, secret).configured())
}

#[test]
fn where_managers_configure_the_ranges_two_nodes_need_only_agree_on_each_other() {
    let pair = |dialer: Arc<Identity>, acceptor: Arc<Identity>| {
        talk(
            Dialer::new(dialer, ShardIndex(1), shard(1, 2), [0xd1; 32]),
            Acceptor::new(acceptor, [0xac; 32]),
        )
    };
    let older = Given { epoch: 2, ..FIRST };
    let (dialed, accepted) = pair(configured(older, &[2, 3]), configured(SECOND, &[2, 3, 1]));
    assert_eq!(dialed.unwrap().boot, BootId(SECOND.boot));
    assert_eq!(accepted.unwrap().boot, BootId(FIRST.boot));
    let (dialed, _) = pair(configured(FIRST, &[2, 4]), configured(SECOND, &[2, 3]));
    assert!(dialed.unwrap_err().contains("different maps"), "they differ about the second node");
    let third = Given { node: 2, boot: 0xb2, ..FIRST };
    let (dialed, _) = talk(
        Dialer::new(configured(third, &[2, 3, 2]), ShardIndex(1), shard(1, 2), [0xd1; 32]),
        Acceptor::new(configured(SECOND, &[2, 3]), [0xac; 32]),
    );
    assert!(dialed.unwrap_err().contains("no such shard"), "not known yet");
    let grown = Arc::new(configured(SECOND, &[2, 3]).with_map(Arc::new(map(&[2, 3, 2], 9))));
    let (dialed, accepted) = talk(
        Dialer::new(configured(third, &[2, 3, 2]), ShardIndex(1), shard(1, 2), [0xd1; 32]),
        Acceptor::new(grown, [0xac; 32]),
    );
    assert_eq!((dialed.is_ok(), accepted.unwrap().boot), (true, BootId(0xb2)));
}
