//! CLIENT TRACKING: clients that keep what they read are told when it may have changed.
//!
//! Two tables, both empty while nobody tracks. The shard that has the connection knows which of its clients have read a key
//! ([`Tracking::readers`]); the shard that leads the key knows which shards have such clients ([`Tracking::shards`]), because they
//! said so on the same way before they sent the read. A write, a removal by expiry or eviction included, takes the key out of
//! both, and whoever was in them is told once. A client that broadcasts wants to know of all keys with some prefixes; those
//! are told to every shard.
//!
//! Nothing is told that must not be lost: where the way to a shard breaks, where a range gets another leader, or where a table is
//! full, clients are told to forget more than they must, everything at worst. Messages leave behind the replies of all commands
//! before them, so that no reply with an older value can follow.

pub(crate) mod command;
mod redirect;
mod told;

pub(crate) use redirect::Seek;
pub(crate) use told::is_request;

use redirect::Redirect;

use crate::command::{Args, Spec};
use crate::commands::transactions;
use crate::face::SessionId;
use crate::session::{End, Session};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use dkv_protocol::slots::slot_of;

/// Messages to clients, and keys for another shard, that may wait; above it everything is to be forgotten instead.
const WAITING_MAX: usize = 4096;
/// Readers of one key of which none is looked at for whether it is still there.
const READERS_UNLOOKED: usize = 16;

/// How a connection tracks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mode {
    optin: bool,
    optout: bool,
    noloop: bool,
    bcast: bool,
    /// With BCAST at least one; the empty one is of all keys.
    prefixes: Vec<Box<[u8]>>,
    /// CLIENT CACHING was sent for the next command.
    caching: bool,
    /// Who is told instead.
    redirect: Option<Redirect>,
}

impl Mode {
    /// Whether what the next command reads is kept by the client.
    fn keeps(&self) -> bool {
        !self.bcast && if self.optin { self.caching } else { !(self.optout && self.caching) }
    }

    fn is_about(&self, key: &[u8]) -> bool {
        self.bcast && self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }
}

/// What another shard is to be told.
#[derive(Debug, Default)]
struct Outgoing {
    keys: Vec<Box<[u8]>>,
    all: bool,
}

/// What a client is to be told.
#[derive(Debug)]
struct Message {
    to: SessionId,
    /// None: of all keys.
    key: Option<Box<[u8]>>,
    way: Way,
}

/// Why a client is told something.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It keeps what it reads.
    Own,
    /// It is told instead of that connection of that shard.
    For(u16, SessionId),
    /// That connection, which was told instead of it, is gone.
    Broken(SessionId),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    /// Clients of this shard that have read a key, and keep it.
    readers: BTreeMap<Box<[u8]>, Vec<SessionId>>,
    /// How many there are of all keys together; one that is gone counts until it is looked for.
    items: usize,
    /// Other shards with such clients.
    shards: BTreeMap<Box<[u8]>, Vec<u16>>,
    /// Clients of this shard that broadcast.
    broadcasting: Vec<SessionId>,
    /// Prefixes about which clients of other shards do.
    prefixes: Vec<(u16, Box<[u8]>)>,
    /// Whether other shards must hear anew which prefixes are wanted here.
    prefixes_changed: bool,
    /// Clients of this shard that track.
    clients: u64,
    messages: VecDeque<Message>,
    /// The same for connections of other shards of this node, which are told instead of some of this one.
    elsewhere: BTreeMap<u16, VecDeque<Message>>,
    outgoing: BTreeMap<u16, Outgoing>,
    /// Whether all clients are to forget everything.
    flush: bool,
}

impl Tracking {
    /// Whether anybody wants to know of writes.
    #[inline]
    pub(crate) fn is_watching(&self) -> bool {
        !self.readers.is_empty()
            || !self.shards.is_empty()
            || !self.broadcasting.is_empty()
            || !self.prefixes.is_empty()
    }

