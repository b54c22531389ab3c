//! Publish and subscribe over the whole store.
//!
//! A subscription stands on the shard that has the subscriber's connection ([`directory`]), and nowhere else: whatever
//! becomes of ranges, a subscriber hears. Each shard tells the others in which of some buckets of channels it has
//! subscribers ([`interest`]), before it confirms the first of them; PUBLISH goes to those that may have some, as a request
//! like any other, and its reply is how many received it ([`publish`]). So it is bounded as all requests are: when the way to
//! a shard is full, the publisher's connection waits.
//!
//! What is long goes in steps. A command that has not come to its end stays where it was read from, a connection's input or
//! a batch of another shard, and is tried again at the end of the turn; how far it was is kept in the meantime. So no
//! message is ever copied but into the output of its subscribers.

mod directory;
mod interest;
mod publish;
mod query;
mod subscribe;

pub(crate) use directory::{Kind, Listening};

use crate::command::Args;
use crate::face::SessionId;
use crate::session::Session;
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use directory::{Directory, FanOut, Listing};
use interest::Interest;

/// What shards ask each other; clients cannot reach it. `DKV.PUBLISH kind channel message` answers how many received it,
/// `DKV.INTEREST + places` and `- places` say where there are subscribers and where there are none any more, each place in
/// two bytes, little endian; `?` asks for that. `DKV.PUBSUB kind pattern` answers names, and `DKV.PUBSUB # kind name…` how many listen to each.
const PUBLISH_REQUEST: &[u8] = b"DKV.PUBLISH";
const INTEREST_REQUEST: &[u8] = b"DKV.INTEREST";
const QUERY_REQUEST: &[u8] = b"DKV.PUBSUB";

const MALFORMED: &str = "ERR a request about messages that this shard does not understand";

/// Names that a command subscribes or gives up before it looks whether it has taken long.
const NAMES_AT_ONCE: usize = 128;
/// What a name or a delivery counts for pace: it is looked up in a tree, or a connection is taken out of the cold.
const UNITS_OF_NAME: u32 = 3;

/// What a shard knows of publish and subscribe. Nothing is allocated before the first subscription or message.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    directory: Directory,
    interest: Interest,
    /// By shard: what it asked last and has not been answered for, with the number of the request.
    begun: BTreeMap<u16, (u32, Begun)>,
    /// Subscriptions of connections that are gone.
    gone: Vec<(SessionId, Box<Listening>)>,
    /// A message as its subscribers get it, in RESP2 and RESP3.
    frames: [Vec<u8>; 2],
    /// Connections with subscriptions.
    clients: u64,
}

/// How far a command is that goes in steps.
#[derive(Debug)]
enum Begun {
    Publish(FanOut),
    Query(Listing),
}

/// How far a connection is with a command that goes in steps.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The argument where it goes on; 0 when nothing has begun.
    at: usize,
    begun: Option<Begun>,
}

impl Progress {
    const fn has_begun(&self) -> bool {
        self.at > 0 || self.begun.is_some()
    }
}

impl Shard {
    /// Sets the gauges.
    fn gauge_pubsub(&self) {
        let directory = &self.pubsub.directory;
        self.stats.pubsub_channels.set(directory.len(Kind::Channel) as u64);
        self.stats.pubsub_patterns.set(directory.len(Kind::Pattern) as u64);
        self.stats.pubsubshard_channels.set(directory.len(Kind::Shard) as u64);
        self.stats.pubsub_clients.set(self.pubsub.clients);
    }

    /// A connection is gone: what it was subscribed to is taken off later.
    pub(crate) fn forget_listener(&mut self, session: &mut Session) {
        let Some(listening) = session.listening.take() else { return };
        if listening.is_subscribed() {
            self.pubsub.clients -= 1;
            self.pubsub.gone.push((session.id, listening));
            self.gauge_pubsub();
        }
    }

    /// Takes off some subscriptions of connections that are gone. Whether more are left.
    pub(crate) fn take_off_gone(&mut self) -> bool {
        let mut left = NAMES_AT_ONCE;
        while let Some((id, listening)) = self.pubsub.gone.last_mut() {
            let Some((kind, name)) = listening.pop() else {
                self.pubsub.gone.pop();
                continue;
            };
            self.pubsub.directory.remove(kind, &name, *id);
            left -= 1;
            if left == 0 {
                break;
            }
        }
        self.gauge_pubsub();
        !self.pubsub.gone.is_empty()
    }

    /// Whether connections that are gone have left subscriptions behind.
    #[inline]
    pub(crate) fn has_gone_listeners(&self) -> bool {
        !self.pubsub.gone.is_empty()
    }
}

/// Whether a request of another shard is one of these.
pub(crate) fn is_request(args: Args<'_>) -> bool {
    [PUBLISH_REQUEST, INTEREST_REQUEST, QUERY_REQUEST].contains(&args.get(0))
}
