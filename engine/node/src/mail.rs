//! What goes through the mailbox of a shard, and why a push of a batch can never fail.
//!
//! The capacity is a sum. Each of the other shards of the node may have [`BATCHES_UNDER_WAY_MAX`] batches of requests under
//! way to this one; and each batch that this one has under way to another, as many again, comes back as one batch of
//! replies, or, when the replies are great, in pieces of which all but the last take a seat of their own, one for each
//! shard that answers. Besides batches there are connections handed over by the shard that accepts, links handed over by the control
//! thread, and the word to stop; those take a seat before they are pushed and go without when none is free, so that they
//! never take the place of a batch.

use bytes::Bytes;
use dkv_io::{Inbox, Outbox, WakeHandle};
use dkv_protocol::ids::{BootId, ShardAddr, ShardIndex};
use dkv_protocol::limits::BATCHES_UNDER_WAY_MAX;
use dkv_protocol::map::StoreMap;
use dkv_protocol::ranges::RangeNews;
use dkv_protocol::users::Users;
use dkv_shard::UsersOutcome;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that may be on their way to one shard. When it does not come to take them, more than that stay where they
/// were accepted. A place in the queue costs under 100 bytes.
const CLIENT_SEATS: usize = 512;
/// Links that may be on their way to one shard. The control thread waits when there are more.
const LINK_SEATS: usize = 32;
/// Lines of news that may be on their way to one shard. The control thread waits when there are more.
const NEWS_SEATS: usize = 16;
/// Words to stop: asked nicely, and once more.
const STOP_SEATS: usize = 2;

/// One piece of mail.
pub(crate) enum Mail {
    /// Requests of another shard of this node.
    Requests {
        /// Whose.
        from: ShardIndex,
        /// As dkv-protocol encodes it.
        batch: Vec<u8>,
    },
    /// Its replies.
    Replies {
        /// Whose.
        from: ShardIndex,
        /// As dkv-protocol encodes it.
        batch: Vec<u8>,
        /// Whether replies to the same batch of requests follow. There is at most one such piece between two shards.
        more: bool,
    },
    /// A connection that came in on the client port and is to live here.
    Client(OwnedFd),
    /// A link whose other end has proved who it is.
    Link(NewLink),
    /// What the manager tells.
    News(News),
    /// Answer what was read, then end; or, the second time, end now.
    Stop {
        /// Whether to end at once.
        now: bool,
    },
}

/// See [`Mail::News`].
#[derive(Clone)]
pub(crate) enum News {
    /// Configurations of ranges.
    Ranges(Arc<[RangeNews]>),
    /// The nodes of the store; more than before, or the same.
    Nodes(Arc<StoreMap>),
    /// The users of the store.
    Users(Arc<Users>),
    /// What became of a change of users, for the shard that asked for it alone.
    UsersDecided { number: u64, outcome: UsersOutcome },
}

/// See [`Mail::Link`].
pub(crate) struct NewLink {
    /// The shard at the other end.
    pub(crate) peer: ShardAddr,
    /// The boot of its node.
    pub(crate) boot: BootId,
    /// Whether this side dialled: it asks and the other answers.
    pub(crate) dialled: bool,
    /// The connection.
    pub(crate) socket: OwnedFd,
    /// What came in behind the handshake.
    pub(crate) received: Bytes,
}

/// The sending end of a shard's mailbox.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) outbox: Outbox<Mail>,
    client_seats: Arc<AtomicUsize>,
    link_seats: Arc<AtomicUsize>,
    news_seats: Arc<AtomicUsize>,
    /// For each shard of the node whether no piece of replies of it is on its way.
    piece_seats: Arc<[AtomicUsize]>,
}

/// The receiving end.
pub(crate) struct Letterbox {
    pub(crate) inbox: Inbox<Mail>,
    client_seats: Arc<AtomicUsize>,
    link_seats: Arc<AtomicUsize>,
    news_seats: Arc<AtomicUsize>,
    /// For each shard of the node whether no piece of replies of it is on its way.
    piece_seats: Arc<[AtomicUsize]>,
}

/// The mailbox of one of a node's `shards`.
pub(crate) fn letterbox(shards: usize, wake: WakeHandle) -> (Letterbox, Post) {
    let batches = 2 * (shards - 1) * BATCHES_UNDER_WAY_MAX;
    let others = shards + CLIENT_SEATS + LINK_SEATS + NEWS_SEATS + STOP_SEATS;
    let (inbox, outbox) = dkv_io::mailbox(batches + others, wake);
    let piece_seats: Arc<[AtomicUsize]> = (0..shards).map(|_| AtomicUsize::new(1)).collect();
    let client_seats = Arc::new(AtomicUsize::new(CLIENT_SEATS));
    let link_seats = Arc::new(AtomicUsize::new(LINK_SEATS));
    let news_seats = Arc::new(AtomicUsize::new(NEWS_SEATS));
    let letterbox = Letterbox {
        inbox,
        client_seats: Arc::clone(&client_seats),
        link_seats: Arc::clone(&link_seats),
        news_seats: Arc::clone(&news_seats),
        piece_seats: Arc::clone(&piece_seats),
    };
    (letterbox, Post { outbox, client_seats, link_seats, news_seats, piece_seats })
}

