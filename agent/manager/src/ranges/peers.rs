//! Messages of the log to the other managers: over their admin API, signed like any call, one thread for each of them.
//!
//! A message that cannot be sent is dropped, which the log is made for; only that it may be lost is told.

use super::Ranges;
use crate::auth::Token;
use crate::client::{AdminClient, AdminError};
use dkv_catalog::MemberId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Messages to one manager that may wait.
const WAITING_MAX: usize = 256;
/// Bytes of messages in one call; a single one may be longer.
const CALL_BYTES_SOFT_MAX: usize = 512 * 1024;
/// Most time of a call. A manager that is slower than that is as good as away.
const CALL_MAX: Duration = Duration::from_secs(2);

/// All other managers.
pub(crate) struct Peers {
    token: Token,
    by_member: BTreeMap<MemberId, SyncSender<Vec<u8>>>,
}

impl Peers {
    pub(crate) fn new(token: Token) -> Self {
        Self { token, by_member: BTreeMap::new() }
    }

    /// Sends a message, or drops it.
    pub(super) fn send(
        &mut self,
        ranges: &Arc<Ranges>,
        to: MemberId,
        machine: &str,
        message: Vec<u8>,
    ) {
        if !self.by_member.contains_key(&to) {
            self.begin(ranges, to, machine);
        }
        let sent = self.by_member.get(&to).map(|peer| peer.try_send(message));
        if let Some(Err(TrySendError::Disconnected(_))) = sent {
            self.by_member.remove(&to);
        }
    }

    /// Begins a thread for a member.
    fn begin(&mut self, ranges: &Arc<Ranges>, to: MemberId, machine: &str) {
        let Ok(address) = machine.parse::<SocketAddr>() else { return };
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let client = AdminClient::new(address, self.token.clone(), CALL_MAX);
        let ranges = Arc::downgrade(ranges);
        let name = format!("to {machine}");
        let begun = std::thread::Builder::new().name(name).spawn(move || {
            while let Some(messages) = next(&receiver) {
                let Some(ranges) = ranges.upgrade() else { return };
                let sent = client.send_messages(&ranges.machine, &messages);
                match sent {
                    Ok(None) => {}
                    Ok(Some(_)) => ranges.stranger(client.manager()),
                    Err(AdminError::Refused { error, .. }) => {
                        tracing::debug!(
                            to = client.manager(),
                            reason = error.message,
                            "refused a message"
                        );
                    }
                    Err(_) => ranges.unreachable(to),
                }
            }
        });
        if begun.is_ok() {
            self.by_member.insert(to, sender);
        }
    }
}

/// Waits for a message, and takes those with it that are there. None when nobody sends any more.
fn next(receiver: &Receiver<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let first = receiver.recv().ok()?;
    let mut bytes = first.len();
    let mut messages = vec![first];
    while bytes < CALL_BYTES_SOFT_MAX {
        let Ok(more) = receiver.try_recv() else { break };
        bytes += more.len();
        messages.push(more);
    }
    Some(messages)
}

/// Messages as the body of a call: the machine that sends on a line of its own, then each with its length before it.
pub(crate) fn encode(from: &str, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut body = from.as_bytes().to_vec();
    body.push(b'\n');
    for message in messages {
        body.extend_from_slice(&(message.len() as u32).to_le_bytes());
        body.extend_from_slice(message);
    }
    body
}

/// The machine and the messages in a body; none when it is not one.
pub(crate) fn decode(body: &[u8]) -> Option<(&str, Vec<Vec<u8>>)> {
    let end = body.iter().position(|byte| *byte == b'\n')?;
    let from = std::str::from_utf8(&body[..end]).ok()?;
    let mut rest = &body[end + 1..];
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (message, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        messages.push(message.to_vec());
        rest = behind;
    }
    Some((from, messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_whole_or_not_at_all() {
        let messages = vec![vec![1, 2, 3], vec![], vec![10; 300]];
        let body = encode("10.0.0.11:7801", &messages);
        assert_eq!(decode(&body), Some(("10.0.0.11:7801", messages)));
        assert_eq!(decode(&encode("m", &[])), Some(("m", vec![])));
        for bad in [&b""[..], b"m", b"m\n\x01", b"m\n\x02\0\0\0x", b"\xff\n"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