    /// Whether there is something to tell.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.flush
            || self.prefixes_changed
            || !self.messages.is_empty()
            || !self.elsewhere.is_empty()
            || !self.outgoing.is_empty()
    }

    /// What clients of this shard have read may have changed without a word: they are to forget it.
    pub(crate) fn forget_all(&mut self) {
        self.flush |= self.clients > 0;
    }

    fn forget_readers(&mut self) {
        self.readers.clear();
        self.items = 0;
    }

    fn message(&mut self, to: SessionId, key: &[u8]) {
        if self.messages.len() >= WAITING_MAX {
            self.flush = true;
        } else {
            self.messages.push_back(Message { to, key: Some(key.into()), way: Way::Own });
        }
    }

    /// A connection of this shard is to be told instead of another one.
    fn redirected(&mut self, message: Message) {
        push_or_all(&mut self.messages, message);
    }

    /// The same for a connection of another shard.
    fn elsewhere(&mut self, shard: u16, message: Message) {
        push_or_all(self.elsewhere.entry(shard).or_default(), message);
    }

    fn outgoing(&mut self, to: u16, key: &[u8]) {
        let way = self.outgoing.entry(to).or_default();
        if way.keys.len() >= WAITING_MAX {
            way.all = true;
        }
        if way.all {
            way.keys = Vec::new();
        } else {
            way.keys.push(key.into());
        }
    }

    /// A client of this shard has read a key, and keeps it. Those that `lives` says are gone are forgotten at times.
    fn read(
        &mut self,
        key: &[u8],
        by: SessionId,
        keys_max: usize,
        lives: impl Fn(SessionId) -> bool,
    ) {
        match self.readers.get_mut(key) {
            Some(readers) if readers.contains(&by) => {}
            Some(readers) => {
                // Looked at whenever they have doubled, so that it costs each reader little.
                if readers.len() >= READERS_UNLOOKED && readers.len().is_power_of_two() {
                    let before = readers.len();
                    readers.retain(|reader| lives(*reader));
                    self.items -= before - readers.len();
                }
                readers.push(by);
                self.items += 1;
            }
            None => {
                self.readers.insert(key.into(), Vec::from([by]));
                self.items += 1;
                if self.readers.len() > keys_max
                    && let Some((key, readers)) = self.readers.pop_first()
                {
                    self.items -= readers.len();
                    for reader in readers {
                        self.message(reader, &key);
                    }
                }
            }
        }
    }

    /// Another shard has a client that reads a key, and keeps it.
    fn read_elsewhere(&mut self, key: &[u8], by: u16, keys_max: usize) {
        match self.shards.get_mut(key) {
            Some(shards) if shards.contains(&by) => {}
            Some(shards) => shards.push(by),
            None => {
                self.shards.insert(key.into(), Vec::from([by]));
                if self.shards.len() > keys_max
                    && let Some((key, shards)) = self.shards.pop_first()
                {
                    for shard in shards {
                        self.outgoing(shard, &key);
                    }
                }
            }
        }
    }
}

impl Shard {
    /// How many keys a table may have.
    fn tracked_keys_max(&self) -> usize {
        match self.env.settings.tracking_keys_max.get() {
            0 => usize::MAX,
            keys => usize::try_from(keys).unwrap_or(usize::MAX),
        }
    }

    /// A client that tracks is about to run a command: what it reads is remembered, here and by those who lead it. Break: not
    /// now, the session is stalled.
    pub(crate) fn track(
        &mut self,
        session: &mut Session,
        spec: &Spec,
        args: Args<'_>,
    ) -> ControlFlow<()> {
        let Some(mode) = &session.tracking else { return ControlFlow::Continue(()) };
        let exec = spec.name == "EXEC";
        // CLIENT CACHING in a transaction holds for all of it, though its keys are read before it is executed.
        let caches =
            exec && mode.optin && session.transaction.as_ref().is_some_and(|one| one.caches());
        let keeps = mode.keeps() || caches;
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        if exec
            && keeps
            && let Some(transaction) = &session.transaction
        {
            keys.extend(transaction.keys_read().map(Box::from));
        } else if keeps && spec.flags.contains(&"readonly") {
            keys.extend(spec.keys(args).map(Box::from));
        }
        let (me, keys_max) = (self.links.me(), self.tracked_keys_max());
        for key in keys {
            let owner = self.links.owner(slot_of(&key));
            let known = self.tracking.readers.get(&key).is_some_and(|readers| !readers.is_empty());
            if owner != me && !known && self.links.is_up(owner) {
                self.admit(session, owner)?;
                self.tell_read(owner, &key);
            }
            let lives = |id| self.sessions.get(id).is_some_and(|one| one.tracking.is_some());
            self.tracking.read(&key, session.id, keys_max, lives);
            self.table.note_removed(true);
        }
        self.gauge_tracking();
        ControlFlow::Continue(())
    }

    fn gauge_tracking(&self) {
        self.stats.tracked_keys.set(self.tracking.readers.len() as u64);
        self.stats.tracked_items.set(self.tracking.items as u64);
    }

    /// After a command of a client that tracks: CLIENT CACHING held for it alone, or for all of its transaction.
    pub(crate) fn end_caching(session: &mut Session, spec: Option<&Spec>) {
        let open = session.transaction.as_ref().is_some_and(|transaction| transaction.is_open());
        if let Some(mode) = &mut session.tracking
            && !open
            && spec.is_none_or(|spec| spec.name != "CLIENT")
        {
            mode.caching = false;
        }
    }

    /// A command that writes was executed here, for that connection if it is one of this shard.
    #[cold]
    pub(crate) fn tell_written(&mut self, spec: &Spec, args: Args<'_>, by: Option<&Session>) {
        let exec = spec.name.starts_with("DKV.EXEC");
        if matches!(spec.name, "FLUSHALL" | "FLUSHDB" | "DKV.CLEAR")
            || exec && transactions::flushes(args)
        {
            self.tracking.forget_all();
            let elsewhere = self.tracking.shards.values().flatten().copied();
            let broadcast = self.tracking.prefixes.iter().map(|(shard, _)| *shard);
            let all: Vec<u16> = elsewhere.chain(broadcast).collect();
            self.tracking.shards.clear();
            for to in all {
                let way = self.tracking.outgoing.entry(to).or_default();
                (way.all, way.keys) = (true, Vec::new());
            }
            return;
        }
        let but = by.filter(|s| s.tracking.as_ref().is_some_and(|mode| mode.noloop)).map(|s| s.id);
        if exec {
            for key in transactions::keys_written(args) {
                self.tell_changed(key, but);
            }
        } else if spec.number != u16::MAX {
            for key in spec.keys(args) {
                self.tell_changed(key, but);
            }
        }
    }