impl Post {
    /// Takes a seat for a connection; `false` when none is free.
    pub(crate) fn take_client_seat(&self) -> bool {
        take_seat(&self.client_seats)
    }

    /// Takes the seat for a piece of the replies of `from` that is not the last; `false` when the last such piece has not
    /// been taken.
    pub(crate) fn take_piece_seat(&self, from: ShardIndex) -> bool {
        take_seat(&self.piece_seats[usize::from(from.0)])
    }

    /// Connections on their way to this shard.
    pub(crate) fn clients_on_their_way(&self) -> usize {
        CLIENT_SEATS - self.client_seats.load(Ordering::Relaxed).min(CLIENT_SEATS)
    }

    /// Hands a link over from the control thread; it comes back when no seat is free.
    pub(crate) fn hand_link(&self, link: NewLink) -> Result<(), NewLink> {
        if !take_seat(&self.link_seats) {
            return Err(link);
        }
        self.outbox.push_and_wake(Mail::Link(link)).map_err(|mail| match mail {
            Mail::Link(link) => link,
            _ => unreachable!("a full mailbox gives back what it was given"),
        })
    }

    /// Hands news over from the control thread; `false` when no seat is free.
    pub(crate) fn hand_news(&self, news: &News) -> bool {
        take_seat(&self.news_seats) && self.outbox.push_and_wake(Mail::News(news.clone())).is_ok()
    }

    /// Tells the shard to stop, from the control thread. A word beyond [`STOP_SEATS`] adds nothing and may be lost.
    pub(crate) fn stop(&self, now: bool) {
        let _ = self.outbox.push_and_wake(Mail::Stop { now });
    }
}

impl Letterbox {
    /// The next piece of mail; its seat, if it had one, is free again.
    pub(crate) fn pop(&mut self) -> Option<Mail> {
        let mail = self.inbox.pop()?;
        match mail {
            Mail::Client(_) => self.client_seats.fetch_add(1, Ordering::Release),
            Mail::Link(_) => self.link_seats.fetch_add(1, Ordering::Release),
            Mail::News(_) => self.news_seats.fetch_add(1, Ordering::Release),
            Mail::Replies { from, more: true, .. } => {
                self.piece_seats[usize::from(from.0)].fetch_add(1, Ordering::Release)
            }
            Mail::Requests { .. } | Mail::Replies { .. } | Mail::Stop { .. } => 0,
        };
        Some(mail)
    }
}

fn take_seat(seats: &AtomicUsize) -> bool {
    seats.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_batch_never_takes_the_place_of_one() {
        let shards = 3;
        let (mut letterbox, post) = letterbox(shards, WakeHandle::new().expect("an eventfd"));
        let socket = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let mut handed = 0;
        while post.take_client_seat() {
            assert!(post.outbox.push(Mail::Client(socket())).is_ok());
            handed += 1;
        }
        assert_eq!((handed, post.clients_on_their_way()), (CLIENT_SEATS, CLIENT_SEATS));
        let link = || NewLink {
            peer: ShardAddr { node: dkv_protocol::ids::NodeIndex(1), shard: ShardIndex(0) },
            boot: BootId(1),
            dialled: true,
            socket: socket(),
            received: Bytes::new(),
        };
        let mut links = 0;
        while post.hand_link(link()).is_ok() {
            links += 1;
        }
        assert_eq!(links, LINK_SEATS);
        let news = News::Ranges(Arc::new([]));
        assert_eq!(
            std::iter::repeat_with(|| post.hand_news(&news)).take_while(|ok| *ok).count(),
            NEWS_SEATS
        );
        post.stop(false);
        post.stop(true);
        for from in (0..shards as u16).map(ShardIndex) {
            assert!(post.take_piece_seat(from) && !post.take_piece_seat(from));
            assert!(
                post.outbox.push(Mail::Replies { from, batch: Vec::new(), more: true }).is_ok()
            );
        }
        for n in 0..2 * (shards - 1) * BATCHES_UNDER_WAY_MAX {
            let mail = Mail::Requests { from: ShardIndex(1), batch: Vec::new() };
            assert!(post.outbox.push(mail).is_ok(), "batch {n} has a place");
        }
        while letterbox.pop().is_some() {}
        assert_eq!(post.clients_on_their_way(), 0);
        assert!(post.take_client_seat() && post.hand_link(link()).is_ok() && post.hand_news(&news));
        assert!(post.take_piece_seat(ShardIndex(2)));
    }
}
