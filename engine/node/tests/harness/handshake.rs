//! Dialling a node as another node of its store would.

use super::PATIENCE;
use dkv_protocol::frame::FrameReader;
use dkv_protocol::hello::{Dialer, Identity, Secret};
use dkv_protocol::ids::{BootId, NodeIndex, ShardAddr, ShardIndex};
use dkv_protocol::launch::LaunchDocument;
use dkv_protocol::map::StoreMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// The dialling side of a handshake as the node of `document`, and its hello.
pub(crate) fn dialer(document: &LaunchDocument, nonce: u8) -> (Dialer, Vec<u8>) {
    let map = Arc::new(StoreMap::spread(document.nodes.clone(), document.epoch));
    let secret = Secret::from_hex(&document.cluster_secret).expect("64 digits");
    let identity = Identity::new(
        document.store_id.clone(),
        map,
        document.index,
        BootId(u64::from(nonce)),
        secret,
    );
    let identity = if document.replication.is_some() { identity.configured() } else { identity };
    let to = ShardAddr { node: NodeIndex(0), shard: ShardIndex(0) };
    Dialer::new(Arc::new(identity), ShardIndex(0), to, [nonce; 32])
}

/// Dials as the node of `document` would; the proven connection or the reason why not.
pub(crate) fn shake_hands(
    address: SocketAddr,
    document: &LaunchDocument,
    nonce: u8,
) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    let (mut dialer, hello) = dialer(document, nonce);
    stream.write_all(&hello).expect("sent");
    let mut reader = FrameReader::for_hello();
    let mut received = Vec::new();
    loop {
        if let Some((kind, body, used)) = reader.next(&received).expect("frames") {
            let step = dialer.handle(kind, body).map_err(|refusal| refusal.reason)?;
            received.drain(..used);
            stream.write_all(&step.send).expect("sent");
            if step.done.is_some() {
                assert!(received.is_empty(), "one byte at a time leaves none behind");
                return Ok(stream);
            }
            continue;
        }
        let mut byte = [0];
        if stream.read(&mut byte).map_err(|e| e.to_string())? == 0 {
            return Err("closed".into());
        }
        received.push(byte[0]);
    }
}