    /// A key has changed, by that connection if it is one of this shard that does not want to hear of its own writes.
    fn tell_changed(&mut self, key: &[u8], but: Option<SessionId>) {
        self.tell_own(key, but);
        let tracking = &mut self.tracking;
        if let Some(shards) = tracking.shards.remove(key) {
            for shard in shards {
                tracking.outgoing(shard, key);
            }
        }
        let wanting: Vec<u16> = tracking
            .prefixes
            .iter()
            .filter(|(_, prefix)| key.starts_with(prefix))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in wanting {
            tracking.outgoing(shard, key);
        }
    }

    /// The same for clients of this shard alone.
    fn tell_own(&mut self, key: &[u8], but: Option<SessionId>) {
        let readers = self.tracking.readers.remove(key).unwrap_or_default();
        self.tracking.items -= readers.len();
        for reader in &readers {
            if Some(*reader) != but {
                self.tracking.message(*reader, key);
            }
        }
        // Whoever is not told keeps what it has, perhaps because its write has changed nothing: of the next one it must hear.
        if let Some(own) = but.filter(|own| readers.contains(own)) {
            self.tracking.readers.insert(key.into(), Vec::from([own]));
            self.tracking.items += 1;
        }
        for at in 0..self.tracking.broadcasting.len() {
            let id = self.tracking.broadcasting[at];
            // A connection that is being worked on is looked at when the message leaves.
            let wanted = self.sessions.get(id).is_none_or(|session| is_about(session, key));
            if wanted && Some(id) != but {
                self.tracking.message(id, key);
            }
        }
    }

    /// Keys that the table has removed by itself.
    pub(crate) fn tell_removed(&mut self) {
        let removed = self.table.take_removed();
        for key in removed {
            self.tell_changed(&key, None);
        }
        self.table.note_removed(self.tracking.is_watching());
    }

    /// Puts what there is to tell on its way. To be called when no connection is being worked on.
    #[cold]
    pub(crate) fn tell_news(&mut self) {
        if core::mem::take(&mut self.tracking.flush) {
            self.tracking.messages.retain(|message| !matches!(message.way, Way::Own));
            self.tracking.forget_readers();
            let all = self.sessions.iter().filter(|session| session.tracking.is_some());
            let forget = |one: &Session| Message { to: one.id, key: None, way: Way::Own };
            self.tracking.messages.extend(all.map(forget));
        }
        while let Some(Message { to, key, way }) = self.tracking.messages.pop_front() {
            if let Way::Broken(other) = way {
                self.redirect_is_broken(to, other);
                continue;
            }
            let session = self.sessions.take(to).filter(|session| session.end == End::No);
            let Some(mut session) = session else {
                if let Way::For(shard, from) = way {
                    self.other_is_gone(shard, from, to);
                }
                continue;
            };
            match (way, &session.tracking) {
                (Way::Own, None) => {}
                (Way::Own, Some(mode)) => {
                    let about = key.as_ref().is_none_or(|key| !mode.bcast || mode.is_about(key));
                    match mode.redirect {
                        Some(other) if about => self.tell_other(to, other, key),
                        None if about => self.invalidate(&mut session, key.as_deref(), false),
                        _ => {}
                    }
                }
                _ => self.invalidate(&mut session, key.as_deref(), true),
            }
            self.settle(session);
        }
        self.send_redirected();
        self.send_told();
        self.gauge_tracking();
    }

    /// A connection is gone, or tracks no more.
    pub(crate) fn stop_tracking(&mut self, session: &mut Session) {
        let Some(mode) = session.tracking.take() else { return };
        self.tracking.clients -= 1;
        self.stats.tracking_clients.set(self.tracking.clients);
        if mode.bcast {
            self.tracking.broadcasting.retain(|id| *id != session.id);
            self.tracking.prefixes_changed = true;
        }
        if self.tracking.clients == 0 {
            self.tracking.forget_readers();
        }
        self.gauge_tracking();
    }
}

/// Appends a message; where there are too many, one of all keys takes the place of those of single ones for the same connection.
fn push_or_all(messages: &mut VecDeque<Message>, mut message: Message) {
    if messages.len() >= WAITING_MAX {
        message.key = None;
        let same = |one: &Message| one.to == message.to && one.key.is_none();
        if messages.iter().any(same) {
            return;
        }
    }
    messages.push_back(message);
}

fn is_about(session: &Session, key: &[u8]) -> bool {
    session.tracking.as_ref().is_some_and(|mode| mode.is_about(key))
}
